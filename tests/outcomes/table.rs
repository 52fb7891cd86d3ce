//! The outcomes that the model has: every errno by its cause, every exit, every change of state that a later call shows.

/// An outcome of a call.
pub struct Outcome {
    /// What the classification calls it.
    pub id: &'static str,
    /// The call that has it.
    pub call: &'static str,
    /// What it is.
    pub text: &'static str,
    /// Why it cannot be seen on the arm64 machine; empty: it can.
    pub arm64_cannot: &'static str,
    /// The same on the x86 machine.
    pub x86_cannot: &'static str,
}

const fn both(id: &'static str, call: &'static str, text: &'static str) -> Outcome {
    only(id, call, text, "", "")
}

const fn arm64(id: &'static str, call: &'static str, text: &'static str) -> Outcome {
    only(id, call, text, "", "arm64 alone")
}

const fn x86(id: &'static str, call: &'static str, text: &'static str) -> Outcome {
    only(id, call, text, "x86 alone", "")
}

const fn neither(
    id: &'static str,
    call: &'static str,
    text: &'static str,
    why: &'static str,
) -> Outcome {
    only(id, call, text, why, why)
}

const fn only(
    id: &'static str,
    call: &'static str,
    text: &'static str,
    arm64_cannot: &'static str,
    x86_cannot: &'static str,
) -> Outcome {
    Outcome {
        id,
        call,
        text,
        arm64_cannot,
        x86_cannot,
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

const NO_PML: &str = "no machine at hand has PML";
const ONE_AT_A_TIME: &str = "a trace has one call at a time; `live` sees it on arm64";
const SIGNAL: &str =
    "a trace has no signals; `live` sees it on x86 6.18, and that arm64's 6.12 has no such test";

/// All of them, by call.
pub const OUTCOMES: &[Outcome] = &[
    both(
        "check.offered",
        CHECK,
        "a capability that is offered: its value",
    ),
    both("check.not_offered", CHECK, "0: one that is not offered"),
    both("ring.on", CAP, "ring: 0"),
    both("ring.on_with_slots", CAP, "ring: 0 with memslots present"),
    both("ring.cut", CAP, "ring: the size is cut to 32 bits"),
    arm64(
        "ring.not_offered",
        CAP,
        "ring: EINVAL, `KVM_CAP_DIRTY_LOG_RING` is not offered",
    ),
    both("ring.not_power", CAP, "ring: EINVAL, 0 or no power of two"),
    both("ring.too_small", CAP, "ring: EINVAL, below the minimum"),
    both("ring.too_large", CAP, "ring: E2BIG"),
    both("ring.twice", CAP, "ring: EINVAL, there is one already"),
    both("ring.after_vcpu", CAP, "ring: EINVAL, a vCPU exists"),
    arm64("backup.on", CAP, "bitmap beside the ring: 0"),
    arm64("backup.again", CAP, "bitmap beside the ring: 0, once more"),
    arm64(
        "backup.after_vcpu",
        CAP,
        "bitmap beside the ring: 0 with a vCPU",
    ),
    x86(
        "backup.not_offered",
        CAP,
        "bitmap beside the ring: EINVAL, not offered",
    ),
    arm64(
        "backup.no_ring",
        CAP,
        "bitmap beside the ring: EINVAL, no ring",
    ),
    arm64(
        "backup.flags",
        CAP,
        "bitmap beside the ring: EINVAL, `flags`",
    ),
    arm64(
        "backup.slots",
        CAP,
        "bitmap beside the ring: EINVAL, a memslot exists",
    ),
    both("manual.on", CAP, "manual protect: 0"),
    both(
        "manual.initially_set",
        CAP,
        "manual protect with INITIALLY_SET: 0",
    ),
    both("manual.off", CAP, "manual protect: 0, back to none"),
    both("manual.flags", CAP, "manual protect: EINVAL, `flags`"),
    both(
        "manual.without_bit0",
        CAP,
        "manual protect: EINVAL, another bit without bit 0",
    ),
    both(
        "manual.unknown",
        CAP,
        "manual protect: EINVAL, an unknown bit",
    ),
    both("vcpu.made", VCPU, "0"),
    both("vcpu.exists", VCPU, "EEXIST"),
    both("vcpu.id", VCPU, "EINVAL, an id beyond the maximum"),
    arm64("vcpu.gic", VCPU, "EBUSY, the interrupt controller is there"),
    both("slot.create", REGION, "0: created without a log"),
    both("slot.create_logging", REGION, "0: created with a log"),
    both("slot.create_readonly", REGION, "0: created read-only"),
    both("slot.log_on", REGION, "0: log on"),
    both("slot.log_off", REGION, "0: log off"),
    both("slot.same", REGION, "0: nothing changes"),
    both("slot.move", REGION, "0: moved"),
    both("slot.delete", REGION, "0: deleted"),
    both("slot.id", REGION, "EINVAL, the id"),
    both("slot.as_id", REGION, "EINVAL, the address space"),
    both("slot.flags", REGION, "EINVAL, flags"),
    both(
        "slot.size",
        REGION,
        "EINVAL, a size that is no multiple of a page",
    ),
    both(
        "slot.gpa",
        REGION,
        "EINVAL, an address that is no multiple of a page",
    ),
    both(
        "slot.hva",
        REGION,
        "EINVAL, a host address that is no multiple of a page",
    ),
    both("slot.wraps", REGION, "EINVAL, it goes beyond 2^64"),
    both("slot.too_large", REGION, "EINVAL, more than 2^31 - 1 pages"),
    both(
        "slot.delete_missing",
        REGION,
        "EINVAL, deleting what is not there",
    ),
    both("slot.resize", REGION, "EINVAL, another size"),
    both("slot.other_memory", REGION, "EINVAL, other host memory"),
    both(
        "slot.readonly_changed",
        REGION,
        "EINVAL, the read-only flag changes",
    ),
    both("slot.overlap", REGION, "EEXIST, created over another"),
    both("slot.overlap_move", REGION, "EEXIST, moved over another"),
    both(
        "log_off.drops",
        REGION,
        "the log off and on again: bits are gone",
    ),
    both(
        "delete.drops",
        REGION,
        "deleted and created again: bits are gone",
    ),
    both("move.keeps", REGION, "moved: bits stay"),
    both("delete.keeps_entries", REGION, "deleted: ring entries stay"),
    x86(
        "zap.others",
        REGION,
        "deleted or moved: pages of other slots are recorded again",
    ),
    arm64(
        "zap.own",
        REGION,
        "deleted or moved: other slots' pages are not recorded again",
    ),
    both("map.ring", MMAP, "0: shared, readable and writable"),
    both("map.readonly", MMAP, "0: read-only"),
    both("map.private", MMAP, "EINVAL, private"),
    both("map.executable", MMAP, "EINVAL or EPERM, executable"),
    both("map.touch", MMAP, "a page of the ring can be read"),
    both("map.sigbus", MMAP, "SIGBUS behind the ring"),
    both("run.done", RUN, "the guest's own exit, all stores retired"),
    both("run.full", RUN, "exit 31 after some stores"),
    both("run.full_again", RUN, "exit 31 at once, again"),
    both(
        "run.readonly",
        RUN,
        "MMIO exit, a store to a read-only slot",
    ),
    both(
        "run.no_slot",
        RUN,
        "MMIO exit, a store where the slot has gone",
    ),
    both("store.entry", RUN, "a store leaves a ring entry"),
    both("store.bit", RUN, "a store leaves a bit"),
    both(
        "store.no_second",
        RUN,
        "a store to a page with an entry that was not reset leaves none",
    ),
    both(
        "store.two_vcpus",
        RUN,
        "a store of another vCPU to such a page leaves none",
    ),
    arm64(
        "store.block",
        RUN,
        "ring alone, huge page: one record for all of the block",
    ),
    only(
        "load.marks",
        RUN,
        "a load of an unmapped page leaves a record",
        "",
        "",
    ),
    arm64(
        "load.nothing",
        RUN,
        "a load of an unmapped page leaves none, where there is a bitmap",
    ),
    both(
        "load.mapped",
        RUN,
        "a load of a mapped page leaves no record",
    ),
    both(
        "load.readonly",
        RUN,
        "a load of a read-only slot leaves no record",
    ),
    both(
        "load.untouched",
        RUN,
        "a load of host memory that nobody touched leaves no record",
    ),
    x86(
        "load.neighbour",
        RUN,
        "a load of a page that was mapped with its neighbour leaves no record",
    ),
    both(
        "store.after_untouched",
        RUN,
        "a store after such a load leaves a record",
    ),
    arm64(
        "run.overflow",
        RUN,
        "more entries than the ring has: the oldest are overwritten",
    ),
    neither(
        "run.pml",
        RUN,
        "a store is buffered by PML and recorded at the next exit",
        NO_PML,
    ),
    both("reset.no_ring", RESET, "EINVAL, no ring"),
    both("reset.none", RESET, "0: nothing was harvested"),
    both("reset.some", RESET, "the number of entries"),
    both("reset.several", RESET, "the sum over several rings"),
    both("reset.flags3", RESET, "entries with flags 3 count"),
    both(
        "reset.stops",
        RESET,
        "it stops at an entry that was not harvested",
    ),
    both(
        "reset.slot_gone",
        RESET,
        "an entry of a slot that has gone is consumed",
    ),
    both(
        "reset.out_of_range",
        RESET,
        "an entry beyond its slot is consumed",
    ),
    both("reset.rearms", RESET, "a page is recorded again after it"),
    arm64(
        "reset.range",
        RESET,
        "pages between those of a batch are armed too",
    ),
    x86(
        "reset.exact",
        RESET,
        "pages between those of a batch are not armed",
    ),
    neither(
        "reset.signal",
        RESET,
        "fewer than were harvested, a signal is pending",
        SIGNAL,
    ),
    both("get.ring_alone", GET, "ENXIO, a ring and no bitmap"),
    both("get.as_id", GET, "EINVAL, the address space"),
    both("get.id", GET, "EINVAL, the id"),
    both("get.no_slot", GET, "ENOENT, no such slot"),
    both("get.no_log", GET, "ENOENT, the slot does not log"),
    both("get.fault", GET, "EFAULT: the bits are lost"),
    both(
        "get.fault_manual",
        GET,
        "EFAULT with manual protect: the bits stay",
    ),
    both("get.clears", GET, "bits are taken"),
    both("get.rearms", GET, "a page is recorded again after it"),
    both("get.manual", GET, "manual protect: bits stay"),
    both("get.initially_set", GET, "INITIALLY_SET: all ones"),
    both("clear.ring_alone", CLEAR, "ENXIO, a ring and no bitmap"),
    both("clear.as_id", CLEAR, "EINVAL, the address space"),
    both("clear.id", CLEAR, "EINVAL, the id"),
    both(
        "clear.alignment",
        CLEAR,
        "EINVAL, `first_page` within a word",
    ),
    both("clear.no_slot", CLEAR, "ENOENT, no such slot"),
    both("clear.no_log", CLEAR, "ENOENT, the slot does not log"),
    both("clear.first", CLEAR, "EINVAL, `first_page` beyond the slot"),
    both("clear.beyond", CLEAR, "EINVAL, more pages than there are"),
    both(
        "clear.partial_word",
        CLEAR,
        "EINVAL, `num_pages` ends within a word",
    ),
    both("clear.fault", CLEAR, "EFAULT"),
    both("clear.none", CLEAR, "0: `num_pages` is 0"),
    both("clear.last_word", CLEAR, "0: a last word that is not whole"),
    both("clear.clears", CLEAR, "bits are cleared"),
    both("clear.rearms", CLEAR, "a page is recorded again after it"),
    both("clear.not_manual", CLEAR, "0 without manual protect"),
    neither(
        "log.kick",
        GET,
        "PML: every vCPU is kicked, and not waited for",
        NO_PML,
    ),
    arm64("gic.made", GIC, "0: devices, attributes, registers"),
    arm64(
        "its.command",
        ITS,
        "commands of userspace are taken: GITS_CREADR follows",
    ),
    arm64(
        "its.command_bit",
        ITS,
        "a command of userspace writes memory: to the bitmap",
    ),
    arm64("its.guest_command", ITS, "commands of the guest are taken"),
    arm64(
        "its.guest_command_entry",
        ITS,
        "a command of the guest writes memory: to its vCPU's ring",
    ),
    arm64(
        "its.guest_full",
        ITS,
        "exit 31 after a command of the guest",
    ),
    arm64("its.save", ITS, "tables are saved: to the bitmap"),
    arm64(
        "its.save_ring_alone",
        ITS,
        "tables are saved with a ring alone: 0, recorded nowhere",
    ),
    arm64("its.restore", ITS, "tables are restored"),
    arm64(
        "its.restore_exists",
        ITS,
        "EEXIST, a collection is there already",
    ),
    arm64("its.restore_bad", ITS, "EINVAL, an entry that cannot be"),
    arm64(
        "its.pending",
        ITS,
        "pending tables are saved: to the bitmap",
    ),
    arm64(
        "its.pending_same",
        ITS,
        "pending tables are saved, nothing has changed: no bit",
    ),
    arm64(
        "its.restore_pending",
        ITS,
        "a restore takes pending bits out of memory: to the bitmap",
    ),
    arm64("its.msi", ITS, "1: a mapped event"),
    arm64("its.msi_unmapped", ITS, "0: an event that is not mapped"),
    arm64("its.msi_disabled", ITS, "EBUSY: the ITS is off"),
    arm64("its.reset", ITS, "reset: 0"),
    arm64("its.read", ITS, "a register is read"),
    neither("its.busy", ITS, "EBUSY: a vCPU runs", ONE_AT_A_TIME),
];
