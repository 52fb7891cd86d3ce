//! Whether anybody can still act, or the programs wait for ever.
//!
//! ```
//! use dirtysim_check::{ladder::small, scenario::builtin, stuck::is_stuck};
//!
//! let scenario = builtin("kernel-docs").unwrap();
//! assert!(!is_stuck(&scenario.machine, &small(&scenario).unwrap()));
//! ```

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::Invariant;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::UNLIMITED;
use dirtysim_model::transition::{for_each_step, is_at_leisure};

use crate::code;

/// Whether a state is a deadlock: a program has not come to its end, and nobody can act, but who need never do so.
#[must_use]
pub fn is_stuck<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    let mut somebody = false;
    let goes_on = !state.finished && !state.crashed && !code::is_waited_for(machine, state);
    if goes_on && has_work(machine, state) {
        for_each_step(machine, state, |step| {
            somebody |= !is_at_leisure(state, step);
        });
        return !somebody;
    }
    false
}

/// Whether somebody may have a budget without end, so that a state is perhaps a deadlock though there are steps.
#[must_use]
pub fn has_leisure(machine: &Machine) -> bool {
    let vcpus = machine.vcpus.iter();
    let budgets = vcpus.flat_map(|vcpu| [vcpu.stores, vcpu.loads, vcpu.steal]);
    let transfers = machine.devices.iter().map(|device| device.transfers);
    budgets.chain(transfers).any(|budget| budget == UNLIMITED)
}

/// Whether it breaks the claim of progress, by which not every scenario is judged.
#[must_use]
pub fn breaks_progress<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    machine.claims.has(Invariant::MigrationMakesProgress) && is_stuck(machine, state)
}

/// Whether a program has not come to its end.
#[must_use]
pub fn has_work<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    state
        .threads
        .iter()
        .zip(&machine.programs)
        .any(|(thread, program)| usize::from(thread.op) < program.len())
}
