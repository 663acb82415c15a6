//! Editions: a recipient gets each of them once.

use crate::letter::Purpose;

/// The number of an edition in its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EditionId(pub(super) u32);

/// An edition as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// Its number.
    pub id: EditionId,
    /// The job's name.
    pub job: String,
    /// The edition's name, evaluated when it was begun.
    pub name: String,
    /// Whether a letter is meant.
    pub purpose: Purpose,
    /// Over what the reader sees.
    pub fingerprint: [u8; 32],
    /// The IANA name of the time zone it was begun in.
    pub timezone: String,
    /// Unix seconds.
    pub begun: i64,
    /// Unix seconds at which the whole list was in; `None` while enlisting has not ended.
    pub enlisted_at: Option<i64>,
    /// Unix seconds at which nothing was left to send; a requeue or new rows open it again.
    pub finished_at: Option<i64>,
    /// What was read when the list was last enlisted whole.
    pub source: Option<SourceRecord>,
    /// The column layouts of its rows, by [`super::Claimed::layout`]; `None`: rows are objects.
    pub layouts: Vec<Option<Vec<String>>>,
}

/// What was read when a list was enlisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceRecord {
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
    /// Data rows read.
    pub rows: u64,
    /// Rows that `where` left out.
    pub filtered: u64,
    /// Rows equal to an earlier one.
    pub duplicates: u64,
}

/// An edition that is to be begun.
#[derive(Debug, Clone, Copy)]
pub struct NewEdition<'a> {
    /// The job's name.
    pub job: &'a str,
    /// The edition's name.
    pub name: &'a str,
    /// Whether a letter is meant.
    pub purpose: Purpose,
    /// Over what the reader sees.
    pub fingerprint: [u8; 32],
    /// What the fingerprint is made of, piece by piece.
    pub components: &'a [Component],
    /// The IANA name of the time zone.
    pub timezone: &'a str,
    /// Unix seconds.
    pub now: i64,
}

/// A piece of what the reader sees: a template, the subject, a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// `templates/newsletter.html`, `subject`, `vars`.
    pub name: String,
    /// BLAKE3 of it.
    pub hash: [u8; 32],
    /// Its text, where a person may want to see which lines changed.
    pub text: Option<String>,
}
