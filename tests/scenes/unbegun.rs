//! Runs that are interrupted before anything was begun: while the list comes, at the question, while the first connection
//! is waited for. Each ends at once, and nothing was sent.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postroom::exit::Exit;
use rustix::process::Signal;
use rustix::pty::OpenptFlags;

use crate::scene::{Run, SHORT, Scene, finish, ledger_says, numbered};

const SIGNALS: [(Signal, Exit); 3] =
    [(Signal::INT, Exit::Interrupted), (Signal::TERM, Exit::Terminated), (Signal::HUP, Exit::HungUp)];

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("it runs");
}

/// It was told to end, and does so long before any timeout.
#[track_caller]
fn soon(child: Child, line: &str) -> Run {
    let begun = Instant::now();
    let run = finish(child, line);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    run
}

/// A relay that takes connections and says nothing, or says nothing to EHLO.
fn silent(stage: &str) -> Scene {
    let scene = Scene::new().relay(["--fault", &format!("{stage} hang")]);
    scene.job(SHORT).recipients(&numbered(20))
}

/// Waits until the relay has somebody to be silent to.
fn until_it_waits(scene: &Scene) {
    let begun = Instant::now();
    while scene.its_relay().events("fault").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody comes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_relay_that_says_nothing_holds_nobody_who_wants_to_stop() {
    for (stage, (signum, exit)) in ["connect", "helo", "helo"].into_iter().zip(SIGNALS) {
        let scene = silent(stage);
        let child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
        until_it_waits(&scene);
        signal(&child, signum);
        soon(child, "run --yes job.yaml").exit(exit).says(&["nothing more was sent"]);
        let outcomes = ledger_says(&scene);
        assert!(
            outcomes.len() == 20 && outcomes.values().all(|outcome| outcome == "pending"),
            "{outcomes:?}"
        );
    }
}

#[test]
fn a_relay_that_says_nothing_is_left_when_stop_is_said() {
    let scene = silent("connect");
    let child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
    until_it_waits(&scene);
    scene.run("stop job.yaml").exit(Exit::Done);
    soon(child, "run --yes job.yaml").exit(Exit::Again).says(&["stopped by `postroom stop`"]);
}

#[test]
fn a_check_waits_for_a_relay_that_is_slow() {
    let scene = Scene::new().relay(["--fault", "connect delay 2000"]).recipients(&numbered(20));
    let scene = scene.job(&SHORT.replace("tls: none,", "tls: none, timeouts: {connect: 1s},"));
    scene.run("check --connect job.yaml").exit(Exit::Done).says(&["answers and lets us in"]);
}

#[test]
fn a_list_that_does_not_come_to_its_end_is_not_waited_for() {
    for (signum, exit) in SIGNALS {
        let job = SHORT.replace("file: list.csv", "file: '-', format: csv");
        let scene = Scene::new().relay([] as [&str; 0]).job(&job);
        let child = scene.command(["run", "--yes", "job.yaml"]).stdin(Stdio::piped()).spawn().expect("a run");
        let begun = Instant::now();
        while !scene.path(".postroom").exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no ledger is begun");
            std::thread::sleep(Duration::from_millis(20));
        }
        signal(&child, signum);
        soon(child, "run --yes job.yaml").exit(exit);
    }
}

#[test]
fn at_the_question_a_signal_is_a_no() {
    for (signum, exit) in SIGNALS {
        let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(20));
        let (mut terminal, ours) = terminal();
        let child = scene
            .command(["run", "job.yaml"])
            .stdin(ours.try_clone().expect("a terminal"))
            .stderr(ours)
            .spawn()
            .expect("a run");
        shows_until(&mut terminal, "Send? [y/N] ");
        signal(&child, signum);
        soon(child, "run job.yaml").exit(exit);
        let said = shows_until(&mut terminal, "sent\r\n");
        assert_eq!(said, "\r\npostroom: stopped: nothing more was sent\r\n");
        assert_eq!(scene.its_relay().letters().len(), 0);
    }
}

/// A terminal: where we look at it, and what the run has of it.
fn terminal() -> (File, File) {
    let far = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    rustix::pty::grantpt(&far).and_then(|()| rustix::pty::unlockpt(&far)).expect("a terminal");
    let name = rustix::pty::ptsname(&far, Vec::new()).expect("its name");
    let near = File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("it opens");
    (File::from(far), near)
}

/// What it shows, up to these words.
fn shows_until(terminal: &mut File, words: &str) -> String {
    let (mut shown, mut space) = (String::new(), [0; 4096]);
    while !shown.ends_with(words) {
        let count = terminal.read(&mut space).expect("a terminal can be read");
        shown.push_str(&String::from_utf8_lossy(&space[..count]));
    }
    shown
}
