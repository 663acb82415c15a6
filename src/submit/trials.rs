//! Session and desk together, without sockets: dialogues from files, and every reply going wrong
//! at every place against a server whose books are then compared with ours.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::time::Instant;

use super::outcome::{Desk, Step};
use super::{Consignment, Event, Queued};
use crate::letter::{Content, Envelope, Message, Outcome, Slice};
use crate::wire::smtp::{Event as Wire, Level, Replies, Security, Session, Way, Window};

const LEVELS: [Level; 4] = [Level::Off, Level::Envelope, Level::Message, Level::Window];

fn letter(seq: u64, recipients: &[&str]) -> Queued {
    let own = format!("Subject: {seq}\r\n\r\nletter {seq}\r\n").into_bytes();
    let slices = vec![Slice::Own(0..9), Slice::Own(9..own.len())];
    let message = Message {
        envelope: Envelope {
            reverse_path: Some("news@example.com".parse().expect("an address")),
            recipients: recipients.iter().map(|rcpt| rcpt.parse().expect("an address")).collect(),
        },
        content: Content::new(own, slices),
        eight_bit: false,
        smtputf8: false,
    };
    Queued { consignment: Consignment { seq, message }, losses: 0, began: Instant::now() }
}

/// Everything that waits to be written.
fn written(session: &mut Session<Queued>) -> Vec<u8> {
    let mut all = Vec::new();
    while session.wants_write() {
        let mut slices = [IoSlice::new(b""); 4];
        let filled = session.gather(&mut slices);
        let octets: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        slices[..filled].iter().for_each(|slice| all.extend_from_slice(slice));
        session.wrote(octets);
    }
    all
}

fn feed(session: &mut Session<Queued>, replies: &mut Replies, bytes: &[u8]) {
    for part in bytes.chunks(4096) {
        replies.space()[..part.len()].copy_from_slice(part);
        replies.filled(part.len());
        loop {
            match replies.take() {
                Ok(Some(reply)) => session.on_reply(&reply),
                Ok(None) => break,
                Err(_) => return session.lost(),
            }
        }
    }
}

/// The server need not read a content to its end before it says no; what it said then is what counts, and
/// the letter has one end.
#[test]
fn an_answer_that_comes_before_the_content_is_written_is_the_letters() {
    for level in [Level::Off, Level::Envelope, Level::Message] {
        for (lost, reply) in [(true, 552), (false, 552), (true, 452), (false, 452), (true, 250)] {
            let window = Window { parcels: 4, octets: usize::MAX };
            let mut session = Session::new("client.test", Security::Settled, level, true, window);
            let mut replies = Replies::default();
            let mut events = Vec::new();
            let mut next = |session: &mut Session<Queued>| {
                while let Some(event) = session.next_event() {
                    match event {
                        Wire::Greeted => {
                            session.open();
                            session.submit(letter(1, &["ada@example.org"]));
                        }
                        event => events.push(event),
                    }
                }
            };
            let mut say = b"220 mx\r\n".to_vec();
            while !say.starts_with(b"354") && !say.ends_with(b"354 go on\r\n") {
                feed(&mut session, &mut replies, &say);
                next(&mut session);
                let said = written(&mut session);
                say = said.split_inclusive(|&b| b == b'\n').fold(Vec::new(), |mut say, line| {
                    let answer: &[u8] = match line {
                        [b'E', ..] => b"250-mx\r\n250 PIPELINING\r\n",
                        [b'D', ..] => b"354 go on\r\n",
                        _ => b"250 ok\r\n",
                    };
                    say.extend_from_slice(answer);
                    say
                });
            }
            feed(&mut session, &mut replies, &say);
            assert!(session.unwritten() > 9, "{level:?}: the content");
            session.wrote(9);
            feed(&mut session, &mut replies, format!("{reply} 5.3.4 no\r\n").as_bytes());
            next(&mut session);
            if lost {
                session.lost();
            } else {
                let rest = written(&mut session);
                assert!(rest.ends_with(b"\r\n.\r\n"), "{level:?}: the content is ended");
            }
            next(&mut session);
            let Some(Wire::Done(queued, record)) = events.pop() else { panic!("{level:?} {lost} {reply}") };
            assert_eq!(queued.consignment.seq, 1);
            let code = record.end.as_ref().map(|heard| heard.code);
            if reply == 250 {
                // A yes to half a letter is none.
                assert!(matches!(events[..], [Wire::Broken(_)]), "{level:?}");
                assert_eq!((code, record.way), (None, Way::Early), "{level:?}");
                let mut told = Vec::new();
                Desk::default().judge(queued.consignment, record, &mut told);
                let [Event::Settled { rcpts, .. }] = &told[..] else { panic!("{level:?}: {told:?}") };
                assert_eq!(rcpts[0].outcome, Outcome::Unsure, "{level:?}");
            } else {
                assert!(events.is_empty(), "{level:?} {lost}: {} events more", events.len());
                assert_eq!(code, Some(reply), "{level:?} {lost}");
            }
        }
    }
}

mod dialogues {
    //! Dialogues from `tests/dialogues/*.txt`, both sides compared byte for byte.
    //!
    //! ```text
    //! # What it shows.
    //! level: off | envelope | message | window | auto     (auto: unproven, climbs)
    //! window: 4
    //! letter: ada@example.org grace@example.org           (one line each; submitted as soon as there is room)
    //! S: 220 mx                                           what the server says; `S: [close]` hangs up
    //! S+ 250 m                                            the same without its line end: the rest comes later
    //! C: EHLO client.test                                 what we say; `C: [3]` is the content of the third letter
    //! C: [quit]                                           QUIT is asked for here
    //! = 1 ada@example.org accepted 250 ok                 what became of whom, at the end; `= 2 returned`,
    //! = trouble MAIL 550 no                               `= 3 again`, `= broken WORDS`, `= stumbled window`
    //! ```

    use super::*;

    #[derive(Default)]
    struct Setting {
        level: String,
        window: usize,
        letters: VecDeque<Queued>,
        security: Option<Security>,
    }

    struct Stage {
        session: Session<Queued>,
        replies: Replies,
        desk: Desk,
        told: Vec<String>,
        letters: VecDeque<Queued>,
        contents: Vec<Vec<u8>>,
    }

    impl Stage {
        fn settle(&mut self) {
            let mut events = Vec::new();
            while let Some(event) = self.session.next_event() {
                match event {
                    Wire::Greeted => self.session.open(),
                    Wire::Done(queued, record) => {
                        let step = self.desk.judge(queued.consignment, record, &mut events);
                        self.tell(std::mem::take(&mut events));
                        match step {
                            Step::Settled => {}
                            Step::Again(letter) => self.told.push(format!("{} again", letter.seq)),
                            Step::Back(letter) => self.told.push(format!("{} returned", letter.seq)),
                            Step::Trouble(letter, command, answer) => {
                                self.told.push(format!("{} returned", letter.seq));
                                self.told.push(format!("trouble {command} {answer}"));
                            }
                        }
                    }
                    Wire::Untouched(queued) => self.told.push(format!("{} returned", queued.consignment.seq)),
                    Wire::Stumbled(level) => {
                        self.told.push(format!("stumbled {}", format!("{level:?}").to_lowercase()));
                    }
                    Wire::Closing(heard) => self.told.push(format!("closing {heard}")),
                    Wire::Refused(heard) => self.told.push(format!("refused {heard}")),
                    Wire::NoStartTls => self.told.push("no starttls".to_owned()),
                    Wire::Broken(reason) => {
                        self.told.push(format!("broken {reason}"));
                        self.session.lost();
                    }
                    Wire::Quit => self.told.push("quit".to_owned()),
                    Wire::LoggedIn | Wire::LoginFailed(_) => {}
                }
            }
            while self.session.room() > 0 {
                let Some(queued) = self.letters.pop_front() else { break };
                self.session.submit(queued);
            }
        }

        fn tell(&mut self, events: Vec<Event>) {
            for event in events {
                match event {
                    Event::Settled { seq, rcpts } => {
                        for rcpt in rcpts {
                            let line =
                                format!("{seq} {} {} {}", rcpt.address, rcpt.outcome.word(), rcpt.answer);
                            self.told.push(line.trim_end().to_owned());
                        }
                    }
                    Event::Returned { seq } => self.told.push(format!("{seq} returned")),
                    other => self.told.push(format!("{other:?}")),
                }
            }
        }

        fn hear(&mut self, bytes: &[u8]) {
            feed(&mut self.session, &mut self.replies, bytes);
            self.settle();
        }
    }

    fn play(text: &str) -> Result<(), String> {
        let mut setting = Setting { window: 4, ..Setting::default() };
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
            match head {
                "level:" => setting.level = rest.to_owned(),
                "window:" => setting.window = rest.parse().map_err(|_| line.to_owned())?,
                "security:" => setting.security = Some(Security::StartTls),
                "letter:" => {
                    let seq = setting.letters.len() as u64 + 1;
                    let recipients: Vec<&str> = rest.split(' ').collect();
                    setting.letters.push_back(letter(seq, &recipients));
                }
                "=" => expected.push(rest.to_owned()),
                "C:" | "S:" | "S+" => lines.push((head, rest)),
                _ => return Err(format!("what is `{line}`?")),
            }
        }
        let level = match setting.level.as_str() {
            "off" => Level::Off,
            "envelope" => Level::Envelope,
            "message" => Level::Message,
            "window" | "auto" => Level::Window,
            other => return Err(format!("no level `{other}`")),
        };
        let contents =
            setting.letters.iter().map(|queued| queued.consignment.message.content.to_bytes()).collect();
        let window = Window { parcels: setting.window, octets: 1 << 20 };
        let security = setting.security.unwrap_or(Security::Settled);
        let proven = setting.level != "auto";
        let mut stage = Stage {
            session: Session::new("client.test", security, level, proven, window),
            replies: Replies::default(),
            desk: Desk::default(),
            told: Vec::new(),
            letters: setting.letters,
            contents,
        };
        let mut lines = lines.into_iter().peekable();
        while let Some(&(side, _)) = lines.peek() {
            if side == "C:" {
                let mut flight = Vec::new();
                while let Some((_, said)) = lines.next_if(|(side, _)| *side == "C:") {
                    let number = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                    match number {
                        Some("quit") => stage.session.quit(),
                        Some(number) => {
                            let number: usize = number.parse().map_err(|_| said.to_owned())?;
                            flight.extend_from_slice(&stage.contents[number - 1]);
                        }
                        None => flight.extend_from_slice(format!("{said}\r\n").as_bytes()),
                    }
                }
                let said = written(&mut stage.session);
                if said != flight {
                    let (said, flight) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(&flight));
                    return Err(format!("we say\n{said}\nnot\n{flight}\nafter {:?}", stage.told));
                }
                stage.settle();
            } else {
                let said = written(&mut stage.session);
                if !said.is_empty() {
                    return Err(format!("we say too much: {}", String::from_utf8_lossy(&said)));
                }
                let Some((side, said)) = lines.next() else { break };
                match (side, said) {
                    ("S:", "[close]") => {
                        stage.session.lost();
                        stage.settle();
                    }
                    ("S:", "[tls]") => {
                        if !stage.session.wants_tls() {
                            return Err("no handshake was due".to_owned());
                        }
                        stage.session.secured();
                        stage.settle();
                    }
                    ("S+", said) => stage.hear(said.as_bytes()),
                    (_, said) => stage.hear(format!("{said}\r\n").as_bytes()),
                }
            }
        }
        let said = written(&mut stage.session);
        if !said.is_empty() {
            return Err(format!("at the end we still say: {}", String::from_utf8_lossy(&said)));
        }
        stage.session.lost();
        stage.settle();
        let mut events = Vec::new();
        stage.desk.release(&mut events);
        stage.tell(events);
        let letters: Vec<_> =
            stage.letters.iter().map(|queued| format!("{} waits", queued.consignment.seq)).collect();
        stage.told.extend(letters);
        if stage.told != expected {
            return Err(format!(
                "what became of them:\n= {}\nnot\n= {}",
                stage.told.join("\n= "),
                expected.join("\n= ")
            ));
        }
        Ok(())
    }

    #[test]
    fn dialogues_are_as_written() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialogues");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder of dialogues")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
        files.sort();
        assert!(files.len() >= 20, "{} dialogues", files.len());
        let mut failed = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a readable dialogue");
            if let Err(reason) = play(&text) {
                failed.push(format!("--- {}\n{reason}", file.display()));
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

mod books {
    //! Every reply going wrong at every place.

    use super::*;

    /// What the server does at one of its replies.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fault {
        /// Refuses the command, whatever it is.
        Code(u16),
        /// Closes with 421.
        Close,
        /// Closes without a word, the command done.
        Drop,
        /// Says one reply too many.
        Twice,
        /// Says something that is no reply.
        Garbage,
    }

    /// A server that keeps books.
    #[derive(Default)]
    struct Server {
        /// A failed BDAT leaves the transaction open, as RFC 3030 does not forbid.
        keeps: bool,
        /// Answers 503 to what follows a content in the same flight.
        stumbles_behind_content: bool,
        knows_no_bdat: bool,
        input: Vec<u8>,
        output: Vec<u8>,
        mail: bool,
        rcpts: Vec<String>,
        content: Option<Vec<u8>>,
        chunk: Option<(usize, bool)>,
        replies: usize,
        fault: Option<(usize, Fault)>,
        gone: bool,
        /// What was accepted: recipient and content.
        accepted: Vec<(String, Vec<u8>)>,
    }

    impl Server {
        fn connect(&mut self) {
            (self.mail, self.content, self.chunk, self.gone) = (false, None, None, false);
            self.rcpts.clear();
            self.input.clear();
            self.output.clear();
            self.say("220 mx");
        }

        /// Says a reply, unless this is where it goes wrong. True: the command may be done.
        fn may(&mut self) -> bool {
            let fault = self.fault.filter(|&(at, _)| at == self.replies).map(|(_, fault)| fault);
            match fault {
                Some(Fault::Code(code)) => {
                    self.say(&format!("{code} refused"));
                    false
                }
                Some(Fault::Close) => {
                    self.say("421 closing");
                    self.gone = true;
                    false
                }
                _ => true,
            }
        }

        fn say(&mut self, line: &str) {
            let fault = self.fault.filter(|&(at, _)| at == self.replies).map(|(_, fault)| fault);
            self.replies += 1;
            match fault {
                Some(Fault::Drop) => self.gone = true,
                Some(Fault::Garbage) => self.output.extend_from_slice(b"what was that?\r\n"),
                Some(Fault::Twice) => {
                    self.output.extend_from_slice(format!("{line}\r\n{line}\r\n").as_bytes())
                }
                _ => self.output.extend_from_slice(format!("{line}\r\n").as_bytes()),
            }
        }

        fn hear(&mut self, bytes: &[u8]) {
            self.input.extend_from_slice(bytes);
            let mut behind_content = false;
            while !self.gone && self.step(&mut behind_content) {}
        }

        fn accept(&mut self, content: &[u8]) {
            for rcpt in std::mem::take(&mut self.rcpts) {
                self.accepted.push((rcpt, content.to_vec()));
            }
            self.mail = false;
        }

        fn step(&mut self, behind_content: &mut bool) -> bool {
            if let Some((octets, valid)) = self.chunk {
                if self.input.len() < octets {
                    return false;
                }
                let content: Vec<u8> = self.input.drain(..octets).collect();
                self.chunk = None;
                let open = valid && self.mail && !self.rcpts.is_empty();
                if !self.may() {
                    if !self.keeps {
                        self.mail = false;
                        self.rcpts.clear();
                    }
                } else if self.knows_no_bdat {
                    self.say("502 what is BDAT");
                } else if open {
                    self.accept(&content);
                    self.say("250 accepted");
                } else {
                    self.say("503 nobody to send it to");
                }
                return true;
            }
            if let Some(mut content) = self.content.take() {
                let Some(end) = self
                    .input
                    .windows(3)
                    .position(|at| at == b".\r\n")
                    .filter(|&end| end == 0 || self.input[..end].ends_with(b"\r\n"))
                else {
                    self.content = Some(content);
                    return false;
                };
                content.extend(self.input.drain(..end));
                self.input.drain(..3);
                if self.may() {
                    if self.rcpts.is_empty() {
                        self.say("554 nobody to send it to");
                    } else {
                        self.accept(&content);
                        self.say("250 accepted");
                    }
                }
                self.mail = false;
                self.rcpts.clear();
                *behind_content = true;
                return true;
            }
            let Some(end) = self.input.windows(2).position(|at| at == b"\r\n") else { return false };
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            let verb = line.split(' ').next().unwrap_or_default();
            if verb == "BDAT" {
                let octets =
                    line.split(' ').nth(1).and_then(|octets| octets.parse().ok()).expect("BDAT size");
                self.chunk = Some((octets, true));
                return true;
            }
            let stumbles = *behind_content && self.stumbles_behind_content && verb != "QUIT";
            if !self.may() {
                return true;
            }
            if stumbles {
                self.say("503 one thing at a time");
                return true;
            }
            match verb {
                "EHLO" => self.say("250-mx\r\n250-PIPELINING\r\n250 CHUNKING"),
                "HELO" => self.say("250 mx"),
                "RSET" => {
                    self.mail = false;
                    self.rcpts.clear();
                    self.say("250 reset");
                }
                "MAIL" if self.mail => self.say("503 nested"),
                "MAIL" => {
                    self.mail = true;
                    self.say("250 sender");
                }
                "RCPT" if !self.mail => self.say("503 MAIL first"),
                "RCPT" => {
                    let rcpt = line.trim_start_matches("RCPT TO:<").trim_end_matches('>').to_owned();
                    match rcpt.split('@').next() {
                        Some("nobody") => self.say("550 5.1.1 no such user"),
                        Some("later") => self.say("450 4.2.1 later"),
                        _ => {
                            self.rcpts.push(rcpt);
                            self.say("250 recipient");
                        }
                    }
                }
                // Some servers go on to the content with nobody to receive it (RFC 2920 §3.1).
                "DATA" if !self.mail => self.say("503 MAIL first"),
                "DATA" => {
                    self.content = Some(Vec::new());
                    self.say("354 go on");
                }
                "QUIT" => {
                    self.say("221 bye");
                    self.gone = true;
                }
                _ => self.say("500 what"),
            }
            true
        }
    }

    /// What was said about each letter in the end.
    #[derive(Debug, PartialEq, Eq)]
    enum End {
        Settled(Vec<(String, Outcome)>),
        Returned,
    }

    fn letters() -> Vec<Queued> {
        vec![
            letter(0, &["ada@x.test"]),
            letter(1, &["grace@x.test", "nobody@x.test", "edsger@x.test"]),
            letter(2, &["nobody@y.test"]),
            letter(3, &["later@x.test", "nobody@z.test"]),
            letter(4, &["donald@x.test", "later@y.test"]),
            letter(5, &["barbara@x.test"]),
        ]
    }

    /// Submits all letters, over as many connections as it takes.
    fn submit_all(server: &mut Server, level: Level, cut: usize) -> BTreeMap<u64, End> {
        let mut queue: VecDeque<Queued> = letters().into();
        let (mut desk, mut events, mut ceiling) = (Desk::default(), Vec::new(), level);
        let mut stopped = false;
        for _ in 0..20 {
            if queue.is_empty() {
                break;
            }
            server.connect();
            let window = Window { parcels: 4, octets: 1 << 20 };
            let mut session = Session::new("client.test", Security::Settled, ceiling, true, window);
            let mut replies = Replies::default();
            let mut quiet = 0;
            loop {
                let mut progress = false;
                let out = std::mem::take(&mut server.output);
                for part in out.chunks(cut) {
                    progress = true;
                    feed(&mut session, &mut replies, part);
                }
                let mut untouched = Vec::new();
                let mut over = session.is_over();
                while let Some(event) = session.next_event() {
                    progress = true;
                    match event {
                        Wire::Greeted => session.open(),
                        Wire::Done(mut queued, record) => {
                            queued.losses += 1;
                            let losses = queued.losses;
                            match desk.judge(queued.consignment, record, &mut events) {
                                Step::Settled => {}
                                Step::Again(consignment) => {
                                    untouched.push(Queued { consignment, losses, began: Instant::now() })
                                }
                                Step::Back(consignment) if stopped || losses > 5 => {
                                    events.push(Event::Returned { seq: consignment.seq });
                                }
                                Step::Back(consignment) => {
                                    untouched.push(Queued { consignment, losses, began: Instant::now() })
                                }
                                Step::Trouble(consignment, ..) => {
                                    stopped = true;
                                    events.push(Event::Returned { seq: consignment.seq });
                                }
                            }
                        }
                        Wire::Untouched(queued) => untouched.push(queued),
                        Wire::Stumbled(at) => ceiling = ceiling.min(at.lower()),
                        Wire::Broken(_) => {
                            session.lost();
                            over = true;
                        }
                        Wire::Closing(_) | Wire::Refused(_) | Wire::Quit => over = true,
                        Wire::LoggedIn | Wire::LoginFailed(_) | Wire::NoStartTls => {}
                    }
                }
                session.set_ceiling(ceiling);
                untouched.into_iter().rev().for_each(|queued| queue.push_front(queued));
                if over {
                    session.lost();
                    while let Some(event) = session.next_event() {
                        assert!(!matches!(event, Wire::Done(..) | Wire::Untouched(_)), "given back twice");
                    }
                    break;
                }
                while !stopped && session.room() > 0 {
                    let Some(queued) = queue.pop_front() else { break };
                    session.submit(queued);
                }
                let out = written(&mut session);
                progress |= !out.is_empty();
                server.hear(&out);
                progress |= !server.output.is_empty();
                if queue.is_empty() && session.held() == 0 || stopped && session.held() == 0 {
                    break;
                }
                if !progress {
                    quiet += 1;
                }
                // Gone, or silent for good: what a timeout would say.
                if quiet > 1 || (server.gone && server.output.is_empty()) {
                    session.lost();
                    quiet = 0;
                }
            }
        }
        queue.into_iter().for_each(|queued| events.push(Event::Returned { seq: queued.consignment.seq }));
        desk.release(&mut events);
        let mut ends = BTreeMap::new();
        for event in events {
            let (seq, end) = match event {
                Event::Settled { seq, rcpts } => {
                    (seq, End::Settled(rcpts.into_iter().map(|rcpt| (rcpt.address, rcpt.outcome)).collect()))
                }
                Event::Returned { seq } => (seq, End::Returned),
                other => panic!("{other:?}"),
            };
            assert!(ends.insert(seq, end).is_none(), "letter {seq} ends twice");
        }
        ends
    }

    /// Our books and the server's.
    fn compare(server: &Server, ends: &BTreeMap<u64, End>, fault: Option<Fault>) {
        for queued in letters() {
            let seq = queued.consignment.seq;
            let content = queued.consignment.message.content.to_bytes();
            let end = ends.get(&seq).unwrap_or_else(|| panic!("letter {seq} has no end"));
            for recipient in &queued.consignment.message.envelope.recipients {
                let address = recipient.as_str();
                let got: Vec<_> = server.accepted.iter().filter(|(rcpt, _)| rcpt == address).collect();
                assert!(got.len() <= 1, "{address} got letter {seq} twice");
                assert!(got.iter().all(|(_, got)| *got == content), "{address} got something else");
                let outcome = match end {
                    End::Returned => None,
                    End::Settled(rcpts) => {
                        let own: Vec<_> = rcpts.iter().filter(|(rcpt, _)| rcpt == address).collect();
                        assert_eq!(own.len(), 1, "{address} of letter {seq}: one outcome");
                        Some(own[0].1)
                    }
                };
                match (got.len(), outcome) {
                    (1, Some(Outcome::Accepted | Outcome::Unsure)) => {}
                    (0, Some(Outcome::Accepted)) => {
                        // A yes too many, and a yes that is a lie, is believed: nothing tells it from a true one.
                        let lie = matches!(fault, Some(Fault::Twice | Fault::Code(250)));
                        assert!(lie, "{address}: a yes that nobody gave");
                    }
                    (0, _) => {}
                    (_, outcome) => {
                        assert_eq!(fault, Some(Fault::Twice), "{address} has letter {seq}: {outcome:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn without_faults_each_gets_what_is_due() {
        for level in LEVELS {
            for (keeps, stumbles, knows_no_bdat) in
                [(false, false, false), (true, false, false), (false, true, false), (true, false, true)]
            {
                let mut server =
                    Server { keeps, stumbles_behind_content: stumbles, knows_no_bdat, ..Server::default() };
                let ends = submit_all(&mut server, level, 7);
                compare(&server, &ends, None);
                use Outcome::{Accepted, Deferred, Refused};
                let expected: Vec<Vec<Outcome>> = vec![
                    vec![Accepted],
                    vec![Accepted, Refused, Accepted],
                    vec![Refused],
                    vec![Deferred, Refused],
                    vec![Accepted, Deferred],
                    vec![Accepted],
                ];
                let got: Vec<Vec<Outcome>> = ends
                    .values()
                    .map(|end| match end {
                        End::Settled(rcpts) => rcpts.iter().map(|(_, outcome)| *outcome).collect(),
                        End::Returned => Vec::new(),
                    })
                    .collect();
                assert_eq!(
                    got, expected,
                    "{level:?} keeps={keeps} stumbles={stumbles} no_bdat={knows_no_bdat}"
                );
            }
        }
    }

    #[test]
    fn every_reply_goes_wrong_at_every_place() {
        let faults = [
            Fault::Code(450),
            Fault::Code(451),
            Fault::Code(500),
            Fault::Code(503),
            Fault::Code(521),
            Fault::Code(550),
            Fault::Code(554),
            Fault::Code(354),
            Fault::Code(250),
            Fault::Close,
            Fault::Drop,
            Fault::Twice,
            Fault::Garbage,
        ];
        let mut tried = 0;
        for level in LEVELS {
            for keeps in [false, true] {
                for fault in faults {
                    for at in 0..80 {
                        let mut server = Server { keeps, fault: Some((at, fault)), ..Server::default() };
                        let ends = submit_all(&mut server, level, 5);
                        if server.replies <= at {
                            break;
                        }
                        let what = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                            compare(&server, &ends, Some(fault));
                        }));
                        assert!(what.is_ok(), "{level:?} keeps={keeps} {fault:?} at reply {at}: {ends:?}");
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 2000, "{tried} tried");
    }
}
