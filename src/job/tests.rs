//! Job files as people write them, right and wrong.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::diagnostic::{self, Diagnostic, Level};
use crate::measure::Rate;

/// A project in a folder of its own.
struct Project(tempfile::TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Project {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        Project(dir)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().canonicalize().expect("there")
    }

    fn read(&self, job: &str) -> Result<Job, Vec<Diagnostic>> {
        super::read(Path::new(job), &Environment::fixed(&self.root(), &[]))
    }

    fn send(&self, job: &str) -> SendJob {
        match self.read(job) {
            Ok(Job::Send(job)) => *job,
            Ok(Job::Archive(_)) => panic!("an archiving job"),
            Err(mistakes) => panic!("{}", diagnostic::print(&mistakes, false)),
        }
    }

    fn archive(&self, job: &str) -> ArchiveJob {
        match self.read(job) {
            Ok(Job::Archive(job)) => *job,
            Ok(Job::Send(_)) => panic!("a sending job"),
            Err(mistakes) => panic!("{}", diagnostic::print(&mistakes, false)),
        }
    }
}

/// The least of a sending job.
pub(super) const LEAST: &str = "kind: send
name: news
edition: \"1\"
from: news@example.com
recipients: {file: list.csv}
subject: Hello
body: {text: letter.txt}
relay: {host: 127.0.0.1, port: 2525}
";

#[test]
fn the_least_is_enough() {
    let project = Project::new(&[("job.yaml", LEAST)]);
    let job = project.send("job.yaml");
    let root = project.root();
    assert_eq!((&*job.name, &*job.edition.value, job.class), ("news", "1", Class::Bulk));
    assert_eq!(job.root, root);
    assert_eq!(job.ledger, LedgerUrl::Sqlite(root.join(".postroom/ledger.db")));
    assert!(
        matches!(&job.recipients.source, SourceSpec::File { path, .. } if *path == root.join("list.csv"))
    );
    assert_eq!(job.relay.tls.mode, TlsMode::None);
    assert_eq!((job.relay.port, job.relay.connections, job.relay.burst), (2525, 4, 1));
    assert!(job.warnings.is_empty());
}

#[test]
fn everything_is_read() {
    let project = Project::new(&[
        ("postroom.yaml", HOUSE),
        ("jobs/通知.yaml", EVERYTHING),
        ("data/context.json", r#"{"年": 2026, "over": 1}"#),
        ("data/more.yaml", "over: 2\nand: [a]\n"),
    ]);
    let root = project.root();
    let job = project.send("jobs/通知.yaml");
    assert_eq!(job.root, root);
    assert_eq!(job.path, root.join("jobs/通知.yaml"));
    assert_eq!(job.name, "十一月通知");
    assert_eq!(job.edition.value, "{{ now | date('%G-W%V') }}");
    assert_eq!(job.timezone.as_deref(), Some("Asia/Shanghai"));
    assert_eq!(job.class, Class::Personal);
    assert_eq!(job.from.to_string(), "Postroom News <news@example.com>");
    assert_eq!(job.reply_to.to_string(), "editor@example.com");
    let recipients = &job.recipients;
    assert_eq!(recipients.columns["joined"].0, ColumnKind::Date);
    assert_eq!(recipients.encoding.as_ref().map(|text| &*text.value), Some("gb18030"));
    assert_eq!(recipients.delimiter, Some(b';'));
    let to = recipients.to.as_ref().expect("to");
    assert_eq!(to.name.as_ref().map(|text| &*text.value), Some("{{ 姓名 }}"));
    assert_eq!(to.address.value, "{{ 邮箱 }}");
    assert!(matches!(&recipients.cc, MailboxTemplates::Each(each) if each.len() == 1));
    assert!(matches!(&recipients.bcc, MailboxTemplates::Split { split, .. } if split == ";"));
    assert_eq!(recipients.filter.as_ref().map(|text| &*text.value), Some("active and plan != \"free\""));
    assert_eq!(recipients.suppress[0].0, root.join("lists/unsubscribed.csv"));
    assert_eq!((recipients.max_bad, recipients.dedupe), (MaxBad::Fraction(0.01), Dedupe::First));
    assert!(
        matches!(&job.body.text, Some(TemplateSource::Inline(text)) if text.value == "Hello\n{{ name }}\n")
    );
    assert!(matches!(&job.body.html, Some(TemplateSource::File(text)) if text.value == "newsletter.html"));
    assert_eq!(job.attachments.len(), 2);
    assert_eq!(job.attachments[0].files.value, "reports/{{ region }}/*.pdf");
    assert_eq!((job.attachments[0].expect, job.attachments[1].expect), ((1, usize::MAX), (0, 2)));
    assert!(job.attachments[1].shared && job.attachments[1].when.is_some());
    assert_eq!((&*job.images[0].cid, &*job.images[0].file.value), ("logo", "images/logo.png"));
    let names: Vec<&str> = job.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["X-House", "X-Campaign"]);
    assert!(job.unsubscribe.as_ref().is_some_and(|unsubscribe| unsubscribe.one_click));
    assert_eq!(
        serde_json::Value::Object(job.vars.clone()),
        serde_json::json!({"year": 2026, "年": 2026, "over": 3, "and": ["a"], "house": true})
    );
    assert_eq!(job.ledger, LedgerUrl::Sqlite(root.join("letters.db")));
    assert_eq!(job.keep, Some(Keep::Folder(root.join("sent"))));
    assert!(job.notify.as_ref().is_some_and(|notify| notify.when == NotifyWhen::Trouble));

    let relay = &job.relay;
    assert_eq!((&*relay.host, relay.port, relay.tls.mode), ("smtp.example.com", 587, TlsMode::StartTls));
    assert_eq!(relay.rate, Some(Rate { count: 14, per: Duration::from_secs(1) }));
    assert_eq!((relay.connections, relay.messages_per_connection, relay.burst), (8, Some(500), 3));
    assert_eq!((relay.pipelining, relay.doubt, relay.unsure), (Pipelining::Window, Some(64), Unsure::Resend));
    assert_eq!(relay.limits[0].domains, ["gmail.com", "*.example.org"]);
    assert_eq!(relay.retry.give_up, Duration::from_secs(86_400));
    let codes = vec!["5.7.*".to_owned(), "521".to_owned()];
    assert_eq!(relay.stop_when, Some(StopWhen { refused: Some((0.05, 200)), codes }));
    assert_eq!(relay.timeouts.end, Duration::from_secs(60));
    assert!(relay.tls.only_tls13 && relay.tls.client_cert.is_some());
    assert_eq!(relay.tls.ca_file, Some(root.join("keys/ca.pem")));
    let auth = relay.auth.as_ref().expect("auth");
    assert!(matches!(&auth.credential, Credential::Env(name) if name == "SMTP_PASSWORD"));
    assert_eq!(auth.mechanism, Some(Mechanism::ScramSha256));
    let fallback = relay.fallback.as_ref().expect("a fallback");
    assert_eq!((&*fallback.host, fallback.tls.mode), ("backup.example.com", TlsMode::Implicit));
    assert!(job.warnings.is_empty(), "{}", diagnostic::print(&job.warnings, false));
}

pub(super) const HOUSE: &str = "
timezone: Asia/Shanghai
ledger: sqlite:letters.db
defaults:
  headers: {X-House: yes it is, X-Campaign: none}
  vars: {house: true, over: 0}
  relay: main
relays:
  main:
    host: smtp.example.com
    tls: starttls
    auth: {user: news@example.com, password: {env: SMTP_PASSWORD}, mechanism: scram-sha-256}
    connections: 8
    messages_per_connection: 500
    rate: 14/s
    burst: 3
    limits: [{domains: [gmail.com, '*.example.org'], rate: 5/s, connections: 2}]
    retry: {first: 1m, factor: 2, max: 1h, stay: 15m, give_up: 24h}
    pipelining: window
    doubt: 64
    unsure: resend
    helo: mail.example.com
    timeouts: {end: 60s}
    local_address: 192.0.2.1
    proxy: socks5://127.0.0.1:1080
    ca_file: keys/ca.pem
    client_cert: keys/me.pem
    client_key: keys/me.key
    tls_min: 1.3
    fallback: {host: backup.example.com, port: 465}
    stop_when: {refused: 5%, code: ['5.7.*', '521']}
mailboxes:
  support: {host: pop.example.com, tls: implicit, auth: {user: support@example.com, password: {command: [pass, mail/support]}}}
";

pub(super) const EVERYTHING: &str = r#"# yaml-language-server: $schema=../job.schema.json
kind: send
name: 十一月通知
edition: "{{ now | date('%G-W%V') }}"
class: personal
from: Postroom News <news@example.com>
return_path: bounces@example.com
reply_to: editor@example.com
recipients:
  file: data/subscribers.csv
  format: csv
  encoding: gb18030
  delimiter: ";"
  columns: {active: bool, balance: number, joined: date, 年龄: int}
  key: "{{ email }}"
  to: "{{ 姓名 }} <{{ 邮箱 }}>"
  cc: ["{{ manager }}"]
  bcc: {each: "{{ copies }}", split: ";"}
  where: active and plan != "free"
  suppress: [lists/unsubscribed.csv]
  max_bad: 1%
  dedupe: first
subject: "{{ name }}, your November digest"
body:
  html: newsletter.html
  text:
    inline: |
      Hello
      {{ name }}
attachments:
  - reports/{{ region }}/*.pdf
  - {files: legal/terms.pdf, as: "Terms {{ year }}.pdf", when: country == "DE", expect: 0..2, shared: true, type: application/pdf}
images: {logo: images/logo.png}
headers: {X-Campaign: november}
unsubscribe: {url: "https://example.com/u/{{ token }}", mailto: "leave+{{ token }}@example.com", one_click: true}
list_id: news.example.com
feedback_id: november:news
vars: {year: 2026, over: 3}
vars_file: [data/context.json, data/more.yaml]
keep: sent
notify: {to: [boss@example.com], when: trouble}
"#;

#[test]
fn archiving_jobs_are_read() {
    let project = Project::new(&[
        ("postroom.yaml", HOUSE),
        (
            "a.yaml",
            "kind: archive\nname: support-inbox\nmailbox: {host: pop.example.com, tls: implicit, auth: {user: s@example.com, \
             password: {command: [pass, mail/support]}}}\nstore: archive/support\nlayout: dated\ndelete: never\n",
        ),
        (
            "b.yaml",
            "kind: archive\nname: b\nmailboxes: [support, {provider: gmail, pipelining: on, auth: {user: a@gmail.com, password: {env: P}}}]\n\
             store: /var/mail/b\nlayout: maildir\ndelete: {after: 30d, keep_newest: 500, max_fraction: 20%}\n",
        ),
        (
            "c.yaml",
            "kind: archive\nname: bench\nmailbox:\n  host: 127.0.0.1\n  port: 11110\n  tls: none\n  auth: {user: u, password: {env: P}}\n\
             store: /tmp/x\ndelete: never\n",
        ),
    ]);
    let a = project.archive("a.yaml");
    assert_eq!(a.store, project.root().join("archive/support"));
    assert_eq!((a.mailboxes[0].port, a.layout, a.delete), (995, Layout::Dated, Deletion::Never));
    let b = project.archive("b.yaml");
    assert_eq!((&*b.mailboxes[0].host, &*b.mailboxes[1].host), ("pop.example.com", "pop.gmail.com"));
    assert_eq!(b.mailboxes[1].pipelining, Some(true));
    assert_eq!(b.mailboxes[1].auth.user, "recent:a@gmail.com");
    let after = Duration::from_secs(30 * 86_400);
    assert_eq!(b.delete, Deletion::After { after, keep_newest: 500, max_fraction: 0.2 });
    let c = project.archive("c.yaml");
    assert_eq!((c.mailboxes[0].port, c.mailboxes[0].tls.mode), (11110, TlsMode::None));
}

#[test]
fn a_mailbox_is_its_user_host_and_port() {
    for (user, host, port, mode, expected) in [
        ("ada", "POP.example.com", 995, TlsMode::Implicit, "ada@pop.example.com"),
        ("ada", "pop.example.com", 110, TlsMode::StartTls, "ada@pop.example.com"),
        ("ada", "127.0.0.1", 110, TlsMode::None, "ada@127.0.0.1"),
        ("ada", "127.0.0.1", 1101, TlsMode::None, "ada@127.0.0.1:1101"),
        ("ada", "pop.example.com", 995, TlsMode::StartTls, "ada@pop.example.com:995"),
        ("recent:ada", "pop.gmail.com", 995, TlsMode::Implicit, "ada@pop.gmail.com"),
    ] {
        assert_eq!(MailboxSpec::name_of(user, host, port, mode), expected);
    }
    let mailbox = |port: u16| {
        format!("{{host: 127.0.0.1, port: {port}, tls: none, auth: {{user: u, password: {{env: P}}}}}}")
    };
    for (second, twice) in [(1102, false), (1101, true)] {
        let text = format!(
            "kind: archive\nname: a\nmailboxes:\n  - {}\n  - {}\nstore: s\n",
            mailbox(1101),
            mailbox(second)
        );
        let project = Project::new(&[("job.yaml", &text)]);
        let env = Environment::fixed(&project.root(), &[]);
        let read = super::read(Path::new("job.yaml"), &env);
        let said = read.err().map(|mistakes| diagnostic::print(&mistakes, false)).unwrap_or_default();
        assert_eq!(said.contains("u@127.0.0.1:1101 is named twice"), twice, "{said}");
        assert_eq!(said.contains("job.yaml:5:"), twice, "{said}");
    }
}

#[test]
fn a_token_may_be_got_for_a_refresh_token() {
    let auth = |relay: &str| with("relay", &format!("relay: {relay}"));
    let refresh =
        "token: {refresh: {client_id: me, client_secret: {env: S}, refresh_token: {env: R}, scope: a b}}";
    let text = auth(&format!("{{provider: gmail, auth: {{user: u, {refresh}}}}}"));
    let relay = Project::new(&[("job.yaml", &text)]).send("job.yaml").relay;
    let Some(Auth { credential: Credential::Refresh(refresh), token: true, .. }) = relay.auth else {
        panic!("{:?}", relay.auth)
    };
    assert_eq!(refresh.url, "https://oauth2.googleapis.com/token");
    assert!(matches!(&refresh.refresh_token, Credential::Env(name) if name == "R"));
    assert_eq!((&*refresh.client_id, refresh.scope.as_deref()), ("me", Some("a b")));
    for (relay, expected) in [
        ("{host: a.b, auth: {user: u, token: {refresh: {client_id: me, refresh_token: {env: R}}}}}", "url"),
        (
            "{host: a.b, auth: {user: u, token: {refresh: {url: \"http://a.b/t\", client_id: me, refresh_token: {env: R}}}}}",
            "no address that a refresh token may be sent to",
        ),
        (
            "{provider: gmail, auth: {user: u, token: {env: T, refresh: {client_id: me, refresh_token: {env: R}}}}}",
            "one place",
        ),
        (
            "{provider: gmail, auth: {user: u, password: {refresh: {client_id: me, refresh_token: {env: R}}}}}",
            "refresh",
        ),
    ] {
        let project = Project::new(&[("job.yaml", &auth(relay))]);
        let env = Environment::fixed(&project.root(), &[]);
        let mistakes = super::read(Path::new("job.yaml"), &env).expect_err(relay);
        let said = diagnostic::print(&mistakes, false);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn tls_begins_as_the_port_says() {
    for (relay, port, mode) in [
        ("{host: mail.example.com}", 587, TlsMode::StartTls),
        ("{host: mail.example.com, port: 465}", 465, TlsMode::Implicit),
        ("{host: mail.example.com, port: 25}", 25, TlsMode::StartTls),
        ("{host: mail.example.com, port: 2525}", 2525, TlsMode::StartTls),
        ("{host: mail.example.com, tls: implicit}", 465, TlsMode::Implicit),
        ("{host: mail.example.com, tls: none}", 25, TlsMode::None),
        ("{host: localhost}", 25, TlsMode::None),
        ("{host: \"::1\", port: 2525}", 2525, TlsMode::None),
        ("{host: 127.0.0.1, port: 2525, tls: starttls}", 2525, TlsMode::StartTls),
        ("{host: 127.0.0.1, port: 465}", 465, TlsMode::Implicit),
        ("{provider: qq}", 465, TlsMode::Implicit),
        ("{provider: 163}", 465, TlsMode::Implicit),
        ("{provider: ses, region: eu-west-1}", 587, TlsMode::StartTls),
        ("{provider: gmail, tls: implicit}", 465, TlsMode::Implicit),
        ("{provider: gmail, port: 465}", 465, TlsMode::Implicit),
    ] {
        let text = LEAST.replace("{host: 127.0.0.1, port: 2525}", relay);
        let read = Project::new(&[("job.yaml", &text)]).send("job.yaml").relay;
        assert_eq!((read.port, read.tls.mode), (port, mode), "{relay}");
    }
}

#[test]
fn paths_start_at_the_root_or_at_home() {
    let text = with(
        "relay",
        "relay: {host: a.b, auth: {user: u, password: {command: [bin/pass, a/b]}}, fallback: {host: c.d, auth: {user: u, \
         password: {file: ~/secret}}}}\nledger: sqlite:~/ledger.db\nkeep: /var/kept\n\
         attachments: [~/a-*.pdf, {files: ~/b.pdf}]\nimages: {logo: ~/logo.png}",
    );
    let project = Project::new(&[("postroom.yaml", ""), ("jobs/job.yaml", &text)]);
    let read = |home: &str| {
        let env = Environment::fixed(&project.root(), &[("HOME", home)]);
        let Ok(Job::Send(job)) = super::read(Path::new("jobs/job.yaml"), &env) else { panic!("a job") };
        job
    };
    let job = read("/home/me");
    let credential =
        |relay: &RelaySpec| format!("{:?}", relay.auth.as_ref().map(|auth| auth.credential.clone()));
    let program = project.root().join("bin/pass");
    assert_eq!(
        credential(&job.relay),
        format!("{:?}", Some(Credential::Command(vec![program.display().to_string(), "a/b".into()])))
    );
    assert!(credential(job.relay.fallback.as_ref().expect("a fallback")).contains("/home/me/secret"));
    let paths =
        job.attachments.iter().map(|spec| &spec.files).chain(job.images.iter().map(|spec| &spec.file));
    let paths: Vec<&str> = paths.map(|text| &*text.value).collect();
    assert_eq!(paths, ["/home/me/a-*.pdf", "/home/me/b.pdf", "/home/me/logo.png"]);
    let of_signs = read("/home/a[b]");
    assert_eq!(of_signs.attachments[0].files.value, "/home/a\\[b\\]/a-*.pdf");
    assert_eq!(of_signs.attachments[0].files.written(), "~/a-*.pdf");
    assert_eq!(of_signs.images[0].file.value, "/home/a[b]/logo.png");
    assert_eq!(
        (job.ledger, job.keep),
        (LedgerUrl::Sqlite("/home/me/ledger.db".into()), Some(Keep::Folder("/var/kept".into())))
    );
}

#[test]
fn a_provider_is_known_by_its_host_and_its_limits_hold_when_it_is_named() {
    for (relay, provider, connections) in [
        ("{host: smtp.qq.com}", Some("qq"), 4),
        ("{provider: qq}", Some("qq"), 1),
        ("{provider: QQ, connections: 3}", Some("qq"), 3),
        ("{host: mail.example.com}", None, 4),
    ] {
        let text = LEAST.replace("{host: 127.0.0.1, port: 2525}", relay);
        let read = Project::new(&[("job.yaml", &text)]).send("job.yaml").relay;
        assert_eq!((read.provider.as_deref(), read.connections), (provider, connections), "{relay}");
    }
}

#[test]
fn a_link_to_a_job_is_of_the_job_s_project() {
    let project = Project::new(&[("postroom.yaml", ""), ("jobs/a.yaml", LEAST)]);
    let link = |elsewhere: &Project| {
        std::os::unix::fs::symlink(project.root().join("jobs/a.yaml"), elsewhere.root().join("a.yaml"))
            .expect("a link");
    };
    let elsewhere = Project::new(&[]);
    link(&elsewhere);
    assert_eq!(elsewhere.send("a.yaml").root, project.root());
    // A project that the link itself lies in comes first: it may be of links as a whole.
    let other = Project::new(&[("postroom.yaml", "")]);
    link(&other);
    assert_eq!(other.send("a.yaml").root, other.root());
    // One that has lost what it leads to is no reason to begin elsewhere.
    std::fs::remove_file(other.root().join("postroom.yaml")).expect("removed");
    std::os::unix::fs::symlink("gone.yaml", other.root().join("postroom.yaml")).expect("a link");
    other.read("a.yaml").expect_err("a house that cannot be read");
}

#[test]
fn the_root_is_the_nearest_folder_with_a_house() {
    let project = Project::new(&[
        ("postroom.yaml", ""),
        ("a/b/job.yaml", LEAST),
        ("a/c/postroom.yaml", "# x\n"),
        ("a/c/d/job.yaml", LEAST),
    ]);
    let root = project.root();
    assert_eq!(project.send("a/b/job.yaml").root, root);
    assert_eq!(project.send("a/c/d/job.yaml").root, root.join("a/c"));
    assert!(project.read("postroom.yaml").is_err());
    let ledger = shared_ledger(&Environment::fixed(&root.join("a/b"), &[])).expect("a ledger");
    assert_eq!(ledger, LedgerUrl::Sqlite(root.join(".postroom/ledger.db")));
    let empty = Project::new(&[("postroom.yaml/x", "")]);
    let ledger = shared_ledger(&Environment::fixed(&empty.root(), &[])).expect("a folder is no house");
    assert_eq!(ledger, LedgerUrl::Sqlite(empty.root().join(".postroom/ledger.db")));
}

#[test]
fn a_file_in_another_encoding_is_told_apart() {
    let project = Project::new(&[]);
    let text = format!("{LEAST}# password: hunter2 ");
    let mut bytes = text.into_bytes();
    bytes.extend(*b"\xc4\xfa\xba\xc3\n");
    std::fs::write(project.root().join("job.yaml"), bytes).expect("written");
    let printed = diagnostic::print(&project.read("job.yaml").expect_err("GBK"), false);
    assert!(printed.contains("is not UTF-8") && printed.contains("job.yaml:9:"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_long_list_is_read_in_one_pass() {
    let rows: String =
        (0..20_000).map(|n| format!("    - {{email: r{n}@example.org, 姓名: \"张 {n}\"}}\n")).collect();
    let text = with("recipients", &format!("recipients:\n  list:\n{rows}"));
    let job = Project::new(&[("job.yaml", &text)]).send("job.yaml");
    let SourceSpec::List(rows) = &job.recipients.source else { panic!("no list") };
    assert_eq!((rows.len(), &rows[19_999]["姓名"]), (20_000, &serde_json::json!("张 19999")));
}

#[test]
fn a_missing_file_is_told_apart() {
    let project = Project::new(&[]);
    let mistakes = project.read("none.yaml").expect_err("no file");
    assert_eq!(mistakes[0].exit, crate::exit::Exit::NoInput);
}

/// Replaces a line of the least job, or adds one.
pub(super) fn with(key: &str, line: &str) -> String {
    let mut found = false;
    let mut text: String = LEAST
        .lines()
        .map(|old| match old.split(':').next() == Some(key) {
            true => {
                found = true;
                format!("{line}\n")
            }
            false => format!("{old}\n"),
        })
        .collect();
    if !found {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    // What is replaced, by what; the words under the mark; what is said about them.
    for (key, line, marked, said) in [
        ("subjekt", "subjekt: x", "subjekt", "did you mean `subject`?"),
        ("to", "to: a@b.c", "to", "it belongs under `recipients`"),
        ("relay", "relay: {server: a.b}", "server", "the server's name is `host`"),
        ("passwordeval", "passwordeval: pass x", "passwordeval", "{command: [program, argument]}"),
        ("schedule", "schedule: daily", "schedule", "call `postroom run` from cron"),
        ("kind", "kind: sent", "sent", "did you mean `send`?"),
        ("kind", "", "name", "the key `kind` is missing"),
        ("from", "", "kind", "the key `from` is missing"),
        ("name", "name: [a]", "[a]", "`name` takes text, not a list"),
        ("name", "name: a/b", "a/b", "no slash"),
        ("subject", "subject:", "subject", "`subject` has no value"),
        ("subject", "subject: ~", "~", "`subject` has no value"),
        ("subject", "subject: \"a\\nb\"", "\"a\\nb\"", "holds a line break"),
        ("edition", "edition: 1.10", "1.10", "write \"1.10\""),
        ("edition", "edition: 2026", "2026", "write \"2026\""),
        ("subject", "subject: {{ name }}", "{{ name }}", "put the whole value in quotes"),
        ("attachments", "attachments: [{{ file }}]", "{{ file }}", "put the whole value in quotes"),
        ("attachments", "attachments:\n  - {{ file }}", "{{ file }}", "put the whole value in quotes"),
        ("subject", "subject: {{ name }}, hello", "{{ name }}, hello", "begins with `{{`"),
        ("attachments", "attachments: [*.pdf]", "*.pdf", "begins with `*` is an alias"),
        ("attachments", "attachments: *pdf", "*pdf", "begins with `*` is an alias"),
        ("attachments", "attachments:\n  - *.pdf", "*.pdf", "begins with `*` is an alias"),
        ("subject", "subject: Re: hello", "Re: hello", "begins a mapping in YAML"),
        ("subject", "subject: @home", "@home", "cannot begin with this sign"),
        ("subject", "subject: \"open", "\"", "this quotation mark is not closed"),
        ("body", "body: {text: x", "{", "this `{` is not closed"),
        ("subject", "subject: !x y", "y", "is a tag in YAML"),
        ("subject", "sbject: y", "sbject", "did you mean `subject`?"),
        ("body", "body:\n\ttext: x", "\t", "indented with spaces"),
        ("subject", "subject\u{ff1a}\"x\"", "\u{ff1a}", "is a letter in YAML"),
        ("body", "\u{3000}\u{3000}x: y", "\u{3000}\u{3000}x", "indented with plain spaces"),
        ("name2", "name: other", "name", "stands here twice"),
        ("name2", "---\nkind: send", "---", "more than one document"),
        ("from", "from: news@@example.com", "news@@example.com", "is not a mailbox"),
        ("from", "from: '{{ a }} <x@y.z>'", "'{{ a }} <x@y.z>'", "the same for everyone"),
        ("recipients", "recipients: {file: a.csv, encoding: ANSI}", "ANSI", "`gb18030` (in China"),
        ("class", "class: bulky", "bulky", "did you mean `bulk`?"),
        ("timezone", "timezone: Mars/Olympus", "Mars/Olympus", "is not known"),
        ("ledger", "ledger: postgres://x", "postgres://x", "not built into this version"),
        ("ledger", "ledger: x.db", "x.db", "write `sqlite:"),
        ("headers", "headers: {Subject: x}", "Subject", "it is the key `subject`"),
        ("headers", "headers: {'X Y': x}", "'X Y'", "is not a header's name"),
        ("unsubscribe", "unsubscribe: {mailto: a@b.c, one_click: true}", "true", "needs an https `url`"),
        ("vars", "vars: [a]", "[a]", "`vars` takes a mapping, not a list"),
        ("vars_file", "vars_file: none.json", "none.json", "there is no file none.json"),
        ("images", "images: {标 志: x.png}", "标 志", "is not a content-id"),
        ("body", "body: {}", "body", "the key `html` is missing"),
        ("body", "body: letter.html", "letter.html", "`body` is a mapping"),
        ("body", "body: {text: '{{ x }}'}", "'{{ x }}'", "{inline: …}"),
        ("body", "body:\n  text: |\n    Dear\n    all", "|", "{inline: …}"),
        ("body", "body: {html: '<p>x</p>'}", "'<p>x</p>'", "{inline: …}"),
        ("attachments", "attachments: [{files: a, expect: 3..1}]", "3..1", "`expect` cannot be"),
        (
            "attachments",
            "attachments: [{files: a, type: 'application/pdf; name=foo.pdf'}]",
            "'application/pdf; name=foo.pdf'",
            "is not a content type",
        ),
        (
            "attachments",
            "attachments: [{files: a, type: 'text/plain;'}]",
            "'text/plain;'",
            "is not a content type",
        ),
        ("attachments", "attachments: [{as: a}]", "attachments", "the key `files` is missing"),
        ("recipients", "recipients: {file: a, list: []}", "[]", "from one place"),
        ("recipients", "recipients: {sql: {query: x}}", "{query: x}", "cannot come from SQL yet"),
        ("recipients", "recipients: {file: a, to: 'x <{{ e }}'}", "'x <{{ e }}'", "does not end with `>`"),
        ("recipients", "recipients: {file: a, to: nobody}", "nobody", "is not an address"),
        ("recipients", "recipients: {file: a, to: [x@y.z]}", "[x@y.z]", "one mailbox"),
        ("recipients", "recipients: {file: a, where: '{{ active }}'}", "'{{ active }}'", "no braces"),
        ("recipients", "recipients: {file: a, columns: {x: integer}}", "integer", "did you mean `int`?"),
        ("recipients", "recipients: {file: a, encoding: gbq}", "gbq", "is not known"),
        ("recipients", "recipients: {file: a, max_bad: 120%}", "120%", "`max_bad` cannot be"),
        ("recipients", "recipients: {list: [ada@example.org]}", "ada@example.org", "is a mapping"),
        ("relay", "relay: main", "main", "there is no relay `main`"),
        ("relay", "relay: {host: a.b, prot: 25}", "prot", "did you mean `port`?"),
        ("relay", "relay: {host: a.b, port: 0}", "0", "from 1 to 65535"),
        ("relay", "relay: {host: 'a.b:25'}", "'a.b:25'", "`port: 25`"),
        ("relay", "relay: {provider: gmial}", "gmial", "did you mean `gmail`?"),
        ("relay", "relay: {port: 25}", "relay", "the key `host` is missing"),
        ("relay", "relay: {host: a.b, tls: yes}", "yes", "one of `starttls`"),
        (
            "relay",
            "relay: {host: a.b, tls: none, auth: {user: u, password: {env: P}}}",
            "{user: u, password: {env: P}}",
            "in the clear",
        ),
        ("relay", "relay: {host: a.b, auth: {user: u}}", "auth", "the key `password` is missing"),
        (
            "relay",
            "relay: {host: a.b, auth: {user: u, password: {command: pass}}}",
            "pass",
            "a list of words",
        ),
        ("relay", "relay: {host: a.b, auth: {user: u, password: {env: $P}}}", "$P", "without `$`"),
        (
            "relay",
            "relay: {host: a.b, auth: {user: u, token: {env: T}, mechanism: plain}}",
            "plain",
            "takes a `password`",
        ),
        ("relay", "relay: {host: a.b, rate: 14}", "14", "for example `14/s`"),
        ("relay", "relay: {host: a.b, retry: {first: 10}}", "10", "a duration with its unit"),
        ("relay", "relay: {host: a.b, retry: {first: soon}}", "soon", "is not a duration"),
        (
            "relay",
            "relay: {host: a.b, timeouts: {end: 300000000000y}}",
            "300000000000y",
            "is longer than 100 years",
        ),
        ("relay", "relay: {host: a.b, proxy: 'ftp://x:1'}", "'ftp://x:1'", "not a proxy's address"),
        ("relay", "relay: {host: a.b, helo: 'a b'}", "'a b'", "neither a host name"),
        ("relay", "relay: {host: a.b, limits: [{domains: a@b}]}", "a@b", "is not a domain"),
        (
            "relay",
            "relay: {host: a.b, limits: [{domains: m.x.test, rate: 1/s}, {domains: '*.X.test', rate: 1/s}]}",
            "'*.X.test'",
            "`*.X.test` has addresses in common with `m.x.test`",
        ),
        (
            "relay",
            "relay: {host: a.b, limits: [{domains: '*.x.test', rate: 1/s}, {domains: '*.m.x.test', rate: 1/s}]}",
            "'*.m.x.test'",
            "each address is of one limit only",
        ),
        (
            "relay",
            "relay: {host: a.b, limits: [{domains: [例子.中国, xn--fsqu00a.xn--fiqs8s], rate: 1/s}]}",
            "xn--fsqu00a.xn--fiqs8s",
            "stands in `limits` twice",
        ),
        ("relay", "relay: {host: 'smtp://a.b'}", "'smtp://a.b'", "the host alone belongs here: `host: a.b`"),
        ("relay", "relay: {host: 'smtp://u@a.b:25/'}", "'smtp://u@a.b:25/'", "`host: a.b` and `port: 25`"),
        ("relay", "relay: {host: 'a.b:smtp'}", "'a.b:smtp'", "the host alone belongs here"),
        ("relay", "relay: {host: a.b, connections: many}", "many", "takes a whole number, not text"),
        ("relay", "relay: {host: a.b, ca_file: x, tls: none}", "x", "means nothing without TLS"),
        (
            "relay",
            "relay: {host: a.b, dkim: {domain: a.b, selector: s, key: {file: k.pem}}}",
            "",
            "cannot be signed",
        ),
    ] {
        let text = with(key, line);
        let mistakes = match Project::new(&[("job.yaml", &text)]).read("job.yaml") {
            Ok(_) => panic!("{line}: no mistake found"),
            Err(mistakes) => mistakes,
        };
        let printed = diagnostic::print(&mistakes, false);
        assert!(printed.contains(said), "{line}: {printed}");
        let words = mistakes.iter().any(|mistake| {
            mistake.place.as_ref().is_some_and(|place| place.source[place.span.clone()].contains(marked))
        });
        assert!(words, "{line}: not marked: {marked}\n{printed}");
    }
}

#[test]
fn an_id_of_a_list_is_as_the_letters_need_it() {
    for (id, right) in [
        ("news.example.com", true),
        ("新闻 <news.example.com>", true),
        ("'a <b> <news.example.com>'", true),
        ("'{{ name }}'", true),
        ("'{{ name }} <{{ id }}.example.com>'", true),
        ("'{{ name }} <news.example.com>'", true),
        ("'News <{{ id }}>'", true),
        ("新闻", false),
        ("our news", false),
        ("News <our news>", false),
        ("'a <news.example.com> <b c>'", false),
        ("'{{ name }} <our news>'", false),
        ("''", false),
    ] {
        let job = with("list_id", &format!("list_id: {id}"));
        assert_eq!(Project::new(&[("job.yaml", &job)]).read("job.yaml").is_ok(), right, "{id}");
    }
}

#[test]
fn files_that_are_not_there_are_told_of_the_relay_that_is_used() {
    let house = "relays:
  used: {host: a.b, ca_file: ca.pem, auth: {user: u, password: {file: here}}, fallback: spare}
  spare: {host: c.d, auth: {user: u, token: {file: token}}}
  other: {host: e.f, ca_file: other.pem}
";
    let job = with("relay", "relay: used");
    let project = Project::new(&[("postroom.yaml", house), ("job.yaml", &job), ("here", "secret")]);
    let absent = project.send("job.yaml").absent;
    let marked: Vec<_> = absent
        .iter()
        .map(|one| one.place.as_ref().map(|place| &place.source[place.span.clone()]).expect("a place"))
        .collect();
    assert_eq!(marked, ["ca.pem", "token"]);
    assert!(absent.iter().all(|one| one.exit == crate::exit::Exit::NoInput));
}

#[test]
fn fallbacks_have_fallbacks_and_may_name_each_other() {
    let house = "relays:
  a: {host: a.test, fallback: b}
  b: {host: b.test, fallback: {host: c.test, fallback: d}}
  d: {host: d.test, fallback: b}
";
    for (relay, expected) in [
        ("a", &["a.test", "b.test", "c.test", "d.test"][..]),
        ("d", &["d.test", "b.test", "c.test"]),
        ("{host: e.test, fallback: d}", &["e.test", "d.test", "b.test", "c.test"]),
    ] {
        let job = with("relay", &format!("relay: {relay}"));
        let job = Project::new(&[("postroom.yaml", house), ("job.yaml", &job)]).send("job.yaml");
        let chain = std::iter::successors(Some(&job.relay), |relay| relay.fallback.as_deref());
        assert_eq!(chain.map(|relay| &*relay.host).collect::<Vec<_>>(), expected, "{relay}");
    }
    let (house, job) = ("relays: {own: {host: own.test, fallback: own}}", with("relay", "relay: own"));
    let mistakes = Project::new(&[("postroom.yaml", house), ("job.yaml", &job)])
        .read("job.yaml")
        .expect_err("a mistake");
    assert!(diagnostic::print(&mistakes, false).contains("`own` is its own fallback"));
}

#[test]
fn limited_domains_are_kept_as_the_ledger_has_them() {
    let limits = "[{domains: [例子.中国, '*.Bücher.example', GMAIL.com., '*.gmail.com'], rate: 1/s},
      {domains: x.gmail.org, rate: 1/s}]";
    let text = with("relay", &format!("relay: {{host: a.b, limits: {limits}}}"));
    let relay = Project::new(&[("job.yaml", &text)]).send("job.yaml").relay;
    assert_eq!(
        relay.limits[0].domains,
        ["xn--fsqu00a.xn--fiqs8s", "*.xn--bcher-kva.example", "gmail.com", "*.gmail.com"]
    );
    assert_eq!(relay.limits[1].domains, ["x.gmail.org"]);
    for (domain, place) in [
        ("gmail.com", 1),
        ("a.b.gmail.com", 1),
        ("hotgmail.com", 0),
        ("xn--bcher-kva.example", 0),
        ("x.gmail.org", 2),
        ("", 0),
    ] {
        assert_eq!(super::DomainLimit::place(&relay.limits, domain), place, "{domain}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "kind: send
name: 通知
edtion: 2026-11
from: news@example
recipients:
  file: 名单.csv
  to: \"{{ 姓名 }} <{{ 邮箱 }}\"
  columns: {生日: 日期}
subject:
body: {html: 1}
relay:
  host: smtp.example.com
  tls: startls
  conections: 8
";
    let mistakes = Project::new(&[("jobs/通知.yaml", text)]).read("jobs/通知.yaml").expect_err("mistakes");
    golden("tests/golden/job-mistakes.txt", &diagnostic::print(&mistakes, false));
}

#[test]
fn what_is_not_in_postroom_yaml_is_told_by_why_it_is_not() {
    let job = with("relay", "relay: main");
    for (house, expected) in [
        (None, &["no postroom.yaml lies above this job"][..]),
        (Some("relays: {other: {host: a.b}}\n"), &["there is no relay `main` in postroom.yaml"]),
        (Some("relays: {main: {host: a.b\n"), &["this is not YAML"]),
        (Some("relays: [a]\n- b\n"), &["this is not YAML"]),
        (Some("just words\n"), &["postroom.yaml"]),
    ] {
        let files: Vec<(&str, &str)> =
            [("job.yaml", &*job)].into_iter().chain(house.map(|house| ("postroom.yaml", house))).collect();
        let mistakes = Project::new(&files).read("job.yaml").expect_err("no relay");
        let said = diagnostic::print(&mistakes, false);
        assert!(mistakes.len() == 1 && expected.iter().all(|words| said.contains(words)), "{said}");
    }
}

#[test]
fn chinese_quotation_marks_around_a_value_are_warned_of() {
    for (edition, warned) in [
        ("“2026-11”", true),
        ("”2026-11”", true),
        ("\"“2026-11”\"", false),
        ("“双” x", false),
        ("“双”和“单”", false),
    ] {
        let text = with("edition", &format!("edition: {edition}"));
        let job = Project::new(&[("job.yaml", &text)]).send("job.yaml");
        let said = diagnostic::print(&job.warnings, false);
        assert_eq!(said.contains("the quotation marks around this value are part of it"), warned, "{said}");
    }
}

#[test]
fn a_subject_that_ends_in_a_comment_is_warned_of() {
    for (line, warned) in [
        ("subject: 编号 #12", true),
        ("subject: 编号 # of this month", false),
        ("subject: \"编号 #12\"", false),
        ("subject: \"编号\" #12", false),
        ("subject: 编号#12", false),
        ("subject: 编号 #{{ id }}", true),
        ("subject: Join us #GivingTuesday", true),
        ("subject: News\n  of the month #12", true),
        ("subject: 十一月通讯 #主题", false),
        ("subject: Hello   #TODO", false),
        ("subject: |\n  News #12", false),
        ("subject: x\nvars: {subject: y}  #12", false),
    ] {
        let job = Project::new(&[("job.yaml", &with("subject", line))]).send("job.yaml");
        let said = diagnostic::print(&job.warnings, false);
        assert_eq!(said.contains("no part of the subject"), warned, "{line}: {said}");
    }
}

#[test]
fn answers_go_to_mailboxes_as_they_are_read_elsewhere() {
    for reply_to in [
        r#""Ada \"Al\" Lee" <a@b.example>"#,
        r#""\"Al\"" <a@b.example>"#,
        "\"ada\"@b.example.",
        "Ada <ada@b.example.>",
        "e\u{301}@b.example",
        "<a@b.example>",
    ] {
        let text = with("subject", &format!("subject: x\nreply_to: '{reply_to}'"));
        let job = Project::new(&[("job.yaml", &text)]).send("job.yaml");
        let mailbox: crate::mail::Mailbox = reply_to.parse().expect("a mailbox");
        assert_eq!(job.reply_to.to_string(), mailbox.to_string());
        let MailboxTemplates::Each(each) = job.reply_to else { panic!("one each") };
        assert_eq!(each[0].name.as_ref().map(|name| &name.value), mailbox.name.as_ref());
    }
}

#[test]
fn what_is_warned_of_in_a_file_of_vars_does_not_refuse_the_job() {
    for (vars, warned) in [("slogan: “今日特价”", true), ("subject: News #12", false)] {
        let text = with("subject", "subject: x\nvars_file: v.yaml");
        let job = Project::new(&[("job.yaml", &text), ("v.yaml", vars)]).send("job.yaml");
        assert_eq!((job.vars.len(), !job.warnings.is_empty()), (1, warned), "{vars}");
    }
}

#[test]
fn encodings_go_by_names_of_windows_too() {
    for (name, expected) in
        [("cp936", "gbk"), ("CP950", "big5"), ("utf-8-sig", "utf-8"), ("GB2312", "GB2312")]
    {
        let text = with("recipients", &format!("recipients: {{file: a.csv, encoding: {name}}}"));
        let recipients = Project::new(&[("job.yaml", &text)]).send("job.yaml").recipients;
        assert_eq!(recipients.encoding.map(|text| text.value).as_deref(), Some(expected));
    }
}

#[test]
fn each_mistake_of_yaml_stands_alone() {
    let mut printed = String::new();
    for text in [
        "kind: send\nsubject: {{ 姓名 }}，您好\n",
        "kind: send\nattachments: [*.pdf]\n",
        "kind: send\nsubject: 回复: 您好 和 Re: x\n",
        "kind: send\nbody:\n\thtml: x\n",
        "kind: send\nsubject: \"没有结束\nfrom: x\n",
        "kind: send\nattachments: [a, b\nfrom: x\n",
        "kind: send\nname:通知\nedition: x\n",
        "kind: send\nrecipients:\n  file:x.csv\n  to: x\n",
        "kind: send\nrelay: {host: a.b， port: 25， tls: none}\n",
        "kind: send\nrelay: ｛host: a.b, port: 25｝\n",
        "kind: send\nrecipients: {file: \"data\\名单.csv\"}\n",
        "kind: send\nrecipients: {file: \"C:\\Users\\名单.csv\"}\n",
        "kind: send\nrecipients: {file: \"data\\u名单.csv\"}\n",
        "kind: send\nrecipients: {file: \"D:\\x数据\"}\n",
        "kind: send\nsubject: 【通知】会议: 明天\n",
        "kind: send\nvars: {slogan: \"甲，乙: 丙\" x: y}\n",
        "kind: send\nrecipients:\n  file: x.csv\n   to: x\n",
    ] {
        let mistakes = Project::new(&[("job.yaml", text)]).read("job.yaml").expect_err("no YAML");
        assert_eq!(mistakes.len(), 1);
        printed.push_str(&diagnostic::print(&mistakes, false));
        printed.push('\n');
    }
    golden("tests/golden/job-syntax.txt", &printed);
}

/// Compares with a file that a person can open; `UPDATE_GOLDEN=1` rewrites it.
fn golden(path: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, found).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{}", path.display());
}

#[test]
fn secrets_are_not_shown_with_the_mistakes_around_them() {
    for text in [
        with("relay", "relay: {host: a.b, auth: {user: u, password: hunter2, mechnism: x}}"),
        with(
            "relay",
            "relay: {host: a.b, auth: {user: u, password: {env: P, hunter2: x}, token: hunter2, mechnism: x}}",
        ),
        with("relay", "relay: {host: a.b, auth: {user: u, password: [hunter2], mechnism: x}}"),
        with(
            "relay",
            "relay:\n  host: a.b\n  auth:\n    user: u\n    password: |\n      hunter2\n    mechnism: x\n    password: hunter2",
        ),
        with("relay", "relay: {host: a.b, proxy: 'ftp://me:hunter2@x:1'}"),
        with("relay", "relay: {host: a.b, auth: {user: u, password: hunter2, mechanism: [}}"),
        with("relay", "relay: {host: a.b, auth: {user: u, Password: 'hunter2}}"),
        with("relay", "relay: {host: a.b, auth: {user: u, password: &hunter2 hunter2, mechanism: x}}"),
        with("relay", "relay: {host: a.b, auth: {user: u, password: !hunter2 hunter2, mechanism: x}}"),
    ] {
        let mistakes = Project::new(&[("job.yaml", &text)]).read("job.yaml").expect_err("mistakes");
        let printed = diagnostic::print(&mistakes, false);
        let anchors = printed.replace("{env: P, hunter2: x}", "");
        assert!(!anchors.contains("hunter2") || text.contains("hunter2: x"), "{text}\n{printed}");
    }
}

#[test]
fn a_literal_password_is_a_warning() {
    let text = with("relay", "relay: {host: a.b, auth: {user: u, password: hunter2}}");
    let job = Project::new(&[("job.yaml", &text)]).send("job.yaml");
    assert_eq!(job.warnings.len(), 1);
    assert_eq!(job.warnings[0].level, Level::Warning);
    assert!(!diagnostic::print(&job.warnings, true).contains("hunter2"));
    assert!(!format!("{job:?}").contains("hunter2"));
}

#[test]
fn a_port_of_the_other_beginning_or_of_another_protocol_is_a_warning() {
    for (relay, warned) in [
        ("{host: a.b, port: 465, tls: starttls}", Some("port 465 is the one of `tls: implicit`")),
        ("{host: a.b, port: 465, tls: none}", Some("port 465 is the one of `tls: implicit`")),
        ("{host: a.b, port: 587, tls: implicit}", Some("port 587 is the one of `tls: starttls`")),
        ("{host: a.b, port: 25, tls: implicit}", Some("port 25 is the one of `tls: none`")),
        ("{host: a.b, port: 465}", None),
        ("{host: a.b, port: 25, tls: starttls}", None),
        ("{host: a.b, port: 2525, tls: implicit}", None),
        ("{host: 127.0.0.1, port: 465, tls: none}", None),
        (
            "{host: a.b, port: 995, tls: implicit}",
            Some("port 995 is known for POP3, and SMTP is spoken here"),
        ),
    ] {
        let job = Project::new(&[("job.yaml", &with("relay", &format!("relay: {relay}")))]).send("job.yaml");
        let titles: Vec<&str> = job.warnings.iter().map(|warning| warning.title.as_str()).collect();
        assert_eq!(titles, warned.into_iter().collect::<Vec<_>>(), "{relay}");
    }
}

#[test]
fn a_relay_in_full_and_absolute_paths_are_enough() {
    let text = "kind: send
name: bench-w3
edition: \"1\"
from: Post Room <news@sender.test>
recipients:
  file: /data/table.csv
  to: \"{{ email }}\"
vars_file: /nonexistent/context.json
subject: \"{{ first }}, your {{ month }} digest: {{ stories|length }} stories\"
body: {html: /data/html.html, text: /data/text.txt}
images: {logo: /data/logo.png}
attachments: ['/data/reports/{{ id }}-*.pdf', /data/terms.pdf]
relay: {host: 127.0.0.1, port: 2525, tls: none, connections: 10}
ledger: sqlite:/data/ledger.db
";
    let project = Project::new(&[("context.json", "{\"month\": \"May\"}")]);
    let context = project.root().join("context.json");
    let text = text.replace("/nonexistent/context.json", &context.display().to_string());
    std::fs::write(project.root().join("job.yaml"), text).expect("written");
    let job = project.send("job.yaml");
    assert_eq!(job.vars["month"], "May");
    assert_eq!(job.attachments[0].files.value, "/data/reports/{{ id }}-*.pdf");
    assert_eq!(job.ledger, LedgerUrl::Sqlite("/data/ledger.db".into()));
    assert_eq!((job.relay.connections, job.relay.tls.mode), (10, TlsMode::None));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(600))]

    /// Job files with pieces cut out, doubled, swapped or spoilt: read or refused, never a panic,
    /// every mistake printable, every place within the file.
    #[test]
    fn no_file_makes_us_panic(edits in proptest::collection::vec((0_usize..4000, 0_usize..60, 0_usize..SPOIL.len(), 0_u8..4), 1..6)) {
        let mut text = EVERYTHING.to_owned();
        let boundary = |text: &str, mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        for (at, length, spoil, how) in edits {
            let start = boundary(&text, at % (text.len() + 1));
            let end = boundary(&text, start + length);
            let piece = text[start..end].to_owned();
            match how {
                0 => text.replace_range(start..end, ""),
                1 => text.insert_str(start, &piece),
                2 => text.insert_str(start, SPOIL[spoil]),
                _ => text.replace_range(start..end, SPOIL[spoil]),
            }
        }
        let house = HOUSE.replace("14/s", &text.chars().take(3).collect::<String>());
        let project = Project::new(&[("postroom.yaml", &house), ("job.yaml", &text)]);
        if let Err(mistakes) = project.read("job.yaml") {
            proptest::prop_assert!(!mistakes.is_empty());
            for mistake in &mistakes {
                if let Some(place) = &mistake.place {
                    proptest::prop_assert!(place.span.end <= place.source.len() + 3, "{:?}", place.span);
                    proptest::prop_assert!(place.source.get(place.span.start..place.span.end.min(place.source.len())).is_some());
                }
            }
            proptest::prop_assert!(mistakes.iter().all(|mistake| mistake.exit != crate::exit::Exit::Bug), "{text}");
            diagnostic::print(&mistakes, true);
        }
    }
}

/// What makes trouble in YAML.
const SPOIL: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    ":",
    "- ",
    "*a",
    "&a ",
    "!",
    "!!int ",
    "\"",
    "'",
    "|",
    ">",
    "\n",
    "\n\n  ",
    "\t",
    "#",
    " #",
    "{{",
    "}}",
    "<<: *a\n",
    "~",
    "null",
    "1.10",
    "0x1F",
    "9999999999999999999999",
    ".nan",
    "-.inf",
    "true",
    "---\n",
    "...\n",
    "? ",
    "\u{2028}",
    "\u{85}",
    "\r",
    "\u{feff}",
    "好",
    "\0",
];

#[test]
fn the_samples_hold_no_mistake() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let jobs = std::fs::read_dir(root.join("jobs")).expect("jobs/");
    let mut count = 0;
    for entry in jobs {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            count += 1;
            if let Err(mistakes) = super::read(&path, &Environment::fixed(root, &[])) {
                panic!("{}", diagnostic::print(&mistakes, false));
            }
        }
    }
    assert!(count > 0);
}
