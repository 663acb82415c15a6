//! The way through a proxy: SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110 §9.3.6), as cores
//! without a socket. The link moves the bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::NetError;
use super::resolve;
use crate::mail::acts_on_terminals;
use crate::secret::Secret;
use crate::wire::words::words;

/// A proxy as a job names it: `socks5://[user:password@]host[:port]` or `http://…`.
#[derive(Debug, Clone)]
pub struct Proxy {
    kind: Kind,
    /// Its host, as DNS knows it.
    pub host: String,
    /// Its port: 1080 for SOCKS5, 8080 for HTTP where none is given.
    pub port: u16,
    login: Option<(String, Secret)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socks5,
    Http,
}

impl Proxy {
    /// Reads a proxy's URL. The error never quotes it: it may hold a password.
    pub fn parse(url: &str) -> Result<Proxy, NetError> {
        let wrong = |why: &str| {
            NetError::Setting(format!(
                "this proxy cannot be used: {why}; expected socks5://host:port or http://host:port"
            ))
        };
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let kind = match scheme.to_ascii_lowercase().as_str() {
            // The proxy resolves the name in any case: an answer of our DNS may not be its own.
            "socks5" | "socks5h" => Kind::Socks5,
            "http" => Kind::Http,
            _ => return Err(wrong("its scheme is not known")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, place) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((login, place)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let text = |text| percent_decoded(text).ok_or_else(|| wrong("its login is not valid"));
                (Some((text(user)?, Secret::new(text(password)?))), place)
            }
        };
        if let (Kind::Socks5, Some((user, password))) = (kind, &login) {
            // Each has a length of one byte (RFC 1929 §2).
            if user.is_empty()
                || user.len() > 255
                || password.expose().is_empty()
                || password.expose().len() > 255
            {
                return Err(wrong("user and password must have 1 to 255 bytes each"));
            }
        }
        let default = if kind == Kind::Socks5 { 1080 } else { 8080 };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (
                host,
                port.parse().ok().filter(|&port| port > 0).ok_or_else(|| wrong("its port is no number"))?,
            ),
            _ => (place, default),
        };
        let host = resolve::host_name(host).map_err(|_| wrong("its host is no host name"))?;
        Ok(Proxy { kind, host, port, login })
    }

    /// host:port, without the login.
    pub fn shown(&self) -> String {
        show(&self.host, self.port)
    }

    /// Begins the dialogue that opens the way to `host`:`port`.
    pub fn dialogue(&self, host: &str, port: u16) -> Dialogue {
        let mut dialogue = Dialogue {
            proxy: self.shown(),
            target: (host.to_owned(), port),
            login: self.login.clone(),
            stage: Stage::Method,
            out: Vec::new(),
            inbox: Vec::new(),
        };
        match self.kind {
            // Version 5, the methods we have: none (0), user and password (2).
            Kind::Socks5 if self.login.is_some() => dialogue.out.extend([5, 2, 0, 2]),
            Kind::Socks5 => dialogue.out.extend([5, 1, 0]),
            Kind::Http => {
                dialogue.stage = Stage::Head;
                let place = show(host, port);
                dialogue
                    .out
                    .extend_from_slice(format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n").as_bytes());
                if let Some((user, password)) = &self.login {
                    let basic = STANDARD.encode(format!("{user}:{}", password.expose()));
                    dialogue
                        .out
                        .extend_from_slice(format!("Proxy-Authorization: Basic {basic}\r\n").as_bytes());
                }
                dialogue.out.extend_from_slice(b"\r\n");
            }
        }
        dialogue
    }
}

/// host:port, an IPv6 address in brackets.
pub(super) fn show(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A dialogue with a proxy: bytes in, bytes out.
#[derive(Debug)]
pub struct Dialogue {
    proxy: String,
    target: (String, u16),
    login: Option<(String, Secret)>,
    stage: Stage,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// SOCKS5: which login is wanted.
    Method,
    /// SOCKS5: whether the login was right.
    Login,
    /// SOCKS5: whether the way is open.
    Reply,
    /// HTTP: status line and fields.
    Head,
    Open,
}

/// A proxy whose answer has no end must not fill our memory.
const MAX_HEAD: usize = 16 * 1024;

impl Dialogue {
    /// What is to be written now; [`Dialogue::sent`] takes it away.
    pub fn output(&self) -> &[u8] {
        &self.out
    }

    /// So many bytes of the output were written.
    pub fn sent(&mut self, count: usize) {
        self.out.drain(..count.min(self.out.len()));
    }

    /// Whether the way is open.
    pub fn open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Takes what the proxy said. Once the way is open, what is left over is the server's: those bytes
    /// are given back.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Vec<u8>, NetError> {
        self.inbox.extend_from_slice(bytes);
        while let Some(used) = self.step()? {
            self.inbox.drain(..used);
            if self.stage == Stage::Open {
                return Ok(std::mem::take(&mut self.inbox));
            }
        }
        if self.inbox.len() > MAX_HEAD {
            return Err(self.fail("its answer has no end"));
        }
        Ok(Vec::new())
    }

    /// The proxy hung up before the way was open.
    pub fn closed(&self) -> NetError {
        self.fail("it closed the connection before the way was open")
    }

    /// One message of the proxy, if it is whole: how many bytes it has.
    fn step(&mut self) -> Result<Option<usize>, NetError> {
        let inbox = self.inbox.as_slice();
        let (used, next) = match (self.stage, inbox) {
            (Stage::Method, &[5, method, ..]) => match (method, &self.login) {
                (0, _) => (2, self.ask()?),
                (2, Some((user, password))) => {
                    // RFC 1929 §2; the lengths were checked when the URL was read.
                    let (user, password) = (user.as_bytes(), password.expose().as_bytes());
                    self.out.extend([1, user.len() as u8]);
                    self.out.extend_from_slice(user);
                    self.out.push(password.len() as u8);
                    self.out.extend_from_slice(password);
                    (2, Stage::Login)
                }
                (0xff, None) | (2, None) => return Err(self.fail("it wants a user and a password")),
                (0xff, Some(_)) => return Err(self.fail("it takes none of our ways to log in")),
                _ => return Err(self.fail("it chose a login we did not offer")),
            },
            (Stage::Login, &[_, 0, ..]) => (2, self.ask()?),
            (Stage::Login, &[_, _, ..]) => return Err(self.fail("it did not accept user and password")),
            (Stage::Reply, &[5, 0, _, kind, first, ..]) => {
                let address = match kind {
                    1 => 4,
                    4 => 16,
                    3 => 1 + usize::from(first),
                    _ => return Err(self.fail("its answer is no SOCKS5")),
                };
                match 4 + address + 2 {
                    whole if inbox.len() >= whole => (whole, Stage::Open),
                    _ => return Ok(None),
                }
            }
            (Stage::Reply, &[5, code, ..]) if code != 0 => return Err(self.fail(socks_words(code))),
            (Stage::Method | Stage::Reply, &[version, ..]) if version != 5 => {
                return Err(self.fail("its answer is no SOCKS5"));
            }
            (Stage::Head, inbox) => match inbox.windows(4).position(|window| window == b"\r\n\r\n") {
                None if inbox.len() >= 5 && !inbox.starts_with(b"HTTP/") => {
                    return Err(self.fail("its answer is no HTTP"));
                }
                None => return Ok(None),
                Some(end) => {
                    self.judge(&inbox[..end])?;
                    (end + 4, Stage::Open)
                }
            },
            _ => return Ok(None),
        };
        self.stage = next;
        Ok(Some(used))
    }

    /// SOCKS5: CONNECT. Names go as names: it is the proxy's view of the network that counts.
    fn ask(&mut self) -> Result<Stage, NetError> {
        let (host, port) = &self.target;
        let mut request = vec![5, 1, 0];
        match host.parse() {
            Ok(std::net::IpAddr::V4(address)) => {
                request.push(1);
                request.extend(address.octets());
            }
            Ok(std::net::IpAddr::V6(address)) => {
                request.push(4);
                request.extend(address.octets());
            }
            Err(_) => {
                let length =
                    u8::try_from(host.len()).map_err(|_| self.fail("the host name is too long for it"))?;
                request.extend([3, length]);
                request.extend_from_slice(host.as_bytes());
            }
        }
        request.extend(port.to_be_bytes());
        self.out.append(&mut request);
        Ok(Stage::Reply)
    }

    /// HTTP: any 2xx opens the way (RFC 9110 §9.3.6).
    fn judge(&self, head: &[u8]) -> Result<(), NetError> {
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let line: String = words(line).chars().filter(|sign| !acts_on_terminals(*sign)).take(200).collect();
        let mut words = line.splitn(2, ' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().unwrap_or_default().trim();
        match (version.starts_with("HTTP/1."), status.as_bytes().first()) {
            (false, _) | (true, None) => Err(self.fail("its answer is no HTTP")),
            (true, Some(b'2')) => Ok(()),
            (true, _) if status.starts_with("407") => Err(self.fail(match self.login {
                Some(_) => "it did not accept user and password (407)",
                None => "it wants a user and a password (407)",
            })),
            (true, _) => Err(self.fail(&format!("it answered {status}"))),
        }
    }

    fn fail(&self, reason: &str) -> NetError {
        NetError::Proxy { proxy: self.proxy.clone(), reason: reason.to_owned() }
    }
}

/// RFC 1928 §6.
fn socks_words(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "its rules do not allow this connection",
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "the server refused the connection",
        6 => "the connection took too long (TTL expired)",
        7 => "it does not know CONNECT",
        8 => "it does not know this kind of address",
        _ => "it refused, for a reason it has no words for",
    }
}

/// RFC 3986 §2.1
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds answers one byte at a time; gives all that was said, what was left over, and the error.
    fn drive(url: &str, host: &str, answers: &[u8]) -> (Vec<u8>, Result<Vec<u8>, String>) {
        let mut dialogue = Proxy::parse(url).unwrap().dialogue(host, 25);
        let mut said = Vec::new();
        let mut left = Vec::new();
        for byte in answers {
            said.extend_from_slice(dialogue.output());
            dialogue.sent(dialogue.output().len());
            if dialogue.open() {
                left.push(*byte);
                continue;
            }
            match dialogue.on_bytes(&[*byte]) {
                Ok(more) => left.extend(more),
                Err(error) => return (said, Err(error.to_string())),
            }
        }
        let open = dialogue.open();
        (said, if open { Ok(left) } else { Err(dialogue.closed().to_string()) })
    }

    #[test]
    fn socks5_opens_the_way() {
        let name = [&[5, 1, 0, 3, 11][..], b"relay.local", &[0, 25]].concat();
        let good: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 0, 25];
        for (url, host, answers, said, result) in [
            (
                "socks5://p:1080",
                "relay.local",
                [&[5, 0], good, b"220"].concat(),
                [&[5, 1, 0], &name[..]].concat(),
                Ok(&b"220"[..]),
            ),
            (
                "socks5://u:p%40ss@p",
                "relay.local",
                [&[5, 2, 1, 0], good].concat(),
                [&[5, 2, 0, 2, 1, 1, b'u', 4], &b"p@ss"[..], &name].concat(),
                Ok(&[][..]),
            ),
            (
                "socks5://p",
                "127.0.0.1",
                [&[5, 0][..], &[5, 0, 0, 3, 2, b'a', b'b', 0, 1], b"2"].concat(),
                vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 25],
                Ok(b"2"),
            ),
            ("socks5://p", "h", vec![5, 0xff], vec![5, 1, 0], Err("it wants a user and a password")),
            ("socks5://u:p@p", "h", vec![5, 2, 1, 1], vec![], Err("it did not accept user and password")),
            ("socks5://p", "h", vec![5, 0, 5, 5], vec![], Err("the server refused the connection")),
            ("socks5://p", "h", b"HTTP/1.1 400".to_vec(), vec![], Err("its answer is no SOCKS5")),
            ("socks5://p", "h", vec![5], vec![], Err("it closed the connection before the way was open")),
        ] {
            let (spoken, outcome) = drive(url, host, &answers);
            match (outcome, result) {
                (Ok(left), Ok(expected)) => {
                    assert_eq!(left, expected);
                    assert_eq!(spoken, said);
                }
                (Err(error), Err(expected)) => assert!(error.ends_with(expected), "{error}"),
                (outcome, _) => panic!("{url} {answers:?}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn http_connect_opens_the_way() {
        for (answers, result) in [
            ("HTTP/1.1 200 OK\r\nX: y\r\n\r\n220 hi", Ok("220 hi")),
            ("HTTP/1.0 200 Connection established\r\n\r\n", Ok("")),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                Err("it did not accept user and password (407)"),
            ),
            ("HTTP/1.1 403 Forbidden\r\nA: b\r\n\r\n", Err("it answered 403 Forbidden")),
            ("220 mail ESMTP\r\n", Err("its answer is no HTTP")),
        ] {
            let (spoken, outcome) = drive("http://u:p@[::1]:3128/", "::2", answers.as_bytes());
            match (outcome, result) {
                (Ok(left), Ok(expected)) => assert_eq!(left, expected.as_bytes()),
                (Err(error), Err(expected)) => assert!(error.ends_with(expected), "{error}"),
                (outcome, _) => panic!("{answers}: {outcome:?}"),
            }
            assert_eq!(
                String::from_utf8(spoken).unwrap(),
                "CONNECT [::2]:25 HTTP/1.1\r\nHost: [::2]:25\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
            );
        }
        let (_, endless) =
            drive("http://p", "h", &[b"HTTP/1.1 200 ", vec![b'a'; 20_000].as_slice()].concat());
        assert!(endless.unwrap_err().ends_with("its answer has no end"));
    }

    #[test]
    fn a_proxy_is_read() {
        for (url, expected) in [
            ("socks5://proxy.example", Some("proxy.example:1080")),
            ("http://proxy.example", Some("proxy.example:8080")),
            ("socks5h://user:secret@[::1]:99", Some("[::1]:99")),
            ("http://a:b@c@proxy.example:1/", Some("proxy.example:1")),
            ("proxy.example:1080", None),
            ("ftp://proxy.example", None),
            ("socks5://proxy.example:0", None),
            ("socks5://user@proxy.example", None),
            ("socks5://u:%zz@proxy.example", None),
        ] {
            let proxy = Proxy::parse(url);
            assert_eq!(proxy.as_ref().ok().map(Proxy::shown).as_deref(), expected, "{url}");
            let shown = format!("{proxy:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(answers: Vec<Vec<u8>>, http: bool, login: bool) {
            let scheme = if http { "http" } else { "socks5" };
            let login = if login { "u:p@" } else { "" };
            let mut dialogue = Proxy::parse(&format!("{scheme}://{login}p")).unwrap().dialogue("h", 25);
            for answer in answers {
                if dialogue.open() || dialogue.on_bytes(&answer).is_err() {
                    break;
                }
            }
        }
    }
}
