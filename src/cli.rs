//! What may be typed, and nothing else: the command line as values. What a command does is `run`'s affair.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::exit::{self, Exit};
use crate::mail::EmailAddress;
use crate::measure;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "postroom",
    version,
    about = "Sends letters to a list, each once, and archives mailboxes, byte for byte",
    long_about = None,
    disable_help_subcommand = true,
    propagate_version = false,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What is asked.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Say only what went wrong
    #[arg(long, short, global = true, display_order = 900)]
    pub quiet: bool,
    /// How progress and warnings are written on stderr: text or json
    #[arg(long, global = true, value_name = "FORM", value_enum, default_value_t = LogForm::Text)]
    #[arg(hide_possible_values = true, display_order = 901)]
    pub log: LogForm,
    /// When to use colour: auto, always or never
    #[arg(long, alias = "colour", global = true, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    #[arg(hide_possible_values = true, display_order = 902)]
    pub color: Colour,
}

/// `--log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `--color`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Whether to colour what goes to stderr.
    pub fn on_stderr(self) -> bool {
        self.resolve(std::io::IsTerminal::is_terminal(&std::io::stderr()))
    }

    fn resolve(self, terminal: bool) -> bool {
        let refused = || {
            std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
        };
        match self {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !refused(),
        }
    }
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a small project that runs at once
    Init(Init),
    /// Find every mistake and show the plan; connects to nothing unless asked
    Check(Check),
    /// Do what the jobs say; takes up again what was left
    Run(Run),
    /// Stop a running job; the next `run` takes it up again
    Stop(Flag),
    /// Hold a job: a running one waits, a new run waits too
    Pause(Flag),
    /// Let a paused job go on
    Resume(Flag),
    /// Say what became of everyone
    Report(Report),
    /// Put recipients with an outcome back to pending
    Requeue(Requeue),
    /// Take a person's data out of the ledger
    Forget(Forget),
    /// Take old editions out of the ledger
    Prune(Prune),
    /// Show a message as a person reads it
    Show(Show),
    /// Prove an archive: files, journal, manifest, index
    Verify(Verify),
    /// Search an archive
    Find(Find),
    /// Pack an archive for others
    Export(Export),
    /// Remake what is derived from an archive's journal, and mend a journal that lost lines
    Rebuild(Rebuild),
    /// A relay and a maildrop on loopback, for trying out and for tests
    Sandbox(Sandbox),
    /// Print the JSON Schema of the job file, for editors
    Schema(Schema),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write one for every command into a folder
    Man(Man),
}

/// `postroom init`
#[derive(Debug, Args)]
pub struct Init {
    /// Where to; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// `postroom check`
#[derive(Debug, Args)]
pub struct Check {
    /// The job files
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// Also log in at the relay or the mailbox, and say what an archive would do
    #[arg(long)]
    pub connect: bool,
    /// A bad row is a mistake of the whole job
    #[arg(long)]
    pub strict: bool,
    /// Show the dialogues of `--connect` on stderr, secrets masked
    #[arg(long, requires = "connect")]
    pub trace: bool,
}

/// `postroom run`
#[derive(Debug, Args)]
pub struct Run {
    /// The job files, one after the other
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<PathBuf>,
    /// To a relay (or from a maildrop) of our own on loopback; letters lie in outbox/ as .eml
    #[arg(long)]
    pub sandbox: bool,
    /// All letters to this address instead, by the job's relay
    #[arg(long, value_name = "ADDR", conflicts_with = "sandbox")]
    pub to: Option<EmailAddress>,
    /// At most so many letters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Only the recipient with this key; may be given several times
    #[arg(long, value_name = "KEY")]
    pub only: Vec<String>,
    /// Finish the edition of this name instead of the job's
    #[arg(long, value_name = "E", conflicts_with = "new_edition")]
    pub edition: Option<String>,
    /// Begin the job's edition though an older one is unfinished; that one stays as it is
    #[arg(long)]
    pub new_edition: bool,
    /// Go on with an edition though what the reader sees has changed since it was begun
    #[arg(long)]
    pub accept_changes: bool,
    /// Do not ask before sending
    #[arg(long, short)]
    pub yes: bool,
    /// Show the dialogue with the server on stderr, secrets masked
    #[arg(long)]
    pub trace: bool,
    /// Write what became of everyone to this file: .html, .json or .csv
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    pub report: Option<PathBuf>,
    /// One bad row, and nothing is sent
    #[arg(long)]
    pub strict: bool,
    /// Delete so many messages on the server, though they are more than `max_fraction` allows at once
    #[arg(long, value_name = "N")]
    pub confirm_deletions: Option<u64>,
}

/// `postroom stop`, `pause`, `resume`
#[derive(Debug, Args)]
pub struct Flag {
    /// The job file
    #[arg(value_name = "JOB")]
    pub job: PathBuf,
}

/// `postroom report`
#[derive(Debug, Args)]
pub struct Report {
    /// The job file
    #[arg(value_name = "JOB")]
    pub job: PathBuf,
    /// As a table for people, a page for a browser, JSON, or CSV with a line for each recipient
    #[arg(long, value_name = "FORM", value_enum, default_value_t = ReportForm::Table)]
    pub format: ReportForm,
    /// This edition; otherwise the newest
    #[arg(long, value_name = "E")]
    pub edition: Option<String>,
    /// Of the last trial with `run --sandbox`
    #[arg(long, conflicts_with = "to")]
    pub sandbox: bool,
    /// Of the last trial with `run --to`
    #[arg(long)]
    pub to: bool,
    /// Only recipients with this outcome; may be given several times
    #[arg(long, value_name = "OUTCOME", value_enum)]
    pub outcome: Vec<ReportOutcome>,
    /// Show the counts again every second until the edition is finished
    #[arg(long)]
    pub watch: bool,
    /// Print exactly what the recipient with this key got
    #[arg(long, value_name = "KEY", conflicts_with_all = ["watch", "outcome"])]
    pub letter: Option<String>,
}

/// `--format` of `report`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For people.
    Table,
    /// A page for a browser.
    Html,
    /// One JSON document.
    Json,
    /// One line for each recipient.
    Csv,
}

/// `--outcome` of `report`: where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportOutcome {
    /// To be sent.
    Pending,
    /// Content may be on the wire.
    Sending,
    /// The relay has it.
    Accepted,
    /// The relay will not have it.
    Refused,
    /// To be tried again.
    Deferred,
    /// Could not be made or sent.
    Failed,
    /// Content was sent and no reply came.
    Unsure,
    /// Suppressed, filtered, duplicate or removed.
    Skipped,
}

impl ReportOutcome {
    /// The word used in ledger, reports and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            ReportOutcome::Pending => "pending",
            ReportOutcome::Sending => "sending",
            ReportOutcome::Accepted => "accepted",
            ReportOutcome::Refused => "refused",
            ReportOutcome::Deferred => "deferred",
            ReportOutcome::Failed => "failed",
            ReportOutcome::Unsure => "unsure",
            ReportOutcome::Skipped => "skipped",
        }
    }
}

/// `postroom requeue`
#[derive(Debug, Args)]
pub struct Requeue {
    /// The job file
    #[arg(value_name = "JOB")]
    pub job: PathBuf,
    /// Those with this outcome; may be given several times
    #[arg(long, value_name = "OUTCOME", value_enum, required_unless_present = "only")]
    pub outcome: Vec<RequeueOutcome>,
    /// Only the recipient with this key; may be given several times
    #[arg(long, value_name = "KEY")]
    pub only: Vec<String>,
    /// This edition; otherwise the newest
    #[arg(long, value_name = "E")]
    pub edition: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `--outcome` of `requeue`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RequeueOutcome {
    /// The relay would not have it.
    Refused,
    /// Content was sent and no reply came: they may get it twice.
    Unsure,
    /// Could not be made or sent.
    Failed,
    /// To be tried again: now instead of later.
    Deferred,
    /// Was on a suppress list: who is still on one is skipped again.
    Skipped,
    /// The relay has it: they will get it twice.
    Accepted,
}

impl RequeueOutcome {
    /// The word used in ledger, reports and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            RequeueOutcome::Refused => "refused",
            RequeueOutcome::Unsure => "unsure",
            RequeueOutcome::Failed => "failed",
            RequeueOutcome::Deferred => "deferred",
            RequeueOutcome::Skipped => "skipped",
            RequeueOutcome::Accepted => "accepted",
        }
    }
}

/// `postroom forget`
#[derive(Debug, Args)]
pub struct Forget {
    /// The person's mail address
    #[arg(value_name = "ADDRESS")]
    pub address: EmailAddress,
    /// In this job's ledger; otherwise in the one of the project we stand in
    #[arg(long, value_name = "JOB")]
    pub job: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `postroom prune`
#[derive(Debug, Args)]
pub struct Prune {
    /// Editions finished longer ago than this: 30d, 12w, 1y
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older: Duration,
    /// In this job's ledger; otherwise in the one of the project we stand in
    #[arg(long, value_name = "JOB")]
    pub job: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `postroom show`
#[derive(Debug, Args)]
pub struct Show {
    /// The message
    #[arg(value_name = "FILE.eml")]
    pub file: PathBuf,
    /// Write its parts into this folder, under safe names
    #[arg(long, value_name = "DIR")]
    pub extract: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `postroom verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The archive
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// Also against what the mailbox of this job lists
    #[arg(long, value_name = "JOB")]
    pub server: Option<PathBuf>,
}

/// `postroom find`
#[derive(Debug, Args)]
pub struct Find {
    /// The archive
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// Words (`rep*`: beginnings), and `from:` `to:` `subject:` `file:` `after:` `before:` `has:attachment`
    #[arg(value_name = "WORDS", required = true)]
    pub words: Vec<String>,
    /// Print as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// `postroom export`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("form").required(true).args(["mbox", "maildir", "bagit"])))]
pub struct Export {
    /// The archive
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// One mbox file (RFC 4155, mboxrd quoting)
    #[arg(long, value_name = "OUT")]
    pub mbox: Option<PathBuf>,
    /// A Maildir
    #[arg(long, value_name = "OUT")]
    pub maildir: Option<PathBuf>,
    /// A BagIt bag (RFC 8493)
    #[arg(long, value_name = "OUT")]
    pub bagit: Option<PathBuf>,
}

/// `postroom rebuild`
#[derive(Debug, Args)]
pub struct Rebuild {
    /// The archive
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
}

/// `postroom sandbox`
#[derive(Debug, Args)]
#[command(after_long_help = crate::sandbox::GRAMMAR)]
pub struct Sandbox {
    /// SMTP on this loopback address; port 0 takes a free one [127.0.0.1:2525 without --pop]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub smtp: Option<SocketAddr>,
    /// POP3 on this loopback address; port 0 takes a free one [127.0.0.1:2110 without --smtp]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub pop: Option<SocketAddr>,
    /// Keep every accepted message in this folder as .eml [outbox, unless --log-file is given]
    #[arg(long, value_name = "DIR")]
    pub outbox: Option<PathBuf>,
    /// Write a line of JSON about every accepted message, login and applied rule to this file
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// The relay goes wrong on purpose, by a rule; may be given several times
    #[arg(long, value_name = "RULE")]
    pub fault: Vec<String>,
    /// The maildrop goes wrong on purpose, by a rule; may be given several times
    #[arg(long, value_name = "RULE")]
    pub pop_fault: Vec<String>,
    /// What makes `chance=` in rules repeatable
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the ports here once they are open: a line `smtp PORT`, a line `pop3 PORT`
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// TLS from the first byte, with cert.pem and key.pem of this folder
    #[arg(long, value_name = "DIR", conflicts_with = "starttls")]
    pub tls: Option<PathBuf>,
    /// Offer STARTTLS and STLS, with cert.pem and key.pem of this folder
    #[arg(long, value_name = "DIR")]
    pub starttls: Option<PathBuf>,
    /// Refuse mail and logins in clear text
    #[arg(long, requires = "starttls")]
    pub require_tls: bool,
    /// Ask for this login [for POP3: sandbox:sandbox]
    #[arg(long, value_name = "USER:PASS")]
    pub auth: Option<String>,
    /// Do not offer these extensions, as EHLO and CAPA name them: CHUNKING,PIPELINING
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub hide: Vec<String>,
    /// The largest message the relay accepts
    #[arg(long, value_name = "SIZE", default_value = "100MiB", value_parser = size)]
    pub size: measure::ByteSize,
    /// Answer 421 to connections over this number
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub max_connections: usize,
    /// The .eml files of this folder are what the POP3 mailbox holds [the outbox]
    #[arg(long, value_name = "DIR")]
    pub maildrop: Option<PathBuf>,
    /// Offer APOP
    #[arg(long)]
    pub apop: bool,
    /// What UIDL says
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Uidls::Stable)]
    pub uidls: Uidls,
    /// How POP3 fails at the pipelining it offers
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Muddle::None)]
    pub muddle: Muddle,
    /// STAT and LIST say wrong sizes
    #[arg(long)]
    pub wrong_sizes: bool,
}

/// `--uidls`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Uidls {
    /// One for each message, the same in every session
    Stable,
    /// Others in each session
    Changed,
    /// Pairs of messages share one
    Duplicate,
    /// The command is not known
    Missing,
}

/// `--muddle`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Muddle {
    /// It does not fail
    None,
    /// What arrives together with a command is thrown away
    Lose,
    /// What arrives together with a command is answered with -ERR
    Refuse,
    /// A command that does not come alone closes the connection
    Close,
}

/// `postroom schema`
#[derive(Debug, Args)]
pub struct Schema {}

/// `postroom completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// `postroom man`
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for every command into this folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Cli {
    /// Reads the process's arguments. Where they end it at once (help, version, a mistake), that has
    /// been printed and the exit code is returned: a mistake ends with 64, not with clap's 2.
    pub fn from_args() -> Result<Cli, Exit> {
        Cli::read(std::env::args_os()).map_err(|error| {
            match (exit_of(&error), error.print()) {
                // A closed pipe is a quiet end.
                (Exit::Done, Err(lost)) if lost.kind() != std::io::ErrorKind::BrokenPipe => Exit::Io,
                (exit, _) => exit,
            }
        })
    }

    /// Reads arguments; the first is the program's name.
    pub fn read<I>(args: I) -> Result<Cli, clap::Error>
    where
        I: IntoIterator,
        I::Item: Into<OsString> + Clone,
    {
        Cli::try_parse_from(args)
    }

    /// The command line as clap sees it.
    pub fn definition() -> clap::Command {
        Cli::command()
    }

    /// A completion script for a shell.
    pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::definition(), "postroom", &mut script);
        script
    }

    /// Manual pages by their names: `postroom` first, then one for every command.
    pub fn manual() -> std::io::Result<Vec<(String, Vec<u8>)>> {
        let mut root = Cli::definition();
        root.build();
        let commands = root.get_subcommands().cloned().map(|command| {
            // clap wants a name that lives as long as the program; there are twenty of them.
            let name: &'static str = format!("postroom-{}", command.get_name()).leak();
            command.name(name)
        });
        std::iter::once(root.clone())
            .chain(commands)
            .map(|command| {
                let (name, mut page) = (command.get_name().to_owned(), Vec::new());
                clap_mangen::Man::new(command).render(&mut page)?;
                page.extend_from_slice(exit_status().as_bytes());
                Ok((name, page))
            })
            .collect()
    }
}

/// The section of a manual page about exit codes.
fn exit_status() -> String {
    let code = |(code, meaning): &(&str, &str)| format!(".TP\n{code}\n{meaning}\n");
    format!(".SH \"EXIT STATUS\"\n{}", exit::MEANINGS.iter().map(code).collect::<String>())
}

/// How the process ends when the arguments were not a command to carry out.
pub fn exit_of(error: &clap::Error) -> Exit {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    }
}

fn age(text: &str) -> Result<Duration, String> {
    measure::duration(text).ok_or_else(|| "an age has a unit: 30d, 12w, 1y".to_owned())
}

fn report_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "json" | "csv") => Ok(path),
        _ => Err("its name says the form: it ends in .html, .json or .csv".to_owned()),
    }
}

/// The sandbox takes mail from anybody: it must not be reachable from elsewhere.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let full = if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    } else {
        text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"))
    };
    let address: SocketAddr =
        full.parse().map_err(|_| "an address is written 127.0.0.1:2525 or [::1]:2525".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("the sandbox listens on loopback only: 127.0.0.1 or [::1]".to_owned()),
    }
}

fn size(text: &str) -> Result<measure::ByteSize, String> {
    measure::ByteSize::parse(text).ok_or_else(|| "a size is written 500, 25MB or 10MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::definition().debug_assert();
    }

    #[test]
    fn the_manual_and_the_readme_tell_the_same_exit_codes() {
        let readme = include_str!("../README.md");
        for (code, meaning) in exit::MEANINGS {
            assert!(readme.contains(&format!("| {code} | {meaning} |")), "{code}");
        }
        for (name, page) in Cli::manual().expect("pages") {
            let page = String::from_utf8(page).expect("text");
            assert!(page.contains(".SH \"EXIT STATUS\"\n.TP\n0\nall that was asked is done\n"), "{name}");
        }
    }

    #[test]
    fn a_mistake_ends_with_64_and_a_question_with_0() {
        for (line, exit) in [
            ("postroom run jobs/a.yaml", None),
            (
                "postroom run --sandbox a.yaml b.yaml --limit 3 --only a@b.c --only x --yes --trace --strict",
                None,
            ),
            (
                "postroom run a.yaml --to me@example.org --edition 2026-11 --report out.csv -q --log json",
                None,
            ),
            ("postroom check a.yaml --json --connect", None),
            ("postroom report a.yaml --format csv --outcome refused --outcome unsure", None),
            ("postroom report a.yaml --letter 张伟", None),
            ("postroom requeue a.yaml --outcome unsure --yes", None),
            ("postroom forget ada@example.org", None),
            ("postroom prune --older 1y", None),
            ("postroom init", None),
            ("postroom show a.eml --extract out --json", None),
            ("postroom verify store --server a.yaml", None),
            ("postroom find store 发票 from:ada", None),
            ("postroom export store --mbox out.mbox", None),
            ("postroom rebuild store", None),
            (
                "postroom sandbox --smtp 127.0.0.1:0 --pop [::1]:0 --fault rcpt:3=550 --log-file x --auth a:b",
                None,
            ),
            ("postroom sandbox --smtp 2525 --outbox outbox", None),
            ("postroom completions bash", None),
            ("postroom man", None),
            ("postroom schema", None),
            ("postroom --help", Some(Exit::Done)),
            ("postroom run --help", Some(Exit::Done)),
            ("postroom --version", Some(Exit::Done)),
            ("postroom", Some(Exit::Usage)),
            ("postroom rnu", Some(Exit::Usage)),
            ("postroom run", Some(Exit::Usage)),
            ("postroom run a.yaml --limit 0", Some(Exit::Usage)),
            ("postroom run a.yaml --to nobody", Some(Exit::Usage)),
            ("postroom run a.yaml --report out.txt", Some(Exit::Usage)),
            ("postroom run a.yaml --to a@b.c --sandbox", Some(Exit::Usage)),
            ("postroom run a.yaml --edition x --new-edition", Some(Exit::Usage)),
            ("postroom requeue a.yaml", Some(Exit::Usage)),
            ("postroom requeue a.yaml --outcome pending", Some(Exit::Usage)),
            ("postroom forget ada", Some(Exit::Usage)),
            ("postroom prune", Some(Exit::Usage)),
            ("postroom prune --older 30", Some(Exit::Usage)),
            ("postroom export store", Some(Exit::Usage)),
            ("postroom export store --mbox a --bagit b", Some(Exit::Usage)),
            ("postroom sandbox --smtp 0.0.0.0:25", Some(Exit::Usage)),
            ("postroom find store", Some(Exit::Usage)),
        ] {
            let read = Cli::read(line.split(' '));
            assert_eq!(read.err().map(|error| exit_of(&error)), exit, "{line}");
        }
    }
}
