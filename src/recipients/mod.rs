//! To whom: the recipients as a stream of rows, whatever file they come from, and who of them
//! must not be written to.
//!
//! A list is read once, from front to back, in bounded memory. A mistake of one row (a ragged
//! line, a cell that is not of its column's kind) is a [`BadRow`] and the rest goes on; a mistake
//! of the file (no header, bytes that are no text, a quote that is never closed) is a
//! [`RecipientsError`] and ends the list, because nobody knows what the remaining bytes mean.
//! `key`, `to` and `where` are templates and are rendered elsewhere.

mod cell;
mod error;
mod input;
mod objects;
mod rows;
mod suppressed;
mod table;

pub use error::{BadRow, RecipientsError};
pub use rows::{MoreRows, Rows, open};
pub use suppressed::Suppressed;
