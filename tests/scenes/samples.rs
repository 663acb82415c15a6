//! Every file in `jobs/` is run, and the letters it makes are read by another program.

use std::fs;
use std::path::Path;
use std::process::Command;

use postroom::exit::Exit;

use crate::scene::{Scene, available, letters_in};

/// What each sample leaves in the outbox.
const SAMPLES: &[(&str, usize)] = &[("newsletter", 8), ("通知", 5), ("monthly-report", 3)];

#[test]
fn every_job_is_a_sample_that_is_run() {
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    for entry in fs::read_dir(jobs).expect("jobs/") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let known = SAMPLES.iter().any(|(sample, _)| *sample == name) || name == "archive";
        assert!(known, "jobs/{name}.yaml is run by no test");
    }
}

#[test]
fn the_samples_leave_a_letter_for_each_recipient() {
    for (name, letters) in SAMPLES {
        let scene = Scene::of_the_repository();
        scene.run(&format!("check jobs/{name}.yaml")).exit(Exit::Done);
        scene.run(&format!("run --sandbox --yes jobs/{name}.yaml")).exit(Exit::Done);
        assert_eq!(letters_in(&scene.path("outbox")).len(), *letters, "{name}");
        // A trial that is over makes room for the next.
        scene.run(&format!("run --sandbox --yes jobs/{name}.yaml")).exit(Exit::Done);
        assert_eq!(letters_in(&scene.path("outbox")).len(), *letters, "{name}, run twice");
    }
}

#[test]
fn the_archive_is_pulled_from_our_own_maildrop() {
    let scene = Scene::of_the_repository();
    let stored = || letters_in(&scene.path("archive/support-sandbox/eml")).len();
    scene.run("run --sandbox jobs/archive.yaml").exit(Exit::Done);
    assert_eq!(stored(), 3, "what the maildrop brings along");
    scene.run("run --sandbox jobs/archive.yaml").exit(Exit::Done);
    assert_eq!(stored(), 3, "a second run fetches nothing");
    scene.run("run --sandbox jobs/newsletter.yaml").exit(Exit::Done);
    scene.run("run --sandbox jobs/archive.yaml").exit(Exit::Done);
    assert_eq!(stored(), 3 + 8, "what a trial has sent");
    assert!(!scene.path("archive/support").exists(), "the real store is left alone");
    assert_eq!(letters_in(&scene.path("outbox")).len(), 8, "and so are the letters");
}

/// Python's `email` package reads every letter: no defects, sound lines, and what the job says.
#[test]
fn python_reads_the_samples() {
    if !available("python3", "--version") {
        return;
    }
    for (name, letters) in SAMPLES {
        let scene = Scene::of_the_repository();
        scene.run(&format!("run --sandbox --yes jobs/{name}.yaml")).exit(Exit::Done);
        let output = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_letters.py"))
            .arg(name)
            .arg(scene.path("outbox"))
            .output()
            .expect("python3 starts");
        assert!(
            output.status.success(),
            "{name}:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let read = String::from_utf8_lossy(&output.stdout);
        assert!(read.contains(&format!("{letters} letters")), "{name}: {read}");
    }
}
