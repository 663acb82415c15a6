//! Patterns of files: read from what the operator wrote and what a row contributed, and compared
//! with one name at a time. Nothing here knows of a file system.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use unicode_width::UnicodeWidthChar;

use crate::letter::Piece;

use super::EnclosureError;

/// The most patterns that braces may stand for: `{a,b}{c,d}…` doubles with each pair.
const MAX_ALTERNATIVES: usize = 256;

/// The longest name of a file on the systems we know (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// A pattern with its braces written out.
#[derive(Debug)]
pub(super) struct Pattern {
    /// As resolved, for messages.
    pub(super) text: String,
    /// One for each choice of the braces, in their order.
    pub(super) alternatives: Vec<Vec<Component>>,
    /// It begins with `/`.
    pub(super) absolute: bool,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Component {
    /// `..`, the operator's.
    Parent,
    /// `**`: this folder and all below it.
    Deep,
    /// A name or a pattern of names.
    Name(Name),
}

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    tokens: Vec<Token>,
    /// A row contributed to it.
    pub(super) has_value: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// The operator's text, in NFC.
    Text(String),
    /// A row's text, in NFC.
    Value(String),
    /// `*`
    Any,
    /// `?`
    One,
    /// `[a-z]`, `[!a-z]`
    Class { not: bool, ranges: Vec<(char, char)> },
}

/// A sign of a pattern with who wrote it.
#[derive(Debug, Clone)]
enum Sign<'a> {
    /// The operator's.
    Own(char),
    /// The operator's behind a backslash: means itself.
    Literal(char),
    Value(&'a str),
}

/// Names in one form: a Mac writes `é` as two characters where everybody else writes one.
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { ComposingNormalizerBorrowed::new_nfc().normalize(text) }
}

impl Pattern {
    pub(super) fn parse(pieces: &[Piece]) -> Result<Pattern, EnclosureError> {
        let text: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Operator(text) | Piece::Value(text) => text.as_str(),
            })
            .collect();
        let wrong = |reason| EnclosureError::Pattern { pattern: text.clone(), reason };
        let mut signs = Vec::with_capacity(text.len());
        for piece in pieces {
            match piece {
                Piece::Value(value) => {
                    let refused = |reason| EnclosureError::Value { pattern: text.clone(), reason };
                    value_fits(value).map_err(refused)?;
                    signs.push(Sign::Value(value));
                }
                Piece::Operator(words) => {
                    let mut chars = words.chars();
                    while let Some(sign) = chars.next() {
                        signs.push(match sign {
                            '\\' => Sign::Literal(
                                chars.next().ok_or_else(|| wrong("it ends in a lone backslash"))?,
                            ),
                            '\0' => return Err(wrong("it holds a NUL byte")),
                            sign => Sign::Own(sign),
                        });
                    }
                }
            }
        }
        let mut flat = Vec::with_capacity(1);
        expand(signs, &mut flat).map_err(wrong)?;
        let absolute = flat.iter().all(|signs| matches!(signs.first(), Some(Sign::Own('/'))));
        let mut alternatives = Vec::with_capacity(flat.len());
        for signs in &flat {
            if !absolute && matches!(signs.first(), Some(Sign::Own('/'))) {
                return Err(wrong("its braces mix paths from the root with others"));
            }
            alternatives.push(components(signs).map_err(|reason| match reason {
                Reason::Pattern(reason) => wrong(reason),
                Reason::Value(reason) => EnclosureError::Value { pattern: text.clone(), reason },
            })?);
        }
        Ok(Pattern { text, alternatives, absolute })
    }
}

impl Name {
    /// `*`
    pub(super) fn any() -> Name {
        Name { tokens: vec![Token::Any], has_value: false }
    }

    /// The one name that is meant, if it is one, as it was written.
    pub(super) fn literal(&self) -> Option<String> {
        let text = self.prefix();
        let whole = self.tokens.iter().all(|token| matches!(token, Token::Text(_) | Token::Value(_)));
        whole.then_some(text)
    }

    /// What every name begins with.
    pub(super) fn prefix(&self) -> String {
        self.tokens.iter().map_while(Token::text).collect()
    }

    /// What every name ends in.
    pub(super) fn suffix(&self) -> String {
        let texts: Vec<&str> = self.tokens.iter().rev().map_while(Token::text).collect();
        texts.into_iter().rev().collect()
    }

    /// Whether a name, in NFC, is of this pattern.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.compare(name, false)
    }

    /// Whether it is, and no wildcard beside a row's value goes on with it: `1*` is not `10.pdf`,
    /// nor `张伟*` `张伟明.pdf`.
    pub(super) fn matches_set_off(&self, name: &str) -> bool {
        self.compare(name, true)
    }

    /// A wildcard takes as little as it can and is lengthened where the rest fails; only the last
    /// one need be, because what stood before it has already matched as early as it can. So the
    /// work is bounded by the product of both lengths.
    fn compare(&self, name: &str, set_off: bool) -> bool {
        let wild_first = self.tokens.first().is_some_and(|token| token.text().is_none());
        if wild_first && name.starts_with('.') {
            return false;
        }
        let (mut token, mut at) = (0, 0);
        let mut last: Option<(usize, usize)> = None;
        loop {
            let went_on = match self.tokens.get(token) {
                None if at == name.len() => return true,
                None => false,
                Some(Token::Any) => {
                    last = Some((token, at));
                    token += 1;
                    continue;
                }
                Some(wanted) => match wanted.take(&name[at..]) {
                    Some(len) if !set_off || self.is_set_off(token, name, at, at + len) => {
                        token += 1;
                        at += len;
                        true
                    }
                    _ => false,
                },
            };
            if went_on {
                continue;
            }
            let Some((star, from)) = last else { return false };
            let Some(next) = name[from..].chars().next() else { return false };
            last = Some((star, from + next.len_utf8()));
            (token, at) = (star + 1, from + next.len_utf8());
        }
    }

    /// Whether the value at `start..end` of the name ends where its wildcards begin.
    fn is_set_off(&self, token: usize, name: &str, start: usize, end: usize) -> bool {
        let Token::Value(_) = &self.tokens[token] else { return true };
        let wild = |token: Option<&Token>| token.is_some_and(|token| token.text().is_none());
        let (first, last) = (name[start..].chars().next(), name[..end].chars().next_back());
        let before =
            name[..start].chars().next_back().filter(|_| token > 0 && wild(self.tokens.get(token - 1)));
        let behind = name[end..].chars().next().filter(|_| wild(self.tokens.get(token + 1)));
        !goes_on(before, first) && !goes_on(last, behind)
    }
}

/// A digit after a digit, a letter after a letter; of ASCII also one after the other: `li2` is not `li`,
/// nor `12b` `12`. But 张伟11月 is 张伟. A sign without a width of its own (a virama, a tone mark, a joiner)
/// belongs to the letters on both sides of it: `विक` is not `विक्रम`.
fn goes_on(one: Option<char>, other: Option<char>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    one.width() == Some(0)
        || other.width() == Some(0)
        || (one.is_numeric() && other.is_numeric())
        || (one.is_alphabetic() && other.is_alphabetic())
        || (one.is_ascii_alphanumeric() && other.is_ascii_alphanumeric())
}

impl Token {
    fn text(&self) -> Option<&str> {
        match self {
            Token::Text(text) | Token::Value(text) => Some(text),
            Token::Any | Token::One | Token::Class { .. } => None,
        }
    }

    /// How much of the text's beginning this token takes.
    fn take(&self, text: &str) -> Option<usize> {
        let one = |fits: &dyn Fn(char) -> bool| text.chars().next().filter(|&c| fits(c)).map(char::len_utf8);
        match self {
            Token::Text(own) | Token::Value(own) => text.starts_with(own.as_str()).then_some(own.len()),
            Token::One => one(&|_| true),
            Token::Class { not, ranges } => {
                one(&|c| ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != *not)
            }
            Token::Any => Some(0),
        }
    }
}

/// What a row may contribute to a path: a name or a stretch of one.
fn value_fits(value: &str) -> Result<(), &'static str> {
    match value.trim() {
        "" => Err("is empty"),
        "." | ".." => Err("is `.` or `..`"),
        _ if value.contains(['/', '\\']) => Err("holds a slash"),
        _ if value.contains(char::is_control) => Err("holds a line break, NUL or another control character"),
        _ if value.len() > MAX_NAME => Err("is longer than any file's name"),
        _ => Ok(()),
    }
}

/// Writes braces out: the first pair is replaced by each of its choices in turn.
fn expand<'a>(signs: Vec<Sign<'a>>, flat: &mut Vec<Vec<Sign<'a>>>) -> Result<(), &'static str> {
    // A stack, not recursion: `{{{{…` is a mistake and not to cost a call each.
    let mut waiting = vec![signs];
    while let Some(signs) = waiting.pop() {
        let Some(open) = first_brace(&signs) else {
            flat.push(signs);
            if flat.len() > MAX_ALTERNATIVES {
                return Err("its braces stand for too many patterns");
            }
            continue;
        };
        let (mut depth, mut start, mut choices, mut close) = (0, open + 1, Vec::new(), None);
        let mut class = false;
        for (at, sign) in signs.iter().enumerate().skip(open) {
            match sign {
                Sign::Own('[') => class = true,
                Sign::Own(']') => class = false,
                _ if class => {}
                Sign::Own('{') => depth += 1,
                Sign::Own(',') if depth == 1 => {
                    choices.push(start..at);
                    start = at + 1;
                }
                Sign::Own('}') => {
                    depth -= 1;
                    if depth == 0 {
                        choices.push(start..at);
                        close = Some(at);
                        break;
                    }
                }
                _ => {}
            }
        }
        let close = close.ok_or("a `{` is never closed")?;
        if waiting.len() + choices.len() > MAX_ALTERNATIVES {
            return Err("its braces stand for too many patterns");
        }
        for choice in choices.into_iter().rev() {
            waiting.push([&signs[..open], &signs[choice], &signs[close + 1..]].concat());
        }
    }
    Ok(())
}

/// The first brace that is not in a class.
fn first_brace(signs: &[Sign<'_>]) -> Option<usize> {
    let mut class = false;
    signs.iter().position(|sign| {
        match sign {
            Sign::Own('[') => class = true,
            Sign::Own(']') => class = false,
            _ => {}
        }
        !class && matches!(sign, Sign::Own('{'))
    })
}

enum Reason {
    Pattern(&'static str),
    Value(&'static str),
}

fn components(signs: &[Sign<'_>]) -> Result<Vec<Component>, Reason> {
    let mut components = Vec::new();
    for part in signs.split(|sign| matches!(sign, Sign::Own('/'))) {
        match part {
            [] | [Sign::Own('.')] => {}
            [Sign::Own('.'), Sign::Own('.')] => components.push(Component::Parent),
            [Sign::Own('*'), Sign::Own('*')] => {
                if components.last() != Some(&Component::Deep) {
                    components.push(Component::Deep);
                }
            }
            part => components.push(Component::Name(name(part)?)),
        }
    }
    match components.last() {
        None => Err(Reason::Pattern("it is empty")),
        Some(Component::Parent) => Err(Reason::Pattern("it names a folder, not a file")),
        Some(_) if matches!(signs.last(), Some(Sign::Own('/'))) => {
            Err(Reason::Pattern("it ends in a slash, which names a folder"))
        }
        Some(Component::Deep) => {
            components.push(Component::Name(Name::any()));
            Ok(components)
        }
        Some(Component::Name(_)) => Ok(components),
    }
}

fn name(part: &[Sign<'_>]) -> Result<Name, Reason> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = part;
    while let Some((sign, after)) = rest.split_first() {
        rest = after;
        match sign {
            Sign::Value(value) => tokens.push(Token::Value(nfc(value).into_owned())),
            Sign::Own('*') => {
                if tokens.last() != Some(&Token::Any) {
                    tokens.push(Token::Any);
                }
            }
            Sign::Own('?') => tokens.push(Token::One),
            Sign::Own('[') => {
                let (class, after) = class(rest)?;
                tokens.push(class);
                rest = after;
            }
            Sign::Own(c) | Sign::Literal(c) => match tokens.last_mut() {
                Some(Token::Text(text)) => text.push(*c),
                _ => tokens.push(Token::Text(c.to_string())),
            },
        }
    }
    for token in &mut tokens {
        if let Token::Text(text) = token
            && !text.is_ascii()
        {
            *text = nfc(text).into_owned();
        }
    }
    let has_value = tokens.iter().any(|token| matches!(token, Token::Value(_)));
    let name = Name { tokens, has_value };
    match name.literal().as_deref() {
        // `.{{ id }}` with `.`, or two values of one point each.
        Some("." | "..") if has_value => Err(Reason::Value("makes `.` or `..`")),
        Some("." | "..") => Err(Reason::Pattern("it names a folder, not a file")),
        Some(text) if text.contains('/') => Err(Reason::Pattern("a slash cannot stand behind a backslash")),
        _ => Ok(name),
    }
}

/// The rest of `[…]`; what stands behind it.
fn class<'s, 'a>(signs: &'s [Sign<'a>]) -> Result<(Token, &'s [Sign<'a>]), Reason> {
    let not = matches!(signs.first(), Some(Sign::Own('!' | '^')));
    let mut at = usize::from(not);
    let mut ranges = Vec::new();
    let own = |at: usize| match signs.get(at) {
        Some(Sign::Own(c) | Sign::Literal(c)) => Ok(*c),
        Some(Sign::Value(_)) => Err(Reason::Pattern("a value cannot stand within `[ ]`")),
        None => Err(Reason::Pattern("a `[` is never closed")),
    };
    loop {
        // A `]` that comes first means itself.
        if matches!(signs.get(at), Some(Sign::Own(']'))) && !ranges.is_empty() {
            return Ok((Token::Class { not, ranges }, &signs[at + 1..]));
        }
        let low = own(at)?;
        let range = matches!(signs.get(at + 1), Some(Sign::Own('-')))
            && !matches!(signs.get(at + 2), None | Some(Sign::Own(']')));
        let high = if range { own(at + 2)? } else { low };
        if low > high {
            return Err(Reason::Pattern("a range in `[ ]` runs backwards"));
        }
        ranges.push((low, high));
        at += if range { 3 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `‹…›` is what a row contributed.
    pub(in crate::enclosures) fn pieces(text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (n, part) in text.split(['‹', '›']).enumerate() {
            match n % 2 {
                0 if part.is_empty() => {}
                0 => pieces.push(Piece::Operator(part.to_owned())),
                _ => pieces.push(Piece::Value(part.to_owned())),
            }
        }
        pieces
    }

    #[test]
    fn names_are_compared() {
        for (pattern, name, expected) in [
            ("*", "a.pdf", true),
            ("*", ".hidden", false),
            ("?idden", ".idden", false),
            ("[.]x", ".x", false),
            (".*", ".hidden", true),
            ("*.pdf", "a.pdf", true),
            ("*.pdf", "a.pdf.zip", false),
            ("*.pdf", "A.PDF", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("?.pdf", "é.pdf", true),
            ("?.pdf", "ab.pdf", false),
            ("[a-c]1", "b1", true),
            ("[a-c]1", "d1", false),
            ("[!a-c]1", "d1", true),
            ("[^a-c]1", "a1", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[一-龥]*", "张伟", true),
            ("{a,b}.pdf", "b.pdf", true),
            ("{a,b}.pdf", "c.pdf", false),
            ("{a,b{1,2}}", "b2", true),
            ("x{,y}", "x", true),
            ("x{y}", "xy", true),
            ("[{,}]", ",", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\{a,b\\}", "{a,b}", true),
            ("a**b", "axb", true),
            ("‹*›.pdf", "a.pdf", false),
            ("‹*›.pdf", "*.pdf", true),
            ("‹?›", "a", false),
            ("‹[a-z]›", "b", false),
            ("‹[a-z]›", "[a-z]", true),
            ("‹{a,b}›", "a", false),
            ("{‹a,b›,c}", "a,b", true),
            ("{‹a,b›,c}", "b", false),
            ("Caf\u{e9}*", "Café.pdf", true),
            ("Cafe\u{301}*", "Café.pdf", true),
            ("‹Cafe\u{301}›", "Café", true),
        ] {
            let parsed = Pattern::parse(&pieces(pattern)).expect(pattern);
            let matches = parsed.alternatives.iter().any(|components| match &components[..] {
                [Component::Name(own)] => own.matches(&nfc(name)),
                other => panic!("{other:?}"),
            });
            assert_eq!(matches, expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_value_ends_where_its_wildcards_begin() {
        for (pattern, name, expected) in [
            ("‹1›*", "1.pdf", true),
            ("‹1›*", "1-10.pdf", true),
            ("‹1›*", "1a.pdf", false),
            ("‹1›{a,b}.pdf", "1a.pdf", true),
            ("‹li›*", "li2.pdf", false),
            ("*‹1›.pdf", "a1.pdf", false),
            ("‹1›*", "10.pdf", false),
            ("*‹1›.pdf", "21.pdf", false),
            ("*‹1›.pdf", "2-1.pdf", true),
            ("*‹1›*", "10-1.pdf", true),
            ("*‹1›*", "10-11.pdf", false),
            ("‹1›?.pdf", "10.pdf", false),
            ("‹1›[0-9].pdf", "10.pdf", false),
            ("‹1›0*.pdf", "10.pdf", true),
            ("‹ann›*", "anna.pdf", false),
            ("‹ann›*", "ann_a.pdf", true),
            ("‹张伟›*", "张伟明.pdf", false),
            ("‹张伟›*", "张伟-11月.pdf", true),
            ("‹张伟›*", "张伟11月.pdf", true),
            ("‹1›*", "1号.pdf", true),
            ("‹विक›*", "विक्रम.pdf", false),
            ("*‹रम›.pdf", "विक्रम.pdf", false),
            ("‹विक›*", "विक-1.pdf", true),
            ("‹ก›*", "ก่อน.pdf", false),
            ("‹q›*", "q\u{303}.pdf", false),
        ] {
            let parsed = Pattern::parse(&pieces(pattern)).expect(pattern);
            let [Component::Name(own)] = &parsed.alternatives[0][..] else { panic!("{parsed:?}") };
            assert!(own.matches(name), "{pattern} {name}");
            assert_eq!(own.matches_set_off(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (pattern, expected) in [
            ("", "it is empty"),
            ("/", "it is empty"),
            ("a/", "ends in a slash"),
            ("a/..", "names a folder"),
            ("{a,b", "`{` is never closed"),
            ("[a", "`[` is never closed"),
            ("[z-a]", "runs backwards"),
            ("[‹a›]", "within `[ ]`"),
            ("a\\", "lone backslash"),
            ("a\\/b", "behind a backslash"),
            ("{/a,b}", "mix paths"),
            ("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "too many patterns"),
            ("r/‹›.pdf", "is empty"),
            ("r/‹ ›.pdf", "is empty"),
            ("r/‹.›", "`.` or `..`"),
            ("r/‹..›/x", "`.` or `..`"),
            ("r/.‹.›/x", "`.` or `..`"),
            ("r/‹/etc›", "holds a slash"),
            ("r/‹..\\x›", "holds a slash"),
            ("r/‹a\0›", "control character"),
            ("r/‹a\nb›", "control character"),
        ] {
            let error = Pattern::parse(&pieces(pattern)).expect_err(pattern).to_string();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
        let two = [Piece::Value("a".into()), Piece::Operator("/.".into()), Piece::Value("x".repeat(300))];
        assert!(Pattern::parse(&two).expect_err("too long").to_string().contains("longer than"));
    }

    proptest! {
        #[test]
        fn a_value_is_always_literal(value in "[a-z*?\\[\\]{},!^. -]{1,12}", name in "[a-z*?\\[\\]{},!^. -]{1,12}") {
            if let Ok(parsed) = Pattern::parse(&[Piece::Value(value.clone())]) {
                let [Component::Name(own)] = &parsed.alternatives[0][..] else { panic!("{parsed:?}") };
                prop_assert!(own.matches(&value));
                prop_assert_eq!(own.matches(&name), name == value);
            }
        }

        #[test]
        fn wildcards_agree_with_globset(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let glob = globset::GlobBuilder::new(&pattern).literal_separator(true).build();
            if let (Ok(parsed), Ok(glob)) = (Pattern::parse(&[Piece::Operator(pattern.clone())]), glob)
                && let [Component::Name(own)] = &parsed.alternatives[0][..]
            {
                prop_assert_eq!(own.matches(&name), glob.compile_matcher().is_match(&name), "{}", pattern);
            }
        }

        #[test]
        fn no_words_are_a_panic(
            words in proptest::collection::vec(("[\\[\\]{},!^*?/.\\\\a-c张-]{0,10}", "\\PC{0,6}", any::<bool>()), 0..6),
            name in "\\PC{0,10}",
        ) {
            let pieces: Vec<Piece> = words.into_iter().flat_map(|(operator, value, reversed)| {
                let pair = [Piece::Operator(operator), Piece::Value(value)];
                if reversed { pair.into_iter().rev().collect::<Vec<_>>() } else { pair.to_vec() }
            }).collect();
            if let Ok(parsed) = Pattern::parse(&pieces) {
                for component in parsed.alternatives.iter().flatten() {
                    if let Component::Name(own) = component {
                        let plain = own.matches(&name);
                        prop_assert!(plain || !own.matches_set_off(&name));
                        let _ = (own.prefix(), own.suffix());
                    }
                }
            }
        }
    }
}
