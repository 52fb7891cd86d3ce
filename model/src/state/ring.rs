//! The per-vCPU dirty ring: entries 00 → 01 → 1X → 00, free-running indices, a soft limit, and an overflow that
//! warns and overwrites.
//!
//! Source: virt/kvm/dirty_ring.c. The kernel keeps `dirty_index` and `reset_index`; what user space has harvested shows
//! only in the entries' flags, so `fetch_index` is user space's own.

use super::parts::{Array, Parts};

pub use super::entry::{CompactEntry, F_DIRTY, F_RESET, FullEntry, RingEntry};

/// A vCPU's ring and user space's place in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ring<L: Parts> {
    /// The entries; none when the ring is off. Their number is a power of two.
    pub entries: L::Entries,
    /// The producer's free-running index; written by push alone.
    pub dirty_index: u32,
    /// RESET's free-running index; written under slots_lock.
    pub reset_index: u32,
    /// User space's free-running index of the next entry to harvest.
    pub fetch_index: u32,
}

impl<L: Parts> Copy for Ring<L> where L::Entries: Copy {}

impl<L: Parts> Ring<L> {
    /// A ring of `entries` entries, a power of two, or none.
    #[must_use]
    pub fn new(entries: u32) -> Self {
        let mut ring = Self::default();
        for _ in 0..entries {
            ring.entries.push(L::Entry::default());
        }
        ring
    }

    /// Entries of the ring.
    #[must_use]
    #[inline(always)]
    pub fn size(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Pushed and not yet reset, as the kernel computes it; more than the ring's size after an overflow or abuse.
    #[must_use]
    #[inline(always)]
    pub fn used(&self) -> u32 {
        self.dirty_index.wrapping_sub(self.reset_index)
    }

    /// Where `index` lies in the entries.
    #[must_use]
    #[inline(always)]
    pub fn position(&self, index: u32) -> usize {
        (index & self.size().wrapping_sub(1)) as usize
    }

    /// The entry at a free-running index; the ring is on.
    #[must_use]
    #[inline(always)]
    pub fn entry(&self, index: u32) -> &L::Entry {
        let position = self.position(index);
        &self.entries[position]
    }

    /// The entry at a free-running index, to change; the ring is on.
    #[inline(always)]
    pub fn entry_mut(&mut self, index: u32) -> &mut L::Entry {
        let position = self.position(index);
        &mut self.entries[position]
    }
}
