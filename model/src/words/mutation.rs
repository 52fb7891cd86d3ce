//! Mutations: named, switchable wrong behaviours. All are off by default; with all of them off the model is what the
//! kernel, the VMM and the devices should do.

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// A wrong behaviour that can be switched on.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Mutation {
            /// Every mutation, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in scenarios and traces: what is switched, and to what.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the switch does, in a sentence.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+),)+ }
            }
        }
    };
}

mutations! {
    /// GET write-protects the slot's dirty pages before it takes the bits, so that a fault in between is logged to the bits that it is about to take.
    GetProtectBeforeSwap = "kernel.get_log.protect_before_swap";
    /// GET does not flush TLBs.
    GetNoFlush = "kernel.get_log.flush=none";
    /// CLEAR rounds its range down to whole words: the tail of an unaligned slot is never cleared.
    ClearRoundFloor = "kernel.clear.round=floor";
    /// CLEAR takes the user's mask from the start of the slot and not from first_page.
    ClearSrcRangeSlot = "kernel.clear.src_range=slot";
    /// CLEAR re-arms nothing.
    ClearNoRearm = "kernel.clear.rearm=none";
    /// The index of a bitmap bit is computed in one bit too few: the upper half of a slot wraps onto the lower.
    BitmapIndexNarrow = "kernel.bitmap.index_width=narrow";
    /// A store through a huge mapping is logged for the first page of the mapping only.
    HugeMarkFirstOnly = "kernel.huge.mark=first_only";
    /// Looking for the dirty state of a page inside a huge mapping reads garbage and finds it clean.
    HugeQueryGarbage = "kernel.huge.query=garbage";
    /// A page is marked dirty although its fault then fails and nothing is stored.
    FaultMarkBeforeSuccess = "kernel.fault.mark_before_success";
    /// The fault path drops mmu_lock between the mark and the mapping.
    FaultUnlockBetween = "kernel.fault.unlock_between";
    /// The fault path never marks.
    FaultNoMark = "kernel.fault.mark=none";
    /// INITIALLY_SET fills whole words of a new bitmap, past the slot's last page.
    InitiallySetWholeWords = "kernel.bitmap.initially_set=whole_words";
    /// What the kernel writes in the context of a vCPU (a record in guest memory: a hypercall page, a steal-time area) is never marked.
    KernelRecordNoLog = "writer.kernel_record.log=none";
    /// What the kernel writes without a vCPU is never marked.
    KernelWriterNoLog = "writer.kernel.log=none";
    /// The VMM's own stores are never marked in its own log.
    VmmWriteNoLog = "writer.vmm.log=none";
    /// With a ring, a mark without a vCPU is dropped.
    NonVcpuDrop = "kernel.nonvcpu.with_ring=drop";
    /// With a ring, a mark without a vCPU oopses.
    NonVcpuCrash = "kernel.nonvcpu.with_ring=crash";
    /// With a ring, a mark without a vCPU goes to the ring of vCPU 0.
    NonVcpuVcpu0 = "kernel.nonvcpu.with_ring=vcpu0";
    /// Only the ITS table save may mark without a vCPU; every other such writer is dropped.
    NonVcpuAllowItsSave = "kernel.nonvcpu.allowlist={its_save}";
    /// Kernel writers mark the page before they change it.
    WriterMarkFirst = "kernel.writer.order=mark_first";
    /// Enabling the log does not flush TLBs when no leaf was changed.
    EnableFlushIfModified = "kernel.enable_log.flush=if_modified";
    /// Enabling the log write-protects nothing.
    EnableNoProtect = "kernel.enable_log.protect=none";
    /// The memslot is write-protected before the logging slot is published.
    EnableProtectBeforePublish = "kernel.enable_log.protect_before_publish";
    /// RESET reads what page an entry names before it looks at the entry's flags, so that it may use what was there before.
    ResetOrderRelaxed = "kernel.reset.order=relaxed";
    /// A pushed entry's flag may be seen before its slot and offset.
    PushOrderRelaxed = "kernel.push.order=relaxed";
    /// RESET counts in a few bits; when the count wraps to 0, TLBs are not flushed.
    ResetCountNarrow = "kernel.reset.count_width=n";
    /// RESET does not flush TLBs.
    ResetNoFlush = "kernel.reset.flush=none";
    /// RESET re-arms only the first page of a batch.
    ResetBatchFirstOnly = "kernel.reset.batch=first_only";
    /// RESET clears the soft-full request of a vCPU whose ring it emptied.
    ResetClearsRequest = "kernel.reset.clears_request";
    /// The ring is taken for soft-full one entry too late, at every reserve.
    RingSoftFullLate = "kernel.ring.soft_full=late";
    /// The soft-full request is never raised.
    RingNoRequest = "kernel.ring.request=none";
    /// A kicked vCPU leaves without flushing its PML buffer.
    PmlNoFlush = "vcpu.pml.flush=none";
    /// Switching the log on asks every vCPU to turn PML on and does not wait for it.
    EnablePmlNotWaited = "kernel.enable_log.pml=not_waited";
    /// Under nested virtualisation the PML buffer logs the inner guest's addresses.
    NestedPmlL2 = "vcpu.nested.pml_space=l2";
    /// The record of a vCPU in guest memory is marked at each update although nothing was mapped and nothing written.
    NestedMarkUnmapped = "kernel.nested.mark_unmapped";
    /// A vCPU's store is split: the page is marked, the bytes change later, with no fault in between.
    VcpuWriteSplit = "vcpu.write.split=mark_then_store";
    /// Bits set between GET's copy-out and its clearing are erased (a bitmap cleared as a whole after the copy).
    GetClearAfterCopy = "kernel.get_log.clear_after_copy";
    /// GET passes over the last, partial word of a slot.
    GetTailNotCleared = "kernel.get_log.tail=skipped";
    /// Only the first address space is synchronised.
    SyncFirstAddressSpace = "vmm.sync.address_spaces=first";
    /// The VMM forgets a slot's offset in its own bitmap.
    SyncBlockOffset0 = "vmm.sync.block_offset=0";
    /// When the VMM moves one block's bits on, it clears whole words of its bitmap, and with them bits of the block beside it.
    SyncWordSharedBlocks = "vmm.sync.word_shared_blocks";
    /// The VMM overwrites its pending set with what it collects, in place of adding to it.
    SyncOverwrite = "vmm.sync.merge=overwrite";
    /// CLEAR is given bits that GET never showed.
    ClearMaskSeenFalse = "vmm.clear.mask_seen=false";
    /// A CLEAR that does not start at the slot's first page is given the bits of the range before it.
    ClearStartLast = "vmm.clear.start=last";
    /// A slot that is deleted and made again with logging on has no bitmap, and a CLEAR of it crashes the VMM.
    SlotRecreateDropBitmap = "vmm.slot_recreate.drop_bitmap";
    /// The VMM enables manual protect with INITIALLY_SET beside a ring, where nothing ever clears the bits.
    RingManualProtect = "vmm.ring.manual_protect=on";
    /// The VMM maps half of a ring.
    RingMapShort = "vmm.ring.map_len=short";
    /// The harvester reads an entry's page before its flag.
    HarvestLoadRelaxed = "vmm.harvest.load=relaxed";
    /// The harvester gives an entry back before it has read its page.
    HarvestStoreRelaxed = "vmm.harvest.store=relaxed";
    /// A vCPU that does not exist yet is reaped.
    ReapUncreatedVcpu = "vmm.reap.uncreated_vcpu=touch";
    /// Harvested pages are published before their rings were reset.
    ReapPublishBeforeReset = "vmm.reap.publish_before_reset";
    /// Pages that the guest called free are taken out of the pending set late, after a sync that collected their new use.
    HintClearAfterLastSync = "vmm.hint.clear_after_last_sync";
    /// A start of logging while a stop is still postponed finds the log on, and crashes the VMM.
    LogStopPostponed = "vmm.log_stop.postponed=unpaired";
    /// Nothing that the VMM should do on an error is done: the log stays on and the VM paused.
    FailStopLogFalse = "vmm.fail.stop_log=false";
    /// A collected page whose send fails, or whose migration is cancelled, is dropped.
    HarvestOnErrorDrop = "vmm.harvest.on_error=drop";
    /// Pages that must always count as dirty are left out.
    AlwaysDirtyIgnored = "vmm.always_dirty_pages=ignored";
    /// The VMM reports whole words where one page was written.
    Granularity64 = "vmm.granularity=64";
    /// A full copy takes only the pages that are resident.
    SourceResident = "vmm.source=resident";
    /// The cursor of a snapshot file is not moved past the clean tail of a slot: the slots behind it land at the wrong place.
    WriterTailSkipFalse = "vmm.writer.tail_skip=false";
    /// Device queues, which no log sees, are not marked again after a snapshot.
    QueuesRemarkFalse = "vmm.queues.remark=false";
    /// VFIO's log is read before tracking was started.
    DeviceSyncBeforeStart = "device.sync_before_start=error";
    /// A device logs its transfers by I/O virtual address where guest physical ones are wanted.
    DeviceLogSpaceIova = "device.log.space=iova";
    /// A device's log has the wrong base: what it logs lands one word further on.
    DeviceLogBaseWrong = "device.log.base=wrong";
    /// Only the first queue of a device logs.
    DeviceLogQueue0 = "device.log.queue=0_only";
    /// The used ring is logged by its raw I/O virtual address.
    DeviceLogUsedRingIova = "device.log.used_ring=raw_iova";
    /// The offset of a device's bitmap in its first page is ignored: what is beyond the first word is reported one word further on.
    DeviceBitmapFirstPage = "device.bitmap.first_page_offset=ignored";
    /// A huge mapping of a device that crosses the window (a word) of its bitmap is reported only inside the window.
    DeviceBitmapWindowClip = "device.bitmap.window_clip";
    /// A device's completion is marked when it is submitted.
    DeviceAsyncAtSubmit = "device.async.mark=at_submit";
    /// A device's completion is never marked.
    DeviceAsyncNever = "device.async.mark=never";
}

/// A set of mutations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mutations(u128);

impl Mutations {
    /// The mutation of that name, if there is one.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Mutation> {
        Mutation::ALL
            .iter()
            .copied()
            .find(|mutation| mutation.name() == name)
    }

    /// Switches `mutation` on.
    pub fn switch_on(&mut self, mutation: Mutation) {
        self.0 |= 1 << mutation as u8;
    }

    /// Whether `mutation` is on.
    #[must_use]
    #[inline(always)]
    pub fn has(self, mutation: Mutation) -> bool {
        self.0 >> mutation as u8 & 1 != 0
    }

    /// Whether all are off.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The mutations that are on, in the order of their list.
    pub fn iter(self) -> impl Iterator<Item = Mutation> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let next = Mutation::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(*next)
        })
    }
}
