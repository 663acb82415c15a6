//! What was asked: a job file, read to a tree and lowered field by field, so that all its
//! mistakes are found at once, each with its place. A [`Job`] that exists holds no mistake of
//! its own; whether its templates compile and its files exist is `plan`'s affair.

mod archive;
mod credential;
mod lower;
pub mod preset;
mod read;
mod relay;
mod schema;
mod section;
mod send;
#[cfg(test)]
mod tests;
mod text;
mod tree;

pub use archive::{ArchiveJob, Deletion, Layout, MailboxSpec};
pub use credential::CredentialError;
pub use read::{Environment, Flawed, HOUSE_FILE, examine, read, shared_ledger};
pub use relay::{
    Auth, Credential, Dkim, DomainLimit, Mechanism, Pipelining, Refresh, RelaySpec, Retry, StopWhen,
    Timeouts, TlsMode, TlsSpec, Unsure,
};
pub use schema::schema;
pub use send::{
    AttachmentSpec, Body, Class, ColumnKind, Dedupe, ImageSpec, Keep, LedgerUrl, MailboxTemplate,
    MailboxTemplates, MaxBad, Notify, NotifyWhen, RecipientsSpec, SendJob, SourceSpec, TemplateSource,
    Unsubscribe,
};
pub use text::Text;

/// A job of either kind.
#[derive(Debug, Clone)]
pub enum Job {
    /// `kind: send`
    Send(Box<SendJob>),
    /// `kind: archive`
    Archive(Box<ArchiveJob>),
}

/// A job's name as a part of a file's: readable, and different for jobs whose names differ only in signs that a
/// file name should not have.
pub fn name_of_file(job: &str) -> String {
    let readable: String =
        job.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).take(40).collect();
    format!("{readable}-{}", &blake3::hash(job.as_bytes()).to_hex()[..8])
}
