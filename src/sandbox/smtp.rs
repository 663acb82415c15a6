//! One SMTP session of the relay (RFC 5321; PIPELINING 2920, CHUNKING 3030, STARTTLS 3207, AUTH 4954,
//! SMTPUTF8 6531).

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::fault::{Fault, Stage};
use super::link::{Link, Over};
use super::outbox::Delivery;
use super::relay::Shared;

/// RFC 5321 §4.5.3.1.8 asks for at least 100.
const MAX_RECIPIENTS: usize = 1000;

type Step<T = ()> = Result<T, Over>;

/// Serves until the session is over; says how many flights of replies were sent.
pub(super) fn serve(link: Link, number: u64, shared: &Shared) -> u64 {
    let mut session = Session {
        shared,
        number,
        link,
        greeted: false,
        authenticated: shared.options.auth.is_none(),
        reverse_path: None,
        recipients: Vec::new(),
        content: Vec::new(),
        chunked: false,
        accepted: 0,
    };
    let Err(Over) = session.run();
    session.link.flights
}

/// Answers a connection too many.
pub(super) fn turn_away(mut socket: TcpStream, shared: &Shared) {
    if shared.options.tls.as_ref().is_none_or(|tls| !tls.implicit) {
        let _ = socket.write_all(b"421 4.7.0 Too many connections\r\n"); // it is closed whether read or not
    }
}

enum Never {}

struct Session<'a> {
    shared: &'a Shared,
    number: u64,
    link: Link,
    greeted: bool,
    authenticated: bool,
    reverse_path: Option<String>,
    recipients: Vec<String>,
    content: Vec<u8>,
    chunked: bool,
    accepted: u64,
}

impl<'a> Session<'a> {
    fn run(&mut self) -> Step<Never> {
        if let Some((tls, config)) = self.shared.options.tls.as_ref().zip(self.shared.tls.as_ref())
            && tls.implicit
        {
            self.link.start_tls(config)?;
        }
        if !self.fault(Stage::Connect)? {
            self.link.reply("220 localhost ESMTP postroom sandbox");
        }
        loop {
            let line = self.link.line()?;
            self.shared.outbox.counters.commands.fetch_add(1, Relaxed);
            self.command(&line)?;
        }
    }

    fn command(&mut self, line: &str) -> Step {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => self.ehlo(argument),
            "HELO" => {
                if !self.fault_for(Stage::Helo, argument)? {
                    self.greeted = true;
                    self.link.reply("250 localhost");
                }
                Ok(())
            }
            "STARTTLS" => self.starttls(),
            "AUTH" => self.auth(argument),
            "MAIL" => self.mail(argument),
            "RCPT" => self.rcpt(argument),
            "DATA" => self.data(),
            "BDAT" => self.bdat(argument),
            "RSET" => {
                self.clear();
                self.simple(Stage::Rset, "250 2.0.0 Ok")
            }
            "NOOP" => self.simple(Stage::Noop, "250 2.0.0 Ok"),
            "VRFY" => self.simple(Stage::Noop, "252 2.0.0 Perhaps"),
            "QUIT" => {
                self.simple(Stage::Quit, "221 2.0.0 Bye")?;
                Err(self.link.close())
            }
            _ => self.simple(Stage::Any, "500 5.5.2 Unknown command"),
        }
    }

    fn simple(&mut self, stage: Stage, reply: &str) -> Step {
        if !self.fault(stage)? {
            self.link.reply(reply);
        }
        Ok(())
    }

    fn offers(&self, extension: &str) -> bool {
        !self.shared.options.hide.iter().any(|hidden| hidden.eq_ignore_ascii_case(extension))
    }

    fn ehlo(&mut self, name: &str) -> Step {
        self.clear();
        if self.fault_for(Stage::Helo, name)? {
            return Ok(());
        }
        self.greeted = true;
        let tls = self.shared.options.tls.as_ref();
        let mut lines = vec!["localhost".to_owned()];
        for name in ["PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"] {
            if self.offers(name) {
                lines.push(name.to_owned());
            }
        }
        if self.offers("SIZE") {
            lines.push(format!("SIZE {}", self.shared.options.size));
        }
        if tls.is_some() && !self.link.is_tls() && self.offers("STARTTLS") {
            lines.push("STARTTLS".to_owned());
        }
        if self.shared.options.auth.is_some() && (self.link.is_tls() || !tls.is_some_and(|tls| tls.required))
        {
            lines.push("AUTH PLAIN LOGIN".to_owned());
        }
        for (i, line) in lines.iter().enumerate() {
            let dash = if i + 1 == lines.len() { ' ' } else { '-' };
            self.link.reply(&format!("250{dash}{line}"));
        }
        Ok(())
    }

    fn starttls(&mut self) -> Step {
        if self.fault(Stage::StartTls)? {
            return Ok(());
        }
        let Some(config) = self.shared.tls.as_ref().filter(|_| !self.link.is_tls()) else {
            self.link.reply("503 5.5.1 No STARTTLS here");
            return Ok(());
        };
        self.link.reply("220 2.0.0 Go ahead");
        self.link.start_tls(config)?;
        self.clear();
        self.greeted = false;
        self.authenticated = self.shared.options.auth.is_none();
        Ok(())
    }

    fn auth(&mut self, argument: &str) -> Step {
        if self.fault(Stage::Auth)? {
            return Ok(());
        }
        let Some((user, password)) = self.shared.options.auth.as_ref() else {
            self.link.reply("502 5.5.1 No AUTH here");
            return Ok(());
        };
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let mechanism = mechanism.to_ascii_uppercase();
        let given = match mechanism.as_str() {
            "PLAIN" => {
                let answer = self.answer("", initial)?;
                let mut parts = answer.split('\0').skip(1).map(str::to_owned);
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
            "LOGIN" => (self.answer("VXNlcm5hbWU6", initial)?, self.answer("UGFzc3dvcmQ6", "")?),
            _ => {
                self.link.reply("504 5.5.4 Unknown mechanism");
                return Ok(());
            }
        };
        self.authenticated = given.0 == *user && given.1 == password.expose();
        self.shared.outbox.login(self.number, &given.0, &mechanism, self.authenticated)?;
        self.link.reply(if self.authenticated {
            "235 2.7.0 Welcome"
        } else {
            "535 5.7.8 Wrong user or password"
        });
        Ok(())
    }

    /// The client's decoded answer to a challenge, or what it sent along with the command.
    fn answer(&mut self, challenge: &str, initial: &str) -> Step<String> {
        let text = if initial.is_empty() {
            self.link.reply(&format!("334 {challenge}"));
            self.link.line()?
        } else {
            initial.to_owned()
        };
        Ok(String::from_utf8_lossy(&BASE64.decode(text).unwrap_or_default()).into_owned())
    }

    fn mail(&mut self, argument: &str) -> Step {
        let Some((path, parameters)) = path(argument, "FROM:") else {
            self.link.reply("501 5.5.4 MAIL FROM:<address>");
            return Ok(());
        };
        if self.fault_for(Stage::Mail, path)? {
            return Ok(());
        }
        let refusal = if !self.greeted || self.reverse_path.is_some() {
            Some("503 5.5.1 Not now".to_owned())
        } else if self.shared.options.tls.as_ref().is_some_and(|tls| tls.required) && !self.link.is_tls() {
            Some("530 5.7.0 STARTTLS first".to_owned())
        } else if !self.authenticated {
            Some("530 5.7.0 AUTH first".to_owned())
        } else {
            parameters.split_whitespace().find_map(|parameter| self.refuses(parameter))
        };
        match refusal {
            Some(reply) => self.link.reply(&reply),
            None => {
                self.reverse_path = Some(path.to_owned());
                self.link.reply("250 2.1.0 Ok");
            }
        }
        Ok(())
    }

    /// Why a parameter of MAIL cannot be taken.
    fn refuses(&self, parameter: &str) -> Option<String> {
        let upper = parameter.to_ascii_uppercase();
        let (key, value) = upper.split_once('=').unwrap_or((&upper, ""));
        let offered = match (key, value) {
            ("BODY", "7BIT" | "8BITMIME") => self.offers("8BITMIME"),
            ("SMTPUTF8", "") => self.offers("SMTPUTF8"),
            ("SIZE", _) => self.offers("SIZE"),
            ("AUTH", _) => self.shared.options.auth.is_some(),
            _ => false,
        };
        if !offered {
            Some(format!("555 5.5.4 {parameter} was not offered"))
        } else if key == "SIZE" && value.parse().is_ok_and(|size: usize| size > self.shared.options.size) {
            Some("552 5.3.4 Too big".to_owned())
        } else {
            None
        }
    }

    fn rcpt(&mut self, argument: &str) -> Step {
        let Some((path, _)) = path(argument, "TO:") else {
            self.link.reply("501 5.5.4 RCPT TO:<address>");
            return Ok(());
        };
        if self.fault_for(Stage::Rcpt, path)? {
            return Ok(());
        }
        if self.reverse_path.is_none() || self.chunked {
            self.link.reply("503 5.5.1 Not now");
        } else if self.recipients.len() >= MAX_RECIPIENTS {
            self.link.reply("452 4.5.3 Too many recipients");
        } else {
            self.recipients.push(path.to_owned());
            self.link.reply("250 2.1.5 Ok");
        }
        Ok(())
    }

    fn data(&mut self) -> Step {
        if self.fault(Stage::Data)? {
            self.clear();
            return Ok(());
        }
        if self.reverse_path.is_none() || self.chunked {
            self.link.reply("503 5.5.1 Not now");
            return Ok(());
        }
        if self.recipients.is_empty() {
            self.link.reply("554 5.5.1 No valid recipients");
            return Ok(());
        }
        self.link.reply("354 End with .");
        self.read_content()?;
        self.finish("DATA")
    }

    /// Reads up to the final dot, undoing transparency. Only CRLF ends a line, so a dot behind a
    /// bare LF is content.
    fn read_content(&mut self) -> Step {
        let mut rule = self.due(Stage::Body);
        let (mut starts_line, mut last) = (true, b'\n');
        loop {
            let have = self.link.have();
            if have.is_empty() || (starts_line && have.len() < 3 && b".\r\n".starts_with(have)) {
                self.link.fill()?;
                continue;
            }
            if starts_line && have.starts_with(b".\r\n") {
                self.link.consume(3);
                return Ok(());
            }
            let stuffed = usize::from(starts_line && have.first() == Some(&b'.'));
            // As far as the next line that starts with a dot, if any.
            let end =
                memchr::memmem::find(&have[stuffed..], b"\n.").map_or(have.len(), |at| stuffed + at + 1);
            let piece = &have[stuffed..end];
            // What is too big is read, as the client does not look for an answer yet, and not kept.
            if self.content.len() <= self.shared.options.size {
                self.content.extend_from_slice(piece);
            }
            starts_line = piece.ends_with(b"\r\n") || (last == b'\r' && piece == b"\n");
            last = piece.last().copied().unwrap_or(last);
            self.link.consume(end);
            self.trip(&mut rule)?;
        }
    }

    fn bdat(&mut self, argument: &str) -> Step {
        let mut words = argument.split_whitespace();
        let Some(mut left) = words.next().and_then(|size| size.parse::<usize>().ok()) else {
            self.link.reply("501 5.5.4 BDAT size [LAST]");
            return Err(self.link.close()); // there is no way to tell content from commands
        };
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let wanted = !self.recipients.is_empty() && self.offers("CHUNKING");
        let mut rule = if wanted { self.due(Stage::Body) } else { None };
        let size = left;
        while left > 0 {
            if self.link.have().is_empty() {
                self.link.fill()?;
            }
            let count = left.min(self.link.have().len());
            if wanted && self.content.len() <= self.shared.options.size {
                self.content.extend_from_slice(&self.link.have()[..count]);
            }
            self.link.consume(count);
            left -= count;
            self.trip(&mut rule)?;
        }
        if self.fault(Stage::Bdat)? {
            self.clear();
        } else if !wanted {
            self.content.clear();
            self.link.reply("503 5.5.1 Not now");
        } else if last {
            return self.finish("BDAT");
        } else {
            self.chunked = true;
            self.link.reply(&format!("250 2.0.0 {size} octets"));
        }
        Ok(())
    }

    fn finish(&mut self, verb: &'static str) -> Step {
        if self.fault(Stage::End)? {
            self.clear();
            return Ok(());
        }
        if self.content.len() > self.shared.options.size {
            self.clear();
            self.link.reply("552 5.3.4 Too big");
            return Ok(());
        }
        let committed = self.shared.outbox.commit(&Delivery {
            connection: self.number,
            reverse_path: self.reverse_path.as_deref().unwrap_or_default(),
            recipients: &self.recipients,
            content: &self.content,
            verb,
            tls: self.link.is_tls(),
        });
        match committed {
            Ok(seq) => {
                self.accepted += 1;
                if !self.fault(Stage::Commit)? {
                    self.link.reply(&format!("250 2.0.0 Ok: queued as {seq}"));
                }
                if let Some(fault) = self.due(Stage::Sent) {
                    self.link.flush()?;
                    self.note(Stage::Sent, fault)?;
                    self.link.act(&fault.action, b"250-")?;
                }
            }
            Err(error) => self.link.reply(&format!("452 4.3.1 The letter cannot be kept: {error}")),
        }
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.reverse_path = None;
        self.recipients.clear();
        self.content.clear();
        self.chunked = false;
    }

    /// The first rule of `stage` whose turn it is with this letter.
    fn due(&self, stage: Stage) -> Option<&'a Fault> {
        let keys = || self.recipients.iter().map(String::as_str);
        self.shared.options.faults.iter().find(|fault| fault.hits(stage, keys(), self.accepted))
    }

    /// Applies a rule of `body` once enough of the content is here. The client would not look for
    /// an answer yet, so one that is given also closes.
    fn trip(&mut self, rule: &mut Option<&Fault>) -> Step {
        if let Some(fault) = rule.take_if(|fault| self.content.len() >= fault.at) {
            self.note(Stage::Body, fault)?;
            if self.link.act(&fault.action, b"250-")? {
                return Err(self.link.close());
            }
        }
        Ok(())
    }

    /// Applies the rules for `stage` and this letter's recipients; true if one of them has answered.
    fn fault(&mut self, stage: Stage) -> Step<bool> {
        for fault in &self.shared.options.faults {
            if fault.hits(stage, self.recipients.iter().map(String::as_str), self.accepted) {
                self.note(stage, fault)?;
                if self.link.act(&fault.action, b"250-")? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The same for a command that names what the rule's glob is compared with.
    fn fault_for(&mut self, stage: Stage, key: &str) -> Step<bool> {
        for fault in &self.shared.options.faults {
            if fault.hits(stage, std::iter::once(key), self.accepted) {
                self.shared.outbox.fault(self.number, stage.name(), &fault.rule, &[key])?;
                if self.link.act(&fault.action, b"250-")? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn note(&self, stage: Stage, fault: &Fault) -> Step {
        let keys: Vec<&str> = self.recipients.iter().map(String::as_str).collect();
        Ok(self.shared.outbox.fault(self.number, stage.name(), &fault.rule, &keys)?)
    }
}

/// `FROM:<a@b> PARAMETERS`, with or without a space after the colon.
fn path<'a>(argument: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = argument.split_at_checked(word.len())?;
    if !head.eq_ignore_ascii_case(word) {
        return None;
    }
    rest.trim_start().strip_prefix('<')?.split_once('>')
}
