//! The sandbox as a process: what a client that is no part of ours sees of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::scene::{RelayProcess, Scene};

fn talk(relay: &RelayProcess, script: &[(&str, &str)]) {
    let mut socket = TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay's port");
    let mut replies = BufReader::new(socket.try_clone().expect("a socket can be cloned"));
    for (command, expected) in script {
        socket.write_all(command.as_bytes()).expect("the relay reads");
        let mut line = String::new();
        while line.is_empty() || line.as_bytes().get(3) == Some(&b'-') {
            line.clear();
            if replies.read_line(&mut line).expect("the relay answers") == 0 {
                break; // a close is the empty answer
            }
        }
        assert!(line.starts_with(expected), "{command:?}: {line:?}, not {expected:?}");
    }
}

#[test]
fn a_letter_is_in_the_log_before_its_reply() {
    let scene = Scene::new().relay(["--fault", "commit first=1 drop"]);
    talk(
        scene.its_relay(),
        &[
            ("", "220"),
            ("EHLO me\r\n", "250"),
            ("MAIL FROM:<a@x>\r\n", "250"),
            ("RCPT TO:<b@x>\r\n", "250"),
            ("DATA\r\n", "354"),
            ("Message-ID: <1@x>\r\n\r\nhi\r\n.\r\n", ""),
        ],
    );
    let letters = scene.its_relay().letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message_id, "<1@x>");
    assert_eq!(scene.its_relay().events("fault").len(), 1);
}

#[test]
fn a_rule_that_cannot_be_read_is_a_mistake_of_usage() {
    Scene::new().run("sandbox --smtp 0 --fault rcpt").exit(postroom::exit::Exit::Usage).says(&["no action"]);
}
