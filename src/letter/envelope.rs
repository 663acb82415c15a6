//! The SMTP envelope (RFC 5321 §2.3.1): reverse-path and recipients, not headers.

use std::borrow::Cow;
use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::mail::EmailAddress;

/// Who sends and who receives, as MAIL and RCPT say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path; `None` is the null path `<>`.
    pub reverse_path: Option<EmailAddress>,
    /// The forward-paths, in order, each once.
    pub recipients: Vec<EmailAddress>,
}

/// What a recipient is known by in the ledger: one letter for each key and edition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecipientKey(String);

impl RecipientKey {
    /// The longest key, in bytes. A longer one is a template that went wrong.
    pub const MAX: usize = 512;

    /// A key is not empty, at most [`Self::MAX`] bytes, and one line. Spellings that a person takes for one
    /// are one: a list that comes back from another program would mail everybody again.
    pub fn new(text: &str) -> Option<RecipientKey> {
        let text = &*RecipientKey::spelling(text.trim());
        let fits = !text.is_empty() && text.len() <= Self::MAX && !text.contains(|c: char| c.is_control());
        fits.then(|| RecipientKey(text.to_owned()))
    }

    /// The spelling that stands for all of a text: an address as [`EmailAddress::folded`] has it, any other text
    /// composed (NFC).
    pub fn spelling(text: &str) -> Cow<'_, str> {
        let usual = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase() && byte != b'"';
        if text.bytes().all(usual) && !text.contains("xn--") && !text.ends_with('.') {
            return text.into();
        }
        match text.parse::<EmailAddress>() {
            Ok(address) => address.folded().into(),
            Err(_) => ComposingNormalizerBorrowed::new_nfc().normalize(text),
        }
    }

    /// The key as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RecipientKey;

    #[test]
    fn spellings_of_one_key_are_one_key() {
        for (written, key) in [
            (" 4711 ", "4711"),
            ("AB-12", "AB-12"),
            ("cafe\u{301}", "caf\u{e9}"),
            ("Ada@Example.org", "ada@example.org"),
            ("\"ada\"@example.org", "ada@example.org"),
            ("ada@example.org.", "ada@example.org"),
            ("wei@xn--fsqu00a.xn--fiqs8s", "wei@例子.中国"),
            ("张伟", "张伟"),
        ] {
            assert_eq!(RecipientKey::new(written).unwrap().as_str(), key);
        }
        assert!(RecipientKey::new(" \u{3000}").is_none() && RecipientKey::new("a\nb").is_none());
    }
}
