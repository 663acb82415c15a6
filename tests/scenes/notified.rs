//! `notify`: who is told how a run ended, and how often.

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, numbered};

fn telling(when: &str) -> String {
    SHORT.replace("kind: send", &format!("kind: send\nnotify: {{to: boss@example.com, when: {when}}}"))
}

fn told(scene: &Scene) -> usize {
    scene.its_relay().received().get("boss@example.com").copied().unwrap_or(0)
}

#[test]
fn an_edition_that_is_finished_is_told_once() {
    let scene = Scene::new().relay([] as [&str; 0]).job(&telling("finished")).recipients(&numbered(3));
    scene.run("run --sandbox job.yaml").exit(Exit::Done);
    scene.run("run --yes --to me@example.com job.yaml").exit(Exit::Done);
    assert_eq!(told(&scene), 0, "trials tell nobody");
    scene.run("run --yes --limit 1 job.yaml").exit(Exit::Done);
    assert_eq!(told(&scene), 0, "not yet");
    scene.send().exit(Exit::Done);
    assert_eq!(told(&scene), 1);
    scene.send().exit(Exit::Done);
    let scene = scene.recipients(&numbered(4));
    scene.send().exit(Exit::Done);
    assert_eq!(told(&scene), 1, "once for an edition");
    assert_eq!(scene.its_relay().received().get("u3@example.org"), Some(&1));
}

#[test]
fn trouble_is_told_and_nothing_else() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* reply 550 5.1.1 no such user"])
        .job(&telling("trouble"))
        .recipients("email,name\nu0@example.org,Name 0\n");
    scene.send().exit(Exit::Done);
    assert_eq!(told(&scene), 0, "all is well");
    let scene =
        scene.job(&telling("trouble").replace("edition: \"1\"", "edition: \"2\"")).recipients(&numbered(2));
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(told(&scene), 1);
}

#[test]
fn what_is_left_for_later_is_told_and_the_end_as_well() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* first=1 reply 450 4.2.1 later"])
        .job(&telling("finished").replace("stay: 60s", "stay: 0s"))
        .recipients(&numbered(2));
    scene.send().exit(Exit::Again);
    assert_eq!(told(&scene), 1, "stopped before its end");
    let scene = scene.job(&telling("finished"));
    scene.send().exit(Exit::Done);
    assert_eq!(told(&scene), 2, "finished");
}

#[test]
fn a_letter_that_nobody_takes_changes_nothing_and_may_be_tried_again() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=boss@* first=1 reply 550 5.1.1 no such user"])
        .job(&telling("finished"))
        .recipients(&numbered(1));
    scene.send().exit(Exit::Done).says(&["notify", "boss@example.com", "no such user"]);
    let scene = scene.recipients(&numbered(2));
    scene.send().exit(Exit::Done).never_says(&["no such user"]);
    assert_eq!(told(&scene), 1);
}
