//! Which login is tried, and the exchange behind it.

use super::SubmitError;
use crate::job::{Auth, Mechanism};
use crate::net::{self, Link};
use crate::secret::Secret;
use crate::wire::sasl::{self, Circumstances, Exchange, KeyMemory};
use crate::wire::smtp::Offers;

/// What every login of a pool needs.
pub(super) struct Identity {
    auth: Auth,
    secret: Secret,
    /// The relay's host and port.
    server: (String, u16),
    keys: KeyMemory,
}

impl Identity {
    /// Fetches the secret of a login.
    pub(super) fn fetch(auth: &Auth, server: (String, u16)) -> Result<Identity, SubmitError> {
        let secret =
            auth.credential.fetch().map_err(|error| SubmitError::Credential { reason: chain(&error) })?;
        Ok(Identity { auth: auth.clone(), secret, server, keys: KeyMemory::default() })
    }

    /// The login name.
    pub(super) fn user(&self) -> &str {
        &self.auth.user
    }

    /// Begins a login by the strongest mechanism that both sides have and that the server has not `refused`; or says
    /// why there is none.
    pub(super) fn begin(
        &self,
        link: &Link,
        offers: &Offers,
        refused: &[Mechanism],
    ) -> Result<Exchange, String> {
        let offered: Vec<&str> = offers.auth.iter().map(String::as_str).collect();
        let binding = link.channel_binding();
        let binding_offered = offered.contains(&Mechanism::ScramSha256Plus.name());
        let mechanism = sasl::choose(&Circumstances {
            offered: &offered,
            wanted: self.auth.mechanism,
            token: self.auth.token,
            protected: link.protected(),
            binding: binding.is_some(),
            refused,
        })
        .map_err(|nothing| nothing.to_string())?;
        let nonce = net::nonce().map_err(|error| error.to_string())?;
        let login = sasl::Login {
            user: self.auth.user.clone(),
            secret: self.secret.clone(),
            binding,
            binding_offered,
            nonce,
            server: self.server.clone(),
            keys: self.keys.clone(),
        };
        Exchange::new(mechanism, login).map_err(|error| error.to_string())
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
