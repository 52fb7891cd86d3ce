//! Replaying a schedule under a machine that it was not made for.

use std::collections::BTreeSet;

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::transition::{Actor, Choice, Effect, Step, apply, describe, for_each_choice};
use dirtysim_model::words::HostPage;

use super::Cause;
use crate::shrink::is_possible;

/// How a step is found again under the changed machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matching {
    /// By what it was: an actor that is behind catches up within its operation; what does not come is passed over.
    Name,
    /// By actor and choice.
    Choice,
}

/// Both ways, the first the one that counts where they come to the same.
pub(super) const ALL: [Matching; 2] = [Matching::Name, Matching::Choice];

/// Steps of the schedule after which is asked whether to go on.
const PATIENCE: usize = 64;

/// Steps that an actor may take to catch up, and the threads at the end.
const MOST_EXTRA: usize = 4096;

/// The host pages that `steps`, made for `recorded`, lose under `changed` (machines with their starts): those that are
/// stale where the protocol claims that none is. None: `go_on` said that it is enough.
pub(super) fn lost_pages<L: Layout>(
    recorded: &(&Machine, State<L>),
    changed: &(&Machine, State<L>),
    steps: &[Step],
    cause: Cause,
    matching: Matching,
    go_on: &dyn Fn() -> bool,
) -> Option<BTreeSet<HostPage>> {
    Some(follow(recorded, changed, steps, cause, matching, go_on)?.lost)
}

/// The steps that the changed machine takes in place of `steps`, found by what they were.
pub(super) fn steps_instead<L: Layout>(
    recorded: &(&Machine, State<L>),
    changed: &(&Machine, State<L>),
    steps: &[Step],
) -> Option<Vec<Step>> {
    let cause = Cause::Nothing;
    Some(follow(recorded, changed, steps, cause, Matching::Name, &|| true)?.taken)
}

fn follow<'m, L: Layout>(
    recorded: &(&Machine, State<L>),
    changed: &(&'m Machine, State<L>),
    steps: &[Step],
    cause: Cause,
    matching: Matching,
    go_on: &dyn Fn() -> bool,
) -> Option<Run<'m, L>> {
    let (recorded, mut original) = recorded.clone();
    let (changed, start) = changed.clone();
    let mut run = Run {
        machine: changed,
        state: start,
        lost: BTreeSet::new(),
        taken: Vec::new(),
    };
    for (at, &step) in steps.iter().enumerate() {
        if at % PATIENCE == 0 && !go_on() {
            return None;
        }
        let name = describe(recorded, &original, step).name();
        let op = moved(cause, step.actor, op_of(&original, step.actor));
        match matching {
            Matching::Choice => {
                if is_possible(changed, &run.state, step) {
                    run.take(step);
                }
            }
            Matching::Name => {
                if let Some(op) = op {
                    run.take_by_name(step, op, name);
                }
            }
        }
        if is_possible(recorded, &original, step) {
            apply(recorded, &mut original, step);
        }
    }
    run.finish();
    Some(run)
}

fn op_of<L: Layout>(state: &State<L>, actor: Actor) -> u16 {
    match actor {
        Actor::Thread(thread) => state.threads[usize::from(thread)].op,
        Actor::Vcpu(_) | Actor::Device(_) => 0,
    }
}

/// Where an operation stands under the cause; none where it is left out.
fn moved(cause: Cause, actor: Actor, op: u16) -> Option<u16> {
    match actor {
        Actor::Thread(thread) => Some(cause.place(usize::from(thread), usize::from(op))? as u16),
        Actor::Vcpu(_) | Actor::Device(_) => Some(op),
    }
}

struct Run<'a, L: Layout> {
    machine: &'a Machine,
    state: State<L>,
    lost: BTreeSet<HostPage>,
    taken: Vec<Step>,
}

impl<L: Layout> Run<'_, L> {
    fn take(&mut self, step: Step) {
        self.taken.push(step);
        let effect = apply(self.machine, &mut self.state, step);
        if let Effect::Claim { postcopy } = effect {
            let lost = oracle::lost(self.machine, &self.state, postcopy);
            self.lost.extend(lost.iter());
        }
    }

    /// The least surprising thing that `actor` can do.
    fn quietest(&self, actor: Actor) -> Option<Step> {
        let mut best = None;
        for_each_choice(self.machine, &self.state, actor, |choice| {
            let surprising = matches!(
                choice,
                Choice::Signal | Choice::SendFails(_) | Choice::Fail | Choice::Again
            );
            if !surprising {
                best = best.or(Some(Step { actor, choice }));
            }
        });
        best
    }

    fn is_there(&self, step: Step, op: u16, name: &str) -> bool {
        op_of(&self.state, step.actor) == op
            && is_possible(self.machine, &self.state, step)
            && describe(self.machine, &self.state, step) == name
    }

    fn take_by_name(&mut self, step: Step, op: u16, name: &str) {
        let mut extra = 0;
        while op_of(&self.state, step.actor) < op && extra < MOST_EXTRA {
            let Some(next) = self.quietest(step.actor) else {
                return;
            };
            self.take(next);
            extra += 1;
        }
        if self.is_there(step, op, name) {
            return self.take(step);
        }
        if op_of(&self.state, step.actor) != op {
            return;
        }
        // Behind within the operation, or on the way through the kernel: look ahead, and go there if it comes.
        let mut ahead = Run {
            machine: self.machine,
            state: self.state.clone(),
            lost: BTreeSet::new(),
            taken: Vec::new(),
        };
        for _ in 0..64 {
            let resting = match step.actor {
                Actor::Vcpu(vcpu) => {
                    matches!(
                        ahead.state.vcpus[usize::from(vcpu)].pc,
                        Pc::User | Pc::Guest
                    )
                }
                Actor::Thread(_) => op_of(&ahead.state, step.actor) != op,
                Actor::Device(_) => true,
            };
            if resting {
                return;
            }
            let Some(next) = ahead.quietest(step.actor) else {
                return;
            };
            ahead.take(next);
            if ahead.is_there(step, op, name) {
                ahead.take(step);
                self.state = ahead.state;
                self.lost.append(&mut ahead.lost);
                self.taken.append(&mut ahead.taken);
                return;
            }
        }
    }

    /// Lets the threads run to the end of their programs; a vCPU goes on only where a thread waits for it to leave.
    fn finish(&mut self) {
        for _ in 0..MOST_EXTRA {
            let threads = (0..self.state.threads.len()).map(|index| Actor::Thread(index as u8));
            let next = threads
                .filter_map(|actor| self.quietest(actor))
                .next()
                .or_else(|| self.leaving());
            let Some(step) = next else { return };
            self.take(step);
        }
    }

    fn leaving(&self) -> Option<Step> {
        (0..self.state.vcpus.len())
            .filter(|&index| !self.state.vcpus[index].is_stopped())
            .find_map(|index| {
                let actor = Actor::Vcpu(index as u8);
                let mut best = None;
                for_each_choice(self.machine, &self.state, actor, |choice| match choice {
                    Choice::Leave => best = Some(choice),
                    Choice::Advance => best = best.or(Some(choice)),
                    _ => {}
                });
                best.map(|choice| Step { actor, choice })
            })
    }
}
