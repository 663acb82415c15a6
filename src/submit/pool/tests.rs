//! The pool against relays on loopback that the tests play, at addresses a resolver of theirs gives.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use super::*;
use crate::job::Job;
use crate::letter::{Content, Envelope, Message, Slice};
use crate::wire::smtp::{Security, Session, Window};

/// A relay of the job file, at addresses of the test's.
fn relay_at(addresses: Vec<SocketAddr>) -> Relay {
    let folder = tempfile::tempdir().expect("a folder");
    let job = "kind: send\nname: news\nedition: \"1\"\nfrom: news@example.com\nrecipients: {file: list.csv}\n\
               subject: Hello\nbody: {text: letter.txt}\n\
               relay: {host: relay.test, tls: none, timeouts: {greeting: 300ms, command: 300ms}}\n";
    std::fs::write(folder.path().join("job.yaml"), job).expect("written");
    let environment = crate::job::Environment::fixed(folder.path(), &[]);
    let Ok(Job::Send(job)) = crate::job::read(std::path::Path::new("job.yaml"), &environment) else {
        panic!("a sending job");
    };
    let mut relay = Relay::new(&job.relay, &Accounts::alone(), false).expect("a relay");
    let resolver = move |_: &str, _| match addresses.is_empty() {
        true => Err(io::Error::other("no such name")),
        false => Ok(addresses.clone()),
    };
    relay.dialer = relay.dialer.resolver(Arc::new(resolver));
    relay
}

/// Says the first line to everyone who comes, and one more for each that it hears.
fn says(lines: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut heard = BufReader::new(&stream).lines();
                for line in lines {
                    let _ = (&stream).write_all(line.as_bytes());
                    heard.next();
                }
                heard.for_each(drop);
            });
        }
    });
    address
}

#[test]
fn another_address_is_tried_whatever_the_first_one_says() {
    let good = says(&["220 relay\r\n", "250 relay\r\n"]);
    for bad in [
        &["421 4.3.2 not now\r\n"][..],
        &["554 5.3.2 no mail here\r\n"],
        &[""],
        &["what?\r\n"],
        &["220 relay\r\n", "451 4.3.0 later\r\n", "451 4.3.0 later\r\n"],
    ] {
        let relay = relay_at(vec![says(bad), good]);
        let (events, _inbox) = crossbeam_channel::unbounded();
        let started = begin(VecDeque::from([relay]), &Accounts::alone(), None, events);
        assert!(started.is_ok(), "{bad:?}: {:?}", started.err());
    }
}

/// An address where connections are neither taken nor refused: its queue is full as long as these sockets live.
fn black_hole() -> (SocketAddr, [socket2::Socket; 3]) {
    let sockets = [(); 3].map(|()| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_nonblocking(true).expect("set");
        socket
    });
    sockets[0].bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    sockets[0].listen(0).expect("listening");
    let address = sockets[0].local_addr().expect("an address").as_socket().expect("of IP");
    for socket in &sockets[1..] {
        let _ = socket.connect(&address.into());
    }
    (address, sockets)
}

#[test]
fn an_address_that_does_not_answer_soon_gets_rivals() {
    let good = says(&["220 relay\r\n", "250 relay\r\n"]);
    let busy = says(&["421 4.3.2 not now\r\n"]);
    let ((silent, _held), (mute, _kept)) = (black_hole(), black_hole());
    for addresses in [vec![silent, good], vec![silent, mute, good], vec![silent, busy, good]] {
        let asked = Instant::now();
        let (events, _inbox) = crossbeam_channel::unbounded();
        let started = begin(VecDeque::from([relay_at(addresses.clone())]), &Accounts::alone(), None, events);
        assert!(started.is_ok(), "{addresses:?}: {:?}", started.err());
        // A connection alone would be waited for 30 s.
        assert!(asked.elapsed() < Duration::from_secs(10), "{addresses:?}: {:?}", asked.elapsed());
    }
}

#[test]
fn what_an_address_says_is_told_where_the_others_say_nothing() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = nobody.expect("an address");
    let (busy, closed) = (says(&["421 4.3.2 not now\r\n"]), says(&["554 5.3.2 no mail here\r\n"]));
    let (silent, _held) = black_hole();
    for (addresses, expected) in [
        (vec![closed], 554),
        (vec![closed, nobody], 554),
        (vec![nobody, closed], 554),
        (vec![closed, busy, nobody], 421),
        (vec![silent, busy], 421),
    ] {
        let asked = Instant::now();
        let told = format!("{addresses:?}");
        let (events, _inbox) = crossbeam_channel::unbounded();
        match begin(VecDeque::from([relay_at(addresses)]), &Accounts::alone(), None, events).err() {
            Some(SubmitError::Refused { answer, .. }) => {
                assert_eq!(answer.code, expected, "{told}");
                // A connection alone would be waited for 30 s.
                assert!(asked.elapsed() < Duration::from_secs(15), "{told}: {:?}", asked.elapsed());
            }
            other => panic!("{told}: {other:?}"),
        }
    }
}

#[test]
fn who_is_let_in_and_sent_away_in_one_breath_does_not_come_back_for_ever() {
    let relay = relay_at(vec![says(&["220 relay\r\n", "250 relay\r\n421 4.3.2 enough\r\n"])]);
    let (events, _inbox) = crossbeam_channel::unbounded();
    let error = begin(VecDeque::from([relay]), &Accounts::alone(), None, events).err();
    assert!(matches!(error, Some(SubmitError::Refused { .. })), "{error:?}");
}

#[test]
fn a_connection_that_cannot_be_begun_makes_way_at_once() {
    let good = says(&["220 relay\r\n", "250 relay\r\n"]);
    // The system refuses to connect to the address of all.
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 25));
    for relays in [vec![vec![nowhere, good]], vec![vec![], vec![good]], vec![vec![nowhere], vec![good]]] {
        let told = format!("{relays:?}");
        let (events, _inbox) = crossbeam_channel::unbounded();
        let (tell, heard) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let relays = relays.into_iter().map(relay_at).collect();
            let started = begin(relays, &Accounts::alone(), None, events);
            tell.send(started.map(drop).map_err(|error| error.to_string()))
        });
        let started = heard.recv_timeout(Duration::from_secs(10));
        assert_eq!(started, Ok(Ok(())), "{told}");
    }
}

#[test]
fn a_resolver_that_hangs_keeps_no_letter_waiting_that_has_a_connection() {
    // Whoever comes second is sent away, so that the name is looked up again.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let say = |line: &str| (&stream).write_all(line.as_bytes()).expect("written");
        say("220 relay\r\n");
        let mut content = false;
        for line in BufReader::new(&stream).lines().map_while(Result::ok) {
            content = if content { line != "." } else { line == "DATA" };
            match (content, line.as_str()) {
                (true, "DATA") => say("354 go on\r\n"),
                (true, _) => {}
                (false, _) => {
                    std::thread::sleep(Duration::from_millis(10));
                    say("250 ok\r\n");
                }
            }
        }
    });
    let mut relay = relay_at(vec![address]);
    let asked = AtomicBool::new(false);
    relay.dialer = relay.dialer.resolver(Arc::new(move |_: &str, _| {
        while asked.swap(true, Ordering::Relaxed) {
            std::thread::park();
        }
        Ok(vec![address])
    }));
    let (events, inbox) = crossbeam_channel::unbounded();
    let submitter = begin(VecDeque::from([relay]), &Accounts::alone(), None, events).expect("a connection");
    submitter.submit((1..=20).map(|seq| letter(seq, 100).consignment).collect());
    let (mut settled, until) = (0, Instant::now() + Duration::from_secs(10));
    while settled < 20 {
        let batch = inbox.recv_deadline(until).expect("nobody waits for the resolver");
        settled += batch.iter().filter(|event| matches!(event, Event::Settled { .. })).count();
    }
}

fn letter(seq: u64, octets: usize) -> Queued {
    let own = format!("Subject: {seq}\r\n\r\n{}\r\n", "x".repeat(octets)).into_bytes();
    let all = own.len();
    let envelope = Envelope {
        reverse_path: Some("news@example.com".parse().expect("an address")),
        recipients: vec!["ada@example.org".parse().expect("an address")],
    };
    let content = Content::new(own, vec![Slice::Own(0..all)]);
    let message = Message { envelope, content, eight_bit: false, smtputf8: false };
    Queued { consignment: Consignment { seq, message }, losses: 0, began: Instant::now() }
}

#[test]
fn what_was_said_is_heard_though_nothing_more_can_be_written() {
    // The relay answers the first letter, has enough, and goes with more letters than a socket holds unread.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let relay = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut heard = BufReader::new(&stream).lines();
        let say = |line: &str| (&stream).write_all(line.as_bytes()).expect("written");
        say("220 relay\r\n");
        heard.next();
        say("250-relay\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        heard.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("Subject: 1")));
        heard.nth(1);
        say("250 reset\r\n250 sender\r\n250 recipient\r\n250 taken\r\n421 4.7.0 enough\r\n");
    });
    let relays = relay_at(vec![address]);
    let link = relays.dialer.begin(address).expect("a link");
    let berth = relays.berths.take(0, Instant::now()).expect("a berth");
    let window = Window { parcels: 100, octets: usize::MAX };
    let session = Session::new("client.test", Security::Settled, Level::Window, true, window);
    let mut connection = Connection::new(link, session, berth, Instant::now(), None);
    let until = Instant::now() + Duration::from_secs(10);
    while !matches!(connection.session.next_event(), Some(Wire::Greeted)) && Instant::now() < until {
        connection.ready(true, true, false);
        assert!(connection.receive(Instant::now()).is_ok() && connection.send(Instant::now()).is_ok());
    }
    connection.session.open();
    (1..=100).for_each(|seq| connection.session.submit(letter(seq, 250_000)));
    let lost = loop {
        connection.ready(false, true, false);
        if let Err(loss) = connection.send(Instant::now()) {
            break loss;
        }
        assert!(Instant::now() < until, "all was written");
    };
    assert!(matches!(lost, Loss::Net(_)), "{lost:?}");
    connection.hear_out(Instant::now());
    relay.join().expect("the relay's part");
    let Some(Wire::Done(first, record)) = connection.session.next_event() else { panic!("no letter") };
    assert_eq!((first.consignment.seq, record.end.map(|heard| heard.code)), (1, Some(250)));
    let rest: Vec<_> = std::iter::from_fn(|| connection.session.next_event()).collect();
    let doubts =
        rest.iter().filter(|event| matches!(event, Wire::Done(_, record) if record.way == Way::Silent));
    assert_eq!(doubts.count(), 0);
    assert!(matches!(rest.last(), Some(Wire::Closing(_))));
}

#[test]
fn a_reply_that_is_slow_to_come_is_told_of_once() {
    let address = says(&["220 relay\r\n", "250 relay\r\n"]);
    let relay = relay_at(vec![address]);
    let link = relay.dialer.begin(address).expect("a link");
    let berth = relay.berths.take(0, Instant::now()).expect("a berth");
    let window = Window { parcels: 1, octets: usize::MAX };
    let session = Session::new("client.test", Security::Settled, Level::Off, true, window);
    let mut connection = Connection::new(link, session, berth, Instant::now(), None);
    let (mut told, until) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    while connection.session.next_event().is_none() && Instant::now() < until {
        let awaited = connection.session.awaits();
        connection.ready(awaited.is_some() && told.last() == Some(&awaited), true, false);
        assert!(connection.receive(Instant::now()).is_ok() && connection.send(Instant::now()).is_ok());
        if connection.session.awaits() == awaited && connection.tells_at().is_some() {
            assert!(connection.tells_at() > Some(Instant::now()) && !connection.is_slow());
            let _ = connection.tell_slow();
            assert!(connection.tells_at().is_none() && connection.is_slow(), "{awaited:?}");
            told.push(awaited);
        }
    }
    assert_eq!(told, [Some(Awaited::Greeting), Some(Awaited::Ehlo)]);
}
