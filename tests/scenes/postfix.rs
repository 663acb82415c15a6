//! Against Debian's Postfix, at its strictest: the list arrives complete, each once, counted from
//! Postfix's side.

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, numbered};
use crate::servers::{PASSWORD, Servers, USER};

const LETTERS: usize = 5_000;

#[test]
fn five_thousand_rows_arrive_each_once() {
    let Some(servers) = Servers::start() else { return };
    let ca = servers.ca().display().to_string();
    let secure = |mode: &str, port: u16, mechanism: &str| {
        format!(
            "host: localhost, port: {port}, tls: {mode}, ca_file: {ca}, \
             auth: {{user: {USER}, password: {{env: PASSWORD}}, mechanism: {mechanism}}}"
        )
    };
    let plain =
        |level: &str| format!("host: 127.0.0.1, port: {}, tls: none, pipelining: {level}", servers.smtp);
    for (what, relay) in [
        ("in clear, one command at a time", plain("off")),
        ("in clear, envelopes in flight", plain("envelope")),
        ("in clear, as far as it goes", plain("auto")),
        ("STARTTLS, PLAIN", secure("starttls", servers.submission, "plain")),
        ("STARTTLS, LOGIN", secure("starttls", servers.submission, "login")),
        ("implicit TLS, PLAIN", secure("implicit", servers.smtps, "plain")),
        ("implicit TLS, LOGIN", secure("implicit", servers.smtps, "login")),
    ] {
        let job = SHORT.replace("host: 127.0.0.1, port: @PORT@, tls: none", &relay);
        assert_ne!(job, SHORT, "the relay is put in");
        let scene = Scene::new().job(&job).recipients(&numbered(LETTERS)).env("PASSWORD", PASSWORD);
        scene.send().exit(Exit::Done);
        let received = servers.collect(LETTERS);
        let twice: Vec<_> = received.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "{what}: more than once: {twice:?}");
        let missing: Vec<_> = (0..LETTERS)
            .map(|n| format!("u{n}@example.org"))
            .filter(|who| !received.contains_key(who))
            .collect();
        assert!(missing.is_empty(), "{what}: never arrived: {missing:?}");
        assert_eq!(received.len(), LETTERS, "{what}");
        assert_eq!(servers.complaints(), [] as [&str; 0], "{what}");
    }
}

#[test]
fn a_wrong_password_is_refused_by_dovecot_once() {
    let Some(servers) = Servers::start() else { return };
    let relay = format!(
        "host: localhost, port: {}, tls: starttls, ca_file: {}, auth: {{user: {USER}, password: {{env: PASSWORD}}}}",
        servers.submission,
        servers.ca().display()
    );
    let job = SHORT.replace("host: 127.0.0.1, port: @PORT@, tls: none", &relay);
    let scene = Scene::new().job(&job).recipients(&numbered(3)).env("PASSWORD", "not-this-one");
    scene.send().exit(Exit::Login).never_says(&["not-this-one"]);
    let attempts = servers.complaints();
    let attempts = attempts.iter().filter(|line| line.contains("authentication failed")).count();
    assert_eq!(attempts, 1);
}
