//! Protocol cores without socket or clock: line, words, smtp, pop3.

pub mod line;
pub mod pop3;
pub mod sasl;
pub mod smtp;
pub mod words;
