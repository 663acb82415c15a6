//! The engine's mind: a value that takes events and answers with actions.
//!
//! A letter that is claimed goes `waiting → making → ready → marking → out → settling`, and is
//! forgotten here as soon as the ledger has its outcome. Two rules make the promise:
//!
//! - A slot of the doubt limit is taken when the mark `sending` is asked for and freed when the
//!   outcome is durable. So at no moment can a crash leave more letters unsure than the limit.
//! - A letter is handed over only when its mark is durable, and forgotten only when its
//!   settlement is.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::job::{Retry, StopWhen, Unsure};
use crate::ledger::{SUPPRESSED, Settlement, State};
use crate::letter::{Answer, Outcome, RcptOutcome};

use super::retry;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most letters that a crash may leave unsure.
    pub doubt: Doubt,
    /// Most letters being made or ready.
    pub ahead: usize,
    /// Most bytes of letters ready and being made, which are taken to be like those before them, and again of
    /// letters out; a letter larger than that goes alone.
    pub ahead_bytes: usize,
    /// How many deliveries are claimed at once.
    pub claim_batch: usize,
    /// How deferred recipients are tried again.
    pub retry: Retry,
    /// What is done about a letter without an answer.
    pub unsure: Unsure,
    /// For each group of domains with a limit of its own (group 1, 2, …): how many of its letters
    /// may be out at once. Group 0 is all the others.
    pub group_out: Vec<usize>,
    /// At most so many letters are handed over in this run.
    pub limit: Option<u64>,
    /// Stop when so much is refused, or with such a code.
    pub stop_when: Option<StopWhen>,
}

/// The doubt limit: no more letters than are answered within [`Doubt::SYNCS`] of the ledger and two round trips,
/// between these two. A fast relay answers hundreds while the ledger syncs a mark and an outcome, on a slow disk
/// more, a far one while a letter is on its way; any other needs no more than `least`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// As many as that at any pace.
    pub least: usize,
    /// No more than that at any pace.
    pub most: usize,
}

impl Doubt {
    /// A mark and an outcome, which each may have to wait for the sync before theirs.
    const SYNCS: f64 = 4.0;
    /// Milliseconds of work about each of them.
    const WORK: f64 = 2.0;

    /// The same at any pace; at least one, or nothing would ever be sent.
    pub fn fixed(limit: usize) -> Doubt {
        let limit = limit.max(1);
        Doubt { least: limit, most: limit }
    }

    /// The limit while so many letters a millisecond are answered, a mark is durable after `lag` milliseconds,
    /// and the fastest answer came after `trip`.
    fn at(self, pace: f64, lag: f64, trip: f64) -> usize {
        let turn = Self::SYNCS * (lag + Self::WORK) + 2.0 * trip;
        ((pace * turn) as usize).min(self.most).max(self.least)
    }
}

/// A delivery the shell has claimed.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its number in the edition.
    pub seq: u64,
    /// Attempts before this one.
    pub attempts: u32,
    /// Unix milliseconds of the first attempt.
    pub first_attempt: Option<i64>,
    /// The worst that became of an address for good in earlier attempts.
    pub earlier: Option<Outcome>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The answer to [`Action::Claim`].
    Claimed {
        /// Which group of domains.
        group: usize,
        /// The deliveries, in order of `seq`.
        claims: Vec<Claim>,
        /// There are no more pending ones in this group.
        end: bool,
    },
    /// The answer to [`Action::ClaimDue`].
    Due {
        /// Deliveries with their groups.
        claims: Vec<(usize, Claim)>,
        /// Unix milliseconds at which the next one is due, of those not given here.
        next: Option<i64>,
    },
    /// A letter is composed: its own bytes.
    Made {
        /// Which.
        seq: u64,
        /// Bytes it holds.
        size: usize,
    },
    /// A letter cannot be made. One outcome for each of its recipients.
    Unmade {
        /// Which.
        seq: u64,
        /// Why, for each address.
        rcpts: Vec<RcptOutcome>,
    },
    /// The address is on the suppress list: seen when the letter was to be made.
    Suppressed {
        /// Which.
        seq: u64,
    },
    /// Somebody it goes to came to the suppress list before it was marked: it is made again, or not.
    Stale {
        /// Which.
        seq: u64,
    },
    /// The ledger has synced a group.
    Durable {
        /// Marks in it.
        marks: Vec<u64>,
        /// Settlements in it.
        settled: Vec<u64>,
    },
    /// The ledger cannot write: these marks are not durable, these settlements are given up.
    NotDurable {
        /// Marks that were not written.
        marks: Vec<u64>,
        /// Settlements given up: the next run will name these letters unsure.
        settled: Vec<u64>,
    },
    /// The submitter can use so many more letters.
    Wanted(usize),
    /// The submitter has answers.
    Answered {
        /// Which letter.
        seq: u64,
        /// One for each recipient of the envelope.
        rcpts: Vec<RcptOutcome>,
    },
    /// The submitter did not process the letter.
    Returned {
        /// Which letter.
        seq: u64,
    },
    /// Nothing new is to be started: a signal, a flag, the relay's or the ledger's trouble.
    Stop(End),
    /// Nothing new for the time being, or on again.
    Paused(bool),
    /// The submitter has answered all and closed its connections.
    Closed,
    /// A letter that was to be handed over was not: somebody it goes to has come to the suppress list.
    Withheld {
        /// Which.
        seq: u64,
    },
    /// The submitter is gone without a word: what it had is unsure, as the ledger has it.
    SubmitterGone,
    /// The ledger's thread is gone without a word: of what it was to write nobody knows. The next run will.
    LedgerGone,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Claim pending deliveries of a group behind `after`.
    Claim {
        /// Which group.
        group: usize,
        /// The last `seq` seen.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Claim deferred deliveries that are due.
    ClaimDue {
        /// Unix milliseconds.
        now: i64,
        /// At most so many.
        limit: usize,
    },
    /// Render and compose these.
    Make(Vec<u64>),
    /// Mark these `sending`; unless the address is suppressed by now.
    Mark(Vec<u64>),
    /// Record these.
    Settle(Vec<Settlement>),
    /// Submit these: their marks are durable.
    HandOver(Vec<u64>),
    /// The submitter answers what it has and closes.
    Drain,
    /// All is said and recorded.
    Finish(End),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Nothing is pending or deferred.
    Complete,
    /// Deferred recipients are left for another run.
    Deferred,
    /// As many letters as were asked for.
    Limit,
    /// A signal or `postroom stop`.
    Stopped,
    /// The relay refuses us, or cannot be worked with.
    Relay,
    /// Too many recipients were refused.
    TooManyRefused,
    /// The ledger cannot be written.
    Ledger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Making,
    Ready,
    Marking,
    Out,
    Settling(State),
}

#[derive(Debug)]
struct Held {
    stage: Stage,
    group: usize,
    attempts: u32,
    first_attempt: Option<i64>,
    earlier: Option<Outcome>,
    size: usize,
    next_attempt: Option<i64>,
    /// Whether it holds a slot of the doubt limit.
    doubt: bool,
    /// When its mark was asked for.
    marked: i64,
}

#[derive(Debug, Default)]
struct Group {
    cursor: u64,
    claiming: bool,
    exhausted: bool,
    waiting: VecDeque<u64>,
    making: usize,
    ready: VecDeque<u64>,
    out: usize,
}

/// How fast answers come and how long a mark takes to be durable. While a mark is synced the
/// submitter goes through so many letters more than it has asked for; without them it would wait
/// for the disk at each turn. A slow relay, or one with a rate, needs none.
#[derive(Debug, Default)]
struct Pulse {
    /// Answers in a millisecond.
    pace: f64,
    /// Milliseconds from asking for a mark until it is durable.
    lag: f64,
    /// Milliseconds from asking for a mark until the letter is answered, at the shortest.
    trip: Option<i64>,
    since: i64,
    count: u32,
    /// When the last answer came.
    last: i64,
}

impl Pulse {
    /// Answers are counted over at least so many milliseconds.
    const BEAT: i64 = 20;
    /// Milliseconds without an answer, beyond two round trips, after which there is no pace.
    const SILENCE: f64 = 500.0;

    fn answered(&mut self, marked: i64, now: i64) {
        self.last = now;
        self.trip = self.trip.into_iter().chain([now - marked]).min();
        if self.since == 0 {
            self.since = now;
        }
        self.count += 1;
        let passed = now - self.since;
        if passed >= Self::BEAT {
            self.pace = (self.pace + f64::from(self.count) / passed as f64) / 2.0;
            (self.since, self.count) = (now, 0);
        }
    }

    fn synced(&mut self, lag: i64) {
        self.lag += (lag as f64 - self.lag) / 8.0;
    }

    fn trip(&self) -> f64 {
        self.trip.unwrap_or_default() as f64
    }

    /// Letters that may be marked before the submitter asks for them: none for a relay that has fallen silent.
    fn ahead(&self, now: i64) -> i64 {
        if (now - self.last) as f64 > Self::SILENCE + 2.0 * self.trip() {
            return 0;
        }
        (self.pace * (self.lag + 1.0) * 1.5) as i64
    }
}

/// Where a letter stands of whose addresses the worst came to this, for good.
fn state_of(worst: Outcome) -> State {
    match worst {
        Outcome::Unsure => State::Unsure,
        Outcome::Failed => State::Failed,
        Outcome::Refused => State::Refused,
        Outcome::Accepted | Outcome::Deferred => State::Accepted,
    }
}

/// Counts of this run, for progress and summary.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Letters accepted by all their recipients' relay.
    pub accepted: u64,
    /// Letters refused, at least in part.
    pub refused: u64,
    /// Letters deferred, counted at each deferral.
    pub deferred: u64,
    /// Letters that could not be made or were given up.
    pub failed: u64,
    /// Letters without an answer.
    pub unsure: u64,
    /// Letters suppressed at the last moment.
    pub skipped: u64,
}

/// The engine's mind.
#[derive(Debug)]
pub struct Core {
    config: Config,
    groups: Vec<Group>,
    held: HashMap<u64, Held>,
    making: usize,
    /// What each letter that is being made will hold, about, by those made last; unknown before the first.
    expected: Option<usize>,
    ready_bytes: usize,
    out_bytes: usize,
    ready: usize,
    doubt: usize,
    /// Letters the submitter wants beyond those marked for it; below zero while marks run ahead.
    credits: i64,
    pulse: Pulse,
    handed_over: u64,
    due_asked: bool,
    /// What was settled since what is due was asked for, and when it is due again: the answer may have
    /// been read before that.
    since_asked: HashMap<u64, Option<i64>>,
    /// What was settled since the oldest claim that is under way.
    since_claimed: HashSet<u64>,
    next_due: Option<i64>,
    idle_since: Option<i64>,
    paused: bool,
    stopping: Option<End>,
    draining: bool,
    closed: bool,
    settle: Vec<Settlement>,
    hand_over: Vec<u64>,
    next_group: usize,
    /// What happened so far in this run.
    pub counts: Counts,
}

impl Config {
    /// The longest time a deferred letter can have to wait, in seconds.
    pub fn longest_wait(&self) -> i64 {
        retry::longest(&self.retry)
    }
}

impl Core {
    /// An engine that has done nothing yet. `first_due` is when the first deferred delivery of the
    /// ledger is due, in Unix milliseconds.
    pub fn new(config: Config, first_due: Option<i64>) -> Core {
        let groups = (0..=config.group_out.len()).map(|_| Group::default()).collect();
        Core {
            config,
            groups,
            held: HashMap::new(),
            making: 0,
            expected: None,
            ready_bytes: 0,
            out_bytes: 0,
            ready: 0,
            doubt: 0,
            credits: 0,
            pulse: Pulse::default(),
            handed_over: 0,
            due_asked: false,
            since_asked: HashMap::new(),
            since_claimed: HashSet::new(),
            next_due: first_due,
            idle_since: None,
            paused: false,
            stopping: None,
            draining: false,
            closed: false,
            settle: Vec::new(),
            hand_over: Vec::new(),
            next_group: 0,
            counts: Counts::default(),
        }
    }

    /// Slots of the doubt limit in use.
    pub fn in_doubt(&self) -> usize {
        self.doubt
    }

    /// Whether nothing new is started any more.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Takes note of what happened. `now` is Unix milliseconds by a clock that never goes back.
    pub fn on(&mut self, event: Event, now: i64) {
        match event {
            Event::Claimed { group, claims, end } => {
                self.groups[group].claiming = false;
                self.groups[group].exhausted |= end;
                if let Some(last) = claims.last() {
                    self.groups[group].cursor = last.seq;
                }
                // What was settled in the meantime may have been read before that.
                for claim in claims {
                    if !self.since_claimed.contains(&claim.seq) {
                        self.take(group, claim);
                    }
                }
                if !self.groups.iter().any(|group| group.claiming) {
                    self.since_claimed.clear();
                }
            }
            Event::Due { claims, next } => {
                self.due_asked = false;
                let since = std::mem::take(&mut self.since_asked);
                self.next_due = next.into_iter().chain(since.values().copied().flatten()).min();
                let fresh = claims.into_iter().filter(|(_, claim)| !since.contains_key(&claim.seq));
                fresh.for_each(|(group, claim)| self.take(group, claim));
            }
            Event::Made { seq, size } => self.made(seq, size),
            Event::Unmade { seq, rcpts } => {
                if self.stage(seq) == Some(Stage::Making) {
                    self.out_of_making(seq);
                    let unsure =
                        self.held.get(&seq).is_some_and(|held| held.earlier == Some(Outcome::Unsure));
                    let state = if unsure { State::Unsure } else { State::Failed };
                    self.settle(seq, state, None, rcpts, now);
                }
            }
            Event::Suppressed { seq } => {
                if self.stage(seq) == Some(Stage::Making) {
                    self.out_of_making(seq);
                    // What became of those who were written to before is no less true.
                    let earlier = self.held.get(&seq).and_then(|held| held.earlier);
                    let state = earlier.map_or(State::Skipped, state_of);
                    self.settle_because(seq, state, None, Vec::new(), Some(SUPPRESSED), now);
                }
            }
            Event::Stale { seq } => self.make_again(seq),
            Event::Durable { marks, settled } => {
                if let Some(held) = marks.first().and_then(|seq| self.held.get(seq)) {
                    self.pulse.synced(now - held.marked);
                }
                marks.into_iter().for_each(|seq| self.marked(seq, now));
                settled.into_iter().for_each(|seq| self.settled(seq));
            }
            Event::NotDurable { marks, settled } => {
                self.stop(End::Ledger, now);
                for seq in marks {
                    if self.stage(seq) == Some(Stage::Marking) {
                        self.forget(seq);
                    }
                }
                settled.into_iter().for_each(|seq| self.forget(seq));
            }
            Event::Wanted(more) => self.credits += i64::try_from(more).unwrap_or(i64::MAX / 2),
            Event::Answered { seq, rcpts } => self.answered(seq, rcpts, now),
            Event::Returned { seq } => {
                if self.stage(seq) == Some(Stage::Out) {
                    self.handed_over = self.handed_over.saturating_sub(1);
                    self.settle(seq, State::Pending, None, Vec::new(), now);
                }
            }
            Event::Stop(end) => self.stop(end, now),
            Event::Withheld { seq } => self.take_back(seq, now),
            Event::Paused(paused) => {
                self.paused = paused;
                if paused {
                    self.take_all_back(now);
                }
            }
            Event::Closed => self.closed = true,
            Event::SubmitterGone => {
                self.closed = true;
                self.forget_all(|stage| stage == Stage::Out);
            }
            Event::LedgerGone => {
                self.stop(End::Ledger, now);
                self.forget_all(|stage| matches!(stage, Stage::Marking | Stage::Settling(_)));
            }
        }
    }

    /// Says what is to be done now.
    pub fn act(&mut self, now: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stopping.is_none() {
            self.claim(now, &mut actions);
            self.make(&mut actions);
            self.mark(now, &mut actions);
        }
        if !self.hand_over.is_empty() {
            actions.push(Action::HandOver(std::mem::take(&mut self.hand_over)));
        }
        if !self.settle.is_empty() {
            actions.push(Action::Settle(std::mem::take(&mut self.settle)));
        }
        self.finish(now, &mut actions);
        actions
    }

    /// When [`Core::act`] has something to do that no event announces.
    pub fn wake_at(&self) -> Option<i64> {
        if self.stopping.is_some() || self.due_asked || self.has_plenty() { None } else { self.next_due }
    }

    /// Whether a letter is still in the engine's hands.
    pub fn holds(&self, seq: u64) -> bool {
        self.held.contains_key(&seq)
    }

    /// Unix milliseconds until which there is nothing to do but to wait for what is due.
    pub fn idle_until(&self) -> Option<i64> {
        self.idle_since.and(self.next_due).filter(|_| self.stopping.is_none())
    }

    fn stage(&self, seq: u64) -> Option<Stage> {
        self.held.get(&seq).map(|held| held.stage)
    }

    fn take(&mut self, group: usize, claim: Claim) {
        if self.stopping.is_some() || self.held.contains_key(&claim.seq) {
            return;
        }
        let held = Held {
            stage: Stage::Waiting,
            group,
            attempts: claim.attempts,
            first_attempt: claim.first_attempt,
            earlier: claim.earlier,
            size: 0,
            next_attempt: None,
            doubt: false,
            marked: 0,
        };
        self.held.insert(claim.seq, held);
        self.groups[group].waiting.push_back(claim.seq);
    }

    fn made(&mut self, seq: u64, size: usize) {
        let Some(held) = self.held.get_mut(&seq).filter(|held| held.stage == Stage::Making) else { return };
        held.stage = Stage::Ready;
        held.size = size;
        // Large ones are forgotten slowly: what is too much for the memory comes in batches.
        self.expected = Some(self.expected.map_or(size, |before| size.max(before - before / 8)));
        let group = held.group;
        self.out_of_making(seq);
        self.ready += 1;
        self.ready_bytes += size;
        self.groups[group].ready.push_back(seq);
    }

    fn out_of_making(&mut self, seq: u64) {
        self.making -= 1;
        if let Some(held) = self.held.get(&seq) {
            self.groups[held.group].making -= 1;
        }
    }

    fn marked(&mut self, seq: u64, now: i64) {
        let held_back = self.stopping.is_some() || self.paused;
        let Some(held) = self.held.get_mut(&seq).filter(|held| held.stage == Stage::Marking) else { return };
        if held_back {
            // Durably marked and never handed over: it goes back, so that it is not called unsure, nor waits
            // for its time with the submitter while the run is paused.
            held.stage = Stage::Out;
            held.attempts += 1;
            // The submitter still wants one.
            self.credits += 1;
            self.settle(seq, State::Pending, None, Vec::new(), now);
            return;
        }
        held.stage = Stage::Out;
        held.first_attempt.get_or_insert(now);
        held.attempts += 1;
        self.handed_over += 1;
        self.hand_over.push(seq);
    }

    fn answered(&mut self, seq: u64, mut rcpts: Vec<RcptOutcome>, now: i64) {
        let Some(held) = self.held.get(&seq).filter(|held| held.stage == Stage::Out) else { return };
        self.pulse.answered(held.marked, now);
        let given_up = self.config.retry.give_up.as_millis() as i64;
        let again = |outcome: Outcome| {
            outcome == Outcome::Deferred
                || (outcome == Outcome::Unsure && self.config.unsure == Unsure::Resend)
        };
        let mut next_attempt = None;
        for rcpt in rcpts.iter_mut().filter(|rcpt| again(rcpt.outcome)) {
            let next = retry::next_attempt(&self.config.retry, held.attempts, now, seq, &rcpt.answer);
            let late = next - held.first_attempt.unwrap_or(now) > given_up;
            if late && rcpt.outcome == Outcome::Deferred {
                rcpt.outcome = Outcome::Failed;
                let words = format!("given up after {} attempts: {}", held.attempts, rcpt.answer);
                rcpt.answer = Answer { code: rcpt.answer.code, enhanced: rcpt.answer.enhanced, text: words };
            } else if !late {
                // An address that stays unsure in the ledger is held. One that goes again is deferred.
                rcpt.outcome = Outcome::Deferred;
                next_attempt = next_attempt.max(Some(next));
            }
        }
        // A letter stands where the worst of its addresses stands, whichever attempt that was.
        let worst = rcpts.iter().map(|rcpt| rcpt.outcome).chain(held.earlier).max();
        let state = match worst {
            _ if next_attempt.is_some() => State::Deferred,
            worst => worst.map_or(State::Accepted, state_of),
        };
        self.settle(seq, state, next_attempt, rcpts, now);
    }

    fn settle(&mut self, seq: u64, state: State, next: Option<i64>, rcpts: Vec<RcptOutcome>, now: i64) {
        self.settle_because(seq, state, next, rcpts, None, now);
    }

    fn settle_because(
        &mut self,
        seq: u64,
        state: State,
        next: Option<i64>,
        rcpts: Vec<RcptOutcome>,
        reason: Option<&str>,
        now: i64,
    ) {
        let Some(held) = self.held.get_mut(&seq) else { return };
        if held.stage == Stage::Out {
            self.groups[held.group].out -= 1;
            self.out_bytes -= held.size;
        }
        held.stage = Stage::Settling(state);
        // The ledger keeps seconds: a letter is not due before the second it says.
        let next = next.map(|next| next.div_euclid(1000) + 1);
        held.next_attempt = next.map(|next| next * 1000);
        let count = match state {
            State::Accepted => Some(&mut self.counts.accepted),
            State::Refused => Some(&mut self.counts.refused),
            State::Deferred => Some(&mut self.counts.deferred),
            State::Failed => Some(&mut self.counts.failed),
            State::Unsure => Some(&mut self.counts.unsure),
            State::Skipped => Some(&mut self.counts.skipped),
            State::Pending | State::Claimed | State::Sending => None,
        };
        if let Some(count) = count {
            *count += 1;
        }
        let named = self.config.stop_when.as_ref().is_some_and(|stop_when| {
            let refused = rcpts.iter().filter(|rcpt| rcpt.outcome == Outcome::Refused);
            refused.into_iter().any(|rcpt| {
                let enhanced = rcpt.answer.enhanced.map(|enhanced| enhanced.to_string());
                stop_when.names(rcpt.answer.code, enhanced.as_deref())
            })
        });
        self.settle.push(Settlement {
            seq,
            state,
            next_attempt: next,
            at: now.div_euclid(1000),
            reason: reason.map(str::to_owned),
            rcpts,
        });
        if let Some(stop_when) = &self.config.stop_when {
            let answered = self.counts.accepted + self.counts.refused;
            let too_many = stop_when.refused.is_some_and(|(fraction, least)| {
                answered >= least && self.counts.refused as f64 > fraction * answered as f64
            });
            if too_many || named {
                self.stop(End::TooManyRefused, now);
            }
        }
    }

    fn settled(&mut self, seq: u64) {
        let Some(held) = self.held.get_mut(&seq) else { return };
        let Stage::Settling(state) = held.stage else { return };
        if std::mem::take(&mut held.doubt) {
            self.doubt -= 1;
        }
        if state == State::Pending && self.stopping.is_none() {
            held.stage = Stage::Waiting;
            held.attempts = held.attempts.saturating_sub(1);
            let group = held.group;
            self.groups[group].waiting.push_front(seq);
            return;
        }
        if let Some(next) = held.next_attempt {
            self.next_due = Some(self.next_due.map_or(next, |due| due.min(next)));
        }
        if self.due_asked {
            self.since_asked.insert(seq, held.next_attempt);
        }
        if self.groups.iter().any(|group| group.claiming) {
            self.since_claimed.insert(seq);
        }
        self.held.remove(&seq);
    }

    /// Takes a marking letter back to where it holds neither slot nor credit.
    fn unmark(&mut self, seq: u64) {
        if let Some(held) = self.held.get_mut(&seq) {
            self.groups[held.group].out -= 1;
            self.out_bytes -= held.size;
            if std::mem::take(&mut held.doubt) {
                self.doubt -= 1;
            }
            self.credits += 1;
        }
    }

    /// A letter that was about to be marked is made anew.
    fn make_again(&mut self, seq: u64) {
        if self.stopping.is_some() {
            return self.forget(seq);
        }
        if self.stage(seq) != Some(Stage::Marking) {
            return;
        }
        self.unmark(seq);
        if let Some(held) = self.held.get_mut(&seq) {
            held.stage = Stage::Waiting;
            self.groups[held.group].waiting.push_front(seq);
        }
    }

    fn forget(&mut self, seq: u64) {
        if self.stage(seq) == Some(Stage::Marking) {
            self.unmark(seq);
        }
        if let Some(held) = self.held.remove(&seq)
            && held.doubt
        {
            self.doubt -= 1;
        }
    }

    /// Marked, but not yet handed over in this turn: they go back.
    fn take_all_back(&mut self, now: i64) {
        for seq in std::mem::take(&mut self.hand_over) {
            self.take_back(seq, now);
        }
    }

    /// The submitter never saw it, and still wants one.
    fn take_back(&mut self, seq: u64, now: i64) {
        if self.stage(seq) == Some(Stage::Out) {
            self.handed_over -= 1;
            self.credits += 1;
            self.settle(seq, State::Pending, None, Vec::new(), now);
        }
    }

    fn forget_all(&mut self, of: impl Fn(Stage) -> bool) {
        let gone = self.held.iter().filter(|(_, held)| of(held.stage)).map(|(seq, _)| *seq);
        for seq in gone.collect::<Vec<_>>() {
            self.forget(seq);
        }
    }

    fn stop(&mut self, end: End, now: i64) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(end);
        // What is not marked is as the ledger has it: nothing is to be undone.
        self.held.retain(|_, held| matches!(held.stage, Stage::Marking | Stage::Out | Stage::Settling(_)));
        self.take_all_back(now);
        for group in &mut self.groups {
            group.waiting.clear();
            group.ready.clear();
            group.making = 0;
        }
        (self.making, self.ready, self.ready_bytes) = (0, 0, 0);
    }

    fn claim(&mut self, now: i64, actions: &mut Vec<Action>) {
        let batch = self.config.claim_batch;
        for (number, group) in self.groups.iter_mut().enumerate() {
            if !group.exhausted && !group.claiming && group.waiting.len() < batch / 2 {
                group.claiming = true;
                actions.push(Action::Claim { group: number, after: group.cursor, limit: batch });
            }
        }
        if !self.due_asked && self.next_due.is_some_and(|due| due <= now) && !self.has_plenty() {
            self.due_asked = true;
            // Those in our hands are still deferred in the ledger and come first: so many more.
            actions.push(Action::ClaimDue { now, limit: batch + self.held.len() });
        }
    }

    /// Enough is claimed: what is due can wait until some of it is made.
    fn has_plenty(&self) -> bool {
        self.groups.iter().map(|group| group.waiting.len()).sum::<usize>() >= 4 * self.config.claim_batch
    }

    /// Whether there is memory for one more letter, with those that are being made.
    fn has_memory(&self) -> bool {
        /// So few are begun before it is known how large they are.
        const FIRST: usize = 4;
        match self.expected {
            None => self.making < FIRST,
            Some(each) => {
                self.ready_bytes.saturating_add(self.making.saturating_mul(each)) < self.config.ahead_bytes
            }
        }
    }

    fn make(&mut self, actions: &mut Vec<Action>) {
        let mut seqs = Vec::new();
        let ahead = self.left_by_limit().map_or(self.config.ahead, |left| left.min(self.config.ahead));
        while self.making + self.ready < ahead && self.has_memory() {
            let Some(number) = self.pick(|core, number| {
                let group = &core.groups[number];
                // A limited group makes no more letters than may be out soon.
                let ahead = group.making + group.ready.len();
                !group.waiting.is_empty() && core.room(number).is_none_or(|room| ahead <= room)
            }) else {
                break;
            };
            let Some(seq) = self.groups[number].waiting.pop_front() else { break };
            if let Some(held) = self.held.get_mut(&seq) {
                held.stage = Stage::Making;
                self.making += 1;
                self.groups[number].making += 1;
                seqs.push(seq);
            }
        }
        if !seqs.is_empty() {
            actions.push(Action::Make(seqs));
        }
    }

    fn mark(&mut self, now: i64, actions: &mut Vec<Action>) {
        let mut seqs = Vec::new();
        let ahead = self.pulse.ahead(now);
        let limit = self.config.doubt.at(self.pulse.pace, self.pulse.lag, self.pulse.trip());
        let allowed = self.left_by_limit();
        while !self.paused && self.credits > -ahead && self.doubt < limit {
            if allowed.is_some_and(|allowed| seqs.len() >= allowed)
                || self.out_bytes >= self.config.ahead_bytes
            {
                break;
            }
            let Some(number) = self.pick(|core, number| {
                !core.groups[number].ready.is_empty() && core.room(number).is_none_or(|room| room > 0)
            }) else {
                break;
            };
            let Some(seq) = self.groups[number].ready.pop_front() else { break };
            let Some(held) = self.held.get_mut(&seq) else { continue };
            held.stage = Stage::Marking;
            held.doubt = true;
            held.marked = now;
            self.ready -= 1;
            self.ready_bytes -= held.size;
            self.out_bytes += held.size;
            self.doubt += 1;
            self.credits -= 1;
            self.groups[number].out += 1;
            seqs.push(seq);
        }
        if !seqs.is_empty() {
            actions.push(Action::Mark(seqs));
        }
    }

    /// How many more letters of a limited group may be out; `None`: any number.
    fn room(&self, group: usize) -> Option<usize> {
        let most = self.config.group_out.get(group.checked_sub(1)?)?;
        Some(most.saturating_sub(self.groups[group].out))
    }

    /// The next group, in turn, of which this is true.
    fn pick(&mut self, fits: impl Fn(&Core, usize) -> bool) -> Option<usize> {
        let count = self.groups.len();
        let found = (0..count).map(|n| (self.next_group + n) % count).find(|&number| fits(self, number))?;
        self.next_group = (found + 1) % count;
        Some(found)
    }

    /// How many more letters `--limit` allows to be marked; `None`: any number.
    fn left_by_limit(&self) -> Option<usize> {
        let limit = self.config.limit?;
        let marking = self.held.values().filter(|held| held.stage == Stage::Marking).count() as u64;
        Some(usize::try_from(limit.saturating_sub(self.handed_over + marking)).unwrap_or(usize::MAX))
    }

    /// Whether `--limit` allows no further letter to be marked.
    fn limit_is_reached(&self) -> bool {
        self.left_by_limit() == Some(0)
    }

    fn finish(&mut self, now: i64, actions: &mut Vec<Action>) {
        if self.stopping.is_none() {
            let limited = self.limit_is_reached();
            let busy = self.held.values().any(|held| {
                !limited || matches!(held.stage, Stage::Marking | Stage::Out | Stage::Settling(_))
            });
            let claiming =
                self.due_asked || self.groups.iter().any(|group| group.claiming || !group.exhausted);
            if busy || (claiming && !limited) {
                self.idle_since = None;
                return;
            }
            let since = *self.idle_since.get_or_insert(now);
            let stay = self.config.retry.stay.as_millis() as i64;
            match self.next_due {
                _ if limited => self.stop(End::Limit, now),
                None => self.stop(End::Complete, now),
                Some(due) if due - since > stay => self.stop(End::Deferred, now),
                Some(_) => return,
            }
        }
        if !self.draining {
            self.draining = true;
            actions.push(Action::Drain);
        }
        if let Some(end) = self.stopping
            && self.closed
            && self.held.is_empty()
            && self.settle.is_empty()
        {
            actions.push(Action::Finish(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(limit: Option<u64>, stop_when: Option<StopWhen>) -> Core {
        let config = Config {
            doubt: Doubt::fixed(8),
            ahead: 100,
            ahead_bytes: 1 << 20,
            claim_batch: 20,
            retry: Retry::default(),
            unsure: Unsure::Hold,
            group_out: Vec::new(),
            limit,
            stop_when,
        };
        Core::new(config, None)
    }

    fn claims(seqs: std::ops::RangeInclusive<u64>, earlier: Option<Outcome>) -> Event {
        let claim = |seq| Claim { seq, attempts: 0, first_attempt: None, earlier };
        Event::Claimed { group: 0, claims: seqs.map(claim).collect(), end: false }
    }

    /// Which letters are to be made now.
    fn to_make(core: &mut Core) -> Vec<u64> {
        let made = core.act(0).into_iter().filter_map(|action| match action {
            Action::Make(seqs) => Some(seqs),
            _ => None,
        });
        made.flatten().collect()
    }

    #[test]
    fn no_more_letters_are_made_than_a_limit_lets_go() {
        let mut core = core(Some(3), None);
        core.on(claims(1..=20, None), 0);
        assert_eq!(to_make(&mut core), [1, 2, 3]);
        // One that is not sent makes room for another.
        core.on(Event::Suppressed { seq: 1 }, 0);
        core.on(Event::Made { seq: 2, size: 100 }, 0);
        assert_eq!(to_make(&mut core), [4]);
        core.on(Event::Wanted(9), 0);
        core.on(Event::Made { seq: 3, size: 100 }, 0);
        assert!(core.act(0).contains(&Action::Mark(vec![2, 3])));
        core.on(Event::Durable { marks: vec![2, 3], settled: vec![1] }, 0);
        assert!(to_make(&mut core).is_empty());
        // Nor does one that comes back.
        core.on(Event::Returned { seq: 2 }, 0);
        assert_eq!(to_make(&mut core), [5]);
    }

    #[test]
    fn a_suppressed_letter_stays_what_it_was_and_may_end_the_run() {
        let stop_when = StopWhen { refused: Some((0.5, 2)), codes: Vec::new() };
        for (earlier, state, stops) in [
            (None, State::Skipped, false),
            (Some(Outcome::Accepted), State::Accepted, false),
            (Some(Outcome::Refused), State::Refused, true),
            (Some(Outcome::Unsure), State::Unsure, false),
        ] {
            let mut core = core(None, Some(stop_when.clone()));
            core.on(claims(1..=3, earlier), 0);
            assert_eq!(to_make(&mut core), [1, 2, 3]);
            core.on(Event::Suppressed { seq: 1 }, 0);
            core.on(Event::Suppressed { seq: 2 }, 0);
            assert_eq!(core.is_stopping(), stops, "{earlier:?}");
            let settled = core.act(0).into_iter().find_map(|action| match action {
                Action::Settle(settled) => Some(settled),
                _ => None,
            });
            let settled = settled.expect("both are settled");
            let told: Vec<_> = settled
                .iter()
                .map(|settled| (settled.seq, settled.state, settled.reason.as_deref()))
                .collect();
            assert_eq!(told, [(1, state, Some(SUPPRESSED)), (2, state, Some(SUPPRESSED))], "{earlier:?}");
        }
    }

    #[test]
    fn only_a_fast_relay_a_far_one_or_a_slow_disk_may_leave_more_in_doubt() {
        let auto = Doubt { least: 256, most: 1024 };
        for (pace, lag, trip, limit) in [
            (0.0, 0.0, 0.0, 256),
            (0.6, 1.0, 40.0, 256),
            (20.0, 1.0, 0.0, 256),
            (50.0, 1.0, 0.0, 600),
            (20.0, 10.0, 0.0, 960),
            (0.6, 10.0, 10.0, 256),
            (5.0, 1.0, 40.0, 460),
            (1e9, 1.0, 1e9, 1024),
        ] {
            let limits = auto.at(pace, lag, trip);
            assert_eq!(
                limits, limit,
                "{pace} letters a millisecond, syncs of {lag} ms, answers after {trip} ms"
            );
            assert_eq!(Doubt::fixed(7).at(pace, lag, trip), 7);
        }
    }
}
