//! The visited set: 64-bit fingerprints in one open-addressing table that all threads share.
//!
//! A fingerprint's place is its high part scaled to the table's size, so that a table grows by one pass over the old
//! one that reads and writes in order, by any factor. Look-ups come in batches: the first pass over a batch only
//! loads, so that the processor has many cache misses under way at once (there is no prefetch without `unsafe`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

/// Slots of the smallest table: 2 MiB.
pub(crate) const LEAST_SLOTS: usize = 1 << 18;
/// A table grows when more than this many of 100 slots are taken.
const FULL_PERCENT: usize = 72;
/// By how much it grows, in tenths.
const GROWTH_TENTHS: usize = 17;

/// A set of fingerprints, none of them 0.
pub(crate) struct Table {
    slots: Vec<AtomicU64>,
    len: AtomicU64,
}

/// Slots that one task fills or moves.
const TASK_SLOTS: usize = 1 << 16;

/// Empty slots, which the threads write first together.
fn zeroed(slots: usize) -> Vec<AtomicU64> {
    (0..slots)
        .into_par_iter()
        .with_min_len(TASK_SLOTS)
        .map(|_| AtomicU64::new(0))
        .collect()
}

impl Table {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots: zeroed(slots.max(LEAST_SLOTS)),
            len: AtomicU64::new(0),
        }
    }

    /// Fingerprints in the set, as far as [`Table::add_len`] was told.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// Counts fingerprints that were inserted; workers tell it now and then, not at each insertion.
    pub(crate) fn add_len(&self, new: u64) {
        self.len.fetch_add(new, Relaxed);
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots.len() as u64 * 8
    }

    /// Whether `coming` more fingerprints would make it too full.
    pub(crate) fn is_short_of(&self, coming: usize) -> bool {
        let limit = (self.slots.len() / 100 * FULL_PERCENT) as u64;
        self.len() + coming as u64 > limit
    }

    /// Slots after the next growth that makes room for `coming` more.
    pub(crate) fn grown_slots(&self, coming: usize) -> usize {
        let needed = (self.len() as usize + coming) / FULL_PERCENT * 100 + 100;
        (self.slots.len() / 10 * GROWTH_TENTHS).max(needed)
    }

    /// Moves everything to a table of `slots` slots.
    pub(crate) fn grow(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, zeroed(slots));
        let alone = rayon::current_num_threads() == 1;
        old.par_chunks(TASK_SLOTS).for_each(|slots| {
            for slot in slots {
                let fingerprint = slot.load(Relaxed);
                if fingerprint == 0 {
                    continue;
                }
                if alone {
                    self.insert(fingerprint);
                } else {
                    self.insert_shared(fingerprint);
                }
            }
        });
    }

    #[inline(always)]
    fn place(&self, fingerprint: u64) -> usize {
        ((u128::from(fingerprint) * self.slots.len() as u128) >> 64) as usize
    }

    /// Adds a fingerprint; whether it is new. The caller is the only one who writes.
    #[inline(always)]
    pub(crate) fn insert(&self, fingerprint: u64) -> bool {
        let mut at = self.place(fingerprint);
        loop {
            let found = self.slots[at].load(Relaxed);
            if found == fingerprint {
                return false;
            }
            if found == 0 {
                self.slots[at].store(fingerprint, Relaxed);
                return true;
            }
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
    }

    /// As [`Table::insert`], beside others who do the same.
    #[inline(always)]
    pub(crate) fn insert_shared(&self, fingerprint: u64) -> bool {
        let mut at = self.place(fingerprint);
        loop {
            let slot = &self.slots[at];
            let mut found = slot.load(Relaxed);
            if found == 0 {
                match slot.compare_exchange(0, fingerprint, Relaxed, Relaxed) {
                    Ok(_) => return true,
                    Err(now) => found = now,
                }
            }
            if found == fingerprint {
                return false;
            }
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
    }

    /// Brings a fingerprint's slot into the cache. Answers what is there, so that the load is made.
    #[inline(always)]
    pub(crate) fn touch(&self, fingerprint: u64) -> u64 {
        self.slots[self.place(fingerprint)].load(Relaxed)
    }
}

/// An upper bound of the probability that two of `states` different states had the same fingerprint, if the hashes of
/// different sections were drawn at random: two states differ in a section, whose hashes make two sums equal with
/// probability 2^-64; there are so many pairs. (That 0 stands for 1 adds a part of 2^-63 of that.)
pub(crate) fn collision_probability(states: u64) -> f64 {
    let n = states as f64;
    (n * (n - 1.0) / 2.0 / 2_f64.powi(64)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::sections::section_hash;

    #[test]
    fn a_grown_table_has_exactly_what_was_inserted() {
        let mut table = Table::new(0);
        let key = |n: u64| section_hash(0, &[n, 7]).max(1);
        for n in 0..150_000 {
            assert!(table.insert(key(n)), "{n} is new");
        }
        table.add_len(150_000);
        table.grow(table.grown_slots(1000));
        for n in 0..150_000 {
            assert!(!table.insert_shared(key(n)), "{n} is known");
        }
        for n in 150_000..160_000 {
            assert!(table.insert_shared(key(n)), "{n} is new");
        }
    }
}
