//! Why a row's enclosures could not be found, or must not be sent.

use std::io;
use std::path::PathBuf;

use super::OtherKey;

/// A mistake about the files of one row, or of the pattern for all of them.
#[derive(Debug, thiserror::Error)]
pub enum EnclosureError {
    /// The job's own words are no pattern.
    #[error("`{pattern}` is no pattern: {reason}")]
    Pattern {
        /// As resolved.
        pattern: String,
        /// One sentence without a full stop.
        reason: &'static str,
    },
    /// A row contributed what may not stand in a path.
    #[error("a value in `{pattern}` {reason}")]
    Value {
        /// As resolved.
        pattern: String,
        /// One sentence without a full stop, the value being its subject.
        reason: &'static str,
    },
    /// No file is there.
    #[error("no file matches `{}`{}", pattern.display(), if nearest.is_empty() { String::new() } else {
        format!("; the nearest names there are {}", nearest.join(", "))
    })]
    NoMatch {
        /// As resolved.
        pattern: PathBuf,
        /// At most three names, the nearest first.
        nearest: Vec<String>,
    },
    /// More or fewer files than the job expects.
    #[error("`{}` finds {found} {}, and {} expected", pattern.display(), files(*found), range(*expected))]
    Number {
        /// As resolved.
        pattern: PathBuf,
        /// How many there are.
        found: usize,
        /// At least and at most.
        expected: (usize, usize),
    },
    /// A row's value goes on in the name that a wildcard beside it finds: `1*` and `10.pdf`.
    #[error("`{}` also finds `{}`, where the row's value goes on and so may be another's: set it off \
        in the pattern, as in `{{{{ id }}}}-*`, or say `shared: true`", pattern.display(), file.display())]
    RunsOn {
        /// As resolved.
        pattern: PathBuf,
        /// What it finds.
        file: PathBuf,
    },
    /// A link, or the way written, leads out of the folder that stands before the row's value.
    #[error("`{}` leads out of `{}`", file.display(), folder.display())]
    LeadsOut {
        /// What was found.
        file: PathBuf,
        /// Where the row's value had to stay.
        folder: PathBuf,
    },
    /// A file that is another recipient's too, or a picture that a wildcard finds by another value, too.
    #[error("{other}{}", if *picture { ", by another value" } else { ": say `shared: true` if it is for both" })]
    Claimed {
        /// Which.
        other: OtherKey,
        /// It is a picture, which many may have.
        picture: bool,
    },
    /// What is named is a folder, a pipe or a device.
    #[error("`{}` is {what}, not a file", file.display())]
    NotAFile {
        /// What was found.
        file: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file or folder that we may not read.
    #[error("`{}` cannot be read", file.display())]
    Unreadable {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder with more below it than is kept in memory.
    #[error("`{}` holds more than {limit} names: too many for one pattern", folder.display())]
    TooMany {
        /// Where the pattern begins to look.
        folder: PathBuf,
        /// The limit.
        limit: usize,
    },
}

fn files(number: usize) -> &'static str {
    if number == 1 { "file" } else { "files" }
}

fn range((least, most): (usize, usize)) -> String {
    match (least, most) {
        (1, 1) => "1 is".to_owned(),
        (least, most) if least == most => format!("{least} are"),
        (least, usize::MAX) => format!("at least {least} are"),
        (0, most) => format!("at most {most} are"),
        (least, most) => format!("{least} to {most} are"),
    }
}
