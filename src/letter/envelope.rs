//! The SMTP envelope (RFC 5321 §2.3.1): reverse-path and recipients, not headers.

use crate::mail::EmailAddress;
use std::fmt;

/// Who sends and who receives, as MAIL and RCPT say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path; `None` is the null path `<>`.
    pub reverse_path: Option<EmailAddress>,
    /// The forward-paths, in order, each once.
    pub recipients: Vec<EmailAddress>,
}

/// What a recipient is known by in the ledger: one letter for each key and edition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecipientKey(String);

impl RecipientKey {
    /// The longest key, in bytes. A longer one is a template that went wrong.
    pub const MAX: usize = 512;

    /// A key is not empty, at most [`Self::MAX`] bytes, and one line.
    pub fn new(text: &str) -> Option<RecipientKey> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() <= Self::MAX && !text.contains(|c: char| c.is_control());
        fits.then(|| RecipientKey(text.to_owned()))
    }

    /// The key as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
