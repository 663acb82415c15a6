//! What was probably meant: columns that are no names by the rules of templates, signs of other languages, and words
//! in the braces of other programs or of a Chinese keyboard, which are no template at all.

use std::ops::Range;

use super::scan::bare;

/// How a template asks for a column: by its name, or through `row` where that is no name.
pub(super) fn reference(column: &str) -> String {
    let name = column.chars().all(|sign| sign.is_alphanumeric() || sign == '_');
    match name && !column.starts_with(|sign: char| sign.is_numeric()) {
        true => column.to_owned(),
        false => format!("row[\"{column}\"]"),
    }
}

/// How to ask for a column that stands in the braces of a template by a name that is none.
pub(super) fn misnamed<'n>(source: &str, columns: impl Iterator<Item = &'n str>) -> Option<String> {
    let within = |column: &str| {
        let mut behind = source.split("{{").skip(1);
        behind.any(|rest| rest.trim_start().strip_prefix(column).is_some_and(|rest| !goes_on(rest)))
    };
    let mut columns = columns.filter(|column| !column.contains(['"', '\\']) && reference(column) != *column);
    let column = columns.find(|column| within(column))?;
    Some(format!("`{column}` is no name in a template: write `{{{{ {} }}}}`", reference(column)))
}

fn goes_on(rest: &str) -> bool {
    rest.starts_with(|sign: char| sign.is_alphanumeric() || sign == '_')
}

/// What is right for a sign of a Chinese keyboard, or of another language, in the braces of a template.
pub(super) fn foreign(source: &str) -> Option<String> {
    let mut rest = source;
    while let Some(start) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let inner = &rest[start + 2..];
        let behind = |end| inner.find(end).map_or("", |at| &inner[at..]);
        if rest[start..].starts_with("{#") {
            rest = behind("#}");
            continue;
        }
        let end = ["}}", "%}"].iter().filter_map(|close| inner.find(close)).min().unwrap_or(inner.len());
        if let Some(help) = wide_sign_in(&inner[..end]).or_else(|| of_another_language(&inner[..end])) {
            return Some(help);
        }
        rest = match inner[..end].trim_matches(['-', '+', ' ']) {
            "raw" if rest[start..].starts_with("{%") => behind("endraw"),
            _ => &inner[end..],
        };
    }
    None
}

fn of_another_language(tag: &str) -> Option<String> {
    let begins = tag.trim_start_matches(['-', '+', ' ']);
    if ["elseif", "elsif", "else if"].iter().any(|word| begins.starts_with(word)) {
        return Some("`elif` begins another condition".to_owned());
    }
    let bare = unquoted(tag);
    let more = [
        ("??", "`default` stands in for what is missing"),
        ("?", "`a if condition else b` chooses one of two"),
    ];
    let known = LOGIC.into_iter().chain(more);
    known.into_iter().find(|(sign, _)| bare.contains(sign)).map(|(_, help)| help.to_owned())
}

/// Signs between conditions, and what stands there in a template.
const LOGIC: [(&str, &str); 3] = [
    ("&&", "`and` stands between two conditions of which both hold"),
    ("||", "`or` stands between two conditions of which one holds"),
    ("<>", "`!=` compares"),
];

fn wide_sign_in(expression: &str) -> Option<String> {
    let words = unquoted(expression);
    let (sign, right) = words.chars().find_map(|sign| Some((sign, narrow(sign)?)))?;
    Some(format!("`{sign}` is a sign of a Chinese keyboard: write `{right}`"))
}

/// An expression with nothing between its quotation marks.
fn unquoted(expression: &str) -> String {
    let (mut quote, mut escaped) = (None, false);
    let without = expression.chars().filter(|&sign| match quote {
        Some(_) if std::mem::take(&mut escaped) => false,
        Some(open) => {
            escaped = sign == '\\';
            quote = Some(open).filter(|open| *open != sign);
            quote.is_none()
        }
        None => {
            quote = Some(sign).filter(|sign| matches!(sign, '"' | '\''));
            true
        }
    });
    without.collect()
}

/// The sign of ASCII that a wide one stands for.
fn narrow(sign: char) -> Option<char> {
    match sign {
        '“' | '”' => Some('"'),
        '‘' | '’' => Some('\''),
        '、' => Some(','),
        '。' => Some('.'),
        '【' => Some('['),
        '】' => Some(']'),
        '！'..='～' => char::from_u32(sign as u32 - 0xFEE0).filter(char::is_ascii_punctuation),
        _ => None,
    }
}

/// What a sign is called here that another language, or another keyboard, has in its place.
pub(super) fn operator(expression: &str) -> Option<String> {
    if let Some(help) = wide_sign_in(expression) {
        return Some(help);
    }
    let bare =
        ["==", "!=", "<=", ">="].iter().fold(unquoted(expression), |text, sign| text.replace(sign, ""));
    let more = [("=", "`==` compares"), ("!", "`not` stands before what does not hold")];
    LOGIC.into_iter().chain(more).find(|(sign, _)| bare.contains(sign)).map(|(_, help)| help.to_owned())
}

/// The first words that everybody would get as they stand: one of these names in single braces, anything in the
/// double ones of a Chinese keyboard.
pub(super) fn unfilled(source: &str, is_name: impl Fn(&str) -> bool) -> Option<Range<usize>> {
    bare(source).find_map(|text| {
        let found = in_braces(&source[text.clone()], &is_name)?;
        Some(text.start + found.start..text.start + found.end)
    })
}

fn in_braces(text: &str, is_name: impl Fn(&str) -> bool) -> Option<Range<usize>> {
    const OPEN: [char; 2] = ['{', '｛'];
    const CLOSE: [char; 2] = ['}', '｝'];
    let mut at = 0;
    while let Some(start) = text[at..].find(OPEN).map(|found| at + found) {
        let inner = text[start..].trim_start_matches(OPEN);
        let opening = &text[start..text.len() - inner.len()];
        let len = inner.find(|sign: char| CLOSE.contains(&sign) || sign == '\n').unwrap_or(inner.len());
        let rest = inner[len..].trim_start_matches(CLOSE);
        at = text.len() - rest.len();
        let closed = inner[len..].starts_with(CLOSE);
        if closed && (opening.starts_with("｛｛") || is_name(inner[..len].trim())) {
            return Some(start..at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_template_are_found() {
        for (source, expected) in [
            ("Dear {{ name }}, {% if name %}{x}{% endif %} {# {name} #}{other}", None),
            ("Dear { name }!", Some("{ name }")),
            ("${name}", Some("{name}")),
            ("{{ name }} 亲爱的｛姓名｝", Some("｛姓名｝")),
            ("亲爱的｛｛ 别的 ｝｝", Some("｛｛ 别的 ｝｝")),
            ("p {color: red} a{name", None),
            ("{name\n}", None),
            ("｛别的｝", None),
            ("{# Dear\n{name}, #}{# ｛｛ 别的 ｝｝ #}x", None),
            ("{% raw %}{name} ｛｛ 别的 ｝｝{% endraw %}{%- raw -%}\n {name} {%- endraw -%} x", None),
            ("{% raw %}{{ x }}{% endraw %} { name } {#\n#}", Some("{ name }")),
            ("{% if name %}\n{name}{% endif %}", Some("{name}")),
            ("{{ '{name}' }}{% set x = '{name}' %}{{ {'name': name}|length }}{{{ name }}}", None),
        ] {
            let found = unfilled(source, |name| ["name", "姓名"].contains(&name));
            assert_eq!(found.map(|span| &source[span]), expected, "{source}");
        }
    }

    #[test]
    fn columns_that_are_no_names_are_reached() {
        let columns = || ["First Name", "姓名/Name", "name", "2026年"].into_iter();
        for (source, expected) in [
            ("{{ First Name }}", Some("row[\"First Name\"]")),
            ("{{name}} {{姓名/Name|upper}}", Some("row[\"姓名/Name\"]")),
            ("{{ 2026年 }}", Some("row[\"2026年\"]")),
            ("{{ First Names }} {{ name }}", None),
        ] {
            let help = misnamed(source, columns());
            assert_eq!(help.is_some(), expected.is_some(), "{source}");
            assert!(help.unwrap_or_default().contains(expected.unwrap_or_default()), "{source}");
        }
        assert_eq!((reference("姓名"), reference("a-b")), ("姓名".into(), "row[\"a-b\"]".into()));
    }

    #[test]
    fn signs_of_a_chinese_keyboard_are_known() {
        for (source, expected) in [
            ("（{{ 姓名 | default（\"（客户）\"） }}）", Some("write `(`")),
            ("{% if 状态 == “有效” %}", Some("write `\"`")),
            ("{{ 姓名，", Some("write `,`")),
            ("，{{ \"，\" ~ name }}！{% if x == '（' %}（{% endif %}", None),
            ("{# {{ 姓名，别的 }} #}{%- raw -%}{{ 姓名， }}{% endraw %}{{ x", None),
            ("{# 甲 #}{% raw %}{{ 姓名， }}{% endraw %}{{ 姓名， }}", Some("write `,`")),
            ("{% if a %}x{%- elseif b %}", Some("`elif`")),
            ("{% if a == 'x' && b %}", Some("`and`")),
            ("{{ a ?? 'x' }}", Some("`default`")),
            ("{{ a ? 'x' : 'y' }}", Some("`a if condition else b`")),
            ("Is it? {{ '?' }} {% set x = 1 %} {{ x }", None),
        ] {
            let help = foreign(source);
            assert_eq!(help.is_some(), expected.is_some(), "{source}: {help:?}");
            assert!(help.unwrap_or_default().contains(expected.unwrap_or_default()), "{source}");
        }
    }

    #[test]
    fn signs_of_other_languages_are_known() {
        for (expression, expected) in [
            ("a = 'x'", Some("`==`")),
            ("a == 'x' && b", Some("`and`")),
            ("a <> b", Some("`!=`")),
            ("!a", Some("`not`")),
            ("a == “x”", Some("`“` is a sign")),
            ("a＝'b'", Some("write `=`")),
            ("a >= 1 and b != 2", None),
            ("url == \"http://x?a=b\" and", None),
            ("a == 'x && y' or b == \"!<>||'\" or", None),
            ("a == 'it\\'s =' and", None),
            ("a == \"x=\" and b = 'y'", Some("`==`")),
            ("a == 'x' and b = 'y", Some("`==`")),
        ] {
            let help = operator(expression);
            assert_eq!(help.is_some(), expected.is_some(), "{expression}");
            assert!(help.unwrap_or_default().contains(expected.unwrap_or_default()), "{expression}");
        }
    }
}
