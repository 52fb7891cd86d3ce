//! KVM_ENABLE_CAP for the dirty-log capabilities.
//! Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_enable_cap_generic(), kvm_vm_ioctl_enable_dirty_log_ring().

use super::{Act, EnableCap, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::{Slot, State};
use crate::words::constants::{
    CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, DIRTY_GFN_BYTES, INITIALLY_SET, MANUAL_PROTECT_ENABLE,
    RING_MAX_ENTRIES,
};
use crate::words::word::loud;
use crate::words::{Arch, Effect, Errno, Facts, Row, Waits, Word};

impl Single for EnableCap {
    const STEP: Word = loud("enable-cap", "enables a capability");

    fn says(&self) -> &'static str {
        match self.cap {
            CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL => "enables the dirty ring",
            CAP_DIRTY_LOG_RING_WITH_BITMAP => "enables the ring's backup bitmap",
            CAP_MANUAL_DIRTY_LOG_PROTECT2 => "sets manual protect",
            _ => "enables a capability",
        }
    }
    fn facts(&self) -> Facts {
        Facts {
            visits_vcpus: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::UNKNOWN
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        // The ring's size is set under kvm->lock, which nothing else here takes, and manual protect without any.
        at.slots_lock()
            .filter(|_| self.cap == CAP_DIRTY_LOG_RING_WITH_BITMAP)
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let (machine, state) = (act.machine, &mut *act.state);
        let answer = match self.cap {
            CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL => {
                enable_ring(machine, state, self.cap, self.args0)
            }
            CAP_DIRTY_LOG_RING_WITH_BITMAP => enable_bitmap(machine, state, self.flags),
            CAP_MANUAL_DIRTY_LOG_PROTECT2 => enable_manual(machine, state, self.flags, self.args0),
            _ => Err(Errno::EINVAL),
        };
        act.leave(answer.map(|()| 0))
    }
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
        || (cap == CAP_DIRTY_LOG_RING_ACQ_REL && !machine.kernel.has_ring_acq_rel())
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
    if state.slots.iter().any(Slot::exists) {
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
    if flags != 0 || args0 & !(allowed & machine.arch.manual_protect_mask(machine.kernel)) != 0 {
        return Err(Errno::EINVAL);
    }
    state.caps.manual_protect = args0 as u8;
    Ok(())
}
