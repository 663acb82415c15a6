//! `journal.jsonl`: what was archived, and what was deleted on the server, one line each. It is the
//! truth beside the files; index and manifest are made from it.
//!
//! Each line carries the hash of the line before it and a checksum of itself, so that a lost, changed
//! or torn line is found. A line that was written and synced is the commit point of its message.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::failpoint;

/// The file's name within the store.
pub const NAME: &str = "journal.jsonl";

/// Which field of the header gave a message its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DateSource {
    /// The topmost `Received`: when our server took it.
    Received,
    /// `Date`: what the sender says.
    Date,
    /// Neither was usable.
    None,
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The message lies at `path`.
    Kept,
    /// The server gave, under another UIDL, the very bytes that lie at `path` already.
    Duplicate,
    /// Header and size are those of the message at `path`; it was not fetched again.
    Probably,
    /// DELE was answered with `+OK`, and QUIT comes next. The next listing shows what became of it.
    Deleting,
    /// It was absent from the listing after that.
    Deleted,
    /// The UIDL says nothing any more: it was absent from a listing, or it may be another message's by now.
    /// What is listed with it is fetched anew.
    Gone,
    /// The server stumbled over commands sent together: it is asked one by one.
    Stumbled,
    /// A file that no line named any more: its bytes are those that its name, or the manifest, says. Whose mailbox it
    /// came from is not known.
    Found,
    /// A file that no line named any more, and the manifest did: it is not there, or holds other bytes.
    Lost,
    /// Somebody was told of all damage before this line and goes on with what is left. `size` and `sha256` are those
    /// of the journal before it: should it change again, nothing is sealed any more. `head` is of the paths that only the
    /// manifest named.
    Sealed,
}

impl What {
    /// Whether the line says that a file must lie at its path.
    pub fn has_file(self) -> bool {
        matches!(self, What::Kept | What::Found | What::Lost)
    }
}

/// One line, without its number, chain and checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written: seconds since 1970.
    #[serde(with = "moment")]
    pub at: i64,
    /// What happened.
    pub what: What,
    /// Whose mailbox: `user@host` or `user@host:port`; empty where a line is of none.
    pub mailbox: String,
    /// The server's name for the message, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uidl: Option<String>,
    /// Of the file's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "digest_text")]
    pub sha256: Option<Digest>,
    /// Where the file lies, from the store.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Its bytes.
    #[serde(default)]
    pub size: u64,
    /// Its octets by LIST.
    #[serde(default)]
    pub listed: u64,
    /// The first eight bytes of the SHA-256 of its header, to know it again by TOP.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "brief_text")]
    pub head: Option<u64>,
    /// The date it is filed under: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "moment_option")]
    pub date: Option<i64>,
    /// Where that date is from.
    #[serde(default = "no_date")]
    pub date_from: DateSource,
}

impl Entry {
    /// An entry of a mailbox that is about no file.
    pub fn new(at: i64, what: What, mailbox: &str) -> Entry {
        Entry {
            at,
            what,
            mailbox: mailbox.to_owned(),
            uidl: None,
            sha256: None,
            path: String::new(),
            size: 0,
            listed: 0,
            head: None,
            date: None,
            date_from: DateSource::None,
        }
    }
}

fn no_date() -> DateSource {
    DateSource::None
}

/// A line as it stands in the file.
#[derive(Debug, Clone)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// Where it begins.
    pub offset: u64,
    /// What it says.
    pub entry: Entry,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It cannot be read, or its checksum is wrong.
    #[error("line {0} of {NAME} is damaged")]
    Unreadable(u64),
    /// It does not follow the line before it.
    #[error("before line {0} of {NAME} something is missing or was changed")]
    Broken(u64),
    /// The last line was not written whole.
    #[error("the last line of {NAME} (line {0}) was not written whole")]
    Torn(u64),
}

/// What was read: a line, or what is wrong, or a line that is whole but does not follow the one before.
#[derive(Debug, Clone)]
pub struct Found {
    /// The line, if it can be read.
    pub line: Option<Line>,
    /// What is wrong.
    pub damage: Option<Damage>,
}

/// Damage that was found, told apart by whether a later line seals it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damages {
    /// Nobody has been told yet.
    pub open: Vec<Damage>,
    /// What a seal names.
    pub sealed: Vec<Damage>,
}

impl Damages {
    /// Takes in what was found next in the journal of `folder`.
    pub fn note(&mut self, folder: &Path, found: &Found) -> io::Result<()> {
        if let Found { line: Some(line), damage: None } = found
            && line.entry.what == What::Sealed
            && !self.open.is_empty()
            && line.entry.sha256 == Some(digest_before(folder, line.offset)?)
        {
            self.sealed.append(&mut self.open);
        }
        self.open.extend(found.damage.clone());
        Ok(())
    }
}

/// Of the journal's first `size` bytes.
fn digest_before(folder: &Path, size: u64) -> io::Result<Digest> {
    Ok(Digest::of_reader(File::open(folder.join(NAME))?.take(size))?.0)
}

/// Reads lines and checks the chain. After damage it goes on with the next line.
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    previous: Option<Digest>,
    number: u64,
    offset: u64,
}

/// A line longer than this is no line of ours.
const MAX_LINE: u64 = 64 * 1024;

/// Of the hash of the line before, so many hexadecimal digits stand in a line: 128 bits.
const CHAIN_DIGITS: usize = 32;

/// Where reading stands: enough to go on later, and to tell whether the file is still the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Lines before it.
    pub number: u64,
    /// Bytes before it.
    pub offset: u64,
    /// The hash of the line before it; unknown after damage.
    pub previous: Option<Digest>,
}

impl Position {
    /// Before the first line.
    pub const START: Position = Position { number: 0, offset: 0, previous: Some(Digest([0; 32])) };
}

impl<R: BufRead> Lines<R> {
    /// From `position`, at which the reader stands.
    pub fn new(reader: R, position: Position) -> Lines<R> {
        let Position { number, offset, previous } = position;
        Lines { reader, buffer: Vec::new(), previous, number, offset }
    }

    /// After the line read last.
    pub fn position(&self) -> Position {
        Position { number: self.number, offset: self.offset, previous: self.previous }
    }

    /// The next line, or what is wrong with it; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Found>> {
        self.buffer.clear();
        let count = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.buffer)?;
        if count == 0 {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += count as u64;
        self.number += 1;
        let number = self.number;
        let Some(text) = self.buffer.strip_suffix(b"\n") else {
            self.previous = None;
            // Only at the end of the file is it one that was not written whole.
            let damage = if count as u64 == MAX_LINE { Damage::Unreadable } else { Damage::Torn };
            return Ok(Some(Found { line: None, damage: Some(damage(number)) }));
        };
        let Some((written, prev, entry)) = unframe(text) else {
            self.previous = None;
            return Ok(Some(Found { line: None, damage: Some(Damage::Unreadable(number)) }));
        };
        // After a damaged line its hash is unknown; that line was named already.
        let follows = self.previous.is_none_or(|previous| prev == previous.short(CHAIN_DIGITS));
        let damage = (!follows || written != number).then_some(Damage::Broken(written));
        self.previous = Some(Digest::of(text));
        self.number = written;
        Ok(Some(Found { line: Some(Line { number: written, offset, entry }), damage }))
    }
}

/// The journal, open for appending.
pub struct Journal {
    file: File,
    position: Position,
}

impl Journal {
    /// Opens or makes the journal in `folder`, hands every good line to `each`, and cuts off a last line that was not
    /// ended. Damage elsewhere is handed over in its place and stays, for `verify` to name.
    pub fn open(folder: &Path, each: impl FnMut(Result<Line, &Damage>)) -> io::Result<(Journal, Damages)> {
        let path = folder.join(NAME);
        let file = super::store::private().read(true).append(true).create(true).open(&path)?;
        let mut lines = Lines::new(BufReader::with_capacity(128 * 1024, &file), Position::START);
        let (ended, damages) = replay(folder, &mut lines, each)?;
        if lines.position().offset > ended.offset {
            file.set_len(ended.offset)?;
            file.sync_all()?;
        }
        Ok((Journal { file, position: ended }, damages))
    }

    /// Seals all damage: a line that names the journal as it is now. The damage itself stays where it is.
    pub fn seal(&self, folder: &Path, at: i64) -> io::Result<Entry> {
        let size = self.position.offset;
        let sha256 = Some(digest_before(folder, size)?);
        Ok(Entry { sha256, size, ..Entry::new(at, What::Sealed, "") })
    }

    /// Appends entries as one write and syncs it. After an error the file is as it was, as far as the
    /// disk allows. Returns the line numbers' first.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<Vec<Line>> {
        let mut position = self.position;
        let mut text = Vec::with_capacity(entries.len() * 400);
        let mut lines = Vec::with_capacity(entries.len());
        for entry in entries {
            let from = text.len();
            let number = position.number + 1;
            frame(&mut text, number, position.previous.unwrap_or(Digest([0; 32])), entry)?;
            lines.push(Line { number, offset: position.offset, entry: entry.clone() });
            position = Position {
                number,
                offset: position.offset + (text.len() - from + 1) as u64,
                previous: Some(Digest::of(&text[from..])),
            };
            text.push(b'\n');
        }
        failpoint::reach("archive.journal.before");
        let written = self.write(&text);
        if let Err(error) = written {
            // Half a line must not stay before the next one.
            self.file.set_len(self.position.offset)?;
            return Err(error);
        }
        self.position = position;
        failpoint::reach("archive.journal.after");
        Ok(lines)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let (first, second) = text.split_at(text.len() / 2);
        self.file.write_all(first)?;
        failpoint::reach("archive.journal.torn");
        self.file.write_all(second)?;
        failpoint::reach("archive.journal.unsynced");
        self.file.sync_data()
    }

    /// Where the next line will begin.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Reads one line again.
    pub fn line_at(&self, offset: u64) -> io::Result<Option<Entry>> {
        line_at(&self.file, offset)
    }
}

/// Reads the line that begins at `offset`.
pub fn line_at(file: &File, offset: u64) -> io::Result<Option<Entry>> {
    let mut text = vec![0; 1024];
    let mut have = 0;
    loop {
        match file.read_at(&mut text[have..], offset + have as u64) {
            Ok(0) => return Ok(None),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(end) = memchr::memchr(b'\n', &text[..have]) {
            return Ok(unframe(&text[..end]).map(|(_, _, entry)| entry));
        }
        if have as u64 >= MAX_LINE {
            return Ok(None);
        }
        if have == text.len() {
            text.resize(have * 2, 0);
        }
    }
}

/// Opens the journal for reading, at a position; `None` when there is none.
pub fn read(folder: &Path, position: Position) -> io::Result<Option<Lines<BufReader<File>>>> {
    let mut file = match File::open(folder.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(position.offset))?;
    Ok(Some(Lines::new(BufReader::with_capacity(128 * 1024, file), position)))
}

/// Hands what `lines` has of the journal in `folder` to `each`, up to the end of the last line that was ended, which it
/// returns: that one may have been good, and be spoilt since. What comes after it was not written whole.
pub fn replay<R: BufRead>(
    folder: &Path,
    lines: &mut Lines<R>,
    mut each: impl FnMut(Result<Line, &Damage>),
) -> io::Result<(Position, Damages)> {
    let mut ended = lines.position();
    let mut damages = Damages::default();
    while let Some(found) = lines.next_line()? {
        if matches!(found.damage, Some(Damage::Torn(_))) {
            break;
        }
        ended = lines.position();
        damages.note(folder, &found)?;
        found.damage.iter().for_each(|damage| each(Err(damage)));
        found.line.into_iter().for_each(|line| each(Ok(line)));
    }
    Ok((ended, damages))
}

/// `{"n":…,` the entry `,"prev":"…","crc":"…"}`, without a line end.
fn frame(out: &mut Vec<u8>, number: u64, previous: Digest, entry: &Entry) -> io::Result<()> {
    let from = out.len();
    write!(out, "{{\"n\":{number},")?;
    let body = serde_json::to_vec(entry)?;
    out.extend_from_slice(body.get(1..body.len() - 1).unwrap_or_default());
    write!(out, ",\"prev\":\"{}\"", previous.short(CHAIN_DIGITS))?;
    let crc = crc32fast::hash(&out[from..]);
    write!(out, ",\"crc\":\"{crc:08x}\"}}")
}

/// Takes the frame off: number, chain, entry; `None` if the checksum is wrong or it is no line of ours.
fn unframe(text: &[u8]) -> Option<(u64, String, Entry)> {
    // `,"crc":"xxxxxxxx"}`
    let (checked, crc) = text.split_at_checked(text.len().checked_sub(18)?)?;
    let crc = std::str::from_utf8(crc.strip_prefix(b",\"crc\":\"")?.strip_suffix(b"\"}")?).ok()?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(checked) {
        return None;
    }
    let number = checked.strip_prefix(b"{\"n\":")?;
    let digits = number.iter().position(|byte| !byte.is_ascii_digit())?;
    let number = std::str::from_utf8(&number[..digits]).ok()?.parse().ok()?;
    // `,"prev":"…"`
    let (_, prev) = checked.split_at_checked(checked.len().checked_sub(CHAIN_DIGITS + 10)?)?;
    let prev = std::str::from_utf8(prev.strip_prefix(b",\"prev\":\"")?.strip_suffix(b"\"")?).ok()?;
    Some((number, prev.to_owned(), serde_json::from_slice(text).ok()?))
}

mod moment {
    use serde::{Deserialize, Deserializer, Serializer, de::Error, ser};

    pub(super) fn serialize<S: Serializer>(at: &i64, to: S) -> Result<S::Ok, S::Error> {
        let at = jiff::Timestamp::from_second(*at).map_err(ser::Error::custom)?;
        to.collect_str(&at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        text.parse::<jiff::Timestamp>().map(|at| at.as_second()).map_err(D::Error::custom)
    }
}

mod moment_option {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::moment::serialize(at, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        super::moment::deserialize(from).map(Some)
    }
}

mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Option<Digest>, to: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => to.collect_str(digest),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Digest>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Digest::parse(&text).map(Some).ok_or_else(|| D::Error::custom("not a SHA-256 digest"))
    }
}

mod brief_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(brief: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match brief {
            Some(brief) => to.collect_str(&format_args!("{brief:016x}")),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        u64::from_str_radix(&text, 16).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uidl: &str) -> Entry {
        Entry {
            at: 1_795_435_200,
            what: What::Kept,
            mailbox: "ada@pop.example.com".into(),
            uidl: Some(uidl.into()),
            sha256: Some(Digest::of(uidl.as_bytes())),
            path: "eml/2026/11/20261123T120000Z_0.eml".into(),
            size: 5,
            listed: 6,
            head: Some(7),
            date: Some(-1),
            date_from: DateSource::Received,
        }
    }

    fn opened(folder: &Path) -> (Journal, Vec<Line>, Vec<Damage>) {
        let mut lines = Vec::new();
        let (journal, damages) = Journal::open(folder, |found| lines.extend(found.ok())).unwrap();
        (journal, lines, damages.open)
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, lines, _) = opened(folder.path());
        assert!(lines.is_empty());
        let bare = Entry { uidl: None, sha256: None, head: None, date: None, ..entry("x") };
        let written = journal.append(&[entry("a"), entry("b\"\u{1}ü")]).unwrap();
        journal.append(std::slice::from_ref(&bare)).unwrap();
        let (journal, lines, damage) = opened(folder.path());
        assert!(damage.is_empty());
        let entries: Vec<Entry> = lines.iter().map(|line| line.entry.clone()).collect();
        assert_eq!(entries, [entry("a"), entry("b\"\u{1}ü"), bare]);
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(journal.line_at(written[1].offset).unwrap(), Some(entry("b\"\u{1}ü")));
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let (mut journal, _, _) = opened(folder.path());
        journal.append(&[entry("a"), entry("b")]).unwrap();
        let keep = journal.position().offset as usize;
        journal.append(&[entry("c")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in keep..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let (mut journal, lines, damage) = opened(folder.path());
            assert_eq!((lines.len(), damage.len()), (2, 0), "cut at {end}");
            journal.append(&[entry("d")]).unwrap();
            assert_eq!(opened(folder.path()).1.len(), 3, "cut at {end}");
        }
    }

    #[test]
    fn damage_before_the_end_is_named_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let (mut journal, _, _) = opened(folder.path());
        journal.append(&[entry("a"), entry("b"), entry("c")]).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        for (text, read, expected) in [
            (format!("{}{}{}", lines[0], lines[1].replace("pop", "pod"), lines[2]), 2, Damage::Unreadable(2)),
            (format!("{}{}", lines[0], lines[2]), 2, Damage::Broken(3)),
            (format!("{}{}", lines[1], lines[2]), 2, Damage::Broken(2)),
            (format!("{}{}{}{}", lines[0], lines[0], lines[1], lines[2]), 4, Damage::Broken(1)),
        ] {
            std::fs::write(&path, &text).unwrap();
            let (_, lines, damage) = opened(folder.path());
            assert_eq!(lines.len(), read, "{expected:?}");
            assert_eq!(damage.first(), Some(&expected));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing good is cut off");
        }
        for end in ["", "{torn"] {
            let spoilt = format!("{}{}{}", lines[0], lines[1], lines[2].replace("pop", "pod"));
            std::fs::write(&path, format!("{spoilt}{end}")).unwrap();
            let (mut journal, read, damage) = opened(folder.path());
            assert_eq!((read.len(), damage), (2, vec![Damage::Unreadable(3)]));
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                spoilt,
                "a line that was ended may say something"
            );
            journal.append(&[entry("d")]).unwrap();
            let (_, read, damage) = opened(folder.path());
            assert_eq!((read.len(), damage), (3, vec![Damage::Unreadable(3)]), "and stays known as damaged");
            assert_eq!(read[2].number, 4);
        }
    }
}
