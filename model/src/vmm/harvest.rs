//! Harvesting rings: flags, slot, offset, page, flags again. Yield points Y22–Y26.

use crate::layout::Layout;
use crate::machine::Machine;
use crate::mutation::Mutation;
use crate::op::{HarvestWay, Into};
use crate::pages::PageSet;
use crate::ring::{F_DIRTY, F_RESET, RingEntry};
use crate::state::State;

pub(crate) const ENTER: u8 = 0;
pub(crate) const LOAD_FLAGS: u8 = 1;
pub(crate) const READ_SLOT: u8 = 2;
pub(crate) const READ_OFFSET: u8 = 3;
pub(crate) const TAKE: u8 = 4;
pub(crate) const STORE_FLAGS: u8 = 5;

#[allow(
    clippy::too_many_arguments,
    reason = "the arguments are the fields of the operation"
)]
pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    vcpu: Option<u8>,
    max: u32,
    way: HarvestWay,
    into: Into,
) {
    let stage = state.threads[thread].stage;
    if stage == ENTER {
        return enter(machine, state, thread, vcpu, way);
    }
    let at = state.threads[thread].index as usize;
    let fetch = state.vcpus[at].ring.fetch_index;
    let size = state.vcpus[at].ring.size();
    let index = if machine.mutations.has(Mutation::RingMapShort) {
        fetch & (size / 2).max(1).wrapping_sub(1)
    } else {
        fetch
    };
    let load_relaxed = machine.mutations.has(Mutation::HarvestLoadRelaxed);
    let store_relaxed = machine.mutations.has(Mutation::HarvestStoreRelaxed);
    match stage {
        LOAD_FLAGS => {
            let flags = state.vcpus[at].ring.entry(index).flags();
            let t = &mut state.threads[thread];
            if flags == F_DIRTY && t.count < max {
                t.stage = if load_relaxed {
                    TAKE
                } else if store_relaxed || way == HarvestWay::Unread {
                    STORE_FLAGS
                } else {
                    READ_SLOT
                };
            } else if way == HarvestWay::OneTooMany && t.count < max {
                t.count = max;
                let ring = &mut state.vcpus[at].ring;
                ring.entry_mut(index).set_flags(F_RESET);
            } else {
                next_ring(machine, state, thread, vcpu, way);
            }
        }
        READ_SLOT => {
            // The entry that was given back too early is the one before.
            let entry = *state.vcpus[at]
                .ring
                .entry(index.wrapping_sub(u32::from(store_relaxed)));
            let t = &mut state.threads[thread];
            t.entry_slot = entry.slot();
            t.stage = READ_OFFSET;
        }
        READ_OFFSET => {
            let entry = *state.vcpus[at]
                .ring
                .entry(index.wrapping_sub(u32::from(store_relaxed)));
            let t = &mut state.threads[thread];
            t.entry_offset = entry.offset();
            t.stage = if load_relaxed { LOAD_FLAGS } else { TAKE };
        }
        TAKE => {
            take(machine, state, thread, into);
            let t = &mut state.threads[thread];
            t.entry_slot = 0;
            t.entry_offset = 0;
            t.stage = if store_relaxed {
                first_stage(machine)
            } else {
                STORE_FLAGS
            };
        }
        _ => {
            let ring = &mut state.vcpus[at].ring;
            ring.entry_mut(index)
                .set_flags(if way == HarvestWay::WriteZero {
                    0
                } else {
                    F_RESET
                });
            ring.fetch_index = fetch.wrapping_add(1);
            let t = &mut state.threads[thread];
            t.count += 1;
            t.stage = if store_relaxed {
                READ_SLOT
            } else {
                first_stage(machine)
            };
        }
    }
}

fn first_stage(machine: &Machine) -> u8 {
    if machine.mutations.has(Mutation::HarvestLoadRelaxed) {
        READ_SLOT
    } else {
        LOAD_FLAGS
    }
}

fn enter<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    vcpu: Option<u8>,
    way: HarvestWay,
) {
    let first = usize::from(vcpu.unwrap_or(0));
    if first >= state.vcpus.len() {
        if machine.mutations.has(Mutation::ReapUncreatedVcpu) {
            state.crashed = true;
        }
        return state.threads[thread].next_op();
    }
    if state.caps.ring_entries == 0 {
        return state.threads[thread].next_op();
    }
    state.threads[thread].index = first as u32;
    begin_ring(machine, state, thread, way);
}

fn begin_ring<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize, way: HarvestWay) {
    let at = state.threads[thread].index as usize;
    if way == HarvestWay::SkipFirst {
        let ring = &mut state.vcpus[at].ring;
        if ring.entry(ring.fetch_index).flags() == F_DIRTY {
            ring.fetch_index = ring.fetch_index.wrapping_add(1);
        }
    }
    let t = &mut state.threads[thread];
    t.count = 0;
    t.stage = first_stage(machine);
}

fn next_ring<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    vcpu: Option<u8>,
    way: HarvestWay,
) {
    let vcpus = state.vcpus.len();
    let t = &mut state.threads[thread];
    t.entry_slot = 0;
    t.entry_offset = 0;
    t.index += 1;
    if vcpu.is_some() || t.index as usize == vcpus {
        t.next_op();
    } else {
        begin_ring(machine, state, thread, way);
    }
}

/// Y25: the page that was read joins the others. What names no page of a live slot is passed over.
fn take<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize, into: Into) {
    let t = &state.threads[thread];
    let Some(slot) = state.find_slot(machine, t.entry_slot) else {
        return;
    };
    let template = &machine.slots[slot];
    if t.entry_offset >= u64::from(template.npages)
        || (machine.mutations.has(Mutation::SyncFirstAddressSpace) && template.as_id != 0)
    {
        return;
    }
    let base = if machine.mutations.has(Mutation::SyncBlockOffset0) {
        0
    } else {
        template.host
    };
    let host = base + t.entry_offset as u32;
    let early = machine.mutations.has(Mutation::ReapPublishBeforeReset);
    match into {
        Into::Hand if early => state.pending.insert(host),
        Into::Pending => state.pending.insert(host),
        Into::OwnLog => state.own_log.insert(host),
        Into::Nowhere => {}
        Into::Hand => state.threads[thread].hand.insert(host),
    }
}

pub(crate) fn describe(_machine: &Machine, stage: u8) -> &'static str {
    match stage {
        ENTER => "harvest-enter",
        LOAD_FLAGS => "harvest-load-flags",
        READ_SLOT => "harvest-read-slot",
        READ_OFFSET => "harvest-read-offset",
        TAKE => "harvest-take-page",
        _ => "harvest-store-flags",
    }
}
