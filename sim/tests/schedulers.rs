//! Schedulers: each comes to an end, draws by the seed alone, and the mix finds what one alone misses.

use dirtysim::run::{self, MOST_STEPS, Options, Outcome};
use dirtysim::scenario::{Expect, Scenario, builtin, builtins};
use dirtysim::scheduler::Scheduler;

const ALL: [Scheduler; 4] = [
    Scheduler::Random,
    Scheduler::Pct { depth: 4 },
    Scheduler::Interrupt,
    Scheduler::Mix,
];

fn outcome(scenario: &Scenario, scheduler: Scheduler, seeds: u64) -> Outcome {
    let options = Options {
        seeds: 0..seeds,
        scheduler,
        keep_going: false,
    };
    run::run(scenario, &options, &|_| true)
}

#[test]
fn every_scheduler_comes_to_an_end() {
    for scenario in builtins() {
        for scheduler in ALL {
            let outcome = outcome(&scenario, scheduler, 100);
            assert_eq!(outcome.cut, 0, "{} by {scheduler}", scenario.name);
            assert!(
                outcome.longest < MOST_STEPS,
                "{} by {scheduler}",
                scenario.name
            );
        }
    }
}

#[test]
fn the_mix_finds_within_its_default_seeds_what_every_built_in_scenario_expects() {
    for scenario in builtins() {
        let Expect::Violated(invariant) = scenario.expected() else {
            continue;
        };
        let found = outcome(&scenario, Scheduler::Mix, 20_000).failure;
        let found = found.unwrap_or_else(|| panic!("{}: nothing found", scenario.name));
        assert_eq!(found.invariant, invariant, "{}", scenario.name);
    }
}

#[test]
fn two_resets_are_found_by_interrupting_within_the_kernel() {
    let scenario = builtin("two-resets").expect("it is built in");
    for scheduler in [Scheduler::Random, Scheduler::Pct { depth: 4 }] {
        assert!(
            outcome(&scenario, scheduler, 5_000).failure.is_none(),
            "{scheduler}"
        );
    }
    let failure = outcome(&scenario, Scheduler::Interrupt, 5_000).failure;
    assert!(failure.is_some());
}

#[test]
fn a_schedule_is_its_seeds_on_any_number_of_threads() {
    let scenario = builtin("s390-mark-during-get").expect("it is built in");
    for scheduler in ALL {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads")
                .install(|| outcome(&scenario, scheduler, 3_000))
        };
        assert_eq!(on(1), on(3), "{scheduler}");
    }
}
