//! What a mailbox lists, and what follows from it: which messages are known, which are wanted, which
//! may be deleted. Pure: the listing, the journal's knowledge and the time are arguments.

use std::collections::{HashMap, HashSet};

use super::known::{Known, Mailbox, Record};
use crate::job::Deletion;

/// A message on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number in this session.
    pub number: u32,
    /// Octets by LIST.
    pub size: u64,
    /// The server's name for it across sessions, where it has one.
    pub uidl: Option<Box<str>>,
}

/// What identifies a message over the sessions of one run: its UIDL, or else its number.
pub type Key = Box<str>;

/// The key of a message.
pub(super) fn key(uidl: Option<&str>, number: u32) -> Key {
    uidl.map_or_else(|| format!("#{number}").into(), Box::from)
}

impl Listed {
    pub(super) fn key(&self) -> Key {
        key(self.uidl.as_deref(), self.number)
    }
}

/// What is to be done about a listed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Archived before, its bytes hashed.
    Known,
    /// Archived before by its UIDL, and it may be another message by now. To be fetched.
    Doubtful,
    /// Taken for an archived one by header and size in an earlier run.
    Probable,
    /// To be fetched.
    Wanted,
    /// To be fetched, unless its header is that of an archived message which the listing no longer has.
    Candidate,
}

/// Where every listed message stands, in the order of the listing.
pub fn standings(listing: &[Listed], known: &Known, mailbox: &str, policy: &Deletion) -> Vec<Standing> {
    let Some(mailbox) = known.mailbox(mailbox) else { return vec![Standing::Wanted; listing.len()] };
    let times = times(listing);
    let gone = gone(&times, known, mailbox);
    let doubtful = doubtful(listing, mailbox, policy);
    listing
        .iter()
        .map(|listed| {
            let uid = listed.uidl.as_deref().and_then(|uidl| Some((uidl, mailbox.uidls.get(uidl)?)));
            match uid {
                Some((uidl, _)) if doubtful.contains(uidl) => Standing::Doubtful,
                Some((_, uid)) if uid.certain => Standing::Known,
                Some(_) => Standing::Probable,
                None if gone.contains_key(&listed.size) => Standing::Candidate,
                _ => Standing::Wanted,
            }
        })
        .collect()
}

/// The known UIDLs that are listed and may be other messages' by now: their sizes are not those they were
/// fetched with, or their deletion was asked for. If a UIDL has another size, then perhaps all were given
/// anew, and the next message only happens to be as long as the one before it: before something is deleted
/// all of them are fetched again.
pub fn doubtful<'l>(listing: &'l [Listed], mailbox: &Mailbox, policy: &Deletion) -> HashSet<&'l str> {
    let named = listing.iter().filter_map(|listed| Some((listed.uidl.as_deref()?, listed.size)));
    let mut known: Vec<(&str, u64)> = named.filter(|(uidl, _)| mailbox.uidls.contains_key(*uidl)).collect();
    known.sort_unstable();
    let (mut doubtful, mut other_size) = (HashSet::new(), false);
    for same in known.chunk_by(|one, other| one.0 == other.0) {
        let sizes: Vec<u64> = same.iter().map(|(_, size)| *size).collect();
        let Some(uid) = mailbox.uidls.get(same[0].0).filter(|uid| !uid.covers(&sizes)) else { continue };
        doubtful.insert(same[0].0);
        other_size |= sizes.len() == 1 && !uid.deleting;
    }
    if other_size && *policy != Deletion::Never {
        doubtful.extend(known.iter().map(|(uidl, _)| uidl));
    }
    doubtful
}

/// Of each UIDL, how many messages have it. It should be one.
pub fn times(listing: &[Listed]) -> HashMap<&str, u32> {
    let mut times = HashMap::with_capacity(listing.len());
    for uidl in listing.iter().filter_map(|listed| listed.uidl.as_deref()) {
        *times.entry(uidl).or_insert(0) += 1;
    }
    times
}

/// Archived messages that the listing does not name, by their size: a server that gave new UIDLs has
/// them under other names.
fn gone(times: &HashMap<&str, u32>, known: &Known, mailbox: &Mailbox) -> HashMap<u64, Vec<Record>> {
    let (here, absent): (Vec<_>, Vec<_>) =
        mailbox.uidls.iter().partition(|(uidl, _)| times.contains_key(&***uidl));
    let here: HashSet<u32> = here.into_iter().map(|(_, uid)| uid.file).collect();
    let absent = absent.into_iter().map(|(_, uid)| uid.file).chain(mailbox.unnamed.iter().copied());
    let mut gone: HashMap<u64, Vec<Record>> = HashMap::new();
    for file in absent.filter(|file| !here.contains(file)) {
        if let Some(record) = known.file(file).filter(|record| record.head.is_some()) {
            gone.entry(record.listed).or_default().push(*record);
        }
    }
    gone
}

/// The archived message that a candidate is by size and header, if it is one.
pub fn recognised(
    listing: &[Listed],
    known: &Known,
    mailbox: &str,
) -> impl Fn(u64, u64) -> Option<Record> + use<> {
    let gone =
        known.mailbox(mailbox).map(|mailbox| gone(&times(listing), known, mailbox)).unwrap_or_default();
    move |size, head| gone.get(&size)?.iter().find(|record| record.head == Some(head)).copied()
}

/// More would be deleted than the job allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// So many are due.
    pub due: usize,
    /// So many are allowed at once.
    pub allowed: usize,
}

/// Which of the listed messages are due for deletion, as indices of the listing: those whose bytes were
/// archived longer ago than the job says. `fetched` holds the archiving times, by number, of messages that
/// the journal cannot tell of: those without a UIDL that this very session fetched. `confirmed` is a number that a
/// person has agreed to.
pub fn due(
    listing: &[Listed],
    known: &Known,
    mailbox: &str,
    policy: &Deletion,
    fetched: &HashMap<u32, i64>,
    now: i64,
    confirmed: Option<u64>,
) -> Result<Vec<usize>, TooMany> {
    let Deletion::After { after, keep_newest, max_fraction } = policy else { return Ok(Vec::new()) };
    let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let old = |at: i64| at.checked_add(after).is_some_and(|due| due <= now);
    let times = times(listing);
    let mailbox = known.mailbox(mailbox);
    let doubtful = mailbox.map(|mailbox| doubtful(listing, mailbox, policy)).unwrap_or_default();
    let mut newest: Vec<u32> = listing.iter().map(|listed| listed.number).collect();
    newest.sort_unstable_by(|a, b| b.cmp(a));
    let newest: HashSet<u32> = newest.into_iter().take(*keep_newest).collect();
    let due: Vec<usize> = listing
        .iter()
        .enumerate()
        .filter(|(_, listed)| {
            let archived = match listed.uidl.as_deref() {
                // Of several messages with one UIDL nobody can say which is archived.
                Some(uidl) if times[uidl] == 1 => {
                    let uid = mailbox.and_then(|mailbox| mailbox.uidls.get(uidl));
                    let certain =
                        uid.filter(|uid| uid.certain && uid.others.is_empty() && !doubtful.contains(uidl));
                    fetched.get(&listed.number).copied().or_else(|| certain.map(|uid| uid.at))
                }
                Some(_) => None,
                None => fetched.get(&listed.number).copied(),
            };
            archived.is_some_and(old) && !newest.contains(&listed.number)
        })
        .map(|(index, _)| index)
        .collect();
    let allowed = (max_fraction * listing.len() as f64).floor() as usize;
    if due.len() > allowed && confirmed != Some(due.len() as u64) {
        return Err(TooMany { due: due.len(), allowed });
    }
    Ok(due)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::digest::Digest;
    use super::super::journal::{DateSource, Entry, Line, What};
    use super::*;

    fn known(lines: &[(What, Option<&str>, &str, i64)]) -> Known {
        let mut known = Known::default();
        for &(what, uidl, bytes, at) in lines {
            known.apply(&Line {
                number: 1,
                offset: 0,
                entry: Entry {
                    at,
                    what,
                    mailbox: "m".into(),
                    uidl: uidl.map(str::to_owned),
                    sha256: Some(Digest::of(bytes.as_bytes())),
                    path: "p".into(),
                    size: 1,
                    listed: bytes.len() as u64,
                    head: Some(bytes.len() as u64),
                    date: None,
                    date_from: DateSource::None,
                },
            });
        }
        known
    }

    fn listing(rows: &[(u64, Option<&str>)]) -> Vec<Listed> {
        rows.iter()
            .zip(1..)
            .map(|(&(size, uidl), number)| Listed { number, size, uidl: uidl.map(Into::into) })
            .collect()
    }

    #[test]
    fn every_listed_message_stands_somewhere() {
        use Standing::*;
        let known = known(&[
            (What::Kept, Some("a"), "x", 0),
            (What::Kept, Some("asked"), "x", 0),
            (What::Deleting, Some("asked"), "", 0),
            (What::Kept, Some("twice"), "yy", 0),
            (What::Probably, Some("p"), "yy", 0),
            (What::Probably, Some("pair"), "yy", 0),
            (What::Probably, Some("pair"), "yy", 0),
            (What::Kept, Some("gone"), "zzz", 0),
            (What::Kept, None, "unnamed", 0),
        ]);
        for (rows, expected) in [
            (&[(1, Some("a")), (9, Some("b"))][..], &[Known, Wanted][..]),
            (&[(2, Some("a")), (1, Some("asked"))], &[Doubtful, Doubtful]),
            (&[(1, Some("a")), (1, Some("asked"))], &[Known, Doubtful]),
            (&[(2, Some("twice")), (2, Some("twice"))], &[Doubtful, Doubtful]),
            (&[(2, Some("p"))], &[Probable]),
            (&[(2, Some("pair")), (2, Some("pair"))], &[Probable, Probable]),
            (&[(2, Some("pair")), (2, Some("pair")), (2, Some("pair"))], &[Doubtful; 3]),
            (&[(3, Some("new name")), (4, Some("other"))], &[Candidate, Wanted]),
            (&[(3, Some("gone")), (3, Some("new"))], &[Known, Wanted]),
            (&[(7, None), (8, None)], &[Candidate, Wanted]),
            (&[], &[]),
        ] {
            let found = standings(&listing(rows), &known, "m", &Deletion::Never);
            assert_eq!(found, expected, "{rows:?}");
        }
        let one = listing(&[(1, Some("a"))]);
        assert_eq!(standings(&one, &known, "other", &Deletion::Never), [Wanted]);
        // One name has another size: where something is deleted, no name is believed.
        let deletes = Deletion::After { after: Duration::ZERO, keep_newest: 0, max_fraction: 1.0 };
        let two = listing(&[(1, Some("a")), (5, Some("gone"))]);
        assert_eq!(standings(&two, &known, "m", &Deletion::Never), [Known, Doubtful]);
        assert_eq!(standings(&two, &known, "m", &deletes), [Doubtful, Doubtful]);
    }

    #[test]
    fn a_candidate_is_recognised_by_size_and_header() {
        let known = known(&[(What::Kept, Some("gone"), "zzz", 0)]);
        let listing = listing(&[(3, Some("new"))]);
        let recognised = recognised(&listing, &known, "m");
        assert!(recognised(3, 3).is_some());
        assert!(recognised(3, 4).is_none() && recognised(4, 3).is_none());
    }

    #[test]
    fn only_what_was_archived_long_enough_ago_is_due() {
        let known = known(&[
            (What::Kept, Some("old"), "1", 0),
            (What::Duplicate, Some("copy"), "1", 0),
            (What::Kept, Some("young"), "2", 950),
            (What::Probably, Some("probable"), "1", 0),
            (What::Kept, Some("twice"), "3", 0),
        ]);
        let all = listing(&[
            (1, Some("old")),
            (1, Some("copy")),
            (1, Some("young")),
            (1, Some("probable")),
            (1, Some("twice")),
            (1, Some("twice")),
            (1, Some("unknown")),
            (1, None),
            (1, None),
        ]);
        let fetched = HashMap::from([(8, 0)]);
        let after = |keep_newest, max_fraction| Deletion::After {
            after: Duration::from_secs(100),
            keep_newest,
            max_fraction,
        };
        for (policy, confirmed, expected) in [
            (Deletion::Never, None, Ok(vec![])),
            (after(0, 1.0), None, Ok(vec![0, 1, 7])),
            (after(2, 1.0), None, Ok(vec![0, 1])),
            (after(100, 1.0), None, Ok(vec![])),
            (after(0, 0.3), None, Err(TooMany { due: 3, allowed: 2 })),
            (after(0, 0.3), Some(3), Ok(vec![0, 1, 7])),
            (after(0, 0.3), Some(4), Err(TooMany { due: 3, allowed: 2 })),
        ] {
            assert_eq!(due(&all, &known, "m", &policy, &fetched, 1000, confirmed), expected, "{policy:?}");
        }
    }
}
