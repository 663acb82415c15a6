//! What was said about one parcel, stage by stage, and how its transaction came to its end.

use super::{Heard, Level};

/// The replies to the commands of one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// At which level it was said.
    pub level: Level,
    /// To MAIL.
    pub mail: Option<Heard>,
    /// To each RCPT, in the parcel's order; `None` where it was not asked or not answered.
    pub rcpts: Vec<Option<Heard>>,
    /// Recipients beyond this were not named: the server's limit for one transaction.
    pub asked: usize,
    /// To DATA.
    pub data: Option<Heard>,
    /// To the end of content: after the final dot, or to BDAT.
    pub end: Option<Heard>,
    /// The 421 that ended the session at this parcel, whichever command it answered.
    pub closing: Option<Heard>,
    /// What was wrong with what came in place of a reply, where the connection was given up for that.
    pub nonsense: Option<String>,
    /// How the transaction ended.
    pub way: Way,
}

/// How a transaction came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Every command that was sent has its reply, or a 421 took their place.
    #[default]
    Answered,
    /// The server lost the thread: what it said is about our pipelining, not about this parcel, and nothing was
    /// accepted. To be submitted again at a lower level.
    Stumbled,
    /// The connection ended before the whole content was written: the server cannot have accepted it.
    CutShort,
    /// The connection ended after the whole content was written and before its reply: nobody knows.
    Silent,
    /// The server said yes to a content that was not wholly written: what it has taken nobody knows.
    Early,
}

impl Record {
    pub(super) fn of(recipients: usize, most: Option<usize>, level: Level) -> Record {
        let asked = most.map_or(recipients, |most| recipients.min(most));
        Record { level, rcpts: vec![None; recipients], asked, ..Record::default() }
    }

    /// Recipients the server has accepted at RCPT.
    pub fn valid(&self) -> usize {
        self.rcpts.iter().flatten().filter(|heard| heard.is_yes()).count()
    }

    /// Every RCPT that was sent has been answered with a no.
    pub fn nobody_is_left(&self) -> bool {
        self.rcpts[..self.asked].iter().all(|heard| heard.as_ref().is_some_and(|heard| !heard.is_yes()))
    }
}
