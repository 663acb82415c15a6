//! Named points at which a test may end the process as a power cut would: no destructor runs, no
//! buffer is flushed. They stand on both sides of every durable step.
//!
//! `POSTROOM_FAILPOINT=name` aborts when the point is reached for the first time, `name:7` the
//! seventh time. Without the variable a point costs one load of an atomic.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms one point.
pub const VARIABLE: &str = "POSTROOM_FAILPOINT";

/// The points inside the ledger, for a harness that tries each of them.
pub const LEDGER: &[&str] = &[
    "ledger.tables.before",
    "ledger.tables.after",
    "ledger.begin.before",
    "ledger.begin.after",
    "ledger.enlist.before",
    "ledger.enlist.begun",
    "ledger.enlist.after",
    "ledger.enlisted.before",
    "ledger.enlisted.after",
    "ledger.mark.before",
    "ledger.mark.after",
    "ledger.settle.before",
    "ledger.settle.after",
    "ledger.recover.before",
    "ledger.recover.after",
    "ledger.finish.before",
    "ledger.finish.after",
    "ledger.tidy.before",
    "ledger.tidy.after",
    "ledger.accept.before",
    "ledger.accept.after",
    "ledger.leave.before",
    "ledger.leave.after",
    "ledger.requeue.before",
    "ledger.requeue.after",
    "ledger.erase.before",
    "ledger.erase.after",
    "ledger.told.before",
    "ledger.told.after",
    "ledger.flag.before",
    "ledger.flag.after",
];

/// The points where letters are kept, with `keep: FOLDER`.
pub const KEPT: &[&str] = &["kept.place.before", "kept.place.after", "kept.sync.before", "kept.sync.after"];

/// The point that is armed, and how often it is still passed.
struct Armed {
    name: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Reaches the point `name`: aborts the process when the environment says so.
#[inline]
pub fn reach(name: &str) {
    if let Some(armed) = ARMED.get_or_init(from_environment)
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

fn from_environment() -> Option<Armed> {
    let wanted = std::env::var(VARIABLE).ok()?;
    let (name, nth) = parse(&wanted);
    Some(Armed { name: name.to_owned(), left: AtomicU64::new(nth) })
}

/// `name` or `name:nth`, counted from 1.
fn parse(wanted: &str) -> (&str, u64) {
    match wanted.rsplit_once(':') {
        Some((name, nth)) if nth.parse::<u64>().is_ok_and(|nth| nth > 0) => (name, nth.parse().unwrap_or(1)),
        _ => (wanted, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_point_is_named_with_its_turn() {
        for (wanted, expected) in [
            ("ledger.mark.before", ("ledger.mark.before", 1)),
            ("ledger.mark.after:7", ("ledger.mark.after", 7)),
            ("a:0", ("a:0", 1)),
            ("a:b", ("a:b", 1)),
        ] {
            assert_eq!(parse(wanted), expected, "{wanted}");
        }
    }
}
