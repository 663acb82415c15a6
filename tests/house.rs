//! Rules of the house that the compiler does not keep: stairs go one way, sockets stay in their
//! rooms, stdout cannot panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may name. What is not here may not be named; a new room is entered
/// here first, so that somebody has thought about which floor it is on.
const STAIRS: &[(&str, &[&str])] = &[
    // The ground: values that know nobody.
    ("exit", &[]),
    ("secret", &[]),
    ("measure", &[]),
    ("failpoint", &[]),
    ("diagnostic", &["exit"]),
    ("mail", &[]),
    ("letter", &["mail"]),
    ("wire", &["mail", "secret"]),
    // What was asked.
    ("job", &["diagnostic", "exit", "mail", "measure", "secret"]),
    // The crafts: the words of `letter`, the specs of `job`, and what they stand on; not one another.
    ("net", &["job", "measure", "secret", "wire"]),
    ("recipients", &["exit", "job", "letter", "mail", "measure"]),
    ("enclosures", &["job", "letter", "mail", "measure"]),
    ("render", &["diagnostic", "job", "letter", "mail", "measure"]),
    ("compose", &["letter", "mail", "measure"]),
    ("submit", &["job", "letter", "mail", "measure", "net", "secret", "wire"]),
    ("ledger", &["exit", "failpoint", "job", "letter", "mail", "measure"]),
    ("read", &["letter", "mail", "measure"]),
    ("archive", &["exit", "failpoint", "job", "letter", "mail", "measure", "net", "read", "secret", "wire"]),
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
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(&root) {
        let path = entry.expect("src can be listed").into_path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
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
        ("rusqlite::", &["ledger", "archive"], "SQL is the ledger's and the index's"),
        ("minijinja::", &["render"], "templates are render's"),
        ("clap::", &["cli"], "what may be typed is said in one place"),
        ("tokio::", &[], "there is no runtime"),
        ("println!(", &["eprintln"], "it panics when a pipe is closed; writeln! says so"),
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
