//! The machine: everything about a VM and its VMM that no step changes.

use alloc::string::String;
use alloc::vec::Vec;

use crate::device::DeviceConfig;
use crate::host::Unbacked;
use crate::mutation::Mutations;
use crate::op::{Op, Until};

/// The kernel tree in which a behaviour without another note was read.
pub const SOURCE_TREE: &str = "v7.2.13";

/// An architecture, as KVM's dirty logging tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    /// arm64: ring, ring with bitmap, ITS.
    Arm64,
    /// x86, with or without PML.
    X86,
    /// RISC-V: ring, no bitmap beside it.
    Riscv,
    /// LoongArch: ring, no bitmap beside it.
    Loongarch,
    /// s390: no ring.
    S390,
}

impl Arch {
    /// Every architecture that the model knows.
    pub const ALL: [Self; 5] = [
        Self::Arm64,
        Self::X86,
        Self::Riscv,
        Self::Loongarch,
        Self::S390,
    ];

    /// The name in scenarios and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86 => "x86",
            Self::Riscv => "riscv",
            Self::Loongarch => "loongarch",
            Self::S390 => "s390",
        }
    }

    /// Whether re-arming a batch write-protects every page from its lowest to its highest bit.
    /// Source: arch/arm64/kvm/mmu.c, arch/riscv/kvm/mmu.c, arch/loongarch/kvm/mmu.c, kvm_arch_mmu_enable_log_dirty_pt_masked().
    #[must_use]
    pub const fn rearms_range(self) -> bool {
        matches!(self, Self::Arm64 | Self::Riscv | Self::Loongarch)
    }

    /// Whether the architecture has dirty rings at that kernel version.
    #[must_use]
    pub fn has_ring(self, kernel: Kernel) -> bool {
        match self {
            Self::X86 => true,
            Self::Arm64 | Self::Loongarch => kernel >= Kernel::V6_12,
            Self::Riscv => kernel >= Kernel::V6_18,
            Self::S390 => false,
        }
    }

    /// Whether a ring may be backed by a bitmap. Source: virt/kvm/Kconfig, NEED_KVM_DIRTY_RING_WITH_BITMAP.
    #[must_use]
    pub fn has_ring_with_bitmap(self, kernel: Kernel) -> bool {
        self == Self::Arm64 && self.has_ring(kernel)
    }

    /// The mask of manual-protect bits that KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 accepts.
    #[must_use]
    pub const fn manual_protect_mask(self) -> u64 {
        match self {
            Self::S390 => 0,
            _ => MANUAL_PROTECT_ENABLE | INITIALLY_SET,
        }
    }
}

/// A kernel version: it selects named differences, never a copy of the code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kernel {
    /// Linux 6.1 (read at 6.1.192).
    V6_1,
    /// Linux 6.12 (read at 6.12.117, recorded on arm64).
    V6_12,
    /// Linux 6.18 (recorded on x86).
    V6_18,
    /// Linux 7.2 (read at 7.2.13).
    V7_2,
    /// Linux 7.3 (read at 7.3.4, recorded on arm64).
    V7_3,
}

impl Kernel {
    /// Every version that the model knows, oldest first.
    pub const ALL: [Self; 5] = [Self::V6_1, Self::V6_12, Self::V6_18, Self::V7_2, Self::V7_3];

    /// The name in scenarios and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V6_18 => "6.18",
            Self::V7_2 => "7.2",
            Self::V7_3 => "7.3",
        }
    }

    /// `reset_signal_exit`: RESET leaves at once when a signal is pending (commit 49005a2a3d2a, 6.17).
    #[must_use]
    pub fn reset_signal_exit(self) -> bool {
        self >= Self::V6_18
    }

    /// `mark_needs_vcpu`: on an architecture with rings, a mark without a running vCPU is dropped (until c57351a75d01).
    #[must_use]
    pub fn mark_needs_vcpu(self) -> bool {
        self == Self::V6_1
    }

    /// `arm64_mark_in_lock`: arm64 marks before it drops mmu_lock.
    #[must_use]
    pub fn arm64_mark_in_lock(self) -> bool {
        self == Self::V6_1
    }

    /// `pml_newest_first`: the PML buffer is flushed from its newest entry (until 37c3ddfe5238, 6.14).
    #[must_use]
    pub fn pml_newest_first(self) -> bool {
        self < Self::V6_18
    }

    /// `arm64_marks_block`: arm64 marks the first page of the block that it maps, not the page that was stored to (read at 7.2.13, seen
    /// on 7.3.4).
    #[must_use]
    pub fn arm64_marks_block(self) -> bool {
        self >= Self::V7_2
    }

    /// `its_maps_lpi_once`: the ITS refuses to map an LPI from a second event (read and seen at 7.3.4, not there at 7.2.13).
    #[must_use]
    pub fn its_maps_lpi_once(self) -> bool {
        self >= Self::V7_3
    }

    /// `vcpu_id_first`: KVM_CREATE_VCPU looks whether the id is taken before it asks the architecture (read and seen at 7.3.4, not there
    /// at 7.2.13).
    #[must_use]
    pub fn vcpu_id_first(self) -> bool {
        self >= Self::V7_3
    }

    /// `riscv_needs_bitmap`: RISC-V and LoongArch take a slot without a bitmap for one that does not log.
    #[must_use]
    pub fn riscv_needs_bitmap(self) -> bool {
        self <= Self::V6_12
    }
}

/// KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.
pub const MANUAL_PROTECT_ENABLE: u64 = 1 << 0;
/// KVM_DIRTY_LOG_INITIALLY_SET.
pub const INITIALLY_SET: u64 = 1 << 1;
/// KVM_CAP_DIRTY_LOG_RING.
pub const CAP_DIRTY_LOG_RING: u32 = 192;
/// KVM_CAP_DIRTY_LOG_RING_ACQ_REL.
pub const CAP_DIRTY_LOG_RING_ACQ_REL: u32 = 223;
/// KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP.
pub const CAP_DIRTY_LOG_RING_WITH_BITMAP: u32 = 225;
/// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
pub const CAP_MANUAL_DIRTY_LOG_PROTECT2: u32 = 168;
/// KVM_EXIT_DIRTY_RING_FULL.
pub const EXIT_DIRTY_RING_FULL: u32 = 31;
/// KVM_MEM_LOG_DIRTY_PAGES.
pub const MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
/// KVM_MEM_READONLY.
pub const MEM_READONLY: u32 = 1 << 1;
/// The size of one ring entry in bytes.
pub const DIRTY_GFN_BYTES: u32 = 16;
/// The most entries of a ring: KVM_DIRTY_RING_MAX_ENTRIES.
pub const RING_MAX_ENTRIES: u32 = 65536;
/// The entries that every architecture holds back: KVM_DIRTY_RING_RSVD_ENTRIES.
pub const RING_RESERVED_ENTRIES: u32 = 64;
/// The entries of a PML buffer: PML_LOG_NR_ENTRIES.
pub const PML_ENTRIES: u32 = 512;
/// Pages of the window that x86's shadow paging maps ahead: PTE_PREFETCH_NUM.
pub const X86_PREFETCH_PAGES: u32 = 8;
/// Memslots an address space can have: KVM_MEM_SLOTS_NUM (SHRT_MAX).
pub const MEM_SLOTS: u32 = 32767;
/// The most pages of a user slot: KVM_MEM_MAX_NR_PAGES.
pub const MEM_MAX_PAGES: u64 = (1 << 31) - 1;

/// KVM's sizes. The architecture's own unless a scenario scales them down; errnos are computed from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Constants {
    /// Bytes in a page; a power of two.
    pub page_bytes: u64,
    /// Entries held back when a ring counts as soft-full.
    pub ring_reserved: u32,
    /// The smallest ring, in entries.
    pub ring_min_entries: u32,
    /// Bits in a bitmap word (BITS_PER_LONG); at most 64.
    pub word_bits: u32,
    /// Pages that one RESET batch can span; at most 64.
    pub reset_batch_pages: u32,
    /// Entries of a PML buffer.
    pub pml_entries: u32,
    /// Pages in a huge mapping; 1: none.
    pub huge_pages: u32,
    /// Address spaces of the VM.
    pub address_spaces: u32,
    /// Memslots that user space can have in an address space.
    pub user_slots: u32,
}

impl Constants {
    /// The architecture's own values.
    #[must_use]
    pub fn of(arch: Arch, pml: bool) -> Self {
        let ring_reserved = RING_RESERVED_ENTRIES + if pml { PML_ENTRIES } else { 0 };
        let page_bytes = 4096;
        Self {
            page_bytes,
            ring_reserved,
            ring_min_entries: (page_bytes as u32 / DIRTY_GFN_BYTES)
                .max(ring_reserved.next_power_of_two()),
            word_bits: 64,
            reset_batch_pages: 64,
            pml_entries: PML_ENTRIES,
            huge_pages: 512,
            address_spaces: if arch == Arch::X86 { 2 } else { 1 },
            user_slots: MEM_SLOTS
                - match arch {
                    Arch::X86 => 3,
                    Arch::S390 => 1,
                    _ => 0,
                },
        }
    }
}

/// What walks the guest's memory accesses on x86; other architectures have one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mmu {
    /// Two-dimensional paging (EPT, NPT, stage 2): faults take mmu_lock for read, and x86 has the lockless fast path.
    TwoDimensional,
    /// Shadow paging: mmu_lock is exclusive, no fast path.
    Shadow,
}

/// What a vCPU thread does after exit 31.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnRingFull {
    /// Enters again at once; it exits again until somebody reset the ring.
    #[default]
    Reenter,
    /// Waits until a thread of the VMM acknowledges the exit.
    Wait,
}

/// A place for a memslot: what of it no step changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotTemplate {
    /// Address space.
    pub as_id: u32,
    /// Slot id in it.
    pub id: u32,
    /// Pages.
    pub npages: u32,
    /// The first of its frames: the machine numbers the pages of all slots through, each slot from a multiple of the
    /// word size on.
    pub frame: u32,
    /// The first of its host pages; slots that share host memory share their numbers.
    pub host: u32,
    /// The host virtual address, in bytes, as user space gave it.
    pub hva: u64,
    /// The gfns at which the slot can stand; a slot's state names one by index.
    pub places: Vec<u64>,
    /// Whether the host maps its memory by huge pages.
    pub huge: bool,
    /// A name for people.
    pub name: String,
}

impl SlotTemplate {
    /// The combined slot number of ioctls and ring entries: `as_id << 16 | id`.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.as_id << 16 | self.id
    }

    /// Whether `frame` is one of the slot's.
    #[must_use]
    #[inline]
    pub fn has_frame(&self, frame: u32) -> bool {
        frame.wrapping_sub(self.frame) < self.npages
    }
}

/// Where a writer's stores are logged: the axis "who logs" of the bugs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WriterLog {
    /// As the kernel, or the device, should.
    #[default]
    Right,
    /// Nowhere.
    None,
    /// Before the bytes change, in place of after.
    Early,
    /// At another page: the offset is not translated.
    WrongSpace,
}

/// A vCPU's writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VcpuConfig {
    /// Stores that the guest makes, at most; [`UNLIMITED`](crate::vcpu::UNLIMITED): as many as there is time for.
    pub stores: u8,
    /// Loads that the guest makes, at most (they matter where a read fault marks the page).
    pub loads: u8,
    /// The frames that it may touch.
    pub frames: Vec<u32>,
    /// Updates of steal time or another record that the kernel keeps in guest memory, at most.
    pub steal: u8,
    /// The frame of that record.
    pub steal_frame: u32,
    /// Where those updates are logged.
    pub steal_log: WriterLog,
}

/// What lies ahead of a thread at an operation of its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ahead {
    /// A copy of all memory begins at this operation or later.
    pub full_copy: bool,
    /// The guest is let run at this operation or later.
    pub resume: bool,
}

/// The machine and the programs of its VMM: everything that a step reads and no step changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Architecture.
    pub arch: Arch,
    /// Kernel version.
    pub kernel: Kernel,
    /// x86: the CPUs have PML and KVM uses it.
    pub pml: bool,
    /// x86: how guest memory is mapped.
    pub mmu: Mmu,
    /// KVM's sizes.
    pub constants: Constants,
    /// x86 with shadow paging: pages of the aligned window around a fault of which KVM maps the others too, where the slot does not
    /// log. [`X86_PREFETCH_PAGES`] on real kernels; 1, none, unless somebody asks for it.
    pub prefetch_pages: u32,
    /// Host pages that nobody has stored to.
    pub unbacked: Unbacked,
    /// Places for memslots, by ascending first frame.
    pub slots: Vec<SlotTemplate>,
    /// The vCPUs' writes, by vCPU id.
    pub vcpus: Vec<VcpuConfig>,
    /// The devices.
    pub devices: Vec<DeviceConfig>,
    /// The programs of the VMM's threads.
    pub programs: Vec<Vec<Op>>,
    /// For each program, what lies ahead at each operation and after the last.
    pub ahead: Vec<Vec<Ahead>>,
    /// Host pages that user space must take for dirty at all times, because a kernel writer changes them and by contract marks
    /// nothing. Source: Documentation/virt/kvm/api.rst, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO.
    pub always_dirty: Vec<u32>,
    /// Lists of frames that operations name by index.
    pub frame_lists: Vec<Vec<u32>>,
    /// What a vCPU thread does after exit 31.
    pub on_ring_full: OnRingFull,
    /// Whether the ghost state of `no_spurious_dirty_page` is kept.
    pub track_spurious: bool,
    /// Whether pages sent are remembered, for a cancel that makes them stale again.
    pub track_sent: bool,
    /// Sends that may fail.
    pub send_failures: u8,
    /// Wrong behaviours that are switched on.
    pub mutations: Mutations,
}

impl Machine {
    /// A machine with the architecture's constants, without slots, vCPUs or programs.
    #[must_use]
    pub fn new(arch: Arch, kernel: Kernel, pml: bool) -> Self {
        Self {
            arch,
            kernel,
            pml,
            mmu: Mmu::TwoDimensional,
            constants: Constants::of(arch, pml),
            prefetch_pages: 1,
            unbacked: Unbacked::default(),
            slots: Vec::new(),
            vcpus: Vec::new(),
            devices: Vec::new(),
            programs: Vec::new(),
            ahead: Vec::new(),
            always_dirty: Vec::new(),
            frame_lists: Vec::new(),
            on_ring_full: OnRingFull::default(),
            track_spurious: false,
            track_sent: false,
            send_failures: 0,
            mutations: Mutations::default(),
        }
    }

    /// Whether stores set a bit in the leaf that somebody looks for: PML logs its setting, s390's GET collects it.
    #[must_use]
    #[inline(always)]
    pub fn has_dirty_bits(&self) -> bool {
        self.pml || self.arch == Arch::S390
    }

    /// Frames of the machine, padding included: one past the last frame of the last slot, rounded up to a word.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.slots
            .iter()
            .map(|slot| slot.frame + self.padded(slot.npages))
            .max()
            .unwrap_or(0)
    }

    /// `npages` rounded up to whole words.
    #[must_use]
    pub fn padded(&self, npages: u32) -> u32 {
        npages.div_ceil(self.constants.word_bits) * self.constants.word_bits
    }

    /// The index of the slot template that has `frame`; frames belong to one template each.
    #[must_use]
    #[inline]
    pub fn slot_of_frame(&self, frame: u32) -> Option<usize> {
        if self.slots.len() <= 4 {
            return self.slots.iter().position(|slot| slot.has_frame(frame));
        }
        let after = self.slots.partition_point(|slot| slot.frame <= frame);
        let index = after.checked_sub(1)?;
        self.slots[index].has_frame(frame).then_some(index)
    }

    /// The host page behind `frame`.
    #[must_use]
    #[inline]
    pub fn host_page(&self, frame: u32) -> u32 {
        match self.slot_of_frame(frame) {
            Some(index) => self.slots[index].host + (frame - self.slots[index].frame),
            None => frame,
        }
    }

    /// Whether some slot's host pages are numbered otherwise than its frames.
    #[must_use]
    pub fn aliased(&self) -> bool {
        self.slots.iter().any(|slot| slot.host != slot.frame)
    }

    /// What lies ahead of a thread at operation `op`.
    #[must_use]
    #[inline]
    pub fn ahead(&self, thread: usize, op: usize) -> Ahead {
        match self.ahead.get(thread) {
            Some(ahead) => ahead.get(op).copied().unwrap_or_default(),
            None => Ahead::default(),
        }
    }

    /// Computes [`Machine::ahead`] from the programs; to be called after they change.
    pub fn look_ahead(&mut self) {
        self.ahead = self
            .programs
            .iter()
            .map(|program| ahead_in(program))
            .collect();
    }
}

/// What lies ahead at each operation of a program and after its last, along every way that its jumps allow.
fn ahead_in(program: &[Op]) -> Vec<Ahead> {
    let mut ahead = alloc::vec![Ahead::default(); program.len() + 1];
    loop {
        let mut changed = false;
        for (index, op) in program.iter().enumerate().rev() {
            let elsewhere = match *op {
                Op::OnError { to } | Op::Again { to, .. } => ahead[usize::from(to)],
                _ => Ahead::default(),
            };
            // Nothing is sure to come beyond a jump that is always taken.
            let next = match op {
                Op::Again {
                    until: Until::Never,
                    ..
                } => Ahead::default(),
                _ => ahead[index + 1],
            };
            let now = Ahead {
                full_copy: elsewhere.full_copy
                    || next.full_copy
                    || matches!(op, Op::CopyAll | Op::TakeAll),
                resume: elsewhere.resume || next.resume || matches!(op, Op::Resume),
            };
            changed |= now != ahead[index];
            ahead[index] = now;
        }
        if !changed {
            return ahead;
        }
    }
}
