//! Pictures that an HTML template shows from the disk: `<img src>`, `background`, and `url()` in
//! styles. What is named literally is rewritten to `cid:…` once, when the template is compiled, and
//! embedded once however often it is shown; what holds a value becomes a call that finds out for
//! each letter.
//!
//! The template is read as HTML with `{{ }}` and `{% %}` in it, and nothing but the references
//! themselves is touched: not a space of it comes out otherwise.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::value::Rest;
use minijinja::{Error, ErrorKind, State, Value};

use crate::letter::Piece;

use super::plain;
use super::value::{Context, HIDDEN};

/// The function that stands in a rewritten template for a reference with a value in it.
pub(super) const EMBED: &str = "embed_picture";

/// A reference to a picture, in the source of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The bytes that name the picture.
    pub(super) span: Range<usize>,
    pub(super) target: Target,
}

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A file, by a path.
    File(String),
    /// A picture of `images`, by its name there.
    Named(String),
    /// Text and expressions in turn, text first.
    Template(Vec<String>),
}

/// What a template is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Html,
    /// A sheet of styles, which some `<style>` includes.
    Css,
}

impl Language {
    /// By the name of its file.
    pub(super) fn of(name: &str) -> Language {
        let css = name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("css"));
        if css { Language::Css } else { Language::Html }
    }
}

/// What a template shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The references, in order, without those that lead to the web.
    pub(super) references: Vec<Reference>,
    /// Where it names a file that stays as it is: in words, and the bytes.
    pub(super) left: Vec<(String, Range<usize>)>,
}

/// Reads what a template shows.
pub(super) fn shown(source: &str, language: Language) -> Shown {
    let mut reader = Reader { raw: raw_blocks(source), ..Reader::new(source) };
    match language {
        Language::Html => reader.document(),
        Language::Css => reader.css(0..source.len()),
    }
    let Reader { found, left, raw, .. } = reader;
    let is_raw = |span: &Range<usize>| raw.iter().any(|raw| raw.start <= span.start && span.end <= raw.end);
    let mut shown = Shown { references: Vec::new(), left };
    for span in found {
        let text = &source[span.clone()];
        let has_jinja = ["{{", "{%", "{#"].into_iter().any(|open| text.contains(open));
        if has_jinja && is_raw(&span) {
            // It is shown how such a thing is written.
            continue;
        }
        let undecided = text.contains("{%") || text.contains("{#");
        if undecided && leads_to_a_file(text) {
            shown.left.push(("a path with `{% %}` or `{# #}` in it".to_owned(), span.clone()));
        }
        shown.references.extend(reference(source, span));
    }
    shown
}

/// Whether a value that is left as it is names a file. Of what is written between braces nobody knows.
fn leads_to_a_file(value: &str) -> bool {
    let text = plain::decoded(&without_jinja(value));
    !leads_elsewhere(text.trim()) && !text.trim().starts_with("cid:")
}

/// The same of the pictures in a `srcset`.
fn leads_to_files(value: &str) -> bool {
    let text = plain::decoded(&without_jinja(value));
    let text = text.trim();
    !text.starts_with("data:")
        && text.split(',').any(|candidate| {
            // What is behind the blank is a width, and what was all braces is nobody knows what.
            let target = candidate.trim_start().split(char::is_whitespace).next().unwrap_or_default();
            !leads_elsewhere(target)
        })
}

/// A text without `{{ }}`, `{% %}` and `{# #}`.
fn without_jinja(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["{{", "{%", "{#"].into_iter().filter_map(|open| rest.find(open)).min() {
        out.push_str(&rest[..at]);
        let close = match &rest[at..at + 2] {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        let end = rest[at..].find(close).map_or(rest.len(), |end| at + end + 2);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// What stands between `{% raw %}` and `{% endraw %}`: there braces are braces.
fn raw_blocks(source: &str) -> Vec<Range<usize>> {
    let mut reader = Reader::new(source);
    let mut blocks = Vec::new();
    while let Some(open) = source.get(reader.at..).and_then(|rest| rest.find('{')) {
        reader.at += open;
        let tag = reader.at;
        if !reader.skip_jinja() {
            reader.at += 1;
            continue;
        }
        let word = |tag: &str| {
            let inner = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}"));
            inner.map(|inner| inner.trim_matches(['-', '+']).trim().to_owned())
        };
        if word(&source[tag..reader.at]).as_deref() != Some("raw") {
            continue;
        }
        let start = reader.at;
        let ends = source[start..].match_indices("{%").find(|(at, _)| {
            let tag = &source[start + at..];
            tag.find("%}").is_some_and(|end| word(&tag[..end + 2]).as_deref() == Some("endraw"))
        });
        let end = ends.map_or(source.len(), |(at, _)| start + at);
        blocks.push(start..end);
        reader.at = end;
    }
    blocks
}

/// The source with each reference replaced. The replacements are in the order of the references.
pub(super) fn rewrite(source: &str, references: &[Reference], replacements: &[String]) -> String {
    let mut out = String::with_capacity(source.len() + 32 * references.len());
    let mut from = 0;
    for (reference, replacement) in references.iter().zip(replacements) {
        out.push_str(&source[from..reference.span.start]);
        out.push_str(replacement);
        from = reference.span.end;
    }
    out.push_str(&source[from..]);
    out
}

/// The call that stands for a reference with values in it. For each expression it is known whether
/// what it writes is the job's own (`operators`) or a row's.
pub(super) fn call(parts: &[String], operators: &[bool]) -> String {
    let mut kinds = String::new();
    let mut arguments = String::new();
    for (n, part) in parts.iter().enumerate() {
        if n % 2 == 0 {
            kinds.push('o');
            let text = part.replace('\\', "\\\\").replace('"', "\\\"");
            arguments.push_str(&format!(", \"{text}\""));
        } else {
            kinds.push(if operators.get(n / 2).copied().unwrap_or(false) { 'o' } else { 'v' });
            arguments.push_str(&format!(", ({part})"));
        }
    }
    format!("{{{{ {EMBED}(\"{kinds}\"{arguments}) }}}}")
}

/// [`EMBED`]: notes the picture with the letter and gives its `cid:`; a reference that turns out to
/// lead to the web stays what it is.
pub(super) fn embed(state: &State, kinds: &str, parts: Rest<Value>) -> Result<Value, Error> {
    let (mut pieces, mut path, mut ended) = (Vec::new(), String::new(), false);
    let mut whole = String::new();
    for (kind, part) in kinds.chars().zip(parts.iter()) {
        if part.is_none() || part.is_undefined() {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "the path of a picture has a value that is null",
            ));
        }
        let text = part.to_string();
        if text.is_empty() && kind == 'o' {
            continue;
        }
        whole.push_str(&text);
        if ended {
            continue;
        }
        if kind == 'o' {
            // As where no value is: a query is no part of the path, and nothing in it is a wildcard.
            let own = text.split(['?', '#']).next().unwrap_or_default();
            ended = own.len() < text.len();
            let own = percent_decoded(own.to_owned());
            path.push_str(&own);
            pieces.push(Piece::Operator(literal(&own)));
        } else {
            path.push_str(&text);
            pieces.push(Piece::Value(text));
        }
    }
    if leads_elsewhere(whole.trim()) {
        return Ok(Value::from(whole));
    }
    if path.chars().any(char::is_control) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the path of a picture holds a control character",
        ));
    }
    let cid = content_id(&path);
    let context = state.lookup(HIDDEN);
    let context = context.as_ref().and_then(|value| value.downcast_object_ref::<Context>());
    if let Some(context) = context {
        context.note_image(&cid, pieces);
    }
    Ok(Value::from_safe_string(format!("cid:{cid}")))
}

/// The content-id of a picture of `images`: its name, where that may stand in a header and a URL.
pub(super) fn content_id_of_name(name: &str) -> String {
    // The colon keeps it apart from every path.
    if name.is_ascii() { name.to_owned() } else { content_id(&format!("images:/{name}")) }
}

/// A content-id (RFC 2392) that a path always gets and no other path does.
pub(super) fn content_id(path: &str) -> String {
    let stem = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let stem: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(24).collect();
    let hash = blake3::hash(path.as_bytes()).to_hex();
    format!("{}.{}@postroom", if stem.is_empty() { "picture" } else { &stem }, &hash.as_str()[..12])
}

/// Whether a reference is none to a file: a URL with a scheme, `//host`, `#fragment`, or nothing. What word processors
/// write, `file:///C:/…`, is one to a file that no reader has.
fn leads_elsewhere(target: &str) -> bool {
    let scheme = target.split_once(':').is_some_and(|(scheme, _)| {
        // One letter is a drive, not a scheme.
        scheme.len() > 1
            && !scheme.eq_ignore_ascii_case("file")
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    target.is_empty() || scheme || target.starts_with("//") || target.starts_with('#')
}

fn reference(source: &str, span: Range<usize>) -> Option<Reference> {
    let raw = &source[span.clone()];
    let start = span.start + (raw.len() - raw.trim_start().len());
    let text = raw.trim();
    let span = start..start + text.len();
    if text.contains("{%") || text.contains("{#") {
        // Nobody can tell before it is rendered what this names.
        return None;
    }
    if !text.contains("{{") {
        if let Some(name) = text.strip_prefix("cid:") {
            return Some(Reference { span, target: Target::Named(decoded(name)) });
        }
        if leads_elsewhere(text) {
            return None;
        }
        // The references first: `&#39;` has no fragment in it.
        let text = plain::decoded(text);
        let path = text.split(['?', '#']).next().unwrap_or_default();
        return Some(Reference { span, target: Target::File(percent_decoded(path.to_owned())) });
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let end = expression_end(behind)?;
        let inner = behind[..end].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        parts.push(plain::decoded(before));
        parts.push(inner.to_owned());
        rest = behind.get(end + 2..)?;
    }
    parts.push(plain::decoded(rest));
    // `https://…/{{ id }}.png` is known to lead elsewhere before it is whole.
    let first = &parts[0];
    if !first.is_empty() && (leads_elsewhere(first) || first.starts_with("//")) {
        return None;
    }
    Some(Reference { span, target: Target::Template(parts) })
}

/// A path as an attribute writes it: `&amp;`, `%20`.
fn decoded(text: &str) -> String {
    percent_decoded(plain::decoded(text))
}

/// The text of a path as a pattern that finds just this.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if "*?[]{}\\".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn percent_decoded(text: String) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or(text)
}

/// Where `}}` ends the expression that `text` begins with; not within a string.
fn expression_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), b'\\') if !escaped => escaped = true,
            (Some(open), byte) if byte == open && !escaped => quote = None,
            (Some(_), _) => escaped = false,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'}') if text[at..].starts_with("}}") => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// Goes through a template as a browser would through the page it becomes.
struct Reader<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    found: Vec<Range<usize>>,
    /// Places that name a file and are not embedded, in words.
    left: Vec<(String, Range<usize>)>,
    raw: Vec<Range<usize>>,
    /// Within what only Outlook reads, `<!--[if mso]> … <![endif]-->`.
    commented: bool,
}

impl<'a> Reader<'a> {
    fn new(source: &'a str) -> Reader<'a> {
        Reader {
            source,
            bytes: source.as_bytes(),
            at: 0,
            found: Vec::new(),
            left: Vec::new(),
            raw: Vec::new(),
            commented: false,
        }
    }

    fn document(&mut self) {
        while self.at < self.bytes.len() {
            if self.skip_jinja() {
                continue;
            }
            if self.starts("<!--[if") && !self.commented {
                self.outlooks();
            } else if self.starts("<!--") {
                self.skip_to("-->");
            } else if self.starts("<") && self.peek(1).is_some_and(|b| b.is_ascii_alphabetic()) {
                self.tag();
            } else {
                self.at += 1;
            }
        }
    }

    /// A comment that Outlook reads as a document.
    fn outlooks(&mut self) {
        let all = self.bytes;
        let rest = &all[self.at..];
        let end = memchr::memmem::find(rest, b"-->").map_or(all.len(), |end| self.at + end);
        self.bytes = &all[..end];
        self.commented = true;
        // Behind `<!--`, which begins no comment within itself.
        self.at += 4;
        self.document();
        self.commented = false;
        self.bytes = all;
        self.at = (end + 3).min(all.len());
    }

    /// Notes what names a picture: to be embedded, or to be told of where it is not.
    fn note(&mut self, span: Range<usize>, words: impl FnOnce() -> String) {
        match self.commented {
            false => self.found.push(span),
            true => self.leave(format!("{} for Outlook", words()), span),
        }
    }

    /// Notes a place that is not embedded, if it names a file.
    fn leave(&mut self, words: String, span: Range<usize>) {
        if leads_to_a_file(&self.source[span.clone()]) {
            self.left.push((words, span));
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn starts(&self, text: &str) -> bool {
        self.bytes[self.at..].len() >= text.len()
            && self.bytes[self.at..self.at + text.len()].eq_ignore_ascii_case(text.as_bytes())
    }

    /// Moves behind the next `text`, or to the end.
    fn skip_to(&mut self, text: &str) {
        while self.at < self.bytes.len() && !self.starts(text) {
            self.at += 1;
        }
        self.at = (self.at + text.len()).min(self.bytes.len());
    }

    /// Moves behind `{{ }}`, `{% %}` or `{# #}` if one begins here.
    fn skip_jinja(&mut self) -> bool {
        if self.peek(0) != Some(b'{') || self.raw.iter().any(|raw| raw.contains(&self.at)) {
            return false;
        }
        if self.starts("{{") || self.starts("{%") {
            let close = if self.starts("{{") { "}}" } else { "%}" };
            let mut quote = None;
            self.at += 2;
            while let Some(byte) = self.peek(0) {
                match quote {
                    Some(_) if byte == b'\\' => self.at += 1,
                    Some(open) if byte == open => quote = None,
                    Some(_) => {}
                    None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
                    None if self.starts(close) => {
                        self.at += 2;
                        return true;
                    }
                    None => {}
                }
                self.at += 1;
            }
            self.at = self.bytes.len();
            return true;
        }
        if self.starts("{#") {
            self.skip_to("#}");
            return true;
        }
        false
    }

    fn word(&mut self, ends: impl Fn(u8) -> bool) -> Range<usize> {
        let start = self.at;
        while self.peek(0).is_some_and(|b| !ends(b))
            && !self.starts("{{")
            && !self.starts("{%")
            && !self.starts("{#")
        {
            self.at += 1;
        }
        start..self.at
    }

    fn tag(&mut self) {
        self.at += 1;
        let name = self.word(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'));
        let name = self.source[name].to_ascii_lowercase();
        let mut attributes: Vec<(String, Range<usize>)> = Vec::new();
        while let Some(byte) = self.peek(0) {
            if self.skip_jinja() {
                continue;
            }
            match byte {
                b'>' => {
                    self.at += 1;
                    break;
                }
                b if b.is_ascii_whitespace() || matches!(b, b'/' | b'=' | b'"' | b'\'') => self.at += 1,
                _ => {
                    let key = self
                        .word(|b| b.is_ascii_whitespace() || matches!(b, b'=' | b'>' | b'/' | b'"' | b'\''));
                    if key.is_empty() {
                        self.at += 1; // a brace of a broken template
                        continue;
                    }
                    let key = self.source[key].to_ascii_lowercase();
                    let before = self.at;
                    self.blanks();
                    if self.peek(0) != Some(b'=') {
                        self.at = before;
                        continue;
                    }
                    self.at += 1;
                    self.blanks();
                    attributes.push((key, self.value()));
                }
            }
        }
        let is_picture = name == "img" || name == "input";
        for (key, span) in attributes {
            match key.as_str() {
                "src" if is_picture => self.note(span, || format!("`src` of `{name}`")),
                "background" => self.note(span, || "`background`".to_owned()),
                "style" => self.css(span),
                "srcset" if leads_to_files(&self.source[span.clone()]) => {
                    self.left.push((format!("`srcset` of `{name}`"), span));
                }
                "poster" => self.leave(format!("`poster` of `{name}`"), span),
                "src" if is_shown(&name) => self.leave(format!("`src` of `{name}`"), span),
                _ => {}
            }
        }
        for (container, end) in [("style", "</style"), ("script", "</script"), ("textarea", "</textarea")] {
            if name == container {
                let start = self.at;
                while self.at < self.bytes.len() && !self.starts(end) {
                    if !self.skip_jinja() {
                        self.at += 1;
                    }
                }
                if container == "style" {
                    self.css(start..self.at.min(self.bytes.len()));
                }
            }
        }
    }

    fn blanks(&mut self) {
        while self.peek(0).is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// The value of an attribute, without its quotes.
    fn value(&mut self) -> Range<usize> {
        let quote = self.peek(0).filter(|b| matches!(b, b'"' | b'\''));
        self.at += usize::from(quote.is_some());
        let start = self.at;
        while let Some(byte) = self.peek(0) {
            if self.skip_jinja() {
                continue;
            }
            let ends = match quote {
                Some(quote) => byte == quote,
                None => byte.is_ascii_whitespace() || byte == b'>',
            };
            if ends {
                break;
            }
            self.at += 1;
        }
        let span = start..self.at;
        self.at += usize::from(quote.is_some() && self.peek(0).is_some());
        span
    }

    /// `url( )` in a stretch of CSS.
    fn css(&mut self, span: Range<usize>) {
        let (behind, all) = (self.at, self.bytes);
        self.bytes = &all[..span.end];
        self.at = span.start;
        while self.at < self.bytes.len() {
            if self.skip_jinja() {
                continue;
            }
            if self.starts("/*") {
                self.skip_to("*/");
                continue;
            }
            let begins_word = self.at == span.start || !self.bytes[self.at - 1].is_ascii_alphanumeric();
            if !(begins_word && self.starts("url(")) {
                self.at += 1;
                continue;
            }
            self.at += 4;
            self.blanks();
            let quote =
                ["\"", "'", "&quot;", "&#39;"].into_iter().find(|quote| self.starts(quote)).unwrap_or("");
            self.at += quote.len();
            let start = self.at;
            while self.at < self.bytes.len() {
                if self.skip_jinja() {
                    continue;
                }
                if self.starts(if quote.is_empty() { ")" } else { quote }) {
                    break;
                }
                self.at += 1;
            }
            let url = start..self.at.min(self.bytes.len());
            self.note(url, || "`url()`".to_owned());
        }
        self.bytes = all;
        self.at = behind;
    }
}

/// Elements beside pictures that show what their `src` names; Outlook's have a `v:` before them.
fn is_shown(element: &str) -> bool {
    element.starts_with("v:") || matches!(element, "source" | "video" | "audio" | "embed" | "iframe")
}

/// The names in an expression.
pub(super) fn names_in(expression: &str) -> BTreeSet<String> {
    super::scan::Scan::template(&format!("{{{{ {expression} }}}}"))
        .ok()
        .and_then(|scan| scan.emits.into_iter().next())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(source: &str) -> Vec<Reference> {
        shown(source, Language::Html).references
    }

    #[test]
    fn references_are_found_where_browsers_find_them() {
        let file = |path: &str| Target::File(path.to_owned());
        let template =
            |parts: &[&str]| Target::Template(parts.iter().map(|part| (*part).to_owned()).collect());
        for (source, expected) in [
            ("<img src=\"images/a.png\">", vec![file("images/a.png")]),
            ("<IMG alt='>' SRC = 'a b.png' />", vec![file("a b.png")]),
            ("<img src=a.png>", vec![file("a.png")]),
            ("<img src=\"a%20b.png?v=1\">", vec![file("a b.png")]),
            (
                "<td background=\"bg.jpg\" style=\"background: url('x.gif') no-repeat\">",
                vec![file("bg.jpg"), file("x.gif")],
            ),
            (
                "<style>a{background:url(a.png)} /* url(b.png) */ b{background:URL( \"c.png\" )}</style>",
                vec![file("a.png"), file("c.png")],
            ),
            (
                "<img src=\"https://example.com/a.png\"><img src=\"cid:logo\"><img src=\"data:x\"><img src=\"//x/y\">",
                vec![Target::Named("logo".to_owned())],
            ),
            (
                "<img src='cid:{{ x }}'><p style='background:url(cid:%E6%A0%87)'>",
                vec![Target::Named("标".to_owned())],
            ),
            ("<a href=\"a.png\"><script>'<img src=\"a.png\">'</script><!-- <img src=\"b.png\"> -->", vec![]),
            ("<img src=\"p/{{ id }}.png\">", vec![template(&["p/", "id", ".png"])]),
            (
                "<img src=\"{{ x|default(\"a.png\") }}\" alt=\"{{ \"'\" }}\">",
                vec![template(&["", "x|default(\"a.png\")", ""])],
            ),
            ("<img {% if a > b %}class=\"x\"{% endif %} src='a.png'>", vec![file("a.png")]),
            ("<img src=\"{% if a %}a{% endif %}.png\">", vec![]),
            ("<img src=\"https://x/{{ id }}.png\">", vec![]),
            ("{# <img src=\"a.png\"> #}{{ '<img src=\"b.png\">' }}<img src=\"\">", vec![]),
            ("<img src=\"a.png", vec![file("a.png")]),
            ("<p style=\"background:url(&quot;a.png&quot;)\">", vec![file("a.png")]),
            (
                "{% raw %}<img src=\"p/{{ id }}.png\">{{ '<img src=\"b.png\">' {% endraw %}<img src=\"{{ x }}\">",
                vec![file("b.png"), template(&["", "x", ""])],
            ),
            ("{%- raw -%}<style>a{#x}b{background:url(a.png)}</style>{%+ endraw %}", vec![file("a.png")]),
            ("{# {% raw %} #}{{ '{% raw %}' }}<img src=\"{{ x }}\">", vec![template(&["", "x", ""])]),
            ("{% raw %}<img src=\"{{ x }}\">", vec![]),
            (
                "<!--[if mso]><v:fill src=\"a.png\"><img src=\"b.png\"><![endif]--><img src=\"c.png\">",
                vec![file("c.png")],
            ),
            ("<!--[if !mso]><!--><img src=\"a.png\"><!--<![endif]-->", vec![file("a.png")]),
        ] {
            let found: Vec<Target> =
                references(source).into_iter().map(|reference| reference.target).collect();
            assert_eq!(found, expected, "{source}");
        }
    }

    #[test]
    fn a_sheet_of_styles_is_read_as_one() {
        let source =
            "/* <img src='x.png'> */ body{background:url(a.png)} p::after{content:'<img src=b.png>'}";
        let found = shown(source, Language::of("parts/S.CSS")).references;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].target, Target::File("a.png".to_owned()));
        assert_eq!(Language::of("css"), Language::Html);
    }

    #[test]
    fn what_is_left_as_it_is_is_told() {
        for (source, expected) in [
            ("<img src='a.png' srcset='b.png 2x, https://x/c.png 3x'>", &["`srcset` of `img`"][..]),
            ("<img src='a.png' srcset='https://x/b.png 2x, //x/c.png 3x'>", &[]),
            (
                "<video poster=p.jpg><source srcset='a.webp' src='b.webm'></video>",
                &["`poster` of `video`", "`srcset` of `source`", "`src` of `source`"],
            ),
            ("<img srcset='data:image/png;base64,AAAA 1x, b'><source src='{{ x }}'>", &[]),
            ("<!--[if gte mso 9]><v:fill type='tile' src='bg.png'/><![endif]-->", &["`src` of `v:fill`"]),
            ("<!--[if mso]><v:fill src='https://x/bg.png'/><img src='cid:logo'><![endif]-->", &[]),
            (
                "<!--[if mso]><td background='a.png' style='background:url(b.png)'><![endif]-->",
                &["`background` for Outlook", "`url()` for Outlook"],
            ),
            ("<!-- <img src='a.png'> --><a href='a.html'>", &[]),
            ("<img src='p/{{ id }}{# c #}.png'>", &["a path with `{% %}` or `{# #}` in it"]),
            ("<img src='{% if a %}a{% endif %}.png'>", &["a path with `{% %}` or `{# #}` in it"]),
            ("<img src='{% if a %}{{ a }}{% endif %}'><img src='https://x/{# c #}a.png'>", &[]),
            ("{% raw %}<img src='p/{{ id }}{# c #}.png'>{% endraw %}", &[]),
        ] {
            let left = shown(source, Language::Html).left;
            let left: Vec<&str> = left.iter().map(|(words, _)| words.as_str()).collect();
            assert_eq!(left, expected, "{source}");
        }
    }

    #[test]
    fn nothing_but_the_reference_is_rewritten() {
        let source = "<p  CLASS=x>\r\n<img  alt=\"ü\" src=\" images/a.png \" {{ more }}><img src='{{ p }}'>";
        let found = references(source);
        let replacements =
            ["cid:a".to_owned(), call(&["".to_owned(), "p".to_owned(), "".to_owned()], &[false])];
        assert_eq!(
            rewrite(source, &found, &replacements),
            "<p  CLASS=x>\r\n<img  alt=\"ü\" src=\" cid:a \" {{ more }}>\
             <img src='{{ embed_picture(\"ovo\", \"\", (p), \"\") }}'>"
        );
    }

    #[test]
    fn broken_templates_end_the_reading_and_nothing_else() {
        for source in [
            "<img src=\"{{ x",
            "<img",
            "<",
            "{{",
            "<style>url(",
            "<img src",
            "<img src=",
            "<!--",
            "{% '",
            "<img {",
            "<!--[if",
            "<!--[if mso]><img src='",
            "{% raw",
            "{% raw %}{% endraw",
            "<img srcset='{{ '>",
        ] {
            let _ = references(source);
        }
    }
}
