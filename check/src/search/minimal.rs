//! A counterexample for people: as few blocks as there can be, and of those as few steps.
//!
//! The search finds a schedule with the fewest steps; a reader counts blocks, consecutive steps of one actor. The
//! schedule found is the bound of another search, for the fewest blocks (`shrink`), which sees only the states that few
//! changes of actor reach. Where that fits its budget, no schedule at all has fewer blocks. Where it does not, no step of
//! what is shown can be dropped, and the document says that it may not be the shortest.

use dirtysim_model::transition::Step;

use super::Violation;
use crate::run::{self, Scheduler};
use crate::scenario::{Expect, Scenario};
use crate::shrink::{self, Budget, Progress};

/// Schedules that are tried where the search had no room for a counterexample.
const SCHEDULES: u64 = 20_000;

/// A counterexample that is as short as it could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimal {
    /// The steps, up to and including the one that breaks the claim.
    pub steps: Vec<Step>,
    /// Whether no schedule that breaks the claim has fewer blocks, or as many and fewer steps.
    pub fewest_blocks: bool,
    /// Whether a limit, or whoever watches, ended the work before no step could be dropped.
    pub cut: bool,
    /// The fewest steps with which any schedule breaks the claim, where that is known; those shown may be more.
    pub fewest_steps: Option<usize>,
}

impl Minimal {
    /// The length in blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        shrink::blocks(&self.steps)
    }
}

/// Makes the counterexample of a violation minimal. Where a limit kept the search from one, seeded schedules are tried.
///
/// `progress` is called now and then, and answers whether to go on. None: no schedule that breaks the claim is known.
pub fn minimal(
    scenario: &Scenario,
    violation: &Violation,
    budget: Budget,
    progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Option<Minimal> {
    let found = violation.steps.clone();
    let fewest_steps = found.as_ref().filter(|_| violation.shortest).map(Vec::len);
    let steps = match found {
        Some(steps) => steps,
        None => by_chance(scenario, violation, progress)?,
    };
    let shrunk = shrink::shrink(scenario, &steps, violation.invariant, budget, &mut |done| {
        progress(done)
    });
    Some(match shrunk {
        Some(shrunk) => Minimal {
            steps: shrunk.steps,
            fewest_blocks: shrunk.shortest,
            cut: shrunk.cut,
            fewest_steps,
        },
        None => Minimal {
            steps,
            fewest_blocks: false,
            cut: true,
            fewest_steps,
        },
    })
}

/// The first of some seeded schedules that breaks the claim.
fn by_chance(
    scenario: &Scenario,
    violation: &Violation,
    progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Option<Vec<Step>> {
    let mut wanted = scenario.clone();
    wanted.expect = Some(Expect::Violated(violation.invariant));
    let options = run::Options {
        seeds: 0..SCHEDULES,
        scheduler: Scheduler::Random,
        keep_going: false,
    };
    let outcome = run::run(&wanted, &options, &|_| progress(Progress::default()));
    outcome.failure.map(|failure| failure.steps)
}
