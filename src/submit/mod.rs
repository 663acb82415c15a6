//! The SMTP shell: a pool of connections driven by readiness on one thread. It moves bytes; what
//! a reply means is decided in [`outcome`] alone, what is said next in `wire::smtp`.
//!
//! The engine hands over [`Consignment`]s whose mark `sending` is already durable, never more
//! than were [`Event::Wanted`], and gets an [`Event`] for each in return.

use crate::letter::{Answer, Message, RcptOutcome};

/// A letter handed over for submission. Its `sending` mark is durable.
#[derive(Debug)]
pub struct Consignment {
    /// The delivery's number in its edition.
    pub seq: u64,
    /// The letter.
    pub message: Message,
}

/// What the submitter tells the engine.
#[derive(Debug)]
pub enum Event {
    /// So many more letters could be used now (a credit: added to those given before).
    Wanted(usize),
    /// Every recipient of the letter has an outcome.
    Settled {
        /// Which letter.
        seq: u64,
        /// One for each recipient of the envelope, in its order.
        rcpts: Vec<RcptOutcome>,
    },
    /// Not processed, at no cost: the letter returns to pending.
    Returned {
        /// Which letter.
        seq: u64,
    },
    /// The relay's trouble is with us, not with a recipient: everything unfinished returns, the run stops.
    SenderTrouble {
        /// The command it answered: MAIL, DATA, AUTH, or the end of content.
        command: String,
        /// The server's words.
        answer: Answer,
    },
    /// The relay cannot be worked with: everything unfinished returns, the run stops.
    Failed(SubmitError),
    /// Connections open now.
    Connections(usize),
    /// All that was handed over has been answered and the connections are closed.
    Closed,
}

/// Why a relay cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Nobody answers there, or the connection cannot be made.
    #[error("cannot reach relay {relay}: {source}")]
    Connect {
        /// host:port
        relay: String,
        /// The cause.
        source: std::io::Error,
    },
    /// TLS failed: certificate, host name, version.
    #[error("relay {relay}: {reason}")]
    Tls {
        /// host:port
        relay: String,
        /// What rustls said, in words a person understands.
        reason: String,
    },
    /// `tls: starttls` and the server does not offer it.
    #[error("relay {relay} does not offer STARTTLS")]
    NoStartTls {
        /// host:port
        relay: String,
    },
    /// The server did not accept the login.
    #[error("relay {relay} did not accept the login of {user}: {answer}")]
    Login {
        /// host:port
        relay: String,
        /// The login name.
        user: String,
        /// The server's words.
        answer: Answer,
    },
    /// The greeting or EHLO was refused.
    #[error("relay {relay} refuses to talk to us: {answer}")]
    Refused {
        /// host:port
        relay: String,
        /// The server's words.
        answer: Answer,
    },
    /// The server said something that is no SMTP.
    #[error("relay {relay} broke the protocol: {reason}")]
    Protocol {
        /// host:port
        relay: String,
        /// What was wrong.
        reason: String,
    },
    /// A credential could not be had.
    #[error("{reason}")]
    Credential {
        /// Where it was to come from, never what it is.
        reason: String,
    },
}
