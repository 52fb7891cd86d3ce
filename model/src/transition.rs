//! The transition function: which steps are possible, and taking one. Everything that runs the model goes through here.
//!
//! ```
//! use dirtysim_model::transition::{apply, describe, for_each_step};
//! use dirtysim_model::machine::{Machine, Op};
//! use dirtysim_model::state::{State, layout::Small};
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! let mut machine = Machine::new(Arch::X86, Kernel::V7_2, false);
//! machine.vcpus.push(Default::default());
//! machine.programs = vec![vec![Op::CreateVcpu]];
//! let mut state = State::<Small>::new(&machine);
//! let mut possible = Vec::new();
//! for_each_step(&machine, &state, |step| possible.push(step));
//! assert_eq!(describe(&machine, &state, possible[0]), "create-vcpu");
//! apply(&machine, &mut state, possible[0]);
//! assert_eq!(state.vcpus.len(), 1);
//! ```

use crate::machine::{Machine, Op};
use crate::op::{Act, View};
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::vcpu::UNLIMITED;
use crate::words::{Duty, Found, NO_FRAME, Subject, Waits, Word};
use crate::{device, mutated, vcpu};

pub use crate::words::step::{Actor, Choice, Effect, ResetCount, Step};

/// Calls `found` with every step that is possible in `state`, in a fixed order: vCPUs, threads, devices, each by number.
#[inline]
pub fn for_each_step<L: Layout>(machine: &Machine, state: &State<L>, mut found: impl FnMut(Step)) {
    if state.finished || state.crashed {
        return;
    }
    for vcpu in 0..state.vcpus.len() {
        let actor = Actor::Vcpu(vcpu as u8);
        choices(machine, state, actor, &mut |choice| {
            found(Step { actor, choice });
        });
    }
    for thread in 0..state.threads.len() {
        let actor = Actor::Thread(thread as u8);
        choices(machine, state, actor, &mut |choice| {
            found(Step { actor, choice });
        });
    }
    for device in 0..state.devices.len() {
        let actor = Actor::Device(device as u8);
        choices(machine, state, actor, &mut |choice| {
            found(Step { actor, choice });
        });
    }
}

/// Calls `found` with every choice that one actor has in `state`.
#[inline]
pub fn for_each_choice<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    actor: Actor,
    mut found: impl FnMut(Choice),
) {
    if !state.finished && !state.crashed {
        choices(machine, state, actor, &mut found);
    }
}

/// The choices of an actor while not all is over.
fn choices<L: Layout>(machine: &Machine, state: &State<L>, actor: Actor, found: Found<'_>) {
    if !machine.mutations.is_empty() && mutated::choices(machine, state, actor, found) {
        return;
    }
    match actor {
        Actor::Vcpu(vcpu) => vcpu::choices(machine, state, usize::from(vcpu), found),
        Actor::Thread(thread) => {
            let index = usize::from(thread);
            if let Some(op) = state.current_op(machine, index) {
                op.choices(
                    View {
                        machine,
                        state,
                        index,
                    },
                    found,
                );
            }
        }
        Actor::Device(device) => device::choices(machine, state, usize::from(device), found),
    }
}

/// Whether `step`, possible in `state`, need never be taken, though its actor would have it for ever: whoever has a budget without
/// end begins something more, or what is done any number of times is done once more. Any number is some number.
#[must_use]
pub fn is_at_leisure<L: Layout>(state: &State<L>, step: Step) -> bool {
    match (step.actor, step.choice) {
        (Actor::Vcpu(vcpu), choice) => {
            let v = &state.vcpus[usize::from(vcpu)];
            UNLIMITED
                == match choice {
                    Choice::Store(_) => v.stores,
                    Choice::Load(_) => v.loads,
                    Choice::Steal => v.steal,
                    _ => 0,
                }
        }
        (Actor::Device(device), Choice::Store(_)) => {
            state.devices[usize::from(device)].budget == UNLIMITED
        }
        (Actor::Thread(_), Choice::SendFails(_) | Choice::Fail) => state.send_failures == UNLIMITED,
        (Actor::Thread(_), Choice::Again) => true,
        (Actor::Device(_) | Actor::Thread(_), _) => false,
    }
}

/// What an actor that has no step in `state` waits for; none where it has nothing left to do.
#[must_use]
pub fn blocked<L: Layout>(machine: &Machine, state: &State<L>, actor: Actor) -> Option<Waits> {
    match actor {
        Actor::Vcpu(vcpu) => vcpu::blocked(machine, state, usize::from(vcpu)),
        Actor::Thread(thread) => {
            let index = usize::from(thread);
            let at = View {
                machine,
                state,
                index,
            };
            state.current_op(machine, index)?.blocked(&at)
        }
        Actor::Device(_) => None,
    }
}

/// Takes `step`, which is possible in `state`. The one transition function.
#[inline]
pub fn apply<L: Layout>(machine: &Machine, state: &mut State<L>, step: Step) -> Effect {
    if let Actor::Thread(thread) = step.actor {
        begin(machine, state, usize::from(thread));
    }
    let effect = if machine.mutations.is_empty() {
        faithful(machine, state, step)
    } else {
        mutated::apply(machine, state, step, faithful)
    };
    match step.actor {
        Actor::Vcpu(vcpu) => vcpu::settle(machine, state, usize::from(vcpu)),
        Actor::Thread(thread) => settle_thread(machine, state, usize::from(thread)),
        Actor::Device(_) => {}
    }
    effect
}

/// An operation that begins has answered nothing yet; only one that asks what the one before it answered still finds that.
#[inline(always)]
fn begin<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize) {
    if state.threads[thread].stage == 0
        && !matches!(
            state.current_op(machine, thread),
            Some(Op::OnError(_) | Op::Proceed(_))
        )
    {
        state.threads[thread].answer = Ok(0);
    }
}

/// The step as the kernel, the VMM and the devices should take it.
#[inline(always)]
fn faithful<L: Layout>(machine: &Machine, state: &mut State<L>, step: Step) -> Effect {
    match step.actor {
        Actor::Vcpu(vcpu) => vcpu::apply(machine, state, usize::from(vcpu), step.choice),
        Actor::Device(device) => device::apply(machine, state, usize::from(device), step.choice),
        Actor::Thread(thread) => {
            let index = usize::from(thread);
            if let Some(op) = state.current_op(machine, index) {
                return op.step(
                    Act {
                        machine,
                        state,
                        index,
                    },
                    step.choice,
                );
            }
        }
    }
    Effect::None
}

/// Says in the state what a thread is in the middle of, from the row of where it stands.
#[inline]
pub(crate) fn settle_thread<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize) {
    let t = &state.threads[thread];
    let (mut duty, mut owed) = (Duty::NONE, NO_FRAME);
    // Before its first step an operation has done nothing.
    if t.stage != 0
        && let Some(op) = state.current_op(machine, thread)
    {
        duty = op.duty(machine, t.stage);
        if !machine.mutations.is_empty() {
            duty = mutated::duty(machine, op, t.stage, duty);
        }
        if duty.has(Duty::OWES) {
            let subject = op.subject(View {
                machine,
                state,
                index: thread,
            });
            owed = subject.unwrap_or(NO_FRAME);
        }
    }
    let t = &mut state.threads[thread];
    t.duty = duty;
    t.owed = owed;
}

/// Says in the state what every actor owes and is in the middle of, from where it stands: for states that no step has made.
#[inline]
pub fn settle<L: Layout>(machine: &Machine, state: &mut State<L>) {
    for vcpu in 0..state.vcpus.len() {
        vcpu::settle(machine, state, vcpu);
    }
    for thread in 0..state.threads.len() {
        settle_thread(machine, state, thread);
    }
}

/// The name of what `step` will do in `state`.
#[must_use]
pub fn describe<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Word {
    match step.actor {
        Actor::Vcpu(vcpu) => vcpu::word(machine, state, usize::from(vcpu), step.choice),
        Actor::Thread(thread) => {
            let index = usize::from(thread);
            let stage = state.threads[index].stage;
            match state.current_op(machine, index) {
                None => Word::NOTHING,
                Some(op) => match mutated::word(op, stage) {
                    Some(word) => word,
                    None => op.word(
                        View {
                            machine,
                            state,
                            index,
                        },
                        step.choice,
                    ),
                },
            }
        }
        Actor::Device(_) => device::word(step.choice),
    }
}

/// The frame or host page that `step` is about in `state`, if it is about one.
#[must_use]
pub fn subject<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Option<Subject> {
    let frame = match step.choice {
        Choice::Page(host) | Choice::SendFails(host) => return Some(Subject::Host(host)),
        Choice::Store(frame) | Choice::Load(frame) | Choice::Land(frame) => Some(frame),
        _ => match step.actor {
            Actor::Vcpu(vcpu) => vcpu::subject(machine, state, usize::from(vcpu)),
            Actor::Thread(thread) => {
                let index = usize::from(thread);
                state.current_op(machine, index)?.subject(View {
                    machine,
                    state,
                    index,
                })
            }
            Actor::Device(_) => None,
        },
    };
    frame.map(Subject::Frame)
}

/// Calls `found` with the name of every step that there is.
pub fn for_each_word(mut found: impl FnMut(Word)) {
    vcpu::words().for_each(&mut found);
    device::WORDS.into_iter().for_each(&mut found);
    mutated::WORDS.into_iter().for_each(&mut found);
    for steps in crate::op::table::STEPS {
        steps.iter().copied().for_each(&mut found);
    }
}
