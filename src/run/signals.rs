//! SIGINT, SIGTERM and SIGHUP as words to the engine: the first ends the run with everything recorded,
//! the second ends it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

use crate::dispatch::Control;
use crate::exit::Exit;

/// The signals of this process from now on. The first is passed on to whatever run is going; the
/// third ends the process, should even the second not be heeded.
#[derive(Debug)]
pub(super) struct Signals {
    control: Receiver<Control>,
    /// Kept, so that the receiver never sees a closed channel.
    _sender: Sender<Control>,
    seen: Arc<AtomicI32>,
    count: Arc<AtomicUsize>,
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
        let (noted, counted, passed) = (Arc::clone(&seen), Arc::clone(&count), sender.clone());
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in incoming.forever() {
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
        Ok(Signals { control, _sender: sender, seen, count })
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
