//! `postroom schema`, `completions` and `man`: what editors, shells and `man` read about us.

use std::fs;
use std::io;
use std::path::Path;

use super::answer::print;
use crate::cli::{self, Cli};
use crate::exit::Exit;
use crate::job;
use crate::talk;

/// Prints the JSON Schema of the job file.
pub fn schema() -> Exit {
    print(format!("{:#}\n", job::schema()))
}

/// Prints a completion script.
pub fn completions(args: &cli::Completions) -> Exit {
    print(Cli::completions(args.shell))
}

/// Prints the manual page of `postroom`, or writes one for every command into a folder.
pub fn man(args: &cli::Man) -> Exit {
    let result = Cli::manual().and_then(|pages| match (&args.dir, pages.first()) {
        (Some(dir), _) => write(dir, &pages).map(|()| Exit::Done),
        (None, Some((_, page))) => Ok(print(page)),
        (None, None) => Ok(Exit::Bug),
    });
    result.unwrap_or_else(|error| {
        talk::error(&format!("man: {error}"));
        Exit::Io
    })
}

fn write(dir: &Path, pages: &[(String, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    pages.iter().try_for_each(|(name, page)| fs::write(dir.join(format!("{name}.1")), page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().expect("a folder");
        let args = cli::Man { dir: Some(dir.path().join("man1")) };
        assert_eq!(man(&args), Exit::Done);
        for command in Cli::definition().get_subcommands() {
            let page = dir.path().join(format!("man1/postroom-{}.1", command.get_name()));
            let text = fs::read_to_string(&page).expect("a page");
            assert!(text.contains(".SH SYNOPSIS"), "{}", page.display());
        }
        assert!(dir.path().join("man1/postroom.1").exists());
    }
}
