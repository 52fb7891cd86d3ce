//! How many pages the final bitmap may hold before it spoils the migration.
//!
//! The pages that only the final bitmap holds are all copied while the guest is stopped, so the downtime grows by one
//! page's time with each of them. Three lines cross it, each a different answer to the debate's question: the downtime
//! limit that the operator set; the downtime of the same migration with the bitmap alone; and stopping the guest at
//! once and copying everything.

use super::error::CostError;
use super::inputs::{Inputs, Rearm, Tracking};
use super::precopy::{Outcome, simulate};
use super::steps::{final_step, stop_and_copy};

/// Where the downtime, as a function of the pages left to the final bitmap, crosses each alternative. In pages; `None`
/// where the line is not crossed by as many pages as the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossover {
    /// The fewest pages with which the downtime exceeds the limit; `None` also where no limit is set.
    pub beyond_limit: Option<u64>,
    /// The fewest pages with which the bitmap alone would have stopped the guest no longer.
    pub bitmap_alone: Option<u64>,
    /// The fewest pages with which stopping at once and copying everything is as good.
    pub stop_and_copy: Option<u64>,
    /// The downtime of the same migration with the bitmap alone, in nanoseconds.
    pub bitmap_alone_ns: u64,
    /// The downtime of stopping at once, in nanoseconds.
    pub stop_and_copy_ns: u64,
}

/// Computes the crossings for a migration already simulated from the same inputs.
///
/// # Errors
/// What [`simulate`] returns.
pub fn crossover(inputs: &Inputs, outcome: &Outcome) -> Result<Crossover, CostError> {
    let bitmap_alone = Inputs {
        tracking: Tracking::Bitmap(Rearm::Clear),
        ..inputs.clone()
    };
    let mut alone = simulate(&bitmap_alone)?.downtime_ns;
    if matches!(inputs.tracking, Tracking::Bitmap(_)) {
        alone = outcome.downtime_ns;
    }
    let at_once = stop_and_copy(inputs)?.total_ns()?;
    let limit = inputs.stop.downtime_limit_ns;
    Ok(Crossover {
        beyond_limit: match limit {
            Some(limit) => first_at_least(inputs, outcome, limit + 1)?,
            None => None,
        },
        bitmap_alone: first_at_least(inputs, outcome, alone)?,
        stop_and_copy: first_at_least(inputs, outcome, at_once)?,
        bitmap_alone_ns: alone,
        stop_and_copy_ns: at_once,
    })
}

/// The downtime with so many pages left to the final bitmap, everything else as simulated. Nanoseconds.
///
/// # Errors
/// [`CostError::TimeOverflow`].
pub fn downtime_with(
    inputs: &Inputs,
    outcome: &Outcome,
    bitmap_pages: u64,
) -> Result<u64, CostError> {
    final_step(inputs, outcome.vcpu_pages_left, bitmap_pages)?.total_ns()
}

/// The fewest pages in the final bitmap, at most all of memory, with a downtime of at least `ns`.
fn first_at_least(inputs: &Inputs, outcome: &Outcome, ns: u64) -> Result<Option<u64>, CostError> {
    let (mut low, mut high) = (0, inputs.memory_pages());
    if downtime_with(inputs, outcome, high)? < ns {
        return Ok(None);
    }
    // The downtime never falls as pages are added, so bisection finds the first.
    while low < high {
        let middle = low + (high - low) / 2;
        if downtime_with(inputs, outcome, middle)? >= ns {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Some(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crossing_is_the_first_page_count_on_its_far_side() {
        let inputs = Inputs::default();
        let outcome = simulate(&inputs).unwrap();
        let found = crossover(&inputs, &outcome).unwrap();
        for (pages, line) in [
            (
                found.beyond_limit,
                inputs.stop.downtime_limit_ns.unwrap() + 1,
            ),
            (found.bitmap_alone, found.bitmap_alone_ns),
            (found.stop_and_copy, found.stop_and_copy_ns),
        ] {
            let pages = pages.expect("crossed within the guest's memory");
            assert!(downtime_with(&inputs, &outcome, pages).unwrap() >= line);
            if pages > 0 {
                assert!(downtime_with(&inputs, &outcome, pages - 1).unwrap() < line);
            }
        }
    }

    #[test]
    fn stop_and_copy_is_as_good_once_nearly_all_of_memory_is_left() {
        let inputs = Inputs::default();
        let outcome = simulate(&inputs).unwrap();
        let pages = crossover(&inputs, &outcome).unwrap().stop_and_copy.unwrap();
        // Memory less the pages that vCPUs left, less what the final harvest and GET cost in pages' time.
        assert!(pages + outcome.vcpu_pages_left <= inputs.memory_pages());
        assert!(pages + outcome.vcpu_pages_left > inputs.memory_pages() / 100 * 98);
    }

    #[test]
    fn without_a_limit_none_is_exceeded() {
        let mut inputs = Inputs::default();
        inputs.stop.downtime_limit_ns = None;
        inputs.stop.few_bytes = 64 << 20;
        let outcome = simulate(&inputs).unwrap();
        assert_eq!(crossover(&inputs, &outcome).unwrap().beyond_limit, None);
    }
}
