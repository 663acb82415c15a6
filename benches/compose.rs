//! How long it takes to make bytes of a letter.

use std::sync::Arc;

use divan::{Bencher, black_box};
use postroom::compose::compose;
use postroom::enclosures::part::{self, Disposition};
use postroom::letter::{Letter, ListHeaders, Stamp};

fn main() {
    divan::main();
}

fn stamp() -> Stamp {
    Stamp {
        date: "Mon, 23 Nov 2026 12:30:00 +0000".to_owned(),
        message_id: "<0123456789012345678901234567890123456789@sender.test>".to_owned(),
        boundary: "0123456789abcdef01234567".to_owned(),
    }
}

fn letter(text: Option<&str>, html: Option<&str>) -> Letter {
    Letter {
        from: "Post Room <news@sender.test>".parse().expect("a mailbox"),
        reply_to: Vec::new(),
        to: vec!["José Muñoz <user12345@list7.test>".parse().expect("a mailbox")],
        cc: Vec::new(),
        bcc: Vec::new(),
        subject: "News for José Muñoz in São Paulo".to_owned(),
        text: text.map(str::to_owned),
        html: html.map(str::to_owned),
        headers: Vec::new(),
        list: ListHeaders { auto_submitted: true, ..ListHeaders::default() },
    }
}

/// The raw templates stand for what they become: the same kind of text, somewhat shorter.
fn newsletter() -> Letter {
    let html = include_str!("newsletter.html").repeat(2);
    letter(Some(include_str!("newsletter.txt")), Some(&html[..10_000]))
}

#[divan::bench]
fn w1(bencher: Bencher) {
    let (letter, stamp) = (newsletter(), stamp());
    bencher.bench_local(|| compose(black_box(&letter), &[], &[], &stamp));
}

#[divan::bench]
fn w4(bencher: Bencher) {
    let (letter, stamp) = (letter(Some(include_str!("note.txt")), None), stamp());
    bencher.bench_local(|| compose(black_box(&letter), &[], &[], &stamp));
}

#[divan::bench]
fn w1_chinese(bencher: Bencher) {
    let text = "您好，这是本月的报告，请查收附件。谢谢合作\n".repeat(150);
    let (letter, stamp) = (letter(Some(&text), None), stamp());
    bencher.bench_local(|| compose(black_box(&letter), &[], &[], &stamp));
}

#[divan::bench]
fn w2_shared_megabyte(bencher: Bencher) {
    let bytes = vec![0xa5; 1_000_000];
    let part = Arc::new(part::encode(&bytes, "terms.pdf", None, &Disposition::Attachment));
    let (letter, stamp) = (newsletter(), stamp());
    bencher.bench_local(|| compose(black_box(&letter), &[], std::slice::from_ref(&part), &stamp));
}

#[divan::bench]
fn w3_own_file(bencher: Bencher) {
    let bytes = vec![0xa5; 100_000];
    bencher.bench_local(|| part::encode(black_box(&bytes), "report.pdf", None, &Disposition::Attachment));
}
