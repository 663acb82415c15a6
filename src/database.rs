//! A SQLite database as its file alone has it. Where nothing can be written SQLite cannot make the files through
//! which readers and writers know of one another, and opens nothing; but if the log is empty, the file tells all.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Opens for reading a database that nobody writes to meanwhile; `None` if there is something in its log.
pub fn open_alone(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        return Ok(None);
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri(path), flags).map(Some)
}

/// SQLite is told only in a URI that a file does not change. A path may have any byte but NUL.
fn uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => {
                let _ = write!(uri, "%{byte:02x}");
            }
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_file_of_any_name_is_opened_unless_its_log_says_more() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ledger.db", "100%3f?a=b#c &.db", "台账 2026.db"].map(OsStr::new) {
            let path = folder.path().join(name);
            Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
            let opened = open_alone(&path).unwrap().unwrap();
            let tables: i64 =
                opened.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
            assert_eq!(tables, 1, "{name:?}");
            let mut log = path.into_os_string();
            log.push("-wal");
            fs::write(&log, "x").unwrap();
            assert!(open_alone(&folder.path().join(name)).unwrap().is_none(), "{name:?}");
        }
    }
}
