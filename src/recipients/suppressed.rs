//! Who must not be written to: files of addresses, held as sorted hashes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::job::Text;
use crate::letter::is_address_column;
use crate::mail::EmailAddress;

use super::input::{self, Input};
use super::table::{self, Table};
use super::{RecipientsError, cell};

/// The addresses of all suppress files, 16 bytes each however long they are.
///
/// Both parts of an address are compared without regard to case. A domain has none (RFC 1035
/// §2.3.3). A local part could have (RFC 5321 §2.4), but hardly a host that people write to
/// makes use of it, and whoever left as `Ada@` would not forgive a letter to `ada@`: here the
/// mistake that writes to nobody is the lesser one. Compared is [`EmailAddress::folded`].
#[derive(Debug, Default)]
pub struct Suppressed {
    /// The first 128 bits of BLAKE3, sorted. At 64 bits a million letters against a million
    /// entries would skip somebody by chance once in twenty million runs; at 128 never.
    hashes: Vec<u128>,
    files: Vec<(PathBuf, Stamp)>,
}

/// What tells a file that was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    inode: u64,
}

impl Suppressed {
    /// Reads the files: one address to a line, or a table with a column whose name says that it holds
    /// addresses; `#` begins a comment. A line that is no address is an error, never passed over.
    pub fn load(files: &[(PathBuf, Text)]) -> Result<Suppressed, RecipientsError> {
        Suppressed::default().read(files.iter().map(|(file, _)| file.clone()))
    }

    /// Whether nothing may be sent to this address.
    pub fn contains(&self, address: &EmailAddress) -> bool {
        !self.hashes.is_empty() && self.hashes.binary_search(&hash(&address.folded())).is_ok()
    }

    /// How many addresses there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a file was written, replaced or removed since it was read: one `stat` each.
    pub fn changed(&self) -> bool {
        self.files.iter().any(|(file, stamp)| {
            !matches!(std::fs::metadata(file), Ok(metadata) if Stamp::of(&metadata) == *stamp)
        })
    }

    /// Reads the same files again. On an error these entries stay in force; and whoever was named once
    /// stays named, for a file that is just being written is shorter for a moment than it was.
    pub fn reload(&self) -> Result<Suppressed, RecipientsError> {
        let before = Suppressed { hashes: self.hashes.clone(), files: Vec::new() };
        before.read(self.files.iter().map(|(file, _)| file.clone()))
    }

    /// Adds what the files hold.
    fn read(self, files: impl Iterator<Item = PathBuf>) -> Result<Suppressed, RecipientsError> {
        let mut suppressed = self;
        for file in files {
            // The stamp is of the open file: one that is replaced meanwhile counts as changed.
            let (opened, metadata) = input::open(&file)?;
            let read = Input::new(file.clone(), Box::new(opened), None)
                .and_then(|input| read_file(input, &mut suppressed.hashes));
            read.map_err(of_no_list)?;
            suppressed.files.push((file, Stamp::of(&metadata)));
        }
        suppressed.hashes.sort_unstable();
        suppressed.hashes.dedup();
        suppressed.hashes.shrink_to_fit();
        Ok(suppressed)
    }
}

/// `encoding:` in the job speaks of the list of recipients alone.
fn of_no_list(error: RecipientsError) -> RecipientsError {
    match error {
        RecipientsError::NotDecodable { file, encoding, row, line, .. } => {
            let hint = "save it as UTF-8".to_owned();
            RecipientsError::NotDecodable { file, encoding, row, line, hint }
        }
        error => error,
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
        }
    }
}

fn read_file(mut input: Input, hashes: &mut Vec<u128>) -> Result<(), RecipientsError> {
    let file = input.file.clone();
    let delimiter = table::delimiter(&mut input)?;
    let mut table = Table::new(input, delimiter, Some(b'#'));
    let mut column = None;
    let mut row = 0;
    loop {
        table.input.row = row;
        let Some(record) = table.next()? else { return Ok(()) };
        row += 1;
        let line = record.line;
        let no_address = |text: &str| RecipientsError::NotSuppressible {
            file: file.clone(),
            line,
            text: cell::shown(text),
        };
        if record.flaw.is_some() {
            return Err(no_address(record.text()));
        }
        let Some(place) = column else {
            let named = record
                .cells()
                .position(|name| is_address_column(&name) || name.trim().eq_ignore_ascii_case("address"));
            column = named.or((record.len() == 1).then_some(0));
            match (named, column) {
                (Some(_), _) => continue,
                (None, Some(place)) => push(hashes, &record.cell(place).unwrap_or_default(), no_address)?,
                (None, None) => return Err(RecipientsError::NoSuppressColumn { file: file.clone() }),
            }
            continue;
        };
        match record.cell(place) {
            Some(text) => push(hashes, &text, no_address)?,
            None => return Err(no_address(record.text())),
        }
    }
}

fn push(
    hashes: &mut Vec<u128>,
    text: &str,
    no_address: impl Fn(&str) -> RecipientsError,
) -> Result<(), RecipientsError> {
    let bare = text.split_once(" #").map_or(text, |(before, _)| before).trim();
    if bare.is_empty() {
        return Ok(());
    }
    let bare = match bare.rfind('<') {
        Some(start) => bare[start + 1..].strip_suffix('>').ok_or_else(|| no_address(text))?,
        None => bare,
    };
    // It would be taken for one strange address, and everybody meant by it would be mailed.
    if bare.starts_with("*@") {
        return Err(no_address(text));
    }
    // The usual form is seen at once; all others are judged as a recipient's address is.
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    let plain = bare.split_once('@').is_some_and(|(local, domain)| {
        let whole = !local.is_empty() && !domain.is_empty() && !domain.ends_with('.');
        whole && local.bytes().all(usual) && domain.bytes().all(usual)
    });
    let hash = match plain && !has_a_label(bare) {
        true => hash(&bare.to_ascii_lowercase()),
        false => hash(&bare.parse::<EmailAddress>().map_err(|_| no_address(text))?.folded()),
    };
    if hashes.len() == hashes.capacity() {
        // By eighths, not by doubling: the entries are to cost 16 bytes, not 32.
        hashes.reserve_exact((hashes.len() / 8).max(1024));
    }
    hashes.push(hash);
    Ok(())
}

/// Whether a domain may be one in Unicode, written in ASCII (RFC 5890 §2.3.2.1).
fn has_a_label(address: &str) -> bool {
    address.as_bytes().windows(4).any(|four| four.eq_ignore_ascii_case(b"xn--"))
}

/// The hash of an address in the form that is compared, [`EmailAddress::folded`].
fn hash(folded: &str) -> u128 {
    let digest = *blake3::hash(folded.as_bytes()).as_bytes();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Suppressed, RecipientsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gone.csv");
        std::fs::write(&file, text).expect("written");
        Suppressed::load(&[(file, Text::new(""))])
    }

    #[test]
    fn who_is_named_is_suppressed() {
        for (text, address, expected) in [
            ("ada@example.org\n", "ada@example.org", true),
            ("ada@example.org", "bob@example.org", false),
            ("\"\"\"ada\"\"@example.org\"", "ada@example.org", true),
            ("\"\"\"a@b\"\"@example.org\"", "\"a@b\"@example.org", true),
            ("ada@exa\u{200b}mple.org", "ada@example.org", true),
            ("\u{FEFF}ADA@Example.ORG\r\n", "ada@example.org", true),
            ("ada@example.org", "Ada@EXAMPLE.org", true),
            ("ada@例子.中国", "ada@xn--fsqu00a.xn--fiqs8s", true),
            ("ada@XN--FSQU00A.xn--fiqs8s.", "ada@例子.中国", true),
            ("用户@例子.中国", "用户@例子.中国", true),
            ("jose\u{301}@example.org", "josé@example.org", true),
            ("JOSÉ@example.org", "jose\u{301}@example.org", true),
            ("josé@example.org", "jose@example.org", false),
            ("# left in May\n\nada@example.org # by phone\n", "ada@example.org", true),
            ("Ada Lovelace <ada@example.org>\n", "ada@example.org", true),
            ("a#b@example.org\n", "a#b@example.org", true),
            ("email\nada@example.org\n", "ada@example.org", true),
            ("date,E-Mail\n2026-01-01,ada@example.org\n2026-01-02,\n", "ada@example.org", true),
            ("姓名;邮箱\n张;zhang@example.cn\n", "zhang@example.cn", true),
            ("sep=|\nwhy|电子邮箱\nleft|zhang@example.cn\n", "zhang@example.cn", true),
            ("name\tAddress\nx\tada@example.org\n", "ada@example.org", true),
            ("", "ada@example.org", false),
        ] {
            let suppressed = load(text).expect(text);
            assert_eq!(suppressed.contains(&address.parse().expect(address)), expected, "{text:?} {address}");
        }
    }

    #[test]
    fn no_line_is_passed_over() {
        for (text, expected) in [
            ("ada@example.org\nnobody\n", "line 2: `nobody` is not an address"),
            ("ada@example.org\n\nx y@example.org\n", "line 3: `x y@example.org` is not"),
            ("*@example.org\n", "line 1: `*@example.org` is not"),
            ("a@b.c,x\n", "none of them is named email"),
            ("date,email\n2026-01-01\n", "line 2"),
            ("\"a@b.c\n", "never closes it"),
            ("a@b.c\n\u{FF}", "not UTF-8"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("gone.txt");
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            std::fs::write(&file, bytes).expect("written");
            let error = Suppressed::load(&[(file, Text::new(""))]).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let missing = Suppressed::load(&[("/nowhere/at/all".into(), Text::new(""))]);
        assert!(matches!(missing, Err(RecipientsError::Missing { .. })));
    }

    #[test]
    fn a_changed_file_is_seen_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gone.txt");
        std::fs::write(&file, "ada@example.org\n").expect("written");
        let suppressed = Suppressed::load(&[(file.clone(), Text::new(""))]).expect("read");
        assert!(!suppressed.changed());
        std::fs::write(&file, "ada@example.org\nbob@example.org\nADA@example.org\n").expect("written");
        assert!(suppressed.changed());
        let suppressed = suppressed.reload().expect("read");
        assert_eq!((suppressed.changed(), suppressed.len()), (false, 2));
        // Somebody writes it anew, and has not got far yet.
        std::fs::write(&file, "eve@example.org\n").expect("written");
        let suppressed = suppressed.reload().expect("read");
        assert_eq!((suppressed.changed(), suppressed.len()), (false, 3));
        assert!(suppressed.contains(&"ada@example.org".parse().expect("an address")));
        std::fs::remove_file(&file).expect("removed");
        assert!(suppressed.changed() && suppressed.reload().is_err());
    }

    #[test]
    fn an_entry_costs_sixteen_bytes() {
        let text: String =
            (0..30_000).map(|n| format!("somebody.with.a.long.name.{n}@example.org\n")).collect();
        let suppressed = load(&text).expect("read");
        assert_eq!((suppressed.len(), suppressed.hashes.capacity()), (30_000, 30_000));
    }
}
