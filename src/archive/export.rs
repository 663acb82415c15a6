//! Packs an archive for other programs: one mbox file, a Maildir, or a BagIt bag. The bytes of the
//! messages stay what they are, as far as the form allows.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::Path;

use super::digest::Digest;
use super::journal::{self, Entry, Position};
use super::shelf::Places;
use super::store::{private, private_folder};
use crate::read::{fields, header_end};

/// How many messages were packed, and what could not be.
#[derive(Debug, Default)]
pub struct Packed {
    /// Messages.
    pub messages: u64,
    /// Files that are missing or changed; they are left out.
    pub left_out: Vec<String>,
}

/// Every archived message that is still what it was: its entry and its place.
fn each_message(
    store: &Path,
    packed: &mut Packed,
    mut take: impl FnMut(&Entry, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let Some(mut lines) = journal::read(store, Position::START)? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no journal.jsonl"));
    };
    let mut done = std::collections::HashSet::new();
    let places = Places::of(store);
    while let Some(found) = lines.next_line()? {
        let Some(entry) = found.line.map(|line| line.entry) else { continue };
        let (true, Some(digest)) = (entry.what.has_file(), entry.sha256) else { continue };
        let place = places.find(&entry.path).map(|place| store.join(place));
        let same = place.as_ref().map(|place| File::open(place).and_then(Digest::of_reader));
        match (place, same) {
            (Some(place), Some(Ok((found, _)))) if found == digest => {
                if done.insert(digest) {
                    take(&entry, &place)?;
                    packed.messages += 1;
                }
            }
            _ => packed.left_out.push(entry.path),
        }
    }
    Ok(())
}

/// One file in the form of RFC 4155, quoted as mboxrd: a line of `>`s and `From ` gets one `>` more, so
/// that it can be undone. Lines end with LF. What cannot be written whole is taken away again: nobody sees of an
/// mbox file that its end is missing.
pub fn mbox(store: &Path, out: &Path) -> io::Result<Packed> {
    let file = private().write(true).create_new(true).open(out)?;
    let packed = write_mbox(store, file);
    if packed.is_err() {
        let _ = fs::remove_file(out);
    }
    packed
}

fn write_mbox(store: &Path, file: File) -> io::Result<Packed> {
    let mut packed = Packed::default();
    let mut to = BufWriter::with_capacity(256 * 1024, file);
    each_message(store, &mut packed, |entry, place| {
        let mut from = BufReader::with_capacity(128 * 1024, File::open(place)?);
        let head = from.fill_buf()?;
        let sender = sender(head);
        let at = jiff::Timestamp::from_second(entry.date.unwrap_or(entry.at)).map_err(io::Error::other)?;
        writeln!(to, "From {sender} {}", at.strftime("%a %b %e %H:%M:%S %Y"))?;
        quote(&mut from, &mut to)?;
        to.write_all(b"\n")
    })?;
    to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(packed)
}

/// The address after `From `: where bounces went, else who wrote.
fn sender(head: &[u8]) -> String {
    let (end, _) = header_end(head);
    let of = |name: &str| {
        let field = fields(&head[..end]).find(|field| field.is(name))?;
        let found = crate::read::addresses(field.value, None).into_iter().next()?.address;
        let fine = !found.is_empty() && found.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then_some(found)
    };
    of("Return-Path").or_else(|| of("From")).unwrap_or_else(|| "MAILER-DAEMON".to_owned())
}

/// Copies lines, quoted; lines of any length pass in pieces.
fn quote(from: &mut impl io::BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut begins = true;
    let mut last = b'\n';
    let mut held_cr = false;
    loop {
        let mut piece = Vec::new();
        let count = io::Read::take(&mut *from, PIECE).read_until(b'\n', &mut piece)?;
        if count == 0 {
            break;
        }
        if held_cr && piece != b"\n" {
            to.write_all(b"\r")?;
        }
        held_cr = false;
        if begins {
            let arrows = piece.iter().take_while(|&&byte| byte == b'>').count();
            if piece[arrows..].starts_with(b"From ") {
                to.write_all(b">")?;
            }
        }
        begins = piece.ends_with(b"\n");
        if let Some(line) = piece.strip_suffix(b"\r\n") {
            to.write_all(line)?;
            to.write_all(b"\n")?;
        } else if let Some(part) = piece.strip_suffix(b"\r") {
            held_cr = true;
            to.write_all(part)?;
        } else {
            to.write_all(&piece)?;
        }
        last = piece.last().copied().unwrap_or(last);
    }
    if held_cr {
        to.write_all(b"\r")?;
    }
    if last == b'\n' { Ok(()) } else { to.write_all(b"\n") }
}

const PIECE: u64 = 64 * 1024;

/// A Maildir: each message in `cur/`, seen.
pub fn maildir(store: &Path, out: &Path) -> io::Result<Packed> {
    let mut packed = Packed::default();
    for part in ["cur", "new", "tmp"] {
        private_folder(&out.join(part))?;
    }
    each_message(store, &mut packed, |entry, place| {
        let hash = entry.sha256.map(|digest| digest.short(20)).unwrap_or_default();
        let name = format!("{}.{hash}.postroom", entry.date.unwrap_or(entry.at).max(0));
        let aside = out.join("tmp").join(&name);
        // An export that was cut short may have left it.
        let _ = fs::remove_file(&aside);
        copy(place, &aside)?;
        fs::rename(aside, out.join("cur").join(format!("{name}:2,S")))
    })?;
    sync(out)?;
    Ok(packed)
}

/// A bag (RFC 8493): the messages as they are under `data/`, with manifests.
pub fn bagit(store: &Path, out: &Path, now: i64) -> io::Result<Packed> {
    let mut packed = Packed::default();
    private_folder(out)?;
    if fs::read_dir(out)?.next().is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the folder of a new bag must be empty"));
    }
    let mut manifest =
        BufWriter::new(private().write(true).create_new(true).open(out.join("manifest-sha256.txt"))?);
    let mut octets = 0;
    each_message(store, &mut packed, |entry, place| {
        let target = out.join("data").join(&entry.path);
        if let Some(folder) = target.parent() {
            private_folder(folder)?;
        }
        copy(place, &target)?;
        octets += entry.size;
        match entry.sha256 {
            Some(digest) => writeln!(manifest, "{digest}  data/{}", entry.path),
            None => Ok(()),
        }
    })?;
    private_folder(&out.join("data"))?;
    manifest.flush()?;
    let day = jiff::Timestamp::from_second(now).map_err(io::Error::other)?.strftime("%Y-%m-%d").to_string();
    let mut tags = String::new();
    for (name, text) in [
        ("bagit.txt", "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n".to_owned()),
        (
            "bag-info.txt",
            format!(
                "Bagging-Date: {day}\nPayload-Oxum: {octets}.{}\nBag-Software-Agent: postroom\n",
                packed.messages
            ),
        ),
    ] {
        let mut file = private().write(true).create_new(true).open(out.join(name))?;
        file.write_all(text.as_bytes())?;
        tags.push_str(&format!("{}  {name}\n", Digest::of(text.as_bytes())));
    }
    let (digest, _) = Digest::of_reader(File::open(out.join("manifest-sha256.txt"))?)?;
    tags.push_str(&format!("{digest}  manifest-sha256.txt\n"));
    let mut file = private().write(true).create_new(true).open(out.join("tagmanifest-sha256.txt"))?;
    file.write_all(tags.as_bytes())?;
    sync(out)?;
    Ok(packed)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = private().write(true).create_new(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut out).map(|_| ())
}

/// Makes the whole of a new folder durable at once: a sync of each of many small files costs minutes.
fn sync(out: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(out)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_begin_a_message_are_quoted() {
        for (text, expected) in [
            ("a\r\nFrom b\r\n", "a\n>From b\n"),
            (">From b\r\n>>From c\n From d\n", ">>From b\n>>>From c\n From d\n"),
            ("a\r\n.\r\nlast", "a\n.\nlast\n"),
            ("a\rb\r\n", "a\rb\n"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            quote(&mut text.as_bytes(), &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text:?}");
        }
        assert_eq!(sender(b"From: A <a@x.org>\nReturn-Path: <b@x.org>\n\n"), "b@x.org");
        assert_eq!(sender(b"Return-Path: <>\n\n"), "MAILER-DAEMON");
    }
}
