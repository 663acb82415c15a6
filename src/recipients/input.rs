//! The bytes of a list as checked text, a stretch at a time: hashed as they come, decoded, the
//! byte order mark taken off. Readers above see a growing window of text and say what they are
//! done with.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, GB18030, UTF_8};

use super::RecipientsError;

/// How much is read at once: large enough for the hash and the disk, small beside everything else.
const STRETCH: usize = 128 * 1024;

/// Text as it is read.
pub(super) struct Input {
    /// For messages.
    pub(super) file: PathBuf,
    /// The row that is being read, for messages; readers keep it right.
    pub(super) row: u64,
    /// The line that the window begins in, from 1.
    line: u64,
    bytes: Box<dyn Read + Send>,
    hasher: blake3::Hasher,
    coding: Coding,
    /// Bytes read and not yet text: the beginning of a character that the last read cut.
    raw: Vec<u8>,
    text: String,
    at: usize,
    begun: bool,
    bytes_ended: bool,
    /// The rest is not text; said once what stands before it was used.
    undecodable: Option<String>,
}

enum Coding {
    /// Checked, not converted.
    Utf8,
    Other(Box<Decoder>, &'static Encoding),
}

impl Input {
    /// Opens a file. `encoding` is a label of the Encoding Standard.
    pub(super) fn open(file: &Path, encoding: Option<&str>) -> Result<Input, RecipientsError> {
        Input::new(file.to_owned(), Box::new(open(file)?.0), encoding)
    }

    /// Text from any bytes; `file` is how it is called in messages.
    pub(super) fn new(
        file: PathBuf,
        bytes: Box<dyn Read + Send>,
        encoding: Option<&str>,
    ) -> Result<Input, RecipientsError> {
        let encoding = match encoding {
            None => UTF_8,
            Some(label) => Encoding::for_label_no_replacement(label.trim().as_bytes())
                .ok_or_else(|| RecipientsError::UnknownEncoding { label: label.to_owned() })?,
        };
        Ok(Input {
            file,
            row: 0,
            line: 1,
            bytes,
            hasher: blake3::Hasher::new(),
            coding: Coding::of(encoding),
            raw: Vec::with_capacity(STRETCH),
            text: String::with_capacity(STRETCH),
            at: 0,
            begun: false,
            bytes_ended: false,
            undecodable: None,
        })
    }

    /// What is read and not yet used.
    pub(super) fn window(&self) -> &str {
        &self.text[self.at..]
    }

    /// Marks the first `len` bytes of the window, which end `lines` lines, as used.
    pub(super) fn consume(&mut self, len: usize, lines: u64) {
        self.at += len;
        self.line += lines;
    }

    /// The line the window begins in, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Lengthens the window; false at the end.
    pub(super) fn fill(&mut self) -> Result<bool, RecipientsError> {
        if self.at > 0 {
            self.text.drain(..self.at);
            self.at = 0;
        }
        let before = self.text.len();
        while self.text.len() == before {
            if let Some(hint) = self.undecodable.take() {
                return Err(self.not_decodable(hint));
            }
            if self.bytes_ended {
                return Ok(false);
            }
            self.read()?;
        }
        Ok(true)
    }

    /// Lengthens the window to `len` bytes, or as far as there is text, for a look ahead. Bytes
    /// that are no text are left to be found by [`Input::fill`], which knows their row.
    pub(super) fn sample(&mut self, len: usize) -> Result<(), RecipientsError> {
        while self.window().len() < len && self.undecodable.is_none() && !self.bytes_ended {
            self.read()?;
        }
        Ok(())
    }

    /// The hash of the bytes read until now; of the whole list once the window has ended.
    pub(super) fn hash(&self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    fn read(&mut self) -> Result<(), RecipientsError> {
        // The first stretch is filled: what the list is, is judged by it.
        let wanted = if self.begun { self.raw.len() + 1 } else { 8192 };
        while self.raw.len() < wanted && !self.bytes_ended {
            let kept = self.raw.len();
            self.raw.resize(kept + STRETCH, 0);
            let read = loop {
                match self.bytes.read(&mut self.raw[kept..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            let len = *read.as_ref().unwrap_or(&0);
            self.raw.truncate(kept + len);
            self.hasher.update(&self.raw[kept..]);
            match read {
                Ok(0) => self.bytes_ended = true,
                Ok(_) if self.begun => break,
                Ok(_) => {}
                Err(source) => return Err(RecipientsError::Io { file: self.file.clone(), source }),
            }
        }
        if !self.begun {
            self.begun = true;
            self.begin()?;
        }
        self.decode();
        Ok(())
    }

    /// A byte order mark is believed before any label, as in the Encoding Standard.
    fn begin(&mut self) -> Result<(), RecipientsError> {
        if let Some((encoding, mark)) = Encoding::for_bom(&self.raw) {
            self.coding = Coding::of(encoding);
            self.raw.drain(..mark);
        } else if let Coding::Other(_, encoding) = &self.coding
            && *encoding == GB18030
            && self.raw.starts_with(&[0x84, 0x31, 0x95, 0x33])
        {
            self.raw.drain(..4);
        }
        let packed = [
            (&b"PK\x03\x04"[..], "an Excel workbook or another ZIP archive"),
            (b"\xD0\xCF\x11\xE0", "an old Excel workbook"),
            (b"\x1F\x8B", "a gzip archive"),
            (b"%PDF-", "a PDF"),
        ];
        if let Coding::Other(_, encoding) = &self.coding
            && is_chinese_in_utf8(&self.raw)
        {
            return Err(RecipientsError::NotDecodable {
                file: self.file.clone(),
                encoding: encoding.name(),
                row: 0,
                line: 1,
                hint: "it is UTF-8: take `encoding:` out".to_owned(),
            });
        }
        match packed.into_iter().find(|(magic, _)| self.raw.starts_with(magic)) {
            Some((_, what)) => Err(RecipientsError::Packed { file: self.file.clone(), what }),
            None => Ok(()),
        }
    }

    fn decode(&mut self) {
        match &mut self.coding {
            Coding::Utf8 => {
                let (good, bad) = match std::str::from_utf8(&self.raw) {
                    Ok(text) => (text, None),
                    Err(error) => {
                        let good = std::str::from_utf8(&self.raw[..error.valid_up_to()]).unwrap_or_default();
                        // A character cut by the end of the stretch is no mistake unless nothing follows.
                        let cut = error.error_len().is_none() && !self.bytes_ended;
                        (good, (!cut).then_some(error.valid_up_to()))
                    }
                };
                self.text.push_str(good);
                let used = good.len();
                self.undecodable = bad.map(|at| hint(&self.raw, at));
                self.raw.drain(..used);
            }
            Coding::Other(decoder, encoding) => {
                let most = decoder.max_utf8_buffer_length_without_replacement(self.raw.len());
                self.text.reserve(most.unwrap_or(4 * STRETCH));
                let (result, _) =
                    decoder.decode_to_string_without_replacement(&self.raw, &mut self.text, self.bytes_ended);
                if let DecoderResult::Malformed(..) = result {
                    self.undecodable = Some(format!("`encoding: {}` does not fit", encoding.name()));
                }
                self.raw.clear();
            }
        }
    }

    fn not_decodable(&mut self, hint: String) -> RecipientsError {
        // Said once; what stands behind it is never read as text.
        self.bytes_ended = true;
        let lines = self.window().bytes().filter(|&byte| byte == b'\n').count() as u64;
        RecipientsError::NotDecodable {
            file: self.file.clone(),
            encoding: match &self.coding {
                Coding::Utf8 => UTF_8.name(),
                Coding::Other(_, encoding) => encoding.name(),
            },
            row: self.row,
            line: self.line + lines,
            hint,
        }
    }
}

impl Coding {
    fn of(encoding: &'static Encoding) -> Coding {
        match encoding == UTF_8 {
            true => Coding::Utf8,
            false => Coding::Other(Box::new(encoding.new_decoder_without_bom_handling()), encoding),
        }
    }
}

/// Opens a file that can be read again, as a list is that is compared with what it was. The metadata are those of the
/// open file.
pub(super) fn open(file: &Path) -> Result<(File, Metadata), RecipientsError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => RecipientsError::Missing { file: file.to_owned() },
        _ => RecipientsError::Unreadable { file: file.to_owned(), source },
    };
    // A pipe is not even opened: that waits for whoever writes into it.
    let kind = std::fs::metadata(file).map_err(unreadable)?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        return Err(RecipientsError::ReadOnce { file: file.to_owned() });
    }
    let opened = File::open(file).map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    Ok((opened, metadata))
}

/// Whether the beginning of a list is UTF-8 beyond doubt. In GB18030 nearly all of it would be characters, too, and
/// everybody would be sent them.
fn is_chinese_in_utf8(raw: &[u8]) -> bool {
    /// That so many characters of three bytes come about by chance, and nothing that is no UTF-8, is not seen.
    const ENOUGH: usize = 2;
    let good = match std::str::from_utf8(raw) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&raw[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    good.chars().filter(|sign| sign.len_utf8() > 2).nth(ENOUGH - 1).is_some()
}

/// What bytes that are not UTF-8 may be, judged by the line they stand in.
fn hint(raw: &[u8], bad: usize) -> String {
    if raw.contains(&0) {
        let order = if raw.first() == Some(&0) { "be" } else { "le" };
        return format!("is this UTF-16? Then say `encoding: utf-16{order}`");
    }
    let start = raw[..bad].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let end = raw[bad..].iter().position(|&byte| byte == b'\n').map_or(raw.len(), |at| bad + at);
    let line = &raw[start..end];
    // The characters in use stand in GB2312's part, both bytes above 127: all stretches are even,
    // as they hardly are in a Western text with an accent here and there.
    let even = line.split(|byte| *byte < 0x80).all(|stretch| stretch.len() % 2 == 0);
    match GB18030.decode_without_bom_handling_and_without_replacement(line) {
        Some(_) if even => "is this GB18030? Then say `encoding: gb18030`".to_owned(),
        _ => "say its `encoding:` (gb18030, big5, windows-1252, …), or save it as UTF-8".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::BIG5;

    /// Gives one byte at a time, so that every character is cut.
    struct Dribble(Vec<u8>, usize);

    impl Read for Dribble {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(byte) = self.0.get(self.1) else { return Ok(0) };
            self.1 += 1;
            into[0] = *byte;
            Ok(1)
        }
    }

    fn all(bytes: &[u8], encoding: Option<&str>) -> Result<String, RecipientsError> {
        // The first stretch is always filled; what must dribble comes after it.
        let (head, tail) = bytes.split_at(bytes.len().min(9000));
        let reader = Box::new(io::Cursor::new(head.to_vec()).chain(Dribble(tail.to_vec(), 0)));
        let mut input = Input::new("list.csv".into(), reader, encoding)?;
        while input.fill()? {}
        assert_eq!(input.hash(), *blake3::hash(bytes).as_bytes());
        Ok(input.window().to_owned())
    }

    #[test]
    fn every_encoding_becomes_text() {
        let text = "姓名,邮箱\r\n".repeat(1200) + "张伟,zhang@example.cn";
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(bytes).collect() };
        let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        let gb = GB18030.encode(&text).0.into_owned();
        let big5 = "姓名,郵箱".repeat(900);
        for (name, bytes, encoding, expected) in [
            ("plain", text.clone().into_bytes(), None, &text),
            ("marked", marked(b"\xEF\xBB\xBF", text.as_bytes()), None, &text),
            ("gb18030", gb.clone(), Some("gb18030"), &text),
            ("gbk", gb.clone(), Some("GBK"), &text),
            ("gb2312", gb.clone(), Some("gb2312"), &text),
            ("marked gb18030", marked(b"\x84\x31\x95\x33", &gb), Some("gb18030"), &text),
            ("big5", BIG5.encode(&big5).0.into_owned(), Some("big5"), &big5),
            ("utf-16le", utf16(u16::to_le_bytes), Some("utf-16le"), &text),
            ("utf-16be by its mark", marked(b"\xFE\xFF", &utf16(u16::to_be_bytes)), None, &text),
            ("the mark is believed", marked(b"\xFF\xFE", &utf16(u16::to_le_bytes)), Some("gbk"), &text),
        ] {
            assert_eq!(&all(&bytes, encoding).expect(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_text_is_told() {
        let gb = [&b"name\n"[..], &GB18030.encode("张伟,1\n").0].concat();
        for (bytes, encoding, expected) in [
            (&gb[..], None, "UTF-8 in line 2: is this GB18030?"),
            ("姓名,邮箱\n".as_bytes(), Some("gbk"), "GBK in line 1: it is UTF-8"),
            (b"\xd3\x59\r\0\n\0", None, "encoding: utf-16le"),
            (b"\0\r\0\n\x59\xd3", None, "encoding: utf-16be"),
            (b"a\nb\nno\xEBl\n", None, "UTF-8 in line 3: say its"),
            (b"a\n\xE5\xBC", None, "in line 2:"),
            (b"a\n\x80\xFF\n", Some("gb18030"), "gb18030 in line 2: `encoding: gb18030` does not fit"),
            (b"a", Some("klingon"), "`klingon` is no encoding"),
            (b"a", Some("iso-2022-kr"), "`iso-2022-kr` is no encoding"),
            (b"PK\x03\x04....", None, "Excel"),
        ] {
            let error = all(bytes, encoding).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
