//! The thread `submit`: a pool of connections, the letters that wait for one, and the loop that
//! serves them all by readiness.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::event::Source;
use mio::{Interest, Poll, Token, Waker};

use super::account::{Accounts, Berth};
use super::connection::{Connection, Loss};
use super::errand::{Errand, Found};
use super::growth::Growth;
use super::lanes::Lanes;
use super::outcome::{self, Desk, Hint, Step};
use super::pace::{Pace, Throttle};
use super::patience::{Failure, Patience, Verdict};
use super::relay::{Relay, refused_by_net};
use super::{Command, Consignment, Door, Event, Porter, Queued, SubmitError, Submitter};
use crate::job::{Pipelining, RelaySpec, TlsMode};
use crate::letter::{Answer, Outcome};
use crate::measure;
use crate::net::transcript::Transcript;
use crate::net::{Link, NetError, Race};
use crate::wire::smtp::{
    Awaited, Class, Content as _, Event as Wire, Heard, Level, LoginError, Offers, Record, Security, Session,
    Way,
};

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
        ceiling: ceiling(relay.spec.pipelining),
        proven: relay.spec.pipelining != Pipelining::Auto,
        windowed: relay.spec.pipelining == Pipelining::Window,
        growth: relay.growth(),
        pace: relay.pace(),
        throttle: Throttle::default(),
        enough: None,
        cut_off: None,
        session_limit: None,
        lanes: Lanes::new(&relay.spec.limits, &relay.account),
        cap: relay.spec.connections.max(1),
        regrow_at: None,
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
        turn: 0,
        desk: Desk::default(),
        patience,
        refusal: None,
        unheard: 0,
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
                return Err(SubmitError::Protocol {
                    relay: name,
                    reason: "the thread ended early".to_owned(),
                });
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
    fallbacks: VecDeque<Relay>,
    openings: Vec<Opening>,
    connections: Vec<Option<Connection>>,
    /// Connections opened so far.
    opened: u32,
    /// Connections that became ready so far.
    readied: u64,
    /// The count of connections last told.
    reported: usize,
    /// The connection that is given letters first this turn.
    turn: usize,
    lanes: Lanes,
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
    accounts: Accounts,
    /// Other processes have all connections: another is tried for then.
    berth_at: Option<Instant>,
    /// Since when there is none of ours.
    berth_since: Option<Instant>,
    /// When others are heeded next who ask for a connection.
    heed_at: Instant,
    /// What is put up with from the relay.
    patience: Patience,
    /// What an address said that sent us to another one: it tells more than that the other is silent.
    refusal: Option<Answer>,
    /// Connections in a row on which letters were begun and nothing was answered.
    unheard: u32,
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
            self.dispatch(now);
            self.send(now);
            self.grant(now);
            self.finish_phase(now);
            self.tell();
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

    /// Opens as many connections as the waiting letters need.
    fn open_connections(&mut self, now: Instant) {
        if self.regrow_at.is_some_and(|at| at <= now) {
            self.cap = (self.cap + 1).min(self.relay.spec.connections.max(1));
            self.regrow_at = (self.cap < self.relay.spec.connections).then_some(now + REGROWTH);
        }
        let wanted = match self.phase {
            Phase::Trial(_) => usize::from(self.live() == 0),
            Phase::Running | Phase::Draining(_) if self.lanes.waiting() > 0 => {
                let (mut room, mut ready, mut opening) = (0, 0, self.openings.len());
                for connection in self.connections.iter().flatten() {
                    room += connection.session.room();
                    ready += usize::from(connection.carries());
                    opening += usize::from(connection.is_opening());
                }
                // One that is being opened will take a few.
                let served = room + opening * self.depth();
                // One more ranks behind all of them. Whoever may use it may use their room, too; others wait for
                // theirs, and need no other.
                let waiting = self.lanes.waiting_for(ready + opening);
                let startable = self.startable(now, Duration::from_millis(50)).min(waiting);
                let needed = startable.saturating_sub(served).div_ceil(self.depth().max(1));
                // While it is not known whether the relay works again, one finds out.
                let most = if self.patience.is_whole() { self.cap } else { ready + 1 };
                needed.min(most.min(self.cap).saturating_sub(self.live()))
            }
            _ => 0,
        };
        if wanted == 0 || self.patience.not_before(now).is_some() {
            return;
        }
        if self.berth_at.is_some_and(|at| at > now) || !self.is_prepared(now) {
            return;
        }
        for _ in 0..wanted {
            let Some(berth) = self.relay.berths.take(self.live(), now) else {
                return self.wait_for_berth(now);
            };
            (self.berth_at, self.berth_since) = (None, None);
            self.patience.tries(now);
            self.open(berth, now);
        }
    }

    /// Whether all is there that a connection needs. If not, somebody goes for it.
    fn is_prepared(&mut self, now: Instant) -> bool {
        if self.errand.is_some() {
            return false;
        }
        let relay = &self.relay;
        let begun = if relay.addresses.are_wanted() {
            let (dialer, name) = (relay.dialer.clone(), relay.name.clone());
            let find = move || {
                dialer.addresses().map(Found::Addresses).map_err(|error| refused_by_net(&name, error))
            };
            Errand::begin(&self.waker, find)
        } else if let Some(identity) = relay.identity.as_ref().filter(|identity| identity.is_due(now)) {
            let fetch = identity.errand();
            Errand::begin(&self.waker, move || fetch().map(Found::Access))
        } else {
            return true;
        };
        match begun {
            Ok(errand) => self.errand = Some(errand),
            Err(source) => {
                let source = NetError::Setting(format!("no thread is to be had: {source}"));
                self.came_to_nothing(SubmitError::Connect { relay: self.relay.name.clone(), source }, now);
            }
        }
        false
    }

    fn hear_errand(&mut self, now: Instant) {
        let Some(found) = self.errand.as_ref().and_then(Errand::is_back) else { return };
        self.errand = None;
        let relay = self.relay.name.clone();
        match found {
            Some(Ok(Found::Addresses(addresses))) => self.relay.addresses.found(addresses),
            Some(Ok(Found::Access(access))) => {
                let Some(identity) = &mut self.relay.identity else { return };
                if let Some(answer) = identity.fetched(access) {
                    let user = identity.user().to_owned();
                    self.fail(SubmitError::Login { relay, user, answer }, now);
                }
            }
            Some(Err(error)) => self.came_to_nothing(error, now),
            None => {
                let source = NetError::Setting("what was asked for it broke".to_owned());
                self.came_to_nothing(SubmitError::Connect { relay, source }, now);
            }
        }
    }

    /// Other processes have all connections that the account may have.
    fn wait_for_berth(&mut self, now: Instant) {
        self.berth_at = Some(now + BERTH_AGAIN);
        if self.live() > 0 {
            return;
        }
        let (relay, most) = (self.relay.name.clone(), self.relay.spec.connections);
        let busy = SubmitError::Busy { relay, most };
        let since = *self.berth_since.get_or_insert_with(|| {
            self.accounts.say(&format!("{busy}; waiting for one"));
            now
        });
        let patience = self.relay.spec.retry.stay;
        if matches!(self.phase, Phase::Trial(_)) && now.saturating_duration_since(since) >= patience {
            self.fail(busy, now);
        }
    }

    /// Gives a connection back, if another process asks for its share and we have more than ours.
    fn heed_others(&mut self, now: Instant) {
        if now < self.heed_at || !self.relay.berths.are_shared() {
            return;
        }
        self.heed_at = now + HEED;
        let idle = |connection: &Connection| connection.session.is_ready() && connection.session.held() == 0;
        let live = self.connections.iter().flatten();
        let (count, any_idle) = (self.live(), live.clone().any(idle));
        let none_needed = self.lanes.waiting() == 0 && any_idle;
        if count == 0 || !self.relay.berths.are_asked_for(count, none_needed, now) {
            return;
        }
        // One that has nothing to do, or else the last: earlier ones may carry a group of domains that no other may.
        let given = self
            .connections
            .iter_mut()
            .flatten()
            .filter(|connection| connection.session.is_ready())
            .max_by_key(|connection| (idle(connection), connection.ready_as));
        if let Some(connection) = given {
            connection.note("another run asks for a connection of this account: this one ends");
            connection.session.set_limit(Some(connection.session.begun()));
        }
    }

    fn open(&mut self, berth: Berth, now: Instant) {
        let relay = &mut self.relay;
        self.opened += 1;
        self.openings.push(Opening {
            race: relay.dialer.begin_race(relay.addresses.next(), now),
            berth,
            began: now,
            transcript: self.trace.as_ref().map(|trace| trace.connection(self.opened)),
        });
    }

    /// Goes on with the connections that are on their way.
    fn race(&mut self, now: Instant) {
        let mut place = 0;
        while let Some(opening) = self.openings.get_mut(place) {
            let registry = self.poll.registry();
            let step = opening
                .race
                .step(&self.relay.dialer, now, |link| link.register(registry, RACE, Interest::WRITABLE));
            if let Ok(None) = step {
                place += 1;
                continue;
            }
            let opening = self.openings.remove(place);
            match step {
                Ok(None) => {}
                Ok(Some(link)) => self.connected(link, opening, now),
                Err(error) => self.nobody_answered(&opening, error, now),
            }
        }
    }

    /// Somebody has answered.
    fn connected(&mut self, mut link: Link, opening: Opening, now: Instant) {
        let relay = &self.relay;
        let slot = match self.connections.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.connections.push(None);
                self.connections.len() - 1
            }
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(source) = link.reregister(self.poll.registry(), Token(slot), interest) {
            let error = NetError::Lost { to: relay.name.clone(), source };
            return self.nobody_answered(&opening, error, now);
        }
        let security =
            if relay.spec.tls.mode == TlsMode::StartTls { Security::StartTls } else { Security::Settled };
        let mut session = Session::new(
            &client_name(relay, &link),
            security,
            self.ceiling,
            self.proven,
            self.growth.window(),
        );
        session.set_limit(relay.spec.messages_per_connection.into_iter().chain(self.session_limit).min());
        let Opening { berth, began, transcript, .. } = opening;
        self.connections[slot] = Some(Connection::new(link, session, berth, began, transcript));
        self.set_windows();
    }

    fn nobody_answered(&mut self, opening: &Opening, error: NetError, now: Instant) {
        if let Some(transcript) = &opening.transcript {
            transcript.note(&format!("no connection: {error}"));
        }
        opening.race.tried().iter().for_each(|&address| self.relay.addresses.led_nowhere(address));
        self.came_to_nothing(refused_by_net(&self.relay.name, error), now);
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
                if self.throttle.wait(now).is_some() {
                    return;
                }
                if !self.lanes.ready(now, rank) {
                    break;
                }
                if self.pace.as_mut().is_some_and(|pace| !pace.start(now)) {
                    return;
                }
                let Some(queued) = self.lanes.take(now, rank) else {
                    // Another process took the turn of the only group that was ready.
                    self.pace.iter_mut().for_each(|pace| pace.give_back(now));
                    break;
                };
                if let Some(answer) = outcome::unfit(&queued.consignment, connection.session.offers()) {
                    self.pace.iter_mut().for_each(|pace| pace.give_back(now));
                    self.handed -= 1;
                    let _ =
                        outcome::settle_all(queued.consignment, Outcome::Failed, &answer, &mut self.batch);
                    continue;
                }
                self.throttle.start(now);
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
        if std::mem::take(&mut self.answered) && self.growth.turn(self.live(), now) {
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
                    self.fail(SubmitError::NoStartTls { relay: self.relay.name.clone() }, now);
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
            self.growth.answered(queued.octets(), now.saturating_duration_since(queued.began));
        }
        self.read_hints(&record, queued.began, slot_accepted, now);
        let accepted = record.valid() > 0 && record.end.as_ref().is_some_and(Heard::is_yes);
        if accepted && !self.windowed && record.level == Level::Window {
            self.windowed = true;
            self.set_windows();
        }
        if accepted {
            self.proven = true;
            self.throttle.accepted(now);
        }
        if record.mail.is_some() {
            self.unheard = 0;
            // Lost with a whole content unanswered, connection after connection, all of a list would come into doubt.
            if !matches!(record.way, Way::Silent | Way::Early) && self.patience.answered() {
                self.accounts.say(&format!("relay {} answers again", self.relay.name));
            }
        }
        let losses = queued.losses + u8::from(culprit);
        let nonsense = record.nonsense.clone();
        let told = self.batch.len();
        let step = self.desk.judge(queued.consignment, record, &mut self.batch);
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

    /// A connection is over. What it held is given back.
    fn lose(&mut self, slot: usize, loss: Option<Loss>, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let wordless =
            matches!(loss, Some(Loss::Closed | Loss::Net(_))) && connection.session.awaits().is_some();
        let unheard = connection.session.level_begun().filter(|_| !connection.session.has_answered());
        connection.session.lost();
        let letters = connection.session.accepted();
        let accepted = letters > 0;
        let begun = connection.session.begun() > 0;
        let quitting = connection.session.awaits() == Some(Awaited::Quit);
        let (address, young) = (connection.address, connection.is_young());
        let was_ready = connection.ready_as.is_some();
        let idled = was_ready && !begun && connection.quiet_for(now) >= IDLE;
        if let Some(loss) = &loss {
            connection.note(&format!("the connection is over: {}", words(loss)));
        }
        let nonsense = match &loss {
            Some(Loss::Protocol(reason)) => Some(reason.clone()),
            _ => None,
        };
        self.attend_rest(slot, nonsense, now);
        let Some(mut connection) = self.connections[slot].take() else { return };
        connection.link.close();
        // A socket that is closed leaves the poll by itself.
        let _ = connection.link.deregister(self.poll.registry());
        // Where others are ready, a greeting that says no is about their number.
        let mut others = self.connections.iter().flatten().filter(|other| other.session.is_ready());
        if young || (!was_ready && !others.any(|other| other.address == address)) {
            self.relay.addresses.led_nowhere(address);
        }
        if accepted {
            self.learn_limit(letters, wordless && !quitting);
        }
        let Some(loss) = loss.filter(|_| !quitting && !accepted) else { return };
        if let Some(level) = unheard {
            self.went_unheard(level);
        }
        let relay = self.relay.name.clone();
        let error = match loss {
            Loss::Net(error) => refused_by_net(&relay, error),
            Loss::Protocol(reason) => SubmitError::Protocol { relay, reason },
            Loss::Silence(reason) => SubmitError::Silent { relay, reason },
            Loss::Closed if idled => return self.back_off(now),
            Loss::Closed if begun => {
                let reason = "it closed the connection before it answered a letter".to_owned();
                SubmitError::Silent { relay, reason }
            }
            Loss::Closed => SubmitError::Silent { relay, reason: "it closed the connection".to_owned() },
        };
        let failure = if begun { Failure::Unanswered } else { Failure::Away };
        self.failed(error, failure, now);
    }

    /// Hears what a lost session gives back. `nonsense`: it was lost because of what came in place of a reply.
    fn attend_rest(&mut self, slot: usize, nonsense: Option<String>, now: Instant) {
        let mut untouched = Vec::new();
        let (mut first, mut in_doubt) = (true, false);
        while let Some(event) =
            self.connections[slot].as_mut().and_then(|connection| connection.session.next_event())
        {
            match event {
                Wire::Done(queued, mut record) => {
                    // Only the oldest may be the cause.
                    let culprit = std::mem::take(&mut first);
                    record.nonsense = nonsense.clone().filter(|_| culprit);
                    in_doubt |= record.way == Way::Silent && record.level == Level::Window;
                    self.judge(slot, queued, record, culprit, now);
                }
                Wire::Untouched(queued) => untouched.push(queued),
                _ => {}
            }
        }
        for queued in untouched.into_iter().rev() {
            self.put_back(queued);
        }
        if in_doubt {
            self.growth.lost();
            self.set_windows();
        }
    }

    fn greeted(&mut self, slot: usize, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let Some(identity) = &mut self.relay.identity else {
            connection.session.open();
            return self.became_ready(slot, now);
        };
        connection.issue = identity.issue();
        match identity.begin(&connection.link, connection.session.offers(), &connection.refused) {
            Ok(exchange) => {
                connection.refused.push(exchange.mechanism());
                connection.session.login(exchange);
            }
            Err(reason) => {
                let (relay, user) = (self.relay.name.clone(), identity.user().to_owned());
                connection.session.quit();
                self.fail(SubmitError::Login { relay, user, answer: outcome::said_by_us(&reason) }, now);
            }
        }
    }

    fn logged_in(&mut self, slot: usize, now: Instant) {
        if let Some((connection, identity)) =
            self.connections[slot].as_ref().zip(self.relay.identity.as_mut())
        {
            identity.succeeded(connection.issue);
        }
        self.became_ready(slot, now);
    }

    fn login_failed(&mut self, slot: usize, error: LoginError, now: Instant) {
        let Some((connection, identity)) = self.connections[slot].as_mut().zip(self.relay.identity.as_mut())
        else {
            return;
        };
        if let LoginError::Refused(heard) = &error
            && heard.code >= 500
            && !matches!(heard.code, 504 | 534)
        {
            let answer = outcome::answer_of(heard);
            if identity.another_is_worth_a_try(connection.issue, &answer) {
                connection.note("the access token was refused: another connection gets a new one");
                return connection.session.quit();
            }
        }
        let (answer, may_pass) = match error {
            // After 535 another mechanism would be another wrong password.
            LoginError::Refused(heard) if matches!(heard.code, 504 | 534) => {
                let other =
                    identity.begin(&connection.link, connection.session.offers(), &connection.refused);
                if other.is_ok() {
                    return self.greeted(slot, now);
                }
                (outcome::answer_of(&heard), false)
            }
            LoginError::Refused(heard) => (outcome::answer_of(&heard), heard.code < 500),
            LoginError::Exchange(reason) => (outcome::said_by_us(&reason), false),
        };
        connection.session.quit();
        let error =
            SubmitError::Login { relay: self.relay.name.clone(), user: identity.user().to_owned(), answer };
        match may_pass && !matches!(self.phase, Phase::Trial(_)) {
            true => self.came_to_nothing(error, now),
            // A wrong password that is tried again locks accounts.
            false => self.fail(error, now),
        }
    }

    /// A session ended after so many letters. Two in a row that were cut off at the same count, or within one of it (the
    /// last answer may have been lost, too), say how many a session may hold, as a 421 would.
    fn learn_limit(&mut self, accepted: u32, cut_off: bool) {
        let before = std::mem::replace(&mut self.cut_off, cut_off.then_some(accepted));
        if let Some(before) = before.filter(|before| cut_off && before.abs_diff(accepted) <= 1) {
            self.limit_sessions(before.min(accepted));
        }
    }

    fn limit_sessions(&mut self, letters: u32) {
        self.session_limit = self.session_limit.into_iter().chain([letters]).min();
        for connection in self.connections.iter_mut().flatten() {
            connection.session.set_limit(Some(letters));
        }
    }

    /// A connection ended before anything was answered to letters begun at this level. It may be that the server
    /// closes when commands come early.
    fn went_unheard(&mut self, level: Level) {
        // Those that were begun before the last step say nothing new.
        if self.relay.spec.pipelining != Pipelining::Auto || level == Level::Off || level > self.ceiling {
            return;
        }
        self.unheard += 1;
        if self.unheard >= UNHEARD {
            self.unheard = 0;
            self.step_down(level);
        }
    }

    fn became_ready(&mut self, slot: usize, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        self.readied += 1;
        connection.ready_as = Some(self.readied);
        connection.ready_at = Some(now);
        self.relay.addresses.worked(connection.address);
        self.refusal = None;
        if let Phase::Trial(_) = &self.phase
            && let Phase::Trial(first) = std::mem::replace(&mut self.phase, Phase::Running)
        {
            self.tried = true;
            // Addresses that led nowhere are no failures of the one that does not.
            self.patience.forgive();
            let offers = connection.session.offers().clone();
            // Nobody waits any more: then nobody will hand anything over, and the engine's end aborts us.
            let _ = first.send(Ok((offers, self.relay.name.clone())));
        }
        self.set_windows();
    }

    /// The greeting, EHLO or STARTTLS was refused, or the relay has closed the session before anything was begun.
    fn refused(&mut self, slot: usize, heard: Heard, now: Instant) {
        let others =
            self.connections.iter().flatten().filter(|connection| connection.session.is_ready()).count();
        if others > 0 {
            // Too many connections: so many as work are allowed; more are tried later.
            return self.shrink(others, now);
        }
        if let Some(connection) = &self.connections[slot] {
            self.relay.addresses.led_nowhere(connection.address);
        }
        let answer = outcome::answer_of(&heard);
        // RFC 5321 §3.1: 554 says that there is no SMTP here. There may be at another address (§5.1).
        let elsewhere = self.relay.addresses.any_left();
        self.refusal = elsewhere.then(|| answer.clone());
        let error = SubmitError::Refused { relay: self.relay.name.clone(), answer };
        match elsewhere || heard.code < 500 {
            true => self.came_to_nothing(error, now),
            false => self.fail(error, now),
        }
    }

    /// A connection came to nothing before a letter was begun on it.
    fn came_to_nothing(&mut self, error: SubmitError, now: Instant) {
        self.failed(error, Failure::Away, now);
    }

    /// A connection came to nothing. The relay is given up when patience is at its end.
    fn failed(&mut self, error: SubmitError, failure: Failure, now: Instant) {
        self.at_once = true;
        // One that lets us in and is then silent about the first letter does not work yet.
        let works = self.connections.iter().flatten().any(|connection| {
            let session = &connection.session;
            session.is_ready() && (session.has_answered() || session.begun() == 0)
        });
        let hopeless = match &error {
            SubmitError::Tls { .. } | SubmitError::NoStartTls { .. } => true,
            // What is fetched in the middle of a run was there before.
            SubmitError::Credential { .. } => !self.patience.has_served(),
            SubmitError::Connect { source, .. } => !source.may_pass(),
            _ => false,
        };
        let verdict = self.patience.failed(failure, works, !self.fallbacks.is_empty(), now);
        let trial = matches!(self.phase, Phase::Trial(_));
        let enough = match trial {
            true => !self.relay.addresses.any_left(),
            false => verdict == Verdict::GiveUp,
        };
        if !works && (hopeless || enough) {
            return self.fail(error, now);
        }
        if trial {
            return;
        }
        self.back_off(now);
        if verdict == Verdict::Stay {
            let stay = measure::duration_words(self.relay.spec.retry.stay.as_secs_f64());
            self.accounts.say(&format!("{error}; it is tried again, for {stay}"));
        }
        if self.patience.waits() {
            self.return_unspoken();
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.patience.back_off(now);
        // Names may have moved.
        self.relay.addresses.expire();
    }

    /// The relay cannot be worked with. Its fallback takes over, if it cannot be reached and there is one.
    fn fail(&mut self, error: SubmitError, now: Instant) {
        let reachable = !matches!(
            error,
            SubmitError::Connect { .. } | SubmitError::Refused { .. } | SubmitError::Silent { .. }
        );
        if matches!(self.phase, Phase::Stopping(_) | Phase::Over) {
            return;
        }
        let error = match (error, self.refusal.take()) {
            (SubmitError::Connect { relay, .. }, Some(answer)) => SubmitError::Refused { relay, answer },
            (error, _) => error,
        };
        if !reachable && let Some(next) = self.fallbacks.pop_front() {
            return self.take_over(next, now);
        }
        if let Phase::Trial(_) = &self.phase
            && let Phase::Trial(first) = std::mem::replace(&mut self.phase, Phase::Over)
        {
            let _ = first.send(Err(error));
            return self.abort(now);
        }
        self.batch.push(Event::Failed(error));
        self.stop(now);
    }

    /// From now on letters go to this relay. What was opened to the one before is lost with it: a connection that is
    /// greeted late must not get the password of another relay, nor its letters.
    fn take_over(&mut self, next: Relay, now: Instant) {
        self.errand = None;
        self.openings.clear();
        for slot in 0..self.connections.len() {
            self.lose(slot, None, now);
        }
        // What the lost ones gave back may have ended the run.
        if matches!(self.phase, Phase::Stopping(_) | Phase::Over) {
            return;
        }
        self.release();
        self.desk = Desk::default();
        self.cap = next.spec.connections.max(1);
        self.ceiling = ceiling(next.spec.pipelining);
        self.proven = next.spec.pipelining != Pipelining::Auto;
        self.windowed = next.spec.pipelining == Pipelining::Window;
        self.growth = next.growth();
        self.pace = next.pace();
        self.throttle = Throttle::default();
        (self.enough, self.cut_off, self.session_limit) = (None, None, None);
        let waiting: Vec<Queued> = self.lanes.drain().collect();
        self.lanes = Lanes::new(&next.spec.limits, &next.account);
        waiting.into_iter().for_each(|queued| self.lanes.push(queued));
        self.relay = next;
        self.patience.with_another(self.relay.spec.retry.stay);
        (self.unheard, self.refusal, self.at_once) = (0, None, true);
        self.regrow_at = None;
        (self.berth_at, self.berth_since) = (None, None);
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
                self.ceiling
            ));
        }
    }

    /// Below this level from now on.
    fn step_down(&mut self, level: Level) {
        self.ceiling = self.ceiling.min(level.lower());
        for connection in self.connections.iter_mut().flatten() {
            connection.session.set_ceiling(self.ceiling);
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
        self.handed -= self.desk.held();
        self.desk.release(&mut self.batch);
    }

    /// Says how many more letters could be used.
    fn grant(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        // What is held back for the next letter's answer must not wait for a letter that nobody has.
        if self.desk.held() > 0 && self.handed == self.desk.held() {
            self.release();
        }
        let mut target = self.cap * self.lookahead();
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
        if matches!(self.phase, Phase::Draining(_)) && self.handed > self.desk.held() {
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

    fn tell(&mut self) {
        let live = self.live();
        if live != self.reported && self.tried {
            self.reported = live;
            self.batch.push(Event::Connections(live));
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
        let mut next = connections.chain(races).chain(phase).min();
        if matches!(self.phase, Phase::Trial(_) | Phase::Running | Phase::Draining(_)) {
            let waits = self.lanes.waiting() > 0 || matches!(self.phase, Phase::Trial(_));
            let reopen = self.patience.not_before(now).filter(|_| waits);
            let roomy = |&slot: &usize| {
                self.connections[slot].as_ref().is_some_and(|connection| connection.session.room() > 0)
            };
            let first = (0..self.connections.len()).filter(roomy).map(|slot| self.rank(slot)).min();
            let pace = first.and_then(|rank| self.lanes.next(now, rank)).map(|lane| {
                let account = self.pace.as_ref().and_then(|pace| pace.wait(now));
                let relay = self.throttle.wait(now);
                account.into_iter().chain(relay).fold(lane, Instant::max)
            });
            let regrow = self.regrow_at.filter(|_| waits);
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

    fn set_windows(&mut self) {
        let mut window = self.growth.window();
        if !self.windowed {
            window.parcels = 1;
        }
        for connection in self.connections.iter_mut().flatten() {
            connection.session.set_window(window);
        }
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
            Level::Window if self.windowed => self.growth.window().parcels,
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
        let account = self.pace.as_ref().map_or(usize::MAX, |pace| pace.within(now, span));
        account.min(self.throttle.within(now, span))
    }

    fn is_paced(&self) -> bool {
        self.pace.is_some() || self.throttle.holds()
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
            Some(Hint::MaybeTooFast) if self.throttle.another_no() => self.slow_down(began, None, now),
            Some(Hint::TooMany) => self.shrink(self.live().saturating_sub(1).max(1), now),
            Some(Hint::Enough) => {
                let again = self.enough.replace(accepted) == Some(accepted);
                if again && accepted > 0 {
                    self.limit_sessions(accepted);
                }
            }
            Some(Hint::MaybeTooFast) | None => {}
        }
    }

    /// A letter begun then was too much.
    fn slow_down(&mut self, began: Instant, told: Option<Duration>, now: Instant) {
        if self.throttle.too_fast(began, told, now) {
            self.shrink((self.live() / 2).max(1), now);
        }
    }

    /// Fewer connections for a while.
    fn shrink(&mut self, most: usize, now: Instant) {
        self.cap = self.cap.min(most);
        self.regrow_at = Some(now + REGROWTH);
    }
}

/// The name that EHLO gives: the job's, this host's where it has a full one, or our address (RFC 5321 §4.1.3).
fn client_name(relay: &Relay, link: &crate::net::Link) -> String {
    if let Some(name) = &relay.spec.helo {
        return name.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if plain && host.contains('.') && !host.starts_with('.') && !host.ends_with('.') {
        return host.to_owned();
    }
    match link.local().map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) => format!("[{address}]"),
        Ok(std::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => "localhost".to_owned(),
    }
}

fn words(loss: &Loss) -> String {
    match loss {
        Loss::Closed => "the relay closed it".to_owned(),
        Loss::Net(error) => error.to_string(),
        Loss::Protocol(reason) | Loss::Silence(reason) => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};

    use super::*;
    use crate::job::Job;
    use crate::letter::{Content, Envelope, Message, Slice};
    use crate::wire::smtp::Window;

    /// A relay of the job file, at addresses of the test's.
    fn relay_at(addresses: Vec<SocketAddr>) -> Relay {
        let folder = tempfile::tempdir().expect("a folder");
        let job = "kind: send\nname: news\nedition: \"1\"\nfrom: news@example.com\nrecipients: {file: list.csv}\n\
                   subject: Hello\nbody: {text: letter.txt}\n\
                   relay: {host: relay.test, tls: none, timeouts: {greeting: 300ms, command: 300ms}}\n";
        std::fs::write(folder.path().join("job.yaml"), job).expect("written");
        let environment = crate::job::Environment::fixed(folder.path(), &[]);
        let Ok(Job::Send(job)) = crate::job::read(std::path::Path::new("job.yaml"), &environment) else {
            panic!("a sending job");
        };
        let mut relay = Relay::new(&job.relay, &Accounts::alone(), false).expect("a relay");
        let resolver = move |_: &str, _| match addresses.is_empty() {
            true => Err(io::Error::other("no such name")),
            false => Ok(addresses.clone()),
        };
        relay.dialer = relay.dialer.resolver(Arc::new(resolver));
        relay
    }

    /// Says the first line to everyone who comes, and one more for each that it hears.
    fn says(lines: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut heard = BufReader::new(&stream).lines();
                    for line in lines {
                        let _ = (&stream).write_all(line.as_bytes());
                        heard.next();
                    }
                    heard.for_each(drop);
                });
            }
        });
        address
    }

    #[test]
    fn another_address_is_tried_whatever_the_first_one_says() {
        let good = says(&["220 relay\r\n", "250 relay\r\n"]);
        for bad in [
            &["421 4.3.2 not now\r\n"][..],
            &["554 5.3.2 no mail here\r\n"],
            &[""],
            &["what?\r\n"],
            &["220 relay\r\n", "451 4.3.0 later\r\n", "451 4.3.0 later\r\n"],
        ] {
            let relay = relay_at(vec![says(bad), good]);
            let (events, _inbox) = crossbeam_channel::unbounded();
            let started = begin(VecDeque::from([relay]), &Accounts::alone(), None, events);
            assert!(started.is_ok(), "{bad:?}: {:?}", started.err());
        }
    }

    /// An address where connections are neither taken nor refused: its queue is full as long as these sockets live.
    fn black_hole() -> (SocketAddr, [socket2::Socket; 3]) {
        let sockets = [(); 3].map(|()| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.expect("a socket");
            socket.set_nonblocking(true).expect("set");
            socket
        });
        sockets[0].bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        sockets[0].listen(0).expect("listening");
        let address = sockets[0].local_addr().expect("an address").as_socket().expect("of IP");
        for socket in &sockets[1..] {
            let _ = socket.connect(&address.into());
        }
        (address, sockets)
    }

    #[test]
    fn an_address_that_does_not_answer_soon_gets_rivals() {
        let good = says(&["220 relay\r\n", "250 relay\r\n"]);
        let busy = says(&["421 4.3.2 not now\r\n"]);
        let ((silent, _held), (mute, _kept)) = (black_hole(), black_hole());
        for addresses in [vec![silent, good], vec![silent, mute, good], vec![silent, busy, good]] {
            let asked = Instant::now();
            let (events, _inbox) = crossbeam_channel::unbounded();
            let started =
                begin(VecDeque::from([relay_at(addresses.clone())]), &Accounts::alone(), None, events);
            assert!(started.is_ok(), "{addresses:?}: {:?}", started.err());
            // A connection alone would be waited for 30 s.
            assert!(asked.elapsed() < Duration::from_secs(10), "{addresses:?}: {:?}", asked.elapsed());
        }
    }

    #[test]
    fn what_an_address_says_is_told_where_the_others_say_nothing() {
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let nobody = nobody.expect("an address");
        let (busy, closed) = (says(&["421 4.3.2 not now\r\n"]), says(&["554 5.3.2 no mail here\r\n"]));
        for (addresses, expected) in [
            (vec![closed], 554),
            (vec![closed, nobody], 554),
            (vec![nobody, closed], 554),
            (vec![closed, busy, nobody], 421),
        ] {
            let told = format!("{addresses:?}");
            let (events, _inbox) = crossbeam_channel::unbounded();
            match begin(VecDeque::from([relay_at(addresses)]), &Accounts::alone(), None, events).err() {
                Some(SubmitError::Refused { answer, .. }) => {
                    assert_eq!(answer.code, expected, "{told}")
                }
                other => panic!("{told}: {other:?}"),
            }
        }
    }

    #[test]
    fn who_is_let_in_and_sent_away_in_one_breath_does_not_come_back_for_ever() {
        let relay = relay_at(vec![says(&["220 relay\r\n", "250 relay\r\n421 4.3.2 enough\r\n"])]);
        let (events, _inbox) = crossbeam_channel::unbounded();
        let error = begin(VecDeque::from([relay]), &Accounts::alone(), None, events).err();
        assert!(matches!(error, Some(SubmitError::Refused { .. })), "{error:?}");
    }

    #[test]
    fn a_connection_that_cannot_be_begun_makes_way_at_once() {
        let good = says(&["220 relay\r\n", "250 relay\r\n"]);
        // The system refuses to connect to the address of all.
        let nowhere = SocketAddr::from(([255, 255, 255, 255], 25));
        for relays in [vec![vec![nowhere, good]], vec![vec![], vec![good]], vec![vec![nowhere], vec![good]]] {
            let told = format!("{relays:?}");
            let (events, _inbox) = crossbeam_channel::unbounded();
            let (tell, heard) = crossbeam_channel::bounded(1);
            std::thread::spawn(move || {
                let relays = relays.into_iter().map(relay_at).collect();
                let started = begin(relays, &Accounts::alone(), None, events);
                tell.send(started.map(drop).map_err(|error| error.to_string()))
            });
            let started = heard.recv_timeout(Duration::from_secs(10));
            assert_eq!(started, Ok(Ok(())), "{told}");
        }
    }

    #[test]
    fn a_resolver_that_hangs_keeps_no_letter_waiting_that_has_a_connection() {
        // Whoever comes second is sent away, so that the name is looked up again.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            std::thread::spawn(move || listener.incoming().for_each(drop));
            let say = |line: &str| (&stream).write_all(line.as_bytes()).expect("written");
            say("220 relay\r\n");
            let mut content = false;
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                content = if content { line != "." } else { line == "DATA" };
                match (content, line.as_str()) {
                    (true, "DATA") => say("354 go on\r\n"),
                    (true, _) => {}
                    (false, _) => {
                        std::thread::sleep(Duration::from_millis(10));
                        say("250 ok\r\n");
                    }
                }
            }
        });
        let mut relay = relay_at(vec![address]);
        let asked = AtomicBool::new(false);
        relay.dialer = relay.dialer.resolver(Arc::new(move |_: &str, _| {
            while asked.swap(true, Ordering::Relaxed) {
                std::thread::park();
            }
            Ok(vec![address])
        }));
        let (events, inbox) = crossbeam_channel::unbounded();
        let submitter =
            begin(VecDeque::from([relay]), &Accounts::alone(), None, events).expect("a connection");
        submitter.submit((1..=20).map(|seq| letter(seq, 100).consignment).collect());
        let (mut settled, until) = (0, Instant::now() + Duration::from_secs(10));
        while settled < 20 {
            let batch = inbox.recv_deadline(until).expect("nobody waits for the resolver");
            settled += batch.iter().filter(|event| matches!(event, Event::Settled { .. })).count();
        }
    }

    fn letter(seq: u64, octets: usize) -> Queued {
        let own = format!("Subject: {seq}\r\n\r\n{}\r\n", "x".repeat(octets)).into_bytes();
        let all = own.len();
        let envelope = Envelope {
            reverse_path: Some("news@example.com".parse().expect("an address")),
            recipients: vec!["ada@example.org".parse().expect("an address")],
        };
        let content = Content::new(own, vec![Slice::Own(0..all)]);
        let message = Message { envelope, content, eight_bit: false, smtputf8: false };
        Queued { consignment: Consignment { seq, message }, losses: 0, began: Instant::now() }
    }

    #[test]
    fn what_was_said_is_heard_though_nothing_more_can_be_written() {
        // The relay answers the first letter, has enough, and goes with more letters than a socket holds unread.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let relay = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut heard = BufReader::new(&stream).lines();
            let say = |line: &str| (&stream).write_all(line.as_bytes()).expect("written");
            say("220 relay\r\n");
            heard.next();
            say("250-relay\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
            heard.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("Subject: 1")));
            heard.nth(1);
            say("250 reset\r\n250 sender\r\n250 recipient\r\n250 taken\r\n421 4.7.0 enough\r\n");
        });
        let relays = relay_at(vec![address]);
        let link = relays.dialer.begin(address).expect("a link");
        let berth = relays.berths.take(0, Instant::now()).expect("a berth");
        let window = Window { parcels: 100, octets: usize::MAX };
        let session = Session::new("client.test", Security::Settled, Level::Window, true, window);
        let mut connection = Connection::new(link, session, berth, Instant::now(), None);
        let until = Instant::now() + Duration::from_secs(10);
        while !matches!(connection.session.next_event(), Some(Wire::Greeted)) && Instant::now() < until {
            connection.ready(true, true, false);
            assert!(connection.receive(Instant::now()).is_ok() && connection.send(Instant::now()).is_ok());
        }
        connection.session.open();
        (1..=100).for_each(|seq| connection.session.submit(letter(seq, 250_000)));
        let lost = loop {
            connection.ready(false, true, false);
            if let Err(loss) = connection.send(Instant::now()) {
                break loss;
            }
            assert!(Instant::now() < until, "all was written");
        };
        assert!(matches!(lost, Loss::Net(_)), "{lost:?}");
        connection.hear_out(Instant::now());
        relay.join().expect("the relay's part");
        let Some(Wire::Done(first, record)) = connection.session.next_event() else { panic!("no letter") };
        assert_eq!((first.consignment.seq, record.end.map(|heard| heard.code)), (1, Some(250)));
        let rest: Vec<_> = std::iter::from_fn(|| connection.session.next_event()).collect();
        let doubts =
            rest.iter().filter(|event| matches!(event, Wire::Done(_, record) if record.way == Way::Silent));
        assert_eq!(doubts.count(), 0);
        assert!(matches!(rest.last(), Some(Wire::Closing(_))));
    }
}
