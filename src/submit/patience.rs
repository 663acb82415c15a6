//! How long a relay is tried with which connections come to nothing: the pauses between them, and when it is given up.
//! A value: time is an argument.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// So many connections in a row that came to nothing, with none that works, and the relay cannot be worked with; unless
/// it has worked in this run.
const MAX_FAILURES: u32 = 7;
/// The first wait before another connection is tried after one that came to nothing; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(15);
/// A pause that was over for so long before anybody wanted a connection again says nothing of how long the relay is
/// away.
const UNWANTED: Duration = Duration::from_secs(10);

/// What a connection came to that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was not made, or ended before a letter was begun on it: that costs nothing but time.
    Away,
    /// A letter was begun and not answered. Each leaves some in doubt, and however long a relay is tried, these are
    /// few.
    Unanswered,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another connection is tried.
    Again,
    /// The same; and it is known by now that this may take a while.
    Stay,
    /// The relay is given up.
    GiveUp,
}

/// What is left of it.
#[derive(Debug)]
pub(super) struct Patience {
    /// How long a relay is tried that has worked in this run.
    stay: Duration,
    /// A letter was answered in this run.
    served: bool,
    /// Connections in a row that came to nothing; an answered MAIL is something, unless the connection was
    /// lost at its letter.
    failures: u32,
    /// Those of them on which a letter was begun.
    unanswered: u32,
    /// Since when no connection works.
    away_since: Option<Instant>,
    /// That it may take a while was said.
    said: bool,
    not_before: Option<Instant>,
    /// Somebody has wanted a connection since the last pause.
    wanted: bool,
    jitter: Jitter,
}

impl Patience {
    /// With a relay that is tried for so long, once it has worked.
    pub(super) fn new(stay: Duration) -> Patience {
        Patience {
            stay,
            served: false,
            failures: 0,
            unanswered: 0,
            away_since: None,
            said: false,
            not_before: None,
            wanted: false,
            jitter: Jitter::new(),
        }
    }

    /// With the next relay. That letters were answered in this run is as true: what keeps us from both may be our own
    /// network.
    pub(super) fn with_another(&mut self, stay: Duration) {
        let served = self.served;
        *self = Patience { served, ..Patience::new(stay) };
    }

    /// A letter was answered. Whether it was said before that this may take a while.
    pub(super) fn answered(&mut self) -> bool {
        self.served = true;
        self.not_before = None;
        self.forgive();
        std::mem::take(&mut self.said)
    }

    /// What came to nothing so far does not count any more.
    pub(super) fn forgive(&mut self) {
        (self.failures, self.unanswered, self.away_since) = (0, 0, None);
    }

    /// The so many connections that were lost at one letter, the last of them at its content and not counted yet,
    /// count as one: a firewall may let large letters alone not through.
    pub(super) fn lost_to_a_letter(&mut self, connections: u32) {
        let others = connections.saturating_sub(1);
        self.failures = self.failures.saturating_sub(others);
        self.unanswered = self.unanswered.saturating_sub(others);
    }

    /// Whether nothing is said against this relay.
    pub(super) fn is_whole(&self) -> bool {
        self.failures == 0
    }

    /// A relay that has worked does not at the moment.
    pub(super) fn waits(&self) -> bool {
        self.served && self.away_since.is_some()
    }

    /// A letter was answered in this run.
    pub(super) fn has_served(&self) -> bool {
        self.served
    }

    /// When another connection may be tried; `None`: now.
    pub(super) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|&at| at > now)
    }

    /// A connection is wanted and may be tried. What it waits for from now on, be it a name server, is no time in which
    /// nobody wanted one.
    pub(super) fn wants(&mut self, now: Instant) {
        let unwanted = self.not_before.is_some_and(|at| now.saturating_duration_since(at) > UNWANTED);
        if !std::mem::replace(&mut self.wanted, true) && unwanted {
            self.away_since = None;
        }
    }

    /// A connection came to nothing. `works`: another does not; `spare`: another relay would take over.
    pub(super) fn failed(&mut self, failure: Failure, works: bool, spare: bool, now: Instant) -> Verdict {
        self.failures += 1;
        self.unanswered += u32::from(failure == Failure::Unanswered);
        if works {
            return Verdict::Again;
        }
        let since = *self.away_since.get_or_insert(now);
        if self.failures < MAX_FAILURES {
            return Verdict::Again;
        }
        let worth_it = self.served && !spare && self.unanswered < MAX_FAILURES;
        match worth_it && now.saturating_duration_since(since) < self.stay {
            true if std::mem::replace(&mut self.said, true) => Verdict::Again,
            true => Verdict::Stay,
            false => Verdict::GiveUp,
        }
    }

    /// Nothing is tried for a while.
    pub(super) fn back_off(&mut self, now: Instant) {
        self.failures = self.failures.max(1);
        let wait = FIRST_BACKOFF.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_BACKOFF);
        self.not_before = Some(now + self.jitter.around(wait));
        self.wanted = false;
    }
}

/// Chance for waits, so that many senders do not knock at the same moment. Not for secrets.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn new() -> Jitter {
        Jitter(std::hash::RandomState::new().build_hasher().finish() | 1)
    }

    /// Between three quarters and five quarters of a duration.
    fn around(&mut self, wait: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        wait.mul_f64(0.75 + (self.0 % 1024) as f64 / 2048.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAY: Duration = Duration::from_secs(900);

    /// Connections fail so, each as soon as it may be tried, until the relay is given up: how many and for how long.
    fn tried(mut patience: Patience, failure: Failure, works: bool, spare: bool) -> (u32, Duration) {
        let began = Instant::now();
        let (mut now, mut count) = (began, 0);
        loop {
            count += 1;
            patience.wants(now);
            if patience.failed(failure, works, spare, now) == Verdict::GiveUp || count == 1000 {
                return (count, now - began);
            }
            patience.back_off(now);
            let pause = patience.not_before(now).expect("a pause") - now;
            assert!(pause <= MAX_BACKOFF.mul_f64(1.25), "{pause:?}");
            now += pause;
        }
    }

    fn served(stay: Duration) -> Patience {
        let mut patience = Patience::new(stay);
        patience.answered();
        patience
    }

    #[test]
    fn a_relay_that_has_worked_is_waited_for() {
        let (away, unanswered) = (Failure::Away, Failure::Unanswered);
        for (patience, failure, spare) in [
            (Patience::new(STAY), away, false),
            (served(STAY), unanswered, false),
            (served(STAY), away, true),
            (served(Duration::ZERO), away, false),
        ] {
            let told = format!("{patience:?} {failure:?} {spare}");
            let (count, time) = tried(patience, failure, false, spare);
            assert!(count == MAX_FAILURES && time < Duration::from_secs(9), "{told}: {count} in {time:?}");
        }
        let (count, time) = tried(served(STAY), away, false, false);
        assert!((STAY..STAY + 2 * MAX_BACKOFF).contains(&time), "{time:?}");
        assert!((50..100).contains(&count), "{count}");
        let mut both = served(STAY);
        both.with_another(STAY);
        assert!(tried(both, away, false, false).1 >= STAY);
        assert_eq!(tried(Patience::new(STAY), unanswered, true, false).0, 1000, "while others work");
    }

    #[test]
    fn letters_at_which_connections_are_lost_count_once_each() {
        let (mut patience, now) = (served(STAY), Instant::now());
        let mut lost = 0;
        loop {
            lost += 1;
            if lost % 3 == 0 {
                patience.lost_to_a_letter(3);
            }
            if patience.failed(Failure::Unanswered, false, false, now) == Verdict::GiveUp {
                break;
            }
        }
        // Five letters were deferred, three connections each, and the sixth was not.
        assert_eq!(lost, 17);
    }

    #[test]
    fn that_it_takes_a_while_is_said_once() {
        let (mut patience, now) = (served(STAY), Instant::now());
        let verdicts: Vec<_> = (0..9).map(|_| patience.failed(Failure::Away, false, false, now)).collect();
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Stay).count(), 1);
        assert_eq!(verdicts[6], Verdict::Stay);
        assert!(patience.waits() && patience.answered());
        assert!(!patience.waits() && patience.is_whole() && !patience.answered());
    }

    #[test]
    fn time_in_which_nobody_wanted_a_connection_does_not_count() {
        let (mut patience, mut now) = (served(STAY), Instant::now());
        for _ in 0..MAX_FAILURES {
            patience.failed(Failure::Away, false, false, now);
        }
        patience.back_off(now);
        now += 2 * STAY;
        patience.wants(now);
        assert_eq!(patience.failed(Failure::Away, false, false, now), Verdict::Again);
        now += STAY;
        assert_eq!(patience.failed(Failure::Away, false, false, now), Verdict::GiveUp);
    }

    #[test]
    fn time_in_which_a_name_is_looked_up_does() {
        let (mut patience, mut now) = (served(STAY), Instant::now());
        let began = now;
        for _ in 0..1000 {
            if patience.failed(Failure::Away, false, false, now) == Verdict::GiveUp {
                break;
            }
            patience.back_off(now);
            now = patience.not_before(now).expect("a pause");
            patience.wants(now);
            // The name server takes longer than a pause that nobody would be counted for.
            now += 2 * UNWANTED;
            patience.wants(now);
        }
        assert!((STAY..STAY + 4 * UNWANTED).contains(&(now - began)), "{:?}", now - began);
    }
}
