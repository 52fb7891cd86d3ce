//! The visited set: 64-bit fingerprints in one open-addressing table that all threads share.
//!
//! A fingerprint's line of the cache is its high part scaled to the table's size, so that a table grows by one pass over
//! the old one that reads and writes in order, by any factor; in the line its low part says where to look first. Hardly
//! any look-up leaves its line, even where the table is nearly full. Look-ups come in batches: the first pass over a batch
//! only loads, so that the processor has many cache misses under way at once (there is no prefetch without `unsafe`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

/// Slots of a line of the cache.
const LINE: usize = 8;
/// Slots of the smallest table: 2 MiB.
pub(crate) const LEAST_SLOTS: usize = 1 << 18;
/// A table grows when more than this many of 100 slots are taken.
const FULL_PERCENT: usize = 80;
/// By how much it grows, in tenths.
const GROWTH_TENTHS: usize = 25;

/// A line of the cache.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

/// A set of fingerprints, none of them 0.
pub(crate) struct Table {
    lines: Vec<Line>,
    len: AtomicU64,
}

/// Lines that one task fills or moves.
const TASK_LINES: usize = 1 << 13;

/// Empty lines for at least so many slots, which the threads write first together.
fn empty(slots: usize) -> Vec<Line> {
    (0..slots.div_ceil(LINE))
        .into_par_iter()
        .with_min_len(TASK_LINES)
        .map(|_| Line::default())
        .collect()
}

impl Table {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            lines: empty(slots.max(LEAST_SLOTS)),
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
        self.slots() as u64 * 8
    }

    fn slots(&self) -> usize {
        self.lines.len() * LINE
    }

    /// Whether `coming` more fingerprints would make it too full.
    pub(crate) fn is_short_of(&self, coming: usize) -> bool {
        let limit = (self.slots() / 100 * FULL_PERCENT) as u64;
        self.len() + coming as u64 > limit
    }

    /// Slots after the next growth that makes room for `coming` more.
    pub(crate) fn grown_slots(&self, coming: usize) -> usize {
        let needed = (self.len() as usize + coming) / FULL_PERCENT * 100 + 100;
        (self.slots() / 10 * GROWTH_TENTHS).max(needed)
    }

    /// Moves everything to a table of `slots` slots.
    pub(crate) fn grow(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.lines, empty(slots));
        let alone = rayon::current_num_threads() == 1;
        old.par_chunks(TASK_LINES).for_each(|lines| {
            for slot in lines.iter().flat_map(|line| &line.0) {
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
    fn line(&self, fingerprint: u64) -> usize {
        ((u128::from(fingerprint) * self.lines.len() as u128) >> 64) as usize
    }

    /// The first slot of those where a fingerprint may be for which there is an answer.
    #[inline(always)]
    fn look<T>(&self, fingerprint: u64, answer: impl Fn(&AtomicU64) -> Option<T>) -> T {
        let mut line = self.line(fingerprint);
        loop {
            let slots = &self.lines[line].0;
            for turn in 0..LINE {
                if let Some(answer) = answer(&slots[(fingerprint as usize + turn) % LINE]) {
                    return answer;
                }
            }
            line += 1;
            if line == self.lines.len() {
                line = 0;
            }
        }
    }

    /// Adds a fingerprint; whether it is new. The caller is the only one who writes.
    #[inline(always)]
    pub(crate) fn insert(&self, fingerprint: u64) -> bool {
        self.look(fingerprint, |slot| {
            let found = slot.load(Relaxed);
            if found == 0 {
                slot.store(fingerprint, Relaxed);
            }
            (found == 0 || found == fingerprint).then_some(found == 0)
        })
    }

    /// As [`Table::insert`], beside others who do the same.
    #[inline(always)]
    pub(crate) fn insert_shared(&self, fingerprint: u64) -> bool {
        self.look(fingerprint, |slot| {
            let mut found = slot.load(Relaxed);
            if found == 0 {
                match slot.compare_exchange(0, fingerprint, Relaxed, Relaxed) {
                    Ok(_) => return Some(true),
                    Err(now) => found = now,
                }
            }
            (found == fingerprint).then_some(false)
        })
    }

    /// Brings a fingerprint's line into the cache. Answers what is there, so that the load is made.
    #[inline(always)]
    pub(crate) fn touch(&self, fingerprint: u64) -> u64 {
        self.lines[self.line(fingerprint)].0[0].load(Relaxed)
    }
}

/// An upper bound of the probability that two of `states` different states had the same fingerprint, if the hashes of
/// different sections were drawn at random: two states differ in a section, whose hashes make two sums equal with
/// probability 2^-64; there are so many pairs. (That 0 stands for 1 adds a part of 2^-63 of that.)
pub(crate) fn collision_probability(states: u64) -> f64 {
    let n = states as f64;
    (n * (n - 1.0).max(0.0) / 2.0 / 2_f64.powi(64)).min(1.0)
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
