//! UIDLs that come back on other messages: what is under a known name is believed only as far as it was seen.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use postroom::exit::Exit;
use postroom::job::Deletion;

use super::scene::{Scene, job_file, message, output, postroom};

const DELETES: Deletion = Deletion::After { after: Duration::ZERO, keep_newest: 0, max_fraction: 1.0 };

/// A message without anything that tells it from the next but its body, which is always as long.
fn report(body: &str) -> Vec<u8> {
    format!("From: cron@example.org\r\nSubject: report\r\n\r\n{body:>8}\r\n").into_bytes()
}

#[test]
fn a_name_that_comes_back_on_another_message_hides_nothing() {
    type Boxes<'a> = &'a [&'a [(usize, Vec<u8>)]];
    let (never, deletes) = (&Deletion::Never, &DELETES);
    // What lies in the maildrop before each run, by name, and what the runs delete. `usize` is the name.
    let made_anew: Boxes = &[&[(1, message(1)), (2, message(2))], &[(1, message(3)), (2, message(4))]];
    let partly_as_long: Boxes = &[&[(1, report("a")), (2, message(2))], &[(1, report("b")), (2, message(4))]];
    let given_again: Boxes = &[&[(1, report("a"))], &[(1, report("b"))]];
    let once_absent: Boxes = &[&[(1, report("a")), (2, message(2))], &[(2, message(2))], &[(1, report("b"))]];
    let other_header: Boxes = &[&[(1, message(70))], &[], &[(1, message(71))]];
    for (what, boxes, policies) in [
        ("made anew", made_anew, &[never, deletes][..]),
        ("made anew, nothing deleted", made_anew, &[never, never]),
        ("made anew, one as long as before", partly_as_long, &[never, deletes]),
        ("given again after a deletion", given_again, &[deletes, deletes]),
        ("absent from one listing", once_absent, &[never, never, deletes]),
        ("absent from one listing, nothing deleted", other_header, &[never, never, never]),
    ] {
        let scene = Scene::with(&[]);
        let server = scene.serve(|_| {});
        let mut all: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (messages, policy) in boxes.iter().zip(policies) {
            for entry in fs::read_dir(scene.maildrop()).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            for (name, text) in *messages {
                fs::write(scene.maildrop().join(format!("{name:05}.eml")), text).unwrap();
                all.insert(text.clone(), 1);
            }
            let mut job = scene.job(server.port());
            job.delete = (*policy).clone();
            assert_eq!(scene.run_with(&job), Exit::Done, "{what}");
            assert!(scene.archived() == all, "{what}");
            assert!(scene.sent().is_empty() || **policy == Deletion::Never, "{what}");
        }
        // What is deleted by now is seen by the next listing; after that nothing is left to write.
        let mut job = scene.job(server.port());
        job.delete = policies[policies.len() - 1].clone();
        assert_eq!(scene.run_with(&job), Exit::Done, "{what}");
        let lines = scene.journal().len();
        assert_eq!(scene.run_with(&job), Exit::Done, "{what}");
        assert_eq!(scene.journal().len(), lines, "{what}: an unchanged mailbox asks for nothing");
    }
}

#[test]
fn two_ports_of_one_host_are_two_mailboxes() {
    let [one, other] = [Scene::counting(3), Scene::with(&[&message(20), &message(21)])];
    let servers = [one.serve(|_| {}), other.serve(|_| {})];
    let mut job = one.job(servers[0].port());
    job.mailboxes.extend(other.job(servers[1].port()).mailboxes);
    job.delete = DELETES;
    let all: usize = one.sent().len() + other.sent().len();
    for _ in 0..2 {
        assert_eq!(one.run_with(&job), Exit::Done);
        assert_eq!((one.archived().len(), one.sent().len(), other.sent().len()), (all, 0, 0));
    }
}

#[test]
fn verify_does_not_believe_a_name_of_another_size() {
    let scene = Scene::counting(3);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    fs::write(scene.maildrop().join("00002.eml"), message(30)).unwrap();
    let job = job_file(&scene, server.port(), "");
    let (code, found, words) = output(postroom().arg("verify").arg(scene.store()).arg("--server").arg(&job));
    assert_eq!(code, Some(1), "{words}");
    assert!(found.contains("3 on the server, 1 not archived"), "{found}");
}
