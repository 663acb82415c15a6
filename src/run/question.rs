//! A question that a person answers on a terminal.

use std::io::{self, BufRead as _};

use crate::talk;

/// Asks; whether the answer is yes. Nothing stays locked: who is interrupted meanwhile has a word to say there.
pub(super) fn ask(question: &str) -> io::Result<bool> {
    talk::question(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "是" | "好"))
}
