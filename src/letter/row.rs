//! One row of the recipients' list, whatever the file it came from, and its form in the ledger.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;

/// The names of a list's columns, in order, shared by all its rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
    loose: bool,
}

impl Columns {
    /// Column names in order. Of two equal names the first wins; readers refuse such lists before.
    pub fn new(names: Vec<String>) -> Columns {
        let mut places = HashMap::with_capacity(names.len());
        for (place, name) in names.iter().enumerate() {
            places.entry(name.clone()).or_insert(place);
        }
        Columns { names, places, loose: false }
    }

    /// The names of one row of a list whose rows need not be alike (JSON objects). Such a row
    /// carries its names into the ledger; see [`Row::to_json`].
    pub fn loose(names: Vec<String>) -> Columns {
        Columns { loose: true, ..Columns::new(names) }
    }

    /// Whether other rows of the list may have other names.
    pub fn is_loose(&self) -> bool {
        self.loose
    }

    /// The names in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the column of this name is.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }
}

/// A value in a row. CSV cells are text unless `columns:` says otherwise; JSON keeps its types.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing: never printed; a template that prints it fails the row.
    Null,
    /// Text.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A calendar date.
    Date(jiff::civil::Date),
    /// A list or an object of a JSON source.
    Nested(Json),
}

/// One row: its number in the source, and a cell for each column.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Data rows count from 1; a CSV header is not a row.
    pub number: u64,
    /// The line of the list it begins in, while it is read from a list that has lines.
    pub line: Option<u64>,
    /// The names of the cells.
    pub columns: Arc<Columns>,
    /// The cells, as many as there are columns.
    pub cells: Vec<Cell>,
}

impl Row {
    /// The cell of a column.
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.columns.place(name).and_then(|place| self.cells.get(place))
    }

    /// The row as the ledger keeps it: a JSON array of cells, or, where rows need not be alike,
    /// an object of names and cells. Dates are `{"$date":"2026-11-23"}` and nested values
    /// `{"$json":…}`, so that no value of a list can be taken for another kind. Equal rows have
    /// equal texts.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(24 * self.cells.len() + 2);
        self.write_json(&mut out);
        out
    }

    /// [`Row::to_json`] at the end of a buffer that is used again.
    pub fn write_json(&self, out: &mut String) {
        let loose = self.columns.loose;
        out.push(if loose { '{' } else { '[' });
        for (place, cell) in self.cells.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            if let Some(name) = self.columns.names.get(place).filter(|_| loose) {
                write_text(out, name);
                out.push(':');
            }
            write_cell(out, cell);
        }
        out.push(if loose { '}' } else { ']' });
    }

    /// Reads what [`Row::to_json`] wrote; `columns` are the list's. `None` when the text is no
    /// row of these columns: then the ledger belongs to another list, or was written by hand.
    pub fn from_json(number: u64, text: &str, columns: &Arc<Columns>) -> Option<Row> {
        let mut reader = Reader { text, at: 0 };
        let row = match reader.byte()? {
            b'[' => {
                let mut cells = Vec::with_capacity(columns.names.len());
                reader.list(b']', |reader| reader.cell().map(|cell| cells.push(cell)))?;
                (cells.len() == columns.names.len()).then(|| Row {
                    number,
                    line: None,
                    columns: columns.clone(),
                    cells,
                })?
            }
            b'{' => {
                let mut cells = Vec::with_capacity(columns.names.len());
                let mut names = Vec::with_capacity(columns.names.len());
                reader.list(b'}', |reader| {
                    names.push(reader.after(b'"')?.string()?);
                    cells.push(reader.after(b':')?.cell()?);
                    Some(())
                })?;
                // Most lists of objects are alike after all: then the names are held once.
                let alike = columns.loose && columns.names == names;
                let columns = if alike { columns.clone() } else { Arc::new(Columns::loose(names)) };
                Row { number, line: None, columns, cells }
            }
            _ => return None,
        };
        (reader.at == text.len()).then_some(row)
    }
}

fn write_cell(out: &mut String, cell: &Cell) {
    // Writing to a `String` cannot fail, nor can serialising a `Value`.
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::Text(text) => write_text(out, text),
        Cell::Bool(true) => out.push_str("true"),
        Cell::Bool(false) => out.push_str("false"),
        Cell::Int(int) => _ = write!(out, "{int}"),
        Cell::Float(float) if float.is_finite() => _ = write!(out, "{float:?}"),
        Cell::Float(float) => _ = write!(out, "{{\"$float\":\"{float:?}\"}}"),
        Cell::Date(date) => _ = write!(out, "{{\"$date\":\"{date}\"}}"),
        Cell::Nested(json) => _ = write!(out, "{{\"$json\":{json}}}"),
    }
}

/// A JSON string. Stretches that need no escape, which are nearly all, are copied whole.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => _ = write!(out, "\\u{control:04x}"),
        }
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

/// Reads our own JSON, which has no white space between its tokens.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn after(&mut self, expected: u8) -> Option<&mut Self> {
        (self.byte()? == expected).then_some(self)
    }

    /// Entries between commas up to `end`; the opening bracket is read.
    fn list(&mut self, end: u8, mut entry: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.text.as_bytes().get(self.at) == Some(&end) {
            self.at += 1;
            return Some(());
        }
        loop {
            entry(self)?;
            match self.byte()? {
                b',' => {}
                byte if byte == end => return Some(()),
                _ => return None,
            }
        }
    }

    fn cell(&mut self) -> Option<Cell> {
        let start = self.at;
        match self.byte()? {
            b'"' => self.string().map(Cell::Text),
            b'n' => self.word("ull", Cell::Null),
            b't' => self.word("rue", Cell::Bool(true)),
            b'f' => self.word("alse", Cell::Bool(false)),
            b'{' => self.wrapped(),
            b'-' | b'0'..=b'9' => {
                let rest = &self.text.as_bytes()[self.at..];
                let more =
                    rest.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
                self.at += more.count();
                let number = &self.text[start..self.at];
                match number.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                    true => number.parse().ok().map(Cell::Float),
                    false => number.parse().ok().map(Cell::Int),
                }
            }
            _ => None,
        }
    }

    fn word(&mut self, rest: &str, cell: Cell) -> Option<Cell> {
        let found = self.text.get(self.at..)?.starts_with(rest);
        self.at += rest.len();
        found.then_some(cell)
    }

    /// The rest of a string whose opening quote is read.
    fn string(&mut self) -> Option<String> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let sign = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += sign + 1;
            match rest[sign] {
                b'"' if escaped => return serde_json::from_str(&self.text[start - 1..self.at]).ok(),
                b'"' => return Some(self.text[start..self.at - 1].to_owned()),
                _ => {
                    escaped = true;
                    self.byte()?;
                }
            }
        }
    }

    /// The rest of `{"$date":…}`, `{"$json":…}` or `{"$float":…}`.
    fn wrapped(&mut self) -> Option<Cell> {
        let sign = self.after(b'"')?.string()?;
        self.after(b':')?;
        let cell = match sign.as_str() {
            "$date" => self.after(b'"')?.string()?.parse().ok().map(Cell::Date)?,
            "$float" => self.after(b'"')?.string()?.parse().ok().map(Cell::Float)?,
            "$json" => {
                let rest = self.text.get(self.at..)?;
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
                let value = values.next()?.ok()?;
                self.at += values.byte_offset();
                Cell::Nested(value)
            }
            _ => return None,
        };
        self.after(b'}')?;
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn rows_are_written_without_doubt() {
        let names = || ["a"].map(str::to_owned).to_vec();
        for (cell, expected) in [
            (Cell::Null, r#"[null]"#),
            (Cell::Text("O\"Neil\\\r\n\0,".into()), r#"["O\"Neil\\\r\n\u0000,"]"#),
            (Cell::Text("{\"$date\":\"2026-11-23\"}".into()), r#"["{\"$date\":\"2026-11-23\"}"]"#),
            (Cell::Bool(false), "[false]"),
            (Cell::Int(i64::MIN), "[-9223372036854775808]"),
            (Cell::Float(1.0), "[1.0]"),
            (Cell::Float(1e300), "[1e300]"),
            (Cell::Float(f64::INFINITY), r#"[{"$float":"inf"}]"#),
            (Cell::Date(jiff::civil::date(2026, 11, 23)), r#"[{"$date":"2026-11-23"}]"#),
            (Cell::Nested(json!({"$date": "x"})), r#"[{"$json":{"$date":"x"}}]"#),
            (Cell::Nested(json!(u64::MAX)), r#"[{"$json":18446744073709551615}]"#),
        ] {
            let row =
                Row { number: 7, line: None, columns: Arc::new(Columns::new(names())), cells: vec![cell] };
            assert_eq!(row.to_json(), expected);
            assert_eq!(Row::from_json(7, expected, &row.columns).as_ref(), Some(&row));
            let loose = Row { columns: Arc::new(Columns::loose(names())), ..row };
            assert_eq!(Row::from_json(7, &loose.to_json(), &Arc::default()), Some(loose));
        }
    }

    #[test]
    fn what_is_no_row_of_the_list_is_refused() {
        let columns = Arc::new(Columns::new(vec!["a".into(), "b".into()]));
        for text in [
            "",
            "[",
            "[]",
            "[1]",
            "[1,2,3]",
            "[1,2] ",
            "[1,,2]",
            "[1,2",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "[1,\"x]",
            "[1,\"x\\",
            "[nul,1]",
            "[1,{\"$date\":\"2026-13-01\"}]",
            "[1,{\"$dat\":1}]",
            "[1,--]",
            "[1,{\"$json\":}]",
            "[tru€,1]",
            "[1,99999999999999999999]",
            "7",
        ] {
            assert_eq!(Row::from_json(1, text, &columns), None, "{text}");
        }
    }

    fn cell() -> impl Strategy<Value = Cell> {
        let json = prop_oneof![
            Just(json!(null)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<String>().prop_map(|text| json!([text, {"$json": text}])),
        ];
        prop_oneof![
            Just(Cell::Null),
            any::<String>().prop_map(Cell::Text),
            "[\\x00-\\x7f]{0,12}".prop_map(Cell::Text),
            any::<bool>().prop_map(Cell::Bool),
            any::<i64>().prop_map(Cell::Int),
            any::<f64>().prop_filter("NaN is not equal to itself", |f| !f.is_nan()).prop_map(Cell::Float),
            (-9999i16..=9999, 1i8..=12, 1i8..=28)
                .prop_map(|(y, m, d)| Cell::Date(jiff::civil::date(y, m, d))),
            json.prop_map(Cell::Nested),
        ]
    }

    proptest! {
        #[test]
        fn every_row_comes_back(
            cells in proptest::collection::vec((any::<String>(), cell()), 0..8),
            loose in any::<bool>(),
        ) {
            let (names, cells): (Vec<_>, Vec<_>) = cells.into_iter().unzip();
            let columns = Arc::new(if loose { Columns::loose(names) } else { Columns::new(names) });
            let row = Row { number: 1, line: None, columns, cells };
            let text = row.to_json();
            prop_assert!(serde_json::from_str::<Json>(&text).is_ok(), "{}", text);
            prop_assert_eq!(Row::from_json(1, &text, &row.columns), Some(row));
        }

        #[test]
        fn no_text_is_a_panic(text in any::<String>(), broken in "[\\[\\]{}\",:\\\\$a-e0-9.é-]{0,40}") {
            let columns = Arc::new(Columns::new(vec!["a".into()]));
            let _ = Row::from_json(1, &text, &columns);
            let _ = Row::from_json(1, &broken, &columns);
        }
    }
}
