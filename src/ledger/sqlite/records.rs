//! What reports read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::{Connection, Row, params};

use crate::ledger::{
    Claimed, Counts, EditionId, LedgerError, LetterRecord, RcptRecord, Record, RequeueRecord, Standing, State,
};
use crate::letter::{Answer, Enhanced, FileRecord, Outcome, RcptOutcome, RecipientKey};

use super::read::SqliteReader;
use super::{schema, state_of};

const RECORD: &str = "SELECT d.id, r.number, r.key, d.state, d.domain, d.attempts, d.generation, d.date,
        d.message_id, d.next_attempt, d.reason FROM deliveries d CROSS JOIN rows r ON r.id = d.id ";

const RCPT: &str =
    "SELECT id, address, outcome, code, enhanced, text, at FROM rcpts WHERE id BETWEEN ?1 AND ?2";

pub(super) fn standing(reader: &SqliteReader, edition: EditionId) -> Result<Standing, LedgerError> {
    let (first, last) = schema::bounds(edition);
    let mut standing = Standing::default();
    let mut skipped: HashMap<String, u64> = HashMap::new();
    let mut domains: HashMap<String, Counts> = HashMap::new();
    reader.scan(
        "SELECT state, domain, reason, next_attempt FROM deliveries WHERE id BETWEEN ?1 AND ?2",
        [first, last],
        |row| {
            let state = state_of(row, 0)?;
            standing.counts.add(state, 1);
            let domain = row.get_ref(1)?.as_str()?;
            if let Some(counts) = domains.get_mut(domain) {
                counts.add(state, 1);
            } else if domains.len() < Standing::DOMAINS {
                domains.entry(domain.to_owned()).or_default().add(state, 1);
            } else {
                standing.elsewhere.add(state, 1);
            }
            if state == State::Skipped {
                let reason = row.get_ref(2)?.as_str_or_null()?.unwrap_or_default();
                match skipped.get_mut(reason) {
                    Some(number) => *number += 1,
                    None => drop(skipped.insert(reason.to_owned(), 1)),
                }
            } else if state == State::Deferred {
                let due: Option<i64> = row.get(3)?;
                standing.next_due = standing.next_due.into_iter().chain(due).min();
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    standing.skipped = skipped.into_iter().collect();
    standing.skipped.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    standing.domains = domains.into_iter().collect();
    standing.domains.sort_by(|a, b| b.1.total().cmp(&a.1.total()).then_with(|| a.0.cmp(&b.0)));
    let rejects = reader.one(
        "SELECT count(*), coalesce(sum(duplicate), 0) FROM rejects WHERE edition = ?1",
        [edition.0],
        |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)),
    )?;
    let (all, repeated) = rejects.unwrap_or_default();
    (standing.rejected, standing.repeated) = (all - repeated, repeated);
    Ok(standing)
}

pub(super) fn each(
    reader: &SqliteReader,
    edition: EditionId,
    states: &[State],
    visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> Result<(), LedgerError> {
    let (first, last) = schema::bounds(edition);
    let (from, to) = schema::items(first, last);
    reader.with(|conn| {
        let mut select = conn.prepare_cached(&format!(
            "{RECORD} WHERE d.id BETWEEN ?1 AND ?2 AND instr(?3, d.state) ORDER BY d.id"
        ))?;
        let mut rows = select.query(params![first, last, letters(states)])?;
        // Where the answers of nearly everyone are wanted, both tables are walked side by side; for a
        // few, each one's are looked up.
        let side_by_side = states.contains(&State::Accepted);
        let mut select_answers = conn.prepare_cached(RCPT)?;
        let mut answers = if side_by_side { Some(select_answers.query([from, to])?) } else { None };
        let mut ahead = None;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let mut record = record(row)?;
            match &mut answers {
                Some(answers) => loop {
                    if ahead.is_none() {
                        ahead = answers.next()?.map(rcpt).transpose()?;
                    }
                    match ahead.take() {
                        Some((item, answer)) if schema::delivery_of_item(item) == id => {
                            record.rcpts.push(answer)
                        }
                        Some((item, _)) if schema::delivery_of_item(item) < id => {}
                        later => {
                            ahead = later;
                            break;
                        }
                    }
                },
                None => record.rcpts = rcpts(conn, id)?,
            }
            if visit(record).is_break() {
                break;
            }
        }
        Ok(())
    })
}

pub(super) fn letter(
    reader: &SqliteReader,
    edition: EditionId,
    seq: u64,
) -> Result<Option<LetterRecord>, LedgerError> {
    let id = schema::delivery(edition, seq);
    let Some(mut record) = reader.one(&format!("{RECORD} WHERE d.id = ?1"), [id], record)? else {
        return Ok(None);
    };
    record.rcpts = reader.with(|conn| rcpts(conn, id))?;
    let frozen = reader.one(
        "SELECT r.row, r.layout, d.digest FROM rows r JOIN deliveries d ON d.id = r.id WHERE r.id = ?1",
        [id],
        |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize, row.get(2)?)),
    )?;
    let Some((row, layout, digest)) = frozen else { return Ok(None) };
    let (first, last) = schema::items(id, id);
    let files = reader.all(
        "SELECT name, size, sha256 FROM files WHERE id BETWEEN ?1 AND ?2",
        [first, last],
        |row| Ok(FileRecord { name: row.get(0)?, size: row.get::<_, i64>(1)? as u64, sha256: row.get(2)? }),
    )?;
    let requeued = reader.all(
        "SELECT at, state, generation, message_id FROM requeued WHERE delivery = ?1 ORDER BY id",
        [id],
        |row| {
            Ok(RequeueRecord {
                at: row.get(0)?,
                state: state_of(row, 1)?,
                generation: row.get(2)?,
                message_id: row.get(3)?,
            })
        },
    )?;
    Ok(Some(LetterRecord { record, row, layout, files, digest, requeued }))
}

pub(super) fn find_keys(
    reader: &SqliteReader,
    edition: EditionId,
    keys: &[String],
) -> Result<Vec<Option<u64>>, LedgerError> {
    let mut wanted: HashMap<Cow<'_, str>, Vec<usize>> = HashMap::new();
    for (at, key) in keys.iter().enumerate() {
        wanted.entry(RecipientKey::spelling(key.trim())).or_default().push(at);
    }
    let mut found = vec![None; keys.len()];
    let (first, last) = schema::bounds(edition);
    reader.scan("SELECT id, key FROM rows WHERE id BETWEEN ?1 AND ?2", [first, last], |row| {
        let known = row.get_ref(1)?.as_str()?;
        // One that was enlisted by an older program may lie there in another spelling, and beside its like.
        for &at in wanted.get(&RecipientKey::spelling(known)).into_iter().flatten() {
            if found[at].is_none() || known == keys[at] {
                found[at] = Some(schema::seq(row.get(0)?));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(super) fn rows_in(
    reader: &SqliteReader,
    edition: EditionId,
    states: &[State],
    after_seq: u64,
    limit: usize,
) -> Result<Vec<Claimed>, LedgerError> {
    let (_, last) = schema::bounds(edition);
    reader.claimed(
        "WHERE d.id > ?1 AND d.id <= ?2 AND instr(?3, d.state)
            AND substr(r.key, 1, 10) <> 'forgotten:' ORDER BY d.id LIMIT ?4",
        params![schema::delivery(edition, after_seq), last, letters(states), limit as i64],
    )
}

/// The letters of states, in one text.
pub(super) fn letters(states: &[State]) -> String {
    states.iter().map(|state| state.letter()).collect()
}

fn rcpts(conn: &Connection, delivery: i64) -> rusqlite::Result<Vec<RcptRecord>> {
    let (first, last) = schema::items(delivery, delivery);
    let mut select = conn.prepare_cached(RCPT)?;
    select.query_map([first, last], |row| Ok(rcpt(row)?.1))?.collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let seq = schema::seq(row.get(0)?);
    Ok(Record {
        seq,
        number: row.get::<_, Option<i64>>(1)?.map_or(seq, |number| number as u64),
        key: row.get(2)?,
        state: state_of(row, 3)?,
        domain: row.get(4)?,
        attempts: row.get(5)?,
        generation: row.get(6)?,
        date: row.get(7)?,
        message_id: row.get(8)?,
        next_attempt: row.get(9)?,
        reason: row.get(10)?,
        rcpts: Vec::new(),
    })
}

/// The outcome of an address, from the letter that stands for it.
pub(super) fn outcome_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Outcome> {
    Ok(match row.get_ref(column)?.as_str()? {
        "a" => Outcome::Accepted,
        "d" => Outcome::Deferred,
        "r" => Outcome::Refused,
        "f" => Outcome::Failed,
        _ => Outcome::Unsure,
    })
}

fn rcpt(row: &Row<'_>) -> rusqlite::Result<(i64, RcptRecord)> {
    let outcome = outcome_of(row, 2)?;
    let enhanced = row.get::<_, Option<u32>>(4)?.map(|number| Enhanced {
        class: (number / 1_000_000) as u8,
        subject: (number / 1000 % 1000) as u16,
        detail: (number % 1000) as u16,
    });
    let answer = Answer { code: row.get(3)?, enhanced, text: row.get(5)? };
    let rcpt = RcptOutcome { address: row.get(1)?, outcome, answer };
    Ok((row.get(0)?, RcptRecord { rcpt, at: row.get(6)? }))
}
