//! How a sending run begins: the list is opened, the edition found or begun, the list taken in.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;

use crate::cli;
use crate::exit::Exit;
use crate::job::{SendJob, SourceSpec};
use crate::ledger::{
    self, Counts, Course, Edition, Enlisting, Ledger, LedgerError, NewEdition, Reader, Request, Sqlite, State,
};
use crate::letter::{Columns, Purpose, Row};
use crate::plan::Plan;
use crate::recipients;
use crate::render::RECIPIENT;
use crate::talk;

use super::enlist::{self, NotEnlisted};
use super::kept;
use super::letters;
use super::source;
use super::stop::Stop;

/// The list as it is opened: its columns are known, its rows not yet read.
pub(super) enum List {
    /// Rows to be read.
    Rows(Box<recipients::Rows>),
    /// Standard input was frozen when the edition was begun: the ledger has the rows.
    Frozen(Option<Arc<Columns>>),
}

impl List {
    /// The names of its columns; `None`: rows of any shape.
    pub(super) fn columns(&self) -> Option<Arc<Columns>> {
        match self {
            List::Rows(rows) => rows.columns(),
            List::Frozen(columns) => columns.clone(),
        }
    }
}

/// Opens the list, or finds that the ledger has it.
pub(super) fn open_list(
    job: &SendJob,
    ledger: &Sqlite,
    purpose: Purpose,
    args: &cli::Run,
    global: &cli::Global,
) -> Result<List, Stop> {
    if let SourceSpec::Stdin { .. } = job.recipients.source
        && let Some(edition) = frozen(&*ledger.reader()?, job, purpose, args)?
    {
        let layout = edition.layouts.into_iter().next().flatten();
        return Ok(List::Frozen(layout.map(|names| Arc::new(Columns::new(names)))));
    }
    match source::open(job) {
        Ok(rows) => Ok(List::Rows(Box::new(rows))),
        Err(error) => {
            talk::diagnostics(&[error.diagnostic(job)], global.color.on_stderr());
            Err(Stop::new(error.exit(), "nothing was sent"))
        }
    }
}

/// The edition that goes on with the list it has, where it came from standard input: the one that is
/// named, else the last one, if it has been taken in and somebody is still to get a letter.
fn frozen(
    reader: &dyn Reader,
    job: &SendJob,
    purpose: Purpose,
    args: &cli::Run,
) -> Result<Option<Edition>, LedgerError> {
    if args.new_edition {
        return Ok(None);
    }
    let goes_on = |edition: &Edition| match &args.edition {
        // By its name one that was left is taken up again.
        Some(name) => edition.name == *name && edition.finished_at.is_none() && edition.pruned_at.is_none(),
        None => edition.is_unfinished(),
    };
    let last = reader.editions(&job.name, purpose)?.into_iter().rfind(goes_on);
    let Some(edition) = last.filter(|edition| edition.enlisted_at.is_some()) else { return Ok(None) };
    let open = reader.counts(edition.id)?.open();
    Ok((open > 0).then_some(edition))
}

/// Leaves an edition. What a run left in it that died is put in order, as if the edition went on.
fn leave(plan: &Plan, ledger: &mut Sqlite, edition: &Edition) -> Result<(), Stop> {
    let unsure = ledger.recover(edition.id, plan.job.relay.unsure)?;
    name_doubtful(&unsure);
    kept::close(kept::of(plan, edition, ledger)?.as_ref());
    ledger.leave(edition.id, Some(super::unix_now()))?;
    Ok(())
}

/// Names the first letters that a run left in doubt; the report has all of them.
pub(super) fn name_doubtful(unsure: &[(u64, String)]) {
    if unsure.is_empty() {
        return;
    }
    let (letters, are) = if unsure.len() == 1 { ("letter", "is") } else { ("letters", "are") };
    let keys: String = unsure.iter().take(10).map(|(_, key)| format!("\n  {key}")).collect();
    talk::note(&format!("{} {letters} of a run that broke off {are} in doubt:{keys}", unsure.len()));
}

/// Finds or begins the edition.
pub(super) fn edition(plan: &Plan, ledger: &mut Sqlite, args: &cli::Run) -> Result<Edition, Stop> {
    let now = super::unix_now();
    let evaluated = plan.templates().edition(now).map_err(|error| Stop::new(Exit::Job, error.to_string()))?;
    let reader = ledger.reader()?;
    let editions = reader.editions(&plan.job.name, plan.purpose)?;
    // Those that are over are not counted, but for the one that is asked for: they grow in number.
    let asked = args.edition.as_deref().unwrap_or(&evaluated);
    let counted = |edition: Edition| {
        let counts = match edition.is_unfinished() || edition.name == asked {
            true => reader.counts(edition.id)?,
            false => Counts::default(),
        };
        Ok((edition, counts))
    };
    let editions = editions.into_iter().map(counted).collect::<Result<Vec<_>, LedgerError>>()?;
    let (fingerprint, components) = (plan.fingerprint(), plan.components());
    let request = Request {
        name: &evaluated,
        chosen: args.edition.as_deref(),
        new_edition: args.new_edition,
        accept_changes: args.accept_changes,
        fingerprint,
    };
    let id = match ledger::course(&editions, &request) {
        Course::Begin { name, leaving } => {
            for (left, _) in editions.iter().filter(|(edition, _)| leaving.contains(&edition.id)) {
                leave(plan, ledger, left)?;
            }
            ledger.begin(&NewEdition {
                job: &plan.job.name,
                name: &name,
                purpose: plan.purpose,
                fingerprint,
                components,
                timezone: plan.templates().zone().iana_name().unwrap_or("UTC"),
                now,
            })?
        }
        Course::Resume { id, accept } => {
            if accept {
                ledger.accept_changes(id, fingerprint, components)?;
            }
            id
        }
        Course::Stop(stop) => {
            let mut words = stop.to_string();
            let exit = if matches!(stop, ledger::Stop::Unknown { .. }) { Exit::Usage } else { Exit::Job };
            if let ledger::Stop::Changed { id, .. } | ledger::Stop::FinishedChanged { id, .. } = stop {
                for change in ledger::changes(&reader.components(id)?, components) {
                    words.push_str(&format!("\n{change}"));
                    if change.name == RECIPIENT {
                        words.push_str(
                            "\nnobody on the list is known by this: with --accept-changes everybody gets a letter \
                             again",
                        );
                    }
                }
            }
            return Err(Stop::new(exit, words));
        }
    };
    let found = ledger.reader()?.edition(id)?;
    found.ok_or_else(|| Stop::new(Exit::Bug, "the edition that was just begun is not in the ledger"))
}

/// Takes the list in, unless the ledger has it and it is unchanged.
pub(super) fn take_in(
    plan: &Plan,
    ledger: &mut Sqlite,
    edition: Edition,
    list: List,
    args: &cli::Run,
) -> Result<(Edition, Option<Enlisting>), Stop> {
    let rows = match list {
        List::Rows(rows) => rows,
        List::Frozen(_) if edition.enlisted_at.is_some() => {
            if is_piped_in(&std::io::stdin()) {
                say!(
                    Warning,
                    "{}: edition {} goes on with the list it was begun with, and standard input is not read: pipe it \
                     in again when that is done, for whoever is new there",
                    plan.job.name,
                    edition.name
                );
            }
            let reader = ledger.reader()?;
            if goes_with_what_is_found(plan, &*reader, &edition)? {
                look_at_files(plan, &*reader, &edition)?;
            }
            return Ok((edition, None));
        }
        // The ledger that had the list has made room for this one: it is read after all.
        List::Frozen(columns) => {
            let rows = source::open(&plan.job)?;
            if rows.columns() != columns {
                let words = "the list on standard input has other columns than the one before it: run again";
                return Err(Stop::new(Exit::Job, words));
            }
            Box::new(rows)
        }
    };
    if let (Some(known), SourceSpec::File { path, .. }) = (edition.source.hash, &plan.job.recipients.source)
        && hash_of(path).is_ok_and(|hash| enlist::source_hash(plan, hash) == known)
        && !goes_with_what_is_found(plan, &*ledger.reader()?, &edition)?
    {
        return Ok((edition, None));
    }
    if let SourceSpec::Ledger { job, edition: name, .. } = &plan.job.recipients.source
        && (job, name) == (&plan.job.name, &edition.name)
    {
        let words = format!("edition {name} would take its recipients out of itself");
        return Err(Stop::new(Exit::Job, words));
    }
    let now = super::unix_now();
    let mut taken = enlist::enlist(plan, ledger, &edition, *rows, args.strict, false, now);
    if matches!(taken, Err(NotEnlisted::Contested))
        && !matches!(plan.job.recipients.source, SourceSpec::Stdin { .. })
    {
        let rows = source::open(&plan.job)?;
        taken = enlist::enlist(plan, ledger, &edition, rows, args.strict, true, now);
    }
    let enlisting = taken?;
    let fresh = ledger.reader()?.edition(edition.id)?;
    Ok((fresh.unwrap_or(edition), Some(enlisting)))
}

/// Whether something comes from there. An open pipe that says nothing for so long was only left behind, as by ssh.
fn is_piped_in(input: &impl AsFd) -> bool {
    let kind = rustix::fs::fstat(input).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let waits = &mut [PollFd::new(input, PollFlags::IN)];
    matches!(kind, Ok(FileType::Fifo | FileType::RegularFile | FileType::Socket))
        && poll(waits, Some(&Timespec { tv_sec: 2, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
        && waits[0].revents().contains(PollFlags::IN)
}

/// Whether a letter goes with what is found for it then, as one does that was put back: that may be another's, too.
fn goes_with_what_is_found(plan: &Plan, reader: &dyn Reader, edition: &Edition) -> Result<bool, LedgerError> {
    if plan.job.attachments.is_empty() && !plan.templates().has_pictures() {
        return Ok(false);
    }
    reader.any_with_unknown_files(edition.id)
}

/// Finds out whose the files of an edition are whose list is not read again: one of two is nobody's.
fn look_at_files(plan: &Plan, reader: &dyn Reader, edition: &Edition) -> Result<(), LedgerError> {
    let layouts = letters::layouts(edition);
    let mut last = 0;
    loop {
        let rows = reader.rows_in(edition.id, &State::ALL, last, enlist::BATCH)?;
        let Some(row) = rows.last() else { return Ok(()) };
        last = row.seq;
        rows.par_iter().for_each(|row| {
            let columns = layouts.get(row.layout);
            if let Some(row) = columns.and_then(|columns| Row::from_json(row.number, &row.row, columns)) {
                // What is found is claimed. What else becomes of the row was said when it was enlisted.
                let _ = plan.examine(&row);
            }
        });
    }
}

fn hash_of(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(*hasher.finalize().as_bytes())
}
