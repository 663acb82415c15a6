//! The stage: [`Scene`] builds a project in a temporary folder, [`RelayProcess`] is `postroom
//! sandbox`, [`Run`] is what a command said and how it ended.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postroom::exit::Exit;
use serde_json::Value as Json;

/// A command that has not ended by then never will; nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(300);

/// The binary under test.
pub const POSTROOM: &str = env!("CARGO_BIN_EXE_postroom");

/// A relay that takes everything, and a job of one line of text for it.
pub const SHORT: &str = r#"
kind: send
name: short
edition: "1"
from: Post Room <news@example.com>
recipients: {file: list.csv}
subject: "Hello {{ name }}"
body: {text: {inline: "Dear {{ name }},\nall is well.\n"}}
relay: {host: 127.0.0.1, port: @PORT@, tls: none, retry: {first: 1s, factor: 1, max: 1s, stay: 60s}}
"#;

/// A project in a folder of its own.
pub struct Scene {
    folder: tempfile::TempDir,
    relay: Option<RelayProcess>,
    environment: BTreeMap<String, String>,
}

impl Scene {
    /// An empty project.
    pub fn new() -> Scene {
        let folder = tempfile::Builder::new().prefix("scene-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("postroom.yaml"), "{}\n").expect("postroom.yaml");
        Scene { folder, relay: None, environment: BTreeMap::new() }
    }

    /// A copy of the repository's own project: jobs, templates, data, images.
    pub fn of_the_repository() -> Scene {
        let scene = Scene::new();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for part in ["postroom.yaml", "jobs", "templates", "data", "images"] {
            copy(&repository.join(part), &scene.path(part));
        }
        scene
    }

    /// Starts a relay; `arguments` are those of `postroom sandbox`. What it accepts is in its log.
    pub fn relay<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Scene {
        self.relay = Some(RelayProcess::start(&self.path("relay"), arguments));
        self
    }

    /// Writes `job.yaml`; `@PORT@` becomes the relay's port, so the relay comes first.
    pub fn job(self, text: &str) -> Scene {
        self.file("job.yaml", text)
    }

    /// Writes `list.csv`.
    pub fn recipients(self, csv: &str) -> Scene {
        self.file("list.csv", csv)
    }

    /// Writes any file; in text, `@PORT@` becomes the relay's port.
    pub fn file(self, name: &str, text: &str) -> Scene {
        let text = match &self.relay {
            Some(relay) => text.replace("@PORT@", &relay.port.to_string()),
            None => text.to_owned(),
        };
        self.bytes(name, text.as_bytes())
    }

    /// Writes any file as it is.
    pub fn bytes(self, name: &str, bytes: &[u8]) -> Scene {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Scene {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A path in the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The relay of this scene.
    pub fn its_relay(&self) -> &RelayProcess {
        self.relay.as_ref().expect("the scene has a relay")
    }

    /// A command that can be started in the project's folder, without a terminal.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(POSTROOM);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("NO_COLOR")
            // What runs of one user share, only those of this scene share.
            .env("XDG_STATE_HOME", self.path(".state"))
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end. `line` is split at spaces.
    pub fn run(&self, line: &str) -> Run {
        finish(self.command(line.split(' ')).spawn().expect("the binary starts"), line)
    }

    /// `run --yes job.yaml`
    pub fn send(&self) -> Run {
        self.run("run --yes job.yaml")
    }

    /// A run whose list comes from standard input.
    pub fn send_piped(&self, list: &str) -> Run {
        let mut command = self.command(["run", "--yes", "job.yaml"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("a run");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A run that does not read its input to the end closes the pipe.
        let _ = stdin.write_all(list.as_bytes());
        drop(stdin);
        finish(child, "run --yes job.yaml")
    }
}

/// Waits for the end of a child and gathers what it says.
pub fn finish(mut child: Child, line: &str) -> Run {
    let gather = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).expect("a pipe can be read");
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = gather(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = gather(child.stderr.take().map(|stream| Box::new(stream) as _));
    let started = Instant::now();
    let code = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status.code(),
            None if started.elapsed() > PATIENCE => {
                child.kill().expect("a child can be killed");
                panic!("`postroom {line}` does not end");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    Run {
        line: line.to_owned(),
        code,
        stdout: stdout.join().expect("stdout was read"),
        stderr: stderr.join().expect("stderr was read"),
    }
}

/// What a command said and how it ended.
pub struct Run {
    line: String,
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Ends so, or the whole talk is shown.
    #[track_caller]
    pub fn exit(self, expected: Exit) -> Run {
        assert_eq!(
            self.code,
            Some(expected as i32),
            "`postroom {}` should end with {expected:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Says each of these, on either stream.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Run {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(all.contains(word), "`postroom {}` should say `{word}`:\n{all}", self.line);
        }
        self
    }

    /// Says none of these.
    #[track_caller]
    pub fn never_says(self, words: &[&str]) -> Run {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(!all.contains(word), "`postroom {}` must not say `{word}`:\n{all}", self.line);
        }
        self
    }
}

/// A letter that the relay accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub recipients: Vec<String>,
    pub message_id: String,
    pub hash: String,
}

/// `postroom sandbox` as a process of its own: it outlives whatever is killed.
pub struct RelayProcess {
    child: Child,
    pub port: u16,
    folder: PathBuf,
}

impl RelayProcess {
    /// Starts it with its log and port file in `folder`, and waits until the port is open.
    pub fn start<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> RelayProcess {
        fs::create_dir_all(folder).expect("a folder for the relay");
        let ports = folder.join("ports");
        let child = Command::new(POSTROOM)
            .args(["sandbox", "--smtp", "127.0.0.1:0", "--log-file"])
            .arg(folder.join("log.jsonl"))
            .arg("--port-file")
            .arg(&ports)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the sandbox starts");
        let mut relay = RelayProcess { child, port: 0, folder: folder.to_owned() };
        let started = Instant::now();
        while relay.port == 0 {
            let text = fs::read_to_string(&ports).unwrap_or_default();
            if let Some(port) = text.lines().find_map(|line| line.strip_prefix("smtp ")) {
                relay.port = port.parse().expect("a port is a number");
            } else if let Some(status) = relay.child.try_wait().expect("a child can be waited for") {
                panic!("the sandbox ended: {status}");
            } else {
                assert!(started.elapsed() < PATIENCE, "the sandbox does not open its port");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        relay
    }

    /// The lines of the log with this `event`.
    pub fn events(&self, event: &str) -> Vec<Json> {
        let log = fs::read_to_string(self.folder.join("log.jsonl")).expect("the relay's log");
        log.lines()
            .map(|line| serde_json::from_str::<Json>(line).expect("a line of the log is JSON"))
            .filter(|line| line["event"] == event)
            .collect()
    }

    /// Every letter accepted so far, in order.
    pub fn letters(&self) -> Vec<Accepted> {
        let text = |value: &Json| value.as_str().expect("a text").to_owned();
        self.events("message")
            .iter()
            .map(|line| Accepted {
                recipients: line["rcpt"].as_array().expect("recipients").iter().map(text).collect(),
                message_id: text(&line["id"]),
                hash: text(&line["hash"]),
            })
            .collect()
    }

    /// How often each address got a letter.
    pub fn received(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for address in self.letters().into_iter().flat_map(|letter| letter.recipients) {
            *counts.entry(address).or_insert(0) += 1;
        }
        counts
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

/// Copies a file or a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder can be listed") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a file can be copied");
    }
}

/// `email,name` and so many rows `u<n>@example.org`.
pub fn numbered(count: usize) -> String {
    let mut csv = String::from("email,name\n");
    for n in 0..count {
        csv.push_str(&format!("u{n}@example.org,Name {n}\n"));
    }
    csv
}

/// The `.eml` files of a folder, by name.
pub fn letters_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.expect("an entry").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect();
    found.sort();
    found
}

/// What the ledger says became of each recipient, by `report`. The key is the address where the job
/// says nothing else.
pub fn ledger_says(scene: &Scene) -> BTreeMap<String, String> {
    let run = scene.run("report job.yaml --format csv");
    let mut reader = csv::Reader::from_reader(run.stdout.as_bytes());
    let headers = reader.headers().expect("a header line").clone();
    let column = |name: &str| {
        let found = headers.iter().position(|header| header == name);
        found.unwrap_or_else(|| panic!("report has no column {name}: {headers:?}\n{}", run.stderr))
    };
    let (key, outcome) = (column("key"), column("outcome"));
    reader
        .records()
        .map(|record| {
            let record = record.expect("a line of the report");
            (record[key].to_owned(), record[outcome].to_owned())
        })
        .collect()
}

/// Whether the tests that take long are wanted too: `tests/run --long`.
pub fn long() -> bool {
    std::env::var_os("POSTROOM_TESTS_LONG").is_some()
}

/// Whether a program that a test judges with is here. In CI nothing is left out; elsewhere the test
/// says loudly that it is.
pub fn available(program: &str, argument: &str) -> bool {
    let here = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if here.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{program} is needed");
    eprintln!("LEFT OUT: {program} is not here");
    false
}
