//! A sending job as small as can be, for tests and benches of rendering: nothing is read but what
//! they add.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use postroom::job::{
    Body, Class, Dedupe, LedgerUrl, MailboxTemplates, MaxBad, Pipelining, RecipientsSpec, RelaySpec, Retry,
    SendJob, SourceSpec, Text, Timeouts, TlsMode, TlsSpec, Unsure,
};

/// A job rooted in a folder, whose list is said to be the CSV file `list.csv`.
pub(crate) fn bare_job(root: &Path) -> SendJob {
    SendJob {
        path: root.join("job.yaml"),
        root: root.to_owned(),
        name: "bare".to_owned(),
        edition: Text::new("1"),
        timezone: Some("UTC".to_owned()),
        class: Class::Bulk,
        from: "Post Room <news@sender.test>".parse().expect("a mailbox"),
        return_path: None,
        reply_to: Vec::new(),
        recipients: RecipientsSpec {
            source: SourceSpec::File {
                path: root.join("list.csv"),
                format: None,
                text: Text::new("list.csv"),
            },
            encoding: None,
            delimiter: None,
            columns: BTreeMap::new(),
            key: None,
            to: None,
            cc: MailboxTemplates::default(),
            bcc: MailboxTemplates::default(),
            filter: None,
            suppress: Vec::new(),
            max_bad: MaxBad::Any,
            dedupe: Dedupe::Refuse,
        },
        subject: Text::new("Hello"),
        body: Body { text: None, html: None },
        attachments: Vec::new(),
        images: Vec::new(),
        headers: Vec::new(),
        unsubscribe: None,
        list_id: None,
        feedback_id: None,
        vars: serde_json::Map::new(),
        relay: RelaySpec {
            host: "127.0.0.1".to_owned(),
            port: 25,
            provider: None,
            tls: TlsSpec { mode: TlsMode::None, ca_file: None, client_cert: None, only_tls13: false },
            auth: None,
            connections: 1,
            messages_per_connection: None,
            rate: None,
            burst: 1,
            limits: Vec::new(),
            retry: Retry::default(),
            pipelining: Pipelining::Auto,
            doubt: None,
            unsure: Unsure::Hold,
            helo: None,
            timeouts: Timeouts::default(),
            local_address: None,
            proxy: None,
            fallback: None,
            stop_when: None,
        },
        ledger: LedgerUrl::Sqlite(PathBuf::from("ledger.db")),
        keep: None,
        warnings: Vec::new(),
    }
}
