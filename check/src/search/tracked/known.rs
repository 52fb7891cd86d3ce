//! The states that are known, whole, in order of discovery.

use crate::search::index::Index;
use crate::search::sections::section_hash;

/// States as words, each with the number of the one before it.
pub(super) struct Known {
    /// Words of a state.
    len: usize,
    words: Vec<u64>,
    before: Vec<u32>,
    index: Index,
}

/// The most states: numbers are places of an [`Index`], which begin at 1.
const MOST: usize = u32::MAX as usize - 1;

impl Known {
    /// None, of so many words each.
    pub(super) fn new(len: usize) -> Self {
        Self {
            len,
            words: Vec::new(),
            before: Vec::new(),
            index: Index::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.before.len()
    }

    /// Whether there is no room for another number.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= MOST
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.words.capacity() as u64 * 8 + self.before.capacity() as u64 * 4 + self.index.bytes()
    }

    /// The state of a number.
    pub(super) fn state(&self, number: u32) -> &[u64] {
        let at = number as usize * self.len;
        &self.words[at..at + self.len]
    }

    /// The number of the state before it; its own for the first.
    pub(super) fn before(&self, number: u32) -> u32 {
        self.before[number as usize]
    }

    pub(super) fn contains(&self, words: &[u64]) -> bool {
        self.is_known(section_hash(0, words), words)
    }

    fn is_known(&self, hash: u64, words: &[u64]) -> bool {
        let is_it = |place: u32| self.state(place - 1) == words;
        self.index.find(hash, is_it).is_some()
    }

    /// Adds a state, if it is new.
    pub(super) fn add(&mut self, words: &[u64], before: u32) {
        let hash = section_hash(0, words);
        if self.is_known(hash, words) {
            return;
        }
        self.words.extend_from_slice(words);
        self.before.push(before);
        self.index.insert(hash, self.before.len() as u32);
    }

    /// All of them, in order of discovery.
    #[cfg(test)]
    pub(super) fn states(&self) -> impl Iterator<Item = &[u64]> {
        self.words.chunks(self.len)
    }
}
