//! The search, level by level.

use std::time::Duration;

use dirtysim_model::state::layout::Layout;

use super::block::Block;
use super::engine::{Found, Passed, Search};
use super::level::{Desk, Job, Outcome, Stop, expand};
use super::settled::Settled;
use super::table::Table;
use super::{Limit, Progress, memory};
use crate::code::Grow;
use crate::run::hit;

/// Which of the two passes over a scenario a search is.
pub(super) enum Pass<'k, 's> {
    /// The verdict, unless it is settled before.
    Verdict {
        keep_going: bool,
        settled: &'k mut Settled<'s>,
    },
    /// The levels down to a depth, kept, for a counterexample.
    Levels {
        depth: u32,
        kept: &'k mut Vec<Vec<Block>>,
    },
}

/// Runs one pass.
///
/// Between two levels `grow` is asked for what is not known of a program that is a VMM's own code.
pub(super) fn pass<L: Layout>(
    search: &mut Search<'_, L>,
    mut which: Pass<'_, '_>,
    grow: &mut dyn Grow,
) -> Passed {
    let layout = search.record_layout();
    let mut desks = Desk::all(search);
    let mut table = Table::new(0);
    let first = search.representative(search.start.clone());
    let fingerprint = search.sections.fingerprint(&first);
    let mut level = vec![Block::first(layout, &first, fingerprint)];
    table.insert(fingerprint);
    table.add_len(1);
    let mut passed = Passed::begin(table.bytes());
    let mut kept_bytes = 0;
    // What the level and the desks take.
    let mut held_bytes = 0;
    loop {
        let frontier: u64 = level.iter().map(|block| block.states(layout)).sum();
        if let Pass::Levels { depth, kept } = &mut which {
            kept_bytes += level.iter().map(Block::bytes).sum::<u64>();
            let is_last = passed.depth == *depth;
            if is_last || table.bytes() + held_bytes + kept_bytes > search.limits.bytes() {
                kept.push(level);
                passed.limit = (!is_last).then_some(Limit::Memory);
                return passed;
            }
            kept.push(level.clone());
        }
        let mut job = Job::new(
            level,
            passed.depth,
            frontier,
            table.len(),
            kept_bytes,
            &mut desks,
        );
        let outcome = loop {
            match expand(search, &mut table, &mut job, &desks) {
                Stop::Done => break None,
                Stop::Full => {
                    let slots = table.grown_slots(job.slack(search));
                    let old = table.bytes();
                    if old + slots as u64 * 8 + job.bytes() + kept_bytes > search.limits.bytes()
                        || !memory::has_room_for(slots as u64 * 8)
                    {
                        break Some(Limit::Memory);
                    }
                    passed.peak_bytes = passed
                        .peak_bytes
                        .max(old + slots as u64 * 8 + job.bytes() + kept_bytes);
                    table.grow(slots);
                }
                Stop::Limit(limit) => break Some(limit),
            }
        };
        passed.peak_bytes = passed
            .peak_bytes
            .max(table.bytes() + job.bytes() + kept_bytes);
        held_bytes = job.bytes();
        let Outcome {
            broken_at,
            broken_after,
            seen,
            transitions,
            mut next,
            mut waiting,
        } = job.outcome();
        passed.seen.union(seen);
        passed.transitions += transitions;
        passed.broken.union(broken_at);
        passed.broken.union(broken_after);
        if passed.found.is_none() {
            // A claim that is broken in a state of this level comes before one that a step out of it breaks.
            let at = hit(broken_at, search.target).map(|invariant| (invariant, passed.depth));
            let after =
                hit(broken_after, search.target).map(|invariant| (invariant, passed.depth + 1));
            passed.found = at
                .or(after)
                .map(|(invariant, depth)| Found { invariant, depth });
        }
        passed.limit = outcome;
        if search.limits.are_too_many(table.len()) {
            // This level was judged to its end, unless another limit came; the next one is not known.
            passed.limit = passed.limit.or(Some(Limit::States));
        } else {
            passed.states = table.len();
        }
        let keep_going = match which {
            Pass::Verdict { keep_going, .. } => keep_going,
            Pass::Levels { .. } => true,
        };
        if passed.limit.is_some() || (passed.found.is_some() && !keep_going) {
            return passed;
        }
        if !waiting.is_empty() {
            waiting.sort_unstable();
            waiting.dedup();
            if !search.grow(grow, &waiting) {
                passed.limit = Some(Limit::Code);
                return passed;
            }
            if !has_room(search, &mut table, waiting.len()) {
                passed.limit = Some(Limit::Memory);
                return passed;
            }
            next.extend(gone_on(search, &table, waiting));
            passed.states = table.len();
        }
        if next.is_empty() {
            return passed;
        }
        passed.depth += 1;
        if search.limits.are_enough(passed.states) {
            passed.limit = Some(Limit::States);
            return passed;
        }
        level = next;
        let progress = Progress {
            states: passed.states,
            frontier: level.iter().map(|block| block.states(layout)).sum(),
            depth: passed.depth,
            bytes: passed.peak_bytes,
        };
        passed.limit = search.limits.is_over(Duration::ZERO, &progress);
        if passed.limit.is_some() {
            return passed;
        }
        if let Pass::Verdict { settled, .. } = &mut which
            && passed.broken.is_empty()
            && settled.is_by_any_number(&progress)
        {
            return passed;
        }
    }
}

/// Makes room in the table for so many more, where there is memory for it.
fn has_room<L: Layout>(search: &Search<'_, L>, table: &mut Table, coming: usize) -> bool {
    if table.is_short_of(coming) {
        let slots = table.grown_slots(coming);
        let bytes = slots as u64 * 8;
        if table.bytes() + bytes > search.limits.bytes() || !memory::has_room_for(bytes) {
            return false;
        }
        table.grow(slots);
    }
    true
}

/// The states of `waiting` once their threads have gone on, as far as they are new.
fn gone_on<L: Layout>(search: &Search<'_, L>, table: &Table, waiting: Vec<Vec<u64>>) -> Vec<Block> {
    let layout = search.record_layout();
    let mut blocks = Vec::new();
    for mut words in waiting {
        let gone = search.go_on(&mut words);
        debug_assert_eq!(gone, Ok(true), "what was asked for is known");
        let fingerprint = search.sections.fingerprint(&words);
        if table.insert(fingerprint) {
            blocks.push(Block::first(layout, &words, fingerprint));
        }
    }
    table.add_len(blocks.len() as u64);
    blocks
}
