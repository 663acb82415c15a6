//! Which file was found for whom, so that it is not found for somebody else.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::letter::{Piece, RecipientKey};

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
    /// Files that a second key asked for: they are nobody's. And whether that was of a row that is left out.
    contested: HashMap<u64, bool>,
    /// Keys that a contested file was found for.
    keys: HashSet<u64>,
    /// A contested file was found for somebody of whom only the value is known.
    unknown: bool,
    /// File and pattern to what found it with that first.
    values: HashMap<u64, Contribution>,
}

/// What a row contributed to a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contribution {
    hash: u64,
    /// `where` leaves that row out.
    left_out: bool,
}

/// A pattern in which a wildcard may go on with what a row contributes, and that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pattern: u64,
    values: u64,
}

impl Words {
    /// Of a pattern's pieces.
    pub(super) fn of(pieces: &[Piece]) -> Words {
        let (mut pattern, mut values) = (Vec::new(), Vec::new());
        for piece in pieces {
            let (of, text, sign) = match piece {
                Piece::Operator(text) => (&mut pattern, text, 0),
                // Where it stood is the pattern's.
                Piece::Value(text) => {
                    pattern.push(1);
                    (&mut values, text, 1)
                }
            };
            of.extend_from_slice(text.as_bytes());
            of.push(sign);
        }
        Words { pattern: hash(&pattern), values: hash(&values) }
    }
}

/// A file that was found for two recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` was found for another {whose} too", path.display(), whose = if *left_out {
    "row, which `where` leaves out,"
} else {
    "recipient"
})]
pub struct OtherKey {
    /// The file.
    pub path: PathBuf,
    /// The other one gets no letter.
    pub left_out: bool,
}

impl Claims {
    /// Says that a file is this recipient's. From the second recipient on it is nobody's, not the
    /// first one's either: see [`Claims::is_contested`].
    /// With words it is not another's either that gets no letter, see [`Claims::leave_out`].
    pub(super) fn claim(
        &self,
        path: &Path,
        key: &RecipientKey,
        words: Option<Words>,
    ) -> Result<(), OtherKey> {
        let (file, key) = (hash(path.as_os_str().as_encoded_bytes()), hash(key.as_str().as_bytes()));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *held.first.entry(file).or_insert(key);
        let other = words.and_then(|words| held.found_otherwise(file, words, false));
        let otherwise = other.is_some_and(|other| other.left_out);
        if first == key && !otherwise && !held.contested.contains_key(&file) {
            return Ok(());
        }
        let left_out = *held.contested.entry(file).or_insert(otherwise);
        held.keys.extend([first, key]);
        Err(OtherKey { path: path.to_owned(), left_out })
    }

    /// Says that a pattern finds a file for a row that gets no letter. With another value it finds it for
    /// nobody then: `Ann*` is not to find the file of an `Ann Smith` whom `where` leaves out. With the same
    /// value it is as good as for the same.
    pub(super) fn leave_out(&self, path: &Path, words: Words) {
        let file = hash(path.as_os_str().as_encoded_bytes());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = held.found_otherwise(file, words, true) {
            held.contested.entry(file).or_insert(true);
            held.unknown |= !other.left_out;
            let first = held.first.get(&file).copied();
            held.keys.extend(first);
        }
    }

    /// Says that a pattern finds a picture, which many may have: all who ask for it by the same value. False
    /// if another value has found it.
    pub(super) fn share(&self, path: &Path, words: Words) -> bool {
        let file = hash(path.as_os_str().as_encoded_bytes());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.found_otherwise(file, words, false).is_some() {
            held.contested.entry(file).or_insert(false);
            held.unknown = true;
        }
        !held.contested.contains_key(&file)
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
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.unknown || !held.keys.is_empty()
    }
}

impl Held {
    /// What a pattern has found a file with before, if that was another value.
    fn found_otherwise(&mut self, file: u64, words: Words, left_out: bool) -> Option<Contribution> {
        let place = hash(&[file.to_be_bytes(), words.pattern.to_be_bytes()].concat());
        let own = Contribution { hash: words.values, left_out };
        let first = *self.values.entry(place).or_insert(own);
        (first.hash != own.hash).then_some(first)
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
            assert_eq!(claims.claim(Path::new(path), &key(name), None).is_ok(), expected, "{path} {name}");
            assert_eq!(claims.is_contested(&key(name)), contested, "{path} {name}");
        }
        assert!(claims.any_contested());
    }
}
