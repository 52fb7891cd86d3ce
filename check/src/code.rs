//! Programs that are a VMM's own code: what is not known of them is asked for while they run.
//!
//! A thread that returns from a call stands at [`Op::Proceed`]. Where its answer has a way it goes on at once: nothing but the
//! code itself stands between two calls. Where it has none, somebody is asked ([`Grow`]), who runs the code and adds what it does to
//! the machine. Schedules ask in the middle of a schedule, a search between two levels.
//!
//! ```
//! use dirtysim_check::{code::is_waited_for, ladder::small, scenario::builtin};
//!
//! // A program that a scenario's text has is known whole.
//! let scenario = builtin("kernel-docs").unwrap();
//! let start = small(&scenario).unwrap();
//! assert!(!is_waited_for(&scenario.machine, &start));
//! ```

use dirtysim_model::machine::{Machine, Op};
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::{Answer, State};
use dirtysim_model::transition::{Actor, Choice, Step, apply, blocked, for_each_choice};
use dirtysim_model::words::{HostPage, Waits};

use crate::ladder::large;
use crate::scenario::Scenario;

/// An answer after which nobody knows yet what the code does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// The thread.
    pub thread: u8,
    /// The index of the ways from where it stands ([`Code::ways`](dirtysim_model::machine::Code::ways)).
    pub ways: u16,
    /// What the call answered.
    pub answer: Answer,
    /// The pages that came with it, in ascending order.
    pub pages: Vec<HostPage>,
    /// The place of the order of all threads ([`Code::order`](dirtysim_model::machine::Code::order)); 0 where there is none.
    pub order: u16,
}

/// Somebody who knows what the code does.
pub trait Grow {
    /// Adds to the machine a way for each answer of `unknown`, which are in ascending order, and whatever the ways lead to.
    /// Whether it could: else whatever runs the machine ends there.
    ///
    /// What the machine has stays as it is.
    fn grow(&mut self, machine: &mut Machine, unknown: &[Unknown]) -> bool;
}

/// Who is asked where every program is known whole: nobody.
pub(crate) struct Nobody;

impl Grow for Nobody {
    fn grow(&mut self, _: &mut Machine, _: &[Unknown]) -> bool {
        false
    }
}

/// The index of the ways of a thread that stands between two calls.
fn between<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> Option<u16> {
    match state.current_op(machine, thread) {
        Some(Op::Proceed(proceed)) => Some(proceed.ways),
        _ => None,
    }
}

/// Whether some thread stands where nobody knows yet what the code does: it is not stuck.
#[must_use]
pub fn is_waited_for<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    let waits = |thread: usize| {
        let actor = Actor::Thread(thread as u8);
        blocked(machine, state, actor) == Some(Waits::Code)
    };
    machine.code.is_some() && (0..state.threads.len()).any(waits)
}

/// Lets every thread that stands between two calls go on, as far as it is known where to; whether one did.
///
/// # Errors
/// What is not known, of the first thread for which it is not.
pub fn go_on<L: Layout>(machine: &Machine, state: &mut State<L>) -> Result<bool, Unknown> {
    let mut has_gone_on = false;
    for thread in 0..state.threads.len() {
        let Some(ways) = between(machine, state, thread) else {
            continue;
        };
        let step = Step {
            actor: Actor::Thread(thread as u8),
            choice: Choice::Advance,
        };
        let mut is_known = state.finished || state.crashed;
        for_each_choice(machine, state, step.actor, |_| is_known = true);
        if !is_known {
            let at = &state.threads[thread];
            let order = machine.code.as_ref().and_then(|code| code.order);
            return Err(Unknown {
                thread: thread as u8,
                ways,
                answer: at.answer,
                pages: at.hand.iter().collect(),
                order: order.map_or(0, |order| state.threads[usize::from(order)].op),
            });
        }
        if !state.finished && !state.crashed {
            apply(machine, state, step);
            has_gone_on = true;
        }
    }
    Ok(has_gone_on)
}

/// By thread, the operations to which the code went in a schedule without the steps by which it goes on.
#[must_use]
pub fn way_through(scenario: &Scenario, steps: &[Step]) -> Vec<Vec<u16>> {
    let machine = &scenario.machine;
    let mut state = large(scenario);
    let mut way = vec![Vec::new(); machine.programs.len()];
    for step in std::iter::once(None).chain(steps.iter().copied().map(Some)) {
        if let Some(step) = step {
            apply(machine, &mut state, step);
        }
        let threads = 0..state.threads.len();
        let stood: Vec<usize> = threads
            .filter(|&thread| between(machine, &state, thread).is_some())
            .collect();
        // Where the last call's answer leads is not always known, and nobody asks.
        let _ = go_on(machine, &mut state);
        for thread in stood {
            if between(machine, &state, thread).is_none() {
                way[thread].push(state.threads[thread].op);
            }
        }
    }
    way
}
