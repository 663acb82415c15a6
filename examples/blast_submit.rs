//! Feeds ready-made letters to the submitter and says how fast they went: what the wire alone can do.
//!
//! ```text
//! cargo run --release --example blast_submit -- 127.0.0.1:2525 count=20000 size=13000 connections=10 level=window
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use postroom::job::{Auth, Credential, Pipelining, RelaySpec, Retry, Timeouts, TlsMode, TlsSpec, Unsure};
use postroom::letter::{Content, Envelope, Message, Octets, Slice};
use postroom::measure::Rate;
use postroom::net::transcript::Transcript;
use postroom::secret::Secret;
use postroom::submit::{Accounts, Consignment, Event, Submitter};

fn main() {
    let mut args = std::env::args().skip(1);
    let to = args.next().unwrap_or_else(|| "127.0.0.1:2525".to_owned());
    let options: BTreeMap<String, String> = args
        .filter_map(|arg| arg.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    let number = |name: &str, default: usize| {
        options.get(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (count, size, recipients) = (number("count", 10_000), number("size", 1_200), number("rcpts", 1));
    let shared: Octets = text(number("shared", 0)).into();
    let relay = relay(&to, &options);
    let (events, inbox) = crossbeam_channel::unbounded();
    let began = Instant::now();
    let trace = options.contains_key("trace").then(Transcript::stderr);
    let submitter = match Submitter::start(&relay, &Accounts::alone(), trace, events) {
        Ok(submitter) => submitter,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(69);
        }
    };
    let body = text(size);
    let letter = |n: usize| {
        let mut own =
            format!("From: a@x.test\r\nMessage-ID: <{n}@x.test>\r\nSubject: blast\r\n\r\n").into_bytes();
        own.extend_from_slice(&body);
        let all = own.len();
        let mut slices = vec![Slice::Own(0..all)];
        if !shared.is_empty() {
            slices.push(Slice::Shared(shared.clone()));
        }
        let recipients =
            (0..recipients).map(|r| format!("u{}@x.test", n * recipients + r).parse().expect("an address"));
        Consignment {
            seq: n as u64,
            message: Message {
                envelope: Envelope {
                    reverse_path: Some("a@x.test".parse().expect("an address")),
                    recipients: recipients.collect(),
                },
                content: Content::new(own, slices),
                eight_bit: false,
                smtputf8: false,
            },
        }
    };
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let (mut sent, mut answered, mut batches) = (0, 0, 0);
    let mut seen = vec![false; count];
    let mut book =
        options.get("book").map(|path| std::io::BufWriter::new(std::fs::File::create(path).expect("a file")));
    let mut answer = |seq: u64| {
        assert!(!std::mem::replace(&mut seen[seq as usize], true), "letter {seq} is answered twice");
    };
    'all: for batch in &inbox {
        batches += 1;
        let mut wanted = 0;
        for event in batch {
            match event {
                Event::Wanted(more) => wanted += more,
                Event::Settled { seq, rcpts } => {
                    answer(seq);
                    answered += 1;
                    for rcpt in rcpts {
                        if let Some(book) = &mut book {
                            writeln!(book, "{} {}", rcpt.address, rcpt.outcome.word()).expect("written");
                        }
                        let word = match rcpt.outcome.word() {
                            "accepted" => "accepted".to_owned(),
                            word => format!("{word}: {}", rcpt.answer),
                        };
                        *outcomes.entry(word).or_default() += 1;
                    }
                }
                Event::Returned { seq } => {
                    answer(seq);
                    answered += 1;
                    *outcomes.entry("returned".to_owned()).or_default() += 1;
                }
                Event::SenderTrouble { command, answer } => eprintln!("{command}: {answer}"),
                Event::Failed(error) => eprintln!("{error}"),
                Event::Connections(open) => {
                    if options.contains_key("verbose") {
                        eprintln!("{:?} {open} connections", began.elapsed());
                    }
                }
                Event::Away(_) => {}
                Event::Closed => break 'all,
            }
        }
        let more = wanted.min(count - sent);
        if more > 0 {
            submitter.submit((sent..sent + more).map(letter).collect());
            sent += more;
        }
        if answered == count {
            submitter.drain();
        }
    }
    // Handed over at the moment of the end.
    for event in inbox.try_iter().flatten() {
        if let Event::Returned { seq } = event {
            answer(seq);
            answered += 1;
            *outcomes.entry("returned".to_owned()).or_default() += 1;
        }
    }
    let took = began.elapsed();
    println!(
        "{:.0} letters/s, {count} in {took:.2?}, {batches} batches, {:.1} us of CPU a letter in all threads, {} not answered",
        answered as f64 / took.as_secs_f64(),
        cpu().as_secs_f64() * 1e6 / count as f64,
        sent - answered,
    );
    for (outcome, times) in outcomes {
        println!("{times:>8} {outcome}");
    }
}

fn relay(to: &str, options: &BTreeMap<String, String>) -> RelaySpec {
    let (host, port) = to.rsplit_once(':').expect("HOST:PORT");
    let option = |name: &str| options.get(name).map(String::as_str);
    let seconds = |name: &str, default: Duration| {
        option(name).map_or(default, |value| Duration::from_millis(value.parse().expect("milliseconds")))
    };
    let patient = Timeouts::default();
    RelaySpec {
        host: host.to_owned(),
        port: port.parse().expect("a port"),
        provider: None,
        tls: TlsSpec {
            mode: match option("tls") {
                Some("starttls") => TlsMode::StartTls,
                Some("implicit") => TlsMode::Implicit,
                _ => TlsMode::None,
            },
            ca_file: option("ca").map(Into::into),
            client_cert: None,
            only_tls13: false,
        },
        auth: option("auth").and_then(|auth| auth.split_once(':')).map(|(user, password)| Auth {
            user: user.to_owned(),
            credential: Credential::Literal(Secret::new(password)),
            token: false,
            mechanism: None,
        }),
        connections: option("connections").map_or(1, |value| value.parse().expect("a number")),
        messages_per_connection: option("mpc").map(|value| value.parse().expect("a number")),
        rate: option("rate").map(|rate| Rate::parse(rate).expect("a rate")),
        burst: 1,
        limits: Vec::new(),
        retry: Retry::default(),
        pipelining: match option("level") {
            Some("off") => Pipelining::Off,
            Some("envelope") => Pipelining::Envelope,
            Some("message") => Pipelining::Message,
            Some("window") => Pipelining::Window,
            _ => Pipelining::Auto,
        },
        doubt: option("doubt").map(|value| value.parse().expect("a number")),
        unsure: Unsure::Hold,
        helo: Some("blast.test".to_owned()),
        timeouts: Timeouts {
            connect: seconds("patience", patient.connect),
            greeting: seconds("patience", patient.greeting),
            command: seconds("patience", patient.command),
            mail: seconds("patience", patient.mail),
            rcpt: seconds("patience", patient.rcpt),
            data: seconds("patience", patient.data),
            block: seconds("patience", patient.block),
            end: seconds("patience", patient.end),
        },
        local_address: None,
        proxy: option("proxy").map(str::to_owned),
        fallback: None,
        stop_when: None,
        dkim: None,
    }
}

fn text(size: usize) -> Vec<u8> {
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    line.iter().copied().cycle().take(size.div_ceil(line.len()) * line.len()).collect()
}

/// User and system time of this process, from /proc (in ticks of 10 ms).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
