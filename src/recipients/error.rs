//! What can be wrong with a list as a whole, and with one row of it.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;

/// A row that cannot be used; the others go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Data rows count from 1; a CSV header and empty lines are no rows.
    pub number: u64,
    /// The line of the file the row begins in, where the source has lines.
    pub line: Option<u64>,
    /// What the row's recipient may be recognised by: the address as the list has it, if it was read.
    pub key_hint: Option<String>,
    /// One sentence without a full stop.
    pub reason: String,
}

/// A mistake of the list as a whole.
#[derive(Debug, thiserror::Error)]
pub enum RecipientsError {
    /// There is no such file.
    #[error("the list {} does not exist", file.display())]
    Missing {
        /// The list.
        file: PathBuf,
    },
    /// It cannot be opened, or is a folder.
    #[error("the list {} cannot be opened", file.display())]
    Unreadable {
        /// The list.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pipe gives what is in it once, and a list is read again: to compare it, and to find all who share a file.
    #[error("the list {} is a pipe, which can be read once: write it to a file, or pipe it in and say `file: \"-\"`", file.display())]
    ReadOnce {
        /// The list.
        file: PathBuf,
    },
    /// Reading stopped in the middle.
    #[error("the list {} cannot be read on", file.display())]
    Io {
        /// The list.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The job names an encoding that nobody knows.
    #[error(
        "`{label}` is no encoding: UTF-8, GB18030, GBK, Big5, UTF-16LE, Shift_JIS, windows-1252 are some"
    )]
    UnknownEncoding {
        /// As the job has it.
        label: String,
    },
    /// The job names a format that is not read.
    #[error("`{format}` is no format of a list: csv, tsv, json, jsonl and yaml are")]
    UnknownFormat {
        /// As the job has it.
        format: String,
    },
    /// A workbook or another packed file stands where text is expected.
    #[error("the list {} is {what}, not text: save it as CSV (UTF-8)", file.display())]
    Packed {
        /// The list.
        file: PathBuf,
        /// What it looks like.
        what: &'static str,
    },
    /// Some bytes are not of the encoding.
    #[error("the list {} is not {encoding} in {}: {hint}", file.display(),
        if *row == 0 { format!("line {line}") } else { format!("row {row} (line {line})") })]
    NotDecodable {
        /// The list.
        file: PathBuf,
        /// What it was read as.
        encoding: &'static str,
        /// The row; 0 is the header.
        row: u64,
        /// The line, from 1.
        line: u64,
        /// What would be right.
        hint: String,
    },
    /// A table needs a header.
    #[error("the list {} has no header: its first line must name the columns{}", file.display(),
        found.as_ref().map(|found| format!(", and it holds the address `{found}`")).unwrap_or_default())]
    NoHeader {
        /// The list.
        file: PathBuf,
        /// An address that stands where a name was expected.
        found: Option<String>,
    },
    /// Between the columns stand commas of a Chinese keyboard.
    #[error("the list {} has one column, `{name}`: `{sign}` is a letter, write `{ours}` between the columns", file.display())]
    ForeignDelimiter {
        /// The list.
        file: PathBuf,
        /// Its header.
        name: String,
        /// What stands there.
        sign: char,
        /// What is meant.
        ours: char,
    },
    /// A column without a name cannot be reached and is nearly always a slip.
    #[error("the list {} has no name for column {column} in its header: name it, or take it out", file.display())]
    UnnamedColumn {
        /// The list.
        file: PathBuf,
        /// From 1.
        column: usize,
    },
    /// Two columns of one name: a template could mean either.
    #[error("the list {} has two columns named `{name}`, {first} and {second}", file.display())]
    RepeatedColumn {
        /// The list.
        file: PathBuf,
        /// The name.
        name: String,
        /// The first, from 1.
        first: usize,
        /// The other.
        second: usize,
    },
    /// `columns:` speaks of a column that the list does not have.
    #[error("the list {} has no column `{name}`{}; its columns are {}", file.display(),
        similar.as_ref().map(|similar| format!(" (did you mean `{similar}`?)")).unwrap_or_default(),
        columns.join(", "))]
    UnknownColumn {
        /// The list.
        file: PathBuf,
        /// As the job has it.
        name: String,
        /// The nearest there is.
        similar: Option<String>,
        /// All there are.
        columns: Vec<String>,
    },
    /// A quote is opened and never closed: all behind it would be one cell.
    #[error("the list {} opens a quote in line {line} and never closes it", file.display())]
    UnterminatedQuote {
        /// The list.
        file: PathBuf,
        /// Where it is opened, from 1.
        line: u64,
    },
    /// A JSON or YAML list that is none.
    #[error("the list {} is not read beyond line {line}: {reason}", file.display())]
    Syntax {
        /// The list.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// One sentence without a full stop.
        reason: String,
    },
    /// Longer than is read.
    #[error("the list {} is longer than {limit} bytes, which is the most for {what}", file.display())]
    TooLong {
        /// The list.
        file: PathBuf,
        /// Bytes.
        limit: usize,
        /// What the limit is for.
        what: &'static str,
    },
    /// Recipients out of a ledger are not in a file: the run reads them there.
    #[error("these recipients are not in a file but in the ledger")]
    NotAFile,
    /// Whoever knows where they are cannot read them.
    #[error("the list {} cannot be read", list.display())]
    Elsewhere {
        /// What the list is called.
        list: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A suppress file has a line that is no address. To pass over it could mean to write to
    /// somebody who asked not to be written to.
    #[error("{} line {line}: `{text}` is not an address", file.display())]
    NotSuppressible {
        /// The suppress file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What stands there, cut.
        text: String,
    },
    /// A suppress file with several columns and none for the address.
    #[error("{} has several columns and none of them is named email, 邮箱 or address", file.display())]
    NoSuppressColumn {
        /// The suppress file.
        file: PathBuf,
    },
}

impl RecipientsError {
    /// How a run ends on it.
    pub fn exit(&self) -> Exit {
        match self {
            RecipientsError::Missing { .. } | RecipientsError::Unreadable { .. } => Exit::NoInput,
            RecipientsError::Io { .. } | RecipientsError::Elsewhere { .. } => Exit::Io,
            RecipientsError::UnknownEncoding { .. }
            | RecipientsError::UnknownFormat { .. }
            | RecipientsError::ReadOnce { .. }
            | RecipientsError::UnknownColumn { .. } => Exit::Job,
            RecipientsError::NotAFile => Exit::Bug,
            _ => Exit::Data,
        }
    }
}
