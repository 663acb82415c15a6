//! The order of what is made durable, as the kernel sees it.

use std::process::Command;

use super::scene::{PASSWORD, Scene, job_file};

#[test]
fn files_names_folders_and_journal_are_durable_before_anything_is_deleted() {
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace is needed");
        eprintln!("LEFT OUT: strace is needed");
        return;
    }
    for count in [2, 40] {
        let scene = Scene::counting(count);
        let server = scene.serve(|_| {});
        let job = job_file(&scene, server.port(), "delete: {after: 0s, keep_newest: 0, max_fraction: 100%}");
        let log = scene.folder.path().join("strace.log");
        let status = Command::new("strace")
            .args([
                "-f",
                "-y",
                "-s",
                "300",
                "-e",
                "trace=fsync,fdatasync,syncfs,renameat2,write,writev,sendto,sendmsg,close",
                "-o",
            ])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_postroom"))
            .args(["run", "--yes", "--quiet"])
            .arg(&job)
            .env("ARCHIVE_TEST_PASSWORD", PASSWORD)
            .status()
            .unwrap();
        assert!(status.success());
        let log = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let all = |wanted: &dyn Fn(&str) -> bool| -> Vec<usize> {
            lines.iter().enumerate().filter(|(_, line)| wanted(line)).map(|(at, _)| at).collect()
        };
        let renames = all(&|line| line.contains("renameat2(") && line.contains("/eml/"));
        let files = all(&|line| {
            line.contains("syncfs(") || (line.contains("fsync(") && line.contains("/store/tmp/"))
        });
        let folders = all(&|line| line.contains("fsync(") && line.contains("/store/eml/"));
        let journal = all(&|line| line.contains("fdatasync(") && line.contains("journal.jsonl"));
        let deletes = all(&|line| line.contains("DELE "));
        let quits = all(&|line| line.contains("QUIT"));
        assert_eq!(renames.len(), count);
        let last = |found: &[usize], what: &str| *found.last().unwrap_or_else(|| panic!("no {what}:\n{log}"));
        assert!(files.first() < renames.first(), "a name before the file is durable:\n{log}");
        assert!(last(&renames, "rename") < last(&folders, "folder"), "the folder last:\n{log}");
        let commit = journal.iter().rev().find(|&&at| at < deletes[0]).expect("a commit before DELE");
        assert!(last(&folders, "folder") < *commit, "the journal after the folders:\n{log}");
        assert!(*commit < deletes[0] && last(&deletes, "DELE") < last(&quits, "QUIT"), "{log}");
    }
}
