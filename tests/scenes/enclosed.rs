//! Files that belong to one recipient: what was enlisted is what is sent, or nothing is.

use std::fs;

use postroom::exit::Exit;

use crate::scene::{SHORT, Scene, ledger_says, letters_in, numbered};

/// A file for each, found by a value of the row.
fn with_reports() -> String {
    SHORT.replace("kind: send", "kind: send\nattachments: [\"reports/{{ email }}*.txt\"]")
}

#[test]
fn a_file_that_changes_after_enlisting_stops_that_letter_until_it_is_put_back() {
    // The relay holds u0, u1 and u2 back, so that their files can change before they are tried again.
    let mut scene = Scene::new()
        .relay(
            ["u0", "u1", "u2"].map(|name| format!("--fault=rcpt if={name}@* first=1 reply 450 4.2.1 later")),
        )
        .job(&with_reports().replace("stay: 60s", "stay: 0s"))
        .recipients(&numbered(4));
    for n in 0..4 {
        scene = scene.file(&format!("reports/u{n}@example.org.txt"), &format!("figures of {n}\n"));
    }
    scene.send().exit(Exit::Again);
    assert_eq!(scene.its_relay().letters().len(), 1, "u3 has got its letter");

    // The job is touched as well, so that the list is taken in again: what was frozen stays.
    // u0: another content; u1: another file of the same content; u3 is accepted and not asked again.
    let scene = scene
        .job(&with_reports())
        .file("reports/u0@example.org.txt", "other figures of 0\n")
        .file("reports/u1.new", "figures of 1\n")
        .file("reports/u3@example.org.txt", "too late\n");
    fs::rename(scene.path("reports/u1.new"), scene.path("reports/u1@example.org.txt")).expect("renamed");
    scene.send().exit(Exit::SomeFailed).says(&[
        "reports/u0@example.org.txt` was changed after",
        "reports/u1@example.org.txt` was changed after",
        "postroom requeue",
    ]);
    let said = ledger_says(&scene);
    let outcomes: Vec<&str> = (0..4).map(|n| said[&format!("u{n}@example.org")].as_str()).collect();
    assert_eq!(outcomes, ["failed", "failed", "accepted", "accepted"]);
    assert_eq!(scene.its_relay().letters().len(), 2);

    scene.run("requeue --yes --only u0@example.org job.yaml").exit(Exit::Done);
    scene.send().exit(Exit::SomeFailed);
    let received = scene.its_relay().received();
    assert_eq!(received.get("u0@example.org"), Some(&1));
    assert_eq!(received.get("u1@example.org"), None, "it was not put back");
}

#[test]
fn a_file_that_comes_after_enlisting_goes_to_nobody_before_the_list_is_looked_at_again() {
    // `1-10.txt` is found for both, but whoever is tried first would not know of the other.
    let job = SHORT
        .replace("kind: send", "kind: send\nattachments: [{files: \"f/{{ name }}*.txt\", expect: \"0..\"}]");
    let scene = Scene::new()
        .relay(["--fault=rcpt first=2 reply 450 4.2.1 later"])
        .job(&job.replace("stay: 60s", "stay: 0s"))
        .recipients("email,name\na@x.example,1\nb@x.example,1-10\n");
    scene.send().exit(Exit::Again);
    let scene = scene.file("f/1-10.txt", "of b alone\n");
    let deferred = || ledger_says(&scene).values().filter(|state| *state == "deferred").count();
    while deferred() > 0 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        scene.send();
    }
    assert!(scene.its_relay().letters().is_empty());
    let words = "f/1-10.txt` was not there when the recipients were enlisted";
    scene.run("report job.yaml").says(&[words]);
    // Looked at again, it is found for two.
    scene.run("requeue --yes --outcome failed job.yaml").exit(Exit::Done);
    scene.send().exit(Exit::SomeFailed).says(&["found for another recipient"]);
    assert!(scene.its_relay().letters().is_empty());
}

const ANNS: &str = "name,email\nBob,bob@example.org\nAnn,ann@example.org\nAnn Smith,smith@example.org\n";

/// A job whose list of these recipients comes from standard input.
fn piped(recipients: &str, files: &str) -> String {
    SHORT
        .replace("{file: list.csv}", &format!("{{file: \"-\", format: csv{recipients}}}"))
        .replace("kind: send", &format!("kind: send\nattachments: [{files}]"))
}

/// Bob has a file when the list is sent; a file of Ann Smith comes later, and who failed is put back.
fn a_file_comes_later(job: &str) -> Scene {
    let scene = Scene::new().relay([] as [&str; 0]).job(job).file("f/Bob.txt", "of Bob\n");
    scene.send_piped(ANNS).exit(Exit::SomeFailed).says(&["no file matches"]);
    let scene = scene.file("f/Ann Smith.txt", "of Ann Smith\n");
    scene.run("requeue --yes --outcome failed job.yaml").exit(Exit::Done);
    scene
}

#[test]
fn a_file_of_two_goes_to_nobody_who_is_put_back_on_a_list_that_is_not_read_again() {
    // What comes is found for both Anns, and Ann's letter is made first.
    let scene = a_file_comes_later(&piped("", "\"f/{{ name }}*.txt\""));
    scene.send().exit(Exit::SomeFailed).says(&["Ann Smith.txt` was found for another recipient too"]);
    let received = scene.its_relay().received();
    assert_eq!(received.keys().collect::<Vec<_>>(), ["bob@example.org"]);

    // Where it is but one's, it goes to them.
    let scene = scene.file("f/Ann.txt", "of Ann\n");
    fs::rename(scene.path("f/Ann Smith.txt"), scene.path("f/Smith.txt")).expect("renamed");
    scene.run("requeue --yes --outcome failed job.yaml").exit(Exit::Done);
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(scene.its_relay().received().get("ann@example.org"), Some(&1));
}

/// Rows of such a list that get no letter are in no ledger: their files cannot be told from another's.
#[test]
fn a_file_that_a_row_without_a_letter_may_have_waits_for_a_list_that_can_be_read() {
    let job = |files: &str| piped(", where: 'name != \"Ann Smith\"'", files);
    let wild = job("\"f/{{ name }}*.txt\"");
    let scene = a_file_comes_later(&wild);
    scene.send().exit(Exit::SomeFailed).says(&["Ann Smith.txt` may belong to a row that got no letter"]);

    // By its whole name, or where it is meant for both, it is no other's.
    for (files, ends) in [
        ("\"f/{{ name }} Smith.txt\"", Exit::SomeFailed),
        ("{files: \"f/{{ name }}*.txt\", shared: true}", Exit::Done),
    ] {
        let other = a_file_comes_later(&job(files));
        other.send().exit(ends);
        assert_eq!(other.its_relay().received().get("ann@example.org"), Some(&1), "{files}");
    }

    let scene = scene.recipients(ANNS).job(&wild.replace("file: \"-\"", "file: list.csv"));
    scene.run("requeue --yes --outcome failed job.yaml").exit(Exit::Done);
    scene.send().exit(Exit::SomeFailed).says(&["found for another row, which `where` leaves out"]);
    assert_eq!(scene.its_relay().received().keys().collect::<Vec<_>>(), ["bob@example.org"]);
}

#[test]
fn other_patterns_are_other_files_and_not_files_that_changed() {
    for before in ["all.txt", "\"a/{{ email }}.txt\""] {
        let job = |files: &str| SHORT.replace("kind: send", &format!("kind: send\nattachments: [{files}]"));
        let mut scene = Scene::new()
            .relay([] as [&str; 0])
            .job(&job(before))
            .recipients(&numbered(3))
            .file("all.txt", "for all\n");
        for n in 0..3 {
            scene = scene
                .file(&format!("a/u{n}@example.org.txt"), "a\n")
                .file(&format!("b/u{n}@example.org.txt"), "b\n");
        }
        scene.run("run --yes --limit 1 job.yaml").exit(Exit::Done);
        let scene = scene.job(&job("\"b/{{ email }}.txt\""));
        scene.run("run --yes --limit 1 --accept-changes job.yaml").exit(Exit::Done);
        // What was taken in with the new pattern is kept to.
        let scene = scene.file("b/u2@example.org.txt", "other\n");
        scene.send().exit(Exit::SomeFailed).says(&["b/u2@example.org.txt` was changed after"]);
        assert_eq!(scene.its_relay().letters().len(), 2, "{before}");
    }
}

#[test]
fn a_file_that_two_patterns_find_is_enclosed_once() {
    let files = "attachments: [f/*.txt, f/1.txt, {files: f/1.txt, as: other.txt}]";
    let job = SHORT.replace("kind: send", &format!("kind: send\n{files}\nkeep: sent/"));
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(1));
    let scene = scene.file("f/1.txt", "one").file("f/2.txt", "two");
    scene.send().exit(Exit::Done);
    let letter = fs::read_to_string(&letters_in(&scene.path("sent"))[0]).expect("a letter");
    for (name, times) in [("1.txt", 1), ("2.txt", 1), ("other.txt", 1)] {
        assert_eq!(letter.matches(&format!("filename=\"{name}\"")).count(), times, "{letter}");
    }
}

#[test]
fn check_counts_as_the_run_does() {
    // Two find one file: neither gets it. A row that comes again is no letter and weighs nothing.
    let job = SHORT.replace("kind: send", "kind: send\nattachments: [\"f/{{ id }}.txt\"]");
    let job = job.replace("{file: list.csv}", "{file: list.csv, key: \"{{ email }}\"}");
    let rows = "email,name,id\na@x.example,A,1\nb@x.example,B,1\nc@y.example,C,2\nc@y.example,C,2\n";
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(rows);
    let scene = scene.file("f/1.txt", "one").file("f/2.txt", "two");
    let run = scene.run("check --json job.yaml").exit(Exit::SomeFailed);
    let plan: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    for (what, number) in [("rows", 4), ("letters", 1), ("bad", 2), ("duplicates", 1), ("files", 1)] {
        assert_eq!(plan[what], number, "{what}: {plan}");
    }
    assert_eq!(plan["domains"], serde_json::json!({"y.example": 1}));
    assert_eq!(plan["bytes"], plan["largest"]);
    let reason = plan["bad_rows"][0]["reason"].as_str().expect("a reason");
    assert_eq!(reason.matches("another recipient").count(), 1, "{reason}");
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["c@y.example"]);
}

#[test]
fn the_file_of_a_row_that_gets_no_letter_is_not_another_rows() {
    // Bad address; suppressed; one of two patterns finds nothing; a bad name for the file.
    let rows = "email,key,id,other,name\n\
                a@@x.example,a,1,1,n\nb@x.example,b,1,1,n\n\
                c@x.example,c,2,2,n\nd@x.example,d,2,2,n\n\
                e@x.example,e,9,3,n\nf@x.example,f,3,3,n\n\
                g@x.example,g,4,4,a/b\nh@x.example,h,4,4,n\n\
                i@x.example,i,5,5,n\n";
    let attachments = "attachments: [\"f/{{ id }}.txt\", {files: \"g/{{ other }}.txt\", as: \"{{ name }}\"}]";
    let job = SHORT.replace("kind: send", &format!("kind: send\n{attachments}"));
    let job = job.replace("{file: list.csv}", "{file: list.csv, key: \"{{ key }}\", suppress: out.txt}");
    let mut scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(rows);
    for n in 1..=5 {
        scene = scene.file(&format!("f/{n}.txt"), "f").file(&format!("g/{n}.txt"), "g");
    }
    let scene = scene.file("out.txt", "c@x.example\n");
    scene.send().exit(Exit::SomeFailed);
    assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["i@x.example"]);
}

#[test]
fn the_file_of_a_row_that_is_left_out_is_not_another_rows() {
    // Of Ann Smith's file nobody can tell that it is not Ann's, were she not on the list; those of one firm
    // ask for the same, and one of them gets it.
    let rows = "email,name,firm,active\n\
                ann@x.example,Ann,A,yes\nsmith@x.example,Ann Smith,B,no\n\
                bob@x.example,Bob,Acme,yes\neve@x.example,Eve,Acme,no\n";
    for order in [[0, 1, 2, 3], [3, 1, 2, 0]] {
        let lines: Vec<&str> = rows.lines().collect();
        let rows = order.iter().fold(format!("{}\n", lines[0]), |all, n| all + lines[1 + n] + "\n");
        let job = SHORT
            .replace("kind: send", "kind: send\nattachments: [\"f/{{ name }}*\", \"g/{{ firm }}*\"]")
            .replace("{file: list.csv}", "{file: list.csv, columns: {active: bool}, where: active}");
        let mut scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&rows);
        for name in
            ["f/Ann.txt", "f/Ann Smith.txt", "f/Bob.txt", "f/Eve.txt", "g/A.txt", "g/B.txt", "g/Acme.txt"]
        {
            scene = scene.file(name, name);
        }
        scene.send().exit(Exit::SomeFailed).says(&["f/Ann Smith.txt` was found for another row"]);
        assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["bob@x.example"]);
    }
}

#[test]
fn a_letter_has_the_pictures_it_shows_and_no_other() {
    let html = "<p>{% if vip %}<img src=\"cid:vip\"><img src=\"v.png\">{% endif %}<img src=\"p/{{ id }}.png?v=1\">\
                {% if odd %}<img src=\"cid:{{ odd }}\">{% endif %}</p>";
    let job = SHORT
        .replace("{file: list.csv}", "{file: list.csv, columns: {vip: bool}}")
        .replace("body: {text: ", "body: {html: page.html, text: ")
        .replace("kind: send", "kind: send\nimages: {vip: vip.png, card: \"c/{{ id }}.png\"}");
    let rows = "email,name,id,vip,odd\na@x.example,A,1,yes,\nb@x.example,B,2,no,\nc@x.example,C,3,no,card\n\
                d@x.example,D,3,no,nope\n";
    let mut scene =
        Scene::new().relay([] as [&str; 0]).job(&job).recipients(rows).file("templates/page.html", html);
    for name in ["vip", "v", "p/1", "p/2", "p/3", "p/1.pngXv=1", "c/1", "c/2", "c/3"] {
        scene = scene.bytes(&format!("{name}.png"), b"\x89PNG\r\n\x1a\n");
    }
    let run = scene.run("run --sandbox job.yaml").exit(Exit::SomeFailed);
    run.says(&["cid:nope"]);
    let pictures = |whose: &str| {
        let outbox = fs::read_dir(scene.path("outbox/short")).expect("an outbox").flatten();
        let mut letters = outbox.filter(|file| file.file_name().to_string_lossy().contains(whose));
        let letter = fs::read_to_string(letters.next().expect("its letter").path()).expect("read");
        letter.matches("Content-ID:").count()
    };
    assert_eq!(["a@x.example", "b@x.example", "c@x.example"].map(pictures), [3, 1, 2]);
}

#[test]
fn a_picture_of_a_row_is_sent_as_it_was_enlisted() {
    let job = SHORT
        .replace("body: {text: ", "body: {html: {inline: '<img src=\"cid:card\">'}, text: ")
        .replace("kind: send", "kind: send\nimages: {card: \"c/{{ email }}.png\"}");
    let mut scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(2));
    for n in 0..2 {
        scene = scene.bytes(&format!("c/u{n}@example.org.png"), b"\x89PNG\r\n\x1a\n");
    }
    scene.run("run --yes --limit 1 job.yaml").exit(Exit::Done);
    let scene = scene.bytes("c/u1@example.org.png", b"\x89PNG\r\n\x1a\nanother");
    scene.send().exit(Exit::SomeFailed).says(&["c/u1@example.org.png` was changed after"]);
    assert_eq!(scene.its_relay().received().into_keys().collect::<Vec<_>>(), ["u0@example.org"]);
}

#[test]
fn a_picture_that_a_wildcard_finds_for_another_value_is_nobodys() {
    // 12-3 has a picture, 12 has none; 7 is that of two; 8-1 is left out.
    let job = SHORT
        .replace("body: {text: ", "body: {html: {inline: '<img src=\"cid:card\">'}, text: ")
        .replace("{file: list.csv}", "{file: list.csv, where: 'name != \"no\"'}")
        .replace("kind: send", "kind: send\nimages: {card: \"c/{{ id }}-*.png\"}");
    let rows = "email,name,id\na@x.example,A,12\nb@x.example,B,12-3\nc@x.example,C,7\nd@x.example,D,7\n\
                e@x.example,E,8\nf@x.example,no,8-1\n";
    let mut scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(rows);
    for name in ["c/12-3-x.png", "c/7-x.png", "c/8-1-x.png"] {
        scene = scene.bytes(name, b"\x89PNG\r\n\x1a\n");
    }
    scene
        .send()
        .exit(Exit::SomeFailed)
        .says(&["c/12-3-x.png` was found for another recipient too, by another value"]);
    let received: Vec<String> = scene.its_relay().received().into_keys().collect();
    assert_eq!(received, ["c@x.example", "d@x.example"]);
}

#[test]
fn pictures_have_names_in_any_script_and_those_that_are_missing_are_told() {
    let job = |html: &str| {
        SHORT
            .replace("body: {text: ", "body: {text: {inline: x}, html: {inline: '@HTML@'}, _: ")
            .replace(", _: {inline: \"Dear {{ name }},\\nall is well.\\n\"}}", "}")
            .replace("@HTML@", html)
            .replace("kind: send", "kind: send\nimages: {标志: logo.png}")
    };
    let png = b"\x89PNG\r\n\x1a\n";
    let scene = Scene::new().relay([] as [&str; 0]).recipients(&numbered(1)).bytes("logo.png", png);
    let scene =
        scene.job(&job("<img src=\"cid:标志\"><div style=\"background:url(cid:%E6%A0%87%E5%BF%97)\">"));
    scene.run("run --sandbox job.yaml").exit(Exit::Done);
    let letter = fs::read_to_string(scene.path("outbox/short/0001_u0@example.org.eml")).expect("its letter");
    let letter = letter.replace("=\r\n", "");
    let id = letter.split("Content-ID: <").nth(1).and_then(|rest| rest.split('>').next()).expect("an id");
    assert!(id.is_ascii() && letter.matches(&format!("cid:{id}")).count() == 2, "{letter}");
    let scene = scene.job(&job("<img src=\"cid:标识\">"));
    scene.run("check job.yaml").exit(Exit::Job).says(&["标识", "标志"]);
}

#[test]
fn a_trial_has_a_report() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(3));
    scene.run("report --sandbox job.yaml").exit(Exit::NoInput);
    scene.run("run --sandbox job.yaml").exit(Exit::Done);
    let run = scene.run("report --sandbox job.yaml").exit(Exit::Done);
    assert!(run.stdout.contains("accepted        3"), "{}", run.stdout);
    scene.run("report --to job.yaml").exit(Exit::NoInput);
    scene.run("run --yes --to me@example.com job.yaml").exit(Exit::Done);
    scene.run("report --to --format csv job.yaml").exit(Exit::Done);
    scene.run("report job.yaml").exit(Exit::NoInput);
}

#[test]
fn one_of_several_files_is_enough_and_files_for_all_are_another_matter() {
    let job = with_reports().replace(
        "attachments: [\"reports/{{ email }}*.txt\"]",
        "attachments: [\"reports/{{ email }}*.txt\", terms.txt]",
    );
    let scene = Scene::new()
        .relay(["--fault", "rcpt first=1 reply 450 4.2.1 later"])
        .job(&job.replace("stay: 60s", "stay: 0s"))
        .recipients(&numbered(2))
        .file("terms.txt", "terms\n")
        .file("reports/u0@example.org.txt", "0\n")
        .file("reports/u0@example.org-b.txt", "0b\n")
        .file("reports/u1@example.org.txt", "1\n");
    scene.send().exit(Exit::Again);
    // One came, which is a change as well; for u1 nothing is other than it was.
    let scene = scene.job(&job).file("reports/u0@example.org-c.txt", "0c\n");
    scene.send().exit(Exit::SomeFailed).says(&["one of ", "u0@example.org-c.txt`", "was changed after"]);
    assert_eq!(
        scene.its_relay().received().into_iter().collect::<Vec<_>>(),
        [("u1@example.org".to_owned(), 1)]
    );
}
