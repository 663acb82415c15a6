//! A relay and what is needed to reach it: the way, the login, the account that other processes use as well.

use super::SubmitError;
use super::account::{Account, Accounts, Berths};
use super::addresses::Addresses;
use super::growth::Growth;
use super::login::Identity;
use super::pace::Pace;
use crate::job::RelaySpec;
use crate::net::{Dialer, NetError};

/// A relay and the way to it.
pub(super) struct Relay {
    pub(super) spec: RelaySpec,
    pub(super) dialer: Dialer,
    pub(super) identity: Option<Identity>,
    /// host:port
    pub(super) name: String,
    pub(super) addresses: Addresses,
    pub(super) account: Account,
    pub(super) berths: Berths,
}

impl Relay {
    /// Looks up no name yet; a secret may be asked for. `spare`: it is used only when another relay fails.
    pub(super) fn new(spec: &RelaySpec, accounts: &Accounts, spare: bool) -> Result<Relay, SubmitError> {
        let name = format!("{}:{}", spec.host, spec.port);
        let trouble = |error: NetError| refused_by_net(&name, error);
        let dialer = Dialer::new(&spec.host, spec.port, &spec.tls, &spec.timeouts)
            .and_then(|dialer| dialer.proxy(spec.proxy.as_deref()))
            .map_err(trouble)?
            .local_address(spec.local_address);
        let server = (spec.host.clone(), spec.port);
        let identity = spec.auth.as_ref().map(|auth| Identity::fetch(auth, server, spare)).transpose()?;
        let account = accounts.of_relay(spec);
        let berths = account.berths(spec.connections.max(1));
        Ok(Relay {
            spec: spec.clone(),
            dialer,
            identity,
            name,
            addresses: Addresses::default(),
            account,
            berths,
        })
    }

    /// How the windows of its connections grow.
    pub(super) fn growth(&self) -> Growth {
        Growth::new(self.spec.doubt.map_or(usize::MAX, |doubt| doubt / self.spec.connections.max(1)))
    }

    /// The rate of its account, where the job gives one.
    pub(super) fn pace(&self) -> Option<Pace> {
        self.spec.rate.map(|rate| Pace::new(rate, self.spec.burst, self.account.book(&[])))
    }
}

/// What the net said, as an error of this room.
pub(super) fn refused_by_net(relay: &str, error: NetError) -> SubmitError {
    match error {
        // One that hangs up in the handshake may stand before another that is away.
        source if source.may_pass() => SubmitError::Connect { relay: relay.to_owned(), source },
        NetError::Tls { trouble, .. } => {
            SubmitError::Tls { relay: relay.to_owned(), reason: trouble.to_string() }
        }
        NetError::Injected { .. } => {
            SubmitError::Protocol { relay: relay.to_owned(), reason: error.to_string() }
        }
        source => SubmitError::Connect { relay: relay.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::TlsTrouble;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let tls = |trouble| NetError::Tls { to: "mx:25".to_owned(), trouble };
        for (error, passes) in [
            (tls(TlsTrouble::Closed), true),
            (tls(TlsTrouble::Untrusted), false),
            (tls(TlsTrouble::Expired { at: None }), false),
            (NetError::Proxy { proxy: "p:1080".to_owned(), reason: "502".to_owned() }, true),
            (NetError::Injected { to: "mx:25".to_owned(), bytes: 3 }, false),
        ] {
            let told = refused_by_net("mx:25", error);
            assert_eq!(matches!(told, SubmitError::Connect { .. }), passes, "{told}");
        }
    }
}
