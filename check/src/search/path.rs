//! A shortest counterexample, by a second pass that keeps its levels.
//!
//! The second pass has no partial-order reduction, so that depth is the number of steps. It goes down to the depth of
//! the violation that the first one found, or to a shallower one; then back up: of all states that break the claim
//! the one with the lowest bits, of all its predecessors the one with the lowest bits, and so on. That makes the
//! counterexample the same on any number of threads.

use std::time::Duration;

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Effect, Step, apply, for_each_step};
use rayon::prelude::*;

use super::Progress;
use super::block::Block;
use super::engine::{Found, Search};
use super::levels::{Pass, pass};
use crate::code::{self, Grow};
use crate::run::hit;
use crate::stuck::breaks_progress;

/// The end of a counterexample: whether it is a step out of the state that breaks the claim, and the state.
type End = (bool, Vec<u64>);

/// The steps of a shortest schedule that breaks what `found` says, at most at its depth; none where a limit came first.
pub(super) fn shortest<L: Layout>(
    search: &mut Search<'_, L>,
    found: Found,
    grow: &mut dyn Grow,
) -> Option<Vec<Step>> {
    let mut kept = Vec::new();
    let passed = pass(
        search,
        Pass::Levels {
            depth: found.depth,
            kept: &mut kept,
        },
        grow,
    );
    let search = &*search;
    // The levels that were kept are whole, whatever ended the pass, and the first that has an end has a nearest one.
    let progress = Progress {
        states: passed.states,
        frontier: 0,
        depth: passed.depth,
        bytes: passed.peak_bytes,
    };
    let go_on = || search.limits.is_over(Duration::ZERO, &progress).is_none();
    let mut ends = kept.iter().enumerate();
    let (depth, (by_step, mut words)) = loop {
        let (depth, level) = ends.next()?;
        if let Some(end) = end_in(search, level, found.invariant, &go_on)? {
            break (depth, end);
        }
    };
    let mut way = vec![words.clone()];
    for level in kept[..depth].iter().rev() {
        words = predecessor(search, level, &words, &go_on)??;
        way.push(words.clone());
    }
    way.reverse();
    let (mut steps, state) = concrete(search, &way)?;
    if by_step {
        steps.push(breaking_step(&search.machine, &state, found.invariant)?);
    }
    Some(steps)
}

/// The lowest end of a counterexample in a level, if there is one; none at all where a limit came first.
fn end_in<L: Layout>(
    search: &Search<'_, L>,
    level: &[Block],
    wanted: Invariant,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Option<Option<End>> {
    let machine = &search.machine;
    // An end without a step is one step shorter than one with, and comes first.
    lowest(search, level, go_on, |state, words| {
        let mut broken = oracle::check(machine, state, Effect::None);
        if breaks_progress(machine, state) {
            broken.insert(Invariant::MigrationMakesProgress);
        }
        if hit(broken, Some(wanted)).is_some() {
            return Some((false, words.to_vec()));
        }
        breaking_step(machine, state, wanted).map(|_| (true, words.to_vec()))
    })
}

/// The first step out of `state` that breaks the claim by what it does.
fn breaking_step<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    wanted: Invariant,
) -> Option<Step> {
    let mut found = None;
    for_each_step(machine, state, |step| {
        if found.is_none() {
            let mut after = state.clone();
            let effect = apply(machine, &mut after, step);
            if effect != Effect::None
                && hit(oracle::check(machine, &after, effect), Some(wanted)).is_some()
            {
                found = Some(step);
            }
        }
    });
    found
}

/// The lowest state of a level that has a step to `target`; none at all where a limit came first.
fn predecessor<L: Layout>(
    search: &Search<'_, L>,
    level: &[Block],
    target: &[u64],
    go_on: &(dyn Fn() -> bool + Sync),
) -> Option<Option<Vec<u64>>> {
    lowest(search, level, go_on, |state, words| {
        step_to(search, state, target).map(|_| words.to_vec())
    })
}

/// The first step from `state` to a state whose bits are `target`.
fn step_to<L: Layout>(search: &Search<'_, L>, state: &State<L>, target: &[u64]) -> Option<Step> {
    let machine = &search.machine;
    let mut found = None;
    for_each_step(machine, state, |step| {
        if found.is_none() {
            let mut after = state.clone();
            apply(machine, &mut after, step);
            if search.representative(after) == target {
                found = Some(step);
            }
        }
    });
    found
}

/// Steps from the first state along states whose representatives have the bits of `way`, and where they lead.
fn concrete<L: Layout>(search: &Search<'_, L>, way: &[Vec<u64>]) -> Option<(Vec<Step>, State<L>)> {
    let mut state = search.start.clone();
    let mut steps = Vec::with_capacity(way.len());
    for next in &way[1..] {
        let step = step_to(search, &state, next)?;
        apply(&search.machine, &mut state, step);
        let _ = code::go_on(&search.machine, &mut state);
        steps.push(step);
    }
    Some((steps, state))
}

/// The lowest of what `look` answers for the states of a level, if it answers; none at all where a limit came first.
fn lowest<L: Layout, R: Ord + Send>(
    search: &Search<'_, L>,
    level: &[Block],
    go_on: &(dyn Fn() -> bool + Sync),
    look: impl Fn(&State<L>, &[u64]) -> Option<R> + Sync,
) -> Option<Option<R>> {
    let layout = search.record_layout();
    let of_block = |block: &Block| {
        let mut state = search.start.clone();
        let packing = search.sections.packing();
        let answers = block.packed(layout).filter_map(|words| {
            packing.unpack(&search.machine, words, &mut state);
            look(&state, words)
        });
        answers.min()
    };
    let lower = |a: Option<R>, b: Option<R>| a.into_iter().chain(b).min();
    level
        .par_iter()
        .map(|block| go_on().then(|| of_block(block)))
        .try_reduce(|| None, |a, b| Some(lower(a, b)))
}
