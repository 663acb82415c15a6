//! How a server is reached: its addresses, the way through a proxy, and what its TLS must show.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::error::NetError;
use super::link::{BlockingLink, Link, poll};
use super::proxy::{self, Proxy};
use super::resolve::{self, Resolver};
use super::tls::TlsClient;
use crate::job::{Timeouts, TlsMode, TlsSpec};

/// A server and the way to it. Made once for a relay or mailbox; all its links share one memory of TLS
/// sessions. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    host: String,
    port: u16,
    to: Arc<str>,
    mode: TlsMode,
    tls: Option<TlsClient>,
    connect: Duration,
    proxy: Option<Proxy>,
    local: Option<IpAddr>,
    resolver: Arc<Resolver>,
}

/// RFC 8305 §5 recommends it: after so long without an answer the next address is tried beside the last.
const STAGGER: Duration = Duration::from_millis(250);

impl Dialer {
    /// A way to `host`:`port`. Reads the files that `tls` names; connects to nothing.
    pub fn new(host: &str, port: u16, tls: &TlsSpec, timeouts: &Timeouts) -> Result<Dialer, NetError> {
        let host = resolve::host_name(host)?;
        let client = match tls.mode {
            TlsMode::None => None,
            TlsMode::StartTls | TlsMode::Implicit => Some(TlsClient::new(tls, &host)?),
        };
        Ok(Dialer {
            to: proxy::show(&host, port).into(),
            host,
            port,
            mode: tls.mode,
            tls: client,
            connect: timeouts.connect,
            proxy: None,
            local: None,
            resolver: resolve::system(),
        })
    }

    /// The same, through the proxy of this URL.
    pub fn proxy(mut self, url: Option<&str>) -> Result<Dialer, NetError> {
        self.proxy = url.map(Proxy::parse).transpose()?;
        Ok(self)
    }

    /// The same, from this address of ours.
    pub fn local_address(mut self, local: Option<IpAddr>) -> Dialer {
        self.local = local;
        self
    }

    /// The same, asking another resolver.
    pub fn resolver(mut self, resolver: Arc<Resolver>) -> Dialer {
        self.resolver = resolver;
        self
    }

    /// host:port, for messages.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// The host as DNS and certificates know it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The addresses to connect to (the proxy's, where there is one), in the order in which they should be
    /// tried; only those that our local address can reach. Never empty. Waits for the resolver.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, NetError> {
        let (host, port) = match &self.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (self.host.as_str(), self.port),
        };
        let mut found = resolve::addresses(&self.resolver, host, port, self.connect)?;
        if let Some(local) = self.local {
            found.retain(|address| address.is_ipv6() == local.is_ipv6());
            if found.is_empty() {
                let family = if local.is_ipv6() { "IPv6" } else { "IPv4" };
                let source = io::Error::other(format!(
                    "it has no {family} address, which local_address {local} needs"
                ));
                return Err(NetError::Resolve { host: host.to_owned(), source });
            }
        }
        Ok(found)
    }

    /// Begins a connection to one of [`Dialer::addresses`], without waiting. The link is usable at once:
    /// until [`Link::progress`] says that it is established, reading and writing give `WouldBlock`.
    /// How long that may take is the caller's to measure.
    pub fn begin(&self, address: SocketAddr) -> Result<Link, NetError> {
        let stream = connect(address, self.local)
            .map_err(|source| NetError::Connect { to: format!("{} ({address})", self.to), source })?;
        let dialogue = self.proxy.as_ref().map(|proxy| proxy.dialogue(&self.host, self.port));
        Ok(Link::connecting(
            stream,
            address,
            Arc::clone(&self.to),
            dialogue,
            self.tls.clone(),
            self.mode == TlsMode::Implicit,
        ))
    }

    /// Has these addresses race, without waiting: see [`Race::step`].
    pub fn begin_race(&self, addresses: Vec<SocketAddr>, now: Instant) -> Race {
        Race {
            waiting: addresses.into_iter(),
            tried: Vec::new(),
            running: Vec::new(),
            failed: None,
            next_start: now,
            deadline: now + self.connect,
        }
    }

    /// Connects and waits until the link is established, TLS included where it begins with the first byte.
    /// Addresses [race](Race).
    pub fn dial(&self) -> Result<BlockingLink, NetError> {
        let addresses = self.addresses()?;
        let deadline = Instant::now() + self.connect;
        let mut link = BlockingLink::new(self.race(addresses)?, self.connect);
        link.establish(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
            NetError::Timeout { to, doing, .. } => NetError::Timeout { to, doing, after: self.connect },
            other => other,
        })?;
        Ok(link)
    }

    fn race(&self, addresses: Vec<SocketAddr>) -> Result<Link, NetError> {
        let mut race = self.begin_race(addresses, Instant::now());
        loop {
            if let Some(link) = race.step(self, Instant::now(), |_| Ok(()))? {
                return Ok(link);
            }
            let mut fds: Vec<_> = race.running.iter().map(|link| PollFd::new(link, PollFlags::OUT)).collect();
            poll(&mut fds, race.due().saturating_duration_since(Instant::now()))
                .map_err(|source| NetError::Connect { to: self.to.to_string(), source })?;
        }
    }
}

/// Connections on their way to the addresses of one server: who does not answer soon gets a rival, and the first that
/// stands wins (RFC 8305 §5). It never waits; the others are closed with it.
pub struct Race {
    waiting: std::vec::IntoIter<SocketAddr>,
    tried: Vec<SocketAddr>,
    running: Vec<Link>,
    failed: Option<NetError>,
    next_start: Instant,
    deadline: Instant,
}

impl Race {
    /// Who has won, if it is decided. Begins what is due, and tells `begun` of each. Worth a call when a socket can be
    /// written to, and when the race is [`Race::due`].
    pub fn step(
        &mut self,
        dialer: &Dialer,
        now: Instant,
        mut begun: impl FnMut(&mut Link) -> io::Result<()>,
    ) -> Result<Option<Link>, NetError> {
        let mut place = 0;
        while let Some(link) = self.running.get_mut(place) {
            match link.connected() {
                Ok(true) => return Ok(Some(self.running.swap_remove(place))),
                Ok(false) => place += 1,
                Err(error) => {
                    self.failed = Some(NetError::from_io(error, &dialer.to));
                    self.running.remove(place);
                    // A refusal is an answer: the next address need not wait.
                    self.next_start = now;
                }
            }
        }
        let to = || dialer.to.to_string();
        if now >= self.deadline {
            return Err(NetError::Timeout { to: to(), doing: "connecting", after: dialer.connect });
        }
        while now >= self.next_start
            && let Some(address) = self.waiting.next()
        {
            self.tried.push(address);
            let link = dialer.begin(address).and_then(|mut link| match begun(&mut link) {
                Ok(()) => Ok(link),
                Err(source) => Err(NetError::Connect { to: to(), source }),
            });
            match link {
                Ok(link) => {
                    self.running.push(link);
                    self.next_start = now + STAGGER;
                }
                Err(error) => self.failed = Some(error),
            }
        }
        if self.running.is_empty() {
            let source = io::ErrorKind::AddrNotAvailable.into();
            return Err(self.failed.take().unwrap_or_else(|| NetError::Connect { to: to(), source }));
        }
        Ok(None)
    }

    /// It need not take longer than until then.
    pub fn hurry(&mut self, until: Instant) {
        self.deadline = self.deadline.min(until);
    }

    /// When it goes on, though no socket says anything.
    pub fn due(&self) -> Instant {
        match self.waiting.as_slice() {
            [] => self.deadline,
            _ => self.next_start.min(self.deadline),
        }
    }

    /// The addresses to which a connection was begun.
    pub fn tried(&self) -> &[SocketAddr] {
        &self.tried
    }
}

/// A socket on its way: not blocking, without Nagle's delay (a small letter would wait 40 ms for the
/// server's delayed ACK), asked for life after a minute of silence, so that a firewall that forgot us is
/// noticed.
fn connect(address: SocketAddr, local: Option<IpAddr>) -> io::Result<mio::net::TcpStream> {
    use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)),
    )?;
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}
