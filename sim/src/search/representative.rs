//! The representative of a state under symmetry, for states as words.

use dirtysim_model::layout::Layout;
use dirtysim_model::state::State;

use super::engine::Search;

/// Fingerprints that are remembered, a power of two: 256 KiB.
const KNOWN: usize = 1 << 15;

/// States whose representative was looked up lately: most successors were some other state's before.
pub(super) struct Known {
    fingerprints: Vec<u64>,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            fingerprints: vec![0; KNOWN],
        }
    }

    /// Whether the state was looked up lately; from now on it was.
    #[inline]
    fn meets(&mut self, fingerprint: u64) -> bool {
        let place = &mut self.fingerprints[(fingerprint >> 40) as usize % KNOWN];
        std::mem::replace(place, fingerprint) == fingerprint
    }
}

/// What a state is replaced by.
pub(super) enum Replaced {
    /// It represents itself.
    Itself,
    /// By a state that was looked up before.
    Known,
    /// By the words that were written.
    Other,
}

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

    /// Replaces `words` by those of the representative.
    #[inline]
    pub(super) fn replace(
        &mut self,
        search: &Search<'_, L>,
        known: &mut Known,
        fingerprint: u64,
        words: &mut [u64],
    ) -> Replaced {
        let places = search.sections.places(words);
        let applies = search
            .symmetry
            .applies(places.map(|place| (usize::from(place.op), place.stage)));
        if applies == (false, false) {
            return Replaced::Itself;
        }
        if known.meets(fingerprint) {
            return Replaced::Known;
        }
        let packing = search.sections.packing();
        packing.unpack(search.machine, words, &mut self.state);
        if !search.symmetry.canonical(search.machine, &mut self.state) {
            return Replaced::Itself;
        }
        packing.pack(search.machine, &mut self.state, words);
        Replaced::Other
    }
}
