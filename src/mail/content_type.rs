//! Content types as a job file writes them (RFC 2045 §5.1).

/// A line of a header field, which this is written into whole.
const MAX_LENGTH: usize = 76;

/// Whether a text may be a `type:` of the job file: `type/subtype`, with parameters or without, one
/// line of ASCII. A `name` is none of its parameters: that is written beside it.
pub fn is_content_type(text: &str) -> bool {
    let text = text.trim();
    let (essence, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
    let kinds = essence.trim_end().split_once('/');
    kinds.is_some_and(|(kind, subtype)| {
        is_token(kind) && is_token(subtype) && !kind.eq_ignore_ascii_case("multipart")
    }) && parameter_names(parameters).is_some_and(|mut names| {
        let ours = names.iter().any(|name| name == "name" || name.starts_with("name*"));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        !ours && names.len() == all
    }) && text.len() <= MAX_LENGTH
}

/// The names of parameters, lower case, of which each begins with a semicolon; `None` if something is amiss.
fn parameter_names(mut text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !text.is_empty() {
        let (name, value) = text.strip_prefix(';')?.split_once('=')?;
        let name = name.trim_start_matches(' ');
        let end = match value.strip_prefix('"') {
            Some(quoted) => 1 + quoted_end(quoted)?,
            None => value.find([';', ' ']).unwrap_or(value.len()),
        };
        let (value, rest) = value.split_at(end);
        if !is_token(name) || !(value.starts_with('"') || is_token(value)) {
            return None;
        }
        names.push(name.to_ascii_lowercase());
        text = rest.trim_start_matches(' ');
    }
    Some(names)
}

/// Where a quoted string ends, behind its quote.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(at + 1),
            b' '..=b'~' => escaped = byte == b'\\' && !escaped,
            _ => return None,
        }
    }
    None
}

/// A token (RFC 2045 §5.1).
fn is_token(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
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
            ("text/plain;charset=utf-8 ; format=flowed", true),
            ("text/plain; x=\"a \\\"; b\"; y=z", true),
            ("text/plain;", false),
            ("text/plain; charset", false),
            ("text/plain; charset=", false),
            ("text/plain; x=\"y", false),
            ("text/plain; x=\"y\"z", false),
            ("text/plain; x=y z", false),
            ("text/plain; x=a;; y=b", false),
            ("text/plain; x y=z", false),
            ("text/plain x=y", false),
            ("application/pdf; name=foo.pdf", false),
            ("application/pdf; NAME*=utf-8''foo.pdf", false),
            ("text/plain; charset=utf-8; Charset=latin1", false),
        ] {
            assert_eq!(is_content_type(text), expected, "{text}");
        }
    }
}
