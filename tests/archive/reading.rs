//! `show --json` and Python's `email` package agree on tree, people, subject and text.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postroom::read::Part;
use serde_json::{Value, json};

/// What both are asked for, in one form.
fn ours(bytes: &[u8]) -> Value {
    fn tree(node: &Value) -> Value {
        let mut out = json!({ "type": node["type"] });
        if let Some(parts) = node["parts"].as_array() {
            out["parts"] = parts.iter().map(tree).collect();
        }
        if let Some(text) = node["text"].as_str() {
            out["text"] = text.replace("\r\n", "\n").trim_end_matches('\n').into();
        }
        if !node["name"].is_null() {
            out["name"] = node["name"].clone();
        }
        out
    }
    let shown = postroom::run::show::as_json(&Part::parse(bytes));
    json!({ "from": shown["from"], "subject": shown["subject"], "tree": tree(&shown["tree"]) })
}

fn python(files: &[PathBuf]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/reading.py");
    let output = Command::new("python3").arg(script).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const LETTERS: &[&[u8]] = &[
    b"From: =?utf-8?B?5byg5LiJ?= <z@example.cn>\r\nSubject: =?gb2312?B?t6I=?= =?gb2312?B?xrE=?=\r\n\r\nhi\r\n",
    b"From: \"Hopper, Grace\" <grace@example.org>, ada@example.org (Ada)\nSubject: =?iso-2022-jp?B?GyRCJDMkcyRLJEEkTxsoQg==?= end\nContent-Type: text/plain; charset=\"shift_jis\"\nContent-Transfer-Encoding: base64\n\ngrGC8YLJgr+CzQ==\n",
    b"From: a@example.org\nSubject: two\n folded lines\nContent-Type: multipart/mixed; boundary=\"a b\"\n\npreamble\n--a b\nContent-Type: multipart/alternative; boundary=in\n\n--in\n\nplain\n--in\nContent-Type: text/html; charset=big5\nContent-Transfer-Encoding: quoted-printable\n\n<p>=A4=A4=A4=E5</p>=\n more\n--in--\n--a b\nContent-Type: application/pdf\nContent-Disposition: attachment; filename*0*=utf-8''%E5%8F%91; filename*1*=%E7%A5%A8.pdf\nContent-Transfer-Encoding: base64\n\nYWJj\n--a b\nContent-Type: message/rfc822\n\nSubject: inner\nFrom: b@example.org\n\ninner text\n--a b--\nepilogue\n",
    b"From: a@example.org\nSubject: korean\nContent-Type: text/plain; charset=euc-kr\nContent-Transfer-Encoding: 8bit\n\n\xbe\xc8\xb3\xe7\n",
    b"From: a@example.org\nSubject: named\nContent-Type: image/png; name=\"=?utf-8?B?5Y+R56Wo?=.png\"\nContent-Transfer-Encoding: base64\n\nAAAA\n",
    b"From: a@example.org\nSubject: digest\nContent-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\ntext one\n--d\n\nSubject: two\n\ntext two\n--d--\n",
    b"From: root\nSubject: =?iso-2022-jp?B?GyRCJDMbKEI=?=\n =?iso-2022-jp?B?GyRCJHMbKEI=?= and more\nContent-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B$3\x1b(B\x1b$B$s\x1b(B\n",
    b"From: Bob <bob @ mail . example.org>\nSubject: sloppy\nContent-Type: multipart/mixed; boundary=x\n\n--x\nno header and no empty line\n--x\nContent-Type: text/plain\n\nsecond\n--x--\n",
    b"Subject: latin =?ISO-8859-1?Q?gr=FC=DFe?=\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\ngr=FC=DFe\n",
];

#[test]
fn python_reads_the_same() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "python3 is needed");
        eprintln!("LEFT OUT: python3 is needed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        (0..LETTERS.len()).map(|number| folder.path().join(format!("{number}.eml"))).collect();
    for (file, letter) in files.iter().zip(LETTERS) {
        fs::write(file, letter).unwrap();
    }
    let theirs = python(&files);
    assert_eq!(theirs.len(), LETTERS.len());
    for (letter, theirs) in LETTERS.iter().zip(theirs) {
        assert_eq!(ours(letter), theirs, "{}", String::from_utf8_lossy(letter));
    }
}
