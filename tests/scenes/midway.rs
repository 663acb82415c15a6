//! In the middle of an edition: what changes while letters go out, and runs that send a part of it.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, finish, ledger_says, numbered};

/// Waits until the relay has accepted so many letters.
fn until(scene: &Scene, enough: usize) {
    let started = Instant::now();
    while scene.its_relay().letters().len() < enough {
        assert!(started.elapsed() < Duration::from_secs(60), "the run sends nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A list that comes through a pipe belongs to the edition that goes on with it, and to no other.
#[test]
fn a_new_edition_takes_in_its_own_piped_list() {
    let job = SHORT.replace("{file: list.csv}", "{file: \"-\", format: csv}");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job);
    let piped = |scene: &Scene, line: &str, list: &str| {
        let mut child = scene.command(line.split(' ')).stdin(Stdio::piped()).spawn().expect("a run");
        let _ = child.stdin.take().expect("a pipe").write_all(list.as_bytes());
        finish(child, line)
    };
    piped(&scene, "run --yes --limit 3 job.yaml", &numbered(5)).exit(Exit::Done);
    let scene = scene.job(&job.replace("edition: \"1\"", "edition: \"2\""));
    piped(&scene, "run --yes job.yaml", &numbered(5)).exit(Exit::Job).says(&["--new-edition"]);
    piped(&scene, "run --yes --new-edition job.yaml", &numbered(4)).exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 7);
    // The edition that was left has its list still.
    piped(&scene, "run --yes --edition 1 job.yaml", "").exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 9);
    // A trial that is over makes room for the next, whose list is its own.
    for _ in 0..2 {
        piped(&scene, "run --yes --to me@example.org --limit 1 job.yaml", &numbered(2)).exit(Exit::Done);
    }
    assert_eq!(scene.its_relay().letters().len(), 11);
}

/// By another key everybody would be new.
#[test]
fn another_key_is_a_change_and_mails_nobody_again() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(4));
    scene.run("run --yes --limit 2 job.yaml").exit(Exit::Done);
    let scene = scene.job(&SHORT.replace("{file: list.csv}", "{file: list.csv, key: \"{{ name }}\"}"));
    scene.send().exit(Exit::Job).says(&[
        "recipients.key",
        "--accept-changes",
        "everybody gets a letter again",
    ]);
    assert_eq!(scene.its_relay().letters().len(), 2);
    let scene = scene.job(SHORT);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 4);
}

#[test]
fn who_has_left_the_list_gets_no_letter_however_the_last_run_ended() {
    let job = SHORT.replace("tls: none,", "tls: none, unsure: resend,");
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u2@* first=1 reply 550 5.1.1 no"])
        .job(&job)
        .recipients(&numbered(3))
        .env("POSTROOM_FAILPOINT", "ledger.mark.after");
    scene.send();
    assert!(ledger_says(&scene).values().any(|state| state == "sending"), "{:?}", ledger_says(&scene));
    let scene =
        scene.env("POSTROOM_FAILPOINT", "").recipients("email,name\nu1@example.org,B\nu2@example.org,C\n");
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["u1@example.org"]);
    // Put back, and gone from the list before the run.
    scene.run("requeue job.yaml --outcome refused --yes").exit(Exit::Done);
    let scene = scene.recipients("email,name\nu1@example.org,B\n");
    scene.send();
    assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["u1@example.org"]);
}

#[test]
fn a_part_of_a_list_that_is_deferred_is_not_done() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* reply 450 4.2.1 later"])
        .job(SHORT)
        .recipients(&numbered(4));
    scene.run("run --yes --limit 2 job.yaml").exit(Exit::Again);
    scene.run("run --yes --limit 1 --only u3@example.org job.yaml").exit(Exit::Again);
}

#[test]
fn who_is_asked_for_alone_is_tried_again_and_nobody_else() {
    let scene = Scene::new()
        .relay([
            "--fault",
            "rcpt if=u1@* first=1 reply 450 4.2.1 later",
            "--fault",
            "rcpt if=u2@* reply 450 4.2.1 later",
        ])
        .job(&SHORT.replace("stay: 60s", "stay: 0s"))
        .recipients(&numbered(4));
    scene.run("run --yes --only u2@example.org job.yaml").exit(Exit::Again);
    let scene = scene.job(SHORT);
    scene.run("run --yes --only u1@example.org job.yaml").exit(Exit::Done);
    assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["u1@example.org"]);
    let states: Vec<String> = ledger_says(&scene).into_values().collect();
    assert_eq!(states, ["pending", "accepted", "deferred", "pending"]);
}

/// More keys than are claimed at once, some of them done already.
#[test]
fn every_one_of_many_keys_is_sent() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(700));
    scene.run("run --yes --limit 1 job.yaml").exit(Exit::Done);
    let only: String = (0..650).map(|n| format!(" --only u{n}@example.org")).collect();
    scene.run(&format!("run --yes{only} job.yaml")).exit(Exit::Done);
    assert_eq!(scene.its_relay().received().len(), 650);
}

/// What is said to a run while it takes in its list is meant for it.
#[test]
fn a_run_can_be_stopped_while_it_takes_in_its_list() {
    let job = SHORT.replace("{file: list.csv}", "{file: \"-\", format: csv}");
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&job)
        .file("other.yaml", &SHORT.replace("name: short", "name: other"));
    let scene = scene.recipients(&numbered(3));
    let mut child = scene.command(["run", "--yes", "job.yaml"]).stdin(Stdio::piped()).spawn().expect("a run");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(numbered(2000).as_bytes()).expect("a part of the list");
    std::thread::sleep(Duration::from_millis(800));
    // Meanwhile the ledger is anybody's.
    let started = Instant::now();
    scene.run("run --yes other.yaml").exit(Exit::Done);
    scene.run("stop job.yaml").exit(Exit::Done);
    assert!(started.elapsed() < Duration::from_secs(15), "the list holds the ledger");
    drop(stdin);
    finish(child, "run").exit(Exit::Again);
    assert_eq!(scene.its_relay().letters().len(), 3);
}

#[test]
fn who_is_suppressed_in_the_middle_of_a_run_is_not_written_to() {
    let job = SHORT
        .replace("tls: none,", "tls: none, rate: 4/s,")
        .replace("{file: list.csv}", "{file: list.csv, suppress: stop.txt}");
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&job)
        .recipients(&numbered(30))
        .file("stop.txt", "u3@example.org\n");
    let child = scene.command(["run", "--yes", "--trace", "job.yaml"]).spawn().expect("a run");
    until(&scene, 2);
    // Written aside and put in its place, as a careful program does it.
    std::fs::write(scene.path("stop.new"), "u3@example.org\nU29@Example.org\n").expect("a file");
    std::fs::rename(scene.path("stop.new"), scene.path("stop.txt")).expect("a file in its place");
    // Not only was nothing accepted: the address is nowhere in the dialogue.
    finish(child, "run --yes --trace job.yaml")
        .exit(Exit::Done)
        .says(&["RCPT TO:<u28@example.org>"])
        .never_says(&["TO:<u29@example.org>", "TO:<u3@example.org>"]);
    let received = scene.its_relay().received();
    assert_eq!(received.len(), 28);
    assert!(!received.contains_key("u3@example.org") && !received.contains_key("u29@example.org"));
}

/// Under a slow rate the next letter is ready long before its time. It is called back.
#[test]
fn what_waits_for_its_time_is_called_back() {
    let job = SHORT
        .replace("tls: none,", "tls: none, rate: 20/m,")
        .replace("{file: list.csv}", "{file: list.csv, suppress: stop.txt, cc: [\"{{ copy }}\"]}");
    let list = "email,name,copy\nu0@example.org,A,\nu1@example.org,B,\nu2@example.org,C,c2@example.org\n\
                u3@example.org,D,c3@example.org\nu4@example.org,E,\n";
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(list).file("stop.txt", "");
    let child = scene.command(["run", "--yes", "--trace", "job.yaml"]).spawn().expect("a run");
    until(&scene, 1);
    // The next one, and the copy of the one behind it.
    std::fs::write(scene.path("stop.txt"), "u1@example.org\nc2@example.org\n").expect("a file");
    until(&scene, 2);
    scene.run("pause job.yaml").exit(Exit::Done);
    std::thread::sleep(Duration::from_millis(4_500));
    assert_eq!(scene.its_relay().letters().len(), 2, "a paused run sends what was ready");
    scene.run("resume job.yaml").exit(Exit::Done);
    until(&scene, 3);
    // Told to stop, it does not wait for the time of the next letter.
    let told = Instant::now();
    scene.run("stop job.yaml").exit(Exit::Done);
    let run = finish(child, "run --yes --trace job.yaml");
    assert!(told.elapsed() < Duration::from_millis(2_500), "{:?} to stop", told.elapsed());
    let never = ["TO:<u1@example.org>", "TO:<c2@example.org>"];
    run.exit(Exit::Again).says(&["pending         1", "suppressed 1"]).never_says(&never);
    scene.run("run --yes --trace job.yaml").exit(Exit::Done).never_says(&never);
    let got: Vec<_> = scene.its_relay().received().into_iter().collect();
    let once = |name: &str| (format!("{name}@example.org"), 1);
    assert_eq!(got, ["c3", "u0", "u2", "u3", "u4"].map(once));
}

#[test]
fn a_run_that_is_paused_in_the_middle_goes_on_where_it_was() {
    let job = SHORT.replace("tls: none,", "tls: none, rate: 10/s,");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(40));
    let child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
    until(&scene, 3);
    scene.run("pause job.yaml").exit(Exit::Done);
    // What is on its way arrives; then there is silence.
    let (mut last, mut quiet) = (0, 0);
    let started = Instant::now();
    while quiet < 10 {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not pause");
        std::thread::sleep(Duration::from_millis(200));
        let now = scene.its_relay().letters().len();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    assert!(last < 40, "{last} were sent, nothing was left to pause");
    scene.run("resume job.yaml").exit(Exit::Done);
    finish(child, "run --yes job.yaml").exit(Exit::Done);
    let received = scene.its_relay().received();
    assert_eq!((received.len(), received.values().max()), (40, Some(&1)));
}

/// Whom `where` left out may be meant by now, though the list is the same.
#[test]
fn a_list_is_looked_at_again_when_vars_have_changed() {
    let job =
        SHORT.replace("{file: list.csv}", "{file: list.csv, where: name in wanted}\nvars_file: vars.json");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(4));
    let scene = scene.file("vars.json", r#"{"wanted": ["Name 0", "Name 1"]}"#);
    scene.run("run --yes --limit 1 job.yaml").exit(Exit::Done).says(&["2 filtered"]);
    let scene = scene.file("vars.json", r#"{"wanted": ["Name 0", "Name 1", "Name 3"]}"#);
    scene.send().exit(Exit::Job).says(&["vars (changed)"]);
    scene.run("run --yes --accept-changes job.yaml").exit(Exit::Done).says(&["1 filtered"]);
    let received: Vec<_> = scene.its_relay().received().into_iter().collect();
    assert_eq!(received, ["u0", "u1", "u3"].map(|name| (format!("{name}@example.org"), 1)));
}

/// What is sent then nobody would ever know of.
#[test]
fn a_ledger_that_is_taken_away_ends_the_run() {
    for taken in ["ledger.db", "ledger.db-wal"] {
        let job = SHORT.replace("tls: none,", "tls: none, rate: 20/s,");
        let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(200));
        let child = scene.command(["run", "--yes", "job.yaml"]).spawn().expect("a run");
        until(&scene, 5);
        std::fs::rename(scene.path(".postroom").join(taken), scene.path("taken")).expect("taken away");
        finish(child, "run --yes job.yaml").exit(Exit::Io).says(&["was removed or replaced"]);
        let sent = scene.its_relay().letters().len();
        assert!(sent < 100, "{sent} were sent without {taken}");
    }
}

#[test]
fn a_list_from_standard_input_is_whole_or_nothing_and_read_once() {
    let job = SHORT.replace("file: list.csv", "file: \"-\"").replace("stay: 60s", "stay: 0s");
    let scene = Scene::new().relay(["--fault", "rcpt if=u1@* first=1 reply 450 4.2.1 later"]).job(&job);
    let list = r#"[{"email": "u0@example.org", "name": "A"}, {"email": "u1@example.org", "name": "B"}]"#;
    scene.send_piped(&list[..list.len() - 20]).exit(Exit::Data);
    assert_eq!(scene.its_relay().letters().len(), 0, "a list that breaks off is no list");
    scene.send_piped(list).exit(Exit::Again);
    assert_eq!(scene.its_relay().letters().len(), 1);
    // The rest of an edition needs no list: it was frozen.
    let scene = scene.job(&job.replace("stay: 0s", "stay: 60s"));
    let other = r#"[{"email": "u9@example.org", "name": "C"}]"#;
    scene.send_piped(other).exit(Exit::Done).says(&["goes on with the list it was begun with"]);
    let received: Vec<_> = scene.its_relay().received().into_iter().collect();
    assert_eq!(received, [("u0@example.org".to_owned(), 1), ("u1@example.org".to_owned(), 1)]);
    // Then it is the edition's list.
    scene.send_piped(other).exit(Exit::Done).never_says(&["goes on with"]);
    assert_eq!(scene.its_relay().received().get("u9@example.org"), Some(&1));
}

#[test]
fn a_changed_letter_is_shown_and_goes_on_when_that_is_wanted() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.run("run --yes --limit 1 job.yaml").exit(Exit::Done);
    let scene = scene.job(&SHORT.replace("all is well", "all is better"));
    scene.send().exit(Exit::Job).says(&["all is well", "all is better", "--accept-changes"]);
    assert_eq!(scene.its_relay().letters().len(), 1);
    scene.run("run --yes --accept-changes job.yaml").exit(Exit::Done);
    let received = scene.its_relay().received();
    assert_eq!((received.len(), received.values().max()), (3, Some(&1)), "who has got it gets no other");
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 3);
}

#[test]
fn a_part_of_a_list_is_sent_first_and_the_rest_later() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(10));
    scene.run("run --yes --only u7@example.org --only u2@example.org job.yaml").exit(Exit::Done);
    let names = |scene: &Scene| scene.its_relay().received().into_keys().collect::<Vec<_>>();
    assert_eq!(names(&scene), ["u2@example.org", "u7@example.org"]);
    scene.run("run --yes --only nobody@example.org job.yaml").exit(Exit::Usage).says(&["nobody@example.org"]);
    scene.run("run --yes --limit 3 job.yaml").exit(Exit::Done);
    assert_eq!(names(&scene).len(), 5);
    scene.run("run --yes --report end.csv job.yaml").exit(Exit::Done);
    let received = scene.its_relay().received();
    assert_eq!((received.len(), received.values().max()), (10, Some(&1)));
    // The report is that of the ledger, and nothing half written lies beside it.
    let mut report = csv::Reader::from_path(scene.path("end.csv")).expect("a report");
    assert_eq!(report.records().filter(|record| record.is_ok()).count(), 10);
    assert!(!scene.path("end.csv.part").exists());
    assert!(ledger_says(&scene).values().all(|outcome| outcome == "accepted"));
    scene.run("run --yes --report end.json job.yaml").exit(Exit::Done);
    let text = std::fs::read_to_string(scene.path("end.json")).expect("a report");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["counts"]["accepted"], 10);
}
