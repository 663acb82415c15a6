//! What the ledger costs: taking in a list, claiming from it, marking and settling.
//!
//! `cargo bench --bench ledger` runs the benches; with `-- figures [ROWS] [GROUP]` it prints wall and
//! CPU time a row and the peak of memory instead, which a bench of many rounds cannot say.

use std::time::Instant;

use divan::counter::ItemsCount;
use postroom::job::Dedupe;
use postroom::ledger::{
    EditionId, Enlist, EnlistState, Group, Ledger, Mark, NewEdition, Settlement, SourceRecord, Sqlite, State,
};
use postroom::letter::{Answer, Enhanced, Outcome, Purpose, RcptOutcome};
use postroom::report::{self, View};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    if arguments.next().as_deref() == Some("figures") {
        let mut number = |default| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
        figures(number(1_000_000), number(32) as usize);
    } else {
        divan::main();
    }
}

/// A fresh ledger with an edition begun.
fn begun() -> (tempfile::TempDir, Sqlite, EditionId) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut ledger = Sqlite::open(&folder.path().join("ledger.db")).expect("a ledger");
    let edition = ledger
        .begin(&NewEdition {
            job: "bench",
            name: "1",
            purpose: Purpose::Real,
            fingerprint: [0; 32],
            components: &[],
            timezone: "UTC",
            now: 1,
        })
        .expect("an edition");
    (folder, ledger, edition)
}

/// Takes in `rows` rows of ten columns, in batches as the engine does.
fn enlist(ledger: &mut Sqlite, edition: EditionId, rows: u64) {
    let columns: Vec<String> = (0..10).map(|n| format!("column{n}")).collect();
    let mut enlister = ledger.enlist(edition, Some(&columns), Dedupe::Refuse).expect("an enlister");
    for first in (1..=rows).step_by(512) {
        let batch: Vec<(u64, String, String)> = (first..=rows.min(first + 511))
            .map(|n| {
                let row = format!(
                    "[\"user{n}@mail{}.example.org\",\"Ada Lovelace\",\"London\",\"premium\",true,{n},\
                     \"2024-05-17\",\"en\",\"Some words about her\",\"9f3ab1c07d2e4f68b5\"]",
                    n % 97
                );
                (n, format!("user{n}@mail{}.example.org", n % 97), row)
            })
            .collect();
        let batch: Vec<Enlist<'_>> = batch
            .iter()
            .map(|(number, key, row)| Enlist {
                number: *number,
                key,
                domain: &key[key.find('@').map_or(0, |at| at + 1)..],
                row,
                state: EnlistState::Pending,
                enclosed: None,
            })
            .collect();
        enlister.add(&batch).expect("rows taken in");
    }
    enlister.finish(SourceRecord::default(), 2).expect("a list taken in");
}

fn mark(seq: u64) -> Mark {
    Mark {
        seq,
        date: 1_795_000_000,
        at: 1_795_000_000,
        message_id: format!("<{seq:032x}@news.example.com>"),
        files: Vec::new(),
        digest: None,
    }
}

fn accepted(seq: u64) -> Settlement {
    let enhanced = Some(Enhanced { class: 2, subject: 0, detail: 0 });
    let answer = Answer { code: 250, enhanced, text: format!("Ok: queued as {seq:010X}") };
    let address = format!("user{seq}@mail{}.example.org", seq % 97);
    Settlement {
        seq,
        state: State::Accepted,
        next_attempt: None,
        at: 1_795_000_001,
        reason: None,
        rcpts: vec![RcptOutcome { address, outcome: Outcome::Accepted, answer }],
    }
}

/// Groups as a run makes them: the next letters are marked while the ones before are settled.
fn groups(rows: u64, size: usize) -> impl Iterator<Item = Group> {
    let size = size as u64;
    (0..=rows.div_ceil(size)).map(move |n| Group {
        marks: (n * size + 1..=(n * size + size).min(rows)).map(mark).collect(),
        settlements: (n.saturating_sub(1) * size + 1..=(n * size).min(rows)).map(accepted).collect(),
    })
}

#[divan::bench(args = [100_000], sample_count = 5, sample_size = 1)]
fn enlisting(bencher: divan::Bencher<'_, '_>, rows: u64) {
    bencher.counter(ItemsCount::new(rows)).with_inputs(begun).bench_values(
        |(folder, mut ledger, edition)| {
            enlist(&mut ledger, edition, rows);
            (folder, ledger)
        },
    );
}

#[divan::bench(args = [100_000], sample_count = 5, sample_size = 1)]
fn claiming(bencher: divan::Bencher<'_, '_>, rows: u64) {
    let (_folder, mut ledger, edition) = begun();
    enlist(&mut ledger, edition, rows);
    let reader = ledger.reader().expect("a reader");
    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        let mut after = 0;
        while let Some(last) = reader.claim(edition, after, 512).expect("a claim").last() {
            after = last.seq;
        }
    });
}

#[divan::bench(args = [16, 64], sample_count = 5, sample_size = 1)]
fn marking_and_settling(bencher: divan::Bencher<'_, '_>, group: usize) {
    const ROWS: u64 = 20_000;
    let fresh = || {
        let (folder, mut ledger, edition) = begun();
        enlist(&mut ledger, edition, ROWS);
        (folder, ledger, edition, groups(ROWS, group).collect::<Vec<_>>())
    };
    bencher.counter(ItemsCount::new(ROWS)).with_inputs(fresh).bench_values(
        |(folder, mut ledger, edition, groups)| {
            for group in &groups {
                ledger.write(edition, group).expect("a group written");
            }
            (folder, ledger)
        },
    );
}

/// One pass over everything, told in figures.
fn figures(rows: u64, size: usize) {
    let (folder, mut ledger, edition) = begun();
    let before = Usage::now();
    enlist(&mut ledger, edition, rows);
    before.tell("enlist", rows);

    let before = Usage::now();
    let reader = ledger.reader().expect("a reader");
    let mut after = 0;
    while let Some(last) = reader.claim(edition, after, 512).expect("a claim").last() {
        after = last.seq;
    }
    before.tell("claim", rows);

    let before = Usage::now();
    let mut longest = 0.0_f64;
    let mut making = 0.0;
    for group in {
        let begun = Instant::now();
        let groups: Vec<Group> = groups(rows, size).collect();
        making += begun.elapsed().as_secs_f64();
        groups
    } {
        let begun = Instant::now();
        ledger.write(edition, &group).expect("a group written");
        longest = longest.max(begun.elapsed().as_secs_f64());
    }
    before.tell(&format!("mark + settle, groups of {size} (making them took {making:.2} s)"), rows);
    println!("  longest group {:.1} ms", longest * 1e3);

    let before = Usage::now();
    reader.counts(edition).expect("counts");
    before.tell("counts", rows);

    let found = reader.edition(edition).expect("an edition").expect("the edition");
    let view = View { only: None, some: 20, domains: true, enlisting: None, command: "postroom report" };
    let before = Usage::now();
    let standing = reader.standing(found.id).expect("a standing");
    report::table(&mut std::io::sink(), reader.as_ref(), &found, &standing, &view).expect("a table");
    before.tell("report, table", rows);
    let before = Usage::now();
    report::csv(&mut std::io::sink(), reader.as_ref(), &found, &State::ALL).expect("a CSV");
    before.tell("report, CSV", rows);
    let before = Usage::now();
    report::json(&mut std::io::sink(), reader.as_ref(), &found, &State::ALL).expect("a document");
    before.tell("report, JSON", rows);

    let before = Usage::now();
    enlist(&mut ledger, edition, rows);
    before.tell("enlist the same list again", rows);
    let bytes = std::fs::metadata(folder.path().join("ledger.db")).map_or(0, |file| file.len());
    println!("ledger.db {} MB", bytes / 1_000_000);
}

/// Wall time, CPU time and memory, read from /proc.
struct Usage {
    begun: Instant,
    ticks: u64,
}

impl Usage {
    fn now() -> Usage {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Usage { begun: Instant::now(), ticks: ticks(11) + ticks(12) }
    }

    fn tell(self, what: &str, rows: u64) {
        let wall = self.begun.elapsed().as_secs_f64();
        let cpu = (Usage::now().ticks - self.ticks) as f64 / 100.0;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: ?");
        println!(
            "{what}: {wall:.2} s wall, {cpu:.2} s CPU, {:.2} µs wall and {:.2} µs CPU a row; {}",
            wall * 1e6 / rows as f64,
            cpu * 1e6 / rows as f64,
            peak.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
}
