//! Which sections of a packed state an actor's next step reads and writes.
//!
//! A packed state has a VM-wide section (memslots, leaves, bitmaps, what is stale, locks, devices), one for each vCPU
//! and one for each thread: see [`crate::pack`]. Most steps need two or three of them, and a search that knows which can
//! answer "what does this actor do next?" from those alone, once for all the states that have them in common.
//!
//! Every actor may read and write the VM-wide section and its own. What a vCPU or a device reads besides is nothing,
//! with one exception: a vCPU outside KVM_RUN that will never enter again is packed without what only running could
//! use, and whether it will depends on what lies ahead of the threads ([`resume_ahead`]). What a thread reads besides
//! depends on its operation and the step within ([`Reach::of_thread`]).
//!
//! A mutation may read or write anything, so that with one nothing is promised.

use crate::ioctl::{clear_dirty_log, get_dirty_log, reset_rings};
use crate::machine::{Arch, Machine};
use crate::op::{HarvestWay, Op};
use crate::vmm::harvest;

/// What the next step of a thread reads or writes besides the VM-wide section and its own, from the narrowest on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Nothing.
    Own,
    /// The section of the vCPU at the thread's index.
    IndexedVcpu,
    /// Where each vCPU is, why it left last, and whether it was signalled or waits; it writes none of it.
    Control,
    /// The same while it has no step; everything once it has one.
    Gate,
    /// Everything.
    Everything,
}

impl Reach {
    /// The reach of a thread at a stage of its operation.
    #[must_use]
    pub fn of_thread(machine: &Machine, op: Option<&Op>, stage: u8) -> Self {
        use Reach::{Control, Everything, Gate, IndexedVcpu, Own};
        if !machine.mutations.is_empty() {
            return Everything;
        }
        let Some(op) = op else {
            return Own;
        };
        // RISC-V's re-arming flushes TLBs at once.
        let rearms = if machine.arch == Arch::Riscv {
            Everything
        } else {
            Own
        };
        match *op {
            Op::GetDirtyLog { .. } => match stage {
                get_dirty_log::KICK => IndexedVcpu,
                get_dirty_log::REARM => rearms,
                get_dirty_log::FLUSH | get_dirty_log::COLLECT => Everything,
                _ => Own,
            },
            Op::ClearDirtyLog { .. } => match stage {
                clear_dirty_log::KICK => IndexedVcpu,
                clear_dirty_log::REARM => rearms,
                clear_dirty_log::FLUSH => Everything,
                _ => Own,
            },
            Op::ResetRings { .. } => match stage {
                reset_rings::ENTER | reset_rings::UNLOCK | reset_rings::RETURN => Own,
                reset_rings::REARM if machine.arch == Arch::Riscv => Everything,
                reset_rings::FLUSH => Everything,
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
            Op::Kick { stop: true } => Everything,
            Op::Kick { stop: false } => IndexedVcpu,
            Op::WaitKicked | Op::WaitRingFull | Op::WaitRunning => Control,
            Op::WaitStopped => Gate,
            Op::OnError { .. } | Op::Again { .. } if resumes(machine) => Everything,
            Op::EnableCap { .. }
            | Op::CreateVcpu
            | Op::SetMemoryRegion { .. }
            | Op::Resume
            | Op::AckRingFull
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
