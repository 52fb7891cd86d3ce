//! Where the entries of a memo are: hashes to places, no larger than it has to be, so that it stays in the cache.

/// Slots of an empty index, a power of two.
const LEAST_SLOTS: usize = 1 << 10;

/// An open-addressing index; a slot is the hash's upper half, then a place; or [`EMPTY`].
pub(super) struct Index {
    slots: Vec<u64>,
    len: usize,
}

const PLACE: u64 = 0xffff_ffff;
/// Not 0: the system gives zeros page by page, first to read and again to write, for which it interrupts the other threads.
const EMPTY: u64 = u64::MAX;

impl Index {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![EMPTY; LEAST_SLOTS],
            len: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.slots.len() as u64 * 8
    }

    /// The half of a hash that slots keep tells where to look, so that they can be moved.
    #[inline(always)]
    fn start(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    /// The place among those with this hash that is the one.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut slot = self.start(hash);
        loop {
            let found = self.slots[slot];
            if found == EMPTY {
                return None;
            }
            if (found ^ hash) & !PLACE == 0 && is_it(found as u32) {
                return Some(found as u32);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a place, less than the largest number.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        if self.len * 2 >= self.slots.len() {
            let doubled = vec![EMPTY; self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, doubled) {
                if slot != EMPTY {
                    self.put(slot);
                }
            }
        }
        self.len += 1;
        self.put(hash & !PLACE | u64::from(place));
    }

    fn put(&mut self, value: u64) {
        let mut slot = self.start(value);
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = value;
    }
}
