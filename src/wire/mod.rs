//! Protocol cores without socket or clock: line, smtp, pop3.
pub mod pop3;
