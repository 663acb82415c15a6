//! The commands that look into a ledger or tend it, without a run: which ledger, which job, and how
//! each of them ends.

use std::path::{Path, PathBuf};

use crate::cli::{Command, Global};
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::job::{self, Environment, Job, LedgerUrl, SendJob};
use crate::talk;

use super::report::Said;
use super::{flag, report, upkeep};

/// Carries out a command of the ledger; `None` for any other.
pub(super) fn run(command: &Command, global: &Global) -> Option<Exit> {
    let done = match command {
        Command::Report(args) => sending(&args.job, global).and_then(|job| {
            report::report(args, &super::ledger_file::path(&job, report::purpose(args)), &job)
        }),
        Command::Requeue(args) => {
            of_job(&args.job, global).and_then(|(l, job)| upkeep::requeue(args, &l, &job))
        }
        Command::Stop(args) => of_job(&args.job, global).and_then(|(l, job)| flag::stop(&l, &job)),
        Command::Pause(args) => of_job(&args.job, global).and_then(|(l, job)| flag::pause(&l, &job)),
        Command::Resume(args) => of_job(&args.job, global).and_then(|(l, job)| flag::resume(&l, &job)),
        Command::Forget(args) => shared(args.job.as_deref(), global).and_then(|l| upkeep::forget(args, &l)),
        Command::Prune(args) => shared(args.job.as_deref(), global).and_then(|l| upkeep::prune(args, &l)),
        _ => return None,
    };
    Some(done.unwrap_or_else(|said| {
        if !said.reason.is_empty() {
            talk::error(&said.reason);
        }
        said.exit
    }))
}

/// The ledger and the name of a sending job.
fn of_job(path: &Path, global: &Global) -> Result<(PathBuf, String), Said> {
    sending(path, global).map(|job| (file(job.ledger), job.name))
}

/// A job that sends.
fn sending(path: &Path, global: &Global) -> Result<SendJob, Said> {
    match job::read(path, &environment()?) {
        Ok(Job::Send(job)) => Ok(*job),
        Ok(Job::Archive(_)) => {
            let reason = format!("{} archives a mailbox: only sending jobs have a ledger", path.display());
            Err(Said { exit: Exit::Usage, reason })
        }
        Err(mistakes) => Err(shown(&mistakes, global, if path.exists() { Exit::Job } else { Exit::NoInput })),
    }
}

/// The ledger of a job, or else that of the project we stand in.
fn shared(path: Option<&Path>, global: &Global) -> Result<PathBuf, Said> {
    match path {
        Some(path) => of_job(path, global).map(|(ledger, _)| ledger),
        None => match job::shared_ledger(&environment()?) {
            Ok(ledger) => Ok(file(ledger)),
            Err(mistakes) => Err(shown(&mistakes, global, Exit::Job)),
        },
    }
}

fn environment() -> Result<Environment, Said> {
    Environment::process().map_err(|error| Said {
        exit: Exit::Io,
        reason: format!("cannot tell which folder this is: {error}"),
    })
}

fn file(ledger: LedgerUrl) -> PathBuf {
    match ledger {
        LedgerUrl::Sqlite(path) => path,
    }
}

/// Shows mistakes of the job file; nothing is left to say.
fn shown(mistakes: &[Diagnostic], global: &Global, exit: Exit) -> Said {
    talk::diagnostics(mistakes, global.color.on_stderr());
    Said { exit, reason: String::new() }
}
