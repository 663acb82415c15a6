//! Letters as their readers see them: golden files of every shape; Python's `email` and mail-parser
//! agreeing on trees, names, types and bytes; and a comparison of headers with lettre's builder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mail_parser::{MessageParser, MimeHeaders, PartType};
use postroom::compose::compose;
use postroom::enclosures::part::{self, Disposition};
use postroom::letter::{EncodedPart, Letter, ListHeaders, Stamp};
use postroom::mail::Mailbox;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value as Json, json};

fn stamp() -> Stamp {
    Stamp {
        date: "Mon, 23 Nov 2026 12:30:00 +0000".to_owned(),
        message_id: "<0123456789012345678901234567890123456789@sender.test>".to_owned(),
        boundary: "0123456789abcdef01234567".to_owned(),
    }
}

fn mailbox(name: Option<&str>, address: &str) -> Mailbox {
    Mailbox { name: name.map(str::to_owned), address: address.parse().expect("an address") }
}

fn letter(subject: &str, to: Mailbox) -> Letter {
    Letter {
        from: mailbox(Some("Post Room"), "news@sender.test"),
        reply_to: Vec::new(),
        to: vec![to],
        cc: Vec::new(),
        bcc: vec![mailbox(Some("Nobody Sees"), "hidden@sender.test")],
        subject: subject.to_owned(),
        text: None,
        html: None,
        headers: Vec::new(),
        list: ListHeaders::default(),
    }
}

fn attachment(name: &str, bytes: &[u8]) -> Arc<EncodedPart> {
    Arc::new(part::encode(bytes, name, None, &Disposition::Attachment))
}

const TEXT: &str =
    "您好 Ada,\n\nhere is the report of November.\n.a line that begins with a dot\nFrom here on it ends.\n";
const HTML: &str = "<html><body><p style=\"color:#333\">您好 Ada, here is the report.</p>\n<img src=\"cid:logo\"></body></html>\n";
const PLAIN: &str = "Hello Ada,\n\nall of this is plain.\n";

/// Name, letter, pictures, attachments, and the tree it has.
type Shape = (&'static str, Letter, Vec<Arc<EncodedPart>>, Vec<Arc<EncodedPart>>, &'static str);

/// Every shape.
fn shapes() -> Vec<Shape> {
    let base = || letter("Report of November, 十一月报告", mailbox(Some("Ada Lovelace"), "ada@example.org"));
    let text = || Letter { text: Some(TEXT.to_owned()), ..base() };
    let plain = || Letter { text: Some(PLAIN.to_owned()), ..base() };
    let html = || Letter { html: Some(HTML.to_owned()), ..base() };
    let both = || Letter { text: Some(TEXT.to_owned()), html: Some(HTML.to_owned()), ..base() };
    let logo = || {
        let png = b"\x89PNG\r\n\x1a\nnot really a picture";
        vec![Arc::new(part::encode(png, "logo.png", None, &Disposition::Inline { cid: "logo".to_owned() }))]
    };
    let files = || {
        vec![
            attachment("terms.pdf", b"%PDF-1.4 terms"),
            attachment("十一月份各地区销售情况与来年展望的详细分析报告（修订版）.xlsx", b"PK\x03\x04 sheet"),
            attachment("notes.txt", "Grüße\n".as_bytes()),
            attachment("before.eml", b"Subject: before\r\nFrom: a@b.example\r\n\r\nHello\r\n"),
        ]
    };
    vec![
        ("text", plain(), vec![], vec![], "text/plain"),
        ("html", html(), vec![], vec![], "text/html"),
        ("both", both(), vec![], vec![], "multipart/alternative(text/plain,text/html)"),
        ("html-images", html(), logo(), vec![], "multipart/related(text/html,image/png)"),
        (
            "both-images",
            both(),
            logo(),
            vec![],
            "multipart/alternative(text/plain,multipart/related(text/html,image/png))",
        ),
        ("text-files", text(), vec![], files(), "multipart/mixed(text/plain,FILES)"),
        ("html-files", html(), vec![], files(), "multipart/mixed(text/html,FILES)"),
        (
            "both-files",
            both(),
            vec![],
            files(),
            "multipart/mixed(multipart/alternative(text/plain,text/html),FILES)",
        ),
        (
            "html-images-files",
            html(),
            logo(),
            files(),
            "multipart/mixed(multipart/related(text/html,image/png),FILES)",
        ),
        (
            "both-images-files",
            both(),
            logo(),
            files(),
            "multipart/mixed(multipart/alternative(text/plain,multipart/related(text/html,image/png)),FILES)",
        ),
        // Nothing shows the picture, so it is a file among others.
        ("text-images", text(), logo(), vec![], "multipart/mixed(text/plain,image/png)"),
    ]
}

const FILES: &str = "application/pdf,application/vnd.openxmlformats-officedocument.spreadsheetml.sheet,text/plain,message/rfc822";

/// Compares with a file a person can open; `UPDATE_GOLDEN=1` rewrites it.
fn golden(path: &Path, found: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, found).expect("the golden file");
    }
    let expected = std::fs::read(path).unwrap_or_default();
    assert!(
        expected == found,
        "{} is not as it was; UPDATE_GOLDEN=1 rewrites it:\n{}",
        path.display(),
        String::from_utf8_lossy(found)
    );
}

/// What Python's `email` sees of letters.
fn python(paths: &[PathBuf]) -> Vec<Json> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/letters/read.py");
    let output =
        Command::new("python3").arg(script).args(paths).output().expect("python3 is needed to judge letters");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    match serde_json::from_slice(&output.stdout) {
        Ok(Json::Array(letters)) => letters,
        other => panic!("{other:?}"),
    }
}

/// A tree as Python sees it, and the same as mail-parser sees it.
fn tree(part: &Json) -> String {
    match part["parts"].as_array() {
        Some(parts) => format!(
            "{}({})",
            part["type"].as_str().unwrap_or_default(),
            parts.iter().map(tree).collect::<Vec<_>>().join(",")
        ),
        None => part["type"].as_str().unwrap_or_default().to_owned(),
    }
}

fn leaves(part: &Json, found: &mut Vec<Json>) {
    match part["parts"].as_array() {
        Some(parts) => parts.iter().for_each(|part| leaves(part, found)),
        None => found.push(part.clone()),
    }
}

fn parsed_tree(message: &mail_parser::Message, id: u32) -> String {
    let part = message.part(id).expect("a part");
    let kind = part.content_type().map_or_else(
        || "text/plain".to_owned(),
        |kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()),
    );
    match &part.body {
        PartType::Multipart(children) => {
            let children: Vec<String> = children.iter().map(|child| parsed_tree(message, *child)).collect();
            format!("{kind}({})", children.join(","))
        }
        _ => kind,
    }
}

fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_shape_is_read_alike_by_everybody() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/letters");
    let shapes = shapes();
    let mut paths = Vec::new();
    for (name, letter, images, files, _) in &shapes {
        let content = compose(letter, images, files, &stamp());
        let bytes = content.to_bytes();
        assert_eq!(bytes.len(), content.len());
        let path = folder.join(format!("{name}.eml"));
        golden(&path, &bytes);
        paths.push(path);
    }
    for (((name, letter, images, files, expected), path), seen) in
        shapes.iter().zip(&paths).zip(python(&paths))
    {
        assert_eq!(seen["defects"], json!([]), "{name}");
        let expected = expected.replace("FILES", FILES);
        assert_eq!(tree(&seen["tree"]), expected, "{name}");
        assert_eq!(seen["subject"], letter.subject, "{name}");
        assert_eq!(seen["to"], json!([["Ada Lovelace", "ada@example.org"]]), "{name}");
        let mut leaf = Vec::new();
        leaves(&seen["tree"], &mut leaf);

        let bytes = std::fs::read(path).expect("a golden file");
        assert!(
            !String::from_utf8_lossy(&bytes).contains("hidden@sender.test"),
            "{name}: Bcc is written nowhere"
        );
        let message = MessageParser::default().parse(&bytes).expect("parses");
        assert_eq!(parsed_tree(&message, 0), expected, "{name}");
        let parsed: Vec<&mail_parser::MessagePart> =
            message.parts.iter().filter(|part| !matches!(part.body, PartType::Multipart(_))).collect();
        assert_eq!(parsed.len(), leaf.len(), "{name}");
        for (part, seen) in parsed.iter().zip(&leaf) {
            assert_eq!(part.attachment_name(), seen["name"].as_str(), "{name}");
            if seen["sha256"].is_string() && seen["text"].is_null() {
                assert_eq!(seen["sha256"], sha256(part.contents()), "{name}");
            }
        }
        for record in images.iter().chain(files).map(|part| &part.record) {
            let seen = leaf.iter().find(|leaf| leaf["name"] == record.name).expect("every file is there");
            let hash: String = record.sha256.iter().map(|b| format!("{b:02x}")).collect();
            if seen["type"] == "message/rfc822" {
                assert_eq!(seen["subject"], "before", "{name}");
            } else {
                assert_eq!(seen["sha256"], hash, "{name}: {}", record.name);
            }
        }
        for (kind, source) in [("text/plain", &letter.text), ("text/html", &letter.html)] {
            let Some(source) = source else { continue };
            let seen =
                leaf.iter().find(|leaf| leaf["type"] == kind && leaf["name"].is_null()).expect("a body");
            assert_eq!(
                seen["text"].as_str().map(|text| text.replace("\r\n", "\n")).as_ref(),
                Some(source),
                "{name}"
            );
        }
    }
}

/// Names and subjects that have broken mailers.
fn nasty() -> Vec<String> {
    let long = |text: &str| text.chars().cycle().take(200).collect::<String>();
    [
        "O'Neill, \"Jack\" <jack@example.org>",
        "\"already quoted\"",
        "back\\slash",
        "semi;colon: and, comma",
        "(a comment)",
        ".",
        "..",
        "=?utf-8?q?x?=",
        "=?utf-8?b?eHh4?= and more",
        "= ? = ?=",
        "emoji 👩‍👩‍👧‍👦 🦀 family",
        "مرحبا بالعالم",
        "عمر (Omar), \"Abu\"",
        "王小明",
        "山田 太郎",
        "Łukasz Żak",
        "Grüße aus Köln: 50% off!",
        "a_b_c = d ? e",
        "tabs are spaces",
        "e\u{301} combining",
        "\u{200f}right to left mark",
        "undisclosed-recipients:;",
        "@",
        "-",
        "x",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([
        long("x"),
        long("word "),
        long("您好"),
        long("🦀"),
        long("é "),
        long("a, "),
        format!("{} {}", "y".repeat(100), "z".repeat(100)),
        long(". "),
    ])
    .map(|text| text.trim().to_owned())
    .collect()
}

#[test]
fn nasty_names_and_subjects_arrive_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cases: Vec<(String, String)> = nasty().into_iter().map(|text| (text.clone(), text)).collect();
    cases.extend(
        ["  leading", "trailing  ", "two  spaces", "", " "]
            .map(|subject| ("A".to_owned(), subject.to_owned())),
    );
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for _ in 0..1000 {
        let name = any_text().new_tree(&mut runner).expect("a name").current().trim().to_owned();
        let subject = any_text().new_tree(&mut runner).expect("a subject").current();
        if !name.is_empty() {
            cases.push((name, subject));
        }
    }
    let mut paths = Vec::new();
    for (n, (name, subject)) in cases.iter().enumerate() {
        let mut letter = letter(subject, mailbox(Some(name), "ada@example.org"));
        letter.cc = vec![mailbox(None, "plain@example.org"), mailbox(Some(name), "two@bücher.example")];
        letter.text = Some(TEXT.to_owned());
        let path = folder.path().join(format!("{n}.eml"));
        std::fs::write(&path, compose(&letter, &[], &[], &stamp()).to_bytes()).expect("written");
        paths.push(path);
    }
    for ((name, subject), seen) in cases.iter().zip(python(&paths)) {
        assert_eq!(seen["defects"], json!([]), "{name:?} {subject:?}");
        // A word of a name that no line has room for stays whole.
        let word = name.split(' ').map(str::len).max().filter(|_| name.is_ascii()).unwrap_or(0);
        let longest = seen["longest"].as_u64().unwrap_or(u64::MAX);
        assert!(longest <= 78.max(word as u64 + 8), "{name:?} {subject:?}: {longest}");
        assert_eq!(seen["subject"].as_str(), Some(subject.as_str()), "{subject:?}");
        assert_eq!(seen["to"], json!([[name, "ada@example.org"]]), "{name:?}");
        let cc = json!([["", "plain@example.org"], [name, "two@xn--bcher-kva.example"]]);
        assert_eq!(seen["cc"], cc, "{name:?}");
    }
}

/// Text of one line from many scripts, as long as people write it, with signs that mean something.
fn any_text() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        4 => "[a-zA-Z]{1,12}",
        2 => "[ -~]{1,20}",
        2 => "[äöüßéèñçøåæ]{1,6}",
        2 => "[一-龥]{1,12}",
        1 => "[а-яА-Я]{1,10}",
        1 => "[ا-ي]{1,8}",
        1 => "[😀-🙏]{1,4}",
        1 => "[=?_.,;:<>@()\"\\\\]{1,6}",
    ];
    proptest::collection::vec(words, 1..12).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(Config { cases: 3000, failure_persistence: None, ..Config::default() })]
    /// lettre's builder and ours say the same to a third: mail-parser reads both. Two spaces in a row
    /// are left out, for lettre's encoder makes one of them.
    #[test]
    fn headers_say_what_lettres_say(name in any_text(), subject in any_text(), other in any_text()) {
        let single = |text: &str| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let (name, subject, other) = (single(&name), single(&subject), single(&other));
        // A name of spaces is none, and nobody asks lettre to write one.
        prop_assume!(!name.is_empty() && !other.is_empty());
        let mut letter = letter(subject.trim(), mailbox(Some(&name), "ada@example.org"));
        letter.cc = vec![mailbox(Some(other.trim()), "bob@example.org"), mailbox(None, "eve@example.org")];
        letter.text = Some("text".to_owned());
        let ours = compose(&letter, &[], &[], &stamp()).to_bytes();
        let box_of = |mailbox: &Mailbox| {
            lettre::message::Mailbox::new(mailbox.name.clone(), mailbox.address.as_str().parse().expect("an address"))
        };
        let theirs = letter
            .cc
            .iter()
            .fold(lettre::Message::builder(), |builder, cc| builder.cc(box_of(cc)))
            .from(box_of(&letter.from))
            .to(box_of(&letter.to[0]))
            .subject(letter.subject.clone())
            .body("text".to_owned())
            .expect("lettre composes")
            .formatted();
        let (ours, theirs) = (read(&ours), read(&theirs));
        prop_assert_eq!(&ours.1, &theirs.1);
        prop_assert_eq!(&ours.0, &theirs.0);
        prop_assert_eq!(ours.0.as_str(), letter.subject.as_str());
        prop_assert_eq!(ours.1[1].0.as_deref(), letter.to[0].name.as_deref());
    }
}

type Names = Vec<(Option<String>, Option<String>)>;

/// Subject, and names and addresses of From, To and Cc, as mail-parser reads them.
fn read(bytes: &[u8]) -> (String, Names) {
    let message = MessageParser::default().parse(bytes).expect("parses");
    let subject = message.subject().unwrap_or_default().to_owned();
    let names = [message.from(), message.to(), message.cc()]
        .into_iter()
        .flatten()
        .flat_map(|list| list.iter())
        .map(|address| (address.name().map(str::to_owned), address.address().map(str::to_owned)))
        .collect();
    (subject, names)
}
