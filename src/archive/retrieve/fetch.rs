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
use crate::archive::store::{Incoming, Parcel, Receipt, StoreError};
use crate::measure::ByteSize;
use crate::wire::pop3::{Reply, Retrieval, Wanted, Window};

/// A message whose connection broke so often while it was coming is left for the next run.
const CUTS: u32 = 2;
/// Free space to leave when messages are fetched.
const RESERVE: u64 = 1 << 20;

/// The messages of one session that are to come, and how it stands with those that did not come at once.
struct Coming<'l> {
    /// By number.
    listed: HashMap<u32, &'l Listed>,
    retrieval: Retrieval,
    /// Refused while several were asked for.
    refused: Vec<Wanted>,
    /// So many of them since a message came.
    refused_in_a_row: usize,
    /// Those that were refused, once they are asked for again one by one.
    alone: HashSet<u32>,
    /// Came in an odd size while several were asked for: its number, and the hash of what came.
    odd: Option<(u32, Digest)>,
    /// When those without a UIDL were archived.
    archived: HashMap<u32, i64>,
}

/// The message that the next reply answers.
#[derive(Clone, Copy)]
struct Next<'l> {
    wanted: Wanted,
    listed: &'l Listed,
    /// Others were asked for behind it.
    several: bool,
}

impl<'l> Coming<'l> {
    fn new(listing: &'l [Listed], indices: &[usize], pipelined: bool) -> Coming<'l> {
        let listed = || indices.iter().map(|&index| &listing[index]);
        let wanted = listed().map(|listed| Wanted { number: listed.number, size: listed.size }).collect();
        Coming {
            listed: listed().map(|listed| (listed.number, listed)).collect(),
            retrieval: Retrieval::new(wanted, Window::default(), pipelined),
            refused: Vec::new(),
            refused_in_a_row: 0,
            alone: HashSet::new(),
            odd: None,
            archived: HashMap::new(),
        }
    }

    fn next(&self) -> Option<Next<'l>> {
        let wanted = self.retrieval.current()?;
        let several = self.retrieval.asked().nth(1).is_some();
        Some(Next { wanted, listed: self.listed[&wanted.number], several })
    }

    /// Wants those that were refused once more, one by one.
    fn ask_again_alone(&mut self) {
        self.retrieval.step_down();
        for wanted in self.refused.drain(..) {
            self.alone.insert(wanted.number);
            self.retrieval.again(wanted);
        }
    }
}

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
        self.keep_the_limit(&mut indices);
        self.count_wanted(listing, &indices);
        let mut coming = Coming::new(listing, &indices, self.pipelines(session));
        loop {
            if self.mailbox.stop.asked() {
                coming.retrieval.stop();
            }
            self.ask(session, &mut coming)?;
            match coming.next() {
                Some(next) => self.receive(session, &mut coming, next)?,
                None if coming.refused.is_empty() => break,
                None => coming.ask_again_alone(),
            }
        }
        if self.mailbox.stop.asked() {
            self.commit()?;
            return Err(SessionError::Stopped);
        }
        Ok(coming.archived)
    }

    /// Asks for as many as may be on their way now.
    fn ask(&mut self, session: &mut Session, coming: &mut Coming<'_>) -> Result<(), SessionError> {
        let mut commands = Vec::new();
        // While an odd size is looked into nothing else is asked for.
        let asked = match coming.odd {
            Some(_) => coming.retrieval.command_alone(&mut commands),
            None => coming.retrieval.commands(&mut commands),
        };
        if asked > 0 {
            let bytes: u64 = coming.retrieval.asked().map(|wanted| wanted.size).sum();
            self.folder()?.room_for(bytes + bytes / 8 + RESERVE)?;
            session.send_prepared(&commands, asked)?;
        }
        Ok(())
    }

    /// Takes what answers the next RETR: a refusal, or the message.
    fn receive<'l>(
        &mut self,
        session: &mut Session,
        coming: &mut Coming<'l>,
        next: Next<'l>,
    ) -> Result<(), SessionError> {
        let reply = self.reply(session, next)?;
        if !reply.is_ok() {
            return self.refused(coming, next, reply.text);
        }
        coming.refused_in_a_row = 0;
        let (incoming, size) = self.take_in(session, next)?;
        coming.retrieval.answered();
        if coming.odd.is_some_and(|(number, _)| number != next.wanted.number || next.several) {
            // In flight behind the odd one: it may be another's, and is asked for again.
            self.buffer = incoming.abandon();
            coming.retrieval.again(next.wanted);
            return Ok(());
        }
        let (receipt, buffer) = incoming.finish()?;
        self.buffer = buffer;
        // Servers that add a last line end do not count it.
        let odd = size != next.wanted.size && size != next.wanted.size + 2;
        if let Some((_, digest)) = coming.odd.take() {
            self.came_again(coming, receipt.sha256 == digest);
        } else if odd && next.several && coming.retrieval.is_pipelined() && !self.liar {
            self.folder()?.discard(&receipt);
            coming.odd = Some((next.wanted.number, receipt.sha256));
            coming.retrieval.first(next.wanted);
            return Ok(());
        } else if coming.alone.remove(&next.wanted.number) {
            // Refused when sent together, given when asked for alone.
            self.stumbled();
        }
        if odd {
            self.lies.0 += 1;
            self.lies.1.get_or_insert((next.wanted.number, next.wanted.size, size));
        }
        if next.listed.uidl.is_none() {
            coming.archived.insert(next.wanted.number, (self.mailbox.now)());
        }
        self.hand_over(next.listed, receipt)
    }

    /// Waits for the reply to RETR.
    fn reply(&mut self, session: &mut Session, next: Next<'_>) -> Result<Reply, SessionError> {
        let patience = if next.several { session.stall() } else { session.patience() };
        session.reply_within(patience).or_else(|error| {
            self.at_message = true;
            // Asked for together with others it may not be at fault: that shows when it is asked for alone.
            if next.several && !self.balance_has_cut() {
                self.suspected = Some(next.listed.key());
            } else {
                self.cut(next.listed, &error, "instead of it", &[])?;
            }
            Err(error)
        })
    }

    /// A refusal counts if nothing was asked for beside it.
    fn refused(&mut self, coming: &mut Coming<'_>, next: Next<'_>, text: String) -> Result<(), SessionError> {
        coming.retrieval.answered();
        if coming.odd.take_if(|(number, _)| *number == next.wanted.number).is_some() {
            // What came first was not kept, and whose it was is not to be found out. One by one nothing else is
            // asked for twice, in the next run neither.
            self.stumbled();
            coming.retrieval.step_down();
        }
        let one_by_one = coming.alone.contains(&next.wanted.number) || !coming.retrieval.is_pipelined();
        if one_by_one && !next.several {
            return self.fail(next.listed, text, &[]);
        }
        coming.refused.push(next.wanted);
        coming.refused_in_a_row += 1;
        if coming.refused_in_a_row >= REFUSALS {
            coming.retrieval.step_down();
        }
        Ok(())
    }

    /// Writes a message aside as it comes, and gives its size.
    fn take_in(
        &mut self,
        session: &mut Session,
        next: Next<'_>,
    ) -> Result<(Incoming<'_>, u64), SessionError> {
        let mut incoming = self.folder()?.begin(std::mem::take(&mut self.buffer));
        match session.content(session.patience(), |piece| incoming.write(piece)) {
            Ok(size) => Ok((incoming, size)),
            Err(error) => {
                let noted = match &error {
                    SessionError::Store(_) => Ok(()),
                    _ => self.cut(next.listed, &error, "in the middle of it", incoming.beginning()),
                };
                self.buffer = incoming.abandon();
                noted.and(Err(error))
            }
        }
    }

    /// A message of an odd size came again, alone. The same bytes mean that LIST lies, others that the order
    /// was lost.
    fn came_again(&mut self, coming: &mut Coming<'_>, the_same: bool) {
        if the_same {
            self.liar = true;
        } else {
            self.stumbled();
            coming.retrieval.step_down();
        }
    }

    fn keep_the_limit(&mut self, indices: &mut Vec<usize>) {
        let received = self.mailbox.counts.received.load(Relaxed);
        let allowed = self.mailbox.limit.map_or(usize::MAX, |limit| limit.saturating_sub(received) as usize);
        self.balance.skipped += indices.len().saturating_sub(allowed) as u64;
        indices.truncate(allowed);
    }

    fn count_wanted(&self, listing: &[Listed], indices: &[usize]) {
        let counts = &self.mailbox.counts;
        let bytes: u64 = indices.iter().map(|&index| listing[index].size).sum();
        counts.wanted.store(counts.received.load(Relaxed) + indices.len() as u64, Relaxed);
        counts.wanted_bytes.store(counts.received_bytes.load(Relaxed) + bytes, Relaxed);
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

    /// Hands a message over, to be committed.
    fn hand_over(&mut self, listed: &Listed, receipt: Receipt) -> Result<(), SessionError> {
        self.left_in_a_row = 0;
        if self.suspected.take_if(|key| **key == *listed.key()).is_some() && !self.together {
            // Alone it comes.
            self.stumbled();
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
