//! Strongly connected components, and which of them can be gone round fairly.

use super::graph::{Graph, NONE};
use super::{Actors, Endless};

/// States between two looks at the clock.
const PATIENCE: u32 = 1 << 20;

/// What was found.
pub(super) struct Found {
    /// Components with an edge in them.
    pub(super) components: u64,
    /// The states of the fair component that is nearest to the start, in ascending order.
    pub(super) fair: Option<Vec<u32>>,
}

/// Where the search is at a state.
struct Frame {
    state: u32,
    /// The edge to look at next.
    edge: u32,
    /// The lowest order that is reached from here.
    low: u32,
}

/// Looks at every component of the edges that are of that kind, by Tarjan's algorithm with a stack of its own (SIAM J.
/// Comput. 1(2), 1972).
///
/// None: `go_on` said that it is enough.
pub(super) fn find(graph: &Graph, kind: Endless, go_on: &dyn Fn() -> bool) -> Option<Found> {
    let states = graph.expanded();
    // By state: 0, or the order in which it was met; NONE: its component is done.
    let mut order = vec![0_u32; states];
    let mut stack: Vec<u32> = Vec::new();
    let mut frames: Vec<Frame> = Vec::new();
    let mut met = 0_u32;
    let mut found = Found {
        components: 0,
        fair: None,
    };
    for root in 0..states as u32 {
        if order[root as usize] != 0 {
            continue;
        }
        let mut entered = Some(root);
        loop {
            if let Some(state) = entered.take() {
                met += 1;
                if met.is_multiple_of(PATIENCE) && !go_on() {
                    return None;
                }
                order[state as usize] = met;
                stack.push(state);
                frames.push(Frame {
                    state,
                    edge: 0,
                    low: met,
                });
            }
            let Some(frame) = frames.last_mut() else {
                break;
            };
            if let Some(edge) = graph.edge(frame.state, frame.edge) {
                frame.edge += 1;
                if !edge.is_of(kind) {
                    continue;
                }
                // A state that a limit left unexpanded has no edges, and so is in no component.
                match order.get(edge.to as usize) {
                    Some(0) => entered = Some(edge.to),
                    Some(&NONE) | None => {}
                    Some(&reached) => frame.low = frame.low.min(reached),
                }
                continue;
            }
            let Frame { state, low, .. } = *frame;
            frames.pop();
            if let Some(parent) = frames.last_mut() {
                parent.low = parent.low.min(low);
            }
            if low == order[state as usize] {
                let first = stack.iter().rposition(|other| *other == state).unwrap_or(0);
                judge(graph, kind, &stack[first..], low, &order, &mut found);
                for done in stack.drain(first..) {
                    order[done as usize] = NONE;
                }
            }
        }
    }
    Some(found)
}

/// Looks whether a component can be gone round, and fairly. Its states are those met at `first` or later and not done.
fn judge(
    graph: &Graph,
    kind: Endless,
    states: &[u32],
    first: u32,
    order: &[u32],
    found: &mut Found,
) {
    let inside = |state: u32| {
        order
            .get(state as usize)
            .is_some_and(|met| *met >= first && *met != NONE)
    };
    let mut acting = Actors::default();
    let mut always = Actors(u16::MAX);
    let mut edges = 0_u64;
    for &state in states {
        always.0 &= graph.enabled(state, kind).0;
        for edge in graph.edges_of(state, kind).filter(|edge| inside(edge.to)) {
            acting.0 |= edge.actor.0;
            edges += 1;
        }
    }
    if edges == 0 {
        return;
    }
    found.components += 1;
    let fair = always.without(acting).is_empty() && !graph.is_over(states[0], kind);
    let nearest = states.iter().min();
    let known = found.fair.as_ref().and_then(|fair| fair.first());
    if fair && (known.is_none() || nearest < known) {
        let mut states = states.to_vec();
        states.sort_unstable();
        found.fair = Some(states);
    }
}
