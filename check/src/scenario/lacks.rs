//! What a mutation needs and a scenario has not.

use dirtysim_model::machine::{
    CAP_DIRTY_LOG_RING_WITH_BITMAP, CAP_MANUAL_DIRTY_LOG_PROTECT2, INITIALLY_SET,
    MEM_LOG_DIRTY_PAGES, Machine,
};
use dirtysim_model::op::{self, Into as Where, KernelWriter, Op};
use dirtysim_model::words::mutation::Mutation;

use super::Scenario;

/// What keeps `mutation` from doing anything in the scenario, in words; none: it may act.
///
/// This is about what is there at all, and not about whether some schedule meets it.
#[must_use]
pub fn lacks(scenario: &Scenario, mutation: Mutation) -> Option<&'static str> {
    let has = Has { scenario };
    needs(mutation)
        .iter()
        .find(|need| !need.is_met(&has))
        .map(|need| need.lacking())
}

/// Something that a mutation needs.
#[derive(Debug, Clone, Copy)]
enum Need {
    Ring,
    Bitmap,
    ManualProtect,
    InitiallySet,
    Huge,
    Pml,
    Stores,
    Record,
    Devices,
    Queues,
    UsedRing,
    SecondSpace,
    SecondSlot,
    Get,
    Clear,
    Reset,
    Harvest,
    HarvestInHand,
    HarvestBeyond,
    Collect,
    KernelWrite,
    OtherWriter,
    VmmWrite,
    LogOn,
    SlotComes,
    CopyAll,
    Copies,
    PublishSlot,
    MarkQueues,
    TakeAlways,
    DropFree,
    DeviceSync,
    OnError,
    Fails,
}

fn needs(mutation: Mutation) -> &'static [Need] {
    use Mutation as M;
    match mutation {
        M::GetProtectBeforeSwap
        | M::GetNoFlush
        | M::GetClearAfterCopy
        | M::GetTailNotCleared
        | M::Granularity64 => &[Need::Bitmap, Need::Get],
        M::ClearRoundFloor
        | M::ClearSrcRangeSlot
        | M::ClearNoRearm
        | M::ClearMaskSeenFalse
        | M::ClearStartLast => &[Need::Bitmap, Need::ManualProtect, Need::Clear],
        M::BitmapIndexNarrow => &[Need::Bitmap],
        M::HugeMarkFirstOnly => &[Need::Huge],
        M::HugeQueryGarbage => &[Need::Huge, Need::Bitmap, Need::Get],
        M::FaultMarkBeforeSuccess | M::FaultUnlockBetween | M::FaultNoMark | M::VcpuWriteSplit => {
            &[Need::Stores]
        }
        M::InitiallySetWholeWords => &[Need::Bitmap, Need::InitiallySet],
        M::KernelRecordNoLog | M::NestedMarkUnmapped => &[Need::Record],
        M::KernelWriterNoLog | M::WriterMarkFirst => &[Need::KernelWrite],
        M::VmmWriteNoLog => &[Need::VmmWrite],
        M::NonVcpuDrop | M::NonVcpuCrash | M::NonVcpuVcpu0 => &[Need::Ring, Need::KernelWrite],
        M::NonVcpuAllowItsSave => &[Need::OtherWriter],
        M::EnableFlushIfModified | M::EnableNoProtect | M::EnableProtectBeforePublish => {
            &[Need::LogOn]
        }
        M::LogStopPostponed => &[Need::LogOn],
        M::ResetOrderRelaxed
        | M::ResetCountNarrow
        | M::ResetNoFlush
        | M::ResetBatchFirstOnly
        | M::ResetClearsRequest => &[Need::Ring, Need::Reset],
        M::PushOrderRelaxed | M::RingSoftFullLate | M::RingNoRequest => &[Need::Ring],
        M::RingManualProtect => &[Need::Ring],
        M::PmlNoFlush | M::EnablePmlNotWaited | M::NestedPmlL2 => &[Need::Pml],
        M::SyncFirstAddressSpace => &[Need::SecondSpace, Need::Collect],
        M::SyncBlockOffset0 => &[Need::SecondSlot, Need::Collect],
        M::SyncWordSharedBlocks => &[Need::SecondSlot, Need::PublishSlot],
        M::SyncOverwrite => &[Need::Bitmap, Need::Get],
        M::SlotRecreateDropBitmap => &[Need::Bitmap, Need::SlotComes],
        M::RingMapShort | M::HarvestLoadRelaxed | M::HarvestStoreRelaxed => {
            &[Need::Ring, Need::Harvest]
        }
        M::ReapUncreatedVcpu => &[Need::HarvestBeyond],
        M::ReapPublishBeforeReset => &[Need::Ring, Need::HarvestInHand],
        M::HintClearAfterLastSync => &[Need::DropFree],
        M::FailStopLogFalse => &[Need::OnError],
        M::HarvestOnErrorDrop => &[Need::Fails],
        M::AlwaysDirtyIgnored => &[Need::TakeAlways],
        M::SourceResident => &[Need::CopyAll],
        M::WriterTailSkipFalse => &[Need::SecondSlot, Need::Copies],
        M::QueuesRemarkFalse => &[Need::MarkQueues],
        M::DeviceSyncBeforeStart => &[Need::DeviceSync],
        M::DeviceLogSpaceIova
        | M::DeviceLogBaseWrong
        | M::DeviceAsyncAtSubmit
        | M::DeviceAsyncNever => &[Need::Devices],
        M::DeviceBitmapFirstPage | M::DeviceBitmapWindowClip => &[Need::DeviceSync],
        M::DeviceLogQueue0 => &[Need::Queues],
        M::DeviceLogUsedRingIova => &[Need::UsedRing],
    }
}

/// What a scenario has.
struct Has<'a> {
    scenario: &'a Scenario,
}

impl Has<'_> {
    fn machine(&self) -> &Machine {
        &self.scenario.machine
    }

    fn step(&self, wanted: impl Fn(&Op) -> bool) -> bool {
        self.machine().programs.iter().flatten().any(wanted)
    }

    fn cap(&self, wanted: u32) -> Option<u64> {
        self.scenario.setup.iter().find_map(|op| match op {
            Op::EnableCap(op::EnableCap { cap, args0, .. }) if *cap == wanted => Some(*args0),
            _ => None,
        })
    }

    fn ring(&self) -> bool {
        self.scenario.ring_entries() > 0
    }

    /// Whether slots that log have bitmaps.
    fn bitmap(&self) -> bool {
        !self.ring() || self.cap(CAP_DIRTY_LOG_RING_WITH_BITMAP).is_some()
    }
}

impl Need {
    fn is_met(self, has: &Has<'_>) -> bool {
        let machine = has.machine();
        match self {
            Self::Ring => has.ring(),
            Self::Bitmap => has.bitmap(),
            Self::ManualProtect => has.cap(CAP_MANUAL_DIRTY_LOG_PROTECT2).is_some(),
            Self::InitiallySet => has
                .cap(CAP_MANUAL_DIRTY_LOG_PROTECT2)
                .is_some_and(|bits| bits & INITIALLY_SET != 0),
            Self::Huge => machine.constants.huge_pages > 1,
            Self::Pml => machine.pml,
            Self::Stores => machine.vcpus.iter().any(|v| v.stores > 0 || v.loads > 0),
            Self::Record => machine.vcpus.iter().any(|v| v.steal > 0),
            Self::Devices => !machine.devices.is_empty(),
            Self::Queues => machine.devices.iter().any(|d| d.queues > 1),
            Self::UsedRing => machine.devices.iter().any(|d| d.used_ring.is_some()),
            Self::SecondSpace => machine.slots.iter().any(|slot| slot.as_id > 0),
            Self::SecondSlot => machine.slots.len() > 1,
            Self::Get => has.step(|op| matches!(op, Op::GetDirtyLog(_))),
            Self::Clear => has.step(|op| matches!(op, Op::ClearDirtyLog(_))),
            Self::Reset => has.step(|op| matches!(op, Op::ResetRings(_))),
            Self::Harvest => has.step(|op| matches!(op, Op::Harvest(_))),
            Self::HarvestInHand => has.step(|op| {
                matches!(
                    op,
                    Op::Harvest(op::Harvest {
                        into: Where::Hand,
                        ..
                    })
                )
            }),
            Self::HarvestBeyond => has.step(|op| {
                matches!(op, Op::Harvest(op::Harvest { vcpu: Some(vcpu), .. }) if usize::from(*vcpu) >= machine.vcpus.len())
            }),
            Self::Collect => {
                has.step(|op| matches!(op, Op::GetDirtyLog(_) | Op::Harvest(_)))
            }
            Self::KernelWrite => has.step(|op| matches!(op, Op::KernelWrite(_))),
            Self::OtherWriter => has.step(|op| {
                matches!(op, Op::KernelWrite(op::KernelWrite { writer, .. }) if *writer != KernelWriter::ItsSave)
            }),
            Self::VmmWrite => has.step(|op| matches!(op, Op::UserWrite(_))),
            Self::LogOn => has.step(
                |op| matches!(op, Op::SetMemoryRegion(op::SetMemoryRegion { flags, .. }) if flags & MEM_LOG_DIRTY_PAGES != 0),
            ),
            Self::SlotComes => has.step(
                |op| matches!(op, Op::SetMemoryRegion(op::SetMemoryRegion { bytes: 1.., flags, .. }) if flags & MEM_LOG_DIRTY_PAGES != 0),
            ),
            Self::CopyAll => has.step(|op| matches!(op, Op::CopyAll | Op::TakeAll)),
            Self::Copies => has.step(|op| {
                matches!(op, Op::Copy | Op::CopyAll | Op::CopyList(_))
            }),
            Self::PublishSlot => has.step(|op| matches!(op, Op::PublishSlot(_))),
            Self::MarkQueues => has.step(|op| matches!(op, Op::MarkOwn(_))),
            Self::TakeAlways => has.step(|op| matches!(op, Op::TakeAlways)),
            Self::DropFree => {
                has.step(|op| matches!(op, Op::DropFree(_) | Op::EndFree(_)))
            }
            Self::DeviceSync => has.step(|op| matches!(op, Op::DeviceSync(_))),
            Self::OnError => has.step(|op| matches!(op, Op::OnError(_))),
            Self::Fails => {
                machine.send_failures > 0 || has.step(|op| matches!(op, Op::Cancel | Op::PutBack))
            }
        }
    }

    fn lacking(self) -> &'static str {
        match self {
            Self::Ring => "no ring (machine.ring)",
            Self::Bitmap => "a ring and no bitmap beside it (machine.ring_with_bitmap)",
            Self::ManualProtect => "no manual protect (machine.manual_protect)",
            Self::InitiallySet => "no INITIALLY_SET (machine.manual_protect = \"initially-set\")",
            Self::Huge => "no slot in huge pages (a slot's `huge`)",
            Self::Pml => "no PML (machine.pml)",
            Self::Stores => "no vCPU stores or loads (writers.vcpu)",
            Self::Record => "no kernel record (writers.kernel_record)",
            Self::Devices => "no device (writers.devices)",
            Self::Queues => "no device with several queues (a device's `queues`)",
            Self::UsedRing => "no device with a used ring (a device's `used_ring`)",
            Self::SecondSpace => "no slot in a second address space (a slot's `as_id`)",
            Self::SecondSlot => "one slot alone",
            Self::Get => "no `get-dirty-log`",
            Self::Clear => "no `clear-dirty-log`",
            Self::Reset => "no `reset-rings`",
            Self::Harvest => "no `harvest-rings`",
            Self::HarvestInHand => "no `harvest-rings` with into = \"hand\"",
            Self::HarvestBeyond => "no `harvest-rings` of a vCPU that does not exist",
            Self::Collect => "no `get-dirty-log` or `harvest-rings`",
            Self::KernelWrite => "no kernel writer without a vCPU",
            Self::OtherWriter => "no kernel writer but `its-save-tables`",
            Self::VmmWrite => "no `vmm-write`",
            Self::LogOn => "no step switches a log on",
            Self::SlotComes => "no step brings a slot that logs (`add-slot` with logging)",
            Self::CopyAll => "no `copy-all` or `take-all`",
            Self::Copies => "no copy",
            Self::PublishSlot => "no `publish` of one slot",
            Self::MarkQueues => "no `mark-queues`",
            Self::TakeAlways => "no `take-always-dirty`",
            Self::DropFree => "no `drop-free` or `end-free`",
            Self::DeviceSync => "no `device-log-sync`",
            Self::OnError => "no `try`",
            Self::Fails => {
                "nothing fails or is cancelled (writers.send_failures, `cancel`, `put-back`)"
            }
        }
    }
}
