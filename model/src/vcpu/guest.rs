//! In the guest: loads and stores, by the TLB and by the leaves; and out of it.

use super::{fault, pml};
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::{Array, Layout};
use crate::state::slot::Life;
use crate::state::vcpu::{NO_FRAME, Pc, spend};
use crate::words::{Choice, Found, Frame};

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    found: Found<'_>,
) {
    let v = &state.vcpus[vcpu];
    if v.kicked || v.resched {
        found(Choice::Leave);
    }
    if v.frame != NO_FRAME {
        found(Choice::Advance);
        if v.tlb.contains(v.frame) && !leaf_lets_store(machine, state, v.frame) {
            found(Choice::Miss);
        }
        return;
    }
    let frames = &machine.vcpus[vcpu].frames;
    if v.stores > 0 {
        for &frame in frames {
            if is_live(machine, state, frame) {
                found(Choice::Store(frame));
            }
        }
    }
    if v.loads > 0 {
        for &frame in frames {
            if is_live(machine, state, frame) && !state.present.contains(frame) {
                found(Choice::Load(frame));
            }
        }
    }
}

fn is_live<L: Layout>(machine: &Machine, state: &State<L>, frame: Frame) -> bool {
    machine
        .slot_of_frame(frame)
        .is_some_and(|slot| state.slots[slot].life == Life::Live)
}

/// Whether the leaf lets a store through without a fault and without being logged.
#[inline]
fn leaf_lets_store<L: Layout>(machine: &Machine, state: &State<L>, frame: Frame) -> bool {
    state.writable.contains(frame) && (!machine.has_dirty_bits() || state.dirty_bit.contains(frame))
}

#[inline]
pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    choice: Choice,
) {
    match choice {
        Choice::Leave => {
            state.vcpus[vcpu].resched = false;
            leave(machine, state, vcpu, false);
        }
        _ => {
            begin(state, vcpu, choice);
            access(machine, state, vcpu);
        }
    }
}

/// What is accessed: another page, or the same again.
pub(crate) fn begin<L: Layout>(state: &mut State<L>, vcpu: usize, choice: Choice) {
    let v = &mut state.vcpus[vcpu];
    match choice {
        Choice::Store(frame) => {
            spend(&mut v.stores);
            v.frame = frame;
            v.load = false;
        }
        Choice::Load(frame) => {
            spend(&mut v.loads);
            v.frame = frame;
            v.load = true;
        }
        Choice::Miss => v.tlb.remove(v.frame),
        _ => {}
    }
}

/// The access in work, as far as it gets in one step.
fn access<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    let frame = v.frame;
    if v.load {
        if state.present.contains(frame) {
            v.frame = NO_FRAME;
            return;
        }
        return leave(machine, state, vcpu, true);
    }
    if v.tlb.contains(frame) {
        return retire(machine, state, vcpu);
    }
    if !state.writable.contains(frame) {
        return leave(machine, state, vcpu, true);
    }
    if machine.has_dirty_bits() && !state.dirty_bit.contains(frame) {
        // With PML the setting of the bit is logged. On s390 the leaf itself is the record; nobody is told.
        if machine.pml && v.pml_on {
            if v.pml.len() as u32 >= machine.constants.pml_entries {
                // The exit comes before the write that the buffer has no room for.
                return leave(machine, state, vcpu, false);
            }
            v.pml.push(frame);
        }
        v.tlb.insert(frame);
        state.dirty_bit.insert(frame);
        return retire(machine, state, vcpu);
    }
    // The walk fills the TLB; the store itself is a step of its own.
    v.tlb.insert(frame);
}

/// The store changes memory.
pub(crate) fn retire<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let host = machine.host_page(state.vcpus[vcpu].frame);
    state.store(machine, host);
    state.vcpus[vcpu].frame = NO_FRAME;
}

/// Out of the guest, by a fault of the access in work or without one; the PML buffer comes first.
pub(crate) fn leave<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    faulted: bool,
) {
    let present = faulted && state.present.contains(state.vcpus[vcpu].frame);
    let v = &mut state.vcpus[vcpu];
    v.stage = 0;
    v.push = 0;
    v.fast = present && !v.load && fault::has_fast_path(machine);
    v.was_absent = faulted && !present;
    v.pc = if faulted { Pc::Flush } else { Pc::FlushOnly };
    if v.pml.is_empty() {
        pml::flushed(machine, state, vcpu);
    }
}
