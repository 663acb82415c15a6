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
    /// As the job file has it, where the value has the home folder in place of its `~`.
    pub with_tilde: Option<String>,
}

impl Text {
    /// Words without a place: defaults and tests.
    pub fn new(value: impl Into<String>) -> Text {
        Text { value: value.into(), place: None, with_tilde: None }
    }

    /// As the job file has it.
    pub fn written(&self) -> &str {
        self.with_tilde.as_deref().unwrap_or(&self.value)
    }

    /// Signs that mean something in a pattern of paths, and themselves behind a `\`.
    pub(super) const PATTERN_SIGNS: [char; 7] = ['\\', '*', '?', '[', ']', '{', '}'];

    /// What would be right where this is a path, or a pattern of paths, that leads nowhere and has in it what other
    /// systems and shells read otherwise.
    pub fn as_path(&self) -> Option<&'static str> {
        let written = self.written();
        let escapes = |behind: &str| behind.starts_with(Text::PATTERN_SIGNS);
        match () {
            () if written.split('\\').skip(1).any(|behind| !behind.is_empty() && !escapes(behind)) => {
                Some("folders are set off with `/`")
            }
            () if written.contains('$') => Some("variables are not filled in; `~/` is the home folder"),
            () => None,
        }
    }
}
