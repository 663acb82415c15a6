//! The content of a multi-line reply: framed by CRLF.CRLF and by nothing else, its byte-stuffing
//! taken off, every other byte as it came (RFC 1939 §3).

use memchr::memmem;

/// A multi-line reply on its way. It keeps no bytes; what belongs to the content is handed on in
/// pieces of what was fed, so that a line of any length costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At the first byte of a line, that is after CRLF or at the very start.
    #[default]
    Line,
    /// After a dot that begins a line; it is not part of the content.
    Dot,
    /// After such a dot and CR.
    DotCr,
    /// Within a line.
    Text,
    /// Within a line, after CR.
    TextCr,
    /// The end was seen.
    Done,
}

impl Content {
    /// Takes what has arrived; hands the content to `keep`, and returns how many bytes belonged to
    /// this reply. Fewer than were given means that the reply is complete.
    pub fn feed(&mut self, bytes: &[u8], mut keep: impl FnMut(&[u8])) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self.state {
                State::Done => return at,
                State::Line if byte == b'.' => {
                    self.state = State::Dot;
                    at += 1;
                }
                State::Dot if byte == b'\r' => {
                    self.state = State::DotCr;
                    at += 1;
                }
                State::DotCr if byte == b'\n' => {
                    self.state = State::Done;
                    return at + 1;
                }
                State::DotCr => {
                    // A lone CR after the dot: content, and it may be the first half of a line end.
                    keep(b"\r");
                    self.state = State::TextCr;
                }
                State::TextCr if byte == b'\n' => {
                    keep(b"\n");
                    self.state = State::Line;
                    at += 1;
                }
                State::Line | State::Dot | State::Text | State::TextCr => {
                    at += self.text(&bytes[at..], &mut keep)
                }
            }
        }
        at
    }

    /// Whether the end was seen.
    pub fn is_complete(&self) -> bool {
        self.state == State::Done
    }

    /// Hands on everything up to the next dot that begins a line; returns how much that was.
    fn text(&mut self, bytes: &[u8], keep: &mut impl FnMut(&[u8])) -> usize {
        // The finder looks for three bytes, so a whole message without such a dot is one search.
        if let Some(found) = memmem::find(bytes, b"\r\n.") {
            keep(&bytes[..found + 2]);
            self.state = State::Line;
            return found + 2;
        }
        keep(bytes);
        self.state = match bytes {
            [.., b'\r', b'\n'] => State::Line,
            [.., b'\r'] => State::TextCr,
            _ => State::Text,
        };
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(wire: &[u8], chunk: usize) -> (Vec<u8>, usize, bool) {
        let (mut content, mut kept, mut used) = (Content::default(), Vec::new(), 0);
        for piece in wire.chunks(chunk) {
            let took = content.feed(piece, |bytes| kept.extend_from_slice(bytes));
            used += took;
            if took < piece.len() {
                break;
            }
        }
        (kept, used, content.is_complete())
    }

    #[test]
    fn only_crlf_dot_crlf_ends_and_every_other_byte_stays() {
        for (wire, kept, rest) in [
            (&b"a\r\n.\r\n+OK"[..], &b"a\r\n"[..], &b"+OK"[..]),
            (b".\r\n", b"", b""),
            (b"\r\n.\r\n", b"\r\n", b""),
            (b"..\r\n...x\r\n.\r\n", b".\r\n..x\r\n", b""),
            (b".x\r\n.\r\n", b"x\r\n", b""),
            (b"a\n.\n.\r\nb\r\n.\r\n", b"a\n.\n.\r\nb\r\n", b""),
            (b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n", b""),
            (b"a\r.\r\nb\r\n.\r\n", b"a\r.\r\nb\r\n", b""),
            (b"a\r\r\n.\r\n", b"a\r\r\n", b""),
            (b".\rx\r\n.\r\n", b"\rx\r\n", b""),
            (b".\r\r\n.\r\n", b"\r\r\n", b""),
            (b"\0\xff\n\r\n.\r\n", b"\0\xff\n\r\n", b""),
            (b"a\r\n.\n\r\n.\r\n", b"a\r\n\n\r\n", b""),
        ] {
            for chunk in 1..=wire.len() {
                let (content, used, complete) = decode(wire, chunk);
                assert_eq!(content, kept, "{:?} by {chunk}", String::from_utf8_lossy(wire));
                assert!(complete && &wire[used..] == rest, "{:?} by {chunk}", String::from_utf8_lossy(wire));
            }
        }
    }

    #[test]
    fn a_reply_cut_short_is_not_complete() {
        for wire in [&b""[..], b"a", b"a\r\n", b"a\r\n.", b"a\r\n.\r", b"a\n.\n"] {
            assert!(!decode(wire, 1).2, "{:?}", String::from_utf8_lossy(wire));
        }
    }

    proptest::proptest! {
        #[test]
        fn stuffed_content_comes_back_whole(lines in proptest::collection::vec("[.a\\r\\n\\x00]{0,6}", 0..8), chunk in 1usize..9) {
            let original: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut stuffed = String::new();
            for line in original.split_inclusive("\r\n") {
                if line.starts_with('.') {
                    stuffed.push('.');
                }
                stuffed.push_str(line);
            }
            stuffed.push_str(".\r\n");
            let (content, used, complete) = decode(stuffed.as_bytes(), chunk);
            proptest::prop_assert!(complete);
            proptest::prop_assert_eq!(used, stuffed.len());
            proptest::prop_assert_eq!(content, original.into_bytes());
        }
    }
}
