//! `kind: send`, lowered.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::diagnostic::Place;
use crate::mail::Mailbox;

use super::{RelaySpec, Text};

/// A sending job without mistakes of its own. All paths are absolute, or start at `root`.
#[derive(Debug, Clone)]
pub struct SendJob {
    /// The job file.
    pub path: PathBuf,
    /// Where relative paths start.
    pub root: PathBuf,
    /// `name`
    pub name: String,
    /// `edition`: a template, evaluated once when the edition is begun.
    pub edition: Text,
    /// `timezone`, for `now` and the Date header; default the system's.
    pub timezone: Option<String>,
    /// `class`
    pub class: Class,
    /// `from`
    pub from: Mailbox,
    /// `sender`/`return_path`: the reverse-path, default the From address.
    pub return_path: Option<Text>,
    /// `reply_to`
    pub reply_to: MailboxTemplates,
    /// `recipients`
    pub recipients: RecipientsSpec,
    /// `subject`, a template.
    pub subject: Text,
    /// `body`
    pub body: Body,
    /// `attachments`
    pub attachments: Vec<AttachmentSpec>,
    /// `images`
    pub images: Vec<ImageSpec>,
    /// `headers`: name and template.
    pub headers: Vec<(String, Text)>,
    /// `unsubscribe`
    pub unsubscribe: Option<Unsubscribe>,
    /// `list_id`
    pub list_id: Option<Text>,
    /// `feedback_id`
    pub feedback_id: Option<Text>,
    /// `vars` over `vars_file`, merged: an object.
    pub vars: serde_json::Map<String, Json>,
    /// `relay`, by name or in full.
    pub relay: RelaySpec,
    /// `ledger`
    pub ledger: LedgerUrl,
    /// `keep`: what is kept of every letter sent.
    pub keep: Option<Keep>,
    /// `notify`
    pub notify: Option<Notify>,
    /// Warnings found on the way, shown and not fatal.
    pub warnings: Vec<crate::diagnostic::Diagnostic>,
    /// Files that are not there, and without which it cannot be carried out: certificates, secrets.
    pub absent: Vec<crate::diagnostic::Diagnostic>,
}

/// `keep`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// A folder for the exact bytes of every letter that was accepted; the ledger has their digests.
    Folder(PathBuf),
    /// `digest`: BLAKE3 of the bytes, in the ledger.
    Digest,
}

/// `notify`: who is told how a run ended, by the job's own relay.
#[derive(Debug, Clone)]
pub struct Notify {
    /// `to`
    pub to: Vec<Mailbox>,
    /// `when`
    pub when: NotifyWhen,
}

/// `notify: {when: …}`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyWhen {
    /// When an edition is finished, well or not, and when a run stops in trouble.
    #[default]
    Finished,
    /// Only when something went wrong.
    Trouble,
}

/// `class`: which headers and which lint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// To many.
    #[default]
    Bulk,
    /// To one, about them.
    Personal,
}

/// `recipients`: where the rows come from and what is made of them.
#[derive(Debug, Clone)]
pub struct RecipientsSpec {
    /// `file`, `list`, or a ledger.
    pub source: SourceSpec,
    /// `encoding` of a text file, an encoding label; default UTF-8 (BOM believed).
    pub encoding: Option<Text>,
    /// `delimiter` of a CSV file, where it is not to be found out.
    pub delimiter: Option<u8>,
    /// `columns`: the kinds of CSV columns.
    pub columns: BTreeMap<String, (ColumnKind, Text)>,
    /// `key`, a template; default the address.
    pub key: Option<Text>,
    /// `to`; where it is not said, the column that means the address.
    pub to: Option<MailboxTemplate>,
    /// `cc`
    pub cc: MailboxTemplates,
    /// `bcc`
    pub bcc: MailboxTemplates,
    /// `where`: an expression without braces.
    pub filter: Option<Text>,
    /// `suppress`: files of addresses.
    pub suppress: Vec<(PathBuf, Text)>,
    /// `max_bad`
    pub max_bad: MaxBad,
    /// `dedupe`
    pub dedupe: Dedupe,
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum SourceSpec {
    /// `file: data/x.csv`: the kind follows the extension (`format:` overrides it).
    File {
        /// Absolute.
        path: PathBuf,
        /// csv, tsv, json, jsonl, yaml; `None`: by extension, then by content.
        format: Option<String>,
        /// Where the job file says so.
        text: Text,
    },
    /// `file: "-"`: standard input.
    Stdin {
        /// csv, tsv, json, jsonl, yaml; `None`: by content.
        format: Option<String>,
    },
    /// `list: [...]`: a sequence of mappings.
    List(Vec<Json>),
    /// `ledger: {job, edition, outcome}`: those who had this outcome there.
    Ledger {
        /// The other job's name.
        job: String,
        /// Its edition.
        edition: String,
        /// accepted, refused, …
        outcome: String,
    },
}

impl SourceSpec {
    /// Where the job file names the list.
    pub fn place(&self) -> Option<&Place> {
        match self {
            SourceSpec::File { text, .. } => text.place.as_ref(),
            _ => None,
        }
    }
}

/// The type of a CSV column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// As it stands.
    Text,
    /// true/false, yes/no, 1/0, 是/否.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// `2026-11-23`, `2026/11/23`, `2026年11月23日`.
    Date,
    /// JSON in a cell.
    Json,
}

/// A mailbox with templates in it, split *before* rendering at the template's last `<`, so that
/// no value can change its structure.
#[derive(Debug, Clone)]
pub struct MailboxTemplate {
    /// The template of the display name.
    pub name: Option<Text>,
    /// The template of the address, without angle brackets.
    pub address: Text,
}

/// `cc`, `bcc` and `reply_to`.
#[derive(Debug, Clone)]
pub enum MailboxTemplates {
    /// One template per mailbox; one that renders empty is left out.
    Each(Vec<MailboxTemplate>),
    /// `{each: "{{ copies }}", split: ";"}`: one template, split after rendering.
    Split {
        /// The template.
        each: Text,
        /// What stands between two mailboxes.
        split: String,
    },
}

/// As the job has them, one behind another; those without a template as the mailboxes they are.
impl fmt::Display for MailboxTemplates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mailbox = |MailboxTemplate { name, address }: &MailboxTemplate| {
            let name = name.as_ref().map_or("", |name| &name.value);
            Mailbox::new(name, address.value.parse().ok()?).ok()
        };
        let one = |template: &MailboxTemplate| match (mailbox(template), &template.name) {
            (Some(mailbox), _) => mailbox.to_string(),
            (None, Some(name)) => format!("{} <{}>", name.value, template.address.value),
            (None, None) => template.address.value.clone(),
        };
        match self {
            MailboxTemplates::Each(each) => f.write_str(&each.iter().map(one).collect::<Vec<_>>().join(", ")),
            MailboxTemplates::Split { each, split } => write!(f, "{} ({split})", each.value),
        }
    }
}

impl Default for MailboxTemplates {
    fn default() -> Self {
        MailboxTemplates::Each(Vec::new())
    }
}

/// `max_bad`: how many bad rows are borne before nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxBad {
    /// Any number.
    Any,
    /// This many.
    Rows(u64),
    /// A fraction of all rows, 0 to 1.
    Fraction(f64),
}

impl MaxBad {
    /// Whether `bad` of `total` rows are more than are borne. Exactly the limit is borne.
    pub fn exceeded(self, bad: u64, total: u64) -> bool {
        match self {
            MaxBad::Any => false,
            MaxBad::Rows(most) => bad > most,
            // 29 of 100 at 0.29 are borne, though 0.29 × 100 is a little less than 29 in floats.
            MaxBad::Fraction(fraction) => bad as f64 > fraction * total as f64 + 1e-9 * total as f64,
        }
    }
}

/// `dedupe`: what two different rows with one key mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dedupe {
    /// A mistake of the later row. Rows that are equal in every cell are one row.
    #[default]
    Refuse,
    /// The first counts, the others are skipped and named.
    First,
}

/// `body`: at least one of the two.
#[derive(Debug, Clone)]
pub struct Body {
    /// `text`
    pub text: Option<TemplateSource>,
    /// `html`
    pub html: Option<TemplateSource>,
}

/// A template of the body.
#[derive(Debug, Clone)]
pub enum TemplateSource {
    /// A file: `templates/NAME`, else from the root.
    File(Text),
    /// `{inline: |…}`
    Inline(Text),
}

/// One entry of `attachments`.
#[derive(Debug, Clone)]
pub struct AttachmentSpec {
    /// `files`: a pattern, a template.
    pub files: Text,
    /// `as`: the name the recipient sees, a template.
    pub rename: Option<Text>,
    /// `type`: the content type.
    pub content_type: Option<Text>,
    /// `when`: an expression.
    pub when: Option<Text>,
    /// `expect`: at least and at most how many files; default 1 or more.
    pub expect: (usize, usize),
    /// `shared: true`: several keys may find the same file.
    pub shared: bool,
}

/// One entry of `images`: `cid` and file (a template).
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// The name in `cid:`.
    pub cid: String,
    /// The file, a template.
    pub file: Text,
}

/// `unsubscribe`
#[derive(Debug, Clone)]
pub struct Unsubscribe {
    /// A template of an https URL.
    pub url: Option<Text>,
    /// A template of a mail address, with `?subject=…&body=…` or without (RFC 6068).
    pub mailto: Option<Text>,
    /// RFC 8058.
    pub one_click: bool,
}

/// `ledger`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerUrl {
    /// `sqlite:PATH`, absolute.
    Sqlite(PathBuf),
}
