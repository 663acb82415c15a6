//! Where a secret comes from: fetched when it is needed, never kept in what is printed.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::secret::Secret;

use super::Credential;

/// A command that asks somebody must not hang a run that nobody watches.
const COMMAND_TIME: Duration = Duration::from_secs(10);

/// No password or token is longer.
const MAX_SECRET: u64 = 64 << 10;

/// Why a secret could not be had. It says where it was to come from, never what it is.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The environment variable is not set, or is empty.
    #[error("the environment variable {0} is not set, or is empty (cron has none but those of its table)")]
    NotSet(String),
    /// It is no text.
    #[error("the secret from {0} is not UTF-8 text")]
    NotText(String),
    /// The first line is empty.
    #[error("the secret from {0} is empty")]
    Empty(String),
    /// The file cannot be read.
    #[error("cannot read the secret from {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The command cannot be started.
    #[error("cannot run {program} for the secret")]
    Command {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The command ended with a mistake.
    #[error("{program}, asked for the secret, ended with {status}{stderr}")]
    Status {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said on stderr, after `: `, or nothing.
        stderr: String,
    },
    /// An access token is the token server's to give, and nothing here speaks to it.
    #[error("an access token is to be got for a refresh token first")]
    Indirect,
    /// The command took too long and was killed.
    #[error("{0}, asked for the secret, did not answer within 10 seconds")]
    Time(String),
}

impl Credential {
    /// Fetches the secret. A command gets no standard input and at most 10 seconds. What a login needs is fetched by
    /// `net::token`, which knows refresh tokens, too.
    pub fn fetch(&self) -> Result<Secret, CredentialError> {
        match self {
            Credential::Env(name) => match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(Secret::new(value)),
                Err(std::env::VarError::NotUnicode(_)) => Err(CredentialError::NotText(name.clone())),
                _ => Err(CredentialError::NotSet(name.clone())),
            },
            Credential::File(path) => {
                let read = || {
                    let mut bytes = Vec::new();
                    std::fs::File::open(path)?.take(MAX_SECRET).read_to_end(&mut bytes)?;
                    Ok(bytes)
                };
                let bytes = read().map_err(|source| CredentialError::File { path: path.clone(), source })?;
                first_line(bytes, &path.display().to_string())
            }
            Credential::Command(argv) => command(argv, COMMAND_TIME),
            Credential::Literal(secret) => Ok(secret.clone()),
            Credential::Refresh(_) => Err(CredentialError::Indirect),
        }
    }

    /// What is worth a warning about where it comes from: a file that others can read.
    pub fn warning(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let Credential::File(path) = self else { return None };
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o004 != 0)
            .then(|| format!("{} can be read by every user of this machine: chmod 600 it", path.display()))
    }
}

fn first_line(bytes: Vec<u8>, from: &str) -> Result<Secret, CredentialError> {
    let text = String::from_utf8(bytes).map_err(|_| CredentialError::NotText(from.to_owned()))?;
    let line = text.trim_start_matches('\u{feff}').lines().next().unwrap_or("");
    match line.is_empty() {
        true => Err(CredentialError::Empty(from.to_owned())),
        false => Ok(Secret::new(line)),
    }
}

/// Runs a command in a process group of its own, so that what it started ends with it.
fn command(argv: &[String], time: Duration) -> Result<Secret, CredentialError> {
    use std::os::unix::process::CommandExt;
    let Some((program, arguments)) = argv.split_first() else {
        return Err(CredentialError::Empty("a command without words".to_owned()));
    };
    let cannot = |source| CredentialError::Command { program: program.clone(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    // Each pipe has a reader, so that a talkative command is not stuck on a full one.
    let out = child.stdout.take().map(reader);
    let err = child.stderr.take().map(reader);
    let deadline = Instant::now() + time;
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = || CredentialError::Time(program.clone());
    // The pipes end when the command does, or has closed them; what it has left behind may keep them open.
    let secret = out.and_then(|out| out.recv_timeout(left()).ok());
    let status = loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => break Some(status),
            None if left().is_zero() => break None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let Some(status) = status else {
        if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
            // It may have ended in this very moment; then there is nobody to kill.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
        return Err(late());
    };
    if !status.success() {
        let said = err.and_then(|err| err.recv_timeout(left()).ok()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(5).collect();
        let stderr = if said.is_empty() { String::new() } else { format!(": {}", said.join(" · ")) };
        return Err(CredentialError::Status { program: program.clone(), status, stderr });
    }
    first_line(secret.ok_or_else(late)?, program)
}

/// Reads a pipe to its end, as much of it as a secret may have, on a thread of its own.
fn reader(mut pipe: impl Read + Send + 'static) -> crossbeam_channel::Receiver<Vec<u8>> {
    let (give, take) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be read is not there; the status tells why.
        let _ = pipe.by_ref().take(MAX_SECRET).read_to_end(&mut bytes);
        let _ = give.send(bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    });
    take
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Credential {
        Credential::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[test]
    fn secrets_come_from_their_places() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            Credential::File(path)
        };
        for (credential, expected) in [
            (file("a", b"hunter2\nsecond line\n"), Ok("hunter2")),
            (file("b", b"with spaces \r\n"), Ok("with spaces ")),
            (file("c", b"\nsecond"), Err("is empty")),
            (file("d", b"\xff\xfe"), Err("not UTF-8")),
            (Credential::File(dir.path().join("none")), Err("cannot read")),
            (sh("echo hunter2; echo talk >&2; echo more"), Ok("hunter2")),
            (sh("echo 'no such entry' >&2; echo hunter2; exit 3"), Err("exit status: 3: no such entry")),
            (sh(":"), Err("is empty")),
            (sh("yes | head -c 300000 >&2; echo hunter2"), Ok("hunter2")),
            (Credential::Command(vec!["/nonexistent/program".into()]), Err("cannot run")),
            (Credential::Command(vec![]), Err("is empty")),
            (Credential::Env("POSTROOM_TEST_NO_SUCH_VARIABLE".into()), Err("is not set")),
            (Credential::Literal(Secret::new("x")), Ok("x")),
        ] {
            match (credential.fetch(), expected) {
                (Ok(secret), Ok(expected)) => assert_eq!(secret.expose(), expected),
                (Err(error), Err(expected)) => {
                    let said = error.to_string();
                    assert!(said.contains(expected), "{said}");
                    assert!(!said.contains("hunter2"), "{said}");
                }
                (read, expected) => panic!("{credential:?}: {read:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().expect("a folder");
        let mark = dir.path().join("mark");
        let script = format!("sleep 2; touch {} & sleep 60", mark.display());
        let argv = ["sh", "-c", &script].map(str::to_owned);
        let error = command(&argv, Duration::from_millis(200)).expect_err("it hangs");
        assert!(matches!(error, CredentialError::Time(_)), "{error}");
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!mark.exists(), "its child lived on");
    }

    #[test]
    fn a_file_for_all_to_read_is_worth_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "x").expect("written");
        for (mode, warned) in [(0o644, true), (0o600, false), (0o640, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
            assert_eq!(Credential::File(path.clone()).warning().is_some(), warned, "{mode:o}");
        }
    }
}
