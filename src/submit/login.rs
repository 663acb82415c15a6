//! Which login is tried, and the exchange behind it.

use std::time::{Duration, Instant};

use super::SubmitError;
use crate::diagnostic::with_causes;
use crate::job::{Auth, Credential, Mechanism};
use crate::letter::Answer;
use crate::net::token::{self, TokenError};
use crate::net::{self, Link};
use crate::secret::Secret;
use crate::wire::sasl::{self, Circumstances, Exchange, KeyMemory};
use crate::wire::smtp::Offers;

/// So long a login that succeeded shows that the next will.
const PROOF: Duration = Duration::from_secs(5);

/// What every login of a pool needs.
pub(super) struct Identity {
    auth: Auth,
    secret: Secret,
    /// Until when an access token is good; another is fetched then.
    until: Option<Instant>,
    /// Counts the secrets that were fetched.
    issue: u32,
    /// A login with this secret has succeeded.
    proven: bool,
    /// When the last login did.
    succeeded_at: Option<Instant>,
    /// No login was begun with it since it was fetched: it is not fetched again before, however short its life.
    fresh: bool,
    /// What the server said when it took the secret no longer, until another is there.
    doubted: Option<Answer>,
    /// The relay's host and port.
    server: (String, u16),
    keys: KeyMemory,
}

impl Identity {
    /// Fetches the secret of a login. An access token for a `spare` relay is got when it is needed: that its token
    /// server does not answer must not keep the relay before it from working.
    pub(super) fn fetch(auth: &Auth, server: (String, u16), spare: bool) -> Result<Identity, SubmitError> {
        let token::Access { secret, until } = match &auth.credential {
            Credential::Refresh(_) if spare => {
                token::Access { secret: Secret::new(""), until: Some(Instant::now()) }
            }
            _ => fetch(auth)?,
        };
        let (auth, keys) = (auth.clone(), KeyMemory::default());
        let (proven, fresh, doubted) = (false, false, None);
        let (issue, succeeded_at) = (0, None);
        Ok(Identity { auth, secret, until, issue, proven, succeeded_at, fresh, doubted, server, keys })
    }

    /// Whether an access token is to be fetched anew before another connection is made: its time is over, or the server
    /// no longer takes it.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.doubted.is_some() || (!self.fresh && self.until.is_some_and(|until| until <= now))
    }

    /// Whether the server no longer takes the secret, and another is not there yet.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// The server refused a login with the secret of that issue. Whether another connection is worth a try: a secret
    /// that worked may have been withdrawn, and another is asked for once. One that never worked is not tried again,
    /// for that locks accounts.
    pub(super) fn another_is_worth_a_try(&mut self, issue: u32, answer: &Answer) -> bool {
        if issue != self.issue || self.doubted.is_some() {
            return true;
        }
        let worth_it = self.auth.token && std::mem::take(&mut self.proven);
        self.doubted = worth_it.then(|| answer.clone());
        worth_it
    }

    /// A login with the secret of that issue succeeded.
    pub(super) fn succeeded(&mut self, issue: u32, now: Instant) {
        self.proven |= issue == self.issue;
        self.succeeded_at = Some(now);
    }

    /// Whether a login succeeded a moment ago.
    pub(super) fn has_just_succeeded(&self, now: Instant) -> bool {
        self.succeeded_at.is_some_and(|at| now.saturating_duration_since(at) < PROOF)
    }

    /// Which secret a login has now.
    pub(super) fn issue(&self) -> u32 {
        self.issue
    }

    /// Fetches the secret again, wherever that is done: it may take its time.
    pub(super) fn errand(&self) -> impl FnOnce() -> Result<token::Access, SubmitError> + Send + 'static {
        let auth = self.auth.clone();
        move || fetch(&auth)
    }

    /// The secret was fetched again. If the server did not take it before and it is the same: what it said.
    pub(super) fn fetched(&mut self, access: token::Access) -> Option<Answer> {
        let token::Access { secret, until } = access;
        let other = secret.expose() != self.secret.expose();
        (self.secret, self.until, self.fresh) = (secret, until, true);
        if other {
            self.issue += 1;
            self.proven = false;
        }
        self.doubted.take().filter(|_| !other)
    }

    /// The login name.
    pub(super) fn user(&self) -> &str {
        &self.auth.user
    }

    /// Begins a login by the strongest mechanism that both sides have and that the server has not `refused`; or says
    /// why there is none.
    pub(super) fn begin(
        &mut self,
        link: &Link,
        offers: &Offers,
        refused: &[Mechanism],
    ) -> Result<Exchange, String> {
        self.fresh = false;
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

fn fetch(auth: &Auth) -> Result<token::Access, SubmitError> {
    token::fetch(auth).map_err(|error| match (with_causes(&error), error) {
        (reason, TokenError::Credential(_)) => SubmitError::Credential { reason, refused: false },
        (reason, error) if error.may_pass() => SubmitError::NoToken { reason },
        (reason, _) => SubmitError::Credential { reason, refused: true },
    })
}
