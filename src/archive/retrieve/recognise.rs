//! Knowing messages again that have other names than they were archived under: by size and header.

use std::time::Duration;

use super::{FLIGHT, Work};
use crate::archive::journal::{Entry, What};
use crate::archive::known::Record;
use crate::archive::listing::{self, Listed};
use crate::archive::session::{Session, SessionError};
use crate::archive::shelf::Shelf;
use crate::archive::store::{StoreError, head_hash, locked};
use crate::read;
use crate::wire::pop3::Command;

/// A header longer than this is not looked at.
const MAX_HEADER: usize = 128 * 1024;

impl Work<'_> {
    /// Asks for the headers of candidates, and takes out of what is wanted those that are archived under
    /// another UIDL: same size, same header.
    pub(super) fn recognise(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        mut wanted: Vec<usize>,
        candidates: Vec<usize>,
    ) -> Result<Vec<usize>, SessionError> {
        self.balance.skipped = 0;
        let Some(&first) = candidates.first() else { return Ok(wanted) };
        if !session.capabilities.top && !has_top(session, listing[first].number)? {
            wanted.extend(candidates);
            wanted.sort_unstable();
            return Ok(wanted);
        }
        let archived = listing::recognised(listing, &locked(&self.mailbox.known), &self.mailbox.name);
        let shelf = Shelf::of(self.folder()?.path())?;
        let group = if self.pipelines(session) { FLIGHT } else { 1 };
        for flight in candidates.chunks(group) {
            let commands: Vec<Command<'_>> =
                flight.iter().map(|&index| Command::Top(listing[index].number, 0)).collect();
            session.send(&commands)?;
            for &index in flight {
                let listed = &listing[index];
                let patience = if group > 1 { session.stall() } else { session.patience() };
                match header(session, patience)?.and_then(|head| archived(listed.size, head)) {
                    // What is lost here is worth fetching, whatever its name.
                    Some(record) if shelf.holds(&record)? => self.pass_over(listed, &record),
                    _ => wanted.push(index),
                }
            }
        }
        if self.balance.skipped > 0 {
            self.warn(format!(
                "{} messages have the size and header of archived ones, under other UIDLs or none, and were not \
                 fetched again",
                self.balance.skipped
            ));
        }
        wanted.sort_unstable();
        Ok(wanted)
    }

    /// This one is archived already, as far as likeness can tell.
    fn pass_over(&mut self, listed: &Listed, record: &Record) {
        self.balance.skipped += 1;
        if let Some(uidl) = listed.uidl.as_deref() {
            self.entries.push(Entry {
                sha256: Some(record.sha256),
                size: record.size,
                listed: listed.size,
                head: record.head,
                ..self.entry(What::Probably, Some(uidl))
            });
        }
    }
}

/// The hash of the header that answers a TOP; `None` where it is refused.
fn header(session: &mut Session, patience: Duration) -> Result<Option<u64>, SessionError> {
    if !session.reply_within(patience)?.is_ok() {
        return Ok(None);
    }
    let mut header = Vec::new();
    session.content(session.patience(), |piece| {
        let room = MAX_HEADER.saturating_sub(header.len());
        header.extend_from_slice(&piece[..piece.len().min(room)]);
        Ok::<(), StoreError>(())
    })?;
    let (end, _) = read::header_end(&header);
    Ok(Some(head_hash(&header[..end])))
}

/// TOP is older than CAPA: whether a server has it that does not say so is seen by asking once.
fn has_top(session: &mut Session, number: u32) -> Result<bool, SessionError> {
    let reply = session.ask(Command::Top(number, 0))?;
    if reply.is_ok() {
        session.content(session.patience(), |_| Ok::<(), StoreError>(()))?;
    }
    Ok(reply.is_ok())
}
