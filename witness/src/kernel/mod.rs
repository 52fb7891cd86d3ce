//! This machine's kernel as a [`Subject`]: each call of a trace performed on `/dev/kvm`, and what it gave.
//!
//! A VM belongs to the section that created it and is closed with it. Calls run on the calling thread, one at a time; every `KVM_RUN` has a
//! time limit.

mod answer;
mod interrupts;
mod layout;
mod log;
mod machine;
mod memory;
mod ring;
mod run;

use std::collections::BTreeMap;
use std::time::Duration;

use dirtysim::trace::call::Call;
use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{Arch, Cap, Machine as TraceMachine};
use kvm_ioctls::Kvm;

use crate::generate::Target;
use crate::kvm::{self, Alarm, PAGE_BYTES, guest, ring::RING_PAGE_OFFSET};
use crate::refusal::Refused;
use crate::subject::{Answer, Subject};

use answer::returned;
pub use layout::{guest_layout, with_own_layout};
use machine::Machine;

/// How long a guest may run before its run counts as hung. Its longest program takes a thousandth of that natively; software emulation is slower.
pub const RUN_LIMIT: Duration = Duration::from_secs(10);

/// How long a pre-fault may take before it counts as one that comes to no end.
const PRE_FAULT_LIMIT: Duration = Duration::from_secs(3);

/// The smallest ring that a kernel with PML takes, bytes: it keeps 576 entries in reserve, and a size is a power of two.
const SMALLEST_RING_PML: u64 = 1024 * 16;

/// The kernel of this machine.
pub struct Kernel {
    kvm: Kvm,
    alarm: Alarm,
    run_limit: Duration,
    machines: BTreeMap<u32, Machine>,
    pml: bool,
    /// What disturbed machines that are closed: see [`Kernel::disturbances`].
    disturbances: u64,
}

impl Kernel {
    /// Opens `/dev/kvm` and shows that it runs the witness's guest.
    ///
    /// # Errors
    /// A sentence: no `/dev/kvm`, no permission, or a kernel that cannot run the guest.
    pub fn open() -> Result<Self, Refused> {
        let kvm = kvm::open()?;
        let alarm = Alarm::new()
            .map_err(|errno| Refused(format!("no timer for the time limits of runs: {errno}")))?;
        let mut kernel = Self {
            kvm,
            alarm,
            run_limit: RUN_LIMIT,
            machines: BTreeMap::new(),
            pml: has_pml(),
            disturbances: 0,
        };
        kernel.probe()?;
        Ok(kernel)
    }

    /// Says which capability of dirty logging this architecture usually has and this kernel has not: there is nothing to compare then.
    ///
    /// # Errors
    /// A sentence that names it.
    pub fn require_dirty_logging(&self) -> Result<(), Refused> {
        // RISC-V has rings from some kernel after 6.12 on, and the bitmap's log before.
        let caps: &[Cap] = match arch() {
            Arch::Riscv64 => &[Cap::ManualDirtyLogProtect2],
            Arch::Arm64 => &[
                Cap::ManualDirtyLogProtect2,
                Cap::DirtyLogRingAcqRel,
                Cap::DirtyLogRingWithBitmap,
            ],
            _ => &[Cap::ManualDirtyLogProtect2, Cap::DirtyLogRingAcqRel],
        };
        for &cap in caps {
            if !self.has(cap) {
                return Err(Refused(format!(
                    "kernel {} has no {cap}: the model beside it has; try Linux 6.12 or later",
                    release()
                )));
            }
        }
        Ok(())
    }

    fn has(&self, cap: Cap) -> bool {
        self.kvm.check_extension_raw(cap.number().into()) > 0
    }

    /// The machine that random sequences are drawn for: this one.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            arch: arch(),
            modes: modes(),
            modes_that_copy: guest::MODES_THAT_COPY,
            modes_with_tables: guest::MODES_WITH_TABLES,
            own_gpa: guest::OWN_GPA,
            own_pages: guest::OWN_PAGES,
            data_gpa: guest::DATA_GPA,
            rings: self.has(Cap::DirtyLogRingAcqRel),
            // The first process of an emulated machine.
            alone: std::process::id() == 1,
            huge_when_touched: std::process::id() == 1
                && arch() == Arch::X86_64
                && std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/use_zero_page")
                    .is_ok_and(|value| value.trim() == "0"),
            smallest_ring: if has_pml() {
                SMALLEST_RING_PML
            } else {
                PAGE_BYTES
            },
            pre_faults: !(has_pml() && is_before(&release(), 6, 13)),
        }
    }

    /// What has changed results that no call says anything of, all sections so far together: with PML interrupts of the host's that took a vCPU
    /// out of the guest, where the kernel counts them; with a record of stolen time the switches of the thread within KVM_RUN;
    /// and a KVM_RUN that took longer than its limit and went on.
    fn disturbances(&self) -> u64 {
        let open = self.machines.values().map(|machine| self.of(machine));
        self.disturbances + open.sum::<u64>()
    }

    /// What disturbed one machine.
    fn of(&self, machine: &Machine) -> u64 {
        // Without PML an exit changes nothing.
        let interruptions = if self.pml { machine.interruptions() } else { 0 };
        interruptions + machine.disturbances()
    }

    /// Runs one store of one guest, so that a machine that cannot fails here, with a sentence, and not in the middle of a recording.
    fn probe(&mut self) -> Result<(), Refused> {
        let limit = std::mem::replace(&mut self.run_limit, Duration::from_secs(5));
        let result = run::probe(self);
        self.run_limit = limit;
        self.begin_section();
        result.map_err(|refused| {
            Refused(format!(
                "/dev/kvm opens but does not run the witness's guest: {refused}"
            ))
        })
    }

    /// What a trace that is recorded here says of its machine.
    #[must_use]
    pub fn describe(&self) -> TraceMachine {
        let x86 = arch() == Arch::X86_64;
        TraceMachine {
            arch: arch(),
            kernel: Some(release()),
            page_size: Some(PAGE_BYTES),
            ring_page_offset: Some(RING_PAGE_OFFSET),
            address_spaces: None,
            pml: x86.then(has_pml),
            two_dimensional: x86.then(is_two_dimensional),
        }
    }
}

/// The VM that a call is made on.
fn find<'a>(
    machines: &'a mut BTreeMap<u32, Machine>,
    vm: Option<u32>,
    call: &Call,
) -> Result<&'a mut Machine, Refused> {
    let number = vm.ok_or_else(|| Refused(format!("`{}` without a VM", call.name())))?;
    machines.get_mut(&number).ok_or_else(|| {
        Refused(format!(
            "there is no VM {number}: KVM_CREATE_VM comes first"
        ))
    })
}

/// This machine's architecture, as traces name it.
#[must_use]
pub fn arch() -> Arch {
    if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else {
        Arch::X86_64
    }
}

/// Whether this machine's KVM logs by PML.
fn has_pml() -> bool {
    parameter("kvm_intel/parameters/pml")
}

/// Whether this machine's KVM maps guest memory by a second dimension of tables (x86).
fn is_two_dimensional() -> bool {
    parameter("kvm_intel/parameters/ept") || parameter("kvm_amd/parameters/npt")
}

/// The modes of guests that random sequences are in, the usual one first. With shadow paging none whose tables' bits are clear; and one without
/// paging only where the processor runs it: other vendor modules than AMD's have its instructions emulated, and what is emulated is recorded
/// for each store (seen with kvm_pvm, by the tracepoint kvm_emulate_insn).
#[cfg(target_arch = "x86_64")]
fn modes() -> &'static [&'static str] {
    if is_two_dimensional() {
        guest::MODES
    } else if std::path::Path::new("/sys/module/kvm_amd").exists() {
        &[guest::MODE, guest::MODE_NO_PAGING]
    } else {
        &[guest::MODE]
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn modes() -> &'static [&'static str] {
    guest::MODES
}

/// Whether a parameter of KVM's vendor module is on; a module that is not loaded has none.
fn parameter(path: &str) -> bool {
    std::fs::read_to_string(format!("/sys/module/{path}"))
        .is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

/// Whether a release is of a version before.
fn is_before(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split('.').map_while(|part| part.parse().ok());
    (numbers.next(), numbers.next()) < (Some(major), Some(minor))
}

/// The release of the running kernel, as `uname -r` has it.
#[must_use]
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

impl Subject for Kernel {
    fn name(&self) -> String {
        format!("kernel {}", release())
    }

    fn begin_section(&mut self) {
        self.disturbances = self.disturbances();
        self.machines.clear();
    }

    fn disturbed(&self) -> u64 {
        self.disturbances()
    }

    fn perform(&mut self, vm: Option<u32>, call: &Call) -> Result<Answer, Refused> {
        kvm::fault::about_to(call.name());
        self.answer(vm, call).map(Answer::Result)
    }
}

impl Kernel {
    fn answer(&mut self, vm: Option<u32>, call: &Call) -> Result<CallResult, Refused> {
        match call {
            Call::CheckExtension { cap } => {
                let ret = self.kvm.check_extension_raw(cap.number().into());
                Ok(CallResult::returned(u32::try_from(ret).unwrap_or(0)))
            }
            Call::End {} => Ok(CallResult::default()),
            Call::CreateVm {} => {
                let number =
                    vm.ok_or_else(|| Refused::new("`KVM_CREATE_VM` without a number for the VM"))?;
                if self.machines.contains_key(&number) {
                    return Err(Refused(format!(
                        "VM {number} exists already: close it, or give the new one another number"
                    )));
                }
                let created = Machine::new(&self.kvm);
                if let Ok(machine) = created {
                    self.machines.insert(number, machine);
                    Ok(CallResult::returned(0))
                } else {
                    returned(created.map(|_| 0))
                }
            }
            Call::CloseVm {} => {
                find(&mut self.machines, vm, call)?;
                let number = vm.expect("a VM that was found has a number");
                if let Some(machine) = self.machines.remove(&number) {
                    self.disturbances += self.of(&machine);
                }
                Ok(CallResult::default())
            }
            Call::VcpuInit { vcpu, mode } => {
                let machine = find(&mut self.machines, vm, call)?;
                machine.init_vcpu(&self.kvm, *vcpu, mode)
            }
            Call::Run {
                vcpu,
                program,
                resume,
            } => {
                let machine = find(&mut self.machines, vm, call)?;
                machine.run(&self.alarm, self.run_limit, *vcpu, program, *resume)
            }
            Call::PreFaultMemory { vcpu, gpa, npages } => {
                let machine = find(&mut self.machines, vm, call)?;
                let vcpu = &machine.processor(*vcpu)?.vcpu;
                let (result, count) = self
                    .alarm
                    .within(PRE_FAULT_LIMIT, || vcpu.pre_fault(*gpa, *npages));
                Ok(CallResult {
                    count: Some(count),
                    ..returned(result.map(|()| 0))?
                })
            }
            Call::GuestMmio { .. } => {
                find(&mut self.machines, vm, call)?.guest_mmio(&self.alarm, self.run_limit, call)
            }
            _ => find(&mut self.machines, vm, call)?.perform(call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_before_a_version_by_its_numbers() {
        assert!(is_before("6.12.117+deb12-cloud-amd64", 6, 13));
        assert!(is_before("5.15.0-1", 6, 13));
        assert!(!is_before("6.13.0", 6, 13));
        assert!(!is_before("7.3.4+deb14", 6, 13));
    }
}
