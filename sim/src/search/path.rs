//! A shortest counterexample, by a second pass that keeps its levels.
//!
//! The second pass has no partial-order reduction, so that depth is the number of steps. It goes down to the depth of
//! the violation that the first one found, or to a shallower one; then back up: of all states that break the claim
//! the one with the lowest bits, of all its predecessors the one with the lowest bits, and so on. That makes the
//! counterexample the same on any number of threads.

use dirtysim_model::layout::Layout;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::state::State;
use dirtysim_model::step::{Effect, Step, apply, for_each_step};
use rayon::prelude::*;

use super::engine::{Found, Pass, Search, pass};
use super::level::Block;
use crate::run::{hit, is_stuck};

/// The end of a counterexample: a state, and a step out of it where it is the step that breaks the claim.
type End = (Vec<u64>, Option<Step>);

/// The steps of a shortest schedule that breaks what `found` says, at most at its depth; none where a limit came first.
pub(super) fn shortest<L: Layout>(search: &Search<'_, L>, found: Found) -> Option<Vec<Step>> {
    let mut kept = Vec::new();
    let passed = pass(
        search,
        Pass::Levels {
            depth: found.depth,
            kept: &mut kept,
        },
    );
    if passed.limit.is_some() {
        return None;
    }
    let (depth, (mut words, last)) = kept.iter().enumerate().find_map(|(depth, level)| {
        end_in(search, level, found.invariant).map(|end| (depth, end))
    })?;
    let mut way = vec![words.clone()];
    for level in kept[..depth].iter().rev() {
        words = predecessor(search, level, &words)?;
        way.push(words.clone());
    }
    way.reverse();
    let mut steps = concrete(search, &way)?;
    steps.extend(last);
    Some(steps)
}

/// The lowest end of a counterexample in a level, if there is one.
fn end_in<L: Layout>(search: &Search<'_, L>, level: &[Block], wanted: Invariant) -> Option<End> {
    let machine = search.machine;
    let target = Some(wanted);
    let breaks = |broken: Invariants| hit(broken, target).is_some();
    let ends = in_level(search, level, |state, words| {
        let mut steps = Vec::new();
        for_each_step(machine, state, |step| steps.push(step));
        let mut broken = oracle::check(machine, state, Effect::None);
        if steps.is_empty() && is_stuck(machine, state) {
            broken.insert(Invariant::MigrationMakesProgress);
        }
        if breaks(broken) {
            return Some((words.to_vec(), None));
        }
        steps.into_iter().find_map(|step| {
            let mut after = state.clone();
            let effect = apply(machine, &mut after, step);
            (effect != Effect::None && breaks(oracle::check(machine, &after, effect)))
                .then(|| (words.to_vec(), Some(step)))
        })
    });
    // An end without a step is one step shorter than one with.
    ends.into_iter()
        .min_by(|a, b| (a.1.is_some(), &a.0).cmp(&(b.1.is_some(), &b.0)))
}

/// The lowest state of a level that has a step to `target`.
fn predecessor<L: Layout>(
    search: &Search<'_, L>,
    level: &[Block],
    target: &[u64],
) -> Option<Vec<u64>> {
    in_level(search, level, |state, words| {
        step_to(search, state, target).map(|_| words.to_vec())
    })
    .into_iter()
    .min()
}

/// The first step from `state` to a state whose bits are `target`.
fn step_to<L: Layout>(search: &Search<'_, L>, state: &State<L>, target: &[u64]) -> Option<Step> {
    let machine = search.machine;
    let mut bits = vec![0; target.len()];
    let mut found = None;
    for_each_step(machine, state, |step| {
        if found.is_none() {
            let mut after = state.clone();
            apply(machine, &mut after, step);
            bits.fill(0);
            search.packing.pack(machine, &mut after, &mut bits);
            if bits == target {
                found = Some(step);
            }
        }
    });
    found
}

/// Steps from the first state along states with the bits of `way`.
fn concrete<L: Layout>(search: &Search<'_, L>, way: &[Vec<u64>]) -> Option<Vec<Step>> {
    let mut state = search.start.clone();
    let mut steps = Vec::with_capacity(way.len());
    for next in &way[1..] {
        let step = step_to(search, &state, next)?;
        apply(search.machine, &mut state, step);
        steps.push(step);
    }
    Some(steps)
}

/// What `look` answers for the states of a level, in no particular order.
fn in_level<L: Layout, R: Send>(
    search: &Search<'_, L>,
    level: &[Block],
    look: impl Fn(&State<L>, &[u64]) -> Option<R> + Sync,
) -> Vec<R> {
    let stride = search.packing.words();
    level
        .par_iter()
        .flat_map_iter(|block| {
            let mut state = search.start.clone();
            let mut answers = Vec::new();
            for words in block.words.chunks_exact(stride) {
                search.packing.unpack(search.machine, words, &mut state);
                answers.extend(look(&state, words));
            }
            answers
        })
        .collect()
}
