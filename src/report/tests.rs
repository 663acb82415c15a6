//! Reports over a small ledger with one of everything.

use serde_json::Value as Json;

use crate::job::Dedupe;
use crate::ledger::{
    Edition, EditionId, Enlist, EnlistState, Enlisting, Group, Ledger, Mark, NewEdition, Reader, Settlement,
    SourceRecord, Sqlite, State,
};
use crate::letter::{Answer, Enhanced, FileRecord, Outcome, Purpose, RcptOutcome};

use super::*;

struct House {
    _folder: tempfile::TempDir,
    ledger: Sqlite,
    edition: EditionId,
    enlisting: Enlisting,
}

impl House {
    fn reader(&self) -> Box<dyn Reader> {
        self.ledger.reader().unwrap()
    }

    fn edition(&self) -> Edition {
        self.reader().edition(self.edition).unwrap().unwrap()
    }

    fn table(&self, view: View<'_>) -> String {
        let mut out = Vec::new();
        let reader = self.reader();
        let standing = reader.standing(self.edition).unwrap();
        table(&mut out, &*reader, &self.edition(), &standing, &view).unwrap();
        String::from_utf8(out).unwrap()
    }
}

fn rcpt(address: &str, outcome: Outcome, code: u16, text: &str) -> RcptOutcome {
    let enhanced = Some(Enhanced { class: (code / 100) as u8, subject: 1, detail: 1 });
    RcptOutcome { address: address.into(), outcome, answer: Answer { code, enhanced, text: text.into() } }
}

fn house() -> House {
    house_with("example.org")
}

/// A ledger with one of each outcome, most of them at this domain.
fn house_with(domain: &str) -> House {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Sqlite::open(&folder.path().join("ledger.db")).unwrap();
    let edition = ledger
        .begin(&NewEdition {
            job: "通知",
            name: "2026-11",
            purpose: Purpose::Real,
            fingerprint: [0; 32],
            components: &[],
            timezone: "UTC",
            now: 1_795_400_000,
        })
        .unwrap();
    let columns = ["email".to_owned(), "姓名".to_owned()];
    let mut enlister = ledger.enlist(edition, Some(&columns), Dedupe::First).unwrap();
    let at = |number, key, domain| Enlist {
        number,
        key,
        domain,
        row: "[\"wei@例子.中国\",\"张伟\"]",
        state: EnlistState::Pending,
        enclosed: None,
    };
    enlister
        .add(&[
            at(1, "wei@例子.中国", "例子.中国"),
            at(2, "bob@example.org", domain),
            at(3, "cy@example.org", "example.org"),
            at(4, "dee@example.org", "example.org"),
            at(5, "eve@example.org", "example.org"),
            Enlist { state: EnlistState::Failed("`to`: no address"), ..at(6, "fay", "") },
            Enlist { state: EnlistState::Skipped("suppressed"), ..at(7, "gil@example.org", "example.org") },
            Enlist { row: "[]", ..at(8, "bob@example.org", "example.org") },
        ])
        .unwrap();
    enlister.reject(9, None, "the row has no key").unwrap();
    let enlisting = enlister
        .finish(SourceRecord { rows: 9, filtered: 2, ..SourceRecord::default() }, 1_795_400_100)
        .unwrap();
    let mark = |seq| Mark {
        seq,
        date: 1_795_400_200,
        at: 1_795_400_200,
        message_id: format!("<{seq}@example.com>"),
        files: vec![FileRecord { name: "报告.pdf".into(), size: 1_400_000, sha256: [171; 32] }],
        digest: None,
    };
    ledger.write(edition, &Group { marks: (1..=4).map(mark).collect(), settlements: vec![] }).unwrap();
    let settle = |seq, state, rcpts| Settlement {
        seq,
        state,
        next_attempt: (state == State::Deferred).then_some(1_795_400_900),
        at: 1_795_400_300,
        reason: (state == State::Unsure).then(|| "the connection was lost".to_owned()),
        rcpts,
    };
    let evil = "no \u{1b}[2Jsuch\u{202e} user";
    let settlements = vec![
        settle(1, State::Accepted, vec![rcpt("wei@例子.中国", Outcome::Accepted, 250, "queued")]),
        settle(
            2,
            State::Refused,
            vec![
                rcpt("bob@example.org", Outcome::Accepted, 250, "queued"),
                rcpt("boss@example.org", Outcome::Refused, 550, evil),
            ],
        ),
        settle(3, State::Deferred, vec![rcpt("cy@example.org", Outcome::Deferred, 451, "later")]),
        settle(4, State::Unsure, vec![]),
    ];
    ledger.write(edition, &Group { marks: vec![], settlements }).unwrap();
    House { _folder: folder, ledger, edition, enlisting }
}

const VIEW: View<'_> =
    View {
        only: None, some: 10, domains: true, enlisting: None, command: "postroom report jobs/通知.yaml"
    };

/// The page of the small ledger, with the outcomes `only`.
fn page_of(house: &House, only: Option<&[State]>) -> String {
    let mut out = Vec::new();
    page(&mut out, &*house.reader(), &house.edition(), only, "postroom report jobs/通知.yaml", 1_795_400_400)
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_page_names_the_trouble_and_loads_nothing() {
    let house = house();
    let page = page_of(&house, None);
    for shown in [
        "<bdi>通知</bdi> · edition <bdi>2026-11</bdi>",
        "as of 2026-11-23 02:20",
        "<bdi>bob@example.org</bdi>",
        "boss@example.org: 550 5.1.1 no \u{fffd}[2Jsuch\u{fffd} user",
        "<bdi>the connection was lost</bdi>",
        "tried once, next 2026-11-23 02:28",
        "suppressed 1",
        "further rows: 1 rejected, 2 filtered, 1 passed over",
        "<bdi>the row has no key</bdi>",
        "<bdi>例子.中国</bdi>",
    ] {
        assert!(page.contains(shown), "{shown}\n{page}");
    }
    assert!(!page.contains("<bdi>wei@例子.中国</bdi>"), "who has his letter needs no look");
    for loads in ["http:", "https:", "src=", "href=", "url(", "<script"] {
        assert!(!page.contains(loads), "{loads}");
    }
    let outcomes = |word: &str| {
        page.find(&format!(
            r#"class="outcome" style="--colour:var(--{word})">{word}</td><td class="number">1"#
        ))
    };
    assert!(outcomes("accepted") < outcomes("refused"), "in the order in which outcomes are told");
}

#[test]
fn a_page_shows_those_asked_for_alone() {
    let page = page_of(&house(), Some(&[State::Accepted]));
    assert!(page.contains("Those asked for") && page.contains("<bdi>wei@例子.中国</bdi>"), "{page}");
    assert!(!page.contains("<bdi>bob@example.org</bdi>"), "{page}");
}

#[test]
fn what_a_list_holds_is_never_markup_of_a_page() {
    let mut house = house();
    let enlisted = house.ledger.begin(&NewEdition {
        job: "<b>job</b>",
        name: "\"><script>",
        purpose: Purpose::Sandbox,
        fingerprint: [0; 32],
        components: &[],
        timezone: "UTC",
        now: 1_795_400_000,
    });
    house.edition = enlisted.unwrap();
    let mut enlister = house.ledger.enlist(house.edition, None, Dedupe::First).unwrap();
    enlister
        .add(&[Enlist {
            number: 1,
            key: "<img src=x onerror=alert(1)>",
            domain: "a&b",
            row: "{}",
            state: EnlistState::Failed("<i>bad</i>"),
            enclosed: None,
        }])
        .unwrap();
    enlister.reject(2, Some("</table>"), "<u>no</u>").unwrap();
    enlister.finish(SourceRecord { rows: 2, ..SourceRecord::default() }, 1_795_400_100).unwrap();
    let page = page_of(&house, None);
    for markup in ["<b>", "<script", "<img", "<i>", "</table></td>", "<u>"] {
        assert!(!page.contains(markup), "{markup}\n{page}");
    }
    assert!(page.contains("trial (sandbox)") && page.contains("&lt;i&gt;bad"), "{page}");
}

#[test]
fn the_table_tells_people_what_became_of_everyone() {
    let expected = "\
通知 · edition 2026-11 · begun 2026-11-23 02:13, not finished

  accepted        1
  refused         1
  failed          1
  unsure          1
  deferred        1   next 2026-11-23 02:28
  pending         1
  skipped         1   suppressed 1
  total           7   further rows: 1 rejected, 2 filtered, 1 passed over for an earlier row with their key

by domain           total   accepted    refused     failed     unsure   deferred    pending    skipped
  example.org           5          ·          1          ·          1          1          1          1
  (none)                1          ·          ·          1          ·          ·          ·          ·
  例子.中国             1          1          ·          ·          ·          ·          ·          ·

to look at
  unsure        row 4  dee@example.org               the connection was lost
  refused       row 2  bob@example.org               boss@example.org: 550 5.1.1 no \u{fffd}[2Jsuch\u{fffd} user
  failed        row 6  fay                           `to`: no address
  deferred      row 3  cy@example.org                451 4.1.1 later; tried once, next 2026-11-23 02:28

rows that got no letter
      row 8  bob@example.org: an earlier row has this key
      row 9  the row has no key
";
    let shown = house().table(VIEW);
    assert_eq!(shown, expected, "\n{shown}");
}

#[test]
fn a_long_domain_leaves_the_numbers_in_eighty_columns() {
    let house = house_with("a-very-long-name-of-a-company-and-its-country.example.org");
    let shown = house.table(VIEW);
    let line = shown.lines().find(|line| line.starts_with("  a-very-long")).expect("its line");
    assert!(line.starts_with("  a-very-long-name-of-a-c…  "), "{line}");
}

#[test]
fn long_lists_are_cut_and_say_where_the_rest_is() {
    let house = house();
    let removed_keys = vec!["old@example.org".to_owned(), "older@example.org".to_owned()];
    let enlisting = Enlisting { removed: 1_235, removed_keys, changed: 1, ..house.enlisting.clone() };
    let shown = house.table(View { some: 1, domains: false, enlisting: Some(&enlisting), ..VIEW });
    for expected in [
        "1 row of the list is another by now",
        "gone from the list, and skipped\n  old@example.org\n",
        "… and 1,234 more: postroom report jobs/通知.yaml --outcome skipped",
        "… and 1 more: postroom report jobs/通知.yaml --format json",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    assert!(!shown.contains("by domain") && !shown.contains("older@"), "{shown}");

    let only = house.table(View { only: Some(&[State::Refused, State::Pending]), some: 0, ..VIEW });
    let named: Vec<&str> = only.lines().filter(|line| line.contains('@')).collect();
    assert_eq!(named.len(), 2, "{only}");
    assert!(named[0].contains("bob@example.org") && named[1].contains("eve@example.org"), "{only}");
}

#[test]
fn json_is_one_document_and_csv_a_line_for_each_address() {
    let house = house();
    let mut out = Vec::new();
    json(&mut out, house.reader().as_ref(), &house.edition(), &State::ALL).unwrap();
    let document: Json = serde_json::from_slice(&out).unwrap();
    for (place, expected) in [
        ("/job", Json::from("通知")),
        ("/begun", "2026-11-23T02:13:20+00:00".into()),
        ("/finished_at", Json::Null),
        ("/counts/accepted", 1.into()),
        ("/counts/total", 7.into()),
        ("/skipped/suppressed", 1.into()),
        ("/rows/filtered", 2.into()),
        ("/domains/0/domain", "example.org".into()),
        ("/rejects/1/reason", "the row has no key".into()),
        ("/recipients/1/addresses/1/enhanced", "5.1.1".into()),
        ("/recipients/1/addresses/1/text", "no \u{1b}[2Jsuch\u{202e} user".into()),
        ("/recipients/3/reason", "the connection was lost".into()),
    ] {
        assert_eq!(document.pointer(place), Some(&expected), "{place}");
    }

    let mut out = Vec::new();
    csv(&mut out, house.reader().as_ref(), &house.edition(), &[State::Refused, State::Skipped]).unwrap();
    let mut lines = ::csv::Reader::from_reader(out.as_slice());
    let lines: Vec<Vec<String>> =
        lines.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1][..4], ["2", "bob@example.org", "refused", "1"]);
    assert_eq!(lines[1][6..9], ["boss@example.org", "refused", "550"]);
    assert_eq!(lines[2][..5], ["7", "gil@example.org", "skipped", "0", "suppressed"]);
}

#[test]
fn a_reader_that_goes_away_ends_each_form_quietly() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let house = house();
    let (reader, edition) = (house.reader(), house.edition());
    let ends = [
        csv(&mut Closed, reader.as_ref(), &edition, &State::ALL),
        json(&mut Closed, reader.as_ref(), &edition, &State::ALL),
    ];
    for end in ends {
        assert!(end.unwrap_err().is_closed_pipe());
    }
}

#[test]
fn a_letter_is_told_whole() {
    let house = house();
    let record = house.reader().letter(house.edition, 1).unwrap().unwrap();
    let mut out = Vec::new();
    letter(&mut out, &house.edition(), &record, None).unwrap();
    let shown = String::from_utf8(out).unwrap();
    let mut out = Vec::new();
    letter_json(&mut out, &house.edition(), &record, None).unwrap();
    let document: Json = serde_json::from_slice(&out).unwrap();
    for (place, expected) in [
        ("/outcome", "accepted".into()),
        ("/message_id", "<1@example.com>".into()),
        ("/files/0/name", "报告.pdf".into()),
        ("/files/0/sha256", "ab".repeat(32).into()),
        ("/addresses/0/code", 250.into()),
        ("/columns/1", "姓名".into()),
        ("/values/1", Json::from("张伟")),
        ("/date", "2026-11-23T02:16:40+00:00".into()),
    ] {
        assert_eq!(document.pointer(place), Some(&expected), "{place}");
    }
    for expected in [
        "wei@例子.中国 · 通知 · edition 2026-11\n  outcome     accepted\n",
        "  Message-ID  <1@example.com>\n",
        "  Date        Mon, 23 Nov 2026 02:16:40 +0000\n",
        "  accepted  wei@例子.中国  2026-11-23 02:18  250 2.1.1 queued\n",
        "  报告.pdf  1.4 MB  sha256 abababab",
        "  姓名   张伟\n",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
}
