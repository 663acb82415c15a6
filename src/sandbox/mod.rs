//! A relay and a maildrop on loopback, for trying out and for tests. They speak SMTP (RFC 5321)
//! and POP3 (RFC 1939) as real servers do, keep what they are given, and misbehave when told to.
//!
//! Nothing here is needed to send or to archive: the room stands beside the house, not in it. Each
//! connection has a thread of its own and blocking sockets, which is slower than an event loop
//! for thousands of connections and easier to read for the few that a trial has.

mod fault;
mod link;
mod maildrop;
mod outbox;
mod pop3;
mod port;
mod relay;
mod smtp;
mod tls;

pub use fault::{BadRule, Fault, GRAMMAR, Protocol};
pub use maildrop::{Maildrop, MaildropOptions, Muddle, Uidls};
pub use outbox::Summary;
pub use relay::{Options, Relay};
pub use tls::{Tls, TlsError};

/// Letters for a maildrop that has none: a question, an invoice in GB18030, a thank-you with HTML.
pub const LETTERS: [(&str, &[u8]); 3] = [
    ("1-question.eml", include_bytes!("mail/question.eml")),
    ("2-invoice.eml", include_bytes!("mail/invoice.eml")),
    ("3-thanks.eml", include_bytes!("mail/thanks.eml")),
];
