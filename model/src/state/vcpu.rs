//! A vCPU: where its thread is, its pending access, its TLB, its ring and its PML buffer.

use super::pages::Frames;
use super::parts::Parts;
use super::ring::Ring;
use crate::words::Frame;

pub use crate::words::NO_FRAME;

/// A budget without end: any number, which nothing lowers. Whoever has it may also have had enough at any time.
pub const UNLIMITED: u8 = u8::MAX;

/// Takes one from a budget that has some left.
#[inline(always)]
pub(crate) fn spend(budget: &mut u8) {
    *budget -= u8::from(*budget != UNLIMITED);
}

/// Where a vCPU's thread is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Pc {
    /// In user space, outside KVM_RUN.
    #[default]
    User = 0,
    /// In KVM_RUN, on the way into the guest; `stage` counts the request checks.
    Entry = 1,
    /// The kernel has updated its record in guest memory and has still to mark it; then on as in [`Pc::Entry`].
    StealMark = 2,
    /// In the guest.
    Guest = 3,
    /// A VM exit: the PML buffer is being flushed; then to the fault, if one is pending.
    Flush = 4,
    /// A VM exit like the former, with no fault behind it.
    FlushOnly = 5,
    /// In the fault path; `stage` counts its steps.
    Fault = 6,
    /// On the way out to user space.
    Exit = 7,
    /// As [`Pc::StealMark`], on the way out.
    ExitMark = 8,
    /// In user space, its mutex held by KVM_PRE_FAULT_MEMORY, which a thread of the VMM steps through; `stage` counts the steps of
    /// the fault path.
    PreFault = 9,
}

impl Pc {
    /// Every value, by number.
    pub const ALL: [Self; 10] = [
        Self::User,
        Self::Entry,
        Self::StealMark,
        Self::Guest,
        Self::Flush,
        Self::FlushOnly,
        Self::Fault,
        Self::Exit,
        Self::ExitMark,
        Self::PreFault,
    ];
}

/// Why KVM_RUN returned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Exit {
    /// It has not run, or is running.
    #[default]
    None = 0,
    /// KVM_EXIT_DIRTY_RING_FULL.
    DirtyRingFull = 1,
    /// A signal: EINTR.
    Interrupted = 2,
    /// An access to no slot (MMIO), or one that failed.
    NoMemory = 3,
}

impl Exit {
    /// Every value, by number.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::DirtyRingFull,
        Self::Interrupted,
        Self::NoMemory,
    ];
}

/// A vCPU.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Vcpu<L: Parts> {
    /// Where its thread is.
    pub pc: Pc,
    /// The step within [`Pc::Entry`] or [`Pc::Fault`].
    pub stage: u8,
    /// The step within a push.
    pub push: u8,
    /// The frame of the access that has not retired, or [`NO_FRAME`].
    pub frame: Frame,
    /// That access is a load.
    pub load: bool,
    /// The fault takes x86's lockless path.
    pub fast: bool,
    /// The leaf was absent when the fault was taken.
    pub was_absent: bool,
    /// A frame that may have changed and that it has still to mark, or [`NO_FRAME`]: follows from where it stands.
    pub owed: Frame,
    /// The fault path holds mmu_lock for read.
    pub reads_mmu: bool,
    /// The slot logged when the fault path looked it up.
    pub logging: bool,
    /// It was inside an SRCU read section when memslots were last published, and still is.
    pub old_slots: bool,
    /// Stores left to the guest, or [`UNLIMITED`].
    pub stores: u8,
    /// Loads left to the guest, or [`UNLIMITED`].
    pub loads: u8,
    /// Updates of the kernel's record left, or [`UNLIMITED`].
    pub steal: u8,
    /// Such an update is due: KVM_RUN was called, and has not come to it yet.
    pub record_due: bool,
    /// Why KVM_RUN returned last.
    pub exit: Exit,
    /// KVM_REQ_DIRTY_RING_SOFT_FULL is raised.
    pub request: bool,
    /// A signal is pending for the thread.
    pub kicked: bool,
    /// A reschedule interrupt is on its way.
    pub resched: bool,
    /// PML is on: it was at the last entry.
    pub pml_on: bool,
    /// The thread waits until its exit 31 is acknowledged.
    pub waits: bool,
    /// Frames that its TLB takes for writable (with PML: writable and dirty).
    pub tlb: Frames<L::Set>,
    /// Its ring.
    pub ring: Ring<L>,
    /// Its PML buffer, oldest first.
    pub pml: L::Pml,
}

impl<L: Parts> Default for Vcpu<L> {
    fn default() -> Self {
        Self {
            pc: Pc::User,
            stage: 0,
            push: 0,
            frame: NO_FRAME,
            load: false,
            fast: false,
            was_absent: false,
            owed: NO_FRAME,
            reads_mmu: false,
            logging: false,
            old_slots: false,
            stores: 0,
            loads: 0,
            steal: 0,
            record_due: false,
            exit: Exit::None,
            request: false,
            kicked: false,
            resched: false,
            pml_on: false,
            waits: false,
            tlb: Frames::default(),
            ring: Ring::default(),
            pml: L::Pml::default(),
        }
    }
}

impl<L: Parts> Copy for Vcpu<L>
where
    L::Set: Copy,
    L::Entries: Copy,
    L::Pml: Copy,
{
}

impl<L: Parts> Vcpu<L> {
    /// Whether it is outside KVM_RUN.
    #[must_use]
    #[inline(always)]
    pub fn is_stopped(&self) -> bool {
        self.pc == Pc::User
    }

    /// Whether it is inside an SRCU read section, so that a change of memslots must wait for it.
    #[must_use]
    pub fn reads_slots(&self) -> bool {
        match self.pc {
            Pc::Fault => self.stage > 0,
            Pc::StealMark | Pc::ExitMark | Pc::Flush | Pc::FlushOnly | Pc::PreFault => true,
            Pc::User | Pc::Entry | Pc::Guest | Pc::Exit => false,
        }
    }
}
