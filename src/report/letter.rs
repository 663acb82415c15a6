//! Everything about one delivery: what exactly did this person get?

use std::io::Write;
use std::path::Path;

use serde_json::Value as Json;

use crate::ledger::{Edition, LetterRecord, State};
use crate::mail::date;
use crate::measure::{ByteSize, grouped};

use super::ReportError;
use super::text::{clock, left, plain, width, zone};

/// Writes all the ledger knows about a letter, for people. `kept` is the file that has its bytes.
pub fn letter(
    out: &mut dyn Write,
    edition: &Edition,
    letter: &LetterRecord,
    kept: Option<&Path>,
) -> Result<(), ReportError> {
    let record = &letter.record;
    let zone = zone(&edition.timezone);
    writeln!(out, "{} · {} · edition {}", plain(&record.key), plain(&edition.job), plain(&edition.name))?;
    let mut line = |name: &str, value: &str| writeln!(out, "  {}{value}", left(name, 12));
    line("outcome", record.state.word())?;
    if let Some(reason) = &record.reason {
        line("because", &plain(reason))?;
    }
    line("row", &grouped(record.number))?;
    line("attempts", &record.attempts.to_string())?;
    if let (State::Deferred, Some(due)) = (record.state, record.next_attempt) {
        line("next", &clock(due, &zone))?;
    }
    if let Some(at) = record.date {
        line("Date", &date::rfc5322(at, &zone))?;
    }
    if let Some(message_id) = &record.message_id {
        line("Message-ID", &plain(message_id))?;
    }
    if let Some(digest) = letter.digest {
        line("BLAKE3", &hex(&digest))?;
    }
    if let Some(kept) = kept {
        line("kept", &plain(&kept.display().to_string()))?;
    }
    if !record.rcpts.is_empty() {
        writeln!(out, "\naddresses")?;
        for rcpt in &record.rcpts {
            let outcome = left(record.standing(rcpt.rcpt.outcome).word(), 9);
            let (address, answer) = (plain(&rcpt.rcpt.address), plain(&rcpt.rcpt.answer.to_string()));
            writeln!(out, "  {outcome} {address}  {}  {answer}", clock(rcpt.at, &zone))?;
        }
    }
    if !letter.files.is_empty() {
        writeln!(out, "\nfiles")?;
        for file in &letter.files {
            let size = ByteSize(file.size).to_string();
            writeln!(out, "  {}  {size}  sha256 {}", plain(&file.name), hex(&file.sha256))?;
        }
    }
    writeln!(out, "\nthe row as it was taken in")?;
    let cells = cells(edition, letter);
    let names = cells.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    for (name, value) in &cells {
        writeln!(out, "  {}  {}", left(name, names), plain(value))?;
    }
    if !letter.requeued.is_empty() {
        writeln!(out, "\nput back")?;
        for before in &letter.requeued {
            let (at, was) = (clock(before.at, &zone), before.state.word());
            let message_id = before.message_id.as_deref().map(plain).unwrap_or_default();
            writeln!(out, "  {at}  was {was}, generation {}  {message_id}", before.generation)?;
        }
    }
    Ok(())
}

/// Column names and values of the frozen row, as text.
fn cells(edition: &Edition, letter: &LetterRecord) -> Vec<(String, String)> {
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    match serde_json::from_str(&letter.row) {
        Ok(Json::Object(fields)) => fields.iter().map(|(name, value)| (plain(name), text(value))).collect(),
        Ok(Json::Array(values)) => {
            let names = edition.layouts.get(letter.layout).cloned().flatten().unwrap_or_default();
            let name = |n: usize| names.get(n).map_or_else(|| (n + 1).to_string(), |name| plain(name));
            values.iter().enumerate().map(|(n, value)| (name(n), text(value))).collect()
        }
        _ => vec![("row".to_owned(), letter.row.clone())],
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}
