//! Claims about answers: the model's ioctls called one after the other, each to its end, and what they answer.
//!
//! These are enumerations and not searches: nothing runs beside the call.

use dirtysim_model::machine::{
    Arch, CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, INITIALLY_SET, Kernel, MANUAL_PROTECT_ENABLE,
    MEM_LOG_DIRTY_PAGES, Machine, SlotTemplate, VcpuConfig,
};
use dirtysim_model::op::{self, ClearMask, Into, KernelWriter, Op};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::transition::{Actor, Choice, Step, apply};
use dirtysim_model::words::errno::Errno;
use dirtysim_model::words::{Frame, HostPage};

/// A call, what the claim says of it, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRow {
    /// The machine, and the calls.
    pub call: String,
    /// What the claim says.
    pub says: String,
    /// What the model answers.
    pub got: String,
    /// Whether it meets the claim's condition, where there is one.
    pub within: bool,
}

impl CallRow {
    /// Whether it came out as the claim says.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.says == self.got
    }
}

/// The enumeration of that name.
///
/// # Errors
/// A name that there is not.
pub fn enumerate(name: &str) -> Result<Vec<CallRow>, String> {
    Ok(match name {
        "enable-ring" => enable_ring(),
        "ring-without-bitmap" => ring_without_bitmap(),
        "enable-bitmap" => enable_bitmap(),
        "its-save-ring-only" => its_save_ring_only(),
        "get-and-clear" => get_and_clear(),
        "get-without-clear" => get_without_clear(),
        "initially-set" => initially_set(),
        "save-busy" => save_busy(),
        _ => return Err(format!("no enumeration of calls `{name}`")),
    })
}

/// Frames of the slot.
const PAGES: u32 = 70;
const PAGE: u64 = 4096;

/// A VM whose ioctls are called by one thread.
struct Vm {
    machine: Machine,
    state: State<Large>,
}

impl Vm {
    fn new(arch: Arch, pml: bool) -> Self {
        let mut machine = Machine::new(arch, Kernel::V7_2, pml);
        machine.slots.push(SlotTemplate {
            as_id: 0,
            id: 0,
            npages: PAGES,
            frame: Frame(0),
            host: HostPage(0),
            hva: 1 << 32,
            places: vec![0],
            huge: false,
            name: "ram".into(),
        });
        machine.vcpus = vec![VcpuConfig::default()];
        machine.programs = vec![Vec::new()];
        machine.frame_lists = vec![vec![Frame(1), Frame(65)]];
        let state = State::new(&machine);
        Self { machine, state }
    }

    /// Runs one operation to its end.
    fn call(&mut self, op: Op) -> Result<u32, Errno> {
        let end = self.machine.programs[0].len() + 1;
        self.machine.programs[0].push(op);
        dirtysim_model::op::ahead::look_ahead(&mut self.machine);
        let step = Step {
            actor: Actor::Thread(0),
            choice: Choice::Advance,
        };
        while usize::from(self.state.threads[0].op) < end {
            apply(&self.machine, &mut self.state, step);
        }
        self.state.threads[0].answer
    }

    fn cap(&mut self, cap: u32, args0: u64) -> Result<u32, Errno> {
        self.cap_with_flags(cap, 0, args0)
    }

    fn cap_with_flags(&mut self, cap: u32, flags: u32, args0: u64) -> Result<u32, Errno> {
        self.call(Op::EnableCap(op::EnableCap { cap, flags, args0 }))
    }

    fn ring(&mut self) -> Result<u32, Errno> {
        self.cap(CAP_DIRTY_LOG_RING_ACQ_REL, PAGE)
    }

    fn slot(&mut self, flags: u32, pages: u32) -> Result<u32, Errno> {
        self.call(Op::SetMemoryRegion(op::SetMemoryRegion {
            slot: 0,
            flags,
            gpa: 0,
            bytes: u64::from(pages) * PAGE,
            hva: 1 << 32,
            template: 0,
        }))
    }

    fn get(&mut self, bad_pointer: bool) -> Result<u32, Errno> {
        self.call(Op::GetDirtyLog(op::GetDirtyLog {
            slot: 0,
            into: Into::Pending,
            bad_pointer,
        }))
    }

    fn clear(&mut self, first_page: u64, num_pages: u32, mask: ClearMask) -> Result<u32, Errno> {
        self.call(Op::ClearDirtyLog(op::ClearDirtyLog {
            slot: 0,
            first_page,
            num_pages,
            mask,
            bad_pointer: false,
        }))
    }

    /// A writer without a vCPU writes pages 1 and 65.
    fn save(&mut self, writer: KernelWriter) -> Result<u32, Errno> {
        self.call(Op::KernelWrite(op::KernelWrite {
            writer,
            frames: 0,
            fails_after: u8::MAX,
        }))
    }

    /// The pages whose bit is set, as a count.
    fn bits(&self) -> String {
        format!("{} bits", self.state.bitmap.iter().count())
    }

    /// The pages that the last GET named, taken away.
    fn named(&mut self) -> String {
        let count = self.state.pending.iter().count();
        self.state.pending.clear();
        format!("{count} pages")
    }
}

fn word(answer: Result<u32, Errno>) -> String {
    match answer {
        Ok(_) => "success".into(),
        Err(errno) => errno.name().into(),
    }
}

/// The architectures with a ring, and whether PML is on.
const WITH_RING: [(Arch, bool, &str); 5] = [
    (Arch::Arm64, false, "arm64"),
    (Arch::X86, false, "x86"),
    (Arch::X86, true, "x86 with PML"),
    (Arch::Riscv, false, "riscv"),
    (Arch::Loongarch, false, "loongarch"),
];

struct Rows(Vec<CallRow>);

impl Rows {
    fn add(&mut self, call: impl core::convert::Into<String>, says: &str, got: String) {
        self.0.push(CallRow {
            call: call.into(),
            says: says.into(),
            got,
            within: true,
        });
    }
}

fn enable_ring() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    for (arch, pml, name) in WITH_RING {
        let least = if pml { 16384 } else { PAGE };
        let sizes = [
            (0, "EINVAL", "0 bytes"),
            (3 * PAGE, "EINVAL", "3 pages: no power of two"),
            (least / 2, "EINVAL", "half the smallest size"),
            (least, "success", "the smallest size"),
            (1 << 20, "success", "1 MiB, the maximum"),
            (1 << 21, "E2BIG", "2 MiB"),
            ((1 << 32) + 65536, "success", "2^32 + 65536, cut to 65536"),
        ];
        for (bytes, says, what) in sizes {
            let got = word(Vm::new(arch, pml).cap(CAP_DIRTY_LOG_RING_ACQ_REL, bytes));
            rows.add(format!("{name}: enable the ring, {what}"), says, got);
        }
        let mut vm = Vm::new(arch, pml);
        let _ = vm.cap(CAP_DIRTY_LOG_RING_ACQ_REL, 1 << 20);
        let got = word(vm.cap(CAP_DIRTY_LOG_RING_ACQ_REL, 1 << 20));
        rows.add(format!("{name}: enable the ring twice"), "EINVAL", got);
        let mut vm = Vm::new(arch, pml);
        let _ = vm.call(Op::CreateVcpu);
        let got = word(vm.cap(CAP_DIRTY_LOG_RING_ACQ_REL, 1 << 20));
        rows.add(
            format!("{name}: create a vCPU, enable the ring"),
            "EINVAL",
            got,
        );
        let says = if arch == Arch::X86 {
            "success"
        } else {
            "EINVAL"
        };
        let got = word(Vm::new(arch, pml).cap(CAP_DIRTY_LOG_RING, 1 << 20));
        rows.add(
            format!("{name}: enable the ring without acquire and release (offered on x86 only)"),
            says,
            got,
        );
    }
    rows.0
}

fn ring_without_bitmap() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    for (arch, pml, name) in WITH_RING {
        let size = if pml { 16384 } else { PAGE };
        let mut vm = Vm::new(arch, pml);
        let _ = vm.cap(CAP_DIRTY_LOG_RING_ACQ_REL, size);
        let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
        rows.add(
            format!("{name}: ring, slot, GET"),
            "ENXIO",
            word(vm.get(false)),
        );
        let got = word(vm.clear(0, PAGES, ClearMask::All));
        rows.add(format!("{name}: ring, slot, CLEAR"), "ENXIO", got);
        let mut vm = Vm::new(arch, pml);
        let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
        let _ = vm.cap(CAP_DIRTY_LOG_RING_ACQ_REL, size);
        let got = word(vm.get(false));
        rows.add(
            format!("{name}: slot with a bitmap, ring, GET"),
            "ENXIO",
            got,
        );
    }
    let mut vm = Vm::new(Arch::Arm64, false);
    let _ = vm.ring();
    let _ = vm.cap(CAP_DIRTY_LOG_RING_WITH_BITMAP, 0);
    let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
    rows.add(
        "arm64: ring, bitmap, slot, GET",
        "success",
        word(vm.get(false)),
    );
    rows.0
}

fn enable_bitmap() -> Vec<CallRow> {
    const CAP: u32 = CAP_DIRTY_LOG_RING_WITH_BITMAP;
    let mut rows = Rows(Vec::new());
    let arm = || Vm::new(Arch::Arm64, false);
    rows.add(
        "arm64: bitmap without a ring",
        "EINVAL",
        word(arm().cap(CAP, 0)),
    );
    let mut vm = arm();
    let _ = vm.ring();
    rows.add("arm64: ring, bitmap", "success", word(vm.cap(CAP, 0)));
    rows.add(
        "arm64: ring, bitmap, bitmap again",
        "success",
        word(vm.cap(CAP, 0)),
    );
    let mut vm = arm();
    let _ = vm.ring();
    rows.add(
        "arm64: ring, bitmap with flags",
        "EINVAL",
        word(vm.cap_with_flags(CAP, 1, 0)),
    );
    let mut vm = arm();
    let _ = vm.ring();
    let _ = vm.slot(0, PAGES);
    rows.add("arm64: ring, slot, bitmap", "EINVAL", word(vm.cap(CAP, 0)));
    let _ = vm.slot(0, 0);
    rows.add(
        "arm64: ring, slot, slot deleted, bitmap",
        "success",
        word(vm.cap(CAP, 0)),
    );
    let mut vm = arm();
    let _ = vm.ring();
    let _ = vm.call(Op::CreateVcpu);
    rows.add("arm64: ring, vCPU, bitmap", "success", word(vm.cap(CAP, 0)));
    for (arch, pml, name) in WITH_RING {
        if arch != Arch::Arm64 {
            let mut vm = Vm::new(arch, pml);
            let _ = vm.cap(CAP_DIRTY_LOG_RING_ACQ_REL, 1 << 20);
            rows.add(
                format!("{name}: ring, bitmap"),
                "EINVAL",
                word(vm.cap(CAP, 0)),
            );
        }
    }
    rows.0
}

fn its_save_ring_only() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    for writer in [
        KernelWriter::ItsSave,
        KernelWriter::PendingSave,
        KernelWriter::ItsRestore,
    ] {
        let mut vm = Vm::new(Arch::Arm64, false);
        let _ = vm.ring();
        let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
        let got = word(vm.save(writer));
        let what = format!("arm64: ring, slot, {}", writer.name());
        rows.add(what, "success", got);
    }
    rows.0
}

/// arm64 with the bitmap alone, two bits set by a save.
fn with_two_bits(manual: u64) -> Vm {
    let mut vm = Vm::new(Arch::Arm64, false);
    if manual != 0 {
        let _ = vm.cap(CAP_MANUAL_DIRTY_LOG_PROTECT2, manual);
    }
    let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
    let _ = vm.save(KernelWriter::ItsSave);
    vm
}

fn get_and_clear() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    let mut vm = with_two_bits(0);
    rows.add("two pages written", "2 bits", vm.bits());
    rows.add("GET", "success", word(vm.get(false)));
    rows.add("what it named", "2 pages", vm.named());
    rows.add("left after it", "0 bits", vm.bits());
    let mut vm = with_two_bits(0);
    rows.add("GET to a bad pointer", "EFAULT", word(vm.get(true)));
    rows.add(
        "left after it: it cleared all the same",
        "0 bits",
        vm.bits(),
    );
    let mut vm = with_two_bits(0);
    let got = word(vm.clear(0, 64, ClearMask::All));
    rows.add(
        "CLEAR of the first word, without manual protection",
        "success",
        got,
    );
    rows.add("left after it", "1 bits", vm.bits());
    let mut vm = with_two_bits(MANUAL_PROTECT_ENABLE);
    rows.add("manual protection: GET", "success", word(vm.get(false)));
    rows.add("left after it", "2 bits", vm.bits());
    let got = word(vm.clear(64, PAGES - 64, ClearMask::Seen));
    rows.add(
        "manual protection: CLEAR of the last, partial word",
        "success",
        got,
    );
    rows.add("left after it", "1 bits", vm.bits());
    let got = word(vm.clear(1, 64, ClearMask::Seen));
    rows.add(
        "manual protection: CLEAR that begins within a word",
        "EINVAL",
        got,
    );
    let got = word(vm.clear(0, PAGES, ClearMask::Seen));
    rows.add("manual protection: CLEAR of the slot", "success", got);
    rows.add("left after it", "0 bits", vm.bits());
    let mut vm = with_two_bits(0);
    let _ = vm.slot(0, PAGES);
    let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
    rows.0.push(CallRow {
        call: "log switched off and on again, no GET between".into(),
        says: "2 bits".into(),
        got: vm.bits(),
        within: false,
    });
    rows.0
}

fn get_without_clear() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    let mut vm = with_two_bits(MANUAL_PROTECT_ENABLE);
    let _ = vm.get(false);
    rows.add("manual protection: GET names", "2 pages", vm.named());
    let _ = vm.get(false);
    rows.add(
        "a second GET, no CLEAR between, names",
        "2 pages",
        vm.named(),
    );
    let mut vm = with_two_bits(MANUAL_PROTECT_ENABLE);
    let _ = vm.get(false);
    let _ = vm.clear(0, PAGES, ClearMask::Seen);
    let _ = vm.named();
    let _ = vm.get(false);
    rows.add("a second GET after CLEAR names", "0 pages", vm.named());
    rows.0
}

fn initially_set() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    for (arch, pml, name) in WITH_RING {
        let mut vm = Vm::new(arch, pml);
        let bits = MANUAL_PROTECT_ENABLE | INITIALLY_SET;
        let _ = vm.cap(CAP_MANUAL_DIRTY_LOG_PROTECT2, bits);
        let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
        rows.add(
            format!("{name}: a log of 70 pages begins with"),
            "70 bits",
            vm.bits(),
        );
        let _ = vm.get(false);
        let _ = vm.clear(0, 64, ClearMask::Seen);
        rows.add(
            format!("{name}: after CLEAR of its first word"),
            "6 bits",
            vm.bits(),
        );
    }
    let mut vm = Vm::new(Arch::Arm64, false);
    let got = word(vm.cap(CAP_MANUAL_DIRTY_LOG_PROTECT2, INITIALLY_SET));
    rows.add(
        "arm64: INITIALLY_SET without manual protection",
        "EINVAL",
        got,
    );
    rows.0
}

fn save_busy() -> Vec<CallRow> {
    let mut rows = Rows(Vec::new());
    for writer in [KernelWriter::PendingSave, KernelWriter::ItsSave] {
        let mut vm = Vm::new(Arch::Arm64, false);
        let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
        let _ = vm.call(Op::CreateVcpu);
        vm.state.stale.clear();
        let run = Step {
            actor: Actor::Vcpu(0),
            choice: Choice::Advance,
        };
        apply(&vm.machine, &mut vm.state, run);
        let name = writer.name();
        rows.add(
            format!("{name} with a vCPU in KVM_RUN"),
            "EBUSY",
            word(vm.save(writer)),
        );
        let changed = |vm: &Vm| format!("{} pages", vm.state.stale.iter().count());
        rows.add("pages changed by it", "0 pages", changed(&vm));
        rows.add("bits set by it", "0 bits", vm.bits());
        let mut vm = Vm::new(Arch::Arm64, false);
        let _ = vm.slot(MEM_LOG_DIRTY_PAGES, PAGES);
        let _ = vm.call(Op::CreateVcpu);
        vm.state.stale.clear();
        rows.add(
            format!("{name} with no vCPU in KVM_RUN"),
            "success",
            word(vm.save(writer)),
        );
        rows.add("pages changed by it", "2 pages", changed(&vm));
        rows.add("bits set by it", "2 bits", vm.bits());
    }
    rows.0
}
