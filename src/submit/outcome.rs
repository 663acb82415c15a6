//! The desk that decides. The wire reports what was said to whom; here, and nowhere else, it is
//! decided what became of each recipient, and when the trouble is our own.

use std::time::Duration;

use super::{Consignment, Event};
use crate::letter::{Answer, Enhanced, Outcome, RcptOutcome};
use crate::wire::smtp::{Class, Heard, Offers, Record, Way};

/// The same refusal at the end of content, so many letters running, is about what we send, not about whom we send to.
const RUNNING: u32 = 3;

/// What the pool has to do about a letter whose transaction is over.
#[derive(Debug)]
pub(super) enum Step {
    /// The desk has said all there is to say.
    Settled,
    /// The letter is submitted again, at a lower level.
    Again(Consignment),
    /// Nothing was processed: the letter is submitted again over another connection, or returned.
    Back(Consignment),
    /// The sender's trouble: this letter returns, the run stops.
    Trouble(Consignment, &'static str, Answer),
}

/// What a no says about our pace or our connections, whatever it says about the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// We are too fast; for so long the relay wants to be left alone, where it says so.
    TooFast(Option<Duration>),
    /// The code is said of pace too, and the words do not tell: we are too fast if it is said often.
    MaybeTooFast,
    /// We have too many connections.
    TooMany,
    /// A connection may hold so many letters and no more.
    Enough,
}

/// Reads the hint in a transient reply. Codes alone do not tell: the same 421 4.7.0 is said of pace, of connections
/// and of letters in a session, and 450 and 451 to RCPT are mostly about that recipient (greylisting).
pub(super) fn hint(heard: &Heard, to_rcpt: bool) -> Option<Hint> {
    let answer = answer_of(heard);
    let words = answer.text.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    let policy = answer.enhanced.is_some_and(|code| code.subject == 7 && code.class == 4);
    let about_pace = [
        "rate",
        "too fast",
        "too many",
        "too much",
        "slow down",
        "throttl",
        "limit",
        "exceeded",
        "quota",
        "frequen",
    ];
    // Amazon SES says 454 of its sending rate.
    if !matches!(heard.code, 421 | 432 | 450..=452 | 454) {
        return None;
    }
    // NetEase (163, 126, yeah) says why by a code of its own, and the rest in a link.
    for (codes, hint) in [
        (&["hl:icc", "hl:mep"][..], Hint::TooMany),
        (&["mi:dmc", "rp:drc", "mi:ccl"], Hint::Enough),
        (&["hl:ifc", "mi:sfq", "rp:qrc"], Hint::TooFast(None)),
    ] {
        if says(codes) {
            return Some(hint);
        }
    }
    let network = answer.enhanced.is_some_and(|code| (code.class, code.subject, code.detail) == (4, 3, 2));
    if says(&[
        "too many concurrent",
        "too many connections",
        "too many sessions",
        "concurrency",
        "simultaneous",
    ]) || heard.code == 432
        || (heard.code == 450 && network)
        || (says(&["connection"]) && says(&["too many", "limit"]) && !says(&["rate"]))
    {
        return Some(Hint::TooMany);
    }
    let session =
        ["this connection", "one connection", "per connection", "this session", "per session", "one session"];
    if heard.code == 421 && says(&session) {
        return Some(Hint::Enough);
    }
    let too_fast = match to_rcpt {
        false => matches!(heard.code, 421 | 450 | 451) || policy || (heard.code == 454 && says(&about_pace)),
        true => says(&about_pace) && (policy || heard.code == 421) && !says(&["grey", "gray"]),
    };
    // The server's own end is no word about us.
    let ending =
        says(&["shutting down", "timeout", "timed out", "idle", "closing"]) && !says(&about_pace) && !policy;
    if !too_fast || ending {
        return None;
    }
    let told = told_to_wait(&answer);
    let plainly = policy || told.is_some() || says(&about_pace);
    Some(if plainly { Hint::TooFast(told) } else { Hint::MaybeTooFast })
}

/// "Try again in N seconds|minutes|hours": for how long.
pub fn told_to_wait(answer: &Answer) -> Option<Duration> {
    let text = answer.text.to_ascii_lowercase();
    let mut words =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    let mut asks = false;
    while let Some(word) = words.next() {
        asks |= matches!(word, "again" | "retry" | "wait" | "in" | "after" | "for");
        // `300s` and `5m` are one word.
        let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let Ok(count) = word[..digits].parse::<u64>() else { continue };
        let unit =
            if digits < word.len() { &word[digits..] } else { words.peek().copied().unwrap_or_default() };
        let seconds = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            _ => continue,
        };
        if asks {
            return Some(Duration::from_secs(count.saturating_mul(seconds)));
        }
    }
    None
}

/// Decides, and remembers what three letters in a row were told.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The code of the last refusals at the end of content, and how many letters running were told it.
    running: Option<(u16, u32)>,
    /// Letters refused at the end of content whose refusal may turn out to be the sender's trouble.
    held: Vec<(Consignment, Vec<RcptOutcome>)>,
}

impl Desk {
    /// A letter's transaction is over.
    pub(super) fn judge(
        &mut self,
        consignment: Consignment,
        record: Record,
        events: &mut Vec<Event>,
    ) -> Step {
        let valid = record.valid();
        let said_no = |heard: &Option<Heard>| heard.as_ref().filter(|heard| !heard.is_yes()).cloned();
        let accepted = valid > 0 && record.end.as_ref().is_some_and(Heard::is_yes);
        // Evidence first: what the server took at the end of content it has, whatever was said before.
        if accepted {
            self.running = None;
            self.release(events);
            return settle(consignment, &record, record.end.clone().map(outcome_of), events);
        }
        if record.way == Way::Stumbled {
            return Step::Again(consignment);
        }
        if let Some(mail) = said_no(&record.mail) {
            if mail.class() == Class::Permanent {
                if let Some(answer) = too_large(&mail) {
                    return settle_all(consignment, Outcome::Failed, &answer, events);
                }
                return Step::Trouble(consignment, "MAIL", answer_of(&mail));
            }
            return settle_all(consignment, Outcome::Deferred, &answer_of(&mail), events);
        }
        if let Some(closing) = &record.closing {
            let later = (Outcome::Deferred, answer_of(closing));
            return settle(consignment, &record, Some(later), events);
        }
        if record.nobody_is_left() {
            return settle(consignment, &record, None, events);
        }
        if let Some(data) = &record.data {
            if data.class() == Class::Permanent && valid > 0 {
                return Step::Trouble(consignment, "DATA", answer_of(data));
            }
            // A yes out of turn delivers nothing, and a no for now is one.
            return settle(consignment, &record, Some((Outcome::Deferred, answer_of(data))), events);
        }
        match (&record.end, record.way) {
            (Some(end), _) if end.class() == Class::Permanent && valid > 0 => {
                self.refused_at_end(consignment, &record, end.clone(), events)
            }
            (Some(end), _) => {
                if end.class() != Class::Permanent {
                    self.running = None;
                }
                settle(consignment, &record, Some((Outcome::Deferred, answer_of(end))), events)
            }
            (None, Way::Silent) => {
                let silence = match &record.nonsense {
                    Some(nonsense) => format!("the whole content was sent, then no reply came: {nonsense}"),
                    None => {
                        "the whole content was sent, then the connection was lost before the reply".to_owned()
                    }
                };
                settle(consignment, &record, Some((Outcome::Unsure, said_by_us(&silence))), events)
            }
            (None, Way::Early) => {
                let early = said_by_us("the relay accepted the content before it was sent");
                settle(consignment, &record, Some((Outcome::Unsure, early)), events)
            }
            (None, _) => Step::Back(consignment),
        }
    }

    /// Settles what was held back: another answer came, or nothing more will come.
    pub(super) fn release(&mut self, events: &mut Vec<Event>) {
        for (consignment, rcpts) in self.held.drain(..) {
            events.push(Event::Settled { seq: consignment.seq, rcpts });
        }
    }

    /// Letters whose refusal is held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn refused_at_end(
        &mut self,
        consignment: Consignment,
        record: &Record,
        end: Heard,
        events: &mut Vec<Event>,
    ) -> Step {
        let running = match self.running {
            Some((code, running)) if code == end.code => running + 1,
            _ => {
                self.release(events);
                1
            }
        };
        self.running = Some((end.code, running));
        if running >= RUNNING {
            events.extend(self.held.drain(..).map(|(held, _)| Event::Returned { seq: held.seq }));
            return Step::Trouble(consignment, "the end of content", answer_of(&end));
        }
        let rcpts = outcomes(&consignment, record, Some((Outcome::Refused, answer_of(&end))));
        self.held.push((consignment, rcpts));
        Step::Settled
    }
}

/// What a server's offers forbid: the words for a letter that cannot be submitted there at all.
pub(super) fn unfit(consignment: &Consignment, offers: &Offers) -> Option<Answer> {
    let message = &consignment.message;
    let envelope = &message.envelope;
    let octets = message.content.len() as u64;
    if let Some(limit) = offers.size.filter(|&limit| octets > limit) {
        return Some(said_by_us(&format!("the letter has {octets} octets, the relay takes {limit} at most")));
    }
    let foreign =
        || envelope.recipients.iter().chain(&envelope.reverse_path).find(|address| address.needs_smtputf8());
    if !offers.smtputf8 && (message.smtputf8 || foreign().is_some()) {
        let why = foreign().map_or_else(|| "a header".to_owned(), |address| format!("the address {address}"));
        return Some(said_by_us(&format!("{why} needs SMTPUTF8, which the relay does not offer")));
    }
    if message.eight_bit && !offers.eight_bit {
        return Some(said_by_us("the content needs 8BITMIME, which the relay does not offer"));
    }
    None
}

/// Every recipient of a letter gets the same outcome.
pub(super) fn settle_all(
    consignment: Consignment,
    outcome: Outcome,
    answer: &Answer,
    events: &mut Vec<Event>,
) -> Step {
    let rcpts = addresses(&consignment)
        .map(|address| RcptOutcome { address, outcome, answer: answer.clone() })
        .collect();
    events.push(Event::Settled { seq: consignment.seq, rcpts });
    Step::Settled
}

/// An answer in our own words: no server spoke.
pub(super) fn said_by_us(text: &str) -> Answer {
    Answer { code: 0, enhanced: None, text: text.to_owned() }
}

/// A server's words.
pub(super) fn answer_of(heard: &Heard) -> Answer {
    match Enhanced::parse(&heard.text) {
        Some((enhanced, rest)) => {
            Answer { code: heard.code, enhanced: Some(enhanced), text: rest.trim_start().to_owned() }
        }
        None => Answer { code: heard.code, enhanced: None, text: heard.text.clone() },
    }
}

/// The final reply, for those whose RCPT was accepted.
fn outcome_of(end: Heard) -> (Outcome, Answer) {
    let outcome = match end.class() {
        Class::Completed => Outcome::Accepted,
        Class::Permanent => Outcome::Refused,
        Class::Intermediate | Class::Transient => Outcome::Deferred,
    };
    (outcome, answer_of(&end))
}

fn settle(
    consignment: Consignment,
    record: &Record,
    others: Option<(Outcome, Answer)>,
    events: &mut Vec<Event>,
) -> Step {
    let rcpts = outcomes(&consignment, record, others);
    events.push(Event::Settled { seq: consignment.seq, rcpts });
    Step::Settled
}

/// Each RCPT's own no; `others` for those accepted there or not answered.
fn outcomes(
    consignment: &Consignment,
    record: &Record,
    others: Option<(Outcome, Answer)>,
) -> Vec<RcptOutcome> {
    let mut others = others;
    let last = record.rcpts.len();
    addresses(consignment)
        .enumerate()
        .map(|(n, address)| {
            let own = record.rcpts.get(n).and_then(Option::as_ref).filter(|heard| !heard.is_yes());
            let (outcome, answer) = match own {
                Some(heard) => (refusal(heard, n), answer_of(heard)),
                None if n >= record.asked => {
                    let text = "more recipients than the relay takes in one transaction";
                    (Outcome::Deferred, said_by_us(text))
                }
                // The last one takes the words instead of a copy: nearly all letters have one recipient.
                None if n + 1 == last => others.take().unwrap_or_else(unanswered),
                None => others.clone().unwrap_or_else(unanswered),
            };
            RcptOutcome { address, outcome, answer }
        })
        .collect()
}

fn unanswered() -> (Outcome, Answer) {
    (Outcome::Deferred, said_by_us("the relay did not answer"))
}

/// What a no to the n-th RCPT means for this recipient.
fn refusal(heard: &Heard, n: usize) -> Outcome {
    // RFC 5321 §4.5.3.1.10: servers of old say 552 for "too many recipients"; the rest goes again.
    let too_many = heard.code == 552
        && n > 0
        && Enhanced::parse(&heard.text).is_none_or(|(code, _)| (code.subject, code.detail) == (5, 3));
    match heard.class() {
        Class::Permanent if !too_many => Outcome::Refused,
        _ => Outcome::Deferred,
    }
}

/// A no to MAIL because of its SIZE is about this letter, not about the sender (RFC 1870 §6.1).
fn too_large(mail: &Heard) -> Option<Answer> {
    let answer = answer_of(mail);
    let about_size =
        answer.enhanced.is_some_and(|code| matches!((code.subject, code.detail), (3, 4) | (2, 3)));
    (mail.code == 552 && about_size).then_some(answer)
}

fn addresses(consignment: &Consignment) -> impl Iterator<Item = String> + '_ {
    consignment.message.envelope.recipients.iter().map(|address| address.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_from_the_words() {
        let fast = |seconds: Option<u64>| Some(Hint::TooFast(seconds.map(Duration::from_secs)));
        for (code, text, to_rcpt, expected) in [
            (421, "4.7.0 slow down", false, fast(None)),
            (421, "4.7.0 Try again in 30 seconds", false, fast(Some(30))),
            (450, "4.7.1 Error: too much mail from 192.0.2.1", false, fast(None)),
            (451, "4.7.500 Server busy. Please try again later", false, fast(None)),
            (451, "4.7.1 Greylisted, try again in 300 seconds", true, None),
            (450, "4.2.1 mailbox busy", true, None),
            (450, "4.7.1 rate limit exceeded, retry after 2 minutes", true, fast(Some(120))),
            (421, "4.7.0 Too many connections from your IP", false, Some(Hint::TooMany)),
            (432, "4.3.2 Concurrent connections limit exceeded", false, Some(Hint::TooMany)),
            (421, "4.7.0 enough for one connection", false, Some(Hint::Enough)),
            (450, "4.3.2 try later", false, Some(Hint::TooMany)),
            (
                421,
                "4.3.2 The maximum number of concurrent server connections has exceeded a limit",
                false,
                Some(Hint::TooMany),
            ),
            (454, "Throttling failure: Maximum sending rate exceeded.", false, fast(None)),
            (454, "4.7.0 Temporary authentication failure", false, fast(None)),
            (451, "Ip frequency limited. http://service.mail.qq.com/", false, fast(None)),
            (
                421,
                "HL:ICC 163 mx1, please see http://mail.163.com/help/help_spam_16.htm",
                false,
                Some(Hint::TooMany),
            ),
            (
                450,
                "MI:DMC 163 smtp5, please see http://mail.163.com/help/help_spam_16.htm",
                false,
                Some(Hint::Enough),
            ),
            (
                451,
                "MI:SFQ 163 smtp5, please see http://mail.163.com/help/help_spam_16.htm",
                false,
                fast(None),
            ),
            (451, "RP:QRC 163 smtp5, please see http://mail.163.com/help/help_spam_16.htm", true, fast(None)),
            (421, "4.3.2 service shutting down", false, None),
            (451, "4.3.0 queue file write error", false, Some(Hint::MaybeTooFast)),
            (421, "Service not available", false, Some(Hint::MaybeTooFast)),
            (451, "Please try again in 10 seconds", false, fast(Some(10))),
            (452, "4.3.1 no room", false, None),
            (550, "5.7.1 too fast", false, None),
        ] {
            let heard = Heard { code, text: text.to_owned() };
            assert_eq!(hint(&heard, to_rcpt), expected, "{code} {text}");
        }
    }

    #[test]
    fn waits_are_believed_where_they_are_meant() {
        for (text, expected) in [
            ("Try again in 30 seconds", Some(30)),
            ("please retry after 5 min", Some(300)),
            ("wait 2 hours", Some(7200)),
            ("greylisted for 300s", Some(300)),
            ("limit of 100 messages in 5 minutes", Some(300)),
            ("mailbox has 30 seconds", None),
            ("try again later", None),
            ("again in 99999999999999999999 hours", None),
        ] {
            let answer = said_by_us(text);
            assert_eq!(told_to_wait(&answer), expected.map(Duration::from_secs), "{text}");
        }
    }
}
