//! The archive against maildrops that behave and maildrops that do not. Everything is on loopback.

mod faults;
mod scene;
