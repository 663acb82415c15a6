//! Servers that misbehave: what can be archived is, the books balance, and nothing is there twice.

use postroom::archive::quarantine;
use postroom::exit::Exit;
use postroom::sandbox::{Muddle, Uidls};

use super::scene::{Scene, faults};

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
