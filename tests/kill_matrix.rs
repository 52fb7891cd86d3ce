//! The kill matrix: which claims see which mutation. Every mutation is seen, and every claim sees one.
//!
//! `DIRTYSIM_BLESS=1 cargo test --test kill_matrix` rewrites the expected file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use dirtysim::bugs::BUGS;
use dirtysim::run::{Options, Scheduler, run};
use dirtysim::scenario::{Expect, Scenario, about_liveness, mutation_scenarios};
use dirtysim::search::{self, liveness::liveness};
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::words::mutation::Mutation;

const EXPECTED: &str = "tests/kill_matrix.txt";

/// Schedules of each scheduler in which everything that breaks is noted.
const SCHEDULES: u64 = 300;

/// Schedules within which the claim that the scenario names must break.
const MOST_SCHEDULES: u64 = 100_000;

fn broken(scenario: &Scenario, seeds: u64, scheduler: Scheduler, keep_going: bool) -> Invariants {
    let options = Options {
        seeds: 0..seeds,
        scheduler,
        keep_going,
    };
    run(scenario, &options, &|_| true).broken
}

/// What breaks with the scenario's mutation switched on.
fn seen_by(scenario: &Scenario) -> Invariants {
    let pct = Scheduler::Pct { depth: 4 };
    let mut whole = scenario.clone();
    // Aiming at the claim that only an end can break lets every schedule run to its end.
    whole.expect = Some(Expect::Violated(Invariant::MigrationMakesProgress));
    let mut seen = broken(&whole, SCHEDULES, Scheduler::Random, true);
    seen.union(broken(&whole, SCHEDULES, pct, true));
    let Expect::Violated(invariant) = scenario.expected() else {
        panic!("{} expects to hold", scenario.name);
    };
    if !seen.has(invariant) {
        let options = Options {
            seeds: 0..MOST_SCHEDULES,
            scheduler: Scheduler::Random,
            keep_going: false,
        };
        if run(scenario, &options, &|_| true).failure.is_some() {
            seen.insert(invariant);
        }
    }
    seen
}

fn matrix() -> BTreeMap<Mutation, Invariants> {
    let mut rows: BTreeMap<Mutation, Invariants> = Mutation::ALL
        .iter()
        .map(|mutation| (*mutation, Invariants::NONE))
        .collect();
    let scenarios = BUGS.iter().flat_map(|bug| bug.scenarios());
    for scenario in scenarios.chain(mutation_scenarios()) {
        let seen = seen_by(&scenario);
        for mutation in scenario.machine.mutations().iter() {
            if let Some(row) = rows.get_mut(&mutation) {
                row.union(seen);
            }
        }
    }
    // What goes on for ever is seen by no schedule.
    for scenario in about_liveness() {
        let mutations: Vec<Mutation> = scenario.machine.mutations().iter().collect();
        if mutations.is_empty() {
            continue;
        }
        let report = liveness(&scenario, &search::Options::default(), &|_| true);
        let broken = report.expect("it can be searched").broken;
        for mutation in mutations {
            if let Some(row) = rows.get_mut(&mutation) {
                row.union(broken);
            }
        }
    }
    rows
}

fn table(rows: &BTreeMap<Mutation, Invariants>) -> String {
    let mut text = String::new();
    for (mutation, seen) in rows {
        let names: Vec<&str> = seen.iter().map(Invariant::name).collect();
        let _ = writeln!(text, "{}\n    {}", mutation.name(), names.join(", "));
    }
    text
}

#[test]
fn every_mutation_is_seen_and_every_claim_sees_one() {
    let rows = matrix();
    let unseen: Vec<&str> = rows
        .iter()
        .filter(|(_, seen)| seen.is_empty())
        .map(|(mutation, _)| mutation.name())
        .collect();
    assert!(unseen.is_empty(), "seen by no claim: {unseen:?}");
    let blind: Vec<&str> = Invariant::ALL
        .iter()
        .copied()
        .filter(|invariant| !rows.values().any(|seen| seen.has(*invariant)))
        .map(Invariant::name)
        .collect();
    assert!(blind.is_empty(), "claims that see no mutation: {blind:?}");
    let text = table(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXPECTED);
    dirtysim_expected::file(&path, text);
}
