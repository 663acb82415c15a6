//! `postroom run` for a job that sends: plan, edition, enlisting, the question, the engine, the summary.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::unbounded;

use crate::cli;
use crate::diagnostic::{self, Diagnostic, with_causes};
use crate::dispatch::core::{Config, Doubt, End};
use crate::dispatch::{Ended, Engine, Trouble};
use crate::exit::Exit;
use crate::job::{DomainLimit, RelaySpec, SendJob, TlsMode, preset};
use crate::ledger::{Counts, Domains, Edition, Enlisting, Flag, Ledger, Queue, RunLock, Sqlite, State};
use crate::letter::Purpose;
use crate::measure;
use crate::net::transcript::Transcript;
use crate::plan::Plan;
use crate::sandbox;
use crate::submit::{Accounts, SubmitError, Submitter};
use crate::talk;

use super::kept::{self, Kept};
use super::last_words::{last_words, report_can_be_written};
use super::letters::Letters;
use super::notify::{self, Kind};
use super::only::Only;
use super::progress::Show;
use super::signals::{Doing, Signals};
use super::stop::Stop;
use super::{accounts, begin, ledger_file, question, source};

/// Most letters that a crash may leave unsure, where the job does not say.
const DOUBT: Doubt = Doubt { least: 256, most: 1024 };

/// Letters made ahead of the wire.
const AHEAD: usize = 256;

/// Bytes of letters made ahead of the wire.
const AHEAD_BYTES: usize = 24 << 20;

const STOPPED: &str = "stopped by `postroom stop`; the next run takes it up again";

/// Deliveries claimed at once.
const CLAIMED: usize = 512;

/// Carries out a sending job.
pub(super) fn run(job: SendJob, args: &cli::Run, global: &cli::Global, signals: &Signals) -> Exit {
    let name = job.name.clone();
    signals.find(Doing::Preparation);
    let ended = carry_out(job, args, global, signals);
    signals.find(Doing::Work);
    match ended {
        Ok(exit) => exit,
        Err(stop) => {
            talk::error(&format!("{name}: {}", stop.words));
            stop.exit
        }
    }
}

fn carry_out(
    mut job: SendJob,
    args: &cli::Run,
    global: &cli::Global,
    signals: &Signals,
) -> Result<Exit, Stop> {
    let purpose = match (args.sandbox, &args.to) {
        (true, _) => Purpose::Sandbox,
        (false, Some(_)) => Purpose::Redirected,
        (false, None) => Purpose::Real,
    };
    let asks = purpose != Purpose::Sandbox && !args.yes;
    can_be_sent(&job, purpose, asks, global)?;
    super::warn(&job.warnings, global);

    let path = ledger_file::path(&job, purpose);
    if purpose == Purpose::Real {
        tell_of_a_new_ledger(&job, &path);
    }
    let mut ledger = Sqlite::open(&path)?;
    let mut lock = ledger.lock(&job.name, purpose)?;
    if let Some(path) = &args.report {
        report_can_be_written(path)?;
    }
    // Whom a stop was said to is gone; what is said from here on is for this run.
    ledger.set_flag(&job.name, purpose, Flag::Stop, false)?;
    let relay = relay_of(&mut job, purpose)?;
    let opened = begin::open_list(&job, &ledger, purpose, args, global)?;
    let columns = opened.columns();
    let mut plan = Plan::lay(job, columns.as_deref(), purpose, args.to.clone())
        .map_err(|mistakes| refused(&mistakes, global))?;
    super::warn(plan.templates().warnings(), global);
    super::warn(&source::empty_suppress_lists(&plan.job), global);
    if purpose != Purpose::Real && ledger_file::is_stale(&plan, &ledger)? {
        (ledger, lock) = another_trial(ledger, lock, &plan, &relay)?;
    }
    let edition = begin::edition(&plan, &mut ledger, args)?;
    plan.set_now(edition.begun);
    let plan = Arc::new(plan);
    // First of all: whoever was being written to and has left the list since gets no letter again.
    let unsure = ledger.recover(edition.id, plan.job.relay.unsure)?;
    let (edition, enlisting) = begin::take_in(&plan, &mut ledger, edition, opened, args)?;
    begin::name_doubtful(&unsure);

    let kept = kept::of(&plan, &edition, &ledger)?.map(Arc::new);
    let (plan, edition, enlisting) = (&plan, &edition, enlisting.as_ref());
    let sending = Sending { plan, edition, enlisting, relay: &relay, args, signals, kept };
    let counts = ledger.reader()?.counts(edition.id)?;
    if counts.open() == 0 {
        return sending.nothing_to_send(ledger, &counts, lock);
    }
    if asks && !sending.is_agreed_to(&ledger, &counts)? {
        return Err(Stop::new(Exit::Usage, "nothing was sent"));
    }
    let ended = sending.send(ledger, counts.open());
    kept::close(sending.kept.as_deref());
    sending.close(ended?, lock)
}

/// Whether somebody can be asked, and everything is there that real mail needs.
fn can_be_sent(job: &SendJob, purpose: Purpose, asks: bool, global: &cli::Global) -> Result<(), Stop> {
    if asks && !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Stop::new(
            Exit::Usage,
            "there is no terminal to ask whether to send: say --yes, or try it with --sandbox",
        ));
    }
    // A trial needs neither certificates nor secrets.
    if purpose != Purpose::Sandbox && !job.absent.is_empty() {
        return Err(refused(&job.absent, global));
    }
    Ok(())
}

/// Whoever has lost the old one, or stands in another project than they think, can still say no.
fn tell_of_a_new_ledger(job: &SendJob, path: &Path) {
    if path.try_exists().is_ok_and(|is_there| !is_there) {
        let path = path.display();
        talk::note(&format!("{}: a new ledger is begun, {path}: nobody has got anything yet", job.name));
    }
}

/// A trial that is over, or of another letter, makes room for the next one.
fn another_trial(
    ledger: Sqlite,
    lock: RunLock,
    plan: &Plan,
    relay: &Relay,
) -> Result<(Sqlite, RunLock), Stop> {
    let path = ledger.path().to_owned();
    drop((ledger, lock));
    ledger_file::remove(&path)?;
    let ledger = Sqlite::open(&path)?;
    let lock = ledger.lock(&plan.job.name, plan.purpose)?;
    if let Some((embedded, outbox)) = &relay.embedded {
        embedded
            .empty_outbox()
            .map_err(|error| Stop::new(Exit::Io, format!("cannot empty {}: {error}", outbox.display())))?;
    }
    Ok((ledger, lock))
}

fn refused(mistakes: &[Diagnostic], global: &cli::Global) -> Stop {
    talk::diagnostics(mistakes, global.color.on_stderr());
    Stop::new(diagnostic::exit(mistakes), "nothing was sent")
}

/// The relay letters go to, and the embedded one, where it is that.
struct Relay {
    spec: RelaySpec,
    embedded: Option<(sandbox::Relay, PathBuf)>,
}

fn relay_of(job: &mut SendJob, purpose: Purpose) -> Result<Relay, Stop> {
    if purpose != Purpose::Sandbox {
        return Ok(Relay { spec: job.relay.clone(), embedded: None });
    }
    let outbox = job.root.join("outbox").join(&job.name);
    let options = sandbox::Options { outbox: Some(outbox.clone()), ..sandbox::Options::default() };
    let embedded = sandbox::Relay::start(options)
        .map_err(|error| Stop::new(Exit::Io, format!("the sandbox does not start: {error}")))?;
    let spec = RelaySpec {
        host: embedded.address().ip().to_string(),
        port: embedded.port(),
        tls: crate::job::TlsSpec { mode: TlsMode::None, ..job.relay.tls.clone() },
        auth: None,
        proxy: None,
        local_address: None,
        fallback: None,
        rate: None,
        limits: Vec::new(),
        ..job.relay.clone()
    };
    Ok(Relay { spec, embedded: Some((embedded, outbox)) })
}

/// Shows what is about to happen and asks. Anything but yes is no.
fn ask(plan: &Plan, edition: &Edition, open: u64, bad: u64, relay: &Relay) -> Result<bool, Stop> {
    let letters = if open == 1 { "letter" } else { "letters" };
    let to = match &plan.redirect {
        Some(address) => format!("all to {address}"),
        None => "each to its recipient".to_owned(),
    };
    let pace = relay.spec.rate.map_or(String::new(), |rate| {
        let seconds = rate.per.as_secs_f64() / f64::from(rate.count) * open as f64;
        format!(", at {rate} about {}", measure::duration_words(seconds))
    });
    let bad = match bad {
        0 => String::new(),
        1 => "\n1 row is bad and gets no letter; `postroom check` names it".to_owned(),
        bad => format!("\n{bad} rows are bad and get no letter; `postroom check` names them"),
    };
    let question = format!(
        "{} · edition {} · from {}\n{open} {letters} by {}:{}, {to}{pace}{bad}\nSend?",
        plan.job.name, edition.name, plan.job.from, relay.spec.host, relay.spec.port,
    );
    question::ask(&question).map_err(|error| Stop::new(Exit::Io, format!("cannot ask: {error}")))
}

/// What a sending run is made of, once everything is known.
struct Sending<'a> {
    plan: &'a Arc<Plan>,
    edition: &'a Edition,
    enlisting: Option<&'a Enlisting>,
    relay: &'a Relay,
    args: &'a cli::Run,
    signals: &'a Signals,
    kept: Option<Arc<Kept>>,
}

impl Sending<'_> {
    /// Says why nobody gets a letter, and ends the edition.
    fn nothing_to_send(&self, mut ledger: Sqlite, counts: &Counts, lock: RunLock) -> Result<Exit, Stop> {
        let (plan, edition) = (self.plan, self.edition);
        kept::close(self.kept.as_deref());
        let begun = edition.finished_at.is_none() && self.enlisting.is_some();
        let had = counts.of(State::Accepted) + counts.of(State::Unsure);
        let words = match begun && had == 0 {
            true => "nobody on the list gets a letter".to_owned(),
            false => format!("edition {} is finished: there is nothing left to send", edition.name),
        };
        ledger.finish(edition.id, super::unix_now())?;
        talk::note(&format!("{}: {words}", plan.job.name));
        drop(lock);
        let standing = ledger.reader()?.standing(edition.id)?;
        let said = last_words(plan, &mut ledger, edition, &standing, self.enlisting, self.args);
        // Once for an edition: a run that died behind its last letter has told nobody.
        let trouble = notify::is_trouble(&standing);
        notify::tell(plan, &mut ledger, edition, &self.relay.spec, Kind::Finished, trouble, None);
        said
    }

    /// Whether the person at the terminal says yes.
    fn is_agreed_to(&self, ledger: &Sqlite, counts: &Counts) -> Result<bool, Stop> {
        let bad = counts.of(State::Failed) + ledger.reader()?.standing(self.edition.id)?.rejected;
        let mut letters = counts.open().min(self.args.limit.unwrap_or(u64::MAX));
        if !self.args.only.is_empty() {
            letters = letters.min(self.args.only.len() as u64);
        }
        self.signals.find(Doing::Question);
        let yes = ask(self.plan, self.edition, letters, bad, self.relay)?;
        self.signals.find(Doing::Preparation);
        Ok(yes)
    }

    /// Opens the pool and runs the engine; the ledger comes back with the end.
    fn send(&self, mut ledger: Sqlite, open: u64) -> Result<Ended<Sqlite>, Stop> {
        let spec = &self.relay.spec;
        let (config, now) = (self.config(), super::unix_now());
        // Under a clock that was set back since, what is due would be due in years.
        ledger.bring_forward(self.edition.id, now, now.saturating_add(config.longest_wait()))?;
        let maker = Letters::new(self.plan, self.edition, &ledger, self.kept.clone())?;
        let limits = spec.limits.clone();
        let queue = self.queue(&ledger)?;
        let first_due = queue.next_due(self.edition.id, i64::MIN)?;
        let (events, answers) = unbounded();
        let trace = self.args.trace.then(Transcript::stderr);
        let accounts = match &self.relay.embedded {
            Some(_) => Accounts::alone(),
            None => accounts::of_this_user(self.asked_to_stop(&ledger)?),
        };
        let submitter =
            Submitter::start(spec, &accounts, trace, events).map_err(|error| submit_trouble(&error, spec))?;
        let engine = Engine {
            config,
            maker: Arc::new(maker),
            edition: self.edition.id,
            job: (self.plan.job.name.clone(), self.plan.purpose),
            ledger,
            queue,
            domains: domains(&limits),
            submitter,
            answers,
            control: self.signals.control(),
            group_of: Arc::new(move |domain| DomainLimit::place(&limits, domain)),
            first_due,
        };
        let mut show = Show::new(&self.plan.job.name, open);
        self.signals.find(Doing::Work);
        let ended = engine.run(|progress| show.tell(progress));
        show.end();
        Ok(ended)
    }

    /// Who is next: everybody who is open, or those of `--only`.
    fn queue(&self, ledger: &Sqlite) -> Result<Box<dyn Queue>, Stop> {
        let reader = ledger.reader()?;
        if self.args.only.is_empty() {
            return Ok(reader);
        }
        match Only::find(reader, self.edition.id, &self.args.only)? {
            Ok(only) => Ok(Box::new(only)),
            Err(key) => {
                let words = format!("edition {} has nobody with the key {key}", self.edition.name);
                Err(Stop::new(Exit::Usage, words))
            }
        }
    }

    /// Whether `postroom stop` was said, for the time in which no engine looks at that.
    fn asked_to_stop(&self, ledger: &Sqlite) -> Result<impl Fn() -> bool + Send + Sync + 'static, Stop> {
        let (reader, name, purpose) =
            (Mutex::new(ledger.reader()?), self.plan.job.name.clone(), self.plan.purpose);
        Ok(move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.flags(&name, purpose).is_ok_and(|flags| flags.stop)
        })
    }

    /// Records the end, says what became of everyone, and finds the exit code.
    fn close(&self, ended: Ended<Sqlite>, lock: RunLock) -> Result<Exit, Stop> {
        let Ended { end, trouble, ledger, .. } = ended;
        let mut ledger = ledger.ok_or_else(|| Stop::new(Exit::Bug, "the ledger's thread broke"))?;
        // Another file in its place would tell of another run.
        ledger.in_its_place()?;
        let standing = ledger.reader()?.standing(self.edition.id)?;
        let finished = standing.counts.open() == 0;
        if finished {
            ledger.finish(self.edition.id, super::unix_now())?;
        }
        drop(lock);
        let (plan, edition) = (self.plan, self.edition);
        let said = last_words(plan, &mut ledger, edition, &standing, self.enlisting, self.args);
        if let (Some((_, outbox)), false) = (&self.relay.embedded, talk::is_quiet()) {
            eprintln!("the letters lie in {}", outbox.display());
        }
        let by_counts = said?;
        if let Some(exit) = self.signals.exit().filter(|_| end == End::Stopped) {
            return Ok(exit);
        }
        // By a relay that cannot be worked with nobody is told either.
        let relay_works = !matches!(trouble, Some(Trouble::Submit(_)));
        let deferred = standing.counts.of(State::Deferred) > 0;
        let ended = self.verdict(end, trouble, by_counts, deferred);
        let kind = match end {
            _ if finished => Some(Kind::Finished),
            End::Stopped | End::Limit | End::Complete => None,
            End::Deferred | End::Relay | End::TooManyRefused | End::Ledger => Some(Kind::Stopped),
        };
        if let Some(kind) = kind.filter(|_| relay_works) {
            let trouble = kind == Kind::Stopped || notify::is_trouble(&standing);
            let why = ended.as_ref().err().map(|stop| stop.words.as_str());
            notify::tell(plan, &mut ledger, edition, &self.relay.spec, kind, trouble, why);
        }
        ended
    }

    /// What the end means for whoever started the run.
    fn verdict(
        &self,
        end: End,
        trouble: Option<Trouble>,
        by_counts: Exit,
        deferred: bool,
    ) -> Result<Exit, Stop> {
        match (end, trouble) {
            (_, Some(trouble)) => Err(self.trouble(trouble)),
            (End::Limit, None) if deferred && by_counts == Exit::Done => Ok(Exit::Again),
            (End::Complete | End::Limit, None) => Ok(by_counts),
            (End::Deferred, None) => Ok(Exit::Again),
            (End::Stopped, None) => Err(Stop::new(Exit::Again, STOPPED)),
            (End::TooManyRefused, None) => Err(Stop::new(
                Exit::Unavailable,
                "too many recipients were refused, or one with a code that says enough (`stop_when`): something is \
                 wrong with the list, the letter or the relay's opinion of the sender; the rest is pending",
            )),
            (End::Relay, None) => Err(Stop::new(Exit::Bug, "the submitter ended without a word")),
            (End::Ledger, None) => Err(Stop::new(Exit::Io, "the ledger cannot be written")),
        }
    }

    fn trouble(&self, trouble: Trouble) -> Stop {
        let spec = &self.relay.spec;
        match trouble {
            Trouble::Sender { command, answer } => {
                let hint = spec.provider.as_deref().and_then(preset::sender_hint);
                let hint = hint.map_or(String::new(), |hint| format!("\nhelp: {hint}"));
                let words = format!(
                    "relay {}:{} refuses us as the sender, in answer to {command}: {answer}\n\
                     nothing more was sent; what was not accepted is pending{hint}",
                    spec.host, spec.port
                );
                Stop::new(Exit::Unavailable, words)
            }
            Trouble::Submit(error) => submit_trouble(&error, spec),
            Trouble::Ledger(error) => Stop::from(error),
            Trouble::Maker(reason) => Stop::new(Exit::Io, reason),
            Trouble::Broken(thread) => Stop::new(
                Exit::Bug,
                format!("the {thread} thread broke, a mistake of postroom's own: run again"),
            ),
            Trouble::Thread(error) => Stop::new(Exit::Io, format!("cannot start a thread: {error}")),
        }
    }

    fn config(&self) -> Config {
        let spec = &self.relay.spec;
        // Under a rate few letters are needed ahead, and a letter's Date should be the day it goes.
        let pace =
            spec.rate.map(|rate| (2.0 * f64::from(rate.count) / rate.per.as_secs_f64()).ceil() as usize);
        let ahead = pace.map_or(AHEAD, |pace| pace.clamp(2, AHEAD));
        let group_out = spec.limits.iter().map(|limit| {
            let pace =
                limit.rate.map_or(f64::INFINITY, |rate| f64::from(rate.count) / rate.per.as_secs_f64());
            let by_pace = (pace / 2.0).clamp(1.0, AHEAD as f64) as usize + 1;
            by_pace.min(limit.connections.unwrap_or(usize::MAX).saturating_mul(2))
        });
        Config {
            doubt: spec.doubt.map_or(DOUBT, Doubt::fixed),
            ahead,
            ahead_bytes: AHEAD_BYTES,
            claim_batch: CLAIMED,
            retry: spec.retry,
            unsure: spec.unsure,
            group_out: group_out.collect(),
            limit: self.args.limit,
            stop_when: spec.stop_when.clone(),
        }
    }
}

/// Group 0 is all that has no limit of its own. Without limits no domains are named at all.
fn domains(limits: &[DomainLimit]) -> Vec<Domains> {
    if limits.is_empty() {
        return Vec::new();
    }
    let mut groups: Vec<_> = limits.iter().map(|limit| Domains::Only(limit.domains.clone())).collect();
    let limited = limits.iter().flat_map(|limit| limit.domains.iter().cloned()).collect();
    groups.insert(0, Domains::Except(limited));
    groups
}

/// What a relay's trouble means for whoever has to mend it.
pub(super) fn submit_trouble(error: &SubmitError, spec: &RelaySpec) -> Stop {
    let provider = spec.provider.as_deref();
    let (exit, hint) = match error {
        SubmitError::Left { .. } => return Stop::new(Exit::Again, STOPPED),
        // Not the password's fault (RFC 4954 §6).
        SubmitError::Login { answer, .. } if matches!(answer.code, 400..500) => {
            (Exit::Unavailable, Some("the relay cannot check logins at the moment; run again later"))
        }
        SubmitError::Login { .. } => (Exit::Login, provider.and_then(preset::login_hint)),
        SubmitError::Credential { .. } => (Exit::Login, None),
        SubmitError::Broken { .. } => (Exit::Bug, Some("run again")),
        SubmitError::Protocol { .. } => (Exit::Protocol, None),
        SubmitError::Busy { .. } => (Exit::Again, Some("run again when they are done")),
        SubmitError::NoStartTls { .. } => (
            Exit::Unavailable,
            Some("say `tls: implicit` (port 465) where the relay has that; `tls: none` sends in clear text"),
        ),
        SubmitError::Connect { .. }
        | SubmitError::Tls { .. }
        | SubmitError::Refused { .. }
        | SubmitError::NoToken { .. }
        | SubmitError::Silent { .. } => (Exit::Unavailable, None),
    };
    let mut words = with_causes(error);
    if let Some(hint) = hint {
        words.push_str(&format!("\nhelp: {hint}"));
    }
    Stop::new(exit, words)
}
