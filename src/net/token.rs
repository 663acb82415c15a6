//! OAuth 2.0 access tokens: fetched as the job says, or by a refresh token (RFC 6749 §6), one POST
//! over HTTPS. ureq is used here and nowhere else.

use std::time::{Duration, Instant};

use rustls::crypto::ring as provider;
use serde_json::Value as Json;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::tls;
use crate::job::{Auth, Credential, CredentialError, Refresh};
use crate::mail::acts_on_terminals;
use crate::secret::Secret;

/// A token server that does not answer must not hang a run that nobody watches.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer with a token is some hundred octets.
const MAX_ANSWER: u64 = 64 << 10;
/// Access tokens that do not say how long they live mostly live an hour.
const LIFE: Duration = Duration::from_secs(50 * 60);
/// A token is not used to the last second of its life: the server's clock is not ours.
const MARGIN: Duration = Duration::from_secs(60);

/// A password, or an access token and how long it is good for.
#[derive(Debug, Clone)]
pub struct Access {
    /// What is given to the server.
    pub secret: Secret,
    /// Until when it may be used; passwords have no end.
    pub until: Option<Instant>,
}

/// Why there is no token. No secret is repeated.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It could not be had where the job says.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The token server cannot be asked.
    #[error("cannot ask {url} for an access token: {reason}")]
    Unreachable {
        /// The token server.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// It says no.
    #[error("{url} gives no access token: {status} {words}")]
    Refused {
        /// The token server.
        url: String,
        /// The status of HTTP.
        status: u16,
        /// Its words.
        words: String,
    },
}

impl TokenError {
    /// Whether trying again later, unchanged, may help. A token server that knows our refresh token no longer (RFC 6749
    /// §5.2) is not asked again and again.
    pub fn may_pass(&self) -> bool {
        match self {
            TokenError::Credential(_) | TokenError::Unreachable { .. } => true,
            TokenError::Refused { status, .. } => *status == 429 || *status >= 500,
        }
    }
}

/// Fetches what a login needs.
pub fn fetch(auth: &Auth) -> Result<Access, TokenError> {
    match &auth.credential {
        Credential::Refresh(refresh) => refreshed(refresh),
        credential => {
            let secret = credential.fetch()?;
            Ok(Access { secret, until: auth.token.then(|| Instant::now() + LIFE) })
        }
    }
}

fn refreshed(refresh: &Refresh) -> Result<Access, TokenError> {
    let token = refresh.refresh_token.fetch()?;
    let client_secret = refresh.client_secret.as_ref().map(Credential::fetch).transpose()?;
    let mut form = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", token.expose()),
        ("client_id", &refresh.client_id),
    ];
    form.extend(client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    form.extend(refresh.scope.as_deref().map(|scope| ("scope", scope)));
    let url = &refresh.url;
    let unreachable =
        |error: ureq::Error| TokenError::Unreachable { url: url.clone(), reason: error.to_string() };
    // From here on its life is counted: what the way takes is not ours.
    let asked = Instant::now();
    let agent = agent(refresh)?;
    let mut response =
        agent.post(url).header("Accept", "application/json").send_form(form).map_err(unreachable)?;
    let status = response.status();
    let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(unreachable)?;
    let answer: Json = serde_json::from_str(&answer).unwrap_or_default();
    let access = answer["access_token"].as_str().filter(|token| !token.is_empty());
    let Some(access) = access.filter(|_| status.is_success()) else {
        let said = ["error", "error_description"].into_iter().filter_map(|key| answer[key].as_str());
        let words = said.collect::<Vec<_>>().join(": ");
        let secrets = [Some(&token), client_secret.as_ref()];
        let words = secrets
            .into_iter()
            .flatten()
            .fold(words, |words, secret| words.replace(secret.expose(), "***"))
            .chars()
            .map(|c| if acts_on_terminals(c) { ' ' } else { c })
            .take(500)
            .collect();
        return Err(TokenError::Refused { url: url.clone(), status: status.as_u16(), words });
    };
    // Some servers write the number as text.
    let life = &answer["expires_in"];
    let life = life.as_u64().or_else(|| life.as_str()?.parse().ok()).map_or(LIFE, Duration::from_secs);
    let until = asked + life.min(Duration::from_secs(86_400)).saturating_sub(MARGIN.min(life / 2));
    Ok(Access { secret: Secret::new(access), until: Some(until) })
}

fn agent(refresh: &Refresh) -> Result<Agent, TokenError> {
    let roots = tls::trusted(refresh.ca_file.as_deref())
        .map_err(|error| TokenError::Unreachable { url: refresh.url.clone(), reason: error.to_string() })?;
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(provider::default_provider()))
        .build();
    let config = Agent::config_builder()
        .https_only(true)
        // A refresh token is for the server that the job names, and for none that it points to.
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .user_agent("postroom")
        .tls_config(tls)
        .build();
    Ok(Agent::new_with_config(config))
}
