//! The first state of a schedule: what is broken before anybody acts, and why that is most often so.
//!
//! Search, schedules, replay, shrinking and stories all begin by asking this, so that they agree on it.
//!
//! ```
//! use dirtysim_check::{first::broken, ladder::small, scenario::builtin};
//!
//! let scenario = builtin("kernel-docs").unwrap();
//! let start = small(&scenario).unwrap();
//! assert_eq!(broken(&scenario.machine, &start).iter().next(), None);
//! ```

use dirtysim_model::machine::{CAP_MANUAL_DIRTY_LOG_PROTECT2, Machine};
use dirtysim_model::op::Op;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::Effect;

use crate::scenario::Scenario;
use crate::stuck::breaks_progress;

/// The claims that are broken in a state in which nobody has acted yet.
#[must_use]
pub fn broken<L: Layout>(machine: &Machine, state: &State<L>) -> Invariants {
    let mut broken = oracle::check(machine, state, Effect::None);
    if breaks_progress(machine, state) {
        broken.insert(Invariant::MigrationMakesProgress);
    }
    broken
}

/// What a lost page has to do with a program that never copies all memory, and what to write; none where it does, or
/// where the claim is about something else.
#[must_use]
pub fn no_full_copy(scenario: &Scenario, invariant: Invariant) -> Option<&'static str> {
    let about_pages = matches!(
        invariant,
        Invariant::NoDirtyPageLost | Invariant::StalePageIsAccountedFor
    );
    // INITIALLY_SET makes the first GET a full copy.
    let initially_set = scenario
        .setup
        .iter()
        .any(|op| matches!(op, Op::EnableCap(op) if op.cap == CAP_MANUAL_DIRTY_LOG_PROTECT2 && op.args0 & 2 != 0));
    // A VMM's own code sends pages by name.
    let sends_all = scenario.machine.slots.iter().all(|slot| {
        let mut frames = slot.frames();
        let ops = scenario.machine.programs.iter().flatten();
        frames.all(|frame| {
            ops.clone()
                .any(|op| matches!(op, Op::SendPage(op) if op.frame == frame))
        })
    });
    let plans = sends_all
        || scenario.machine.ahead.iter().any(|ahead| {
            let program = &ahead[0];
            program.full_copy || initially_set && !program.log_on[0].is_empty()
        });
    (about_pages && !plans).then_some(
        "Nothing plans a full copy, so that every page differs from the start: write \"copy-all\", or \"take-all\" and later \"copy\", behind \"enable-logging\".",
    )
}
