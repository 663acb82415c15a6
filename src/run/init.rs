//! `postroom init`: a small project that runs at once.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::exit::Exit;
use crate::job;
use crate::talk;

/// Each file of the project and what is in it.
const FILES: &[(&str, &[u8])] = &[
    ("postroom.yaml", include_bytes!("init/postroom.yaml")),
    ("jobs/welcome.yaml", include_bytes!("init/welcome.yaml")),
    ("jobs/inbox.yaml", include_bytes!("init/inbox.yaml")),
    ("templates/welcome.html", include_bytes!("init/welcome.html")),
    ("templates/welcome.txt", include_bytes!("init/welcome.txt")),
    ("data/people.csv", include_bytes!("init/people.csv")),
    ("images/logo.png", include_bytes!("init/logo.png")),
    (".gitignore", include_bytes!("init/gitignore")),
];

/// The schema that editors read beside the jobs.
const SCHEMA: &str = "job.schema.json";

/// Writes the project into a folder, which is made if need be. No file is ever overwritten: if one
/// of them is there already, nothing is written.
pub fn init(dir: &Path) -> Exit {
    let names = || FILES.iter().map(|(name, _)| *name).chain([SCHEMA]);
    let there: Vec<&str> = names().filter(|name| fs::symlink_metadata(dir.join(name)).is_ok()).collect();
    if !there.is_empty() {
        talk::error(&format!(
            "{} is there already; nothing was written\n  choose an empty folder: postroom init NAME",
            there.join(", ")
        ));
        return Exit::Io;
    }
    let schema = format!("{:#}\n", job::schema());
    let files = FILES.iter().copied().chain([(SCHEMA, schema.as_bytes())]);
    for (name, bytes) in files {
        if let Err(error) = write(&dir.join(name), bytes) {
            talk::error(&format!("cannot write {}: {error}", dir.join(name).display()));
            return Exit::Io;
        }
    }
    if talk::is_quiet() {
        return Exit::Done;
    }
    super::answer::printed(say(&mut io::stdout().lock(), dir, names()))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(bytes)
}

/// What was written, and what to do next.
fn say<'n>(out: &mut impl Write, dir: &Path, names: impl Iterator<Item = &'n str>) -> io::Result<()> {
    for name in names {
        writeln!(out, "wrote {}", dir.join(name).display())?;
    }
    let here = dir == Path::new(".");
    writeln!(out, "\nNext:")?;
    if !here {
        writeln!(out, "  cd {}", dir.display())?;
    }
    writeln!(out, "  postroom check jobs/welcome.yaml            what would be done")?;
    writeln!(out, "  postroom run --sandbox jobs/welcome.yaml    every letter as a file in outbox/")?;
    writeln!(out, "  postroom run --sandbox jobs/inbox.yaml      an archive, from a maildrop of our own")?;
    writeln!(out, "Then put your own relay and mailbox into postroom.yaml.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Environment, Job};
    use crate::recipients;
    use crate::render::{Addressed, Templates};

    #[test]
    fn the_project_is_without_mistakes() {
        let dir = tempfile::tempdir().expect("a folder");
        let project = dir.path().join("new");
        assert_eq!(init(&project), Exit::Done);
        let env = Environment::fixed(&project, &[]);
        for name in ["jobs/welcome.yaml", "jobs/inbox.yaml"] {
            match job::read(Path::new(name), &env) {
                Ok(Job::Send(job)) => {
                    assert!(job.warnings.is_empty());
                    assert_eq!(letters(&job), 3);
                }
                Ok(Job::Archive(job)) => assert!(job.warnings.is_empty()),
                Err(mistakes) => panic!("{}", crate::diagnostic::print(&mistakes, false)),
            }
        }
    }

    /// Renders every letter, and says how many there are.
    fn letters(job: &job::SendJob) -> usize {
        let mut rows = recipients::open(&job.recipients, Box::new(io::empty())).expect("a list");
        let batch = rows.next_batch(100).expect("rows");
        let columns = rows.columns();
        let templates = Templates::compile(job, columns.as_deref())
            .unwrap_or_else(|mistakes| panic!("{}", crate::diagnostic::print(&mistakes, false)));
        let mut letters = 0;
        for row in batch.into_iter().flatten() {
            match templates.address(&row).expect("an address") {
                Addressed::Filtered => {}
                Addressed::To { to, cc, bcc, .. } => {
                    letters += 1;
                    templates.letter(&row, to, cc, bcc).expect("a letter");
                }
            }
        }
        letters
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let csv = dir.path().join("data/people.csv");
        fs::create_dir_all(dir.path().join("data")).expect("made");
        fs::write(&csv, "mine").expect("written");
        assert_eq!(init(dir.path()), Exit::Io);
        assert_eq!(fs::read_to_string(&csv).expect("there"), "mine");
        assert!(!dir.path().join("postroom.yaml").exists());
    }
}
