//! Folders as they were when they were first asked for: read once, sorted, shared by all patterns.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::EnclosureError;
use super::pattern::nfc;

/// The most that kept listings weigh, in bytes. A folder of 100,000 files takes some 3 MB; what
/// this bounds is a folder for each of a million recipients.
const MAX_KEPT: usize = if cfg!(test) { 1 << 20 } else { 24 << 20 };

/// What a listing weighs beside its names: the path twice, the slot, the vectors.
const OVERHEAD: usize = 400;

/// The most names of one listing or walk. `**` from the root of a disk is a slip, and is stopped
/// before it fills the memory.
const MAX_NAMES: usize = 2_000_000;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A symbolic link, wherever it leads.
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// The names of a folder, or of a folder and all below it, in the order of their NFC forms.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The folders that the names are in.
    pub(super) folders: Vec<PathBuf>,
    /// All names in NFC, one behind the other.
    names: String,
    entries: Vec<Entry>,
    /// Names that are not in NFC, or not text, as the disk has them; by entry.
    other: HashMap<u32, OsString>,
    /// Entries in the order of their names read backwards; made when a pattern first asks.
    backwards: OnceLock<Vec<u32>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    len: u16,
    kind: Kind,
    folder: u32,
}

impl Listing {
    /// Reads a folder. A folder that is not there has no names.
    fn of_folder(folder: &Path) -> Result<Listing, EnclosureError> {
        let mut raw = Vec::new();
        read_folder(folder, 0, &mut raw)?;
        Listing::sorted(vec![folder.to_owned()], raw, folder)
    }

    /// Reads a folder and all below it that is not hidden. Links to folders are not followed: they
    /// may lead round in a circle.
    fn of_tree(top: &Path) -> Result<Listing, EnclosureError> {
        let mut folders = vec![top.to_owned()];
        let mut raw = Vec::new();
        let mut next = 0;
        while next < folders.len() {
            let here = raw.len();
            read_folder(&folders[next], next as u32, &mut raw)?;
            if raw.len() > MAX_NAMES {
                return Err(EnclosureError::TooMany { folder: top.to_owned(), limit: MAX_NAMES });
            }
            let below = raw[here..].iter().filter(|(name, kind, _)| {
                *kind == Kind::Folder && !name.as_encoded_bytes().starts_with(b".")
            });
            let below: Vec<PathBuf> = below.map(|(name, _, _)| folders[next].join(name)).collect();
            folders.extend(below);
            next += 1;
        }
        Listing::sorted(folders, raw, top)
    }

    fn sorted(
        folders: Vec<PathBuf>,
        raw: Vec<(OsString, Kind, u32)>,
        top: &Path,
    ) -> Result<Listing, EnclosureError> {
        let too_many = || EnclosureError::TooMany { folder: top.to_owned(), limit: MAX_NAMES };
        if raw.len() > MAX_NAMES {
            return Err(too_many());
        }
        let mut listing = Listing { folders, ..Listing::default() };
        let mut keyed: Vec<(String, Option<OsString>, Kind, u32)> = raw
            .into_iter()
            .map(|(name, kind, folder)| match name.into_string() {
                Ok(name) => match nfc(&name) {
                    key if key == name => (name, None, kind, folder),
                    key => (key.into_owned(), Some(name.into()), kind, folder),
                },
                Err(name) => (name.to_string_lossy().into_owned(), Some(name), kind, folder),
            })
            .collect();
        keyed.sort_unstable_by(|a, b| (&a.0, &a.1, a.3).cmp(&(&b.0, &b.1, b.3)));
        for (key, other, kind, folder) in keyed {
            let start = u32::try_from(listing.names.len()).map_err(|_| too_many())?;
            let len = u16::try_from(key.len()).map_err(|_| too_many())?;
            if let Some(other) = other {
                listing.other.insert(listing.entries.len() as u32, other);
            }
            listing.names.push_str(&key);
            listing.entries.push(Entry { start, len, kind, folder });
        }
        listing.names.shrink_to_fit();
        Ok(listing)
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The n-th name in NFC.
    pub(super) fn name(&self, n: usize) -> &str {
        let entry = self.entries[n];
        let start = entry.start as usize;
        &self.names[start..start + usize::from(entry.len)]
    }

    /// What the n-th name stands for.
    pub(super) fn kind(&self, n: usize) -> Kind {
        self.entries[n].kind
    }

    /// The n-th name with its folder, as the disk has it.
    pub(super) fn path(&self, n: usize) -> PathBuf {
        let own: &OsStr = match self.other.get(&(n as u32)) {
            Some(other) => other,
            None => OsStr::new(self.name(n)),
        };
        self.folders[self.entries[n].folder as usize].join(own)
    }

    /// Whether the n-th name is in the folder the listing begins with.
    pub(super) fn is_at_top(&self, n: usize) -> bool {
        self.entries[n].folder == 0
    }

    /// Where a name would stand.
    pub(super) fn place(&self, name: &str) -> usize {
        self.lower(&|other: &str| other < name)
    }

    /// The names that begin and end so, as few as either the beginning or the end leaves, and
    /// perhaps some others: the pattern is to look at each.
    pub(super) fn candidates(&self, prefix: &str, suffix: &str) -> Candidates<'_> {
        /// So few are looked at sooner than a second order is made and searched.
        const FEW: usize = 64;
        let start = self.place(prefix);
        let end = self.lower(&|name: &str| name < prefix || name.starts_with(prefix));
        if end - start > FEW && !suffix.is_empty() {
            let backwards = self.backwards();
            let key = |n: &u32| self.name(*n as usize).bytes().rev();
            let first = backwards.partition_point(|n| key(n).lt(suffix.bytes().rev()));
            let found = backwards[first..].partition_point(|n| self.name(*n as usize).ends_with(suffix));
            if found < end - start {
                return Candidates::Some(backwards[first..first + found].iter());
            }
        }
        Candidates::Range(start..end)
    }

    fn backwards(&self) -> &[u32] {
        self.backwards.get_or_init(|| {
            let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
            order.sort_unstable_by(|a, b| {
                self.name(*a as usize).bytes().rev().cmp(self.name(*b as usize).bytes().rev())
            });
            order
        })
    }

    /// How many names, counted from the first, are below a bound.
    fn lower(&self, below: &dyn Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match below(self.name(middle)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// What it costs in memory, about; the second order counted in.
    fn weight(&self) -> usize {
        let folders: usize = self.folders.iter().map(|folder| folder.as_os_str().len() + 24).sum();
        OVERHEAD + folders + self.names.len() + 16 * self.entries.len() + 64 * self.other.len()
    }
}

/// Places in a listing.
pub(super) enum Candidates<'a> {
    Range(Range<usize>),
    Some(std::slice::Iter<'a, u32>),
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Candidates::Range(range) => range.next(),
            Candidates::Some(places) => places.next().map(|&n| n as usize),
        }
    }
}

/// What was listed: each folder once, whoever asks, and however many ask at the same time.
#[derive(Debug, Default)]
pub(super) struct Listings {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By folder and whether all below it is meant.
    slots: HashMap<(PathBuf, bool), Slot>,
    /// The oldest first.
    order: VecDeque<(PathBuf, bool)>,
    weight: usize,
}

/// Filled by the first who asks; the others wait for it.
type Slot = Arc<OnceLock<Arc<Listing>>>;

impl Listings {
    /// The names of a folder.
    pub(super) fn folder(&self, folder: &Path) -> Result<Arc<Listing>, EnclosureError> {
        self.listing(folder, false)
    }

    /// The names of a folder and all below it.
    pub(super) fn tree(&self, top: &Path) -> Result<Arc<Listing>, EnclosureError> {
        self.listing(top, true)
    }

    fn listing(&self, folder: &Path, tree: bool) -> Result<Arc<Listing>, EnclosureError> {
        let slot = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (folder.to_owned(), tree);
            match kept.slots.get(&key) {
                Some(slot) => slot.clone(),
                None => {
                    let slot = Slot::default();
                    kept.slots.insert(key.clone(), slot.clone());
                    kept.order.push_back(key);
                    slot
                }
            }
        };
        let mut failure = None;
        let mut fresh = false;
        let listing = slot.get_or_init(|| {
            fresh = true;
            let listing = if tree { Listing::of_tree(folder) } else { Listing::of_folder(folder) };
            Arc::new(listing.unwrap_or_else(|error| {
                failure = Some(error);
                Listing::default()
            }))
        });
        let listing = listing.clone();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            // Not kept: the next who asks is told too.
            kept.slots.remove(&(folder.to_owned(), tree));
            kept.order.retain(|(other, whole)| other != folder || *whole != tree);
            return Err(error);
        }
        if listing.folders.is_empty() {
            // Somebody else's failure, seen while waiting for it: we look for ourselves.
            drop(kept);
            return if tree { Listing::of_tree(folder) } else { Listing::of_folder(folder) }.map(Arc::new);
        }
        // It may have been forgotten while it was read: what is not kept weighs nothing.
        if fresh && kept.slots.get(&(folder.to_owned(), tree)).is_some_and(|kept| Arc::ptr_eq(kept, &slot)) {
            kept.weight += listing.weight();
            kept.forget_oldest();
        }
        Ok(listing)
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).weight
    }
}

impl Kept {
    fn forget_oldest(&mut self) {
        while self.weight > MAX_KEPT && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { return };
            let listing = self.slots.remove(&oldest);
            let weight = listing.and_then(|slot| slot.get().map(|listing| listing.weight()));
            self.weight = self.weight.saturating_sub(weight.unwrap_or_default());
        }
    }
}

fn read_folder(
    folder: &Path,
    number: u32,
    into: &mut Vec<(OsString, Kind, u32)>,
) -> Result<(), EnclosureError> {
    let unreadable = |source| EnclosureError::Unreadable { file: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(unreadable(error)),
    };
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let kind = match entry.file_type().map_err(unreadable)? {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Folder,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        into.push((entry.file_name(), kind, number));
        if into.len() > MAX_NAMES {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let raw = names.iter().map(|name| (OsString::from(name), Kind::File, 0)).collect();
        Listing::sorted(vec!["/r".into()], raw, Path::new("/r")).expect("few names")
    }

    #[test]
    fn candidates_are_found_by_both_ends() {
        let numbers: Vec<String> = (0..200).map(|n| format!("a-{n:03}.pdf")).collect();
        let mut names: Vec<&str> = numbers.iter().map(String::as_str).collect();
        names.extend(["", "b", "a", "z-001.pdf", "zz"].iter().filter(|name| !name.is_empty()));
        let listing = listing(&names);
        for (prefix, suffix, expected, looked_at) in [
            ("a-00", "", 10, 10),
            ("a-00", ".pdf", 10, 10),
            ("", "-001.pdf", 2, 2),
            ("a-", "1.pdf", 20, 21),
            ("zz", "", 1, 1),
            ("x", "", 0, 0),
            ("", "", 204, 204),
            ("", ".doc", 0, 0),
        ] {
            let found: Vec<&str> = listing.candidates(prefix, suffix).map(|n| listing.name(n)).collect();
            let fit = found.iter().filter(|name| name.starts_with(prefix) && name.ends_with(suffix)).count();
            assert_eq!((fit, found.len()), (expected, looked_at), "{prefix:?} {suffix:?}");
        }
        assert_eq!(listing.path(0), Path::new("/r/a"));
    }

    #[test]
    fn a_folder_is_read_once_and_listings_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a"), "").expect("written");
        let listings = Listings::default();
        let first = listings.folder(folder.path()).expect("read");
        fs::write(folder.path().join("b"), "").expect("written");
        let again = listings.folder(folder.path()).expect("kept");
        assert_eq!((first.len(), again.len()), (1, 1));
        for n in 0..4000 {
            assert_eq!(listings.folder(&folder.path().join(n.to_string())).expect("empty").len(), 0);
        }
        assert!(listings.weight() <= MAX_KEPT);
        assert_eq!(listings.folder(folder.path()).expect("read again").len(), 2);
    }
}
