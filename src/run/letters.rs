//! Makes letters of claimed rows: the plan's craft under the engine's name for it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::diagnostic::with_causes;
use crate::dispatch::{Maker, Unmade};
use crate::job::SourceSpec;
use crate::ledger::{Claimed, Edition, Ledger as _, LedgerError, Mark, Settlement, Sqlite};
use crate::letter::{Answer, Columns, Content, Message, Outcome, Purpose, RcptOutcome, Row};
use crate::plan::{Identity, Plan, Unasked, Unwritten, Written};
use crate::talk;

use super::kept::Kept;

/// The maker of an edition's letters.
pub(super) struct Letters {
    plan: Arc<Plan>,
    secret: [u8; 32],
    edition: String,
    layouts: Vec<Arc<Columns>>,
    unasked: Unasked,
    /// Whether the ledger is told the content's BLAKE3.
    digests: bool,
    kept: Option<Arc<Kept>>,
    /// What was said last about a suppress file that cannot be read.
    said: Mutex<String>,
}

impl Letters {
    /// Makes an edition's letters.
    pub(super) fn new(
        plan: &Arc<Plan>,
        edition: &Edition,
        ledger: &Sqlite,
        kept: Option<Arc<Kept>>,
    ) -> Result<Letters, LedgerError> {
        let mut unasked = Unasked::default();
        if matches!(plan.job.recipients.source, SourceSpec::Stdin { .. }) {
            // Such a list is not read again, and the ledger has no rows without a letter.
            unasked.filtered = edition.source.filtered > 0;
            unasked.rejected = ledger.reader()?.standing(edition.id)?.rejected > 0;
        }
        Ok(Letters {
            plan: Arc::clone(plan),
            secret: ledger.secret(),
            edition: edition.name.clone(),
            layouts: layouts(edition),
            unasked,
            digests: plan.purpose == Purpose::Real && plan.job.keep.is_some(),
            kept,
            said: Mutex::default(),
        })
    }
}

/// The columns of an edition's rows.
pub(super) fn layouts(edition: &Edition) -> Vec<Arc<Columns>> {
    let columns = |names: &Option<Vec<_>>| Arc::new(Columns::new(names.clone().unwrap_or_default()));
    edition.layouts.iter().map(columns).collect()
}

impl Maker for Letters {
    fn make(&self, claimed: &Claimed, now: i64) -> Result<(Message, Mark), Unmade> {
        let failed = |addresses: Vec<String>, reason: &str| {
            // Where nobody is left to write to, the outcomes that the letter has stand.
            let unknown = addresses.is_empty() && claimed.settled.is_empty();
            let addresses = if unknown { vec![claimed.key.clone()] } else { addresses };
            let answer = Answer { code: 0, enhanced: None, text: reason.to_owned() };
            let rcpt = |address| RcptOutcome { address, outcome: Outcome::Failed, answer: answer.clone() };
            Unmade::Failed(addresses.into_iter().map(rcpt).collect())
        };
        let columns = self.layouts.get(claimed.layout);
        let row = columns.and_then(|columns| Row::from_json(claimed.number, &claimed.row, columns));
        let row = row.ok_or_else(|| failed(Vec::new(), "its row in the ledger cannot be read"))?;
        let date = claimed.date.unwrap_or(now);
        let identity = Identity {
            secret: &self.secret,
            edition: &self.edition,
            key: &claimed.key,
            generation: claimed.generation,
            date,
            enclosed: claimed.enclosed,
            unasked: self.unasked,
            settled: &claimed.settled,
            // Of a letter that goes anew nobody has seen the Cc.
            deferred: if claimed.date.is_some() { &claimed.deferred } else { &[] },
        };
        match self.plan.letter(&row, &identity) {
            Ok(Written { message, message_id, files }) => {
                if let Some(kept) = &self.kept {
                    let written = kept.write(claimed.seq, &claimed.key, &message_id, &message.content);
                    written.map_err(|error| Unmade::Broken(with_causes(&error)))?;
                }
                let digest = self.digests.then(|| digest(&message.content));
                let mark = Mark { seq: claimed.seq, date, at: now, message_id, files, digest };
                Ok((message, mark))
            }
            Err(Unwritten::Suppressed) => Err(Unmade::Suppressed),
            Err(Unwritten::Failed { addresses, reason }) => Err(failed(addresses, &reason)),
        }
    }

    fn suppressed(&self, message: &Message) -> bool {
        self.plan.is_suppressed(message)
    }

    fn settled(&self, settlements: &[Settlement]) {
        if let Some(kept) = &self.kept {
            kept.settled(settlements);
        }
    }

    fn refresh(&self) -> bool {
        self.plan.refresh_suppressed().unwrap_or_else(|error| {
            // Said once, not at each look.
            let words = error.to_string();
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if *said != words {
                talk::error(&format!("{words}; the suppress list stays as it was"));
                *said = words;
            }
            false
        })
    }
}

/// BLAKE3 of a letter as it goes over the wire.
fn digest(content: &Content) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for stretch in content.iter() {
        hasher.update(stretch);
    }
    *hasher.finalize().as_bytes()
}
