//! The search instead of schedules: within its bounds there is nothing that it has not seen.

use std::time::Instant;

use dirtysim::bugs::BUGS;
use dirtysim::scenario::{Scenario, builtin, mutation_scenarios};
use dirtysim::search::{Options, Verdict, check};

/// States after which a scenario of a bug is too large.
const MOST_STATES: u64 = 2_000_000;

/// Scenarios with more states than that.
const LARGE: [&str; 1] = ["q16-release"];

fn options() -> Options {
    Options {
        max_states: Some(MOST_STATES),
        counterexample: false,
        ..Options::default()
    }
}

fn every_scenario() -> Vec<Scenario> {
    BUGS.iter()
        .flat_map(|bug| bug.scenarios())
        .chain(mutation_scenarios())
        .collect()
}

#[test]
fn the_search_finds_every_bug_and_nothing_with_its_mutation_off() {
    let mut wrong = Vec::new();
    for scenario in every_scenario() {
        let begun = Instant::now();
        let on = check(&scenario, &options(), &|_| true).expect("a bug's scenario is small");
        let off = scenario.clone().without_mutations();
        let off = check(&off, &options(), &|_| true).expect("a bug's scenario is small");
        println!(
            "{} {} {} {:?} {} {:?}",
            scenario.name,
            on.states,
            off.states,
            on.verdict,
            off.verdict == Verdict::Holds,
            begun.elapsed()
        );
        // Within the limit, nothing that contradicts the schedules; beyond it, only where the scenario is known to be large.
        if LARGE.contains(&scenario.name.as_str()) {
            assert_ne!(on.verdict, Verdict::Holds, "{}", scenario.name);
            assert_ne!(off.verdict, Verdict::Violated, "{}", scenario.name);
            continue;
        }
        if on.verdict != Verdict::Violated {
            wrong.push(format!("{}: {:?}", scenario.name, on.verdict));
        }
        if off.verdict != Verdict::Holds {
            wrong.push(format!(
                "{} without its mutation: {:?} {:?}",
                scenario.name, off.verdict, off.coverage
            ));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_vmm_that_holds_under_schedules_holds_under_the_search() {
    for name in ["qemu-bitmap", "firecracker-diff", "selftest-dirty-ring"] {
        let scenario = builtin(name).expect("it comes with the program");
        let report = check(&scenario, &options(), &|_| true).expect("it is small");
        println!("{name} {} {:?}", report.states, report.verdict);
        assert_ne!(report.verdict, Verdict::Violated, "{name}");
    }
}
