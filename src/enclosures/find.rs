//! From a pattern to files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Access, access};

use crate::letter::{Piece, RecipientKey};

use super::fingerprint::{FileFingerprint, Fold};
use super::listing::{Kind, Listing, Listings};
use super::pattern::{Component, Name, Pattern, nfc};
use super::{Claims, EnclosureError, OtherKey};

/// How many patterns without a row's value are kept with what they found. A job has a handful.
const MAX_FIXED: usize = 256;

/// How many folders are kept with where they really are.
const MAX_REAL: usize = 4096;

/// Whose a file is that was found by a row's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The recipient's alone: an error if it is another's too, and a value may not go on where a wildcard
    /// stands beside it.
    TheirsAlone,
    /// Of as many as name it, as a picture is; but a value may not go on either, and by another value it is
    /// another's.
    Manys,
    /// The job says that it may be sent to anybody.
    Anybodys,
}

/// Finds the files of patterns below a root. Shared by all threads: what one has listed, all know.
#[derive(Debug)]
pub struct Finder {
    root: PathBuf,
    listings: Listings,
    /// What patterns found that no row contributed to: the same for everybody.
    fixed: Mutex<HashMap<String, Arc<[Found]>>>,
    /// Folders without their links.
    real: Mutex<HashMap<PathBuf, Arc<Path>>>,
    claims: Claims,
    /// Some rows of the list are left out.
    leaves_out: bool,
    #[cfg(test)]
    compared: std::sync::atomic::AtomicU64,
}

impl Finder {
    /// A finder whose relative patterns start at `root`.
    pub fn new(root: &Path) -> Finder {
        Finder {
            root: root.to_owned(),
            listings: Listings::default(),
            fixed: Mutex::default(),
            real: Mutex::default(),
            claims: Claims::default(),
            leaves_out: false,
            #[cfg(test)]
            compared: std::sync::atomic::AtomicU64::default(),
        }
    }

    /// With rows that get no letter, and have files all the same: [`Finder::leave_out`].
    pub fn leaving_out(mut self, leaves_out: bool) -> Finder {
        self.leaves_out = leaves_out;
        self
    }

    /// The files of a pattern, in byte order of their paths, each of them there now.
    ///
    /// A [`Piece::Value`] is literal, and what is found stays below the folder that stands before
    /// the first one; `whose` says what else holds for a file that such a pattern finds. `expect` is
    /// the least and the most number of files.
    pub fn find(
        &self,
        pattern: &[Piece],
        key: &RecipientKey,
        whose: Whose,
        expect: (usize, usize),
    ) -> Result<Vec<PathBuf>, EnclosureError> {
        let has_value = pattern.iter().any(|piece| matches!(piece, Piece::Value(_)));
        let compared = self.leaves_out || whose == Whose::Manys;
        let words = (compared && may_find_anothers(pattern)).then(|| self.claims.words(pattern));
        let files = match has_value {
            true => Pattern::parse(pattern).and_then(|pattern| {
                let picture = whose == Whose::Manys;
                let claimed = |file: &Path| {
                    let claimed = match (whose, words) {
                        (Whose::TheirsAlone, words) => self.claims.claim(file, key, words),
                        (Whose::Manys, Some(words)) if !self.claims.share(file, words) => {
                            Err(OtherKey { path: file.to_owned(), left_out: false })
                        }
                        (Whose::Manys | Whose::Anybodys, _) => Ok(()),
                    };
                    claimed.map_err(|other| EnclosureError::Claimed { other, picture })
                };
                self.find_all(&pattern, whose, &claimed)
            }),
            false => self.find_fixed(pattern).map(|files| files.to_vec()),
        };
        let files = match files {
            Err(EnclosureError::NoMatch { .. }) if expect.0 == 0 => Vec::new(),
            files => files?,
        };
        if files.len() < expect.0 || files.len() > expect.1 {
            let (pattern, found) = (self.root.join(text_of(pattern).as_ref()), files.len());
            return Err(EnclosureError::Number { pattern, found, expected: expect });
        }
        Ok(files.into_iter().map(|file| file.path).collect())
    }

    /// Notes which files a pattern finds for a row that gets no letter. What is wrong with them is of no
    /// interest.
    pub fn leave_out(&self, pattern: &[Piece]) {
        if !may_find_anothers(pattern) {
            return;
        }
        let words = self.claims.words(pattern);
        let noted = |file: &Path| {
            self.claims.leave_out(file, words);
            Ok(())
        };
        if let Ok(pattern) = Pattern::parse(pattern) {
            let _ = self.find_all(&pattern, Whose::TheirsAlone, &noted);
        }
    }

    /// Which files were found for whom, to be asked once the whole list is enlisted: a file of two
    /// recipients is to be sent to neither.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// These files as they are now, in one value ([`Fold`]); each of them can be read.
    pub fn fold<'p>(&self, files: impl IntoIterator<Item = &'p Path>) -> Result<Option<i64>, EnclosureError> {
        let mut fold = Fold::default();
        for file in files {
            let unreadable = |source| EnclosureError::Unreadable { file: file.to_owned(), source };
            let metadata = fs::metadata(file).map_err(unreadable)?;
            readable(file)?;
            fold.add(file, FileFingerprint::of(&metadata));
        }
        Ok(fold.value())
    }

    fn find_fixed(&self, pattern: &[Piece]) -> Result<Arc<[Found]>, EnclosureError> {
        let text = text_of(pattern);
        let known = self.fixed.lock().unwrap_or_else(PoisonError::into_inner).get(text.as_ref()).cloned();
        if let Some(files) = known {
            return Ok(files);
        }
        let files: Arc<[Found]> =
            self.find_all(&Pattern::parse(pattern)?, Whose::Anybodys, &|_| Ok(()))?.into();
        files.iter().try_for_each(|file| readable(&file.path))?;
        let mut fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        if fixed.len() < MAX_FIXED {
            fixed.insert(text.into_owned(), files.clone());
        }
        Ok(files)
    }

    /// What is found is claimed whatever else is wrong with the row: a file that two patterns name is
    /// nobody's, though one of the two rows gets no letter for another reason.
    fn find_all(
        &self,
        pattern: &Pattern,
        whose: Whose,
        claimed: &dyn Fn(&Path) -> Result<(), EnclosureError>,
    ) -> Result<Vec<Found>, EnclosureError> {
        let start = if pattern.absolute { Path::new("/") } else { &self.root };
        let mut search =
            Search { finder: self, pattern, whose, found: Vec::new(), wrong: None, runs_on: None };
        let mut searched = Ok(());
        for components in &pattern.alternatives {
            searched = searched.and(search.below(start.to_owned(), components, Bound::default()));
        }
        let Search { mut found, wrong, runs_on, .. } = search;
        let claims: Vec<_> = found.iter().map(|file| claimed(&file.real)).collect();
        searched?;
        runs_on.map_or(Ok(()), Err)?;
        claims.into_iter().collect::<Result<(), _>>()?;
        if found.is_empty() {
            // A folder where a file was meant says more than that nothing was found.
            return Err(wrong.unwrap_or_else(|| self.no_match(pattern, start)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The folder as it is behind all links.
    fn real(&self, folder: &Path) -> Result<Arc<Path>, io::Error> {
        let mut known = self.real.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(real) = known.get(folder) {
            return Ok(real.clone());
        }
        let real: Arc<Path> = folder.canonicalize()?.into();
        if known.len() >= MAX_REAL {
            known.clear();
        }
        known.insert(folder.to_owned(), real.clone());
        Ok(real)
    }

    /// Where the way ended, and what would have been near: the names about the place where the
    /// missing one would stand, not all names of the folder, so that a hundred thousand rows that
    /// find nothing in a hundred thousand names are told in a reasonable time.
    fn no_match(&self, pattern: &Pattern, start: &Path) -> EnclosureError {
        const ABOUT: usize = 24;
        let mut folder = start.to_owned();
        let mut nearest = Vec::new();
        for (at, component) in pattern.alternatives.first().into_iter().flatten().enumerate() {
            let Component::Name(name) = component else { break };
            let last = pattern.alternatives.first().is_none_or(|all| all.len() == at + 1);
            if let Some(literal) = name.literal().filter(|_| !last)
                && folder.join(&literal).is_dir()
            {
                folder.push(literal);
                continue;
            }
            let Ok(listing) = self.listings.folder(&folder) else { break };
            let wanted = name.literal().unwrap_or_else(|| name.prefix() + &name.suffix());
            let place = listing.place(&wanted);
            let about = place.saturating_sub(ABOUT)..(place + ABOUT).min(listing.len());
            let mut near: Vec<(f64, &str)> = about
                .map(|n| listing.name(n))
                // What is there by this name is no file, or was one when the folder was read.
                .filter(|name| !name.starts_with('.') && *name != wanted)
                .map(|name| (-strsim::jaro_winkler(&wanted, name), name))
                .collect();
            near.sort_by(|one, other| one.0.total_cmp(&other.0));
            nearest = near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect();
            break;
        }
        EnclosureError::NoMatch { pattern: self.root.join(&pattern.text), nearest }
    }

    fn compares(&self) {
        #[cfg(test)]
        self.compared.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A file that may not be read is a mistake of its row before anything is sent. Where it is read at once,
/// opening it says so.
fn readable(file: &Path) -> Result<(), EnclosureError> {
    access(file, Access::READ_OK)
        .map_err(|error| EnclosureError::Unreadable { file: file.to_owned(), source: error.into() })
}

/// Whether this says that a file is not there, and not that nobody can tell.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

/// Whether two values may find the same file: what is written out is found by one alone.
fn may_find_anothers(pattern: &[Piece]) -> bool {
    let (mut value, mut wild) = (false, false);
    for piece in pattern {
        match piece {
            Piece::Value(_) => value = true,
            Piece::Operator(text) => wild |= text.contains(['*', '?', '[']),
        }
    }
    value && wild
}

/// A pattern as resolved.
fn text_of(pattern: &[Piece]) -> Cow<'_, str> {
    fn text(piece: &Piece) -> &str {
        match piece {
            Piece::Operator(text) | Piece::Value(text) => text,
        }
    }
    match pattern {
        [only] => Cow::Borrowed(text(only)),
        pieces => Cow::Owned(pieces.iter().map(text).collect()),
    }
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// On the way that the pattern took.
    path: PathBuf,
    /// Without links, where a row had a part in it: what is claimed.
    real: PathBuf,
}

/// One pattern on its way through the folders.
struct Search<'a> {
    finder: &'a Finder,
    pattern: &'a Pattern,
    whose: Whose,
    found: Vec<Found>,
    /// What was named and is no file.
    wrong: Option<EnclosureError>,
    /// A file where a value goes on in the name.
    runs_on: Option<EnclosureError>,
}

/// What must hold for all that is found further down.
#[derive(Debug, Clone, Default)]
struct Bound {
    /// The folder before the first value, without links: nothing may lie outside of it.
    folder: Option<Arc<Path>>,
    /// Between that folder and here there are only names that are no links.
    straight: bool,
    /// On the way a value went on in a name.
    runs_on: bool,
}

impl Search<'_> {
    fn below(
        &mut self,
        mut folder: PathBuf,
        components: &[Component],
        mut bound: Bound,
    ) -> Result<(), EnclosureError> {
        match components {
            [] => Ok(()),
            [Component::Parent, rest @ ..] => {
                folder.push("..");
                bound.straight = false;
                self.below(folder, rest, bound)
            }
            [Component::Deep, rest @ ..] => self.deep(&folder, rest, bound),
            [Component::Name(name), rest @ ..] => {
                if !self.bind(&folder, name.has_value, &mut bound)? {
                    return Ok(());
                }
                match name.literal() {
                    Some(literal) if rest.is_empty() => self.file(&folder, &literal, bound),
                    Some(literal) => {
                        // Another form of the same characters is looked for only where it can be.
                        let next = folder.join(&literal);
                        if !literal.is_ascii() && fs::symlink_metadata(&next).is_err() {
                            return self.names(&folder, name, rest, &bound);
                        }
                        bound.straight = false;
                        self.below(next, rest, bound)
                    }
                    None => self.names(&folder, name, rest, &bound),
                }
            }
        }
    }

    /// Fixes the folder that a value must not lead out of; false when it is not there.
    fn bind(&self, folder: &Path, has_value: bool, bound: &mut Bound) -> Result<bool, EnclosureError> {
        if !has_value || bound.folder.is_some() {
            return Ok(true);
        }
        match self.finder.real(folder) {
            Ok(real) => {
                *bound = Bound { folder: Some(real), straight: true, ..*bound };
                Ok(true)
            }
            Err(error) if is_absence(&error) => Ok(false),
            Err(source) => Err(EnclosureError::Unreadable { file: folder.to_owned(), source }),
        }
    }

    /// One file by its name: asked for as it is, whatever else is in its folder.
    fn file(&mut self, folder: &Path, literal: &str, bound: Bound) -> Result<(), EnclosureError> {
        let path = folder.join(literal);
        self.finder.compares();
        match fs::symlink_metadata(&path) {
            Ok(metadata) => {
                let kind_of = |metadata: fs::Metadata| match metadata.file_type() {
                    kind if kind.is_file() => Kind::File,
                    kind if kind.is_dir() => Kind::Folder,
                    kind if kind.is_symlink() => Kind::Link,
                    _ => Kind::Other,
                };
                let kind = kind_of(metadata);
                // What a link leads to is told as what it is.
                let shown = if kind == Kind::Link { fs::metadata(&path).map_or(kind, kind_of) } else { kind };
                if let Kind::Folder | Kind::Other = shown {
                    let what = if shown == Kind::Folder { "a folder" } else { "a pipe or a device" };
                    self.wrong = Some(EnclosureError::NotAFile { file: path, what });
                    return Ok(());
                }
                self.take(path, kind, &bound)
            }
            Err(source) if !is_absence(&source) => Err(EnclosureError::Unreadable { file: path, source }),
            Err(_) if literal.is_ascii() => Ok(()),
            // The name may be there in another form of the same characters.
            Err(_) => {
                let listing = self.finder.listings.folder(folder)?;
                let wanted = nfc(literal);
                for n in listing.candidates(&wanted, "").take_while(|&n| listing.name(n) == wanted) {
                    self.take(listing.path(n), listing.kind(n), &bound)?;
                }
                Ok(())
            }
        }
    }

    /// All names of a folder that are of a pattern: files at the end of the way, else folders.
    fn names(
        &mut self,
        folder: &Path,
        name: &Name,
        rest: &[Component],
        bound: &Bound,
    ) -> Result<(), EnclosureError> {
        let listing = self.finder.listings.folder(folder)?;
        self.of_listing(&listing, name, rest, bound)
    }

    fn of_listing(
        &mut self,
        listing: &Listing,
        name: &Name,
        rest: &[Component],
        bound: &Bound,
    ) -> Result<(), EnclosureError> {
        for n in listing.candidates(&name.prefix(), &name.suffix()) {
            self.finder.compares();
            let own = listing.name(n);
            if !name.matches(own) {
                continue;
            }
            let mut bound = bound.clone();
            bound.runs_on |= !name.matches_set_off(own);
            bound.straight &= listing.is_at_top(n);
            if rest.is_empty() {
                self.take(listing.path(n), listing.kind(n), &bound)?;
                continue;
            }
            match listing.kind(n) {
                Kind::Folder => self.below(listing.path(n), rest, bound)?,
                Kind::Link if listing.path(n).is_dir() => {
                    bound.straight = false;
                    self.below(listing.path(n), rest, bound)?;
                }
                Kind::Link | Kind::File | Kind::Other => {}
            }
        }
        Ok(())
    }

    /// `**`: the names of the folder and of all below it in one order, so that a hundred thousand
    /// patterns do not walk through all folders each.
    fn deep(&mut self, top: &Path, rest: &[Component], mut bound: Bound) -> Result<(), EnclosureError> {
        let tree = self.finder.listings.tree(top)?;
        match rest {
            [Component::Name(name), further @ ..] => {
                if !self.bind(top, name.has_value, &mut bound)? {
                    return Ok(());
                }
                self.of_listing(&tree, name, further, &bound)
            }
            rest => {
                bound.straight = false;
                tree.folders.iter().try_for_each(|folder| self.below(folder.clone(), rest, bound.clone()))
            }
        }
    }

    /// A name that is meant: taken if it is a file, or a link to one, within its bounds.
    fn take(&mut self, path: PathBuf, kind: Kind, bound: &Bound) -> Result<(), EnclosureError> {
        let is_file = match kind {
            Kind::File => true,
            Kind::Folder | Kind::Other => false,
            Kind::Link => match fs::metadata(&path) {
                Ok(metadata) => metadata.is_file(),
                Err(source) => return Err(EnclosureError::Unreadable { file: path, source }),
            },
        };
        if !is_file {
            return Ok(());
        }
        let real = match (&bound.folder, path.file_name()) {
            (None, _) => path.clone(),
            (Some(folder), Some(name)) if bound.straight && kind == Kind::File => folder.join(name),
            (Some(folder), _) => {
                let real = path
                    .canonicalize()
                    .map_err(|source| EnclosureError::Unreadable { file: path.clone(), source })?;
                if !real.starts_with(folder) {
                    return Err(EnclosureError::LeadsOut { file: path, folder: folder.to_path_buf() });
                }
                real
            }
        };
        if bound.runs_on && self.whose != Whose::Anybodys {
            let pattern = self.finder.root.join(&self.pattern.text);
            self.runs_on.get_or_insert(EnclosureError::RunsOn { pattern, file: path });
            return Ok(());
        }
        self.found.push(Found { path, real });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// `‹…›` is what a row contributed.
    fn pieces(text: &str) -> Vec<Piece> {
        let parts = text.split(['‹', '›']).enumerate();
        let piece = |(n, part): (usize, &str)| match n % 2 {
            0 => Piece::Operator(part.to_owned()),
            _ => Piece::Value(part.to_owned()),
        };
        parts.map(piece).filter(|piece| *piece != Piece::Operator(String::new())).collect()
    }

    fn key(text: &str) -> RecipientKey {
        RecipientKey::new(text).expect("a key")
    }

    /// A house with a folder of reports, something outside of it, and links both ways.
    fn house() -> tempfile::TempDir {
        let house = tempfile::tempdir().expect("a folder");
        let file = |name: &str| {
            let path = house.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, name).expect("written");
        };
        for name in [
            "secret.pdf",
            "root/top.pdf",
            "root/reports/1.pdf",
            "root/reports/10.pdf",
            "root/reports/1-jan.pdf",
            "root/reports/1-feb.pdf",
            "root/reports/2-jan.pdf",
            "root/reports/.2-hidden.pdf",
            "root/reports/*.pdf",
            "root/reports/eu/3.pdf",
            "root/reports/eu/deep/4.pdf",
            "root/reports/.git/4.pdf",
            "root/reports/eu.pdf/5.txt",
            "root/报告/张伟-11月.pdf",
            "root/nfd/Cafe\u{301}.pdf",
            "root/nfd/Re\u{301}sume\u{301}/a.pdf",
        ] {
            file(name);
        }
        let root = house.path().join("root");
        for (target, link) in [
            ("../../secret.pdf", "reports/out.pdf"),
            ("../..", "reports/up"),
            ("1.pdf", "reports/in.pdf"),
            ("reports", "linked"),
            ("nowhere", "reports/dangling.pdf"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        house
    }

    const ANY: (usize, usize) = (1, usize::MAX);

    #[test]
    fn everybody_gets_their_own_and_nobody_anothers() {
        let house = house();
        let root = house.path().join("root");
        for (pattern, expected) in [
            // What a row may say.
            ("reports/‹1›.pdf", Ok(&["reports/1.pdf"][..])),
            ("reports/‹10›.pdf", Ok(&["reports/10.pdf"])),
            ("reports/‹1›-*.pdf", Ok(&["reports/1-feb.pdf", "reports/1-jan.pdf"])),
            ("reports/‹1›-{jan,mar}.pdf", Ok(&["reports/1-jan.pdf"])),
            ("reports/‹2›-*.pdf", Ok(&["reports/2-jan.pdf"])),
            ("reports/*-‹jan›.pdf", Ok(&["reports/1-jan.pdf", "reports/2-jan.pdf"])),
            ("reports/‹eu›/*.pdf", Ok(&["reports/eu/3.pdf"])),
            ("reports/**/‹4›.pdf", Ok(&["reports/eu/deep/4.pdf"])),
            ("reports/‹eu›/**", Ok(&["reports/eu/3.pdf", "reports/eu/deep/4.pdf"])),
            ("‹reports›/1.pdf", Ok(&["reports/1.pdf"])),
            ("linked/‹1›.pdf", Ok(&["linked/1.pdf"])),
            ("报告/‹张伟›-*.pdf", Ok(&["报告/张伟-11月.pdf"])),
            ("nfd/‹Café›.pdf", Ok(&["nfd/Cafe\u{301}.pdf"])),
            ("nfd/C‹af›é.*", Ok(&["nfd/Cafe\u{301}.pdf"])),
            ("nfd/‹Résumé›/*", Ok(&["nfd/Re\u{301}sume\u{301}/a.pdf"])),
            ("reports/‹in›.pdf", Ok(&["reports/in.pdf"])),
            ("reports/‹*›.pdf", Ok(&["reports/*.pdf"])),
            // What it may not.
            ("reports/‹?›.pdf", Err("no file matches")),
            ("reports/‹[a-z]›.pdf", Err("no file matches")),
            ("reports/‹{1,10}›.pdf", Err("no file matches")),
            ("reports/‹**›/4.pdf", Err("no file matches")),
            ("reports/‹..›/top.pdf", Err("`.` or `..`")),
            ("reports/‹.›/1.pdf", Err("`.` or `..`")),
            ("reports/.‹.›/top.pdf", Err("`.` or `..`")),
            ("reports/‹/etc›/passwd", Err("holds a slash")),
            ("‹/etc/passwd›", Err("holds a slash")),
            ("reports/‹../../secret›.pdf", Err("holds a slash")),
            ("reports/‹›*.pdf", Err("is empty")),
            ("reports/‹  ›.pdf", Err("is empty")),
            ("reports/‹out›.pdf", Err("leads out of")),
            ("reports/‹up›/secret.pdf", Err("leads out of")),
            ("reports/‹up›/root/top.pdf", Err("leads out of")),
            ("reports/‹eu›/../../top.pdf", Err("leads out of")),
            ("reports/‹dangling›.pdf", Err("cannot be read")),
            ("reports/‹1›*.pdf", Err("also finds")),
            ("*/‹eu›.pdf", Err("is a folder")),
            ("reports/‹eu›", Err("is a folder")),
            // The operator's own words.
            (
                "reports/1*.pdf",
                Ok(&["reports/1-feb.pdf", "reports/1-jan.pdf", "reports/1.pdf", "reports/10.pdf"]),
            ),
            ("reports/../top.pdf", Ok(&["reports/../top.pdf"])),
            ("../secret.pdf", Ok(&["../secret.pdf"])),
            ("./reports//10.pdf", Ok(&["reports/10.pdf"])),
            ("reports/out.pdf", Ok(&["reports/out.pdf"])),
            ("reports/up/secret.pdf", Ok(&["reports/up/secret.pdf"])),
            ("reports/.2*", Ok(&["reports/.2-hidden.pdf"])),
            ("**/3.pdf", Ok(&["reports/eu/3.pdf"])),
            ("**/deep/*", Ok(&["reports/eu/deep/4.pdf"])),
            ("reports/{1,10}.pdf", Ok(&["reports/1.pdf", "reports/10.pdf"])),
            ("r*/e*/*.pdf", Ok(&["reports/eu/3.pdf"])),
            ("top.pdf/x", Err("no file matches")),
            ("linked", Err("is a folder, not a file")),
            ("reports/1-jam.pdf", Err("the nearest names there are 1-jan.pdf")),
            ("report/1.pdf", Err("the nearest names there are reports")),
        ] {
            let finder = Finder::new(&root);
            let found = finder.find(&pieces(pattern), &key("ada"), Whose::TheirsAlone, ANY);
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    let expected: Vec<PathBuf> = expected.iter().map(|name| root.join(name)).collect();
                    assert_eq!(found, expected, "{pattern}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{pattern}: {error}"),
                (found, _) => panic!("{pattern}: {found:?}"),
            }
        }
        let absolute = root.join("reports/1*.pdf").display().to_string();
        let found =
            Finder::new(Path::new("/nowhere")).find(&pieces(&absolute), &key("ada"), Whose::TheirsAlone, ANY);
        assert_eq!(found.expect("absolute").len(), 4);
    }

    #[test]
    fn numbers_of_files_are_kept_to() {
        let house = house();
        let finder = Finder::new(&house.path().join("root"));
        for (pattern, expect, expected) in [
            ("reports/‹1›-*.pdf", (2, 2), Ok(2)),
            ("reports/‹1›-*.pdf", (1, 1), Err("finds 2 files, and 1 is expected")),
            ("reports/‹1›-*.pdf", (3, usize::MAX), Err("finds 2 files, and at least 3 are expected")),
            ("reports/‹1›-*.pdf", (0, 1), Err("finds 2 files, and at most 1 are expected")),
            ("reports/‹none›.pdf", (0, 1), Ok(0)),
            ("reports/none.pdf", (0, 1), Ok(0)),
            ("reports/none.pdf", (1, 1), Err("no file matches")),
        ] {
            match (finder.find(&pieces(pattern), &key("ada"), Whose::TheirsAlone, expect), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.len(), expected, "{pattern}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{pattern}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_file_for_two_is_a_mistake_unless_shared() {
        let house = house();
        let finder = Finder::new(&house.path().join("root"));
        use Whose::{Anybodys, Manys, TheirsAlone};
        for (pattern, name, whose, expected) in [
            ("reports/‹1›.pdf", "ada", TheirsAlone, true),
            ("reports/‹1›.pdf", "ada", TheirsAlone, true),
            ("reports/‹1›.pdf", "bob", Anybodys, true),
            ("reports/‹10›.pdf", "bob", TheirsAlone, true),
            ("reports/‹1›.pdf", "bob", TheirsAlone, false),
            ("linked/‹10›.pdf", "ada", TheirsAlone, false), // the same file on another way
            ("reports/1.pdf", "eve", TheirsAlone, true),    // no row had a part in it
            ("reports/‹2›-*.pdf", "eve", TheirsAlone, true),
            ("reports/‹1›*.pdf", "eve", Anybodys, true),
            ("reports/‹1›.pdf", "eve", Manys, true),
            ("reports/‹1›*.pdf", "eve", Manys, false), // 10.pdf
        ] {
            let found = finder.find(&pieces(pattern), &key(name), whose, ANY);
            assert_eq!(found.is_ok(), expected, "{pattern} {name}: {found:?}");
        }
        assert!(finder.claims().any_contested());
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("round", folder.path().join("round")).expect("a link to itself");
        let finder = Finder::new(folder.path());
        for pattern in ["round/‹1›.pdf", "round/‹1›*.pdf", "round/1.pdf"] {
            let found = finder.find(&pieces(pattern), &key("ada"), Whose::TheirsAlone, (0, 1));
            assert!(matches!(found, Err(EnclosureError::Unreadable { .. })), "{pattern}: {found:?}");
        }
        for pattern in ["gone/‹1›.pdf", "gone/‹1›*.pdf", "gone/1.pdf"] {
            let found = finder.find(&pieces(pattern), &key("ada"), Whose::TheirsAlone, (0, 1));
            assert!(matches!(found.as_deref(), Ok([])), "{pattern}: {found:?}");
        }
    }

    #[test]
    fn a_row_that_fails_still_has_a_claim() {
        let house = house();
        let root = house.path().join("root");
        for (first, expect) in [("reports/‹1›*.pdf", ANY), ("reports/‹1›-*.pdf", (1, 1))] {
            let finder = Finder::new(&root);
            let failed = finder.find(&pieces(first), &key("ada"), Whose::TheirsAlone, expect);
            assert!(matches!(failed, Err(EnclosureError::RunsOn { .. } | EnclosureError::Number { .. })));
            let found = finder.find(&pieces("reports/‹1-jan›.pdf"), &key("bob"), Whose::TheirsAlone, ANY);
            assert!(
                matches!(found, Err(EnclosureError::Claimed { picture: false, .. })),
                "{first}: {found:?}"
            );
            // What goes on in the name was not found for her.
            assert!(finder.find(&pieces("reports/‹10›.pdf"), &key("cy"), Whose::TheirsAlone, ANY).is_ok());
        }
    }

    /// A folder of so many files, each with a number twice in its name.
    fn numbered(files: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("r/sub")).expect("made");
        for n in 0..files {
            fs::write(folder.path().join(format!("r/{n}-x-{n}.pdf")), "").expect("written");
        }
        folder
    }

    /// How many names are looked at for a pattern for each of `files` files.
    fn compared(folder: &Path, files: usize, pattern: fn(usize) -> String) -> u64 {
        let finder = Finder::new(folder);
        for n in 0..files {
            let found = finder.find(&pieces(&pattern(n)), &key(&n.to_string()), Whose::TheirsAlone, (1, 1));
            assert_eq!(found.expect("its own"), [folder.join(format!("r/{n}-x-{n}.pdf"))]);
        }
        finder.compared.load(std::sync::atomic::Ordering::Relaxed)
    }

    const PATTERNS: [fn(usize) -> String; 4] = [
        |n| format!("r/‹{n}›-*.pdf"),
        |n| format!("r/*-‹{n}›.pdf"),
        |n| format!("**/‹{n}›-*.pdf"),
        |n| format!("r/‹{n}›-x-‹{n}›.pdf"),
    ];

    fn few_names_are_looked_at(files: usize) {
        let folder = numbered(files);
        for pattern in PATTERNS {
            let looked_at = compared(folder.path(), files, pattern);
            assert!(looked_at <= 2 * files as u64, "{}: {looked_at}", pattern(0));
        }
    }

    #[test]
    fn each_pattern_looks_at_few_names() {
        few_names_are_looked_at(500);
    }

    /// Only with `tests/run --long`.
    #[test]
    fn a_hundred_thousand_patterns_in_a_hundred_thousand_files() {
        if std::env::var_os("POSTROOM_TESTS_LONG").is_some() {
            few_names_are_looked_at(100_000);
        }
    }
}
