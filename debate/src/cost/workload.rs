//! Who writes guest memory, how fast, and over how much of it.

use super::fixed::{ONE, exp_neg, scale};
use super::units::PAGE_BYTES;

/// In which order a working set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Each store goes to a page drawn uniformly: after `n` stores to `W` pages, `W (1 - exp(-n/W))` are touched.
    Random,
    /// One page after the other, round and round: after `n` stores, `min(n, W)` pages are touched.
    Sweep,
}

/// Which context the stores come from: it decides who records them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A vCPU: its ring, or the bitmap where there is no ring.
    Vcpu,
    /// The kernel or a device, with no vCPU running: the bitmap, in every mode that has one.
    NonVcpu,
}

/// A writable working set: the part of memory that a writer keeps writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkingSet {
    /// Size in bytes, a multiple of the page size; working sets are disjoint.
    pub bytes: u64,
    /// Bytes of pages touched per second, repetitions included (a page counts 4096 however few bytes of it change).
    pub bytes_per_s: u64,
    /// The order of the stores.
    pub pattern: Pattern,
    /// Where the stores come from.
    pub writer: Writer,
}

impl WorkingSet {
    /// Size in pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.bytes / PAGE_BYTES
    }

    /// Stores over stores-to-touch-everything-once in a window, with 48 bits after the point; saturates.
    fn load(&self, window_ns: u64) -> u64 {
        if self.bytes == 0 {
            return 0;
        }
        // bytes_per_s and window_ns are both below 2^64: their product fits, shifted by 48 it may not.
        let touched = u128::from(self.bytes_per_s) * u128::from(window_ns);
        let whole = u128::from(self.bytes) * 1_000_000_000;
        let load = match touched.checked_mul(u128::from(ONE)) {
            Some(shifted) => shifted / whole,
            None => (touched / whole).saturating_mul(u128::from(ONE)),
        };
        u64::try_from(load).unwrap_or(u64::MAX)
    }

    /// The fraction of the set touched in a window, at most [`ONE`].
    fn touched(&self, window_ns: u64) -> u64 {
        let load = self.load(window_ns);
        match self.pattern {
            Pattern::Random => ONE - exp_neg(load),
            Pattern::Sweep => load.min(ONE),
        }
    }

    /// The fraction touched after its own re-arming, averaged over pages that are re-armed evenly over the window.
    fn touched_after_rearm(&self, window_ns: u64) -> u64 {
        let load = self.load(window_ns);
        if load == 0 {
            return 0;
        }
        let fraction = match self.pattern {
            // The mean of 1 - exp(-a s) over s in 0..1 is 1 - (1 - exp(-a))/a.
            Pattern::Random => {
                let touched = ONE - exp_neg(load);
                (u128::from(load.saturating_sub(touched)) << 48) / u128::from(load)
            }
            // The mean of min(1, a s) over s in 0..1 is a/2, or 1 - 1/(2a) once a exceeds 1.
            Pattern::Sweep if load <= ONE => u128::from(load / 2),
            Pattern::Sweep => u128::from(ONE) - (1u128 << 95) / u128::from(load),
        };
        u64::try_from(fraction).unwrap_or(ONE).min(ONE)
    }

    /// Pages recorded dirty at the end of a window at whose start the whole set was armed.
    #[must_use]
    pub fn dirtied(&self, window_ns: u64) -> u64 {
        scale(self.pages(), self.touched(window_ns))
    }

    /// Pages recorded dirty at the end of a window in which `in_hand` of them are re-armed only when their turn to be
    /// sent comes, evenly over the window, while the others are armed throughout.
    #[must_use]
    pub fn dirtied_with_lazy_rearm(&self, window_ns: u64, in_hand: u64) -> u64 {
        let in_hand = in_hand.min(self.pages());
        scale(in_hand, self.touched_after_rearm(window_ns))
            + scale(self.pages() - in_hand, self.touched(window_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn set(pattern: Pattern) -> WorkingSet {
        WorkingSet {
            bytes: 1000 * PAGE_BYTES,
            bytes_per_s: 500 * PAGE_BYTES,
            pattern,
            writer: Writer::Vcpu,
        }
    }

    #[test]
    fn a_sweep_touches_every_page_once_per_turn() {
        let sweep = set(Pattern::Sweep);
        assert_eq!(sweep.dirtied(0), 0);
        assert_eq!(sweep.dirtied(SECOND), 500);
        assert_eq!(sweep.dirtied(2 * SECOND), 1000);
        assert_eq!(sweep.dirtied(99 * SECOND), 1000);
        // Lazily re-armed over one second at half a turn a second: a quarter of what is in hand.
        assert_eq!(sweep.dirtied_with_lazy_rearm(SECOND, 1000), 250);
        // Two turns in the window: all but the quarter that is re-armed too late, 1 - 1/(2*2).
        assert_eq!(sweep.dirtied_with_lazy_rearm(4 * SECOND, 1000), 750);
    }

    #[test]
    fn random_stores_hit_some_pages_twice() {
        let random = set(Pattern::Random);
        // 1000 (1 - exp(-1)) = 632.1
        assert_eq!(random.dirtied(2 * SECOND), 632);
        // 1000 (1 - (1 - exp(-1))/1) = 367.9
        assert_eq!(random.dirtied_with_lazy_rearm(2 * SECOND, 1000), 368);
        assert_eq!(random.dirtied_with_lazy_rearm(2 * SECOND, 0), 632);
        assert_eq!(random.dirtied(u64::MAX), 1000);
    }

    #[test]
    fn an_empty_set_is_never_dirty() {
        let empty = WorkingSet {
            bytes: 0,
            ..set(Pattern::Random)
        };
        assert_eq!(empty.dirtied(SECOND), 0);
    }
}
