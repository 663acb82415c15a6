//! `manifest-sha256.txt`: a line for each file, as `sha256sum -c` reads it. It is derived from the
//! journal and mended at start.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::journal::{self, Entry, Position};
use super::store::{is_inside, private};

/// The file's name within the store.
pub const NAME: &str = "manifest-sha256.txt";

/// The manifest, open for appending.
pub(super) struct Manifest {
    out: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Manifest {
    /// Compares the manifest in `folder` with its journal, and writes it anew if they differ. While the journal
    /// is not `whole`, or does not know all that the manifest names, the manifest stays: it alone may know what lost
    /// lines said. Returns the paths of which a whole journal knows nothing: lines at its end are lost, or all of it.
    pub(super) fn mend(folder: &Path, whole: bool) -> io::Result<(Manifest, Vec<String>)> {
        let differs = whole && !agrees(folder)?;
        let missed = if differs { missed(folder)? } else { Vec::new() };
        if differs && missed.is_empty() {
            rewrite(folder)?;
        }
        let file = private().append(true).create(true).open(folder.join(NAME))?;
        Ok((Manifest { out: BufWriter::with_capacity(64 * 1024, file), failed: None }, missed))
    }

    /// Adds the line of an entry. A failure is told by [`Manifest::flush`]: the message is archived all the
    /// same, and the next start mends this file.
    pub(super) fn note(&mut self, entry: &Entry) {
        if let Some(text) = line(entry)
            && let Err(error) = self.out.write_all(text.as_bytes())
        {
            self.failed.get_or_insert(error);
        }
    }

    /// Writes out and syncs.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.out.flush()?;
        self.out.get_ref().sync_data()
    }
}

/// The line of an entry that has a file: the hash, two blanks, the path.
pub(super) fn line(entry: &Entry) -> Option<String> {
    let sha256 = entry.sha256.filter(|_| entry.what.has_file() && is_inside(&entry.path))?;
    Some(format!("{sha256}  {}\n", entry.path))
}

/// Writes the manifest anew from the journal, aside first.
pub fn rewrite(folder: &Path) -> io::Result<()> {
    let aside = folder.join(format!("{NAME}.new"));
    let mut out = BufWriter::new(private().write(true).create(true).truncate(true).open(&aside)?);
    each_line(folder, |text| out.write_all(text.as_bytes()).map(|()| true))?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&aside, folder.join(NAME))
}

/// Hands the hash and the path of every line to `each`.
pub fn read(folder: &Path, mut each: impl FnMut(&str, &str)) -> io::Result<()> {
    let file = match File::open(folder.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in BufReader::with_capacity(64 * 1024, file).split(b'\n') {
        let line = line?;
        if let Some((hash, path)) = String::from_utf8_lossy(&line).split_once("  ") {
            each(hash, path);
        }
    }
    Ok(())
}

/// The files that the manifest names. To be read before the archive is opened: that may write it anew.
pub fn vouched(folder: &Path) -> io::Result<HashMap<String, Digest>> {
    let mut vouched = HashMap::new();
    read(folder, |hash, path| {
        if let Some(digest) = Digest::parse(hash).filter(|_| is_inside(path)) {
            vouched.insert(path.to_owned(), digest);
        }
    })?;
    Ok(vouched)
}

/// The paths in the manifest of which no line knows, nor of the bytes under another one, in order. A line is synced
/// before the manifest has it, so these had one.
fn missed(folder: &Path) -> io::Result<Vec<String>> {
    let mut missed = vouched(folder)?;
    let mut digests = HashSet::new();
    each_entry(folder, |entry| {
        missed.remove(&entry.path);
        digests.extend(entry.sha256);
        Ok(true)
    })?;
    missed.retain(|_, digest| !digests.contains(digest));
    let mut missed: Vec<String> = missed.into_keys().collect();
    missed.sort_unstable();
    Ok(missed)
}

fn agrees(folder: &Path) -> io::Result<bool> {
    let path: PathBuf = folder.join(NAME);
    let mut reader = match File::open(&path) {
        Ok(file) => BufReader::with_capacity(64 * 1024, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut have = Vec::new();
    let same = each_line(folder, |text| {
        have.clear();
        io::Read::take(&mut reader, text.len() as u64 + 1).read_until(b'\n', &mut have)?;
        Ok(have == text.as_bytes())
    })?;
    Ok(same && reader.fill_buf()?.is_empty())
}

/// Hands every line that the journal asks for to `each`, until it says no.
fn each_line(folder: &Path, mut each: impl FnMut(&str) -> io::Result<bool>) -> io::Result<bool> {
    each_entry(folder, |entry| line(entry).map_or(Ok(true), |text| each(&text)))
}

/// Hands every entry of the journal that has a file to `each`, until it says no.
fn each_entry(folder: &Path, mut each: impl FnMut(&Entry) -> io::Result<bool>) -> io::Result<bool> {
    let Some(mut lines) = journal::read(folder, Position::START)? else { return Ok(true) };
    while let Some(found) = lines.next_line()? {
        if let Some(line) = found.line.filter(|line| line.entry.what.has_file())
            && !each(&line.entry)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}
