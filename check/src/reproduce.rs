//! Finding a bug: by seeded schedules, by the search, and how short its schedule gets.
//!
//! ```
//! use dirtysim_check::{reproduce::reproduce, scenario::builtin, shrink::Budget};
//!
//! let scenario = builtin("copy-before-reset").unwrap();
//! let budget = Budget { attempts: 1_000, states: 0, bytes: 1 << 20 };
//! assert!(reproduce(&scenario, budget, &|| true).is_some());
//! ```

use dirtysim_model::oracle::Invariant;
use dirtysim_model::transition::Step;

use crate::run::{self, Scheduler};
use crate::scenario::{Expect, Scenario};
use crate::search;
use crate::shrink::{self, Budget};

/// The most schedules in which a bug is looked for.
pub const MOST_SCHEDULES: u64 = 100_000;

/// The ranges of seeds over which [`median_schedules`] takes its median.
pub const SEED_RANGES: u64 = 20;

/// The distance between two such ranges, so that none reaches into the next.
const RANGE_DISTANCE: u64 = 1_000_000;

/// Seeds that the random scheduler is given before PCT has its turn.
const FIRST_SCHEDULES: u64 = 5_000;

/// The most states that the search for one bug may know.
const MOST_STATES: u64 = 3_000_000;

/// A bug that was found, and its shortest schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reproduced {
    /// What broke.
    pub invariant: Invariant,
    /// The scheduler that found it.
    pub scheduler: Scheduler,
    /// The seed of the first schedule that showed it.
    pub seed: u64,
    /// Schedules until then, that one included.
    pub schedules: u64,
    /// The schedule, shrunk.
    pub steps: Vec<Step>,
    /// Its length in blocks.
    pub blocks: usize,
    /// Whether no schedule is shorter.
    pub shortest: bool,
}

/// PCT as it is used for bugs: three changes of priority.
pub const PCT: Scheduler = Scheduler::Pct { depth: 4 };

/// Asked now and then whether to go on.
pub type GoOn<'a> = &'a (dyn Fn() -> bool + Sync);

/// Looks for what `scenario` expects to break, and shrinks what it finds. The same on any number of threads.
///
/// None: it was not found within [`MOST_SCHEDULES`] of either scheduler, or before it was not to go on, or the scenario
/// expects to hold.
#[must_use]
pub fn reproduce(scenario: &Scenario, budget: Budget, go_on: GoOn<'_>) -> Option<Reproduced> {
    let Expect::Violated(invariant) = scenario.expected() else {
        return None;
    };
    let tries = [
        (Scheduler::Random, 0..FIRST_SCHEDULES),
        (PCT, 0..MOST_SCHEDULES),
        (Scheduler::Random, FIRST_SCHEDULES..MOST_SCHEDULES),
    ];
    let (scheduler, outcome) = tries.into_iter().find_map(|(scheduler, seeds)| {
        let options = run::Options {
            seeds,
            scheduler,
            keep_going: false,
        };
        let outcome = run::run(scenario, &options, &|_| go_on());
        outcome.failure.is_some().then_some((scheduler, outcome))
    })?;
    let failure = outcome.failure?;
    let shrunk = shrink::shrink(scenario, &failure.steps, invariant, budget, &mut |_| {
        go_on()
    })?;
    Some(Reproduced {
        invariant,
        scheduler,
        seed: failure.seed,
        schedules: failure.seed + 1,
        blocks: shrunk.blocks(),
        shortest: shrunk.shortest,
        steps: shrunk.steps,
    })
}

/// Schedules until a bug was found, over [`SEED_RANGES`] ranges of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Median {
    /// The median of the schedules until found; none: in half of the ranges it was not.
    pub schedules: Option<u64>,
    /// Ranges in which it was found.
    pub found: u64,
}

/// The median of the schedules until a scheduler found it, of at most `most`; of an even number of ranges, the lower of the two in
/// the middle. Where it was not to go on, it says nothing.
#[must_use]
pub fn median_schedules(
    scenario: &Scenario,
    scheduler: Scheduler,
    most: u64,
    go_on: GoOn<'_>,
) -> Median {
    let mut counts: Vec<u64> = (0..SEED_RANGES)
        .filter_map(|range| {
            let first = range * RANGE_DISTANCE;
            let options = run::Options {
                seeds: first..first + most,
                scheduler,
                keep_going: false,
            };
            let outcome = run::run(scenario, &options, &|_| go_on());
            outcome.failure.map(|_| outcome.schedules)
        })
        .collect();
    counts.sort_unstable();
    Median {
        schedules: counts.get((SEED_RANGES as usize - 1) / 2).copied(),
        found: counts.len() as u64,
    }
}

/// The states that the search knows when it finds the bug; none if a limit comes first, or it was not to go on.
#[must_use]
pub fn states_until_found(scenario: &Scenario, go_on: GoOn<'_>) -> Option<u64> {
    let options = search::Options {
        max_states: Some(MOST_STATES),
        counterexample: false,
        ..search::Options::default()
    };
    let report = search::check(scenario, &options, &|_| go_on()).ok()?;
    report.violation.map(|_| report.states)
}
