//! `postroom report`: what became of everyone.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use crate::cli::{self, ReportForm};
use crate::exit::Exit;
use crate::job::{Keep, SendJob};
use crate::ledger::{Edition, Reader, Sqlite, State};
use crate::letter::Purpose;
use crate::report::{self, ReportError, View};
use crate::talk;

use super::answer::printed;
use super::kept;
use super::stop::Stop;

/// Prints the report of a job on stdout.
pub(super) fn report(args: &cli::Report, ledger: &Path, job: &SendJob) -> Result<Exit, Stop> {
    let purpose = purpose(args);
    let reader = Sqlite::open_read_only(ledger)?;
    let edition = choose(&reader, &job.name, purpose, args.edition.as_deref())?;
    // Trials keep no letters.
    let keep = job.keep.as_ref().filter(|_| purpose == Purpose::Real);
    if args.watch {
        return watch(&reader, edition);
    }
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let said = print(args, &reader, &edition, keep, &mut out).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    match said {
        Err(error) if error.is_closed_pipe() => Ok(Exit::Done),
        said => Ok(said?),
    }
}

/// Which ledger is asked for: trials have one of their own.
pub(super) fn purpose(args: &cli::Report) -> Purpose {
    match (args.sandbox, args.to) {
        (true, _) => Purpose::Sandbox,
        (_, true) => Purpose::Redirected,
        _ => Purpose::Real,
    }
}

/// The command that tells more of a job's newest edition.
pub(super) fn report_command(job: &Path, purpose: Purpose) -> String {
    let trial = match purpose {
        Purpose::Real => "",
        Purpose::Sandbox => " --sandbox",
        Purpose::Redirected => " --to",
    };
    format!("postroom report {}{trial}", job.display())
}

fn print(
    args: &cli::Report,
    reader: &dyn Reader,
    edition: &Edition,
    keep: Option<&Keep>,
    out: &mut dyn Write,
) -> Result<Exit, ReportError> {
    if let Some(key) = &args.letter {
        let seq = reader.find_keys(edition.id, std::slice::from_ref(key))?.pop().flatten();
        let letter = seq.map(|seq| reader.letter(edition.id, seq)).transpose()?.flatten();
        let kept = letter.as_ref().and_then(|letter| match (keep, &letter.record.message_id) {
            (Some(Keep::Folder(folder)), Some(id)) => {
                Some(kept::place(folder, &edition.name, &letter.record.key, id)).filter(|file| file.exists())
            }
            _ => None,
        });
        match letter {
            Some(letter) if args.format == ReportForm::Json => {
                report::letter_json(out, edition, &letter, kept.as_deref())?
            }
            Some(letter) => report::letter(out, edition, &letter, kept.as_deref())?,
            None => {
                talk::error(&format!("edition {} has nobody with the key {key}", edition.name));
                return Ok(Exit::SomeFailed);
            }
        }
        return Ok(Exit::Done);
    }
    let words = args.outcome.iter().map(|outcome| outcome.word());
    let chosen: Vec<State> = words.filter_map(State::from_word).collect();
    let states = if chosen.is_empty() { &State::ALL[..] } else { &chosen };
    let only = (!chosen.is_empty()).then_some(states);
    let command = report_command(&args.job, edition.purpose);
    match args.format {
        ReportForm::Html => report::page(out, reader, edition, only, &command, super::unix_now())?,
        ReportForm::Json => report::json(out, reader, edition, states)?,
        ReportForm::Csv => report::csv(out, reader, edition, states)?,
        ReportForm::Table => {
            let view = View { only, some: 20, domains: true, enlisting: None, command: &command };
            report::table(out, reader, edition, &reader.standing(edition.id)?, &view)?;
            others(out, reader, edition)?;
        }
    }
    Ok(Exit::Done)
}

/// Names the job's other editions, so that one can be asked for.
fn others(out: &mut dyn Write, reader: &dyn Reader, shown: &Edition) -> Result<(), ReportError> {
    let editions = reader.editions(&shown.job, shown.purpose)?;
    let names: Vec<&str> = editions
        .iter()
        .rev()
        .filter(|edition| edition.id != shown.id)
        .map(|edition| edition.name.as_str())
        .collect();
    if !names.is_empty() {
        let more = names.len().saturating_sub(12);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        writeln!(out, "\nother editions: {}{more}", names[..names.len().min(12)].join(", "))?;
    }
    Ok(())
}

/// The counts again and again, until the edition is finished.
fn watch(reader: &dyn Reader, mut edition: Edition) -> Result<Exit, Stop> {
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    let mut last = String::new();
    loop {
        let counts = reader.counts(edition.id)?;
        let line = format!("{} · {}", edition.name, report::counts_line(&counts));
        let written = match (terminal, line == last) {
            // The line is written over itself.
            (true, _) => write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()),
            (false, false) => writeln!(out, "{line}"),
            (false, true) => Ok(()),
        };
        last = line;
        let over = !edition.is_unfinished();
        if written.is_err() || over {
            let ended = if terminal && written.is_ok() { writeln!(out) } else { written };
            return Ok(printed(ended));
        }
        std::thread::sleep(Duration::from_secs(1));
        if let Some(now) = reader.edition(edition.id)? {
            edition = now;
        }
    }
}

/// The edition of this name, or the one begun last.
pub(super) fn choose(
    reader: &dyn Reader,
    job: &str,
    purpose: Purpose,
    name: Option<&str>,
) -> Result<Edition, Stop> {
    let mut editions = reader.editions(job, purpose)?;
    let known: Vec<String> = editions.iter().map(|edition| edition.name.clone()).collect();
    let place = match name {
        None => editions.len().checked_sub(1),
        Some(name) => editions.iter().position(|edition| edition.name == name),
    };
    match (place, name) {
        (Some(place), _) => Ok(editions.swap_remove(place)),
        (None, Some(name)) if !known.is_empty() => {
            Err(Stop::new(Exit::Usage, format!("there is no edition {name}; there is {}", known.join(", "))))
        }
        (None, _) => Err(Stop::new(Exit::NoInput, format!("{job} was never run"))),
    }
}
