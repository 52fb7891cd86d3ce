//! Answers that change nothing: KVM_CHECK_EXTENSION, and the mapping of a vCPU's file descriptor.

use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::words::constants::{
    CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, DIRTY_GFN_BYTES, RING_MAX_ENTRIES,
};
use crate::words::{Arch, Errno, Kernel};

/// What KVM_CHECK_EXTENSION answers for a capability of dirty logging; none for any other.
/// Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_check_extension_generic().
#[must_use]
pub fn check_extension(machine: &Machine, cap: u32) -> Option<u32> {
    let ring =
        u32::from(machine.arch.has_ring(machine.kernel)) * RING_MAX_ENTRIES * DIRTY_GFN_BYTES;
    match cap {
        // Total-store-order architectures only.
        CAP_DIRTY_LOG_RING if machine.arch != Arch::X86 => Some(0),
        CAP_DIRTY_LOG_RING_ACQ_REL if !machine.kernel.has_ring_acq_rel() => Some(0),
        CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL => Some(ring),
        CAP_DIRTY_LOG_RING_WITH_BITMAP => {
            Some(u32::from(machine.arch.has_ring_with_bitmap(machine.kernel)))
        }
        CAP_MANUAL_DIRTY_LOG_PROTECT2 => {
            Some(machine.arch.manual_protect_mask(machine.kernel) as u32)
        }
        _ => None,
    }
}

/// A mapping of a vCPU's file descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Where it begins in the file, in pages.
    pub first_page: u64,
    /// Its length, in pages.
    pub pages: u64,
    /// KVM_DIRTY_LOG_PAGE_OFFSET, in pages.
    pub ring_page: u64,
    /// PROT_EXEC.
    pub executable: bool,
    /// MAP_SHARED.
    pub shared: bool,
}

/// Whether a page of a vCPU's file descriptor is one of its ring.
/// Source: virt/kvm/kvm_main.c, kvm_page_in_dirty_ring().
fn is_ring_page<L: Layout>(machine: &Machine, state: &State<L>, ring_page: u64, page: u64) -> bool {
    let bytes = u64::from(state.caps.ring_entries) * u64::from(DIRTY_GFN_BYTES);
    let pages = bytes / machine.constants.page_bytes;
    page.checked_sub(ring_page).is_some_and(|page| page < pages)
}

/// What mmap of a vCPU's file descriptor answers: only its first and its last page are looked at.
/// Source: virt/kvm/kvm_main.c, kvm_vcpu_mmap(); for the EPERM mm/mmap.c, do_mmap(), whose test for a file system without
/// programs comes first and covers anonymous inodes since 6.17 (seen on 6.18, not on 6.12).
///
/// # Errors
/// EINVAL or EPERM.
pub fn map_vcpu<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    mapping: Mapping,
) -> Result<(), Errno> {
    if mapping.pages == 0 {
        return Err(Errno::EINVAL);
    }
    if mapping.executable && machine.kernel >= Kernel::V6_18 {
        return Err(Errno::EPERM);
    }
    let last = mapping.first_page.saturating_add(mapping.pages - 1);
    let in_ring = |page| is_ring_page(machine, state, mapping.ring_page, page);
    if (in_ring(mapping.first_page) || in_ring(last)) && (mapping.executable || !mapping.shared) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Whether there is anything at a page of a vCPU's file descriptor: the run area, the rings of coalesced MMIO and of port
/// I/O, the dirty ring. Elsewhere a touch is a bus error. Source: virt/kvm/kvm_main.c, kvm_vcpu_fault().
#[must_use]
pub fn vcpu_page_exists<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    ring_page: u64,
    page: u64,
) -> bool {
    let others = if machine.arch == Arch::X86 { 3 } else { 2 };
    page < others || is_ring_page(machine, state, ring_page, page)
}
