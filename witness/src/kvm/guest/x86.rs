//! The x86 guest: long mode at CPL 3 with every port allowed, so that stores run natively even where a kernel emulates CPL 0.
//!
//! Its first GiB is mapped one to one by 2 MiB pages, user and writable, with accessed and dirty bits set: under shadow paging a load through
//! an entry that is not dirty gets a mapping that is not writable, and what a load does to the log would depend on which stores came before.
//! Nothing else is there: an exception ends it with a shutdown exit.
//!
//! Three modes besides: the same with those bits clear, which the processor sets itself; that with the tables in a slot of their own, which may
//! log; and 32 bits without paging, where a guest's address is the physical one. One VM's vCPUs are all in one mode: with shadow paging each mode has mappings of its own.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::Kvm;

use super::{Access, HostMemory, Place, Program, code, operation, write_list};
use crate::kvm::vcpu::EXIT_IO;
use crate::kvm::{PAGE_BYTES, RunEnd, Sys, Vcpu, Vm};
use crate::refusal::Refused;

/// What a recording calls this guest.
pub const MODE: &str = "long64/cpl3";

/// The same with the accessed and dirty bits of its tables clear. Under shadow paging a load maps such a page without the right to store, and
/// which pages that is about hangs on what was stored before: there it is not drawn.
pub const MODE_CLEAN_TABLES: &str = "long64/cpl3, accessed and dirty bits clear";

/// The same with its tables in memory of their own. With a two-dimensional MMU every walk of the processor's is a store to them, whatever the
/// bits are, and their pages are logged so.
pub const MODE_OWN_TABLES: &str = "long64/cpl3, tables apart, accessed and dirty bits clear";

/// 32 bits without paging.
pub const MODE_NO_PAGING: &str = "prot32/cpl3, no paging";

/// The modes that a vCPU can be put into.
pub const MODES: &[&str] = &[MODE, MODE_CLEAN_TABLES, MODE_OWN_TABLES, MODE_NO_PAGING];

/// The modes in which the guest's tables are in memory of their own.
pub const MODES_WITH_TABLES: &[&str] = &[MODE_OWN_TABLES];

/// The modes in which the guest copies from where no memory is: not where its tables may log, since KVM's own walk would set dirty bits there.
pub const MODES_THAT_COPY: &[&str] = &[MODE, MODE_CLEAN_TABLES];

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
/// The same loop in 32 bits.
const CODE_32: u64 = CODE + PAGE_BYTES / 2;
const GDT: u64 = 2 * PAGE_BYTES;
/// What a vCPU's guest of 32 bits stores, 8 bytes each.
const VALUES: u64 = GDT + PAGE_BYTES / 2;
const TSS: u64 = 3 * PAGE_BYTES;
/// The tables: PML4, PDPT, PD.
const TABLES: u64 = 5 * PAGE_BYTES;
const LISTS: u64 = 8 * PAGE_BYTES;

/// Guest physical addresses below this can be reached, bytes.
pub const REACH: u64 = 1 << 30;

/// Where no memslot is, for copies.
pub const HOLE_GPA: u64 = 0x3000_0000;

/// The port that says "done"; no device has it.
const DONE_PORT: u64 = 0x510;

/// CR0.PG.
const PAGING: u64 = 1 << 31;

/// Every port allowed, and interrupts: a guest that nobody injects any into is ended by the host's alone, by Bochs only so.
const RFLAGS: u64 = 0x3202;

/// Segment selectors of user code and user data.
const USER_CODE: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const TSS_SELECTOR: u16 = 0x28;

// rsi: next run of the list; rcx: runs left; rdi: address; rbx: pages left of the run; rax: value; r9: operation; r8: accesses retired; r11 to r13: saved; r14: elements
// of a copy.
core::arch::global_asm!(
    ".pushsection .rodata.dirtysim_guest, \"a\", @progbits",
    ".globl dirtysim_guest_start",
    ".globl dirtysim_guest_end",
    ".globl dirtysim_guest_copy",
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
    "   mov r13, rdi",
    "   mov rsi, rax",
    "   mov rcx, r14",
    "dirtysim_guest_copy:",
    "   rep movsq",
    "   mov rsi, r11",
    "   mov rcx, r12",
    "   mov rdi, r13",
    "   jmp 6f",
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

// The same in 32 bits. esi: next run of the list; ecx: runs left; edi: where the value is, then the address; ebx: pages left of the run; mm0 and eax: value;
// ebp: operation; esp: accesses retired, as there is no stack.
core::arch::global_asm!(
    ".pushsection .rodata.dirtysim_guest_32, \"a\", @progbits",
    ".code32",
    ".globl dirtysim_guest_32_start",
    ".globl dirtysim_guest_32_end",
    "dirtysim_guest_32_start:",
    "   movq mm0, qword ptr [edi]",
    "2: test ecx, ecx",
    "   jz 9f",
    "   mov edi, dword ptr [esi]",
    "   mov ebx, dword ptr [esi + 8]",
    "   add esi, 16",
    "   dec ecx",
    "3: test ebx, ebx",
    "   jz 2b",
    "   cmp ebp, 1",
    "   je 4f",
    "   cmp ebp, 8",
    "   je 5f",
    "   cmp ebp, 4",
    "   je 7f",
    "   cmp ebp, 2",
    "   je 8f",
    "   cmp ebp, 128",
    "   je 25f",
    "   mov al, byte ptr [edi]",
    "   jmp 6f",
    "25: movq mm1, qword ptr [edi]",
    "   jmp 6f",
    "4: mov byte ptr [edi], al",
    "   jmp 6f",
    "5: movq qword ptr [edi], mm0",
    "   jmp 6f",
    "7: mov dword ptr [edi], eax",
    "   jmp 6f",
    "8: mov word ptr [edi], ax",
    "6: inc esp",
    "   add edi, 4096",
    "   dec ebx",
    "   jmp 3b",
    "9: out dx, al",
    "   jmp 9b",
    "dirtysim_guest_32_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static dirtysim_guest_copy: u8;
    static dirtysim_guest_32_start: u8;
    static dirtysim_guest_32_end: u8;
}

/// Where the string instruction of a copy is. KVM emulates its elements, and leaves the processor to find that none is left.
/// Source: arch/x86/kvm/emulate.c, string_insn_completed(), x86_emulate_insn().
fn copy() -> u64 {
    CODE + (&raw const dirtysim_guest_copy as u64 - code().as_ptr() as u64)
}

/// The loop of 32 bits.
fn code_32() -> &'static [u8] {
    super::between(
        &raw const dirtysim_guest_32_start,
        &raw const dirtysim_guest_32_end,
    )
}

const PRESENT_WRITABLE_USER: u64 = 0b111;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

/// The guest's tables, three pages, from byte `at` of memory on, which is at guest address `gpa`; with accessed and dirty bits or without.
fn write_tables(memory: &HostMemory, at: u64, gpa: u64, bits: bool) -> Result<(), Refused> {
    const PAGE_SIZE_2M: u64 = 1 << 7;
    let (pdpt, pd) = (gpa + PAGE_BYTES, gpa + 2 * PAGE_BYTES);
    let accessed = if bits { ACCESSED } else { 0 };
    let leaf = if bits { ACCESSED | DIRTY } else { 0 };
    memory.write_u64(at, pdpt | PRESENT_WRITABLE_USER | accessed)?;
    memory.write_u64(at + PAGE_BYTES, pd | PRESENT_WRITABLE_USER | accessed)?;
    for index in 0..512 {
        memory.write_u64(
            at + 2 * PAGE_BYTES + index * 8,
            (index << 21) | PRESENT_WRITABLE_USER | leaf | PAGE_SIZE_2M,
        )?;
    }
    Ok(())
}

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
    memory.write(CODE_32, code_32())?;
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
    write_tables(memory, TABLES, TABLES, true)
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
    sregs.cr3 = TABLES;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    vcpu.fd()
        .set_sregs(&sregs)
        .map_err(refused("KVM_SET_SREGS"))?;
    Ok(())
}

/// Puts a vCPU that is ready to run into one of [`MODES`]; its VM's others are in the same. `tables` is the memory of their own.
///
/// # Errors
/// A sentence with the call that the kernel refused, or what is missing.
pub fn set_mode(
    vcpu: &Vcpu,
    memory: &HostMemory,
    tables: Option<&Place>,
    mode: &str,
) -> Result<(), Refused> {
    write_tables(memory, TABLES, TABLES, mode != MODE_CLEAN_TABLES)?;
    let refused = |what: &'static str| {
        move |error: kvm_ioctls::Error| {
            Refused(format!(
                "{what} failed with {}: this kernel cannot run the x86 guest in mode `{mode}`",
                crate::kvm::Errno::from(error)
            ))
        }
    };
    match mode {
        MODE_OWN_TABLES => {
            let place = tables.ok_or_else(|| {
                Refused(format!(
                    "a vCPU in mode `{mode}` needs a slot of 3 pages for its tables before vcpu_init"
                ))
            })?;
            write_tables(&place.memory, place.offset, place.gpa, false)?;
            let mut sregs = vcpu.fd().get_sregs().map_err(refused("KVM_GET_SREGS"))?;
            sregs.cr3 = place.gpa;
            return vcpu
                .fd()
                .set_sregs(&sregs)
                .map_err(refused("KVM_SET_SREGS"));
        }
        MODE_NO_PAGING => {}
        _ => return Ok(()),
    }
    let mut sregs = vcpu.fd().get_sregs().map_err(refused("KVM_GET_SREGS"))?;
    (sregs.cs.l, sregs.cs.db) = (0, 1);
    sregs.cr0 &= !PAGING;
    (sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0);
    vcpu.fd()
        .set_sregs(&sregs)
        .map_err(refused("KVM_SET_SREGS"))
}

/// Whether a vCPU's guest is one of those with paging.
fn has_paging(vcpu: &Vcpu) -> Result<bool, Refused> {
    let sregs = vcpu.fd().get_sregs().map_err(|error| {
        Refused(format!(
            "KVM_GET_SREGS failed with {}",
            crate::kvm::Errno::from(error)
        ))
    })?;
    Ok(sregs.cr0 & PAGING != 0)
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
    let (operation, rax) = operation(program.access)?;
    let r14 = match program.access {
        Access::CopyFrom { elements, .. } => elements,
        Access::Store { .. } | Access::Count { .. } | Access::Load { .. } | Access::Spin => 0,
    };
    let mut regs = kvm_regs {
        rip: CODE,
        rflags: RFLAGS,
        rsi: LISTS + vcpu.id() * PAGE_BYTES,
        rcx: program.runs.len() as u64,
        rdx: DONE_PORT,
        rax,
        r9: operation,
        r14,
        ..Default::default()
    };
    if !has_paging(vcpu)? {
        if !matches!(program.access, Access::Store { .. } | Access::Load { .. }) {
            return Err(Refused::new(
                "the x86 guest without paging stores and loads, and no more",
            ));
        }
        let value = VALUES + vcpu.id() * 8;
        memory.write_u64(value, rax)?;
        regs = kvm_regs {
            rip: CODE_32,
            rax: rax & u64::from(u32::MAX),
            rdi: value,
            rbp: operation,
            r9: 0,
            ..regs
        };
    }
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
/// `KVM_GET_REGS` or `KVM_GET_SREGS` failed.
pub fn retired(vcpu: &Vcpu) -> Result<u64, Refused> {
    let regs = vcpu.fd().get_regs().map_err(|error| {
        Refused(format!(
            "KVM_GET_REGS failed with {}",
            crate::kvm::Errno::from(error)
        ))
    })?;
    if !has_paging(vcpu)? {
        return Ok(regs.rsp);
    }
    let through = regs.rip == copy() && regs.rcx == 0;
    Ok(regs.r8 + u64::from(through))
}

/// Whether a run ended with the guest saying that it is done.
#[must_use]
pub fn done(_vcpu: &mut Vcpu, end: RunEnd) -> bool {
    end == RunEnd::Exit(DONE_EXIT)
}
