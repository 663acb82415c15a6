//! From the tree to the job: each key read once, each mistake noted and passed over. What `relay`
//! and `mailbox` share is here; each kind of job has a file of its own.

mod archive;
mod relay;
mod send;

use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::secret::Secret;

use super::section::{Keys, Section, Value, listed};
use super::{Auth, Credential, Mechanism, Refresh, Timeouts, TlsMode, TlsSpec, preset};

pub(super) use archive::archive;
pub(super) use send::{default_ledger, ledger, send};

/// The keys of a sending job.
pub(super) static SEND: Keys = Keys {
    under: "kind: send",
    known: &[
        "kind",
        "name",
        "edition",
        "timezone",
        "class",
        "from",
        "return_path",
        "reply_to",
        "recipients",
        "subject",
        "body",
        "attachments",
        "images",
        "headers",
        "unsubscribe",
        "list_id",
        "feedback_id",
        "vars",
        "vars_file",
        "relay",
        "ledger",
        "keep",
        "notify",
    ],
};
/// The keys of an archiving job.
pub(super) static ARCHIVE: Keys = Keys {
    under: "kind: archive",
    known: &["kind", "name", "mailbox", "mailboxes", "store", "layout", "delete"],
};
/// The keys of `postroom.yaml`.
pub(super) static HOUSE: Keys =
    Keys { under: "postroom.yaml", known: &["relays", "mailboxes", "defaults", "ledger", "timezone"] };
/// What `postroom.yaml` may say for all jobs.
pub(super) static DEFAULTS: Keys = Keys {
    under: "defaults",
    known: &[
        "class",
        "from",
        "return_path",
        "reply_to",
        "headers",
        "unsubscribe",
        "list_id",
        "feedback_id",
        "vars",
        "vars_file",
        "relay",
        "keep",
        "notify",
        "layout",
        "delete",
    ],
};
pub(super) static RECIPIENTS: Keys = Keys {
    under: "recipients",
    known: &[
        "file",
        "list",
        "ledger",
        "sql",
        "format",
        "encoding",
        "delimiter",
        "columns",
        "key",
        "to",
        "cc",
        "bcc",
        "where",
        "suppress",
        "max_bad",
        "dedupe",
    ],
};
pub(super) static FROM_LEDGER: Keys =
    Keys { under: "recipients: ledger", known: &["job", "edition", "outcome"] };
pub(super) static SPLIT: Keys = Keys { under: "cc", known: &["each", "split"] };
pub(super) static BODY: Keys = Keys { under: "body", known: &["html", "text"] };
pub(super) static INLINE: Keys = Keys { under: "body: html", known: &["inline"] };
pub(super) static ATTACHMENT: Keys =
    Keys { under: "attachments", known: &["files", "as", "type", "when", "expect", "shared"] };
pub(super) static UNSUBSCRIBE: Keys = Keys { under: "unsubscribe", known: &["url", "mailto", "one_click"] };
pub(super) static NOTIFY: Keys = Keys { under: "notify", known: &["to", "when"] };
pub(super) static RELAY: Keys = Keys {
    under: "relay",
    known: &[
        "provider",
        "region",
        "host",
        "port",
        "tls",
        "ca_file",
        "client_cert",
        "client_key",
        "tls_min",
        "auth",
        "connections",
        "messages_per_connection",
        "rate",
        "burst",
        "limits",
        "retry",
        "pipelining",
        "doubt",
        "unsure",
        "helo",
        "timeouts",
        "local_address",
        "proxy",
        "fallback",
        "stop_when",
        "dkim",
    ],
};
pub(super) static MAILBOX: Keys = Keys {
    under: "mailbox",
    known: &[
        "provider",
        "host",
        "port",
        "tls",
        "ca_file",
        "client_cert",
        "client_key",
        "tls_min",
        "auth",
        "apop",
        "pipelining",
        "timeouts",
        "proxy",
    ],
};
pub(super) static AUTH: Keys = Keys { under: "auth", known: &["user", "password", "token", "mechanism"] };
pub(super) static CREDENTIAL: Keys = Keys { under: "password", known: &["env", "file", "command"] };
pub(super) static TOKEN: Keys = Keys { under: "token", known: &["env", "file", "command", "refresh"] };
pub(super) static REFRESH: Keys = Keys {
    under: "refresh",
    known: &["url", "client_id", "client_secret", "refresh_token", "scope", "ca_file"],
};
pub(super) static TIMEOUTS: Keys = Keys {
    under: "timeouts",
    known: &["connect", "greeting", "command", "mail", "rcpt", "data", "block", "end"],
};
pub(super) static LIMIT: Keys = Keys { under: "limits", known: &["domains", "rate", "connections"] };
pub(super) static RETRY: Keys =
    Keys { under: "retry", known: &["first", "factor", "max", "stay", "give_up"] };
pub(super) static STOP_WHEN: Keys = Keys { under: "stop_when", known: &["refused", "after", "code"] };
pub(super) static DKIM: Keys = Keys { under: "dkim", known: &["domain", "selector", "key"] };
pub(super) static DELETE: Keys = Keys { under: "delete", known: &["after", "keep_newest", "max_fraction"] };

/// All of them, for "it belongs under …" and for the schema's test.
pub(super) static ALL: [&Keys; 24] = [
    &SEND,
    &RECIPIENTS,
    &BODY,
    &ATTACHMENT,
    &UNSUBSCRIBE,
    &NOTIFY,
    &RELAY,
    &AUTH,
    &LIMIT,
    &RETRY,
    &STOP_WHEN,
    &DKIM,
    &TIMEOUTS,
    &ARCHIVE,
    &MAILBOX,
    &DELETE,
    &HOUSE,
    &DEFAULTS,
    &FROM_LEDGER,
    &SPLIT,
    &INLINE,
    &CREDENTIAL,
    &TOKEN,
    &REFRESH,
];

/// `postroom.yaml`, as far as a job needs it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct House<'d> {
    pub(super) relays: Option<Value<'d>>,
    pub(super) mailboxes: Option<Value<'d>>,
    pub(super) defaults: Option<Section<'d>>,
    pub(super) ledger: Option<Value<'d>>,
    pub(super) timezone: Option<Value<'d>>,
    pub(super) file: HouseFile,
}

/// Whether there is a `postroom.yaml`: what is not found in it is told accordingly.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum HouseFile {
    Read,
    /// It cannot be read, which has been said.
    Flawed,
    #[default]
    Absent,
}

impl<'d> House<'d> {
    /// One that says nothing.
    pub(super) fn empty(file: HouseFile) -> House<'d> {
        House { file, ..House::default() }
    }

    /// Reads the keys, and all relays and mailboxes whether the job uses them or not.
    pub(super) fn read(value: Value<'d>) -> House<'d> {
        // An empty file marks the root and says nothing.
        if matches!(value.node.content, super::tree::Content::Null) {
            return House::empty(HouseFile::Read);
        }
        let Some(section) = value.section(&HOUSE) else { return House::empty(HouseFile::Flawed) };
        let house = House {
            relays: section.get("relays"),
            mailboxes: section.get("mailboxes"),
            defaults: section.get("defaults").and_then(|defaults| defaults.section(&DEFAULTS)),
            ledger: section.get("ledger"),
            timezone: section.get("timezone"),
            file: HouseFile::Read,
        };
        for (_, relay) in house.relays.and_then(|relays| relays.entries()).unwrap_or_default() {
            relay::relay(relay, &house);
        }
        for (_, mailbox) in house.mailboxes.and_then(|mailboxes| mailboxes.entries()).unwrap_or_default() {
            archive::mailbox(mailbox, &house);
        }
        house
    }

    /// A shared relay or mailbox by its name.
    fn shared(&self, named: Value<'d>, among: Option<Value<'d>>, what: &str) -> Option<Value<'d>> {
        let name = named.words()?;
        let entries = match among {
            Some(among) if among.is_map() => among.entries()?,
            _ => Vec::new(),
        };
        if let Some((_, value)) = entries.iter().find(|(key, _)| key.text == name) {
            return Some(*value);
        }
        match self.file {
            HouseFile::Read => {}
            HouseFile::Flawed => return None,
            HouseFile::Absent => {
                let title = format!("there is no {what} `{name}`: no postroom.yaml lies above this job");
                let help = format!("`postroom init` writes one; or give the {what} here in full");
                return named.wrong(Diagnostic::error(title).help(help));
            }
        }
        let names: Vec<&str> = entries.iter().map(|(key, _)| &*key.text).collect();
        let mistake = Diagnostic::error(format!("there is no {what} `{name}` in postroom.yaml"));
        named.wrong(match (super::section::nearest(&name, &names), names.is_empty()) {
            (Some(near), _) => mistake.label(format!("did you mean `{near}`?")),
            (None, false) => mistake.help(format!("there are {}", listed(&names))),
            (None, true) => mistake.help("define it in postroom.yaml, or give it here in full"),
        })
    }
}

/// What a relay and a mailbox have in common.
struct Server {
    host: String,
    port: u16,
    /// The provider that was named: its limits hold.
    provider: Option<&'static preset::Preset>,
    /// The provider by name or by host: its hints are worth giving.
    known_as: Option<String>,
    tls: TlsSpec,
    auth: Option<Auth>,
    timeouts: Timeouts,
    proxy: Option<String>,
}

/// The ports of a protocol for each way TLS begins, and what is meant when nothing is said.
struct Ports {
    protocol: &'static str,
    starttls: u16,
    implicit: u16,
    none: u16,
    silent: TlsMode,
    starttls_word: &'static str,
}

impl Ports {
    /// How TLS begins at a port that is known for it, if that is not `mode` (RFC 8314 §3).
    fn other_way(&self, port: u16, mode: TlsMode) -> Option<&'static str> {
        match mode {
            TlsMode::StartTls | TlsMode::None if port == self.implicit => Some("implicit"),
            TlsMode::Implicit if port == self.starttls => Some(self.starttls_word),
            TlsMode::Implicit if port == self.none => Some("none"),
            _ => None,
        }
    }

    /// What listens at a port that is known for another protocol.
    fn another_protocol(&self, port: u16) -> Option<&'static str> {
        let protocol = match port {
            25 | 465 | 587 => "SMTP",
            110 | 995 => "POP3",
            143 | 993 => "IMAP",
            _ => return None,
        };
        (protocol != self.protocol).then_some(protocol)
    }
}

static SMTP_PORTS: Ports = Ports {
    protocol: "SMTP",
    starttls: 587,
    implicit: 465,
    none: 25,
    silent: TlsMode::StartTls,
    starttls_word: "starttls",
};
static POP3_PORTS: Ports = Ports {
    protocol: "POP3",
    starttls: 110,
    implicit: 995,
    none: 110,
    silent: TlsMode::Implicit,
    starttls_word: "starttls",
};

/// Reads host, port, TLS, login, timeouts and proxy.
fn server(
    section: &Section<'_>,
    ports: &Ports,
    of: fn(&preset::Preset) -> Option<preset::Server>,
) -> Option<Server> {
    let provider = section.get("provider").and_then(provider);
    let preset = provider.and_then(|preset| {
        let server = of(preset);
        if server.is_none() {
            let mistake = format!("`{}` has no server of this kind", preset.names[0]);
            section.get("provider")?.wrong::<()>(Diagnostic::error(mistake));
        }
        server
    });
    let region = if ports.implicit == 465 { section.get("region") } else { None };
    let host = match (section.get("host"), preset) {
        (Some(host), _) => host.words().and_then(|name| host_name(host, name)),
        (None, Some(server)) => preset_host(&server, region),
        (None, None) if section.get("provider").is_some() => None,
        (None, None) => section.missing("host", "or name a `provider`: gmail, qq, 163, ses, …"),
    };
    let loopback = host.as_deref().is_some_and(is_loopback);
    let port =
        section.get("port").and_then(|port| port.count(1..=65_535)).and_then(|port| u16::try_from(port).ok());
    let mode = match section.get("tls") {
        Some(value) => value.one_of(&[
            (ports.starttls_word, TlsMode::StartTls),
            ("implicit", TlsMode::Implicit),
            ("none", TlsMode::None),
        ]),
        None => Some(match (port, preset) {
            (None, Some(server)) => server.tls,
            (Some(port), _) if port == ports.implicit => TlsMode::Implicit,
            _ if loopback => TlsMode::None,
            (Some(port), _) if port == ports.starttls => TlsMode::StartTls,
            _ => ports.silent,
        }),
    };
    if let (Some(value), Some(mode), Some(port), false) = (section.get("tls"), mode, port, loopback)
        && let Some(other) = ports.other_way(port, mode)
    {
        let warning = Diagnostic::warning(format!("port {port} is the one of `tls: {other}`"));
        let help = "a server that waits for the other beginning says nothing, until the timeout";
        value.reading.note(warning.at(value.place()).label("another is said here").help(help));
    }
    if let (Some(value), Some(port), false) = (section.get("port"), port, loopback)
        && let Some(other) = ports.another_protocol(port)
    {
        let Ports { protocol, implicit, starttls, .. } = ports;
        let title = format!("port {port} is known for {other}, and {protocol} is spoken here");
        let warning = Diagnostic::warning(title).at(value.place());
        value
            .reading
            .note(warning.help(format!("{protocol} has port {implicit}, or {starttls} with STARTTLS")));
    }
    let tls = mode.and_then(|mode| tls(section, mode));
    let auth = section.get("auth").and_then(|auth| self::auth(auth, provider));
    if let (Some(value), Some(TlsMode::None), false, true) =
        (section.get("auth"), mode, loopback, host.is_some())
    {
        value.wrong::<()>(
            Diagnostic::error("a password would cross the network in the clear: `tls` is none")
                .label("needs TLS, except on loopback")
                .help("write `tls: starttls` or `tls: implicit`"),
        );
    }
    let timeouts = section.get("timeouts").map_or(Some(Timeouts::default()), timeouts);
    let proxy = section.get("proxy").map(proxy);
    let tls = tls?;
    let host = host?;
    let known = provider.or_else(|| preset::of_host(&host));
    Some(Server {
        known_as: known.map(|preset| preset.names[0].to_owned()),
        port: port.or(preset.filter(|server| server.tls == tls.mode).map(|server| server.port)).unwrap_or(
            match tls.mode {
                TlsMode::StartTls => ports.starttls,
                TlsMode::Implicit => ports.implicit,
                TlsMode::None => ports.none,
            },
        ),
        host,
        provider,
        tls,
        auth,
        timeouts: timeouts?,
        proxy: proxy.flatten(),
    })
}

/// `provider: qq`; YAML reads `163` as a number.
fn provider(value: Value<'_>) -> Option<&'static preset::Preset> {
    let name = match &value.node.content {
        super::tree::Content::Int(number) => number.to_string(),
        _ => value.words()?,
    };
    if let Some(preset) = preset::find(&name) {
        return Some(preset);
    }
    let names = preset::names();
    let mistake = Diagnostic::error(format!("the provider `{name}` is not known"));
    value.wrong(match super::section::nearest(&name, &names) {
        Some(near) => mistake.label(format!("did you mean `{near}`?")),
        None => mistake.help("give `host` and `port` instead; its help pages say them"),
    })
}

fn preset_host(server: &preset::Server, region: Option<Value<'_>>) -> Option<String> {
    match (server.region, region) {
        (Some(default), None) => Some(server.host.replace("{region}", default)),
        (Some(_), Some(value)) => {
            let region = value.words()?;
            match region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
                true => Some(server.host.replace("{region}", &region)),
                false => value.wrong(
                    Diagnostic::error(format!("`{region}` is not a region")).help("for example `eu-west-1`"),
                ),
            }
        }
        (None, Some(value)) => value.wrong(Diagnostic::error("this provider has no regions")),
        (None, None) => Some(server.host.to_owned()),
    }
}

/// A host name, an internationalised one too, or an IP address.
fn host_name(value: Value<'_>, name: String) -> Option<String> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return Some(bare.to_owned());
    }
    // What was meant by `smtp://mail.example.com/` and `mail.example.com:587`.
    let inner = name.split_once("://").map_or(&*name, |(_, rest)| rest).trim_end_matches('/');
    let inner = inner.rsplit_once('@').map_or(inner, |(_, host)| host);
    if name.contains([':', '/']) {
        let mistake = Diagnostic::error(format!("`{name}` is not a host name"));
        let port = inner.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        return value.wrong(match port {
            Some((host, port)) => mistake.help(format!("write `host: {host}` and `port: {port}`")),
            None if inner.is_empty() || inner.contains([':', '/']) => {
                mistake.help("the host alone belongs here")
            }
            None => mistake.help(format!("the host alone belongs here: `host: {inner}`")),
        });
    }
    let good = !name.contains(|c: char| c.is_whitespace() || "/@{}<>".contains(c))
        && idna::domain_to_ascii(&name).is_ok();
    match good {
        true => Some(name),
        false => value.wrong(Diagnostic::error(format!("`{name}` is not a host name"))),
    }
}

/// Whether a host is this machine, by its name alone.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls(section: &Section<'_>, mode: TlsMode) -> Option<TlsSpec> {
    let keys = [section.get("client_cert"), section.get("client_key")];
    let client_cert = match keys {
        [Some(cert), Some(key)] => cert.input().zip(key.input()),
        [Some(lonely), None] | [None, Some(lonely)] => {
            lonely.wrong(Diagnostic::error("a client certificate is `client_cert` and `client_key` together"))
        }
        [None, None] => None,
    };
    let minimum = section.get("tls_min").and_then(|value| {
        // `tls_min: 1.3` is a float; it can mean nothing else.
        match &value.node.content {
            super::tree::Content::Float(number) if *number == 1.2 => Some(false),
            super::tree::Content::Float(number) if *number == 1.3 => Some(true),
            _ => value.one_of(&[("1.2", false), ("1.3", true)]),
        }
    });
    if mode == TlsMode::None {
        for key in ["ca_file", "client_cert", "client_key", "tls_min"] {
            if let Some(value) = section.get(key) {
                value.wrong::<()>(Diagnostic::error(format!("`{key}` means nothing without TLS")));
            }
        }
    }
    let ca_file = section.get("ca_file").and_then(|value| value.input());
    Some(TlsSpec { mode, ca_file, client_cert, only_tls13: minimum.unwrap_or(false) })
}

fn auth(value: Value<'_>, provider: Option<&'static preset::Preset>) -> Option<Auth> {
    let section = value.section(&AUTH)?;
    let user = match (section.get("user"), provider.and_then(|preset| preset.user)) {
        (Some(user), _) => user.words(),
        (None, Some(user)) => Some(user.to_owned()),
        (None, None) => section.missing("user", ""),
    };
    let (secret, token) = match (section.get("password"), section.get("token")) {
        (Some(password), None) => (Some(password), false),
        (None, Some(token)) => (Some(token), true),
        (Some(_), Some(token)) => {
            token.wrong::<()>(Diagnostic::error("a login has a `password` or a `token`, not both"));
            (None, false)
        }
        (None, None) => {
            section.missing::<()>("password", "for example `password: {env: SMTP_PASSWORD}`, or a `token`");
            (None, false)
        }
    };
    let mechanism = match section.get("mechanism") {
        None => Some(None),
        Some(value) if value.as_text() == Some("auto") => Some(None),
        Some(value) => {
            let mechanism = value.one_of(MECHANISMS);
            let oauth = matches!(mechanism, Some(Mechanism::XOAuth2 | Mechanism::OAuthBearer));
            if mechanism.is_some() && secret.is_some() && oauth != token {
                let (has, needs) = if oauth { ("password", "token") } else { ("token", "password") };
                value.wrong::<()>(Diagnostic::error(format!(
                    "this mechanism takes a `{needs}`, and a `{has}` is given"
                )));
            }
            mechanism.map(Some)
        }
    };
    let credential = match token {
        true => secret.and_then(|token| access_token(token, provider)),
        false => secret.and_then(credential),
    };
    Some(Auth { user: user?, credential: credential?, token, mechanism: mechanism? })
}

/// The SASL mechanisms by their names, lower case.
const MECHANISMS: &[(&str, Mechanism)] = &[
    ("plain", Mechanism::Plain),
    ("login", Mechanism::Login),
    ("cram-md5", Mechanism::CramMd5),
    ("scram-sha-1", Mechanism::ScramSha1),
    ("scram-sha-256", Mechanism::ScramSha256),
    ("scram-sha-256-plus", Mechanism::ScramSha256Plus),
    ("xoauth2", Mechanism::XOAuth2),
    ("oauthbearer", Mechanism::OAuthBearer),
];

/// `token:`: an access token as any other secret, or the refresh token that one is got for.
fn access_token(value: Value<'_>, provider: Option<&'static preset::Preset>) -> Option<Credential> {
    if !value.is_map() {
        return credential(value);
    }
    let section = value.section(&TOKEN)?;
    let Some(refresh) = section.get("refresh") else { return credential_of(value, &section) };
    if let Some(other) = ["env", "file", "command"].into_iter().find_map(|key| section.get(key)) {
        return other.wrong(Diagnostic::error("a `token` comes from one place, and `refresh` is another"));
    }
    let section = refresh.section(&REFRESH)?;
    let url = match (section.get("url"), provider.and_then(|preset| preset.token_url)) {
        (Some(url), _) => url.words().and_then(|text| token_url(url, text)),
        (None, Some(url)) => Some(url.to_owned()),
        (None, None) => section.missing("url", "where the provider gives tokens, such as https://host/token"),
    };
    let client_id = section.need("client_id").and_then(|value| value.words());
    let client_secret = section.get("client_secret").map(credential);
    let refresh_token = section.need("refresh_token").and_then(credential);
    let scope = section.get("scope").map(|value| value.words());
    let ca_file = section.get("ca_file").map(|value| value.input());
    Some(Credential::Refresh(Box::new(Refresh {
        url: url?,
        client_id: client_id?,
        client_secret: client_secret.map_or(Some(None), |secret| secret.map(Some))?,
        refresh_token: refresh_token?,
        scope: scope.map_or(Some(None), |scope| scope.map(Some))?,
        ca_file: ca_file.map_or(Some(None), |path| path.map(Some))?,
    })))
}

/// A refresh token goes over TLS or not at all.
fn token_url(value: Value<'_>, url: String) -> Option<String> {
    match url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        true => Some(url),
        false => value.wrong(
            Diagnostic::error(format!("`{url}` is no address that a refresh token may be sent to"))
                .help("it begins with `https://` and a host name"),
        ),
    }
}

/// Where a secret comes from. No message here repeats it.
fn credential(value: Value<'_>) -> Option<Credential> {
    let name = value.name().to_owned();
    if let Some(text) = value.as_text() {
        if text.is_empty() {
            return value.wrong(Diagnostic::error(format!("`{name}` is empty")));
        }
        value.reading.note(
            Diagnostic::warning(format!("`{name}` stands in the file, for everybody who reads it"))
                .at(value.place())
                .help(format!(
                    "write `{name}: {{env: NAME}}`, `{{file: PATH}}` or `{{command: [pass, show, NAME]}}`"
                )),
        );
        return Some(Credential::Literal(Secret::new(text)));
    }
    if !value.is_map() {
        if value.is_broken() {
            return None;
        }
        return value.wrong(
            Diagnostic::error(format!("`{name}` takes text or a mapping, not {}", value.node.kind()))
                .help(format!("`{name}: {{env: NAME}}`, `{{file: PATH}}`, `{{command: [argv]}}`; a literal goes in quotes")),
        );
    }
    credential_of(value, &value.section(&CREDENTIAL)?)
}

fn credential_of(value: Value<'_>, section: &Section<'_>) -> Option<Credential> {
    let name = value.name().to_owned();
    match (section.get("env"), section.get("file"), section.get("command")) {
        (Some(env), None, None) => {
            let name = env.words()?;
            match name.contains(['=', '$', ' ']) {
                false => Some(Credential::Env(name)),
                true => env.wrong(
                    Diagnostic::error(format!("`{name}` is not the name of an environment variable"))
                        .help("the name alone, without `$`"),
                ),
            }
        }
        (None, Some(file), None) => {
            let credential = Credential::File(file.input()?);
            if let Some(warning) = credential.warning() {
                value.reading.note(Diagnostic::warning(warning).at(file.place()));
            }
            Some(credential)
        }
        (None, None, Some(command)) => {
            if !command.is_list() {
                return command.wrong(
                    Diagnostic::error("`command` is a list of words; no shell reads it")
                        .help("for example `command: [pass, show, mail/news]`"),
                );
            }
            let mut argv: Vec<String> = command
                .list()?
                .iter()
                .map(|word| word.text().map(|text| text.value))
                .collect::<Option<_>>()?;
            let Some(program) = argv.first_mut().filter(|program| !program.is_empty()) else {
                return command.wrong(Diagnostic::error("`command` is empty"));
            };
            // A program named by its path is found from anywhere, as every path is; a bare name is the system's.
            if program.contains('/') {
                match value.reading.resolve(program).into_os_string().into_string() {
                    Ok(path) => *program = path,
                    Err(_) => {
                        return command.wrong(Diagnostic::error("the path of this command is not UTF-8"));
                    }
                }
            }
            Some(Credential::Command(argv))
        }
        (None, None, None) if section.has_unknown() => None,
        _ => value.wrong(Diagnostic::error(format!("`{name}` takes one of `env`, `file`, `command`"))),
    }
}

fn timeouts(value: Value<'_>) -> Option<Timeouts> {
    let section = value.section(&TIMEOUTS)?;
    let mut timeouts = Timeouts::default();
    for (key, field) in [
        ("connect", &mut timeouts.connect),
        ("greeting", &mut timeouts.greeting),
        ("command", &mut timeouts.command),
        ("mail", &mut timeouts.mail),
        ("rcpt", &mut timeouts.rcpt),
        ("data", &mut timeouts.data),
        ("block", &mut timeouts.block),
        ("end", &mut timeouts.end),
    ] {
        if let Some(value) = section.get(key) {
            match value.duration() {
                Some(time) if time.is_zero() => {
                    value.wrong::<()>(Diagnostic::error("a timeout of nothing lets nothing happen"));
                }
                Some(time) => *field = time,
                None => {}
            }
        }
    }
    Some(timeouts)
}

/// `socks5://host:port` or `http://host:port`, with `user:password@` before the host if need be.
fn proxy(value: Value<'_>) -> Option<String> {
    let url = value.words()?;
    let good = || {
        let (scheme, rest) = url.split_once("://")?;
        let (host, port) =
            rest.trim_end_matches('/').rsplit_once('@').map_or(rest, |(_, host)| host).rsplit_once(':')?;
        (matches!(scheme, "socks5" | "socks5h" | "http") && !host.is_empty()).then_some(())?;
        port.trim_end_matches('/').parse::<u16>().ok()
    };
    match good() {
        Some(_) => Some(url),
        None => value.wrong(
            Diagnostic::error("this is not a proxy's address")
                .help("`socks5://host:port` or `http://host:port`; HTTP proxies must allow CONNECT"),
        ),
    }
}
