//! KVM's sizes, by architecture.

use super::arch::Arch;
use super::constants::{DIRTY_GFN_BYTES, MEM_SLOTS, PML_ENTRIES, RING_RESERVED_ENTRIES};

/// KVM's sizes. The architecture's own unless a scenario scales them down; errnos are computed from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Constants {
    /// Bytes in a page; a power of two.
    pub page_bytes: u64,
    /// Entries held back when a ring counts as soft-full.
    pub ring_reserved: u32,
    /// The smallest ring, in entries.
    pub ring_min_entries: u32,
    /// Bits in a bitmap word (BITS_PER_LONG); at most 64.
    pub word_bits: u32,
    /// Pages that one RESET batch can span; at most 64.
    pub reset_batch_pages: u32,
    /// Entries of a PML buffer.
    pub pml_entries: u32,
    /// Pages in a huge mapping; 1: none.
    pub huge_pages: u32,
    /// Address spaces of the VM.
    pub address_spaces: u32,
    /// Memslots that user space can have in an address space.
    pub user_slots: u32,
}

impl Constants {
    /// The architecture's own values.
    #[must_use]
    pub fn of(arch: Arch, pml: bool) -> Self {
        let ring_reserved = RING_RESERVED_ENTRIES + if pml { PML_ENTRIES } else { 0 };
        let page_bytes = 4096;
        Self {
            page_bytes,
            ring_reserved,
            ring_min_entries: (page_bytes as u32 / DIRTY_GFN_BYTES)
                .max(ring_reserved.next_power_of_two()),
            word_bits: 64,
            reset_batch_pages: 64,
            pml_entries: PML_ENTRIES,
            huge_pages: 512,
            address_spaces: if arch == Arch::X86 { 2 } else { 1 },
            user_slots: MEM_SLOTS
                - match arch {
                    Arch::X86 => 3,
                    Arch::S390 => 1,
                    _ => 0,
                },
        }
    }
}
