//! Scenes: the real binary, a project in a folder of its own, a relay on loopback as a process of
//! its own, and what the relay and the exit code say afterwards. One file per subject.

#![allow(unreachable_pub)] // a test binary has no outside

mod certificates;
mod scene;
mod servers;

mod bad_input;
mod editions;
mod enclosed;
mod first_steps;
mod followups;
mod hard_times;
mod kept;
mod kills;
mod midway;
mod notified;
mod order;
mod paced;
mod postfix;
mod samples;
mod sandbox;
mod several;
mod spoken;
mod tending;
mod unbegun;
mod worst_day;
