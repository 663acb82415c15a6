//! The words of an HTML text: for searching, and to read where there is no plain text.

/// The text as a person reads it in lines of `width` columns; the bare [`words`] where the HTML is too
/// large, too deep or too broken to be laid out.
pub fn readable(html: &str, width: usize) -> String {
    if html.len() > MAX_LAID_OUT || depth(html) > MAX_DEPTH {
        return lines_of_words(html);
    }
    html2text::from_read(html.as_bytes(), width.max(20)).unwrap_or_else(|_| lines_of_words(html))
}

/// The words in the lines of the source, without the room that tags leave.
fn lines_of_words(html: &str) -> String {
    let text = words(html);
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Laying out takes time and memory in proportion to this.
const MAX_LAID_OUT: usize = 1 << 20;

/// Laying out takes time in proportion to the square of this. A chain of quoted answers is some hundred deep.
const MAX_DEPTH: usize = 1000;

/// How deep elements lie within each other, roughly: those whose end is left out as a rule do not count.
fn depth(html: &str) -> usize {
    const ENDLESS: [&str; 22] = [
        "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta",
        "option", "p", "param", "source", "td", "th", "tr", "track", "wbr",
    ];
    let (mut depth, mut most) = (0usize, 0);
    for at in memchr::memchr_iter(b'<', html.as_bytes()) {
        let rest = &html[at + 1..];
        let (closes, rest) = rest.strip_prefix('/').map_or((false, rest), |rest| (true, rest));
        let name = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        if name.is_empty() || ENDLESS.iter().any(|endless| endless.eq_ignore_ascii_case(name)) {
            continue;
        }
        depth = if closes { depth.saturating_sub(1) } else { depth + 1 };
        most = most.max(depth);
    }
    most
}

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
        let deep = format!("{}deep", "<div>".repeat(80_000));
        let begun = std::time::Instant::now();
        assert_eq!(readable(&deep, 80), "deep");
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
        let long = "<p>a<br><ul><li>b<li>c</ul><div><b>d</b></div>".repeat(1000);
        assert_eq!(depth(&long), 2);
        assert!(readable("<p>one</p><ul><li>two</li></ul>", 80).contains("* two"));
    }
}
