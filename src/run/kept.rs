//! `keep`: the exact bytes of every letter that was accepted, as files.
//!
//! A letter is written aside before it is handed over and takes its place when its outcome is
//! durable, so that nothing is held in memory and no letter that was accepted is without its copy:
//! what a dead run left aside is put in place, or taken away, by the next run, as the ledger says.
//! The files are synced together when a run ends.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::diagnostic::with_causes;
use crate::exit::Exit;
use crate::failpoint;
use crate::job::Keep;
use crate::ledger::{Edition, Ledger, LedgerError, Reader, Settlement, Sqlite};
use crate::letter::{Content, Outcome, Purpose};
use crate::plan::Plan;
use crate::talk;

use super::stop::Stop;

/// The longest part of a name that is made of a key, in octets; file systems take 255 for all of it.
const LONGEST: usize = 120;

/// The copies of an edition's letters.
#[derive(Debug)]
pub(super) struct Kept {
    root: PathBuf,
    edition: String,
    /// Where letters lie that have no outcome yet, by their number.
    aside: PathBuf,
    /// Where each of them belongs.
    places: Mutex<HashMap<u64, PathBuf>>,
    /// Whether it is closed. Held while a letter is written: some are still being made when a run ends.
    closed: RwLock<bool>,
}

/// Why letters cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotKept {
    /// The folder, or a file in it.
    #[error("a copy of the letters cannot be kept: {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What a run left aside is not to be told.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl NotKept {
    fn of(path: &Path) -> impl Fn(io::Error) -> NotKept {
        move |source| NotKept::File { path: path.to_owned(), source }
    }
}

impl Kept {
    /// Opens the folder for an edition, and puts in order what a run left that died. `secret` is the
    /// ledger's: several projects may keep their letters in one folder.
    pub(super) fn open(
        root: &Path,
        secret: &[u8; 32],
        edition: &Edition,
        reader: &dyn Reader,
    ) -> Result<Kept, NotKept> {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(&(edition.job.len() as u64).to_be_bytes()).update(edition.job.as_bytes());
        hasher.update(edition.name.as_bytes());
        let aside = root.join(".aside").join(&hasher.finalize().to_hex()[..16]);
        let kept = Kept {
            root: root.to_owned(),
            edition: edition.name.clone(),
            aside,
            places: Mutex::default(),
            closed: RwLock::default(),
        };
        for folder in [&kept.aside, &root.join(safe(&edition.name))] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(NotKept::of(folder))?;
        }
        kept.put_in_order(edition, reader)?;
        Ok(kept)
    }

    fn put_in_order(&self, edition: &Edition, reader: &dyn Reader) -> Result<(), NotKept> {
        for entry in fs::read_dir(&self.aside).map_err(NotKept::of(&self.aside))? {
            let path = entry.map_err(NotKept::of(&self.aside))?.path();
            let seq = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let letter = match seq {
                Some(seq) => reader.letter(edition.id, seq)?,
                None => None,
            };
            let accepted = letter.filter(|letter| {
                letter.record.rcpts.iter().any(|rcpt| rcpt.rcpt.outcome == Outcome::Accepted)
            });
            // A letter that was being written when the power went is not whole.
            let whole = match accepted.as_ref().and_then(|letter| letter.digest) {
                Some(digest) => {
                    let mut hasher = blake3::Hasher::new();
                    let read = File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
                    read.map_err(NotKept::of(&path))?;
                    *hasher.finalize().as_bytes() == digest
                }
                None => false,
            };
            match accepted.and_then(|letter| Some((letter.record.key, letter.record.message_id?))) {
                Some((key, id)) if whole => {
                    let place = place(&self.root, &self.edition, &key, &id);
                    fs::rename(&path, &place).map_err(NotKept::of(&place))?;
                }
                Some((key, _)) => {
                    // Its copy may be in its place: then this is of an attempt that came to nothing.
                    talk::error(&format!("what lay aside of the letter to {key} is not what was accepted"));
                    fs::remove_file(&path).map_err(NotKept::of(&path))?;
                }
                None => fs::remove_file(&path).map_err(NotKept::of(&path))?,
            }
        }
        Ok(())
    }

    /// Writes a letter aside, before it is handed over.
    pub(super) fn write(
        &self,
        seq: u64,
        key: &str,
        message_id: &str,
        content: &Content,
    ) -> Result<(), NotKept> {
        let path = self.aside.join(seq.to_string());
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            // The run is over; nobody gets this letter now.
            return Err(NotKept::of(&path)(io::ErrorKind::BrokenPipe.into()));
        }
        let write = || {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            let mut file = BufWriter::with_capacity(1 << 16, file);
            content.iter().try_for_each(|stretch| file.write_all(stretch))?;
            file.flush()
        };
        write().map_err(NotKept::of(&path))?;
        let place = place(&self.root, &self.edition, key, message_id);
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(seq, place);
        Ok(())
    }

    /// Hears of outcomes that are durable. What cannot be put in its place now stays aside, and the
    /// next run puts it there.
    pub(super) fn settled(&self, settlements: &[Settlement]) {
        for settlement in settlements {
            let place = self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&settlement.seq);
            let Some(place) = place else { continue };
            let aside = self.aside.join(settlement.seq.to_string());
            let accepted = settlement.rcpts.iter().any(|rcpt| rcpt.outcome == Outcome::Accepted);
            failpoint::reach("kept.place.before");
            let done = match accepted {
                true => fs::rename(&aside, &place),
                false => fs::remove_file(&aside),
            };
            if let Err(error) = done {
                talk::error(&format!(
                    "the copy {} is not in its place {}: {error}",
                    aside.display(),
                    place.display()
                ));
            }
            failpoint::reach("kept.place.after");
        }
    }

    /// Syncs what was kept, and takes away what was made and never sent.
    pub(super) fn close(&self) -> Result<(), NotKept> {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        for (seq, _) in self.places.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            let path = self.aside.join(seq.to_string());
            fs::remove_file(&path).map_err(NotKept::of(&path))?;
        }
        let folder = File::open(&self.root).map_err(NotKept::of(&self.root))?;
        failpoint::reach("kept.sync.before");
        rustix::fs::syncfs(&folder).map_err(|error| NotKept::of(&self.root)(error.into()))?;
        failpoint::reach("kept.sync.after");
        // Both are there as long as a copy or another run needs them.
        let _ = fs::remove_dir(&self.aside);
        let _ = fs::remove_dir(self.root.join(".aside"));
        Ok(())
    }
}

/// The folder the letters are kept in, where the job asks for one. Trials have an outbox.
pub(super) fn of(plan: &Plan, edition: &Edition, ledger: &Sqlite) -> Result<Option<Kept>, Stop> {
    let (Purpose::Real, Some(Keep::Folder(folder))) = (plan.purpose, &plan.job.keep) else {
        return Ok(None);
    };
    let kept = Kept::open(folder, &ledger.secret(), edition, &*ledger.reader()?);
    kept.map(Some).map_err(|error| Stop::new(Exit::Io, with_causes(&error)))
}

/// Closes it, and says what went wrong.
pub(super) fn close(kept: Option<&Kept>) {
    if let Some(Err(error)) = kept.map(Kept::close) {
        talk::error(&with_causes(&error));
    }
}

/// Where the copy of a letter lies: in a folder for its edition, under its key and a part of its
/// Message-ID, which is a hash of job, edition, key and generation: no other letter has this name.
pub(super) fn place(root: &Path, edition: &str, key: &str, message_id: &str) -> PathBuf {
    let hash: String = message_id.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    root.join(safe(edition)).join(format!("{}-{hash}.eml", safe(key)))
}

/// A name of a file, whatever is in the words: no separators, no hidden names, no end of a line.
fn safe(words: &str) -> String {
    let mut name = String::new();
    for sign in words.chars() {
        let plain = sign.is_alphanumeric()
            || matches!(sign, '-' | '_' | '@' | '+' | '=')
            || (sign == '.' && !name.is_empty());
        if name.len() + sign.len_utf8() > LONGEST {
            break;
        }
        name.push(if plain { sign } else { '_' });
    }
    if name.is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letter::Slice;

    #[test]
    fn nothing_is_written_once_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept {
            root: folder.path().to_owned(),
            edition: "1".into(),
            aside: folder.path().join("aside"),
            places: Mutex::default(),
            closed: RwLock::default(),
        };
        fs::create_dir(&kept.aside).expect("made");
        let content = Content::new(b"x".to_vec(), vec![Slice::Own(0..1)]);
        let write = |seq| kept.write(seq, "ada@example.org", "<id@example.org>", &content);
        write(1).expect("written");
        assert_eq!(fs::read(kept.aside.join("1")).expect("there"), b"x");
        kept.close().expect("closed");
        write(2).expect_err("refused");
        assert!(!kept.aside.exists(), "the letter that nobody got is gone, and no other has come");
    }

    #[test]
    fn names_stay_in_their_folder() {
        let long = "界".repeat(200);
        for (words, name) in [
            ("ada@example.org", "ada@example.org"),
            ("张伟+x@例子.中国", "张伟+x@例子.中国"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("", "_"),
            (".", "_"),
            ("..", "_."),
            ("a\nb\0c\u{202e}", "a_b_c_"),
            (long.as_str(), &"界".repeat(40)),
        ] {
            let safe = safe(words);
            assert_eq!(safe, name, "{words}");
            assert!(!safe.starts_with('.') && !safe.contains('/') && safe.len() <= LONGEST, "{safe}");
        }
        let place = place(Path::new("/kept"), "2026/11", "a/b", "<0123456789abcdef0123@example.com>");
        assert_eq!(place, Path::new("/kept/2026_11/a_b-0123456789abcdef.eml"));
    }
}
