//! Pulls a mailbox into files, and proves that they are all there: retrieve → store → journal → index.
//! Understanding a message is the affair of `read`.

pub mod balance;
pub mod committer;
mod digest;
pub mod export;
pub mod find;
pub mod index;
pub mod journal;
mod known;
pub mod listing;
mod login;
pub mod manifest;
pub mod mend;
pub mod quarantine;
pub mod retrieve;
pub mod session;
pub mod shelf;
pub mod store;
mod terms;
pub mod verify;

pub use digest::Digest;
pub use known::Known;
pub use store::{Store, StoreError};

/// The points at which a test may end the process, in the order in which a run that deletes passes them.
pub const FAILPOINTS: &[&str] = &[
    "archive.sync.before",
    "archive.sync.after",
    "archive.rename.before",
    "archive.rename.after",
    "archive.folders.before",
    "archive.folders.after",
    "archive.journal.before",
    "archive.journal.torn",
    "archive.journal.unsynced",
    "archive.journal.after",
    "archive.manifest.before",
    "archive.index.before",
    "archive.index.after",
    "archive.dele.before",
    "archive.dele.after",
    "archive.quit.before",
    "archive.quit.after",
];
