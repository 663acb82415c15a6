//! What can go wrong with the book, in plain words.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::exit::Exit;

/// Why the ledger could not be read or written. Nothing that was not made durable counts as done.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no such ledger, and the command only reads.
    #[error("there is no ledger at {}: nothing was run here yet", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder cannot be made or opened.
    #[error("cannot open the ledger {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another run of the same job holds the lock.
    #[error("{job} is being run already{}", holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// The job.
        job: String,
        /// The process, where it could be read.
        holder: Option<u32>,
    },
    /// The disk is full: nothing more is started, and a later run goes on where this one stopped.
    #[error("the disk is full: the ledger {} cannot be written; make room and run again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file may not be written.
    #[error("the ledger {} is read-only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Its path is longer than SQLite takes.
    #[error(
        "the path of the ledger {} is {} bytes long, of {most} at most: name another by `ledger:`",
        path.display(),
        path.as_os_str().len()
    )]
    TooLong {
        /// The file, from the root.
        path: PathBuf,
        /// Bytes there may be.
        most: usize,
    },
    /// The file has two names.
    #[error(
        "the ledger {} has a second name (a hard link), and what one run writes under one of them another would not \
         see: remove the other name, or make it a copy",
        path.display()
    )]
    Linked {
        /// The file.
        path: PathBuf,
    },
    /// The file, or its log, was removed or replaced while it was open: what is written there is lost.
    #[error(
        "the ledger {}, or the log beside it, was removed or replaced while this run used it: nothing more is sent. \
         Unless it, or a folder above it, was only moved, what it knew is lost, and a run that begins anew mails \
         everybody again",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Another process held the database for too long.
    #[error("the ledger {} is locked by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file is no ledger, or is damaged.
    #[error("the ledger {} is damaged or is no ledger: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Written by a newer postroom.
    #[error("the ledger {} was written by a newer postroom (schema {found}; this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Any other answer of the database, a failed disk among them.
    #[error("the ledger {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A delivery was not in a state that allows the step: our mistake, and nothing was written.
    #[error("delivery {seq} cannot be {step} where it stands; this is a fault of postroom")]
    OutOfOrder {
        /// Which delivery.
        seq: u64,
        /// `marked` or `settled`.
        step: &'static str,
    },
    /// More than the ledger has numbers for.
    #[error("{what}: more than the ledger can number ({limit})")]
    TooMany {
        /// Editions, rows, recipients or files of a letter.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

impl LedgerError {
    /// How the process ends when this stops it.
    pub fn exit(&self) -> Exit {
        match self {
            LedgerError::Missing { .. } => Exit::NoInput,
            LedgerError::InUse { .. } => Exit::Again,
            LedgerError::OutOfOrder { .. } => Exit::Bug,
            LedgerError::TooMany { .. } => Exit::Data,
            _ => Exit::Io,
        }
    }

    /// Whether it is one letter that cannot be written, and not the ledger.
    pub fn is_of_one_letter(&self) -> bool {
        matches!(self, LedgerError::OutOfOrder { .. } | LedgerError::TooMany { .. })
    }

    /// Sorts an answer of SQLite about the file at `path`.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> LedgerError {
        let path = path.to_owned();
        // Where the log is indexed: no room for it is all that is ever wrong with that.
        if source.sqlite_extended_error_code() == Some(SQLITE_IOERR_SHMSIZE) {
            return LedgerError::Full { path };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => LedgerError::Full { path },
            Some(ErrorCode::ReadOnly) => LedgerError::ReadOnly { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Busy { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                LedgerError::Corrupt { path, reason: source.to_string() }
            }
            _ => LedgerError::Database { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_whichever_file_of_the_ledger_finds_it() {
        for (code, full) in [
            (rusqlite::ffi::SQLITE_FULL, true),
            (SQLITE_IOERR_SHMSIZE, true),
            (rusqlite::ffi::SQLITE_IOERR_READ, false),
        ] {
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let error = LedgerError::sqlite(Path::new("ledger.db"), source);
            assert_eq!(matches!(error, LedgerError::Full { .. }), full, "{error}");
        }
    }
}
