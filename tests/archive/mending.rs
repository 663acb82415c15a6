//! A journal that lost lines: what is still there is taken in again, what is not is named, nothing is believed that
//! the lost lines may have unsaid.

use std::fs;
use std::time::Duration;

use postroom::exit::Exit;
use postroom::job::{ArchiveJob, Credential, Deletion, Layout};
use postroom::sandbox::Maildrop;
use postroom::secret::Secret;

use super::scene::{Scene, job_file, message, output, postroom};

/// Twenty messages, archived; the server goes on.
fn archived(layout: Layout) -> (Scene, Maildrop) {
    let scene = Scene::counting(20);
    let server = scene.serve(|_| {});
    let mut job = scene.job(server.port());
    job.layout = layout;
    assert_eq!(scene.run_with(&job), Exit::Done);
    (scene, server)
}

fn verify(scene: &Scene) -> (Option<i32>, String) {
    let (code, found, _) = output(postroom().arg("verify").arg(scene.store()));
    (code, found)
}

fn rebuild(scene: &Scene) -> (Option<i32>, String) {
    let (code, said, words) = output(postroom().arg("rebuild").arg(scene.store()));
    (code, said + &words)
}

fn report(body: &str) -> Vec<u8> {
    format!("Subject: report {body}\r\n\r\n{body}\r\n").into_bytes()
}

/// A report and another message, archived; the report is deleted elsewhere, and `more` is done before the next run,
/// which notes that its UIDL is free.
fn freed(more: impl FnOnce(&Scene)) -> (Scene, Maildrop) {
    let scene = Scene::with(&[&report("one"), &message(2)]);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    fs::remove_file(scene.maildrop().join("00001.eml")).unwrap();
    more(&scene);
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert!(fs::read_to_string(scene.store().join("journal.jsonl")).unwrap().contains("\"gone\""));
    (scene, server)
}

/// Another report of the same size has the UIDL of the first. It is archived before it is deleted.
fn another_is_not_taken_for_it(scene: &Scene, mut job: ArchiveJob, what: &str) {
    fs::write(scene.maildrop().join("00001.eml"), report("two")).unwrap();
    job.delete = Deletion::After { after: Duration::ZERO, keep_newest: 0, max_fraction: 1.0 };
    assert_eq!(scene.run_with(&job), Exit::Done);
    assert!(scene.sent().is_empty() && scene.archived().contains_key(&report("two")), "{what}");
}

/// The job with a password that the server refuses: it opens the archive and gets no further.
fn stranger(job: &ArchiveJob) -> ArchiveJob {
    let mut job = job.clone();
    job.mailboxes[0].auth.credential = Credential::Literal(Secret::new("wrong"));
    job
}

fn flipped(line: &str) -> String {
    line.replacen("127.0.0.1", "127.0.0.9", 1)
}

#[test]
fn lost_lines_are_sealed_and_their_files_taken_in_again() {
    type Harm = fn(&mut Vec<String>);
    let harms: &[(&str, Harm)] = &[
        ("a changed line", |lines| lines[7] = flipped(&lines[7])),
        ("several", |lines| [0, 3, 4, 11].into_iter().for_each(|at| lines[at] = flipped(&lines[at]))),
        ("the last line", |lines| lines[19] = flipped(&lines[19])),
        ("a line that is gone", |lines| drop(lines.remove(7))),
        ("the first lines gone", |lines| drop(lines.drain(..3))),
        ("the last lines gone", |lines| lines.truncate(15)),
        ("two that changed places", |lines| lines.swap(4, 9)),
        ("one that is there twice", |lines| lines.insert(9, lines[4].clone())),
        ("two that became one", |lines| lines[5] = lines[5].trim_end().to_owned()),
        ("one that became two", |lines| lines[5].insert(40, '\n')),
        ("zeros", |lines| lines[5] = "\0".repeat(200_000)),
        ("no journal", |lines| lines.clear()),
        ("nothing but nonsense", |lines| *lines = vec!["nonsense\n".to_owned(), "more\n".to_owned()]),
    ];
    for layout in [Layout::Dated, Layout::Maildir] {
        for (what, harm) in harms {
            let (scene, server) = archived(layout);
            if layout == Layout::Maildir {
                // As a mail program leaves it.
                for file in fs::read_dir(scene.store().join("new")).unwrap().take(10) {
                    let file = file.unwrap();
                    let seen = format!("{}:2,S", file.file_name().display());
                    fs::rename(file.path(), scene.store().join("cur").join(seen)).unwrap();
                }
            }
            let path = scene.store().join("journal.jsonl");
            let whole = fs::read_to_string(&path).unwrap();
            let mut lines: Vec<String> = whole.split_inclusive('\n').map(str::to_owned).collect();
            harm(&mut lines);
            let harmed = lines.concat();
            fs::write(&path, &harmed).unwrap();
            assert_eq!(verify(&scene).0, Some(1), "{what}");
            if *what == "no journal" {
                fs::remove_file(&path).unwrap();
            }

            let (code, said) = rebuild(&scene);
            assert_eq!(code, Some(0), "{what}: {said}");
            let (code, found) = verify(&scene);
            assert_eq!(code, Some(0), "{what}: {said}{found}");
            assert!(found.contains(": 20 messages"), "{what}: {found}");
            let mended = fs::read_to_string(&path).unwrap();
            let sealed = mended.contains("\"what\":\"sealed\"");
            // Where only lines at the end are gone, nothing of the journal itself is damaged.
            let at_the_end = matches!(*what, "the last lines gone" | "no journal");
            assert!((sealed && !at_the_end) == found.contains("sealed: "), "{what}: {found}");
            assert!(!sealed || mended.starts_with(&harmed), "{what}: history stays as it is");
            assert_eq!(rebuild(&scene).0, Some(0), "{what}");
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                mended,
                "{what}: a second time nothing is left to mend"
            );

            let mut job = scene.job(server.port());
            job.layout = layout;
            assert_eq!(scene.run_with(&job), Exit::Done, "{what}");
            let (code, found) = verify(&scene);
            assert!(
                code == Some(0) && found.contains(": 20 messages"),
                "{what}: nothing is stored twice: {found}"
            );
        }
    }
}

#[test]
fn what_is_sealed_cannot_be_changed_again() {
    let (scene, _server) = archived(Layout::Dated);
    let path = scene.store().join("journal.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    fs::write(&path, whole.replace(lines[7], &flipped(lines[7]))).unwrap();
    assert_eq!(rebuild(&scene).0, Some(0));
    let mended = fs::read_to_string(&path).unwrap();
    for (from, to) in [(flipped(lines[7]), String::new()), (lines[12].to_owned(), flipped(lines[12]))] {
        fs::write(&path, mended.replace(&from, &to)).unwrap();
        let (code, found) = verify(&scene);
        assert!(code == Some(1) && !found.contains("sealed: "), "{found}");
        assert_eq!(rebuild(&scene).0, Some(0));
        assert_eq!(verify(&scene).0, Some(0));
    }
}

#[test]
fn what_only_the_manifest_remembers_is_named_until_it_is_there_again() {
    let (scene, server) = archived(Layout::Dated);
    let path = scene.store().join("journal.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let file = scene.journal()[7]["path"].as_str().unwrap().to_owned();
    fs::write(&path, whole.replace(lines[7], &flipped(lines[7]))).unwrap();
    let bytes = fs::read(scene.store().join(&file)).unwrap();
    fs::remove_file(scene.store().join(&file)).unwrap();
    fs::write(scene.store().join("eml/2026/11/stranger.eml"), "Subject: x\r\n\r\n").unwrap();
    // A run that finds nothing new must not forget what the manifest says.
    fs::rename(scene.maildrop(), scene.maildrop().with_extension("aside")).unwrap();
    fs::create_dir(scene.maildrop()).unwrap();
    assert_eq!(scene.run(server.port()), Exit::Done);
    let (code, said) = rebuild(&scene);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{file} was in no line of the journal; it is lost")), "{said}");
    assert!(said.contains("eml/2026/11/stranger.eml is in no line"), "{said}");
    fs::remove_file(scene.store().join("eml/2026/11/stranger.eml")).unwrap();
    let (code, found) = verify(&scene);
    assert!(code == Some(1) && found.contains(&format!("missing: {file}")), "{found}");
    // From a backup, or from the server.
    fs::write(scene.store().join(&file), &bytes).unwrap();
    assert_eq!(verify(&scene).0, Some(0), "{}", verify(&scene).1);
    fs::remove_file(scene.store().join(&file)).unwrap();
    fs::remove_dir(scene.maildrop()).unwrap();
    fs::rename(scene.maildrop().with_extension("aside"), scene.maildrop()).unwrap();
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(verify(&scene).0, Some(0), "{}", verify(&scene).1);
    assert_eq!(fs::read(scene.store().join(&file)).unwrap(), bytes);
}

/// The line that said of a UIDL that it is free is lost, and another message of the same size has that UIDL.
#[test]
fn a_name_is_not_believed_behind_lost_lines() {
    for sealed in [false, true] {
        for deletes in [false, true] {
            let (scene, server) = freed(|_| {});
            let path = scene.store().join("journal.jsonl");
            let whole = fs::read_to_string(&path).unwrap();
            let gone = whole.lines().find(|line| line.contains("\"gone\"")).unwrap();
            // Something follows it, or it would be cut off as what was not written whole.
            fs::write(scene.maildrop().join("00003.eml"), message(3)).unwrap();
            assert_eq!(scene.run(server.port()), Exit::Done);
            let whole = fs::read_to_string(&path).unwrap();
            fs::write(&path, whole.replace(gone, &flipped(gone))).unwrap();
            fs::write(scene.maildrop().join("00001.eml"), report("two")).unwrap();
            if sealed {
                assert_eq!(rebuild(&scene).0, Some(0));
            }
            let mut job = scene.job(server.port());
            if deletes {
                job.delete = Deletion::After { after: Duration::ZERO, keep_newest: 0, max_fraction: 1.0 };
            }
            let sent = scene.sent();
            assert_eq!(scene.run_with(&job), Exit::Done);
            let archived = scene.archived();
            assert!(
                sent.keys().all(|message| archived.contains_key(message)),
                "sealed: {sealed}, deletes: {deletes}"
            );
            assert_eq!(scene.sent().is_empty(), deletes);
        }
    }
}

/// The last line said that a UIDL is free, and is spoilt. Whoever opens the archive first, and however often, the UIDL
/// is not believed again.
#[test]
fn a_spoilt_last_line_stays_one_that_may_have_said_something() {
    for opener in ["a run", "rebuild", "verify --server"] {
        let (scene, server) = freed(|_| {});
        let path = scene.store().join("journal.jsonl");
        let whole = fs::read_to_string(&path).unwrap();
        let last = whole.lines().last().unwrap();
        assert!(last.contains("\"gone\""), "{last}");
        fs::write(&path, whole.replace(last, &flipped(last))).unwrap();
        let job = scene.job(server.port());
        let file = job_file(&scene, server.port(), "");
        for _ in 0..2 {
            match opener {
                "rebuild" => assert_eq!(rebuild(&scene).0, Some(0)),
                "a run" => assert_eq!(scene.run_with(&stranger(&job)), Exit::Login),
                _ => {
                    let mut verify = postroom();
                    verify.arg("verify").arg(scene.store()).arg("--server").arg(&file);
                    assert_ne!(output(verify.env("ARCHIVE_TEST_PASSWORD", "wrong")).0, Some(0));
                }
            }
        }
        another_is_not_taken_for_it(&scene, job, opener);
    }
}

/// An older copy of the journal, as from a backup: what its last lines said is known to nobody, and that there were some
/// only to the manifest. One of them said of a UIDL that it is free.
#[test]
fn an_older_journal_is_noticed_and_its_names_are_not_believed() {
    for opener in ["rebuild", "a run"] {
        let mut older = String::new();
        let (scene, server) = freed(|scene| {
            older = fs::read_to_string(scene.store().join("journal.jsonl")).unwrap();
            fs::write(scene.maildrop().join("00003.eml"), message(3)).unwrap();
        });
        fs::write(scene.store().join("journal.jsonl"), &older).unwrap();
        let job = scene.job(server.port());
        let named = fs::read_to_string(scene.store().join("manifest-sha256.txt")).unwrap();
        for _ in 0..2 {
            if opener == "rebuild" {
                assert_eq!(rebuild(&scene).0, Some(0));
                continue;
            }
            assert_eq!(scene.run_with(&stranger(&job)), Exit::Login);
            let now = fs::read_to_string(scene.store().join("manifest-sha256.txt")).unwrap();
            assert_eq!(now, named, "what only the manifest knows stays in it");
            let seals = scene.journal().iter().filter(|line| line["what"] == "sealed").count();
            assert_eq!(seals, 1, "names are doubted once");
        }
        if opener == "a run" {
            let file = job_file(&scene, server.port(), "");
            let (_, _, words) =
                output(postroom().arg("run").arg(&file).env("ARCHIVE_TEST_PASSWORD", "wrong"));
            assert!(
                words.contains("names files that no line") && words.contains("postroom rebuild"),
                "{words}"
            );
        }
        another_is_not_taken_for_it(&scene, job, opener);
    }
}

/// What was missed and is here again makes nothing of a later loss look known, be it of as many files.
#[test]
fn every_loss_casts_its_own_doubt() {
    let (scene, server) = archived(Layout::Dated);
    let path = scene.store().join("journal.jsonl");
    let seals = || scene.journal().iter().filter(|line| line["what"] == "sealed").count();
    for expected in 1..=3 {
        let whole = fs::read_to_string(&path).unwrap();
        let last = whole.trim_end().rfind('\n').unwrap() + 1;
        fs::write(&path, &whole[..last]).unwrap();
        for _ in 0..3 {
            assert_eq!(scene.run(server.port()), Exit::Done);
            assert_eq!(seals(), expected);
        }
        assert_eq!(verify(&scene).0, Some(0), "{}", verify(&scene).1);
        let another = scene.maildrop().join(format!("{:05}.eml", 50 + expected));
        fs::write(another, message(50 + expected)).unwrap();
        assert_eq!(scene.run(server.port()), Exit::Done);
    }
}

/// It is there, so it is not missing; and it is none of what was archived.
#[test]
fn a_file_that_lost_its_line_and_was_changed_is_a_loss() {
    let (scene, _server) = archived(Layout::Dated);
    let path = scene.store().join("journal.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let line = whole.lines().nth(7).unwrap();
    let file = scene.journal()[7]["path"].as_str().unwrap().to_owned();
    fs::write(&path, whole.replace(line, &flipped(line))).unwrap();
    fs::write(scene.store().join(&file), "changed").unwrap();
    let (code, said) = rebuild(&scene);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{file} was in no line of the journal; it is lost or changed")), "{said}");
}

/// Somebody sorted files into folders of their own, and then lines were lost.
#[test]
fn what_only_lies_elsewhere_is_not_lost() {
    for name in ["eml/sorted/invoice.eml", "eml/sorted/"] {
        for remains in [false, true] {
            let (scene, server) = archived(Layout::Dated);
            let path = scene.store().join("journal.jsonl");
            let whole = fs::read_to_string(&path).unwrap();
            let line = whole.lines().nth(7).unwrap();
            let file = scene.journal()[7]["path"].as_str().unwrap().to_owned();
            fs::write(&path, whole.replace(line, &flipped(line))).unwrap();
            let leaf = if name.ends_with('/') { file.rsplit('/').next().unwrap() } else { "" };
            let target = format!("{name}{leaf}");
            fs::create_dir_all(scene.store().join("eml/sorted")).unwrap();
            fs::rename(scene.store().join(&file), scene.store().join(&target)).unwrap();
            if remains {
                fs::write(scene.store().join(&file), "something else").unwrap();
            }
            let (code, said) = rebuild(&scene);
            assert_eq!(code, Some(i32::from(remains)), "{said}");
            assert!(said.contains(&format!("{target} was in no line of the journal and is again")), "{said}");
            assert_eq!(said.contains(&format!("{file} is in no line of the journal")), remains, "{said}");
            fs::remove_file(scene.store().join(&file)).unwrap_or_default();
            assert_eq!(verify(&scene).0, Some(0), "{}", verify(&scene).1);
            assert_eq!(rebuild(&scene).0, Some(0));
            assert_eq!(scene.run(server.port()), Exit::Done);
            assert!(verify(&scene).1.contains(": 20 messages"), "{}", verify(&scene).1);
        }
    }
}
