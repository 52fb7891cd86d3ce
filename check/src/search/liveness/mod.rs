//! What goes on for ever: `migration_makes_progress`, as far as it is about cycles, and `protocol_ends`.
//!
//! A pass of its own. It finds every state, as the other search does, but keeps the edges, and then looks for a set of
//! states that can be gone round for ever: a strongly connected component. For `migration_makes_progress` it is one of the
//! edges that are no progress, which is what [`is_progress`] says: a page is copied, a store retires, a step of a protocol
//! completes. For `protocol_ends` all edges count but those of a guest that is not quiet ([`is_unquiet`]).
//!
//! Going round counts only if it is fair. Weakly: an actor that could act in every state of the cycle does act in it. And
//! in turn: an actor that waits for a lock, or for something else that is handed out in turn, and could have it in some state
//! of the cycle, does act in it ([`Waits::is_in_turn`]): locks are queues, and a thread that takes one again and again
//! does not keep another from it. For the weak kind a component is a violation exactly if each actor is at some state of it
//! unable to act, or has an edge inside it: then a cycle through all of the component is fair, and else no cycle in it is,
//! because a smaller cycle has fewer states and fewer edges. Where somebody in a queue has no edge inside, a fair cycle is
//! only among the states in which there is nothing to have; their components are looked at in the same way (which is how
//! Streett's condition is checked). And somebody must be waiting: where every program has come to its end, nothing is missed, and
//! where no end is awaited ([`is_awaited`]), none stays away. Both are so in each state of a component or in none, since an
//! end is never left again. A deadlock is a violation of the first claim, and comes first where it is as near.
//!
//! **A quiet guest.** A guest with a budget is quiet once it is spent, and no cycle spends one. A guest that may store any
//! number of times may stop at any time, and a protocol that comes to no end while it goes on is not at fault. So its stores are on no
//! cycle of the second kind, and fairness does not count on them; nor on a round of a part that is done any number of times. Nor is a page opened on one, for a store or a load that
//! is tried again: each try would be recorded, and a store whose page is armed again before each next try is a guest that is
//! not quiet, however little it gets done. That step fairness does count on, as on all others of vCPUs ([`is_unquiet`]).
//!
//! **Reductions.** Local steps are never taken alone here: partial-order reduction keeps what is broken in a state, but
//! a step that is put off for ever in a cycle would be missed, and whether an actor is able to act is what fairness is
//! about. vCPUs are never exchanged either: fairness names them. Pages are: exchanging pages maps steps to steps of the
//! same actor and kind, an enabled actor to the same enabled actor, and each thread to the same place in its program; and a
//! cycle of representatives, gone often enough for the exchanges to cancel out, is a cycle of states.
//!
//! Not here: strong fairness of anything else (who looks only now and then need not see what comes and goes); cycles that
//! need a guest that never stops; a proof that the cycle which is shown is the shortest one.

mod component;
mod graph;
mod lasso;

use std::collections::BTreeSet;

use dirtysim_model::machine::Machine;
use dirtysim_model::op::Op;
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::pages::Frames;
use dirtysim_model::state::vcpu::NO_FRAME;
pub use dirtysim_model::transition::is_at_leisure;
use dirtysim_model::transition::{Actor, Choice, Step, blocked};
use dirtysim_model::words::Waits;

use super::limits::Limits;
use super::table::collision_probability;
use super::{Coverage, Limit, Options, Reduced, TooLarge, Verdict, Watch};
use crate::ladder::small;
use crate::refused::Refused;
use crate::scenario::Scenario;

pub use lasso::{NotALasso, confirm};

/// How something can go on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endless {
    /// Nothing gets done.
    WithoutProgress,
    /// Whatever gets done, an end that is awaited never comes.
    WithoutEnd,
}

impl Endless {
    /// The claim that it breaks.
    #[must_use]
    pub const fn invariant(self) -> Invariant {
        match self {
            Self::WithoutProgress => Invariant::MigrationMakesProgress,
            Self::WithoutEnd => Invariant::ProtocolEnds,
        }
    }

    /// How a claim is broken by what goes on for ever; all but one: by lack of progress.
    #[must_use]
    pub fn breaking(invariant: Option<Invariant>) -> Self {
        match invariant {
            Some(Invariant::ProtocolEnds) => Self::WithoutEnd,
            _ => Self::WithoutProgress,
        }
    }
}

/// What a search for cycles came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The verdict on both claims.
    pub verdict: Verdict,
    /// The claims that are broken.
    pub broken: Invariants,
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
    /// A schedule that breaks the first of them; a violation has one, unless two states shared a fingerprint on the way.
    pub lasso: Option<Lasso>,
    /// Components that can be gone round for ever without progress, fair or not.
    pub components: u64,
    /// Components that can be gone round for ever while the guest is quiet, with progress or without, fair or not.
    pub cycles: u64,
    /// An upper bound of the probability that two states shared a fingerprint.
    pub collision_probability: f64,
    /// Ioctls that were refused in some schedule.
    pub refused: BTreeSet<Refused>,
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
    /// What it shows.
    pub kind: Endless,
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

/// Whether a step brought the migration on: a page was copied, a store retired, or a step of a protocol completed. What need never be
/// done counts as well: nobody is at fault who does it again and again, and any number of times has an end.
#[must_use]
pub fn is_progress<L: Layout>(before: &State<L>, step: Step, after: &State<L>) -> bool {
    if is_at_leisure(before, step) {
        return true;
    }
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

/// Whether a step brings on a guest that is not quiet: one that need never be taken, or one that opens a page, in a leaf or in a TLB.
#[must_use]
pub fn is_unquiet<L: Layout>(before: &State<L>, step: Step, after: &State<L>) -> bool {
    if is_at_leisure(before, step) {
        return true;
    }
    let Actor::Vcpu(vcpu) = step.actor else {
        return false;
    };
    let opened = |old: &Frames<L::Set>, new: &Frames<L::Set>| {
        let mut new = new.clone();
        new.subtract(old);
        !new.is_empty()
    };
    let tlb = |state: &State<L>| state.vcpus[usize::from(vcpu)].tlb.clone();
    opened(&before.present, &after.present)
        || opened(&before.writable, &after.writable)
        || opened(&before.dirty_bit, &after.dirty_bit)
        || opened(&tlb(before), &tlb(after))
}

/// Who waits for what is had in turn.
fn queued<L: Layout>(machine: &Machine, state: &State<L>) -> Actors {
    let vcpus = (0..state.vcpus.len()).map(|index| Actor::Vcpu(index as u8));
    let threads = (0..state.threads.len()).map(|index| Actor::Thread(index as u8));
    let mut queued = Actors::default();
    for actor in vcpus.chain(threads) {
        if blocked(machine, state, actor).is_some_and(Waits::is_in_turn) {
            queued.add(actor);
        }
    }
    queued
}

/// Whether an end is waited for that has not come: that of the first thread, of a thread that ends the protocol, or of one
/// that another stands waiting for.
#[must_use]
pub fn is_awaited<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    let ends = |thread: usize| state.current_op(machine, thread).is_none();
    (0..machine.programs.len()).any(|thread| {
        let ends_all = || {
            let program = &machine.programs[thread];
            program.iter().any(|op| matches!(op, Op::Finish(_)))
        };
        let joins = match state.current_op(machine, thread) {
            Some(Op::JoinThread(other)) => !ends(usize::from(*other)),
            _ => false,
        };
        joins || (!ends(thread) && (thread == 0 || ends_all()))
    })
}

/// One bit for each actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Actors(u16);

impl Actors {
    /// The bits that stand for somebody.
    const ALL: u16 = (1 << 12) - 1;

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

/// Looks for deadlocks, for cycles without progress, and for cycles that keep an end away. Of `options` it takes the limits and whether pages may be
/// exchanged.
///
/// # Errors
/// A scenario whose states are larger than the search has room for.
pub fn liveness(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, TooLarge> {
    let start = small(scenario)?;
    Ok(liveness_in(&scenario.machine, &start, options, watch))
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
    let mut find = |kind| {
        let found = component::find(graph, kind, &|| builder.over_judging().is_none());
        if found.is_none() {
            limit = limit.or(builder.over_judging()).or(Some(Limit::Interrupt));
        }
        found.map_or((0, None), |found| (found.components, found.fair))
    };
    let (components, idle) = find(Endless::WithoutProgress);
    let (cycles, endless) = find(Endless::WithoutEnd);
    let deadlock = graph.deadlock();
    let mut broken = Invariants::NONE;
    if deadlock.is_some() || idle.is_some() {
        broken.insert(Invariant::MigrationMakesProgress);
    }
    if endless.is_some() {
        broken.insert(Invariant::ProtocolEnds);
    }
    let lasso = match (deadlock, idle, endless) {
        (Some(state), idle, _)
            if idle
                .as_ref()
                .is_none_or(|idle| !graph.is_nearer(idle[0], state)) =>
        {
            lasso::to_deadlock(&builder, state)
        }
        (_, Some(cycle), _) => lasso::through(&builder, Endless::WithoutProgress, &cycle),
        (_, None, Some(cycle)) => lasso::through(&builder, Endless::WithoutEnd, &cycle),
        (_, None, None) => None,
    };
    let verdict = match (broken.is_empty(), limit) {
        (false, _) => Verdict::Violated,
        (true, Some(_)) => Verdict::Inconclusive,
        (true, None) => Verdict::Holds,
    };
    Report {
        verdict,
        broken,
        coverage: limit.map_or(Coverage::Exhausted, Coverage::Truncated),
        states: graph.states() as u64,
        transitions: graph.transitions,
        without_progress: graph.without_progress,
        depth: graph.depth,
        lasso,
        components,
        cycles,
        collision_probability: collision_probability(graph.states() as u64),
        refused: graph.refused.clone(),
        reduced: builder.reduced(),
        state_bits: builder.state_bits(),
        peak_bytes: builder.peak_bytes(),
    }
}
