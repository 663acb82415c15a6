//! A row and the job's templates make a letter. Strict: undefined is an error, null never prints.
//!
//! Escaping goes by role: HTML escapes; text, subject, addresses and headers do not. A value of a
//! row never makes a line of a header and never becomes part of a pattern. A column hides a var of
//! the same name; `row["First Name"]` reaches any column; `now` is the moment that the edition was
//! begun, in the job's time zone, so that a letter made again is the same letter.

mod compile;
mod engine;
mod error;
mod filters;
mod line;
mod mailto;
mod meant;
mod pictures;
mod plain;
mod scan;
mod strict;
mod value;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::Value;

use crate::diagnostic::Diagnostic;
use crate::job::{Class, SendJob};
use crate::letter::{Columns, Letter, ListHeaders, Piece, RecipientKey, Row};
use crate::mail::{EmailAddress, Mailbox, list_id};

use engine::Engine;
use line::{Condition, Line, Pattern, View};
use mailto::Mailto;
use value::{Moment, Names};

pub use compile::RECIPIENT;
pub use error::RowError;

/// All templates of a job, compiled and without mistakes that can be seen before there are rows.
pub struct Templates {
    engine: Engine,
    names: Arc<Names>,
    zone: TimeZone,
    now: Value,
    from: Mailbox,
    reply_to: Many,
    return_path: Option<Line>,
    filter: Option<Condition>,
    key: Option<Line>,
    to: MailboxLines,
    cc: Many,
    bcc: Many,
    subject: Line,
    text: Option<Body>,
    html: Option<Body>,
    headers: Vec<(String, Line)>,
    unsubscribe_url: Option<Line>,
    unsubscribe_mailto: Option<Mailto>,
    one_click: bool,
    list_id: Option<Line>,
    feedback_id: Option<Line>,
    auto_submitted: bool,
    attachments: Vec<Attachment>,
    images: Vec<(String, Pattern)>,
    inline: Vec<(String, PathBuf)>,
    edition: Line,
    fingerprint: [u8; 32],
    seen: Vec<(String, String)>,
    warnings: Vec<Diagnostic>,
}

/// A mailbox: the name and the address rendered apart, so that no value changes which is which.
struct MailboxLines {
    name: Option<Line>,
    address: Line,
}

/// `cc`, `bcc`, `reply_to`.
enum Many {
    Each(Vec<MailboxLines>),
    Split(Line, String),
}

/// A template of a body: its name, and the line of the job file it begins at if it stands there.
struct Body {
    name: String,
    at: usize,
    /// The job says that there are no words: `{inline: ""}`.
    silent: bool,
}

struct Attachment {
    files: Pattern,
    rename: Option<Line>,
    when: Option<Condition>,
}

/// Who gets the letter of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressed {
    /// Nobody: `where` does not hold.
    Filtered,
    /// These.
    To {
        /// The identity in the ledger.
        key: RecipientKey,
        /// To: one mailbox.
        to: Vec<Mailbox>,
        /// Cc.
        cc: Vec<Mailbox>,
        /// Bcc.
        bcc: Vec<Mailbox>,
    },
}

/// A letter and the pictures that only it shows.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The letter.
    pub letter: Letter,
    /// Content-id and file of pictures that the HTML names with a value in the path; those that all
    /// letters share are [`Templates::inline_files`], those of `images` [`Templates::pictures`].
    pub images: Vec<(String, Vec<Piece>)>,
}

/// Files that a row asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The entry of `attachments`.
    pub spec: usize,
    /// The pattern.
    pub pieces: Vec<Piece>,
    /// `as`: the name the recipient sees.
    pub rename: Result<Option<String>, RowError>,
}

impl Templates {
    /// Compiles the templates of a job. All mistakes come at once, placed in the job file or in the
    /// template they stand in; names are checked against `columns` where the list's are known.
    pub fn compile(job: &SendJob, columns: Option<&Columns>) -> Result<Templates, Vec<Diagnostic>> {
        compile::compile(job, columns, Timestamp::now().as_second())
    }

    /// Sets `now` of letters, in seconds since 1970: the moment the edition was begun. Until then it
    /// is the moment of compiling.
    pub fn set_now(&mut self, unix: i64) {
        self.now = moment(unix, &self.zone);
    }

    /// The job's time zone, the system's where it names none.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// What is worth knowing and stops nothing.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Who gets the letter of a row, after `where`. The key is the address, in the form in
    /// which all its spellings are equal, unless the job has a template for it.
    pub fn address(&self, row: &Row) -> Result<Addressed, RowError> {
        let view = self.view(row);
        if let Some(filter) = &self.filter
            && !filter.holds(&view)?
        {
            return Ok(Addressed::Filtered);
        }
        let to = self.to.render(&view)?.ok_or_else(|| self.to.address.error("the address is empty"))?;
        let key = match &self.key {
            Some(line) => RecipientKey::new(&line.render_line(&view)?)
                .ok_or_else(|| line.error("the key is empty, or longer than 512 octets"))?,
            None => RecipientKey::new(&to.address.folded())
                .ok_or_else(|| self.to.address.error("the address makes no key"))?,
        };
        let (cc, bcc) = (self.cc.render(&view)?, self.bcc.render(&view)?);
        Ok(Addressed::To { key, to: vec![to], cc, bcc })
    }

    /// The letter of a row to those that [`Templates::address`] found.
    pub fn letter(
        &self,
        row: &Row,
        to: Vec<Mailbox>,
        cc: Vec<Mailbox>,
        bcc: Vec<Mailbox>,
    ) -> Result<Rendered, RowError> {
        let view = self.view(row);
        let subject = self.subject.render_line(&view)?;
        if subject.trim().is_empty() {
            return Err(self.subject.error("the subject is empty"));
        }
        let html = match &self.html {
            Some(body) => Some(view.render(&self.engine.html, &body.name, body.at)?),
            None => None,
        };
        let text = match &self.text {
            Some(body) => Some(view.render(&self.engine.text, &body.name, body.at)?),
            // Every letter has a text, for those who read it without a picture of the page.
            None => html.as_deref().map(plain::text),
        };
        let words = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
        let mut meant = [&self.html, &self.text].into_iter().flatten().filter(|body| !body.silent);
        if let (Some(body), false) = (meant.next(), words(&html) || words(&text)) {
            return Err(RowError::new(body.name.clone(), body.at, "the letter has no words in it"));
        }
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, line) in &self.headers {
            headers.push((name.clone(), line.render_line(&view)?));
        }
        let letter = Letter {
            from: self.from.clone(),
            reply_to: self.reply_to.render(&view)?,
            to,
            cc,
            bcc,
            subject,
            text,
            html,
            headers,
            list: self.list_headers(&view)?,
        };
        Ok(Rendered { letter, images: view.take_images() })
    }

    /// Whether there are pictures of `images` that have a value of the row in their path.
    pub fn has_pictures(&self) -> bool {
        !self.images.is_empty()
    }

    /// The pictures of `images` that have a value of the row in their path: content-id and pattern.
    pub fn pictures(&self, row: &Row) -> Result<Vec<(String, Vec<Piece>)>, RowError> {
        if self.images.is_empty() {
            return Ok(Vec::new());
        }
        let view = self.view(row);
        self.images.iter().map(|(cid, pattern)| Ok((cid.clone(), pattern.render(&view)?))).collect()
    }

    /// The files a row asks for: one for each entry of `attachments` whose `when` holds. An entry that
    /// cannot be made out leaves the others as they are.
    pub fn patterns(&self, row: &Row) -> Vec<Result<Wanted, RowError>> {
        let view = self.view(row);
        let wanted = self.attachments.iter().enumerate().map(|(spec, attachment)| {
            if let Some(when) = &attachment.when
                && !when.holds(&view)?
            {
                return Ok(None);
            }
            let pieces = attachment.files.render(&view)?;
            let rename = attachment.rename.as_ref().map(|line| {
                let name = line.render_line(&view)?;
                match compile::is_file_name(&name) {
                    true => Ok(name),
                    false => Err(line.error("the name of a file is empty, `.`, `..`, or has a slash in it")),
                }
            });
            Ok(Some(Wanted { spec, pieces, rename: rename.transpose() }))
        });
        wanted.filter_map(Result::transpose).collect()
    }

    /// The reverse-path of a row's letter, where the job has a template for it.
    pub fn return_path(&self, row: &Row) -> Result<Option<EmailAddress>, RowError> {
        let Some(line) = &self.return_path else { return Ok(None) };
        let text = line.render_line(&self.view(row))?;
        text.parse().map(Some).map_err(|error| line.error(format!("{error}")))
    }

    /// The name of the edition that begins now, in seconds since 1970.
    pub fn edition(&self, now: i64) -> Result<String, RowError> {
        let now = moment(now, &self.zone);
        let name = self.edition.render_line(&View::new(&self.engine, &self.names, &now, None))?;
        let name = name.trim();
        if name.is_empty() || name.len() > 200 {
            return Err(self.edition.error("the name of an edition is not empty and at most 200 octets"));
        }
        Ok(name.to_owned())
    }

    /// Pictures that every letter shows: content-id and file. They are parts that all letters share.
    pub fn inline_files(&self) -> &[(String, PathBuf)] {
        &self.inline
    }

    /// A hash (BLAKE3) over what the reader sees: templates with all they include, vars, subject,
    /// headers, names of parts. Never over relay, rate or retry.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// What the fingerprint is over, piece by piece: a name (`subject`, `body.html: newsletter.html`)
    /// and the text, so that a change can be shown.
    pub fn seen(&self) -> &[(String, String)] {
        &self.seen
    }

    fn view<'a>(&'a self, row: &'a Row) -> View<'a> {
        View::new(&self.engine, &self.names, &self.now, Some(row))
    }

    fn list_headers(&self, view: &View) -> Result<ListHeaders, RowError> {
        let mut list = ListHeaders { auto_submitted: self.auto_submitted, ..ListHeaders::default() };
        let mut unsubscribe = String::new();
        if let Some(line) = &self.unsubscribe_url {
            let url = line.render_line(view)?;
            let url = url.trim();
            let plain = url.bytes().all(|b| matches!(b, b'!'..=b'~') && !matches!(b, b'<' | b'>' | b','));
            if !plain || !(url.starts_with("https://") || (!self.one_click && url.starts_with("http://"))) {
                return Err(line.error("it is no https URL: `urlencode` makes a value fit for one"));
            }
            unsubscribe = format!("<{url}>");
        }
        if let Some(mailto) = &self.unsubscribe_mailto {
            let separator = if unsubscribe.is_empty() { "" } else { ", " };
            unsubscribe.push_str(&format!("{separator}<{}>", mailto.render(view)?));
        }
        const LONGEST: usize = 900;
        if unsubscribe.split(", ").any(|part| part.len() > LONGEST) {
            let line = self.unsubscribe_url.as_ref();
            let line = line.or(self.unsubscribe_mailto.as_ref().map(|mailto| &mailto.address));
            let reason = "it is longer than 900 octets, and a line of a letter has room for 998";
            return Err(
                line.map_or_else(|| RowError::new("unsubscribe", 0, reason), |line| line.error(reason))
            );
        }
        list.one_click = self.one_click && self.unsubscribe_url.is_some();
        list.unsubscribe = (!unsubscribe.is_empty()).then_some(unsubscribe);
        if let Some(line) = &self.list_id {
            let id = line.render_line(view)?;
            let id = list_id(&id).ok_or_else(|| {
                line.error(
                    "it is no id of a list: that is of ASCII, without blanks, with words before it or none, as in \
                     `新闻 <news.example.com>`",
                )
            })?;
            list.id = Some(id);
        }
        if let Some(line) = &self.feedback_id {
            list.feedback_id = Some(line.render_line(view)?);
        }
        Ok(list)
    }
}

impl std::fmt::Debug for Templates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Templates").field("subject", &self.subject).finish_non_exhaustive()
    }
}

fn moment(unix: i64, zone: &TimeZone) -> Value {
    let moment = Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH);
    Value::from_object(Moment::Instant(Box::new(moment.to_zoned_datetime(zone.clone()))))
}

impl MailboxLines {
    /// The mailbox, or `None` where the address renders empty.
    fn render(&self, view: &View) -> Result<Option<Mailbox>, RowError> {
        let address = self.address.render_line(view)?;
        if address.trim().is_empty() {
            return Ok(None);
        }
        let address: EmailAddress =
            address.parse().map_err(|error| self.address.error(format!("{error}")))?;
        let Some(line) = &self.name else { return Ok(Some(Mailbox { name: None, address })) };
        let name = line.render_line(view)?;
        Mailbox::new(&name, address).map(Some).map_err(|error| line.error(format!("{error}")))
    }
}

impl Many {
    fn render(&self, view: &View) -> Result<Vec<Mailbox>, RowError> {
        match self {
            Many::Each(templates) => {
                let mut found = Vec::new();
                for template in templates {
                    found.extend(template.render(view)?);
                }
                Ok(found)
            }
            Many::Split(line, separator) => {
                let text = line.render_line(view)?;
                text.split(separator.as_str())
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| part.parse().map_err(|error| line.error(format!("{error}"))))
                    .collect()
            }
        }
    }
}

fn is_bulk(class: Class) -> bool {
    class == Class::Bulk
}
