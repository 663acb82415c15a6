//! The answer of a command, on stdout. Whoever closed the pipe has read enough, but an answer that a full disk did
//! not take is lost, and that is no success.

use std::io::{self, Write as _};

use crate::exit::Exit;
use crate::talk;

/// Writes the answer, or a part of it.
pub(super) fn print(answer: impl AsRef<[u8]>) -> Exit {
    let mut out = io::stdout().lock();
    printed(out.write_all(answer.as_ref()).and_then(|()| out.flush()))
}

/// How writing it ends the command.
pub(super) fn printed(written: io::Result<()>) -> Exit {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            talk::error(&format!("cannot write to stdout: {error}"));
            Exit::Io
        }
        _ => Exit::Done,
    }
}
