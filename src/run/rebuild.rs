//! `postroom rebuild`: makes anew what is derived from journal and files.

use std::path::Path;

use rustix::fs::FlockOperation;

use super::archive::{print, store_exit, with_source};
use crate::archive::{index, manifest, store, verify};
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
            missing(&args.store)
        }
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Io
        }
    }
}

/// Says how many files of the journal are not there: no rebuilding brings them back.
fn missing(store: &Path) -> Exit {
    match verify::missing(store) {
        Ok(0) => Exit::Done,
        Ok(count) => {
            print(&format!("{}: {count} files are missing\n", store.display()));
            eprintln!("help: `postroom run` fetches again what is missing here and still on the server");
            Exit::SomeFailed
        }
        Err(error) => {
            eprintln!("error: cannot read {}: {error}", store.display());
            Exit::Io
        }
    }
}
