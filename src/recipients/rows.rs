//! A list of any format as a stream of rows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::job::{ColumnKind, RecipientsSpec, SourceSpec};
use crate::letter::{Cell, Columns, Row, default_address_column};
use crate::mail::{EmailAddress, is_invisible};

use super::input::Input;
use super::objects::{Element, Objects};
use super::table::{self, Record, Table};
use super::{BadRow, RecipientsError, cell};

/// The most text of one batch: a list of huge rows comes in smaller batches.
const BATCH_BYTES: usize = 4 << 20;

/// How much of the text is looked at to find the format out.
const SAMPLE: usize = 4096;

/// Opens the list of a job. `stdin` is read if the job says `file: "-"`.
pub fn open(spec: &RecipientsSpec, stdin: Box<dyn Read + Send>) -> Result<Rows, RecipientsError> {
    let encoding = spec.encoding.as_ref().map(|label| label.value.as_str());
    let (mut input, format) = match &spec.source {
        SourceSpec::File { path, format, .. } => (Input::open(path, encoding)?, format.as_deref()),
        SourceSpec::Stdin { format } => (Input::new("-".into(), stdin, encoding)?, format.as_deref()),
        SourceSpec::List(list) => return Rows::of_objects(spec, Objects::inline(list), "in the job".into()),
        SourceSpec::Ledger { .. } => return Err(RecipientsError::NotAFile),
    };
    input.sample(SAMPLE)?;
    let file = input.file.clone();
    let objects = match Format::of(&file, format, input.window())? {
        Format::Table { tab } => {
            let named = table::named_delimiter(&mut input)?;
            let delimiter = match spec.delimiter.or(named) {
                Some(delimiter) => delimiter,
                None if tab => b'\t',
                None => table::delimiter(&mut input)?,
            };
            return Rows::of_table(spec, Table::new(input, delimiter, None), file);
        }
        Format::Array => Objects::array(input),
        Format::Lines => Objects::lines(input),
        Format::Yaml => Objects::yaml(input)?,
    };
    Rows::of_objects(spec, objects, file)
}

/// The rows of a list, from front to back.
pub struct Rows {
    source: Source,
    /// `columns:` of the job.
    kinds: Vec<(String, ColumnKind)>,
    columns: Option<Arc<Columns>>,
    /// The names of the row before, which most often are those of the next.
    last: Arc<Columns>,
    number: u64,
    ended: bool,
}

enum Source {
    Table {
        table: Table,
        /// The kind of each column.
        kinds: Vec<ColumnKind>,
        /// Columns behind these that have no name, and nothing in them.
        unnamed: usize,
        /// Where the address most likely is.
        address: Option<usize>,
    },
    Objects(Objects),
    Elsewhere {
        list: PathBuf,
        more: MoreRows,
        /// Fetched and not yet given out, the next one at the end.
        fetched: Vec<Result<Row, String>>,
        hasher: Box<blake3::Hasher>,
    },
}

/// Fetches at most so many further rows from wherever they are; none is the end. A row that cannot be
/// used is its reason.
pub type MoreRows = Box<
    dyn FnMut(usize) -> Result<Vec<Result<Row, String>>, Box<dyn std::error::Error + Send + Sync>> + Send,
>;

/// Rows that are fetched at once.
const FETCHED: usize = 1024;

impl Rows {
    /// At most `max` further rows; an empty batch is the end. The batch is smaller where its rows
    /// are large. After an error there are no more rows.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<Result<Row, BadRow>>, RecipientsError> {
        let mut batch = Vec::with_capacity(max.min(4096));
        let mut bytes = 0;
        while !self.ended && batch.len() < max && bytes < BATCH_BYTES {
            match self.next_row(&mut bytes) {
                Ok(Some(row)) => batch.push(row),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(batch)
    }

    /// The columns of all rows, where all rows have the same ones by their format. `None` for
    /// JSON, whose rows need not be alike and each carry their own.
    pub fn columns(&self) -> Option<Arc<Columns>> {
        self.columns.clone()
    }

    /// BLAKE3 of the bytes of the list; whole once [`Rows::next_batch`] gave an empty batch.
    pub fn source_hash(&self) -> [u8; 32] {
        match &self.source {
            Source::Table { table, .. } => table.input.hash(),
            Source::Objects(objects) => objects.hash(),
            Source::Elsewhere { hasher, .. } => *hasher.finalize().as_bytes(),
        }
    }

    /// A list out of rows that somebody else fetches. `list` names it in errors; `columns` are those of
    /// all rows, where they are alike. Numbers are given here, and `columns:` of the job applies.
    pub fn of_rows(
        spec: &RecipientsSpec,
        list: PathBuf,
        columns: Option<Arc<Columns>>,
        more: MoreRows,
    ) -> Result<Rows, RecipientsError> {
        if let Some(columns) = &columns {
            spec.columns.keys().try_for_each(|name| typed_place(columns, name, &list).map(|_| ()))?;
        }
        Ok(Rows {
            source: Source::Elsewhere { list, more, fetched: Vec::new(), hasher: Box::default() },
            kinds: spec.columns.iter().map(|(name, (kind, _))| (name.clone(), *kind)).collect(),
            last: columns.clone().unwrap_or_else(|| Arc::new(Columns::loose(Vec::new()))),
            columns,
            number: 0,
            ended: false,
        })
    }

    fn of_table(spec: &RecipientsSpec, mut table: Table, file: PathBuf) -> Result<Rows, RecipientsError> {
        let Some(header) = table.next()? else { return Err(RecipientsError::NoHeader { file, found: None }) };
        let columns = Arc::new(header_columns(&header, &file)?);
        let mut kinds = vec![ColumnKind::Text; columns.names().len()];
        let unnamed = header.len() - kinds.len();
        if let [name] = columns.names()
            && let Some((sign, ours)) = foreign_delimiter(name, table.line_ahead()?)
        {
            let name = cell::shown(name);
            return Err(RecipientsError::ForeignDelimiter { file, name, sign, ours });
        }
        table.passes_blank = true;
        for (name, (kind, _)) in &spec.columns {
            kinds[typed_place(&columns, name, &file)?] = *kind;
        }
        let address = default_address_column(&columns).ok().and_then(|name| columns.place(name));
        Ok(Rows {
            source: Source::Table { table, kinds, unnamed, address },
            kinds: Vec::new(),
            last: columns.clone(),
            columns: Some(columns),
            number: 0,
            ended: false,
        })
    }

    fn of_objects(spec: &RecipientsSpec, objects: Objects, file: PathBuf) -> Result<Rows, RecipientsError> {
        let columns = objects.columns();
        if let Some(columns) = &columns {
            spec.columns.keys().try_for_each(|name| typed_place(columns, name, &file).map(|_| ()))?;
        }
        Ok(Rows {
            source: Source::Objects(objects),
            kinds: spec.columns.iter().map(|(name, (kind, _))| (name.clone(), *kind)).collect(),
            last: columns.clone().unwrap_or_else(|| Arc::new(Columns::loose(Vec::new()))),
            columns,
            number: 0,
            ended: false,
        })
    }

    fn next_row(&mut self, bytes: &mut usize) -> Result<Option<Result<Row, BadRow>>, RecipientsError> {
        let number = self.number + 1;
        let mut line = None;
        let row = match &mut self.source {
            Source::Table { table, kinds, unnamed, address } => {
                table.input.row = number;
                let Some(record) = table.next()? else { return Ok(None) };
                *bytes += record.text().len();
                line = Some(record.line);
                table_row(&record, &self.last, kinds, *unnamed).map_err(|reason| BadRow {
                    number,
                    line,
                    key_hint: address.and_then(|place| record.cell(place)).and_then(|text| hint(&text)),
                    reason,
                })
            }
            Source::Objects(objects) => {
                let Some(element) = objects.next(number)? else { return Ok(None) };
                line = element.line;
                object_row(number, element, &self.kinds, &mut self.last, bytes)
            }
            Source::Elsewhere { list, more, fetched, hasher } => {
                if fetched.is_empty() {
                    *fetched = more(FETCHED)
                        .map_err(|source| RecipientsError::Elsewhere { list: list.clone(), source })?;
                    fetched.reverse();
                }
                let Some(row) = fetched.pop() else { return Ok(None) };
                fetched_row(number, row, &self.kinds, hasher, &mut self.last, bytes)
            }
        };
        self.number = number;
        Ok(Some(row.map(|cells| Row { number, line, columns: self.last.clone(), cells })))
    }
}

fn table_row(
    record: &Record<'_>,
    columns: &Columns,
    kinds: &[ColumnKind],
    unnamed: usize,
) -> Result<Vec<Cell>, String> {
    if let Some(flaw) = &record.flaw {
        return Err(flaw.clone());
    }
    if !(kinds.len()..=kinds.len() + unnamed).contains(&record.len()) {
        let cells = if record.len() == 1 { "cell" } else { "cells" };
        return Err(format!("has {} {cells} where the header has {}", record.len(), kinds.len()));
    }
    if let Some(place) = record.cells().skip(kinds.len()).position(|cell| !cell.trim().is_empty()) {
        return Err(format!("has something in column {}, which has no name", kinds.len() + place + 1));
    }
    let in_column = |place: usize, reason: String| format!("column `{}`: {reason}", columns.names()[place]);
    if record.text().as_bytes().contains(&0) {
        let place = record.cells().position(|text| text.contains('\0')).unwrap_or_default();
        return Err(in_column(place, NUL.to_owned()));
    }
    let mut cells = Vec::with_capacity(kinds.len());
    for (place, (text, kind)) in record.cells().zip(kinds).enumerate() {
        cells.push(match kind {
            ColumnKind::Text => Cell::Text(text.into_owned()),
            _ => cell::read(&text, *kind).map_err(|reason| in_column(place, reason))?,
        });
    }
    Ok(cells)
}

const NUL: &str = "holds a NUL byte, which no text does";

fn object_row(
    number: u64,
    element: Element,
    kinds: &[(String, ColumnKind)],
    last: &mut Arc<Columns>,
    bytes: &mut usize,
) -> Result<Vec<Cell>, BadRow> {
    let bad = |key_hint, reason| BadRow { number, line: element.line, key_hint, reason };
    let mut object = element.object.map_err(|reason| bad(None, reason))?;
    // What a held list weighs is held already; a rough figure will do.
    *bytes += 64 * object.cells.len() + object.cells.iter().map(weight).sum::<usize>();
    if last.names() != object.names {
        *last = Arc::new(Columns::loose(std::mem::take(&mut object.names)));
    }
    let mut cells = object.cells;
    let mut wrong = None;
    for (name, kind) in kinds {
        let Some(place) = last.place(name) else { continue };
        if let Err(reason) = retype(&mut cells[place], *kind) {
            wrong.get_or_insert((place, reason));
        }
    }
    if let Some(place) = cells.iter().position(|cell| matches!(cell, Cell::Text(text) if text.contains('\0')))
    {
        wrong.get_or_insert((place, NUL.to_owned()));
    }
    match wrong {
        None => Ok(cells),
        Some((place, reason)) => {
            let address = default_address_column(last).ok().and_then(|name| last.place(name));
            let key_hint = address.and_then(|at| match &cells[at] {
                Cell::Text(text) => hint(text),
                _ => None,
            });
            Err(bad(key_hint, format!("`{}`: {reason}", cell::shown(&last.names()[place]))))
        }
    }
}

fn fetched_row(
    number: u64,
    row: Result<Row, String>,
    kinds: &[(String, ColumnKind)],
    hasher: &mut blake3::Hasher,
    last: &mut Arc<Columns>,
    bytes: &mut usize,
) -> Result<Vec<Cell>, BadRow> {
    let bad = |reason| BadRow { number, line: None, key_hint: None, reason };
    let row = row.map_err(bad)?;
    let text = row.to_json();
    hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    *bytes += text.len();
    let Row { columns, mut cells, .. } = row;
    *last = columns;
    for (name, kind) in kinds {
        let Some(place) = last.place(name) else { continue };
        retype(&mut cells[place], *kind)
            .map_err(|reason| bad(format!("`{}`: {reason}", cell::shown(name))))?;
    }
    Ok(cells)
}

/// A value of a JSON source keeps its type; text in a column with a kind is read as of a table.
fn retype(cell: &mut Cell, kind: ColumnKind) -> Result<(), String> {
    let fits = match (&*cell, kind) {
        (Cell::Text(text), _) => {
            *cell = cell::read(text, kind)?;
            return Ok(());
        }
        (Cell::Null, _) | (_, ColumnKind::Json | ColumnKind::Text) => true,
        (Cell::Bool(_), kind) => kind == ColumnKind::Bool,
        (Cell::Int(0 | 1), ColumnKind::Bool) => true,
        (Cell::Int(_), kind) => matches!(kind, ColumnKind::Int | ColumnKind::Number),
        (Cell::Float(_), kind) => kind == ColumnKind::Number,
        (Cell::Date(_), kind) => kind == ColumnKind::Date,
        (Cell::Nested(_), _) => false,
    };
    if let (Cell::Int(int), ColumnKind::Bool) = (&*cell, kind) {
        *cell = Cell::Bool(*int == 1);
    }
    match fits {
        true => Ok(()),
        false => Err(format!("is {}, and `columns` says {}", kind_of(cell), word(kind))),
    }
}

fn kind_of(cell: &Cell) -> &'static str {
    match cell {
        Cell::Null => "nothing",
        Cell::Text(_) => "text",
        Cell::Bool(_) => "a truth value",
        Cell::Int(_) | Cell::Float(_) => "a number",
        Cell::Date(_) => "a date",
        Cell::Nested(_) => "a list or an object",
    }
}

fn word(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "text",
        ColumnKind::Bool => "bool",
        ColumnKind::Int => "int",
        ColumnKind::Number => "number",
        ColumnKind::Date => "date",
        ColumnKind::Json => "json",
    }
}

fn weight(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        Cell::Nested(json) => json.to_string().len(),
        _ => 0,
    }
}

fn hint(text: &str) -> Option<String> {
    Some(cell::shown(text)).filter(|text| !text.is_empty())
}

/// What stands between the names of a header that was typed on a Chinese keyboard, and what is meant. Where the first
/// row has neither, it is within a name.
fn foreign_delimiter(header: &str, row: Option<&str>) -> Option<(char, char)> {
    let row = row?;
    let sets_off = |(sign, ours): &(char, char)| {
        header.contains(*sign) && (row.contains(*sign) || row.contains(*ours) && !row.contains('"'))
    };
    [('\u{ff0c}', ','), ('\u{ff1b}', ';')].into_iter().find(sets_off)
}

/// The names of a table: trimmed, each there and each once.
fn header_columns(header: &Record<'_>, file: &Path) -> Result<Columns, RecipientsError> {
    if let Some(reason) = &header.flaw {
        return Err(RecipientsError::Syntax {
            file: file.to_owned(),
            line: header.line,
            reason: format!("the header {reason}"),
        });
    }
    if header.text().contains('\0') {
        return Err(RecipientsError::NotDecodable {
            file: file.to_owned(),
            encoding: "UTF-8",
            row: 0,
            line: header.line,
            hint: "it holds NUL bytes; is this UTF-16? Then say `encoding: utf-16le`".to_owned(),
        });
    }
    // A second mark of UTF-8, a space without a width: nobody sees why a template does not find such a name.
    let edge = |sign: char| sign.is_whitespace() || is_invisible(sign);
    let mut names: Vec<String> = header.cells().map(|name| name.trim_matches(edge).to_owned()).collect();
    // Spreadsheets write columns that were emptied. What stands in one in spite of that makes its row a bad one.
    names.truncate(names.iter().rposition(|name| !name.is_empty()).map_or(1, |last| last + 1));
    // A list without a header would lose its first recipient to it.
    if let Some(found) = names.iter().find(|name| name.contains('@') && name.parse::<EmailAddress>().is_ok())
    {
        return Err(RecipientsError::NoHeader { file: file.to_owned(), found: Some(cell::shown(found)) });
    }
    if let Some(place) = names.iter().position(String::is_empty) {
        return Err(RecipientsError::UnnamedColumn { file: file.to_owned(), column: place + 1 });
    }
    let columns = Columns::new(names);
    for (place, name) in columns.names().iter().enumerate() {
        // Of two equal names the first is the one that is found.
        if let Some(first) = columns.place(name).filter(|first| *first != place) {
            let (name, first, second) = (cell::shown(name), first + 1, place + 1);
            return Err(RecipientsError::RepeatedColumn { file: file.to_owned(), name, first, second });
        }
    }
    Ok(columns)
}

/// The column that `columns:` gives a kind to.
fn typed_place(columns: &Columns, name: &str, file: &Path) -> Result<usize, RecipientsError> {
    columns.place(name).ok_or_else(|| RecipientsError::UnknownColumn {
        file: file.to_owned(),
        name: name.to_owned(),
        similar: similar(name, columns.names()),
        columns: columns.names().to_vec(),
    })
}

fn similar(name: &str, names: &[String]) -> Option<String> {
    let nearness =
        |other: &&String| (1000.0 * strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase())) as u32;
    names.iter().max_by_key(nearness).filter(|other| nearness(other) > 800).cloned()
}

enum Format {
    /// `tab`: the file says that it is separated by tabs.
    Table {
        tab: bool,
    },
    Array,
    Lines,
    Yaml,
}

impl Format {
    /// What the job says, else the extension, else the first signs of the text.
    fn of(file: &Path, said: Option<&str>, text: &str) -> Result<Format, RecipientsError> {
        let extension =
            file.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let named = |name: &str| match name {
            "csv" => Some(Format::Table { tab: false }),
            "tsv" | "tab" => Some(Format::Table { tab: true }),
            "json" => Some(Format::Array),
            "jsonl" | "ndjson" => Some(Format::Lines),
            "yaml" | "yml" => Some(Format::Yaml),
            _ => None,
        };
        match (said, extension.as_deref().and_then(named)) {
            (Some(said), _) => named(&said.to_ascii_lowercase())
                .ok_or_else(|| RecipientsError::UnknownFormat { format: said.to_owned() }),
            (None, Some(format)) => Ok(format),
            (None, None) => Ok(Format::by_content(text)),
        }
    }

    fn by_content(text: &str) -> Format {
        let text = text.trim_start();
        match text.bytes().next() {
            Some(b'[') => Format::Array,
            Some(b'{') => Format::Lines,
            Some(b'-') if text.starts_with("---") || text.starts_with("- ") => Format::Yaml,
            _ => Format::Table { tab: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Dedupe, MailboxTemplates, MaxBad, Text};
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};
    use std::io::Cursor;

    fn spec(format: &str, columns: &[(&str, ColumnKind)]) -> RecipientsSpec {
        RecipientsSpec {
            source: SourceSpec::Stdin { format: (!format.is_empty()).then(|| format.to_owned()) },
            encoding: None,
            delimiter: None,
            columns: columns.iter().map(|&(name, kind)| (name.to_owned(), (kind, Text::new("")))).collect(),
            key: None,
            to: None,
            cc: MailboxTemplates::default(),
            bcc: MailboxTemplates::default(),
            filter: None,
            suppress: Vec::new(),
            max_bad: MaxBad::Any,
            dedupe: Dedupe::Refuse,
        }
    }

    fn rows(
        spec: &RecipientsSpec,
        bytes: impl AsRef<[u8]>,
    ) -> Result<Vec<Result<Row, BadRow>>, RecipientsError> {
        let mut rows = open(spec, Box::new(Cursor::new(bytes.as_ref().to_vec())))?;
        let mut all = Vec::new();
        loop {
            let batch = rows.next_batch(2)?;
            if batch.is_empty() {
                let known = matches!(spec.source, SourceSpec::Stdin { .. });
                assert!(!known || rows.source_hash() == *blake3::hash(bytes.as_ref()).as_bytes());
                return Ok(all);
            }
            all.extend(batch);
        }
    }

    /// One line for each row: its ledger form, or number, line, hint and reason.
    fn told(rows: Result<Vec<Result<Row, BadRow>>, RecipientsError>) -> String {
        match rows {
            Err(error) => format!("{error} ({:?})", error.exit()),
            Ok(rows) => rows
                .into_iter()
                .map(|row| match row {
                    Ok(row) => format!("{} {}\n", row.number, row.to_json()),
                    Err(bad) => format!(
                        "{} BAD line {} {}: {}\n",
                        bad.number,
                        bad.line.unwrap_or_default(),
                        bad.key_hint.unwrap_or_default(),
                        bad.reason
                    ),
                })
                .collect(),
        }
    }

    #[test]
    fn rows_from_elsewhere_are_numbered_typed_and_hashed() {
        let columns = Arc::new(Columns::new(vec!["email".into(), "n".into()]));
        let rows = |last: &'static str| {
            let row = |email: &str, n: &str| Row {
                number: 40,
                line: None,
                columns: columns.clone(),
                cells: vec![Cell::Text(email.into()), Cell::Text(n.into())],
            };
            let mut left = vec![
                vec![Ok(row("c@x.org", last))],
                vec![Ok(row("a@x.org", "1")), Err("it cannot be read".to_owned()), Ok(row("b@x.org", "?"))],
            ];
            let more: MoreRows = Box::new(move |_| Ok(left.pop().unwrap_or_default()));
            let spec = spec("", &[("n", ColumnKind::Int)]);
            let mut rows =
                Rows::of_rows(&spec, "of a job".into(), Some(columns.clone()), more).expect("rows");
            let batch = rows.next_batch(100).expect("a batch");
            assert!(rows.next_batch(100).expect("the end").is_empty());
            (batch, rows.source_hash())
        };
        let (batch, hash) = rows("3");
        let seen: Vec<Result<(u64, Cell), (u64, String)>> = batch
            .into_iter()
            .map(|row| {
                row.map(|row| (row.number, row.cells[1].clone())).map_err(|bad| (bad.number, bad.reason))
            })
            .collect();
        assert_eq!((&seen[0], &seen[3]), (&Ok((1, Cell::Int(1))), &Ok((4, Cell::Int(3)))));
        assert_eq!(seen[1], Err((2, "it cannot be read".to_owned())));
        assert!(matches!(&seen[2], Err((3, reason)) if reason.starts_with("`n`: ")), "{seen:?}");
        assert_eq!((rows("3").1 == hash, rows("4").1 == hash), (true, false));

        let spec = spec("", &[("m", ColumnKind::Int)]);
        let none: MoreRows = Box::new(|_| Ok(Vec::new()));
        let unknown = Rows::of_rows(&spec, "of a job".into(), Some(columns.clone()), none).map(drop);
        assert!(matches!(unknown, Err(RecipientsError::UnknownColumn { .. })));
    }

    #[test]
    fn lists_are_read_and_bad_rows_named() {
        let typed = [("active", ColumnKind::Bool), ("joined", ColumnKind::Date), ("sum", ColumnKind::Number)];
        for (format, columns, text, expected) in [
            ("", &[][..], "email,name\na@b.c,Ada\n", "1 [\"a@b.c\",\"Ada\"]\n"),
            ("", &[], "\u{FEFF}email;name\r\na@b.c;Ada, Countess\r\n", "1 [\"a@b.c\",\"Ada, Countess\"]\n"),
            (
                "",
                &[],
                "\u{FEFF}\u{FEFF}email,\u{200B}n\u{A0}\na@b.c,\u{200B}x\n",
                "1 [\"a@b.c\",\"\u{200B}x\"]\n",
            ),
            ("tsv", &[], "email,x\tname\na@b.c\t\"A\tda\"\n", "1 [\"a@b.c\",\"A\\tda\"]\n"),
            ("", &[], "sep=;\nemail;name\na@b.c;Ada, x\n", "1 [\"a@b.c\",\"Ada, x\"]\n"),
            (
                "",
                &[],
                "\u{FEFF}\"SEP=|\"\r\nemail|n\r\nb\r\n",
                "1 BAD line 3 b: has 1 cell where the header has 2\n",
            ),
            ("tsv", &[], "sep=,\remail,n\ra@b.c,\r", "1 [\"a@b.c\",\"\"]\n"),
            ("", &[], "sep=a\n", ""),
            (
                "",
                &[],
                "email,name, ,\na@b.c,Ada,,\nb@b.c,Bob\nc@b.c,Hoare, C. A. R.,\nd@b.c,,,,\n",
                "1 [\"a@b.c\",\"Ada\"]\n\
                 2 [\"b@b.c\",\"Bob\"]\n\
                 3 BAD line 4 c@b.c: has something in column 3, which has no name\n\
                 4 BAD line 5 d@b.c: has 5 cells where the header has 2\n",
            ),
            ("", &[], "email,name\n\n,\n \t ,\"\"\r\na@b.c,\n,,\n", "1 [\"a@b.c\",\"\"]\n"),
            ("", &[], "email,name\n", ""),
            ("", &[], "email", ""),
            ("", &[], "", "the list - has no header: its first line must name the columns (Data)"),
            ("", &[], "\n\n", "the list - has no header: its first line must name the columns (Data)"),
            (
                "",
                &[],
                "ada@example.org,Ada\nbob@example.org,Bob\n",
                "the list - has no header: its first line must name the columns, and it holds the address \
                 `ada@example.org` (Data)",
            ),
            (
                "",
                &[],
                "email,,x\n",
                "the list - has no name for column 2 in its header: name it, or take it out (Data)",
            ),
            (
                "",
                &[],
                "姓名，邮箱\n张伟，a@b.c\n",
                "the list - has one column, `姓名，邮箱`: `，` is a letter, write `,` between the columns (Data)",
            ),
            ("", &[], "邮箱（必填，一行一个）\n\na@b.c\n", "1 [\"a@b.c\"]\n"),
            ("", &[], "a, b,b \n", "the list - has two columns named `b`, 2 and 3 (Data)"),
            (
                "",
                &[],
                "email,name\na@b.c,\"x\n",
                "the list - opens a quote in line 2 and never closes it (Data)",
            ),
            (
                "",
                &[],
                "name,email\nAda,a@b.c,x\n\nBob\nEve,e@b.c\nN\0l,n@b.c\n",
                "1 BAD line 2 a@b.c: has 3 cells where the header has 2\n\
                 2 BAD line 4 : has 1 cell where the header has 2\n\
                 3 [\"Eve\",\"e@b.c\"]\n\
                 4 BAD line 6 n@b.c: column `name`: holds a NUL byte, which no text does\n",
            ),
            (
                "",
                &typed,
                "email,active,joined,sum\na@b.c,是,2026年11月3日,12.50\nb@b.c,perhaps,2026-11-03,1\n\
                 c@b.c,,,\nd@b.c,no,2026/11/3,\"1,000\"\n",
                "1 [\"a@b.c\",true,{\"$date\":\"2026-11-03\"},12.5]\n\
                 2 BAD line 3 b@b.c: column `active`: `perhaps` is not yes, no, true, false, 1, 0, 是 or 否\n\
                 3 [\"c@b.c\",null,null,null]\n\
                 4 BAD line 5 d@b.c: column `sum`: `1,000` is not a number: write it without a comma; \
                 1234.5, not 1,234.5 or 1234,5\n",
            ),
            (
                "",
                &[("activ", ColumnKind::Bool)],
                "email,active\n",
                "the list - has no column `activ` (did you mean `active`?); its columns are email, active (Job)",
            ),
            (
                "",
                &typed,
                "[{\"email\": \"a@b.c\", \"active\": true, \"n\": 1.5},\n {\"email\": \"b@b.c\", \"joined\": \
                 \"2026-11-03\"}, 7,\n{\"a\": 1, \"a\": 2}, {\"email\":\"c@b.c\",\"sum\":\"x\"}, {\"a\" 1}, {\"]\": [\"}\"]}]\n ",
                "1 {\"email\":\"a@b.c\",\"active\":true,\"n\":1.5}\n\
                 2 {\"email\":\"b@b.c\",\"joined\":{\"$date\":\"2026-11-03\"}}\n\
                 3 BAD line 2 : invalid type: integer `7`, expected an object of names and values\n\
                 4 BAD line 3 : the name `a` stands twice\n\
                 5 BAD line 3 c@b.c: `sum`: `x` is not a number\n\
                 6 BAD line 3 : `a`: expected `:`\n\
                 7 {\"]\":{\"$json\":[\"}\"]}}\n",
            ),
            ("", &[], "[]", ""),
            ("json", &[], "[{},{}]", "1 {}\n2 {}\n"),
            (
                "json",
                &[],
                "{\"a\":1}\n",
                "the list - is not read beyond line 1: a list in `[ ]` is expected; \
                 a file with one object to a line is `format: jsonl` (Data)",
            ),
            (
                "json",
                &[],
                "[{}\n,]",
                "the list - is not read beyond line 2: an object is expected here (Data)",
            ),
            (
                "json",
                &[],
                "[{}\n{}]",
                "the list - is not read beyond line 2: a comma is expected between two elements (Data)",
            ),
            (
                "json",
                &[],
                "[{}",
                "the list - is not read beyond line 1: the list ends without its `]` (Data)",
            ),
            (
                "json",
                &[],
                "[\n{\"a\":",
                "the list - is not read beyond line 2: the file ends within row 1, which begins here (Data)",
            ),
            (
                "json",
                &[],
                "[] x",
                "the list - is not read beyond line 1: nothing is expected behind the list's `]` (Data)",
            ),
            (
                "",
                &[],
                "{\"id\": 18446744073709551615, \"x\": null}\n\n{\"id\": 123456789012345678901234567890}\n{\n{\"n\":\"\\u0000\"}",
                "1 {\"id\":{\"$json\":18446744073709551615},\"x\":null}\n\
                 2 BAD line 3 : `id`: has more digits than a number keeps: write it as text, in quotes\n\
                 3 BAD line 4 : EOF while parsing an object\n\
                 4 BAD line 5 : `n`: holds a NUL byte, which no text does\n",
            ),
            (
                "",
                &[],
                "- email: a@b.c\n  tags: [x, 1]\n- email: b@b.c\n  tags: ~\n",
                "1 [\"a@b.c\",{\"$json\":[\"x\",1]}]\n2 [\"b@b.c\",null]\n",
            ),
            (
                "yaml",
                &[],
                "- a: 1\n- b: 2\n- 3\n",
                "1 {\"a\":1}\n2 {\"b\":2}\n3 BAD line 0 : invalid type: integer `3`, expected an object of names and values\n",
            ),
            (
                "yaml",
                &[],
                "a: 1\n",
                "the list - is not read beyond line 1: a list is expected: `- email: ada@example.org`, one for each recipient (Data)",
            ),
            ("yaml", &[], "", ""),
            ("xml", &[], "", "`xml` is no format of a list: csv, tsv, json, jsonl and yaml are (Job)"),
        ] {
            assert_eq!(told(rows(&spec(format, columns), text)), expected, "{text}");
        }
    }

    #[test]
    fn rows_that_are_no_text_are_named() {
        let chinese = encoding_rs::GB18030.encode("姓名,邮箱\n张伟,a@b.c\n").0.into_owned();
        let mut late = b"email,name\n".to_vec();
        for n in 0..20_000 {
            late.extend_from_slice(format!("a{n}@b.c,Ada\n").as_bytes());
        }
        late.extend_from_slice(b"x@b.c,\xD5\xC5\xCE\xB0\n");
        let utf16: Vec<u8> = "email,name\na@b.c,x\n".bytes().flat_map(|byte| [byte, 0]).collect();
        for (bytes, encoding, expected) in [
            (&chinese[..], Some("gb18030"), "1 [\"张伟\",\"a@b.c\"]\n"),
            (&chinese, None, "not UTF-8 in line 1: is this GB18030?"),
            (&late, None, "not UTF-8 in row 20001 (line 20002): is this GB18030?"),
            (&utf16, None, "is this UTF-16?"),
            (&utf16, Some("utf-16le"), "1 [\"a@b.c\",\"x\"]\n"),
        ] {
            let spec = RecipientsSpec { encoding: encoding.map(Text::new), ..spec("", &[]) };
            let told = told(rows(&spec, bytes));
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn files_that_are_not_there_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| SourceSpec::File {
            path: folder.path().join(name),
            format: None,
            text: Text::new(""),
        };
        std::fs::write(folder.path().join("list.jsonl"), "{\"a\":1}\n").expect("written");
        std::fs::write(folder.path().join("list.XLSX"), b"PK\x03\x04").expect("written");
        for (source, expected) in [
            (file("list.jsonl"), "1 {\"a\":1}\n"),
            (file("none.csv"), "does not exist (NoInput)"),
            (file(""), "cannot be opened (NoInput)"),
            (file("list.XLSX"), "save it as CSV (UTF-8) (Data)"),
            (
                SourceSpec::Ledger { job: "x".into(), edition: "y".into(), outcome: "accepted".into() },
                "not in a file",
            ),
            (
                SourceSpec::List(vec![json!({"email": "a@b.c"}), json!(3)]),
                "1 [\"a@b.c\"]\n2 BAD line 0 : invalid type",
            ),
        ] {
            let spec = RecipientsSpec { source, ..spec("", &[]) };
            let mut read = String::new();
            match open(&spec, Box::new(std::io::empty())) {
                Err(error) => read = told(Err(error)),
                Ok(mut rows) => read += &told(rows.next_batch(10)),
            }
            assert!(read.contains(expected), "{read}");
        }
    }

    #[test]
    fn the_columns_of_all_rows_are_known_where_the_format_gives_them() {
        for (text, expected) in [
            ("a,b\n1,2\n", Some(vec!["a", "b"])),
            ("[{\"a\":1}]", None),
            ("- a: 1\n- a: 2\n", Some(vec!["a"])),
            ("- a: 1\n- b: 2\n", None),
        ] {
            let rows = open(&spec("", &[]), Box::new(Cursor::new(text))).expect(text);
            let columns = rows.columns();
            let names = columns.as_ref().map(|columns| columns.names().iter().map(String::as_str).collect());
            assert_eq!(names, expected, "{text}");
        }
    }

    #[test]
    fn limits_of_bad_rows() {
        for (limit, bad, total, expected) in [
            (MaxBad::Any, 10, 10, false),
            (MaxBad::Rows(2), 2, 10, false),
            (MaxBad::Rows(2), 3, 10, true),
            (MaxBad::Rows(0), 1, 10, true),
            (MaxBad::Fraction(0.01), 1, 100, false),
            (MaxBad::Fraction(0.01), 2, 100, true),
            (MaxBad::Fraction(0.29), 29, 100, false),
            (MaxBad::Fraction(0.29), 30, 100, true),
            (MaxBad::Fraction(0.0), 0, 0, false),
        ] {
            assert_eq!(limit.exceeded(bad, total), expected, "{limit:?} {bad} of {total}");
        }
    }

    fn cell() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z,;\"\t \n\r张]{0,8}", any::<String>().prop_map(|text| text.replace('\0', ""))]
    }

    proptest! {
        #[test]
        fn whatever_a_csv_writer_writes_is_read(
            rows_ in proptest::collection::vec(proptest::collection::vec(cell(), 3), 0..6),
            delimiter in prop_oneof![Just(b','), Just(b';'), Just(b'\t')],
            crlf in any::<bool>(),
        ) {
            let end = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut writer =
                csv::WriterBuilder::new().delimiter(delimiter).terminator(end).from_writer(Vec::new());
            writer.write_record(["a", "b", "c"]).expect("a vector");
            for row in &rows_ {
                writer.write_record(row).expect("a vector");
            }
            let bytes = writer.into_inner().expect("a vector");
            let spec = RecipientsSpec { delimiter: Some(delimiter), ..spec("csv", &[]) };
            let read = rows(&spec, &bytes).expect("what was written");
            let read: Vec<Vec<String>> = read
                .into_iter()
                .map(|row| row.expect("a row").cells.into_iter().map(|cell| match cell {
                    Cell::Text(text) => text,
                    other => panic!("{other:?}"),
                }).collect())
                .collect();
            // A row with nothing in it is nobody.
            let somebody = |row: &Vec<String>| row.iter().any(|cell| !cell.trim().is_empty());
            prop_assert_eq!(read, rows_.into_iter().filter(somebody).collect::<Vec<_>>());
        }

        #[test]
        fn whatever_json_is_written_is_read(values in proptest::collection::vec((".*", any::<i64>()), 0..5), pretty: bool) {
            let list: Vec<Json> = values.iter().map(|(text, int)| json!({"a": text, "b": {"c": [int]}})).collect();
            let list: Vec<Json> = list.into_iter().filter(|row| !row["a"].to_string().contains("\\u0000")).collect();
            let array = if pretty { serde_json::to_string_pretty(&list) } else { serde_json::to_string(&list) };
            let lines: String = list.iter().map(|row| format!("{row}\n")).collect();
            let of_array = rows(&spec("json", &[]), array.expect("JSON")).expect("read");
            let of_lines = rows(&spec("jsonl", &[]), lines).expect("read");
            prop_assert_eq!(of_array.len(), list.len());
            for ((one, other), json) in of_array.iter().zip(&of_lines).zip(&list) {
                let row = one.as_ref().expect("a row");
                prop_assert_eq!(&row.cells, &other.as_ref().expect("a row").cells);
                prop_assert_eq!(row.cell("a"), Some(&Cell::Text(json["a"].as_str().expect("text").to_owned())));
                prop_assert_eq!(row.cell("b"), Some(&Cell::Nested(json["b"].clone())));
            }
        }

        #[test]
        fn no_bytes_are_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            signs in "[\\[\\]{}:,;\"a1\\\\\n\r\t -]{0,60}",
            format in prop_oneof![Just(""), Just("csv"), Just("tsv"), Just("json"), Just("jsonl"), Just("yaml")],
            encoding in prop_oneof![Just(None), Just(Some("gb18030")), Just(Some("utf-16le")), Just(Some("iso-2022-jp"))],
        ) {
            let spec = RecipientsSpec { encoding: encoding.map(Text::new), ..spec(format, &[("a", ColumnKind::Date)]) };
            let _ = rows(&spec, &bytes);
            let _ = rows(&spec, &signs);
            let _ = rows(&spec, format!("a,b\n{signs}"));
        }
    }
}
