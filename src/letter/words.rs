//! A letter before it is bytes: what was rendered, what is enclosed, what it is stamped with.

use crate::mail::Mailbox;

use super::{Octets, RecipientKey};

/// A letter as rendered for one recipient. Every value here is checked: no CR, LF or NUL in
/// anything that becomes a header.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The From mailbox.
    pub from: Mailbox,
    /// Reply-To, where given.
    pub reply_to: Vec<Mailbox>,
    /// To.
    pub to: Vec<Mailbox>,
    /// Cc.
    pub cc: Vec<Mailbox>,
    /// Bcc: in the envelope only.
    pub bcc: Vec<Mailbox>,
    /// The subject, decoded.
    pub subject: String,
    /// The plain text, any line ends.
    pub text: Option<String>,
    /// The HTML, any line ends.
    pub html: Option<String>,
    /// Further headers, names checked.
    pub headers: Vec<(String, String)>,
    /// Headers of bulk mail.
    pub list: ListHeaders,
}

impl Letter {
    /// Whether an address in it needs SMTPUTF8 (RFC 6531): only a local part beyond ASCII does, for
    /// names are encoded and domains have A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        let lists = [&self.reply_to, &self.to, &self.cc, &self.bcc];
        self.from.address.needs_smtputf8()
            || lists.iter().flat_map(|list| list.iter()).any(|mailbox| mailbox.address.needs_smtputf8())
    }
}

/// What `class: bulk` and `unsubscribe:` put at the top (RFC 2369, 2919, 3834, 8058).
#[derive(Debug, Clone, Default)]
pub struct ListHeaders {
    /// `<https://…>, <mailto:…>` for List-Unsubscribe, whole.
    pub unsubscribe: Option<String>,
    /// List-Unsubscribe-Post: List-Unsubscribe=One-Click.
    pub one_click: bool,
    /// List-Id.
    pub id: Option<String>,
    /// Feedback-ID.
    pub feedback_id: Option<String>,
    /// Auto-Submitted: auto-generated.
    pub auto_submitted: bool,
}

/// A MIME part encoded once, headers and all: from `Content-Type:` to the CRLF that ends the
/// last line of its body. Boundaries are put around it by the composer.
#[derive(Debug, Clone)]
pub struct EncodedPart {
    /// Part headers, the empty line and the encoded body; ends in CRLF.
    pub bytes: Octets,
    /// What is written in the ledger about it.
    pub record: FileRecord,
}

/// What the ledger and `report` say of a file that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// The name the recipient sees.
    pub name: String,
    /// Bytes before encoding.
    pub size: u64,
    /// SHA-256 of these bytes.
    pub sha256: [u8; 32],
}

/// Whether a letter is meant: part of the Message-ID, so that a trial never collides with the real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To its recipient, by the job's relay.
    Real,
    /// To the embedded relay of `--sandbox`.
    Sandbox,
    /// All letters to one address: `--to`.
    Redirected,
}

impl Purpose {
    /// The word that goes into the hash and the ledger.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Real => "real",
            Purpose::Sandbox => "sandbox",
            Purpose::Redirected => "redirected",
        }
    }
}

/// What a composer is given rather than draws: then the same letter is the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The Date header, ready: `Mon, 23 Nov 2026 12:30:00 +0800`.
    pub date: String,
    /// The Message-ID with angle brackets.
    pub message_id: String,
    /// Seed of the boundaries, letters and digits only; not found in any encoded body.
    pub boundary: String,
}

/// A recipient that is to get a letter: what enlisting found out about a row.
#[derive(Debug, Clone)]
pub struct Enlisted {
    /// The row's number in the source.
    pub number: u64,
    /// Its key.
    pub key: RecipientKey,
    /// The domain of its first address, lower case.
    pub domain: String,
}

/// A stretch of a file pattern after rendering: who wrote it decides whether it may be a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The job file's own words: glob signs mean what they mean.
    Operator(String),
    /// What a row contributed: literal, one name or a stretch of one, never a path.
    Value(String),
}
