//! What goes wrong with one row. The text names the template, the line and the words at fault, and
//! never another value: error texts end in ledgers and logs.

use std::fmt;

use minijinja::ErrorKind;

/// Why no letter could be made of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The template file as the job names it, or the key of the job file (`subject`, `to`).
    pub template: String,
    /// The line in it, or in the job file; 0 where no single line is at fault.
    pub line: usize,
    /// What is wrong, in a few words.
    pub reason: String,
}

impl RowError {
    pub(super) fn new(template: impl Into<String>, line: usize, reason: impl Into<String>) -> RowError {
        RowError { template: template.into(), line, reason: reason.into() }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.template, self.reason),
            line => write!(f, "{}, line {line}: {}", self.template, self.reason),
        }
    }
}

impl std::error::Error for RowError {}

/// The words of an engine's error that say what is wrong and show no value but the one at fault.
/// Its `Display` with `#`, and its debug form, would show all the names that are in reach.
pub(super) fn reason(error: &minijinja::Error) -> String {
    let innermost = innermost(error);
    let detail = innermost.detail().unwrap_or_default();
    match innermost.kind() {
        ErrorKind::UndefinedError if !detail.is_empty() => detail.to_owned(),
        ErrorKind::UndefinedError => "a value is undefined".to_owned(),
        ErrorKind::OutOfFuel => "the template takes too long: is there a loop without an end?".to_owned(),
        ErrorKind::InvalidOperation | ErrorKind::SyntaxError if !detail.is_empty() => detail.to_owned(),
        kind if detail.is_empty() => kind.to_string(),
        kind => format!("{kind}: {detail}"),
    }
}

/// An error in an included template comes wrapped; the place that counts is where it arose.
pub(super) fn innermost(error: &minijinja::Error) -> &minijinja::Error {
    let mut at = error;
    while let Some(inner) = std::error::Error::source(at).and_then(|e| e.downcast_ref::<minijinja::Error>()) {
        at = inner;
    }
    at
}
