//! The words of the hot path: a delivery as it is claimed, marked and settled.

use crate::letter::{FileRecord, Outcome, RcptOutcome};

/// The reason of a letter that is not sent, or to nobody more, because of a suppress list.
pub const SUPPRESSED: &str = "suppressed";

/// The reason of a letter that is not sent, or to nobody more, because its key is gone from the list.
pub const REMOVED: &str = "removed";

/// The files of a letter ([`Claimed::enclosed`]) whose job asks for others since it was enlisted: nobody has looked yet
/// whose else they are.
pub const UNSEEN: i64 = 1;

/// The state of a delivery.
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

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [State; 9] = [
        State::Pending,
        State::Claimed,
        State::Sending,
        State::Accepted,
        State::Refused,
        State::Deferred,
        State::Failed,
        State::Unsure,
        State::Skipped,
    ];

    /// The word used in reports and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Claimed => "claimed",
            State::Sending => "sending",
            State::Accepted => "accepted",
            State::Refused => "refused",
            State::Deferred => "deferred",
            State::Failed => "failed",
            State::Unsure => "unsure",
            State::Skipped => "skipped",
        }
    }

    /// The state of this word.
    pub fn from_word(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing more is done about it unasked.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Pending | State::Claimed | State::Sending | State::Deferred)
    }

    /// The letter that stands for it in the database. A letter has the same width for every state
    /// (SQLite stores 0 and 1 in no byte and 2 in one), so that a change of state overwrites the
    /// record in its place and never splits a page; and a person who opens the file can read it.
    pub(super) fn letter(self) -> &'static str {
        match self {
            State::Pending => "p",
            State::Claimed => "c",
            State::Sending => "s",
            State::Accepted => "a",
            State::Refused => "r",
            State::Deferred => "d",
            State::Failed => "f",
            State::Unsure => "u",
            State::Skipped => "k",
        }
    }

    /// The state of this letter.
    pub(super) fn from_letter(letter: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.letter() == letter)
    }
}

/// A delivery as it is claimed, with its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its number in the edition, by which it is marked and settled.
    pub seq: u64,
    /// The row's number in the source. It is `seq`, but for rows that came to the list after the
    /// edition was first enlisted.
    pub number: u64,
    /// Its key.
    pub key: String,
    /// The row as JSON text, as enlisted: an array of cells, or an object.
    pub row: String,
    /// Which of the edition's column layouts the row has: an index of [`super::Edition::layouts`].
    pub layout: usize,
    /// The domain of its first address, lower case.
    pub domain: String,
    /// Attempts made so far.
    pub attempts: u32,
    /// Rises when an accepted letter is requeued or its content changed.
    pub generation: u32,
    /// Unix seconds of the Date header, once a first attempt has fixed it.
    pub date: Option<i64>,
    /// Unix seconds of the first attempt, for `give_up`.
    pub first_attempt: Option<i64>,
    /// Its own files as they were when it was enlisted, folded into one value; `None`: it has none, or
    /// was put back to go with the files as they are.
    pub enclosed: Option<i64>,
    /// Addresses to which nothing more is sent unasked, by earlier attempts: those that are unsure, too.
    pub settled: Vec<String>,
    /// Addresses that were tried and are to be tried again.
    pub deferred: Vec<String>,
    /// The worst of what became of them.
    pub earlier: Option<Outcome>,
}

/// Some of the domains there are: lower case, and `*.example.com` names those below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domains {
    /// These.
    Only(Vec<String>),
    /// All others.
    Except(Vec<String>),
}

/// The mark `sending`, to be durable before the letter is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which delivery.
    pub seq: u64,
    /// Unix seconds of the Date header.
    pub date: i64,
    /// Unix seconds now: the attempt begins.
    pub at: i64,
    /// The Message-ID with angle brackets.
    pub message_id: String,
    /// The files enclosed.
    pub files: Vec<FileRecord>,
    /// BLAKE3 of the content, where the job keeps digests.
    pub digest: Option<[u8; 32]>,
}

/// What became of a delivery in this attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Which delivery.
    pub seq: u64,
    /// Where it now stands; [`State::Pending`] for a letter that was returned unprocessed: then the
    /// attempt does not count.
    pub state: State,
    /// Unix seconds, for [`State::Deferred`].
    pub next_attempt: Option<i64>,
    /// Unix seconds of the answer.
    pub at: i64,
    /// Why, where no recipient's answer says it: `suppressed`, the row's mistake, a lost connection.
    pub reason: Option<String>,
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

impl Group {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.settlements.is_empty()
    }
}

/// How many deliveries stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; State::ALL.len()]);

impl Counts {
    /// How many are in this state.
    pub fn of(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    /// Adds to a state.
    pub fn add(&mut self, state: State, number: u64) {
        self.0[state as usize] += number;
    }

    /// Moves one delivery from a state to another.
    pub fn moved(&mut self, from: State, to: State) {
        self.0[from as usize] = self.0[from as usize].saturating_sub(1);
        self.0[to as usize] += 1;
    }

    /// All deliveries.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those that are still to be sent: pending, claimed, sending or deferred.
    pub fn open(&self) -> u64 {
        State::ALL.into_iter().filter(|state| !state.is_final()).map(|state| self.of(state)).sum()
    }
}
