//! What CAPA lists (RFC 2449).

/// The capabilities of one server, before or after login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// TOP
    pub top: bool,
    /// UIDL
    pub uidl: bool,
    /// USER
    pub user: bool,
    /// PIPELINING
    pub pipelining: bool,
    /// STLS
    pub stls: bool,
    /// RESP-CODES
    pub response_codes: bool,
    /// UTF8 (RFC 6856)
    pub utf8: bool,
    /// LOGIN-DELAY: seconds between logins.
    pub login_delay: Option<u64>,
    /// EXPIRE: days that messages stay; `Some(None)` is NEVER.
    pub expire: Option<Option<u32>>,
    /// SASL mechanisms, upper case.
    pub sasl: Vec<String>,
    /// IMPLEMENTATION
    pub implementation: Option<String>,
}

impl Capabilities {
    /// Notes one line of the list; unknown ones are passed over.
    pub fn note(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace();
        let Some(tag) = words.next() else { return };
        match tag.to_ascii_uppercase().as_str() {
            "TOP" => self.top = true,
            "UIDL" => self.uidl = true,
            "USER" => self.user = true,
            "PIPELINING" => self.pipelining = true,
            "STLS" => self.stls = true,
            "RESP-CODES" => self.response_codes = true,
            "UTF8" => self.utf8 = true,
            "LOGIN-DELAY" => self.login_delay = words.next().and_then(|word| word.parse().ok()),
            "EXPIRE" => self.expire = words.next().map(|word| word.parse().ok()),
            "SASL" => self.sasl.extend(words.take(MAX_MECHANISMS).map(str::to_ascii_uppercase)),
            "IMPLEMENTATION" => self.implementation = Some(words.collect::<Vec<_>>().join(" ")),
            _ => {}
        }
    }
}

/// More mechanisms than exist; a list without end must not be kept.
const MAX_MECHANISMS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_noted_whatever_their_case() {
        let mut capabilities = Capabilities::default();
        for line in [
            "TOP",
            "pipelining",
            "SASL PLAIN xoauth2",
            "EXPIRE NEVER",
            "LOGIN-DELAY 900 USER",
            "X-OTHER",
            "",
            "IMPLEMENTATION Shlemazle-Plotz v302",
        ] {
            capabilities.note(line.as_bytes());
        }
        assert_eq!(
            capabilities,
            Capabilities {
                top: true,
                pipelining: true,
                sasl: vec!["PLAIN".into(), "XOAUTH2".into()],
                expire: Some(None),
                login_delay: Some(900),
                implementation: Some("Shlemazle-Plotz v302".into()),
                ..Capabilities::default()
            }
        );
    }
}
