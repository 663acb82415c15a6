//! A trial server's end of a connection: plain or TLS, blocking, with lines and held-back replies.
//!
//! Replies are kept until the input is used up, so a pipelined group costs one write; the number
//! of such writes ("flights") is the number of round trips a waiting client has made.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::fault::Action;

/// How often a waiting thread looks whether the server is being stopped.
const TICK: Duration = Duration::from_millis(100);

/// What is read at once, and the longest command line: RFC 5321 asks for 512 octets, AUTH for 12,288.
const BUFFER: usize = 128 << 10;

/// How long a client that has been told goodbye may go on talking.
const FAREWELL: Duration = Duration::from_secs(1);

/// The session is over: by the client, by an error, by a rule, or because the server stops.
#[derive(Debug)]
pub(super) struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Over {
        Over
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(into),
            Stream::Tls(tls) => tls.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

pub(super) struct Link {
    stream: Option<Stream>,
    stop: Arc<AtomicBool>,
    idle: Duration,
    input: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
    /// Writes of replies so far.
    pub(super) flights: u64,
}

impl Link {
    pub(super) fn new(socket: TcpStream, stop: Arc<AtomicBool>, idle: Duration) -> io::Result<Link> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(TICK))?;
        Ok(Link {
            stream: Some(Stream::Plain(socket)),
            stop,
            idle,
            input: vec![0; BUFFER],
            start: 0,
            end: 0,
            out: Vec::new(),
            flights: 0,
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Some(Stream::Tls(_)))
    }

    /// Goes on in TLS. Whatever came along in clear text is forgotten: it must not count as said in
    /// secret (RFC 3207 §4.2, CVE-2011-0411).
    pub(super) fn start_tls(&mut self, config: &Arc<ServerConfig>) -> Result<(), Over> {
        self.flush()?;
        (self.start, self.end) = (0, 0);
        let Some(Stream::Plain(socket)) = self.stream.take() else { return Err(Over) };
        let connection = ServerConnection::new(Arc::clone(config)).map_err(|_| Over)?;
        let mut tls = Box::new(StreamOwned::new(connection, socket));
        let patience = Instant::now() + self.idle;
        while tls.conn.is_handshaking() {
            match tls.conn.complete_io(&mut tls.sock) {
                Ok(_) => {}
                Err(error) if waits(&error) && Instant::now() < patience && !self.stop.load(Relaxed) => {}
                Err(_) => return Err(Over),
            }
        }
        self.stream = Some(Stream::Tls(tls));
        Ok(())
    }

    /// Keeps a reply line until the input is used up.
    pub(super) fn reply(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// Keeps bytes as they are; a long answer goes out in pieces.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Over> {
        self.out.extend_from_slice(bytes);
        if self.out.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), Over> {
        if self.out.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(Over)?;
        let mut patience = Instant::now() + self.idle;
        let mut written = 0;
        while written < self.out.len() {
            match stream.write(&self.out[written..]) {
                Ok(0) => return Err(Over),
                Ok(count) => {
                    written += count;
                    patience = Instant::now() + self.idle;
                }
                Err(error) if waits(&error) && Instant::now() < patience && !self.stop.load(Relaxed) => {}
                Err(_) => return Err(Over),
            }
        }
        while let Err(error) = stream.flush() {
            if !waits(&error) || Instant::now() >= patience || self.stop.load(Relaxed) {
                return Err(Over);
            }
        }
        self.out.clear();
        self.flights += 1;
        Ok(())
    }

    /// What has been read and not been used.
    pub(super) fn have(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Waits for more input, after sending what is owed.
    pub(super) fn fill(&mut self) -> Result<(), Over> {
        self.flush()?;
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.input[self.end..];
        if room.is_empty() {
            return Err(Over); // an endless command line
        }
        let stream = self.stream.as_mut().ok_or(Over)?;
        let mut patience = None;
        loop {
            match stream.read(room) {
                Ok(0) => return Err(Over),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if waits(&error) && !self.stop.load(Relaxed) => {
                    let deadline = *patience.get_or_insert_with(|| Instant::now() + self.idle);
                    if Instant::now() >= deadline {
                        return Err(Over);
                    }
                }
                Err(_) => return Err(Over),
            }
        }
    }

    /// The next line, without its end. Bytes that are no UTF-8 are shown as U+FFFD.
    pub(super) fn line(&mut self) -> Result<String, Over> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.have()[searched..]) {
                let line = String::from_utf8_lossy(&self.have()[..searched + end]);
                let line = line.trim_end_matches(['\r', ' ', '\t']).to_owned();
                self.consume(searched + end + 1);
                return Ok(line);
            }
            searched = self.have().len();
            self.fill()?;
        }
    }

    /// Closes so that the last reply is read: a plain close with input left over would reset the
    /// connection and take the reply with it.
    pub(super) fn close(&mut self) -> Over {
        if self.flush().is_ok() {
            if let Some(Stream::Tls(tls)) = &mut self.stream {
                tls.conn.send_close_notify();
                let _ = tls.flush(); // the client may be gone already
            }
            if let Some(stream) = &self.stream {
                let _ = stream.socket().shutdown(Shutdown::Write);
            }
            self.drain(FAREWELL);
        }
        self.stream = None;
        Over
    }

    /// Closes at once; what is owed is not sent.
    pub(super) fn drop_now(&mut self) -> Over {
        if let Some(stream) = &self.stream {
            let _ = stream.socket().shutdown(Shutdown::Both);
        }
        self.stream = None;
        Over
    }

    /// Closes with a TCP reset.
    pub(super) fn reset(&mut self) -> Over {
        if let Some(stream) = &self.stream {
            let _ = socket2::SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
        }
        self.stream = None;
        Over
    }

    /// Ignores what the client says until it goes or is silent for `patience`.
    pub(super) fn drain(&mut self, patience: Duration) {
        let Some(stream) = &mut self.stream else { return };
        let mut deadline = Instant::now() + patience;
        while Instant::now() < deadline && !self.stop.load(Relaxed) {
            match stream.read(&mut self.input) {
                Ok(0) => return,
                Ok(_) => deadline = Instant::now() + patience,
                Err(error) if waits(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits, but not beyond the server's end.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Over> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.stop.load(Relaxed) {
                return Err(Over);
            }
            std::thread::sleep(left.min(TICK));
        }
        Ok(())
    }

    /// Does what a rule says; true if that was an answer. `flood` begins a line that never ends.
    pub(super) fn act(&mut self, action: &Action, flood: &[u8]) -> Result<bool, Over> {
        match action {
            Action::Reply(text) => {
                self.reply(text);
                Ok(true)
            }
            Action::Close(text) => {
                self.reply(text);
                Err(self.close())
            }
            Action::Delay(time) => {
                self.flush()?;
                self.pause(*time)?;
                Ok(false)
            }
            Action::Drop => {
                self.flush()?;
                Err(self.drop_now())
            }
            Action::Reset => {
                self.flush()?;
                Err(self.reset())
            }
            Action::Hang => {
                self.flush()?;
                self.drain(self.idle);
                Err(Over)
            }
            Action::Flood => {
                let _ = self.raw(flood); // flood ends the session whether this went out or not
                Err(self.flood())
            }
        }
    }

    /// Writes a line that never ends, until the client goes.
    fn flood(&mut self) -> Over {
        let chunk = [b'x'; 16 << 10];
        while self.raw(&chunk).is_ok() {}
        self.drop_now()
    }
}

/// The socket's timeout, which is only our tick.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
