//! Rules of the house that the compiler does not keep: stairs go one way, sockets stay in their
//! rooms, stdout cannot panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

/// Each room and the rooms it may name. What is not here may not be named; a new room is entered
/// here first, so that somebody has thought about which floor it is on.
const STAIRS: &[(&str, &[&str])] = &[
    // The ground: values that know nobody.
    ("exit", &[]),
    ("secret", &[]),
    ("measure", &[]),
    ("database", &[]),
    ("failpoint", &[]),
    ("diagnostic", &["exit"]),
    ("talk", &["diagnostic"]),
    ("mail", &[]),
    ("letter", &["mail"]),
    ("wire", &["mail", "secret"]),
    // What was asked.
    ("job", &["diagnostic", "exit", "mail", "measure", "secret", "wire"]),
    // The crafts: the words of `letter`, the specs of `job`, and what they stand on; not one another.
    ("net", &["job", "mail", "measure", "secret", "talk", "wire"]),
    ("recipients", &["exit", "job", "letter", "mail", "measure"]),
    ("enclosures", &["job", "letter", "mail", "measure"]),
    ("render", &["diagnostic", "job", "letter", "mail", "measure"]),
    ("compose", &["letter", "mail", "measure"]),
    ("submit", &["diagnostic", "job", "letter", "mail", "measure", "net", "secret", "wire"]),
    ("ledger", &["database", "exit", "failpoint", "job", "letter", "mail", "measure"]),
    ("read", &["letter", "mail", "measure"]),
    (
        "archive",
        &[
            "database",
            "exit",
            "failpoint",
            "job",
            "letter",
            "mail",
            "measure",
            "net",
            "read",
            "secret",
            "wire",
        ],
    ),
    ("report", &["ledger", "letter", "mail", "measure"]),
    ("sandbox", &["letter", "mail", "measure", "secret"]),
    // What brings them together.
    ("dispatch", &["exit", "failpoint", "job", "ledger", "letter", "mail", "measure", "submit"]),
    (
        "plan",
        &[
            "compose",
            "diagnostic",
            "enclosures",
            "exit",
            "job",
            "ledger",
            "letter",
            "mail",
            "measure",
            "recipients",
            "render",
        ],
    ),
    ("cli", &["exit", "mail", "measure", "sandbox"]),
];

/// The top of the house, which may name everybody.
const TOP: &[&str] = &["run", "main", "lib"];

/// Every source file with its room and its text, tests and comments taken off.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<PathBuf> = walkdir::WalkDir::new(&root)
        .into_iter()
        .map(|entry| entry.expect("src can be listed").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    // Modules that are tests as a whole: `#[cfg(test)] mod suite;`.
    let tests: BTreeSet<PathBuf> = files.iter().flat_map(|path| test_modules(path)).collect();
    let mut found = Vec::new();
    for path in files.into_iter().filter(|path| !tests.contains(path)) {
        let inside = path.strip_prefix(&root).expect("it lies in src");
        let room = inside.iter().next().expect("a first part").to_string_lossy();
        let room = room.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).expect("a source can be read");
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        found.push((room, inside.to_owned(), code.join("\n")));
    }
    assert!(found.len() > 20, "the sources are where we look");
    found
}

/// The files of the modules that a file declares for tests only.
fn test_modules(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).expect("a source can be read");
    let folder = if path.ends_with("mod.rs") {
        path.parent().map(Path::to_owned)
    } else {
        Some(path.with_extension(""))
    };
    let declared = text.split("#[cfg(test)]\nmod ").skip(1);
    let names = declared.filter_map(|rest| rest.split_once(';')).map(|(name, _)| name.to_owned());
    names
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .filter_map(|name| folder.as_ref().map(|folder| folder.join(format!("{name}.rs"))))
        .collect()
}

/// The rooms that a text names: `crate::room`, and the first words in `use crate::{...}`.
fn named(text: &str) -> Vec<String> {
    let word =
        |text: &str| -> String { text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect() };
    let mut rooms = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut fresh = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && depth == 0 && !c.is_whitespace() => {
                    rooms.push(word(&group[at..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn groups_and_paths_are_both_understood() {
    for (text, expected) in [
        ("use crate::mail::Mailbox;", &["mail"][..]),
        ("use crate::{job::{A, B}, mail, wire::smtp};", &["job", "mail", "wire"]),
        ("crate::exit::Exit::Done; super::x", &["exit"]),
    ] {
        assert_eq!(named(text), expected, "{text}");
    }
}

#[test]
fn stairs_go_one_way() {
    let stairs: BTreeMap<&str, &[&str]> = STAIRS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, path, text) in sources() {
        if TOP.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = stairs.get(room.as_str()) else {
            wrong.push(format!("{room}: a room without a floor; enter it in STAIRS"));
            continue;
        };
        for named in named(&text) {
            if named != room && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: names {named}", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_stairs_have_no_turn() {
    let stairs: BTreeMap<&str, &[&str]> = STAIRS.iter().copied().collect();
    let mut floors: BTreeMap<&str, usize> = BTreeMap::new();
    // As many rounds as rooms are enough for heights to settle, unless they go round in a circle.
    for _ in 0..=stairs.len() {
        for (room, below) in &stairs {
            let floor =
                below.iter().map(|room| floors.get(room).copied().unwrap_or(0) + 1).max().unwrap_or(0);
            floors.insert(room, floor);
        }
    }
    assert!(floors.values().all(|floor| *floor < stairs.len()), "{floors:?}");
}

/// Words that belong to some rooms only, with the reason.
#[test]
fn some_words_stay_in_their_rooms() {
    let rules: &[(&str, &[&str], &str)] = &[
        ("TcpStream", &["net", "sandbox", "submit"], "sockets are opened in net"),
        ("lettre::", &["mail"], "lettre is used behind one module"),
        ("rusqlite::", &["ledger", "archive", "database"], "SQL is the ledger's and the index's"),
        ("minijinja::", &["render", "report"], "letters are render's, and report has a page"),
        ("clap::", &["cli"], "what may be typed is said in one place"),
        ("ureq::", &["net"], "what goes over HTTPS goes through net::token"),
        ("tokio::", &[], "there is no runtime"),
        ("println!(", &["eprintln"], "it panics when a pipe is closed; writeln! says so"),
        ("eprint!(", &[], "what is said goes through talk"),
        ("unsafe ", &[], "none of our own"),
        ("dbg!(", &[], "left over"),
        ("todo!(", &[], "left over"),
        ("unimplemented!(", &[], "left over"),
    ];
    let mut wrong = Vec::new();
    for (room, path, text) in sources() {
        for (word, rooms, reason) in rules {
            let text = if *word == "println!(" { text.replace("eprintln!(", "") } else { text.clone() };
            if text.contains(word) && !rooms.contains(&room.as_str()) {
                wrong.push(format!("{}: `{word}` ({reason})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_door_plate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in walkdir::WalkDir::new(root) {
        let path = entry.expect("src can be listed").into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source can be read");
            assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
        }
    }
}

/// The strings of a list in deny.toml.
fn listed<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let list = text.split_once(&format!("\n{key} = [")).expect("the list is there").1;
    let list = list.split_once("\n]").expect("the list ends").0;
    list.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split('"').nth(1))
        .collect()
}

/// Whether a licence expression (SPDX, or Cargo's older `/`) can be met with what is allowed.
fn permitted(expression: &str, allowed: &[&str]) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // AND binds closer than OR outside parentheses; inside them every alternative has to be allowed,
    // which is stricter than the standard and enough for what there is.
    let parenthesised = expression.contains('(');
    let mut terms = flat.split(" OR ").flat_map(|part| part.split(" AND ")).map(str::trim);
    if parenthesised || flat.contains(" AND ") {
        terms.all(|term| allowed.contains(&term))
    } else {
        terms.any(|term| allowed.contains(&term))
    }
}

#[test]
fn licences_are_read_strictly() {
    let allowed = ["MIT", "ISC", "BSD-3-Clause"];
    for (expression, expected) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(ISC OR MIT) AND BSD-3-Clause", true),
        ("(ISC OR MIT) AND GPL-3.0", false),
        ("GPL-3.0", false),
    ] {
        assert_eq!(permitted(expression, &allowed), expected, "{expression}");
    }
}

/// What cargo-deny would say of licences and banned crates, where cargo-deny is not at hand.
#[test]
fn dependencies_keep_to_deny_toml() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(root.join("deny.toml")).expect("deny.toml");
    let (allowed, banned) = (listed(&rules, "allow"), listed(&rules, "deny"));
    assert!(allowed.contains(&"MIT") && banned.contains(&"tokio"), "{allowed:?} {banned:?}");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(root)
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).expect("metadata in JSON");
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or("");
        if !permitted(licence, &allowed) {
            wrong.push(format!("{name}: licence `{licence}`"));
        }
        if banned.contains(&name) {
            wrong.push(format!("{name} is banned"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
