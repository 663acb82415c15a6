//! The lines of the job file: subject, addresses, fields, conditions and patterns.

use minijinja::value::ValueKind;

use crate::diagnostic::Diagnostic;
use crate::job::{MailboxTemplate, MailboxTemplates, Text};
use crate::letter::{Columns, default_address_column};
use crate::mail;
use crate::render::engine::{VALUE_END, VALUE_START};
use crate::render::line::{Condition, Form, Line, Part, Pattern};
use crate::render::mailto::{self, Mailto};
use crate::render::scan::{Plain, Scan, plain};
use crate::render::{Attachment, MailboxLines, Many, meant, pictures, strict};

use super::names::{GLOBALS, listed};
use super::places::{line_of, narrowed, place, syntax};
use super::{Compiler, Sees, is_file_name, transpose};

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

impl Compiler<'_> {
    pub(super) fn optional(&mut self, key: &str, text: Option<&Text>) -> Option<Option<Line>> {
        match text {
            None => Some(None),
            Some(text) => self.line(key, text, Sees::Row).map(Some),
        }
    }

    /// A line that the reader sees, and the fingerprint knows.
    pub(super) fn seen_line(&mut self, key: &str, text: &Text) -> Option<Line> {
        self.saw(key, &text.value);
        self.line(key, text, Sees::Row)
    }

    pub(super) fn line(&mut self, key: &str, text: &Text, sees: Sees) -> Option<Line> {
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

    pub(super) fn mailto(&mut self, key: &str, text: &Text) -> Option<Mailto> {
        self.saw(key, &text.value);
        let (address, fields) = mailto::split(&text.value);
        let part = |words: &str| Text { place: text.place.clone(), ..Text::new(words) };
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

    pub(super) fn condition(&mut self, key: &str, text: &Text) -> Option<Condition> {
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

    pub(super) fn to(&mut self) -> Option<MailboxLines> {
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

    pub(super) fn many(&mut self, key: &str, templates: &MailboxTemplates) -> Option<Many> {
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

    pub(super) fn headers(&mut self) -> Option<Vec<(String, Line)>> {
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

    pub(super) fn attachments(&mut self) -> Option<Vec<Attachment>> {
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
            let words = words
                .iter()
                .filter_map(|(name, text)| text.map(|text| format!("{name}: {}\n", text.written())));
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

    pub(super) fn images(&mut self) -> Option<Vec<(String, Pattern)>> {
        let job = self.job;
        let mut all = Some(Vec::new());
        for spec in &job.images {
            self.saw(format!("images.{}", spec.cid), spec.file.written());
            let pattern = self.pattern(&format!("images.{}", spec.cid), &spec.file);
            match (&mut all, pattern) {
                (Some(all), Some(pattern)) => all.push((pictures::content_id_of_name(&spec.cid), pattern)),
                _ => all = None,
            }
        }
        all
    }
}
