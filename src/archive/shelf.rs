//! Where archived messages lie now: the journal says under which name, the disk whether and where.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::known::Record;
use super::store::{StoreError, is_inside, private_folder, trouble};
use super::{journal, quarantine};

/// Where messages lie now. A mail program that reads a Maildir moves them from `new/` to `cur/` and adds
/// flags to their names; its folders are listed once for many questions.
pub struct Places {
    store: PathBuf,
    moved: Mutex<Moved>,
}

/// The files of `new/` and `cur/` by the part of their names that never changes.
#[derive(Default)]
struct Moved {
    /// When the folders changed last, as the listing knows it.
    changed: [Option<SystemTime>; 2],
    listed: HashMap<String, String>,
}

/// The folders in which a message of a Maildir may lie.
const MAILDIR: [&str; 2] = ["cur", "new"];

impl Places {
    /// Of the archive at `store`.
    pub fn of(store: &Path) -> Places {
        Places { store: store.to_owned(), moved: Mutex::default() }
    }

    /// The place of the message that was filed at `path`, if it lies anywhere.
    pub fn find(&self, path: &str) -> Option<String> {
        if !is_inside(path) {
            return None;
        }
        if self.store.join(path).is_file() {
            return Some(path.to_owned());
        }
        let name = MAILDIR.iter().find_map(|folder| path.strip_prefix(folder)?.strip_prefix('/'))?;
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = MAILDIR.map(|folder| fs::metadata(self.store.join(folder)).ok()?.modified().ok());
        if moved.changed != changed {
            *moved = Moved { changed, listed: self.list() };
        }
        moved.listed.get(base(name)).filter(|place| self.store.join(place).is_file()).cloned()
    }

    /// The path under which a message was filed that lies at `place` now: without the flags of a Maildir.
    pub fn filed(&self, place: &str) -> String {
        let leaf = MAILDIR.iter().find_map(|folder| place.strip_prefix(folder)?.strip_prefix('/'));
        leaf.map_or_else(|| place.to_owned(), |leaf| format!("new/{}", base(leaf)))
    }

    fn list(&self) -> HashMap<String, String> {
        let mut listed = HashMap::new();
        for folder in MAILDIR {
            let Ok(entries) = fs::read_dir(self.store.join(folder)) else { continue };
            for entry in entries.filter_map(Result::ok) {
                if let Some(name) = entry.file_name().to_str() {
                    listed.insert(base(name).to_owned(), format!("{folder}/{name}"));
                }
            }
        }
        listed
    }
}

/// The archived messages as they lie there now: the journal says where, the disk whether.
pub struct Shelf {
    store: PathBuf,
    journal: File,
    places: Places,
}

impl Shelf {
    /// Of the archive at `store`.
    pub fn of(store: &Path) -> Result<Shelf, StoreError> {
        let name = store.join(journal::NAME);
        let journal = File::open(&name).map_err(trouble("open", &name))?;
        Ok(Shelf { store: store.to_owned(), journal, places: Places::of(store) })
    }

    /// Where a file lies, if it lies anywhere.
    pub fn place(&self, record: &Record) -> Result<Option<String>, StoreError> {
        let entry = journal::line_at(&self.journal, record.offset)
            .map_err(trouble("read the journal of", &self.store))?;
        Ok(entry.and_then(|entry| self.places.find(&entry.path)))
    }

    /// Whether a file is there and as long as it must be. Its bytes are the affair of `verify`.
    pub fn holds(&self, record: &Record) -> Result<bool, StoreError> {
        let place = self.place(record)?;
        let found = place.and_then(|place| fs::metadata(self.store.join(place)).ok());
        Ok(found.is_some_and(|found| found.len() == record.size))
    }

    /// Moves a file of another size out of the way, into the quarantine, so that its message can have its
    /// place again. Nothing is replaced: where that name is taken it stays.
    pub fn make_room(&self, record: &Record) -> Result<(), StoreError> {
        let Some(place) = self.place(record)? else { return Ok(()) };
        let Some(leaf) = Path::new(&place).file_name().and_then(|leaf| leaf.to_str()) else { return Ok(()) };
        let folder = self.store.join(quarantine::NAME);
        private_folder(&folder).map_err(trouble("make the folder", &folder))?;
        let target = folder.join(format!("{leaf}.changed"));
        if target.exists() {
            return Ok(());
        }
        let file = self.store.join(&place);
        fs::rename(&file, target).map_err(trouble("move", file))
    }
}

/// A file's name without the flags of a Maildir.
fn base(name: &str) -> &str {
    name.split_once(':').map_or(name, |(base, _)| base)
}
