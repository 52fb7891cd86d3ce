//! The representative of a state under symmetry, for states as words.

use dirtysim_model::layout::Layout;
use dirtysim_model::state::State;

use super::engine::Search;

/// Finds representatives.
pub(super) struct Representative<L: Layout> {
    state: State<L>,
    none: bool,
}

impl<L: Layout> Representative<L> {
    pub(super) fn new(search: &Search<'_, L>) -> Self {
        Self {
            state: search.start.clone(),
            none: search.symmetry.is_none(),
        }
    }

    /// Whether every state represents itself.
    pub(super) fn is_trivial(&self) -> bool {
        self.none
    }

    /// Replaces `words` by those of the representative; whether it is another state.
    #[inline]
    pub(super) fn replace(&mut self, search: &Search<'_, L>, words: &mut [u64]) -> bool {
        let places = search.sections.places(words);
        let applies = search
            .symmetry
            .applies(places.map(|place| (usize::from(place.op), place.stage)));
        if applies == (false, false) {
            return false;
        }
        let packing = search.sections.packing();
        packing.unpack(search.machine, words, &mut self.state);
        if !search.symmetry.canonical(search.machine, &mut self.state) {
            return false;
        }
        packing.pack(search.machine, &mut self.state, words);
        true
    }
}
