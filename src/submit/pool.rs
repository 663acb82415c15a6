//! The thread `submit`: a pool of connections, the letters that wait for one, and the loop that
//! serves them all by readiness. How a connection comes about is in `opening`, what follows where one comes to nothing
//! in `failure`.

mod failure;
mod opening;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use mio::{Poll, Token, Waker};

use super::account::{Accounts, Berth};
use super::connection::{Connection, Loss};
use super::errand::Errand;
use super::growth::Growth;
use super::lanes::Lanes;
use super::outcome::{self, Desk, Hint, Step};
use super::pace::{Pace, Throttle};
use super::patience::Patience;
use super::relay::Relay;
use super::{Command, Consignment, Door, Event, Porter, Queued, SubmitError, Submitter};
use crate::job::{Pipelining, RelaySpec};
use crate::letter::{Answer, Outcome};
use crate::net::transcript::Transcript;
use crate::net::{NetError, Race};
use crate::wire::smtp::{Awaited, Class, Content as _, Event as Wire, Heard, Level, Offers, Record, Way};

/// How long replies are awaited once nothing new is begun.
const LAST_REPLIES: Duration = Duration::from_secs(30);
/// With `pipelining: auto`, so many connections in a row that end before anything on them was answered cost a level:
/// some servers close when commands come early, whatever they announce.
const UNHEARD: u32 = 2;
/// A server that closes a connection which carried nothing for so long tidies up: that is no failure.
const IDLE: Duration = Duration::from_secs(10);
/// A letter at which so many connections were lost waits like one that was deferred.
const MAX_LOSSES: u8 = 3;
/// After a relay said "too many connections", one more is tried each time so long has passed.
const REGROWTH: Duration = Duration::from_secs(30);
/// While other processes have all connections of the account, another try for one is made this often.
const BERTH_AGAIN: Duration = Duration::from_millis(250);
/// While the first connection is waited for, it is asked this often whether that is wanted still.
const LEAVE: Duration = Duration::from_millis(250);
/// An address that was outrun by one that then refused us gets no longer than that to answer.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// So often others are heeded who ask for one of ours.
const HEED: Duration = Duration::from_secs(1);
/// Under a rate, so much of it is asked for ahead.
const AHEAD: Duration = Duration::from_millis(500);

const WAKER: Token = Token(usize::MAX);
/// All sockets of connections on their way. Those of connections are numbered by place.
const RACE: Token = Token(usize::MAX - 1);

/// Starts the thread and waits until its first connection is ready.
pub(super) fn start(
    spec: &RelaySpec,
    accounts: &Accounts,
    trace: Option<Transcript>,
    events: Sender<Vec<Event>>,
) -> Result<Submitter, SubmitError> {
    let mut relays = VecDeque::new();
    let mut next = Some(spec);
    while let Some(spec) = next {
        relays.push_back(Relay::new(spec, accounts, !relays.is_empty())?);
        next = spec.fallback.as_deref();
    }
    begin(relays, accounts, trace, events)
}

/// The same with relays that are ready to be dialled: the first, and its fallbacks.
fn begin(
    mut relays: VecDeque<Relay>,
    accounts: &Accounts,
    trace: Option<Transcript>,
    events: Sender<Vec<Event>>,
) -> Result<Submitter, SubmitError> {
    let Some(relay) = relays.pop_front() else {
        return Err(SubmitError::Protocol { relay: String::new(), reason: "no relay".to_owned() });
    };
    let unready = |source: io::Error| SubmitError::Connect {
        relay: relay.name.clone(),
        source: NetError::Setting(format!("polling is not to be had: {source}")),
    };
    let poll = Poll::new().map_err(unready)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(unready)?);
    let sleeping = Arc::new(AtomicBool::new(false));
    let door = Arc::new(Mutex::new(Door::Open(events.clone())));
    let (commands, inbox) = crossbeam_channel::unbounded();
    let (ready, first) = crossbeam_channel::bounded(1);
    let name = relay.name.clone();
    let patience = Patience::new(relay.spec.retry.stay);
    let pool = Pool {
        poll,
        waker: Arc::clone(&waker),
        errand: None,
        inbox,
        sleeping: Arc::clone(&sleeping),
        events,
        batch: Vec::new(),
        trace,
        known: Known::of(&relay),
        lanes: Lanes::new(&relay.spec.limits, &relay.account),
        accounts: accounts.clone(),
        berth_at: None,
        berth_since: None,
        heed_at: Instant::now() + HEED,
        relay,
        fallbacks: relays,
        openings: Vec::new(),
        connections: Vec::new(),
        opened: 0,
        readied: 0,
        reported: 0,
        reported_away: false,
        turn: 0,
        patience,
        at_once: false,
        handed: 0,
        granted: 0,
        answered: false,
        phase: Phase::Trial(ready),
        tried: false,
        door: Arc::clone(&door),
    };
    let porter = Porter(Arc::clone(&door));
    let work = move || {
        let _porter = porter;
        pool.run();
    };
    let thread = std::thread::Builder::new().name("submit".to_owned()).spawn(work).map_err(|source| {
        SubmitError::Connect {
            relay: name.clone(),
            source: NetError::Setting(format!("no thread is to be had: {source}")),
        }
    })?;
    loop {
        match first.recv_timeout(LEAVE) {
            Ok(Ok((offers, relay))) => {
                return Ok(Submitter {
                    commands,
                    waker,
                    sleeping,
                    offers,
                    relay,
                    door,
                    thread: Some(thread),
                });
            }
            Ok(Err(error)) => return Err(error),
            Err(RecvTimeoutError::Timeout) if accounts.leaves() => {
                // It ends by itself, a resolver that hangs or not. Nothing was handed over.
                let _ = commands.send(Command::Abort);
                let _ = waker.wake();
                return Err(SubmitError::Left { relay: name });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(SubmitError::Broken { relay: name });
            }
        }
    }
}

/// The level that the job allows.
fn ceiling(pipelining: Pipelining) -> Level {
    match pipelining {
        Pipelining::Off => Level::Off,
        Pipelining::Envelope => Level::Envelope,
        Pipelining::Message => Level::Message,
        Pipelining::Window | Pipelining::Auto => Level::Window,
    }
}

/// A connection that is on its way: nobody has answered yet.
struct Opening {
    race: Race,
    berth: Berth,
    began: Instant,
    transcript: Option<Transcript>,
}

enum Phase {
    /// The first connection is tried; who started us waits for the answer.
    Trial(Sender<Result<(Offers, String), SubmitError>>),
    Running,
    /// What was handed over is finished, until then.
    Draining(Instant),
    /// Nothing is begun; replies are awaited until then.
    Stopping(Instant),
    /// Nothing is left to do.
    Over,
}

struct Pool {
    poll: Poll,
    waker: Arc<Waker>,
    /// What the next connection waits for.
    errand: Option<Errand>,
    inbox: Receiver<Command>,
    sleeping: Arc<AtomicBool>,
    events: Sender<Vec<Event>>,
    /// What the engine is told at the end of this turn.
    batch: Vec<Event>,
    trace: Option<Transcript>,
    relay: Relay,
    known: Known,
    fallbacks: VecDeque<Relay>,
    openings: Vec<Opening>,
    connections: Vec<Option<Connection>>,
    /// Connections opened so far.
    opened: u32,
    /// Connections that became ready so far.
    readied: u64,
    /// The count of connections last told.
    reported: usize,
    /// It was told that the relay is away.
    reported_away: bool,
    /// The connection that is given letters first this turn.
    turn: usize,
    lanes: Lanes,
    accounts: Accounts,
    /// Other processes have all connections: another is tried for then.
    berth_at: Option<Instant>,
    /// Since when there is none of ours.
    berth_since: Option<Instant>,
    /// When others are heeded next who ask for a connection.
    heed_at: Instant,
    /// What is put up with from the relay.
    patience: Patience,
    /// A connection came to nothing: no event will tell that another address or relay may be tried.
    at_once: bool,
    /// Letters handed over and not yet given back.
    handed: usize,
    /// Credits given and not yet used. Below zero: so many letters came before they were asked for, as an engine
    /// does whose disk is slow. They count as used credits, or neither side would ever ask the other again.
    granted: isize,
    /// Windowed letters were answered in this turn.
    answered: bool,
    phase: Phase,
    /// The first connection was ready: the engine listens.
    tried: bool,
    door: Arc<Mutex<Door>>,
}

/// What is known of the relay in use, begun anew with each.
struct Known {
    desk: Desk,
    growth: Growth,
    pace: Option<Pace>,
    /// What the relay puts up with.
    throttle: Throttle,
    /// Letters after which the relay closed a session, when it last said that it was enough.
    enough: Option<u32>,
    /// Letters accepted in the session that was lost last, if that was without a word and in the middle of others.
    cut_off: Option<u32>,
    /// Letters that a session may hold, because the relay closed two at the same count.
    session_limit: Option<u32>,
    ceiling: Level,
    /// A letter was accepted in this run, so that sessions need not climb by themselves.
    proven: bool,
    /// A windowed letter was accepted in this run: until then, one at a time.
    windowed: bool,
    /// Most connections now.
    cap: usize,
    regrow_at: Option<Instant>,
    /// What an address said that sent us to another one: it tells more than that the other is silent.
    refusal: Option<Answer>,
    /// Connections in a row on which letters were begun and nothing was answered.
    unheard: u32,
}

impl Known {
    fn of(relay: &Relay) -> Known {
        let spec = &relay.spec;
        Known {
            desk: Desk::default(),
            growth: relay.growth(),
            pace: relay.pace(),
            throttle: Throttle::default(),
            enough: None,
            cut_off: None,
            session_limit: None,
            ceiling: ceiling(spec.pipelining),
            proven: spec.pipelining != Pipelining::Auto,
            windowed: spec.pipelining == Pipelining::Window,
            cap: spec.connections.max(1),
            regrow_at: None,
            refusal: None,
            unheard: 0,
        }
    }
}

impl Pool {
    fn run(mut self) {
        let mut ready = mio::Events::with_capacity(256);
        loop {
            let now = Instant::now();
            self.take_commands(now);
            self.heed_others(now);
            self.hear_errand(now);
            self.open_connections(now);
            self.race(now);
            self.log_in(now);
            self.dispatch(now);
            self.send(now);
            self.grant(now);
            self.finish_phase(now);
            self.tell(now);
            if matches!(self.phase, Phase::Over) {
                return self.close();
            }
            self.wait(&mut ready, now);
            let now = Instant::now();
            for event in &ready {
                if let Some(Some(connection)) = self.connections.get_mut(event.token().0) {
                    connection.ready(
                        event.is_readable() || event.is_error(),
                        event.is_writable(),
                        event.is_read_closed() || event.is_error(),
                    );
                }
            }
            self.receive(now);
            self.check_deadlines(now);
            self.tell_slow(now);
        }
    }

    fn take_commands(&mut self, now: Instant) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Submit(letters) => {
                    self.handed += letters.len();
                    self.granted = self.granted.saturating_sub_unsigned(letters.len());
                    let open = matches!(self.phase, Phase::Trial(_) | Phase::Running | Phase::Draining(_));
                    for consignment in letters {
                        match open {
                            true => self.lanes.push(Queued { consignment, losses: 0, began: now }),
                            false => self.return_letter(consignment),
                        }
                    }
                }
                Command::Recall => self.return_waiting(),
                Command::Drain => {
                    if matches!(self.phase, Phase::Trial(_) | Phase::Running) {
                        self.phase = Phase::Draining(now + LAST_REPLIES);
                    }
                }
                Command::Abort => self.abort(now),
            }
        }
    }

    /// Gives waiting letters to connections with room.
    fn dispatch(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running | Phase::Draining(_)) {
            return;
        }
        let count = self.connections.len();
        self.turn = (self.turn + 1) % count.max(1);
        for step in 0..count {
            let slot = (self.turn + step) % count;
            let rank = self.rank(slot);
            let Some(connection) = &mut self.connections[slot] else { continue };
            while connection.session.room() > 0 {
                if self.known.throttle.wait(now).is_some() {
                    return;
                }
                if !self.lanes.ready(now, rank) {
                    break;
                }
                if self.known.pace.as_mut().is_some_and(|pace| !pace.start(now)) {
                    return;
                }
                let Some(queued) = self.lanes.take(now, rank) else {
                    // Another process took the turn of the only group that was ready.
                    self.known.pace.iter_mut().for_each(|pace| pace.give_back(now));
                    break;
                };
                if let Some(answer) = outcome::unfit(&queued.consignment, connection.session.offers()) {
                    self.known.pace.iter_mut().for_each(|pace| pace.give_back(now));
                    self.handed -= 1;
                    let _ =
                        outcome::settle_all(queued.consignment, Outcome::Failed, &answer, &mut self.batch);
                    continue;
                }
                self.known.throttle.start(now);
                connection.session.submit(Queued { began: now, ..queued });
            }
        }
    }

    fn send(&mut self, now: Instant) {
        for slot in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[slot] else { continue };
            if connection.session.is_exhausted() {
                connection.session.quit();
            }
            let sent = connection.send(now);
            match sent {
                Err(loss) => {
                    // What the server said before it went counts: letters are answered there.
                    connection.hear_out(now);
                    self.attend(slot, now);
                    self.lose(slot, Some(loss), now);
                }
                // Writing may have finished a letter that was answered early.
                Ok(()) => self.attend(slot, now),
            }
        }
    }

    fn receive(&mut self, now: Instant) {
        for slot in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[slot] else { continue };
            let received = connection.receive(now);
            self.attend(slot, now);
            if let Err(loss) = received {
                self.lose(slot, Some(loss), now);
            }
        }
        if std::mem::take(&mut self.answered) && self.known.growth.turn(self.live(), now) {
            self.set_windows();
        }
    }

    /// Hears what the session of a connection has to tell.
    fn attend(&mut self, slot: usize, now: Instant) {
        let mut untouched = Vec::new();
        let mut gone = None;
        while let Some(event) =
            self.connections[slot].as_mut().and_then(|connection| connection.session.next_event())
        {
            let over = self.connections[slot].as_ref().is_none_or(|connection| connection.session.is_over());
            match event {
                // Let in and sent away in one breath: what follows says why.
                Wire::Greeted | Wire::LoggedIn if over => {}
                Wire::Greeted => self.greeted(slot, now),
                Wire::LoggedIn => self.logged_in(slot, now),
                Wire::LoginFailed(error) => self.login_failed(slot, error, now),
                Wire::NoStartTls => {
                    gone = Some(None);
                    // Where it was offered in this run, it is one server of several that has none.
                    if !self.others_do(Some(slot), now) {
                        let relay = self.relay.name.clone();
                        self.came_to_nothing(SubmitError::NoStartTls { relay }, now);
                    }
                }
                Wire::Refused(heard) => {
                    gone = Some(None);
                    self.refused(slot, heard, now);
                }
                Wire::Done(queued, record) => self.judge(slot, queued, record, false, now),
                Wire::Untouched(queued) => untouched.push(queued),
                Wire::Stumbled(level) => self.stumbled(slot, level),
                Wire::Closing(heard) => {
                    let Some(connection) = &self.connections[slot] else { continue };
                    connection.note(&format!("the relay closes the session: {heard}"));
                    gone = Some(None);
                    // Who is let in only to be sent away must not come back at once; who had nothing to say for long
                    // is tidied up.
                    let idled =
                        connection.ready_at.is_some_and(|at| now.saturating_duration_since(at) >= IDLE);
                    if connection.session.begun() == 0 && !idled {
                        self.refused(slot, heard, now);
                    }
                }
                Wire::Broken(reason) => gone = Some(Some(Loss::Protocol(reason))),
                Wire::Quit => gone = Some(None),
            }
        }
        for queued in untouched.into_iter().rev() {
            self.put_back(queued);
        }
        if let Some(loss) = gone {
            self.lose(slot, loss, now);
        }
    }

    /// A letter's transaction is over. `culprit`: a connection was lost while this letter was the one spoken of.
    fn judge(&mut self, slot: usize, queued: Queued, record: Record, culprit: bool, now: Instant) {
        let slot_accepted =
            self.connections[slot].as_ref().map_or(0, |connection| connection.session.accepted());
        if record.level == Level::Window && record.way == Way::Answered {
            self.answered = true;
            self.known.growth.answered(queued.octets(), now.saturating_duration_since(queued.began));
        }
        self.read_hints(&record, queued.began, slot_accepted, now);
        let accepted = record.valid() > 0 && record.end.as_ref().is_some_and(Heard::is_yes);
        if accepted && !self.known.windowed && record.level == Level::Window {
            self.known.windowed = true;
            self.set_windows();
        }
        if accepted {
            self.known.proven = true;
            self.known.throttle.accepted(now);
        }
        if record.mail.is_some() {
            self.known.unheard = 0;
            // Lost with a whole content unanswered, connection after connection, all of a list would come into doubt;
            // lost in the middle, each letter would be tried so often on connections of its own.
            let lost = matches!(record.way, Way::Silent | Way::Early | Way::CutShort);
            if !lost && self.patience.answered() {
                self.accounts.say(&format!("relay {} answers again", self.relay.name));
            }
        }
        let losses = queued.losses + u8::from(culprit);
        let nonsense = record.nonsense.clone();
        let came_to_content = record.valid() > 0;
        let told = self.batch.len();
        let step = self.known.desk.judge(queued.consignment, record, &mut self.batch);
        let settled = self.batch[told..]
            .iter()
            .filter(|event| matches!(event, Event::Settled { .. } | Event::Returned { .. }))
            .count();
        self.handed -= settled;
        match step {
            Step::Settled => {}
            Step::Again(consignment) => self.put_back(Queued { consignment, losses, began: now }),
            Step::Back(consignment) if losses >= MAX_LOSSES => {
                let mut text = "the connection was lost each time this letter was submitted".to_owned();
                if let Some(nonsense) = nonsense {
                    text = format!("{text}: {nonsense}");
                }
                if came_to_content && self.fallbacks.is_empty() {
                    self.patience.lost_to_a_letter(u32::from(MAX_LOSSES));
                }
                let answer = outcome::said_by_us(&text);
                self.handed -= 1;
                let _ = outcome::settle_all(consignment, Outcome::Deferred, &answer, &mut self.batch);
            }
            Step::Back(consignment) => self.put_back(Queued { consignment, losses, began: now }),
            Step::Trouble(consignment, command, answer) => {
                self.return_letter(consignment);
                self.trouble(command, answer, now);
            }
        }
    }

    /// The relay's trouble is with the sender: told once, and nothing more is begun.
    fn trouble(&mut self, command: &'static str, answer: Answer, now: Instant) {
        if !matches!(self.phase, Phase::Stopping(_) | Phase::Over) {
            self.batch.push(Event::SenderTrouble { command: command.to_owned(), answer });
            self.stop(now);
        }
    }

    /// Nothing more is begun; replies to what is on the wire are awaited.
    fn stop(&mut self, now: Instant) {
        self.phase = Phase::Stopping(now + LAST_REPLIES);
        self.return_waiting();
    }

    fn abort(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Stopping(now);
        }
        self.openings.clear();
        for slot in 0..self.connections.len() {
            self.lose(slot, None, now);
        }
        self.return_waiting();
        self.release();
        self.phase = Phase::Over;
    }

    /// Gives back what was handed over at the last moment, and closes the door.
    fn close(mut self) {
        let door = Arc::clone(&self.door);
        let mut door = door.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_commands(Instant::now());
        door.close();
        if self.tried {
            self.batch.push(Event::Closed);
            // Nobody hears it where the engine has ended before us.
            let _ = self.events.send(std::mem::take(&mut self.batch));
        }
    }

    /// The server lost the thread: the whole pool steps down for the rest of the run.
    fn stumbled(&mut self, slot: usize, level: Level) {
        self.step_down(level);
        if let Some(connection) = &self.connections[slot] {
            connection.note(&format!(
                "the relay lost the order of pipelined commands: at most {:?} from now on",
                self.known.ceiling
            ));
        }
    }

    /// Below this level from now on.
    fn step_down(&mut self, level: Level) {
        self.known.ceiling = self.known.ceiling.min(level.lower());
        for connection in self.connections.iter_mut().flatten() {
            connection.session.set_ceiling(self.known.ceiling);
        }
    }

    /// Goes again: it waits at the head, or returns where nothing more is begun.
    fn put_back(&mut self, queued: Queued) {
        match self.phase {
            Phase::Stopping(_) | Phase::Over => self.return_letter(queued.consignment),
            _ => self.lanes.push_back(queued),
        }
    }

    fn return_letter(&mut self, consignment: Consignment) {
        self.handed -= 1;
        self.batch.push(Event::Returned { seq: consignment.seq });
    }

    fn return_waiting(&mut self) {
        let seqs: Vec<u64> = self.lanes.drain().map(|queued| queued.consignment.seq).collect();
        self.handed -= seqs.len();
        self.batch.extend(seqs.into_iter().map(|seq| Event::Returned { seq }));
    }

    /// Gives back what waits for a relay that is away, so that a crash leaves it in no doubt. Those that were spoken of
    /// when a connection was lost stay, and so does the count of that.
    fn return_unspoken(&mut self) {
        let (spoken, others): (Vec<_>, Vec<_>) = self.lanes.drain().partition(|queued| queued.losses > 0);
        spoken.into_iter().for_each(|queued| self.lanes.push_back(queued));
        others.into_iter().for_each(|queued| self.return_letter(queued.consignment));
    }

    fn release(&mut self) {
        self.handed -= self.known.desk.held();
        self.known.desk.release(&mut self.batch);
    }

    /// Says how many more letters could be used.
    fn grant(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        // What is held back for the next letter's answer must not wait for a letter that nobody has.
        if self.known.desk.held() > 0 && self.handed == self.known.desk.held() {
            self.release();
        }
        let mut target = self.known.cap * self.lookahead();
        if self.patience.waits() {
            // One letter is enough to find out whether the relay is back.
            target = 1;
        } else if self.is_paced() {
            let in_sessions: usize =
                self.connections.iter().flatten().map(|connection| connection.session.held()).sum();
            target = target.min(in_sessions + self.startable(now, AHEAD).max(1));
        }
        let here = self.handed - self.lanes.held_up();
        let wanted = target.saturating_add_signed(-self.granted).saturating_sub(here);
        // Few at a time would wake the engine for each letter.
        if wanted > 0 && (!self.batch.is_empty() || wanted * 4 >= target) {
            self.granted = self.granted.saturating_add_unsigned(wanted);
            self.batch.push(Event::Wanted(wanted));
        }
    }

    fn finish_phase(&mut self, now: Instant) {
        let until = match self.phase {
            Phase::Draining(until) | Phase::Stopping(until) => until,
            _ => return,
        };
        if now >= until {
            return self.abort(now);
        }
        if matches!(self.phase, Phase::Draining(_)) && self.handed > self.known.desk.held() {
            return;
        }
        for connection in self.connections.iter_mut().flatten() {
            if connection.session.held() == 0 {
                connection.session.quit();
            }
        }
        self.send(now);
        self.openings.clear();
        // One that is not ready has nobody to say goodbye to.
        for slot in 0..self.connections.len() {
            let hopeless = self.connections[slot].as_ref().is_some_and(|connection| {
                connection.session.held() == 0
                    && !connection.session.is_ready()
                    && connection.session.awaits() != Some(Awaited::Quit)
            });
            if hopeless {
                self.lose(slot, None, now);
            }
        }
        if self.live() == 0 {
            self.abort(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        let live = self.live();
        if live != self.reported && self.tried {
            self.reported = live;
            self.batch.push(Event::Connections(live));
        }
        let away = self.is_away(now);
        if away != self.reported_away && self.tried {
            self.reported_away = away;
            self.batch.push(Event::Away(away));
        }
        if self.batch.is_empty() || !self.tried {
            return;
        }
        let more = Vec::with_capacity(self.batch.len().min(1024));
        if self.events.send(std::mem::replace(&mut self.batch, more)).is_err() {
            // Nobody records outcomes any more; whatever is sent from here on would be sent twice.
            self.abort(Instant::now());
        }
    }

    fn wait(&mut self, ready: &mut mio::Events, now: Instant) {
        let eager =
            std::mem::take(&mut self.at_once) || self.connections.iter().flatten().any(Connection::is_eager);
        let timeout = if eager { Some(Duration::ZERO) } else { self.next_deadline(now) };
        self.sleeping.store(true, Ordering::SeqCst);
        let timeout = if self.inbox.is_empty() { timeout } else { Some(Duration::ZERO) };
        if let Err(error) = self.poll.poll(ready, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            let source = NetError::Setting(format!("polling failed: {error}"));
            self.fail(SubmitError::Connect { relay: self.relay.name.clone(), source }, now);
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// How long nothing has to be done unless something happens.
    fn next_deadline(&mut self, now: Instant) -> Option<Duration> {
        let timeouts = &self.relay.spec.timeouts;
        let connections =
            self.connections.iter().flatten().filter_map(|connection| connection.deadline(timeouts));
        let phase = match self.phase {
            Phase::Draining(until) | Phase::Stopping(until) => Some(until),
            _ => None,
        };
        let races = self.openings.iter().map(|opening| opening.race.due());
        let slow = self.connections.iter().flatten().filter_map(Connection::tells_at);
        let mut next = connections.chain(races).chain(phase).chain(slow).min();
        if matches!(self.phase, Phase::Trial(_) | Phase::Running | Phase::Draining(_)) {
            let waits = self.lanes.waiting() > 0 || matches!(self.phase, Phase::Trial(_));
            let reopen = self.patience.not_before(now).filter(|_| waits || self.reported_away);
            let roomy = |&slot: &usize| {
                self.connections[slot].as_ref().is_some_and(|connection| connection.session.room() > 0)
            };
            let first = (0..self.connections.len()).filter(roomy).map(|slot| self.rank(slot)).min();
            let pace = first.and_then(|rank| self.lanes.next(now, rank)).map(|lane| {
                let account = self.known.pace.as_ref().and_then(|pace| pace.wait(now));
                let relay = self.known.throttle.wait(now);
                account.into_iter().chain(relay).fold(lane, Instant::max)
            });
            let regrow = self.known.regrow_at.filter(|_| waits);
            let berth = self.berth_at.filter(|&at| waits && at > now);
            let heed = (self.relay.berths.are_shared() && self.live() > 0).then_some(self.heed_at);
            // Under a rate, more letters are asked for as their time comes.
            let ask = (self.is_paced() && matches!(self.phase, Phase::Running)).then(|| now + AHEAD / 2);
            let others = berth.into_iter().chain(heed);
            next = next.into_iter().chain(reopen).chain(pace).chain(regrow).chain(ask).chain(others).min();
        }
        next.map(|at| at.saturating_duration_since(now))
    }

    fn check_deadlines(&mut self, now: Instant) {
        for slot in 0..self.connections.len() {
            let timeouts = &self.relay.spec.timeouts;
            let Some(connection) = &self.connections[slot] else { continue };
            if connection.deadline(timeouts).is_some_and(|at| at <= now) {
                let silence = connection.silence(timeouts);
                self.lose(slot, Some(silence), now);
            }
        }
    }

    /// Tells of a relay that is slow to let us in, unless it has done so on another connection.
    fn tell_slow(&mut self, now: Instant) {
        let mut known = self.connections.iter().flatten().any(|other| other.carries() || other.is_slow());
        let (timeouts, relay) = (&self.relay.spec.timeouts, &self.relay.name);
        for connection in self.connections.iter_mut().flatten() {
            if connection.tells_at().is_none_or(|at| at > now) {
                continue;
            }
            let what = connection.tell_slow();
            let Some(until) = connection.deadline(timeouts).filter(|_| !known) else { continue };
            known = true;
            let until = clock_time(until.saturating_duration_since(now));
            self.accounts.mention(&format!("relay {relay}: {what}; waiting until {until}"));
        }
    }

    fn set_windows(&mut self) {
        let mut window = self.known.growth.window();
        if !self.known.windowed {
            window.parcels = 1;
        }
        for connection in self.connections.iter_mut().flatten() {
            connection.session.set_window(window);
        }
    }

    /// Nothing goes at the moment: a relay that worked does not, or is slow to let us in. One that nobody has a letter
    /// for, once another connection may be tried, is not what is waited for.
    fn is_away(&self, now: Instant) -> bool {
        let mut connections = self.connections.iter().flatten();
        let wanted = self.handed > self.known.desk.held() || self.patience.not_before(now).is_some();
        (self.patience.waits() && wanted)
            || (connections.clone().any(Connection::is_slow) && !connections.any(Connection::carries))
    }

    /// How many connections that may carry letters were ready before this one.
    fn rank(&self, slot: usize) -> usize {
        let Some(own) = &self.connections[slot] else { return 0 };
        let before = |other: &&Connection| other.carries() && other.ready_as < own.ready_as;
        self.connections.iter().flatten().filter(before).count()
    }

    /// Connections that are open or being opened.
    fn live(&self) -> usize {
        self.openings.len() + self.connections.iter().flatten().count()
    }

    /// Letters that a connection can have on the wire.
    fn depth(&self) -> usize {
        let level = self
            .connections
            .iter()
            .flatten()
            .filter(|connection| connection.session.is_ready())
            .map(|connection| connection.session.level(0))
            .max()
            .unwrap_or(Level::Envelope);
        match level {
            Level::Off | Level::Envelope => 1,
            Level::Message => 2,
            Level::Window if self.known.windowed => self.known.growth.window().parcels,
            Level::Window => 1,
        }
    }

    /// Letters held for each connection, so that it does not stand idle while more are fetched.
    fn lookahead(&self) -> usize {
        match self.depth() {
            1 => 2,
            depth => 2 * depth,
        }
    }

    /// Letters that the rate lets start within `span`.
    fn startable(&self, now: Instant, span: Duration) -> usize {
        let account = self.known.pace.as_ref().map_or(usize::MAX, |pace| pace.within(now, span));
        account.min(self.known.throttle.within(now, span))
    }

    fn is_paced(&self) -> bool {
        self.known.pace.is_some() || self.known.throttle.holds()
    }

    fn read_hints(&mut self, record: &Record, began: Instant, session: u32, now: Instant) {
        let to_rcpts = record.rcpts.iter().flatten().map(|heard| (heard, true));
        let to_others = record.mail.iter().chain(&record.data).chain(&record.end).chain(&record.closing);
        let noes: Vec<_> = to_others
            .map(|heard| (heard, false))
            .chain(to_rcpts)
            .filter(|(heard, _)| heard.class() == Class::Transient)
            .collect();
        for (heard, to_rcpt) in noes {
            self.take_hint(heard, to_rcpt, began, session, now);
        }
    }

    /// A reply that says something about our pace or our connections.
    fn take_hint(&mut self, heard: &Heard, to_rcpt: bool, began: Instant, accepted: u32, now: Instant) {
        match outcome::hint(heard, to_rcpt) {
            Some(Hint::TooFast(told)) => self.slow_down(began, told, now),
            Some(Hint::MaybeTooFast) if self.known.throttle.another_no() => self.slow_down(began, None, now),
            Some(Hint::TooMany) => self.shrink(self.live().saturating_sub(1).max(1), now),
            Some(Hint::Enough) => {
                let again = self.known.enough.replace(accepted) == Some(accepted);
                if again && accepted > 0 {
                    self.limit_sessions(accepted);
                }
            }
            Some(Hint::MaybeTooFast) | None => {}
        }
    }

    /// A letter begun then was too much.
    fn slow_down(&mut self, began: Instant, told: Option<Duration>, now: Instant) {
        if self.known.throttle.too_fast(began, told, now) {
            self.shrink((self.live() / 2).max(1), now);
        }
    }

    /// Fewer connections for a while.
    fn shrink(&mut self, most: usize, now: Instant) {
        self.known.cap = self.known.cap.min(most);
        self.known.regrow_at = Some(now + REGROWTH);
    }
}

/// What a clock on the wall shows after so long.
fn clock_time(after: Duration) -> String {
    let at = Timestamp::now().checked_add(after).unwrap_or(Timestamp::MAX);
    at.to_zoned_datetime(TimeZone::system()).strftime("%H:%M:%S").to_string()
}
