//! The creation of vCPUs. Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_create_vcpu().

use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::{Array, Layout};
use crate::state::ring::Ring;
use crate::state::vcpu::Vcpu;

/// The vCPU with the next id, its ring allocated before it can be seen. The caller has seen that the machine has one more.
pub(crate) fn create<L: Layout>(machine: &Machine, state: &mut State<L>) {
    let config = &machine.vcpus[state.vcpus.len()];
    state.vcpus.push(Vcpu {
        stores: config.stores,
        loads: config.loads,
        steal: config.steal,
        ring: Ring::new(state.caps.ring_entries),
        ..Vcpu::default()
    });
}
