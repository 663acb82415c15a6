//! Runs of the engine's core against a scripted ledger and relay, by a virtual clock, with a
//! crash possible between any two steps. Whatever happens: nobody twice, nobody lost, never more
//! in doubt than the limit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::job::{Retry, Unsure};
use crate::ledger::{Settlement, State};
use crate::letter::{Answer, Outcome, RcptOutcome};

use super::core::{Action, Claim, Config, Core, Doubt, End, Event};

/// A generator of chance that a seed repeats (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone)]
struct Row {
    state: State,
    attempts: u32,
    first: Option<i64>,
    next: Option<i64>,
    group: usize,
}

/// What survives a crash.
struct World {
    rows: BTreeMap<u64, Row>,
    /// How often the relay took each letter.
    taken: HashMap<u64, u32>,
    /// Letters the relay refused for good.
    refused: HashMap<u64, u32>,
    clock: i64,
    crashes: usize,
    /// How often letters that were out, or their outcomes, were lost without a crash.
    blows: usize,
}

/// What a run leaves in the air: lost in a crash.
struct Air {
    /// Writes the ledger has not synced.
    writes: VecDeque<(Vec<u64>, Vec<Settlement>)>,
    /// Letters the relay has and has not answered.
    wire: Vec<u64>,
    making: Vec<u64>,
    claims: VecDeque<Action>,
    /// What was read for claims and is not told yet: the world goes on meanwhile.
    read: VecDeque<Event>,
    draining: bool,
    closed: bool,
    broken: bool,
    paused: bool,
    /// The ledger's thread is gone.
    deaf: bool,
    /// Letters handed over in this run that have not come back.
    handed_over: u64,
}

fn rcpt(outcome: Outcome) -> Vec<RcptOutcome> {
    let code = match outcome {
        Outcome::Accepted => 250,
        Outcome::Deferred => 450,
        _ => 550,
    };
    let answer = Answer { code, enhanced: None, text: "said the relay".into() };
    vec![RcptOutcome { address: "a@b.test".into(), outcome, answer }]
}

fn claim(seq: u64, row: &Row) -> Claim {
    Claim { seq, attempts: row.attempts, first_attempt: row.first.map(|at| at * 1000), earlier: None }
}

/// What a scenario allows.
#[derive(Clone, Copy)]
struct Script {
    doubt: usize,
    crash: u64,
    defer: u64,
    refuse: u64,
    lose: u64,
    give_back: u64,
    stop: u64,
    pause: u64,
    withhold: u64,
    /// The disk is full, the submitter or the ledger's thread is gone.
    blow: u64,
    limit: Option<u64>,
}

/// One run; `None` when it crashed.
fn run(world: &mut World, chance: &mut Chance, script: &Script) -> Option<End> {
    // Recovery: what was marked and has no answer is unsure, and held.
    let mut found = 0;
    for row in world.rows.values_mut().filter(|row| row.state == State::Sending) {
        row.state = State::Unsure;
        found += 1;
    }
    assert!(found <= script.doubt, "{found} letters in doubt, {} allowed", script.doubt);

    let config = Config {
        doubt: Doubt::fixed(script.doubt),
        ahead: 12,
        ahead_bytes: 2000,
        claim_batch: 8,
        retry: Retry { stay: Duration::from_secs(600), ..Retry::default() },
        unsure: Unsure::Hold,
        group_out: vec![2],
        limit: script.limit,
        stop_when: None,
    };
    let due = |world: &World| {
        world.rows.values().filter(|row| row.state == State::Deferred).filter_map(|row| row.next).min()
    };
    let mut core = Core::new(config, due(world).map(|at| at * 1000));
    let mut air = Air {
        writes: VecDeque::new(),
        wire: Vec::new(),
        making: Vec::new(),
        claims: VecDeque::new(),
        read: VecDeque::new(),
        draining: false,
        closed: false,
        broken: false,
        paused: false,
        deaf: false,
        handed_over: 0,
    };
    core.on(Event::Wanted(3), world.clock);
    for _ in 0..200_000 {
        for action in core.act(world.clock) {
            match action {
                Action::Claim { .. } | Action::ClaimDue { .. } => air.claims.push_back(action),
                Action::Make(seqs) => air.making.extend(seqs),
                Action::Mark(seqs) => {
                    let (gone, marked): (Vec<u64>, Vec<u64>) =
                        seqs.into_iter().partition(|_| chance.one_in(200));
                    gone.into_iter().for_each(|seq| core.on(Event::Stale { seq }, world.clock));
                    if air.deaf {
                        core.on(Event::NotDurable { marks: marked, settled: Vec::new() }, world.clock);
                    } else {
                        air.writes.push_back((marked, Vec::new()));
                    }
                }
                Action::Settle(settlements) if air.deaf => {
                    let settled = settlements.iter().map(|settlement| settlement.seq).collect();
                    core.on(Event::NotDurable { marks: Vec::new(), settled }, world.clock);
                }
                Action::Settle(settlements) => air.writes.push_back((Vec::new(), settlements)),
                Action::HandOver(seqs) => {
                    assert!(!air.draining, "handed over after draining began");
                    assert!(!air.closed, "handed over to nobody");
                    assert!(!air.paused, "handed over while the job is paused");
                    let (withheld, seqs): (Vec<u64>, Vec<u64>) =
                        seqs.into_iter().partition(|_| chance.one_in(script.withhold));
                    withheld.into_iter().for_each(|seq| core.on(Event::Withheld { seq }, world.clock));
                    air.handed_over += seqs.len() as u64;
                    assert!(script.limit.is_none_or(|limit| air.handed_over <= limit), "beyond the limit");
                    for &seq in &seqs {
                        assert_eq!(world.rows[&seq].state, State::Sending, "{seq} goes out unmarked");
                    }
                    air.wire.extend(seqs);
                }
                Action::Drain => air.draining = true,
                Action::Finish(end) => return Some(end),
            }
        }
        assert!(core.in_doubt() <= script.doubt);
        if chance.one_in(script.crash) {
            // Whatever was on the wire may or may not have been taken.
            for seq in std::mem::take(&mut air.wire) {
                if chance.one_in(2) {
                    *world.taken.entry(seq).or_default() += 1;
                }
            }
            // Of what the ledger was asked to write, a beginning may have been synced.
            while !air.writes.is_empty() && chance.one_in(2) {
                write(world, &mut air);
            }
            world.crashes += 1;
            return None;
        }
        // Some things happen before anybody acts.
        for _ in 0..=chance.below(3) {
            world.clock += chance.below(30) as i64;
            step(world, &mut air, &mut core, chance, script);
        }
    }
    panic!("the run does not end: {core:?}");
}

fn write(world: &mut World, air: &mut Air) -> (Vec<u64>, Vec<u64>) {
    let Some((marks, settlements)) = air.writes.pop_front() else { return Default::default() };
    for seq in &marks {
        let row = world.rows.get_mut(seq).expect("a mark of an enlisted letter");
        assert!(
            matches!(row.state, State::Pending | State::Deferred),
            "{seq} is marked while {:?}",
            row.state
        );
        let due = row.state != State::Deferred || row.next.is_some_and(|next| next * 1000 <= world.clock);
        assert!(due, "{seq} is marked before it is due");
        row.state = State::Sending;
        row.attempts += 1;
        row.first.get_or_insert(world.clock.div_euclid(1000));
    }
    for settlement in &settlements {
        let row = world.rows.get_mut(&settlement.seq).expect("a settlement of an enlisted letter");
        row.state = settlement.state;
        row.next = settlement.next_attempt;
    }
    (marks, settlements.into_iter().map(|settlement| settlement.seq).collect())
}

/// One thing happens somewhere.
fn step(world: &mut World, air: &mut Air, core: &mut Core, chance: &mut Chance, script: &Script) {
    let now = world.clock;
    match chance.below(8) {
        0 if !air.claims.is_empty() => match air.claims.pop_front() {
            Some(Action::Claim { group, after, limit }) => {
                let pending = world
                    .rows
                    .iter()
                    .filter(|(seq, row)| **seq > after && row.group == group && row.state == State::Pending);
                let claims: Vec<Claim> = pending.take(limit).map(|(seq, row)| claim(*seq, row)).collect();
                let end = claims.len() < limit;
                air.read.push_back(Event::Claimed { group, claims, end });
            }
            Some(Action::ClaimDue { now: by, limit }) => {
                let deferred = || world.rows.iter().filter(|(_, row)| row.state == State::Deferred);
                let is_due = |row: &Row| row.next.is_some_and(|next| next * 1000 <= by);
                let claims: Vec<(usize, Claim)> = deferred()
                    .filter(|(_, row)| is_due(row))
                    .take(limit)
                    .map(|(seq, row)| (row.group, claim(*seq, row)))
                    .collect();
                let given: Vec<u64> = claims.iter().map(|(_, claim)| claim.seq).collect();
                let next =
                    deferred().filter(|(seq, _)| !given.contains(seq)).filter_map(|(_, row)| row.next).min();
                air.read.push_back(Event::Due { claims, next: next.map(|next| next * 1000) });
            }
            _ => {}
        },
        0 | 7 if !air.read.is_empty() => {
            let event = air.read.pop_front().expect("it is not empty");
            core.on(event, now);
        }
        1 if !air.making.is_empty() => {
            // 2000 octets are 7 letters of 300.
            assert!(air.making.len() <= 7, "{} letters are made at once", air.making.len());
            let at = chance.below(air.making.len() as u64) as usize;
            let seq = air.making.swap_remove(at);
            if chance.one_in(100) {
                core.on(Event::Unmade { seq, rcpts: rcpt(Outcome::Failed) }, now);
            } else if chance.one_in(200) {
                core.on(Event::Suppressed { seq }, now);
            } else {
                core.on(Event::Made { seq, size: 300 }, now);
            }
        }
        2 | 3 if !air.writes.is_empty() => {
            let (marks, settled) = write(world, air);
            core.on(Event::Durable { marks, settled }, now);
        }
        4 | 5 if !air.wire.is_empty() => {
            let at = chance.below(air.wire.len() as u64) as usize;
            let seq = air.wire.swap_remove(at);
            if air.broken || chance.one_in(script.give_back) {
                air.handed_over -= 1;
                core.on(Event::Returned { seq }, now);
            } else {
                let outcome = if chance.one_in(script.defer) {
                    Outcome::Deferred
                } else if chance.one_in(script.refuse) {
                    *world.refused.entry(seq).or_default() += 1;
                    Outcome::Refused
                } else if chance.one_in(script.lose) {
                    // The relay has it, and its answer is lost; or it never came that far.
                    if chance.one_in(2) {
                        *world.taken.entry(seq).or_default() += 1;
                    }
                    Outcome::Unsure
                } else {
                    *world.taken.entry(seq).or_default() += 1;
                    Outcome::Accepted
                };
                core.on(Event::Answered { seq, rcpts: rcpt(outcome) }, now);
            }
            if !air.draining {
                core.on(Event::Wanted(1), now);
            }
        }
        6 if air.draining && air.wire.is_empty() && !air.closed => {
            air.closed = true;
            core.on(Event::Closed, now);
        }
        6 if chance.one_in(if air.paused { 10 } else { script.pause }) => {
            air.paused = !air.paused;
            core.on(Event::Paused(air.paused), now);
        }
        6 if chance.one_in(script.blow) => {
            world.blows += 1;
            blow(world, air, core, chance);
        }
        6 if chance.one_in(script.stop) => {
            air.broken |= chance.one_in(2);
            core.on(Event::Stop(if air.broken { End::Relay } else { End::Stopped }), now);
        }
        _ => {
            // Nothing is going on: time passes to the next thing that is due.
            if let Some(due) = core.wake_at().filter(|_| air.wire.is_empty() && air.making.is_empty()) {
                world.clock = world.clock.max(due);
            }
        }
    }
}

/// The disk is full, or a thread is gone without a word.
fn blow(world: &mut World, air: &mut Air, core: &mut Core, chance: &mut Chance) {
    let now = world.clock;
    match chance.below(3) {
        0 => {
            let Some((marks, settlements)) = air.writes.pop_front() else { return };
            let settled = settlements.iter().map(|settlement| settlement.seq).collect();
            core.on(Event::NotDurable { marks, settled }, now);
        }
        1 if !air.closed => {
            for seq in std::mem::take(&mut air.wire) {
                if chance.one_in(2) {
                    *world.taken.entry(seq).or_default() += 1;
                }
            }
            air.closed = true;
            core.on(Event::Stop(End::Relay), now);
            core.on(Event::SubmitterGone, now);
        }
        _ => {
            while !air.writes.is_empty() && chance.one_in(2) {
                write(world, air);
            }
            air.writes.clear();
            air.deaf = true;
            core.on(Event::LedgerGone, now);
        }
    }
}

fn play(seed: u64) -> (usize, usize) {
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let pick = |chance: &mut Chance, from: &[u64]| from[chance.below(from.len() as u64) as usize];
    let script = Script {
        doubt: pick(&mut chance, &[1, 2, 5, 16]) as usize,
        crash: pick(&mut chance, &[60, 300, 3000, u64::MAX]),
        defer: pick(&mut chance, &[3, 10, 1_000_000]),
        refuse: pick(&mut chance, &[5, 1_000_000]),
        lose: pick(&mut chance, &[10, 1_000_000]),
        give_back: pick(&mut chance, &[4, 1_000_000]),
        stop: pick(&mut chance, &[500, 1_000_000]),
        pause: pick(&mut chance, &[50, 1_000_000]),
        withhold: pick(&mut chance, &[20, 1_000_000]),
        blow: pick(&mut chance, &[200, 1_000_000, 1_000_000]),
        limit: [None, None, Some(7)][chance.below(3) as usize],
    };
    let count = 1 + chance.below(60);
    let row = |group| Row { state: State::Pending, attempts: 0, first: None, next: None, group };
    let rows = (1..=count).map(|seq| (seq, row(usize::from(seq % 5 == 0)))).collect();
    let mut world = World {
        rows,
        taken: HashMap::new(),
        refused: HashMap::new(),
        clock: 1_700_000_000_000,
        crashes: 0,
        blows: 0,
    };
    let mut lost_answers_allowed = 0;
    let mut ended = false;
    for _ in 0..10_000 {
        let end = run(&mut world, &mut chance, &script);
        if end.is_none() {
            lost_answers_allowed += script.doubt;
        }
        if end == Some(End::Complete) {
            ended = true;
            break;
        }
        if end == Some(End::Deferred) {
            world.clock += 3_600_000;
        }
        // Crashes become rarer, so that every story has an end.
        if world.crashes > 40 {
            break;
        }
    }
    for (seq, row) in &world.rows {
        let taken = world.taken.get(seq).copied().unwrap_or(0);
        assert!(taken <= 1, "seed {seed}: letter {seq} was taken {taken} times");
        match row.state {
            State::Accepted => assert_eq!(taken, 1, "seed {seed}: {seq} is called accepted"),
            State::Unsure | State::Sending => {}
            state => assert_eq!(taken, 0, "seed {seed}: {seq} is called {state:?} and was taken"),
        }
        if row.state == State::Refused {
            assert!(world.refused.contains_key(seq), "seed {seed}: {seq} was never refused");
        }
        if ended {
            assert!(
                !matches!(row.state, State::Pending | State::Sending | State::Deferred),
                "seed {seed}: {seq} is forgotten as {:?}",
                row.state
            );
        }
    }
    let unsure = world.rows.values().filter(|row| row.state == State::Unsure).count();
    let lost_answers_allowed = lost_answers_allowed + world.blows * script.doubt;
    if script.lose == 1_000_000 {
        assert!(unsure <= lost_answers_allowed, "seed {seed}: {unsure} unsure");
    }
    (world.crashes, usize::from(ended))
}

#[test]
fn nobody_twice_nobody_lost_whatever_happens() {
    let (mut crashes, mut ended) = (0, 0);
    for seed in 1..=3000 {
        let (c, e) = play(seed);
        crashes += c;
        ended += e;
    }
    assert!(crashes > 3000, "the simulation must crash often to prove anything: {crashes}");
    assert!(ended > 1500, "and most stories must come to their end: {ended}");
}
