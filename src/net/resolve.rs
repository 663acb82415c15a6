//! A host's name becomes addresses, in the order in which they are tried (RFC 8305 §4).

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::NetError;

/// Looks a name up: host and port in, addresses in the resolver's order out. Tests bend it.
pub type Resolver = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The system's resolver: hosts file, DNS, whatever `nsswitch.conf` says.
pub fn system() -> Arc<Resolver> {
    Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// A host as DNS and certificates know it: lower case, international labels as A-labels (RFC 5890), an
/// IPv6 address without its brackets, no final dot.
pub fn host_name(host: &str) -> Result<String, NetError> {
    let host = host.trim();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let wrong = || NetError::Setting(format!("`{host}` is no host name"));
    let name = idna::domain_to_ascii(bare).map_err(|_| wrong())?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    // RFC 1035 §2.3.4, and the letters of a host name; `_` is seen in the wild.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name.to_owned()),
        false => Err(wrong()),
    }
}

/// The addresses of `host` (as [`host_name`] gives it), waiting at most `timeout`. Never empty.
pub fn addresses(
    resolver: &Arc<Resolver>,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<Vec<SocketAddr>, NetError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| NetError::Resolve { host: host.to_owned(), source };
    // getaddrinfo knows no timeout: it waits in a thread of its own, which is left behind if it must be.
    let (answer, answered) = mpsc::channel();
    let (resolver, name) = (Arc::clone(resolver), host.to_owned());
    thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || answer.send(resolver(&name, port)))
        .map_err(failed)?;
    let found = answered
        .recv_timeout(timeout)
        .map_err(|_| NetError::Timeout {
            to: host.to_owned(),
            doing: "asking for its addresses",
            after: timeout,
        })?
        .map_err(failed)?;
    match found.is_empty() {
        true => Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address"))),
        false => Ok(interleave(found)),
    }
}

/// Addresses of both families in turn, beginning with the family the resolver put first; each family
/// keeps its order. A family that leads nowhere then costs one step, not all its addresses.
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (ours, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut mixed = Vec::with_capacity(ours.len() + others.len());
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    loop {
        match (ours.next(), others.next()) {
            (None, None) => break,
            (one, other) => mixed.extend(one.into_iter().chain(other)),
        }
    }
    let mut seen = std::collections::HashSet::new();
    mixed.retain(|address| seen.insert(*address));
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| {
            list.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 25)).collect::<Vec<_>>()
        };
        for (found, expected) in [
            (
                &["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"][..],
                &["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"][..],
            ),
            (&["10.0.0.1", "10.0.0.2", "::1"], &["10.0.0.1", "::1", "10.0.0.2"]),
            (&["10.0.0.1", "10.0.0.1"], &["10.0.0.1"]),
            (&[], &[]),
        ] {
            assert_eq!(interleave(parse(found)), parse(expected));
        }
    }

    #[test]
    fn hosts_become_a_labels() {
        for (host, expected) in [
            ("smtp.example.com", Some("smtp.example.com")),
            ("SMTP.Example.COM.", Some("smtp.example.com")),
            ("邮件.例子.cn", Some("xn--5nq051n.xn--fsqu00a.cn")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("[::1]", Some("::1")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("smtp_1.example.com", Some("smtp_1.example.com")),
            ("", None),
            ("a b", None),
            ("a..b", None),
            ("host:25", None),
            ("http://host", None),
            ("evil\r\nhost", None),
        ] {
            assert_eq!(host_name(host).ok().as_deref(), expected, "{host:?}");
        }
    }

    #[test]
    fn a_resolver_that_hangs_is_left_behind() {
        let resolver: Arc<Resolver> = Arc::new(|_, _| {
            thread::park();
            Ok(Vec::new())
        });
        let error = addresses(&resolver, "slow.example", 25, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, NetError::Timeout { .. }), "{error}");
        let nobody: Arc<Resolver> = Arc::new(|_, _| Ok(Vec::new()));
        let error = addresses(&nobody, "none.example", 25, Duration::from_secs(5)).unwrap_err();
        assert!(matches!(error, NetError::Resolve { .. }), "{error}");
    }
}
