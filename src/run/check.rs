//! `postroom check` for a job that sends: every row is examined and its letter made, and the plan
//! is shown. Nothing is connected to, unless that is asked for.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use rayon::prelude::*;
use serde_json::json;

use crate::cli;
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::job::{Class, Dedupe, SendJob, SourceSpec, TemplateSource};
use crate::letter::{Purpose, Row};
use crate::measure::{self, ByteSize};
use crate::plan::{Examined, Identity, Plan, Unasked, Unwritten};
use crate::recipients::{BadRow, Rows};
use crate::report;
use crate::submit::Submitter;
use crate::talk;

use super::show::safe_line;
use super::source::{self, NoList};

/// Rows that are read and made into letters at once.
const BATCH: usize = 1024;

/// How many bad rows are named to people.
const NAMED: usize = 20;

/// How many are named to programs.
const KEPT: usize = 1000;

/// How many domains are named.
const DOMAINS: usize = 10;

/// Domains are counted up to this number; what comes after is "others", so that a list of nonsense
/// does not fill the memory.
const COUNTED_DOMAINS: usize = 20_000;

/// What was found out about a list.
#[derive(Default)]
struct Findings {
    rows: u64,
    letters: u64,
    filtered: u64,
    suppressed: u64,
    duplicates: u64,
    bad: u64,
    named: Vec<(u64, Bad)>,
    bytes: u64,
    largest: u64,
    files: u64,
    domains: HashMap<String, u64>,
    other_domains: u64,
    /// Hash of the key, hash of the row, number of the row: sixteen bytes a letter.
    keys: Vec<(u64, u32, u32)>,
}

/// One row, looked at.
enum Looked {
    Letter { line: Option<u64>, name: String, row: u32, domain: String, bytes: u64, files: u64 },
    Filtered,
    Suppressed,
    Bad(Bad),
}

/// A row without a letter, and by what it is found in the list.
struct Bad {
    line: Option<u64>,
    key: Option<String>,
    reason: String,
    /// The number of the row that has its key already.
    first: Option<u64>,
}

impl Bad {
    fn new(line: Option<u64>, key: Option<String>, reason: String) -> Bad {
        Bad { line, key, reason, first: None }
    }

    /// It has the key of an earlier row and is another. Of both no more than the numbers is known at first.
    fn repeats(first: u64, line: Option<u64>) -> Bad {
        let reason = format!("it is another row than row {first}{} and has the same key", in_line(line));
        Bad { line: None, key: None, reason, first: Some(first) }
    }
}

/// Checks a sending job.
pub(super) fn check(job: SendJob, args: &cli::Check, global: &cli::Global) -> Exit {
    let fail = |exit: Exit, words: String| {
        talk::error(&words);
        exit
    };
    let mut warnings = job.warnings.clone();
    lint(&job, &mut warnings);
    let (plan, mut rows) = match lay(job) {
        Ok(laid) => laid,
        Err(mut mistakes) => {
            mistakes.append(&mut warnings);
            return super::refuse(&mistakes, global);
        }
    };
    warnings.extend_from_slice(plan.templates().warnings());
    warnings.extend(source::empty_suppress_lists(&plan.job));
    warnings.extend(hidden_vars(&plan.job, &rows));
    let edition = match plan.templates().edition(super::unix_now()) {
        Ok(edition) => edition,
        Err(error) => return fail(Exit::Job, error.to_string()),
    };
    super::warn(&warnings, global);
    let findings = match findings(&plan, &edition, &mut rows) {
        Ok(findings) => findings,
        Err(error) => return super::refuse(&[error.diagnostic(&plan.job)], global),
    };
    if findings.letters == 0 {
        let title = match findings.rows {
            0 => "the list has no rows",
            _ => "nobody on the list gets a letter",
        };
        let place = plan.job.recipients.source.place().cloned();
        super::warn(&[Diagnostic::warning(title).at_maybe(place)], global);
    }

    let stdout = std::io::stdout().lock();
    let said = if args.json {
        say_json(stdout, &plan, &edition, &findings)
    } else {
        say(stdout, &plan, &edition, &findings)
    };
    let said = super::answer::printed(said);
    let max_bad = plan.job.recipients.max_bad;
    let exit = if findings.bad == 0 {
        Exit::Done
    } else if args.strict || max_bad.exceeded(findings.bad, findings.rows) {
        Exit::Data
    } else {
        Exit::SomeFailed
    };
    let connected = if args.connect { connect(&plan, args) } else { Exit::Done };
    exit.or_worse(said).or_worse(connected)
}

/// Makes the plan and opens the list, or finds the mistakes of both and the files that are missing.
fn lay(mut job: SendJob) -> Result<(Plan, Rows), Vec<Diagnostic>> {
    let mut mistakes = std::mem::take(&mut job.absent);
    let rows = source::open(&job).map_err(|error| mistakes.push(error.diagnostic(&job))).ok();
    // Without a list nothing is said about columns.
    let columns = rows.as_ref().and_then(Rows::columns);
    let plan =
        Plan::lay(job, columns.as_deref(), Purpose::Real, None).map_err(|found| mistakes.extend(found)).ok();
    match (plan, rows) {
        (Some(plan), Some(rows)) if mistakes.is_empty() => Ok((plan, rows)),
        _ => Err(mistakes),
    }
}

/// What else is wrong with a job whose file has mistakes. Nobody is kept waiting for standard input that will not be
/// used.
pub(super) fn behind(mut job: SendJob) -> Vec<Diagnostic> {
    if !matches!(job.recipients.source, SourceSpec::Stdin { .. }) {
        return lay(job).err().unwrap_or_default();
    }
    let mut mistakes = std::mem::take(&mut job.absent);
    mistakes.extend(Plan::lay(job, None, Purpose::Real, None).err().unwrap_or_default());
    mistakes
}

/// Looks at the whole list. A file that was found for two recipients is neither's, so that where there
/// is one all are looked at again with that known, as enlisting does; and rows that turn out to have
/// the key of an earlier one are taken out of the sums. Standard input cannot be read again.
fn findings(plan: &Plan, edition: &str, rows: &mut Rows) -> Result<Findings, NoList> {
    let again = !matches!(plan.job.recipients.source, SourceSpec::Stdin { .. });
    let mut findings = Findings::default();
    each(plan, edition, rows, |_| true, |number, looked| findings.note(number, looked))?;
    if plan.any_contested() && again {
        findings = Findings::default();
        let mut rows = source::open(&plan.job)?;
        each(plan, edition, &mut rows, |_| true, |number, looked| findings.note(number, looked))?;
    }
    let passed_over = findings.find_duplicates(plan.job.recipients.dedupe);
    if !passed_over.is_empty() && again {
        let mut rows = source::open(&plan.job)?;
        let named = findings.alike();
        let wanted = |number| passed_over.contains(&number) || named.contains(&number);
        let mut places = HashMap::new();
        each(plan, edition, &mut rows, wanted, |number, looked| {
            if passed_over.contains(&number) {
                findings.take_back(&looked);
            }
            if let (true, Looked::Letter { line, name, .. }) = (named.contains(&number), looked) {
                places.insert(number, (line, name));
            }
        })?;
        findings.tell_places(&places);
    }
    Ok(findings)
}

/// Looks at the rows whose numbers are wanted, many at a time, and tells of them in their order.
fn each(
    plan: &Plan,
    edition: &str,
    rows: &mut Rows,
    wanted: impl Fn(u64) -> bool,
    mut told: impl FnMut(u64, Looked),
) -> Result<(), NoList> {
    loop {
        let mut batch = rows.next_batch(BATCH)?;
        if batch.is_empty() {
            return Ok(());
        }
        batch.retain(|row| wanted(row.as_ref().map_or_else(|bad| bad.number, |row| row.number)));
        let looked: Vec<(u64, Looked)> =
            batch.into_par_iter().with_min_len(16).map(|row| look(plan, edition, row)).collect();
        looked.into_iter().for_each(|(number, looked)| told(number, looked));
    }
}

fn look(plan: &Plan, edition: &str, row: Result<Row, BadRow>) -> (u64, Looked) {
    let row = match row {
        Ok(row) => row,
        Err(BadRow { number, line, key_hint, reason }) => {
            return (number, Looked::Bad(Bad::new(line, key_hint, reason)));
        }
    };
    let (key, domain) = match plan.examine(&row) {
        Examined::Ready { key, domain, .. } => (key, domain),
        Examined::Filtered => return (row.number, Looked::Filtered),
        Examined::Suppressed { .. } => return (row.number, Looked::Suppressed),
        Examined::Bad { key, reason, .. } => {
            let key = key.map(|key| key.as_str().to_owned());
            return (row.number, Looked::Bad(Bad::new(row.line, key, reason)));
        }
    };
    let identity = Identity {
        secret: &[0; 32],
        edition,
        key: key.as_str(),
        generation: 0,
        date: 0,
        enclosed: None,
        unasked: Unasked::default(),
        settled: &[],
        deferred: &[],
    };
    let looked = match plan.letter(&row, &identity) {
        Ok(written) => Looked::Letter {
            line: row.line,
            name: key.as_str().to_owned(),
            row: hash(&row.to_json()) as u32,
            domain,
            bytes: written.message.content.len() as u64,
            files: written.files.len() as u64,
        },
        Err(Unwritten::Suppressed) => Looked::Suppressed,
        Err(Unwritten::Failed { reason, .. }) => {
            Looked::Bad(Bad::new(row.line, Some(key.as_str().to_owned()), reason))
        }
    };
    (row.number, looked)
}

/// Where a row begins in its list, behind its number.
pub(super) fn in_line(line: Option<u64>) -> String {
    line.map(|line| format!(" (line {line})")).unwrap_or_default()
}

fn hash(text: &str) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

impl Findings {
    fn note(&mut self, number: u64, looked: Looked) {
        self.rows += 1;
        match looked {
            Looked::Filtered => self.filtered += 1,
            Looked::Suppressed => self.suppressed += 1,
            Looked::Bad(bad) => self.bad(number, bad),
            Looked::Letter { line: _, name, row, domain, bytes, files } => {
                self.letters += 1;
                self.bytes += bytes;
                self.largest = self.largest.max(bytes);
                self.files += files;
                self.keys.push((hash(&name), row, u32::try_from(number).unwrap_or(u32::MAX)));
                let counted = self.domains.len();
                match self.domains.get_mut(&domain) {
                    Some(count) => *count += 1,
                    None if counted < COUNTED_DOMAINS => {
                        self.domains.insert(domain, 1);
                    }
                    None => self.other_domains += 1,
                }
            }
        }
    }

    fn bad(&mut self, number: u64, bad: Bad) {
        self.bad += 1;
        if self.named.len() < KEPT {
            self.named.push((number, bad));
        }
    }

    /// Finds rows with one key. Those that are equal in every cell are one row. Gives the numbers of
    /// all but the first of each key.
    fn find_duplicates(&mut self, dedupe: Dedupe) -> HashSet<u64> {
        let (mut passed_over, mut alike) = (HashSet::new(), Vec::new());
        let mut keys = std::mem::take(&mut self.keys);
        keys.sort_unstable_by_key(|&(key, _, number)| (key, number));
        let mut first = 0;
        for at in 1..keys.len() {
            if keys[at].0 != keys[first].0 {
                first = at;
                continue;
            }
            self.duplicates += 1;
            self.letters -= 1;
            passed_over.insert(u64::from(keys[at].2));
            if dedupe == Dedupe::Refuse && keys[at].1 != keys[first].1 {
                alike.push((u64::from(keys[at].2), u64::from(keys[first].2)));
            }
        }
        alike.sort_unstable();
        alike.into_iter().for_each(|(number, first)| self.bad(number, Bad::repeats(first, None)));
        self.named.sort_by_key(|(number, _)| *number);
        passed_over
    }

    /// The numbers of the rows to be named that repeat a key, and of those they repeat.
    fn alike(&self) -> HashSet<u64> {
        let pairs = self.named.iter().filter_map(|(number, bad)| Some([*number, bad.first?]));
        pairs.flatten().collect()
    }

    /// Names by line and key what was only known by its number.
    fn tell_places(&mut self, places: &HashMap<u64, (Option<u64>, String)>) {
        for (number, bad) in &mut self.named {
            let Some(first) = bad.first else { continue };
            let Some((line, key)) = places.get(number).cloned() else { continue };
            let of_first = places.get(&first).and_then(|(line, _)| *line);
            *bad = Bad { line, key: Some(key), ..Bad::repeats(first, of_first) };
        }
    }

    /// Takes the letter of a row that is passed over out of the sums.
    fn take_back(&mut self, looked: &Looked) {
        let Looked::Letter { domain, bytes, files, .. } = looked else { return };
        self.bytes = self.bytes.saturating_sub(*bytes);
        self.files = self.files.saturating_sub(*files);
        match self.domains.get_mut(domain) {
            Some(1) => {
                self.domains.remove(domain);
            }
            Some(count) => *count -= 1,
            None => self.other_domains = self.other_domains.saturating_sub(1),
        }
    }

    fn top_domains(&self) -> Vec<(&str, u64)> {
        let mut domains: Vec<(&str, u64)> =
            self.domains.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        domains.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        domains.truncate(DOMAINS);
        domains
    }
}

/// What a careful colleague would say about the job.
fn lint(job: &SendJob, warnings: &mut Vec<Diagnostic>) {
    if job.class == Class::Bulk && job.unsubscribe.is_none() {
        warnings.push(Diagnostic::warning(format!("{}: bulk mail without `unsubscribe:`", job.name)).help(
            "large providers refuse bulk mail without List-Unsubscribe; `class: personal` says it is none",
        ));
    }
    if let (Some(TemplateSource::File(html) | TemplateSource::Inline(html)), None) =
        (&job.body.html, &job.body.text)
    {
        warnings.push(
            Diagnostic::warning("no `text:`: the plain text is made from the HTML")
                .at_maybe(html.place.clone())
                .help("look at it with `postroom run --sandbox`"),
        );
    }
}

/// Vars that no template sees: a column has their name, and the row comes first.
fn hidden_vars(job: &SendJob, rows: &Rows) -> Vec<Diagnostic> {
    let Some(columns) = rows.columns().filter(|columns| !columns.is_loose()) else { return Vec::new() };
    let hidden = job.vars.keys().filter(|name| columns.names().contains(name));
    let warning = |name: &String| {
        Diagnostic::warning(format!("`{name}` of `vars` is never seen: the list has a column of that name"))
            .help("give one of them another name")
    };
    hidden.map(warning).collect()
}

/// Seconds at the relay's rate, where it has one.
fn seconds(plan: &Plan, letters: u64) -> Option<f64> {
    plan.job.relay.rate.map(|rate| rate.per.as_secs_f64() / f64::from(rate.count) * letters as f64)
}

fn say(mut out: impl Write, plan: &Plan, edition: &str, found: &Findings) -> std::io::Result<()> {
    let job = &plan.job;
    writeln!(out, "{} · edition {edition}", job.name)?;
    writeln!(out, "from       {}", job.from)?;
    writeln!(out, "relay      {}:{}", job.relay.host, job.relay.port)?;
    write!(out, "rows       {}", found.rows)?;
    for (count, word) in [
        (found.filtered, "left out by `where`"),
        (found.suppressed, "suppressed"),
        (found.duplicates, "with a key that came before"),
        (found.bad, "bad"),
    ] {
        if count > 0 {
            write!(out, ", {count} {word}")?;
        }
    }
    writeln!(out)?;
    let mean = found.bytes.checked_div(found.letters.max(1)).unwrap_or(0);
    writeln!(
        out,
        "letters    {}, {} in all, {} on average, {} the largest",
        found.letters,
        ByteSize(found.bytes),
        ByteSize(mean),
        ByteSize(found.largest)
    )?;
    if found.files > 0 {
        writeln!(out, "files      {}", found.files)?;
    }
    let domains: Vec<String> = found
        .top_domains()
        .iter()
        .map(|(name, count)| format!("{} {count}", report::domain_name(name)))
        .collect();
    if !domains.is_empty() {
        let more = found.domains.len().saturating_sub(domains.len());
        let more = if more > 0 { format!(", {more} more") } else { String::new() };
        writeln!(out, "domains    {}{more}", domains.join(", "))?;
    }
    if let (Some(seconds), Some(rate)) = (seconds(plan, found.letters), job.relay.rate) {
        writeln!(out, "time       {} at {rate}", measure::duration_words(seconds))?;
    }
    for (number, Bad { line, key, reason, .. }) in found.named.iter().take(NAMED) {
        let line = in_line(*line);
        let key = key.as_ref().map(|key| format!("  {key}")).unwrap_or_default();
        writeln!(out, "{}", safe_line(&format!("row {number}{line}{key}: {reason}")))?;
    }
    if let Some(more @ 1..) = found.bad.checked_sub(NAMED as u64) {
        writeln!(out, "… and {more} more; `--json` names the first {KEPT}")?;
    }
    Ok(())
}

fn say_json(mut out: impl Write, plan: &Plan, edition: &str, found: &Findings) -> std::io::Result<()> {
    let named = found
        .named
        .iter()
        .map(|(row, bad)| json!({"row": row, "line": bad.line, "key": bad.key, "reason": bad.reason}));
    let bad: Vec<_> = named.collect();
    let domains: serde_json::Map<String, serde_json::Value> =
        found.top_domains().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let plan = json!({
        "job": plan.job.name, "kind": "send", "edition": edition, "from": plan.job.from.to_string(),
        "relay": {"host": plan.job.relay.host, "port": plan.job.relay.port},
        "rows": found.rows, "filtered": found.filtered, "suppressed": found.suppressed,
        "duplicates": found.duplicates, "bad": found.bad, "bad_rows": bad,
        "letters": found.letters, "bytes": found.bytes, "largest": found.largest, "files": found.files,
        "domains": domains, "seconds": seconds(plan, found.letters),
    });
    serde_json::to_writer_pretty(&mut out, &plan)?;
    writeln!(out)
}

/// `--connect`: one login at the relay, and what it offers.
fn connect(plan: &Plan, args: &cli::Check) -> Exit {
    let (events, _answers) = crossbeam_channel::unbounded();
    let trace = args.trace.then(crate::net::transcript::Transcript::stderr);
    // For a connection that other runs have nobody waits here as long as a run does.
    let mut relay = plan.job.relay.clone();
    relay.retry.stay = relay.retry.stay.min(relay.timeouts.connect);
    let accounts = super::accounts::of_this_user(|| false);
    match Submitter::start(&relay, &accounts, trace, events) {
        Ok(submitter) => {
            submitter.drain();
            talk::note(&format!(
                "relay {}:{} answers and lets us in",
                plan.job.relay.host, plan.job.relay.port
            ));
            Exit::Done
        }
        Err(error) => {
            let stop = super::send::submit_trouble(&error, &plan.job.relay);
            talk::error(&stop.words);
            stop.exit
        }
    }
}
