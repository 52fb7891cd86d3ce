//! Cycles without progress: `migration_makes_progress`, as far as it is about what goes on for ever.
//!
//! A pass of its own. It finds every state, as the other search does, but keeps the edges that are no progress, and then
//! looks for a set of states that can be gone round for ever: a strongly connected component of those edges. Progress is
//! what [`is_progress`] says: a page is copied, a store retires, a step of a protocol completes.
//!
//! Going round counts only if it is fair, weakly: an actor that could act in every state of the cycle does act in it. A
//! component is therefore a violation exactly if each actor is at some state of it unable to act, or has an edge inside
//! it: then a cycle through all of the component is fair, and else no cycle in it is, because a smaller cycle has fewer
//! states and fewer edges. And somebody must be waiting: where every program has come to its end, nothing is missed. A
//! deadlock is a violation too, and comes first where it is as near.
//!
//! **Reductions.** Local steps are never taken alone here: partial-order reduction keeps what is broken in a state, but
//! a step that is put off for ever in a cycle would be missed, and whether an actor is able to act is what fairness is
//! about. vCPUs are never exchanged either: fairness names them. Pages are: exchanging pages maps steps to steps of the
//! same actor, an enabled actor to the same enabled actor, and progress to progress; and a cycle of representatives,
//! gone often enough for the exchanges to cancel out, is a cycle of states.
//!
//! Not here: cycles in which something is copied again and again, or a protocol goes round its own loop (its steps
//! complete); strong fairness; a proof that the cycle which is shown is the shortest one.

mod component;
mod graph;
mod lasso;

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::NO_FRAME;
use dirtysim_model::transition::{Actor, Choice, Step};

use super::limits::Limits;
use super::table::collision_probability;
use super::{Coverage, Limit, Options, Reduced, TooLarge, Verdict, Watch};
use crate::ladder::{Packed, on_packed};
use crate::scenario::Scenario;

pub use lasso::{NotALasso, confirm};

/// What a search for cycles came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The verdict on `migration_makes_progress`.
    pub verdict: Verdict,
    /// How much was seen.
    pub coverage: Coverage,
    /// Distinct states.
    pub states: u64,
    /// Transitions.
    pub transitions: u64,
    /// Transitions that are no progress.
    pub without_progress: u64,
    /// Levels below the first state.
    pub depth: u32,
    /// A schedule to where nothing goes on; a violation has one, unless two states shared a fingerprint on the way.
    pub lasso: Option<Lasso>,
    /// Components that can be gone round for ever without progress, fair or not.
    pub components: u64,
    /// An upper bound of the probability that two states shared a fingerprint.
    pub collision_probability: f64,
    /// The reductions that were made: pages only.
    pub reduced: Reduced,
    /// Bits of a packed state.
    pub state_bits: u32,
    /// The most bytes that graph, visited set and frontiers took together.
    pub peak_bytes: u64,
}

/// A schedule that ends in a cycle which can be gone for ever, or in a deadlock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasso {
    /// The steps to the cycle, as few as any state without a way on takes, and then those of the cycle.
    pub steps: Vec<Step>,
    /// How many of the last steps are the cycle; 0: a deadlock.
    pub cycle: usize,
}

impl Lasso {
    /// Steps before the cycle.
    #[must_use]
    pub fn stem(&self) -> usize {
        self.steps.len() - self.cycle
    }
}

/// Whether a step brought the migration on: a page was copied, a store retired, or a step of a protocol completed.
#[must_use]
pub fn is_progress<L: Layout>(before: &State<L>, step: Step, after: &State<L>) -> bool {
    match step.actor {
        Actor::Vcpu(vcpu) => {
            let vcpu = usize::from(vcpu);
            let (old, new) = (&before.vcpus[vcpu], &after.vcpus[vcpu]);
            let stores = match step.choice {
                Choice::Store(_) => true,
                _ => old.frame != NO_FRAME && !old.load,
            };
            stores && new.frame == NO_FRAME
        }
        Actor::Thread(thread) => {
            let thread = usize::from(thread);
            matches!(step.choice, Choice::Page(_))
                || before.threads[thread].op != after.threads[thread].op
        }
        Actor::Device(_) => false,
    }
}

/// One bit for each actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Actors(u16);

impl Actors {
    fn bit(actor: Actor) -> u16 {
        // Four of each kind at most: the search's layouts have room for no more.
        1 << match actor {
            Actor::Vcpu(index) => u16::from(index),
            Actor::Thread(index) => 4 + u16::from(index),
            Actor::Device(index) => 8 + u16::from(index),
        }
    }

    fn add(&mut self, actor: Actor) {
        self.0 |= Self::bit(actor);
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Looks for deadlocks and for cycles without progress. Of `options` it takes the limits and whether pages may be
/// exchanged.
///
/// # Errors
/// A scenario whose states are larger than the search has room for.
pub fn liveness(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, TooLarge> {
    let machine = &scenario.machine;
    Ok(on_packed!(Packed::start(scenario)?, |start| liveness_in(
        machine, &start, options, watch
    )))
}

fn liveness_in<L: Layout>(
    machine: &Machine,
    start: &State<L>,
    options: &Options,
    watch: Watch<'_>,
) -> Report {
    let limits = Limits::new(options, watch);
    let symmetry = Symmetry::of(machine, start, options.reductions.pages, false);
    let mut builder = graph::Builder::new(machine, start, symmetry, limits);
    let mut limit = builder.build();
    let graph = builder.graph();
    // What was seen before a limit is as true as all of it: a cycle in it is a cycle.
    let found = component::find(graph, &|| builder.over_judging().is_none());
    let (components, cycle) = match found {
        Some(found) => (found.components, found.fair),
        None => {
            limit = limit.or(builder.over_judging()).or(Some(Limit::Interrupt));
            (0, None)
        }
    };
    let deadlock = graph.deadlock();
    let stops = deadlock.is_some() || cycle.is_some();
    let lasso = match (deadlock, cycle) {
        (Some(state), cycle)
            if cycle
                .as_ref()
                .is_none_or(|cycle| !graph.is_nearer(cycle[0], state)) =>
        {
            lasso::to_deadlock(&builder, state)
        }
        (_, Some(cycle)) => lasso::through(&builder, &cycle),
        (_, None) => None,
    };
    let verdict = match (stops, limit) {
        (true, _) => Verdict::Violated,
        (false, Some(_)) => Verdict::Inconclusive,
        (false, None) => Verdict::Holds,
    };
    Report {
        verdict,
        coverage: limit.map_or(Coverage::Exhausted, Coverage::Truncated),
        states: graph.states() as u64,
        transitions: graph.transitions,
        without_progress: graph.edges() as u64,
        depth: graph.depth,
        lasso,
        components,
        collision_probability: collision_probability(graph.states() as u64),
        reduced: builder.reduced(),
        state_bits: builder.state_bits(),
        peak_bytes: builder.peak_bytes(),
    }
}
