//! Header fields (RFC 5322 §2.2): folding, phrases, encoded words (RFC 2047).
//!
//! Whatever arrives here becomes one field and no more: a text with anything in it that could end
//! a line is written as encoded words, in which CR and LF are only numbers.

use std::borrow::Cow;

use encodify::{Fold, rfc2047};

use crate::mail::Mailbox;

/// A line of a header with an encoded word in it is no longer than this (RFC 2047 §2).
const WIDTH: usize = 76;

/// The longest line that may be on the wire, without CRLF (RFC 5322 §2.1.1).
const LONGEST: usize = 998;

/// Appends the fields of a header to a message.
pub(super) struct Header<'a> {
    out: &'a mut Vec<u8>,
    /// Where the line begins that is being written.
    line: usize,
}

impl<'a> Header<'a> {
    /// A header at the end of `out`, which ends in CRLF or holds nothing.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Header<'a> {
        let line = out.len();
        Header { out, line }
    }

    /// A field whose value is known to be one line of ASCII.
    pub(super) fn plain(&mut self, name: &str, value: &str) {
        self.begin(name);
        // Stamps and the like never hold anything else. Should they, no line is made of it.
        self.out.extend(value.bytes().map(|b| if matches!(b, b' '..=b'~') { b } else { b'?' }));
        self.end();
    }

    /// A field of unstructured text (RFC 5322 §3.6.5), as Subject is one.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.begin(name);
        // A first word that does not fit behind the name is not moved to a line of its own: there are
        // readers (Python's `email`) that take the space there for a part of the text.
        let first = value.split(' ').next().unwrap_or_default();
        if is_literal(value, WIDTH - 1) && self.column() + first.len() <= WIDTH + 2 {
            self.fold_words(value);
        } else {
            self.encoded(value, rfc2047::Q_TEXT);
        }
        self.end();
    }

    /// A field that programs read: a value of ASCII stays as it is, however long its words, up to
    /// what a line may hold; else as [`Header::text`].
    pub(super) fn token_text(&mut self, name: &str, value: &str) {
        if is_literal(value, LONGEST - 1) && name.len() + 2 + value.len() <= LONGEST {
            self.begin(name);
            let (first, rest) = value.split_at(value.find(' ').unwrap_or(value.len()));
            self.out.extend_from_slice(first.as_bytes());
            self.fold_rest(rest);
            self.end();
        } else if let Some((words, token)) = described(value) {
            self.begin(name);
            self.encoded(words, rfc2047::Q_PHRASE);
            if self.column() + 1 + token.len() > WIDTH {
                self.fold();
            }
            self.out.push(b' ');
            self.out.extend_from_slice(token.as_bytes());
            self.end();
        } else {
            self.text(name, value);
        }
    }

    /// A field of parts separated by commas that are never broken, and only parted from one another
    /// if the line were longer than a line may be: List-Unsubscribe is read best in one piece.
    pub(super) fn whole(&mut self, name: &str, value: &str) {
        self.begin(name);
        for (n, part) in value.split(", ").enumerate() {
            if n > 0 {
                self.out.push(b',');
                if self.column() + 1 + part.len() > LONGEST - 1 {
                    self.fold();
                }
                self.out.push(b' ');
            }
            self.out.extend(part.bytes().filter(|b| matches!(b, b' '..=b'~')));
        }
        self.end();
    }

    /// A list of mailboxes (RFC 5322 §3.4), folded between them. Nothing is written for an empty one.
    pub(super) fn mailboxes(&mut self, name: &str, mailboxes: &[Mailbox]) {
        if mailboxes.is_empty() {
            return;
        }
        self.begin(name);
        for (n, mailbox) in mailboxes.iter().enumerate() {
            let text = mailbox.address.as_str();
            let address =
                if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(mailbox.address.wire()) };
            if n > 0 {
                self.out.push(b',');
                let length = mailbox.name.as_ref().map_or(0, |name| name.len() + 3) + address.len() + 2;
                if self.column() + length > WIDTH {
                    self.fold();
                }
                self.out.push(b' ');
            }
            self.mailbox(mailbox, &address);
        }
        self.end();
    }

    fn mailbox(&mut self, mailbox: &Mailbox, address: &str) {
        if let Some(name) = &mailbox.name {
            self.phrase(name);
            if self.column() + 3 + address.len() > WIDTH {
                self.fold();
            }
            self.out.extend_from_slice(b" <");
            self.out.extend_from_slice(address.as_bytes());
            self.out.push(b'>');
        } else {
            self.out.extend_from_slice(address.as_bytes());
        }
    }

    /// A display name: atoms as they are, other ASCII quoted, all else encoded. ASCII is quoted even
    /// where a word is too long for a line that readers are kind to, for there are readers (Python's
    /// `email`) that show a space between two encoded words of a name.
    fn phrase(&mut self, name: &str) {
        // Between quotes each sign may be two.
        if !is_literal(name, LONGEST / 2 - 2) {
            self.encoded(name, rfc2047::Q_PHRASE);
        } else if name.bytes().all(|b| is_atext(b) || b == b' ') {
            self.fold_words(name);
        } else {
            let mut quoted = String::with_capacity(name.len() + 8);
            quoted.push('"');
            for c in name.chars() {
                if matches!(c, '"' | '\\') {
                    quoted.push('\\');
                }
                quoted.push(c);
            }
            quoted.push('"');
            self.fold_words(&quoted);
        }
    }

    /// Encoded words, in whichever of the two encodings is shorter.
    fn encoded(&mut self, text: &str, q: rfc2047::WordEncoder) {
        let encoder = if q.payload_len(text) <= rfc2047::B.payload_len(text) { q } else { rfc2047::B };
        let mut column = self.column();
        encoder.encode_words("utf-8", text, &mut column, Fold::HEADER, self.out);
        self.line = self.out.len() - column;
    }

    /// Literal text, folded at its spaces.
    fn fold_words(&mut self, text: &str) {
        if self.column() + text.len() <= WIDTH + 2 {
            return self.out.extend_from_slice(text.as_bytes());
        }
        let (first, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        if self.column() + first.len() > WIDTH + 2 {
            self.fold_before_word();
        }
        self.out.extend_from_slice(first.as_bytes());
        self.fold_rest(rest);
    }

    /// Literal text that begins with a space or is none: each of its words behind a space or a fold.
    fn fold_rest(&mut self, text: &str) {
        for word in text.split(' ').skip(1) {
            if self.column() + 1 + word.len() > WIDTH + 2 {
                self.fold();
            }
            self.out.push(b' ');
            self.out.extend_from_slice(word.as_bytes());
        }
    }

    fn begin(&mut self, name: &str) {
        self.line = self.out.len();
        self.out.extend(name.bytes().filter(|b| matches!(b, b'!'..=b'9' | b';'..=b'~')));
        self.out.extend_from_slice(b": ");
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.line = self.out.len();
    }

    /// A line break; the space that must follow it is written by who goes on.
    fn fold(&mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.line = self.out.len();
    }

    /// A line break in place of the space that was written last, unless that alone is on its line: a
    /// line with nothing in it would end the header.
    fn fold_before_word(&mut self) {
        if self.column() <= 1 {
            return;
        }
        if self.out.last() == Some(&b' ') {
            self.out.pop();
        }
        self.fold();
        self.out.push(b' ');
    }

    fn column(&self) -> usize {
        self.out.len() - self.line
    }
}

/// The words and the address or id of a value like `新闻 <news.example.com>`: in encoded words neither is one
/// for a program (RFC 2047 §5, RFC 2919 §3).
fn described(value: &str) -> Option<(&str, &str)> {
    let (words, token) = value.split_at_checked(value.rfind(" <")?)?;
    let token = &token[1..];
    let is_token = token.ends_with('>') && !token.contains(' ') && is_literal(token, LONGEST - 1);
    (is_token && !words.is_empty()).then_some((words, token))
}

/// Whether a text may stand in a header as it is: printable ASCII, nothing that looks like an
/// encoded word, no space that folding or a reader would lose, and no word too long to be folded.
fn is_literal(text: &str, longest_word: usize) -> bool {
    let mut word = 0;
    let mut before = b' ';
    for byte in text.bytes() {
        match byte {
            b' ' if before == b' ' => return false,
            b' ' => word = 0,
            b'?' if before == b'=' => return false,
            b'!'..=b'~' => {
                word += 1;
                if word > longest_word {
                    return false;
                }
            }
            _ => return false,
        }
        before = byte;
    }
    before != b' '
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(write: impl FnOnce(&mut Header)) -> String {
        let mut out = Vec::new();
        write(&mut Header::new(&mut out));
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn subjects_are_literal_where_they_can_be() {
        let long = "word ".repeat(30);
        for (subject, expected) in [
            ("Your November digest", "Subject: Your November digest\r\n".to_owned()),
            (".", "Subject: .\r\n".to_owned()),
            ("=?utf-8?q?x?=", "Subject: =?utf-8?B?PT91dGYtOD9xP3g/PQ==?=\r\n".to_owned()),
            (" x ", "Subject: =?utf-8?Q?_x_?=\r\n".to_owned()),
            ("a  b", "Subject: =?utf-8?Q?a__b?=\r\n".to_owned()),
            ("a\r\nBcc: eve", "Subject: =?utf-8?Q?a=0D=0ABcc:_eve?=\r\n".to_owned()),
            ("十一月通知", "Subject: =?utf-8?B?5Y2B5LiA5pyI6YCa55+l?=\r\n".to_owned()),
            ("", "Subject: =?utf-8?Q??=\r\n".to_owned()),
            (
                long.trim_end(),
                format!(
                    "Subject: {}\r\n {}\r\n {}\r\n",
                    ["word"; 13].join(" ") + " word",
                    ["word"; 15].join(" "),
                    "word"
                ),
            ),
        ] {
            let expected = if subject.is_empty() { "Subject: \r\n".to_owned() } else { expected };
            assert_eq!(field(|h| h.text("Subject", subject)), expected, "{subject:?}");
        }
    }

    #[test]
    fn text_begins_on_the_line_of_its_name() {
        let word = |length| "x".repeat(length);
        for (length, literal) in [(69, true), (70, false), (75, false)] {
            let text = field(|h| h.text("Subject", &format!("{} and more", word(length))));
            assert_eq!(text.starts_with(&format!("Subject: {}\r\n", word(length))), literal, "{text}");
            assert!(text.lines().all(|line| line.len() <= 78 && !line.trim_end().ends_with(':')), "{text}");
        }
        let text = field(|h| h.token_text("X-Track", &format!("{} b", word(200))));
        assert_eq!(text, format!("X-Track: {}\r\n b\r\n", word(200)));
    }

    #[test]
    fn an_id_behind_words_is_not_encoded_with_them() {
        for (value, expected) in [
            ("新闻 <news.example.com>", "=?utf-8?B?5paw6Ze7?= <news.example.com>"),
            ("Doe, Jürgen <j@b.example>", "=?utf-8?B?RG9lLCBKw7xyZ2Vu?= <j@b.example>"),
            ("News <news.example.com>", "News <news.example.com>"),
            ("新闻 <张@b.example>", "=?utf-8?B?5paw6Ze7IDzlvKBAYi5leGFtcGxlPg==?="),
            ("新闻<b>", "=?utf-8?B?5paw6Ze7PGI+?="),
            ("ü <b c>", "=?utf-8?Q?=C3=BC_<b_c>?="),
            (" <b> ", "=?utf-8?Q?_<b>_?="),
        ] {
            assert_eq!(field(|h| h.token_text("X", value)), format!("X: {expected}\r\n"), "{value}");
        }
        let long = field(|h| {
            h.token_text("Sender", &format!("{} <{}@b.example>", "张伟".repeat(20), "x".repeat(60)))
        });
        assert!(long.lines().all(|line| line.len() <= 78), "{long}");
        assert!(long.ends_with(&format!("\r\n <{}@b.example>\r\n", "x".repeat(60))), "{long}");
    }

    #[test]
    fn display_names_are_atoms_quoted_or_encoded() {
        for (name, expected) in [
            ("Ada Lovelace", "Ada Lovelace <a@b.example>"),
            ("Doe, Jane", "\"Doe, Jane\" <a@b.example>"),
            (".", "\".\" <a@b.example>"),
            ("J. \"Jo\" Doe", "\"J. \\\"Jo\\\" Doe\" <a@b.example>"),
            ("王小明", "=?utf-8?B?546L5bCP5piO?= <a@b.example>"),
            ("=?utf-8?q?x?=", "=?utf-8?B?PT91dGYtOD9xP3g/PQ==?= <a@b.example>"),
        ] {
            let mailbox =
                Mailbox { name: Some(name.to_owned()), address: "a@b.example".parse().expect("address") };
            assert_eq!(field(|h| h.mailboxes("To", &[mailbox])), format!("To: {expected}\r\n"), "{name:?}");
        }
    }

    #[test]
    fn lists_fold_between_mailboxes_and_no_line_is_long() {
        let all: Vec<Mailbox> = (0..40)
            .map(|n| Mailbox {
                name: (n % 3 > 0).then(|| "Name, Ä ".repeat(n % 7 + 1).trim().to_owned()),
                address: format!("somebody{n}@a-rather-long-domain.example.org").parse().expect("address"),
            })
            .collect();
        let text = field(|h| h.mailboxes("Cc", &all));
        assert!(text.lines().all(|line| line.len() <= 78 && !line.trim().is_empty()), "{text}");
        let long =
            |n| Mailbox { name: Some("x".repeat(n)), address: "a@b.example".parse().expect("address") };
        let quotes =
            |n| Mailbox { name: Some("\"".repeat(n)), address: "a@b.example".parse().expect("address") };
        for n in [496, 497, 498, 499, 500] {
            let text = field(|h| h.mailboxes("To", &[quotes(n)]));
            assert!(text.lines().all(|line| line.len() <= LONGEST), "{n}");
        }
        for n in 50..90 {
            let text = field(|h| h.mailboxes("Cc", &[all[0].clone(), long(n), long(n)]));
            assert!(text.lines().all(|line| !line.trim().is_empty()), "{text}");
        }
        assert_eq!(text.matches("somebody").count(), 40);
    }

    #[test]
    fn an_unsubscribe_field_stays_whole_as_long_as_a_line_may_be() {
        let (url, mailto) =
            (format!("<https://example.com/{}>", "u".repeat(900)), "<mailto:leave@example.com>");
        let text = field(|h| h.whole("List-Unsubscribe", &format!("{url}, {mailto}")));
        assert_eq!(text, format!("List-Unsubscribe: {url}, {mailto}\r\n"));
        let url = format!("<https://example.com/{}>", "u".repeat(950));
        let text = field(|h| h.whole("List-Unsubscribe", &format!("{url}, {mailto}")));
        assert_eq!(text, format!("List-Unsubscribe: {url},\r\n {mailto}\r\n"));
    }
}
