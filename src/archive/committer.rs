//! The thread that commits: it takes what lies aside, in groups, and never lets anybody wait who need
//! not. While a group is synced the next one gathers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use super::journal::Entry;
use super::store::{Parcel, Store, StoreError, Verdict};

/// What is counted while a mailbox is archived; read by the progress display at any time.
#[derive(Debug, Default)]
pub struct Counts {
    /// The server greeted us and took the login.
    pub entered: AtomicBool,
    /// Committed with a file of their own.
    pub new: AtomicU64,
    /// Committed as bytes that were there.
    pub duplicate: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Messages to fetch.
    pub wanted: AtomicU64,
    /// Octets to fetch, by LIST.
    pub wanted_bytes: AtomicU64,
    /// Messages received.
    pub received: AtomicU64,
    /// Octets received.
    pub received_bytes: AtomicU64,
}

/// What a session asks of the committer.
enum Work {
    /// Commit this; count it there.
    Parcel(Parcel, Arc<Counts>),
    /// Commit all that came before, enter these, then answer.
    Enter(Vec<Entry>, Sender<Result<(), Arc<StoreError>>>),
}

/// So many messages at most in a group: a crash costs fetching them again.
const GROUP: usize = 512;
/// A small group waits so long for company, for a sync costs much the same for one and for a hundred.
const LINGER: Duration = Duration::from_millis(15);
/// A group of this size does not wait.
const ENOUGH: usize = 96;
/// What may lie between the sessions and the committer.
const QUEUE: usize = 1024;

/// The sessions' end.
#[derive(Clone)]
pub struct Desk {
    work: Sender<Work>,
    failed: Arc<AtomicBool>,
}

/// The committer's end.
pub struct Queue {
    work: Receiver<Work>,
    failed: Arc<AtomicBool>,
}

impl Desk {
    /// A desk, and the queue to give to [`serve`].
    pub fn new() -> (Desk, Queue) {
        let (work, queue) = crossbeam_channel::bounded(QUEUE);
        let failed = Arc::new(AtomicBool::new(false));
        (Desk { work, failed: Arc::clone(&failed) }, Queue { work: queue, failed })
    }

    /// Hands over a message. Fails once something could not be stored.
    pub fn hand_over(&self, parcel: Parcel, counts: &Arc<Counts>) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(StoreError::Poisoned);
        }
        self.work.send(Work::Parcel(parcel, Arc::clone(counts))).map_err(|_| StoreError::Poisoned)
    }

    /// Waits until all that was handed over, and these entries, are committed.
    pub fn enter(&self, entries: Vec<Entry>) -> Result<(), Arc<StoreError>> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let lost = || Arc::new(StoreError::Poisoned);
        self.work.send(Work::Enter(entries, answer)).map_err(|_| lost())?;
        answered.recv().unwrap_or_else(|_| Err(lost()))
    }
}

/// What the committer did.
#[derive(Debug, Default)]
pub struct Done {
    /// When the last group was committed.
    pub last_commit: Option<Instant>,
    /// What could not be stored, and why: the first trouble.
    pub trouble: Option<Arc<StoreError>>,
}

/// Serves until all desks are gone. `committed` is called after each group.
pub fn serve(store: &mut Store, queue: &Queue, now: impl Fn() -> i64, mut committed: impl FnMut()) -> Done {
    let Queue { work: queue, failed } = queue;
    let mut done = Done::default();
    let mut parcels: Vec<Parcel> = Vec::with_capacity(GROUP);
    let mut counted: Vec<Arc<Counts>> = Vec::with_capacity(GROUP);
    loop {
        let mut asked = None;
        let mut open = true;
        match queue.recv() {
            Ok(Work::Parcel(parcel, counts)) => {
                parcels.push(parcel);
                counted.push(counts);
            }
            Ok(Work::Enter(entries, answer)) => asked = Some((entries, answer)),
            Err(_) => return done,
        }
        let begun = Instant::now();
        while asked.is_none() && parcels.len() < GROUP {
            let next = match queue.try_recv() {
                Ok(work) => Ok(work),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if parcels.len() >= ENOUGH => break,
                Err(TryRecvError::Empty) => queue.recv_timeout(LINGER.saturating_sub(begun.elapsed())),
            };
            match next {
                Ok(Work::Parcel(parcel, counts)) => {
                    parcels.push(parcel);
                    counted.push(counts);
                }
                Ok(Work::Enter(entries, answer)) => asked = Some((entries, answer)),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        if !parcels.is_empty() {
            match store.commit(&parcels, now()) {
                Ok(verdicts) => {
                    for ((verdict, counts), parcel) in verdicts.iter().zip(&counted).zip(&parcels) {
                        let counter = match verdict {
                            Verdict::New => &counts.new,
                            Verdict::Duplicate => &counts.duplicate,
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                        counts.bytes.fetch_add(parcel.receipt.size, Ordering::Relaxed);
                    }
                    done.last_commit = Some(Instant::now());
                    committed();
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    done.trouble.get_or_insert_with(|| Arc::new(error));
                }
            }
            parcels.clear();
            counted.clear();
        }
        if let Some((entries, answer)) = asked {
            let entered = match &done.trouble {
                Some(trouble) => Err(Arc::clone(trouble)),
                None if entries.is_empty() => Ok(()),
                None => store.enter(&entries).map(|_| ()).map_err(Arc::new),
            };
            if let Err(error) = &entered {
                failed.store(true, Ordering::Relaxed);
                done.trouble.get_or_insert_with(|| Arc::clone(error));
            }
            // Whoever asked may be gone by now; then nobody wants to know.
            let _ = answer.send(entered);
        }
        if !open {
            return done;
        }
    }
}
