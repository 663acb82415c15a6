//! How fast letters may start: exact over any window, by the generic cell rate algorithm. Values
//! with the clock passed in.

use std::time::{Duration, Instant};

use crate::measure::Rate;

/// A start is counted here before the relay sees it. By this part the interval is stretched, so that a path that is
/// now slow, now quick does not make more starts of a second than were begun in it.
const SLACK: u32 = 256;

/// A rate kept exactly: `burst` letters at once, then one each interval.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    interval: Duration,
    /// How far ahead of time starts may run: `burst - 1` intervals.
    ahead: Duration,
    /// When the next letter would be due, had all come evenly (the theoretical arrival time).
    due: Option<Instant>,
}

impl Pace {
    /// A pace of this rate.
    pub(super) fn new(rate: Rate, burst: u32) -> Pace {
        let interval = rate.interval();
        let interval = interval + interval / SLACK;
        Pace { interval, ahead: interval * burst.max(1).saturating_sub(1), due: None }
    }

    /// When the next letter may start; `None`: now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let earliest = self.due?.checked_sub(self.ahead)?;
        (earliest > now).then_some(earliest)
    }

    /// A letter starts now.
    pub(super) fn start(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + self.interval);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts as fast as the pace allows, looking at the clock every `tick`.
    fn starts(pace: &mut Pace, from: Instant, span: Duration, tick: Duration) -> Vec<Duration> {
        let (mut now, mut starts) = (from, Vec::new());
        while now < from + span {
            while pace.wait(now).is_none() {
                pace.start(now);
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
            let mut pace = Pace::new(rate, burst);
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
    fn the_rate_is_used() {
        let mut pace = Pace::new(Rate::parse("50/s").expect("a rate"), 1);
        let started =
            starts(&mut pace, Instant::now(), Duration::from_secs(60), Duration::from_micros(100)).len();
        assert!((2950..=3000).contains(&started), "{started}");
    }

    #[test]
    fn what_may_start_soon_is_foretold() {
        let now = Instant::now();
        let mut pace = Pace::new(Rate::parse("10/s").expect("a rate"), 1);
        assert_eq!(pace.within(now, Duration::from_millis(250)), 3);
        pace.start(now);
        assert_eq!(pace.within(now, Duration::from_millis(250)), 2);
        assert_eq!(pace.within(now, Duration::from_millis(50)), 0);
    }
}
