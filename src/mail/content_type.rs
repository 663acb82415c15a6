//! Content types as a job file writes them (RFC 2045 §5.1).

/// A line of a header field, which this is written into whole.
const MAX_LENGTH: usize = 76;

/// Whether a text may be a `type:` of the job file: `type/subtype`, with parameters or without, one
/// line of ASCII.
pub fn is_content_type(text: &str) -> bool {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let token = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let parts = essence.trim().split_once('/');
    parts.is_some_and(|(kind, subtype)| token(kind) && token(subtype))
        && !essence.trim().to_ascii_lowercase().starts_with("multipart/")
        && parameters.bytes().all(|b| matches!(b, b' '..=b'~'))
        && text.len() <= MAX_LENGTH
}

#[cfg(test)]
mod tests {
    use super::is_content_type;

    #[test]
    fn a_type_is_one_line_and_no_container() {
        for (text, expected) in [
            ("application/pdf", true),
            (" text/plain; charset=utf-8", true),
            ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", true),
            ("pdf", false),
            ("application/", false),
            ("multipart/mixed", false),
            ("text/plain\r\nBcc: eve@example.org", false),
            ("text/plain; name=报告", false),
        ] {
            assert_eq!(is_content_type(text), expected, "{text}");
        }
    }
}
