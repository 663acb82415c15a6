//! `verify`, `find`, `export`, `rebuild` by the real binary.

use std::fs;
use std::process::Command;

use postroom::exit::Exit;

use super::scene::{PASSWORD, Scene, job_file, message, output, postroom};

fn archived(count: usize) -> Scene {
    let scene = Scene::counting(count);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    scene
}

fn verify(scene: &Scene) -> (Option<i32>, String) {
    let (code, found, _) = output(postroom().arg("verify").arg(scene.store()));
    (code, found)
}

#[test]
fn a_backup_that_cannot_be_written_is_verified_searched_and_exported() {
    let scene = archived(3);
    let store = scene.store();
    let mount = |args: &[&str]| Command::new("mount").args(args).arg(&store).output();
    let bound = Command::new("mount").arg("--bind").arg(&store).arg(&store).output();
    if !bound.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "a folder is to be mounted, as root");
        eprintln!("LEFT OUT: a folder cannot be mounted read-only here");
        return;
    }
    let sealed = mount(&["-o", "remount,bind,ro"]);
    let proof = verify(&scene);
    let (found, text, _) = output(postroom().arg("find").arg(&store).arg("subject:number"));
    let mbox = scene.folder.path().join("out.mbox");
    let (exported, ..) = output(postroom().args(["export", "--mbox"]).arg(&mbox).arg(&store));
    Command::new("umount").arg(&store).status().unwrap();
    assert!(sealed.unwrap().status.success());
    assert_eq!(proof.0, Some(0), "{}", proof.1);
    assert!(found == Some(0) && text.lines().count() == 3, "{found:?}: {text}");
    assert_eq!(exported, Some(0));
}

#[test]
fn a_folder_that_is_no_archive_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.mbox");
    for command in
        [&["verify"][..], &["find", "x"], &["rebuild"], &["export", "--mbox", out.to_str().unwrap()]]
    {
        let mut run = postroom();
        let (code, _, said) = output(run.arg(command[0]).arg(folder.path()).args(&command[1..]));
        assert_eq!(code, Some(66), "{command:?}: {said}");
    }
    assert!(!out.exists());
}

#[test]
fn an_export_that_was_cut_short_is_made_again() {
    let scene = archived(40);
    let out = scene.folder.path().join("out");
    let export = |form: &str| {
        let mut shell = Command::new("sh");
        // At most some kilobytes a file, and no signal about it.
        shell.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]).arg(postroom().get_program());
        output(shell.arg("export").arg(form).arg(&out).arg(scene.store()))
    };
    assert_eq!(export("--mbox").0, Some(74));
    assert!(!out.exists(), "half of an mbox file looks like a whole one");
    assert_eq!(export("--maildir").0, Some(0));
    let name = fs::read_dir(out.join("cur")).unwrap().next().unwrap().unwrap().file_name();
    let stem = name.to_str().unwrap().strip_suffix(":2,S").unwrap();
    fs::rename(out.join("cur").join(&name), out.join("tmp").join(stem)).unwrap();
    assert_eq!(export("--maildir").0, Some(0));
    assert_eq!(fs::read_dir(out.join("cur")).unwrap().count(), 40);
    assert_eq!(fs::read_dir(out.join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_answer_that_is_lost_is_no_success() {
    let scene = archived(2);
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), "").display().to_string();
    let (store, mbox) = (scene.store().display().to_string(), scene.folder.path().join("out.mbox"));
    let mbox = mbox.display().to_string();
    for line in [
        &["verify", &store][..],
        &["find", &store, "number"],
        &["rebuild", &store],
        &["export", "--mbox", &mbox, &store],
        &["run", &job],
        &["check", "--connect", &job],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, _, said) = output(postroom().args(line).stdout(full));
        assert!(code == Some(74) && said.contains("cannot write to stdout"), "{line:?}: {code:?} {said}");
    }
}

#[test]
fn what_only_reads_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["verify", "find"] {
        let mut program = postroom();
        program.arg(command).arg(folder.path());
        if command == "find" {
            program.arg("word");
        }
        assert_eq!(output(&mut program).0, Some(66), "{command}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn every_kind_of_damage_is_named() {
    let scene = archived(40);
    assert_eq!(verify(&scene).0, Some(0));
    let store = scene.store();
    let line = scene.journal().remove(7);
    let path = line["path"].as_str().unwrap().to_owned();
    let file = store.join(&path);

    let bytes = fs::read(&file).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let (code, found) = verify(&scene);
    assert!(code == Some(1) && found.contains(&format!("changed: {path}")), "{found}");

    fs::remove_file(&file).unwrap();
    let (code, found) = verify(&scene);
    assert!(code == Some(1) && found.contains(&format!("missing: {path}")), "{found}");
    fs::write(&file, &bytes).unwrap();
    assert_eq!(verify(&scene).0, Some(0));

    let journal = store.join("journal.jsonl");
    let whole = fs::read_to_string(&journal).unwrap();
    for lost in [7, 39] {
        let kept: String = whole
            .split_inclusive('\n')
            .enumerate()
            .filter(|(at, _)| *at != lost)
            .map(|(_, line)| line)
            .collect();
        fs::write(&journal, kept).unwrap();
        let (code, found) = verify(&scene);
        let path = scene_path(&whole, lost);
        assert!(code == Some(1) && found.contains(&format!("unknown: {path}")), "{lost}: {found}");
    }
    fs::write(&journal, &whole).unwrap();

    let index = rusqlite::Connection::open(store.join("index.db")).unwrap();
    index.execute("DELETE FROM messages WHERE path = ?", [&path]).unwrap();
    drop(index);
    let (code, found) = verify(&scene);
    assert!(code == Some(1) && found.contains(&format!("index: {path}")), "{found}");

    let manifest = store.join("manifest-sha256.txt");
    let lines = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        lines
            .lines()
            .filter(|line| !line.ends_with(&path))
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
    .unwrap();
    let (code, found) = verify(&scene);
    assert!(code == Some(1) && found.contains(&format!("manifest: {path}")), "{found}");

    let (code, _, words) = output(postroom().arg("rebuild").arg(&store));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(verify(&scene), (Some(0), verify(&scene).1));
}

fn scene_path(journal: &str, line: usize) -> String {
    let line: serde_json::Value = serde_json::from_str(journal.lines().nth(line).unwrap()).unwrap();
    line["path"].as_str().unwrap().to_owned()
}

/// What an older program made lacks what is searched by now; and lines of a journal that was damaged and goes on may
/// have numbers that came before.
#[test]
fn an_index_holds_every_line_however_they_are_numbered() {
    let scene = archived(20);
    let store = scene.store();
    let server = scene.serve(|_| {});
    let index = rusqlite::Connection::open(store.join("index.db")).unwrap();
    index.execute("UPDATE state SET value = 1 WHERE key = 'form'", []).unwrap();
    index.execute("UPDATE messages SET subject = 'old'", []).unwrap();
    drop(index);
    assert_eq!(scene.run(server.port()), Exit::Done);
    let find = |words: &str| output(postroom().arg("find").arg(&store).arg(words)).1;
    assert!(find("number").lines().count() >= 20 && !find("number").contains("old"), "{}", find("number"));

    let journal = store.join("journal.jsonl");
    let whole = fs::read_to_string(&journal).unwrap();
    let fifth = whole.split_inclusive('\n').nth(4).unwrap();
    fs::write(&journal, format!("{whole}{fifth}")).unwrap();
    assert_eq!(output(postroom().arg("rebuild").arg(&store)).0, Some(0));
    for number in 20..40 {
        fs::write(scene.maildrop().join(format!("{number:05}x.eml")), message(number)).unwrap();
    }
    assert_eq!(scene.run(server.port()), Exit::Done);
    let numbers: Vec<u64> = scene.journal().iter().filter_map(|line| line["n"].as_u64()).collect();
    assert!(numbers.len() > numbers.iter().collect::<std::collections::BTreeSet<_>>().len());
    let (code, found) = verify(&scene);
    assert!(code == Some(0) && found.contains(": 40 messages"), "{found}");
    for number in 0..40 {
        assert!(find(&format!("subject:{number}")).contains(&format!("Number {number}")), "{number}");
    }
}

#[test]
fn sha256sum_accepts_the_manifest() {
    let scene = archived(20);
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "manifest-sha256.txt"])
        .current_dir(scene.store())
        .status();
    assert!(checked.unwrap().success());
}

#[test]
fn a_second_run_mends_what_is_derived() {
    let scene = archived(20);
    fs::remove_file(scene.store().join("index.db")).unwrap();
    fs::write(scene.store().join("manifest-sha256.txt"), "nonsense").unwrap();
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    assert_eq!(verify(&scene).0, Some(0));
}

#[test]
fn messages_are_found_by_words_people_and_days() {
    let scene = Scene::with(&[
        "From: 张三 <zhang@example.cn>\r\nTo: ada@example.org\r\nSubject: =?utf-8?B?5Y+R56Wo?=\r\nDate: Mon, 2 Nov 2026 10:00:00 +0800\r\n\r\nhello\r\n".as_bytes(),
        b"From: Bob <bob@example.com>\r\nTo: carol@example.net\r\nSubject: Report\r\nDate: Tue, 3 Nov 2026 10:00:00 +0000\r\nContent-Type: text/plain; charset=gb2312\r\nContent-Transfer-Encoding: base64\r\n\r\nx+uy6crVt6LGsbrF\r\n",
        b"From: Bob <bob@example.com>\r\nSubject: Files\r\nDate: Tue, 1 Dec 2026 10:00:00 +0000\r\nContent-Type: application/pdf; name=\"a report.pdf\"\r\n\r\n%PDF\r\n",
    ]);
    let server = scene.serve(|_| {});
    assert_eq!(scene.run(server.port()), Exit::Done);
    for (words, expected) in [
        (&["发票"][..], 2),
        (&["发票", "from:bob"], 1),
        (&["发票号"], 1),
        (&["票号码"], 0),
        (&["from:张三"], 1),
        (&["to:carol"], 1),
        (&["subject:report"], 1),
        (&["report"], 2),
        (&["has:attachment"], 1),
        (&["after:2026-12"], 1),
        (&["before:2026-12"], 2),
        (&["after:2026-11-03", "before:2026-12-01"], 1),
        (&["HELLO"], 1),
    ] {
        let (code, found, said) = output(postroom().arg("find").arg(scene.store()).args(words));
        assert_eq!(code, Some(0), "{words:?}: {said}");
        assert_eq!(found.lines().count(), expected, "{words:?}: {found}");
    }
    let (code, _, _) = output(postroom().arg("find").arg(scene.store()).arg("..."));
    assert_eq!(code, Some(64));
}

#[test]
fn an_archive_is_packed_in_three_forms() {
    let scene = archived(15);
    let out = scene.folder.path();
    let (code, _, words) =
        output(postroom().arg("export").arg(scene.store()).arg("--mbox").arg(out.join("a.mbox")));
    assert_eq!(code, Some(0), "{words}");
    let mbox = fs::read_to_string(out.join("a.mbox")).unwrap();
    assert_eq!(mbox.lines().filter(|line| line.starts_with("From ")).count(), 15);
    let (code, _, words) =
        output(postroom().arg("export").arg(scene.store()).arg("--maildir").arg(out.join("md")));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(fs::read_dir(out.join("md/cur")).unwrap().count(), 15);
    let (code, _, words) =
        output(postroom().arg("export").arg(scene.store()).arg("--bagit").arg(out.join("bag")));
    assert_eq!(code, Some(0), "{words}");
    for manifest in ["manifest-sha256.txt", "tagmanifest-sha256.txt"] {
        let checked = Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet", manifest])
            .current_dir(out.join("bag"))
            .status();
        assert!(checked.unwrap().success(), "{manifest}");
    }
}

#[test]
fn two_runs_do_not_meet() {
    let scene = archived(3);
    let server = scene.serve(|_| {});
    let store =
        postroom::archive::Store::open(&scene.store(), postroom::job::Layout::Dated, 0, |_| {}).unwrap();
    assert_eq!(scene.run(server.port()), Exit::Again);
    drop(store);
    assert_eq!(scene.run(server.port()), Exit::Done);
}

#[test]
fn jobs_of_one_command_run_together_and_share_no_store_at_once() {
    let [slow, quick] = [Scene::counting(5), Scene::counting(5)];
    let log = |scene: &Scene| scene.folder.path().join("server.log");
    let servers = [&slow, &quick].map(|scene| {
        scene.serve(|options| {
            options.log = Some(log(scene));
            if std::ptr::eq(scene, &slow) {
                options.faults = super::scene::faults(&["connect delay 1000"]);
            }
        })
    });
    let jobs = [job_file(&slow, servers[0].port(), ""), job_file(&quick, servers[1].port(), "")];
    let (code, _, words) = output(postroom().args(["run", "--yes", "--quiet"]).args(&jobs));
    assert_eq!(code, Some(0), "{words}");
    let login = |scene: &Scene| -> u64 {
        let text = fs::read_to_string(log(scene)).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.into_iter().find(|event| event["event"] == "login").unwrap()["t"].as_u64().unwrap()
    };
    assert!(login(&quick) < login(&slow), "the second job did not wait for the first");
    assert_eq!(slow.archived(), slow.sent());
    // The same store: one after the other, and both are done.
    let (code, _, words) = output(postroom().args(["run", "--yes", "--quiet"]).args([&jobs[0], &jobs[0]]));
    assert_eq!(code, Some(0), "{words}");
}

#[test]
fn verify_asks_the_server() {
    let scene = archived(10);
    fs::write(scene.maildrop().join("99999.eml"), super::scene::message(77)).unwrap();
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), "");
    let (code, found, words) = output(postroom().arg("verify").arg(scene.store()).arg("--server").arg(&job));
    assert_eq!(code, Some(1), "{words}");
    assert!(found.contains("11 on the server, 1 not archived"), "{found}");
}

#[test]
fn options_that_an_archive_has_no_use_for_are_refused() {
    let scene = Scene::counting(2);
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), "");
    for option in [
        &["--report", "report.json"][..],
        &["--to", "ada@example.org"],
        &["--edition", "1"],
        &["--new-edition"],
        &["--accept-changes"],
        &["--only", "ada@example.org"],
        &["--strict"],
    ] {
        let (code, _, words) = output(postroom().args(["run", "--yes"]).args(option).arg(&job));
        assert_eq!(code, Some(64), "{option:?}: {words}");
        assert!(words.contains(option[0]) && words.contains("test archives"), "{words}");
    }
    assert!(!scene.store().exists());
    let (code, _, words) = output(postroom().arg("find").arg(scene.store()).arg("word"));
    assert_eq!(code, Some(66));
    assert!(words.contains("there is no archive"), "{words}");
}

#[test]
fn what_is_warned_of_in_an_archive_is_said() {
    let scene = Scene::counting(1);
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), "");
    let text = std::fs::read_to_string(&job).unwrap();
    let literal = format!("password: {PASSWORD}");
    std::fs::write(&job, text.replace("password: {env: ARCHIVE_TEST_PASSWORD}", &literal)).unwrap();
    for (command, warned) in [(&["check"][..], true), (&["run"], true), (&["run", "--quiet"], false)] {
        let (code, _, words) = output(postroom().args(command).arg(&job));
        assert_eq!(code, Some(0), "{command:?}: {words}");
        assert_eq!(words.contains("`password` stands in the file"), warned, "{command:?}: {words}");
        assert!(!words.contains(PASSWORD), "{words}");
    }
    // A file that is not there is a mistake, and keeps nothing else back.
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, text.replace("tls: none", "tls: implicit\n  ca_file: absent.pem")).unwrap();
    for command in ["check", "run"] {
        let (code, _, words) = output(postroom().arg(command).arg(&job));
        assert_eq!(code, Some(66), "{command}: {words}");
        assert!(
            words.contains("absent.pem") && words.contains("`password` stands in the file"),
            "{command}: {words}"
        );
    }
}

#[test]
fn check_says_json_of_an_archive() {
    let scene = Scene::counting(3);
    let server = scene.serve(|_| {});
    let job = job_file(&scene, server.port(), "delete: {after: 0s, max_fraction: 50%}");
    let name = format!("ada@127.0.0.1:{}", server.port());
    let json = |more: &[&str]| -> serde_json::Value {
        let (_, said, words) = output(postroom().args(["check", "--json"]).args(more).arg(&job));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{words}"))
    };
    let plan = json(&[]);
    assert_eq!((&plan["kind"], &plan["mailboxes"][0]), (&"archive".into(), &(&*name).into()));
    let listed = json(&["--connect"]);
    assert_eq!((&listed["mailbox"], listed["due"].as_array().unwrap().len()), (&name.into(), 3));
    assert_eq!(listed["refused_above"], 1);
}

#[test]
fn a_maildir_store_is_one() {
    let scene = Scene::counting(10);
    let server = scene.serve(|_| {});
    let mut job = scene.job(server.port());
    job.layout = postroom::job::Layout::Maildir;
    assert_eq!(scene.run_with(&job), Exit::Done);
    let new = scene.store().join("new");
    let names: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 10);
    let python = "import mailbox, sys; print(len(mailbox.Maildir(sys.argv[1], create=False)))";
    match Command::new("python3").args(["-c", python]).arg(scene.store()).output() {
        Ok(read) => assert_eq!(String::from_utf8_lossy(&read.stdout), "10\n", "{read:?}"),
        Err(error) => assert!(std::env::var_os("CI").is_none(), "python3 is needed: {error}"),
    }
    // A mail program has seen one.
    let seen = format!("{}:2,S", names[0].to_str().unwrap());
    fs::rename(new.join(&names[0]), scene.store().join("cur").join(seen)).unwrap();
    assert_eq!(verify(&scene).0, Some(0));
    assert_eq!(scene.run_with(&job), Exit::Done);
    // And now all the others; what is derived is made anew from where they lie.
    for name in &names[1..] {
        let seen = format!("{}:2,RS", name.to_str().unwrap());
        fs::rename(new.join(name), scene.store().join("cur").join(seen)).unwrap();
    }
    let (code, said, _) = output(postroom().arg("rebuild").arg(scene.store()));
    assert!(code == Some(0) && verify(&scene).0 == Some(0), "{said}");
    let (_, found, _) = output(postroom().arg("find").arg(scene.store()).arg("message"));
    assert_eq!(found.lines().count(), 9, "every message but number 0 has text: {found}");
}
