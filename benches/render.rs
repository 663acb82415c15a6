//! How long it takes to make a letter of a row: a newsletter of text and HTML with a loop of ten
//! items (13 KB), and a short note (1.2 KB).

mod bare_job;

use std::path::Path;
use std::sync::Arc;

use bare_job::bare_job;
use divan::{Bencher, black_box};
use postroom::job::{MailboxTemplate, TemplateSource, Text};
use postroom::letter::{Cell, Columns, Row};
use postroom::render::{Addressed, Templates};
use serde_json::json;

fn main() {
    divan::main();
}

fn row() -> Row {
    let cells = [
        ("email", "user12345@list7.test"),
        ("name", "José Muñoz"),
        ("city", "São Paulo"),
        ("plan", "pro"),
        ("id", "012345"),
        ("joined", "2019-03-11"),
        ("balance", "123.45"),
        ("lang", "en"),
        ("ref", "0f3a9b77c1"),
        ("score", "4711"),
    ];
    Row {
        number: 1,
        line: None,
        columns: Arc::new(Columns::new(cells.iter().map(|(name, _)| (*name).to_owned()).collect())),
        cells: cells.iter().map(|(_, text)| Cell::Text((*text).to_owned())).collect(),
    }
}

fn newsletter() -> Templates {
    templates(true)
}

fn templates(with_text: bool) -> Templates {
    let inline = |text: &str| Some(TemplateSource::Inline(Text::new(text)));
    let mut job = bare_job(Path::new("/nonexistent"));
    job.subject = Text::new("News for {{ name }} in {{ city }}");
    job.recipients.to = Some(MailboxTemplate { name: None, address: Text::new("{{ email }}") });
    job.body.html = inline(include_str!("newsletter.html"));
    job.body.text = inline(include_str!("newsletter.txt")).filter(|_| with_text);
    let items: Vec<_> = (0..10)
        .map(|n| {
            json!({
                "title": format!("Report Number {n} Of Region"), "text": "Value market weekly simple public order. ".repeat(2),
                "sku": format!("SKU-{}", 1000 + n), "price": "120.00", "member_price": "102.00", "stock": n,
            })
        })
        .collect();
    job.vars = json!({"brand": "Post & Room", "currency": "€", "items": items})
        .as_object()
        .expect("an object")
        .clone();
    Templates::compile(&job, Some(&row().columns)).expect("no mistakes")
}

fn note() -> Templates {
    let mut job = bare_job(Path::new("/nonexistent"));
    job.subject = Text::new("News for {{ name }} in {{ city }}");
    job.body.text = Some(TemplateSource::Inline(Text::new(include_str!("note.txt"))));
    Templates::compile(&job, Some(&row().columns)).expect("no mistakes")
}

#[divan::bench]
fn address(bencher: Bencher) {
    let (templates, row) = (newsletter(), row());
    bencher.bench_local(|| templates.address(black_box(&row)));
}

#[divan::bench]
fn letter_w1(bencher: Bencher) {
    bench_letter(bencher, &newsletter());
}

/// The newsletter without its text, which is then made from the HTML.
#[divan::bench]
fn letter_w1_html_only(bencher: Bencher) {
    bench_letter(bencher, &templates(false));
}

#[divan::bench]
fn letter_w4(bencher: Bencher) {
    bench_letter(bencher, &note());
}

fn bench_letter(bencher: Bencher, templates: &Templates) {
    let row = row();
    let Ok(Addressed::To { to, .. }) = templates.address(&row) else { panic!("not addressed") };
    bencher.bench_local(|| templates.letter(black_box(&row), to.clone(), Vec::new(), Vec::new()));
}
