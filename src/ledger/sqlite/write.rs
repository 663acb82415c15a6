//! The writing side: editions, and the groups of the hot path.

use std::path::Path;

use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};

use crate::failpoint;
use crate::job::Unsure;
use crate::ledger::{Component, EditionId, Group, LedgerError, Mark, NewEdition, Settlement, State, UNSEEN};
use crate::letter::{Enhanced, Outcome};

use super::{Sqlite, schema};

/// Why a delivery is unsure that a dead run left in `sending`.
const DIED: &str = "the run ended after the content may have been sent and before an answer was recorded";

pub(super) fn begin(ledger: &mut Sqlite, new: &NewEdition<'_>) -> Result<EditionId, LedgerError> {
    failpoint::reach("ledger.begin.before");
    let id = ledger.transact(|conn, path| {
        let said = |error| LedgerError::sqlite(path, error);
        let last: u32 = conn
            .query_row("SELECT coalesce(max(id), 0) FROM editions", [], |row| row.get(0))
            .map_err(said)?;
        if last >= schema::MAX_EDITION {
            return Err(LedgerError::TooMany { what: "editions", limit: schema::MAX_EDITION.into() });
        }
        let id = EditionId(last + 1);
        conn.execute(
            "INSERT INTO editions (id, job, edition, purpose, fingerprint, timezone, begun)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![id.0, new.job, new.name, new.purpose.word(), &new.fingerprint[..], new.timezone, new.now],
        )
        .map_err(said)?;
        put_components(conn, path, id, new.components)?;
        Ok(id)
    })?;
    failpoint::reach("ledger.begin.after");
    Ok(id)
}

pub(super) fn accept_changes(
    ledger: &mut Sqlite,
    edition: EditionId,
    fingerprint: [u8; 32],
    components: &[Component],
) -> Result<(), LedgerError> {
    failpoint::reach("ledger.accept.before");
    ledger.transact(|conn, path| {
        let said = |error| LedgerError::sqlite(path, error);
        conn.execute(
            "UPDATE editions SET fingerprint = ?1 WHERE id = ?2",
            params![&fingerprint[..], edition.0],
        )
        .map_err(said)?;
        let old = enclosing(conn, edition).map_err(said)?;
        conn.execute("DELETE FROM components WHERE edition = ?1", [edition.0]).map_err(said)?;
        put_components(conn, path, edition, components)?;
        let other_files = old != enclosing(conn, edition).map_err(said)?;
        // A letter that was tried will be another one: it must not carry the Message-ID and date of
        // the first. One that was accepted stays what it was until somebody requeues it.
        let (first, last) = schema::bounds(edition);
        conn.execute(
            "UPDATE deliveries SET generation = generation + 1, date = NULL
             WHERE id BETWEEN ?1 AND ?2 AND date IS NOT NULL AND state <> 'a'",
            [first, last],
        )
        .map_err(said)?;
        if other_files {
            // What they were is of no interest any more. What they are is said when the list is taken in again; one
            // from standard input is not, and a row that was changed does not say it.
            conn.execute(
                "UPDATE deliveries SET enclosed = ?3 WHERE id BETWEEN ?1 AND ?2 AND state <> 'a'",
                [first, last, UNSEEN],
            )
            .map_err(said)?;
        }
        Ok(())
    })?;
    failpoint::reach("ledger.accept.after");
    Ok(())
}

/// What a job says of files that belong to a row.
fn enclosing(conn: &Connection, edition: EditionId) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    conn.prepare(
        "SELECT name, hash FROM components WHERE edition = ?1 AND (name GLOB 'attachments[[]*' OR name GLOB 'images.*')
         ORDER BY name",
    )?
    .query_map([edition.0], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

fn put_components(
    conn: &Connection,
    path: &Path,
    edition: EditionId,
    components: &[Component],
) -> Result<(), LedgerError> {
    let said = |error| LedgerError::sqlite(path, error);
    let mut insert =
        conn.prepare("INSERT OR REPLACE INTO components VALUES (?1, ?2, ?3, ?4)").map_err(said)?;
    for component in components {
        insert
            .execute(params![edition.0, component.name, &component.hash[..], component.text])
            .map_err(said)?;
    }
    Ok(())
}

pub(super) fn recover(
    ledger: &mut Sqlite,
    edition: EditionId,
    policy: Unsure,
) -> Result<Vec<(u64, String)>, LedgerError> {
    failpoint::reach("ledger.recover.before");
    let left = ledger.transact(|conn, path| {
        let said = |error| LedgerError::sqlite(path, error);
        let (first, last) = schema::bounds(edition);
        conn.execute("UPDATE editions SET left_at = NULL WHERE id = ?1", [edition.0]).map_err(said)?;
        let left: Vec<(i64, String)> = conn
            .prepare(
                "SELECT d.id, r.key FROM deliveries d JOIN rows r ON r.id = d.id
                 WHERE d.id BETWEEN ?1 AND ?2 AND d.state = 's'",
            )
            .and_then(|mut select| {
                select.query_map([first, last], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(said)?;
        let (state, reason) = match policy {
            Unsure::Hold => (State::Unsure, Some(DIED)),
            Unsure::Resend => (State::Pending, None),
        };
        let mut update =
            conn.prepare("UPDATE deliveries SET state = ?1, reason = ?2 WHERE id = ?3").map_err(said)?;
        for (id, _) in &left {
            update.execute(params![state.letter(), reason, id]).map_err(said)?;
        }
        Ok(left)
    })?;
    failpoint::reach("ledger.recover.after");
    Ok(left.into_iter().map(|(id, key)| (schema::seq(id), key)).collect())
}

// By the index of what is deferred, as `read::DUE`.
pub(super) const BRING_FORWARD: &str = "UPDATE deliveries
    SET next_attempt = ?3, first_attempt = min(first_attempt, ?3)
    WHERE +id BETWEEN ?1 AND ?2 AND state = 'd' AND (next_attempt > ?4 OR first_attempt > ?3)";

pub(super) fn bring_forward(
    ledger: &mut Sqlite,
    edition: EditionId,
    now: i64,
    latest: i64,
) -> Result<u64, LedgerError> {
    let (first, last) = schema::bounds(edition);
    ledger.transact(|conn, path| {
        conn.execute(BRING_FORWARD, [first, last, now, latest])
            .map(|changed| changed as u64)
            .map_err(|error| LedgerError::sqlite(path, error))
    })
}

pub(super) fn finish(ledger: &mut Sqlite, edition: EditionId, now: i64) -> Result<(), LedgerError> {
    failpoint::reach("ledger.finish.before");
    ledger.transact(|conn, path| {
        // A later run that finds nothing to do does not make it younger: it is to be pruned some day.
        conn.execute(
            "UPDATE editions SET finished_at = coalesce(finished_at, ?1) WHERE id = ?2",
            params![now, edition.0],
        )
        .map(drop)
        .map_err(|error| LedgerError::sqlite(path, error))
    })?;
    failpoint::reach("ledger.finish.after");
    Ok(())
}

/// One transaction, one sync.
pub(super) fn group(ledger: &mut Sqlite, edition: EditionId, group: &Group) -> Result<(), LedgerError> {
    if group.is_empty() {
        return Ok(());
    }
    if !group.marks.is_empty() {
        // Nothing new is sent that nobody will know of. What was answered meanwhile is in doubt, should the file
        // come back.
        ledger.in_its_place()?;
        failpoint::reach("ledger.mark.before");
    }
    if !group.settlements.is_empty() {
        failpoint::reach("ledger.settle.before");
    }
    let path = &ledger.path;
    let said = |error| LedgerError::sqlite(path, error);
    let transaction = ledger.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(said)?;
    {
        let mut statements = Statements::new(&transaction, path)?;
        // Settlements first: a letter may be settled and, returned, marked again in one group.
        for settlement in &group.settlements {
            statements.settle(schema::delivery(edition, settlement.seq), settlement)?;
        }
        for mark in &group.marks {
            statements.mark(schema::delivery(edition, mark.seq), mark)?;
        }
    }
    transaction.commit().map_err(said)?;
    if !group.marks.is_empty() {
        failpoint::reach("ledger.mark.after");
    }
    if !group.settlements.is_empty() {
        failpoint::reach("ledger.settle.after");
    }
    Ok(())
}

/// The statements of the hot path, taken once for a group.
struct Statements<'c> {
    path: &'c Path,
    conn: &'c Connection,
    mark: CachedStatement<'c>,
    file: CachedStatement<'c>,
    settle: CachedStatement<'c>,
    rcpt: CachedStatement<'c>,
}

impl<'c> Statements<'c> {
    fn new(conn: &'c Connection, path: &'c Path) -> Result<Statements<'c>, LedgerError> {
        let prepare = |sql| conn.prepare_cached(sql).map_err(|error| LedgerError::sqlite(path, error));
        // `instr` and not IN: for IN SQLite would build a small tree at each execution.
        Ok(Statements {
            path,
            conn,
            mark: prepare(
                "UPDATE deliveries SET state = 's', attempts = attempts + 1, date = ?2, message_id = ?3,
                        first_attempt = coalesce(first_attempt, ?4), digest = ?5
                 WHERE id = ?1 AND instr('pdc', state)",
            )?,
            file: prepare("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4)")?,
            settle: prepare(
                "UPDATE deliveries SET state = ?2, next_attempt = ?3, reason = ?4,
                        attempts = attempts - (state = 's' AND ?2 = 'p')
                 WHERE id = ?1 AND NOT instr('ar', state)",
            )?,
            rcpt: prepare("INSERT OR IGNORE INTO rcpts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
        })
    }

    fn mark(&mut self, id: i64, mark: &Mark) -> Result<(), LedgerError> {
        let path = self.path;
        let said = |error| LedgerError::sqlite(path, error);
        let digest = mark.digest.as_ref().map(|digest| &digest[..]);
        let changed =
            self.mark.execute(params![id, mark.date, mark.message_id, mark.at, digest]).map_err(said)?;
        if changed != 1 {
            return Err(LedgerError::OutOfOrder { seq: mark.seq, step: "marked" });
        }
        for (n, file) in mark.files.iter().enumerate() {
            let id = schema::item(id, n, "files of a letter")?;
            self.file.execute(params![id, file.name, file.size as i64, &file.sha256[..]]).map_err(said)?;
        }
        Ok(())
    }

    fn settle(&mut self, id: i64, settlement: &Settlement) -> Result<(), LedgerError> {
        let path = self.path;
        let said = |error| LedgerError::sqlite(path, error);
        let Settlement { seq, state, next_attempt, reason, .. } = settlement;
        let changed = self.settle.execute(params![id, state.letter(), next_attempt, reason]).map_err(said)?;
        if changed != 1 {
            return Err(LedgerError::OutOfOrder { seq: *seq, step: "settled" });
        }
        for (n, rcpt) in settlement.rcpts.iter().enumerate() {
            let outcome = outcome_letter(rcpt.outcome);
            let enhanced = rcpt.answer.enhanced.map(enhanced_number);
            let answer = &rcpt.answer;
            let item = schema::item(id, n, "recipients of a letter")?;
            let inserted = self
                .rcpt
                .execute(params![
                    item,
                    rcpt.address,
                    outcome,
                    answer.code,
                    enhanced,
                    answer.text,
                    settlement.at
                ])
                .map_err(said)?;
            if inserted == 0 {
                // An earlier attempt left outcomes: this address takes the place it had, or a new one.
                let item = place_of(self.conn, id, &rcpt.address).map_err(said)?;
                let item = match item {
                    Place::Known(item) => item,
                    Place::Next(n) => schema::item(id, n, "recipients of a letter")?,
                };
                self.conn
                    .prepare_cached(REPLACE_RCPT)
                    .and_then(|mut replace| {
                        let text = &answer.text;
                        let at = settlement.at;
                        replace.execute(params![item, rcpt.address, outcome, answer.code, enhanced, text, at])
                    })
                    .map_err(said)?;
            }
        }
        Ok(())
    }
}

// What was accepted stays so, whatever becomes of the letter: nobody is to get it again.
const REPLACE_RCPT: &str = "INSERT INTO rcpts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, code = excluded.code, enhanced = excluded.enhanced,
        text = excluded.text, at = excluded.at
    WHERE outcome <> 'a'";

/// Where an address of a delivery has its outcome.
enum Place {
    Known(i64),
    Next(usize),
}

fn place_of(conn: &Connection, delivery: i64, address: &str) -> rusqlite::Result<Place> {
    let (first, last) = schema::items(delivery, delivery);
    let mut select = conn.prepare_cached("SELECT id, address FROM rcpts WHERE id BETWEEN ?1 AND ?2")?;
    let mut rows = select.query([first, last])?;
    let mut next = 0;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if row.get_ref(1)?.as_str()? == address {
            return Ok(Place::Known(id));
        }
        next = (id - first) as usize + 1;
    }
    Ok(Place::Next(next))
}

/// The letter of an outcome: that of the state it leads to.
pub(super) fn outcome_letter(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "a",
        Outcome::Deferred => "d",
        Outcome::Refused => "r",
        Outcome::Failed => "f",
        Outcome::Unsure => "u",
    }
}

/// 5.1.1 as 5001001.
fn enhanced_number(code: Enhanced) -> i64 {
    i64::from(code.class) * 1_000_000 + i64::from(code.subject) * 1000 + i64::from(code.detail)
}
