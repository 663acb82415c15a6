//! What is wrong is said where it was written, with the remedy and the right exit code, and nothing
//! is sent.

use postroom::exit::Exit;

use crate::certificates;
use crate::scene::{SHORT, Scene, numbered};

/// The job, changed in one place.
fn changed(from: &str, to: &str) -> String {
    assert!(SHORT.contains(from), "the job does not say `{from}`");
    SHORT.replacen(from, to, 1)
}

#[test]
fn mistakes_of_the_job_send_nothing() {
    let job = |from: &str, to: &str| changed(from, to);
    for (what, text, exit, words) in [
        ("unknown key", job("subject:", "subjekt:"), Exit::Job, &["job.yaml:7:1", "subjekt", "subject"][..]),
        ("wrong type", job("name: short", "name: [short]"), Exit::Job, &["job.yaml:3:7", "name"]),
        ("a float as edition", job("\"1\"", "1.10"), Exit::Job, &["job.yaml:4:10", "edition", "quot"]),
        (
            "missing template",
            job("{text: {inline: \"Dear {{ name }},\\nall is well.\\n\"}}", "{text: letter.txt}"),
            Exit::Job,
            &["job.yaml:8:", "letter.txt"],
        ),
        (
            "undefined column",
            job("Hello {{ name }}", "Hello {{ nmae }}"),
            Exit::Job,
            &["job.yaml:7:", "nmae", "name"],
        ),
        (
            "where on an untyped column",
            job("{file: list.csv}", "{file: list.csv, where: name}"),
            Exit::Job,
            &["job.yaml:6:", "name"],
        ),
        (
            "where compares text with a number",
            job("{file: list.csv}", "{file: list.csv, where: name > 3}"),
            Exit::Job,
            &["job.yaml:6:37", "name", "number"],
        ),
        (
            "a template compares text with a number",
            job("all is well", "{% if name == 7 %}x{% endif %}"),
            Exit::Job,
            &["job.yaml:8:", "name", "columns: {name: number}"],
        ),
        ("no such list", job("list.csv", "liste.csv"), Exit::NoInput, &["job.yaml:6:20", "liste.csv"]),
        (
            "a path of Windows",
            job("list.csv", "data\\list.csv"),
            Exit::NoInput,
            &["job.yaml:6:20", "set off with `/`"],
        ),
        ("a variable", job("list.csv", "$HOME/list.csv"), Exit::NoInput, &["job.yaml:6:20", "not filled in"]),
        (
            "columns that the list does not have",
            job("{file: list.csv}", "{file: list.csv, columns: {nmae: int}}"),
            Exit::Job,
            &["job.yaml:6:", "nmae", "name"],
        ),
        (
            "a column behind `row`",
            job("Hello {{ name }}", "Hello {{ row['First Name'] }}"),
            Exit::Job,
            &["job.yaml:7:2", "First Name"],
        ),
        (
            "a picture that is not there",
            job("name: short", "name: short\nimages: {logo: logo.png}"),
            Exit::Job,
            &["job.yaml:4:", "logo.png"],
        ),
        (
            "a picture of a word processor's",
            job(
                "{text: {inline: \"Dear {{ name }},\\nall is well.\\n\"}}",
                "{html: {inline: \"<img src='file:///C:/a.png'>\"}}",
            ),
            Exit::Job,
            &["job.yaml:8:", "file:///C:/a.png", "is not there"],
        ),
        (
            "a name with a slash",
            job("name: short", "name: short\nattachments: [{files: list.csv, as: a/b.csv}]"),
            Exit::Job,
            &["job.yaml:4:37", "a/b.csv"],
        ),
        (
            "a pattern within brackets, unquoted",
            job("name: short", "name: \"short\"\nattachments: [f/{{ name }}.pdf]"),
            Exit::Job,
            &["job.yaml:4:15", "quotes"],
        ),
        ("a control character", job("all is well", "all is \u{7}well"), Exit::Job, &["job.yaml:8:"]),
        ("not YAML", job("name: short", "name: \"short"), Exit::Job, &["job.yaml:"]),
        ("a number that is none", job("stay: 60s", "stay: 60"), Exit::Job, &["job.yaml:9:", "60"]),
    ] {
        let scene = Scene::new().relay([] as [&str; 0]).job(&text).recipients(&numbered(3));
        scene.run("check job.yaml").exit(exit).says(words);
        scene.send().exit(exit).says(words);
        assert_eq!(scene.its_relay().letters().len(), 0, "{what}");
    }
}

#[test]
fn a_template_that_is_within_itself_is_a_mistake_and_one_that_ends_is_none() {
    let job = changed("{text: {inline: \"Dear {{ name }},\\nall is well.\\n\"}}", "{text: a.txt}");
    let scene = || Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(2));
    for (a, b, place) in [
        ("x\n{% include 'a.txt' %}", "", "templates/a.txt:2:"),
        ("{% extends 'a.txt' %}", "", "templates/a.txt:1:"),
        ("{% include 'b.txt' %}", "{% include ['no.txt', 'a.txt'] %}", "templates/b.txt:1:"),
        ("{% extends 'b.txt' %}", "{% extends 'a.txt' %}", "templates/b.txt:1:"),
    ] {
        let scene = scene().file("templates/a.txt", a).file("templates/b.txt", b);
        scene.run("check job.yaml").exit(Exit::Job).says(&[place, "within itself"]);
        scene.send().exit(Exit::Job);
        assert_eq!(scene.its_relay().letters().len(), 0);
    }
    let ends = "{% set n = (n | default(0)) + 1 %}{{ n }}{% if n < 3 %}{% include 'a.txt' %}{% endif %}";
    scene().file("templates/a.txt", ends).run("check job.yaml").exit(Exit::Done);
}

#[test]
fn null_has_a_default() {
    let job = changed("all is well", "{{ plan | default('none') }} {{ nothing | default('x') }}")
        .replace("{file: list.csv}", "{list: [{email: ada@example.org, name: Ada, plan: null}]}");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job);
    scene.send().exit(Exit::Done);
}

#[test]
fn a_relay_that_is_silent_or_hangs_up_is_not_reachable() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("its number").port();
    let job = SHORT.replace("@PORT@", &port.to_string());
    let job = job.replace("tls: none", "tls: none, timeouts: {greeting: 1s}");
    let scene = Scene::new().job(&job).recipients(&numbered(3));
    // The connection is made by the kernel, and nobody ever says a word.
    scene.send().exit(Exit::Unavailable).says(&["no greeting came"]);
}

#[test]
fn all_mistakes_are_shown_at_once() {
    let text = SHORT
        .replace("subject:", "subjekt:")
        .replace("edition:", "edtion:")
        .replace("port: @PORT@", "prot: 25");
    let scene = Scene::new().relay([] as [&str; 0]).job(&text).recipients(&numbered(1));
    scene.send().exit(Exit::Job).says(&["subjekt", "edtion", "prot"]);
}

#[test]
fn bad_rows_fail_alone_and_by_number() {
    let csv = "email,name\nada@example.org,Ada\nnobody,Bob\ncy@example.org,\"Cy\nBcc: eve@example.org\"\n\
               dan@example.org,Dan\0\n,Eve\nfay@example.org,Fay\n";
    let job = changed("{file: list.csv}", "{file: list.csv, to: \"{{ name }} <{{ email }}>\", max_bad: 90%}");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(csv);
    scene
        .send()
        .exit(Exit::SomeFailed)
        .says(&["row 2", "row 3", "row 4", "row 5"])
        .never_says(&["eve@example.org"]);
    let received: Vec<_> = scene.its_relay().received().into_iter().collect();
    let expected = ["ada@example.org", "fay@example.org"].map(|address| (address.to_owned(), 1));
    assert_eq!(received, expected);
    // What the second line of a cell moves down is found by its line.
    scene.run("check job.yaml").exit(Exit::SomeFailed).says(&["row 2 (line 3)", "row 5 (line 7)"]);
}

#[test]
fn one_bad_row_is_enough_where_the_job_is_strict() {
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(SHORT)
        .recipients("email,name\nada@example.org,Ada\nnobody,Bob\n");
    scene.run("run --yes --strict job.yaml").exit(Exit::Data).says(&["row 2 (line 3): "]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn check_tells_the_mistakes_of_all_rooms_at_once() {
    let job = changed("{host: 127.0.0.1", "{hots: 127.0.0.1")
        .replace("Post Room <news@example.com>", "nobody")
        .replace("list.csv}", "list.csv, suppress: [gone.txt, left.txt], max_bad: few}")
        .replace("Dear {{ name }}", "Dear {{ nmae }} {{ name | capitalise }}")
        .replace("name: short", "name: short\nattachments: [nothing.pdf]\nlist_id: [x]");
    let other = changed("subject:", "subjekt:").replace("@PORT@", "25");
    let scene = Scene::new().job(&job.replace("@PORT@", "25")).file("other.yaml", &other);
    let all = ["hots", "news", "gone.txt", "left.txt", "max_bad", "capitalise", "nothing.pdf", "list_id"];
    let missing = scene.run("check job.yaml other.yaml").exit(Exit::Job);
    missing.says(&["list.csv does not exist", "subjekt"]).says(&all[2..]).says(&["`from` is not a mailbox"]);
    let scene = scene.recipients(&numbered(2));
    scene.run("check job.yaml").exit(Exit::Job).says(&["hots", "nmae", "did you mean"]).says(&all[2..]);
    scene.run("run --yes job.yaml").exit(Exit::Job).says(&["hots"]);

    // What is only missing is no mistake of the job.
    let job = changed("list.csv}", "away.csv, suppress: [gone.txt]}").replace("@PORT@", "25");
    let scene = Scene::new().job(&job);
    scene.run("check job.yaml").exit(Exit::NoInput).says(&["away.csv", "gone.txt", "job.yaml:6:"]);
}

#[test]
fn a_template_that_cannot_be_meant_sends_nothing() {
    let job = changed("{text: {inline: \"Dear {{ name }},\\nall is well.\\n\"}}", "{text: letter.txt}");
    let mut scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&numbered(1));
    for (bytes, words) in [
        (&b""[..], ["`letter.txt` is empty", "job.yaml:8:14"]),
        (b"\xef\xbb\xbf \r\n", ["`letter.txt` is empty", "job.yaml:8:14"]),
        (b"\xc4\xe3\xba\xc3", ["save the file as UTF-8", "job.yaml:8:14"]),
    ] {
        scene = scene.bytes("templates/letter.txt", bytes);
        scene.send().exit(Exit::Job).says(&words);
    }
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn run_says_what_check_warns_of() {
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&changed("{text: {inline: \"Dear {{ name }},\\nall is well.\\n\"}}", "{html: letter.html}"))
        .file("letter.html", "<p>Dear {{ name }}<img srcset=\"a.png 2x\" alt=\"\"></p>\n")
        .recipients(&numbered(1));
    scene.run("check job.yaml").exit(Exit::Done).says(&["warning", "srcset"]);
    let run = scene.run("run --yes job.yaml").exit(Exit::Done);
    assert_eq!(
        run.stderr.matches("srcset").count(),
        scene.run("check job.yaml").stderr.matches("srcset").count()
    );
    scene.run("run --yes --quiet job.yaml").exit(Exit::Done).never_says(&["srcset"]);
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_anything_is_sent() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(1));
    scene.run("run --yes job.yaml --report nowhere/r.json").exit(Exit::Io).says(&["nothing was sent"]);
    scene.run("run --yes job.yaml job.yaml --report r.json").exit(Exit::Usage).says(&["for one job"]);
    scene.run("run --yes job.yaml --report r.txt").exit(Exit::Usage).says(&[".json or .csv"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
    scene.run("run --yes job.yaml --report r.json").exit(Exit::Done);
    assert!(scene.path("r.json").exists() && !scene.path("r.json.part").exists());
}

#[test]
fn an_answer_that_is_lost_is_no_success() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let scene = Scene::new().job(&SHORT.replace("@PORT@", "25")).recipients(&numbered(1));
    scene.run("run --sandbox job.yaml").exit(Exit::Done);
    let eml =
        std::fs::read_dir(scene.path("outbox/short")).expect("outbox").flatten().next().expect("a letter");
    let eml = eml.path().display().to_string();
    for line in [
        &["check", "job.yaml"][..],
        &["check", "--json", "job.yaml"],
        &["show", &eml],
        &["report", "--sandbox", "--watch", "job.yaml"],
        &["init", "new"],
        &["--help"],
    ] {
        let output = scene.command(line).stdout(full()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(Exit::Io as i32), "{line:?}");
    }
}

#[test]
fn a_var_behind_a_column_is_warned_of() {
    let job =
        changed("name: short", "name: short\nvars: {name: everybody, year: 2026}").replace("@PORT@", "25");
    let scene = Scene::new().job(&job).recipients(&numbered(1));
    scene.run("check job.yaml").exit(Exit::Done).says(&["`name` of `vars`"]).never_says(&["`year`"]);
}

#[test]
fn an_empty_suppress_list_is_warned_of() {
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&changed("list.csv}", "list.csv, suppress: left.txt}"))
        .file("left.txt", "")
        .recipients(&numbered(1));
    scene.run("check job.yaml").exit(Exit::Done).says(&["left.txt is empty", "job.yaml:6:"]);
    scene.send().exit(Exit::Done).says(&["left.txt is empty"]);
    let scene = scene.file("left.txt", "# nobody yet\n");
    scene.run("check job.yaml").exit(Exit::Done).never_says(&["left.txt"]);
    let scene = scene.bytes("left.txt", b"\xd3\xca\xcf\xe4\nada@example.org\n");
    scene.run("check job.yaml").exit(Exit::Data).says(&["save it as UTF-8"]).never_says(&["encoding:"]);
}

#[test]
fn a_flawed_job_has_no_mistakes_that_are_not_its_own() {
    let other = changed("{file: list.csv}", "{ledger: {job: x, edition: \"1\", outcome: refused}}");
    let scene = Scene::new().job(&format!("{other}ledger: mysql:x\n").replace("@PORT@", "25"));
    scene
        .run("check job.yaml")
        .exit(Exit::Job)
        .says(&["`mysql:x` is not a ledger"])
        .never_says(&["does not exist"]);
    // Nobody waits for what will not be read.
    let job = changed("{file: list.csv}", "{file: \"-\", format: csv}").replace("subject", "subjekt");
    let scene = scene.job(&job.replace("@PORT@", "25"));
    let mut child =
        scene.command(["check", "job.yaml"]).stdin(std::process::Stdio::piped()).spawn().expect("the binary");
    let kept_open = child.stdin.take();
    assert_eq!(child.wait().expect("it ends").code(), Some(Exit::Job as i32));
    drop(kept_open);
}

#[test]
fn a_letter_whose_subject_comes_out_empty_is_not_sent() {
    let job = changed("\"Hello {{ name }}\"", "\"{% if name != 'Bob' %}Hello{% endif %} \"");
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&job)
        .recipients("email,name\nada@example.org,Ada\nbob@example.org,Bob\n");
    scene.send().exit(Exit::SomeFailed).says(&["subject, line 7: the subject is empty"]);
    assert_eq!(scene.its_relay().letters().len(), 1);
}

#[test]
fn the_address_is_found_as_lists_name_it() {
    let job = SHORT.replace("@PORT@", "25");
    for name in ["Email", "E-Mail", "电子邮箱"] {
        let scene = Scene::new().job(&job).recipients(&format!("{name},name\nada@example.org,Ada\n,\n"));
        scene.run("check job.yaml").exit(Exit::Done).says(&["rows       1", "example.org 1"]);
    }
    // Objects need not be alike: each is asked for itself.
    let objects =
        "{\"Email\":\"a@x.org\",\"name\":\"A\"}\n{\"name\":\"B\"}\n{\"邮箱\":\"c@x.org\",\"name\":\"C\"}\n";
    let scene = Scene::new().job(&job.replace("list.csv", "list.jsonl")).file("list.jsonl", objects);
    scene
        .run("check job.yaml")
        .exit(Exit::SomeFailed)
        .says(&["rows       3, 1 bad", "row 2 (line 2): to: there is no column `email`"]);
    let scene = Scene::new().job(&job).recipients("mail,E-Mail,name\na@x.org,b@x.org,Ada\n");
    scene.run("check job.yaml").exit(Exit::Job).says(&["`mail` and `E-Mail` could both be the address"]);
}

#[test]
fn what_was_meant_for_a_template_is_recognised() {
    let job = SHORT.replace("@PORT@", "25");
    let list = "email,name,First Name\nada@example.org,Ada,Ada\n";
    for (from, to, exit, words) in [
        ("Hello {{ name }}", "Hello { name }", Exit::Done, "write `{{ name }}`"),
        ("Dear {{ name }}", "亲爱的｛｛name｝｝", Exit::Done, "everybody gets it as it stands"),
        ("Hello {{ name }}", "{{ First Name }}", Exit::Job, "row[\"First Name\"]"),
        ("Dear {{ name }}", "{{ First_Name }}", Exit::Job, "did you mean `row[\"First Name\"]`?"),
        ("list.csv}", "list.csv, where: name = 'Ada'}", Exit::Job, "`==` compares"),
        ("\"1\"", "\"{{ now }}\"", Exit::Done, "each run would mail everybody again"),
        ("\"1\"", "\"{{ now | date('%Y-%M') }}\"", Exit::Done, "the month is `%m`"),
        (
            "subject:",
            "unsubscribe: {mailto: leave}\nsubject:",
            Exit::Job,
            "`mailto`: `leave` is not an address",
        ),
        ("subject:", "return_path: <>\nsubject:", Exit::Job, "`return_path`: `<>` is not an address"),
        ("subject:", "list_id: our news\nsubject:", Exit::Job, "has no blank"),
        ("list.csv}", "list.csv, where: name in [\"Ada\"]}", Exit::Job, "begins a list in YAML"),
        ("list.csv}", "list.csv, key: email}", Exit::Job, "`key` is the same for everyone"),
    ] {
        let scene = Scene::new().job(&job.replacen(from, to, 1)).recipients(list);
        scene.run("check job.yaml").exit(exit).says(&[words, "job.yaml:"]);
    }
    let job =
        changed("{inline: \"Dear {{ name }},\\nall is well.\\n\"}", "letter.txt").replace("@PORT@", "25");
    let scene = Scene::new().job(&job).file("letter.txt", "Dear {name}\n").recipients(list);
    scene
        .run("check job.yaml")
        .exit(Exit::Done)
        .says(&["template `letter.txt` has `{name}`", "letter.txt:1:6"]);
    let var = "vars: {greeting: \"Dear {{ name }}\"}\nsubject:";
    let scene = Scene::new().job(&SHORT.replace("@PORT@", "25").replace("subject:", var)).recipients(list);
    scene.run("check job.yaml").exit(Exit::Done).says(&["`greeting` of `vars` has `{{ name }}`"]);
}

#[test]
fn programs_are_told_of_more_bad_rows_than_people() {
    let rows: String = (1..=30).map(|n| format!("nobody{n},x\n")).collect();
    let scene = Scene::new().job(&SHORT.replace("@PORT@", "25")).recipients(&format!("email,name\n{rows}"));
    scene.run("check job.yaml").says(&["row 20 (line 21)", "… and 10 more"]).never_says(&["row 21"]);
    scene.run("check --json job.yaml").says(&["`nobody30` is not an address"]);
}

#[test]
fn of_two_rows_with_one_key_both_are_named() {
    let job = changed("{file: list.csv}", "{file: list.csv, key: \"{{ name }}\"}");
    let list =
        "email,name,city\na@x.test,Ada,\"New\nYork\"\n\nb@x.test,Bob,\na@y.test,Ada,\nbob@x.test,Bob,\n";
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(list);
    scene.run("check job.yaml").exit(Exit::SomeFailed).says(&[
        "row 3 (line 6)  Ada: it is another row than row 1 (line 2) and has the same key",
        "row 4 (line 7)  Bob: it is another row than row 2 (line 5) and has the same key",
    ]);
    let said = scene.run("check --json job.yaml").exit(Exit::SomeFailed).stdout;
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["bad_rows"][0]["line"], 6);
    assert_eq!((said["letters"].as_u64(), said["domains"]["y.test"].as_u64()), (Some(2), None));
}

#[test]
fn a_letter_whose_body_comes_out_empty_is_not_sent() {
    let list = "email,name\nada@example.org,Ada\nbob@example.org,Bob\n";
    let body = r#"body: {text: {inline: "{% if name != 'Bob' %}Hello{% endif %}\n"}}"#;
    let lines = |line: &str| if line.starts_with("body:") { body.to_owned() } else { line.to_owned() };
    let job = SHORT.lines().map(lines).collect::<Vec<_>>().join("\n");
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(list);
    scene.send().exit(Exit::SomeFailed).says(&["the letter has no words in it"]);
    assert_eq!(scene.its_relay().letters().len(), 1);
    // Who means it says so.
    let scene = Scene::new().relay([] as [&str; 0]).job(&job.replace(body, r#"body: {text: {inline: ""}}"#));
    let scene = scene.recipients(list);
    scene.send().exit(Exit::Done);
    assert_eq!(scene.its_relay().letters().len(), 2);
}

#[test]
fn a_pipe_is_no_list() {
    let job = changed("list.csv}", "/dev/stdin, format: csv}").replace("@PORT@", "25");
    let scene = Scene::new().job(&job);
    for command in [&["check", "job.yaml"][..], &["run", "--sandbox", "job.yaml"]] {
        let mut child =
            scene.command(command).stdin(std::process::Stdio::piped()).spawn().expect("the binary");
        // A closed pipe is what happens to whoever is refused.
        let _ = std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), numbered(3).as_bytes());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(Exit::Job as i32), "{command:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("file: \"-\""), "{command:?}");
    }
}

#[test]
fn deletions_are_for_archives() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(1));
    scene
        .run("run --yes --confirm-deletions 3 job.yaml")
        .exit(Exit::Usage)
        .says(&["--confirm-deletions is for jobs that archive"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn an_unreadable_list_is_named() {
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(SHORT)
        .bytes("list.csv", b"email,name\nada@example.org,\xff\xfe\xb0\n");
    let run = scene.send().says(&["list.csv"]);
    assert!(matches!(run.code, Some(65 | 78)), "{:?}: {}", run.code, run.stderr);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn a_relay_that_is_not_there_is_not_reachable() {
    // A port that was free a moment ago: nobody listens on it.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let job = SHORT.replace("@PORT@", &free.port().to_string());
    let scene = Scene::new().job(&job).recipients(&numbered(3));
    scene.send().exit(Exit::Unavailable).says(&["127.0.0.1"]);
}

#[test]
fn a_wrong_password_is_tried_once() {
    let scene = Scene::new()
        .relay(["--auth", "me:right"])
        .job(&changed("tls: none", "tls: none, auth: {user: me, password: {env: PASSWORD}}"))
        .recipients(&numbered(50))
        .env("PASSWORD", "hunter2");
    scene.run("run --yes --trace job.yaml").exit(Exit::Login).says(&["me", "535"]).never_says(&["hunter2"]);
    let logins = scene.its_relay().events("login");
    assert_eq!(logins.len(), 1, "{logins:?}");
    assert_eq!(logins[0]["ok"], false);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn a_relay_that_cannot_check_logins_now_is_no_wrong_password() {
    let scene = Scene::new()
        .relay(["--auth", "me:right", "--fault", "auth reply 454 4.7.0 Temporary authentication failure"])
        .job(&changed("tls: none", "tls: none, auth: {user: me, password: {env: PASSWORD}}"))
        .recipients(&numbered(3))
        .env("PASSWORD", "right");
    scene.send().exit(Exit::Unavailable).says(&["454", "later"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn a_password_that_cannot_be_had_is_a_mistake_of_the_job_or_its_surroundings() {
    let scene = Scene::new()
        .relay(["--auth", "me:right"])
        .job(&changed("tls: none", "tls: none, auth: {user: me, password: {env: NOT_SET_ANYWHERE}}"))
        .recipients(&numbered(2));
    let run = scene.send().says(&["NOT_SET_ANYWHERE"]);
    assert!(matches!(run.code, Some(77 | 78)), "{:?}: {}", run.code, run.stderr);
    assert_eq!(scene.its_relay().events("login").len(), 0);
}

#[test]
fn tls_is_verified() {
    for (what, mode, name, trusted, exit, words) in [
        ("trusted, STARTTLS", "starttls", "localhost", true, Exit::Done, &[][..]),
        ("trusted, implicit", "implicit", "localhost", true, Exit::Done, &[]),
        ("untrusted, STARTTLS", "starttls", "localhost", false, Exit::Unavailable, &["certificate"]),
        ("untrusted, implicit", "implicit", "localhost", false, Exit::Unavailable, &["certificate"]),
        ("wrong host name", "starttls", "mail.example.com", true, Exit::Unavailable, &["localhost"]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        certificates::make(folder.path(), name);
        let option = if mode == "implicit" { "--tls" } else { "--starttls" };
        let ca = if trusted {
            format!(", ca_file: {}", folder.path().join("cert.pem").display())
        } else {
            String::new()
        };
        let job = SHORT.replacen("host: 127.0.0.1", "host: localhost", 1).replacen(
            "tls: none",
            &format!("tls: {mode}{ca}"),
            1,
        );
        let scene = Scene::new()
            .relay([option, folder.path().to_str().expect("a path in UTF-8")])
            .job(&job)
            .recipients(&numbered(3));
        scene.send().exit(exit).says(words);
        let expected = if exit == Exit::Done { 3 } else { 0 };
        assert_eq!(scene.its_relay().letters().len(), expected, "{what}");
    }
}

#[test]
fn no_letter_goes_out_in_clear_where_tls_was_asked_for() {
    let scene = Scene::new()
        .relay([] as [&str; 0])
        .job(&changed("tls: none", "tls: starttls"))
        .recipients(&numbered(3));
    scene.send().exit(Exit::Unavailable).says(&["STARTTLS"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

#[test]
fn a_file_that_the_relay_needs_is_missed_before_anything_is_sent() {
    for (relay, said) in [
        ("tls: starttls, ca_file: keys/none.pem", "`ca_file`: there is no file"),
        ("tls: starttls, client_cert: list.csv, client_key: keys/none", "`client_key`: there is no file"),
        ("tls: none, auth: {user: news, password: {file: secrets/none}}", "secrets/none"),
    ] {
        let scene = Scene::new().relay([] as [&str; 0]).job(&changed("tls: none", relay));
        let scene = scene.recipients(&numbered(3));
        for line in ["check job.yaml", "run --yes job.yaml"] {
            scene.run(line).exit(Exit::NoInput).says(&["job.yaml:", said]);
        }
        assert_eq!(scene.its_relay().letters().len(), 0);
        // A trial needs no relay.
        scene.run("run --sandbox job.yaml").exit(Exit::Done);
    }
    let scene = Scene::new().job(
        "kind: archive\nname: inbox\nstore: archive\n\
         mailbox: {host: 127.0.0.1, tls: none, auth: {user: u, password: {file: secrets/none}}}\n",
    );
    for line in ["check job.yaml", "run job.yaml"] {
        scene.run(line).exit(Exit::NoInput).says(&["job.yaml:", "secrets/none"]);
    }
}

#[test]
fn a_relay_that_refuses_the_sender_stops_the_run() {
    let scene =
        Scene::new().relay(["--fault", "mail reply 550 5.7.1 not you"]).job(SHORT).recipients(&numbered(20));
    scene.send().exit(Exit::Unavailable).says(&["5.7.1 not you"]);
    assert_eq!(scene.its_relay().letters().len(), 0);
}

/// With either of these everybody would be mailed again.
#[test]
fn an_emptied_ledger_and_another_programs_database_are_refused() {
    let scene = Scene::new().relay([] as [&str; 0]).job(SHORT).recipients(&numbered(2));
    scene.send().exit(Exit::Done);
    let ledger = scene.path(".postroom/ledger.db");
    std::fs::write(&ledger, "").expect("emptied");
    scene.send().exit(Exit::Io).says(&["it is empty, though runs have used it"]);
    rusqlite::Connection::open(&ledger)
        .and_then(|conn| conn.execute_batch("PRAGMA journal_mode = WAL"))
        .expect("a database without its log");
    scene.send().exit(Exit::Io).says(&["it is empty, though runs have used it"]);
    std::fs::remove_file(&ledger).expect("removed");
    let conn = rusqlite::Connection::open(&ledger).expect("a database");
    conn.execute_batch("CREATE TABLE x (a)").expect("a table");
    drop(conn);
    scene.send().exit(Exit::Io).says(&["another program's"]);
    assert_eq!(scene.its_relay().letters().len(), 2);
}

/// The ledger keeps an outcome for each of at most 1,024 recipients: one more is a mistake of the row.
#[test]
fn a_letter_to_too_many_is_a_bad_row_and_no_trouble_for_others() {
    let job = SHORT.replace("{file: list.csv}", "{file: list.csv, cc: {each: \"{{ cc }}\", split: \";\"}}");
    let many: Vec<String> = (0..1024).map(|n| format!("c{n}@example.org")).collect();
    let list =
        format!("email,name,cc\na@example.org,A,\nb@example.org,B,{}\nc@example.org,C,\n", many.join(";"));
    let scene = Scene::new().relay([] as [&str; 0]).job(&job).recipients(&list);
    scene.run("check job.yaml").exit(Exit::SomeFailed).says(&["1025 recipients of one letter are too many"]);
    scene.send().exit(Exit::SomeFailed);
    let received = scene.its_relay().received();
    assert_eq!(received.into_keys().collect::<Vec<_>>(), ["a@example.org", "c@example.org"]);
}
