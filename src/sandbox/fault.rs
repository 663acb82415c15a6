//! Fault rules: when to misbehave, and how. One line each, so that a test, a command line and a
//! log can all hold them: `rcpt if=*@busy.test first=2 reply 450 4.2.1 try later`.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::measure::Rate;

/// What a rule looks like, as `postroom sandbox --help` shows it.
pub const GRAMMAR: &str = "\
A RULE is STAGE [CONDITION...] ACTION, for example
  rcpt if=*@busy.test first=2 reply 450 4.2.1 try later
  body if=u17@* at=5000 first=1 reset
  commit every=100 drop
  mail after=50 close 421 4.7.0 enough for one connection
  mail above=30/s close 421 4.7.0 too fast, slow down
  retr if=7 first=3 reply -ERR [SYS/TEMP] cannot read it

STAGE      of SMTP: connect helo starttls auth mail rcpt data bdat rset noop quit
           any      each of the commands above
           body     while the content arrives, once at=BYTES of it are here;
                    an answer given then also closes
           end      all of it is here, nothing is recorded yet
           commit   the letter is recorded, its reply is not yet sent
           sent     its reply is on the wire
           of POP3: connect capa stls user pass apop auth stat list uidl top retr
                    dele rset noop quit, any
           body     once at=BYTES of a message are written
CONDITION  if=GLOB  the recipient (of mail: the sender, of helo: the name);
                    of POP3: the number of the message; a `*` is any signs
           first=N  only the first N times, counted per matching address
           every=N  only each Nth time
           after=N  only when this connection has had N letters accepted
           above=N/s only when this would be more than N within any second (or /m)
           chance=P only with probability P (0..1)
           at=BYTES of body only
ACTION     reply CODE TEXT   answer so, in place of the usual answer
           close CODE TEXT   answer so, then close
           drop              close without an answer
           reset             close with a TCP reset
           hang              never answer; wait for the client to go
           delay MS          go on after MS milliseconds
           flood             answer with a line that never ends
";

/// Which server a rule is for: their stages and their replies differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The relay.
    Smtp,
    /// The maildrop.
    Pop3,
}

/// A point of the dialogue at which a rule may apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connect,
    Helo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Any,
    Body,
    End,
    Commit,
    Sent,
    Capa,
    Stls,
    User,
    Pass,
    Apop,
    Stat,
    List,
    Uidl,
    Top,
    Retr,
    Dele,
}

const SMTP_STAGES: &[(&str, Stage)] = &[
    ("connect", Stage::Connect),
    ("helo", Stage::Helo),
    ("starttls", Stage::StartTls),
    ("auth", Stage::Auth),
    ("mail", Stage::Mail),
    ("rcpt", Stage::Rcpt),
    ("data", Stage::Data),
    ("bdat", Stage::Bdat),
    ("rset", Stage::Rset),
    ("noop", Stage::Noop),
    ("quit", Stage::Quit),
    ("any", Stage::Any),
    ("body", Stage::Body),
    ("end", Stage::End),
    ("commit", Stage::Commit),
    ("sent", Stage::Sent),
];

const POP3_STAGES: &[(&str, Stage)] = &[
    ("connect", Stage::Connect),
    ("capa", Stage::Capa),
    ("stls", Stage::Stls),
    ("user", Stage::User),
    ("pass", Stage::Pass),
    ("apop", Stage::Apop),
    ("auth", Stage::Auth),
    ("stat", Stage::Stat),
    ("list", Stage::List),
    ("uidl", Stage::Uidl),
    ("top", Stage::Top),
    ("retr", Stage::Retr),
    ("dele", Stage::Dele),
    ("rset", Stage::Rset),
    ("noop", Stage::Noop),
    ("quit", Stage::Quit),
    ("any", Stage::Any),
    ("body", Stage::Body),
];

impl Stage {
    pub(super) fn name(self) -> &'static str {
        SMTP_STAGES.iter().chain(POP3_STAGES).find(|(_, stage)| *stage == self).map_or("", |(name, _)| name)
    }

    /// Whether it is the answer to a command, which is what `any` stands for.
    fn is_command(self) -> bool {
        !matches!(self, Stage::Connect | Stage::Body | Stage::End | Stage::Commit | Stage::Sent)
    }
}

/// What is done in place of, or before, the usual answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Reply(String),
    Close(String),
    Drop,
    Reset,
    Hang,
    Delay(Duration),
    Flood,
}

/// One rule, with the count of how often it was met.
#[derive(Debug)]
pub struct Fault {
    pub(super) rule: String,
    pub(super) action: Action,
    /// Of stage `body`: after so many bytes.
    pub(super) at: usize,
    stage: Stage,
    glob: Option<String>,
    first: Option<u64>,
    every: Option<u64>,
    after: u64,
    chance: Option<f64>,
    above: Option<Rate>,
    /// When those were met that `above` let pass, as far back as it looks.
    passed: Mutex<VecDeque<Instant>>,
    seed: u64,
    met: AtomicU64,
    seen: Mutex<HashMap<String, u64>>,
}

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault rule `{rule}`: {reason}")]
pub struct BadRule {
    /// The rule as given.
    pub rule: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Fault {
    /// Reads a rule (the grammar is in this module's `GRAMMAR`). `seed` makes `chance=` repeatable.
    ///
    /// # Errors
    /// [`BadRule`] names the word that is not understood.
    pub fn parse(rule: &str, protocol: Protocol, seed: u64) -> Result<Fault, BadRule> {
        let bad = |reason: String| BadRule { rule: rule.to_owned(), reason };
        let stages = match protocol {
            Protocol::Smtp => SMTP_STAGES,
            Protocol::Pop3 => POP3_STAGES,
        };
        let mut words = rule.split_whitespace().peekable();
        let name = words.next().ok_or_else(|| bad("it is empty".to_owned()))?;
        let stage = stages.iter().find(|(known, _)| *known == name).map(|(_, stage)| *stage);
        let mut fault = Fault {
            rule: rule.to_owned(),
            action: Action::Drop,
            at: 0,
            stage: stage.ok_or_else(|| bad(format!("`{name}` is no stage")))?,
            glob: None,
            first: None,
            every: None,
            after: 0,
            chance: None,
            above: None,
            passed: Mutex::default(),
            seed,
            met: AtomicU64::new(0),
            seen: Mutex::default(),
        };
        while let Some((key, value)) = words.peek().and_then(|word| word.split_once('=')) {
            let number = || value.parse::<u64>().map_err(|_| bad(format!("`{key}` needs a number")));
            match key {
                "if" => fault.glob = Some(value.to_lowercase()),
                "first" => fault.first = Some(number()?),
                "every" => fault.every = Some(number()?.max(1)),
                "after" => fault.after = number()?,
                "at" => fault.at = usize::try_from(number()?).unwrap_or(usize::MAX),
                "above" => {
                    let above =
                        Rate::parse(value).ok_or_else(|| bad("`above` needs a rate, as 30/s".to_owned()))?;
                    fault.above = Some(above);
                }
                "chance" => {
                    let chance = value.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
                    fault.chance = Some(chance.ok_or_else(|| bad("`chance` is between 0 and 1".to_owned()))?);
                }
                other => return Err(bad(format!("`{other}` is no condition"))),
            }
            words.next();
        }
        let verb = words.next().ok_or_else(|| bad("it says no action".to_owned()))?;
        let rest = words.collect::<Vec<_>>().join(" ");
        fault.action = match verb {
            "reply" | "close" => {
                if !protocol.is_reply(&rest) {
                    return Err(bad(format!("`{verb}` needs a reply")));
                }
                if verb == "reply" { Action::Reply(rest) } else { Action::Close(rest) }
            }
            "drop" => Action::Drop,
            "reset" => Action::Reset,
            "hang" => Action::Hang,
            "flood" => Action::Flood,
            "delay" => Action::Delay(Duration::from_millis(
                rest.parse().map_err(|_| bad("`delay` needs milliseconds".to_owned()))?,
            )),
            other => return Err(bad(format!("`{other}` is no action"))),
        };
        Ok(fault)
    }

    /// Whether it is this rule's turn; each call that matches is counted. `keys` are the addresses
    /// in question, `accepted` the letters this connection has had accepted.
    pub(super) fn hits<'a>(&self, stage: Stage, keys: impl Iterator<Item = &'a str>, accepted: u64) -> bool {
        self.hits_at(Instant::now(), stage, keys, accepted)
    }

    fn hits_at<'a>(
        &self,
        now: Instant,
        stage: Stage,
        mut keys: impl Iterator<Item = &'a str>,
        accepted: u64,
    ) -> bool {
        if self.stage != stage && !(self.stage == Stage::Any && stage.is_command()) {
            return false;
        }
        let key = match &self.glob {
            None => keys.next().unwrap_or(""),
            Some(glob) => match keys.find(|key| matches(glob, &key.to_lowercase())) {
                Some(key) => key,
                None => return false,
            },
        };
        if accepted < self.after {
            return false;
        }
        if let Some(above) = self.above {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            while passed.front().is_some_and(|&at| now.saturating_duration_since(at) >= above.per) {
                passed.pop_front();
            }
            if passed.len() < above.count as usize {
                passed.push_back(now);
                return false;
            }
        }
        if let Some(first) = self.first {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry(key.to_owned()).or_insert(0);
            *count += 1;
            if *count > first {
                return false;
            }
        }
        let turn = self.met.fetch_add(1, Relaxed) + 1;
        if self.every.is_some_and(|every| !turn.is_multiple_of(every)) {
            return false;
        }
        self.chance.is_none_or(|chance| draw(self.seed, turn) < chance)
    }
}

impl Protocol {
    fn is_reply(self, text: &str) -> bool {
        match self {
            Protocol::Smtp => text.len() >= 3 && text.bytes().take(3).all(|byte| byte.is_ascii_digit()),
            Protocol::Pop3 => text.starts_with("+OK") || text.starts_with("-ERR") || text.starts_with("+ "),
        }
    }
}

/// `*` stands for any run of characters, nothing else is special: an address may hold `?` and `[`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices()
                .map(|(start, _)| start)
                .chain([rest.len()])
                .any(|start| matches(tail, &rest[start..]))
        }),
    }
}

/// The nth draw of splitmix64, in 0..1: the same at every run.
fn draw(seed: u64, n: u64) -> f64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Fault {
        Fault::parse(text, Protocol::Smtp, 7).unwrap_or_else(|bad| panic!("{bad}"))
    }

    #[test]
    fn a_glob_knows_only_the_star() {
        for (pattern, text, expected) in [
            ("*@busy.test", "a@busy.test", true),
            ("u1*@*", "u17@x", true),
            ("u1*@*", "v17@x", false),
            ("*", "", true),
            ("a?", "ab", false),
            ("*城*", "北京城里", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn first_is_counted_per_address() {
        let fault = rule("rcpt if=*@x first=1 reply 450 later");
        assert_eq!(fault.action, Action::Reply("450 later".to_owned()));
        for (stage, key, expected) in [
            (Stage::Rcpt, "a@x", true),
            (Stage::Rcpt, "a@x", false),
            (Stage::Rcpt, "B@X", true),
            (Stage::Rcpt, "b@y", false),
            (Stage::Data, "c@x", false),
        ] {
            assert_eq!(fault.hits(stage, [key].into_iter(), 0), expected, "{key}");
        }
    }

    #[test]
    fn above_is_counted_over_any_second() {
        let (fault, from) = (rule("mail above=3/s close 421 4.7.0 slow down"), Instant::now());
        for (millis, expected) in
            [(0, false), (100, false), (900, false), (950, true), (1050, false), (1060, true), (1100, false)]
        {
            let now = from + Duration::from_millis(millis);
            assert_eq!(fault.hits_at(now, Stage::Mail, std::iter::empty(), 0), expected, "{millis}");
        }
    }

    #[test]
    fn any_is_any_command_and_nothing_between() {
        for (stage, expected) in [(Stage::Mail, true), (Stage::Quit, true), (Stage::Commit, false)] {
            assert_eq!(rule("any drop").hits(stage, std::iter::empty(), 0), expected, "{stage:?}");
        }
    }

    #[test]
    fn chance_is_repeatable_and_about_right() {
        let draws = || {
            let fault = rule("any chance=0.25 drop");
            (0..4000).map(|_| fault.hits(Stage::Noop, std::iter::empty(), 0)).collect::<Vec<_>>()
        };
        let hits = draws().iter().filter(|hit| **hit).count();
        assert!((900..1100).contains(&hits), "{hits}");
        assert_eq!(draws(), draws());
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, protocol) in [
            ("", Protocol::Smtp),
            ("rcpt", Protocol::Smtp),
            ("lunch drop", Protocol::Smtp),
            ("rcpt reply later", Protocol::Smtp),
            ("rcpt nth=3 drop", Protocol::Smtp),
            ("rcpt chance=2 drop", Protocol::Smtp),
            ("mail above=30 drop", Protocol::Smtp),
            ("retr drop", Protocol::Smtp),
            ("rcpt drop", Protocol::Pop3),
            ("retr reply 550 no", Protocol::Pop3),
        ] {
            assert!(Fault::parse(text, protocol, 1).is_err(), "{text}");
        }
        assert!(Fault::parse("retr if=7 reply -ERR [SYS/TEMP] no", Protocol::Pop3, 1).is_ok());
    }
}
