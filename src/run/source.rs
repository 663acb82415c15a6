//! The list of a job, wherever it comes from: a file, standard input, the job itself, or what
//! became of an earlier edition.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, with_causes};
use crate::exit::Exit;
use crate::job::{LedgerUrl, SendJob, SourceSpec, Text};
use crate::ledger::{Edition, LedgerError, Reader, Sqlite, State};
use crate::letter::{Columns, Purpose, Row};
use crate::plan;
use crate::recipients::{self, RecipientsError, Rows};

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoList {
    /// It cannot be read.
    #[error(transparent)]
    Recipients(#[from] RecipientsError),
    /// The ledger it should come from cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger has no such thing.
    #[error("`recipients: {{ledger: …}}`: {0}")]
    Unknown(String),
}

impl NoList {
    /// The error where the job file says which list it is and what its columns are.
    pub(super) fn diagnostic(&self, job: &SendJob) -> Diagnostic {
        let place = match (self, &job.recipients.source) {
            (NoList::Recipients(RecipientsError::UnknownColumn { name, .. }), _) => {
                job.recipients.columns.get(name).and_then(|(_, text)| text.place.clone())
            }
            (NoList::Recipients(_), source) => source.place().cloned(),
            _ => None,
        };
        let help = match (self, &job.recipients.source) {
            (NoList::Recipients(RecipientsError::Missing { .. }), SourceSpec::File { text, .. }) => {
                text.as_path()
            }
            _ => None,
        };
        Diagnostic::error(with_causes(self)).at_maybe(place).help_maybe(help).ending(self.exit())
    }

    /// How the process ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            NoList::Recipients(error) => error.exit(),
            NoList::Ledger(error) => error.exit(),
            NoList::Unknown(_) => Exit::Job,
        }
    }
}

/// Opens the list of a job.
pub(super) fn open(job: &SendJob) -> Result<Rows, NoList> {
    match &job.recipients.source {
        SourceSpec::Ledger { job: other, edition, outcome } => of_ledger(job, other, edition, outcome),
        _ => Ok(recipients::open(&job.recipients, plan::stdin_of(job))?),
    }
}

/// Suppress lists with nothing in them: an export that failed leaves one, and whoever left is written to again.
pub(super) fn empty_suppress_lists(job: &SendJob) -> Vec<Diagnostic> {
    let is_empty =
        |file: &Path| std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
    let empty = job.recipients.suppress.iter().filter(|(file, _)| is_empty(file));
    let warning = |(file, text): &(PathBuf, Text)| {
        Diagnostic::warning(format!("the suppress list {} is empty", file.display()))
            .at_maybe(text.place.clone())
            .help("if nobody has left yet, say so in it: `# nobody yet`")
    };
    empty.map(warning).collect()
}

/// Those who had this outcome in a real edition. Trials read them there too: they are about what
/// would happen.
fn of_ledger(job: &SendJob, other: &str, name: &str, outcome: &str) -> Result<Rows, NoList> {
    let LedgerUrl::Sqlite(path) = &job.ledger;
    let reader = match Sqlite::open_read_only(path) {
        Err(LedgerError::Missing { .. }) => {
            return Err(NoList::Unknown(format!("{} does not exist: nothing was sent yet", path.display())));
        }
        reader => reader?,
    };
    let state = State::from_word(outcome)
        .ok_or_else(|| NoList::Unknown(format!("`{outcome}` is no outcome of a letter")))?;
    let edition = find(&reader, path, other, name)?;
    // Where the columns changed in the course of the edition, each row carries its own.
    let layouts: Vec<Arc<Columns>> = match edition.layouts.as_slice() {
        [Some(names)] => vec![Arc::new(Columns::new(names.clone()))],
        many => {
            many.iter().map(|names| Arc::new(Columns::loose(names.clone().unwrap_or_default()))).collect()
        }
    };
    let columns = layouts.first().filter(|columns| !columns.is_loose()).cloned();
    let mut last = 0;
    let next = move |max: usize| {
        let claimed = reader.rows_in(edition.id, &[state], last, max)?;
        last = claimed.last().map_or(last, |claimed| claimed.seq);
        let rows = claimed.iter().map(|claimed| {
            let columns = layouts.get(claimed.layout);
            let row = columns.and_then(|columns| Row::from_json(claimed.number, &claimed.row, columns));
            row.ok_or_else(|| format!("the row of {} in the ledger cannot be read", claimed.key))
        });
        Ok(rows.collect())
    };
    let shown = PathBuf::from(format!("of {outcome} letters of {other}, edition {name},"));
    Ok(Rows::of_rows(&job.recipients, shown, columns, Box::new(next))?)
}

/// The edition that was meant, or what there is instead.
fn find(reader: &dyn Reader, path: &Path, job: &str, name: &str) -> Result<Edition, NoList> {
    let mut editions = reader.editions(job, Purpose::Real)?;
    if editions.is_empty() {
        let all = reader.all_editions()?;
        let real = all.into_iter().filter(|edition| edition.purpose == Purpose::Real);
        let jobs: BTreeSet<String> = real.map(|edition| edition.job).collect();
        return Err(NoList::Unknown(match jobs.is_empty() {
            true => format!("{} has no edition of any job: nothing was sent yet", path.display()),
            false => format!("{} has no job {job}; it has {}", path.display(), listed(jobs)),
        }));
    }
    let Some(place) = editions.iter().position(|edition| edition.name == name) else {
        let names = editions.into_iter().rev().map(|edition| edition.name);
        return Err(NoList::Unknown(format!("{job} has no edition {name}; it has {}", listed(names))));
    };
    let edition = editions.swap_remove(place);
    if edition.pruned_at.is_some() {
        let words = format!("edition {name} of {job} was pruned: its rows are no longer in the ledger");
        return Err(NoList::Unknown(words));
    }
    if edition.enlisted_at.is_none() {
        let words = format!("the list of edition {name} of {job} was not taken in whole; run that job first");
        return Err(NoList::Unknown(words));
    }
    Ok(edition)
}

/// Some names, and how many more there are.
fn listed(names: impl IntoIterator<Item = String>) -> String {
    const SOME: usize = 12;
    let names: Vec<String> = names.into_iter().collect();
    let more = names.len().saturating_sub(SOME);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names[..names.len().min(SOME)].join(", "))
}
