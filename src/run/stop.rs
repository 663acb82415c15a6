//! Why a command was not carried out.

use crate::diagnostic::with_causes;
use crate::exit::Exit;
use crate::ledger::LedgerError;
use crate::report::ReportError;

use super::enlist::NotEnlisted;
use super::source::NoList;

/// Why a command was not carried out: what is said, and how the process ends.
pub(super) struct Stop {
    pub(super) exit: Exit,
    pub(super) words: String,
}

impl Stop {
    pub(super) fn new(exit: Exit, words: impl Into<String>) -> Stop {
        Stop { exit, words: words.into() }
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Stop {
        Stop::new(error.exit(), with_causes(&error))
    }
}

impl From<ReportError> for Stop {
    fn from(error: ReportError) -> Stop {
        match error {
            ReportError::Ledger(error) => error.into(),
            error => Stop::new(Exit::Io, error.to_string()),
        }
    }
}

impl From<NoList> for Stop {
    fn from(error: NoList) -> Stop {
        Stop::new(error.exit(), with_causes(&error))
    }
}

impl From<NotEnlisted> for Stop {
    fn from(error: NotEnlisted) -> Stop {
        let mut words = with_causes(&error);
        if let NotEnlisted::TooManyBad { bad, first, .. } = &error {
            for (number, line, reason) in first {
                words.push_str(&format!("\n  row {number}{}: {reason}", super::check::in_line(*line)));
            }
            if *bad > first.len() as u64 {
                words.push_str(&format!("\n  … and {} more", bad - first.len() as u64));
            }
        }
        Stop::new(error.exit(), words)
    }
}
