//! What became of each: the ledger is the queue. Rows are enlisted into it, claimed from it,
//! settled in it; nothing that matters is anywhere else. It knows nothing of templates or wires.
//!
//! A delivery goes `pending → (claimed) → sending → accepted | refused | deferred | failed |
//! unsure`, or is `skipped`. `sending` is durable before the last byte of a letter is written.
//! With SQLite a claim is the engine's own memory: one writer, held by a lock that its death
//! releases, needs no durable claim.

use crate::letter::{FileRecord, RcptOutcome};

/// The state of a delivery. The numbers are those of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// To be sent.
    Pending = 0,
    /// Claimed by a machine (durable only where several machines share a ledger).
    Claimed = 1,
    /// Its content may be on the wire.
    Sending = 2,
    /// Every recipient accepted.
    Accepted = 3,
    /// At least one recipient refused for good, none left to try.
    Refused = 4,
    /// To be tried again at `next_attempt`.
    Deferred = 5,
    /// We could not make or send it.
    Failed = 6,
    /// Content was sent and no reply came.
    Unsure = 7,
    /// Never to be sent: suppressed, filtered, duplicate or removed.
    Skipped = 8,
}

/// A delivery as it is claimed, with its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its number in the edition: the row's number in the source.
    pub seq: u64,
    /// Its key.
    pub key: String,
    /// The row as JSON text, as enlisted: an array of cells, or an object.
    pub row: String,
    /// Attempts made so far.
    pub attempts: u32,
    /// Rises when an accepted letter is requeued or its content changed.
    pub generation: u32,
    /// Unix seconds of the Date header, once a first attempt has fixed it.
    pub date: Option<i64>,
    /// Unix seconds of the first attempt, for `give_up`.
    pub first_attempt: Option<i64>,
    /// Addresses that already have a final outcome, by earlier attempts.
    pub settled: Vec<String>,
}

/// The mark `sending`, to be durable before the letter is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which delivery.
    pub seq: u64,
    /// Unix seconds of the Date header.
    pub date: i64,
    /// The Message-ID with angle brackets.
    pub message_id: String,
    /// The files enclosed.
    pub files: Vec<FileRecord>,
}

/// What became of a delivery in this attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Which delivery.
    pub seq: u64,
    /// Where it now stands; [`State::Pending`] for a letter that was returned unprocessed.
    pub state: State,
    /// Unix seconds, for [`State::Deferred`].
    pub next_attempt: Option<i64>,
    /// Unix seconds of the answer.
    pub at: i64,
    /// One for each address that got an outcome.
    pub rcpts: Vec<RcptOutcome>,
}

/// What is made durable together, by one sync.
#[derive(Debug, Default)]
pub struct Group {
    /// Letters about to be handed over.
    pub marks: Vec<Mark>,
    /// Letters with an answer.
    pub settlements: Vec<Settlement>,
}
