//! Shrinking: the shortest schedule with the same violation.
//!
//! Length is counted in blocks (maximal runs of consecutive steps of one actor), then in steps. A schedule is first made
//! smaller by trial (`local`: drop actors, blocks and steps, merge blocks, lower page numbers), replayed each time from
//! the start; then, where the states fit the budget, a search (`search`) bounded by that length finds the shortest one
//! there is, so that the result no longer depends on where it began. Where they do not fit, what is left is 1-minimal:
//! no step can be dropped and no block can be moved to another of its actor without losing the violation.
//!
//! The order of one actor's own steps is the model's and cannot be changed; a thread of the VMM goes through its program.
//!
//! ```
//! use dirtysim_check::run::{Options, run};
//! use dirtysim_check::scheduler::Scheduler;
//! use dirtysim_check::shrink::{Budget, shrink};
//! use dirtysim_check::scenario::Scenario;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! let options = Options { seeds: 0..1_000, scheduler: Scheduler::Mix, keep_going: false };
//! let failure = run(&scenario, &options, &|_| true).failure.unwrap();
//! let budget = Budget::default();
//! let shrunk = shrink(&scenario, &failure.steps, failure.invariant, budget, &mut |_| true).unwrap();
//! assert!(shrunk.steps.len() <= failure.steps.len());
//! ```

mod local;
mod schedule;
mod search;

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::Invariant;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Step};

use crate::code::{self, Grow};
use crate::first;
use crate::ladder::{Any, on_any};
use crate::scenario::Scenario;
use schedule::Replayer;
pub use schedule::{blocks, is_possible, length};

/// How much work may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Replays, at most.
    pub attempts: u64,
    /// Ways to states that the search may remember, at most; 0: no search.
    pub states: u64,
    /// Bytes that they may take.
    pub bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            attempts: 100_000,
            states: 4_000_000,
            bytes: u64::MAX,
        }
    }
}

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Replays done.
    pub attempts: u64,
    /// States searched.
    pub states: u64,
    /// Blocks of the shortest schedule so far.
    pub blocks: usize,
    /// Steps of the shortest schedule so far.
    pub steps: usize,
}

/// A schedule that was shrunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The steps, up to and including the one that breaks the claim.
    pub steps: Vec<Step>,
    /// Whether no schedule with this violation has fewer blocks, or as many and fewer steps: the search covered them all.
    pub shortest: bool,
    /// Whether the budget or the caller ended the work before a fixed point.
    pub cut: bool,
    /// The work that was done.
    pub progress: Progress,
}

impl Shrunk {
    /// The length in blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        blocks(&self.steps)
    }
}

/// Who is told how far the work is, and what they answered.
pub(crate) struct Watch<'a> {
    callback: &'a mut dyn FnMut(Progress) -> bool,
    progress: Progress,
    stopped: bool,
}

/// Shrinks `steps`, which begin at the scenario's start, to the shortest schedule that breaks `target`.
///
/// `progress` is called now and then, and answers whether to go on. Same input and budget, same result.
///
/// None: the steps do not break `target`.
pub fn shrink(
    scenario: &Scenario,
    steps: &[Step],
    target: Invariant,
    budget: Budget,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Option<Shrunk> {
    shrink_any(scenario, steps, target, budget, progress, None).0
}

/// As [`shrink`], where the programs are a VMM's own code, of which `grow` tells what was not known; the machine as it is then too.
/// The steps by which threads go on between two calls are none of a schedule's.
pub fn shrink_code(
    scenario: &Scenario,
    steps: &[Step],
    target: Invariant,
    budget: Budget,
    progress: &mut dyn FnMut(Progress) -> bool,
    grow: &mut dyn Grow,
) -> (Option<Shrunk>, Machine) {
    shrink_any(scenario, steps, target, budget, progress, Some(grow))
}

fn shrink_any(
    scenario: &Scenario,
    steps: &[Step],
    target: Invariant,
    budget: Budget,
    progress: &mut dyn FnMut(Progress) -> bool,
    grow: Option<&mut dyn Grow>,
) -> (Option<Shrunk>, Machine) {
    let start = Any::start(scenario);
    // States of any size are not searched: they have no fixed number of bits.
    let budget = match start {
        Any::Small(_) => budget,
        Any::Large(_) => Budget {
            states: 0,
            ..budget
        },
    };
    on_any!(start, |start| {
        let machine = scenario.machine.clone();
        let mut start = start;
        // Whoever has a schedule knows how its threads begin.
        let _ = code::go_on(&machine, &mut start);
        let mut replayer = Replayer::new(machine, start, target, grow);
        let shrunk = shrink_in(&mut replayer, steps, budget, progress);
        (shrunk, replayer.machine)
    })
}

fn shrink_in<L: Layout>(
    replayer: &mut Replayer<'_, L>,
    steps: &[Step],
    budget: Budget,
    callback: &mut dyn FnMut(Progress) -> bool,
) -> Option<Shrunk> {
    if first::broken(&replayer.machine, &replayer.start).has(replayer.target) {
        // Nobody needs to act, and no schedule is shorter than none.
        return Some(Shrunk {
            steps: Vec::new(),
            shortest: true,
            cut: false,
            progress: Progress::default(),
        });
    }
    let whole = replayer.replay_exactly(steps)?;
    let mut watch = Watch {
        callback,
        progress: Progress {
            blocks: blocks(&whole),
            steps: whole.len(),
            ..Progress::default()
        },
        stopped: false,
    };
    let (fixed, mut best) = local::Local::new(replayer, whole, budget, &mut watch).shrink();
    let mut cut = !fixed;
    let mut shortest = false;
    // First the actors that are needed so far, which is often enough and always quick; then everybody.
    for everybody in [false, true] {
        if watch.stopped || budget.states == 0 {
            break;
        }
        let actors: Vec<Actor> = best.iter().map(|step| step.actor).collect();
        let found = search::shortest(
            replayer,
            length(&best),
            budget,
            &|actor| everybody || actors.contains(&actor),
            &mut watch,
        );
        if let Some(steps) = found.steps {
            best = steps;
            watch.found(blocks(&best), best.len());
        }
        shortest = found.exhausted && everybody;
        cut |= watch.stopped;
    }
    if !shortest && !watch.stopped {
        // What the search found part of the way is made 1-minimal too.
        let (fixed, steps) = local::Local::new(replayer, best, budget, &mut watch).shrink();
        best = steps;
        cut = !fixed;
    }
    watch.tell();
    Some(Shrunk {
        steps: best,
        shortest,
        cut,
        progress: watch.progress,
    })
}
