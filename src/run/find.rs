//! `postroom find`: searches an archive.

use std::io::{BufWriter, Write as _};

use crate::archive::find::{self, FindError, Hit};
use crate::archive::index::IndexError;
use crate::cli;
use crate::exit::Exit;

/// Runs the command. Nothing found is an answer too, and exit 0.
pub fn run(args: &cli::Find) -> Exit {
    if !args.store.is_dir() {
        say!(Error, "there is no archive {}", args.store.display());
        return Exit::NoInput;
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let found = find::find(&args.store, &args.words, args.limit, |hit| {
        let text = match args.json {
            true => serde_json::json!(hit).to_string(),
            false => line(args, &hit),
        };
        // A reader that has gone away wants no more.
        written = writeln!(out, "{text}");
        written.is_ok()
    });
    match found {
        Ok(()) => super::answer::printed(written.and_then(|()| out.flush())),
        Err(error) => {
            say!(Error, "{error}");
            match error {
                FindError::Word { .. } => Exit::Usage,
                FindError::Index(IndexError::Missing) => Exit::NoInput,
                FindError::Index(_) => {
                    say!(Help, "`postroom rebuild` makes the index anew");
                    Exit::Io
                }
            }
        }
    }
}

/// A message on one line; nothing that a stranger wrote begins a line of its own or acts on the terminal.
fn line(args: &cli::Find, hit: &Hit) -> String {
    let date = hit.date.as_deref().map_or("undated   ", |date| date.get(..10).unwrap_or(date));
    let clip = if hit.attachments.is_empty() { ' ' } else { '+' };
    let place = args.store.join(&hit.path);
    let line = format!("{date} {clip} {}  {}  {}", hit.from, hit.subject, place.display());
    super::show::safe_line(&line)
}
