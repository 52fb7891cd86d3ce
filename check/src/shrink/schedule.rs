//! Schedules as data: replaying them with steps missing or moved, and measuring them.

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_choice};

use crate::code::{self, Grow};
use crate::stuck::is_stuck;

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
    pub(super) machine: Machine,
    pub(super) start: State<L>,
    pub(super) target: Invariant,
    /// Who knows what a VMM's own code does; nobody, once that could not be told.
    grow: Option<&'a mut dyn Grow>,
    /// Steps that a thread may take to catch up, and the threads at the end.
    most_extra: usize,
}

impl<'a, L: Layout> Replayer<'a, L> {
    /// `start`: where every thread of a VMM's own code has gone on to its first call.
    pub(super) fn new(
        machine: Machine,
        start: State<L>,
        target: Invariant,
        grow: Option<&'a mut dyn Grow>,
    ) -> Self {
        Self {
            machine,
            start,
            target,
            grow,
            most_extra: 4096,
        }
    }

    /// Takes a step, and lets threads of a VMM's own code go on; whether it breaks the claim. None: what the code does then cannot be told.
    pub(super) fn take(&mut self, state: &mut State<L>, step: Step) -> Option<bool> {
        let effect = apply(&self.machine, state, step);
        if oracle::check(&self.machine, state, effect).has(self.target) {
            return Some(true);
        }
        while let Err(unknown) = code::go_on(&self.machine, state) {
            let grow = self.grow.as_mut()?;
            if !grow.grow(&mut self.machine, &[unknown]) {
                self.grow = None;
                return None;
            }
        }
        Some(false)
    }

    /// The steps of a schedule with what they are.
    pub(super) fn items(&mut self, steps: &[Step]) -> Vec<Item> {
        let mut state = self.start.clone();
        let mut items = Vec::with_capacity(steps.len());
        for &step in steps {
            items.push(Item {
                step,
                op: op_of(&state, step.actor),
                name: describe(&self.machine, &state, step).name(),
            });
            self.take(&mut state, step);
        }
        items
    }

    fn run(&mut self, most: usize) -> Run<'a, '_, L> {
        Run {
            state: self.start.clone(),
            replayer: self,
            taken: Vec::with_capacity(most),
            end: None,
        }
    }

    /// The steps up to the one that breaks the claim; none if a step is impossible or the claim holds.
    pub(super) fn replay_exactly(&mut self, steps: &[Step]) -> Option<Vec<Step>> {
        let mut run = self.run(steps.len());
        for &step in steps {
            if !is_possible(&run.replayer.machine, &run.state, step) {
                return None;
            }
            run.take(step);
            if run.end.is_some() {
                break;
            }
        }
        run.breaks().then_some(run.taken)
    }

    /// Replays what is possible of `items`; the steps taken, up to the one that breaks the claim, if one does.
    pub(super) fn replay(&mut self, items: &[Item], matching: Matching) -> Option<Vec<Step>> {
        let mut run = self.run(items.len());
        for item in items {
            match matching {
                Matching::Choice => run.take_if_possible(item.step),
                Matching::Name => run.take_by_name(item),
            }
            if run.end.is_some() {
                break;
            }
        }
        if matching == Matching::Name {
            run.finish();
        }
        run.breaks().then_some(run.taken)
    }
}

fn op_of<L: Layout>(state: &State<L>, actor: Actor) -> u16 {
    match actor {
        Actor::Thread(thread) => state.threads[usize::from(thread)].op,
        Actor::Vcpu(_) | Actor::Device(_) => 0,
    }
}

/// Why a replay goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The claim is broken.
    Broken,
    /// What the code does cannot be told.
    NotKnown,
}

/// A replay on its way.
struct Run<'a, 'b, L: Layout> {
    replayer: &'b mut Replayer<'a, L>,
    state: State<L>,
    taken: Vec<Step>,
    end: Option<End>,
}

impl<L: Layout> Run<'_, '_, L> {
    fn take(&mut self, step: Step) {
        self.taken.push(step);
        self.end = match self.replayer.take(&mut self.state, step) {
            Some(true) => Some(End::Broken),
            Some(false) => None,
            None => Some(End::NotKnown),
        };
    }

    /// Whether the claim is broken, now that no step follows.
    fn breaks(&self) -> bool {
        match self.end {
            Some(end) => end == End::Broken,
            None => {
                self.replayer.target == Invariant::MigrationMakesProgress
                    && is_stuck(&self.replayer.machine, &self.state)
            }
        }
    }

    fn take_if_possible(&mut self, step: Step) {
        if is_possible(&self.replayer.machine, &self.state, step) {
            self.take(step);
        }
    }

    /// The quietest thing that `actor` can do: no signal, no failing send, the lowest page.
    fn quietest(&self, actor: Actor) -> Option<Step> {
        let mut best = None;
        for_each_choice(&self.replayer.machine, &self.state, actor, |choice| {
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
        let actor = item.step.actor;
        // The operations of a VMM's own code have numbers in the order in which they were met, which says nothing of who is behind.
        let is_ordered = self.replayer.machine.code.is_none();
        let mut extra = 0;
        while is_ordered && op_of(&self.state, actor) < item.op && extra < self.replayer.most_extra
        {
            let Some(step) = self.quietest(actor) else {
                return;
            };
            self.take(step);
            if self.end.is_some() {
                return;
            }
            extra += 1;
        }
        let machine = &self.replayer.machine;
        if (!is_ordered || op_of(&self.state, actor) == item.op)
            && is_possible(machine, &self.state, item.step)
            && describe(machine, &self.state, item.step) == item.name
        {
            self.take(item.step);
        }
    }

    /// Lets the threads run to the end of their programs; vCPUs only leave, where a thread waits for that.
    fn finish(&mut self) {
        for _ in 0..self.replayer.most_extra {
            if self.end.is_some() {
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
                    &self.replayer.machine,
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
}
