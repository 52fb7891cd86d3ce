//! The x86 guest: long mode at CPL 3 with every port allowed, so that stores run natively even where a kernel emulates CPL 0.
//!
//! Its first GiB is mapped one to one by 2 MiB pages, user and writable, with accessed and dirty bits set: under shadow paging a load through
//! an entry that is not dirty gets a mapping that is not writable, and what a load does to the log would depend on which stores came before.
//! Nothing else is there: an exception ends it with a shutdown exit.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::Kvm;

use super::{HostMemory, Program, code, operation, write_list};
use crate::kvm::vcpu::EXIT_IO;
use crate::kvm::{PAGE_BYTES, RunEnd, Sys, Vcpu, Vm};
use crate::refusal::Refused;

/// What a recording calls this guest.
pub const MODE: &str = "long64/cpl3";

/// Where the guest's own memory usually is, and where its other slots begin.
pub const OWN_GPA: u64 = 0;
/// See [`OWN_GPA`].
pub const DATA_GPA: u64 = 0x1000_0000;

/// Pages that the guest's own memory needs.
pub const OWN_PAGES: u64 = 16;

/// Pages of the guest's own memory, by use: (what, first, pages).
pub const LAYOUT: [(&str, u64, u64); 4] = [
    ("code_pages", 1, 1),
    ("gdt_pages", 2, 2),
    ("page_table_pages", 5, 3),
    ("list_pages", 8, 8),
];

/// The exit with which the guest says that it is done.
pub const DONE_EXIT: u32 = EXIT_IO;

const CODE: u64 = PAGE_BYTES;
const GDT: u64 = 2 * PAGE_BYTES;
const TSS: u64 = 3 * PAGE_BYTES;
const PML4: u64 = 5 * PAGE_BYTES;
const PDPT: u64 = 6 * PAGE_BYTES;
const PD: u64 = 7 * PAGE_BYTES;
const LISTS: u64 = 8 * PAGE_BYTES;

/// Guest physical addresses below this can be reached, bytes.
pub const REACH: u64 = 1 << 30;

/// The port that says "done"; no device has it.
const DONE_PORT: u64 = 0x510;

/// Every port allowed, and interrupts: a guest that nobody injects any into is ended by the host's alone, by Bochs only so.
const RFLAGS: u64 = 0x3202;

/// Segment selectors of user code and user data.
const USER_CODE: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const TSS_SELECTOR: u16 = 0x28;

// rsi: next run of the list; rcx: runs left; rdi: address; rbx: pages left of the run; rax: value; r9: operation; r8: accesses retired; r11, r12: saved.
core::arch::global_asm!(
    ".pushsection .rodata.dirtysim_guest, \"a\", @progbits",
    ".globl dirtysim_guest_start",
    ".globl dirtysim_guest_end",
    "dirtysim_guest_start:",
    "2: test rcx, rcx",
    "   jz 9f",
    "   mov rdi, qword ptr [rsi]",
    "   mov rbx, qword ptr [rsi + 8]",
    "   add rsi, 16",
    "   dec rcx",
    "3: test rbx, rbx",
    "   jz 2b",
    "   cmp r9, 1",
    "   je 4f",
    "   cmp r9, 8",
    "   je 5f",
    "   cmp r9, 4",
    "   je 7f",
    "   cmp r9, 16",
    "   je 22f",
    "   cmp r9, 32",
    "   je 3b",
    "   cmp r9, 64",
    "   je 24f",
    "   cmp r9, 2",
    "   je 8f",
    "   cmp r9, 128",
    "   je 25f",
    "   mov r10b, byte ptr [rdi]",
    "   jmp 6f",
    "25: mov r10, qword ptr [rdi]",
    "   jmp 6f",
    "4: mov byte ptr [rdi], al",
    "   jmp 6f",
    "5: mov qword ptr [rdi], rax",
    "   jmp 6f",
    "7: mov dword ptr [rdi], eax",
    "   jmp 6f",
    "8: mov word ptr [rdi], ax",
    "   jmp 6f",
    "24: mov r11, rsi",
    "   mov r12, rcx",
    "   mov rsi, rax",
    "   mov rcx, 512",
    "   rep movsq",
    "   mov rsi, r11",
    "   mov rcx, r12",
    "   inc r8",
    "   dec rbx",
    "   jmp 3b",
    "22: mov qword ptr [rdi], rax",
    "   inc rax",
    "6: inc r8",
    "   add rdi, 4096",
    "   dec rbx",
    "   jmp 3b",
    "9: out dx, al",
    "   jmp 9b",
    "dirtysim_guest_end:",
    ".popsection",
);

/// Writes the guest's code and tables to its own memory, which is to be a memslot at guest address `gpa`.
///
/// # Errors
/// Memory too small, or an address other than 0: the page tables name their own.
pub fn install(memory: &HostMemory, gpa: u64) -> Result<(), Refused> {
    if gpa != 0 {
        return Err(Refused(format!(
            "the x86 guest's own memory is at guest address 0, not 0x{gpa:x}"
        )));
    }
    memory.write(CODE, code())?;
    // Null, kernel code, kernel data, user code (long mode), user data.
    for (index, descriptor) in [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
    ]
    .iter()
    .enumerate()
    {
        memory.write_u64(GDT + index as u64 * 8, *descriptor)?;
    }
    // A busy 64-bit TSS, whose permission bitmap of ports follows it at once and allows them all: a kernel that does not give the guest its
    // IOPL asks this.
    memory.write_u64(GDT + 0x28, 0x0000_8b00_0000_0fff | (TSS & 0xff_ffff) << 16)?;
    memory.write_u64(GDT + 0x30, 0)?;
    memory.write(TSS + 102, &104_u16.to_le_bytes())?;
    const PRESENT_WRITABLE_USER: u64 = 0b111;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const PAGE_SIZE_2M: u64 = 1 << 7;
    memory.write_u64(PML4, PDPT | PRESENT_WRITABLE_USER | ACCESSED)?;
    memory.write_u64(PDPT, PD | PRESENT_WRITABLE_USER | ACCESSED)?;
    for index in 0..512 {
        memory.write_u64(
            PD + index * 8,
            (index << 21) | PRESENT_WRITABLE_USER | ACCESSED | DIRTY | PAGE_SIZE_2M,
        )?;
    }
    Ok(())
}

/// Puts a new vCPU into long mode at CPL 3.
///
/// # Errors
/// A sentence with the call that the kernel refused.
pub fn init_vcpu(kvm: &Kvm, _vm: &Vm, vcpu: &Vcpu) -> Result<(), Refused> {
    let refused = |what: &str| {
        let what = what.to_owned();
        move |error: kvm_ioctls::Error| {
            Refused(format!(
                "{what} failed with {}: this kernel cannot run the x86 guest",
                crate::kvm::Errno::from(error)
            ))
        }
    };
    let cpuid: CpuId = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
    vcpu.fd()
        .set_cpuid2(&cpuid)
        .map_err(refused("KVM_SET_CPUID2"))?;
    let mut sregs = vcpu.fd().get_sregs().map_err(refused("KVM_GET_SREGS"))?;
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: USER_CODE,
        type_: 0xb,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: USER_DATA,
        type_: 0x3,
        db: 1,
        l: 0,
        ..code
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: PAGE_BYTES as u32 - 1,
        selector: TSS_SELECTOR,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.ldt = kvm_segment {
        type_: 0x2,
        present: 1,
        ..Default::default()
    };
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 7 * 8 - 1;
    sregs.idt.limit = 0;
    // PE, MP, ET, NE, WP, PG; PAE; LME and LMA.
    sregs.cr0 = 0x8001_0033;
    sregs.cr3 = PML4;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    vcpu.fd()
        .set_sregs(&sregs)
        .map_err(refused("KVM_SET_SREGS"))?;
    Ok(())
}

/// Switches the vCPU's record of stolen time on.
///
/// # Errors
/// Outer: the kernel does not take the MSR. Inner: the kernel's errno.
pub fn stolen_time(vcpu: &Vcpu, gpa: u64) -> Result<Sys<()>, Refused> {
    const MSR_KVM_STEAL_TIME: u32 = 0x4b56_4d03;
    const ENABLED: u64 = 1;
    let entry = kvm_msr_entry {
        index: MSR_KVM_STEAL_TIME,
        data: gpa | ENABLED,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[entry]).expect("room for one");
    match vcpu.fd().set_msrs(&msrs) {
        Ok(1) => Ok(Ok(())),
        Ok(_) => Err(Refused::new("this kernel has no record of stolen time")),
        Err(error) => Ok(Err(error.into())),
    }
}

/// Loads a program: writes its list and sets the registers to the loop's start.
///
/// # Errors
/// A program that does not fit or reaches beyond [`REACH`].
pub fn begin(
    vcpu: &Vcpu,
    memory: &HostMemory,
    _own_gpa: u64,
    program: &Program,
) -> Result<(), Refused> {
    write_list(memory, LISTS, REACH, vcpu.id(), program)?;
    let (r9, rax) = operation(program.access)?;
    let regs = kvm_regs {
        rip: CODE,
        rflags: RFLAGS,
        rsi: LISTS + vcpu.id() * PAGE_BYTES,
        rcx: program.runs.len() as u64,
        rdx: DONE_PORT,
        rax,
        r9,
        ..Default::default()
    };
    vcpu.fd().set_regs(&regs).map_err(|error| {
        Refused(format!(
            "KVM_SET_REGS failed with {}",
            crate::kvm::Errno::from(error)
        ))
    })
}

/// Accesses of the current program that retired.
///
/// # Errors
/// `KVM_GET_REGS` failed.
pub fn retired(vcpu: &Vcpu) -> Result<u64, Refused> {
    vcpu.fd().get_regs().map(|regs| regs.r8).map_err(|error| {
        Refused(format!(
            "KVM_GET_REGS failed with {}",
            crate::kvm::Errno::from(error)
        ))
    })
}

/// Whether a run ended with the guest saying that it is done.
#[must_use]
pub fn done(_vcpu: &mut Vcpu, end: RunEnd) -> bool {
    end == RunEnd::Exit(DONE_EXIT)
}
