//! The search, level by level.

use std::time::Instant;

use dirtysim_model::independence::Rules;
use dirtysim_model::layout::Layout;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::symmetry::Symmetry;

use super::level::{Block, Desk, Job, Outcome, RecordLayout, Stop, expand};
use super::sections::Sections;
use super::source::Source;
use super::table::{Table, collision_probability};
use super::{
    Coverage, Limit, Options, Progress, Reduced, Report, TooLarge, Verdict, Violation, Watch,
    boards, memory, path,
};
use crate::run::hit;
use crate::sometimes::{Seen, no_claim};

/// The violation of the shallowest state or transition, among those of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) invariant: Invariant,
    pub(super) depth: u32,
}

/// What a search knows while it goes on.
pub(super) struct Search<'a, L: Layout> {
    pub(super) machine: &'a Machine,
    pub(super) start: &'a State<L>,
    pub(super) sections: Sections,
    pub(super) symmetry: Symmetry,
    pub(super) rules: Rules,
    pub(super) target: Option<Invariant>,
    pub(super) limit_bytes: u64,
    pub(super) deadline: Option<Instant>,
    pub(super) watch: Watch<'a>,
}

impl<'a, L: Layout> Search<'a, L> {
    pub(super) fn new(
        machine: &'a Machine,
        start: &'a State<L>,
        target: Option<Invariant>,
        options: &Options,
        watch: Watch<'a>,
    ) -> Self {
        let wanted = options.reductions;
        let packing = Packing::new(machine, start);
        let rules = Rules::of(machine, |rule| wanted.rules >> rule as u8 & 1 != 0);
        Self {
            machine,
            start,
            sections: Sections::new(machine, start, packing, &rules),
            symmetry: Symmetry::of(machine, start, wanted.pages, wanted.vcpus),
            rules,
            target,
            limit_bytes: options
                .max_memory_bytes
                .unwrap_or_else(memory::default_limit_bytes),
            deadline: options.max_time.map(|time| Instant::now() + time),
            watch,
        }
    }

    /// The transition function, for states as words.
    pub(super) fn source(&self) -> Source<'_, L> {
        Source {
            machine: self.machine,
            sections: &self.sections,
            rules: &self.rules,
            start: self.start,
        }
    }

    pub(super) fn record_layout(&self) -> RecordLayout {
        RecordLayout::new(self.sections.packing().words(), self.sections.actors())
    }

    /// The limit that was reached, after telling whoever watches.
    pub(super) fn limit_reached(&self, progress: &Progress) -> Option<Limit> {
        if progress.bytes > self.limit_bytes {
            return Some(Limit::Memory);
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Some(Limit::Time);
        }
        (!(self.watch)(progress)).then_some(Limit::Interrupt)
    }

    /// The words of the representative of a state.
    pub(super) fn representative(&self, mut state: State<L>) -> Vec<u64> {
        // Exchanged is what is in its normal form: what nobody can read decides nothing.
        let words = self.source().pack(&mut state);
        let mut state = self.source().unpack(&words);
        if self.symmetry.canonical(self.machine, &mut state) {
            self.source().pack(&mut state)
        } else {
            words
        }
    }
}

/// Which of the two passes over a scenario a search is.
pub(super) enum Pass<'k> {
    /// The verdict.
    Verdict {
        max_states: Option<u64>,
        keep_going: bool,
    },
    /// The levels down to a depth, kept, for a counterexample.
    Levels {
        depth: u32,
        kept: &'k mut Vec<Vec<Block>>,
    },
}

/// What a pass came to.
pub(super) struct Passed {
    pub(super) limit: Option<Limit>,
    pub(super) found: Option<Found>,
    pub(super) broken: Invariants,
    pub(super) seen: Seen,
    pub(super) states: u64,
    pub(super) transitions: u64,
    pub(super) depth: u32,
    pub(super) peak_bytes: u64,
}

impl Passed {
    /// The first state is known, and nothing else.
    pub(super) fn begin(peak_bytes: u64) -> Self {
        Self {
            limit: None,
            found: None,
            broken: Invariants::NONE,
            seen: Seen::default(),
            states: 1,
            transitions: 0,
            depth: 0,
            peak_bytes,
        }
    }
}

/// Runs one pass.
pub(super) fn pass<L: Layout>(search: &Search<'_, L>, mut which: Pass<'_>) -> Passed {
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
    loop {
        let frontier: u64 = level.iter().map(|block| block.states(layout)).sum();
        if let Pass::Levels { depth, kept } = &mut which {
            kept_bytes += level.iter().map(Block::bytes).sum::<u64>();
            kept.push(level.clone());
            if passed.depth == *depth {
                return passed;
            }
        }
        let mut job = Job::new(level, passed.depth, frontier, kept_bytes, &mut desks);
        let outcome = loop {
            match expand(search, &mut table, &mut job, &desks) {
                Stop::Done => break None,
                Stop::Full => {
                    let slots = table.grown_slots(job.slack(search));
                    let old = table.bytes();
                    if old + slots as u64 * 8 + job.bytes() + kept_bytes > search.limit_bytes
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
        let Outcome {
            broken_at,
            broken_after,
            seen,
            transitions,
            next,
        } = job.outcome();
        passed.seen.union(seen);
        passed.transitions += transitions;
        passed.states = table.len();
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
        let (keep_going, max_states) = match which {
            Pass::Verdict {
                keep_going,
                max_states,
            } => (keep_going, max_states),
            Pass::Levels { .. } => (true, None),
        };
        if passed.limit.is_some() || (passed.found.is_some() && !keep_going) {
            return passed;
        }
        if next.is_empty() {
            return passed;
        }
        passed.depth += 1;
        if max_states.is_some_and(|most| passed.states >= most) {
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
        if !(search.watch)(&progress) {
            passed.limit = Some(Limit::Interrupt);
            return passed;
        }
    }
}

/// Searches from `start`.
pub(super) fn search<L: Layout>(
    machine: &Machine,
    start: &State<L>,
    target: Option<Invariant>,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, TooLarge> {
    let mut search = Search::new(machine, start, target, options, watch);
    let is_exact = boards::suits(&search);
    let passed = if is_exact {
        boards::pass(&search, options.max_states, options.keep_going)
    } else {
        pass(
            &search,
            Pass::Verdict {
                max_states: options.max_states,
                keep_going: options.keep_going,
            },
        )
    };
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
    search.sections = Sections::new(machine, start, packing, &search.rules);
    search.symmetry = Symmetry::of(machine, start, options.reductions.pages, false);
    let violation = passed.found.map(|found| {
        let steps = options
            .counterexample
            .then(|| path::shortest(&search, found))
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
        (None, None) if no_claim(machine, passed.seen).is_some() => Verdict::Inconclusive,
        (None, None) => Verdict::Holds,
    };
    Ok(Report {
        verdict,
        coverage: passed
            .limit
            .map_or(Coverage::Exhausted, Coverage::Truncated),
        states: passed.states,
        transitions: passed.transitions,
        depth: passed.depth,
        violation,
        broken: passed.broken,
        seen: passed.seen,
        collision_probability: if is_exact {
            0.0
        } else {
            collision_probability(passed.states)
        },
        reduced,
        state_bits: search.sections.packing().bits(),
        peak_bytes: passed.peak_bytes,
    })
}
