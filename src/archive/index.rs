//! `index.db`: headers, attachments' names and words of every archived message, to be searched. It is
//! derived from journal and files: made in a thread of its own while messages arrive, mended at start,
//! made anew when it does not fit the journal.
//!
//! What a word is, `terms` says. Which column a word is in is kept, where in the text it stands is not: half
//! the size and work.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params,
};
use rustix::fs::FlockOperation;

use super::digest::Digest;
use super::journal::{self, Entry, Lines, Position};
use super::session::Stop;
use super::shelf::Places;
use super::store;
use super::terms::Terms;
use crate::database;
use crate::failpoint;
use crate::read::{Address, Keep, Part, Scanner, html};

/// The file's name within the store.
pub const NAME: &str = "index.db";

/// Why the index could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite.
    #[error("the index: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file.
    #[error("the index: {0}")]
    Io(#[from] io::Error),
    /// A thread ended by a mistake of this program.
    #[error("the index was not completed")]
    Lost,
    /// There is none.
    #[error("there is no index; `postroom rebuild` makes it")]
    Missing,
}

/// Raised when what the tables hold changes: an index of another form is made anew.
const FORM: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE state(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE messages(
    id INTEGER PRIMARY KEY,      -- where its line begins in the journal; numbers may come twice after damage
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    date INTEGER,                -- seconds since 1970
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    attachments TEXT NOT NULL    -- names, one a line
);
CREATE INDEX messages_by_date ON messages(date);
CREATE VIRTUAL TABLE words USING fts5(
    sender, recipients, subject, attachments, body,
    content='', contentless_delete=0, columnsize=0, detail=column, tokenize='ascii'
);
INSERT INTO words(words, rank) VALUES('hashsize', 4194304);
";

/// Messages in a transaction.
const GROUP: usize = 1000;
/// Of a text part, so much is searched; a longer one is a log file.
const TEXT: usize = 192 * 1024;

/// Makes the index in a thread, while the archive grows.
pub struct Builder {
    more: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), IndexError>>,
}

impl Builder {
    /// Begins with what the journal has by now.
    pub fn start(store: &Path) -> Builder {
        let (more, wanted) = crossbeam_channel::bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (store, stopped) = (store.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || follow(&store, &wanted, &stopped));
        Builder { more, stop, thread }
    }

    /// The journal has more.
    pub fn more(&self) {
        // If a word of it waits already, one is enough.
        let _ = self.more.try_send(());
    }

    /// Waits until everything is in the index, or, when a stop is asked for, until it is consistent.
    pub fn finish(self, stop: &Stop) -> Result<(), IndexError> {
        self.more();
        drop(self.more);
        while !self.thread.is_finished() {
            if stop.asked() {
                self.stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        self.thread.join().unwrap_or(Err(IndexError::Lost))
    }
}

/// Makes the index anew, whole.
pub fn rebuild(store: &Path) -> Result<u64, IndexError> {
    remove(store)?;
    let (more, wanted) = crossbeam_channel::bounded(1);
    let _ = more.try_send(());
    drop(more);
    follow(store, &wanted, &AtomicBool::new(false))?;
    let database = open_to_read(store)?;
    let count: i64 = database.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What is in the index: paths and hashes, in the journal's order.
pub fn entries(store: &Path, mut each: impl FnMut(&str, &str)) -> Result<(), IndexError> {
    let database = open_to_read(store)?;
    let mut rows = database.prepare("SELECT path, sha256 FROM messages ORDER BY id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
        each(text(0)?, text(1)?);
    }
    Ok(())
}

/// Opens the index to search it.
pub fn open_to_read(store: &Path) -> Result<Connection, IndexError> {
    let path = store.join(NAME);
    if !path.is_file() {
        return Err(IndexError::Missing);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(&path, flags).and_then(|database| {
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(database)
    });
    // Reading a database with a write-ahead log writes beside it.
    let cannot_write = |error: &rusqlite::Error| {
        matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
    };
    Ok(opened.or_else(|error| {
        // Somebody else may be able to, and be at it.
        let at_rest = store::lock(store, FlockOperation::NonBlockingLockShared).is_ok();
        match cannot_write(&error) && at_rest {
            true => database::open_alone(&path)?.ok_or(error),
            false => Err(error),
        }
    })?)
}

fn remove(store: &Path) -> io::Result<()> {
    for name in [NAME.to_owned(), format!("{NAME}-wal"), format!("{NAME}-shm")] {
        match std::fs::remove_file(store.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Follows the journal until it is told that there is no more.
fn follow(store: &Path, wanted: &Receiver<()>, stop: &AtomicBool) -> Result<(), IndexError> {
    // Receiving goes first; on Linux this concerns the calling thread alone.
    let _ = rustix::process::nice(10);
    let workers = Workers::start(store);
    let mut database = open(store)?;
    let mut place = match mend(store, &database)? {
        Some(place) => place,
        None => {
            drop(database);
            remove(store)?;
            database = open(store)?;
            mend(store, &database)?.unwrap_or(Place::START)
        }
    };
    loop {
        let over = wanted.recv().is_err();
        place = catch_up(store, &mut database, &workers, place, stop)?;
        if over || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
}

fn open(store: &Path) -> Result<Connection, IndexError> {
    let path = store.join(NAME);
    // SQLite makes its files as the umask allows; this one is for its owner.
    drop(super::store::private().write(true).create(true).truncate(false).open(&path)?);
    let database = Connection::open(&path)?;
    // WAL with NORMAL: a power cut costs the last transactions, never the whole.
    database.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-4000; PRAGMA wal_autocheckpoint=4000;",
    )?;
    Ok(database)
}

/// How far the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Up to which line.
    position: Position,
    /// Where that line begins.
    line: u64,
    /// Messages so far.
    count: u64,
}

impl Place {
    const START: Place = Place { position: Position::START, line: 0, count: 0 };
}

/// Where the index is in the journal; `None` if it does not belong to it or rows are missing.
fn mend(store: &Path, database: &Connection) -> Result<Option<Place>, IndexError> {
    let read = || -> Result<Option<Place>, rusqlite::Error> {
        let number = |key: &str| -> Result<Option<i64>, rusqlite::Error> {
            database.query_row("SELECT value FROM state WHERE key = ?", [key], |row| row.get(0)).optional()
        };
        let tables: i64 =
            database
                .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'state'", [], |row| row.get(0))?;
        if tables == 0 {
            // In one transaction: whoever dies on the way leaves no half of it behind.
            database.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} INSERT INTO state VALUES('form', {FORM}); COMMIT;"
            ))?;
            return Ok(Some(Place::START));
        }
        if number("form")? != Some(FORM) {
            return Ok(None);
        }
        let Some(last) = number("number")? else { return Ok(Some(Place::START)) };
        let hash: Option<String> = database
            .query_row("SELECT value FROM state WHERE key = 'hash'", [], |row| row.get(0))
            .optional()?;
        let count = number("count")?.unwrap_or(0);
        let rows: i64 = database.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
        if rows != count {
            return Ok(None);
        }
        let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        Ok(Some(Place {
            position: Position {
                number: unsigned(Some(last)),
                offset: unsigned(number("offset")?),
                previous: hash.as_deref().and_then(Digest::parse),
            },
            line: unsigned(number("line")?),
            count: unsigned(Some(count)),
        }))
    };
    // A file that is no database, or a broken one, is made anew.
    let Ok(Some(place)) = read() else { return Ok(None) };
    Ok(belongs(store, &place)?.then_some(place))
}

/// Whether the last line that the index knows is still that line of the journal.
fn belongs(store: &Path, place: &Place) -> io::Result<bool> {
    if place.position == Position::START {
        return Ok(true);
    }
    let before = Position { number: place.position.number - 1, offset: place.line, previous: None };
    let Some(mut lines) = journal::read(store, before)? else { return Ok(false) };
    let found = lines.next_line()?;
    Ok(found.is_some_and(|found| found.line.is_some()) && lines.position() == place.position)
}

/// Brings everything into the index that the journal has after `place`.
fn catch_up(
    store: &Path,
    database: &mut Connection,
    workers: &Workers,
    mut place: Place,
    stop: &AtomicBool,
) -> Result<Place, IndexError> {
    // Each time from where the last group ended: its reader may have gone on beyond that.
    while let Some(mut lines) = journal::read(store, place.position)? {
        let transaction = database.transaction()?;
        let (read, next) = enter_group(&transaction, &mut lines, workers, place, stop)?;
        if read == 0 {
            break;
        }
        note(&transaction, &next)?;
        failpoint::reach("archive.index.before");
        transaction.commit()?;
        failpoint::reach("archive.index.after");
        place = next;
        if read < GROUP || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(place)
}

/// Enters the messages of the next lines, at most a group. Gives how many lines, and where the index is with them.
fn enter_group(
    transaction: &Transaction<'_>,
    lines: &mut Lines<impl io::BufRead>,
    workers: &Workers,
    mut place: Place,
    stop: &AtomicBool,
) -> Result<(usize, Place), IndexError> {
    let mut entering = Entering::prepare(transaction)?;
    let (mut asked, mut answered, mut read, mut open) = (0, 0, 0, true);
    while open || answered < asked {
        while open && asked - answered < WINDOW {
            let before = lines.position();
            // A line that is being written just now is read the next time.
            let Some(found) = lines.next_line()? else {
                open = false;
                break;
            };
            let Some(line) = found.line else {
                if matches!(found.damage, Some(journal::Damage::Torn(_))) {
                    open = false;
                    break;
                }
                continue;
            };
            read += 1;
            place.position = lines.position();
            place.line = before.offset;
            if line.entry.what.has_file() {
                asked += 1;
                place.count += 1;
                workers.ask(line.offset, line.entry)?;
            }
            if read >= GROUP || stop.load(Ordering::Relaxed) {
                open = false;
            }
        }
        if answered < asked {
            entering.enter(workers.answer()?)?;
            answered += 1;
        }
    }
    Ok((read, place))
}

/// What enters a message.
struct Entering<'t> {
    message: CachedStatement<'t>,
    words: CachedStatement<'t>,
}

impl<'t> Entering<'t> {
    fn prepare(transaction: &'t Transaction<'_>) -> Result<Entering<'t>, rusqlite::Error> {
        let message = "INSERT OR REPLACE INTO messages VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let words = "INSERT INTO words(rowid, sender, recipients, subject, attachments, body) VALUES(?, ?, ?, ?, ?, ?)";
        Ok(Entering {
            message: transaction.prepare_cached(message)?,
            words: transaction.prepare_cached(words)?,
        })
    }

    fn enter(&mut self, document: Document) -> Result<(), rusqlite::Error> {
        let Document { id, entry, sender, recipients, subject, attachments, tokens } = document;
        let sha256 = entry.sha256.map(|digest| digest.to_string());
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
        self.message.execute(params![
            id,
            entry.path,
            sha256,
            size,
            entry.date,
            sender,
            recipients,
            subject,
            attachments
        ])?;
        let [a, b, c, d, e] = &tokens;
        self.words.execute(params![id, a, b, c, d, e])?;
        Ok(())
    }
}

/// Notes how far the index is.
fn note(transaction: &Transaction<'_>, place: &Place) -> Result<(), rusqlite::Error> {
    for (key, value) in [
        ("number", place.position.number),
        ("offset", place.position.offset),
        ("line", place.line),
        ("count", place.count),
    ] {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        transaction.execute("INSERT OR REPLACE INTO state VALUES(?, ?)", params![key, value])?;
    }
    let hash = place.position.previous.map(|hash| hash.to_string());
    transaction.execute("INSERT OR REPLACE INTO state VALUES('hash', ?)", params![hash])?;
    Ok(())
}

/// So many messages are read ahead of what is entered.
const WINDOW: usize = 32;

/// A message as the index has it.
struct Document {
    id: u64,
    entry: Entry,
    sender: String,
    recipients: String,
    subject: String,
    attachments: String,
    /// The columns' words, each once.
    tokens: [String; 5],
}

/// Threads that read messages.
struct Workers {
    work: Sender<(u64, Entry)>,
    done: Receiver<Result<Document, io::Error>>,
}

impl Workers {
    fn start(store: &Path) -> Workers {
        let (work, queue) = crossbeam_channel::bounded::<(u64, Entry)>(WINDOW);
        let (answer, done) = crossbeam_channel::bounded(WINDOW);
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get()).clamp(1, 4);
        let places = Arc::new(Places::of(store));
        for _ in 0..threads {
            let (queue, answer, store) = (queue.clone(), answer.clone(), store.to_owned());
            let places = Arc::clone(&places);
            std::thread::spawn(move || {
                let _ = rustix::process::nice(10);
                let mut buffer = vec![0; 128 * 1024];
                for (id, entry) in queue {
                    if answer.send(document(&store, &places, id, entry, &mut buffer)).is_err() {
                        return;
                    }
                }
            });
        }
        Workers { work, done }
    }

    fn ask(&self, id: u64, entry: Entry) -> Result<(), IndexError> {
        self.work.send((id, entry)).map_err(|_| IndexError::Lost)
    }

    fn answer(&self) -> Result<Document, IndexError> {
        Ok(self.done.recv().map_err(|_| IndexError::Lost)??)
    }
}

/// Reads a message. One that is not there is entered without words: `verify` names it.
fn document(store: &Path, places: &Places, id: u64, entry: Entry, buffer: &mut [u8]) -> io::Result<Document> {
    let path: PathBuf = store.join(&entry.path);
    let file = match File::open(&path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            places.find(&entry.path).map(|path| File::open(store.join(path))).transpose()?
        }
        Err(error) => return Err(error),
    };
    let mut scanner = Scanner::new(Keep { text: TEXT, other: 0 });
    if let Some(mut file) = file {
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(count) => scanner.feed(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    let message = scanner.finish();
    let people = |names: &[&str]| {
        let mut text = String::new();
        for Address { name, address } in names.iter().flat_map(|name| message.addresses_of(name)) {
            if !text.is_empty() {
                text.push_str(", ");
            }
            match (name.is_empty(), address.is_empty()) {
                (true, _) => text.push_str(&address),
                (false, true) => text.push_str(&name),
                (false, false) => text.push_str(&format!("{name} <{address}>")),
            }
        }
        text
    };
    let sender = people(&["From", "Sender"]);
    let recipients = people(&["To", "Cc", "Bcc"]);
    let subject = message.text_of("Subject").unwrap_or_default();
    let mut names = Vec::new();
    let mut body = Terms::default();
    for part in message.walk() {
        if part.is_attachment() {
            names.push(part.file_name().unwrap_or_else(|| part.content_type.clone()));
        }
    }
    add_text(&message, &mut body);
    let attachments = names.join("\n");
    let terms = |text: &str| {
        let mut terms = Terms::default();
        terms.add(text);
        terms.text
    };
    let tokens = [terms(&sender), terms(&recipients), terms(&subject), terms(&attachments), body.text];
    Ok(Document { id, entry, sender, recipients, subject, attachments, tokens })
}

/// The text of a message: of alternatives the plain one.
fn add_text(part: &Part, body: &mut Terms) {
    if part.content_type == "multipart/alternative" && part.parts.iter().any(has_plain) {
        part.parts.iter().filter(|part| has_plain(part)).for_each(|part| add_text(part, body));
        return;
    }
    match part.content_type.as_str() {
        "text/html" if !part.is_attachment() => body.add(&html::words(&part.text().text)),
        kind if kind.starts_with("text/") && !part.is_attachment() => body.add(&part.text().text),
        _ => {}
    }
    part.parts.iter().for_each(|part| add_text(part, body));
}

fn has_plain(part: &Part) -> bool {
    part.content_type == "text/plain" && part.size > 0 || part.parts.iter().any(has_plain)
}
