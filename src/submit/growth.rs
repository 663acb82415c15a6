//! How many letters may be unanswered: twice what the path holds at the pace the relay keeps. So
//! the window grows while the pace grows, and is no larger than it pays: what is in flight beyond
//! pace times round trip only waits in the relay's queue, and is in doubt while it waits. A value
//! with the clock passed in.

use std::time::{Duration, Instant};

use crate::wire::smtp::Window;

/// Parcels in flight over a connection at first, and at least: enough to hide most round trips at once and to share
/// the cost of waking up, few enough to be in doubt.
const FIRST: usize = 16;
/// More than this has not paid on any path measured.
const MOST: usize = 128;
/// Octets in flight over a connection at first, and at most: some round trips of a fast line.
const FIRST_OCTETS: usize = 512 * 1024;
const MOST_OCTETS: usize = 4 * 1024 * 1024;
/// The best pace of so many rounds counts: a slow moment of the relay is no reason to slow down ourselves.
const ROUNDS: usize = 10;
/// The shortest round trip is forgotten after so many rounds to twice as many: paths change.
const GENERATION: u32 = 50;
/// A round is no shorter than this, so that a pace is measured and not a moment.
const ROUND: Duration = Duration::from_millis(10);

/// The window of every connection of a pool.
#[derive(Debug)]
pub(super) struct Growth {
    /// No more than this: a part of the doubt limit.
    most: usize,
    /// No more than this for now: a connection broke with letters in doubt.
    careful: usize,
    window: Window,
    began: Option<Instant>,
    letters: usize,
    octets: usize,
    /// Letters and octets a second and connection, of the last rounds.
    paces: [(f64, f64); ROUNDS],
    rounds: u32,
    trip: Option<Duration>,
    trip_before: Option<Duration>,
}

impl Growth {
    /// `most`: parcels in flight over a connection that the doubt limit allows.
    pub(super) fn new(most: usize) -> Growth {
        let most = most.clamp(1, MOST);
        Growth {
            most,
            careful: most,
            window: Window { parcels: FIRST.min(most), octets: FIRST_OCTETS },
            began: None,
            letters: 0,
            octets: 0,
            paces: [(0.0, 0.0); ROUNDS],
            rounds: 0,
            trip: None,
            trip_before: None,
        }
    }

    /// The window now.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// A letter of so many octets was answered so long after it was begun.
    pub(super) fn answered(&mut self, octets: usize, trip: Duration) {
        self.letters += 1;
        self.octets += octets;
        self.trip = Some(self.trip.map_or(trip, |least| least.min(trip)));
    }

    /// Some letters were answered, over so many connections. True if the window has changed.
    pub(super) fn turn(&mut self, connections: usize, now: Instant) -> bool {
        let Some(began) = self.began else {
            // What is answered first was begun before anybody looked at the clock.
            (self.began, self.letters, self.octets) = (Some(now), 0, 0);
            return false;
        };
        let Some(trip) = self.trip.into_iter().chain(self.trip_before).min() else { return false };
        let took = now.saturating_duration_since(began);
        if took < trip.max(ROUND) {
            return false;
        }
        let seconds = took.as_secs_f64() * connections.max(1) as f64;
        let pace = (self.letters as f64 / seconds, self.octets as f64 / seconds);
        (self.began, self.letters, self.octets) = (Some(now), 0, 0);
        // After a pause nothing was measured but the pause.
        if took > 4 * trip.max(ROUND) {
            return false;
        }
        self.paces[self.rounds as usize % ROUNDS] = pace;
        self.rounds = self.rounds.wrapping_add(1);
        if self.rounds.is_multiple_of(GENERATION) {
            self.trip_before = self.trip.take();
            self.careful = (self.careful * 2).min(self.most);
        }
        let best = |of: fn(&(f64, f64)) -> f64| self.paces.iter().map(of).fold(0.0, f64::max);
        let held = |pace: f64| (2.0 * pace * trip.as_secs_f64()).ceil() as usize;
        let before = self.window;
        self.window = Window {
            parcels: held(best(|pace| pace.0)).clamp(FIRST, MOST).min(self.careful),
            octets: held(best(|pace| pace.1)).clamp(FIRST_OCTETS, MOST_OCTETS),
        };
        self.window != before
    }

    /// A connection was lost with letters in doubt: for a while fewer are at stake.
    pub(super) fn lost(&mut self) {
        self.careful = (self.window.parcels / 2).max(1);
        self.window.parcels = self.careful;
        self.rounds = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path on which so many letters a second are the most, and a round trip takes so long, and now and then longer.
    fn settles_at(most_a_second: f64, round_trip_ms: u64) -> usize {
        let (mut growth, mut now) = (Growth::new(MOST), Instant::now());
        let round_trip = Duration::from_millis(round_trip_ms).as_secs_f64();
        for round in 0..400 {
            let window = growth.window().parcels;
            let trip = round_trip + 1.0 / most_a_second;
            let took = trip.max(window as f64 / most_a_second);
            let took = if round % 7 == 3 { took * 1.8 } else { took };
            now += Duration::from_secs_f64(took);
            (0..window).for_each(|_| growth.answered(1000, Duration::from_secs_f64(took)));
            // The first of a window waits for nobody.
            growth.answered(1000, Duration::from_secs_f64(trip));
            growth.turn(1, now);
        }
        growth.window().parcels
    }

    #[test]
    fn the_window_is_no_larger_than_it_pays() {
        for (most_a_second, round_trip_ms, expected) in [
            (1e9, 40, MOST..=MOST),
            (20_000.0, 0, FIRST..=FIRST),
            (600.0, 40, 40..=70),
            (300.0, 40, 20..=40),
            (5_000.0, 40, MOST..=MOST),
        ] {
            let settled = settles_at(most_a_second, round_trip_ms);
            assert!(expected.contains(&settled), "{most_a_second}/s over {round_trip_ms} ms: {settled}");
        }
    }

    #[test]
    fn doubt_is_a_limit_and_breaks_make_careful() {
        assert_eq!(Growth::new(4).window().parcels, 4);
        let mut growth = Growth::new(MOST);
        growth.lost();
        assert_eq!(growth.window().parcels, FIRST / 2);
        (0..10).for_each(|_| growth.lost());
        assert_eq!(growth.window().parcels, 1);
    }
}
