//! How many letters may be unanswered: the window grows while the pace grows, and is no larger
//! than it pays. A value with the clock passed in.

use std::time::Instant;

use crate::wire::smtp::Window;

/// Parcels in flight over a connection at first. Enough to hide most round trips at once, few enough to be in doubt.
const FIRST: usize = 16;
/// More than this has not paid on any path measured.
const MOST: usize = 128;
/// Octets in flight over a connection at first, and at most: some round trips of a fast line.
const FIRST_OCTETS: usize = 512 * 1024;
const MOST_OCTETS: usize = 4 * 1024 * 1024;
/// A larger window pays if it brings this much.
const PAYS: f64 = 1.10;
/// Rounds after which it is tried anew whether more pays: the path may have changed.
const AGAIN: u32 = 200;

/// The window of every connection of a pool.
#[derive(Debug)]
pub(super) struct Growth {
    window: Window,
    /// No more than this: a part of the doubt limit.
    most: usize,
    /// Letters answered, ever, while the window was what held us back.
    round: Option<Round>,
    best: f64,
    rounds_since_best: u32,
    grown: bool,
}

#[derive(Debug)]
struct Round {
    began: Instant,
    answered: usize,
    of: usize,
}

impl Growth {
    pub(super) fn new(most: usize) -> Growth {
        let most = most.clamp(1, MOST);
        Growth {
            window: Window { parcels: FIRST.min(most), octets: FIRST_OCTETS },
            most,
            round: None,
            best: 0.0,
            rounds_since_best: 0,
            grown: false,
        }
    }

    /// The window now.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// So many letters were answered. `full` says whether more would have been on the wire had the window been
    /// larger; `in_flight` how many were. True if the window has changed.
    pub(super) fn answered(&mut self, letters: usize, full: bool, in_flight: usize, now: Instant) -> bool {
        if !full {
            self.round = None;
            return false;
        }
        let Some(round) = &mut self.round else {
            self.round = Some(Round { began: now, answered: 0, of: in_flight.max(1) });
            return false;
        };
        round.answered += letters;
        // A round is over when all that was on the wire at its beginning, and as much again, is answered.
        if round.answered < 2 * round.of {
            return false;
        }
        let took = now.saturating_duration_since(round.began).as_secs_f64().max(1e-6);
        let pace = round.answered as f64 / took;
        self.round = Some(Round { began: now, answered: 0, of: in_flight.max(1) });
        self.judge(pace)
    }

    /// A connection was lost with letters in doubt: the next ones shall be fewer.
    pub(super) fn lost(&mut self) {
        self.round = None;
        self.grown = false;
        self.best = 0.0;
        let parcels = (self.window.parcels / 2).max(FIRST.min(self.most) / 8).max(1);
        self.window = Window { parcels, octets: (self.window.octets / 2).max(FIRST_OCTETS / 8) };
    }

    fn judge(&mut self, pace: f64) -> bool {
        let before = self.window;
        self.rounds_since_best += 1;
        if pace > self.best * PAYS {
            self.best = pace;
            self.rounds_since_best = 0;
            self.resize(self.window.parcels * 2, self.window.octets * 2);
            self.grown = self.window != before;
        } else if self.grown {
            // The last step did not pay.
            self.grown = false;
            self.resize(self.window.parcels / 2, self.window.octets / 2);
        } else if self.rounds_since_best > AGAIN {
            self.rounds_since_best = 0;
            self.best = pace;
            self.resize(self.window.parcels * 2, self.window.octets * 2);
            self.grown = self.window != before;
        }
        self.window != before
    }

    fn resize(&mut self, parcels: usize, octets: usize) {
        self.window = Window {
            parcels: parcels.clamp(1, self.most),
            octets: octets.clamp(FIRST_OCTETS / 8, MOST_OCTETS),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A path on which so many letters a second are the most, and a round trip takes so long.
    fn settles_at(most_a_second: f64, round_trip_ms: u64) -> usize {
        let (mut growth, mut now) = (Growth::new(MOST), Instant::now());
        for _ in 0..100 {
            let window = growth.window().parcels;
            let round_trip = Duration::from_millis(round_trip_ms).as_secs_f64();
            now += Duration::from_secs_f64(round_trip.max(window as f64 / most_a_second));
            growth.answered(window, true, window, now);
        }
        growth.window().parcels
    }

    #[test]
    fn the_window_is_no_larger_than_it_pays() {
        for (most_a_second, round_trip_ms, expected) in
            [(1e9, 40, MOST), (20_000.0, 0, FIRST), (600.0, 40, 32), (300.0, 40, 16), (2_000.0, 40, 128)]
        {
            let settled = settles_at(most_a_second, round_trip_ms);
            assert_eq!(settled, expected, "{most_a_second}/s over {round_trip_ms} ms");
        }
    }

    #[test]
    fn what_the_engine_holds_back_is_no_reason_to_grow() {
        let (mut growth, mut now) = (Growth::new(MOST), Instant::now());
        for n in 1..100 {
            now += Duration::from_millis(100 / n);
            assert!(!growth.answered(16, false, 3, now));
        }
        assert_eq!(growth.window().parcels, FIRST);
        assert_eq!(Growth::new(4).window().parcels, 4);
    }
}
