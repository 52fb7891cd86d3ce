//! Portable random choices: ChaCha8 with this project's own range and shuffle code, pinned by test vectors.
//!
//! Library versions change how ranges are sampled; a seed must not.
//!
//! ```
//! use dirtysim_check::random::Choices;
//!
//! let draw = |seed| Choices::new(seed, 0).below(1_000_000);
//! assert_eq!(draw(7), draw(7));
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A source of choices, the same on every machine for the same seed.
#[derive(Debug, Clone)]
pub struct Choices(ChaCha8Rng);

impl Choices {
    /// The choices of `seed`; `stream` keeps different uses of one seed apart.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&stream.to_le_bytes());
        bytes[16..24].copy_from_slice(b"dirtysim");
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// A number below `n`, each as likely as another; `n` is not 0.
    ///
    /// The high word of a 32-bit product, with the few products rejected that would favour some numbers.
    pub fn below(&mut self, n: u32) -> u32 {
        debug_assert!(n > 0, "a choice needs something to choose from");
        let mut product = u64::from(self.0.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let reject = n.wrapping_neg() % n;
            while (product as u32) < reject {
                product = u64::from(self.0.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// Shuffles, each order as likely as another (Fisher and Yates, from the last element down).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u32 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_choices_of_a_seed_are_pinned() {
        let mut choices = Choices::new(7, 0);
        let drawn: Vec<u32> = [2, 3, 10, 100, 1000, u32::MAX]
            .map(|n| choices.below(n))
            .to_vec();
        assert_eq!(drawn, PINNED_BELOW);
        let mut order: Vec<u32> = (0..8).collect();
        choices.shuffle(&mut order);
        assert_eq!(order, PINNED_ORDER);
    }

    /// From the first run of this code; any change to them changes what every stored seed means.
    const PINNED_BELOW: [u32; 6] = [0, 2, 5, 61, 544, 1_962_208_265];
    const PINNED_ORDER: [u32; 8] = [0, 1, 3, 2, 7, 6, 4, 5];

    #[test]
    fn every_number_below_n_is_drawn_about_as_often() {
        let mut choices = Choices::new(1, 1);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[choices.below(7) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
    }
}
