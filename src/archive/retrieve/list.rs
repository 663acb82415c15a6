//! Asking what the mailbox has: CAPA, STAT, LIST and UIDL.

use std::time::Instant;

use super::Work;
use crate::archive::listing::{self, Listed};
use crate::archive::session::{Session, SessionError, refusal};
use crate::wire::pop3::{Command, list_line, uidl_line};

/// No mailbox is longer.
const MAX_MESSAGES: usize = 10_000_000;

impl Work<'_> {
    /// CAPA after login, STAT, LIST and UIDL, together where the server takes that.
    pub(super) fn list(&mut self, session: &mut Session) -> Result<Vec<Listed>, SessionError> {
        let together = self.pipelines(session);
        let commands = [Command::Capa, Command::Stat, Command::List, Command::Uidl];
        let begun = Instant::now();
        if together {
            session.send(&commands)?;
        }
        let mut listing = Vec::new();
        let mut unreadable = 0;
        let mut stat = None;
        for (index, command) in commands.iter().enumerate() {
            if !together {
                session.send(std::slice::from_ref(command))?;
            }
            if let Command::Capa = command {
                session.capa_reply()?;
                continue;
            }
            let patience = if together { session.stall() } else { session.patience() };
            let reply = session.reply_within(patience)?;
            match command {
                Command::Stat if reply.is_ok() => stat = reply.first_number(),
                Command::List if reply.is_ok() => (listing, unreadable) = sizes(session)?,
                Command::Uidl if reply.is_ok() => {
                    self.named = true;
                    names(session, &mut listing)?;
                }
                Command::Uidl => self.warn(format!(
                    "the server has no UIDL (`{}`): messages are known again by header and size, or by fetching them",
                    reply.text
                )),
                // A server that stumbles may refuse all but the first command of a flight.
                _ if together && index > 0 => return Err(SessionError::Muddled),
                Command::Stat => {}
                _ => return Err(refusal(command.word(), reply)),
            }
        }
        // Silence that only a slow server explains is no stumble.
        if self.suspect && self.suspected.is_none() && !together && begun.elapsed() < session.stall() {
            self.stumbled();
        }
        self.suspect = false;
        self.check_listing(&listing, stat, unreadable);
        Ok(listing)
    }

    fn check_listing(&mut self, listing: &[Listed], stat: Option<u64>, unreadable: u64) {
        self.balance.on_server = Some(listing.len() as u64);
        self.balance.unlisted = stat.unwrap_or(0).saturating_sub(listing.len() as u64).max(unreadable);
        if unreadable > 0 {
            self.warn(format!("{unreadable} lines of LIST cannot be read; their messages cannot be fetched"));
        }
        if let Some(stat) = stat.filter(|&stat| stat != listing.len() as u64) {
            self.warn(format!("STAT counts {stat} messages, LIST has {}", listing.len()));
        }
        let without = listing.iter().filter(|listed| listed.uidl.is_none()).count();
        if without > 0 && without < listing.len() {
            self.warn(format!("UIDL names {} of {} messages", listing.len() - without, listing.len()));
        }
        let shared = listing::times(listing).values().filter(|&&times| times > 1).count();
        if shared > 0 {
            self.warn(format!("{shared} UIDLs are given to several messages each; those are never deleted"));
        }
    }
}

/// The lines of LIST, by number, and how many of them cannot be read.
fn sizes(session: &mut Session) -> Result<(Vec<Listed>, u64), SessionError> {
    let mut listing: Vec<Listed> = Vec::new();
    let mut in_order = true;
    let mut unreadable = 0;
    session.list("LIST", MAX_MESSAGES, |line| {
        let Some((number, size)) = list_line(line) else {
            unreadable += 1;
            return;
        };
        in_order &= listing.last().is_none_or(|last| last.number < number);
        listing.push(Listed { number, size, uidl: None });
    })?;
    if !in_order {
        listing.sort_by_key(|listed| listed.number);
        listing.dedup_by_key(|listed| listed.number);
    }
    Ok((listing, unreadable))
}

/// Enters the lines of UIDL.
fn names(session: &mut Session, listing: &mut [Listed]) -> Result<(), SessionError> {
    let mut at = 0;
    session.list("UIDL", MAX_MESSAGES, |line| {
        let Some((number, uidl)) = uidl_line(line) else { return };
        // Both lists come in the same order, so the next one is nearly always it.
        if listing.get(at).is_none_or(|listed| listed.number != number) {
            let Ok(found) = listing.binary_search_by_key(&number, |listed| listed.number) else {
                return;
            };
            at = found;
        }
        if let Some(listed) = listing.get_mut(at) {
            listed.uidl = Some(uidl.into());
        }
        at += 1;
    })?;
    Ok(())
}
