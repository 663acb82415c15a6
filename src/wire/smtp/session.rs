//! One session: greeting, EHLO, STARTTLS, AUTH, transactions at one of four levels of pipelining, QUIT.
//!
//! Replies come in the order of commands, so one queue of awaited replies matches them. A parcel
//! is on the wire from its first command until its last reply; several are at the levels
//! `message` and `window`, and the oldest is always the one spoken about.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;

use super::outbox::{Content, Outbox, Said};
use super::record::{Record, Way};
use super::{Class, Heard, Offers, Reply};
use crate::mail::EmailAddress;
use crate::wire::sasl::{Exchange, Secrets};

/// Contents above this gain nothing from a window: the round trip is short beside their transfer, and a window of
/// them would be many megabytes in doubt.
const LARGE: usize = 256 * 1024;

/// A command line with its line end is no longer than this (RFC 5321 §4.5.3.1.4).
const MAX_COMMAND: usize = 512;

/// What is submitted: an envelope and a content.
pub trait Parcel: Content {
    /// The reverse-path; `None` is `<>`.
    fn reverse_path(&self) -> Option<&EmailAddress>;
    /// The forward-paths.
    fn recipients(&self) -> &[EmailAddress];
    /// Needs BODY=8BITMIME.
    fn eight_bit(&self) -> bool;
    /// Needs SMTPUTF8.
    fn smtputf8(&self) -> bool;
}

/// How much of a dialogue one flight holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// One command.
    #[default]
    Off,
    /// MAIL RCPT… DATA, then the content (RFC 2920).
    Envelope,
    /// The content, then MAIL RCPT… DATA of the next (RFC 2920 §3.1).
    Message,
    /// RSET MAIL RCPT… BDAT LAST and the content, several parcels unanswered (RFC 3030).
    Window,
}

impl Level {
    /// The next safer one.
    pub fn lower(self) -> Level {
        match self {
            Level::Window => Level::Message,
            Level::Message => Level::Envelope,
            Level::Envelope | Level::Off => Level::Off,
        }
    }
}

/// How much may be unanswered at level `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Parcels.
    pub parcels: usize,
    /// Octets of content; one parcel may be larger.
    pub octets: usize,
}

/// How a session becomes confidential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all, or from the first byte: none of this session's business.
    Settled,
    /// By STARTTLS, required.
    StartTls,
}

/// Why a login did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// The server said no. Only after 504 and 534 another mechanism may be tried.
    Refused(Heard),
    /// The exchange failed on our side: a challenge that makes no sense, a server that cannot prove itself.
    Exchange(String),
}

/// What a session has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// EHLO is answered and confidence is settled: [`Session::login`] or [`Session::open`] comes next.
    Greeted,
    /// Logged in; transactions may begin.
    LoggedIn,
    /// The login failed; the session can try another mechanism or quit.
    LoginFailed(LoginError),
    /// `tls: starttls`, and it is not offered.
    NoStartTls,
    /// The greeting, EHLO and HELO, or STARTTLS was refused.
    Refused(Heard),
    /// A parcel's transaction is over.
    Done(P, Record),
    /// A parcel was not begun, or not a byte of it that matters was processed: it returns at no cost.
    Untouched(P),
    /// The server lost the thread at this level.
    Stumbled(Level),
    /// The server closes the session (421).
    Closing(Heard),
    /// What came is not SMTP, or not in its order. The session is over; [`Session::lost`] gives the parcels back.
    Broken(String),
    /// QUIT is answered.
    Quit,
}

/// A reply that has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The greeting.
    Greeting,
    /// To EHLO.
    Ehlo,
    /// To HELO.
    Helo,
    /// To STARTTLS.
    StartTls,
    /// To AUTH or a response.
    Auth,
    /// To RSET.
    Rset,
    /// To MAIL.
    Mail,
    /// To the n-th RCPT.
    Rcpt(usize),
    /// To DATA.
    Data,
    /// To the final dot.
    End,
    /// To the dot that ends a content nobody was to receive.
    EmptyEnd,
    /// To BDAT LAST.
    Bdat,
    /// To QUIT.
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the first transaction.
    Opening,
    /// Transactions.
    Ready,
    /// QUIT is sent.
    Quitting,
    /// Nothing more is said or heard.
    Over,
}

/// Where the writing side stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The next parcel may begin, if its level and those unanswered allow.
    Free,
    /// A reply decides what is written next.
    Held,
}

/// The first words (mostly enhanced status codes: 2.1.5, 2.0.0) with which a server says yes. Where they differ, a yes
/// to a recipient cannot be taken for a yes to a content when a reply too many has put them out of step.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rcpt: u64,
    end: u64,
}

/// A parcel on the wire.
#[derive(Debug)]
struct Flight<P> {
    parcel: P,
    level: Level,
    record: Record,
    valid: usize,
    /// How the last RCPT was said yes to.
    rcpt_word: u64,
    /// Behind the command that first named it.
    begins: u64,
    /// Behind its last octet of content, once that is queued.
    ends: Option<u64>,
    /// Begun while the end of the content before it was unanswered.
    behind_content: bool,
    /// Its last reply came before its content was written.
    answered: bool,
}

/// The client's side of one connection.
pub struct Session<P> {
    stage: Stage,
    line: Line,
    name: String,
    security: Security,
    wants_tls: bool,
    offers: Offers,
    exchange: Option<Exchange>,
    /// Why the exchange was given up, while the server's answer to `*` is awaited.
    given_up: Option<String>,
    /// What was said of the login.
    secrets: Secrets,
    ceiling: Level,
    /// Nothing above `envelope` before a parcel was accepted.
    proven: bool,
    window: Window,
    waiting: VecDeque<P>,
    flights: VecDeque<Flight<P>>,
    /// The number of the first flight; numbers name contents in the outbox.
    first: u64,
    awaited: VecDeque<(Awaited, u64)>,
    out: Outbox,
    /// The next group must begin with RSET.
    unclean: bool,
    /// How this server says yes to RCPT and to a content, once it has.
    shape: Option<Shape>,
    /// The first word of the reply that came last.
    end_word: u64,
    /// Octets of content waiting and on the wire.
    octets: usize,
    begun: u32,
    /// Transactions that this session may begin: ours, not the server's word.
    limit: Option<u32>,
    accepted: u32,
    /// A MAIL was answered.
    has_answered: bool,
    events: VecDeque<Event<P>>,
}

impl<P: Parcel> Session<P> {
    /// A session whose connection is just made: the greeting is awaited. `name` goes into EHLO.
    pub fn new(name: &str, security: Security, ceiling: Level, proven: bool, window: Window) -> Session<P> {
        Session {
            stage: Stage::Opening,
            line: Line::Held,
            name: name.to_owned(),
            security,
            wants_tls: false,
            offers: Offers::default(),
            exchange: None,
            given_up: None,
            secrets: Secrets::default(),
            ceiling,
            proven,
            window,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            first: 0,
            awaited: VecDeque::from([(Awaited::Greeting, 0)]),
            out: Outbox::default(),
            unclean: false,
            shape: None,
            end_word: 0,
            octets: 0,
            begun: 0,
            limit: None,
            accepted: 0,
            has_answered: false,
            events: VecDeque::new(),
        }
    }

    /// What the server offered last.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Keeps from now on what is said, secrets masked: [`Session::said`].
    pub fn listen(&mut self) {
        self.out.listen();
    }

    /// What was said since this was asked last.
    pub fn said(&mut self) -> Vec<Said> {
        self.out.said()
    }

    /// What there is to tell, in order.
    pub fn next_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// The oldest reply that has not come yet.
    pub fn awaits(&self) -> Option<Awaited> {
        self.awaited.front().map(|&(awaited, _)| awaited)
    }

    /// Parcels accepted by the server in this session.
    pub fn accepted(&self) -> u32 {
        self.accepted
    }

    /// Transactions begun in this session.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// Whether a MAIL was answered in this session: the server works.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// The level of the oldest parcel that is on the wire.
    pub fn level_begun(&self) -> Option<Level> {
        self.flights.front().map(|flight| flight.level)
    }

    /// Parcels taken and not given back.
    pub fn held(&self) -> usize {
        self.waiting.len() + self.flights.len()
    }

    /// Transactions may begin.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// No level above this one from now on.
    pub fn set_ceiling(&mut self, ceiling: Level) {
        self.ceiling = ceiling;
    }

    /// How much may be unanswered from now on.
    pub fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// The level at which a parcel of this size would be submitted now.
    pub fn level(&self, octets: usize) -> Level {
        let able = match (self.offers.pipelining, self.offers.chunking) {
            (false, _) => Level::Off,
            (true, false) => Level::Message,
            (true, true) => Level::Window,
        };
        let level = self.ceiling.min(able);
        match level {
            Level::Message | Level::Window if !self.proven => Level::Envelope,
            Level::Window if octets > LARGE => Level::Message,
            level => level,
        }
    }

    /// How many more parcels would be taken now.
    pub fn room(&self) -> usize {
        if self.stage != Stage::Ready {
            return 0;
        }
        let most = match self.level(0) {
            Level::Off | Level::Envelope => 1,
            // One whose content is unanswered, one whose envelope follows it.
            Level::Message => 2,
            Level::Window if self.octets >= self.window.octets => 1,
            Level::Window => self.window.parcels.max(1),
        };
        most.saturating_sub(self.held()).min(self.left().saturating_sub(self.waiting.len()))
    }

    /// No more transactions than this, nor than was said before.
    pub fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = self.limit.into_iter().chain(limit).min();
    }

    /// All transactions that this session may hold were held, and answered.
    pub fn is_exhausted(&self) -> bool {
        self.stage == Stage::Ready && self.held() == 0 && self.left() == 0
    }

    /// Nothing more is said or heard.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Takes a parcel; it is begun as soon as the dialogue allows.
    pub fn submit(&mut self, parcel: P) {
        self.octets += parcel.octets();
        self.waiting.push_back(parcel);
        self.advance();
    }

    /// The server is ready for TLS: nothing it said from here on counts before [`Session::secured`].
    pub fn wants_tls(&self) -> bool {
        self.wants_tls
    }

    /// The TLS handshake is done. What was offered before it is forgotten (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.security = Security::Settled;
        self.wants_tls = false;
        self.say_hello();
    }

    /// Begins a login.
    pub fn login(&mut self, mut exchange: Exchange) {
        let line = format!("AUTH {}\r\n", exchange.command(MAX_COMMAND - "AUTH \r\n".len()));
        if line.trim_end().contains(' ') && line.split(' ').count() > 2 {
            self.secret(&format!("AUTH {}", exchange.mechanism().name()), &line);
        } else {
            self.command(Awaited::Auth, |out| out.extend_from_slice(line.trim_end().as_bytes()));
        }
        self.exchange = Some(exchange);
    }

    /// Transactions may begin without a login.
    pub fn open(&mut self) {
        self.stage = Stage::Ready;
        self.line = Line::Free;
        self.advance();
    }

    /// Ends the session politely. Only when nothing is held; otherwise it would be a loss.
    pub fn quit(&mut self) {
        if self.held() == 0 && matches!(self.stage, Stage::Opening | Stage::Ready) && self.awaited.is_empty()
        {
            self.command(Awaited::Quit, |out| out.extend_from_slice(b"QUIT"));
            self.stage = Stage::Quitting;
        }
    }

    /// Whether something waits to be written.
    pub fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Octets that wait to be written.
    pub fn unwritten(&self) -> u64 {
        self.out.queued() - self.out.written()
    }

    /// Fills `slices` with what is to be written next; gives how many were filled.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Session { out, flights, first, .. } = self;
        out.gather(slices, |letter| flights.get((letter - first) as usize).map(|flight| &flight.parcel))
    }

    /// So many octets of what was gathered are written.
    pub fn wrote(&mut self, octets: usize) {
        let Session { out, flights, first, .. } = self;
        out.wrote(octets, |letter| flights.get((letter - *first) as usize).map(|flight| &flight.parcel));
        if self.flights.front().is_some_and(|flight| flight.answered) {
            self.finish_if_written();
            self.advance();
        }
    }

    /// The server said something.
    pub fn on_reply(&mut self, reply: &Reply<'_>) {
        self.end_word = first_word(reply);
        if self.stage == Stage::Over {
            return;
        }
        let Some(&(awaited, at)) = self.awaited.front() else {
            return match reply.code() {
                421 => self.close(self.heard(reply), false),
                _ => self.break_off(format!("`{}` answers no command", self.heard(reply))),
            };
        };
        let sent = at <= self.out.written();
        if reply.code() == 421 && awaited != Awaited::Quit {
            return self.close(self.heard(reply), sent);
        }
        if !sent {
            return self
                .break_off(format!("`{}` answers a command that was not yet sent", self.heard(reply)));
        }
        self.awaited.pop_front();
        match awaited {
            Awaited::Greeting => match reply.class() {
                Class::Completed => self.say_hello(),
                _ => self.refused(reply),
            },
            Awaited::Ehlo => self.on_ehlo(reply),
            Awaited::Helo => match reply.class() {
                Class::Completed => self.greeted(Offers::default()),
                _ => self.refused(reply),
            },
            Awaited::StartTls => match reply.class() {
                Class::Completed => self.wants_tls = true,
                _ => self.refused(reply),
            },
            Awaited::Auth => self.on_auth(reply),
            Awaited::Quit => {
                self.stage = Stage::Over;
                self.events.push_back(Event::Quit);
            }
            Awaited::Rset
            | Awaited::Mail
            | Awaited::Rcpt(_)
            | Awaited::Data
            | Awaited::End
            | Awaited::EmptyEnd
            | Awaited::Bdat => {
                if reply.class() == Class::Intermediate && awaited != Awaited::Data {
                    return self.break_off(format!("`{}` asks for a content out of turn", reply.heard()));
                }
                self.on_transaction(awaited, reply);
                self.advance();
            }
        }
    }

    /// The connection is gone, without a word or by our own will. Every parcel is given back.
    pub fn lost(&mut self) {
        self.stage = Stage::Over;
        self.awaited.clear();
        let written = self.out.written();
        for mut flight in std::mem::take(&mut self.flights) {
            let whole = flight.ends.is_some_and(|ends| ends <= written);
            flight.record.way = match (flight.answered, whole) {
                (true, _) => flight.record.way,
                (false, true) => Way::Silent,
                (false, false) => Way::CutShort,
            };
            let event = if written < flight.begins && !flight.answered {
                Event::Untouched(flight.parcel)
            } else {
                Event::Done(flight.parcel, flight.record)
            };
            self.events.push_back(event);
        }
        self.give_back_waiting();
    }

    /// Transactions that may still begin.
    fn left(&self) -> usize {
        let most = self.limit.into_iter().chain(self.offers.mail_max).min();
        most.map_or(usize::MAX, |most| most.saturating_sub(self.begun) as usize)
    }

    fn say_hello(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.command(Awaited::Ehlo, |out| {
            out.extend_from_slice(b"EHLO ");
            out.extend_from_slice(name.as_bytes());
        });
        self.name = name;
    }

    fn on_ehlo(&mut self, reply: &Reply<'_>) {
        match reply.class() {
            Class::Completed => self.greeted(Offers::read(reply)),
            // A server without extensions says that it does not know the command (RFC 5321 §3.2).
            Class::Permanent if self.security == Security::Settled => {
                let name = std::mem::take(&mut self.name);
                self.command(Awaited::Helo, |out| {
                    out.extend_from_slice(b"HELO ");
                    out.extend_from_slice(name.as_bytes());
                });
                self.name = name;
            }
            _ => self.refused(reply),
        }
    }

    fn greeted(&mut self, offers: Offers) {
        self.offers = offers;
        match self.security {
            Security::Settled => self.events.push_back(Event::Greeted),
            Security::StartTls if self.offers.starttls => {
                self.command(Awaited::StartTls, |out| out.extend_from_slice(b"STARTTLS"));
            }
            Security::StartTls => self.events.push_back(Event::NoStartTls),
        }
    }

    fn refused(&mut self, reply: &Reply<'_>) {
        self.events.push_back(Event::Refused(reply.heard()));
    }

    fn on_auth(&mut self, reply: &Reply<'_>) {
        if let Some(reason) = self.given_up.take() {
            // The answer to `*` is 501; what counts is our reason.
            return self.events.push_back(Event::LoginFailed(LoginError::Exchange(reason)));
        }
        let Some(mut exchange) = self.exchange.take() else {
            return self.break_off("a reply to a login that was not begun".to_owned());
        };
        match reply.class() {
            Class::Completed => match exchange.finish(None) {
                Ok(()) => {
                    self.secrets = Secrets::default();
                    self.events.push_back(Event::LoggedIn);
                    self.open();
                }
                Err(error) => {
                    self.events.push_back(Event::LoginFailed(LoginError::Exchange(error.to_string())));
                }
            },
            Class::Intermediate => {
                let challenge = String::from_utf8_lossy(reply.lines().next().unwrap_or_default());
                match exchange.answer(&challenge) {
                    Ok(response) => {
                        self.secret("", &format!("{response}\r\n"));
                        self.exchange = Some(exchange);
                    }
                    Err(error) => {
                        self.command(Awaited::Auth, |out| out.push(b'*'));
                        self.given_up = Some(error.to_string());
                    }
                }
            }
            Class::Transient | Class::Permanent => {
                let mut heard = self.heard(reply);
                // XOAUTH2 and OAUTHBEARER say what is wrong in a challenge of their own before the no.
                if let Some(trouble) = exchange.trouble() {
                    heard.text = format!("{} ({trouble})", heard.text);
                }
                self.events.push_back(Event::LoginFailed(LoginError::Refused(heard)));
            }
        }
    }

    /// A reply to a command of the oldest parcel.
    fn on_transaction(&mut self, awaited: Awaited, reply: &Reply<'_>) {
        let Some(flight) = self.flights.front_mut() else { return };
        let yes = reply.class() == Class::Completed;
        // Nobody asks for the words of a yes but at the end of content.
        let heard = || if yes { Heard { code: reply.code(), text: String::new() } } else { reply.heard() };
        let off = flight.level == Level::Off;
        match awaited {
            Awaited::Rset => {
                if !yes {
                    // Nobody refuses RSET. Either this reply answers something else, or an old recipient could get
                    // the new letter.
                    return self.lose_order(format!("RSET was answered `{}`", reply.heard()));
                }
                if off {
                    self.say_mail();
                }
            }
            Awaited::Mail => {
                flight.record.mail = Some(heard());
                self.has_answered = true;
                match (off, yes) {
                    (true, true) => self.say_rcpt(0),
                    (true, false) => self.finish(Way::Answered),
                    (false, _) => {}
                }
            }
            Awaited::Rcpt(n) => {
                flight.record.rcpts[n] = Some(heard());
                flight.valid += usize::from(yes);
                if yes {
                    flight.rcpt_word = first_word(reply);
                }
                if off {
                    match (n + 1 < flight.record.asked, flight.valid > 0) {
                        (true, _) => self.say_rcpt(n + 1),
                        (false, true) => self.say_data(),
                        (false, false) => self.finish(Way::Answered),
                    }
                }
            }
            Awaited::Data => {
                if reply.class() == Class::Intermediate {
                    return self.say_content();
                }
                flight.record.data = Some(reply.heard());
                let way = self.way_before_content();
                self.finish(way);
            }
            Awaited::EmptyEnd => {
                let way = self.way_before_content();
                self.finish(way);
            }
            Awaited::End => {
                // An answer in the middle of a content is a no that was in a hurry; a yes to half a letter is none.
                if yes && flight.ends.is_some_and(|ends| ends > self.out.written()) {
                    return self.accepted_early();
                }
                flight.record.end = Some(reply.heard());
                let lost_order = reply.code() == 503 && flight.level == Level::Message;
                self.finish(if lost_order { Way::Stumbled } else { Way::Answered });
            }
            Awaited::Bdat => {
                let word = first_word(reply);
                if yes && self.shape.is_some_and(|shape| word == shape.rcpt) {
                    return self
                        .lose_order(format!("`{}` answers a recipient, not a content", reply.heard()));
                }
                if yes && flight.ends.is_some_and(|ends| ends > self.out.written()) {
                    return self.accepted_early();
                }
                flight.record.end = Some(reply.heard());
                // Without a recipient a no is a consequence, whatever its code. With one, these codes speak of BDAT.
                let stumbled = flight.valid > 0 && matches!(reply.code(), 500 | 502 | 503 | 521);
                let way = if stumbled { Way::Stumbled } else { self.way_before_content() };
                self.finish(way);
            }
            Awaited::Greeting
            | Awaited::Ehlo
            | Awaited::Helo
            | Awaited::StartTls
            | Awaited::Auth
            | Awaited::Quit => {}
        }
    }

    /// A yes to a content that was not wholly written is believed by nobody, and nobody knows what the server has.
    fn accepted_early(&mut self) {
        if let Some(flight) = self.flights.front_mut() {
            flight.record.way = Way::Early;
            flight.answered = true;
        }
        self.break_off("a content was accepted before it was sent".to_owned());
    }

    /// A reply too many or too few: whom the others answer nobody can tell. What is unanswered is in doubt, and the
    /// run goes on more carefully.
    fn lose_order(&mut self, reason: String) {
        if let Some(flight) = self.flights.front().filter(|flight| flight.level > Level::Off) {
            self.events.push_back(Event::Stumbled(flight.level));
        }
        self.break_off(reason);
    }

    /// Whether the replies to MAIL, RCPT and DATA show that the server lost the order of our commands: 503 where the
    /// commands were in order is about pipelining, not about a recipient or a sender.
    fn way_before_content(&self) -> Way {
        let Some(flight) = self.flights.front() else { return Way::Answered };
        let is_503 = |heard: &Option<Heard>| heard.as_ref().is_some_and(|heard| heard.code == 503);
        let record = &flight.record;
        let mail_accepted = record.mail.as_ref().is_some_and(Heard::is_yes);
        let stumbled = match flight.level {
            Level::Off => false,
            _ if mail_accepted => {
                record.rcpts.iter().any(is_503) || (flight.valid > 0 && is_503(&record.data))
            }
            Level::Message | Level::Window => {
                is_503(&record.mail) && (flight.behind_content || self.accepted > 0)
            }
            Level::Envelope => false,
        };
        // What was accepted at the end of content is accepted, however confused the way there was.
        let accepted = record.end.as_ref().is_some_and(Heard::is_yes) && flight.valid > 0;
        if stumbled && !accepted { Way::Stumbled } else { Way::Answered }
    }

    /// The oldest parcel has all its replies.
    fn finish(&mut self, way: Way) {
        let Some(flight) = self.flights.front_mut() else { return };
        flight.record.way = way;
        flight.answered = true;
        let accepted = flight.valid > 0 && flight.record.end.as_ref().is_some_and(Heard::is_yes);
        if flight.level != Level::Window && flight.ends.is_none() {
            self.unclean = true;
        }
        if accepted {
            self.accepted += 1;
            self.proven = true;
            if self.shape.is_none() {
                let shape = Shape { rcpt: flight.rcpt_word, end: self.end_word };
                self.shape = (shape.rcpt != shape.end && shape.rcpt != 0).then_some(shape);
            }
        }
        if way == Way::Stumbled {
            let level = flight.level;
            // What the session itself does next must not wait for the pool to hear of it.
            self.ceiling = self.ceiling.min(level.lower());
            self.unclean = true;
            self.events.push_back(Event::Stumbled(level));
        }
        if matches!(flight.level, Level::Off | Level::Envelope) || flight.ends.is_none() {
            self.line = Line::Free;
        }
        self.finish_if_written();
    }

    /// Gives back the oldest parcel, if its content needs no more writing.
    fn finish_if_written(&mut self) {
        let written = self.out.written();
        let done = self
            .flights
            .front()
            .is_some_and(|flight| flight.answered && flight.ends.is_none_or(|ends| ends <= written));
        if done && let Some(flight) = self.flights.pop_front() {
            self.first += 1;
            self.octets -= flight.parcel.octets().min(self.octets);
            self.events.push_back(Event::Done(flight.parcel, flight.record));
        }
    }

    /// Begins what may begin.
    fn advance(&mut self) {
        while self.stage == Stage::Ready && self.line == Line::Free {
            let Some(next) = self.waiting.front() else { return };
            let level = self.level(next.octets());
            if let Some(last) = self.flights.back()
                && (last.level < Level::Message || level < Level::Message)
            {
                return;
            }
            let Some(parcel) = self.waiting.pop_front() else { return };
            let record = Record::of(parcel.recipients().len(), self.offers.rcpt_max, level);
            let behind_content = self.flights.back().is_some_and(|last| last.level == Level::Message);
            self.flights.push_back(Flight {
                parcel,
                level,
                record,
                valid: 0,
                rcpt_word: 0,
                begins: self.out.queued() + 1,
                ends: None,
                behind_content,
                answered: false,
            });
            self.begun += 1;
            self.begin(level);
        }
    }

    /// Says the first flight of the parcel that was begun last.
    fn begin(&mut self, level: Level) {
        let asked = self.flights.back().map_or(0, |flight| flight.record.asked);
        let reset = std::mem::take(&mut self.unclean) || level == Level::Window;
        if reset {
            self.command(Awaited::Rset, |out| out.extend_from_slice(b"RSET"));
        }
        match level {
            Level::Off => {
                self.line = Line::Held;
                if !reset {
                    self.say_mail();
                }
            }
            Level::Envelope | Level::Message => {
                self.line = Line::Held;
                self.say_mail();
                (0..asked).for_each(|n| self.say_rcpt(n));
                self.say_data();
            }
            Level::Window => {
                self.say_mail();
                (0..asked).for_each(|n| self.say_rcpt(n));
                let Some(flight) = self.flights.back_mut() else { return };
                let octets = flight.parcel.octets();
                self.out.stage(|out| {
                    out.extend_from_slice(b"BDAT ");
                    push_number(out, octets as u64);
                    out.extend_from_slice(b" LAST\r\n");
                });
                // The server may answer as soon as it has read the command.
                self.awaited.push_back((Awaited::Bdat, self.out.queued()));
                let number = self.first + self.flights.len() as u64 - 1;
                if let Some(flight) = self.flights.back_mut() {
                    self.out.content(number, &flight.parcel);
                    flight.ends = Some(self.out.queued());
                }
                self.unclean = true;
            }
        }
    }

    fn say_mail(&mut self) {
        let Some(flight) = self.flights.back() else { return };
        let (parcel, offers) = (&flight.parcel, &self.offers);
        let smtputf8 = offers.smtputf8 && parcel.smtputf8();
        self.out.stage(|out| {
            out.extend_from_slice(b"MAIL FROM:<");
            if let Some(path) = parcel.reverse_path() {
                push_address(out, path, smtputf8);
            }
            out.push(b'>');
            if offers.declares_size {
                out.extend_from_slice(b" SIZE=");
                push_number(out, parcel.octets() as u64);
            }
            if offers.eight_bit && parcel.eight_bit() {
                out.extend_from_slice(b" BODY=8BITMIME");
            }
            if smtputf8 {
                out.extend_from_slice(b" SMTPUTF8");
            }
            out.extend_from_slice(b"\r\n");
        });
        self.awaited.push_back((Awaited::Mail, self.out.queued()));
    }

    fn say_rcpt(&mut self, n: usize) {
        let Some(flight) = self.flights.back() else { return };
        let smtputf8 = self.offers.smtputf8 && flight.parcel.smtputf8();
        self.out.stage(|out| {
            out.extend_from_slice(b"RCPT TO:<");
            push_address(out, &flight.parcel.recipients()[n], smtputf8);
            out.extend_from_slice(b">\r\n");
        });
        self.awaited.push_back((Awaited::Rcpt(n), self.out.queued()));
    }

    fn say_data(&mut self) {
        self.command(Awaited::Data, |out| out.extend_from_slice(b"DATA"));
    }

    /// The server waits for a content: the letter's, or none where nobody is to receive it.
    fn say_content(&mut self) {
        let number = self.first + self.flights.len() as u64 - 1;
        let Some(flight) = self.flights.back_mut() else { return };
        if !flight.record.mail.as_ref().is_some_and(Heard::is_yes) && flight.valid > 0 {
            // Whose transaction is this? An empty content would be delivered too, so nothing more is said.
            return self.break_off("MAIL was refused, yet its recipients were accepted".to_owned());
        }
        if flight.valid == 0 {
            // Ended without a byte: some servers would send an empty letter to whom an earlier transaction named.
            self.out.stage(|out| out.extend_from_slice(b".\r\n"));
            self.awaited.push_back((Awaited::EmptyEnd, self.out.queued()));
            return;
        }
        // The server may refuse in the middle of the content; it answers something from here on.
        let begins = self.out.queued();
        self.out.content(number, &flight.parcel);
        let stretches = flight.parcel.stretches();
        let complete = stretches == 0 || flight.parcel.stretch(stretches - 1).ends_with(b"\r\n");
        self.out.stage(|out| out.extend_from_slice(if complete { b".\r\n" } else { b"\r\n.\r\n" }));
        flight.ends = Some(self.out.queued());
        self.awaited.push_back((Awaited::End, begins));
        self.line = if flight.level >= Level::Message { Line::Free } else { Line::Held };
    }

    /// The server closes the session. The oldest parcel is the one it spoke of, if that was sent at all.
    fn close(&mut self, heard: Heard, sent: bool) {
        let opening = self.stage == Stage::Opening;
        self.stage = Stage::Over;
        self.awaited.clear();
        let written = self.out.written();
        let mut spoken_of = sent;
        for mut flight in std::mem::take(&mut self.flights) {
            if flight.answered {
                self.events.push_back(Event::Done(flight.parcel, flight.record));
            } else if std::mem::take(&mut spoken_of) && flight.begins <= written {
                flight.record.closing = Some(heard.clone());
                self.events.push_back(Event::Done(flight.parcel, flight.record));
            } else {
                self.events.push_back(Event::Untouched(flight.parcel));
            }
        }
        self.give_back_waiting();
        self.events.push_back(if opening { Event::Refused(heard) } else { Event::Closing(heard) });
    }

    fn break_off(&mut self, reason: String) {
        self.stage = Stage::Over;
        self.events.push_back(Event::Broken(reason));
    }

    fn give_back_waiting(&mut self) {
        self.octets = 0;
        self.events.extend(std::mem::take(&mut self.waiting).into_iter().map(Event::Untouched));
    }

    /// What the server said, without what it repeats of our secrets.
    fn heard(&self, reply: &Reply<'_>) -> Heard {
        // Before they are taken for words of another charset, too.
        let mut heard = Reply { lines: &self.secrets.hide(reply.bytes()), ..*reply }.heard();
        let hidden = self.secrets.hide(heard.text.as_bytes());
        heard.text = String::from_utf8_lossy(&hidden).into_owned();
        heard
    }

    /// What may be told of a text that came from the server: servers there are that repeat the line they
    /// did not understand, and that may be one with a password.
    pub fn without_secrets<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.secrets.hide(text)
    }

    fn secret(&mut self, shown: &str, line: &str) {
        self.secrets.said(line.strip_prefix(shown).unwrap_or(line));
        self.out.stage_secret(shown, line.as_bytes());
        self.awaited.push_back((Awaited::Auth, self.out.queued()));
    }

    fn command(&mut self, awaited: Awaited, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.stage(|out| {
            write(out);
            out.extend_from_slice(b"\r\n");
        });
        self.awaited.push_back((awaited, self.out.queued()));
    }
}

/// The first eight octets of a reply's first word, as a number; 0 for none.
fn first_word(reply: &Reply<'_>) -> u64 {
    let line = reply.bytes().get(4..).unwrap_or_default();
    let word = line.iter().take(8).take_while(|byte| byte.is_ascii_graphic());
    word.fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// With SMTPUTF8 as written, otherwise the domain in A-labels.
fn push_address(out: &mut Vec<u8>, address: &EmailAddress, smtputf8: bool) {
    let text = address.as_str();
    if smtputf8 || text.is_ascii() {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(address.wire().as_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
