//! What a step writes is said in its operation's row: on random schedules of what the program comes with, slow operations included,
//! which the search takes by hand.

use std::collections::BTreeSet;

use dirtysim::bugs::BUGS;
use dirtysim::random::Choices;
use dirtysim::scenario::{Scenario, about_liveness, builtin, builtins, mutation_scenarios};
use dirtysim_model::reduce::footprint::undeclared;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_step};
use dirtysim_model::words::{Fields, Frame};

/// Follows a random schedule, and notes the names of the threads' steps.
fn follow(scenario: &Scenario, seed: u64, met: &mut BTreeSet<&'static str>) {
    let machine = &scenario.machine;
    let mut state: State<Large> = scenario.start().expect("the large layout has room");
    let mut choices = Choices::new(seed, 12);
    for _ in 0..600 {
        let mut steps = Vec::new();
        for_each_step(machine, &state, |step| steps.push(step));
        if steps.is_empty() {
            return;
        }
        let step = steps[choices.below(steps.len() as u32) as usize];
        let before = state.clone();
        let word = describe(machine, &before, step);
        apply(machine, &mut state, step);
        if matches!(step.actor, Actor::Thread(_)) {
            met.insert(word.name());
        }
        let besides = undeclared(machine, &before, step, &state);
        assert!(
            besides.is_none(),
            "{}, seed {seed}: {word} writes {besides:?} besides",
            scenario.name
        );
    }
}

#[test]
fn a_step_writes_what_its_row_says() {
    let bugs = BUGS.iter().flat_map(|bug| bug.scenarios());
    let all = builtins().into_iter().chain(about_liveness());
    let mut met = BTreeSet::new();
    for scenario in all.chain(mutation_scenarios()).chain(bugs) {
        for seed in 0..12 {
            follow(&scenario.clone().without_mutations(), seed, &mut met);
        }
        // With a mutation, what its operations write as a whole, and what it writes besides.
        if !scenario.machine.mutations().is_empty() {
            for seed in 0..12 {
                follow(&scenario, seed, &mut met);
            }
        }
    }
    assert!(met.len() > 75, "most operations' steps are met: {met:?}");
}

#[test]
fn what_no_row_says_is_told() {
    let scenario = builtin("kernel-docs").expect("it is built in");
    let before: State<Large> = scenario.start().expect("the large layout has room");
    let step = Step {
        actor: Actor::Thread(0),
        choice: Choice::Advance,
    };
    let mut after = before.clone();
    apply(&scenario.machine, &mut after, step);
    assert!(undeclared(&scenario.machine, &before, step, &after).is_none());
    after.bitmap.insert(Frame(0));
    let besides = undeclared(&scenario.machine, &before, step, &after);
    assert!(besides.has(Fields::BITMAP), "{besides:?}");
}
