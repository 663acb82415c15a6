//! An address that may be written to the wire (RFC 5321 §4.1.2, RFC 6531).

use std::fmt;
use std::str::FromStr;

use icu_normalizer::ComposingNormalizerBorrowed;

/// `local-part@domain`, checked: no control character, no space, no angle bracket, at most 254
/// octets. It is composed (NFC, RFC 6532 §3.1), for some systems write é as two characters; else the
/// domain is kept as written, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmailAddress {
    text: String,
    at: usize,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    /// Nothing is there.
    #[error("the address is empty")]
    Empty,
    /// Longer than RFC 5321 §4.5.3.1.3 allows.
    #[error("the address is longer than 254 octets")]
    TooLong,
    /// A line break, NUL or another control character.
    #[error("the address holds a control character")]
    Control,
    /// Not of the form `local@domain`.
    #[error("`{0}` is not an address{why}", why = why(.0))]
    Form(String),
    /// What stands behind the `@` has a character that no name of a host has.
    #[error("`{0}` is not an address: a domain has no `{1}` in it")]
    DomainCharacter(String, char),
    /// A domain with nothing between two dots, or with too much (RFC 1035 §2.3.4).
    #[error("`{0}` is not an address: what is between the dots of a domain has 1 to 63 octets")]
    DomainLabel(String),
}

impl EmailAddress {
    /// As written, but composed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Before the `@`.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// Behind the `@`.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The domain with A-labels (RFC 5891), lower case: what MX and relays understand.
    pub fn ascii_domain(&self) -> String {
        idna::domain_to_ascii(self.domain()).unwrap_or_else(|_| self.domain().to_lowercase())
    }

    /// The form in which two spellings of one mailbox are equal: lower case, composed (NFC), the domain in
    /// Unicode. A local part could tell cases apart (RFC 5321 §2.4), but no host does that people write to.
    pub fn folded(&self) -> String {
        let lower = self.text.to_lowercase();
        if lower.is_ascii() && !lower.contains("xn--") {
            return lower;
        }
        let (local, domain) = lower.rsplit_once('@').unwrap_or((&lower, ""));
        let local = composed(local);
        // What is no A-label after all stays as it is written.
        let (domain, _) = idna::domain_to_unicode(domain);
        format!("{local}@{domain}")
    }

    /// The ways in which this mailbox may stand in a list, all in lower case and composed (NFC): as written,
    /// with the domain in Unicode, with the domain in A-labels.
    pub fn spellings(&self) -> Vec<String> {
        let mut spellings = vec![composed(&self.text), self.folded()];
        spellings.push(format!("{}@{}", composed(self.local_part()), self.ascii_domain()));
        spellings.sort_unstable();
        spellings.dedup();
        spellings
    }

    /// Whether the local part needs SMTPUTF8 (RFC 6531 §3.2). A domain never does: it has A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part().is_ascii()
    }

    /// As MAIL, RCPT and headers write it where SMTPUTF8 is not needed: the domain in A-labels.
    pub fn wire(&self) -> String {
        if self.text.is_ascii() {
            self.text.clone()
        } else {
            format!("{}@{}", self.local_part(), self.ascii_domain())
        }
    }
}

/// A text in lower case and composed (NFC): how two spellings of it are compared.
pub fn composed(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(&text.to_lowercase()).into_owned()
}

impl FromStr for EmailAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let text = ComposingNormalizerBorrowed::new_nfc().normalize(text.trim_matches([' ', '\t']));
        let text = &*text;
        if text.is_empty() {
            return Err(NotAnAddress::Empty);
        }
        if text.len() > 254 {
            return Err(NotAnAddress::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NotAnAddress::Control);
        }
        let form = || NotAnAddress::Form(text.to_owned());
        let text = text.strip_suffix('.').unwrap_or(text);
        let (local, domain) = text.rsplit_once('@').ok_or_else(form)?;
        // Nobody's name has them: they come along when an address is copied. IDNA takes them out of a domain.
        if local.contains(is_invisible) || text.contains(['<', '\u{ff1c}', '\u{ff1e}']) {
            return Err(form());
        }
        // What a bracketed literal holds is looked at with the whole.
        let literal = domain.starts_with('[') && domain.ends_with(']');
        if !literal && !domain.is_empty() {
            check_domain(text, domain)?;
        }
        let address: lettre::Address = text.parse().map_err(|_| form())?;
        let text = least_quoted(address.to_string());
        let at = text.rfind('@').ok_or_else(form)?;
        if text.contains(['<', '>', ' ']) {
            return Err(form());
        }
        Ok(EmailAddress { text, at })
    }
}

/// The form with no more quotes than it needs: `"ada"@example.org` is ada@example.org, and is to be sent so
/// (RFC 5321 §4.1.2).
fn least_quoted(text: String) -> String {
    let Some((local, domain)) = text.rsplit_once('@') else { return text };
    let bare = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .map(|bare| format!("{bare}@{domain}"));
    match bare {
        Some(bare) if !bare.contains(['"', '\\']) && bare.parse::<lettre::Address>().is_ok() => bare,
        _ => text,
    }
}

/// Blanks that are not the keyboard's, and signs that have no shape: joiners, marks of direction and of bytes.
pub fn is_invisible(sign: char) -> bool {
    matches!(sign, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || (sign.is_whitespace() && sign != ' ')
}

/// A control character, or a sign that turns the direction of what follows: what a stranger wrote must not be able to
/// move the cursor of a terminal, colour it, or make a line read as another.
pub fn acts_on_terminals(sign: char) -> bool {
    sign.is_control()
        || matches!(sign, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What is wrong with a text that is not an address, where that cannot be seen or is often met.
fn why(text: &str) -> String {
    if let Some(sign) = text.chars().find(|sign| is_invisible(*sign)) {
        return format!(": there is an invisible sign in it, U+{:04X}", u32::from(sign));
    }
    if text.contains('\u{ff20}') {
        return ": its `\u{ff20}` is a full-width one, and `@` is meant".to_owned();
    }
    if text.contains(['\u{ff1c}', '\u{ff1e}']) {
        return ": its `\u{ff1c}` and `\u{ff1e}` are full-width ones, and `<` and `>` are meant".to_owned();
    }
    if text.contains('<') {
        return ": the address alone is expected here, without a name and `< >`".to_owned();
    }
    if text.matches('@').count() > 1 {
        return ": one address is expected here".to_owned();
    }
    String::new()
}

/// Whether a domain is one of the mail: letters, digits and hyphens between dots, once it is in A-labels. The
/// standard of the web that makes those lets much more pass (`/`, `=`, `|`). An underscore is met and works.
fn check_domain(address: &str, domain: &str) -> Result<(), NotAnAddress> {
    let ascii = idna::domain_to_ascii(domain).map_err(|_| NotAnAddress::Form(address.to_owned()))?;
    let foreign = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    // Quotation marks and commas of Chinese: the web lets them pass, and names have none (RFC 5892 §3).
    let is_mark = |c: &char| matches!(c, '\u{2018}'..='\u{201f}' | '\u{3001}' | '\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}');
    if let Some(mark) = domain.chars().find(is_mark) {
        return Err(NotAnAddress::DomainCharacter(address.to_owned(), mark));
    }
    if let Some(foreign) = ascii.chars().find(foreign) {
        // IDNA makes narrow signs of full-width ones; what stands there is told.
        let wide = char::from_u32(u32::from(foreign) + 0xfee0).filter(|wide| domain.contains(*wide));
        let foreign = wide.unwrap_or(foreign);
        return Err(NotAnAddress::DomainCharacter(address.to_owned(), foreign));
    }
    if ascii.split('.').any(|label| !(1..=63).contains(&label.len())) {
        return Err(NotAnAddress::DomainLabel(address.to_owned()));
    }
    Ok(())
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_direction_and_controls_act_on_terminals() {
        for sign in "\u{7}\u{1b}\u{7f}\u{9b}\n\u{61c}\u{200e}\u{200f}\u{202e}\u{2066}\u{2069}".chars() {
            assert!(acts_on_terminals(sign), "U+{:04X}", u32::from(sign));
        }
        assert!(!"a é 中文 עברית 👍🏽 \u{200d}\u{200b}".contains(acts_on_terminals));
    }

    #[test]
    fn spellings_of_one_mailbox_are_equal() {
        for (one, other, equal) in [
            ("Ada@Example.ORG", "ada@example.org", true),
            ("ada@例子.中国", "ADA@XN--fsqu00a.xn--fiqs8s", true),
            ("ada@BÜCHER.example", "ada@xn--bcher-kva.example", true),
            ("\u{212b}sa@example.org", "åsa@example.org", true),
            ("jose\u{301}@example.org", "JOS\u{c9}@example.org", true),
            ("ada@example.org", "ada@example.com", false),
            ("a.da@example.org", "ada@example.org", false),
        ] {
            let folded = |text: &str| text.parse::<EmailAddress>().expect(text).folded();
            assert_eq!(folded(one) == folded(other), equal, "{one} {other}: {}", folded(one));
        }
    }

    #[test]
    fn no_line_can_be_smuggled_in() {
        for (text, good) in [
            ("ada@example.org", true),
            (" ada@example.org ", true),
            ("ada@例子.中国", true),
            ("用户@例子.中国", true),
            ("ada@[127.0.0.1]", true),
            ("ada@[IPv6:::1]", true),
            ("ada@example.org>\r\nRCPT TO:<eve", false),
            ("ada@example.org\nBcc: eve", false),
            ("ada\0@example.org", false),
            ("ada@example.org> <eve@example.org", false),
            ("ada", false),
            ("@example.org", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<EmailAddress>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_named() {
        for (text, expected) in [
            ("\u{200b}ada@example.org", "an invisible sign in it, U+200B"),
            ("ad\u{200b}a@example.org", "U+200B"),
            ("\u{3000}ada@example.org", "U+3000"),
            ("ada\u{ff20}example.org", "`@` is meant"),
            ("Ada <ada@example.org>", "the address alone"),
            ("ada@example.org, eve@example.org", "one address"),
            ("ada@example.org;eve@example.org", "one address"),
        ] {
            let error = text.parse::<EmailAddress>().expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(
            "ada@example.org\u{200b}".parse::<EmailAddress>().expect("IDNA").wire(),
            "ada@example.org"
        );
    }

    #[test]
    fn quotes_that_are_not_needed_are_taken_off() {
        for (text, expected) in [
            ("\"ada\"@example.org", "ada@example.org"),
            ("\"a.b\"@example.org", "a.b@example.org"),
            ("\"a@b\"@example.org", "\"a@b\"@example.org"),
            ("\"a..b\"@example.org", "\"a..b\"@example.org"),
        ] {
            assert_eq!(text.parse::<EmailAddress>().expect(text).as_str(), expected);
        }
    }

    #[test]
    fn a_domain_is_one_of_the_mail() {
        let long = |label: &str| format!("ada@{label}.example");
        for (text, expected) in [
            ("u0@x.test?s=1", "a domain has no `?` in it"),
            ("u1@x.test/b", "a domain has no `/` in it"),
            ("u2@x%41.test", "is not an address"),
            ("u3@x&y.test", "a domain has no `&` in it"),
            ("u4@x.test|b", "a domain has no `|` in it"),
            ("u5@x=y.test", "a domain has no `=` in it"),
            ("u6@x.test\u{ff1f}s", "a domain has no `\u{ff1f}` in it"),
            ("王\u{ff1c}u6@x.test\u{ff1e}", "`\u{ff1c}` and `\u{ff1e}` are full-width ones"),
            ("u6@x.test\u{3001}", "a domain has no `\u{3001}` in it"),
            ("u6@x.test\u{300b}", "a domain has no `\u{300b}` in it"),
            ("u7@x..test", "is not an address"),
            ("u8@x.test..", "is not an address"),
            ("u9@x\u{3002}\u{3002}test", "is not an address"),
            (&long(&"a".repeat(64)), "1 to 63 octets"),
            (&long(&"例".repeat(60)), "is not an address"),
        ] {
            let error = text.parse::<EmailAddress>().expect_err(text).to_string();
            assert!(error.starts_with('`') && error.contains(expected), "{error}");
        }
        for text in [
            "ada@x.test.",
            "ada@my_host.x-y.test",
            "ada@1.example",
            "ada@例子\u{3002}中国",
            "ada@xn--fsqu00a.xn--fiqs8s",
            "a?b/c=d|e&f%g@x.test",
            &long(&"a".repeat(63)),
        ] {
            assert!(text.parse::<EmailAddress>().is_ok(), "{text}");
        }
    }
}
