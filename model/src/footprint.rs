//! Which sections of a packed state an actor's next step reads and writes.
//!
//! A packed state has a VM-wide section (memslots, leaves, bitmaps, what is stale, locks, devices), one for each vCPU
//! and one for each thread: see [`crate::pack`]. Most steps need two or three of them, and a search that knows which can
//! answer "what does this actor do next?" from those alone, once for all the states that have them in common.
//!
//! An actor may read and write its own section, and write the VM-wide one; of that it reads the fields that
//! [`Fields::of_vcpu`] and its siblings name. What it writes of others is a bit set or a bit cleared, whatever the bit was
//! before. What a vCPU or a device depends on besides is nothing, with one exception: a vCPU outside KVM_RUN that will
//! never enter again is packed without what only running could use, and whether it will depends on what lies ahead of the
//! threads ([`resume_ahead`]). What a thread depends on besides depends on its operation and the step within
//! ([`Reach::of_thread`]).
//!
//! A mutation may read or write anything, so that with one nothing is promised.

use crate::ioctl::{clear_dirty_log, get_dirty_log, reset_rings};
use crate::machine::{Arch, Machine};
use crate::op::{HarvestWay, Op};
use crate::vcpu::Pc;
use crate::vmm::harvest;

/// Kinds of fields of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields(u16);

impl Fields {
    /// VM-wide: memslots, capabilities, the vCPUs' mutexes, whether all is over. Of a vCPU: all but its control.
    pub const REST: Self = Self(1 << 0);
    /// The leaves: present, writable, dirty, huge.
    pub const LEAVES: Self = Self(1 << 1);
    /// The live bitmaps.
    pub const BITMAP: Self = Self(1 << 2);
    /// Their scratch halves.
    pub const SCRATCH: Self = Self(1 << 3);
    /// User space's copy of the bitmaps.
    pub const SEEN: Self = Self(1 << 4);
    /// What is stale, with the ghosts of reports.
    pub const STALE: Self = Self(1 << 5);
    /// The pages to copy.
    pub const PENDING: Self = Self(1 << 6);
    /// The pages that were sent.
    pub const SENT: Self = Self(1 << 7);
    /// The VMM's own log.
    pub const OWN_LOG: Self = Self(1 << 8);
    /// The devices.
    pub const DEVICES: Self = Self(1 << 9);
    /// Of a vCPU: where it is, why it left last, whether it was signalled or waits, whether it holds mmu_lock for read.
    pub const CONTROL: Self = Self(1 << 10);
    /// Whether mmu_lock is held for write.
    pub const MMU_LOCK: Self = Self(1 << 11);
    /// slots_lock, user space's locks, sends that may still fail: what no vCPU looks at.
    pub const LOCKS: Self = Self(1 << 12);
    /// Whether the guest may run.
    pub const GUEST_RUNS: Self = Self(1 << 13);
    /// All of them.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether these include any of `other`.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The VM-wide fields that a vCPU's choices and steps read, the leaves apart: [`frames_of_vcpu`] tells whose. What they
    /// write besides: a page becomes stale, its bit is set.
    #[must_use]
    pub const fn of_vcpu(pc: Pc) -> Self {
        match pc {
            Pc::Fault => Self::REST.and(Self::MMU_LOCK),
            // Outside, or about to be: see `resume_ahead`.
            Pc::User | Pc::Exit => Self::REST.and(Self::GUEST_RUNS),
            _ => Self::REST,
        }
    }

    /// Those that a device's read. What they write besides: a page becomes stale, the VMM's log has it.
    #[must_use]
    pub const fn of_device() -> Self {
        Self::REST.and(Self::DEVICES)
    }

    /// Those that a thread's read, at a stage of its operation.
    #[must_use]
    pub fn of_thread(machine: &Machine, op: Option<&Op>, stage: u8) -> Self {
        let rest = Self::REST.and(Self::LOCKS).and(Self::GUEST_RUNS);
        let Some(op) = op else {
            return rest;
        };
        // Re-arming clears bits of the leaves, and looks at them only to find huge ones.
        let rearms = if machine.arch == Arch::S390 || machine.slots.iter().any(|slot| slot.huge) {
            rest.and(Self::LEAVES)
        } else {
            rest
        };
        let waits_for_mmu_lock = match op {
            Op::GetDirtyLog { .. } => stage == get_dirty_log::LOCK,
            Op::ClearDirtyLog { .. } => stage == clear_dirty_log::LOCK,
            Op::ResetRings { .. } => stage == reset_rings::REARM,
            _ => false,
        };
        let rearms = if waits_for_mmu_lock {
            rearms.and(Self::MMU_LOCK)
        } else {
            rearms
        };
        match op {
            Op::Harvest { .. }
            | Op::KernelWrite { .. }
            | Op::Publish
            | Op::PublishSlot { .. }
            | Op::TakeAll
            | Op::Kick { .. }
            | Op::WaitKicked
            | Op::WaitStopped
            | Op::WaitRingFull
            | Op::WaitRunning
            | Op::Resume
            | Op::AckRingFull
            | Op::Lock(_)
            | Op::Unlock(_)
            | Op::OnError { .. }
            | Op::MayFail => rest,
            Op::ResetRings { .. } => rearms,
            Op::GetDirtyLog { .. } => rearms.and(Self::BITMAP).and(Self::SCRATCH),
            Op::ClearDirtyLog { .. } => rearms.and(Self::BITMAP).and(Self::SCRATCH).and(Self::SEEN),
            Op::Copy | Op::CopyAll | Op::CopyList { .. } if !machine.track_spurious => {
                rest.and(Self::PENDING)
            }
            Op::Again { .. } => rest.and(Self::PENDING),
            Op::CollectOwnLog => rest.and(Self::OWN_LOG),
            Op::DeviceStart(_) | Op::DeviceStop(_) | Op::DeviceDrain(_) | Op::DeviceSync(_) => {
                rest.and(Self::DEVICES)
            }
            // The end is where what is stale is looked at.
            Op::Checkpoint | Op::Finish { .. } => rest.and(Self::STALE).and(Self::PENDING),
            _ => Self::ALL,
        }
    }
}

/// What the next step of a thread reads or writes of the vCPUs, from the narrowest on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Nothing.
    Own,
    /// The section of the vCPU at the thread's index.
    IndexedVcpu,
    /// The same; and it reads each vCPU's [`Fields::CONTROL`] for whether it has a step.
    IndexedOnControl,
    /// It reads each vCPU's [`Fields::CONTROL`].
    Control,
    /// It changes each vCPU's section by itself, in a way that depends on that section alone and not on the other vCPUs;
    /// it reads none of them for anything else.
    EachVcpu,
    /// As [`Reach::Control`] for whether it has a step, as [`Reach::EachVcpu`] for what the step does.
    Gate,
    /// Everything, the other threads included.
    Everything,
}

impl Reach {
    /// The reach of a thread at a stage of its operation.
    #[must_use]
    pub fn of_thread(machine: &Machine, op: Option<&Op>, stage: u8) -> Self {
        use Reach::{Control, EachVcpu, Everything, Gate, IndexedOnControl, IndexedVcpu, Own};
        if !machine.mutations.is_empty() {
            return Everything;
        }
        let Some(op) = op else {
            return Own;
        };
        // RISC-V's re-arming flushes TLBs at once.
        let rearms = if machine.arch == Arch::Riscv {
            EachVcpu
        } else {
            Own
        };
        let alone = machine.programs.len() == 1;
        match *op {
            Op::GetDirtyLog { .. } => match stage {
                get_dirty_log::LOCK => Control,
                get_dirty_log::KICK => IndexedVcpu,
                get_dirty_log::REARM => rearms,
                get_dirty_log::FLUSH | get_dirty_log::COLLECT => EachVcpu,
                _ => Own,
            },
            Op::ClearDirtyLog { .. } => match stage {
                clear_dirty_log::LOCK => Control,
                clear_dirty_log::KICK => IndexedVcpu,
                clear_dirty_log::REARM => rearms,
                clear_dirty_log::FLUSH => EachVcpu,
                _ => Own,
            },
            Op::ResetRings { .. } => match stage {
                reset_rings::ENTER | reset_rings::UNLOCK | reset_rings::RETURN => Own,
                // After it the next ring is looked at, where there is one.
                reset_rings::REARM if machine.arch == Arch::Riscv => Everything,
                reset_rings::REARM => IndexedOnControl,
                reset_rings::FLUSH => EachVcpu,
                _ => IndexedVcpu,
            },
            Op::KernelWrite { writer, .. } => {
                if stage == 0 && writer.locks_vcpus() {
                    Control
                } else {
                    Own
                }
            }
            Op::Harvest { way, .. } if way != HarvestWay::Right => Everything,
            Op::Harvest { .. } if stage == harvest::ENTER => Own,
            Op::Harvest { .. } => IndexedVcpu,
            // Whether a report was spurious depends on every other account of the page.
            Op::Copy | Op::CopyAll | Op::CopyList { .. } if machine.track_spurious => Everything,
            // The first signal of a stop ends the guest's running, which every vCPU that is outside shows.
            Op::Kick { stop: true } => EachVcpu,
            Op::Kick { stop: false } => IndexedVcpu,
            Op::WaitKicked | Op::WaitRingFull | Op::WaitRunning => Control,
            // Whether the guest is retired depends on the other threads.
            Op::WaitStopped if alone => Gate,
            Op::WaitStopped => Everything,
            // A jump may leave a resumption behind, which every vCPU that is outside shows.
            Op::OnError { .. } | Op::Again { .. } if resumes(machine) => Everything,
            Op::Resume | Op::AckRingFull => EachVcpu,
            Op::EnableCap { .. }
            | Op::CreateVcpu
            | Op::SetMemoryRegion { .. }
            | Op::JoinThread(_) => Everything,
            Op::Publish
            | Op::Copy
            | Op::CopyAll
            | Op::CopyList { .. }
            | Op::TakeAll
            | Op::UserWrite { .. }
            | Op::CollectOwnLog
            | Op::ResetOwnLog
            | Op::DeviceStart(_)
            | Op::DeviceStop(_)
            | Op::DeviceDrain(_)
            | Op::DeviceSync(_)
            | Op::Forget
            | Op::Lock(_)
            | Op::Unlock(_)
            | Op::Cancel
            | Op::NewDestination
            | Op::HostAge { .. }
            | Op::DropFree { .. }
            | Op::EndFree { .. }
            | Op::PublishSlot { .. }
            | Op::MarkOwn { .. }
            | Op::TakeAlways
            | Op::PutBack
            | Op::Discard
            | Op::MayFail
            | Op::OnError { .. }
            | Op::Again { .. }
            | Op::Checkpoint
            | Op::Finish { .. } => Own,
        }
    }
}

/// What tells which leaves a vCPU's next step reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuPlace {
    /// Where its thread is.
    pub pc: Pc,
    /// The frame of the access that has not retired, if there is one.
    pub frame: Option<u32>,
    /// Whether it may begin another access.
    pub has_budget: bool,
    /// The frames in its TLB, one bit each.
    pub tlb: u64,
}

/// The frames whose leaves a vCPU's choices and steps, and the claims about its TLB, read: one bit each.
#[must_use]
#[inline]
pub fn frames_of_vcpu(has_huge: bool, place: VcpuPlace) -> u64 {
    let may_begin = place.pc == Pc::Guest && place.frame.is_none() && place.has_budget;
    if has_huge || may_begin {
        return u64::MAX;
    }
    place.frame.map_or(0, |frame| 1 << (frame % 64)) | place.tlb
}

/// Whether some thread lets the guest run again.
fn resumes(machine: &Machine) -> bool {
    machine
        .programs
        .iter()
        .flatten()
        .any(|op| matches!(op, Op::Resume))
}

/// Whether the guest may be let run again, with the threads at `ops`.
#[must_use]
pub fn resume_ahead(machine: &Machine, ops: impl IntoIterator<Item = usize>) -> bool {
    ops.into_iter()
        .enumerate()
        .any(|(thread, op)| machine.ahead(thread, op).resume)
}
