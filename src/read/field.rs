//! Header fields as they stand: name, and value with its folding (RFC 5322 §2.2).

/// One field of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name, as written.
    pub name: &'a [u8],
    /// What follows the colon, folding and all, without the last line end.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether this is the field called `name`.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line: each line end that begins a fold is taken out, blanks around the whole trimmed.
    pub fn unfolded(&self) -> Vec<u8> {
        unfold(self.value)
    }
}

/// Takes the line ends out of a folded value and trims it.
pub fn unfold(value: &[u8]) -> Vec<u8> {
    value.trim_ascii().iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

/// Where the header of a message ends: the length of its lines, and where the body begins. Lines end
/// with CRLF or a bare LF. Without an empty line everything is header.
pub fn header_end(message: &[u8]) -> (usize, usize) {
    let mut at = 0;
    while at < message.len() {
        let end = memchr::memchr(b'\n', &message[at..]).map_or(message.len(), |found| at + found + 1);
        if matches!(&message[at..end], b"\n" | b"\r\n") {
            return (at, end);
        }
        at = end;
    }
    (at, at)
}

/// The fields of a header block. A line that is no field and no continuation is passed over, as is
/// the `From ` line of an mbox.
pub fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = header;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = field_end(rest);
            let (field, next) = rest.split_at(end);
            rest = next;
            let field = field.strip_suffix(b"\n").unwrap_or(field);
            let field = field.strip_suffix(b"\r").unwrap_or(field);
            let Some(colon) = memchr::memchr(b':', field) else { continue };
            let name = field[..colon].trim_ascii_end();
            let is_name = !name.is_empty() && name.iter().all(|byte| (33..127).contains(byte));
            if is_name {
                return Some(Field { name, value: &field[colon + 1..] });
            }
        }
        None
    })
}

/// The end of the first line with its continuations.
fn field_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match memchr::memchr(b'\n', &bytes[at..]) {
            None => return bytes.len(),
            Some(found) => at += found + 1,
        }
        if !matches!(bytes.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_their_line_ends() {
        let header = b"From x Mon\r\nSubject: a\r\n b\nTo : c\nnonsense\n continued\nX:\r\nCc: d";
        let found: Vec<(String, String)> = fields(header)
            .map(|field| {
                (
                    String::from_utf8_lossy(field.name).into_owned(),
                    String::from_utf8_lossy(&field.unfolded()).into_owned(),
                )
            })
            .collect();
        let expected = [("Subject", "a b"), ("To", "c"), ("X", ""), ("Cc", "d")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_header_ends_at_the_first_empty_line() {
        for (message, expected) in [
            (&b"A: b\r\n\r\nbody"[..], (6, 8)),
            (b"A: b\n\nbody", (5, 6)),
            (b"\r\nbody", (0, 2)),
            (b"A: b\r\n", (6, 6)),
            (b"", (0, 0)),
        ] {
            assert_eq!(header_end(message), expected, "{:?}", String::from_utf8_lossy(message));
        }
    }
}
