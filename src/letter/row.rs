//! One row of the recipients' list, whatever the file it came from.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

/// The names of a list's columns, in order, shared by all its rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Columns {
    /// Column names in order. Of two equal names the first wins; readers refuse such lists before.
    pub fn new(names: Vec<String>) -> Columns {
        let mut places = HashMap::with_capacity(names.len());
        for (place, name) in names.iter().enumerate() {
            places.entry(name.clone()).or_insert(place);
        }
        Columns { names, places }
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
}
