use dirtysim::bugs::{BUGS, Reproduction};
use dirtysim::run::{Options, Scheduler, run};
use dirtysim::scenario::{Expect, Scenario, mutation_scenarios};

/// The most schedules in which a bug must show.
const MOST_SCHEDULES: u64 = 100_000;

fn found(scenario: &Scenario, scheduler: Scheduler) -> Option<u64> {
    let options = Options {
        seeds: 0..MOST_SCHEDULES,
        scheduler,
        keep_going: false,
    };
    let outcome = run(scenario, &options, &|_| true);
    outcome.failure.map(|_| outcome.schedules)
}

fn every_scenario() -> Vec<Scenario> {
    BUGS.iter()
        .flat_map(|bug| bug.scenarios())
        .chain(mutation_scenarios())
        .collect()
}

#[test]
fn at_least_40_bugs_are_reproduced() {
    let reproduced = BUGS
        .iter()
        .filter(|bug| matches!(bug.how, Reproduction::Scenarios(_)));
    assert!(reproduced.count() >= 40);
}

#[test]
fn a_bug_breaks_what_its_oracle_sees() {
    for bug in BUGS {
        for scenario in bug.scenarios() {
            match scenario.expected() {
                Expect::Violated(invariant) => assert!(
                    bug.oracle.sees(invariant) || scenario.name != bug.id.to_lowercase(),
                    "{}: {} is not what {} sees",
                    scenario.name,
                    invariant.name(),
                    bug.oracle.name()
                ),
                Expect::Holds => panic!("{} expects to hold", scenario.name),
            }
        }
    }
}

#[test]
fn every_bug_is_found() {
    let mut missing = Vec::new();
    for scenario in every_scenario() {
        let random = found(&scenario, Scheduler::Random);
        let pct = random.map_or_else(|| found(&scenario, Scheduler::Pct { depth: 4 }), |_| None);
        match random.or(pct) {
            Some(schedules) => println!("{} {schedules}", scenario.name),
            None => missing.push(scenario.name),
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn no_bug_is_found_with_its_mutation_off() {
    let mut broken = Vec::new();
    for scenario in every_scenario() {
        let scenario = scenario.without_mutations();
        let options = Options {
            seeds: 0..3000,
            scheduler: Scheduler::Random,
            keep_going: false,
        };
        let outcome = run(&scenario, &options, &|_| true);
        if let Some(failure) = outcome.failure {
            broken.push(format!(
                "{} breaks {}",
                scenario.name,
                failure.invariant.name()
            ));
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_built_in_scenario_comes_to_its_verdict_under_schedules() {
    let mut wrong = Vec::new();
    for scenario in dirtysim::scenario::builtins() {
        let options = Options {
            seeds: 0..20_000,
            scheduler: Scheduler::Random,
            keep_going: false,
        };
        let outcome = run(&scenario, &options, &|_| true);
        let broken = outcome.failure.map(|failure| failure.invariant);
        let expected = match scenario.expected() {
            Expect::Holds => None,
            Expect::Violated(invariant) => Some(invariant),
        };
        if broken != expected || outcome.cut > 0 {
            wrong.push(format!(
                "{}: {broken:?}, {} cut",
                scenario.name, outcome.cut
            ));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
