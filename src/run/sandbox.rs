//! `postroom sandbox`: the relay and the maildrop as a process of their own, until a signal ends them.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::answer::print;
use crate::cli;
use crate::exit::Exit;
use crate::sandbox::{
    Fault, Maildrop, MaildropOptions, Muddle, Options, Protocol, Relay, Summary, Tls, Uidls,
};
use crate::secret::Secret;
use crate::talk;

/// Where the relay listens if nothing is said. 25 would need privileges and 587 would look real.
const SMTP_PORT: u16 = 2525;

/// Where the maildrop listens if nothing is said.
const POP3_PORT: u16 = 2110;

/// The maildrop's login, name and password, if none is given.
const LOGIN: &str = "sandbox";

/// Listens until SIGINT or SIGTERM, then prints what was seen as a line of JSON for each server.
pub fn run(args: &cli::Sandbox) -> Exit {
    // From here on a signal waits for us to look, so that the ports are closed and the counts are said.
    let signals = Signals::new([SIGINT, SIGTERM]);
    let servers = match Servers::start(args) {
        Ok(servers) => servers,
        Err(Trouble::Usage(reason)) => {
            talk::error(&format!("sandbox: {reason}"));
            return Exit::Usage;
        }
        Err(Trouble::Io(what, error)) => {
            talk::error(&format!("sandbox: {what}: {error}"));
            return Exit::Io;
        }
    };
    for (name, address) in servers.addresses() {
        eprintln!("postroom sandbox: {name} on {address}");
    }
    match signals {
        Ok(mut signals) => {
            signals.forever().next();
        }
        Err(error) => {
            talk::error(&format!("sandbox: cannot wait for signals: {error}"));
            return Exit::Io;
        }
    }
    let said = servers.stop().map(|(name, summary)| {
        let mut line = serde_json::json!(summary);
        line["server"] = name.into();
        print(format!("{line}\n"))
    });
    said.fold(Exit::Done, Exit::or_worse)
}

enum Trouble {
    Usage(String),
    Io(String, io::Error),
}

struct Servers {
    relay: Option<Relay>,
    maildrop: Option<Maildrop>,
}

impl Servers {
    fn start(args: &cli::Sandbox) -> Result<Servers, Trouble> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (smtp, pop) = match (args.smtp, args.pop) {
            (None, None) => (Some(local(SMTP_PORT)), Some(local(POP3_PORT))),
            named => named,
        };
        let login = match args.auth.as_deref().map(|pair| pair.split_once(':')) {
            Some(None) => return Err(Trouble::Usage("--auth is written USER:PASS".to_owned())),
            Some(Some((user, password))) => Some((user.to_owned(), Secret::new(password))),
            None => None,
        };
        let outbox = args.outbox.clone().or_else(|| args.log_file.is_none().then(|| PathBuf::from("outbox")));
        let tls = args.tls.as_ref().or(args.starttls.as_ref()).map(|folder| Tls {
            folder: folder.clone(),
            implicit: args.tls.is_some(),
            required: args.require_tls,
        });
        let rules = |rules: &[String], protocol| {
            rules
                .iter()
                .map(|rule| Fault::parse(rule, protocol, args.seed))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|bad| Trouble::Usage(bad.to_string()))
        };
        let mut servers = Servers { relay: None, maildrop: None };
        if let Some(listen) = smtp {
            let options = Options {
                listen,
                outbox: outbox.clone(),
                log: args.log_file.clone(),
                hide: args.hide.clone(),
                size: usize::try_from(args.size.0).unwrap_or(usize::MAX),
                tls: tls.clone(),
                auth: login.clone(),
                max_connections: args.max_connections,
                faults: rules(&args.fault, Protocol::Smtp)?,
                ..Options::default()
            };
            let started = Relay::start(options);
            servers.relay = Some(started.map_err(|error| Trouble::Io(format!("relay on {listen}"), error))?);
        }
        if let Some(listen) = pop {
            let Some(folder) = args.maildrop.clone().or(outbox) else {
                return Err(Trouble::Usage("--pop needs --maildrop or --outbox".to_owned()));
            };
            let (user, password) = login.unwrap_or_else(|| (LOGIN.to_owned(), Secret::new(LOGIN)));
            let options = MaildropOptions {
                listen,
                log: args.log_file.clone(),
                tls,
                apop: args.apop,
                hide: args.hide.clone(),
                uidls: uidls(args.uidls),
                muddle: muddle(args.muddle),
                wrong_sizes: args.wrong_sizes,
                faults: rules(&args.pop_fault, Protocol::Pop3)?,
                ..MaildropOptions::new(folder, &user, password)
            };
            let started = Maildrop::start(options);
            servers.maildrop =
                Some(started.map_err(|error| Trouble::Io(format!("maildrop on {listen}"), error))?);
        }
        if let Some(path) = &args.port_file {
            servers
                .write_ports(path)
                .map_err(|error| Trouble::Io(format!("cannot write {}", path.display()), error))?;
        }
        Ok(servers)
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let relay = self.relay.as_ref().map(|relay| ("smtp", relay.address()));
        relay.into_iter().chain(self.maildrop.as_ref().map(|maildrop| ("pop3", maildrop.address())))
    }

    /// A reader must never see half a file, so it gets its name when it is whole.
    fn write_ports(&self, path: &Path) -> io::Result<()> {
        let lines: String =
            self.addresses().map(|(name, address)| format!("{name} {}\n", address.port())).collect();
        let part = path.with_extension("part");
        fs::write(&part, lines)?;
        fs::rename(part, path)
    }

    fn stop(self) -> impl Iterator<Item = (&'static str, Summary)> {
        let relay = self.relay.map(|relay| ("smtp", relay.stop()));
        relay.into_iter().chain(self.maildrop.map(|maildrop| ("pop3", maildrop.stop())))
    }
}

fn uidls(word: cli::Uidls) -> Uidls {
    match word {
        cli::Uidls::Stable => Uidls::Stable,
        cli::Uidls::Changed => Uidls::Changed,
        cli::Uidls::Duplicate => Uidls::Duplicate,
        cli::Uidls::Missing => Uidls::Missing,
    }
}

fn muddle(word: cli::Muddle) -> Muddle {
    match word {
        cli::Muddle::None => Muddle::None,
        cli::Muddle::Lose => Muddle::Lose,
        cli::Muddle::Refuse => Muddle::Refuse,
        cli::Muddle::Close => Muddle::Close,
    }
}
