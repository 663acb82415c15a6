//! Compiles a job's templates and finds their mistakes, all at once and each in its place.

mod body;
mod files;
mod lines;
mod names;
mod places;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::diagnostic::Diagnostic;
use crate::job::{SendJob, Text};
use crate::letter::Columns;

use super::engine::Engine;
use super::value::Names;
use super::{Templates, is_bulk, moment};

use places::place;

pub(super) fn compile(
    job: &SendJob,
    columns: Option<&Columns>,
    now: i64,
) -> Result<Templates, Vec<Diagnostic>> {
    let mut compiler = Compiler {
        job,
        engine: Engine::new(),
        names: Names::new(&job.vars, columns),
        asked: BTreeSet::new(),
        whole_row: false,
        mistakes: Vec::new(),
        warnings: Vec::new(),
        inline: Vec::new(),
        seen: Vec::new(),
    };
    let templates = compiler.templates(now);
    match templates {
        Some(mut templates) if compiler.mistakes.is_empty() => {
            let fleeting = fleeting_edition(&templates, &job.edition, now);
            let passing = fleeting.or_else(|| returning_edition(&templates, &job.edition, now));
            templates.warnings.extend(passing);
            Ok(templates)
        }
        _ => Err(compiler.mistakes),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Html,
    Text,
}

/// The piece that says by what the ledger knows a recipient.
pub const RECIPIENT: &str = "recipients.key";

/// What a template may look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    Row,
    VarsOnly,
}

struct Compiler<'a> {
    job: &'a SendJob,
    engine: Engine,
    names: Names,
    /// Every name that some template asks for.
    asked: BTreeSet<String>,
    /// Some template looks at `row`.
    whole_row: bool,
    mistakes: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Pictures on the disk that the HTML shows: content-id and file.
    inline: Vec<(String, PathBuf)>,
    /// What the reader sees, piece by piece.
    seen: Vec<(String, String)>,
}

impl Compiler<'_> {
    fn templates(&mut self, now: i64) -> Option<Templates> {
        let job = self.job;
        self.warnings.extend(job.vars.iter().filter_map(|(name, value)| no_template(name, value)));
        let vars = serde_json::to_string_pretty(&job.vars).unwrap_or_default();
        self.saw("vars", &vars);
        self.saw("class", &format!("{:?}", job.class));
        self.saw("from", &job.from.to_string());
        self.saw("reply_to", &job.reply_to.to_string());
        if let Some(unsubscribe) = &job.unsubscribe {
            self.saw("unsubscribe.one_click", &unsubscribe.one_click.to_string());
        }
        let zone = self.zone();
        let edition = self.line("edition", &job.edition, Sees::VarsOnly);
        let return_path = self.optional("return_path", job.return_path.as_ref());
        let list = &job.recipients;
        let filter = list.filter.as_ref().map(|text| self.condition("where", text));
        let key = self.optional("key", list.key.as_ref());
        let to = self.to();
        let (cc, bcc) = (self.many("cc", &list.cc), self.many("bcc", &list.bcc));
        let reply_to = self.many("reply_to", &job.reply_to);
        // Who gets a letter is not what the reader sees, but by what the ledger knows them is as good as
        // that: under another key everybody is new. What follows is seen.
        let identity = list.key.as_ref().or(list.to.as_ref().map(|to| &to.address));
        self.saw(RECIPIENT, identity.map_or("", |text| &text.value));
        let subject = self.seen_line("subject", &job.subject);
        let text = job.body.text.as_ref().map(|source| self.body(source, Role::Text));
        let html = job.body.html.as_ref().map(|source| self.body(source, Role::Html));
        let headers = self.headers();
        let unsubscribe = job.unsubscribe.as_ref();
        let url = unsubscribe.and_then(|u| u.url.as_ref());
        let unsubscribe_url = url.map(|text| self.seen_line("unsubscribe.url", text));
        let mailto = unsubscribe.and_then(|u| u.mailto.as_ref());
        let unsubscribe_mailto = mailto.map(|text| self.mailto("unsubscribe.mailto", text));
        let list_id = job.list_id.as_ref().map(|text| self.seen_line("list_id", text));
        let feedback_id = job.feedback_id.as_ref().map(|text| self.seen_line("feedback_id", text));
        let attachments = self.attachments();
        let images = self.images();
        if self.names.knows_columns() && !self.whole_row {
            let asked = std::mem::take(&mut self.asked);
            self.names.use_only(|name| asked.contains(name));
        }
        let zone = zone?;
        // Those whose file is the same for all, and those whose file a value names.
        let (inline, images): (Vec<_>, Vec<_>) =
            images?.into_iter().partition(|(_, pattern)| pattern.line.words().is_some());
        let inline =
            inline.into_iter().filter_map(|(cid, pattern)| Some((cid, job.root.join(pattern.line.words()?))));
        Some(Templates {
            now: moment(now, &zone),
            zone,
            from: job.from.clone(),
            reply_to: reply_to?,
            return_path: return_path?,
            filter: transpose(filter)?,
            key: key?,
            to: to?,
            cc: cc?,
            bcc: bcc?,
            subject: subject?,
            text: transpose(text)?,
            html: transpose(html)?,
            headers: headers?,
            unsubscribe_url: transpose(unsubscribe_url)?,
            unsubscribe_mailto: transpose(unsubscribe_mailto)?,
            one_click: unsubscribe.is_some_and(|u| u.one_click),
            list_id: transpose(list_id)?,
            feedback_id: transpose(feedback_id)?,
            auto_submitted: is_bulk(job.class),
            attachments: attachments?,
            inline: inline.chain(std::mem::take(&mut self.inline)).collect(),
            images,
            edition: edition?,
            fingerprint: fingerprint(&self.seen),
            seen: std::mem::take(&mut self.seen),
            warnings: std::mem::take(&mut self.warnings),
            engine: std::mem::replace(&mut self.engine, Engine::new()),
            names: Arc::new(std::mem::replace(&mut self.names, Names::new(&serde_json::Map::new(), None))),
        })
    }

    fn zone(&mut self) -> Option<TimeZone> {
        let Some(name) = &self.job.timezone else { return Some(TimeZone::system()) };
        match TimeZone::get(name) {
            Ok(zone) => Some(zone),
            Err(_) => {
                self.mistakes.push(
                    Diagnostic::error(format!("`{name}` is no time zone"))
                        .help("zones are named like Europe/Berlin or Asia/Shanghai"),
                );
                None
            }
        }
    }

    /// Notes a piece of what the reader sees.
    fn saw(&mut self, name: impl Into<String>, text: &str) {
        self.seen.push((name.into(), text.to_owned()));
    }
}

/// A var that is written like a template: where it is printed everybody gets it as it stands.
fn no_template(name: &str, value: &serde_json::Value) -> Option<Diagnostic> {
    let text = value.as_str().filter(|text| text.contains("{{") && text.contains("}}"))?;
    let words = &text[text.find("{{")?..];
    let words = &words[..words.find("}}")? + 2];
    let line = words.lines().next().unwrap_or("");
    let mut shown: String = line.chars().take(60).collect();
    if shown.len() < words.len() {
        shown.push('…');
    }
    let title =
        format!("`{name}` of `vars` has `{shown}`, which is no template there: it is printed as it stands");
    Some(
        Diagnostic::warning(title)
            .help("what has values of the row in it belongs into the letter or a template it includes"),
    )
}

/// Warns of an edition that has another name a second or a minute later: to each run everybody is new.
fn fleeting_edition(templates: &Templates, text: &Text, now: i64) -> Option<Diagnostic> {
    let hour = now - now.rem_euclid(3600);
    let differs = |by: i64| Some(templates.edition(hour).ok()? != templates.edition(hour + by).ok()?);
    let (unit, help) = if differs(1)? {
        ("second", "name what it is an edition of, for instance the day: `{{ now | date('%Y-%m-%d') }}`")
    } else if differs(60)? {
        ("minute", "`%M` is the minute: the month is `%m`, and a day `{{ now | date('%Y-%m-%d') }}`")
    } else {
        return None;
    };
    let title = format!("`edition` is another one every {unit}: each run would mail everybody again");
    Some(place(Diagnostic::warning(title).help(help), text))
}

/// Warns of an edition whose name comes back after others: who has had it gets nothing then, without a word.
fn returning_edition(templates: &Templates, text: &Text, now: i64) -> Option<Diagnostic> {
    /// Long enough for a year of each kind to begin in the middle of a week.
    const DAYS: i64 = 6 * 366;
    if templates.edition.words().is_some() {
        return None;
    }
    let (mut seen, mut last) = (HashSet::new(), String::new());
    // Two hours of each day, for one whose name is the hour.
    for moment in (0..DAYS).flat_map(|day| [0, 3600].map(|hour| now + day * 86_400 + hour)) {
        let name = templates.edition(moment).ok()?;
        if name != last && !seen.insert(name.clone()) {
            let moment = jiff::Timestamp::from_second(moment).ok()?.to_zoned_datetime(templates.zone.clone());
            let day = moment.strftime("%Y-%m-%d");
            let title =
                format!("`edition` is `{name}` a second time on {day}: who has had it gets nothing then");
            let help = "the year belongs into it: `%Y` with a month or day, `%G` with a week `%V`";
            return Some(place(Diagnostic::warning(title).help(help), text));
        }
        last = name;
    }
    None
}

fn fingerprint(seen: &[(String, String)]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for text in seen.iter().flat_map(|(name, text)| [name, text]) {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(some) => Some(some),
    }
}

/// Whether a recipient can be shown a file under this name.
pub(super) fn is_file_name(name: &str) -> bool {
    !matches!(name.trim(), "" | "." | "..") && !name.contains(['/', '\\'])
}
