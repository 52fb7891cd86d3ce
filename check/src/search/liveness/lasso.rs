//! The schedule that shows it: the way to a cycle, and the cycle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply, for_each_step};

use super::graph::{Builder, Graph};
use super::{Actors, Endless, Lasso, is_at_leisure, is_awaited, is_progress, is_unquiet, queued};
use crate::ladder::small;
use crate::scenario::Scenario;
use crate::stuck::has_work;

/// The most times that a cycle of representatives is gone: pages exchanged in each come back to their places by then.
const MOST_TURNS: usize = 1 << 12;

/// The steps to a deadlock.
pub(super) fn to_deadlock<L: Layout>(builder: &Builder<'_, L>, state: u32) -> Option<Lasso> {
    let mut state_now = builder.start.clone();
    let mut steps = Vec::new();
    for &next in &builder.graph().way_to(state)[1..] {
        steps.push(step_to(builder, &mut state_now, next, None)?);
    }
    Some(Lasso {
        kind: Endless::WithoutProgress,
        steps,
        cycle: 0,
    })
}

/// The steps to the first state of a component, and a fair cycle in it.
pub(super) fn through<L: Layout>(
    builder: &Builder<'_, L>,
    kind: Endless,
    component: &[u32],
) -> Option<Lasso> {
    let graph = builder.graph();
    let first = *component.first()?;
    let mut lasso = to_deadlock(builder, first)?;
    lasso.kind = kind;
    let mut state = builder.start.clone();
    for &step in &lasso.steps {
        apply(builder.machine, &mut state, step);
    }
    let cycle = cycle(graph, kind, component, first)?;
    let begin = builder.bits_of(&state);
    for _ in 0..MOST_TURNS {
        for &(actor, next) in &cycle {
            let step = step_to(builder, &mut state, next, Some((actor, kind)))?;
            lasso.steps.push(step);
            lasso.cycle += 1;
        }
        if builder.bits_of(&state) == begin {
            return Some(lasso);
        }
    }
    None
}

/// Takes the first step of `state` to the state of that number; where an actor is given, a step of that actor that is on
/// cycles of that kind.
fn step_to<L: Layout>(
    builder: &Builder<'_, L>,
    state: &mut State<L>,
    to: u32,
    by: Option<(Actors, Endless)>,
) -> Option<Step> {
    let mut found = None;
    for_each_step(builder.machine, state, |step| {
        if found.is_some() {
            return;
        }
        let mut after = state.clone();
        apply(builder.machine, &mut after, step);
        let wanted = by.is_none_or(|(actor, kind)| {
            actor.0 == Actors::bit(step.actor) && check_step(kind, state, step, &after).is_ok()
        });
        if wanted && builder.number_of(&after) == Some(to) {
            found = Some((step, after));
        }
    });
    let (step, after) = found?;
    *state = after;
    Some(step)
}

/// A fair cycle from `first` back to it: who acts, and to which state. Always on to the nearest state or edge that
/// serves an actor which was not served yet, then back. Who is in a queue somewhere and can act is served by acting alone.
fn cycle(
    graph: &Graph,
    kind: Endless,
    component: &[u32],
    first: u32,
) -> Option<Vec<(Actors, u32)>> {
    let enabled = |state| graph.enabled(state, kind).0;
    let inside: BTreeSet<u32> = component.iter().copied().collect();
    let everybody = component.iter().fold(Actors::default(), |all, state| {
        Actors(all.0 | enabled(*state))
    });
    let (mut acting, mut in_queue) = (Actors::default(), Actors::default());
    for &state in component {
        in_queue.0 |= graph.queued(state).0;
        let edges = graph.edges_of(state, kind);
        let inside = edges.filter(|edge| inside.contains(&edge.to));
        inside.for_each(|edge| acting.0 |= edge.actor.0);
    }
    let must_act = acting.0 & in_queue.0;
    let served = |by: Actors, to: u32| by.0 | (!enabled(to) & !must_act);
    let mut unserved = Actors(everybody.0 & enabled(first) | must_act);
    let mut cycle = Vec::new();
    let mut at = first;
    while !unserved.is_empty() {
        let way = nearest(graph, kind, &inside, at, |edge_actor, to| {
            unserved.0 & served(edge_actor, to) != 0
        })?;
        for &(actor, to) in &way {
            unserved.0 &= !served(actor, to);
            at = to;
        }
        cycle.extend(way);
    }
    if at != first || cycle.is_empty() {
        cycle.extend(nearest(graph, kind, &inside, at, |_, to| to == first)?);
    }
    Some(cycle)
}

/// The shortest way inside a component from `from` along an edge that is `wanted`.
fn nearest(
    graph: &Graph,
    kind: Endless,
    inside: &BTreeSet<u32>,
    from: u32,
    wanted: impl Fn(Actors, u32) -> bool,
) -> Option<Vec<(Actors, u32)>> {
    let mut before: BTreeMap<u32, (u32, Actors)> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(state) = open.pop_front() {
        for edge in graph
            .edges_of(state, kind)
            .filter(|edge| inside.contains(&edge.to))
        {
            if wanted(edge.actor, edge.to) {
                let mut way = vec![(edge.actor, edge.to)];
                let mut at = state;
                while at != from {
                    let (earlier, actor) = before[&at];
                    way.push((actor, at));
                    at = earlier;
                }
                way.reverse();
                return Some(way);
            }
            if edge.to != from && !before.contains_key(&edge.to) {
                before.insert(edge.to, (state, edge.actor));
                open.push_back(edge.to);
            }
        }
    }
    None
}

/// Why a schedule does not end in a cycle that can be gone for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotALasso {
    /// A step is not possible where it stands.
    Impossible,
    /// The cycle does not lead back to where it began.
    Open,
    /// A step of the cycle is progress.
    Progress,
    /// A step of the cycle is one of a guest that is not quiet.
    Unquiet,
    /// An actor that can act in every state of the cycle, or is in a queue for what it could have in some, does not.
    Unfair,
    /// Every program has come to its end: nothing is missed.
    Idle,
    /// No end is awaited any more.
    Ended,
    /// The states are larger than can be compared.
    TooLarge,
}

impl std::fmt::Display for NotALasso {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Impossible => "a step is not possible where it stands",
            Self::Open => "the last steps do not lead back to where they began",
            Self::Progress => "one of the last steps brings the migration on",
            Self::Unfair => {
                "an actor that can act throughout, or is in a queue for what it could have, never does"
            }
            Self::Unquiet => "in one of the last steps the guest is not quiet",
            Self::Ended => "every end that is waited for has come by then",
            Self::Idle => "every program has come to its end by then",
            Self::TooLarge => "its states are larger than can be compared",
        })
    }
}

impl std::error::Error for NotALasso {}

/// Whether a step may be on a cycle of that kind.
fn check_step<L: Layout>(
    kind: Endless,
    before: &State<L>,
    step: Step,
    after: &State<L>,
) -> Result<(), NotALasso> {
    match kind {
        Endless::WithoutProgress if is_progress(before, step, after) => Err(NotALasso::Progress),
        Endless::WithoutEnd if is_unquiet(before, step, after) => Err(NotALasso::Unquiet),
        Endless::WithoutProgress | Endless::WithoutEnd => Ok(()),
    }
}

/// Whether the last `cycle` of `steps` can be gone round for ever in that way: they lead back to where they began, fairly,
/// and without what that kind of cycle has not. Looks at nothing but the steps, so that it confirms what a search has found.
///
/// # Errors
/// What is missing.
pub fn confirm(
    scenario: &Scenario,
    kind: Endless,
    steps: &[Step],
    cycle: usize,
) -> Result<(), NotALasso> {
    let start = small(scenario).map_err(|_| NotALasso::TooLarge)?;
    confirm_in(&scenario.machine, start, kind, steps, cycle)
}

fn confirm_in<L: Layout>(
    machine: &Machine,
    mut state: State<L>,
    kind: Endless,
    steps: &[Step],
    cycle: usize,
) -> Result<(), NotALasso> {
    let packing = Packing::new(machine, &state);
    let bits = |state: &State<L>| {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut state.clone(), &mut words);
        words
    };
    let enabled = |state: &State<L>| {
        let mut actors = Actors::default();
        for_each_step(machine, state, |step| {
            if kind == Endless::WithoutProgress || !is_at_leisure(state, step) {
                actors.add(step.actor);
            }
        });
        actors
    };
    let stem = steps.len().checked_sub(cycle).ok_or(NotALasso::Open)?;
    let mut begin = bits(&state);
    let mut acting = Actors::default();
    let mut always = Actors(u16::MAX);
    let (mut sometimes, mut in_queue) = (Actors::default(), Actors::default());
    for (at, &step) in steps.iter().enumerate() {
        if at == stem {
            begin = bits(&state);
        }
        let mut possible = false;
        for_each_step(machine, &state, |other| possible |= other == step);
        if !possible {
            return Err(NotALasso::Impossible);
        }
        let before = state.clone();
        apply(machine, &mut state, step);
        if at >= stem {
            check_step(kind, &before, step, &state)?;
            let enabled = enabled(&before).0;
            always.0 &= enabled;
            sometimes.0 |= enabled;
            in_queue.0 |= queued(machine, &before).0;
            acting.add(step.actor);
        }
    }
    if cycle == 0 || bits(&state) != begin {
        return Err(NotALasso::Open);
    }
    let passed_over = Actors(always.0 | in_queue.0 & sometimes.0);
    if !passed_over.without(acting).is_empty() {
        return Err(NotALasso::Unfair);
    }
    match kind {
        Endless::WithoutProgress if !has_work(machine, &state) => Err(NotALasso::Idle),
        Endless::WithoutEnd if !is_awaited(machine, &state) => Err(NotALasso::Ended),
        Endless::WithoutProgress | Endless::WithoutEnd => Ok(()),
    }
}
