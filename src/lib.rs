//! Postroom: a declarative batch mailer. This page is the walk through the house, in the
//! order a letter takes: what was asked (`job`), what will be done (`plan`), to whom
//! (`recipients`), with which files (`enclosures`), saying what (`render`), as which bytes
//! (`compose`), in which order and how often (`dispatch`), over which wire (`submit`), and
//! what became of it (`ledger`, `report`). The way back is shorter: `archive` pulls a
//! mailbox into files, `read` understands them.
//!
//! Stairs go one way. `run` knows every room; `dispatch` knows the ledger and the words of
//! `letter`; the crafts know `letter`, `mail` and what they stand on, not one another;
//! `wire` knows only `mail` and `secret`. `tests/house.rs` keeps it so.

/// The standard library's macro of this name panics where stderr is closed: a terminal that went away, a
/// pipe that nobody reads any more. What is said is no reason to end a run in its middle.
macro_rules! eprintln {
    ($($words:tt)*) => { say!(Note, $($words)*) };
}

/// Says a line that is meant so: `say!(Warning, "{damage}")`.
macro_rules! say {
    ($level:ident, $($words:tt)*) => { $crate::talk::say($crate::talk::Level::$level, &format!($($words)*)) };
}

pub mod cli;
pub mod run;

pub mod job;
pub mod plan;

pub mod recipients;

pub mod enclosures;

pub mod letter;

pub mod render;

pub mod compose;

pub mod dispatch;

pub mod submit;

pub mod ledger;

pub mod report;

pub mod archive;
pub mod read;

pub mod sandbox;

pub mod mail;
pub mod net;
pub mod wire;

pub mod database;
pub mod diagnostic;
pub mod exit;
pub mod failpoint;
pub mod measure;
pub mod secret;
pub mod talk;
