//! The order of what is durable and what is on the wire, as the kernel saw it: at the moment the
//! last byte of a letter is written, its mark is synced.

use std::fs;
use std::process::{Command, Stdio};

use crate::scene::{POSTROOM, Scene, available, finish, numbered};

/// One letter at a time, so that each end of content has a mark of its own before it.
const JOB: &str = r#"
kind: send
name: short
edition: "1"
from: Post Room <news@example.com>
recipients: {file: list.csv}
subject: "Hello {{ name }}"
body: {text: {inline: "Dear {{ name }},\nall is well.\n"}}
relay: {host: 127.0.0.1, port: @PORT@, tls: none, connections: 1, pipelining: @LEVEL@, doubt: 1}
"#;

#[test]
fn the_mark_is_synced_before_the_last_byte() {
    if !available("strace", "-V") {
        return;
    }
    const LETTERS: usize = 5;
    for level in ["off", "envelope", "window"] {
        let scene = Scene::new()
            .relay([] as [&str; 0])
            .job(&JOB.replace("@LEVEL@", level))
            .recipients(&numbered(LETTERS));
        let trace = scene.path("trace");
        let child = Command::new("strace")
            .args([
                "-f",
                "-y",
                "-s",
                "100000",
                "-e",
                "trace=write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync",
            ])
            .arg("-o")
            .arg(&trace)
            .args([POSTROOM, "run", "--yes", "job.yaml"])
            .current_dir(scene.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        finish(child, "run, traced").exit(postroom::exit::Exit::Done);
        let ends = judge(&String::from_utf8_lossy(&fs::read(trace).expect("the trace")), level);
        assert_eq!(ends, LETTERS, "{level}: ends of content seen");
    }
}

/// Goes through the trace; says how many ends of content were written, each behind a synced mark.
fn judge(trace: &str, level: &str) -> usize {
    let (mut unsynced, mut synced_writes, mut ends) = (0, 0, 0);
    for line in trace.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        // A call that another thread's line cuts in two is "unfinished", then "resumed". A write to
        // the log counts from its beginning, a sync only from its end.
        let resumed = call.starts_with("<... ");
        let ledger = call.contains("ledger") || call.contains("-wal");
        if (call.starts_with("pwrite") || call.starts_with("write")) && ledger && !resumed {
            unsynced += 1;
        } else if call.starts_with("fdatasync")
            || call.starts_with("fsync")
            || resumed && call.contains("sync resumed")
        {
            if !call.contains("unfinished") {
                synced_writes += unsynced;
                unsynced = 0;
            }
        } else if !resumed && call.contains("<socket:") {
            // A letter's own last line, and then the dot or the end of its chunk.
            let here = call.matches("all is well.").count();
            if here > 0 {
                assert_eq!(here, 1, "{level}: two letters in one write though one may be in doubt: {call}");
                assert_eq!(unsynced, 0, "{level}: the ledger is not synced when the last byte goes: {call}");
                assert!(synced_writes > 0, "{level}: no mark was synced since the last letter: {call}");
                synced_writes = 0;
                ends += 1;
            }
        }
    }
    ends
}

#[test]
fn the_judge_sees_a_missing_sync() {
    let good = "1 pwrite64(5</x/ledger.db-wal>, \"\", 9) = 9\n1 fdatasync(5</x/ledger.db-wal>) = 0\n\
                2 writev(6<socket:[7]>, [{\"all is well.\\r\\n.\\r\\n\"}], 1) = 9\n";
    assert_eq!(judge(good, "good"), 1);
    for bad in
        [good.replace("fdatasync", "fdatawait"), format!("{good}{}", good.lines().last().expect("a line"))]
    {
        assert!(std::panic::catch_unwind(|| judge(&bad, "bad")).is_err(), "{bad}");
    }
}
