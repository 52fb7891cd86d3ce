//! The sections of vCPUs by number: each is kept once, and is a number everywhere else.

use std::sync::{Mutex, PoisonError};

use crate::search::index::Index;
use crate::search::sections::section_hash;

/// The number of a section. Who met it first gave it, so that nothing that is reported may depend on it.
pub(super) type Number = u32;

/// The sections of one vCPU that were met.
pub(super) struct Numbers {
    all: boxcar::Vec<Box<[u64]>>,
    index: Mutex<Index>,
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            all: boxcar::Vec::new(),
            index: Mutex::new(Index::new()),
        }
    }

    /// The section of a number.
    #[inline(always)]
    pub(super) fn get(&self, number: Number) -> &[u64] {
        &self.all[number as usize]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.count()
    }

    /// The number of a section.
    pub(super) fn of(&self, section: &[u64]) -> Number {
        let hash = section_hash(0, section);
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let found = index.find(hash, |place| self.get(place - 1) == section);
        if let Some(place) = found {
            return place - 1;
        }
        let number = self.all.push(section.into()) as Number;
        index.insert(hash, number + 1);
        number
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        let words = self.all.get(0).map_or(0, |section| section.len() * 8 + 32);
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        (self.all.count() * words) as u64 + index.bytes()
    }
}
