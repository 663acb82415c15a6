//! A display name and an address (RFC 5322 §3.4).

use std::fmt;
use std::str::FromStr;

use super::{EmailAddress, NotAnAddress};

/// A mailbox: who, by name and address. The name is decoded text of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, decoded; never empty.
    pub name: Option<String>,
    /// The address.
    pub address: EmailAddress,
}

/// Why a text is not a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAMailbox {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] NotAnAddress),
    /// CR, LF, NUL or another control character in the name.
    #[error("the name holds a line break or another control character")]
    NameControl,
    /// A `<` without its `>`, or something behind it.
    #[error("`{0}` is not `Name <address>`")]
    Form(String),
}

impl Mailbox {
    /// A mailbox of a name, which may be empty, and an address.
    pub fn new(name: &str, address: EmailAddress) -> Result<Mailbox, NotAMailbox> {
        let name = name.trim();
        if name.chars().any(char::is_control) {
            return Err(NotAMailbox::NameControl);
        }
        Ok(Mailbox { name: (!name.is_empty()).then(|| name.to_owned()), address })
    }
}

/// Reads `Name <address>`, `"Name, Jr." <address>` or a bare address.
impl FromStr for Mailbox {
    type Err = NotAMailbox;

    fn from_str(text: &str) -> Result<Self, NotAMailbox> {
        let text = text.trim();
        let Some(start) = text.rfind('<') else { return Ok(Mailbox { name: None, address: text.parse()? }) };
        let address =
            text[start + 1..].strip_suffix('>').ok_or_else(|| NotAMailbox::Form(text.to_owned()))?;
        let name = text[..start].trim();
        let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        match unquoted {
            Some(quoted) => {
                Mailbox::new(&quoted.replace("\\\"", "\"").replace("\\\\", "\\"), address.parse()?)
            }
            None => Mailbox::new(name, address.parse()?),
        }
    }
}

/// For people and logs; headers are the composer's affair.
impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_are_read() {
        for (text, name, address) in [
            ("Postroom News <news@example.com>", Some("Postroom News"), "news@example.com"),
            ("\"Doe, Jane\" <jane@example.com>", Some("Doe, Jane"), "jane@example.com"),
            ("news@example.com", None, "news@example.com"),
            ("<news@example.com>", None, "news@example.com"),
            ("张伟 <zhang@example.cn>", Some("张伟"), "zhang@example.cn"),
        ] {
            let mailbox: Mailbox = text.parse().expect(text);
            assert_eq!((mailbox.name.as_deref(), mailbox.address.as_str()), (name, address));
        }
        assert!("a\r\nBcc: x <a@b.c>".parse::<Mailbox>().is_err());
        assert!("a <a@b.c> x".parse::<Mailbox>().is_err());
    }
}
