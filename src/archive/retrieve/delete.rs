//! Deleting what is due, after a last look at its files.

use std::collections::HashMap;
use std::fs::File;

use super::{FLIGHT, Mailbox, REFUSALS, Work};
use crate::archive::digest::Digest;
use crate::archive::journal::What;
use crate::archive::listing::{self, Listed};
use crate::archive::session::{Session, SessionError};
use crate::archive::shelf::Shelf;
use crate::archive::store::locked;
use crate::failpoint;
use crate::wire::pop3::Command;

impl Work<'_> {
    pub(super) fn delete(
        &mut self,
        session: &mut Session,
        listing: &[Listed],
        fetched: &HashMap<u32, i64>,
    ) -> Result<(), SessionError> {
        let Mailbox { known, name, delete, confirmed, .. } = self.mailbox;
        let due =
            listing::due(listing, &locked(known), name, delete, fetched, (self.mailbox.now)(), *confirmed);
        let due = match due {
            Ok(due) => due,
            Err(too_many) => {
                self.balance.too_many = Some(too_many);
                return Ok(());
            }
        };
        let due = self.sound(listing, due)?;
        let group = if self.pipelines(session) { FLIGHT } else { 1 };
        self.balance.refused = 0;
        let mut deleting = Vec::new();
        for flight in due.chunks(group) {
            failpoint::reach("archive.dele.before");
            let commands: Vec<Command<'_>> =
                flight.iter().map(|&index| Command::Dele(listing[index].number)).collect();
            session.send(&commands)?;
            for &index in flight {
                let reply = session.reply()?;
                let listed = &listing[index];
                if reply.is_ok() {
                    deleting.push(self.entry(What::Deleting, listed.uidl.as_deref()));
                } else {
                    self.balance.refused += 1;
                    // Each by its number would bury everything else where a mailbox may only be read.
                    if self.balance.refused <= REFUSALS as u64 {
                        let number = listed.number;
                        self.warn(format!("the server does not delete message {number}: {}", reply.text));
                    }
                }
            }
            failpoint::reach("archive.dele.after");
        }
        self.deleting = deleting.len() as u64;
        self.entries = deleting;
        Ok(())
    }

    /// Those of the due messages whose files hold, now, the bytes that were archived: deleting cannot be
    /// undone, so the last look is at the disk and not at the journal.
    fn sound(&mut self, listing: &[Listed], due: Vec<usize>) -> Result<Vec<usize>, SessionError> {
        let store = self.folder()?.path();
        let mut shelf = None;
        let mut sound = Vec::with_capacity(due.len());
        for index in due {
            let listed = &listing[index];
            let record = listed.uidl.as_deref().and_then(|uidl| {
                let known = locked(&self.mailbox.known);
                let uid = known.mailbox(&self.mailbox.name)?.uidls.get(uidl)?;
                known.file(uid.file).copied()
            });
            // Without a UIDL it was fetched and committed in this very session.
            let Some(record) = record else {
                sound.push(index);
                continue;
            };
            let shelf = match &shelf {
                Some(shelf) => shelf,
                None => shelf.insert(Shelf::of(store)?),
            };
            let place = shelf.place(&record)?;
            let digest =
                place.as_ref().map(|place| File::open(store.join(place)).and_then(Digest::of_reader));
            if matches!(digest, Some(Ok((digest, _))) if digest == record.sha256) {
                sound.push(index);
            } else {
                self.balance.unsound += 1;
                let place = place.unwrap_or_else(|| record.sha256.to_string());
                self.warn(format!(
                    "message {} is due for deletion and stays on the server: its file is missing or changed ({place})",
                    listed.number
                ));
            }
        }
        Ok(sound)
    }
}
