//! Takes a list into the ledger: rows are read on one thread, examined on all, written here.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use rayon::prelude::*;

use crate::exit::Exit;
use crate::job::MaxBad;
use crate::ledger::{Edition, Enlist, EnlistState, Enlisting, Ledger, LedgerError, SUPPRESSED, SourceRecord};
use crate::letter::{RecipientKey, Row};
use crate::plan::{Examined, Plan};
use crate::recipients::{BadRow, RecipientsError, Rows};

/// Rows that are read, examined and written at once.
pub(super) const BATCH: usize = 1024;

/// Why a list was not taken in. Nothing is sent then.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotEnlisted {
    /// It cannot be read.
    #[error(transparent)]
    Recipients(#[from] RecipientsError),
    /// The ledger cannot take it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file was found for two recipients, of whom the first was enlisted before that was known:
    /// the list is to be read again.
    #[error("a file was found for two recipients, and a list from standard input cannot be read again")]
    Contested,
    /// Too many of its rows are bad.
    #[error("{bad} of {rows} rows are bad, and {allowed}: nothing is sent")]
    TooManyBad {
        /// How many.
        bad: u64,
        /// Of how many.
        rows: u64,
        /// What the job allows, in words.
        allowed: String,
        /// The first of them: row number, line where the list has lines, and reason.
        first: Vec<(u64, Option<u64>, String)>,
    },
}

impl NotEnlisted {
    /// How the process ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            NotEnlisted::Recipients(error) => error.exit(),
            NotEnlisted::Ledger(error) => error.exit(),
            NotEnlisted::TooManyBad { .. } | NotEnlisted::Contested => Exit::Data,
        }
    }
}

/// One row, examined.
struct Looked {
    number: u64,
    line: Option<u64>,
    json: String,
    verdict: Verdict,
}

enum Verdict {
    Filtered,
    Pending { key: RecipientKey, domain: String, enclosed: Option<i64> },
    Suppressed { key: RecipientKey, domain: String },
    Failed { key: RecipientKey, domain: String, reason: String },
    Rejected { key: Option<String>, reason: String },
}

/// A list that pauses for longer, as standard input may, keeps nobody else from the ledger meanwhile.
const SLOW: Duration = Duration::from_millis(100);

/// How many bad rows are named when there are too many.
const NAMED: usize = 10;

/// Takes the rows into an edition. `strict`: not one of them may be bad. `again`: this is the second
/// look at a list in which a file was found for two recipients.
pub(super) fn enlist(
    plan: &Plan,
    ledger: &mut dyn Ledger,
    edition: &Edition,
    mut rows: Rows,
    strict: bool,
    again: bool,
    now: i64,
) -> Result<Enlisting, NotEnlisted> {
    let columns = rows.columns();
    let names = columns.as_ref().map(|columns| columns.names().to_vec());
    let dedupe = plan.job.recipients.dedupe;
    let mut enlister = ledger.enlist(edition.id, names.as_deref(), dedupe)?;
    let (mut bad, mut unread) = (0u64, 0);
    let mut first = Vec::new();
    let mut source = SourceRecord::default();
    thread::scope(|scope| {
        let (send, receive) = bounded(2);
        let reader = scope.spawn(move || -> Result<[u8; 32], RecipientsError> {
            loop {
                let batch = rows.next_batch(BATCH)?;
                if batch.is_empty() {
                    return Ok(rows.source_hash());
                }
                let looked: Vec<Looked> =
                    batch.into_par_iter().with_min_len(64).map(|row| look(plan, row)).collect();
                if send.send(looked).is_err() {
                    return Ok([0; 32]); // the writer has given up and says why
                }
            }
        });
        loop {
            let mut next = receive.recv_timeout(SLOW);
            if let Err(RecvTimeoutError::Timeout) = next {
                enlister.rest()?;
                next = receive.recv().map_err(RecvTimeoutError::from);
            }
            let Ok(looked) = next else { break };
            source.rows += looked.len() as u64;
            unread += write(&mut *enlister, &looked, &mut source, |row, reason| {
                bad += 1;
                if first.len() < NAMED {
                    first.push((row.number, row.line, reason.to_owned()));
                }
            })?;
        }
        drop(receive);
        source.hash = Some(reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        Ok::<(), NotEnlisted>(())
    })?;
    if plan.any_contested() && !again {
        return Err(NotEnlisted::Contested);
    }
    // Those of the rejected that have a key which an earlier row has were not known to be bad before.
    let bad = bad + enlister.rejected().saturating_sub(unread);
    let max_bad = plan.job.recipients.max_bad;
    if (strict && bad > 0) || max_bad.exceeded(bad, source.rows) {
        let allowed = if strict {
            "`--strict` allows none".into()
        } else {
            format!("`max_bad` allows {}", max_bad_words(max_bad))
        };
        return Err(NotEnlisted::TooManyBad { bad, rows: source.rows, allowed, first });
    }
    source.hash = source.hash.map(|bytes| source_hash(plan, bytes));
    Ok(enlister.finish(source, now)?)
}

/// What a list is known by: its bytes, the job file, which says what is made of them, and what the reader
/// sees, for `where` may ask for what stands in a file of `vars`.
pub(super) fn source_hash(plan: &Plan, bytes: [u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes).update(&plan.fingerprint());
    // A job file that cannot be read again is one that may have changed.
    hasher.update(&std::fs::read(&plan.job.path).unwrap_or_default());
    *hasher.finalize().as_bytes()
}

fn look(plan: &Plan, row: Result<Row, BadRow>) -> Looked {
    let row = match row {
        Ok(row) => row,
        Err(bad) => {
            let verdict = Verdict::Rejected { key: bad.key_hint, reason: bad.reason };
            return Looked { number: bad.number, line: bad.line, json: String::new(), verdict };
        }
    };
    let verdict = match plan.examine(&row) {
        Examined::Filtered => Verdict::Filtered,
        Examined::Ready { key, domain, enclosed } => Verdict::Pending { key, domain, enclosed },
        Examined::Suppressed { key, domain } => Verdict::Suppressed { key, domain },
        Examined::Bad { key: Some(key), domain, reason } => Verdict::Failed { key, domain, reason },
        Examined::Bad { key: None, reason, .. } => Verdict::Rejected { key: None, reason },
    };
    Looked { number: row.number, line: row.line, json: row.to_json(), verdict }
}

/// Writes what was made of some rows; gives how many of them can be no delivery.
fn write(
    enlister: &mut dyn crate::ledger::Enlister,
    looked: &[Looked],
    source: &mut SourceRecord,
    mut bad: impl FnMut(&Looked, &str),
) -> Result<u64, LedgerError> {
    let (mut rows, mut rejected) = (Vec::with_capacity(looked.len()), 0);
    for row in looked {
        let (key, domain, state) = match &row.verdict {
            Verdict::Filtered => {
                source.filtered += 1;
                continue;
            }
            Verdict::Rejected { key, reason } => {
                bad(row, reason);
                enlister.reject(row.number, key.as_deref(), reason)?;
                rejected += 1;
                continue;
            }
            Verdict::Pending { key, domain, .. } => (key, domain.as_str(), EnlistState::Pending),
            Verdict::Suppressed { key, domain } => (key, domain.as_str(), EnlistState::Skipped(SUPPRESSED)),
            Verdict::Failed { key, domain, reason } => {
                bad(row, reason);
                (key, domain.as_str(), EnlistState::Failed(reason))
            }
        };
        let enclosed = match row.verdict {
            Verdict::Pending { enclosed, .. } => enclosed,
            _ => None,
        };
        rows.push(Enlist { number: row.number, key: key.as_str(), domain, row: &row.json, state, enclosed });
    }
    enlister.add(&rows)?;
    Ok(rejected)
}

fn max_bad_words(max_bad: MaxBad) -> String {
    match max_bad {
        MaxBad::Any => "any number".into(),
        MaxBad::Rows(rows) => rows.to_string(),
        MaxBad::Fraction(fraction) => format!("{} %", fraction * 100.0),
    }
}
