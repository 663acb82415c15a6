//! One file per command; wires the rooms together and owns no craft.

pub mod archive;
mod book;
mod flag;
pub mod init;
mod report;
pub mod sandbox;
pub mod schema;
mod upkeep;

use crate::cli::{Cli, Command};
use crate::exit::Exit;

/// Runs the command line; stdout is the answer, stderr the talk.
pub fn main() -> Exit {
    let cli = match Cli::from_args() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    if let Some(exit) = book::run(&cli.command, &cli.global) {
        return exit;
    }
    match &cli.command {
        Command::Sandbox(args) => sandbox::run(args),
        other => {
            eprintln!("postroom: not built yet: {other:?}");
            Exit::Bug
        }
    }
}
