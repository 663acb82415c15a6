//! Corrections and reminders: the list is what became of an earlier edition.

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, numbered};

/// A job for those who had `outcome` in an edition of another.
fn follow_up(job: &str, edition: &str, outcome: &str) -> String {
    SHORT
        .replace("name: short", "name: correction")
        .replace(
            "recipients: {file: list.csv}",
            &format!("recipients: {{ledger: {{job: {job}, edition: \"{edition}\", outcome: {outcome}}}}}"),
        )
        .replace("subject: \"Hello", "subject: \"A correction,")
}

#[test]
fn those_who_got_a_letter_get_its_correction_and_nobody_else() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=u1@* reply 550 5.1.1 no such user"])
        .job(SHORT)
        .recipients(&numbered(4));
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(scene.its_relay().letters().len(), 3);

    // The list is gone; the ledger has the rows with all their columns.
    std::fs::remove_file(scene.path("list.csv")).expect("removed");
    let scene = scene.file("correction.yaml", &follow_up("short", "1", "accepted"));
    scene.run("check correction.yaml").exit(Exit::Done).says(&["rows       3", "letters    3"]);
    scene.run("run --sandbox correction.yaml").exit(Exit::Done);
    scene.run("run --yes correction.yaml").exit(Exit::Done);
    let expected: Vec<(String, usize)> =
        ["u0", "u2", "u3"].map(|name| (format!("{name}@example.org"), 2)).into();
    assert_eq!(scene.its_relay().received().into_iter().collect::<Vec<_>>(), expected);
    scene.run("run --yes correction.yaml").exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 6, "each edition once");
    scene
        .run("report correction.yaml --letter u2@example.org")
        .exit(Exit::Done)
        .says(&["correction · edition 1", "Name 2"]);

    // Those who did not: of the same job's earlier edition.
    let again = follow_up("short", "1", "refused")
        .replace("name: correction", "name: short")
        .replace("edition: \"1\"\n", "edition: \"2\"\n");
    let scene = scene.file("again.yaml", &again);
    scene.run("check again.yaml").exit(Exit::Done).says(&["edition 2", "rows       1", "letters    1"]);
}

#[test]
fn what_the_ledger_does_not_have_is_named() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(2));
    let scene = scene.file("a.yaml", &follow_up("short", "1", "accepted"));
    for command in ["check a.yaml", "run --yes a.yaml"] {
        scene.run(command).exit(Exit::Job).says(&["nothing was sent yet"]);
    }
    scene.send().exit(Exit::Done);
    let scene = scene
        .file("job-unknown.yaml", &follow_up("shrot", "1", "accepted"))
        .file("edition-unknown.yaml", &follow_up("short", "2026", "accepted"))
        .file("nobody.yaml", &follow_up("short", "1", "refused"))
        .file("column.yaml", &follow_up("short", "1", "accepted").replace("{{ name }}", "{{ nmae }}"));
    for command in ["check", "run --yes"] {
        scene
            .run(&format!("{command} job-unknown.yaml"))
            .exit(Exit::Job)
            .says(&["no job shrot", "it has short"]);
        scene
            .run(&format!("{command} edition-unknown.yaml"))
            .exit(Exit::Job)
            .says(&["no edition 2026", "it has 1"]);
        scene.run(&format!("{command} nobody.yaml")).exit(Exit::Done);
        scene.run(&format!("{command} column.yaml")).exit(Exit::Job).says(&["nmae"]);
    }
    assert_eq!(scene.its_relay().letters().len(), 2);
}
