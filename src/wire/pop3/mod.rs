//! POP3 (RFC 1939, 2449, 2595, 3206, 5034) without a socket and without a clock: commands become
//! bytes, bytes become replies, listings and message contents, and a [`Retrieval`] says what may
//! be asked next. Moving the bytes is the affair of `archive::session`.

mod capabilities;
mod command;
mod content;
mod listing;
mod reply;
mod retrieval;

pub use capabilities::Capabilities;
pub use command::{Command, NotALine};
pub use content::Content;
pub use listing::{list_line, uidl_line};
pub use reply::{MAX_STATUS_LINE, NotAReply, Reply, ResponseCode, Status};
pub use retrieval::{Retrieval, Wanted, Window};
