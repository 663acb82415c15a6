//! The relay: what it offers, keeps and counts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustls::ServerConfig;

use crate::secret::Secret;

use super::fault::Fault;
use super::outbox::{Outbox, Summary};
use super::port::{Host, Port};
use super::tls::{self, Tls};
use super::{link::Link, smtp};

/// What the relay offers and how it behaves.
#[derive(Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Each accepted letter becomes a file here: `0001_ada@example.org.eml`.
    pub outbox: Option<PathBuf>,
    /// Each accepted letter, login and applied rule becomes a line of JSON here.
    pub log: Option<PathBuf>,
    /// Extensions that are not offered, as EHLO names them: `PIPELINING`, `CHUNKING`, ...
    pub hide: Vec<String>,
    /// The largest letter that is accepted.
    pub size: usize,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Name and password; without a login, MAIL is refused.
    pub auth: Option<(String, Secret)>,
    /// More connections than this are answered with 421.
    pub max_connections: usize,
    /// A connection that says nothing for so long is closed.
    pub idle: Duration,
    /// Rules, of which the first that applies answers.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            outbox: None,
            log: None,
            hide: Vec::new(),
            size: 100 << 20,
            tls: None,
            auth: None,
            max_connections: 1000,
            idle: Duration::from_secs(300),
            faults: Vec::new(),
        }
    }
}

/// What every session reads.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) outbox: Outbox,
    connections: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Host for Shared {
    fn welcome(self: &Arc<Self>, socket: TcpStream) -> Option<Box<dyn FnOnce() + Send>> {
        let counters = &self.outbox.counters;
        if counters.open.load(Relaxed) >= self.options.max_connections {
            counters.refused.fetch_add(1, Relaxed);
            smtp::turn_away(socket, self);
            return None;
        }
        let number = self.connections.fetch_add(1, Relaxed) + 1;
        self.outbox.opened();
        let shared = Arc::clone(self);
        Some(Box::new(move || {
            let flights = Link::new(socket, Arc::clone(&shared.stop), shared.options.idle)
                .map_or(0, |link| smtp::serve(link, number, &shared));
            shared.outbox.closed(flights);
        }))
    }

    fn lost(&self) {
        self.outbox.closed(0);
    }
}

/// A relay that is listening. Dropping it stops it.
pub struct Relay {
    shared: Arc<Shared>,
    port: Port,
}

impl Relay {
    /// Listens, and returns once the port is open.
    ///
    /// # Errors
    /// The port, the folder, the log or the certificate cannot be had.
    pub fn start(options: Options) -> io::Result<Relay> {
        let tls = options.tls.as_ref().map(|tls| tls::server_config(&tls.folder)).transpose();
        let outbox = Outbox::open(options.outbox.as_deref(), options.log.as_deref())?;
        let (listen, stop) = (options.listen, Arc::<AtomicBool>::default());
        let tls = tls.map_err(io::Error::other)?;
        let shared = Shared { tls, outbox, connections: AtomicU64::new(0), stop: Arc::clone(&stop), options };
        let shared = Arc::new(shared);
        let port = Port::open(listen, "sandbox relay", &shared, &stop)?;
        Ok(Relay { shared, port })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// Removes the letters of earlier trials from the outbox; numbers begin at 1 again.
    ///
    /// # Errors
    /// The folder cannot be read, or a file in it not removed.
    pub fn empty_outbox(&self) -> io::Result<()> {
        self.shared.outbox.empty()
    }

    /// What it has seen so far.
    pub fn summary(&self) -> Summary {
        self.shared.outbox.summary()
    }

    /// Closes the port and every connection, and says what was seen.
    pub fn stop(mut self) -> Summary {
        self.port.close();
        self.summary()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::fault::Protocol;
    use super::*;

    /// Says the lines of `C:` in one write after each group of `S:`, and compares what comes back.
    fn dialogue(options: Options, script: &str) -> Summary {
        let relay = Relay::start(options).expect("a relay on loopback");
        let mut socket = TcpStream::connect(relay.address()).expect("the relay's port");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut say = String::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(text) = line.strip_prefix("C:") {
                say.push_str(text.strip_prefix(' ').unwrap_or(text));
                say.push_str("\r\n");
                continue;
            }
            socket.write_all(say.as_bytes()).expect("the relay reads");
            say.clear();
            let expected = format!("{}\r\n", line.strip_prefix("S: ").expect("C: or S:"));
            let mut heard = vec![0; expected.len()];
            socket.read_exact(&mut heard).unwrap_or_else(|error| panic!("waiting for {line}: {error}"));
            assert_eq!(String::from_utf8_lossy(&heard), expected);
        }
        drop(socket);
        relay.stop()
    }

    #[test]
    fn a_pipelined_group_is_answered_in_order() {
        let summary = dialogue(
            Options::default(),
            "S: 220 localhost ESMTP postroom sandbox
             C: EHLO me
             S: 250-localhost
             S: 250-PIPELINING
             S: 250-CHUNKING
             S: 250-8BITMIME
             S: 250-SMTPUTF8
             S: 250-ENHANCEDSTATUSCODES
             S: 250 SIZE 104857600
             C: MAIL FROM:<a@x>
             C: RCPT TO:<b@x>
             C: DATA
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 354 End with .
             C: Subject: dots
             C:
             C: ..
             C: .
             C: MAIL FROM:<a@x>
             C: RCPT TO:<b@x>
             C: BDAT 4 LAST
             C: hi
             C: RSET
             S: 250 2.0.0 Ok: queued as 1
             S: 250 2.1.0 Ok
             S: 250 2.1.5 Ok
             S: 250 2.0.0 Ok: queued as 2
             S: 250 2.0.0 Ok
             C: QUIT
             S: 221 2.0.0 Bye",
        );
        assert_eq!((summary.messages, summary.bytes), (2, 15 + 2 + 3 + 4));
    }

    #[test]
    fn nothing_is_accepted_without_a_recipient() {
        let summary = dialogue(
            Options::default(),
            "S: 220 localhost ESMTP postroom sandbox
             C: MAIL FROM:<a@x>
             S: 503 5.5.1 Not now
             C: HELO me
             C: MAIL FROM:<a@x>
             C: DATA
             C: BDAT 2 LAST
             C:
             S: 250 localhost
             S: 250 2.1.0 Ok
             S: 554 5.5.1 No valid recipients
             S: 503 5.5.1 Not now",
        );
        assert_eq!(summary.messages, 0);
    }

    #[test]
    fn a_rule_answers_in_place_of_the_relay() {
        let rule = |text| Fault::parse(text, Protocol::Smtp, 1).expect("a rule");
        let summary = dialogue(
            Options {
                faults: vec![rule("rcpt if=b@* first=1 reply 450 4.2.1 later"), rule("commit close 421 bye")],
                ..Options::default()
            },
            "S: 220 localhost ESMTP postroom sandbox
             C: HELO me
             C: MAIL FROM:<a@x>
             C: RCPT TO:<b@x>
             C: RCPT TO:<b@x>
             C: DATA
             S: 250 localhost
             S: 250 2.1.0 Ok
             S: 450 4.2.1 later
             S: 250 2.1.5 Ok
             S: 354 End with .
             C: hello
             C: .
             S: 421 bye",
        );
        assert_eq!((summary.messages, summary.faults), (1, 2));
    }

    #[test]
    fn passwords_are_compared_and_not_logged() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log.jsonl");
        let summary = dialogue(
            Options {
                auth: Some(("me".to_owned(), Secret::new("hunter2"))),
                log: Some(log.clone()),
                ..Options::default()
            },
            "S: 220 localhost ESMTP postroom sandbox
             C: HELO me
             C: MAIL FROM:<a@x>
             S: 250 localhost
             S: 530 5.7.0 AUTH first
             C: AUTH PLAIN AG1lAHdyb25n
             S: 535 5.7.8 Wrong user or password
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: bWU=
             S: 334 UGFzc3dvcmQ6
             C: aHVudGVyMg==
             S: 235 2.7.0 Welcome
             C: MAIL FROM:<a@x>
             S: 250 2.1.0 Ok",
        );
        assert_eq!((summary.logins, summary.failed_logins), (1, 1));
        let log = std::fs::read_to_string(log).expect("the log");
        assert!(
            log.contains(r#""user":"me""#) && !log.contains("hunter2") && !log.contains("wrong"),
            "{log}"
        );
    }
}
