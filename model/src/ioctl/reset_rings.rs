//! KVM_RESET_DIRTY_RINGS. Source: virt/kvm/dirty_ring.c, kvm_dirty_ring_reset(); kvm_main.c, kvm_vm_ioctl_reset_dirty_pages().

use crate::errno::Errno;
use crate::ioctl::{leave, rearm};
use crate::layout::Layout;
use crate::machine::Machine;
use crate::mutation::Mutation;
use crate::pages::low_bits;
use crate::ring::{F_RESET, RingEntry};
use crate::state::State;
use crate::step::{Choice, Effect, ResetCount};
use crate::thread::Batch;
use crate::vcpu_steps::soft_limit;

pub(crate) const ENTER: u8 = 0;
pub(crate) const LOAD_FLAGS: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const FREE: u8 = 3;
pub(crate) const ADVANCE: u8 = 4;
pub(crate) const REARM: u8 = 5;
pub(crate) const UNLOCK: u8 = 6;
pub(crate) const FLUSH: u8 = 7;
pub(crate) const RETURN: u8 = 8;
/// The mutated RESET clears a request that it has seen to be needless before.
pub(crate) const CLEAR_REQUEST: u8 = 9;

pub(crate) fn ready<L: Layout>(state: &State<L>, thread: usize) -> bool {
    match state.threads[thread].stage {
        ENTER => state.slots_lock == 0,
        REARM => state.mmu_lock_free(),
        _ => true,
    }
}

/// Whether a signal can make the loop leave here: the test is made before every entry.
pub(crate) fn may_be_signalled<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    signal: bool,
) -> bool {
    signal && machine.kernel.reset_signal_exit() && state.threads[thread].stage == LOAD_FLAGS
}

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    choice: Choice,
) -> Effect {
    let mutations = machine.mutations;
    let stage = state.threads[thread].stage;
    let vcpu = state.threads[thread].index as usize;
    match stage {
        ENTER => {
            if state.caps.ring_entries == 0 {
                leave(state, thread, Err(Errno::EINVAL));
                return Effect::None;
            }
            state.slots_lock = thread as u8 + 1;
            state.threads[thread].stage = if state.vcpus.is_empty() {
                UNLOCK
            } else {
                first_stage(machine)
            };
        }
        LOAD_FLAGS if choice == Choice::Signal => {
            // The loop returns here: the batch that it has gathered is not re-armed.
            let t = &mut state.threads[thread];
            t.signal = true;
            t.batch = Batch::default();
            t.stage = UNLOCK;
        }
        LOAD_FLAGS => {
            let ring = &state.vcpus[vcpu].ring;
            let harvested = ring.entry(ring.reset_index).flags() & F_RESET != 0;
            let relaxed = mutations.has(Mutation::ResetOrderRelaxed);
            if harvested {
                state.threads[thread].stage = if relaxed { FREE } else { READ };
                return Effect::None;
            }
            if relaxed {
                forget_entry(&mut state.threads[thread]);
            }
            if state.threads[thread].batch.mask != 0 {
                state.threads[thread].stage = REARM;
            } else {
                end_of_ring(machine, state, thread);
            }
        }
        READ => {
            let ring = &state.vcpus[vcpu].ring;
            let entry = *ring.entry(ring.reset_index);
            let t = &mut state.threads[thread];
            t.entry_slot = entry.slot();
            t.entry_offset = entry.offset();
            t.stage = if mutations.has(Mutation::ResetOrderRelaxed) {
                LOAD_FLAGS
            } else {
                FREE
            };
        }
        FREE => {
            // From here on a push may use the entry again, although its page is not re-armed yet.
            let ring = &mut state.vcpus[vcpu].ring;
            let index = ring.reset_index;
            ring.entry_mut(index).set_flags(0);
            state.threads[thread].stage = ADVANCE;
        }
        ADVANCE => {
            let ring = &mut state.vcpus[vcpu].ring;
            ring.reset_index = ring.reset_index.wrapping_add(1);
            let span = machine.constants.reset_batch_pages;
            let t = &mut state.threads[thread];
            t.count += 1;
            t.freed += 1;
            if merge(&mut t.batch, t.entry_slot, t.entry_offset, span) {
                forget_entry(t);
                t.stage = first_stage(machine);
            } else {
                // The entry in work waits for the batch before it.
                t.any = true;
                t.stage = REARM;
            }
        }
        REARM => {
            let batch = state.threads[thread].batch;
            rearm_batch(machine, state, batch);
            let t = &mut state.threads[thread];
            if t.any {
                t.any = false;
                t.batch = Batch {
                    slot: t.entry_slot,
                    offset: t.entry_offset,
                    mask: 1,
                };
                forget_entry(t);
                t.stage = first_stage(machine);
            } else {
                t.batch = Batch::default();
                end_of_ring(machine, state, thread);
            }
        }
        CLEAR_REQUEST => {
            state.vcpus[vcpu].request = false;
            next_ring(machine, state, thread);
        }
        UNLOCK => {
            state.slots_lock = 0;
            let narrow = mutations.has(Mutation::ResetCountNarrow);
            let t = &mut state.threads[thread];
            if narrow {
                t.count %= 2;
            }
            let flush = t.count > 0 && !mutations.has(Mutation::ResetNoFlush);
            t.stage = if flush { FLUSH } else { RETURN };
        }
        FLUSH => {
            state.flush_tlbs();
            state.threads[thread].stage = RETURN;
        }
        _ => {
            let t = &state.threads[thread];
            let count = ResetCount {
                told: t.count,
                freed: t.freed,
            };
            leave(state, thread, Ok(count.told));
            return Effect::Returned { reset: Some(count) };
        }
    }
    Effect::None
}

fn forget_entry<L: Layout>(t: &mut crate::thread::Thread<L>) {
    t.entry_slot = 0;
    t.entry_offset = 0;
}

fn end_of_ring<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize) {
    let vcpu = state.threads[thread].index as usize;
    let ring = &state.vcpus[vcpu].ring;
    let soft_full = ring.used() >= soft_limit(machine, ring.size());
    if machine.mutations.has(Mutation::ResetClearsRequest) && !soft_full {
        state.threads[thread].stage = CLEAR_REQUEST;
    } else {
        next_ring(machine, state, thread);
    }
}

fn next_ring<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize) {
    let vcpus = state.vcpus.len();
    let t = &mut state.threads[thread];
    t.index += 1;
    t.stage = if t.index as usize == vcpus {
        UNLOCK
    } else {
        first_stage(machine)
    };
}

/// What RESET does first with an entry: its flags tell whether the rest means anything.
fn first_stage(machine: &Machine) -> u8 {
    if machine.mutations.has(Mutation::ResetOrderRelaxed) {
        READ
    } else {
        LOAD_FLAGS
    }
}

/// Takes an entry into the batch if it lies in the same slot and within the batch's span, on either side.
fn merge(batch: &mut Batch, slot: u32, offset: u64, span: u32) -> bool {
    if batch.mask == 0 {
        *batch = Batch {
            slot,
            offset,
            mask: 1,
        };
        return true;
    }
    if batch.slot != slot {
        return false;
    }
    let delta = i128::from(offset) - i128::from(batch.offset);
    if (0..i128::from(span)).contains(&delta) {
        batch.mask |= 1 << delta;
        return true;
    }
    if (1 - i128::from(span)..0).contains(&delta) {
        let shift = (-delta) as u32;
        let shifted = batch.mask << shift & low_bits(span);
        if shifted >> shift == batch.mask {
            *batch = Batch {
                slot,
                offset,
                mask: shifted | 1,
            };
            return true;
        }
    }
    false
}

/// Re-arms a batch, if its slot is still there and it lies inside; else nothing is re-armed.
/// Source: virt/kvm/dirty_ring.c, kvm_reset_dirty_gfn().
fn rearm_batch<L: Layout>(machine: &Machine, state: &mut State<L>, batch: Batch) {
    let Some(slot) = state.find_slot(machine, batch.slot) else {
        return;
    };
    let template = &machine.slots[slot];
    let npages = u64::from(template.npages);
    let highest = u64::from(63 - batch.mask.leading_zeros());
    if batch.offset >= npages || batch.offset + highest >= npages {
        return;
    }
    rearm::rearm(
        machine,
        state,
        slot,
        template.frame + batch.offset as u32,
        batch.mask,
    );
}

pub(crate) fn describe(stage: u8, choice: Choice) -> &'static str {
    match stage {
        ENTER => "reset-enter",
        LOAD_FLAGS if choice == Choice::Signal => "reset-signal",
        LOAD_FLAGS => "reset-load-flags",
        READ => "reset-read-entry",
        FREE => "reset-free-entry",
        ADVANCE => "reset-index",
        REARM => "reset-rearm",
        CLEAR_REQUEST => "reset-clear-request",
        UNLOCK => "reset-unlock",
        FLUSH => "reset-flush",
        _ => "reset-return",
    }
}
