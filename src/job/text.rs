//! A value of the job file with the place it stands at, so that a later room can still say
//! where a mistake was made.

use crate::diagnostic::Place;

/// Words from the job file and where they stand.
#[derive(Debug, Clone)]
pub struct Text {
    /// The value.
    pub value: String,
    /// Where it stands in the job file.
    pub place: Option<Place>,
}

impl Text {
    /// Words without a place: defaults and tests.
    pub fn new(value: impl Into<String>) -> Text {
        Text { value: value.into(), place: None }
    }

    /// What would be right where this is a path that leads nowhere and has in it what other systems and shells
    /// read otherwise.
    pub fn as_path(&self) -> Option<&'static str> {
        match () {
            () if self.value.contains('\\') => Some("folders are set off with `/`"),
            () if self.value.contains('$') => Some("variables are not filled in; `~/` is the home folder"),
            () => None,
        }
    }
}
