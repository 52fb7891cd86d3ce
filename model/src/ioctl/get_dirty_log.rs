//! KVM_GET_DIRTY_LOG. Source: virt/kvm/kvm_main.c, kvm_get_dirty_log_protect(), kvm_vm_ioctl_get_dirty_log().

use crate::errno::Errno;
use crate::ioctl::{check_slot_number, find_bitmap, kick_for_pml, leave, rearm};
use crate::layout::Layout;
use crate::machine::{Arch, Machine};
use crate::mutation::Mutation;
use crate::op::Into;
use crate::pages::{PageSet, low_bits};
use crate::state::State;
use crate::step::Effect;

pub(crate) const ENTER: u8 = 0;
pub(crate) const KICK: u8 = 1;
pub(crate) const LOCK: u8 = 2;
pub(crate) const LOOK: u8 = 3;
pub(crate) const EXCHANGE: u8 = 4;
pub(crate) const REARM: u8 = 5;
pub(crate) const UNLOCK: u8 = 6;
pub(crate) const FLUSH: u8 = 7;
pub(crate) const COPY_OUT: u8 = 8;
pub(crate) const RETURN: u8 = 9;
/// The mutated order of 2010: the bits are taken after the pages were protected.
pub(crate) const EXCHANGE_LATE: u8 = 10;
/// A bitmap that is cleared as a whole after it was copied out.
pub(crate) const CLEAR_ALL: u8 = 11;
/// s390: what the leaves say is collected into the bitmap. Source: arch/s390/kvm/kvm-s390.c, kvm_arch_sync_dirty_log().
pub(crate) const COLLECT: u8 = 12;

pub(crate) fn ready<L: Layout>(state: &State<L>, thread: usize) -> bool {
    match state.threads[thread].stage {
        ENTER => state.slots_lock == 0,
        LOCK => state.mmu_lock_free(),
        _ => true,
    }
}

/// Whether the bits that the thread has taken out of the bitmap are in the scratch half and nowhere else.
pub(crate) fn holds_scratch(stage: u8) -> bool {
    (EXCHANGE..=COPY_OUT).contains(&stage) || matches!(stage, LOOK | EXCHANGE_LATE)
}

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    number: u32,
    into: Into,
    bad_pointer: bool,
) -> Effect {
    if machine.mutations.has(Mutation::SyncFirstAddressSpace) && number >> 16 != 0 {
        state.threads[thread].next_op();
        return Effect::None;
    }
    let stage = state.threads[thread].stage;
    if stage == ENTER {
        if let Err(errno) = check_slot_number(machine, state, number)
            .and_then(|()| find_bitmap(machine, state, number))
        {
            leave(state, thread, Err(errno));
            return Effect::None;
        }
        state.slots_lock = thread as u8 + 1;
        let after_kick = if state.caps.manual() { COPY_OUT } else { LOCK };
        let kicks = machine.arch == Arch::X86 && machine.pml && !state.vcpus.is_empty();
        state.threads[thread].stage = if machine.arch == Arch::S390 {
            COLLECT
        } else if kicks {
            KICK
        } else {
            after_kick
        };
        return Effect::None;
    }
    // slots_lock is held, so the slot that was found is still there.
    let Some(slot) = state.find_slot(machine, number) else {
        leave(state, thread, Err(Errno::ENOENT));
        return Effect::None;
    };
    let template = &machine.slots[slot];
    let bits = machine.constants.word_bits;
    let words = template.npages.div_ceil(bits);
    let index = state.threads[thread].index;
    let frame = template.frame + index * bits;
    match stage {
        KICK => {
            kick_for_pml(state, index as usize);
            let t = &mut state.threads[thread];
            t.index += 1;
            if t.index as usize == state.vcpus.len() {
                t.index = 0;
                t.stage = if state.caps.manual() { COPY_OUT } else { LOCK };
            }
        }
        LOCK => {
            state.mmu_lock_write = true;
            state.scratch.clear();
            state.threads[thread].stage = LOOK;
        }
        LOOK => {
            let dirty = state.bitmap.word(frame, bits);
            let tail_skipped = machine.mutations.has(Mutation::GetTailNotCleared)
                && index + 1 == words
                && !template.npages.is_multiple_of(bits);
            if dirty == 0 || tail_skipped {
                next_word(machine, state, thread, words);
            } else if late_exchange(machine) {
                state.threads[thread].stage = REARM;
            } else {
                state.threads[thread].stage = EXCHANGE;
            }
        }
        EXCHANGE => {
            let dirty = state.bitmap.word(frame, bits);
            state.bitmap.clear_word(frame, dirty);
            state.scratch.set_word(frame, dirty);
            let t = &mut state.threads[thread];
            t.any = true;
            t.stage = REARM;
        }
        REARM => {
            let dirty = if late_exchange(machine) {
                state.bitmap.word(frame, bits)
            } else {
                state.scratch.word(frame, bits)
            };
            rearm::rearm(machine, state, slot, frame, dirty);
            state.threads[thread].any = true;
            next_word(machine, state, thread, words);
        }
        UNLOCK => {
            state.mmu_lock_write = false;
            let t = &mut state.threads[thread];
            t.index = 0;
            let after = if machine.mutations.has(Mutation::GetProtectBeforeSwap) {
                EXCHANGE_LATE
            } else {
                COPY_OUT
            };
            t.stage = if t.any && !machine.mutations.has(Mutation::GetNoFlush) {
                FLUSH
            } else {
                after
            };
        }
        FLUSH => {
            rearm::flush_slot(machine, state, slot);
            state.threads[thread].stage = if machine.mutations.has(Mutation::GetProtectBeforeSwap) {
                EXCHANGE_LATE
            } else {
                COPY_OUT
            };
        }
        EXCHANGE_LATE => {
            let dirty = state.bitmap.word(frame, bits);
            state.bitmap.clear_word(frame, dirty);
            state.scratch.set_word(frame, dirty);
            let t = &mut state.threads[thread];
            t.index += 1;
            if t.index == words {
                t.index = 0;
                t.stage = COPY_OUT;
            }
        }
        COPY_OUT => {
            if bad_pointer {
                // The bits were cleared; with them in no record, they are gone.
                state.scratch.clear();
                state.threads[thread].answer = Err(Errno::EFAULT);
                state.threads[thread].stage = RETURN;
                return Effect::None;
            }
            let manual = state.caps.manual();
            // s390 copies the live bitmap and clears it as a whole afterwards. Source: kvm_vm_ioctl_get_dirty_log() there.
            let at_the_end =
                machine.arch == Arch::S390 || machine.mutations.has(Mutation::GetClearAfterCopy);
            let live = manual || at_the_end;
            let word = if live {
                state.bitmap.word(frame, bits)
            } else {
                state.scratch.word(frame, bits)
            };
            state.scratch.clear_word(frame, low_bits(bits));
            report(machine, state, thread, slot, index, word, into);
            let t = &mut state.threads[thread];
            t.index += 1;
            t.any |= word != 0;
            if t.index == words {
                t.answer = Ok(0);
                let clears = !manual && at_the_end && t.any;
                t.stage = if clears { CLEAR_ALL } else { RETURN };
            }
        }
        COLLECT => {
            let dirty = state.dirty_bit.word(frame, bits);
            state.dirty_bit.clear_word(frame, dirty);
            for vcpu in state.vcpus.iter_mut() {
                vcpu.tlb.clear_word(frame, dirty);
            }
            let mut found = dirty;
            if machine.mutations.has(Mutation::HugeQueryGarbage) {
                found &= !state.huge.word(frame, bits);
            }
            state.bitmap.set_word(frame, found);
            let t = &mut state.threads[thread];
            t.index += 1;
            if t.index == words {
                t.index = 0;
                t.stage = COPY_OUT;
            }
        }
        CLEAR_ALL => {
            state.bitmap.remove_range(template.frame, template.npages);
            state.threads[thread].stage = RETURN;
        }
        _ => {
            let answer = state.threads[thread].answer;
            leave(state, thread, answer);
            return Effect::Returned { reset: None };
        }
    }
    Effect::None
}

/// Whether a mutation takes the bits after the pages were protected, or not at all.
fn late_exchange(machine: &Machine) -> bool {
    machine.mutations.has(Mutation::GetProtectBeforeSwap)
        || machine.mutations.has(Mutation::GetClearAfterCopy)
}

fn next_word<L: Layout>(_machine: &Machine, state: &mut State<L>, thread: usize, words: u32) {
    let t = &mut state.threads[thread];
    t.index += 1;
    t.stage = if t.index == words { UNLOCK } else { LOOK };
}

/// Y44: a word reaches user space, which adds it to its own.
fn report<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    slot: usize,
    index: u32,
    word: u64,
    into: Into,
) {
    let template = &machine.slots[slot];
    let bits = machine.constants.word_bits;
    state.seen.set_word(template.frame + index * bits, word);
    let mutations = machine.mutations;
    let mut word = word;
    if mutations.has(Mutation::Granularity64) && word != 0 {
        word = low_bits(bits.min(template.npages - index * bits));
    }
    let base = if mutations.has(Mutation::SyncBlockOffset0) {
        0
    } else {
        template.host
    };
    let overwrite = mutations.has(Mutation::SyncOverwrite) && index == 0;
    let set = match into {
        Into::Pending => &mut state.pending,
        Into::Hand => &mut state.threads[thread].hand,
        Into::OwnLog => &mut state.own_log,
        Into::Nowhere => return,
    };
    if overwrite {
        set.clear();
    }
    set.set_word(base + index * bits, word);
}

pub(crate) fn describe(stage: u8) -> &'static str {
    match stage {
        ENTER => "get-enter",
        KICK => "get-kick",
        LOCK => "get-mmu-lock",
        LOOK => "get-look",
        EXCHANGE | EXCHANGE_LATE => "get-exchange",
        REARM => "get-rearm",
        UNLOCK => "get-mmu-unlock",
        FLUSH => "get-flush",
        COPY_OUT => "get-copy-out",
        CLEAR_ALL => "get-clear-all",
        COLLECT => "get-collect-leaves",
        _ => "get-return",
    }
}
