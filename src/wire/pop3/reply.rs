//! A status line: `+OK`, `-ERR`, or `+` in a SASL exchange, with its response code (RFC 2449 §8, RFC 3206).

use crate::mail::acts_on_terminals;
use crate::wire::words::words;

/// RFC 2449 allows 512 octets; a banner may be longer in practice, but must not fill our memory.
pub const MAX_STATUS_LINE: usize = 8 * 1024;

/// What the first word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `+OK`
    Ok,
    /// `-ERR`
    Err,
    /// `+`: the server's turn of a SASL exchange.
    Continue,
}

/// The extended response code in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseCode {
    /// Another session holds the maildrop.
    InUse,
    /// Logged in again too soon.
    LoginDelay,
    /// A trouble that will pass.
    SysTemp,
    /// A trouble that will not.
    SysPerm,
    /// The credentials are wrong.
    Auth,
    /// Any other.
    Other(String),
}

/// A status line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The first word.
    pub status: Status,
    /// The code in brackets, if there is one.
    pub code: Option<ResponseCode>,
    /// What follows, in the server's words.
    pub text: String,
}

/// A line that begins with neither `+OK`, `-ERR` nor `+`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server answered `{0}`, which is no POP3 reply")]
pub struct NotAReply(pub String);

impl Reply {
    /// Reads a line with or without its line end.
    pub fn parse(line: &[u8]) -> Result<Reply, NotAReply> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (word, rest) = match line.iter().position(|&byte| byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let status = if word.eq_ignore_ascii_case(b"+OK") {
            Status::Ok
        } else if word.eq_ignore_ascii_case(b"-ERR") {
            Status::Err
        } else if word == b"+" {
            Status::Continue
        } else {
            return Err(NotAReply(shown(&line[..line.len().min(80)])));
        };
        let text = shown(rest);
        let code = match status {
            Status::Continue => None,
            Status::Ok | Status::Err => response_code(text.trim_start()),
        };
        Ok(Reply { status, code, text })
    }

    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// The first number of the text, as STAT has it and many servers have it after RETR.
    pub fn first_number(&self) -> Option<u64> {
        self.text.split_ascii_whitespace().next()?.parse().ok()
    }

    /// The timestamp of a greeting that allows APOP: `<…@…>`.
    pub fn timestamp(&self) -> Option<&str> {
        let from = self.text.find('<')?;
        let to = from + self.text[from..].find('>')?;
        Some(&self.text[from..=to]).filter(|stamp| stamp.contains('@'))
    }
}

/// The server's words, with what could act on a terminal made visible.
fn shown(bytes: &[u8]) -> String {
    words(bytes).chars().map(|c| if acts_on_terminals(c) { '\u{fffd}' } else { c }).collect()
}

fn response_code(text: &str) -> Option<ResponseCode> {
    let (code, _) = text.strip_prefix('[')?.split_once(']')?;
    let upper = code.trim().to_ascii_uppercase();
    Some(match upper.as_str() {
        "IN-USE" => ResponseCode::InUse,
        "LOGIN-DELAY" => ResponseCode::LoginDelay,
        "AUTH" => ResponseCode::Auth,
        "SYS/TEMP" => ResponseCode::SysTemp,
        "SYS/PERM" => ResponseCode::SysPerm,
        _ if upper.starts_with("SYS/TEMP/") => ResponseCode::SysTemp,
        _ if upper.starts_with("SYS/PERM/") => ResponseCode::SysPerm,
        _ => ResponseCode::Other(upper),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_understood() {
        for (line, expected) in [
            ("+OK\r\n", Some((Status::Ok, None, ""))),
            ("+ok ready\n", Some((Status::Ok, None, "ready"))),
            ("-ERR [IN-USE] busy\r\n", Some((Status::Err, Some(ResponseCode::InUse), "[IN-USE] busy"))),
            ("-ERR [SYS/TEMP/DISK] x", Some((Status::Err, Some(ResponseCode::SysTemp), "[SYS/TEMP/DISK] x"))),
            ("-ERR [auth] no", Some((Status::Err, Some(ResponseCode::Auth), "[auth] no"))),
            ("+ dGVzdA==\r\n", Some((Status::Continue, None, "dGVzdA=="))),
            ("+ ", Some((Status::Continue, None, ""))),
            ("+OKAY", None),
            ("220 smtp.example.com ESMTP", None),
            ("", None),
        ] {
            let reply = Reply::parse(line.as_bytes()).ok();
            let reply = reply.as_ref().map(|reply| (reply.status, reply.code.clone(), reply.text.as_str()));
            assert_eq!(reply, expected, "{line:?}");
        }
    }

    #[test]
    fn a_greeting_may_carry_a_timestamp() {
        let reply = Reply::parse(b"+OK POP3 ready <1896.697170952@dbc.mtview.ca.us>").unwrap();
        assert_eq!(reply.timestamp(), Some("<1896.697170952@dbc.mtview.ca.us>"));
        assert_eq!(Reply::parse(b"+OK <none>").unwrap().timestamp(), None);
    }
}
