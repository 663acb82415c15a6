//! The words of enlisting: rows as they come in, and what was made of them.

/// A row that is to become a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enlist<'a> {
    /// The row's number in the source, rising.
    pub number: u64,
    /// Its key.
    pub key: &'a str,
    /// The domain of its first address, lower case.
    pub domain: &'a str,
    /// The row as JSON text.
    pub row: &'a str,
    /// Where it begins.
    pub state: EnlistState<'a>,
    /// Its own files as they were found, folded into one value; `None`: it has none.
    pub enclosed: Option<i64>,
}

/// Where a delivery begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnlistState<'a> {
    /// To be sent.
    Pending,
    /// Never to be sent, and why: `suppressed`, `filtered`.
    Skipped(&'a str),
    /// Cannot be made, and why.
    Failed(&'a str),
}

/// What was made of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Enlisting {
    /// Keys the edition did not have.
    pub added: u64,
    /// Keys it had: their frozen rows stay.
    pub known: u64,
    /// Known keys whose row in the list is another one by now; the frozen one is sent.
    pub changed: u64,
    /// Known keys that had failed untried and whose row was mended: the new row is taken.
    pub mended: u64,
    /// Keys that had been removed, or skipped as such, and are back.
    pub returned: u64,
    /// Rows equal to an earlier row of the list.
    pub duplicates: u64,
    /// Rows that are no delivery.
    pub rejected: u64,
    /// Keys that were to be sent and are gone from the list: skipped.
    pub removed: u64,
    /// The first of these, at most [`Enlisting::NAMED`].
    pub removed_keys: Vec<String>,
}

impl Enlisting {
    /// How many keys are named in a summary; the ledger knows all.
    pub const NAMED: usize = 1000;
}

/// A row of the list that is no delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The row's number in the source.
    pub number: u64,
    /// Its key, where it has one.
    pub key: Option<String>,
    /// It repeats an earlier key and `dedupe: first` passes it over; else it is a mistake.
    pub duplicate: bool,
    /// Why.
    pub reason: String,
}
