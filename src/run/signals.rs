//! SIGINT, SIGTERM and SIGHUP as words to the engine: the first ends the run with everything recorded,
//! the second ends it at once. Before a run has begun, when there is nothing to record, the first one does.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

use crate::dispatch::Control;
use crate::exit::Exit;

/// What this process does, as far as a signal is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// What was begun is to be recorded: the run ends by itself.
    Work,
    /// Nothing was begun: files are read, a first connection is waited for.
    Preparation,
    /// The same, and a question stands on the terminal.
    Question,
}

/// The signals of this process from now on. The first is passed on to whatever run is going; the
/// third ends the process, should even the second not be heeded.
#[derive(Debug)]
pub(super) struct Signals {
    control: Receiver<Control>,
    /// Kept, so that the receiver never sees a closed channel.
    _sender: Sender<Control>,
    seen: Arc<AtomicI32>,
    count: Arc<AtomicUsize>,
    /// Held by a signal that ends the process, so that nothing is begun meanwhile.
    doing: Arc<Mutex<Doing>>,
}

impl Signals {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Signals> {
        let (sender, control) = unbounded();
        let seen = Arc::new(AtomicI32::new(0));
        // Under `nohup` the end of the terminal is to change nothing.
        let hangup = (!ignored(SIGHUP)).then_some(SIGHUP);
        let mut incoming = Incoming::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
        let count = Arc::new(AtomicUsize::new(0));
        let doing = Arc::new(Mutex::new(Doing::Work));
        let (noted, counted, passed) = (Arc::clone(&seen), Arc::clone(&count), sender.clone());
        let now = Arc::clone(&doing);
        thread::Builder::new().name("signals".into()).spawn(move || {
            // Nobody reads it where the terminal has gone away, and the signal is heeded all the same.
            for signal in incoming.forever() {
                let doing = now.lock().unwrap_or_else(PoisonError::into_inner);
                if *doing != Doing::Work {
                    // Behind the question a line of its own.
                    let line = if *doing == Doing::Question { "\n" } else { "" };
                    eprintln!("{line}postroom: stopped: nothing more was sent");
                    std::process::exit(128 + signal);
                }
                drop(doing);
                noted.store(signal, Ordering::Relaxed);
                match counted.fetch_add(1, Ordering::Relaxed) {
                    0 => {
                        let _ = passed.send(Control::Stop);
                        eprintln!("postroom: stopping: replies are awaited; a second signal ends it at once");
                    }
                    1 => {
                        let _ = passed.send(Control::Abort);
                    }
                    _ => std::process::exit(128 + signal),
                }
            }
        })?;
        Ok(Signals { control, _sender: sender, seen, count, doing })
    }

    /// From now on a signal finds us at this.
    pub(super) fn find(&self, doing: Doing) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// What the engine is to listen to.
    pub(super) fn control(&self) -> Receiver<Control> {
        self.control.clone()
    }

    /// How many came so far.
    pub(super) fn count(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.count)
    }

    /// The exit code of the signal that came, if one came.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.seen.load(Ordering::Relaxed) {
            0 => None,
            SIGTERM => Some(Exit::Terminated),
            SIGHUP => Some(Exit::HungUp),
            _ => Some(Exit::Interrupted),
        }
    }
}

/// Whether whoever started us wants this signal to be ignored, as the system tells it.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
