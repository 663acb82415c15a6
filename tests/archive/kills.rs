//! A run dies at any moment and at every named point, against a server that really deletes. After each
//! death server and archive together hold every message, no two files are the same, and the last run
//! completes what the others began.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::scene::{Scene, job_file, output, postroom};

const DELETES: &str = "delete: {after: 0s, keep_newest: 0, max_fraction: 100%}";

/// So many that a run has a middle.
const MESSAGES: usize = 400;

/// What must hold at any time.
fn nothing_is_lost(scene: &Scene, all: &BTreeSet<Vec<u8>>, when: &str) {
    let archived = scene.archived();
    assert!(archived.values().all(|&times| times == 1), "two files are the same after {when}");
    let here: BTreeSet<Vec<u8>> = archived.into_keys().chain(scene.sent().into_keys()).collect();
    assert_eq!(here.len(), all.len(), "messages were lost or spoilt after {when}");
    assert_eq!(&here, all, "after {when}");
}

/// Runs until a run ends well.
fn complete(scene: &Scene, port: u16, all: &BTreeSet<Vec<u8>>, when: &str) {
    let job = job_file(scene, port, DELETES);
    for _ in 0..3 {
        let (code, _, words) = output(postroom().args(["run", "--yes", "--quiet"]).arg(&job));
        nothing_is_lost(scene, all, when);
        if code == Some(0) {
            let archived: BTreeSet<Vec<u8>> = scene.archived().into_keys().collect();
            assert_eq!(&archived, all, "the last run completes after {when}");
            let (code, found, _) = output(postroom().arg("verify").arg(scene.store()));
            assert_eq!(code, Some(0), "after {when}: {found}");
            return;
        }
        assert!(
            words.contains("IN-USE") || words.contains("not to be had"),
            "after {when}: {code:?} {words}"
        );
    }
    panic!("no run completes after {when}");
}

/// How long a run takes that nobody kills: deaths are to come while it works, however fast the machine is.
fn whole_run() -> Duration {
    let scene = Scene::counting(MESSAGES);
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), DELETES);
    let begun = Instant::now();
    assert_eq!(output(postroom().args(["run", "--yes", "--quiet"]).arg(&job)).0, Some(0));
    begun.elapsed()
}

/// Waits until so many messages have their files, or the run is over.
fn until_there_are(count: usize, scene: &Scene, run: &mut Child) {
    let files = || {
        let found = walkdir::WalkDir::new(scene.store().join("eml")).into_iter().filter_map(Result::ok);
        found.filter(|file| file.file_type().is_file()).count()
    };
    while files() < count && run.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn deaths_at_random_moments_lose_nothing() {
    let deaths = if std::env::var_os("POSTROOM_TESTS_LONG").is_some() { 300 } else { 20 };
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let whole = whole_run();
    let (mut done, mut half_made) = (0, 0);
    while done < deaths {
        let scene = Scene::counting(MESSAGES);
        let all: BTreeSet<Vec<u8>> = scene.sent().into_keys().collect();
        let server = scene.serve(|_| {});
        let job = job_file(&scene, server.port(), DELETES);
        // Several deaths in one story: the second run meets what the first one left.
        for turn in 0..5 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut child = postroom().args(["run", "--yes", "--quiet"]).arg(&job).spawn().unwrap();
            let moment = Duration::from_micros((seed >> 33) % whole.as_micros() as u64);
            match turn {
                // On a busy machine no moment is sure to be in the middle.
                0 => until_there_are(1 + (seed >> 33) as usize % (MESSAGES / 2), &scene, &mut child),
                _ => std::thread::sleep(moment),
            }
            child.kill().unwrap();
            child.wait().unwrap();
            done += 1;
            nothing_is_lost(&scene, &all, &format!("death {done}"));
            half_made += usize::from((1..all.len()).contains(&scene.archived().len()));
        }
        complete(&scene, server.port(), &all, "random deaths");
    }
    println!("{half_made} of {deaths} deaths within {whole:?} met a half-made archive");
    assert!(half_made > 0, "of {deaths} deaths not one met a half-made archive: they prove nothing");
}

#[test]
fn deaths_at_every_named_point_lose_nothing() {
    for point in postroom::archive::FAILPOINTS {
        let scene = Scene::counting(60);
        let all: BTreeSet<Vec<u8>> = scene.sent().into_keys().collect();
        let server = scene.serve(|_| {});
        let job = job_file(&scene, server.port(), DELETES);
        let (code, _, words) =
            output(postroom().args(["run", "--yes", "--quiet"]).arg(&job).env("POSTROOM_FAILPOINT", point));
        assert_eq!(code, None, "{point} is reached: {words}");
        nothing_is_lost(&scene, &all, point);
        complete(&scene, server.port(), &all, point);
    }
}
