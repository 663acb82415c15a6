//! One file per command; wires the rooms together and owns no craft.

mod accounts;
mod answer;
pub mod archive;
mod begin;
mod book;
mod check;
mod enlist;
pub mod export;
pub mod find;
mod flag;
pub mod init;
mod kept;
mod last_words;
mod ledger_file;
mod letters;
mod notify;
mod only;
mod progress;
mod question;
pub mod rebuild;
mod report;
pub mod sandbox;
pub mod schema;
mod send;
pub mod show;
mod signals;
mod source;
mod stop;
mod trial;
mod upkeep;
pub mod verify;

use crate::archive::session::Stop;
use crate::cli::{self, Cli, Command};
use crate::diagnostic::{self, Diagnostic, Level};
use crate::exit::Exit;
use crate::job::{self, Environment, Flawed, Job};
use crate::net::transcript::Transcript;
use crate::talk;

use signals::Signals;

/// Runs the command line; stdout is the answer, stderr the talk.
pub fn main() -> Exit {
    let cli = match Cli::from_args() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    if cli.global.log == cli::LogForm::Json {
        talk::begin_json();
    }
    if cli.global.quiet {
        talk::begin_quiet();
    }
    match &cli.command {
        Command::Run(args) => run(args, &cli.global),
        Command::Check(args) => check(args, &cli.global),
        Command::Init(args) => init::init(&args.dir),
        Command::Sandbox(args) => sandbox::run(args),
        Command::Show(args) => show::run(args),
        Command::Verify(args) => verify(args, &cli.global),
        Command::Find(args) => find::run(args),
        Command::Export(args) => export::run(args),
        Command::Rebuild(args) => rebuild::run(args),
        Command::Schema(_) => schema::schema(),
        Command::Completions(args) => schema::completions(args),
        Command::Man(args) => schema::man(args),
        Command::Report(args) => book::report(args, &cli.global),
        Command::Requeue(args) => book::requeue(args, &cli.global),
        Command::Stop(args) => book::flag(args, flag::stop, &cli.global),
        Command::Pause(args) => book::flag(args, flag::pause, &cli.global),
        Command::Resume(args) => book::flag(args, flag::resume, &cli.global),
        Command::Forget(args) => book::forget(args, &cli.global),
        Command::Prune(args) => book::prune(args, &cli.global),
    }
}

/// `postroom run`: all job files are read before the first is carried out.
fn run(args: &cli::Run, global: &cli::Global) -> Exit {
    let jobs = match read(&args.jobs, global) {
        Ok(jobs) => jobs,
        Err(exit) => return exit,
    };
    if let Some(exit) = meaningless(&jobs, args) {
        return exit;
    }
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            talk::error(&format!("cannot listen to signals: {error}"));
            return Exit::Bug;
        }
    };
    for job in &jobs {
        // A job that sends tells its own when its turn comes.
        if let Job::Archive(job) = job {
            warn(&job.warnings, global);
        }
    }
    let mut worst = Exit::Done;
    let mut jobs = jobs.into_iter().peekable();
    while let Some(job) = jobs.next() {
        let exit = match job {
            Job::Send(job) => send::run(*job, args, global, &signals),
            Job::Archive(job) if args.sandbox => match trial::of(*job) {
                Ok(trial) => archive::run(&trial.job, &archiving(args, global, &signals)),
                Err(error) => {
                    talk::error(&format!("the sandbox does not start: {error}"));
                    Exit::Io
                }
            },
            Job::Archive(job) if !job.absent.is_empty() => refuse(&job.absent, global),
            Job::Archive(job) => {
                // Archives that stand next to one another on the command line are made together.
                let mut together = vec![job];
                while let Some(Job::Archive(next)) = jobs.next_if(complete_archive) {
                    together.push(next);
                }
                archive::run_all(&together, &archiving(args, global, &signals))
            }
        };
        worst = worst.or_worse(exit);
        if let Some(exit) = signals.exit() {
            return exit;
        }
    }
    worst
}

/// Refuses what a job would pass over in silence: somebody relies on it.
fn meaningless(jobs: &[Job], args: &cli::Run) -> Option<Exit> {
    let archive = jobs.iter().find_map(|job| match job {
        Job::Archive(job) => Some(job),
        Job::Send(_) => None,
    });
    if args.report.is_some() && jobs.len() > 1 {
        talk::error(
            "--report is for one job: of several the last one's report would take the place of the others'",
        );
        return Some(Exit::Usage);
    }
    let Some(archive) = archive else {
        args.confirm_deletions?;
        talk::error("--confirm-deletions is for jobs that archive, and none of these does");
        return Some(Exit::Usage);
    };
    // Beside a job that sends, what is meant for it is no mistake.
    let alone = jobs.iter().all(|job| matches!(job, Job::Archive(_)));
    let given = [
        ("--report", args.report.is_some(), "its summary goes to stdout, with --log json as JSON"),
        ("--to", args.to.is_some(), "it sends nothing"),
        ("--edition", args.edition.is_some(), "it has no editions"),
        ("--new-edition", alone && args.new_edition, "it has no editions"),
        ("--accept-changes", alone && args.accept_changes, "it has no editions"),
        ("--only", alone && !args.only.is_empty(), "it has no recipients"),
        ("--strict", alone && args.strict, "it has no recipients"),
    ];
    let (option, _, why) = given.into_iter().find(|(_, given, _)| *given)?;
    talk::error(&format!("{option} is for jobs that send, and {} archives: {why}", archive.name));
    Some(Exit::Usage)
}

/// An archive that can be made: its files are there.
fn complete_archive(job: &Job) -> bool {
    matches!(job, Job::Archive(job) if job.absent.is_empty())
}

/// Tells what is worth knowing and stops nothing.
fn warn(warnings: &[Diagnostic], global: &cli::Global) {
    if !talk::is_quiet() {
        talk::diagnostics(warnings, global.color.on_stderr());
    }
}

/// Tells mistakes, or files that are missing.
fn refuse(mistakes: &[Diagnostic], global: &cli::Global) -> Exit {
    // With --quiet what is only warned of is not said beside a mistake either.
    let said: Vec<_> =
        mistakes.iter().filter(|one| !talk::is_quiet() || one.level == Level::Error).cloned().collect();
    talk::diagnostics(&said, global.color.on_stderr());
    diagnostic::exit(mistakes)
}

/// `postroom verify`: the job of `--server` is read first.
fn verify(args: &cli::Verify, global: &cli::Global) -> Exit {
    let jobs = match read(args.server.as_slice(), global) {
        Ok(jobs) => jobs,
        Err(exit) => return exit,
    };
    match jobs.first() {
        Some(Job::Archive(job)) => verify::run(args, Some(job)),
        Some(Job::Send(_)) => {
            talk::error("--server wants a job of `kind: archive`");
            Exit::Usage
        }
        None => verify::run(args, None),
    }
}

/// How an archiving job is to go.
fn archiving(args: &cli::Run, global: &cli::Global, signals: &Signals) -> archive::Options {
    archive::Options {
        quiet: talk::is_quiet(),
        json: global.log == cli::LogForm::Json,
        limit: args.limit,
        confirm_deletions: args.confirm_deletions,
        trace: args.trace.then(Transcript::stderr),
        stop: Stop::counting(signals.count()),
        bars: indicatif::MultiProgress::new(),
    }
}

/// `postroom check`: whatever is wrong with one job, all are looked at.
fn check(args: &cli::Check, global: &cli::Global) -> Exit {
    let environment = match environment() {
        Ok(environment) => environment,
        Err(exit) => return exit,
    };
    let checks = args.jobs.iter().map(|path| match job::examine(path, &environment) {
        Ok(Job::Send(job)) => check::check(*job, args, global),
        Ok(Job::Archive(job)) if !job.absent.is_empty() => {
            refuse(&[&job.absent[..], &job.warnings].concat(), global)
        }
        Ok(Job::Archive(job)) => {
            warn(&job.warnings, global);
            check_archive(&job, args)
        }
        Err(Flawed { mut mistakes, job }) => {
            mistakes.extend(job.map(mistakes_behind).unwrap_or_default());
            mistakes.sort_by_key(|mistake| std::cmp::Reverse(mistake.level));
            refuse(&mistakes, global)
        }
    });
    checks.fold(Exit::Done, Exit::or_worse)
}

fn check_archive(job: &job::ArchiveJob, args: &cli::Check) -> Exit {
    if args.connect {
        let trace = args.trace.then(Transcript::stderr);
        return archive::preview(job, &archive::Options { json: args.json, trace, ..Default::default() });
    }
    answer::print(archive::plan(job, args.json))
}

/// What else is wrong with a job whose file has mistakes.
fn mistakes_behind(job: Job) -> Vec<Diagnostic> {
    match job {
        Job::Send(job) => check::behind(*job),
        Job::Archive(job) => job.absent,
    }
}

/// Reads job files; the mistakes of all of them are shown.
fn read(paths: &[std::path::PathBuf], global: &cli::Global) -> Result<Vec<Job>, Exit> {
    let environment = environment()?;
    let (mut jobs, mut exit) = (Vec::new(), Exit::Done);
    for path in paths {
        match job::read(path, &environment) {
            Ok(job) => jobs.push(job),
            Err(mistakes) => exit = exit.or_worse(refuse(&mistakes, global)),
        }
    }
    if exit == Exit::Done { Ok(jobs) } else { Err(exit) }
}

/// What job files are read in.
fn environment() -> Result<Environment, Exit> {
    Environment::process().map_err(|error| {
        talk::error(&format!("cannot tell which folder this is: {error}"));
        Exit::Io
    })
}

/// Unix seconds.
fn unix_now() -> i64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
