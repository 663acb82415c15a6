//! Compiles a job's templates and finds their mistakes, all at once and each in its place.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use minijinja::Environment;
use minijinja::value::ValueKind;

use crate::diagnostic::{Diagnostic, Place};
use crate::job::{ColumnKind, MailboxTemplate, MailboxTemplates, SendJob, SourceSpec, TemplateSource, Text};
use crate::letter::{Columns, default_address_column};
use crate::mail;

use super::engine::{self, Engine, VALUE_END, VALUE_START};
use super::line::{Condition, Form, Line, Part, Pattern};
use super::mailto::{self, Mailto};
use super::meant;
use super::pictures::{self, Language, Shown, Target};
use super::scan::{Compared, Plain, Scan, Shape, plain};
use super::value::Names;
use super::{Attachment, Body, MailboxLines, Many, Templates, filters, is_bulk, moment, strict};

/// A template file longer than this is taken for something else.
const LONGEST_TEMPLATE: u64 = 16 << 20;

/// What is said of a file in another encoding.
const NOT_UTF8: &str = "it is not UTF-8";

/// Names that are there besides columns and vars.
const GLOBALS: [&str; 6] = ["now", "row", "range", "dict", "namespace", "cycler"];

/// Fields that are ours to write, or the envelope's, or the relay's.
const RESERVED: [&str; 26] = [
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "received",
    "return-path",
    "dkim-signature",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-id",
    "feedback-id",
    "auto-submitted",
    "resent-from",
    "resent-to",
    "resent-cc",
    "resent-bcc",
    "arc-seal",
];

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
            templates.warnings.extend(fleeting_edition(&templates, &job.edition, now));
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

/// A template file that was read.
struct Loaded {
    name: String,
    path: PathBuf,
    source: Arc<str>,
    scan: Scan,
}

impl Compiler<'_> {
    fn templates(&mut self, now: i64) -> Option<Templates> {
        let job = self.job;
        let vars = serde_json::to_string_pretty(&job.vars).unwrap_or_default();
        self.saw("vars", &vars);
        self.saw("class", &format!("{:?}", job.class));
        self.saw("from", &job.from.to_string());
        let reply_to: Vec<String> = job.reply_to.iter().map(ToString::to_string).collect();
        self.saw("reply_to", &reply_to.join(", "));
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
        let (inline, images): (Vec<_>, Vec<_>) = images?.into_iter().partition(|(_, pattern)| {
            matches!(&pattern.line.form, Form::Parts(parts) if parts.iter().all(|part| matches!(part, Part::Text(_))))
        });
        let inline = inline.into_iter().filter_map(|(cid, pattern)| match pattern.line.form {
            Form::Parts(parts) => {
                let path: String = parts
                    .iter()
                    .map(|part| if let Part::Text(text) = part { text.as_str() } else { "" })
                    .collect();
                Some((cid, job.root.join(path)))
            }
            Form::Template(_) | Form::Address => None,
        });
        Some(Templates {
            now: moment(now, &zone),
            zone,
            from: job.from.clone(),
            reply_to: job.reply_to.clone(),
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

    // ---- the templates of the job file ----

    fn optional(&mut self, key: &str, text: Option<&Text>) -> Option<Option<Line>> {
        match text {
            None => Some(None),
            Some(text) => self.line(key, text, Sees::Row).map(Some),
        }
    }

    /// A line that the reader sees, and the fingerprint knows.
    fn seen_line(&mut self, key: &str, text: &Text) -> Option<Line> {
        self.saw(key, &text.value);
        self.line(key, text, Sees::Row)
    }

    fn line(&mut self, key: &str, text: &Text, sees: Sees) -> Option<Line> {
        let at = line_of(text);
        let key = key.to_owned();
        let scan = match Scan::template(&text.value) {
            Ok(scan) => scan,
            Err(error) => {
                self.flawed(syntax(&key, text, &error, 0), &text.value);
                return None;
            }
        };
        if !self.check_job_text(&key, text, &scan, sees) {
            return None;
        }
        self.warn_unfilled(&format!("`{key}`"), &text.value, |span| narrowed(text, span));
        if let Some(parts) = self.parts(&text.value, sees) {
            return Some(Line { key, at, form: Form::Parts(parts) });
        }
        let name = format!("<{key}>");
        if let Err(error) =
            self.engine.text.add_template_owned(name.clone(), strict::guarded(text.value.clone()))
        {
            self.flawed(syntax(&key, text, &error, 0), &text.value);
            return None;
        }
        Some(Line { key, at, form: Form::Template(name) })
    }

    fn mailto(&mut self, key: &str, text: &Text) -> Option<Mailto> {
        self.saw(key, &text.value);
        let (address, fields) = mailto::split(&text.value);
        let part = |words: &str| Text { value: words.to_owned(), place: text.place.clone() };
        let address = self.line(key, &part(address), Sees::Row);
        let fields = fields.map(|fields| self.pattern(key, &part(fields)));
        // What `vars` say is a value here as much as what a row says.
        let fields = transpose(fields)?.map(|fields| Pattern { emits: Vec::new(), ..fields });
        Some(Mailto { address: address?, fields })
    }

    /// The parts of a line that needs no engine.
    fn parts(&self, source: &str, sees: Sees) -> Option<Vec<Part>> {
        let knows = self.names.knows_columns();
        let parts = plain(source)?.into_iter().map(|part| match part {
            Plain::Text(text) => Some(Part::Text(text)),
            Plain::Name(name) if knows && let Some(value) = self.names.var(&name) => {
                let prints = matches!(value.kind(), ValueKind::String | ValueKind::Number | ValueKind::Bool);
                prints.then(|| Part::Text(value.to_string()))
            }
            // Without a row, or with columns that may hide a var, the engine looks it up.
            Plain::Name(_) if sees == Sees::VarsOnly => None,
            Plain::Name(name) if self.names.var(&name).is_some() || GLOBALS.contains(&name.as_str()) => None,
            Plain::Name(name) => {
                let place = self.names.columns().iter().position(|column| *column == name);
                Some(Part::Column(name, place.unwrap_or(usize::MAX)))
            }
        });
        parts.collect()
    }

    fn condition(&mut self, key: &str, text: &Text) -> Option<Condition> {
        let scan = match Scan::condition(&text.value) {
            Ok(scan) => scan,
            Err(error) => {
                self.mistakes.push(syntax(key, text, &error, 0).help_maybe(meant::operator(&text.value)));
                return None;
            }
        };
        if !self.check_job_text(key, text, &scan, Sees::Row) || !self.check_truths(key, text, &scan) {
            return None;
        }
        let name = format!("<{key}>");
        // The expression was read as one, so nothing in it ends the braces.
        let source = format!("{{{{ ({}\n) }}}}", text.value);
        if let Err(error) = self.engine.conditions.add_template_owned(name.clone(), strict::guarded(source)) {
            self.mistakes.push(syntax(key, text, &error, 4).help_maybe(meant::operator(&text.value)));
            return None;
        }
        let truths = scan.truths.into_iter().map(|(name, _)| name).collect();
        Some(Condition { key: key.to_owned(), at: line_of(text), name, truths })
    }

    /// Whether a name is a column whose cells are known to be text.
    fn is_text(&self, name: &str) -> bool {
        let list = &self.job.recipients;
        let format = match &list.source {
            SourceSpec::File { format: Some(format), .. } | SourceSpec::Stdin { format: Some(format) } => {
                format.to_lowercase()
            }
            SourceSpec::File { path, .. } => {
                path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
            }
            _ => String::new(),
        };
        let kind = list.columns.get(name).map(|(kind, _)| *kind);
        matches!(format.as_str(), "csv" | "tsv")
            && matches!(kind, None | Some(ColumnKind::Text))
            && self.names.columns().iter().any(|column| column == name)
    }

    /// Text is true whatever it says: a column of text as a truth value is a mistake, seen here if
    /// the list's cells are known to be text.
    fn check_truths(&mut self, key: &str, text: &Text, scan: &Scan) -> bool {
        let before = self.mistakes.len();
        for (name, span) in &scan.truths {
            if self.is_text(name) {
                self.mistakes.push(
                    within(
                        Diagnostic::error(format!(
                            "`{key}` takes `{name}` for true or false, but the column is text"
                        )),
                        text,
                        span.clone(),
                    )
                    .label("text is true whatever it says, \"no\" too")
                    .help(format!(
                        "say what the column is, `columns: {{{name}: bool}}`, or compare it: `{name} == \"yes\"`"
                    )),
                );
            }
        }
        self.mistakes.len() == before
    }

    fn pattern(&mut self, key: &str, text: &Text) -> Option<Pattern> {
        let scan = match Scan::template(&text.value) {
            Ok(scan) => scan,
            Err(error) => {
                self.flawed(syntax(key, text, &error, 0), &text.value);
                return None;
            }
        };
        if !self.check_job_text(key, text, &scan, Sees::Row) {
            return None;
        }
        if scan.statements || text.value.contains([VALUE_START, VALUE_END]) {
            let mistake = Diagnostic::error("a pattern has names in it, `{{ }}`, and no blocks, `{% %}`");
            self.mistakes.push(place(mistake, text).help("`when:` says when an entry counts"));
            return None;
        }
        let (at, key) = (line_of(text), key.to_owned());
        if scan.emits.is_empty() {
            let parts = vec![Part::Text(text.value.clone())];
            let line = Line { key, at, form: Form::Parts(parts) };
            return Some(Pattern { line, emits: Vec::new(), marked: false });
        }
        let name = format!("<{key}>");
        if let Err(error) =
            self.engine.patterns.add_template_owned(name.clone(), strict::guarded(text.value.clone()))
        {
            self.flawed(syntax(&key, text, &error, 0), &text.value);
            return None;
        }
        Some(Pattern { line: Line { key, at, form: Form::Template(name) }, emits: scan.emits, marked: true })
    }

    fn mailbox(&mut self, key: &str, template: &MailboxTemplate) -> Option<MailboxLines> {
        let name = self.optional(&format!("{key} (the name)"), template.name.as_ref());
        let address = self.line(key, &template.address, Sees::Row);
        Some(MailboxLines { name: name?, address: address? })
    }

    fn to(&mut self) -> Option<MailboxLines> {
        if let Some(template) = &self.job.recipients.to {
            return self.mailbox("to", template);
        }
        if !self.names.knows_columns() {
            // Rows need not be alike: each is asked for itself.
            let address = Line { key: "to".to_owned(), at: 0, form: Form::Address };
            return Some(MailboxLines { name: None, address });
        }
        let columns = Columns::new(self.names.columns().to_vec());
        let column = match default_address_column(&columns) {
            Ok(column) => column,
            Err(error) => {
                let columns = listed(columns.names().iter().map(String::as_str));
                let place = self.job.recipients.source.place().cloned();
                self.mistakes.push(Diagnostic::error(error.to_string()).at_maybe(place).help(format!(
                    "say where the address is, `to: \"{{{{ column }}}}\"`; the columns are {columns}"
                )));
                return None;
            }
        };
        // No template asks for it: `E-Mail` would be a subtraction, and a column may be called `row`.
        let place = columns.place(column).unwrap_or(usize::MAX);
        let form = Form::Parts(vec![Part::Column(column.to_owned(), place)]);
        Some(MailboxLines { name: None, address: Line { key: "to".to_owned(), at: 0, form } })
    }

    fn many(&mut self, key: &str, templates: &MailboxTemplates) -> Option<Many> {
        match templates {
            MailboxTemplates::Each(each) => {
                let all: Vec<_> = each
                    .iter()
                    .enumerate()
                    .map(|(n, template)| self.mailbox(&format!("{key}[{n}]"), template))
                    .collect();
                all.into_iter().collect::<Option<Vec<_>>>().map(Many::Each)
            }
            MailboxTemplates::Split { each, split } => {
                self.line(key, each, Sees::Row).map(|line| Many::Split(line, split.clone()))
            }
        }
    }

    fn headers(&mut self) -> Option<Vec<(String, Line)>> {
        let mut lines = Some(Vec::new());
        for (name, text) in &self.job.headers {
            let token = !name.is_empty() && name.bytes().all(|b| matches!(b, b'!'..=b'~') && b != b':');
            let reserved = RESERVED.contains(&name.to_ascii_lowercase().as_str());
            if !token || reserved {
                let title = if reserved {
                    format!("the field `{name}` is not for `headers`")
                } else {
                    format!("`{name}` is no name of a field")
                };
                let mistake = Diagnostic::error(title);
                let mistake = match name.to_ascii_lowercase().as_str() {
                    "from" | "reply-to" | "subject" => mistake.help("the job file has a key for it"),
                    "to" | "cc" | "bcc" => {
                        mistake.help(format!("`recipients` has it: `{}`", name.to_ascii_lowercase()))
                    }
                    "list-unsubscribe" | "list-unsubscribe-post" => mistake.help("`unsubscribe` sets it"),
                    "list-id" => mistake.help("`list_id` sets it"),
                    "feedback-id" => mistake.help("`feedback_id` sets it"),
                    _ if reserved => mistake.help("it is written by what composes the letter"),
                    _ => mistake.help("a name has letters, digits and hyphens"),
                };
                self.mistakes.push(place(mistake, text));
            }
            let line = self.seen_line(&format!("headers.{name}"), text);
            match (&mut lines, line) {
                (Some(lines), Some(line)) => lines.push((name.clone(), line)),
                _ => lines = None,
            }
        }
        lines
    }

    fn attachments(&mut self) -> Option<Vec<Attachment>> {
        let job = self.job;
        let mut all = Some(Vec::new());
        for (n, spec) in job.attachments.iter().enumerate() {
            let key = format!("attachments[{n}]");
            let words = [
                ("files", Some(&spec.files)),
                ("as", spec.rename.as_ref()),
                ("type", spec.content_type.as_ref()),
                ("when", spec.when.as_ref()),
            ];
            let words =
                words.iter().filter_map(|(name, text)| text.map(|text| format!("{name}: {}\n", text.value)));
            self.saw(key.clone(), &words.collect::<String>());
            let files = self.pattern(&format!("{key}.files"), &spec.files);
            let rename = self.optional(&format!("{key}.as"), spec.rename.as_ref());
            if let (Some(Some(Line { form: Form::Parts(parts), .. })), Some(text)) = (&rename, &spec.rename)
                && let [Part::Text(name)] = &parts[..]
                && !is_file_name(name)
            {
                let mistake = Diagnostic::error(format!("`{name}` is no name of a file"));
                self.mistakes.push(place(mistake, text).help("it is a name, without slashes and folders"));
            }
            let when = spec.when.as_ref().map(|text| self.condition(&format!("{key}.when"), text));
            if let Some(kind) = &spec.content_type
                && !mail::is_content_type(&kind.value)
            {
                let mistake = Diagnostic::error(format!("`{}` is no content type", kind.value));
                self.mistakes.push(
                    place(mistake, kind)
                        .help("a content type is like application/pdf; the name is under `as`"),
                );
            }
            match (&mut all, files, rename, transpose(when)) {
                (Some(all), Some(files), Some(rename), Some(when)) => {
                    all.push(Attachment { files, rename, when });
                }
                _ => all = None,
            }
        }
        all
    }

    fn images(&mut self) -> Option<Vec<(String, Pattern)>> {
        let job = self.job;
        let mut all = Some(Vec::new());
        for spec in &job.images {
            self.saw(format!("images.{}", spec.cid), &spec.file.value);
            let pattern = self.pattern(&format!("images.{}", spec.cid), &spec.file);
            match (&mut all, pattern) {
                (Some(all), Some(pattern)) => all.push((pictures::content_id_of_name(&spec.cid), pattern)),
                _ => all = None,
            }
        }
        all
    }

    // ---- bodies ----

    /// Compiles a body with all it includes; gives the name of its template.
    fn body(&mut self, source: &TemplateSource, role: Role) -> Option<Body> {
        let key = if role == Role::Html { "body.html" } else { "body.text" };
        let (main, text, folder) = match source {
            TemplateSource::Inline(text) => {
                let name = format!("<{key}>");
                match Scan::template(&text.value) {
                    Ok(scan) => {
                        let path = text.place.as_ref().map_or_else(PathBuf::new, |place| place.file.clone());
                        (Loaded { name, path, source: text.value.as_str().into(), scan }, text, None)
                    }
                    Err(error) => {
                        self.flawed(syntax(key, text, &error, 0), &text.value);
                        return None;
                    }
                }
            }
            TemplateSource::File(text) => {
                let found = self.find(&text.value, None, true);
                let Some(path) = found else {
                    self.mistakes.push(self.missing(&text.value, text));
                    return None;
                };
                let folder = path.parent().map(Path::to_owned);
                let loaded = self.load(&text.value, path, text)?;
                if loaded.source.trim().is_empty() {
                    // An editor that is just saving leaves such a file for a moment.
                    let title = format!("the template `{}` is empty", text.value);
                    let help = "a letter without words is written `{inline: \"\"}`";
                    self.mistakes.push(place(Diagnostic::error(title).help(help), text));
                    return None;
                }
                (loaded, text, folder)
            }
        };
        let inline = matches!(source, TemplateSource::Inline(_));
        let silent = main.source.trim().is_empty();
        let name = main.name.clone();
        let family = self.family(main, text, folder.as_deref())?;
        let perhaps = self.perhaps(&family, text);
        let before = self.mistakes.len();
        let assigned: HashSet<String> = if family.len() + perhaps.len() > 1 {
            let all = family.iter().chain(&perhaps);
            all.flat_map(|loaded| loaded.scan.assigned.iter().cloned()).collect()
        } else {
            HashSet::new()
        };
        for loaded in &family {
            let in_job = inline && loaded.name == name;
            if in_job {
                self.check_job_text(key, text, &loaded.scan, Sees::Row);
                self.warn_unfilled(&format!("`{key}`"), &text.value, |span| narrowed(text, span));
            } else {
                self.check_file(loaded, &assigned);
            }
        }
        if self.mistakes.len() > before {
            return None;
        }
        let foreign = self.foreign(family.iter().chain(&perhaps));
        for loaded in perhaps {
            self.saw(format!("{key}: {}", loaded.name), &loaded.source);
            let source = match role {
                Role::Text => loaded.source.to_string(),
                Role::Html => self.embed_perhaps(&loaded, text, &foreign),
            };
            // One that the engine does not take is told of when it is needed.
            let _ = self.env(role).add_template_owned(loaded.name.clone(), strict::guarded(source));
        }
        for loaded in family {
            self.saw(format!("{key}: {}", loaded.name), &loaded.source);
            let source = match role {
                Role::Text => loaded.source.to_string(),
                Role::Html => self.embed(&loaded, text, &foreign),
            };
            if let Err(error) =
                self.env(role).add_template_owned(loaded.name.clone(), strict::guarded(source))
            {
                self.flawed(
                    syntax_in_file(&loaded.name, &loaded.path, &loaded.source, &error),
                    &loaded.source,
                );
                return None;
            }
        }
        // Any other that is named by a value is looked for when it is needed, and only among the
        // templates: a row must not be able to have the job file printed.
        let templates = self.job.root.join("templates");
        self.env(role).set_loader(move |name| {
            Ok(confined(&templates, name).and_then(|path| read(&path).ok()).map(strict::guarded))
        });
        Some(Body { name, at: if inline { line_of(text) } else { 0 }, silent })
    }

    /// Names in a family of templates whose values a row may have made: columns, and what flows
    /// from them. What is known to come from `vars` alone is the operator's own word.
    fn foreign<'f>(&self, family: impl Iterator<Item = &'f Loaded> + Clone) -> HashSet<String> {
        let flows = || family.clone().flat_map(|loaded| loaded.scan.flows.iter());
        let given: HashSet<&str> = flows().map(|(name, _)| name.as_str()).collect();
        let mut foreign: HashSet<String> = HashSet::new();
        loop {
            let before = foreign.len();
            for (name, sources) in flows() {
                let own = sources.as_ref().is_some_and(|sources| {
                    sources.iter().all(|source| {
                        let var = self.names.knows_columns() && self.names.var(source).is_some();
                        (var || given.contains(source.as_str()) || source == "range")
                            && !foreign.contains(source)
                    })
                });
                if !own {
                    foreign.insert(name.clone());
                }
            }
            if foreign.len() == before {
                return foreign;
            }
        }
    }

    /// The source of an HTML template with its pictures rewritten; those that are named literally
    /// are noted.
    fn embed(&mut self, loaded: &Loaded, text: &Text, foreign: &HashSet<String>) -> String {
        let Shown { references, left } = pictures::shown(&loaded.source, Language::of(&loaded.name));
        if let [(words, span), more @ ..] = &left[..] {
            let spot = self.spot_in(loaded, text, span.clone());
            let name = loaded.name.trim_matches(['<', '>']);
            let more = match more.len() {
                0 => String::new(),
                1 => ", and so is 1 more".to_owned(),
                more => format!(", and so are {more} more"),
            };
            self.warnings.push(
                Diagnostic::warning(format!("a picture in `{name}` is not embedded"))
                    .label(format!("{words} is left as it is{more}"))
                    .help("`src` of `img`, `background` and `url()` embed a file; elsewhere give its whole URL, https://…")
                    .at_maybe(spot),
            );
        }
        let mut replacements = Vec::with_capacity(references.len());
        for reference in &references {
            replacements.push(match &reference.target {
                Target::File(path) => match self.picture(path, loaded) {
                    Some(cid) => format!("cid:{cid}"),
                    None => {
                        let spot = self.spot_in(loaded, text, reference.span.clone());
                        let title = format!("the picture `{path}` is not there");
                        self.mistakes.push(
                            Diagnostic::error(title)
                                .label("neither from the root nor beside the template")
                                .help("a picture on the web needs its whole URL, https://…")
                                .at_maybe(spot),
                        );
                        String::new()
                    }
                },
                Target::Named(name) => {
                    if !self.job.images.iter().any(|spec| spec.cid == *name) {
                        let spot = self.spot_in(loaded, text, reference.span.clone());
                        let near = nearest(name, self.job.images.iter().map(|spec| &*spec.cid));
                        let mistake = Diagnostic::error(format!("`images` has no picture `{name}`"));
                        let help = match near {
                            Some(near) => format!("did you mean `{near}`?"),
                            None if self.job.images.is_empty() => {
                                format!("name its file in the job, `images: {{{name}: images/x.png}}`")
                            }
                            None => {
                                format!("it has {}", listed(self.job.images.iter().map(|spec| &*spec.cid)))
                            }
                        };
                        self.mistakes.push(mistake.help(help).at_maybe(spot));
                    }
                    format!("cid:{}", pictures::content_id_of_name(name))
                }
                Target::Template(parts) => {
                    let own = |expression: &String| {
                        let names = pictures::names_in(expression);
                        let known = |name: &String| {
                            let assigned = loaded.scan.assigned.contains(name);
                            let var = self.names.knows_columns() && self.names.var(name).is_some();
                            (assigned || var) && !foreign.contains(name)
                        };
                        !names.is_empty() && names.iter().all(known)
                    };
                    let operators: Vec<bool> = parts.iter().skip(1).step_by(2).map(own).collect();
                    pictures::call(parts, &operators)
                }
            });
        }
        pictures::rewrite(&loaded.source, &references, &replacements)
    }

    /// The content-id of a picture on the disk, noted once however often it is shown. One that
    /// `images` has already keeps the name it has there.
    fn picture(&mut self, path: &str, loaded: &Loaded) -> Option<String> {
        let root = &self.job.root;
        let beside = loaded.path.parent().filter(|_| !loaded.name.starts_with('<'));
        let file = [Some(root.as_path()), beside].into_iter().flatten().find_map(|folder| {
            let file = folder.join(path);
            file.is_file().then(|| file.canonicalize().unwrap_or(file))
        })?;
        if let Some((cid, _)) = self.inline.iter().find(|(_, known)| *known == file) {
            return Some(cid.clone());
        }
        let named = self
            .job
            .images
            .iter()
            .find(|spec| root.join(&spec.file.value).canonicalize().is_ok_and(|known| known == file));
        if let Some(spec) = named {
            return Some(pictures::content_id_of_name(&spec.cid));
        }
        let shown = self.shown(&file);
        let cid = pictures::content_id(&shown.to_string_lossy());
        self.inline.push((cid.clone(), file));
        Some(cid)
    }

    fn env(&mut self, role: Role) -> &mut Environment<'static> {
        match role {
            Role::Html => &mut self.engine.html,
            Role::Text => &mut self.engine.text,
        }
    }

    /// A template and all that it names, each once.
    fn family(&mut self, main: Loaded, text: &Text, folder: Option<&Path>) -> Option<Vec<Loaded>> {
        let mut family: BTreeMap<String, Loaded> = BTreeMap::new();
        let mut next = vec![main];
        let mut whole = true;
        while let Some(loaded) = next.pop() {
            for (names, span, may_be_missing) in &loaded.scan.includes {
                let mut found = false;
                for name in names {
                    if family.contains_key(name)
                        || *name == loaded.name
                        || next.iter().any(|l| l.name == *name)
                    {
                        found = true;
                        continue;
                    }
                    let Some(path) = self.find(name, folder, false) else { continue };
                    found = true;
                    match self.load(name, path, text) {
                        Some(other) => next.push(other),
                        None => whole = false,
                    }
                }
                if !found && !may_be_missing {
                    whole = false;
                    let title = format!("the template `{}` is not there", names.join("`, `"));
                    let mistake = Diagnostic::error(title)
                        .label("named here")
                        .help("templates are looked for in templates/, then from the root");
                    let spot = self.spot_in(&loaded, text, span.clone());
                    self.mistakes.push(mistake.at_maybe(spot));
                }
            }
            family.insert(loaded.name.clone(), loaded);
        }
        if let Some((from, at)) = endless(&family) {
            let (names, span, _) = &from.scan.includes[at];
            let mistake =
                Diagnostic::error(format!("the template `{}` is within itself", names.join("`, `")))
                    .label("from here it comes round to itself, without an end")
                    .help("a template may include itself only within an `if` or a loop that ends");
            self.mistakes.push(mistake.at_maybe(self.spot_in(from, text, span.clone())));
            return None;
        }
        whole.then(|| family.into_values().collect())
    }

    /// Templates that may be needed: those below templates/ that a computed name of the family can have, and
    /// what they name in their turn. What is wrong in them is no mistake of the job, for which of them is
    /// needed the rows say.
    fn perhaps(&mut self, family: &[Loaded], text: &Text) -> Vec<Loaded> {
        let mut found: Vec<Loaded> = Vec::new();
        let (mut there, mut blind) = (None, false);
        let mut at = 0;
        while let Some(loaded) = family.get(at).or_else(|| found.get(at - family.len())) {
            let mut names: Vec<String> = Vec::new();
            if at >= family.len() {
                names.extend(loaded.scan.includes.iter().flat_map(|(names, ..)| names.iter().cloned()));
            }
            for (shapes, span) in &loaded.scan.computed {
                for shape in shapes {
                    if shape.iter().all(Option::is_none) {
                        self.whole_row = true;
                        if !blind {
                            blind = true;
                            let spot = self.spot_in(loaded, text, span.clone());
                            self.warnings.push(by_a_value_alone(loaded).at_maybe(spot));
                        }
                        continue;
                    }
                    let there = there.get_or_insert_with(|| files_below(&self.job.root.join("templates")));
                    names.extend(there.iter().filter(|name| fits(shape, name)).cloned());
                }
            }
            for name in names {
                let known = family.iter().chain(&found).any(|known| known.name == name);
                let templates = self.job.root.join("templates");
                let Some(path) = confined(&templates, &name).filter(|_| !known) else { continue };
                let Ok(source) = read(&path) else { continue };
                let Ok(scan) = Scan::template(&source) else { continue };
                self.asked.extend(scan.names.iter().map(|(name, _)| name.clone()));
                self.asked.extend(scan.asked.iter().cloned());
                self.whole_row |= self.asked.contains("row");
                found.push(Loaded { name, path, source: source.into(), scan });
            }
            at += 1;
        }
        found
    }

    /// As [`Compiler::embed`]; where something is wrong the template stays as it is, and nothing is said.
    fn embed_perhaps(&mut self, loaded: &Loaded, text: &Text, foreign: &HashSet<String>) -> String {
        let before = (self.mistakes.len(), self.warnings.len(), self.inline.len());
        let source = self.embed(loaded, text, foreign);
        self.warnings.truncate(before.1);
        if self.mistakes.len() == before.0 {
            return source;
        }
        self.mistakes.truncate(before.0);
        self.inline.truncate(before.2);
        loaded.source.to_string()
    }

    fn spot_in(&self, loaded: &Loaded, text: &Text, span: Range<usize>) -> Option<Place> {
        if loaded.name.starts_with('<') {
            return text.place.clone();
        }
        Some(Place { file: self.shown(&loaded.path), source: loaded.source.clone(), span })
    }

    /// Where a template is: in `templates/`, from the root, beside the template that names it. Only
    /// the job file may lead out of these.
    fn find(&self, name: &str, beside: Option<&Path>, of_job: bool) -> Option<PathBuf> {
        let root = &self.job.root;
        let templates = root.join("templates");
        if of_job {
            return [templates.join(name), root.join(name)].into_iter().find(|path| path.is_file());
        }
        [Some(templates.as_path()), Some(root.as_path()), beside]
            .into_iter()
            .flatten()
            .find_map(|folder| confined(folder, name))
    }

    fn load(&mut self, name: &str, path: PathBuf, text: &Text) -> Option<Loaded> {
        let source: Arc<str> = match read(&path) {
            Ok(source) => source.into(),
            Err(reason) => {
                let title = format!("the template `{name}` cannot be read: {reason}");
                let mut mistake = Diagnostic::error(title);
                if reason == NOT_UTF8 {
                    mistake =
                        mistake.help("save the file as UTF-8; some editors write GBK or UTF-16 unless told");
                }
                self.mistakes.push(place(mistake, text));
                return None;
            }
        };
        match Scan::template(&source) {
            Ok(scan) => Some(Loaded { name: name.to_owned(), path, source, scan }),
            Err(error) => {
                let shown = self.shown(&path);
                self.flawed(syntax_in_file(name, &shown, &source, &error), &source);
                None
            }
        }
    }

    fn missing(&self, name: &str, text: &Text) -> Diagnostic {
        let folder = self.job.root.join("templates");
        let there: Vec<String> = std::fs::read_dir(&folder)
            .map(|entries| {
                entries
                    .flatten()
                    .filter(|entry| entry.path().is_file())
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .take(1000)
                    .collect()
            })
            .unwrap_or_default();
        let mistake = Diagnostic::error(format!("the template `{name}` is not there"))
            .label("neither in templates/ nor from the root");
        let mistake = match nearest(name, there.iter().map(String::as_str)) {
            Some(near) => mistake.help(format!("did you mean `{near}`?")),
            None => mistake,
        };
        place(mistake, text)
    }

    /// A path as it is shown: from the root where it is below it.
    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.job.root).unwrap_or(path).to_owned()
    }

    // ---- names, filters, tests ----

    fn check_file(&mut self, loaded: &Loaded, assigned: &HashSet<String>) {
        let shown = self.shown(&loaded.path);
        let source = loaded.source.clone();
        let spot = |span: Range<usize>| Some(Place { file: shown.clone(), source: source.clone(), span });
        let subject = format!("template `{}`", loaded.name);
        self.check(&subject, &loaded.scan, Sees::Row, assigned, &spot);
        self.warn_unfilled(&subject, &loaded.source, spot);
    }

    fn check_job_text(&mut self, key: &str, text: &Text, scan: &Scan, sees: Sees) -> bool {
        let spot = |span: Range<usize>| narrowed(text, span);
        self.check(&format!("`{key}`"), scan, sees, &HashSet::new(), &spot)
    }

    /// True if nothing is wrong.
    fn check(
        &mut self,
        subject: &str,
        scan: &Scan,
        sees: Sees,
        assigned: &HashSet<String>,
        spot: &dyn Fn(Range<usize>) -> Option<Place>,
    ) -> bool {
        let before = self.mistakes.len();
        let mut told = HashSet::new();
        for (name, span) in &scan.names {
            let special = GLOBALS.contains(&name.as_str());
            self.whole_row |= name == "row" && !self.names.has(name);
            self.asked.insert(name.clone());
            let known = match sees {
                Sees::Row => self.names.has(name) || !self.names.knows_columns(),
                Sees::VarsOnly => self.names.var(name).is_some(),
            };
            if known || special && (sees == Sees::Row || name != "row") || assigned.contains(name) {
                continue;
            }
            if !told.insert(name.clone()) {
                continue;
            }
            let mistake = self.unknown_name(subject, name, sees);
            self.mistakes.push(mistake.at_maybe(spot(span.clone())));
        }
        self.asked.extend(scan.asked.iter().cloned());
        for (name, span) in &scan.of_row {
            // A column may be called `row` itself.
            let known =
                !self.names.knows_columns() || self.names.has("row") || self.names.columns().contains(name);
            if known || sees != Sees::Row || !told.insert(name.clone()) {
                continue;
            }
            let mistake = self.unknown_name(subject, name, sees);
            let narrow = self.narrow(spot(span.clone()), name);
            self.mistakes.push(mistake.at_maybe(narrow));
        }
        // Text is no number: in an order it stands behind all of them, and it equals none.
        for ((name, span), with) in &scan.compared {
            if sees != Sees::Row || assigned.contains(name) || !self.is_text(name) {
                continue;
            }
            let (what, kind) = match with {
                Compared::Number => ("a number", "number"),
                Compared::Truth => ("a truth value", "bool"),
            };
            self.mistakes.push(
                Diagnostic::error(format!("{subject} compares `{name}` with {what}, but the column is text"))
                    .label(format!("text is never {what}, whatever it says"))
                    .help(format!("say what the column is, `columns: {{{name}: {kind}}}`"))
                    .at_maybe(spot(span.clone())),
            );
        }
        for (name, span) in &scan.filters {
            if !engine::has_filter(&self.engine.text, name) && told.insert(format!("|{name}")) {
                let near = nearest(name, filters::OURS.into_iter().chain(FILTERS));
                let mistake =
                    Diagnostic::error(format!("{subject} uses the filter `{name}`, which does not exist"));
                let mistake = match near {
                    Some(near) => mistake.help(format!("did you mean `{near}`?")),
                    None => mistake,
                };
                let narrow = self.narrow(spot(span.clone()), name);
                self.mistakes.push(mistake.at_maybe(narrow));
            }
        }
        for (name, span) in &scan.tests {
            if !engine::has_test(&self.engine.text, name) && told.insert(format!("is {name}")) {
                let mistake =
                    Diagnostic::error(format!("{subject} uses the test `is {name}`, which does not exist"));
                let narrow = self.narrow(spot(span.clone()), name);
                self.mistakes.push(mistake.at_maybe(narrow));
            }
        }
        self.mistakes.len() == before
    }

    /// A place moved to a word in it.
    fn narrow(&self, place: Option<Place>, word: &str) -> Option<Place> {
        let mut place = place?;
        if let Some(words) = place.source.get(place.span.clone())
            && let Some(at) = words.rfind(word)
        {
            let start = place.span.start + at;
            place.span = start..start + word.len();
        }
        Some(place)
    }

    fn unknown_name(&self, subject: &str, name: &str, sees: Sees) -> Diagnostic {
        if sees == Sees::VarsOnly {
            return Diagnostic::error(format!(
                "{subject} asks for `{name}`, which is none of the job's `vars`"
            ))
            .help("it is rendered once for all recipients: there is no row to look at");
        }
        let list = match &self.job.recipients.source {
            SourceSpec::File { path, .. } => {
                format!("`{}`", path.file_name().unwrap_or_default().to_string_lossy())
            }
            _ => "the list".to_owned(),
        };
        let columns = listed(self.names.columns().iter().map(String::as_str));
        let near = nearest(name, self.names.all().chain(["now", "row"]));
        let near =
            near.map(|near| format!("did you mean `{}`? ", meant::reference(near))).unwrap_or_default();
        Diagnostic::error(format!("{subject} asks for `{name}`, which {list} does not have"))
            .help(format!("{near}its columns are {columns}"))
    }

    /// Notes that a template cannot be read.
    fn flawed(&mut self, mistake: Diagnostic, source: &str) {
        let help = meant::misnamed(source, self.names.columns().iter().map(String::as_str));
        self.mistakes.push(mistake.help_maybe(help.or_else(|| meant::wide_sign(source))));
    }

    /// Warns of words that look like a template, and that everybody would get as they stand.
    fn warn_unfilled(&mut self, subject: &str, source: &str, spot: impl Fn(Range<usize>) -> Option<Place>) {
        let Some(span) = meant::unfilled(source, |word| self.names.all().any(|name| name == word)) else {
            return;
        };
        let words = &source[span.clone()];
        let inner = words.trim_matches(['{', '}', '｛', '｝']).trim();
        let title = format!("{subject} has `{words}`, which is no template: everybody gets it as it stands");
        let help = format!("write `{{{{ {} }}}}`", meant::reference(inner));
        self.warnings.push(Diagnostic::warning(title).at_maybe(spot(span)).help(help));
    }

    /// Notes a piece of what the reader sees.
    fn saw(&mut self, name: impl Into<String>, text: &str) {
        self.seen.push((name.into(), text.to_owned()));
    }
}

/// Filters of the engine, for "did you mean".
const FILTERS: [&str; 38] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
];

/// The template, and the place in its `includes`, from where a template is reached again that is
/// still being carried out, whatever the row says.
fn endless(family: &BTreeMap<String, Loaded>) -> Option<(&Loaded, usize)> {
    /// Goes on from a template; `way` leads to it, `done` are those from which nothing comes round.
    fn from<'f>(
        family: &'f BTreeMap<String, Loaded>,
        loaded: &'f Loaded,
        way: &mut Vec<&'f str>,
        done: &mut HashSet<&'f str>,
    ) -> Option<(&'f Loaded, usize)> {
        way.push(&loaded.name);
        for &at in &loaded.scan.always {
            // Of several names the first that is there is taken.
            let next = loaded.scan.includes[at].0.iter().find_map(|name| family.get(name));
            let Some(next) = next.filter(|next| !done.contains(&*next.name)) else { continue };
            if way.contains(&&*next.name) {
                return Some((loaded, at));
            }
            let found = from(family, next, way, done);
            if found.is_some() {
                return found;
            }
        }
        way.pop();
        done.insert(&loaded.name);
        None
    }
    let mut done = HashSet::new();
    family.values().find_map(|loaded| from(family, loaded, &mut Vec::new(), &mut done))
}

/// More files than a folder of templates has.
const MOST_TEMPLATES: usize = 10_000;

/// The files below a folder, as templates name them.
fn files_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = walkdir::WalkDir::new(folder)
        .follow_links(true)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.path().strip_prefix(folder).ok()?.to_str().map(str::to_owned))
        .take(MOST_TEMPLATES)
        .collect();
    names.sort_unstable();
    names
}

/// Whether a name has a shape. What a value puts into it is part of a name, not of a path.
fn fits(shape: &Shape, name: &str) -> bool {
    let pattern: String =
        shape.iter().map(|part| part.as_deref().map_or_else(|| "*".to_owned(), globset::escape)).collect();
    let glob = globset::GlobBuilder::new(&pattern).literal_separator(true).build();
    glob.is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

fn by_a_value_alone(loaded: &Loaded) -> Diagnostic {
    let name = loaded.name.trim_matches(['<', '>']);
    Diagnostic::warning(format!("a template is named by a value alone in `{name}`"))
        .label("pictures in it are not embedded, and a change of it midway is not seen")
        .help("a part of the name that is written out helps: `{% include lang ~ \".html\" %}`")
}

/// Whether a recipient can be shown a file under this name.
pub(super) fn is_file_name(name: &str) -> bool {
    !matches!(name.trim(), "" | "." | "..") && !name.contains(['/', '\\'])
}

fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(some) => Some(some),
    }
}

/// A file below a folder, or nothing: no name and no link leads out of it.
fn confined(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !below || name.contains(['\\', '\0']) {
        return None;
    }
    let (folder, path) = (folder.canonicalize().ok()?, folder.join(path).canonicalize().ok()?);
    (path.starts_with(&folder) && path.is_file()).then_some(path)
}

fn read(path: &Path) -> Result<String, String> {
    let size = path.metadata().map_err(|error| error.to_string())?.len();
    if size > LONGEST_TEMPLATE {
        return Err(format!("it has {size} octets, which is too long for a template"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| NOT_UTF8.to_owned())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The line of the job file a text stands in; 0 where that is not known.
fn line_of(text: &Text) -> usize {
    text.place.as_ref().map_or(0, |place| {
        let (before, written) = place.source.split_at_checked(place.span.start).unwrap_or_default();
        // A block begins with its sign, and its words on the next line.
        let block = written.starts_with(['|', '>']);
        before.matches('\n').count() + 1 + usize::from(block)
    })
}

fn place(diagnostic: Diagnostic, text: &Text) -> Diagnostic {
    diagnostic.at_maybe(text.place.clone())
}

/// The diagnostic at the words `span` of a text of the job file.
fn within(diagnostic: Diagnostic, text: &Text, span: Range<usize>) -> Diagnostic {
    diagnostic.at_maybe(narrowed(text, span))
}

/// The place of `span` of a text. YAML may have quoted or folded the text, so the words are looked
/// for in what the file has there; if they are not found the whole text is the place.
fn narrowed(text: &Text, span: Range<usize>) -> Option<Place> {
    let mut place = text.place.clone()?;
    let words = text.value.get(span.clone()).unwrap_or_default();
    let mut written = place.source.get(place.span.clone()).unwrap_or_default();
    if written.starts_with(['|', '>']) {
        // The words of a block follow its sign.
        written = place.source.get(place.span.start..).unwrap_or_default();
    }
    if words.is_empty() {
        return Some(place);
    }
    // As often as the words come before in the text, they do in the file.
    let nth = text.value.get(..span.start).unwrap_or_default().matches(words).count();
    if let Some((at, _)) = written.match_indices(words).nth(nth) {
        let start = place.span.start + at;
        place.span = start..start + words.len();
    }
    Some(place)
}

/// Warns of an edition that has another name a second later: to each run everybody is new.
fn fleeting_edition(templates: &Templates, text: &Text, now: i64) -> Option<Diagnostic> {
    let minute = now - now.rem_euclid(60);
    let (first, second) = (templates.edition(minute).ok()?, templates.edition(minute + 1).ok()?);
    let title = "`edition` is another one every second: each run would mail everybody again";
    let help = "name what it is an edition of, for instance the day: `{{ now | date('%Y-%m-%d') }}`";
    (first != second).then(|| place(Diagnostic::warning(title).help(help), text))
}

fn syntax(key: &str, text: &Text, error: &minijinja::Error, shift: usize) -> Diagnostic {
    let title = format!("`{key}` is not a template as it should be: {}", super::error::reason(error));
    let span = error.range().map(|range| range.start.saturating_sub(shift)..range.end.saturating_sub(shift));
    match span {
        Some(span) => within(Diagnostic::error(title), text, span),
        None => place(Diagnostic::error(title), text),
    }
}

fn syntax_in_file(name: &str, path: &Path, source: &Arc<str>, error: &minijinja::Error) -> Diagnostic {
    let title = format!("template `{name}`: {}", super::error::reason(error));
    let start =
        |line: usize| source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let span = error.range().unwrap_or_else(|| {
        let start = start(error.line().unwrap_or(1));
        start..start + source.get(start..).and_then(|rest| rest.lines().next()).map_or(0, str::len)
    });
    Diagnostic::error(title).at(Place { file: path.to_owned(), source: source.clone(), span })
}

/// Names in a row, not more than a reader takes in.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

fn fingerprint(seen: &[(String, String)]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for text in seen.iter().flat_map(|(name, text)| [name, text]) {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    among
        .map(|other| (strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase()), other))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, other)| other)
}
