//! The submitter against the sandbox relay, over real sockets: every level, faults at every stage, and the books of
//! both sides compared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use postroom::job::{
    Auth, Credential, DomainLimit, Pipelining, RelaySpec, Retry, Timeouts, TlsMode, TlsSpec, Unsure,
};
use postroom::letter::{Content, Envelope, Message, Outcome, Slice};
use postroom::measure::Rate;
use postroom::sandbox::{Fault, Options, Protocol, Relay};
use postroom::secret::Secret;
use postroom::submit::{Accounts, Consignment, Event, SubmitError, Submitter};

const LEVELS: [Pipelining; 5] =
    [Pipelining::Off, Pipelining::Envelope, Pipelining::Message, Pipelining::Window, Pipelining::Auto];

/// A relay, its log, and what to submit there.
struct Scene {
    folder: tempfile::TempDir,
    relay: Relay,
    spec: RelaySpec,
}

impl Scene {
    fn new(options: Options) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::start(Options { log: Some(folder.path().join("log")), ..options }).unwrap();
        let spec = spec(relay.port());
        Scene { folder, relay, spec }
    }

    fn faulty(rules: &[&str]) -> Scene {
        let rule = |rule: &&str| Fault::parse(rule, Protocol::Smtp, 1).unwrap();
        Scene::new(Options { faults: rules.iter().map(rule).collect(), ..Options::default() })
    }

    fn at(mut self, level: Pipelining) -> Scene {
        self.spec.pipelining = level;
        self
    }

    /// How often the relay took something for each recipient.
    fn accepted(&self) -> BTreeMap<String, usize> {
        read_log(&self.folder.path().join("log"))
    }
}

fn read_log(log: &Path) -> BTreeMap<String, usize> {
    let mut accepted = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["event"] == "message" {
            for rcpt in line["rcpt"].as_array().expect("recipients") {
                *accepted.entry(rcpt.as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    accepted
}

fn spec(port: u16) -> RelaySpec {
    let short = Duration::from_millis(700);
    RelaySpec {
        host: "127.0.0.1".to_owned(),
        port,
        provider: None,
        tls: TlsSpec { mode: TlsMode::None, ca_file: None, client_cert: None, only_tls13: false },
        dkim: None,
        auth: None,
        connections: 3,
        messages_per_connection: None,
        rate: None,
        burst: 1,
        limits: Vec::new(),
        retry: Retry::default(),
        pipelining: Pipelining::Auto,
        doubt: None,
        unsure: Unsure::Hold,
        helo: Some("client.test".to_owned()),
        timeouts: Timeouts {
            connect: short,
            greeting: short,
            command: short,
            mail: short,
            rcpt: short,
            data: short,
            block: short,
            end: short,
        },
        local_address: None,
        proxy: None,
        fallback: None,
        stop_when: None,
    }
}

fn letter(seq: u64, recipients: usize, octets: usize) -> Consignment {
    let own = format!("Subject: {seq}\r\n\r\n{}\r\n", "x".repeat(octets)).into_bytes();
    let all = own.len();
    let recipients = (0..recipients).map(|n| format!("u{seq}.{n}@example.org").parse().unwrap()).collect();
    Consignment {
        seq,
        message: Message {
            envelope: Envelope { reverse_path: Some("news@example.com".parse().unwrap()), recipients },
            content: Content::new(own, vec![Slice::Own(0..all)]),
            eight_bit: false,
            smtputf8: false,
        },
    }
}

/// What was told of a run.
#[derive(Default)]
struct Told {
    outcomes: BTreeMap<String, (Outcome, String)>,
    returned: Vec<u64>,
    trouble: Option<String>,
    failed: Option<SubmitError>,
    most_connections: usize,
}

impl Told {
    fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.values().filter(|(own, _)| *own == outcome).count()
    }
}

/// The same to one recipient of this domain.
fn letter_to(domain: &str, seq: u64) -> Consignment {
    let mut letter = letter(seq, 1, 500);
    letter.message.envelope.recipients = vec![format!("u{seq}@{domain}").parse().unwrap()];
    letter
}

/// Submits letters as they are wanted and hears until all is closed. Each letter must have exactly one end.
fn run(spec: &RelaySpec, count: u64, recipients: usize, octets: usize) -> Told {
    run_all(spec, (0..count).map(|seq| letter(seq, recipients, octets)).collect())
}

fn run_all(spec: &RelaySpec, letters: Vec<Consignment>) -> Told {
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(spec, &Accounts::alone(), None, events).expect("a relay");
    let (mut told, mut sent, mut ended) = (Told::default(), 0, BTreeMap::new());
    let count = letters.len() as u64;
    let mut letters = letters.into_iter();
    let mut closed = false;
    while !closed {
        let batch = inbox.recv_timeout(Duration::from_secs(60)).expect("an event");
        for event in batch {
            match event {
                Event::Wanted(more) => {
                    let more: Vec<_> = letters.by_ref().take(more).collect();
                    sent += more.len() as u64;
                    submitter.submit(more);
                }
                Event::Settled { seq, rcpts } => {
                    *ended.entry(seq).or_insert(0) += 1;
                    for rcpt in rcpts {
                        told.outcomes.insert(rcpt.address, (rcpt.outcome, rcpt.answer.to_string()));
                    }
                }
                Event::Returned { seq } => {
                    *ended.entry(seq).or_insert(0) += 1;
                    told.returned.push(seq);
                }
                Event::SenderTrouble { command, answer } => {
                    told.trouble = Some(format!("{command}: {answer}"))
                }
                Event::Failed(error) => told.failed = Some(error),
                Event::Connections(open) => told.most_connections = told.most_connections.max(open),
                Event::Away(_) => {}
                Event::Closed => closed = true,
            }
        }
        if ended.len() as u64 == count {
            submitter.drain();
        }
    }
    for event in inbox.try_iter().flatten() {
        if let Event::Returned { seq } = event {
            *ended.entry(seq).or_insert(0) += 1;
            told.returned.push(seq);
        }
    }
    assert_eq!(ended.len() as u64, sent, "each letter has an end");
    assert!(ended.values().all(|&times| times == 1), "and only one");
    told
}

/// Our books and the relay's agree.
fn compare(what: &str, told: &Told, accepted: &BTreeMap<String, usize>) {
    for (address, times) in accepted {
        assert_eq!(*times, 1, "{what}: {address} got it twice");
        let outcome = told.outcomes.get(address).map(|(outcome, _)| *outcome);
        let known = matches!(outcome, Some(Outcome::Accepted | Outcome::Unsure));
        assert!(known, "{what}: {address} has it, and we say {outcome:?}");
    }
    for (address, (outcome, _)) in &told.outcomes {
        let there = accepted.contains_key(address);
        assert!(*outcome != Outcome::Accepted || there, "{what}: {address} was accepted and is not there");
    }
}

#[test]
fn every_level_delivers_each_once() {
    for level in LEVELS {
        for (recipients, octets) in [(1, 500), (3, 20_000), (1, 300_000)] {
            let scene = Scene::new(Options::default()).at(level);
            let told = run(&scene.spec, 60, recipients, octets);
            compare(&format!("{level:?}"), &told, &scene.accepted());
            assert_eq!(told.count(Outcome::Accepted), 60 * recipients, "{level:?}");
            assert!(told.most_connections <= 3);
        }
    }
}

#[test]
fn faults_at_every_stage_leave_the_books_in_agreement() {
    let data = ["mail", "rcpt", "data", "body", "end", "sent"].as_slice();
    let bdat = ["rset", "mail", "rcpt", "bdat", "body", "end", "sent"].as_slice();
    let levels = [
        (Pipelining::Off, data),
        (Pipelining::Envelope, data),
        (Pipelining::Message, data),
        (Pipelining::Window, bdat),
    ];
    std::thread::scope(|scope| {
        for (level, stages) in levels {
            scope.spawn(move || {
                for stage in stages {
                    for action in
                        ["reply 451 4.3.0 later", "reply 550 5.3.0 no", "close 421 4.3.2 closing", "drop"]
                    {
                        let rule = format!("{stage} every=7 {action}");
                        let scene = Scene::faulty(&[&rule]).at(level);
                        let told = run(&scene.spec, 30, 2, 700);
                        compare(&format!("{level:?} {rule}"), &told, &scene.accepted());
                    }
                }
            });
        }
    });
}

#[test]
fn silence_ends_with_the_timeouts() {
    for (level, stage) in [
        (Pipelining::Off, "rcpt"),
        (Pipelining::Envelope, "mail"),
        (Pipelining::Message, "data"),
        (Pipelining::Window, "bdat"),
        (Pipelining::Window, "end"),
    ] {
        let rule = format!("{stage} if=* first=1 every=20 hang");
        let scene = Scene::faulty(&[&rule]).at(level);
        let told = run(&scene.spec, 30, 1, 700);
        compare(&format!("{level:?} {rule}"), &told, &scene.accepted());
    }
}

#[test]
fn a_reply_has_to_be_whole_in_its_time() {
    // An octet now and then is no reply.
    let port = played(|_, mut stream| {
        stream.write_all(b"220 relay\r\n").unwrap();
        answer_until(&stream, "MAIL");
        for octet in b"250 well, well, well, well, well, well, well, well, well".iter().cycle() {
            if stream.write_all(&[*octet]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let told = run(&RelaySpec { connections: 1, ..spec(port) }, 1, 1, 500);
    assert_eq!(told.count(Outcome::Deferred), 1, "{:?}", told.failed);
}

#[test]
fn a_reply_too_long_is_said_to_be_so() {
    let begins = "the connection was lost each time this letter was submitted: a reply line is longer than";
    let behind = "the whole content was sent, then no reply came: a reply line is longer than";
    for (rule, outcome, text) in
        [("rcpt flood", Outcome::Deferred, begins), ("end flood", Outcome::Unsure, behind)]
    {
        let mut scene = Scene::faulty(&[rule]).at(Pipelining::Envelope);
        scene.spec.connections = 1;
        let told = run(&scene.spec, 1, 1, 500);
        let (address, (own, answer)) = told.outcomes.first_key_value().expect("an outcome");
        assert!(*own == outcome && answer.starts_with(text), "{rule}: {address} {own:?} {answer}");
    }
}

#[test]
fn a_server_that_knows_no_bdat_costs_a_level_and_no_letter() {
    for rules in [vec!["bdat reply 502 5.5.1 what is BDAT"], vec!["bdat reply 503 5.5.1 out of order"]] {
        for level in [Pipelining::Auto, Pipelining::Window] {
            let scene = Scene::faulty(&rules).at(level);
            let told = run(&scene.spec, 40, 1, 700);
            compare("no bdat", &told, &scene.accepted());
            assert_eq!(told.count(Outcome::Accepted), 40, "{level:?} {:?}", told.trouble);
        }
    }
}

#[test]
fn sessions_hold_as_many_letters_as_they_may() {
    for level in LEVELS {
        let mut scene = Scene::new(Options::default()).at(level);
        scene.spec.messages_per_connection = Some(5);
        let told = run(&scene.spec, 40, 1, 500);
        assert_eq!(told.count(Outcome::Accepted), 40);
        assert!(scene.relay.summary().connections >= 8, "{:?}", scene.relay.summary());
    }
}

#[test]
fn domains_of_few_connections_have_others_once_theirs_end() {
    // The others stand idle as soon as their three letters are sent.
    for (level, connections) in [(Pipelining::Off, 1), (Pipelining::Auto, 1), (Pipelining::Envelope, 2)] {
        let mut scene = Scene::faulty(&["end delay 20"]).at(level);
        let domains = vec!["slow.test".to_owned()];
        scene.spec.limits = vec![DomainLimit { domains, rate: None, connections: Some(connections) }];
        scene.spec.messages_per_connection = Some(5);
        let domain = |seq| if (3..6).contains(&seq) { "example.org" } else { "slow.test" };
        let told = run_all(&scene.spec, (0..43).map(|seq| letter_to(domain(seq), seq)).collect());
        assert_eq!(told.count(Outcome::Accepted), 43, "{level:?} {connections}");
    }
}

#[test]
fn a_relay_that_closes_after_some_letters_is_understood() {
    let scene =
        Scene::faulty(&["mail after=5 close 421 4.7.0 enough for one connection"]).at(Pipelining::Envelope);
    let told = run(&scene.spec, 60, 1, 500);
    compare("enough", &told, &scene.accepted());
    // Each session closed by the relay defers one letter; once the count is known, we say QUIT before.
    let deferred = told.count(Outcome::Deferred);
    assert!((1..=5).contains(&deferred), "{deferred} deferred");
    assert_eq!(told.count(Outcome::Accepted) + deferred, 60);
}

#[test]
fn a_relay_that_closes_without_a_word_after_some_letters_is_understood() {
    for level in [Pipelining::Message, Pipelining::Window] {
        let mut scene = Scene::faulty(&["rset after=10 drop", "mail after=10 drop"]).at(level);
        scene.spec.connections = 1;
        let told = run(&scene.spec, 1000, 1, 500);
        compare("cut off", &told, &scene.accepted());
        // Those on the wire when two sessions were cut off; from then on we say QUIT before.
        let unsure = told.count(Outcome::Unsure);
        assert!(unsure <= 40, "{level:?}: {unsure} unsure");
        assert_eq!(told.count(Outcome::Accepted) + unsure, 1000, "{level:?}");
    }
}

#[test]
fn too_many_connections_make_the_pool_smaller() {
    let mut scene = Scene::new(Options { max_connections: 2, ..Options::default() }).at(Pipelining::Off);
    scene.spec.connections = 6;
    let told = run(&scene.spec, 80, 1, 500);
    assert_eq!(told.count(Outcome::Accepted), 80, "{:?}", told.failed);
}

#[test]
fn the_senders_trouble_stops_the_run_with_the_servers_words() {
    for level in LEVELS {
        let scene = Scene::faulty(&["mail reply 550 5.7.1 this sender is not welcome"]).at(level);
        let told = run(&scene.spec, 20, 1, 500);
        assert_eq!(told.trouble.as_deref(), Some("MAIL: 550 5.7.1 this sender is not welcome"), "{level:?}");
        assert!(told.outcomes.is_empty() && !told.returned.is_empty());
        assert!(scene.accepted().is_empty());
    }
}

#[test]
fn what_the_relay_cannot_take_fails_before_it_is_sent() {
    let hide = vec!["8BITMIME".to_owned(), "SMTPUTF8".to_owned()];
    let scene = Scene::new(Options { size: 1000, hide, ..Options::default() });
    let told = run(&scene.spec, 2, 1, 2000);
    assert_eq!(told.count(Outcome::Failed), 2);
    let words = &told.outcomes.values().next().unwrap().1;
    assert!(words.contains("1000"), "{words}");
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(&scene.spec, &Accounts::alone(), None, events).unwrap();
    let mut eight_bit = letter(0, 1, 10);
    eight_bit.message.eight_bit = true;
    let mut foreign = letter(1, 1, 10);
    foreign.message.envelope.recipients = vec!["用户@example.org".parse().unwrap()];
    submitter.submit(vec![eight_bit, foreign]);
    let mut words = Vec::new();
    while words.len() < 2 {
        for event in inbox.recv_timeout(Duration::from_secs(30)).unwrap() {
            if let Event::Settled { rcpts, .. } = event {
                assert_eq!(rcpts[0].outcome, Outcome::Failed);
                words.push(rcpts[0].answer.text.clone());
            }
        }
    }
    assert!(words[0].contains("8BITMIME") && words[1].contains("SMTPUTF8"), "{words:?}");
    assert!(scene.accepted().is_empty());
}

#[test]
fn a_wrong_password_is_tried_once() {
    let auth = Some(("ada".to_owned(), Secret::new("right")));
    let mut scene = Scene::new(Options { auth, ..Options::default() });
    let login = |password: &str| {
        Some(Auth {
            user: "ada".to_owned(),
            credential: Credential::Literal(Secret::new(password)),
            token: false,
            mechanism: None,
        })
    };
    scene.spec.auth = login("wrong");
    let (events, _inbox) = crossbeam_channel::unbounded();
    let error = Submitter::start(&scene.spec, &Accounts::alone(), None, events).err().expect("a refusal");
    assert!(matches!(error, SubmitError::Login { .. }), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    assert_eq!(scene.relay.summary().failed_logins, 1);
    scene.spec.auth = login("right");
    assert_eq!(run(&scene.spec, 20, 1, 500).count(Outcome::Accepted), 20);
}

#[test]
fn a_password_that_is_changed_in_the_middle_is_tried_once_more() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let port = played(move |number, stream| {
        (&stream).write_all(b"220 relay\r\n").unwrap();
        if number < 3 {
            answer_until(&stream, "MAIL");
            std::thread::sleep(Duration::from_secs(6));
            // Its first line is the answer to MAIL.
            return answer_one_at_a_time(&stream);
        }
        if answer_until(&stream, "AUTH").last().is_some_and(|line| line.starts_with("AUTH")) {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            let _ = (&stream).write_all(b"535 5.7.8 no\r\n");
        }
    });
    let credential = Credential::Literal(Secret::new("as it was"));
    let auth = Auth { user: "ada".to_owned(), credential, token: false, mechanism: None };
    let mut spec = RelaySpec { auth: Some(auth), messages_per_connection: Some(1), ..spec(port) };
    (spec.pipelining, spec.timeouts.mail) = (Pipelining::Off, Duration::from_secs(30));
    let told = run(&spec, 20, 1, 500);
    assert!(matches!(told.failed, Some(SubmitError::Login { .. })), "{:?}", told.failed);
    assert_eq!(told.count(Outcome::Accepted), 3);
    assert_eq!(refused.load(Ordering::SeqCst), 1);
}

#[test]
fn where_the_relay_is_down_its_fallback_is_tried() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (events, _inbox) = crossbeam_channel::unbounded();
    let error =
        Submitter::start(&spec(nobody), &Accounts::alone(), None, events).err().expect("nobody there");
    assert!(matches!(error, SubmitError::Connect { .. }), "{error}");
    let scene = Scene::new(Options::default());
    let with_fallback = RelaySpec { fallback: Some(Box::new(scene.spec.clone())), ..spec(nobody) };
    let told = run(&with_fallback, 20, 1, 500);
    assert_eq!(told.count(Outcome::Accepted), 20);

    // A relay that is down is somebody's work, though every letter went out.
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let accounts = Accounts::unshared(move |words| heard.lock().unwrap().push(words.to_owned()), || false);
    let (events, _inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(&with_fallback, &accounts, None, events).expect("the fallback");
    let said = said.lock().unwrap();
    let words = format!("{} takes over", submitter.relay());
    assert!(
        said.len() == 1 && said[0].contains("cannot be reached") && said[0].ends_with(&words),
        "{said:?}"
    );
}

/// The relay stops after some letters and is back, if it ever is, when it was said that it is away: what became of the
/// letters, what was said, and what the relay took.
fn with_a_relay_that_goes_away(
    stay: Duration,
    comes_back: bool,
) -> (Told, Vec<String>, BTreeMap<String, usize>) {
    let mut scene = Scene::new(Options::default()).at(Pipelining::Off);
    scene.spec.retry.stay = stay;
    scene.spec.rate = Some(Rate { count: 100, per: Duration::from_secs(1) });
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let accounts = Accounts::unshared(move |words| heard.lock().unwrap().push(words.to_owned()), || false);
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(&scene.spec, &accounts, None, events).unwrap();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], scene.relay.port()));
    let log = scene.folder.path().join("log");
    let (mut relay, mut again) = (Some(scene.relay), None);
    let (mut told, mut waiting, mut closed) = (Told::default(), (0..60).collect::<Vec<u64>>(), false);
    while !closed {
        for event in inbox.recv_timeout(Duration::from_millis(50)).unwrap_or_default() {
            match event {
                Event::Wanted(more) => {
                    let seqs = waiting.drain(..more.min(waiting.len()));
                    submitter.submit(seqs.map(|seq| letter(seq, 1, 500)).collect());
                }
                Event::Settled { rcpts, .. } => {
                    let ends = rcpts.into_iter().map(|rcpt| (rcpt.address, (rcpt.outcome, String::new())));
                    told.outcomes.extend(ends);
                }
                Event::Returned { seq } => waiting.push(seq),
                Event::Failed(error) => told.failed = Some(error),
                Event::SenderTrouble { command, answer } => panic!("{command}: {answer}"),
                Event::Connections(_) | Event::Away(_) => {}
                Event::Closed => closed = true,
            }
        }
        if told.outcomes.len() >= 10
            && let Some(relay) = relay.take()
        {
            relay.stop();
        }
        if comes_back && again.is_none() && !said.lock().unwrap().is_empty() {
            // Its port may be another's for a moment.
            let options = Options { listen, log: Some(log.with_file_name("again")), ..Options::default() };
            again = Relay::start(options).ok();
        }
        if told.outcomes.len() == 60 {
            submitter.drain();
        }
    }
    let mut accepted = read_log(&log);
    if again.is_some() {
        for (address, times) in read_log(&log.with_file_name("again")) {
            *accepted.entry(address).or_default() += times;
        }
    }
    let said = std::mem::take(&mut *said.lock().unwrap());
    (told, said, accepted)
}

#[test]
fn a_relay_that_worked_is_waited_for() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (told, said, accepted) = with_a_relay_that_goes_away(Duration::from_secs(60), true);
            compare("it came back", &told, &accepted);
            let unsure = told.count(Outcome::Unsure);
            assert_eq!(
                (told.count(Outcome::Accepted) + unsure, unsure <= 3),
                (60, true),
                "{:?}",
                told.failed
            );
            let [away, back] = &said[..] else { panic!("{said:?}") };
            assert!(away.contains("cannot be reached") && away.ends_with("; it is tried again, for 60 s"));
            assert!(back.ends_with("answers again"), "{back}");
        });
        scope.spawn(|| {
            let (told, said, accepted) = with_a_relay_that_goes_away(Duration::ZERO, false);
            compare("it stayed away", &told, &accepted);
            assert!(matches!(told.failed, Some(SubmitError::Connect { .. })), "{:?}", told.failed);
            assert!(said.is_empty(), "{said:?}");
        });
    });
}

#[test]
fn where_the_relay_is_silent_its_fallback_is_tried() {
    for rule in ["connect hang", "connect drop", "helo hang", "mail drop"] {
        let (silent, scene) = (Scene::faulty(&[rule]), Scene::new(Options::default()));
        let with_fallback = RelaySpec { fallback: Some(Box::new(scene.spec.clone())), ..silent.spec.clone() };
        let told = run(&with_fallback, 20, 1, 500);
        compare(rule, &told, &scene.accepted());
        let deferred = told.count(Outcome::Deferred);
        assert_eq!(told.count(Outcome::Accepted) + deferred, 20, "{rule}: {:?}", told.failed);
        assert!(deferred <= 6, "{rule}: {deferred} deferred");
    }
}

#[test]
fn an_abort_gives_every_letter_one_end() {
    for level in LEVELS {
        let scene = Scene::faulty(&["end every=10 delay 50"]).at(level);
        let (events, inbox) = crossbeam_channel::unbounded();
        let submitter = Submitter::start(&scene.spec, &Accounts::alone(), None, events).unwrap();
        let (mut told, mut sent, mut ended, mut closed) = (Told::default(), 0_u64, 0, false);
        while !closed {
            for event in inbox.recv_timeout(Duration::from_secs(30)).unwrap() {
                match event {
                    Event::Wanted(more) if sent < 200 => {
                        submitter.submit((sent..sent + more as u64).map(|seq| letter(seq, 1, 500)).collect());
                        sent += more as u64;
                    }
                    Event::Settled { rcpts, .. } => {
                        ended += 1;
                        for rcpt in rcpts {
                            told.outcomes.insert(rcpt.address, (rcpt.outcome, String::new()));
                        }
                        if ended == 30 {
                            submitter.abort();
                        }
                    }
                    Event::Returned { .. } => ended += 1,
                    Event::Closed => closed = true,
                    _ => {}
                }
            }
        }
        ended +=
            inbox.try_iter().flatten().filter(|event| matches!(event, Event::Returned { .. })).count() as u64;
        assert_eq!(ended, sent, "{level:?}");
        // What the relay was still busy with comes to its books a moment later.
        drop(submitter);
        let folder = scene.folder.path().join("log");
        scene.relay.stop();
        compare(&format!("{level:?}"), &told, &read_log(&folder));
    }
}

/// A relay as the test plays it: each connection is told what to do by the closure, which gets its number.
fn played(act: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let act = Arc::clone(&act);
            std::thread::spawn(move || act(number, stream));
        }
    });
    port
}

/// Answers commands with yes until one begins so, or the client goes; all it heard.
fn answer_until(stream: &TcpStream, last: &str) -> Vec<String> {
    let (mut heard, mut out) = (Vec::new(), stream);
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let reply: &[u8] = match line.split(' ').next() {
            Some("EHLO") => b"250-relay\r\n250 AUTH PLAIN\r\n",
            Some("AUTH") => b"235 welcome\r\n",
            _ => b"250 ok\r\n",
        };
        let ends = line.starts_with(last);
        heard.push(line);
        if ends || out.write_all(reply).is_err() {
            break;
        }
    }
    heard
}

#[test]
fn a_relay_that_answers_no_content_does_not_bring_a_whole_list_into_doubt() {
    for rule in ["end drop", "end hang", "commit drop"] {
        for level in [Pipelining::Off, Pipelining::Auto] {
            let scene = Scene::faulty(&[rule]).at(level);
            let told = run(&scene.spec, 100, 1, 500);
            let silent = matches!(told.failed, Some(SubmitError::Silent { .. }));
            assert!(silent, "{level:?} {rule}: {:?}", told.failed);
            assert_eq!(told.count(Outcome::Accepted), 0, "{level:?} {rule}");
            let unsure = told.count(Outcome::Unsure);
            assert!((1..=12).contains(&unsure), "{level:?} {rule}: {unsure} unsure");
        }
    }
}

#[test]
fn a_relay_that_lets_us_in_and_says_no_more_is_given_up() {
    for rule in ["mail drop", "mail hang", "rcpt drop"] {
        for level in [Pipelining::Off, Pipelining::Window, Pipelining::Auto] {
            let scene = Scene::faulty(&[rule]).at(level);
            let told = run(&scene.spec, 100, 1, 500);
            assert!(
                matches!(told.failed, Some(SubmitError::Silent { .. })),
                "{level:?} {rule}: {:?}",
                told.failed
            );
            compare("nothing was sent", &told, &scene.accepted());
            // A window is written whole before anything is answered.
            let unsure = told.count(Outcome::Unsure) > 0;
            assert_eq!(unsure, level == Pipelining::Window, "{level:?} {rule}");
            let connections = scene.relay.summary().connections;
            assert!(connections <= 12, "{level:?} {rule}: {connections} connections");
        }
    }
}

#[test]
fn a_relay_that_nobody_has_a_letter_for_is_not_waited_for() {
    // The first connection takes one letter, and no other gets an answer to one.
    let port = played(|number, mut stream| {
        if number == 0 {
            return answer_one_at_a_time(&stream);
        }
        stream.write_all(b"220 relay\r\n").unwrap();
        answer_until(&stream, "MAIL");
    });
    let mut spec = spec(port);
    (spec.pipelining, spec.connections, spec.messages_per_connection) = (Pipelining::Off, 1, Some(1));
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(&spec, &Accounts::alone(), None, events).unwrap();
    submitter.submit(vec![letter(0, 1, 100)]);
    let (mut settled, mut aways, mut first) = (Vec::new(), Vec::new(), true);
    while aways.last() != Some(&false) || settled.len() < 2 {
        for event in inbox.recv_timeout(Duration::from_secs(10)).unwrap() {
            match event {
                Event::Settled { rcpts, .. } => settled.push(rcpts[0].outcome),
                Event::Away(away) => aways.push(away),
                Event::Returned { .. } => submitter.submit(vec![letter(1, 1, 100)]),
                _ => {}
            }
        }
        if settled.len() == 1 && std::mem::take(&mut first) {
            submitter.submit(vec![letter(1, 1, 100)]);
        }
    }
    assert_eq!((settled, aways), (vec![Outcome::Accepted, Outcome::Deferred], vec![true, false]));
}

/// Takes letters from a client, and closes when a command comes before the one before it was answered.
fn answer_one_at_a_time(stream: &TcpStream) {
    answer_the_small(stream, usize::MAX);
}

/// The same, and closes before the content of a letter that has more octets.
fn answer_the_small(stream: &TcpStream, most: usize) {
    let (mut reader, mut out) = (BufReader::new(stream), stream);
    let (mut line, mut in_content, mut octets) = (String::new(), false, 0);
    let mut say = |reply: &[u8]| out.write_all(reply).is_ok();
    let mut open = say(b"220 relay\r\n");
    while open && reader.read_line(&mut line).is_ok_and(|octets| octets > 0) {
        let verb = line.trim_end().split(' ').next().unwrap_or_default();
        open = match verb {
            "." => {
                in_content = false;
                say(b"250 taken\r\n")
            }
            _ if in_content => true,
            _ if !reader.buffer().is_empty() => false,
            "EHLO" => say(b"250-relay\r\n250-AUTH PLAIN\r\n250-SIZE\r\n250 PIPELINING\r\n"),
            "AUTH" => say(b"235 welcome\r\n"),
            "MAIL" => {
                octets = line.trim_end().rsplit_once("SIZE=").unwrap().1.parse().unwrap();
                say(b"250 ok\r\n")
            }
            "DATA" if octets > most => false,
            "DATA" => {
                in_content = true;
                say(b"354 go on\r\n")
            }
            _ => say(b"250 ok\r\n"),
        };
        line.clear();
    }
}

#[test]
fn a_relay_that_turns_away_a_second_connection_is_not_hammered() {
    // At once, when it has let us in, behind the first command, or with a word to the login.
    for (last, word) in [("", ""), ("EHLO", ""), ("MAIL", ""), ("AUTH", "454 4.7.0 one login at a time\r\n")]
    {
        let (live, came) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&came);
        let port = played(move |_, mut stream| {
            count.fetch_add(1, Ordering::SeqCst);
            if live.fetch_add(1, Ordering::SeqCst) == 0 {
                answer_one_at_a_time(&stream);
            } else if !last.is_empty() {
                stream.write_all(b"220 relay\r\n").unwrap();
                answer_until(&stream, last);
                let word = if last == "EHLO" { "250 relay\r\n" } else { word };
                stream.write_all(word.as_bytes()).unwrap();
            }
            live.fetch_sub(1, Ordering::SeqCst);
        });
        let mut spec = spec(port);
        spec.pipelining = Pipelining::Off;
        if last == "AUTH" {
            let credential = Credential::Literal(Secret::new("right"));
            spec.auth = Some(Auth { user: "ada".to_owned(), credential, token: false, mechanism: None });
        }
        let told = run(&spec, 200, 1, 500);
        assert_eq!(told.count(Outcome::Accepted), 200, "{last}: {:?}", told.failed);
        let came = came.load(Ordering::SeqCst);
        // How many were on their way when the first was turned away is chance; it is not one with each letter.
        assert!(came <= 12, "{last}: {came} connections");
    }
}

#[test]
fn letters_that_do_not_come_through_keep_nobody_from_the_relay() {
    let port = played(|_, stream| answer_the_small(&stream, 5000));
    let mut spec = spec(port);
    (spec.pipelining, spec.connections) = (Pipelining::Off, 1);
    let octets = |seq| if seq < 3 { 10_000 } else { 100 };
    let told = run_all(&spec, (0..10).map(|seq| letter(seq, 1, octets(seq))).collect());
    let counts = (told.count(Outcome::Deferred), told.count(Outcome::Accepted));
    assert_eq!(counts, (3, 7), "{:?}", told.failed);
}

/// Some relays say with 554 or 521 what they mean of now: that we came too often, or that this one of several is away.
#[test]
fn who_is_sent_away_for_good_by_a_relay_that_has_worked_comes_back() {
    for no in ["554 5.7.1 too often", "521 no mail here"] {
        let port = played(move |number, stream| match number {
            1..=2 => drop((&stream).write_all(format!("{no}\r\n").as_bytes())),
            _ => answer_one_at_a_time(&stream),
        });
        let mut spec = spec(port);
        (spec.pipelining, spec.connections, spec.messages_per_connection) = (Pipelining::Off, 1, Some(5));
        let told = run(&spec, 10, 1, 500);
        assert!(told.failed.is_none(), "{no}: {:?}", told.failed);
        // What waits meanwhile goes back to the engine, which hands it over again; here nobody does.
        assert!(told.count(Outcome::Accepted) > 5, "{no}: {:?}", told.outcomes);
    }
}

#[test]
fn a_relay_that_closes_on_early_commands_gets_one_at_a_time() {
    for (level, accepted) in [(Pipelining::Auto, 20), (Pipelining::Envelope, 0)] {
        let port = played(|_, stream| answer_one_at_a_time(&stream));
        let told = run(&RelaySpec { pipelining: level, ..spec(port) }, 20, 1, 500);
        assert_eq!(told.count(Outcome::Accepted), accepted, "{level:?} {:?}", told.failed);
        assert_eq!(told.failed.is_some(), accepted == 0, "{level:?}");
    }
}

#[test]
fn a_relay_that_is_left_gets_nothing_that_is_the_fallbacks() {
    // One connection works while two wait for their greeting. It is lost, one of the two is refused, so the fallback
    // takes over; then the other is greeted.
    let opened = Arc::new(Barrier::new(3));
    let (lost, refused) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (tell, late) = mpsc::channel();
    let tell = Mutex::new(tell);
    let port = played(move |number, mut stream| match number {
        0 => {
            stream.write_all(b"220 relay\r\n").unwrap();
            answer_until(&stream, "MAIL");
            opened.wait();
            drop(stream);
            lost.wait();
        }
        1 => {
            opened.wait();
            lost.wait();
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(b"554 5.3.2 not today\r\n").unwrap();
            refused.wait();
        }
        _ => {
            opened.wait();
            refused.wait();
            std::thread::sleep(Duration::from_millis(50));
            // It is gone already, if all is well.
            let _ = stream.write_all(b"220 relay\r\n");
            tell.lock().unwrap().send(answer_until(&stream, "DATA")).unwrap();
        }
    });
    let auth = |user: &str, password: &str| {
        Some(Auth {
            user: user.to_owned(),
            credential: Credential::Literal(Secret::new(password)),
            token: false,
            mechanism: None,
        })
    };
    let login = ("fallback".to_owned(), Secret::new("the fallback's"));
    // Slow enough to be busy still when the late greeting comes.
    let slow = Fault::parse("mail delay 50", Protocol::Smtp, 1).unwrap();
    let scene = Scene::new(Options { auth: Some(login), faults: vec![slow], ..Options::default() });
    let fallback = RelaySpec { auth: auth("fallback", "the fallback's"), ..scene.spec.clone() };
    let primary = RelaySpec {
        auth: auth("primary", "the primary's"),
        pipelining: Pipelining::Off,
        fallback: Some(Box::new(fallback)),
        ..spec(port)
    };
    let told = run(&primary, 20, 1, 500);
    assert_eq!(late.recv_timeout(Duration::from_secs(10)).unwrap(), [] as [&str; 0]);
    compare("fallback", &told, &scene.accepted());
    assert_eq!(told.count(Outcome::Accepted), 20, "{:?}", told.failed);
}

#[test]
fn a_thread_that_breaks_leaves_nobody_waiting() {
    let mut scene = Scene::new(Options::default());
    // No clock reaches that far: a mistake of this program, as there may be others.
    scene.spec.timeouts.end = Duration::MAX;
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(&scene.spec, &Accounts::alone(), None, events).expect("a relay");
    submitter.submit(vec![letter(0, 1, 100)]);
    let broken = loop {
        match inbox.recv_timeout(Duration::from_secs(10)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(broken, RecvTimeoutError::Disconnected);
    // What is handed over still finds nobody, and hangs nobody.
    submitter.submit(vec![letter(1, 1, 100)]);
}

mod tokens {
    //! Access tokens: got for a refresh token, renewed in time or when they were withdrawn, and never tried twice.

    use std::collections::VecDeque;
    use std::time::Instant;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use postroom::job::{Mechanism, Refresh};
    use postroom::net::token;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    /// A token server with TLS: gives its answers one by one, the last for ever, and keeps what it was asked.
    struct TokenServer {
        folder: tempfile::TempDir,
        port: u16,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl TokenServer {
        fn start(answers: &[(u16, &str)]) -> TokenServer {
            let folder = tempfile::tempdir().unwrap();
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            let config = Arc::new(config);
            let listener = TcpListener::bind("localhost:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let asked = Arc::new(Mutex::new(Vec::new()));
            let mut answers: VecDeque<(u16, String)> =
                answers.iter().map(|(status, text)| (*status, (*text).to_owned())).collect();
            let heard = Arc::clone(&asked);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                    let mut stream = BufReader::new(rustls::StreamOwned::new(tls, stream));
                    // A client that does not trust us breaks off.
                    let Some(request) = request(&mut stream) else { continue };
                    heard.lock().unwrap().push(request);
                    let (status, text) =
                        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
                    let head = format!(
                        "HTTP/1.1 {status} Word\r\nContent-Type: application/json\r\nLocation: /elsewhere\r\n\
                         Content-Length: {}\r\nConnection: close\r\n\r\n",
                        text.len()
                    );
                    let stream = stream.get_mut();
                    let _ = stream.write_all((head + &text).as_bytes()).and_then(|()| stream.flush());
                }
            });
            TokenServer { folder, port, asked }
        }

        fn refresh(&self) -> Refresh {
            Refresh {
                url: format!("https://localhost:{}/token", self.port),
                client_id: "me & you".to_owned(),
                client_secret: Some(Credential::Literal(Secret::new("s3cret+"))),
                refresh_token: Credential::Literal(Secret::new("r/1")),
                scope: Some("mail offline".to_owned()),
                ca_file: Some(self.folder.path().join("ca.pem")),
            }
        }

        fn auth(&self) -> Auth {
            Auth {
                user: "news@example.com".to_owned(),
                credential: Credential::Refresh(Box::new(self.refresh())),
                token: true,
                mechanism: Some(Mechanism::XOAuth2),
            }
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    fn request(stream: &mut impl BufRead) -> Option<String> {
        let (mut head, mut octets) = (String::new(), 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|&count| count > 0)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(count) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                octets = count.trim().parse().unwrap();
            }
            head.push_str(&line);
        }
        let mut body = vec![0; octets];
        stream.read_exact(&mut body).ok()?;
        Some(head + &String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_token_is_got_as_the_standard_says() {
        let server =
            TokenServer::start(&[(200, r#"{"access_token":"t1","token_type":"Bearer","expires_in":3600}"#)]);
        let access = token::fetch(&server.auth()).unwrap();
        assert_eq!(access.secret.expose(), "t1");
        let left = access.until.expect("an end").saturating_duration_since(Instant::now());
        assert!((3500..3545).contains(&left.as_secs()), "{left:?}");
        let asked = server.asked.lock().unwrap()[0].clone();
        assert!(asked.starts_with("POST /token HTTP/1.1"), "{asked}");
        assert!(
            asked.to_ascii_lowercase().contains("content-type: application/x-www-form-urlencoded"),
            "{asked}"
        );
        let body = asked.lines().last().unwrap();
        assert_eq!(
            body.replace("%20", "+"),
            "grant_type=refresh_token&refresh_token=r%2F1&client_id=me+%26+you&client_secret=s3cret%2B&scope=mail+offline"
        );
    }

    #[test]
    fn a_token_for_the_fallback_is_got_when_it_is_needed() {
        let server = TokenServer::start(&[(200, r#"{"access_token":"t1"}"#)]);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let relay = TokenRelay::start(|token, _| token == "t1");
        let fallback = Some(Box::new(relay.spec(server.auth())));
        let plain = Scene::new(Options::default());
        let works = RelaySpec { fallback: fallback.clone(), ..plain.spec.clone() };
        assert_eq!(run(&works, 5, 1, 500).count(Outcome::Accepted), 5);
        assert_eq!(server.asked(), 0, "nobody needed it");
        let down = RelaySpec { fallback, ..spec(nobody) };
        let told = run(&down, 5, 1, 500);
        assert_eq!((told.count(Outcome::Accepted), server.asked()), (5, 1), "{:?}", told.failed);
    }

    #[test]
    fn a_no_is_shown_and_no_secret_with_it() {
        let no = r#"{"error":"invalid_grant","error_description":"Token r/1 was\nrevoked"}"#;
        for (status, answer, expected) in [
            (400, no, "400 invalid_grant: Token *** was revoked"),
            (200, "{}", "gives no access token: 200"),
            (302, "", "gives no access token: 302"),
            (500, "<html>s3cret+</html>", "gives no access token: 500"),
        ] {
            let server = TokenServer::start(&[(status, answer)]);
            let error = token::fetch(&server.auth()).unwrap_err();
            assert_eq!(error.may_pass(), status == 500, "{error}");
            let said = error.to_string();
            assert!(said.contains(expected) && !said.contains("s3cret") && !said.contains("r/1 "), "{said}");
            assert_eq!(server.asked(), 1, "asked once, wherever it points to");
        }
        // Whom we do not trust gets nothing.
        let server = TokenServer::start(&[(200, r#"{"access_token":"t1"}"#)]);
        let stranger = Refresh { ca_file: None, ..server.refresh() };
        let auth = Auth { credential: Credential::Refresh(Box::new(stranger)), ..server.auth() };
        token::fetch(&auth).unwrap_err();
        assert_eq!(server.asked(), 0);
    }

    /// A relay that lets tokens in by a rule, takes two letters over each connection, and keeps the tokens it saw.
    struct TokenRelay {
        port: u16,
        seen: Arc<Mutex<Vec<(String, bool)>>>,
    }

    impl TokenRelay {
        fn start(good: impl Fn(&str, usize) -> bool + Send + Sync + 'static) -> TokenRelay {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let (seen, accepted) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
            let relay = TokenRelay { port, seen: Arc::clone(&seen) };
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A connection that breaks is the client's affair.
                    let _ = serve(stream, &good, &seen, &accepted);
                }
            });
            relay
        }

        fn spec(&self, auth: Auth) -> RelaySpec {
            RelaySpec {
                auth: Some(auth),
                connections: 1,
                messages_per_connection: Some(2),
                pipelining: Pipelining::Off,
                ..spec(self.port)
            }
        }

        fn seen(&self) -> Vec<(String, bool)> {
            self.seen.lock().unwrap().clone()
        }
    }

    fn serve(
        stream: TcpStream,
        good: &dyn Fn(&str, usize) -> bool,
        seen: &Mutex<Vec<(String, bool)>>,
        accepted: &Mutex<usize>,
    ) -> std::io::Result<()> {
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        out.write_all(b"220 relay\r\n")?;
        while let Some(line) = lines.next().transpose()? {
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let reply = match verb.as_str() {
                "EHLO" => "250-relay\r\n250 AUTH XOAUTH2",
                "AUTH" => {
                    let given = BASE64.decode(line.rsplit(' ').next().unwrap_or_default()).unwrap();
                    let given = String::from_utf8(given).unwrap();
                    let token = given.split("Bearer ").nth(1).unwrap().trim_end_matches('\x01').to_owned();
                    let fits = good(&token, *accepted.lock().unwrap());
                    seen.lock().unwrap().push((token, fits));
                    if !fits {
                        let words =
                            BASE64.encode(r#"{"status":"400","schemes":"Bearer","scope":"https://mail/"}"#);
                        out.write_all(format!("334 {words}\r\n").as_bytes())?;
                        lines.next().transpose()?;
                    }
                    if fits { "235 2.7.0 welcome" } else { "535 5.7.8 bad credentials" }
                }
                "DATA" => {
                    out.write_all(b"354 go\r\n")?;
                    while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                    *accepted.lock().unwrap() += 1;
                    "250 2.0.0 ok"
                }
                "QUIT" => {
                    out.write_all(b"221 bye\r\n")?;
                    return Ok(());
                }
                _ => "250 2.1.0 ok",
            };
            out.write_all(format!("{reply}\r\n").as_bytes())?;
        }
        Ok(())
    }

    const TWO: [(u16, &str); 2] = [(200, r#"{"access_token":"t1"}"#), (200, r#"{"access_token":"t2"}"#)];

    #[test]
    fn a_token_that_is_withdrawn_in_the_middle_is_replaced_once() {
        let server = TokenServer::start(&TWO);
        let relay =
            TokenRelay::start(|token, accepted| if accepted < 4 { token == "t1" } else { token == "t2" });
        let told = run(&relay.spec(server.auth()), 10, 1, 100);
        assert!(told.failed.is_none(), "{:?}", told.failed);
        assert_eq!(told.count(Outcome::Accepted), 10);
        let seen = relay.seen();
        let refused: Vec<_> =
            seen.iter().filter(|(_, fits)| !fits).map(|(token, _)| token.as_str()).collect();
        assert_eq!(refused, ["t1"], "{seen:?}");
        assert_eq!(server.asked(), 2);
    }

    /// Greets, and answers EHLO and what follows until a command that begins so; all it heard.
    fn let_in(stream: &TcpStream, last: &str) -> Vec<String> {
        let (mut heard, mut out) = (Vec::new(), stream);
        out.write_all(b"220 relay\r\n").unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let ends = line.starts_with(last);
            let reply: &[u8] = match line.split(' ').next() {
                _ if ends => b"",
                Some("EHLO") => b"250-relay\r\n250 AUTH XOAUTH2\r\n",
                Some("AUTH") => b"235 welcome\r\n",
                _ => b"250 ok\r\n",
            };
            heard.push(line);
            if ends || out.write_all(reply).is_err() {
                break;
            }
        }
        heard
    }

    #[test]
    fn a_token_that_was_refused_is_sent_on_no_other_connection() {
        // While one connection is busy, another is refused, and does not go before a third was greeted.
        let server = TokenServer::start(&TWO);
        let (refused, over) = (Barrier::new(2), Barrier::new(2));
        let (tell, late) = mpsc::channel();
        let tell = Mutex::new(tell);
        let port = played(move |number, mut stream| match number {
            0 => {
                let_in(&stream, "MAIL");
                over.wait();
            }
            1 => {
                let_in(&stream, "AUTH");
                stream.write_all(b"535 5.7.8 bad credentials\r\n").unwrap();
                refused.wait();
                BufReader::new(stream).lines().map_while(Result::ok).for_each(drop);
            }
            2 => {
                refused.wait();
                std::thread::sleep(Duration::from_millis(100));
                let heard = let_in(&stream, "AUTH");
                tell.lock().unwrap().send(heard).unwrap();
                over.wait();
            }
            _ => drop(serve(stream, &|token, _| token == "t2", &Mutex::default(), &Mutex::default())),
        });
        let mut spec = RelaySpec { auth: Some(server.auth()), pipelining: Pipelining::Off, ..spec(port) };
        spec.timeouts.mail = Duration::from_secs(30);
        let told = run(&spec, 20, 1, 100);
        let heard = late.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(heard[1..], ["QUIT"]);
        assert_eq!((told.count(Outcome::Accepted), server.asked()), (20, 2), "{:?}", told.failed);
    }

    #[test]
    fn a_login_that_is_refused_for_good_is_not_tried_again_and_again() {
        // Withdrawn, and what comes instead is no better: one attempt with each.
        let server = TokenServer::start(&TWO);
        let relay = TokenRelay::start(|token, accepted| accepted < 4 && token == "t1");
        let told = run(&relay.spec(server.auth()), 10, 1, 100);
        let Some(SubmitError::Login { answer, .. }) = told.failed else { panic!("{:?}", told.failed) };
        assert!(answer.text.contains("the token is not valid for this login"), "{answer}");
        let refused: Vec<_> =
            relay.seen().into_iter().filter(|(_, fits)| !fits).map(|(token, _)| token).collect();
        assert_eq!(refused, ["t1", "t2"]);
        // The same token again is no other: one attempt.
        let server = TokenServer::start(&TWO[..1]);
        let relay = TokenRelay::start(|_, accepted| accepted < 4);
        let told = run(&relay.spec(server.auth()), 10, 1, 100);
        assert!(matches!(told.failed, Some(SubmitError::Login { .. })), "{:?}", told.failed);
        assert_eq!(relay.seen().iter().filter(|(_, fits)| !fits).count(), 1);
        // A token server that gives none any more is asked once.
        let server = TokenServer::start(&[TWO[0], (400, r#"{"error":"invalid_grant"}"#)]);
        let relay = TokenRelay::start(|_, accepted| accepted < 4);
        let told = run(&relay.spec(server.auth()), 10, 1, 100);
        let Some(SubmitError::Credential { reason, .. }) = told.failed else { panic!("{:?}", told.failed) };
        assert!(reason.contains("invalid_grant"), "{reason}");
        assert_eq!(server.asked(), 2);
        // One that never worked is not asked for again.
        let server = TokenServer::start(&TWO);
        let relay = TokenRelay::start(|_, _| false);
        let (events, _inbox) = crossbeam_channel::unbounded();
        let error = Submitter::start(&relay.spec(server.auth()), &Accounts::alone(), None, events).err();
        assert!(matches!(error, Some(SubmitError::Login { .. })), "{error:?}");
        assert_eq!((relay.seen().len(), server.asked()), (1, 1));
    }

    #[test]
    fn a_token_is_renewed_before_its_time_is_over() {
        let server = TokenServer::start(&[
            (200, r#"{"access_token":"t1","expires_in":1}"#),
            (200, r#"{"access_token":"t2","expires_in":"3600"}"#),
        ]);
        let relay = TokenRelay::start(|_, _| true);
        // Two letters a connection, one each 200 ms: the second or third connection is made when half a second is over.
        let rate = postroom::measure::Rate::parse("5/s");
        let told = run(&RelaySpec { rate, ..relay.spec(server.auth()) }, 10, 1, 100);
        assert_eq!(told.count(Outcome::Accepted), 10);
        let tokens: Vec<String> = relay.seen().into_iter().map(|(token, _)| token).collect();
        assert!(tokens.len() >= 5 && tokens[0] == "t1" && tokens[4] == "t2", "{tokens:?}");
        assert_eq!(server.asked(), 2);
    }
}
