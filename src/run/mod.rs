//! One file per command; wires the rooms together and owns no craft.

use crate::exit::Exit;

/// Runs the command line; stdout is the answer, stderr the talk.
pub fn main() -> Exit {
    Exit::Usage
}
