//! The engine: which letter is claimed, made, marked, handed over and settled, and when.
//!
//! [`core`] answers events with actions by a clock it is given; it opens nothing and waits for
//! nothing, so that thousands of runs with crashes at every step can be simulated. [`engine`] is
//! its shell: threads, channels and the real clock. What a reply means is `submit`'s affair, what
//! is durable is the `ledger`'s.

pub mod core;
mod engine;
mod retry;
#[cfg(test)]
mod simulation;

pub use engine::{Control, Ended, Engine, Maker, Progress, Trouble, Unmade};
