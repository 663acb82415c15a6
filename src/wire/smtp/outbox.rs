//! What is to be written, in order: commands and small contents in one staging buffer, large
//! contents by reference to the letter that holds them.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Contents up to this many octets are copied behind their commands: one slice instead of three
/// costs less than the copy. Larger ones are written from where they lie.
const COPIED: usize = 16 * 1024;
/// A staging buffer that grew beyond this gives its memory back when it is empty.
const KEPT: usize = 256 * 1024;

/// The stretches of one content.
pub trait Content {
    /// Octets in all.
    fn octets(&self) -> usize;
    /// How many stretches there are.
    fn stretches(&self) -> usize;
    /// The n-th stretch.
    fn stretch(&self, n: usize) -> &[u8];
}

/// The line out. Positions count octets since the session began.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    staged: Vec<u8>,
    /// Octets of `staged` that are written.
    head: usize,
    pieces: VecDeque<Piece>,
    queued: u64,
    written: u64,
    /// What is said, for whoever listens.
    said: Option<Vec<Said>>,
}

/// What a listener is told: commands as they are, secrets only that they were said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Commands with their line ends.
    Lines(Vec<u8>),
    /// A line with a secret: what comes before it.
    Secret(String),
    /// So many octets of content.
    Content(u64),
}

#[derive(Debug)]
enum Piece {
    /// So many octets of the staging buffer.
    Staged(usize),
    /// A stretch of a letter's content, from an offset on.
    Stretch { letter: u64, stretch: usize, from: usize },
}

impl Outbox {
    /// Octets queued since the session began: the position behind the last one.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Octets written since the session began.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether something waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.queued == self.written
    }

    /// Keeps from now on what is said.
    pub(super) fn listen(&mut self) {
        self.said.get_or_insert_default();
    }

    /// What was said since this was asked last.
    pub(super) fn said(&mut self) -> Vec<Said> {
        self.said.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Appends what `write` pushes.
    pub(super) fn stage(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.staged.len();
        write(&mut self.staged);
        if let Some(said) = &mut self.said {
            said.push(Said::Lines(self.staged[before.min(self.staged.len())..].to_vec()));
        }
        self.staged_more(self.staged.len().saturating_sub(before));
    }

    /// Appends a line that no listener may hear; `shown` is what comes before the secret.
    pub(super) fn stage_secret(&mut self, shown: &str, line: &[u8]) {
        if let Some(said) = &mut self.said {
            said.push(Said::Secret(shown.to_owned()));
        }
        self.staged.extend_from_slice(line);
        self.staged_more(line.len());
    }

    /// Appends the content of a letter.
    pub(super) fn content(&mut self, letter: u64, content: &impl Content) {
        if let Some(said) = &mut self.said {
            said.push(Said::Content(content.octets() as u64));
        }
        let copied = if content.octets() <= COPIED { COPIED } else { COPIED / 8 };
        for n in 0..content.stretches() {
            let stretch = content.stretch(n);
            if stretch.is_empty() {
                continue;
            }
            if stretch.len() <= copied {
                self.staged.extend_from_slice(stretch);
                self.staged_more(stretch.len());
            } else {
                self.queued += stretch.len() as u64;
                self.pieces.push_back(Piece::Stretch { letter, stretch: n, from: 0 });
            }
        }
    }

    /// Fills `slices` with what comes next; gives how many were filled.
    pub(super) fn gather<'a, C: Content + 'a>(
        &'a self,
        slices: &mut [IoSlice<'a>],
        letter: impl Fn(u64) -> Option<&'a C>,
    ) -> usize {
        let (mut filled, mut at) = (0, self.head);
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(match *piece {
                Piece::Staged(length) => {
                    at += length;
                    &self.staged[at - length..at]
                }
                Piece::Stretch { letter: number, stretch, from } => match letter(number) {
                    Some(content) => &content.stretch(stretch)[from..],
                    None => break,
                },
            });
            filled += 1;
        }
        filled
    }

    /// So many octets of what was gathered are written.
    pub(super) fn wrote<'a, C: Content + 'a>(
        &mut self,
        octets: usize,
        letter: impl Fn(u64) -> Option<&'a C>,
    ) {
        self.written += octets as u64;
        let mut left = octets;
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let done = match piece {
                Piece::Staged(length) => {
                    let part = left.min(*length);
                    *length -= part;
                    self.head += part;
                    left -= part;
                    *length == 0
                }
                Piece::Stretch { letter: number, stretch, from } => {
                    let length = letter(*number).map_or(0, |content| content.stretch(*stretch).len());
                    let part = left.min(length.saturating_sub(*from));
                    *from += part;
                    left -= part;
                    *from >= length
                }
            };
            if !done {
                break;
            }
            self.pieces.pop_front();
        }
        if self.head == self.staged.len() {
            self.head = 0;
            self.staged.clear();
            if self.staged.capacity() > KEPT {
                self.staged.shrink_to(KEPT);
            }
        } else if self.head > KEPT {
            self.staged.drain(..self.head);
            self.head = 0;
        }
    }

    fn staged_more(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        self.queued += length as u64;
        match self.pieces.back_mut() {
            Some(Piece::Staged(last)) => *last += length,
            _ => self.pieces.push_back(Piece::Staged(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stretches(Vec<Vec<u8>>);

    impl Content for Stretches {
        fn octets(&self) -> usize {
            self.0.iter().map(Vec::len).sum()
        }
        fn stretches(&self) -> usize {
            self.0.len()
        }
        fn stretch(&self, n: usize) -> &[u8] {
            &self.0[n]
        }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_however_little_is_taken() {
        let letters = [
            Stretches(vec![b"small".to_vec(), b" one".to_vec()]),
            Stretches(vec![
                b"head".to_vec(),
                vec![b'x'; 40_000],
                vec![],
                vec![b'y'; 9_000],
                b"tail".to_vec(),
            ]),
            Stretches(vec![]),
        ];
        let mut expected = Vec::new();
        for taken in [1, 7, 4_999, 1 << 20] {
            let mut outbox = Outbox::default();
            expected.clear();
            for (number, letter) in (0..).zip(&letters) {
                outbox.stage(|staged| staged.extend_from_slice(b"MAIL\r\n"));
                outbox.content(number, letter);
                expected.extend_from_slice(b"MAIL\r\n");
                letter.0.iter().for_each(|stretch| expected.extend_from_slice(stretch));
            }
            let mut got = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(b""); 3];
                let filled = outbox.gather(&mut slices, |number| letters.get(number as usize));
                let mut left = taken;
                for slice in &slices[..filled] {
                    let part = left.min(slice.len());
                    got.extend_from_slice(&slice[..part]);
                    left -= part;
                }
                assert!(left < taken, "something came out");
                outbox.wrote(taken - left, |number| letters.get(number as usize));
            }
            assert!(got == expected, "taken {taken} at a time");
            assert_eq!(outbox.queued(), expected.len() as u64);
            assert!(outbox.pieces.is_empty() && outbox.staged.is_empty());
        }
    }
}
