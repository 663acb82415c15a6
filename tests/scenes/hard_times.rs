//! A disk that is full or read-only, two runs at once, a list that changes while it is read, a clock
//! that was wrong: nothing is sent that is not recorded, and a later run finishes.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use postroom::exit::Exit;

use crate::scene::{POSTROOM, SHORT, Scene, finish, ledger_says, numbered};

/// A small disk of its own where a scene's ledger lies; taken away at the end.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// `None` where the machine does not let us mount one, which in CI it must.
    fn mount(scene: &Scene, size: &str) -> Option<Disk> {
        let place = scene.path(".postroom");
        fs::create_dir(&place).expect("a folder");
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Disk { place });
        }
        assert!(std::env::var_os("CI").is_none(), "a small tmpfs is to be mounted, as root");
        eprintln!("LEFT OUT: a small tmpfs cannot be mounted here");
        None
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.place).status();
        assert!(status.expect("mount starts").success(), "remount,{how}");
    }

    /// Fills it to the last byte; the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.place.join("filler");
        let mut file = fs::File::create(&path).expect("a file");
        while file.write_all(&[b'x'; 1024]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a run that a failed test left may still have it.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

/// Everyone once, or unsure by the ledger and at most once.
fn everyone_once(scene: &Scene, count: usize, most_unsure: usize) {
    let (received, outcomes) = (scene.its_relay().received(), ledger_says(scene));
    assert_eq!(outcomes.len(), count);
    assert!(received.values().all(|times| *times == 1), "{received:?}");
    for (address, outcome) in &outcomes {
        let arrived = received.contains_key(address);
        assert!(outcome == "unsure" || (outcome == "accepted" && arrived), "{address}: {outcome}, {arrived}");
    }
    let unsure = outcomes.values().filter(|outcome| *outcome == "unsure").count();
    assert!(unsure <= most_unsure, "{unsure} are unsure, {most_unsure} at most");
}

#[test]
fn a_disk_that_fills_up_ends_the_run_and_a_later_one_finishes() {
    const DOUBT: usize = 10;
    let job = SHORT.replace("tls: none,", &format!("tls: none, rate: 300/s, doubt: {DOUBT},"));
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(1_000));
    let Some(disk) = Disk::mount(&scene, "48m") else { return };
    let child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
    let started = Instant::now();
    while scene.its_relay().letters().len() < 50 {
        assert!(started.elapsed() < Duration::from_secs(60), "the run sends nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    let filler = disk.fill();
    finish(child, "run --yes job.yaml").exit(Exit::Io).says(&["disk is full"]);
    let sent = scene.its_relay().letters().len();
    assert!(sent < 1_000, "the disk was full too late");
    // Still full: nothing more goes out.
    scene.send().exit(Exit::Io);
    assert_eq!(scene.its_relay().letters().len(), sent);
    fs::remove_file(filler).expect("room again");
    let run = scene.send();
    assert!(matches!(run.code, Some(0 | 1)), "{:?}: {}", run.code, run.stderr);
    everyone_once(&scene, 1_000, DOUBT);
}

#[test]
fn a_disk_that_is_full_from_the_start_sends_nothing() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(2_000));
    let Some(disk) = Disk::mount(&scene, "48m") else { return };
    let filler = disk.fill();
    scene.send().exit(Exit::Io);
    // Room for the ledger, and not for the list.
    fs::File::options()
        .write(true)
        .open(&filler)
        .and_then(|file| file.set_len((48 << 20) - (160 << 10)))
        .expect("a shorter file");
    scene.send().exit(Exit::Io).says(&["disk is full"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
    fs::remove_file(filler).expect("room again");
    scene.send().exit(Exit::Done);
    everyone_once(&scene, 2_000, 0);
}

#[test]
fn a_disk_that_is_read_only_sends_nothing() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(20));
    let Some(disk) = Disk::mount(&scene, "48m") else { return };
    disk.remount("ro");
    scene.send().exit(Exit::Io).says(&["ead-only"]);
    disk.remount("rw");
    scene.run("run --yes --limit 5 job.yaml").exit(Exit::Done);
    disk.remount("ro");
    scene.send().exit(Exit::Io).says(&["ead-only"]);
    assert_eq!(scene.its_relay().letters().len(), 5);
    for line in ["requeue job.yaml --outcome accepted --yes", "pause job.yaml"] {
        scene.run(line).exit(Exit::Io);
    }
    // What became of everyone can be read all the same.
    scene.run("report job.yaml").exit(Exit::Done).says(&["accepted        5"]);
    disk.remount("rw");
    scene.send().exit(Exit::Done);
    everyone_once(&scene, 20, 0);
}

#[test]
fn of_runs_begun_in_the_same_second_one_runs() {
    for _ in 0..3 {
        let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(300));
        let children: Vec<_> =
            (0..4).map(|_| scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run")).collect();
        let codes: Vec<_> =
            children.into_iter().map(|child| finish(child, "run --yes job.yaml").code).collect();
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 75))), "{codes:?}");
        everyone_once(&scene, 300, 0);
    }
}

#[test]
fn a_list_that_changes_while_it_is_read_reaches_everyone_once() {
    const FIRST: usize = 8_000;
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(FIRST));
    let child = scene.command(["run", "--yes", "--limit", "10", "job.yaml"]).spawn().expect("a run");
    let ledger = scene.path(".postroom/ledger.db");
    let started = Instant::now();
    while !ledger.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Appended in pieces, cut anywhere, by a program that exports a list.
    let all = numbered(FIRST + 300);
    let mut list = fs::File::options().append(true).open(scene.path("list.csv")).expect("the list");
    for piece in all.as_bytes()[numbered(FIRST).len()..].chunks(97) {
        list.write_all(piece).expect("a piece");
        std::thread::sleep(Duration::from_millis(2));
    }
    // A row that was cut is a bad one of the first run, and mended in the second.
    let run = finish(child, "run --yes --limit 10 job.yaml");
    assert!(matches!(run.code, Some(0 | 1)), "{:?}: {}", run.code, run.stderr);
    let run = scene.send();
    assert!(matches!(run.code, Some(0 | 1)), "{:?}: {}", run.code, run.stderr);
    let (received, outcomes) = (scene.its_relay().received(), ledger_says(&scene));
    for n in 0..FIRST + 300 {
        let address = format!("u{n}@example.org");
        assert_eq!(received.get(&address), Some(&1), "{address} is {:?}", outcomes.get(&address));
    }
}

#[test]
fn a_clock_that_was_wrong_puts_nobody_off_for_years() {
    let job = SHORT.replace("stay: 60s", "stay: 0s");
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* first=1 reply 450 4.2.1 later"])
        .job(&job)
        .recipients(&numbered(3));
    scene.send().exit(Exit::Again);
    // As if the first run had been begun under a clock ten years ahead.
    let ahead = 10 * 365 * 86_400;
    rusqlite::Connection::open(scene.path(".postroom/ledger.db"))
        .and_then(|ledger| {
            ledger.execute(
                "UPDATE deliveries SET next_attempt = next_attempt + ?1, first_attempt = first_attempt + ?1
                 WHERE state = 'd'",
                [ahead],
            )
        })
        .expect("the ledger is open to all");
    scene.send().exit(Exit::Done);
    everyone_once(&scene, 3, 0);
}

/// Waits until the relay has accepted so many letters.
fn until(scene: &Scene, enough: usize) {
    let started = Instant::now();
    while scene.its_relay().letters().len() < enough {
        assert!(started.elapsed() < Duration::from_secs(60), "the run sends nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_goes_on_though_nobody_listens_to_it() {
    let job = SHORT.replace("tls: none,", "tls: none, rate: 20/s,");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(60));
    let mut child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
    // As `postroom run … 2>&1 | head -1` does it.
    drop((child.stdout.take(), child.stderr.take()));
    until(&scene, 5);
    // That it is paused, and at last how it ended, is said to nobody.
    scene.run("pause job.yaml").exit(Exit::Done);
    std::thread::sleep(Duration::from_millis(1_200));
    scene.run("resume job.yaml").exit(Exit::Done);
    finish(child, "run --yes job.yaml").exit(Exit::Done);
    everyone_once(&scene, 60, 0);
}

#[test]
fn when_the_terminal_goes_away_everything_is_recorded() {
    let job = SHORT.replace("tls: none,", "tls: none, rate: 50/s,");
    let scene = Scene::new().relay(["--fault", "commit delay 200"]).job(&job).recipients(&numbered(100));
    let mut child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
    until(&scene, 5);
    drop((child.stdout.take(), child.stderr.take()));
    let hang_up = |child: &std::process::Child| {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
    };
    hang_up(&child);
    finish(child, "run --yes job.yaml").exit(Exit::HungUp);
    let outcomes = ledger_says(&scene);
    let sent = scene.its_relay().letters().len();
    assert!(sent < 100, "nothing was left to stop");
    assert_eq!(outcomes.values().filter(|outcome| *outcome == "accepted").count(), sent);
    assert!(
        outcomes.values().all(|outcome| matches!(outcome.as_str(), "accepted" | "pending")),
        "{outcomes:?}"
    );

    // Whoever says `nohup` means it.
    let mut command = Command::new("nohup");
    command.arg(POSTROOM).args(["run", "--yes", "job.yaml"]).current_dir(scene.path(""));
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nohup");
    until(&scene, sent + 5);
    hang_up(&child);
    finish(child, "nohup postroom run --yes job.yaml").exit(Exit::Done);
    everyone_once(&scene, 100, 0);
}
