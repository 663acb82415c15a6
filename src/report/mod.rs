//! What became of everyone: for people a table and a page, for programs JSON and CSV. It reads the
//! ledger and writes text; nothing of a list is held in memory but what is shown.

mod csv;
mod json;
mod letter;
mod page;
mod table;
#[cfg(test)]
mod tests;
mod text;

pub use csv::csv;
pub use json::{json, letter_json, summary};
pub use letter::letter;
pub use page::page;
pub use table::{View, counts_line, domain_name, table};

use std::io;

use crate::ledger::LedgerError;

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The report could not be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl ReportError {
    /// Whether nobody reads any more: a quiet end.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, ReportError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<::csv::Error> for ReportError {
    fn from(error: ::csv::Error) -> ReportError {
        // Their own conversion hides which kind of trouble it was, and with it that nobody reads any more.
        ReportError::Output(match error.into_kind() {
            ::csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })
    }
}

impl From<minijinja::Error> for ReportError {
    fn from(error: minijinja::Error) -> ReportError {
        ReportError::Output(io::Error::other(error))
    }
}

impl From<serde_json::Error> for ReportError {
    fn from(error: serde_json::Error) -> ReportError {
        ReportError::Output(error.into())
    }
}
