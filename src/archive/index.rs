//! `index.db`: headers, attachments' names and words of every archived message, to be searched. It is
//! derived from journal and files: made in a thread of its own while messages arrive, mended at start,
//! made anew when it does not fit the journal.
//!
//! Words of most scripts are as they stand, in lower case; runs of Chinese, Japanese and Korean
//! characters, which have no blanks between words, are pairs of neighbours (发票号 is 发票 and 票号).
//! Which column a word is in is kept, where in the text it stands is not: half the size and work.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::digest::Digest;
use super::journal::{self, Entry, Position};
use super::session::Stop;
use super::store::Places;
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
/// Words longer than this are no words.
const MAX_WORD: usize = 64;

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
    Ok(opened.or_else(|error| database::open_alone(&path)?.ok_or(error))?)
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
    let Some(mut lines) = journal::read(store, place.position)? else { return Ok(place) };
    loop {
        let (mut asked, mut read, mut open) = (0, 0, true);
        let mut next = place;
        let transaction = database.transaction()?;
        {
            let mut message = transaction
                .prepare_cached("INSERT OR REPLACE INTO messages VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
            let mut words = transaction.prepare_cached(
                "INSERT INTO words(rowid, sender, recipients, subject, attachments, body) VALUES(?, ?, ?, ?, ?, ?)",
            )?;
            let mut answered = 0;
            let mut enter = |document: Document| -> Result<(), rusqlite::Error> {
                let Document { id, entry, sender, recipients, subject, attachments, tokens } = document;
                let sha256 = entry.sha256.map(|digest| digest.to_string());
                let id = i64::try_from(id).unwrap_or(i64::MAX);
                let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
                message.execute(params![
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
                words.execute(params![id, a, b, c, d, e])?;
                Ok(())
            };
            while open || answered < asked {
                // A line that is being written just now is read the next time.
                while open && asked - answered < WINDOW {
                    let before = lines.position();
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
                    next.position = lines.position();
                    next.line = before.offset;
                    if line.entry.what.has_file() {
                        asked += 1;
                        next.count += 1;
                        workers.ask(line.offset, line.entry)?;
                    }
                    if read >= GROUP || stop.load(Ordering::Relaxed) {
                        open = false;
                    }
                }
                if answered < asked {
                    enter(workers.answer()?)?;
                    answered += 1;
                }
            }
        }
        if read == 0 {
            return Ok(place);
        }
        for (key, value) in [
            ("number", next.position.number),
            ("offset", next.position.offset),
            ("line", next.line),
            ("count", next.count),
        ] {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            transaction.execute("INSERT OR REPLACE INTO state VALUES(?, ?)", params![key, value])?;
        }
        let hash = next.position.previous.map(|hash| hash.to_string());
        transaction.execute("INSERT OR REPLACE INTO state VALUES('hash', ?)", params![hash])?;
        failpoint::reach("archive.index.before");
        transaction.commit()?;
        failpoint::reach("archive.index.after");
        place = next;
        if read < GROUP || stop.load(Ordering::Relaxed) {
            return Ok(place);
        }
        // The reader has gone on to where the next group begins.
        lines = match journal::read(store, place.position)? {
            Some(lines) => lines,
            None => return Ok(place),
        };
    }
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

/// Words, each once, with blanks between.
#[derive(Default)]
struct Terms {
    text: String,
    seen: HashSet<u64, BuildHasherDefault<Taken>>,
}

impl Terms {
    fn add(&mut self, text: &str) {
        terms(text, |term| {
            let hash = hash_of(term);
            if self.seen.insert(hash) {
                self.text.push_str(term);
                self.text.push(' ');
            }
        });
    }
}

/// A hash that is one already.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// FNV-1a: of 64 bits, so that two words of one message are not taken for one.
fn hash_of(term: &str) -> u64 {
    term.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Hands every word of a text to `each`: letters and digits in lower case; of scripts without blanks
/// the pairs of neighbours, and the last character, so that one character alone can be found as well.
pub fn terms(text: &str, mut each: impl FnMut(&str)) {
    let mut word = String::new();
    let mut pair = String::new();
    let mut last: Option<char> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, c) = match c {
            // Full-width letters and digits are the same letters and digits.
            '\u{ff01}'..='\u{ff5e}' => (c.len_utf8(), char::from_u32(c as u32 - 0xfee0).unwrap_or(c)),
            // What most text is made of goes by the run.
            c if c.is_ascii_alphanumeric() => (rest.bytes().take_while(u8::is_ascii_alphanumeric).count(), c),
            c => (c.len_utf8(), c),
        };
        let (run, after) = rest.split_at(length);
        rest = after;
        if is_dense(c) {
            take(&mut word, &mut each);
            if let Some(before) = last {
                pair.clear();
                pair.push(before);
                pair.push(c);
                each(&pair);
            }
            last = Some(c);
            continue;
        }
        if let Some(alone) = last.take() {
            pair.clear();
            pair.push(alone);
            each(&pair);
        }
        if c.is_ascii_alphanumeric() && run.is_ascii() {
            let from = word.len();
            word.push_str(run);
            word[from..].make_ascii_lowercase();
        } else if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
        } else if !c.is_ascii() && c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        } else if !c.is_ascii() && is_mark(c) {
            word.push(c);
        } else {
            take(&mut word, &mut each);
        }
    }
    take(&mut word, &mut each);
    if let Some(alone) = last {
        pair.clear();
        pair.push(alone);
        each(&pair);
    }
}

fn take(word: &mut String, each: &mut impl FnMut(&str)) {
    if !word.is_empty() && word.len() <= MAX_WORD {
        each(word);
    }
    word.clear();
}

/// Combining marks belong to the letter before them.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{0300}'..='\u{036f}' | '\u{0900}'..='\u{0dff}' | '\u{0e31}'..='\u{0e4e}' | '\u{3099}' | '\u{309a}')
}

/// Characters of scripts that put no blanks between words.
fn is_dense(c: char) -> bool {
    matches!(c,
        '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words_and_pairs() {
        for (text, expected) in [
            ("The Report, no. 7", "the|report|no|7"),
            ("发票号码", "发票|票号|号码|码"),
            ("请查收2026年发票abc", "请查|查收|收|2026|年发|发票|票|abc"),
            ("票", "票"),
            ("ＡＢＣ１２", "abc12"),
            ("Grüße ÄÖ", "grüße|äö"),
            ("x1Ü2Y Ａb3", "x1ü2y|ab3"),
            ("안녕 こんにちは", "안녕|녕|こん|んに|にち|ちは|は"),
            ("  --  ", ""),
        ] {
            let mut found = Vec::new();
            terms(text, |term| found.push(term.to_owned()));
            assert_eq!(found.join("|"), expected, "{text}");
        }
    }
}
