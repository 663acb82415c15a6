//! One POP3 session: the shell that moves the bytes of `wire::pop3` over a link.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::store::StoreError;
use crate::job::Timeouts;
use crate::net::transcript::Transcript;
use crate::net::{BlockingLink, Dialer, NetError};
use crate::wire::pop3::{
    Capabilities, Command, Content, MAX_STATUS_LINE, NotALine, NotAReply, Reply, ResponseCode,
};
use crate::wire::sasl::{NoMechanism, SaslError, Secrets};

/// Why a session could not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The network, or TLS.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The server ended the connection.
    #[error("the server closed the connection{0}")]
    Closed(&'static str),
    /// Nothing came for so long, or no whole line.
    #[error("the server sent nothing, or no whole line, for {} s{}", .0.as_secs(), if *.1 > 1 { " while several commands were unanswered" } else { "" })]
    Silent(Duration, usize),
    /// Answers to commands sent together were not what they can be.
    #[error("the server lost the order of commands sent together")]
    Muddled,
    /// What came is no POP3.
    #[error(transparent)]
    NotAReply(#[from] NotAReply),
    /// A line without end.
    #[error("the server sent a line of more than {0} bytes where a short one belongs")]
    EndlessLine(usize),
    /// A list longer than any mailbox.
    #[error("the answer to {0} has no end")]
    EndlessList(&'static str),
    /// The server said no to what it must do.
    #[error("the server answered {command} with `{}`", .reply.text)]
    Refused {
        /// The command's word.
        command: &'static str,
        /// Its answer.
        reply: Reply,
    },
    /// The maildrop cannot be had now, but later.
    #[error("the mailbox is not to be had now: {}", .0.text)]
    Busy(Reply),
    /// The server did not accept the login.
    #[error("{host} did not accept the login of {user}: {words}")]
    Login {
        /// Where.
        host: String,
        /// Who.
        user: String,
        /// The server's words.
        words: String,
    },
    /// No way to log in is left.
    #[error("cannot log in: {0}")]
    NoMechanism(#[from] NoMechanism),
    /// The exchange of the login went wrong.
    #[error("cannot log in: {0}")]
    Sasl(#[from] SaslError),
    /// There is no APOP timestamp in the greeting.
    #[error("the job asks for APOP, and the server's greeting has no timestamp for it")]
    NoApop,
    /// The server offers no STLS.
    #[error("the job asks for `tls: starttls`, and the server does not offer STLS")]
    NoStls,
    /// The password would be read by whoever listens.
    #[error("without TLS the password would travel in plain text; only a server on loopback may have it so")]
    Unprotected,
    /// The secret could not be had.
    #[error("cannot have the password: {0}")]
    Credential(String),
    /// Name or password cannot be said.
    #[error(transparent)]
    NotALine(#[from] NotALine),
    /// The disk.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The run was asked to stop.
    #[error("stopped")]
    Stopped,
}

/// How often a run was asked to stop: once is in good order, twice is at once.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Counts requests from elsewhere, such as a signal handler.
    pub fn counting(requests: Arc<AtomicUsize>) -> Stop {
        Stop(requests)
    }

    /// Asks for it.
    pub fn ask(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nothing new should be begun.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Whether to stop at once.
    pub fn at_once(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 1
    }
}

/// The buffer for what the server sends: one read empties a socket's usual buffer.
const BUFFER: usize = 256 * 1024;
/// A wait looks this often whether it should stop.
const TICK: Duration = Duration::from_millis(200);
/// A line of CAPA, LIST or UIDL. One that is too long to say anything is passed over; this long is none.
const MAX_LIST_LINE: usize = 64 * 1024;
/// Once asked to stop, replies are awaited for so long.
const GRACE: Duration = Duration::from_secs(30);

/// A connection to a POP3 server, after its greeting.
pub struct Session {
    link: BlockingLink,
    dialer: Dialer,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    out: Vec<u8>,
    unanswered: usize,
    timeouts: Timeouts,
    trace: Option<Transcript>,
    /// What was said of the login that is going on.
    secrets: Secrets,
    stop: Stop,
    /// What CAPA listed last.
    pub capabilities: Capabilities,
}

impl Session {
    /// Connects and reads the greeting.
    pub fn open(
        dialer: &Dialer,
        timeouts: &Timeouts,
        trace: Option<Transcript>,
        stop: Stop,
    ) -> Result<(Session, Reply), SessionError> {
        let link = dialer.dial()?;
        if let Some(trace) = &trace {
            trace.note(&format!("connected to {}", dialer.to()));
        }
        let mut session = Session {
            link,
            dialer: dialer.clone(),
            buffer: vec![0; BUFFER],
            from: 0,
            to: 0,
            out: Vec::new(),
            unanswered: 1,
            timeouts: *timeouts,
            trace,
            secrets: Secrets::default(),
            stop,
            capabilities: Capabilities::default(),
        };
        let greeting = session.reply_within(timeouts.greeting)?;
        if !greeting.is_ok() {
            return Err(refusal("the connection", greeting));
        }
        Ok((session, greeting))
    }

    /// The link, for what the login wants to know of it.
    pub fn link(&mut self) -> &mut BlockingLink {
        &mut self.link
    }

    /// The way to the server.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends commands together.
    pub fn send(&mut self, commands: &[Command<'_>]) -> Result<(), SessionError> {
        self.out.clear();
        for command in commands {
            command.write(&mut self.out)?;
            match command.secret() {
                Some(secret) => self.secrets.said(secret),
                None => self.secrets = Secrets::default(),
            }
            if let Some(trace) = &self.trace {
                match command.before_secret() {
                    Some(shown) => trace.client_secret(&shown),
                    None => trace.client(command.to_string().as_bytes()),
                }
            }
        }
        self.unanswered += commands.len();
        let out = std::mem::take(&mut self.out);
        let sent = self.write(&out);
        self.out = out;
        sent
    }

    /// Sends lines that were prepared: `count` commands without secrets.
    pub fn send_prepared(&mut self, lines: &[u8], count: usize) -> Result<(), SessionError> {
        if let Some(trace) = &self.trace {
            trace.client(lines);
        }
        self.unanswered += count;
        self.write(lines)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.link.set_timeout(self.timeouts.block);
        let sent = self.link.write_all(bytes).and_then(|()| self.link.flush());
        sent.map_err(|error| self.link.error(error).into())
    }

    /// Sends one command and reads its status line.
    pub fn ask(&mut self, command: Command<'_>) -> Result<Reply, SessionError> {
        self.send(&[command])?;
        self.reply()
    }

    /// The next status line.
    pub fn reply(&mut self) -> Result<Reply, SessionError> {
        self.reply_within(self.timeouts.command)
    }

    /// The next status line, if it begins to come within `patience`.
    pub fn reply_within(&mut self, patience: Duration) -> Result<Reply, SessionError> {
        let (start, end) = self.line(MAX_STATUS_LINE, patience)?;
        // A server may repeat the line that it did not understand.
        let line = self.secrets.hide(&self.buffer[start..end]);
        if let Some(trace) = &self.trace {
            trace.server(&line);
        }
        let reply = Reply::parse(&line)?;
        self.unanswered = self.unanswered.saturating_sub(1);
        Ok(reply)
    }

    /// The lines of a list, after its status line.
    pub fn list(
        &mut self,
        command: &'static str,
        most: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<usize, SessionError> {
        for count in 0..=most {
            let (start, end) = self.line(MAX_LIST_LINE, self.timeouts.command)?;
            let line = &self.buffer[start..end];
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(trace) = &self.trace {
                trace.server(line);
            }
            match line {
                b"." => return Ok(count),
                line => each(line.strip_prefix(b".").unwrap_or(line)),
            }
        }
        Err(SessionError::EndlessList(command))
    }

    /// Reads content until its end; hands it on in pieces.
    pub fn content<E: Into<SessionError>>(
        &mut self,
        patience: Duration,
        mut keep: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, SessionError> {
        let mut content = Content::default();
        let mut size = 0;
        loop {
            let mut kept = Ok(());
            self.from += content.feed(&self.buffer[self.from..self.to], |piece| {
                size += piece.len() as u64;
                if kept.is_ok() {
                    kept = keep(piece);
                }
            });
            kept.map_err(Into::into)?;
            if content.is_complete() {
                if let Some(trace) = &self.trace {
                    trace.server_content(size);
                }
                return Ok(size);
            }
            self.fill(patience, Instant::now())?;
        }
    }

    /// Begins TLS after `+OK` to STLS. Whatever came before the handshake is refused.
    pub fn start_tls(&mut self) -> Result<(), SessionError> {
        self.link.set_timeout(self.timeouts.connect);
        let unread = self.buffer[self.from..self.to].to_vec();
        self.link.start_tls(&unread)?;
        (self.from, self.to) = (0, 0);
        self.capabilities = Capabilities::default();
        if let Some(trace) = &self.trace {
            trace.note("TLS");
        }
        Ok(())
    }

    /// Asks for the capabilities; a server without CAPA has none.
    pub fn capa(&mut self) -> Result<(), SessionError> {
        self.send(&[Command::Capa])?;
        self.capa_reply()
    }

    /// Reads the answer to a CAPA that was sent.
    pub fn capa_reply(&mut self) -> Result<(), SessionError> {
        let reply = self.reply()?;
        self.capabilities = Capabilities::default();
        if reply.is_ok() {
            let mut capabilities = Capabilities::default();
            self.list("CAPA", MAX_CAPABILITIES, |line| capabilities.note(line))?;
            self.capabilities = capabilities;
        }
        Ok(())
    }

    /// How long the server may be silent while several commands are unanswered, before it counts as a
    /// stumble over them.
    pub fn stall(&self) -> Duration {
        STALL.min(self.timeouts.command / 4)
    }

    /// Commands that were sent and not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// How long a command may take.
    pub fn patience(&self) -> Duration {
        self.timeouts.command
    }

    /// Ends the connection without QUIT: nothing is deleted.
    pub fn hang_up(mut self) {
        if let Some(trace) = &self.trace {
            trace.note("closed without QUIT");
        }
        self.link.link().close();
    }

    /// The bounds of the next line in the buffer. It has to be whole within `patience`: a server that sends an
    /// octet now and then is waited for no longer than one that is silent.
    fn line(&mut self, most: usize, patience: Duration) -> Result<(usize, usize), SessionError> {
        let begun = Instant::now();
        let mut searched = 0;
        loop {
            let have = &self.buffer[self.from..self.to];
            if let Some(found) = memchr::memchr(b'\n', &have[searched..]) {
                let start = self.from;
                let end = start + searched + found + 1;
                if end - start > most {
                    return Err(SessionError::EndlessLine(most));
                }
                self.from = end;
                return Ok((start, end));
            }
            searched = have.len();
            if searched > most {
                return Err(SessionError::EndlessLine(most));
            }
            if searched > 0 && begun.elapsed() >= patience {
                return Err(SessionError::Silent(patience, self.unanswered));
            }
            self.fill(patience, begun)?;
        }
    }

    /// Reads more; waits for it until `patience` is over, which began when `begun` says.
    fn fill(&mut self, patience: Duration, begun: Instant) -> Result<(), SessionError> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        loop {
            if self.stop.at_once() {
                return Err(SessionError::Stopped);
            }
            match self.link.link().read(&mut self.buffer[self.to..]) {
                Ok(0) => {
                    let truncated = self.link.link().truncated();
                    return Err(SessionError::Closed(if truncated { " without ending TLS" } else { "" }));
                }
                Ok(count) => {
                    self.to += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.link.error(error).into()),
            }
            let patience = if self.stop.asked() { patience.min(GRACE) } else { patience };
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(SessionError::Silent(patience, self.unanswered));
            }
            let writing = self.link.link().wants_write();
            let waited = self.link.wait(true, writing, left.min(TICK));
            waited.map_err(|error| SessionError::from(self.link.error(error)))?;
        }
    }
}

/// See [`Session::stall`].
const STALL: Duration = Duration::from_secs(20);

/// No server lists so many.
const MAX_CAPABILITIES: usize = 1000;

/// What a `-ERR` outside the login means: later, or never.
pub(super) fn refusal(command: &'static str, reply: Reply) -> SessionError {
    match reply.code {
        Some(ResponseCode::InUse | ResponseCode::LoginDelay | ResponseCode::SysTemp) => {
            SessionError::Busy(reply)
        }
        _ => SessionError::Refused { command, reply },
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> SessionError {
        SessionError::Store(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{TlsMode, TlsSpec};
    use crate::wire::pop3::uidl_line;

    /// A session with a server that does as `serve` says.
    fn session(
        timeouts: &Timeouts,
        serve: impl FnOnce(std::net::TcpStream) + Send + 'static,
    ) -> Result<(Session, Reply), SessionError> {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || serve(server.accept().unwrap().0));
        let tls = TlsSpec { mode: TlsMode::None, ca_file: None, client_cert: None, only_tls13: false };
        let dialer = Dialer::new("127.0.0.1", port, &tls, timeouts).unwrap();
        Session::open(&dialer, timeouts, None, Stop::default())
    }

    #[test]
    fn a_line_that_is_too_long_ends_no_list() {
        let uidl = "u".repeat(5000);
        let lines = format!("+OK\r\n1 a\r\n2 {uidl}\r\n3 c\r\n.\r\n");
        let (mut session, _) =
            session(&Timeouts::default(), move |mut peer| peer.write_all(lines.as_bytes()).unwrap()).unwrap();
        let mut named = Vec::new();
        session
            .list("UIDL", 10, |line| {
                named.extend(uidl_line(line).map(|(number, uidl)| (number, uidl.to_owned())))
            })
            .unwrap();
        assert_eq!(named, [(1, "a".to_owned()), (3, "c".to_owned())]);
    }

    #[test]
    fn a_server_that_dribbles_is_not_waited_for_without_end() {
        let timeouts = Timeouts { greeting: Duration::from_millis(300), ..Timeouts::default() };
        let begun = Instant::now();
        let opened = session(&timeouts, |mut peer| {
            while peer.write_all(b"+").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(matches!(opened, Err(SessionError::Silent(..))));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
