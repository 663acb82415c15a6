//! The words all crafts share: a [`Row`] of the recipients' list, the [`Letter`] rendered from
//! it, the [`Message`] composed from that, and the [`Outcome`] of each of its recipients.
//! Plain values only; whoever makes or changes them lives in a room of their own.

mod address_column;
mod envelope;
mod message;
mod message_id;
mod octets;
mod outcome;
mod row;
mod words;

pub use address_column::{NoAddressColumn, default_address_column, is_address_column};
pub use envelope::{Envelope, RecipientKey};
pub use message::{Content, Message, Slice};
pub use message_id::{boundary_seed, message_id};
pub use octets::{Loan, Octets, Stock};
pub use outcome::{Answer, Enhanced, Outcome, RcptOutcome};
pub use row::{Cell, Columns, Row};
pub use words::{EncodedPart, Enlisted, FileRecord, Letter, ListHeaders, Piece, Purpose, Stamp};
