//! States that were looked up lately.
//!
//! Most successors are duplicates, and most of those come up twice within a few hundred others: two actors' steps in
//! either order. A small table in front of the visited set answers for them from the cache.

/// Fingerprints that are remembered, a power of two: 128 KiB.
const KNOWN: usize = 1 << 14;

/// Fingerprints of states that were looked up lately.
pub(super) struct Known {
    fingerprints: Box<[u64; KNOWN]>,
}

impl Known {
    pub(super) const BYTES: u64 = KNOWN as u64 * 8;

    pub(super) fn new() -> Self {
        Self {
            fingerprints: Box::new([0; KNOWN]),
        }
    }

    /// Whether the state was looked up lately; from now on it was.
    #[inline(always)]
    pub(super) fn meets(&mut self, fingerprint: u64) -> bool {
        let place = &mut self.fingerprints[(fingerprint >> 20) as usize % KNOWN];
        std::mem::replace(place, fingerprint) == fingerprint
    }
}
