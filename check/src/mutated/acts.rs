//! Whether a mutation did anything: taken with it off, would a step have led elsewhere?
//!
//! That is asked of schedules, step by step, and of the set-up. To ask it of each transition of a search would double
//! the search, so that a search is answered for by a sample: seeded schedules of the same scenario, and the schedule
//! that it shows.

use dirtysim_model::machine::Machine;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply, for_each_step};
use dirtysim_model::words::mutation::{Mutation, Mutations};

use crate::ladder::{Any, on_any};
use crate::random::Choices;
use crate::scenario::Scenario;
use crate::shrink::is_possible;

/// Seeded schedules in which [`acted`] looks for a step of every mutation, at most.
pub const SCHEDULES: u64 = 64;

/// The most steps in which it looks, over all schedules.
const MOST_STEPS: u64 = 20_000;

/// What the mutations of a scenario did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acted {
    /// Mutations that a step, or the set-up, met: what it did would have been otherwise without.
    pub met: Vec<Mutation>,
    /// Mutations that are on and that nothing met.
    pub never: Vec<Mutation>,
    /// The schedules in which they were looked for.
    pub schedules: u64,
}

/// Which mutations of the scenario act in some of [`SCHEDULES`] seeded schedules, or in `shown`.
#[must_use]
pub fn acted(scenario: &Scenario, shown: Option<&[Step]>) -> Acted {
    look(scenario, shown, SCHEDULES)
}

/// Which mutations of the scenario act in that schedule. A step that is not possible ends it.
#[must_use]
pub fn acted_in(scenario: &Scenario, steps: &[Step]) -> Acted {
    look(scenario, Some(steps), 0)
}

/// The steps of that schedule, by their numbers from 1 on, that would have been impossible or led elsewhere with every mutation
/// off; 0 is the set-up. A step that is not possible ends it.
#[must_use]
pub fn acts_at(scenario: &Scenario, steps: &[Step]) -> Vec<usize> {
    on_any!(Any::start(scenario), |start| acts_from(
        scenario, start, steps
    ))
}

fn acts_from<L: Layout>(scenario: &Scenario, mut state: State<L>, steps: &[Step]) -> Vec<usize> {
    let right = scenario.clone().without_mutations();
    let own = |state: &State<L>| format!("{state:?}");
    let mut at = Vec::new();
    if !right
        .start::<L>()
        .is_ok_and(|start| own(&start) == own(&state))
    {
        at.push(0);
    }
    for (number, &step) in (1..).zip(steps) {
        let before = state.clone();
        if !is_possible(&scenario.machine, &before, step) {
            break;
        }
        let effect = apply(&scenario.machine, &mut state, step);
        let mut other = before.clone();
        let same = is_possible(&right.machine, &before, step)
            && apply(&right.machine, &mut other, step) == effect
            && own(&other) == own(&state);
        if !same {
            at.push(number);
        }
    }
    at
}

fn look(scenario: &Scenario, shown: Option<&[Step]>, seeds: u64) -> Acted {
    if scenario.machine.mutations().is_empty() {
        return Acted::default();
    }
    on_any!(Any::start(scenario), |start| Look::new(scenario, start)
        .all(shown, seeds))
}

/// Mutations that nothing has met so far, each with the machine that has it off.
struct Look<'a, L: Layout> {
    scenario: &'a Scenario,
    start: State<L>,
    left: Vec<(Mutation, Machine)>,
    met: Vec<Mutation>,
    steps: u64,
}

impl<'a, L: Layout> Look<'a, L> {
    fn new(scenario: &'a Scenario, start: State<L>) -> Self {
        let left = scenario
            .machine
            .mutations()
            .iter()
            .map(|mutation| (mutation, without(&scenario.machine, mutation)))
            .collect();
        Self {
            scenario,
            start,
            left,
            met: Vec::new(),
            steps: 0,
        }
    }

    fn all(mut self, shown: Option<&[Step]>, seeds: u64) -> Acted {
        self.set_up();
        let mut schedules = 0;
        if let Some(steps) = shown {
            schedules += 1;
            self.follow(steps);
        }
        for seed in 0..seeds {
            if self.left.is_empty() || self.steps >= MOST_STEPS {
                break;
            }
            schedules += 1;
            self.wander(seed);
        }
        let order = |mutations: Vec<Mutation>| {
            let mut mutations = mutations;
            mutations.sort_unstable();
            mutations
        };
        Acted {
            met: order(self.met),
            never: order(
                self.left
                    .into_iter()
                    .map(|(mutation, _)| mutation)
                    .collect(),
            ),
            schedules,
        }
    }

    /// Notes the mutations for which `elsewhere` says that things went otherwise with them than without.
    fn note(&mut self, elsewhere: impl Fn(&Machine) -> bool) {
        let met = &mut self.met;
        self.left.retain(|(mutation, machine)| {
            let acts = elsewhere(machine);
            if acts {
                met.push(*mutation);
            }
            !acts
        });
    }

    /// The set-up runs on the mutated machine too.
    fn set_up(&mut self) {
        let own = format!("{:?}", self.start);
        let scenario = self.scenario;
        self.note(|machine| {
            let mut other = scenario.clone();
            other.machine = machine.clone();
            other
                .start::<L>()
                .is_ok_and(|start| format!("{start:?}") != own)
        });
    }

    fn follow(&mut self, steps: &[Step]) {
        let mut state = self.start.clone();
        let mut possible = Vec::new();
        for &step in steps {
            self.possible(&state, &mut possible);
            if self.left.is_empty() || !possible.contains(&step) {
                return;
            }
            self.take(&mut state, step);
        }
    }

    fn wander(&mut self, seed: u64) {
        let mut state = self.start.clone();
        let mut choices = Choices::new(seed, 0);
        let mut possible = Vec::new();
        while !self.left.is_empty() && self.steps < MOST_STEPS {
            self.possible(&state, &mut possible);
            if possible.is_empty() {
                return;
            }
            let step = possible[choices.below(possible.len() as u32) as usize];
            self.take(&mut state, step);
        }
    }

    /// The possible steps; a mutation that changes them acts.
    fn possible(&mut self, state: &State<L>, possible: &mut Vec<Step>) {
        possible.clear();
        for_each_step(&self.scenario.machine, state, |step| possible.push(step));
        self.note(|machine| {
            let mut at = 0;
            let mut same = true;
            for_each_step(machine, state, |step| {
                same &= possible.get(at) == Some(&step);
                at += 1;
            });
            !same || at != possible.len()
        });
    }

    fn take(&mut self, state: &mut State<L>, step: Step) {
        self.steps += 1;
        let before = state.clone();
        let effect = apply(&self.scenario.machine, state, step);
        let own = format!("{state:?}");
        self.note(|machine| {
            let mut after = before.clone();
            let other = apply(machine, &mut after, step);
            other != effect || format!("{after:?}") != own
        });
    }
}

/// The machine with one mutation off.
fn without(machine: &Machine, mutation: Mutation) -> Machine {
    let mut other = machine.clone();
    let mut others = Mutations::default();
    for on in machine.mutations().iter().filter(|on| *on != mutation) {
        others.switch_on(on);
    }
    dirtysim_model::mutated::set(&mut other, others);
    other
}
