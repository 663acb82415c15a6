//! One POP3 session of the maildrop (RFC 1939; CAPA and PIPELINING 2449, STLS 2595, AUTH 5034).

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};

use super::fault::{Fault, Stage};
use super::link::{Link, Over};
use super::maildrop::{self, Muddle, Shared, Stored, Uidls};

/// How much of a message is in memory at once.
const PIECE: usize = 64 << 10;

type Step<T = ()> = Result<T, Over>;

/// Serves until the session is over; says how many flights of replies were sent.
pub(super) fn serve(link: Link, shared: &Shared) -> u64 {
    let number = shared.sessions.fetch_add(1, Relaxed) + 1;
    let mut session =
        Session { shared, number, link, user: String::new(), challenge: None, messages: None, sent: 0 };
    let Err(Over) = session.run();
    if session.messages.is_some() {
        shared.locked.store(false, Relaxed);
    }
    session.link.flights
}

enum Never {}

struct Session<'a> {
    shared: &'a Shared,
    number: u64,
    link: Link,
    user: String,
    /// What APOP's digest is made with.
    challenge: Option<String>,
    /// From the login on: the maildrop is ours.
    messages: Option<Vec<Stored>>,
    sent: u64,
}

impl<'a> Session<'a> {
    fn run(&mut self) -> Step<Never> {
        if let Some((tls, config)) = self.shared.options.tls.as_ref().zip(self.shared.tls.as_ref())
            && tls.implicit
        {
            self.link.start_tls(config)?;
        }
        if !self.fault(Stage::Connect, "")? {
            let mut greeting = "+OK postroom sandbox".to_owned();
            if self.shared.options.apop {
                let challenge = format!("<{}.{}@localhost>", std::process::id(), self.number);
                greeting = format!("{greeting} {challenge}");
                self.challenge = Some(challenge);
            }
            self.link.reply(&greeting);
        }
        loop {
            let line = self.link.line()?;
            self.shared.log.counters.commands.fetch_add(1, Relaxed);
            if self.shared.options.muddle != Muddle::None && !self.link.have().is_empty() {
                self.stumble(&line)?;
            } else {
                self.command(&line)?;
            }
        }
    }

    /// A command that did not come alone meets a server that cannot do what it offers.
    fn stumble(&mut self, line: &str) -> Step {
        match self.shared.options.muddle {
            Muddle::None => self.command(line),
            Muddle::Close => {
                self.link.reply("-ERR synchronization error");
                Err(self.link.close())
            }
            Muddle::Lose => {
                let rest = self.link.have().len();
                self.link.consume(rest);
                self.command(line)
            }
            Muddle::Refuse => {
                self.command(line)?;
                while !self.link.have().is_empty() {
                    self.link.line()?;
                    self.link.reply("-ERR unknown command");
                }
                Ok(())
            }
        }
    }

    fn command(&mut self, line: &str) -> Step {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim();
        let stage = match verb.to_ascii_uppercase().as_str() {
            "CAPA" => Stage::Capa,
            "STLS" => Stage::Stls,
            "USER" => Stage::User,
            "PASS" => Stage::Pass,
            "APOP" => Stage::Apop,
            "AUTH" => Stage::Auth,
            "STAT" => Stage::Stat,
            "LIST" => Stage::List,
            "UIDL" => Stage::Uidl,
            "TOP" => Stage::Top,
            "RETR" => Stage::Retr,
            "DELE" => Stage::Dele,
            "RSET" => Stage::Rset,
            "NOOP" => Stage::Noop,
            "QUIT" => Stage::Quit,
            _ => {
                self.link.reply("-ERR unknown command");
                return Ok(());
            }
        };
        if self.fault(stage, argument.split(' ').next().unwrap_or(""))? {
            return Ok(());
        }
        match stage {
            Stage::Capa => self.capa(),
            Stage::Quit => self.quit(),
            Stage::Stls => self.stls(),
            Stage::User if self.messages.is_none() => {
                argument.clone_into(&mut self.user);
                self.link.reply("+OK");
                Ok(())
            }
            Stage::Pass if self.messages.is_none() => {
                let password = self.shared.options.password.expose();
                let good = self.user == self.shared.options.user && argument == password;
                self.login(good, "PASS")
            }
            Stage::Apop if self.messages.is_none() => self.apop(argument),
            Stage::Auth if self.messages.is_none() => self.auth(argument),
            _ if self.messages.is_none() => {
                self.link.reply("-ERR log in first");
                Ok(())
            }
            Stage::User | Stage::Pass | Stage::Apop | Stage::Auth => {
                self.link.reply("-ERR you are logged in");
                Ok(())
            }
            _ => self.transaction(stage, argument),
        }
    }

    fn offers(&self, capability: &str) -> bool {
        !self.shared.options.hide.iter().any(|hidden| hidden.eq_ignore_ascii_case(capability))
    }

    fn capa(&mut self) -> Step {
        self.link.reply("+OK");
        let tls = self.shared.tls.is_some() && !self.link.is_tls();
        for (line, offered) in [
            ("USER", true),
            ("SASL PLAIN", true),
            ("TOP", true),
            ("UIDL", self.shared.options.uidls != Uidls::Missing),
            ("STLS", tls),
            ("PIPELINING", true),
            ("RESP-CODES", true),
            ("AUTH-RESP-CODE", true),
            ("IMPLEMENTATION postroom sandbox", true),
        ] {
            if offered && self.offers(line) {
                self.link.reply(line);
            }
        }
        self.link.reply(".");
        Ok(())
    }

    fn stls(&mut self) -> Step {
        match self.shared.tls.as_ref().filter(|_| !self.link.is_tls() && self.messages.is_none()) {
            None => {
                self.link.reply("-ERR no STLS here");
                Ok(())
            }
            Some(config) => {
                self.link.reply("+OK go ahead");
                self.user.clear();
                self.link.start_tls(config)
            }
        }
    }

    fn apop(&mut self, argument: &str) -> Step {
        let Some(challenge) = &self.challenge else {
            self.link.reply("-ERR no APOP here");
            return Ok(());
        };
        let digest = Md5::digest(format!("{challenge}{}", self.shared.options.password.expose()));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let (user, given) = argument.split_once(' ').unwrap_or((argument, ""));
        user.clone_into(&mut self.user);
        self.login(user == self.shared.options.user && given == digest, "APOP")
    }

    fn auth(&mut self, argument: &str) -> Step {
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        if !mechanism.eq_ignore_ascii_case("PLAIN") {
            self.link.reply("-ERR unknown mechanism");
            return Ok(());
        }
        let answer = if initial.is_empty() {
            self.link.reply("+ ");
            self.link.line()?
        } else {
            initial.to_owned()
        };
        let text = String::from_utf8_lossy(&BASE64.decode(answer).unwrap_or_default()).into_owned();
        let mut parts = text.split('\0').skip(1);
        let (user, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        user.clone_into(&mut self.user);
        let good = user == self.shared.options.user && password == self.shared.options.password.expose();
        self.login(good, "PLAIN")
    }

    fn login(&mut self, good: bool, mechanism: &str) -> Step {
        let secure = self.link.is_tls() || !self.shared.options.tls.as_ref().is_some_and(|tls| tls.required);
        self.shared.log.login(self.number, &self.user, mechanism, good && secure)?;
        if !secure {
            self.link.reply("-ERR STLS first");
        } else if !good {
            self.link.reply("-ERR [AUTH] wrong user or password");
        } else if self.shared.locked.swap(true, Relaxed) {
            self.link.reply("-ERR [IN-USE] another session has the maildrop");
        } else {
            match maildrop::messages(&self.shared.options.folder) {
                Ok(messages) => {
                    self.link.reply(&format!("+OK {} messages", messages.len()));
                    self.messages = Some(messages);
                }
                Err(error) => {
                    self.shared.locked.store(false, Relaxed);
                    self.link.reply(&format!("-ERR [SYS/TEMP] {error}"));
                }
            }
        }
        Ok(())
    }

    fn transaction(&mut self, stage: Stage, argument: &str) -> Step {
        let (number, rest) = argument.split_once(' ').unwrap_or((argument, ""));
        match (stage, number) {
            (Stage::Noop, _) => self.link.reply("+OK"),
            (Stage::Rset, _) => {
                for message in self.messages.iter_mut().flatten() {
                    message.deleted = false;
                }
                self.link.reply("+OK");
            }
            (Stage::Stat, _) => {
                let (count, size) = self.kept().fold((0, 0), |(count, size), (number, message)| {
                    (count + 1, size + self.said_size(number, message))
                });
                self.link.reply(&format!("+OK {count} {size}"));
            }
            (Stage::Uidl, _) if self.shared.options.uidls == Uidls::Missing => {
                self.link.reply("-ERR unknown command");
            }
            (Stage::List | Stage::Uidl, "") => {
                let lines: Vec<String> =
                    self.kept().map(|(number, message)| self.listing(stage, number, message)).collect();
                self.link.reply("+OK");
                for line in lines {
                    self.link.raw(line.as_bytes())?;
                    self.link.raw(b"\r\n")?;
                }
                self.link.reply(".");
            }
            _ => match self.find(number) {
                None => self.link.reply("-ERR no such message"),
                Some((number, message)) => match stage {
                    Stage::List | Stage::Uidl => {
                        let line = self.listing(stage, number, message);
                        self.link.reply(&format!("+OK {line}"));
                    }
                    Stage::Dele => {
                        if let Some(message) =
                            self.messages.as_mut().and_then(|messages| messages.get_mut(number - 1))
                        {
                            message.deleted = true;
                        }
                        self.link.reply("+OK");
                    }
                    Stage::Top => match rest.trim().parse() {
                        Ok(lines) => return self.send(number, Some(lines)),
                        Err(_) => self.link.reply("-ERR TOP number lines"),
                    },
                    _ => return self.send(number, None),
                },
            },
        }
        Ok(())
    }

    /// The messages that are not deleted, with their numbers.
    fn kept(&self) -> impl Iterator<Item = (usize, &Stored)> {
        let messages = self.messages.iter().flatten().enumerate();
        messages.filter(|(_, message)| !message.deleted).map(|(index, message)| (index + 1, message))
    }

    fn find(&self, number: &str) -> Option<(usize, &Stored)> {
        let number: usize = number.parse().ok()?;
        let message = self.messages.as_ref()?.get(number.checked_sub(1)?)?;
        (!message.deleted).then_some((number, message))
    }

    fn listing(&self, stage: Stage, number: usize, message: &Stored) -> String {
        if stage == Stage::List {
            return format!("{number} {}", self.said_size(number, message));
        }
        let identity = match self.shared.options.uidls {
            Uidls::Changed => format!("{} {}", self.number, message.name),
            Uidls::Duplicate => format!("pair {}", number.div_ceil(2)),
            Uidls::Stable | Uidls::Missing => message.name.clone(),
        };
        // A UIDL is at most 70 characters of 0x21 to 0x7E (RFC 1939 §7): a name may be neither.
        let hash = blake3::hash(identity.as_bytes()).to_hex();
        format!("{number} {}", &hash[..32])
    }

    fn said_size(&self, number: usize, message: &Stored) -> u64 {
        if self.shared.options.wrong_sizes { message.size / 2 + number as u64 } else { message.size }
    }

    /// Sends a message, or its header and so many lines of its body.
    fn send(&mut self, number: usize, lines: Option<u64>) -> Step {
        let Some((path, name, size)) = self
            .messages
            .as_ref()
            .and_then(|messages| messages.get(number - 1))
            .map(|message| (message.path.clone(), message.name.clone(), message.size))
        else {
            self.link.reply("-ERR no such message");
            return Ok(());
        };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                self.link.reply(&format!("-ERR [SYS/TEMP] {error}"));
                return Ok(());
            }
        };
        self.link.reply(&format!("+OK {size} octets"));
        let mut rule = if lines.is_none() { self.due(&number.to_string()) } else { None };
        let mut body = Body { written: 0, last: [b'\r', b'\n'], in_header: true, lines };
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece)?;
            let (end, enough) = body.cut(&piece[..count]);
            let mut start = 0;
            if let Some(fault) = rule.filter(|fault| fault.at <= body.written + end) {
                start = fault.at.saturating_sub(body.written).min(end);
                body.write(&piece[..start], &mut self.link)?;
                self.shared.log.fault(
                    self.number,
                    Stage::Body.name(),
                    &fault.rule,
                    &[&number.to_string()],
                )?;
                if self.link.act(&fault.action, b"+OK ")? {
                    return Err(self.link.close()); // an answer in the middle of a message ends it
                }
                rule = None;
            }
            body.write(&piece[start..end], &mut self.link)?;
            if count == 0 || enough {
                break;
            }
        }
        self.link.raw(if body.last == *b"\r\n" { b".\r\n" } else { b"\r\n.\r\n" })?;
        if lines.is_none() {
            self.sent += 1;
            self.shared.log.fetched(self.number, number, &name, size)?;
        }
        Ok(())
    }

    /// Removes what was marked, and says so only if all of it is gone (RFC 1939 §6).
    fn quit(&mut self) -> Step {
        let mut left = 0;
        let messages = self.messages.take();
        for message in messages.iter().flatten().filter(|message| message.deleted) {
            match fs::remove_file(&message.path) {
                Ok(()) => self.shared.log.deleted(self.number, &message.name)?,
                Err(_) => left += 1,
            }
        }
        if messages.is_some() {
            // Whoever reads our goodbye may log in at once.
            self.shared.locked.store(false, Relaxed);
        }
        self.link.reply(&if left == 0 {
            "+OK bye".to_owned()
        } else {
            format!("-ERR {left} deleted messages not removed")
        });
        Err(self.link.close())
    }

    fn due(&self, key: &str) -> Option<&'a Fault> {
        let faults = self.shared.options.faults.iter();
        faults.into_iter().find(|fault| fault.hits(Stage::Body, std::iter::once(key), self.sent))
    }

    /// Applies the rules for `stage`; true if one of them has answered.
    fn fault(&mut self, stage: Stage, key: &str) -> Step<bool> {
        for fault in &self.shared.options.faults {
            if fault.hits(stage, std::iter::once(key), self.sent) {
                self.shared.log.fault(self.number, stage.name(), &fault.rule, &[key])?;
                if self.link.act(&fault.action, b"+OK ")? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Where a message stands while it is written.
struct Body {
    written: usize,
    last: [u8; 2],
    in_header: bool,
    /// Of TOP: lines of the body that are left.
    lines: Option<u64>,
}

impl Body {
    /// How much of a piece TOP still wants, and whether that was the end. Without TOP: all of it.
    fn cut(&mut self, piece: &[u8]) -> (usize, bool) {
        let Some(left) = &mut self.lines else { return (piece.len(), false) };
        let mut last = self.last;
        for (index, &byte) in piece.iter().enumerate() {
            if !self.in_header && *left == 0 {
                return (index, true);
            }
            if byte == b'\n' {
                if !self.in_header {
                    *left -= 1;
                } else if last == *b"\n\r" || last[1] == b'\n' {
                    self.in_header = false;
                }
            }
            last = [last[1], byte];
        }
        (piece.len(), !self.in_header && *left == 0)
    }

    /// Writes with transparency: a dot that starts a line is doubled, where CRLF ends lines.
    fn write(&mut self, mut piece: &[u8], link: &mut Link) -> Step {
        self.written += piece.len();
        if let [first, ..] = piece
            && *first == b'.'
            && self.last == *b"\r\n"
        {
            link.raw(b".")?;
        }
        let at_start = self.last;
        match piece {
            [.., a, b] => self.last = [*a, *b],
            [a] => self.last = [self.last[1], *a],
            [] => return Ok(()),
        }
        // A line end that an earlier piece began.
        if at_start[1] == b'\r' && piece.starts_with(b"\n.") {
            link.raw(b"\n.")?;
            piece = &piece[1..];
        }
        while let Some(at) = memchr::memmem::find(piece, b"\r\n.") {
            link.raw(&piece[..at + 3])?;
            piece = &piece[at + 2..];
        }
        link.raw(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::path::Path;
    use std::time::Duration;

    use super::super::fault::Protocol;
    use super::super::{Maildrop, MaildropOptions};
    use super::*;
    use crate::secret::Secret;

    fn maildrop(folder: &Path, bend: impl FnOnce(&mut MaildropOptions)) -> Maildrop {
        let mut options = MaildropOptions::new(folder.to_owned(), "me", Secret::new("hunter2"));
        bend(&mut options);
        Maildrop::start(options).expect("a maildrop on loopback")
    }

    /// Says all of `commands` at once and gives everything that comes back until the close.
    fn hear(maildrop: &Maildrop, commands: &str) -> String {
        let mut socket = TcpStream::connect(maildrop.address()).expect("the maildrop's port");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket.write_all(commands.as_bytes()).expect("the maildrop reads");
        let mut heard = Vec::new();
        let _ = socket.read_to_end(&mut heard); // a rule may reset the connection
        String::from_utf8_lossy(&heard).into_owned()
    }

    fn folder(messages: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (index, message) in messages.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{index}.eml")), message).expect("a message");
        }
        folder
    }

    const LOGIN: &str = "USER me\r\nPASS hunter2\r\n";
    const ENTER: &str = "+OK postroom sandbox\r\n+OK\r\n";

    #[test]
    fn messages_are_sent_as_they_lie_there_with_dots_doubled() {
        let folder = folder(&["A: b\r\n\r\n.one\r\nbare\n.two\r\n..\r\n", "no end", ""]);
        let maildrop = maildrop(folder.path(), |_| {});
        let heard = hear(
            &maildrop,
            &format!("{LOGIN}STAT\r\nLIST\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\nQUIT\r\n"),
        );
        assert_eq!(
            heard,
            format!(
                "{ENTER}+OK 3 messages\r\n+OK 3 37\r\n+OK\r\n1 29\r\n2 8\r\n3 0\r\n.\r\n\
                 +OK 29 octets\r\nA: b\r\n\r\n..one\r\nbare\n.two\r\n...\r\n.\r\n\
                 +OK 8 octets\r\nno end\r\n.\r\n+OK 0 octets\r\n.\r\n-ERR no such message\r\n+OK bye\r\n"
            )
        );
    }

    #[test]
    fn top_stops_after_so_many_lines_of_the_body() {
        let folder = folder(&["A: b\r\nC: d\r\n\r\none\r\n.two\r\nthree\r\n"]);
        let maildrop = maildrop(folder.path(), |_| {});
        for (lines, expected) in [
            ("0", "A: b\r\nC: d\r\n\r\n"),
            ("2", "A: b\r\nC: d\r\n\r\none\r\n..two\r\n"),
            ("99", "A: b\r\nC: d\r\n\r\none\r\n..two\r\nthree\r\n"),
        ] {
            let heard = hear(&maildrop, &format!("{LOGIN}TOP 1 {lines}\r\nQUIT\r\n"));
            let body = heard.split_once("octets\r\n").map(|(_, body)| body);
            assert_eq!(body, Some(format!("{expected}.\r\n+OK bye\r\n").as_str()), "{lines}");
        }
    }

    #[test]
    fn only_quit_deletes_and_only_what_is_marked() {
        let folder = folder(&["a", "b", "c"]);
        let maildrop = maildrop(folder.path(), |_| {});
        let left = || std::fs::read_dir(folder.path()).map_or(0, Iterator::count);
        for (commands, expected) in [
            ("DELE 1\r\nNOOP\r\n\u{4}", 3), // the connection just ends, below
            ("DELE 1\r\nRSET\r\nQUIT\r\n", 3),
            ("DELE 1\r\nDELE 3\r\nRETR 1\r\nQUIT\r\n", 1),
        ] {
            if commands.ends_with("QUIT\r\n") {
                hear(&maildrop, &format!("{LOGIN}{commands}"));
            } else {
                let mut socket = TcpStream::connect(maildrop.address()).expect("the maildrop's port");
                socket.write_all(format!("{LOGIN}{commands}").as_bytes()).expect("the maildrop reads");
                drop(socket);
            }
            // The next login waits until the maildrop is free again.
            while hear(&maildrop, &format!("{LOGIN}QUIT\r\n")).contains("[IN-USE]") {}
            assert_eq!(left(), expected, "{commands:?}");
        }
    }

    #[test]
    fn it_misbehaves_when_told_to() {
        let rule = |text| Fault::parse(text, Protocol::Pop3, 1).expect("a rule");
        type Bend = Box<dyn FnOnce(&mut MaildropOptions)>;
        let cases: Vec<(Bend, &str, &str, bool)> = vec![
            (Box::new(|o| o.uidls = Uidls::Missing), "UIDL\r\nQUIT\r\n", "-ERR unknown command", true),
            (Box::new(|o| o.wrong_sizes = true), "LIST 2\r\nQUIT\r\n", "2 502\r\n", true),
            (Box::new(|o| o.muddle = Muddle::Lose), "NOOP\r\nQUIT\r\n", "+OK bye", false),
            (Box::new(|o| o.muddle = Muddle::Close), "NOOP\r\nQUIT\r\n", "-ERR synchronization", true),
            (Box::new(|o| o.muddle = Muddle::Refuse), "NOOP\r\nQUIT\r\n", "-ERR unknown command", true),
            (
                Box::new(move |o| o.faults = vec![rule("retr if=2 reply -ERR [SYS/TEMP] not now")]),
                "RETR 2\r\nQUIT\r\n",
                "-ERR [SYS/TEMP] not now\r\n+OK bye",
                true,
            ),
            (
                Box::new(move |o| o.faults = vec![rule("body if=2 at=500 drop")]),
                "RETR 2\r\nQUIT\r\n",
                "\r\n.\r\n",
                false,
            ),
        ];
        for (bend, commands, words, expected) in cases {
            let long = "x".repeat(998);
            let folder = folder(&["a", &long]);
            let mut said = String::new();
            let maildrop = maildrop(folder.path(), |options| {
                options.idle = Duration::from_millis(300);
                bend(options);
                said = format!("{:?} {:?} {:?}", options.uidls, options.muddle, options.faults);
            });
            let heard = hear(&maildrop, &format!("{LOGIN}{commands}"));
            assert_eq!(heard.contains(words), expected, "{said}: {heard}");
        }
    }

    #[test]
    fn uidls_are_stable_changed_or_shared_as_told() {
        let folder = folder(&["a", "b"]);
        let uidls = |maildrop: &Maildrop| -> Vec<String> {
            let heard = hear(maildrop, &format!("{LOGIN}UIDL\r\nQUIT\r\n"));
            heard
                .lines()
                .filter_map(|line| line.split_once(' '))
                .filter(|(_, id)| id.len() == 32)
                .map(|(_, id)| id.to_owned())
                .collect()
        };
        for (how, same_next_time, same_as_other) in
            [(Uidls::Stable, true, false), (Uidls::Changed, false, false), (Uidls::Duplicate, true, true)]
        {
            let maildrop = maildrop(folder.path(), |options| options.uidls = how);
            let (first, second) = (uidls(&maildrop), uidls(&maildrop));
            assert_eq!(first.len(), 2, "{how:?}");
            assert_eq!(first == second, same_next_time, "{how:?}");
            assert_eq!(first[0] == first[1], same_as_other, "{how:?}");
        }
    }

    #[test]
    fn apop_needs_the_challenge_of_its_session() {
        let folder = folder(&[]);
        let maildrop = maildrop(folder.path(), |options| options.apop = true);
        let mut socket = TcpStream::connect(maildrop.address()).expect("the maildrop's port");
        let mut greeting = [0; 200];
        let count = socket.read(&mut greeting).expect("a greeting");
        let greeting = String::from_utf8_lossy(&greeting[..count]).into_owned();
        let challenge = greeting.trim().rsplit(' ').next().expect("a challenge").to_owned();
        let digest = Md5::digest(format!("{challenge}hunter2"));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        socket.write_all(format!("APOP me {digest}\r\nQUIT\r\n").as_bytes()).expect("it reads");
        let mut heard = String::new();
        socket.read_to_string(&mut heard).expect("an answer");
        assert!(heard.starts_with("+OK 0 messages"), "{heard}");
        assert!(hear(&maildrop, &format!("APOP me {digest}\r\nQUIT\r\n")).contains("[AUTH]"), "a replay");
    }
}
