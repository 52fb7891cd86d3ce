//! KVM's ioctls, a file each. Each is a sequence of steps with errnos in the kernel's checking order.

pub(crate) mod clear_dirty_log;
pub(crate) mod enable_cap;
pub(crate) mod get_dirty_log;
pub(crate) mod kernel_write;
pub(crate) mod memory_region;
pub(crate) mod rearm;
pub(crate) mod reset_rings;

use crate::errno::Errno;
use crate::layout::Layout;
use crate::machine::Machine;
use crate::state::State;
use crate::thread::Answer;

/// What every bitmap ioctl checks first, under slots_lock: the mode, then the numbers; the slot itself may be missing.
/// Source: virt/kvm/kvm_main.c, kvm_get_dirty_log_protect() and kvm_clear_dirty_log_protect().
pub(crate) fn check_slot_number<L: Layout>(
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

/// The thread leaves its ioctl with an answer; slots_lock is free again if the thread held it.
pub(crate) fn leave<L: Layout>(state: &mut State<L>, thread: usize, answer: Answer) {
    if usize::from(state.slots_lock) == thread + 1 {
        state.slots_lock = 0;
    }
    let t = &mut state.threads[thread];
    t.next_op();
    t.answer = answer;
}

/// Y37: the reschedule interrupt to one vCPU; it leaves the guest some time later, and nobody waits for it.
/// Source: arch/x86/kvm/x86.c, kvm_arch_sync_dirty_log().
pub(crate) fn kick_for_pml<L: Layout>(state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    if v.pc == crate::vcpu::Pc::Guest {
        v.resched = true;
    }
}
