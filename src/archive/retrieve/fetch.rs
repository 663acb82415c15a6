//! Fetching: each message that is wanted, from RETR to the desk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Mailbox, REFUSALS, Work};
use crate::archive::balance::Failure;
use crate::archive::digest::Digest;
use crate::archive::listing::{Key, Listed};
use crate::archive::quarantine;
use crate::archive::session::{Session, SessionError};
use crate::archive::store::{Parcel, Receipt, StoreError};
use crate::measure::ByteSize;
use crate::wire::pop3::{Retrieval, Wanted, Window};

/// A message whose connection broke so often while it was coming is left for the next run.
const CUTS: u32 = 2;
/// Free space to leave when messages are fetched.
const RESERVE: u64 = 1 << 20;

impl Work<'_> {
    /// Fetches messages and hands them over. Returns the archiving times of those without a UIDL.
    pub(super) fn fetch(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        mut indices: Vec<usize>,
    ) -> Result<HashMap<u32, i64>, SessionError> {
        self.noted_last(listing, &mut indices)?;
        self.leave_monsters(listing, &mut indices)?;
        let counts = Arc::clone(&self.mailbox.counts);
        let received = counts.received.load(Relaxed);
        let allowed = self.mailbox.limit.map_or(usize::MAX, |limit| limit.saturating_sub(received) as usize);
        if indices.len() > allowed {
            self.balance.skipped += (indices.len() - allowed) as u64;
            indices.truncate(allowed);
        }
        let by_number: HashMap<u32, usize> =
            indices.iter().map(|&index| (listing[index].number, index)).collect();
        let wanted: Vec<Wanted> = indices
            .iter()
            .map(|&index| Wanted { number: listing[index].number, size: listing[index].size })
            .collect();
        counts.wanted.store(received + wanted.len() as u64, Relaxed);
        let bytes: u64 = wanted.iter().map(|wanted| wanted.size).sum();
        counts.wanted_bytes.store(counts.received_bytes.load(Relaxed) + bytes, Relaxed);

        let window = Window::default();
        let mut retrieval = Retrieval::new(wanted, window, self.pipelines(session));
        let mut flight = Vec::new();
        let mut refused: Vec<(Wanted, String)> = Vec::new();
        let mut in_a_row = 0;
        // Asked for again alone: those refused when sent together, and one whose size surprised.
        let mut alone: HashSet<u32> = HashSet::new();
        let mut audit: Option<(u32, Digest)> = None;
        let mut fetched = HashMap::new();
        loop {
            if self.mailbox.stop.asked() {
                retrieval.stop();
            }
            flight.clear();
            // While an odd size is looked into nothing else is asked for.
            let asked = match audit {
                Some(_) => retrieval.command_alone(&mut flight),
                None => retrieval.commands(&mut flight),
            };
            if asked > 0 {
                let coming: u64 = retrieval.asked().map(|wanted| wanted.size).sum();
                self.folder()?.room_for(coming + coming / 8 + RESERVE)?;
                session.send_prepared(&flight, asked)?;
            }
            let Some(current) = retrieval.current() else {
                if refused.is_empty() {
                    break;
                }
                retrieval.step_down();
                for (wanted, _) in refused.drain(..) {
                    alone.insert(wanted.number);
                    retrieval.again(wanted);
                }
                continue;
            };
            let several = retrieval.asked().nth(1).is_some();
            let patience = if several { session.stall() } else { session.patience() };
            let listed = &listing[by_number[&current.number]];
            let reply = match session.reply_within(patience) {
                Ok(reply) => reply,
                Err(error) => {
                    self.at_message = true;
                    // Asked for together with others it may not be at fault: that shows when it is asked for alone.
                    if several && !self.balance_has_cut() {
                        self.suspected = Some(listed.key());
                    } else {
                        self.cut(listed, &error, "instead of it", &[])?;
                    }
                    return Err(error);
                }
            };
            if !reply.is_ok() {
                retrieval.answered();
                let was_alone = alone.contains(&current.number) || !retrieval.is_pipelined();
                if was_alone && !several {
                    self.fail(listed, reply.text, &[])?;
                } else {
                    refused.push((current, reply.text));
                    in_a_row += 1;
                    if in_a_row >= REFUSALS {
                        retrieval.step_down();
                    }
                }
                continue;
            }
            in_a_row = 0;
            let mut incoming = self.folder()?.begin(std::mem::take(&mut self.buffer));
            let came = session.content(session.patience(), |piece| incoming.write(piece));
            let size = match came {
                Ok(size) => size,
                Err(SessionError::Store(trouble)) => {
                    self.buffer = incoming.abandon();
                    return Err(SessionError::Store(trouble));
                }
                Err(error) => {
                    let noted = self.cut(listed, &error, "in the middle of it", incoming.beginning());
                    self.buffer = incoming.abandon();
                    noted?;
                    return Err(error);
                }
            };
            // Servers that add a last line end do not count it.
            let odd = size != current.size && size != current.size + 2;
            match audit.take() {
                // It came again, alone: the same bytes mean that LIST lies, others that the order was lost.
                Some((number, digest)) if number == current.number && !several => {
                    let (receipt, buffer) = incoming.finish()?;
                    self.buffer = buffer;
                    if receipt.sha256 == digest {
                        self.liar = true;
                    } else {
                        self.stumbled();
                        retrieval.step_down();
                    }
                    retrieval.answered();
                    self.hand_over(listed, size, odd, receipt, &mut fetched)?;
                    continue;
                }
                Some(pending) => {
                    // In flight behind the odd one: it may be another's, and is asked for again.
                    audit = Some(pending);
                    self.buffer = incoming.abandon();
                    retrieval.answered();
                    retrieval.again(current);
                    continue;
                }
                None => {}
            }
            if odd && several && retrieval.is_pipelined() && !self.liar {
                let (receipt, buffer) = incoming.finish()?;
                self.buffer = buffer;
                self.folder()?.discard(&receipt);
                audit = Some((current.number, receipt.sha256));
                retrieval.answered();
                retrieval.first(current);
                continue;
            }
            let (receipt, buffer) = incoming.finish()?;
            self.buffer = buffer;
            retrieval.answered();
            if alone.remove(&current.number) {
                // Refused when sent together, given when asked for alone.
                self.stumbled();
            }
            self.hand_over(listed, size, odd, receipt, &mut fetched)?;
        }
        if self.mailbox.stop.asked() {
            self.commit()?;
            return Err(SessionError::Stopped);
        }
        Ok(fetched)
    }

    /// Puts what could not be archived by an earlier run behind all others: should it fail again, those are
    /// here.
    fn noted_last(&self, listing: &[Listed], indices: &mut [usize]) -> Result<(), SessionError> {
        // Notes that cannot be read only cost the order.
        let notes = quarantine::notes(self.folder()?.path()).unwrap_or_default();
        let notes = notes.into_iter().filter(|note| *note.mailbox == *self.mailbox.name);
        let noted: HashSet<Key> = notes.map(|note| note.message.into()).collect();
        if !noted.is_empty() {
            indices.sort_by_key(|&index| noted.contains(&listing[index].key()));
        }
        Ok(())
    }

    /// A size that no disk here has room for is one message's trouble, or a lie about it: the others come all the
    /// same.
    fn leave_monsters(&mut self, listing: &[Listed], indices: &mut Vec<usize>) -> Result<(), SessionError> {
        let Some(largest) = indices.iter().map(|&index| listing[index].size).max() else { return Ok(()) };
        if !self.folder()?.is_too_small_for(largest)? {
            return Ok(());
        }
        for index in std::mem::take(indices) {
            let listed = &listing[index];
            if self.folder()?.is_too_small_for(listed.size)? {
                let size = ByteSize(listed.size);
                self.fail(
                    listed,
                    format!("by LIST it has {size}, more than the whole disk of the archive"),
                    &[],
                )?;
            } else {
                indices.push(index);
            }
        }
        Ok(())
    }

    /// The connection broke at a message. It is given up once that has happened too often.
    fn cut(
        &mut self,
        listed: &Listed,
        error: &SessionError,
        place: &str,
        beginning: &[u8],
    ) -> Result<(), SessionError> {
        if let SessionError::Stopped = error {
            return Ok(());
        }
        self.suspected = None;
        let cuts = self.cuts.entry(listed.key()).or_insert(0);
        *cuts += 1;
        if *cuts < CUTS {
            return Ok(());
        }
        let reason = format!("the connection broke {cuts} times {place}: {error}");
        self.left_in_a_row += 1;
        self.fail(listed, reason, beginning)
    }

    fn hand_over(
        &mut self,
        listed: &Listed,
        size: u64,
        odd: bool,
        receipt: Receipt,
        fetched: &mut HashMap<u32, i64>,
    ) -> Result<(), SessionError> {
        self.left_in_a_row = 0;
        if self.suspected.take_if(|key| **key == *listed.key()).is_some() && !self.together {
            // Alone it comes.
            self.stumbled();
        }
        if odd {
            self.lies.0 += 1;
            self.lies.1.get_or_insert((listed.number, listed.size, size));
        }
        if listed.uidl.is_none() {
            fetched.insert(listed.number, (self.mailbox.now)());
        }
        let counts = &self.mailbox.counts;
        counts.received.fetch_add(1, Relaxed);
        counts.received_bytes.fetch_add(listed.size, Relaxed);
        let parcel = Parcel {
            mailbox: Arc::clone(&self.mailbox.name),
            uidl: listed.uidl.clone(),
            listed: listed.size,
            receipt,
        };
        Ok(self.mailbox.desk.hand_over(parcel, counts)?)
    }

    /// A message is given up for this run.
    fn fail(&mut self, listed: &Listed, reason: String, beginning: &[u8]) -> Result<(), SessionError> {
        let Mailbox { name, now, .. } = self.mailbox;
        let folder = self.folder()?;
        let message = listed.key();
        quarantine::note(folder.path(), name, &message, listed.size, &reason, beginning, now()).map_err(
            |source| StoreError::Io {
                doing: "write the quarantine of",
                path: folder.path().to_owned(),
                source,
            },
        )?;
        let failure = Failure { number: listed.number, uidl: listed.uidl.clone(), reason };
        self.failed.insert(message, failure);
        Ok(())
    }
}
