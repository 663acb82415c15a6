//! Proves an archive: every file is what the journal says, the journal is whole, manifest and index say
//! the same, and nothing lies there that nobody knows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::digest::Digest;
use super::index::{self, IndexError};
use super::journal::{self, Damage, Position, What};
use super::manifest;
use super::store::{is_inside, whereabouts};

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
    /// The index has a message that the journal does not, by its line.
    OnlyInIndex(u64),
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
            Finding::OnlyInIndex(line) => write!(f, "index: line {line} of the journal has no such message"),
            Finding::Index(why) => write!(f, "{why}"),
        }
    }
}

/// What was proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proof {
    /// Messages with a file.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines of the journal.
    pub lines: u64,
}

/// A file as the last line that names it says.
struct Expected {
    digest: Digest,
    size: u64,
    line: u64,
}

/// Reads everything and hands every finding to `each`.
pub fn verify(store: &Path, mut each: impl FnMut(Finding)) -> io::Result<Proof> {
    let mut proof = Proof::default();
    let mut expected: BTreeMap<String, Expected> = BTreeMap::new();
    let mut kept_lines: HashMap<u64, Digest> = HashMap::new();
    let Some(mut lines) = journal::read(store, Position::START)? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no journal.jsonl"));
    };
    while let Some(found) = lines.next_line()? {
        if let Some(damage) = found.damage {
            each(Finding::Journal(damage));
        }
        let Some(line) = found.line else { continue };
        proof.lines += 1;
        if let (What::Kept, Some(digest)) = (line.entry.what, line.entry.sha256) {
            if !is_inside(&line.entry.path) {
                each(Finding::Outside(line.number));
                continue;
            }
            kept_lines.insert(line.number, digest);
            let file = Expected { digest, size: line.entry.size, line: line.number };
            expected.insert(line.entry.path, file);
        }
    }
    let places = files(store, &expected, &mut proof, &mut each);
    unknown(store, &places, &mut each)?;
    check_manifest(store, &expected, &mut each)?;
    check_index(store, &expected, &kept_lines, &mut each);
    Ok(proof)
}

/// Hashes all files, in as many threads as there are processors. Returns where they lie.
fn files(
    store: &Path,
    expected: &BTreeMap<String, Expected>,
    proof: &mut Proof,
    each: &mut impl FnMut(Finding),
) -> HashSet<PathBuf> {
    let all: Vec<(&String, &Expected)> = expected.iter().collect();
    let next = AtomicUsize::new(0);
    let check = |(path, expected): (&String, &Expected)| -> (Option<PathBuf>, Option<Finding>) {
        let Some(place) = whereabouts(store, path) else {
            return (None, Some(Finding::Missing(path.clone())));
        };
        let finding = match File::open(store.join(&place)).and_then(Digest::of_reader) {
            Ok((digest, size)) if digest == expected.digest && size == expected.size => None,
            Ok(_) => Some(Finding::Changed(place.clone())),
            Err(error) => Some(Finding::Unreadable(place.clone(), error.to_string())),
        };
        (Some(place.into()), finding)
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut results = Vec::new();
                    while let Some(&file) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        results.push((file.0, check(file)));
                    }
                    results
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    let mut findings: Vec<(&String, Finding)> = Vec::new();
    let mut places = HashSet::with_capacity(results.len());
    for (path, (place, finding)) in results {
        places.extend(place);
        findings.extend(finding.map(|finding| (path, finding)));
    }
    proof.files = (all.len() - findings.len()) as u64;
    proof.bytes = all.iter().map(|(_, expected)| expected.size).sum();
    findings.sort_by_key(|(path, _)| path.as_str());
    findings.into_iter().for_each(|(_, finding)| each(finding));
    places
}

/// Files under the folders of messages that no line names.
fn unknown(store: &Path, places: &HashSet<PathBuf>, each: &mut impl FnMut(Finding)) -> io::Result<()> {
    for folder in ["eml", "new", "cur"] {
        let root = store.join(folder);
        if !root.is_dir() {
            continue;
        }
        for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
            let entry = entry?;
            let Ok(inside) = entry.path().strip_prefix(store) else { continue };
            if !entry.file_type().is_dir() && !places.contains(inside) {
                each(Finding::Unknown(inside.display().to_string()));
            }
        }
    }
    Ok(())
}

fn check_manifest(
    store: &Path,
    expected: &BTreeMap<String, Expected>,
    each: &mut impl FnMut(Finding),
) -> io::Result<()> {
    let mut named: HashMap<String, bool> = HashMap::new();
    match File::open(store.join(manifest::NAME)) {
        Ok(file) => {
            for line in BufReader::new(file).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                let Some((hash, path)) = line.split_once("  ") else { continue };
                let same = expected.get(path).map(|expected| Digest::parse(hash) == Some(expected.digest));
                match same {
                    Some(same) => *named.entry(path.to_owned()).or_insert(true) &= same,
                    None => each(Finding::OnlyInManifest(path.to_owned())),
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for path in expected.keys().filter(|path| named.get(*path) != Some(&true)) {
        each(Finding::NotInManifest(path.clone()));
    }
    Ok(())
}

fn check_index(
    store: &Path,
    expected: &BTreeMap<String, Expected>,
    kept: &HashMap<u64, Digest>,
    each: &mut impl FnMut(Finding),
) {
    let mut seen = HashSet::with_capacity(kept.len());
    let mut odd = Vec::new();
    let read = index::entries(store, |line, hash| {
        if kept.get(&line).is_some_and(|digest| Digest::parse(hash) == Some(*digest)) {
            seen.insert(line);
        } else {
            odd.push(line);
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
    odd.into_iter().for_each(|line| each(Finding::OnlyInIndex(line)));
    for (path, _) in expected.iter().filter(|(_, expected)| !seen.contains(&expected.line)) {
        each(Finding::NotInIndex(path.clone()));
    }
}
