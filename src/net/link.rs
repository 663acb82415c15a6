//! A connection, plain or under TLS, driven by readiness or waited for.
//!
//! Under TLS a write is made into records of up to 16 KB over all slices given at once, and goes to the
//! kernel in one `writev`; what the kernel does not take waits in the session, at most
//! [`TLS_BUFFER`] bytes, and nothing more is accepted until it has gone. So every record but the last of a
//! write is full, and memory is bounded.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustls::client::ClientConnection;

use super::error::{NetError, TlsTrouble};
use super::proxy::Dialogue;
use super::tls::{self, TlsClient};
use crate::wire::sasl::ChannelBinding;

/// Most bytes that wait in a TLS session for the kernel: four full records.
const TLS_BUFFER: usize = 64 * 1024;

/// Most bytes read from the socket at once under TLS. rustls by itself reads 4 KB at a time, four calls for
/// each full record.
const INBOUND: usize = 32 * 1024;

/// A connection that never waits. Until it is established, [`Link::read`] and [`Link::write_vectored`]
/// give `WouldBlock`, and drive what is left to be done: connecting, the proxy, the handshake.
///
/// Readiness is edge-triggered with mio: register once for reading and writing, then read until
/// `WouldBlock`, write until `WouldBlock`.
pub struct Link {
    stream: TcpStream,
    peer: SocketAddr,
    to: Arc<str>,
    stage: Stage,
    client: Option<TlsClient>,
    tls: Option<Box<ClientConnection>>,
    /// TLS begins with the first byte.
    implicit: bool,
    /// Through a proxy: the peer is not where what is said ends up.
    proxied: bool,
    inbound: Inbound,
    ended: bool,
    truncated: bool,
    /// The server has said something in plain text.
    heard: bool,
    /// The last read from the socket brought less than there was room for.
    short: bool,
    /// Plain bytes that wait in the session.
    readable: usize,
}

enum Stage {
    Connecting(Option<Dialogue>),
    Proxy(Dialogue),
    Open,
}

/// Bytes read from the socket that nobody has taken yet.
#[derive(Default)]
struct Inbound {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

impl Inbound {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    fn take(&mut self, count: usize) {
        self.at += count;
    }

    /// Reads once from the socket. Only when nothing is waiting.
    fn fill(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        self.bytes.resize(INBOUND, 0);
        (self.at, self.end) = (0, 0);
        self.end = read_once(stream, &mut self.bytes)?;
        Ok(self.end)
    }
}

impl Link {
    /// A connection that has just been begun.
    pub(super) fn connecting(
        stream: TcpStream,
        peer: SocketAddr,
        to: Arc<str>,
        proxy: Option<Dialogue>,
        client: Option<TlsClient>,
        implicit: bool,
    ) -> Link {
        let proxied = proxy.is_some();
        let stage = Stage::Connecting(proxy);
        let inbound = Inbound::default();
        Link {
            stream,
            peer,
            to,
            stage,
            client,
            tls: None,
            implicit,
            proxied,
            inbound,
            ended: false,
            truncated: false,
            heard: false,
            short: false,
            readable: 0,
        }
    }

    /// Goes on with what is left to be done before the protocol can speak: connecting, the proxy, TLS where
    /// it was begun. `true` once the link is established. An error's [`NetError`] is had by
    /// [`Link::error`].
    pub fn progress(&mut self) -> io::Result<bool> {
        match self.advance() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether something is left to be done before the protocol can speak.
    pub fn handshaking(&self) -> bool {
        !matches!(self.stage, Stage::Open) || self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// What is being done now, for the error that says it took too long.
    pub fn doing(&self) -> &'static str {
        match (&self.stage, &self.tls) {
            (Stage::Connecting(_), _) => "connecting",
            (Stage::Proxy(_), _) => "asking the proxy for the way",
            (Stage::Open, Some(tls)) if tls.is_handshaking() => "in the TLS handshake",
            // A server that waits for a handshake says nothing, and so do we: both would wait for ever.
            (Stage::Open, None)
                if !self.heard && [":465", ":995"].iter().any(|port| self.to.ends_with(port)) =>
            {
                "waiting for its greeting (this port mostly speaks TLS from the first byte: is it `tls: implicit`?)"
            }
            (Stage::Open, _) => "waiting for the server",
        }
    }

    /// Reads what has come. `WouldBlock`: nothing now; 0: the server has ended its side. An error's
    /// [`NetError`] is had by [`Link::error`].
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        if buf.is_empty() {
            return Ok(0);
        }
        if self.tls.is_none() {
            let waiting = self.inbound.waiting();
            if !waiting.is_empty() {
                let count = waiting.len().min(buf.len());
                buf[..count].copy_from_slice(&waiting[..count]);
                self.inbound.take(count);
                return Ok(count);
            }
            let count = read_once(&mut self.stream, buf)?;
            self.short = count < buf.len();
            self.heard = true;
            return Ok(count);
        }
        loop {
            let Some(tls) = &mut self.tls else { return Ok(0) };
            match tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.ended => self.feed()?,
                // The end without close_notify. No protocol here ends a message by closing, so that nothing
                // can be cut off unnoticed; many servers never say goodbye.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.truncated = true;
                    return Ok(0);
                }
                Ok(count) => {
                    self.readable = self.readable.saturating_sub(count);
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the last read took all that had come, so that with edge-triggered readiness the next may wait
    /// for an event: the system call that would only say `WouldBlock` is saved. Not so once an event has
    /// said that the server's side is closed ([`mio::event::Event::is_read_closed`]): the end itself is only
    /// seen by reading.
    pub fn drained(&self) -> bool {
        self.short && self.readable == 0 && self.inbound.waiting().is_empty()
    }

    /// Writes as much as is taken at once of these slices, in their order. `WouldBlock`: nothing can be
    /// taken now. Under TLS what was taken may still wait in the session: see [`Link::wants_write`].
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.advance()?;
        let Some(tls) = &mut self.tls else {
            loop {
                match self.stream.write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        };
        // Nothing is added to what waits, so that records are full and memory is bounded.
        push(tls, &mut self.stream)?;
        let mut total = 0;
        let enough = slices.iter().take_while(|slice| {
            let more = total < TLS_BUFFER;
            total += slice.len();
            more
        });
        let taken = tls.writer().write_vectored(&slices[..enough.count()]).map_err(unwrap_tls)?;
        // Records may have gone before one failed, so what was taken is told as taken. The next write, or flush, fails
        // where this one did.
        let _ = push(tls, &mut self.stream);
        Ok(taken)
    }

    /// Hands what waits in the session to the kernel. `WouldBlock`: some of it still waits.
    pub fn flush(&mut self) -> io::Result<()> {
        self.advance()?;
        match &mut self.tls {
            Some(tls) => push(tls, &mut self.stream),
            None => Ok(()),
        }
    }

    /// Whether the link itself has something to write, whatever the protocol has.
    pub fn wants_write(&self) -> bool {
        match &self.stage {
            Stage::Connecting(_) => true,
            Stage::Proxy(dialogue) => !dialogue.output().is_empty(),
            Stage::Open => self.tls.as_ref().is_some_and(|tls| tls.wants_write()),
        }
    }

    /// Whether the link itself waits for something to read before the protocol can speak.
    pub fn wants_read(&self) -> bool {
        match &self.stage {
            Stage::Connecting(_) => false,
            Stage::Proxy(dialogue) => dialogue.output().is_empty(),
            Stage::Open => self.tls.as_ref().is_none_or(|tls| tls.wants_read()),
        }
    }

    /// What to register for, when `writing` says whether the protocol has something to write. With
    /// edge-triggered readiness `READABLE | WRITABLE` once is enough, and cheaper.
    pub fn interest(&self, writing: bool) -> Interest {
        let established = !self.handshaking();
        let write = self.wants_write() || (established && writing);
        match (established || self.wants_read(), write) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (_, false) => Interest::READABLE,
        }
    }

    /// Begins TLS after the server's yes to STARTTLS or STLS. `unread` is what the protocol has read and
    /// not understood yet: bytes that came in plain text and would be taken for the server's words under
    /// TLS. There must be none (RFC 3207 §6, and the attack named after it).
    pub fn start_tls(&mut self, unread: &[u8]) -> Result<(), NetError> {
        let bytes = unread.len() + self.inbound.waiting().len();
        if bytes > 0 {
            return Err(NetError::Injected { to: self.to.to_string(), bytes });
        }
        if self.tls.is_some() || self.handshaking() {
            return Err(NetError::Setting("TLS was begun twice over one connection".to_owned()));
        }
        self.begin_tls().map_err(|error| NetError::from_io(error, &self.to))?;
        match self.advance() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(NetError::from_io(error, &self.to))
            }
            _ => Ok(()),
        }
    }

    /// Whether what is said now is protected.
    pub fn secured(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_handshaking())
    }

    /// Whether nobody can listen: TLS, or a server on this very machine. Only then a secret may be said as it
    /// is. A proxy on this machine is no such server: from there the words go on in plain text.
    pub fn protected(&self) -> bool {
        self.secured() || (self.peer.ip().is_loopback() && !self.proxied)
    }

    /// Protocol version and cipher suite, once the handshake is done: `TLSv1_3, TLS13_AES_128_GCM_SHA256`.
    pub fn tls_words(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let version = tls.protocol_version()?.as_str()?;
        Some(format!("{version}, {}", tls.negotiated_cipher_suite()?.suite().as_str()?))
    }

    /// Whether the session was resumed, so that no certificate had to be sent and verified again.
    pub fn resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(rustls::HandshakeKind::Resumed)
    }

    /// What ties a login to this session, once the handshake is done.
    pub fn channel_binding(&self) -> Option<ChannelBinding> {
        self.tls.as_deref().filter(|tls| !tls.is_handshaking()).and_then(tls::channel_binding)
    }

    /// Whether the server ended a TLS session without saying so (close_notify).
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Says goodbye: close_notify under TLS, then the end of our side. What the server still says can be
    /// read. Best effort: the protocol has said all that counts.
    pub fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = push(tls, &mut self.stream);
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The address connected to: the server's, or the proxy's.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Our address on this connection.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// host:port of the server, for messages.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// What an error of this link means.
    pub fn error(&self, error: io::Error) -> NetError {
        NetError::from_io(error, &self.to)
    }

    /// The error that says that what is being done took too long.
    pub fn timed_out(&self, after: Duration) -> NetError {
        NetError::Timeout { to: self.to.to_string(), doing: self.doing(), after }
    }

    /// Whether the TCP connection stands.
    pub(super) fn connected(&mut self) -> io::Result<bool> {
        let failed =
            |source| NetError::Connect { to: format!("{} ({})", self.to, self.peer), source }.into_io();
        if let Some(error) = self.stream.take_error().map_err(failed)? {
            return Err(failed(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Goes on until the protocol can speak; `WouldBlock` until then.
    fn advance(&mut self) -> io::Result<()> {
        loop {
            match &mut self.stage {
                Stage::Open => match &self.tls {
                    Some(tls) if tls.is_handshaking() => self.shake_hands()?,
                    _ => return Ok(()),
                },
                Stage::Connecting(_) => {
                    if !self.connected()? {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let stage = std::mem::replace(&mut self.stage, Stage::Open);
                    match stage {
                        Stage::Connecting(Some(dialogue)) => self.stage = Stage::Proxy(dialogue),
                        _ => self.opened()?,
                    }
                }
                Stage::Proxy(dialogue) => {
                    while !dialogue.output().is_empty() {
                        let count = self.stream.write(dialogue.output())?;
                        dialogue.sent(count);
                    }
                    let mut answer = [0; 512];
                    let count = read_once(&mut self.stream, &mut answer)?;
                    if count == 0 {
                        return Err(dialogue.closed().into_io());
                    }
                    let rest = dialogue.on_bytes(&answer[..count]).map_err(NetError::into_io)?;
                    if dialogue.open() {
                        // A server that greets at once may have spoken already.
                        self.inbound = Inbound { end: rest.len(), bytes: rest, at: 0 };
                        self.opened()?;
                    }
                }
            }
        }
    }

    fn opened(&mut self) -> io::Result<()> {
        self.stage = Stage::Open;
        if self.implicit { self.begin_tls() } else { Ok(()) }
    }

    fn begin_tls(&mut self) -> io::Result<()> {
        let Some(client) = &self.client else {
            return Err(
                NetError::Setting("TLS was begun on a connection set up without it".to_owned()).into_io()
            );
        };
        let mut tls = client.begin().map_err(|error| {
            NetError::Tls { to: self.to.to_string(), trouble: TlsTrouble::Other(error.to_string()) }.into_io()
        })?;
        tls.set_buffer_limit(Some(TLS_BUFFER));
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            push(tls, &mut self.stream)?;
            if !tls.is_handshaking() {
                return Ok(());
            }
        }
        self.feed()
    }

    /// Gives the session what has come, reading once from the socket if nothing waits.
    fn feed(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let handshaking = tls.is_handshaking();
        let mut at_end = false;
        if self.inbound.waiting().is_empty() {
            let count = self.inbound.fill(&mut self.stream)?;
            self.short = count < INBOUND;
            at_end = count == 0;
        }
        let count = tls.read_tls(&mut self.inbound.waiting())?;
        self.inbound.take(count);
        match tls.process_new_packets() {
            Ok(state) => self.readable = state.plaintext_bytes_to_read(),
            Err(error) => {
                // The alert that tells the server why; that it may not get it changes nothing.
                let _ = push(tls, &mut self.stream);
                let trouble = tls::trouble(&error, handshaking, self.implicit);
                return Err(NetError::Tls { to: self.to.to_string(), trouble }.into_io());
            }
        }
        if at_end {
            self.ended = true;
            if tls.is_handshaking() {
                return Err(NetError::Tls { to: self.to.to_string(), trouble: TlsTrouble::Closed }.into_io());
            }
        }
        // What the session owes the server (the end of the handshake, a new key) goes as soon as it can.
        match push(tls, &mut self.stream) {
            Err(error) if handshaking && error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // That the server takes no more is for the next write to find. What it said can still be read.
            _ => Ok(()),
        }
    }
}

impl Read for Link {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Link::read(self, buf)
    }
}

impl Write for Link {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Link::write_vectored(self, &[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Link::write_vectored(self, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Link::flush(self)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl mio::event::Source for Link {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.stream.deregister(registry)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("to", &self.to).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A link that is waited for: each operation at most so long as the timeout says.
#[derive(Debug)]
pub struct BlockingLink {
    link: Link,
    timeout: Duration,
}

impl BlockingLink {
    /// Waits at most `timeout` for each operation.
    pub fn new(link: Link, timeout: Duration) -> BlockingLink {
        BlockingLink { link, timeout }
    }

    /// How long each operation from now on may wait: for the first byte read, for each progress in writing.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Waits until the protocol can speak, at most `timeout` in all.
    pub fn establish(&mut self, timeout: Duration) -> Result<(), NetError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.link.progress() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(self.link.error(error)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.link.timed_out(timeout));
            }
            self.wait(self.link.wants_read(), self.link.wants_write(), left)
                .map_err(|error| self.link.error(error))?;
        }
    }

    /// Begins TLS and waits for the handshake: see [`Link::start_tls`].
    pub fn start_tls(&mut self, unread: &[u8]) -> Result<(), NetError> {
        self.link.start_tls(unread)?;
        self.establish(self.timeout)
    }

    /// Waits until the socket can be read or written, whichever is asked for, at most `timeout`; says which
    /// it can. Neither: the time is over. For callers that read while they write, by [`BlockingLink::link`].
    pub fn wait(&self, read: bool, write: bool, timeout: Duration) -> io::Result<(bool, bool)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        let mut fds = [PollFd::new(&self.link, flags)];
        poll(&mut fds, timeout)?;
        let found = fds[0].revents();
        // An error or hang-up is for the next read or write to find.
        let broken = found.intersects(PollFlags::ERR | PollFlags::HUP);
        Ok((
            found.contains(PollFlags::IN) || (read && broken),
            found.contains(PollFlags::OUT) || (write && broken),
        ))
    }

    /// The link itself, which never waits.
    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// What an error of this link means.
    pub fn error(&self, error: io::Error) -> NetError {
        self.link.error(error)
    }

    fn again<T>(
        &mut self,
        reading: bool,
        mut attempt: impl FnMut(&mut Link) -> io::Result<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match attempt(&mut self.link) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.link.timed_out(self.timeout).into_io());
            }
            let shaking = self.link.handshaking();
            let read = if shaking { self.link.wants_read() } else { reading };
            let write = self.link.wants_write() || (!shaking && !reading);
            self.wait(read, write, left)?;
        }
    }
}

impl Read for BlockingLink {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.again(true, |link| link.read(buf))
    }
}

impl Write for BlockingLink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.again(false, |link| link.write_vectored(&[IoSlice::new(buf)]))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.again(false, |link| link.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.again(false, Link::flush)
    }
}

/// One read from the socket; a signal is no reason to stop.
fn read_once(stream: &mut TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Hands what waits in the session to the kernel; `WouldBlock` if some of it still waits.
fn push(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// rustls wraps its own error when a broken session is written to; its text is enough by then.
fn unwrap_tls(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error.to_string())
}

/// poll(2), again after a signal, at most `timeout` in all.
pub(super) fn poll(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().min(1 << 30) as _, tv_nsec: left.subsec_nanos() as _ };
        match rustix::event::poll(fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
