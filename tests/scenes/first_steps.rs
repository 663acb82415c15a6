//! What a newcomer types first: a project of one's own, a look at it, a trial; and what editors and
//! shells ask for.

use postroom::exit::Exit;

use crate::scene::{Scene, letters_in};

#[test]
fn a_new_project_runs_at_once() {
    let scene = Scene::new();
    scene.run("init new").exit(Exit::Done).says(&["jobs/welcome.yaml", "postroom run --sandbox"]);
    scene.run("check new/jobs/welcome.yaml").exit(Exit::Done).says(&["welcome", "smtp.example.com"]);
    scene.run("run --sandbox new/jobs/welcome.yaml").exit(Exit::Done);
    assert_eq!(letters_in(&scene.path("new/outbox/welcome")).len(), 3);
    scene.run("init new").exit(Exit::Io).says(&["jobs/welcome.yaml", "nothing was written"]);
}

#[test]
fn a_wrong_line_ends_with_64_and_says_what_is_right() {
    let scene = Scene::new();
    for (line, words) in [
        ("run", "Usage: postroom run"),
        ("chek job.yaml", "check"),
        ("run job.yaml --sandbx", "--sandbox"),
        ("prune --older 30", "an age has a unit"),
        ("sandbox --smtp 0.0.0.0:25", "loopback only"),
    ] {
        scene.run(line).exit(Exit::Usage).says(&[words]);
    }
    scene.run("--help").exit(Exit::Done).says(&["Usage: postroom"]);
    scene.run("--version").exit(Exit::Done).says(&["postroom "]);
}

#[test]
fn editors_shells_and_manuals_get_their_answers() {
    let scene = Scene::new();
    let schema = scene.run("schema").exit(Exit::Done).stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(schema["$defs"]["kind-send"]["properties"]["kind"]["const"], "send");
    for shell in ["bash", "zsh", "fish"] {
        scene.run(&format!("completions {shell}")).exit(Exit::Done).says(&["postroom", "requeue"]);
    }
    scene.run("man").exit(Exit::Done).says(&[".TH postroom 1"]);
    scene.run("man --dir pages").exit(Exit::Done);
    assert!(scene.path("pages/postroom-run.1").exists());
}
