//! The shell around the engine's core: threads, channels and the real clock.
//!
//! One thread turns the core; the ledger's writer, its queue, the makers (rayon) and the
//! submitter have threads of their own and speak to it by channels, many letters to a message, so
//! that a hand-over costs little more than a push.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};

use crate::ledger::{Claimed, Domains, EditionId, Group, Ledger, LedgerError, Mark, Queue, Settlement};
use crate::letter::{Answer, Message, Purpose, RcptOutcome};
use crate::submit::{self, Consignment, SubmitError, Submitter};

use super::core::{Action, Claim, Config, Core, Counts, End, Event};

/// Letters made by one task of the pool: fewer cost hand-overs, more make a core wait for the other.
const MADE_AT_ONCE: usize = 8;

/// How often flags, suppress files and deadlines are looked at.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// How long replies are awaited once a stop is asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a ledger that cannot write is tried again with what must not be lost.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);

/// Progress is told so often at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Makes letters: rendering, enclosing and composing, wired together by whoever knows these rooms.
pub trait Maker: Send + Sync + 'static {
    /// The letter of a claimed row, and its mark. `now` is Unix seconds, for a letter without a date.
    fn make(&self, claimed: &Claimed, now: i64) -> Result<(Message, Mark), Unmade>;

    /// Whether somebody a letter goes to must not be written to any more: then it is made again.
    fn suppressed(&self, message: &Message) -> bool;

    /// Looks again at files that may have changed; called now and then. Whether letters made before may
    /// be out of date.
    fn refresh(&self) -> bool;

    /// Hears of outcomes once they are durable, in the ledger's thread and before the engine does.
    fn settled(&self, settlements: &[Settlement]);
}

/// Why a letter was not made.
#[derive(Debug)]
pub enum Unmade {
    /// It cannot be made; one outcome for each address.
    Failed(Vec<RcptOutcome>),
    /// Its recipient is on a suppress list.
    Suppressed,
    /// No letter can be made here any more, and why: the run ends.
    Broken(String),
}

/// What a run is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Start nothing new; wait for replies.
    Stop,
    /// Stop at once.
    Abort,
}

/// Where a run stands, for bars and lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Counts of this run.
    pub counts: Counts,
    /// Connections open.
    pub connections: usize,
    /// The relay does not work at the moment: it is waited for.
    pub away: bool,
    /// The run is paused by a flag.
    pub paused: bool,
    /// Seconds until the next deferred letter is due, when there is nothing else to do.
    pub waiting: Option<i64>,
}

/// Why a run stopped before its end.
#[derive(Debug)]
pub enum Trouble {
    /// The relay refuses the sender.
    Sender {
        /// The command it answered.
        command: String,
        /// Its words.
        answer: Answer,
    },
    /// The relay cannot be worked with.
    Submit(SubmitError),
    /// The ledger cannot be read or written.
    Ledger(LedgerError),
    /// Letters cannot be made, for a reason that is none of theirs.
    Maker(String),
    /// The machine gives no thread.
    Thread(io::Error),
    /// A thread of this name panicked: our own mistake.
    Broken(&'static str),
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended<L> {
    /// The core's word.
    pub end: End,
    /// What happened.
    pub counts: Counts,
    /// Why it stopped early.
    pub trouble: Option<Trouble>,
    /// The ledger, unless its thread broke.
    pub ledger: Option<L>,
}

/// All that a run needs.
pub struct Engine<M, L> {
    /// How it behaves.
    pub config: Config,
    /// Makes the letters.
    pub maker: Arc<M>,
    /// The edition that is sent.
    pub edition: EditionId,
    /// The job's name and purpose, under which its flags are.
    pub job: (String, Purpose),
    /// Writes; it is given back when the run has ended.
    pub ledger: L,
    /// Who is next, read on a connection of its own.
    pub queue: Box<dyn Queue>,
    /// Which domains the claims of each group are taken from; one group without limits: none named.
    pub domains: Vec<Domains>,
    /// Submits.
    pub submitter: Submitter,
    /// What the submitter says.
    pub answers: Receiver<Vec<submit::Event>>,
    /// Signals.
    pub control: Receiver<Control>,
    /// The group of a domain: 0 without a limit of its own.
    pub group_of: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    /// When the first deferred delivery is due, Unix seconds.
    pub first_due: Option<i64>,
}

/// A letter and what the ledger is told of it before it goes, or why there is none.
type Made = Result<(Message, Mark), Unmade>;

/// What the threads say to the core's.
enum Note {
    Claimed {
        group: usize,
        rows: Vec<Claimed>,
        end: bool,
    },
    Due {
        rows: Vec<Claimed>,
        next: Option<i64>,
    },
    Made(Vec<(u64, Made)>),
    Durable {
        marks: Vec<u64>,
        settled: Vec<u64>,
    },
    NotDurable {
        marks: Vec<u64>,
        settled: Vec<u64>,
        error: Option<LedgerError>,
    },
    Flags {
        stop: bool,
        paused: bool,
    },
    Refreshed,
    Unreadable(LedgerError),
    /// A thread is gone without a word.
    Broken(&'static str),
}

/// The names of the threads.
const LEDGER: &str = "ledger";
const CLAIMS: &str = "claims";

/// Held by a thread as long as it works: says so when that panics, for others wait for it.
struct Alarm {
    thread: &'static str,
    notes: Sender<Note>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.notes.send(Note::Broken(self.thread));
        }
    }
}

/// Unix milliseconds by a clock that never goes back: the wall's at the start, then the machine's, the hours
/// it was asleep included.
struct Clock {
    /// The wall's when the machine's was at zero.
    zero: i64,
}

impl Clock {
    fn new() -> Clock {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX / 2);
        Clock { zero: wall - Clock::machine() }
    }

    fn machine() -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
    }

    fn now(&self) -> i64 {
        self.zero + Clock::machine()
    }
}

impl<M: Maker, L: Ledger + 'static> Engine<M, L> {
    /// Runs until all is said and recorded. `tell` is called now and then with where it stands.
    pub fn run(self, mut tell: impl FnMut(&Progress)) -> Ended<L> {
        let Engine { config, maker, edition, job, ledger, queue, domains, submitter, mut answers, .. } = self;
        let (control, group_of, first_due) = (self.control, self.group_of, self.first_due);
        let clock = Clock::new();
        let (notes, heard) = unbounded();
        let (write, writes) = unbounded();
        let (claim, claims) = bounded(64);
        let writer = {
            let (notes, maker) = (notes.clone(), Arc::clone(&maker));
            let alarm = Alarm { thread: LEDGER, notes: notes.clone() };
            let work = move || {
                // Dropped in the other order: when the alarm is heard nobody can write any more.
                let _alarm = alarm;
                let writes = writes;
                keep(ledger, edition, &writes, &notes, &*maker)
            };
            thread::Builder::new().name(LEDGER.into()).spawn(work)
        };
        let claimer = {
            let (notes, maker) = (notes.clone(), Arc::clone(&maker));
            let books = Books { queue, edition, job, domains };
            let alarm = Alarm { thread: CLAIMS, notes: notes.clone() };
            let work = move || {
                let _alarm = alarm;
                books.fetch(&claims, &notes, &*maker);
            };
            thread::Builder::new().name(CLAIMS.into()).spawn(work)
        };
        let mut turn = Turn {
            core: Core::new(config, first_due.map(|at| at.saturating_mul(1000))),
            rows: HashMap::new(),
            made: HashMap::new(),
            maker,
            notes,
            write,
            claim,
            submitter,
            group_of,
            clock,
            progress: Progress::default(),
            trouble: None,
            stop_by: None,
        };
        let (writer, claimer) = (turn.thread(writer), turn.thread(claimer));
        let mut told = Instant::now();
        let end = loop {
            if let Some(end) = turn.act() {
                break end;
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(&turn.standing());
            }
            select! {
                recv(heard) -> note => turn.hear(note.ok()),
                recv(answers) -> events => {
                    if events.is_err() {
                        answers = never();
                    }
                    turn.answers(events.ok());
                }
                recv(control) -> word => turn.control(word.ok()),
                default(turn.patience()) => {}
            }
            // What else has come in the meantime costs no further turn of the core.
            while let Ok(note) = heard.try_recv() {
                turn.hear(Some(note));
            }
            while let Ok(events) = answers.try_recv() {
                turn.answers(Some(events));
            }
            turn.look_at_the_clock();
        };
        tell(&turn.standing());
        let Turn { core, trouble, write, claim, .. } = turn;
        drop((write, claim));
        // A panic there was heard of and has stopped the run.
        let ledger = writer.and_then(|thread| thread.join().ok());
        if let Some(thread) = claimer {
            let _ = thread.join();
        }
        Ended { end, counts: core.counts, trouble, ledger }
    }
}

/// The core and everything its actions touch.
struct Turn<M> {
    core: Core,
    rows: HashMap<u64, Arc<Claimed>>,
    made: HashMap<u64, (Message, Option<Mark>)>,
    maker: Arc<M>,
    notes: Sender<Note>,
    write: Sender<Group>,
    claim: Sender<Action>,
    submitter: Submitter,
    group_of: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    clock: Clock,
    progress: Progress,
    trouble: Option<Trouble>,
    stop_by: Option<Instant>,
}

impl<M: Maker> Turn<M> {
    /// Does what the core says; its last word, when it has one.
    fn act(&mut self) -> Option<End> {
        // Letters out of date change what is to be done: as long as there are some, ask again.
        loop {
            let actions = self.core.act(self.clock.now());
            if actions.is_empty() {
                return None;
            }
            for action in actions {
                match action {
                    Action::Claim { .. } | Action::ClaimDue { .. } => {
                        if self.claim.send(action).is_err() {
                            self.stop(End::Ledger);
                        }
                    }
                    Action::Make(seqs) => self.make(&seqs),
                    Action::Mark(seqs) => self.mark(seqs),
                    Action::Settle(settlements) => self.record(Group { marks: Vec::new(), settlements }),
                    Action::HandOver(seqs) => self.hand_over(seqs),
                    Action::Drain => {
                        self.stop_by.get_or_insert_with(|| Instant::now() + PATIENCE);
                        // Behind a stop nothing is begun: what waits for its time goes back to the list.
                        self.submitter.recall();
                        self.submitter.drain();
                    }
                    Action::Finish(end) => return Some(end),
                }
            }
        }
    }

    fn make(&mut self, seqs: &[u64]) {
        let now = self.clock.now().div_euclid(1000);
        for chunk in seqs.chunks(MADE_AT_ONCE) {
            let rows: Vec<Arc<Claimed>> =
                chunk.iter().filter_map(|seq| self.rows.get(seq).cloned()).collect();
            let (maker, notes) = (Arc::clone(&self.maker), self.notes.clone());
            rayon::spawn(move || {
                let made = rows.iter().map(|row| (row.seq, maker.make(row, now))).collect();
                // Nobody hears it once the run is over, and then nobody needs it.
                let _ = notes.send(Note::Made(made));
            });
        }
    }

    fn mark(&mut self, seqs: Vec<u64>) {
        let now = self.clock.now();
        let mut marks = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let Some((message, mark)) = self.made.get_mut(&seq) else { continue };
            if self.maker.suppressed(message) {
                self.made.remove(&seq);
                self.core.on(Event::Stale { seq }, now);
            } else {
                marks.extend(mark.take());
            }
        }
        if !marks.is_empty() {
            self.record(Group { marks, settlements: Vec::new() });
        }
    }

    fn record(&mut self, group: Group) {
        if let Err(group) = self.write.send(group) {
            let Group { marks, settlements } = group.0;
            let marks = marks.into_iter().map(|mark| mark.seq).collect();
            let settled = settlements.into_iter().map(|settlement| settlement.seq).collect();
            self.core.on(Event::NotDurable { marks, settled }, self.clock.now());
        }
    }

    fn hand_over(&mut self, seqs: Vec<u64>) {
        let mut consignments = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let Some((message, _)) = self.made.remove(&seq) else { continue };
            // Somebody may have come to the suppress list while the mark was synced.
            if self.maker.suppressed(&message) {
                self.core.on(Event::Withheld { seq }, self.clock.now());
            } else {
                consignments.push(Consignment { seq, message });
            }
        }
        self.submitter.submit(consignments);
    }

    fn hear(&mut self, note: Option<Note>) {
        let now = self.clock.now();
        match note {
            Some(Note::Claimed { group, rows, end }) => {
                let claims = rows.into_iter().map(|row| self.hold(row)).collect();
                self.core.on(Event::Claimed { group, claims, end }, now);
            }
            Some(Note::Due { rows, next }) => {
                let group_of = Arc::clone(&self.group_of);
                let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
                let claims = rows.into_iter().map(|row| (group_of(&row.domain), self.hold(row))).collect();
                self.core.on(Event::Due { claims, next: next.map(|at| at.saturating_mul(1000)) }, now);
                // Read before they were settled: they will be claimed again, if they are due again.
                for seq in seqs.into_iter().filter(|seq| !self.core.holds(*seq)) {
                    self.rows.remove(&seq);
                }
            }
            Some(Note::Made(made)) => made.into_iter().for_each(|(seq, made)| self.made(seq, made, now)),
            Some(Note::Durable { marks, settled }) => {
                let done = settled.clone();
                self.core.on(Event::Durable { marks, settled }, now);
                for seq in done.into_iter().filter(|seq| !self.core.holds(*seq)) {
                    self.rows.remove(&seq);
                    self.made.remove(&seq);
                }
            }
            Some(Note::NotDurable { marks, settled, error }) => {
                if let Some(error) = error {
                    self.trouble.get_or_insert(Trouble::Ledger(error));
                }
                self.core.on(Event::NotDurable { marks, settled }, now);
            }
            Some(Note::Flags { stop, paused }) => {
                if stop {
                    self.stop(End::Stopped);
                }
                if paused && !self.progress.paused {
                    // Under a slow rate the next letter may lie ready for minutes.
                    self.submitter.recall();
                }
                self.progress.paused = paused;
                self.core.on(Event::Paused(paused), now);
            }
            // Whoever is not to be written to any more may be next.
            Some(Note::Refreshed) => self.submitter.recall(),
            Some(Note::Unreadable(error)) => {
                self.trouble.get_or_insert(Trouble::Ledger(error));
                self.stop(End::Ledger);
            }
            Some(Note::Broken(thread)) => {
                self.trouble.get_or_insert(Trouble::Broken(thread));
                self.stop(End::Ledger);
                if thread == LEDGER {
                    self.core.on(Event::LedgerGone, now);
                }
            }
            None => self.stop(End::Ledger),
        }
    }

    fn hold(&mut self, row: Claimed) -> Claim {
        let claim = Claim {
            seq: row.seq,
            attempts: row.attempts,
            first_attempt: row.first_attempt.map(|at| at.saturating_mul(1000)),
            earlier: row.earlier,
        };
        // A row that is already held stays as it is: it may have been made by now. Of any other this is
        // what the ledger says now, with who has an outcome already.
        if !self.core.holds(row.seq) {
            self.rows.insert(row.seq, Arc::new(row));
        }
        claim
    }

    fn made(&mut self, seq: u64, made: Result<(Message, Mark), Unmade>, now: i64) {
        match made {
            Ok((message, mark)) => {
                if let Some(row) = self.rows.get_mut(&seq).filter(|row| row.date.is_none()) {
                    // Made again after it was returned, it is the same letter.
                    Arc::make_mut(row).date = Some(mark.date);
                }
                let size = message.content.weight();
                self.made.insert(seq, (message, Some(mark)));
                self.core.on(Event::Made { seq, size }, now);
            }
            Err(Unmade::Failed(rcpts)) => self.core.on(Event::Unmade { seq, rcpts }, now),
            Err(Unmade::Suppressed) => self.core.on(Event::Suppressed { seq }, now),
            Err(Unmade::Broken(reason)) => {
                self.trouble.get_or_insert(Trouble::Maker(reason));
                self.stop(End::Ledger);
            }
        }
    }

    fn answers(&mut self, events: Option<Vec<submit::Event>>) {
        let now = self.clock.now();
        // A submitter that is gone without a word has broken: what it had is unsure in the ledger.
        let Some(events) = events else {
            self.trouble.get_or_insert(Trouble::Broken("submit"));
            self.stop(End::Relay);
            self.core.on(Event::SubmitterGone, now);
            return;
        };
        for event in events {
            match event {
                submit::Event::Wanted(more) => self.core.on(Event::Wanted(more), now),
                submit::Event::Settled { seq, rcpts } => self.core.on(Event::Answered { seq, rcpts }, now),
                submit::Event::Returned { seq } => self.core.on(Event::Returned { seq }, now),
                submit::Event::SenderTrouble { command, answer } => {
                    self.trouble.get_or_insert(Trouble::Sender { command, answer });
                    self.stop(End::Relay);
                }
                submit::Event::Failed(error) => {
                    self.trouble.get_or_insert(Trouble::Submit(error));
                    self.stop(End::Relay);
                }
                submit::Event::Connections(count) => self.progress.connections = count,
                submit::Event::Away(away) => self.progress.away = away,
                submit::Event::Closed => self.core.on(Event::Closed, now),
            }
        }
    }

    /// A thread that cannot be had is a machine without memory: it is said, and nothing is sent.
    fn thread<T>(&mut self, spawned: io::Result<T>) -> Option<T> {
        match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                self.trouble = Some(Trouble::Thread(error));
                self.stop(End::Ledger);
                None
            }
        }
    }

    fn control(&mut self, word: Option<Control>) {
        match word {
            Some(Control::Stop) => self.stop(End::Stopped),
            Some(Control::Abort) => {
                self.stop(End::Stopped);
                self.submitter.abort();
            }
            None => {}
        }
    }

    fn stop(&mut self, end: End) {
        self.core.on(Event::Stop(end), self.clock.now());
        self.stop_by.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    fn look_at_the_clock(&mut self) {
        if self.core.is_stopping() && self.stop_by.is_some_and(|by| by <= Instant::now()) {
            self.stop_by = None;
            self.submitter.abort();
        }
    }

    /// How long nothing needs to be looked at.
    fn patience(&self) -> Duration {
        let due = self.core.wake_at().map(|at| at.saturating_sub(self.clock.now()).max(1));
        due.map_or(LOOK_AROUND, |due| Duration::from_millis(due.unsigned_abs()).min(LOOK_AROUND))
    }

    fn standing(&self) -> Progress {
        let waiting = self.core.idle_until().map(|at| (at - self.clock.now()).div_euclid(1000).max(0));
        Progress { counts: self.core.counts, waiting, ..self.progress }
    }
}

/// The ledger's thread: commits what waits as soon as the last commit has ended. No timers: a
/// group is as large as what came while the disk was busy. Gives the ledger back at the end.
fn keep<L: Ledger, M: Maker>(
    mut ledger: L,
    edition: EditionId,
    writes: &Receiver<Group>,
    notes: &Sender<Note>,
    maker: &M,
) -> L {
    while let Ok(mut group) = writes.recv() {
        while let Ok(more) = writes.try_recv() {
            group.marks.extend(more.marks);
            group.settlements.extend(more.settlements);
        }
        let marks: Vec<u64> = group.marks.iter().map(|mark| mark.seq).collect();
        let settled: Vec<u64> = group.settlements.iter().map(|settlement| settlement.seq).collect();
        let note = match ledger.write(edition, &group) {
            Ok(()) => Note::Durable { marks, settled },
            Err(error) => {
                // Marks are given up at once: nothing is sent that is not recorded. Outcomes are
                // worth patience: without them letters that were sent would be called unsure.
                group.marks.clear();
                let of_one = error.is_of_one_letter();
                let _ = notes.send(Note::NotDurable { marks, settled: Vec::new(), error: Some(error) });
                match of_one {
                    true => one_by_one(&mut ledger, edition, &mut group, notes),
                    false => with_patience(&mut ledger, edition, &group, settled),
                }
            }
        };
        if let Note::Durable { settled, .. } = &note
            && !settled.is_empty()
        {
            maker.settled(&group.settlements);
        }
        if notes.send(note).is_err() {
            break;
        }
    }
    ledger
}

/// Writes outcomes again and again, for as long as a full disk may take to be mended.
fn with_patience<L: Ledger>(ledger: &mut L, edition: EditionId, group: &Group, settled: Vec<u64>) -> Note {
    let by = Instant::now() + WRITE_PATIENCE;
    loop {
        if group.settlements.is_empty() || ledger.write(edition, group).is_ok() {
            return Note::Durable { marks: Vec::new(), settled };
        }
        if Instant::now() >= by {
            return Note::NotDurable { marks: Vec::new(), settled, error: None };
        }
        thread::sleep(LOOK_AROUND);
    }
}

/// Writes outcomes each by itself, because something is wrong with one of them that no patience mends.
/// Leaves those in the group that are recorded.
fn one_by_one<L: Ledger>(
    ledger: &mut L,
    edition: EditionId,
    group: &mut Group,
    notes: &Sender<Note>,
) -> Note {
    let mut lost = Vec::new();
    group.settlements.retain(|settlement| {
        let alone = Group { marks: Vec::new(), settlements: vec![settlement.clone()] };
        let kept = ledger.write(edition, &alone).is_ok();
        if !kept {
            lost.push(settlement.seq);
        }
        kept
    });
    let _ = notes.send(Note::NotDurable { marks: Vec::new(), settled: lost, error: None });
    let settled = group.settlements.iter().map(|settlement| settlement.seq).collect();
    Note::Durable { marks: Vec::new(), settled }
}

/// What the claims' thread reads.
struct Books {
    queue: Box<dyn Queue>,
    edition: EditionId,
    job: (String, Purpose),
    domains: Vec<Domains>,
}

impl Books {
    /// Reads ahead, and looks at flags and files now and then.
    fn fetch<M: Maker>(&self, claims: &Receiver<Action>, notes: &Sender<Note>, maker: &M) {
        // Before the first claim: a job that is paused waits from the start, and whoever came to the suppress
        // list while somebody was asked, or a connection was waited for, gets no letter.
        maker.refresh();
        if notes.send(self.flags()).is_err() {
            return;
        }
        let mut looked = Instant::now();
        loop {
            let note = match claims.recv_timeout(LOOK_AROUND) {
                Ok(action) => self.claim(&action).unwrap_or_else(|error| Some(Note::Unreadable(error))),
                Err(error) if error.is_timeout() => None,
                Err(_) => return,
            };
            if note.is_some_and(|note| notes.send(note).is_err()) {
                return;
            }
            if looked.elapsed() >= LOOK_AROUND {
                looked = Instant::now();
                if maker.refresh() && notes.send(Note::Refreshed).is_err() {
                    return;
                }
                if notes.send(self.flags()).is_err() {
                    return;
                }
            }
        }
    }

    /// What is wished of whoever runs this job.
    fn flags(&self) -> Note {
        match self.queue.flags(&self.job.0, self.job.1) {
            Ok(flags) => Note::Flags { stop: flags.stop, paused: flags.pause },
            Err(error) => Note::Unreadable(error),
        }
    }

    fn claim(&self, action: &Action) -> Result<Option<Note>, LedgerError> {
        match *action {
            Action::Claim { group, after, limit } => {
                let rows = match self.domains.get(group) {
                    Some(domains) => self.queue.claim_of(self.edition, domains, after, limit)?,
                    None => self.queue.claim(self.edition, after, limit)?,
                };
                Ok(Some(Note::Claimed { group, end: rows.len() < limit, rows }))
            }
            Action::ClaimDue { now, limit } => {
                let now = now.div_euclid(1000);
                let rows = self.queue.claim_due(self.edition, now, limit)?;
                let more = rows.len() == limit;
                let next = if more { Some(now) } else { self.queue.next_due(self.edition, now)? };
                Ok(Some(Note::Due { rows, next }))
            }
            _ => Ok(None),
        }
    }
}
