//! One entry of a dirty ring. Source: include/uapi/linux/kvm.h, struct kvm_dirty_gfn.

use core::fmt::Debug;
use core::hash::Hash;

use crate::words::Offset;

/// KVM_DIRTY_GFN_F_DIRTY.
pub const F_DIRTY: u8 = 1 << 0;
/// KVM_DIRTY_GFN_F_RESET.
pub const F_RESET: u8 = 1 << 1;

/// One `struct kvm_dirty_gfn`: flags, slot number and offset, all of them shared with user space.
pub trait RingEntry: Copy + Default + Eq + Hash + Debug {
    /// Flags; the model keeps the two bits that the ABI has.
    fn flags(&self) -> u8;
    /// The combined slot number `as_id << 16 | id`.
    fn slot(&self) -> u32;
    /// The page's offset in its slot, in pages.
    fn offset(&self) -> Offset;
    /// Sets the flags.
    fn set_flags(&mut self, flags: u8);
    /// Sets the slot number.
    fn set_slot(&mut self, slot: u32);
    /// Sets the offset.
    fn set_offset(&mut self, offset: Offset);
}

/// An entry as the kernel lays it out: any slot number and offset.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct FullEntry {
    offset: Offset,
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
    fn offset(&self) -> Offset {
        self.offset
    }
    fn set_flags(&mut self, flags: u8) {
        self.flags = flags & (F_DIRTY | F_RESET);
    }
    fn set_slot(&mut self, slot: u32) {
        self.slot = slot;
    }
    fn set_offset(&mut self, offset: Offset) {
        self.offset = offset;
    }
}

/// An entry in 16 bits: 2 of flags, 1 of address space, 4 of slot id, 9 of offset.
///
/// A slot number or offset that does not fit becomes the largest one, which no scenario of a search can have.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
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
    fn offset(&self) -> Offset {
        Offset(u64::from(self.0 >> 7))
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
    fn set_offset(&mut self, offset: Offset) {
        self.0 = self.0 & 0x7f | (offset.0.min(Self::MAX_OFFSET + 1) as u16) << 7;
    }
}
