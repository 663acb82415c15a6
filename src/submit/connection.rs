//! One connection to the relay: a link, a session, and the replies between them. It moves bytes
//! and decides nothing.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Queued;
use super::account::Berth;
use crate::job::{Mechanism, Timeouts};
use crate::net::transcript::Transcript;
use crate::net::{Link, NetError};
use crate::wire::smtp::{Awaited, Replies, Said, Session};

/// Slices given to one write: a window of letters with shared parts, well below IOV_MAX.
const SLICES: usize = 64;
/// Octets written over one connection before the others have their turn.
const TURN: usize = 1 << 20;
/// Before letters can be submitted, a reply that takes longer is told of: a wrong port may be the reason, and who looks
/// on sees nothing of it for minutes.
const LONG: Duration = Duration::from_secs(10);
/// A server that does not answer QUIT is left.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Loss {
    /// The server closed it.
    Closed,
    /// It broke, or could not be made.
    Net(NetError),
    /// What came is no SMTP.
    Protocol(String),
    /// Nothing came for too long.
    Silence(String),
}

/// A connection of the pool.
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) session: Session<Queued>,
    /// The address it was made to.
    pub(super) address: SocketAddr,
    /// It was greeted and logged in, as the so manieth of the pool: letters could be submitted.
    pub(super) ready_as: Option<u64>,
    /// When that was.
    pub(super) ready_at: Option<Instant>,
    /// Mechanisms that were begun: only those the server does not take from us (504, 534) make way for another.
    pub(super) refused: Vec<Mechanism>,
    /// It was greeted, and its login waits for what comes of another's.
    pub(super) login_waits: bool,
    /// Which secret its login was begun with.
    pub(super) issue: u32,
    replies: Replies,
    established: bool,
    securing: bool,
    readable: bool,
    writable: bool,
    /// The server has ended its side; what it said before is still to be read.
    ended: bool,
    began: Instant,
    progress: Instant,
    /// It was told that nothing has come since then.
    told: Option<Instant>,
    transcript: Option<Transcript>,
    /// Given back behind all the others, when the link is closed.
    _berth: Berth,
}

impl Connection {
    /// A connection that was `began` then.
    pub(super) fn new(
        link: Link,
        session: Session<Queued>,
        berth: Berth,
        began: Instant,
        transcript: Option<Transcript>,
    ) -> Connection {
        let mut connection = Connection {
            address: link.peer(),
            link,
            session,
            ready_as: None,
            ready_at: None,
            refused: Vec::new(),
            login_waits: false,
            issue: 0,
            replies: Replies::default(),
            established: false,
            securing: false,
            readable: false,
            writable: false,
            ended: false,
            began,
            progress: began,
            told: None,
            transcript,
            _berth: berth,
        };
        if connection.transcript.is_some() {
            connection.session.listen();
        }
        connection
    }

    /// What the poll says.
    pub(super) fn ready(&mut self, readable: bool, writable: bool, ended: bool) {
        self.readable |= readable;
        self.writable |= writable;
        self.ended |= ended;
    }

    /// Goes on with connecting and TLS, and hears what the server says.
    pub(super) fn receive(&mut self, now: Instant) -> Result<(), Loss> {
        if !self.established {
            if !self.step()? {
                return Ok(());
            }
            self.established = true;
            self.progress = now;
            if let Some(transcript) = &self.transcript {
                transcript.note(&format!("connected to {} ({})", self.link.to(), self.link.peer()));
            }
        }
        self.secure(now)?;
        while self.readable && !self.securing {
            let space = self.replies.space();
            match self.link.read(space) {
                Ok(0) => return Err(Loss::Closed),
                Ok(count) => {
                    self.replies.filled(count);
                    // Only a whole reply is progress (RFC 5321 §4.5.3.2 gives a reply its time, not an octet).
                    if self.hear()? {
                        self.progress = now;
                    }
                    // A socket that gave less than asked for is empty; the next edge tells of more.
                    if self.link.drained() && !self.ended {
                        self.readable = false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(Loss::Net(self.link.error(error))),
            }
            if self.session.wants_tls() && !self.securing {
                self.link.start_tls(self.replies.unread()).map_err(Loss::Net)?;
                self.securing = true;
                self.began = now;
                self.secure(now)?;
            }
        }
        Ok(())
    }

    /// Hears what has come already over a connection that can no longer be written to. That nothing more comes is no
    /// news.
    pub(super) fn hear_out(&mut self, now: Instant) {
        if self.established && !self.securing {
            (self.readable, self.ended) = (true, true);
            let _ = self.receive(now);
        }
    }

    /// Writes as much as is taken, in turns.
    pub(super) fn send(&mut self, now: Instant) -> Result<(), Loss> {
        if let Some(transcript) = &self.transcript {
            for said in self.session.said() {
                match said {
                    Said::Lines(lines) => transcript.client(&lines),
                    Said::Secret(shown) => transcript.client_secret(&shown),
                    Said::Content(octets) => transcript.client_content(octets),
                }
            }
        }
        if !self.established || self.securing {
            return Ok(());
        }
        let mut turn = 0;
        while self.writable && self.session.wants_write() && turn < TURN {
            let mut slices = [IoSlice::new(b""); SLICES];
            let filled = self.session.gather(&mut slices);
            match self.link.write_vectored(&slices[..filled]) {
                Ok(0) => return Err(Loss::Net(self.link.error(io::ErrorKind::WriteZero.into()))),
                Ok(count) => {
                    self.session.wrote(count);
                    self.progress = now;
                    turn += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(Loss::Net(self.link.error(error))),
            }
        }
        if self.writable && self.link.wants_write() {
            match self.link.flush() {
                Ok(()) => self.progress = now,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(Loss::Net(self.link.error(error))),
            }
        }
        Ok(())
    }

    /// There is more to write at once, after the others have had their turn.
    pub(super) fn is_eager(&self) -> bool {
        self.established && !self.securing && self.writable && self.session.wants_write()
    }

    /// When the server has been silent for too long; `None`: nothing is awaited.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        if !self.established || self.securing {
            return Some(self.began + timeouts.connect);
        }
        if self.session.wants_write() {
            return Some(self.progress + timeouts.block);
        }
        let patience = match self.session.awaits()? {
            Awaited::Greeting => timeouts.greeting,
            Awaited::Mail => timeouts.mail,
            Awaited::Rcpt(_) => timeouts.rcpt,
            Awaited::Data => timeouts.data,
            Awaited::End | Awaited::EmptyEnd | Awaited::Bdat => timeouts.end,
            Awaited::Quit => GOODBYE.min(timeouts.command),
            Awaited::Ehlo | Awaited::Helo | Awaited::StartTls | Awaited::Auth | Awaited::Rset => {
                timeouts.command
            }
        };
        Some(self.progress + patience)
    }

    /// When it should be told that a reply without which no letter can go is slow; `None`: it was, or none is awaited.
    pub(super) fn tells_at(&self) -> Option<Instant> {
        let awaits = self.established && !self.securing && self.session.awaits().is_some();
        (awaits && self.is_opening() && !self.session.wants_write() && self.told != Some(self.progress))
            .then(|| self.progress + LONG)
    }

    /// What is slow to come, in words; it counts as told.
    pub(super) fn tell_slow(&mut self) -> &'static str {
        self.told = Some(self.progress);
        match self.session.awaits() {
            Some(Awaited::Greeting) | None => "no greeting yet",
            Some(Awaited::Ehlo | Awaited::Helo) => "no reply to EHLO yet",
            Some(Awaited::StartTls) => "no reply to STARTTLS yet",
            Some(_) => "no reply to AUTH yet",
        }
    }

    /// It was told that a reply is slow, and it has not come.
    pub(super) fn is_slow(&self) -> bool {
        self.is_opening() && self.told == Some(self.progress)
    }

    /// What the silence is about.
    pub(super) fn silence(&self, timeouts: &Timeouts) -> Loss {
        if !self.established || self.securing {
            return Loss::Net(self.link.timed_out(timeouts.connect));
        }
        let what = match self.session.awaits() {
            _ if self.session.wants_write() => "nothing was taken of what we write",
            Some(Awaited::Greeting) => "no greeting came",
            Some(Awaited::Ehlo | Awaited::Helo) => "no reply to EHLO came",
            Some(Awaited::StartTls) => "no reply to STARTTLS came",
            Some(Awaited::Auth) => "no reply to AUTH came",
            Some(Awaited::Rset) => "no reply to RSET came",
            Some(Awaited::Mail) => "no reply to MAIL came",
            Some(Awaited::Rcpt(_)) => "no reply to RCPT came",
            Some(Awaited::Data) => "no reply to DATA came",
            Some(Awaited::End | Awaited::EmptyEnd | Awaited::Bdat) => "no reply to the content came",
            Some(Awaited::Quit) | None => "no reply came",
        };
        Loss::Silence(what.to_owned())
    }

    /// How long nothing was written or heard.
    pub(super) fn quiet_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progress)
    }

    /// Letters may be given to it, or are still on it.
    pub(super) fn carries(&self) -> bool {
        self.session.is_ready() || (self.ready_as.is_some() && self.session.held() > 0)
    }

    /// It may become ready yet.
    pub(super) fn is_opening(&self) -> bool {
        self.ready_as.is_none() && !self.session.is_over()
    }

    /// The server never said a word of SMTP.
    pub(super) fn is_young(&self) -> bool {
        !self.established
    }

    /// A remark between the lines of the transcript.
    pub(super) fn note(&self, text: &str) {
        if let Some(transcript) = &self.transcript {
            transcript.note(text);
        }
    }

    fn step(&mut self) -> Result<bool, Loss> {
        match self.link.progress() {
            Ok(done) => Ok(done),
            Err(error) => Err(Loss::Net(self.link.error(error))),
        }
    }

    fn secure(&mut self, now: Instant) -> Result<(), Loss> {
        if self.securing && self.step()? && self.link.secured() {
            self.securing = false;
            self.progress = now;
            if let (Some(transcript), Some(words)) = (&self.transcript, self.link.tls_words()) {
                transcript.note(&words);
            }
            self.session.secured();
        }
        Ok(())
    }

    /// Whether a whole reply was among what has come.
    fn hear(&mut self) -> Result<bool, Loss> {
        let mut heard = false;
        while !self.session.wants_tls() {
            let Some(reply) = self.replies.take().map_err(|no_reply| Loss::Protocol(no_reply.to_string()))?
            else {
                break;
            };
            if let Some(transcript) = &self.transcript {
                transcript.server(&self.session.without_secrets(reply.bytes()));
            }
            self.session.on_reply(&reply);
            heard = true;
        }
        Ok(heard)
    }
}
