//! Files within a text, as programs enclosed them before MIME: `begin 644 name`, lines, `end`.

use super::word;

/// A file that was found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uuencoded {
    /// Its name, as its sender wrote it.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The files in a text. What only begins like one is text. `hint` is the charset of raw bytes in a name.
pub fn uuencoded(text: &[u8], hint: Option<&str>) -> Vec<Uuencoded> {
    let mut found = Vec::new();
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).peekable();
    while let Some(line) = lines.next() {
        let Some(name) = name(line) else { continue };
        let mut bytes = Vec::new();
        while let Some(line) = lines.next_if(|line| is_data(line)) {
            decode_line(line, &mut bytes);
        }
        if lines.next_if(|line| *line == b"end").is_some() {
            found.push(Uuencoded { name: word::raw(name, hint), bytes });
        }
    }
    found
}

/// Decodes a text that is nothing else, leniently.
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let lines = text.split(|&byte| byte == b'\n').skip_while(|line| !line.starts_with(b"begin "));
    for line in lines.skip(1).map(<[u8]>::trim_ascii_end) {
        if line == b"end" {
            break;
        }
        decode_line(line, &mut out);
    }
    out
}

/// What follows `begin` and the rights of the file.
fn name(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"begin ")?;
    let digits = rest.iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let name = rest.get(digits..)?.strip_prefix(b" ")?;
    ((3..=4).contains(&digits) && !name.is_empty()).then_some(name)
}

/// Whether a line is as long as its first sign says; blanks at its end may be lost, a checksum may follow.
fn is_data(line: &[u8]) -> bool {
    let Some((&first, data)) = line.split_first() else { return true };
    let signs = length(first).div_ceil(3) * 4;
    let fine = line.iter().all(|byte| (b' '..=b'`').contains(byte));
    fine && data.len() <= signs + 2
}

fn length(first: u8) -> usize {
    usize::from(first.wrapping_sub(b' ') & 63)
}

fn decode_line(line: &[u8], out: &mut Vec<u8>) {
    let Some((&first, data)) = line.split_first() else { return };
    let from = out.len();
    for group in data.chunks(4) {
        let value = |at: usize| u32::from(group.get(at).copied().unwrap_or(b' ').wrapping_sub(b' ') & 63);
        let bits = value(0) << 18 | value(1) << 12 | value(2) << 6 | value(3);
        out.extend([(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]);
    }
    // Zeros at its end are blanks, and may be lost.
    out.resize(from + length(first), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_a_text() {
        for (text, expected) in [
            ("see\n\nbegin 644 a.txt\n#86)C\n`\nend\nafter", &[("a.txt", &b"abc"[..])][..]),
            ("begin 0644 a b.txt\r\n#86)C\r\n \r\nend\r\n", &[("a b.txt", b"abc")]),
            ("begin 644 a\n#86)C\n\nend\nbegin 600 b\n`\nend\n", &[("a", b"abc"), ("b", b"")]),
            ("begin 644 a\n$86)C\n`\nend\n", &[("a", b"abc\0")]),
            ("begin 644 a\nbegin 644 b\n#86)C\n`\nend\n", &[("b", b"abc")]),
            ("begin 644 words\nhere is no end\nend\n", &[]),
            ("begin the day\nend\n", &[]),
            ("begin 644 a\n#86)C\n`\n", &[]),
        ] {
            let found = uuencoded(text.as_bytes(), None);
            let found: Vec<_> = found.iter().map(|file| (file.name.as_str(), &file.bytes[..])).collect();
            assert_eq!(found, expected, "{text:?}");
        }
        let named = uuencoded(b"begin 644 \xb7\xa2\xc6\xb1.txt\n`\nend\n", Some("gbk"));
        assert_eq!(named[0].name, "发票.txt");
        assert_eq!(decode(b"junk\nbegin 644 a\n#86)C\n`\nend\nmore"), b"abc");
    }
}
