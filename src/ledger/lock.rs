//! One run of a job at a time: a lock on a side file, which the system releases when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::job::name_of_file;
use crate::letter::Purpose;

use super::LedgerError;

/// The lock of a job, held while this value lives.
#[derive(Debug)]
pub struct RunLock {
    /// Never read: the lock belongs to the open file, and closing it releases the lock. The file
    /// itself stays, for removing it would let two runs lock two files of one name.
    _file: File,
}

impl RunLock {
    /// Takes the lock of `job` in the ledger at `ledger`, or says who has it.
    pub(super) fn take(ledger: &Path, job: &str, purpose: Purpose) -> Result<RunLock, LedgerError> {
        let path = side_file(ledger, job, purpose);
        let broken = |source| LedgerError::Open { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(broken)?;
        match file.try_lock() {
            Ok(()) => {
                // Who holds it is a courtesy to the second run: a full disk must not end the first.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(RunLock { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
                Err(LedgerError::InUse { job: job.to_owned(), holder: text.trim().parse().ok() })
            }
            Err(TryLockError::Error(source)) => Err(broken(source)),
        }
    }
}

/// Whether a run has ever had a lock of this ledger.
pub(super) fn was_taken(ledger: &Path) -> bool {
    let (Some(folder), Some(name)) = (ledger.parent(), ledger.file_name()) else { return false };
    let mut start = name.to_owned();
    start.push("-");
    let is_lock = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        name.starts_with(start.as_encoded_bytes()) && name.ends_with(b".lock")
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(is_lock))
}

/// `ledger.db-JOB-HASH-PURPOSE.lock`
fn side_file(ledger: &Path, job: &str, purpose: Purpose) -> PathBuf {
    let mut path = ledger.as_os_str().to_owned();
    path.push(format!("-{}-{}.lock", name_of_file(job), purpose.word()));
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_run_is_told_who_runs() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let first = RunLock::take(&ledger, "通知/1", Purpose::Real).unwrap();
        let second = RunLock::take(&ledger, "通知/1", Purpose::Real).unwrap_err();
        assert!(
            matches!(second, LedgerError::InUse { holder: Some(pid), .. } if pid == std::process::id()),
            "{second}"
        );
        RunLock::take(&ledger, "通知/2", Purpose::Real).unwrap();
        RunLock::take(&ledger, "通知/1", Purpose::Sandbox).unwrap();
        drop(first);
        RunLock::take(&ledger, "通知/1", Purpose::Real).unwrap();
    }
}
