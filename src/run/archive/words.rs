//! What is said of a mailbox: the balance of a run, what a look at it found, the ways of its provider.

use std::time::Duration;

use super::{Options, exit};
use crate::archive::balance::Balance;
use crate::archive::listing::TooMany;
use crate::archive::retrieve::Preview;
use crate::archive::session::SessionError;
use crate::exit::Exit;
use crate::job::{ArchiveJob, MailboxSpec, preset};
use crate::measure::ByteSize;
use crate::run::answer::print;
use crate::run::show::safe_line;

/// Says what became of a mailbox; gives its exit code.
pub(super) fn report(
    job: &ArchiveJob,
    spec: &MailboxSpec,
    name: &str,
    balance: &Balance,
    committed: Option<Duration>,
    options: &Options,
) -> Exit {
    for warning in &balance.warnings {
        say!(Warning, "{name}: {}", safe_line(warning));
    }
    for failure in &balance.failed {
        let uidl = failure.uidl.as_deref().unwrap_or("-");
        let text = format!("message {} ({uidl}): {}", failure.number, failure.reason);
        say!(Failed, "{name}: {}", safe_line(&text));
    }
    if let Some(too_many) = &balance.too_many {
        say!(
            Error,
            "{name}: {} messages are due for deletion, {} at once are allowed by max_fraction; nothing was \
             deleted. If that is right: --confirm-deletions {}",
            too_many.due,
            too_many.allowed,
            too_many.due
        );
    }
    if let Some(error) = &balance.error {
        let source = match error {
            SessionError::Store(store) => std::error::Error::source(&**store).map(ToString::to_string),
            _ => None,
        };
        let text = format!("{error}{}", source.map(|text| format!(": {text}")).unwrap_or_default());
        say!(Error, "{name}: {}", safe_line(&text));
        say_hint(spec, error);
    }
    // A mailbox that shows nothing may be one that shows POP3 only a part.
    if balance.on_server == Some(0)
        && let Some(hint) = listing_hint(spec)
    {
        say!(Help, "{name}: {hint}");
    }
    let text = if options.json {
        balance_json(name, balance, committed)
    } else {
        balance_text(job, name, balance, committed)
    };
    let said = if options.quiet && !options.json { Exit::Done } else { print(text) };
    match &balance.error {
        Some(error) => exit(error),
        None if !balance.is_complete() => said.or_worse(Exit::SomeFailed),
        None => said,
    }
}

fn balance_text(job: &ArchiveJob, name: &str, balance: &Balance, committed: Option<Duration>) -> String {
    let Some(on_server) = balance.on_server else { return format!("{name}: nothing was listed\n") };
    let mut text = format!(
        "{name}: {on_server} on the server = {} new + {} known + {} duplicate + {} skipped + {} failed",
        balance.new,
        balance.known,
        balance.duplicate,
        balance.skipped,
        balance.failed.len()
    );
    if balance.unaccounted() > 0 {
        text.push_str(&format!(" + {} left", balance.unaccounted()));
    }
    text.push('\n');
    if balance.unlisted > 0 {
        text.push_str(&format!("  {} more are counted by the server and not listed\n", balance.unlisted));
    }
    if balance.new + balance.duplicate > 0 {
        let time = committed.map(|time| format!(", the last committed after {:.2} s", time.as_secs_f64()));
        text.push_str(&format!("  {} received{}\n", ByteSize(balance.bytes), time.unwrap_or_default()));
    }
    if balance.deleted > 0 {
        text.push_str(&format!("  {} deleted on the server, as this listing shows\n", balance.deleted));
    }
    if balance.deleting > 0 {
        text.push_str(&format!(
            "  {} deletions accepted by the server; the next listing will show whether they are done\n",
            balance.deleting
        ));
    }
    if balance.refused > 0 {
        text.push_str(&format!("  {} deletions refused by the server\n", balance.refused));
    }
    text.push_str(&format!("  {}\n", job.store.display()));
    text
}

fn balance_json(name: &str, balance: &Balance, committed: Option<Duration>) -> String {
    let failed: Vec<_> = balance
        .failed
        .iter()
        .map(|failure| {
            serde_json::json!({"number": failure.number, "uidl": failure.uidl, "reason": failure.reason})
        })
        .collect();
    let object = serde_json::json!({
        "mailbox": name,
        "on_server": balance.on_server,
        "new": balance.new,
        "known": balance.known,
        "duplicate": balance.duplicate,
        "skipped": balance.skipped,
        "failed": failed,
        "left": balance.unaccounted(),
        "unlisted": balance.unlisted,
        "bytes": balance.bytes,
        "deletions_accepted": balance.deleting,
        "deletions_done": balance.deleted,
        "deletions_refused": balance.too_many.map(|too_many| too_many.due),
        "deletions_refused_by_server": balance.refused,
        "last_commit_seconds": committed.map(|time| time.as_secs_f64()),
        "warnings": balance.warnings,
        "error": balance.error.as_ref().map(ToString::to_string),
    });
    format!("{object}\n")
}

/// What would be deleted now.
pub(super) fn preview_text(name: &str, preview: &Preview) -> String {
    let Preview { listing, due, too_many } = preview;
    let bytes: u64 = listing.iter().map(|listed| listed.size).sum();
    let mut text = format!("{name}: {} messages, {}\n", listing.len(), ByteSize(bytes));
    match too_many {
        None if due.is_empty() => text.push_str("  nothing is due for deletion\n"),
        None => text.push_str(&format!("  {} messages would be deleted:\n", due.len())),
        Some(TooMany { due, allowed }) => text.push_str(&format!(
            "  {due} messages are due for deletion, above max_fraction ({allowed} at once): a run refuses without \
             --confirm-deletions {due}\n"
        )),
    }
    for listed in due.iter().filter_map(|&index| listing.get(index)) {
        let uidl = safe_line(listed.uidl.as_deref().unwrap_or("-"));
        let size = ByteSize(listed.size).to_string();
        text.push_str(&format!("  {:>7} {size:>9} {uidl}\n", listed.number));
    }
    text
}

/// The same for programs.
pub(super) fn preview_json(name: &str, preview: &Preview) -> String {
    let due = preview.due.iter().filter_map(|&index| preview.listing.get(index));
    let due: Vec<_> = due
        .map(|listed| serde_json::json!({"number": listed.number, "uidl": listed.uidl, "size": listed.size}))
        .collect();
    let object = serde_json::json!({
        "mailbox": name,
        "on_server": preview.listing.len(),
        "bytes": preview.listing.iter().map(|listed| listed.size).sum::<u64>(),
        "due": due,
        "refused_above": preview.too_many.map(|too_many| too_many.allowed),
    });
    format!("{object}\n")
}

/// What the provider wants of a login that was refused.
pub(super) fn say_hint(spec: &MailboxSpec, error: &SessionError) {
    if let SessionError::Login { .. } = error
        && let Some(hint) = login_hint(spec)
    {
        say!(Help, "{hint}");
    }
}

/// The provider whose ways are known: the one the job names, else the one whose host this is.
fn preset_of(spec: &MailboxSpec) -> Option<&'static preset::Preset> {
    spec.provider.as_deref().and_then(preset::find).or_else(|| preset::of_host(&spec.host))
}

fn login_hint(spec: &MailboxSpec) -> Option<&'static str> {
    preset_of(spec).map(|preset| preset.login)
}

fn listing_hint(spec: &MailboxSpec) -> Option<&'static str> {
    preset_of(spec).and_then(|preset| preset.listing)
}
