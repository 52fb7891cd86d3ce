//! What ioctls check of a memslot's number, and how they make vCPUs leave the guest.

use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::vcpu::Pc;
use crate::words::Errno;

/// What every bitmap ioctl checks first, under slots_lock: the mode, then the numbers; the slot itself may be missing.
/// Source: virt/kvm/kvm_main.c, kvm_get_dirty_log_protect() and kvm_clear_dirty_log_protect().
pub(crate) fn check_number<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    number: u32,
) -> Result<(), Errno> {
    if !state.caps.use_bitmap() {
        return Err(Errno::ENXIO);
    }
    if number >> 16 >= machine.constants.address_spaces
        || number & 0xffff >= machine.constants.user_slots
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The slot of that number, with a bitmap.
pub(crate) fn find_bitmap<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    number: u32,
) -> Result<usize, Errno> {
    state
        .find_slot(machine, number)
        .filter(|&slot| state.slots[slot].bitmap)
        .ok_or(Errno::ENOENT)
}

/// The reschedule interrupt to one vCPU; it leaves the guest some time later, and nobody waits for it.
/// Source: arch/x86/kvm/x86.c, kvm_arch_sync_dirty_log().
pub(crate) fn kick_for_pml<L: Layout>(state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    v.resched |= v.pc == Pc::Guest;
}
