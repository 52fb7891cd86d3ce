//! What an operation says of itself, as data: footprint, partial order, packing, symmetry and the oracle are derived from it.

use super::{Fields, Frame, Reach};

/// What the step of one stage of an operation reads and writes, and what a thread that stands before it is in the middle of.
///
/// Every step reads [`Row::ALWAYS`] and writes its thread's own fields; a row says what comes on top. It counts for whether the
/// thread has a step there as well as for what the step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// What it reads.
    pub reads: Fields,
    /// What it may write.
    pub writes: Fields,
    /// Which vCPUs it reads or writes.
    pub vcpus: Reach,
    /// What the thread is in the middle of.
    pub duty: Duty,
}

impl Row {
    /// A step of which nothing is known.
    pub const UNKNOWN: Self = Self {
        reads: Fields::ALL,
        writes: Fields::ALL,
        vcpus: Reach::Everything,
        duty: Duty::NONE,
    };

    /// A step that reads and writes nothing on top of its thread's own.
    pub const OWN: Self = Self {
        reads: Fields::NONE,
        writes: Fields::NONE,
        vcpus: Reach::Own,
        duty: Duty::NONE,
    };

    /// What every thread's step reads.
    pub const ALWAYS: Fields = Fields::COMMON
        .and(Fields::SLOTS_LOCK)
        .and(Fields::USER_LOCKS)
        .and(Fields::FAILURES)
        .and(Fields::GUEST_RUNS);

    /// It reads these too.
    #[must_use]
    pub const fn reads(mut self, fields: Fields) -> Self {
        self.reads = self.reads.and(fields);
        self
    }

    /// It may write these too.
    #[must_use]
    pub const fn writes(mut self, fields: Fields) -> Self {
        self.writes = self.writes.and(fields);
        self
    }

    /// It reads and may write these too.
    #[must_use]
    pub const fn changes(self, fields: Fields) -> Self {
        self.reads(fields).writes(fields)
    }

    /// It reaches so far.
    #[must_use]
    pub const fn reach(mut self, vcpus: Reach) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// The thread is in the middle of this.
    #[must_use]
    pub const fn duty(mut self, duty: Duty) -> Self {
        self.duty = self.duty.and(duty);
        self
    }
}

/// What a thread is in the middle of, as far as others may know: the oracle judges by it, and knows no operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Duty(u8);

impl Duty {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The bits in the scratch half were taken out of the bitmap by it and have not reached user space.
    pub const HOLDS_SCRATCH: Self = Self(1 << 0);
    /// It is inside RESET, at the ring of its index.
    pub const RESETS: Self = Self(1 << 1);
    /// It may still flush TLBs before it returns.
    pub const FLUSHES: Self = Self(1 << 2);
    /// Its bytes are written, and the mark is still to come.
    pub const OWES: Self = Self(1 << 3);
    /// It holds the page of a ring entry that it has read.
    pub const HOLDS_ENTRY: Self = Self(1 << 4);
    /// The same, if an entry waits for the batch before it.
    pub const MAY_HOLD_ENTRY: Self = Self(1 << 5);

    /// Whether any of `other` is among these.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What an operation names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// Nothing in particular.
    Nothing,
    /// The frames of a list.
    Frames(u16),
    /// A frame.
    Frame(Frame),
    /// A memslot, by its combined number; and the frames of a list, if it passes one.
    Slot(u32, Option<u16>),
    /// A memslot, by its template.
    Template(u16),
    /// A vCPU.
    Vcpu(u8),
    /// A thread.
    Thread(u8),
    /// A device.
    Device(u8),
    /// A signal of user space.
    Signal(u8),
    /// Anything: of an operation of which nothing is known.
    Anything,
}

/// How an operation reads the count that its thread keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// Exactly, however far it goes; or it is not known.
    Exactly,
    /// Exactly, and it goes no farther than this.
    UpTo(u32),
    /// Whether it is 0.
    Whether,
    /// Not at all.
    Never,
}

/// A jump in a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jump {
    /// The operation to go to.
    pub to: u16,
    /// Whether it is always taken.
    pub always: bool,
}

/// What an operation means as a whole, for those who look ahead in a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// What it names; pages that are named are like no others.
    pub names: Names,
    /// It re-arms the pages of a mask, from the lowest to the highest where the architecture does.
    pub rearms: bool,
    /// It visits vCPUs in the order of their numbers.
    pub visits_vcpus: bool,
    /// It begins a copy of all memory.
    pub full_copy: bool,
    /// It declares dirty what it names, whoever wrote there.
    pub declares: bool,
    /// It turns the log of the slot that it names on, or off.
    pub turns_log: Option<bool>,
    /// It lets the guest run.
    pub resumes: bool,
    /// It signals every vCPU to stop.
    pub stops: bool,
    /// It waits until every vCPU has stopped.
    pub waits_stopped: bool,
    /// It acts on whether vCPUs run, or on why they left.
    pub watches_guest: bool,
    /// It breaks the ring's contract.
    pub abuses: bool,
    /// A signal may end it early.
    pub signal: bool,
    /// It goes elsewhere in the program.
    pub jump: Option<Jump>,
    /// How it reads its thread's count.
    pub counts: Counts,
}

impl Facts {
    /// Of an operation for which nothing of this is so.
    pub const NOTHING: Self = Self {
        names: Names::Nothing,
        rearms: false,
        visits_vcpus: false,
        full_copy: false,
        declares: false,
        turns_log: None,
        resumes: false,
        stops: false,
        waits_stopped: false,
        watches_guest: false,
        abuses: false,
        signal: false,
        jump: None,
        counts: Counts::Never,
    };

    /// Of an operation of which nothing is known: what a search could make use of is denied.
    pub const UNKNOWN: Self = Self {
        names: Names::Anything,
        rearms: true,
        visits_vcpus: true,
        resumes: true,
        watches_guest: true,
        abuses: true,
        signal: true,
        counts: Counts::Exactly,
        ..Self::NOTHING
    };
}
