//! A string instruction that KVM emulates: beyond lockstep, whose guests make stores that run natively.
//!
//! A guest on x86 copies a page, by one string instruction, from where no memory is. KVM emulates it, an element at a time: each element's
//! load leaves for user space, and the KVM_RUN that answers it stores the element, marks the page, and comes to the next element's load
//! before it comes to the check of the ring. What is tried is whether the guest overflows its ring in this way.

use std::sync::Arc;
use std::time::Duration;

use kvm_ioctls::Kvm;

use crate::kvm::guest::{self, Access, Program};
use crate::kvm::ring::MapHow;
use crate::kvm::vcpu::{EXIT_DIRTY_RING_FULL, EXIT_MMIO};
use crate::kvm::vm::Region;
use crate::kvm::{Alarm, Errno, HostMemory, PAGE_BYTES, RingMap, RunEnd, Vm};
use crate::refusal::Refused;

/// The smallest ring that every kernel takes, and the entries that are used before the instruction: two below the soft limit.
const ENTRIES: u64 = 256;
const USED: u64 = 190;
const PAGES: u64 = ENTRIES;
const SLOT: u32 = 1;
/// Where no memslot is.
const HOLE: u64 = 0x3000_0000;
const RUN_LIMIT: Duration = Duration::from_secs(20);
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
    let refused =
        |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
    let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
    let ring_bytes = ENTRIES * 16;
    vm.enable_cap(192, 0, ring_bytes)
        .map_err(refused("KVM_CAP_DIRTY_LOG_RING"))?;
    let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
    let data = Arc::new(HostMemory::new(PAGES).map_err(refused("mmap"))?);
    guest::install(&own, guest::OWN_GPA)?;
    for (slot, flags, gpa, pages, memory) in [
        (0, 0, guest::OWN_GPA, guest::OWN_PAGES, &own),
        (SLOT, 1, guest::DATA_GPA, PAGES, &data),
    ] {
        let region = Region {
            slot,
            flags,
            gpa,
            bytes: pages * PAGE_BYTES,
            offset: 0,
        };
        vm.set_memory(region, memory)?
            .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    }
    let mut vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
    guest::init_vcpu(kvm, &vm, &vcpu)?;
    let ring = RingMap::map(vcpu.raw_fd(), MapHow::usual(ring_bytes))
        .map_err(refused("mmap of the ring"))?;
    let alarm = Alarm::new().map_err(refused("timer_create"))?;
    let stores = Program {
        access: Access::Store { bytes: 8, value: 1 },
        runs: vec![(guest::DATA_GPA, USED)],
    };
    guest::begin(&vcpu, &own, guest::OWN_GPA, &stores)?;
    let end = vcpu.run(&alarm, RUN_LIMIT);
    if !guest::done(&mut vcpu, end) {
        return Err(Refused(format!("the guest's stores ended with {end:?}")));
    }
    vcpu.complete_exit();
    let before: Vec<u64> = (0..USED as u32).map(|at| ring.read(at).offset).collect();
    let copy = Program {
        access: Access::CopyFrom { gpa: HOLE },
        runs: vec![(guest::DATA_GPA + USED * PAGE_BYTES, 1)],
    };
    guest::begin(&vcpu, &own, guest::OWN_GPA, &copy)?;
    let mut report = Report {
        loads: 0,
        soft_full: false,
        overwritten: 0,
    };
    loop {
        match vcpu.run(&alarm, RUN_LIMIT) {
            RunEnd::Exit(EXIT_MMIO) if report.loads < RUNS_MAX => report.loads += 1,
            RunEnd::Exit(EXIT_DIRTY_RING_FULL) => {
                report.soft_full = true;
                break;
            }
            end if guest::done(&mut vcpu, end) => break,
            end => return Err(Refused(format!("the guest's copy ended with {end:?}"))),
        }
    }
    report.overwritten = (0..USED as u32)
        .zip(before)
        .filter(|&(at, page)| ring.read(at).offset != page)
        .count() as u64;
    Ok(report)
}
