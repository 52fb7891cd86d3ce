//! Every order of some of a protocol's steps: which are safe, and the weakest constraints that make them so.
//!
//! The steps between the last stop of the vCPUs and the end, or those of a pre-copy round, are put into every distinct
//! order, and each order is checked exhaustively. What all safe orders have in common is then compared with what is
//! enough.
//!
//! Not covered: leaving a step out, doing it twice, or moving it past the stop.
//!
//! ```
//! use dirtysim_check::orders::{Part, orders};
//! use dirtysim_check::search::Options;
//! use dirtysim_check::shrink::Budget;
//! use dirtysim_check::scenario::Scenario;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! let (options, budget) = (Options::default(), Budget::default());
//! let orders = orders(&scenario, Part::Final, &options, budget, &|_| true, &mut |_, _| ());
//! // Its final steps are one: the copy.
//! assert_eq!(orders.unwrap().safe(), 0);
//! ```

mod constraints;
mod part;

use std::time::Instant;

use crate::scenario::{Expect, Scenario, ScenarioError};
use crate::search::minimal::{Minimal, minimal};
use crate::search::{self, Coverage, Limit, Options, TooLarge, Verdict, Violation};
use crate::shrink::Budget;

pub use constraints::{Alternatives, Constraint, Exactness};
pub use part::Part;
use part::Steps;

/// The most orders that are looked at: those of seven different steps.
pub const MOST_ORDERS: u64 = 5_040;

/// Why orders cannot be enumerated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrdersError {
    /// The protocol is not one list of steps with a stop and an end, or with rounds.
    NoSuchSteps(&'static str),
    /// There are more than [`MOST_ORDERS`].
    TooMany(u64),
    /// An order is no scenario.
    Scenario(Box<ScenarioError>),
    /// An order is too large to be searched.
    TooLarge(TooLarge),
    /// A limit, or Ctrl-C, ended the search of an order.
    Inconclusive(Limit, String),
    /// With any number of pages, an order is neither proved nor broken by a machine of few.
    Unconfirmed(String),
}

impl std::fmt::Display for OrdersError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchSteps(problem) => write!(
                f,
                "{problem}; write the protocol as one list, `steps = [..., {{ repeat = 1, steps = [a pre-copy round] }}, \"pause-vcpus\", the final steps, \"finish\"]`"
            ),
            Self::TooMany(orders) => write!(
                f,
                "{orders} orders of these steps; at most {MOST_ORDERS} are looked at: put steps that belong together into a {{ repeat = 1, steps = [...] }}"
            ),
            Self::Scenario(error) => write!(f, "an order of the steps is no scenario: {error}"),
            Self::TooLarge(error) => error.fmt(f),
            Self::Inconclusive(limit, order) => write!(
                f,
                "{} came before a verdict on the order {order}; scale the scenario down, or raise the limit",
                limit.name()
            ),
            Self::Unconfirmed(order) => write!(
                f,
                "the order {order} is not proved for any number of pages, and no machine of few breaks it; write a number in pages"
            ),
        }
    }
}

impl std::error::Error for OrdersError {}

impl From<Box<ScenarioError>> for OrdersError {
    fn from(error: Box<ScenarioError>) -> Self {
        Self::Scenario(error)
    }
}

/// One order of the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The steps, by number in [`Orders::steps`].
    pub steps: Vec<usize>,
    /// Whether every claim holds.
    pub safe: bool,
    /// Whether that is proved for any number.
    pub proved: bool,
    /// Where one breaks: after how many steps of the reduced search.
    pub depth: u32,
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
    /// The schedule, as short as it could be made; none where a limit came first.
    pub minimal: Option<Minimal>,
}

/// What the orders come to.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The steps as the scenario orders them; equal ones are numbered.
    pub steps: Vec<String>,
    /// Every distinct order.
    pub orders: Vec<Order>,
    /// What all safe orders have in common, without what follows from the rest.
    pub constraints: Vec<Constraint>,
    /// Whether that is enough.
    pub exactness: Exactness,
    /// For each constraint, an order that keeps the others and breaks it, of those the one that fails first, with a
    /// shortest schedule; where one exists.
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

/// What is said to who watches while a counterexample is made short.
const IDLE: search::Progress = search::Progress {
    states: 0,
    frontier: 0,
    depth: 0,
    bytes: 0,
};

/// Checks every order of a part of the protocol. `options` are those of each search, `budget` that of making each
/// counterexample short; `progress` hears of each order before it is searched.
///
/// # Errors
/// What keeps the orders from being enumerated or judged.
pub fn orders(
    scenario: &Scenario,
    part: Part,
    options: &Options,
    budget: Budget,
    watch: search::Watch<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Orders, OrdersError> {
    let parts = Steps::of(&scenario.source, part)?;
    let steps = part::labels(&parts.items);
    let total = part::count(&parts.items);
    if total > MOST_ORDERS {
        return Err(OrdersError::TooMany(total));
    }
    let all = part::every_order(&parts.items);
    let judge = |order: &[usize], counterexample: bool| {
        let mut scenario = Scenario::from_json(&scenario.name, &parts.reordered(order))?;
        scenario.expect = Some(Expect::Holds);
        let options = Options {
            counterexample,
            keep_going: false,
            ..options.clone()
        };
        let report = search::check(&scenario, &options, watch).map_err(OrdersError::TooLarge)?;
        let words = || {
            let words: Vec<&str> = order.iter().map(|step| steps[*step].as_str()).collect();
            words.join(", ")
        };
        if let (Verdict::Inconclusive, Coverage::Truncated(limit)) =
            (report.verdict, report.coverage)
        {
            return Err(OrdersError::Inconclusive(limit, words()));
        }
        if report.unconfirmed.is_some() {
            return Err(OrdersError::Unconfirmed(words()));
        }
        let instance = search::instance(&scenario, &report);
        Ok((instance.unwrap_or(scenario), report))
    };
    let mut judged = Vec::with_capacity(all.len());
    for (at, order) in all.iter().enumerate() {
        progress(at, all.len());
        let (_, report) = judge(order, false)?;
        judged.push(Order {
            steps: order.clone(),
            safe: report.verdict == Verdict::Holds,
            proved: report.coverage == Coverage::Proved,
            depth: report.violation.map_or(0, |violation| violation.depth),
        });
    }
    let equal = |a: usize, b: usize| parts.items[a] == parts.items[b];
    let (constraints, exactness) = constraints::weakest(&judged, parts.items.len(), &equal);
    let mut counterexamples = Vec::new();
    for dropped in &constraints {
        let breaks = judged.iter().filter(|order| {
            !order.safe
                && !dropped.is_kept_by(&order.steps)
                && constraints
                    .iter()
                    .all(|other| other == dropped || other.is_kept_by(&order.steps))
        });
        counterexamples.push(match breaks.min_by_key(|order| order.depth) {
            Some(order) => {
                let begun = Instant::now();
                let (scenario, report) = judge(&order.steps, true)?;
                let in_time = || options.max_time.is_none_or(|most| begun.elapsed() < most);
                report.violation.map(|violation| Counterexample {
                    order: order.steps.clone(),
                    minimal: minimal(&scenario, &violation, budget, &|_| {
                        watch(&IDLE) && in_time()
                    }),
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
