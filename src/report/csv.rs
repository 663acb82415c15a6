//! The report as a table for other programs: a line for each address of each delivery.

use std::io::Write;
use std::ops::ControlFlow;

use crate::ledger::{Edition, Reader, Record, State};

use super::ReportError;
use super::text::{Clock, zone};

/// The names of the columns.
const HEADER: [&str; 11] = [
    "row",
    "key",
    "outcome",
    "attempts",
    "reason",
    "message_id",
    "address",
    "address_outcome",
    "code",
    "text",
    "at",
];

/// Writes the deliveries of an edition with the outcomes `states`, one line for each address; a
/// delivery that has no answer yet has one line with the last columns empty.
pub fn csv(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    states: &[State],
) -> Result<(), ReportError> {
    let mut clock = Clock::new(zone(&edition.timezone));
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(HEADER)?;
    let mut failed = None;
    reader.each(edition.id, states, &mut |record| match lines(&mut writer, &record, &mut clock) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    writer.flush()?;
    Ok(())
}

fn lines<W: Write>(
    writer: &mut csv::Writer<W>,
    record: &Record,
    clock: &mut Clock,
) -> Result<(), csv::Error> {
    let (number, attempts) = (record.number.to_string(), record.attempts.to_string());
    let front = [
        number.as_str(),
        &record.key,
        record.state.word(),
        &attempts,
        record.reason.as_deref().unwrap_or_default(),
        record.message_id.as_deref().unwrap_or_default(),
    ];
    if record.rcpts.is_empty() {
        return writer.write_record(front.into_iter().chain([""; 5]));
    }
    for rcpt in &record.rcpts {
        let (answer, at) = (&rcpt.rcpt.answer, clock.rfc3339(rcpt.at));
        // No server spoke: no code.
        let code = if answer.code == 0 { String::new() } else { answer.code.to_string() };
        let text = match answer.enhanced {
            Some(enhanced) => format!("{enhanced} {}", answer.text),
            None => answer.text.clone(),
        };
        let back = [rcpt.rcpt.address.as_str(), record.standing(rcpt.rcpt.outcome).word(), &code, &text, at];
        writer.write_record(front.into_iter().chain(back))?;
    }
    Ok(())
}
