//! `notify`: one short letter about how a run ended, by the job's own relay. It is sent once for an
//! edition and kind of end, and what becomes of it changes nothing about the run.

use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use crate::compose::compose;
use crate::diagnostic::with_causes;
use crate::job::{NotifyWhen, RelaySpec};
use crate::ledger::{Edition, Ledger, Sqlite, Standing, State};
use crate::letter::{self, Envelope, Letter, ListHeaders, Message, Outcome, Purpose, RcptOutcome, Stamp};
use crate::mail::{self, EmailAddress};
use crate::plan::Plan;
use crate::report::{self, View};
use crate::submit::{Consignment, Event, Submitter};
use crate::talk;

/// A relay that has not taken the letter by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a run ended, as far as somebody wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is left to send.
    Finished,
    /// The run ended before that, and not because somebody asked for it.
    Stopped,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Finished => "finished",
            Kind::Stopped => "stopped",
        }
    }
}

/// Tells whoever wants to be told. `trouble`: not everybody who should have got a letter got it. `why`
/// are the words the run ended with. Trials tell nobody.
pub(super) fn tell(
    plan: &Plan,
    ledger: &mut Sqlite,
    edition: &Edition,
    relay: &RelaySpec,
    kind: Kind,
    trouble: bool,
    why: Option<&str>,
) {
    let Some(notify) = plan.job.notify.as_ref().filter(|_| plan.purpose == Purpose::Real) else { return };
    if notify.when == NotifyWhen::Trouble && !trouble {
        return;
    }
    let told = ledger.tell_once(edition.id, kind.word()).map_err(|error| with_causes(&error));
    let done = match told {
        Ok(false) => return,
        Ok(true) => text(plan, ledger, edition, why)
            .map_err(|reason| (reason, false))
            .and_then(|text| send(&compose_letter(plan, ledger, edition, kind, trouble, text), relay)),
        Err(reason) => Err((reason, true)),
    };
    if let Err((reason, perhaps)) = done {
        talk::error(&format!("{}: not all were told by letter (`notify`): {reason}", plan.job.name));
        if !perhaps && let Err(error) = ledger.untell(edition.id, kind.word()) {
            talk::error(&with_causes(&error));
        }
    }
}

/// Whether not everybody who should have got a letter got it.
pub(super) fn is_trouble(standing: &Standing) -> bool {
    let trouble = [State::Refused, State::Failed, State::Unsure, State::Deferred];
    standing.rejected > 0 || trouble.into_iter().any(|state| standing.counts.of(state) > 0)
}

/// The summary, as it stood on the terminal.
fn text(plan: &Plan, ledger: &Sqlite, edition: &Edition, why: Option<&str>) -> Result<String, String> {
    let words = |error: &dyn std::error::Error| with_causes(error);
    let reader = ledger.reader().map_err(|error| words(&error))?;
    let edition =
        reader.edition(edition.id).map_err(|error| words(&error))?.unwrap_or_else(|| edition.clone());
    let command = format!("postroom report {}", plan.job.path.display());
    let standing = reader.standing(edition.id).map_err(|error| words(&error))?;
    let view = View { only: None, some: 10, domains: false, enlisting: None, command: &command };
    let mut table = Vec::new();
    report::table(&mut table, &*reader, &edition, &standing, &view).map_err(|error| words(&error))?;
    let table = String::from_utf8_lossy(&table);
    Ok(match why {
        Some(why) => format!("{why}\n\n{table}"),
        None => table.into_owned(),
    })
}

fn compose_letter(
    plan: &Plan,
    ledger: &Sqlite,
    edition: &Edition,
    kind: Kind,
    trouble: bool,
    text: String,
) -> Message {
    let job = &plan.job;
    let to = job.notify.as_ref().map(|notify| notify.to.clone()).unwrap_or_default();
    let mut recipients: Vec<EmailAddress> = Vec::new();
    for mailbox in &to {
        if !recipients.contains(&mailbox.address) {
            recipients.push(mailbox.address.clone());
        }
    }
    let how = match (kind, trouble) {
        (Kind::Finished, false) => "finished",
        (Kind::Finished, true) => "finished, with trouble",
        (Kind::Stopped, _) => "stopped before its end",
    };
    let list = ListHeaders { auto_submitted: true, ..ListHeaders::default() };
    let letter = Letter {
        from: job.from.clone(),
        reply_to: Vec::new(),
        to,
        cc: Vec::new(),
        bcc: Vec::new(),
        subject: format!("{}, edition {}: {how}", job.name, edition.name),
        text: Some(text),
        html: None,
        headers: Vec::new(),
        list,
    };
    let domain = job.from.address.ascii_domain();
    let message_id =
        letter::message_id(&ledger.secret(), &job.name, &edition.name, kind.word(), 0, "notify", &domain);
    let boundary = letter::boundary_seed(&message_id);
    let date = mail::date::rfc5322(super::unix_now(), plan.templates().zone());
    let content = compose(&letter, &[], &[], &Stamp { date, message_id, boundary });
    let smtputf8 = letter.needs_smtputf8();
    let envelope = Envelope { reverse_path: Some(job.from.address.clone()), recipients };
    Message { envelope, content, eight_bit: false, smtputf8 }
}

/// Hands the letter over. An error is the reason, and whether somebody may have got it all the same.
fn send(message: &Message, relay: &RelaySpec) -> Result<(), (String, bool)> {
    let (events, answers) = unbounded();
    let by = Instant::now() + PATIENCE;
    let accounts = super::accounts::of_this_user(move || Instant::now() > by).quiet(true);
    let submitter =
        Submitter::start(relay, &accounts, None, events).map_err(|error| (with_causes(&error), false))?;
    let mut submitted = false;
    loop {
        let events = answers
            .recv_deadline(by)
            .map_err(|_| (format!("{} does not answer", submitter.relay()), submitted))?;
        for event in events {
            match event {
                Event::Wanted(more) if more > 0 && !submitted => {
                    submitted = true;
                    submitter.submit(vec![Consignment { seq: 0, message: message.clone() }]);
                    submitter.drain();
                }
                Event::Settled { rcpts, .. } => return answered(&rcpts),
                Event::SenderTrouble { command, answer } => {
                    return Err((format!("in answer to {command}: {answer}"), false));
                }
                Event::Failed(error) => return Err((with_causes(&error), false)),
                Event::Returned { .. } | Event::Closed => {
                    return Err((format!("{} did not take the letter", submitter.relay()), false));
                }
                Event::Wanted(_) | Event::Connections(_) | Event::Away(_) => {}
            }
        }
    }
}

fn answered(rcpts: &[RcptOutcome]) -> Result<(), (String, bool)> {
    let missed: Vec<String> = rcpts
        .iter()
        .filter(|rcpt| rcpt.outcome != Outcome::Accepted)
        .map(|rcpt| format!("{}: {}", rcpt.address, rcpt.answer))
        .collect();
    let perhaps = rcpts.iter().any(|rcpt| matches!(rcpt.outcome, Outcome::Accepted | Outcome::Unsure));
    if missed.is_empty() { Ok(()) } else { Err((missed.join("; "), perhaps)) }
}
