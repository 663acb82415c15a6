//! What a template sees: the cells of a row over the job's `vars`, looked up when they are asked
//! for. A column hides a var of the same name, for the row is nearer to the reader.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::ZonedDateTime;
use jiff::civil::Date;
use minijinja::Value;
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr};
use serde_json::Value as Json;

use crate::letter::{Cell, Columns, Piece, Row};

/// The names a template may use, and where their values are. Made once for a job.
#[derive(Debug)]
pub(super) struct Names {
    slots: HashMap<String, Slot, BuildHasherDefault<NameHasher>>,
    /// The list's columns as they were when the templates were compiled.
    columns: Vec<String>,
    /// Whether rows may have other columns than these.
    loose: bool,
    /// Which columns some template asks for; `None`: any of them may be.
    used: Option<Vec<usize>>,
}

#[derive(Debug)]
enum Slot {
    Column(usize),
    Var(Value),
}

impl Names {
    /// The names of `vars` and of the list's columns, where these are known.
    pub(super) fn new(vars: &serde_json::Map<String, Json>, columns: Option<&Columns>) -> Names {
        let mut slots = HashMap::default();
        for (name, value) in vars {
            slots.insert(name.clone(), Slot::Var(json(value)));
        }
        let known = columns.filter(|columns| !columns.is_loose()).map_or(&[][..], Columns::names);
        for (place, name) in known.iter().enumerate().rev() {
            slots.insert(name.clone(), Slot::Column(place));
        }
        let loose = columns.is_none_or(Columns::is_loose);
        Names { slots, columns: known.to_vec(), loose, used: None }
    }

    /// From now on, only these columns are made values of: no template asks for another.
    pub(super) fn use_only(&mut self, asked: impl Fn(&str) -> bool) {
        self.used = Some((0..self.columns.len()).filter(|&place| asked(&self.columns[place])).collect());
    }

    /// Whether a name has a value in every row: a column of a list whose rows are alike, or a var.
    pub(super) fn has(&self, name: &str) -> bool {
        self.slots.contains_key(name)
    }

    /// Whether it is known which columns a row has.
    pub(super) fn knows_columns(&self) -> bool {
        !self.loose
    }

    /// The list's columns, where they are known.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All that may be written: columns first, then vars.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let vars = self.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Var(_)));
        self.columns.iter().map(String::as_str).chain(vars.map(|(name, _)| name.as_str()))
    }

    /// The value of a var that no column hides.
    pub(super) fn var(&self, name: &str) -> Option<&Value> {
        match self.slots.get(name)? {
            Slot::Var(value) => Some(value),
            Slot::Column(_) => None,
        }
    }
}

/// The root of a template's names: one row, or none, over the vars.
#[derive(Debug)]
pub(super) struct Context {
    names: Arc<Names>,
    columns: Option<Arc<Columns>>,
    /// The row has the very columns that `names` knows.
    alike: bool,
    cells: Vec<Value>,
    now: Value,
    /// Pictures that the HTML of this row asks for, found out while it is rendered.
    images: Mutex<Vec<(String, Vec<Piece>)>>,
}

impl Context {
    /// The names of a row; `None` where a template may only see vars.
    pub(super) fn new(names: &Arc<Names>, row: Option<&Row>, now: &Value) -> Context {
        let alike = row.is_some_and(|row| row.columns.names() == names.columns);
        let cells = match (row, &names.used) {
            (Some(row), Some(used)) if alike => {
                let mut cells = vec![Value::UNDEFINED; row.cells.len()];
                for &place in used {
                    if let (Some(slot), Some(value)) = (cells.get_mut(place), row.cells.get(place)) {
                        *slot = cell(value);
                    }
                }
                cells
            }
            (Some(row), _) => row.cells.iter().map(cell).collect(),
            (None, _) => Vec::new(),
        };
        Context {
            names: names.clone(),
            columns: row.map(|row| row.columns.clone()),
            alike,
            cells,
            now: now.clone(),
            images: Mutex::default(),
        }
    }

    /// Notes a picture and gives the content-id it is shown by.
    pub(super) fn note_image(&self, cid: &str, file: Vec<Piece>) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if !images.iter().any(|(known, _)| known == cid) {
            images.push((cid.to_owned(), file));
        }
    }

    /// The pictures noted so far.
    pub(super) fn take_images(&self) -> Vec<(String, Vec<Piece>)> {
        std::mem::take(&mut *self.images.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn of_row(&self, name: &str) -> Option<Value> {
        let columns = self.columns.as_ref()?;
        columns.place(name).and_then(|place| self.cells.get(place)).cloned()
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        let slot = self.names.slots.get(name);
        match slot {
            Some(Slot::Column(place)) if self.alike => return self.cells.get(*place).cloned(),
            Some(Slot::Var(value)) if self.alike || self.columns.is_none() => return Some(value.clone()),
            None if self.alike || self.columns.is_none() => {}
            // The rows of this list are not alike, or the list was read anew.
            _ => {
                if let Some(value) = self.of_row(name) {
                    return Some(value);
                }
                if let Some(Slot::Var(value)) = slot {
                    return Some(value.clone());
                }
            }
        }
        match name {
            "row" if self.columns.is_some() => Some(Value::from_object(WholeRow(self.clone()))),
            "now" => Some(self.now.clone()),
            HIDDEN => Some(Value::from_dyn_object(self.clone())),
            _ => None,
        }
    }
}

/// The name under which a function finds the context it is called in; no template can write it.
pub(super) const HIDDEN: &str = "\0context";

/// `row`: the cells by any name, `row["First Name"]`.
#[derive(Debug)]
struct WholeRow(Arc<Context>);

impl Object for WholeRow {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        self.0.of_row(name)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let columns = self.0.columns.as_ref();
        Enumerator::Values(
            columns.map_or(&[][..], |columns| columns.names()).iter().map(Value::from).collect(),
        )
    }
}

/// A cell as a template has it.
pub(super) fn cell(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::from(()),
        Cell::Text(text) => Value::from(text.as_str()),
        Cell::Bool(value) => Value::from(*value),
        Cell::Int(number) => Value::from(*number),
        Cell::Float(number) => Value::from(*number),
        Cell::Date(date) => Value::from_object(Moment::Day(*date)),
        Cell::Nested(value) => json(value),
    }
}

/// JSON as a template has it.
pub(super) fn json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(json).collect::<Vec<_>>()),
        Json::Object(fields) => Value::from_object(Record(
            fields.iter().map(|(name, value)| (Arc::from(name.as_str()), json(value))).collect(),
        )),
    }
}

/// An object of the job's vars or of a JSON row. It has few fields and is asked for them in every
/// turn of a loop: going through them is faster than an ordered map of values.
#[derive(Debug)]
struct Record(Vec<(Arc<str>, Value)>);

impl Object for Record {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(name)).collect())
    }
}

/// A date, or a moment in the job's time zone. Printed it is ISO 8601; `date` writes it otherwise.
#[derive(Debug, Clone)]
pub(super) enum Moment {
    /// A date of the calendar.
    Day(Date),
    /// A moment, as a clock there shows it.
    Instant(Box<ZonedDateTime>),
}

impl Moment {
    fn day(&self) -> Date {
        match self {
            Moment::Day(date) => *date,
            Moment::Instant(zoned) => zoned.date(),
        }
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let day = self.day();
        let time = match &**self {
            Moment::Day(_) => None,
            Moment::Instant(zoned) => Some(zoned.time()),
        };
        match key.as_str()? {
            "year" => Some(Value::from(day.year())),
            "month" => Some(Value::from(day.month())),
            "day" => Some(Value::from(day.day())),
            "weekday" => Some(Value::from(day.weekday().to_monday_one_offset())),
            "hour" => time.map(|time| Value::from(time.hour())),
            "minute" => time.map(|time| Value::from(time.minute())),
            "second" => time.map(|time| Value::from(time.second())),
            _ => None,
        }
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Moment>()?;
        match (&**self, other) {
            (Moment::Instant(one), Moment::Instant(other)) => Some(one.timestamp().cmp(&other.timestamp())),
            (one, other) => Some(one.day().cmp(&other.day())),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &**self {
            Moment::Day(date) => write!(f, "{date}"),
            Moment::Instant(zoned) => f.write_str(&zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()),
        }
    }
}

/// FNV-1a: names are short, come from the job and its list, and are looked up for every `{{ }}`.
#[derive(Debug)]
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
