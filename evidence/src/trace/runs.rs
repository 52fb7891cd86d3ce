//! Runs: long lists of ring entries, pages and stores, written short.
//!
//! A run's count is a claim of whoever wrote the file. Nothing here takes memory by a count, sums are checked, and
//! each list is bounded by what KVM itself bounds.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// The largest ring of any kernel, in entries (KVM_DIRTY_RING_MAX_ENTRIES, include/linux/kvm_dirty_ring.h, v7.2).
pub const RING_ENTRIES_MAX: u64 = 65536;

/// The pages of the largest memslot (KVM_MEM_MAX_NR_PAGES, include/linux/kvm_host.h, v7.2).
pub const SLOT_PAGES_MAX: u64 = (1 << 31) - 1;

/// One dirty ring entry as it stands in the ring: KVM's `struct kvm_dirty_gfn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingEntry {
    /// Bit 0 dirty, bit 1 reset.
    pub flags: u32,
    /// `as_id << 16 | id`.
    pub slot: u32,
    /// The page within the slot.
    pub offset: u64,
}

/// Ring entries in order, as maximal runs `[flags, slot, first offset, count]` of consecutive offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RingEntries {
    runs: Vec<(RingEntry, u64)>,
    count: u64,
}

impl RingEntries {
    /// How many entries there are, at most [`RING_ENTRIES_MAX`].
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The runs: the first entry of each, and how many entries it stands for (at least one).
    pub fn runs(&self) -> &[(RingEntry, u64)] {
        &self.runs
    }

    /// Every entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = RingEntry> + '_ {
        self.runs.iter().flat_map(|&(first, count)| {
            (0..count).map(move |n| RingEntry {
                offset: first.offset + n,
                ..first
            })
        })
    }

    /// Appends `count` entries that start with `first`. Refuses an empty run, offsets past 2^64 and more entries than
    /// a ring can have; then nothing is appended.
    pub fn push_run(&mut self, first: RingEntry, count: u64) -> Result<(), RunError> {
        if count == 0 {
            return Err(RunError::EmptyRun);
        }
        if count > RING_ENTRIES_MAX - self.count {
            return Err(RunError::TooMany {
                what: "entries",
                max: RING_ENTRIES_MAX,
            });
        }
        if first.offset.checked_add(count - 1).is_none() {
            return Err(RunError::PastTheEnd {
                what: "offset",
                max: u64::MAX,
            });
        }
        self.count += count;
        if let Some((last, last_count)) = self.runs.last_mut() {
            let follows = last.offset.checked_add(*last_count) == Some(first.offset);
            if follows && last.flags == first.flags && last.slot == first.slot {
                *last_count += count;
                return Ok(());
            }
        }
        self.runs.push((first, count));
        Ok(())
    }

    /// The entries of `iter` in order; an error if there are more than a ring can have.
    pub fn collect(iter: impl IntoIterator<Item = RingEntry>) -> Result<Self, RunError> {
        let mut entries = Self::default();
        for entry in iter {
            entries.push_run(entry, 1)?;
        }
        Ok(entries)
    }
}

impl Serialize for RingEntries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.runs
                .iter()
                .map(|(first, count)| (first.flags, first.slot, first.offset, *count)),
        )
    }
}

impl<'de> Deserialize<'de> for RingEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = Self::default();
        for (flags, slot, offset, count) in Vec::<(u32, u32, u64, u64)>::deserialize(deserializer)?
        {
            entries
                .push_run(
                    RingEntry {
                        flags,
                        slot,
                        offset,
                    },
                    count,
                )
                .map_err(D::Error::custom)?;
        }
        Ok(entries)
    }
}

/// Pages of one slot in a stated order, as runs `[first page, count]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PageRuns {
    runs: Vec<(u64, u64)>,
}

impl PageRuns {
    /// The runs: first page and count (at least one), in order; the same page may come twice.
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }

    /// Every page, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs
            .iter()
            .flat_map(|&(first, count)| first..first + count)
    }

    /// Appends a run. Refuses an empty one and pages that no slot can have.
    pub fn push_run(&mut self, first: u64, count: u64) -> Result<(), RunError> {
        check_pages(first, count)?;
        self.runs.push((first, count));
        Ok(())
    }
}

impl Serialize for PageRuns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.runs.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PageRuns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut pages = Self::default();
        for (first, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            pages.push_run(first, count).map_err(D::Error::custom)?;
        }
        Ok(pages)
    }
}

/// Stores of a guest program in order, one a page, as runs `[slot, first page, count]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StoreRuns {
    runs: Vec<(u32, u64, u64)>,
}

impl StoreRuns {
    /// The runs: slot, first page and count (at least one), in order.
    pub fn runs(&self) -> &[(u32, u64, u64)] {
        &self.runs
    }

    /// Every store, in order: slot and page.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.runs
            .iter()
            .flat_map(|&(slot, first, count)| (first..first + count).map(move |page| (slot, page)))
    }

    /// How many stores there are; saturates, since a program may be longer than any run of it.
    pub fn count(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum, &(_, _, count)| sum.saturating_add(count))
    }

    /// Appends a run. Refuses an empty one and pages that no slot can have.
    pub fn push_run(&mut self, slot: u32, first: u64, count: u64) -> Result<(), RunError> {
        check_pages(first, count)?;
        self.runs.push((slot, first, count));
        Ok(())
    }
}

impl Serialize for StoreRuns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.runs.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoreRuns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut stores = Self::default();
        for (slot, first, count) in Vec::<(u32, u64, u64)>::deserialize(deserializer)? {
            stores
                .push_run(slot, first, count)
                .map_err(D::Error::custom)?;
        }
        Ok(stores)
    }
}

fn check_pages(first: u64, count: u64) -> Result<(), RunError> {
    if count == 0 {
        return Err(RunError::EmptyRun);
    }
    match first.checked_add(count) {
        Some(end) if end <= SLOT_PAGES_MAX => Ok(()),
        _ => Err(RunError::PastTheEnd {
            what: "page",
            max: SLOT_PAGES_MAX - 1,
        }),
    }
}

/// Why a run cannot be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunError {
    /// Its count is 0.
    EmptyRun,
    /// It ends before it begins.
    Backwards,
    /// It does not come after the runs before it.
    NotAscending,
    /// There would be more than `max`.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: u64,
    },
    /// It reaches past the largest number that there can be.
    PastTheEnd {
        /// Of what.
        what: &'static str,
        /// The largest.
        max: u64,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::EmptyRun => f.write_str("a run of count 0, expected at least 1"),
            RunError::Backwards => {
                f.write_str("a range that ends before it begins, expected first-last")
            }
            RunError::NotAscending => {
                f.write_str("word indices out of order or twice, expected ascending indices")
            }
            RunError::TooMany { what, max } => write!(f, "too many {what}, expected at most {max}"),
            RunError::PastTheEnd { what, max } => {
                write!(f, "{what} out of range, expected at most {max}")
            }
        }
    }
}

impl std::error::Error for RunError {}
