//! The last words of a run: what became of everyone, and what the exit code is to be.

use std::fmt::Write;
use std::path::Path;

use crate::exit::Exit;
use crate::ledger::{Counts, EditionId, Enlisting, LedgerError, Reader, Reject, SourceRecord, State};

/// What there is to say of an edition.
pub(super) struct Summary {
    counts: Counts,
    rejects: Vec<Reject>,
}

/// How many rejected rows are named.
const NAMED: usize = 10;

impl Summary {
    pub(super) fn of(reader: &dyn Reader, edition: EditionId) -> Result<Summary, LedgerError> {
        Ok(Summary { counts: reader.counts(edition)?, rejects: reader.rejects(edition, NAMED + 1)? })
    }

    /// The exit code the outcomes ask for, the run itself having ended well.
    pub(super) fn exit(&self) -> Exit {
        let bad =
            [State::Refused, State::Failed, State::Unsure].into_iter().any(|state| self.counts.of(state) > 0);
        if bad || self.rejects.iter().any(|reject| !reject.duplicate) { Exit::SomeFailed } else { Exit::Done }
    }

    pub(super) fn for_people(&self, job: &Path) -> String {
        let mut text = String::new();
        for state in State::ALL {
            let count = self.counts.of(state);
            if count > 0 {
                let _ = write!(text, "{count} {} ", state.word());
            }
        }
        text.push('\n');
        for reject in &self.rejects {
            let _ = writeln!(text, "  row {}: {}", reject.number, reject.reason);
        }
        let _ = writeln!(text, "postroom report {}", job.display());
        text
    }
}

/// What was made of a list.
pub(super) fn enlisted(enlisted: &Enlisting, source: &SourceRecord, again: bool) -> String {
    let mut text = format!("{} rows read, {} enlisted", source.rows, enlisted.added);
    if again {
        let _ = write!(text, ", {} known, {} removed", enlisted.known, enlisted.removed);
    }
    text.push('\n');
    for key in enlisted.removed_keys.iter().take(NAMED) {
        let _ = writeln!(text, "  removed: {key}");
    }
    text
}
