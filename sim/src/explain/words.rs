//! Steps and operations in words for people. The names of steps are the model's; traces use them, stories explain them.

use dirtysim_model::machine::{
    CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, MEM_LOG_DIRTY_PAGES, Machine,
};
use dirtysim_model::op::{KernelWriter, Op};

use crate::scenario::Scenario;

/// What a step does, in words.
pub(super) struct Words {
    /// With `{page}` where the page's name belongs.
    pub(super) text: &'static str,
    /// Whether a line about a whole block passes over it, unless it comes last.
    pub(super) quiet: bool,
}

const fn loud(text: &'static str) -> Words {
    Words { text, quiet: false }
}

const fn quiet(text: &'static str) -> Words {
    Words { text, quiet: true }
}

/// The words for a step of that name; none for a name that is not a step's.
pub(super) fn of_step(name: &str) -> Option<Words> {
    vcpu_step(name)
        .or_else(|| log_ioctl_step(name))
        .or_else(|| ring_step(name))
        .or_else(|| other_thread_step(name))
        .or_else(|| device_step(name))
}

fn vcpu_step(name: &str) -> Option<Words> {
    Some(match name {
        "run" => quiet("calls KVM_RUN"),
        "check-soft-full" => loud("checks the soft-full request"),
        "no-kernel-record" => quiet("has no kernel record to update"),
        "enter-guest" => quiet("enters the guest"),
        "kernel-record-write" => loud("the kernel updates its record in {page}"),
        "leave-guest" => loud("leaves the guest"),
        "tlb-miss" => loud("finds its TLB entry for {page} gone"),
        "store" | "retry-store" => loud("stores to {page}"),
        "load" | "retry-load" => loud("loads from {page}"),
        "store-after-mark" => loud("stores to {page} after it was marked"),
        "fault-resolve" => quiet("looks up the memslot of {page}"),
        "fault-lock" => quiet("takes mmu_lock"),
        "fault-map" => loud("maps {page}"),
        "fault-fast-map" => loud("makes {page} writable by the lockless path"),
        "fault-unlock" => quiet("drops mmu_lock"),
        "fault-fails" => loud("gives the access to {page} up"),
        "set-bitmap-bit" => loud("sets the bit of {page} in the bitmap"),
        "push-slot" => quiet("writes the slot of {page} to its ring"),
        "push-offset" => quiet("writes the offset of {page} to its ring"),
        "push-flags" => loud("publishes {page} in its ring"),
        "push-index" => quiet("moves its ring's dirty index"),
        "push-request" => loud("raises the soft-full request"),
        "pml-flush-slot" => quiet("writes the slot of {page} from PML to its ring"),
        "pml-flush-offset" => quiet("writes the offset of {page} from PML to its ring"),
        "pml-flush-flags" => loud("publishes {page} from PML in its ring"),
        "pml-flush-index" => quiet("moves its ring's dirty index"),
        "pml-flush-request" => loud("raises the soft-full request"),
        "pml-flush-bit" => loud("sets the bit of {page} from PML in the bitmap"),
        "return-to-user" => loud("returns to user space"),
        _ => return None,
    })
}

fn log_ioctl_step(name: &str) -> Option<Words> {
    Some(match name {
        "get-enter" => quiet("takes slots_lock"),
        "get-kick" => quiet("kicks a vCPU for its PML buffer"),
        "get-mmu-lock" => quiet("takes mmu_lock"),
        "get-look" => quiet("looks at a word of the bitmap"),
        "get-exchange" => loud("takes a word of bits out of the bitmap"),
        "get-rearm" => loud("re-arms the pages of those bits"),
        "get-mmu-unlock" => quiet("drops mmu_lock"),
        "get-flush" => loud("flushes TLBs"),
        "get-copy-out" => quiet("copies a word of bits to user space"),
        "get-clear-all" => loud("clears the whole bitmap"),
        "get-collect-leaves" => quiet("looks for written pages in the leaves"),
        "get-return" => quiet("returns"),
        "clear-enter" => quiet("takes slots_lock"),
        "clear-kick" => quiet("kicks a vCPU for its PML buffer"),
        "clear-copy-in" => quiet("reads user space's bits"),
        "clear-mmu-lock" => quiet("takes mmu_lock"),
        "clear-take-bits" => loud("clears a word of bits in the bitmap"),
        "clear-rearm" => loud("re-arms the pages of those bits"),
        "clear-mmu-unlock" => quiet("drops mmu_lock"),
        "clear-flush" => loud("flushes TLBs"),
        "clear-return" => quiet("returns"),
        _ => return None,
    })
}

fn ring_step(name: &str) -> Option<Words> {
    Some(match name {
        "harvest-enter" => quiet("begins with the first ring"),
        "harvest-load-flags" => quiet("reads an entry's flags"),
        "harvest-read-slot" => quiet("reads an entry's slot"),
        "harvest-read-offset" => quiet("reads an entry's offset"),
        "harvest-take-page" => loud("takes the entry's page"),
        "harvest-store-flags" => quiet("gives the entry back as harvested"),
        "reset-enter" => quiet("takes slots_lock"),
        "reset-signal" => loud("leaves at once for a pending signal, its batch not re-armed"),
        "reset-load-flags" => quiet("looks for a harvested entry"),
        "reset-read-entry" => quiet("reads a harvested entry"),
        "reset-free-entry" => loud("frees an entry"),
        "reset-index" => quiet("moves the ring's reset index"),
        "reset-rearm" => loud("re-arms the pages of its batch"),
        "reset-clear-request" => loud("clears the vCPU's soft-full request"),
        "reset-unlock" => quiet("drops slots_lock"),
        "reset-flush" => loud("flushes TLBs"),
        "reset-return" => quiet("returns"),
        _ => return None,
    })
}

fn other_thread_step(name: &str) -> Option<Words> {
    if let Some((writer, step)) = kernel_write_step(name) {
        return Some(match (writer, step) {
            (_, "enter") => quiet("begins"),
            (_, "write") => loud("writes {page}"),
            (_, "mark") => loud("marks {page}"),
            _ => quiet("returns"),
        });
    }
    Some(match name {
        "slot-enter" => quiet("takes slots_lock"),
        "slot-publish" => loud("publishes the memslot"),
        "slot-grace-period" => quiet("waits for readers of the old memslots"),
        "slot-rearm" => loud("write-protects the memslot"),
        "slot-flush" => loud("flushes TLBs"),
        "slot-free-bitmap" => loud("frees the bitmap"),
        "slot-publish-invalid" => loud("publishes the memslot as invalid"),
        "slot-zap" => loud("drops the memslot's mappings"),
        "slot-replace" => loud("replaces the memslot"),
        "slot-return" => quiet("returns"),
        "enable-cap" => loud("enables a capability"),
        "create-vcpu" => loud("creates a vCPU"),
        "copy-begin-or-end" => quiet("looks for pages to copy"),
        "copy" => loud("copies {page}"),
        "copy-end" => quiet("has no page left to copy"),
        "send-fails" => loud("reads {page}, but its send fails"),
        "publish" => loud("publishes the pages that it collected"),
        "kick-vcpu" => loud("signals a vCPU"),
        "vcpus-kicked" => quiet("sees that the vCPUs have left once"),
        "vcpus-stopped" => loud("sees every vCPU stopped"),
        "resume" => loud("lets the vCPUs run"),
        "ring-full-seen" => loud("sees a vCPU's exit for a full ring"),
        "ack-ring-full" => loud("lets the vCPUs with full rings run again"),
        "vmm-write" => loud("stores to {page} itself"),
        "vmm-log" => loud("notes {page} in its own log"),
        "collect-own-log" => loud("collects its own log"),
        "start-device" => loud("starts a device"),
        "stop-device" => loud("stops a device"),
        "device-drained" => loud("sees a device drained"),
        "sync-device-log" => loud("collects a device's log"),
        "lock" => quiet("takes a lock"),
        "unlock" => quiet("drops a lock"),
        "forget-collected" => loud("forgets the pages that it collected"),
        "cancel" => loud("cancels the migration"),
        "new-destination" => loud("begins with a new, empty destination"),
        "host-ages-page" => loud("the host ages {page}"),
        "drop-free-pages" => loud("drops pages that the guest calls free"),
        "guest-frees-pages" => loud("hears of pages that the guest calls free"),
        "end-free-pages" => loud("has done with the pages called free"),
        "publish-slot" => loud("publishes one memslot's pages that it collected"),
        "mark-queues" => loud("marks its devices' queues in its own log"),
        "take-always-dirty" => loud("takes the pages that are always dirty"),
        "put-back" => loud("puts what it collected back into its own log"),
        "discard" => loud("drops what it collected"),
        "reset-own-log" => loud("empties its own log"),
        "take-all" => loud("takes all of memory as to be copied"),
        "sync" => loud("syncs its file"),
        "sync-fails" => loud("fails to sync its file"),
        "look-for-error" => quiet("looks for an error"),
        "repeat" => quiet("looks whether to go round again"),
        "thread-joined" => loud("sees the other thread at its end"),
        "vcpus-running" => quiet("sees a vCPU run"),
        "nothing" => quiet("does nothing"),
        "checkpoint" => loud("claims that the destination equals memory"),
        "switch-over" => loud("switches over"),
        "finish" => loud("claims that the destination equals memory, and ends"),
        _ => return None,
    })
}

/// The writer and the step of a kernel writer's step, by name.
fn kernel_write_step(name: &str) -> Option<(&str, &str)> {
    ["its-save", "pending-save", "its-restore", "kernel-write"]
        .into_iter()
        .find_map(|writer| {
            let step = name.strip_prefix(writer)?.strip_prefix('-')?;
            matches!(step, "enter" | "write" | "mark" | "return").then_some((writer, step))
        })
}

fn device_step(name: &str) -> Option<Words> {
    Some(match name {
        "submit" => loud("is given a transfer to {page}"),
        "dma-write" => loud("writes {page}"),
        "log-write" => loud("logs {page}"),
        _ => return None,
    })
}

/// A kernel writer by the name of its ioctl.
pub(super) fn of_writer(writer: KernelWriter) -> &'static str {
    match writer {
        KernelWriter::ItsSave => "KVM_DEV_ARM_ITS_SAVE_TABLES",
        KernelWriter::PendingSave => "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES",
        KernelWriter::ItsRestore => "KVM_DEV_ARM_ITS_RESTORE_TABLES",
        KernelWriter::Other => "a kernel writer",
    }
}

fn slot_name(machine: &Machine, number: u32) -> String {
    machine
        .slots
        .iter()
        .find(|slot| slot.number() == number)
        .map_or_else(|| format!("slot {number}"), |slot| slot.name.clone())
}

/// An operation of the VMM, in words.
pub(crate) fn of_op(scenario: &Scenario, op: &Op) -> String {
    let machine = &scenario.machine;
    match *op {
        Op::EnableCap { cap, .. } => match cap {
            CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL => "enables the dirty ring".into(),
            CAP_DIRTY_LOG_RING_WITH_BITMAP => "enables the ring's backup bitmap".into(),
            CAP_MANUAL_DIRTY_LOG_PROTECT2 => "sets manual protect".into(),
            other => format!("enables capability {other}"),
        },
        Op::CreateVcpu => "creates a vCPU".into(),
        Op::SetMemoryRegion {
            slot, flags, bytes, ..
        } => {
            let name = slot_name(machine, slot);
            if bytes == 0 {
                format!("deletes the memslot {name}")
            } else if flags & MEM_LOG_DIRTY_PAGES != 0 {
                format!("KVM_SET_USER_MEMORY_REGION, {name}, log on")
            } else {
                format!("KVM_SET_USER_MEMORY_REGION, {name}, log off")
            }
        }
        Op::GetDirtyLog { slot, .. } => format!("KVM_GET_DIRTY_LOG, {}", slot_name(machine, slot)),
        Op::ClearDirtyLog { slot, .. } => {
            format!("KVM_CLEAR_DIRTY_LOG, {}", slot_name(machine, slot))
        }
        Op::ResetRings { .. } => "KVM_RESET_DIRTY_RINGS".into(),
        Op::KernelWrite { writer, .. } => of_writer(writer).into(),
        Op::Harvest {
            vcpu: Some(vcpu), ..
        } => format!("harvests the ring of vcpu{vcpu}"),
        Op::Harvest { vcpu: None, .. } => "harvests the rings".into(),
        Op::Publish => "publishes what it collected".into(),
        Op::Copy => "copies".into(),
        Op::CopyAll => "copies all of memory".into(),
        Op::JoinThread(thread) => format!("waits for thread{thread}"),
        Op::CopyList { .. } => "copies a part".into(),
        Op::TakeAll => "takes all of memory as to be copied".into(),
        Op::ResetOwnLog => "empties its own log".into(),
        Op::EndFree { .. } => "has done with the pages that the guest calls free".into(),
        Op::PublishSlot { template } => match machine.slots.get(usize::from(template)) {
            Some(slot) => format!("publishes what it collected of {}", slot.name),
            None => "publishes what it collected of a slot".into(),
        },
        Op::MarkOwn { .. } => "marks pages in its own log".into(),
        Op::TakeAlways => "takes the pages that are always dirty".into(),
        Op::PutBack => "puts what it collected back into its own log".into(),
        Op::Discard => "drops what it collected".into(),
        Op::MayFail => "syncs its file".into(),
        Op::OnError { .. } => "looks whether that failed".into(),
        Op::Again { .. } => "goes on elsewhere in its program".into(),
        Op::WaitRunning => "waits until the guest runs".into(),
        Op::Forget => "forgets what it collected".into(),
        Op::Kick { stop: true } => "signals the vCPUs to stop".into(),
        Op::Kick { stop: false } => "signals the vCPUs".into(),
        Op::WaitKicked => "waits until they have left".into(),
        Op::WaitStopped => "waits until they have stopped".into(),
        Op::Resume => "lets the vCPUs run".into(),
        Op::WaitRingFull => "waits for a full ring".into(),
        Op::AckRingFull => "lets the vCPUs with full rings run again".into(),
        Op::UserWrite { frame, .. } => format!("stores to {} itself", scenario.frame_name(frame)),
        Op::CollectOwnLog => "collects its own log".into(),
        Op::DeviceStart(device) => format!("starts device{device}"),
        Op::DeviceStop(device) => format!("stops device{device}"),
        Op::DeviceDrain(device) => format!("waits for device{device}"),
        Op::DeviceSync(device) => format!("collects the log of device{device}"),
        Op::Lock(_) => "takes a lock".into(),
        Op::Unlock(_) => "drops a lock".into(),
        Op::Cancel => "cancels the migration".into(),
        Op::NewDestination => "begins with a new, empty destination".into(),
        Op::HostAge { frame } => format!("the host ages {}", scenario.frame_name(frame)),
        Op::DropFree { .. } => "drops pages that the guest calls free".into(),
        Op::Checkpoint => "CHECKPOINT: claims that the copy is whole".into(),
        Op::Finish { postcopy: false } => "END: claims that the copy is whole".into(),
        Op::Finish { postcopy: true } => "END: switches over".into(),
    }
}

/// `text` with the page's name in its place.
pub(super) fn with_page(text: &str, page: Option<&str>) -> String {
    text.replace("{page}", page.unwrap_or("a page"))
}
