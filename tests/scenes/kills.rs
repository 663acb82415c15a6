//! Nobody twice, nobody forgotten: a run is killed at random moments and at every named point, run
//! again until it is done, and the relay's log (a process that outlives them all) is compared
//! with what the ledger says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postroom::exit::Exit;
use postroom::failpoint;

use crate::scene::{Scene, finish, ledger_says, letters_in, long, numbered};

/// The most letters that one death may leave unsure, as the job says it.
pub const DOUBT: usize = 24;

pub fn job(level: &str) -> String {
    format!(
        r#"
kind: send
name: short
edition: "1"
from: Post Room <news@example.com>
recipients: {{file: list.csv}}
subject: "Hello {{{{ name }}}}"
body: {{text: {{inline: "Dear {{{{ name }}}},\nall is well.\n"}}}}
relay:
  host: 127.0.0.1
  port: @PORT@
  tls: none
  connections: 3
  pipelining: {level}
  doubt: {DOUBT}
  retry: {{first: 1s, factor: 1, max: 1s, stay: 120s}}
  timeouts: {{end: 3s, command: 3s, mail: 3s, rcpt: 3s, data: 3s, greeting: 3s}}
"#
    )
}

/// Numbers that differ from run to run, and are said, so that a failure can be told apart.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(now.as_nanos() as u64);
        eprintln!("SEED={seed}");
        Chance(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

/// Counts the lines of a growing file.
struct Lines {
    path: PathBuf,
    file: Option<File>,
    count: usize,
}

impl Lines {
    fn of(path: PathBuf) -> Lines {
        Lines { path, file: None, count: 0 }
    }

    fn now(&mut self) -> usize {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let mut more = Vec::new();
            file.read_to_end(&mut more).expect("the log can be read");
            self.count += more.iter().filter(|byte| **byte == b'\n').count();
        }
        self.count
    }
}

/// Whether a run may end so and be started again: deferred letters are left, or the first connection
/// came to nothing where the relay does that.
fn goes_on(scene: &Scene, code: i32) -> bool {
    let at_the_door = |line: &serde_json::Value| {
        line["rule"].as_str().is_some_and(|rule| rule.starts_with("connect") || rule.starts_with("helo"))
    };
    code == 75 || matches!(code, 69 | 76) && scene.its_relay().events("fault").iter().any(at_the_door)
}

/// Runs until nothing is left to do.
pub fn until_done(scene: &Scene) {
    for _ in 0..20 {
        let run = scene.send();
        match run.code {
            Some(0 | 1) => return,
            Some(code) if goes_on(scene, code) => {}
            other => panic!("a run ends with {other:?}:\n{}", run.stderr),
        }
    }
    panic!("twenty runs are not enough");
}

/// Compares the relay's log with the ledger. `deaths` are kills and cut connections.
fn compare(scene: &Scene, letters: usize, deaths: usize) {
    let received = scene.its_relay().received();
    let outcomes = ledger_says(scene);
    let twice: Vec<_> = received.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "mailed twice: {twice:?}");
    let everyone: BTreeSet<String> = (0..letters).map(|n| format!("u{n}@example.org")).collect();
    let known: BTreeSet<String> = outcomes.keys().cloned().collect();
    let wrong: Vec<_> = known.symmetric_difference(&everyone).collect();
    assert!(wrong.is_empty(), "the ledger knows everyone, and nobody else: {wrong:?}");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (address, outcome) in &outcomes {
        *counts.entry(outcome.as_str()).or_insert(0) += 1;
        let arrived = received.contains_key(address);
        match outcome.as_str() {
            "accepted" => assert!(arrived, "{address} is accepted and never arrived"),
            "unsure" => {}
            "refused" | "failed" => assert!(!arrived, "{address} is {outcome} and has arrived"),
            other => panic!("{address} is {other} at the end"),
        }
    }
    let unsure = counts.get("unsure").copied().unwrap_or(0);
    assert!(unsure <= deaths * DOUBT, "{unsure} unsure after {deaths} deaths");
    let named = scene.run("report job.yaml --outcome unsure --format csv");
    let named = named.stdout.lines().filter(|line| line.contains("@example.org")).count();
    assert_eq!(named, unsure, "each unsure recipient is named");
    eprintln!("{letters} letters, {deaths} deaths: {counts:?}");
}

/// Kills so many runs, each when the relay has accepted a random number more, then runs to the end.
fn killed(level: &str, letters: usize, kills: usize, faults: &[&str]) {
    let mut chance = Chance::new();
    let mut arguments: Vec<&str> = vec!["--seed", "7"];
    for fault in faults {
        arguments.extend(["--fault", fault]);
    }
    let scene = Scene::new().relay(arguments).job(&job(level)).recipients(&numbered(letters));
    let mut moments: Vec<u64> = (0..kills).map(|_| chance.below(letters as u64 * 95 / 100)).collect();
    moments.sort_unstable();
    let mut log = Lines::of(scene.path("relay/log.jsonl"));
    let mut done = 0;
    for moment in moments {
        let mut child = scene.command(["run", "--yes", "--quiet", "job.yaml"]).spawn().expect("it starts");
        let started = Instant::now();
        while (log.now() as u64) < moment && started.elapsed() < Duration::from_secs(120) {
            if child.try_wait().expect("a child can be waited for").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        // Not only just behind an acceptance: anywhere, while it starts and recovers too.
        std::thread::sleep(Duration::from_micros(chance.below(30_000)));
        if child.try_wait().expect("a child can be waited for").is_none() {
            child.kill().expect("a child can be killed");
            done += 1;
        }
        let run = finish(child, "run, killed");
        let fine = run.code.is_none_or(|code| code < 2 || goes_on(&scene, code));
        assert!(fine, "{:?}: {}", run.code, run.stderr);
    }
    assert!(done * 2 > kills, "only {done} of {kills} runs lived long enough to be killed");
    until_done(&scene);
    let cuts = scene.its_relay().events("fault").iter().filter(|line| cuts(&line["rule"])).count();
    compare(&scene, letters, done + cuts);
}

/// Whether a rule closes connections without an answer.
pub fn cuts(rule: &serde_json::Value) -> bool {
    let rule = rule.as_str().expect("a rule is a text");
    ["drop", "reset", "hang"].iter().any(|word| rule.ends_with(word))
}

#[test]
fn twenty_kills_without_pipelining() {
    killed("off", 20_000, 20, &[]);
}

#[test]
fn twenty_kills_with_envelopes_in_flight() {
    killed("envelope", 20_000, 20, &[]);
}

#[test]
fn twenty_kills_with_messages_in_flight() {
    killed("message", 20_000, 20, &[]);
}

#[test]
fn twenty_kills_with_a_window_in_flight() {
    killed("window", 20_000, 20, &[]);
}

/// What a bad day at the relay looks like.
pub const BAD_DAY: &[&str] = &[
    "rcpt chance=0.01 reply 450 4.2.1 later",
    "mail chance=0.002 reply 451 4.3.0 try again",
    "rcpt if=u77*@* reply 550 5.1.1 no such user",
    "end chance=0.002 reply 451 4.3.0 try again",
    "commit chance=0.001 drop",
    "end chance=0.001 reset",
    "mail chance=0.0005 close 421 4.3.2 shutting down",
    "body at=40 chance=0.0005 drop",
];

#[test]
fn kills_on_a_bad_day() {
    for level in ["off", "envelope", "message", "window"] {
        killed(level, 3_000, 5, BAD_DAY);
    }
}

/// And a worse one: something goes wrong at every stage there is. A first connection that comes to
/// nothing ends a run.
pub const WORST_DAY: &[&str] = &[
    "connect chance=0.01 drop",
    "connect chance=0.01 close 421 4.3.2 busy",
    "helo chance=0.01 drop",
    "helo chance=0.002 hang",
    "mail chance=0.0003 reset",
    "rcpt chance=0.0005 close 421 4.3.2 shutting down",
    "rcpt chance=0.0003 drop",
    "rcpt chance=0.0001 hang",
    "data chance=0.001 reply 451 4.3.0 try again",
    "data chance=0.0003 drop",
    "bdat chance=0.001 reply 451 4.3.0 try again",
    "bdat chance=0.0003 drop",
    "rset chance=0.0005 drop",
    "body at=100 chance=0.0003 close 421 4.3.2 bye",
    "end chance=0.001 reply 554 5.7.1 spam",
    "end chance=0.0001 hang",
    "commit chance=0.0004 reset",
    "commit chance=0.0001 hang",
    "sent chance=0.001 drop",
    "quit chance=0.2 drop",
];

/// A thousand kills over a hundred thousand letters: `tests/run --long`.
#[test]
fn a_thousand_kills() {
    if !long() {
        return;
    }
    let faults = [BAD_DAY, WORST_DAY].concat();
    for level in ["off", "envelope", "message", "window", "auto"] {
        for _ in 0..4 {
            killed(level, 5_000, 50, &faults);
        }
    }
}

/// Starts a command that dies at a point.
fn dies(scene: &Scene, line: &str, point: &str) {
    let mut command = scene.command(line.split(' '));
    command.env(failpoint::VARIABLE, point);
    let run = finish(command.spawn().expect("it starts"), line);
    assert_eq!(run.code, None, "{point} is reached: {}", run.stderr);
}

#[test]
fn every_fail_point_once() {
    for point in failpoint::LEDGER {
        match point.split('.').nth(1).expect("a point has a step") {
            "accept" => dies_while_changes_are_accepted(point),
            "leave" => dies_while_an_edition_is_left(point),
            "requeue" => dies_while_letters_are_put_back(point),
            "erase" => dies_while_data_is_taken_out(point),
            "told" => dies_while_the_end_is_told(point),
            "flag" => dies_while_a_flag_is_set(point),
            _ => {
                for level in ["envelope", "window"] {
                    dies_while_letters_go_out(point, level, &job(level));
                }
                if point.contains("enlisted") {
                    dies_while_a_grown_list_is_taken_in(point);
                }
            }
        }
    }
}

#[test]
fn every_fail_point_of_kept_letters_once() {
    for point in failpoint::KEPT {
        let keeping = job("auto").replace("kind: send", "kind: send\nkeep: sent/");
        let scene = dies_while_letters_go_out(point, "auto", &keeping);
        // Whoever is known to have got a letter has a copy of it, whole, and nothing lies aside.
        let mut copies: Vec<String> = letters_in(&scene.path("sent"))
            .iter()
            .map(|path| blake3::hash(&std::fs::read(path).expect("a copy")).to_hex().to_string())
            .collect();
        copies.sort();
        let accepted = scene.run("report job.yaml --format json --outcome accepted");
        let report: serde_json::Value = serde_json::from_str(&accepted.stdout).expect("JSON");
        assert_eq!(report["recipients"].as_array().map(Vec::len), Some(copies.len()), "{point}");
        copies.dedup();
        assert_eq!(report["recipients"].as_array().map(Vec::len), Some(copies.len()), "{point}");
        assert!(!scene.path("sent/.aside").exists(), "{point}");
    }
}

fn dies_while_letters_go_out(point: &str, level: &str, job: &str) -> Scene {
    // A transaction of enlisting is full after 50,000 rows; once is enough for that.
    let full = point == "ledger.enlist.after";
    let letters = if full { 50_100 } else { 300 };
    let mut last = None;
    for nth in if full || level == "auto" { 1..2 } else { 1..3 } {
        let scene = Scene::new().relay([] as [&str; 0]).job(job).recipients(&numbered(letters));
        if full && level == "envelope" {
            return scene;
        }
        let mut deaths = 0;
        if point.contains("recover") {
            // There is something to recover only after a death with a mark set.
            dies(&scene, "run --yes job.yaml", "ledger.mark.after");
            deaths += 1;
        }
        let mut command = scene.command(["run", "--yes", "job.yaml"]);
        command.env(failpoint::VARIABLE, format!("{point}:{nth}"));
        let run = finish(command.spawn().expect("it starts"), "run");
        match (run.code, nth) {
            (None, _) => deaths += 1,
            (Some(_), 1) => panic!("{point} is never reached"),
            (Some(0 | 1), _) => {} // reached once only
            (code, _) => panic!("{point}:{nth} ends with {code:?}: {}", run.stderr),
        }
        until_done(&scene);
        compare(&scene, letters, deaths);
        last = Some(scene);
    }
    last.expect("a scene was played")
}

fn dies_while_a_grown_list_is_taken_in(point: &str) {
    let scene = Scene::new().relay([] as [&str; 0]).job(&job("auto")).recipients(&numbered(20));
    scene.send().exit(Exit::Done);
    let scene = scene.recipients(&numbered(25));
    dies(&scene, "run --yes job.yaml", point);
    // Nobody goes on to another edition over those who wait.
    let scene = scene.job(&job("auto").replace("edition: \"1\"", "edition: \"2\""));
    scene.send().exit(Exit::Job).says(&["edition 1", "--new-edition"]);
    let scene = scene.job(&job("auto"));
    scene.send().exit(Exit::Done);
    compare(&scene, 25, 0);
}

fn dies_while_changes_are_accepted(point: &str) {
    let scene = Scene::new().relay([] as [&str; 0]).job(&job("auto")).recipients(&numbered(20));
    scene.run("run --yes --limit 5 job.yaml").exit(Exit::Done);
    let scene = scene.job(&job("auto").replace("all is well", "all is better"));
    dies(&scene, "run --yes --accept-changes job.yaml", point);
    // Either it was accepted or it was not, and then it is asked for again.
    let accepted = point.ends_with("after");
    scene.send().exit(if accepted { Exit::Done } else { Exit::Job });
    scene.run("run --yes --accept-changes job.yaml").exit(Exit::Done);
    compare(&scene, 20, 0);
}

fn dies_while_an_edition_is_left(point: &str) {
    let scene = Scene::new().relay([] as [&str; 0]).job(&job("auto")).recipients(&numbered(20));
    scene.run("run --yes --limit 5 job.yaml").exit(Exit::Done);
    let scene = scene.job(&job("auto").replace("edition: \"1\"", "edition: \"2\""));
    dies(&scene, "run --yes --new-edition job.yaml", point);
    scene.run("run --yes --new-edition job.yaml").exit(Exit::Done);
    let received = scene.its_relay().received();
    assert_eq!((received.len(), received.values().sum::<usize>()), (20, 25), "{point}");
    let ids: BTreeSet<String> =
        scene.its_relay().letters().into_iter().map(|letter| letter.message_id).collect();
    assert_eq!(ids.len(), 25, "{point}: each letter once");
}

fn dies_while_letters_are_put_back(point: &str) {
    let faults = ["--fault", "rcpt if=u1* first=1 reply 550 5.1.1 no such user"];
    let scene = Scene::new().relay(faults).job(&job("auto")).recipients(&numbered(20));
    scene.send().exit(Exit::SomeFailed);
    dies(&scene, "requeue job.yaml --outcome refused --yes", point);
    scene.run("requeue job.yaml --outcome refused --yes").exit(Exit::Done);
    scene.send().exit(Exit::Done);
    compare(&scene, 20, 0);
}

fn dies_while_data_is_taken_out(point: &str) {
    let scene = Scene::new().relay([] as [&str; 0]).job(&job("auto")).recipients(&numbered(20));
    scene.send().exit(Exit::Done);
    dies(&scene, "forget u1@example.org --job job.yaml --yes", point);
    scene.run("forget u1@example.org --job job.yaml --yes").exit(Exit::Done);
    for entry in std::fs::read_dir(scene.path(".postroom")).expect("the ledger's folder") {
        let path = entry.expect("an entry").path();
        let found = std::fs::read(&path).expect("a file").windows(14).any(|text| text == b"u1@example.org");
        assert!(!found, "{point}: {} still has the address", path.display());
    }
    let scene = scene.recipients(&numbered(21));
    scene.send().exit(Exit::Done);
    std::thread::sleep(Duration::from_millis(2_100));
    dies(&scene, "prune --older 1s --job job.yaml --yes", point);
    scene.run("prune --older 1s --job job.yaml --yes").exit(Exit::Done);
    scene.send().exit(Exit::Job).says(&["has been pruned"]);
    let received = scene.its_relay().received();
    assert_eq!((received.len(), received.values().max()), (21, Some(&1)), "{point}");
}

fn dies_while_the_end_is_told(point: &str) {
    let telling =
        job("auto").replace("kind: send", "kind: send\nnotify: {to: boss@example.com, when: finished}");
    let scene = Scene::new().relay([] as [&str; 0]).job(&telling).recipients(&numbered(20));
    dies(&scene, "run --yes job.yaml", point);
    scene.send().exit(Exit::Done);
    scene.send().exit(Exit::Done);
    let mut received = scene.its_relay().received();
    // Behind the record and before the letter there is a moment in which a death costs the letter.
    let told = received.remove("boss@example.com").unwrap_or(0);
    assert_eq!(told, usize::from(point.ends_with("before")), "{point}");
    assert_eq!((received.len(), received.values().max()), (20, Some(&1)), "{point}");
}

fn dies_while_a_flag_is_set(point: &str) {
    let scene = Scene::new().relay([] as [&str; 0]).job(&job("auto")).recipients(&numbered(20));
    scene.run("run --yes --limit 5 job.yaml").exit(Exit::Done);
    dies(&scene, "pause job.yaml", point);
    let resumed = scene.run("resume job.yaml").exit(Exit::Done);
    resumed.says(&[if point.ends_with("after") { "goes on" } else { "was not paused" }]);
    scene.send().exit(Exit::Done);
    compare(&scene, 20, 0);
}
