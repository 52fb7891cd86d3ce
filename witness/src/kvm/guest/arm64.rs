//! The arm64 guest: EL1 with stage 1 off, so that every address is a guest physical one and no table of the guest's own is walked.

use super::{HostMemory, Program, code, get_one_reg, operation, set_one_reg, write_list};
use crate::kvm::vcpu::EXIT_MMIO;
use crate::kvm::{Errno, PAGE_BYTES, RunEnd, Sys, Vcpu, Vm};
use crate::refusal::Refused;
use kvm_bindings::{
    KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, KVM_REG_ARM_CORE, KVM_REG_ARM64,
    KVM_REG_SIZE_U64, kvm_device_attr, kvm_vcpu_init,
};
use kvm_ioctls::Kvm;

/// What a recording calls this guest.
pub const MODE: &str = "el1, stage 1 off";

/// Where the guest's own memory usually is, and where its other slots begin.
pub const OWN_GPA: u64 = 0x4000_0000;
/// See [`OWN_GPA`].
pub const DATA_GPA: u64 = 0x8000_0000;

/// Pages that the guest's own memory needs.
pub const OWN_PAGES: u64 = 16;

/// Pages of the guest's own memory, by use: (what, first, pages).
pub const LAYOUT: [(&str, u64, u64); 2] = [("code_pages", 0, 1), ("list_pages", 8, 8)];

/// The exit with which the guest says that it is done.
pub const DONE_EXIT: u32 = EXIT_MMIO;

const CODE: u64 = 0;
const LISTS: u64 = 8 * PAGE_BYTES;

/// Guest physical addresses below this can be reached, bytes: the 40 bits that every KVM on arm64 gives a VM by default.
pub const REACH: u64 = 1 << 40;

/// Where a store says "done": no memslot and no device may be there.
pub const DONE_ADDRESS: u64 = 0x0900_0000;

// x0: next run of the list; x1: runs left; x6: address; x7: pages left of the run; x2: value; x3: operation; x4: accesses retired.
core::arch::global_asm!(
    ".pushsection .rodata.dirtysim_guest, \"a\", @progbits",
    ".balign 4",
    ".globl dirtysim_guest_start",
    ".globl dirtysim_guest_end",
    ".globl dirtysim_guest_count",
    ".globl dirtysim_guest_done",
    "dirtysim_guest_start:",
    "2: cbz x1, 9f",
    "   ldp x6, x7, [x0], #16",
    "   sub x1, x1, #1",
    "3: cbz x7, 2b",
    "   cmp x3, #1",
    "   b.eq 4f",
    "   cmp x3, #8",
    "   b.eq 5f",
    "   cmp x3, #4",
    "   b.eq 7f",
    "   cmp x3, #16",
    "   b.eq 22f",
    "   cmp x3, #32",
    "   b.eq 3b",
    "   cmp x3, #2",
    "   b.eq 8f",
    "   cmp x3, #128",
    "   b.eq 25f",
    "   ldrb w8, [x6]",
    "   b 6f",
    "25: ldr x8, [x6]",
    "   b 6f",
    "4: strb w2, [x6]",
    "   b 6f",
    "5: str x2, [x6]",
    "   b 6f",
    "7: str w2, [x6]",
    "   b 6f",
    "8: strh w2, [x6]",
    "   b 6f",
    "dirtysim_guest_count:",
    "22: str x2, [x6]",
    "   add x2, x2, #1",
    "6: add x4, x4, #1",
    "   add x6, x6, #4096",
    "   sub x7, x7, #1",
    "   b 3b",
    "dirtysim_guest_done:",
    "9: str w4, [x5]",
    "   b 9b",
    "dirtysim_guest_end:",
    ".popsection",
);

unsafe extern "C" {
    static dirtysim_guest_count: u8;
    static dirtysim_guest_done: u8;
}

/// Instructions of the guest, by their distance from its first, bytes.
pub struct Places {
    /// The store of [`Access::Count`](super::Access::Count).
    pub store: u64,
    /// What says that it is done.
    pub done: u64,
}

/// Where a guest can be held.
#[must_use]
pub fn places() -> Places {
    let distance = |place: *const u8| place as u64 - code().as_ptr() as u64;
    Places {
        store: distance(&raw const dirtysim_guest_count),
        done: distance(&raw const dirtysim_guest_done),
    }
}

/// Writes the guest's code to its own memory, which is to be a memslot at guest address `gpa`.
///
/// # Errors
/// Memory too small.
pub fn install(memory: &HostMemory, _gpa: u64) -> Result<(), Refused> {
    memory.write(CODE, code())
}

/// `KVM_ARM_VCPU_INIT` with the processor that this kernel prefers, running (not waiting for another vCPU to start it).
///
/// # Errors
/// A sentence with the call that the kernel refused.
pub fn init_vcpu(_kvm: &Kvm, vm: &Vm, vcpu: &Vcpu) -> Result<(), Refused> {
    let refused = |what: &'static str| {
        move |error: kvm_ioctls::Error| {
            Refused(format!(
                "{what} failed with {}: this kernel cannot run the arm64 guest",
                Errno::from(error)
            ))
        }
    };
    let mut init = kvm_vcpu_init::default();
    vm.fd()
        .get_preferred_target(&mut init)
        .map_err(refused("KVM_ARM_PREFERRED_TARGET"))?;
    vcpu.fd()
        .vcpu_init(&init)
        .map_err(refused("KVM_ARM_VCPU_INIT"))
}

/// Switches the vCPU's record of stolen time on.
///
/// # Errors
/// Inner: the kernel's errno.
pub fn stolen_time(vcpu: &Vcpu, gpa: u64) -> Result<Sys<()>, Refused> {
    let attr = kvm_device_attr {
        group: KVM_ARM_VCPU_PVTIME_CTRL,
        attr: u64::from(KVM_ARM_VCPU_PVTIME_IPA),
        addr: &raw const gpa as u64,
        flags: 0,
    };
    Ok(vcpu.fd().set_device_attr(&attr).map_err(Errno::from))
}

/// The id of the core register at `index` 32-bit words into `struct kvm_regs`: x0 to x30, then sp, pc, pstate.
fn core_register(index: u64) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (index * 2)
}

/// Loads a program: writes its list and sets the registers to the loop's start.
///
/// # Errors
/// A program that does not fit or reaches beyond [`REACH`].
pub fn begin(
    vcpu: &Vcpu,
    memory: &HostMemory,
    own_gpa: u64,
    program: &Program,
) -> Result<(), Refused> {
    write_list(memory, LISTS, REACH, vcpu.id(), program)?;
    let (x3, x2) = operation(program.access)?;
    set_one_reg(
        vcpu,
        core_register(0),
        own_gpa + LISTS + vcpu.id() * PAGE_BYTES,
    )?;
    set_one_reg(vcpu, core_register(1), program.runs.len() as u64)?;
    set_one_reg(vcpu, core_register(2), x2)?;
    set_one_reg(vcpu, core_register(3), x3)?;
    set_one_reg(vcpu, core_register(4), 0)?;
    set_one_reg(vcpu, core_register(5), DONE_ADDRESS)?;
    set_one_reg(vcpu, core_register(32), own_gpa + CODE)?;
    // EL1h with every interrupt masked.
    set_one_reg(vcpu, core_register(33), 0x3c5)
}

/// Accesses of the current program that retired.
///
/// # Errors
/// `KVM_GET_ONE_REG` failed.
pub fn retired(vcpu: &Vcpu) -> Result<u64, Refused> {
    get_one_reg(vcpu, core_register(4))
}

/// Whether a run ended with the guest saying that it is done.
#[must_use]
pub fn done(vcpu: &mut Vcpu, end: RunEnd) -> bool {
    end == RunEnd::Exit(DONE_EXIT) && vcpu.mmio_address() == DONE_ADDRESS
}
