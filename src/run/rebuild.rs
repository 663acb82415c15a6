//! `postroom rebuild`: makes anew what is derived from journal and files.

use std::path::Path;

use super::answer::print;
use super::archive::store_exit;
use super::show::safe_line;
use super::unix_now;
use crate::archive::mend::{self, Mended};
use crate::archive::{Store, index, journal, manifest, verify};
use crate::cli;
use crate::diagnostic::with_causes;
use crate::exit::Exit;
use crate::job::Layout;

/// Runs the command.
pub fn run(args: &cli::Rebuild) -> Exit {
    // The manifest alone says enough: what it names is taken in again.
    let is_archive = [journal::NAME, manifest::NAME].iter().any(|name| args.store.join(name).is_file());
    if !is_archive {
        say!(Error, "{} has no journal.jsonl: it is no archive", args.store.display());
        return Exit::NoInput;
    }
    let vouched = match manifest::vouched(&args.store) {
        Ok(vouched) => vouched,
        Err(error) => {
            say!(Error, "cannot read the manifest: {error}");
            return Exit::Io;
        }
    };
    // It is locked for as long as this runs.
    let opened = Store::open(&args.store, Layout::Dated, unix_now(), |damage| say!(Warning, "{damage}"));
    let mended = opened.and_then(|mut store| {
        let mended = mend::mend(&mut store, &vouched, unix_now())?;
        Ok((store, mended))
    });
    let (_store, mended) = match mended {
        Ok(mended) => mended,
        Err(error) => {
            say!(Error, "{}", with_causes(&error));
            return store_exit(&error);
        }
    };
    let said = tell(&args.store, &mended);
    if let Err(error) = manifest::rewrite(&args.store) {
        say!(Error, "cannot write the manifest: {error}");
        return Exit::Io;
    }
    match index::rebuild(&args.store) {
        Ok(count) => {
            let made =
                print(format!("{}: manifest and index made anew, {count} messages\n", args.store.display()));
            let all = mended.strangers.is_empty() && mended.lost.is_empty();
            let mended = if all { Exit::Done } else { Exit::SomeFailed };
            said.or_worse(made).or_worse(missing(&args.store)).or_worse(mended)
        }
        Err(error) => {
            say!(Error, "{error}");
            Exit::Io
        }
    }
}

/// Says what was wrong with the journal, and what became of it.
fn tell(store: &Path, mended: &Mended) -> Exit {
    let name = store.display();
    let mut lines = String::new();
    let mut line = |text: &str| lines += &format!("{}\n", safe_line(text));
    for damage in &mended.sealed {
        line(&format!("{name}: {damage}: sealed"));
    }
    for path in &mended.found {
        line(&format!("{name}: {path} was in no line of the journal and is again, by its content"));
    }
    for path in &mended.lost {
        line(&format!("{name}: {path} was in no line of the journal; it is lost or changed"));
    }
    let said = print(lines);
    for path in mended.strangers.iter().map(|path| safe_line(path)) {
        say!(
            Warning,
            "{path} is in no line of the journal, and its name is not that of its content, or a copy's"
        );
    }
    if !mended.sealed.is_empty() {
        say!(
            Help,
            "whatever else the lost lines said, what was archived before them and is still on the server is \
             compared again by the next run"
        );
    }
    said
}

/// Says how many files of the journal are not there: no rebuilding brings them back.
fn missing(store: &Path) -> Exit {
    match verify::missing(store) {
        Ok(0) => Exit::Done,
        Ok(count) => {
            let said = print(format!("{}: {count} files are missing\n", store.display()));
            say!(Help, "`postroom run` fetches again what is missing here and still on the server");
            said.or_worse(Exit::SomeFailed)
        }
        Err(error) => {
            say!(Error, "cannot read {}: {error}", store.display());
            Exit::Io
        }
    }
}
