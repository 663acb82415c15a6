//! What became of a mailbox: the balance between what the server has and what is archived.

use super::listing::{Key, TooMany, key};
use super::quarantine;
use super::session::SessionError;

/// A message that could not be archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its number in the session that failed.
    pub number: u32,
    /// Its UIDL, where it has one.
    pub uidl: Option<Box<str>>,
    /// Why.
    pub reason: String,
}

impl Failure {
    fn key(&self) -> Key {
        key(self.uidl.as_deref(), self.number)
    }
}

/// What became of a mailbox: the balance, and what is to be said about it.
#[derive(Debug, Default)]
pub struct Balance {
    /// Messages that the last listing had; `None` if there was no listing.
    pub on_server: Option<u64>,
    /// Archived now.
    pub new: u64,
    /// Archived before.
    pub known: u64,
    /// Fetched now; their bytes were archived already, under another UIDL.
    pub duplicate: u64,
    /// Not fetched: they are archived messages by size and header, or beyond a limit.
    pub skipped: u64,
    /// Could not be archived.
    pub failed: Vec<Failure>,
    /// Bytes archived now.
    pub bytes: u64,
    /// Messages that the server counts or lists in a way that they cannot be had.
    pub unlisted: u64,
    /// Deletions that the server refused, at DELE or at QUIT.
    pub refused: u64,
    /// Deletions that QUIT agreed to.
    pub deleting: u64,
    /// Deletions of an earlier run that this listing shows as done.
    pub deleted: u64,
    /// Deletions that were refused because there are too many.
    pub too_many: Option<TooMany>,
    /// Messages that were due for deletion and stay, because their files are not what they must be.
    pub unsound: u64,
    /// What is worth knowing.
    pub warnings: Vec<String>,
    /// What ended the work before its end.
    pub error: Option<SessionError>,
}

impl Balance {
    /// Messages on the server of which nothing can be said.
    pub fn unaccounted(&self) -> u64 {
        let told = self.new + self.known + self.duplicate + self.skipped + self.failed.len() as u64;
        self.on_server.unwrap_or(0).saturating_sub(told)
    }

    /// Whether everything on the server is archived, and deleted as the job says.
    pub fn is_complete(&self) -> bool {
        self.on_server.is_some()
            && self.failed.is_empty()
            && self.unsound == 0
            && self.unaccounted() == 0
            && self.unlisted == 0
            && self.refused == 0
            && self.too_many.is_none()
    }

    /// Whether an earlier run's note of a message without a UIDL says nothing any more. Its number was
    /// that session's: if all messages are accounted for now, whatever fails has a note of this run.
    pub fn outdates(&self, note: &quarantine::Note) -> bool {
        let number = note.message.strip_prefix('#').and_then(|number| number.parse::<u32>().ok());
        number.is_some()
            && self.on_server.is_some()
            && self.error.is_none()
            && self.unaccounted() == 0
            && !self.failed.iter().any(|failure| *failure.key() == *note.message)
    }
}
