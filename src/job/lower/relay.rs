//! `relay:`

use std::time::Duration;

use crate::diagnostic::Diagnostic;

use super::super::section::{Value, percentage};
use super::super::{Dkim, DomainLimit, Pipelining, RelaySpec, Retry, StopWhen, Unsure};
use super::*;

/// How many connections are opened when nothing is said.
const CONNECTIONS: usize = 4;

/// A relay by its name in `postroom.yaml`, or in full.
pub(in crate::job) fn relay(value: Value<'_>, house: &House<'_>) -> Option<RelaySpec> {
    relay_behind(value, house, &mut Vec::new())
}

/// `before` names the relays that it is a fallback of: they may name each other in a circle, which ends where one
/// would come again.
fn relay_behind(value: Value<'_>, house: &House<'_>, before: &mut Vec<String>) -> Option<RelaySpec> {
    let own_name = value.as_text();
    let value = match own_name {
        Some(name) => {
            before.push(name.to_owned());
            house.shared(value, house.relays, "relay")?
        }
        None => value,
    };
    let section = value.section(&RELAY)?;
    let server = server(&section, &SMTP_PORTS, |preset| preset.smtp);
    let preset = server.as_ref().and_then(|server| server.provider);
    let count = |key: &'static str, most: u64| section.get(key).map(|value| value.count(1..=most));

    let connections = count("connections", 1000).map(|count| count.map(|count| count as usize));
    let messages_per_connection = count("messages_per_connection", u32::MAX.into())
        .map(|count| count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)));
    let burst = count("burst", 1_000_000).map(|count| count.map(|count| u32::try_from(count).unwrap_or(1)));
    let rate = section.get("rate").map(|value| value.rate());
    if let (Some(burst), None) = (section.get("burst"), section.get("rate")) {
        burst.wrong::<()>(Diagnostic::error("`burst` means nothing without `rate`"));
    }
    let limits = section.get("limits").and_then(|value| value.list()).map(limits).unwrap_or_default();
    let retry = section.get("retry").map_or(Some(Retry::default()), retry);
    let pipelining = section.get("pipelining").map_or(Some(Pipelining::default()), |value| {
        value.one_of(&[
            ("auto", Pipelining::Auto),
            ("off", Pipelining::Off),
            ("envelope", Pipelining::Envelope),
            ("message", Pipelining::Message),
            ("window", Pipelining::Window),
        ])
    });
    let doubt = section.get("doubt").and_then(|value| match value.as_text() {
        Some("auto") => None,
        _ => value.count(1..=1_000_000).map(|count| count as usize),
    });
    let unsure = section.get("unsure").map_or(Some(Unsure::default()), |value| {
        value.one_of(&[("hold", Unsure::Hold), ("resend", Unsure::Resend)])
    });
    let helo = section.get("helo").and_then(helo);
    let local_address = section.get("local_address").and_then(|value| {
        let words = value.words()?;
        match words.parse() {
            Ok(address) => Some(address),
            Err(_) => value.wrong(Diagnostic::error(format!("`{words}` is not an IP address"))),
        }
    });
    let fallback = section.get("fallback").and_then(|value| match value.as_text() {
        Some(name) if own_name == Some(name) => {
            value.wrong(Diagnostic::error(format!("`{name}` is its own fallback")))
        }
        Some(name) if before.iter().any(|before| before == name) => None,
        _ => relay_behind(value, house, before),
    });
    let stop_when = section.get("stop_when").and_then(stop_when);
    let dkim = section.get("dkim").and_then(dkim);

    let server = server?;
    Some(RelaySpec {
        host: server.host,
        port: server.port,
        provider: server.known_as,
        tls: server.tls,
        auth: server.auth,
        connections: match connections {
            Some(count) => count?,
            None => preset.and_then(|preset| preset.connections).unwrap_or(CONNECTIONS),
        },
        messages_per_connection: match messages_per_connection {
            Some(count) => Some(count?),
            None => preset.and_then(|preset| preset.messages_per_connection),
        },
        rate: match rate {
            Some(rate) => Some(rate?),
            None => preset.and_then(|preset| preset.rate()),
        },
        burst: burst.unwrap_or(Some(1))?,
        limits,
        retry: retry?,
        pipelining: pipelining?,
        doubt,
        unsure: unsure?,
        helo,
        timeouts: server.timeouts,
        local_address,
        proxy: server.proxy,
        fallback: fallback.map(Box::new),
        stop_when,
        dkim,
    })
}

/// Stands in for a relay with mistakes while the rest of the job is looked at. Nothing is ever sent by it.
pub(in crate::job) fn nowhere() -> RelaySpec {
    RelaySpec {
        host: String::new(),
        port: 25,
        provider: None,
        tls: TlsSpec { mode: TlsMode::None, ca_file: None, client_cert: None, only_tls13: false },
        auth: None,
        connections: CONNECTIONS,
        messages_per_connection: None,
        rate: None,
        burst: 1,
        limits: Vec::new(),
        retry: Retry::default(),
        pipelining: Pipelining::default(),
        doubt: None,
        unsure: Unsure::default(),
        helo: None,
        timeouts: Timeouts::default(),
        local_address: None,
        proxy: None,
        fallback: None,
        stop_when: None,
        dkim: None,
    }
}

/// Each address is of one limit only: which of two would hold, the ledger and the pool might see differently.
fn limits(values: Vec<Value<'_>>) -> Vec<DomainLimit> {
    let mut limited: Vec<(usize, String)> = Vec::new();
    let mut limits = Vec::new();
    for (place, value) in values.into_iter().enumerate() {
        limits.extend(limit(value, |name| {
            let common = |(of, other): &&(usize, String)| {
                other == name || (*of != place && (covers(other, name) || covers(name, other)))
            };
            let other = limited.iter().find(common).map(|(_, other)| other.clone());
            limited.push((place, name.to_owned()));
            other
        }));
    }
    limits
}

/// Whether `*.example.com` holds for this name, or for those below it.
fn covers(pattern: &str, name: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|below| name.ends_with(below))
}

/// `limited` tells of a name whether one that has addresses in common with it has a limit already.
fn limit(value: Value<'_>, mut limited: impl FnMut(&str) -> Option<String>) -> Option<DomainLimit> {
    let section = value.section(&LIMIT)?;
    let domains = section.need("domains").map(|value| {
        value.one_or_more().into_iter().filter_map(|domain| {
            let words = domain.words()?;
            let Some(name) = limited_domain(&words) else {
                return domain.wrong(
                    Diagnostic::error(format!("`{words}` is not a domain"))
                        .help("`gmail.com`, or `*.example.com` for those below it"),
                );
            };
            match limited(&name) {
                None => Some(name),
                Some(other) if other == name => {
                    domain.wrong(Diagnostic::error(format!("`{words}` stands in `limits` twice")))
                }
                Some(other) => domain.wrong(
                    Diagnostic::error(format!("`{words}` has addresses in common with `{other}`"))
                        .label("limited above already")
                        .help("each address is of one limit only"),
                ),
            }
        })
    });
    let domains: Vec<String> = domains?.collect();
    let rate = section.get("rate").and_then(|value| value.rate());
    let connections =
        section.get("connections").and_then(|value| value.count(1..=1000)).map(|count| count as usize);
    if section.get("rate").is_none() && section.get("connections").is_none() {
        return section.missing("rate", "a limit has a `rate`, `connections`, or both");
    }
    Some(DomainLimit { domains, rate, connections })
}

/// A domain as addresses have it in the ledger and on the wire, in A-labels; with its `*.`, if it has that.
fn limited_domain(words: &str) -> Option<String> {
    let (below, bare) = words.strip_prefix("*.").map_or(("", words), |bare| ("*.", bare));
    if bare.contains(['@', '*', '/', ' ']) {
        return None;
    }
    let name = idna::domain_to_ascii(bare).ok()?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    (!name.is_empty()).then(|| format!("{below}{name}"))
}

fn retry(value: Value<'_>) -> Option<Retry> {
    let section = value.section(&RETRY)?;
    let mut retry = Retry::default();
    for (key, field) in [
        ("first", &mut retry.first),
        ("max", &mut retry.max),
        ("stay", &mut retry.stay),
        ("give_up", &mut retry.give_up),
    ] {
        if let Some(duration) = section.get(key).and_then(|value| value.duration()) {
            *field = duration;
        }
    }
    if let Some(value) = section.get("factor") {
        match value.number() {
            Some(factor) if (1.0..=100.0).contains(&factor) => retry.factor = factor,
            Some(_) => {
                value.wrong::<()>(Diagnostic::error("`factor` is from 1 to 100"));
            }
            None => {}
        }
    }
    if let (Some(value), true) = (section.get("first"), retry.first < Duration::from_secs(1)) {
        value.wrong::<()>(
            Diagnostic::error("a server that defers asks for time: `first` is at least 1s").label("too soon"),
        );
    }
    // A `max` that nobody wrote gives way to a longer `first`.
    if section.get("max").is_none() {
        retry.max = retry.max.max(retry.first);
    } else if let (Some(value), true) = (section.get("max"), retry.max < retry.first) {
        value.wrong::<()>(Diagnostic::error("`max` is shorter than `first`"));
    }
    Some(retry)
}

/// A host name or an address literal (RFC 5321 §4.1.3): it is written on the wire as it stands.
fn helo(value: Value<'_>) -> Option<String> {
    let words = value.words()?;
    let name = |name: &str| {
        !name.is_empty()
            && name.len() <= 255
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let literal = |inner: &str| {
        let address = inner.strip_prefix("IPv6:").unwrap_or(inner);
        address.parse::<IpAddr>().is_ok()
    };
    let good = match words.strip_prefix('[').and_then(|words| words.strip_suffix(']')) {
        Some(inner) => literal(inner),
        None => name(&words),
    };
    match good {
        true => Some(words),
        false => value.wrong(
            Diagnostic::error(format!("`{words}` is neither a host name nor an address literal"))
                .help("for example `helo: mail.example.com` or `helo: \"[192.0.2.1]\"`"),
        ),
    }
}

fn stop_when(value: Value<'_>) -> Option<StopWhen> {
    // `stop_when: 5%` says it shortly.
    if let Some(fraction) = value.as_text().and_then(percentage) {
        return Some(StopWhen { refused: Some((fraction, STOP_AFTER)), codes: Vec::new() });
    }
    let section = value.section(&STOP_WHEN)?;
    let after = section.get("after").map_or(Some(STOP_AFTER), |value| value.count(1..=u64::MAX));
    let refused = match (section.get("refused"), section.get("code")) {
        (Some(refused), _) => refused.fraction().zip(after).map(Some),
        (None, Some(_)) => Some(None),
        (None, None) => section.missing("refused", "a percentage, or a `code` such as 5.7.*"),
    };
    let codes = section.get("code").map_or(Some(Vec::new()), |value| {
        value.one_or_more().into_iter().map(code_pattern).collect::<Option<Vec<_>>>()
    });
    Some(StopWhen { refused: refused?, codes: codes? })
}

/// `550`, `5.7.1` or `5.7.*`.
fn code_pattern(value: Value<'_>) -> Option<String> {
    let words = value.words()?;
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = words.split('.').collect();
    let good = match parts[..] {
        [code] => code.len() == 3 && digits(code) && code.starts_with('5'),
        [class, "*"] => class == "5",
        [class, subject, detail] => class == "5" && digits(subject) && (detail == "*" || digits(detail)),
        _ => false,
    };
    match good {
        true => Some(words),
        false => value.wrong(
            Diagnostic::error(format!("`{words}` is no code with which a recipient is refused"))
                .help("for example `550`, `5.7.1`, or `5.7.*` for all that begin so; quoted"),
        ),
    }
}

/// Before so many letters a fraction says little.
const STOP_AFTER: u64 = 200;

fn dkim(value: Value<'_>) -> Option<Dkim> {
    let section = value.section(&DKIM)?;
    let name =
        |key| section.need(key).and_then(|value| value.words().and_then(|name| host_name(value, name)));
    let (domain, selector) = (name("domain"), name("selector"));
    let key = section.need("key").and_then(credential);
    // An unsigned letter under a domain whose policy wants signatures is lost mail.
    value.wrong::<()>(
        Diagnostic::error("letters cannot be signed with DKIM yet")
            .label("not built into this version")
            .help("let the relay sign them, and take this out"),
    );
    Some(Dkim { domain: domain?, selector: selector?, key: key? })
}
