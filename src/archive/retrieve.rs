//! One mailbox, from login to QUIT: list, tell the known from the new, fetch, hand over, wait for the
//! commit, delete what the job says, end. Connections that break are made anew; a message that breaks
//! them twice is left for the next run; a server that stumbles over commands sent together is asked one
//! by one from then on.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::committer::{Counts, Desk};
use super::digest::Digest;
use super::journal::{Entry, What};
use super::known::Known;
use super::listing::{self, Listed, Standing, TooMany};
use super::login::login;
use super::quarantine;
use super::session::{Session, SessionError, Stop, refusal};
use super::store::{Folder, Parcel, Shelf, StoreError, head_hash, locked};
use crate::failpoint;
use crate::job::{Deletion, MailboxSpec};
use crate::measure::ByteSize;
use crate::net::Dialer;
use crate::net::transcript::Transcript;
use crate::read;
use crate::secret::Secret;
use crate::wire::pop3::{Command, Retrieval, Wanted, Window, list_line, uidl_line};

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

/// What identifies a message over the sessions of one run: its UIDL, or else its number.
fn key(uidl: Option<&str>, number: u32) -> Key {
    uidl.map_or_else(|| format!("#{number}").into(), Box::from)
}

impl Listed {
    fn key(&self) -> Key {
        key(self.uidl.as_deref(), self.number)
    }
}

/// A message that could not be archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its number in the session that failed.
    pub number: u32,
    /// Its UIDL, where it has one.
    pub uidl: Option<Box<str>>,
    /// Why.
    pub reason: String,
}

impl Failure {
    fn key(&self) -> Key {
        key(self.uidl.as_deref(), self.number)
    }
}

/// What became of a mailbox: the balance, and what is to be said about it.
#[derive(Debug, Default)]
pub struct Balance {
    /// Messages that the last listing had; `None` if there was no listing.
    pub on_server: Option<u64>,
    /// Archived now.
    pub new: u64,
    /// Archived before.
    pub known: u64,
    /// Fetched now; their bytes were archived already, under another UIDL.
    pub duplicate: u64,
    /// Not fetched: they are archived messages by size and header, or beyond a limit.
    pub skipped: u64,
    /// Could not be archived.
    pub failed: Vec<Failure>,
    /// Bytes archived now.
    pub bytes: u64,
    /// Messages that the server counts or lists in a way that they cannot be had.
    pub unlisted: u64,
    /// Deletions that the server refused, at DELE or at QUIT.
    pub refused: u64,
    /// Deletions that QUIT agreed to.
    pub deleting: u64,
    /// Deletions of an earlier run that this listing shows as done.
    pub deleted: u64,
    /// Deletions that were refused because there are too many.
    pub too_many: Option<TooMany>,
    /// Messages that were due for deletion and stay, because their files are not what they must be.
    pub unsound: u64,
    /// What is worth knowing.
    pub warnings: Vec<String>,
    /// What ended the work before its end.
    pub error: Option<SessionError>,
}

impl Balance {
    /// Messages on the server of which nothing can be said.
    pub fn unaccounted(&self) -> u64 {
        let told = self.new + self.known + self.duplicate + self.skipped + self.failed.len() as u64;
        self.on_server.unwrap_or(0).saturating_sub(told)
    }

    /// Whether everything on the server is archived, and deleted as the job says.
    pub fn is_complete(&self) -> bool {
        self.on_server.is_some()
            && self.failed.is_empty()
            && self.unsound == 0
            && self.unaccounted() == 0
            && self.unlisted == 0
            && self.refused == 0
            && self.too_many.is_none()
    }

    /// Whether an earlier run's note of a message without a UIDL says nothing any more. Its number was
    /// that session's: if all messages are accounted for now, whatever fails has a note of this run.
    pub fn outdates(&self, note: &quarantine::Note) -> bool {
        let number = note.message.strip_prefix('#').and_then(|number| number.parse::<u32>().ok());
        number.is_some()
            && self.on_server.is_some()
            && self.error.is_none()
            && self.unaccounted() == 0
            && !self.failed.iter().any(|failure| *failure.key() == *note.message)
    }
}

/// So many times in a row a connection may fail without a message having come.
const TRIES: u32 = 3;
/// A message whose connection broke so often while it was coming is left for the next run.
const CUTS: u32 = 2;
/// So many messages in a row that had to be left mean that the server is at fault, and not they.
const LEFT_IN_A_ROW: u32 = 3;
/// So many refusals in a row of commands sent together are no accident.
const REFUSALS: usize = 3;
/// DELE and TOP travel in groups of this size: a group's commands fit any send buffer.
const FLIGHT: usize = 100;
/// No mailbox is longer.
const MAX_MESSAGES: usize = 10_000_000;
/// Free space to leave when messages are fetched.
const RESERVE: u64 = 1 << 20;
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

/// See [`key`].
type Key = Box<str>;

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

    /// CAPA after login, STAT, LIST and UIDL, together where the server takes that.
    fn list(&mut self, session: &mut Session) -> Result<Vec<Listed>, SessionError> {
        let together =
            self.together && (session.capabilities.pipelining || self.mailbox.spec.pipelining == Some(true));
        let commands = [Command::Capa, Command::Stat, Command::List, Command::Uidl];
        let begun = Instant::now();
        if together {
            session.send(&commands)?;
        }
        let mut listing: Vec<Listed> = Vec::new();
        let mut in_order = true;
        let mut unreadable = 0;
        let mut stat = None;
        for (index, command) in commands.iter().enumerate() {
            if !together {
                session.send(std::slice::from_ref(command))?;
            }
            if let Command::Capa = command {
                session.capa_reply()?;
                continue;
            }
            let patience = if together { session.stall() } else { session.patience() };
            let reply = session.reply_within(patience)?;
            match command {
                Command::Stat if reply.is_ok() => stat = reply.first_number(),
                Command::List if reply.is_ok() => {
                    session.list("LIST", MAX_MESSAGES, |line| {
                        let Some((number, size)) = list_line(line) else {
                            unreadable += 1;
                            return;
                        };
                        in_order &= listing.last().is_none_or(|last| last.number < number);
                        listing.push(Listed { number, size, uidl: None });
                    })?;
                    if !in_order {
                        listing.sort_by_key(|listed| listed.number);
                        listing.dedup_by_key(|listed| listed.number);
                    }
                }
                Command::Uidl if reply.is_ok() => {
                    self.named = true;
                    let mut at = 0;
                    session.list("UIDL", MAX_MESSAGES, |line| {
                        let Some((number, uidl)) = uidl_line(line) else { return };
                        // Both lists come in the same order, so the next one is nearly always it.
                        if listing.get(at).is_none_or(|listed| listed.number != number) {
                            let Ok(found) = listing.binary_search_by_key(&number, |listed| listed.number) else {
                                return;
                            };
                            at = found;
                        }
                        if let Some(listed) = listing.get_mut(at) {
                            listed.uidl = Some(uidl.into());
                        }
                        at += 1;
                    })?;
                }
                Command::Uidl => self.warn(format!(
                    "the server has no UIDL (`{}`): messages are known again by header and size, or by fetching them",
                    reply.text
                )),
                // A server that stumbles may refuse all but the first command of a flight.
                _ if together && index > 0 => return Err(SessionError::Muddled),
                Command::Stat => {}
                _ => return Err(refusal(command.word(), reply)),
            }
        }
        // Silence that only a slow server explains is no stumble.
        if self.suspect && self.suspected.is_none() && !together && begun.elapsed() < session.stall() {
            self.stumbled();
        }
        self.suspect = false;
        self.check_listing(&listing, stat, unreadable);
        Ok(listing)
    }

    fn check_listing(&mut self, listing: &[Listed], stat: Option<u64>, unreadable: u64) {
        self.balance.on_server = Some(listing.len() as u64);
        self.balance.unlisted = stat.unwrap_or(0).saturating_sub(listing.len() as u64).max(unreadable);
        if unreadable > 0 {
            self.warn(format!("{unreadable} lines of LIST cannot be read; their messages cannot be fetched"));
        }
        if let Some(stat) = stat.filter(|&stat| stat != listing.len() as u64) {
            self.warn(format!("STAT counts {stat} messages, LIST has {}", listing.len()));
        }
        let without = listing.iter().filter(|listed| listed.uidl.is_none()).count();
        if without > 0 && without < listing.len() {
            self.warn(format!("UIDL names {} of {} messages", listing.len() - without, listing.len()));
        }
        let shared = listing::times(listing).values().filter(|&&times| times > 1).count();
        if shared > 0 {
            self.warn(format!("{shared} UIDLs are given to several messages each; those are never deleted"));
        }
    }

    /// Compares the listing with what is known: which deletions of earlier runs are done, and which UIDLs say
    /// nothing any more. Those are forgotten before anything is judged by them.
    fn reckon(&mut self, listing: &[Listed]) -> Result<(), SessionError> {
        // Without UIDLs nothing is seen to be absent.
        if !self.named {
            return Ok(());
        }
        let known = locked(&self.mailbox.known);
        let Some(mailbox) = known.mailbox(&self.mailbox.name) else { return Ok(()) };
        let listed = listing::times(listing);
        let doubtful = listing::doubtful(listing, mailbox, self.mailbox.delete);
        let here = mailbox.uidls.iter().filter(|(uidl, _)| listed.contains_key(&***uidl));
        let mut files: Vec<u32> = here.map(|(_, uid)| uid.file).collect();
        files.sort_unstable();
        files.dedup();
        drop(known);
        let lost = self.lost(&files)?;
        let known = locked(&self.mailbox.known);
        let Some(mailbox) = known.mailbox(&self.mailbox.name) else { return Ok(()) };
        let mut entries = Vec::new();
        let (mut deleted, mut still, mut other, mut again) = (0u64, 0u64, 0u64, 0u64);
        for (uidl, uid) in &mailbox.uidls {
            let what = match (listed.contains_key(&**uidl), uid.deleting) {
                (true, _) if lost.contains(&uid.file) => {
                    again += 1;
                    What::Gone
                }
                (true, _) if !doubtful.contains(&**uidl) => continue,
                (true, true) => {
                    still += 1;
                    What::Gone
                }
                (true, false) => {
                    other += 1;
                    What::Gone
                }
                (false, true) => {
                    deleted += 1;
                    What::Deleted
                }
                // Should it come back, it may be another message's name.
                (false, false) => What::Gone,
            };
            entries.push(self.entry(what, Some(uidl)));
        }
        drop(known);
        self.balance.deleted += deleted;
        if still > 0 {
            self.warn(format!(
                "{still} messages are still there though their deletion was asked for, or others have their UIDLs; \
                 they are fetched anew"
            ));
        }
        if other > 0 {
            self.warn(format!(
                "the server lists known UIDLs with other sizes than before: they may be other messages' by now, and \
                 {other} messages are fetched anew"
            ));
        }
        if again > 0 {
            self.warn(format!(
                "the files of {again} archived messages are missing or have another size; they are fetched again"
            ));
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.entries.extend(entries);
        self.commit()
    }

    /// Those of the files that are not in the store as long as they must be.
    fn lost(&self, files: &[u32]) -> Result<HashSet<u32>, SessionError> {
        let mut lost = HashSet::new();
        if files.is_empty() {
            return Ok(lost);
        }
        let shelf = Shelf::of(self.folder()?.path())?;
        for &file in files {
            let record = locked(&self.mailbox.known).file(file).copied();
            let Some(record) = record else { continue };
            if !shelf.holds(&record)? {
                shelf.make_room(&record)?;
                lost.insert(file);
            }
        }
        Ok(lost)
    }

    fn entry(&self, what: What, uidl: Option<&str>) -> Entry {
        let entry = Entry::new((self.mailbox.now)(), what, &self.mailbox.name);
        Entry { uidl: uidl.map(str::to_owned), ..entry }
    }

    /// Indices of the listing: what is to be fetched, and what may be known under another name.
    fn sort(&mut self, listing: &[Listed]) -> (Vec<usize>, Vec<usize>) {
        let known = locked(&self.mailbox.known);
        let standings = listing::standings(listing, &known, &self.mailbox.name, self.mailbox.delete);
        drop(known);
        let (mut wanted, mut candidates) = (Vec::new(), Vec::new());
        let (mut certain, mut probable) = (0, 0);
        for (index, standing) in standings.iter().enumerate() {
            let failed = self.failed.contains_key(&listing[index].key());
            match standing {
                Standing::Known => certain += 1,
                // Deleting asks for bytes, not for likeness.
                Standing::Probable if *self.mailbox.delete == Deletion::Never => probable += 1,
                _ if failed => {}
                Standing::Candidate if *self.mailbox.delete == Deletion::Never => candidates.push(index),
                Standing::Probable | Standing::Candidate | Standing::Doubtful | Standing::Wanted => {
                    wanted.push(index);
                }
            }
        }
        let Counts { new, duplicate, .. } = &*self.mailbox.counts;
        let by_this_run = new.load(Relaxed) + duplicate.load(Relaxed);
        self.balance.known = u64::saturating_sub(certain + probable, by_this_run.min(certain));
        (wanted, candidates)
    }

    /// Asks for the headers of candidates, and takes out of what is wanted those that are archived under
    /// another UIDL: same size, same header.
    fn recognise(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        mut wanted: Vec<usize>,
        candidates: Vec<usize>,
    ) -> Result<Vec<usize>, SessionError> {
        self.balance.skipped = 0;
        if candidates.is_empty() {
            return Ok(wanted);
        }
        if !session.capabilities.top && !self.mailbox_has_top(session, listing, &candidates)? {
            wanted.extend(candidates);
            wanted.sort_unstable();
            return Ok(wanted);
        }
        let group = if self.pipelines(session) { FLIGHT } else { 1 };
        let shelf = Shelf::of(self.folder()?.path())?;
        let mut header = Vec::new();
        for flight in candidates.chunks(group) {
            let commands: Vec<Command<'_>> =
                flight.iter().map(|&index| Command::Top(listing[index].number, 0)).collect();
            session.send(&commands)?;
            for &index in flight {
                let listed = &listing[index];
                let patience = if group > 1 { session.stall() } else { session.patience() };
                if !session.reply_within(patience)?.is_ok() {
                    wanted.push(index);
                    continue;
                }
                header.clear();
                session.content(session.patience(), |piece| {
                    let room = MAX_HEADER.saturating_sub(header.len());
                    header.extend_from_slice(&piece[..piece.len().min(room)]);
                    Ok::<(), StoreError>(())
                })?;
                let (end, _) = read::header_end(&header);
                let known = locked(&self.mailbox.known);
                let record = listing::recognised(listing, &known, &self.mailbox.name)(
                    listed.size,
                    head_hash(&header[..end]),
                )
                .copied();
                drop(known);
                match record {
                    // What is lost here is worth fetching, whatever its name.
                    Some(record) if !shelf.holds(&record)? => wanted.push(index),
                    Some(record) => {
                        self.balance.skipped += 1;
                        if let Some(uidl) = listed.uidl.as_deref() {
                            self.entries.push(Entry {
                                sha256: Some(record.sha256),
                                size: record.size,
                                listed: listed.size,
                                head: record.head,
                                ..self.entry(What::Probably, Some(uidl))
                            });
                        }
                    }
                    None => wanted.push(index),
                }
            }
        }
        if self.balance.skipped > 0 {
            self.warn(format!(
                "{} messages have the size and header of archived ones, under other UIDLs or none, and were not \
                 fetched again",
                self.balance.skipped
            ));
        }
        wanted.sort_unstable();
        Ok(wanted)
    }

    /// TOP is older than CAPA: whether a server has it that does not say so is seen by asking once.
    fn mailbox_has_top(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        candidates: &[usize],
    ) -> Result<bool, SessionError> {
        let Some(&first) = candidates.first() else { return Ok(false) };
        let reply = session.ask(Command::Top(listing[first].number, 0))?;
        if reply.is_ok() {
            session.content(session.patience(), |_| Ok::<(), StoreError>(()))?;
        }
        Ok(reply.is_ok())
    }

    fn pipelines(&self, session: &Session) -> bool {
        self.together && (session.capabilities.pipelining || self.mailbox.spec.pipelining == Some(true))
    }

    /// Fetches messages and hands them over. Returns the archiving times of those without a UIDL.
    fn fetch(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        mut indices: Vec<usize>,
    ) -> Result<HashMap<u32, i64>, SessionError> {
        self.noted_last(listing, &mut indices)?;
        self.leave_monsters(listing, &mut indices)?;
        let counts = Arc::clone(&self.mailbox.counts);
        let received = counts.received.load(Relaxed);
        let allowed = self.mailbox.limit.map_or(usize::MAX, |limit| limit.saturating_sub(received) as usize);
        if indices.len() > allowed {
            self.balance.skipped += (indices.len() - allowed) as u64;
            indices.truncate(allowed);
        }
        let by_number: HashMap<u32, usize> =
            indices.iter().map(|&index| (listing[index].number, index)).collect();
        let wanted: Vec<Wanted> = indices
            .iter()
            .map(|&index| Wanted { number: listing[index].number, size: listing[index].size })
            .collect();
        counts.wanted.store(received + wanted.len() as u64, Relaxed);
        let bytes: u64 = wanted.iter().map(|wanted| wanted.size).sum();
        counts.wanted_bytes.store(counts.received_bytes.load(Relaxed) + bytes, Relaxed);

        let window = Window::default();
        let mut retrieval = Retrieval::new(wanted, window, self.pipelines(session));
        let mut flight = Vec::new();
        let mut refused: Vec<(Wanted, String)> = Vec::new();
        let mut in_a_row = 0;
        // Asked for again alone: those refused when sent together, and one whose size surprised.
        let mut alone: HashSet<u32> = HashSet::new();
        let mut audit: Option<(u32, Digest)> = None;
        let mut fetched = HashMap::new();
        loop {
            if self.mailbox.stop.asked() {
                retrieval.stop();
            }
            flight.clear();
            // While an odd size is looked into nothing else is asked for.
            let asked = match audit {
                Some(_) => retrieval.command_alone(&mut flight),
                None => retrieval.commands(&mut flight),
            };
            if asked > 0 {
                let coming: u64 = retrieval.asked().map(|wanted| wanted.size).sum();
                self.folder()?.room_for(coming + coming / 8 + RESERVE)?;
                session.send_prepared(&flight, asked)?;
            }
            let Some(current) = retrieval.current() else {
                if refused.is_empty() {
                    break;
                }
                retrieval.step_down();
                for (wanted, _) in refused.drain(..) {
                    alone.insert(wanted.number);
                    retrieval.again(wanted);
                }
                continue;
            };
            let several = retrieval.asked().nth(1).is_some();
            let patience = if several { session.stall() } else { session.patience() };
            let listed = &listing[by_number[&current.number]];
            let reply = match session.reply_within(patience) {
                Ok(reply) => reply,
                Err(error) => {
                    self.at_message = true;
                    // Asked for together with others it may not be at fault: that shows when it is asked for alone.
                    if several && !self.balance_has_cut() {
                        self.suspected = Some(listed.key());
                    } else {
                        self.cut(listed, &error, "instead of it", &[])?;
                    }
                    return Err(error);
                }
            };
            if !reply.is_ok() {
                retrieval.answered();
                let was_alone = alone.contains(&current.number) || !retrieval.is_pipelined();
                if was_alone && !several {
                    self.fail(listed, reply.text, &[])?;
                } else {
                    refused.push((current, reply.text));
                    in_a_row += 1;
                    if in_a_row >= REFUSALS {
                        retrieval.step_down();
                    }
                }
                continue;
            }
            in_a_row = 0;
            let mut incoming = self.folder()?.begin(std::mem::take(&mut self.buffer));
            let came = session.content(session.patience(), |piece| incoming.write(piece));
            let size = match came {
                Ok(size) => size,
                Err(SessionError::Store(trouble)) => {
                    self.buffer = incoming.abandon();
                    return Err(SessionError::Store(trouble));
                }
                Err(error) => {
                    let noted = self.cut(listed, &error, "in the middle of it", incoming.beginning());
                    self.buffer = incoming.abandon();
                    noted?;
                    return Err(error);
                }
            };
            // Servers that add a last line end do not count it.
            let odd = size != current.size && size != current.size + 2;
            match audit.take() {
                // It came again, alone: the same bytes mean that LIST lies, others that the order was lost.
                Some((number, digest)) if number == current.number && !several => {
                    let (receipt, buffer) = incoming.finish()?;
                    self.buffer = buffer;
                    if receipt.sha256 == digest {
                        self.liar = true;
                    } else {
                        self.stumbled();
                        retrieval.step_down();
                    }
                    retrieval.answered();
                    self.hand_over(listed, size, odd, receipt, &mut fetched)?;
                    continue;
                }
                Some(pending) => {
                    // In flight behind the odd one: it may be another's, and is asked for again.
                    audit = Some(pending);
                    self.buffer = incoming.abandon();
                    retrieval.answered();
                    retrieval.again(current);
                    continue;
                }
                None => {}
            }
            if odd && several && retrieval.is_pipelined() && !self.liar {
                let (receipt, buffer) = incoming.finish()?;
                self.buffer = buffer;
                self.folder()?.discard(&receipt);
                audit = Some((current.number, receipt.sha256));
                retrieval.answered();
                retrieval.first(current);
                continue;
            }
            let (receipt, buffer) = incoming.finish()?;
            self.buffer = buffer;
            retrieval.answered();
            if alone.remove(&current.number) {
                // Refused when sent together, given when asked for alone.
                self.stumbled();
            }
            self.hand_over(listed, size, odd, receipt, &mut fetched)?;
        }
        if self.mailbox.stop.asked() {
            self.commit()?;
            return Err(SessionError::Stopped);
        }
        Ok(fetched)
    }

    /// Puts what could not be archived by an earlier run behind all others: should it fail again, those are
    /// here.
    fn noted_last(&self, listing: &[Listed], indices: &mut [usize]) -> Result<(), SessionError> {
        // Notes that cannot be read only cost the order.
        let notes = quarantine::notes(self.folder()?.path()).unwrap_or_default();
        let notes = notes.into_iter().filter(|note| *note.mailbox == *self.mailbox.name);
        let noted: HashSet<Key> = notes.map(|note| note.message.into()).collect();
        if !noted.is_empty() {
            indices.sort_by_key(|&index| noted.contains(&listing[index].key()));
        }
        Ok(())
    }

    /// A size that no disk here has room for is one message's trouble, or a lie about it: the others come all the
    /// same.
    fn leave_monsters(&mut self, listing: &[Listed], indices: &mut Vec<usize>) -> Result<(), SessionError> {
        let Some(largest) = indices.iter().map(|&index| listing[index].size).max() else { return Ok(()) };
        if !self.folder()?.is_too_small_for(largest)? {
            return Ok(());
        }
        for index in std::mem::take(indices) {
            let listed = &listing[index];
            if self.folder()?.is_too_small_for(listed.size)? {
                let size = ByteSize(listed.size);
                self.fail(
                    listed,
                    format!("by LIST it has {size}, more than the whole disk of the archive"),
                    &[],
                )?;
            } else {
                indices.push(index);
            }
        }
        Ok(())
    }

    /// The connection broke at a message. It is given up once that has happened too often.
    fn cut(
        &mut self,
        listed: &Listed,
        error: &SessionError,
        place: &str,
        beginning: &[u8],
    ) -> Result<(), SessionError> {
        if let SessionError::Stopped = error {
            return Ok(());
        }
        self.suspected = None;
        let cuts = self.cuts.entry(listed.key()).or_insert(0);
        *cuts += 1;
        if *cuts < CUTS {
            return Ok(());
        }
        let reason = format!("the connection broke {cuts} times {place}: {error}");
        self.left_in_a_row += 1;
        self.fail(listed, reason, beginning)
    }

    fn hand_over(
        &mut self,
        listed: &Listed,
        size: u64,
        odd: bool,
        receipt: super::store::Receipt,
        fetched: &mut HashMap<u32, i64>,
    ) -> Result<(), SessionError> {
        self.left_in_a_row = 0;
        if self.suspected.take_if(|key| **key == *listed.key()).is_some() && !self.together {
            // Alone it comes.
            self.stumbled();
        }
        if odd {
            self.lies.0 += 1;
            self.lies.1.get_or_insert((listed.number, listed.size, size));
        }
        if listed.uidl.is_none() {
            fetched.insert(listed.number, (self.mailbox.now)());
        }
        let counts = &self.mailbox.counts;
        counts.received.fetch_add(1, Relaxed);
        counts.received_bytes.fetch_add(listed.size, Relaxed);
        let parcel = Parcel {
            mailbox: Arc::clone(&self.mailbox.name),
            uidl: listed.uidl.clone(),
            listed: listed.size,
            receipt,
        };
        Ok(self.mailbox.desk.hand_over(parcel, counts)?)
    }

    /// A message is given up for this run.
    fn fail(&mut self, listed: &Listed, reason: String, beginning: &[u8]) -> Result<(), SessionError> {
        let Mailbox { name, now, .. } = self.mailbox;
        let folder = self.folder()?;
        let message = listed.key();
        quarantine::note(folder.path(), name, &message, listed.size, &reason, beginning, now()).map_err(
            |source| StoreError::Io {
                doing: "write the quarantine of",
                path: folder.path().to_owned(),
                source,
            },
        )?;
        let failure = Failure { number: listed.number, uidl: listed.uidl.clone(), reason };
        self.failed.insert(message, failure);
        Ok(())
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

    fn delete(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        fetched: &HashMap<u32, i64>,
    ) -> Result<(), SessionError> {
        let Mailbox { known, name, delete, confirmed, .. } = self.mailbox;
        let due =
            listing::due(listing, &locked(known), name, delete, fetched, (self.mailbox.now)(), *confirmed);
        let due = match due {
            Ok(due) => due,
            Err(too_many) => {
                self.balance.too_many = Some(too_many);
                return Ok(());
            }
        };
        let due = self.sound(listing, due)?;
        let group = if self.pipelines(session) { FLIGHT } else { 1 };
        self.balance.refused = 0;
        let mut deleting = Vec::new();
        for flight in due.chunks(group) {
            failpoint::reach("archive.dele.before");
            let commands: Vec<Command<'_>> =
                flight.iter().map(|&index| Command::Dele(listing[index].number)).collect();
            session.send(&commands)?;
            for &index in flight {
                let reply = session.reply()?;
                let listed = &listing[index];
                if reply.is_ok() {
                    deleting.push(self.entry(What::Deleting, listed.uidl.as_deref()));
                } else {
                    self.balance.refused += 1;
                    // Each by its number would bury everything else where a mailbox may only be read.
                    if self.balance.refused <= REFUSALS as u64 {
                        let number = listed.number;
                        self.warn(format!("the server does not delete message {number}: {}", reply.text));
                    }
                }
            }
            failpoint::reach("archive.dele.after");
        }
        self.deleting = deleting.len() as u64;
        self.entries = deleting;
        Ok(())
    }

    /// Those of the due messages whose files hold, now, the bytes that were archived: deleting cannot be
    /// undone, so the last look is at the disk and not at the journal.
    fn sound(&mut self, listing: &[Listed], due: Vec<usize>) -> Result<Vec<usize>, SessionError> {
        let store = self.folder()?.path();
        let mut shelf = None;
        let mut sound = Vec::with_capacity(due.len());
        for index in due {
            let listed = &listing[index];
            let record = listed.uidl.as_deref().and_then(|uidl| {
                let known = locked(&self.mailbox.known);
                let uid = known.mailbox(&self.mailbox.name)?.uidls.get(uidl)?;
                known.file(uid.file).copied()
            });
            // Without a UIDL it was fetched and committed in this very session.
            let Some(record) = record else {
                sound.push(index);
                continue;
            };
            let shelf = match &shelf {
                Some(shelf) => shelf,
                None => shelf.insert(Shelf::of(store)?),
            };
            let place = shelf.place(&record)?;
            let digest =
                place.as_ref().map(|place| File::open(store.join(place)).and_then(Digest::of_reader));
            if matches!(digest, Some(Ok((digest, _))) if digest == record.sha256) {
                sound.push(index);
            } else {
                self.balance.unsound += 1;
                let place = place.unwrap_or_else(|| record.sha256.to_string());
                self.warn(format!(
                    "message {} is due for deletion and stays on the server: its file is missing or changed ({place})",
                    listed.number
                ));
            }
        }
        Ok(sound)
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

/// A header longer than this is not looked at.
const MAX_HEADER: usize = 128 * 1024;

fn pause(time: Duration, stop: &Stop) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.asked() {
        std::thread::sleep(Duration::from_millis(20).min(until - Instant::now()));
    }
}
