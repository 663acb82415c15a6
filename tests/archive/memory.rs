//! Memory stays small whatever the mailbox holds.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};

use super::scene::{Scene, job_file, message, postroom};

/// The most that a run may hold at any time, in KiB.
const MOST: u64 = 64 * 1024;

/// Runs the job to its end; gives the peak of its memory in KiB.
fn peak(scene: &Scene, port: u16) -> u64 {
    let job = job_file(scene, port, "");
    let mut child = postroom().args(["run", "--yes", "--quiet"]).arg(&job).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0));
        if let Some(exit) = child.try_wait().unwrap() {
            assert!(exit.success());
            assert!(peak > 0);
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_message_of_300_mb_passes_through() {
    if std::env::var_os("POSTROOM_TESTS_LONG").is_none() {
        eprintln!("LEFT OUT: only with --long");
        return;
    }
    let scene = Scene::counting(3);
    let mut out = BufWriter::new(File::create(scene.maildrop().join("99999.eml")).unwrap());
    out.write_all(
        b"Subject: large\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x\r\n",
    )
    .unwrap();
    out.write_all(b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n")
        .unwrap();
    let line = format!("{}\r\n", "QUJD".repeat(19));
    for _ in 0..300_000_000 / line.len() {
        out.write_all(line.as_bytes()).unwrap();
    }
    out.write_all(b"--x--\r\n").unwrap();
    out.into_inner().unwrap();
    let server = scene.serve(|_| {});
    let peak = peak(&scene, server.port());
    eprintln!("peak with a message of 300 MB: {} MiB", peak / 1024);
    assert!(peak < MOST, "{peak} KiB");
}

#[test]
fn a_hundred_thousand_messages_pass_through() {
    if std::env::var_os("POSTROOM_TESTS_LONG").is_none() {
        eprintln!("LEFT OUT: only with --long");
        return;
    }
    let scene = Scene::with(&[]);
    for number in 0..100_000 {
        fs::write(scene.maildrop().join(format!("{number:06}.eml")), message(number)).unwrap();
    }
    let server = scene.serve(|_| {});
    for run in ["first", "second"] {
        let peak = peak(&scene, server.port());
        eprintln!("peak of the {run} run over 100,000 messages: {} MiB", peak / 1024);
        assert!(peak < MOST, "{run}: {peak} KiB");
    }
}
