//! Taking in a list: bulk inserts at the right-hand end of two trees.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Params, Statement, params};

use crate::failpoint;
use crate::job::Dedupe;
use crate::ledger::keys::{self, Keys};
use crate::ledger::{
    EditionId, Enlist, EnlistState, Enlister, Enlisting, LedgerError, REMOVED, SourceRecord, State, UNSEEN,
};
use crate::letter::RecipientKey;

use super::{Sqlite, schema, upkeep};

/// Rows in one transaction: it holds off the other writers of this ledger for a fraction of a second,
/// and the log does not grow to the size of the list.
const ROWS_PER_TRANSACTION: u64 = 50_000;

/// See [`Enlister`].
pub(super) struct SqliteEnlister<'l> {
    path: &'l Path,
    conn: &'l Connection,
    edition: EditionId,
    dedupe: Dedupe,
    layout: i64,
    secret: [u8; 32],
    keys: Keys,
    /// The highest number given out.
    last: u64,
    /// Where the edition was enlisted before: what is found out about its own keys.
    renewal: Option<Renewal>,
    /// Rows in the open transaction.
    open: u64,
    in_transaction: bool,
    reopened: bool,
    result: Enlisting,
    insert_row: Statement<'l>,
    insert_delivery: Statement<'l>,
    insert_reject: Statement<'l>,
    look: Statement<'l>,
}

/// An edition that was enlisted before gets its list again.
struct Renewal {
    /// The highest number it had.
    old_last: u64,
    /// A bit for each of its deliveries that the list still has.
    seen: Vec<u64>,
    /// Its forgotten people, by the key that stands in their place: usually none, never many.
    forgotten: HashSet<String>,
}

impl Renewal {
    /// Marks a delivery as seen; whether it was already.
    fn see(&mut self, seq: u64) -> bool {
        let (word, bit) = ((seq / 64) as usize, 1 << (seq % 64));
        let before = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        before
    }

    fn saw(&self, seq: u64) -> bool {
        self.seen[(seq / 64) as usize] & (1 << (seq % 64)) != 0
    }
}

/// A delivery of an edition that was enlisted before.
struct Frozen {
    state: State,
    /// It failed for its row, and nothing was sent to anybody.
    unsent: bool,
    /// It was taken off the list, and nothing else speaks against it.
    returns: bool,
    /// Nobody has looked which files are its own.
    unseen: bool,
}

impl<'l> SqliteEnlister<'l> {
    /// Drops what a dead run left, or reads the keys the edition has.
    pub(super) fn begin(
        ledger: &'l mut Sqlite,
        edition: EditionId,
        columns: Option<&[String]>,
        dedupe: Dedupe,
    ) -> Result<SqliteEnlister<'l>, LedgerError> {
        failpoint::reach("ledger.enlist.before");
        let columns = columns.map(|names| serde_json::json!(names).to_string());
        let (layout, renews) = ledger.transact(|conn, path| {
            let said = |error| LedgerError::sqlite(path, error);
            let enlisted: Option<i64> = conn
                .query_row("SELECT enlisted_at FROM editions WHERE id = ?1", [edition.0], |row| row.get(0))
                .map_err(said)?;
            if enlisted.is_none() {
                drop_partial(conn, path, edition)?;
            }
            // Until the end of this the ledger does not claim to know what the list held.
            conn.execute("UPDATE editions SET source_hash = NULL WHERE id = ?1", [edition.0])
                .map_err(said)?;
            conn.execute("DELETE FROM rejects WHERE edition = ?1", [edition.0]).map_err(said)?;
            Ok((layout(conn, edition, columns.as_deref()).map_err(said)?, enlisted.is_some()))
        })?;
        failpoint::reach("ledger.enlist.begun");

        let (path, conn) = (ledger.path.as_path(), &ledger.conn);
        let said = |error| LedgerError::sqlite(path, error);
        let (mut keys, mut last, mut renewal) = (Keys::new(), 0, None);
        if renews {
            let forgotten;
            (last, forgotten) = read_keys(conn, edition, &mut keys).map_err(said)?;
            renewal = Some(Renewal { old_last: last, seen: vec![0; last as usize / 64 + 1], forgotten });
            // The hash of a row that differs from its frozen one, to know it again within this list.
            conn.execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS differs (seq INTEGER PRIMARY KEY, hash INTEGER NOT NULL);
                 DELETE FROM temp.differs;",
            )
            .map_err(said)?;
        }
        // Nothing is sent before the last transaction, which syncs the log with all that is before
        // it. NORMAL leaves out the syncs between, and keeps the file whole in a power cut.
        conn.execute_batch("PRAGMA synchronous = NORMAL").map_err(said)?;
        let prepare = |sql| conn.prepare(sql).map_err(said);
        Ok(SqliteEnlister {
            path,
            conn,
            edition,
            dedupe,
            layout,
            secret: ledger.secret,
            keys,
            last,
            renewal,
            open: 0,
            in_transaction: false,
            reopened: false,
            result: Enlisting::default(),
            insert_row: prepare("INSERT INTO rows VALUES (?1, ?2, ?3, ?4, ?5)")?,
            insert_delivery: prepare(
                "INSERT INTO deliveries (id, state, domain, attempts, generation, reason, enclosed)
                 VALUES (?1, ?2, ?3, 0, 0, ?4, ?5)",
            )?,
            insert_reject: prepare("INSERT OR REPLACE INTO rejects VALUES (?1, ?2, ?3, ?4, ?5)")?,
            look: prepare("SELECT key, row, layout FROM rows WHERE id = ?1")?,
        })
    }

    fn said(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(self.path, error)
    }

    /// Opens a transaction, where none is open; commits a full one.
    fn turn(&mut self) -> Result<(), LedgerError> {
        if self.in_transaction && self.open >= ROWS_PER_TRANSACTION {
            self.commit()?;
            failpoint::reach("ledger.enlist.after");
        }
        if !self.in_transaction {
            self.conn.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.said(error))?;
            self.in_transaction = true;
            self.open = 0;
        }
        self.open += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        if self.in_transaction {
            self.reopen()?;
            self.conn.execute_batch("COMMIT").map_err(|error| self.said(error))?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// An edition that gets something to send is finished no more, from the same moment on: a run that dies now is
    /// followed by one that sees it.
    fn reopen(&mut self) -> Result<(), LedgerError> {
        let gained = self.result.added + self.result.mended + self.result.returned > 0;
        if self.renewal.is_some() && gained && !self.reopened {
            self.conn
                .execute("UPDATE editions SET finished_at = NULL WHERE id = ?1", [self.edition.0])
                .map_err(|error| self.said(error))?;
            self.reopened = true;
        }
        Ok(())
    }

    /// The delivery that has this key, and whether its row is equal; `None` for "cannot be compared",
    /// as when a column came to the list.
    fn find(&mut self, hash: u64, row: &Enlist<'_>) -> Result<Option<(u64, Option<bool>)>, LedgerError> {
        for seq in self.keys.candidates(hash) {
            let found = self
                .look
                .query_row([schema::delivery(self.edition, seq)], |found| {
                    let known = found.get_ref(0)?.as_str()?;
                    if known != row.key && RecipientKey::spelling(known) != row.key {
                        return Ok(None);
                    }
                    let same_layout = found.get::<_, i64>(2)? == self.layout;
                    let equal = found.get_ref(1)?.as_str()? == row.row;
                    Ok(Some(same_layout.then_some(equal)))
                })
                .optional()
                .map_err(|error| LedgerError::sqlite(self.path, error))?;
            if let Some(Some(equal)) = found {
                return Ok(Some((seq, equal)));
            }
        }
        Ok(None)
    }

    /// Whether this person got this edition, or was to get it, and was forgotten since: the list still
    /// naming them is no reason to mail them again.
    fn is_forgotten(&self, row: &Enlist<'_>) -> bool {
        let forgotten = self.renewal.as_ref().map(|renewal| &renewal.forgotten);
        forgotten.filter(|forgotten| !forgotten.is_empty()).is_some_and(|forgotten| {
            let mut keys = upkeep::earlier_keys(row.key, row.row).into_iter();
            keys.any(|key| forgotten.contains(&upkeep::forgotten_key(&self.secret, &key)))
        })
    }

    fn insert(&mut self, hash: u64, row: &Enlist<'_>) -> Result<(), LedgerError> {
        let seq = if row.number > self.last { row.number } else { self.last + 1 };
        // In a renewal the numbers of the list say nothing about ours: go on above the highest.
        let seq = if self.renewal.is_some() { self.last + 1 } else { seq };
        if seq > keys::MAX_SEQ {
            return Err(LedgerError::TooMany { what: "rows of an edition", limit: keys::MAX_SEQ });
        }
        let id = schema::delivery(self.edition, seq);
        let number = (row.number != seq).then_some(row.number as i64);
        let (state, reason) = begins(row.state);
        self.insert_row
            .execute(params![id, row.key, row.row, self.layout, number])
            .and_then(|_| {
                self.insert_delivery.execute(params![id, state.letter(), row.domain, reason, row.enclosed])
            })
            .map_err(|error| self.said(error))?;
        self.keys.insert(hash, seq);
        self.last = seq;
        self.result.added += 1;
        Ok(())
    }

    /// A key that came already, in this list or in the one enlisted before.
    fn meet(
        &mut self,
        hash: u64,
        seq: u64,
        equal: Option<bool>,
        row: &Enlist<'_>,
    ) -> Result<(), LedgerError> {
        let Some(renewal) = self.renewal.as_mut().filter(|renewal| seq <= renewal.old_last) else {
            return self.repeat(equal == Some(true), row);
        };
        let row_hash = (hash ^ self.keys.hash(row.row)) as i64;
        if renewal.see(seq) {
            // The second time in this list: compare it with the first, which differed from the frozen
            // row if it is noted.
            let noted = self.noted_difference(seq)?;
            return self.repeat(noted.map_or(equal == Some(true), |noted| noted == row_hash), row);
        }
        self.result.known += 1;
        if equal != Some(true) {
            self.change(
                "INSERT OR REPLACE INTO temp.differs VALUES (?1, ?2)",
                params![seq as i64, row_hash],
            )?;
        }
        self.renew(seq, equal, row)
    }

    /// A delivery that was enlisted before, and is on the list still.
    fn renew(&mut self, seq: u64, equal: Option<bool>, row: &Enlist<'_>) -> Result<(), LedgerError> {
        let id = schema::delivery(self.edition, seq);
        let Frozen { state, unsent, returns, unseen } = self.frozen(id)?;
        if unseen && equal == Some(true) && matches!(row.state, EnlistState::Pending) {
            // Requeued, or the job has other files for it since: now they were looked at.
            let sql = "UPDATE deliveries SET enclosed = ?2 WHERE id = ?1 AND state <> 'a'";
            self.change(sql, params![id, row.enclosed])?;
        }
        if unsent && equal != Some(true) {
            return self.mend(id, seq, row);
        }
        let open = returns || matches!(state, State::Pending | State::Deferred);
        if let (true, EnlistState::Failed(reason), Some(true)) = (open, row.state, equal) {
            // As it is now it cannot be sent, though nothing was wrong with it when it was taken in: a file of
            // its own has been found for another one, or is gone.
            let sql = "UPDATE deliveries SET state = 'f', next_attempt = NULL, reason = ?2 WHERE id = ?1";
            return self.change(sql, params![id, reason]);
        }
        if returns {
            self.change("UPDATE deliveries SET state = 'p', reason = NULL WHERE id = ?1", [id])?;
            self.result.returned += 1;
        }
        self.result.changed += u64::from(equal == Some(false));
        Ok(())
    }

    /// It failed for its row and nothing was sent: the mended row takes the frozen one's place.
    fn mend(&mut self, id: i64, seq: u64, row: &Enlist<'_>) -> Result<(), LedgerError> {
        let (state, reason) = begins(row.state);
        let number = (row.number != seq).then_some(row.number as i64);
        self.change(
            "UPDATE rows SET row = ?2, layout = ?3, number = ?4 WHERE id = ?1",
            params![id, row.row, self.layout, number],
        )?;
        self.change(
            "UPDATE deliveries SET state = ?2, domain = ?3, reason = ?4, enclosed = ?5 WHERE id = ?1",
            params![id, state.letter(), row.domain, reason, row.enclosed],
        )?;
        // That its old addresses failed says nothing of the new ones.
        let (first, last) = schema::items(id, id);
        self.change("DELETE FROM rcpts WHERE id BETWEEN ?1 AND ?2", [first, last])?;
        self.result.mended += 1;
        Ok(())
    }

    /// How a delivery stands that was enlisted before.
    fn frozen(&self, id: i64) -> Result<Frozen, LedgerError> {
        // A letter that was put back has neither attempts nor a date, and some may have got it all the same.
        let (first, last) = schema::items(id, id);
        self.conn
            .prepare_cached(
                "SELECT state, state = 'f' AND attempts = 0 AND date IS NULL AND NOT EXISTS (
                    SELECT 1 FROM rcpts WHERE id BETWEEN ?2 AND ?3 AND outcome IN ('a', 'u')),
                    reason IS ?5 AND (state = 'k' OR EXISTS (
                        SELECT 1 FROM rcpts WHERE id BETWEEN ?2 AND ?3 AND outcome = 'd')),
                    enclosed IS NULL OR enclosed = ?4
                 FROM deliveries WHERE id = ?1",
            )
            .and_then(|mut select| {
                select.query_row(params![id, first, last, UNSEEN, REMOVED], |found| {
                    Ok(Frozen {
                        state: super::state_of(found, 0)?,
                        unsent: found.get(1)?,
                        returns: found.get(2)?,
                        unseen: found.get(3)?,
                    })
                })
            })
            .map_err(|error| self.said(error))
    }

    /// The hash of a row of this list that is not the frozen one.
    fn noted_difference(&self, seq: u64) -> Result<Option<i64>, LedgerError> {
        self.conn
            .prepare_cached("SELECT hash FROM temp.differs WHERE seq = ?1")
            .and_then(|mut select| select.query_row([seq as i64], |found| found.get(0)).optional())
            .map_err(|error| self.said(error))
    }

    fn change(&self, sql: &str, params: impl Params) -> Result<(), LedgerError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut change| change.execute(params))
            .map(drop)
            .map_err(|error| self.said(error))
    }

    /// A row whose key an earlier row of the same list has.
    fn repeat(&mut self, same: bool, row: &Enlist<'_>) -> Result<(), LedgerError> {
        if same {
            self.result.duplicates += 1;
            return Ok(());
        }
        match self.dedupe {
            Dedupe::First => self.note(row.number, Some(row.key), true, "an earlier row has this key"),
            Dedupe::Refuse => {
                self.result.rejected += 1;
                self.note(row.number, Some(row.key), false, "an earlier row with other values has this key")
            }
        }
    }

    fn note(
        &mut self,
        number: u64,
        key: Option<&str>,
        duplicate: bool,
        reason: &str,
    ) -> Result<(), LedgerError> {
        self.insert_reject
            .execute(params![self.edition.0, number as i64, key, duplicate, reason])
            .map(drop)
            .map_err(|error| self.said(error))
    }

    /// Skips what is gone from the list and was still to be sent.
    fn remove_gone(&mut self) -> Result<(), LedgerError> {
        let Some(renewal) = &self.renewal else { return Ok(()) };
        let said = |error| LedgerError::sqlite(self.path, error);
        let (first, _) = schema::bounds(self.edition);
        let last = schema::delivery(self.edition, renewal.old_last);
        let mut select = self
            .conn
            .prepare(
                "SELECT d.id, r.key FROM deliveries d JOIN rows r ON r.id = d.id
                 WHERE d.id BETWEEN ?1 AND ?2 AND d.state IN ('p', 'd')",
            )
            .map_err(said)?;
        let mut update = self
            .conn
            .prepare(
                // What became of those who were written to before is no less true.
                "UPDATE deliveries SET next_attempt = NULL, reason = ?2, state = coalesce((
                    SELECT CASE max(instr('arfu', outcome)) WHEN 1 THEN 'a' WHEN 2 THEN 'r' WHEN 3 THEN 'f' ELSE 'u' END
                    FROM rcpts WHERE id BETWEEN ?3 AND ?4 AND outcome <> 'd' HAVING count(*) > 0), 'k')
                 WHERE id = ?1",
            )
            .map_err(said)?;
        // Slices: a statement that reads a table must not meet the rows it changes.
        let mut from = first;
        loop {
            let gone: Vec<(i64, String)> = select
                .query_map([from, last], |row| Ok((row.get(0)?, row.get(1)?)))
                .and_then(|rows| {
                    rows.filter(|row| row.as_ref().map_or(true, |(id, _)| !renewal.saw(schema::seq(*id))))
                        .take(Enlisting::NAMED)
                        .collect()
                })
                .map_err(said)?;
            let Some((id, _)) = gone.last() else { return Ok(()) };
            from = id + 1;
            for (id, key) in gone {
                let (from, to) = schema::items(id, id);
                update.execute(params![id, REMOVED, from, to]).map_err(said)?;
                self.result.removed += 1;
                if self.result.removed_keys.len() < Enlisting::NAMED {
                    self.result.removed_keys.push(key);
                }
            }
        }
    }
}

impl Enlister for SqliteEnlister<'_> {
    fn add(&mut self, rows: &[Enlist<'_>]) -> Result<(), LedgerError> {
        for row in rows {
            self.turn()?;
            let hash = self.keys.hash(row.key);
            match self.find(hash, row)? {
                None if self.is_forgotten(row) => self.result.known += 1,
                None => self.insert(hash, row)?,
                Some((seq, equal)) => self.meet(hash, seq, equal, row)?,
            }
        }
        Ok(())
    }

    fn reject(&mut self, number: u64, key: Option<&str>, reason: &str) -> Result<(), LedgerError> {
        self.turn()?;
        self.result.rejected += 1;
        self.note(number, key, false, reason)
    }

    fn rest(&mut self) -> Result<(), LedgerError> {
        self.commit()
    }

    fn rejected(&self) -> u64 {
        self.result.rejected
    }

    fn finish(mut self: Box<Self>, source: SourceRecord, now: i64) -> Result<Enlisting, LedgerError> {
        self.commit()?;
        failpoint::reach("ledger.enlisted.before");
        self.conn.execute_batch("PRAGMA synchronous = FULL").map_err(|error| self.said(error))?;
        self.turn()?;
        self.remove_gone()?;
        self.conn
            .execute(
                "UPDATE editions SET enlisted_at = ?2, source_hash = ?3, source_rows = ?4, filtered = ?5,
                        duplicates = ?6
                 WHERE id = ?1",
                params![
                    self.edition.0,
                    now,
                    source.hash.as_ref().map(|hash| &hash[..]),
                    source.rows as i64,
                    source.filtered as i64,
                    self.result.duplicates as i64
                ],
            )
            .map_err(|error| self.said(error))?;
        self.commit()?;
        failpoint::reach("ledger.enlisted.after");
        Ok(std::mem::take(&mut self.result))
    }
}

impl Drop for SqliteEnlister<'_> {
    fn drop(&mut self) {
        // An error of these leaves the connection in its transaction, and the next BEGIN says so.
        if self.in_transaction {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        let _ = self.conn.execute_batch("PRAGMA synchronous = FULL");
    }
}

/// State and reason a row begins with.
fn begins(state: EnlistState<'_>) -> (State, Option<&str>) {
    match state {
        EnlistState::Pending => (State::Pending, None),
        EnlistState::Skipped(reason) => (State::Skipped, Some(reason)),
        EnlistState::Failed(reason) => (State::Failed, Some(reason)),
    }
}

/// Removes the rows of an edition whose enlisting did not end. None of them can have been sent; should
/// the ledger say otherwise, it is damaged, and nothing is removed.
fn drop_partial(conn: &Connection, path: &Path, edition: EditionId) -> Result<(), LedgerError> {
    let said = |error| LedgerError::sqlite(path, error);
    let (first, last) = schema::bounds(edition);
    let tried: bool = conn
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM deliveries WHERE id BETWEEN ?1 AND ?2 AND attempts > 0)",
            [first, last],
            |row| row.get(0),
        )
        .map_err(said)?;
    if tried {
        let reason = "letters were sent from a list that was not whole".to_owned();
        return Err(LedgerError::Corrupt { path: path.to_owned(), reason });
    }
    for table in ["rows", "deliveries"] {
        conn.execute(&format!("DELETE FROM {table} WHERE id BETWEEN ?1 AND ?2"), [first, last])
            .map_err(said)?;
    }
    conn.execute("DELETE FROM layouts WHERE edition = ?1", [edition.0]).map_err(said)?;
    Ok(())
}

/// The number of a column layout; a new one where the edition does not have it yet.
fn layout(conn: &Connection, edition: EditionId, columns: Option<&str>) -> rusqlite::Result<i64> {
    let known: Option<i64> = conn
        .query_row(
            "SELECT n FROM layouts WHERE edition = ?1 AND columns IS ?2",
            params![edition.0, columns],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let next: i64 = conn.query_row(
        "SELECT coalesce(max(n) + 1, 0) FROM layouts WHERE edition = ?1",
        [edition.0],
        |row| row.get(0),
    )?;
    conn.execute("INSERT INTO layouts VALUES (?1, ?2, ?3)", params![edition.0, next, columns])?;
    Ok(next)
}

/// Reads the keys an edition has into the table; gives its highest number and its forgotten keys.
fn read_keys(
    conn: &Connection,
    edition: EditionId,
    keys: &mut Keys,
) -> rusqlite::Result<(u64, HashSet<String>)> {
    let (first, last) = schema::bounds(edition);
    let mut select = conn.prepare("SELECT id, key FROM rows WHERE id BETWEEN ?1 AND ?2")?;
    let mut rows = select.query([first, last])?;
    let (mut highest, mut forgotten) = (0, HashSet::new());
    while let Some(row) = rows.next()? {
        highest = schema::seq(row.get(0)?);
        let key = row.get_ref(1)?.as_str()?;
        // One that was enlisted by an older program may lie there in another spelling.
        let hash = keys.hash(&RecipientKey::spelling(key));
        keys.insert(hash, highest);
        if key.starts_with(upkeep::FORGOTTEN) {
            forgotten.insert(key.to_owned());
        }
    }
    Ok((highest, forgotten))
}
