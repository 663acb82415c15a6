//! `postroom verify`: proves an archive, and, if asked, holds it against what the mailbox lists.

use std::io;
use std::sync::PoisonError;

use rustix::fs::FlockOperation;

use super::answer::print;
use super::archive::{self, exit, look_at, store_exit};
use super::show::safe_line;
use super::unix_now;
use crate::archive::listing::{self, Listed, Standing};
use crate::archive::retrieve;
use crate::archive::shelf::Shelf;
use crate::archive::{Known, committer, store, verify};
use crate::cli;
use crate::diagnostic::with_causes;
use crate::exit::Exit;
use crate::job::ArchiveJob;
use crate::measure::ByteSize;

/// Runs the command. `server` is the job of `--server`, read.
pub fn run(args: &cli::Verify, server: Option<&ArchiveJob>) -> Exit {
    if !args.store.is_dir() {
        say!(Error, "there is no archive {}", args.store.display());
        return Exit::NoInput;
    }
    let lock = match store::lock(&args.store, FlockOperation::NonBlockingLockShared) {
        Ok(lock) => lock,
        Err(error) => {
            say!(Error, "{}", with_causes(&error));
            return store_exit(&error);
        }
    };
    let (mut findings, mut lost, mut unsealed, mut said) = (0u64, false, false, Exit::Done);
    let proof = verify::verify(&args.store, |finding| {
        findings += 1;
        lost |= matches!(finding, verify::Finding::Missing(_) | verify::Finding::Changed(_));
        unsealed |= matches!(
            finding,
            verify::Finding::Journal(_) | verify::Finding::Unknown(_) | verify::Finding::OnlyInManifest(_)
        );
        // Where nobody can read the findings they are counted still.
        if said == Exit::Done {
            said = print(format!("{}\n", safe_line(&finding.to_string())));
        }
    });
    let proof = match proof {
        Ok(proof) => proof,
        Err(error) => {
            say!(Error, "cannot read {}: {error}", args.store.display());
            return if error.kind() == io::ErrorKind::NotFound { Exit::NoInput } else { Exit::Io };
        }
    };
    drop(lock);
    if said == Exit::Done {
        let mut summary: String = proof.sealed.iter().map(|damage| format!("sealed: {damage}\n")).collect();
        summary += &format!(
            "{}: {} messages, {}, {} lines of the journal: {}\n",
            args.store.display(),
            proof.files,
            ByteSize(proof.bytes),
            proof.lines,
            if findings == 0 { "whole".to_owned() } else { format!("{findings} findings") }
        );
        said = print(summary);
    }
    if lost {
        say!(
            Help,
            "`postroom run` fetches again what is missing here and still on the server; move a changed file away \
             first"
        );
    }
    if unsealed {
        say!(
            Help,
            "`postroom rebuild` takes in again what only the journal has lost, and seals damage of the journal"
        );
    }
    let archive = said.or_worse(if findings == 0 { Exit::Done } else { Exit::SomeFailed });
    match server {
        Some(job) => archive.or_worse(against_server(args, job)),
        None => archive,
    }
}

/// Lists the mailboxes of a job and names what is not archived.
fn against_server(args: &cli::Verify, job: &ArchiveJob) -> Exit {
    let opened = store::Store::open(&args.store, job.layout, unix_now(), |damage| say!(Warning, "{damage}"));
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            say!(Error, "{}", with_causes(&error));
            return store_exit(&error);
        }
    };
    let (desk, _queue) = committer::Desk::new();
    let mut worst = Exit::Done;
    for spec in &job.mailboxes {
        let name = &spec.name;
        let listed = look_at(job, spec, store.known(), &desk, &archive::Options::default())
            .and_then(|mailbox| retrieve::list(&mailbox));
        match listed {
            Ok(listing) => {
                let shelf = match Shelf::of(&args.store) {
                    Ok(shelf) => shelf,
                    Err(error) => {
                        say!(Error, "{}", with_causes(&error));
                        return store_exit(&error);
                    }
                };
                let known = store.known();
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                worst = worst.or_worse(compare(name, &listing, &known, &shelf, job));
            }
            Err(error) => {
                say!(Error, "{name}: {error}");
                worst = worst.or_worse(exit(&error));
            }
        }
    }
    worst
}

/// Names what a mailbox lists and the archive does not hold.
fn compare(name: &str, listing: &[Listed], known: &Known, shelf: &Shelf, job: &ArchiveJob) -> Exit {
    // What cannot be looked at is not there, as far as anybody can say.
    let holds = |uidl: Option<&str>| {
        let file = uidl.and_then(|uidl| Some(known.mailbox(name)?.uidls.get(uidl)?.file));
        let record = file.and_then(|file| known.file(file));
        record.is_none_or(|record| shelf.holds(record).unwrap_or(false))
    };
    let standings = listing::standings(listing, known, name, &job.delete);
    let mut worst = Exit::Done;
    let mut missing = 0;
    for (listed, standing) in listing.iter().zip(standings) {
        let words = match standing {
            Standing::Known | Standing::Probable if !holds(listed.uidl.as_deref()) => {
                missing += 1;
                "is archived, and its file is missing or has another size; a run fetches it again"
            }
            Standing::Known => continue,
            Standing::Probable => "is archived by header and size, its bytes were not compared",
            Standing::Doubtful => {
                missing += 1;
                "has the UIDL of an archived message and may be another; a run fetches it anew"
            }
            Standing::Candidate | Standing::Wanted => {
                missing += 1;
                "is not archived"
            }
        };
        let uidl = listed.uidl.as_deref().unwrap_or("-");
        let line = format!("{name}: message {} ({}) {words}\n", listed.number, safe_line(uidl));
        worst = worst.or_worse(print(line));
    }
    worst =
        worst.or_worse(print(format!("{name}: {} on the server, {missing} not archived\n", listing.len())));
    if missing > 0 { worst.or_worse(Exit::SomeFailed) } else { worst }
}
