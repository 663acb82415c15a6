//! `postroom run --sandbox` of an archiving job: the mailbox is a maildrop of our own on loopback, the
//! store lies beside the real one. The maildrop holds what earlier trials have sent, or a few
//! letters that we bring along; they are copies, so that a job that deletes deletes only these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::job::{ArchiveJob, Auth, Credential, TlsMode, TlsSpec, name_of_file};
use crate::sandbox::{self, Maildrop, MaildropOptions};
use crate::secret::Secret;

/// Name and password of the trial's mailboxes.
const LOGIN: &str = "sandbox";

/// A job that is bent to maildrops of our own. They end when this is dropped.
pub(super) struct Trial {
    /// The job, with other mailboxes and another store.
    pub(super) job: ArchiveJob,
    _maildrops: Vec<Maildrop>,
}

/// Starts a maildrop for each mailbox of the job.
///
/// # Errors
/// The messages cannot be copied, or a port cannot be had.
pub(super) fn of(mut job: ArchiveJob) -> io::Result<Trial> {
    let folder = job.root.join(".postroom/sandbox/maildrop").join(name_of_file(&job.name));
    fill(&folder, &job.root.join("outbox"))?;
    let mut maildrops = Vec::new();
    // A mailbox keeps its name, so that the next trial knows it again: ports are new each time.
    for mailbox in &mut job.mailboxes {
        let maildrop = Maildrop::start(MaildropOptions::new(folder.clone(), LOGIN, Secret::new(LOGIN)))?;
        mailbox.host = maildrop.address().ip().to_string();
        mailbox.port = maildrop.port();
        mailbox.provider = None;
        mailbox.tls = TlsSpec { mode: TlsMode::None, ..mailbox.tls.clone() };
        mailbox.auth = Auth {
            user: LOGIN.to_owned(),
            credential: Credential::Literal(Secret::new(LOGIN)),
            token: false,
            mechanism: None,
        };
        mailbox.proxy = None;
        maildrops.push(maildrop);
    }
    let mut name = job.store.file_name().unwrap_or_default().to_owned();
    name.push("-sandbox");
    job.store.set_file_name(name);
    Ok(Trial { job, _maildrops: maildrops })
}

/// Fills a maildrop with copies of the letters below `outbox`, or with what we bring along. The names
/// say where each comes from and stay the same, and with them the UIDLs.
fn fill(folder: &Path, outbox: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(folder)?;
    let sent: Vec<PathBuf> = walkdir::WalkDir::new(outbox)
        .into_iter()
        .filter_map(Result::ok) // no outbox: nothing was sent yet
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect();
    for path in &sent {
        let inside = path.strip_prefix(outbox).unwrap_or(path).to_string_lossy().replace('/', "_");
        fs::copy(path, folder.join(inside))?;
    }
    if sent.is_empty() {
        for (name, content) in sandbox::LETTERS {
            fs::write(folder.join(name), content)?;
        }
    }
    Ok(())
}
