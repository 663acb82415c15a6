//! Which file was found for whom, so that it is not found for somebody else.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::letter::{Piece, RecipientKey};

/// Files and the recipients they were first found for: 20 to 40 bytes for each file and, where values are
/// compared, as many for what found it, so that a million files are borne. Hashes stand for all of them, by a
/// secret of this process: nobody can choose a name or a key that has the hash of another. Should two files
/// ever have one hash, a row is refused that need not be.
#[derive(Debug, Default)]
pub struct Claims {
    hasher: RandomState,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Of a file: the first key. Of a file and a pattern: the [`Contribution`] that found it first.
    first: HashMap<u64, u64>,
    /// Files that a second key asked for: they are nobody's. And whether that was of a row that is left out.
    contested: HashMap<u64, bool>,
    /// A contested file was found for somebody before that was known.
    any_contested: bool,
}

/// What a row contributed to a pattern: a hash, and in its last bit whether `where` leaves that row out.
#[derive(Debug, Clone, Copy)]
struct Contribution(u64);

/// A pattern in which a wildcard may go on with what a row contributes, and that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pattern: u64,
    values: u64,
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
    /// first one's either: the list is to be looked at again, see [`Claims::any_contested`].
    /// With words it is not another's either that gets no letter, see [`Claims::leave_out`].
    pub(super) fn claim(
        &self,
        path: &Path,
        key: &RecipientKey,
        words: Option<Words>,
    ) -> Result<(), OtherKey> {
        let file = self.file(path);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.hasher.hash_one(key.as_str());
        let first = *held.first.entry(file).or_insert(key);
        let other = words.and_then(|words| self.found_otherwise(&mut held, file, words, false));
        let otherwise = other.is_some_and(Contribution::is_left_out);
        if first == key && !otherwise && !held.contested.contains_key(&file) {
            return Ok(());
        }
        let left_out = *held.contested.entry(file).or_insert(otherwise);
        held.any_contested = true;
        Err(OtherKey { path: path.to_owned(), left_out })
    }

    /// Says that a pattern finds a file for a row that gets no letter. With another value it finds it for
    /// nobody then: `Ann*` is not to find the file of an `Ann Smith` whom `where` leaves out. With the same
    /// value it is as good as for the same.
    pub(super) fn leave_out(&self, path: &Path, words: Words) {
        let file = self.file(path);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = self.found_otherwise(&mut held, file, words, true) {
            held.contested.entry(file).or_insert(true);
            held.any_contested |= !other.is_left_out() || held.first.contains_key(&file);
        }
    }

    /// Says that a pattern finds a picture, which many may have: all who ask for it by the same value. False
    /// if another value has found it.
    pub(super) fn share(&self, path: &Path, words: Words) -> bool {
        let file = self.file(path);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.found_otherwise(&mut held, file, words, false).is_some() {
            held.contested.entry(file).or_insert(false);
            held.any_contested = true;
        }
        !held.contested.contains_key(&file)
    }

    /// Whether any file was found for two recipients, one of whom may have been told that it is theirs: to be
    /// asked once the whole list is enlisted.
    pub fn any_contested(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).any_contested
    }

    /// The words of a pattern's pieces.
    pub(super) fn words(&self, pieces: &[Piece]) -> Words {
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
        Words { pattern: self.hasher.hash_one(pattern), values: self.hasher.hash_one(values) }
    }

    fn file(&self, path: &Path) -> u64 {
        self.hasher.hash_one(path.as_os_str())
    }

    /// What a pattern has found a file with before, if that was another value.
    fn found_otherwise(
        &self,
        held: &mut Held,
        file: u64,
        words: Words,
        left_out: bool,
    ) -> Option<Contribution> {
        let own = Contribution(words.values & !1 | u64::from(left_out));
        let found = self.hasher.hash_one((file, words.pattern));
        let first = Contribution(*held.first.entry(found).or_insert(own.0));
        (first.0 >> 1 != own.0 >> 1).then_some(first)
    }
}

impl Contribution {
    fn is_left_out(self) -> bool {
        self.0 & 1 == 1
    }
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
            ("/r/3.pdf", "eve", true, true),
        ] {
            assert_eq!(claims.claim(Path::new(path), &key(name), None).is_ok(), expected, "{path} {name}");
            assert_eq!(claims.any_contested(), contested, "{path} {name}");
        }
    }
}
