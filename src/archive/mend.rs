//! Mends a journal that has lost lines, as far as that can be honest: files that no line names any more are taken
//! in again by their content, what only the manifest still names is entered as lost, and the damage is sealed.
//! Nothing in the journal is changed or taken out; nobody can say what else a lost line said.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use super::digest::Digest;
use super::journal::{self, Damage, Entry, Position, What};
use super::shelf::Places;
use super::store::{HELD, Store, StoreError, filing_date, head_hash, trouble};
use super::verify;
use crate::read;

/// What was mended.
#[derive(Debug, Default)]
pub struct Mended {
    /// Damage that is sealed now.
    pub sealed: Vec<Damage>,
    /// Files that were taken in again.
    pub found: Vec<String>,
    /// Files that the manifest names, and that are missing or changed.
    pub lost: Vec<String>,
    /// Files that no line names, and whose bytes nothing vouches for.
    pub strangers: Vec<String>,
}

/// Mends the journal of `store`, of whose files `vouched` is what the manifest says.
pub fn mend(store: &mut Store, vouched: &HashMap<String, Digest>, now: i64) -> Result<Mended, StoreError> {
    let folder = store.folder();
    let (mut mended, entries) =
        look(folder.path(), vouched, now).map_err(trouble("look for lost files in", folder.path()))?;
    if !entries.is_empty() {
        store.enter(&entries)?;
    }
    if !store.damage().is_empty() {
        mended.sealed = store.damage().to_vec();
        store.seal(None, now)?;
    }
    Ok(mended)
}

fn look(store: &Path, vouched: &HashMap<String, Digest>, now: i64) -> io::Result<(Mended, Vec<Entry>)> {
    let places = Places::of(store);
    let Named { mut paths, mut digests } = Named::by_the_journal(store, &places)?;
    let (mut mended, mut entries) = (Mended::default(), Vec::new());
    let mut missed: Vec<_> = vouched.iter().filter(|(path, _)| !paths.contains(*path)).collect();
    missed.sort();
    let mut away = Vec::new();
    let mut wanted = HashSet::new();
    for (path, &digest) in missed {
        // Where its bytes have another place by now, that is what a later line says.
        if digests.contains(&digest) {
            continue;
        }
        let place = places.find(path);
        match place.as_ref().map(|place| examine(store, place, path, now)) {
            Some(Ok(entry)) if entry.sha256 == Some(digest) => {
                digests.insert(digest);
                mended.found.push(path.clone());
                entries.push(entry);
            }
            _ => {
                wanted.insert(digest);
                away.push((path, digest, place.clone()));
            }
        }
        paths.extend(place);
        paths.insert(path.clone());
    }
    for place in verify::strangers(store, |path| paths.contains(path))? {
        let path = places.filed(&place);
        // A file that was moved may have any name: the manifest has its bytes.
        let vouches = |hash: &Digest| names(&path, *hash) || wanted.contains(hash);
        match examine(store, &place, &path, now) {
            Ok(entry) if entry.sha256.filter(vouches).is_some_and(|hash| digests.insert(hash)) => {
                mended.found.push(path);
                entries.push(entry);
            }
            _ => mended.strangers.push(place),
        }
    }
    // Only now is it known what lies nowhere.
    for (path, digest, place) in away {
        if digests.insert(digest) {
            mended.lost.push(path.clone());
            entries.push(Entry {
                path: path.clone(),
                sha256: Some(digest),
                ..Entry::new(now, What::Lost, "")
            });
        } else {
            mended.strangers.extend(place);
        }
    }
    Ok((mended, entries))
}

/// What lines of the journal name: files, as they were filed and where they lie now, and bytes.
struct Named {
    paths: HashSet<String>,
    digests: HashSet<Digest>,
}

impl Named {
    fn by_the_journal(store: &Path, places: &Places) -> io::Result<Named> {
        let mut named = Named { paths: HashSet::new(), digests: HashSet::new() };
        let Some(mut lines) = journal::read(store, Position::START)? else { return Ok(named) };
        while let Some(found) = lines.next_line()? {
            let Some(entry) = found.line.map(|line| line.entry).filter(|entry| entry.what.has_file()) else {
                continue;
            };
            named.paths.extend(places.find(&entry.path));
            named.paths.insert(entry.path);
            named.digests.extend(entry.sha256);
        }
        Ok(named)
    }
}

/// The entry of a file that lies at `place` and is filed as `path`, by its content.
fn examine(store: &Path, place: &str, path: &str, now: i64) -> io::Result<Entry> {
    let full = store.join(place);
    if !fs::symlink_metadata(&full)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = File::open(full)?;
    let mut head = Vec::new();
    (&file).take(HELD as u64).read_to_end(&mut head)?;
    file.rewind()?;
    let (digest, size) = Digest::of_reader(&file)?;
    // The run that wrote it may have died before it did this.
    file.sync_all()?;
    let (end, _) = read::header_end(&head);
    let header = &head[..end];
    let (date, date_from) = filing_date(header);
    Ok(Entry {
        sha256: Some(digest),
        path: path.to_owned(),
        size,
        head: Some(head_hash(header)),
        date,
        date_from,
        ..Entry::new(now, What::Found, "")
    })
}

/// Whether the name of a file holds the hash of its bytes, or the first 20 digits of it, as every name that was
/// given here does.
fn names(path: &str, digest: Digest) -> bool {
    let leaf = path.rsplit('/').next().unwrap_or(path);
    let hash = digest.to_string();
    let mut runs = leaf.split(|sign: char| !sign.is_ascii_alphanumeric());
    runs.any(|run| matches!(run.len(), 20 | 64) && hash.starts_with(run))
}
