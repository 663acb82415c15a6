//! `--only KEY`: a queue of nobody else.

use crate::ledger::{Claimed, Domains, EditionId, Flags, LedgerError, Queue, Reader, State};
use crate::letter::Purpose;

/// Reads the ledger as if these deliveries were all there is to claim.
pub(super) struct Only {
    reader: Box<dyn Reader>,
    seqs: Vec<u64>,
}

impl Only {
    /// Finds the deliveries of these keys; the first key that the edition does not have, if any.
    pub(super) fn find(
        reader: Box<dyn Reader>,
        edition: EditionId,
        keys: &[String],
    ) -> Result<Result<Only, String>, LedgerError> {
        let found = reader.find_keys(edition, keys)?;
        if let Some(stranger) = found.iter().position(Option::is_none) {
            return Ok(Err(keys[stranger].clone()));
        }
        let mut seqs: Vec<u64> = found.into_iter().flatten().collect();
        seqs.sort_unstable();
        seqs.dedup();
        Ok(Ok(Only { reader, seqs }))
    }

    /// Of these behind `after` at most `limit` that `next` gives: the next one behind a number. Altogether that
    /// reads the edition once at most.
    fn behind(
        &self,
        after: u64,
        limit: usize,
        next: impl Fn(u64) -> Result<Vec<Claimed>, LedgerError>,
    ) -> Result<Vec<Claimed>, LedgerError> {
        let mut wanted = &self.seqs[self.seqs.partition_point(|&seq| seq <= after)..];
        let mut claimed = Vec::new();
        while let Some(seq) = wanted.first().filter(|_| claimed.len() < limit) {
            let Some(found) = next(seq - 1)?.pop() else { break };
            // It may be somebody else. Those before it are not to be claimed.
            wanted = &wanted[wanted.partition_point(|&seq| seq < found.seq)..];
            if wanted.first() == Some(&found.seq) {
                wanted = &wanted[1..];
                claimed.push(found);
            }
        }
        Ok(claimed)
    }

    /// Those that are deferred, and when each is due.
    fn deferred(&self, edition: EditionId) -> Result<Vec<(i64, u64)>, LedgerError> {
        let mut deferred = Vec::new();
        for &seq in &self.seqs {
            let record = self.reader.letter(edition, seq)?.map(|letter| letter.record);
            if let Some(record) = record.filter(|record| record.state == State::Deferred) {
                deferred.extend(record.next_attempt.map(|at| (at, seq)));
            }
        }
        Ok(deferred)
    }
}

impl Queue for Only {
    fn claim(&self, edition: EditionId, after: u64, limit: usize) -> Result<Vec<Claimed>, LedgerError> {
        self.behind(after, limit, |before| self.reader.rows_in(edition, &[State::Pending], before, 1))
    }

    fn claim_of(
        &self,
        edition: EditionId,
        domains: &Domains,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError> {
        self.behind(after, limit, |before| self.reader.claim_of(edition, domains, before, 1))
    }

    fn claim_due(&self, edition: EditionId, now: i64, limit: usize) -> Result<Vec<Claimed>, LedgerError> {
        let mut due: Vec<(i64, u64)> = self.deferred(edition)?;
        due.retain(|(at, _)| *at <= now);
        due.sort_unstable();
        let seqs: Vec<u64> = due.into_iter().take(limit).map(|(_, seq)| seq).collect();
        self.reader.claim_these(edition, &seqs)
    }

    /// Those who are deferred and not wanted are nobody to wait for.
    fn next_due(&self, edition: EditionId, after: i64) -> Result<Option<i64>, LedgerError> {
        Ok(self.deferred(edition)?.into_iter().map(|(at, _)| at).filter(|at| *at > after).min())
    }

    fn flags(&self, job: &str, purpose: Purpose) -> Result<Flags, LedgerError> {
        self.reader.flags(job, purpose)
    }
}
