//! How one scenario is decided: every interleaving within its bounds, breadth first.

use std::collections::HashMap;

use dirtysim_model::layout::{Large, Layout, Medium, Small};
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::pack::{Widths, pack, packed_bits, unpack};
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Choice, Step, apply, for_each_step};

use crate::run::{hit, is_stuck, target};
use crate::scenario::Scenario;
use crate::sometimes::Seen;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Every interleaving within the bounds was seen, and no claim broke.
    Holds,
    /// A claim broke.
    Violated {
        /// Which.
        invariant: Invariant,
        /// A shortest schedule that breaks it.
        steps: Vec<Step>,
    },
    /// A limit was reached first.
    Inconclusive {
        /// Which.
        limit: &'static str,
    },
}

/// A scenario's decision, with its coverage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The outcome.
    pub found: Found,
    /// Distinct states.
    pub states: u64,
    /// Steps taken between them.
    pub transitions: u64,
    /// The longest shortest path to a state, in steps.
    pub depth: u64,
    /// What happened on some path.
    pub seen: Seen,
}

/// Decides a scenario, visiting at most `max_states` states.
#[must_use]
pub fn decide(scenario: &Scenario, max_states: u64) -> Decision {
    if let Ok(start) = scenario.start::<Small>() {
        return search(scenario, start, max_states);
    }
    if let Ok(start) = scenario.start::<Medium>() {
        return search(scenario, start, max_states);
    }
    let start = scenario
        .start::<Large>()
        .expect("the large layout has room for every scenario");
    search(scenario, start, max_states)
}

fn search<L: Layout>(scenario: &Scenario, start: State<L>, max_states: u64) -> Decision {
    let machine = &scenario.machine;
    let target = target(scenario);
    let widths = Widths::new(machine, &start);
    let words = packed_bits(machine, &widths, &start).div_ceil(64) as usize;
    let packed = |state: &mut State<L>| {
        let mut out = vec![0u64; words].into_boxed_slice();
        pack(machine, &widths, state, &mut out);
        out
    };
    let mut index: HashMap<Box<[u64]>, u32> = HashMap::new();
    let mut order: Vec<(Box<[u64]>, u32, Step)> = Vec::new();
    let none = Step {
        actor: Actor::Thread(0),
        choice: Choice::Advance,
    };
    let mut first = start.clone();
    let key = packed(&mut first);
    index.insert(key.clone(), 0);
    order.push((key, u32::MAX, none));
    let mut decision = Decision {
        found: Found::Holds,
        states: 0,
        transitions: 0,
        depth: 0,
        seen: Seen::default(),
    };
    let path = |order: &[(Box<[u64]>, u32, Step)], mut at: u32, last: Option<Step>| {
        let mut steps: Vec<Step> = last.into_iter().collect();
        while order[at as usize].1 != u32::MAX {
            steps.push(order[at as usize].2);
            at = order[at as usize].1;
        }
        steps.reverse();
        steps
    };
    let mut at = 0usize;
    let mut level_end = 1usize;
    let mut possible = Vec::new();
    while at < order.len() {
        if at == level_end {
            level_end = order.len();
            decision.depth += 1;
        }
        if order.len() as u64 > max_states {
            decision.found = Found::Inconclusive { limit: "states" };
            break;
        }
        let mut state = start.clone();
        unpack(machine, &widths, &order[at].0, &mut state);
        possible.clear();
        for_each_step(machine, &state, |step| possible.push(step));
        if possible.is_empty() && is_stuck(machine, &state) {
            let mut broken = Invariants::NONE;
            broken.insert(Invariant::MigrationMakesProgress);
            if let Some(invariant) = hit(broken, target) {
                decision.found = Found::Violated {
                    invariant,
                    steps: path(&order, at as u32, None),
                };
                decision.states = order.len() as u64;
                return decision;
            }
        }
        for &step in &possible {
            let mut next = state.clone();
            decision.seen.note(machine, &state, step);
            let effect = apply(machine, &mut next, step);
            decision.transitions += 1;
            let broken = oracle::check(machine, &next, effect);
            if let Some(invariant) = hit(broken, target) {
                decision.found = Found::Violated {
                    invariant,
                    steps: path(&order, at as u32, Some(step)),
                };
                decision.states = order.len() as u64;
                return decision;
            }
            let key = packed(&mut next);
            if !index.contains_key(&key) {
                index.insert(key.clone(), order.len() as u32);
                order.push((key, at as u32, step));
            }
        }
        at += 1;
    }
    decision.states = order.len() as u64;
    decision
}
