//! Exhaustive search: every interleaving within a scenario's bounds.
//!
//! Breadth first, level by level, over packed states. A level is finished before anything is reported, so that
//! verdict, counts and counterexample are the same on any number of threads: the set of states at a depth is what it
//! is, whoever found them. The visited set holds 64-bit fingerprints, sums of a hash for each section of a state; the
//! probability that two states shared one is computed and belongs to the verdict.
//!
//! Not here: bitstate hashing and other searches that lie silently; depth-first search; states on disk.
//!
//! ```
//! use dirtysim_check::search::{Coverage, Options, Verdict, check};
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
//! let report = check(&scenario, &Options::default(), &|_| true)?;
//! assert_eq!((report.verdict, report.coverage), (Verdict::Violated, Coverage::Exhausted));
//! # Ok::<(), dirtysim_check::search::TooLarge>(())
//! ```

mod answers;
mod audit;
mod block;
pub mod bounds;
mod engine;
pub mod estimate;
mod index;
mod known;
mod level;
mod levels;
pub mod limits;
pub mod liveness;
mod memo;
pub mod memory;
pub mod minimal;
mod part;
mod path;
mod representative;
mod sections;
mod settled;
mod source;
mod table;
pub(crate) mod tracked;
mod verdict;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use bounds::Bounds;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{Invariant, Invariants};
pub use dirtysim_model::reduce::independence::Rule;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::Step;
use dirtysim_model::words::Frame;
pub use tracked::Unconfirmed;

use crate::code::{self, Grow, Nobody};
use crate::ladder::small;
use crate::refused::Refused;
use crate::scenario::{NoRoom, Scenario};
use crate::sometimes::Seen;

/// What to search, and how far.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stop at the end of the level at which so many states are known; or of the one before it, where that level has too
    /// many: a tenth more are never reported.
    pub max_states: Option<u64>,
    /// Bytes for the visited set, the frontiers and the memos, in each pass; none: [`memory::default_limit_bytes`].
    pub max_memory_bytes: Option<u64>,
    /// Stop after that time.
    pub max_time: Option<Duration>,
    /// Go on after the first violation and report every broken claim.
    pub keep_going: bool,
    /// Find the steps of a counterexample, and not only its length.
    pub counterexample: bool,
    /// What to leave out because it can make no difference.
    pub reductions: Reductions,
}

/// Reductions that a search may make where they are sound for the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reductions {
    /// Exchange pages that nothing orders.
    pub pages: bool,
    /// Exchange vCPUs that are alike.
    pub vcpus: bool,
    /// Take local steps alone: the rules that are wanted, one bit each, by the order of [`Rule::ALL`].
    pub rules: u32,
    /// Once so many states are known and there are more, ask whether the claims are proved with any number in place of each of the
    /// scenario's own; none: never.
    pub any_number_after: Option<u64>,
}

impl Reductions {
    /// All that are sound.
    pub const ALL: Self = Self {
        pages: true,
        vcpus: true,
        rules: u32::MAX,
        any_number_after: Some(settled::MANY_STATES),
    };
    /// None: every state.
    pub const NONE: Self = Self {
        pages: false,
        vcpus: false,
        rules: 0,
        any_number_after: None,
    };

    /// The same without one rule.
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.rules &= !(1 << rule as u8);
        self
    }
}

/// The reductions that a search made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reduced {
    /// Classes of pages that were exchanged, by frame.
    pub classes: Vec<Vec<Frame>>,
    /// Whether pages were exchanged in every state, and not only after the last re-arming while the guest may run.
    pub pages_everywhere: bool,
    /// Whether it was taken for unknown which pages lie between two others, so that re-arming a range may take any along.
    pub order_unknown: bool,
    /// Whether vCPUs were exchanged in states that no loop over vCPUs follows.
    pub vcpus: bool,
    /// The rules by which local steps were taken alone.
    pub rules: Vec<Rule>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_states: None,
            max_memory_bytes: None,
            max_time: None,
            keep_going: false,
            counterexample: true,
            reductions: Reductions::ALL,
        }
    }
}

/// Why a search ended before it had seen every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `max_states`.
    States,
    /// `max_memory_bytes`.
    Memory,
    /// `max_time`.
    Time,
    /// Somebody asked it to stop.
    Interrupt,
    /// What a VMM's own code does could not be told.
    Code,
}

impl Limit {
    /// The name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::States => "max-states",
            Self::Memory => "max-memory",
            Self::Time => "max-time",
            Self::Interrupt => "interrupted",
            Self::Code => "code",
        }
    }
}

/// How much of the reachable states a search has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All of them; or, with a violation found, all up to its depth.
    Exhausted,
    /// All of them, of a scenario in which every budget is without end: what is said is said for any number of what has one.
    Proved,
    /// Those within a limit.
    Truncated(Limit),
}

/// The verdict of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every reachable state satisfies every claim that was looked at.
    Holds,
    /// A claim is broken.
    Violated,
    /// A limit came first.
    Inconclusive,
}

/// A broken claim and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The claim.
    pub invariant: Invariant,
    /// Steps to the violation in the graph that was searched.
    pub depth: u32,
    /// The steps, where they were asked for and the limits let them be found.
    pub steps: Option<Vec<Step>>,
    /// Whether no schedule with fewer steps breaks the claim.
    pub shortest: bool,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests on.
    pub coverage: Coverage,
    /// Distinct states.
    pub states: u64,
    /// Transitions, those to known states included.
    pub transitions: u64,
    /// Levels below the first state.
    pub depth: u32,
    /// The violation that was looked for.
    pub violation: Option<Violation>,
    /// Every claim that broke, those included that were not looked for.
    pub broken: Invariants,
    /// What happened in some schedule.
    pub seen: Seen,
    /// Ioctls that were refused in some schedule.
    pub refused: BTreeSet<Refused>,
    /// An upper bound of the probability that two states shared a fingerprint, and one of them was never looked at.
    pub collision_probability: f64,
    /// The reductions that were made.
    pub reduced: Reduced,
    /// Bits of a packed state.
    pub state_bits: u32,
    /// The most bytes that the visited set, the frontiers and the memos took together.
    pub peak_bytes: u64,
    /// For how many.
    pub bounds: Bounds,
    /// With any number of pages: the number of pages of the machine that breaks a claim.
    pub instance: Option<u64>,
    /// With any number of pages: what breaks a claim, and is on no machine of few pages.
    pub unconfirmed: Option<Unconfirmed>,
    /// States that were known with the scenario's own numbers when what is said here was proved with any in their place, and so for them.
    pub own_numbers: Option<u64>,
}

/// How far a search has come; for progress bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Distinct states so far.
    pub states: u64,
    /// States of the level in work.
    pub frontier: u64,
    /// The level in work.
    pub depth: u32,
    /// Bytes of visited set, frontiers and memos.
    pub bytes: u64,
}

/// Somebody who watches: called at every level and every few thousand states; answers whether to go on.
pub type Watch<'a> = &'a (dyn Fn(&Progress) -> bool + Sync);

/// A scenario that the search cannot take: what its states have no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge(pub NoRoom);

impl From<NoRoom> for TooLarge {
    fn from(room: NoRoom) -> Self {
        Self(room)
    }
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "too many {} for an exhaustive search: at most {}; scale the scenario down, or use `dirtysim run`",
            self.0.part.name(),
            self.0.most
        )
    }
}

impl std::error::Error for TooLarge {}

/// Searches a scenario on rayon's threads. Blocks until it is done or `watch` says that it is enough.
///
/// # Errors
/// A scenario whose states are larger than the search has room for.
pub fn check(scenario: &Scenario, options: &Options, watch: Watch<'_>) -> Result<Report, TooLarge> {
    if scenario.any_pages {
        return tracked::check(scenario, options, watch);
    }
    let start = small(scenario)?;
    Ok(begin(scenario, start, options, watch, &mut Nobody).0)
}

/// As [`check`], where the programs are a VMM's own code, of which `grow` tells what was not known; the machine as it is then
/// too. Nothing is exchanged: nobody knows of code that it treats pages or vCPUs alike.
///
/// # Errors
/// As [`check`].
pub fn check_code(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
    grow: &mut dyn Grow,
) -> Result<(Report, Machine), TooLarge> {
    let mut options = options.clone();
    options.reductions.pages = false;
    options.reductions.vcpus = false;
    let mut start = small(scenario)?;
    let mut scenario = Cow::Borrowed(scenario);
    while let Err(unknown) = code::go_on(&scenario.machine, &mut start) {
        if !grow.grow(&mut scenario.to_mut().machine, &[unknown]) {
            break;
        }
    }
    let (report, grown) = begin(&scenario, start, &options, watch, grow);
    Ok((
        report,
        grown.unwrap_or_else(|| scenario.into_owned().machine),
    ))
}

fn begin(
    scenario: &Scenario,
    start: State<Small>,
    options: &Options,
    watch: Watch<'_>,
    grow: &mut dyn Grow,
) -> (Report, Option<Machine>) {
    verdict::search(scenario, &start, options, watch, grow)
}

/// The scenario that a report's counterexample is of: with any number of pages, the machine of few that breaks a claim.
#[must_use]
pub fn instance(scenario: &Scenario, report: &Report) -> Option<Scenario> {
    tracked::with_pages(scenario, report.instance?).ok()
}
