//! `postroom run` for `kind: archive`: the store and its committer, a session for each mailbox, the
//! progress, and the balance at the end.

use std::io::IsTerminal as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::answer::print;
use super::show::safe_line;
use super::unix_now;
use crate::archive::balance::Balance;
use crate::archive::committer::{self, Counts, Desk};
use crate::archive::listing::TooMany;
use crate::archive::retrieve::{self, Mailbox, Preview};
use crate::archive::session::{SessionError, Stop};
use crate::archive::store::{self, Shelf, Store, StoreError};
use crate::archive::{Known, index, quarantine};
use crate::diagnostic::with_causes;
use crate::exit::Exit;
use crate::job::{ArchiveJob, Deletion, MailboxSpec, preset};
use crate::measure::ByteSize;
use crate::net::transcript::Transcript;
use crate::net::{Dialer, NetError, token};
use crate::secret::Secret;
use crate::talk;

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
    let folder = store.folder();
    let known = store.known();
    let (desk, queue) = Desk::new();
    let mut prepared = Vec::new();
    let mut exits = Vec::new();
    for (number, spec) in (1..).zip(&job.mailboxes) {
        let counts = Arc::new(Counts::default());
        match prepare(spec) {
            Ok((secret, dialer)) => prepared.push(Mailbox {
                spec,
                name: spec.name.as_str().into(),
                secret,
                dialer,
                delete: &job.delete,
                confirmed: options.confirm_deletions,
                limit: options.limit,
                folder: Some(Arc::clone(&folder)),
                known: Arc::clone(&known),
                desk: desk.clone(),
                counts,
                stop: options.stop.clone(),
                trace: options.trace.as_ref().map(|trace| trace.connection(number)),
                now: unix_now,
            }),
            Err(error) => {
                say!(Error, "{}: {error}", spec.name);
                say_hint(spec, &error);
                exits.push(exit(&error));
            }
        }
    }
    drop(desk);
    let all: Vec<Arc<Counts>> = prepared.iter().map(|mailbox| Arc::clone(&mailbox.counts)).collect();
    let progress = Progress::start(&job.name, all, options);
    let (done, balances) = std::thread::scope(|scope| {
        let sessions: Vec<_> = prepared
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
        let listed = prepare(spec).and_then(|(secret, dialer)| {
            let mailbox = Mailbox {
                spec,
                name: name.as_str().into(),
                secret,
                dialer,
                delete: &job.delete,
                confirmed: options.confirm_deletions,
                limit: None,
                folder: None,
                known: Arc::clone(&known),
                desk: desk.clone(),
                counts: Arc::default(),
                stop: options.stop.clone(),
                trace: options.trace.clone(),
                now: unix_now,
            };
            retrieve::preview(&mailbox, shelf.as_ref())
        });
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

fn preview_text(name: &str, preview: &Preview) -> String {
    let Preview { listing, due, too_many } = preview;
    let bytes: u64 = listing.iter().map(|listed| listed.size).sum();
    let mut text = format!("{name}: {} messages, {}\n", listing.len(), ByteSize(bytes));
    match too_many {
        None if due.is_empty() => text.push_str("  nothing is due for deletion\n"),
        None => text.push_str(&format!("  {} messages would be deleted:\n", due.len())),
        Some(TooMany { due, allowed }) => text.push_str(&format!(
            "  {due} messages are due for deletion, above max_fraction ({allowed} at once): a run refuses without \
             --confirm-deletions {due}\n"
        )),
    }
    for listed in due.iter().filter_map(|&index| listing.get(index)) {
        let uidl = safe_line(listed.uidl.as_deref().unwrap_or("-"));
        let size = ByteSize(listed.size).to_string();
        text.push_str(&format!("  {:>7} {size:>9} {uidl}\n", listed.number));
    }
    text
}

fn preview_json(name: &str, preview: &Preview) -> String {
    let due = preview.due.iter().filter_map(|&index| preview.listing.get(index));
    let due: Vec<_> = due
        .map(|listed| serde_json::json!({"number": listed.number, "uidl": listed.uidl, "size": listed.size}))
        .collect();
    let object = serde_json::json!({
        "mailbox": name,
        "on_server": preview.listing.len(),
        "bytes": preview.listing.iter().map(|listed| listed.size).sum::<u64>(),
        "due": due,
        "refused_above": preview.too_many.map(|too_many| too_many.allowed),
    });
    format!("{object}\n")
}

/// Password and way of a mailbox; connects to nothing but a token server.
pub(super) fn prepare(spec: &MailboxSpec) -> Result<(Secret, Dialer), SessionError> {
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

fn say_hint(spec: &MailboxSpec, error: &SessionError) {
    if let SessionError::Login { .. } = error
        && let Some(hint) = login_hint(spec)
    {
        say!(Help, "{hint}");
    }
}

/// The provider whose ways are known: the one the job names, else the one whose host this is.
fn preset_of(spec: &MailboxSpec) -> Option<&'static preset::Preset> {
    spec.provider.as_deref().and_then(preset::find).or_else(|| preset::of_host(&spec.host))
}

fn login_hint(spec: &MailboxSpec) -> Option<&'static str> {
    preset_of(spec).map(|preset| preset.login)
}

fn listing_hint(spec: &MailboxSpec) -> Option<&'static str> {
    preset_of(spec).and_then(|preset| preset.listing)
}

/// Says what became of a mailbox; gives its exit code.
fn report(
    job: &ArchiveJob,
    spec: &MailboxSpec,
    name: &str,
    balance: &Balance,
    committed: Option<Duration>,
    options: &Options,
) -> Exit {
    for warning in &balance.warnings {
        say!(Warning, "{name}: {}", safe_line(warning));
    }
    for failure in &balance.failed {
        let uidl = failure.uidl.as_deref().unwrap_or("-");
        let text = format!("message {} ({uidl}): {}", failure.number, failure.reason);
        say!(Failed, "{name}: {}", safe_line(&text));
    }
    if let Some(too_many) = &balance.too_many {
        say!(
            Error,
            "{name}: {} messages are due for deletion, {} at once are allowed by max_fraction; nothing was \
             deleted. If that is right: --confirm-deletions {}",
            too_many.due,
            too_many.allowed,
            too_many.due
        );
    }
    if let Some(error) = &balance.error {
        let source = match error {
            SessionError::Store(store) => std::error::Error::source(&**store).map(ToString::to_string),
            _ => None,
        };
        let text = format!("{error}{}", source.map(|text| format!(": {text}")).unwrap_or_default());
        say!(Error, "{name}: {}", safe_line(&text));
        say_hint(spec, error);
    }
    // A mailbox that shows nothing may be one that shows POP3 only a part.
    if balance.on_server == Some(0)
        && let Some(hint) = listing_hint(spec)
    {
        say!(Help, "{name}: {hint}");
    }
    let text = if options.json {
        balance_json(name, balance, committed)
    } else {
        balance_text(job, name, balance, committed)
    };
    let said = if options.quiet && !options.json { Exit::Done } else { print(text) };
    match &balance.error {
        Some(error) => exit(error),
        None if !balance.is_complete() => said.or_worse(Exit::SomeFailed),
        None => said,
    }
}

fn balance_text(job: &ArchiveJob, name: &str, balance: &Balance, committed: Option<Duration>) -> String {
    let Some(on_server) = balance.on_server else { return format!("{name}: nothing was listed\n") };
    let mut text = format!(
        "{name}: {on_server} on the server = {} new + {} known + {} duplicate + {} skipped + {} failed",
        balance.new,
        balance.known,
        balance.duplicate,
        balance.skipped,
        balance.failed.len()
    );
    if balance.unaccounted() > 0 {
        text.push_str(&format!(" + {} left", balance.unaccounted()));
    }
    text.push('\n');
    if balance.unlisted > 0 {
        text.push_str(&format!("  {} more are counted by the server and not listed\n", balance.unlisted));
    }
    if balance.new + balance.duplicate > 0 {
        let time = committed.map(|time| format!(", the last committed after {:.2} s", time.as_secs_f64()));
        text.push_str(&format!("  {} received{}\n", ByteSize(balance.bytes), time.unwrap_or_default()));
    }
    if balance.deleted > 0 {
        text.push_str(&format!("  {} deleted on the server, as this listing shows\n", balance.deleted));
    }
    if balance.deleting > 0 {
        text.push_str(&format!(
            "  {} deletions accepted by the server; the next listing will show whether they are done\n",
            balance.deleting
        ));
    }
    if balance.refused > 0 {
        text.push_str(&format!("  {} deletions refused by the server\n", balance.refused));
    }
    text.push_str(&format!("  {}\n", job.store.display()));
    text
}

fn balance_json(name: &str, balance: &Balance, committed: Option<Duration>) -> String {
    let failed: Vec<_> = balance
        .failed
        .iter()
        .map(|failure| {
            serde_json::json!({"number": failure.number, "uidl": failure.uidl, "reason": failure.reason})
        })
        .collect();
    let object = serde_json::json!({
        "mailbox": name,
        "on_server": balance.on_server,
        "new": balance.new,
        "known": balance.known,
        "duplicate": balance.duplicate,
        "skipped": balance.skipped,
        "failed": failed,
        "left": balance.unaccounted(),
        "unlisted": balance.unlisted,
        "bytes": balance.bytes,
        "deletions_accepted": balance.deleting,
        "deletions_done": balance.deleted,
        "deletions_refused": balance.too_many.map(|too_many| too_many.due),
        "deletions_refused_by_server": balance.refused,
        "last_commit_seconds": committed.map(|time| time.as_secs_f64()),
        "warnings": balance.warnings,
        "error": balance.error.as_ref().map(ToString::to_string),
    });
    format!("{object}\n")
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

/// What is seen while it runs: a bar on a terminal, elsewhere a line now and then, with `--quiet` nothing.
struct Progress {
    over: crossbeam_channel::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// What is seen as long as no mailbox is open.
const OUTSIDE: &str = "waiting for the server to let us in";
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    fn start(job: &str, counts: Vec<Arc<Counts>>, options: &Options) -> Progress {
        let (over, end) = crossbeam_channel::bounded(0);
        let (job, bars, quiet) = (job.to_owned(), options.bars.clone(), options.quiet);
        let thread = std::thread::spawn(move || {
            if quiet {
                return;
            }
            let sum = |pick: fn(&Counts) -> u64| counts.iter().map(|counts| pick(counts)).sum::<u64>();
            let all = || {
                (
                    sum(|counts| counts.received.load(Relaxed)),
                    sum(|counts| counts.wanted.load(Relaxed)),
                    sum(|counts| counts.received_bytes.load(Relaxed)),
                    sum(|counts| counts.wanted_bytes.load(Relaxed)),
                )
            };
            // A wrong port may be the reason, and a server is given minutes.
            let outside = || counts.iter().all(|counts| !counts.entered.load(Relaxed));
            if std::io::stderr().is_terminal() && !talk::is_json() {
                let bar = bars.add(ProgressBar::new(0)).with_prefix(job);
                let style = ProgressStyle::with_template(
                    "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg} {eta} left",
                );
                if let Ok(style) = style {
                    bar.set_style(style);
                }
                while end.recv_timeout(Duration::from_millis(100)).is_err_and(|error| error.is_timeout()) {
                    let (received, wanted, bytes, wanted_bytes) = all();
                    bar.set_length(wanted_bytes);
                    bar.set_position(bytes);
                    bar.set_message(match outside() {
                        true => OUTSIDE.to_owned(),
                        false => format!("{received}/{wanted} messages"),
                    });
                }
                bar.finish_and_clear();
                return;
            }
            let begun = Instant::now();
            while end.recv_timeout(LINE_EVERY).is_err_and(|error| error.is_timeout()) {
                let (received, wanted, bytes, wanted_bytes) = all();
                if talk::is_json() {
                    let facts = serde_json::json!({
                        "job": job, "received": received, "wanted": wanted, "bytes": bytes,
                        "wanted_bytes": wanted_bytes, "away": outside(),
                    });
                    talk::event("progress", facts);
                    continue;
                }
                if outside() {
                    eprintln!("{job}: {OUTSIDE}");
                    continue;
                }
                let left = match bytes {
                    0 => "unknown".to_owned(),
                    _ => format!(
                        "{:.0} s",
                        begun.elapsed().as_secs_f64() * wanted_bytes.saturating_sub(bytes) as f64
                            / bytes as f64
                    ),
                };
                eprintln!(
                    "{job}: {received} of {wanted} messages, {} of {}, time left: {left}",
                    ByteSize(bytes),
                    ByteSize(wanted_bytes)
                );
            }
        });
        Progress { over, thread }
    }

    fn finish(self) {
        drop(self.over);
        // A display that failed has nothing to tell.
        let _ = self.thread.join();
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
