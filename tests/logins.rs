//! Every login mechanism against Debian's Postfix with Dovecot's SASL behind it, on loopback. Needs root and
//! both packages; where they are missing it says so, and fails where nothing may be left out (`CI`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use postroom::job::{Timeouts, TlsMode, TlsSpec};
use postroom::net::{BlockingLink, Dialer, nonce};
use postroom::secret::Secret;
use postroom::wire::sasl::{Circumstances, Exchange, KeyMemory, Login, Mechanism, SaslError, choose};

/// Postfix and Dovecot, from start to drop.
struct Servers {
    dir: tempfile::TempDir,
    port: u16,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/postfix-auth.sh");

impl Servers {
    fn start() -> Option<Servers> {
        let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        let missing = ["/usr/sbin/postfix", "/usr/sbin/dovecot", "/usr/bin/openssl"]
            .into_iter()
            .find(|program| !Path::new(program).exists())
            .or((!root).then_some("root"));
        if let Some(missing) = missing {
            assert!(std::env::var_os("CI").is_none(), "{missing} is needed for Postfix and Dovecot");
            eprintln!("LEFT OUT: logins at Postfix need {missing}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Two ports side by side that are free now.
        let port = loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break port;
            }
        };
        let status = Command::new("sh")
            .args([SCRIPT.as_ref(), "start".as_ref(), dir.path().as_os_str(), port.to_string().as_ref()])
            .status()
            .unwrap();
        assert!(status.success());
        Some(Servers { dir, port })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn dial(&self, mode: TlsMode) -> Session {
        let spec = TlsSpec { mode, ca_file: Some(self.file("ca.pem")), client_cert: None, only_tls13: false };
        let port = if mode == TlsMode::Implicit { self.port + 1 } else { self.port };
        let link = Dialer::new("localhost", port, &spec, &Timeouts::default()).unwrap().dial().unwrap();
        let mut session = Session { link: BufReader::new(link) };
        assert_eq!(session.reply().0, 220);
        if mode == TlsMode::StartTls {
            session.say("EHLO localhost");
            session.reply();
            session.say("STARTTLS");
            assert_eq!(session.reply().0, 220);
            let unread = session.link.buffer().to_vec();
            session.link.get_mut().start_tls(&unread).unwrap();
        }
        session
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = Command::new("sh").arg(SCRIPT).arg("stop").arg(self.dir.path()).status();
    }
}

struct Session {
    link: BufReader<BlockingLink>,
}

impl Session {
    fn say(&mut self, line: &str) {
        let link = self.link.get_mut();
        link.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        link.flush().unwrap();
    }

    fn reply(&mut self) -> (u16, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.link.read_line(&mut line).unwrap();
            let line = line.trim_end_matches(['\r', '\n']);
            lines.push(line[4..].to_owned());
            if line.as_bytes()[3] == b' ' {
                return (line[..3].parse().unwrap(), lines);
            }
        }
    }

    /// Logs in; gives the reply and what the exchange has to say.
    fn login(&mut self, mechanism: Mechanism, secret: &str, room: usize) -> (u16, Option<String>) {
        let login = Login {
            user: "ada".to_owned(),
            secret: Secret::new(secret),
            binding: self.link.get_mut().link().channel_binding(),
            binding_offered: false,
            nonce: nonce().unwrap(),
            server: ("localhost".to_owned(), 25),
            keys: KeyMemory::default(),
        };
        let mut exchange = Exchange::new(mechanism, login).unwrap();
        let command = exchange.command(room);
        self.say(&format!("AUTH {command}"));
        loop {
            match self.reply() {
                (334, challenge) => match exchange.answer(&challenge[0]) {
                    Ok(answer) => self.say(&answer),
                    Err(error @ SaslError::Protocol { .. }) => panic!("{mechanism:?}: {error}"),
                    Err(_) => self.say("*"),
                },
                (235, _) => {
                    exchange.finish(None).unwrap();
                    return (235, None);
                }
                (code, _) => return (code, exchange.trouble().map(str::to_owned)),
            }
        }
    }
}

const PASSWORDS: [Mechanism; 5] =
    [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5, Mechanism::ScramSha1, Mechanism::ScramSha256];
const TOKENS: [Mechanism; 2] = [Mechanism::XOAuth2, Mechanism::OAuthBearer];

/// What is left of a command's line of 512 bytes.
const ROOM: usize = 512 - "AUTH \r\n".len();

#[test]
fn every_mechanism_logs_in_at_postfix() {
    let Some(servers) = Servers::start() else { return };
    let (password, token, stale) =
        (servers.text("password"), servers.text("token"), servers.text("stale-token"));
    for mode in [TlsMode::None, TlsMode::StartTls, TlsMode::Implicit] {
        for room in [0, ROOM] {
            for mechanism in PASSWORDS {
                let mut session = servers.dial(mode);
                session.say("EHLO localhost");
                let (_, offers) = session.reply();
                let auth = offers.iter().find_map(|offer| offer.strip_prefix("AUTH ")).unwrap();
                let offered: Vec<&str> = auth.split(' ').collect();
                let given = Circumstances {
                    offered: &offered,
                    wanted: Some(mechanism),
                    protected: true,
                    ..Circumstances::default()
                };
                assert_eq!(choose(&given), Ok(mechanism));
                assert_eq!(session.login(mechanism, &password, room), (235, None), "{mechanism:?} {mode:?}");
                session.say("MAIL FROM:<ada@example.com>");
                assert_eq!(session.reply().0, 250);

                // Dovecot thinks half a second about each: once for each mechanism is enough.
                if (mode, room) != (TlsMode::Implicit, ROOM) {
                    continue;
                }
                let mut session = servers.dial(mode);
                session.say("EHLO localhost");
                session.reply();
                assert_eq!(session.login(mechanism, "wrong", room), (535, None), "{mechanism:?} {mode:?}");
            }
            for mechanism in TOKENS {
                let mut session = servers.dial(mode);
                session.say("EHLO localhost");
                session.reply();
                assert_eq!(session.login(mechanism, &token, room), (235, None), "{mechanism:?} {mode:?}");

                if mode != TlsMode::Implicit {
                    continue;
                }
                let mut session = servers.dial(mode);
                session.say("EHLO localhost");
                session.reply();
                let (code, words) = session.login(mechanism, &stale, room);
                assert_eq!(code, 535, "{mechanism:?} {mode:?}");
                assert!(words.is_some_and(|words| words.starts_with("the token is not valid")));
            }
        }
    }
    assert!(!servers_log_complains(&servers.file("maillog")));
}

fn servers_log_complains(log: &Path) -> bool {
    let text = fs::read_to_string(log).unwrap();
    text.lines().any(|line| line.contains("fatal:") || line.contains("panic:") || line.contains("error:"))
}
