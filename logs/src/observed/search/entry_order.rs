//! The order of a vCPU's checks on its way into the guest, asked of the model.

use dirtysim_model::machine::Machine;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::vcpu::{Pc, Vcpu};
use dirtysim_model::transition::{Actor, Choice, Step, describe};

/// Whether the request check comes before KVM's own stores on the way into the guest: the model is asked what a vCPU does
/// first there.
pub(super) fn checks_first(machine: &Machine) -> bool {
    let mut state = State::<Large>::default();
    state.vcpus.push(Vcpu {
        pc: Pc::Entry,
        ..Vcpu::default()
    });
    let first = Step {
        actor: Actor::Vcpu(0),
        choice: Choice::Advance,
    };
    describe(machine, &state, first) == "check-soft-full"
}
