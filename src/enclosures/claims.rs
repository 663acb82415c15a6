//! Which file was found for whom, so that it is not found for somebody else.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::letter::RecipientKey;

/// Files and the recipients they were first found for: two hashes of 8 bytes each, so that a
/// million files are borne. Should two names ever have one hash, a row is refused that need not
/// be; nobody gets what is not theirs.
#[derive(Debug, Default)]
pub struct Claims {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// File to first key.
    first: HashMap<u64, u64>,
    /// Files that a second key asked for: they are nobody's.
    contested: HashSet<u64>,
    /// Keys that a contested file was found for.
    keys: HashSet<u64>,
}

/// A file that was found for two recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` was found for another recipient too", path.display())]
pub struct OtherKey {
    /// The file.
    pub path: PathBuf,
}

impl Claims {
    /// Says that a file is this recipient's. From the second recipient on it is nobody's, not the
    /// first one's either: see [`Claims::is_contested`].
    pub fn claim(&self, path: &Path, key: &RecipientKey) -> Result<(), OtherKey> {
        let (file, key) = (hash(path.as_os_str().as_encoded_bytes()), hash(key.as_str().as_bytes()));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *held.first.entry(file).or_insert(key);
        if first == key && !held.contested.contains(&file) {
            return Ok(());
        }
        held.contested.insert(file);
        held.keys.extend([first, key]);
        Err(OtherKey { path: path.to_owned() })
    }

    /// Whether a file of this recipient was found for another one too, be it after this one was
    /// enlisted. To be asked of everyone once the whole list is enlisted, if
    /// [`Claims::any_contested`].
    pub fn is_contested(&self, key: &RecipientKey) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.keys.contains(&hash(key.as_str().as_bytes()))
    }

    /// Whether any file was found for two recipients.
    pub fn any_contested(&self) -> bool {
        !self.held.lock().unwrap_or_else(PoisonError::into_inner).contested.is_empty()
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = *blake3::hash(bytes).as_bytes();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_is_nobodys() {
        let claims = Claims::default();
        let key = |text| RecipientKey::new(text).expect("a key");
        for (path, name, expected, contested) in [
            ("/r/1.pdf", "ada", true, false),
            ("/r/1.pdf", "ada", true, false),
            ("/r/2.pdf", "bob", true, false),
            ("/r/1.pdf", "bob", false, true),
            ("/r/1.pdf", "ada", false, true),
            ("/r/3.pdf", "eve", true, false),
        ] {
            assert_eq!(claims.claim(Path::new(path), &key(name)).is_ok(), expected, "{path} {name}");
            assert_eq!(claims.is_contested(&key(name)), contested, "{path} {name}");
        }
        assert!(claims.any_contested());
    }
}
