//! The report for programs, one document, written as it is read.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::ledger::{Counts, Edition, LetterRecord, RcptRecord, Reader, Record, Standing, State};

use super::ReportError;
use super::text::{Clock, rfc3339, zone};

/// Rejected rows that are held at once: a list of a million may be bad from end to end.
const PAGE: usize = 1000;

/// Writes an edition as one JSON object: what it is, `counts`, `domains`, `rejects`, and `recipients`
/// with the outcomes `states`.
pub fn json(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    states: &[State],
) -> Result<(), ReportError> {
    let standing = reader.standing(edition.id)?;
    // The head is written without its closing brace; the lists follow.
    let head = summary(edition, &standing).to_string();
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
    let mut rejects = reader.rejects(edition.id, 0, PAGE)?;
    while let Some(last) = rejects.last().map(|reject| reject.number) {
        for reject in rejects {
            let line = json!({
                "row": reject.number, "key": reject.key, "duplicate": reject.duplicate, "reason": reject.reason,
            });
            write!(out, "{between}\n{line}")?;
            between = ",";
        }
        rejects = reader.rejects(edition.id, last, PAGE)?;
    }
    out.write_all(b"],\n\"recipients\":[")?;
    between = "";
    let (mut failed, mut line, mut clock) = (None, Vec::new(), Clock::new(zone(&edition.timezone)));
    reader.each(edition.id, states, &mut |record| {
        line.clear();
        let written = serde_json::to_writer(&mut line, &Recipient::of(&record, &mut clock))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out, "{between}"))
            .and_then(|()| out.write_all(&line));
        match written {
            Ok(()) => {
                between = ",";
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    out.write_all(b"]}\n")?;
    Ok(())
}

/// An edition without its lists: what it is, when it was what, and how many stand where.
pub fn summary(edition: &Edition, standing: &Standing) -> Json {
    let zone = zone(&edition.timezone);
    let time = |at: Option<i64>| at.map(|at| rfc3339(at, &zone));
    let source = edition.source;
    json!({
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
    })
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
#[derive(Serialize)]
struct Recipient<'a> {
    row: u64,
    key: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<String>,
    message_id: Option<&'a str>,
    addresses: Vec<Address<'a>>,
}

#[derive(Serialize)]
struct Address<'a> {
    address: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enhanced: Option<String>,
    text: &'a str,
    at: String,
}

impl<'a> Recipient<'a> {
    fn of(record: &'a Record, clock: &mut Clock) -> Recipient<'a> {
        let mut address = |rcpt: &'a RcptRecord| Address {
            address: &rcpt.rcpt.address,
            outcome: record.standing(rcpt.rcpt.outcome).word(),
            // No server spoke: no code.
            code: Some(rcpt.rcpt.answer.code).filter(|code| *code != 0),
            enhanced: rcpt.rcpt.answer.enhanced.map(|enhanced| enhanced.to_string()),
            text: &rcpt.rcpt.answer.text,
            at: clock.rfc3339(rcpt.at).to_owned(),
        };
        Recipient {
            row: record.number,
            key: &record.key,
            outcome: record.state.word(),
            reason: record.reason.as_deref(),
            attempts: record.attempts,
            addresses: record.rcpts.iter().map(&mut address).collect(),
            next_attempt: record.next_attempt.map(|due| clock.rfc3339(due).to_owned()),
            message_id: record.message_id.as_deref(),
        }
    }
}

/// Writes all the ledger knows about one letter as a JSON object. `kept` is the file that has its bytes.
pub fn letter_json(
    out: &mut dyn Write,
    edition: &Edition,
    letter: &LetterRecord,
    kept: Option<&Path>,
) -> Result<(), ReportError> {
    let mut clock = Clock::new(zone(&edition.timezone));
    let mut document = serde_json::to_value(Recipient::of(&letter.record, &mut clock))?;
    let hex = |bytes: &[u8; 32]| blake3::Hash::from_bytes(*bytes).to_hex().to_string();
    let files = letter
        .files
        .iter()
        .map(|file| json!({"name": file.name, "size": file.size, "sha256": hex(&file.sha256)}));
    let requeued = letter.requeued.iter().map(|before| {
        json!({
            "at": clock.rfc3339(before.at),
            "outcome": before.state.word(),
            "generation": before.generation,
            "message_id": before.message_id,
        })
    });
    document["requeued"] = requeued.collect();
    document["job"] = edition.job.as_str().into();
    document["edition"] = edition.name.as_str().into();
    document["generation"] = letter.record.generation.into();
    document["date"] = letter.record.date.map(|at| clock.rfc3339(at).to_owned()).into();
    document["digest"] = letter.digest.as_ref().map(hex).into();
    document["kept"] = kept.map(|file| file.display().to_string()).into();
    document["files"] = files.collect();
    document["columns"] = json!(edition.layouts.get(letter.layout).cloned().flatten());
    document["values"] = serde_json::from_str(&letter.row).unwrap_or_else(|_| letter.row.as_str().into());
    writeln!(out, "{document:#}")?;
    Ok(())
}
