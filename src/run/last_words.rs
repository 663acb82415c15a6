//! What a sending run says at its end: the summary, the report file, the exit code.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli;
use crate::exit::Exit;
use crate::ledger::{Edition, Enlisting, Ledger, Reader, Sqlite, Standing, State};
use crate::plan::Plan;
use crate::report::{self, ReportError, View};
use crate::talk;

use super::report::report_command;
use super::stop::Stop;

/// The summary on stderr, the report file, and the exit code the outcomes ask for.
pub(super) fn last_words(
    plan: &Plan,
    ledger: &mut Sqlite,
    edition: &Edition,
    standing: &Standing,
    enlisting: Option<&Enlisting>,
    args: &cli::Run,
) -> Result<Exit, Stop> {
    ledger.tidy()?;
    let reader = ledger.reader()?;
    let edition = reader.edition(edition.id)?.unwrap_or_else(|| edition.clone());
    let trouble = [State::Refused, State::Failed, State::Unsure];
    let bad = standing.rejected > 0 || trouble.into_iter().any(|state| standing.counts.of(state) > 0);
    let command = report_command(&plan.job.path, plan.purpose);
    if bad || !talk::is_quiet() {
        let view = View { only: None, some: 10, domains: false, enlisting, command: &command };
        if talk::is_json() {
            talk::event("summary", report::summary(&edition, standing));
        } else {
            match report::table(&mut std::io::stderr().lock(), &*reader, &edition, standing, &view) {
                // Nobody listens any more; what became of everyone is in the ledger.
                Err(ReportError::Output(_)) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if let Some(path) = &args.report {
        write_report(path, &*reader, &edition, &command)?;
    }
    Ok(if bad { Exit::SomeFailed } else { Exit::Done })
}

/// Finds out before anything is sent whether the report can be written afterwards.
pub(super) fn report_can_be_written(path: &Path) -> Result<(), Stop> {
    let aside = aside(path);
    let tried = match path.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => File::create(&aside).and_then(|_| std::fs::remove_file(&aside)),
    };
    tried.map_err(|error| {
        Stop::new(Exit::Io, format!("cannot write {}: {error}; nothing was sent", path.display()))
    })
}

fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    aside.into()
}

/// `--report FILE`: a page, JSON or CSV by its name, written aside and put in place when it is whole.
fn write_report(path: &Path, reader: &dyn Reader, edition: &Edition, command: &str) -> Result<(), Stop> {
    let failed =
        |error: std::io::Error| Stop::new(Exit::Io, format!("cannot write {}: {error}", path.display()));
    let aside = aside(path);
    let written = File::create(&aside).map_err(failed).and_then(|file| {
        let mut out = BufWriter::new(file);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("html") => report::page(&mut out, reader, edition, None, command, super::unix_now()),
            Some("json") => report::json(&mut out, reader, edition, &State::ALL),
            _ => report::csv(&mut out, reader, edition, &State::ALL),
        }?;
        out.flush().and_then(|()| std::fs::rename(&aside, path)).map_err(failed)
    });
    if written.is_err() {
        // Half a report takes room on a disk that has none, and is full of addresses.
        let _ = std::fs::remove_file(&aside);
    }
    written
}
