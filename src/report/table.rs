//! The report for people: how many stand where, by domain, and everyone there was trouble with.

use std::io::{self, Write};
use std::ops::ControlFlow;

use jiff::tz::TimeZone;

use crate::ledger::{Counts, Edition, Enlisting, Reader, Record, Standing, State};
use crate::letter::Outcome;
use crate::measure::grouped;

use super::ReportError;
use super::text::{clock, cut, domain, left, plain, right, width, zone};

/// What a table shows.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Only these outcomes, all of them named; else those there was trouble with, the first of each.
    pub only: Option<&'a [State]>,
    /// Domains shown, and people of each outcome, where not all are.
    pub some: usize,
    /// Whether domains are shown.
    pub domains: bool,
    /// What enlisting made of the list, at the end of a run.
    pub enlisting: Option<&'a Enlisting>,
    /// The command that shows more: `postroom report jobs/x.yaml`.
    pub command: &'a str,
}

/// The outcomes a person should look at.
pub(super) const TROUBLE: [State; 4] = [State::Unsure, State::Refused, State::Failed, State::Deferred];

/// Columns a key may take before it is cut; the words behind it are then never cut.
const KEY: usize = 44;

/// Writes what became of an edition that stands like this.
pub fn table(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    standing: &Standing,
    view: &View<'_>,
) -> Result<(), ReportError> {
    let zone = zone(&edition.timezone);
    heading(out, edition, &zone)?;
    counts(out, edition, standing, &zone)?;
    if view.domains && view.only.is_none() {
        domains(out, standing, view.some)?;
    }
    people(out, reader, edition, standing, view, &zone)?;
    if view.only.is_none() {
        removed(out, view)?;
        rejects(out, reader, edition, standing, view)?;
    }
    Ok(())
}

/// `accepted 4,990 · refused 5 · pending 12`: for a line that is written again and again.
pub fn counts_line(counts: &Counts) -> String {
    let parts: Vec<String> = ORDER
        .into_iter()
        .filter(|state| counts.of(*state) > 0)
        .map(|state| format!("{} {}", state.word(), grouped(counts.of(state))))
        .collect();
    if parts.is_empty() { "nobody yet".to_owned() } else { parts.join(" · ") }
}

/// The order in which outcomes are told: what is done, what was trouble, what is left.
pub(super) const ORDER: [State; 9] = [
    State::Accepted,
    State::Refused,
    State::Failed,
    State::Unsure,
    State::Deferred,
    State::Sending,
    State::Claimed,
    State::Pending,
    State::Skipped,
];

fn heading(out: &mut dyn Write, edition: &Edition, zone: &TimeZone) -> Result<(), ReportError> {
    writeln!(out, "{} · edition {} · {}", plain(&edition.job), plain(&edition.name), age(edition, zone))?;
    Ok(())
}

/// How far an edition has come: `finished 2026-11-23 12:30`.
pub(super) fn age(edition: &Edition, zone: &TimeZone) -> String {
    match (edition.enlisted_at, edition.finished_at, edition.left_at, edition.pruned_at) {
        (_, _, _, Some(at)) => format!("pruned {}", clock(at, zone)),
        (_, Some(at), _, _) => format!("finished {}", clock(at, zone)),
        (_, _, Some(at), _) => format!("left unfinished {}", clock(at, zone)),
        (None, ..) => format!("begun {}, its list not taken in whole", clock(edition.begun, zone)),
        _ => format!("begun {}, not finished", clock(edition.begun, zone)),
    }
}

fn counts(
    out: &mut dyn Write,
    edition: &Edition,
    standing: &Standing,
    zone: &TimeZone,
) -> Result<(), ReportError> {
    let total = grouped(standing.counts.total());
    let numbers = width(&total).max(7);
    writeln!(out)?;
    for state in ORDER {
        let count = standing.counts.of(state);
        if count == 0 && state != State::Accepted {
            continue;
        }
        let note = note(state, standing, zone);
        let line = format!("  {}{}   {note}", left(state.word(), 10), right(&grouped(count), numbers));
        writeln!(out, "{}", line.trim_end())?;
    }
    let beside = beside(edition, standing);
    let beside = if beside.is_empty() { beside } else { format!("   {beside}") };
    writeln!(out, "  {}{}{beside}", left("total", 10), right(&total, numbers))?;
    Ok(())
}

/// What is told beside the number of an outcome.
pub(super) fn note(state: State, standing: &Standing, zone: &TimeZone) -> String {
    match state {
        State::Skipped => {
            let reasons = standing.skipped.iter();
            let reasons = reasons.map(|(reason, number)| format!("{} {}", plain(reason), grouped(*number)));
            reasons.collect::<Vec<_>>().join(", ")
        }
        State::Deferred => {
            standing.next_due.map(|due| format!("next {}", clock(due, zone))).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// The rows of the list that are no delivery: `further rows: 2 filtered`, or nothing.
pub(super) fn beside(edition: &Edition, standing: &Standing) -> String {
    let source = edition.source;
    let rows = [
        (standing.rejected, "rejected"),
        (source.filtered, "filtered"),
        (source.duplicates, "equal to an earlier row"),
        (standing.repeated, "passed over for an earlier row with their key"),
    ];
    let told = rows.iter().filter(|(number, _)| *number > 0);
    let told: Vec<String> = told.map(|(number, what)| format!("{} {what}", grouped(*number))).collect();
    if told.is_empty() { String::new() } else { format!("further rows: {}", told.join(", ")) }
}

fn domains(out: &mut dyn Write, standing: &Standing, some: usize) -> Result<(), ReportError> {
    if standing.domains.len() < 2 {
        return Ok(());
    }
    let shown = &standing.domains[..standing.domains.len().min(some)];
    let columns: Vec<State> = ORDER.into_iter().filter(|state| standing.counts.of(*state) > 0).collect();
    // Long names are cut where the numbers would not stand in eighty columns beside them.
    let room = 78_usize.saturating_sub(11 * (columns.len() + 1)).clamp(24, KEY);
    let said = |name: &str| cut(&domain_name(name), room);
    let name = shown.iter().map(|(domain, _)| width(&said(domain))).max().unwrap_or(0).clamp(12, room);
    write!(out, "\n{}{}", left("by domain", name + 2), right("total", 11))?;
    for state in &columns {
        write!(out, "{}", right(state.word(), 11))?;
    }
    writeln!(out)?;
    for (domain, counts) in shown {
        write!(out, "  {}{}", left(&said(domain), name), right(&grouped(counts.total()), 11))?;
        for state in &columns {
            let count = counts.of(*state);
            write!(out, "{}", right(&if count == 0 { "·".to_owned() } else { grouped(count) }, 11))?;
        }
        writeln!(out)?;
    }
    if standing.domains.len() > shown.len() {
        let rest = &standing.domains[shown.len()..];
        let letters: u64 = rest.iter().map(|(_, counts)| counts.total()).sum();
        let (letters, more) = (letters + standing.elsewhere.total(), grouped(rest.len() as u64));
        let or_more = if standing.elsewhere.total() > 0 { " or more" } else { "" };
        writeln!(out, "  … and {more}{or_more} other domains with {} letters", grouped(letters))?;
    }
    Ok(())
}

/// A domain as it is shown; letters without an address have none.
pub fn domain_name(name: &str) -> String {
    if name.is_empty() { "(none)".to_owned() } else { plain(&domain(name)) }
}

/// Names those who were asked for, or the first of each outcome there was trouble with.
fn people(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    standing: &Standing,
    view: &View<'_>,
    zone: &TimeZone,
) -> Result<(), ReportError> {
    let states = view.only.unwrap_or(&TROUBLE);
    let most = if view.only.is_some() { u64::MAX } else { view.some as u64 };
    let wanted: u64 = states.iter().map(|state| standing.counts.of(*state).min(most)).sum();
    if wanted == 0 {
        return Ok(());
    }
    writeln!(out, "\n{}", if view.only.is_some() { "those asked for" } else { "to look at" })?;
    if view.only.is_some() {
        // All of them: told as they come.
        first_of_each(reader, edition, standing, states, most, &mut |record| {
            out.write_all(line(&record, zone).as_bytes())
        })?;
        return Ok(());
    }
    // Outcome by outcome, the few that are shown.
    let mut lines: Vec<(State, String)> = Vec::new();
    let shown = first_of_each(reader, edition, standing, states, most, &mut |record| {
        lines.push((record.state, line(&record, zone)));
        Ok(())
    })?;
    for state in TROUBLE {
        for (_, line) in lines.iter().filter(|(of, _)| *of == state) {
            out.write_all(line.as_bytes())?;
        }
        let more = standing.counts.of(state).saturating_sub(shown.of(state));
        if more > 0 {
            let word = state.word();
            writeln!(out, "  … and {} more: {} --outcome {word}", grouped(more), view.command)?;
        }
    }
    Ok(())
}

/// Tells the first `most` records of each of these outcomes, in the order of the list, and how many that were.
pub(super) fn first_of_each(
    reader: &dyn Reader,
    edition: &Edition,
    standing: &Standing,
    states: &[State],
    most: u64,
    tell: &mut dyn FnMut(Record) -> io::Result<()>,
) -> Result<Counts, ReportError> {
    let mut told = Counts::default();
    let mut wanted: u64 = states.iter().map(|state| standing.counts.of(*state).min(most)).sum();
    if wanted == 0 {
        return Ok(told);
    }
    let mut failed = None;
    reader.each(edition.id, states, &mut |record| {
        if told.of(record.state) >= most {
            return ControlFlow::Continue(());
        }
        told.add(record.state, 1);
        wanted = wanted.saturating_sub(1);
        failed = tell(record).err();
        if failed.is_some() || wanted == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok(told), |error| Err(error.into()))
}

/// One person: outcome, row, key, and the words for each address that did not accept.
fn line(record: &Record, zone: &TimeZone) -> String {
    let word = left(record.state.word(), 9);
    let row = right(&format!("row {}", grouped(record.number)), 9);
    let key = left(&cut(&plain(&record.key), KEY), 28);
    let line = format!("  {word} {row}  {key}  {}", words(record, zone).join("; "));
    format!("{}\n", line.trim_end())
}

/// What was said of each address that did not accept, and what else is known of a letter.
pub(super) fn words(record: &Record, zone: &TimeZone) -> Vec<String> {
    let mut words = Vec::new();
    for rcpt in record.rcpts.iter().map(|rcpt| &rcpt.rcpt) {
        let good = rcpt.outcome == Outcome::Accepted && record.state != State::Accepted;
        let told = rcpt.outcome == Outcome::Deferred && record.state == State::Refused;
        if !good && !told {
            let address = if rcpt.address == record.key {
                String::new()
            } else {
                format!("{}: ", plain(&rcpt.address))
            };
            words.push(format!("{address}{}", plain(&rcpt.answer.to_string())));
        }
    }
    if let Some(reason) = &record.reason {
        words.push(plain(reason));
    }
    if let (State::Deferred, Some(due)) = (record.state, record.next_attempt) {
        words.push(format!("tried {}, next {}", times(record.attempts), clock(due, zone)));
    }
    words
}

fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

fn removed(out: &mut dyn Write, view: &View<'_>) -> Result<(), ReportError> {
    let Some(enlisting) = view.enlisting else { return Ok(()) };
    if enlisting.changed > 0 {
        let (rows, are) = if enlisting.changed == 1 { ("row", "is") } else { ("rows", "are") };
        writeln!(
            out,
            "\n{} {rows} of the list {are} another by now; this edition keeps what it was begun with",
            grouped(enlisting.changed)
        )?;
    }
    if enlisting.removed > 0 {
        writeln!(out, "\ngone from the list, and skipped")?;
        for key in enlisting.removed_keys.iter().take(view.some) {
            writeln!(out, "  {}", plain(key))?;
        }
        let more = enlisting.removed.saturating_sub(view.some as u64);
        if more > 0 {
            writeln!(out, "  … and {} more: {} --outcome skipped", grouped(more), view.command)?;
        }
    }
    Ok(())
}

fn rejects(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    standing: &Standing,
    view: &View<'_>,
) -> Result<(), ReportError> {
    let all = standing.rejected + standing.repeated;
    if all == 0 {
        return Ok(());
    }
    writeln!(out, "\nrows that got no letter")?;
    for reject in reader.rejects(edition.id, 0, view.some)? {
        let key = reject.key.map(|key| format!("{}: ", plain(&key))).unwrap_or_default();
        let row = right(&format!("row {}", grouped(reject.number)), 9);
        writeln!(out, "  {row}  {key}{}", plain(&reject.reason))?;
    }
    let more = all.saturating_sub(view.some as u64);
    if more > 0 {
        writeln!(out, "  … and {} more: {} --format json", grouped(more), view.command)?;
    }
    Ok(())
}
