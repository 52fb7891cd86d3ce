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

/// States that are looked at: all that were expanded, or some, in ascending order.
#[derive(Clone, Copy)]
enum Part<'a> {
    All(usize),
    Some(&'a [u32]),
}

impl Part<'_> {
    fn len(self) -> usize {
        match self {
            Self::All(states) => states,
            Self::Some(states) => states.len(),
        }
    }

    fn state(self, place: u32) -> u32 {
        match self {
            Self::All(_) => place,
            Self::Some(states) => states[place as usize],
        }
    }

    fn place(self, state: u32) -> Option<u32> {
        match self {
            Self::All(states) => ((state as usize) < states).then_some(state),
            Self::Some(states) => states.binary_search(&state).ok().map(|at| at as u32),
        }
    }
}

/// What is done with the states of a component, and with whether a state is among them.
type OnComponent<'a> = &'a mut dyn FnMut(&[u32], &dyn Fn(u32) -> bool);

/// Where the search is at a state.
struct Frame {
    place: u32,
    /// The edge to look at next.
    edge: u32,
    /// The lowest order that is reached from here.
    low: u32,
}

/// Looks at every component of the edges that are of that kind.
///
/// None: `go_on` said that it is enough.
pub(super) fn find(graph: &Graph, kind: Endless, go_on: &dyn Fn() -> bool) -> Option<Found> {
    let mut found = Found {
        components: 0,
        fair: None,
    };
    // A state that a limit left unexpanded has no edges, and so is in no component.
    let part = Part::All(graph.expanded());
    each(graph, kind, part, go_on, &mut |states, inside| {
        let (has_edges, fair) = judge(graph, kind, states, inside);
        found.components += u64::from(has_edges);
        if let Some(fair) = fair {
            keep_nearest(&mut found.fair, fair);
        }
    })?;
    Some(found)
}

/// Keeps the one of two sets that has the nearest state.
fn keep_nearest(known: &mut Option<Vec<u32>>, other: Vec<u32>) {
    if known.as_ref().is_none_or(|known| other[0] < known[0]) {
        *known = Some(other);
    }
}

/// Calls `found` with each component of a part: by Tarjan's algorithm with a stack of its own (SIAM J. Comput. 1(2), 1972).
fn each(
    graph: &Graph,
    kind: Endless,
    part: Part<'_>,
    go_on: &dyn Fn() -> bool,
    found: OnComponent<'_>,
) -> Option<()> {
    // By place: 0, or the order in which it was met; NONE: its component is done.
    let mut order = vec![0_u32; part.len()];
    let mut stack: Vec<u32> = Vec::new();
    let mut frames: Vec<Frame> = Vec::new();
    let mut met = 0_u32;
    for root in 0..part.len() as u32 {
        if order[root as usize] != 0 {
            continue;
        }
        let mut entered = Some(root);
        loop {
            if let Some(place) = entered.take() {
                met += 1;
                if met.is_multiple_of(PATIENCE) && !go_on() {
                    return None;
                }
                order[place as usize] = met;
                stack.push(part.state(place));
                frames.push(Frame {
                    place,
                    edge: 0,
                    low: met,
                });
            }
            let Some(frame) = frames.last_mut() else {
                break;
            };
            if let Some(edge) = graph.edge(part.state(frame.place), frame.edge) {
                frame.edge += 1;
                let to = part.place(edge.to).filter(|_| edge.is_of(kind));
                match to.map(|to| (to, order[to as usize])) {
                    Some((to, 0)) => entered = Some(to),
                    Some((_, NONE)) | None => {}
                    Some((_, reached)) => frame.low = frame.low.min(reached),
                }
                continue;
            }
            let Frame { place, low, .. } = *frame;
            frames.pop();
            if let Some(parent) = frames.last_mut() {
                parent.low = parent.low.min(low);
            }
            if low == order[place as usize] {
                let state = part.state(place);
                let first = stack.iter().rposition(|other| *other == state).unwrap_or(0);
                found(&stack[first..], &|state| {
                    let met = part.place(state).map_or(0, |place| order[place as usize]);
                    met >= low && met != NONE
                });
                for done in stack.drain(first..) {
                    if let Some(place) = part.place(done) {
                        order[place as usize] = NONE;
                    }
                }
            }
        }
    }
    Some(())
}

/// Whether a component can be gone round, and its states, or the nearest of them, that can be gone round fairly.
fn judge(
    graph: &Graph,
    kind: Endless,
    states: &[u32],
    inside: &dyn Fn(u32) -> bool,
) -> (bool, Option<Vec<u32>>) {
    let (mut acting, mut queued) = (Actors::default(), Actors::default());
    let (mut always, mut sometimes) = (Actors(Actors::ALL), Actors::default());
    let mut edges = 0_u64;
    for &state in states {
        let enabled = graph.enabled(state, kind);
        always.0 &= enabled.0;
        sometimes.0 |= enabled.0;
        queued.0 |= graph.queued(state).0;
        for edge in graph.edges_of(state, kind).filter(|edge| inside(edge.to)) {
            acting.0 |= edge.actor.0;
            edges += 1;
        }
    }
    if edges == 0 {
        return (false, None);
    }
    if graph.is_over(states[0], kind) || !always.without(acting).is_empty() {
        return (true, None);
    }
    // Who is in a queue where the cycle comes by is served, unless it only comes by where there is nothing to have.
    let passed_over = Actors(queued.0 & sometimes.0).without(acting);
    let mut states: Vec<u32> = states.to_vec();
    states.retain(|state| Actors(graph.enabled(*state, kind).0 & passed_over.0).is_empty());
    states.sort_unstable();
    if passed_over.is_empty() {
        return (true, Some(states));
    }
    let mut fair = None;
    // What is left is smaller, and was looked at in time already.
    let _ = each(
        graph,
        kind,
        Part::Some(&states),
        &|| true,
        &mut |states, inside| {
            if let (_, Some(other)) = judge(graph, kind, states, inside) {
                keep_nearest(&mut fair, other);
            }
        },
    );
    (true, fair)
}
