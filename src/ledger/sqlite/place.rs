//! Whether a ledger is still where it was opened. SQLite goes on writing to files that have lost their
//! name; nobody would ever read them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files of an open ledger, by their names.
#[derive(Debug)]
pub(super) struct Place {
    files: Vec<(PathBuf, (u64, u64))>,
}

impl Place {
    /// The database and its log as they are now. As long as it is open the log keeps its file, too.
    pub(super) fn of(path: &Path) -> Place {
        // The log lies beside the file that a link leads to.
        let mut log = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        log.push("-wal");
        let names = [path.to_owned(), PathBuf::from(log)];
        let known = |name: PathBuf| identity(&name).map(|is| (name, is));
        Place { files: names.into_iter().filter_map(known).collect() }
    }

    /// Whether the names still lead to these files: two calls of `stat`, beside a commit that syncs.
    pub(super) fn is_kept(&self) -> bool {
        self.files.iter().all(|(name, is)| identity(name) == Some(*is))
    }
}

fn identity(name: &Path) -> Option<(u64, u64)> {
    fs::metadata(name).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
