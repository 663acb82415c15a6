//! `postroom run` for `kind: archive`: the store and its committer, a session for each mailbox, the
//! progress, and the balance at the end.

mod progress;
mod words;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use indicatif::MultiProgress;

use self::progress::Progress;
use self::words::{preview_json, preview_text, report, say_hint};
use super::answer::print;
use super::unix_now;
use crate::archive::balance::Balance;
use crate::archive::committer::{self, Desk};
use crate::archive::retrieve::{self, Mailbox};
use crate::archive::session::{SessionError, Stop};
use crate::archive::shelf::Shelf;
use crate::archive::store::{self, Store, StoreError};
use crate::archive::{Known, index, quarantine};
use crate::diagnostic::with_causes;
use crate::exit::Exit;
use crate::job::{ArchiveJob, Deletion, MailboxSpec};
use crate::net::transcript::Transcript;
use crate::net::{Dialer, NetError, token};
use crate::secret::Secret;

/// How a run is to go.
#[derive(Default, Clone)]
pub struct Options {
    /// Only what went wrong is said.
    pub quiet: bool,
    /// The summary is one JSON object a mailbox.
    pub json: bool,
    /// At most so many messages are fetched from each mailbox.
    pub limit: Option<u64>,
    /// This many deletions are agreed to, though they are more than `max_fraction`.
    pub confirm_deletions: Option<u64>,
    /// Where the dialogues are written down.
    pub trace: Option<Transcript>,
    /// Whether to stop.
    pub stop: Stop,
    /// Where the bars of jobs that run together are drawn.
    pub bars: MultiProgress,
}

/// Carries out several jobs at once. Those that share a store or a mailbox take turns: a store has one
/// writer, and a server gives a mailbox to one session at a time.
pub fn run_all(jobs: &[Box<ArchiveJob>], options: &Options) -> Exit {
    let turns = turns(jobs);
    let take = &|turn: &[&ArchiveJob]| -> Exit {
        let begun = turn.iter().enumerate().take_while(|(at, _)| *at == 0 || !options.stop.asked());
        begun.fold(Exit::Done, |worst, (_, job)| worst.or_worse(run(job, options)))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = turns.iter().map(|turn| scope.spawn(move || take(turn))).collect();
        let exits = threads.into_iter().map(|thread| thread.join().unwrap_or(Exit::Bug));
        exits.fold(Exit::Done, Exit::or_worse)
    })
}

/// The jobs in lists of which each is done one after the other.
fn turns(jobs: &[Box<ArchiveJob>]) -> Vec<Vec<&ArchiveJob>> {
    let shares = |a: &ArchiveJob, b: &ArchiveJob| {
        let has = |other: &MailboxSpec| a.mailboxes.iter().any(|one| one.name == other.name);
        a.store == b.store || b.mailboxes.iter().any(has)
    };
    let mut turns: Vec<Vec<&ArchiveJob>> = Vec::new();
    for job in jobs {
        // One that shares with two makes them take turns, too.
        let shared = |turn: &mut Vec<&ArchiveJob>| turn.iter().any(|other| shares(other, job));
        let mut turn: Vec<&ArchiveJob> = turns.extract_if(.., shared).flatten().collect();
        turn.push(job);
        turns.push(turn);
    }
    turns
}

/// Archives the mailboxes of a job. Warnings and progress go to stderr, the balance to stdout.
pub fn run(job: &ArchiveJob, options: &Options) -> Exit {
    let begun = Instant::now();
    let opened = Store::open(&job.store, job.layout, unix_now(), |damage| {
        let store = job.store.display();
        say!(Warning, "{damage}; `postroom verify {store}` tells more, `postroom rebuild {store}` mends it");
    });
    let mut store = match opened {
        Ok(store) => store,
        Err(error) => {
            say(&error);
            return store_exit(&error);
        }
    };
    let index = index::Builder::start(&job.store);
    let known = store.known();
    let (desk, queue) = Desk::new();
    let (mailboxes, mut exits) = mailboxes(job, &store, &desk, options);
    drop(desk);
    let counts = mailboxes.iter().map(|mailbox| Arc::clone(&mailbox.counts)).collect();
    let progress = Progress::start(&job.name, counts, options);
    let (done, balances) = std::thread::scope(|scope| {
        let sessions: Vec<_> = mailboxes
            .into_iter()
            .map(|mailbox| {
                let (spec, name) = (mailbox.spec, Arc::clone(&mailbox.name));
                (spec, name, scope.spawn(move || retrieve::archive(&mailbox)))
            })
            .collect();
        let done = committer::serve(&mut store, &queue, unix_now, || index.more());
        let balances: Vec<_> = sessions
            .into_iter()
            .map(|(spec, name, thread)| (spec, name, thread.join().unwrap_or_else(|_| panicked())))
            .collect();
        (done, balances)
    });
    progress.finish();
    if let Err(error) = store.finish() {
        say(&error);
        exits.push(Exit::Io);
    }
    let outdated = |note: &quarantine::Note| {
        balances.iter().any(|(_, name, balance)| **name == *note.mailbox && balance.outdates(note))
    };
    let released = {
        let known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        quarantine::release(&job.store, &known, outdated)
    };
    if let Err(error) = released {
        say!(Warning, "cannot tidy the quarantine: {error}");
    }
    // The archive is complete without it; the next start goes on where it was left.
    if let Err(error) = index.finish(&options.stop) {
        say!(Warning, "cannot complete the index: {error}; `postroom rebuild` makes it anew");
    }
    let committed = done.last_commit.map(|at| at.duration_since(begun));
    for (spec, name, balance) in &balances {
        exits.push(report(job, spec, name, balance, committed, options));
    }
    exits.into_iter().fold(Exit::Done, Exit::or_worse)
}

/// The mailboxes that can be logged in to, and the exit codes of the others.
fn mailboxes<'a>(
    job: &'a ArchiveJob,
    store: &Store,
    desk: &Desk,
    options: &Options,
) -> (Vec<Mailbox<'a>>, Vec<Exit>) {
    let (mut prepared, mut exits) = (Vec::new(), Vec::new());
    for (number, spec) in (1..).zip(&job.mailboxes) {
        match look_at(job, spec, store.known(), desk, options) {
            Ok(mailbox) => prepared.push(Mailbox {
                limit: options.limit,
                folder: Some(store.folder()),
                trace: options.trace.as_ref().map(|trace| trace.connection(number)),
                ..mailbox
            }),
            Err(error) => {
                say!(Error, "{}: {error}", spec.name);
                say_hint(spec, &error);
                exits.push(exit(&error));
            }
        }
    }
    (prepared, exits)
}

/// A mailbox to be looked at; with a folder it can be archived.
pub(super) fn look_at<'a>(
    job: &'a ArchiveJob,
    spec: &'a MailboxSpec,
    known: Arc<Mutex<Known>>,
    desk: &Desk,
    options: &Options,
) -> Result<Mailbox<'a>, SessionError> {
    let (secret, dialer) = prepare(spec)?;
    Ok(Mailbox {
        spec,
        name: spec.name.as_str().into(),
        secret,
        dialer,
        delete: &job.delete,
        confirmed: options.confirm_deletions,
        limit: None,
        folder: None,
        known,
        desk: desk.clone(),
        counts: Arc::default(),
        stop: options.stop.clone(),
        trace: options.trace.clone(),
        now: unix_now,
    })
}

/// What a run would do, for `check`: mailboxes and store, in words or as a line of JSON.
pub(super) fn plan(job: &ArchiveJob, json: bool) -> String {
    if json {
        let mailboxes: Vec<&str> = job.mailboxes.iter().map(|mailbox| &*mailbox.name).collect();
        let plan = serde_json::json!({
            "job": job.name,
            "kind": "archive",
            "mailboxes": mailboxes,
            "store": job.store,
            "deletes": job.delete != Deletion::Never,
        });
        return format!("{plan}\n");
    }
    let (number, store) = (job.mailboxes.len(), job.store.display());
    let mailboxes = if number == 1 { "mailbox" } else { "mailboxes" };
    format!("{} · {number} {mailboxes}, into {store}\n", job.name)
}

/// What a run would delete now, for `check --connect`: by the same reckoning, with nothing fetched.
pub fn preview(job: &ArchiveJob, options: &Options) -> Exit {
    let mut worst = Exit::Done;
    let (desk, queue) = Desk::new();
    drop(queue);
    let looked = store::look(&job.store).and_then(|known| match known {
        Some(known) => Ok((known, Some(Shelf::of(&job.store)?))),
        None => Ok((Known::default(), None)),
    });
    let (known, shelf) = match looked {
        Ok((known, shelf)) => (Arc::new(Mutex::new(known)), shelf),
        Err(error) => {
            say(&error);
            return store_exit(&error);
        }
    };
    for spec in &job.mailboxes {
        let name = &spec.name;
        let listed = look_at(job, spec, Arc::clone(&known), &desk, options)
            .and_then(|mailbox| retrieve::preview(&mailbox, shelf.as_ref()));
        match listed {
            Ok(preview) => {
                let say = if options.json { preview_json } else { preview_text };
                worst = worst.or_worse(print(say(name, &preview)));
                if preview.too_many.is_some() {
                    worst = worst.or_worse(Exit::SomeFailed);
                }
            }
            Err(error) => {
                say!(Error, "{name}: {error}");
                say_hint(spec, &error);
                worst = worst.or_worse(exit(&error));
            }
        }
    }
    worst
}

/// Password and way of a mailbox; connects to nothing but a token server.
fn prepare(spec: &MailboxSpec) -> Result<(Secret, Dialer), SessionError> {
    let secret = token::fetch(&spec.auth)
        .map(|access| access.secret)
        .map_err(|error| SessionError::Credential(with_causes(&error)))?;
    let dialer = Dialer::new(&spec.host, spec.port, &spec.tls, &spec.timeouts)?;
    Ok((secret, dialer.proxy(spec.proxy.as_deref())?))
}

fn panicked() -> Balance {
    Balance {
        error: Some(SessionError::Store(Arc::new(StoreError::Poisoned))),
        warnings: vec!["the session ended by a mistake of this program".to_owned()],
        ..Balance::default()
    }
}

fn say(error: &StoreError) {
    say!(Error, "{}", with_causes(error));
}

/// The exit code of what ended a session.
pub(super) fn exit(error: &SessionError) -> Exit {
    match error {
        SessionError::Net(NetError::File { .. } | NetError::Setting(_)) => Exit::Job,
        SessionError::Net(_) | SessionError::Closed(_) | SessionError::Silent(..) => Exit::Unavailable,
        SessionError::Muddled
        | SessionError::NotAReply(_)
        | SessionError::EndlessLine(_)
        | SessionError::EndlessList(_)
        | SessionError::Refused { .. } => Exit::Protocol,
        SessionError::Busy(_) => Exit::Again,
        SessionError::Login { .. }
        | SessionError::NoMechanism(_)
        | SessionError::Sasl(_)
        | SessionError::NoApop
        | SessionError::NoStls
        | SessionError::Credential(_) => Exit::Login,
        SessionError::Unprotected | SessionError::NotALine(_) => Exit::Job,
        SessionError::Store(error) => store_exit(error),
        SessionError::Stopped => Exit::Interrupted,
    }
}

/// The exit code of a trouble with the store.
pub(super) fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::Locked(_) => Exit::Again,
        StoreError::Io { .. } | StoreError::NoRoom { .. } | StoreError::Poisoned => Exit::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{self, Environment, Job};

    /// An archive of the mailbox of `user`, into `store`.
    fn archive(folder: &std::path::Path, name: &str, store: &str, user: &str) -> Box<ArchiveJob> {
        let file = folder.join(format!("{name}.yaml"));
        let job = format!(
            "kind: archive\nname: {name}\nstore: s{store}\n\
             mailbox: {{host: 127.0.0.1, tls: none, auth: {{user: {user}, password: {{env: P}}}}}}\n"
        );
        std::fs::write(&file, job).unwrap();
        match job::read(&file, &Environment::fixed(folder, &[("P", "secret")])) {
            Ok(Job::Archive(job)) => job,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn jobs_that_share_a_store_or_a_mailbox_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let job = |name, store, user| archive(folder.path(), name, store, user);
        for (jobs, expected) in [
            (vec![job("a", "1", "x"), job("b", "2", "y")], vec!["a", "b"]),
            (vec![job("a", "1", "x"), job("b", "1", "y"), job("c", "3", "z")], vec!["a b", "c"]),
            (vec![job("a", "1", "x"), job("b", "2", "x")], vec!["a b"]),
            // The third shares with both.
            (vec![job("a", "1", "x"), job("b", "2", "y"), job("c", "2", "x")], vec!["a b c"]),
        ] {
            let names = |turn: Vec<&ArchiveJob>| {
                turn.iter().map(|job| job.name.as_str()).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(turns(&jobs).into_iter().map(names).collect::<Vec<_>>(), expected);
        }
    }
}
