//! One file per command; wires the rooms together and owns no craft.

pub mod archive;
pub mod init;
pub mod sandbox;
pub mod schema;

use crate::cli::{Cli, Command};
use crate::exit::Exit;

/// Runs the command line; stdout is the answer, stderr the talk.
pub fn main() -> Exit {
    let cli = match Cli::from_args() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    match &cli.command {
        Command::Sandbox(args) => sandbox::run(args),
        other => {
            eprintln!("postroom: not built yet: {other:?}");
            Exit::Bug
        }
    }
}
