//! When a deferred recipient is tried again.

use crate::job::Retry;

/// The longest wait a server's own words can ask for: beyond it they are not believed.
const LONGEST_HINT: i64 = 6 * 3600;

/// Unix milliseconds of the next attempt, after `attempts` attempts of which the last ended at
/// `now`. The wait grows by `factor` up to `max` and is spread by a fifth to either side, by
/// `seed`, so that a whole list that was deferred at once does not come back at once. A server
/// that names a longer wait is believed.
pub(super) fn next_attempt(retry: &Retry, attempts: u32, now: i64, seed: u64, words: &str) -> i64 {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let wait = (retry.first.as_secs_f64() * retry.factor.powi(exponent)).min(retry.max.as_secs_f64());
    // Fibonacci hashing: neighbouring seeds land far apart.
    let spread = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1u64 << 24) as f64;
    let wait = wait * (0.8 + 0.4 * spread);
    let hint = wait_in_words(words).unwrap_or(0);
    now + ((wait * 1000.0) as i64).max(hint * 1000)
}

/// The longest wait there can be, in seconds.
pub(super) fn longest(retry: &Retry) -> i64 {
    ((retry.first.max(retry.max).as_secs_f64() * 1.2) as i64).max(LONGEST_HINT) + 1
}

/// The seconds in `try again in 300 seconds`, `retry after 5 minutes`, `please wait 60s`.
pub(super) fn wait_in_words(words: &str) -> Option<i64> {
    let lower = words.to_ascii_lowercase();
    let asks = ["again in", "retry in", "retry after", "after", "wait"];
    let start = asks.iter().find_map(|ask| lower.find(ask).map(|at| at + ask.len()))?;
    let rest = lower[start..].trim_start_matches([' ', ':', '=']);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number: i64 = rest[..digits].parse().ok()?;
    let unit = rest[digits..].trim_start();
    let seconds = match unit.as_bytes().first() {
        Some(b's') => number,
        Some(b'm') if !unit.starts_with("ms") => number.checked_mul(60)?,
        Some(b'h') => number.checked_mul(3600)?,
        _ => return None,
    };
    (1..=LONGEST_HINT).contains(&seconds).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_capped() {
        let retry = Retry::default();
        let wait = |attempts| (next_attempt(&retry, attempts, 0, 7, "") / 1000) as f64;
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

    #[test]
    fn a_server_that_names_a_wait_is_believed() {
        for (words, expected) in [
            ("Greylisted, try again in 300 seconds", Some(300)),
            ("please retry after 5 minutes", Some(300)),
            ("retry in 2 hours", Some(7200)),
            ("too fast, wait 10s", Some(10)),
            ("try again in 20 ms", None),
            ("try again later", None),
            ("try again in 99999999999999999999 seconds", None),
            ("try again in 90 days", None),
            ("稍后再试", None),
        ] {
            assert_eq!(wait_in_words(words), expected, "{words}");
        }
        assert!(next_attempt(&Retry::default(), 1, 0, 1, "try again in 30 minutes") >= 1_800_000);
    }
}
