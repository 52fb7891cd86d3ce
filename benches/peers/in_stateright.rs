//! The model behind stateright's `Model`: the same transition function, the same packed states, no reduction.

use std::cell::RefCell;

use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{Effect, Step, apply, for_each_step};
use stateright::{Checker, Model, Property};

use crate::graph::{Graph, Packed};

/// The property that never breaks: with it, stateright walks all of the graph whatever else it finds.
const WHOLE: &str = "every state is visited";
/// The claim that is looked for, or all of them.
const CLAIMS: &str = "no claim is broken";

/// A graph as stateright wants it.
pub struct InStateright<const N: usize> {
    graph: Graph,
    target: Option<Invariant>,
}

thread_local! {
    /// The state that this thread unpacked last. stateright asks for a state's properties, its actions and then each of
    /// its successors one by one; without this every answer would unpack it again.
    static LAST: RefCell<Option<(Vec<u64>, State<Small>)>> = const { RefCell::new(None) };
}

impl<const N: usize> InStateright<N> {
    fn with_state<R>(&self, words: &Packed<N>, use_it: impl FnOnce(&State<Small>) -> R) -> R {
        LAST.with_borrow_mut(|last| {
            let (known, state) = last.get_or_insert_with(|| (Vec::new(), self.graph.start.clone()));
            if known != words {
                known.clear();
                known.extend_from_slice(words);
                self.graph.unpack(words, state);
            }
            use_it(state)
        })
    }

    /// Whether a state breaks the claim that is looked for, as far as a state alone can tell: stateright's properties
    /// see no steps. At the end of the protocol no page may be lost.
    fn is_broken(&self, words: &Packed<N>) -> bool {
        self.with_state(words, |state| {
            let effect = if state.finished {
                Effect::Claim { postcopy: false }
            } else {
                Effect::None
            };
            let broken = oracle::check(&self.graph.machine, state, effect);
            match self.target {
                Some(target) => broken.has(target),
                None => !broken.is_empty(),
            }
        })
    }
}

impl<const N: usize> Model for InStateright<N> {
    type State = Packed<N>;
    type Action = Step;

    fn init_states(&self) -> Vec<Packed<N>> {
        // Another graph's state may have the same words.
        LAST.set(None);
        vec![self.graph.first()]
    }

    fn actions(&self, words: &Packed<N>, actions: &mut Vec<Step>) {
        self.with_state(words, |state| {
            for_each_step(&self.graph.machine, state, |step| actions.push(step));
        });
    }

    fn next_state(&self, words: &Packed<N>, step: Step) -> Option<Packed<N>> {
        self.with_state(words, |state| {
            let mut after = state.clone();
            apply(&self.graph.machine, &mut after, step);
            Some(self.graph.pack(&mut after))
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(WHOLE, |_, _| true),
            Property::always(CLAIMS, |model: &Self, words| !model.is_broken(words)),
        ]
    }
}

/// What stateright came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Distinct states.
    pub states: u64,
    /// Steps taken, those to known states included.
    pub transitions: u64,
    /// Steps to the state that is farthest from the start; exact on one thread, and breadth first.
    pub depth: u64,
    /// Whether the claim that was looked for is broken somewhere.
    pub broken: bool,
}

/// How stateright searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `spawn_bfs`.
    BreadthFirst,
    /// `spawn_dfs`.
    DepthFirst,
    /// `spawn_bfs`, and no state that takes more than so many steps is looked at.
    UpTo(u32),
}

/// Runs stateright to the end, looking for a claim or for all of them.
pub fn run<const N: usize>(
    graph: &Graph,
    target: Option<Invariant>,
    way: Way,
    threads: usize,
) -> Found {
    let model = InStateright::<N> {
        graph: graph.clone(),
        target,
    };
    let builder = model.checker().threads(threads);
    match way {
        Way::BreadthFirst => found(&builder.spawn_bfs().join()),
        Way::DepthFirst => found(&builder.spawn_dfs().join()),
        // stateright counts the first state as depth 1, and passes over those that have reached the target.
        Way::UpTo(steps) => found(
            &builder
                .target_max_depth(steps as usize + 2)
                .spawn_bfs()
                .join(),
        ),
    }
}

fn found<const N: usize>(checker: &impl Checker<InStateright<N>>) -> Found {
    Found {
        states: checker.unique_state_count() as u64,
        // stateright counts the first state as generated, too.
        transitions: checker.state_count() as u64 - 1,
        depth: checker.max_depth() as u64 - 1,
        broken: checker.discovery(CLAIMS).is_some(),
    }
}
