//! Lists of objects: a JSON array, JSON Lines, a YAML sequence, a list in the job itself. The
//! elements of an array are cut out of the text by their brackets and read one by one, so that
//! neither the array is held nor one broken element takes the others with it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use crate::letter::{Cell, Columns};

use super::RecipientsError;
use super::cell;
use super::input::Input;
use super::table::MAX_ROW;

/// The longest YAML list. YAML is read whole before its first row is known, so it is for lists
/// that a person writes; longer ones are CSV or JSON Lines.
const MAX_YAML: usize = 8 << 20;

/// The most names of one object: each is compared with those before it.
const MAX_NAMES: usize = 1000;

/// An object as it was read, names in the order of the source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) names: Vec<String>,
    pub(super) cells: Vec<Cell>,
}

/// One element of a list: an object, or why it is none.
pub(super) struct Element {
    pub(super) line: Option<u64>,
    pub(super) object: Result<Object, String>,
}

/// The elements of a list of objects.
pub(super) enum Objects {
    Array(Array),
    Lines(Input),
    /// Read whole; with the hash of what was read.
    Held(VecDeque<Element>, [u8; 32]),
}

impl Objects {
    pub(super) fn array(input: Input) -> Objects {
        Objects::Array(Array { input, stage: Stage::Before })
    }

    pub(super) fn lines(input: Input) -> Objects {
        Objects::Lines(input)
    }

    /// Reads a YAML sequence of mappings.
    pub(super) fn yaml(mut input: Input) -> Result<Objects, RecipientsError> {
        while input.window().len() <= MAX_YAML {
            if !input.fill()? {
                let list = yaml_list(&input)?;
                return Ok(Objects::Held(list, input.hash()));
            }
        }
        Err(RecipientsError::TooLong { file: input.file.clone(), limit: MAX_YAML, what: "a YAML list" })
    }

    /// A list that stands in the job.
    pub(super) fn inline(list: &[Json]) -> Objects {
        let mut hasher = blake3::Hasher::new();
        let elements = list.iter().map(|json| {
            hasher.update(json.to_string().as_bytes());
            hasher.update(b"\n");
            Element { line: None, object: Object::deserialize(json).map_err(|error| reason(&error)) }
        });
        let elements = elements.collect();
        Objects::Held(elements, hasher.finalize().into())
    }

    /// The columns, where the whole list is known and all its objects have the same ones.
    pub(super) fn columns(&self) -> Option<Arc<Columns>> {
        let Objects::Held(elements, _) = self else { return None };
        let mut objects = elements.iter().filter_map(|element| element.object.as_ref().ok());
        let first = objects.next()?;
        objects.all(|other| other.names == first.names).then(|| Arc::new(Columns::new(first.names.clone())))
    }

    pub(super) fn next(&mut self, row: u64) -> Result<Option<Element>, RecipientsError> {
        match self {
            Objects::Array(array) => {
                array.input.row = row;
                array.next()
            }
            Objects::Lines(input) => {
                input.row = row;
                next_line(input)
            }
            Objects::Held(elements, _) => Ok(elements.pop_front()),
        }
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        match self {
            Objects::Array(array) => array.input.hash(),
            Objects::Lines(input) => input.hash(),
            Objects::Held(_, hash) => *hash,
        }
    }
}

fn yaml_list(input: &Input) -> Result<VecDeque<Element>, RecipientsError> {
    let text = input.window();
    if text.trim().is_empty() {
        return Ok(VecDeque::new());
    }
    let syntax = |line, reason| RecipientsError::Syntax { file: input.file.clone(), line, reason };
    let list: serde_yaml::Value = serde_yaml::from_str(text)
        .map_err(|error| syntax(error.location().map_or(1, |at| at.line() as u64), reason(&error)))?;
    let serde_yaml::Value::Sequence(list) = list else {
        return Err(syntax(
            1,
            "a list is expected: `- email: ada@example.org`, one for each recipient".into(),
        ));
    };
    let elements = list.into_iter().map(|value| Element {
        line: None,
        object: Object::deserialize(value).map_err(|error| reason(&error)),
    });
    Ok(elements.collect())
}

/// The next line that is not empty.
fn next_line(input: &mut Input) -> Result<Option<Element>, RecipientsError> {
    let mut scanned = 0;
    let mut overlong = false;
    loop {
        let line = input.line();
        let found = input.window().as_bytes()[scanned..].iter().position(|&byte| byte == b'\n');
        let end = match found {
            Some(len) => scanned + len,
            None => {
                scanned = input.window().len();
                if scanned > MAX_ROW {
                    overlong = true;
                    input.consume(scanned, 0);
                    scanned = 0;
                }
                if input.fill()? {
                    continue;
                }
                input.window().len()
            }
        };
        let ended = end == input.window().len();
        let text = input.window()[..end].trim();
        let element = match text.is_empty() {
            _ if overlong => Some(Err(format!("is longer than {MAX_ROW} bytes"))),
            true => None,
            false => Some(object(text)),
        };
        input.consume(end + usize::from(!ended), u64::from(!ended));
        (scanned, overlong) = (0, false);
        match element {
            Some(object) => return Ok(Some(Element { line: Some(line), object })),
            None if ended => return Ok(None),
            None => {}
        }
    }
}

/// A JSON array, cut into its elements.
pub(super) struct Array {
    input: Input,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// `[` is expected.
    Before,
    /// An element, or `]` at once.
    First,
    /// An element.
    Element,
    /// A comma or `]`.
    Between,
    /// Nothing.
    After,
}

impl Array {
    fn next(&mut self) -> Result<Option<Element>, RecipientsError> {
        loop {
            let sign = self.peek()?;
            match (self.stage, sign) {
                (Stage::After, None) => return Ok(None),
                (Stage::After, Some(_)) => {
                    return Err(self.syntax("nothing is expected behind the list's `]`"));
                }
                (_, None) => return Err(self.syntax("the list ends without its `]`")),
                (Stage::Before, Some(b'[')) => self.pass(Stage::First),
                (Stage::Before, Some(b'{')) => {
                    return Err(self.syntax(
                        "a list in `[ ]` is expected; a file with one object to a line is `format: jsonl`",
                    ));
                }
                (Stage::Before, Some(_)) => return Err(self.syntax("a list in `[ ]` is expected")),
                (Stage::First | Stage::Between, Some(b']')) => self.pass(Stage::After),
                (Stage::Between, Some(b',')) => self.pass(Stage::Element),
                (Stage::Between, Some(_)) => {
                    return Err(self.syntax("a comma is expected between two elements"));
                }
                (Stage::First | Stage::Element, Some(b',' | b']')) => {
                    return Err(self.syntax("an object is expected here"));
                }
                (Stage::First | Stage::Element, Some(_)) => {
                    self.stage = Stage::Between;
                    return self.element().map(Some);
                }
            }
        }
    }

    fn pass(&mut self, stage: Stage) {
        self.input.consume(1, 0);
        self.stage = stage;
    }

    fn syntax(&self, reason: &str) -> RecipientsError {
        let (file, line) = (self.input.file.clone(), self.input.line());
        RecipientsError::Syntax { file, line, reason: reason.to_owned() }
    }

    /// Passes over white space; the next byte.
    fn peek(&mut self) -> Result<Option<u8>, RecipientsError> {
        loop {
            let window = self.input.window();
            let blank = window.trim_start_matches([' ', '\t', '\r', '\n']);
            let (next, len) = (blank.bytes().next(), window.len() - blank.len());
            let lines = window.as_bytes()[..len].iter().filter(|&&byte| byte == b'\n').count();
            self.input.consume(len, lines as u64);
            if next.is_some() || !self.input.fill()? {
                return Ok(next);
            }
        }
    }

    /// Cuts one element out by its brackets, strings respected, and reads it.
    fn element(&mut self) -> Result<Element, RecipientsError> {
        let line = self.input.line();
        let (mut at, mut lines, mut depth) = (0, 0, 0_usize);
        let (mut string, mut escaped, mut overlong) = (false, false, false);
        let end = 'scan: loop {
            for &byte in &self.input.window().as_bytes()[at..] {
                at += 1;
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if string => escaped = true,
                    b'"' => string = !string,
                    _ if string => {}
                    b'{' | b'[' => depth += 1,
                    // What is no object ends where the next element or the list's end begins.
                    b',' | b']' | b'}' if depth == 0 => break 'scan at - 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            break 'scan at;
                        }
                    }
                    _ => {}
                }
                lines += u64::from(byte == b'\n');
            }
            if at > MAX_ROW {
                overlong = true;
                self.input.consume(at, 0);
                at = 0;
            }
            if !self.input.fill()? {
                return Err(RecipientsError::Syntax {
                    file: self.input.file.clone(),
                    line,
                    reason: format!("the file ends within row {}, which begins here", self.input.row),
                });
            }
        };
        let object = match overlong {
            true => Err(format!("is longer than {MAX_ROW} bytes")),
            false => object(&self.input.window()[..end]),
        };
        self.input.consume(end, lines);
        Ok(Element { line: Some(line), object })
    }
}

fn object(text: &str) -> Result<Object, String> {
    serde_json::from_str(text).map_err(|error| reason(&error))
}

/// A parser's words without its place: it counts lines within the element.
fn reason(error: &dyn fmt::Display) -> String {
    let words = error.to_string();
    match words.rfind(" at line ") {
        Some(at) => words[..at].to_owned(),
        None => words,
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Object, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Object, A::Error> {
                let mut object = Object { names: Vec::new(), cells: Vec::new() };
                while let Some(name) = pairs.next_key::<String>()? {
                    if object.names.len() == MAX_NAMES {
                        return Err(de::Error::custom(format!("it has more than {MAX_NAMES} names")));
                    }
                    if object.names.contains(&name) {
                        return Err(de::Error::custom(format!(
                            "the name `{}` stands twice",
                            cell::shown(&name)
                        )));
                    }
                    let CellOf(cell) = pairs.next_value().map_err(|error| {
                        de::Error::custom(format!("`{}`: {}", cell::shown(&name), reason(&error)))
                    })?;
                    object.names.push(name);
                    object.cells.push(cell);
                }
                Ok(object)
            }
        }
        source.deserialize_map(Pairs)
    }
}

/// A cell of any source that serde reads.
struct CellOf(Cell);

impl<'de> Deserialize<'de> for CellOf {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<CellOf, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Cell;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Cell, E> {
                Ok(Cell::Null)
            }
            fn visit_none<E>(self) -> Result<Cell, E> {
                Ok(Cell::Null)
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Cell, E> {
                Ok(Cell::Bool(truth))
            }
            fn visit_i64<E>(self, int: i64) -> Result<Cell, E> {
                Ok(Cell::Int(int))
            }
            fn visit_u64<E>(self, int: u64) -> Result<Cell, E> {
                // An identity above 63 bits keeps all its digits.
                Ok(i64::try_from(int).map_or_else(|_| Cell::Nested(Json::from(int)), Cell::Int))
            }
            fn visit_f64<E: de::Error>(self, float: f64) -> Result<Cell, E> {
                cell::float_cell(float).map_err(E::custom)
            }
            fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
                Ok(Cell::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Cell, E> {
                Ok(Cell::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Cell, A::Error> {
                Json::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Cell::Nested)
            }
            fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<Cell, A::Error> {
                Json::deserialize(de::value::MapAccessDeserializer::new(pairs)).map(Cell::Nested)
            }
        }
        source.deserialize_any(Any).map(CellOf)
    }
}
