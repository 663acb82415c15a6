//! `keep`: what exactly did this person get?

use std::path::Path;

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, letters_in, numbered};

fn keeping(what: &str) -> String {
    SHORT.replace("kind: send", &format!("kind: send\nkeep: {what}"))
}

/// The digest `report --letter` knows, and the file it names.
fn of_letter(scene: &Scene, key: &str) -> (Option<String>, Option<String>) {
    let run = scene.run(&format!("report job.yaml --format json --letter {key}")).exit(Exit::Done);
    let letter: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    let text = |name: &str| letter[name].as_str().map(str::to_owned);
    (text("digest"), text("kept"))
}

fn blake3_of(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).expect("a file")).to_hex().to_string()
}

#[test]
fn accepted_letters_are_kept_byte_for_byte_and_no_others() {
    let scene = Scene::new()
        .relay([
            "--fault",
            "rcpt if=u1@* reply 550 5.1.1 no such user",
            "--fault",
            "rcpt if=u2@* first=1 reply 450 4.2.1 later",
        ])
        .job(&keeping("sent/"))
        .recipients(&numbered(4));
    scene.send().exit(Exit::SomeFailed);
    let kept = letters_in(&scene.path("sent"));
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(!scene.path("sent/.aside").exists(), "nothing is left aside");
    for key in ["u0@example.org", "u2@example.org", "u3@example.org"] {
        let (digest, file) = of_letter(&scene, key);
        let file = std::path::PathBuf::from(file.expect("it is kept"));
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(file.starts_with(scene.path("sent/1")) && name.starts_with(&format!("{key}-")), "{name}");
        assert_eq!(digest, Some(blake3_of(&file)));
        let letters = scene.its_relay().letters();
        let received = letters.iter().find(|letter| letter.recipients == [key]).expect("the relay has it");
        assert_eq!(digest.as_ref(), Some(&received.hash), "what is kept is what the relay got");
    }
    let (_, none) = of_letter(&scene, "u1@example.org");
    assert_eq!(none, None, "it was refused");
    scene
        .run("report job.yaml --letter u0@example.org")
        .exit(Exit::Done)
        .says(&["kept", "sent/1/u0@example.org-"]);

    // Sent once more, it is a letter of its own, and both are kept.
    scene.run("requeue --yes --outcome accepted --only u0@example.org job.yaml").exit(Exit::Done);
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(letters_in(&scene.path("sent")).len(), 4);

    // A trial keeps nothing.
    scene.run("run --sandbox job.yaml").exit(Exit::Done);
    assert_eq!(letters_in(&scene.path("sent")).len(), 4);
}

#[test]
fn a_run_that_died_behind_the_answer_leaves_no_letter_without_its_copy() {
    let scene = Scene::new().relay([] as [&str; 0]).job(&keeping("sent")).recipients(&numbered(3));
    let scene = scene.env("POSTROOM_FAILPOINT", "ledger.settle.after");
    assert_eq!(scene.send().code, None, "the fail point ends it");
    let scene = scene.env("POSTROOM_FAILPOINT", "");
    let run = scene.send();
    let accepted =
        crate::scene::ledger_says(&scene).into_values().filter(|outcome| outcome == "accepted").count();
    assert!(accepted > 0, "{}", run.stderr);
    assert_eq!(letters_in(&scene.path("sent")).len(), accepted);
    assert!(!scene.path("sent/.aside").exists());
}

/// Whoever came to a suppress list since is not written to, and still stands in the Cc of the same letter.
#[test]
fn a_letter_that_goes_again_is_the_same_whoever_was_suppressed_since() {
    let job = keeping("sent")
        .replace("{file: list.csv}", "{file: list.csv, suppress: stop.txt, cc: [\"{{ copy }}\"]}")
        .replace("stay: 60s", "stay: 0s");
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u0@* first=1 reply 450 4.2.1 later"])
        .job(&job)
        .recipients("email,name,copy\nu0@example.org,A,boss@example.org\n")
        .file("stop.txt", "");
    scene.send().exit(Exit::Again);
    let scene = scene.file("stop.txt", "boss@example.org\n");
    // A wait of 1 s is spread by a fifth, and the ledger keeps whole seconds, rounded up.
    std::thread::sleep(std::time::Duration::from_secs(3));
    scene.send().exit(Exit::Done);
    let letters = scene.its_relay().letters();
    assert_eq!((letters.len(), &letters[1].recipients), (2, &vec!["u0@example.org".to_owned()]));
    assert_eq!(letters[0].hash, letters[1].hash);
}

/// An edition that is left is put in order as one that goes on.
#[test]
fn what_a_dead_run_left_is_put_in_order_when_its_edition_is_left() {
    let job = keeping("sent").replace("tls: none,", "tls: none, connections: 1, pipelining: off,");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(200));
    let scene = scene.env("POSTROOM_FAILPOINT", "ledger.settle.after");
    assert_eq!(scene.send().code, None, "the fail point ends it");
    let scene = scene.env("POSTROOM_FAILPOINT", "").job(&job.replace("edition: \"1\"", "edition: \"2\""));
    scene
        .run("run --yes --new-edition --limit 1 job.yaml")
        .exit(Exit::Done)
        .says(&["in doubt", "@example.org"]);
    let report = scene.run("report job.yaml --edition 1").exit(Exit::Done);
    report.says(&["left unfinished", "accepted", "unsure"]).never_says(&["sending"]);
    let accepted = scene.run("report job.yaml --edition 1 --format csv --outcome accepted").stdout;
    assert_eq!(letters_in(&scene.path("sent/1")).len(), accepted.lines().count() - 1, "{accepted}");
    assert!(!scene.path("sent/.aside").exists());
}

#[test]
fn a_digest_needs_no_folder() {
    let scene = Scene::new().relay([] as [&str; 0]).job(&keeping("digest")).recipients(&numbered(1));
    scene.send().exit(Exit::Done);
    let (digest, kept) = of_letter(&scene, "u0@example.org");
    assert_eq!((digest.map(|digest| digest.len()), kept), (Some(64), None));
    assert!(!scene.path("digest").exists());
}

#[test]
fn without_room_for_the_copy_nothing_is_sent() {
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&keeping("sent"))
        .recipients(&numbered(2))
        .file("sent", "a file where the folder should be\n");
    scene.send().exit(Exit::Io).says(&["cannot be kept"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}
