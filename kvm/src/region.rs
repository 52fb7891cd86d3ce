//! The argument of KVM_SET_USER_MEMORY_REGION.

/// KVM_MEM_LOG_DIRTY_PAGES, of [`UserspaceMemoryRegion::flags`].
pub const KVM_MEM_LOG_DIRTY_PAGES: u32 = 1;

/// The argument of KVM_SET_USER_MEMORY_REGION, with the names of the fields in kvm-bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UserspaceMemoryRegion {
    /// The memslot's number, `as_id << 16 | id`.
    pub slot: u32,
    /// KVM_MEM_* flags.
    pub flags: u32,
    /// Where the guest sees it, in bytes.
    pub guest_phys_addr: u64,
    /// Its size in bytes; 0 deletes it.
    pub memory_size: u64,
    /// Where the VMM has it, in bytes.
    pub userspace_addr: u64,
}

impl UserspaceMemoryRegion {
    /// The same with its log on.
    #[must_use]
    pub fn log_dirty_pages(mut self) -> Self {
        self.flags |= KVM_MEM_LOG_DIRTY_PAGES;
        self
    }
}
