//! One row, one letter: the plan at work.

use std::sync::Arc;

use crate::compose::compose;
use crate::enclosures::part::{Disposition, PartError, Sent};
use crate::enclosures::{FileFingerprint, Fold};
use crate::letter::{
    self, EncodedPart, Envelope, FileRecord, Letter, Message, Piece, RecipientKey, Row, Stamp,
};
use crate::mail::{self, EmailAddress, Mailbox};
use crate::recipients::Suppressed;
use crate::render::{Addressed, Rendered};

use super::{Plan, with_cause};

/// What enlisting makes of a row.
#[derive(Debug)]
pub enum Examined {
    /// `where` leaves it out.
    Filtered,
    /// It will get a letter.
    Ready {
        /// Its key.
        key: RecipientKey,
        /// The domain of its first address, lower case.
        domain: String,
        /// Its own files as they are now ([`Finder::fold`]), where it has some.
        enclosed: Option<i64>,
    },
    /// Its address is on a suppress list.
    Suppressed {
        /// Its key.
        key: RecipientKey,
        /// The domain of its first address, lower case.
        domain: String,
    },
    /// It cannot get one.
    Bad {
        /// Its key, where it has one.
        key: Option<RecipientKey>,
        /// Why.
        reason: String,
    },
}

/// What makes a letter itself, beside its row.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// The ledger's secret.
    pub secret: &'a [u8; 32],
    /// The edition's name.
    pub edition: &'a str,
    /// The key, as enlisted.
    pub key: &'a str,
    /// The generation.
    pub generation: u32,
    /// Unix seconds of its Date.
    pub date: i64,
    /// Its own files as they were when it was enlisted; `None`: they are not compared.
    pub enclosed: Option<i64>,
    /// Addresses that have an outcome already and are not written to again.
    pub settled: &'a [String],
}

/// A letter as it goes out.
#[derive(Debug)]
pub struct Written {
    /// The letter.
    pub message: Message,
    /// Its Message-ID.
    pub message_id: String,
    /// The files enclosed, images apart.
    pub files: Vec<FileRecord>,
}

/// Why a letter was not written.
#[derive(Debug)]
pub enum Unwritten {
    /// Its recipient is on a suppress list.
    Suppressed,
    /// It cannot be made.
    Failed {
        /// The addresses it was for, as far as they are known.
        addresses: Vec<String>,
        /// Why.
        reason: String,
    },
}

impl Plan {
    /// Examines a row as enlisting does: key, addresses, `where`, suppress lists, enclosures.
    pub fn examine(&self, row: &Row) -> Examined {
        let (key, to) = match self.templates.address(row) {
            Ok(Addressed::Filtered) => return Examined::Filtered,
            Ok(Addressed::To { key, to, .. }) => (key, to),
            Err(error) => return Examined::Bad { key: None, reason: error.to_string() },
        };
        let Some(first) = to.first() else {
            return Examined::Bad { key: Some(key), reason: "it has no address".into() };
        };
        let domain = first.address.ascii_domain();
        if suppresses(&self.suppressed(), &to) {
            return Examined::Suppressed { key, domain };
        }
        let enclosed = self.enclosures_of(row, &key).and_then(|files| self.fold(&files));
        match enclosed {
            Ok(enclosed) => Examined::Ready { key, domain, enclosed },
            Err(reason) => Examined::Bad { key: Some(key), reason },
        }
    }

    /// Makes the letter of a row.
    pub fn letter(&self, row: &Row, identity: &Identity<'_>) -> Result<Written, Unwritten> {
        let failed = |addresses: Vec<String>, reason: String| Unwritten::Failed { addresses, reason };
        let (key, to, mut cc, mut bcc) = match self.templates.address(row) {
            Ok(Addressed::To { key, to, cc, bcc }) => (key, to, cc, bcc),
            // `where` was asked when the row was enlisted, and that answer stands.
            Ok(Addressed::Filtered) => {
                return Err(failed(Vec::new(), "`where` leaves it out by now".into()));
            }
            Err(error) => return Err(failed(Vec::new(), error.to_string())),
        };
        let suppressed = self.suppressed();
        if suppresses(&suppressed, &to) {
            return Err(Unwritten::Suppressed);
        }
        if !suppressed.is_empty() {
            // A copy for somebody who wants no mail is left out; the letter itself goes.
            cc.retain(|mailbox| !suppressed.contains(&mailbox.address));
            bcc.retain(|mailbox| !suppressed.contains(&mailbox.address));
        }
        let recipients = self.recipients([&to, &cc, &bcc], identity.settled);
        let named = || recipients.iter().map(|address| address.to_string()).collect();
        let enclosed = self
            .enclosures_of(row, &key)
            .and_then(|files| self.enclose(&files, identity.enclosed))
            .map_err(|reason| failed(named(), reason))?;
        let Rendered { mut letter, images: own } =
            self.templates.letter(row, to, cc, bcc).map_err(|error| failed(named(), error.to_string()))?;
        if let Some(redirect) = &self.redirect {
            redirected(&mut letter, redirect);
        }
        let with_own;
        let images = if own.is_empty() {
            &self.images
        } else {
            with_own = self.own_images(own, &key).map_err(|reason| failed(named(), reason))?;
            &with_own
        };
        let message_id = letter::message_id(
            identity.secret,
            &self.job.name,
            identity.edition,
            identity.key,
            identity.generation,
            self.purpose.word(),
            &letter.from.address.ascii_domain(),
        );
        let boundary = letter::boundary_seed(&message_id);
        let stamp =
            Stamp { date: mail::date::rfc5322(identity.date, self.templates.zone()), message_id, boundary };
        let content = compose(&letter, images, &enclosed, &stamp);
        let reverse_path = match self.templates.return_path(row) {
            Ok(path) => path.unwrap_or_else(|| self.job.from.address.clone()),
            Err(error) => return Err(failed(named(), error.to_string())),
        };
        let smtputf8 = reverse_path.needs_smtputf8()
            || recipients.iter().any(EmailAddress::needs_smtputf8)
            || letter.needs_smtputf8();
        let files = enclosed.iter().map(|part| part.record.clone()).collect();
        let envelope = Envelope { reverse_path: Some(reverse_path), recipients };
        let message = Message { envelope, content, eight_bit: false, smtputf8 };
        Ok(Written { message, message_id: stamp.message_id, files })
    }

    /// Whether somebody this message goes to is not to be written to any more.
    pub fn is_suppressed(&self, message: &Message) -> bool {
        let suppressed = self.suppressed();
        // A letter for a look goes to somebody else than it is for, whom the lists do not concern.
        self.redirect.is_none()
            && !suppressed.is_empty()
            && message.envelope.recipients.iter().any(|recipient| suppressed.contains(recipient))
    }

    /// Each address once, however it is spelled, in the order of To, Cc, Bcc, without those that are settled.
    fn recipients(&self, mailboxes: [&[Mailbox]; 3], settled: &[String]) -> Vec<EmailAddress> {
        if let Some(redirect) = &self.redirect {
            return vec![redirect.clone()];
        }
        let folded = |text: &String| {
            text.parse().map_or_else(|_| text.clone(), |address: EmailAddress| address.folded())
        };
        let mut seen: Vec<String> = settled.iter().map(folded).collect();
        let mut recipients: Vec<EmailAddress> = Vec::new();
        for mailbox in mailboxes.into_iter().flatten() {
            let folded = mailbox.address.folded();
            if !seen.contains(&folded) {
                seen.push(folded);
                recipients.push(mailbox.address.clone());
            }
        }
        recipients
    }
}

/// That one of a row's own files was changed, the one changed last named first.
fn changed(files: &[Enclosure]) -> String {
    let modified = |file: &&Enclosure| file.path.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut own: Vec<&Enclosure> = files.iter().filter(|file| !file.common).collect();
    own.sort_by_key(|file| std::cmp::Reverse(modified(file)));
    let names: Vec<String> = own.iter().take(3).map(|file| format!("`{}`", file.path.display())).collect();
    let which = match own.len() {
        0 => "a file of this row is gone or".to_owned(),
        1 => names.concat(),
        2..=3 => format!("one of {}", names.join(", ")),
        more => format!("one of {more} files ({}, …)", names.join(", ")),
    };
    format!(
        "{which} was changed after the recipients were enlisted; `postroom requeue` sends this letter with \
         its files as they are then"
    )
}

fn suppresses(suppressed: &Suppressed, to: &[Mailbox]) -> bool {
    !suppressed.is_empty() && to.iter().any(|mailbox| suppressed.contains(&mailbox.address))
}

/// A letter that goes to somebody else for a look says whose it is.
fn redirected(letter: &mut Letter, redirect: &EmailAddress) {
    let original = letter.to.iter().map(Mailbox::to_string).collect::<Vec<_>>().join(", ");
    letter.to =
        vec![Mailbox { name: letter.to.first().and_then(|to| to.name.clone()), address: redirect.clone() }];
    letter.cc.clear();
    letter.bcc.clear();
    letter.headers.push(("X-Original-To".into(), original));
}

/// A file found for a letter.
#[derive(Debug)]
struct Enclosure {
    path: std::path::PathBuf,
    name: String,
    spec: usize,
    /// No value of the row was in its pattern: the same file for many.
    common: bool,
}

impl Plan {
    /// The files of a row. A file that a pattern with a row value has found for another key too is
    /// a mistake of both.
    fn enclosures_of(&self, row: &Row, key: &RecipientKey) -> Result<Vec<Enclosure>, String> {
        if self.job.attachments.is_empty() {
            return Ok(Vec::new());
        }
        let mut enclosures = Vec::new();
        for wanted in self.templates.patterns(row).map_err(|error| error.to_string())? {
            let spec = &self.job.attachments[wanted.spec];
            let found = self
                .finder
                .find(&wanted.pieces, key, spec.shared, spec.expect)
                .map_err(|error| with_cause(&error))?;
            let common = !wanted.pieces.iter().any(|piece| matches!(piece, Piece::Value(_)));
            if wanted.rename.is_some() && found.len() > 1 {
                return Err(format!("`as` names one file, and {} were found", found.len()));
            }
            if !common && !spec.shared && self.finder.claims().is_contested(key) {
                return Err(
                    "a file of this row was found for another recipient too: it is sent to neither".into()
                );
            }
            for path in found {
                let own_name = || path.file_name().map(|name| name.to_string_lossy().into_owned());
                let name = wanted.rename.clone().or_else(own_name).unwrap_or_default();
                enclosures.push(Enclosure { path, name, spec: wanted.spec, common });
            }
        }
        Ok(enclosures)
    }

    /// A row's own files as they are now, in one value. Those that are the same for many are known by
    /// what the reader sees.
    fn fold(&self, files: &[Enclosure]) -> Result<Option<i64>, String> {
        let own = files.iter().filter(|file| !file.common).map(|file| file.path.as_path());
        self.finder.fold(own).map_err(|error| with_cause(&error))
    }

    /// The parts of a row's files. Files that are not what they were when the row was enlisted are not
    /// sent: whoever looked at the list then has not seen them. What was read is what is compared.
    fn enclose(&self, files: &[Enclosure], was: Option<i64>) -> Result<Vec<Arc<EncodedPart>>, String> {
        let (mut parts, mut own) = (Vec::with_capacity(files.len()), Fold::default());
        for file in files {
            let (part, is) = self.part(file).map_err(|error| match error {
                PartError::Changed { .. } if !file.common => changed(files),
                error => with_cause(&error),
            })?;
            if !file.common {
                own.add(&file.path, is);
            }
            parts.push(part);
        }
        if was.is_some() && own.value() != was { Err(changed(files)) } else { Ok(parts) }
    }

    /// The part of a file: kept where many letters share it, encoded for this letter where it is its own.
    fn part(&self, file: &Enclosure) -> Result<(Arc<EncodedPart>, FileFingerprint), PartError> {
        let spec = &self.job.attachments[file.spec];
        let sent = Sent {
            path: &file.path,
            name: &file.name,
            content_type: spec.content_type.as_ref().map(|text| text.value.as_str()),
            disposition: &Disposition::Attachment,
        };
        if file.common || spec.shared { self.parts.shared(sent) } else { self.parts.own(sent) }
    }

    /// The images of the run and those of this row.
    fn own_images(
        &self,
        own: Vec<(String, Vec<Piece>)>,
        key: &RecipientKey,
    ) -> Result<Vec<Arc<EncodedPart>>, String> {
        let mut images = self.images.clone();
        for (cid, pieces) in own {
            for path in self.finder.find(&pieces, key, true, (1, 1)).map_err(|error| with_cause(&error))? {
                images.push(super::inline_part(&self.parts, &cid, &path)?);
            }
        }
        Ok(images)
    }
}
