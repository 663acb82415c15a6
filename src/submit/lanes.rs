//! Letters that wait for a connection: one lane for each group of domains with a limit of its own, so that a slow group
//! holds nobody up. Values with the clock passed in.

use std::collections::VecDeque;
use std::time::Instant;

use super::Queued;
use super::account::Account;
use super::pace::Pace;
use crate::job::DomainLimit;

/// The letters of a pool that have not begun.
pub(super) struct Lanes {
    limits: Vec<DomainLimit>,
    /// That of everybody else, then one for each limit.
    lanes: Vec<Lane>,
    waiting: usize,
    turn: usize,
}

struct Lane {
    pace: Option<Pace>,
    /// Only on the so many connections that have been ready longest: one that is opened later never takes the place of
    /// one that still carries letters of this lane.
    connections: Option<usize>,
    letters: VecDeque<Queued>,
}

impl Lane {
    /// Whether letters wait here that a connection of this rank may carry.
    fn may_use(&self, rank: usize) -> bool {
        !self.letters.is_empty() && self.connections.is_none_or(|most| rank < most)
    }

    fn ready(&self, now: Instant, rank: usize) -> bool {
        self.may_use(rank) && self.pace.as_ref().is_none_or(|pace| pace.wait(now).is_none())
    }
}

impl Lanes {
    /// The limits of a relay; the paces of those with a rate are the account's.
    pub(super) fn new(limits: &[DomainLimit], account: &Account) -> Lanes {
        let everyone = Lane { pace: None, connections: None, letters: VecDeque::new() };
        let limited = limits.iter().map(|limit| Lane {
            pace: limit.rate.map(|rate| Pace::new(rate, 1, account.book(&limit.domains))),
            connections: limit.connections,
            letters: VecDeque::new(),
        });
        let lanes = std::iter::once(everyone).chain(limited).collect();
        Lanes { limits: limits.to_vec(), lanes, waiting: 0, turn: 0 }
    }

    /// How many letters wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn of(&mut self, queued: &Queued) -> &mut Lane {
        let mut place = 0;
        if !self.limits.is_empty()
            && let Some(first) = queued.consignment.message.envelope.recipients.first()
        {
            place = DomainLimit::place(&self.limits, &first.ascii_domain().to_ascii_lowercase());
        }
        &mut self.lanes[place]
    }

    /// Behind the others of its lane.
    pub(super) fn push(&mut self, queued: Queued) {
        self.waiting += 1;
        self.of(&queued).letters.push_back(queued);
    }

    /// Back to the head of its lane.
    pub(super) fn push_back(&mut self, queued: Queued) {
        self.waiting += 1;
        self.of(&queued).letters.push_front(queued);
    }

    /// Whether a letter may start now on a connection of this rank, as far as this process knows.
    pub(super) fn ready(&self, now: Instant, rank: usize) -> bool {
        self.waiting > 0 && self.lanes.iter().any(|lane| lane.ready(now, rank))
    }

    /// Letters that a connection of this rank could carry.
    pub(super) fn waiting_for(&self, rank: usize) -> usize {
        self.lanes.iter().filter(|lane| lane.may_use(rank)).map(|lane| lane.letters.len()).sum()
    }

    /// The next letter that may start now on a connection of this rank; lanes take turns.
    pub(super) fn take(&mut self, now: Instant, rank: usize) -> Option<Queued> {
        if self.waiting == 0 {
            return None;
        }
        let count = self.lanes.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            let lane = &mut self.lanes[place];
            if !lane.ready(now, rank) || lane.pace.as_mut().is_some_and(|pace| !pace.start(now)) {
                continue;
            }
            self.turn = place + 1;
            self.waiting -= 1;
            return lane.letters.pop_front();
        }
        None
    }

    /// When a lane that waits for its pace may go on, on a connection of this rank.
    pub(super) fn next(&self, now: Instant, rank: usize) -> Option<Instant> {
        self.lanes
            .iter()
            .filter(|lane| lane.may_use(rank))
            .map(|lane| lane.pace.as_ref().and_then(|pace| pace.wait(now)).unwrap_or(now))
            .min()
    }

    /// Letters that wait for a pace of their own: they keep nobody else waiting.
    pub(super) fn held_up(&self) -> usize {
        self.lanes[1..].iter().map(|lane| lane.letters.len()).sum()
    }

    /// All of them, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Queued> + '_ {
        self.waiting = 0;
        self.lanes.iter_mut().flat_map(|lane| lane.letters.drain(..))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::letter::{Content, Envelope, Message};
    use crate::measure::Rate;
    use crate::submit::Consignment;
    use crate::submit::account::Accounts;

    fn to(domain: &str, seq: u64) -> Queued {
        let envelope = Envelope {
            reverse_path: None,
            recipients: vec![format!("u{seq}@{domain}").parse().expect("an address")],
        };
        let content = Content::new(Vec::new(), Vec::new());
        let message = Message { envelope, content, eight_bit: false, smtputf8: false };
        Queued { consignment: Consignment { seq, message }, losses: 0, began: Instant::now() }
    }

    #[test]
    fn lanes_take_turns_and_hold_nobody_up() {
        let limit = |domain: &str, rate: Option<u32>, connections| DomainLimit {
            domains: vec![domain.to_owned()],
            rate: rate.map(|count| Rate { count, per: Duration::from_secs(10) }),
            connections,
        };
        let limits = [limit("slow.example", Some(1), None), limit("*.few.example", None, Some(1))];
        let mut lanes = Lanes::new(&limits, &Accounts::alone().account("127.0.0.1", 25, ""));
        for seq in [1, 2] {
            for domain in ["any.example", "slow.example", "a.few.example"] {
                lanes.push(to(domain, seq));
            }
        }
        let now = Instant::now();
        let mut take = |rank| {
            lanes.take(now, rank).map(|queued| {
                let recipient = &queued.consignment.message.envelope.recipients[0];
                recipient.as_str().to_owned()
            })
        };
        // On the second connection nobody of `few`, and after one of `slow` that lane waits for its pace.
        let second: Vec<_> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(second, ["u1@any.example", "u1@slow.example", "u2@any.example"]);
        let first: Vec<_> = std::iter::from_fn(|| take(0)).collect();
        assert_eq!(first, ["u1@a.few.example", "u2@a.few.example"]);
        assert_eq!((lanes.waiting(), lanes.waiting_for(0), lanes.held_up()), (1, 1, 1));
        assert!(!lanes.ready(now, 0) && lanes.next(now, 0).is_some_and(|at| at > now));
        assert_eq!(lanes.drain().count(), 1);
        assert_eq!((lanes.waiting(), lanes.next(now, 0)), (0, None));
    }
}
