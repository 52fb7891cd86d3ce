//! Which steps a wrong behaviour may change: every other step is the right one, and what is known of that holds for it.

use crate::machine::Op;
use crate::words::{Mutation, Mutations};

/// Kinds of steps, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sites(u16);

impl Sites {
    pub(super) const NONE: Self = Self(0);
    pub(super) const VCPUS: Self = Self(1 << 0);
    pub(super) const DEVICES: Self = Self(1 << 1);
    const GET: Self = Self(1 << 2);
    const CLEAR: Self = Self(1 << 3);
    const RESET: Self = Self(1 << 4);
    const REGION: Self = Self(1 << 5);
    const KERNEL_WRITE: Self = Self(1 << 6);
    const CAP: Self = Self(1 << 7);
    const HARVEST: Self = Self(1 << 8);
    const DEVICE_SYNC: Self = Self(1 << 9);
    const COPY: Self = Self(1 << 10);
    /// What a VMM does by itself.
    const VMM: Self = Self(1 << 11);
    /// Another number or order in the kernel's parts, which steps of every kind may ask for.
    const ALL: Self = Self(u16::MAX);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The operation's steps.
    pub(super) fn of_op(op: &Op) -> Self {
        match op {
            Op::GetDirtyLog(_) => Self::GET,
            Op::ClearDirtyLog(_) => Self::CLEAR,
            Op::ResetRings(_) => Self::RESET,
            Op::SetMemoryRegion(_) => Self::REGION,
            Op::KernelWrite(_) => Self::KERNEL_WRITE,
            Op::EnableCap(_) => Self::CAP,
            Op::Harvest(_) => Self::HARVEST,
            Op::DeviceSync(_) => Self::DEVICE_SYNC,
            Op::Copy | Op::CopyAll | Op::CopyList(_) | Op::TakeAll => Self::COPY,
            Op::UserWrite(_)
            | Op::DropFree(_)
            | Op::EndFree(_)
            | Op::PublishSlot(_)
            | Op::MarkOwn(_)
            | Op::TakeAlways
            | Op::Cancel
            | Op::PutBack
            | Op::OnError(_) => Self::VMM,
            Op::CreateVcpu
            | Op::PreFault(_)
            | Op::HostAge(_)
            | Op::Publish
            | Op::Forget
            | Op::Kick(_)
            | Op::WaitKicked
            | Op::WaitStopped
            | Op::WaitRunning
            | Op::JoinThread(_)
            | Op::Resume
            | Op::WaitRingFull
            | Op::AckRingFull
            | Op::CollectOwnLog
            | Op::ResetOwnLog
            | Op::DeviceStart(_)
            | Op::DeviceStop(_)
            | Op::DeviceDrain(_)
            | Op::Lock(_)
            | Op::Unlock(_)
            | Op::Signal(_)
            | Op::WaitSignal(_)
            | Op::MayFail
            | Op::Again(_)
            | Op::PassUnless(_)
            | Op::Discard
            | Op::NewDestination
            | Op::SendPage(_)
            | Op::Proceed(_)
            | Op::Yield
            | Op::Panic
            | Op::Leave
            | Op::Checkpoint
            | Op::Finish(_) => Self::NONE,
        }
    }

    /// The steps that a wrong behaviour may change.
    fn of(mutation: Mutation) -> Self {
        match mutation {
            Mutation::GetProtectBeforeSwap
            | Mutation::GetNoFlush
            | Mutation::GetTailNotCleared
            | Mutation::GetClearAfterCopy
            | Mutation::Granularity64
            | Mutation::SyncOverwrite
            | Mutation::HugeQueryGarbage => Self::GET,
            Mutation::SyncFirstAddressSpace | Mutation::SyncBlockOffset0 => {
                Self::GET.and(Self::HARVEST)
            }
            Mutation::ClearMaskSeenFalse
            | Mutation::ClearNoRearm
            | Mutation::ClearRoundFloor
            | Mutation::ClearSrcRangeSlot
            | Mutation::ClearStartLast => Self::CLEAR,
            Mutation::SlotRecreateDropBitmap => Self::CLEAR.and(Self::REGION),
            Mutation::ResetBatchFirstOnly => Self::GET.and(Self::CLEAR).and(Self::RESET),
            Mutation::ResetClearsRequest
            | Mutation::ResetCountNarrow
            | Mutation::ResetNoFlush
            | Mutation::ResetOrderRelaxed => Self::RESET,
            Mutation::HarvestLoadRelaxed
            | Mutation::HarvestStoreRelaxed
            | Mutation::ReapPublishBeforeReset
            | Mutation::ReapUncreatedVcpu
            | Mutation::RingMapShort => Self::HARVEST,
            Mutation::EnableFlushIfModified
            | Mutation::EnableNoProtect
            | Mutation::EnableProtectBeforePublish
            | Mutation::InitiallySetWholeWords
            | Mutation::LogStopPostponed => Self::REGION,
            Mutation::RingManualProtect => Self::CAP,
            Mutation::WriterMarkFirst
            | Mutation::KernelWriterNoLog
            | Mutation::NonVcpuAllowItsSave
            | Mutation::NonVcpuCrash
            | Mutation::NonVcpuDrop
            | Mutation::NonVcpuVcpu0 => Self::KERNEL_WRITE,
            Mutation::BitmapIndexNarrow => Self::KERNEL_WRITE.and(Self::VCPUS),
            Mutation::FaultNoMark
            | Mutation::HugeMarkFirstOnly
            | Mutation::KernelRecordNoLog
            | Mutation::NestedMarkUnmapped
            | Mutation::NestedPmlL2
            | Mutation::PmlNoFlush => Self::VCPUS,
            Mutation::DeviceAsyncAtSubmit
            | Mutation::DeviceAsyncNever
            | Mutation::DeviceLogBaseWrong
            | Mutation::DeviceLogQueue0
            | Mutation::DeviceLogSpaceIova
            | Mutation::DeviceLogUsedRingIova => Self::DEVICES,
            Mutation::DeviceBitmapFirstPage
            | Mutation::DeviceBitmapWindowClip
            | Mutation::DeviceSyncBeforeStart => Self::DEVICE_SYNC,
            Mutation::SourceResident | Mutation::WriterTailSkipFalse => Self::COPY,
            Mutation::HarvestOnErrorDrop => Self::COPY.and(Self::VMM),
            Mutation::AlwaysDirtyIgnored
            | Mutation::FailStopLogFalse
            | Mutation::HintClearAfterLastSync
            | Mutation::QueuesRemarkFalse
            | Mutation::SyncWordSharedBlocks
            | Mutation::VmmWriteNoLog => Self::VMM,
            Mutation::PushOrderRelaxed
            | Mutation::RingSoftFullLate
            | Mutation::RingNoRequest
            | Mutation::EnablePmlNotWaited
            | Mutation::VcpuWriteSplit
            | Mutation::FaultUnlockBetween
            | Mutation::FaultMarkBeforeSuccess => Self::ALL,
        }
    }

    /// Whether one of these wrong behaviours may change one of these steps.
    pub(super) fn any_changed_by(self, mutations: Mutations) -> bool {
        self != Self::NONE && mutations.iter().any(|on| Self::of(on).meets(self))
    }
}
