//! The embedded ledger: one SQLite file in WAL mode, `synchronous=FULL`, so that a COMMIT that
//! returned has been synced.

mod enlist;
mod place;
mod read;
mod records;
mod schema;
mod upkeep;
mod write;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use crate::failpoint;
use crate::job::{Dedupe, Unsure};
use crate::letter::Purpose;
use crate::mail::EmailAddress;

use place::Place;

use super::{
    Component, EditionId, Enlister, Flag, Forgotten, Group, Ledger, LedgerError, NewEdition, Pruned, Reader,
    Requeue, RunLock, State,
};

/// How long one process waits while another writes, before it says that the ledger is locked.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a ledger may be without tables that another process makes.
const MAKING: Duration = Duration::from_secs(1);

/// How long what was taken out waits for whoever reads the ledger, so that it is overwritten.
const READERS: Duration = Duration::from_secs(2);

/// Between two tries of what SQLite does not wait for.
const BREATH: Duration = Duration::from_millis(5);

/// The page cache of the writing connection, in KiB; the interior of a tree of millions of rows fits.
const WRITER_CACHE_KIB: i64 = 6 * 1024;

/// The page cache of a reading connection, in KiB: it walks through the tables and comes back to little.
const READER_CACHE_KIB: i64 = 2 * 1024;

/// The longest path of a database, in bytes: SQLite's own limit (`MAX_PATHNAME`), less what it adds for its log.
const LONGEST_PATH: usize = 512 - 8;

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 64;

/// A ledger in a file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    conn: Connection,
    secret: [u8; 32],
    place: Place,
}

impl Sqlite {
    /// Opens the ledger at `path`; makes it, readable for its owner only, where there is none.
    pub fn open(path: &Path) -> Result<Sqlite, LedgerError> {
        is_short_enough(path)?;
        let new = make(path)?;
        let real = one_name(path)?;
        let path = real.as_path();
        is_short_enough(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let said = |error| LedgerError::sqlite(path, error);
        let mut conn = Connection::open_with_flags(path, flags).map_err(said)?;
        conn.busy_timeout(PATIENCE).map_err(said)?;
        if conn.is_readonly(rusqlite::MAIN_DB).map_err(said)? {
            return Err(LedgerError::ReadOnly { path: path.to_owned() });
        }
        if !new {
            is_ours(&conn, path)?;
        }
        // The answer is the mode it has now: a file system without shared memory cannot do it.
        let mode = write_ahead(&conn).map_err(said)?;
        if mode != "wal" {
            return Err(LedgerError::Corrupt {
                path: path.to_owned(),
                reason: format!("it cannot keep a write-ahead log here (journal mode {mode})"),
            });
        }
        conn.execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -{WRITER_CACHE_KIB};"
        ))
        .map_err(said)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        let secret = migrate(&mut conn, path)?;
        Ok(Sqlite { path: path.to_owned(), conn, secret, place: Place::of(path) })
    }

    /// Opens the ledger at `path`, if there is one.
    pub fn open_existing(path: &Path) -> Result<Sqlite, LedgerError> {
        is_there(path)?;
        Sqlite::open(path)
    }

    /// Opens the ledger at `path` for reading, if there is one.
    pub fn open_read_only(path: &Path) -> Result<read::SqliteReader, LedgerError> {
        read::SqliteReader::open(path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error where the file, or the log beside it, is not the one that was opened.
    pub fn in_its_place(&self) -> Result<(), LedgerError> {
        if self.place.is_kept() { Ok(()) } else { Err(LedgerError::Gone { path: self.path.clone() }) }
    }

    fn said(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(&self.path, error)
    }

    /// Folds the log into the file; false where somebody reads what was before, for longer than that.
    /// SQLite itself would wait with the lock of writers in its hands: no run of this ledger could go on.
    fn fold(&self, patience: Duration) -> Result<bool, LedgerError> {
        let said = |error| self.said(error);
        let end = Instant::now() + patience;
        self.conn.busy_timeout(Duration::ZERO).map_err(said)?;
        let folded = loop {
            let busy = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
            match busy {
                Err(error) if !is_busy(&error) => break Err(error),
                Ok(false) => break Ok(true),
                _ if Instant::now() >= end => break Ok(false),
                _ => std::thread::sleep(BREATH),
            }
        };
        self.conn.busy_timeout(PATIENCE).map_err(said)?;
        folded.map_err(said)
    }

    /// Runs `work` in one immediate transaction and commits it.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection, &Path) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let path = &self.path;
        let said = |error| LedgerError::sqlite(path, error);
        let transaction =
            self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(said)?;
        let done = work(&transaction, path)?;
        transaction.commit().map_err(said)?;
        Ok(done)
    }
}

impl Ledger for Sqlite {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn lock(&self, job: &str, purpose: Purpose) -> Result<RunLock, LedgerError> {
        RunLock::take(&self.path, job, purpose)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, LedgerError> {
        Ok(Box::new(read::SqliteReader::open(&self.path)?))
    }

    fn begin(&mut self, new: &NewEdition<'_>) -> Result<EditionId, LedgerError> {
        write::begin(self, new)
    }

    fn accept_changes(
        &mut self,
        edition: EditionId,
        fingerprint: [u8; 32],
        components: &[Component],
    ) -> Result<(), LedgerError> {
        write::accept_changes(self, edition, fingerprint, components)
    }

    fn enlist<'l>(
        &'l mut self,
        edition: EditionId,
        columns: Option<&[String]>,
        dedupe: Dedupe,
    ) -> Result<Box<dyn Enlister + 'l>, LedgerError> {
        Ok(Box::new(enlist::SqliteEnlister::begin(self, edition, columns, dedupe)?))
    }

    fn recover(&mut self, edition: EditionId, policy: Unsure) -> Result<Vec<(u64, String)>, LedgerError> {
        write::recover(self, edition, policy)
    }

    fn bring_forward(&mut self, edition: EditionId, now: i64, latest: i64) -> Result<u64, LedgerError> {
        write::bring_forward(self, edition, now, latest)
    }

    fn write(&mut self, edition: EditionId, group: &Group) -> Result<(), LedgerError> {
        write::group(self, edition, group)
    }

    fn finish(&mut self, edition: EditionId, now: i64) -> Result<(), LedgerError> {
        write::finish(self, edition, now)
    }

    fn leave(&mut self, edition: EditionId, now: Option<i64>) -> Result<(), LedgerError> {
        failpoint::reach("ledger.leave.before");
        self.conn
            .execute("UPDATE editions SET left_at = ?1 WHERE id = ?2", params![now, edition.0])
            .map_err(|error| self.said(error))?;
        failpoint::reach("ledger.leave.after");
        Ok(())
    }

    fn requeue(&mut self, edition: EditionId, wish: &Requeue<'_>) -> Result<Vec<(State, u64)>, LedgerError> {
        upkeep::requeue(self, edition, wish)
    }

    fn forget(&mut self, address: &EmailAddress) -> Result<Forgotten, LedgerError> {
        upkeep::forget(self, address)
    }

    fn prune(&mut self, before: i64, now: i64) -> Result<Pruned, LedgerError> {
        upkeep::prune(self, before, now)
    }

    fn tidy(&mut self) -> Result<(), LedgerError> {
        failpoint::reach("ledger.tidy.before");
        // Busy is no failure: somebody reads, and the log is folded in another time.
        self.fold(Duration::ZERO)?;
        failpoint::reach("ledger.tidy.after");
        Ok(())
    }

    fn tell_once(&mut self, edition: EditionId, end: &str) -> Result<bool, LedgerError> {
        failpoint::reach("ledger.told.before");
        let new = self
            .conn
            .execute("INSERT OR IGNORE INTO meta VALUES (?1, x'')", [told(edition, end)])
            .map_err(|error| self.said(error))?;
        failpoint::reach("ledger.told.after");
        Ok(new == 1)
    }

    fn untell(&mut self, edition: EditionId, end: &str) -> Result<(), LedgerError> {
        self.conn
            .execute("DELETE FROM meta WHERE name = ?1", [told(edition, end)])
            .map(drop)
            .map_err(|error| self.said(error))
    }

    fn set_flag(&mut self, job: &str, purpose: Purpose, flag: Flag, on: bool) -> Result<(), LedgerError> {
        let sql = if on {
            "INSERT OR REPLACE INTO flags VALUES (?1, ?2, ?3)"
        } else {
            "DELETE FROM flags WHERE job = ?1 AND purpose = ?2 AND flag = ?3"
        };
        failpoint::reach("ledger.flag.before");
        self.conn
            .execute(sql, params![job, purpose.word(), flag.word()])
            .map_err(|error| self.said(error))?;
        failpoint::reach("ledger.flag.after");
        Ok(())
    }
}

/// The name under which `meta` has that an end of an edition was told.
fn told(edition: EditionId, end: &str) -> String {
    format!("told {} {end}", edition.0)
}

/// Makes the file with mode 0600 before SQLite opens it, and its folder with mode 0700: SQLite gives
/// its log the mode of the database. New names are synced, so that a power cut does not take away the
/// folder of a ledger whose content was synced. Whether there was no such file.
fn make(path: &Path) -> Result<bool, LedgerError> {
    let broken = |source| LedgerError::Open { path: path.to_owned(), source };
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = |folder: &Path| File::open(folder).and_then(|folder| folder.sync_all()).map_err(broken);
    let created = match create() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let new =
                folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
            let mut new: Vec<&Path> = new.collect();
            new.reverse();
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(broken)?;
            for folder in new {
                let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
                sync(above.unwrap_or(Path::new(".")))?;
            }
            create()
        }
        other => other,
    };
    match created {
        Ok(_) => sync(folder).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(broken(error)),
    }
}

/// An error where there is no ledger; another one where nobody can tell, as in a folder of somebody else's.
fn is_there(path: &Path) -> Result<(), LedgerError> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(LedgerError::Missing { path: path.to_owned() }),
        Err(source) => Err(LedgerError::Open { path: path.to_owned(), source }),
    }
}

/// An error where SQLite would only say that it cannot open it: a path in Chinese is soon that long.
fn is_short_enough(path: &Path) -> Result<(), LedgerError> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match whole.as_os_str().len() <= LONGEST_PATH {
        true => Ok(()),
        false => Err(LedgerError::TooLong { path: whole, most: LONGEST_PATH }),
    }
}

/// The one name of the file. Locks and the log lie beside it: two names would have two of each, and
/// two runs would send the same letters. Where the name given leads elsewhere, the file's own counts.
fn one_name(path: &Path) -> Result<PathBuf, LedgerError> {
    let broken = |source| LedgerError::Open { path: path.to_owned(), source };
    let linked = std::fs::symlink_metadata(path).map_err(broken)?.is_symlink();
    let real = if linked { path.canonicalize().map_err(broken)? } else { path.to_owned() };
    match std::fs::metadata(&real).map_err(broken)?.nlink() {
        0 | 1 => Ok(real),
        _ => Err(LedgerError::Linked { path: path.to_owned() }),
    }
}

/// An error for the database of another program, and for a ledger that has lost all it knew: with either
/// everybody would be mailed again.
fn is_ours(conn: &Connection, path: &Path) -> Result<(), LedgerError> {
    let said = |error| LedgerError::sqlite(path, error);
    let no_ledger = |reason: &str| LedgerError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    // A run has its lock only when the ledger is made: looked for first, for one may be made just now.
    let used = super::lock::was_taken(path);
    // The tables first: who makes them at this moment makes them with their version.
    let count = || conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
    let (mut tables, end) = (count().map_err(said)?, Instant::now() + MAKING);
    // The one before it may have been removed, and another process makes a new one.
    while used && tables == 0 && Instant::now() < end {
        std::thread::sleep(BREATH);
        tables = count().map_err(said)?;
    }
    // It was emptied; or it was young, and all that it had was in a log that was taken away.
    if used && tables == 0 {
        let reason =
            "it is empty, though runs have used it; put back a copy of it, or remove it to begin anew";
        return Err(no_ledger(reason));
    }
    if tables > 0 && version(conn).map_err(said)? == 0 {
        return Err(no_ledger("its tables are another program's"));
    }
    Ok(())
}

/// Turns the write-ahead log on, and says which mode it is. SQLite does not wait for another process that is
/// doing the same with a ledger that both have just made, whatever the time it was given.
fn write_ahead(conn: &Connection) -> rusqlite::Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if is_busy(&error) && Instant::now() < end => std::thread::sleep(BREATH),
            said => return said,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

/// Brings the schema up to date; gives the ledger's secret.
fn migrate(conn: &mut Connection, path: &Path) -> Result<[u8; 32], LedgerError> {
    let said = |error| LedgerError::sqlite(path, error);
    let found = version(conn).map_err(said)?;
    if found > schema::VERSION {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known: schema::VERSION });
    }
    if found < schema::VERSION {
        failpoint::reach("ledger.tables.before");
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(said)?;
        // Two first runs in the same second: the second finds the tables made.
        let found = version(&transaction).map_err(said)?;
        if found == 0 {
            let mut secret = [0; 32];
            ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
                .map_err(|_| LedgerError::Open { path: path.to_owned(), source: ErrorKind::Other.into() })?;
            transaction
                .execute_batch(schema::TABLES)
                .and_then(|()| transaction.execute("INSERT INTO meta VALUES ('secret', ?1)", [&secret[..]]))
                .and_then(|_| transaction.pragma_update(None, "user_version", schema::VERSION))
                .map_err(said)?;
        } else {
            for step in schema::STEPS.iter().skip(usize::try_from(found).unwrap_or(0).saturating_sub(1)) {
                transaction.execute_batch(step).map_err(said)?;
            }
            transaction.pragma_update(None, "user_version", schema::VERSION).map_err(said)?;
        }
        transaction.commit().map_err(said)?;
        failpoint::reach("ledger.tables.after");
    }
    conn.query_row("SELECT value FROM meta WHERE name = 'secret'", [], |row| row.get(0)).map_err(said)
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The purpose of this word; what the ledger does not know is real.
fn purpose_of(word: &str) -> Purpose {
    match word {
        "sandbox" => Purpose::Sandbox,
        "redirected" => Purpose::Redirected,
        _ => Purpose::Real,
    }
}

/// Reads a state's letter.
fn state_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<State> {
    let letter = row.get_ref(column)?.as_str()?;
    State::from_letter(letter).ok_or_else(|| {
        let reason = format!("`{letter}` is no state");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, reason.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Queue as _;

    #[test]
    fn it_does_what_every_ledger_must() {
        crate::ledger::suite::run(&|| {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Sqlite::open(&folder.path().join("new/ledger.db")).unwrap();
            (Box::new(ledger), Box::new(folder))
        });
    }

    #[test]
    fn who_make_it_at_the_same_time_all_have_it() {
        for _ in 0..30 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger.db");
            let start = std::sync::Barrier::new(4);
            let open = || {
                start.wait();
                Sqlite::open(&path).map(|ledger| ledger.secret())
            };
            let secrets: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
            });
            assert!(secrets.iter().all(|secret| *secret == secrets[0]), "one ledger, one secret");
        }
    }

    #[test]
    fn it_is_readable_for_its_owner_only_and_keeps_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/ledger.db");
        assert!(matches!(Sqlite::open_read_only(&path), Err(LedgerError::Missing { .. })));
        let ledger = Sqlite::open(&path).unwrap();
        let secret = ledger.secret();
        assert_ne!(secret, [0; 32]);
        for (file, mode) in
            [("deep/er", 0o700), ("deep/er/ledger.db", 0o600), ("deep/er/ledger.db-wal", 0o600)]
        {
            let found = std::fs::metadata(folder.path().join(file)).unwrap().mode() & 0o777;
            assert_eq!(found, mode, "{file}: {found:o}");
        }
        drop(ledger);
        assert_eq!(Sqlite::open(&path).unwrap().secret(), secret);
        Sqlite::open_read_only(&path).unwrap();
    }

    #[test]
    fn a_full_disk_is_said_and_nothing_of_the_group_is_written() {
        use crate::job::Dedupe;
        use crate::ledger::{Enlist, EnlistState, Mark, SourceRecord};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut ledger = Sqlite::open(&path).unwrap();
        let new = NewEdition {
            job: "full",
            name: "1",
            purpose: Purpose::Real,
            fingerprint: [0; 32],
            components: &[],
            timezone: "UTC",
            now: 1,
        };
        let edition = ledger.begin(&new).unwrap();
        let keys: Vec<String> = (1..=500).map(|n| format!("user{n}@example.org")).collect();
        let rows: Vec<Enlist<'_>> = (1..)
            .zip(&keys)
            .map(|(number, key)| Enlist {
                number,
                key,
                domain: "x",
                row: "[]",
                state: EnlistState::Pending,
                enclosed: None,
            })
            .collect();
        let pages = |ledger: &Sqlite, more: i64| {
            let now: i64 = ledger.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
            ledger.conn.pragma_update(None, "max_page_count", now + more).unwrap();
        };

        // While the list is taken in: it is not taken in whole, and a later run takes it in anew.
        pages(&ledger, 3);
        let mut enlister = ledger.enlist(edition, None, Dedupe::Refuse).unwrap();
        let full = enlister.add(&rows).unwrap_err();
        assert!(matches!(full, LedgerError::Full { .. }), "{full}");
        assert_eq!(full.exit(), crate::exit::Exit::Io);
        drop(enlister);
        assert_eq!(ledger.reader().unwrap().edition(edition).unwrap().unwrap().enlisted_at, None);
        pages(&ledger, 1000);
        let mut enlister = ledger.enlist(edition, None, Dedupe::Refuse).unwrap();
        enlister.add(&rows).unwrap();
        enlister.finish(SourceRecord::default(), 2).unwrap();

        // While letters are marked: all of the group or nothing, and what was before stays.
        pages(&ledger, 0);
        let marks = (1..=500).map(|seq| Mark {
            seq,
            date: 1_795_000_000,
            at: 1_795_000_000,
            message_id: "<0123456789abcdef0123456789abcdef@example.com>".into(),
            files: Vec::new(),
            digest: None,
        });
        let group = Group { marks: marks.collect(), settlements: Vec::new() };
        assert!(matches!(ledger.write(edition, &group), Err(LedgerError::Full { .. })));
        assert_eq!(ledger.reader().unwrap().counts(edition).unwrap().of(State::Pending), 500);
        pages(&ledger, 1000);
        ledger.write(edition, &group).unwrap();
        assert_eq!(ledger.reader().unwrap().counts(edition).unwrap().of(State::Sending), 500);
    }

    #[test]
    fn what_is_forgotten_stays_in_the_file_while_somebody_reads_and_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut ledger = Sqlite::open(&path).unwrap();
        let row = "INSERT INTO rows VALUES (4294967297, 'ada@x.org', '[]', 0, NULL);
            INSERT INTO deliveries (id, state, domain, attempts, generation) VALUES (4294967297, 'p', 'x', 0, 0)";
        ledger.conn.execute_batch(row).unwrap();
        ledger.fold(Duration::ZERO).unwrap();
        let reads = Connection::open(&path).unwrap();
        reads.execute_batch("BEGIN; SELECT count(*) FROM rows").unwrap();
        let in_file = || std::fs::read(&path).unwrap().windows(9).any(|octets| octets == b"ada@x.org");
        let forget = |ledger: &mut Sqlite| ledger.forget(&"ada@x.org".parse().unwrap()).unwrap().unfolded;
        assert!(forget(&mut ledger) && in_file());
        drop(reads);
        assert!(!forget(&mut ledger) && !in_file());
    }

    #[test]
    fn a_path_that_is_too_long_is_told_as_that_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let named = |octets: usize| {
            let mut path = folder.path().to_owned();
            while path.as_os_str().len() + 101 < octets {
                path.push("x".repeat(90));
            }
            path.join("x".repeat(octets - path.as_os_str().len() - 1))
        };
        Sqlite::open(&named(LONGEST_PATH)).unwrap();
        let path = named(LONGEST_PATH + 1);
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(&error, LedgerError::TooLong { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn who_reads_keeps_no_run_from_ending_nor_another_from_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let (mut ledger, mut other) = (Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap());
        let flag = |ledger: &mut Sqlite, on| ledger.set_flag("news", Purpose::Real, Flag::Pause, on).unwrap();
        flag(&mut ledger, true);
        let reads = Connection::open(&path).unwrap();
        reads.execute_batch("BEGIN; SELECT count(*) FROM flags").unwrap();
        flag(&mut ledger, false);
        let begun = Instant::now();
        ledger.tidy().unwrap();
        assert!(begun.elapsed() < READERS, "the end of a run waits for no reader");
        std::thread::scope(|scope| {
            let folding = scope.spawn(move || ledger.fold(READERS).unwrap());
            other.conn.busy_timeout(READERS / 4).unwrap();
            while !folding.is_finished() {
                flag(&mut other, true);
                std::thread::sleep(BREATH);
            }
            assert!(!folding.join().unwrap());
        });
    }

    #[test]
    fn what_is_deferred_is_found_by_its_index_and_not_by_reading_the_edition() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Sqlite::open(&folder.path().join("ledger.db")).unwrap();
        let due = format!("{}{}", read::CLAIMED, read::DUE);
        for sql in [due.as_str(), read::NEXT_DUE, write::BRING_FORWARD] {
            let mut explain = ledger.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let unbound = vec![None::<i64>; explain.parameter_count()];
            let plan = explain.query_map(rusqlite::params_from_iter(unbound), |row| row.get(3)).unwrap();
            let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
            assert!(plan[0].contains("INDEX deferred"), "{sql}: {plan:?}");
        }
    }

    #[test]
    fn a_ledger_of_an_older_version_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let ledger = Sqlite::open(&path).unwrap();
        let secret = ledger.secret();
        let older = "ALTER TABLE deliveries DROP COLUMN enclosed; PRAGMA user_version = 1;
                     INSERT INTO rows VALUES (4294967297, 'k', '[]', 0, NULL);
                     INSERT INTO deliveries (id, state, domain, attempts, generation) VALUES (4294967297, 'p', 'x', 0, 0)";
        for read_only in [true, false] {
            ledger.conn.execute_batch(older).unwrap();
            let claimed = match read_only {
                true => Sqlite::open_read_only(&path).unwrap().claim(EditionId(1), 0, 10).unwrap(),
                false => Sqlite::open(&path).unwrap().reader().unwrap().claim(EditionId(1), 0, 10).unwrap(),
            };
            assert_eq!(claimed.len(), 1);
            assert_eq!((claimed[0].key.as_str(), claimed[0].enclosed), ("k", None));
            assert_eq!(version(&ledger.conn).unwrap(), schema::VERSION);
            ledger.conn.execute_batch("DELETE FROM rows; DELETE FROM deliveries").unwrap();
        }
        assert_eq!(Sqlite::open(&path).unwrap().secret(), secret);
    }

    #[test]
    fn one_file_has_one_name_and_one_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("ledger.db"), folder.path().join("elsewhere/book.db"));
        std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
        let ledger = Sqlite::open(&path).unwrap();
        std::os::unix::fs::symlink("../ledger.db", &other).unwrap();
        let same = Sqlite::open(&other).unwrap();
        let lock = ledger.lock("job", Purpose::Real).unwrap();
        assert!(matches!(same.lock("job", Purpose::Real), Err(LedgerError::InUse { .. })));
        drop((lock, same, ledger));
        std::fs::remove_file(&other).unwrap();
        std::fs::hard_link(&path, &other).unwrap();
        for name in [&path, &other] {
            assert!(matches!(Sqlite::open(name), Err(LedgerError::Linked { .. })), "{}", name.display());
        }
    }

    #[test]
    fn what_cannot_be_looked_for_is_not_absent() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        for (name, absent) in [("file/ledger.db", false), ("ledger.db", true)] {
            let path = folder.path().join(name);
            for error in
                [Sqlite::open_existing(&path).unwrap_err(), Sqlite::open_read_only(&path).unwrap_err()]
            {
                assert_eq!(matches!(error, LedgerError::Missing { .. }), absent, "{error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_ledger_is_said_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(error, LedgerError::Corrupt { .. }), "{error}");
        std::fs::remove_file(&path).unwrap();
        let ledger = Sqlite::open(&path).unwrap();
        ledger.conn.pragma_update(None, "user_version", 99).unwrap();
        drop(ledger);
        assert!(matches!(Sqlite::open(&path), Err(LedgerError::Newer { found: 99, .. })));
    }
}
