//! One mailbox, from login to QUIT: list, tell the known from the new, fetch, hand over, wait for the
//! commit, delete what the job says, end. Connections that break are made anew; a message that breaks
//! them twice is left for the next run; a server that stumbles over commands sent together is asked one
//! by one from then on.

mod delete;
mod fetch;
mod list;
mod reckon;
mod recognise;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::balance::{Balance, Failure};
use super::committer::{Counts, Desk};
use super::journal::{Entry, What};
use super::known::Known;
use super::listing::{self, Key, Listed, Standing, TooMany};
use super::login::login;
use super::session::{Session, SessionError, Stop};
use super::shelf::Shelf;
use super::store::{Folder, StoreError, locked};
use crate::failpoint;
use crate::job::{Deletion, MailboxSpec};
use crate::net::Dialer;
use crate::net::transcript::Transcript;
use crate::secret::Secret;
use crate::wire::pop3::Command;

/// What one mailbox needs to be archived.
pub struct Mailbox<'a> {
    /// The job's words.
    pub spec: &'a MailboxSpec,
    /// `user@host` or `user@host:port`, as the journal has it.
    pub name: Arc<str>,
    /// The password or token.
    pub secret: Secret,
    /// The way there.
    pub dialer: Dialer,
    /// What is deleted.
    pub delete: &'a Deletion,
    /// A number of deletions that a person has agreed to.
    pub confirmed: Option<u64>,
    /// At most so many messages are fetched.
    pub limit: Option<u64>,
    /// Where to write aside; `None` for a look that fetches nothing.
    pub folder: Option<Arc<Folder>>,
    /// What the journal says.
    pub known: Arc<Mutex<Known>>,
    /// Where messages are handed over.
    pub desk: Desk,
    /// What is counted on the way.
    pub counts: Arc<Counts>,
    /// Whether to stop.
    pub stop: Stop,
    /// Where the dialogue is written down.
    pub trace: Option<Transcript>,
    /// Seconds since 1970.
    pub now: fn() -> i64,
}

/// So many times in a row a connection may fail without a message having come.
const TRIES: u32 = 3;
/// So many messages in a row that had to be left mean that the server is at fault, and not they.
const LEFT_IN_A_ROW: u32 = 3;
/// So many refusals in a row of commands sent together are no accident.
const REFUSALS: usize = 3;
/// DELE and TOP travel in groups of this size: a group's commands fit any send buffer.
const FLIGHT: usize = 100;
/// How long to wait before connection attempts.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(6)];
/// How long to wait for a mailbox that another session holds.
const BUSY_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Archives a mailbox as far as it goes.
pub fn archive(mailbox: &Mailbox<'_>) -> Balance {
    let mut work = Work::new(mailbox);
    let mut tries = 0;
    loop {
        let before = mailbox.counts.received.load(Relaxed);
        let left = work.failed.len();
        let ended = work.session();
        // What was handed over is committed whatever ended the session.
        let flushed = mailbox.desk.enter(work.noted());
        // A message that was given up no longer stands before the others.
        let progress = mailbox.counts.received.load(Relaxed) > before || work.failed.len() > left;
        let error = match (ended, flushed) {
            (_, Err(trouble)) => {
                work.balance.error = Some(SessionError::Store(trouble));
                break;
            }
            (Ok(()), Ok(())) => break,
            (Err(error), Ok(())) => error,
        };
        if work.quitting {
            // Nobody knows whether it was done. The next run's listing shows it; asking again now would not.
            work.balance.error = Some(error);
            break;
        }
        tries = if progress { 1 } else { tries + 1 };
        let pauses = match &error {
            SessionError::Net(error) if error.may_pass() => PAUSES,
            SessionError::Closed(_) | SessionError::Silent(..) | SessionError::Muddled => PAUSES,
            SessionError::Busy(_) => BUSY_PAUSES,
            SessionError::NotAReply(_) | SessionError::EndlessLine(_) if work.at_message => PAUSES,
            _ => {
                work.balance.error = Some(error);
                break;
            }
        };
        if tries > TRIES || work.left_in_a_row >= LEFT_IN_A_ROW || mailbox.stop.asked() {
            work.balance.error = Some(error);
            break;
        }
        work.learn(&error, progress);
        pause(pauses[tries.min(TRIES) as usize - 1], &mailbox.stop);
    }
    work.close()
}

/// What a run would find now.
#[derive(Debug)]
pub struct Preview {
    /// The mailbox.
    pub listing: Vec<Listed>,
    /// What is due for deletion, as indices of the listing.
    pub due: Vec<usize>,
    /// Why nothing of it would be deleted.
    pub too_many: Option<TooMany>,
}

/// What a run would delete now: the same reckoning as [`archive`], and nothing is fetched or deleted. `shelf`
/// is the archive, if there is one.
pub fn preview(mailbox: &Mailbox<'_>, shelf: Option<&Shelf>) -> Result<Preview, SessionError> {
    let mut work = Work::new(mailbox);
    let mut session = work.enter()?;
    let listing = work.list(&mut session)?;
    let known = locked(&mailbox.known);
    let now = (mailbox.now)();
    // What a run would fetch it would have archived now: with `after: 0s` that is due at once. That is also what
    // the store has lost.
    let standings = listing::standings(&listing, &known, &mailbox.name, mailbox.delete);
    let mut fetched = HashMap::new();
    for (listed, standing) in listing.iter().zip(standings) {
        let uid = listed.uidl.as_deref().and_then(|uidl| known.mailbox(&mailbox.name)?.uidls.get(uidl));
        let held = match (uid.and_then(|uid| known.file(uid.file)), shelf) {
            (Some(record), Some(shelf)) => shelf.holds(record)?,
            _ => false,
        };
        if standing != Standing::Known || !held {
            fetched.insert(listed.number, now);
        }
    }
    let reckon =
        |confirmed| listing::due(&listing, &known, &mailbox.name, mailbox.delete, &fetched, now, confirmed);
    let (due, too_many) = match reckon(mailbox.confirmed) {
        Ok(due) => (due, None),
        Err(too_many) => (reckon(Some(too_many.due as u64)).unwrap_or_default(), Some(too_many)),
    };
    drop(known);
    session.ask(Command::Quit)?;
    Ok(Preview { listing, due, too_many })
}

/// What the server lists now.
pub fn list(mailbox: &Mailbox<'_>) -> Result<Vec<Listed>, SessionError> {
    let mut work = Work::new(mailbox);
    let mut session = work.enter()?;
    let listing = work.list(&mut session)?;
    session.ask(Command::Quit)?;
    Ok(listing)
}

struct Work<'a> {
    mailbox: &'a Mailbox<'a>,
    balance: Balance,
    /// Whether commands may be sent together in the next session.
    together: bool,
    /// Sending together was given up only to see whether it was at fault.
    suspect: bool,
    /// Commands that the last session left without an answer.
    unanswered: usize,
    /// The server answered UIDL in this session.
    named: bool,
    /// Messages that this session's QUIT is to delete.
    deleting: u64,
    /// QUIT was sent, is to delete, and has no answer.
    quitting: bool,
    /// How often a connection broke within a message, or instead of it.
    cuts: HashMap<Key, u32>,
    /// Messages given up since the last one came.
    left_in_a_row: u32,
    /// What ended the last session came in place of a message.
    at_message: bool,
    /// The message at which the server failed while several were asked for: it, or sending together, is at fault.
    suspected: Option<Key>,
    /// Messages that this run has given up.
    failed: HashMap<Key, Failure>,
    /// Entries for the journal that wait for the next commit.
    entries: Vec<Entry>,
    /// Octets by LIST that were not what came: how many, and one of them.
    lies: (u64, Option<(u32, u64, u64)>),
    /// The sizes of LIST are known not to be believed.
    liar: bool,
    buffer: Vec<u8>,
    /// Warnings that were given.
    warned: HashSet<String>,
}

impl<'a> Work<'a> {
    fn new(mailbox: &'a Mailbox<'a>) -> Work<'a> {
        let stumbled = locked(&mailbox.known).mailbox(&mailbox.name).is_some_and(|known| known.stumbled);
        Work {
            mailbox,
            balance: Balance::default(),
            together: mailbox.spec.pipelining.unwrap_or(!stumbled),
            suspect: false,
            unanswered: 0,
            named: false,
            deleting: 0,
            quitting: false,
            cuts: HashMap::new(),
            left_in_a_row: 0,
            at_message: false,
            suspected: None,
            failed: HashMap::new(),
            entries: Vec::new(),
            lies: (0, None),
            liar: false,
            buffer: Vec::new(),
            warned: HashSet::new(),
        }
    }

    fn folder(&self) -> Result<&'a Folder, SessionError> {
        let folder = self.mailbox.folder.as_deref();
        folder.ok_or_else(|| SessionError::Store(Arc::new(StoreError::Poisoned)))
    }

    fn warn(&mut self, text: String) {
        if self.warned.insert(text.clone()) {
            self.balance.warnings.push(text);
        }
    }

    fn noted(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Connects and logs in.
    fn enter(&mut self) -> Result<Session, SessionError> {
        let Mailbox { spec, dialer, stop, trace, .. } = self.mailbox;
        let (mut session, greeting) = Session::open(dialer, &spec.timeouts, trace.clone(), stop.clone())?;
        login(&mut session, &greeting, spec, &self.mailbox.secret)?;
        self.mailbox.counts.entered.store(true, Relaxed);
        Ok(session)
    }

    /// One session, from login to QUIT.
    fn session(&mut self) -> Result<(), SessionError> {
        (self.unanswered, self.named, self.deleting, self.at_message) = (0, false, 0, false);
        let mut session = self.enter()?;
        let result = self.transact(&mut session);
        match result {
            Ok(()) => self.quit(session),
            Err(error) => {
                self.unanswered = session.unanswered();
                session.hang_up();
                Err(error)
            }
        }
    }

    fn transact(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let listing = self.list(session)?;
        self.reckon(&listing)?;
        let (wanted, candidates) = self.sort(&listing);
        let wanted = self.recognise(session, &listing, wanted, candidates)?;
        let fetched = self.fetch(session, &listing, wanted)?;
        // Nothing is deleted before everything that was fetched is committed.
        self.commit()?;
        self.delete(session, &listing, &fetched)
    }

    fn commit(&mut self) -> Result<(), SessionError> {
        self.mailbox.desk.enter(self.noted()).map_err(SessionError::Store)
    }

    fn quit(&mut self, mut session: Session) -> Result<(), SessionError> {
        // What is to be deleted stands in the journal before QUIT is sent. Should the answer be lost, the UIDLs
        // are free for other messages, and the next run must not take those for known.
        self.commit()?;
        self.quitting = self.deleting > 0;
        failpoint::reach("archive.quit.before");
        let reply = session.ask(Command::Quit)?;
        failpoint::reach("archive.quit.after");
        self.quitting = false;
        if reply.is_ok() {
            self.balance.deleting += self.deleting;
        } else {
            self.balance.refused += self.deleting;
            self.warn(format!(
                "the server answered QUIT with `{}`; what was to be deleted may still be there",
                reply.text
            ));
        }
        Ok(())
    }

    fn entry(&self, what: What, uidl: Option<&str>) -> Entry {
        let entry = Entry::new((self.mailbox.now)(), what, &self.mailbox.name);
        Entry { uidl: uidl.map(str::to_owned), ..entry }
    }

    fn pipelines(&self, session: &Session) -> bool {
        self.together && (session.capabilities.pipelining || self.mailbox.spec.pipelining == Some(true))
    }

    /// Remembers that this server wants its commands one by one.
    fn stumbled(&mut self) {
        self.together = false;
        if self.mailbox.spec.pipelining != Some(true) {
            self.entries.push(self.entry(What::Stumbled, None));
        }
        self.warn(
            "the server offers PIPELINING and stumbles over it; from now on it is asked one command at a time"
                .to_owned(),
        );
    }

    /// After a session that broke: whether sending together may have been at fault.
    fn learn(&mut self, error: &SessionError, progress: bool) {
        let at_fault = match error {
            SessionError::Silent(_, several) => *several > 1,
            SessionError::Muddled => true,
            SessionError::NotAReply(_) | SessionError::EndlessLine(_) => {
                self.at_message && self.unanswered > 1
            }
            SessionError::Closed(_) | SessionError::Net(_) => !progress && self.unanswered > 1,
            _ => false,
        };
        if at_fault && self.together && !self.balance_has_cut() {
            self.together = false;
            self.suspect = true;
        }
    }

    /// Whether a connection was lost within a message: that is the message's doing, or the network's.
    fn balance_has_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    fn close(mut self) -> Balance {
        let counts = &self.mailbox.counts;
        self.balance.new = counts.new.load(Relaxed);
        self.balance.duplicate = counts.duplicate.load(Relaxed);
        self.balance.bytes = counts.bytes.load(Relaxed);
        self.balance.failed = self.failed.into_values().collect();
        self.balance.failed.sort_by_key(|failure| failure.number);
        if let (times, Some((number, listed, size))) = self.lies {
            self.balance.warnings.push(format!(
                "the sizes of LIST are wrong for {times} messages, such as {number}: {listed} by LIST, {size} received"
            ));
        }
        self.balance
    }
}

fn pause(time: Duration, stop: &Stop) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.asked() {
        std::thread::sleep(Duration::from_millis(20).min(until - Instant::now()));
    }
}
