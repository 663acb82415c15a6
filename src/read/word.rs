//! Encoded words (RFC 2047), as they should be and as they are met: within quotes, without blanks
//! between, split in the middle of a character, beside raw bytes of any charset.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::charset;
use super::field::unfold;

/// base64 as it is met: padding or not, loose bits at the end.
pub(super) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text of a field's value. `hint` is the charset that the message declares elsewhere: raw bytes
/// are taken for it if they can be.
pub fn text(value: &[u8], hint: Option<&str>) -> String {
    let value = unfold(value);
    let mut out = String::with_capacity(value.len());
    let mut rest = &value[..];
    // Bytes of words in the same charset are put together before they are decoded.
    let mut pending: Option<(String, Vec<u8>)> = None;
    let settle = |pending: &mut Option<(String, Vec<u8>)>, out: &mut String| {
        if let Some((name, bytes)) = pending.take() {
            out.push_str(&charset::decode(Some(&name), &bytes).text);
        }
    };
    while !rest.is_empty() {
        let Some((before, word, after)) = next_word(rest) else { break };
        // Blanks between two words are no text.
        if !(pending.is_some() && before.iter().all(u8::is_ascii_whitespace)) {
            settle(&mut pending, &mut out);
            out.push_str(&raw(before, hint));
        }
        match &mut pending {
            Some((name, bytes)) if name.eq_ignore_ascii_case(&word.charset) => bytes.extend(word.bytes),
            _ => {
                settle(&mut pending, &mut out);
                pending = Some((word.charset, word.bytes));
            }
        }
        rest = after;
    }
    settle(&mut pending, &mut out);
    out.push_str(&raw(rest, hint));
    out
}

/// Bytes that no word encodes.
pub(super) fn raw(bytes: &[u8], hint: Option<&str>) -> String {
    let plain = std::str::from_utf8(bytes).ok().filter(|_| !bytes.contains(&0x1b));
    if let Some(text) = plain.filter(|text| text.is_ascii()) {
        return text.to_owned();
    }
    let hinted = hint.and_then(|hint| charset::named(&hint.to_ascii_lowercase()));
    let decoded = hinted.map(|encoding| (encoding, encoding.decode(bytes)));
    match (plain, decoded) {
        // Two octets a letter are valid in both: 目录 of GBK is `Ŀ¼` in UTF-8. Chinese in UTF-8 has three. Of a
        // whole sentence it cannot be by chance: that is Cyrillic, or Greek.
        (Some(text), Some((encoding, (hinted, _, false))))
            if encoding.is_ascii_compatible()
                && !encoding.is_single_byte()
                && text.chars().all(|c| c < '\u{800}')
                && text.chars().filter(|c| !c.is_ascii()).count() <= MOST_BY_CHANCE =>
        {
            hinted.into_owned()
        }
        (Some(text), _) => text.to_owned(),
        (None, Some((_, (hinted, _, false)))) => hinted.into_owned(),
        (None, _) => charset::decode(None, bytes).text,
    }
}

/// Of one Chinese character in six the two octets of GBK are a letter of UTF-8; of five in a row that is so once in
/// some five thousand times (counted in 36,000 texts of programs, with 395,000 characters).
const MOST_BY_CHANCE: usize = 4;

struct Word {
    charset: String,
    bytes: Vec<u8>,
}

/// What comes before the first encoded word, the word, and what comes after it.
fn next_word(bytes: &[u8]) -> Option<(&[u8], Word, &[u8])> {
    let mut from = 0;
    loop {
        let start = from + memchr::memmem::find(&bytes[from..], b"=?")?;
        if let Some((word, end)) = word(&bytes[start + 2..]) {
            return Some((&bytes[..start], word, &bytes[start + 2 + end..]));
        }
        from = start + 2;
    }
}

/// `charset?B?text?=`
fn word(bytes: &[u8]) -> Option<(Word, usize)> {
    let charset_end = memchr::memchr(b'?', bytes).filter(|&end| (1..=MAX_CHARSET).contains(&end))?;
    let charset = std::str::from_utf8(&bytes[..charset_end]).ok()?;
    let name = charset.split('*').next().unwrap_or(charset);
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let [how, b'?', ..] = bytes.get(charset_end + 1..)? else { return None };
    let text = &bytes[charset_end + 3..];
    // In Q a `?=` may stand at the very start as `=3D`; the first `?=` ends the word.
    let end = memchr::memmem::find(text, b"?=")?;
    let content = &text[..end];
    let bytes = match how.to_ascii_uppercase() {
        b'B' => base64_lenient(content),
        b'Q' => quoted(content),
        _ => return None,
    };
    Some((Word { charset: name.to_owned(), bytes }, charset_end + 3 + end + 2))
}

/// No charset has a longer name.
const MAX_CHARSET: usize = 60;

/// Decodes base64 and passes over whatever is none.
pub(super) fn base64_lenient(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    base64_pieces(text, |piece| out.extend_from_slice(piece));
    out
}

/// Decodes base64 as [`base64_lenient`] does, and hands it on in pieces: what is large need not be held twice.
///
/// Mailing lists put a remark of theirs behind the end, which is none of it: from the first line behind padding that
/// has something else in it on. Of base64 that ends without padding, as every third does, nobody can say where it
/// ends, so letters of a remark become a few bytes too many.
pub(super) fn base64_pieces(text: &[u8], mut keep: impl FnMut(&[u8])) {
    let (mut clean, mut decoded) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    let mut settle = |clean: &mut Vec<u8>| {
        // A single character left over holds no byte.
        let usable = if clean.len() % 4 == 1 { clean.len() - 1 } else { clean.len() };
        decoded.clear();
        if LENIENT.decode_vec(&clean[..usable], &mut decoded).is_ok() {
            keep(&decoded);
        }
        clean.clear();
    };
    let (mut padded, mut over, mut ended) = (false, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\n' => {
                ended |= padded && !is_base64(&text[at + 1..]);
                over = ended;
            }
            // What stands on a line behind its padding is a remark.
            b' ' | b'\t' => over |= padded,
            // Padding in the middle ends one piece and begins the next.
            b'=' if !over => {
                settle(&mut clean);
                padded = true;
            }
            b'+' | b'/' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' if !over => {
                clean.push(byte);
                padded = false;
                if clean.len() == PIECE {
                    settle(&mut clean);
                }
            }
            _ => {}
        }
    }
    settle(&mut clean);
}

/// Whether the next line has nothing but base64 in it.
fn is_base64(text: &[u8]) -> bool {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
}

/// So many characters of base64 are decoded at once: whole groups of four.
const PIECE: usize = 16 * 1024;

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'_' => out.push(b' '),
            b'=' => match text.get(at + 1..at + 3).and_then(hex) {
                Some(byte) => {
                    out.push(byte);
                    at += 2;
                }
                None => out.push(b'='),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
    out
}

/// Two hexadecimal digits.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| (digit as char).to_digit(16);
    let [high, low] = digits else { return None };
    u8::try_from(value(*high)? * 16 + value(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_text() {
        for (value, expected) in [
            (&b" plain"[..], "plain"),
            (b"=?utf-8?B?5Y+R56Wo?=", "发票"),
            (b"=?UTF-8?q?a_b=3Dc?= and more", "a b=c and more"),
            (b"=?gb2312?B?t6I=?=\r\n =?gb2312?B?xrE=?=", "发票"),
            // A character split between two words, each whole in base64.
            (b"=?utf-8?B?5Y8=?= =?utf-8?B?kQ==?=", "发"),
            (b"=?iso-2022-jp?B?GyRCJDMbKEI=?= x", "こ x"),
            // Each word begins and ends in ASCII, so that together two escapes meet.
            (b"=?iso-2022-jp?B?GyRCJDMbKEI=?=\r\n =?ISO-2022-JP?B?GyRCJHMbKEI=?= x", "こん x"),
            (b"re:=?utf-8?Q?=E5=8F=91?=!", "re:发!"),
            (b"=?utf-8?B?5Y+R56W?=", "发\u{fffd}"),
            (b"=?x-none?Q?abc?= =?", "abc =?"),
            (b"=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
            (b"=?utf-8*en?Q?a?=", "a"),
            (b"a\r\n b\r\n\tc", "a b\tc"),
            (b"\xb7\xa2\xc6\xb1 11", "发票 11"),
            (b"=?utf-8?Q?a b?=", "a b"),
        ] {
            assert_eq!(text(value, None), expected, "{:?}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn base64_goes_on_behind_padding_but_a_remark_is_none() {
        for (text, expected) in [
            (&b"YQ==\r\nYg==\r\n"[..], "ab"),
            (b"YQ==Yg==", "ab"),
            (b"YQ== remark\nYg", "ab"),
            (b"YQ==\r\n-- \r\nnews list\r\n", "a"),
            (b"YQ==\r\n____\r\nUnsubscribe\r\n", "a"),
            (b"YQ==\r\n\r\nYg==\r\n\r\n-- \r\nnews\r\n\r\nlist\r\n", "ab"),
        ] {
            assert_eq!(base64_lenient(text), expected.as_bytes());
        }
        let long: Vec<u8> = (0..PIECE * 2 + 1).map(|at| (at % 251) as u8).collect();
        let text = LENIENT.encode(&long).into_bytes();
        let lines: Vec<&[u8]> = text.chunks(76).collect();
        assert_eq!(base64_lenient(&lines.join(&b"\r\n"[..])), long);
    }

    #[test]
    fn raw_bytes_follow_the_hint_if_they_can() {
        assert_eq!(text(b"\xa4\xa4\xa4\xe5", Some("big5")), "中文");
        assert_eq!(text("中文".as_bytes(), Some("big5")), "中文");
        assert_eq!(text(b"\xc4\xbf\xc2\xbc", Some("gb2312")), "目录");
        assert_eq!(text("Привет, мир".as_bytes(), Some("gb2312")), "Привет, мир");
        assert_eq!(text("Größe".as_bytes(), Some("iso-8859-1")), "Größe");
        for hint in ["utf-8", "utf-16", "iso-2022-jp"] {
            assert_eq!(text("Größe".as_bytes(), Some(hint)), "Größe");
        }
        assert_eq!(text("Größe".as_bytes(), None), "Größe");
    }
}
