//! What every ledger must do, whatever keeps it: one suite, run over each implementation.

use crate::job::{Dedupe, Unsure};
use crate::letter::{Answer, Enhanced, FileRecord, Outcome, Purpose, RcptOutcome};

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::*;

/// Makes a fresh ledger for one check; the value beside it keeps its place alive.
pub(super) type Fresh<'f> = &'f dyn Fn() -> (Box<dyn Ledger>, Box<dyn std::any::Any>);

/// Runs all checks.
pub(super) fn run(fresh: Fresh<'_>) {
    for (name, check) in [
        ("a list is taken in", a_list_is_taken_in as fn(&mut dyn Ledger)),
        ("a partial list is taken in anew", a_partial_list_is_taken_in_anew),
        ("repeated keys", repeated_keys),
        ("a changed list", a_changed_list),
        ("rows that a run left behind reopen an edition", rows_that_a_run_left_behind_reopen_an_edition),
        ("a mended row mails nobody twice", a_mended_row_mails_nobody_twice),
        ("who is gone from the list keeps what she got", who_is_gone_from_the_list_keeps_what_she_got),
        ("who comes back is looked at again", who_comes_back_is_looked_at_again),
        ("a key of an older program is known", a_key_of_an_older_program_is_known),
        ("who was forgotten by an older program is known", who_was_forgotten_by_an_older_program_is_known),
        ("other files are looked at first", other_files_are_looked_at_first),
        ("letters are marked and settled", letters_are_marked_and_settled),
        ("a group is whole or nothing", a_group_is_whole_or_nothing),
        ("several recipients and attempts", several_recipients_and_attempts),
        ("an unsure address of a deferred letter is held", an_unsure_address_of_a_deferred_letter_is_held),
        ("what was accepted stays accepted", what_was_accepted_stays_accepted),
        ("what a dead run left", what_a_dead_run_left),
        ("deferred letters come due", deferred_letters_come_due),
        (
            "deferred letters do not wait for a clock that was wrong",
            deferred_letters_do_not_wait_for_a_clock_that_was_wrong,
        ),
        ("changes are accepted", changes_are_accepted),
        ("flags", flags),
        ("editions do not mix", editions_do_not_mix),
        ("chance tries it", chance_tries_it),
        ("letters are claimed by domain", letters_are_claimed_by_domain),
        ("letters are put back", letters_are_put_back),
        ("who was skipped is put back", who_was_skipped_is_put_back),
        ("people are forgotten", people_are_forgotten),
        ("old editions are pruned", old_editions_are_pruned),
        ("reports read all of it", reports_read_all_of_it),
    ] {
        println!("{name}");
        let (mut ledger, _place) = fresh();
        check(ledger.as_mut());
    }
}

fn begin(ledger: &mut dyn Ledger, name: &str) -> EditionId {
    let components =
        [Component { name: "subject".into(), hash: [3; 32], text: Some("Hello {{ name }}".into()) }];
    ledger
        .begin(&NewEdition {
            job: "newsletter",
            name,
            purpose: Purpose::Real,
            fingerprint: [7; 32],
            components: &components,
            timezone: "Asia/Shanghai",
            now: 1_000,
        })
        .unwrap()
}

fn row(number: u64, key: &str) -> Enlist<'_> {
    Enlist {
        number,
        key,
        domain: "example.org",
        row: "[\"x\"]",
        state: EnlistState::Pending,
        enclosed: Some(number as i64),
    }
}

fn enlist(ledger: &mut dyn Ledger, edition: EditionId, dedupe: Dedupe, rows: &[Enlist<'_>]) -> Enlisting {
    let columns = ["email".to_owned()];
    let mut enlister = ledger.enlist(edition, Some(&columns), dedupe).unwrap();
    enlister.add(rows).unwrap();
    let source =
        SourceRecord { hash: Some([rows.len() as u8; 32]), rows: rows.len() as u64, ..Default::default() };
    enlister.finish(source, 2_000).unwrap()
}

/// An edition with deliveries 1 to `n`, keys `k1` to `kn`.
fn enlisted(ledger: &mut dyn Ledger, n: u64) -> EditionId {
    let edition = begin(ledger, "2026-11");
    let keys: Vec<String> = (1..=n).map(|n| format!("k{n}")).collect();
    let rows: Vec<Enlist<'_>> = keys.iter().zip(1..).map(|(key, number)| row(number, key)).collect();
    enlist(ledger, edition, Dedupe::Refuse, &rows);
    edition
}

fn mark(seq: u64) -> Mark {
    Mark {
        seq,
        date: 5_000,
        at: 5_001,
        message_id: format!("<{seq}@example.com>"),
        files: Vec::new(),
        digest: None,
    }
}

fn settle(seq: u64, state: State, rcpts: Vec<RcptOutcome>) -> Settlement {
    Settlement { seq, state, next_attempt: None, at: 6_000, reason: None, rcpts }
}

fn rcpt(address: &str, outcome: Outcome, code: u16) -> RcptOutcome {
    let enhanced = Some(Enhanced { class: (code / 100) as u8, subject: 1, detail: 1 });
    RcptOutcome { address: address.into(), outcome, answer: Answer { code, enhanced, text: "said".into() } }
}

fn write(ledger: &mut dyn Ledger, edition: EditionId, marks: Vec<Mark>, settlements: Vec<Settlement>) {
    ledger.write(edition, &Group { marks, settlements }).unwrap();
}

fn counts(ledger: &dyn Ledger, edition: EditionId) -> Vec<(State, u64)> {
    let counts = ledger.reader().unwrap().counts(edition).unwrap();
    State::ALL.into_iter().map(|state| (state, counts.of(state))).filter(|(_, n)| *n > 0).collect()
}

fn keys(ledger: &dyn Ledger, edition: EditionId) -> Vec<String> {
    let claimed = ledger.reader().unwrap().claim(edition, 0, 1000).unwrap();
    claimed.into_iter().map(|claimed| claimed.key).collect()
}

fn a_list_is_taken_in(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let columns = ["email".to_owned(), "姓名".to_owned()];
    let mut enlister = ledger.enlist(edition, Some(&columns), Dedupe::Refuse).unwrap();
    enlister
        .add(&[
            Enlist { row: "[\"a@x.org\",\"张伟\"]", ..row(1, "a@x.org") },
            Enlist { state: EnlistState::Skipped("suppressed"), ..row(3, "b@x.org") },
            Enlist { state: EnlistState::Failed("`to` is no address"), ..row(4, "c@x.org") },
        ])
        .unwrap();
    enlister.reject(2, None, "the row has no key").unwrap();
    assert_eq!(enlister.rejected(), 1);
    let source = SourceRecord { hash: Some([9; 32]), rows: 5, filtered: 1, duplicates: 0 };
    let summary = enlister.finish(source, 2_000).unwrap();
    assert_eq!(summary, Enlisting { added: 3, rejected: 1, ..Default::default() });

    let reader = ledger.reader().unwrap();
    let found = reader.editions("newsletter", Purpose::Real).unwrap();
    assert_eq!(found.len(), 1);
    let Edition { enlisted_at, finished_at, source: kept, layouts, timezone, .. } = &found[0];
    assert_eq!((*enlisted_at, *finished_at, *kept), (Some(2_000), None, source));
    assert_eq!(layouts, &[Some(columns.to_vec())]);
    assert_eq!(timezone, "Asia/Shanghai");
    assert_eq!(reader.edition(edition).unwrap().as_ref(), Some(&found[0]));
    assert!(reader.editions("newsletter", Purpose::Sandbox).unwrap().is_empty());
    assert_eq!(reader.components(edition).unwrap()[0].text.as_deref(), Some("Hello {{ name }}"));

    let claimed = reader.claim(edition, 0, 10).unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].seq, claimed[0].number, claimed[0].key.as_str()), (1, 1, "a@x.org"));
    assert_eq!(
        (claimed[0].row.as_str(), claimed[0].domain.as_str()),
        ("[\"a@x.org\",\"张伟\"]", "example.org")
    );
    assert_eq!(counts(ledger, edition), [(State::Pending, 1), (State::Failed, 1), (State::Skipped, 1)]);
    let keys = ["d@x.org", " C@X.org", "c@x.org"].map(String::from);
    assert_eq!(reader.find_keys(edition, &keys).unwrap(), [None, Some(4), Some(4)]);
    let rejects = reader.rejects(edition, 0, 10).unwrap();
    assert_eq!(
        rejects,
        [Reject { number: 2, key: None, duplicate: false, reason: "the row has no key".into() }]
    );
}

fn a_partial_list_is_taken_in_anew(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let mut enlister = ledger.enlist(edition, None, Dedupe::Refuse).unwrap();
    enlister.add(&[row(1, "a"), row(2, "b")]).unwrap();
    drop(enlister);
    assert_eq!(ledger.reader().unwrap().edition(edition).unwrap().unwrap().enlisted_at, None);
    let summary = enlist(ledger, edition, Dedupe::Refuse, &[row(1, "b"), row(2, "c")]);
    assert_eq!((summary.added, summary.known), (2, 0));
    assert_eq!(keys(ledger, edition), ["b", "c"]);
}

fn repeated_keys(ledger: &mut dyn Ledger) {
    for (name, dedupe, rejected, rejects) in
        [("refuse", Dedupe::Refuse, 1, vec![(3, false)]), ("first", Dedupe::First, 0, vec![(3, true)])]
    {
        let edition = begin(ledger, name);
        let other = Enlist { row: "[\"y\"]", ..row(3, "a") };
        let list = [row(1, "a"), row(2, "a"), other, row(4, "b")];
        for renewed in [false, true] {
            let summary = enlist(ledger, edition, dedupe, &list);
            assert_eq!((summary.duplicates, summary.rejected), (1, rejected), "{name} {renewed}");
            assert_eq!(keys(ledger, edition), ["a", "b"]);
            let found = ledger.reader().unwrap().rejects(edition, 0, 10).unwrap();
            let found: Vec<_> = found.into_iter().map(|reject| (reject.number, reject.duplicate)).collect();
            assert_eq!(found, rejects, "{name} {renewed}");
        }
    }
}

fn rows_that_a_run_left_behind_reopen_an_edition(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    enlist(ledger, edition, Dedupe::Refuse, &[row(1, "sent")]);
    write(ledger, edition, vec![mark(1)], vec![]);
    write(ledger, edition, vec![], vec![settle(1, State::Accepted, vec![])]);
    ledger.finish(edition, 3_000).unwrap();

    // The list has grown, and the run dies when its rows are in and the list is not taken in whole.
    let grown = [row(1, "sent"), row(2, "new")];
    let columns = ["email".to_owned()];
    let mut enlister = ledger.enlist(edition, Some(&columns), Dedupe::Refuse).unwrap();
    enlister.add(&grown).unwrap();
    enlister.rest().unwrap();
    drop(enlister);
    let reader = ledger.reader().unwrap();
    let finished = |reader: &dyn Reader| reader.edition(edition).unwrap().unwrap().finished_at;
    assert_eq!(finished(&*reader), None, "there is something to send");
    let summary = enlist(ledger, edition, Dedupe::Refuse, &grown);
    assert_eq!((summary.added, summary.known), (0, 2));
    assert_eq!(finished(&*reader), None, "there still is");

    // Where nothing is left it stays finished.
    write(ledger, edition, vec![mark(2)], vec![]);
    write(ledger, edition, vec![], vec![settle(2, State::Refused, vec![])]);
    ledger.finish(edition, 4_000).unwrap();
    enlist(ledger, edition, Dedupe::Refuse, &grown);
    assert_eq!(finished(&*reader), Some(4_000));
}

fn a_changed_list(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let broken = Enlist { state: EnlistState::Failed("`to` is no address"), ..row(4, "mended") };
    enlist(ledger, edition, Dedupe::Refuse, &[row(1, "stays"), row(2, "goes"), row(3, "sent"), broken]);
    write(ledger, edition, vec![mark(3)], vec![]);
    write(ledger, edition, vec![], vec![settle(3, State::Accepted, vec![])]);
    ledger.finish(edition, 3_000).unwrap();

    // `goes` and `sent` are gone, `stays` has other values, `mended` is right, `new` comes first.
    let changed = Enlist { row: "[\"z\"]", ..row(2, "stays") };
    let mended = Enlist { row: "[\"m\"]", ..row(3, "mended") };
    let summary = enlist(ledger, edition, Dedupe::Refuse, &[row(1, "new"), changed, mended]);
    let expected = Enlisting {
        added: 1,
        known: 2,
        changed: 1,
        mended: 1,
        removed: 1,
        removed_keys: vec!["goes".into()],
        ..Default::default()
    };
    assert_eq!(summary, expected);
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.edition(edition).unwrap().unwrap().finished_at, None, "there is something to send");
    let claimed = reader.claim(edition, 0, 10).unwrap();
    let seen: Vec<_> = claimed.iter().map(|c| (c.seq, c.number, c.key.as_str(), c.row.as_str())).collect();
    assert_eq!(
        seen,
        [(1, 1, "stays", "[\"x\"]"), (4, 3, "mended", "[\"m\"]"), (5, 1, "new", "[\"x\"]")],
        "frozen rows stay, numbers go on above the highest"
    );

    // What was in order when it was taken in, and is not any more, is not sent.
    let contested = Enlist { state: EnlistState::Failed("a file of two"), ..row(3, "new") };
    let other = Enlist { state: EnlistState::Failed("wrong"), row: "[\"y\"]", ..row(2, "mended") };
    enlist(ledger, edition, Dedupe::Refuse, &[row(1, "stays"), other, contested]);
    assert_eq!(keys(ledger, edition), ["stays", "mended"], "the frozen row of `mended` is still right");

    // Back it comes; what was sent is not sent again.
    let again = enlist(ledger, edition, Dedupe::Refuse, &[row(1, "goes"), row(2, "sent"), row(3, "stays")]);
    assert_eq!((again.added, again.returned, again.removed), (0, 1, 1));
    assert_eq!(keys(ledger, edition), ["stays", "goes"]);
}

fn a_mended_row_mails_nobody_twice(ledger: &mut dyn Ledger) {
    for got in [Outcome::Accepted, Outcome::Unsure] {
        let edition = begin(ledger, got.word());
        enlist(ledger, edition, Dedupe::Refuse, &[row(1, "k1")]);
        write(ledger, edition, vec![mark(1)], vec![]);
        let both = vec![rcpt("a@x", got, 250), rcpt("b@x", Outcome::Refused, 550)];
        write(ledger, edition, vec![], vec![settle(1, State::Deferred, both)]);
        // Put back as another letter, it could not be made; then its row was changed.
        let put_back = Requeue { states: &[State::Deferred], keys: None, now: 9 };
        ledger.requeue(edition, &put_back).unwrap();
        ledger.accept_changes(edition, [8; 32], &[]).unwrap();
        write(ledger, edition, vec![], vec![settle(1, State::Failed, vec![])]);
        let changed = [Enlist { row: "[\"y\"]", ..row(1, "k1") }];
        let renewed = enlist(ledger, edition, Dedupe::Refuse, &changed);
        assert_eq!((renewed.mended, renewed.changed), (0, 1), "{got:?}");
        let claimed = ledger.reader().unwrap().claim_these(edition, &[1]).unwrap().remove(0);
        assert_eq!((claimed.settled[0].as_str(), claimed.row.as_str()), ("a@x", "[\"x\"]"), "{got:?}");
    }
}

fn who_comes_back_is_looked_at_again(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 2);
    enlist(ledger, edition, Dedupe::Refuse, &[row(1, "k1")]);
    // While she was gone, her file was found for somebody else.
    let both = [row(1, "k1"), Enlist { state: EnlistState::Failed("another's file"), ..row(2, "k2") }];
    enlist(ledger, edition, Dedupe::Refuse, &both);
    assert_eq!(counts(ledger, edition), [(State::Pending, 1), (State::Failed, 1)]);
}

fn who_is_gone_from_the_list_keeps_what_she_got(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 3);
    write(ledger, edition, vec![mark(1), mark(2)], vec![]);
    let one_of = |got, code| vec![rcpt("a@x", got, code), rcpt("b@x", Outcome::Deferred, 450)];
    let settlements = vec![
        settle(1, State::Deferred, one_of(Outcome::Accepted, 250)),
        settle(2, State::Deferred, one_of(Outcome::Unsure, 0)),
    ];
    write(ledger, edition, vec![], settlements);
    assert_eq!(enlist(ledger, edition, Dedupe::Refuse, &[]).removed, 3);
    let gone = [(State::Accepted, 1), (State::Unsure, 1), (State::Skipped, 1)];
    assert_eq!(counts(ledger, edition), gone);
    // Gone again, nothing is new; back again, the others of each letter are to get it.
    assert_eq!(enlist(ledger, edition, Dedupe::Refuse, &[]).removed, 0);
    let back = enlist(ledger, edition, Dedupe::Refuse, &[row(1, "k1"), row(2, "k2"), row(3, "k3")]);
    assert_eq!((back.returned, counts(ledger, edition)), (3, vec![(State::Pending, 3)]));
    let claimed = ledger.reader().unwrap().claim(edition, 0, 9).unwrap();
    assert_eq!(claimed[0].settled, ["a@x"]);
    assert_eq!((claimed[1].settled.join(" "), claimed[1].earlier), ("a@x".into(), Some(Outcome::Unsure)));
}

fn a_key_of_an_older_program_is_known(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    enlist(ledger, edition, Dedupe::Refuse, &[row(1, "Ada@Example.org"), row(2, "cafe\u{301}")]);
    let again = enlist(ledger, edition, Dedupe::Refuse, &[row(1, "ada@example.org"), row(2, "caf\u{e9}")]);
    assert_eq!((again.known, again.added, again.removed), (2, 0, 0), "nobody is mailed again");
}

fn who_was_forgotten_by_an_older_program_is_known(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "1");
    enlist(ledger, edition, Dedupe::Refuse, &[row(1, "Ada@X.org"), row(2, "bob@x.org")]);
    assert_eq!(ledger.forget(&"ada@x.org".parse().unwrap()).unwrap().deliveries, 1);
    let hers = Enlist { row: "[\"Ada@X.org \"]", ..row(1, "ada@x.org") };
    let outcome = enlist(ledger, edition, Dedupe::Refuse, &[hers, row(2, "bob@x.org"), row(3, "cy@x.org")]);
    assert_eq!((outcome.added, outcome.known), (1, 2));
}

fn other_files_are_looked_at_first(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let with = |key, enclosed| Enlist { enclosed, ..row(1, key) };
    enlist(ledger, edition, Dedupe::Refuse, &[with("k1", Some(7)), with("k2", None)]);
    let files = Component { name: "attachments[0]".into(), hash: [9; 32], text: None };
    ledger.accept_changes(edition, [8; 32], &[files]).unwrap();
    let enclosed = |ledger: &dyn Ledger| -> Vec<Option<i64>> {
        let claimed = ledger.reader().unwrap().claim(edition, 0, 9).unwrap();
        claimed.iter().map(|claimed| claimed.enclosed).collect()
    };
    assert_eq!(enclosed(ledger), [Some(UNSEEN); 2], "a list from standard input says nothing more of them");
    assert!(ledger.reader().unwrap().any_with_unknown_files(edition).unwrap());
    let changed = Enlist { row: "[\"y\"]", ..with("k2", Some(5)) };
    enlist(ledger, edition, Dedupe::Refuse, &[with("k1", Some(9)), changed]);
    assert_eq!(enclosed(ledger), [Some(9), Some(UNSEEN)], "nor does a row that was changed");
}

fn letters_are_marked_and_settled(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 5);
    let file = FileRecord { name: "报告.pdf".into(), size: 12, sha256: [1; 32] };
    write(ledger, edition, vec![Mark { files: vec![file], ..mark(1) }, mark(2), mark(3)], vec![]);
    assert_eq!(counts(ledger, edition), [(State::Pending, 2), (State::Sending, 3)]);
    assert_eq!(keys(ledger, edition), ["k4", "k5"]);
    write(
        ledger,
        edition,
        vec![mark(4)],
        vec![
            settle(1, State::Accepted, vec![rcpt("a@x.org", Outcome::Accepted, 250)]),
            settle(2, State::Refused, vec![rcpt("b@x.org", Outcome::Refused, 550)]),
            settle(3, State::Pending, vec![]),
            Settlement { reason: Some("suppressed".into()), ..settle(5, State::Skipped, vec![]) },
        ],
    );
    assert_eq!(
        counts(ledger, edition),
        [
            (State::Pending, 1),
            (State::Sending, 1),
            (State::Accepted, 1),
            (State::Refused, 1),
            (State::Skipped, 1)
        ]
    );
    let reader = ledger.reader().unwrap();
    let returned = &reader.claim(edition, 0, 10).unwrap()[0];
    // Returned at no cost: the attempt does not count, its date stays.
    assert_eq!((returned.seq, returned.attempts, returned.date), (3, 0, Some(5_000)));
    assert_eq!(reader.claim_these(edition, &[1, 99]).unwrap().len(), 1);
    ledger.finish(edition, 7_000).unwrap();
    ledger.tidy().unwrap();
    assert_eq!(reader.edition(edition).unwrap().unwrap().finished_at, Some(7_000));
}

fn a_group_is_whole_or_nothing(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 3);
    write(ledger, edition, vec![mark(1)], vec![]);
    write(ledger, edition, vec![], vec![settle(1, State::Accepted, vec![])]);
    for (marks, settlements) in [
        (vec![mark(2), mark(1)], vec![]), // accepted: never marked again
        (vec![mark(2)], vec![settle(1, State::Deferred, vec![])]), // nor settled otherwise
        (vec![mark(2), mark(2)], vec![]), // marked twice
        (vec![mark(2), mark(77)], vec![]), // nobody
    ] {
        let failed = ledger.write(edition, &Group { marks, settlements }).unwrap_err();
        assert!(matches!(failed, LedgerError::OutOfOrder { .. }), "{failed}");
        assert_eq!(counts(ledger, edition), [(State::Pending, 2), (State::Accepted, 1)]);
    }
    write(ledger, edition, vec![], vec![]);
}

fn several_recipients_and_attempts(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 1);
    let deferred = |rcpts| Settlement { next_attempt: Some(100), ..settle(1, State::Deferred, rcpts) };
    let settled =
        |ledger: &dyn Ledger| ledger.reader().unwrap().claim_these(edition, &[1]).unwrap().remove(0).settled;
    write(ledger, edition, vec![mark(1)], vec![]);
    let first = vec![
        rcpt("a@x", Outcome::Accepted, 250),
        rcpt("b@x", Outcome::Deferred, 450),
        rcpt("c@x", Outcome::Deferred, 451),
    ];
    write(ledger, edition, vec![], vec![deferred(first)]);
    assert_eq!(settled(ledger), ["a@x"]);
    write(ledger, edition, vec![mark(1)], vec![]);
    let second = vec![rcpt("c@x", Outcome::Refused, 550), rcpt("b@x", Outcome::Deferred, 450)];
    write(ledger, edition, vec![], vec![deferred(second)]);
    assert_eq!(settled(ledger), ["a@x", "c@x"]);
    write(ledger, edition, vec![mark(1)], vec![]);
    write(
        ledger,
        edition,
        vec![],
        vec![settle(1, State::Refused, vec![rcpt("b@x", Outcome::Accepted, 250)])],
    );
    assert_eq!(settled(ledger), ["a@x", "b@x", "c@x"]);
    let claimed = ledger.reader().unwrap().claim_these(edition, &[1]).unwrap().remove(0);
    assert_eq!((claimed.attempts, claimed.earlier), (3, Some(Outcome::Refused)));
}

fn an_unsure_address_of_a_deferred_letter_is_held(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 1);
    write(ledger, edition, vec![mark(1)], vec![]);
    let both = vec![rcpt("a@x", Outcome::Unsure, 0), rcpt("b@x", Outcome::Deferred, 450)];
    let deferred = Settlement { next_attempt: Some(100), ..settle(1, State::Deferred, both) };
    write(ledger, edition, vec![], vec![deferred]);
    let held = |ledger: &dyn Ledger| {
        let claimed = ledger.reader().unwrap().claim_these(edition, &[1]).unwrap().remove(0);
        (claimed.settled.join(" "), claimed.earlier)
    };
    assert_eq!(held(ledger), ("a@x".to_owned(), Some(Outcome::Unsure)));
    // Who puts back what is deferred was not asked about those who may have got it.
    ledger.requeue(edition, &Requeue { states: &[State::Deferred], keys: None, now: 200 }).unwrap();
    assert_eq!(held(ledger), ("a@x".to_owned(), Some(Outcome::Unsure)));
    write(ledger, edition, vec![mark(1)], vec![]);
    let rest = vec![rcpt("b@x", Outcome::Accepted, 250)];
    write(ledger, edition, vec![], vec![settle(1, State::Unsure, rest)]);
    ledger.requeue(edition, &Requeue { states: &[State::Unsure], keys: None, now: 300 }).unwrap();
    assert_eq!(held(ledger), ("b@x".to_owned(), Some(Outcome::Accepted)));
}

fn what_was_accepted_stays_accepted(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 1);
    let both = |outcome, code| vec![rcpt("a@x", Outcome::Accepted, 250), rcpt("b@x", outcome, code)];
    write(ledger, edition, vec![mark(1)], vec![]);
    let deferred = settle(1, State::Deferred, both(Outcome::Deferred, 450));
    write(ledger, edition, vec![], vec![Settlement { next_attempt: Some(1), ..deferred }]);
    // It cannot be made any more, and somebody says so of both.
    let failed = vec![rcpt("a@x", Outcome::Failed, 0), rcpt("b@x", Outcome::Failed, 0)];
    write(ledger, edition, vec![], vec![settle(1, State::Failed, failed)]);
    let letter = ledger.reader().unwrap().letter(edition, 1).unwrap().unwrap();
    let outcomes: Vec<Outcome> = letter.record.rcpts.iter().map(|rcpt| rcpt.rcpt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Accepted, Outcome::Failed]);
    // Put back, it goes to those who have not got it; and the list is looked at again.
    ledger.requeue(edition, &Requeue { states: &[State::Failed], keys: None, now: 9 }).unwrap();
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.claim(edition, 0, 9).unwrap()[0].settled, ["a@x"]);
    let source = reader.edition(edition).unwrap().unwrap().source;
    assert_eq!((source.hash, source.rows), (None, 1));
}

fn what_a_dead_run_left(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 3);
    write(ledger, edition, vec![mark(1), mark(3)], vec![]);
    assert_eq!(ledger.recover(edition, Unsure::Hold).unwrap(), [(1, "k1".to_owned()), (3, "k3".to_owned())]);
    assert_eq!(counts(ledger, edition), [(State::Pending, 1), (State::Unsure, 2)]);
    assert_eq!(ledger.recover(edition, Unsure::Hold).unwrap(), []);
    // Evidence wins: an unsure letter takes what the server said after all.
    write(ledger, edition, vec![], vec![settle(3, State::Accepted, vec![])]);
    write(ledger, edition, vec![mark(2)], vec![]);
    assert_eq!(ledger.recover(edition, Unsure::Resend).unwrap(), [(2, "k2".to_owned())]);
    let again = &ledger.reader().unwrap().claim(edition, 0, 10).unwrap()[0];
    assert_eq!((again.seq, again.attempts, again.generation, again.date), (2, 1, 0, Some(5_000)));
    assert_eq!(again.first_attempt, Some(5_001));

    ledger.leave(edition, Some(9)).unwrap();
    ledger.recover(edition, Unsure::Hold).unwrap();
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.edition(edition).unwrap().unwrap().left_at, None);
}

fn deferred_letters_do_not_wait_for_a_clock_that_was_wrong(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 4);
    write(ledger, edition, (1..=3).map(mark).collect(), vec![]);
    let at = |seq, due| Settlement { next_attempt: Some(due), ..settle(seq, State::Deferred, vec![]) };
    // The marks are of 5,001.
    write(ledger, edition, vec![], vec![at(1, 5_100), at(2, 9_000_000), at(3, 5_200)]);
    assert_eq!(ledger.bring_forward(edition, 5_001, 8_600).unwrap(), 1);
    let reader = ledger.reader().unwrap();
    let due = |now| {
        let claimed = reader.claim_due(edition, now, 9).unwrap();
        claimed.into_iter().map(|row| (row.seq, row.first_attempt)).collect::<Vec<_>>()
    };
    assert_eq!(due(5_150), [(2, Some(5_001)), (1, Some(5_001))]);
    assert_eq!(ledger.bring_forward(edition, 700, 4_300).unwrap(), 3);
    let mut all = due(700);
    all.sort_unstable();
    assert_eq!(all, [(1, Some(700)), (2, Some(700)), (3, Some(700))]);
}

fn deferred_letters_come_due(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 4);
    write(ledger, edition, (1..=3).map(mark).collect(), vec![]);
    let at = |seq, due| Settlement { next_attempt: Some(due), ..settle(seq, State::Deferred, vec![]) };
    write(ledger, edition, vec![], vec![at(1, 300), at(2, 100), at(3, 200)]);
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.next_due(edition, i64::MIN).unwrap(), Some(100));
    let due = |now, limit| -> Vec<u64> {
        reader.claim_due(edition, now, limit).unwrap().into_iter().map(|claimed| claimed.seq).collect()
    };
    assert_eq!(due(99, 10), [0; 0]);
    assert_eq!(due(250, 10), [2, 3]);
    assert_eq!(due(999, 1), [2]);
    write(ledger, edition, vec![mark(2)], vec![]);
    assert_eq!(due(999, 10), [3, 1]);
    assert_eq!(reader.next_due(edition, i64::MIN).unwrap(), Some(200));
}

fn changes_are_accepted(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 3);
    write(ledger, edition, vec![mark(1), mark(2)], vec![]);
    let late = Settlement { next_attempt: Some(1), ..settle(2, State::Deferred, vec![]) };
    write(ledger, edition, vec![], vec![settle(1, State::Accepted, vec![]), late]);
    let components = [Component { name: "subject".into(), hash: [4; 32], text: Some("Hi".into()) }];
    ledger.accept_changes(edition, [8; 32], &components).unwrap();
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.components(edition).unwrap(), components);
    assert_eq!(reader.edition(edition).unwrap().unwrap().fingerprint, [8; 32]);
    let seen: Vec<_> = reader
        .claim_these(edition, &[1, 2, 3])
        .unwrap()
        .into_iter()
        .map(|claimed| (claimed.seq, claimed.generation, claimed.date))
        .collect();
    assert_eq!(seen, [(1, 0, Some(5_000)), (2, 1, None), (3, 0, None)]);
}

fn flags(ledger: &mut dyn Ledger) {
    let (one, other) = (begin(ledger, "told"), begin(ledger, "not told"));
    assert!(ledger.tell_once(one, "finished").unwrap());
    assert!(!ledger.tell_once(one, "finished").unwrap());
    assert!(ledger.tell_once(one, "stopped").unwrap() && ledger.tell_once(other, "finished").unwrap());
    ledger.untell(one, "finished").unwrap();
    assert!(ledger.tell_once(one, "finished").unwrap() && !ledger.tell_once(one, "stopped").unwrap());
    let flags = |ledger: &dyn Ledger| ledger.reader().unwrap().flags("通知", Purpose::Real).unwrap();
    assert_eq!(flags(ledger), Flags::default());
    ledger.set_flag("通知", Purpose::Real, Flag::Pause, true).unwrap();
    ledger.set_flag("other", Purpose::Real, Flag::Stop, true).unwrap();
    assert_eq!(flags(ledger), Flags { pause: true, stop: false });
    ledger.set_flag("通知", Purpose::Real, Flag::Pause, false).unwrap();
    assert_eq!(flags(ledger), Flags::default());
}

fn editions_do_not_mix(ledger: &mut dyn Ledger) {
    let (first, second) = (enlisted(ledger, 2), begin(ledger, "2026-12"));
    enlist(ledger, second, Dedupe::Refuse, &[row(1, "k1")]);
    write(ledger, second, vec![mark(1)], vec![]);
    let late = Settlement { next_attempt: Some(1), ..settle(1, State::Deferred, vec![]) };
    write(ledger, second, vec![], vec![late]);
    assert_eq!(counts(ledger, first), [(State::Pending, 2)]);
    assert_eq!(counts(ledger, second), [(State::Deferred, 1)]);
    assert_eq!(ledger.reader().unwrap().claim_due(first, 99, 9).unwrap(), []);
    assert_eq!(ledger.recover(first, Unsure::Hold).unwrap(), []);
    assert_eq!(ledger.reader().unwrap().editions("newsletter", Purpose::Real).unwrap().len(), 2);
}

fn letters_are_put_back(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 6);
    write(ledger, edition, (1..=5).map(mark).collect(), vec![]);
    let partly = vec![rcpt("a@x", Outcome::Accepted, 250), rcpt("b@x", Outcome::Refused, 550)];
    write(
        ledger,
        edition,
        vec![],
        vec![
            settle(1, State::Accepted, vec![rcpt("c@x", Outcome::Accepted, 250)]),
            settle(2, State::Refused, partly),
            settle(3, State::Refused, vec![rcpt("d@x", Outcome::Refused, 550)]),
            settle(4, State::Unsure, vec![]),
            Settlement { next_attempt: Some(9_000), ..settle(5, State::Deferred, vec![]) },
            settle(6, State::Failed, vec![]),
        ],
    );
    ledger.finish(edition, 7_000).unwrap();
    let reader = ledger.reader().unwrap();
    let all = [State::Accepted, State::Refused, State::Unsure, State::Deferred, State::Failed];
    let only = ["k6".to_owned(), "k1".to_owned()];
    let nobody: [(State, u64); 0] = [];
    let none = Requeue { states: &[State::Refused], keys: Some(&only), now: 8_000 };
    assert_eq!(ledger.requeue(edition, &none).unwrap(), nobody);
    assert_eq!(reader.edition(edition).unwrap().unwrap().finished_at, Some(7_000));
    let some = Requeue { states: &[State::Failed], keys: Some(&only), now: 8_000 };
    assert_eq!(ledger.requeue(edition, &some).unwrap(), [(State::Failed, 1)]);
    let mut put_back = ledger.requeue(edition, &Requeue { states: &all, keys: None, now: 8_000 }).unwrap();
    put_back.sort();
    assert_eq!(
        put_back,
        [(State::Accepted, 1), (State::Refused, 2), (State::Deferred, 1), (State::Unsure, 1)]
    );
    assert_eq!(reader.edition(edition).unwrap().unwrap().finished_at, None);
    let claimed = reader.claim(edition, 0, 10).unwrap();
    let seen: Vec<_> = claimed
        .iter()
        .map(|c| (c.seq, c.generation, c.date, c.attempts, c.first_attempt, c.settled.join(" ")))
        .collect();
    let as_it_was = |seq, settled: &str| (seq, 0, Some(5_000), 0, None, settled.to_owned());
    let afresh = |seq, generation| (seq, generation, None, 0, None, String::new());
    assert_eq!(
        seen,
        [afresh(1, 1), as_it_was(2, "a@x"), afresh(3, 0), as_it_was(4, ""), as_it_was(5, ""), afresh(6, 0)]
    );
    // What failed, and what is a new letter, goes with the files as they are by then.
    let enclosed: Vec<_> = claimed.iter().map(|c| c.enclosed).collect();
    assert_eq!(enclosed, [None, Some(2), Some(3), Some(4), Some(5), None]);
    let history = reader.letter(edition, 1).unwrap().unwrap().requeued;
    let message_id = Some("<1@example.com>".to_owned());
    assert_eq!(history, [RequeueRecord { at: 8_000, state: State::Accepted, generation: 0, message_id }]);
}

fn who_was_skipped_is_put_back(ledger: &mut dyn Ledger) {
    let edition = enlisted(ledger, 2);
    write(ledger, edition, vec![mark(2)], vec![]);
    let both = vec![rcpt("a@x", Outcome::Unsure, 0), rcpt("b@x", Outcome::Deferred, 450)];
    write(ledger, edition, vec![], vec![settle(2, State::Skipped, both)]);
    enlist(ledger, edition, Dedupe::Refuse, &[]);
    assert_eq!(counts(ledger, edition), [(State::Skipped, 2)]);
    let wish = Requeue { states: &[State::Skipped], keys: None, now: 9 };
    assert_eq!(ledger.requeue(edition, &wish).unwrap(), [(State::Skipped, 2)]);
    let claimed = ledger.reader().unwrap().claim(edition, 0, 9).unwrap();
    // Nobody was asked about who may have got it, and to the other one the same letter goes.
    let tried = (claimed[1].settled.join(" "), claimed[1].date, claimed[1].generation);
    assert_eq!((claimed.len(), tried), (2, ("a@x".to_owned(), Some(5_000), 0)));
}

fn people_are_forgotten(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let with = |number, key, text| Enlist { row: text, ..row(number, key) };
    let list = [
        with(1, "ada@x.org", "[\"Ada@x.org\",\"Ada\"]"),
        with(2, "bob@x.org", "[\"bob@x.org\",\"ada@x.org\"]"),
        with(3, "cy@x.org", "[\"cy@x.org\",\"ada@x.org\"]"),
        with(4, "canada@x.org", "[\"canada@x.org\",\"\"]"),
    ];
    enlist(ledger, edition, Dedupe::Refuse, &list);
    write(ledger, edition, vec![mark(1), mark(2)], vec![]);
    let both = vec![rcpt("bob@x.org", Outcome::Accepted, 250), rcpt("ada@x.org", Outcome::Accepted, 250)];
    write(
        ledger,
        edition,
        vec![],
        vec![
            settle(1, State::Accepted, vec![rcpt("Ada@x.org", Outcome::Accepted, 250)]),
            settle(2, State::Accepted, both),
        ],
    );
    let forgotten = ledger.forget(&"ada@x.org".parse().unwrap()).unwrap();
    assert_eq!(forgotten, Forgotten { deliveries: 1, mentions: 1, open_mentions: 1, ..Default::default() });
    let reader = ledger.reader().unwrap();
    let mut seen = Vec::new();
    reader
        .each(edition, &State::ALL, &mut |record| {
            let addresses: Vec<String> = record.rcpts.iter().map(|rcpt| rcpt.rcpt.address.clone()).collect();
            seen.push((record.key, record.state, addresses.join(" ")));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(seen[0].0.starts_with("forgotten:") && !seen[0].0.contains("da@"), "{seen:?}");
    assert_eq!((seen[0].1, seen[0].2.as_str()), (State::Accepted, "forgotten"));
    assert_eq!(seen[1], ("bob@x.org".into(), State::Accepted, "bob@x.org forgotten".into()));
    assert_eq!(reader.letter(edition, 2).unwrap().unwrap().row, "[\"bob@x.org\",\"forgotten\"]");
    assert_eq!(reader.letter(edition, 4).unwrap().unwrap().row, "[\"canada@x.org\",\"\"]");

    // The list still names her: she is known, and not mailed again. Nor is she requeued.
    let summary = enlist(ledger, edition, Dedupe::Refuse, &list);
    assert_eq!((summary.added, summary.known, summary.removed), (0, 4, 0));
    assert_eq!(keys(ledger, edition), ["cy@x.org", "canada@x.org"]);
    let accepted = Requeue { states: &[State::Accepted], keys: None, now: 1 };
    assert_eq!(ledger.requeue(edition, &accepted).unwrap(), [(State::Accepted, 1)]);
    assert_eq!(
        ledger.forget(&"cy@x.org".parse().unwrap()).unwrap(),
        Forgotten { deliveries: 1, unsent: 1, ..Default::default() }
    );
    assert_eq!(keys(ledger, edition), ["bob@x.org", "canada@x.org"]);

    // Of one who is being written to nobody knows whether it came.
    let edition = begin(ledger, "2026-12");
    enlist(ledger, edition, Dedupe::Refuse, &[with(1, "dan@x.org", "[\"dan@x.org\"]")]);
    write(ledger, edition, vec![mark(1)], vec![]);
    assert_eq!(ledger.forget(&"dan@x.org".parse().unwrap()).unwrap().unsent, 0);
    assert_eq!(counts(ledger, edition), [(State::Unsure, 1)]);

    // However the list writes a local part that is not ASCII, or one in quotes.
    for (key, row, asked) in [
        ("Ärger@x.org", "[\"ÄRGER@x.org\"]", "ärger@x.org"),
        ("cafe\u{301}@x.org", "[\"Cafe\u{301}@x.org\"]", "café@X.org"),
        ("\"a@b\"@x.org", "[\"\\\"a@b\\\"@x.org\"]", "\"A@b\"@x.org"),
        ("7", "[\"\\\"a@b\\\"@x.org\"]", "\"A@b\"@x.org"),
    ] {
        let edition = begin(ledger, &format!("to {key}"));
        enlist(
            ledger,
            edition,
            Dedupe::Refuse,
            &[with(1, key, row), with(2, "bob@x.org", "[\"bob@x.org\"]")],
        );
        let forgotten = ledger.forget(&asked.parse().unwrap()).unwrap();
        assert_eq!((forgotten.deliveries, forgotten.unsent), (1, 1), "{asked}");
        assert_eq!(keys(ledger, edition), ["bob@x.org"]);
    }

    // However the list spells the domain, and whichever way the person does.
    for (open, name, asked) in [(1, "2027-01", "Li@例え.JP"), (2, "2027-02", "li@xn--r8jz45g.jp")] {
        let edition = begin(ledger, name);
        let list = [
            with(1, "1", "[\"李 <li@例え.jp>\"]"),
            with(2, "2", "[\"LI@xn--r8jz45g.jp\"]"),
            with(3, "3", "[\"bob@x.org\",\"li@xn--r8jz45g.jp, li@例え.jp\"]"),
        ];
        enlist(ledger, edition, Dedupe::Refuse, &list);
        let forgotten = ledger.forget(&asked.parse().unwrap()).unwrap();
        let expected = Forgotten { deliveries: 2, unsent: 2, open_mentions: open, ..Default::default() };
        assert_eq!(forgotten, expected, "{asked}");
    }
}

fn old_editions_are_pruned(ledger: &mut dyn Ledger) {
    let old = enlisted(ledger, 3);
    let young = begin(ledger, "2026-12");
    enlist(ledger, young, Dedupe::Refuse, &[row(1, "k1")]);
    assert_eq!(ledger.prune(i64::MAX, 9).unwrap(), Pruned::default(), "unfinished ones stay");
    ledger.finish(old, 7_000).unwrap();
    ledger.finish(young, 8_000).unwrap();
    // Run again each day, it is as old as it was.
    ledger.finish(old, 8_500).unwrap();
    let pruned = ledger.prune(7_500, 9_000).unwrap();
    assert_eq!((pruned.editions, pruned.deliveries), (1, 3));
    assert_eq!(counts(ledger, old), []);
    assert_eq!(counts(ledger, young), [(State::Pending, 1)]);
    let reader = ledger.reader().unwrap();
    let kept = reader.editions("newsletter", Purpose::Real).unwrap();
    assert_eq!(kept.iter().map(|edition| edition.pruned_at).collect::<Vec<_>>(), [Some(9_000), None]);
    assert_eq!(ledger.prune(7_500, 9_000).unwrap(), Pruned::default());
}

fn reports_read_all_of_it(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let at = |number, key, domain| Enlist { domain, ..row(number, key) };
    let skipped = EnlistState::Skipped("suppressed");
    let list = [
        at(1, "a", "x.org"),
        at(2, "b", "x.org"),
        at(3, "c", "y.org"),
        Enlist { state: skipped, ..row(4, "d") },
        at(5, "e", "y.org"),
        Enlist { row: "[]", ..at(6, "a", "z.org") },
    ];
    enlist(ledger, edition, Dedupe::First, &list);
    let file = FileRecord { name: "报告.pdf".into(), size: 12, sha256: [1; 32] };
    let marked = Mark { files: vec![file.clone()], digest: Some([2; 32]), ..mark(2) };
    write(ledger, edition, vec![mark(1), marked, mark(3)], vec![]);
    let two = vec![rcpt("b1@x.org", Outcome::Accepted, 250), rcpt("b2@x.org", Outcome::Refused, 550)];
    write(
        ledger,
        edition,
        vec![],
        vec![
            settle(1, State::Accepted, vec![rcpt("a@x.org", Outcome::Accepted, 250)]),
            settle(2, State::Refused, two.clone()),
            Settlement { next_attempt: Some(9_000), ..settle(3, State::Deferred, vec![]) },
        ],
    );
    let reader = ledger.reader().unwrap();
    let standing = reader.standing(edition).unwrap();
    assert_eq!(standing.counts, reader.counts(edition).unwrap());
    assert_eq!(standing.skipped, [("suppressed".to_owned(), 1)]);
    let domains: Vec<_> =
        standing.domains.iter().map(|(domain, counts)| (domain.as_str(), counts.total())).collect();
    assert_eq!(domains, [("x.org", 2), ("y.org", 2), ("example.org", 1)]);
    assert_eq!((standing.next_due, standing.rejected, standing.repeated), (Some(9_000), 0, 1));

    for states in [&State::ALL[..], &[State::Refused], &[State::Refused, State::Pending]] {
        let mut seen = Vec::new();
        let mut visit = |record: Record| {
            seen.push((record.seq, record.rcpts.into_iter().map(|rcpt| rcpt.rcpt).collect::<Vec<_>>()));
            ControlFlow::Continue(())
        };
        reader.each(edition, states, &mut visit).unwrap();
        let (_, rcpts) = seen.iter().find(|(seq, _)| *seq == 2).unwrap();
        assert_eq!(rcpts, &two);
        assert!(seen.iter().all(|(seq, rcpts)| rcpts.len() == [0, 1, 2, 0, 0, 0][*seq as usize]), "{seen:?}");
    }
    let mut first = Vec::new();
    let mut once = |record: Record| {
        first.push(record.seq);
        ControlFlow::Break(())
    };
    reader.each(edition, &State::ALL, &mut once).unwrap();
    assert_eq!(first, [1]);

    let letter = reader.letter(edition, 2).unwrap().unwrap();
    assert_eq!((letter.files, letter.digest, letter.row.as_str()), (vec![file], Some([2; 32]), "[\"x\"]"));
    assert_eq!(letter.record.message_id.as_deref(), Some("<2@example.com>"));
    assert!(reader.letter(edition, 99).unwrap().is_none());
    let refused = reader.rows_in(edition, &[State::Refused, State::Accepted], 1, 10).unwrap();
    assert_eq!(refused.iter().map(|claimed| claimed.seq).collect::<Vec<_>>(), [2]);
}

fn letters_are_claimed_by_domain(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let at = |number, key, domain| Enlist { domain, ..row(number, key) };
    let list = [
        at(1, "a", "gmail.com"),
        at(2, "b", "example.org"),
        at(3, "c", "mail.example.org"),
        at(4, "d", "gmail.com"),
        at(5, "e", "notexample.org"),
    ];
    enlist(ledger, edition, Dedupe::Refuse, &list);
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    // As many as a job may name.
    let many = |more: &[&str]| (0..2000).map(|n| format!("d{n}.test")).chain(names(more)).collect();
    let reader = ledger.reader().unwrap();
    for (domains, after, limit, expected) in [
        (Domains::Only(many(&["gmail.com"])), 0, 9, vec![1, 4]),
        (Domains::Except(many(&["*.example.org", "gmail.com"])), 0, 9, vec![2, 5]),
        (Domains::Only(names(&["gmail.com"])), 0, 9, vec![1, 4]),
        (Domains::Only(names(&["gmail.com"])), 1, 9, vec![4]),
        (Domains::Only(names(&["*.example.org", "example.org"])), 0, 9, vec![2, 3]),
        (Domains::Except(names(&["*.example.org", "gmail.com"])), 0, 9, vec![2, 5]),
        (Domains::Except(names(&[])), 0, 2, vec![1, 2]),
        (Domains::Only(names(&[])), 0, 9, vec![]),
    ] {
        let claimed = reader.claim_of(edition, &domains, after, limit).unwrap();
        let seqs: Vec<u64> = claimed.into_iter().map(|claimed| claimed.seq).collect();
        assert_eq!(seqs, expected, "after {after}");
    }
}

/// A small random generator (splitmix64), so that a failure comes again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What the ledger should know of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    seq: u64,
    state: State,
    row: u64,
}

/// Lists that change, letters that go, runs that die, people who are put back: after each step the
/// ledger and a map that holds everything agree about everybody.
fn chance_tries_it(ledger: &mut dyn Ledger) {
    let edition = begin(ledger, "2026-11");
    let mut chance = Chance(2026);
    let mut model: BTreeMap<String, Known> = Default::default();
    let mut last = 0;
    for step in 0..120 {
        let of = |model: &BTreeMap<String, Known>, states: &[State]| -> Vec<String> {
            let wanted = model.iter().filter(|(_, known)| states.contains(&known.state));
            wanted.map(|(key, _)| key.clone()).collect()
        };
        // The first step is a list; before it there is nothing to send.
        match if step == 0 { 0 } else { chance.below(8) } {
            0 => {
                let rows: Vec<(String, u64)> =
                    (0..40).map(|_| (format!("k{}", chance.below(60)), chance.below(3))).collect();
                let texts: Vec<String> = rows.iter().map(|(_, row)| format!("[{row}]")).collect();
                let list: Vec<Enlist<'_>> = (1..)
                    .zip(rows.iter().zip(&texts))
                    .map(|(number, ((key, _), text))| Enlist { row: text, ..row(number, key) })
                    .collect();
                enlist(ledger, edition, Dedupe::First, &list);
                let first = step == 0;
                let mut named = BTreeSet::new();
                for (place, (key, text)) in (1..).zip(&rows) {
                    if !named.insert(key.clone()) {
                        continue;
                    }
                    match model.get_mut(key) {
                        None => {
                            last = if first { place } else { last + 1 };
                            model.insert(key.clone(), Known { seq: last, state: State::Pending, row: *text });
                        }
                        Some(known) if known.state == State::Skipped => known.state = State::Pending,
                        Some(_) => {}
                    }
                }
                for (_, known) in model.iter_mut().filter(|(key, _)| !named.contains(*key)) {
                    if matches!(known.state, State::Pending | State::Deferred) {
                        known.state = State::Skipped;
                    }
                }
            }
            1 => {
                let policy = if chance.below(2) == 0 { Unsure::Hold } else { Unsure::Resend };
                let left = ledger.recover(edition, policy).unwrap();
                let sending = of(&model, &[State::Sending]);
                let mut keys: Vec<String> = left.into_iter().map(|(_, key)| key).collect();
                keys.sort();
                assert_eq!(keys, sending, "step {step}");
                for key in sending {
                    let state = if policy == Unsure::Hold { State::Unsure } else { State::Pending };
                    model.entry(key).and_modify(|known| known.state = state);
                }
            }
            2 => {
                let states = [State::Accepted, State::Refused, State::Unsure, State::Deferred, State::Failed];
                let chosen = states[chance.below(5) as usize];
                ledger.requeue(edition, &Requeue { states: &[chosen], keys: None, now: step }).unwrap();
                for key in of(&model, &[chosen]) {
                    model.entry(key).and_modify(|known| known.state = State::Pending);
                }
            }
            _ => {
                let mut marks = Vec::new();
                let mut settlements = Vec::new();
                let ends = [
                    State::Accepted,
                    State::Refused,
                    State::Deferred,
                    State::Unsure,
                    State::Failed,
                    State::Pending,
                ];
                for key in of(&model, &[State::Pending, State::Deferred]) {
                    if chance.below(3) == 0 {
                        marks.push(mark(model[&key].seq));
                        model.entry(key).and_modify(|known| known.state = State::Sending);
                    }
                }
                let marked: Vec<u64> = marks.iter().map(|mark| mark.seq).collect();
                for key in of(&model, &[State::Sending]) {
                    let seq = model[&key].seq;
                    if !marked.contains(&seq) && chance.below(2) == 0 {
                        let state = ends[chance.below(6) as usize];
                        let due = (state == State::Deferred).then_some(step);
                        settlements.push(Settlement { next_attempt: due, ..settle(seq, state, vec![]) });
                        model.entry(key).and_modify(|known| known.state = state);
                    }
                }
                write(ledger, edition, marks, settlements);
            }
        }
        let reader = ledger.reader().unwrap();
        let mut found = BTreeMap::new();
        for claimed in reader.rows_in(edition, &State::ALL, 0, 1000).unwrap() {
            found.insert(claimed.key, (claimed.seq, claimed.row));
        }
        let mut states = BTreeMap::new();
        let mut visit = |record: Record| {
            states.insert(record.key, record.state);
            ControlFlow::Continue(())
        };
        reader.each(edition, &State::ALL, &mut visit).unwrap();
        for (key, known) in &model {
            assert_eq!(
                found.get(key),
                Some(&(known.seq, format!("[{}]", known.row))),
                "{key} in step {step}"
            );
            assert_eq!(states.get(key), Some(&known.state), "{key} in step {step}");
        }
        assert_eq!((found.len(), states.len()), (model.len(), model.len()), "step {step}");
        let pending = reader.claim(edition, 0, 1000).unwrap();
        let mut pending: Vec<String> = pending.into_iter().map(|claimed| claimed.key).collect();
        pending.sort();
        assert_eq!(pending, of(&model, &[State::Pending]), "step {step}");
        let due = reader.claim_due(edition, 1000, 1000).unwrap();
        assert_eq!(due.len(), of(&model, &[State::Deferred]).len(), "step {step}");
    }
}
