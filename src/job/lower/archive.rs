//! `kind: archive`

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use crate::diagnostic::Diagnostic;

use super::super::section::{Section, Value};
use super::super::{ArchiveJob, Deletion, Layout, MailboxSpec};
use super::*;

/// Lowers an archiving job.
pub(in crate::job) fn archive(section: &Section<'_>, house: &House<'_>, path: &Path) -> Option<ArchiveJob> {
    let name = section.need("name").and_then(job_name);
    let mailboxes = match (section.get("mailbox"), section.get("mailboxes")) {
        (Some(one), None) => mailbox(one, house).map(|one| vec![one]),
        (None, Some(several)) => several.list().and_then(|several| {
            if several.is_empty() {
                return section.get("mailboxes")?.wrong(Diagnostic::error("`mailboxes` is empty"));
            }
            // All are read before one that is wrong ends it: each has its mistakes shown.
            let read: Vec<_> = several.iter().map(|one| mailbox(*one, house)).collect();
            let twice = twice(&several, &read);
            read.into_iter().collect::<Option<Vec<_>>>().filter(|_| !twice)
        }),
        (Some(_), Some(second)) => {
            second.wrong(Diagnostic::error("write `mailbox` or `mailboxes`, not both"))
        }
        (None, None) => {
            section.missing("mailbox", "for example `mailbox: {host: pop.example.com, auth: {…}}`")
        }
    };
    let store = section.need("store").and_then(|value| value.path());
    let layout = section.get("layout").map_or(Some(Layout::default()), |value| {
        value.one_of(&[("dated", Layout::Dated), ("maildir", Layout::Maildir)])
    });
    let delete = section.get("delete").map_or(Some(Deletion::Never), deletion);
    Some(ArchiveJob {
        path: path.to_owned(),
        root: section.value.reading.root.clone(),
        name: name?,
        mailboxes: mailboxes?,
        store: store?,
        layout: layout?,
        delete: delete?,
        warnings: Vec::new(),
        absent: Vec::new(),
    })
}

/// A mailbox by its name in `postroom.yaml`, or in full.
pub(in crate::job) fn mailbox(value: Value<'_>, house: &House<'_>) -> Option<MailboxSpec> {
    let value = match value.as_text() {
        Some(_) => house.shared(value, house.mailboxes, "mailbox")?,
        None => value,
    };
    let section = value.section(&MAILBOX)?;
    if section.get("auth").is_none() {
        section.missing::<()>("auth", "a mailbox has a login: `auth: {user: …, password: {env: …}}`");
    }
    let server = server(&section, &POP3_PORTS, |preset| preset.pop3);
    let apop = section.get("apop").map_or(Some(false), |value| value.boolean());
    let pipelining = section.get("pipelining").map_or(Some(None), |value| {
        value.one_of(&[("auto", None), ("on", Some(true)), ("off", Some(false))])
    });
    let server = server?;
    let mut auth = server.auth?;
    let prefix = server.provider.and_then(|preset| preset.pop3_prefix).unwrap_or("");
    if !auth.user.starts_with(prefix) {
        auth.user.insert_str(0, prefix);
    }
    Some(MailboxSpec {
        name: MailboxSpec::name_of(&auth.user, &server.host, server.port, server.tls.mode),
        host: server.host,
        port: server.port,
        provider: server.known_as,
        tls: server.tls,
        auth,
        apop: apop?,
        pipelining: pipelining?,
        timeouts: server.timeouts,
        proxy: server.proxy,
    })
}

/// Says which mailboxes are there a second time: two sessions of one mailbox would be in each other's way.
fn twice(values: &[Value<'_>], read: &[Option<MailboxSpec>]) -> bool {
    let mut seen = HashSet::new();
    let named = values.iter().zip(read).filter_map(|(value, spec)| Some((value, &*spec.as_ref()?.name)));
    let again: Vec<_> = named.filter(|(_, name)| !seen.insert(*name)).collect();
    for (value, name) in &again {
        value.wrong::<()>(
            Diagnostic::error(format!("the mailbox {name} is named twice"))
                .label("the second time")
                .help("a job archives a mailbox once; take one of them out"),
        );
    }
    !again.is_empty()
}

fn deletion(value: Value<'_>) -> Option<Deletion> {
    if value.as_text() == Some("never") {
        return Some(Deletion::Never);
    }
    if value.as_text().is_some() {
        return value.wrong(
            Diagnostic::error("`delete` is `never` or says after how long")
                .help("for example `delete: {after: 30d, keep_newest: 500, max_fraction: 20%}`"),
        );
    }
    let section = value.section(&DELETE)?;
    let after = section.need("after").and_then(|value| value.duration());
    let keep_newest =
        section.get("keep_newest").map_or(Some(0), |value| value.count(0..=u64::from(u32::MAX)));
    let max_fraction = section.get("max_fraction").map_or(Some(1.0), |value| value.fraction());
    let after: Duration = after?;
    Some(Deletion::After { after, keep_newest: keep_newest? as usize, max_fraction: max_fraction? })
}

/// What a job is called: part of file names and of what the ledger says.
pub(super) fn job_name(value: Value<'_>) -> Option<String> {
    let name = value.words()?;
    let mistake = if name.chars().count() > 100 {
        "a job's name is at most 100 characters"
    } else if name.contains(['/', '\\']) || name.starts_with('.') {
        "a job's name holds no slash and does not begin with a dot"
    } else if name.contains("{{") || name.contains("{%") {
        "a job's name is not a template"
    } else {
        return Some(name);
    };
    value.wrong(Diagnostic::error(mistake).help("the `edition` is what changes from time to time"))
}
