//! Proves an archive: every file is what the journal says, the journal is whole, manifest and index say
//! the same, and nothing lies there that nobody knows.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::digest::Digest;
use super::index::{self, IndexError};
use super::journal::{self, Damage, Damages, Position};
use super::manifest;
use super::shelf::Places;
use super::store::is_inside;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The journal.
    Journal(Damage),
    /// A file of the journal is not there.
    Missing(String),
    /// A file holds other bytes than were archived.
    Changed(String),
    /// A file cannot be read.
    Unreadable(String, String),
    /// A file that no line of the journal names.
    Unknown(String),
    /// A path that leads out of the archive.
    Outside(u64),
    /// The manifest lacks the line of this file, or has another hash.
    NotInManifest(String),
    /// The manifest names a file that the journal does not.
    OnlyInManifest(String),
    /// The index lacks a message.
    NotInIndex(String),
    /// The index has a message that the journal does not.
    OnlyInIndex(String),
    /// The index cannot be read.
    Index(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Journal(damage) => write!(f, "{damage}"),
            Finding::Missing(path) => write!(f, "missing: {path}"),
            Finding::Changed(path) => write!(f, "changed: {path} does not hold the bytes that were archived"),
            Finding::Unreadable(path, why) => write!(f, "unreadable: {path}: {why}"),
            Finding::Unknown(path) => write!(f, "unknown: {path} is in no line of the journal"),
            Finding::Outside(line) => {
                write!(f, "line {line} of the journal names a path outside of the archive")
            }
            Finding::NotInManifest(path) => write!(f, "manifest: {path} is missing or has another hash"),
            Finding::OnlyInManifest(path) => write!(f, "manifest: {path} is in no line of the journal"),
            Finding::NotInIndex(path) => write!(f, "index: {path} is missing"),
            Finding::OnlyInIndex(path) => write!(f, "index: {path} is in no line of the journal"),
            Finding::Index(why) => write!(f, "{why}"),
        }
    }
}

/// What was proved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Messages with a file.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines of the journal.
    pub lines: u64,
    /// What is wrong with the journal and was sealed.
    pub sealed: Vec<Damage>,
}

/// A file as the last line that names it says.
struct Expected {
    path: Box<str>,
    digest: Digest,
    size: u64,
    /// Where its line begins: numbers may come twice after damage.
    offset: u64,
}

/// What the journal says must be there, by path. Of 100,000 messages this is what memory holds.
struct Expectations(Vec<Expected>);

impl Expectations {
    /// Of several lines that name one path the last one counts.
    fn new(mut files: Vec<Expected>) -> Expectations {
        files.sort_by(|a, b| (&a.path, b.offset).cmp(&(&b.path, a.offset)));
        files.dedup_by(|later, first| later.path == first.path);
        Expectations(files)
    }

    fn position(&self, path: &str) -> Option<usize> {
        self.0.binary_search_by(|expected| (*expected.path).cmp(path)).ok()
    }
}

/// Reads everything and hands every finding to `each`.
pub fn verify(store: &Path, mut each: impl FnMut(Finding)) -> io::Result<Proof> {
    let mut proof = Proof::default();
    let mut expected: Vec<Expected> = Vec::new();
    let Some(mut lines) = journal::read(store, Position::START)? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no journal.jsonl"));
    };
    // How many lines have these bytes: the index has all of them, also where a later line names the path again.
    let mut kept: HashMap<Digest, u32> = HashMap::new();
    let mut damages = Damages::default();
    while let Some(found) = lines.next_line()? {
        damages.note(store, &found)?;
        let Some(line) = found.line else { continue };
        proof.lines += 1;
        if let (true, Some(digest)) = (line.entry.what.has_file(), line.entry.sha256) {
            if !is_inside(&line.entry.path) {
                each(Finding::Outside(line.number));
                continue;
            }
            *kept.entry(digest).or_default() += 1;
            let path = line.entry.path.into_boxed_str();
            expected.push(Expected { path, digest, size: line.entry.size, offset: line.offset });
        }
    }
    damages.open.into_iter().for_each(|damage| each(Finding::Journal(damage)));
    proof.sealed = damages.sealed;
    let expected = Expectations::new(expected);
    let moved = files(store, &expected, &mut proof, &mut each);
    let named = |path: &str| moved.contains(path) || expected.position(path).is_some();
    strangers(store, named)?.into_iter().for_each(|path| each(Finding::Unknown(path)));
    check_manifest(store, &expected, &mut each)?;
    check_index(store, &expected, kept, &mut each);
    Ok(proof)
}

/// How many files of the journal are not there. Nothing is hashed.
pub fn missing(store: &Path) -> io::Result<u64> {
    let Some(mut lines) = journal::read(store, Position::START)? else { return Ok(0) };
    let places = Places::of(store);
    let mut missing = HashSet::new();
    while let Some(found) = lines.next_line()? {
        let kept = found.line.map(|line| line.entry).filter(|entry| entry.what.has_file());
        if let Some(entry) = kept.filter(|entry| places.find(&entry.path).is_none()) {
            missing.insert(entry.path);
        }
    }
    Ok(missing.len() as u64)
}

/// Hashes all files, in as many threads as there are processors. Returns where those lie that a mail
/// program has moved.
fn files(
    store: &Path,
    expected: &Expectations,
    proof: &mut Proof,
    each: &mut impl FnMut(Finding),
) -> HashSet<String> {
    let all = &expected.0;
    let next = AtomicUsize::new(0);
    let places = Places::of(store);
    let check = |expected: &Expected| -> (Option<String>, Option<Finding>) {
        let Some(place) = places.find(&expected.path) else {
            return (None, Some(Finding::Missing(expected.path.to_string())));
        };
        let finding = match File::open(store.join(&place)).and_then(Digest::of_reader) {
            Ok((digest, _)) if digest == expected.digest => None,
            Ok(_) => Some(Finding::Changed(place.clone())),
            Err(error) => Some(Finding::Unreadable(place.clone(), error.to_string())),
        };
        (Some(place).filter(|place| **place != *expected.path), finding)
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut results = Vec::new();
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(file) = all.get(at) else { return results };
                        match check(file) {
                            (None, None) => {}
                            (place, finding) => results.push((at, place, finding)),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    let mut findings: Vec<(usize, Finding)> = Vec::new();
    let mut moved = HashSet::new();
    for (at, place, finding) in results {
        moved.extend(place);
        findings.extend(finding.map(|finding| (at, finding)));
    }
    proof.files = (all.len() - findings.len()) as u64;
    proof.bytes = all.iter().map(|expected| expected.size).sum();
    findings.sort_by_key(|(at, _)| *at);
    findings.into_iter().for_each(|(_, finding)| each(finding));
    moved
}

/// Files under the folders of messages that no line names; `named` says whether one does.
pub(super) fn strangers(store: &Path, named: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut strangers = Vec::new();
    for folder in ["eml", "new", "cur"] {
        let root = store.join(folder);
        if !root.is_dir() {
            continue;
        }
        for entry in walkdir::WalkDir::new(&root) {
            let entry = entry?;
            let Ok(inside) = entry.path().strip_prefix(store) else { continue };
            if !entry.file_type().is_dir() && !inside.to_str().is_some_and(&named) {
                strangers.push(inside.display().to_string());
            }
        }
    }
    strangers.sort_unstable();
    Ok(strangers)
}

fn check_manifest(store: &Path, expected: &Expectations, each: &mut impl FnMut(Finding)) -> io::Result<()> {
    // Of each expected file: named, and every time with its hash.
    let mut named: Vec<Option<bool>> = vec![None; expected.0.len()];
    manifest::read(store, |hash, path| match expected.position(path) {
        Some(at) => {
            let same = Digest::parse(hash) == Some(expected.0[at].digest);
            named[at] = Some(named[at].unwrap_or(true) && same);
        }
        None => each(Finding::OnlyInManifest(path.to_owned())),
    })?;
    for (expected, _) in expected.0.iter().zip(&named).filter(|(_, named)| **named != Some(true)) {
        each(Finding::NotInManifest(expected.path.to_string()));
    }
    Ok(())
}

fn check_index(
    store: &Path,
    expected: &Expectations,
    mut kept: HashMap<Digest, u32>,
    each: &mut impl FnMut(Finding),
) {
    let mut odd = Vec::new();
    let read = index::entries(store, |path, hash| {
        match Digest::parse(hash).and_then(|digest| kept.get_mut(&digest)).filter(|lines| **lines > 0) {
            Some(lines) => *lines -= 1,
            None => odd.push(path.to_owned()),
        }
    });
    if let Err(error) = read {
        let why = match error {
            IndexError::Missing => "index: index.db is missing".to_owned(),
            error => error.to_string(),
        };
        each(Finding::Index(why));
        return;
    }
    odd.into_iter().for_each(|path| each(Finding::OnlyInIndex(path)));
    for expected in &expected.0 {
        if let Some(lines) = kept.get_mut(&expected.digest).filter(|lines| **lines > 0) {
            *lines -= 1;
            each(Finding::NotInIndex(expected.path.to_string()));
        }
    }
}
