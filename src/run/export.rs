//! `postroom export`: packs an archive for other programs.

use rustix::fs::FlockOperation;

use super::answer::print;
use super::archive::store_exit;
use super::unix_now;
use crate::archive::{export, journal, store};
use crate::cli;
use crate::diagnostic::with_causes;
use crate::exit::Exit;

/// Runs the command.
pub fn run(args: &cli::Export) -> Exit {
    if !args.store.is_dir() {
        say!(Error, "there is no archive {}", args.store.display());
        return Exit::NoInput;
    }
    if !args.store.join(journal::NAME).is_file() {
        say!(Error, "{} has no journal.jsonl: it is no archive", args.store.display());
        return Exit::NoInput;
    }
    let _lock = match store::lock(&args.store, FlockOperation::NonBlockingLockShared) {
        Ok(lock) => lock,
        Err(error) => {
            say!(Error, "{}", with_causes(&error));
            return store_exit(&error);
        }
    };
    let (out, packed) = match (&args.mbox, &args.maildir, &args.bagit) {
        (Some(out), _, _) => (out, export::mbox(&args.store, out)),
        (_, Some(out), _) => (out, export::maildir(&args.store, out)),
        (_, _, Some(out)) => (out, export::bagit(&args.store, out, unix_now())),
        (None, None, None) => return Exit::Usage,
    };
    match packed {
        Ok(packed) => {
            for path in &packed.left_out {
                say!(Failed, "{path} is missing or changed, and left out");
            }
            let said = print(format!("{}: {} messages\n", out.display(), packed.messages));
            if packed.left_out.is_empty() { said } else { said.or_worse(Exit::SomeFailed) }
        }
        Err(error) => {
            say!(Error, "cannot write {}: {error}", out.display());
            Exit::Io
        }
    }
}
