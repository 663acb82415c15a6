//! A file as a MIME part: its type, its name for every client, its bytes in base64, and what the
//! ledger says of it. Encoded once; a part that many letters share is borrowed by each of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use encodify::{Fold, base64, rfc2047};
use encoding_rs::{Encoding, UTF_8};
use ring::digest::{Context, SHA256};
use rustix::fs::OFlags;

use crate::letter::{EncodedPart, FileRecord, Loan, Stock};
use crate::mail;

use super::FileFingerprint;
use super::charset::charset;
use super::pattern::nfc;

/// The longest name a recipient sees, in octets: what file systems take.
const LONGEST_NAME: usize = 255;

/// A line of a part's header is no longer than this.
const WIDTH: usize = 76;

/// Raw octets in one line of base64 (RFC 2045 §6.8).
const LINE: usize = 57;

/// What is read of a file at a time: whole lines of base64, so that pieces can be put together, and few
/// enough that what was read is still near when it is hashed and encoded.
const PIECE: usize = LINE * 512;

thread_local! {
    /// The piece that is read now; always the same memory, for the same reason.
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A text longer than this is not looked at for its charset: it is sent without.
const LONGEST_TEXT: u64 = 32 << 20;

/// Memory of parts that is kept for the next ones: about as much as is out at a time.
const STOCK: usize = 24 << 20;

/// What a part that is kept weighs beside its octets: what it is known by, with its path, and what the ledger says
/// of it. Small pictures of a million recipients are kept too, as far as there is room.
const OVERHEAD: usize = 1 << 10;

/// What a part is there for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// To be kept as a file.
    Attachment,
    /// Shown by the HTML, which refers to it as `cid:…`.
    Inline {
        /// The content-id without `cid:` and angle brackets.
        cid: String,
    },
}

/// A file that is to be a part.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// The name the recipient sees.
    pub name: &'a str,
    /// What the job says of its type.
    pub content_type: Option<&'a str>,
    /// What it is there for.
    pub disposition: &'a Disposition,
}

/// Why a file did not become a part.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what it was: shorter, longer, or newer than when it was first read.
    #[error("{} changed while letters were being made of it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Larger than is wanted.
    #[error("{} has {size} octets; at most {limit} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// Makes a part of bytes. The type is `content_type` where given (and well formed), else what the
/// extension of `name` says, else what the first bytes show.
pub fn encode(
    bytes: &[u8],
    name: &str,
    content_type: Option<&str>,
    disposition: &Disposition,
) -> EncodedPart {
    encode_into(&Stock::new(0), bytes, name, content_type, disposition)
}

fn encode_into(
    stock: &Arc<Stock>,
    bytes: &[u8],
    name: &str,
    content_type: Option<&str>,
    disposition: &Disposition,
) -> EncodedPart {
    let name = shown_name(name);
    let kind = Kind::of(&name, content_type, bytes);
    let message = kind.is_message() && is_plain_message(bytes);
    let kind = if kind.is_message() && !message { Kind::unknown() } else { kind };
    let header = header(&kind.with_parameters(bytes), &name, disposition, message);
    let body = if message { bytes.len() + 2 } else { base64::MIME.encoded_len(bytes.len()) };
    let mut part = Assembly::new(stock, &header, body);
    part.hasher.update(bytes);
    if message {
        part.put(bytes);
        // The boundary that follows takes the line end before it for its own (RFC 2046 §5.1.1).
        part.put(b"\r\n");
    } else {
        part.put_encoded(bytes);
    }
    part.finish(name, bytes.len() as u64)
}

/// Makes a part of a file, of which no more than a piece is held beside what it becomes, unless its
/// type asks for a look at all of it (texts, messages). `limit` is in octets. What the file was while
/// it was read is told as well.
pub fn encode_file(
    stock: &Arc<Stock>,
    sent: Sent<'_>,
    limit: u64,
) -> Result<(EncodedPart, FileFingerprint), PartError> {
    let Sent { path, name, content_type, disposition } = sent;
    let read = |source| PartError::Read { path: path.to_owned(), source };
    let changed = || PartError::Changed { path: path.to_owned() };
    let mut file = open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(read(io::Error::other("it is not a file")));
    }
    let fingerprint = FileFingerprint::of(&metadata);
    let size = fingerprint.size;
    if size > limit {
        return Err(PartError::TooLarge { path: path.to_owned(), size, limit });
    }
    // A name that was given to the file may say less of it than its own.
    let content_type = content_type.or_else(|| {
        let own = || path.extension().and_then(|own| by_extension(&own.to_str()?.to_ascii_lowercase()));
        named_type(name).map_or_else(own, |_| None)
    });
    let length = usize::try_from(size).map_err(|_| changed())?;
    let mut fill = |room: &mut [u8]| match file.read_exact(room) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(changed()),
        read_all => read_all.map_err(read),
    };
    let part = READ.with_borrow_mut(|piece| {
        piece.resize(PIECE, 0);
        let first = &mut piece[..PIECE.min(length)];
        fill(first)?;
        let shown = shown_name(name);
        let kind = Kind::of(&shown, content_type, first);
        if length <= PIECE {
            return Ok(encode_into(stock, first, name, content_type, disposition));
        }
        if (kind.is_text() || kind.is_message()) && size <= LONGEST_TEXT {
            let mut whole = first.to_vec();
            whole.resize(length, 0);
            fill(&mut whole[PIECE..])?;
            return Ok(encode_into(stock, &whole, name, content_type, disposition));
        }
        let kind = if kind.is_message() { Kind::unknown() } else { kind };
        let header = header(kind.name(), &shown, disposition, false);
        let mut part = Assembly::new(stock, &header, base64::MIME.encoded_len(length));
        let mut left = length;
        loop {
            let raw = &mut piece[..PIECE.min(left)];
            if left < length {
                fill(raw)?;
            }
            part.hasher.update(raw);
            part.put_encoded(raw);
            left -= raw.len();
            if left == 0 {
                return Ok(part.finish(shown, size));
            }
        }
    })?;
    // What was written to it in the meantime shows in its size or its time.
    let after = file.metadata().map_err(read)?;
    if FileFingerprint::of(&after) != fingerprint { Err(changed()) } else { Ok((part, fingerprint)) }
}

/// Opens a file without waiting: behind a pipe there may never be anybody, and what it is shows only
/// when it is open.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// Parts of a run. Those that letters share are encoded when they are first asked for, and known by
/// file, name, type and disposition; when the file is not what it was, that is an error and no silent
/// change.
#[derive(Debug)]
pub struct Parts {
    shared: RwLock<Kept>,
    /// How many octets are kept at most; what does not fit is encoded anew each time.
    capacity: usize,
    /// The largest file, in octets.
    limit: u64,
    /// Memory of parts that are one letter's own.
    stock: Arc<Stock>,
}

#[derive(Debug, Default)]
struct Kept {
    parts: HashMap<Identity, (FileFingerprint, Arc<EncodedPart>)>,
    octets: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    path: PathBuf,
    name: String,
    content_type: Option<String>,
    disposition: Disposition,
}

impl Parts {
    /// Parts of files of at most `limit` octets. Of what is shared at most `capacity` encoded octets are kept.
    pub fn new(capacity: usize, limit: u64) -> Parts {
        Parts { shared: RwLock::default(), capacity, limit, stock: Stock::new(STOCK) }
    }

    /// The part of a file that one letter has alone, and what the file was when it was read.
    pub fn own(&self, sent: Sent<'_>) -> Result<(Arc<EncodedPart>, FileFingerprint), PartError> {
        let (part, file) = encode_file(&self.stock, sent, self.limit)?;
        Ok((Arc::new(part), file))
    }

    /// The part of a file that letters share, encoded now or before, and what the file is.
    pub fn shared(&self, sent: Sent<'_>) -> Result<(Arc<EncodedPart>, FileFingerprint), PartError> {
        let identity = Identity {
            path: sent.path.to_owned(),
            name: sent.name.to_owned(),
            content_type: sent.content_type.map(str::to_owned),
            disposition: sent.disposition.clone(),
        };
        let path = || sent.path.to_owned();
        let changed = || PartError::Changed { path: path() };
        let now = sent.path.metadata().map_err(|source| PartError::Read { path: path(), source })?;
        let now = FileFingerprint::of(&now);
        // A thread that panicked while it held the lock left whole entries behind, or none.
        let kept = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, part)) = kept.parts.get(&identity) {
            return if *before == now { Ok((part.clone(), now)) } else { Err(changed()) };
        }
        drop(kept);
        let nothing_kept = Stock::new(0);
        let (part, file) = encode_file(&nothing_kept, sent, self.limit)?;
        let part = Arc::new(part);
        let mut kept = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, part)) = kept.parts.get(&identity) {
            // Another thread was faster.
            return if *before == file { Ok((part.clone(), file)) } else { Err(changed()) };
        }
        let weight = part.bytes.len() + OVERHEAD;
        if kept.octets + weight <= self.capacity {
            kept.octets += weight;
            kept.parts.insert(identity, (file, part.clone()));
        }
        Ok((part, file))
    }
}

/// The bytes of a part in the making: exactly as many as announced, in the memory they stay in.
struct Assembly {
    memory: Loan,
    filled: usize,
    hasher: Context,
}

impl Assembly {
    fn new(stock: &Arc<Stock>, header: &[u8], body: usize) -> Assembly {
        let memory = stock.lend(header.len() + body);
        let mut assembly = Assembly { memory, filled: 0, hasher: Context::new(&SHA256) };
        assembly.put(header);
        assembly
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        self.memory.room()[self.filled..end].copy_from_slice(bytes);
        self.filled = end;
    }

    fn put_encoded(&mut self, raw: &[u8]) {
        let room = &mut self.memory.room()[self.filled..];
        self.filled += base64::MIME.encode_slice(raw, room).unwrap_or_default();
    }

    fn finish(mut self, name: String, size: u64) -> EncodedPart {
        // The memory is another's that was before: not one octet of it may be left.
        assert_eq!(self.filled, self.memory.room().len(), "a part is as long as was announced");
        let digest = self.hasher.finish();
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.as_ref());
        EncodedPart { bytes: self.memory.filled(), record: FileRecord { name, size, sha256 } }
    }
}

/// A content type, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind(String);

impl Kind {
    fn of(name: &str, given: Option<&str>, start: &[u8]) -> Kind {
        if let Some(given) = given.map(str::trim).filter(|given| mail::is_content_type(given)) {
            return Kind(given.to_owned());
        }
        named_type(name)
            .or_else(|| infer::get(start).map(|found| found.mime_type()))
            .map_or_else(Kind::unknown, |found| Kind(found.to_owned()))
    }

    fn unknown() -> Kind {
        Kind("application/octet-stream".to_owned())
    }

    fn name(&self) -> &str {
        &self.0
    }

    fn essence(&self) -> String {
        self.0.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn is_message(&self) -> bool {
        self.essence() == "message/rfc822"
    }

    fn is_text(&self) -> bool {
        self.essence().starts_with("text/")
    }

    /// The type with what the content says of itself: a text's charset, a calendar's method.
    fn with_parameters(&self, bytes: &[u8]) -> String {
        let mut whole = self.0.clone();
        let lower = whole.to_ascii_lowercase();
        if !self.is_text() {
            return whole;
        }
        if !lower.contains("charset=")
            && let Some(charset) = charset(bytes)
        {
            whole.push_str("; charset=");
            whole.push_str(charset);
        }
        if self.essence() == "text/calendar"
            && !lower.contains("method=")
            && let Some(method) = calendar_method(bytes)
        {
            whole.push_str("; method=");
            whole.push_str(&method);
        }
        whole
    }
}

/// What the extension of a name says.
fn named_type(name: &str) -> Option<&'static str> {
    by_extension(&name.rsplit_once('.')?.1.to_ascii_lowercase())
}

/// What the extension says. What people send comes first, for some of it is missing or odd in the
/// long table.
fn by_extension(extension: &str) -> Option<&'static str> {
    const USUAL: [(&str, &str); 26] = [
        ("pdf", "application/pdf"),
        ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        ("xls", "application/vnd.ms-excel"),
        ("doc", "application/msword"),
        ("ppt", "application/vnd.ms-powerpoint"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("gif", "image/gif"),
        ("webp", "image/webp"),
        ("svg", "image/svg+xml"),
        ("mp3", "audio/mpeg"),
        ("m4a", "audio/mp4"),
        ("wav", "audio/wav"),
        ("mp4", "video/mp4"),
        ("zip", "application/zip"),
        ("csv", "text/csv"),
        ("txt", "text/plain"),
        ("log", "text/plain"),
        ("ics", "text/calendar"),
        ("html", "text/html"),
        ("htm", "text/html"),
        ("json", "application/json"),
        ("eml", "message/rfc822"),
    ];
    let usual = USUAL.iter().find(|(known, _)| *known == extension).map(|(_, kind)| *kind);
    usual.or_else(|| mime_guess::from_ext(extension).first_raw())
}

/// METHOD of an iCalendar object (RFC 5545 §3.7.2), which mail repeats in the type (RFC 6047 §2.4).
fn calendar_method(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|&b| b == b'\n').take(200).find_map(|line| {
        let line = line.trim_ascii();
        line.get(..7).filter(|start| start.eq_ignore_ascii_case(b"METHOD:")).map(|_| &line[7..])
    })?;
    let method = std::str::from_utf8(line.trim_ascii()).ok()?;
    let word = (1..=20).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_alphabetic());
    word.then(|| method.to_ascii_uppercase())
}

/// Whether a message may be attached as one. It must not be encoded (RFC 2046 §5.2.1), so it has to
/// be fit for every relay as it is: 7-bit, lines of at most 998 octets ended by CRLF, a header. A
/// line that begins with a dot would need stuffing, which no part of ours does.
fn is_plain_message(bytes: &[u8]) -> bool {
    let Some(lines) = bytes.strip_suffix(b"\r\n") else { return false };
    // Whether it is a message at all, a parser says that reads what is met: fields that mail has.
    let headers = mail_parser::MessageParser::new().parse_headers(bytes);
    let starts = headers.is_some_and(|message| {
        message.headers().iter().any(|header| !matches!(header.name, mail_parser::HeaderName::Other(_)))
    }) && bytes.first().is_some_and(u8::is_ascii_graphic)
        // The line that an mbox file begins each of its messages with is no field.
        && !bytes.starts_with(b"From ");
    starts
        && bytes.iter().all(|&b| b < 0x80 && b != 0)
        && lines.split(|&b| b == b'\n').all(|line| line.len() <= 999 && !line.starts_with(b"."))
        && memchr::memchr_iter(b'\n', bytes).all(|at| at > 0 && bytes[at - 1] == b'\r')
        && memchr::memchr_iter(b'\r', bytes).all(|at| bytes.get(at + 1) == Some(&b'\n'))
}

/// The name that a file has on the disk. One that is no UTF-8 was unpacked or copied from another system, and
/// is read as a text of its charset is.
pub fn own_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    let foreign = || {
        let bytes = name.as_encoded_bytes();
        let encoding = charset(bytes).and_then(|label| Encoding::for_label(label.as_bytes()));
        encoding.unwrap_or(UTF_8).decode_without_bom_handling(bytes).0.into_owned()
    };
    name.to_str().map_or_else(foreign, str::to_owned)
}

/// A name as it may be shown: no folder, no control character, no more than a file system takes. In NFC, for
/// what a Mac wrote in pieces (`한국어.hwp`, `Résumé.pdf`) is shown in pieces by Windows.
fn shown_name(name: &str) -> String {
    let name: String = nfc(name)
        .trim()
        .chars()
        .map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c })
        .collect();
    if name.is_empty() {
        return "file".to_owned();
    }
    if name.len() <= LONGEST_NAME {
        return name;
    }
    // The extension stays, for it is what opens the file.
    let extension = name.rfind('.').map(|at| &name[at..]).filter(|ext| ext.len() <= 16).unwrap_or("");
    let mut end = LONGEST_NAME - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &name[..end])
}

/// The header of a part, with the empty line that ends it.
fn header(content_type: &str, name: &str, disposition: &Disposition, message: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"Content-Type: ");
    out.extend_from_slice(content_type.as_bytes());
    parameter_for_old_clients(&mut out, name);
    let encoding = if message { "7bit" } else { "base64" };
    out.extend_from_slice(format!("\r\nContent-Transfer-Encoding: {encoding}\r\n").as_bytes());
    let disposition = match disposition {
        Disposition::Attachment => "attachment",
        Disposition::Inline { cid } => {
            let fits = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.@[]:".contains(b);
            out.extend_from_slice(b"Content-ID: <");
            out.extend(cid.bytes().map(|b| if fits(&b) { b } else { b'_' }));
            out.extend_from_slice(b">\r\n");
            "inline"
        }
    };
    out.extend_from_slice(format!("Content-Disposition: {disposition}").as_bytes());
    file_name(&mut out, name);
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Whether a name may stand between quotes as it is, on a line of its own.
fn is_quotable(name: &str) -> bool {
    name.len() <= 60
        && !name.contains("=?")
        && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
}

/// `; name=…` with encoded words between the quotes. RFC 2047 §5 forbids it, RFC 2231 made it
/// needless, and it is still what a good many clients read, Outlook and QQ Mail among them.
fn parameter_for_old_clients(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b";\r\n name=\"");
    if is_quotable(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        let encoder = if rfc2047::Q_PHRASE.payload_len(name) <= rfc2047::B.payload_len(name) {
            rfc2047::Q_PHRASE
        } else {
            rfc2047::B
        };
        let mut column = b" name=\"".len();
        // One column is left for the quote.
        let fold = Fold::new(WIDTH - 1, b"\r\n ", 1);
        encoder.encode_words("utf-8", name, &mut column, fold, out);
    }
    out.push(b'"');
}

/// `; filename=…`, or its parts as RFC 2231 §3 and §4 have them.
fn file_name(out: &mut Vec<u8>, name: &str) {
    if is_quotable(name) {
        out.extend_from_slice(b";\r\n filename=\"");
        out.extend_from_slice(name.as_bytes());
        return out.push(b'"');
    }
    // Characters are never split, although they might be: not every reader joins before decoding.
    let mut pieces = vec![String::from("utf-8''")];
    for c in name.chars() {
        let mut buffer = [0; 4];
        let mut coded = String::with_capacity(12);
        for &byte in c.encode_utf8(&mut buffer).as_bytes() {
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                coded.push(char::from(byte));
            } else {
                coded.push_str(&format!("%{byte:02X}"));
            }
        }
        let full =
            pieces.last().is_none_or(|piece| piece.len() + coded.len() > WIDTH - " filename*99*=;".len());
        if full {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(&coded);
        }
    }
    if let [only] = pieces.as_slice() {
        out.extend_from_slice(format!(";\r\n filename*={only}").as_bytes());
    } else {
        for (n, piece) in pieces.iter().enumerate() {
            out.extend_from_slice(format!(";\r\n filename*{n}*={piece}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};

    fn head(part: &EncodedPart) -> String {
        let text = String::from_utf8_lossy(&part.bytes).into_owned();
        text.split_once("\r\n\r\n").expect("a header and a body").0.to_owned()
    }

    #[test]
    fn types_come_from_the_extension_then_from_the_bytes() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for (name, given, bytes, expected) in [
            ("a.pdf", None, &b"%PDF-1.4"[..], "application/pdf"),
            ("A.PDF", None, b"%PDF-1.4", "application/pdf"),
            ("photo", None, png, "image/png"),
            ("photo.unheardof", None, png, "image/png"),
            ("what", None, b"\x01\x02", "application/octet-stream"),
            ("a.xlsx", None, b"PK", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            ("a.svg", None, b"<svg/>", "image/svg+xml"),
            ("a.tar", None, b"x", "application/x-tar"),
            ("a.csv", None, b"a,b\n", "text/csv; charset=utf-8"),
            ("a.txt", None, "ü".as_bytes(), "text/plain; charset=utf-8"),
            ("a.txt", None, b"\xff\xfea\0", "text/plain; charset=utf-16"),
            ("a.txt", None, b"\xc4\xfa\xba\xc3\xa3\xac\xd5\xe2", "text/plain; charset=gb18030"),
            ("a.txt", None, b"Gr\xfc\xdfe aus K\xf6ln", "text/plain; charset=windows-1252"),
            ("a.txt", None, b"\x81\x00", "text/plain"),
            (
                "a.ics",
                None,
                b"BEGIN:VCALENDAR\r\nMETHOD:request\r\n",
                "text/calendar; charset=utf-8; method=REQUEST",
            ),
            ("a.dat", Some("application/x-own"), b"x", "application/x-own"),
            ("a.txt", Some("text/x-diff; charset=us-ascii"), b"x", "text/x-diff; charset=us-ascii"),
            ("a.pdf", Some("bad\r\nX-Header: 1"), b"x", "application/pdf"),
            ("a.eml", None, b"Subject: x\r\n\r\nhello\r\n", "message/rfc822"),
            ("a.eml", None, b"Subject: x\n\nhello\n", "application/octet-stream"),
            ("a.eml", None, b"Subject: x\r\n\r\n.hello\r\n", "application/octet-stream"),
            ("a.eml", None, "Subject: ü\r\n\r\nhello\r\n".as_bytes(), "application/octet-stream"),
            ("a.eml", None, b"no header\r\n", "application/octet-stream"),
            (
                "a.eml",
                None,
                b"From a@b.c Mon Nov 23\r\nSubject: x\r\n\r\nhello\r\n",
                "application/octet-stream",
            ),
        ] {
            let part = encode(bytes, name, given, &Disposition::Attachment);
            let head = head(&part);
            let expected = format!("Content-Type: {expected};\r\n name=");
            assert!(head.starts_with(&expected), "{name} {given:?}\n{head}\n{expected}");
            assert_eq!(head.contains("7bit"), expected.contains("rfc822"), "{head}");
        }
    }

    #[test]
    fn every_reader_finds_the_name() {
        let long = format!("{}.pdf", "十一月份经营分析报告".repeat(8));
        let long_ascii = format!("{}.pdf", "a report of the month ".repeat(9));
        for name in [
            "report.pdf",
            "a \"quoted\" name.pdf",
            "back\\slash.pdf",
            "Grüße.pdf",
            "报告.xlsx",
            "=?utf-8?q?x?=.pdf",
            "100% of it, really; yes'.txt",
            "emoji 🦀.png",
            "تقرير.pdf",
            &long,
            &long_ascii,
        ] {
            let part = encode(b"hello", name, None, &Disposition::Attachment);
            let head = head(&part);
            // Types of office files are 81 octets with the name of the field, and cannot be folded.
            let fits = |line: &str| line.len() <= 78 || line.starts_with("Content-Type: application/vnd.");
            assert!(head.is_ascii() && head.lines().all(fits), "{head}");
            let message = MessageParser::default().parse(&part.bytes[..]).expect("parses");
            let shown = name.replace('\\', "_");
            let disposition = message.content_disposition().and_then(|d| d.attribute("filename"));
            assert_eq!(disposition, Some(shown.as_str()), "{head}");
            assert_eq!(part.record.name, shown);
        }
    }

    #[test]
    fn a_name_is_one_of_a_file_and_not_too_long() {
        for (name, expected) in [
            ("../../etc/passwd", ".._.._etc_passwd".to_owned()),
            ("a\r\nb", "a_b".replace("_b", "__b")),
            ("", "file".to_owned()),
            ("Re\u{301}sume\u{301} \u{1112}\u{1161}\u{11ab}.pdf", "R\u{e9}sum\u{e9} \u{d55c}.pdf".to_owned()),
            (&format!("{}.pdf", "x".repeat(300)), format!("{}.pdf", "x".repeat(251))),
            (&format!("{}.pdf", "中".repeat(100)), format!("{}.pdf", "中".repeat(83))),
        ] {
            assert_eq!(shown_name(name), expected);
        }
    }

    #[test]
    fn a_name_in_another_charset_is_read_in_that() {
        use std::os::unix::ffi::OsStrExt;
        for (name, expected) in [
            ("报告.pdf".as_bytes(), "报告.pdf"),
            (b"\xb1\xa8\xb8\xe6.pdf", "报告.pdf"),
            (b"Gr\xfc\xdfe.pdf", "Grüße.pdf"),
            (b"..", "file"),
        ] {
            let path = Path::new("f").join(std::ffi::OsStr::from_bytes(name));
            assert_eq!(shown_name(&own_name(&path)), expected, "{path:?}");
        }
    }

    #[test]
    fn inline_parts_carry_their_content_id() {
        let part = encode(b"x", "logo.png", None, &Disposition::Inline { cid: "lo go\r\n".to_owned() });
        let head = head(&part);
        assert!(head.contains("\r\nContent-ID: <lo_go__>\r\n"), "{head}");
        assert!(head.contains("Content-Disposition: inline;\r\n filename=\"logo.png\""), "{head}");
    }

    fn attached<'a>(path: &'a Path, name: &'a str) -> Sent<'a> {
        Sent { path, name, content_type: None, disposition: &Disposition::Attachment }
    }

    #[test]
    fn a_file_becomes_the_same_part_in_pieces_as_in_one() {
        let folder = tempfile::tempdir().expect("a folder");
        // Memory that comes back full of others' octets.
        let stock = Stock::new(1 << 20);
        for size in [0, 1, 56, 57, 58, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5] {
            let bytes: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
            let path = folder.path().join("a.bin");
            std::fs::write(&path, &bytes).expect("written");
            let whole = encode(&bytes, "a.bin", None, &Disposition::Attachment);
            let pieces = encode_file(&stock, attached(&path, "a.bin"), 1 << 20).expect("read");
            let pieces = pieces.0;
            assert!(whole.bytes == pieces.bytes && whole.record == pieces.record, "{size}");
            assert!(size == 0 || whole.bytes.ends_with(b"\r\n"));
        }
        let path = folder.path().join("a.bin");
        let error = encode_file(&stock, attached(&path, "a.bin"), 10).expect_err("too large");
        assert!(matches!(error, PartError::TooLarge { limit: 10, .. }));
    }

    #[test]
    fn nobody_waits_for_a_pipe() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("logo.png");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let error = Parts::new(0, 1 << 20).shared(attached(&path, "logo.png")).expect_err("a pipe");
        assert!(matches!(&error, PartError::Read { source, .. } if source.to_string() == "it is not a file"));
    }

    #[test]
    fn a_part_is_encoded_once_and_a_changed_file_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("terms.pdf");
        std::fs::write(&path, b"one").expect("written");
        let cache = Parts::new(1 << 20, 1 << 20);
        let first = cache.shared(attached(&path, "terms.pdf")).expect("encoded").0;
        let again = cache.shared(attached(&path, "terms.pdf")).expect("kept").0;
        assert!(Arc::ptr_eq(&first, &again));
        let other = cache.shared(attached(&path, "Terms 2026.pdf")).expect("encoded").0;
        assert!(!Arc::ptr_eq(&first, &other));
        std::fs::write(&path, b"another").expect("written");
        let error = cache.shared(attached(&path, "terms.pdf")).expect_err("changed");
        assert!(matches!(error, PartError::Changed { .. }), "{error}");
    }

    #[test]
    fn no_more_is_kept_than_was_said_however_small_the_parts_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dot.gif");
        std::fs::write(&path, b"GIF89a").expect("written");
        let cache = Parts::new(100 << 10, 1 << 20);
        for n in 0..200 {
            cache.shared(attached(&path, &format!("{n}.gif"))).expect("encoded");
        }
        let kept = cache.shared.read().expect("no thread panicked");
        assert!((50..100).contains(&kept.parts.len()), "{} parts", kept.parts.len());
    }
}
