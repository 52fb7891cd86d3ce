//! Shrinking by search: the schedule with the fewest blocks, and of those with the fewest steps, that breaks a claim.
//!
//! Dijkstra's algorithm over states, where going on with the same actor costs a step and changing the actor costs a
//! block. It is bounded by the length of a schedule that is known already, so that it sees the states that few changes
//! of actor can reach and not all of them.

use std::collections::BTreeMap;

use dirtysim_model::oracle::Invariant;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Step, for_each_step};
use indexmap::IndexSet;

use super::schedule::Replayer;
use super::{Budget, Watch};
use crate::stuck::is_stuck;

/// What the search came to.
pub(super) struct Found {
    /// The shortest schedule within the bound, if one was found.
    pub(super) steps: Option<Vec<Step>>,
    /// Whether everything within the bound was searched.
    pub(super) exhausted: bool,
}

/// A way to a state: its last step and its length.
#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    step: Option<Step>,
    state: u32,
    cost: Cost,
    /// The next way to the same state, or [`NONE`].
    sibling: u32,
}

type Cost = (u32, u32);

/// States between two looks at whether to go on.
const LOOK: u64 = 256;

const NONE: u32 = u32::MAX;

/// The states seen, packed, and the ways to them.
struct Graph {
    states: IndexSet<Box<[u64]>>,
    /// By state: the first of its nodes.
    first: Vec<u32>,
    nodes: Vec<Node>,
}

impl Graph {
    fn number(&mut self, packed: &[u64]) -> u32 {
        if let Some(number) = self.states.get_index_of(packed) {
            return number as u32;
        }
        self.states.insert(packed.into());
        self.first.push(NONE);
        self.first.len() as u32 - 1
    }

    fn packed(&self, state: u32) -> &[u64] {
        &self.states[state as usize]
    }

    /// Bytes once another way has come in: what is full then has become twice as large, and is there in both sizes while it
    /// is moved.
    fn bytes_with_one_more(&self) -> u64 {
        let room = |len: usize, capacity: usize, bytes: usize| {
            let moved = if len == capacity { 2 * capacity } else { 0 };
            ((capacity + moved) * bytes) as u64
        };
        let words = self.states.first().map_or(0, |state| size_of_val(&**state));
        // Each state: its words with what the allocator rounds up, its hash and place in the list, its number in the table
        // with the room that a table leaves. Each way also stands in the list of open ones.
        let state = size_of::<Box<[u64]>>() + 8 + 2 * 8;
        (self.states.len() * words.next_multiple_of(16)) as u64
            + room(self.states.len(), self.states.capacity(), state)
            + room(self.first.len(), self.first.capacity(), 4)
            + room(
                self.nodes.len(),
                self.nodes.capacity(),
                size_of::<Node>() + 4,
            )
    }

    /// Whether a way that is known makes a way of that cost by `actor` needless.
    fn is_dominated(&self, state: u32, actor: Option<Actor>, cost: Cost) -> bool {
        let mut at = self.first[state as usize];
        while at != NONE {
            let node = &self.nodes[at as usize];
            let own = node.step.map(|step| step.actor) == actor;
            // Another actor's way has still to pay for the change.
            let known = (node.cost.0 + u32::from(!own), node.cost.1);
            if known <= cost {
                return true;
            }
            at = node.sibling;
        }
        false
    }

    fn add(&mut self, parent: u32, step: Option<Step>, state: u32, cost: Cost) -> u32 {
        let index = self.nodes.len() as u32;
        let sibling = self.first[state as usize];
        self.nodes.push(Node {
            parent,
            step,
            state,
            cost,
            sibling,
        });
        self.first[state as usize] = index;
        index
    }

    fn path(&self, node: u32, last: Option<Step>) -> Vec<Step> {
        let mut steps: Vec<Step> = last.into_iter().collect();
        let mut at = node;
        while at != NONE {
            let node = &self.nodes[at as usize];
            steps.extend(node.step);
            at = node.parent;
        }
        steps.reverse();
        steps
    }
}

/// Whether a step of `actor` can be the one that breaks `target`: what only an operation of the VMM claims, only a
/// thread can break.
fn may_end(target: Invariant, actor: Actor) -> bool {
    let claimed = matches!(
        target,
        Invariant::NoDirtyPageLost
            | Invariant::ResetCountEqualsHarvested
            | Invariant::TlbIsFlushedOnReturn
    );
    !claimed || matches!(actor, Actor::Thread(_))
}

/// Searches for the shortest schedule that breaks `target` and is not longer than `bound` (blocks, steps).
///
/// Only the actors that `wanted` accepts act. The budget bounds the memory.
pub(super) fn shortest<L: Layout>(
    replayer: &mut Replayer<'_, L>,
    bound: (usize, usize),
    budget: Budget,
    wanted: &dyn Fn(Actor) -> bool,
    watch: &mut Watch<'_>,
) -> Found {
    let target = replayer.target;
    let packing = Packing::new(&replayer.machine, &replayer.start);
    let width = packing.words();
    let mut graph = Graph {
        states: IndexSet::new(),
        first: Vec::new(),
        nodes: Vec::new(),
    };
    let mut packed = vec![0; width];
    let mut state = replayer.start.clone();
    packing.pack(&replayer.machine, &mut state, &mut packed);
    let first = graph.number(&packed);
    let root = graph.add(NONE, None, first, (0, 0));
    let mut bound: Cost = (bound.0 as u32, bound.1 as u32);
    let mut inclusive = true;
    let mut found = None;
    let mut open: BTreeMap<Cost, Vec<u32>> = BTreeMap::new();
    open.insert((0, 0), vec![root]);
    let mut possible: Vec<Step> = Vec::new();
    while let Some((cost, bucket)) = open.pop_first() {
        if cost > bound || (cost == bound && !inclusive) {
            break;
        }
        for index in bucket {
            let node = graph.nodes[index as usize];
            let machine = &replayer.machine;
            packing.unpack(machine, graph.packed(node.state), &mut state);
            possible.clear();
            for_each_step(machine, &state, |step| possible.push(step));
            if target == Invariant::MigrationMakesProgress
                && is_stuck(machine, &state)
                && (cost < bound || inclusive)
            {
                bound = cost;
                inclusive = false;
                found = Some((index, None));
            }
            let actor = node.step.map(|step| step.actor);
            for &step in possible.iter().filter(|step| wanted(step.actor)) {
                let next = (cost.0 + u32::from(actor != Some(step.actor)), cost.1 + 1);
                let ending = (next.0 + u32::from(!may_end(target, step.actor)), next.1);
                if ending > bound || (next == bound && !inclusive) {
                    continue;
                }
                let mut after = state.clone();
                match replayer.take(&mut after, step) {
                    Some(true) => {
                        bound = next;
                        inclusive = false;
                        found = Some((index, Some(step)));
                        continue;
                    }
                    Some(false) => {}
                    // The shortest may be behind it.
                    None => {
                        return Found {
                            steps: found.map(|(node, last)| graph.path(node, last)),
                            exhausted: false,
                        };
                    }
                }
                packed.fill(0);
                packing.pack(&replayer.machine, &mut after, &mut packed);
                let number = graph.number(&packed);
                if graph.is_dominated(number, Some(step.actor), next) {
                    continue;
                }
                let node = graph.add(index, Some(step), number, next);
                open.entry(next).or_default().push(node);
                if graph.nodes.len() as u64 > budget.states
                    || graph.nodes.len() as u32 == NONE - 1
                    || graph.bytes_with_one_more() > budget.bytes
                {
                    return Found {
                        steps: found.map(|(node, last)| graph.path(node, last)),
                        exhausted: false,
                    };
                }
            }
            watch.progress.states += 1;
            if watch.progress.states.is_multiple_of(LOOK) {
                watch.tell();
                if watch.stopped {
                    return Found {
                        steps: found.map(|(node, last)| graph.path(node, last)),
                        exhausted: false,
                    };
                }
            }
        }
    }
    Found {
        steps: found.map(|(node, last)| graph.path(node, last)),
        exhausted: true,
    }
}
