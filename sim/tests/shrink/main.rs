//! Shrinking: what is left breaks the same claim, nothing of it can be spared, and the same goes in and comes out.

use std::collections::{BTreeMap, BTreeSet};

use dirtysim::run::{self, Options, Scheduler};
use dirtysim::scenario::{self, Expect, Scenario};
use dirtysim::shrink::{self, Budget, Shrunk};
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{Actor, Step, apply, for_each_step};

/// The first failing schedule of a scenario from `seed` on.
fn failure(scenario: &Scenario, seed: u64) -> run::Failure {
    let options = Options {
        seeds: seed..seed + 200_000,
        scheduler: Scheduler::Random,
        keep_going: false,
    };
    run::run(scenario, &options, &|_| true)
        .failure
        .unwrap_or_else(|| panic!("{} fails within 200000 schedules", scenario.name))
}

fn violated() -> impl Iterator<Item = (Scenario, Invariant)> {
    scenario::builtins()
        .into_iter()
        .filter_map(|scenario| match scenario.expected() {
            Expect::Violated(invariant) => Some((scenario, invariant)),
            Expect::Holds => None,
        })
}

fn shrink(scenario: &Scenario, steps: &[Step], target: Invariant, budget: Budget) -> Shrunk {
    shrink::shrink(scenario, steps, target, budget, &mut |_| true)
        .expect("the schedule breaks the claim")
}

/// Replays what is possible of `steps`; whether the claim breaks.
fn breaks(scenario: &Scenario, steps: &[Step], target: Invariant, exactly: bool) -> bool {
    let mut state = scenario.start::<Small>().expect("it fits");
    for &step in steps {
        if !shrink::is_possible(&scenario.machine, &state, step) {
            if exactly {
                return false;
            }
            continue;
        }
        let effect = apply(&scenario.machine, &mut state, step);
        if oracle::check(&scenario.machine, &state, effect).has(target) {
            return true;
        }
    }
    false
}

fn assert_minimal(scenario: &Scenario, steps: &[Step], target: Invariant) {
    let name = &scenario.name;
    assert!(breaks(scenario, steps, target, true), "{name}");
    for index in 0..steps.len() {
        let mut less = steps.to_vec();
        less.remove(index);
        assert!(
            !breaks(scenario, &less, target, false),
            "{name}: step {index} of {} can be dropped",
            steps.len()
        );
    }
}

#[test]
fn a_shrunk_schedule_is_the_shortest_and_no_step_of_it_can_be_dropped() {
    for (scenario, target) in violated() {
        let failure = failure(&scenario, 0);
        let shrunk = shrink(&scenario, &failure.steps, target, Budget::default());
        assert!(shrunk.shortest && !shrunk.cut, "{}", scenario.name);
        assert_minimal(&scenario, &shrunk.steps, target);
    }
}

#[test]
fn without_a_search_no_step_can_be_dropped_either() {
    let budget = Budget {
        states: 0,
        ..Budget::default()
    };
    for (scenario, target) in violated() {
        for seed in [0, 7, 1000] {
            let failure = failure(&scenario, seed);
            let shrunk = shrink(&scenario, &failure.steps, target, budget);
            assert!(!shrunk.shortest && !shrunk.cut, "{}", scenario.name);
            assert_minimal(&scenario, &shrunk.steps, target);
            let again = shrink(&scenario, &shrunk.steps, target, budget);
            assert_eq!(again.steps, shrunk.steps, "{}", scenario.name);
        }
    }
}

#[test]
fn the_shortest_schedule_does_not_depend_on_where_shrinking_began() {
    for name in ["reset-signal", "pml-not-waited", "bitmap-before-its-save"] {
        let scenario = scenario::builtin(name).expect("a built-in scenario");
        let Expect::Violated(target) = scenario.expected() else {
            panic!("{name} is violated");
        };
        let from = |seed| {
            let failure = failure(&scenario, seed);
            shrink(&scenario, &failure.steps, target, Budget::default()).steps
        };
        let first = from(0);
        for seed in [3, 500, 9000] {
            assert_eq!(from(seed), first, "{name}, seed {seed}");
        }
        let again = shrink(&scenario, &first, target, Budget::default());
        assert_eq!(again.steps, first, "{name}");
    }
}

/// The least (blocks, steps) of any schedule that breaks `target`: a search that shares no code with the one under
/// test, over states as they print.
fn naive_shortest(scenario: &Scenario, target: Invariant) -> (usize, usize) {
    let machine = &scenario.machine;
    let start = scenario.start::<Small>().expect("it fits");
    let mut open = BTreeMap::from([((0, 0), vec![(start, None::<Actor>)])]);
    let mut seen = BTreeSet::new();
    let mut best: Option<(usize, usize)> = None;
    while let Some((cost, bucket)) = open.pop_first() {
        if let Some(best) = best.filter(|best| *best <= cost) {
            return best;
        }
        for (state, actor) in bucket {
            if !seen.insert(format!("{actor:?} {state:?}")) {
                continue;
            }
            let mut possible = Vec::new();
            for_each_step(machine, &state, |step| possible.push(step));
            for step in possible {
                let next = (cost.0 + usize::from(actor != Some(step.actor)), cost.1 + 1);
                let mut after = state.clone();
                let effect = apply(machine, &mut after, step);
                if oracle::check(machine, &after, effect).has(target) {
                    best = Some(best.map_or(next, |best| best.min(next)));
                } else {
                    open.entry(next)
                        .or_default()
                        .push((after, Some(step.actor)));
                }
            }
        }
    }
    panic!("{} is violated", scenario.name)
}

#[test]
fn the_shortest_schedule_is_as_short_as_a_naive_search_finds() {
    for name in ["reset-signal", "pml-not-waited", "bitmap-before-its-save"] {
        let scenario = scenario::builtin(name).expect("a built-in scenario");
        let Expect::Violated(target) = scenario.expected() else {
            panic!("{name} is violated");
        };
        let failure = failure(&scenario, 0);
        let shrunk = shrink(&scenario, &failure.steps, target, Budget::default());
        assert_eq!(
            shrink::length(&shrunk.steps),
            naive_shortest(&scenario, target),
            "{name}"
        );
    }
}

#[test]
fn a_schedule_that_breaks_nothing_is_not_shrunk() {
    let scenario = scenario::builtin("reset-signal").expect("a built-in scenario");
    let failure = failure(&scenario, 0);
    let whole = &failure.steps;
    let less = &whole[..whole.len() - 1];
    let shrunk = |steps: &[Step]| {
        shrink::shrink(
            &scenario,
            steps,
            failure.invariant,
            Budget::default(),
            &mut |_| true,
        )
    };
    assert_eq!(shrunk(less), None);
    assert_eq!(shrunk(&[whole[whole.len() - 1]]), None);
    assert!(shrunk(whole).is_some());
}

#[test]
fn a_budget_ends_the_work_with_what_is_known() {
    let scenario = scenario::builtin("copy-before-reset").expect("a built-in scenario");
    let failure = failure(&scenario, 0);
    let budget = Budget {
        attempts: 20,
        states: 100,
        bytes: u64::MAX,
    };
    let shrunk = shrink(&scenario, &failure.steps, failure.invariant, budget);
    assert!(shrunk.cut && !shrunk.shortest);
    assert!(breaks(&scenario, &shrunk.steps, failure.invariant, true));
    let mut calls = 0;
    let stopped = shrink::shrink(
        &scenario,
        &failure.steps,
        failure.invariant,
        Budget::default(),
        &mut |_| {
            calls += 1;
            false
        },
    )
    .expect("the schedule breaks the claim");
    assert!(stopped.cut && calls <= 2);
    assert!(breaks(&scenario, &stopped.steps, failure.invariant, true));
}
