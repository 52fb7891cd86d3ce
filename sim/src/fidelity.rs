//! What of a machine was read in the kernel's source and seen on no kernel: no verdict on it goes without saying so.
//!
//! `docs/fidelity.md` says how each behaviour is known; this is its summary by machine.

use dirtysim_model::machine::{Arch, Kernel, Machine, Mmu};

/// The parts of a machine that no recorded kernel has, as phrases.
#[must_use]
pub fn never_seen(machine: &Machine) -> Vec<&'static str> {
    let mut parts = Vec::new();
    match machine.arch {
        Arch::X86 if machine.mmu == Mmu::TwoDimensional => {
            parts.push("x86's two-dimensional MMU and its lockless page fault");
        }
        Arch::Riscv => parts.push("KVM on RISC-V"),
        Arch::Loongarch => parts.push("KVM on LoongArch"),
        Arch::S390 => parts.push("KVM on s390"),
        Arch::X86 | Arch::Arm64 => {}
    }
    if machine.pml {
        parts.push("the page-modification log (PML)");
    }
    if machine.slots.iter().any(|slot| slot.as_id > 0) {
        parts.push("slots in a second address space");
    }
    if machine.kernel == Kernel::V6_1 {
        parts.push("Linux 6.1");
    }
    parts
}

/// Such parts, as every verdict says them.
#[must_use]
pub fn sentence(parts: &[&str]) -> String {
    format!(
        "read in the source, never seen on a kernel: {}",
        parts.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_needs_no_word() {
        let arm64 = Machine::new(Arch::Arm64, Kernel::V6_12, false);
        assert!(never_seen(&arm64).is_empty());
        let mut x86 = Machine::new(Arch::X86, Kernel::V6_18, false);
        x86.mmu = Mmu::Shadow;
        assert!(never_seen(&x86).is_empty());
    }

    #[test]
    fn what_was_only_read_is_named() {
        let x86 = Machine::new(Arch::X86, Kernel::V6_1, true);
        assert_eq!(
            never_seen(&x86),
            [
                "x86's two-dimensional MMU and its lockless page fault",
                "the page-modification log (PML)",
                "Linux 6.1"
            ]
        );
        for arch in [Arch::Riscv, Arch::Loongarch, Arch::S390] {
            let parts = never_seen(&Machine::new(arch, Kernel::V7_2, false));
            assert_eq!(parts.len(), 1, "{arch:?}");
        }
    }
}
