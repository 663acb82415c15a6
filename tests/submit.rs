//! The submitter against the sandbox relay, over real sockets: every level, faults at every stage, and the books of
//! both sides compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use postroom::job::{Auth, Credential, Pipelining, RelaySpec, Retry, Timeouts, TlsMode, TlsSpec, Unsure};
use postroom::letter::{Content, Envelope, Message, Outcome, Slice};
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

/// Submits letters as they are wanted and hears until all is closed. Each letter must have exactly one end.
fn run(spec: &RelaySpec, count: u64, recipients: usize, octets: usize) -> Told {
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = Submitter::start(spec, &Accounts::alone(), None, events).expect("a relay");
    let (mut told, mut sent, mut ended) = (Told::default(), 0, BTreeMap::new());
    let mut letters = (0..count).map(|seq| letter(seq, recipients, octets));
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
