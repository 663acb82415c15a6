//! `postroom rebuild`: makes anew what is derived from journal and files.

use rustix::fs::FlockOperation;

use super::archive::{print, store_exit, with_source};
use crate::archive::{index, manifest, store};
use crate::cli;
use crate::exit::Exit;

/// Runs the command.
pub fn run(args: &cli::Rebuild) -> Exit {
    if !args.store.join(crate::archive::journal::NAME).is_file() {
        eprintln!("error: {} has no journal.jsonl: it is no archive", args.store.display());
        return Exit::NoInput;
    }
    // Nobody may write while it is read.
    let _lock = match store::lock(&args.store, FlockOperation::NonBlockingLockExclusive) {
        Ok(lock) => lock,
        Err(error) => {
            eprintln!("error: {}", with_source(&error));
            return store_exit(&error);
        }
    };
    if let Err(error) = manifest::rewrite(&args.store) {
        eprintln!("error: cannot write the manifest: {error}");
        return Exit::Io;
    }
    match index::rebuild(&args.store) {
        Ok(count) => {
            print(&format!("{}: manifest and index made anew, {count} messages\n", args.store.display()));
            Exit::Done
        }
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Io
        }
    }
}
