//! Text bodies: which transfer encoding (RFC 2045 §6) a text takes, and the encoded lines.

use std::borrow::Cow;

use encodify::{base64, qp};
use memchr::{memchr, memchr_iter, memmem};

/// A line of 7bit text is no longer than this (RFC 5322 §2.1.1, the limit that readers are kind to).
const LONGEST_7BIT: usize = 78;

/// A line of encoded text is no longer than this (RFC 2045 §6.7, §6.8).
const LONGEST_ENCODED: usize = 76;

/// Begins every line that could be a boundary: [`super::compose`] makes no other. Neither
/// quoted-printable nor base64 can hold a `=` followed by `_`; 7bit text that has such a line is
/// encoded.
const BOUNDARY_START: &[u8] = b"--=_";

/// How a text body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    QuotedPrintable,
    Base64,
}

impl Encoding {
    /// The word of Content-Transfer-Encoding.
    pub(super) fn word(self) -> &'static str {
        match self {
            Encoding::SevenBit => "7bit",
            Encoding::QuotedPrintable => "quoted-printable",
            Encoding::Base64 => "base64",
        }
    }
}

/// A text with line ends of LF or CRLF, and the encoding that is shortest and legal for it.
pub(super) struct TextBody<'a> {
    text: Cow<'a, [u8]>,
    pub(super) encoding: Encoding,
    /// About how long it becomes.
    pub(super) estimate: usize,
}

impl<'a> TextBody<'a> {
    /// Looks a text over. A lone CR is taken as the end of a line, as old files have it.
    pub(super) fn new(text: &'a str) -> TextBody<'a> {
        let text = line_ends(text.as_bytes());
        if text.is_ascii() && is_seven_bit(&text) {
            let estimate = text.len() + text.len() / 32 + 64;
            return TextBody { text, encoding: Encoding::SevenBit, estimate };
        }
        // What quoted-printable takes at most: each soft break follows at least 73 characters.
        let content = text.len() + 2 * escaped_at_most(&text);
        let at_most = content + content / 73 * 3 + 64;
        if at_most <= base64::MIME.encoded_len(text.len()) {
            return TextBody { text, encoding: Encoding::QuotedPrintable, estimate: at_most };
        }
        // It is close, or clear the other way: count exactly. Base64 encodes the CR of each line too.
        let base64 = base64::MIME.encoded_len(text.len() + memchr_iter(b'\n', &text).count());
        match qp::BODY.encoded_len_within(&text, base64) {
            Some(length) => TextBody { text, encoding: Encoding::QuotedPrintable, estimate: length + 64 },
            None => TextBody { text, encoding: Encoding::Base64, estimate: base64 + 8 },
        }
    }

    /// Appends the encoded lines; the last one ends in CRLF.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self.encoding {
            Encoding::SevenBit => append_crlf(&self.text, out),
            Encoding::QuotedPrintable => {
                qp::BODY.encode_append(&self.text, out);
                end_line(out, start);
                mend_line_starts(out, start);
            }
            Encoding::Base64 => {
                // The decoded form of text has CRLF line ends (RFC 2045 §6.8).
                let mut canonical = Vec::with_capacity(self.text.len() + self.text.len() / 16 + 2);
                append_crlf(&self.text, &mut canonical);
                base64::MIME.encode_append(&canonical, out);
            }
        }
    }
}

/// The text with every CR that no LF follows made a LF; nearly always there is none.
fn line_ends(text: &[u8]) -> Cow<'_, [u8]> {
    let lone = |at: &usize| text.get(at + 1) != Some(&b'\n');
    if !memchr_iter(b'\r', text).any(|at| lone(&at)) {
        return Cow::Borrowed(text);
    }
    let mut mended = text.to_vec();
    for at in memchr_iter(b'\r', text).filter(lone) {
        mended[at] = b'\n';
    }
    Cow::Owned(mended)
}

/// Whether ASCII text may go as it is: no control characters but TAB, no long line, none that
/// begins with a dot (RFC 5321 §4.5.2), could be a boundary, or begins with `From ` (which mbox
/// files alter), and none that ends in a blank (which some relays cut off).
fn is_seven_bit(text: &[u8]) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fits = line.len() <= LONGEST_7BIT
            && !matches!(line.last(), Some(b' ' | b'\t'))
            && match line.first() {
                Some(b'.') => false,
                Some(b'F') => !line.starts_with(b"From "),
                Some(b'-') => !line.starts_with(BOUNDARY_START),
                _ => true,
            };
        // Folded without branches, so that the compiler can look at many bytes at a time.
        let control = line.iter().fold(false, |bad, &b| bad | ((b < b' ') & (b != b'\t')) | (b == 0x7f));
        if !fits || control {
            return false;
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    true
}

/// How many bytes quoted-printable makes longer, or a few more: line ends and tabs are counted too.
fn escaped_at_most(text: &[u8]) -> usize {
    // The sum of a chunk fits a byte, which lets the compiler add up many of them at a time.
    text.chunks(192)
        .map(|chunk| {
            let plain = |b: u8| (b.wrapping_sub(b' ') < 0x5f) & (b != b'=');
            usize::from(chunk.iter().fold(0u8, |sum, &b| sum + u8::from(!plain(b))))
        })
        .sum()
}

/// Appends text with CRLF line ends, the last line included.
fn append_crlf(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut from = 0;
    for at in memchr_iter(b'\n', text) {
        let line = &text[from..at];
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
        from = at + 1;
    }
    out.extend_from_slice(&text[from..]);
    end_line(out, start);
}

fn end_line(out: &mut Vec<u8>, start: usize) {
    if !out[start..].ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
}

/// Escapes what must not begin a line of quoted-printable: a dot, so that no line needs stuffing,
/// and `From `. Such lines are few, so they are looked for and mended afterwards.
fn mend_line_starts(out: &mut Vec<u8>, start: usize) {
    let body = &out[start..];
    let behind_line_end = |sign: &[u8]| memmem::find_iter(body, sign).map(|at| at + 1).collect::<Vec<_>>();
    let mut wrong = behind_line_end(b"\n.");
    wrong.extend(behind_line_end(b"\nFrom "));
    if must_not_begin_a_line(body) {
        wrong.push(0);
    }
    wrong.sort_unstable();
    let Some(&first) = wrong.first() else { return };
    let broken = out.split_off(start + first);
    let mut done = 0;
    for at in wrong {
        let line = at - first;
        let end = memchr(b'\n', &broken[line..]).map_or(broken.len(), |length| line + length + 1);
        out.extend_from_slice(&broken[done..line]);
        append_mended(&broken[line..end], out);
        done = end;
    }
    out.extend_from_slice(&broken[done..]);
}

fn must_not_begin_a_line(line: &[u8]) -> bool {
    line.starts_with(b".") || line.starts_with(b"From ")
}

fn append_mended(line: &[u8], out: &mut Vec<u8>) {
    let mut rest = line.strip_suffix(b"\r\n").unwrap_or(line);
    while must_not_begin_a_line(rest) {
        out.extend_from_slice(if rest[0] == b'.' { b"=2E" } else { b"=46" });
        rest = &rest[1..];
        if b"=2E".len() + rest.len() <= LONGEST_ENCODED {
            break;
        }
        // The longer form does not fit the line: what is behind it begins one of its own, for which the
        // same holds.
        out.extend_from_slice(b"=\r\n");
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(text: &str) -> (Encoding, Vec<u8>) {
        let body = TextBody::new(text);
        let mut out = b"before\r\n".to_vec();
        body.append(&mut out);
        (body.encoding, out.split_off(8))
    }

    fn decode(encoding: Encoding, encoded: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::SevenBit => encoded.to_vec(),
            Encoding::QuotedPrintable => qp::BODY.strict().decode(encoded).expect("legal").into_owned(),
            Encoding::Base64 => base64::MIME.decode(encoded).expect("legal"),
        }
    }

    fn canonical(text: &str) -> String {
        let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        if text.ends_with("\r\n") { text } else { text + "\r\n" }
    }

    #[test]
    fn the_encoding_is_the_shortest_that_is_legal() {
        use Encoding::*;
        let (long, dots) = ("x".repeat(79), "..\n".repeat(50));
        for (text, expected) in [
            ("", SevenBit),
            ("Hello\nthere\n", SevenBit),
            ("Hello\r\nthere", SevenBit),
            ("Hello\rthere", SevenBit),
            ("Grüße aus Köln, wo der Karneval beginnt", QuotedPrintable),
            ("Grüße", Base64),
            (long.as_str(), QuotedPrintable),
            ("a line and\n.\nanother one", QuotedPrintable),
            (".a line with a dot", QuotedPrintable),
            ("what could be\n--=_x\na boundary", QuotedPrintable),
            ("and\nFrom here on\n", QuotedPrintable),
            ("a trailing \nblank at an end", QuotedPrintable),
            ("a\0b and some more", QuotedPrintable),
            ("您好，这是本月的报告，请查收附件。谢谢合作", Base64),
            ("Отчёт за ноябрь во вложении", Base64),
            (dots.as_str(), QuotedPrintable), // the few octets that mending adds are not weighed,
        ] {
            assert_eq!(encode(text).0, expected, "{text:?}");
        }
    }

    #[test]
    fn lines_of_dots_are_mended_within_the_width() {
        for length in 60..200 {
            for text in [
                ".".repeat(length),
                format!("From {}", ".".repeat(length)),
                format!("{}ä", "=".repeat(length)),
            ] {
                let (encoding, encoded) = encode(&text);
                check(&text, encoding, &encoded);
            }
        }
    }

    fn check(text: &str, encoding: Encoding, encoded: &[u8]) {
        assert!(encoded.is_ascii() && encoded.ends_with(b"\r\n"));
        assert_eq!(decode(encoding, encoded), canonical(text).as_bytes(), "{text:?}");
        let encoded = std::str::from_utf8(encoded).expect("ASCII");
        assert_eq!(encoded.matches('\n').count(), encoded.matches("\r\n").count());
        assert_eq!(encoded.matches('\r').count(), encoded.matches("\r\n").count());
        for line in encoded.split("\r\n") {
            let longest = if encoding == Encoding::SevenBit { LONGEST_7BIT } else { LONGEST_ENCODED };
            assert!(line.len() <= longest, "{line:?}");
            assert!(
                !line.starts_with('.') && !line.starts_with("From ") && !line.starts_with("--=_"),
                "{line:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "([a-z .=ü您\r\n\t\0-]|\\.{3}|From |--=_|[a-z .]{60}){0,40}") {
            let (encoding, encoded) = encode(&text);
            check(&text, encoding, &encoded);
        }
    }
}
