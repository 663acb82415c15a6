//! What the ledger knows about deliveries that are over, or not yet: the words of reports.

use crate::letter::{FileRecord, Outcome, RcptOutcome};

use super::{Counts, REMOVED, SUPPRESSED, State};

/// How an edition stands, by one scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// All deliveries.
    pub counts: Counts,
    /// Skipped ones by reason, the most frequent first.
    pub skipped: Vec<(String, u64)>,
    /// By the domain of the first address, the largest first; at most [`Standing::DOMAINS`].
    pub domains: Vec<(String, Counts)>,
    /// Deliveries to domains beyond these.
    pub elsewhere: Counts,
    /// When the next deferred delivery is due, Unix seconds.
    pub next_due: Option<i64>,
    /// Rows of the list that are no delivery and are mistakes.
    pub rejected: u64,
    /// Rows passed over by `dedupe: first`.
    pub repeated: u64,
}

impl Standing {
    /// Domains counted apart. A list may have a domain for each row, and memory is bounded.
    pub const DOMAINS: usize = 20_000;
}

/// A delivery as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the edition.
    pub seq: u64,
    /// Its row's number in the source.
    pub number: u64,
    /// Its key.
    pub key: String,
    /// Where it stands.
    pub state: State,
    /// The domain of its first address.
    pub domain: String,
    /// Attempts made.
    pub attempts: u32,
    /// See [`super::Claimed::generation`].
    pub generation: u32,
    /// Unix seconds of the Date header.
    pub date: Option<i64>,
    /// The Message-ID of the letter sent last.
    pub message_id: Option<String>,
    /// Unix seconds, where deferred.
    pub next_attempt: Option<i64>,
    /// Why, where no answer says it.
    pub reason: Option<String>,
    /// What became of each address.
    pub rcpts: Vec<RcptRecord>,
}

impl Record {
    /// Where an address of this letter stands. Its own outcome says it, but for one that was deferred, or put
    /// back, and was not tried again: that one stands where the letter stands, or was skipped.
    pub fn standing(&self, outcome: Outcome) -> State {
        let skipped = self.reason.as_deref().is_some_and(|reason| [REMOVED, SUPPRESSED].contains(&reason));
        match (outcome, self.state) {
            (Outcome::Deferred, State::Accepted | State::Refused) => State::Skipped,
            (Outcome::Deferred, _) if skipped => State::Skipped,
            (Outcome::Deferred, state) => state,
            (Outcome::Accepted, _) => State::Accepted,
            (Outcome::Refused, _) => State::Refused,
            (Outcome::Failed, _) => State::Failed,
            (Outcome::Unsure, _) => State::Unsure,
        }
    }
}

/// The outcome of an address, and when it was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptRecord {
    /// The outcome.
    pub rcpt: RcptOutcome,
    /// Unix seconds.
    pub at: i64,
}

/// Everything about one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterRecord {
    /// What every report shows.
    pub record: Record,
    /// The row as enlisted, JSON text.
    pub row: String,
    /// Its column layout.
    pub layout: usize,
    /// The files enclosed when it was sent last.
    pub files: Vec<FileRecord>,
    /// BLAKE3 of the content sent last, where the job keeps digests.
    pub digest: Option<[u8; 32]>,
    /// What it was before it was put back, the earliest first.
    pub requeued: Vec<RequeueRecord>,
}

/// A delivery was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequeueRecord {
    /// Unix seconds.
    pub at: i64,
    /// Where it stood.
    pub state: State,
    /// Its generation until then.
    pub generation: u32,
    /// The Message-ID it had been sent with.
    pub message_id: Option<String>,
}

/// What was taken out by [`super::Ledger::forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Deliveries to this person: key and row are replaced by a hash, the outcome stays.
    pub deliveries: u64,
    /// Of these, still to be sent: they are skipped now.
    pub unsent: u64,
    /// Rows of others that named the address, in a cell of theirs: the cell is emptied of it.
    pub mentions: u64,
    /// Rows of others, still to be sent, that name it: left as they are.
    pub open_mentions: u64,
    /// Somebody read the ledger meanwhile: its file still has what was taken out, until the log is folded in.
    pub unfolded: bool,
}

/// What was taken out by [`super::Ledger::prune`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Editions; their names stay, so that they are not sent a second time.
    pub editions: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Somebody reads the ledger: until nobody does, its file has what was taken out.
    pub unfolded: bool,
}
