//! Where a job's ledger lies, and when a trial's makes room for the next.

use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::job::{LedgerUrl, SendJob, name_of_file};
use crate::ledger::{Ledger, Sqlite};
use crate::letter::Purpose;
use crate::plan::Plan;

use super::stop::Stop;

/// Where the ledger lies: trials have one of their own.
pub(super) fn path(job: &SendJob, purpose: Purpose) -> PathBuf {
    let trial = || format!("{}.db", name_of_file(&job.name));
    match (purpose, &job.ledger) {
        (Purpose::Real, LedgerUrl::Sqlite(path)) => path.clone(),
        (Purpose::Sandbox, _) => job.root.join(".postroom/sandbox").join(trial()),
        (Purpose::Redirected, _) => job.root.join(".postroom/trial").join(trial()),
    }
}

/// Whether a trial's ledger is of no more use: always with `--to`, and for the sandbox once its
/// edition is through or what the reader sees is another letter by now.
pub(super) fn is_stale(plan: &Plan, ledger: &Sqlite) -> Result<bool, Stop> {
    let reader = ledger.reader()?;
    let editions = reader.editions(&plan.job.name, plan.purpose)?;
    let Some(last) = editions.last() else { return Ok(false) };
    let through = last.enlisted_at.is_none() || reader.counts(last.id)?.open() == 0;
    Ok(plan.purpose == Purpose::Redirected || through || last.fingerprint != plan.fingerprint())
}

/// Takes a trial's ledger away.
pub(super) fn remove(path: &Path) -> Result<(), Stop> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let words = format!("cannot remove the ledger of the last trial {}: {error}", path.display());
                return Err(Stop::new(Exit::Io, words));
            }
            _ => {}
        }
    }
    Ok(())
}
