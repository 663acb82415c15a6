//! How fast letters go: the rate of a job, of an account that two runs share, and of a relay that says no.

use std::process::Child;
use std::time::Duration;

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, finish, ledger_says, long};

/// When the relay took each letter, in microseconds, and for whom.
fn times(scene: &Scene) -> Vec<(u64, String)> {
    let of = |line: &serde_json::Value| {
        let time = line["t"].as_u64().expect("a time");
        (time, line["rcpt"][0].as_str().expect("a recipient").to_owned())
    };
    let mut times: Vec<_> = scene.its_relay().events("message").iter().map(of).collect();
    times.sort();
    times
}

/// Most letters in any so many seconds.
fn most_in(times: &[(u64, String)], seconds: u64) -> usize {
    let window = seconds * 1_000_000;
    let inside =
        |from: usize| times[from..].iter().take_while(|(at, _)| *at <= times[from].0 + window).count();
    (0..times.len()).map(inside).max().unwrap_or(0)
}

fn list(name: &str, count: usize) -> String {
    let rows = (0..count).map(|n| format!("{name}{n}@example.org,Name {n}\n"));
    "email,name\n".to_owned() + &rows.collect::<String>()
}

/// Two jobs of one relay, each with so many letters.
fn two(relay: &[&str], setting: &str, count: usize) -> Scene {
    let job = SHORT.replace("tls: none,", &format!("tls: none, {setting},"));
    let other = job.replace("name: short", "name: other").replace("list.csv", "other.csv");
    Scene::new()
        .relay(relay)
        .job(&job)
        .file("other.yaml", &other)
        .recipients(&list("a", count))
        .file("other.csv", &list("b", count))
}

fn start(scene: &Scene, job: &str) -> Child {
    scene.command(["run", "--yes", "--quiet", job]).spawn().expect("a run")
}

#[test]
fn two_runs_keep_the_rate_of_their_account_together() {
    let (rate, count) = (40, 250);
    let scene = two(&[], &format!("rate: {rate}/s"), count);
    let (one, other) = (start(&scene, "job.yaml"), start(&scene, "other.yaml"));
    finish(one, "run job.yaml").exit(Exit::Done);
    finish(other, "run other.yaml").exit(Exit::Done);
    let times = times(&scene);
    assert_eq!(times.len(), 2 * count);
    let most = most_in(&times, 5);
    assert!(most <= 5 * rate + 1, "{most} in five seconds");
    // While both ran, both had their part, and together they used what there is.
    let last = |name| times.iter().filter(|(_, rcpt)| rcpt.starts_with(name)).map(|(at, _)| *at).max();
    let until = last('a').min(last('b')).expect("both sent");
    let both: Vec<_> = times.iter().filter(|(at, _)| *at <= until).collect();
    let seconds = (until - times[0].0) as f64 / 1e6;
    let pace = both.len() as f64 / seconds;
    assert!(pace > 0.9 * rate as f64, "{pace} a second of {rate}");
    let of_one = both.iter().filter(|(_, rcpt)| rcpt.starts_with('a')).count();
    assert!((both.len() / 5..both.len() * 4 / 5).contains(&of_one), "{of_one} of {} are one's", both.len());
}

#[test]
fn two_runs_have_the_connections_of_their_account_together() {
    let count = 400;
    let scene = two(&["--fault", "commit delay 20"], "connections: 3, pipelining: off", count);
    let one = start(&scene, "job.yaml");
    std::thread::sleep(Duration::from_millis(500));
    let other = start(&scene, "other.yaml");
    finish(one, "run job.yaml").exit(Exit::Done);
    finish(other, "run other.yaml").exit(Exit::Done);
    let times = times(&scene);
    assert_eq!(times.len(), 2 * count);
    // Who came second did not wait until the first had done.
    let first_of_other = times.iter().position(|(_, rcpt)| rcpt.starts_with('b')).expect("it sent");
    assert!(first_of_other < count, "it waited for {first_of_other} letters");
    // A connection's letters do not overlap: more at once would be more connections.
    let most = most_connections(&scene);
    assert!(most <= 3, "{most} connections at once");
}

/// Most connections that took letters in the same moment, by the first and last letter of each.
fn most_connections(scene: &Scene) -> usize {
    let mut spans = std::collections::BTreeMap::new();
    for line in scene.its_relay().events("message") {
        let (conn, at) = (line["conn"].as_u64().expect("a connection"), line["t"].as_u64().expect("a time"));
        let span = spans.entry(conn).or_insert((at, at));
        span.1 = at;
    }
    let at_once = |at: u64| spans.values().filter(|(from, until)| *from <= at && at <= *until).count();
    spans.values().map(|(from, _)| at_once(*from)).max().unwrap_or(0)
}

#[test]
fn a_run_that_dies_leaves_its_share_to_the_other() {
    let scene = two(&["--fault", "commit delay 20"], "connections: 1, pipelining: off", 100);
    let mut one = start(&scene, "job.yaml");
    std::thread::sleep(Duration::from_millis(800));
    let other = start(&scene, "other.yaml");
    std::thread::sleep(Duration::from_millis(800));
    assert!(times(&scene).iter().all(|(_, rcpt)| rcpt.starts_with('a')), "the only connection is taken");
    one.kill().expect("it can be killed");
    one.wait().expect("it is dead");
    finish(other, "run other.yaml").exit(Exit::Done).says(&["other runs have all connections (1)"]);
    assert_eq!(times(&scene).iter().filter(|(_, rcpt)| rcpt.starts_with('b')).count(), 100);
}

#[test]
fn a_run_that_waits_for_a_connection_can_be_stopped_and_gives_up() {
    let job = "connections: 1, pipelining: off";
    let scene = two(&["--fault", "commit delay 50"], job, 100);
    let impatient =
        std::fs::read_to_string(scene.path("other.yaml")).expect("a job").replace("stay: 60s", "stay: 1s");
    let scene = scene.file("impatient.yaml", &impatient);
    let one = start(&scene, "job.yaml");
    std::thread::sleep(Duration::from_millis(800));
    finish(start(&scene, "impatient.yaml"), "run impatient.yaml")
        .exit(Exit::Again)
        .says(&["run again when they are done"]);
    let other = start(&scene, "other.yaml");
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_raw(other.id() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    finish(other, "run other.yaml").exit(Exit::Interrupted);
    finish(one, "run job.yaml").exit(Exit::Done);
}

#[test]
fn a_code_that_says_enough_stops_the_run() {
    let job = SHORT
        .replace("tls: none,", "tls: none, pipelining: off, connections: 1, stop_when: {code: \"5.7.*\"},");
    let scene = Scene::new()
        .relay([
            "--fault",
            "rcpt if=a1@* reply 550 5.1.1 no such user",
            "--fault",
            "rcpt if=a20@* reply 550 5.7.1 you are on a list",
        ])
        .job(&job)
        .recipients(&list("a", 200));
    scene.send().exit(Exit::Unavailable).says(&["`stop_when`", "the rest is pending"]);
    let says = ledger_says(&scene);
    assert_eq!((&*says["a1@example.org"], &*says["a20@example.org"]), ("refused", "refused"));
    assert!(says.values().any(|outcome| outcome == "pending"), "it stopped before the end");
}

#[test]
fn a_relay_that_is_too_slow_for_us_sets_the_pace_and_nobody_is_lost() {
    // A third to find out what it bears, a third to settle.
    let (most, count) = if long() { (30, 3000) } else { (60, 1500) };
    let retry = SHORT.replace("stay: 60s", "stay: 300s");
    let scene = Scene::new()
        .relay(["--fault", &format!("mail above={most}/s close 421 4.7.0 too fast, slow down")])
        .job(&retry)
        .recipients(&list("a", count));
    scene.send().exit(Exit::Done);
    assert!(ledger_says(&scene).values().all(|outcome| outcome == "accepted"));
    let times = times(&scene);
    assert_eq!(times.len(), count);
    let settled = &times[count * 2 / 3..];
    let seconds = (settled[settled.len() - 1].0 - settled[0].0) as f64 / 1e6;
    let pace = (settled.len() - 1) as f64 / seconds;
    // How near it comes is shown with a clock of its own in `submit::pace`: here a machine that is busy with other
    // tests bunches what was sent evenly, and the relay says no to the bunches.
    let least = if long() { 0.9 } else { 0.5 };
    assert!((least * f64::from(most)..=f64::from(most)).contains(&pace), "{pace} a second of {most}");
}
