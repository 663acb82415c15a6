//! `postroom show`: a message as a person reads it, as JSON, or its parts as files.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};

use super::answer::print;
use crate::cli;
use crate::exit::Exit;
use crate::mail::acts_on_terminals;
use crate::measure::ByteSize;
use crate::read::{Address, MAX_PARTS, Part, Uuencoded, html};

/// Runs the command.
pub fn run(args: &cli::Show) -> Exit {
    // What lies within it as a message of its own is taken out byte for byte, so then all bytes are needed.
    let read = match &args.extract {
        Some(_) => fs::read(&args.file).map(|bytes| (Part::parse(&bytes), bytes)),
        None => fs::File::open(&args.file).and_then(Part::read).map(|message| (message, Vec::new())),
    };
    let (message, bytes) = match read {
        Ok(read) => read,
        Err(error) => {
            say!(Error, "cannot read {}: {error}", args.file.display());
            return if error.kind() == io::ErrorKind::NotFound { Exit::NoInput } else { Exit::Io };
        }
    };
    if is_no_message(&message) {
        say!(Error, "{} is no message: it has no header, and its content is no text", args.file.display());
        return Exit::Data;
    }
    if message.left_out {
        say!(Warning, "the message has more than {MAX_PARTS} parts; those behind are left out");
    }
    if let Some(folder) = &args.extract {
        return match extract(&message, &bytes, folder) {
            Ok(names) => {
                let text = match args.json {
                    true => format!("{}\n", json!(names)),
                    false => names.iter().map(|name| format!("{}\n", folder.join(name).display())).collect(),
                };
                print(text)
            }
            Err(error) => {
                say!(Error, "cannot write into {}: {error}", folder.display());
                Exit::Io
            }
        };
    }
    match args.json {
        true => print(format!("{:#}\n", as_json(&message))),
        false => print(as_text(&message)),
    }
}

/// Whether a file is something else altogether: without a field that a header has, and no text. A text
/// that somebody left the header out of is shown.
fn is_no_message(message: &Part) -> bool {
    let is_usual = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if message.fields().any(|field| is_usual(field.name)) {
        return false;
    }
    let bytes = || message.header.iter().chain(&message.body);
    let controls = bytes().filter(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()).count();
    bytes().any(|byte| *byte == 0) || controls * 20 > bytes().count()
}

/// The message as a person reads it: who, when, what about; the tree; the text.
pub fn as_text(message: &Part) -> String {
    let mut out = String::new();
    for name in ["From", "Sender", "Reply-To", "To", "Cc", "Bcc"] {
        let people = message.addresses_of(name);
        if !people.is_empty() {
            let people: Vec<String> = people.iter().map(person).collect();
            let _ = writeln!(out, "{name:>9}: {}", safe_line(&people.join(", ")));
        }
    }
    let date = message.field("Date").map(|field| crate::read::one_line(field.value));
    for (name, text) in [("Date", date), ("Subject", message.text_of("Subject"))] {
        if let Some(text) = text {
            let _ = writeln!(out, "{name:>9}: {}", safe_line(&text));
        }
    }
    out.push('\n');
    tree(message, "", "", &mut out);
    for part in readable(message) {
        out.push('\n');
        let text = text_of(part);
        out.push_str(&safe_text(text.trim_end()));
        out.push('\n');
    }
    out
}

/// The message for programs.
pub fn as_json(message: &Part) -> Value {
    let people = |name: &str| json!(message.addresses_of(name));
    let texts: Vec<String> = readable(message).into_iter().map(text_of).collect();
    json!({
        "from": people("From"),
        "sender": people("Sender"),
        "reply_to": people("Reply-To"),
        "to": people("To"),
        "cc": people("Cc"),
        "bcc": people("Bcc"),
        "date": message.date().and_then(|date| jiff::Timestamp::from_second(date).ok()).map(|date| date.to_string()),
        "subject": message.text_of("Subject"),
        "message_id": message.field("Message-ID").map(|field| crate::read::one_line(field.value)),
        "tree": part_json(message),
        "text": texts.join("\n"),
    })
}

fn part_json(part: &Part) -> Value {
    let mut object = json!({ "type": part.content_type, "size": part.size });
    let is_text = part.is_leaf() && (part.content_type.starts_with("text/") || is_report(part));
    let text = is_text.then(|| part.text());
    if let Some(fields) = object.as_object_mut() {
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                fields.insert(name.to_owned(), value);
            }
        };
        put("encoding", Some(part.encoding.as_str()).filter(|name| !name.is_empty()).into());
        put("disposition", part.disposition().map(|disposition| disposition.value).into());
        put("name", part.file_name().into());
        if let Some(text) = text {
            put("charset", text.charset.into());
            put("text", text.text.into());
        } else if part.is_leaf() {
            put("bytes", part.decoded_size().into());
        }
        let files: Vec<Value> = part
            .uuencoded()
            .into_iter()
            .map(|Uuencoded { name, bytes }| json!({"name": name, "bytes": bytes.len()}))
            .collect();
        put("uuencoded", Some(files).filter(|files| !files.is_empty()).into());
        // A message within is a message: who wrote it matters as much.
        if part.content_type == "message/rfc822"
            && let Some(inner) = part.parts.first()
        {
            put("from", json!(inner.addresses_of("From")));
            put("subject", inner.text_of("Subject").into());
        }
        if !part.parts.is_empty() {
            put("parts", part.parts.iter().map(part_json).collect());
        }
    }
    object
}

/// The parts to read: of alternatives the plain one, and no attachments.
fn readable(part: &Part) -> Vec<&Part> {
    let is_text = |part: &Part| {
        part.is_leaf() && part.content_type.starts_with("text/") && !part.is_attachment() || is_report(part)
    };
    if part.content_type == "multipart/alternative" {
        let plain = part
            .walk()
            .into_iter()
            .find(|part| is_text(part) && part.content_type == "text/plain" && part.size > 0);
        if let Some(plain) = plain {
            return vec![plain];
        }
        let texts: Vec<&Part> = part.parts.iter().flat_map(readable).collect();
        return texts.into_iter().rev().take(1).collect();
    }
    if is_text(part) {
        return vec![part];
    }
    // A multipart without parts holds text all the same.
    if part.parts.is_empty() && part.content_type.starts_with("multipart/") && !part.body.is_empty() {
        return vec![part];
    }
    part.parts.iter().flat_map(readable).collect()
}

/// What a bounce or a receipt says for programs (RFC 3464, RFC 8098, RFC 5965): people read it, too.
fn is_report(part: &Part) -> bool {
    let kind = part.content_type.as_str();
    let kinds = [
        "message/delivery-status",
        "message/global-delivery-status",
        "message/disposition-notification",
        "message/feedback-report",
    ];
    part.is_leaf()
        && kinds.contains(&kind)
        && part.disposition().is_none_or(|disposition| disposition.value != "attachment")
}

fn text_of(part: &Part) -> String {
    let text = part.text().text;
    match part.content_type.as_str() {
        "text/html" => html::readable(&text, 100),
        _ => text.replace("\r\n", "\n"),
    }
}

fn tree(part: &Part, first: &str, rest: &str, out: &mut String) {
    let mut line = part.content_type.clone();
    if part.is_leaf() {
        if part.content_type.starts_with("text/") {
            let _ = write!(line, "  {}", part.text().charset);
        }
        let _ = write!(line, "  {}", ByteSize(part.decoded_size()));
    }
    if let Some(name) = part.file_name() {
        let _ = write!(line, "  \"{name}\"");
    }
    if let Some(subject) = part
        .parts
        .first()
        .filter(|_| part.content_type == "message/rfc822")
        .and_then(|inner| inner.text_of("Subject"))
    {
        let _ = write!(line, "  {subject}");
    }
    let _ = writeln!(out, "{first}{}", safe_line(&line));
    for Uuencoded { name, bytes } in part.uuencoded() {
        let line = format!("uuencoded  {}  \"{name}\"", ByteSize(bytes.len() as u64));
        let _ = writeln!(out, "{rest}└─ {}", safe_line(&line));
    }
    let last = part.parts.len().saturating_sub(1);
    for (index, inner) in part.parts.iter().enumerate() {
        let (branch, below) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        tree(inner, &format!("{rest}{branch}"), &format!("{rest}{below}"), out);
    }
}

fn person(Address { name, address }: &Address) -> String {
    match (name.is_empty(), address.is_empty()) {
        (true, _) => address.clone(),
        (false, true) => name.clone(),
        (false, false) => format!("{name} <{address}>"),
    }
}

/// Nothing that a stranger wrote may act on the terminal, and nothing may begin a line of its own.
pub(super) fn safe_line(text: &str) -> String {
    text.chars().map(|c| if acts_on_terminals(c) { ' ' } else { c }).collect()
}

/// The same of a text with lines. Those marks that only say in which direction a sign between two words is to be read
/// stay: letters in Hebrew and Arabic are full of them.
fn safe_text(text: &str) -> String {
    let stays = |c| matches!(c, '\n' | '\t' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    text.chars().map(|c| if acts_on_terminals(c) && !stays(c) { '\u{fffd}' } else { c }).collect()
}

/// Writes every part that is no multipart into `folder`; returns the names.
pub fn extract(message: &Part, bytes: &[u8], folder: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(folder)?;
    let mut names = Vec::new();
    let mut taken = HashSet::new();
    let mut number = 0;
    // Each part, and the bytes in which it lies: those of the message, or of one that is encoded within it.
    let mut waiting = vec![(message, Rc::new(Cow::Borrowed(bytes)))];
    while let Some((part, around)) = waiting.pop() {
        number += 1;
        let within = match part.is_encoded_message() {
            true => Rc::new(Cow::Owned(part.decoded())),
            false => Rc::clone(&around),
        };
        waiting.extend(part.parts.iter().rev().map(|inner| (inner, Rc::clone(&within))));
        let content = match part.parts.first() {
            _ if part.is_encoded_message() => Cow::Borrowed(&within[..]),
            Some(inner) if part.content_type.starts_with("message/") => {
                let (from, to) = inner.span;
                let span = usize::try_from(from).ok().zip(usize::try_from(to).ok());
                Cow::Borrowed(span.and_then(|(from, to)| around.get(from..to)).unwrap_or_default())
            }
            _ if part.is_leaf() => Cow::Owned(part.decoded()),
            _ => continue,
        };
        let wanted = part.file_name().map(|name| safe_name(&name)).filter(|name| !name.is_empty());
        let wanted = wanted.unwrap_or_else(|| format!("part-{number}{}", ending(part)));
        names.push(write_new(folder, &wanted, &content, &mut taken)?);
        for Uuencoded { name, bytes } in part.uuencoded() {
            let name = Some(safe_name(&name)).filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| format!("part-{number}.bin"));
            names.push(write_new(folder, &name, &bytes, &mut taken)?);
        }
    }
    Ok(names)
}

/// Writes a file that was not there before.
fn write_new(folder: &Path, wanted: &str, content: &[u8], taken: &mut HashSet<String>) -> io::Result<String> {
    let (stem, end) = match wanted.rfind('.').filter(|&at| at > 0 && wanted.len() - at <= 12) {
        Some(at) => wanted.split_at(at),
        None => (wanted, ""),
    };
    for number in 1..=9999 {
        let name = if number == 1 { wanted.to_owned() } else { format!("{stem} ({number}){end}") };
        // Some file systems take upper and lower case for the same.
        if !taken.insert(name.to_lowercase()) {
            continue;
        }
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(&name));
        match made {
            Ok(mut file) => {
                file.write_all(content)?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("too many files called {wanted}")))
}

/// A name without anything that could lead elsewhere or hide: the last part of a path, no control or
/// direction characters, no leading dots, none of the signs and none of the devices' names that other
/// systems forbid, at most 200 bytes.
pub fn safe_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let base: String = base
        .chars()
        .filter(|&c| !acts_on_terminals(c))
        .map(|c| if matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*') { '_' } else { c })
        .collect();
    let base = base.trim().trim_start_matches('.').trim_end_matches(['.', ' ']);
    let device = is_device(base.split('.').next().unwrap_or(base).trim_end());
    let base = if device { format!("_{base}") } else { base.to_owned() };
    if base.len() <= MAX_NAME {
        return base;
    }
    // The ending says what it is: it stays.
    let end = base.rfind('.').filter(|&at| base.len() - at <= 12).map_or("", |at| &base[at..]);
    let mut stem = MAX_NAME - end.len();
    while !base.is_char_boundary(stem) {
        stem -= 1;
    }
    format!("{}{end}", &base[..stem])
}

/// What Windows takes for a device, whatever ending follows.
fn is_device(stem: &str) -> bool {
    let stem = stem.to_ascii_uppercase();
    let numbered = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || numbered.is_some_and(|number| matches!(number.as_bytes(), [b'0'..=b'9']))
}

/// File systems allow 255 bytes; a number and an ending must have room.
const MAX_NAME: usize = 200;

fn ending(part: &Part) -> String {
    match part.content_type.as_str() {
        "text/plain" => ".txt".to_owned(),
        "text/html" => ".html".to_owned(),
        kind if kind.starts_with("message/") => ".eml".to_owned(),
        // Of the endings that a type may have the alphabet's first is not the usual one.
        "application/octet-stream" => ".bin".to_owned(),
        "image/jpeg" => ".jpg".to_owned(),
        "text/calendar" => ".ics".to_owned(),
        "audio/mpeg" => ".mp3".to_owned(),
        "video/mp4" => ".mp4".to_owned(),
        kind => mime_guess::get_mime_extensions_str(kind)
            .and_then(|endings| endings.first())
            .map_or_else(|| ".bin".to_owned(), |ending| format!(".{ending}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let long = format!("{}.pdf", "发".repeat(100));
        for (name, expected) in [
            ("a.pdf", "a.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\system.ini", "system.ini"),
            ("/", ""),
            ("..", ""),
            (".bashrc", "bashrc"),
            ("a\u{0}b\u{202e}fdp.exe\n", "abfdp.exe"),
            ("what?.txt ", "what_.txt"),
            ("CON", "_CON"),
            ("con .txt", "_con .txt"),
            ("x/lpt1.tar.gz", "_lpt1.tar.gz"),
            ("console.txt", "console.txt"),
            ("发票 2026.pdf", "发票 2026.pdf"),
            (&long, &format!("{}.pdf", "发".repeat(65))),
        ] {
            assert_eq!(safe_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_message_is_shown_and_nothing_in_it_acts_on_the_terminal() {
        let message = b"From: =?utf-8?B?5byg5LiJ?= <z@example.cn>\nSubject: a\x1b[31m\nContent-Type: multipart/mixed; boundary=x\n\n\
            --x\nContent-Type: multipart/alternative; boundary=y\n\n--y\n\nplain\x07\n--y\nContent-Type: text/html\n\n<p>html\n--y--\n\
            --x\nContent-Type: application/pdf; name=\"a.pdf\"\nContent-Transfer-Encoding: base64\n\nYWJj\n--x--\n";
        let text = as_text(&Part::parse(message));
        assert_eq!(
            text,
            "     From: 张三 <z@example.cn>\n  Subject: a [31m\n\nmultipart/mixed\n├─ multipart/alternative\n\
             │  ├─ text/plain  us-ascii  6 B\n│  └─ text/html  us-ascii  7 B\n└─ application/pdf  3 B  \"a.pdf\"\n\
             \nplain\u{fffd}\n"
        );
    }

    #[test]
    fn what_is_within_what_is_within_comes_out() {
        use base64::Engine as _;
        let innermost = "Subject: innermost\n\nbegin 644 a.txt\n#86)C\n`\nend\n";
        let inner = format!("Subject: inner\nContent-Type: message/rfc822\n\n{innermost}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(&inner);
        let message = format!(
            "From: a@x\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\
             Content-Transfer-Encoding: base64\n\n{encoded}\n--x--\n"
        );
        let parsed = Part::parse(message.as_bytes());
        let text = as_text(&parsed);
        assert!(
            text.contains("message/rfc822  innermost") && text.contains("uuencoded  3 B  \"a.txt\""),
            "{text}"
        );
        let folder = tempfile::tempdir().unwrap();
        let names = extract(&parsed, message.as_bytes(), folder.path()).unwrap();
        let written: Vec<_> =
            names.iter().map(|name| fs::read_to_string(folder.path().join(name)).unwrap()).collect();
        let body = innermost.split_once("\n\n").unwrap().1;
        assert_eq!(written, [&inner, innermost, body, "abc"], "{names:?}");
    }

    #[test]
    fn a_bounce_says_why() {
        let message = b"From: mailer\nContent-Type: multipart/report; boundary=x\n\n--x\n\nIt came back.\n\
            --x\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example\n\n\
            Final-Recipient: rfc822; a@b.example\nStatus: 5.1.1\n--x--\n";
        let message = Part::parse(message);
        let text = as_text(&message);
        assert!(text.contains("It came back.\n") && text.ends_with("Status: 5.1.1\n"), "{text}");
        let json = as_json(&message);
        assert!(
            json["tree"]["parts"][1]["text"].as_str().is_some_and(|text| text.contains("5.1.1")),
            "{json}"
        );
    }

    #[test]
    fn what_is_no_message_is_told_from_one() {
        let noise: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for (bytes, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"[..], true),
            (&noise, true),
            (b"\xff\xfeF\0r\0o\0m\0:\0", true),
            (b"Subject: a\n\n\0\x01\x02", false),
            (b"\xef\xbb\xbfSubject: a\n\nb", false),
            ("只有正文\n没有头\n".as_bytes(), false),
            (b"", false),
        ] {
            assert_eq!(is_no_message(&Part::parse(bytes)), expected, "{:?}", &bytes[..bytes.len().min(20)]);
        }
    }
}
