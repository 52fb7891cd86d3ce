//! Schedules as data: replaying them with steps missing or moved, and measuring them.

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_choice};

use crate::run::is_stuck;

/// The number of blocks of a schedule: maximal runs of consecutive steps of one actor.
#[must_use]
pub fn blocks(steps: &[Step]) -> usize {
    steps.chunk_by(|a, b| a.actor == b.actor).count()
}

/// How long a schedule is: blocks first, then steps.
#[must_use]
pub fn length(steps: &[Step]) -> (usize, usize) {
    (blocks(steps), steps.len())
}

/// Whether `step` is possible in `state`.
#[must_use]
pub fn is_possible<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> bool {
    let mut possible = false;
    for_each_choice(machine, state, step.actor, |choice| {
        possible |= choice == step.choice;
    });
    possible
}

/// A step, and what it was when the schedule ran whole: by that it is found again when steps before it are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) step: Step,
    /// The operation of the thread's program; 0 for other actors.
    pub(super) op: u16,
    pub(super) name: &'static str,
}

/// How a step of a schedule that is no longer whole is matched with what its actor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matching {
    /// By actor and choice; what is impossible is passed over.
    Choice,
    /// By what the step was: a thread that is behind catches up, one that is ahead waits, and at the end the threads
    /// of the VMM run on by themselves.
    Name,
}

/// Replays schedules from one start, looking for one broken claim.
pub(super) struct Replayer<'a, L: Layout> {
    pub(super) machine: &'a Machine,
    pub(super) start: &'a State<L>,
    pub(super) target: Invariant,
    /// Steps that a thread may take to catch up, and the threads at the end.
    most_extra: usize,
}

impl<'a, L: Layout> Replayer<'a, L> {
    pub(super) fn new(machine: &'a Machine, start: &'a State<L>, target: Invariant) -> Self {
        Self {
            machine,
            start,
            target,
            most_extra: 4096,
        }
    }

    /// The steps of a schedule with what they are.
    pub(super) fn items(&self, steps: &[Step]) -> Vec<Item> {
        let mut state = self.start.clone();
        steps
            .iter()
            .map(|&step| {
                let item = Item {
                    step,
                    op: op_of(&state, step.actor),
                    name: describe(self.machine, &state, step).name(),
                };
                apply(self.machine, &mut state, step);
                item
            })
            .collect()
    }

    /// The steps up to the one that breaks the claim; none if a step is impossible or the claim holds.
    pub(super) fn replay_exactly(&self, steps: &[Step]) -> Option<Vec<Step>> {
        let mut run = Run {
            replayer: self,
            state: self.start.clone(),
            taken: Vec::with_capacity(steps.len()),
            hit: false,
        };
        for &step in steps {
            if !is_possible(self.machine, &run.state, step) {
                return None;
            }
            run.take(step);
            if run.hit {
                return Some(run.taken);
            }
        }
        (self.target == Invariant::MigrationMakesProgress && run.is_stuck()).then_some(run.taken)
    }

    /// Replays what is possible of `items`; the steps taken, up to the one that breaks the claim, if one does.
    pub(super) fn replay(&self, items: &[Item], matching: Matching) -> Option<Vec<Step>> {
        let mut run = Run {
            replayer: self,
            state: self.start.clone(),
            taken: Vec::with_capacity(items.len()),
            hit: false,
        };
        for item in items {
            match matching {
                Matching::Choice => run.take_if_possible(item.step),
                Matching::Name => run.take_by_name(item),
            }
            if run.hit {
                return Some(run.taken);
            }
        }
        if matching == Matching::Name {
            run.finish();
        }
        if !run.hit && self.target == Invariant::MigrationMakesProgress {
            run.hit = run.is_stuck();
        }
        run.hit.then_some(run.taken)
    }
}

fn op_of<L: Layout>(state: &State<L>, actor: Actor) -> u16 {
    match actor {
        Actor::Thread(thread) => state.threads[usize::from(thread)].op,
        Actor::Vcpu(_) | Actor::Device(_) => 0,
    }
}

/// A replay on its way.
struct Run<'a, 'b, L: Layout> {
    replayer: &'b Replayer<'a, L>,
    state: State<L>,
    taken: Vec<Step>,
    hit: bool,
}

impl<L: Layout> Run<'_, '_, L> {
    fn take(&mut self, step: Step) {
        let machine = self.replayer.machine;
        let effect = apply(machine, &mut self.state, step);
        self.taken.push(step);
        self.hit = oracle::check(machine, &self.state, effect).has(self.replayer.target);
    }

    fn take_if_possible(&mut self, step: Step) {
        if is_possible(self.replayer.machine, &self.state, step) {
            self.take(step);
        }
    }

    /// The quietest thing that `actor` can do: no signal, no failing send, the lowest page.
    fn quietest(&self, actor: Actor) -> Option<Step> {
        let mut best = None;
        for_each_choice(self.replayer.machine, &self.state, actor, |choice| {
            if !matches!(
                choice,
                Choice::Signal | Choice::SendFails(_) | Choice::Fail | Choice::Again
            ) {
                best = best.or(Some(Step { actor, choice }));
            }
        });
        best
    }

    fn take_by_name(&mut self, item: &Item) {
        let machine = self.replayer.machine;
        let actor = item.step.actor;
        let mut extra = 0;
        while op_of(&self.state, actor) < item.op && extra < self.replayer.most_extra {
            let Some(step) = self.quietest(actor) else {
                return;
            };
            self.take(step);
            if self.hit {
                return;
            }
            extra += 1;
        }
        if op_of(&self.state, actor) == item.op
            && is_possible(machine, &self.state, item.step)
            && describe(machine, &self.state, item.step) == item.name
        {
            self.take(item.step);
        }
    }

    /// Lets the threads run to the end of their programs; vCPUs only leave, where a thread waits for that.
    fn finish(&mut self) {
        for _ in 0..self.replayer.most_extra {
            if self.hit {
                return;
            }
            let threads = (0..self.state.threads.len()).map(|index| Actor::Thread(index as u8));
            let Some(step) = threads
                .filter_map(|actor| self.quietest(actor))
                .next()
                .or_else(|| self.leaving())
            else {
                return;
            };
            self.take(step);
        }
    }

    /// A step of a vCPU on its way out.
    fn leaving(&self) -> Option<Step> {
        (0..self.state.vcpus.len())
            .filter(|&index| !self.state.vcpus[index].is_stopped())
            .find_map(|index| {
                let actor = Actor::Vcpu(index as u8);
                let mut best = None;
                for_each_choice(
                    self.replayer.machine,
                    &self.state,
                    actor,
                    |choice| match choice {
                        Choice::Leave => best = Some(choice),
                        Choice::Advance => best = best.or(Some(choice)),
                        _ => {}
                    },
                );
                best.map(|choice| Step { actor, choice })
            })
    }

    fn is_stuck(&self) -> bool {
        is_stuck(self.replayer.machine, &self.state)
    }
}
