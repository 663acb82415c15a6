//! How fast letters may start: exact over any window, by the generic cell rate algorithm. Values
//! with the clock passed in.

use std::time::{Duration, Instant};

use super::account::{Book, Turn};
use crate::measure::Rate;

/// A start is counted here before the relay sees it. By this part the interval is stretched, so that a path that is
/// now slow, now quick does not make more starts of a second than were begun in it.
const SLACK: u32 = 256;

/// When another process looks at the book of the account, it does so for some microseconds.
const MOMENT: Duration = Duration::from_millis(1);

/// A rate kept exactly: `burst` letters at once, then one each interval.
pub(super) struct Pace {
    interval: Duration,
    /// How far ahead of time starts may run: `burst - 1` intervals.
    ahead: Duration,
    /// When the next letter would be due, had all come evenly (the theoretical arrival time). With a book: at the
    /// earliest, for other processes may have started some since.
    due: Option<Instant>,
    /// What all processes that use the account have started.
    book: Option<Book>,
    /// The book was not to be had: it is looked at again then.
    again: Option<Instant>,
}

impl Pace {
    /// A pace of this rate, kept together with all who have the same book.
    pub(super) fn new(rate: Rate, burst: u32, book: Option<Book>) -> Pace {
        let interval = rate.interval();
        let interval = interval + interval / SLACK;
        let ahead = interval * burst.max(1).saturating_sub(1);
        Pace { interval, ahead, due: None, book, again: None }
    }

    /// When the next letter may start; `None`: now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let earliest = self.due.and_then(|due| due.checked_sub(self.ahead));
        earliest.max(self.again).filter(|&at| at > now)
    }

    /// A letter starts now, unless [`Pace::wait`] says later, or another process was first: then false.
    #[must_use = "false: it does not start"]
    pub(super) fn start(&mut self, now: Instant) -> bool {
        if self.wait(now).is_some() {
            return false;
        }
        let (interval, ahead) = (self.interval, self.ahead);
        // A start that is late, because timers are coarse and machines busy, does not put off those behind it. Of a
        // window of whole seconds that is less than an interval and what `SLACK` takes together, so no such window
        // holds one more for it.
        let late = (interval * 3 / 4 + Duration::from_millis(3)).min(Duration::from_millis(25));
        let since = now.checked_sub(late).unwrap_or(now);
        let next = |due: Option<Instant>| due.map_or(now, |due| due.max(since)) + interval;
        let turn = self.book.as_mut().map(|book| {
            // Of the account the last start is known, not when the next is due: by another rate, of another job or
            // of yesterday, that is another time.
            book.turn(now, |last| match last.map(|last| last + interval) {
                Some(due) if due.checked_sub(ahead).is_some_and(|earliest| earliest > now) => {
                    (None, (due, false))
                }
                due => (next(due).checked_sub(interval), (next(due), true)),
            })
        });
        let (due, started) = match turn {
            Some(Turn::Had(had)) => had,
            Some(Turn::NotNow) => {
                self.again = Some(now + MOMENT);
                return false;
            }
            Some(Turn::Broken) => {
                self.book = None;
                (next(self.due), true)
            }
            None => (next(self.due), true),
        };
        self.due = Some(due);
        started
    }

    /// A letter that was to start does not.
    pub(super) fn give_back(&mut self, now: Instant) {
        let interval = self.interval;
        let back = |time: Option<Instant>| time.and_then(|time| time.checked_sub(interval));
        self.due = back(self.due);
        if let Some(book) = &mut self.book
            && let Turn::Broken = book.turn(now, |last| (back(last), ()))
        {
            self.book = None;
        }
    }

    /// How many letters may start within `span` from now on.
    pub(super) fn within(&self, now: Instant, span: Duration) -> usize {
        let end = now + span + self.ahead;
        let due = self.due.map_or(now, |due| due.max(now));
        match end.checked_duration_since(due) {
            None => 0,
            Some(left) => 1 + (left.as_nanos() / self.interval.as_nanos().max(1)) as usize,
        }
    }
}

/// After a relay said that we are too fast, nothing starts for so long, if it does not say for how long.
const PAUSE: Duration = Duration::from_secs(1);
/// A relay that says "in 3 days" is asked again after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// After a no, this part of the pace at which it was said.
const DECREASE: f64 = 0.92;
/// Each second without a no brings this part of that pace back, up to [`NEAR`] of it.
const INCREASE: f64 = 0.01;
const NEAR: f64 = 0.97;
/// The first no mostly comes in a burst, before a second has shown what the relay bears. What was accepted until then
/// is less than that, so the pace rises by this part of itself each second, until the next no tells more.
const SEARCH: f64 = 0.05;
/// Without a no for so long, a faster pace is tried, by [`SEARCH`] again: limits change with the hour and with our
/// repute, and trouble that was not about pace is over.
const FORGIVEN: Duration = Duration::from_secs(120);
/// A no that may be about pace is, if so many letters ago at most there was another: relays have their troubles
/// without us, and a run that slows down at each of them never ends.
const OFTEN: f64 = 50.0;

/// What the relay puts up with, found out by additive increase and multiplicative decrease.
#[derive(Default)]
pub(super) struct Throttle {
    /// The pace at which the relay last said no, and ours now, in letters a second.
    held: Option<Held>,
    /// Letters begun until then were begun before we slowed down: their no is the same no.
    until: Option<Instant>,
    /// Letters accepted in each tenth of the last second.
    tenths: [u32; 10],
    tenth: u64,
    epoch: Option<Instant>,
    /// Noes that may be about pace, each worth less with every letter accepted since.
    noes: f64,
}

struct Held {
    /// The pace at which the relay last said no.
    ceiling: f64,
    /// It was ours when the no came, and not only what had been accepted by then.
    known: bool,
    now: f64,
    pace: Pace,
    changed: Instant,
    since: Instant,
}

impl Throttle {
    /// The relay accepted a letter.
    pub(super) fn accepted(&mut self, now: Instant) {
        self.noes *= 0.5_f64.powf(1.0 / OFTEN);
        self.turn(now);
        self.tenths[(self.tenth % 10) as usize] += 1;
    }

    /// The relay said no with a code that is said of pace too. True if another is not long ago: then it is. A
    /// burst counts as two.
    pub(super) fn another_no(&mut self) -> bool {
        self.noes = (self.noes + 1.0).min(2.0);
        self.noes >= 1.5
    }

    /// The relay said to a letter begun then that we are too fast; `told`: for how long it wants to be left alone.
    /// True if we slow down now.
    pub(super) fn too_fast(&mut self, began: Instant, told: Option<Duration>, now: Instant) -> bool {
        if self.until.is_some_and(|until| began <= until) {
            return false;
        }
        self.turn(now);
        let measured = f64::from(self.tenths.iter().sum::<u32>()).max(1.0);
        // Under a pace of our own the pace is the better measure. A no that comes at once says that it was far too
        // fast, a late one that it was nearly right.
        let at = self.held.as_ref().map_or(measured, |held| {
            let at_once = now.saturating_duration_since(held.since) < 2 * PAUSE;
            held.now.min(measured.max(held.now * if at_once { 0.8 } else { 0.98 }))
        });
        let until = now + told.unwrap_or(PAUSE).min(LONGEST_PAUSE);
        self.until = Some(until);
        let pace = at * DECREASE;
        let known = self.held.is_some();
        self.held =
            Some(Held { ceiling: at, known, now: pace, pace: even(pace), changed: until, since: until });
        true
    }

    /// When the next letter may start; `None`: now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        if let Some(until) = self.until.filter(|&until| until > now) {
            return Some(until);
        }
        self.held.as_mut()?.grow(now);
        self.held.as_ref()?.pace.wait(now)
    }

    /// A letter starts now.
    pub(super) fn start(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            // It is nobody else's, and was asked.
            let _ = held.pace.start(now);
        }
    }

    /// How many letters may start within `span`.
    pub(super) fn within(&self, now: Instant, span: Duration) -> usize {
        match (self.until.filter(|&until| until > now), &self.held) {
            (Some(until), Some(held)) => match span.checked_sub(until.saturating_duration_since(now)) {
                Some(left) => held.pace.within(until, left),
                None => 0,
            },
            (None, Some(held)) => held.pace.within(now, span),
            _ => usize::MAX,
        }
    }

    /// Whether the relay has slowed us down.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    fn turn(&mut self, now: Instant) {
        let epoch = *self.epoch.get_or_insert(now);
        let tenth = (now.saturating_duration_since(epoch).as_millis() / 100) as u64;
        let passed = tenth.saturating_sub(self.tenth).min(10);
        (0..passed).for_each(|n| self.tenths[((self.tenth + 1 + n) % 10) as usize] = 0);
        self.tenth = tenth;
    }
}

impl Held {
    fn grow(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.changed).as_secs();
        if seconds == 0 {
            return;
        }
        self.changed += Duration::from_secs(seconds);
        let forgiven = now.saturating_duration_since(self.since) > FORGIVEN;
        let faster = if !self.known || forgiven {
            self.now * (1.0 + SEARCH).powi(seconds.min(60) as i32)
        } else {
            (self.now + self.ceiling * INCREASE * seconds as f64).min(self.ceiling * NEAR)
        };
        if faster > self.now {
            self.now = faster;
            self.pace.interval = even(faster).interval;
        }
    }
}

fn even(pace: f64) -> Pace {
    let interval = Duration::from_secs_f64(1.0 / pace.clamp(1e-3, 1e6));
    Pace { interval, ahead: Duration::ZERO, due: None, book: None, again: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that says no above so many in any second, for so long; its answers come `late`. Whether its words are
    /// `plain`.
    fn settled(most: usize, seconds: u64, late: Duration, plain: bool) -> (f64, usize) {
        let (mut throttle, from) = (Throttle::default(), Instant::now() + Duration::from_secs(2));
        let (mut now, mut accepted, mut refused) = (from, Vec::new(), 0);
        let mut answers = std::collections::VecDeque::new();
        while now < from + Duration::from_secs(seconds) {
            while let Some(&(began, yes)) = answers.front().filter(|(began, _)| *began + late <= now) {
                answers.pop_front();
                match yes {
                    true => throttle.accepted(now),
                    false if !plain && !throttle.another_no() => {}
                    false => drop(throttle.too_fast(began, None, now)),
                }
            }
            // As many as a fast machine begins in a millisecond.
            for _ in 0..20 {
                if throttle.wait(now).is_some() {
                    break;
                }
                throttle.start(now);
                let second = now - Duration::from_secs(1);
                let inside = accepted.iter().rev().take_while(|&&at| at > second).count();
                if inside < most {
                    accepted.push(now);
                } else {
                    refused += 1;
                }
                answers.push_back((now, inside < most));
                if answers.len() >= 64 {
                    break;
                }
            }
            now += Duration::from_millis(1);
        }
        let half = from + Duration::from_secs(seconds / 2);
        let late = accepted.iter().filter(|&&at| at >= half).count();
        (late as f64 / (seconds as f64 / 2.0), refused)
    }

    #[test]
    fn the_pace_settles_within_a_tenth_below_what_the_relay_puts_up_with() {
        for (most, late) in [(5, 0), (30, 0), (200, 0), (30, 10), (30, 40), (30, 150), (200, 40)] {
            for plain in [true, false] {
                let (pace, refused) = settled(most, 100, Duration::from_millis(late), plain);
                let part = pace / most as f64;
                assert!((0.9..=1.0).contains(&part), "{pace} of {most}, {refused} refused, {late} ms late");
                assert!(refused < 250, "{refused} refused, {late} ms late");
            }
        }
    }

    #[test]
    fn a_no_now_and_then_is_not_about_pace() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..1000 {
            (0..100).for_each(|_| throttle.accepted(now));
            assert!(!throttle.another_no());
        }
        (0..20).for_each(|_| throttle.accepted(now));
        assert!(throttle.another_no(), "two of twenty");
        // However long a burst was, it is over after some more than twice as many letters.
        for _ in 0..500 {
            throttle.another_no();
        }
        (0..120).for_each(|_| throttle.accepted(now));
        assert!(!throttle.another_no());
    }

    #[test]
    fn what_was_accepted_before_the_first_no_is_no_ceiling() {
        let (mut throttle, from) = (Throttle::default(), Instant::now());
        let pace = |throttle: &Throttle| throttle.held.as_ref().map_or(0.0, |held| held.now);
        (0..10).for_each(|_| throttle.accepted(from));
        assert!(throttle.too_fast(from, None, from));
        let later = from + Duration::from_secs(30);
        let _ = throttle.wait(later);
        let found = pace(&throttle);
        assert!(found > 30.0, "{found} after half a minute without a no");
        // The second no came at a pace of our own: that is the ceiling.
        assert!(throttle.too_fast(later, None, later));
        let _ = throttle.wait(later + Duration::from_secs(60));
        let settled = pace(&throttle);
        assert!((0.9 * found..found).contains(&settled), "{settled} under {found}");
    }

    #[test]
    fn trouble_that_is_over_is_forgotten() {
        let (mut throttle, from) = (Throttle::default(), Instant::now());
        (0..10).for_each(|_| throttle.accepted(from));
        assert!(throttle.too_fast(from, None, from));
        let again = from + 2 * PAUSE;
        assert!(throttle.too_fast(again, None, again));
        // Looked at every second, as a run does.
        for second in 0..300 {
            let _ = throttle.wait(again + Duration::from_secs(second));
        }
        let pace = throttle.held.as_ref().map_or(0.0, |held| held.now);
        assert!(pace > 10_000.0, "{pace} after five minutes without a no");
    }

    #[test]
    fn a_relay_that_says_for_how_long_is_believed() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        (0..10).for_each(|_| throttle.accepted(now));
        assert!(throttle.too_fast(now, Some(Duration::from_secs(40)), now));
        assert!(!throttle.too_fast(now, None, now), "the same no");
        assert_eq!(throttle.wait(now), Some(now + Duration::from_secs(40)));
        assert_eq!(throttle.within(now, Duration::from_millis(500)), 0);
        assert_eq!(throttle.wait(now + Duration::from_secs(41)), None);
    }

    /// Starts as fast as the pace allows, looking at the clock every `tick`.
    fn starts(pace: &mut Pace, from: Instant, span: Duration, tick: Duration) -> Vec<Duration> {
        let (mut now, mut starts) = (from, Vec::new());
        while now < from + span {
            while pace.start(now) {
                starts.push(now - from);
            }
            now += tick;
        }
        starts
    }

    #[test]
    fn no_window_holds_more_than_the_rate_and_the_burst() {
        let from = Instant::now();
        for (rate, burst, tick_ms) in
            [("50/s", 1, 1), ("50/s", 1, 7), ("50/s", 10, 1), ("100/m", 1, 50), ("7/s", 3, 13)]
        {
            let rate = Rate::parse(rate).expect("a rate");
            let mut pace = Pace::new(rate, burst, None);
            let starts = starts(&mut pace, from, Duration::from_secs(60), Duration::from_millis(tick_ms));
            for window in [1, 10, 30] {
                let window = Duration::from_secs(window);
                let most =
                    (window.as_secs_f64() / rate.interval().as_secs_f64()).floor() as usize + burst as usize;
                for (n, &first) in starts.iter().enumerate() {
                    let inside = starts[n..].iter().take_while(|&&start| start <= first + window).count();
                    assert!(inside <= most, "{rate} burst {burst}: {inside} in {window:?}, {most} allowed");
                }
            }
        }
    }

    #[test]
    fn each_keeps_its_own_rate_where_one_account_has_two() {
        let folder = tempfile::tempdir().unwrap();
        let accounts =
            super::super::account::Accounts::at(folder.path(), |words| panic!("{words}"), || false);
        let book = || accounts.account("mx.example.com", 25, "me").book(&[]);
        let of = |count, seconds| Pace::new(Rate { count, per: Duration::from_secs(seconds) }, 1, book());
        let (mut slow, mut fast) = (of(20, 86_400), of(10, 1));
        let now = Instant::now();
        let later = |millis| now + Duration::from_millis(millis);
        assert!(slow.start(now));
        assert!(!fast.start(later(50)), "the account has started one just now");
        assert!(fast.start(later(110)), "and that is long ago by this rate");
        let mut slow = of(20, 86_400);
        assert!(!slow.start(later(60_000)), "what the other started counts");
        assert!(slow.wait(later(60_000)) > Some(later(71 * 60_000)), "{:?}", slow.wait(later(60_000)));
    }

    #[test]
    fn the_rate_is_used() {
        let mut pace = Pace::new(Rate::parse("50/s").expect("a rate"), 1, None);
        let started =
            starts(&mut pace, Instant::now(), Duration::from_secs(60), Duration::from_micros(100)).len();
        assert!((2950..=3000).contains(&started), "{started}");
    }

    #[test]
    fn what_may_start_soon_is_foretold() {
        let now = Instant::now();
        let mut pace = Pace::new(Rate::parse("10/s").expect("a rate"), 1, None);
        assert_eq!(pace.within(now, Duration::from_millis(250)), 3);
        assert!(pace.start(now) && !pace.start(now));
        assert_eq!(pace.within(now, Duration::from_millis(250)), 2);
        assert_eq!(pace.within(now, Duration::from_millis(50)), 0);
    }
}
