//! `relay`: where letters are submitted, how, and how fast; what it shares with `mailbox` is here too.

use std::path::PathBuf;
use std::time::Duration;

use crate::measure::Rate;
use crate::secret::Secret;
pub use crate::wire::sasl::Mechanism;

/// A relay without mistakes.
#[derive(Debug, Clone)]
pub struct RelaySpec {
    /// `host`
    pub host: String,
    /// `port`: 587 with starttls, 465 with implicit, 25 with none.
    pub port: u16,
    /// The provider's name, by `provider` or by a host that is known as its: for hints.
    pub provider: Option<String>,
    /// `tls` and what belongs to it.
    pub tls: TlsSpec,
    /// `auth`
    pub auth: Option<Auth>,
    /// `connections`
    pub connections: usize,
    /// `messages_per_connection`
    pub messages_per_connection: Option<u32>,
    /// `rate`
    pub rate: Option<Rate>,
    /// `burst`
    pub burst: u32,
    /// `limits`
    pub limits: Vec<DomainLimit>,
    /// `retry`
    pub retry: Retry,
    /// `pipelining`
    pub pipelining: Pipelining,
    /// `doubt`: `None` is auto.
    pub doubt: Option<usize>,
    /// `unsure`
    pub unsure: Unsure,
    /// `helo`: the name we give; default the host's name or an address literal.
    pub helo: Option<String>,
    /// `timeouts`
    pub timeouts: Timeouts,
    /// `local_address`
    pub local_address: Option<std::net::IpAddr>,
    /// `proxy`: `socks5://host:port` or `http://host:port`.
    pub proxy: Option<String>,
    /// `fallback`: the relay tried when this one cannot be reached.
    pub fallback: Option<Box<RelaySpec>>,
    /// `stop_when`: what is refused when a run stops.
    pub stop_when: Option<StopWhen>,
    /// `dkim`
    pub dkim: Option<Dkim>,
}

/// `stop_when`
#[derive(Debug, Clone, PartialEq)]
pub struct StopWhen {
    /// `refused` and `after`: more than this fraction, after at least so many answers.
    pub refused: Option<(f64, u64)>,
    /// `code`: a recipient refused with one of these; `5.7.*` is all that begin so.
    pub codes: Vec<String>,
}

impl StopWhen {
    /// Whether one of the codes is that of an answer, as `550` or as `5.7.1`.
    pub fn names(&self, code: u16, enhanced: Option<&str>) -> bool {
        let code = code.to_string();
        self.codes.iter().any(|named| match named.strip_suffix('*') {
            Some(start) => enhanced.is_some_and(|enhanced| enhanced.starts_with(start)),
            None => *named == code || enhanced == Some(named),
        })
    }
}

/// `dkim`: what letters are signed with (RFC 6376).
#[derive(Debug, Clone)]
pub struct Dkim {
    /// `domain`: d=
    pub domain: String,
    /// `selector`: s=
    pub selector: String,
    /// `key`: a private key in PEM; with `{file:}` the whole file is the key.
    pub key: Credential,
}

/// `tls`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// STARTTLS, required.
    StartTls,
    /// From the first byte.
    Implicit,
    /// None.
    None,
}

/// TLS and what it verifies with.
#[derive(Debug, Clone)]
pub struct TlsSpec {
    /// How it begins.
    pub mode: TlsMode,
    /// `ca_file`: trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `client_cert` and `client_key`, PEM files.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// `tls_min: "1.3"`; otherwise 1.2.
    pub only_tls13: bool,
}

/// `auth`
#[derive(Debug, Clone)]
pub struct Auth {
    /// The login name.
    pub user: String,
    /// Where the password or token comes from.
    pub credential: Credential,
    /// It was given as `token:`, an OAuth 2.0 access token, not as `password:`.
    pub token: bool,
    /// `mechanism`: `None` takes the strongest that both sides have.
    pub mechanism: Option<Mechanism>,
}

/// Where a secret comes from. It is fetched when it is needed, not when the job is read.
#[derive(Debug, Clone)]
pub enum Credential {
    /// `{env: NAME}`
    Env(String),
    /// `{file: PATH}`: the first line.
    File(PathBuf),
    /// `{command: [argv…]}`: the first line of its output, within 10 s, no shell.
    Command(Vec<String>),
    /// A literal: a warning.
    Literal(Secret),
    /// `{refresh: {…}}` of a `token`: an access token is got for a refresh token.
    Refresh(Box<Refresh>),
}

/// `refresh`: how an OAuth 2.0 access token is got for a refresh token (RFC 6749 §6).
#[derive(Debug, Clone)]
pub struct Refresh {
    /// `url`: the provider's token server, https.
    pub url: String,
    /// `client_id`
    pub client_id: String,
    /// `client_secret`, where the provider gave one.
    pub client_secret: Option<Credential>,
    /// `refresh_token`
    pub refresh_token: Credential,
    /// `scope`
    pub scope: Option<String>,
    /// `ca_file`: trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// `limits`: a rate for a group of domains.
#[derive(Debug, Clone)]
pub struct DomainLimit {
    /// Domains, lower case; `*.example.com` names those below.
    pub domains: Vec<String>,
    /// Their rate together.
    pub rate: Option<Rate>,
    /// Their connections together.
    pub connections: Option<usize>,
}

impl DomainLimit {
    /// The place of a lower-case domain among these limits, counted from 1: the first that names it. 0: none does.
    pub fn place(limits: &[DomainLimit], domain: &str) -> usize {
        let names = |pattern: &String| match pattern.strip_prefix('*') {
            Some(below) => domain.ends_with(below),
            None => domain == pattern,
        };
        limits.iter().position(|limit| limit.domains.iter().any(names)).map_or(0, |place| place + 1)
    }
}

/// `retry`: how a deferred recipient is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// After the first deferral.
    pub first: Duration,
    /// Each further wait is this many times the last.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// How long a run waits for what is due.
    pub stay: Duration,
    /// After this long a deferred recipient has failed.
    pub give_up: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Retry {
            first: minutes(1),
            factor: 2.0,
            max: minutes(60),
            stay: minutes(15),
            give_up: minutes(24 * 60),
        }
    }
}

/// `pipelining`: how much of a dialogue one flight holds (DESIGN: the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pipelining {
    /// One command.
    Off,
    /// MAIL RCPT… DATA, then the content.
    Envelope,
    /// The content of this letter, then MAIL RCPT… DATA of the next.
    Message,
    /// RSET MAIL RCPT… BDAT LAST, several letters unanswered.
    Window,
    /// As far as the server allows.
    #[default]
    Auto,
}

/// `unsure`: what is done about a letter whose content was sent and whose reply never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unsure {
    /// It is named and held.
    #[default]
    Hold,
    /// It is sent again, the same bytes.
    Resend,
}

/// `timeouts` (RFC 5321 §4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS.
    pub connect: Duration,
    /// The greeting.
    pub greeting: Duration,
    /// Any command without its own.
    pub command: Duration,
    /// MAIL.
    pub mail: Duration,
    /// RCPT.
    pub rcpt: Duration,
    /// DATA, until 354.
    pub data: Duration,
    /// Between two successful writes of content.
    pub block: Duration,
    /// After the end of content.
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Timeouts {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            command: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
        }
    }
}
