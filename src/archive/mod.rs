//! Pulls a mailbox into files, and proves that they are all there: retrieve → store → journal → index.
//! Understanding a message is the affair of `read`.

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
pub mod quarantine;
pub mod retrieve;
pub mod session;
pub mod store;
pub mod verify;

pub use digest::Digest;
pub use known::Known;
pub use store::{Store, StoreError};
