//! Replies (RFC 5321 §4.2): read from bytes as they come, bounded, one or many lines.

use std::fmt;

use crate::mail::acts_on_terminals;
use crate::wire::words::words;

/// A relay that never ends an answer must not be able to fill our memory.
const MAX_REPLY_LINES: usize = 100;
/// RFC 5321 §4.5.3.1.5 allows 512 octets; servers that quote policies or URLs write more, and a challenge may have
/// 12288 (RFC 4954 §4), between its code and its line end.
const MAX_LINE: usize = 4 + 12_288 + 2;
/// How much is read at once. A window of letters is answered in a few kilobytes.
const READ: usize = 16 * 1024;
/// Words of a server that are kept: enough to understand them, too few to flood a ledger.
const MAX_WORDS: usize = 200;

/// The first digit of a reply code: what it means for what we do next (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 2xx: done.
    Completed,
    /// 3xx: go on.
    Intermediate,
    /// 4xx: not now.
    Transient,
    /// 5xx: never.
    Permanent,
}

/// One reply, still in the buffer it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    pub(super) code: u16,
    /// All lines with their line ends.
    pub(super) lines: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What the first digit says.
    pub fn class(&self) -> Class {
        match self.code / 100 {
            2 => Class::Completed,
            3 => Class::Intermediate,
            4 => Class::Transient,
            _ => Class::Permanent,
        }
    }

    /// As it came, with code and line ends.
    pub fn bytes(&self) -> &'a [u8] {
        self.lines
    }

    /// The text of each line, without code and line end.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.lines.split_inclusive(|&byte| byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.get(4..).unwrap_or_default()
        })
    }

    /// A copy that outlives the buffer: one line of at most 200 characters without controls.
    pub fn heard(&self) -> Heard {
        Heard { code: self.code, text: self.text() }
    }

    /// The text in one line. Enhanced codes that repeat on every line are said once.
    fn text(&self) -> String {
        let mut text = String::with_capacity(self.lines.len().min(MAX_WORDS));
        let mut left = MAX_WORDS;
        let mut first: &[u8] = b"";
        for (place, line) in self.lines().enumerate() {
            let words = line.split(|&byte| byte == b' ').next().unwrap_or_default();
            let line = if place == 0 {
                first = words;
                line
            } else if !first.is_empty() && first.contains(&b'.') && words == first {
                line.get(first.len()..).unwrap_or_default()
            } else {
                line
            };
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push(' ');
                left = left.saturating_sub(1);
            }
            push_plain(&mut text, line, &mut left);
        }
        text
    }
}

/// A reply kept: the code, and the words in one line (empty where nobody will ask for them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The three digits.
    pub code: u16,
    /// The text without code, the enhanced status code at its beginning where there is one.
    pub text: String,
}

impl Heard {
    /// The first digit.
    pub fn class(&self) -> Class {
        Reply { code: self.code, lines: b"" }.class()
    }

    /// 2xx.
    pub fn is_yes(&self) -> bool {
        self.class() == Class::Completed
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// Why bytes from a server are no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAReply {
    /// No three digits and a space or hyphen.
    #[error("`{0}` is no SMTP reply")]
    Form(String),
    /// A line without an end.
    #[error("a reply line is longer than {MAX_LINE} octets")]
    LongLine,
    /// An answer without an end.
    #[error("a reply has more than {MAX_REPLY_LINES} lines")]
    TooManyLines,
}

/// The replies in a stream of bytes. Bytes are read into [`Replies::space`] and taken out whole.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: Vec<u8>,
    /// Where the next reply begins.
    start: usize,
    /// Where its line that is not yet looked at begins.
    line: usize,
    /// How far that line was looked at without finding its end.
    seen: usize,
    /// Its lines so far.
    lines: usize,
    /// Behind the last byte read.
    end: usize,
}

impl Replies {
    /// Room for the next read, never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.line, self.seen, self.end) = (0, 0, 0, 0);
        }
        if self.buffer.len() - self.end < READ / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.line -= self.start;
            self.seen -= self.start;
            self.end -= self.start;
            self.start = 0;
            let room = (self.end + READ).max(self.buffer.len());
            self.buffer.resize(room, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into the space.
    pub fn filled(&mut self, read: usize) {
        self.end = (self.end + read).min(self.buffer.len());
    }

    /// What was read and not taken.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The next whole reply, if it has arrived.
    pub fn take(&mut self) -> Result<Option<Reply<'_>>, NotAReply> {
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.buffer[self.seen..self.end]) else {
                self.seen = self.end;
                return if self.end - self.line > MAX_LINE { Err(NotAReply::LongLine) } else { Ok(None) };
            };
            let next = self.seen + length + 1;
            let line = &self.buffer[self.line..next];
            if line.len() > MAX_LINE {
                return Err(NotAReply::LongLine);
            }
            let (code, last) = read_line(line)?;
            self.lines += 1;
            (self.line, self.seen) = (next, next);
            if last {
                // The code of the last line counts: servers that change their mind within a reply mean the end.
                let start = std::mem::replace(&mut self.start, next);
                self.lines = 0;
                return Ok(Some(Reply { code, lines: &self.buffer[start..next] }));
            }
            if self.lines >= MAX_REPLY_LINES {
                return Err(NotAReply::TooManyLines);
            }
        }
    }
}

/// The code of a reply line, and whether it is the last of its reply.
fn read_line(line: &[u8]) -> Result<(u16, bool), NotAReply> {
    let form = || {
        let mut text = String::new();
        push_plain(&mut text, line.trim_ascii(), &mut 80);
        NotAReply::Form(text)
    };
    let &[hundreds @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', ref rest @ ..] = line else {
        return Err(form());
    };
    let code = u16::from(hundreds - b'0') * 100 + u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
    match rest.first() {
        Some(b'-') => Ok((code, false)),
        Some(b' ' | b'\r' | b'\n' | b'\t') => Ok((code, true)),
        _ => Err(form()),
    }
}

/// Appends at most `left` characters; what is no text, a control, or a sign that turns the direction of what follows
/// becomes a visible mark.
fn push_plain(text: &mut String, bytes: &[u8], left: &mut usize) {
    for character in words(bytes).chars() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        text.push(match character {
            '\t' => ' ',
            sign if acts_on_terminals(sign) => '\u{fffd}',
            other => other,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(replies: &mut Replies, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = replies.space();
            let size = space.len().min(rest.len());
            space[..size].copy_from_slice(&rest[..size]);
            replies.filled(size);
            rest = &rest[size..];
        }
    }

    #[test]
    fn replies_are_read_whole_however_they_are_cut() {
        let stream = b"220 mx ready\r\n250-mx\r\n250-SIZE 10\r\n250 PIPELINING\r\n354\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n";
        let expected =
            [(220, "mx ready"), (250, "mx SIZE 10 PIPELINING"), (354, ""), (550, "5.1.1 no such user")];
        for cut in 1..stream.len() {
            let mut replies = Replies::default();
            let mut heard = Vec::new();
            for piece in stream.chunks(cut) {
                feed(&mut replies, piece);
                while let Some(reply) = replies.take().expect("replies") {
                    heard.push(reply.heard());
                }
            }
            let got: Vec<_> = heard.iter().map(|heard| (heard.code, heard.text.as_str())).collect();
            assert_eq!(got, expected, "cut every {cut}");
            assert!(replies.unread().is_empty());
        }
    }

    #[test]
    fn what_is_no_reply_is_said_so() {
        let long = format!("250 {}\r\n", "x".repeat(MAX_LINE));
        let endless = "250-x\r\n".repeat(MAX_REPLY_LINES + 1);
        for (stream, expected) in [
            ("hello\r\n", NotAReply::Form("hello".to_owned())),
            ("25 ok\r\n", NotAReply::Form("25 ok".to_owned())),
            ("2500 ok\r\n", NotAReply::Form("2500 ok".to_owned())),
            ("150 ok\r\n", NotAReply::Form("150 ok".to_owned())),
            ("\r\n", NotAReply::Form(String::new())),
            ("\u{1}\u{2}\r\n", NotAReply::Form("\u{fffd}\u{fffd}".to_owned())),
            (&long, NotAReply::LongLine),
            (&endless, NotAReply::TooManyLines),
        ] {
            let mut replies = Replies::default();
            feed(&mut replies, stream.as_bytes());
            assert_eq!(replies.take().err(), Some(expected), "{stream:.40}");
        }
        let mut replies = Replies::default();
        feed(&mut replies, &[b'2'; MAX_LINE + 1]);
        assert_eq!(replies.take().err(), Some(NotAReply::LongLine), "a line without end");
    }

    #[test]
    fn the_longest_challenge_is_taken() {
        let challenge = "x".repeat(12_288);
        let mut replies = Replies::default();
        feed(&mut replies, format!("334 {challenge}\r\n").as_bytes());
        let reply = replies.take().expect("a reply").expect("whole");
        assert!(reply.lines().eq([challenge.as_bytes()]));
    }

    #[test]
    fn words_are_kept_short_and_plain() {
        let mut replies = Replies::default();
        feed(
            &mut replies,
            format!("450 4.2.1 a\u{7}b\tc\x1b[31m\u{202e} {}\r\n", "长".repeat(300)).as_bytes(),
        );
        let heard = replies.take().expect("a reply").expect("whole").heard();
        assert!(heard.text.starts_with("4.2.1 a\u{fffd}b c\u{fffd}[31m\u{fffd} 长长"), "{}", heard.text);
        assert_eq!(heard.text.chars().count(), MAX_WORDS);
    }
}
