//! What of a machine was read in the kernel's source and seen on no kernel: no verdict on it goes without saying so.
//!
//! `docs/fidelity.md` says how each behaviour is known; this is its summary by machine.
//!
//! ```
//! use dirtysim_check::{fidelity::never_seen, scenario::builtin};
//!
//! let scenario = builtin("kernel-docs").unwrap();
//! for behaviour in never_seen(&scenario.machine) {
//!     println!("no kernel was seen doing this: {behaviour}");
//! }
//! ```

use dirtysim_model::machine::{Arch, Kernel, Machine, Mmu};

/// A phrase for each kernel version that was not seen, by their order in [`Kernel::ALL`].
macro_rules! at_linux {
    ($kernel:expr, $what:literal, $seen:literal) => {
        match $kernel {
            Kernel::V5_15 => concat!($what, " at Linux 5.15 (seen: ", $seen, ")"),
            Kernel::V6_1 => concat!($what, " at Linux 6.1 (seen: ", $seen, ")"),
            Kernel::V6_6 => concat!($what, " at Linux 6.6 (seen: ", $seen, ")"),
            Kernel::V6_12 => concat!($what, " at Linux 6.12 (seen: ", $seen, ")"),
            Kernel::V6_18 => concat!($what, " at Linux 6.18 (seen: ", $seen, ")"),
            Kernel::V7_2 => concat!($what, " at Linux 7.2 (seen: ", $seen, ")"),
            Kernel::V7_3 => concat!($what, " at Linux 7.3 (seen: ", $seen, ")"),
        }
    };
}

/// The parts of a machine that no kernel was seen with, as phrases: by architecture, MMU and kernel version. Seen is what `traces/kernel/` has a
/// recording of, which `sim/tests/never_seen.rs` compares. What was seen are results of calls; no order of steps within a call ever was.
#[must_use]
pub fn never_seen(machine: &Machine) -> Vec<&'static str> {
    let kernel = machine.kernel;
    let mut parts = Vec::new();
    match (machine.arch, machine.mmu) {
        (Arch::Arm64, _) if matches!(kernel, Kernel::V6_12 | Kernel::V7_3) => {}
        (Arch::Arm64, _) => parts.push(at_linux!(kernel, "KVM on arm64", "6.12, 7.3")),
        (Arch::X86, Mmu::TwoDimensional)
            if matches!(kernel, Kernel::V6_1 | Kernel::V6_12 | Kernel::V7_3) => {}
        (Arch::X86, Mmu::TwoDimensional) => {
            parts.push(at_linux!(
                kernel,
                "x86's two-dimensional MMU",
                "6.1, 6.12, 7.3"
            ));
        }
        (Arch::X86, Mmu::Shadow) if matches!(kernel, Kernel::V6_12 | Kernel::V6_18) => {}
        (Arch::X86, Mmu::Shadow) => {
            parts.push(at_linux!(kernel, "x86's shadow paging", "6.12, 6.18"));
        }
        (Arch::Riscv, _) if matches!(kernel, Kernel::V6_12 | Kernel::V7_2) => {}
        (Arch::Riscv, _) => parts.push(at_linux!(kernel, "KVM on RISC-V", "6.12, 7.2")),
        (Arch::Loongarch, _) => parts.push("KVM on LoongArch"),
        (Arch::S390, _) => parts.push("KVM on s390"),
    }
    if machine.pml && !matches!(kernel, Kernel::V6_12 | Kernel::V7_3) {
        parts.push(at_linux!(
            kernel,
            "the page-modification log (PML)",
            "6.12, 7.3"
        ));
    }
    if machine.slots.iter().any(|slot| slot.as_id > 0) {
        parts.push("slots in a second address space");
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

/// Why nothing can be said of an architecture at a kernel version: it had no KVM then, or nobody read that version for it.
/// The problem, and what to write instead.
#[must_use]
pub fn unknown_kernel(arch: Arch, kernel: Kernel) -> Option<(String, &'static str)> {
    let name = format!("Linux {} on {}", kernel.name(), arch.name());
    match (arch, kernel) {
        (Arch::Loongarch, Kernel::V5_15 | Kernel::V6_1 | Kernel::V6_6) => Some((
            format!("{name}: no KVM there before 6.7"),
            "write kernel = \"6.12\" or a later one",
        )),
        (Arch::X86 | Arch::Arm64, Kernel::V5_15) => None,
        (Arch::Riscv, Kernel::V5_15) => Some((
            format!("{name}: no KVM there before 5.16"),
            "write kernel = \"6.1\" or a later one",
        )),
        (Arch::S390, Kernel::V5_15) => Some((
            format!("{name}: nobody has read or recorded that version there"),
            "write kernel = \"6.1\", \"6.12\" or \"7.2\"",
        )),
        (Arch::X86, Kernel::V6_18) | (Arch::X86 | Arch::Arm64 | Arch::Riscv, Kernel::V7_3) => None,
        (Arch::X86 | Arch::Arm64, Kernel::V6_6) => None,
        (_, Kernel::V6_6) => Some((
            format!("{name}: nobody has read or recorded that version there"),
            "write kernel = \"6.12\" or \"7.2\"",
        )),
        (Arch::Arm64, Kernel::V6_18) => Some((
            format!("{name}: nobody has read or recorded that version there"),
            "write kernel = \"5.15\", \"6.1\", \"6.6\", \"6.12\", \"7.2\" or \"7.3\"",
        )),
        (Arch::Riscv, Kernel::V6_18) => Some((
            format!("{name}: nobody has read or recorded that version there"),
            "write kernel = \"6.12\", \"7.2\" or \"7.3\"",
        )),
        (_, Kernel::V6_18 | Kernel::V7_3) => Some((
            format!("{name}: nobody has read or recorded that version there"),
            "write kernel = \"6.12\" or \"7.2\"",
        )),
        (_, Kernel::V6_1 | Kernel::V6_12 | Kernel::V7_2) => None,
    }
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
    fn a_version_that_was_not_recorded_is_named() {
        let arm64 = Machine::new(Arch::Arm64, Kernel::V7_2, false);
        assert_eq!(
            never_seen(&arm64),
            ["KVM on arm64 at Linux 7.2 (seen: 6.12, 7.3)"]
        );
    }

    #[test]
    fn a_kernel_that_an_architecture_did_not_have_or_that_nobody_read_is_told_apart() {
        let unknown: Vec<(Arch, Kernel)> = Arch::ALL
            .iter()
            .flat_map(|arch| Kernel::ALL.iter().map(|kernel| (*arch, *kernel)))
            .filter(|(arch, kernel)| unknown_kernel(*arch, *kernel).is_some())
            .collect();
        assert_eq!(unknown.len(), 13, "{unknown:?}");
        assert!(unknown.contains(&(Arch::Loongarch, Kernel::V6_1)));
        assert!(unknown.contains(&(Arch::Arm64, Kernel::V6_18)));
        assert!(!unknown.contains(&(Arch::X86, Kernel::V6_18)));
    }

    #[test]
    fn what_was_only_read_is_named() {
        let x86 = Machine::new(Arch::X86, Kernel::V6_1, true);
        assert_eq!(
            never_seen(&x86),
            ["the page-modification log (PML) at Linux 6.1 (seen: 6.12, 7.3)"]
        );
        assert!(never_seen(&Machine::new(Arch::Riscv, Kernel::V7_2, false)).is_empty());
        for arch in [Arch::Loongarch, Arch::S390] {
            let parts = never_seen(&Machine::new(arch, Kernel::V7_2, false));
            assert_eq!(parts.len(), 1, "{arch:?}");
        }
    }
}
