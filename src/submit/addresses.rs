//! The addresses of a relay, and which of them is next: when one leads nowhere, the others are tried (RFC 5321 §5.1).
//! A value; who looks names up tells it what was found.

use std::net::SocketAddr;

/// Addresses in the order in which they are tried, the one that works first.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    all: Vec<SocketAddr>,
    /// A connection to it was ready, the last of all.
    worked: Option<SocketAddr>,
    /// Those that led nowhere, until that is true of all.
    shunned: Vec<SocketAddr>,
    /// Those that another one outran: they have not answered yet.
    outrun: Vec<SocketAddr>,
    /// They are to be looked up again: names move.
    stale: bool,
}

impl Addresses {
    /// Whether the name is to be looked up before a connection is made.
    pub(super) fn are_wanted(&self) -> bool {
        self.stale || self.all.is_empty()
    }

    /// What the name stands for now.
    pub(super) fn found(&mut self, all: Vec<SocketAddr>) {
        self.shunned.retain(|address| all.contains(address));
        self.outrun.retain(|address| all.contains(address));
        self.all = all;
        self.stale = false;
    }

    /// They are looked up again before the next connection.
    pub(super) fn expire(&mut self) {
        self.stale = true;
    }

    /// Whether there is one that has not led nowhere yet.
    pub(super) fn any_left(&self) -> bool {
        self.shunned.len() < self.all.len()
    }

    /// Those that the next connection may be made to. Once all have led nowhere, each has another chance.
    pub(super) fn next(&mut self) -> Vec<SocketAddr> {
        if !self.any_left() {
            self.shunned.clear();
        }
        let mut left: Vec<_> =
            self.all.iter().copied().filter(|address| !self.shunned.contains(address)).collect();
        left.sort_by_key(|&address| self.worked != Some(address));
        left
    }

    /// A connection to this one was ready: the next one goes there first.
    pub(super) fn worked(&mut self, address: SocketAddr) {
        self.worked = Some(address);
        self.shunned.retain(|&shunned| shunned != address);
        self.outrun.retain(|&outrun| outrun != address);
    }

    /// Whether a connection to any of them was ready.
    pub(super) fn have_worked(&self) -> bool {
        self.worked.is_some()
    }

    /// Another one answered, and this one not yet.
    pub(super) fn outran(&mut self, address: SocketAddr) {
        if !self.outrun.contains(&address) {
            self.outrun.push(address);
        }
    }

    /// Whether all of these were outrun by another: not much is to be expected of them.
    pub(super) fn are_outrun(&self, addresses: &[SocketAddr]) -> bool {
        addresses.iter().all(|address| self.outrun.contains(address))
    }

    /// A connection to this one could not be made, or ended before it was ready.
    pub(super) fn led_nowhere(&mut self, address: SocketAddr) {
        if self.all.contains(&address) && !self.shunned.contains(&address) {
            self.shunned.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 25))
    }

    fn all(lasts: &[u8]) -> Vec<SocketAddr> {
        lasts.iter().map(|&last| at(last)).collect()
    }

    #[test]
    fn each_has_its_turn_and_the_one_that_works_is_first() {
        let mut addresses = Addresses::default();
        assert!(addresses.are_wanted() && addresses.next().is_empty() && !addresses.any_left());
        addresses.led_nowhere(at(1));
        addresses.found(all(&[1, 2, 3]));
        assert!(!addresses.are_wanted());
        for (failed, any_left, next) in [
            (2, true, &[1, 3][..]),
            (2, true, &[1, 3]),
            (9, true, &[1, 3]), // one that is not known
            (1, true, &[3]),
            (3, false, &[1, 2, 3]),
        ] {
            addresses.led_nowhere(at(failed));
            assert_eq!(
                (addresses.any_left(), addresses.next()),
                (any_left, all(next)),
                "{failed} led nowhere"
            );
        }
        addresses.led_nowhere(at(3));
        addresses.worked(at(3));
        assert_eq!(addresses.next(), all(&[3, 1, 2]));
        addresses.led_nowhere(at(1));
        addresses.led_nowhere(at(3));
        assert_eq!(addresses.next(), all(&[2]));
    }

    #[test]
    fn a_new_list_forgets_nothing_of_those_that_stay() {
        for (found, next) in [
            (&[1, 2, 3][..], &[3, 2][..]),
            (&[2, 3, 1], &[3, 2]), // a resolver that turns its answers
            (&[4, 2], &[4, 2]),
            (&[1], &[1]),
        ] {
            let mut addresses = Addresses::default();
            addresses.found(all(&[1, 2, 3]));
            addresses.worked(at(3));
            addresses.led_nowhere(at(1));
            addresses.expire();
            assert!(addresses.are_wanted());
            addresses.found(all(found));
            assert_eq!((addresses.next(), addresses.are_wanted()), (all(next), false), "{found:?}");
        }
    }
}
