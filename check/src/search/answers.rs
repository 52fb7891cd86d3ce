//! What workers have asked the transition function already, so that the others need not ask again. Two that ask at the same
//! time both add what they heard, which is the same.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

use super::index::Index;

/// Entries of memos as they were when they were new, each behind its key.
pub(super) struct Answers {
    all: boxcar::Vec<Answer>,
    index: RwLock<Index>,
    words: AtomicUsize,
    most_words: usize,
}

struct Answer {
    key_len: usize,
    words: Box<[u64]>,
}

impl Answers {
    /// Room for about so many words.
    pub(super) fn new(most_words: usize) -> Self {
        Self {
            all: boxcar::Vec::new(),
            index: RwLock::new(Index::new()),
            words: AtomicUsize::new(0),
            most_words,
        }
    }

    /// The key and its entry, if some worker has added it.
    pub(super) fn find(&self, hash: u64, key: &[u64]) -> Option<&[u64]> {
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let place = index.find(hash, |place| self.get(place).is_for(key))?;
        Some(&self.get(place).words)
    }

    fn get(&self, place: u32) -> &Answer {
        &self.all[place as usize - 1]
    }

    /// Adds a key and its entry, unless there is no room left; how many bytes they take.
    pub(super) fn add(&self, hash: u64, key: &[u64], entry: &[u64]) -> u64 {
        let words = key.len() + entry.len();
        if self.words.fetch_add(words, Relaxed) > self.most_words {
            return 0;
        }
        let place = self.all.push(Answer {
            key_len: key.len(),
            words: [key, entry].concat().into(),
        });
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.insert(hash, place as u32 + 1);
        // Two slots of the index for each.
        (words * 8 + size_of::<Answer>() + 16) as u64
    }
}

impl Answer {
    fn is_for(&self, key: &[u64]) -> bool {
        self.key_len == key.len() && self.words.starts_with(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_by_its_key_alone_while_there_is_room() {
        let answers = Answers::new(8);
        assert!(answers.add(7, &[1, 2], &[3, 4, 5]) > 0);
        assert_eq!(answers.find(7, &[1, 2]), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(answers.find(7, &[1]), None, "a key that begins like it");
        assert_eq!(answers.find(7, &[1, 2, 3]), None, "one that goes on");
        assert_eq!(answers.find(7, &[1, 3]), None, "of the same hash");
        assert!(answers.add(7, &[1, 3], &[6, 6, 6]) > 0);
        assert_eq!(answers.find(7, &[1, 3]), Some(&[1, 3, 6, 6, 6][..]));
        assert_eq!(answers.add(9, &[9], &[9]), 0, "it is full");
        assert_eq!(answers.find(9, &[9]), None);
    }
}
