//! What was accepted: a file per letter for people, a line per letter for programs, and counters.
//!
//! Once [`Outbox::commit`] has returned, the letter counts as accepted: its file has its final name
//! and its line has been written, in one piece, to a file opened for appending. Both survive
//! the death of this process; neither is synced, because a trial has no power cuts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// File names are at most 255 bytes on the file systems we know; this leaves room for the number.
const MAX_NAME: usize = 120;

/// A letter about to be accepted.
pub(super) struct Delivery<'a> {
    pub(super) connection: u64,
    pub(super) reverse_path: &'a str,
    pub(super) recipients: &'a [String],
    pub(super) content: &'a [u8],
    pub(super) verb: &'static str,
    pub(super) tls: bool,
}

/// A line of the log. The names of its fields are read by tests and by people with `jq`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Message {
        t: u64,
        seq: u64,
        conn: u64,
        from: &'a str,
        rcpt: &'a [String],
        id: &'a str,
        size: usize,
        hash: &'a str,
        verb: &'a str,
        tls: bool,
    },
    Login {
        t: u64,
        conn: u64,
        user: &'a str,
        mechanism: &'a str,
        ok: bool,
    },
    Fault {
        t: u64,
        conn: u64,
        stage: &'a str,
        rule: &'a str,
        key: &'a [&'a str],
    },
    Fetched {
        t: u64,
        conn: u64,
        number: usize,
        name: &'a str,
    },
    Deleted {
        t: u64,
        conn: u64,
        name: &'a str,
    },
}

/// What a server has seen, from its start to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Letters accepted, or messages fetched.
    pub messages: u64,
    /// Recipients of those letters.
    pub recipients: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections opened.
    pub connections: u64,
    /// The most that were open at once.
    pub peak_connections: u64,
    /// Connections turned away.
    pub refused: u64,
    /// Commands read.
    pub commands: u64,
    /// Writes of replies: the round trips of a client that waits.
    pub flights: u64,
    /// Logins that were let in.
    pub logins: u64,
    /// Logins that were not.
    pub failed_logins: u64,
    /// Rules applied.
    pub faults: u64,
    /// Messages deleted.
    pub deleted: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) messages: AtomicU64,
    pub(super) recipients: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicUsize,
    pub(super) peak: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) commands: AtomicU64,
    pub(super) flights: AtomicU64,
    pub(super) logins: AtomicU64,
    pub(super) failed_logins: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) deleted: AtomicU64,
}

/// Where accepted letters go.
pub(super) struct Outbox {
    folder: Option<PathBuf>,
    log: Option<File>,
    next: AtomicU64,
    pub(super) counters: Counters,
}

impl Outbox {
    /// Opens folder and log, which are made if they are not there. Numbers go on behind the highest
    /// that the folder holds, so that a trial that is run again replaces nothing.
    pub(super) fn open(folder: Option<&Path>, log: Option<&Path>) -> io::Result<Outbox> {
        let mut last = 0;
        if let Some(folder) = folder {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            for entry in fs::read_dir(folder)? {
                last = last.max(number_of(&entry?.file_name().to_string_lossy()).unwrap_or(0));
            }
        }
        let log = log
            .map(|path| OpenOptions::new().create(true).append(true).mode(0o600).open(path))
            .transpose()?;
        Ok(Outbox {
            folder: folder.map(Path::to_owned),
            log,
            next: AtomicU64::new(last),
            counters: Counters::default(),
        })
    }

    /// Removes the letters of earlier trials, which are known by their names, and begins at 1 again.
    pub(super) fn empty(&self) -> io::Result<()> {
        if let Some(folder) = &self.folder {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if number_of(&entry.file_name().to_string_lossy()).is_some() {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        self.next.store(0, Relaxed);
        Ok(())
    }

    /// Takes the letter in and says its number.
    pub(super) fn commit(&self, delivery: &Delivery<'_>) -> io::Result<u64> {
        let seq = self.next.fetch_add(1, Relaxed) + 1;
        if let Some(folder) = &self.folder {
            let name = file_name(seq, delivery.recipients);
            // A reader, or a kill, must never meet half a letter under its final name.
            let part = folder.join(format!(".{seq}.part"));
            // A trial has real names and real files in it.
            let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
            made?.write_all(delivery.content)?;
            fs::rename(part, folder.join(name))?;
        }
        if self.log.is_some() {
            let id = header(delivery.content, "message-id").unwrap_or_default();
            self.write(&Line::Message {
                t: micros(),
                seq,
                conn: delivery.connection,
                from: delivery.reverse_path,
                rcpt: delivery.recipients,
                id: &id,
                size: delivery.content.len(),
                hash: &blake3::hash(delivery.content).to_hex(),
                verb: delivery.verb,
                tls: delivery.tls,
            })?;
        }
        self.counters.messages.fetch_add(1, Relaxed);
        self.counters.recipients.fetch_add(delivery.recipients.len() as u64, Relaxed);
        self.counters.bytes.fetch_add(delivery.content.len() as u64, Relaxed);
        Ok(seq)
    }

    /// Notes a login, never what was given as the password.
    pub(super) fn login(&self, conn: u64, user: &str, mechanism: &str, ok: bool) -> io::Result<()> {
        let counter = if ok { &self.counters.logins } else { &self.counters.failed_logins };
        counter.fetch_add(1, Relaxed);
        self.write(&Line::Login { t: micros(), conn, user, mechanism, ok })
    }

    /// Notes that a rule was applied.
    pub(super) fn fault(&self, conn: u64, stage: &str, rule: &str, key: &[&str]) -> io::Result<()> {
        self.counters.faults.fetch_add(1, Relaxed);
        self.write(&Line::Fault { t: micros(), conn, stage, rule, key })
    }

    /// Notes that a message was fetched to its end.
    pub(super) fn fetched(&self, conn: u64, number: usize, name: &str, size: u64) -> io::Result<()> {
        self.counters.messages.fetch_add(1, Relaxed);
        self.counters.bytes.fetch_add(size, Relaxed);
        self.write(&Line::Fetched { t: micros(), conn, number, name })
    }

    /// Notes that a message is gone.
    pub(super) fn deleted(&self, conn: u64, name: &str) -> io::Result<()> {
        self.counters.deleted.fetch_add(1, Relaxed);
        self.write(&Line::Deleted { t: micros(), conn, name })
    }

    pub(super) fn opened(&self) {
        self.counters.connections.fetch_add(1, Relaxed);
        let open = self.counters.open.fetch_add(1, Relaxed) + 1;
        self.counters.peak.fetch_max(open as u64, Relaxed);
    }

    pub(super) fn closed(&self, flights: u64) {
        self.counters.open.fetch_sub(1, Relaxed);
        self.counters.flights.fetch_add(flights, Relaxed);
    }

    pub(super) fn summary(&self) -> Summary {
        let counters = &self.counters;
        Summary {
            messages: counters.messages.load(Relaxed),
            recipients: counters.recipients.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            connections: counters.connections.load(Relaxed),
            peak_connections: counters.peak.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            commands: counters.commands.load(Relaxed),
            flights: counters.flights.load(Relaxed),
            logins: counters.logins.load(Relaxed),
            failed_logins: counters.failed_logins.load(Relaxed),
            faults: counters.faults.load(Relaxed),
            deleted: counters.deleted.load(Relaxed),
        }
    }

    /// One write per line, in append mode: whole lines, whoever is killed.
    fn write(&self, line: &Line<'_>) -> io::Result<()> {
        let Some(mut log) = self.log.as_ref() else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        log.write_all(&text)
    }
}

/// `0001_ada@example.org.eml`: a number that sorts, and the first recipient as far as a file name
/// may hold it.
fn file_name(seq: u64, recipients: &[String]) -> String {
    let first = recipients.first().map_or("", String::as_str);
    let mut name = String::with_capacity(first.len() + 10);
    for c in first.chars() {
        if name.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        name.push(if c.is_alphanumeric() || "@._+-=".contains(c) { c } else { '_' });
    }
    format!("{seq:04}_{name}.eml")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".eml")?.split_once('_')?.0.parse().ok()
}

/// The unfolded value of the first header field of that name.
fn header(content: &[u8], name: &str) -> Option<String> {
    let mut lines =
        content.split(|byte| *byte == b'\n').take_while(|line| !matches!(*line, b"" | b"\r")).peekable();
    while let Some(line) = lines.next() {
        let Some((field, value)) = line.split_at_checked(name.len()) else { continue };
        let Some(value) = value.strip_prefix(b":").filter(|_| field.eq_ignore_ascii_case(name.as_bytes()))
        else {
            continue;
        };
        let mut value = value.to_vec();
        while let Some(more) = lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
            value.extend_from_slice(more);
        }
        value.retain(|byte| *byte != b'\r');
        return Some(String::from_utf8_lossy(&value).trim().to_owned());
    }
    None
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe_and_readable() {
        let long = "x".repeat(500);
        for (seq, recipient, expected) in [
            (1, "ada@example.org", "0001_ada@example.org.eml".to_owned()),
            (12_345, "王芳@例子.中国", "12345_王芳@例子.中国.eml".to_owned()),
            (2, "../../etc/passwd", "0002_.._.._etc_passwd.eml".to_owned()),
            (3, "\"a b\\\0\"@example.org", "0003__a_b___@example.org.eml".to_owned()),
            (4, long.as_str(), format!("0004_{}.eml", "x".repeat(MAX_NAME))),
        ] {
            assert_eq!(file_name(seq, &[recipient.to_owned()]), expected);
            assert_eq!(number_of(&expected), Some(seq));
        }
    }

    #[test]
    fn numbers_go_on_where_a_folder_ends() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let delivery = Delivery {
            connection: 1,
            reverse_path: "",
            recipients: &["ada@example.org".to_owned()],
            content: b"Message-ID:\r\n <1@x>\r\n\r\nhello\r\n",
            verb: "DATA",
            tls: false,
        };
        for expected in [1, 2] {
            let log = folder.path().join("log.jsonl");
            let outbox = Outbox::open(Some(folder.path()), Some(&log))?;
            assert_eq!(outbox.commit(&delivery)?, expected);
        }
        assert_eq!(fs::read(folder.path().join("0002_ada@example.org.eml"))?, delivery.content);
        let log = fs::read_to_string(folder.path().join("log.jsonl"))?;
        assert_eq!(log.lines().filter(|line| line.contains(r#""id":"<1@x>""#)).count(), 2, "{log}");
        Ok(())
    }

    #[test]
    fn nobody_else_reads_letters_of_a_trial() -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir()?;
        let outbox = folder.path().join("outbox/job");
        let recipients = ["ada@example.org".to_owned()];
        Outbox::open(Some(&outbox), None)?.commit(&Delivery {
            connection: 1,
            reverse_path: "",
            recipients: &recipients,
            content: b"\r\n",
            verb: "DATA",
            tls: false,
        })?;
        let mode = |path: &Path| Ok::<_, io::Error>(fs::metadata(path)?.mode() & 0o777);
        assert_eq!(mode(&folder.path().join("outbox"))?, 0o700);
        assert_eq!(mode(&outbox)?, 0o700);
        assert_eq!(mode(&outbox.join("0001_ada@example.org.eml"))?, 0o600);
        Ok(())
    }

    #[test]
    fn a_header_ends_where_the_body_begins() {
        let content = b"Subject: a\r\nMESSAGE-ID:\r\n\t<1@x>\r\n\r\nTo: nobody\r\n";
        for (name, expected) in [("message-id", Some("<1@x>")), ("to", None), ("sub", None)] {
            assert_eq!(header(content, name).as_deref(), expected, "{name}");
        }
    }
}
