//! What will be done: templates compiled, job-wide files found and encoded, limits fixed. Nothing
//! is connected yet. A [`Plan`] that exists can make letters; [`Plan::examine`] says of a row
//! whether it will, and [`Plan::letter`] makes one.

mod letters;

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::diagnostic::{Diagnostic, with_causes};
use crate::enclosures::part::{Disposition, PartError, Parts, Sent, own_name};
use crate::enclosures::{EnclosureError, FileFingerprint, Finder, Whose};
use crate::job::SendJob;
use crate::ledger::Component;
use crate::letter::{Columns, EncodedPart, Piece, Purpose, RecipientKey};
use crate::mail::EmailAddress;
use crate::recipients::{RecipientsError, Suppressed};
use crate::render::Templates;

pub use letters::{Examined, Identity, Unasked, Unwritten, Written};

/// Encoded parts that are kept for the run: beyond it they are encoded anew for each letter.
const KEPT_PARTS: usize = 48 << 20;

/// The largest file that is enclosed. Relays take far less; their SIZE is asked when connected.
const LARGEST_FILE: u64 = 512 << 20;

/// A job that can be carried out.
#[derive(Debug)]
pub struct Plan {
    /// What was asked.
    pub job: SendJob,
    /// Whether letters are meant.
    pub purpose: Purpose,
    /// The one address all letters go to instead, with `--to`.
    pub redirect: Option<EmailAddress>,
    templates: Templates,
    finder: Finder,
    parts: Parts,
    /// Pictures that all letters share, by their content-id.
    images: Vec<Image>,
    components: Vec<Component>,
    suppressed: RwLock<Arc<Suppressed>>,
}

impl Plan {
    /// Makes the plan of a job whose list has these columns (`None`: rows of any shape), or tells all mistakes
    /// that are found on the way.
    pub fn lay(
        job: SendJob,
        columns: Option<&Columns>,
        purpose: Purpose,
        redirect: Option<EmailAddress>,
    ) -> Result<Plan, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let parts = Parts::new(KEPT_PARTS, LARGEST_FILE);
        let templates = match Templates::compile(&job, columns) {
            Ok(templates) => Some(templates),
            Err(found) => {
                mistakes.extend(found);
                None
            }
        };
        let mut images = Vec::new();
        for (cid, path) in templates.iter().flat_map(Templates::inline_files) {
            match inline_part(&parts, cid, path) {
                Ok((part, _)) => images.push(Image { cid: cid.clone(), part }),
                Err(error) => {
                    let spec = job.images.iter().find(|spec| job.root.join(&spec.file.value) == *path);
                    let place = spec.and_then(|spec| spec.file.place.clone());
                    mistakes.push(Diagnostic::error(with_causes(&error)).at_maybe(place));
                }
            }
        }
        let finder = Finder::new(&job.root).leaving_out(job.recipients.filter.is_some());
        let files = match job_wide_files(&job, &finder, &parts) {
            Ok(files) => files,
            Err(found) => {
                mistakes.extend(found);
                Vec::new()
            }
        };
        let suppressed = suppressed(&job).unwrap_or_else(|found| {
            mistakes.extend(found);
            Suppressed::default()
        });
        let Some(templates) = templates.filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
        let components = components(&templates, &images, &files);
        let suppressed = RwLock::new(Arc::new(suppressed));
        Ok(Plan { job, purpose, redirect, templates, finder, parts, images, components, suppressed })
    }

    /// What the reader sees, piece by piece, for whoever wants to know what has changed.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// A hash (BLAKE3) over what the reader sees.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for component in &self.components {
            hasher.update(&(component.name.len() as u64).to_be_bytes());
            hasher.update(component.name.as_bytes());
            hasher.update(&component.hash);
        }
        *hasher.finalize().as_bytes()
    }

    /// Fixes `now` for the templates: the moment the edition was begun.
    pub fn set_now(&mut self, unix: i64) {
        self.templates.set_now(unix);
    }

    /// The templates, for the edition's name and fingerprint.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Reads the suppress files again, where they have changed. A file that cannot be read leaves
    /// the list as it was: nobody is written to because a file was away for a moment. Whether there
    /// was something new.
    pub fn refresh_suppressed(&self) -> Result<bool, RecipientsError> {
        let now = self.suppressed();
        let changed = !self.job.recipients.suppress.is_empty() && now.changed();
        if changed {
            let fresh = Arc::new(now.reload()?);
            *self.suppressed.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Ok(changed)
    }

    fn suppressed(&self) -> Arc<Suppressed> {
        Arc::clone(&self.suppressed.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The suppress lists, or what is wrong with each of them.
fn suppressed(job: &SendJob) -> Result<Suppressed, Vec<Diagnostic>> {
    let files = &job.recipients.suppress;
    Suppressed::load(files).map_err(|first| {
        let mistake = |error: &RecipientsError| Diagnostic::error(with_causes(error)).ending(error.exit());
        let wrong = files.iter().filter_map(|file| {
            let error = Suppressed::load(std::slice::from_ref(file)).err()?;
            Some(mistake(&error).at_maybe(file.1.place.clone()))
        });
        let wrong: Vec<_> = wrong.collect();
        // Each may be whole by now: that one was not is no reason to go on without all of them.
        if wrong.is_empty() { vec![mistake(&first)] } else { wrong }
    })
}

/// The attachments whose pattern is the same for every row: found now, so that a missing one is a
/// mistake of the job and not of each row.
fn job_wide_files(
    job: &SendJob,
    finder: &Finder,
    parts: &Parts,
) -> Result<Vec<Arc<EncodedPart>>, Vec<Diagnostic>> {
    let (mut files, mut mistakes) = (Vec::new(), Vec::new());
    for spec in job.attachments.iter().filter(|spec| !spec.files.value.contains(['{', '}'])) {
        let pattern = [Piece::Operator(spec.files.value.clone())];
        let mistake = |reason: String| Diagnostic::error(reason).at_maybe(spec.files.place.clone());
        let Some(nobody) = RecipientKey::new("-") else { continue };
        match finder.find(&pattern, &nobody, Whose::Anybodys, spec.expect) {
            Err(error) => {
                let missing = matches!(error, EnclosureError::NoMatch { .. });
                let help = missing.then(|| spec.files.as_path()).flatten();
                mistakes.push(mistake(with_causes(&error)).help_maybe(help));
            }
            Ok(found) => {
                for path in found {
                    let sent = Sent {
                        path: &path,
                        name: &own_name(&path),
                        content_type: spec.content_type.as_ref().map(|text| text.value.as_str()),
                        disposition: &Disposition::Attachment,
                    };
                    match parts.shared(sent) {
                        Ok((part, _)) => files.push(part),
                        Err(error) => mistakes.push(mistake(with_causes(&error))),
                    }
                }
            }
        }
    }
    if mistakes.is_empty() { Ok(files) } else { Err(mistakes) }
}

/// What the reader sees, by name: what the templates are made of, and the files that all get.
fn components(templates: &Templates, images: &[Image], files: &[Arc<EncodedPart>]) -> Vec<Component> {
    let texts = templates.seen().iter().map(|(name, text)| Component {
        name: name.clone(),
        hash: *blake3::hash(text.as_bytes()).as_bytes(),
        text: Some(text.clone()),
    });
    let parts =
        images.iter().map(|image| ("image", &image.part)).chain(files.iter().map(|part| ("file", part)));
    let parts = parts.map(|(kind, part)| Component {
        name: format!("{kind} {}", part.record.name),
        hash: part.record.sha256,
        text: None,
    });
    let mut components: Vec<Component> = texts.chain(parts).collect();
    components.sort_by(|a, b| (&a.name, &a.hash).cmp(&(&b.name, &b.hash)));
    components.dedup();
    components
}

/// A picture that an HTML refers to as `cid:…`.
#[derive(Debug, Clone)]
struct Image {
    cid: String,
    part: Arc<EncodedPart>,
}

fn inline_part(
    parts: &Parts,
    cid: &str,
    path: &Path,
) -> Result<(Arc<EncodedPart>, FileFingerprint), PartError> {
    let disposition = Disposition::Inline { cid: cid.to_owned() };
    let sent = Sent { path, name: &own_name(path), content_type: None, disposition: &disposition };
    parts.shared(sent)
}

/// Standard input for a list that comes from it; nothing for all others.
pub fn stdin_of(job: &SendJob) -> Box<dyn io::Read + Send> {
    match job.recipients.source {
        crate::job::SourceSpec::Stdin { .. } => Box::new(io::stdin()),
        _ => Box::new(io::empty()),
    }
}

impl Plan {
    /// Whether a file was found for two recipients: then it is nobody's, and a list that was being
    /// enlisted is to be examined again with that known.
    pub fn any_contested(&self) -> bool {
        self.finder.claims().any_contested()
    }
}
