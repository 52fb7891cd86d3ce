//! What a search knows while it goes on, and what a pass of it came to.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use dirtysim_model::machine::{Machine, Op};
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;

use super::block::RecordLayout;
use super::limits::Limits;
use super::sections::Sections;
use super::source::Source;
use super::tracked::others::Tried;
use super::{Limit, Reductions};
use crate::code::{self, Grow, Unknown};
use crate::refused::Refused;
use crate::sometimes::Seen;

/// The violation of the shallowest state or transition, among those of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) invariant: Invariant,
    pub(super) depth: u32,
}

/// What a search knows while it goes on.
pub(super) struct Search<'a, L: Layout> {
    /// Owned once it has grown.
    pub(super) machine: Cow<'a, Machine>,
    pub(super) start: &'a State<L>,
    pub(super) sections: Sections,
    pub(super) symmetry: Symmetry,
    pub(super) rules: Rules,
    pub(super) target: Option<Invariant>,
    pub(super) limits: Limits<'a>,
    refused: Mutex<BTreeSet<Refused>>,
    /// As in [`Source`].
    pub(super) others: Option<Tried>,
}

impl<'a, L: Layout> Search<'a, L> {
    pub(super) fn new(
        machine: Cow<'a, Machine>,
        start: &'a State<L>,
        target: Option<Invariant>,
        wanted: Reductions,
        limits: Limits<'a>,
    ) -> Self {
        let packing = Packing::new(&machine, start);
        let rules = Rules::of(&machine, |rule| wanted.rules >> rule as u8 & 1 != 0);
        Self {
            start,
            sections: Sections::new(&machine, start, packing, &rules),
            symmetry: Symmetry::of(&machine, start, wanted.pages, wanted.vcpus),
            machine,
            rules,
            target,
            limits,
            refused: Mutex::default(),
            others: None,
        }
    }

    /// The ioctls that were refused so far.
    pub(super) fn refused(&self) -> BTreeSet<Refused> {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The transition function, for states as words.
    pub(super) fn source(&self) -> Source<'_, L> {
        Source {
            machine: &self.machine,
            sections: &self.sections,
            rules: &self.rules,
            start: self.start,
            refused: &self.refused,
            others: self.others,
        }
    }

    pub(super) fn record_layout(&self) -> RecordLayout {
        RecordLayout::new(self.sections.packing().words(), self.sections.actors())
    }

    /// The words of the representative of a state.
    pub(super) fn representative(&self, mut state: State<L>) -> Vec<u64> {
        // A thread of which nobody knows where it goes on represents itself.
        let _ = code::go_on(&self.machine, &mut state);
        // Exchanged is what is in its normal form: what nobody can read decides nothing.
        let words = self.source().pack(&mut state);
        let mut state = self.source().unpack(&words);
        if self.symmetry.canonical(&self.machine, &mut state) {
            self.source().pack(&mut state)
        } else {
            words
        }
    }

    /// Lets the threads of a state go on that stand between two calls; whether it is another state then.
    ///
    /// # Errors
    /// It is not known where to.
    #[inline]
    pub(super) fn go_on(&self, words: &mut Vec<u64>) -> Result<bool, Unknown> {
        let between = |op: Option<&Op>| matches!(op, Some(Op::Proceed(_)));
        let is_between = {
            let mut places = self.sections.places(words).zip(&self.machine.programs);
            places.any(|(place, program)| between(program.get(usize::from(place.op))))
        };
        if !is_between {
            return Ok(false);
        }
        let mut state = self.source().unpack(words);
        code::go_on(&self.machine, &mut state)?;
        *words = self.source().pack(&mut state);
        Ok(true)
    }

    /// Asks `grow` for what is not known of the program behind these states; whether it knew.
    pub(super) fn grow(&mut self, grow: &mut dyn Grow, waiting: &[Vec<u64>]) -> bool {
        let mut unknown = BTreeSet::new();
        for words in waiting {
            unknown.extend(self.go_on(&mut words.clone()).err());
        }
        let unknown: Vec<Unknown> = unknown.into_iter().collect();
        let grown = grow.grow(self.machine.to_mut(), &unknown);
        self.sections.grow(&self.machine, self.start, &self.rules);
        grown
    }
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
