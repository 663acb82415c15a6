//! Reading a tree field by field. A [`Value`] that is asked for what it is not says so, with its
//! place, and the reading goes on: so all mistakes of a file are found at once.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Level, Place};
use crate::exit::Exit;
use crate::measure::{self, Rate};

use super::Text;
use super::tree::{Content, Document, Key, Node};

/// Nobody waits longer, and every clock reaches as far.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What all values of one reading share: where paths start and what was found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Where relative paths start.
    pub(super) root: PathBuf,
    /// What `~/` at the beginning of a path stands for.
    home: Option<PathBuf>,
    found: RefCell<Vec<Diagnostic>>,
    /// Files that are not there, for whoever carries the job out.
    absent: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
}

impl Reading {
    pub(super) fn new(root: PathBuf, home: Option<PathBuf>) -> Reading {
        Reading { root, home, ..Reading::default() }
    }

    /// A path as it is meant: from the root, or from the home folder.
    pub(super) fn resolve(&self, words: &str) -> PathBuf {
        self.below_home(words).map_or_else(|| self.root.join(words), |(home, below)| home.join(below))
    }

    /// The home folder, and what stands behind the `~/` that means it.
    fn below_home<'w>(&self, words: &'w str) -> Option<(&Path, &'w str)> {
        Some((self.home.as_deref()?, words.strip_prefix("~/")?))
    }

    /// A path that is looked for from the root, with the home folder in place of its `~`.
    pub(super) fn at_home(&self, text: Text) -> Text {
        self.with_home(text, str::to_owned)
    }

    /// The same of a pattern of paths: no sign of that folder is one of the pattern.
    pub(super) fn pattern_at_home(&self, text: Text) -> Text {
        self.with_home(text, |home| {
            let escape = |sign| Text::PATTERN_SIGNS.contains(&sign).then_some('\\');
            home.chars().flat_map(|sign| escape(sign).into_iter().chain([sign])).collect()
        })
    }

    fn with_home(&self, text: Text, as_words: impl FnOnce(&str) -> String) -> Text {
        let Some((home, below)) = self.below_home(&text.value) else { return text };
        let Some(home) = home.to_str() else { return text };
        let value = format!("{}/{below}", as_words(home));
        Text { value, with_tilde: Some(text.value), place: text.place }
    }

    /// Takes down a mistake or a warning.
    pub(super) fn note(&self, diagnostic: Diagnostic) {
        if diagnostic.level == Level::Error {
            self.errors.set(self.errors.get() + 1);
        }
        self.found.borrow_mut().push(diagnostic);
    }

    /// Takes the files down that were not there so far.
    pub(super) fn take_absent(&self) -> Vec<Diagnostic> {
        let mut absent = self.absent.take();
        absent.dedup_by(|a, b| a.title == b.title);
        absent
    }

    /// How many mistakes there are so far.
    pub(super) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// All that was found, in the order of the files and of the places in them.
    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|one| {
            let place = one.place.as_ref();
            let at = place.map(|place| (place.file.clone(), place.span.start));
            (one.level == Level::Warning, at, one.title.clone())
        });
        // A shared relay that a job names is read twice.
        found.dedup_by(|a, b| {
            let at =
                |one: &Diagnostic| one.place.as_ref().map(|place| (place.file.clone(), place.span.clone()));
            a.title == b.title && at(a).is_some() && at(a) == at(b)
        });
        found
    }
}

/// A value, the key it has, and the file they stand in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'d> {
    pub(super) reading: &'d Reading,
    pub(super) document: &'d Document,
    pub(super) key: Option<&'d Key>,
    pub(super) node: &'d Node,
}

impl<'d> Value<'d> {
    /// The whole of a document.
    pub(super) fn of(reading: &'d Reading, document: &'d Document) -> Value<'d> {
        Value { reading, document, key: None, node: &document.root }
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &'d str {
        self.key.map_or("this file", |key| &key.text)
    }

    /// Where it stands: a value of several lines is shown by its key.
    pub(super) fn place(&self) -> Place {
        let span = &self.node.span;
        let source = &self.document.source;
        let shown = match self.key {
            Some(key) if span.is_empty() || source[span.clone()].contains('\n') => key.span.clone(),
            _ => {
                let line = source[span.clone()].lines().next().map_or(0, str::len);
                span.start..span.start + line
            }
        };
        self.document.place(shown)
    }

    /// Says what is wrong with it.
    pub(super) fn wrong<T>(&self, mistake: Diagnostic) -> Option<T> {
        self.reading.note(mistake.at(self.place()));
        None
    }

    /// Something else was expected.
    fn expected<T>(&self, what: &str, example: &str) -> Option<T> {
        let name = self.name();
        let mistake = match &self.node.content {
            // It has been complained about.
            Content::Broken => return None,
            Content::Null => Diagnostic::error(format!("`{name}` has no value"))
                .label(format!("here belongs {what}"))
                .help(format!("write {what}, or take the line out; empty text is \"\"")),
            _ => Diagnostic::error(format!("`{name}` takes {what}, not {}", self.node.kind()))
                .label(format!("expected {what}")),
        };
        let mistake = match (example, &mistake.help) {
            ("", _) | (_, Some(_)) => mistake,
            _ => mistake.help(format!("for example `{example}`")),
        };
        self.wrong(mistake)
    }

    /// Text. A number or truth value is none: `1.10` would become `1.1`.
    pub(super) fn text(&self) -> Option<Text> {
        match &self.node.content {
            Content::Text(value) => Some(Text { place: Some(self.place()), ..Text::new(value.as_str()) }),
            Content::Bool(_) | Content::Int(_) | Content::Float(_) => {
                let words = &self.document.source[self.node.span.clone()];
                let kind = self.node.kind();
                self.wrong(
                    Diagnostic::error(format!("`{}` takes text, and {words} is {kind} in YAML", self.name()))
                        .label("put it in quotes")
                        .help(format!("write \"{words}\"")),
                )
            }
            _ => self.expected("text", ""),
        }
    }

    /// Text of one line that is not empty.
    pub(super) fn line(&self) -> Option<Text> {
        let text = self.text()?;
        let mistake = if text.value.trim().is_empty() {
            format!("`{}` is empty", self.name())
        } else if text.value.trim_end_matches(['\n', '\r']).contains(char::is_control) {
            format!("`{}` holds a line break or another control character", self.name())
        } else {
            let value = text.value.trim().to_owned();
            return Some(Text { value, ..text });
        };
        self.wrong(Diagnostic::error(mistake).label("one line of text belongs here"))
    }

    /// The same as words alone.
    pub(super) fn words(&self) -> Option<String> {
        self.line().map(|text| text.value)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.node.content {
            Content::Bool(value) => Some(*value),
            Content::Text(word) if matches!(&*word.to_lowercase(), "yes" | "no" | "on" | "off") => {
                self.wrong(Diagnostic::error(format!("`{}` takes `true` or `false`", self.name())))
            }
            _ => self.expected("`true` or `false`", ""),
        }
    }

    /// A whole number within limits.
    pub(super) fn count(&self, limits: RangeInclusive<u64>) -> Option<u64> {
        let Content::Int(value) = &self.node.content else { return self.expected("a whole number", "") };
        match u64::try_from(*value).ok().filter(|value| limits.contains(value)) {
            Some(value) => Some(value),
            None => {
                let (least, most) = limits.into_inner();
                let words = match most {
                    u64::MAX => format!("{least} or more"),
                    _ => format!("from {least} to {most}"),
                };
                self.wrong(Diagnostic::error(format!("`{}` is {words}", self.name())).label("not within it"))
            }
        }
    }

    /// A number with or without a fraction.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.node.content {
            Content::Int(value) => Some(*value as f64),
            Content::Float(value) if value.is_finite() => Some(*value),
            _ => self.expected("a number", ""),
        }
    }

    /// `20%`: a fraction from 0 to 1.
    pub(super) fn fraction(&self) -> Option<f64> {
        let Content::Text(words) = &self.node.content else { return self.expected("a percentage", "20%") };
        match percentage(words) {
            Some(fraction) => Some(fraction),
            None => self.wrong(
                Diagnostic::error(format!("`{}` is not a percentage from 0% to 100%", words))
                    .help("for example `20%`"),
            ),
        }
    }

    /// `15m`
    pub(super) fn duration(&self) -> Option<Duration> {
        let what = "a duration with its unit";
        let Content::Text(words) = &self.node.content else { return self.expected(what, "15m") };
        match measure::duration(words) {
            Some(duration) if duration > LONGEST => {
                self.wrong(Diagnostic::error(format!("`{words}` is longer than 100 years")))
            }
            Some(duration) => Some(duration),
            None => self.wrong(
                Diagnostic::error(format!("`{words}` is not a duration"))
                    .help("a number and ms, s, m, h, d, w or y: `30s`, `15m`, `24h`, `30d`"),
            ),
        }
    }

    /// `14/s`
    pub(super) fn rate(&self) -> Option<Rate> {
        let Content::Text(words) = &self.node.content else { return self.expected("a rate", "14/s") };
        match Rate::parse(words) {
            Some(rate) => Some(rate),
            None => self.wrong(
                Diagnostic::error(format!("`{words}` is not a rate"))
                    .help("a number by s, m, h or day: `14/s`, `100/m`, `20000/day`"),
            ),
        }
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let Content::Text(given) = &self.node.content else {
            return self.expected(&format!("one of {}", listed(&names)), "");
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == given) {
            return Some(*value);
        }
        let mistake = Diagnostic::error(format!("`{}` cannot be `{given}`", self.name()));
        self.wrong(match nearest(given, &names) {
            Some(word) => mistake
                .label(format!("did you mean `{word}`?"))
                .help(format!("it is one of {}", listed(&names))),
            None => mistake.help(format!("it is one of {}", listed(&names))),
        })
    }

    /// A path, from the root.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let words = self.words()?;
        if words.contains("{{") || words.contains("{%") {
            return self.wrong(Diagnostic::error(format!("`{}` is a path, not a template", self.name())));
        }
        Some(self.reading.resolve(&words))
    }

    /// The path of a file that whoever carries the job out opens. One that is not there is no mistake of the job file:
    /// a report needs no password, a trial no relay.
    pub(super) fn input(&self) -> Option<PathBuf> {
        let path = self.path()?;
        if let Err(error) = std::fs::metadata(&path)
            && error.kind() == std::io::ErrorKind::NotFound
        {
            let absent = Diagnostic::error(format!("`{}`: there is no file {}", self.name(), path.display()))
                .at(self.place())
                .help(
                    "paths start at the folder of `postroom.yaml`, or at that of the job where there is none",
                )
                .ending(Exit::NoInput);
            self.reading.absent.borrow_mut().push(absent);
        }
        Some(path)
    }

    /// The items of a list; anything else is a list of one.
    pub(super) fn one_or_more(&self) -> Vec<Value<'d>> {
        match &self.node.content {
            Content::List(items) => items.iter().map(|node| Value { node, ..*self }).collect(),
            Content::Broken => Vec::new(),
            _ => vec![*self],
        }
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Option<Vec<Value<'d>>> {
        match &self.node.content {
            Content::List(_) => Some(self.one_or_more()),
            _ => self.expected("a list", ""),
        }
    }

    /// The entries of a mapping whose keys are the user's own.
    pub(super) fn entries(&self) -> Option<Vec<(&'d Key, Value<'d>)>> {
        match &self.node.content {
            Content::Map(entries) => Some(
                entries.iter().map(|(key, node)| (key, Value { key: Some(key), node, ..*self })).collect(),
            ),
            _ => self.expected("a mapping", ""),
        }
    }

    /// A mapping whose keys are ours: others are mistakes.
    pub(super) fn section(self, schema: &'static Keys) -> Option<Section<'d>> {
        let Content::Map(entries) = &self.node.content else {
            return self.expected(&format!("a mapping ({})", schema.known.join(", ")), "");
        };
        for (key, _) in entries {
            if !schema.known.contains(&&*key.text) {
                self.reading.note(unknown(&key.text, schema).at(self.document.place(key.span.clone())));
            }
        }
        Some(Section { value: self, entries, schema, below: None })
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.content, Content::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.content, Content::List(_))
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.node.content, Content::Broken)
    }

    /// The text as it stands, if it is text.
    pub(super) fn as_text(&self) -> Option<&'d str> {
        match &self.node.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The keys that a mapping may have.
#[derive(Debug)]
pub(super) struct Keys {
    /// Where it stands, for "belongs under …".
    pub(super) under: &'static str,
    /// The keys.
    pub(super) known: &'static [&'static str],
}

/// A mapping whose keys are ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'d> {
    /// The mapping as a value.
    pub(super) value: Value<'d>,
    entries: &'d [(Key, Node)],
    schema: &'static Keys,
    /// The values that hold where this one is silent.
    below: Option<&'d Section<'d>>,
}

impl<'d> Section<'d> {
    /// The same, over another that speaks where it is silent.
    pub(super) fn over(self, below: Option<&'d Section<'d>>) -> Section<'d> {
        Section { below, ..self }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'d>> {
        self.own(key).or_else(|| {
            let below = self.below.filter(|below| below.schema.known.contains(&key));
            below.and_then(|below| below.own(key))
        })
    }

    /// The value of a key in this very mapping.
    pub(super) fn own(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(self.schema.known.contains(&key), "`{key}` is read but not known");
        let (key, node) = self.entries.iter().find(|(known, _)| known.text == key)?;
        Some(Value { key: Some(key), node, ..self.value })
    }

    /// The value of a key in the mapping below.
    pub(super) fn inherited(&self, key: &'static str) -> Option<Value<'d>> {
        self.below.and_then(|below| below.own(key))
    }

    /// Whether a key that is not known has been complained about.
    pub(super) fn has_unknown(&self) -> bool {
        self.entries.iter().any(|(key, _)| !self.schema.known.contains(&&*key.text))
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &'static str) -> Option<Value<'d>> {
        self.get(key).or_else(|| self.missing(key, ""))
    }

    /// Says that a key is missing.
    pub(super) fn missing<T>(&self, key: &str, help: &str) -> Option<T> {
        // It is there and misspelt: that has been said.
        let near = |given: &str| nearest(given, self.schema.known) == Some(key);
        if self
            .entries
            .iter()
            .any(|(given, _)| !self.schema.known.contains(&&*given.text) && near(&given.text))
        {
            return None;
        }
        let place = match self.value.key {
            Some(key) => self.value.document.place(key.span.clone()),
            // Of a whole file the first key is shown.
            None => {
                let first = self.entries.first().map_or(0..0, |(key, _)| key.span.clone());
                self.value.document.place(first)
            }
        };
        let mistake = Diagnostic::error(format!("the key `{key}` is missing"))
            .at(place)
            .label(format!("`{}` needs `{key}`", self.schema.under));
        self.value.reading.note(if help.is_empty() { mistake } else { mistake.help(help) });
        None
    }
}

/// What is said of a key that is not known.
fn unknown(key: &str, schema: &Keys) -> Diagnostic {
    let mistake = Diagnostic::error(format!("`{key}` is not a key of `{}`", schema.under));
    // To YAML any other blank is a letter.
    if key.starts_with(char::is_whitespace) {
        return mistake
            .label("begins with a blank that is no space")
            .help("YAML is indented with plain spaces, not with full-width or non-breaking ones");
    }
    if let Some(near) = nearest(key, schema.known) {
        return mistake.label(format!("did you mean `{near}`?"));
    }
    if matches!(key, "server" | "hostname" | "address") && schema.known.contains(&"host") {
        return mistake.label("not known here").help("the server's name is `host`");
    }
    if let Some((_, advice)) = ADVICE.iter().find(|(word, _)| *word == key.to_lowercase()) {
        return mistake.label("not known here").help(*advice);
    }
    let mut elsewhere =
        super::lower::ALL.iter().filter(|keys| keys.known.contains(&key)).map(|keys| keys.under);
    match elsewhere.next() {
        Some(place) => mistake.label(format!("it belongs under `{place}`")),
        None => mistake.label("not known here").help(format!("known are {}", listed(schema.known))),
    }
}

/// Words of other programs, and what we call it.
const ADVICE: &[(&str, &str)] = &[
    ("cron", "a job runs when it is called: call `postroom run` from cron or a timer"),
    ("schedule", "a job runs when it is called: call `postroom run` from cron or a timer"),
    ("template", "the letter's text is `body: {html: FILE, text: FILE}`"),
    ("html", "the letter's text is `body: {html: FILE, text: FILE}`"),
    ("text", "the letter's text is `body: {html: FILE, text: FILE}`"),
    ("smtp", "the server is called `relay`"),
    ("server", "the server is called `relay` in a sending job and `mailbox` in an archiving one"),
    ("sender", "the address of the envelope is `return_path`; the author is `from`"),
    ("username", "the login name is `user`"),
    ("login", "the login name is `user`"),
    ("pass", "the password is `password`"),
    ("passwordeval", "it is `auth: {user: …, password: {command: [program, argument]}}`"),
    ("maildir", "the folder is `store`; `layout: maildir` says how the files lie in it"),
    ("ssl", "it is `tls: implicit` or `tls: starttls`"),
    ("secure", "it is `tls: implicit` or `tls: starttls`"),
    ("dkim_key", "it is `dkim: {domain: …, selector: …, key: {file: …}}`"),
];

/// The word that was probably meant: one slip for every three letters, a swap counted as one.
pub(super) fn nearest<'w>(given: &str, words: &[&'w str]) -> Option<&'w str> {
    let given = given.to_lowercase().replace('-', "_");
    let slips = (given.chars().count() / 3).clamp(1, 3);
    words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&given, word), *word))
        .filter(|&(distance, word)| distance <= slips && distance < word.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
        .or_else(|| {
            // `integer` for `int`, `attach` for `attachments`.
            let begins = |word: &str| {
                word.len().min(given.len()) >= 3 && (given.starts_with(word) || word.starts_with(&*given))
            };
            words.iter().find(|word| begins(word)).copied()
        })
}

/// `a`, `b`, `c`
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// `20%` as 0.2.
pub(super) fn percentage(words: &str) -> Option<f64> {
    let number: f64 = words.trim().strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}
