//! Patterns, the root rule, cached listings, and parts that are read, typed and encoded once.

pub mod part;
