//! The RISC-V guest: VS mode without translation of its own, so that every address is a guest physical one and no table of the guest's own is walked.

use super::{HostMemory, Program, code, get_one_reg, operation, set_one_reg, write_list};
use crate::kvm::vcpu::EXIT_MMIO;
use crate::kvm::{Errno, PAGE_BYTES, RunEnd, Sys, Vcpu, Vm};
use crate::refusal::Refused;
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_REG_RISCV, KVM_REG_RISCV_CORE, KVM_REG_SIZE_U64, kvm_mp_state,
};
use kvm_ioctls::Kvm;

/// What a recording calls this guest.
pub const MODE: &str = "vs, bare";

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

/// Guest physical addresses below this can be reached, bytes: every mode of the second stage has at least these 40 bits.
pub const REACH: u64 = 1 << 40;

/// Where a store says "done": no memslot and no device may be there.
pub const DONE_ADDRESS: u64 = 0x0900_0000;

// a0: next run of the list; a1: runs left; a6: address; a7: pages left of the run; a2: value; a3: operation; a4: accesses retired.
// No compressed instructions: a kernel that emulates the last store reads it back from the guest.
core::arch::global_asm!(
    ".pushsection .rodata.dirtysim_guest, \"a\", @progbits",
    ".option push",
    ".option norvc",
    ".balign 4",
    ".globl dirtysim_guest_start",
    ".globl dirtysim_guest_end",
    "dirtysim_guest_start:",
    "2: beqz a1, 9f",
    "   ld a6, 0(a0)",
    "   ld a7, 8(a0)",
    "   addi a0, a0, 16",
    "   addi a1, a1, -1",
    "3: beqz a7, 2b",
    "   li t0, 1",
    "   beq a3, t0, 4f",
    "   li t0, 8",
    "   beq a3, t0, 5f",
    "   li t0, 4",
    "   beq a3, t0, 7f",
    "   li t0, 16",
    "   beq a3, t0, 22f",
    "   li t0, 32",
    "   beq a3, t0, 3b",
    "   li t0, 2",
    "   beq a3, t0, 8f",
    "   li t0, 128",
    "   beq a3, t0, 25f",
    "   lbu t1, 0(a6)",
    "   j 6f",
    "25: ld t1, 0(a6)",
    "   j 6f",
    "4: sb a2, 0(a6)",
    "   j 6f",
    "5: sd a2, 0(a6)",
    "   j 6f",
    "7: sw a2, 0(a6)",
    "   j 6f",
    "8: sh a2, 0(a6)",
    "   j 6f",
    "22: sd a2, 0(a6)",
    "   addi a2, a2, 1",
    "6: addi a4, a4, 1",
    "   li t1, 4096",
    "   add a6, a6, t1",
    "   addi a7, a7, -1",
    "   j 3b",
    "9: sw a4, 0(a5)",
    "   j 9b",
    "dirtysim_guest_end:",
    ".option pop",
    ".popsection",
);

/// Writes the guest's code to its own memory, which is to be a memslot at guest address `gpa`.
///
/// # Errors
/// Memory too small.
pub fn install(memory: &HostMemory, _gpa: u64) -> Result<(), Refused> {
    memory.write(CODE, code())
}

/// Makes the vCPU run: each but vCPU 0 waits to be started by another otherwise.
///
/// # Errors
/// A sentence with the call that the kernel refused.
pub fn init_vcpu(_kvm: &Kvm, _vm: &Vm, vcpu: &Vcpu) -> Result<(), Refused> {
    let state = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    vcpu.fd().set_mp_state(state).map_err(|error| {
        Refused(format!(
            "KVM_SET_MP_STATE failed with {}: this kernel cannot run the RISC-V guest",
            Errno::from(error)
        ))
    })
}

/// There is no record of stolen time that user space switches on.
///
/// # Errors
/// Always.
pub fn stolen_time(_vcpu: &Vcpu, _gpa: u64) -> Result<Sys<()>, Refused> {
    Err(Refused::new(
        "stolen time on RISC-V is the guest's to switch on",
    ))
}

/// The id of the core register at `index` words into `struct kvm_riscv_core`: pc, then x1 to x31, then the mode.
fn core_register(index: u64) -> u64 {
    KVM_REG_RISCV as u64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_RISCV_CORE) | index
}

/// Where pc, x10 and the mode are among the core registers.
const PC: u64 = 0;
const A0: u64 = 10;
const MODE_REGISTER: u64 = 32;
/// The mode's number for VS.
const MODE_S: u64 = 1;

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
    let (a3, a2) = operation(program.access)?;
    set_one_reg(
        vcpu,
        core_register(A0),
        own_gpa + LISTS + vcpu.id() * PAGE_BYTES,
    )?;
    set_one_reg(vcpu, core_register(A0 + 1), program.runs.len() as u64)?;
    set_one_reg(vcpu, core_register(A0 + 2), a2)?;
    set_one_reg(vcpu, core_register(A0 + 3), a3)?;
    set_one_reg(vcpu, core_register(A0 + 4), 0)?;
    set_one_reg(vcpu, core_register(A0 + 5), DONE_ADDRESS)?;
    set_one_reg(vcpu, core_register(PC), own_gpa + CODE)?;
    set_one_reg(vcpu, core_register(MODE_REGISTER), MODE_S)
}

/// Accesses of the current program that retired.
///
/// # Errors
/// `KVM_GET_ONE_REG` failed.
pub fn retired(vcpu: &Vcpu) -> Result<u64, Refused> {
    get_one_reg(vcpu, core_register(A0 + 4))
}

/// Whether a run ended with the guest saying that it is done.
#[must_use]
pub fn done(vcpu: &mut Vcpu, end: RunEnd) -> bool {
    end == RunEnd::Exit(DONE_EXIT) && vcpu.mmio_address() == DONE_ADDRESS
}
