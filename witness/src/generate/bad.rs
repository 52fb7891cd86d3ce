//! Calls that the kernel refuses, or that change nothing: one of each errno's ways.

use dirtysim::trace::call::{Call, Prot, Sharing};
use dirtysim::trace::{Cap, SLOT_PAGES_MAX, Words};

use super::Generator;
use super::world::SlotView;

/// Slot ids that no sequence creates: free, the last of every architecture, and past it.
const ABSENT_SLOTS: [u16; 3] = [9, 32_700, 40_000];

impl Generator {
    /// A ring size that is refused, or on arm64 the capability that is.
    pub(super) fn bad_ring_size(&mut self) -> Call {
        let args0 = self
            .random
            .one(&[0, 1, 2048, 4095, 4097, 12_288, 2_097_152, 1 << 31, 1 << 32]);
        let cap = self
            .random
            .one(&[Cap::DirtyLogRing, Cap::DirtyLogRingAcqRel]);
        // The size is right where the capability is wrong.
        let args0 = if self.target.ring_by_acq_rel_alone() && cap == Cap::DirtyLogRing {
            self.target.smallest_ring
        } else {
            args0
        };
        Call::EnableCap {
            cap,
            flags: 0,
            args0,
        }
    }

    /// A capability that cannot be enabled now, or manual protect with any argument.
    pub(super) fn odd_capability(&mut self) -> Call {
        let (cap, flags, args0) = self.random.one(&[
            (Cap::ManualDirtyLogProtect2, 0, 0),
            (Cap::ManualDirtyLogProtect2, 0, 1),
            (Cap::ManualDirtyLogProtect2, 0, 3),
            (Cap::ManualDirtyLogProtect2, 0, 2),
            (Cap::ManualDirtyLogProtect2, 0, 4),
            (Cap::ManualDirtyLogProtect2, 0, 5),
            (Cap::ManualDirtyLogProtect2, 1, 1),
            (Cap::DirtyLogRing, 0, 4096),
            (Cap::DirtyLogRingAcqRel, 0, 4096),
            (Cap::DirtyLogRingAcqRel, 0, 8192),
            (Cap::DirtyLogRingWithBitmap, 0, 0),
            (Cap::DirtyLogRingWithBitmap, 1, 0),
        ]);
        Call::EnableCap { cap, flags, args0 }
    }

    pub(super) fn bad_get(&mut self, slot: u16) -> Call {
        match self.random.below(4) {
            0 => Call::GetDirtyLog {
                slot: self.random.one(&ABSENT_SLOTS),
                as_id: 0,
                bad_pointer: false,
            },
            1 => Call::GetDirtyLog {
                slot,
                as_id: 5,
                bad_pointer: false,
            },
            2 => Call::GetDirtyLog {
                slot: 0,
                as_id: 0,
                bad_pointer: false,
            },
            _ => Call::GetDirtyLog {
                slot,
                as_id: 0,
                bad_pointer: true,
            },
        }
    }

    pub(super) fn bad_clear(&mut self, slot: u16, pages: u64) -> Call {
        let mut call = (slot, 0_u16, 0_u64, pages, false);
        match self.random.below(10) {
            0 => call.0 = self.random.one(&ABSENT_SLOTS),
            1 => call.1 = 5,
            2 => call.0 = 0,
            3 => call.2 = self.random.between(1, 63),
            4 => call.2 = pages.next_multiple_of(64) + 64,
            5 => call.3 = pages + 1,
            6 => call.3 = 63.min(pages.saturating_sub(1)).max(1),
            7 => call.3 = 0,
            8 => (call.2, call.3) = (64, pages),
            _ => call.4 = true,
        }
        let (slot, as_id, first_page, num_pages, bad_pointer) = call;
        let words_given = num_pages.div_ceil(64);
        let words = if bad_pointer {
            Words::default()
        } else {
            self.random_words(words_given)
        };
        Call::ClearDirtyLog {
            slot,
            as_id,
            first_page,
            num_pages: num_pages as u32,
            words_given,
            words,
            bad_pointer,
        }
    }

    pub(super) fn bad_region(&mut self, slot: u16, view: &SlotView) -> Call {
        let mut call = Call::SetUserMemoryRegion {
            slot,
            as_id: 0,
            flags: view.flags,
            gpa: view.gpa,
            npages: view.pages,
            bytes: None,
            mem: view.mem.clone(),
            mem_offset: 0,
            populated: false,
            huge: false,
        };
        let Call::SetUserMemoryRegion {
            slot: id,
            as_id,
            flags,
            gpa,
            npages,
            bytes,
            mem_offset,
            ..
        } = &mut call
        else {
            unreachable!("just made")
        };
        match self.random.below(9) {
            0 => *flags = 8,
            1 => *as_id = 5,
            2 => *npages += 1,
            3 => *flags ^= 2,
            4 => (*id, *npages) = (9, 0),
            5 => *id = 40_000,
            6 => *id = 9,
            7 => *mem_offset = 4096 * view.pages,
            _ => *bytes = Some(*npages * 4096 + 512),
        }
        // A slot of its own at an odd address, or larger than any may be.
        if self.random.percent(20) {
            (*id, *flags, *bytes, *mem_offset, *as_id) = (9, 1, None, 0, 0);
            if self.random.percent(50) {
                (*gpa, *npages) = (view.gpa + 0x200, 1);
            } else {
                *npages = SLOT_PAGES_MAX + 1;
            }
        }
        call
    }

    pub(super) fn odd_mapping(&mut self, vcpu: u32) -> Call {
        let bytes = self.ring_expected.max(4096);
        let (prot, sharing) = self.random.one(&[
            (Prot::Rw, Sharing::Private),
            (Prot::R, Sharing::Private),
            (Prot::Rwx, Sharing::Shared),
            (Prot::Rx, Sharing::Shared),
            (Prot::R, Sharing::Shared),
            (Prot::Rw, Sharing::Shared),
        ]);
        let (offset_pages, bytes) = self.random.one(&[(64, bytes), (64, bytes * 2), (64, 4096)]);
        // The whole ring, shared and writable, replaces the mapping that there is: the same entries.
        let touch_byte = self.random.percent(50).then_some(bytes - 16);
        Call::MmapRing {
            vcpu,
            offset_pages,
            bytes,
            prot,
            sharing,
            touch_byte,
        }
    }
}
