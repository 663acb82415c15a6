//! Protocol cores without socket or clock: line, smtp, pop3.
