//! The commands that look into a ledger or tend it, without a run: which ledger, which job, and how
//! each of them ends.

use std::path::{Path, PathBuf};

use crate::cli::{self, Global};
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::job::{self, Environment, Job, LedgerUrl, SendJob};
use crate::talk;

use super::stop::Stop;
use super::{report, upkeep};

/// `postroom report`
pub(super) fn report(args: &cli::Report, global: &Global) -> Exit {
    ended(
        sending(&args.job, global).and_then(|job| {
            report::report(args, &super::ledger_file::path(&job, report::purpose(args)), &job)
        }),
    )
}

/// `postroom requeue`
pub(super) fn requeue(args: &cli::Requeue, global: &Global) -> Exit {
    ended(of_job(&args.job, global).and_then(|(ledger, job)| upkeep::requeue(args, &ledger, &job)))
}

/// `postroom stop`, `pause`, `resume`
pub(super) fn flag(args: &cli::Flag, raise: fn(&Path, &str) -> Result<Exit, Stop>, global: &Global) -> Exit {
    ended(of_job(&args.job, global).and_then(|(ledger, job)| raise(&ledger, &job)))
}

/// `postroom forget`
pub(super) fn forget(args: &cli::Forget, global: &Global) -> Exit {
    ended(shared(args.job.as_deref(), global).and_then(|ledger| upkeep::forget(args, &ledger)))
}

/// `postroom prune`
pub(super) fn prune(args: &cli::Prune, global: &Global) -> Exit {
    ended(shared(args.job.as_deref(), global).and_then(|ledger| upkeep::prune(args, &ledger)))
}

fn ended(done: Result<Exit, Stop>) -> Exit {
    done.unwrap_or_else(|said| {
        if !said.words.is_empty() {
            talk::error(&said.words);
        }
        said.exit
    })
}

/// The ledger and the name of a sending job.
fn of_job(path: &Path, global: &Global) -> Result<(PathBuf, String), Stop> {
    sending(path, global).map(|job| (file(job.ledger), job.name))
}

/// A job that sends.
fn sending(path: &Path, global: &Global) -> Result<SendJob, Stop> {
    match job::read(path, &environment()?) {
        Ok(Job::Send(job)) => Ok(*job),
        Ok(Job::Archive(_)) => {
            let reason = format!("{} archives a mailbox: only sending jobs have a ledger", path.display());
            Err(Stop::new(Exit::Usage, reason))
        }
        Err(mistakes) => Err(shown(&mistakes, global, if path.exists() { Exit::Job } else { Exit::NoInput })),
    }
}

/// The ledger of a job, or else that of the project we stand in.
fn shared(path: Option<&Path>, global: &Global) -> Result<PathBuf, Stop> {
    match path {
        Some(path) => of_job(path, global).map(|(ledger, _)| ledger),
        None => match job::shared_ledger(&environment()?) {
            Ok(ledger) => Ok(file(ledger)),
            Err(mistakes) => Err(shown(&mistakes, global, Exit::Job)),
        },
    }
}

fn environment() -> Result<Environment, Stop> {
    Environment::process()
        .map_err(|error| Stop::new(Exit::Io, format!("cannot tell which folder this is: {error}")))
}

fn file(ledger: LedgerUrl) -> PathBuf {
    match ledger {
        LedgerUrl::Sqlite(path) => path,
    }
}

/// Shows mistakes of the job file; nothing is left to say.
fn shown(mistakes: &[Diagnostic], global: &Global, exit: Exit) -> Stop {
    talk::diagnostics(mistakes, global.color.on_stderr());
    Stop::new(exit, "")
}
