//! The words of the language for steps, a row each: the word, what kind of step it is for, the keys that may stand beside
//! it, and what happens.
//!
//! What a word makes is in `steps`; the table of docs/scenarios.md is made of these rows.

/// A kind of step, for whoever looks for a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Calls,
    Vcpus,
    Copying,
    Writers,
    Threads,
    Ends,
}

/// Every kind, with its title.
const GROUPS: [(Group, &str); 6] = [
    (Group::Calls, "KVM's calls"),
    (Group::Vcpus, "vCPUs"),
    (Group::Copying, "collecting and copying"),
    (Group::Writers, "other writers"),
    (Group::Threads, "threads"),
    (Group::Ends, "ends"),
];

macro_rules! vocabulary {
    ($($variant:ident = $word:literal, $group:ident, [$($key:literal),*], $what:literal;)+) => {
        /// A word for a step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Word {
            $(#[doc = $what] $variant,)+
        }

        impl Word {
            /// Every word.
            pub(super) const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
        }

        /// What kind of step each word is for, in the same order.
        const GROUP_OF: &[Group] = &[$(Group::$group,)+];

        /// Every word, with its keys and with what happens.
        pub const VOCABULARY: &[(&str, &[&str], &str)] = &[$(($word, &[$($key),*], $what),)+];
    };
}

vocabulary! {
    EnableLogging = "enable-logging", Calls, ["slot"], "the slot's flag is set; every slot that is there";
    DisableLogging = "disable-logging", Calls, ["slot"], "the slot's flag is cleared, with all that its bitmap has";
    AddSlot = "add-slot", Calls, ["slot", "logging"], "KVM_SET_USER_MEMORY_REGION on the way: a slot comes";
    RemoveSlot = "remove-slot", Calls, ["slot"], "a slot goes";
    MoveSlot = "move-slot", Calls, ["slot"], "a slot moves to its next place";
    CopyAll = "copy-all", Copying, [], "every page is copied";
    Copy = "copy", Copying, ["pages"], "the pages to copy are copied one by one, in any order; an instant each";
    Harvest = "harvest-rings", Copying, ["vcpu", "max", "way", "into"], "`way`: `right`, or `skip-first`, `write-zero`, `unread`, `one-too-many`";
    Reset = "reset-rings", Calls, ["signal"], "KVM_RESET_DIRTY_RINGS; `signal = true`: one may become pending";
    Get = "get-dirty-log", Calls, ["into", "efault", "slot"], "KVM_GET_DIRTY_LOG of each logging slot in turn";
    Clear = "clear-dirty-log", Calls, ["mask", "efault", "first", "pages", "chunk", "slot"], "KVM_CLEAR_DIRTY_LOG; `mask`: `seen` (what GET showed and no CLEAR cleared), `all`, or pages";
    Publish = "publish", Copying, ["slot"], "what the thread has in hand is to be copied";
    Kick = "kick-vcpus", Vcpus, [], "each vCPU leaves KVM_RUN once";
    Pause = "pause-vcpus", Vcpus, [], "each vCPU leaves and stays out";
    Signal = "signal-vcpus", Vcpus, ["stop"], "the first half of one of these";
    WaitStopped = "wait-vcpus-stopped", Vcpus, [], "the second half of a pause";
    Resume = "resume-vcpus", Vcpus, [], "the vCPUs may run";
    WaitRingFull = "wait-ring-full", Vcpus, [], "until a vCPU has left with exit 31";
    AckRingFull = "ack-ring-full", Vcpus, [], "the vCPUs that left with exit 31 may run again";
    ItsSave = "its-save-tables", Writers, ["pages", "fails_after"], "KVM_DEV_ARM_ITS_SAVE_TABLES, a kernel writer without a vCPU: the data first, then the mark";
    PendingSave = "save-pending-tables", Writers, ["pages", "fails_after"], "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, likewise";
    ItsRestore = "its-restore-tables", Writers, ["pages", "fails_after"], "KVM_DEV_ARM_ITS_RESTORE_TABLES, likewise";
    KernelWrite = "kernel-write", Writers, ["pages", "fails_after"], "another kernel writer, one that holds no mutex of a vCPU";
    VmmWrite = "vmm-write", Writers, ["page", "log"], "the VMM stores, and marks its own log";
    VmmLogSync = "vmm-log-sync", Writers, [], "the VMM's own log is taken";
    VmmLogReset = "vmm-log-reset", Writers, [], "the VMM's own log is emptied";
    DeviceStart = "start-device", Writers, ["device"], "a device may begin transfers";
    DeviceStop = "stop-devices", Writers, ["device"], "it begins no new one";
    DeviceDrain = "drain-devices", Writers, ["device"], "it stops, and what is in flight has landed and is logged";
    DeviceSync = "device-log-sync", Writers, ["device", "into"], "a device's log is taken";
    JoinThread = "join-thread", Threads, ["thread"], "until that thread is at its end; 0 is the one of `steps`";
    SignalName = "signal", Threads, ["name"], "threads signal each other by name; a signal that nobody has waited for yet, and another, are one; short: `{ signal = \"asked\" }`";
    WaitName = "wait", Threads, ["name"], "until that name is signalled; takes the signal away; short: `{ wait = \"asked\" }`";
    Forget = "forget-collected", Copying, [], "what was collected and not copied is forgotten";
    HostAge = "host-age", Writers, ["page"], "the host ages a page: where leaves have an accessed bit, nothing else changes; on riscv and s390, and on x86 without `accessed_bits`, its mapping goes, without a flush";
    HostUnmap = "host-unmap", Writers, ["page"], "the host takes a page's memory away, with a flush: it is swapped out, merged or moved";
    PreFault = "pre-fault", Calls, ["vcpu", "pages"], "KVM_PRE_FAULT_MEMORY on a vCPU outside KVM_RUN (x86, two-dimensional): each absent page is mapped and recorded, with no look at the soft-full request between them";
    DropFree = "drop-free", Copying, ["pages"], "the guest calls pages free, and they need not be copied";
    Cancel = "cancel", Ends, [], "what was sent counts for nothing, and is to be copied again";
    NewDestination = "new-destination", Ends, [], "everything differs again";
    Checkpoint = "checkpoint", Ends, [], "the copy must be whole here; the guest may go on";
    TakeAll = "take-all", Copying, [], "every page is to be copied, later";
    TakeAlways = "take-always-dirty", Copying, [], "the pages that are always dirty are to be copied";
    MarkQueues = "mark-queues", Writers, ["pages"], "pages are marked in the VMM's own log without a store";
    EndFree = "end-free", Copying, ["pages"], "the pages that the guest called free are done with";
    PutBack = "put-back", Copying, [], "what was sent counts for nothing; what was collected goes to the VMM's log";
    Discard = "discard", Copying, [], "what was sent counts for nothing; what was collected is dropped";
    SyncFile = "sync-file", Threads, [], "fails if a failure is left";
    WaitRunning = "wait-guest-runs", Vcpus, [], "until some vCPU is in KVM_RUN";
    End = "end", Threads, [], "the thread's program ends here";
    Region = "set-user-memory-region", Calls, ["slot", "flags", "guest_phys_addr", "memory_size", "userspace_addr"], "KVM_SET_USER_MEMORY_REGION with these numbers, as a VMM's own code passed them";
    Send = "send", Copying, ["page"], "a page is read and sent, whether or not it is to be copied";
    TakeLock = "take-lock", Threads, ["name"], "a lock of the VMM is taken, as around steps";
    DropLock = "drop-lock", Threads, ["name"], "and given back";
    Yield = "yield", Threads, [], "nothing, but others may act";
    Panic = "panic", Threads, [], "the VMM's own code panics: `nothing_crashes` is broken";
    Leave = "leave", Threads, [], "all is over, and nothing is claimed";
    Finish = "finish", Ends, [], "the end: the copy must be whole";
    SwitchOver = "switch-over", Ends, [], "the end: what is not copied must be known (post-copy)";
}

impl Word {
    /// How the language writes it.
    pub(super) fn text(self) -> &'static str {
        VOCABULARY[self as usize].0
    }
}

/// Every word by its kind, a line each.
pub(super) fn by_kind() -> String {
    let lines = GROUPS.iter().map(|(group, title)| {
        let words = Word::ALL.iter().zip(GROUP_OF);
        let words: Vec<&str> = words
            .filter(|(_, of)| *of == group)
            .map(|((word, _), _)| *word)
            .collect();
        format!("{title}: {}", words.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
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
