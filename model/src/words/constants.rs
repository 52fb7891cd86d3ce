//! Every number of KVM's interface, once.

/// KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.
pub const MANUAL_PROTECT_ENABLE: u64 = 1 << 0;
/// KVM_DIRTY_LOG_INITIALLY_SET.
pub const INITIALLY_SET: u64 = 1 << 1;
/// KVM_CAP_DIRTY_LOG_RING.
pub const CAP_DIRTY_LOG_RING: u32 = 192;
/// KVM_CAP_DIRTY_LOG_RING_ACQ_REL.
pub const CAP_DIRTY_LOG_RING_ACQ_REL: u32 = 223;
/// KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP.
pub const CAP_DIRTY_LOG_RING_WITH_BITMAP: u32 = 225;
/// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
pub const CAP_MANUAL_DIRTY_LOG_PROTECT2: u32 = 168;
/// KVM_EXIT_DIRTY_RING_FULL.
pub const EXIT_DIRTY_RING_FULL: u32 = 31;
/// KVM_MEM_LOG_DIRTY_PAGES.
pub const MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
/// KVM_MEM_READONLY.
pub const MEM_READONLY: u32 = 1 << 1;
/// The size of one ring entry in bytes.
pub const DIRTY_GFN_BYTES: u32 = 16;
/// The most entries of a ring: KVM_DIRTY_RING_MAX_ENTRIES.
pub const RING_MAX_ENTRIES: u32 = 65536;
/// The entries that every architecture holds back: KVM_DIRTY_RING_RSVD_ENTRIES.
pub const RING_RESERVED_ENTRIES: u32 = 64;
/// The entries of a PML buffer: PML_LOG_NR_ENTRIES.
pub const PML_ENTRIES: u32 = 512;
/// Pages of the window that x86's shadow paging maps ahead: PTE_PREFETCH_NUM.
pub const X86_PREFETCH_PAGES: u32 = 8;
/// Memslots an address space can have: KVM_MEM_SLOTS_NUM (SHRT_MAX).
pub const MEM_SLOTS: u32 = 32767;
/// The most pages of a user slot: KVM_MEM_MAX_NR_PAGES.
pub const MEM_MAX_PAGES: u64 = (1 << 31) - 1;
