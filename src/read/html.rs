//! The words of an HTML text: for searching, and to read where there is no plain text.

/// The text as a person reads it in lines of `width` columns; the bare [`words`] where the HTML is too
/// large or too broken to be laid out.
pub fn readable(html: &str, width: usize) -> String {
    if html.len() > MAX_LAID_OUT {
        return words(html);
    }
    html2text::from_read(html.as_bytes(), width.max(20)).unwrap_or_else(|_| words(html))
}

/// Laying out takes time and memory in proportion to this.
const MAX_LAID_OUT: usize = 1 << 20;

/// The text without tags, scripts, styles and comments, entities replaced: quick, and for any input.
pub fn words(html: &str) -> String {
    let mut out = String::with_capacity(html.len() / 2);
    let mut rest = html;
    loop {
        let Some(at) = memchr::memchr2(b'<', b'&', rest.as_bytes()) else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('&') {
            let (text, length) = entity(rest);
            match text {
                Some(text) => out.push(text),
                None => out.push('&'),
            }
            rest = &rest[length..];
            continue;
        }
        rest = match rest {
            rest if rest.starts_with("<!--") => after(rest, "-->"),
            rest if is_tag(rest, "script") => after_no_case(rest, "</script"),
            rest if is_tag(rest, "style") => after_no_case(rest, "</style"),
            rest => after(rest, ">"),
        };
        // A tag parts words, inline ones too: `<b>a</b>b` is rarer than `</td><td>`.
        out.push(' ');
    }
}

fn is_tag(rest: &str, name: &str) -> bool {
    let head = rest.as_bytes().get(1..=name.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(name.as_bytes()))
        && rest.as_bytes().get(name.len() + 1).is_some_and(|next| !next.is_ascii_alphanumeric())
}

fn after<'a>(rest: &'a str, end: &str) -> &'a str {
    memchr::memmem::find(rest.as_bytes(), end.as_bytes()).map_or("", |at| &rest[at + end.len()..])
}

fn after_no_case<'a>(rest: &'a str, end: &str) -> &'a str {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'<', &bytes[at..]) {
        at += found;
        if bytes[at..].get(..end.len()).is_some_and(|head| head.eq_ignore_ascii_case(end.as_bytes())) {
            return after(&rest[at..], ">");
        }
        at += 1;
    }
    ""
}

/// The character of an entity at the start of the text, and how long it is.
fn entity(rest: &str) -> (Option<char>, usize) {
    let Some(end) = memchr::memchr(b';', &rest.as_bytes()[..rest.len().min(12)]) else { return (None, 1) };
    let name = &rest[1..end];
    let number = name.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    });
    let named = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => None,
    };
    match number.and_then(char::from_u32).or(named) {
        Some(found) => (Some(found), end + 1),
        None => (None, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left() {
        for (html, expected) in [
            ("<p>a &amp; b</p><p>c</p>", "a & b c"),
            ("<style>x{}</style>a<SCRIPT >var x = '<p>';</SCRIPT>b", "a b"),
            ("a<!-- > -->b", "a b"),
            ("&#21457;&#x7968; &copy; &", "发票 &copy; &"),
            ("<unclosed", ""),
            ("发<b>票", "发 票"),
            ("<script>never closed", ""),
        ] {
            let words: Vec<&str> = super::words(html).leak().split_whitespace().collect();
            assert_eq!(words.join(" "), expected, "{html}");
        }
        assert!(readable("<p>one</p><ul><li>two</li></ul>", 80).contains("* two"));
    }
}
