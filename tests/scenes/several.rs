//! Letters with several recipients, each with an outcome of its own, over several attempts.

use postroom::exit::Exit;

use crate::scene::{Run, SHORT, Scene, ledger_says};

const COPIES: &str = "email,name,copy\na@one.test,Ada,later@two.test\nb@one.test,Bob,never@three.test\n";

fn job() -> String {
    SHORT.replace("{file: list.csv}", "{file: list.csv, cc: [\"{{ copy }}\"]}")
}

fn addresses(scene: &Scene) -> String {
    let Run { stdout, .. } = scene.run("report job.yaml --format json");
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("a report");
    let of = |letter: &serde_json::Value| {
        let said = letter["addresses"].as_array().expect("addresses").iter();
        said.map(|said| format!("{} {}", said["address"], said["outcome"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    report["recipients"].as_array().expect("recipients").iter().flat_map(of).collect::<Vec<_>>().join(", ")
}

#[test]
fn who_may_have_it_is_held_while_the_others_get_it() {
    // The relay has taken the letter for Ada, and its answer is lost; the copy was put off before.
    let scene = Scene::new()
        .relay([
            "--fault",
            "rcpt if=later@* first=1 reply 450 4.2.1 try later",
            "--fault",
            "commit if=a@* first=1 drop",
        ])
        .job(&job())
        .recipients(COPIES);
    scene.send().exit(Exit::SomeFailed);
    let received = scene.its_relay().received();
    assert_eq!(received["a@one.test"], 1, "she may have it, so it is held: {received:?}");
    assert_eq!(received["later@two.test"], 1, "{received:?}");
    assert_eq!(
        addresses(&scene),
        "a@one.test unsure, later@two.test accepted, b@one.test accepted, never@three.test accepted"
    );
    assert_eq!(ledger_says(&scene)["a@one.test"], "unsure");
    // Asked for, it goes to her alone.
    scene.run("requeue job.yaml --outcome unsure --yes").exit(Exit::Done);
    scene.send().exit(Exit::Done);
    let received = scene.its_relay().received();
    assert_eq!((received["a@one.test"], received["later@two.test"]), (2, 1), "{received:?}");
}

#[test]
fn a_letter_stands_where_the_worst_of_its_recipients_stands() {
    let scene = Scene::new()
        .relay([
            "--fault",
            "rcpt if=never@* reply 550 5.1.1 no such user",
            "--fault",
            "rcpt if=b@* first=1 reply 450 4.2.1 try later",
        ])
        .job(&job())
        .recipients(COPIES);
    scene.send().exit(Exit::SomeFailed);
    let says = ledger_says(&scene);
    assert_eq!((&*says["a@one.test"], &*says["b@one.test"]), ("accepted", "refused"));
    assert!(addresses(&scene).contains("b@one.test accepted, never@three.test refused"));
}
