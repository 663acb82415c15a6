//! Sockets, TLS and what goes over them. Everything that leaves this machine leaves through a [`Link`].
//!
//! A [`Dialer`] knows a server and how to reach it: addresses ([`resolve`]), a proxy ([`proxy`]),
//! what is verified ([`tls`]). Addresses [`Race`]. It gives a [`Link`], driven by readiness, for the pool of the SMTP
//! shell, or a [`BlockingLink`] with a timeout on each operation for the POP3 client and for the first
//! login. What the protocols say over a link is no affair of this room; [`transcript`] writes it down.

mod dial;
mod error;
mod link;
pub mod proxy;
pub mod resolve;
pub mod tls;
pub mod token;
pub mod transcript;

pub use dial::{Dialer, Race};
pub use error::{NetError, TlsTrouble};
pub use link::{BlockingLink, Link};

/// Chance for a login (RFC 5802 §5.1): 144 bits as 24 printable characters.
pub fn nonce() -> Result<String, NetError> {
    use base64::Engine;
    use ring::rand::SecureRandom;

    let mut bytes = [0; 18];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NetError::Setting("this system gives no random numbers".to_owned()))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}
