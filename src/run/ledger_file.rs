//! Where a job's ledger lies, and when a trial's makes room for the next.

use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::job::{LedgerUrl, SendJob};
use crate::ledger::{Ledger, Sqlite};
use crate::letter::Purpose;
use crate::plan::Plan;

use super::stop::Stop;

/// Where the ledger lies: trials have one of their own.
pub(super) fn path(job: &SendJob, purpose: Purpose) -> PathBuf {
    match (purpose, &job.ledger) {
        (Purpose::Real, LedgerUrl::Sqlite(path)) => path.clone(),
        (Purpose::Sandbox, _) => job.root.join(".postroom/sandbox").join(trial_name(&job.name)),
        (Purpose::Redirected, _) => job.root.join(".postroom/trial").join(trial_name(&job.name)),
    }
}

/// A file name of a job's name, whatever is in it.
fn trial_name(job: &str) -> String {
    let plain: String =
        job.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).take(40).collect();
    format!("{plain}-{}.db", &blake3::hash(job.as_bytes()).to_hex()[..8])
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
