//! Addresses, mailboxes, message ids and dates: the field's smallest values. lettre is used here
//! and nowhere else outside the tests.

mod address;
mod mailbox;

pub use address::{EmailAddress, NotAnAddress};
pub use mailbox::{Mailbox, NotAMailbox};
