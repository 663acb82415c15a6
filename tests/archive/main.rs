//! The archive against maildrops that behave, maildrops that do not, Dovecot, and power cuts.
//! Everything is on loopback.

mod commands;
mod deletion;
mod dovecot;
mod faults;
mod kills;
mod memory;
mod mending;
mod names;
mod order;
mod reading;
mod scene;
