//! Wrong behaviours: each is an override of one step of the right one, by name, and takes what it does not change from there.
//!
//! Nothing below knows that there are mutations; what a wrong kernel does by another number or in another order is data
//! ([`crate::machine::wiring`]).
//!
//! ```
//! use dirtysim_model::machine::Machine;
//! use dirtysim_model::words::mutation::Mutations;
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! let mut machine = Machine::new(Arch::X86, Kernel::V7_2, false);
//! let mut mutations = Mutations::default();
//! mutations.switch_on(Mutations::by_name("kernel.get_log.flush=none").unwrap());
//! dirtysim_model::mutated::set(&mut machine, mutations);
//! assert_eq!(machine.mutations(), mutations);
//! ```

pub mod declared;
mod devices;
mod log_ioctls;
mod memory;
mod rings;
mod sites;
mod vcpus;
mod vmm;

use crate::machine::wiring::{PushWrite, Wiring};
use crate::machine::{Machine, Op};
use crate::op::{self, Act};
use crate::state::State;
use crate::state::layout::Layout;
use crate::words::fault::FaultStage;
use crate::words::word::loud;
use crate::words::{Actor, Duty, Effect, Found, Mutation, Mutations, Step, Word};
use sites::Sites;

/// The step as it should be.
type Faithful<L> = fn(&Machine, &mut State<L>, Step) -> Effect;

/// Switches a mutation on in a machine, beside those that are.
pub fn switch_on(machine: &mut Machine, mutation: Mutation) {
    let mut mutations = machine.mutations;
    mutations.switch_on(mutation);
    set(machine, mutations);
}

/// Switches these mutations on in a machine, and no others.
pub fn set(machine: &mut Machine, mutations: Mutations) {
    use FaultStage::{Lock, Map, Mark, Resolve, SplitStore, Unlock};
    machine.mutations = mutations;
    let has = |mutation| mutations.has(mutation);
    machine.wiring = Wiring {
        push_order: if has(Mutation::PushOrderRelaxed) {
            [PushWrite::Flags, PushWrite::Slot, PushWrite::Offset]
        } else {
            Wiring::RIGHT.push_order
        },
        soft_full_late: if has(Mutation::RingSoftFullLate) {
            machine.constants.ring_reserved + 1
        } else {
            0
        },
        raises_request: !has(Mutation::RingNoRequest),
        waits_for_pml: !has(Mutation::EnablePmlNotWaited),
        fault_stages: if has(Mutation::VcpuWriteSplit) {
            Some(&[Resolve, Mark, SplitStore])
        } else if has(Mutation::FaultUnlockBetween) {
            Some(&[Resolve, Lock, Mark, Unlock, Map])
        } else if has(Mutation::FaultMarkBeforeSuccess) {
            Some(&[Resolve, Mark, Lock, Map, Unlock])
        } else {
            None
        },
    };
}

/// The names of the steps that only a wrong kernel takes.
pub(crate) const WORDS: [Word; 1] = [loud(
    "reset-clear-request",
    "clears the vCPU's soft-full request",
)];

/// The name of the step of a stage that only a wrong kernel has.
pub(crate) fn word(op: &Op, stage: u8) -> Option<Word> {
    match (op, stage) {
        (Op::GetDirtyLog(_), log_ioctls::EXCHANGE_LATE) => {
            Some(op.steps()[usize::from(op::get_dirty_log::EXCHANGE)])
        }
        (Op::ResetRings(_), rings::CLEAR_REQUEST) => Some(WORDS[0]),
        _ => None,
    }
}

/// What a thread is in the middle of at a stage, where a wrong kernel differs from the row.
pub(crate) fn duty(machine: &Machine, op: &Op, stage: u8, duty: Duty) -> Duty {
    match (op, stage) {
        (Op::GetDirtyLog(_), log_ioctls::EXCHANGE_LATE) => Duty::FLUSHES.and(Duty::HOLDS_SCRATCH),
        (Op::ResetRings(_), rings::CLEAR_REQUEST) => Duty::FLUSHES.and(Duty::RESETS),
        // Who marks first has written nothing yet.
        (Op::KernelWrite(_), _) if machine.mutations.has(Mutation::WriterMarkFirst) => {
            duty.without(Duty::OWES)
        }
        _ => duty,
    }
}

/// Calls `found` with an actor's choices where a wrong one's are others; whether they are.
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    actor: Actor,
    found: Found<'_>,
) -> bool {
    may_change(machine, state, actor)
        && match actor {
            Actor::Vcpu(vcpu) => vcpus::choices(machine, state, usize::from(vcpu), found),
            Actor::Thread(thread) => vmm::choices(machine, state, usize::from(thread), found),
            Actor::Device(_) => false,
        }
}

/// Whether the actor's steps in a state may be others than the right ones: if not, `apply` takes those.
#[must_use]
pub fn may_change<L: Layout>(machine: &Machine, state: &State<L>, actor: Actor) -> bool {
    match actor {
        Actor::Vcpu(_) => Sites::VCPUS.any_changed_by(machine.mutations),
        Actor::Device(_) => Sites::DEVICES.any_changed_by(machine.mutations),
        Actor::Thread(thread) => state
            .current_op(machine, usize::from(thread))
            .is_some_and(|op| may_change_op(machine, op)),
    }
}

/// As [`may_change`], of an operation's steps.
#[must_use]
pub fn may_change_op(machine: &Machine, op: &Op) -> bool {
    Sites::of_op(op).any_changed_by(machine.mutations)
}

/// Takes a step as it is taken with the machine's mutations.
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    step: Step,
    faithful: Faithful<L>,
) -> Effect {
    let right = |state: &mut State<L>| faithful(machine, state, step);
    if !may_change(machine, state, step.actor) {
        return right(state);
    }
    let index = match step.actor {
        Actor::Vcpu(vcpu) => {
            vcpus::apply(machine, state, usize::from(vcpu), step, faithful);
            return Effect::None;
        }
        Actor::Device(device) => {
            devices::apply(machine, state, usize::from(device), step.choice);
            return Effect::None;
        }
        Actor::Thread(thread) => usize::from(thread),
    };
    let Some(op) = state.current_op(machine, index) else {
        return Effect::None;
    };
    let act = Act {
        machine,
        state,
        index,
    };
    match op {
        Op::GetDirtyLog(get) => log_ioctls::get(act, get, right),
        Op::ClearDirtyLog(clear) => log_ioctls::clear(act, clear, right),
        Op::ResetRings(_) => rings::reset(act, right),
        Op::SetMemoryRegion(region) => memory::set_region(act, region, right),
        Op::KernelWrite(write) => memory::kernel_write(act, write, right),
        Op::EnableCap(_) => memory::enable_cap(act, right),
        Op::Harvest(harvest) => rings::harvest(act, harvest, right),
        Op::DeviceSync(op) => devices::sync(act, *op),
        Op::Copy | Op::CopyAll | Op::CopyList(_) | Op::TakeAll => {
            vmm::copy(act, op, step.choice, right)
        }
        // What `Sites` takes for something else than the VMM's is above, or it is right.
        _ => vmm::step(act, op, right),
    }
}
