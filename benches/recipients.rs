//! How long a row takes on its way from the list into the ledger and out of it again. A row has
//! ten columns and 89 bytes, as lists of subscribers have.

mod bare_job;

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Cursor;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use postroom::enclosures::{Finder, Whose};
use postroom::job::{RecipientsSpec, SourceSpec};
use postroom::letter::{Columns, Piece, RecipientKey, Row};
use postroom::recipients::{self, Suppressed};

/// So few that a sample is over before the machine turns to something else.
const ROWS: usize = 1000;
const BATCH: usize = 1000;

fn main() {
    divan::main();
}

fn table() -> String {
    let mut text = "email,name,city,plan,id,joined,balance,lang,ref,score\n".to_owned();
    for n in 0..ROWS {
        let (name, city) = [("Ann Archer", "São Paulo"), ("王小明", "北京"), ("Hugo Holm", "Oslo")][n % 3];
        writeln!(
            text,
            "user{n}@list{}.test,{name},{city},pro,{n:06},2017-04-14,665.75,fr,35a7fca2fa,3643",
            n % 10
        )
        .expect("a string");
    }
    text
}

fn lines() -> String {
    rows(&table(), "csv")
        .iter()
        .map(|row| {
            let loose =
                Row { columns: Arc::new(Columns::loose(row.columns.names().to_vec())), ..row.clone() };
            loose.to_json() + "\n"
        })
        .collect()
}

fn spec(format: &str) -> RecipientsSpec {
    let job = bare_job::bare_job(Path::new("."));
    RecipientsSpec { source: SourceSpec::Stdin { format: Some(format.to_owned()) }, ..job.recipients }
}

fn each(spec: &RecipientsSpec, text: &str, mut each: impl FnMut(Row)) {
    let mut rows = recipients::open(spec, Box::new(Cursor::new(text.to_owned()))).expect("a list");
    loop {
        let batch = rows.next_batch(BATCH).expect("a good list");
        if batch.is_empty() {
            return;
        }
        batch.into_iter().for_each(|row| each(row.expect("a good row")));
    }
}

fn rows(text: &str, format: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    each(&spec(format), text, |row| rows.push(row));
    rows
}

#[divan::bench]
fn csv(bencher: Bencher<'_, '_>) {
    let (spec, text) = (spec("csv"), table());
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| each(&spec, &text, |row| _ = black_box(row)));
}

#[divan::bench]
fn csv_and_to_json(bencher: Bencher<'_, '_>) {
    let (spec, text) = (spec("csv"), table());
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| each(&spec, &text, |row| _ = black_box(row.to_json())));
}

#[divan::bench]
fn json_lines(bencher: Bencher<'_, '_>) {
    let (spec, text) = (spec("jsonl"), lines());
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| each(&spec, &text, |row| _ = black_box(row)));
}

#[divan::bench]
fn to_json(bencher: Bencher<'_, '_>) {
    let rows = rows(&table(), "csv");
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        for row in &rows {
            black_box(row.to_json());
        }
    });
}

#[divan::bench]
fn from_json(bencher: Bencher<'_, '_>) {
    let rows = rows(&table(), "csv");
    let columns = rows[0].columns.clone();
    let texts: Vec<String> = rows.iter().map(Row::to_json).collect();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        for text in &texts {
            black_box(Row::from_json(1, text, &columns));
        }
    });
}

#[divan::bench]
fn suppressed(bencher: Bencher<'_, '_>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gone.txt");
    let gone: String = (0..1_000_000).map(|n| format!("gone{n}@list{}.test\n", n % 10)).collect();
    std::fs::write(&file, gone).expect("written");
    let suppressed = Suppressed::load(&[(file, postroom::job::Text::new(""))]).expect("addresses");
    let addresses: Vec<_> =
        (0..ROWS).map(|n| format!("user{n}@list{}.test", n % 10).parse().expect("an address")).collect();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        assert!(!addresses.iter().any(|address| suppressed.contains(address)));
    });
}

#[divan::bench(sample_count = 3)]
fn own_file_of_100_000(bencher: Bencher<'_, '_>) {
    const FILES: usize = 100_000;
    let folder = tempfile::tempdir().expect("a folder");
    for n in 0..FILES {
        std::fs::write(folder.path().join(format!("{n}-report.pdf")), "").expect("written");
    }
    bencher.counter(ItemsCount::new(FILES)).bench_local(|| {
        let finder = Finder::new(folder.path());
        for n in 0..FILES {
            let key = RecipientKey::new(&n.to_string()).expect("a key");
            let pattern = [Piece::Value(n.to_string()), Piece::Operator("-*.pdf".into())];
            let found = finder.find(&pattern, &key, Whose::TheirsAlone, (1, 1)).expect("its own");
            finder.fold(found.iter().map(PathBuf::as_path)).expect("there");
        }
    });
}
