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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_same_name_is_not_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let [path, log, link] = ["l.db", "l.db-wal", "link.db"].map(|name| folder.path().join(name));
        let fresh = || {
            for file in [&path, &log] {
                let _ = fs::remove_file(file);
                fs::write(file, "").unwrap();
            }
        };
        fresh();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        type Change<'a> = &'a dyn Fn();
        let replaced = |file: &Path| {
            // The old one is there until it is replaced: its number is not given to the new one.
            fs::write(folder.path().join("new"), "").unwrap();
            fs::rename(folder.path().join("new"), file).unwrap();
        };
        let changes: [(&str, bool, Change<'_>); 6] = [
            ("nothing", true, &|| {}),
            ("written to", true, &|| fs::write(&path, "more").unwrap()),
            ("database removed", false, &|| fs::remove_file(&path).unwrap()),
            ("log removed", false, &|| fs::remove_file(&log).unwrap()),
            ("database replaced", false, &|| replaced(&path)),
            ("log replaced", false, &|| replaced(&log)),
        ];
        for name in [&path, &link] {
            for (what, kept, change) in &changes {
                fresh();
                let place = Place::of(name);
                change();
                assert_eq!(place.is_kept(), *kept, "{what}, by {}", name.display());
            }
        }
    }
}
