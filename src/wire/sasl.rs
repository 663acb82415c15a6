//! The login (SASL, RFC 4422) as a value: what is said to a challenge. SMTP (RFC 4954) and POP3 (RFC
//! 5034) carry it alike, as base64 in lines.
//!
//! [`choose`] takes the strongest mechanism that both sides have and that may be used here; an
//! [`Exchange`] plays it. Chance (the nonce) and the TLS session (the channel binding) are arguments.
//! Nothing here waits, and nothing here can be printed that holds a secret.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use ring::{digest, hmac as ring_hmac, pbkdf2};

use crate::mail::acts_on_terminals;
use crate::secret::{MASK, Secret};

/// What was said in a login so far, to be hidden where a server repeats it: some repeat the whole line
/// that they did not understand.
#[derive(Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// A line of the login was said, in base64.
    pub fn said(&mut self, line: &str) {
        let line = line.trim();
        let clear = STANDARD.decode(line).ok().and_then(|clear| String::from_utf8(clear).ok());
        if let Some(clear) = clear {
            // The password is behind the last NUL (RFC 4616), a token behind `Bearer` (RFC 7628).
            let token = clear.split_once("Bearer ").map(|(_, token)| token.trim_end_matches('\x01'));
            let password = clear.rsplit('\0').next().unwrap_or_default();
            self.0.push(token.unwrap_or(password).to_owned());
        }
        self.0.push(line.to_owned());
        // A shorter one may stand within a longer one.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// A text of the server without them.
    pub fn hide<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut text = Cow::Borrowed(text);
        // One or two letters are in every text, and no secret.
        for secret in self.0.iter().filter(|secret| secret.len() > 2) {
            let found: Vec<usize> = memchr::memmem::find_iter(&text, secret.as_bytes()).collect();
            // From the end on, so that the places stay.
            for at in found.into_iter().rev() {
                text.to_mut().splice(at..at + secret.len(), MASK.bytes());
            }
        }
        text
    }
}

/// SASL mechanisms (RFC 4616, draft-murchison-sasl-login, 2195, 5802, 7677, 7628, XOAUTH2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// PLAIN
    Plain,
    /// LOGIN
    Login,
    /// CRAM-MD5
    CramMd5,
    /// SCRAM-SHA-1
    ScramSha1,
    /// SCRAM-SHA-256
    ScramSha256,
    /// SCRAM-SHA-256-PLUS
    ScramSha256Plus,
    /// XOAUTH2
    XOAuth2,
    /// OAUTHBEARER
    OAuthBearer,
}

impl Mechanism {
    /// All of them, the strongest first; those of passwords before those of tokens.
    ///
    /// CRAM-MD5 stands behind PLAIN, which is used under TLS only: it makes the server keep the password
    /// itself, and servers offer it for which it can never succeed (Cyrus SASL before PAM).
    pub const ALL: [Mechanism; 8] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::CramMd5,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of this name, in any case.
    pub fn named(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether it takes a token in place of a password.
    pub fn takes_token(self) -> bool {
        matches!(self, Mechanism::XOAuth2 | Mechanism::OAuthBearer)
    }

    /// Whether it gives the secret itself to whoever listens.
    pub fn shows_secret(self) -> bool {
        matches!(self, Mechanism::Plain | Mechanism::Login | Mechanism::XOAuth2 | Mechanism::OAuthBearer)
    }

    /// Whether the server speaks first, so that there is no initial response.
    fn server_first(self) -> bool {
        matches!(self, Mechanism::Login | Mechanism::CramMd5)
    }
}

/// What [`choose`] chooses by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// The mechanisms the server offers, as it names them.
    pub offered: &'a [&'a str],
    /// The one the job asks for.
    pub wanted: Option<Mechanism>,
    /// The secret is a token, not a password.
    pub token: bool,
    /// Nobody can listen: TLS, or loopback.
    pub protected: bool,
    /// There is a channel binding.
    pub binding: bool,
    /// Those the server has refused as such (504, 534). After a 535 nothing more is tried.
    pub refused: &'a [Mechanism],
}

/// Why no mechanism can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMechanism {
    /// The server offers no login at all.
    #[error("the server offers no login")]
    NoLogin,
    /// The server does not offer the one asked for.
    #[error("the server does not offer {}; it offers {offered}", .wanted.name())]
    NotOffered {
        /// Asked for.
        wanted: Mechanism,
        /// What there is.
        offered: String,
    },
    /// The server offers none that we have for this kind of secret.
    #[error("the server offers no login that we can use with a {}; it offers {offered}", if *.token { "token" } else { "password" })]
    NoneKnown {
        /// The secret is a token.
        token: bool,
        /// What there is.
        offered: String,
    },
    /// What is offered would give the secret to whoever listens.
    #[error("{} would send the secret in plain text, and this connection is not protected by TLS", .0.name())]
    Unprotected(Mechanism),
    /// This session has no channel binding.
    #[error("SCRAM-SHA-256-PLUS needs TLS with a channel binding, which this session does not have")]
    NoBinding,
    /// All that could be used were refused.
    #[error("the server refused every mechanism it offers that we can use")]
    AllRefused,
}

/// The strongest mechanism that both sides have and that may be used here. PLAIN, LOGIN and tokens are
/// never used where somebody could listen.
pub fn choose(given: &Circumstances<'_>) -> Result<Mechanism, NoMechanism> {
    if given.offered.is_empty() {
        return Err(NoMechanism::NoLogin);
    }
    let offers =
        |mechanism: Mechanism| given.offered.iter().any(|name| name.eq_ignore_ascii_case(mechanism.name()));
    let offered = || given.offered.join(" ");
    let exposed = |mechanism: Mechanism| mechanism.shows_secret() && !given.protected;
    if let Some(wanted) = given.wanted {
        return match wanted {
            wanted if !offers(wanted) => Err(NoMechanism::NotOffered { wanted, offered: offered() }),
            wanted if exposed(wanted) => Err(NoMechanism::Unprotected(wanted)),
            Mechanism::ScramSha256Plus if !given.binding => Err(NoMechanism::NoBinding),
            wanted if given.refused.contains(&wanted) => Err(NoMechanism::AllRefused),
            wanted => Ok(wanted),
        };
    }
    let known = Mechanism::ALL.into_iter().filter(|&mechanism| {
        offers(mechanism)
            && mechanism.takes_token() == given.token
            && (mechanism != Mechanism::ScramSha256Plus || given.binding)
    });
    let mut nothing = NoMechanism::NoneKnown { token: given.token, offered: offered() };
    for mechanism in known {
        if given.refused.contains(&mechanism) {
            nothing = NoMechanism::AllRefused;
        } else if exposed(mechanism) {
            nothing = NoMechanism::Unprotected(mechanism);
        } else {
            return Ok(mechanism);
        }
    }
    Err(nothing)
}

/// What ties a login to a TLS session (RFC 5929, RFC 9266), so that nobody in between can pass it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelBinding {
    /// `tls-exporter` or `tls-server-end-point`.
    pub kind: &'static str,
    /// The binding data.
    pub data: Vec<u8>,
}

/// Who logs in, and where.
#[derive(Debug, Clone)]
pub struct Login {
    /// The login name.
    pub user: String,
    /// The password or token.
    pub secret: Secret,
    /// What ties the login to this TLS session, where there is such.
    pub binding: Option<ChannelBinding>,
    /// The server offers a mechanism with channel binding. If it does and SCRAM is played without, that is
    /// our choice; if it does not and we could, the server is told, so that nobody in between can have
    /// struck it off the list (RFC 5802 §6).
    pub binding_offered: bool,
    /// Chance: printable ASCII without a comma, never used twice.
    pub nonce: String,
    /// The server's host and port, for OAUTHBEARER.
    pub server: (String, u16),
    /// Keys derived before, shared by the connections of a pool.
    pub keys: KeyMemory,
}

/// Why a login cannot go on. Nothing here quotes a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The server's words are not what the mechanism says.
    #[error("the server does not keep to {}: {reason}", .mechanism.name())]
    Protocol {
        /// Which mechanism.
        mechanism: Mechanism,
        /// What was wrong.
        reason: String,
    },
    /// The server does not know the password either: somebody else answers in its place.
    #[error("the server could not prove that it knows the password: this may not be the right server")]
    NotTheServer,
    /// The server refuses, in the words of the mechanism.
    #[error("the server refused the login: {0}")]
    Refused(String),
    /// The login name or secret cannot be said in this mechanism.
    #[error("the {0} cannot be sent: it {1}")]
    Unsayable(&'static str, &'static str),
}

/// A login being played: a challenge in, a response out.
///
/// SMTP and POP3 send [`Exchange::command`] after `AUTH`, and [`Exchange::answer`] to each `334` or `+`;
/// on the server's yes they ask [`Exchange::finish`] before they believe it, and on its no, whether
/// [`Exchange::trouble`] has words for it. All that is sent is secret, but for the mechanism's name.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    login: Login,
    stage: Stage,
    trouble: Option<String>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is said yet.
    Begun,
    /// Client first: the initial response is said. LOGIN: the name is.
    Opened,
    /// SCRAM: the proof is given, the server's is awaited: the signature of this by this key.
    Proved(ring_hmac::Key, String),
    /// Nothing more is to be said.
    Said,
}

impl Exchange {
    /// Begins a login. Fails where name or secret cannot be said.
    pub fn new(mechanism: Mechanism, login: Login) -> Result<Exchange, SaslError> {
        for (what, value) in [("login name", login.user.as_str()), ("secret", login.secret.expose())] {
            if value.contains('\0') {
                return Err(SaslError::Unsayable(what, "holds a NUL"));
            }
            if mechanism.takes_token() && value.contains('\x01') {
                return Err(SaslError::Unsayable(what, "holds a control character"));
            }
        }
        if mechanism.takes_token() && !login.secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SaslError::Unsayable("token", "holds what no bearer token has (RFC 6750)"));
        }
        Ok(Exchange { mechanism, login, stage: Stage::Begun, trouble: None })
    }

    /// Which mechanism it plays.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What follows `AUTH`: the name, and the initial response where there is one and it fits into
    /// `room` bytes (the rest of the command's line: SMTP 512, POP3 255, with `AUTH`, space and CRLF).
    /// Where it does not, or `room` is 0 because the server takes no initial response, it goes in two
    /// steps: the name, and the response to an empty challenge.
    pub fn command(&mut self, room: usize) -> String {
        let name = self.mechanism.name();
        match self.initial() {
            Some(response) => {
                let response = encode_initial(&response);
                match name.len() + 1 + response.len() <= room {
                    true => {
                        self.stage = self.after_initial();
                        format!("{name} {response}")
                    }
                    false => name.to_owned(),
                }
            }
            None => name.to_owned(),
        }
    }

    /// The initial response; `None` where the server speaks first.
    pub fn initial(&self) -> Option<Vec<u8>> {
        let Login { user, secret, server: (host, port), .. } = &self.login;
        let secret = secret.expose();
        Some(match self.mechanism {
            mechanism if mechanism.server_first() => return None,
            Mechanism::Plain => format!("\0{user}\0{secret}").into_bytes(),
            Mechanism::XOAuth2 => format!("user={user}\x01auth=Bearer {secret}\x01\x01").into_bytes(),
            Mechanism::OAuthBearer => {
                let user = escaped(user);
                format!("n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer {secret}\x01\x01")
                    .into_bytes()
            }
            _ => format!("{}{}", self.gs2_header(), self.client_first_bare()).into_bytes(),
        })
    }

    /// Answers a challenge, both in base64, as they stand in the line after `334` or `+`.
    pub fn answer(&mut self, challenge: &str) -> Result<String, SaslError> {
        let challenge = self.decoded(challenge)?;
        self.on_challenge(&challenge).map(|response| STANDARD.encode(response))
    }

    /// Answers a challenge.
    pub fn on_challenge(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Said);
        let (response, next) = match (stage, self.mechanism) {
            // The two-step form: the prompt may say what it likes, mostly it says nothing.
            (Stage::Begun, mechanism) if !mechanism.server_first() => {
                (self.initial().unwrap_or_default(), self.after_initial())
            }
            // The prompts are for people; their order is all that is certain.
            (Stage::Begun, Mechanism::Login) => (self.login.user.as_bytes().to_vec(), Stage::Opened),
            (Stage::Opened, Mechanism::Login) => {
                (self.login.secret.expose().as_bytes().to_vec(), Stage::Said)
            }
            (Stage::Begun, Mechanism::CramMd5) => (self.cram_md5(challenge), Stage::Said),
            (Stage::Opened, Mechanism::XOAuth2) => (self.token_refused(challenge, b""), Stage::Said),
            (Stage::Opened, Mechanism::OAuthBearer) => (self.token_refused(challenge, b"\x01"), Stage::Said),
            (Stage::Opened, Mechanism::ScramSha1 | Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => {
                self.scram_final(challenge)?
            }
            (Stage::Proved(key, message), _) => {
                self.check_server(challenge, &key, &message)?;
                (Vec::new(), Stage::Said)
            }
            (Stage::Begun | Stage::Opened | Stage::Said, _) => {
                return Err(self.broken("it asks for more than there is to say"));
            }
        };
        self.stage = next;
        Ok(response)
    }

    /// The server said yes; `data` is what came with it in base64, if the protocol carries such (neither
    /// SMTP nor POP3 does). The yes counts only if the server has proved what it had to.
    pub fn finish(&mut self, data: Option<&str>) -> Result<(), SaslError> {
        match (std::mem::replace(&mut self.stage, Stage::Said), data) {
            (Stage::Proved(key, message), Some(data)) => {
                let data = self.decoded(data)?;
                self.check_server(&data, &key, &message)
            }
            (Stage::Proved(..), None) => Err(SaslError::NotTheServer),
            (Stage::Begun | Stage::Opened, _) if self.is_scram() => Err(SaslError::NotTheServer),
            (_, _) => Ok(()),
        }
    }

    /// What the server said about the login in the mechanism's own words, before its final no: the error
    /// of XOAUTH2 and OAUTHBEARER.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn after_initial(&self) -> Stage {
        match self.mechanism {
            Mechanism::Plain => Stage::Said,
            _ => Stage::Opened,
        }
    }

    fn is_scram(&self) -> bool {
        matches!(self.mechanism, Mechanism::ScramSha1 | Mechanism::ScramSha256 | Mechanism::ScramSha256Plus)
    }

    fn broken(&self, reason: impl Into<String>) -> SaslError {
        SaslError::Protocol { mechanism: self.mechanism, reason: reason.into() }
    }

    fn decoded(&self, line: &str) -> Result<Vec<u8>, SaslError> {
        // `=` is how an empty response is written; some write an empty challenge so.
        match line.trim() {
            "=" => Ok(Vec::new()),
            line => STANDARD.decode(line).map_err(|_| self.broken("its challenge is no base64")),
        }
    }

    /// RFC 2195 §2.
    fn cram_md5(&self, challenge: &[u8]) -> Vec<u8> {
        // HMAC takes a key of any length: `new_from_slice` cannot fail for it.
        let key = self.login.secret.expose().as_bytes();
        let Ok(mut mac) = Hmac::<md5::Md5>::new_from_slice(key) else { return Vec::new() };
        mac.update(challenge);
        let mut response = format!("{} ", self.login.user);
        for byte in mac.finalize().into_bytes() {
            response.push_str(&format!("{byte:02x}"));
        }
        response.into_bytes()
    }

    /// RFC 7628 §3.2.2 and its elder: the server says why as JSON and waits for a meaningless answer before
    /// it says no.
    fn token_refused(&mut self, challenge: &[u8], answer: &[u8]) -> Vec<u8> {
        // A server that quotes the token must not bring it into a log.
        let challenge = String::from_utf8_lossy(challenge).replace(self.login.secret.expose(), "[secret]");
        self.trouble = Some(refusal_words(&challenge));
        answer.to_vec()
    }

    /// RFC 5802 §7: what may be in between has to be named.
    fn gs2_header(&self) -> String {
        match (self.mechanism, &self.login.binding) {
            (Mechanism::ScramSha256Plus, Some(binding)) => format!("p={},,", binding.kind),
            (_, Some(_)) if !self.login.binding_offered => "y,,".to_owned(),
            _ => "n,,".to_owned(),
        }
    }

    fn client_first_bare(&self) -> String {
        format!("n={},r={}", escaped(&prepared(&self.login.user)), self.login.nonce)
    }

    /// RFC 5802 §3: server-first in, client-final out.
    fn scram_final(&mut self, server_first: &[u8]) -> Result<(Vec<u8>, Stage), SaslError> {
        let server_first =
            std::str::from_utf8(server_first).map_err(|_| self.broken("its challenge is no UTF-8"))?;
        let mut fields = server_first.split(',');
        let mut field =
            |name: &str| fields.next().and_then(|field| field.strip_prefix(name)?.strip_prefix('='));
        let nonce = field("r");
        let (salt, iterations) = (field("s"), field("i"));
        if server_first.starts_with("m=") {
            return Err(self.broken("it demands an extension that we do not have"));
        }
        let (Some(nonce), Some(salt), Some(iterations)) = (nonce, salt, iterations) else {
            return Err(self.broken("its challenge lacks nonce, salt or iteration count"));
        };
        if !nonce.starts_with(&self.login.nonce) || nonce.len() == self.login.nonce.len() {
            return Err(self.broken("its nonce does not go on from ours"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| self.broken("its salt is no base64"))?;
        let iterations = iterations
            .parse::<u32>()
            .ok()
            .filter(|count| ITERATIONS.contains(count))
            .and_then(NonZeroU32::new)
            .ok_or_else(|| {
                self.broken(format!(
                    "its iteration count is not between {} and {}",
                    ITERATIONS.start(),
                    ITERATIONS.end()
                ))
            })?;

        let mut bound = self.gs2_header().into_bytes();
        if let (Mechanism::ScramSha256Plus, Some(binding)) = (self.mechanism, &self.login.binding) {
            bound.extend_from_slice(&binding.data);
        }
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        let auth_message = format!("{},{server_first},{without_proof}", self.client_first_bare());

        let hash = self.hash();
        let salted = self.login.keys.salted(self.mechanism, &self.login.secret, &salt, iterations);
        let client_key = hash.mac(&salted, b"Client Key");
        let stored_key = digest::digest(hash.digest, &client_key);
        let signature = hash.mac(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, sign)| key ^ sign).collect();
        let server_key = ring_hmac::Key::new(hash.hmac, &hash.mac(&salted, b"Server Key"));
        let response = format!("{without_proof},p={}", STANDARD.encode(proof));
        Ok((response.into_bytes(), Stage::Proved(server_key, auth_message)))
    }

    /// The server proves that it knows the password too (RFC 5802 §3).
    fn check_server(
        &self,
        server_final: &[u8],
        key: &ring_hmac::Key,
        message: &str,
    ) -> Result<(), SaslError> {
        let words = String::from_utf8_lossy(server_final);
        let first = words.split(',').next().unwrap_or_default();
        if let Some(reason) = first.strip_prefix("e=") {
            return Err(SaslError::Refused(shown(&reason.replace('-', " "))));
        }
        let signature = first
            .strip_prefix("v=")
            .and_then(|signature| STANDARD.decode(signature).ok())
            .ok_or_else(|| self.broken("its last word holds no signature"))?;
        ring_hmac::verify(key, message.as_bytes(), &signature).map_err(|_| SaslError::NotTheServer)
    }

    fn hash(&self) -> Hash {
        Hash::of(self.mechanism)
    }
}

/// Less than 4096 helps whoever stole the exchange to guess (RFC 7677 §4); more than ten million keep us
/// busy for seconds: no server asks for that, an attacker may.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=10_000_000;

/// The hash of a SCRAM mechanism, in ring's three guises.
struct Hash {
    digest: &'static digest::Algorithm,
    hmac: ring_hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

impl Hash {
    fn of(mechanism: Mechanism) -> Hash {
        match mechanism {
            Mechanism::ScramSha1 => Hash {
                digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
                hmac: ring_hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA1,
            },
            _ => Hash {
                digest: &digest::SHA256,
                hmac: ring_hmac::HMAC_SHA256,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
            },
        }
    }

    fn mac(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        ring_hmac::sign(&ring_hmac::Key::new(self.hmac, key), message).as_ref().to_vec()
    }
}

/// The key derived last (RFC 5802 §3, SaltedPassword). Deriving one is made slow on purpose, and a server
/// asks for the same one each time: with this the connections of a pool derive it once, not each anew.
#[derive(Clone, Default)]
pub struct KeyMemory(Arc<Mutex<Option<Derived>>>);

struct Derived {
    mechanism: Mechanism,
    secret: Secret,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    key: Vec<u8>,
}

impl KeyMemory {
    fn salted(&self, mechanism: Mechanism, secret: &Secret, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(derived) = memory.as_ref()
            && (derived.mechanism, derived.iterations) == (mechanism, iterations)
            && (derived.salt.as_slice(), &derived.secret) == (salt, secret)
        {
            return derived.key.clone();
        }
        let hash = Hash::of(mechanism);
        let mut key = vec![0; hash.digest.output_len()];
        pbkdf2::derive(hash.pbkdf2, iterations, salt, prepared(secret.expose()).as_bytes(), &mut key);
        *memory = Some(Derived {
            mechanism,
            secret: secret.clone(),
            salt: salt.to_vec(),
            iterations,
            key: key.clone(),
        });
        key
    }
}

impl std::fmt::Debug for KeyMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyMemory(..)")
    }
}

/// SASLprep (RFC 4013). What it forbids goes as it stands, as PostgreSQL does: the server will have kept
/// it so, and code points younger than Unicode 3.2 are not the user's mistake.
fn prepared(text: &str) -> String {
    stringprep::saslprep(text).map_or_else(|_| text.to_owned(), |prepared| prepared.into_owned())
}

/// RFC 5802 §5.1, `saslname`.
fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// RFC 4954 §4: an empty initial response is written as `=`.
fn encode_initial(response: &[u8]) -> String {
    match response {
        [] => "=".to_owned(),
        response => STANDARD.encode(response),
    }
}

/// What a server's error object says, in plain words.
fn refusal_words(json: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        status: Option<serde_json::Value>,
        scope: Option<String>,
        error: Option<String>,
        error_description: Option<String>,
    }
    let Ok(refusal) = serde_json::from_str::<Refusal>(json) else {
        return match json.trim() {
            "" => "the token was refused without a reason".to_owned(),
            other => format!("the token was refused: {}", shown(other)),
        };
    };
    let status = refusal.status.map(|status| match status {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    });
    let mut words = match status.as_deref() {
        Some("invalid_token" | "401") => {
            "the token is not valid: it may have expired or been withdrawn".to_owned()
        }
        Some("400") => {
            "the token is not valid for this login: it may have expired or belong to another user".to_owned()
        }
        Some("insufficient_scope" | "403") => "the token does not allow this".to_owned(),
        _ => "the token was refused".to_owned(),
    };
    let details: Vec<String> = [
        status.map(|status| format!("status {status}")),
        refusal.error,
        refusal.error_description,
        refusal.scope.map(|scope| format!("needed scope {scope}")),
    ]
    .into_iter()
    .flatten()
    .map(|detail| shown(&detail))
    .collect();
    if !details.is_empty() {
        words.push_str(&format!(" ({})", details.join("; ")));
    }
    words
}

/// A server's words, short and without what could act on a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|sign| !acts_on_terminals(*sign)).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, secret: &str, nonce: &str) -> Login {
        Login {
            user: user.to_owned(),
            secret: Secret::new(secret),
            binding: None,
            binding_offered: false,
            nonce: nonce.to_owned(),
            server: ("server.example.com".to_owned(), 587),
            keys: KeyMemory::default(),
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// RFC 5802 §5 and RFC 7677 §3: challenge by challenge.
    #[test]
    fn what_a_server_repeats_of_a_login_is_hidden() {
        let bearer = "n,a=user@example.com,\x01host=x\x01auth=Bearer ya29.token\x01\x01";
        for (clear, secret) in [("\0joe\0s3cret", "s3cret"), ("s3cret", "s3cret"), (bearer, "ya29.token")] {
            let mut secrets = Secrets::default();
            let line = STANDARD.encode(clear);
            secrets.said(&format!(" {line}\r\n"));
            let text = format!("5.5.1 Command unrecognized: \"AUTH PLAIN {line}\", {secret} of joe");
            let hidden = "5.5.1 Command unrecognized: \"AUTH PLAIN [secret]\", [secret] of joe";
            assert_eq!(secrets.hide(text.as_bytes()), hidden.as_bytes(), "{clear}");
        }
        assert_eq!(&*Secrets::default().hide(b"250 ok"), b"250 ok");
        // A secret that is a part of the mask does not go round for ever.
        let mut secrets = Secrets::default();
        secrets.said("secret");
        assert_eq!(&*secrets.hide(b"-ERR secret secret"), b"-ERR [secret] [secret]");
    }

    #[test]
    fn scram_plays_the_published_vectors() {
        for (mechanism, nonce, first, challenge, response, last) in [
            (
                Mechanism::ScramSha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Mechanism::ScramSha256,
                "rOprNGfwEbeRWgbNEkqO",
                "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                 p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ] {
            let begin = || Exchange::new(mechanism, login("user", "pencil", nonce)).unwrap();
            let mut exchange = begin();
            assert_eq!(exchange.command(512), format!("{} {}", mechanism.name(), STANDARD.encode(first)));
            assert_eq!(text(&exchange.on_challenge(challenge.as_bytes()).unwrap()), response);
            assert_eq!(exchange.on_challenge(last.as_bytes()), Ok(Vec::new()));
            assert_eq!(exchange.finish(None), Ok(()));

            // The two-step form, and the signature beside the yes.
            let mut exchange = begin();
            assert_eq!(exchange.command(0), mechanism.name());
            assert_eq!(exchange.answer("").unwrap(), STANDARD.encode(first));
            assert_eq!(exchange.answer(&STANDARD.encode(challenge)).unwrap(), STANDARD.encode(response));
            assert_eq!(exchange.finish(Some(&STANDARD.encode(last))), Ok(()));

            // A yes without proof, with a wrong one, and too early, is nobody's.
            for (challenges, data) in
                [(vec![challenge], None), (vec![challenge], Some(STANDARD.encode("v=AAAA"))), (vec![], None)]
            {
                let mut exchange = begin();
                exchange.command(512);
                for challenge in challenges {
                    exchange.on_challenge(challenge.as_bytes()).unwrap();
                }
                assert_eq!(exchange.finish(data.as_deref()), Err(SaslError::NotTheServer));
            }
        }
    }

    #[test]
    fn a_server_that_does_not_keep_to_scram_is_refused() {
        for (challenge, expected) in [
            ("r=other,s=QSXCR+Q6sek8bf92,i=4096", "its nonce does not go on from ours"),
            ("r=ours,s=QSXCR+Q6sek8bf92,i=4096", "its nonce does not go on from ours"),
            ("r=oursandtheirs,s=????,i=4096", "its salt is no base64"),
            (
                "r=oursandtheirs,s=QSXCR+Q6sek8bf92,i=1",
                "its iteration count is not between 4096 and 10000000",
            ),
            (
                "r=oursandtheirs,s=QSXCR+Q6sek8bf92,i=4294967295",
                "its iteration count is not between 4096 and 10000000",
            ),
            (
                "r=oursandtheirs,s=QSXCR+Q6sek8bf92,i=-5",
                "its iteration count is not between 4096 and 10000000",
            ),
            ("s=QSXCR+Q6sek8bf92,i=4096", "its challenge lacks nonce, salt or iteration count"),
            (
                "m=new,r=oursandtheirs,s=QSXCR+Q6sek8bf92,i=4096",
                "it demands an extension that we do not have",
            ),
            ("", "its challenge lacks nonce, salt or iteration count"),
        ] {
            let mut exchange =
                Exchange::new(Mechanism::ScramSha256, login("user", "pencil", "ours")).unwrap();
            exchange.command(512);
            assert_eq!(
                exchange.on_challenge(challenge.as_bytes()),
                Err(SaslError::Protocol { mechanism: Mechanism::ScramSha256, reason: expected.to_owned() }),
                "{challenge}"
            );
        }
        let mut exchange = Exchange::new(Mechanism::ScramSha1, login("user", "pencil", "ours")).unwrap();
        exchange.command(512);
        exchange.on_challenge(b"r=oursandtheirs,s=QSXCR+Q6sek8bf92,i=4096").unwrap();
        assert_eq!(
            exchange.on_challenge(b"e=invalid-proof"),
            Err(SaslError::Refused("invalid proof".to_owned()))
        );
    }

    #[test]
    fn scram_names_the_channel_and_escapes_the_user() {
        let binding = || Some(ChannelBinding { kind: "tls-exporter", data: b"\x01\x02".to_vec() });
        for (mechanism, binding, binding_offered, header) in [
            (Mechanism::ScramSha256Plus, binding(), true, "p=tls-exporter,,"),
            (Mechanism::ScramSha256, binding(), false, "y,,"),
            (Mechanism::ScramSha256, binding(), true, "n,,"),
            (Mechanism::ScramSha256, None, true, "n,,"),
        ] {
            let login = Login { binding, binding_offered, ..login("a,b=c\u{ad}", "p", "N") };
            let mut exchange = Exchange::new(mechanism, login).unwrap();
            // The soft hyphen is mapped to nothing by SASLprep.
            assert_eq!(text(&exchange.initial().unwrap()), format!("{header}n=a=2Cb=3Dc,r=N"));
            exchange.command(512);
            let response = text(&exchange.on_challenge(b"r=NM,s=QSXCR+Q6sek8bf92,i=4096").unwrap());
            let bound = match mechanism {
                Mechanism::ScramSha256Plus => [header.as_bytes(), b"\x01\x02"].concat(),
                _ => header.as_bytes().to_vec(),
            };
            assert!(response.starts_with(&format!("c={},r=NM,p=", STANDARD.encode(bound))), "{response}");
        }
    }

    /// RFC 4616 §4, RFC 2195 §2, and the rest as deployed.
    #[test]
    fn the_simple_ones_say_what_is_written() {
        let mut plain = Exchange::new(Mechanism::Plain, login("tim", "tanstaaftanstaaf", "")).unwrap();
        assert_eq!(plain.command(512), "PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert!(plain.answer("").is_err(), "there is no more to say");
        assert_eq!(plain.finish(None), Ok(()));

        let mut cram = Exchange::new(Mechanism::CramMd5, login("tim", "tanstaaftanstaaf", "")).unwrap();
        assert_eq!(cram.command(512), "CRAM-MD5");
        assert_eq!(
            text(&cram.on_challenge(b"<1896.697170952@postoffice.reston.mci.net>").unwrap()),
            "tim b913a602c7eda7a495b4e6e7334d3890"
        );

        let mut login_ = Exchange::new(Mechanism::Login, login("tim", "tanstaaf", "")).unwrap();
        assert_eq!(login_.command(512), "LOGIN");
        assert_eq!(login_.answer("VXNlcm5hbWU6").unwrap(), "dGlt");
        assert_eq!(login_.answer("UGFzc3dvcmQ6").unwrap(), "dGFuc3RhYWY=");
        assert!(login_.answer("").is_err(), "there is no more to say");
    }

    /// RFC 7628 §4.1 and §4.3, and XOAUTH2 as its inventors describe it.
    #[test]
    fn tokens_are_borne_and_their_refusal_is_told() {
        let token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
        let user = "user@example.com";
        let mut bearer = Exchange::new(Mechanism::OAuthBearer, login(user, token, "")).unwrap();
        assert_eq!(
            text(&bearer.initial().unwrap()),
            format!(
                "n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer {token}\x01\x01"
            )
        );
        let mut old = Exchange::new(Mechanism::XOAuth2, login(user, token, "")).unwrap();
        assert_eq!(
            old.command(512),
            format!(
                "XOAUTH2 {}",
                STANDARD.encode(format!("user=user@example.com\x01auth=Bearer {token}\x01\x01"))
            )
        );
        bearer.command(512);
        assert_eq!(
            bearer.on_challenge(
                br#"{"status":"invalid_token","scope":"example_scope","openid-configuration":"https://example.com/"}"#
            ),
            Ok(b"\x01".to_vec())
        );
        assert_eq!(
            bearer.trouble(),
            Some(
                "the token is not valid: it may have expired or been withdrawn (status invalid_token; needed scope \
                 example_scope)"
            )
        );
        // Gmail's answer to a stale token.
        let challenge = "eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJodHRwczovL21haWwuZ29vZ2xlLmNvbS8ifQ==";
        assert_eq!(old.answer(challenge).unwrap(), "");
        assert_eq!(
            old.trouble(),
            Some(
                "the token is not valid for this login: it may have expired or belong to another user (status 400; \
                 needed scope https://mail.google.com/)"
            )
        );
        // The two-step form, where the token does not fit into the command.
        let long = "x".repeat(2000);
        let mut two = Exchange::new(Mechanism::XOAuth2, login(user, &long, "")).unwrap();
        assert_eq!(two.command(500), "XOAUTH2");
        assert!(two.answer("").unwrap().len() > 2000);
        two.on_challenge(format!("we do not know {long}").as_bytes()).unwrap();
        assert!(!two.trouble().unwrap().contains("xx"));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for (mechanism, user, secret) in [
            (Mechanism::Plain, "a\0b", "p"),
            (Mechanism::Plain, "a", "p\0q"),
            (Mechanism::XOAuth2, "a\x01auth=Bearer evil", "p"),
            (Mechanism::OAuthBearer, "a", "to ken"),
        ] {
            assert!(matches!(
                Exchange::new(mechanism, login(user, secret, "")),
                Err(SaslError::Unsayable(..))
            ));
        }
        let shown = format!("{:?}", Exchange::new(Mechanism::Plain, login("a", "hunter2", "")));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_strongest_that_both_have_is_chosen() {
        use Mechanism::*;
        let all =
            ["PLAIN", "LOGIN", "cram-md5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "XOAUTH2"];
        let given = |offered, protected| Circumstances { offered, protected, ..Circumstances::default() };
        let unprotected = |mechanism| Err(NoMechanism::Unprotected(mechanism));
        for (number, (given, expected)) in [
            (Circumstances { binding: true, ..given(&all, true) }, Ok(ScramSha256Plus)),
            (given(&all, true), Ok(ScramSha256)),
            (given(&all, false), Ok(ScramSha256)),
            (Circumstances { refused: &[ScramSha256], ..given(&all, true) }, Ok(ScramSha1)),
            (given(&["LOGIN", "PLAIN", "CRAM-MD5"], true), Ok(Plain)),
            (given(&["LOGIN", "PLAIN", "CRAM-MD5"], false), Ok(CramMd5)),
            (given(&["LOGIN", "PLAIN"], false), unprotected(Login)),
            (given(&["LOGIN"], true), Ok(Login)),
            (Circumstances { refused: &[Login], ..given(&["LOGIN"], true) }, Err(NoMechanism::AllRefused)),
            (Circumstances { wanted: Some(CramMd5), ..given(&all, true) }, Ok(CramMd5)),
            (Circumstances { wanted: Some(Plain), ..given(&all, false) }, unprotected(Plain)),
            (
                Circumstances { wanted: Some(ScramSha256Plus), ..given(&all, true) },
                Err(NoMechanism::NoBinding),
            ),
            (
                Circumstances { wanted: Some(OAuthBearer), ..given(&["PLAIN"], true) },
                Err(NoMechanism::NotOffered { wanted: OAuthBearer, offered: "PLAIN".to_owned() }),
            ),
            (Circumstances { token: true, ..given(&all, true) }, Ok(XOAuth2)),
            (Circumstances { token: true, ..given(&all, false) }, unprotected(XOAuth2)),
            (
                given(&["GSSAPI"], true),
                Err(NoMechanism::NoneKnown { token: false, offered: "GSSAPI".to_owned() }),
            ),
            (given(&[], true), Err(NoMechanism::NoLogin)),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(choose(&given), expected, "case {number}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_makes_it_panic(which in 0usize..8, one: Vec<u8>, two: String, three: String) {
            let mut exchange = Exchange::new(Mechanism::ALL[which], login("user", "pencil", "ours")).unwrap();
            exchange.command(512);
            let _ = exchange.on_challenge(&one);
            let _ = exchange.answer(&two);
            let _ = exchange.on_challenge(format!("r=ours{two},s={three},i=4096").as_bytes());
            let _ = exchange.finish(Some(&three));
        }
    }
}
