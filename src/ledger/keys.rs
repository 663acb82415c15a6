//! Which keys an edition has: a hash table that takes at most 16 bytes a row, whatever the keys.
//!
//! A slot holds 32 bits of the key's hash and the delivery's number; the key itself is in the
//! database, where a hit is verified. The table is cut into parts that grow one at a time, so that
//! growing never holds the whole table twice.

use std::hash::{BuildHasher, RandomState};

/// Parts of the table: growing copies one of them.
const PARTS: usize = 256;

/// Slots a part begins with.
const FIRST_SLOTS: usize = 32;

/// A candidate's number; the highest one the table can hold.
pub(super) const MAX_SEQ: u64 = u32::MAX as u64;

/// Hashes of keys and where they are. Zero is an empty slot: a delivery's number is at least 1.
pub(super) struct Keys {
    parts: Vec<Part>,
    hasher: RandomState,
}

#[derive(Clone)]
struct Part {
    slots: Vec<u64>,
    used: usize,
}

impl Keys {
    /// An empty table.
    pub(super) fn new() -> Keys {
        let part = Part { slots: vec![0; FIRST_SLOTS], used: 0 };
        Keys { parts: vec![part; PARTS], hasher: RandomState::new() }
    }

    /// The hash of a key, for [`Self::candidates`] and [`Self::insert`].
    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Deliveries whose key may be the one of this hash.
    pub(super) fn candidates(&self, hash: u64) -> impl Iterator<Item = u64> + use<'_> {
        let part = &self.parts[hash as usize % PARTS];
        let tag = hash >> 32;
        let mut at = home(tag, part.slots.len());
        std::iter::from_fn(move || {
            // A part is never full, so this ends at an empty slot.
            loop {
                let slot = part.slots[at];
                if slot == 0 {
                    return None;
                }
                at = if at + 1 == part.slots.len() { 0 } else { at + 1 };
                if slot >> 32 == tag {
                    return Some(slot & MAX_SEQ);
                }
            }
        })
    }

    /// Puts a delivery in; its key must not be there yet, and `1 <= seq <= MAX_SEQ`.
    pub(super) fn insert(&mut self, hash: u64, seq: u64) {
        let part = &mut self.parts[hash as usize % PARTS];
        // Four fifths full: then a search still ends within two cache lines.
        if (part.used + 1) * 5 > part.slots.len() * 4 {
            part.grow();
        }
        part.put((hash >> 32) << 32 | seq);
        part.used += 1;
    }

    /// Bytes the table takes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.slots.capacity() * size_of::<u64>()).sum()
    }
}

impl Part {
    /// A quarter larger, so that it is never more than a third empty.
    fn grow(&mut self) {
        let larger = vec![0; self.slots.len() + self.slots.len() / 4];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot != 0 {
                self.put(slot);
            }
        }
    }

    fn put(&mut self, slot: u64) {
        let mut at = home(slot >> 32, self.slots.len());
        while self.slots[at] != 0 {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        self.slots[at] = slot;
    }
}

/// Where the search for a 32-bit tag begins: a multiplication instead of a division.
fn home(tag: u64, slots: usize) -> usize {
    ((tag * slots as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn every_key_is_found_and_the_table_stays_small() {
        let mut keys = Keys::new();
        for seq in 1..=200_000u64 {
            let hash = keys.hash(&format!("user{seq}@example.org"));
            keys.insert(hash, seq);
        }
        for seq in (1..=200_000u64).step_by(7) {
            let hash = keys.hash(&format!("user{seq}@example.org"));
            assert!(keys.candidates(hash).any(|candidate| candidate == seq), "{seq}");
        }
        let strangers = (0..100_000)
            .filter(|n| keys.candidates(keys.hash(&format!("nobody{n}"))).next().is_some())
            .count();
        assert!(strangers < 100, "{strangers} false candidates");
        assert!(keys.bytes() <= 200_000 * 16, "{} bytes", keys.bytes());
    }
}
