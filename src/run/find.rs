//! `postroom find`: searches an archive.

use super::archive::print;
use crate::archive::find::{self, FindError};
use crate::cli;
use crate::exit::Exit;

/// Runs the command. Nothing found is an answer too, and exit 0.
pub fn run(args: &cli::Find) -> Exit {
    match find::find(&args.store, &args.words, args.limit) {
        Ok(hits) => {
            let mut text = String::new();
            for hit in hits {
                if args.json {
                    text.push_str(&serde_json::json!(hit).to_string());
                } else {
                    let date =
                        hit.date.as_deref().map_or("undated   ", |date| date.get(..10).unwrap_or(date));
                    let clip = if hit.attachments.is_empty() { ' ' } else { '+' };
                    let line = format!(
                        "{date} {clip} {}  {}  {}",
                        hit.from,
                        hit.subject,
                        args.store.join(&hit.path).display()
                    );
                    text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
                }
                text.push('\n');
            }
            print(&text);
            Exit::Done
        }
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                FindError::Word { .. } => Exit::Usage,
                FindError::Index(crate::archive::index::IndexError::Missing) => Exit::NoInput,
                FindError::Index(_) => Exit::Io,
            }
        }
    }
}
