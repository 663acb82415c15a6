//! The folder of an archive: messages are written aside, synced in groups, renamed without
//! replacing, and entered in the journal, in this order; only then does a message count as archived.
//!
//! ```text
//! tmp/                       what is on its way; emptied at start
//! eml/2026/11/<time>_<hash>.eml, eml/undated/<hash>.eml      or, as a Maildir, new/ and cur/
//! journal.jsonl              the truth
//! manifest-sha256.txt, index.db                              derived, mended at start
//! quarantine/                what could not be archived, and why
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::digest::Digest;
use super::journal::{self, Damage, DateSource, Entry, Journal, Line, Position, What};
use super::known::Known;
use super::manifest::{self, Manifest};
use super::shelf::Places;
use crate::failpoint;
use crate::job::Layout;
use crate::measure::ByteSize;
use crate::read;

/// What can go wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder did not do as asked.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The lock is taken.
    #[error("another run is working on the archive {}", .0.display())]
    Locked(PathBuf),
    /// The file system has no room for what comes next.
    #[error("no room in {}: {needed} needed, {free} free", path.display())]
    NoRoom {
        /// The store.
        path: PathBuf,
        /// What the next messages need.
        needed: ByteSize,
        /// What there is.
        free: ByteSize,
    },
    /// An earlier group failed; nothing after it may be committed.
    #[error("an earlier message could not be stored")]
    Poisoned,
}

pub(super) fn trouble(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.into();
    move |source| StoreError::Io { doing, path, source }
}

/// Options for a file that only its owner may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a folder, and those above it, that only their owner may enter.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The lock's name within the store.
const LOCK: &str = ".lock";

/// The folder aside. It is within the store so that a rename suffices.
const ASIDE: &str = "tmp";

/// An archive's folder, locked for one run.
pub struct Store {
    folder: Arc<Folder>,
    _lock: File,
    journal: Journal,
    known: Arc<Mutex<Known>>,
    manifest: Manifest,
    syncing: Syncing,
    layout: Layout,
    poisoned: bool,
    damage: Vec<Damage>,
}

/// What writing aside needs, shared by all sessions.
pub struct Folder {
    path: PathBuf,
    root: File,
    aside: File,
    next: AtomicU64,
    places: Places,
}

/// A message to be committed.
#[derive(Debug)]
pub struct Parcel {
    /// `user@host` or `user@host:port`
    pub mailbox: Arc<str>,
    /// The server's name for it.
    pub uidl: Option<Box<str>>,
    /// Octets by LIST.
    pub listed: u64,
    /// What lies aside.
    pub receipt: Receipt,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has a file of its own.
    New,
    /// Its bytes were there already.
    Duplicate,
}

impl Store {
    /// Opens or makes the archive at `path` and mends what a power cut left: the torn end of the journal,
    /// files aside, the manifest. Damage that is older is handed to `note` in words.
    pub fn open(
        path: &Path,
        layout: Layout,
        now: i64,
        mut note: impl FnMut(String),
    ) -> Result<Store, StoreError> {
        private_folder(path).map_err(trouble("make the folder", path))?;
        let root = open_folder(path)?;
        let lock = lock(path, FlockOperation::NonBlockingLockExclusive)?;
        let aside = path.join(ASIDE);
        let others: &[&str] = match layout {
            Layout::Dated => &[],
            // What makes a folder a Maildir for other programs.
            Layout::Maildir => &["new", "cur"],
        };
        for folder in others.iter().map(|name| path.join(name)).chain([aside.clone()]) {
            private_folder(&folder).map_err(trouble("make the folder", &folder))?;
        }
        for entry in fs::read_dir(&aside).map_err(trouble("list", &aside))? {
            let file = entry.map_err(trouble("list", &aside))?.path();
            fs::remove_file(&file).map_err(trouble("remove", &file))?;
        }
        let mut known = Known::default();
        let (journal, damages) =
            Journal::open(path, |found| known.take(found)).map_err(trouble("read the journal of", path))?;
        damages.open.iter().for_each(|damage| note(damage.to_string()));
        let whole = damages.open.is_empty();
        let mended = Manifest::mend(path, whole);
        let (manifest, missed) = mended.map_err(trouble("mend the manifest of", path))?;
        if !missed.is_empty() {
            let (manifest, journal, count) = (manifest::NAME, journal::NAME, missed.len());
            note(format!("{manifest} names files that no line of {journal} does, {count}: lines are lost"));
        }
        root.sync_all().map_err(trouble("sync", path))?;
        let folder = Folder {
            path: path.to_owned(),
            root,
            aside: open_folder(&aside)?,
            next: AtomicU64::new(0),
            places: Places::of(path),
        };
        let told = known.missed();
        let mut store = Store {
            syncing: Syncing::of(&folder.root),
            folder: Arc::new(folder),
            _lock: lock,
            journal,
            known: Arc::new(Mutex::new(known)),
            manifest,
            layout,
            poisoned: false,
            damage: damages.open,
        };
        // Lines that the chain does not miss may have said of any UIDL that it is free, and only until those files are
        // fetched again is it seen that there were some.
        let missed = Some(missed.join("\n")).filter(|missed| !missed.is_empty());
        let missed = missed.map(|missed| Digest::of(missed.as_bytes()).brief());
        if missed.is_some() && missed != told {
            store.seal(missed, now)?;
        }
        Ok(store)
    }

    /// What is wrong with the journal and not sealed.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Seals that. `missed` is the hash of the paths that only the manifest names.
    pub fn seal(&mut self, missed: Option<u64>, now: i64) -> Result<(), StoreError> {
        let path = &self.folder.path;
        let seal = self.journal.seal(path, now).map_err(trouble("read the journal of", path))?;
        self.enter(&[Entry { head: missed, ..seal }])?;
        self.damage.clear();
        Ok(())
    }

    /// For writing aside.
    pub fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.folder)
    }

    /// What the journal says.
    pub fn known(&self) -> Arc<Mutex<Known>> {
        Arc::clone(&self.known)
    }

    /// Makes a group of messages durable, in order: files, names, folders, journal. What it returns is
    /// committed; after an error nothing of the group is, and nothing more can be.
    pub fn commit(&mut self, parcels: &[Parcel], now: i64) -> Result<Vec<Verdict>, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let done = self.commit_group(parcels, now);
        self.poisoned = done.is_err();
        done
    }

    fn commit_group(&mut self, parcels: &[Parcel], now: i64) -> Result<Vec<Verdict>, StoreError> {
        failpoint::reach("archive.sync.before");
        self.syncing.files(&self.folder, parcels)?;
        failpoint::reach("archive.sync.after");
        let mut entries: Vec<Entry> = Vec::with_capacity(parcels.len());
        let mut verdicts = Vec::with_capacity(parcels.len());
        let mut fresh: HashMap<Digest, usize> = HashMap::new();
        let mut touched = Folders::default();
        for parcel in parcels {
            let receipt = &parcel.receipt;
            let there = match fresh.get(&receipt.sha256) {
                Some(&at) => entries.get(at).map(|entry: &Entry| entry.path.clone()),
                None => self.kept_already(receipt)?,
            };
            let what = if there.is_some() { What::Duplicate } else { What::Kept };
            let path = match there {
                Some(path) => {
                    self.folder.discard(receipt);
                    path
                }
                None => {
                    fresh.insert(receipt.sha256, entries.len());
                    self.place(receipt, &mut touched)?
                }
            };
            verdicts.push(if what == What::Kept { Verdict::New } else { Verdict::Duplicate });
            entries.push(Entry {
                at: now,
                what,
                mailbox: parcel.mailbox.to_string(),
                uidl: parcel.uidl.as_deref().map(str::to_owned),
                sha256: Some(receipt.sha256),
                path,
                size: receipt.size,
                listed: parcel.listed,
                head: Some(receipt.head),
                date: receipt.date,
                date_from: receipt.date_from,
            });
        }
        failpoint::reach("archive.folders.before");
        touched.sync()?;
        failpoint::reach("archive.folders.after");
        let lines = self.enter(&entries)?;
        failpoint::reach("archive.manifest.before");
        for line in &lines {
            self.manifest.note(&line.entry);
        }
        Ok(verdicts)
    }

    /// Writes entries to the journal and syncs it: the commit point.
    pub fn enter(&mut self, entries: &[Entry]) -> Result<Vec<Line>, StoreError> {
        let lines =
            self.journal.append(entries).map_err(trouble("write the journal of", &self.folder.path))?;
        let mut known = locked(&self.known);
        lines.iter().for_each(|line| known.apply(line));
        Ok(lines)
    }

    /// The path of a file by its line.
    pub fn path_of(&self, offset: u64) -> Result<Option<String>, StoreError> {
        let entry =
            self.journal.line_at(offset).map_err(trouble("read the journal of", &self.folder.path))?;
        Ok(entry.map(|entry| entry.path).filter(|path| is_inside(path)))
    }

    /// Writes out the manifest.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        self.manifest.flush().map_err(trouble("write the manifest of", &self.folder.path))
    }

    /// Where these very bytes lie, if they do: that file is read, for deleting the second copy on the
    /// server may rest on it.
    fn kept_already(&self, receipt: &Receipt) -> Result<Option<String>, StoreError> {
        let Some(record) = locked(&self.known).by_digest(&receipt.sha256).copied() else { return Ok(None) };
        let Some(path) = self.path_of(record.offset)? else { return Ok(None) };
        let path = self.folder.places.find(&path).unwrap_or(path);
        match File::open(self.folder.path.join(&path)).and_then(Digest::of_reader) {
            Ok((digest, _)) if digest == receipt.sha256 => Ok(Some(path)),
            // It is lost or spoilt, and here it is again.
            _ => Ok(None),
        }
    }

    /// Gives what lies aside its name. A file that has the name already, from a run that died before its
    /// journal, stays if it holds the same bytes; nothing is ever replaced.
    fn place(&self, receipt: &Receipt, touched: &mut Folders) -> Result<String, StoreError> {
        let (folder, stem, end) = address(receipt, self.layout);
        let target = touched.open(&self.folder, &folder)?;
        let short = receipt.sha256.short(20);
        let whole = receipt.sha256.to_string();
        let aside = receipt.name();
        for attempt in 0..=9u32 {
            let leaf = match attempt {
                0 => format!("{stem}{short}{end}"),
                1 => format!("{stem}{whole}{end}"),
                // The name is taken by a file that was changed since; it is left for `verify` to name.
                n => format!("{stem}{whole}-{n}{end}"),
            };
            let path = format!("{folder}/{leaf}");
            failpoint::reach("archive.rename.before");
            match rename_aside(&self.folder.aside, &aside, &target, &leaf) {
                Ok(()) => {
                    failpoint::reach("archive.rename.after");
                    return Ok(path);
                }
                Err(Errno::EXIST) => {
                    let full = self.folder.path.join(&path);
                    let same = File::open(&full).and_then(|file| {
                        let (digest, _) = Digest::of_reader(&file)?;
                        file.sync_all()?;
                        Ok(digest == receipt.sha256)
                    });
                    if same.map_err(trouble("read", &full))? {
                        self.folder.discard(receipt);
                        return Ok(path);
                    }
                }
                Err(error) => return Err(trouble("rename to", self.folder.path.join(&path))(error.into())),
            }
        }
        Err(trouble("find a free name in", self.folder.path.join(&folder))(
            io::ErrorKind::AlreadyExists.into(),
        ))
    }
}

/// The known files, whatever a thread that panicked left.
pub(super) fn locked(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the journal of the archive at `path` says; `None` if there is none. Nothing is made or mended.
pub fn look(path: &Path) -> Result<Option<Known>, StoreError> {
    if !path.join(journal::NAME).exists() {
        return Ok(None);
    }
    let _lock = lock(path, FlockOperation::NonBlockingLockShared)?;
    let lines = journal::read(path, Position::START).map_err(trouble("read the journal of", path))?;
    let Some(mut lines) = lines else { return Ok(None) };
    let mut known = Known::default();
    journal::replay(path, &mut lines, |found| known.take(found))
        .map_err(trouble("read the journal of", path))?;
    Ok(Some(known))
}

/// Takes the lock of the archive at `path`: exclusively to write, shared to read. Who reads makes nothing: a
/// backup may be on a disk that cannot be written, and a folder without the file is nobody's to work on.
pub fn lock(path: &Path, operation: FlockOperation) -> Result<File, StoreError> {
    let name = path.join(LOCK);
    let file = match operation {
        FlockOperation::LockShared | FlockOperation::NonBlockingLockShared => match File::open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(path),
            other => other,
        },
        _ => private().read(true).write(true).create(true).truncate(false).open(&name),
    };
    let file = file.map_err(trouble("open", &name))?;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StoreError::Locked(path.to_owned())),
        Err(error) => Err(trouble("lock", &name)(error.into())),
    }
}

/// Whether a path from the journal stays within the store.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn open_folder(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(trouble("open the folder", path))
}

/// Renames without replacing. Where the file system cannot, a second link does the same.
fn rename_aside(aside: &File, name: &str, folder: &File, leaf: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(aside, name, folder, leaf, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(aside, name, folder, leaf, AtFlags::empty())?;
            rustix::fs::unlinkat(aside, name, AtFlags::empty())
        }
        other => other,
    }
}

/// The folder of a message, and what stands before and after the hash in its name.
fn address(receipt: &Receipt, layout: Layout) -> (String, String, &'static str) {
    let utc = receipt.date.and_then(|date| jiff::Timestamp::from_second(date).ok());
    let utc = utc.map(|at| jiff::tz::TimeZone::UTC.to_datetime(at));
    match (layout, utc) {
        (Layout::Dated, Some(at)) => (
            format!("eml/{:04}/{:02}", at.year(), at.month()),
            format!(
                "{:04}{:02}{:02}T{:02}{:02}{:02}Z_",
                at.year(),
                at.month(),
                at.day(),
                at.hour(),
                at.minute(),
                at.second()
            ),
            ".eml",
        ),
        (Layout::Dated, None) => ("eml/undated".to_owned(), String::new(), ".eml"),
        (Layout::Maildir, _) => {
            ("new".to_owned(), format!("{}.", receipt.date.unwrap_or(0).max(0)), ".postroom")
        }
    }
}

/// The folders a group renames into, open until they are synced.
#[derive(Default)]
struct Folders {
    open: BTreeMap<String, Arc<File>>,
    made: Vec<File>,
}

impl Folders {
    fn open(&mut self, store: &Folder, name: &str) -> Result<Arc<File>, StoreError> {
        if let Some(folder) = self.open.get(name) {
            return Ok(Arc::clone(folder));
        }
        let mut parent = store.root.try_clone().map_err(trouble("open the folder", &store.path))?;
        for part in name.split('/') {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let child = match rustix::fs::openat(&parent, part, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&parent, part, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => {
                            return Err(trouble("make the folder", store.path.join(name))(error.into()));
                        }
                    }
                    let child = rustix::fs::openat(&parent, part, flags, Mode::empty());
                    // Its entry in the folder above must be durable too.
                    self.made.push(parent);
                    child
                }
                other => other,
            };
            parent = File::from(
                child.map_err(|error| trouble("open the folder", store.path.join(name))(error.into()))?,
            );
        }
        let folder = Arc::new(parent);
        self.open.insert(name.to_owned(), Arc::clone(&folder));
        Ok(folder)
    }

    fn sync(self) -> Result<(), StoreError> {
        for (name, folder) in self.open {
            folder.sync_all().map_err(trouble("sync the folder", name))?;
        }
        for folder in self.made.iter().rev() {
            folder.sync_all().map_err(trouble("sync", "a folder above"))?;
        }
        Ok(())
    }
}

/// How the files of a group are made durable.
struct Syncing {
    /// Whether `syncfs` is known to reach the disk on this file system.
    whole: bool,
    /// So many groups more without it, after it was slow: somebody else was writing much.
    rest: u32,
}

/// From so many files on, one `syncfs` costs less than a sync of each.
const MANY: usize = 8;
/// Threads for a sync of each: the disk takes several flushes at once.
const THREADS: usize = 8;
/// A `syncfs` slower than this for each file of its group is not worth it.
const SLOW: Duration = Duration::from_millis(3);

impl Syncing {
    fn of(root: &File) -> Syncing {
        // ext2–4, XFS, Btrfs, F2FS, ZFS, tmpfs. A network or FUSE file system may answer `syncfs` without
        // having asked its server.
        const LOCAL: [u64; 6] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x2FC1_2FC1, 0x0102_1994];
        let whole = rustix::fs::fstatfs(root).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u64)));
        Syncing { whole, rest: 0 }
    }

    fn files(&mut self, folder: &Folder, parcels: &[Parcel]) -> Result<(), StoreError> {
        if self.whole && self.rest == 0 && parcels.len() >= MANY {
            let begun = Instant::now();
            rustix::fs::syncfs(&folder.root)
                .map_err(|error| trouble("sync the file system of", &folder.path)(error.into()))?;
            let each = begun.elapsed() / u32::try_from(parcels.len()).unwrap_or(u32::MAX);
            if each > SLOW {
                self.rest = 16;
            }
            return Ok(());
        }
        self.rest = self.rest.saturating_sub(1);
        if parcels.len() < 3 {
            return parcels.iter().try_for_each(|parcel| folder.sync(&parcel.receipt));
        }
        let share = parcels.len().div_ceil(THREADS);
        std::thread::scope(|scope| {
            let threads: Vec<_> = parcels
                .chunks(share)
                .map(|chunk| {
                    scope.spawn(move || chunk.iter().try_for_each(|parcel| folder.sync(&parcel.receipt)))
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(StoreError::Poisoned)))
        })
    }
}

/// So much of a message is held before its file is made: most messages are written by one call.
pub(super) const HELD: usize = 128 * 1024;

/// A message on its way to the disk.
pub struct Incoming<'a> {
    folder: &'a Folder,
    number: u64,
    held: Vec<u8>,
    file: Option<File>,
    hash: ring::digest::Context,
    size: u64,
}

/// A message that lies aside, whole, and not yet synced.
#[derive(Debug)]
pub struct Receipt {
    number: u64,
    /// Of its bytes.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
    /// The start of its header's hash.
    pub head: u64,
    /// The date to file it under: seconds since 1970.
    pub date: Option<i64>,
    /// Where that is from.
    pub date_from: DateSource,
}

impl Receipt {
    fn name(&self) -> String {
        self.number.to_string()
    }
}

impl Folder {
    /// Begins a message. `buffer` is reused from the last one.
    pub fn begin(&self, mut buffer: Vec<u8>) -> Incoming<'_> {
        buffer.clear();
        Incoming {
            folder: self,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            held: buffer,
            file: None,
            hash: ring::digest::Context::new(&ring::digest::SHA256),
            size: 0,
        }
    }

    /// Fails if `needed` bytes have no room.
    pub fn room_for(&self, needed: u64) -> Result<(), StoreError> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|error| trouble("ask for free space in", &self.path)(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed {
            let (needed, free) = (ByteSize(needed), ByteSize(free));
            return Err(StoreError::NoRoom { path: self.path.clone(), needed, free });
        }
        Ok(())
    }

    /// Whether so many bytes are more than the whole file system can hold.
    pub fn is_too_small_for(&self, size: u64) -> Result<bool, StoreError> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|error| trouble("ask for the size of", &self.path)(error.into()))?;
        // Some file systems do not say.
        Ok(stat.f_blocks > 0 && size > stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// The store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the messages lie now.
    pub fn places(&self) -> &Places {
        &self.places
    }

    fn sync(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = || self.path.join(ASIDE).join(receipt.name());
        let file = rustix::fs::openat(&self.aside, receipt.name(), flags, Mode::empty())
            .map_err(|error| trouble("open", path())(error.into()))?;
        rustix::fs::fsync(file.as_fd()).map_err(|error| trouble("sync", path())(error.into()))
    }

    /// Removes what lies aside. Should that fail, the next start does it.
    pub fn discard(&self, receipt: &Receipt) {
        let _ = rustix::fs::unlinkat(&self.aside, receipt.name(), AtFlags::empty());
    }
}

impl Incoming<'_> {
    /// Takes a piece of the content.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        match &mut self.file {
            Some(file) => {
                file.write_all(bytes).map_err(trouble("write", self.folder.path.join(ASIDE)))?;
            }
            None => {
                self.held.extend_from_slice(bytes);
                if self.held.len() > HELD {
                    self.file = Some(self.make()?);
                }
            }
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The message is whole. Gives back the buffer.
    pub fn finish(self) -> Result<(Receipt, Vec<u8>), StoreError> {
        if self.file.is_none() {
            self.make()?;
        }
        let (end, _) = read::header_end(&self.held);
        let header = &self.held[..end];
        let (date, date_from) = filing_date(header);
        let receipt = Receipt {
            number: self.number,
            sha256: Digest::from_ring(self.hash.finish()),
            size: self.size,
            head: head_hash(header),
            date,
            date_from,
        };
        Ok((receipt, self.held))
    }

    /// The message is not wanted. Gives back the buffer.
    pub fn abandon(self) -> Vec<u8> {
        if self.file.is_some() {
            let _ = rustix::fs::unlinkat(&self.folder.aside, self.number.to_string(), AtFlags::empty());
        }
        self.held
    }

    /// What is at hand of it, for the quarantine: at most its beginning.
    pub fn beginning(&self) -> &[u8] {
        &self.held
    }

    fn make(&self) -> Result<File, StoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let path = || self.folder.path.join(ASIDE).join(self.number.to_string());
        let file =
            rustix::fs::openat(&self.folder.aside, self.number.to_string(), flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| trouble("make", path())(error.into()))?;
        let mut file = File::from(file);
        file.write_all(&self.held).map_err(trouble("write", path()))?;
        Ok(file)
    }
}

/// The hash by which a header is known again when TOP shows it: over its lines, without the empty one.
pub fn head_hash(header: &[u8]) -> u64 {
    Digest::of(header.trim_ascii_end()).brief()
}

/// A date outside of these is a slip of a clock or a trick, and would make a folder nobody looks into.
const EARLIEST: i64 = 0;
const LATEST: i64 = 4_102_444_800;

/// The date to file a message under: the topmost `Received`, for it was written by our own server, else
/// `Date`, else none.
pub(super) fn filing_date(header: &[u8]) -> (Option<i64>, DateSource) {
    let sane = |date: &i64| (EARLIEST..LATEST).contains(date);
    let received = read::fields(header).find(|field| field.is("Received")).and_then(|field| {
        let at = memchr::memrchr(b';', field.value)?;
        read::date(&field.value[at + 1..]).filter(sane)
    });
    if received.is_some() {
        return (received, DateSource::Received);
    }
    let date = read::fields(header).find(|field| field.is("Date"));
    match date.and_then(|field| read::date(field.value)).filter(sane) {
        Some(date) => (Some(date), DateSource::Date),
        None => (None, DateSource::None),
    }
}
