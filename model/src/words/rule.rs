//! The names of the steps that a search may take alone; when each may, and why, is argued in `reduce::independence`.

macro_rules! rules {
    ($($variant:ident, $name:literal, reads $reads:literal, writes $writes:literal, $why:literal;)+) => {
        /// A kind of step that needs no interleaving.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Rule {
            $(#[doc = $why] $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the command line and in tests.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What such a step reads that is not its actor's own.
            #[must_use]
            pub const fn reads(self) -> &'static str {
                match self { $(Self::$variant => $reads,)+ }
            }

            /// What such a step writes.
            #[must_use]
            pub const fn writes(self) -> &'static str {
                match self { $(Self::$variant => $writes,)+ }
            }

            /// Why it is sound, and when it applies.
            #[must_use]
            pub const fn why(self) -> &'static str {
                match self { $(Self::$variant => $why,)+ }
            }
        }
    };
}

rules! {
    PushPayload, "push-payload", reads "the flags of the free entry", writes "slot number and offset of the entry at dirty_index",
        "Nobody reads the payload of an entry whose flags are 0: harvest looks for F_DIRTY first, RESET for F_RESET.";
    PushIndex, "push-index", reads "reset_index", writes "dirty_index",
        "Harvest goes by flags and never reads the index. RESET only lowers the number of entries in use, so below the soft limit the comparison is settled; at or above it the rule waits until no RESET can come. It ends what the fault owes, which hides nothing.";
    PushFlags, "push-flags", reads "nothing", writes "the flags of the entry at dirty_index",
        "No harvest can come before it, and RESET looks for F_RESET only. The page is owed before and after, so that its new record hides nothing.";
    MarkBit, "mark-bit", reads "nothing", writes "the bitmap",
        "No GET or CLEAR can come before it. The page is owed before, and so hidden from no claim by its bit.";
    PushRequest, "push-request", reads "nothing", writes "the vCPU's own request",
        "Only the vCPU itself reads its request.";
    FaultResolve, "fault-resolve", reads "the slot's life and flags", writes "the vCPU's own fault",
        "No SET_USER_MEMORY_REGION can come before it.";
    FaultLock, "fault-lock", reads "mmu_lock", writes "mmu_lock (a reader)",
        "Readers do not exclude each other, and no writer of mmu_lock can come before it.";
    FaultInLock, "fault-in-lock", reads "the leaf", writes "the leaf, or what marks the page",
        "The step after mmu_lock was taken for read, where a writer of it can come. Whoever comes between the two neither reads nor writes who holds the lock, or waits for it; so the lock may as well have been taken after him, at the last moment, and nobody need come between. No SET_USER_MEMORY_REGION can.";
    FaultUnlock, "fault-unlock", reads "nothing", writes "mmu_lock",
        "Whoever it would let in cannot act before it.";
    Run, "run", reads "whether the guest may run", writes "where the vCPU is",
        "A vCPU that would have stayed in user space until the guest is stopped may as well run: the signal that is to come, before any thread waits for vCPUs to stop, makes it return to the same place with nothing done. Until then it only keeps claims switched on.";
    EnterGuest, "enter-guest", reads "whether a signal is pending", writes "where the vCPU is",
        "A signal that comes before the entry makes it leave; one that comes after makes it leave the guest again, to the same place, with nothing done in between; its check for a full ring, which comes again then, finds nothing. Without PML the entry reads nothing else.";
    CheckSoftFull, "check-soft-full", reads "reset_index", writes "the vCPU's own request and exit",
        "No RESET and no acknowledgement can come before it.";
    LeaveGuest, "leave-guest", reads "that a signal is pending", writes "where the vCPU is",
        "It has nothing left to store, and nobody takes the signal back. Without PML nobody asks whether it is in the guest.";
    ReturnToUser, "return-to-user", reads "nothing", writes "where the vCPU is",
        "Every thread waits until all vCPUs have stopped, so that nobody else can act on it; the last one to leave leaves nobody behind whose states it could hide. Or, while the guest may run and before a RESET: the one thread asks for no vCPU's place but to signal it, which in user space does what the return does with the signal, and after the signal it waits at once, so that no claim is switched off that a step of its could break. It comes round to its check for a full ring, which is no local step then.";
    HarvestEnter, "harvest-enter", reads "nothing", writes "the thread's own place",
        "One thread alone harvests.";
    HarvestEntry, "harvest-entry", reads "an entry that is dirty", writes "that entry's flags, fetch_index, the pages to copy",
        "Between F_DIRTY and F_RESET an entry belongs to the harvester; the ring cannot overflow onto it. Its page is in the pages to copy before the entry stops accounting for it.";
    ResetEntry, "reset-entry", reads "an entry that is harvested, or that is not", writes "its flags; slots_lock",
        "Only user space sets F_RESET, and its one thread is in RESET. A push does not look at the flags that it frees, and RESET counts as re-arming until it returns. Its return switches claims on, and only RESET closes a leaf that a TLB has: what is stale there then was so before.";
    ResetIndex, "reset-index", reads "nothing", writes "reset_index",
        "The vCPU has no push to make and no request to check any more.";
    CopyBegin, "copy-begin", reads "which slots exist", writes "the pages to copy",
        "The full copy that was to come accounts for every page, and so does the list that it becomes.";
    CopyEnd, "copy-end", reads "that no page is left to copy", writes "the thread's own place",
        "Nobody but the thread itself adds pages to copy.";
    CopyPage, "copy-page", reads "the lowest page to copy", writes "whether it is stale",
        "To copy a page earlier is worse: while it was still to be copied no claim about it could be broken, and a store that would have come before the copy and now comes after leaves it stale. Nothing but claims reads what is stale, so that the earliest copies, in any order, break whatever later ones would.";
    GetWord, "get-word", reads "the bitmap, where rings log", writes "bitmap, scratch half, pages to copy, mmu_lock",
        "With rings no vCPU touches the bitmap, and its one thread is in GET. A page goes from bitmap to scratch half to the pages to copy, each before the one before gives it up; its re-arming, its flush and its return are not part of the rule.";
}
