//! Patterns, the root rule, cached listings, and parts that are read, typed and encoded once.
//!
//! Here the third sin is made impossible, to send somebody another's file. What a row contributes
//! to a pattern is literal and stays below the folder written before it, links included; what
//! stands beside a wildcard may not go on in a name (`1*` never takes `10.pdf`); and a file that
//! was found for one recipient is not found for another unless the job says `shared: true`.

mod charset;
mod claims;
mod error;
mod find;
mod fingerprint;
mod listing;
pub mod part;
mod pattern;

pub use claims::{Claims, OtherKey};
pub use error::EnclosureError;
pub use find::{Finder, Whose};
pub use fingerprint::{FileFingerprint, Fold};
