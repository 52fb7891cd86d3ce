//! Any number of pages: one page is tracked, and the others may be anything at every moment.
//!
//! The machine has few pages: the tracked one, one below and one above it in its word of the bitmap and in its RESET batch, and one that is
//! far from it in both. What a state says of the others is forgotten after every step (`others`), and whatever it could say is tried
//! before the next one, as far as that step looks at it (`argued`, a row for each operation). So a state stands for all that agree with it
//! about the tracked page, on machines with any number of pages, and what no such state breaks, no machine breaks: `docs/proofs.md` has the
//! argument, step by step. The transition function and the oracle are those of every search; nothing is said a second time.
//!
//! States are kept whole here, so that none is taken for another.
//!
//! What is broken in such a state need not be broken anywhere: it is looked for on machines of a few pages.

mod argued;
mod explore;
mod instance;
mod known;
pub(super) mod others;

use dirtysim_model::machine::Machine;
use dirtysim_model::op::Op;
use dirtysim_model::oracle::Invariants;
use dirtysim_model::words::Frame;

use explore::Explorer;
use others::Tried;

use super::bounds::Bounds;
use super::limits::Limits;
use super::{Coverage, Limit, Options, Reduced, Report, TooLarge, Verdict, Watch};
use crate::ladder::small;
use crate::scenario::Scenario;
use crate::sometimes::{Seen, no_claim};

pub(crate) use argued::{not_argued, stands_in_the_way};
pub(crate) use instance::with_pages;

/// Pages of such a machine.
pub(crate) const PAGES: u32 = 6;
/// Bits of a word of the bitmap: the far page is in the second.
pub(crate) const WORD_BITS: u32 = 4;
/// Pages of a RESET batch: the page below, the tracked one and the one above fit into one, and with the far one none does.
pub(crate) const BATCH_PAGES: u32 = 3;

/// The page that is tracked.
pub(crate) const TRACKED: Frame = Frame(1);
/// The one below it.
pub(super) const BELOW: Frame = Frame(0);
/// The one above it.
pub(super) const ABOVE: Frame = Frame(2);
/// One that is in another word, and in no batch with any of these. It stands for any other page where only one is named.
pub(crate) const FAR: Frame = Frame(5);

/// The most calls of kernel writers in programs: each doubles the machines that are searched.
const MOST_WRITES: usize = 5;

/// A run of such states that ends in a broken claim, and that no machine of few pages has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What is broken there.
    pub broken: Invariants,
    /// Its steps, in words.
    pub run: Vec<String>,
    /// The most pages of a machine that was searched to its end for it.
    pub searched: u64,
}

/// Searches a scenario with any number of pages. Blocks until it is done or `watch` says that it is enough.
///
/// # Errors
/// A scenario whose states are larger than the search has room for.
pub(super) fn check(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, TooLarge> {
    match abstracted(scenario, options, watch)? {
        (report, None) => Ok(report),
        (report, Some((broken, run))) => {
            instance::look_for(scenario, broken, run, report, options, watch)
        }
    }
}

/// What breaks a claim where the others may be anything, and the run that leads there, in words.
pub(super) type Broken = (Invariants, Vec<String>);

/// As [`check`]; what is broken in the abstraction is not looked for on machines of few pages.
pub(super) fn abstracted(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
) -> Result<(Report, Option<Broken>), TooLarge> {
    let bounds = Bounds::of(scenario);
    let mut report = Report {
        verdict: Verdict::Inconclusive,
        coverage: Coverage::Exhausted,
        states: 0,
        transitions: 0,
        depth: 0,
        violation: None,
        broken: Invariants::NONE,
        seen: Seen::default(),
        refused: Default::default(),
        // States are kept whole.
        collision_probability: 0.0,
        reduced: Reduced::default(),
        state_bits: 0,
        peak_bytes: 0,
        bounds,
        instance: None,
        unconfirmed: None,
        own_numbers: None,
    };
    let limits = Limits::new(options, watch);
    let mut limit: Option<Limit> = None;
    for machine in variants(&scenario.machine) {
        let start = explore::begin(&machine, small(scenario)?);
        let left = limits.after(report.states);
        let wanted = options.reductions;
        let explorer = Explorer::new(&machine, &start, Tried::ALL, wanted, left);
        let explored = explorer.explore().0;
        report.states += explored.states;
        report.transitions += explored.transitions;
        report.depth = report.depth.max(explored.depth);
        report.seen.union(explored.seen);
        report.reduced.vcpus |= explored.exchanges_vcpus;
        report.reduced.rules = explored.rules;
        report.state_bits = explored.state_bits;
        report.peak_bytes = report.peak_bytes.max(explored.peak_bytes);
        report.refused.extend(explored.refused);
        limit = limit.or(explored.limit);
        if explored.found.is_some() {
            return Ok((report, explored.found));
        }
        if limit.is_some() {
            break;
        }
    }
    report.coverage = limit.map_or(Coverage::Exhausted, Coverage::Truncated);
    let mutated = !scenario.machine.mutations().is_empty();
    // Nothing is argued for a wrong kernel: that its states break nothing says nothing.
    if limit.is_none() && !mutated && no_claim(&scenario.machine, report.seen).is_none() {
        report.verdict = Verdict::Holds;
        if report.bounds.prove() {
            report.coverage = Coverage::Proved;
        }
    }
    Ok((report, None))
}

/// The machines in which the tracked page is, or is not, one of those that each call of a kernel writer writes: all of them first, none last.
pub(super) fn variants(machine: &Machine) -> Vec<Machine> {
    let mut machine = machine.clone();
    machine.frame_lists = vec![vec![FAR], vec![TRACKED]];
    let calls = writes(&machine).count();
    let variant = |written: usize| {
        let mut machine = machine.clone();
        let ops = machine.programs.iter_mut().flatten();
        let calls = ops.filter_map(|op| match op {
            Op::KernelWrite(op) => Some(op),
            _ => None,
        });
        for (call, op) in calls.enumerate() {
            op.frames = (written >> call & 1) as u16;
        }
        machine
    };
    (0..1 << calls).rev().map(variant).collect()
}

/// The calls of kernel writers in a machine's programs.
fn writes(machine: &Machine) -> impl Iterator<Item = &Op> {
    let ops = machine.programs.iter().flatten();
    ops.filter(|op| matches!(op, Op::KernelWrite(_)))
}

#[cfg(test)]
mod tests;
