//! `postroom stop`, `pause` and `resume`: a flag in the ledger, which a run sees within a second.

use std::path::Path;

use crate::exit::Exit;
use crate::ledger::{Flag, Ledger, LedgerError, Sqlite};
use crate::letter::Purpose;
use crate::talk;

use super::stop::Stop;

/// Asks a running job to end as a signal would. Where nobody runs it there is nothing to stop, and no
/// flag is left behind for the next run to stumble over.
pub(super) fn stop(ledger: &Path, job: &str) -> Result<Exit, Stop> {
    let mut ledger = Sqlite::open_existing(ledger)?;
    match ledger.lock(job, Purpose::Real) {
        Ok(_lock) => {
            talk::note(&format!("{job} is not being run"));
            Ok(Exit::Done)
        }
        Err(LedgerError::InUse { .. }) => {
            ledger.set_flag(job, Purpose::Real, Flag::Stop, true)?;
            talk::note(&format!("{job} is told to stop; what it has begun is recorded first"));
            Ok(Exit::Done)
        }
        Err(error) => Err(error.into()),
    }
}

/// Holds a job, running or not, until it is resumed.
pub(super) fn pause(ledger: &Path, job: &str) -> Result<Exit, Stop> {
    Sqlite::open_existing(ledger)?.set_flag(job, Purpose::Real, Flag::Pause, true)?;
    talk::note(&format!("{job} is paused; `postroom resume` lets it go on"));
    Ok(Exit::Done)
}

/// Lets a paused job go on.
pub(super) fn resume(ledger: &Path, job: &str) -> Result<Exit, Stop> {
    let mut ledger = Sqlite::open_existing(ledger)?;
    let paused = ledger.reader()?.flags(job, Purpose::Real)?.pause;
    ledger.set_flag(job, Purpose::Real, Flag::Pause, false)?;
    talk::note(&format!("{job} {}", if paused { "goes on" } else { "was not paused" }));
    Ok(Exit::Done)
}
