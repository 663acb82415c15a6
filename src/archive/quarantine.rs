//! What could not be archived, and why: a small JSON file for each message in `quarantine/`, with the
//! beginning of what came, if something did. Every run tries these messages again.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::known::Known;
use super::store::{private, private_folder};

/// The folder's name within the store.
pub const NAME: &str = "quarantine";

/// A message that could not be archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// `user@host` or `user@host:port`
    pub mailbox: String,
    /// The server's name for it, or its number where there is none.
    pub message: String,
    /// Octets by LIST.
    pub listed: u64,
    /// The last reason.
    pub reason: String,
    /// The first time: RFC 3339.
    pub first: String,
    /// The last time.
    pub last: String,
    /// In how many runs.
    pub runs: u32,
}

fn file(store: &Path, mailbox: &str, message: &str) -> PathBuf {
    let name = Digest::of(format!("{mailbox}\n{message}").as_bytes()).short(20);
    store.join(NAME).join(format!("{name}.json"))
}

/// Notes a failure; `beginning` is what came of the message.
pub fn note(
    store: &Path,
    mailbox: &str,
    message: &str,
    listed: u64,
    reason: &str,
    beginning: &[u8],
    now: i64,
) -> io::Result<()> {
    private_folder(&store.join(NAME))?;
    let path = file(store, mailbox, message);
    let now = jiff::Timestamp::from_second(now).map_err(io::Error::other)?.to_string();
    let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    let note = Note {
        mailbox: mailbox.to_owned(),
        message: message.to_owned(),
        listed,
        reason: reason.to_owned(),
        first: before.as_ref().map_or_else(|| now.clone(), |before| before.first.clone()),
        last: now,
        runs: before.map_or(0, |before| before.runs) + 1,
    };
    if !beginning.is_empty() {
        let path = path.with_extension("partial.eml");
        private().write(true).create(true).truncate(true).open(path)?.write_all(beginning)?;
    }
    let aside = path.with_extension("new");
    let mut out = private().write(true).create(true).truncate(true).open(&aside)?;
    serde_json::to_writer_pretty(&mut out, &note)?;
    out.write_all(b"\n")?;
    fs::rename(aside, path)
}

/// All notes.
pub fn notes(store: &Path) -> io::Result<Vec<Note>> {
    let entries = match fs::read_dir(store.join(NAME)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut notes = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            notes.extend(serde_json::from_slice::<Note>(&fs::read(path)?));
        }
    }
    notes.sort_by(|a, b| (&a.mailbox, &a.message).cmp(&(&b.mailbox, &b.message)));
    Ok(notes)
}

/// Removes the notes of messages that are archived by now, and those that `outdated` says it of.
pub fn release(store: &Path, known: &Known, outdated: impl Fn(&Note) -> bool) -> io::Result<()> {
    for note in notes(store)? {
        let archived = known
            .mailbox(&note.mailbox)
            .and_then(|mailbox| mailbox.uidls.get(note.message.as_str()))
            .is_some_and(|uid| uid.certain);
        if archived || outdated(&note) {
            let path = file(store, &note.mailbox, &note.message);
            let _ = fs::remove_file(path.with_extension("partial.eml"));
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
