//! States of a level, as words: blocks that a thread takes and makes.

/// States, one after the other, each a record: see [`RecordLayout`].
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) records: Vec<u64>,
    /// Who knows the entries in the records: a worker and its memo's generation.
    pub(super) owner: (usize, u32),
}

impl Block {
    /// One state, of which no worker knows anything.
    pub(super) fn first(layout: RecordLayout, words: &[u64], fingerprint: u64) -> Self {
        let mut records = words.to_vec();
        records.resize(layout.len(), 0);
        records[layout.words] = fingerprint;
        Self {
            records,
            owner: (usize::MAX, 0),
        }
    }

    pub(super) fn states(&self, layout: RecordLayout) -> u64 {
        (self.records.len() / layout.len()) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.capacity() as u64 * 8
    }

    /// The packed states.
    pub(super) fn packed(&self, layout: RecordLayout) -> impl Iterator<Item = &[u64]> {
        self.records
            .chunks_exact(layout.len())
            .map(move |record| &record[..layout.words])
    }
}

/// What a record has: a packed state, its fingerprint, and for the VM-wide section and each actor where its entry is in
/// the memo of the block's owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordLayout {
    pub(super) words: usize,
    pub(super) entries: usize,
}

impl RecordLayout {
    pub(super) fn new(words: usize, actors: usize) -> Self {
        Self {
            words,
            entries: 1 + actors,
        }
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        self.words + 1 + self.entries
    }

    /// The same, where the compiler is to know the numbers: see [`Sections`](super::sections::Sections).
    #[inline(always)]
    pub(super) fn of<const N: usize>(self) -> Self {
        if N > 0 {
            Self {
                words: N,
                entries: N,
            }
        } else {
            self
        }
    }

    /// Where the entries begin.
    #[inline(always)]
    pub(super) fn entries_at(self) -> usize {
        self.words + 1
    }
}
