//! Values with parameters: `Content-Type`, `Content-Disposition` (RFC 2045, RFC 2183), with RFC 2231
//! and with what is met in its place: encoded words, raw bytes, blanks without quotes.

use super::charset;
use super::word;

/// A value and its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// What comes before the first semicolon, lower case.
    pub value: String,
    /// Names, lower case, and decoded values. Continuations are put together.
    pub list: Vec<(String, String)>,
}

/// More parameters than any program writes.
const MAX_PARAMETERS: usize = 500;

impl Parameters {
    /// Reads a value as it stands in the field.
    pub fn parse(value: &[u8], hint: Option<&str>) -> Parameters {
        let value = super::field::unfold(value);
        let mut pieces = split(&value).into_iter();
        let first = pieces.next().unwrap_or_default();
        let (first, forgotten) = without_semicolon(&first);
        let first: String = String::from_utf8_lossy(first)
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect::<String>()
            .to_ascii_lowercase();
        let mut list: Vec<(String, String)> = Vec::new();
        let mut extended: Vec<Piece> = Vec::new();
        for piece in forgotten.into_iter().chain(pieces).take(MAX_PARAMETERS) {
            let Some(equals) = memchr::memchr(b'=', &piece) else { continue };
            let name = String::from_utf8_lossy(piece[..equals].trim_ascii()).to_ascii_lowercase();
            let raw = unquoted(piece[equals + 1..].trim_ascii());
            match name.split_once('*') {
                None => list.push((name, word::text(&raw, hint))),
                Some((base, rest)) => {
                    let (order, encoded) = match rest.strip_suffix('*') {
                        Some(order) => (order, true),
                        None if rest.is_empty() => ("", true),
                        None => (rest, false),
                    };
                    let order = if order.is_empty() { 0 } else { order.parse().unwrap_or(u32::MAX) };
                    extended.push(Piece { name: base.to_owned(), order, encoded, raw });
                }
            }
        }
        for (name, text) in join(extended) {
            // RFC 6266 §4.3: the extended form is the better one.
            match list.iter_mut().find(|(have, _)| *have == name) {
                Some(have) => have.1 = text,
                None => list.push((name, text)),
            }
        }
        Parameters { value: first, list }
    }

    /// A parameter by its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

struct Piece {
    name: String,
    order: u32,
    encoded: bool,
    raw: Vec<u8>,
}

/// Puts the pieces of each parameter together; the charset stands in the first.
fn join(mut pieces: Vec<Piece>) -> Vec<(String, String)> {
    pieces.sort_by(|a, b| (&a.name, a.order).cmp(&(&b.name, b.order)));
    pieces
        .chunk_by(|a, b| a.name == b.name)
        .map(|group| {
            let (mut bytes, mut declared) = (Vec::new(), None);
            for (index, piece) in group.iter().enumerate() {
                if !piece.encoded {
                    bytes.extend_from_slice(&piece.raw);
                    continue;
                }
                let mut raw = &piece.raw[..];
                if index == 0 {
                    let mut parts = raw.splitn(3, |&byte| byte == b'\'');
                    if let (Some(charset), Some(_), Some(text)) = (parts.next(), parts.next(), parts.next()) {
                        declared = Some(String::from_utf8_lossy(charset).into_owned());
                        raw = text;
                    }
                }
                percent(raw, &mut bytes);
            }
            let name = group.first().map(|piece| piece.name.clone()).unwrap_or_default();
            let text = match declared {
                Some(declared) => {
                    charset::decode(
                        Some(&declared).filter(|name| !name.is_empty()).map(|name| name.as_str()),
                        &bytes,
                    )
                    .text
                }
                None => word::text(&bytes, None),
            };
            (name, text)
        })
        .collect()
}

fn percent(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < raw.len() {
        match raw[at] {
            b'%' => match raw.get(at + 1..at + 3).and_then(word::hex) {
                Some(byte) => {
                    out.push(byte);
                    at += 2;
                }
                None => out.push(b'%'),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
}

/// Splits at semicolons outside of quotes and comments; comments are left out.
fn split(value: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = vec![Vec::new()];
    let (mut quoted, mut comment, mut escaped) = (false, 0usize, false);
    for &byte in value {
        if comment > 0 {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => comment += 1,
                b')' => comment -= 1,
                _ => {}
            }
            continue;
        }
        let Some(last) = pieces.last_mut() else { break };
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            // A comment begins where a value cannot: a name such as `report(1).pdf` has none.
            b'(' if !quoted && last.last().is_none_or(|last| last.is_ascii_whitespace() || *last == b'"') => {
                comment = 1;
                continue;
            }
            b';' if !quoted => {
                pieces.push(Vec::new());
                continue;
            }
            _ => {}
        }
        last.push(byte);
    }
    pieces
}

/// A value, and a parameter that follows it after a blank where a semicolon should be.
fn without_semicolon(first: &[u8]) -> (&[u8], Option<Vec<u8>>) {
    let equals = memchr::memchr(b'=', first).unwrap_or(0);
    let name = first[..equals].trim_ascii_end();
    match name.iter().rposition(u8::is_ascii_whitespace) {
        Some(blank) if !name[..blank].trim_ascii().is_empty() => {
            (&first[..blank], Some(first[blank..].trim_ascii().to_vec()))
        }
        _ => (first, None),
    }
}

/// Takes quotes and quoting backslashes off.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"") else { return value.to_vec() };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            // Only what needs quoting is quoted: `C:\dir\file.txt` keeps its backslashes.
            b'\\' => match bytes.clone().next() {
                Some(next @ (b'"' | b'\\')) => {
                    out.push(next);
                    bytes.next();
                }
                _ => out.push(b'\\'),
            },
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_form() {
        for (value, name, expected) in [
            (&b"attachment; filename=a.pdf"[..], "filename", Some("a.pdf")),
            (b"attachment; FileName=\"a b.pdf\"", "filename", Some("a b.pdf")),
            (b"attachment; filename=a b.pdf; size=3", "filename", Some("a b.pdf")),
            (b"attachment; filename*=utf-8''%E5%8F%91%E7%A5%A8.pdf", "filename", Some("发票.pdf")),
            (b"attachment; filename*=gbk''%B7%A2%C6%B1.pdf; filename=x", "filename", Some("发票.pdf")),
            (
                b"a; filename*0*=utf-8'zh'%E5%8F; filename*1*=%91%E7%A5%A8; filename*2=\".pdf\"",
                "filename",
                Some("发票.pdf"),
            ),
            (b"a; filename*1=b; filename*0=a", "filename", Some("ab")),
            (b"a; filename=\"=?gb2312?B?t6LGsQ==?=.pdf\"", "filename", Some("发票.pdf")),
            (b"a; filename=\"\xb7\xa2\xc6\xb1.pdf\"", "filename", Some("发票.pdf")),
            (b"a; filename=\"q\\\"q\\\\.txt\"", "filename", Some("q\"q\\.txt")),
            (b"a; filename=\"C:\\dir\\a.txt\"", "filename", Some("C:\\dir\\a.txt")),
            (b"text/plain; charset=utf-8 (a; comment); format=flowed", "format", Some("flowed")),
            (b"a; filename=report(1).pdf", "filename", Some("report(1).pdf")),
            (b"text/plain;", "charset", None),
            (b"multipart/mixed\r\n\tboundary=\"b b\"; x=y", "boundary", Some("b b")),
            (b"text / plain charset=utf-8", "charset", Some("utf-8")),
            (b"", "charset", None),
        ] {
            let parameters = Parameters::parse(value, None);
            assert_eq!(parameters.get(name), expected, "{:?}", String::from_utf8_lossy(value));
        }
        for value in [&b" Text/HTML ;x=y"[..], b"text/html x=y", b"text / html x = y; z"] {
            assert_eq!(Parameters::parse(value, None).value, "text/html");
        }
    }
}
