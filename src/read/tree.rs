//! The tree of a message (RFC 2045, RFC 2046), made from bytes as they come: of each part its header
//! and the beginning of its body are kept, so that a message of any size needs little memory.

use std::io;

use super::charset::{self, Decoded};
use super::field::{self, Field, fields};
use super::parameter::Parameters;
use super::uu::{self, Uuencoded, uuencoded};
use super::word::{self, base64_lenient, base64_pieces, hex};
use super::{Address, addresses};

/// How much of a part's encoded body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Of a text part, and of a message that is encoded as a whole.
    pub text: usize,
    /// Of any other.
    pub other: usize,
}

impl Keep {
    /// Everything.
    pub const ALL: Keep = Keep { text: usize::MAX, other: usize::MAX };
}

/// A part of a message; the message itself is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Its header lines as they stand.
    pub header: Vec<u8>,
    /// The type, lower case, such as `text/plain`.
    pub content_type: String,
    /// Parameters of the type.
    pub parameters: Vec<(String, String)>,
    /// The transfer encoding, lower case.
    pub encoding: String,
    /// Bytes of the encoded body.
    pub size: u64,
    /// The beginning of the encoded body.
    pub body: Vec<u8>,
    /// Where the part lies in the message, header and all.
    pub span: (u64, u64),
    /// Parts within: of a multipart, or the one message of a `message/rfc822`.
    pub parts: Vec<Part>,
    /// Of a whole message: whether there are more parts in it than [`MAX_PARTS`].
    pub left_out: bool,
}

/// No header of a real message is longer; what exceeds it is not looked at where little is to be kept.
const MAX_HEADER: usize = 1 << 20;
/// Parts within parts, so deep.
const MAX_DEPTH: usize = 60;
/// Encoded messages within encoded messages: each is held once more.
const MAX_PACKED: usize = 4;
/// Parts in all, in encoded messages, too. Those behind are not looked at.
pub const MAX_PARTS: usize = 10_000;
/// RFC 2046 allows 70 characters; some programs exceed it.
const MAX_BOUNDARY: usize = 250;
/// A line that may be a boundary, or is one of a header, is collected up to here.
const MAX_LINE: usize = 64 * 1024;

impl Part {
    /// Reads a whole message.
    pub fn parse(message: &[u8]) -> Part {
        let mut scanner = Scanner::new(Keep::ALL);
        scanner.feed(message);
        scanner.finish()
    }

    /// Reads a whole message from where it lies, which is held once.
    pub fn read(mut from: impl io::Read) -> io::Result<Part> {
        let mut scanner = Scanner::new(Keep::ALL);
        let mut piece = vec![0; MAX_LINE];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return Ok(scanner.finish()),
                Ok(count) => scanner.feed(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The fields of the header.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        fields(&self.header)
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<Field<'_>> {
        self.fields().find(|field| field.is(name))
    }

    /// The charset declared for this part, or for the first text part within: what raw bytes in a
    /// header are probably in.
    pub fn declared_charset(&self) -> Option<&str> {
        self.parameter("charset").or_else(|| self.parts.iter().find_map(Part::declared_charset))
    }

    /// A parameter of the type.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The text of a field, its encoded words decoded.
    pub fn text_of(&self, name: &str) -> Option<String> {
        let hint = self.declared_charset();
        self.field(name).map(|field| word::text(field.value, hint))
    }

    /// The addresses of all fields of a name.
    pub fn addresses_of(&self, name: &str) -> Vec<Address> {
        let hint = self.declared_charset();
        self.fields().filter(|field| field.is(name)).flat_map(|field| addresses(field.value, hint)).collect()
    }

    /// `Date`, in seconds since 1970.
    pub fn date(&self) -> Option<i64> {
        self.field("Date").and_then(|field| super::date(field.value))
    }

    /// `inline`, `attachment` or whatever stands there, with its parameters.
    pub fn disposition(&self) -> Option<Parameters> {
        self.field("Content-Disposition").map(|field| Parameters::parse(field.value, self.declared_charset()))
    }

    /// The name of an attached file, as its sender wrote it.
    pub fn file_name(&self) -> Option<String> {
        let disposition = self.disposition();
        let name = disposition.as_ref().and_then(|disposition| disposition.get("filename"));
        name.or_else(|| self.parameter("name")).map(str::to_owned).filter(|name| !name.is_empty())
    }

    /// Whether it has no parts within.
    pub fn is_leaf(&self) -> bool {
        self.parts.is_empty() && !self.content_type.starts_with("multipart/")
    }

    /// Whether it is a message within this one whose bytes are encoded: parts of it lie nowhere in this one.
    pub fn is_encoded_message(&self) -> bool {
        self.is_message() && matches!(self.encoding.as_str(), "base64" | "quoted-printable")
    }

    fn is_message(&self) -> bool {
        matches!(self.content_type.as_str(), "message/rfc822" | "message/global" | "message/news")
    }

    /// Whether it is something to save rather than to read.
    pub fn is_attachment(&self) -> bool {
        let disposition = self.disposition().map(|disposition| disposition.value);
        match disposition.as_deref() {
            Some("attachment") => true,
            Some("inline") | None => {
                self.is_leaf() && (!self.content_type.starts_with("text/") || self.file_name().is_some())
                    || self.content_type == "message/rfc822" && disposition.is_some()
            }
            Some(_) => self.is_leaf() && self.file_name().is_some(),
        }
    }

    /// The kept body without its transfer encoding.
    pub fn decoded(&self) -> Vec<u8> {
        match self.encoding.as_str() {
            "base64" => base64_lenient(&self.body),
            "quoted-printable" => quoted_printable(&self.body),
            "x-uuencode" | "uuencode" | "x-uue" | "uue" => uu::decode(&self.body),
            _ => self.body.clone(),
        }
    }

    /// How long [`Part::decoded`] is, without holding it.
    pub fn decoded_size(&self) -> u64 {
        let mut size = 0;
        match self.encoding.as_str() {
            "base64" => base64_pieces(&self.body, |piece| size += piece.len() as u64),
            "quoted-printable" | "x-uuencode" | "uuencode" | "x-uue" | "uue" => {
                size = self.decoded().len() as u64;
            }
            _ => size = self.body.len() as u64,
        }
        size
    }

    /// The kept body as characters.
    pub fn text(&self) -> Decoded {
        charset::decode(self.parameter("charset"), &self.decoded())
    }

    /// Files that stand in a text.
    pub fn uuencoded(&self) -> Vec<Uuencoded> {
        match self.is_leaf() && self.content_type == "text/plain" {
            true => uuencoded(&self.decoded(), self.declared_charset()),
            false => Vec::new(),
        }
    }

    /// This part and all within, in the order in which they stand.
    pub fn walk(&self) -> Vec<&Part> {
        let mut found = Vec::new();
        let mut waiting = vec![self];
        while let Some(part) = waiting.pop() {
            found.push(part);
            waiting.extend(part.parts.iter().rev());
        }
        found
    }

    fn understand(&mut self, default: &str) {
        let kind = self.field("Content-Type").map(|field| {
            // The charset of this very field's raw bytes cannot be asked for before it is read.
            Parameters::parse(field.value, None)
        });
        match kind {
            Some(Parameters { value, list }) => {
                // RFC 2045 §5.2: what cannot be read is taken as the default.
                self.content_type = if value.split('/').filter(|half| !half.is_empty()).count() == 2 {
                    value
                } else {
                    "text/plain".into()
                };
                self.parameters = list;
            }
            None => self.content_type = default.to_owned(),
        }
        let encoding =
            self.field("Content-Transfer-Encoding").map(|field| field.unfolded()).unwrap_or_default();
        self.encoding = String::from_utf8_lossy(&encoding).trim().to_ascii_lowercase();
        if let Some((first, _)) = self.encoding.split_once([' ', ';', '(']) {
            self.encoding = first.to_owned();
        }
    }
}

/// Makes a [`Part`] from bytes in pieces of any size.
pub struct Scanner {
    keep: Keep,
    /// So many messages are around this one that came encoded within another, and so many parts in all.
    packed: usize,
    above: usize,
    /// How much of a header is kept.
    longest_header: usize,
    /// The message, and the parts within that are open, each in the one before it.
    open: Vec<Open>,
    state: State,
    /// The beginning of a line that must be seen whole.
    pending: Vec<u8>,
    /// Where the line begins that is looked at.
    offset: u64,
    /// Whether the next byte begins a line.
    at_start: bool,
    parts: usize,
    left_out: bool,
    /// Whether the piece before ended with CR.
    after_cr: bool,
    /// Whether any open part has a boundary.
    bounded: bool,
}

struct Open {
    part: Part,
    /// Where it begins, once a line of it was seen.
    start: Option<u64>,
    boundary: Option<Vec<u8>>,
    /// The length of the line end that was read last: it belongs to a boundary that follows.
    line_end: usize,
    digest: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Body,
    /// Before the first and after the last part of a multipart.
    Between,
}

impl Scanner {
    /// Keeps so much of each part.
    pub fn new(keep: Keep) -> Scanner {
        let message = Open { part: Part::default(), start: None, boundary: None, line_end: 0, digest: false };
        Scanner {
            keep,
            packed: 0,
            above: 0,
            longest_header: if keep == Keep::ALL { usize::MAX } else { MAX_HEADER },
            open: vec![message],
            state: State::Header,
            pending: Vec::new(),
            offset: 0,
            at_start: true,
            parts: 1,
            left_out: false,
            after_cr: false,
            bounded: false,
        }
    }

    /// Takes what comes next.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes).map(|at| at + 1);
            let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            bytes = rest;
            if !self.pending.is_empty() {
                self.pending.extend_from_slice(piece);
                if end.is_some() || self.pending.len() >= MAX_LINE {
                    let line = std::mem::take(&mut self.pending);
                    self.line(&line, true, end.is_some());
                    self.pending = line;
                    self.pending.clear();
                    self.at_start = end.is_some();
                }
                continue;
            }
            let matters =
                self.at_start && (self.state == State::Header || (self.bounded && piece[0] == b'-'));
            if end.is_none() && matters && piece.len() < MAX_LINE {
                self.pending.extend_from_slice(piece);
                continue;
            }
            let starts = self.at_start;
            self.line(piece, starts, end.is_some());
            self.at_start = end.is_some();
        }
    }

    /// The message as far as it came.
    pub fn finish(mut self) -> Part {
        self.end()
    }

    fn end(&mut self) -> Part {
        if !self.pending.is_empty() {
            let line = std::mem::take(&mut self.pending);
            self.line(&line, true, false);
        }
        if self.state == State::Header {
            self.header_over();
        }
        self.close_to(1, false);
        let end = self.offset;
        let message = self.open.pop().map(|message| sealed(message.part)).unwrap_or_default();
        Part { span: (0, end), left_out: self.left_out, ..message }
    }

    /// A line, or a piece of a long one.
    fn line(&mut self, piece: &[u8], starts: bool, ends: bool) {
        self.line_at(piece, starts, ends);
        self.offset += piece.len() as u64;
    }

    fn line_at(&mut self, piece: &[u8], starts: bool, ends: bool) {
        if starts
            && self.bounded
            && piece.starts_with(b"--")
            && let Some((depth, last)) = self.boundary(piece)
        {
            self.cross(depth, last);
            return;
        }
        let offset = self.offset;
        if let Some(open) = self.open.last_mut() {
            open.start.get_or_insert(offset);
        }
        match self.state {
            State::Header => {
                // The mark of UTF-8, which editors put before what they save.
                let mark = if offset == 0 { piece.strip_prefix(b"\xef\xbb\xbf") } else { None };
                let piece = mark.unwrap_or(piece);
                let headless =
                    self.open.last().is_some_and(|open| open.part.header.is_empty()) && !begins_header(piece);
                if starts && matches!(piece, b"\n" | b"\r\n") {
                    if self.header_over() {
                        self.line_at(piece, starts, ends);
                    }
                } else if headless {
                    // Whoever wrote it left the empty line out along with the header.
                    self.header_over();
                    self.line_at(piece, starts, ends);
                } else if let Some(open) = self.open.last_mut() {
                    let room = self.longest_header.saturating_sub(open.part.header.len());
                    open.part.header.extend_from_slice(&piece[..piece.len().min(room)]);
                }
            }
            State::Body | State::Between => {
                let Some(open) = self.open.last_mut() else { return };
                let to_read = open.part.content_type.starts_with("text/") || open.part.is_encoded_message();
                let most = match to_read {
                    true => self.keep.text,
                    false => self.keep.other,
                };
                let room = most.saturating_sub(open.part.body.len());
                open.part.body.extend_from_slice(&piece[..piece.len().min(room)]);
                open.part.size += piece.len() as u64;
                open.line_end = match (ends, piece) {
                    (true, [.., b'\r', b'\n']) => 2,
                    // The CR of this line end may have come in the piece before.
                    (true, [b'\n']) if self.after_cr && !starts => 2,
                    (true, _) => 1,
                    (false, _) => 0,
                };
                self.after_cr = piece.ends_with(b"\r");
            }
        }
    }

    /// Which open multipart this boundary line is of, and whether it is its last.
    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line[2..].trim_ascii_end();
        self.open.iter().enumerate().rev().find_map(|(depth, open)| {
            let boundary = open.boundary.as_deref()?;
            match text.strip_prefix(boundary)? {
                b"" => Some((depth, false)),
                b"--" => Some((depth, true)),
                _ => None,
            }
        })
    }

    fn cross(&mut self, depth: usize, last: bool) {
        if self.state == State::Header {
            self.header_over();
        }
        // A header that turned out to be a multipart's may have opened nothing; what is deeper ends here.
        self.close_to(depth + 1, true);
        if last {
            if let Some(open) = self.open.last_mut() {
                open.boundary = None;
            }
            self.bounded = self.open.iter().any(|open| open.boundary.is_some());
            self.state = State::Between;
            return;
        }
        if self.is_full() {
            self.state = State::Between;
            return;
        }
        self.begin();
    }

    /// Whether there is no room for one more part, which is then left out.
    fn is_full(&mut self) -> bool {
        let full = self.parts >= MAX_PARTS;
        self.left_out |= full;
        full
    }

    fn begin(&mut self) {
        self.parts += 1;
        self.open.push(Open {
            part: Part::default(),
            start: None,
            boundary: None,
            line_end: 0,
            digest: false,
        });
        self.state = State::Header;
    }

    /// The empty line was seen, or what stands for it. True if the body had begun before it.
    fn header_over(&mut self) -> bool {
        let in_digest = self.open.len() >= 2 && self.open[self.open.len() - 2].digest;
        let deep = self.above + self.open.len() >= MAX_DEPTH;
        let Some(open) = self.open.last_mut() else { return false };
        let text = open.part.header.split_off(header_length(&open.part.header));
        open.part.understand(if in_digest { "message/rfc822" } else { "text/plain" });
        self.state = State::Body;
        let began = !text.is_empty();
        if !deep {
            self.descend();
        }
        if began {
            let offset = self.offset;
            // They are counted once: where they stand.
            self.offset -= text.len() as u64;
            text.split_inclusive(|&byte| byte == b'\n')
                .for_each(|line| self.line(line, true, line.ends_with(b"\n")));
            self.offset = offset;
        }
        began
    }

    /// Into what the part that was just understood holds.
    fn descend(&mut self) {
        let holds = |open: &Open| open.part.content_type.starts_with("multipart/") || open.part.is_message();
        if !self.open.last().is_some_and(holds) || self.is_full() {
            return;
        }
        let Some(open) = self.open.last_mut() else { return };
        let kind = open.part.content_type.as_str();
        if kind.starts_with("multipart/") {
            let boundary =
                open.part.parameter("boundary").map(|boundary| boundary.trim_end().as_bytes().to_vec());
            if let Some(boundary) = boundary.filter(|b| !b.is_empty() && b.len() <= MAX_BOUNDARY) {
                open.digest = kind == "multipart/digest";
                open.boundary = Some(boundary);
                self.bounded = true;
                self.state = State::Between;
            }
        } else if !open.part.is_encoded_message() {
            self.begin();
        }
    }

    /// RFC 2046 §5.2.1 has no message within a message that is encoded as a whole; there are some all the same.
    fn unpack(&mut self, part: &mut Part) {
        let depth = self.above + self.open.len() + 1;
        let whole = part.size == part.body.len() as u64;
        let shallow = self.packed < MAX_PACKED && depth < MAX_DEPTH;
        if part.is_encoded_message() && part.parts.is_empty() && whole && shallow && !self.is_full() {
            let (packed, above, parts) = (self.packed + 1, depth, self.parts + 1);
            let mut scanner = Scanner { packed, above, parts, ..Scanner::new(self.keep) };
            scanner.feed(&part.decoded());
            part.parts.push(scanner.end());
            self.parts = scanner.parts;
            self.left_out |= scanner.left_out;
        }
    }

    /// Closes parts until so many are open.
    fn close_to(&mut self, depth: usize, by_boundary: bool) {
        while self.open.len() > depth {
            let Some(mut child) = self.open.pop() else { return };
            let end =
                if by_boundary { self.offset.saturating_sub(child.line_end as u64) } else { self.offset };
            let start = child.start.unwrap_or(end);
            child.part.span = (start, end.max(start));
            if by_boundary {
                // The line end before a boundary belongs to the boundary.
                let whole = child.part.size == child.part.body.len() as u64;
                child.part.size = child.part.size.saturating_sub(child.line_end as u64);
                if whole {
                    child.part.body.truncate(child.part.size as usize);
                }
            }
            if child.part.content_type.is_empty() {
                child.part.understand("text/plain");
            }
            self.unpack(&mut child.part);
            let size = child.part.header.len() as u64 + child.part.size;
            if let Some(parent) = self.open.last_mut() {
                parent.part.parts.push(sealed(child.part));
                if parent.boundary.is_none() && parent.part.content_type.starts_with("message/") {
                    parent.part.size = size;
                }
            }
        }
        self.bounded = self.open.iter().any(|open| open.boundary.is_some());
    }
}

/// A multipart keeps nothing of what stands between its parts, unless it has none.
fn sealed(mut part: Part) -> Part {
    if part.content_type.starts_with("multipart/") && !part.parts.is_empty() {
        part.body = Vec::new();
    }
    part
}

/// How much of these lines is a header. Whoever left the empty line out has their text end it: lines at the end,
/// behind a field, that are no fields themselves.
fn header_length(header: &[u8]) -> usize {
    let (mut at, mut length, mut in_field) = (0, 0, false);
    for line in header.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        in_field =
            if line.starts_with(b" ") || line.starts_with(b"\t") { in_field } else { begins_header(line) };
        if in_field {
            length = at;
        }
    }
    if length == 0 { header.len() } else { length }
}

/// Whether a first line is one of a header: a field, or the `From ` of an mbox.
fn begins_header(line: &[u8]) -> bool {
    let colon = memchr::memchr(b':', line);
    let is_name = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    colon.is_some_and(|colon| is_name(line[..colon].trim_ascii_end()))
        || line.starts_with(b"From ")
        || line.starts_with(b">From ")
        || line.trim_ascii().is_empty()
}

/// Decodes quoted-printable (RFC 2045 §6.7), leniently.
fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let (content, end) = match line {
            [content @ .., b'\r', b'\n'] => (content, &b"\r\n"[..]),
            [content @ .., b'\n'] => (content, &b"\n"[..]),
            content => (content, &b""[..]),
        };
        let content = match content.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')) {
            Some(last) => &content[..=last],
            None => &[],
        };
        let (content, end) = match content {
            // A soft line break.
            [content @ .., b'='] => (content, &b""[..]),
            content => (content, end),
        };
        let mut at = 0;
        while at < content.len() {
            match (content[at], content.get(at + 1..at + 3).and_then(hex)) {
                (b'=', Some(byte)) => {
                    out.push(byte);
                    at += 3;
                }
                (byte, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        out.extend_from_slice(end);
    }
    out
}

/// The value of a field on one line, without decoding: what cannot be decoded is still shown.
pub fn one_line(value: &[u8]) -> String {
    String::from_utf8_lossy(&field::unfold(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::super::word::LENIENT;
    use super::*;

    fn shape(part: &Part) -> String {
        match part.parts.is_empty() {
            true => format!("{}[{}]", part.content_type, String::from_utf8_lossy(&part.body)),
            false => {
                let inner: Vec<String> = part.parts.iter().map(shape).collect();
                format!("{}({})", part.content_type, inner.join(" "))
            }
        }
    }

    #[test]
    fn trees_are_what_boundaries_say_in_pieces_of_any_size() {
        for (message, expected) in [
            ("A: b\n\nbody\n", "text/plain[body\n]"),
            ("\u{feff}Content-Type: text/html\n\nbody", "text/html[body]"),
            ("\u{feff}\nbody", "text/plain[body]"),
            ("\u{feff}no header", "text/plain[no header]"),
            ("", "text/plain[]"),
            ("\n\n", "text/plain[\n]"),
            ("no header\nat all\n\nof it\n", "text/plain[no header\nat all\n\nof it\n]"),
            ("From somebody at some time\nA: b\n\nbody", "text/plain[body]"),
            (
                "Content-Type: multipart/mixed; boundary=x\n\n--x\nno empty line\n--x\nContent-Type: message/rfc822\n\nno message\n--x--\n",
                "multipart/mixed(text/plain[no empty line] message/rfc822(text/plain[no message]))",
            ),
            (
                "Content-Type: multipart/mixed; boundary=x\n\npre\n--x\n\none\n--x\nContent-Type: text/html\n\n<p>\n\n--x--\npost\n",
                "multipart/mixed(text/plain[one] text/html[<p>\n])",
            ),
            (
                "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x--\r\n",
                "multipart/mixed(text/plain[one])",
            ),
            // A boundary that begins with another; the closing line is missing.
            (
                "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/related; boundary=xx\n\n--xx\n\na\n--xx--\n--x\n\nb",
                "multipart/mixed(multipart/related(text/plain[a]) text/plain[b])",
            ),
            // An inner multipart that is never closed ends with the outer one.
            (
                "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/related; boundary=y\n\n--y\n\na\n--x\n\nb\n--x--\n",
                "multipart/mixed(multipart/related(text/plain[a]) text/plain[b])",
            ),
            (
                "Content-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\na\n--x--\n",
                "message/rfc822(multipart/mixed(text/plain[a]))",
            ),
            (
                "Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: in\n\nhi\n--x--\n",
                "multipart/digest(message/rfc822(text/plain[hi]))",
            ),
            ("Content-Type: multipart/mixed; boundary=x\n\nno parts\n", "multipart/mixed[no parts\n]"),
            ("Content-Type: multipart/mixed\n\nno boundary\n", "multipart/mixed[no boundary\n]"),
            ("Content-Type: nonsense\n\na", "text/plain[a]"),
            // The empty line is missing, or a fold is broken.
            ("A: b\nbar\n\nbaz", "text/plain[bar\n\nbaz]"),
            ("A: b\n c\nbar\n baz", "text/plain[bar\n baz]"),
            ("A: b\nbroken\nC: d\n\nbody", "text/plain[body]"),
            (
                "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/html\r\n<p>\r\n\r\n--x--\r\n",
                "multipart/mixed(text/html[<p>\r\n])",
            ),
            (
                "Content-Type: multipart/mixed; boundary=x\n\n--x\nSubject: only header\n--x\n\nb\n--x--",
                "multipart/mixed(text/plain[] text/plain[b])",
            ),
        ] {
            for size in 1..=message.len().max(1) {
                let mut scanner = Scanner::new(Keep::ALL);
                message.as_bytes().chunks(size).for_each(|piece| scanner.feed(piece));
                assert_eq!(shape(&scanner.finish()), expected, "{message:?} by {size}");
            }
        }
    }

    #[test]
    fn little_is_kept_of_a_large_message() {
        let mut scanner = Scanner::new(Keep { text: 100, other: 10 });
        scanner.feed(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n");
        let line = [b'a'; 1_000_000];
        (0..20).for_each(|_| scanner.feed(&line));
        scanner.feed(b"\r\n--x\r\nContent-Type: application/pdf\r\n\r\n");
        (0..1000).for_each(|_| scanner.feed(b"abcdefgh\r\n"));
        scanner.feed(b"--x--\r\n");
        let message = scanner.finish();
        let sizes: Vec<(u64, usize)> =
            message.parts.iter().map(|part| (part.size, part.body.len())).collect();
        assert_eq!(sizes, [(20_000_000, 100), (9_998, 10)]);
    }

    #[test]
    fn a_long_header_is_read_whole_where_all_is_kept() {
        let message = format!("{}Subject: behind\n\nbody", "X-Long: y\n".repeat(200_000));
        assert_eq!(Part::parse(message.as_bytes()).text_of("Subject").as_deref(), Some("behind"));
        let mut scanner = Scanner::new(Keep { text: 10, other: 0 });
        scanner.feed(message.as_bytes());
        assert!(scanner.finish().header.len() <= MAX_HEADER);
    }

    #[test]
    fn of_very_many_parts_the_first_are_shown_and_more_are_said_to_be_there() {
        let head = "Content-Type: multipart/mixed; boundary=x\n\n";
        let flat = |count: usize| format!("{head}{}--x--\n", "--x\n\na\n".repeat(count));
        let packed = |each: usize| {
            let packed = LENIENT.encode(flat(each).replace("=x", "=y").replace("--x", "--y"));
            let part =
                format!("--x\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{packed}\n");
            format!("{head}{}--x--\n", part.repeat(3))
        };
        for (message, parts, left_out) in [
            (flat(MAX_PARTS - 1), MAX_PARTS, false),
            (flat(MAX_PARTS), MAX_PARTS, true),
            // The message, and three times a part with a message with 3331 parts in it.
            (packed(3331), MAX_PARTS, false),
            (packed(3332), MAX_PARTS, true),
            (packed(9000), MAX_PARTS, true),
        ] {
            let message = Part::parse(message.as_bytes());
            assert_eq!((message.walk().len(), message.left_out), (parts, left_out));
        }
    }

    #[test]
    fn a_part_knows_where_it_lies() {
        let text = "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\nSubject: in\n\nhi\n--x--\n";
        let message = Part::parse(text.as_bytes());
        let (from, to) = message.parts[0].parts[0].span;
        assert_eq!(&text[from as usize..to as usize], "Subject: in\n\nhi");
    }

    #[test]
    fn bodies_are_decoded() {
        for (encoding, body, expected) in [
            ("base64", "YWJj\r\nZGVm", "abcdef"),
            ("BASE64 ", "YWJjZA==YWI=", "abcdab"),
            ("base64", "YWJ", "ab"),
            ("quoted-printable", "a=3Db=\r\nc  \r\n=zz=\n", "a=bc\r\n=zz"),
            ("x-uuencode", "begin 644 a\n#86)C\n`\nend\n", "abc"),
            ("8bit", "a=3D", "a=3D"),
        ] {
            let message = format!("Content-Transfer-Encoding: {encoding}\n\n{body}");
            let message = Part::parse(message.as_bytes());
            assert_eq!(String::from_utf8_lossy(&message.decoded()), expected, "{encoding}");
            assert_eq!(message.decoded_size(), expected.len() as u64, "{encoding}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_pieces_do_not_matter(
            message in proptest::collection::vec(proptest::sample::select(&b"-x\r\n:; =\"abC\xff\x1b?/<>@,"[..]), 0..300),
            size in 1usize..40,
        ) {
            let mut text = b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/x; boundary=\"x-\"\nTo: ".to_vec();
            text.extend(message);
            let whole = Part::parse(&text);
            let mut scanner = Scanner::new(Keep::ALL);
            text.chunks(size).for_each(|piece| scanner.feed(piece));
            let pieces = scanner.finish();
            for part in whole.walk() {
                part.text();
                part.file_name();
                part.addresses_of("To");
                part.text_of("To");
            }
            proptest::prop_assert_eq!(whole, pieces);
        }
    }
}
