//! What became of a recipient, and the words the server said about it.

use std::fmt;

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl Enhanced {
    /// Reads `5.1.1` at the beginning of `text`; gives it and the text behind it.
    pub fn parse(text: &str) -> Option<(Enhanced, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.split('.');
        let class = numbers.next()?.parse().ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        let part = |digits: Option<&str>| {
            digits
                .filter(|d| (1..=3).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()))?
                .parse()
                .ok()
        };
        let (subject, detail) = (part(numbers.next())?, part(numbers.next())?);
        numbers.next().is_none().then_some((Enhanced { class, subject, detail }, rest))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// A server's words about one recipient, cut to a length worth keeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The reply code; 0 where no server spoke (the connection broke, we gave up).
    pub code: u16,
    /// The enhanced status code, where the server gave one.
    pub enhanced: Option<Enhanced>,
    /// The text, one line, without code.
    pub text: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code != 0 {
            write!(f, "{} ", self.code)?;
        }
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text)
    }
}

/// What became of one recipient of one letter.
#[must_use = "an outcome that is not recorded makes the next run send twice"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// RCPT and the final reply were both 2xx: the relay has it.
    Accepted,
    /// A transient answer: to be tried again.
    Deferred,
    /// The relay will not have it, ever.
    Refused,
    /// We could not make or send the letter (a bad row, a changed file, given up after `give_up`).
    Failed,
    /// Content was sent and no reply came.
    Unsure,
}

impl Outcome {
    /// The word used in ledger, reports and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Deferred => "deferred",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Unsure => "unsure",
        }
    }
}

/// The outcome of one address of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptOutcome {
    /// The address as in the envelope.
    pub address: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What was said about it.
    pub answer: Answer,
}

#[cfg(test)]
mod tests {
    use super::Enhanced;

    #[test]
    fn enhanced_codes_are_read_strictly() {
        for (text, expected) in [
            ("5.1.1 no such user", Some(("5.1.1", "no such user"))),
            ("2.0.0", Some(("2.0.0", ""))),
            ("3.1.1 x", None),
            ("5.1 x", None),
            ("5.1.1234 x", None),
            ("5.1.1.1 x", None),
            ("hello", None),
        ] {
            let read = Enhanced::parse(text).map(|(code, rest)| (code.to_string(), rest));
            assert_eq!(read, expected.map(|(code, rest)| (code.to_owned(), rest)), "{text}");
        }
    }
}
