//! What the processes of one machine share of an account (host and user): its pace and its connections.
//!
//! In a folder of the user's lie, named by a hash of the account, a file with the time at which its next letter is
//! due, and a file for each connection that it may have. Both are guarded by locks that the system releases when
//! their holder dies. No lock is waited for: who cannot have one comes again a moment later, and who cannot use the
//! folder at all says so once and goes alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::job::RelaySpec;

/// A lock of a pace is held for some microseconds. Tried so often at once before it is left for later.
const TRIES: u32 = 50;
/// A lock of a pace that is not to be had for so long belongs to a process that was stopped in the middle.
const STUCK: Duration = Duration::from_secs(2);
/// A wish for a connection is made again while it lasts; one that is older is over.
const WISH: Duration = Duration::from_secs(1);
/// No record is longer.
const RECORD: usize = 64;

/// Where the accounts of this machine are kept, and whom to tell when that does not work.
#[derive(Clone)]
pub struct Accounts {
    folder: Option<PathBuf>,
    say: Arc<dyn Fn(&str) + Send + Sync>,
    leave: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Only what went wrong is said.
    quiet: bool,
}

impl Accounts {
    /// Nothing is shared: for relays of our own.
    pub fn alone() -> Accounts {
        Accounts::unshared(|_| {}, || false)
    }

    /// Nothing is shared, for want of a folder; `say` and `leave` are as with [`Accounts::at`].
    pub fn unshared(
        say: impl Fn(&str) + Send + Sync + 'static,
        leave: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Accounts {
        Accounts { folder: None, say: Arc::new(say), leave: Arc::new(leave), quiet: false }
    }

    /// Shared with all who use this folder, which is there and is nobody else's. `say` gets what people should know;
    /// `leave` tells that a run should rather end than wait any longer for its first connection.
    pub fn at(
        folder: &Path,
        say: impl Fn(&str) + Send + Sync + 'static,
        leave: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Accounts {
        Accounts { folder: Some(folder.to_owned()), say: Arc::new(say), leave: Arc::new(leave), quiet: false }
    }

    /// The same, saying only what went wrong.
    pub fn quiet(self, quiet: bool) -> Accounts {
        Accounts { quiet, ..self }
    }

    /// The account that a relay is used with.
    pub(super) fn of_relay(&self, spec: &RelaySpec) -> Account {
        self.account(&spec.host, spec.port, spec.auth.as_ref().map_or("", |auth| auth.user.as_str()))
    }

    /// The account of a user at a server.
    pub(super) fn account(&self, host: &str, port: u16, user: &str) -> Account {
        let said = Arc::new(AtomicBool::new(false));
        let account = |shared| Account { shared, accounts: self.clone(), said: Arc::clone(&said) };
        let Some(folder) = &self.folder else { return account(None) };
        match Clock::of_this_boot() {
            Ok(clock) => account(Some((folder.join(name(host, port, user)), clock))),
            Err(error) => {
                let account = account(None);
                account.goes_alone(&error.to_string());
                account
            }
        }
    }

    pub(super) fn leaves(&self) -> bool {
        (self.leave)()
    }

    pub(super) fn say(&self, words: &str) {
        (self.say)(words);
    }

    /// Says what may turn out well yet.
    pub(super) fn mention(&self, words: &str) {
        if !self.quiet {
            self.say(words);
        }
    }
}

/// The account of one relay.
pub(super) struct Account {
    /// What its files' names begin with, and the clock that is the same in all processes.
    shared: Option<(PathBuf, Clock)>,
    accounts: Accounts,
    /// That it goes alone was said.
    said: Arc<AtomicBool>,
}

impl Account {
    /// The pace of the account; with `domains`, that of a group of them.
    pub(super) fn book(&self, domains: &[String]) -> Option<Book> {
        let (base, clock) = self.shared.as_ref()?;
        let path = match domains {
            [] => side_file(base, "pace"),
            _ => {
                let mut sorted = domains.to_vec();
                sorted.sort();
                side_file(base, &format!("pace-{}", &hash(&sorted.join(" "))[..16]))
            }
        };
        match open(&path) {
            Ok(file) => Some(Book {
                file,
                clock: *clock,
                stuck_since: None,
                accounts: self.accounts.clone(),
                said: Arc::clone(&self.said),
            }),
            Err(error) => {
                self.goes_alone(&format!("{}: {error}", path.display()));
                None
            }
        }
    }

    /// The connections of the account.
    pub(super) fn berths(&self, most: usize) -> Berths {
        let me = format!("{:016x}", std::hash::RandomState::new().build_hasher().finish());
        Berths {
            shared: self.shared.clone(),
            most,
            me,
            said: Arc::clone(&self.said),
            accounts: self.accounts.clone(),
        }
    }

    fn goes_alone(&self, reason: &str) {
        goes_alone(&self.accounts, &self.said, reason);
    }
}

fn goes_alone(accounts: &Accounts, said: &AtomicBool, reason: &str) {
    if !said.swap(true, Ordering::Relaxed) {
        accounts.say(&format!("pace and connections are not shared with other runs: {reason}"));
    }
}

/// The name of an account's files. On loopback, where tests and tunnels live, each port is a server of its own.
fn name(host: &str, port: u16, user: &str) -> String {
    let host = host.trim_end_matches('.').to_lowercase();
    let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let port = if loopback { format!(":{port}") } else { String::new() };
    hash(&format!("{host}{port}\n{user}"))[..32].to_owned()
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn side_file(base: &Path, ending: &str) -> PathBuf {
    let mut path = base.as_os_str().to_owned();
    path.push(format!(".{ending}"));
    PathBuf::from(path)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The machine's clock that never jumps, as a number that other processes understand, until the next boot.
#[derive(Debug, Clone, Copy)]
struct Clock {
    boot: u64,
    at: Instant,
    nanos: i64,
}

impl Clock {
    fn of_this_boot() -> io::Result<Clock> {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
        let boot =
            blake3::hash(&id).as_bytes()[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        // An `Instant` is this very clock; only its number is not told.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Ok(Clock { boot, at: Instant::now(), nanos: now.tv_sec.saturating_mul(1_000_000_000) + now.tv_nsec })
    }

    fn nanos(&self, instant: Instant) -> i64 {
        let since = instant.saturating_duration_since(self.at).as_nanos() as i64;
        let before = self.at.saturating_duration_since(instant).as_nanos() as i64;
        self.nanos.saturating_add(since).saturating_sub(before)
    }

    fn instant(&self, nanos: i64) -> Option<Instant> {
        let apart = Duration::from_nanos(nanos.abs_diff(self.nanos));
        if nanos < self.nanos { self.at.checked_sub(apart) } else { self.at.checked_add(apart) }
    }

    /// A time and a word, as a record; a time of another boot means nothing.
    fn read(&self, file: &File) -> io::Result<Option<(Instant, String)>> {
        let mut bytes = [0; RECORD];
        let filled = file.read_at(&mut bytes, 0)?;
        let text = String::from_utf8_lossy(&bytes[..filled]);
        let mut words = text.lines().next().unwrap_or_default().split(' ');
        let boot = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
        let time = words.next().and_then(|word| word.parse().ok()).and_then(|nanos| self.instant(nanos));
        let word = words.next().unwrap_or_default().to_owned();
        Ok(time.filter(|_| boot == Some(self.boot)).map(|time| (time, word)))
    }

    fn write(&self, file: &File, time: Instant, word: &str) -> io::Result<()> {
        let record = format!("{:016x} {:020} {word}\n", self.boot, self.nanos(time));
        file.write_all_at(record.as_bytes(), 0)
    }
}

/// When a letter of an account was started last, for all processes.
pub(super) struct Book {
    file: File,
    clock: Clock,
    stuck_since: Option<Instant>,
    accounts: Accounts,
    said: Arc<AtomicBool>,
}

/// What came of a turn with the book.
pub(super) enum Turn<T> {
    /// It was had.
    Had(T),
    /// Another process has it in this moment.
    NotNow,
    /// It is of no use.
    Broken,
}

impl Book {
    /// Reads when a letter was started last, had all come evenly, and writes what `decide` makes of it, while
    /// nobody else can.
    pub(super) fn turn<T>(
        &mut self,
        now: Instant,
        decide: impl FnOnce(Option<Instant>) -> (Option<Instant>, T),
    ) -> Turn<T> {
        match self.locked() {
            Ok(true) => self.stuck_since = None,
            Ok(false) => {
                let since = *self.stuck_since.get_or_insert(now);
                if now.saturating_duration_since(since) < STUCK {
                    return Turn::NotNow;
                }
                return self.broken("another process holds the lock and does not go on");
            }
            Err(error) => return self.broken(&error.to_string()),
        }
        let told = self.clock.read(&self.file).and_then(|due| {
            let (next, told) = decide(due.map(|(due, _)| due));
            next.map_or(Ok(()), |next| self.clock.write(&self.file, next, "last"))?;
            Ok(told)
        });
        match told.and_then(|told| self.file.unlock().map(|()| told)) {
            Ok(told) => Turn::Had(told),
            Err(error) => self.broken(&error.to_string()),
        }
    }

    fn locked(&self) -> io::Result<bool> {
        for _ in 0..TRIES {
            match self.file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    fn broken<T>(&self, reason: &str) -> Turn<T> {
        goes_alone(&self.accounts, &self.said, reason);
        Turn::Broken
    }
}

/// The right to one connection, while this value lives.
pub(super) struct Berth {
    /// Never read: closing it releases the lock. `None` where nothing is shared.
    _file: Option<File>,
}

/// The connections that an account may have, over all processes: a locked file for each.
pub(super) struct Berths {
    shared: Option<(PathBuf, Clock)>,
    most: usize,
    /// What we are called in the files.
    me: String,
    accounts: Accounts,
    said: Arc<AtomicBool>,
}

impl Berths {
    /// Whether others are heeded at all.
    pub(super) fn are_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// One more connection, for a pool that has `mine`; `None`: others have them all, and it was asked for.
    pub(super) fn take(&self, mine: usize, now: Instant) -> Option<Berth> {
        let Some((base, clock)) = &self.shared else { return Some(Berth { _file: None }) };
        match self.find(base, clock, mine, now) {
            Ok(found) => found,
            Err(error) => {
                goes_alone(&self.accounts, &self.said, &error.to_string());
                Some(Berth { _file: None })
            }
        }
    }

    /// Whether another process has no connection, or fewer than its share, and we, who have `mine`, should give one
    /// back. Of `idle` ones the last is given, too.
    pub(super) fn are_asked_for(&self, mine: usize, idle: bool, now: Instant) -> bool {
        let Some((base, clock)) = &self.shared else { return false };
        let Some(other) = self.wish(base, clock, now) else { return false };
        // What cannot be read is asked for by nobody.
        let Ok(mut holders) = self.holders(base) else { return false };
        holders.push(other);
        idle || mine > self.share(holders)
    }

    fn find(&self, base: &Path, clock: &Clock, mine: usize, now: Instant) -> io::Result<Option<Berth>> {
        // Who has one lets those go first who ask.
        if mine > 0 && self.wish(base, clock, now).is_some() {
            return Ok(None);
        }
        // While nobody else is there, the first ones are ours.
        for n in (mine..self.most).chain(0..mine.min(self.most)) {
            let file = open(&side_file(base, &n.to_string()))?;
            match file.try_lock() {
                Ok(()) => {
                    file.write_all_at(format!("{}\n", self.me).as_bytes(), 0)?;
                    return Ok(Some(Berth { _file: Some(file) }));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        if mine < self.share(self.holders(base)?) {
            clock.write(&open(&side_file(base, "wish"))?, now, &self.me)?;
        }
        Ok(None)
    }

    /// Who else asks for a connection now.
    fn wish(&self, base: &Path, clock: &Clock, now: Instant) -> Option<String> {
        // A file that is not there holds no wish.
        let file = File::open(side_file(base, "wish")).ok()?;
        let (at, who) = clock.read(&file).ok()??;
        (now.saturating_duration_since(at) < WISH && who != self.me).then_some(who)
    }

    /// Who has connections now, each as often as it has some.
    fn holders(&self, base: &Path) -> io::Result<Vec<String>> {
        let mut holders = Vec::new();
        for n in 0..self.most {
            let file = match File::open(side_file(base, &n.to_string())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut bytes = [0; RECORD];
                    let filled = file.read_at(&mut bytes, 0)?;
                    let text = String::from_utf8_lossy(&bytes[..filled]);
                    holders.push(text.lines().next().unwrap_or_default().to_owned());
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(holders)
    }

    /// What is ours of all connections, when these have some or ask for one.
    fn share(&self, mut others: Vec<String>) -> usize {
        others.push(self.me.clone());
        others.sort();
        others.dedup();
        (self.most / others.len()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(folder: &Path) -> Account {
        Accounts::at(folder, |words| panic!("{words}"), || false).account("mx.example.com", 25, "me")
    }

    #[test]
    fn an_account_is_host_and_user() {
        for (one, other, same) in [
            (("mx.example.com", 25, "me"), ("MX.example.com.", 587, "me"), true),
            (("mx.example.com", 25, "me"), ("mx.example.com", 25, "you"), false),
            (("mx.example.com", 25, "me"), ("mx.example.org", 25, "me"), false),
            (("127.0.0.1", 25, "me"), ("127.0.0.1", 26, "me"), false),
        ] {
            let name = |(host, port, user)| name(host, port, user);
            assert_eq!(name(one) == name(other), same, "{one:?} {other:?}");
        }
    }

    #[test]
    fn berths_are_shared_out_and_come_back() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let later = |n: u64| now + Duration::from_secs(2 * n);
        let (one, two) = (account(folder.path()).berths(4), account(folder.path()).berths(4));
        let mut ours: Vec<Berth> = (0..4).map(|mine| one.take(mine, now).expect("free")).collect();
        assert!(one.take(4, now).is_none(), "no fifth");
        assert!(!one.are_asked_for(4, true, now), "nobody asks");
        let mut theirs = Vec::new();
        for (n, expected) in [(1, true), (2, true), (3, false)] {
            let got = two.take(theirs.len(), later(n));
            assert!(got.is_none(), "all are taken");
            assert_eq!(one.are_asked_for(ours.len(), false, later(n)), expected, "{n}");
            if expected {
                ours.pop();
                assert!(one.take(ours.len(), later(n)).is_none(), "who asked comes first");
                theirs.push(two.take(theirs.len(), later(n)).expect("it was given back"));
            }
        }
        assert_eq!((ours.len(), theirs.len()), (2, 2));
        // Death releases what it had.
        drop(theirs);
        let more: Vec<Berth> = (2..4).map(|mine| one.take(mine, later(9)).expect("free again")).collect();
        assert_eq!(more.len(), 2);
    }

    #[test]
    fn an_idle_connection_is_given_to_who_asks() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let (one, two) = (account(folder.path()).berths(1), account(folder.path()).berths(1));
        let berth = one.take(0, now).expect("free");
        assert!(two.take(0, now).is_none());
        assert!(!one.are_asked_for(1, false, now), "it is used");
        assert!(one.are_asked_for(1, true, now));
        assert!(!one.are_asked_for(1, true, now + 2 * WISH), "the wish is over");
        drop(berth);
        assert!(two.take(0, now).is_some());
    }

    #[test]
    fn a_time_is_the_same_for_all_and_ends_with_the_boot() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let (mut one, mut two) =
            (account(folder.path()).book(&[]).unwrap(), account(folder.path()).book(&[]).unwrap());
        let due = now + Duration::from_secs(5);
        assert!(matches!(one.turn(now, |before| (Some(due), before)), Turn::Had(None)));
        let Turn::Had(Some(read)) = two.turn(now, |before| (None, before)) else { panic!("no due") };
        let apart = read.saturating_duration_since(due).max(due.saturating_duration_since(read));
        assert!(apart < Duration::from_millis(1), "{apart:?}");
        two.clock.boot += 1;
        assert!(matches!(two.turn(now, |before| (None, before)), Turn::Had(None)));
        let mut group = account(folder.path()).book(&["gmail.com".to_owned()]).unwrap();
        assert!(matches!(group.turn(now, |before| (None, before)), Turn::Had(None)), "a pace of its own");
    }

    #[test]
    fn a_lock_that_is_never_released_is_not_waited_for() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let said = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&said);
        let accounts = Accounts::at(folder.path(), move |_| heard.store(true, Ordering::Relaxed), || false);
        let account = accounts.account("mx.example.com", 25, "me");
        let (mut book, held) = (account.book(&[]).unwrap(), account.book(&[]).unwrap());
        held.file.lock().unwrap();
        assert!(matches!(book.turn(now, |_| (None, ())), Turn::NotNow));
        assert!(!said.load(Ordering::Relaxed));
        assert!(matches!(book.turn(now + STUCK, |_| (None, ())), Turn::Broken));
        assert!(said.load(Ordering::Relaxed));
    }
}
