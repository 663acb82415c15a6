//! The addresses of a relay, and which of them is next: when one leads nowhere, the others are tried (RFC 5321 §5.1).
//! A value; who looks names up tells it what was found.

use std::net::SocketAddr;

/// Addresses in the order in which they are tried, round and round.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    all: Vec<SocketAddr>,
    next: usize,
    /// They are to be looked up again: names move.
    stale: bool,
}

impl Addresses {
    /// How many there are, as far as is known.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether the name is to be looked up before a connection is made.
    pub(super) fn are_wanted(&self) -> bool {
        self.stale || self.all.is_empty()
    }

    /// What the name stands for now. The one whose turn it is stays next, if it is still among them.
    pub(super) fn found(&mut self, all: Vec<SocketAddr>) {
        let next = self.next();
        self.next = all.iter().position(|&address| Some(address) == next).unwrap_or(0);
        self.all = all;
        self.stale = false;
    }

    /// They are looked up again before the next connection.
    pub(super) fn expire(&mut self) {
        self.stale = true;
    }

    /// The address that the next connection is made to.
    pub(super) fn next(&self) -> Option<SocketAddr> {
        self.all.get(self.next).copied()
    }

    /// A connection to this one was ready: the next one goes there, too.
    pub(super) fn worked(&mut self, address: SocketAddr) {
        if let Some(place) = self.all.iter().position(|&known| known == address) {
            self.next = place;
        }
    }

    /// A connection to this one ended before it was ready. Of several that were made at once the first to end passes
    /// the turn on.
    pub(super) fn led_nowhere(&mut self, address: SocketAddr) {
        if self.next() == Some(address) {
            self.next = (self.next + 1) % self.all.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 25))
    }

    #[test]
    fn each_has_its_turn_and_the_one_that_works_stays() {
        let mut addresses = Addresses::default();
        assert!(addresses.are_wanted() && addresses.next().is_none());
        addresses.led_nowhere(at(1));
        addresses.found(vec![at(1), at(2), at(3)]);
        assert!(!addresses.are_wanted());
        for (failed, next) in [(1, 2), (1, 2), (2, 3), (3, 1), (1, 2)] {
            addresses.led_nowhere(at(failed));
            assert_eq!(addresses.next(), Some(at(next)), "{failed} led nowhere");
        }
        addresses.worked(at(3));
        assert_eq!(addresses.next(), Some(at(3)));
        addresses.worked(at(9));
        assert_eq!(addresses.next(), Some(at(3)), "one that is not known");
    }

    #[test]
    fn a_new_list_does_not_start_at_the_first_again() {
        for (found, next) in [
            (&[1, 2, 3][..], 2),
            (&[2, 3, 1], 2), // a resolver that turns its answers
            (&[4, 2], 2),
            (&[4, 5], 4),
        ] {
            let mut addresses = Addresses::default();
            addresses.found(vec![at(1), at(2), at(3)]);
            addresses.expire();
            addresses.led_nowhere(at(1));
            assert!(addresses.are_wanted());
            addresses.found(found.iter().map(|&last| at(last)).collect());
            assert_eq!((addresses.next(), addresses.are_wanted()), (Some(at(next)), false), "{found:?}");
        }
    }
}
