//! Reckoning with what is known: which UIDLs of earlier runs still say something, and what is to be fetched.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use super::Work;
use crate::archive::committer::Counts;
use crate::archive::journal::{Entry, What};
use crate::archive::listing::{self, Listed, Standing};
use crate::archive::session::SessionError;
use crate::archive::shelf::Shelf;
use crate::archive::store::locked;
use crate::job::Deletion;

/// How many known UIDLs say nothing any more, by the reason.
#[derive(Debug, Default)]
struct Outdated {
    /// Deleted, as was asked for.
    deleted: u64,
    /// Listed though their deletion was asked for.
    still: u64,
    /// Listed with another size.
    resized: u64,
    /// Their files are not in the store.
    lost: u64,
}

impl Work<'_> {
    /// Compares the listing with what is known: which deletions of earlier runs are done, and which UIDLs say
    /// nothing any more. Those are forgotten before anything is judged by them.
    pub(super) fn reckon(&mut self, listing: &[Listed]) -> Result<(), SessionError> {
        // Without UIDLs nothing is seen to be absent.
        if !self.named {
            return Ok(());
        }
        let listed = listing::times(listing);
        let lost = self.lost(&self.files_of(&listed))?;
        let (entries, outdated) = self.outdated(listing, &listed, &lost);
        self.balance.deleted += outdated.deleted;
        self.warn_of(outdated);
        if entries.is_empty() {
            return Ok(());
        }
        self.entries.extend(entries);
        self.commit()
    }

    /// The files of those that are listed and known.
    fn files_of(&self, listed: &HashMap<&str, u32>) -> Vec<u32> {
        let known = locked(&self.mailbox.known);
        let Some(mailbox) = known.mailbox(&self.mailbox.name) else { return Vec::new() };
        let here = mailbox.uidls.iter().filter(|(uidl, _)| listed.contains_key(&***uidl));
        let mut files: Vec<u32> = here.map(|(_, uid)| uid.file).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// What the journal is to say of the known UIDLs that say nothing any more.
    fn outdated(
        &self,
        listing: &[Listed],
        listed: &HashMap<&str, u32>,
        lost: &HashSet<u32>,
    ) -> (Vec<Entry>, Outdated) {
        let (mut entries, mut outdated) = (Vec::new(), Outdated::default());
        let known = locked(&self.mailbox.known);
        let Some(mailbox) = known.mailbox(&self.mailbox.name) else { return (entries, outdated) };
        let doubtful = listing::doubtful(listing, mailbox, self.mailbox.delete);
        for (uidl, uid) in &mailbox.uidls {
            let what = match (listed.contains_key(&**uidl), uid.deleting) {
                (true, _) if lost.contains(&uid.file) => {
                    outdated.lost += 1;
                    What::Gone
                }
                (true, _) if !doubtful.contains(&**uidl) => continue,
                (true, true) => {
                    outdated.still += 1;
                    What::Gone
                }
                (true, false) => {
                    outdated.resized += 1;
                    What::Gone
                }
                (false, true) => {
                    outdated.deleted += 1;
                    What::Deleted
                }
                // Should it come back, it may be another message's name.
                (false, false) => What::Gone,
            };
            entries.push(self.entry(what, Some(uidl)));
        }
        (entries, outdated)
    }

    fn warn_of(&mut self, outdated: Outdated) {
        let Outdated { still, resized, lost, deleted: _ } = outdated;
        if still > 0 {
            self.warn(format!(
                "{still} messages are still there though their deletion was asked for, or others have their UIDLs; \
                 they are fetched anew"
            ));
        }
        if resized > 0 {
            self.warn(format!(
                "the server lists known UIDLs with other sizes than before: they may be other messages' by now, and \
                 {resized} messages are fetched anew"
            ));
        }
        if lost > 0 {
            self.warn(format!(
                "the files of {lost} archived messages are missing or have another size; they are fetched again"
            ));
        }
    }

    /// Those of the files that are not in the store as long as they must be.
    fn lost(&self, files: &[u32]) -> Result<HashSet<u32>, SessionError> {
        let mut lost = HashSet::new();
        if files.is_empty() {
            return Ok(lost);
        }
        let shelf = Shelf::of(self.folder()?.path())?;
        for &file in files {
            let record = locked(&self.mailbox.known).file(file).copied();
            let Some(record) = record else { continue };
            if !shelf.holds(&record)? {
                shelf.make_room(&record)?;
                lost.insert(file);
            }
        }
        Ok(lost)
    }

    /// Indices of the listing: what is to be fetched, and what may be known under another name.
    pub(super) fn sort(&mut self, listing: &[Listed]) -> (Vec<usize>, Vec<usize>) {
        let known = locked(&self.mailbox.known);
        let standings = listing::standings(listing, &known, &self.mailbox.name, self.mailbox.delete);
        drop(known);
        let (mut wanted, mut candidates) = (Vec::new(), Vec::new());
        let (mut certain, mut probable) = (0, 0);
        for (index, standing) in standings.iter().enumerate() {
            let failed = self.failed.contains_key(&listing[index].key());
            match standing {
                Standing::Known => certain += 1,
                // Deleting asks for bytes, not for likeness.
                Standing::Probable if *self.mailbox.delete == Deletion::Never => probable += 1,
                _ if failed => {}
                Standing::Candidate if *self.mailbox.delete == Deletion::Never => candidates.push(index),
                Standing::Probable | Standing::Candidate | Standing::Doubtful | Standing::Wanted => {
                    wanted.push(index);
                }
            }
        }
        let Counts { new, duplicate, .. } = &*self.mailbox.counts;
        let by_this_run = new.load(Relaxed) + duplicate.load(Relaxed);
        self.balance.known = u64::saturating_sub(certain + probable, by_this_run.min(certain));
        (wanted, candidates)
    }
}
