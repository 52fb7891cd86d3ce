//! Every order of a protocol's final steps: which are safe, and the weakest constraints that make them so.
//!
//! The steps between the last stop of the vCPUs and the end are put into every distinct order, and each order is
//! checked exhaustively. What all safe orders have in common is then compared with what is enough.
//!
//! Not covered: leaving a step out, doing it twice, or doing it before the stop.

mod constraints;

use serde_json::Value;

use crate::scenario::{Expect, Scenario, ScenarioError};
use crate::search::{self, Options, Verdict, Violation};

pub use constraints::{Alternatives, Constraint, Exactness};

/// The most orders that are looked at: those of seven different steps.
pub const MOST_ORDERS: u64 = 5_040;

/// The words that stop the guest, and those that end a protocol.
const STOPS: [&str; 2] = ["pause-vcpus", "wait-vcpus-stopped"];
const ENDS: [&str; 2] = ["finish", "switch-over"];

/// Why orders cannot be enumerated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrdersError {
    /// The protocol is not one list of steps with a stop and an end.
    NoFinalSteps(&'static str),
    /// There are more than [`MOST_ORDERS`].
    TooMany(u64),
    /// An order is no scenario.
    Scenario(String),
    /// An order is too large to be searched.
    TooLarge(String),
    /// A limit, or Ctrl-C, ended the search of an order.
    Inconclusive(String),
}

impl std::fmt::Display for OrdersError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoFinalSteps(problem) => write!(
                f,
                "{problem}; write the protocol as one list, `steps = [..., \"pause-vcpus\", the steps to order, \"finish\"]`"
            ),
            Self::TooMany(orders) => write!(
                f,
                "{orders} orders of the final steps; at most {MOST_ORDERS} are looked at: put steps that belong together into a {{ repeat = 1, steps = [...] }}"
            ),
            Self::Scenario(error) => write!(f, "an order of the steps is no scenario: {error}"),
            Self::TooLarge(error) => f.write_str(error),
            Self::Inconclusive(order) => write!(
                f,
                "a limit came before a verdict on the order {order}; scale the scenario down, or raise the limit"
            ),
        }
    }
}

impl std::error::Error for OrdersError {}

impl From<Box<ScenarioError>> for OrdersError {
    fn from(error: Box<ScenarioError>) -> Self {
        Self::Scenario(error.to_string())
    }
}

/// One order of the final steps.
#[derive(Debug, Clone)]
pub struct Order {
    /// The steps, by number in [`Orders::steps`].
    pub steps: Vec<usize>,
    /// Whether every claim holds.
    pub safe: bool,
}

/// An order that breaks a constraint, and what goes wrong in it.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// The steps, by number in [`Orders::steps`].
    pub order: Vec<usize>,
    /// The scenario with that order.
    pub scenario: Scenario,
    /// What breaks.
    pub violation: Violation,
}

/// What the orders of a scenario's final steps come to.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The final steps as the scenario orders them; equal ones are numbered.
    pub steps: Vec<String>,
    /// Every distinct order.
    pub orders: Vec<Order>,
    /// What all safe orders have in common, without what follows from the rest.
    pub constraints: Vec<Constraint>,
    /// Whether that is enough.
    pub exactness: Exactness,
    /// For each constraint, a shortest schedule of an order that keeps the others and breaks it; where one exists.
    pub counterexamples: Vec<Option<Counterexample>>,
}

impl Orders {
    /// How many orders are safe.
    #[must_use]
    pub fn safe(&self) -> usize {
        self.orders.iter().filter(|order| order.safe).count()
    }

    /// An order in words.
    #[must_use]
    pub fn words(&self, order: &[usize]) -> String {
        let words: Vec<&str> = order
            .iter()
            .map(|step| self.steps[*step].as_str())
            .collect();
        words.join(", ")
    }
}

/// The final steps of a scenario, as written.
struct Final {
    /// Where in the list they begin.
    first: usize,
    items: Vec<Value>,
}

fn word(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get("step")?.as_str())
}

fn final_steps(source: &Value) -> Result<Final, OrdersError> {
    let steps = source
        .get("protocol")
        .and_then(|protocol| protocol.get("steps"))
        .and_then(Value::as_array)
        .ok_or(OrdersError::NoFinalSteps(
            "the protocol has no list `steps`",
        ))?;
    let is = |item: &Value, words: &[&str]| word(item).is_some_and(|word| words.contains(&word));
    let stop = steps
        .iter()
        .rposition(|item| is(item, &STOPS))
        .ok_or(OrdersError::NoFinalSteps("nothing stops the vCPUs"))?;
    let end = steps
        .iter()
        .rposition(|item| is(item, &ENDS))
        .filter(|end| *end > stop)
        .ok_or(OrdersError::NoFinalSteps(
            "nothing ends the protocol after the stop",
        ))?;
    if end == stop + 1 {
        return Err(OrdersError::NoFinalSteps(
            "there is no step between the stop and the end",
        ));
    }
    Ok(Final {
        first: stop + 1,
        items: steps[stop + 1..end].to_vec(),
    })
}

/// A step in words: its name, and its arguments where it has some.
fn label(item: &Value) -> String {
    match (word(item), item.as_object()) {
        (Some(name), Some(map)) => {
            let arguments: Vec<String> = map
                .iter()
                .filter(|(key, _)| *key != "step")
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("{name}({})", arguments.join(", "))
        }
        (Some(name), None) => name.to_owned(),
        (None, _) => item.to_string(),
    }
}

fn labels(items: &[Value]) -> Vec<String> {
    let occurrence = |at: usize| {
        items[..at]
            .iter()
            .filter(|item| **item == items[at])
            .count()
            + 1
    };
    let total = |at: usize| items.iter().filter(|item| **item == items[at]).count();
    (0..items.len())
        .map(|at| match total(at) {
            1 => label(&items[at]),
            _ => format!("{}#{}", label(&items[at]), occurrence(at)),
        })
        .collect()
}

/// The number of distinct orders.
fn count(items: &[Value]) -> u64 {
    let mut orders = 1_u64;
    for at in 0..items.len() {
        let equal = items[..=at]
            .iter()
            .filter(|item| **item == items[at])
            .count() as u64;
        // A product of whole binomials, so that the division is exact.
        orders = orders.saturating_mul(at as u64 + 1) / equal;
    }
    orders
}

/// Every distinct order, by number; of equal steps the first comes first.
fn every_order(items: &[Value]) -> Vec<Vec<usize>> {
    fn extend(items: &[Value], order: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if order.len() == items.len() {
            all.push(order.clone());
            return;
        }
        for next in 0..items.len() {
            let earlier_equal =
                (0..next).any(|other| items[other] == items[next] && !order.contains(&other));
            if !order.contains(&next) && !earlier_equal {
                order.push(next);
                extend(items, order, all);
                order.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(items, &mut Vec::new(), &mut all);
    all
}

/// The scenario with its final steps in another order, expected to hold.
fn reordered(scenario: &Scenario, parts: &Final, order: &[usize]) -> Result<Scenario, OrdersError> {
    let mut source = scenario.source.clone();
    if let Some(steps) = source
        .get_mut("protocol")
        .and_then(|protocol| protocol.get_mut("steps"))
        .and_then(Value::as_array_mut)
    {
        for (place, item) in order.iter().enumerate() {
            steps[parts.first + place] = parts.items[*item].clone();
        }
    }
    let mut scenario = Scenario::from_json(&scenario.name, &source)?;
    scenario.expect = Some(Expect::Holds);
    Ok(scenario)
}

/// Checks every order. `options` are those of each search; `progress` hears of each order before it is searched.
///
/// # Errors
/// What keeps the orders from being enumerated or judged.
pub fn orders(
    scenario: &Scenario,
    options: &Options,
    watch: search::Watch<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Orders, OrdersError> {
    let parts = final_steps(&scenario.source)?;
    let steps = labels(&parts.items);
    let total = count(&parts.items);
    if total > MOST_ORDERS {
        return Err(OrdersError::TooMany(total));
    }
    let all = every_order(&parts.items);
    let judge = |order: &[usize], counterexample: bool| {
        let scenario = reordered(scenario, &parts, order)?;
        let options = Options {
            counterexample,
            keep_going: false,
            ..options.clone()
        };
        let report = search::check(&scenario, &options, watch)
            .map_err(|error| OrdersError::TooLarge(error.to_string()))?;
        if report.verdict == Verdict::Inconclusive {
            let words: Vec<&str> = order.iter().map(|step| steps[*step].as_str()).collect();
            return Err(OrdersError::Inconclusive(words.join(", ")));
        }
        Ok((scenario, report))
    };
    let mut judged = Vec::with_capacity(all.len());
    for (at, order) in all.iter().enumerate() {
        progress(at, all.len());
        let (_, report) = judge(order, false)?;
        judged.push(Order {
            steps: order.clone(),
            safe: report.verdict == Verdict::Holds,
        });
    }
    let equal = |a: usize, b: usize| parts.items[a] == parts.items[b];
    let (constraints, exactness) = constraints::weakest(&judged, parts.items.len(), &equal);
    let mut counterexamples = Vec::new();
    for dropped in &constraints {
        let breaks = judged.iter().find(|order| {
            !order.safe
                && !dropped.is_kept_by(&order.steps)
                && constraints
                    .iter()
                    .all(|other| other == dropped || other.is_kept_by(&order.steps))
        });
        counterexamples.push(match breaks {
            Some(order) => {
                let (scenario, report) = judge(&order.steps, true)?;
                report.violation.map(|violation| Counterexample {
                    order: order.steps.clone(),
                    scenario,
                    violation,
                })
            }
            None => None,
        });
    }
    Ok(Orders {
        steps,
        orders: judged,
        constraints,
        exactness,
        counterexamples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps_are_not_told_apart() {
        let items: Vec<Value> = ["a", "b", "a"].map(Value::from).to_vec();
        assert_eq!(count(&items), 3);
        assert_eq!(every_order(&items), [[0, 1, 2], [0, 2, 1], [1, 0, 2]]);
        assert_eq!(labels(&items), ["a#1", "b", "a#2"]);
    }

    #[test]
    fn as_many_orders_are_made_as_are_counted() {
        let items: Vec<Value> = ["a", "b", "c", "b", "a", "b"].map(Value::from).to_vec();
        assert_eq!(every_order(&items).len() as u64, count(&items));
        assert_eq!(count(&items), 60);
    }
}
