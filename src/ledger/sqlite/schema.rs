//! The tables, and how numbers are packed into their keys.
//!
//! Tables of the hot path have an INTEGER PRIMARY KEY that packs edition and sequence number: SQLite
//! then keeps each as one tree, rows that are sent one after the other lie side by side, and a change
//! of state touches no second index but the small one of what is deferred.
//!
//! `rows` has no unique index on its key: building one would cost a third of the time of enlisting.
//! That a key comes once in an edition is kept by the enlister under the job's lock (`keys`).

use crate::ledger::{EditionId, LedgerError, MOST_ITEMS};

/// The schema this version writes, in `user_version`.
pub(super) const VERSION: i64 = 2;

/// Bits of a delivery's number within its edition.
const SEQ_BITS: u32 = 32;

/// Bits of a recipient's or file's number within its delivery.
const ITEM_BITS: u32 = MOST_ITEMS.ilog2();

/// The highest number of an edition: with the bits above it fills a positive i64.
pub(super) const MAX_EDITION: u32 = (1 << (63 - SEQ_BITS - ITEM_BITS)) - 1;

/// The key of a delivery and its row.
pub(super) fn delivery(edition: EditionId, seq: u64) -> i64 {
    i64::from(edition.0) << SEQ_BITS | (seq as i64 & ((1 << SEQ_BITS) - 1))
}

/// The sequence number in a delivery's key.
pub(super) fn seq(delivery: i64) -> u64 {
    delivery as u64 & ((1 << SEQ_BITS) - 1)
}

/// The first and last key an edition's deliveries may have.
pub(super) fn bounds(edition: EditionId) -> (i64, i64) {
    (delivery(edition, 0), delivery(edition, u64::MAX))
}

/// The key of the n-th recipient or file of a delivery.
pub(super) fn item(delivery: i64, n: usize, what: &'static str) -> Result<i64, LedgerError> {
    if n >= MOST_ITEMS {
        return Err(LedgerError::TooMany { what, limit: MOST_ITEMS as u64 });
    }
    Ok(delivery << ITEM_BITS | n as i64)
}

/// The first and last key the recipients or files of the deliveries from `first` to `last` may have.
pub(super) fn items(first: i64, last: i64) -> (i64, i64) {
    (first << ITEM_BITS, last << ITEM_BITS | (MOST_ITEMS as i64 - 1))
}

/// The delivery a recipient or file belongs to.
pub(super) fn delivery_of_item(item: i64) -> i64 {
    item >> ITEM_BITS
}

/// What makes a ledger of version n + 1 of one of version n, in order.
pub(super) const STEPS: [&str; VERSION as usize - 1] = ["ALTER TABLE deliveries ADD COLUMN enclosed INTEGER"];

/// All tables of this version.
pub(super) const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE editions (
    id INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    edition TEXT NOT NULL,
    purpose TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    timezone TEXT NOT NULL,
    begun INTEGER NOT NULL,
    enlisted_at INTEGER,
    finished_at INTEGER,
    left_at INTEGER,
    pruned_at INTEGER,
    source_hash BLOB,
    source_rows INTEGER,
    filtered INTEGER,
    duplicates INTEGER,
    UNIQUE (job, purpose, edition)
);

-- What the reader sees, piece by piece.
CREATE TABLE components (
    edition INTEGER NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL, text TEXT,
    PRIMARY KEY (edition, name)
) WITHOUT ROWID;

-- The columns of an edition's rows, a JSON array; NULL where rows are objects.
CREATE TABLE layouts (
    edition INTEGER NOT NULL, n INTEGER NOT NULL, columns TEXT,
    PRIMARY KEY (edition, n)
) WITHOUT ROWID;

-- Immutable, as enlisted. `number` is NULL where it equals the sequence number.
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, row TEXT NOT NULL, layout INTEGER NOT NULL, number INTEGER
);

-- Narrow and hot: p(ending) s(ending) a(ccepted) r(efused) d(eferred) f(ailed) u(nsure) k (skipped).
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    domain TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    next_attempt INTEGER,
    first_attempt INTEGER,
    date INTEGER,
    message_id TEXT,
    reason TEXT,
    digest BLOB,
    enclosed INTEGER
);
CREATE INDEX deferred ON deliveries (next_attempt) WHERE state = 'd';

-- One for each address of a letter; `enhanced` is class, subject and detail: 5001001 is 5.1.1.
CREATE TABLE rcpts (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    outcome TEXT NOT NULL,
    code INTEGER NOT NULL,
    enhanced INTEGER,
    text TEXT NOT NULL,
    at INTEGER NOT NULL
);

CREATE TABLE files (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL);

CREATE TABLE rejects (
    edition INTEGER NOT NULL, row_no INTEGER NOT NULL, key TEXT, duplicate INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (edition, row_no)
) WITHOUT ROWID;

-- What was put back: the state and the letter a delivery had before.
CREATE TABLE requeued (
    id INTEGER PRIMARY KEY,
    delivery INTEGER NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    generation INTEGER NOT NULL,
    message_id TEXT
);
CREATE INDEX requeued_delivery ON requeued (delivery);

CREATE TABLE flags (
    job TEXT NOT NULL, purpose TEXT NOT NULL, flag TEXT NOT NULL,
    PRIMARY KEY (job, purpose, flag)
) WITHOUT ROWID;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_pack_and_unpack_at_their_limits() {
        for (number, sequence) in
            [(1, 1), (1, u64::from(u32::MAX)), (MAX_EDITION, 1), (MAX_EDITION, 4_000_000_000)]
        {
            let packed = delivery(EditionId(number), sequence);
            assert!(packed > 0);
            assert_eq!((packed >> SEQ_BITS, seq(packed)), (number.into(), sequence));
            let last = item(packed, MOST_ITEMS - 1, "recipients").unwrap();
            assert!(last > 0);
            assert_eq!(delivery_of_item(last), packed);
            assert_eq!(items(packed, packed), (item(packed, 0, "").unwrap(), last));
        }
        assert!(item(1, MOST_ITEMS, "recipients").is_err());
    }
}
