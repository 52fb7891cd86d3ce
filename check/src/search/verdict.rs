//! A verdict: a search, and the counterexample of what it found.

use std::borrow::Cow;

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;

use super::bounds::Bounds;
use super::engine::{Passed, Search};
use super::levels::{Pass, pass};
use super::limits::Limits;
use super::sections::Sections;
use super::settled::{Settled, does_what_it_must};
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
    let limits = Limits::new(options, watch);
    let mut settled = Settled::new(scenario, options, limits, watch);
    let of = |machine| Search::new(machine, start, target(scenario), options.reductions, limits);
    let unordered = Some(scenario)
        .filter(|_| options.reductions.pages && target(scenario).is_none())
        .and_then(|scenario| Symmetry::without_order(&scenario.machine, start))
        .and_then(|machine| {
            let mut search = of(Cow::Owned(machine));
            let which = Pass::Verdict {
                keep_going: false,
                settled: &mut settled,
            };
            let passed = pass(&mut search, which, grow);
            says_it_all(scenario, &passed).then_some((search, passed))
        });
    let (mut search, passed) = unordered.unwrap_or_else(|| {
        let mut search = of(Cow::Borrowed(&scenario.machine));
        let which = Pass::Verdict {
            keep_going: options.keep_going,
            settled: &mut settled,
        };
        let passed = pass(&mut search, which, grow);
        (search, passed)
    });
    if let Some(report) = settled.report() {
        return (report, None);
    }
    let refused = search.refused();
    let reduced = Reduced {
        classes: search.symmetry.classes().to_vec(),
        pages_everywhere: search.symmetry.pages_everywhere(),
        order_unknown: search.machine.order_unknown,
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
        own_numbers: None,
    };
    let grown = match search.machine {
        Cow::Owned(machine) if machine.code.is_some() => Some(machine),
        Cow::Owned(_) | Cow::Borrowed(_) => None,
    };
    (report, grown)
}

/// Whether a search in which the order of pages is unknown settles what is asked: nothing breaks whatever it is, and what the program must
/// do, the machine does as it is. A limit ends it as it would end any.
fn says_it_all(scenario: &Scenario, passed: &Passed) -> bool {
    if passed.found.is_some() || !passed.broken.is_empty() {
        return false;
    }
    passed.limit.is_some() || does_what_it_must(scenario)
}
