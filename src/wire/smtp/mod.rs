//! The client's side of SMTP (RFC 5321, 2920, 3030, 3207, 4954) as a value without socket or
//! clock. A [`Session`] is given parcels and replies; it says what is to be written next and
//! gives each parcel back with a [`Record`] of what was said about it. What a record means for
//! a recipient is not decided here.

mod offers;
mod outbox;
mod record;
mod reply;
mod session;

pub use offers::Offers;
pub use outbox::{Content, Said};
pub use record::{Record, Way};
pub use reply::{Class, Heard, NotAReply, Replies, Reply};
pub use session::{Awaited, Event, Level, LoginError, Parcel, Security, Session, Window};
