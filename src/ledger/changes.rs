//! What has changed in what the reader sees: piece by piece, and line by line where there is text.

use std::collections::BTreeMap;
use std::fmt;

use super::Component;

/// Lines of a piece that are compared one by one; of longer ones the stretch that differs is shown.
const COMPARED: usize = 1_000;

/// Lines shown of one piece.
const SHOWN: usize = 12;

/// One piece that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub kind: ChangeKind,
    /// Lines that went and came, in order; empty where there is no text to compare.
    pub lines: Vec<Line>,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is there only now.
    Added,
    /// It was there only then.
    Removed,
    /// It is another.
    Changed,
}

/// A line that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// It came; else it went.
    pub came: bool,
    /// Its number in the text it belongs to, from 1.
    pub number: usize,
    /// The line.
    pub text: String,
}

/// The pieces that differ between then and now, by name.
pub fn changes(then: &[Component], now: &[Component]) -> Vec<Change> {
    let by_name = |pieces: &'_ [Component]| -> BTreeMap<String, Component> {
        pieces.iter().map(|piece| (piece.name.clone(), piece.clone())).collect()
    };
    let (mut then, now) = (by_name(then), by_name(now));
    let mut changes = Vec::new();
    for (name, new) in now {
        let (kind, lines) = match then.remove(&name) {
            None => (ChangeKind::Added, Vec::new()),
            Some(old) if old.hash == new.hash => continue,
            Some(old) => {
                let lines = match (&old.text, &new.text) {
                    (Some(old), Some(new)) => lines(old, new),
                    _ => Vec::new(),
                };
                (ChangeKind::Changed, lines)
            }
        };
        changes.push(Change { name, kind, lines });
    }
    let removed = then.into_keys().map(|name| Change { name, kind: ChangeKind::Removed, lines: Vec::new() });
    changes.extend(removed);
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Added => "new",
            ChangeKind::Removed => "gone",
            ChangeKind::Changed => "changed",
        };
        write!(f, "{} ({kind})", self.name)?;
        for line in self.lines.iter().take(SHOWN) {
            write!(f, "\n  {}{:>4} │ {}", if line.came { '+' } else { '-' }, line.number, line.text)?;
        }
        match self.lines.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  … and {more} more lines"),
        }
    }
}

/// The lines that differ, by their longest common subsequence.
fn lines(old: &str, new: &str) -> Vec<Line> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (went, came) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let line =
        |came, place: usize, text: &str| Line { came, number: start + place + 1, text: text.to_owned() };
    if went.len().max(came.len()) > COMPARED {
        let went = went.iter().enumerate().map(|(place, text)| line(false, place, text));
        let came = came.iter().enumerate().map(|(place, text)| line(true, place, text));
        // Both sides within what is shown.
        return went.take(SHOWN / 2).chain(came).collect();
    }
    // common[i][j]: the length of the longest common subsequence of went[i..] and came[j..].
    let mut common = vec![vec![0u16; came.len() + 1]; went.len() + 1];
    for i in (0..went.len()).rev() {
        for j in (0..came.len()).rev() {
            common[i][j] = if went[i] == came[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < went.len() || j < came.len() {
        if i < went.len() && j < came.len() && went[i] == came[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == came.len() || (i < went.len() && common[i + 1][j] >= common[i][j + 1]) {
            found.push(line(false, i, went[i]));
            i += 1;
        } else {
            found.push(line(true, j, came[j]));
            j += 1;
        }
    }
    found
}

/// `1 letter`, `1,234 letters`.
pub(super) fn letters(number: u64) -> String {
    format!("{} {}", crate::measure::grouped(number), if number == 1 { "letter" } else { "letters" })
}

/// `1 letter was`, `1,234 letters were`.
pub(super) fn letters_were(number: u64) -> String {
    format!("{} {}", letters(number), if number == 1 { "was" } else { "were" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &str, hash: u8, text: Option<&str>) -> Component {
        Component { name: name.into(), hash: [hash; 32], text: text.map(str::to_owned) }
    }

    #[test]
    fn changed_pieces_are_named_with_their_lines() {
        let then = [
            piece("images/logo.png", 1, None),
            piece("subject", 2, Some("Hello")),
            piece("templates/a.html", 3, Some("<p>\none\ntwo\nthree\n</p>\n")),
            piece("templates/old.html", 4, Some("x")),
        ];
        let now = [
            piece("images/logo.png", 9, None),
            piece("subject", 2, Some("Hello")),
            piece("templates/a.html", 8, Some("<p>\nzero\none\nTWO\nthree\n</p>\n")),
            piece("templates/new.html", 7, Some("x")),
        ];
        let shown: Vec<String> = changes(&then, &now).iter().map(Change::to_string).collect();
        assert_eq!(
            shown,
            [
                "images/logo.png (changed)",
                "templates/a.html (changed)\n  +   2 │ zero\n  -   3 │ two\n  +   4 │ TWO",
                "templates/new.html (new)",
                "templates/old.html (gone)",
            ]
        );
    }

    #[test]
    fn a_long_text_is_not_compared_line_by_line() {
        let old: String = (0..5_000).map(|n| format!("{n}\n")).collect();
        let new: String = (0..5_000).map(|n| format!("{}\n", n + 1)).collect();
        let shown =
            Change { name: "x".into(), kind: ChangeKind::Changed, lines: lines(&old, &new) }.to_string();
        assert!(shown.lines().count() == SHOWN + 2 && shown.contains("-   1 │ 0\n"), "{shown}");
    }
}
