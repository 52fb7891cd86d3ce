//! Kernel versions: each selects named differences, never a copy of the code.

/// The kernel tree in which a behaviour without another note was read.
pub const SOURCE_TREE: &str = "v7.2.13";

/// A kernel version: it selects named differences, never a copy of the code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kernel {
    /// Linux 5.15 (read on x86 and arm64, at 5.15.100).
    V5_15,
    /// Linux 6.1 (read at 6.1.192).
    V6_1,
    /// Linux 6.6 (read on x86 and arm64 in parts, in a distribution's tree of it; the rest is taken to be as at 6.12).
    V6_6,
    /// Linux 6.12 (read at 6.12.117, recorded on arm64).
    V6_12,
    /// Linux 6.18 (recorded on x86).
    V6_18,
    /// Linux 7.2 (read at 7.2.13).
    V7_2,
    /// Linux 7.3 (read at 7.3.4, recorded on arm64).
    V7_3,
}

impl Kernel {
    /// Every version that the model knows, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V5_15,
        Self::V6_1,
        Self::V6_6,
        Self::V6_12,
        Self::V6_18,
        Self::V7_2,
        Self::V7_3,
    ];

    /// The name in scenarios and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_15 => "5.15",
            Self::V6_1 => "6.1",
            Self::V6_6 => "6.6",
            Self::V6_12 => "6.12",
            Self::V6_18 => "6.18",
            Self::V7_2 => "7.2",
            Self::V7_3 => "7.3",
        }
    }

    /// `soft_full_is_compared`: whether the ring is soft-full is worked out at each entry; there is no request (until cf87ac739e48, 6.2).
    #[must_use]
    pub fn soft_full_is_compared(self) -> bool {
        self <= Self::V6_1
    }

    /// `reset_signal_exit`: RESET leaves at once when a signal is pending (commit 49005a2a3d2a, 6.17).
    #[must_use]
    pub fn reset_signal_exit(self) -> bool {
        self >= Self::V6_18
    }

    /// `mark_needs_vcpu`: on an architecture with rings, a mark without a running vCPU is dropped (until c57351a75d01).
    #[must_use]
    pub fn mark_needs_vcpu(self) -> bool {
        self == Self::V6_1
    }

    /// `ring_wants_vcpu`: with a ring, a mark without a running vCPU looks for one all the same, and the kernel oopses (5.15.100:
    /// virt/kvm/dirty_ring.c, kvm_dirty_ring_get(); until 2efd61a608b0, 5.17).
    #[must_use]
    pub fn ring_wants_vcpu(self) -> bool {
        self == Self::V5_15
    }

    /// `has_ring_acq_rel`: `KVM_CAP_DIRTY_LOG_RING_ACQ_REL` is there (17601bfed909, 6.1).
    #[must_use]
    pub fn has_ring_acq_rel(self) -> bool {
        self >= Self::V6_1
    }

    /// `x86_tdp_marks_last`: x86's two-dimensional MMU marks behind the leaf that it has set (5.15.100: arch/x86/kvm/mmu/tdp_mmu.c,
    /// handle_changed_spte_dirty_log()); make_spte() marks at 6.1.
    #[must_use]
    pub fn x86_tdp_marks_last(self) -> bool {
        self == Self::V5_15
    }

    /// `splits_ahead`: x86 splits huge leaves of a slot that logs ahead of stores (since 5.18).
    #[must_use]
    pub fn splits_ahead(self) -> bool {
        self >= Self::V6_1
    }

    /// `arm64_faults_exclude`: arm64's mmu_lock is a spinlock, which a fault holds alone (until 5.18).
    #[must_use]
    pub fn arm64_faults_exclude(self) -> bool {
        self == Self::V5_15
    }

    /// `arm64_mark_in_lock`: arm64 marks before it drops mmu_lock (read at 6.1 and 6.6, not there at 6.12.117).
    #[must_use]
    pub fn arm64_mark_in_lock(self) -> bool {
        self <= Self::V6_6
    }

    /// `pml_newest_first`: the PML buffer is flushed from its newest entry (until 37c3ddfe5238, 6.14).
    #[must_use]
    pub fn pml_newest_first(self) -> bool {
        self < Self::V6_18
    }

    /// `arm64_marks_block`: arm64 marks the first page of the block that it maps, not the page that was stored to (read at 7.2.13, seen
    /// on 7.3.4).
    #[must_use]
    pub fn arm64_marks_block(self) -> bool {
        self >= Self::V7_2
    }

    /// `its_maps_lpi_once`: the ITS refuses to map an LPI from a second event (read and seen at 7.3.4, not there at 7.2.13).
    #[must_use]
    pub fn its_maps_lpi_once(self) -> bool {
        self >= Self::V7_3
    }

    /// `vcpu_id_first`: KVM_CREATE_VCPU looks whether the id is taken before it asks the architecture (read and seen at 7.3.4, not there
    /// at 7.2.13).
    #[must_use]
    pub fn vcpu_id_first(self) -> bool {
        self >= Self::V7_3
    }

    /// `puts_huge_leaves_back`: x86's two-dimensional MMU puts huge leaves back where a log is switched off; before, it dropped the small
    /// ones (read at 7.2.13 and 7.3.4, not there at 6.12.117).
    #[must_use]
    pub fn puts_huge_leaves_back(self) -> bool {
        self >= Self::V6_18
    }

    /// `has_pre_fault`: KVM_PRE_FAULT_MEMORY is there (6.11).
    #[must_use]
    pub fn has_pre_fault(self) -> bool {
        self >= Self::V6_12
    }

    /// `pre_fault_passes_present`: KVM_PRE_FAULT_MEMORY passes over a page whose leaf is there; before, it went through the whole fault
    /// for it, which marks once more and opens a leaf that was write-protected (seen at 6.12.117).
    #[must_use]
    pub fn pre_fault_passes_present(self) -> bool {
        self >= Self::V6_18
    }

    /// `riscv_needs_bitmap`: RISC-V and LoongArch take a slot without a bitmap for one that does not log.
    #[must_use]
    pub fn riscv_needs_bitmap(self) -> bool {
        self <= Self::V6_12
    }
}
