//! `kind: send`

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::diagnostic::{Diagnostic, Level};
use crate::exit::Exit;
use crate::mail::{Mailbox, list_id};

use super::super::section::{Reading, Section, Value, percentage};
use super::super::tree::{self, Content, Document};
use super::super::{
    AttachmentSpec, Body, Class, ColumnKind, Dedupe, ImageSpec, Keep, LedgerUrl, MailboxTemplate,
    MailboxTemplates, MaxBad, Notify, NotifyWhen, RecipientsSpec, SendJob, SourceSpec, TemplateSource, Text,
    Unsubscribe,
};
use super::archive::job_name;
use super::relay::relay;
use super::*;

/// Where the ledger is when nothing is said, from the root.
const LEDGER: &str = ".postroom/ledger.db";

/// Lowers a sending job.
pub(in crate::job) fn send(section: &Section<'_>, house: &House<'_>, path: &Path) -> Option<SendJob> {
    let reading = section.value.reading;
    let name = section.need("name").and_then(job_name);
    let edition = section.get("edition").or_else(|| {
        section.missing(
            "edition",
            "a recipient gets each edition once: `edition: \"2026-11\"`, or a template of `now`",
        )
    });
    let edition = edition.and_then(|value| value.line());
    let timezone = section.get("timezone").or(house.timezone).map(timezone);
    let class = section.get("class").map_or(Some(Class::default()), |value| {
        value.one_of(&[("bulk", Class::Bulk), ("personal", Class::Personal)])
    });
    let from = section.need("from").and_then(mailbox);
    let return_path = section.get("return_path").map(|value| {
        let text = value.line()?;
        if is_template(&text.value) {
            return Some(text);
        }
        address(value, &text.value)?;
        Some(text)
    });
    let reply_to = section.get("reply_to").map_or(Some(MailboxTemplates::default()), mailbox_templates);
    let recipients = section.need("recipients").and_then(recipients);
    let subject = section.need("subject").and_then(subject);
    let body = section.need("body").and_then(body);
    let attachments = all(section.get("attachments"), |value| value.one_or_more(), attachment);
    let images = section.get("images").map(images);
    let headers = headers(section);
    let unsubscribe = section.get("unsubscribe").map(unsubscribe);
    let id_of_list = section.get("list_id").map(|value| {
        let text = value.line()?;
        // Of what a template makes, only an id behind it is known.
        let constant = match is_template(&text.value) {
            true => text.value.rsplit('}').next().filter(|tail| tail.contains('<')),
            false => Some(&*text.value),
        };
        match constant.is_none_or(|constant| list_id(constant).is_some()) {
            true => Some(text),
            false => value.wrong(
                Diagnostic::error("the id of a list is of ASCII and has no blank in it")
                    .help("write `news.example.com`, or `News <news.example.com>`"),
            ),
        }
    });
    let feedback_id = section.get("feedback_id").map(|value| value.line());
    let vars = vars(section);
    let relay = match section.get("relay").or_else(|| the_only(house.relays)) {
        Some(value) => relay(value, house),
        None => section.missing("relay", "name one of postroom.yaml, or write it here: `relay: {host: …}`"),
    };
    let ledger = match section.get("ledger").or(house.ledger) {
        Some(value) => ledger(value),
        None => Some(default_ledger(&reading.root)),
    };
    let recipients = recipients.map(|recipients| match recipients.source {
        // Where that ledger is nobody knows; what is not read before a run stands in for its list.
        SourceSpec::Ledger { .. } if ledger.is_none() => {
            RecipientsSpec { source: SourceSpec::Stdin { format: None }, ..recipients }
        }
        _ => recipients,
    });
    let keep = section.get("keep").map(|value| match value.as_text() {
        Some("digest") => Some(Keep::Digest),
        _ => value.path().map(Keep::Folder),
    });
    let notify = section.get("notify").map(notify);
    Some(SendJob {
        path: path.to_owned(),
        root: reading.root.clone(),
        name: or(name, reading, String::new)?,
        edition: or(edition, reading, || Text::new("1"))?,
        timezone: or(given(timezone), reading, || None)?,
        class: or(class, reading, Class::default)?,
        from: or(from.map(Some), reading, || "nobody@example.invalid".parse().ok())??,
        return_path: or(given(return_path), reading, || None)?,
        reply_to: or(reply_to, reading, MailboxTemplates::default)?,
        recipients: recipients?,
        subject: or(subject, reading, || Text::new("-"))?,
        body: body?,
        attachments: or(attachments, reading, Vec::new)?,
        images: given(images)?.unwrap_or_default(),
        headers: or(headers, reading, Vec::new)?,
        unsubscribe: or(given(unsubscribe), reading, || None)?,
        list_id: or(given(id_of_list), reading, || None)?,
        feedback_id: or(given(feedback_id), reading, || None)?,
        vars: vars?,
        relay: or(relay, reading, relay::nowhere)?,
        ledger: or(ledger, reading, || default_ledger(&reading.root))?,
        keep: or(given(keep), reading, || None)?,
        notify: or(given(notify), reading, || None)?,
        warnings: Vec::new(),
        absent: Vec::new(),
    })
}

/// The subject; one that ends before a `#12`, which was hardly meant as a comment, is warned of.
fn subject(value: Value<'_>) -> Option<Text> {
    let source = &*value.document.source;
    let written = source.get(value.node.span.start..).unwrap_or("");
    // One without quotes stands in the file word for word, be it over several lines.
    let behind = value.as_text().and_then(|words| {
        words.split_whitespace().try_fold(written, |rest, word| rest.trim_start().strip_prefix(word))
    });
    let at = source.len() - behind.unwrap_or("").len();
    let line = source[at..].lines().next().unwrap_or("");
    let lost = line.trim();
    let is_number = |words: &str| words.starts_with(|sign: char| sign.is_ascii_digit() || sign == '{');
    // Comments are set off further.
    let is_word =
        |words: &str| line.starts_with(" #") && words.starts_with(|sign: char| sign.is_ascii_alphabetic());
    if lost.strip_prefix('#').is_some_and(|words| is_number(words) || is_word(words)) {
        let at = at + line.len() - line.trim_start().len();
        value.reading.note(
            Diagnostic::warning("this is no part of the subject: ` #` begins a comment in YAML")
                .at(value.document.place(at..at + lost.len()))
                .help("put the whole subject in quotes, or a space behind the `#` of a comment"),
        );
    }
    value.line()
}

/// What was read, or what stands in for it where a mistake was noted, so that the mistakes of all the rest can be
/// found as well. A job with a mistake is never carried out.
fn or<T>(read: Option<T>, reading: &Reading, stand_in: impl FnOnce() -> T) -> Option<T> {
    read.or_else(|| (reading.errors() > 0).then(stand_in))
}

/// What was not written is none; what was written wrongly ends the job.
fn given<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
    }
}

/// Reads every item, so that each has its mistakes shown, before one that is wrong ends it.
fn all<'d, T>(
    value: Option<Value<'d>>,
    items: impl Fn(&Value<'d>) -> Vec<Value<'d>>,
    read: impl Fn(Value<'d>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(value) = value else { return Some(Vec::new()) };
    if matches!(value.node.content, Content::Null | Content::Broken) {
        return value.list().map(|_| Vec::new());
    }
    let read: Vec<Option<T>> = items(&value).into_iter().map(read).collect();
    read.into_iter().collect()
}

/// Whether words are a template rather than words alone.
fn is_template(words: &str) -> bool {
    words.contains("{{") || words.contains("{%") || words.contains("{#")
}

/// The one relay there is, where a job names none.
fn the_only(relays: Option<Value<'_>>) -> Option<Value<'_>> {
    let relays = relays.filter(|relays| relays.is_map())?.entries()?;
    match relays.as_slice() {
        [(_, only)] => Some(*only),
        _ => None,
    }
}

fn timezone(value: Value<'_>) -> Option<String> {
    let name = value.words()?;
    match jiff::tz::TimeZone::get(&name) {
        Ok(_) => Some(name),
        Err(_) => {
            value.wrong(Diagnostic::error(format!("the time zone `{name}` is not known")).help(
                "a name such as `Asia/Shanghai`, `Europe/Berlin`, `UTC`; without it the system's is used",
            ))
        }
    }
}

/// A mailbox that is the same for everyone.
fn mailbox(value: Value<'_>) -> Option<Mailbox> {
    let words = value.words()?;
    if is_template(&words) {
        return value
            .wrong(Diagnostic::error(format!("`{}` is the same for everyone: no template", value.name())));
    }
    match words.parse::<Mailbox>() {
        Ok(mailbox) => Some(mailbox),
        Err(error) => value.wrong(
            Diagnostic::error(format!("`{}` is not a mailbox: {error}", value.name()))
                .help("write `Name <user@example.com>` or `user@example.com`"),
        ),
    }
}

fn mailboxes(value: Value<'_>) -> Option<Vec<Mailbox>> {
    all(Some(value), |value| value.one_or_more(), mailbox)
}

fn address(value: Value<'_>, words: &str) -> Option<()> {
    match words.parse::<crate::mail::EmailAddress>() {
        Ok(_) => Some(()),
        Err(error) => value.wrong(Diagnostic::error(format!("`{}`: {error}", value.name()))),
    }
}

fn recipients(value: Value<'_>) -> Option<RecipientsSpec> {
    if value.as_text().is_some() {
        return value.wrong(
            Diagnostic::error("`recipients` is a mapping").help("write `recipients: {file: data/list.csv}`"),
        );
    }
    if value.is_list() {
        return value.wrong(
            Diagnostic::error("`recipients` is a mapping")
                .help("a list in the job file is `recipients: {list: [...]}`"),
        );
    }
    let section = value.section(&RECIPIENTS)?;
    let source = source(&section);
    let encoding = section.get("encoding").map(|value| {
        let text = encoding_of_python(value.line()?);
        match encoding_rs::Encoding::for_label(text.value.as_bytes()) {
            Some(_) => Some(text),
            None => value
                .wrong(Diagnostic::error(format!("the encoding `{}` is not known", text.value)).help(
                "for example `utf-8`, `gb18030` (in China what Windows calls ANSI), `big5`, `windows-1252`",
            )),
        }
    });
    let delimiter = section.get("delimiter").map(delimiter);
    let columns = section.get("columns").map_or(Some(BTreeMap::new()), columns);
    let key = section.get("key").map(|value| {
        let text = value.line()?;
        if is_template(&text.value) {
            return Some(text);
        }
        value.wrong(
            Diagnostic::error("`key` is the same for everyone: of all rows one would get a letter")
                .help("write the column in braces, `key: \"{{ id }}\"`"),
        )
    });
    let to = section.get("to").map(|value| {
        if value.is_list() || value.is_map() {
            return value.wrong(
                Diagnostic::error("`to` is one mailbox: everybody gets a letter of their own")
                    .help("further readers of the same letter go under `cc` or `bcc`"),
            );
        }
        mailbox_template(value)
    });
    let cc = section.get("cc").map_or(Some(MailboxTemplates::default()), mailbox_templates);
    let bcc = section.get("bcc").map_or(Some(MailboxTemplates::default()), mailbox_templates);
    let filter = section.get("where").map(expression);
    let suppress = all(
        section.get("suppress"),
        |value| value.one_or_more(),
        |value| {
            let path = value.path()?;
            Some((path, value.line()?))
        },
    );
    let max_bad = section.get("max_bad").map_or(Some(MaxBad::Any), max_bad);
    let dedupe = section.get("dedupe").map_or(Some(Dedupe::default()), |value| {
        value.one_of(&[("refuse", Dedupe::Refuse), ("first", Dedupe::First)])
    });
    Some(RecipientsSpec {
        source: source?,
        encoding: given(encoding)?,
        delimiter: given(delimiter)?,
        columns: columns?,
        key: given(key)?,
        to: given(to)?,
        cc: cc?,
        bcc: bcc?,
        filter: given(filter)?,
        suppress: suppress?,
        max_bad: or(max_bad, value.reading, || MaxBad::Any)?,
        dedupe: or(dedupe, value.reading, Dedupe::default)?,
    })
}

fn source(section: &Section<'_>) -> Option<SourceSpec> {
    let format = section.get("format").map(|value| {
        value.one_of(&[
            ("csv", "csv"),
            ("tsv", "tsv"),
            ("json", "json"),
            ("jsonl", "jsonl"),
            ("yaml", "yaml"),
        ])
    });
    let given: Vec<(&str, Value<'_>)> = ["file", "list", "ledger", "sql"]
        .into_iter()
        .filter_map(|key| section.get(key).map(|value| (key, value)))
        .collect();
    if let [_, (_, second), ..] = given.as_slice() {
        return second.wrong(
            Diagnostic::error("the recipients come from one place")
                .label("a second one")
                .help("`file`, `list` or `ledger`"),
        );
    }
    let format = self::given(format)?.map(str::to_owned);
    match given.first() {
        None if section.has_unknown() => None,
        None => section.missing("file", "or `list: [...]`, or `ledger: {job, edition, outcome}`"),
        Some(("file", value)) => {
            let text = value.line()?;
            if text.value == "-" {
                return Some(SourceSpec::Stdin { format });
            }
            Some(SourceSpec::File { path: value.path()?, format, text })
        }
        Some(("list", value)) => {
            let rows = all(
                Some(*value),
                |value| value.list().unwrap_or_default(),
                |row| match row.is_map() {
                    true => Some(row.node.to_json()),
                    false if row.is_broken() => None,
                    false => row.wrong(
                        Diagnostic::error("a recipient in `list` is a mapping")
                            .help("for example `- {email: ada@example.org, name: Ada}`"),
                    ),
                },
            );
            value.is_list().then_some(())?;
            Some(SourceSpec::List(rows?))
        }
        Some(("ledger", value)) => {
            let ledger = value.section(&FROM_LEDGER)?;
            let words = |key| ledger.need(key).and_then(|value| value.words());
            let (job, edition) = (words("job"), words("edition"));
            let outcome = ledger.need("outcome").and_then(|value| value.one_of(OUTCOMES));
            Some(SourceSpec::Ledger { job: job?, edition: edition?, outcome: outcome?.to_owned() })
        }
        Some((_, value)) => value.wrong(
            Diagnostic::error("recipients cannot come from SQL yet")
                .label("not built into this version")
                .help("write the query's result to a CSV or JSON file, or pipe it in: `file: \"-\"`"),
        ),
    }
}

/// Outcomes that a later job can be for.
const OUTCOMES: &[(&str, &str)] = &[
    ("accepted", "accepted"),
    ("refused", "refused"),
    ("failed", "failed"),
    ("unsure", "unsure"),
    ("deferred", "deferred"),
    ("skipped", "skipped"),
];

fn delimiter(value: Value<'_>) -> Option<u8> {
    let words = value.text()?.value;
    match (&*words, words.as_bytes()) {
        ("tab" | "\\t", _) => Some(b'\t'),
        (_, [sign]) if !sign.is_ascii_alphanumeric() && !matches!(sign, b'"' | b'\r' | b'\n' | 0) => {
            Some(*sign)
        }
        _ => value.wrong(
            Diagnostic::error("`delimiter` is one sign that stands between two cells")
                .help("for example \",\" or \";\" or `tab`; it is found out if nothing is said"),
        ),
    }
}

fn columns(value: Value<'_>) -> Option<BTreeMap<String, (ColumnKind, Text)>> {
    let mut columns = BTreeMap::new();
    let mut good = true;
    for (key, kind) in value.entries()? {
        let read = kind.one_of(&[
            ("text", ColumnKind::Text),
            ("bool", ColumnKind::Bool),
            ("int", ColumnKind::Int),
            ("number", ColumnKind::Number),
            ("date", ColumnKind::Date),
            ("json", ColumnKind::Json),
        ]);
        let place = Some(value.document.place(key.span.clone()));
        match read {
            Some(read) => {
                columns.insert(key.text.clone(), (read, Text { place, ..Text::new(key.text.as_str()) }));
            }
            None => good = false,
        }
    }
    good.then_some(columns)
}

/// A mailbox with templates in it, split at the last `<` outside of braces, before anything is rendered.
fn mailbox_template(value: Value<'_>) -> Option<MailboxTemplate> {
    let text = value.line()?;
    let words = text.value.as_str();
    let part = |words: &str| Text { place: text.place.clone(), ..Text::new(words) };
    let template = match last_angle(words) {
        None => MailboxTemplate { name: None, address: part(words) },
        Some(open) => {
            let Some(address) = words[open + 1..].strip_suffix('>') else {
                return value.wrong(
                    Diagnostic::error(format!("`{}` has a `<` and does not end with `>`", value.name()))
                        .help("write \"{{ name }} <{{ email }}>\""),
                );
            };
            let name = match words.parse::<Mailbox>() {
                Ok(mailbox) if !is_template(words) => mailbox.name.unwrap_or_default(),
                _ => {
                    let name = words[..open].trim();
                    let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
                    unquoted.unwrap_or(name).trim().to_owned()
                }
            };
            MailboxTemplate { name: (!name.is_empty()).then(|| part(&name)), address: part(address.trim()) }
        }
    };
    if template.address.value.is_empty() {
        return value.wrong(Diagnostic::error(format!("`{}` has no address", value.name())));
    }
    if !is_template(&template.address.value) {
        address(value, &template.address.value)?;
    }
    Some(template)
}

/// The last `<` that is the template's own: not one within `{{ }}`, `{% %}` or `{# #}`.
fn last_angle(words: &str) -> Option<usize> {
    let (mut last, mut at) = (None, 0);
    while at < words.len() {
        let rest = &words[at..];
        let close = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
            .into_iter()
            .find(|(open, _)| rest.starts_with(open))
            .map(|(_, close)| close);
        at += match close {
            Some(close) => rest.find(close).map_or(rest.len(), |end| end + close.len()),
            None => {
                if rest.starts_with('<') {
                    last = Some(at);
                }
                rest.chars().next().map_or(1, char::len_utf8)
            }
        };
    }
    last
}

/// Names of Windows and Python for encodings, by what the web calls them.
fn encoding_of_python(text: Text) -> Text {
    let known = match &*text.value.to_ascii_lowercase() {
        "cp936" | "ms936" => "gbk",
        "cp950" => "big5",
        "cp932" => "shift_jis",
        "utf-8-sig" | "utf_8_sig" => "utf-8",
        _ => return text,
    };
    Text { value: known.to_owned(), ..text }
}

fn mailbox_templates(value: Value<'_>) -> Option<MailboxTemplates> {
    if value.is_map() {
        let section = value.section(&SPLIT)?;
        let each = section.need("each").and_then(|value| value.line());
        let split = section.need("split").and_then(|value| {
            let text = value.text()?.value;
            match text.is_empty() {
                false => Some(text),
                true => value.wrong(Diagnostic::error("`split` is empty")),
            }
        });
        return Some(MailboxTemplates::Split { each: each?, split: split? });
    }
    all(Some(value), |value| value.one_or_more(), mailbox_template).map(MailboxTemplates::Each)
}

/// An expression: braces around it are a habit from templates.
fn expression(value: Value<'_>) -> Option<Text> {
    if let Content::Bool(always) = value.node.content {
        let place = Some(value.place());
        return Some(Text { place, ..Text::new(always.to_string()) });
    }
    let text = value.line()?;
    let inner = text.value.strip_prefix("{{").and_then(|words| words.strip_suffix("}}"));
    match inner.filter(|inner| !inner.contains("}}")) {
        Some(inner) => value.wrong(
            Diagnostic::error(format!("`{}` is an expression: no braces", value.name())).help(format!(
                "write `{}: {}`",
                value.name(),
                inner.trim()
            )),
        ),
        None => Some(text),
    }
}

fn max_bad(value: Value<'_>) -> Option<MaxBad> {
    match value.as_text() {
        Some("any") => Some(MaxBad::Any),
        Some(words) => match percentage(words) {
            Some(fraction) => Some(MaxBad::Fraction(fraction)),
            None => value.wrong(
                Diagnostic::error(format!("`max_bad` cannot be `{words}`"))
                    .help("a number of rows, a percentage, or `any`"),
            ),
        },
        None => value.count(0..=u64::MAX).map(MaxBad::Rows),
    }
}

fn body(value: Value<'_>) -> Option<Body> {
    if value.as_text().is_some() {
        return value.wrong(
            Diagnostic::error("`body` is a mapping")
                .help("`body: {html: letter.html}`, or `body: {text: {inline: \"…\"}}`"),
        );
    }
    let section = value.section(&BODY)?;
    let part = |key: &'static str| {
        section.get(key).map(|value| {
            if value.is_map() {
                let inline = value.section(&INLINE)?;
                return inline.need("inline")?.text().map(TemplateSource::Inline);
            }
            let words = value.as_text().unwrap_or("").trim();
            if is_template(words) || words.contains('\n') || words.starts_with('<') {
                let mistake = format!("`{key}` names a file; the text itself is `{key}: {{inline: …}}`");
                return value.wrong(
                    Diagnostic::error(mistake)
                        .help("of several lines: `inline: |`, further in and on a line of its own"),
                );
            }
            Some(TemplateSource::File(value.reading.at_home(value.line()?)))
        })
    };
    let (text, html) = (part("text"), part("html"));
    if text.is_none() && html.is_none() && !section.has_unknown() {
        return section.missing("html", "a letter has `html`, `text`, or both");
    }
    Some(Body { text: given(text)?, html: given(html)? })
}

fn attachment(value: Value<'_>) -> Option<AttachmentSpec> {
    let simple = |files| AttachmentSpec {
        files,
        rename: None,
        content_type: None,
        when: None,
        expect: (1, usize::MAX),
        shared: false,
    };
    if !value.is_map() {
        return value.line().map(|files| simple(value.reading.pattern_at_home(files)));
    }
    let section = value.section(&ATTACHMENT)?;
    let files = section
        .need("files")
        .and_then(|value| value.line())
        .map(|files| value.reading.pattern_at_home(files));
    let rename = section.get("as").map(|value| value.line());
    let content_type = section.get("type").map(|value| {
        let text = value.line()?;
        let good = crate::mail::is_content_type(&text.value);
        match good {
            true => Some(text),
            false => {
                value.wrong(Diagnostic::error(format!("`{}` is not a content type", text.value)).help(
                    "for example `application/pdf` or `text/csv; charset=utf-8`; the name is under `as`",
                ))
            }
        }
    });
    let when = section.get("when").map(expression);
    let expect = section.get("expect").map(expect);
    let shared = section.get("shared").map(|value| value.boolean());
    Some(AttachmentSpec {
        rename: given(rename)?,
        content_type: given(content_type)?,
        when: given(when)?,
        expect: given(expect)?.unwrap_or((1, usize::MAX)),
        shared: given(shared)?.unwrap_or(false),
        ..simple(files?)
    })
}

/// `2`, `1..3`, `0..` or `any`: how many files are expected.
fn expect(value: Value<'_>) -> Option<(usize, usize)> {
    let Some(words) = value.as_text() else {
        return value.count(0..=u64::from(u32::MAX)).map(|count| (count as usize, count as usize));
    };
    let read = || {
        if words == "any" {
            return Some((0, usize::MAX));
        }
        let (least, most) = words.split_once("..")?;
        let bound = |words: &str, open| if words.is_empty() { Some(open) } else { words.trim().parse().ok() };
        let (least, most) = (bound(least.trim(), 0)?, bound(most.trim(), usize::MAX)?);
        (least <= most).then_some((least, most))
    };
    match read() {
        Some(range) => Some(range),
        None => value.wrong(
            Diagnostic::error(format!("`expect` cannot be `{words}`"))
                .help("a number of files, `1..3`, `0..`, or `any`; without it at least one"),
        ),
    }
}

fn images(value: Value<'_>) -> Option<Vec<ImageSpec>> {
    let read: Vec<Option<ImageSpec>> = value
        .entries()?
        .into_iter()
        .map(|(key, file)| {
            let good =
                key.text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) && !key.text.is_empty();
            if !good {
                value.reading.note(
                    Diagnostic::error(format!("`{}` is not a content-id", key.text))
                        .at(value.document.place(key.span.clone()))
                        .label("letters, digits, `-`, `_` and `.`")
                        .help("the file may be called as it likes; this is the name in `cid:`"),
                );
            }
            let text = file.line()?;
            let file = match is_template(&text.value) {
                true => file.reading.pattern_at_home(text),
                false => file.reading.at_home(text),
            };
            good.then(|| ImageSpec { cid: key.text.clone(), file })
        })
        .collect();
    read.into_iter().collect()
}

/// Headers of the job over those of the house.
fn headers(section: &Section<'_>) -> Option<Vec<(String, Text)>> {
    let mut headers: Vec<(String, Text)> = Vec::new();
    let mut good = true;
    let below = section.own("headers").and(section.inherited("headers"));
    for value in [below, section.get("headers")].into_iter().flatten() {
        let entries = value.entries()?;
        for (key, text) in entries {
            let name = &key.text;
            if let Some(mistake) = header_name(name) {
                value.reading.note(mistake.at(value.document.place(key.span.clone())));
                good = false;
                continue;
            }
            match text.line() {
                Some(text) => {
                    headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                    headers.push((name.clone(), text));
                }
                None => good = false,
            }
        }
    }
    good.then_some(headers)
}

/// What is wrong with a header's name: it is none (RFC 5322 §3.6.8), or the header is written by us.
fn header_name(name: &str) -> Option<Diagnostic> {
    let legal =
        !name.is_empty() && name.len() <= 76 && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if !legal {
        return Some(
            Diagnostic::error(format!("`{name}` is not a header's name"))
                .help("ASCII letters, digits and hyphens"),
        );
    }
    let lower = name.to_ascii_lowercase();
    let ours = [
        ("from", "`from`"),
        ("to", "`recipients: {to: …}`"),
        ("cc", "`recipients: {cc: …}`"),
        ("bcc", "`recipients: {bcc: …}`"),
        ("subject", "`subject`"),
        ("reply-to", "`reply_to`"),
        ("return-path", "`return_path`"),
        ("list-unsubscribe", "`unsubscribe`"),
        ("list-unsubscribe-post", "`unsubscribe: {one_click: true}`"),
        ("list-id", "`list_id`"),
        ("feedback-id", "`feedback_id`"),
        ("auto-submitted", "`class: bulk`"),
        ("date", ""),
        ("message-id", ""),
        ("mime-version", ""),
        ("dkim-signature", ""),
        ("received", ""),
    ];
    let (_, key) = ours
        .into_iter()
        .find(|(header, _)| *header == lower)
        .or_else(|| lower.starts_with("content-").then_some(("content-", "")))?;
    let mistake = Diagnostic::error(format!("the header `{name}` is written by postroom")).label("not here");
    Some(if key.is_empty() { mistake } else { mistake.help(format!("it is the key {key}")) })
}

fn unsubscribe(value: Value<'_>) -> Option<Unsubscribe> {
    let section = value.section(&UNSUBSCRIBE)?;
    let url = section.get("url").map(|value| {
        let text = value.line()?;
        let scheme = text.value.split(':').next().unwrap_or("").to_ascii_lowercase();
        match text.value.starts_with("{{") || matches!(&*scheme, "https" | "http") {
            true => Some(text),
            false => value.wrong(Diagnostic::error("`url` begins with https://")),
        }
    });
    let mailto = section.get("mailto").map(|value| {
        let text = value.line()?;
        // The scheme is ours to write.
        let scheme = text.value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("mailto:"));
        let words = text.value[scheme.map_or(0, str::len)..].to_owned();
        let to = words.split('?').next().unwrap_or_default();
        if !is_template(&words) {
            address(value, to)?;
        }
        Some(Text { value: words, ..text })
    });
    let one_click = section.get("one_click").map(|value| value.boolean());
    if url.is_none() && mailto.is_none() && !section.has_unknown() {
        return section.missing("url", "`unsubscribe` has a `url`, a `mailto`, or both");
    }
    let (url, one_click) = (given(url)?, given(one_click)?.unwrap_or(false));
    let https =
        url.as_ref().is_some_and(|url| url.value.starts_with("{{") || url.value.starts_with("https:"));
    if one_click && !https {
        // RFC 8058 §3.1: one URI is HTTPS.
        return section.get("one_click")?.wrong(Diagnostic::error("one click needs an https `url`"));
    }
    Some(Unsubscribe { url, mailto: given(mailto)?, one_click })
}

/// What templates know: the house's `vars`, then the files, then the job's `vars`, each over the last.
fn vars(section: &Section<'_>) -> Option<Map<String, Json>> {
    let mut vars = Map::new();
    let mut good = true;
    let mut take = |value: Value<'_>, vars: &mut Map<String, Json>| match value.entries() {
        Some(entries) => {
            vars.extend(entries.into_iter().map(|(key, value)| (key.text.clone(), value.node.to_json())))
        }
        None => good = false,
    };
    if let Some(below) = section.own("vars").and(section.inherited("vars")) {
        take(below, &mut vars);
    }
    let files = all(section.get("vars_file"), |value| value.one_or_more(), vars_file);
    if let Some(files) = &files {
        vars.extend(files.iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    }
    if let Some(value) = section.get("vars") {
        take(value, &mut vars);
    }
    files?;
    good.then_some(vars)
}

/// A file of variables: JSON or YAML, an object at the top.
fn vars_file(value: Value<'_>) -> Option<Map<String, Json>> {
    let path = value.path()?;
    let shown = value.words()?;
    let text = match tree::text_of(&path, Path::new(&shown)) {
        Ok(text) => text,
        Err(mistake) => return value.wrong(*mistake),
    };
    let json = match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        true => match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(error) => {
                let lines: usize =
                    text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
                let at = (lines + error.column().saturating_sub(1)).min(text.len());
                let words = error.to_string();
                let reason = words.split(" at line ").next().unwrap_or(&words);
                let place =
                    crate::diagnostic::Place { file: shown.into(), source: text.into(), span: at..at + 1 };
                value.reading.note(Diagnostic::error(format!("this is not JSON: {reason}")).at(place));
                return None;
            }
        },
        false => match Document::parse(Path::new(&shown), text) {
            Ok((document, mistakes)) => {
                let flawed = mistakes.iter().any(|mistake| mistake.level == Level::Error);
                mistakes.into_iter().for_each(|mistake| value.reading.note(mistake));
                if flawed {
                    return None;
                }
                document.root.to_json()
            }
            Err(mistake) => {
                value.reading.note(*mistake);
                return None;
            }
        },
    };
    match json {
        Json::Object(object) => Some(object),
        Json::Null => Some(Map::new()),
        _ => value.wrong(Diagnostic::error(format!("{shown} holds no object"))),
    }
}

/// `sqlite:PATH`
pub(in crate::job) fn ledger(value: Value<'_>) -> Option<LedgerUrl> {
    let url = value.words()?;
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
        return match path.is_empty() {
            false => Some(LedgerUrl::Sqlite(value.reading.resolve(path))),
            true => value.wrong(Diagnostic::error("`sqlite:` is followed by a path")),
        };
    }
    let mistake = match url.starts_with("postgres:") || url.starts_with("postgresql:") {
        true => Diagnostic::error("PostgreSQL is not built into this version").help("write `sqlite:PATH`"),
        false => {
            Diagnostic::error(format!("`{url}` is not a ledger")).help(format!("write `sqlite:{LEDGER}`"))
        }
    };
    value.wrong(mistake.ending(Exit::Job))
}

/// The ledger of a project that says nothing about it.
pub(in crate::job) fn default_ledger(root: &Path) -> LedgerUrl {
    LedgerUrl::Sqlite(root.join(LEDGER))
}

fn notify(value: Value<'_>) -> Option<Notify> {
    if !value.is_map() {
        return mailboxes(value).map(|to| Notify { to, when: NotifyWhen::default() });
    }
    let section = value.section(&NOTIFY)?;
    let to = section.need("to").and_then(mailboxes);
    let when = section.get("when").map_or(Some(NotifyWhen::default()), |value| {
        value.one_of(&[("finished", NotifyWhen::Finished), ("trouble", NotifyWhen::Trouble)])
    });
    Some(Notify { to: to?, when: when? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_split_where_the_template_says() {
        for (words, split) in [
            ("{{ name }} <{{ email }}>", Some(11)),
            ("{{ email }}", None),
            ("{% if a < b %}x{% endif %} <{{ e }}>", Some(27)),
            ("{{ a < b }}", None),
            ("a < b <{{ '<' }}>", Some(6)),
            ("姓名 <{{ 邮箱 }}>", Some(7)),
            ("{{ unclosed <x>", None),
        ] {
            assert_eq!(last_angle(words), split, "{words}");
        }
    }
}
