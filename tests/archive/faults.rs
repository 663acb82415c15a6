//! Servers that misbehave: what can be archived is, the books balance, and nothing is there twice.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use postroom::archive::quarantine;
use postroom::exit::Exit;
use postroom::sandbox::{Muddle, Uidls};

use super::scene::{PASSWORD, Scene, faults, job_file, output, postroom};

#[test]
fn everything_is_archived_byte_for_byte_and_once() {
    let scene = Scene::counting(300);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(scene.archived(), scene.sent());
    assert_eq!(scene.journal().len(), 300);
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(scene.journal().len(), 300, "the second run fetches nothing");
}

#[test]
fn a_refused_message_is_left_and_all_others_are_archived() {
    for uidls in [Uidls::Stable, Uidls::Missing] {
        let scene = Scene::counting(40);
        let server = scene.serve(|options| {
            options.uidls = uidls;
            options.faults = faults(&["retr if=7 reply -ERR cannot read it"]);
        });
        for runs in 1..=3 {
            assert_eq!(scene.run(server.port()), Exit::SomeFailed);
            assert_eq!(scene.archived().len(), 39);
            let notes = quarantine::notes(&scene.store()).expect("readable");
            assert_eq!(notes.iter().map(|note| note.runs).collect::<Vec<_>>(), [runs], "{uidls:?}");
        }
        drop(server);
        let server = scene.serve(|options| options.uidls = uidls);
        assert_eq!(scene.run(server.port()), Exit::Done);
        assert_eq!(scene.archived(), scene.sent());
        assert_eq!(quarantine::notes(&scene.store()).expect("readable"), [], "{uidls:?}");
    }
}

#[test]
fn servers_that_stumble_are_taken_one_by_one_and_remembered() {
    for muddle in [Muddle::Refuse, Muddle::Close, Muddle::Lose] {
        let scene = Scene::counting(30);
        let server = scene.serve(|options| options.muddle = muddle);
        assert_eq!(scene.run(server.port()), Exit::Done, "{muddle:?}");
        assert_eq!(scene.archived(), scene.sent(), "{muddle:?}");
        let stumbles = scene.journal().iter().filter(|line| line["what"] == "stumbled").count();
        assert_eq!(stumbles, 1, "{muddle:?}");
        assert_eq!(scene.run(server.port()), Exit::Done);
    }
}

#[test]
fn a_connection_cut_within_a_message_is_made_anew() {
    let scene = Scene::counting(60);
    let server = scene.serve(|options| options.faults = faults(&["body if=31 at=200 first=1 drop"]));
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(scene.archived(), scene.sent());
    let scene = Scene::counting(60);
    let server = scene.serve(|options| options.faults = faults(&["body if=31 at=200 drop"]));
    assert_eq!(scene.run(server.port()), Exit::SomeFailed, "it breaks every time");
    assert_eq!(scene.archived().len(), 59);
}

#[test]
fn a_message_that_has_no_answer_does_not_keep_the_others_back() {
    for (rule, together, runs) in [
        ("retr if=7 drop", true, 1),
        ("retr if=7 reply +OKAY WORLD", true, 1),
        ("retr if=7 drop", false, 2),
        ("retr if=7 flood", false, 1),
        ("retr if=7 hang", false, 1),
    ] {
        let scene = Scene::counting(20);
        let server = scene.serve(|options| {
            options.faults = faults(&[rule]);
            options.hide = if together { Vec::new() } else { vec!["PIPELINING".into()] };
        });
        let mut job = scene.job(server.port());
        job.mailboxes[0].timeouts.command = Duration::from_secs(1);
        for run in 1..=runs {
            assert_eq!(scene.run_with(&job), Exit::SomeFailed, "{rule} {together}");
            assert_eq!(scene.archived().len(), 19, "{rule} {together}");
            let notes = quarantine::notes(&scene.store()).expect("readable");
            assert_eq!(notes.iter().map(|note| note.runs).collect::<Vec<_>>(), [run], "{rule} {together}");
        }
        let stumbled = scene.journal().iter().any(|line| line["what"] == "stumbled");
        assert!(!stumbled, "{rule} {together}: it was the message");
    }
}

#[test]
fn uidls_may_change_be_shared_or_be_missing() {
    let scene = Scene::counting(50);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    drop(server);
    let count = |what: &str| scene.journal().iter().filter(|line| line["what"] == what).count();
    // Changed ones are new in each session; without any there is nothing to enter; shared ones are entered once.
    for (uidls, probably) in [(Uidls::Changed, 100), (Uidls::Missing, 100), (Uidls::Duplicate, 150)] {
        let server = scene.serve(|options| options.uidls = uidls);
        for _ in 0..2 {
            assert_eq!(scene.run(server.port()), Exit::Done, "{uidls:?}");
            assert_eq!(scene.archived(), scene.sent(), "{uidls:?}");
        }
        let lines = (count("kept"), count("probably"), count("duplicate"));
        assert_eq!(lines, (50, probably, 0), "{uidls:?}: nothing is fetched again");
    }
}

#[test]
fn what_is_only_probably_archived_is_never_deleted_unread() {
    let scene = Scene::counting(20);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    drop(server);
    let server = scene.serve(|options| options.uidls = Uidls::Changed);
    assert_eq!(scene.run(server.port()), Exit::Done);
    let mut job = scene.job(server.port());
    job.delete = postroom::job::Deletion::After {
        after: std::time::Duration::from_secs(3600),
        keep_newest: 0,
        max_fraction: 1.0,
    };
    assert_eq!(scene.run_with(&job), Exit::Done);
    assert_eq!(scene.sent().len(), 20);
    let fetched = scene.journal().iter().filter(|line| line["what"] == "duplicate").count();
    assert_eq!(fetched, 20, "a job that deletes wants the bytes");
}

#[test]
fn a_mailbox_in_use_is_waited_for() {
    let scene = Scene::counting(5);
    let server = scene.serve(|options| options.faults = faults(&["auth first=1 reply -ERR [IN-USE] locked"]));
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(scene.archived(), scene.sent());
}

#[test]
fn wrong_sizes_are_a_warning() {
    let scene = Scene::counting(50);
    let server = scene.serve(|options| options.wrong_sizes = true);
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(scene.archived(), scene.sent());
    assert!(scene.journal().iter().all(|line| line["what"] == "kept"));
}

/// A message of another size than LIST says is asked for twice. What cannot be had twice keeps no other back.
#[test]
fn a_message_of_a_wrong_size_that_is_given_once_is_left_for_the_next_run() {
    for refused in [1, 5] {
        let scene = Scene::counting(20);
        let server = scene.serve(|options| {
            options.wrong_sizes = true;
            let once = |n| format!("retr if={n} every=2 reply -ERR read once");
            let once: Vec<String> = (1..=refused).map(once).collect();
            options.faults = faults(&once.iter().map(String::as_str).collect::<Vec<_>>());
        });
        assert_eq!(scene.run(server.port()), Exit::SomeFailed);
        assert_eq!(scene.archived().len(), 20 - refused);
        assert_eq!(scene.run(server.port()), Exit::Done);
        assert_eq!(scene.archived(), scene.sent());
    }
}

#[test]
fn a_server_that_lists_less_than_it_counts_is_no_success() {
    for (stat, list, missing) in [
        ("3 30", "1 10\r\n", "2 more"),
        ("2 20", "1 10\r\n2 ?\r\n", "1 more"),
        ("1 10", "1 10\r\ntwo\r\n", "1 more"),
    ] {
        let scene = Scene::with(&[]);
        let port = scripted(&[
            ("STAT", &format!("+OK {stat}\r\n")),
            ("LIST", &format!("+OK\r\n{list}.\r\n")),
            ("UIDL", "+OK\r\n1 one\r\n2 two\r\n.\r\n"),
            ("RETR", "+OK\r\nS: x\r\n\r\nx\r\n.\r\n"),
            ("CAPA", "-ERR\r\n"),
        ]);
        let job = job_file(&scene, port, "");
        let (code, said, words) = output(postroom().args(["run", "--yes"]).arg(&job));
        assert_eq!((code, scene.archived().len()), (Some(1), 1), "{stat} {list}: {said}{words}");
        assert!(said.contains(missing), "{said}");
    }
}

/// A server that answers each command with the same words, and those it does not know with `+OK`.
fn scripted(answers: &[(&str, &str)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: Vec<(String, String)> =
        answers.iter().map(|(word, answer)| (word.to_string(), answer.to_string())).collect();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            socket.write_all(b"+OK\r\n").unwrap();
            for line in BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok) {
                let answer = answers.iter().find(|(word, _)| line.starts_with(word));
                let answer = answer.map_or("+OK\r\n", |(_, answer)| answer);
                if socket.write_all(answer.as_bytes()).is_err() || line.starts_with("QUIT") {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn what_a_server_repeats_of_a_login_is_shown_nowhere() {
    let scene = Scene::counting(0);
    let repeats = format!("-ERR unknown command: PASS {PASSWORD}\r\n");
    let port = scripted(&[("AUTH", "-ERR\r\n"), ("CAPA", "+OK\r\nUSER\r\n.\r\n"), ("PASS", &repeats)]);
    let job = job_file(&scene, port, "");
    let (code, said, words) = output(postroom().args(["run", "--yes", "--trace"]).arg(&job));
    assert_eq!(code, Some(77), "{words}");
    assert!(!words.contains(PASSWORD) && !said.contains(PASSWORD), "{words}");
    assert!(words.contains("unknown command: PASS [secret]"), "{words}");
}

#[test]
fn deletions_that_the_server_refuses_are_no_success() {
    for (rule, refused) in [("dele if=2 reply -ERR read only", 1), ("quit reply -ERR not deleted", 3)] {
        let scene = Scene::counting(3);
        let server = scene.serve(|options| options.faults = faults(&[rule]));
        let job = job_file(&scene, server.port(), "delete: {after: 0s, max_fraction: 100%}");
        let (code, said, words) = output(postroom().args(["run", "--yes"]).arg(&job));
        assert_eq!((code, scene.archived().len()), (Some(1), 3), "{rule}: {said}{words}");
        assert!(said.contains(&format!("{refused} deletions refused by the server")), "{said}");
    }
}

#[test]
fn servers_that_cannot_be_used_have_their_exit_codes() {
    for (rule, expected) in [
        ("pass reply -ERR [AUTH] no", Exit::Login),
        ("auth reply -ERR [AUTH] no", Exit::Login),
        ("connect flood", Exit::Protocol),
        ("list flood", Exit::Protocol),
        ("uidl flood", Exit::Protocol),
        ("retr flood", Exit::Protocol),
        ("connect close +OKAY 220 smtp.example.com ESMTP", Exit::Protocol),
    ] {
        let scene = Scene::counting(3);
        let server = scene.serve(|options| {
            options.faults = faults(&[rule]);
            if rule.starts_with("pass") {
                options.hide = vec!["SASL PLAIN".into()];
            }
        });
        assert_eq!(scene.run(server.port()), expected, "{rule}");
    }
}

/// One size by LIST that cannot be keeps nobody else's message on the server.
#[test]
fn a_message_larger_than_the_disk_is_left_and_the_others_come() {
    use std::io::{BufRead, BufReader, Write};
    let scene = Scene::with(&[]);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (peer, _) = server.accept().unwrap();
        let mut say = peer.try_clone().unwrap();
        say.write_all(b"+OK\r\n").unwrap();
        for line in BufReader::new(peer).lines() {
            let answer = match line.unwrap().as_str() {
                "LIST" => "+OK\r\n1 14\r\n2 1099511627776\r\n3 14\r\n.\r\n",
                "UIDL" => "+OK\r\n1 a\r\n2 b\r\n3 c\r\n.\r\n",
                "RETR 1" => "+OK\r\nSubject: 1\r\n\r\n.\r\n",
                "RETR 3" => "+OK\r\nSubject: 3\r\n\r\n.\r\n",
                "CAPA" => "-ERR\r\n",
                "STAT" => "+OK 3 1\r\n",
                _ => "+OK\r\n",
            };
            say.write_all(answer.as_bytes()).unwrap();
        }
    });
    let disk = rustix::fs::statvfs(scene.folder.path()).unwrap();
    if disk.f_blocks.saturating_mul(disk.f_frsize) >= 1 << 40 {
        eprintln!("LEFT OUT: the disk has room for a terabyte");
        return;
    }
    assert_eq!(scene.run(port), Exit::SomeFailed);
    assert_eq!(scene.archived().len(), 2);
}
