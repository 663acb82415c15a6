//! Addresses, mailboxes, content types, ids of lists and dates: the field's smallest values. lettre is used here
//! and nowhere else outside the tests.

mod address;
mod content_type;
pub mod date;
mod list_id;
mod mailbox;

pub use address::{EmailAddress, NotAnAddress, acts_on_terminals, composed, is_invisible};
pub use content_type::is_content_type;
pub use list_id::list_id;
pub use mailbox::{Mailbox, NotAMailbox};
