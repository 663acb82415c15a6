//! A YAML file as a tree with places: every key and value knows the bytes it stands at.
//!
//! serde's data model has no places, but an error of yaml_serde carries one. So a scalar is visited
//! by a visitor that keeps the value and *fails*: the failure comes back with line and column, and
//! both are put together. One pass over the file finds every place.
//!
//! Repeated keys, keys that are no text, unquoted braces and tags are noted and the reading goes on;
//! only what is no YAML at all stands alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Place};
use crate::exit::Exit;

/// A job file is written by a person. What is larger is data, and belongs into a file of its own.
pub(super) const MAX_FILE: u64 = 8 << 20;

/// A file that was read.
#[derive(Debug)]
pub(super) struct Document {
    /// The file, as it is shown.
    pub(super) file: PathBuf,
    /// Its text.
    pub(super) source: Arc<str>,
    /// What it says.
    pub(super) root: Node,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// The value.
    pub(super) content: Content,
    /// Its bytes in the source. A block scalar has those of its header, `|` or `>`.
    pub(super) span: Range<usize>,
}

/// The kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    /// Any whole number that YAML readers agree on.
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys and values in order; no key comes twice.
    Map(Vec<(Key, Node)>),
    /// Something that has been complained about already.
    Broken,
}

/// A key and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl Document {
    /// Reads a file. `shown` is its name in what is said about it. Mistakes that leave a tree to go
    /// on with come beside it.
    pub(super) fn read(path: &Path, shown: &Path) -> Result<(Document, Vec<Diagnostic>), Box<Diagnostic>> {
        let text = text_of(path, shown)?;
        Document::parse(shown, text)
    }

    /// Reads a text.
    pub(super) fn parse(
        shown: &Path,
        text: impl Into<Arc<str>>,
    ) -> Result<(Document, Vec<Diagnostic>), Box<Diagnostic>> {
        let source: Arc<str> = text.into();
        let reader = Reader::new(shown, source.clone());
        if let Some(at) = too_deep(&source) {
            return Err(Diagnostic::error("this is nested too deeply").at(reader.place(at..at + 1)).into());
        }
        let deserializer = serde_yaml::Deserializer::from_str(&source);
        match Seed(&reader).deserialize(deserializer) {
            Ok(root) => {
                let source = masked(source, &reader.secrets.borrow());
                let mut mistakes = reader.mistakes.into_inner();
                for place in mistakes.iter_mut().filter_map(|mistake| mistake.place.as_mut()) {
                    place.source = source.clone();
                }
                Ok((Document { file: shown.to_owned(), source, root }, mistakes))
            }
            Err(error) => {
                let mut mistake = reader.syntax(&error);
                if let Some(place) = &mut mistake.place {
                    place.source = masked(source.clone(), &likely_secrets(&source));
                }
                Err(mistake.into())
            }
        }
    }

    /// A place in it.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file.clone(), source: self.source.clone(), span }
    }
}

impl Node {
    /// The value as JSON, for `vars` and inline lists. A number that is none in JSON is null.
    pub(super) fn to_json(&self) -> Json {
        match &self.content {
            Content::Null | Content::Broken => Json::Null,
            Content::Bool(value) => Json::Bool(*value),
            Content::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => (*value as f64).into(),
            },
            Content::Float(value) => (*value).into(),
            Content::Text(value) => Json::String(value.clone()),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(entries) => {
                entries.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect()
            }
        }
    }

    /// What it is, for "expected X, found …".
    pub(super) fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "a truth value",
            Content::Int(_) | Content::Float(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Broken => "a mistake",
        }
    }
}

/// The whole text of a file, UTF-8, without a byte order mark.
pub(super) fn text_of(path: &Path, shown: &Path) -> Result<String, Box<Diagnostic>> {
    use std::io::Read;
    let cannot = |error: std::io::Error| -> Box<Diagnostic> {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        Diagnostic::error(match missing {
            true => format!("there is no file {}", shown.display()),
            false => format!("cannot read {}: {error}", shown.display()),
        })
        .ending(if missing { Exit::NoInput } else { Exit::Io })
        .into()
    };
    if path.is_dir() {
        return Err(Diagnostic::error(format!("{} is a folder", shown.display()))
            .help(format!("name the files that are meant, as in `{}/*.yaml`", shown.display()))
            .ending(Exit::NoInput)
            .into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Diagnostic::error(format!("{} is larger than {} MiB", shown.display(), MAX_FILE >> 20))
            .help("recipients belong into a file of their own: `recipients: {file: …}`")
            .into());
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let lossy: Arc<str> = Arc::from(&*String::from_utf8_lossy(error.as_bytes()));
        let lossy = masked(lossy.clone(), &likely_secrets(&lossy));
        // Up to `at` the lossy text has the same bytes.
        let place = Place { file: shown.to_owned(), source: lossy, span: at..at + 3 };
        Diagnostic::error(format!("{} is not UTF-8", shown.display()))
            .at(place)
            .label("from here on")
            .help("save the file as UTF-8; some editors write GBK or UTF-16 unless told")
            .into()
    })
}

/// Whether the value of a key must not be shown.
fn is_secret(key: &Node, value: &Node) -> bool {
    let Content::Text(name) = &key.content else { return false };
    let name = name.to_lowercase();
    // A proxy's address may hold a password.
    let url = name == "proxy" && matches!(&value.content, Content::Text(text) if text.contains('@'));
    url || SECRET_KEYS.contains(&&*name)
}

/// Keys whose value is a secret, when it stands there as it is.
const SECRET_KEYS: &[&str] =
    &["password", "token", "pass", "secret", "passwd", "api_key", "apikey", "refresh_token"];

/// The scalars of a value that must not be shown. Where a credential says where it comes from, that
/// may be seen; anything else there may be the secret itself.
fn secrets(node: &Node, spans: &mut Vec<Range<usize>>) {
    match &node.content {
        Content::List(items) => items.iter().for_each(|item| secrets(item, spans)),
        Content::Map(entries) => entries
            .iter()
            .filter(|(key, _)| !matches!(&*key.text, "env" | "file" | "command"))
            .for_each(|(_, value)| secrets(value, spans)),
        _ => spans.push(node.span.clone()),
    }
}

/// What is likely a secret in a file that is no YAML: what stands behind such a key on its line, unless it is a mapping.
fn likely_secrets(source: &str) -> Vec<Range<usize>> {
    let lower = source.to_ascii_lowercase();
    let mut spans = Vec::new();
    for key in SECRET_KEYS {
        for (at, _) in lower.match_indices(key) {
            let behind = &source[at + key.len()..];
            let Some(value) = behind.trim_start_matches(['"', '\'', ' ']).strip_prefix(':') else { continue };
            let value = value.trim_start_matches([' ', '\t']);
            let start = source.len() - value.len();
            if !value.starts_with('{') {
                spans.push(start..start + value.lines().next().map_or(0, str::len));
            }
        }
    }
    spans
}

/// The text with stars over some spans, byte for byte, so that places stay right.
fn masked(source: Arc<str>, spans: &[Range<usize>]) -> Arc<str> {
    if spans.is_empty() {
        return source;
    }
    let mut bytes = source.as_bytes().to_vec();
    for span in spans {
        let end = block_end(&source, span);
        bytes[span.start..end]
            .iter_mut()
            .filter(|byte| !matches!(byte, b'\n' | b'\r'))
            .for_each(|byte| *byte = b'*');
    }
    // Spans begin and end between characters, so that this is still text.
    String::from_utf8(bytes).map_or_else(|_| Arc::from("*".repeat(source.len())), Arc::from)
}

/// The end of a span; of a block scalar, which is known by its header, that of its last line.
fn block_end(source: &str, span: &Range<usize>) -> usize {
    if !source[span.clone()].starts_with(['|', '>']) {
        return span.end;
    }
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let line_start = source[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let outer = indent(&source[line_start..]);
    let mut end = span.end;
    for line in source[span.end..].split_inclusive('\n').skip(1) {
        if !line.trim().is_empty() && indent(line) <= outer {
            break;
        }
        end += line.len();
    }
    // The rest of the header's own line was skipped, not counted.
    let header = source[span.end..].split_inclusive('\n').next().map_or(0, str::len);
    (end + header).min(source.len())
}

/// Where more brackets are open than any job needs. The scanner looks at each open bracket again for
/// each further sign, so that a file of nothing else would keep it busy for hours.
fn too_deep(source: &str) -> Option<usize> {
    const MAX_OPEN: usize = 1000;
    let mut open = 0_usize;
    source.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN
    })
}

/// What all seeds of one reading share.
struct Reader {
    file: PathBuf,
    source: Arc<str>,
    lines: Vec<usize>,
    /// Where the last place was found: line, column, byte. Places mostly go forwards.
    last: Cell<(usize, usize, usize)>,
    /// What may still be read: aliases can make a small file very large.
    budget: Cell<usize>,
    /// A scalar whose place is on its way.
    caught: RefCell<Option<Content>>,
    mistakes: RefCell<Vec<Diagnostic>>,
    /// What must not be shown.
    secrets: RefCell<Vec<Range<usize>>>,
}

/// The words of an error of ours. Nobody sees them.
const PLACE: &str = "place";
const TOO_LARGE: &str = "aliases make this file too large";

impl Reader {
    fn new(file: &Path, source: Arc<str>) -> Reader {
        let lines = line_starts(&source);
        Reader {
            file: file.to_owned(),
            lines,
            last: Cell::new((0, 0, 0)),
            // Without aliases a file cannot hold more values than bytes.
            budget: Cell::new(8 * source.len() + 65_536),
            source,
            caught: RefCell::new(None),
            mistakes: RefCell::new(Vec::new()),
            secrets: RefCell::new(Vec::new()),
        }
    }

    /// Takes from the budget.
    fn spend<E: de::Error>(&self, cost: usize) -> Result<(), E> {
        let left = self.budget.get().checked_sub(cost).ok_or_else(|| E::custom(TOO_LARGE))?;
        self.budget.set(left);
        Ok(())
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file.clone(), source: self.source.clone(), span }
    }

    fn note(&self, mistake: Diagnostic) {
        self.mistakes.borrow_mut().push(mistake);
    }

    /// A value in the quotation marks of a Chinese keyboard: they are part of it, and everybody would see them.
    fn warn_of_chinese_quotes(&self, value: &Node) {
        const MARKS: [char; 5] = ['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{ff02}'];
        let Content::Text(text) = &value.content else { return };
        let inner = text.strip_prefix(MARKS).and_then(|text| text.strip_suffix(MARKS));
        let plain = self.source.get(value.span.clone()).is_some_and(|source| source.starts_with(MARKS));
        if plain && inner.is_some_and(|inner| !inner.contains(MARKS)) {
            let warning = Diagnostic::warning("the quotation marks around this value are part of it");
            self.note(
                warning
                    .at(self.place(value.span.clone()))
                    .help("YAML's are `\"` and `'`; if these are meant, put `\"` around them"),
            );
        }
    }

    /// The byte an error of ours points to: its words end in ` at line 3 column 5`, both counted
    /// from 1 and the column in characters; without that it is the very beginning.
    fn offset(&self, error: &str) -> usize {
        let read = || {
            let (line, column) = error.rsplit_once(" at line ")?.1.split_once(" column ")?;
            Some((line.parse::<usize>().ok()?.checked_sub(1)?, column.parse::<usize>().ok()?.checked_sub(1)?))
        };
        read().map_or(0, |(line, column)| self.byte(line, column))
    }

    fn byte(&self, line: usize, column: usize) -> usize {
        let Some(&start) = self.lines.get(line) else { return self.source.len() };
        let (last_line, last_column, last_byte) = self.last.get();
        let (mut at, skip) = match line == last_line && column >= last_column && last_byte >= start {
            true => (last_byte, column - last_column),
            false => (start, column),
        };
        at += self.source[at..].chars().take(skip).map(char::len_utf8).sum::<usize>();
        self.last.set((line, column, at));
        at
    }

    /// A scalar whose place an error has brought.
    fn scalar(&self, content: Content, error: &str) -> Node {
        let start = self.offset(error);
        Node { span: scalar_span(&self.source, start, &content), content }
    }

    /// The span of a list or a mapping: that of what is in it, with its brackets if it has any.
    fn around(&self, first: Option<usize>, last: usize) -> Range<usize> {
        // An empty one has no place of its own: its key lends it one.
        let Some(mut start) = first else { return 0..0 };
        let mut end = last.max(start);
        let before = self.source[..start].trim_end();
        if before.ends_with(['[', '{']) {
            start = before.len() - 1;
            let behind = self.source[end..].trim_start_matches([' ', '\t', '\r', '\n', ',']);
            if behind.starts_with([']', '}']) {
                end = self.source.len() - behind.len() + 1;
            }
        }
        start..end
    }

    /// What is no YAML, with the usual reasons explained.
    fn syntax(&self, error: &serde_yaml::Error) -> Diagnostic {
        let words = error.to_string();
        let at =
            error.location().map_or(self.source.len(), |location| location.index()).min(self.source.len());
        // Of a character that YAML does not allow the error has no place.
        let control = words.contains("control characters").then(|| self.source.find(not_yaml)).flatten();
        let at = control.unwrap_or(at);
        let at = (0..=at).rev().find(|&at| self.source.is_char_boundary(at)).unwrap_or(0);
        let title = match () {
            () if words.contains(TOO_LARGE) || words.contains("repetition limit") => {
                return Diagnostic::error(format!("{}: {TOO_LARGE}", self.file.display()))
                    .help("write the value out instead of `*alias`");
            }
            () if words.contains("recursion limit") => "this is nested too deeply".to_owned(),
            () if words.contains("more than one document") => {
                let second = self.second_document();
                return Diagnostic::error("there is more than one document in this file")
                    .at(self.place(second))
                    .label("a second one begins here")
                    .help("a job file holds one job: take the line `---` out, or make two files");
            }
            () => {
                let reason = words.split(" at line ").next().unwrap_or(&words);
                let reason = reason.split(" at position ").next().unwrap_or(reason);
                format!("this is not YAML: {reason}")
            }
        };
        let (span, help) = self.explain(at, &words);
        let diagnostic = Diagnostic::error(title).at(self.place(span)).label("here");
        match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }

    fn second_document(&self) -> Range<usize> {
        let mut begun = false;
        for &start in &self.lines {
            let line = self.source[start..].lines().next().unwrap_or("");
            if begun && line.starts_with("---") {
                return start..start + 3;
            }
            begun |= !line.trim().is_empty() && !line.starts_with(['#', '%']);
        }
        0..0
    }

    /// Why a place is no YAML: looks at the line, and at the one before, where many a mistake begins
    /// that is found only later.
    fn explain(&self, at: usize, words: &str) -> (Range<usize>, Option<String>) {
        let line = self.lines.partition_point(|&start| start <= at).saturating_sub(1);
        let quote = |why: &str| Some(format!("{why}: put the whole value in quotes"));
        for line in [Some(line), line.checked_sub(1)].into_iter().flatten() {
            let start = self.lines[line];
            let text = self.source[start..].lines().next().unwrap_or("");
            if text.trim_start().starts_with('#') {
                continue;
            }
            let indent = text.len() - text.trim_start().len();
            if let Some(tab) = text[..indent].find('\t') {
                let help = Some("YAML is indented with spaces, not with tabs".to_owned());
                return (start + tab..start + tab + 1, help);
            }
            let colon =
                text.find('\u{ff1a}').filter(|_| words.contains("expected ':'") && !text.contains(": "));
            if let Some(colon) = colon {
                let help = "`\u{ff1a}` is a letter in YAML: write `:` and a space".to_owned();
                return (start + colon..start + colon + '\u{ff1a}'.len_utf8(), Some(help));
            }
            let of_key = words.contains("expected ':'") || words.contains("mapping values are not allowed");
            if let Some(colon) = without_blank(text).filter(|_| of_key) {
                let help = "a `:` needs a space behind it in YAML".to_owned();
                return (start + colon..start + colon + 1, Some(help));
            }
            if let Some((sign, ours)) = chinese_sign(text, words) {
                let foreign = &text[sign.clone()];
                let help = format!("`{foreign}` is a letter in YAML: write `{ours}`");
                return (start + sign.start..start + sign.end, Some(help));
            }
            for (value, span) in values(text) {
                let span = start + span.start..start + span.end;
                let why = match value.as_bytes() {
                    [b'*', ..] => "a value that begins with `*` is an alias in YAML",
                    [b'{', b'{', ..] => "a value that begins with `{{` is a mapping in YAML",
                    [b'{', b'%', ..] => "a value that begins with `{%` is a mapping in YAML",
                    [b'@' | b'`' | b'%', ..] => "a value cannot begin with this sign in YAML",
                    [b'&', ..] if words.contains("anchor") => {
                        "a value that begins with `&` is an anchor in YAML"
                    }
                    [b'!', ..] if words.contains("tag") => "a value that begins with `!` is a tag in YAML",
                    [b'"' | b'\'', ..] if words.contains("did not find expected") && goes_on(value) => {
                        "something stands behind the closing quote"
                    }
                    [first, ..]
                        if words.contains("did not find expected")
                            && !matches!(first, b'"' | b'\'' | b'[' | b'|' | b'>')
                            && text[..span.start - start].contains(['[', '{'])
                            && value.contains("{{") =>
                    {
                        "`{{` within brackets begins a mapping in YAML"
                    }
                    [first, ..]
                        if words.contains("flow mapping")
                            && !matches!(first, b'"' | b'\'' | b'[' | b'{')
                            && value.split(", ").next().is_some_and(|value| value.contains(" [")) =>
                    {
                        "`[` inside a value within braces begins a list in YAML"
                    }
                    [first, ..]
                        if words.contains("mapping values are not allowed")
                            && !matches!(first, b'"' | b'\'' | b'[' | b'{')
                            && (value.contains(": ") || value.ends_with(':')) =>
                    {
                        "`: ` inside a value begins a mapping in YAML"
                    }
                    _ => continue,
                };
                return (span, quote(why));
            }
        }
        if words.contains("escape character") || words.contains("hexadecimal") {
            // Of bytes: the place may be in the middle of a character.
            let before = &self.source.as_bytes()[..self.source.len().min(at + 1)];
            if let Some(stroke) = before.iter().rposition(|byte| *byte == b'\\') {
                let help = "within double quotes `\\` begins an escape: write paths with `/`, other values in single quotes";
                return (stroke..stroke + 1, Some(help.to_owned()));
            }
        }
        let opened = match () {
            () if words.contains("quoted scalar") => Some("this quotation mark is not closed"),
            () if words.contains("flow sequence") => Some("this `[` is not closed"),
            () if words.contains("flow mapping") => Some("this `{` is not closed"),
            () => None,
        };
        if let Some(help) = opened {
            // The error's words end with the place where it was opened.
            let open = self.offset(words);
            return (open..self.source.len().min(open + 1), Some(help.to_owned()));
        }
        let help = match () {
            () if words.contains("simple key") || words.contains("block mapping") => {
                Some("look at the indentation here and above, and for a `:` that is missing".to_owned())
            }
            () if words.contains("mapping values are not allowed") => {
                Some("look at the indentation here and above".to_owned())
            }
            () => None,
        };
        let end = self.source[at..].chars().next().map_or(at, |c| at + c.len_utf8());
        (at..end, help)
    }
}

/// The colon of a key that has its value right behind it, in a line of YAML that did not parse.
fn without_blank(line: &str) -> Option<usize> {
    let key = line.trim_start_matches([' ', '-']);
    let colon = key.find(':').filter(|&at| at > 0)?;
    let (name, value) = (&key[..colon], &key[colon + 1..]);
    let is_key = !name.contains(['"', '\'', '{', '[', ' '])
        && !value.is_empty()
        && !value.starts_with([' ', '/', '\\']);
    (is_key && !value.contains(": ")).then_some(line.len() - key.len() + colon)
}

/// A comma between the entries of braces, or the brace or bracket that a value begins with, as a Chinese keyboard
/// writes them; and what YAML has in its place.
fn chinese_sign(line: &str, words: &str) -> Option<(Range<usize>, char)> {
    let at = |at: usize, sign: char| at..at + sign.len_utf8();
    let is_separator = |(comma, _): &(usize, &str)| {
        let word = line[comma + '\u{ff0c}'.len_utf8()..].split(": ").next().unwrap_or("").trim();
        line[..*comma].contains('{')
            && !within_quotes(line, *comma)
            && !word.is_empty()
            && !word.contains(|c: char| !(c.is_alphanumeric() || c == '_'))
    };
    if words.contains("flow mapping") {
        let (comma, _) = line.match_indices('\u{ff0c}').find(is_separator)?;
        return Some((at(comma, '\u{ff0c}'), ','));
    }
    let (value, span) = values(line).next().filter(|_| words.contains("mapping values are not allowed"))?;
    let sign = value.chars().next()?;
    let (close, ours) = match sign {
        '\u{ff5b}' => ('\u{ff5d}', '{'),
        '\u{ff3b}' => ('\u{ff3d}', '['),
        '\u{3010}' => ('\u{3011}', '['),
        _ => return None,
    };
    // A title in brackets, as Chinese subjects begin with, has its words behind it.
    let value = value.split(" #").next()?.trim_end();
    value.ends_with([close, '}', ']']).then(|| (at(span.start, sign), ours))
}

/// Whether a place in a line lies between the quotation marks of a value.
fn within_quotes(line: &str, at: usize) -> bool {
    let (mut quote, mut before) = (None, ' ');
    for sign in line[..at].chars().filter(|sign| !sign.is_whitespace()) {
        match quote {
            Some(open) if sign == open && (open, before) != ('"', '\\') => quote = None,
            Some(_) => {}
            // One within a word is an apostrophe.
            None if matches!(sign, '"' | '\'') && "{[,:\u{ff0c}\u{ff1a}\'".contains(before) => {
                quote = Some(sign)
            }
            None => {}
        }
        before = sign;
    }
    quote.is_some()
}

/// The values of a line of YAML that did not parse: what stands behind `: `, `- `, `[` or `, `.
fn values(line: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let starts = [": ", "- ", "[", ", "]
        .into_iter()
        .flat_map(|mark| line.match_indices(mark).map(move |(at, mark)| at + mark.len()));
    starts.filter_map(|start| {
        let flow = line[..start].contains('[');
        let value = line[start..].trim();
        let value = if flow { value.split([',', ']']).next().unwrap_or("").trim() } else { value };
        let start = start + (line[start..].len() - line[start..].trim_start().len());
        (!value.is_empty()).then_some((value, start..start + value.len()))
    })
}

/// Whether something stands behind the closing quote of a value that begins with one.
fn goes_on(value: &str) -> bool {
    let Some(quote) = value.chars().next() else { return false };
    let mut rest = value[quote.len_utf8()..].chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' if quote == '"' => _ = rest.next(),
            // Within single quotes two of them are one.
            '\'' if quote == '\'' && rest.as_str().starts_with('\'') => _ = rest.next(),
            c if c == quote => {
                let behind = rest.as_str().trim_start();
                return !behind.is_empty() && !behind.starts_with([',', ']', '}', '#', ':']);
            }
            _ => {}
        }
    }
    false
}

/// Characters that a YAML file does not hold as they are (YAML 1.2 §5.1).
fn not_yaml(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}') || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Where the lines begin, as YAML 1.1 breaks them: CRLF, LF, CR, NEL, LS and PS.
fn line_starts(source: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut chars = source.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\r' if chars.peek().is_some_and(|&(_, next)| next == '\n') => {}
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => starts.push(at + c.len_utf8()),
            _ => {}
        }
    }
    starts
}

/// The bytes of a scalar that begins at `start`, behind its anchor or tag if it has one.
fn scalar_span(source: &str, mut start: usize, content: &Content) -> Range<usize> {
    while source[start..].starts_with(['&', '!']) {
        let word = source[start..].find(char::is_whitespace).unwrap_or(source.len() - start);
        let behind = &source[start + word..];
        start += word + (behind.len() - behind.trim_start().len());
    }
    let rest = &source[start..];
    let line = rest.lines().next().unwrap_or("");
    let length = match rest.as_bytes().first() {
        Some(b'"') => quoted(rest, b'"', b'\\'),
        Some(b'\'') => quoted(rest, b'\'', b'\''),
        Some(b'|' | b'>') => line.split_whitespace().next().unwrap_or("").len(),
        _ => match content {
            Content::Text(text) if rest.starts_with(text.as_str()) => text.len(),
            // Over several lines: the first one is enough to show.
            Content::Text(_) => line.split(" #").next().unwrap_or("").trim_end().len(),
            Content::Null if !rest.starts_with(['~', 'n', 'N']) => 0,
            _ => rest
                .find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}' | ':'))
                .unwrap_or(rest.len()),
        },
    };
    start..start + length
}

/// The length of a quoted scalar with its quotes. In single quotes a quote is escaped by itself.
fn quoted(rest: &str, quote: u8, escape: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            _ if byte == escape && (escape != quote || bytes.get(at + 1) == Some(&quote)) => at += 2,
            _ if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Reads one value, whatever it is.
struct Seed<'r>(&'r Reader);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let reader = self.0;
        match deserializer.deserialize_any(Catch(reader)) {
            Ok(node) => Ok(node),
            Err(error) => match reader.caught.take() {
                Some(content) => Ok(reader.scalar(content, &error.to_string())),
                None => Err(error),
            },
        }
    }
}

/// Keeps a scalar and fails, so that its place comes back; builds lists and mappings.
struct Catch<'r>(&'r Reader);

impl Catch<'_> {
    fn scalar<T, E: de::Error>(self, content: Content) -> Result<T, E> {
        self.0.spend::<E>(1)?;
        *self.0.caught.borrow_mut() = Some(content);
        Err(E::custom(PLACE))
    }
}

impl<'de> Visitor<'de> for Catch<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.scalar(Content::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.scalar(Content::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Content::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Content::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Content::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.scalar(Content::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.scalar(i128::try_from(value).map_or(Content::Float(value as f64), Content::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Content::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.0.spend::<E>(value.len())?;
        self.scalar(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let reader = self.0;
        reader.spend::<A::Error>(1)?;
        let mut items: Vec<Node> = Vec::new();
        while let Some(item) = sequence.next_element_seed(Seed(reader))? {
            items.push(item);
        }
        let first = items.first().map(|item| item.span.start);
        let last = items.last().map_or(0, |item| item.span.end);
        Ok(Node { span: reader.around(first, last), content: Content::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let reader = self.0;
        reader.spend::<A::Error>(1)?;
        let mut entries = Entries { reader, list: Vec::new(), seen: HashMap::new(), merged: Vec::new() };
        let (mut first, mut last, mut broken) = (None, 0, false);
        while let Some(key) = map.next_key_seed(Seed(reader))? {
            let value = map.next_value_seed(Seed(reader))?;
            first.get_or_insert(key.span.start);
            last = value.span.end.max(key.span.end);
            broken |= !entries.add(key, value);
        }
        let content = match broken {
            true => Content::Broken,
            false => Content::Map(entries.finish()),
        };
        Ok(Node { span: reader.around(first, last), content })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let reader = self.0;
        let (_, value) = data.variant::<String>()?;
        let node = value.newtype_variant_seed(Seed(reader))?;
        reader.note(
            Diagnostic::error("a tag means nothing here")
                .at(reader.place(node.span.clone()))
                .label("before this stands a `!`")
                .help("a value that begins with `!` is a tag in YAML: put the whole value in quotes"),
        );
        Ok(Node { content: Content::Broken, ..node })
    }
}

/// The entries of a mapping while it is read.
struct Entries<'r> {
    reader: &'r Reader,
    list: Vec<(Key, Node)>,
    seen: HashMap<String, Range<usize>>,
    /// What `<<` brought in: it gives way to what the mapping says itself.
    merged: Vec<(Key, Node)>,
}

impl Entries<'_> {
    /// Takes an entry in, or notes what is wrong with it; false if the mapping is none at all.
    fn add(&mut self, key: Node, mut value: Node) -> bool {
        let reader = self.reader;
        if value.span == (0..0) {
            value.span = empty_brackets(&reader.source, key.span.end);
        }
        if is_secret(&key, &value) {
            let mut spans = reader.secrets.borrow_mut();
            secrets(&value, &mut spans);
            // An anchor or a tag before it may be part of it, forgotten quotes taken into account.
            let between = reader.source.get(key.span.end..value.span.start).unwrap_or("");
            if let Some(words) =
                between.trim_start().strip_prefix(':').filter(|words| !words.trim().is_empty())
            {
                spans.push(value.span.start - words.trim_start().len()..value.span.start);
            }
        }
        reader.warn_of_chinese_quotes(&value);
        let text = match &key.content {
            Content::Text(text) => text.clone(),
            Content::Map(_) | Content::List(_) | Content::Broken => {
                let mut place = key.span.clone();
                let braces = reader.source[..place.start].ends_with('{');
                if braces && reader.source[place.end..].starts_with('}') {
                    place = place.start - 1..place.end + 1;
                }
                if !matches!(key.content, Content::Broken) {
                    reader.note(match braces {
                        true => Diagnostic::error("a template that begins with `{{` is not in quotes")
                            .at(reader.place(place))
                            .label("YAML reads this as a mapping")
                            .help("put the whole value in quotes: \"{{ … }}\""),
                        false => Diagnostic::error(format!("a key is text, not {}", key.kind()))
                            .at(reader.place(place)),
                    });
                }
                return false;
            }
            // `2026: x` and `yes: x`: the words as they stand are the key.
            _ => reader.source[key.span.clone()].to_owned(),
        };
        if text == "<<" && self.merge(&value) {
            return true;
        }
        if let Some(first) = self.seen.get(&text) {
            let line = reader.lines.partition_point(|&start| start <= first.start);
            reader.note(
                Diagnostic::error(format!("the key `{text}` stands here twice"))
                    .at(reader.place(key.span))
                    .label(format!("first on line {line}"))
                    .help("of two equal keys one is ignored: take one out"),
            );
            return true;
        }
        self.seen.insert(text.clone(), key.span.clone());
        self.list.push((Key { text, span: key.span }, value));
        true
    }

    fn merge(&mut self, value: &Node) -> bool {
        match &value.content {
            Content::Map(entries) => self.merged.extend(entries.iter().cloned()),
            Content::List(maps) if maps.iter().all(|map| matches!(map.content, Content::Map(_))) => {
                maps.iter().for_each(|map| {
                    self.merge(map);
                });
            }
            _ => return false,
        }
        true
    }

    fn finish(mut self) -> Vec<(Key, Node)> {
        for (key, value) in self.merged {
            if !self.seen.contains_key(&key.text) {
                self.seen.insert(key.text.clone(), key.span.clone());
                self.list.push((key, value));
            }
        }
        self.list
    }
}

/// The place of an empty `{}` or `[]` behind its key; the key's end if there is none.
fn empty_brackets(source: &str, behind: usize) -> Range<usize> {
    let line = source[behind..].lines().next().unwrap_or("");
    let found = line.find(['{', '[']).and_then(|open| Some((open, line[open..].find(['}', ']'])?)));
    match found {
        Some((open, length)) => behind + open..behind + open + length + 1,
        None => behind..behind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Document, Vec<Diagnostic>) {
        Document::parse(Path::new("job.yaml"), text)
            .unwrap_or_else(|mistake| panic!("{text:?}: {}", crate::diagnostic::print(&[*mistake], false)))
    }

    /// Every scalar of the tree as its source words.
    fn words(document: &Document) -> Vec<String> {
        fn walk(document: &Document, node: &Node, into: &mut Vec<String>) {
            match &node.content {
                Content::List(items) => items.iter().for_each(|item| walk(document, item, into)),
                Content::Map(entries) => entries.iter().for_each(|(key, value)| {
                    into.push(document.source[key.span.clone()].to_owned());
                    walk(document, value, into);
                }),
                _ => into.push(document.source[node.span.clone()].to_owned()),
            }
        }
        let mut into = Vec::new();
        walk(document, &document.root, &mut into);
        into
    }

    #[test]
    fn every_value_knows_its_place() {
        for (text, expected) in [
            ("a: b", vec!["a", "b"]),
            ("a: 1.10\nb: true\nc: ~\nd:\n", vec!["a", "1.10", "b", "true", "c", "~", "d", ""]),
            (
                "主题: 您好 {{ 姓名 }} # 注\n收件人: \"a\\\"b\"\n",
                vec!["主题", "您好 {{ 姓名 }}", "收件人", "\"a\\\"b\""],
            ),
            ("a: 'it''s'\nb: {c: [1, 2], '好': x}", vec!["a", "'it''s'", "b", "c", "1", "2", "'好'", "x"]),
            ("a: |\n  one\n  two\nb: >-\n  x\nc: d", vec!["a", "|", "b", ">-", "c", "d"]),
            ("a: one\n  two # c\nb: x", vec!["a", "one", "b", "x"]),
            ("a: &x hello\nb: *x\n", vec!["a", "hello", "b", "hello"]),
            ("- a\r\n- 好: b\r\n  c: d\r\n", vec!["a", "好", "b", "c", "d"]),
            ("a: !!str 12\nb: c", vec!["a", "12", "b", "c"]),
            ("x", vec!["x"]),
            ("{\"a\": {\"b\": -1e3}}", vec!["\"a\"", "\"b\"", "-1e3"]),
            ("a: \"x\u{2028}b\"\nc: d", vec!["a", "\"x\u{2028}b\"", "c", "d"]),
        ] {
            let (document, mistakes) = parse(text);
            assert!(mistakes.is_empty(), "{text:?}: {mistakes:?}");
            assert_eq!(words(&document), expected, "{text:?}");
        }
    }

    #[test]
    fn lists_and_mappings_have_places_too() {
        for (text, expected) in [
            ("a: [1, 2 ]", "[1, 2 ]"),
            ("a: { b: c }", "{ b: c }"),
            ("a: []", "[]"),
            ("a:   {}  # x", "{}"),
            ("a:\n  b: c\n  d: 好", "b: c\n  d: 好"),
        ] {
            let (document, _) = parse(text);
            let Content::Map(entries) = &document.root.content else { panic!("{text}") };
            assert_eq!(&document.source[entries[0].1.span.clone()], expected, "{text}");
        }
    }

    #[test]
    fn merge_keys_give_way() {
        let (document, mistakes) = parse("base: &b {x: 1, y: 2}\na: {<<: *b, y: 3}\n");
        assert!(mistakes.is_empty());
        assert_eq!(document.root.to_json()["a"], serde_json::json!({"x": 1, "y": 3}));
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let one = format!("*a{}", n - 1);
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![one; 10].join(", ")));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 5000].join(", "));
        for text in [bomb, long] {
            let mistake = Document::parse(Path::new("job.yaml"), text).expect_err("a bomb");
            assert!(mistake.title.contains("too large"), "{}", mistake.title);
        }
        let deep = format!("a: {}", "[".repeat(100_000));
        assert!(Document::parse(Path::new("job.yaml"), deep).is_err());
    }
}
