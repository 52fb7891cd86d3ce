//! The per-vCPU dirty ring: entries 00 → 01 → 1X → 00, free-running indices, a soft limit, and an overflow that
//! warns and overwrites.
//!
//! Source: virt/kvm/dirty_ring.c. The kernel keeps `dirty_index` and `reset_index`; what user space has harvested shows
//! only in the entries' flags, so `fetch_index` is user space's own.

use core::fmt::Debug;

use super::layout::{Array, Layout};

/// KVM_DIRTY_GFN_F_DIRTY.
pub const F_DIRTY: u8 = 1 << 0;
/// KVM_DIRTY_GFN_F_RESET.
pub const F_RESET: u8 = 1 << 1;

/// One `struct kvm_dirty_gfn`: flags, slot number and offset, all of them shared with user space.
pub trait RingEntry: Copy + Default + PartialEq + Eq + Debug {
    /// Flags; the model keeps the two bits that the ABI has.
    fn flags(&self) -> u8;
    /// The combined slot number `as_id << 16 | id`.
    fn slot(&self) -> u32;
    /// The page's offset in its slot, in pages.
    fn offset(&self) -> u64;
    /// Sets the flags.
    fn set_flags(&mut self, flags: u8);
    /// Sets the slot number.
    fn set_slot(&mut self, slot: u32);
    /// Sets the offset.
    fn set_offset(&mut self, offset: u64);
}

/// An entry as the kernel lays it out: any slot number and offset.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FullEntry {
    offset: u64,
    slot: u32,
    flags: u8,
}

impl RingEntry for FullEntry {
    fn flags(&self) -> u8 {
        self.flags
    }
    fn slot(&self) -> u32 {
        self.slot
    }
    fn offset(&self) -> u64 {
        self.offset
    }
    fn set_flags(&mut self, flags: u8) {
        self.flags = flags & (F_DIRTY | F_RESET);
    }
    fn set_slot(&mut self, slot: u32) {
        self.slot = slot;
    }
    fn set_offset(&mut self, offset: u64) {
        self.offset = offset;
    }
}

/// An entry in 16 bits: 2 of flags, 1 of address space, 4 of slot id, 9 of offset.
///
/// A slot number or offset that does not fit becomes the largest one, which no scenario of a search can have.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CompactEntry(pub u16);

impl CompactEntry {
    /// The largest slot id that fits; the next one stands for any that does not.
    pub const MAX_ID: u32 = 14;
    /// The largest offset that fits, in pages.
    pub const MAX_OFFSET: u64 = 510;
}

impl RingEntry for CompactEntry {
    #[inline(always)]
    fn flags(&self) -> u8 {
        (self.0 & 3) as u8
    }
    #[inline(always)]
    fn slot(&self) -> u32 {
        u32::from(self.0 >> 2 & 1) << 16 | u32::from(self.0 >> 3 & 15)
    }
    #[inline(always)]
    fn offset(&self) -> u64 {
        u64::from(self.0 >> 7)
    }
    #[inline(always)]
    fn set_flags(&mut self, flags: u8) {
        self.0 = self.0 & !3 | u16::from(flags & 3);
    }
    #[inline(always)]
    fn set_slot(&mut self, slot: u32) {
        let as_id = (slot >> 16).min(1) as u16;
        let id = (slot & 0xffff).min(Self::MAX_ID + 1) as u16;
        self.0 = self.0 & !0x7c | as_id << 2 | id << 3;
    }
    #[inline(always)]
    fn set_offset(&mut self, offset: u64) {
        self.0 = self.0 & 0x7f | (offset.min(Self::MAX_OFFSET + 1) as u16) << 7;
    }
}

/// A vCPU's ring and user space's place in it.
#[derive(Clone, Debug, Default)]
pub struct Ring<L: Layout> {
    /// The entries; none when the ring is off. Their number is a power of two.
    pub entries: L::Entries,
    /// The producer's free-running index; written by push alone.
    pub dirty_index: u32,
    /// RESET's free-running index; written under slots_lock.
    pub reset_index: u32,
    /// User space's free-running index of the next entry to harvest.
    pub fetch_index: u32,
}

impl<L: Layout> Copy for Ring<L> where L::Entries: Copy {}

impl<L: Layout> Ring<L> {
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
