//! Deleting on the server: only as declared, only what is safely here, and never silently.

use std::fs;
use std::time::Duration;

use postroom::exit::Exit;
use postroom::job::{Deletion, Layout};

use super::scene::{Scene, faults, job_file, output, postroom};

fn after(keep_newest: usize, max_fraction: f64) -> Deletion {
    Deletion::After { after: Duration::ZERO, keep_newest, max_fraction }
}

#[test]
fn what_is_archived_is_deleted_and_the_next_listing_proves_it() {
    let scene = Scene::counting(30);
    let all = scene.sent();
    let server = scene.serve(|_| {});
    let mut job = scene.job(server.port());
    job.delete = after(10, 1.0);
    assert_eq!(scene.run_with(&job), Exit::Done);
    assert_eq!(scene.sent().len(), 10, "the newest stay");
    let count = |what: &str| scene.journal().iter().filter(|line| line["what"] == what).count();
    assert_eq!((count("deleting"), count("deleted")), (20, 0), "not yet proved");
    assert_eq!(scene.run_with(&job), Exit::Done);
    assert_eq!((count("deleting"), count("deleted")), (20, 20));
    assert_eq!(scene.archived(), all);
}

#[test]
fn too_many_deletions_are_refused_until_the_number_is_confirmed() {
    let scene = Scene::counting(30);
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), "delete: {after: 0s, keep_newest: 0, max_fraction: 20%}");
    let check = || {
        let (code, listed, _) = output(postroom().args(["check", "--connect"]).arg(&job));
        assert_eq!(code, Some(1));
        assert!(listed.contains("30 messages are due for deletion"), "{listed}");
        assert_eq!(listed.lines().count(), 32, "each is listed: {listed}");
    };
    // Before the first run as well: what it fetches would be due at once.
    check();
    assert!(!scene.store().exists(), "looking makes no archive");
    let (code, _, words) = output(postroom().args(["run", "--yes"]).arg(&job));
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("--confirm-deletions 30"), "{words}");
    assert_eq!((scene.sent().len(), scene.archived().len()), (30, 30));
    check();
    let (code, _, words) = output(postroom().args(["run", "--yes", "--confirm-deletions", "30"]).arg(&job));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!((scene.sent().len(), scene.archived().len()), (0, 30));
}

#[test]
fn a_message_whose_file_is_spoilt_stays_on_the_server() {
    let scene = Scene::counting(20);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    let lines = scene.journal();
    let path = |at: usize| scene.store().join(lines[at]["path"].as_str().unwrap());
    let mut bytes = fs::read(path(4)).unwrap();
    bytes[0] ^= 1;
    fs::write(path(4), bytes).unwrap();
    let mut job = scene.job(server.port());
    job.delete = after(0, 1.0);
    assert_eq!(scene.run_with(&job), Exit::SomeFailed);
    assert_eq!(scene.sent().len(), 1);
}

#[test]
fn what_is_lost_here_and_still_there_is_fetched_again() {
    for delete in [Deletion::Never, after(0, 1.0)] {
        for layout in [Layout::Dated, Layout::Maildir] {
            let scene = Scene::counting(20);
            let all = scene.sent();
            let server = scene.serve(|_| {});
            let mut job = scene.job(server.port());
            job.layout = layout;
            assert_eq!(scene.run_with(&job), Exit::Done);
            let lines = scene.journal();
            let path = |at: usize| scene.store().join(lines[at]["path"].as_str().unwrap());
            fs::remove_file(path(3)).unwrap();
            fs::write(path(4), "something else").unwrap();
            let verify = || output(postroom().arg("verify").arg(scene.store()));
            let (code, _, said) = verify();
            assert_eq!(code, Some(1));
            assert!(said.contains("`postroom run` fetches again"), "{said}");
            let (code, said, _) = output(postroom().arg("rebuild").arg(scene.store()));
            assert!(code == Some(1) && said.contains("1 files are missing"), "{said}");
            let file = job_file(&scene, server.port(), "");
            let server_says =
                || output(postroom().arg("verify").arg(scene.store()).arg("--server").arg(&file));
            assert!(server_says().1.contains("20 on the server, 2 not archived"), "{}", server_says().1);
            job.delete = delete.clone();
            assert_eq!(scene.run_with(&job), Exit::Done, "{delete:?}");
            let (code, found, said) = verify();
            assert_eq!(code, Some(0), "{found}{said}");
            let folder = if layout == Layout::Dated { "eml" } else { "new" };
            let files = walkdir::WalkDir::new(scene.store().join(folder)).into_iter();
            let files = files.map(Result::unwrap).filter(|file| file.file_type().is_file());
            assert_eq!(files.count(), all.len());
        }
    }
}

#[test]
fn what_the_store_has_lost_is_not_due_before_it_is_old_again() {
    let scene = Scene::counting(3);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    fs::remove_file(scene.store().join(scene.journal()[1]["path"].as_str().unwrap())).unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    let job = job_file(&scene, server.port(), "delete: {after: 2s, max_fraction: 100%}");
    let (code, listed, words) = output(postroom().args(["check", "--connect"]).arg(&job));
    assert_eq!(code, Some(0), "{words}");
    assert!(listed.contains("2 messages would be deleted"), "{listed}");
}

#[test]
fn without_quit_nothing_is_deleted() {
    let scene = Scene::counting(20);
    let server = scene.serve(|options| options.faults = faults(&["quit drop"]));
    let mut job = scene.job(server.port());
    job.delete = after(0, 1.0);
    assert_eq!(scene.run_with(&job), Exit::Unavailable);
    assert_eq!((scene.sent().len(), scene.archived().len()), (20, 20));
    drop(server);
    // Whether QUIT was done nobody knows: what is listed now is fetched anew before it is deleted.
    let server = scene.serve(|_| {});
    let mut job = scene.job(server.port());
    job.delete = after(0, 1.0);
    assert_eq!(scene.run_with(&job), Exit::Done);
    let duplicates = scene.journal().iter().filter(|line| line["what"] == "duplicate").count();
    assert_eq!((duplicates, scene.sent().len(), scene.archived().len()), (20, 0, 20));
}

#[test]
fn a_full_disk_ends_the_session_without_quit() {
    // A file system of one megabyte, where one may be mounted.
    let scene = Scene::counting(3);
    let small = scene.store();
    fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&small)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("LEFT OUT: no file system may be mounted here");
        return;
    }
    for number in 10..40 {
        let mut text = super::scene::message(number);
        text.resize(200_000, b'x');
        text.extend(b"\r\n");
        fs::write(scene.maildrop().join(format!("{number:05}.eml")), text).unwrap();
    }
    let log = scene.folder.path().join("server.log");
    let server = scene.serve(|options| {
        options.log = Some(log.clone());
        // A rule that changes nothing: its use is in the log.
        options.faults = faults(&["stat delay 0", "quit delay 0"]);
    });
    let mut job = scene.job(server.port());
    job.delete = after(0, 1.0);
    let exit = scene.run_with(&job);
    let archived = scene.archived().len();
    let unmounted = std::process::Command::new("umount").arg(&small).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert_eq!(exit, Exit::Io);
    assert!(archived < 33, "{archived}");
    assert_eq!(scene.sent().len(), 33, "nothing was deleted");
    drop(server);
    let seen = fs::read_to_string(&log).unwrap();
    assert!(seen.contains("stat delay 0") && !seen.contains("quit delay 0"), "no QUIT was sent: {seen}");
}
