//! The outcomes that the model has: every errno by its cause, every exit, every change of state that a later call shows.

/// Machines that differ in what can be seen on them, a bit each.
pub type Machines = u8;
pub const ARM64: Machines = 1;
pub const SHADOW: Machines = 2;
pub const NPT: Machines = 4;
pub const PML: Machines = 8;
pub const RISCV: Machines = 16;
const X86: Machines = SHADOW | NPT | PML;

/// An outcome of a call.
pub struct Outcome {
    /// What the classification calls it.
    pub id: &'static str,
    /// The call that has it.
    pub call: &'static str,
    /// What it is.
    pub text: &'static str,
    /// Where it can be seen.
    on: Machines,
    /// Why nowhere.
    why: &'static str,
}

impl Outcome {
    /// Why it cannot be seen on a machine; empty: it can.
    pub fn cannot(&self, machine: Machines) -> &'static str {
        match self.on {
            on if on & machine != 0 => "",
            0 => self.why,
            ARM64 => "arm64 alone",
            X86 => "x86 alone",
            SHADOW => "shadow paging alone",
            PML => "PML alone",
            on if on == ARM64 | RISCV => "arm64 and RISC-V alone",
            on if on == X86 | RISCV => "x86 and RISC-V alone",
            on if on == ARM64 | X86 => "arm64 and x86 alone",
            on => panic!("no words for the machines {on:b}"),
        }
    }
}

const fn all(id: &'static str, call: &'static str, text: &'static str) -> Outcome {
    on(ARM64 | X86 | RISCV, id, call, text)
}

const fn on(on: Machines, id: &'static str, call: &'static str, text: &'static str) -> Outcome {
    Outcome {
        id,
        call,
        text,
        on,
        why: "",
    }
}

const fn nowhere(
    id: &'static str,
    call: &'static str,
    text: &'static str,
    why: &'static str,
) -> Outcome {
    Outcome {
        id,
        call,
        text,
        on: 0,
        why,
    }
}

const CHECK: &str = "KVM_CHECK_EXTENSION";
const CAP: &str = "KVM_ENABLE_CAP";
const VCPU: &str = "KVM_CREATE_VCPU";
const REGION: &str = "KVM_SET_USER_MEMORY_REGION";
const MMAP: &str = "mmap of a vCPU";
const RUN: &str = "KVM_RUN";
const RESET: &str = "KVM_RESET_DIRTY_RINGS";
const GET: &str = "KVM_GET_DIRTY_LOG";
const CLEAR: &str = "KVM_CLEAR_DIRTY_LOG";
const ITS: &str = "the ITS";
const GIC: &str = "set-up of the interrupt controller";

const NO_RUN: &str = "a trace has one call at a time";
const ONE_AT_A_TIME: &str = "a trace has one call at a time; `live` sees it on arm64";
const SIGNAL: &str =
    "a trace has no signals; `live` sees it on x86 6.18, and that arm64's 6.12 has no such test";

/// All of them, by call.
pub const OUTCOMES: &[Outcome] = &[
    all(
        "check.offered",
        CHECK,
        "a capability that is offered: its value",
    ),
    all("check.not_offered", CHECK, "0: one that is not offered"),
    all("ring.on", CAP, "ring: 0"),
    all("ring.on_with_slots", CAP, "ring: 0 with memslots present"),
    all("ring.cut", CAP, "ring: the size is cut to 32 bits"),
    on(
        ARM64 | RISCV,
        "ring.not_offered",
        CAP,
        "ring: EINVAL, `KVM_CAP_DIRTY_LOG_RING` is not offered",
    ),
    all("ring.not_power", CAP, "ring: EINVAL, 0 or no power of two"),
    all("ring.too_small", CAP, "ring: EINVAL, below the minimum"),
    all("ring.too_large", CAP, "ring: E2BIG"),
    all("ring.twice", CAP, "ring: EINVAL, there is one already"),
    all("ring.after_vcpu", CAP, "ring: EINVAL, a vCPU exists"),
    on(ARM64, "backup.on", CAP, "bitmap beside the ring: 0"),
    on(
        ARM64,
        "backup.again",
        CAP,
        "bitmap beside the ring: 0, once more",
    ),
    on(
        ARM64,
        "backup.after_vcpu",
        CAP,
        "bitmap beside the ring: 0 with a vCPU",
    ),
    on(
        X86 | RISCV,
        "backup.not_offered",
        CAP,
        "bitmap beside the ring: EINVAL, not offered",
    ),
    on(
        ARM64,
        "backup.no_ring",
        CAP,
        "bitmap beside the ring: EINVAL, no ring",
    ),
    on(
        ARM64,
        "backup.flags",
        CAP,
        "bitmap beside the ring: EINVAL, `flags`",
    ),
    on(
        ARM64,
        "backup.slots",
        CAP,
        "bitmap beside the ring: EINVAL, a memslot exists",
    ),
    all("manual.on", CAP, "manual protect: 0"),
    all(
        "manual.initially_set",
        CAP,
        "manual protect with INITIALLY_SET: 0",
    ),
    all("manual.off", CAP, "manual protect: 0, back to none"),
    all("manual.flags", CAP, "manual protect: EINVAL, `flags`"),
    all(
        "manual.without_bit0",
        CAP,
        "manual protect: EINVAL, another bit without bit 0",
    ),
    all(
        "manual.unknown",
        CAP,
        "manual protect: EINVAL, an unknown bit",
    ),
    all("vcpu.made", VCPU, "0"),
    all("vcpu.exists", VCPU, "EEXIST"),
    all("vcpu.id", VCPU, "EINVAL, an id beyond the maximum"),
    on(
        ARM64,
        "vcpu.gic",
        VCPU,
        "EBUSY, the interrupt controller is there",
    ),
    all("slot.create", REGION, "0: created without a log"),
    all("slot.create_logging", REGION, "0: created with a log"),
    all("slot.create_readonly", REGION, "0: created read-only"),
    all("slot.log_on", REGION, "0: log on"),
    all("slot.log_off", REGION, "0: log off"),
    all("slot.same", REGION, "0: nothing changes"),
    all("slot.move", REGION, "0: moved"),
    all("slot.delete", REGION, "0: deleted"),
    all("slot.id", REGION, "EINVAL, the id"),
    all("slot.as_id", REGION, "EINVAL, the address space"),
    all("slot.flags", REGION, "EINVAL, flags"),
    all(
        "slot.size",
        REGION,
        "EINVAL, a size that is no multiple of a page",
    ),
    all(
        "slot.gpa",
        REGION,
        "EINVAL, an address that is no multiple of a page",
    ),
    all(
        "slot.hva",
        REGION,
        "EINVAL, a host address that is no multiple of a page",
    ),
    all("slot.wraps", REGION, "EINVAL, it goes beyond 2^64"),
    all("slot.too_large", REGION, "EINVAL, more than 2^31 - 1 pages"),
    all(
        "slot.delete_missing",
        REGION,
        "EINVAL, deleting what is not there",
    ),
    all("slot.resize", REGION, "EINVAL, another size"),
    all("slot.other_memory", REGION, "EINVAL, other host memory"),
    all(
        "slot.readonly_changed",
        REGION,
        "EINVAL, the read-only flag changes",
    ),
    all("slot.overlap", REGION, "EEXIST, created over another"),
    all("slot.overlap_move", REGION, "EEXIST, moved over another"),
    all(
        "log_off.drops",
        REGION,
        "the log off and on again: bits are gone",
    ),
    all(
        "delete.drops",
        REGION,
        "deleted and created again: bits are gone",
    ),
    all("move.keeps", REGION, "moved: bits stay"),
    all("delete.keeps_entries", REGION, "deleted: ring entries stay"),
    on(
        X86,
        "zap.others",
        REGION,
        "deleted or moved: pages of other slots are recorded again",
    ),
    on(
        ARM64 | RISCV,
        "zap.own",
        REGION,
        "deleted or moved: other slots' pages are not recorded again",
    ),
    all("map.ring", MMAP, "0: shared, readable and writable"),
    all("map.readonly", MMAP, "0: read-only"),
    all("map.private", MMAP, "EINVAL, private"),
    all("map.executable", MMAP, "EINVAL or EPERM, executable"),
    all("map.touch", MMAP, "a page of the ring can be read"),
    all("map.sigbus", MMAP, "SIGBUS behind the ring"),
    all("run.done", RUN, "the guest's own exit, all stores retired"),
    all("run.full", RUN, "exit 31 after some stores"),
    all("run.full_again", RUN, "exit 31 at once, again"),
    all(
        "run.readonly",
        RUN,
        "MMIO exit, a store to a read-only slot",
    ),
    all(
        "run.no_slot",
        RUN,
        "MMIO exit, a store where the slot has gone",
    ),
    all("store.entry", RUN, "a store leaves a ring entry"),
    all("store.bit", RUN, "a store leaves a bit"),
    all(
        "store.no_second",
        RUN,
        "a store to a page with an entry that was not reset leaves none",
    ),
    all(
        "store.two_vcpus",
        RUN,
        "a store of another vCPU to such a page leaves none",
    ),
    on(
        ARM64,
        "store.block",
        RUN,
        "ring alone, huge page: one record for all of the block",
    ),
    on(
        ARM64 | X86,
        "load.marks",
        RUN,
        "a load of an unmapped page leaves a record",
    ),
    on(
        ARM64 | RISCV,
        "load.nothing",
        RUN,
        "a load of an unmapped page leaves none, where there is a bitmap",
    ),
    all(
        "load.mapped",
        RUN,
        "a load of a mapped page leaves no record",
    ),
    all(
        "load.readonly",
        RUN,
        "a load of a read-only slot leaves no record",
    ),
    all(
        "load.untouched",
        RUN,
        "a load of host memory that nobody touched leaves no record",
    ),
    on(
        SHADOW,
        "load.neighbour",
        RUN,
        "a load of a page that was mapped with its neighbour leaves no record",
    ),
    all(
        "store.after_untouched",
        RUN,
        "a store after such a load leaves a record",
    ),
    on(
        X86,
        "copy.again",
        RUN,
        "a string instruction that KVM emulates leaves an entry for an element of a page that has one",
    ),
    on(
        ARM64 | X86,
        "run.overflow",
        RUN,
        "more entries than the ring has: the oldest are overwritten",
    ),
    on(
        PML,
        "run.pml",
        RUN,
        "stores are buffered by PML and recorded at the next exit, the newest first",
    ),
    all("reset.no_ring", RESET, "EINVAL, no ring"),
    all("reset.none", RESET, "0: nothing was harvested"),
    all("reset.some", RESET, "the number of entries"),
    all("reset.several", RESET, "the sum over several rings"),
    all("reset.flags3", RESET, "entries with flags 3 count"),
    all(
        "reset.stops",
        RESET,
        "it stops at an entry that was not harvested",
    ),
    all(
        "reset.slot_gone",
        RESET,
        "an entry of a slot that has gone is consumed",
    ),
    all(
        "reset.out_of_range",
        RESET,
        "an entry beyond its slot is consumed",
    ),
    all("reset.rearms", RESET, "a page is recorded again after it"),
    on(
        ARM64 | RISCV,
        "reset.range",
        RESET,
        "pages between those of a batch are armed too",
    ),
    on(
        X86,
        "reset.exact",
        RESET,
        "pages between those of a batch are not armed",
    ),
    nowhere(
        "reset.signal",
        RESET,
        "fewer than were harvested, a signal is pending",
        SIGNAL,
    ),
    all("get.ring_alone", GET, "ENXIO, a ring and no bitmap"),
    all("get.as_id", GET, "EINVAL, the address space"),
    all("get.id", GET, "EINVAL, the id"),
    all("get.no_slot", GET, "ENOENT, no such slot"),
    all("get.no_log", GET, "ENOENT, the slot does not log"),
    all("get.fault", GET, "EFAULT: the bits are lost"),
    all(
        "get.fault_manual",
        GET,
        "EFAULT with manual protect: the bits stay",
    ),
    all("get.clears", GET, "bits are taken"),
    all("get.rearms", GET, "a page is recorded again after it"),
    all("get.manual", GET, "manual protect: bits stay"),
    all("get.initially_set", GET, "INITIALLY_SET: all ones"),
    all("clear.ring_alone", CLEAR, "ENXIO, a ring and no bitmap"),
    all("clear.as_id", CLEAR, "EINVAL, the address space"),
    all("clear.id", CLEAR, "EINVAL, the id"),
    all(
        "clear.alignment",
        CLEAR,
        "EINVAL, `first_page` within a word",
    ),
    all("clear.no_slot", CLEAR, "ENOENT, no such slot"),
    all("clear.no_log", CLEAR, "ENOENT, the slot does not log"),
    all("clear.first", CLEAR, "EINVAL, `first_page` beyond the slot"),
    all("clear.beyond", CLEAR, "EINVAL, more pages than there are"),
    all(
        "clear.partial_word",
        CLEAR,
        "EINVAL, `num_pages` ends within a word",
    ),
    all("clear.fault", CLEAR, "EFAULT"),
    all("clear.none", CLEAR, "0: `num_pages` is 0"),
    all("clear.last_word", CLEAR, "0: a last word that is not whole"),
    all("clear.clears", CLEAR, "bits are cleared"),
    all("clear.rearms", CLEAR, "a page is recorded again after it"),
    all("clear.not_manual", CLEAR, "0 without manual protect"),
    nowhere(
        "log.kick",
        GET,
        "PML: every vCPU is kicked, and not waited for",
        NO_RUN,
    ),
    on(ARM64, "gic.made", GIC, "0: devices, attributes, registers"),
    on(
        ARM64,
        "its.command",
        ITS,
        "commands of userspace are taken: GITS_CREADR follows",
    ),
    on(
        ARM64,
        "its.command_bit",
        ITS,
        "a command of userspace writes memory: to the bitmap",
    ),
    on(
        ARM64,
        "its.guest_command",
        ITS,
        "commands of the guest are taken",
    ),
    on(
        ARM64,
        "its.guest_command_entry",
        ITS,
        "a command of the guest writes memory: to its vCPU's ring",
    ),
    on(
        ARM64,
        "its.guest_full",
        ITS,
        "exit 31 after a command of the guest",
    ),
    on(ARM64, "its.save", ITS, "tables are saved: to the bitmap"),
    on(
        ARM64,
        "its.save_ring_alone",
        ITS,
        "tables are saved with a ring alone: 0, recorded nowhere",
    ),
    on(ARM64, "its.restore", ITS, "tables are restored"),
    on(
        ARM64,
        "its.restore_exists",
        ITS,
        "EEXIST, a collection is there already",
    ),
    on(
        ARM64,
        "its.restore_bad",
        ITS,
        "EINVAL, an entry that cannot be",
    ),
    on(
        ARM64,
        "its.pending",
        ITS,
        "pending tables are saved: to the bitmap",
    ),
    on(
        ARM64,
        "its.pending_same",
        ITS,
        "pending tables are saved, nothing has changed: no bit",
    ),
    on(
        ARM64,
        "its.restore_pending",
        ITS,
        "a restore takes pending bits out of memory: to the bitmap",
    ),
    on(ARM64, "its.msi", ITS, "1: a mapped event"),
    on(
        ARM64,
        "its.msi_unmapped",
        ITS,
        "0: an event that is not mapped",
    ),
    on(ARM64, "its.msi_disabled", ITS, "EBUSY: the ITS is off"),
    on(ARM64, "its.reset", ITS, "reset: 0"),
    on(ARM64, "its.read", ITS, "a register is read"),
    nowhere("its.busy", ITS, "EBUSY: a vCPU runs", ONE_AT_A_TIME),
];
