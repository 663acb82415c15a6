//! A mistake, shown where it was made: file, line, the words at fault, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing; nothing is stopped.
    Warning,
    /// Nothing is sent.
    Error,
}

/// A place in a file that was read as text.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file, as it is shown.
    pub file: PathBuf,
    /// Its whole text.
    pub source: Arc<str>,
    /// The bytes at fault.
    pub span: Range<usize>,
}

/// One mistake or warning.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Warning or error.
    pub level: Level,
    /// One sentence: what is wrong.
    pub title: String,
    /// Where, when it is in a file.
    pub place: Option<Place>,
    /// A few words under the mark.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(title: impl Into<String>) -> Diagnostic {
        Diagnostic { level: Level::Error, title: title.into(), place: None, label: String::new(), help: None }
    }

    /// A warning without a place.
    pub fn warning(title: impl Into<String>) -> Diagnostic {
        Diagnostic { level: Level::Warning, ..Diagnostic::error(title) }
    }

    /// The same, at a place.
    pub fn at(mut self, place: Place) -> Diagnostic {
        self.place = Some(place);
        self
    }

    /// The same, with words under the mark.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// The same, with what would be right.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}
