//! What is said on stderr: with `--log json` one object a line, whatever is said.

use postroom::exit::Exit;
use serde_json::Value as Json;

use crate::scene::{Run, SHORT, Scene, numbered};

/// Every line of the talk, as the object it has to be.
#[track_caller]
fn spoken(run: &Run) -> Vec<Json> {
    let object = |line: &str| {
        let json: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(json["event"].is_string() && json["time"].is_string(), "{line}");
        json
    };
    run.stderr.lines().map(object).collect()
}

/// The first of the events of this name.
#[track_caller]
fn first<'a>(all: &'a [Json], event: &str) -> &'a Json {
    all.iter().find(|json| json["event"] == event).unwrap_or_else(|| panic!("no {event} in {all:?}"))
}

#[test]
fn every_line_of_a_run_is_an_object() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=r1@* reply 550 5.1.1 nobody"])
        .job(SHORT)
        .recipients("email,name\nr1@example.org,Ada\nr2@example.org,Eve\nnobody,Eve\n");
    let run = scene.run("run --yes --trace --log json job.yaml").exit(Exit::SomeFailed);
    let all = spoken(&run);
    let summary = first(&all, "summary");
    assert_eq!(summary["counts"]["refused"], 1, "{summary}");
    assert_eq!(summary["counts"]["accepted"], 1, "{summary}");
    assert_eq!(summary["rows"]["rejected"], 1, "{summary}");
    assert_eq!(first(&all, "trace")["who"], "*");
    assert_eq!(first(&all, "message")["level"], "note");

    for line in [
        "run --yes --log json job.yaml",
        "run --sandbox --log json job.yaml",
        "requeue --only r1@example.org --yes --log json job.yaml",
        "pause --log json job.yaml",
        "resume --log json job.yaml",
        "stop --log json job.yaml",
        "prune --older 1d --yes --job job.yaml --log json",
        "forget r1@example.org --yes --job job.yaml --log json",
    ] {
        let run = scene.run(line);
        assert!(!spoken(&run).is_empty(), "{line}: {}", run.stdout);
    }
}

#[test]
fn who_asks_for_quiet_hears_only_what_went_wrong() {
    let scene = Scene::new()
        .relay(["--fault", "rcpt if=r1@* first=1 reply 550 5.1.1 nobody"])
        .job(SHORT)
        .recipients("email,name\nr1@example.org,Ada\nr2@example.org,Eve\n");
    scene
        .run("run --yes --quiet job.yaml")
        .exit(Exit::SomeFailed)
        .says(&["r1@example.org", "550 5.1.1 nobody"]);
    for line in [
        "requeue --outcome refused --yes job.yaml",
        "run --yes job.yaml",
        "requeue --outcome refused --yes job.yaml",
        "pause job.yaml",
        "resume job.yaml",
        "stop job.yaml",
        "forget r1@example.org --yes --job job.yaml",
        "prune --older 1d --yes --job job.yaml",
        "init new",
    ] {
        let run = scene.run(&format!("{line} --quiet")).exit(Exit::Done);
        assert_eq!((&*run.stdout, &*run.stderr), ("", ""), "{line}");
    }
    // What is asked about is shown in any case.
    scene
        .run("requeue --outcome accepted --quiet job.yaml")
        .exit(Exit::Usage)
        .says(&["accepted  2", "--yes"]);
}

#[test]
fn mistakes_are_objects_with_their_places() {
    let scene = Scene::new().job(&SHORT.replace("subject: ", "subjekt: ").replace("@PORT@", "25"));
    for command in ["check", "run --yes", "report"] {
        let run = scene.run(&format!("{command} --log json job.yaml")).exit(Exit::Job);
        let all = spoken(&run);
        let mistake = first(&all, "diagnostic");
        assert_eq!(mistake["level"], "error", "{mistake}");
        assert_eq!((&mistake["line"], &mistake["column"]), (&7.into(), &1.into()), "{mistake}");
        assert_eq!(mistake["file"], "job.yaml");
    }
    let scene = Scene::new().job(&SHORT.replace("@PORT@", "25")).recipients(&numbered(2));
    let run = scene.run("run --log json job.yaml").exit(Exit::Usage);
    assert_eq!(first(&spoken(&run), "message")["level"], "error");
    for line in ["show --log json nothing.eml", "find --log json nothing x", "verify --log json nothing"] {
        assert!(!spoken(&scene.run(line)).is_empty(), "{line}");
    }
}
