//! What is known of wrong steps all the same, so that a search may leave as much out with them as it can without: what they write beyond
//! their operation's rows, which rules they take the ground from, and whether pages and vCPUs are still alike to them.
//!
//! Each rule is argued for one actor's right step against whatever others do before it. A wrong step of a thread is never taken alone; a wrong
//! vCPU's is, where the argument does not ask what the step does, or what is wrong is that less is done. So a wrong behaviour withdraws a rule
//! only where its steps do to the right one's what no right step would. They fall into few kinds:
//! - What a VMM does with pages that it was told of, whether TLBs are flushed, what a CLEAR is given, what a device logs: no rule's step reads
//!   or writes any of it but the pages to copy, and a step that does is taken alone only where no other thread writes them.
//! - Which pages a thread re-arms: it writes the leaves and the TLBs that the right one may write, under the same lock; no rule's step reads a
//!   leaf or a TLB but those in mmu_lock, and these are argued by the lock alone.
//! - A record that is not the one that is owed (`RECORDS`): it would account for a page that nobody accounted for.
//! - A ring that is read, written or filled out of turn (`RINGS`).
//! - Another order of the fault path (`FAULTS`).
//!
//! Nothing here has a default.

use crate::machine::Machine;
use crate::words::{Fields, Mutation, Rule};

/// What is not so any more with a wrong behaviour.
struct Withdrawn {
    /// These rules.
    rules: &'static [Rule],
    /// What its steps write beyond the rows of their operations, or of the vCPUs'.
    writes: Fields,
    /// It tells pages apart that are alike otherwise.
    orders_pages: bool,
    /// It tells vCPUs apart.
    orders_vcpus: bool,
}

/// A record hides nothing because its page is owed before and after.
const RECORDS: &[Rule] = &[Rule::PushFlags, Rule::MarkBit];

/// Rings go by the contract, and do not overflow.
const RINGS: &[Rule] = &[
    Rule::PushPayload,
    Rule::PushIndex,
    Rule::PushFlags,
    Rule::PushRequest,
    Rule::MarkBit,
    Rule::CheckSoftFull,
    Rule::HarvestEnter,
    Rule::HarvestEntry,
    Rule::ResetEntry,
    Rule::ResetIndex,
    Rule::GetWord,
];

/// The fault path marks and maps in its own order, under mmu_lock.
const FAULTS: &[Rule] = &[
    Rule::PushPayload,
    Rule::PushIndex,
    Rule::PushFlags,
    Rule::PushRequest,
    Rule::MarkBit,
    Rule::FaultResolve,
    Rule::FaultLock,
    Rule::FaultInLock,
    Rule::FaultUnlock,
    Rule::HarvestEnter,
    Rule::HarvestEntry,
    Rule::ResetEntry,
    Rule::ResetIndex,
    Rule::GetWord,
];

/// Whatever user space keeps for itself, and the end of everything: no rule for vCPUs asks for it.
const KEPT: Fields = Fields::PENDING
    .and(Fields::HAND)
    .and(Fields::OWN_LOG)
    .and(Fields::SEEN)
    .and(Fields::STALE)
    .and(Fields::ENDED);

const fn only(rules: &'static [Rule]) -> Withdrawn {
    Withdrawn {
        rules,
        writes: KEPT,
        orders_pages: false,
        orders_vcpus: false,
    }
}

impl Withdrawn {
    const fn orders_pages(mut self) -> Self {
        self.orders_pages = true;
        self
    }

    const fn writes(mut self, fields: Fields) -> Self {
        self.writes = self.writes.and(fields);
        self
    }
}

const fn withdrawn(mutation: Mutation) -> Withdrawn {
    match mutation {
        // What user space makes of what it was told.
        Mutation::Granularity64
        | Mutation::SyncOverwrite
        | Mutation::SyncFirstAddressSpace
        | Mutation::ClearMaskSeenFalse
        | Mutation::ReapPublishBeforeReset
        | Mutation::ReapUncreatedVcpu
        | Mutation::SourceResident
        | Mutation::HarvestOnErrorDrop
        | Mutation::AlwaysDirtyIgnored
        | Mutation::HintClearAfterLastSync
        | Mutation::QueuesRemarkFalse
        | Mutation::VmmWriteNoLog
        | Mutation::LogStopPostponed
        | Mutation::DeviceSyncBeforeStart => only(&[]),
        // The same, by where a page lies.
        Mutation::SyncBlockOffset0
        | Mutation::SyncWordSharedBlocks
        | Mutation::WriterTailSkipFalse
        | Mutation::ClearSrcRangeSlot
        | Mutation::ClearStartLast => only(&[]).orders_pages(),
        // It jumps past the stop that a program would come to.
        Mutation::FailStopLogFalse => only(&[Rule::Run, Rule::ReturnToUser]),
        // Which pages are re-armed, when, and whether TLBs are flushed: under the locks, and in the operation, of the right one. What a
        // RESET's return claims of TLBs is argued for a kernel in which only RESET leaves one behind.
        Mutation::ClearNoRearm | Mutation::ClearRoundFloor | Mutation::GetTailNotCleared => {
            only(&[])
        }
        Mutation::GetProtectBeforeSwap
        | Mutation::GetNoFlush
        | Mutation::GetClearAfterCopy
        | Mutation::ResetNoFlush
        | Mutation::ResetCountNarrow
        | Mutation::EnableFlushIfModified
        | Mutation::EnableNoProtect
        | Mutation::EnableProtectBeforePublish => only(&[Rule::ResetEntry, Rule::GetWord]),
        Mutation::ResetBatchFirstOnly => only(&[Rule::ResetEntry, Rule::GetWord]).orders_pages(),
        // What a memslot's bitmap is.
        Mutation::InitiallySetWholeWords | Mutation::SlotRecreateDropBitmap => {
            only(&[Rule::MarkBit, Rule::GetWord]).writes(Fields::BITMAP)
        }
        Mutation::RingManualProtect => only(&[Rule::GetWord]).writes(Fields::CAPS),
        // Marks that are never made.
        Mutation::KernelWriterNoLog
        | Mutation::NonVcpuAllowItsSave
        | Mutation::NonVcpuCrash
        | Mutation::NonVcpuDrop
        | Mutation::WriterMarkFirst
        | Mutation::FaultNoMark
        | Mutation::KernelRecordNoLog => only(&[]),
        // Marks that are others than they should be.
        Mutation::BitmapIndexNarrow => only(&[Rule::PushFlags, Rule::MarkBit, Rule::GetWord])
            .writes(Fields::BITMAP)
            .orders_pages(),
        Mutation::HugeMarkFirstOnly => only(RECORDS).orders_pages(),
        Mutation::NestedMarkUnmapped | Mutation::PmlNoFlush => only(RINGS),
        Mutation::NestedPmlL2 => only(RINGS).orders_pages(),
        Mutation::NonVcpuVcpu0 => Withdrawn {
            orders_vcpus: true,
            ..only(RINGS).writes(Fields::RING).orders_pages()
        },
        // What a device logs, and what is read of its log.
        Mutation::DeviceAsyncAtSubmit | Mutation::DeviceAsyncNever => only(&[]),
        Mutation::DeviceLogBaseWrong
        | Mutation::DeviceLogQueue0
        | Mutation::DeviceLogSpaceIova
        | Mutation::DeviceLogUsedRingIova
        | Mutation::DeviceBitmapFirstPage
        | Mutation::DeviceBitmapWindowClip => only(&[]).orders_pages(),
        // Rings out of turn. An entry that nobody has filled names the first page of the first memslot.
        Mutation::ResetClearsRequest => only(RINGS).writes(Fields::REQUEST).orders_pages(),
        Mutation::ResetOrderRelaxed
        | Mutation::HarvestLoadRelaxed
        | Mutation::HarvestStoreRelaxed
        | Mutation::RingMapShort
        | Mutation::PushOrderRelaxed
        | Mutation::RingSoftFullLate
        | Mutation::RingNoRequest => only(RINGS).writes(Fields::RING).orders_pages(),
        // The fault path in another order.
        Mutation::VcpuWriteSplit
        | Mutation::FaultUnlockBetween
        | Mutation::FaultMarkBeforeSuccess => only(FAULTS),
        // Not argued.
        Mutation::EnablePmlNotWaited | Mutation::HugeQueryGarbage => Withdrawn {
            orders_vcpus: true,
            ..only(Rule::ALL).writes(Fields::ALL).orders_pages()
        },
    }
}

/// Whether a rule is argued with the machine's wrong behaviours, for steps that are right.
#[must_use]
pub fn leaves_rule(machine: &Machine, rule: Rule) -> bool {
    let mut on = machine.mutations.iter();
    on.all(|mutation| !withdrawn(mutation).rules.contains(&rule))
}

/// Whether pages that are alike to a right machine are alike to this one.
#[must_use]
pub fn leaves_pages_alike(machine: &Machine) -> bool {
    let mut on = machine.mutations.iter();
    on.all(|mutation| !withdrawn(mutation).orders_pages)
}

/// Whether vCPUs are.
#[must_use]
pub fn leaves_vcpus_alike(machine: &Machine) -> bool {
    let mut on = machine.mutations.iter();
    on.all(|mutation| !withdrawn(mutation).orders_vcpus)
}

/// What wrong steps write beyond the rows of the operations that they are of.
#[must_use]
pub fn writes_besides(machine: &Machine) -> Fields {
    let on = machine.mutations.iter();
    on.fold(Fields::NONE, |all, mutation| {
        all | withdrawn(mutation).writes
    })
}
