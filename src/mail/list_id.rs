//! What List-Id says.

/// The value of List-Id: words, and the id between angle brackets (RFC 2919 §2), which no program finds in encoded
/// words.
pub fn list_id(text: &str) -> Option<String> {
    let (words, id) = match text.rsplit_once('<') {
        Some((words, id)) => (words.trim(), id.trim_end().strip_suffix('>')?),
        None => ("", text.trim()),
    };
    let fits = (1..=255).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'!'..=b'~') && b != b'>');
    let gap = if words.is_empty() { "" } else { " " };
    fits.then(|| format!("{words}{gap}<{id}>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_list_is_for_programs() {
        for (text, expected) in [
            (" news.example.com ", Some("<news.example.com>")),
            ("<news.example.com>", Some("<news.example.com>")),
            ("新闻<news.example.com> ", Some("新闻 <news.example.com>")),
            ("\"a <b>\" <news.example.com>", Some("\"a <b>\" <news.example.com>")),
            ("新闻", None),
            ("新闻 <新闻.example.com>", None),
            ("news example", None),
            ("", None),
            ("<>", None),
            ("<news.example.com", None),
            ("<news.example.com> x", None),
        ] {
            assert_eq!(list_id(text).as_deref(), expected, "{text}");
        }
    }
}
