//! When a deferred recipient is tried again.

use std::time::Duration;

use crate::job::Retry;
use crate::letter::Answer;
use crate::submit::told_to_wait;

/// The longest wait a server's own words can ask for: beyond it they are not believed.
const LONGEST_HINT: Duration = Duration::from_secs(6 * 3600);

/// Unix milliseconds of the next attempt, after `attempts` attempts of which the last ended at
/// `now`. The wait grows by `factor` up to `max` and is spread by a fifth to either side, by
/// `seed`, so that a whole list that was deferred at once does not come back at once. A server
/// that names a longer wait is believed.
pub(super) fn next_attempt(retry: &Retry, attempts: u32, now: i64, seed: u64, answer: &Answer) -> i64 {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let wait = (retry.first.as_secs_f64() * retry.factor.powi(exponent)).min(retry.max.as_secs_f64());
    // Fibonacci hashing: neighbouring seeds land far apart.
    let spread = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1u64 << 24) as f64;
    let wait = wait * (0.8 + 0.4 * spread);
    let told = told_to_wait(answer).filter(|told| *told <= LONGEST_HINT).unwrap_or_default();
    now + ((wait * 1000.0) as i64).max(told.as_millis() as i64)
}

/// The longest wait there can be, in seconds.
pub(super) fn longest(retry: &Retry) -> i64 {
    ((retry.first.max(retry.max).as_secs_f64() * 1.2) as i64).max(LONGEST_HINT.as_secs() as i64) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_capped() {
        let retry = Retry::default();
        let wait = |attempts| (next_attempt(&retry, attempts, 0, 7, &said("")) / 1000) as f64;
        let (first, max) = (retry.first.as_secs_f64(), retry.max.as_secs_f64());
        for (attempts, expected) in
            [(1, first), (2, 2.0 * first), (3, 4.0 * first), (60, max), (u32::MAX, max)]
        {
            let wait = wait(attempts);
            assert!(
                wait >= expected * 0.79 && wait <= expected * 1.21,
                "{attempts}: {wait} beside {expected}"
            );
        }
    }

    fn said(text: &str) -> Answer {
        Answer { code: 450, enhanced: None, text: text.to_owned() }
    }

    #[test]
    fn a_server_that_names_a_wait_is_believed() {
        let retry = Retry::default();
        let usual = next_attempt(&retry, 1, 0, 1, &said("later"));
        for (words, expected) in [
            ("Greylisted, try again in 30 minutes", 1_800_000),
            ("deferred after DATA; please wait 1800 seconds", 1_800_000),
            ("greylisted for 3600s", 3_600_000),
            ("try again in 20 ms", usual),
            ("try again in 99999999999999999999 seconds", usual),
            ("try again in 2160 hours", usual),
            ("稍后再试", usual),
        ] {
            assert_eq!(next_attempt(&retry, 1, 0, 1, &said(words)), expected, "{words}");
        }
    }
}
