//! The one marking primitive, with and without a running vCPU, and the push to a ring.
//! Source: virt/kvm/kvm_main.c, mark_page_dirty_in_slot(); virt/kvm/dirty_ring.c, kvm_dirty_ring_push().

use crate::machine::Machine;
use crate::machine::wiring::PushWrite;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::ring::{F_DIRTY, RingEntry};
use crate::words::word::{loud, quiet};
use crate::words::{Frame, Word};

pub(crate) const SET_BIT: Word = loud("set-bitmap-bit", "sets the bit of {page} in the bitmap");
/// The steps of a push: its three writes, the index, the request.
pub(crate) const PUSH: [Word; 5] = [
    quiet("push-slot", "writes the slot of {page} to its ring"),
    quiet("push-offset", "writes the offset of {page} to its ring"),
    loud("push-flags", "publishes {page} in its ring"),
    quiet("push-index", "moves its ring's dirty index"),
    loud("push-request", "raises the soft-full request"),
];

/// The number of entries at which a ring of `size` entries counts as soft-full.
/// Source: virt/kvm/dirty_ring.c, kvm_dirty_ring_soft_full().
#[must_use]
#[inline(always)]
pub fn soft_limit(machine: &Machine, size: u32) -> u32 {
    size.saturating_sub(machine.constants.ring_reserved) + machine.wiring.soft_full_late
}

/// A step of marking a frame of a slot that logs, or not, in the context of a vCPU; true when it is marked, or nothing was to be done.
/// Whether the slot logs is asked once, of the memslot that is found: a push that has begun goes on whatever becomes of the slot.
pub(crate) fn mark<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    frame: Frame,
    logging: bool,
) -> bool {
    let goes_on = logging || state.vcpus[vcpu].push > 0;
    let Some(slot) = machine.slot_of_frame(frame).filter(|_| goes_on) else {
        return true;
    };
    if state.caps.ring_entries != 0 {
        return push(machine, state, vcpu, slot, frame);
    }
    if state.slots[slot].bitmap {
        state.bitmap.insert(frame);
    }
    true
}

/// Marks a frame without a running vCPU: in the slot's bitmap if it has one, else nowhere.
pub(crate) fn mark_without_vcpu<L: Layout>(machine: &Machine, state: &mut State<L>, frame: Frame) {
    let Some(slot) = machine.slot_of_frame(frame) else {
        return;
    };
    if machine.kernel.mark_needs_vcpu() && machine.arch.has_ring(machine.kernel) {
        return;
    }
    if machine.kernel.ring_wants_vcpu() && state.caps.ring_entries != 0 && state.logs(slot) {
        state.crashed = true;
        return;
    }
    if state.logs(slot) && state.slots[slot].bitmap {
        state.bitmap.insert(frame);
    }
}

/// A push that is done in one step, for it has lost its place to another.
const INTERRUPTED: u8 = 5;

/// Pushes a frame to the entry that a push of another is filling, as one that runs in between does, and lets that one write what it has left;
/// the next step of the push ends it.
pub(crate) fn push_within<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    within: Frame,
    frame: Frame,
) {
    let names = |frame: Frame| {
        let slot = machine
            .slot_of_frame(frame)
            .map(|slot| &machine.slots[slot]);
        slot.map(|slot| (slot.number(), slot.offset(frame)))
    };
    let (Some(inner), Some(outer)) = (names(within), names(frame)) else {
        return;
    };
    let v = &mut state.vcpus[vcpu];
    let index = v.ring.dirty_index;
    let left = usize::from(v.push);
    let order = machine.wiring.push_order;
    let entry = v.ring.entry_mut(index);
    let writes = order.iter().map(|write| (write, inner));
    for (write, (number, offset)) in
        writes.chain(order.iter().skip(left).map(|write| (write, outer)))
    {
        match write {
            PushWrite::Slot => entry.set_slot(number),
            PushWrite::Offset => entry.set_offset(offset),
            PushWrite::Flags => entry.set_flags(F_DIRTY),
        }
    }
    v.ring.dirty_index = index.wrapping_add(1);
    v.push = INTERRUPTED;
}

/// A step of a push; true with the last one.
fn push<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    slot: usize,
    frame: Frame,
) -> bool {
    let template = &machine.slots[slot];
    let v = &mut state.vcpus[vcpu];
    let index = v.ring.dirty_index;
    match v.push {
        0..3 => {
            let entry = v.ring.entry_mut(index);
            match machine.wiring.push_order[usize::from(v.push)] {
                PushWrite::Slot => entry.set_slot(template.number()),
                PushWrite::Offset => entry.set_offset(template.offset(frame)),
                PushWrite::Flags => entry.set_flags(F_DIRTY),
            }
        }
        3 => {
            v.ring.dirty_index = index.wrapping_add(1);
            let soft_full = v.ring.used() >= soft_limit(machine, v.ring.size());
            let asks = !machine.kernel.soft_full_is_compared() && machine.wiring.raises_request;
            if !(soft_full && asks) {
                v.push = 0;
                return true;
            }
        }
        INTERRUPTED => {
            v.ring.dirty_index = index.wrapping_add(1);
            let asks = !machine.kernel.soft_full_is_compared() && machine.wiring.raises_request;
            v.request |= asks && v.ring.used() >= soft_limit(machine, v.ring.size());
            v.push = 0;
            return true;
        }
        _ => {
            v.request = true;
            v.push = 0;
            return true;
        }
    }
    v.push += 1;
    false
}

/// The name of the next step of marking in the context of a vCPU.
pub(crate) fn word<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Word {
    if state.caps.ring_entries == 0 {
        return SET_BIT;
    }
    PUSH[match state.vcpus[vcpu].push {
        push @ 0..3 => machine.wiring.push_order[usize::from(push)] as usize,
        push => usize::from(push.min(4)),
    }]
}
