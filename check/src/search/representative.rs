//! The representative of a state under symmetry, for states as words.
//!
//! Which state represents another follows from what each section says of the order of pages and of the vCPUs' ranks, and an exchange
//! of pages changes each section by itself. Both are remembered by section, so that hardly any state is unpacked.

use std::ops::Range;

use dirtysim_model::reduce::symmetry::{Exchange, Order, Ranks, Symmetry, vcpu_rank};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;

use super::engine::Search;
use super::sections::hash_words;

/// Sections of a kind whose order is remembered, a power of two.
const ORDERS: usize = 1 << 13;
/// Sections and exchanges of a kind of which it is remembered what they come to, a power of two.
const MOVED: usize = 1 << 14;

/// Finds representatives.
pub(super) struct Representative<L: Layout> {
    state: State<L>,
    /// What the VM-wide section and the threads' say together, then what a vCPU's says; nothing where every state
    /// represents itself.
    orders: Vec<Remembered<Said>>,
    /// What pages' exchange makes of the VM-wide section, of a vCPU's, and of each thread's.
    moved: Vec<Remembered<()>>,
    /// What the sections of the state in work say, and its words in a new order.
    said: Vec<Said>,
    words: Vec<u64>,
}

/// What a section says: of the order of pages, and the rank of the vCPU.
#[derive(Clone, Copy, Default)]
struct Said {
    order: Order,
    ranks: Ranks,
    rank: u64,
}

/// What follows from the sections of one kind: of two that meet in a place the last is remembered.
struct Remembered<T> {
    /// By place: the words that it is about, then those that follow from them.
    words: Vec<u64>,
    /// How many of both there are, and the former alone.
    len: usize,
    about: usize,
    /// By place.
    said: Vec<Option<T>>,
}

impl<T: Copy> Remembered<T> {
    fn new(places: usize, about: usize, follow: usize) -> Self {
        let len = about + follow;
        Self {
            words: vec![0; len * places],
            len,
            about,
            said: vec![None; places],
        }
    }

    fn bytes(&self) -> usize {
        self.words.len() * 8 + self.said.len() * size_of::<Option<T>>()
    }

    /// What is said of some words, and what follows from them; `ask` knows if nobody remembers.
    #[inline(always)]
    fn get(
        &mut self,
        about: impl Iterator<Item = u64> + Clone,
        ask: impl FnOnce(&mut [u64]) -> T,
    ) -> (T, &[u64]) {
        let at = (hash_words(0, about.clone()) >> 32) as usize % self.said.len();
        let words = &mut self.words[at * self.len..(at + 1) * self.len];
        let (known, follow) = words.split_at_mut(self.about);
        let said = match self.said[at] {
            Some(said) if known.iter().copied().eq(about.clone()) => said,
            _ => {
                for (known, word) in known.iter_mut().zip(about) {
                    *known = word;
                }
                *self.said[at].insert(ask(follow))
            }
        };
        (said, follow)
    }
}

impl<L: Layout> Representative<L> {
    pub(super) fn new(search: &Search<'_, L>) -> Self {
        let sections = &search.sections;
        let (vm, vcpu) = (sections.vm::<0>().len(), sections.own::<0>(0).len());
        let threads = search.sections.packing().words() - sections.first_thread();
        let (mut orders, mut moved) = (Vec::new(), Vec::new());
        if !search.symmetry.is_none() {
            orders.extend([vm + threads, vcpu].map(|len| Remembered::new(ORDERS, len, 0)));
            let threads = sections.threads().map(|thread| thread.len());
            let kinds = [vm, vcpu].into_iter().chain(threads);
            moved.extend(kinds.map(|len| Remembered::new(MOVED, len + 1, len)));
        }
        Self {
            state: search.start.clone(),
            orders,
            moved,
            said: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Bytes of what is remembered.
    pub(super) fn bytes(&self) -> u64 {
        let orders = self.orders.iter().map(Remembered::bytes);
        let moved = self.moved.iter().map(Remembered::bytes);
        orders.chain(moved).sum::<usize>() as u64
    }

    /// Whether every state represents itself.
    pub(super) fn is_trivial(&self) -> bool {
        self.orders.is_empty()
    }

    /// Replaces `words` by those of the representative; whether it is another state. `audited`: the model is asked as well.
    #[inline]
    pub(super) fn replace(
        &mut self,
        search: &Search<'_, L>,
        words: &mut [u64],
        audited: bool,
    ) -> bool {
        let places = search.sections.places(words);
        let applies = search
            .symmetry
            .applies(places.map(|place| (usize::from(place.op), place.stage)));
        if applies == (false, false) || self.represents_itself(search, words, applies) {
            assert!(
                !audited || !self.ask(search, words),
                "what the sections say is what the state says"
            );
            return false;
        }
        if search.symmetry.has_ranks() {
            let expected = audited.then(|| {
                let mut expected = words.to_vec();
                self.ask(search, &mut expected);
                expected
            });
            self.exchange(search, words, applies);
            if let Some(expected) = expected {
                assert_eq!(*words, *expected, "sections are exchanged by themselves");
            }
            return true;
        }
        self.ask(search, words)
    }

    /// The same, by the model.
    fn ask(&mut self, search: &Search<'_, L>, words: &mut [u64]) -> bool {
        let packing = search.sections.packing();
        packing.unpack(&search.machine, words, &mut self.state);
        let other = search.symmetry.canonical(&search.machine, &mut self.state);
        if other {
            packing.pack(&search.machine, &mut self.state, words);
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
        let (machine, sections, symmetry) = (&search.machine, &search.sections, &search.symmetry);
        let [shared, of_vcpus] = &mut self.orders[..] else {
            return true;
        };
        let state = &mut self.state;
        let of_all = words[sections.vm::<0>()].iter();
        let of_all = of_all.chain(&words[sections.first_thread()..]).copied();
        let (first, _) = shared.get(of_all, |_| {
            sections.packing().unpack(machine, words, state);
            Said {
                order: symmetry.shared_order(machine, state),
                ranks: symmetry.shared_ranks(machine, state),
                rank: 0,
            }
        });
        self.said.clear();
        self.said.push(first);
        let (mut order, mut last, mut in_order) = (first.order, 0, true);
        for vcpu in 0..sections.vcpus() {
            let section = words[sections.own::<0>(vcpu)].iter().copied();
            let (said, _) = of_vcpus.get(section, |_| {
                sections.packing().unpack(machine, words, state);
                Said {
                    order: symmetry.vcpu_order(machine, state, vcpu),
                    ranks: symmetry.vcpu_ranks(machine, state, vcpu),
                    rank: vcpu_rank(machine, &state.vcpus[vcpu]),
                }
            });
            in_order &= said.rank >= last;
            last = said.rank;
            order = order.then(said.order);
            self.said.push(said);
        }
        (in_order || !vcpus) && (order.is_sorted() || !pages)
    }

    /// Replaces `words` by those of the representative, after its sections were asked what they say.
    fn exchange(
        &mut self,
        search: &Search<'_, L>,
        words: &mut [u64],
        (pages, vcpus): (bool, bool),
    ) {
        let (sections, symmetry) = (&search.sections, &search.symmetry);
        if vcpus {
            self.sort_vcpus(search, words);
        }
        let exchange = if pages {
            symmetry.exchange(self.said.iter().map(|said| said.ranks))
        } else {
            Exchange::NONE
        };
        if exchange == Exchange::NONE {
            return;
        }
        self.words.clear();
        self.words.extend_from_slice(words);
        self.move_section(search, 0, sections.vm::<0>(), exchange, words);
        for vcpu in 0..sections.vcpus() {
            self.move_section(search, 1, sections.own::<0>(vcpu), exchange, words);
        }
        for (kind, thread) in (2..).zip(sections.threads()) {
            self.move_section(search, kind, thread, exchange, words);
        }
    }

    /// Sorts the vCPUs' sections, and what they say, by rank; those of the same rank stay as they are.
    fn sort_vcpus(&mut self, search: &Search<'_, L>, words: &mut [u64]) {
        for end in (1..=search.sections.vcpus()).rev() {
            for vcpu in 1..end {
                if self.said[vcpu].rank > self.said[vcpu + 1].rank {
                    self.said.swap(vcpu, vcpu + 1);
                    let [one, other] = [vcpu - 1, vcpu].map(|at| search.sections.own::<0>(at));
                    one.zip(other).for_each(|(a, b)| words.swap(a, b));
                }
            }
        }
    }

    /// Writes what an exchange makes of a section of the state in work.
    #[inline(always)]
    fn move_section(
        &mut self,
        search: &Search<'_, L>,
        kind: usize,
        section: Range<usize>,
        exchange: Exchange,
        out: &mut [u64],
    ) {
        let Self {
            state,
            words,
            moved,
            ..
        } = self;
        let about = std::iter::once(exchange.to_word());
        let about = about.chain(words[section.clone()].iter().copied());
        let ((), moved) = moved[kind].get(about, |follow| {
            let packing = search.sections.packing();
            packing.unpack(&search.machine, words, state);
            Symmetry::move_pages(&search.machine, state, exchange);
            let mut all = vec![0; packing.words()];
            packing.pack(&search.machine, state, &mut all);
            follow.copy_from_slice(&all[section.clone()]);
        });
        out[section].copy_from_slice(moved);
    }
}
