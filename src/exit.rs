//! How the process ends. The numbers follow sysexits, so that a script can tell "again later"
//! from "mend it"; they are part of what we promise.

use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All that was asked is done.
    Done = 0,
    /// Done, but some recipients were refused, failed or are unsure, or some messages could not be archived.
    SomeFailed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// The recipients' data is wrong (`--strict`, or more bad rows than `max_bad`).
    Data = 65,
    /// An input file is missing.
    NoInput = 66,
    /// The relay, mailbox or database cannot be reached, or the relay refuses the sender.
    Unavailable = 69,
    /// Our own mistake.
    Bug = 70,
    /// A disk or file could not be read or written.
    Io = 74,
    /// Deferred recipients are left: run again.
    Again = 75,
    /// The server broke the protocol.
    Protocol = 76,
    /// The server did not accept the login.
    Login = 77,
    /// There are mistakes in the job file.
    Job = 78,
    /// Stopped by SIGHUP, its terminal went away; everything is recorded.
    HungUp = 129,
    /// Stopped by SIGINT; everything is recorded.
    Interrupted = 130,
    /// Stopped by SIGTERM; everything is recorded.
    Terminated = 143,
}

/// The codes and what they mean, as README and manual have them.
pub const MEANINGS: &[(&str, &str)] = &[
    ("0", "all that was asked is done"),
    (
        "1",
        "done, but some recipients were refused, failed or are unsure, or some messages could not be archived",
    ),
    ("64", "the command line is wrong, or nobody is there to say yes"),
    (
        "65",
        "the recipients' data is wrong (`--strict`, or more bad rows than `max_bad`), nothing was sent; or what `show` is given is no message",
    ),
    ("66", "an input file is missing: a list, a certificate, the file of a password"),
    ("69", "relay or mailbox cannot be reached or does not answer, or the relay refuses the sender"),
    ("70", "our own mistake"),
    ("74", "a disk or file could not be read or written"),
    ("75", "deferred recipients are left, or other runs have all connections of the account: run again"),
    ("76", "the server broke the protocol"),
    ("77", "the login was refused, or its password cannot be had"),
    ("78", "mistakes in the job file; nothing was sent"),
    ("129, 130, 143", "stopped by SIGHUP, SIGINT, SIGTERM; everything is recorded"),
];

impl Exit {
    /// The end of two things that were done: what asks for a person comes before what asks for patience.
    #[must_use]
    pub fn or_worse(self, other: Exit) -> Exit {
        if other.urgency() > self.urgency() { other } else { self }
    }

    fn urgency(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::SomeFailed => 1,
            Exit::Again => 2,
            Exit::Unavailable => 3,
            Exit::Protocol => 4,
            Exit::Login => 5,
            Exit::Usage | Exit::Data | Exit::NoInput | Exit::Job => 6,
            Exit::Io => 7,
            Exit::Bug => 8,
            Exit::HungUp | Exit::Interrupted | Exit::Terminated => 9,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_a_person_comes_first() {
        for (one, other, worse) in [
            (Exit::Done, Exit::SomeFailed, Exit::SomeFailed),
            (Exit::SomeFailed, Exit::Again, Exit::Again),
            (Exit::Again, Exit::Io, Exit::Io),
            (Exit::Unavailable, Exit::Login, Exit::Login),
            (Exit::Job, Exit::Again, Exit::Job),
            (Exit::Io, Exit::Terminated, Exit::Terminated),
        ] {
            assert_eq!(one.or_worse(other), worse);
            assert_eq!(other.or_worse(one), worse);
        }
    }
}
