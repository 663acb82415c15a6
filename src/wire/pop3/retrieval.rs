//! Which messages may be asked for now: a window of bytes by the sizes of LIST.

use std::collections::VecDeque;

use super::Command;

/// How much may be on its way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Octets by LIST; one message above it is asked for alone.
    pub bytes: u64,
    /// Commands. So many short lines always fit the send buffer of a socket: a write that cannot
    /// block needs no reading meanwhile, and no deadlock can come of a server that only writes.
    pub commands: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window { bytes: 2 << 20, commands: 200 }
    }
}

/// A message that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Message number in this session.
    pub number: u32,
    /// Octets by LIST.
    pub size: u64,
}

/// The messages still to come, those asked for, and whether several may be asked for at once.
#[derive(Debug)]
pub struct Retrieval {
    waiting: VecDeque<Wanted>,
    asked: VecDeque<Wanted>,
    asked_bytes: u64,
    window: Window,
    pipelined: bool,
}

impl Retrieval {
    /// Will ask for these, in this order.
    pub fn new(wanted: Vec<Wanted>, window: Window, pipelined: bool) -> Retrieval {
        Retrieval { waiting: wanted.into(), asked: VecDeque::new(), asked_bytes: 0, window, pipelined }
    }

    /// Appends the RETR commands that may be sent now; nothing while more than half of the window
    /// is still on its way, so that commands travel together. Returns how many it added.
    pub fn commands(&mut self, out: &mut Vec<u8>) -> usize {
        let half_full =
            self.asked_bytes > self.window.bytes / 2 || self.asked.len() > self.window.commands / 2;
        if half_full {
            return 0;
        }
        let before = self.asked.len();
        while let Some(&next) = self.waiting.front() {
            let room = match self.asked.len() {
                0 => true,
                n => {
                    self.pipelined
                        && n < self.window.commands
                        && self.asked_bytes.saturating_add(next.size) <= self.window.bytes
                }
            };
            if !room {
                break;
            }
            self.waiting.pop_front();
            self.asked_bytes = self.asked_bytes.saturating_add(next.size);
            self.asked.push_back(next);
            // A command without text of others cannot fail to be a line.
            let _ = Command::Retr(next.number).write(out);
        }
        self.asked.len() - before
    }

    /// Appends one RETR command if nothing is on its way, whatever the window. Returns how many it added.
    pub fn command_alone(&mut self, out: &mut Vec<u8>) -> usize {
        let pipelined = std::mem::replace(&mut self.pipelined, false);
        let added = if self.asked.is_empty() { self.commands(out) } else { 0 };
        self.pipelined = pipelined;
        added
    }

    /// The message that the next reply answers.
    pub fn current(&self) -> Option<Wanted> {
        self.asked.front().copied()
    }

    /// Those asked for and not answered, the current one first.
    pub fn asked(&self) -> impl Iterator<Item = Wanted> {
        self.asked.iter().copied()
    }

    /// How many wait to be asked for.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The current message was answered, with whatever result.
    pub fn answered(&mut self) {
        if let Some(done) = self.asked.pop_front() {
            self.asked_bytes = self.asked_bytes.saturating_sub(done.size);
        }
    }

    /// Wants this one again, after all others.
    pub fn again(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
    }

    /// Wants this one again, before all others that wait.
    pub fn first(&mut self, wanted: Wanted) {
        self.waiting.push_front(wanted);
    }

    /// Nothing more is asked for; what is on its way still comes.
    pub fn stop(&mut self) {
        self.waiting.clear();
    }

    /// Whether several are asked for at once.
    pub fn is_pipelined(&self) -> bool {
        self.pipelined
    }

    /// From now on one at a time.
    pub fn step_down(&mut self) {
        self.pipelined = false;
    }

    /// Everything not answered, in order: what a new session has to ask for.
    pub fn left(self) -> Vec<Wanted> {
        self.asked.into_iter().chain(self.waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(sizes: &[u64]) -> Vec<Wanted> {
        sizes.iter().zip(1..).map(|(&size, number)| Wanted { number, size }).collect()
    }

    fn flight(retrieval: &mut Retrieval) -> String {
        let mut out = Vec::new();
        retrieval.commands(&mut out);
        String::from_utf8_lossy(&out).replace("RETR ", "").replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn a_window_counts_bytes_and_commands() {
        let window = Window { bytes: 100, commands: 3 };
        for (sizes, pipelined, expected) in [
            (&[10, 10, 10, 10][..], true, "1 2 3"),
            (&[60, 60, 10], true, "1"),
            (&[500, 1], true, "1"),
            (&[40, 60, 1], true, "1 2"),
            (&[10, 10], false, "1"),
            (&[], true, ""),
        ] {
            let mut retrieval = Retrieval::new(wanted(sizes), window, pipelined);
            assert_eq!(flight(&mut retrieval), expected, "{sizes:?}");
        }
    }

    #[test]
    fn more_is_asked_for_when_half_has_come() {
        let mut retrieval = Retrieval::new(wanted(&[30; 6]), Window { bytes: 120, commands: 10 }, true);
        assert_eq!(flight(&mut retrieval), "1 2 3 4");
        retrieval.answered();
        assert_eq!(flight(&mut retrieval), "", "three of four are on their way");
        retrieval.answered();
        assert_eq!(flight(&mut retrieval), "5 6");
        assert_eq!(retrieval.current(), Some(Wanted { number: 3, size: 30 }));
        retrieval.step_down();
        let left: Vec<u32> = retrieval.left().iter().map(|wanted| wanted.number).collect();
        assert_eq!(left, [3, 4, 5, 6]);
    }
}
