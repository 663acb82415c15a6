//! From a path to a job: the root, `postroom.yaml`, the file itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Level};
use crate::exit::Exit;

use super::lower::{self, House, HouseFile};
use super::section::{Reading, Value};
use super::tree::{Content, Document};
use super::{Job, LedgerUrl};

/// The file that marks the root of a project and holds what its jobs share.
pub const HOUSE_FILE: &str = "postroom.yaml";

/// What a job file is read in.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where relative paths on the command line start.
    pub dir: PathBuf,
    variables: Option<HashMap<String, String>>,
}

impl Environment {
    /// That of this process.
    pub fn process() -> std::io::Result<Environment> {
        Ok(Environment { dir: std::env::current_dir()?, variables: None })
    }

    /// One made for a test: a folder and all its variables.
    pub fn fixed(dir: &Path, variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Environment { dir: dir.to_owned(), variables: Some(variables) }
    }

    /// An environment variable that is set and is text.
    pub fn variable(&self, name: &str) -> Option<String> {
        match &self.variables {
            Some(variables) => variables.get(name).cloned(),
            None => std::env::var(name).ok(),
        }
    }

    fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
    }

    /// A path as it is shown: from here, if it is below.
    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).map_or_else(|_| path.to_owned(), Path::to_owned)
    }
}

/// A job file with mistakes.
#[derive(Debug)]
pub struct Flawed {
    /// All of them, errors before warnings.
    pub mistakes: Vec<Diagnostic>,
    /// The job, where enough of it could be read to find the mistakes of its templates and files. It is fit for
    /// nothing else: something stands in for what is wrong, a relay for instance.
    pub job: Option<Job>,
}

impl Flawed {
    fn by(mistake: Diagnostic) -> Flawed {
        Flawed { mistakes: vec![mistake], job: None }
    }
}

/// Reads a job file and the `postroom.yaml` it belongs to. All mistakes are found, errors before
/// warnings; warnings alone come with the job.
pub fn read(path: &Path, env: &Environment) -> Result<Job, Vec<Diagnostic>> {
    examine(path, env).map_err(|flawed| flawed.mistakes)
}

/// The same, for whoever wants to go on and find the mistakes that are not the job file's own.
pub fn examine(path: &Path, env: &Environment) -> Result<Job, Flawed> {
    let full = env.dir.join(path);
    // A job that is linked from outside is of the project it lies in: from elsewhere it would have another ledger,
    // in which nobody has got anything yet.
    let root = root_of(&full).or_else(|| root_of(&full.canonicalize().ok()?));
    if full.file_name().is_some_and(|name| name == HOUSE_FILE) {
        let mistake =
            Diagnostic::error(format!("{} holds what jobs share; it is no job itself", path.display()))
                .help("name a job file");
        return Err(Flawed::by(mistake));
    }
    let reading = Reading::new(root.clone().unwrap_or_else(|| folder_of(&full)), env.home());
    // Both files are read before either's mistakes are told.
    let job = open(&reading, &full, path);
    let house_file = root.map(|root| root.join(HOUSE_FILE));
    let file = if house_file.is_some() { HouseFile::Flawed } else { HouseFile::Absent };
    let house = house_file.and_then(|file| open(&reading, &file, &env.shown(&file)));
    let house =
        house.as_ref().map_or_else(|| House::empty(file), |house| House::read(Value::of(&reading, house)));
    // Of the shared relays and mailboxes only those that the job names need their files.
    reading.take_absent();
    let job = job.as_ref().and_then(|document| lower_job(Value::of(&reading, document), &house, &full));
    finish(reading, job)
}

/// The ledger of the project that the working folder is in, for commands that name no job.
pub fn shared_ledger(env: &Environment) -> Result<LedgerUrl, Vec<Diagnostic>> {
    let house_root = root_of(&env.dir.join(HOUSE_FILE));
    let root = house_root.clone().unwrap_or_else(|| env.dir.clone());
    let reading = Reading::new(root.clone(), env.home());
    let house_file = house_root.map(|root| root.join(HOUSE_FILE));
    let document = house_file.and_then(|file| open(&reading, &file, &env.shown(&file)));
    let house = document.as_ref().map(|document| House::read(Value::of(&reading, document)));
    let ledger = match house.and_then(|house| house.ledger) {
        Some(value) => lower::ledger(value),
        None => Some(lower::default_ledger(&root)),
    };
    let found = reading.into_found();
    match (ledger, found.iter().any(|one| one.level == Level::Error)) {
        (Some(ledger), false) => Ok(ledger),
        _ => Err(found),
    }
}

/// The nearest folder above a file that holds a `postroom.yaml`.
fn root_of(file: &Path) -> Option<PathBuf> {
    let mut folder = folder_of(file);
    loop {
        // A link that leads nowhere marks the root, too, and is told of when it is read.
        if folder.join(HOUSE_FILE).symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            return Some(folder);
        }
        if !folder.pop() {
            return None;
        }
    }
}

/// The folder of a file, links and dots resolved where it exists: `..` in a path that goes through a
/// link would lead elsewhere.
fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new("/"));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

fn open(reading: &Reading, path: &Path, shown: &Path) -> Option<Document> {
    match Document::read(path, shown) {
        Ok((document, mistakes)) => {
            mistakes.into_iter().for_each(|mistake| reading.note(mistake));
            Some(document)
        }
        Err(mistake) => {
            reading.note(*mistake);
            None
        }
    }
}

fn lower_job(value: Value<'_>, house: &House<'_>, path: &Path) -> Option<Job> {
    let entries = match &value.node.content {
        Content::Map(_) => value.entries()?,
        Content::Broken => return None,
        Content::Null => {
            return value.wrong(
                Diagnostic::error("this file is empty").help("`postroom init` writes a job to begin with"),
            );
        }
        _ => {
            return value.wrong(
                Diagnostic::error("a job file is a mapping")
                    .help("it begins with `kind: send` or `kind: archive`"),
            );
        }
    };
    let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    let kind = entries.iter().find(|(key, _)| key.text == "kind").map(|(_, value)| *value);
    let kind = match kind {
        Some(value) => value.one_of(&[("send", true), ("archive", false)]),
        None => {
            // The rest is judged as what it seems to be.
            let send = !has("mailbox") && !has("mailboxes") && !has("store");
            let word = if send { "send" } else { "archive" };
            let first = entries.first().map_or(0..0, |(key, _)| key.span.clone());
            value.reading.note(
                Diagnostic::error("the key `kind` is missing")
                    .at(value.document.place(first))
                    .label(format!("write `kind: {word}` first")),
            );
            Some(send)
        }
    };
    match kind? {
        true => {
            let section = value.section(&lower::SEND)?.over(house.defaults.as_ref());
            lower::send(&section, house, path).map(|job| Job::Send(Box::new(job)))
        }
        false => {
            let section = value.section(&lower::ARCHIVE)?.over(house.defaults.as_ref());
            lower::archive(&section, house, path).map(|job| Job::Archive(Box::new(job)))
        }
    }
}

fn finish(reading: Reading, mut job: Option<Job>) -> Result<Job, Flawed> {
    let (errors, absent) = (reading.errors(), reading.take_absent());
    let found = reading.into_found();
    match &mut job {
        Some(Job::Send(job)) => job.absent = absent,
        Some(Job::Archive(job)) => job.absent = absent,
        None => {}
    }
    match job {
        _ if errors > 0 => Err(Flawed { mistakes: found, job }),
        // A job that cannot be had without a word about why would be our mistake.
        None => {
            let mut mistakes = vec![Diagnostic::error("this job cannot be read").ending(Exit::Bug)];
            mistakes.extend(found);
            Err(Flawed { mistakes, job: None })
        }
        Some(mut job) => {
            match &mut job {
                Job::Send(job) => job.warnings = found,
                Job::Archive(job) => job.warnings = found,
            }
            Ok(job)
        }
    }
}
