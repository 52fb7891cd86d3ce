//! Page sets: one abstraction for every "which pages" of the model. A set says of which kind its pages are ([`SetOf`]).
//!
//! The transition function is written once over [`PageSet`] and names no concrete set. The searches use the
//! inline ones ([`Inline64`]), plain data that is cheap to copy, hash and compare; replay of recorded calls uses [`Sparse`],
//! whose memory grows with the pages that were touched and not with the size of the guest.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt::Debug;
use core::hash::Hash;
use core::marker::PhantomData;

use crate::words::{Frame, HostPage, Page};

/// A set of pages, each a frame or host page number counted from 0 over the whole machine.
///
/// The `*_word` operations serve the bitmap ioctls, which work by words of up to 64 pages.
pub trait PageSet: Clone + Default + Eq + Hash + Debug {
    /// The number of pages that a set can tell apart; the caller keeps page numbers below it.
    const CAPACITY: u64;

    /// Whether `page` is in the set.
    fn contains(&self, page: u32) -> bool;
    /// Adds `page`.
    fn insert(&mut self, page: u32);
    /// Takes `page` out.
    fn remove(&mut self, page: u32);
    /// Whether no page is in the set.
    fn is_empty(&self) -> bool;
    /// Adds every page of `other`.
    fn union(&mut self, other: &Self);
    /// Takes every page of `other` out.
    fn subtract(&mut self, other: &Self);
    /// Adds `count` pages from `first` on.
    fn insert_range(&mut self, first: u32, count: u32);
    /// Takes `count` pages from `first` on out.
    fn remove_range(&mut self, first: u32, count: u32);
    /// The pages `first .. first + bits` as a word, bit 0 for `first`; `bits` is at most 64.
    fn word(&self, first: u32, bits: u32) -> u64;
    /// Adds the pages whose bit is set in `mask`, bit 0 for `first`.
    fn set_word(&mut self, first: u32, mask: u64);
    /// Takes the pages whose bit is set in `mask` out, bit 0 for `first`.
    fn clear_word(&mut self, first: u32, mask: u64);
    /// The lowest page that is not below `from`.
    fn next(&self, from: u32) -> Option<u32>;
    /// How many pages are in the set.
    fn count(&self) -> u64;

    /// The pages in ascending order.
    fn iter(&self) -> Pages<'_, Self> {
        Pages {
            set: self,
            from: Some(0),
        }
    }

    /// Whether the set has a page of `other`.
    fn intersects(&self, other: &Self) -> bool {
        other.iter().any(|page| self.contains(page))
    }

    /// Empties the set.
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The pages of a set in ascending order.
#[derive(Debug)]
pub struct Pages<'a, S> {
    set: &'a S,
    from: Option<u32>,
}

impl<S: PageSet> Iterator for Pages<'_, S> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let page = self.set.next(self.from?)?;
        self.from = page.checked_add(1);
        Some(page)
    }
}

/// A set of pages of one kind: frames, or host pages.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SetOf<P, S> {
    numbers: S,
    kind: PhantomData<P>,
}

/// A set of frames.
pub type Frames<S> = SetOf<Frame, S>;
/// A set of host pages.
pub type HostPages<S> = SetOf<HostPage, S>;

impl<P: Copy, S: Copy> Copy for SetOf<P, S> {}

impl<P, S: Default> Default for SetOf<P, S> {
    #[inline(always)]
    fn default() -> Self {
        Self::of(S::default())
    }
}

impl<P, S> SetOf<P, S> {
    /// The pages of these numbers.
    #[inline(always)]
    pub const fn of(numbers: S) -> Self {
        Self {
            numbers,
            kind: PhantomData,
        }
    }

    /// Their numbers.
    #[inline(always)]
    pub const fn numbers(&self) -> &S {
        &self.numbers
    }

    /// Their numbers, to change.
    #[inline(always)]
    pub const fn numbers_mut(&mut self) -> &mut S {
        &mut self.numbers
    }
}

impl<S> Frames<S> {
    /// As host pages, where no slot's are numbered otherwise than its frames ([`Machine::aliased`](crate::machine::Machine::aliased)).
    #[inline(always)]
    pub fn as_hosts(self) -> HostPages<S> {
        SetOf::of(self.numbers)
    }
}

/// As the methods of [`PageSet`].
#[allow(missing_docs)]
impl<P: Page, S: PageSet> SetOf<P, S> {
    #[inline(always)]
    pub fn contains(&self, page: P) -> bool {
        self.numbers.contains(page.number())
    }
    #[inline(always)]
    pub fn insert(&mut self, page: P) {
        self.numbers.insert(page.number());
    }
    #[inline(always)]
    pub fn remove(&mut self, page: P) {
        self.numbers.remove(page.number());
    }
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
    #[inline(always)]
    pub fn union(&mut self, other: &Self) {
        self.numbers.union(&other.numbers);
    }
    #[inline(always)]
    pub fn subtract(&mut self, other: &Self) {
        self.numbers.subtract(&other.numbers);
    }
    #[inline(always)]
    pub fn insert_range(&mut self, first: P, count: u32) {
        self.numbers.insert_range(first.number(), count);
    }
    #[inline(always)]
    pub fn remove_range(&mut self, first: P, count: u32) {
        self.numbers.remove_range(first.number(), count);
    }
    #[inline(always)]
    pub fn word(&self, first: P, bits: u32) -> u64 {
        self.numbers.word(first.number(), bits)
    }
    #[inline(always)]
    pub fn set_word(&mut self, first: P, mask: u64) {
        self.numbers.set_word(first.number(), mask);
    }
    #[inline(always)]
    pub fn clear_word(&mut self, first: P, mask: u64) {
        self.numbers.clear_word(first.number(), mask);
    }
    #[inline(always)]
    pub fn next(&self, from: P) -> Option<P> {
        self.numbers.next(from.number()).map(P::new)
    }
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.numbers.count()
    }
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = P> + use<'_, P, S> {
        self.numbers.iter().map(P::new)
    }
    #[inline(always)]
    pub fn intersects(&self, other: &Self) -> bool {
        self.numbers.intersects(&other.numbers)
    }
    #[inline(always)]
    pub fn clear(&mut self) {
        self.numbers.clear();
    }
}

macro_rules! inline_set {
    ($(#[$doc:meta])* $name:ident, $word:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
        pub struct $name(pub $word);

        impl $name {
            #[inline(always)]
            fn bit(page: u32) -> $word {
                if page < <$word>::BITS { 1 << page } else { 0 }
            }

            #[inline(always)]
            fn range(first: u32, count: u32) -> $word {
                if first >= <$word>::BITS || count == 0 {
                    return 0;
                }
                let ones = if count >= <$word>::BITS { <$word>::MAX } else { (1 << count) - 1 };
                ones << first
            }

            #[inline(always)]
            fn shifted(first: u32, mask: u64) -> $word {
                if first >= <$word>::BITS { 0 } else { (mask as $word) << first }
            }
        }

        impl PageSet for $name {
            const CAPACITY: u64 = <$word>::BITS as u64;

            #[inline(always)]
            fn contains(&self, page: u32) -> bool {
                self.0 & Self::bit(page) != 0
            }
            #[inline(always)]
            fn insert(&mut self, page: u32) {
                self.0 |= Self::bit(page);
            }
            #[inline(always)]
            fn remove(&mut self, page: u32) {
                self.0 &= !Self::bit(page);
            }
            #[inline(always)]
            fn is_empty(&self) -> bool {
                self.0 == 0
            }
            #[inline(always)]
            fn union(&mut self, other: &Self) {
                self.0 |= other.0;
            }
            #[inline(always)]
            fn subtract(&mut self, other: &Self) {
                self.0 &= !other.0;
            }
            #[inline(always)]
            fn insert_range(&mut self, first: u32, count: u32) {
                self.0 |= Self::range(first, count);
            }
            #[inline(always)]
            fn remove_range(&mut self, first: u32, count: u32) {
                self.0 &= !Self::range(first, count);
            }
            #[inline(always)]
            fn word(&self, first: u32, bits: u32) -> u64 {
                if first >= <$word>::BITS {
                    return 0;
                }
                u64::from(self.0 >> first) & low_bits(bits)
            }
            #[inline(always)]
            fn set_word(&mut self, first: u32, mask: u64) {
                self.0 |= Self::shifted(first, mask);
            }
            #[inline(always)]
            fn clear_word(&mut self, first: u32, mask: u64) {
                self.0 &= !Self::shifted(first, mask);
            }
            #[inline(always)]
            fn next(&self, from: u32) -> Option<u32> {
                if from >= <$word>::BITS {
                    return None;
                }
                let rest = self.0 >> from;
                if rest == 0 { None } else { Some(from + rest.trailing_zeros()) }
            }
            #[inline(always)]
            fn count(&self) -> u64 {
                u64::from(self.0.count_ones())
            }
            #[inline(always)]
            fn intersects(&self, other: &Self) -> bool {
                self.0 & other.0 != 0
            }
        }
    };
}

inline_set!(
    /// A set of up to 64 pages.
    Inline64,
    u64
);

/// A word with the lowest `bits` bits set; `bits` is at most 64.
#[must_use]
#[inline(always)]
pub const fn low_bits(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// Words in a chunk of a [`Sparse`] set.
const CHUNK_WORDS: usize = 64;
/// Pages in a chunk of a [`Sparse`] set.
const CHUNK_PAGES: u32 = CHUNK_WORDS as u32 * 64;

/// A set of up to 2^32 pages, whose memory grows with the chunks of 4096 pages that have one.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Sparse {
    /// No chunk is empty, so that equal sets compare equal.
    chunks: BTreeMap<u32, Box<[u64; CHUNK_WORDS]>>,
}

impl Sparse {
    /// The 64 pages from `64 * index` on.
    fn get64(&self, index: u32) -> u64 {
        let word = index as usize % CHUNK_WORDS;
        self.chunks
            .get(&(index / CHUNK_WORDS as u32))
            .map_or(0, |chunk| chunk[word])
    }

    fn or64(&mut self, index: u32, mask: u64) {
        if mask != 0 {
            let chunk = self
                .chunks
                .entry(index / CHUNK_WORDS as u32)
                .or_insert_with(|| Box::new([0; CHUNK_WORDS]));
            chunk[index as usize % CHUNK_WORDS] |= mask;
        }
    }

    fn andnot64(&mut self, index: u32, mask: u64) {
        let key = index / CHUNK_WORDS as u32;
        if let Some(chunk) = self.chunks.get_mut(&key) {
            chunk[index as usize % CHUNK_WORDS] &= !mask;
            if chunk.iter().all(|&word| word == 0) {
                self.chunks.remove(&key);
            }
        }
    }

    /// Calls `act` with each aligned word index and the mask of it that the range covers.
    fn for_words(first: u32, count: u32, mut act: impl FnMut(u32, u64)) {
        let end = u64::from(first) + u64::from(count);
        let mut at = u64::from(first);
        while at < end {
            let shift = (at % 64) as u32;
            let bits = (64 - u64::from(shift)).min(end - at) as u32;
            act((at / 64) as u32, low_bits(bits) << shift);
            at += u64::from(bits);
        }
    }
}

impl PageSet for Sparse {
    const CAPACITY: u64 = 1 << 32;

    fn contains(&self, page: u32) -> bool {
        self.get64(page / 64) >> (page % 64) & 1 != 0
    }
    fn insert(&mut self, page: u32) {
        self.or64(page / 64, 1 << (page % 64));
    }
    fn remove(&mut self, page: u32) {
        self.andnot64(page / 64, 1 << (page % 64));
    }
    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
    fn union(&mut self, other: &Self) {
        for (&key, chunk) in &other.chunks {
            for (word, &mask) in chunk.iter().enumerate() {
                self.or64(key * CHUNK_WORDS as u32 + word as u32, mask);
            }
        }
    }
    fn subtract(&mut self, other: &Self) {
        for (&key, chunk) in &other.chunks {
            for (word, &mask) in chunk.iter().enumerate() {
                self.andnot64(key * CHUNK_WORDS as u32 + word as u32, mask);
            }
        }
    }
    fn insert_range(&mut self, first: u32, count: u32) {
        Self::for_words(first, count, |index, mask| self.or64(index, mask));
    }
    fn remove_range(&mut self, first: u32, count: u32) {
        let mut at = u64::from(first);
        let end = at + u64::from(count);
        // By what is there, not by the length of the range: ranges are claims of strangers.
        while let Some(page) = u32::try_from(at).ok().and_then(|from| self.next(from)) {
            if u64::from(page) >= end {
                break;
            }
            let key = page / CHUNK_PAGES;
            let stop = (u64::from(key + 1) * u64::from(CHUNK_PAGES)).min(end);
            Self::for_words(page, (stop - u64::from(page)) as u32, |index, mask| {
                self.andnot64(index, mask);
            });
            at = stop;
        }
    }
    fn word(&self, first: u32, bits: u32) -> u64 {
        let shift = first % 64;
        let low = self.get64(first / 64) >> shift;
        let high = if shift == 0 {
            0
        } else {
            self.get64(first / 64 + 1) << (64 - shift)
        };
        (low | high) & low_bits(bits)
    }
    fn set_word(&mut self, first: u32, mask: u64) {
        let shift = first % 64;
        self.or64(first / 64, mask << shift);
        if shift != 0 {
            self.or64(first / 64 + 1, mask >> (64 - shift));
        }
    }
    fn clear_word(&mut self, first: u32, mask: u64) {
        let shift = first % 64;
        self.andnot64(first / 64, mask << shift);
        if shift != 0 {
            self.andnot64(first / 64 + 1, mask >> (64 - shift));
        }
    }
    fn next(&self, from: u32) -> Option<u32> {
        for (&key, chunk) in self.chunks.range(from / CHUNK_PAGES..) {
            let base = key * CHUNK_PAGES;
            for (index, &word) in chunk.iter().enumerate() {
                let first = base + index as u32 * 64;
                let rest = if first >= from {
                    word
                } else if from - first < 64 {
                    word & !low_bits(from - first)
                } else {
                    0
                };
                if rest != 0 {
                    return Some(first + rest.trailing_zeros());
                }
            }
        }
        None
    }
    fn count(&self) -> u64 {
        self.chunks
            .values()
            .flat_map(|chunk| chunk.iter())
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}
