//! The SMTP shell: a pool of connections driven by readiness on one thread. It moves bytes; what
//! a reply means is decided in [`outcome`] alone, what is said next in `wire::smtp`.
//!
//! The engine hands over [`Consignment`]s whose mark `sending` is already durable: as many as were
//! [`Event::Wanted`], and some more, so that a turn never waits for the disk. It gets exactly one
//! [`Event::Settled`] or [`Event::Returned`] for each in return, whatever happens, before
//! [`Event::Closed`].

mod account;
mod addresses;
mod connection;
mod errand;
mod growth;
mod lanes;
mod login;
mod outcome;
mod pace;
mod patience;
mod pool;
mod relay;
#[cfg(test)]
mod trials;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::job::RelaySpec;
use crate::letter::{Answer, Message, RcptOutcome};
use crate::mail::EmailAddress;
use crate::net::NetError;
use crate::net::transcript::Transcript;
use crate::wire::smtp::{Content, Parcel};

pub use crate::wire::smtp::Offers;
pub use account::Accounts;
pub use outcome::told_to_wait;

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
    /// The relay worked and does not at the moment, or keeps us waiting at the door; or no longer so.
    Away(bool),
    /// All that was handed over has been answered and the connections are closed.
    Closed,
}

/// The way to a relay: a thread with its pool of connections.
///
/// Dropped without [`Submitter::drain`], it aborts: letters wholly written are unsure, others return.
pub struct Submitter {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    sleeping: Arc<AtomicBool>,
    offers: Offers,
    relay: String,
    /// Held while something is handed over.
    door: Arc<Mutex<Door>>,
    thread: Option<JoinHandle<()>>,
}

impl Submitter {
    /// Connects and tries one login; its connection is kept and used. Then the pool may open more, as work needs
    /// them. Where the relay cannot be reached, its `fallback` is tried. Events come in batches. Pace and connections
    /// are those of the account, together with all who share `accounts`; when these say so, the first connection is
    /// not waited for any longer.
    pub fn start(
        relay: &RelaySpec,
        accounts: &Accounts,
        trace: Option<Transcript>,
        events: Sender<Vec<Event>>,
    ) -> Result<Submitter, SubmitError> {
        pool::start(relay, accounts, trace, events)
    }

    /// What the relay offered on the first connection.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// host:port of the relay that answered: the job's, or its fallback.
    pub fn relay(&self) -> &str {
        &self.relay
    }

    /// Hands letters over. What is handed over when all is closed already (the relay failed a moment ago) returns, too:
    /// then [`Event::Returned`] comes behind [`Event::Closed`].
    pub fn submit(&self, letters: Vec<Consignment>) {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        match &*door {
            Door::Open(_) => self.tell(Command::Submit(letters)),
            Door::Closed(returns) => {
                let returned = letters.iter().map(|letter| Event::Returned { seq: letter.seq });
                // Who has dropped the other end has given up on outcomes.
                let _ = returns.send(returned.collect());
            }
            Door::Broken => {}
        }
    }

    /// Gives back what has not begun: it waits for its time, for a connection, or for its turn on one.
    pub fn recall(&self) {
        self.tell(Command::Recall);
    }

    /// Finishes what was handed over, for at most 30 s, says QUIT, and closes.
    pub fn drain(&self) {
        self.tell(Command::Drain);
    }

    /// Ends at once: letters wholly written are unsure, others return.
    pub fn abort(&self) {
        self.tell(Command::Abort);
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() && self.sleeping.swap(false, Ordering::SeqCst) {
            // A failed wake-up means that the poll is gone, and with it the thread.
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        self.abort();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where letters are handed over. The way back is for those that find it closed.
enum Door {
    Open(Sender<Vec<Event>>),
    /// The thread takes nothing more.
    Closed(Sender<Vec<Event>>),
    /// The thread broke, and with it the way back: who listens hears that nothing will come any more. What it had, and
    /// what is handed over still, is in doubt.
    Broken,
}

impl Door {
    fn close(&mut self) {
        *self = match std::mem::replace(self, Door::Broken) {
            Door::Open(returns) | Door::Closed(returns) => Door::Closed(returns),
            Door::Broken => Door::Broken,
        };
    }
}

/// Stands at the door while the thread works, and breaks it off should the thread panic.
struct Porter(Arc<Mutex<Door>>);

impl Drop for Porter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Door::Broken;
        }
    }
}

/// What the engine tells the thread.
enum Command {
    Submit(Vec<Consignment>),
    Recall,
    Drain,
    Abort,
}

/// A letter in the pool, and how often a connection was lost while it was the one spoken of.
struct Queued {
    consignment: Consignment,
    losses: u8,
    /// When it was given to a connection last.
    began: Instant,
}

impl Content for Queued {
    fn octets(&self) -> usize {
        self.consignment.message.content.len()
    }
    fn stretches(&self) -> usize {
        self.consignment.message.content.stretches()
    }
    fn stretch(&self, n: usize) -> &[u8] {
        self.consignment.message.content.stretch(n)
    }
}

impl Parcel for Queued {
    fn reverse_path(&self) -> Option<&EmailAddress> {
        self.consignment.message.envelope.reverse_path.as_ref()
    }
    fn recipients(&self) -> &[EmailAddress] {
        &self.consignment.message.envelope.recipients
    }
    fn eight_bit(&self) -> bool {
        self.consignment.message.eight_bit
    }
    fn smtputf8(&self) -> bool {
        let envelope = &self.consignment.message.envelope;
        self.consignment.message.smtputf8
            || envelope.recipients.iter().chain(&envelope.reverse_path).any(EmailAddress::needs_smtputf8)
    }
}

/// Why a relay cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Nobody answers there, or the connection cannot be made.
    #[error("relay {relay} cannot be reached: {source}")]
    Connect {
        /// host:port
        relay: String,
        /// The cause.
        source: NetError,
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
    /// The server does not go on talking: it is silent, or closed the connection.
    #[error("relay {relay} does not answer: {reason}")]
    Silent {
        /// host:port
        relay: String,
        /// What was waited for.
        reason: String,
    },
    /// Other processes have all connections that the account may have.
    #[error("other runs have all connections ({most}) of the account at {relay}")]
    Busy {
        /// host:port
        relay: String,
        /// How many there may be.
        most: usize,
    },
    /// Whoever started it wanted to wait no longer for the first connection.
    #[error("relay {relay} was not waited for any longer")]
    Left {
        /// host:port
        relay: String,
    },
    /// A thread of ours panicked.
    #[error("the work for relay {relay} broke off, a mistake of postroom's own")]
    Broken {
        /// host:port
        relay: String,
    },
    /// The token server cannot be asked, or has no answer at the moment.
    #[error("{reason}")]
    NoToken {
        /// Which, and what is wrong.
        reason: String,
    },
    /// A credential could not be had.
    #[error("{reason}")]
    Credential {
        /// Where it was to come from, never what it is.
        reason: String,
        /// Somebody has said that there is none: another try will not bring it.
        refused: bool,
    },
}
