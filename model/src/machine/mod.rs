//! The machine: everything about a VM and its VMM that no step changes.
//!
//! ```
//! use dirtysim_model::machine::{Machine, Op};
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! let mut machine = Machine::new(Arch::Arm64, Kernel::V7_2, false);
//! machine.programs = vec![vec![Op::TakeAll, Op::Copy]];
//! assert_eq!(machine.ops().count(), 2);
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use crate::words::{Frame, HostPage, Invariants, Mutations, Offset};

mod code;
mod device;
pub mod program;
mod unbacked;
pub mod wiring;

pub use crate::words::constants::*;
pub use crate::words::kernel::SOURCE_TREE;
pub use crate::words::{Arch, Constants, Kernel, Mmu};
pub use code::{Code, Outlook, Way};
pub use device::DeviceConfig;
pub use program::Op;
pub use unbacked::Unbacked;
use wiring::Wiring;

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
    pub frame: Frame,
    /// The first of its host pages; slots that share host memory share their numbers.
    pub host: HostPage,
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
    pub fn has_frame(&self, frame: Frame) -> bool {
        frame.0.wrapping_sub(self.frame.0) < self.npages
    }

    /// Whether `host` is one of its host pages.
    #[must_use]
    #[inline]
    pub fn has_host(&self, host: HostPage) -> bool {
        host.0.wrapping_sub(self.host.0) < self.npages
    }

    /// Its frames, in order.
    #[inline(always)]
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = Frame> + Clone + use<> {
        self.frame.and_on(self.npages)
    }

    /// Its host pages, in order.
    #[inline(always)]
    pub fn hosts(&self) -> impl DoubleEndedIterator<Item = HostPage> + Clone + use<> {
        self.host.and_on(self.npages)
    }

    /// The offset of one of its frames.
    #[must_use]
    #[inline(always)]
    pub fn offset(&self, frame: Frame) -> Offset {
        Offset(u64::from(frame - self.frame))
    }

    /// The frame at an offset; none behind its end.
    #[must_use]
    #[inline(always)]
    pub fn frame_at(&self, offset: Offset) -> Option<Frame> {
        (offset.0 < u64::from(self.npages)).then(|| self.frame + offset.0 as u32)
    }

    /// The host page at an offset; none behind its end.
    #[must_use]
    #[inline(always)]
    pub fn host_at(&self, offset: Offset) -> Option<HostPage> {
        (offset.0 < u64::from(self.npages)).then(|| self.host + offset.0 as u32)
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
    /// Stores that the guest makes, at most; [`UNLIMITED`](crate::state::vcpu::UNLIMITED): any number. So for the other budgets.
    pub stores: u8,
    /// Loads that the guest makes, at most (they matter where a read fault marks the page).
    pub loads: u8,
    /// The frames that it may touch.
    pub frames: Vec<Frame>,
    /// Updates of steal time or another record that the kernel keeps in guest memory, at most: one a KVM_RUN, on the way into
    /// the guest.
    pub steal: u8,
    /// What the kernel writes in the vCPU's context comes any number of times within KVM_RUN: several records, stores that it emulates.
    pub own_stores: bool,
    /// The vCPU's thread may be preempted within a push, and the record is then written and pushed over it: on a preemptible kernel, where it
    /// holds no lock.
    pub preempted: bool,
    /// The frame of that record.
    pub steal_frame: Frame,
    /// Where those updates are logged.
    pub steal_log: WriterLog,
}

/// What lies ahead of a thread at an operation of its program, on some way through it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ahead {
    /// A copy of all memory begins at this operation or later.
    pub full_copy: bool,
    /// The guest is let run at this operation or later.
    pub resume: bool,
    /// The frames that are declared dirty at this operation or later, whoever wrote them; in ascending order.
    pub declared: Vec<Frame>,
    /// The slots, by template, whose log is turned on at this operation or later: those of which it is off here, then those of
    /// which it is on here, and turned off first. In ascending order.
    pub log_on: [Vec<u16>; 2],
}

impl Ahead {
    /// Behind the last operation.
    const NOTHING: &Self = &Self {
        full_copy: false,
        resume: false,
        declared: Vec::new(),
        log_on: [const { Vec::new() }; 2],
    };
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
    /// x86: leaves have accessed and dirty bits; EPT of the first processors that had it has none.
    pub accessed_bits: bool,
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
    /// Where the programs are a VMM's own code, of which is known what was walked: what else there may be.
    pub code: Option<Code>,
    /// For each program, what lies ahead at each operation and after the last.
    pub ahead: Vec<Vec<Ahead>>,
    /// Host pages that user space must take for dirty at all times, because a kernel writer changes them and by contract marks
    /// nothing. Source: Documentation/virt/kvm/api.rst, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO.
    pub always_dirty: Vec<HostPage>,
    /// Lists of frames that operations name by index.
    pub frame_lists: Vec<Vec<Frame>>,
    /// What a vCPU thread does after exit 31.
    pub on_ring_full: OnRingFull,
    /// The claims by which it is judged: the oracle says nothing of others.
    pub claims: Invariants,
    /// Whether the ghost state of `no_spurious_dirty_page` is kept.
    pub track_spurious: bool,
    /// Which pages of a memslot lie between two others is not known: re-arming a range takes any of them along. A search sets it, and no
    /// scenario: whatever the order of the pages is, it is among what is possible then, and no page is like no other.
    pub order_unknown: bool,
    /// Whether pages sent are remembered, for a cancel that makes them stale again.
    pub track_sent: bool,
    /// Sends that may fail.
    pub send_failures: u8,
    /// Wrong behaviours that are switched on, by [`crate::mutated::set`], which sets the wiring with them.
    pub(crate) mutations: Mutations,
    /// The numbers and orders by which the kernel works.
    pub(crate) wiring: Wiring,
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
            accessed_bits: true,
            constants: Constants::of(arch, pml),
            prefetch_pages: 1,
            unbacked: Unbacked::default(),
            slots: Vec::new(),
            vcpus: Vec::new(),
            devices: Vec::new(),
            programs: Vec::new(),
            code: None,
            ahead: Vec::new(),
            always_dirty: Vec::new(),
            frame_lists: Vec::new(),
            on_ring_full: OnRingFull::default(),
            claims: Invariants::ALL,
            track_spurious: false,
            order_unknown: false,
            track_sent: false,
            send_failures: 0,
            mutations: Mutations::default(),
            wiring: Wiring::RIGHT,
        }
    }

    /// Wrong behaviours that are switched on.
    #[must_use]
    pub fn mutations(&self) -> Mutations {
        self.mutations
    }

    /// Whether faults hold mmu_lock for read, beside each other.
    #[must_use]
    pub fn faults_share_mmu_lock(&self) -> bool {
        let arm64 = self.arch == Arch::Arm64 && self.kernel.arm64_faults_exclude();
        self.mmu == Mmu::TwoDimensional && !arm64
    }

    /// The operations of all programs, and those that they may come to have.
    pub fn ops(&self) -> impl Iterator<Item = &Op> + Clone {
        let may = self.code.as_ref().map_or(&[][..], |code| &code.may);
        self.programs.iter().flatten().chain(may)
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
            .map(|slot| (slot.frame + self.padded(slot.npages)).0)
            .max()
            .unwrap_or(0)
    }

    /// Numbers that frames, padding included, and host pages have: one past the last of both.
    #[must_use]
    pub fn pages(&self) -> u32 {
        let hosts = self.slots.iter().map(|slot| (slot.host + slot.npages).0);
        hosts.max().unwrap_or(0).max(self.frames())
    }

    /// `npages` rounded up to whole words.
    #[must_use]
    pub fn padded(&self, npages: u32) -> u32 {
        npages.div_ceil(self.constants.word_bits) * self.constants.word_bits
    }

    /// The index of the slot template that has `frame`; frames belong to one template each.
    #[must_use]
    #[inline]
    pub fn slot_of_frame(&self, frame: Frame) -> Option<usize> {
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
    pub fn host_page(&self, frame: Frame) -> HostPage {
        match self.slot_of_frame(frame) {
            Some(index) => {
                let slot = &self.slots[index];
                slot.host + (frame - slot.frame)
            }
            None => HostPage(frame.0),
        }
    }

    /// Whether some slot's host pages are numbered otherwise than its frames.
    #[must_use]
    pub fn aliased(&self) -> bool {
        self.slots.iter().any(|slot| slot.host.0 != slot.frame.0)
    }

    /// What lies ahead of a thread at operation `op`.
    #[must_use]
    #[inline]
    pub fn ahead(&self, thread: usize, op: usize) -> &Ahead {
        let known = self.ahead.get(thread).and_then(|ahead| ahead.get(op));
        known.unwrap_or(Ahead::NOTHING)
    }
}
