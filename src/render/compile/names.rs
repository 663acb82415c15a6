//! Whether what a template asks for is there: columns, vars, filters, tests.

use std::collections::HashSet;
use std::ops::Range;

use crate::diagnostic::{Diagnostic, Place};
use crate::job::{ColumnKind, SourceSpec, Text};
use crate::render::scan::{Compared, Scan};
use crate::render::{engine, filters, meant};

use super::files::Loaded;
use super::places::{narrowed, within};
use super::{Compiler, Sees};

/// Names that are there besides columns and vars.
pub(super) const GLOBALS: [&str; 6] = ["now", "row", "range", "dict", "namespace", "cycler"];

/// Filters of the engine, for "did you mean".
const FILTERS: [&str; 38] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
];

/// A template by what it asks for.
#[derive(Clone, Copy)]
struct Asking<'a> {
    /// What it is called in a mistake.
    subject: &'a str,
    scan: &'a Scan,
    sees: Sees,
    /// Names that a template of its family sets.
    assigned: &'a HashSet<String>,
    /// Where a place in it is.
    spot: &'a dyn Fn(Range<usize>) -> Option<Place>,
}

impl Compiler<'_> {
    pub(super) fn check_file(&mut self, loaded: &Loaded, assigned: &HashSet<String>) {
        let shown = self.shown(&loaded.path);
        let source = loaded.source.clone();
        let spot = |span: Range<usize>| Some(Place { file: shown.clone(), source: source.clone(), span });
        let subject = format!("template `{}`", loaded.name);
        let scan = &loaded.scan;
        self.check(&Asking { subject: &subject, scan, sees: Sees::Row, assigned, spot: &spot });
        self.warn_unfilled(&subject, &loaded.source, spot);
    }

    pub(super) fn check_job_text(&mut self, key: &str, text: &Text, scan: &Scan, sees: Sees) -> bool {
        let spot = |span: Range<usize>| narrowed(text, span);
        let (subject, assigned) = (format!("`{key}`"), HashSet::new());
        self.check(&Asking { subject: &subject, scan, sees, assigned: &assigned, spot: &spot })
    }

    /// Text is true whatever it says: a column of text as a truth value is a mistake, seen here if
    /// the list's cells are known to be text.
    pub(super) fn check_truths(&mut self, key: &str, text: &Text, scan: &Scan) -> bool {
        let before = self.mistakes.len();
        for (name, span) in &scan.truths {
            if self.is_text(name) {
                self.mistakes.push(
                    within(
                        Diagnostic::error(format!(
                            "`{key}` takes `{name}` for true or false, but the column is text"
                        )),
                        text,
                        span.clone(),
                    )
                    .label("text is true whatever it says, \"no\" too")
                    .help(format!(
                        "say what the column is, `columns: {{{name}: bool}}`, or compare it: `{name} == \"yes\"`"
                    )),
                );
            }
        }
        self.mistakes.len() == before
    }

    /// Whether a name is a column whose cells are known to be text.
    fn is_text(&self, name: &str) -> bool {
        let list = &self.job.recipients;
        let format = match &list.source {
            SourceSpec::File { format: Some(format), .. } | SourceSpec::Stdin { format: Some(format) } => {
                format.to_lowercase()
            }
            SourceSpec::File { path, .. } => {
                path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
            }
            _ => String::new(),
        };
        let kind = list.columns.get(name).map(|(kind, _)| *kind);
        matches!(format.as_str(), "csv" | "tsv")
            && matches!(kind, None | Some(ColumnKind::Text))
            && self.names.columns().iter().any(|column| column == name)
    }

    /// True if nothing is wrong.
    fn check(&mut self, of: &Asking<'_>) -> bool {
        let before = self.mistakes.len();
        self.check_names(of);
        if of.sees == Sees::Row {
            self.check_compared(of);
        }
        self.check_called(of);
        self.mistakes.len() == before
    }

    /// Names, and those behind `row`: each that is not there is told once.
    fn check_names(&mut self, of: &Asking<'_>) {
        let Asking { subject, scan, sees, assigned, spot } = *of;
        let mut told = HashSet::new();
        for (name, span) in &scan.names {
            let special = GLOBALS.contains(&name.as_str());
            self.whole_row |= name == "row" && !self.names.has(name);
            self.asked.insert(name.clone());
            let known = match sees {
                Sees::Row => self.names.has(name) || !self.names.knows_columns(),
                Sees::VarsOnly => self.names.var(name).is_some(),
            };
            if known || special && (sees == Sees::Row || name != "row") || assigned.contains(name) {
                continue;
            }
            if !told.insert(name) {
                continue;
            }
            let mistake = self.unknown_name(subject, name, sees);
            self.mistakes.push(mistake.at_maybe(spot(span.clone())));
        }
        self.asked.extend(scan.asked.iter().cloned());
        for (name, span) in &scan.of_row {
            // A column may be called `row` itself.
            let known =
                !self.names.knows_columns() || self.names.has("row") || self.names.columns().contains(name);
            if known || sees != Sees::Row || !told.insert(name) {
                continue;
            }
            let mistake = self.unknown_name(subject, name, sees);
            let narrow = self.narrow(spot(span.clone()), name);
            self.mistakes.push(mistake.at_maybe(narrow));
        }
    }

    /// Text is no number: in an order it stands behind all of them, and it equals none.
    fn check_compared(&mut self, of: &Asking<'_>) {
        let Asking { subject, scan, assigned, spot, .. } = *of;
        for ((name, span), with) in &scan.compared {
            if assigned.contains(name) || !self.is_text(name) {
                continue;
            }
            let (what, kind) = match with {
                Compared::Number => ("a number", "number"),
                Compared::Truth => ("a truth value", "bool"),
            };
            self.mistakes.push(
                Diagnostic::error(format!("{subject} compares `{name}` with {what}, but the column is text"))
                    .label(format!("text is never {what}, whatever it says"))
                    .help(format!("say what the column is, `columns: {{{name}: {kind}}}`"))
                    .at_maybe(spot(span.clone())),
            );
        }
    }

    /// Filters and tests that do not exist, each told once.
    fn check_called(&mut self, of: &Asking<'_>) {
        let Asking { subject, scan, spot, .. } = *of;
        let mut told = HashSet::new();
        for (name, span) in &scan.filters {
            if engine::has_filter(&self.engine.text, name) || !told.insert(name) {
                continue;
            }
            let title = format!("{subject} uses the filter `{name}`, which does not exist");
            let near = filters::called_here(name)
                .or_else(|| nearest(name, filters::OURS.into_iter().chain(FILTERS)));
            let mistake =
                Diagnostic::error(title).help_maybe(near.map(|near| format!("did you mean `{near}`?")));
            let narrow = self.narrow(spot(span.clone()), name);
            self.mistakes.push(mistake.at_maybe(narrow));
        }
        let mut told = HashSet::new();
        for (name, span) in &scan.tests {
            if engine::has_test(&self.engine.text, name) || !told.insert(name) {
                continue;
            }
            let title = format!("{subject} uses the test `is {name}`, which does not exist");
            let narrow = self.narrow(spot(span.clone()), name);
            self.mistakes.push(Diagnostic::error(title).at_maybe(narrow));
        }
    }

    /// A place moved to a word in it.
    fn narrow(&self, place: Option<Place>, word: &str) -> Option<Place> {
        let mut place = place?;
        if let Some(words) = place.source.get(place.span.clone())
            && let Some(at) = words.rfind(word)
        {
            let start = place.span.start + at;
            place.span = start..start + word.len();
        }
        Some(place)
    }

    fn unknown_name(&self, subject: &str, name: &str, sees: Sees) -> Diagnostic {
        if sees == Sees::VarsOnly {
            return Diagnostic::error(format!(
                "{subject} asks for `{name}`, which is none of the job's `vars`"
            ))
            .help("it is rendered once for all recipients: there is no row to look at");
        }
        let list = match &self.job.recipients.source {
            SourceSpec::File { path, .. } => {
                format!("`{}`", path.file_name().unwrap_or_default().to_string_lossy())
            }
            _ => "the list".to_owned(),
        };
        let columns = listed(self.names.columns().iter().map(String::as_str));
        let near = nearest(name, self.names.all().chain(["now", "row"]));
        let near =
            near.map(|near| format!("did you mean `{}`? ", meant::reference(near))).unwrap_or_default();
        Diagnostic::error(format!("{subject} asks for `{name}`, which {list} does not have"))
            .help(format!("{near}its columns are {columns}"))
    }

    /// Notes that a template cannot be read.
    pub(super) fn flawed(&mut self, mistake: Diagnostic, source: &str) {
        let help = meant::misnamed(source, self.names.columns().iter().map(String::as_str));
        self.mistakes.push(mistake.help_maybe(help.or_else(|| meant::foreign(source))));
    }

    /// Warns of words that look like a template, and that everybody would get as they stand.
    pub(super) fn warn_unfilled(
        &mut self,
        subject: &str,
        source: &str,
        spot: impl Fn(Range<usize>) -> Option<Place>,
    ) {
        let Some(span) = meant::unfilled(source, |word| self.names.all().any(|name| name == word)) else {
            return;
        };
        let words = &source[span.clone()];
        let inner = words.trim_matches(['{', '}', '｛', '｝']).trim();
        let title = format!("{subject} has `{words}`, which is no template: everybody gets it as it stands");
        let help = format!("write `{{{{ {} }}}}`", meant::reference(inner));
        self.warnings.push(Diagnostic::warning(title).at_maybe(spot(span)).help(help));
    }
}

/// Names in a row, not more than a reader takes in.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    among
        .map(|other| (strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase()), other))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, other)| other)
}
