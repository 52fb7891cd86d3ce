//! Architectures, as KVM's dirty logging tells them apart.

use super::constants::{INITIALLY_SET, MANUAL_PROTECT_ENABLE};
use super::kernel::Kernel;

/// An architecture, as KVM's dirty logging tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    /// arm64: ring, ring with bitmap, ITS.
    Arm64,
    /// x86, with or without PML.
    X86,
    /// RISC-V: ring, no bitmap beside it.
    Riscv,
    /// LoongArch: ring, no bitmap beside it.
    Loongarch,
    /// s390: no ring.
    S390,
}

impl Arch {
    /// Every architecture that the model knows.
    pub const ALL: [Self; 5] = [
        Self::Arm64,
        Self::X86,
        Self::Riscv,
        Self::Loongarch,
        Self::S390,
    ];

    /// The name in scenarios and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86 => "x86",
            Self::Riscv => "riscv",
            Self::Loongarch => "loongarch",
            Self::S390 => "s390",
        }
    }

    /// Whether re-arming a batch write-protects every page from its lowest to its highest bit.
    /// LoongArch and x86 re-arm the batch's own pages, RISC-V from 7.3 on too. Source: arch/arm64/kvm/mmu.c, arch/riscv/kvm/mmu.c,
    /// arch/loongarch/kvm/mmu.c, kvm_arch_mmu_enable_log_dirty_pt_masked().
    #[must_use]
    pub fn rearms_range(self, kernel: Kernel) -> bool {
        match self {
            Self::Arm64 => true,
            Self::Riscv => kernel < Kernel::V7_3,
            Self::X86 | Self::Loongarch | Self::S390 => false,
        }
    }

    /// Whether the architecture has dirty rings at that kernel version.
    #[must_use]
    pub fn has_ring(self, kernel: Kernel) -> bool {
        match self {
            Self::X86 => true,
            Self::Arm64 => kernel >= Kernel::V6_6,
            Self::Loongarch => kernel >= Kernel::V6_12,
            Self::Riscv => kernel >= Kernel::V6_18,
            Self::S390 => false,
        }
    }

    /// Whether a ring may be backed by a bitmap. Source: virt/kvm/Kconfig, NEED_KVM_DIRTY_RING_WITH_BITMAP.
    #[must_use]
    pub fn has_ring_with_bitmap(self, kernel: Kernel) -> bool {
        self == Self::Arm64 && self.has_ring(kernel)
    }

    /// The mask of manual-protect bits that KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 accepts. RISC-V has INITIALLY_SET since some version after
    /// 6.12. Source: include/asm/kvm_host.h of each, KVM_DIRTY_LOG_MANUAL_CAPS.
    #[must_use]
    pub fn manual_protect_mask(self, kernel: Kernel) -> u64 {
        match self {
            Self::S390 => 0,
            Self::Riscv if kernel < Kernel::V7_2 => MANUAL_PROTECT_ENABLE,
            Self::Arm64 | Self::X86 | Self::Riscv | Self::Loongarch => {
                MANUAL_PROTECT_ENABLE | INITIALLY_SET
            }
        }
    }

    /// Whether a fault can map a huge page of the host's by a huge leaf: RISC-V does so with transparent huge pages since some version
    /// after 6.12 (before, with hugetlbfs alone). Source: arch/riscv/kvm/mmu.c, transparent_hugepage_adjust().
    #[must_use]
    pub fn maps_huge(self, kernel: Kernel) -> bool {
        self != Self::Riscv || kernel >= Kernel::V7_2
    }
}

/// What walks the guest's memory accesses on x86; other architectures have one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mmu {
    /// Two-dimensional paging (EPT, NPT, stage 2): faults take mmu_lock for read, and x86 has the lockless fast path.
    TwoDimensional,
    /// Shadow paging: mmu_lock is exclusive, no fast path.
    Shadow,
}
