//! What a file is known by without reading it, and many of them in one value.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file is known by without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileFingerprint {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Another file under the same name has another one.
    pub inode: u64,
}

impl FileFingerprint {
    /// Of a file's metadata.
    pub fn of(metadata: &Metadata) -> FileFingerprint {
        FileFingerprint {
            size: metadata.size(),
            mtime_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// Files as they are, in 64 bits: paths and fingerprints, hashed (BLAKE3).
#[derive(Debug, Default)]
pub struct Fold(blake3::Hasher);

impl Fold {
    /// One more file, in the order they were found.
    pub fn add(&mut self, path: &Path, file: FileFingerprint) {
        let FileFingerprint { size, mtime_ns, inode } = file;
        let path = path.as_os_str().as_bytes();
        self.0.update(&(path.len() as u64).to_be_bytes()).update(path);
        self.0.update(&size.to_be_bytes()).update(&mtime_ns.to_be_bytes()).update(&inode.to_be_bytes());
    }

    /// All of them; `None` without files.
    pub fn value(&self) -> Option<i64> {
        let hash = self.0.finalize();
        let fold = hash.as_bytes().first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
        fold.filter(|_| self.0.count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_file_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.pdf");
        let now = || {
            let mut fold = Fold::default();
            fold.add(&path, FileFingerprint::of(&fs::metadata(&path).expect("there")));
            fold.value()
        };
        fs::write(&path, "content").expect("written");
        let before = now();
        assert!(before.is_some() && before == now());
        fs::write(&path, "longer content").expect("written");
        let longer = now();
        assert_ne!(longer, before);
        fs::write(folder.path().join("new"), "longer content").expect("written");
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("known");
        let new = fs::File::options().write(true).open(folder.path().join("new")).expect("there");
        new.set_modified(modified).expect("set");
        fs::rename(folder.path().join("new"), &path).expect("replaced");
        assert_ne!(now(), longer, "another file of the same size and time");
        assert_eq!(Fold::default().value(), None);
    }
}
