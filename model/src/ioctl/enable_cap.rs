//! KVM_ENABLE_CAP for the dirty-log capabilities, and KVM_CREATE_VCPU.
//! Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_enable_cap_generic(), kvm_vm_ioctl_enable_dirty_log_ring().

use crate::errno::Errno;
use crate::layout::{Array, Layout};
use crate::machine::{
    Arch, CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, DIRTY_GFN_BYTES, INITIALLY_SET, MANUAL_PROTECT_ENABLE, Machine,
    RING_MAX_ENTRIES,
};
use crate::mutation::Mutation;
use crate::ring::Ring;
use crate::state::State;
use crate::vcpu::Vcpu;

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    cap: u32,
    flags: u32,
    args0: u64,
) {
    let answer = match cap {
        CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL => enable_ring(machine, state, cap, args0),
        CAP_DIRTY_LOG_RING_WITH_BITMAP => enable_bitmap(machine, state, flags),
        CAP_MANUAL_DIRTY_LOG_PROTECT2 => enable_manual(machine, state, flags, args0),
        _ => Err(Errno::EINVAL),
    };
    let t = &mut state.threads[thread];
    t.next_op();
    t.answer = answer.map(|()| 0);
}

/// `flags` is not looked at, and the size is cut to 32 bits first.
fn enable_ring<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    cap: u32,
    args0: u64,
) -> Result<(), Errno> {
    // Only total-store-order architectures offer the older capability.
    if !machine.arch.has_ring(machine.kernel)
        || (cap == CAP_DIRTY_LOG_RING && machine.arch != Arch::X86)
    {
        return Err(Errno::EINVAL);
    }
    let bytes = args0 as u32;
    if !bytes.is_power_of_two() {
        return Err(Errno::EINVAL);
    }
    let entries = bytes / DIRTY_GFN_BYTES;
    if bytes < machine.constants.ring_min_entries * DIRTY_GFN_BYTES
        || entries < machine.constants.ring_reserved
    {
        return Err(Errno::EINVAL);
    }
    if entries > RING_MAX_ENTRIES {
        return Err(Errno::E2BIG);
    }
    if state.caps.ring_entries != 0 || !state.vcpus.is_empty() {
        return Err(Errno::EINVAL);
    }
    state.caps.ring_entries = entries;
    if machine.mutations.has(Mutation::RingManualProtect) {
        state.caps.manual_protect = (MANUAL_PROTECT_ENABLE | INITIALLY_SET) as u8;
    }
    Ok(())
}

fn enable_bitmap<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    flags: u32,
) -> Result<(), Errno> {
    if !machine.arch.has_ring_with_bitmap(machine.kernel)
        || state.caps.ring_entries == 0
        || flags != 0
    {
        return Err(Errno::EINVAL);
    }
    if state.slots.iter().any(crate::slot::Slot::exists) {
        return Err(Errno::EINVAL);
    }
    state.caps.ring_with_bitmap = true;
    Ok(())
}

fn enable_manual<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    flags: u32,
    args0: u64,
) -> Result<(), Errno> {
    let allowed = if args0 & MANUAL_PROTECT_ENABLE != 0 {
        MANUAL_PROTECT_ENABLE | INITIALLY_SET
    } else {
        0
    };
    if flags != 0 || args0 & !(allowed & machine.arch.manual_protect_mask()) != 0 {
        return Err(Errno::EINVAL);
    }
    state.caps.manual_protect = args0 as u8;
    Ok(())
}

/// The vCPU with the next id, its ring allocated before it can be seen.
pub(crate) fn create_vcpu<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize) {
    let id = state.vcpus.len();
    let config = &machine.vcpus[id];
    state.vcpus.push(Vcpu {
        stores: config.stores,
        loads: config.loads,
        steal: config.steal,
        ring: Ring::new(state.caps.ring_entries),
        ..Vcpu::default()
    });
    let t = &mut state.threads[thread];
    t.next_op();
    t.answer = Ok(0);
}
