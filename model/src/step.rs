//! A step: who acts, and which of the things that are possible. [`apply`] is the one transition function.

use crate::layout::Layout;
use crate::machine::Machine;
use crate::state::State;
use crate::{device_steps, thread_steps, vcpu_steps};

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
    Store(u32),
    /// The guest begins to load from a frame.
    Load(u32),
    /// The TLB entry that would still have let the access through is gone.
    Miss,
    /// The vCPU leaves the guest for a kick or an interrupt.
    Leave,
    /// The kernel updates its record in guest memory, in the context of the vCPU.
    Steal,
    /// The fault cannot be resolved: the access fails.
    Fail,
    /// The page or frame that is next.
    Page(u32),
    /// A page is read, but its send fails.
    SendFails(u32),
    /// A signal becomes pending for the thread.
    Signal,
}

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

/// Calls `found` with every step that is possible in `state`, in a fixed order: vCPUs, threads, devices, each by number.
#[inline]
pub fn for_each_step<L: Layout>(machine: &Machine, state: &State<L>, mut found: impl FnMut(Step)) {
    if state.finished || state.crashed {
        return;
    }
    for vcpu in 0..state.vcpus.len() {
        vcpu_steps::choices(machine, state, vcpu, |choice| {
            found(Step {
                actor: Actor::Vcpu(vcpu as u8),
                choice,
            });
        });
    }
    for thread in 0..state.threads.len() {
        thread_steps::choices(machine, state, thread, |choice| {
            found(Step {
                actor: Actor::Thread(thread as u8),
                choice,
            });
        });
    }
    for device in 0..state.devices.len() {
        device_steps::choices(machine, state, device, |choice| {
            found(Step {
                actor: Actor::Device(device as u8),
                choice,
            });
        });
    }
}

/// Calls `found` with every choice that one actor has in `state`.
#[inline]
pub fn for_each_choice<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    actor: Actor,
    found: impl FnMut(Choice),
) {
    if state.finished || state.crashed {
        return;
    }
    match actor {
        Actor::Vcpu(vcpu) => vcpu_steps::choices(machine, state, usize::from(vcpu), found),
        Actor::Thread(thread) => thread_steps::choices(machine, state, usize::from(thread), found),
        Actor::Device(device) => device_steps::choices(machine, state, usize::from(device), found),
    }
}

/// Takes `step`, which is possible in `state`. The one transition function.
#[inline]
pub fn apply<L: Layout>(machine: &Machine, state: &mut State<L>, step: Step) -> Effect {
    match step.actor {
        Actor::Vcpu(vcpu) => {
            vcpu_steps::apply(machine, state, usize::from(vcpu), step.choice);
            Effect::None
        }
        Actor::Thread(thread) => {
            thread_steps::apply(machine, state, usize::from(thread), step.choice)
        }
        Actor::Device(device) => {
            device_steps::apply(machine, state, usize::from(device), step.choice);
            Effect::None
        }
    }
}

/// The name of what `step` will do in `state`: the word that traces use.
#[must_use]
pub fn describe<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> &'static str {
    match step.actor {
        Actor::Vcpu(vcpu) => vcpu_steps::describe(machine, state, usize::from(vcpu), step.choice),
        Actor::Thread(thread) => {
            thread_steps::describe(machine, state, usize::from(thread), step.choice)
        }
        Actor::Device(_) => device_steps::describe(step.choice),
    }
}

/// The frame or host page that `step` is about in `state`, if it is about one.
#[must_use]
pub fn subject<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Option<u32> {
    match step.choice {
        Choice::Store(page) | Choice::Load(page) | Choice::Page(page) | Choice::SendFails(page) => {
            Some(page)
        }
        _ => match step.actor {
            Actor::Vcpu(vcpu) => vcpu_steps::subject(machine, state, usize::from(vcpu)),
            Actor::Thread(thread) => thread_steps::subject(machine, state, usize::from(thread)),
            Actor::Device(_) => None,
        },
    }
}
