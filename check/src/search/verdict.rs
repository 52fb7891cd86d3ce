//! A verdict: a search, and the counterexample of what it found.

use std::borrow::Cow;

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;

use super::bounds::Bounds;
use super::engine::Search;
use super::levels::{Pass, pass};
use super::sections::Sections;
use super::table::collision_probability;
use super::{Coverage, Options, Reduced, Report, Verdict, Violation, Watch, path};
use crate::code::Grow;
use crate::run::target;
use crate::scenario::Scenario;
use crate::sometimes::no_claim;

/// Searches from `start`; the report, and the machine if it has grown.
pub(super) fn search<L: Layout>(
    scenario: &Scenario,
    start: &State<L>,
    options: &Options,
    watch: Watch<'_>,
    grow: &mut dyn Grow,
) -> (Report, Option<Machine>) {
    let machine = &scenario.machine;
    let mut search = Search::new(machine, start, target(scenario), options, watch);
    let passed = pass(
        &mut search,
        Pass::Verdict {
            keep_going: options.keep_going,
        },
        grow,
    );
    let refused = search.refused();
    let reduced = Reduced {
        classes: search.symmetry.classes().to_vec(),
        pages_everywhere: search.symmetry.pages_everywhere(),
        vcpus: search.symmetry.exchanges_vcpus(),
        rules: search.rules.iter().collect(),
    };
    // A path is as short as can be only where every interleaving is looked at; exchanging pages changes no length.
    // Exchanging vCPUs leaves some states apart that could be exchanged, so that the way back could not be followed.
    search.rules = Rules::none();
    let packing = *search.sections.packing();
    search.sections = Sections::new(&search.machine, start, packing, &search.rules);
    search.symmetry = Symmetry::of(&search.machine, start, options.reductions.pages, false);
    let violation = passed.found.map(|found| {
        let steps = options
            .counterexample
            .then(|| path::shortest(&mut search, found, grow))
            .flatten();
        Violation {
            invariant: found.invariant,
            depth: found.depth,
            shortest: steps.is_some(),
            steps,
        }
    });
    let verdict = match (&violation, passed.limit) {
        (Some(_), _) => Verdict::Violated,
        (None, Some(_)) => Verdict::Inconclusive,
        // What never claims anything, or never gets where it must, holds nothing.
        (None, None) if no_claim(&search.machine, passed.seen).is_some() => Verdict::Inconclusive,
        (None, None) => Verdict::Holds,
    };
    let bounds = Bounds::of(scenario);
    let coverage = match passed.limit {
        Some(limit) => Coverage::Truncated(limit),
        // What is looked for may be one claim of several that break.
        None if verdict == Verdict::Holds && passed.broken.is_empty() && bounds.prove() => {
            Coverage::Proved
        }
        None => Coverage::Exhausted,
    };
    let report = Report {
        verdict,
        coverage,
        states: passed.states,
        transitions: passed.transitions,
        depth: passed.depth,
        violation,
        broken: passed.broken,
        seen: passed.seen,
        refused,
        collision_probability: collision_probability(passed.states),
        reduced,
        state_bits: search.sections.packing().bits(),
        peak_bytes: passed.peak_bytes,
        bounds,
        instance: None,
        unconfirmed: None,
    };
    let grown = match search.machine {
        Cow::Owned(machine) => Some(machine),
        Cow::Borrowed(_) => None,
    };
    (report, grown)
}
