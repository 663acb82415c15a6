//! CSV and TSV (RFC 4180): records out of a window of text, their cells still borrowed from it.
//!
//! We read them ourselves because we must say what a lenient reader hides: the line of a quote
//! that is never closed, and a quote that closed in the wrong place and so swallowed whole rows.

use std::borrow::Cow;

use super::RecipientsError;
use super::input::Input;

/// The longest row, in bytes. A row holds a person's words and some numbers; what is longer is a
/// broken file (most often a quote too many), and it must not be able to fill our memory.
pub(super) const MAX_ROW: usize = 1 << 20;

/// How much text is looked at to find the delimiter out, and how many of its records.
const SAMPLE: usize = 64 * 1024;
const SAMPLE_RECORDS: usize = 50;

/// Records of a table, one after the other.
pub(super) struct Table {
    pub(super) input: Input,
    scan: Scan,
    /// Lines that begin with this are passed over.
    comment: Option<u8>,
    /// Records with nothing in any cell are passed over: what a spreadsheet writes of rows that were emptied.
    pub(super) passes_blank: bool,
    /// The record's bytes in the window, its line end included.
    len: usize,
}

/// A record in the window.
pub(super) struct Record<'a> {
    text: &'a str,
    spans: &'a [Span],
    /// The line it begins in.
    pub(super) line: u64,
    /// What is wrong with it as a record.
    pub(super) flaw: Option<String>,
}

impl Table {
    /// A table whose cells are separated by `delimiter`.
    pub(super) fn new(input: Input, delimiter: u8, comment: Option<u8>) -> Table {
        Table { input, scan: Scan::new(delimiter), comment, passes_blank: false, len: 0 }
    }

    /// The next record that is not an empty line; it borrows the window until the next call.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, RecipientsError> {
        loop {
            self.input.consume(self.len, self.scan.lines);
            self.len = 0;
            self.scan.begin();
            let line = self.input.line();
            if !self.advance(line)? {
                return Ok(None);
            }
            let text = &self.input.window()[..self.len];
            let comment = self.comment.is_some_and(|sign| text.as_bytes().first() == Some(&sign));
            let blank = self.passes_blank && self.scan.is_blank(text);
            if !self.scan.overlong && (comment || blank || self.scan.is_empty_line(text)) {
                continue;
            }
            let flaw = match self.scan.stray {
                _ if self.scan.overlong => Some(format!("is longer than {MAX_ROW} bytes")),
                Some((opened, closed)) if opened == closed => Some(format!(
                    "has text behind a closing quote in line {}: a quote inside a cell is written twice",
                    line + closed
                )),
                Some((opened, closed)) => Some(format!(
                    "opens a quote in line {} that is closed in line {} with text behind it",
                    line + opened,
                    line + closed
                )),
                None => None,
            };
            let text = &self.input.window()[..self.len];
            return Ok(Some(Record { text, spans: &self.scan.spans, line, flaw }));
        }
    }

    /// The first line with something in it behind the record.
    pub(super) fn line_ahead(&mut self) -> Result<Option<&str>, RecipientsError> {
        self.input.sample(SAMPLE)?;
        let behind = &self.input.window()[self.len..];
        let comment = |line: &str| self.comment.is_some_and(|sign| line.as_bytes().first() == Some(&sign));
        Ok(behind.split(['\r', '\n']).find(|line| !line.trim().is_empty() && !comment(line)))
    }

    /// Scans one record; false at the end.
    fn advance(&mut self, line: u64) -> Result<bool, RecipientsError> {
        loop {
            if self.scan.step(self.input.window().as_bytes()) {
                self.len = self.scan.at;
                return Ok(true);
            }
            if self.scan.at > MAX_ROW {
                // Too long to keep: only where it ends is still of interest.
                self.input.consume(self.scan.at, 0);
                self.scan.forget();
            }
            if !self.input.fill()? {
                let window = self.input.window();
                if let State::Quoted { .. } = self.scan.state {
                    let line = line + self.scan.opened;
                    return Err(RecipientsError::UnterminatedQuote { file: self.input.file.clone(), line });
                }
                self.len = window.len();
                let any = self.scan.overlong || !window.is_empty();
                self.scan.end(self.len);
                return Ok(any);
            }
        }
    }
}

impl<'a> Record<'a> {
    /// How many cells there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The n-th cell.
    pub(super) fn cell(&self, n: usize) -> Option<Cow<'a, str>> {
        self.spans.get(n).map(|span| span.text(self.text))
    }

    /// The cells in order.
    pub(super) fn cells(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.spans.iter().map(|span| span.text(self.text))
    }

    /// The record as it stands in the file.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }
}

/// The delimiter that a first line `sep=;` names, which Excel heeds and other programs write for it. The line is used
/// up: it is no header.
pub(super) fn named_delimiter(input: &mut Input) -> Result<Option<u8>, RecipientsError> {
    input.sample(SAMPLE)?;
    let window = input.window();
    let Some(len) = window.find(['\r', '\n']) else { return Ok(None) };
    let line = window[..len].trim_start_matches('"').as_bytes();
    let sign = match line.split_at_checked(4) {
        Some((sep, [sign])) | Some((sep, [sign, b'"'])) if sep.eq_ignore_ascii_case(b"sep=") => *sign,
        _ => return Ok(None),
    };
    if !sign.is_ascii() || sign.is_ascii_alphanumeric() || sign == b'"' {
        return Ok(None);
    }
    let end = if window[len..].starts_with("\r\n") { 2 } else { 1 };
    input.consume(len + end, 1);
    Ok(Some(sign))
}

/// The delimiter of a table: of comma, semicolon and tab the one that gives its first records the
/// same number of cells as its header, quotes respected; unless its first line names it.
pub(super) fn delimiter(input: &mut Input) -> Result<u8, RecipientsError> {
    if let Some(sign) = named_delimiter(input)? {
        return Ok(sign);
    }
    let whole = input.window().len() < SAMPLE;
    let sample = input.window().as_bytes();
    let score = |delimiter: u8| {
        let mut scan = Scan::new(delimiter);
        let (mut rest, mut header, mut alike, mut others) = (sample, 0, 0_usize, 0_usize);
        while alike + others < SAMPLE_RECORDS && !rest.is_empty() {
            scan.begin();
            if !scan.step(rest) {
                // The last record, unless it is one that the sample cuts.
                if !whole || matches!(scan.state, State::Quoted { .. }) {
                    break;
                }
                scan.end(rest.len());
                scan.at = rest.len();
            }
            let (record, after) = rest.split_at(scan.at.min(rest.len()));
            rest = after;
            // A quote in the middle of a cell is most often one that a wrong delimiter has cut off.
            let cut = scan.stray.is_some()
                || scan.spans.iter().any(|span| {
                    let quoted = span.start > 0 && record[span.start - 1] == b'"';
                    !quoted && record[span.start..span.end].contains(&b'"')
                });
            match scan.spans.len() {
                _ if record.iter().all(|byte| byte.is_ascii_whitespace() && *byte != delimiter) => {}
                _ if header == 0 && cut => return None,
                cells if header == 0 => header = cells,
                cells if cells == header && !cut => alike += 1,
                _ => others += 1,
            }
        }
        // A delimiter that the header does not have separates nothing.
        (header > 1).then(|| (1000 * alike / (alike + others).max(1), header))
    };
    let found = [b',', b';', b'\t'].into_iter().rev().filter_map(|sign| Some((score(sign)?, sign))).max();
    // Databases set cells off by bars, in their rows as well; elsewhere one stands within a name.
    let bar = || score(b'|').filter(|(alike, _)| *alike > 0).map(|score| (score, b'|'));
    Ok(found.or_else(bar).map_or(b',', |(_, sign)| sign))
}

/// Where a cell stands in its record.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    /// It holds doubled quotes.
    doubled: bool,
}

impl Span {
    fn text(self, record: &str) -> Cow<'_, str> {
        let text = &record[self.start..self.end];
        if self.doubled { Cow::Owned(text.replace("\"\"", "\"")) } else { Cow::Borrowed(text) }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At the first byte of a cell.
    Begin,
    /// In a cell without quotes; quotes in its middle are text.
    Plain { start: usize },
    /// Behind an opening quote.
    Quoted { start: usize, doubled: bool },
    /// Behind a quote in a quoted cell: the end of the cell, or the first of two.
    Closed { start: usize, doubled: bool },
    /// Behind the first CR of the record's end.
    Return,
}

/// The scanner of one record: goes on where the window ended. Bytes only: delimiters and quotes
/// are ASCII, and no byte of a longer character in UTF-8 is.
struct Scan {
    delimiter: u8,
    state: State,
    /// Bytes of the record that are scanned.
    at: usize,
    /// Line ends in the record.
    lines: u64,
    /// Lines of the record before the last opening quote.
    opened: u64,
    /// A closing quote with text behind it: lines before the opening and the closing one.
    stray: Option<(u64, u64)>,
    overlong: bool,
    spans: Vec<Span>,
}

impl Scan {
    fn new(delimiter: u8) -> Scan {
        let spans = Vec::new();
        Scan {
            delimiter,
            state: State::Begin,
            at: 0,
            lines: 0,
            opened: 0,
            stray: None,
            overlong: false,
            spans,
        }
    }

    fn begin(&mut self) {
        (self.state, self.at, self.lines, self.opened) = (State::Begin, 0, 0, 0);
        (self.stray, self.overlong) = (None, false);
        self.spans.clear();
    }

    /// The scanned bytes are gone; where the record ends is still looked for.
    fn forget(&mut self) {
        self.at = 0;
        self.overlong = true;
        self.spans.clear();
        self.state = match self.state {
            State::Plain { .. } => State::Plain { start: 0 },
            State::Quoted { .. } => State::Quoted { start: 0, doubled: false },
            State::Closed { .. } => State::Closed { start: 0, doubled: false },
            other => other,
        };
    }

    /// Scans on; true when the record is complete.
    fn step(&mut self, record: &[u8]) -> bool {
        let delimiter = self.delimiter;
        while let Some(&byte) = record.get(self.at) {
            match self.state {
                State::Begin if byte == b'"' => {
                    self.opened = self.lines;
                    self.state = State::Quoted { start: self.at + 1, doubled: false };
                    self.at += 1;
                }
                State::Begin => self.state = State::Plain { start: self.at },
                State::Plain { start } => {
                    let rest = &record[self.at..];
                    let Some(len) = memchr::memchr3(delimiter, b'\n', b'\r', rest) else {
                        self.at = record.len();
                        return false;
                    };
                    self.at += len;
                    if self.close(record[self.at], Span { start, end: self.at, doubled: false }) {
                        return true;
                    }
                }
                State::Quoted { start, doubled } => match memchr::memchr2(b'"', b'\n', &record[self.at..]) {
                    None => self.at = record.len(),
                    Some(len) => {
                        self.at += len + 1;
                        match record[self.at - 1] {
                            b'"' => self.state = State::Closed { start, doubled },
                            _ => self.lines += 1,
                        }
                    }
                },
                State::Closed { start, .. } if byte == b'"' => {
                    self.state = State::Quoted { start, doubled: true };
                    self.at += 1;
                }
                State::Closed { start, doubled } if byte == delimiter || byte == b'\n' || byte == b'\r' => {
                    if self.close(byte, Span { start, end: self.at.saturating_sub(1), doubled }) {
                        return true;
                    }
                }
                State::Closed { start, .. } => {
                    self.stray.get_or_insert((self.opened, self.lines));
                    self.state = State::Plain { start };
                }
                State::Return => {
                    self.at += usize::from(byte == b'\n');
                    self.lines += 1;
                    return true;
                }
            }
        }
        false
    }

    /// Ends a cell at `byte`; true when that ends the record too.
    fn close(&mut self, byte: u8, span: Span) -> bool {
        if !self.overlong {
            self.spans.push(span);
        }
        self.at += 1;
        self.state = if byte == b'\r' { State::Return } else { State::Begin };
        self.lines += u64::from(byte == b'\n');
        byte == b'\n'
    }

    /// The text ends at `end`, and with it the record.
    fn end(&mut self, end: usize) {
        match self.state {
            _ if self.overlong => {}
            State::Begin if end == 0 => {}
            State::Begin => self.spans.push(Span { start: end, end, doubled: false }),
            State::Plain { start } => self.spans.push(Span { start, end, doubled: false }),
            State::Closed { start, doubled } => self.spans.push(Span { start, end: end - 1, doubled }),
            State::Quoted { .. } | State::Return => {}
        }
    }

    /// Nothing, or one cell of blanks in a table that has several.
    fn is_empty_line(&self, record: &str) -> bool {
        self.spans.len() <= 1 && record.trim_matches([' ', '\t', '\r', '\n']).is_empty()
    }

    fn is_blank(&self, record: &str) -> bool {
        self.spans.iter().all(|span| record[span.start..span.end].trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Read};

    fn input(text: &str) -> Input {
        Input::new("list.csv".into(), Box::new(Cursor::new(text.as_bytes().to_vec())), None).expect("UTF-8")
    }

    /// Line, cells and flaw.
    type Told = (u64, Vec<String>, Option<String>);

    fn records(text: &str, delimiter: u8) -> Result<Vec<Told>, RecipientsError> {
        let mut table = Table::new(input(text), delimiter, None);
        let mut all = Vec::new();
        while let Some(record) = table.next()? {
            all.push((record.line, record.cells().map(Cow::into_owned).collect(), record.flaw.clone()));
        }
        Ok(all)
    }

    #[test]
    fn records_are_read_as_rfc_4180_says() {
        for (text, expected) in [
            ("", &[][..]),
            ("a,b\n", &[(1, &["a", "b"][..])]),
            ("a,b", &[(1, &["a", "b"])]),
            ("a,b\r\nc,d\r\n", &[(1, &["a", "b"]), (2, &["c", "d"])]),
            ("a\rb\r", &[(1, &["a"]), (2, &["b"])]),
            ("a,b\n\n\r\n  \nc,\n", &[(1, &["a", "b"]), (5, &["c", ""])]),
            (",\n", &[(1, &["", ""])]),
            ("a,", &[(1, &["a", ""])]),
            ("\"a,\"\"b\"\"\r\nc\",d\ne,f\n", &[(1, &["a,\"b\"\r\nc", "d"]), (3, &["e", "f"])]),
            ("\"\",\"\"\n", &[(1, &["", ""])]),
            ("\"a\"", &[(1, &["a"])]),
            ("5\" disk,\"x\"\n", &[(1, &["5\" disk", "x"])]),
            ("姓名,\"张,伟\"\n", &[(1, &["姓名", "张,伟"])]),
            (" a , b\n", &[(1, &[" a ", " b"])]),
        ] {
            let read = records(text, b',').expect(text);
            let read: Vec<(u64, Vec<&str>)> = read
                .iter()
                .map(|(line, cells, _)| (*line, cells.iter().map(String::as_str).collect()))
                .collect();
            let expected: Vec<_> = expected.iter().map(|(line, cells)| (*line, cells.to_vec())).collect();
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn quotes_that_go_wrong_are_told_by_their_lines() {
        for (text, expected) in [
            ("a\n\"b\nc\n", Err("line 2")),
            ("a\nb,\"c\nd,\"\"e\n", Err("line 2")),
            ("a,b\n\"c\" x,d\ne,f\n", Ok("text behind a closing quote in line 2")),
            ("a,b\n\"c,d\ne,f\n\"g\",h\ni,j\n", Ok("in line 2 that is closed in line 4 with text")),
        ] {
            match (records(text, b','), expected) {
                (Ok(all), Ok(flaw)) => {
                    let flaws: Vec<_> = all.iter().filter_map(|(_, _, flaw)| flaw.clone()).collect();
                    assert!(flaws.len() == 1 && flaws[0].contains(flaw), "{text:?}: {flaws:?}");
                    assert!(all.last().is_some_and(|(_, _, flaw)| flaw.is_none()), "{text:?} goes on");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (read, _) => panic!("{text:?}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_row_that_never_ends_is_not_kept() {
        let huge = || std::io::repeat(b'x').take(20 << 20);
        let quoted = || Cursor::new(&b"a\n\""[..]).chain(huge());
        let open = |bytes| Table::new(Input::new("list.csv".into(), bytes, None).expect("UTF-8"), b',', None);
        let plain = Cursor::new(&b"a,b\n1,"[..]).chain(huge()).chain(Cursor::new(&b"\n3,4\n"[..]));
        let mut table = open(Box::new(plain));
        let mut seen = Vec::new();
        while let Some(record) = table.next().expect("goes on") {
            seen.push((record.line, record.len(), record.flaw.is_some()));
            assert!(table.input.window().len() < MAX_ROW + (1 << 20));
        }
        assert_eq!(seen, [(1, 2, false), (2, 0, true), (3, 2, false)]);

        let mut table = open(Box::new(quoted().chain(Cursor::new(&b"\"\nb\n"[..]))));
        let flaws: Vec<bool> =
            std::iter::from_fn(|| table.next().expect("goes on").map(|record| record.flaw.is_some()))
                .collect();
        assert_eq!(flaws, [false, true, false]);

        let mut table = open(Box::new(quoted()));
        table.next().expect("the header");
        assert!(matches!(table.next(), Err(RecipientsError::UnterminatedQuote { line: 2, .. })));
    }

    #[test]
    fn the_delimiter_is_found_out() {
        for (text, expected) in [
            ("email,name\na@b.c,Ada\n", b','),
            ("email;name\na@b.c;Ada, Countess\n", b';'),
            ("email\tname\na@b.c\tAda; Countess, Lovelace\n", b'\t'),
            ("email;\"a,b,c\"\nx;\"1,2,3\"\n", b';'),
            ("a;b,c\n1;2,3\n4;5\n", b';'),
            ("a,b;c\n1,2;3\n4,5\n", b','),
            ("email\na@b.c\n", b','),
            ("email\na;b@c\n", b','),
            ("", b','),
            ("姓名|邮箱\n张伟|a@b.c\n", b'|'),
            ("Name|Alias\nAda\n", b','),
            ("email,first|last\na@b.c,A|B\n", b','),
            ("email,name", b','),
            ("a,\"x;y\nz;w\"\n1,\"2;3;4\"\n", b','),
        ] {
            assert_eq!(delimiter(&mut input(text)).expect(text), expected, "{text:?}");
        }
    }
}
