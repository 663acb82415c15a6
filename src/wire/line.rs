//! Lines out of a growing buffer: bounded, whole, ended by CRLF.
//!
//! A server's words come in pieces of any size. [`Lines`] keeps what is not yet a line and gives what is;
//! a line, and all that waits together, have a limit, so that a server that never ends its line cannot
//! fill our memory.

/// The longest line of a reply: RFC 5321 §4.5.3.1.5 allows 512 bytes, servers send more (EHLO lists,
/// links in refusals), and a SASL challenge may have 12288 (RFC 4954 §4).
pub const MAX_LINE: usize = 16 * 1024;

/// A line that does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the server has more than {0} bytes")]
pub struct LineTooLong(pub usize);

/// Bytes received and not yet understood.
///
/// A line ends with LF; a CR before it is no part of it. A bare LF is taken as a line end here because
/// replies are for reading, some old servers and proxies send it, and nothing can be smuggled in: whoever
/// could insert a LF into a reply could as well insert CRLF. The content of a message is another matter
/// (only CRLF.CRLF ends it), and never passes through [`Lines::next_line`].
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    at: usize,
    /// So many bytes from `at` on hold no LF: they are not searched twice.
    searched: usize,
}

impl Lines {
    /// Nothing received yet.
    pub fn new() -> Lines {
        Lines::default()
    }

    /// Adds what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tidy();
        self.bytes.extend_from_slice(bytes);
    }

    /// What was received and not yet given, whole lines or not. After a yes to STARTTLS there must be
    /// nothing.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Takes so many bytes of [`Lines::unread`] away: content that is no line.
    pub fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.bytes.len());
        self.searched = 0;
    }

    /// The next whole line without its end; `None` until it is whole.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let waiting = &self.bytes[self.at..];
        match memchr::memchr(b'\n', &waiting[self.searched..]) {
            Some(found) => {
                let end = self.searched + found;
                if end > MAX_LINE {
                    return Err(LineTooLong(MAX_LINE));
                }
                let start = self.at;
                self.at += end + 1;
                self.searched = 0;
                let line = &self.bytes[start..start + end];
                Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
            }
            None if waiting.len() > MAX_LINE => Err(LineTooLong(MAX_LINE)),
            None => {
                self.searched = waiting.len();
                Ok(None)
            }
        }
    }

    /// Forgets what was given, when that costs less than it frees.
    fn tidy(&mut self) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        } else if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        found
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"220 mail.example.com\r\n\r\n250-a\n250 b\r\r\nrest";
        let expected = ["220 mail.example.com", "", "250-a", "250 b\r"];
        for size in 1..=text.len() {
            let mut lines = Lines::new();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            assert_eq!(found, expected, "pieces of {size}");
            assert_eq!(lines.unread(), b"rest");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::new();
        lines.push(&[b'x'; MAX_LINE]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"y");
        assert_eq!(lines.next_line(), Err(LineTooLong(MAX_LINE)));
        let mut lines = Lines::new();
        lines.push(&[&[b'x'; MAX_LINE + 1][..], b"\r\n"].concat());
        assert_eq!(lines.next_line(), Err(LineTooLong(MAX_LINE)));
    }

    #[test]
    fn content_is_taken_between_lines() {
        let mut lines = Lines::new();
        lines.push(b"+OK\r\nbody\nof five.next\r\n");
        assert_eq!(lines.next_line().unwrap(), Some(&b"+OK"[..]));
        lines.consume(13);
        assert_eq!(lines.next_line().unwrap(), Some(&b"next"[..]));
    }

    #[test]
    fn a_long_dialogue_takes_no_memory() {
        let mut lines = Lines::new();
        for _ in 0..100_000 {
            lines.push(b"250 2.1.0 Ok\r\n250 2.1.5 ");
            assert!(lines.next_line().unwrap().is_some());
            lines.push(b"Ok\r\n");
            assert!(lines.next_line().unwrap().is_some());
        }
        assert!(lines.bytes.capacity() < 1024);
    }
}
