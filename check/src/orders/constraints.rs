//! From which orders are safe to what makes them so: precedences, and alternatives of precedences.

use std::collections::BTreeSet;

use super::Order;

/// The most alternatives that are looked for.
const MOST_ALTERNATIVES: usize = 8;
/// The most sets of precedences that are looked at on the way to the weakest ones.
const MOST_SETS: usize = 100_000;
/// The most choices that are tried for each number of alternatives.
const MOST_CHOICES: u32 = 500_000;

/// One step must come before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    /// The earlier step, by number.
    pub before: usize,
    /// The later one.
    pub after: usize,
}

impl Constraint {
    /// Whether an order keeps it.
    #[must_use]
    pub fn is_kept_by(&self, order: &[usize]) -> bool {
        let place = |step: usize| order.iter().position(|other| *other == step);
        place(self.before) < place(self.after)
    }
}

/// Sets of precedences; an order is safe exactly when it keeps all of one set.
pub type Alternatives = Vec<Vec<Constraint>>;

/// Whether what all safe orders have in common is also enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exactness {
    /// No order is safe.
    NothingIsSafe,
    /// It is: an order is safe exactly when it keeps all constraints.
    Exact,
    /// It is not; so many orders keep all constraints, and these alternatives are exact.
    Alternatives {
        /// Orders that keep what is common to the safe ones.
        keeping: usize,
        /// The sets.
        sets: Alternatives,
        /// Whether no fewer sets do; else they are as few as were found within the bounds of the work.
        smallest: bool,
    },
    /// It is not, and there are more than eight alternatives.
    NoFewAlternatives {
        /// Orders that keep what is common to the safe ones.
        keeping: usize,
    },
}

/// What all safe orders have in common, without what follows from the rest or from equal steps being equal; and
/// whether that is enough.
pub(super) fn weakest(
    orders: &[Order],
    steps: usize,
    equal: &dyn Fn(usize, usize) -> bool,
) -> (Vec<Constraint>, Exactness) {
    let safe: Vec<&Order> = orders.iter().filter(|order| order.safe).collect();
    if safe.is_empty() {
        return (Vec::new(), Exactness::NothingIsSafe);
    }
    let common: Vec<Constraint> = pairs(steps)
        .filter(|pair| safe.iter().all(|order| pair.is_kept_by(&order.steps)))
        .collect();
    let shown = reduced(&common, equal);
    let keeping = orders.iter().filter(|order| keeps(order, &common)).count();
    if keeping == safe.len() {
        return (shown, Exactness::Exact);
    }
    let exactness = match alternatives(orders, steps, equal) {
        Some((sets, smallest)) => Exactness::Alternatives {
            keeping,
            sets,
            smallest,
        },
        None => Exactness::NoFewAlternatives { keeping },
    };
    (shown, exactness)
}

fn pairs(steps: usize) -> impl Iterator<Item = Constraint> {
    (0..steps).flat_map(move |before| {
        (0..steps)
            .filter(move |after| *after != before)
            .map(move |after| Constraint { before, after })
    })
}

fn keeps(order: &Order, constraints: &[Constraint]) -> bool {
    constraints
        .iter()
        .all(|constraint| constraint.is_kept_by(&order.steps))
}

/// Whether a precedence follows from two others of its set.
fn follows(set: &[Constraint], pair: &Constraint) -> bool {
    let has = |before, after| set.contains(&Constraint { before, after });
    set.iter()
        .any(|first| first.before == pair.before && has(first.after, pair.after))
}

/// Without what follows from two others, and without the order of equal steps, which is no constraint.
fn reduced(closed: &[Constraint], equal: &dyn Fn(usize, usize) -> bool) -> Vec<Constraint> {
    closed
        .iter()
        .copied()
        .filter(|pair| !follows(closed, pair) && !equal(pair.before, pair.after))
        .collect()
}

/// Some of the orders, one bit each.
type Bits = Vec<u64>;

/// Which orders keep which precedences.
struct Kept {
    steps: usize,
    /// By pair of steps: the orders that keep it.
    by_pair: Vec<Bits>,
    safe: Bits,
}

impl Kept {
    fn new(orders: &[Order], steps: usize) -> Self {
        let words = orders.len().div_ceil(64);
        let bits = |wanted: &dyn Fn(&Order) -> bool| {
            let mut bits = vec![0; words];
            for (at, order) in orders.iter().enumerate() {
                bits[at / 64] |= u64::from(wanted(order)) << (at % 64);
            }
            bits
        };
        let mut by_pair = vec![Vec::new(); steps * steps];
        for pair in pairs(steps) {
            by_pair[pair.before * steps + pair.after] =
                bits(&|order| pair.is_kept_by(&order.steps));
        }
        Self {
            steps,
            by_pair,
            safe: bits(&|order| order.safe),
        }
    }

    /// The orders that keep all of a set.
    fn of(&self, set: &[Constraint]) -> Bits {
        let mut kept = vec![u64::MAX; self.safe.len()];
        for pair in set {
            let by_pair = &self.by_pair[pair.before * self.steps + pair.after];
            for (word, other) in kept.iter_mut().zip(by_pair) {
                *word &= other;
            }
        }
        kept
    }

    /// Whether a set allows safe orders only.
    fn is_enough(&self, set: &[Constraint]) -> bool {
        let allowed = self.of(set);
        // Bits past the last order are in no pair's, and a set has at least a pair: two steps have an order.
        allowed
            .iter()
            .zip(&self.safe)
            .all(|(a, safe)| a & !safe == 0)
    }
}

/// The sets of precedences that allow safe orders only, and of which nothing can be left out; and whether these are all.
///
/// Each begins as all precedences of a safe order. One that follows from two others is left out with them, not before.
fn weakest_sets(
    kept: &Kept,
    orders: &[Order],
    equal: &dyn Fn(usize, usize) -> bool,
) -> (Vec<Vec<Constraint>>, bool) {
    let mut found = BTreeSet::new();
    let mut seen: BTreeSet<Vec<Constraint>> = BTreeSet::new();
    let mut complete = true;
    for order in orders.iter().filter(|order| order.safe) {
        let whole: Vec<Constraint> = pairs(kept.steps)
            .filter(|pair| pair.is_kept_by(&order.steps))
            .collect();
        if !seen.insert(whole.clone()) {
            continue;
        }
        let mut open = vec![whole];
        while let Some(set) = open.pop() {
            let mut weakest = true;
            for (at, _) in set
                .iter()
                .enumerate()
                .filter(|(_, pair)| !follows(&set, pair) && !equal(pair.before, pair.after))
            {
                let mut rest = set.clone();
                rest.remove(at);
                if kept.is_enough(&rest) {
                    weakest = false;
                    // Past the bound the rest of this order is gone down along one way only.
                    if seen.len() >= MOST_SETS {
                        complete = false;
                        open.push(rest);
                        break;
                    }
                    if seen.insert(rest.clone()) {
                        open.push(rest);
                    }
                }
            }
            if weakest {
                found.insert(set);
            }
        }
    }
    (found.into_iter().collect(), complete)
}

/// The fewest sets of precedences that together allow exactly the safe orders, and whether there can be none fewer.
fn alternatives(
    orders: &[Order],
    steps: usize,
    equal: &dyn Fn(usize, usize) -> bool,
) -> Option<(Alternatives, bool)> {
    let kept = Kept::new(orders, steps);
    let (candidates, complete) = weakest_sets(&kept, orders, equal);
    let covers: Vec<Bits> = candidates.iter().map(|set| kept.of(set)).collect();
    let mut smallest = complete;
    (1..=MOST_ALTERNATIVES).find_map(|most| {
        let mut chosen = Vec::new();
        let mut budget = MOST_CHOICES;
        let found = cover(&kept.safe, &covers, most, &mut chosen, &mut budget);
        // Where the work was cut short, fewer might have done.
        let proven = smallest;
        smallest &= budget > 0;
        found.then(|| {
            let sets = chosen
                .iter()
                .map(|index: &usize| reduced(&candidates[*index], equal))
                .collect();
            (sets, proven)
        })
    })
}

/// Chooses at most `most` sets that cover `wanted`; `budget` bounds the work.
fn cover(
    wanted: &Bits,
    covers: &[Bits],
    most: usize,
    chosen: &mut Vec<usize>,
    budget: &mut u32,
) -> bool {
    let Some(word) = wanted.iter().position(|word| *word != 0) else {
        return true;
    };
    if chosen.len() == most || *budget == 0 {
        return false;
    }
    *budget -= 1;
    // Some set has to allow the first order that is left over.
    let bit = wanted[word].trailing_zeros();
    for (set, allowed) in covers.iter().enumerate() {
        if allowed[word] >> bit & 1 != 0 {
            let rest = wanted.iter().zip(allowed).map(|(w, a)| w & !a).collect();
            chosen.push(set);
            if cover(&rest, covers, most, chosen, budget) {
                return true;
            }
            chosen.pop();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(steps: usize, is_safe: impl Fn(&[usize]) -> bool) -> Vec<Order> {
        let items: Vec<serde_json::Value> = (0..steps).map(serde_json::Value::from).collect();
        super::super::part::every_order(&items)
            .into_iter()
            .map(|steps| Order {
                safe: is_safe(&steps),
                steps,
                proved: false,
                depth: 0,
            })
            .collect()
    }

    fn before(order: &[usize], a: usize, b: usize) -> bool {
        Constraint {
            before: a,
            after: b,
        }
        .is_kept_by(order)
    }

    #[test]
    fn a_chain_is_found_without_what_follows_from_it() {
        let all = orders(4, |order| before(order, 0, 2) && before(order, 2, 3));
        let (constraints, exactness) = weakest(&all, 4, &|_, _| false);
        assert_eq!(
            constraints,
            [
                Constraint {
                    before: 0,
                    after: 2
                },
                Constraint {
                    before: 2,
                    after: 3
                }
            ]
        );
        assert_eq!(exactness, Exactness::Exact);
    }

    #[test]
    fn one_of_two_steps_first_takes_two_alternatives() {
        let all = orders(3, |order| before(order, 0, 2) || before(order, 1, 2));
        let (constraints, exactness) = weakest(&all, 3, &|_, _| false);
        assert!(constraints.is_empty());
        let sets = vec![
            vec![Constraint {
                before: 0,
                after: 2,
            }],
            vec![Constraint {
                before: 1,
                after: 2,
            }],
        ];
        match exactness {
            Exactness::Alternatives {
                keeping: 6,
                sets: mut found,
                smallest: true,
            } => {
                found.sort();
                assert_eq!(found, sets);
            }
            other => panic!("two alternatives are exact: {other:?}"),
        }
    }

    #[test]
    fn the_smallest_set_of_alternatives_is_found_where_dropping_one_by_one_misses_it() {
        // Two of three steps before the last: three pairs of precedences, and no two of them are enough.
        let all = orders(4, |order| {
            (0..3).filter(|step| before(order, *step, 3)).count() >= 2
        });
        let (_, exactness) = weakest(&all, 4, &|_, _| false);
        match exactness {
            Exactness::Alternatives { sets, smallest, .. } => {
                assert!(smallest);
                assert_eq!(sets.len(), 3, "{sets:?}");
                assert!(sets.iter().all(|set| set.len() == 2), "{sets:?}");
                for order in &all {
                    let kept = sets.iter().any(|set| keeps(order, set));
                    assert_eq!(kept, order.safe, "{order:?}");
                }
            }
            other => panic!("three alternatives are exact: {other:?}"),
        }
    }

    #[test]
    fn more_than_eight_alternatives_are_none() {
        // Safe are the twelve even orders: whatever is dropped from one of them allows an odd one too.
        let even = |order: &[usize]| {
            let inversions = (0..order.len())
                .flat_map(|a| (0..a).map(move |b| (b, a)))
                .filter(|(b, a)| order[*b] > order[*a])
                .count();
            inversions % 2 == 0
        };
        let all = orders(4, even);
        assert_eq!(all.iter().filter(|order| order.safe).count(), 12);
        let (constraints, exactness) = weakest(&all, 4, &|_, _| false);
        assert!(constraints.is_empty());
        assert_eq!(exactness, Exactness::NoFewAlternatives { keeping: 24 });
    }

    #[test]
    fn nothing_is_common_to_no_order() {
        let all = orders(3, |_| false);
        assert_eq!(weakest(&all, 3, &|_, _| false).1, Exactness::NothingIsSafe);
    }
}
