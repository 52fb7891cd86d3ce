//! The words of the language for steps, a row each: the word, the keys that may stand beside it, and what happens.
//!
//! What a word makes is in `steps`; the table of docs/scenarios.md is made of these rows.

macro_rules! vocabulary {
    ($($variant:ident = $word:literal, [$($key:literal),*], $what:literal;)+) => {
        /// A word for a step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Word {
            $(#[doc = $what] $variant,)+
        }

        impl Word {
            /// Every word.
            pub(super) const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
        }

        /// Every word, with its keys and with what happens.
        pub const VOCABULARY: &[(&str, &[&str], &str)] = &[$(($word, &[$($key),*], $what),)+];
    };
}

vocabulary! {
    EnableLogging = "enable-logging", ["slot"], "the slot's flag is set; every slot that is there";
    DisableLogging = "disable-logging", ["slot"], "the slot's flag is cleared, with all that its bitmap has";
    AddSlot = "add-slot", ["slot", "logging"], "KVM_SET_USER_MEMORY_REGION on the way: a slot comes";
    RemoveSlot = "remove-slot", ["slot"], "a slot goes";
    MoveSlot = "move-slot", ["slot"], "a slot moves to its next place";
    CopyAll = "copy-all", [], "every page is copied";
    Copy = "copy", ["pages"], "the pages to copy are copied one by one, in any order; an instant each";
    Harvest = "harvest-rings", ["vcpu", "max", "way", "into"], "`way`: `right`, or `skip-first`, `write-zero`, `unread`, `one-too-many`";
    Reset = "reset-rings", ["signal"], "KVM_RESET_DIRTY_RINGS; `signal = true`: one may become pending";
    Get = "get-dirty-log", ["into", "efault", "slot"], "KVM_GET_DIRTY_LOG of each logging slot in turn";
    Clear = "clear-dirty-log", ["mask", "efault", "first", "pages", "chunk", "slot"], "KVM_CLEAR_DIRTY_LOG; `mask`: `seen` (what GET showed and no CLEAR cleared), `all`, or pages";
    Publish = "publish", ["slot"], "what the thread has in hand is to be copied";
    Kick = "kick-vcpus", [], "each vCPU leaves KVM_RUN once";
    Pause = "pause-vcpus", [], "each vCPU leaves and stays out";
    Signal = "signal-vcpus", ["stop"], "the first half of one of these";
    WaitStopped = "wait-vcpus-stopped", [], "the second half of a pause";
    Resume = "resume-vcpus", [], "the vCPUs may run";
    WaitRingFull = "wait-ring-full", [], "until a vCPU has left with exit 31";
    AckRingFull = "ack-ring-full", [], "the vCPUs that left with exit 31 may run again";
    ItsSave = "its-save-tables", ["pages", "fails_after"], "KVM_DEV_ARM_ITS_SAVE_TABLES, a kernel writer without a vCPU: the data first, then the mark";
    PendingSave = "save-pending-tables", ["pages", "fails_after"], "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, likewise";
    ItsRestore = "its-restore-tables", ["pages", "fails_after"], "KVM_DEV_ARM_ITS_RESTORE_TABLES, likewise";
    KernelWrite = "kernel-write", ["pages", "fails_after"], "another kernel writer, one that holds no mutex of a vCPU";
    VmmWrite = "vmm-write", ["page", "log"], "the VMM stores, and marks its own log";
    VmmLogSync = "vmm-log-sync", [], "the VMM's own log is taken";
    VmmLogReset = "vmm-log-reset", [], "the VMM's own log is emptied";
    DeviceStart = "start-device", ["device"], "a device may begin transfers";
    DeviceStop = "stop-devices", ["device"], "it begins no new one";
    DeviceDrain = "drain-devices", ["device"], "it stops, and what is in flight has landed and is logged";
    DeviceSync = "device-log-sync", ["device", "into"], "a device's log is taken";
    JoinThread = "join-thread", ["thread"], "until that thread is at its end; 0 is the one of `steps`";
    SignalName = "signal", ["name"], "threads signal each other by name; a signal that nobody has waited for yet, and another, are one; short: `{ signal = \"asked\" }`";
    WaitName = "wait", ["name"], "until that name is signalled; takes the signal away; short: `{ wait = \"asked\" }`";
    Forget = "forget-collected", [], "what was collected and not copied is forgotten";
    HostAge = "host-age", ["page"], "the host ages a page: where leaves have an accessed bit, nothing else changes; on riscv and s390, and on x86 without `accessed_bits`, its mapping goes, without a flush";
    HostUnmap = "host-unmap", ["page"], "the host takes a page's memory away, with a flush: it is swapped out, merged or moved";
    PreFault = "pre-fault", ["vcpu", "pages"], "KVM_PRE_FAULT_MEMORY on a vCPU outside KVM_RUN (x86, two-dimensional): each absent page is mapped and recorded, with no look at the soft-full request between them";
    DropFree = "drop-free", ["pages"], "the guest calls pages free, and they need not be copied";
    Cancel = "cancel", [], "what was sent counts for nothing, and is to be copied again";
    NewDestination = "new-destination", [], "everything differs again";
    Checkpoint = "checkpoint", [], "the copy must be whole here; the guest may go on";
    TakeAll = "take-all", [], "every page is to be copied, later";
    TakeAlways = "take-always-dirty", [], "the pages that are always dirty are to be copied";
    MarkQueues = "mark-queues", ["pages"], "pages are marked in the VMM's own log without a store";
    EndFree = "end-free", ["pages"], "the pages that the guest called free are done with";
    PutBack = "put-back", [], "what was sent counts for nothing; what was collected goes to the VMM's log";
    Discard = "discard", [], "what was sent counts for nothing; what was collected is dropped";
    SyncFile = "sync-file", [], "fails if a failure is left";
    WaitRunning = "wait-guest-runs", [], "until some vCPU is in KVM_RUN";
    End = "end", [], "the thread's program ends here";
    Region = "set-user-memory-region", ["slot", "flags", "guest_phys_addr", "memory_size", "userspace_addr"], "KVM_SET_USER_MEMORY_REGION with these numbers, as a VMM's own code passed them";
    Send = "send", ["page"], "a page is read and sent, whether or not it is to be copied";
    TakeLock = "take-lock", ["name"], "a lock of the VMM is taken, as around steps";
    DropLock = "drop-lock", ["name"], "and given back";
    Yield = "yield", [], "nothing, but others may act";
    Panic = "panic", [], "the VMM's own code panics: `nothing_crashes` is broken";
    Leave = "leave", [], "all is over, and nothing is claimed";
    Finish = "finish", [], "the end: the copy must be whole";
    SwitchOver = "switch-over", [], "the end: what is not copied must be known (post-copy)";
}

impl Word {
    /// How the language writes it.
    pub(super) fn text(self) -> &'static str {
        VOCABULARY[self as usize].0
    }
}

/// The rows as a table in Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = String::from("| word | and | what happens |\n|---|---|---|\n");
    for (word, keys, what) in VOCABULARY {
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        table.push_str(&format!("| `{word}` | {} | {what} |\n", keys.join(", ")));
    }
    table
}
