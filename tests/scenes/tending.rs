//! Looking into a ledger and tending it: report, requeue, forget, prune, stop, pause, resume.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use postroom::exit::Exit;
use serde_json::Value as Json;

use crate::scene::{Accepted, SHORT, Scene, finish, numbered};

#[test]
fn the_report_tells_everybody_and_one() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* reply 550 5.1.1 no such user"])
        .job(SHORT)
        .recipients(&format!("{}u0@example.org,Name 0\nnobody,Bad\n", numbered(4)));
    scene.run("report job.yaml").exit(Exit::NoInput).says(&["nothing was run here yet"]);
    scene.send().exit(Exit::SomeFailed).says(&["u1@example.org", "550 5.1.1 no such user", "row 6"]);

    let table = scene.run("report job.yaml").exit(Exit::Done);
    assert!(table.stderr.is_empty(), "the answer is on stdout: {}", table.stderr);
    table.says(&["accepted        3", "refused         1", "finished", "550 5.1.1 no such user"]);
    let document = scene.run("report job.yaml --format json").exit(Exit::Done).stdout;
    let document: Json = serde_json::from_str(&document).expect("one JSON document");
    assert_eq!(document["counts"]["accepted"], 3);
    assert_eq!(document["recipients"].as_array().map(Vec::len), Some(4));
    let lines = scene.run("report job.yaml --format csv --outcome refused").exit(Exit::Done).stdout;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("u1@example.org,refused,550,5.1.1 no such user"), "{lines}");

    // Several connections bring them in any order.
    let hers = |letter: &Accepted| letter.recipients.contains(&"u0@example.org".to_owned());
    let id = scene.its_relay().letters().into_iter().find(hers).expect("her letter").message_id;
    scene.run("report job.yaml --letter u0@example.org").exit(Exit::Done).says(&[&id, "Name 0", "accepted"]);
    scene.run("report job.yaml --letter u77@example.org").exit(Exit::SomeFailed);
    scene.run("report job.yaml --edition 7").exit(Exit::Usage).says(&["there is 1"]);
}

#[test]
fn who_is_put_back_gets_it_and_nobody_else() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* first=1 reply 550 5.1.1 no such user"])
        .job(SHORT)
        .recipients(&numbered(3));
    scene.send().exit(Exit::SomeFailed);
    // Nobody is there to ask.
    scene.run("requeue job.yaml --outcome refused").exit(Exit::Usage).says(&["--yes"]);
    scene.run("requeue job.yaml --outcome refused --yes").exit(Exit::Done).says(&["refused   1"]);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().received()["u1@example.org"], 1);
    assert_eq!(scene.its_relay().letters().len(), 3);

    // Who got it gets it again only when that is asked for by its name, and then as another letter.
    scene.run("requeue job.yaml --only u2@example.org --yes").exit(Exit::Done).says(&["left as it is"]);
    scene.run("requeue job.yaml --only u2@example.org --outcome accepted --yes").exit(Exit::Done);
    scene.send().exit(Exit::Done);
    let mut ids: Vec<String> =
        scene.its_relay().letters().into_iter().map(|letter| letter.message_id).collect();
    assert_eq!((ids.len(), scene.its_relay().received()["u2@example.org"]), (4, 2));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "another letter has another Message-ID");
}

#[test]
fn who_is_put_back_and_fails_again_does_not_make_nobody_of_the_others() {
    let job = SHORT.replace("kind: send", "kind: send\nattachments: [\"f/{{ email }}.txt\"]");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(2));
    let scene = scene.file("f/u0@example.org.txt", "of u0\n");
    scene.send().exit(Exit::SomeFailed);
    scene.run("requeue --yes --outcome failed job.yaml").exit(Exit::Done);
    scene.send().exit(Exit::SomeFailed).says(&["nothing left to send"]).never_says(&["nobody"]);
}

#[test]
fn who_left_the_suppress_list_is_put_back() {
    let job = SHORT.replace("{file: list.csv}", "{file: list.csv, suppress: stop.txt}");
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&job)
        .recipients(&numbered(4))
        .file("stop.txt", "u1@example.org\nu2@example.org\n");
    scene.send().exit(Exit::Done).says(&["suppressed 2"]);
    let scene = scene.file("stop.txt", "u2@example.org\n");
    scene.send().exit(Exit::Done).says(&["suppressed 2"]);
    scene.run("requeue job.yaml --outcome skipped --yes").exit(Exit::Done).says(&["skipped   2"]);
    scene.send().exit(Exit::Done).says(&["accepted        3", "suppressed 1"]);
    scene.run("requeue job.yaml --only u2@example.org --yes").exit(Exit::Done).says(&["skipped   1"]);
    scene.send().exit(Exit::Done);
    let received: Vec<_> = scene.its_relay().received().into_iter().collect();
    assert_eq!(received, ["u0", "u1", "u3"].map(|name| (format!("{name}@example.org"), 1)));
}

/// A deferral is over when the letter is: the report of each address says so.
#[test]
fn a_copy_that_was_deferred_and_then_suppressed_is_told_as_skipped() {
    let job = SHORT
        .replace("{file: list.csv}", "{file: list.csv, suppress: stop.txt, cc: [\"{{ copy }}\"]}")
        .replace("stay: 60s", "stay: 0s");
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=boss@* first=1 reply 450 4.2.1 later"])
        .job(&job)
        .recipients("email,name,copy\nu0@example.org,A,boss@example.org\n")
        .file("stop.txt", "");
    scene.send().exit(Exit::Again);
    let report = "report job.yaml --format csv";
    scene.run(report).says(&["boss@example.org,deferred,450"]);
    let scene = scene.file("stop.txt", "boss@example.org\n");
    // A wait of 1 s is spread by a fifth, and the ledger keeps whole seconds, rounded up.
    std::thread::sleep(Duration::from_secs(3));
    scene.send().exit(Exit::Done);
    scene.run(report).says(&[
        "accepted,1,suppressed,",
        "boss@example.org,skipped,450",
        "u0@example.org,accepted,250",
    ]);
    scene.run("report job.yaml --letter u0@example.org").says(&["because     suppressed", "skipped   boss@"]);
}

#[test]
fn who_is_put_back_in_an_edition_that_was_left_goes_with_it() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u0@* first=1 reply 550 5.1.1 no such user"])
        .job(SHORT)
        .recipients(&numbered(2));
    scene.run("run --yes --limit 1 job.yaml").exit(Exit::SomeFailed);
    let scene = scene.job(&SHORT.replace("edition: \"1\"", "edition: \"2\""));
    scene.run("run --yes --new-edition job.yaml").exit(Exit::Done);
    scene
        .run("requeue job.yaml --edition 1 --outcome refused --yes")
        .exit(Exit::Done)
        .says(&["`postroom run --edition 1` sends them"]);
    scene.run("run --yes --edition 1 job.yaml").exit(Exit::Done);
    assert_eq!(scene.its_relay().received()["u0@example.org"], 2);
}

#[test]
fn a_forgotten_person_leaves_no_trace_and_is_not_mailed_again() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.send().exit(Exit::Done);
    scene.run("forget u1@example.org --job job.yaml --yes").exit(Exit::Done).says(&["1 letter"]);
    for entry in fs::read_dir(scene.path(".postroom")).expect("the ledger's folder") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        let found = bytes.windows(14).any(|window| window == b"u1@example.org");
        assert!(!found, "{} still has the address", path.display());
    }
    scene.run("report job.yaml").exit(Exit::Done).says(&["accepted        3"]);
    // The list still names her, and grows: only who is new gets a letter.
    let scene = scene.recipients(&numbered(4));
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().received()["u1@example.org"], 1);
    assert_eq!(scene.its_relay().letters().len(), 4);
}

#[test]
fn a_pruned_edition_is_not_sent_a_second_time() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(2));
    scene.send().exit(Exit::Done);
    scene.run("prune --older 1d --job job.yaml --yes").exit(Exit::Done).says(&["no edition"]);
    std::thread::sleep(Duration::from_millis(2100));
    scene.run("prune --older 1s --job job.yaml --yes").exit(Exit::Done).says(&["1 edition with 2 letters"]);
    scene.send().exit(Exit::Job).says(&["has been pruned"]);
    assert_eq!(scene.its_relay().letters().len(), 2);
}

#[test]
fn a_run_is_stopped_and_a_paused_job_waits() {
    let slow = SHORT.replace("tls: none,", "tls: none, rate: 10/s,");
    let scene = Scene::new().relay([] as [&str; 0]).job(&slow).recipients(&numbered(40));
    let start = || {
        let mut command = scene.command(["run", "--yes", "job.yaml"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("a run")
    };
    let until = |enough: usize| {
        let started = Instant::now();
        while scene.its_relay().letters().len() < enough {
            assert!(started.elapsed() < Duration::from_secs(60), "the run sends nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let child = start();
    until(3);
    scene.send().exit(Exit::Again).says(&["is being run already by process"]);
    scene.run("stop job.yaml").exit(Exit::Done).says(&["told to stop"]);
    let stopped = finish(child, "run --yes job.yaml");
    assert_ne!(stopped.code, Some(0), "{}", stopped.stderr);
    let sent = scene.its_relay().letters().len();
    assert!(sent < 40, "{sent} were sent, nothing was left to stop");
    scene.run("stop job.yaml").exit(Exit::Done).says(&["not being run"]);

    // A paused job is begun and waits; nothing goes out until it is resumed.
    scene.run("pause job.yaml").exit(Exit::Done);
    let child = start();
    std::thread::sleep(Duration::from_millis(1500));
    let while_paused = scene.its_relay().letters().len();
    scene.run("resume job.yaml").exit(Exit::Done).says(&["goes on"]);
    finish(child, "run --yes job.yaml").exit(Exit::Done);
    assert_eq!(while_paused, sent, "nothing was sent while the job was paused");
    let received = scene.its_relay().received();
    assert_eq!((received.len(), received.values().max()), (40, Some(&1)));
}
