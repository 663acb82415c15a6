//! `postroom requeue`, `forget`, `prune`: what is done to a ledger between runs. Each tells what it
//! would do and asks, unless `--yes`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::Path;

use crate::cli;
use crate::exit::Exit;
use crate::ledger::{Edition, Ledger, LedgerError, Reader, Requeue, Sqlite, State};
use crate::letter::Purpose;
use crate::measure::grouped;
use crate::talk;

use super::report::choose;
use super::stop::Stop;
use super::{question, unix_now};

/// `postroom requeue`: puts deliveries of a job back to pending.
pub(super) fn requeue(args: &cli::Requeue, ledger: &Path, job: &str) -> Result<Exit, Stop> {
    let mut ledger = Sqlite::open_existing(ledger)?;
    let _lock = ledger.lock(job, Purpose::Real)?;
    let reader = ledger.reader()?;
    let edition = choose(reader.as_ref(), job, Purpose::Real, args.edition.as_deref())?;
    // Named by their keys, people are put back whatever became of them, but for those who got it: who
    // wants that says so.
    let words: Vec<&str> = args.outcome.iter().map(|outcome| outcome.word()).collect();
    let states: Vec<State> = match words.is_empty() {
        true => vec![State::Refused, State::Unsure, State::Failed, State::Deferred, State::Skipped],
        false => words.iter().filter_map(|word| State::from_word(word)).collect(),
    };
    let (chosen, only) = match args.only.is_empty() {
        true => (count(reader.as_ref(), &edition, &states)?, None),
        false => named(reader.as_ref(), &edition, &states, &args.only).map(|(n, keys)| (n, Some(keys)))?,
    };
    let keys = only.as_deref();
    let total: u64 = chosen.iter().map(|(_, number)| number).sum();
    if total == 0 {
        talk::note(&format!("edition {}: nobody to put back", edition.name));
        return Ok(Exit::Done);
    }
    let asked = !args.yes || !talk::is_quiet();
    if asked {
        eprintln!("postroom: edition {}: to put back", edition.name);
    }
    for (state, number) in chosen.iter().filter(|_| asked) {
        let warning = match state {
            State::Unsure => "  they may have got it already: then they get it twice",
            State::Accepted => "  they have got it: they will get it again",
            State::Skipped => "  who is suppressed, gone from the list or forgotten is skipped again",
            _ => "",
        };
        eprintln!("  {:<9} {}{warning}", state.word(), grouped(*number));
    }
    ask(args.yes, "Put them back?")?;
    let done = ledger.requeue(edition.id, &Requeue { states: &states, keys, now: unix_now() })?;
    let total: u64 = done.iter().map(|(_, number)| number).sum();
    ledger.tidy()?;
    // A run goes on with the job's own edition, and with one that was left only when it is named.
    let others = reader.editions(job, Purpose::Real)?;
    let newest = others.last().is_some_and(|last| last.id == edition.id) && edition.left_at.is_none();
    let named = if newest { String::new() } else { format!(" --edition {}", edition.name) };
    talk::note(&format!("{} put back; `postroom run{named}` sends them", grouped(total)));
    Ok(Exit::Done)
}

/// How many are to be put back, state by state.
type Chosen = Vec<(State, u64)>;

/// How many would be put back.
fn count(reader: &dyn Reader, edition: &Edition, states: &[State]) -> Result<Chosen, LedgerError> {
    let counts = reader.counts(edition.id)?;
    let pairs = states.iter().map(|state| (*state, counts.of(*state)));
    Ok(pairs.filter(|(_, number)| *number > 0).collect())
}

/// How many of these keys would be put back; and their keys as the ledger has them.
fn named(
    reader: &dyn Reader,
    edition: &Edition,
    states: &[State],
    keys: &[String],
) -> Result<(Chosen, Vec<String>), Stop> {
    let found = reader.find_keys(edition.id, keys)?;
    let mut chosen: Chosen = states.iter().map(|state| (*state, 0)).collect();
    let mut known = BTreeSet::new();
    for (key, seq) in keys.iter().zip(found) {
        let Some(letter) = seq.map(|seq| reader.letter(edition.id, seq)).transpose()?.flatten() else {
            let reason = format!("edition {} has nobody with the key {key}", edition.name);
            return Err(Stop::new(Exit::Usage, reason));
        };
        let state = letter.record.state;
        match chosen.iter_mut().find(|(wanted, _)| *wanted == state) {
            Some((_, number)) => *number += u64::from(known.insert(letter.record.key)),
            None => say!(Warning, "{key} is {}: left as it is", state.word()),
        }
    }
    chosen.retain(|(_, number)| *number > 0);
    Ok((chosen, known.into_iter().collect()))
}

/// `postroom forget`: takes a person's data out of a ledger.
pub(super) fn forget(args: &cli::Forget, ledger: &Path) -> Result<Exit, Stop> {
    let mut ledger = Sqlite::open_existing(ledger)?;
    let _locks = all_locks(&ledger)?;
    let question = format!("Take {} out of {}?", args.address, ledger.path().display());
    ask(args.yes, &question)?;
    let forgotten = ledger.forget(&args.address)?;
    talk::note(&format!(
        "{} of this person: rows, addresses and answers are taken out, the outcomes stay",
        letters(forgotten.deliveries)
    ));
    if forgotten.unsent > 0 {
        talk::note(&format!(
            "{} of these were still to be sent: they are skipped",
            grouped(forgotten.unsent)
        ));
    }
    if forgotten.mentions > 0 {
        talk::note(&format!(
            "{} of others named the address: it is taken out there",
            letters(forgotten.mentions)
        ));
    }
    talk::note(
        "lists, kept letters, archives, outbox/ and trials (.postroom/sandbox, .postroom/trial) are files of \
         yours: look there too",
    );
    if forgotten.unfolded {
        still_read(&ledger, "forget again then");
    }
    if forgotten.open_mentions > 0 {
        eprintln!(
            "postroom: {} of others, still to be sent, name the address and were left as they are: forget again \
             when they are sent",
            letters(forgotten.open_mentions)
        );
    }
    let all_gone = !forgotten.unfolded && forgotten.open_mentions == 0;
    Ok(if all_gone { Exit::Done } else { Exit::SomeFailed })
}

/// `postroom prune`: takes old editions out of a ledger.
pub(super) fn prune(args: &cli::Prune, ledger: &Path) -> Result<Exit, Stop> {
    let mut ledger = Sqlite::open_existing(ledger)?;
    let _locks = all_locks(&ledger)?;
    let now = unix_now();
    let before = now.saturating_sub(i64::try_from(args.older.as_secs()).unwrap_or(i64::MAX));
    let old: Vec<Edition> = ledger
        .reader()?
        .all_editions()?
        .into_iter()
        .filter(|edition| edition.is_older_than(before))
        .collect();
    if old.is_empty() {
        talk::note("no edition was finished so long ago");
        return Ok(Exit::Done);
    }
    for edition in old.iter().filter(|_| !args.yes || !talk::is_quiet()) {
        eprintln!("  {} · edition {}", edition.job, edition.name);
    }
    ask(args.yes, "Take these out? What became of their recipients will not be known any more.")?;
    let pruned = ledger.prune(before, now)?;
    let editions = if pruned.editions == 1 { "edition" } else { "editions" };
    talk::note(&format!(
        "{} {editions} with {} taken out; their names are kept, so that they are not sent again",
        pruned.editions,
        letters(pruned.deliveries)
    ));
    if pruned.unfolded {
        still_read(&ledger, "the next run writes over it");
    }
    Ok(if pruned.unfolded { Exit::SomeFailed } else { Exit::Done })
}

fn still_read(ledger: &Sqlite, what_helps: &str) {
    let path = ledger.path().display();
    eprintln!(
        "postroom: somebody reads {path}: until nobody does its file has what was taken out; {what_helps}"
    );
}

/// The locks of all jobs in a ledger: what is taken out must not be in the hands of a run.
fn all_locks(ledger: &Sqlite) -> Result<Vec<crate::ledger::RunLock>, LedgerError> {
    let mut jobs: Vec<(String, Purpose)> =
        ledger.reader()?.all_editions()?.into_iter().map(|edition| (edition.job, edition.purpose)).collect();
    jobs.sort_by(|a, b| (&a.0, a.1.word()).cmp(&(&b.0, b.1.word())));
    jobs.dedup();
    jobs.iter().map(|(job, purpose)| ledger.lock(job, *purpose)).collect()
}

/// Asks on the terminal; without one `--yes` is needed.
fn ask(yes: bool, question: &str) -> Result<(), Stop> {
    if yes {
        return Ok(());
    }
    let refused = |reason: &str| Stop::new(Exit::Usage, reason.to_owned());
    if !io::stdin().is_terminal() {
        return Err(refused("there is no terminal to ask on: say --yes"));
    }
    match question::ask(question) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused("nothing was changed")),
        Err(error) => Err(Stop::new(Exit::Io, format!("the answer cannot be read: {error}"))),
    }
}

fn letters(number: u64) -> String {
    format!("{} {}", grouped(number), if number == 1 { "letter" } else { "letters" })
}
