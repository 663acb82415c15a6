//! The power fails: what was said to be durable is there afterwards, whatever became of the rest.
//!
//! A child process works on a ledger while a small library records its writes and syncs. From that
//! record the disk is rebuilt as it may be after a cut at any moment: all that was synced, and of the
//! writes behind the last sync none, all, or some, the last of them torn. Each such disk is opened.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use postroom::job::Dedupe;
use postroom::ledger::{
    Enlist, EnlistState, Group, Ledger, Mark, NewEdition, Settlement, SourceRecord, Sqlite, State,
};
use postroom::letter::Purpose;

/// Set for the child: the folder it works in.
const WORK: &str = "POSTROOM_TEST_POWER";

const ROWS: u64 = 300;
const GROUP: u64 = 7;

#[test]
fn what_was_durable_survives_a_power_cut() {
    let Some(record) = recorded() else { return };
    let (cuts, lost) = cut_everywhere(&record, true);
    assert!(cuts > 200, "only {cuts} disks were looked at");
    assert_eq!(lost, Vec::<String>::new(), "of {cuts} disks");
}

/// The test itself must be able to fail: a ledger that never synced would lose what it promised.
#[test]
fn without_syncs_the_loss_is_seen() {
    let Some(record) = recorded() else { return };
    let (cuts, lost) = cut_everywhere(&record, false);
    assert!(!lost.is_empty(), "none of {cuts} disks lost anything");
}

/// Not a test of its own: what the child does. It says in `acks` what it was told to be durable.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(WORK).map(PathBuf::from) else { return };
    let mut acks = fs::File::create(folder.join("acks")).unwrap();
    let mut say = |words: String| acks.write_all(words.as_bytes()).unwrap();
    let mut ledger = Sqlite::open(&folder.join("ledger.db")).unwrap();
    let new = NewEdition {
        job: "power",
        name: "1",
        purpose: Purpose::Real,
        fingerprint: [1; 32],
        components: &[],
        timezone: "UTC",
        now: 1,
    };
    let edition = ledger.begin(&new).unwrap();
    say("begun\n".into());
    let keys: Vec<String> = (1..=ROWS).map(|n| format!("user{n}@example.org")).collect();
    let mut enlister = ledger.enlist(edition, None, Dedupe::Refuse).unwrap();
    for (number, key) in (1..).zip(&keys) {
        let row = "{\"name\":\"Ada Lovelace, Countess of Lovelace, the first of us all\"}";
        let row =
            Enlist { number, key, domain: "example.org", row, state: EnlistState::Pending, enclosed: None };
        enlister.add(&[row]).unwrap();
    }
    enlister.finish(SourceRecord::default(), 2).unwrap();
    say("enlisted\n".into());
    for n in 0..=ROWS / GROUP {
        let seqs = |n: u64| n * GROUP + 1..=((n + 1) * GROUP).min(ROWS);
        let mark = |seq| Mark {
            seq,
            date: 3,
            at: 3,
            message_id: format!("<{seq}.0123456789abcdef0123456789abcdef@example.com>"),
            files: vec![],
            digest: None,
        };
        let settle = |seq| Settlement {
            seq,
            state: State::Accepted,
            next_attempt: None,
            at: 4,
            reason: None,
            rcpts: vec![],
        };
        let settlements = if n == 0 { vec![] } else { seqs(n - 1).map(settle).collect() };
        ledger.write(edition, &Group { marks: seqs(n).map(mark).collect(), settlements }).unwrap();
        say(format!("group {n}\n"));
        if n % 10 == 9 {
            // The log is folded into the file, and begun anew: both orders of syncs are met.
            ledger.tidy().unwrap();
        }
    }
    ledger.finish(edition, 5).unwrap();
    say("finished\n".into());
}

/// Runs the child under the recording library; `None` where there is no C compiler.
fn recorded() -> Option<Vec<Record>> {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("forget.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/forget.c");
    let built = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl"])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "a C compiler is needed");
        eprintln!("LEFT OUT: no C compiler");
        return None;
    }
    let (work, log) = (folder.path().join("work"), folder.path().join("log"));
    fs::create_dir(&work).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1", "--quiet"])
        .env(WORK, &work)
        .env("LD_PRELOAD", &library)
        .env("FORGET_ROOT", &work)
        .env("FORGET_LOG", &log)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let records = parse(&fs::read(&log).unwrap(), &work);
    assert!(records.iter().filter(|record| matches!(record.what, What::Sync)).count() > 40);
    Some(records)
}

struct Record {
    file: PathBuf,
    what: What,
}

enum What {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
    Unlink,
    Sync,
}

fn parse(mut log: &[u8], root: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    let take = |log: &mut &[u8], length: usize| -> Vec<u8> {
        let (head, tail) = log.split_at(length);
        *log = tail;
        head.to_vec()
    };
    let number =
        |bytes: Vec<u8>| bytes.iter().rev().fold(0usize, |number, byte| number << 8 | *byte as usize);
    while !log.is_empty() {
        let kind = take(&mut log, 1)[0];
        let length = number(take(&mut log, 4));
        let path = PathBuf::from(String::from_utf8(take(&mut log, length)).unwrap());
        let (at, length) = (number(take(&mut log, 8)), number(take(&mut log, 8)));
        let what = match kind {
            b'W' => What::Write { at, bytes: take(&mut log, length) },
            b'T' => What::Truncate(at),
            b'U' => What::Unlink,
            b'S' => What::Sync,
            other => panic!("{other} is no kind of record"),
        };
        records.push(Record { file: path.strip_prefix(root).unwrap_or(&path).to_owned(), what });
    }
    records
}

/// A file as the disk holds it for certain, and what was done to it since.
#[derive(Default, Clone)]
struct Disk<'r> {
    durable: BTreeMap<PathBuf, Vec<u8>>,
    open: Vec<(PathBuf, &'r What)>,
    said: Vec<u8>,
}

/// Cuts the power after every few records; gives how many disks were looked at, and what was missing.
fn cut_everywhere(records: &[Record], syncs: bool) -> (usize, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut disk, mut cuts, mut lost) = (Disk::default(), 0, Vec::new());
    let mut chance = Chance(42);
    for record in records {
        match &record.what {
            // What the child was told goes to its operator, not to the disk.
            What::Write { bytes, .. } if record.file.ends_with("acks") => disk.said.extend(bytes),
            _ if record.file.ends_with("acks") => continue,
            What::Sync if !syncs => continue,
            What::Sync => {
                let Disk { durable, open, .. } = &mut disk;
                // A file's sync makes its content durable; the folder's, what names are gone.
                let folder = record.file.as_os_str().is_empty();
                open.retain(|(file, what)| {
                    let now = if folder { matches!(what, What::Unlink) } else { *file == record.file };
                    if now {
                        apply(durable, file, what, usize::MAX);
                    }
                    !now
                });
            }
            what => disk.open.push((record.file.clone(), what)),
        }
        // Right after something was said, and now and then between.
        let said = record.file.ends_with("acks");
        if !said && chance.below(12) != 0 {
            continue;
        }
        for kind in [Rest::Lost, Rest::Kept, Rest::Some] {
            cuts += 1;
            let place = folder.path().join(cuts.to_string());
            let rebuilt = rebuild(&disk, kind, &mut chance);
            if let Err(words) = inspect(&place, &rebuilt, &String::from_utf8_lossy(&disk.said)) {
                lost.push(format!("cut {cuts} ({kind:?}): {words}"));
            }
            let _ = fs::remove_dir_all(&place);
        }
    }
    (cuts, lost)
}

/// What becomes of writes that were not synced.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Lost,
    Kept,
    Some,
}

fn rebuild(disk: &Disk<'_>, rest: Rest, chance: &mut Chance) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = disk.durable.clone();
    for (file, what) in &disk.open {
        match rest {
            Rest::Lost => {}
            Rest::Kept => apply(&mut files, file, what, usize::MAX),
            Rest::Some => match chance.below(3) {
                0 => {}
                1 => apply(&mut files, file, what, usize::MAX),
                // Torn: a disk writes sectors.
                _ => apply(&mut files, file, what, 512 * chance.below(9) as usize),
            },
        }
    }
    files
}

fn apply(files: &mut BTreeMap<PathBuf, Vec<u8>>, file: &Path, what: &What, most: usize) {
    match what {
        What::Write { at, bytes } => {
            let bytes = &bytes[..bytes.len().min(most)];
            let content = files.entry(file.to_owned()).or_default();
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        What::Truncate(size) => files.entry(file.to_owned()).or_default().resize(*size, 0),
        What::Unlink => drop(files.remove(file)),
        What::Sync => {}
    }
}

/// Opens a disk as the next run would, and compares it with what was said.
fn inspect(place: &Path, files: &BTreeMap<PathBuf, Vec<u8>>, said: &str) -> Result<(), String> {
    fs::create_dir_all(place).unwrap();
    for (file, content) in files {
        // The index of the log is shared memory: no power cut leaves it behind.
        if !file.to_string_lossy().ends_with("-shm") {
            fs::write(place.join(file), content).unwrap();
        }
    }
    let path = place.join("ledger.db");
    if said.is_empty() && !path.exists() {
        return Ok(());
    }
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let whole: String = rusqlite::Connection::open(&path)
        .and_then(|conn| conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
        .map_err(|error| words(&error))?;
    if whole != "ok" {
        return Err(whole);
    }
    let ledger = Sqlite::open(&path).map_err(|error| words(&error))?;
    let reader = ledger.reader().map_err(|error| words(&error))?;
    let editions = reader.editions("power", Purpose::Real).map_err(|error| words(&error))?;
    let Some(edition) = editions.first() else {
        return if said.contains("begun") { Err("no edition".into()) } else { Ok(()) };
    };
    if said.contains("enlisted") && edition.enlisted_at.is_none() {
        return Err("not enlisted".into());
    }
    if said.contains("finished") && edition.finished_at.is_none() {
        return Err("not finished".into());
    }
    let groups = said.matches("group").count() as u64;
    let (marked, settled) = (groups * GROUP, groups.saturating_sub(1) * GROUP);
    let mut wrong = Ok(());
    let mut rows = 0;
    reader
        .each(edition.id, &State::ALL, &mut |record| {
            rows += 1;
            let expected = match record.seq {
                seq if seq <= settled => record.state == State::Accepted,
                seq if seq <= marked => matches!(record.state, State::Sending | State::Accepted),
                _ => true,
            };
            if !expected {
                wrong = Err(format!("{} is {:?} after group {groups}", record.key, record.state));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| words(&error))?;
    wrong?;
    if edition.enlisted_at.is_some() && rows != ROWS {
        return Err(format!("{rows} rows"));
    }
    Ok(())
}

/// A small random generator (splitmix64): the same cuts each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
