//! Counterexamples beside each other: the search's, and the shortest that random schedules and shrinking find.
//!
//! `cargo bench --bench counterexamples` runs a million seeded schedules of each built-in scenario that is violated. Of
//! those that fail the first are shrunk, and after them each that has fewer blocks than any before; the least of all is
//! compared with the search's counterexample. `-- --schedules N` for other than a million, `-- --shrinks N` for other
//! than 200. It fails if a random one is shorter. Without `--bench` (`cargo test --benches`) it is a thousand and ten.

use std::process::ExitCode;

use dirtysim::run::{self, Failure, Scheduler};
use dirtysim::scenario::{Expect, Scenario, builtins};
use dirtysim::search::minimal::minimal;
use dirtysim::search::{self, Options};
use dirtysim::shrink::{Budget, blocks, shrink};
use dirtysim_model::oracle::Invariant;
use dirtysim_peers::arguments::value;
use rayon::prelude::*;

/// What shrinking one random schedule may cost: trials, and no search, which would find the shortest by itself.
const TRIALS: Budget = Budget {
    attempts: 20_000,
    states: 0,
    bytes: u64::MAX,
};

/// Seeds that are run before their failures are shrunk.
const CHUNK: u64 = 8192;

/// The best of many random schedules.
#[derive(Default)]
struct ByChance {
    schedules: u64,
    failing: u64,
    shrunk: u64,
    fewest_blocks: Option<usize>,
}

fn by_chance(scenario: &Scenario, target: Invariant, schedules: u64, shrinks: u64) -> ByChance {
    let mut found = ByChance::default();
    let mut fewest_raw = usize::MAX;
    let mut seed = 0;
    while seed < schedules {
        let end = schedules.min(seed + CHUNK);
        // Seed by seed, since a run of several ends at the first that fails.
        let failures: Vec<Option<Failure>> = (seed..end)
            .into_par_iter()
            .map(|seed| {
                let options = run::Options {
                    seeds: seed..seed + 1,
                    scheduler: Scheduler::Random,
                    keep_going: false,
                };
                run::run(scenario, &options, &|_| true).failure
            })
            .collect();
        found.schedules += end - seed;
        seed = end;
        for failure in failures.into_iter().flatten() {
            found.failing += 1;
            let raw = blocks(&failure.steps);
            if found.shrunk >= shrinks && raw >= fewest_raw {
                continue;
            }
            fewest_raw = fewest_raw.min(raw);
            found.shrunk += 1;
            let shrunk = shrink(scenario, &failure.steps, target, TRIALS, &mut |_| true);
            let length = shrunk.map_or(raw, |shrunk| shrunk.blocks());
            let least = found
                .fewest_blocks
                .map_or(length, |least| least.min(length));
            found.fewest_blocks = Some(least);
        }
    }
    found
}

fn compare(
    scenario: &Scenario,
    target: Invariant,
    schedules: u64,
    shrinks: u64,
) -> Result<bool, String> {
    let report = search::check(scenario, &Options::default(), &|_| true)
        .map_err(|error| error.to_string())?;
    let violation = report.violation.ok_or("it is violated")?;
    let shown = minimal(scenario, &violation, Budget::default(), &|_| true)
        .ok_or("it has a counterexample")?;
    let chance = by_chance(scenario, target, schedules, shrinks);
    let least = chance
        .fewest_blocks
        .map_or("none".to_owned(), |blocks| blocks.to_string());
    println!(
        "| {} | {} | {} | {} | {least} | {} | {} | {} |",
        scenario.name,
        shown.blocks(),
        shown.steps.len(),
        if shown.fewest_blocks { "yes" } else { "no" },
        chance.schedules,
        chance.failing,
        chance.shrunk
    );
    Ok(chance
        .fewest_blocks
        .is_none_or(|least| shown.blocks() <= least))
}

fn table() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (schedules, shrinks) = match arguments.iter().any(|argument| argument == "--bench") {
        true => (1_000_000, 200),
        false => (1_000, 10),
    };
    let schedules = value(&arguments, "--schedules", schedules)?;
    let shrinks = value(&arguments, "--shrinks", shrinks)?;
    println!(
        "| scenario | blocks | steps | fewest proved | fewest by chance | schedules | failing | shrunk |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|---:|");
    let mut longer = Vec::new();
    for scenario in builtins() {
        if let Expect::Violated(target) = scenario.expected()
            && !compare(&scenario, target, schedules, shrinks)?
        {
            longer.push(scenario.name);
        }
    }
    match longer.is_empty() {
        true => Ok(()),
        false => Err(format!("chance was better on: {}", longer.join(", "))),
    }
}

fn main() -> ExitCode {
    match table() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
