//! The text of a letter that has none but its HTML: one pass over what was rendered, without a
//! tree, for it is made for every letter.
//!
//! Links become footnotes, cells of a row stand beside each other, lists keep their signs, and lines
//! are wrapped by what they take on the screen: a Chinese character takes two columns and may begin
//! a line, but not every sign may. What the page hides, the text leaves out.

use std::collections::HashMap;

use encoding_rs::WINDOWS_1252;
use memchr::{memchr, memchr3, memmem};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Lines are no wider than this; a longer word or URL has a line of its own.
const WIDTH: usize = 76;

/// Lists and quotations within one another beyond this stay where they are: a broken page must not
/// make lines that grow without end.
const DEEPEST: usize = 8;

/// The text of a page.
pub(super) fn text(html: &str) -> String {
    let mut writer = Writer::new(html.len());
    let mut at = 0;
    while at < html.len() {
        let next = memchr(b'<', &html.as_bytes()[at..]).map_or(html.len(), |found| at + found);
        writer.text(&html[at..next]);
        if next == html.len() {
            break;
        }
        at = markup(html, next, &mut writer);
    }
    writer.finish()
}

/// Reads what begins with `<` at `at`; gives where it ends.
fn markup(html: &str, at: usize, writer: &mut Writer) -> usize {
    let rest = &html[at..];
    if rest.starts_with("<!--") {
        return memmem::find(rest.as_bytes(), b"-->").map_or(html.len(), |end| at + end + 3);
    }
    let second = rest.as_bytes().get(1).copied().unwrap_or_default();
    if !second.is_ascii_alphabetic() && !matches!(second, b'/' | b'!' | b'?') {
        writer.text("<");
        return at + 1;
    }
    let end = tag_end(html, at);
    let tag = &html[at..end];
    let closing = second == b'/';
    let name_start = if closing { 2 } else { 1 };
    let name = tag.get(name_start..).unwrap_or_default();
    let name_len = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let (name, attributes) = name.split_at(name_len);
    let closed = attributes.trim_end().ends_with("/>");
    let attributes = attributes.trim_end_matches(['>', '/']);
    let mut lower = [0u8; 12];
    let Some(lower) = lower.get_mut(..name.len()) else { return end };
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    let lower: &[u8] = lower;
    if closing {
        writer.close(lower);
        return end;
    }
    let raw =
        matches!(lower, b"style" | b"script" | b"title" | b"head" | b"textarea" | b"template" | b"noscript");
    let empty = matches!(
        lower,
        b"br" | b"img" | b"hr" | b"input" | b"meta" | b"link" | b"area" | b"base" | b"col" | b"wbr"
    );
    let hidden = !raw && is_hidden(attributes);
    if raw || (hidden && !empty) {
        let name = name.to_ascii_lowercase();
        return match (closed, raw) {
            (true, _) => end,
            (false, true) => raw_end(html, end, &name, &mut writer.unclosed),
            (false, false) => hidden_end(html, end, &name, &mut writer.unclosed),
        };
    }
    if !hidden {
        writer.open(lower, attributes);
    }
    end
}

/// Where a tag that begins at `at` ends: behind its `>`, but not one within quotes.
fn tag_end(html: &str, at: usize) -> usize {
    /// More quoted values than any tag has: one that goes on for longer has lost a quote, and not each tag
    /// behind it is to be read to the end of the page.
    const MOST_VALUES: usize = 256;
    let bytes = html.as_bytes();
    let mut from = at;
    for _ in 0..MOST_VALUES {
        let Some(found) = memchr3(b'>', b'"', b'\'', &bytes[from..]) else { break };
        let here = from + found;
        if bytes[here] == b'>' {
            return here + 1;
        }
        match memchr(bytes[here], &bytes[here + 1..]) {
            Some(close) => from = here + close + 2,
            None => break,
        }
    }
    // A quote that is never closed: the tag ends at the first `>` all the same.
    memchr(b'>', &bytes[at..]).map_or(html.len(), |found| at + found + 1)
}

/// Where an element without markup in it ends whose start tag ends at `from`: there, if it has no end; text
/// is not lost for the lack of a `</head>`. Where one of them has no end, none behind it has, and not each is to
/// look for it.
fn raw_end(html: &str, from: usize, name: &str, unclosed: &mut Vec<String>) -> usize {
    if unclosed.iter().any(|known| known == name) {
        return from;
    }
    let mut at = from;
    while let Some(found) = memmem::find(&html.as_bytes()[at..], b"</") {
        at += found;
        if tag_at(html, at).1.eq_ignore_ascii_case(name) {
            return tag_end(html, at);
        }
        at += 2;
    }
    unclosed.push(name.to_owned());
    from
}

/// Where a hidden element ends whose start tag ends at `from`; elements of its name within are counted. Many
/// go without an end tag: those end where another of their kind begins, or what they are in ends.
fn hidden_end(html: &str, from: usize, name: &str, unclosed: &mut Vec<String>) -> usize {
    let (around, behind): (&[&str], &[&str]) = match name {
        "td" | "th" => (&["table"], &["td", "th", "tr", "tbody", "tfoot"]),
        "tr" => (&["table"], &["tr", "tbody", "tfoot"]),
        "li" => (&["ul", "ol"], &["li"]),
        "p" => (&[], &BLOCKS),
        _ => (&[], &[]),
    };
    let (mut at, mut depth) = (from, 0usize);
    while let Some(found) = memchr(b'<', &html.as_bytes()[at..]) {
        at += found;
        if html[at..].starts_with("<!--") {
            at = memmem::find(&html.as_bytes()[at..], b"-->").map_or(html.len(), |end| at + end + 3);
            continue;
        }
        let (closing, tag) = tag_at(html, at);
        let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(tag));
        let nests = if behind.is_empty() { is(&[name]) } else { is(around) };
        if closing && depth == 0 && is(&[name]) {
            return tag_end(html, at);
        }
        if depth == 0 && (is(behind) || (closing && nests)) {
            return at;
        }
        match (nests, closing) {
            (true, true) => depth -= 1,
            (true, false) => depth += 1,
            (false, _) => {}
        }
        at += 1;
        if !closing && is(&["script", "style"]) {
            at = raw_end(html, at, &tag.to_ascii_lowercase(), unclosed);
        }
    }
    // Never closed: as in browsers, it hides what follows.
    html.len()
}

/// Elements that end a paragraph, where they begin and where what is around it ends.
const BLOCKS: [&str; 35] = [
    "address",
    "aside",
    "center",
    "dd",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "form",
    "main",
    "nav",
    "p",
    "div",
    "table",
    "td",
    "th",
    "tr",
    "ul",
    "ol",
    "li",
    "dl",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "pre",
    "blockquote",
    "section",
    "article",
    "header",
    "footer",
    "hr",
    "body",
];

/// Whether the tag at `at` is an end tag, and its name.
fn tag_at(html: &str, at: usize) -> (bool, &str) {
    let rest = &html[at + 1..];
    let (closing, rest) = rest.strip_prefix('/').map_or((false, rest), |rest| (true, rest));
    let end = rest.bytes().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
    (closing, &rest[..end])
}

/// `display:none`, `hidden`, or what Outlook needs to hide a preview text.
fn is_hidden(attributes: &str) -> bool {
    Attributes(attributes).any(|(name, value)| {
        name.eq_ignore_ascii_case("hidden") || (name.eq_ignore_ascii_case("style") && hides(value))
    })
}

/// Whether a style takes its element off the page; what it says last counts.
fn hides(style: &str) -> bool {
    let mut hides = false;
    for declaration in style.split(';') {
        let Some((property, value)) = declaration.split_once(':') else { continue };
        let (property, value) = (property.trim(), value.trim_start());
        let says = |word: &str| value.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if property.eq_ignore_ascii_case("display") {
            hides = says("none");
        } else if property.eq_ignore_ascii_case("mso-hide") && says("all") {
            return true;
        }
    }
    hides
}

/// The value of an attribute as it is written.
fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    Attributes(attributes).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The attributes of a tag, from behind its name: each with its value as it is written, or an empty one.
struct Attributes<'a>(&'a str);

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let blank = |c: char| c.is_ascii_whitespace();
        // What else stands between attributes is left of a broken tag.
        let rest = self.0.trim_start_matches(|c: char| blank(c) || matches!(c, '/' | '=' | '"' | '\'' | '>'));
        if rest.is_empty() {
            return None;
        }
        let (name, rest) = rest
            .split_at(rest.find(|c: char| blank(c) || matches!(c, '=' | '/' | '>')).unwrap_or(rest.len()));
        let Some(value) = rest.trim_start_matches(blank).strip_prefix('=') else {
            self.0 = rest;
            return Some((name, ""));
        };
        let value = value.trim_start_matches(blank);
        let quoted = ['"', '\''].into_iter().find_map(|quote| Some((quote, value.strip_prefix(quote)?)));
        let (value, rest) = match quoted {
            Some((quote, value)) => value.split_once(quote).unwrap_or((value, "")),
            None => value.split_at(value.find(|c: char| blank(c) || c == '>').unwrap_or(value.len())),
        };
        self.0 = rest;
        Some((name, value))
    }
}

/// A URL as browsers read it: without blanks around it and without the line ends of the page within.
fn url(written: &str) -> String {
    let blank = |c: char| c.is_ascii_whitespace();
    decoded(written).trim_matches(blank).replace(['\t', '\n', '\r'], "")
}

/// An attribute that is a number.
fn number(attributes: &str, name: &str) -> Option<i64> {
    attribute(attributes, name)?.trim().parse().ok()
}

struct Writer {
    out: String,
    /// Columns taken in the line that is being written.
    column: usize,
    /// The line has something in it.
    begun: bool,
    /// What is written before the next word: a space, or a bar between cells.
    gap: Gap,
    /// Line ends that are due before the next word.
    breaks: u8,
    /// The word that is being put together.
    word: String,
    /// What begins every line: quotation signs and the indents of lists.
    prefix: String,
    /// The line that was begun last is quoted.
    quoted: bool,
    /// What begins the next line instead, once: the sign of a list's item.
    marker: Option<String>,
    /// Lists that are open: the number of the last item, or none for signs; how many of `prefixes` are
    /// from before it.
    lists: Vec<(Option<i64>, usize)>,
    /// Lengths of `prefix` before each item and quotation that is open.
    prefixes: Vec<(&'static [u8], usize)>,
    tables: usize,
    preformatted: usize,
    /// The link that is open: where it leads, and where its text begins.
    link: Option<(String, usize)>,
    /// Where links lead, each with the number of its footnote.
    links: HashMap<String, usize>,
    /// Where the heading that is open begins.
    heading: Option<(usize, char)>,
    /// Elements without text of the page's that have no end.
    unclosed: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    Space,
    Bar,
}

impl Writer {
    fn new(length: usize) -> Writer {
        Writer {
            out: String::with_capacity(length / 2 + 256),
            column: 0,
            begun: false,
            gap: Gap::None,
            breaks: 0,
            word: String::with_capacity(64),
            prefix: String::new(),
            quoted: false,
            marker: None,
            lists: Vec::new(),
            prefixes: Vec::new(),
            tables: 0,
            preformatted: 0,
            link: None,
            links: HashMap::new(),
            heading: None,
            unclosed: Vec::new(),
        }
    }

    // ---- markup ----

    fn open(&mut self, name: &[u8], attributes: &str) {
        match name {
            b"br" => self.line_break(),
            b"p" | b"ul" | b"ol" | b"dl" | b"figure" | b"fieldset" | b"form" => {
                // A list within an item begins on the next line.
                let nested = matches!(name, b"ul" | b"ol") && !self.lists.is_empty();
                self.block(if nested { 1 } else { 2 });
                match name {
                    b"ul" => self.lists.push((None, self.prefixes.len())),
                    b"ol" => {
                        let first = number(attributes, "start").unwrap_or(1);
                        self.lists.push((Some(first.saturating_sub(1)), self.prefixes.len()));
                    }
                    _ => {}
                }
            }
            b"li" => self.item(attributes),
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => {
                self.block(2);
                let sign = match name {
                    b"h1" => '=',
                    b"h2" => '-',
                    _ => return,
                };
                self.heading = Some((self.out.len(), sign));
            }
            b"blockquote" => {
                self.block(2);
                self.indent(b"blockquote", "> ");
            }
            b"pre" => {
                self.block(2);
                self.preformatted += 1;
            }
            b"hr" => {
                self.block(2);
                self.word.push_str("----------------------------------------");
                self.block(2);
            }
            b"table" => {
                self.block(if self.tables == 0 { 2 } else { 1 });
                self.tables += 1;
            }
            b"tr" | b"caption" | b"thead" | b"tbody" | b"tfoot" => self.block(1),
            b"td" | b"th" => self.cell(),
            b"div" | b"section" | b"article" | b"header" | b"footer" | b"main" | b"nav" | b"aside"
            | b"address" | b"center" | b"dt" | b"dd" | b"figcaption" | b"summary" | b"details"
            | b"option" => self.block(1),
            b"a" => {
                let target = attribute(attributes, "href").map(url).unwrap_or_default();
                // One that nobody has ended ends here.
                self.close_link();
                self.link = Some((target, self.out.len()));
            }
            b"img" => {
                let alt = attribute(attributes, "alt").map(decoded).unwrap_or_default();
                let alt = alt.trim();
                if !alt.is_empty() {
                    self.words("[");
                    self.words(alt);
                    self.words("]");
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &[u8]) {
        match name {
            b"p" | b"dl" | b"figure" | b"fieldset" | b"form" => self.block(2),
            b"ul" | b"ol" => {
                let list = self.lists.pop();
                self.block(if self.lists.is_empty() { 2 } else { 1 });
                if let Some((_, before)) = list {
                    self.outdent_to(before);
                }
            }
            b"li" => {
                self.block(1);
                self.outdent(b"li");
            }
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => {
                self.flush_word();
                self.underline();
                self.block(2);
            }
            b"blockquote" => {
                self.block(2);
                self.outdent(b"blockquote");
            }
            b"pre" => {
                self.trim_end();
                self.preformatted = self.preformatted.saturating_sub(1);
                self.block(2);
            }
            b"table" => {
                self.tables = self.tables.saturating_sub(1);
                self.block(if self.tables == 0 { 2 } else { 1 });
            }
            b"tr" | b"caption" => self.block(1),
            b"div" | b"section" | b"article" | b"header" | b"footer" | b"main" | b"nav" | b"aside"
            | b"address" | b"center" | b"dt" | b"dd" | b"figcaption" | b"summary" | b"details"
            | b"option" => self.block(1),
            b"a" => self.close_link(),
            _ => {}
        }
    }

    /// A footnote for the link, unless its text says where it leads, or it has none.
    fn close_link(&mut self) {
        self.flush_word();
        let Some((target, start)) = self.link.take() else { return };
        let shown = self.out.get(start..).unwrap_or_default().trim();
        let says = target.strip_prefix("mailto:").or(target.strip_prefix("tel:")).unwrap_or(&target);
        let bare = |url: &str| {
            let url = url.strip_prefix("https://").or(url.strip_prefix("http://")).unwrap_or(url);
            url.trim_end_matches('/').to_owned()
        };
        let leads = target.contains(':') && !target.starts_with("javascript:");
        if shown.is_empty() || !leads || bare(shown) == bare(says) {
            return;
        }
        let next = self.links.len() + 1;
        let number = *self.links.entry(target).or_insert(next);
        // Behind the last word of the link, though a blank, a table or a block that is its text has ended.
        let (gap, breaks) = (std::mem::replace(&mut self.gap, Gap::Space), std::mem::take(&mut self.breaks));
        self.word = format!("[{number}]");
        self.flush_word();
        (self.gap, self.breaks) = (gap, breaks);
    }

    /// Line ends before what follows: one for a new line, two for a paragraph.
    fn block(&mut self, breaks: u8) {
        self.flush_word();
        self.gap = Gap::None;
        if !self.out.is_empty() || self.begun {
            self.breaks = self.breaks.max(breaks);
        }
    }

    /// `<br>`: two of them leave a line empty.
    fn line_break(&mut self) {
        self.flush_word();
        self.gap = Gap::None;
        if !self.out.is_empty() {
            self.breaks = (self.breaks + 1).min(2);
        }
    }

    fn cell(&mut self) {
        self.flush_word();
        if self.begun && self.breaks == 0 {
            self.gap = Gap::Bar;
        }
    }

    fn item(&mut self, attributes: &str) {
        self.block(1);
        self.outdent_open_item();
        let marker = match self.lists.last_mut() {
            Some((Some(last), _)) => {
                *last = number(attributes, "value").unwrap_or(last.saturating_add(1));
                format!("{last}. ")
            }
            _ => "* ".to_owned(),
        };
        if self.prefixes.len() < DEEPEST {
            self.marker = Some(format!("{}{marker}", self.prefix));
            self.prefixes.push((b"li", self.prefix.len()));
            self.prefix.extend(std::iter::repeat_n(' ', marker.len()));
        }
    }

    /// `<li>` ends the item before it, if nobody did, with all that is open within.
    fn outdent_open_item(&mut self) {
        match self.lists.last() {
            Some(&(_, before)) => self.outdent_to(before),
            None => self.outdent(b"li"),
        }
    }

    fn indent(&mut self, name: &'static [u8], sign: &str) {
        if self.prefixes.len() < DEEPEST {
            self.prefixes.push((name, self.prefix.len()));
            self.prefix.push_str(sign);
        }
    }

    fn outdent(&mut self, name: &[u8]) {
        if let Some(at) = self.prefixes.iter().rposition(|(open, _)| *open == name) {
            self.outdent_to(at);
        }
    }

    /// Leaves so many of `prefixes`.
    fn outdent_to(&mut self, before: usize) {
        if let Some((_, length)) = self.prefixes.get(before) {
            self.prefix.truncate(*length);
            self.prefixes.truncate(before);
            self.marker = None;
        }
    }

    fn underline(&mut self) {
        let Some((start, sign)) = self.heading.take() else { return };
        let line = self.out.get(start..).unwrap_or_default().trim();
        let width = line.lines().last().unwrap_or_default().width().min(WIDTH);
        if width > 0 {
            self.new_line();
            self.begin_line();
            self.out.extend(std::iter::repeat_n(sign, width));
            self.column += width;
        }
    }

    // ---- text ----

    fn text(&mut self, text: &str) {
        if memchr(b'&', text.as_bytes()).is_none() {
            self.words(text);
        } else {
            self.words(&decoded(text));
        }
    }

    fn words(&mut self, text: &str) {
        if self.preformatted > 0 {
            return self.lines(text);
        }
        let bytes = text.as_bytes();
        let mut from = 0;
        while from < bytes.len() {
            let length = bytes[from..].iter().position(|&b| is_blank(b)).unwrap_or(bytes.len() - from);
            if length > 0 {
                self.word.push_str(&text[from..from + length]);
                from += length;
            }
            if from < bytes.len() {
                self.flush_word();
                if self.gap == Gap::None && self.begun && self.breaks == 0 {
                    self.gap = Gap::Space;
                }
                from += bytes[from..].iter().position(|&b| !is_blank(b)).unwrap_or(bytes.len() - from);
            }
        }
    }

    /// Text within `<pre>`: its lines and spaces stay, but for those at the end of a line.
    fn lines(&mut self, text: &str) {
        for (n, line) in text.split('\n').enumerate() {
            if n > 0 {
                self.trim_end();
                self.new_line();
            }
            let line = line.strip_suffix('\r').unwrap_or(line);
            if !line.is_empty() {
                self.begin_line();
                self.out.push_str(line);
                self.column += line.width();
            }
        }
    }

    fn trim_end(&mut self) {
        let end = self.out.trim_end_matches([' ', '\t']).len();
        self.out.truncate(end);
    }

    fn flush_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        let ascii = word.is_ascii();
        let width = if ascii { word.len() } else { word.width() };
        let gap = match self.gap {
            Gap::None => "",
            Gap::Space => " ",
            Gap::Bar => " | ",
        };
        if self.breaks > 0 || !self.begun {
            self.begin_line();
        } else if self.column + gap.len() + width <= WIDTH {
            self.out.push_str(gap);
            self.column += gap.len();
        } else if ascii || !word.chars().any(is_wide) {
            // A bar stays at the end of its line.
            self.out.push_str(gap.trim_end());
            self.new_line();
            self.begin_line();
        } else {
            self.out.push_str(gap);
            self.column += gap.len();
        }
        self.gap = Gap::None;
        if self.column + width <= WIDTH || ascii {
            self.out.push_str(&word);
            self.column += width;
        } else {
            self.wrap_wide(&word);
        }
        self.word = word;
        self.word.clear();
    }

    /// A word with wide characters that does not fit: it may be broken before each of them, but not
    /// before a closing sign nor behind an opening one.
    fn wrap_wide(&mut self, word: &str) {
        let mut rest = word;
        while !rest.is_empty() {
            let unit = unit(rest);
            let (text, behind) = rest.split_at(unit);
            let width = text.width();
            if self.column + width > WIDTH && self.begun {
                while self.out.ends_with(' ') {
                    self.out.pop();
                }
                self.new_line();
                self.begin_line();
            }
            self.out.push_str(text);
            self.column += width;
            rest = behind;
        }
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.begun = false;
        self.column = 0;
    }

    /// Writes the line ends that are due, and what begins a line.
    fn begin_line(&mut self) {
        if self.breaks > 0 {
            // An empty line between two lines of a quotation is quoted, that before it is not.
            let quoted = self.prefix.trim_end();
            let quoted = self.quoted && quoted.starts_with('>');
            for n in 0..self.breaks {
                if n > 0 && quoted {
                    self.out.push_str(self.prefix.trim_end());
                }
                self.out.push('\n');
            }
            self.breaks = 0;
            self.begun = false;
        }
        if !self.begun {
            self.quoted = self.prefix.starts_with('>');
            let prefix = self.marker.take();
            let prefix = prefix.as_deref().unwrap_or(&self.prefix);
            self.out.push_str(prefix);
            self.column = prefix.len();
            self.begun = true;
        }
    }

    fn finish(mut self) -> String {
        self.close_link();
        if !self.links.is_empty() {
            self.prefix.clear();
            self.breaks = 0;
            let end = self.out.trim_end().len();
            self.out.truncate(end);
            self.out.push_str("\n\n");
            let mut links: Vec<(String, usize)> = std::mem::take(&mut self.links).into_iter().collect();
            links.sort_unstable_by_key(|(_, number)| *number);
            for (link, number) in links {
                self.out.push_str(&format!("[{number}] "));
                self.out.extend(link.chars().filter(|c| !c.is_control()));
                self.out.push('\n');
            }
        }
        let end = self.out.trim_end().len();
        self.out.truncate(end);
        self.out.push('\n');
        self.out
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r' | b'\x0c')
}

fn is_wide(c: char) -> bool {
    c.width() == Some(2)
}

/// Signs that do not begin a line.
fn closes(c: char) -> bool {
    "、。，．！？：；）】》〉」』〕％”’…—,.!?:;)]}%ー々".contains(c)
}

/// Signs that do not end one.
fn opens(c: char) -> bool {
    "（【《〈「『〔“‘([{￥$".contains(c)
}

/// The length of what must stay together at the beginning of a text: opening signs, one wide
/// character or a run of narrow ones, closing signs.
fn unit(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut end = 0;
    while let Some((at, c)) = chars.next_if(|(_, c)| opens(*c)) {
        end = at + c.len_utf8();
    }
    if let Some((at, c)) = chars.next() {
        end = at + c.len_utf8();
        if !is_wide(c) {
            while let Some((at, c)) = chars.next_if(|(_, c)| !is_wide(*c) && !opens(*c)) {
                end = at + c.len_utf8();
            }
        }
    }
    while let Some((at, c)) = chars.next_if(|(_, c)| closes(*c) || c.width() == Some(0)) {
        end = at + c.len_utf8();
    }
    end
}

/// Text with its character references (`&amp;`, `&#20320;`) as characters.
pub(super) fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match character(rest) {
            Some((c, length)) => {
                out.push(c);
                rest = &rest[length..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The character that a reference at the beginning of `text` stands for, and the length of it.
fn character(text: &str) -> Option<(char, usize)> {
    /// The longest name there is in the table, and more than any number needs.
    const LONGEST: usize = 10;
    let body = text.get(1..)?;
    let end = body.bytes().take(LONGEST + 1).position(|b| !b.is_ascii_alphanumeric() && b != b'#')?;
    let name = &body[..end];
    let length = 1 + end + usize::from(body.as_bytes().get(end) == Some(&b';'));
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        let c = match u8::try_from(code) {
            // Written by programs that took Windows' numbers for those of Unicode, and read so ever since.
            Ok(byte @ 0x80..=0x9f) => WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next(),
            _ => char::from_u32(code).filter(|c| *c != '\0'),
        };
        let c = c.unwrap_or('\u{fffd}');
        return Some((if c == '\u{a0}' { ' ' } else { c }, length));
    }
    // Names need their semicolon, but for the few that never had it: `a=1&copy=2` is a link.
    let ended = body.as_bytes().get(end) == Some(&b';');
    let known = NAMED.iter().find(|(known, _)| *known == name)?.1;
    (ended || matches!(name, "amp" | "lt" | "gt" | "quot" | "nbsp")).then_some((known, length))
}

/// What is written by name in mail.
#[rustfmt::skip] // a line for each would be longer than the rest of the file
const NAMED: [(&str, char); 147] = [
    ("amp", '&'), ("nbsp", ' '), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\''), ("copy", '©'),
    ("reg", '®'), ("trade", '™'), ("hellip", '…'), ("mdash", '—'), ("ndash", '–'), ("lsquo", '‘'),
    ("rsquo", '’'), ("ldquo", '“'), ("rdquo", '”'), ("sbquo", '‚'), ("bdquo", '„'), ("laquo", '«'),
    ("raquo", '»'), ("lsaquo", '‹'), ("rsaquo", '›'), ("bull", '•'), ("middot", '·'), ("euro", '€'),
    ("pound", '£'), ("yen", '¥'), ("cent", '¢'), ("curren", '¤'), ("sect", '§'), ("para", '¶'),
    ("deg", '°'), ("plusmn", '±'), ("times", '×'), ("divide", '÷'), ("minus", '−'), ("frac12", '½'),
    ("frac14", '¼'), ("frac34", '¾'), ("sup1", '¹'), ("sup2", '²'), ("sup3", '³'), ("micro", 'µ'),
    ("permil", '‰'), ("infin", '∞'), ("ne", '≠'), ("le", '≤'), ("ge", '≥'), ("larr", '←'), ("uarr", '↑'),
    ("rarr", '→'), ("darr", '↓'), ("check", '✓'), ("star", '☆'), ("starf", '★'), ("hearts", '♥'),
    ("zwnj", '\u{200c}'), ("zwj", '\u{200d}'), ("shy", '\u{ad}'), ("ensp", ' '), ("emsp", ' '),
    ("thinsp", ' '), ("iexcl", '¡'), ("iquest", '¿'), ("ordf", 'ª'), ("ordm", 'º'), ("szlig", 'ß'),
    ("agrave", 'à'), ("aacute", 'á'), ("acirc", 'â'), ("atilde", 'ã'), ("auml", 'ä'), ("aring", 'å'),
    ("aelig", 'æ'), ("ccedil", 'ç'), ("egrave", 'è'), ("eacute", 'é'), ("ecirc", 'ê'), ("euml", 'ë'),
    ("igrave", 'ì'), ("iacute", 'í'), ("icirc", 'î'), ("iuml", 'ï'), ("ntilde", 'ñ'), ("ograve", 'ò'),
    ("oacute", 'ó'), ("ocirc", 'ô'), ("otilde", 'õ'), ("ouml", 'ö'), ("oslash", 'ø'), ("oelig", 'œ'),
    ("ugrave", 'ù'), ("uacute", 'ú'), ("ucirc", 'û'), ("uuml", 'ü'), ("yacute", 'ý'), ("yuml", 'ÿ'),
    ("Agrave", 'À'), ("Aacute", 'Á'), ("Auml", 'Ä'), ("Aring", 'Å'), ("Ccedil", 'Ç'), ("Eacute", 'É'),
    ("Ntilde", 'Ñ'), ("Ouml", 'Ö'), ("Oslash", 'Ø'), ("Uuml", 'Ü'), ("scaron", 'š'),
    ("Acirc", 'Â'), ("Atilde", 'Ã'), ("AElig", 'Æ'), ("Egrave", 'È'), ("Ecirc", 'Ê'), ("Euml", 'Ë'),
    ("Igrave", 'Ì'), ("Iacute", 'Í'), ("Icirc", 'Î'), ("Iuml", 'Ï'), ("Ograve", 'Ò'), ("Oacute", 'Ó'),
    ("Ocirc", 'Ô'), ("Otilde", 'Õ'), ("Ugrave", 'Ù'), ("Uacute", 'Ú'), ("Ucirc", 'Û'), ("Yacute", 'Ý'),
    ("OElig", 'Œ'), ("Scaron", 'Š'), ("Yuml", 'Ÿ'), ("ETH", 'Ð'), ("eth", 'ð'), ("THORN", 'Þ'), ("thorn", 'þ'),
    ("not", '¬'), ("brvbar", '¦'), ("macr", '¯'), ("acute", '´'), ("cedil", '¸'), ("uml", '¨'),
    ("dagger", '†'), ("Dagger", '‡'), ("harr", '↔'), ("asymp", '≈'), ("radic", '√'), ("loz", '◊'), ("lrm", '\u{200e}'),
    ("rlm", '\u{200f}'),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn pages_become_text() {
        for (html, expected) in [
            ("<p>Hello,\n  <b>Ada</b>!</p><p>Bye</p>", "Hello, Ada!\n\nBye\n"),
            ("one<br>two<br><br>three", "one\ntwo\n\nthree\n"),
            ("<h1>News</h1><h2>Über uns</h2>text", "News\n====\n\nÜber uns\n--------\n\ntext\n"),
            ("<ul><li>a<li>b</li></ul><ol><li>x</li><li>y</li></ol>", "* a\n* b\n\n1. x\n2. y\n"),
            ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "* a\n  * b\n* c\n"),
            ("<blockquote><p>a</p><p>b</p></blockquote>c", "> a\n>\n> b\n\nc\n"),
            (
                "<a href=\"https://example.com/a?x=1&amp;y=2\">Read</a> and <a href='https://example.com/a?x=1&y=2'>again</a>, <a href=\"https://example.com/\">example.com</a>",
                "Read [1] and again [1], example.com\n\n[1] https://example.com/a?x=1&y=2\n",
            ),
            ("<a href=\"mailto:a@b.example\">a@b.example</a> <a href=\"#top\">top</a>", "a@b.example top\n"),
            (
                "<table><tr><th>Item</th><th>Price</th></tr><tr><td>Tea</td><td>&euro;&nbsp;3</td></tr></table>",
                "Item | Price\nTea | € 3\n",
            ),
            ("<table><tr><td><p>a</p></td><td><p>b</p></td></tr></table>", "a\n\nb\n"),
            ("<head><title>t</title><style>p{}</style></head><body>x<script>y</script></body>", "x\n"),
            ("<div style=\"display: none\">pre<div>view</div></div>shown<span hidden>no</span>", "shown\n"),
            (
                "<img src=\"cid:x\" alt=\"Logo\"> &lt;b&gt; &#20320;&#x597D; &unknown; a&b",
                "[Logo] <b> 你好 &unknown; a&b\n",
            ),
            ("<pre>a\n  b</pre>c", "a\n  b\n\nc\n"),
            ("a<!-- x > y -->b < c <a title='>'>d</a>", "ab < c d\n"),
            ("foo<b>bar</b>baz", "foobarbaz\n"),
            ("a<blockquote><p>b</p><p>c</p></blockquote>", "a\n\n> b\n>\n> c\n"),
            (
                "<a href='https://a.example'><table><tr><td>Click me</td></tr></table></a><p>x</p>",
                "Click me [1]\n\nx\n\n[1] https://a.example\n",
            ),
            (
                "<p>x <a href='https://a.example'><div>big</div></a></p>y",
                "x\nbig [1]\n\ny\n\n[1] https://a.example\n",
            ),
            ("<details><summary>more</summary>text</details>end", "more\ntext\nend\n"),
            ("&not;&Ecirc;&ETH; &notin;", "¬ÊÐ &notin;\n"),
            (
                "<a href='x:y' title='a hidden gem'>Sale</a> <img alt='a hidden gem'><p class=\"box hidden md\">shown</p>",
                "Sale [1] [a hidden gem]\n\nshown\n\n[1] x:y\n",
            ),
            (
                "<p hidden=''>a<p HIDDEN>b</p></p><p Style='Display : None'>c</p><b style='mso-hide: all'>d</b>e",
                "e\n",
            ),
            (
                "<p style='display:none;display:block'>a</p><p data-a='display:none' aria-hidden=true>b</p>",
                "a\n\nb\n",
            ),
            ("<ul><li>a<ol><li>b<li>c</ol><li>d</ul><p>e</p>", "* a\n  1. b\n  2. c\n* d\n\ne\n"),
            ("<ol start=5><li>five<li value='9'>nine<li>ten</ol>", "5. five\n9. nine\n10. ten\n"),
            ("<a href='x:1'>one <a href='x:2'>two</a>", "one [1] two [2]\n\n[1] x:1\n[2] x:2\n"),
            ("<a href='x:1'>one </a>two", "one [1] two\n\n[1] x:1\n"),
            (
                "<a href='  https://a.example/x\n    ?y=1&amp;z '>b</a>",
                "b [1]\n\n[1] https://a.example/x    ?y=1&z\n",
            ),
            ("&#147;a&#x94; &#150; b&rlm;", "“a” – b\u{200f}\n"),
            (
                "<table><tr><td hidden>a<table><tr><td>b<tr><td>c</table>d<td>e<tr hidden><td>f</td></tr><tr><td>g</table>",
                "e\ng\n",
            ),
            (
                "<ul><li hidden>a<ul><li>b</ul>c<li>d</ul><p hidden>e<p>f</p><div><p hidden>g</div>h",
                "* d\n\nf\n\nh\n",
            ),
            ("<b hidden><script>if(a<b)</script><!-- <b> --><b>x</b></b>y", "y\n"),
            ("<pre>name:  <b>Ada</b> L. \n  <i>x</i> \r\ny </pre>z", "name:  Ada L.\n  x\ny\n\nz\n"),
            ("<title>a<title>b", "ab\n"),
            ("<hr>", "----------------------------------------\n"),
            ("", "\n"),
        ] {
            assert_eq!(text(html), expected, "{html}");
        }
    }

    #[test]
    fn lines_are_wrapped_by_what_they_take_on_the_screen() {
        let words = text(&format!("<ul><li>{}</li></ul>", "word ".repeat(40)));
        assert_eq!(words.lines().count(), 3);
        assert!(words.lines().skip(1).all(|line| line.starts_with("  word")), "{words}");
        let chinese = text(&"您好，这是本月的报告（附件），请查收。".repeat(12));
        for line in chinese.lines() {
            assert!(line.width() <= WIDTH, "{line}");
            assert!(!line.starts_with(closes) && !line.ends_with(opens), "{line}");
        }
        assert!(chinese.lines().next().is_some_and(|line| line.width() > WIDTH - 6), "{chinese}");
        assert_eq!(chinese.replace('\n', ""), "您好，这是本月的报告（附件），请查收。".repeat(12));
        let url = format!("https://example.com/{}", "x".repeat(100));
        assert!(text(&format!("see {url} there")).contains(&url));
    }

    /// What this thread works for, whatever else the machine does.
    fn cost(work: impl FnOnce()) -> Duration {
        let now = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let began = now();
        work();
        Duration::try_from(now() - began).expect("clocks go on")
    }

    #[test]
    fn a_page_of_broken_tags_is_read_in_a_moment() {
        const TAGS: usize = 4000;
        let broken = [
            "<title>",
            "<style>",
            "<p \">\"",
            "<p '",
            "<div hidden>",
            "<p hidden><script>",
            "<script></x",
            "<!--",
            "<a href='x:{n}'>y</a>",
        ];
        for (before, tag) in broken.iter().flat_map(|tag| [("", tag), ("<div hidden>", tag)]) {
            let read = |tags| {
                let tags = (0..tags).map(|n: usize| tag.replace("{n}", &n.to_string()));
                let page = format!("{before}{}", tags.collect::<String>());
                cost(|| assert!(text(&page).ends_with('\n')))
            };
            // Looked at from each tag to the end, four times as many take sixteen times as long.
            let in_step = (0..5).any(|_| read(4 * TAGS) < 8 * read(TAGS));
            assert!(in_step, "{before}{tag}");
        }
    }

    proptest! {
        #[test]
        fn no_page_breaks_it(html in "(<[/]?(p|div|li|ul|ol|a|td|tr|table|pre|blockquote|h1|br|style|span)( href=\"x:y\"| style='display:none'|)>|[a-z您，（ \n&<>\"'=;#]|&amp;|<!--|-->){0,60}") {
            let text = text(&html);
            prop_assert!(text.ends_with('\n'));
            prop_assert!(text.lines().all(|line| line.len() < 1000));
        }
    }
}
