//! Where a run stands, while it runs: a bar on a terminal, a line now and then elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::dispatch::Progress;
use crate::talk;

/// Without a terminal a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows a run's progress on stderr.
#[derive(Debug)]
pub(super) struct Show {
    name: String,
    form: Form,
    total: u64,
    started: Instant,
}

#[derive(Debug)]
enum Form {
    Bar(ProgressBar),
    Lines { said: Instant, json: bool, paused: bool },
    Silent,
}

impl Show {
    /// Shows the sending of `total` letters as the command line asks for it.
    pub(super) fn new(name: &str, total: u64) -> Show {
        let terminal = std::io::stderr().is_terminal();
        let form = if talk::is_quiet() {
            Form::Silent
        } else if terminal && !talk::is_json() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let template = "{prefix} {wide_bar} {pos}/{len} {pace}/s, {eta} left {msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("pace", |state: &ProgressState, out: &mut dyn Write| {
                // The bar has nobody to tell that its text could not be put together.
                let _ = write!(out, "{:.0}", state.per_sec());
            }));
            bar.set_prefix(name.to_owned());
            talk::above_a_bar(true);
            Form::Bar(bar)
        } else {
            Form::Lines { said: Instant::now(), json: talk::is_json(), paused: false }
        };
        Show { name: name.to_owned(), form, total, started: Instant::now() }
    }

    /// Shows where it stands.
    pub(super) fn tell(&mut self, progress: &Progress) {
        let counts = &progress.counts;
        let done = counts.accepted + counts.refused + counts.failed + counts.unsure + counts.skipped;
        match &mut self.form {
            Form::Silent => {}
            Form::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(words(progress));
            }
            Form::Lines { said, json, paused } => {
                let turned = std::mem::replace(paused, progress.paused) != progress.paused;
                if said.elapsed() < LINE_EVERY && !turned {
                    return;
                }
                *said = Instant::now();
                if *json {
                    talk::event("progress", facts(progress, done, self.total, &self.name));
                } else {
                    let pace = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
                    eprintln!("postroom: {done} of {} letters, {pace:.0}/s {}", self.total, words(progress));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn end(self) {
        if let Form::Bar(bar) = self.form {
            bar.finish_and_clear();
            talk::above_a_bar(false);
        }
    }
}

/// What is worth saying beside the count.
fn words(progress: &Progress) -> String {
    let counts = &progress.counts;
    let mut said = Vec::new();
    for (number, word) in [
        (counts.refused, "refused"),
        (counts.deferred, "deferred"),
        (counts.failed, "failed"),
        (counts.unsure, "unsure"),
    ] {
        if number > 0 {
            said.push(format!("{number} {word}"));
        }
    }
    if progress.paused {
        said.push("paused".into());
    }
    if progress.away {
        said.push("waiting for the relay".into());
    }
    if let Some(seconds) = progress.waiting {
        said.push(format!("next try in {seconds} s"));
    }
    if said.is_empty() { String::new() } else { format!("({})", said.join(", ")) }
}

fn facts(progress: &Progress, done: u64, total: u64, job: &str) -> serde_json::Value {
    let counts = &progress.counts;
    serde_json::json!({
        "job": job, "done": done, "total": total,
        "accepted": counts.accepted, "refused": counts.refused, "deferred": counts.deferred,
        "failed": counts.failed, "unsure": counts.unsure, "connections": progress.connections,
        "paused": progress.paused, "waiting": progress.waiting, "away": progress.away,
    })
}
