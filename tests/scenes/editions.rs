//! A recipient gets each edition once, whatever is run how often.

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, numbered};

#[test]
fn the_same_list_twice_sends_nothing_the_second_time() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(25));
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 25);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 25);
}

#[test]
fn new_rows_are_sent_and_removed_ones_are_not() {
    // u1 is held back by the relay and leaves the list before it is tried again.
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* reply 450 4.2.1 later"])
        .job(&SHORT.replace("stay: 60s", "stay: 0s"))
        .recipients(&numbered(3));
    scene.send().exit(Exit::Again);
    let scene =
        scene.recipients("email,name\nu0@example.org,Name 0\nu2@example.org,Name 2\nu9@example.org,Name 9\n");
    scene.send().exit(Exit::Done).says(&["u1@example.org"]);
    let expected = ["u0", "u2", "u9"].map(|name| (format!("{name}@example.org"), 1));
    assert_eq!(scene.its_relay().received().into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_key_that_is_spelled_otherwise_by_now_is_the_same() {
    let job = SHORT.replace("{file: list.csv}", "{file: list.csv, key: \"{{ id }}\"}");
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&job)
        .recipients("id,email,name\nAda@Example.org,ada@example.org,A\ncaf\u{e9},b@example.org,B\n");
    scene.run("run --yes --only ADA@example.org job.yaml").exit(Exit::Done).says(&["accepted        1"]);
    scene.send().exit(Exit::Done);
    let scene =
        scene.recipients("id,email,name\nada@example.org,ada@example.org,A\ncafe\u{301},b@example.org,B\n");
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 2);
    scene.run("report job.yaml --letter cafe\u{301}").exit(Exit::Done).says(&["b@example.org"]);
    scene.run("requeue job.yaml --only ADA@example.org --outcome accepted --yes").exit(Exit::Done);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 3);
}

#[test]
fn another_edition_is_another_letter() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.send().exit(Exit::Done);
    let scene = scene.job(&SHORT.replace("edition: \"1\"", "edition: \"2\""));
    scene.send().exit(Exit::Done);
    let letters = scene.its_relay().letters();
    assert_eq!(letters.len(), 6);
    let mut ids: Vec<_> = letters.into_iter().map(|letter| letter.message_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "each letter has a Message-ID of its own");
}

#[test]
fn an_unfinished_edition_under_another_name_stops_the_run() {
    let held = SHORT.replace("stay: 60s", "stay: 0s");
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* first=1 reply 450 4.2.1 later"])
        .job(&held)
        .recipients(&numbered(3));
    scene.send().exit(Exit::Again);
    let scene = scene.job(&held.replace("edition: \"1\"", "edition: \"2\""));
    scene.send().exit(Exit::Job).says(&["--edition", "--new-edition"]);
    assert_eq!(scene.its_relay().letters().len(), 2, "nothing of the new edition");
    // Deferred for a second, a fifth more or less, in whole seconds: then the old edition is due.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    scene.run("run --yes --edition 1 job.yaml").exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 3);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 6);
}

#[test]
fn a_finished_edition_whose_letter_has_changed_asks() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.send().exit(Exit::Done);
    let scene = scene.job(&SHORT.replace("all is well", "all is better"));
    scene.send().exit(Exit::Job).says(&["edition"]);
    // What the reader does not see may change.
    let scene = scene.job(&SHORT.replace("tls: none", "tls: none, connections: 2"));
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 3);
}

#[test]
fn a_trial_does_not_count() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.run("run --sandbox --yes job.yaml").exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 0);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 3);
}

#[test]
fn without_a_terminal_a_real_send_needs_a_yes() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.run("run job.yaml").exit(Exit::Usage).says(&["--yes"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}
