//! What somebody who has no step waits for.

/// What an actor waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// A lock of user space, by number.
    Lock(u8),
    /// A signal of user space, by number.
    Signal(u8),
    /// The end of a thread's program.
    Thread(u8),
    /// slots_lock, which that thread holds.
    SlotsLock(u8),
    /// mmu_lock.
    MmuLock,
    /// The mutex of a vCPU.
    Mutex(u8),
    /// Every vCPU's letting go of the old memslots: a grace period.
    OldSlots,
    /// Every vCPU's leaving the guest once, for a flush.
    Flush,
    /// Every vCPU's leaving KVM_RUN once, which it was signalled to do.
    Left,
    /// Every vCPU's being outside KVM_RUN.
    Stopped,
    /// Some vCPU's being in KVM_RUN.
    Running,
    /// A vCPU's being outside with exit 31.
    RingFull,
    /// A device's having nothing in flight.
    Device(u8),
    /// Somebody's telling what the VMM's own code does next.
    Code,
    /// Of a vCPU: the VMM's letting it run.
    Resume,
    /// Of a vCPU: the VMM's answer to its exit 31.
    Ack,
}

impl Waits {
    /// This, if it has not come.
    #[must_use]
    #[inline(always)]
    pub const fn unless(self, come: bool) -> Option<Self> {
        if come { None } else { Some(self) }
    }

    /// Whether who waits for it gets it in turn, however often others get it: a lock, or what the kernel counts once for each.
    #[must_use]
    pub const fn is_in_turn(self) -> bool {
        match self {
            Self::Lock(_)
            | Self::SlotsLock(_)
            | Self::MmuLock
            | Self::Mutex(_)
            | Self::OldSlots
            | Self::Flush => true,
            Self::Signal(_)
            | Self::Thread(_)
            | Self::Left
            | Self::Stopped
            | Self::Running
            | Self::RingFull
            | Self::Device(_)
            | Self::Code
            | Self::Resume
            | Self::Ack => false,
        }
    }
}
