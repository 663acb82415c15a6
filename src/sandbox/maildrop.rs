//! The maildrop: a folder of `.eml` files as one POP3 mailbox.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use rustls::ServerConfig;

use crate::secret::Secret;

use super::fault::Fault;
use super::link::Link;
use super::outbox::{Outbox, Summary};
use super::pop3;
use super::port::{Host, Port};
use super::tls::{self, Tls};

/// What UIDL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Uidls {
    /// One for each message, the same in every session.
    #[default]
    Stable,
    /// Others in each session, as after a server was moved.
    Changed,
    /// Pairs of messages share one (RFC 1939 allows it for equal ones; servers do worse).
    Duplicate,
    /// The command is not known.
    Missing,
}

/// How a server that offers PIPELINING fails at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Muddle {
    /// It does not.
    #[default]
    None,
    /// What arrived together with a command is thrown away.
    Lose,
    /// What arrived together with a command is answered with `-ERR`.
    Refuse,
    /// A command that does not come alone closes the connection.
    Close,
}

/// What the maildrop holds and how it behaves.
#[derive(Debug)]
pub struct MaildropOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its `.eml` files, in the order of their names, are the messages; DELE and QUIT remove them.
    pub folder: PathBuf,
    /// The login name.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// Each login, fetched and deleted message and applied rule becomes a line of JSON here.
    pub log: Option<PathBuf>,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Whether the greeting holds what APOP needs.
    pub apop: bool,
    /// Capabilities that are not offered, as CAPA names them.
    pub hide: Vec<String>,
    /// What UIDL says.
    pub uidls: Uidls,
    /// How pipelining fails.
    pub muddle: Muddle,
    /// LIST and STAT say sizes that are wrong.
    pub wrong_sizes: bool,
    /// A connection that says nothing for so long is closed.
    pub idle: Duration,
    /// Rules, of which the first that applies answers.
    pub faults: Vec<Fault>,
}

impl MaildropOptions {
    /// A well-behaved maildrop over `folder`.
    pub fn new(folder: PathBuf, user: &str, password: Secret) -> MaildropOptions {
        MaildropOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            folder,
            user: user.to_owned(),
            password,
            log: None,
            tls: None,
            apop: false,
            hide: Vec::new(),
            uidls: Uidls::Stable,
            muddle: Muddle::None,
            wrong_sizes: false,
            idle: Duration::from_secs(600),
            faults: Vec::new(),
        }
    }
}

/// A message as it was when the session's login locked the maildrop.
pub(super) struct Stored {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Bytes as sent, without dot-stuffing and the final dot.
    pub(super) size: u64,
    pub(super) deleted: bool,
}

/// What every session reads.
pub(super) struct Shared {
    pub(super) options: MaildropOptions,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) log: Outbox,
    stop: Arc<AtomicBool>,
    /// The maildrop is one session's at a time (RFC 1939 §4).
    pub(super) locked: AtomicBool,
    pub(super) sessions: AtomicU64,
}

impl Host for Shared {
    fn welcome(self: &Arc<Self>, socket: TcpStream) -> Option<Box<dyn FnOnce() + Send>> {
        self.log.opened();
        let shared = Arc::clone(self);
        Some(Box::new(move || {
            let flights = Link::new(socket, Arc::clone(&shared.stop), shared.options.idle)
                .map_or(0, |link| pop3::serve(link, &shared));
            shared.log.closed(flights);
        }))
    }

    fn lost(&self) {
        self.log.closed(0);
    }
}

/// A maildrop that is listening. Dropping it stops it.
pub struct Maildrop {
    shared: Arc<Shared>,
    port: Port,
}

impl Maildrop {
    /// Listens, and returns once the port is open.
    ///
    /// # Errors
    /// The port, the folder, the log or the certificate cannot be had.
    pub fn start(options: MaildropOptions) -> io::Result<Maildrop> {
        fs::create_dir_all(&options.folder)?;
        let tls = options.tls.as_ref().map(|tls| tls::server_config(&tls.folder)).transpose();
        let log = Outbox::open(None, options.log.as_deref())?;
        let (listen, stop) = (options.listen, Arc::<AtomicBool>::default());
        let shared = Arc::new(Shared {
            tls: tls.map_err(io::Error::other)?,
            log,
            stop: Arc::clone(&stop),
            locked: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            options,
        });
        let port = Port::open(listen, "sandbox maildrop", &shared, &stop)?;
        Ok(Maildrop { shared, port })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// What it has seen so far.
    pub fn summary(&self) -> Summary {
        self.shared.log.summary()
    }

    /// Closes the port and every connection, and says what was seen.
    pub fn stop(mut self) -> Summary {
        self.port.close();
        self.summary()
    }
}

/// The messages of a folder, by name.
pub(super) fn messages(folder: &Path) -> io::Result<Vec<Stored>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !name.ends_with(".eml") {
            continue;
        }
        let path = entry.path();
        let size = sent_size(&path)?;
        found.push(Stored { path, name, size, deleted: false });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A file that does not end its last line gets an end on the wire, as every POP3 server gives it one.
fn sent_size(path: &Path) -> io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    let mut end = [0; 2];
    if size >= 2 {
        file.seek(SeekFrom::End(-2))?;
        file.read_exact(&mut end)?;
    }
    Ok(if size == 0 || end == *b"\r\n" { size } else { size + 2 })
}
