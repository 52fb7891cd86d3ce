//! The rules of mapping a vCPU's ring. Source: virt/kvm/kvm_main.c, kvm_vcpu_mmap() and kvm_vcpu_fault(); mm/mmap.c.

use dirtysim_model::machine::{DIRTY_GFN_BYTES, Kernel};

use crate::trace::Errno;
use crate::trace::call::{Prot, Sharing};
use crate::trace::call_result::{CallResult, Returned, Touch};

/// What `mmap` of a vCPU's file descriptor asks for.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    /// Where it begins, in pages of the file.
    pub offset_pages: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Protection.
    pub prot: Prot,
    /// Shared or private.
    pub sharing: Sharing,
    /// The byte of it that is touched afterwards, if any.
    pub touch_byte: Option<u64>,
}

/// Where a ring lies in its vCPU's file.
#[derive(Debug, Clone, Copy)]
pub struct RingPlace {
    /// KVM_DIRTY_LOG_PAGE_OFFSET.
    pub offset_pages: u64,
    /// Entries of the ring; 0: no ring.
    pub entries: u32,
    /// Bytes in a page.
    pub page_bytes: u64,
}

/// What the call answers, and what touching the byte does. Only mappings from the ring's offset on are covered.
#[must_use]
pub fn map_ring(mapping: &Mapping, ring: &RingPlace, kernel: Kernel) -> Option<CallResult> {
    let pages = mapping.bytes.div_ceil(ring.page_bytes);
    if mapping.offset_pages < ring.offset_pages || pages == 0 {
        return None;
    }
    let ring_pages = u64::from(ring.entries) * u64::from(DIRTY_GFN_BYTES) / ring.page_bytes;
    let in_ring = |page: u64| (ring.offset_pages..ring.offset_pages + ring_pages).contains(&page);
    // The first and the last page of the mapping decide.
    let meets =
        in_ring(mapping.offset_pages) || in_ring(mapping.offset_pages.checked_add(pages - 1)?);
    let failed = |errno| CallResult {
        mapped_entries: Some(0),
        ..CallResult::failed(errno)
    };
    if meets && matches!(mapping.prot, Prot::Rx | Prot::Rwx) {
        // Newer kernels refuse it a layer above, before KVM is asked.
        return Some(failed(if kernel >= Kernel::V6_18 {
            Errno::EPERM
        } else {
            Errno::EINVAL
        }));
    }
    if meets && mapping.sharing == Sharing::Private {
        return Some(failed(Errno::EINVAL));
    }
    let touch = mapping.touch_byte.map(|byte| {
        let page = mapping.offset_pages + byte / ring.page_bytes;
        if in_ring(page) {
            Touch::Ok
        } else {
            Touch::Sigbus
        }
    });
    Some(CallResult {
        returned: Some(Returned::Value(0)),
        mapped_entries: Some(mapping.bytes / u64::from(DIRTY_GFN_BYTES)),
        touch,
        ..CallResult::default()
    })
}
