//! Against Dovecot: files are byte for byte what RETR gives, a second run fetches nothing, and deletion
//! is real.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use postroom::exit::Exit;
use postroom::job::{Credential, Deletion, Mechanism};
use postroom::secret::Secret;
use ring::hmac;

use super::scene::{PASSWORD, Scene, USER, message};

/// What tokens are signed with.
const TOKEN_KEY: &[u8] = b"a key of thirty-two octets, or so";

/// An access token as Dovecot checks it by itself (RFC 7519, HS256), that is good for so many seconds.
fn token(seconds: i64) -> String {
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds;
    let claims = format!(r#"{{"sub":"{USER}","iat":{0},"nbf":{0},"exp":{until}}}"#, until - 7200);
    let parts = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = parts.join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TOKEN_KEY), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

struct Dovecot {
    root: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Dovecot {
    /// A server over a Maildir of these messages; `None` where Dovecot cannot run.
    fn start(messages: &[Vec<u8>]) -> Option<Dovecot> {
        let root_user = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        if !root_user || !Path::new("/usr/lib/dovecot/pop3").exists() {
            assert!(std::env::var_os("CI").is_none(), "Dovecot with POP3, and root, are needed");
            eprintln!("LEFT OUT: dovecot-pop3d and root are needed");
            return None;
        }
        let root = tempfile::Builder::new().prefix("dovecot").tempdir().unwrap();
        let path = root.path();
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(path.join(USER).join("Maildir").join(part)).unwrap();
        }
        for (number, text) in messages.iter().enumerate() {
            let name = format!("{}.M{number}P1.test,S={}:2,S", 1_700_000_000 + number, text.len());
            fs::write(path.join(USER).join("Maildir/cur").join(name), text).unwrap();
        }
        let nobody = |which: &str| {
            let output = Command::new("id").args([which, "nobody"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shown = path.display();
        let (uid, gid) = (nobody("-u"), nobody("-g"));
        let conf = format!(
            "protocols = pop3\nlisten = 127.0.0.1\nbase_dir = {shown}/run\nstate_dir = {shown}/run\n\
             log_path = {shown}/dovecot.log\nssl = no\ndisable_plaintext_auth = no\n\
             default_internal_user = dovecot\ndefault_login_user = dovenull\n\
             mail_location = maildir:{shown}/%u/Maildir\nmail_uid = {uid}\nmail_gid = {gid}\nfirst_valid_uid = 1\n\
             auth_mechanisms = plain login apop cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer\n\
             passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {shown}/oauth2.conf\n}}\n\
             passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
             auth_failure_delay = 0\n\
             userdb {{\n  driver = static\n  args = uid={uid} gid={gid} home={shown}/%u\n}}\n\
             service pop3-login {{\n  inet_listener pop3 {{\n    port = {port}\n  }}\n  inet_listener pop3s {{\n    port = 0\n  }}\n}}\n\
             service anvil {{\n  chroot =\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n"
        );
        fs::write(path.join("dovecot.conf"), conf).unwrap();
        let oauth2 = format!(
            "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={shown}/keys/\n\
             username_attribute = sub\n"
        );
        fs::write(path.join("oauth2.conf"), oauth2).unwrap();
        fs::create_dir_all(path.join("keys/default/HS256")).unwrap();
        fs::write(path.join("keys/default/HS256/default"), STANDARD.encode(TOKEN_KEY)).unwrap();
        let owned = Command::new("chown").args(["-R", "nobody"]).arg(path).status().unwrap();
        assert!(owned.success());
        let process = Command::new("/usr/sbin/dovecot")
            .args(["-F", "-c"])
            .arg(path.join("dovecot.conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "Dovecot does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Dovecot { root, port, process })
    }

    fn maildir(&self) -> PathBuf {
        self.root.path().join(USER).join("Maildir/cur")
    }

    /// What a plain socket reads of RETR: the judge of our client, and nothing of it.
    fn retrieved(&self) -> BTreeSet<Vec<u8>> {
        let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        let mut line = String::new();
        socket.read_line(&mut line).unwrap();
        let ask = |socket: &mut BufReader<TcpStream>, command: &str| {
            socket.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
            let mut line = Vec::new();
            socket.read_until(b'\n', &mut line).unwrap();
            assert!(line.starts_with(b"+OK"), "{command}: {}", String::from_utf8_lossy(&line));
            String::from_utf8_lossy(&line).into_owned()
        };
        ask(&mut socket, &format!("USER {USER}"));
        ask(&mut socket, &format!("PASS {PASSWORD}"));
        let stat = ask(&mut socket, "STAT");
        let count: usize = stat.split(' ').nth(1).unwrap().parse().unwrap();
        let mut found = BTreeSet::new();
        for number in 1..=count {
            ask(&mut socket, &format!("RETR {number}"));
            let mut wire = b"\r\n".to_vec();
            let mut byte = [0];
            while !wire.ends_with(b"\r\n.\r\n") {
                socket.read_exact(&mut byte).unwrap();
                wire.push(byte[0]);
            }
            let text =
                String::from_utf8(wire.iter().map(|&byte| byte as char).collect::<String>().into_bytes())
                    .unwrap();
            let text = text[..text.len() - 3].replace("\r\n.", "\r\n");
            found.insert(text[2..].chars().map(|c| c as u8).collect());
        }
        ask(&mut socket, "QUIT");
        found
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // Its master ends its children on SIGTERM; killing it would leave them.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// Bodies that servers and clients are known to change.
fn awkward() -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = (0..200).map(message).collect();
    for body in [
        &b"no line end"[..],
        b".\n..\n.leading dots\n",
        b"bare LF\nand CRLF\r\nmixed\n\r\n",
        b"8 bit \xe4\xf6\xfc \xb7\xa2\xc6\xb1\n",
        b"\n\n\n",
        b"",
        b"a lone \r in a line\n",
    ] {
        let mut text = b"From: a@example.org\nSubject: awkward\n\n".to_vec();
        text.extend_from_slice(body);
        messages.push(text);
    }
    let mut long = b"Subject: one long line\n\n".to_vec();
    long.resize(3_000_000, b'x');
    messages.push(long);
    messages
}

#[test]
fn dovecots_messages_are_archived_as_they_are_sent_and_deleted_when_asked() {
    let Some(server) = Dovecot::start(&awkward()) else { return };
    let scene = Scene::with(&[]);
    let expected = server.retrieved();
    assert_eq!(scene.run(server.port), Exit::Done);
    let archived: BTreeSet<Vec<u8>> = scene.archived().into_keys().collect();
    assert_eq!(archived.len(), expected.len());
    assert!(archived == expected, "some file differs from what RETR gives");
    let lines = scene.journal().len();
    assert_eq!(scene.run(server.port), Exit::Done);
    assert_eq!(scene.journal().len(), lines, "the second run fetches nothing");

    let mut job = scene.job(server.port);
    job.delete = Deletion::After { after: Duration::ZERO, keep_newest: 50, max_fraction: 1.0 };
    assert_eq!(scene.run_with(&job), Exit::Done);
    assert_eq!(fs::read_dir(server.maildir()).unwrap().count(), 50);
    assert_eq!(scene.run_with(&job), Exit::Done);
    let deleted = scene.journal().iter().filter(|line| line["what"] == "deleted").count();
    assert_eq!(deleted, expected.len() - 50);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Password,
    Token,
    Apop,
}

#[test]
fn dovecot_takes_every_login() {
    let Some(server) = Dovecot::start(&[message(1)]) else { return };
    use Mechanism::{CramMd5, Login, OAuthBearer, Plain, ScramSha1, ScramSha256, XOAuth2};
    let (fresh, stale) = (token(3600), token(-3600));
    let with_password = [None, Some(Plain), Some(Login), Some(CramMd5), Some(ScramSha1), Some(ScramSha256)];
    let with_token = [None, Some(XOAuth2), Some(OAuthBearer)];
    let password = with_password.map(|mechanism| (By::Password, mechanism, PASSWORD, Exit::Done));
    let wrong = with_password.map(|mechanism| (By::Password, mechanism, "wrong", Exit::Login));
    let fresh = with_token.map(|mechanism| (By::Token, mechanism, fresh.as_str(), Exit::Done));
    let stale = with_token.map(|mechanism| (By::Token, mechanism, stale.as_str(), Exit::Login));
    let apop = [(By::Apop, None, PASSWORD, Exit::Done), (By::Apop, None, "wrong", Exit::Login)];
    for (by, mechanism, secret, expected) in
        password.into_iter().chain(fresh).chain(stale).chain(wrong).chain(apop)
    {
        let scene = Scene::with(&[]);
        let mut job = scene.job(server.port);
        let mailbox = &mut job.mailboxes[0];
        mailbox.auth.mechanism = mechanism;
        mailbox.auth.credential = Credential::Literal(Secret::new(secret));
        mailbox.auth.token = by == By::Token;
        mailbox.apop = by == By::Apop;
        assert_eq!(scene.run_with(&job), expected, "{by:?} {mechanism:?} {secret}");
        assert_eq!(scene.archived().len(), usize::from(expected == Exit::Done));
    }
}
