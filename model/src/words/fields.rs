//! Kinds of fields of a state, and what a step reaches of the vCPUs: the language in which a step says what it reads and writes.

use core::fmt;
use core::ops::BitOr;

/// A set of kinds of fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fields(u64);

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $bit:literal;)+) => {
        impl Fields {
            $($(#[doc = $doc])+ pub const $name: Self = Self(1 << $bit);)+

            /// The kinds, each with its name.
            const KINDS: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

kinds! {
    /// The memslots.
    SLOTS = 0;
    /// The VM's capabilities, and how many vCPUs it has.
    CAPS = 1;
    /// Whether a kernel writer holds every vCPU's mutex.
    MUTEXES = 2;
    /// Whether all is over.
    ENDED = 3;
    /// The leaves: present, writable, dirty, huge.
    LEAVES = 4;
    /// The live bitmaps.
    BITMAP = 5;
    /// Their scratch halves.
    SCRATCH = 6;
    /// User space's copy of the bitmaps.
    SEEN = 7;
    /// What is stale, with the ghosts of reports.
    STALE = 8;
    /// The pages to copy.
    PENDING = 9;
    /// The pages that were sent.
    SENT = 10;
    /// The VMM's own log.
    OWN_LOG = 11;
    /// The devices.
    DEVICES = 12;
    /// Whether mmu_lock is held for write.
    MMU_LOCK = 13;
    /// slots_lock.
    SLOTS_LOCK = 14;
    /// User space's locks.
    USER_LOCKS = 15;
    /// Sends that may still fail.
    FAILURES = 16;
    /// Whether the guest may run.
    GUEST_RUNS = 17;
    /// Of a vCPU: where it is, and whether it holds mmu_lock for read.
    PC = 18;
    /// Of a vCPU: why it left last, and whether it waits.
    EXIT = 19;
    /// Of a vCPU: whether it was signalled.
    KICKED = 20;
    /// Of a vCPU: its entries' flags and payloads, and where a push is.
    ENTRIES = 21;
    /// Of a vCPU: the producer's index.
    DIRTY_INDEX = 22;
    /// Of a vCPU: RESET's index.
    RESET_INDEX = 23;
    /// Of a vCPU: user space's index.
    FETCH_INDEX = 24;
    /// Of a vCPU: the soft-full request.
    REQUEST = 25;
    /// Of a vCPU: its TLB.
    TLB = 26;
    /// Of a vCPU: a reschedule interrupt.
    RESCHED = 27;
    /// Of a vCPU: the access in work, its fault, the PML buffer, what is left of its budgets, whom a change of memslots waits for.
    ACCESS = 28;
    /// Of a thread: where it is, and what the operation in work keeps.
    PLACE = 29;
    /// Of a thread: entries counted.
    COUNT = 30;
    /// Of a thread: RESET's batch.
    BATCH = 31;
    /// Of a thread: what the last ioctl answered.
    ANSWER = 32;
    /// Of a thread: what it has collected and not published.
    HAND = 33;
    /// User space's signals that nobody has waited for yet.
    SIGNALS = 34;
}

impl Fields {
    /// None.
    pub const NONE: Self = Self(0);
    /// All of them: what has to be said of a step of which nothing is known.
    pub const ALL: Self = Self(u64::MAX);
    /// VM-wide, and read by everybody.
    pub const COMMON: Self = Self(Self::SLOTS.0 | Self::CAPS.0 | Self::MUTEXES.0 | Self::ENDED.0);
    /// Of a vCPU: what others look at.
    pub const CONTROL: Self = Self(Self::PC.0 | Self::EXIT.0 | Self::KICKED.0);
    /// Of a vCPU: its ring.
    pub const RING: Self =
        Self(Self::ENTRIES.0 | Self::DIRTY_INDEX.0 | Self::RESET_INDEX.0 | Self::FETCH_INDEX.0);
    /// All of a vCPU.
    pub const VCPU: Self = Self(
        Self::CONTROL.0
            | Self::RING.0
            | Self::REQUEST.0
            | Self::TLB.0
            | Self::RESCHED.0
            | Self::ACCESS.0,
    );
    /// What a thread does with its own at every step.
    pub const OWN: Self = Self(Self::PLACE.0 | Self::COUNT.0 | Self::BATCH.0 | Self::ANSWER.0);

    /// Whether these include any of `other`.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = Self::KINDS.iter().filter(|(kind, _)| self.has(*kind));
        f.debug_set().entries(kinds.map(|(_, name)| name)).finish()
    }
}

impl BitOr for Fields {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

/// What a step may have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The kinds of fields.
    pub fields: Fields,
    /// The vCPUs whose fields, one bit each.
    pub vcpus: u32,
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
