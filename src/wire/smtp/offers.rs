//! What a server offers in its answer to EHLO (RFC 5321 §4.1.1.1 and the registry of extensions).

use super::Reply;

/// The extensions of one session. Offers before TLS count for nothing behind it (RFC 3207 §4.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// The server answered EHLO, not only HELO.
    pub esmtp: bool,
    /// SIZE (RFC 1870): 0 as an argument means no fixed limit and reads as `None`.
    pub size: Option<u64>,
    /// SIZE is offered, whatever its limit: MAIL may name the size.
    pub declares_size: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced: bool,
    /// AUTH (RFC 4954): the mechanisms, upper case, in the server's order.
    pub auth: Vec<String>,
    /// LIMITS RCPTMAX (RFC 9422): recipients in one transaction.
    pub rcpt_max: Option<usize>,
    /// LIMITS MAILMAX (RFC 9422): transactions in one session.
    pub mail_max: Option<u32>,
}

impl Offers {
    /// Reads the answer to EHLO. The first line is a greeting; unknown keywords are no affair of ours.
    pub fn read(reply: &Reply<'_>) -> Offers {
        let mut offers = Offers { esmtp: true, ..Offers::default() };
        for line in reply.lines().skip(1) {
            let line = String::from_utf8_lossy(line).to_ascii_uppercase();
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default() {
                "SIZE" => {
                    offers.declares_size = true;
                    offers.size =
                        words.next().and_then(|limit| limit.parse().ok()).filter(|&limit| limit > 0);
                }
                "8BITMIME" => offers.eight_bit = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "PIPELINING" => offers.pipelining = true,
                "CHUNKING" => offers.chunking = true,
                "STARTTLS" => offers.starttls = true,
                "ENHANCEDSTATUSCODES" => offers.enhanced = true,
                "AUTH" => offers.add_mechanisms(words),
                "LIMITS" => words.for_each(|limit| offers.add_limit(limit)),
                // Servers of old wrote AUTH=LOGIN, often beside the right form.
                word => {
                    if let Some(first) = word.strip_prefix("AUTH=") {
                        offers.add_mechanisms(std::iter::once(first).chain(words));
                    }
                }
            }
        }
        offers
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            if !name.is_empty() && !self.auth.iter().any(|known| known == name) {
                self.auth.push(name.to_owned());
            }
        }
    }

    fn add_limit(&mut self, limit: &str) {
        match limit.split_once('=') {
            Some(("RCPTMAX", value)) => self.rcpt_max = value.parse().ok().filter(|&max| max > 0),
            Some(("MAILMAX", value)) => self.mail_max = value.parse().ok().filter(|&max| max > 0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Replies;
    use super::*;

    #[test]
    fn offers_are_read_whatever_their_case() {
        let answer = b"250-mx.example greets you\r\n250-size 35882577\r\n250-8bitmime\r\n250-Pipelining\r\n\
            250-CHUNKING\r\n250-AUTH PLAIN login\r\n250-AUTH=LOGIN XOAUTH2\r\n250-X-NOVEL 1\r\n\
            250-LIMITS MAILMAX=20 RCPTMAX=50 RCPTDOMAINMAX=1\r\n250 SMTPUTF8\r\n";
        let mut replies = Replies::default();
        replies.space()[..answer.len()].copy_from_slice(answer);
        replies.filled(answer.len());
        let offers = Offers::read(&replies.take().expect("a reply").expect("whole"));
        assert_eq!(
            offers,
            Offers {
                esmtp: true,
                size: Some(35_882_577),
                declares_size: true,
                eight_bit: true,
                smtputf8: true,
                pipelining: true,
                chunking: true,
                starttls: false,
                enhanced: false,
                auth: ["PLAIN", "LOGIN", "XOAUTH2"].map(str::to_owned).to_vec(),
                rcpt_max: Some(50),
                mail_max: Some(20),
            }
        );
    }
}
