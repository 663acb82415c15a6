//! A maildrop of the sandbox, a store, and a job between them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroom::archive::session::Stop;
use postroom::exit::Exit;
use postroom::job::{
    ArchiveJob, Auth, Credential, Deletion, Layout, MailboxSpec, Timeouts, TlsMode, TlsSpec,
};
use postroom::run::archive::Options;
use postroom::sandbox::{Fault, Maildrop, MaildropOptions, Protocol};
use postroom::secret::Secret;

pub(crate) const USER: &str = "ada";
pub(crate) const PASSWORD: &str = "hunter2";

/// What a test is about.
pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    /// The port is part of a mailbox's name: a server that is started again has the same one.
    port: Cell<u16>,
}

impl Scene {
    /// A maildrop with these messages, in this order.
    pub(crate) fn with(messages: &[&[u8]]) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let drop = folder.path().join("maildrop");
        fs::create_dir(&drop).unwrap();
        for (number, message) in (1..).zip(messages) {
            fs::write(drop.join(format!("{number:05}.eml")), message).unwrap();
        }
        Scene { folder, port: Cell::new(0) }
    }

    /// A maildrop with `count` messages of different sizes.
    pub(crate) fn counting(count: usize) -> Scene {
        let messages: Vec<Vec<u8>> = (0..count).map(message).collect();
        Scene::with(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    pub(crate) fn maildrop(&self) -> PathBuf {
        self.folder.path().join("maildrop")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Starts the server.
    pub(crate) fn serve(&self, change: impl FnOnce(&mut MaildropOptions)) -> Maildrop {
        let mut options = MaildropOptions::new(self.maildrop(), USER, Secret::new(PASSWORD));
        options.listen.set_port(self.port.get());
        change(&mut options);
        let server = Maildrop::start(options).unwrap();
        self.port.set(server.port());
        server
    }

    /// The job.
    pub(crate) fn job(&self, port: u16) -> ArchiveJob {
        let timeouts = Timeouts {
            greeting: Duration::from_secs(5),
            command: Duration::from_secs(4),
            ..Timeouts::default()
        };
        ArchiveJob {
            path: self.folder.path().join("job.yaml"),
            root: self.folder.path().to_owned(),
            name: "test".into(),
            mailboxes: vec![MailboxSpec {
                name: MailboxSpec::name_of(USER, "127.0.0.1", port, TlsMode::None),
                host: "127.0.0.1".into(),
                port,
                provider: None,
                tls: TlsSpec { mode: TlsMode::None, ca_file: None, client_cert: None, only_tls13: false },
                auth: Auth {
                    user: USER.into(),
                    credential: Credential::Literal(Secret::new(PASSWORD)),
                    mechanism: None,
                    token: false,
                },
                apop: false,
                pipelining: None,
                timeouts,
                proxy: None,
            }],
            store: self.store(),
            layout: Layout::Dated,
            delete: Deletion::Never,
            warnings: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// Runs the job as it is.
    pub(crate) fn run(&self, port: u16) -> Exit {
        self.run_with(&self.job(port))
    }

    pub(crate) fn run_with(&self, job: &ArchiveJob) -> Exit {
        postroom::run::archive::run(
            job,
            &Options { quiet: true, stop: Stop::default(), ..Options::default() },
        )
    }

    /// The messages of the maildrop as RETR gives them: lines ended by CRLF.
    pub(crate) fn sent(&self) -> BTreeMap<Vec<u8>, usize> {
        collect(&self.maildrop(), |bytes| bytes)
    }

    /// The messages of the archive.
    pub(crate) fn archived(&self) -> BTreeMap<Vec<u8>, usize> {
        collect(&self.store().join("eml"), |bytes| bytes)
    }

    /// Lines of the journal.
    pub(crate) fn journal(&self) -> Vec<serde_json::Value> {
        fs::read_to_string(self.store().join("journal.jsonl"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn collect(folder: &Path, shape: impl Fn(Vec<u8>) -> Vec<u8>) -> BTreeMap<Vec<u8>, usize> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_file() {
            match fs::read(entry.path()) {
                Ok(bytes) => *found.entry(shape(bytes)).or_insert(0) += 1,
                // The server goes on deleting what a client asked for before it was killed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", entry.path().display()),
            }
        }
    }
    found
}

/// A message, different for each number, dated a minute after the last.
pub(crate) fn message(number: usize) -> Vec<u8> {
    let mut text = format!(
        "Received: from a.example by b.example; Mon, 2 Nov 2026 {:02}:{:02}:00 +0000\r\n\
         From: Sender {number} <s{number}@example.org>\r\nTo: ada@example.com\r\n\
         Subject: Number {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n",
        number / 60 % 24,
        number % 60
    );
    for line in 0..(number * 7 % 40) {
        text.push_str(&format!("line {line} of message {number}\r\n.{line} begins with a dot\r\n"));
    }
    text.into_bytes()
}

/// Fault rules of the maildrop.
pub(crate) fn faults(rules: &[&str]) -> Vec<Fault> {
    rules.iter().map(|rule| Fault::parse(rule, Protocol::Pop3, 1).unwrap()).collect()
}

/// What a file says that the real binary reads as its job.
pub(crate) fn job_file(scene: &Scene, port: u16, more: &str) -> PathBuf {
    let path = scene.folder.path().join("job.yaml");
    let text = format!(
        "kind: archive\nname: test\nmailbox:\n  host: 127.0.0.1\n  port: {port}\n  tls: none\n  \
         auth: {{user: {USER}, password: {{env: ARCHIVE_TEST_PASSWORD}}}}\nstore: store\n{more}\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// The real binary.
pub(crate) fn postroom() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postroom"));
    command.env("ARCHIVE_TEST_PASSWORD", PASSWORD).env_remove("POSTROOM_FAILPOINT");
    command
}

/// Runs the binary to its end: exit code, stdout, stderr.
pub(crate) fn output(command: &mut std::process::Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
