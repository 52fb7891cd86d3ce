//! Which answers are computed again where debug assertions are on, by the transition function and the oracle: all in a small search, and
//! in a large one, where that would take most of the time, those of one state in 16. Which ones, their fingerprints say, so that they are
//! the same on any number of threads.

/// States whose answers are all computed again, before it is one in [`ONE_IN`].
const FIRST_STATES: u64 = 20_000;
const ONE_IN: u64 = 16;

/// How many answers are computed again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit {
    all: bool,
}

impl Audit {
    /// When so many states, or other things of which something is remembered, are known already.
    pub(super) const fn after(known: u64) -> Self {
        Self {
            all: known < FIRST_STATES,
        }
    }

    /// Whether the answers about what has this hash are computed again. Never without debug assertions.
    #[inline(always)]
    pub(super) const fn wants(self, hash: u64) -> bool {
        cfg!(debug_assertions) && (self.all || hash.is_multiple_of(ONE_IN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_search_is_computed_again_whole_and_of_a_large_one_a_part() {
        let wanted = |known| {
            (0..1_600)
                .filter(|hash| Audit::after(known).wants(*hash))
                .count()
        };
        assert_eq!((wanted(0), wanted(FIRST_STATES)), (1_600, 100));
    }
}
