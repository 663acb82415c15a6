//! The report as a page for a browser: one file that loads nothing from anywhere.

use std::io::Write;

use jiff::tz::TimeZone;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::ledger::{Counts, Edition, Reader, Record, Standing, State};
use crate::letter::Purpose;
use crate::measure::grouped;

use super::ReportError;
use super::table::{ORDER, TROUBLE, age, beside, domain_name, first_of_each, note, words};
use super::text::{clock, plain, zone};

/// People of each outcome that a page shows; a browser takes that many rows in its stride.
const PEOPLE: u64 = 2000;

/// Domains, and rows that got no letter, that a page shows.
const LINES: usize = 200;

/// What the template is told. Numbers are grouped for reading; every text is escaped by the template.
#[derive(Serialize)]
struct Page {
    job: String,
    edition: String,
    trial: Option<&'static str>,
    age: String,
    made: String,
    total: String,
    beside: String,
    outcomes: Vec<Share>,
    domains: Vec<Domain>,
    more_domains: Option<String>,
    asked: bool,
    people: Vec<Person>,
    more: Vec<(&'static str, String)>,
    rejects: Vec<Row>,
    more_rejects: Option<String>,
    command: String,
}

/// An outcome and how many stand there.
#[derive(Serialize)]
struct Share {
    outcome: &'static str,
    number: String,
    percent: String,
    note: String,
}

#[derive(Serialize)]
struct Domain {
    name: String,
    total: String,
    numbers: Vec<String>,
}

#[derive(Serialize)]
struct Person {
    outcome: &'static str,
    row: String,
    key: String,
    at: String,
    words: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    row: String,
    key: String,
    reason: String,
}

/// Writes an edition as an HTML page, as it stands at `now` (Unix seconds): the numbers, the domains, and
/// of each outcome in `only` — else of each there was trouble with — the first [`PEOPLE`]. `command`
/// prints more: `postroom report jobs/x.yaml`.
pub fn page(
    out: &mut dyn Write,
    reader: &dyn Reader,
    edition: &Edition,
    only: Option<&[State]>,
    command: &str,
    now: i64,
) -> Result<(), ReportError> {
    let standing = reader.standing(edition.id)?;
    let zone = zone(&edition.timezone);
    let mut people = Vec::new();
    let states = only.unwrap_or(&TROUBLE);
    let shown = first_of_each(reader, edition, &standing, states, PEOPLE, &mut |record| {
        people.push(Person::of(&record, &zone));
        Ok(())
    })?;
    let rank = |word: &str| ORDER.iter().position(|state| state.word() == word);
    people.sort_by_key(|person| rank(person.outcome));
    let more = |state: &State| standing.counts.of(*state).saturating_sub(shown.of(*state));
    let left_out = states.iter().filter(|state| more(state) > 0);
    let domains = standing.domains.len().min(LINES);
    let rejects = reader.rejects(edition.id, 0, LINES)?;
    let rows = standing.rejected + standing.repeated;
    let page = Page {
        job: plain(&edition.job),
        edition: plain(&edition.name),
        trial: (edition.purpose != Purpose::Real).then(|| edition.purpose.word()),
        age: age(edition, &zone),
        made: clock(now, &zone),
        total: grouped(standing.counts.total()),
        beside: beside(edition, &standing),
        outcomes: present(&standing.counts).map(|state| Share::of(state, &standing, &zone)).collect(),
        domains: standing.domains[..domains].iter().map(|domain| Domain::of(domain, &standing)).collect(),
        more_domains: more_of((standing.domains.len() - domains) as u64),
        asked: only.is_some(),
        people,
        more: left_out.map(|state| (state.word(), grouped(more(state)))).collect(),
        more_rejects: more_of(rows.saturating_sub(rejects.len() as u64)),
        rejects: rejects
            .into_iter()
            .map(|reject| Row {
                row: grouped(reject.number),
                key: plain(&reject.key.unwrap_or_default()),
                reason: plain(&reject.reason),
            })
            .collect(),
        command: command.to_owned(),
    };
    let mut templates = Environment::new();
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    let page = templates.render_str(include_str!("page.html"), Serde(page))?;
    out.write_all(page.as_bytes())?;
    Ok(())
}

/// The outcomes there are, in the order in which they are told; accepted always.
fn present(counts: &Counts) -> impl Iterator<Item = State> + '_ {
    ORDER.into_iter().filter(|state| counts.of(*state) > 0 || *state == State::Accepted)
}

fn more_of(number: u64) -> Option<String> {
    (number > 0).then(|| grouped(number))
}

impl Share {
    fn of(state: State, standing: &Standing, zone: &TimeZone) -> Share {
        let (number, total) = (standing.counts.of(state), standing.counts.total().max(1));
        Share {
            outcome: state.word(),
            number: grouped(number),
            percent: format!("{:.3}", number as f64 * 100.0 / total as f64),
            note: note(state, standing, zone),
        }
    }
}

impl Domain {
    fn of((name, counts): &(String, Counts), standing: &Standing) -> Domain {
        let numbers = present(&standing.counts).map(|state| match counts.of(state) {
            0 => "·".to_owned(),
            number => grouped(number),
        });
        Domain { name: domain_name(name), total: grouped(counts.total()), numbers: numbers.collect() }
    }
}

impl Person {
    fn of(record: &Record, zone: &TimeZone) -> Person {
        let last = record.rcpts.iter().map(|rcpt| rcpt.at).max();
        Person {
            outcome: record.state.word(),
            row: grouped(record.number),
            key: plain(&record.key),
            at: last.map(|at| clock(at, zone)).unwrap_or_default(),
            words: words(record, zone),
        }
    }
}
