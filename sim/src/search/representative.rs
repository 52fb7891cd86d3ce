//! The representative of a state under symmetry, for states as words.
//!
//! Most states represent themselves, and whether one does follows from what each of its sections says of the order of
//! pages and of the vCPUs' ranks. That is remembered by section, so that only states that change are unpacked.

use dirtysim_model::reduce::symmetry::{Order, vcpu_rank};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;

use super::engine::Search;
use super::sections::hash_words;

/// Sections of a kind that are remembered, a power of two.
const REMEMBERED: usize = 1 << 13;

/// Finds representatives.
pub(super) struct Representative<L: Layout> {
    state: State<L>,
    /// What the VM-wide section and the threads' say together, then what each vCPU's says; nothing where every state
    /// represents itself.
    orders: Vec<Remembered>,
}

/// What sections of one kind say: of the order of pages, and the rank of the vCPU.
struct Remembered {
    /// By place: the words that it is about; so many of them.
    words: Vec<u64>,
    len: usize,
    /// By place.
    said: Vec<Option<(Order, u64)>>,
}

impl Remembered {
    fn new(len: usize) -> Self {
        Self {
            words: vec![0; len * REMEMBERED],
            len,
            said: vec![None; REMEMBERED],
        }
    }

    /// What is said by these words; `ask` knows if nobody remembers.
    #[inline(always)]
    fn get<'a>(
        &mut self,
        words: impl Iterator<Item = &'a u64> + Clone,
        ask: impl FnOnce() -> (Order, u64),
    ) -> (Order, u64) {
        let at = (hash_words(0, words.clone().copied()) >> 32) as usize % REMEMBERED;
        let known = &mut self.words[at * self.len..(at + 1) * self.len];
        if let Some(said) = self.said[at]
            && known.iter().eq(words.clone())
        {
            return said;
        }
        for (known, word) in known.iter_mut().zip(words) {
            *known = *word;
        }
        *self.said[at].insert(ask())
    }
}

impl<L: Layout> Representative<L> {
    pub(super) fn new(search: &Search<'_, L>) -> Self {
        let any = !search.symmetry.is_none();
        let sections = &search.sections;
        let vcpus = (0..sections.vcpus()).map(|vcpu| sections.own::<0>(vcpu).len());
        let shared = search.sections.packing().words() - vcpus.clone().sum::<usize>();
        Self {
            state: search.start.clone(),
            orders: [shared]
                .into_iter()
                .chain(vcpus)
                .filter(|_| any)
                .map(Remembered::new)
                .collect(),
        }
    }

    /// Bytes of what is remembered.
    pub(super) fn bytes(&self) -> u64 {
        let each = |orders: &Remembered| {
            orders.words.len() * 8 + orders.said.len() * size_of::<Option<(Order, u64)>>()
        };
        self.orders.iter().map(each).sum::<usize>() as u64
    }

    /// Whether every state represents itself.
    pub(super) fn is_trivial(&self) -> bool {
        self.orders.is_empty()
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
        let itself = self.represents_itself(search, words, applies);
        if itself && !cfg!(debug_assertions) {
            return false;
        }
        let packing = search.sections.packing();
        packing.unpack(search.machine, words, &mut self.state);
        let other = search.symmetry.canonical(search.machine, &mut self.state);
        debug_assert_eq!(
            itself, !other,
            "what the sections say is what the state says"
        );
        if other {
            packing.pack(search.machine, &mut self.state, words);
        }
        other
    }

    /// Whether a state represents itself, where pages, and where vCPUs, may be exchanged.
    #[inline]
    fn represents_itself(
        &mut self,
        search: &Search<'_, L>,
        words: &[u64],
        (pages, vcpus): (bool, bool),
    ) -> bool {
        let (machine, sections, symmetry) = (search.machine, &search.sections, &search.symmetry);
        let Some((shared, of_vcpus)) = self.orders.split_first_mut() else {
            return true;
        };
        let state = &mut self.state;
        let mut joined = None;
        if pages {
            let threads = &words[sections.first_thread()..];
            let (order, _) = shared.get(words[sections.vm::<0>()].iter().chain(threads), || {
                sections.packing().unpack(machine, words, state);
                (symmetry.shared_order(machine, state), 0)
            });
            joined = Some(order);
        }
        let mut last = 0;
        for (vcpu, remembered) in of_vcpus.iter_mut().enumerate() {
            let (order, rank) = remembered.get(words[sections.own::<0>(vcpu)].iter(), || {
                sections.packing().unpack(machine, words, state);
                (
                    symmetry.vcpu_order(machine, state, vcpu),
                    vcpu_rank(state, vcpu),
                )
            });
            if vcpus && rank < last {
                return false;
            }
            last = rank;
            joined = joined.map(|joined| joined.then(order));
        }
        joined.is_none_or(Order::is_sorted)
    }
}
