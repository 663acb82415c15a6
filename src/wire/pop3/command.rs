//! What a client may say.

use std::fmt;

/// One command line (RFC 1939 §3).
#[derive(Clone, Copy)]
pub enum Command<'a> {
    /// What the server can do (RFC 2449).
    Capa,
    /// Begin TLS (RFC 2595).
    Stls,
    /// The name of the maildrop.
    User(&'a str),
    /// Its password.
    Pass(&'a str),
    /// Name and digest of the greeting's timestamp with the password.
    Apop(&'a str, &'a str),
    /// A SASL mechanism, with the initial response already in base64 (RFC 5034).
    Auth(&'a str, Option<&'a str>),
    /// A line of a SASL exchange, already in base64; `*` gives up.
    SaslLine(&'a str),
    /// Count and octets.
    Stat,
    /// The size of every message.
    List,
    /// The identity of every message.
    Uidl,
    /// The header and so many lines of the body.
    Top(u32, u32),
    /// A whole message.
    Retr(u32),
    /// Mark as deleted; QUIT does it.
    Dele(u32),
    /// Take all marks back.
    Rset,
    /// Nothing.
    Noop,
    /// End the session and delete what is marked.
    Quit,
}

/// An argument with a control character or a space where none may be: it would become another command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name or password for POP3 holds a line end or a control character")]
pub struct NotALine;

impl Command<'_> {
    /// Appends the line with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), NotALine> {
        let line = match *self {
            Command::User(text)
            | Command::Pass(text)
            | Command::SaslLine(text)
            | Command::Apop(text, _)
            | Command::Auth(_, Some(text))
                if text.chars().any(|c| c.is_ascii_control()) =>
            {
                return Err(NotALine);
            }
            // The digest is the word after the last space of the name, so a space there would move it.
            Command::Apop(user, _) if user.contains(' ') => return Err(NotALine),
            other => other.to_string(),
        };
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// What may be shown of a line that holds a secret: what comes before it. `None`: all of it.
    pub fn before_secret(&self) -> Option<String> {
        match self {
            Command::Pass(_) => Some("PASS".to_owned()),
            Command::Apop(user, _) => Some(format!("APOP {user}")),
            Command::Auth(mechanism, Some(_)) => Some(format!("AUTH {mechanism}")),
            Command::SaslLine(_) => Some(String::new()),
            _ => None,
        }
    }

    /// What must not be shown of it.
    pub fn secret(&self) -> Option<&str> {
        match *self {
            Command::Pass(secret) | Command::Apop(_, secret) | Command::SaslLine(secret) => Some(secret),
            Command::Auth(_, secret) => secret,
            _ => None,
        }
    }

    /// The command's word, as an error names it.
    pub fn word(&self) -> &'static str {
        match self {
            Command::Capa => "CAPA",
            Command::Stls => "STLS",
            Command::User(_) => "USER",
            Command::Pass(_) => "PASS",
            Command::Apop(..) => "APOP",
            Command::Auth(..) | Command::SaslLine(_) => "AUTH",
            Command::Stat => "STAT",
            Command::List => "LIST",
            Command::Uidl => "UIDL",
            Command::Top(..) => "TOP",
            Command::Retr(_) => "RETR",
            Command::Dele(_) => "DELE",
            Command::Rset => "RSET",
            Command::Noop => "NOOP",
            Command::Quit => "QUIT",
        }
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Capa => f.write_str("CAPA"),
            Command::Stls => f.write_str("STLS"),
            Command::User(name) => write!(f, "USER {name}"),
            Command::Pass(password) => write!(f, "PASS {password}"),
            Command::Apop(name, digest) => write!(f, "APOP {name} {digest}"),
            Command::Auth(mechanism, None) => write!(f, "AUTH {mechanism}"),
            Command::Auth(mechanism, Some(initial)) => write!(f, "AUTH {mechanism} {initial}"),
            Command::SaslLine(text) => f.write_str(text),
            Command::Stat => f.write_str("STAT"),
            Command::List => f.write_str("LIST"),
            Command::Uidl => f.write_str("UIDL"),
            Command::Top(number, lines) => write!(f, "TOP {number} {lines}"),
            Command::Retr(number) => write!(f, "RETR {number}"),
            Command::Dele(number) => write!(f, "DELE {number}"),
            Command::Rset => f.write_str("RSET"),
            Command::Noop => f.write_str("NOOP"),
            Command::Quit => f.write_str("QUIT"),
        }
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before_secret() {
            Some(before) => write!(f, "`{before} ****`"),
            None => write!(f, "`{self}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_can_be_smuggled_in() {
        for (command, expected) in [
            (Command::User("ada@example.org"), Some("USER ada@example.org\r\n")),
            (Command::Pass("two words"), Some("PASS two words\r\n")),
            (Command::User("ada\r\nDELE 1"), None),
            (Command::Pass("x\ny"), None),
            (Command::Apop("ada lovelace", "00"), None),
            (Command::Auth("PLAIN", Some("AGE=")), Some("AUTH PLAIN AGE=\r\n")),
            (Command::Top(3, 0), Some("TOP 3 0\r\n")),
        ] {
            let mut out = Vec::new();
            let written = command.write(&mut out).ok().map(|()| String::from_utf8_lossy(&out).into_owned());
            assert_eq!(written.as_deref(), expected, "{command:?}");
        }
    }

    #[test]
    fn a_password_is_masked() {
        assert_eq!(format!("{:?}", Command::Pass("hunter2")), "`PASS ****`");
        assert_eq!(format!("{:?}", Command::Auth("PLAIN", Some("AGE="))), "`AUTH PLAIN ****`");
    }
}
