//! What became of each: the ledger is the queue. Rows are enlisted into it, claimed from it,
//! settled in it; nothing that matters is anywhere else. It knows nothing of templates or wires.
//!
//! A delivery goes `pending → (claimed) → sending → accepted | refused | deferred | failed |
//! unsure`, or is `skipped`. `sending` is durable before the last byte of a letter is written.
//! With SQLite a claim is the engine's own memory: one writer, held by a lock that its death
//! releases, needs no durable claim.
//!
//! [`Ledger`] writes, [`Reader`] reads, and [`Queue`] is what the engine needs of that; they are traits, so that
//! a ledger that many machines share can stand in for the embedded [`Sqlite`] one.

mod changes;
mod delivery;
mod edition;
mod enlist;
mod error;
mod keys;
mod lock;
mod record;
mod sqlite;
#[cfg(test)]
mod suite;

pub use changes::{Change, ChangeKind, Line, changes};
pub use delivery::{Claimed, Counts, Domains, Group, Mark, REMOVED, SUPPRESSED, Settlement, State, UNSEEN};
pub use edition::{Component, Course, Edition, EditionId, NewEdition, Request, SourceRecord, Stop, course};
pub use enlist::{Enlist, EnlistState, Enlisting, Reject};
pub use error::LedgerError;
pub use lock::RunLock;
pub use record::{Forgotten, LetterRecord, Pruned, RcptRecord, Record, RequeueRecord, Standing};
pub use sqlite::Sqlite;

use std::ops::ControlFlow;

use crate::job::{Dedupe, Unsure};
use crate::letter::Purpose;
use crate::mail::EmailAddress;

/// How many recipients, and how many files, a letter may have.
pub const MOST_ITEMS: usize = 1 << 10;

/// What a run writes. One writer per job: [`Ledger::lock`] is taken first.
pub trait Ledger: Send {
    /// The random secret of this ledger, for Message-IDs: made once, never shown.
    fn secret(&self) -> [u8; 32];

    /// Takes the lock of a job; its holder's death releases it.
    fn lock(&self, job: &str, purpose: Purpose) -> Result<RunLock, LedgerError>;

    /// A connection of its own that reads while this one writes; it may go to another thread.
    fn reader(&self) -> Result<Box<dyn Reader>, LedgerError>;

    /// Begins an edition, durable before it returns.
    fn begin(&mut self, new: &NewEdition<'_>) -> Result<EditionId, LedgerError>;

    /// Records that what the reader sees has changed in the middle of an edition, and that this is
    /// wanted. Letters that were tried and not accepted get a new generation.
    fn accept_changes(
        &mut self,
        edition: EditionId,
        fingerprint: [u8; 32],
        components: &[Component],
    ) -> Result<(), LedgerError>;

    /// Begins to take in a list. A list that was only partly enlisted (the run died) is dropped and
    /// taken in anew: nothing of it was sent. An edition that is enlisted already gets the new keys,
    /// keeps the frozen rows of those it knows, and skips those that are gone from the list.
    fn enlist<'l>(
        &'l mut self,
        edition: EditionId,
        columns: Option<&[String]>,
        dedupe: Dedupe,
    ) -> Result<Box<dyn Enlister + 'l>, LedgerError>;

    /// Looks after the deliveries a dead run left in `sending`: with [`Unsure::Hold`] they become
    /// unsure, with [`Unsure::Resend`] pending, with the same date, Message-ID and generation.
    /// Gives their numbers and keys. The edition is no longer left.
    fn recover(&mut self, edition: EditionId, policy: Unsure) -> Result<Vec<(u64, String)>, LedgerError>;

    /// Makes deferred deliveries due at once that would be due later than `latest`, or whose first attempt
    /// is later than `now`: the clock was wrong when they were deferred. Gives how many.
    fn bring_forward(&mut self, edition: EditionId, now: i64, latest: i64) -> Result<u64, LedgerError>;

    /// Writes marks and settlements of an edition in one transaction, with one sync. When this
    /// returns they are durable; when it fails nothing of them is written.
    fn write(&mut self, edition: EditionId, group: &Group) -> Result<(), LedgerError>;

    /// Records that nothing is left to send; when that was first so, where it was so before.
    fn finish(&mut self, edition: EditionId, now: i64) -> Result<(), LedgerError>;

    /// Records that an unfinished edition is left for a new one; going on with it takes that back.
    fn leave(&mut self, edition: EditionId, now: Option<i64>) -> Result<(), LedgerError>;

    /// Puts deliveries back to pending, and the edition to unfinished; gives how many of each state.
    /// An accepted letter gets a new generation and goes to all its recipients again; any other goes,
    /// with the date it had, to those who have not accepted it.
    fn requeue(&mut self, edition: EditionId, wish: &Requeue<'_>) -> Result<Vec<(State, u64)>, LedgerError>;

    /// Takes the personal data of an address, however it is spelled, out of all editions. Its key is
    /// replaced by a keyed hash, so that a list that still has it does not mail it a second time.
    fn forget(&mut self, address: &EmailAddress) -> Result<Forgotten, LedgerError>;

    /// Takes editions out that were finished, or left, before `before`. Their names stay.
    fn prune(&mut self, before: i64, now: i64) -> Result<Pruned, LedgerError>;

    /// Folds the log into the database file, when a run ends.
    fn tidy(&mut self) -> Result<(), LedgerError>;

    /// Records, durably, that this end of an edition is told to whoever wants to know; false if it was
    /// recorded before.
    fn tell_once(&mut self, edition: EditionId, end: &str) -> Result<bool, LedgerError>;

    /// Takes that back: it was not told.
    fn untell(&mut self, edition: EditionId, end: &str) -> Result<(), LedgerError>;

    /// Sets or clears a flag of a job, for whoever runs it.
    fn set_flag(&mut self, job: &str, purpose: Purpose, flag: Flag, on: bool) -> Result<(), LedgerError>;
}

/// Who is next: what the engine claims from while it sends.
pub trait Queue: Send {
    /// At most `limit` pending deliveries after `after_seq`, in order.
    fn claim(&self, edition: EditionId, after_seq: u64, limit: usize) -> Result<Vec<Claimed>, LedgerError>;

    /// The same, of these domains only.
    fn claim_of(
        &self,
        edition: EditionId,
        domains: &Domains,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError>;

    /// At most `limit` deferred deliveries whose time has come, the longest due first.
    fn claim_due(&self, edition: EditionId, now: i64, limit: usize) -> Result<Vec<Claimed>, LedgerError>;

    /// When the next deferred delivery is due of those that are due after `after`, Unix seconds.
    fn next_due(&self, edition: EditionId, after: i64) -> Result<Option<i64>, LedgerError>;

    /// The flags of a job: a few microseconds, to be asked each second.
    fn flags(&self, job: &str, purpose: Purpose) -> Result<Flags, LedgerError>;
}

/// What became of everybody, beside who is next.
pub trait Reader: Queue {
    /// All editions of a job, the one begun last at the end.
    fn editions(&self, job: &str, purpose: Purpose) -> Result<Vec<Edition>, LedgerError>;

    /// All editions of all jobs, in the order they were begun.
    fn all_editions(&self) -> Result<Vec<Edition>, LedgerError>;

    /// One edition.
    fn edition(&self, id: EditionId) -> Result<Option<Edition>, LedgerError>;

    /// The pieces of an edition's fingerprint, by name.
    fn components(&self, edition: EditionId) -> Result<Vec<Component>, LedgerError>;

    /// Deliveries by number, whatever their state; those that do not exist are left out.
    fn claim_these(&self, edition: EditionId, seqs: &[u64]) -> Result<Vec<Claimed>, LedgerError>;

    /// The numbers of the deliveries with these keys, however they are spelled here or there; reads the whole
    /// edition once.
    fn find_keys(&self, edition: EditionId, keys: &[String]) -> Result<Vec<Option<u64>>, LedgerError>;

    /// How many deliveries stand where, by one scan.
    fn counts(&self, edition: EditionId) -> Result<Counts, LedgerError>;

    /// Whether a letter that is still to be sent goes with whatever files are found for it then: nobody knows
    /// which it had, or others are asked for since ([`UNSEEN`]). One scan.
    fn any_with_unknown_files(&self, edition: EditionId) -> Result<bool, LedgerError>;

    /// Deliveries of these states after `after_seq`, in order, whatever is to be done with them.
    fn rows_in(
        &self,
        edition: EditionId,
        states: &[State],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError>;

    /// How an edition stands: counts by outcome, reason and domain, by one scan.
    fn standing(&self, edition: EditionId) -> Result<Standing, LedgerError>;

    /// Shows each delivery of these states, in order, until `visit` breaks off.
    fn each(
        &self,
        edition: EditionId,
        states: &[State],
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), LedgerError>;

    /// Everything about one delivery.
    fn letter(&self, edition: EditionId, seq: u64) -> Result<Option<LetterRecord>, LedgerError>;

    /// Rows of the list that are no delivery, at most `limit` of those after row `after`, in order.
    fn rejects(&self, edition: EditionId, after: u64, limit: usize) -> Result<Vec<Reject>, LedgerError>;
}

/// Which deliveries are put back.
#[derive(Debug, Clone, Copy)]
pub struct Requeue<'a> {
    /// Those that stand there; what is pending or being sent is left alone.
    pub states: &'a [State],
    /// Of these only the ones with these keys.
    pub keys: Option<&'a [String]>,
    /// Unix seconds.
    pub now: i64,
}

/// Takes in a list. Dropped without [`Enlister::finish`], what was not yet committed is rolled back
/// and the edition stays not enlisted.
pub trait Enlister {
    /// Takes in rows, in the order of the source.
    fn add(&mut self, rows: &[Enlist<'_>]) -> Result<(), LedgerError>;

    /// Notes a row that cannot be a delivery: it has no key, or is not to be read.
    fn reject(&mut self, number: u64, key: Option<&str>, reason: &str) -> Result<(), LedgerError>;

    /// Lets others write to the ledger while the list does not go on.
    fn rest(&mut self) -> Result<(), LedgerError>;

    /// How many rows were rejected so far, those of [`Dedupe::Refuse`] among them.
    fn rejected(&self) -> u64;

    /// Ends the list: rows gone from it are skipped, `enlisted_at` is set, all of it durable.
    /// The `duplicates` of `source` are counted here.
    fn finish(self: Box<Self>, source: SourceRecord, now: i64) -> Result<Enlisting, LedgerError>;
}

/// A wish to whoever runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// End the run as a signal would.
    Stop,
    /// Start nothing new until it is cleared.
    Pause,
}

impl Flag {
    fn word(self) -> &'static str {
        match self {
            Flag::Stop => "stop",
            Flag::Pause => "pause",
        }
    }
}

/// The flags of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// [`Flag::Stop`]
    pub stop: bool,
    /// [`Flag::Pause`]
    pub pause: bool,
}
