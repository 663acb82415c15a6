//! `kind: archive`, lowered.

use std::path::PathBuf;
use std::time::Duration;

use super::{Auth, Timeouts, TlsMode, TlsSpec};

/// An archiving job without mistakes of its own.
#[derive(Debug, Clone)]
pub struct ArchiveJob {
    /// The job file.
    pub path: PathBuf,
    /// Where relative paths start.
    pub root: PathBuf,
    /// `name`
    pub name: String,
    /// `mailbox`, or several in `mailboxes`.
    pub mailboxes: Vec<MailboxSpec>,
    /// `store`, absolute.
    pub store: PathBuf,
    /// `layout`
    pub layout: Layout,
    /// `delete`
    pub delete: Deletion,
    /// Warnings found on the way, shown and not fatal.
    pub warnings: Vec<crate::diagnostic::Diagnostic>,
    /// Files that are not there, and without which it cannot be carried out: certificates, secrets.
    pub absent: Vec<crate::diagnostic::Diagnostic>,
}

/// A POP3 mailbox.
#[derive(Debug, Clone)]
pub struct MailboxSpec {
    /// What the journal calls it; see [`MailboxSpec::name_of`].
    pub name: String,
    /// `host`
    pub host: String,
    /// `port`: 995 with implicit TLS, else 110.
    pub port: u16,
    /// The provider's name, by `provider` or by a host that is known as its: for hints.
    pub provider: Option<String>,
    /// `tls`
    pub tls: TlsSpec,
    /// `auth`
    pub auth: Auth,
    /// `apop: true`
    pub apop: bool,
    /// `pipelining`: `None` is auto.
    pub pipelining: Option<bool>,
    /// `timeouts`
    pub timeouts: Timeouts,
    /// `proxy`
    pub proxy: Option<String>,
}

impl MailboxSpec {
    /// `user@host`, and `user@host:port` where the port is not the protocol's own: behind two tunnels on one
    /// host are two mailboxes. A prefix of the user that only chooses the listing is no part of it.
    pub fn name_of(user: &str, host: &str, port: u16, tls: TlsMode) -> String {
        let user = user.strip_prefix("recent:").unwrap_or(user);
        let host = host.to_ascii_lowercase();
        let own = if tls == TlsMode::Implicit { 995 } else { 110 };
        if port == own { format!("{user}@{host}") } else { format!("{user}@{host}:{port}") }
    }
}

/// `layout`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `eml/YYYY/MM/<time>_<hash>.eml`
    #[default]
    Dated,
    /// `cur/`, `new/`, `tmp/`.
    Maildir,
}

/// `delete`
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// Nothing is ever deleted.
    Never,
    /// What was archived longer ago than `after`, but never the newest `keep_newest`.
    After {
        /// Counted from archiving.
        after: Duration,
        /// So many stay whatever their age.
        keep_newest: usize,
        /// More than this fraction of the mailbox at once is refused.
        max_fraction: f64,
    },
}
