//! A string instruction that KVM emulates, of a whole page: what it does to a ring that is nearly full. Lockstep draws such copies too.
//!
//! A guest on x86 copies a page, by one string instruction, from where no memory is. KVM emulates it, an element at a time: each element's
//! load leaves for user space, and the KVM_RUN that answers it stores the element, marks the page, and comes to the next element's load
//! before it comes to the check of the ring. What is tried is whether the guest overflows its ring in this way.

use kvm_ioctls::Kvm;

use crate::kvm::guest::{self, Access, Program};
use crate::kvm::vcpu::{EXIT_DIRTY_RING_FULL, EXIT_MMIO};
use crate::kvm::{PAGE_BYTES, RunEnd};
use crate::one_vcpu::OneVcpu;
use crate::refusal::Refused;

/// The smallest ring that every kernel takes, and the entries that are used before the instruction: two below the soft limit.
const ENTRIES: u64 = 256;
const USED: u64 = 190;
const PAGES: u64 = ENTRIES;
/// More exits than the elements of a page.
const RUNS_MAX: u64 = PAGE_BYTES + 16;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Exits for an element's load.
    pub loads: u64,
    /// Whether exit 31 ended the copy; the rest of it was not let run.
    pub soft_full: bool,
    /// Entries that were there before and name another page now.
    pub overwritten: u64,
}

/// Lets a guest copy a page so, and looks at its ring.
///
/// # Errors
/// The kernel refuses what this needs, or the guest ends otherwise.
pub fn emulated_string(kvm: &Kvm) -> Result<Report, Refused> {
    let cap = (192, "KVM_CAP_DIRTY_LOG_RING");
    let mut vm = OneVcpu::new(kvm, cap, ENTRIES * 16, PAGES)?;
    vm.store(USED)?;
    let pages = |vm: &OneVcpu| -> Vec<u64> {
        let entries = 0..USED as u32;
        entries.map(|at| vm.ring.read(at).offset).collect()
    };
    let before = pages(&vm);
    vm.begin(&Program {
        access: Access::CopyFrom {
            gpa: guest::HOLE_GPA,
            elements: PAGE_BYTES / 8,
        },
        runs: vec![(guest::DATA_GPA + USED * PAGE_BYTES, 1)],
    })?;
    let mut report = Report {
        loads: 0,
        soft_full: false,
        overwritten: 0,
    };
    loop {
        match vm.run() {
            RunEnd::Exit(EXIT_MMIO) if report.loads < RUNS_MAX => report.loads += 1,
            RunEnd::Exit(EXIT_DIRTY_RING_FULL) => {
                report.soft_full = true;
                break;
            }
            end if guest::done(&mut vm.vcpu, end) => break,
            end => return Err(Refused(format!("the guest's copy ended with {end:?}"))),
        }
    }
    let after = pages(&vm).into_iter();
    report.overwritten = after.zip(before).filter(|(now, then)| now != then).count() as u64;
    Ok(report)
}
