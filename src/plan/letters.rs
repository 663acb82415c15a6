//! One row, one letter: the plan at work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compose::compose;
use crate::diagnostic::with_causes;
use crate::enclosures::part::{Disposition, PartError, Sent, own_name};
use crate::enclosures::{FileFingerprint, Fold, Whose};
use crate::job::Text;
use crate::ledger::{MOST_ITEMS, UNSEEN};
use crate::letter::{
    self, EncodedPart, Envelope, FileRecord, Letter, Message, Piece, RecipientKey, Row, Stamp,
};
use crate::mail::{self, EmailAddress, Mailbox};
use crate::recipients::Suppressed;
use crate::render::{Addressed, Rendered, Wanted};

use super::{Image, Plan};

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
        /// The domain of its first address, lower case; empty where that is not known.
        domain: String,
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
    /// Rows of the list whose files nobody has asked for.
    pub unasked: Unasked,
    /// Addresses that have an outcome already and are not written to again.
    pub settled: &'a [String],
    /// Addresses that were tried and are to be tried again: with the settled ones those whom it named before.
    pub deferred: &'a [String],
}

/// Rows of a list that are neither in the ledger nor read again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unasked {
    /// Some that `where` left out.
    pub filtered: bool,
    /// Some that are bad.
    pub rejected: bool,
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
        let bad = |key, domain, reason| Examined::Bad { key, domain, reason };
        let (key, to) = match self.templates.address(row) {
            Ok(Addressed::Filtered) => {
                self.leave_out(row);
                return Examined::Filtered;
            }
            Ok(Addressed::To { key, to, cc, bcc }) => match too_many([&to, &cc, &bcc]) {
                None => (key, to),
                Some(reason) => {
                    self.claim_files(row, Some(&key));
                    return bad(Some(key), first_domain(&to), reason);
                }
            },
            Err(error) => {
                self.claim_files(row, None);
                return bad(None, String::new(), error.to_string());
            }
        };
        let domain = first_domain(&to);
        if to.is_empty() {
            return bad(Some(key), domain, "it has no address".into());
        }
        if suppresses(&self.suppressed(), &to) {
            self.claim_files(row, Some(&key));
            return Examined::Suppressed { key, domain };
        }
        let enclosed = self.own_files(row, &key).and_then(|own| self.fold(&own));
        match enclosed {
            Ok(enclosed) => Examined::Ready { key, domain, enclosed },
            Err(reason) => bad(Some(key), domain, reason),
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
            // One that was sent before is the same letter, whoever came to a list since.
            let named = |address: &EmailAddress| {
                let mut before = identity.settled.iter().chain(identity.deferred);
                before.any(|one| one == address.as_str())
            };
            cc.retain(|mailbox| !suppressed.contains(&mailbox.address) || named(&mailbox.address));
            bcc.retain(|mailbox| !suppressed.contains(&mailbox.address));
        }
        if let Some(reason) = too_many([&to, &cc, &bcc]) {
            return Err(failed(Vec::new(), reason));
        }
        let mut recipients = self.recipients([&to, &cc, &bcc], identity.settled);
        if self.redirect.is_none() {
            recipients.retain(|address| !suppressed.contains(address));
        }
        if recipients.is_empty() {
            // All that are left of it came to the suppress list.
            return Err(Unwritten::Suppressed);
        }
        let named = || recipients.iter().map(|address| address.to_string()).collect();
        let (enclosed, mut own) = self
            .own_files(row, &key)
            .and_then(|files| self.enclose(&files, identity))
            .map_err(|reason| failed(named(), reason))?;
        let Rendered { mut letter, images } =
            self.templates.letter(row, to, cc, bcc).map_err(|error| failed(named(), error.to_string()))?;
        if let Some(redirect) = &self.redirect {
            redirected(&mut letter, redirect);
        }
        let pictures = self.find_pictures(images, &key).map_err(|reason| failed(named(), reason))?;
        for Picture { cid, path } in pictures {
            let part = super::inline_part(&self.parts, &cid, &path);
            let (part, _) = part.map_err(|error| failed(named(), with_causes(&error)))?;
            own.push(Image { cid, part });
        }
        let images = self.shown(letter.html.as_deref(), &own).map_err(|reason| failed(named(), reason))?;
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
        let content = compose(&letter, &images, &enclosed, &stamp);
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

/// What a row is known by that has no files of its own.
const NO_FILES: i64 = 0;

/// That nobody knows whose a row's files are.
fn not_seen(files: &OwnFiles) -> String {
    format!(
        "the job asks for other files than when the recipients were enlisted, and nobody has looked whether {} \
         is another's too; `postroom requeue` sends this letter with it",
        named(files)
    )
}

/// That a row which is not in the ledger may have its files.
fn not_all_asked(files: &OwnFiles) -> String {
    format!(
        "{} may belong to a row that got no letter: such rows of a list from standard input are not kept. Write the \
         list into a file, name that in the job, and `postroom requeue` this letter",
        named(files)
    )
}

/// The first of a row's own files.
fn named(files: &OwnFiles) -> String {
    let names: Vec<String> = files.own().take(3).map(|file| format!("`{}`", file.display())).collect();
    names.join(", ")
}

/// That a row has files which it had not.
fn come(files: &OwnFiles) -> String {
    format!(
        "{} was not there when the recipients were enlisted; `postroom requeue` sends this letter with it",
        named(files)
    )
}

/// That one of a row's own files was changed, the one changed last named first.
fn changed(files: &OwnFiles) -> String {
    let modified = |file: &&Path| file.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut own: Vec<&Path> = files.own().collect();
    own.sort_by_key(|file| std::cmp::Reverse(modified(file)));
    let names: Vec<String> = own.iter().take(3).map(|file| format!("`{}`", file.display())).collect();
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

/// Why the ledger cannot keep the outcomes of so many.
fn too_many(mailboxes: [&[Mailbox]; 3]) -> Option<String> {
    let count: usize = mailboxes.iter().map(|mailboxes| mailboxes.len()).sum();
    (count > MOST_ITEMS)
        .then(|| format!("{count} recipients of one letter are too many: at most {MOST_ITEMS}"))
}

fn first_domain(to: &[Mailbox]) -> String {
    to.first().map(|first| first.address.ascii_domain()).unwrap_or_default()
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
    path: PathBuf,
    name: String,
    spec: usize,
    /// No value of the row was in its pattern: the same file for many.
    common: bool,
}

/// A picture found for a letter.
#[derive(Debug)]
struct Picture {
    cid: String,
    path: PathBuf,
}

/// What was found for a row: what it encloses, and the pictures that `images` has for it.
#[derive(Debug)]
struct OwnFiles {
    enclosures: Vec<Enclosure>,
    pictures: Vec<Picture>,
}

impl OwnFiles {
    /// Those that a value of the row has a part in.
    fn own(&self) -> impl Iterator<Item = &Path> {
        let enclosures = self.enclosures.iter().filter(|file| !file.common).map(|file| &*file.path);
        enclosures.chain(self.pictures.iter().map(|picture| &*picture.path))
    }
}

impl Plan {
    fn own_files(&self, row: &Row, key: &RecipientKey) -> Result<OwnFiles, String> {
        let enclosures = self.enclosures_of(row, key)?;
        let pictures = self.templates.pictures(row).map_err(|error| error.to_string())?;
        Ok(OwnFiles { enclosures, pictures: self.find_pictures(pictures, key)? })
    }

    /// The files of a row. A file that a pattern with a row value has found for another key too is
    /// a mistake of both.
    fn enclosures_of(&self, row: &Row, key: &RecipientKey) -> Result<Vec<Enclosure>, String> {
        if self.job.attachments.is_empty() {
            return Ok(Vec::new());
        }
        let (mut enclosures, mut wrong): (Vec<Enclosure>, _) = (Vec::new(), None);
        // Each is looked for, whatever is wrong with another: what it finds is this row's.
        for wanted in self.templates.patterns(row) {
            match wanted.map_err(|error| error.to_string()).and_then(|wanted| self.enclosures(wanted, key)) {
                Ok(mut found) => {
                    // Patterns overlap; nobody wants the same file under the same name twice. What one pattern
                    // finds is different in itself.
                    found.retain(|file| {
                        let same = |other: &Enclosure| other.path == file.path && other.name == file.name;
                        !enclosures.iter().any(same)
                    });
                    enclosures.append(&mut found);
                }
                Err(reason) => drop(wrong.get_or_insert(reason)),
            }
        }
        if enclosures.len() > MOST_ITEMS {
            return Err(format!(
                "{} files in one letter are too many: at most {MOST_ITEMS}",
                enclosures.len()
            ));
        }
        wrong.map_or(Ok(enclosures), Err)
    }

    /// The files of one entry of `attachments`.
    fn enclosures(&self, wanted: Wanted, key: &RecipientKey) -> Result<Vec<Enclosure>, String> {
        let spec = &self.job.attachments[wanted.spec];
        let whose = if spec.shared { Whose::Anybodys } else { Whose::TheirsAlone };
        let found = self.finder.find(&wanted.pieces, key, whose, spec.expect);
        let found = found.map_err(|error| with_causes(&error))?;
        let rename = wanted.rename.map_err(|error| error.to_string())?;
        let common = !wanted.pieces.iter().any(|piece| matches!(piece, Piece::Value(_)));
        if rename.is_some() && found.len() > 1 {
            return Err(format!("`as` names one file, and {} were found", found.len()));
        }
        let enclosure = |path: PathBuf| {
            let name = rename.clone().unwrap_or_else(|| own_name(&path));
            Enclosure { path, name, spec: wanted.spec, common }
        };
        Ok(found.into_iter().map(enclosure).collect())
    }

    /// The files of a row that gets no letter are not for another one either.
    fn claim_files(&self, row: &Row, key: Option<&RecipientKey>) {
        let nobodys = || RecipientKey::new(&format!("row {} of the list, which is bad", row.number));
        if let Some(key) = key.cloned().or_else(nobodys) {
            // What is wrong with them is of no interest: nothing is sent.
            let _ = self.enclosures_of(row, &key);
        }
    }

    /// The files of a row that `where` leaves out are not for another one, unless that asks for the same.
    fn leave_out(&self, row: &Row) {
        if !self.job.attachments.is_empty() {
            let wanted = self.templates.patterns(row).into_iter().flatten();
            let own = wanted.filter(|wanted| !self.job.attachments[wanted.spec].shared);
            own.for_each(|wanted| self.finder.leave_out(&wanted.pieces));
        }
        let pictures = self.templates.pictures(row).unwrap_or_default();
        pictures.iter().for_each(|(_, pieces)| self.finder.leave_out(pieces));
    }

    /// A row's own files as they are now, in one value. Those that are the same for many are known by
    /// what the reader sees.
    fn fold(&self, files: &OwnFiles) -> Result<Option<i64>, String> {
        let fold = self.finder.fold(files.own()).map_err(|error| with_causes(&error))?;
        Ok(self.known_by(fold))
    }

    /// Where a row may have files, that it has none is to be known as well: of one that comes later nobody
    /// has asked whose else it is.
    fn known_by(&self, fold: Option<i64>) -> Option<i64> {
        fold.or((!self.job.attachments.is_empty()).then_some(NO_FILES))
    }

    /// The parts of a row's files and pictures. Files that are not what they were when the row was enlisted
    /// are not sent: whoever looked at the list then has not seen them. What was read is what is compared.
    fn enclose(
        &self,
        files: &OwnFiles,
        identity: &Identity<'_>,
    ) -> Result<(Vec<Arc<EncodedPart>>, Vec<Image>), String> {
        let OwnFiles { enclosures, pictures } = files;
        let (mut parts, mut own) = (Vec::with_capacity(enclosures.len()), Fold::default());
        let reason = |error: PartError, common: bool| match error {
            PartError::Changed { .. } if !common => changed(files),
            error => with_causes(&error),
        };
        for file in enclosures {
            let (part, is) = self.part(file).map_err(|error| reason(error, file.common))?;
            if !file.common {
                own.add(&file.path, is);
            }
            parts.push(part);
        }
        let mut images = Vec::with_capacity(pictures.len());
        for Picture { cid, path } in pictures {
            let part = super::inline_part(&self.parts, cid, path);
            let (part, is) = part.map_err(|error| reason(error, false))?;
            own.add(path, is);
            images.push(Image { cid: cid.clone(), part });
        }
        match (identity.enclosed, own.value()) {
            // A letter without a file or picture of its own has nobody else's.
            (None | Some(UNSEEN), None) => Ok((parts, images)),
            (None, Some(_)) if self.may_be_of(identity.unasked, files) => Err(not_all_asked(files)),
            (Some(UNSEEN), Some(_)) => Err(not_seen(files)),
            (Some(NO_FILES), Some(_)) => Err(come(files)),
            (Some(was), own) if self.known_by(own) != Some(was) => Err(changed(files)),
            _ => Ok((parts, images)),
        }
    }

    /// Whether a file may be that of a row which nobody has asked. A row that `where` leaves out has those of others
    /// only by a wildcard.
    fn may_be_of(&self, unasked: Unasked, files: &OwnFiles) -> bool {
        let is_wild = |pattern: &Text| pattern.value.contains(['*', '?', '[']);
        let attachments = files.enclosures.iter().filter(|file| !file.common);
        let mut attachments = attachments.map(|file| &self.job.attachments[file.spec]);
        let mut pictures = self.job.images.iter().filter(|_| !files.pictures.is_empty());
        attachments.any(|spec| !spec.shared && (unasked.rejected || unasked.filtered && is_wild(&spec.files)))
            || unasked.filtered && pictures.any(|spec| is_wild(&spec.file))
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

    /// The files of pictures with a value in the path.
    fn find_pictures(
        &self,
        wanted: Vec<(String, Vec<Piece>)>,
        key: &RecipientKey,
    ) -> Result<Vec<Picture>, String> {
        let mut pictures = Vec::with_capacity(wanted.len());
        for (cid, pieces) in wanted {
            let found = self.finder.find(&pieces, key, Whose::Manys, (1, 1));
            let found = found.map_err(|error| with_causes(&error))?;
            pictures.extend(found.into_iter().map(|path| Picture { cid: cid.clone(), path }));
        }
        Ok(pictures)
    }

    /// The pictures that an HTML shows, of those of the run and the letter's own. A letter has no picture
    /// that it does not show: its reader would see it as an attachment. Without HTML they are meant to be.
    fn shown(&self, html: Option<&str>, own: &[Image]) -> Result<Vec<Arc<EncodedPart>>, String> {
        let all = || self.images.iter().chain(own);
        let Some(html) = html else { return Ok(all().map(|image| image.part.clone()).collect()) };
        let references = cid_references(html);
        if let Some((missing, _)) =
            references.iter().find(|(name, certain)| *certain && !all().any(|image| image.cid == *name))
        {
            return Err(format!("the HTML shows `cid:{missing}`, and no picture has that name"));
        }
        let shown = |image: &&Image| references.iter().any(|(name, _)| image.cid == *name);
        Ok(all().filter(shown).map(|image| image.part.clone()).collect())
    }
}

/// The content-ids that an HTML names (RFC 2392), and whether each is certainly the URL of a picture: it
/// stands behind a `=` or `url(`, and not in some sentence.
fn cid_references(html: &str) -> Vec<(&str, bool)> {
    let reference = |at: usize| {
        let (before, behind) = (html.get(..at.checked_sub(3)?)?, &html[at + 1..]);
        if !html[before.len()..at].eq_ignore_ascii_case("cid") {
            return None;
        }
        let ends = |c: char| c.is_whitespace() || "\"'<>()&?#;,".contains(c);
        let name = &behind[..behind.find(ends).unwrap_or(behind.len())];
        let before = before.strip_suffix(['"', '\'']).unwrap_or(before);
        Some((name, before.ends_with('=') || before.ends_with("url(")))
    };
    let colons = memchr::memchr_iter(b':', html.as_bytes());
    let mut references: Vec<(&str, bool)> = colons.filter_map(reference).collect();
    references.sort_unstable();
    references.dedup();
    references
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_shown_by_their_name_as_a_whole() {
        let html = ":日本:<img src=\"CID:pic1\"><td background=cid:bg.1@x style='background:url(cid:a-b)'>\
                    <p>cid:said, (cid:text)</p><img src='cid:pic1'>";
        let expected = [("a-b", true), ("bg.1@x", true), ("pic1", true), ("said", false), ("text", false)];
        assert_eq!(cid_references(html), expected);
    }
}
