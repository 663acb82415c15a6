//! Editions: a recipient gets each of them once. What a run does about them is a pure function,
//! [`course`].

use std::fmt;

use crate::letter::Purpose;

use super::{Counts, State, changes};

/// The number of an edition in its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EditionId(pub(super) u32);

/// An edition as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// Its number.
    pub id: EditionId,
    /// The job's name.
    pub job: String,
    /// The edition's name, evaluated when it was begun.
    pub name: String,
    /// Whether a letter is meant.
    pub purpose: Purpose,
    /// Over what the reader sees.
    pub fingerprint: [u8; 32],
    /// The IANA name of the time zone it was begun in.
    pub timezone: String,
    /// Unix seconds.
    pub begun: i64,
    /// Unix seconds at which the whole list was in; `None` while enlisting has not ended.
    pub enlisted_at: Option<i64>,
    /// Unix seconds at which nothing was left to send; a requeue or new rows open it again.
    pub finished_at: Option<i64>,
    /// Unix seconds at which it was left unfinished for a new one, by its name.
    pub left_at: Option<i64>,
    /// Unix seconds at which its deliveries were taken out of the ledger.
    pub pruned_at: Option<i64>,
    /// What was read when the list was last enlisted whole.
    pub source: SourceRecord,
    /// The column layouts of its rows, by [`super::Claimed::layout`]; `None`: rows are objects.
    pub layouts: Vec<Option<Vec<String>>>,
}

impl Edition {
    /// Whether it was finished, or left, before this moment and is not pruned yet.
    pub fn is_older_than(&self, before: i64) -> bool {
        self.pruned_at.is_none() && self.finished_at.or(self.left_at).is_some_and(|at| at < before)
    }

    /// Whether something of it may still be to send, and it was not left on purpose.
    pub fn is_unfinished(&self) -> bool {
        self.finished_at.is_none() && self.left_at.is_none() && self.pruned_at.is_none()
    }
}

/// What was read when a list was enlisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceRecord {
    /// BLAKE3 of the bytes; `None`: it is to be read again.
    pub hash: Option<[u8; 32]>,
    /// Data rows read.
    pub rows: u64,
    /// Rows that `where` left out.
    pub filtered: u64,
    /// Rows equal to an earlier one.
    pub duplicates: u64,
}

/// An edition that is to be begun.
#[derive(Debug, Clone, Copy)]
pub struct NewEdition<'a> {
    /// The job's name.
    pub job: &'a str,
    /// The edition's name.
    pub name: &'a str,
    /// Whether a letter is meant.
    pub purpose: Purpose,
    /// Over what the reader sees.
    pub fingerprint: [u8; 32],
    /// What the fingerprint is made of, piece by piece.
    pub components: &'a [Component],
    /// The IANA name of the time zone.
    pub timezone: &'a str,
    /// Unix seconds.
    pub now: i64,
}

/// A piece of what the reader sees: a template, the subject, a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// `templates/newsletter.html`, `subject`, `vars`.
    pub name: String,
    /// BLAKE3 of it.
    pub hash: [u8; 32],
    /// Its text, where a person may want to see which lines changed.
    pub text: Option<String>,
}

/// What a run was asked, as far as editions go.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The name the job file gives now.
    pub name: &'a str,
    /// `--edition`
    pub chosen: Option<&'a str>,
    /// `--new-edition`
    pub new_edition: bool,
    /// `--accept-changes`
    pub accept_changes: bool,
    /// Over what the reader sees, now.
    pub fingerprint: [u8; 32],
}

/// What a run does about editions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// Begin an edition of this name; the editions named are left unfinished, as was asked.
    Begin {
        /// Its name.
        name: String,
        /// What [`super::Ledger::leave`] is to be told.
        leaving: Vec<EditionId>,
    },
    /// Go on with an edition, or look whether its list has grown.
    Resume {
        /// Which.
        id: EditionId,
        /// What the reader sees has changed, and that is in order: [`super::Ledger::accept_changes`].
        accept: bool,
    },
    /// Nothing is sent, exit 78.
    Stop(Stop),
}

/// Why a run may not go on without a word from its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Another edition is unfinished.
    Unfinished {
        /// The one that is unfinished.
        unfinished: String,
        /// Letters it still has to send; `None`: its list was not taken in whole.
        open: Option<u64>,
        /// The one that was asked for.
        asked: String,
        /// Whether that one exists already.
        exists: bool,
    },
    /// What the reader sees has changed in the middle of an edition.
    Changed {
        /// Which edition.
        id: EditionId,
        /// Its name.
        name: String,
        /// Letters sent before the change.
        sent: u64,
        /// Letters that would be others.
        open: u64,
    },
    /// What the reader sees has changed, and the edition is finished.
    FinishedChanged {
        /// Which edition.
        id: EditionId,
        /// Its name.
        name: String,
    },
    /// `--edition` names none that exists.
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It was sent, and pruned since: who got it is not known any more.
    Pruned {
        /// Its name.
        name: String,
    },
    /// `--new-edition`, but its name is taken.
    Taken {
        /// The name.
        name: String,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Unfinished { unfinished, open, asked, exists } => {
                write!(f, "edition {unfinished} is not finished: ")?;
                match open {
                    Some(open) => write!(f, "{} to send", changes::letters(*open))?,
                    None => f.write_str("its list was not taken in whole")?,
                }
                write!(f, ". `--edition {unfinished}` finishes it, ")?;
                match exists {
                    true => write!(f, "`--edition {asked}` leaves it and goes on with {asked}"),
                    false => write!(f, "`--new-edition` leaves it as it is and begins {asked}"),
                }
            }
            Stop::Changed { name, sent, open, .. } => write!(
                f,
                "what the reader sees has changed since edition {name} was begun: {} sent as it was, {} would be \
                 another. `--accept-changes` goes on",
                changes::letters_were(*sent),
                changes::letters(*open)
            ),
            Stop::FinishedChanged { name, .. } => write!(
                f,
                "edition {name} is finished, and what the reader sees has changed since. Did you mean a new edition? \
                 Give it a name of its own in `edition:`; `--accept-changes` sends the changed letter to recipients \
                 who are new on the list"
            ),
            Stop::Unknown { name, known } if known.is_empty() => {
                write!(
                    f,
                    "there is no edition {name} to finish: the job file's `edition:` names the one to begin"
                )
            }
            Stop::Unknown { name, known } => write!(
                f,
                "there is no edition {name} to finish; there is {}. The job file's `edition:` names the one to begin",
                known.join(", ")
            ),
            Stop::Pruned { name } => write!(
                f,
                "edition {name} was sent and has been pruned: nobody knows who got it. Give the new one a name of its \
                 own in `edition:`"
            ),
            Stop::Taken { name } => {
                write!(f, "edition {name} exists already: give the new one a name of its own in `edition:`")
            }
        }
    }
}

/// What is done, given the editions of a job and how many letters of each stand where.
pub fn course(editions: &[(Edition, Counts)], request: &Request<'_>) -> Course {
    let name = request.chosen.unwrap_or(request.name);
    // A run that died after its last letter has left nothing to send, whatever it could still record.
    let through = |edition: &Edition, counts: &Counts| edition.enlisted_at.is_some() && counts.open() == 0;
    let others = || {
        editions.iter().filter(move |(edition, counts)| {
            edition.name != name && edition.is_unfinished() && !through(edition, counts)
        })
    };
    let same = editions.iter().find(|(edition, _)| edition.name == name);

    if request.new_edition {
        return match same {
            Some(_) => Course::Stop(Stop::Taken { name: name.to_owned() }),
            None => Course::Begin {
                name: name.to_owned(),
                leaving: others().map(|(edition, _)| edition.id).collect(),
            },
        };
    }
    // Named by its operator, an edition needs no leave of the others; and a name nobody gave before
    // is rather a slip of the keyboard than a wish to mail everybody again.
    if request.chosen.is_none() {
        if let Some((edition, counts)) = others().next_back() {
            return Course::Stop(Stop::Unfinished {
                unfinished: edition.name.clone(),
                open: edition.enlisted_at.map(|_| counts.open()),
                asked: name.to_owned(),
                exists: same.is_some(),
            });
        }
    } else if same.is_none() && name != request.name {
        let known = editions.iter().map(|(edition, _)| edition.name.clone()).collect();
        return Course::Stop(Stop::Unknown { name: name.to_owned(), known });
    }

    let Some((edition, counts)) = same else {
        return Course::Begin { name: name.to_owned(), leaving: Vec::new() };
    };
    if edition.pruned_at.is_some() {
        return Course::Stop(Stop::Pruned { name: edition.name.clone() });
    }
    let id = edition.id;
    let changed = edition.fingerprint != request.fingerprint;
    let sent: u64 = [State::Sending, State::Accepted, State::Refused, State::Deferred, State::Unsure]
        .into_iter()
        .map(|state| counts.of(state))
        .sum();
    // Before the first letter is sent a change is nobody's surprise.
    if changed && sent > 0 && !request.accept_changes {
        let name = edition.name.clone();
        return Course::Stop(match counts.open() {
            0 => Stop::FinishedChanged { id, name },
            open => Stop::Changed { id, name, sent, open },
        });
    }
    Course::Resume { id, accept: changed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edition(id: u32, name: &str, finished: bool, enlisted: bool) -> Edition {
        Edition {
            id: EditionId(id),
            job: "newsletter".into(),
            name: name.into(),
            purpose: Purpose::Real,
            fingerprint: [1; 32],
            timezone: "UTC".into(),
            begun: 0,
            enlisted_at: enlisted.then_some(1),
            finished_at: finished.then_some(2),
            left_at: None,
            pruned_at: None,
            source: SourceRecord::default(),
            layouts: Vec::new(),
        }
    }

    fn counts(pending: u64, accepted: u64) -> Counts {
        let mut counts = Counts::default();
        counts.add(State::Pending, pending);
        counts.add(State::Accepted, accepted);
        counts
    }

    #[test]
    fn editions_take_their_course() {
        let half = || (edition(1, "11", false, true), counts(5, 3));
        let done = || (edition(1, "11", true, true), counts(0, 8));
        let grown = || (edition(1, "11", true, true), counts(2, 8));
        let untried = || (edition(1, "11", false, true), counts(8, 0));
        let partial = || (edition(1, "11", false, false), counts(4, 0));
        let left = || (Edition { left_at: Some(3), ..edition(1, "11", false, true) }, counts(5, 3));
        let pruned = || (Edition { pruned_at: Some(3), ..edition(1, "11", true, true) }, counts(0, 0));
        let gone = Course::Stop(Stop::Pruned { name: "11".into() });
        let next = || (edition(2, "12", false, true), counts(1, 1));

        let resume = |id, accept| Course::Resume { id: EditionId(id), accept };
        let begin = |name: &str| Course::Begin { name: name.into(), leaving: vec![] };
        let leaving = |name: &str| Course::Begin { name: name.into(), leaving: vec![EditionId(1)] };
        let unfinished = |open, asked: &str| {
            Course::Stop(Stop::Unfinished {
                unfinished: "11".into(),
                open,
                asked: asked.into(),
                exists: false,
            })
        };
        let both_unfinished = Course::Stop(Stop::Unfinished {
            unfinished: "11".into(),
            open: Some(5),
            asked: "12".into(),
            exists: true,
        });
        let changed = Course::Stop(Stop::Changed { id: EditionId(1), name: "11".into(), sent: 3, open: 5 });
        let finished_changed = Course::Stop(Stop::FinishedChanged { id: EditionId(1), name: "11".into() });
        let taken = |name: &str| Course::Stop(Stop::Taken { name: name.into() });
        let unknown =
            |name: &str| Course::Stop(Stop::Unknown { name: name.into(), known: vec!["11".into()] });

        // what there is; name, --edition, --new-edition, --accept-changes, what the reader sees; what is done
        let table = [
            (vec![], "11", None, false, false, 1, begin("11")),
            (vec![], "11", None, true, false, 1, begin("11")),
            (vec![], "11", Some("11"), false, false, 1, begin("11")),
            (vec![half()], "11", None, false, false, 1, resume(1, false)),
            (vec![half()], "11", None, false, false, 2, changed),
            (vec![half()], "11", None, false, true, 2, resume(1, true)),
            (vec![half()], "11", None, true, false, 1, taken("11")),
            (vec![half()], "12", None, false, false, 1, unfinished(Some(5), "12")),
            (vec![half()], "12", None, false, true, 2, unfinished(Some(5), "12")),
            (vec![half()], "12", None, true, false, 1, leaving("12")),
            (vec![half()], "12", Some("11"), false, false, 1, resume(1, false)),
            (vec![half()], "12", Some("13"), false, false, 1, unknown("13")),
            (vec![half()], "12", Some("13"), true, false, 1, leaving("13")),
            (vec![half()], "12", Some("12"), false, false, 1, begin("12")),
            (vec![(edition(1, "11", false, true), counts(0, 8))], "12", None, false, false, 1, begin("12")),
            (vec![left()], "12", None, false, false, 1, begin("12")),
            (vec![left(), next()], "12", None, false, false, 1, resume(2, false)),
            (vec![left(), next()], "12", Some("11"), false, false, 1, resume(1, false)),
            (vec![half(), next()], "12", None, false, false, 1, both_unfinished),
            (vec![done()], "11", None, false, false, 1, resume(1, false)),
            (vec![done()], "11", None, false, false, 2, finished_changed),
            (vec![done()], "11", None, false, true, 2, resume(1, true)),
            (vec![done()], "12", None, false, false, 2, begin("12")),
            (vec![pruned()], "11", None, false, true, 1, gone),
            (vec![pruned()], "12", None, false, false, 1, begin("12")),
            (vec![grown()], "11", None, false, false, 1, resume(1, false)),
            (vec![untried()], "11", None, false, false, 2, resume(1, true)),
            (vec![untried()], "12", None, false, false, 1, unfinished(Some(8), "12")),
            (vec![partial()], "11", None, false, false, 2, resume(1, true)),
            (vec![partial()], "12", None, false, false, 1, unfinished(None, "12")),
        ];
        for (line, (editions, name, chosen, new_edition, accept_changes, seen, expected)) in
            table.into_iter().enumerate()
        {
            let request = Request { name, chosen, new_edition, accept_changes, fingerprint: [seen; 32] };
            assert_eq!(course(&editions, &request), expected, "line {line}: {request:?}");
        }
    }

    #[test]
    fn a_stop_says_what_to_do() {
        let stop = Stop::Unfinished {
            unfinished: "11".into(),
            open: Some(1_234),
            asked: "12".into(),
            exists: false,
        };
        assert_eq!(
            stop.to_string(),
            "edition 11 is not finished: 1,234 letters to send. `--edition 11` finishes it, `--new-edition` leaves \
             it as it is and begins 12"
        );
        let stop = Stop::Changed { id: EditionId(1), name: "11".into(), sent: 1, open: 5 };
        assert!(stop.to_string().contains("1 letter was sent as it was, 5 letters would be another"));
    }
}
