//! Everything a relay can do wrong, at random and at once, while nobody kills the run: each address of each letter is in
//! the ledger once, and the relay's log agrees with it.

use std::collections::BTreeMap;

use crate::kills::{BAD_DAY, DOUBT, WORST_DAY, cuts, job, until_done};
use crate::scene::{Scene, long};

/// Who is written to: every third letter has a copy.
fn list(letters: usize) -> String {
    let mut csv = String::from("email,name,copy\n");
    for n in 0..letters {
        let copy = if n % 3 == 0 { format!("c{n}@example.net") } else { String::new() };
        csv.push_str(&format!("u{n}@example.org,Name {n},{copy}\n"));
    }
    csv
}

/// Address to outcome, as the report has it for other programs.
fn outcomes(scene: &Scene) -> BTreeMap<String, String> {
    let report = scene.run("report job.yaml --format csv").stdout;
    let mut reader = csv::Reader::from_reader(report.as_bytes());
    let headers = reader.headers().expect("a header line").clone();
    let column = |name: &str| headers.iter().position(|header| header == name).expect("a column");
    let (address, outcome) = (column("address"), column("address_outcome"));
    let mut found = BTreeMap::new();
    for record in reader.records() {
        let record = record.expect("a line of the report");
        let before = found.insert(record[address].to_owned(), record[outcome].to_owned());
        assert_eq!(before, None, "{} is named once", &record[address]);
    }
    found
}

fn worst_day(level: &str, letters: usize) {
    let mut arguments: Vec<&str> = vec!["--seed", "11"];
    for fault in BAD_DAY.iter().chain(WORST_DAY) {
        arguments.extend(["--fault", fault]);
    }
    let job = job(level).replace("{file: list.csv}", "{file: list.csv, cc: [\"{{ copy }}\"]}");
    let scene = Scene::new().relay(arguments).job(&job).recipients(&list(letters));
    until_done(&scene);
    let (received, outcomes) = (scene.its_relay().received(), outcomes(&scene));
    assert_eq!(outcomes.len(), letters + letters.div_ceil(3), "{level}: everybody is in the ledger");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (address, outcome) in &outcomes {
        *counts.entry(outcome.as_str()).or_insert(0) += 1;
        match (outcome.as_str(), received.get(address)) {
            ("accepted", Some(1)) | ("unsure", None | Some(1)) | ("refused" | "failed", None) => {}
            (outcome, arrived) => panic!("{level}: {address} is {outcome}, and arrived {arrived:?}"),
        }
    }
    let relay = scene.its_relay();
    let cuts = relay.events("fault").iter().filter(|line| cuts(&line["rule"])).count();
    // A letter with a copy is two addresses.
    let unsure = counts.get("unsure").copied().unwrap_or(0);
    assert!(unsure <= cuts * DOUBT * 2, "{level}: {unsure} unsure after {cuts} cuts");
    eprintln!("{level}: {letters} letters, {cuts} cuts: {counts:?}");
}

#[test]
fn a_relay_that_does_everything_wrong_leaves_the_books_in_agreement() {
    for level in ["off", "envelope", "message", "window", "auto"] {
        worst_day(level, if long() { 4_000 } else { 300 });
    }
}
