//! The plainest explorer there is: breadth first over whole states, as the transition function makes them, every claim judged by the
//! oracle. It packs, remembers, reduces and exchanges nothing, and shares nothing with the search that it is there to check.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use dirtysim::scenario::Scenario;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Effect, Step, apply, for_each_step, is_at_leisure};

/// What there is to know of a scenario.
pub(crate) struct Explored<L: Layout> {
    /// Every state that some schedule comes to.
    pub(crate) states: HashSet<Rc<State<L>>>,
    /// The claims that some schedule breaks, each with the fewest steps that do it.
    pub(crate) broken: BTreeMap<Invariant, usize>,
    /// Whether some schedule comes to a step that claims something.
    pub(crate) claimed: bool,
}

/// Explores all of a scenario; none where it has more than `most` states.
pub(crate) fn explore<L: Layout>(scenario: &Scenario, most: usize) -> Option<Explored<L>> {
    let machine = &scenario.machine;
    let start = Rc::new(scenario.start::<L>().expect("the layout has room for it"));
    let mut explored = Explored {
        states: HashSet::from([start.clone()]),
        broken: BTreeMap::new(),
        claimed: false,
    };
    explored.judge(machine, &start, Effect::None, 0);
    let mut level = vec![start];
    let mut depth = 0;
    while !level.is_empty() {
        let mut next = Vec::new();
        for state in level {
            let mut steps = Vec::new();
            for_each_step(machine, &state, |step| steps.push(step));
            if nobody_must(&state, &steps) && is_stuck(machine, &state) {
                explored.note(machine, Invariant::MigrationMakesProgress, depth);
            }
            for step in steps {
                let mut after = State::clone(&state);
                let effect = apply(machine, &mut after, step);
                explored.judge(machine, &after, effect, depth + 1);
                let after = Rc::new(after);
                if explored.states.insert(after.clone()) {
                    next.push(after);
                }
            }
        }
        if explored.states.len() > most {
            return None;
        }
        level = next;
        depth += 1;
    }
    Some(explored)
}

impl<L: Layout> Explored<L> {
    fn judge(&mut self, machine: &Machine, state: &State<L>, effect: Effect, depth: usize) {
        self.claimed |= matches!(effect, Effect::Claim { .. });
        for claim in oracle::check(machine, state, effect).iter() {
            self.note(machine, claim, depth);
        }
    }

    fn note(&mut self, machine: &Machine, claim: Invariant, depth: usize) {
        if machine.claims.has(claim) {
            self.broken.entry(claim).or_insert(depth);
        }
    }
}

/// Whether none of the steps is one that must come: any number may be as many as there were.
fn nobody_must<L: Layout>(state: &State<L>, steps: &[Step]) -> bool {
    steps.iter().all(|step| is_at_leisure(state, *step))
}

/// Whether a state in which nobody can act is no end.
fn is_stuck<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    let at = state.threads.iter().map(|thread| usize::from(thread.op));
    let mut programs = machine.programs.iter().zip(at);
    !state.finished && !state.crashed && programs.any(|(program, at)| at < program.len())
}

/// The fewest blocks with which a schedule breaks the claim, and of those the fewest steps: ways of equal length to a state by whom it
/// was come to, shorter ways first.
pub(crate) fn fewest_blocks<L: Layout>(
    scenario: &Scenario,
    claim: Invariant,
) -> Option<(usize, usize)> {
    let machine = &scenario.machine;
    let start = scenario.start::<L>().expect("the layout has room for it");
    if oracle::check(machine, &start, Effect::None).has(claim) {
        return Some((0, 0));
    }
    let mut open = BTreeMap::from([((0, 0), vec![(start, None)])]);
    let mut seen = HashSet::new();
    let mut least: Option<(usize, usize)> = None;
    while let Some((length, ways)) = open.pop_first() {
        if least.is_some_and(|least| least <= length) {
            break;
        }
        for (state, actor) in ways {
            if !seen.insert((state.clone(), actor)) {
                continue;
            }
            let mut steps = Vec::new();
            for_each_step(machine, &state, |step| steps.push(step));
            let stuck = nobody_must(&state, &steps) && is_stuck(machine, &state);
            if stuck && claim == Invariant::MigrationMakesProgress {
                least = Some(length);
            }
            for step in steps {
                let blocks = length.0 + usize::from(actor != Some(step.actor));
                let next = (blocks, length.1 + 1);
                let mut after = state.clone();
                let effect = apply(machine, &mut after, step);
                if oracle::check(machine, &after, effect).has(claim) {
                    least = Some(least.map_or(next, |least| least.min(next)));
                } else {
                    open.entry(next)
                        .or_default()
                        .push((after, Some(step.actor)));
                }
            }
        }
    }
    least
}
