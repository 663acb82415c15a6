//! The report for programs, one document, written as it is read.

use std::io::Write;
use std::ops::ControlFlow;

use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use crate::ledger::{Counts, Edition, Reader, Record, State};

use super::ReportError;
use super::text::{rfc3339, zone};

/// Writes an edition as one JSON object: what it is, `counts`, `domains`, `rejects`, and `recipients`
/// with the outcomes `states`.
pub fn json(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    states: &[State],
) -> Result<(), ReportError> {
    let standing = reader.standing(edition.id)?;
    let zone = zone(&edition.timezone);
    let time = |at: Option<i64>| at.map(|at| rfc3339(at, &zone));
    let source = edition.source.unwrap_or_default();
    let head = json!({
        "job": edition.job,
        "edition": edition.name,
        "purpose": edition.purpose.word(),
        "timezone": edition.timezone,
        "begun": time(Some(edition.begun)),
        "enlisted_at": time(edition.enlisted_at),
        "finished_at": time(edition.finished_at),
        "left_at": time(edition.left_at),
        "pruned_at": time(edition.pruned_at),
        "next_attempt": time(standing.next_due),
        "counts": counts(&standing.counts),
        "skipped": standing.skipped.iter().map(|(reason, n)| (reason.clone(), (*n).into())).collect::<Map<_, _>>(),
        "rows": {
            "read": source.rows,
            "rejected": standing.rejected,
            "filtered": source.filtered,
            "equal": source.duplicates,
            "repeated": standing.repeated,
        },
    });
    // The head is written without its closing brace; the lists follow.
    let head = head.to_string();
    out.write_all(&head.as_bytes()[..head.len() - 1])?;

    out.write_all(b",\n\"domains\":[")?;
    let mut between = "";
    for (domain, of) in &standing.domains {
        let mut of = counts(of);
        of.insert("domain".to_owned(), domain.as_str().into());
        write!(out, "{between}\n{}", Json::Object(of))?;
        between = ",";
    }
    out.write_all(b"],\n\"rejects\":[")?;
    between = "";
    for reject in reader.rejects(edition.id, usize::MAX >> 1)? {
        let line = json!({
            "row": reject.number, "key": reject.key, "duplicate": reject.duplicate, "reason": reject.reason,
        });
        write!(out, "{between}\n{line}")?;
        between = ",";
    }
    out.write_all(b"],\n\"recipients\":[")?;
    between = "";
    let mut failed = None;
    reader.each(edition.id, states, &mut |record| match write!(
        out,
        "{between}\n{}",
        recipient(&record, &zone)
    ) {
        Ok(()) => {
            between = ",";
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    out.write_all(b"]}\n")?;
    Ok(())
}

/// A number for each outcome there is.
fn counts(counts: &Counts) -> Map<String, Json> {
    let mut all: Map<String, Json> = State::ALL
        .into_iter()
        .filter(|state| counts.of(*state) > 0)
        .map(|state| (state.word().to_owned(), counts.of(state).into()))
        .collect();
    all.insert("total".to_owned(), counts.total().into());
    all
}

/// One delivery with the answers of its addresses.
pub(super) fn recipient(record: &Record, zone: &TimeZone) -> Json {
    let rcpts: Vec<Json> = record
        .rcpts
        .iter()
        .map(|rcpt| {
            json!({
                "address": rcpt.rcpt.address,
                "outcome": rcpt.rcpt.outcome.word(),
                "code": rcpt.rcpt.answer.code,
                "enhanced": rcpt.rcpt.answer.enhanced.map(|enhanced| enhanced.to_string()),
                "text": rcpt.rcpt.answer.text,
                "at": rfc3339(rcpt.at, zone),
            })
        })
        .collect();
    json!({
        "row": record.number,
        "key": record.key,
        "outcome": record.state.word(),
        "reason": record.reason,
        "attempts": record.attempts,
        "next_attempt": record.next_attempt.map(|due| rfc3339(due, zone)),
        "message_id": record.message_id,
        "addresses": rcpts,
    })
}
