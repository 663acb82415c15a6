//! What is seen of an archive while it grows.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use indicatif::{ProgressBar, ProgressStyle};

use super::Options;
use crate::archive::committer::Counts;
use crate::measure::ByteSize;
use crate::talk;

/// What is seen while it runs: a bar on a terminal, elsewhere a line now and then, with `--quiet` nothing.
pub(super) struct Progress {
    over: Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// What is seen as long as no mailbox is open.
const OUTSIDE: &str = "waiting for the server to let us in";

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    /// Begins to show what is counted.
    pub(super) fn start(job: &str, counts: Vec<Arc<Counts>>, options: &Options) -> Progress {
        let (over, end) = crossbeam_channel::bounded(0);
        let (job, bars, quiet) = (job.to_owned(), options.bars.clone(), options.quiet);
        let thread = std::thread::spawn(move || {
            if quiet {
                return;
            }
            match std::io::stderr().is_terminal() && !talk::is_json() {
                true => draw(bars.add(ProgressBar::new(0)).with_prefix(job), &counts, &end),
                false => tell(&job, &counts, &end),
            }
        });
        Progress { over, thread }
    }

    /// Takes it away.
    pub(super) fn finish(self) {
        drop(self.over);
        // A display that failed has nothing to tell.
        let _ = self.thread.join();
    }
}

/// What was counted so far, of all mailboxes.
struct Sums {
    received: u64,
    wanted: u64,
    bytes: u64,
    wanted_bytes: u64,
    /// No server has let us in yet. A wrong port may be the reason, and a server is given minutes.
    outside: bool,
}

impl Sums {
    fn of(counts: &[Arc<Counts>]) -> Sums {
        let sum = |pick: fn(&Counts) -> u64| counts.iter().map(|counts| pick(counts)).sum();
        Sums {
            received: sum(|counts| counts.received.load(Relaxed)),
            wanted: sum(|counts| counts.wanted.load(Relaxed)),
            bytes: sum(|counts| counts.received_bytes.load(Relaxed)),
            wanted_bytes: sum(|counts| counts.wanted_bytes.load(Relaxed)),
            outside: counts.iter().all(|counts| !counts.entered.load(Relaxed)),
        }
    }
}

/// Draws a bar until the end.
fn draw(bar: ProgressBar, counts: &[Arc<Counts>], end: &Receiver<()>) {
    let style = ProgressStyle::with_template(
        "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg} {eta} left",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    talk::above_a_bar(true);
    while end.recv_timeout(Duration::from_millis(100)).is_err_and(|error| error.is_timeout()) {
        let Sums { received, wanted, bytes, wanted_bytes, outside } = Sums::of(counts);
        bar.set_length(wanted_bytes);
        bar.set_position(bytes);
        bar.set_message(match outside {
            true => OUTSIDE.to_owned(),
            false => format!("{received}/{wanted} messages"),
        });
    }
    bar.finish_and_clear();
    talk::above_a_bar(false);
}

/// Writes a line now and then until the end.
fn tell(job: &str, counts: &[Arc<Counts>], end: &Receiver<()>) {
    let begun = Instant::now();
    while end.recv_timeout(LINE_EVERY).is_err_and(|error| error.is_timeout()) {
        let Sums { received, wanted, bytes, wanted_bytes, outside } = Sums::of(counts);
        if talk::is_json() {
            let facts = serde_json::json!({
                "job": job, "received": received, "wanted": wanted, "bytes": bytes,
                "wanted_bytes": wanted_bytes, "away": outside,
            });
            talk::event("progress", facts);
            continue;
        }
        if outside {
            eprintln!("{job}: {OUTSIDE}");
            continue;
        }
        let left = match bytes {
            0 => "unknown".to_owned(),
            _ => format!(
                "{:.0} s",
                begun.elapsed().as_secs_f64() * wanted_bytes.saturating_sub(bytes) as f64 / bytes as f64
            ),
        };
        eprintln!(
            "{job}: {received} of {wanted} messages, {} of {}, time left: {left}",
            ByteSize(bytes),
            ByteSize(wanted_bytes)
        );
    }
}
