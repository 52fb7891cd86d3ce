//! How many states a search will come to, guessed from its levels while it goes on.
//!
//! Levels grow fast at first, then slower, then shrink: the logarithm of their sizes bends downwards. The guess takes the
//! growth over the last half of the levels and how much it slows down, by least squares, and goes on like that until a
//! level would be empty. From a third of the depth on it has been within a factor of 4 on the scenarios that come with
//! the program, mostly too low; before that it says little. It is for progress and for
//! warnings; no result depends on it.

/// Levels below which nothing is said.
const LEAST_LEVELS: usize = 12;
/// The least by which growth slows down from level to level, in the logarithm: else a guess would never end.
const LEAST_BEND: f64 = 0.003;
/// No scenario that anybody waits for is deeper.
const MOST_LEVELS: usize = 100_000;

/// Learns the sizes of levels, and guesses.
#[derive(Debug, Clone, Default)]
pub struct Estimator {
    levels: Vec<u64>,
}

impl Estimator {
    /// Hears of a level: its depth and its states. Only the first word about each next level counts.
    pub fn level(&mut self, depth: u32, states: u64) {
        if depth as usize == self.levels.len() + 1 {
            self.levels.push(states.max(1));
        }
    }

    /// About how many states there are in all; none while that cannot be said.
    #[must_use]
    pub fn states(&self) -> Option<u64> {
        if self.levels.len() < LEAST_LEVELS {
            return None;
        }
        let sizes: Vec<f64> = self.levels.iter().map(|size| *size as f64).collect();
        let growths: Vec<f64> = sizes
            .windows(2)
            .skip(sizes.len() / 2)
            .map(|pair| (pair[1] / pair[0]).ln())
            .collect();
        let (mut growth, bend) = line(&growths);
        let bend = bend.min(-LEAST_BEND);
        let mut size = sizes.last().copied().unwrap_or(1.0).ln();
        let ahead = std::iter::repeat_with(|| {
            growth += bend;
            size += growth;
            size
        });
        let ahead = ahead.take(MOST_LEVELS).take_while(|size| *size >= 0.0);
        let known: f64 = sizes.iter().sum();
        let all = known + ahead.map(f64::exp).sum::<f64>();
        Some(all.min(u64::MAX as f64) as u64)
    }
}

/// The line that fits best: its value at the last point, and its slope.
fn line(points: &[f64]) -> (f64, f64) {
    let last = points.len().saturating_sub(1) as f64;
    let count = points.len().max(1) as f64;
    let middle = last / 2.0;
    let mean = points.iter().sum::<f64>() / count;
    let (mut across, mut along) = (0.0, 0.0);
    for (at, point) in points.iter().enumerate() {
        let from_middle = at as f64 - middle;
        across += from_middle * (point - mean);
        along += from_middle * from_middle;
    }
    let slope = if along > 0.0 { across / along } else { 0.0 };
    (mean + slope * (last - middle), slope)
}

/// Looks whether a search will fit, and says once, early, that it will not.
#[derive(Debug, Clone, Default)]
pub struct Forecast {
    estimator: Estimator,
    levels_too_large: u32,
    depth: u32,
    said: bool,
}

/// States below which no warning is given: they are searched in less than a second.
const WARNING_STATES: u64 = 200_000;
/// Levels in a row that have to agree.
const WARNING_LEVELS: u32 = 3;

/// A search that will probably not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WillNotFit {
    /// About how many states there are in all.
    pub states: u64,
    /// About how many bytes they would take.
    pub bytes: u64,
}

impl Forecast {
    /// Hears how far the search is; answers, once, if it will not fit into `limit_bytes`.
    pub fn hear(&mut self, progress: &super::Progress, limit_bytes: u64) -> Option<WillNotFit> {
        if progress.depth <= self.depth {
            return None;
        }
        self.depth = progress.depth;
        self.estimator.level(progress.depth, progress.frontier);
        let states = self.estimator.states()?;
        if self.said || progress.states < WARNING_STATES {
            return None;
        }
        let bytes = (u128::from(progress.bytes) * u128::from(states) / u128::from(progress.states))
            .min(u128::from(u64::MAX)) as u64;
        self.levels_too_large = if bytes > limit_bytes {
            self.levels_too_large + 1
        } else {
            0
        };
        self.said = self.levels_too_large >= WARNING_LEVELS;
        self.said.then_some(WillNotFit { states, bytes })
    }

    /// About how many states there are in all; none while that cannot be said.
    #[must_use]
    pub fn states(&self) -> Option<u64> {
        self.estimator.states()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Progress;

    /// Every fifth level of `kernel-docs-large` as the search found it in 2026-11, 49,044,868 states in all, from level 5
    /// on; the levels between are filled in evenly.
    const LARGE: [f64; 32] = [
        57.0, 537.0, 2_945.0, 11_897.0, 38_053.0, 93_626.0, 187_862.0, 300_279.0, 423_327.0,
        515_939.0, 609_042.0, 732_003.0, 847_906.0, 914_774.0, 911_070.0, 904_295.0, 828_243.0,
        687_820.0, 605_405.0, 407_951.0, 346_147.0, 193_053.0, 138_658.0, 61_929.0, 38_957.0,
        14_812.0, 6_181.0, 2_878.0, 893.0, 152.0, 7.0, 4.0,
    ];

    fn levels() -> Vec<u64> {
        let between = |pair: &[f64]| -> Vec<u64> {
            let step = (pair[1] / pair[0]).powf(0.2);
            (0..5).map(|at| (pair[0] * step.powi(at)) as u64).collect()
        };
        LARGE.windows(2).flat_map(between).collect()
    }

    #[test]
    fn from_a_third_of_the_depth_on_a_guess_is_within_a_factor_of_four() {
        let levels = levels();
        let all: u64 = levels.iter().sum();
        let mut estimator = Estimator::default();
        let mut guesses = Vec::new();
        for (at, size) in levels.iter().enumerate() {
            estimator.level(at as u32 + 1, *size);
            if at > levels.len() / 3 {
                guesses.push(estimator.states().expect("there are levels enough"));
            }
        }
        for guess in &guesses {
            assert!(
                (all / 4..all * 4).contains(guess),
                "{guess} of {all}: {guesses:?}"
            );
        }
        let last = *guesses.last().expect("some");
        assert!(
            (all * 9 / 10..all * 11 / 10).contains(&last),
            "{last} of {all}"
        );
    }

    #[test]
    fn what_will_not_fit_is_said_once_and_before_a_tenth_of_it_is_done_and_what_fits_is_never_said()
    {
        let levels = levels();
        let all: u64 = levels.iter().sum();
        let warned_at = |limit_bytes: u64| -> Vec<u64> {
            let mut forecast = Forecast::default();
            let mut states = 0;
            let mut at = Vec::new();
            for (depth, size) in levels.iter().enumerate() {
                states += size;
                let progress = Progress {
                    states,
                    frontier: *size,
                    depth: depth as u32 + 1,
                    bytes: states * 20,
                };
                for _ in 0..2 {
                    at.extend(forecast.hear(&progress, limit_bytes).map(|_| states));
                }
            }
            at
        };
        let late = warned_at(all * 20 / 8);
        assert_eq!(late.len(), 1);
        assert!(late[0] < all / 10, "after {} of {all}", late[0]);
        assert!(warned_at(all * 20 * 4).is_empty());
    }

    #[test]
    fn a_level_is_heard_of_once_and_in_turn() {
        let mut estimator = Estimator::default();
        for _ in 0..2 {
            estimator.level(1, 3);
            estimator.level(2, 6);
            estimator.level(7, 1_000);
        }
        assert_eq!(estimator.levels, [3, 6]);
        assert_eq!(estimator.states(), None);
    }
}
