//! What the journal says, in memory: which messages lie where, and which of a mailbox are known.

use std::collections::{BTreeSet, HashMap};

use super::digest::Digest;
use super::journal::{Damage, Entry, Line, What};

/// A file of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Of its bytes.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
    /// Its octets by LIST when it was fetched.
    pub listed: u64,
    /// The start of its header's hash.
    pub head: Option<u64>,
    /// When it was archived: seconds since 1970.
    pub at: i64,
    /// Where its line begins in the journal; the path stands there.
    pub offset: u64,
}

/// A UIDL of a mailbox that the journal knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uid {
    /// Index of the file.
    pub file: u32,
    /// Its octets by LIST when it was fetched.
    pub listed: u64,
    /// Those of the other messages that were fetched with this UIDL; some servers give one to several.
    pub others: Box<[u64]>,
    /// Whether its bytes were fetched and hashed; otherwise only header and size are alike.
    pub certain: bool,
    /// When that was: seconds since 1970.
    pub at: i64,
    /// Whether its deletion was asked for and is not yet seen.
    pub deleting: bool,
}

impl Uid {
    /// Whether the messages that are listed with this UIDL, by their octets, can be those that were fetched.
    /// Where its deletion was asked for, they may be others: a server need not keep a UIDL from being used
    /// again once its message is gone (RFC 1939 §7).
    pub fn covers(&self, listed: &[u64]) -> bool {
        if self.deleting {
            return false;
        }
        if let ([one], []) = (listed, &*self.others) {
            return *one == self.listed;
        }
        let mut left = self.others.to_vec();
        left.push(self.listed);
        listed.iter().all(|size| {
            let at = left.iter().position(|fetched| fetched == size);
            at.map(|at| left.swap_remove(at)).is_some()
        })
    }
}

/// What is known of one mailbox.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// By UIDL.
    pub uidls: HashMap<Box<str>, Uid>,
    /// Files that came without a UIDL, or whose UIDL says nothing any more.
    pub unnamed: BTreeSet<u32>,
    /// Whether the server stumbled over commands sent together.
    pub stumbled: bool,
}

/// What the whole journal says.
#[derive(Debug, Default)]
pub struct Known {
    files: Vec<Record>,
    by_digest: HashMap<Digest, u32>,
    mailboxes: HashMap<Box<str>, Mailbox>,
    missed: Option<u64>,
}

impl Known {
    /// Takes in what comes next in the journal.
    pub fn take(&mut self, found: Result<Line, &Damage>) {
        match found {
            Ok(line) => self.apply(&line),
            Err(_) => self.doubt(),
        }
    }

    /// Lines are lost here. They may have said of any UIDL before them that it is free for another message, so none
    /// of those is believed any more: what is listed is known again by its header, or by its bytes.
    fn doubt(&mut self) {
        for mailbox in self.mailboxes.values_mut() {
            let uids = mailbox.uidls.drain().map(|(_, uid)| uid);
            mailbox.unnamed.extend(uids.filter(|uid| !uid.deleting).map(|uid| uid.file));
        }
    }

    /// Takes in one line.
    pub fn apply(&mut self, line: &Line) {
        let Entry { what, at, .. } = line.entry;
        let file = match what {
            What::Kept | What::Duplicate | What::Probably | What::Found => {
                line.entry.sha256.map(|sha256| self.file_of(sha256, line))
            }
            // What is lost is nowhere until it is kept again.
            _ => None,
        };
        let mailbox = match self.mailboxes.get_mut(line.entry.mailbox.as_str()) {
            Some(mailbox) => mailbox,
            None => self.mailboxes.entry(line.entry.mailbox.as_str().into()).or_default(),
        };
        match what {
            What::Stumbled => mailbox.stumbled = true,
            What::Deleting => {
                if let Some(uid) = line.entry.uidl.as_deref().and_then(|uidl| mailbox.uidls.get_mut(uidl)) {
                    uid.deleting = true;
                }
            }
            What::Deleted => {
                if let Some(uidl) = line.entry.uidl.as_deref() {
                    mailbox.uidls.remove(uidl);
                }
            }
            What::Gone => {
                if let Some(uid) = line.entry.uidl.as_deref().and_then(|uidl| mailbox.uidls.remove(uidl))
                    && !uid.deleting
                {
                    mailbox.unnamed.insert(uid.file);
                }
            }
            // Of no mailbox: that a message on the server is this one is known once its bytes have come. And each of
            // them says that lines were lost somewhere before it, even where the chain shows no gap: at an end.
            What::Found | What::Lost => self.doubt(),
            What::Sealed => {
                self.missed = line.entry.head.or(self.missed);
                self.doubt();
            }
            What::Kept | What::Duplicate | What::Probably => {
                let Some(file) = file else { return };
                let certain = what != What::Probably;
                let Some(uidl) = line.entry.uidl.as_deref() else {
                    mailbox.unnamed.insert(file);
                    return;
                };
                let listed = line.entry.listed;
                let fresh = Uid { file, listed, others: Box::default(), certain, at, deleting: false };
                match mailbox.uidls.get_mut(uidl) {
                    Some(uid) if uid.certain == certain => {
                        let others = uid.others.iter().copied().chain([uid.listed]).collect();
                        *uid = Uid { others, deleting: uid.deleting, ..fresh };
                    }
                    // Fetched after all: what was probable is certain.
                    Some(uid) => *uid = Uid { certain: true, ..fresh },
                    None => {
                        mailbox.uidls.insert(uidl.into(), fresh);
                    }
                }
            }
        }
    }

    /// The index of the file with these bytes, which the line is about.
    fn file_of(&mut self, sha256: Digest, line: &Line) -> u32 {
        let Entry { what, at, size, listed, head, .. } = line.entry;
        let record = Record { sha256, size, listed, head, at, offset: line.offset };
        let next = self.files.len() as u32;
        let file = *self.by_digest.entry(sha256).or_insert(next);
        match self.files.get_mut(file as usize) {
            // Kept again: the file had been lost and lies elsewhere now.
            Some(known) if what == What::Kept => *known = record,
            Some(_) => {}
            None => self.files.push(record),
        }
        file
    }

    /// What is known of a mailbox.
    pub fn mailbox(&self, name: &str) -> Option<&Mailbox> {
        self.mailboxes.get(name)
    }

    /// A file by its index.
    pub fn file(&self, index: u32) -> Option<&Record> {
        self.files.get(index as usize)
    }

    /// The file with these bytes.
    pub fn by_digest(&self, digest: &Digest) -> Option<&Record> {
        self.by_digest.get(digest).and_then(|&index| self.file(index))
    }

    /// The hash of the paths that only the manifest named when somebody was told of such the last time.
    pub fn missed(&self) -> Option<u64> {
        self.missed
    }

    /// All files.
    pub fn files(&self) -> &[Record] {
        &self.files
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::DateSource;
    use super::*;

    fn line(what: What, uidl: Option<&str>, bytes: &[u8]) -> Line {
        Line {
            number: 1,
            offset: 0,
            entry: Entry {
                at: 10,
                what,
                mailbox: "m".into(),
                uidl: uidl.map(str::to_owned),
                sha256: Some(Digest::of(bytes)),
                path: "p".into(),
                size: 1,
                listed: 1,
                head: None,
                date: None,
                date_from: DateSource::None,
            },
        }
    }

    #[test]
    fn a_mailbox_is_what_its_lines_say() {
        let mut known = Known::default();
        for (what, uidl, bytes) in [
            (What::Kept, Some("a"), &b"1"[..]),
            (What::Duplicate, Some("b"), b"1"),
            (What::Kept, Some("a"), b"2"),
            (What::Probably, Some("c"), b"2"),
            (What::Kept, None, b"3"),
            (What::Deleting, Some("b"), b""),
            (What::Deleted, Some("b"), b""),
            (What::Stumbled, None, b""),
            (What::Kept, Some("absent"), b"4"),
            (What::Gone, Some("absent"), b""),
            (What::Kept, Some("back"), b"5"),
            (What::Deleting, Some("back"), b""),
            (What::Gone, Some("back"), b""),
        ] {
            known.apply(&line(what, uidl, bytes));
        }
        let mailbox = known.mailbox("m").unwrap();
        assert_eq!(known.files().len(), 5);
        assert_eq!((&*mailbox.uidls["a"].others, mailbox.uidls["a"].certain), (&[1][..], true));
        assert!(!mailbox.uidls["c"].certain);
        assert!(!mailbox.uidls.contains_key("b"));
        assert_eq!(mailbox.uidls.len(), 2, "{:?}", mailbox.uidls);
        assert_eq!(mailbox.unnamed, BTreeSet::from([2, 3]), "what was to be deleted is not looked for again");
        assert!(mailbox.stumbled);
        assert!(known.mailbox("other").is_none());
    }

    #[test]
    fn a_uidl_covers_messages_of_the_sizes_it_was_fetched_with() {
        let uid = |listed, others: &[u64], deleting| Uid {
            file: 0,
            listed,
            others: others.into(),
            certain: true,
            at: 0,
            deleting,
        };
        for (uid, listed, expected) in [
            (uid(5, &[], false), &[5][..], true),
            (uid(5, &[], false), &[6], false),
            (uid(5, &[], false), &[5, 5], false),
            (uid(5, &[7], false), &[7], true),
            (uid(5, &[7], false), &[7, 5], true),
            (uid(5, &[7], false), &[7, 7], false),
            (uid(5, &[], true), &[5], false),
        ] {
            assert_eq!(uid.covers(listed), expected, "{uid:?} {listed:?}");
        }
    }

    #[test]
    fn what_tells_of_lost_lines_casts_doubt_on_all_before_it() {
        for what in [What::Found, What::Lost, What::Sealed] {
            let mut known = Known::default();
            known.apply(&line(What::Kept, Some("a"), b"1"));
            known.apply(&line(what, None, b"2"));
            known.apply(&line(What::Kept, Some("b"), b"3"));
            let mailbox = known.mailbox("m").unwrap();
            assert_eq!(mailbox.uidls.keys().map(|uidl| &**uidl).collect::<Vec<_>>(), ["b"], "{what:?}");
            assert_eq!(mailbox.unnamed, BTreeSet::from([0]), "{what:?}");
        }
    }
}
