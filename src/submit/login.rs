//! Which login is tried, and the exchange behind it.

use crate::job::{Auth, Credential, Mechanism};
use crate::secret::Secret;
use crate::wire::smtp::{Login, Offers};

use super::SubmitError;

/// Fetches the secret of a login.
pub(super) fn fetch(auth: &Auth) -> Result<Secret, SubmitError> {
    match &auth.credential {
        Credential::Literal(secret) => Ok(secret.clone()),
        Credential::Env(name) => std::env::var(name)
            .map(Secret::new)
            .map_err(|_| SubmitError::Credential { reason: format!("the variable {name} is not set") }),
        _ => Err(SubmitError::Credential { reason: "files and commands are not read yet".to_owned() }),
    }
}

/// The strongest mechanism that both sides have and that was not tried.
pub(super) fn choose(auth: &Auth, offers: &Offers, tried: &[Mechanism]) -> Option<Mechanism> {
    [(Mechanism::Plain, "PLAIN"), (Mechanism::Login, "LOGIN")]
        .into_iter()
        .filter(|(mechanism, _)| auth.mechanism.is_none_or(|wanted| wanted == *mechanism))
        .find(|(mechanism, name)| {
            !tried.contains(mechanism) && offers.auth.iter().any(|offered| offered == name)
        })
        .map(|(mechanism, _)| mechanism)
}

/// Begins an exchange.
pub(super) fn exchange(mechanism: Mechanism, auth: &Auth, secret: &Secret) -> Box<dyn Login> {
    let user = auth.user.clone();
    match mechanism {
        Mechanism::Login => Box::new(Words { steps: vec![secret.clone(), Secret::new(user)], plain: None }),
        _ => {
            let plain = Secret::new(format!("\0{user}\0{}", secret.expose()));
            Box::new(Words { steps: Vec::new(), plain: Some(plain) })
        }
    }
}

struct Words {
    steps: Vec<Secret>,
    plain: Option<Secret>,
}

impl Login for Words {
    fn mechanism(&self) -> &str {
        if self.plain.is_some() { "PLAIN" } else { "LOGIN" }
    }
    fn initial(&mut self) -> Option<Vec<u8>> {
        self.plain.as_ref().map(|plain| plain.expose().as_bytes().to_vec())
    }
    fn on_challenge(&mut self, _: &[u8]) -> Result<Vec<u8>, String> {
        let step = self.steps.pop().ok_or("one challenge too many")?;
        Ok(step.expose().as_bytes().to_vec())
    }
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}
