//! The lines of LIST and UIDL.

/// RFC 1939 §7 allows 70 characters; some servers exceed it, none by this much.
const MAX_UIDL: usize = 512;

/// No message has more octets; the sum of any mailbox's can be reckoned with.
const MAX_SIZE: u64 = 1 << 40;

/// Reads `1 120` of LIST: message number and octets.
pub fn list_line(line: &[u8]) -> Option<(u32, u64)> {
    let (number, rest) = numbered(line)?;
    let size = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (size <= MAX_SIZE).then_some((number, size))
}

/// Reads `1 whqtswO00WBw418f9t5JxYwZ` of UIDL: message number and identity.
pub fn uidl_line(line: &[u8]) -> Option<(u32, &str)> {
    let (number, rest) = numbered(line)?;
    let uidl = rest.trim_matches([' ', '\t']);
    let fine = !uidl.is_empty() && uidl.len() <= MAX_UIDL && !uidl.chars().any(char::is_control);
    fine.then_some((number, uidl))
}

fn numbered(line: &[u8]) -> Option<(u32, &str)> {
    let text = std::str::from_utf8(line).ok()?.trim_start();
    let (number, rest) = text.split_once([' ', '\t'])?;
    Some((number.parse().ok().filter(|&number| number > 0)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_lines_are_read_or_refused() {
        for (line, size, uidl) in [
            ("1 120", Some((1, 120)), Some((1, "120"))),
            ("2  whqt ", None, Some((2, "whqt"))),
            ("3 120 extra", Some((3, 120)), Some((3, "120 extra"))),
            ("0 5", None, None),
            ("-1 5", None, None),
            ("4", None, None),
            ("4 ", None, None),
            ("99999999999 1", None, None),
            ("6 18446744073709551615", None, Some((6, "18446744073709551615"))),
            ("5 a\u{7}b", None, None),
        ] {
            assert_eq!(list_line(line.as_bytes()), size, "{line:?}");
            assert_eq!(uidl_line(line.as_bytes()), uidl, "{line:?}");
        }
    }
}
