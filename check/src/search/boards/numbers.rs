//! The sections of vCPUs by number: each is kept once, and is a number everywhere else.

use std::sync::{Mutex, PoisonError};

use crate::search::index::Index;
use crate::search::sections::section_hash;

/// The number of a section. Who met it first gave it, so that nothing that is reported may depend on it.
pub(super) type Number = u32;

/// The sections of one vCPU that were met.
pub(super) struct Numbers {
    all: boxcar::Vec<Section>,
    index: Mutex<Index>,
    /// The bits of a section that are the vCPU's control, and those that were met.
    control: Vec<u64>,
    controls: Mutex<Vec<Vec<u64>>>,
}

struct Section {
    words: Box<[u64]>,
    control: u32,
}

impl Numbers {
    pub(super) fn new(control: &[u64]) -> Self {
        Self {
            all: boxcar::Vec::new(),
            index: Mutex::new(Index::new()),
            control: control.to_vec(),
            controls: Mutex::default(),
        }
    }

    /// The section of a number.
    #[inline(always)]
    pub(super) fn get(&self, number: Number) -> &[u64] {
        &self.all[number as usize].words
    }

    /// The number of its control among those that were met.
    #[inline(always)]
    pub(super) fn control(&self, number: Number) -> u32 {
        self.all[number as usize].control
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
        let bits = section.iter().zip(&self.control);
        let bits: Vec<u64> = bits.map(|(word, mask)| word & mask).collect();
        let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
        let known = controls.iter().position(|control| *control == bits);
        let control = known.unwrap_or_else(|| {
            controls.push(bits);
            controls.len() - 1
        });
        let number = self.all.push(Section {
            words: section.into(),
            control: control as u32,
        }) as Number;
        index.insert(hash, number + 1);
        number
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        let words = self
            .all
            .get(0)
            .map_or(0, |section| section.words.len() * 8 + 40);
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        (self.all.count() * words) as u64 + index.bytes()
    }
}
