//! Octets that letters borrow: of one part that many share, or of a part of one letter's own, whose
//! memory goes back to a [`Stock`] when the letter is done.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// A loan is taken from the stock only if it is not longer than this many times what is asked for:
/// a huge buffer under a small part would be memory that nobody counts.
const WASTE: usize = 4;

/// Loans begin at this size, so that parts of about the same size fit each other's.
const GRAIN: usize = 16 << 10;

/// A stretch of octets that is never changed any more; a clone is the same stretch.
#[derive(Clone)]
pub struct Octets(Arc<Inner>);

struct Inner {
    memory: Vec<u8>,
    /// How much of the memory is meant.
    len: usize,
    /// Where the memory goes afterwards.
    stock: Option<Arc<Stock>>,
}

impl Octets {
    /// Whether nobody else holds them.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Deref for Octets {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.memory[..self.0.len]
    }
}

impl From<Vec<u8>> for Octets {
    fn from(memory: Vec<u8>) -> Octets {
        Octets(Arc::new(Inner { len: memory.len(), memory, stock: None }))
    }
}

impl PartialEq for Octets {
    fn eq(&self, other: &Octets) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.0.len)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(stock) = &self.stock {
            stock.take_back(std::mem::take(&mut self.memory));
        }
    }
}

/// Memory for parts of one letter's own. Such a part is a few hundred kilobytes that are gone a
/// moment later: asked of the system anew each time, each page of it would be cleared and mapped
/// again.
#[derive(Debug)]
pub struct Stock {
    kept: Mutex<Vec<Vec<u8>>>,
    /// The most octets that are kept.
    capacity: usize,
}

impl Stock {
    /// An empty stock that keeps at most `capacity` octets.
    pub fn new(capacity: usize) -> Arc<Stock> {
        Arc::new(Stock { kept: Mutex::default(), capacity })
    }

    /// Memory for `len` octets. What is in it is anything.
    pub fn lend(self: &Arc<Stock>, len: usize) -> Loan {
        let fits = |memory: &Vec<u8>| memory.len() >= len && memory.len() / WASTE <= len.max(GRAIN);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that came back last is still in the processor's cache.
        let known = kept.iter().rposition(fits).map(|n| kept.remove(n));
        drop(kept);
        // What nobody takes back fits only itself: it may be kept for a whole run.
        let grain = if self.capacity == 0 { 1 } else { GRAIN };
        let memory = known.unwrap_or_else(|| vec![0; len.next_multiple_of(grain)]);
        Loan { memory, len, stock: Arc::clone(self) }
    }

    fn take_back(&self, memory: Vec<u8>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let octets: usize = kept.iter().map(Vec::len).sum();
        if octets + memory.len() <= self.capacity {
            kept.push(memory);
        }
    }
}

/// Memory out of a stock, to be filled.
#[derive(Debug)]
pub struct Loan {
    memory: Vec<u8>,
    len: usize,
    stock: Arc<Stock>,
}

impl Loan {
    /// The memory, as long as was asked for.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }

    /// What is filled now, for ever.
    pub fn filled(self) -> Octets {
        let Loan { memory, len, stock } = self;
        Octets(Arc::new(Inner { memory, len, stock: Some(stock) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(stock: &Stock) -> Vec<usize> {
        stock.kept.lock().expect("no thread panicked").iter().map(Vec::len).collect()
    }

    #[test]
    fn memory_comes_back_when_the_last_holder_is_gone() {
        let stock = Stock::new(100 << 10);
        let mut loan = stock.lend(5);
        loan.room().copy_from_slice(b"hello");
        let octets = loan.filled();
        let other = octets.clone();
        assert!(&*octets == b"hello" && !octets.is_alone());
        drop(octets);
        assert!(other.is_alone() && kept(&stock).is_empty());
        drop(other);
        assert_eq!(kept(&stock), [GRAIN]);
        let again = stock.lend(7);
        assert!(kept(&stock).is_empty(), "the same memory is used again");
        drop(again.filled());
        assert_eq!(kept(&stock), [GRAIN]);
    }

    #[test]
    fn no_more_is_kept_than_was_said_and_no_huge_memory_lies_under_a_small_part() {
        let stock = Stock::new(100 << 10);
        let loans: Vec<Loan> = (0..10).map(|_| stock.lend(GRAIN)).collect();
        loans.into_iter().for_each(|loan| drop(loan.filled()));
        assert_eq!(kept(&stock).len(), 6);
        let stock = Stock::new(10 << 20);
        drop(stock.lend(1 << 20).filled());
        drop(stock.lend(10).filled());
        assert_eq!(kept(&stock), [1 << 20, GRAIN]);
        assert_eq!(stock.lend(300 << 10).memory.len(), 1 << 20);
        assert_eq!(Stock::new(0).lend(10).memory.len(), 10);
        assert_eq!(Octets::from(b"x".to_vec()), Octets::from(b"x".to_vec()));
    }
}
