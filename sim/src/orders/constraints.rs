//! From which orders are safe to what makes them so: precedences, and alternatives of precedences.

use super::Order;

/// The most alternatives that are looked for.
const MOST_ALTERNATIVES: usize = 8;

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
        /// The sets, as few as were found.
        sets: Alternatives,
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
    let exactness = match alternatives(orders, &safe, steps, equal) {
        Some(sets) => Exactness::Alternatives { keeping, sets },
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

/// Without what follows from two others, and without the order of equal steps, which is no constraint.
fn reduced(closed: &[Constraint], equal: &dyn Fn(usize, usize) -> bool) -> Vec<Constraint> {
    let has = |before, after| closed.contains(&Constraint { before, after });
    closed
        .iter()
        .copied()
        .filter(|pair| {
            let follows = closed
                .iter()
                .any(|first| first.before == pair.before && has(first.after, pair.after));
            !follows && !equal(pair.before, pair.after)
        })
        .collect()
}

/// As few sets of precedences as can be found that together allow exactly the safe orders.
fn alternatives(
    orders: &[Order],
    safe: &[&Order],
    steps: usize,
    equal: &dyn Fn(usize, usize) -> bool,
) -> Option<Alternatives> {
    // Each safe order, with its precedences dropped one after the other as long as all that is allowed is safe.
    let mut candidates: Vec<Vec<Constraint>> = Vec::new();
    for order in safe {
        for backwards in [false, true] {
            let mut kept: Vec<Constraint> = pairs(steps)
                .filter(|pair| pair.is_kept_by(&order.steps))
                .collect();
            let mut tried = kept.clone();
            if backwards {
                tried.reverse();
            }
            for dropped in tried {
                let rest: Vec<Constraint> = kept
                    .iter()
                    .copied()
                    .filter(|pair| *pair != dropped)
                    .collect();
                if orders
                    .iter()
                    .all(|order| order.safe || !keeps(order, &rest))
                {
                    kept = rest;
                }
            }
            if !candidates.contains(&kept) {
                candidates.push(kept);
            }
        }
    }
    let covers: Vec<Vec<bool>> = candidates
        .iter()
        .map(|set| safe.iter().map(|order| keeps(order, set)).collect())
        .collect();
    (1..=MOST_ALTERNATIVES).find_map(|most| {
        let mut chosen = Vec::new();
        let mut budget = 200_000_u32;
        cover(&covers, most, &mut chosen, &mut budget).then(|| {
            chosen
                .iter()
                .map(|index: &usize| reduced(&candidates[*index], equal))
                .collect()
        })
    })
}

/// Chooses at most `most` sets that cover everything; `budget` bounds the work.
fn cover(covers: &[Vec<bool>], most: usize, chosen: &mut Vec<usize>, budget: &mut u32) -> bool {
    let items = covers.first().map_or(0, Vec::len);
    let Some(open) = (0..items).find(|item| !chosen.iter().any(|set| covers[*set][*item])) else {
        return true;
    };
    if chosen.len() == most || *budget == 0 {
        return false;
    }
    *budget -= 1;
    for set in 0..covers.len() {
        if covers[set][open] {
            chosen.push(set);
            if cover(covers, most, chosen, budget) {
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
        super::super::every_order(&items)
            .into_iter()
            .map(|steps| Order {
                safe: is_safe(&steps),
                steps,
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
            } => {
                found.sort();
                assert_eq!(found, sets);
            }
            other => panic!("two alternatives are exact: {other:?}"),
        }
    }

    #[test]
    fn nothing_is_common_to_no_order() {
        let all = orders(3, |_| false);
        assert_eq!(weakest(&all, 3, &|_, _| false).1, Exactness::NothingIsSafe);
    }
}
