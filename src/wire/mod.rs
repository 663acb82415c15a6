//! Protocol cores without socket or clock: line, smtp, pop3.

pub mod line;
pub mod pop3;
pub mod sasl;
pub mod smtp;
