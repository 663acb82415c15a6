//! The reading side: a connection of its own, which sees the last commit.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, ToSql, params};
use rustix::fs::StatVfsMountFlags;
use serde_json::Value as Json;

use crate::database;
use crate::ledger::{
    Claimed, Component, Counts, Domains, Edition, EditionId, Flags, LedgerError, LetterRecord, Queue, Reader,
    Record, Reject, SourceRecord, Standing, State, UNSEEN,
};
use crate::letter::{Outcome, Purpose};

use super::{READER_CACHE_KIB, STATEMENTS, records, schema};

/// What is read of a delivery when it is claimed.
pub(super) const CLAIMED: &str =
    "SELECT d.id, r.number, r.key, r.row, r.layout, d.domain, d.attempts, d.generation,
        d.date, d.first_attempt, d.enclosed FROM deliveries d CROSS JOIN rows r ON r.id = d.id ";

// The plus keeps SQLite from walking the whole edition: a few are deferred, and they have an index.
pub(super) const DUE: &str = "WHERE +d.id BETWEEN ?1 AND ?2 AND d.state = 'd' AND d.next_attempt <= ?3
        ORDER BY d.next_attempt LIMIT ?4";

pub(super) const NEXT_DUE: &str = "SELECT next_attempt FROM deliveries
        WHERE +id BETWEEN ?1 AND ?2 AND state = 'd' AND next_attempt > ?3 ORDER BY next_attempt LIMIT 1";

/// So many names are compared one by one; more make an expression that SQLite takes for too deep.
const MAX_COMPARISONS: usize = 64;

/// How long a reader waits where the log is being recovered.
const PATIENCE: Duration = Duration::from_secs(20);

/// A reading connection.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    conn: Connection,
}

/// Opens a database for reading. On a disk that is read-only nobody else can write either.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    let blocked = match super::version(&conn) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => error,
        _ => return Ok(conn),
    };
    let read_only =
        rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY));
    if !read_only {
        return Err(blocked);
    }
    database::open_alone(path)?.ok_or(blocked)
}

impl SqliteReader {
    /// Opens the ledger at `path`, if there is one.
    pub(super) fn open(path: &Path) -> Result<SqliteReader, LedgerError> {
        let said = |error| LedgerError::sqlite(path, error);
        super::is_there(path)?;
        let conn = connect(path).map_err(said)?;
        conn.busy_timeout(PATIENCE).map_err(said)?;
        conn.execute_batch(&format!("PRAGMA cache_size = -{READER_CACHE_KIB}; PRAGMA query_only = ON;"))
            .map_err(said)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        let found = super::version(&conn).map_err(said)?;
        match found {
            // One of an older version is brought up to date by whoever opens it for writing.
            1..schema::VERSION => {
                drop(conn);
                super::Sqlite::open(path)?;
                SqliteReader::open(path)
            }
            // A ledger that is being made in this moment holds nothing yet.
            0 => Err(LedgerError::Missing { path: path.to_owned() }),
            schema::VERSION => Ok(SqliteReader { path: path.to_owned(), conn }),
            _ => Err(LedgerError::Newer { path: path.to_owned(), found, known: schema::VERSION }),
        }
    }

    /// Lends the connection.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        work(&self.conn).map_err(|error| LedgerError::sqlite(&self.path, error))
    }

    /// Runs a query and reads each of its rows.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.collect())
            .map_err(|error| LedgerError::sqlite(&self.path, error))
    }

    /// Runs a query of at most one row.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, LedgerError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(params, read).optional())
            .map_err(|error| LedgerError::sqlite(&self.path, error))
    }

    /// Runs a query and shows each of its rows until `visit` breaks off.
    pub(super) fn scan(
        &self,
        sql: &str,
        params: impl Params,
        mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<(), LedgerError> {
        let scan = || {
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query(params)?;
            while let Some(row) = rows.next()? {
                if visit(row)?.is_break() {
                    break;
                }
            }
            Ok(())
        };
        scan().map_err(|error| LedgerError::sqlite(&self.path, error))
    }

    pub(super) fn claimed(&self, condition: &str, params: impl Params) -> Result<Vec<Claimed>, LedgerError> {
        let mut claimed = self.all(&format!("{CLAIMED}{condition}"), params, claimed)?;
        // Only a letter that was tried, or put back after that, can have outcomes.
        let tried =
            |delivery: &Claimed| delivery.attempts > 0 || delivery.date.is_some() || delivery.generation > 0;
        for delivery in claimed.iter_mut().filter(|delivery| tried(&delivery.1)) {
            let (first, last) = schema::items(delivery.0, delivery.0);
            let known = self.all(
                "SELECT address, outcome FROM rcpts WHERE id BETWEEN ?1 AND ?2",
                [first, last],
                |row| Ok((row.get::<_, String>(0)?, records::outcome_of(row, 1)?)),
            )?;
            let (open, settled): (Vec<_>, Vec<_>) =
                known.into_iter().partition(|(_, outcome)| *outcome == Outcome::Deferred);
            delivery.1.earlier = settled.iter().map(|(_, outcome)| *outcome).max();
            delivery.1.settled = settled.into_iter().map(|(address, _)| address).collect();
            delivery.1.deferred = open.into_iter().map(|(address, _)| address).collect();
        }
        Ok(claimed.into_iter().map(|(_, claimed)| claimed).collect())
    }

    fn editions_where(&self, condition: &str, params: impl Params) -> Result<Vec<Edition>, LedgerError> {
        let mut editions = self.all(
            &format!(
                "SELECT id, job, edition, purpose, fingerprint, timezone, begun, enlisted_at, finished_at,
                        source_hash, source_rows, filtered, duplicates, left_at, pruned_at
                 FROM editions WHERE {condition} ORDER BY id"
            ),
            params,
            edition,
        )?;
        for edition in &mut editions {
            let layouts = self.all(
                "SELECT columns FROM layouts WHERE edition = ?1 ORDER BY n",
                [edition.id.0],
                |row| row.get::<_, Option<String>>(0),
            )?;
            // The array was written here; a text that is none would mean objects, and fail each row.
            edition.layouts =
                layouts.into_iter().map(|text| serde_json::from_str(text.as_deref()?).ok()).collect();
        }
        Ok(editions)
    }
}

impl Queue for SqliteReader {
    fn claim(&self, edition: EditionId, after_seq: u64, limit: usize) -> Result<Vec<Claimed>, LedgerError> {
        let (_, last) = schema::bounds(edition);
        self.claimed(
            "WHERE d.id > ?1 AND d.id <= ?2 AND d.state = 'p' ORDER BY d.id LIMIT ?3",
            params![schema::delivery(edition, after_seq), last, limit as i64],
        )
    }

    fn claim_of(
        &self,
        edition: EditionId,
        domains: &Domains,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError> {
        let (_, last) = schema::bounds(edition);
        let (only, names) = match domains {
            Domains::Only(names) => (true, names),
            Domains::Except(names) => (false, names),
        };
        // Comparisons written out: a list of names looked through as a table costs more than the row.
        let (after, limit) = (schema::delivery(edition, after_seq), limit as i64);
        let lists;
        let mut values: Vec<&dyn ToSql> = vec![&after, &last, &limit];
        let mut any = String::from("0");
        if names.len() <= MAX_COMPARISONS {
            for name in names {
                values.push(name);
                let compares = if name.contains('*') { "GLOB" } else { "=" };
                any.push_str(&format!(" OR d.domain {compares} ?{}", values.len()));
            }
        } else {
            let (patterns, plain): (Vec<&str>, Vec<&str>) =
                names.iter().map(String::as_str).partition(|name| name.contains('*'));
            lists = [Json::from(plain).to_string(), Json::from(patterns).to_string()];
            values.extend(lists.iter().map(|list| list as &dyn ToSql));
            any.push_str(
                " OR d.domain IN (SELECT value FROM json_each(?4))
                  OR EXISTS (SELECT 1 FROM json_each(?5) WHERE d.domain GLOB value)",
            );
        }
        let not = if only { "" } else { "NOT" };
        self.claimed(
            &format!(
                "WHERE d.id > ?1 AND d.id <= ?2 AND d.state = 'p' AND {not} ({any}) ORDER BY d.id LIMIT ?3"
            ),
            values.as_slice(),
        )
    }

    fn claim_due(&self, edition: EditionId, now: i64, limit: usize) -> Result<Vec<Claimed>, LedgerError> {
        let (first, last) = schema::bounds(edition);
        self.claimed(DUE, params![first, last, now, limit as i64])
    }

    fn next_due(&self, edition: EditionId, after: i64) -> Result<Option<i64>, LedgerError> {
        let (first, last) = schema::bounds(edition);
        let due = self.one(NEXT_DUE, [first, last, after], |row| row.get(0))?;
        Ok(due.flatten())
    }

    fn flags(&self, job: &str, purpose: Purpose) -> Result<Flags, LedgerError> {
        let words = self.all(
            "SELECT flag FROM flags WHERE job = ?1 AND purpose = ?2",
            [job, purpose.word()],
            |row| row.get::<_, String>(0),
        )?;
        let set = |flag: &str| words.iter().any(|word| word == flag);
        Ok(Flags { stop: set("stop"), pause: set("pause") })
    }
}

impl Reader for SqliteReader {
    fn editions(&self, job: &str, purpose: Purpose) -> Result<Vec<Edition>, LedgerError> {
        self.editions_where("job = ?1 AND purpose = ?2", [job, purpose.word()])
    }

    fn all_editions(&self) -> Result<Vec<Edition>, LedgerError> {
        self.editions_where("1", [])
    }

    fn edition(&self, id: EditionId) -> Result<Option<Edition>, LedgerError> {
        Ok(self.editions_where("id = ?1", [id.0])?.pop())
    }

    fn components(&self, edition: EditionId) -> Result<Vec<Component>, LedgerError> {
        self.all(
            "SELECT name, hash, text FROM components WHERE edition = ?1 ORDER BY name",
            [edition.0],
            |row| Ok(Component { name: row.get(0)?, hash: row.get(1)?, text: row.get(2)? }),
        )
    }

    fn claim_these(&self, edition: EditionId, seqs: &[u64]) -> Result<Vec<Claimed>, LedgerError> {
        let mut these = Vec::with_capacity(seqs.len());
        for &seq in seqs {
            these.extend(self.claimed("WHERE d.id = ?1", [schema::delivery(edition, seq)])?);
        }
        Ok(these)
    }

    fn find_keys(&self, edition: EditionId, keys: &[String]) -> Result<Vec<Option<u64>>, LedgerError> {
        records::find_keys(self, edition, keys)
    }

    fn counts(&self, edition: EditionId) -> Result<Counts, LedgerError> {
        let (first, last) = schema::bounds(edition);
        let mut counts = Counts::default();
        self.conn
            .prepare_cached("SELECT state FROM deliveries WHERE id BETWEEN ?1 AND ?2")
            .and_then(|mut select| {
                let mut rows = select.query([first, last])?;
                while let Some(row) = rows.next()? {
                    counts.add(super::state_of(row, 0)?, 1);
                }
                Ok(())
            })
            .map_err(|error| LedgerError::sqlite(&self.path, error))?;
        Ok(counts)
    }

    fn any_with_unknown_files(&self, edition: EditionId) -> Result<bool, LedgerError> {
        let (first, last) = schema::bounds(edition);
        let found = self.one(
            "SELECT 1 FROM deliveries WHERE id BETWEEN ?1 AND ?2 AND instr('pd', state)
                AND (enclosed IS NULL OR enclosed = ?3) LIMIT 1",
            [first, last, UNSEEN],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    fn rows_in(
        &self,
        edition: EditionId,
        states: &[State],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError> {
        records::rows_in(self, edition, states, after_seq, limit)
    }

    fn standing(&self, edition: EditionId) -> Result<Standing, LedgerError> {
        records::standing(self, edition)
    }

    fn each(
        &self,
        edition: EditionId,
        states: &[State],
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        records::each(self, edition, states, visit)
    }

    fn letter(&self, edition: EditionId, seq: u64) -> Result<Option<LetterRecord>, LedgerError> {
        records::letter(self, edition, seq)
    }

    fn rejects(&self, edition: EditionId, after: u64, limit: usize) -> Result<Vec<Reject>, LedgerError> {
        self.all(
            "SELECT row_no, key, duplicate, reason FROM rejects WHERE edition = ?1 AND row_no > ?2
             ORDER BY row_no LIMIT ?3",
            params![edition.0, after as i64, limit as i64],
            |row| {
                Ok(Reject {
                    number: row.get::<_, i64>(0)? as u64,
                    key: row.get(1)?,
                    duplicate: row.get(2)?,
                    reason: row.get(3)?,
                })
            },
        )
    }
}

fn claimed(row: &Row<'_>) -> rusqlite::Result<(i64, Claimed)> {
    let id: i64 = row.get(0)?;
    let seq = schema::seq(id);
    let claimed = Claimed {
        seq,
        number: row.get::<_, Option<i64>>(1)?.map_or(seq, |number| number as u64),
        key: row.get(2)?,
        row: row.get(3)?,
        layout: row.get::<_, u32>(4)? as usize,
        domain: row.get(5)?,
        attempts: row.get(6)?,
        generation: row.get(7)?,
        date: row.get(8)?,
        first_attempt: row.get(9)?,
        enclosed: row.get(10)?,
        settled: Vec::new(),
        deferred: Vec::new(),
        earlier: None,
    };
    Ok((id, claimed))
}

fn edition(row: &Row<'_>) -> rusqlite::Result<Edition> {
    let count = |column| Ok::<u64, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.unwrap_or(0) as u64);
    let source =
        SourceRecord { hash: row.get(9)?, rows: count(10)?, filtered: count(11)?, duplicates: count(12)? };
    Ok(Edition {
        id: EditionId(row.get(0)?),
        job: row.get(1)?,
        name: row.get(2)?,
        purpose: super::purpose_of(row.get_ref(3)?.as_str()?),
        fingerprint: row.get(4)?,
        timezone: row.get(5)?,
        begun: row.get(6)?,
        enlisted_at: row.get(7)?,
        finished_at: row.get(8)?,
        left_at: row.get(13)?,
        pruned_at: row.get(14)?,
        source,
        layouts: Vec::new(),
    })
}
