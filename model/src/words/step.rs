//! A step: who acts, which of the things that are possible, and what it means beyond its change of state.

use super::{Frame, HostPage};

/// Who takes a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Actor {
    /// The thread of a vCPU, in the guest or in the kernel.
    Vcpu(u8),
    /// A thread of the VMM, in user space or in an ioctl.
    Thread(u8),
    /// A device.
    Device(u8),
}

/// Which of an actor's possible steps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Choice {
    /// The next thing that the actor does, where there is only one.
    Advance,
    /// The guest begins to store to a frame.
    Store(Frame),
    /// The guest begins to load from a frame.
    Load(Frame),
    /// The TLB entry that would still have let the access through is gone.
    Miss,
    /// The vCPU leaves the guest for a kick or an interrupt.
    Leave,
    /// The kernel updates its record in guest memory, in the context of the vCPU.
    Steal,
    /// The fault cannot be resolved: the access fails.
    Fail,
    /// The page that is next.
    Page(HostPage),
    /// A transfer's bytes land in a frame.
    Land(Frame),
    /// A page is read, but its send fails.
    SendFails(HostPage),
    /// A signal becomes pending for the thread.
    Signal,
    /// A part of a program that is done any number of times is done once more.
    Again,
    /// Pages are re-armed, and these frames along with them, one bit each: where it is not known which pages lie between two others
    /// ([`Machine::order_unknown`](crate::machine::Machine::order_unknown)).
    Along(u32),
}

/// Who is told of each choice. Not a generic parameter: what is possible would be compiled once for each of those who ask.
pub type Found<'a> = &'a mut dyn FnMut(Choice);

/// One atomic step of one actor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Step {
    /// Who.
    pub actor: Actor,
    /// What of what is possible.
    pub choice: Choice,
}

/// What a step means beyond its change of state: where the invariants that speak of an instant are to be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    /// Nothing in particular.
    #[default]
    None,
    /// The protocol claims that the destination equals memory.
    Claim {
        /// What is still pending is fetched on demand.
        postcopy: bool,
    },
    /// An ioctl of the thread returned, after it had re-armed pages or could have.
    Returned {
        /// Entries that RESET counted, if it was one.
        reset: Option<ResetCount>,
    },
}

/// What RESET answered and what it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResetCount {
    /// The count that user space was told.
    pub told: u32,
    /// Entries that were freed.
    pub freed: u32,
}
