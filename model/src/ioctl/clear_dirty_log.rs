//! KVM_CLEAR_DIRTY_LOG. Source: virt/kvm/kvm_main.c, kvm_clear_dirty_log_protect().

use crate::errno::Errno;
use crate::ioctl::{check_slot_number, find_bitmap, kick_for_pml, leave, rearm};
use crate::layout::Layout;
use crate::machine::{Arch, Machine};
use crate::mutation::Mutation;
use crate::op::{ClearMask, Op};
use crate::pages::{PageSet, low_bits};
use crate::state::State;
use crate::step::Effect;

const ENTER: u8 = 0;
pub(crate) const KICK: u8 = 1;
const COPY_IN: u8 = 2;
pub(crate) const LOCK: u8 = 3;
const TAKE: u8 = 4;
pub(crate) const REARM: u8 = 5;
const UNLOCK: u8 = 6;
pub(crate) const FLUSH: u8 = 7;
const RETURN: u8 = 8;

pub(crate) fn ready<L: Layout>(state: &State<L>, thread: usize) -> bool {
    match state.threads[thread].stage {
        ENTER => state.slots_lock == 0,
        LOCK => state.mmu_lock_free(),
        _ => true,
    }
}

/// Checks a range, in the kernel's order.
fn check<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    number: u32,
    first_page: u64,
    num_pages: u32,
) -> Result<usize, Errno> {
    let bits = u64::from(machine.constants.word_bits);
    check_slot_number(machine, state, number)?;
    if !first_page.is_multiple_of(bits) {
        return Err(Errno::EINVAL);
    }
    let slot = find_bitmap(machine, state, number)?;
    let npages = u64::from(machine.slots[slot].npages);
    let num_pages = u64::from(num_pages);
    if first_page > npages
        || num_pages > npages - first_page
        || (!num_pages.is_multiple_of(bits) && first_page + num_pages != npages)
    {
        return Err(Errno::EINVAL);
    }
    Ok(slot)
}

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    op: &Op,
) -> Effect {
    let Op::ClearDirtyLog {
        slot: number,
        first_page,
        num_pages,
        mask,
        bad_pointer,
    } = *op
    else {
        return Effect::None;
    };
    let stage = state.threads[thread].stage;
    if stage == ENTER {
        let without_bitmap = state
            .find_slot(machine, number)
            .is_some_and(|slot| state.slots[slot].logging && !state.slots[slot].bitmap);
        if without_bitmap && machine.mutations.has(Mutation::SlotRecreateDropBitmap) {
            state.crashed = true;
            return Effect::None;
        }
        match check(machine, state, number, first_page, num_pages) {
            Err(errno) => leave(state, thread, Err(errno)),
            Ok(_) => {
                state.slots_lock = thread as u8 + 1;
                let kicks = machine.arch == Arch::X86 && machine.pml && !state.vcpus.is_empty();
                state.threads[thread].stage = if kicks { KICK } else { COPY_IN };
            }
        }
        return Effect::None;
    }
    let Some(slot) = state.find_slot(machine, number) else {
        leave(state, thread, Err(Errno::ENOENT));
        return Effect::None;
    };
    let template = &machine.slots[slot];
    let bits = machine.constants.word_bits;
    let mutations = machine.mutations;
    let words = if mutations.has(Mutation::ClearRoundFloor) {
        num_pages / bits
    } else {
        num_pages.div_ceil(bits)
    };
    // The range was checked, so that it lies inside the slot.
    let first = template.frame + first_page as u32;
    let index = state.threads[thread].index;
    let frame = first + index * bits;
    match stage {
        KICK => {
            kick_for_pml(state, index as usize);
            let t = &mut state.threads[thread];
            t.index += 1;
            if t.index as usize == state.vcpus.len() {
                t.index = 0;
                t.stage = COPY_IN;
            }
        }
        COPY_IN => {
            state.threads[thread].answer = Ok(0);
            if bad_pointer {
                state.threads[thread].answer = Err(Errno::EFAULT);
                state.threads[thread].stage = RETURN;
                return Effect::None;
            }
            state.scratch.clear();
            for word in 0..num_pages.div_ceil(bits) {
                let range = (first, num_pages);
                let given = given_word(machine, state, mask, slot, range, first + word * bits);
                state.scratch.set_word(first + word * bits, given);
            }
            let t = &mut state.threads[thread];
            t.stage = LOCK;
            t.index = 0;
        }
        LOCK => {
            state.mmu_lock_write = true;
            state.threads[thread].stage = if words == 0 { UNLOCK } else { TAKE };
        }
        TAKE => {
            let given = state.scratch.word(frame, bits);
            let dirty = state.bitmap.word(frame, bits) & given;
            state.bitmap.clear_word(frame, given);
            state.scratch.clear_word(frame, given & !dirty);
            state.seen.clear_word(frame, given);
            let t = &mut state.threads[thread];
            if dirty == 0 {
                t.index += 1;
                t.stage = if t.index == words { UNLOCK } else { TAKE };
            } else {
                t.any = true;
                t.stage = REARM;
            }
        }
        REARM => {
            let dirty = state.scratch.word(frame, bits);
            if !mutations.has(Mutation::ClearNoRearm) {
                rearm::rearm(machine, state, slot, frame, dirty);
            }
            let t = &mut state.threads[thread];
            t.index += 1;
            t.stage = if t.index == words { UNLOCK } else { TAKE };
        }
        UNLOCK => {
            state.mmu_lock_write = false;
            state.scratch.clear();
            let t = &mut state.threads[thread];
            t.stage = if t.any { FLUSH } else { RETURN };
        }
        FLUSH => {
            rearm::flush_slot(machine, state, slot);
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

/// Y46: the word of user space's mask for the pages from `frame` on; `range` is where the range begins, and its pages.
fn given_word<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    mask: ClearMask,
    slot: usize,
    range: (u32, u32),
    frame: u32,
) -> u64 {
    let bits = machine.constants.word_bits;
    let template = &machine.slots[slot];
    if machine.mutations.has(Mutation::ClearMaskSeenFalse) {
        return low_bits(bits);
    }
    // The mutated kernel reads the mask that belongs to the start of the slot.
    let from = if machine.mutations.has(Mutation::ClearSrcRangeSlot) {
        template.frame + (frame - range.0)
    } else if machine.mutations.has(Mutation::ClearStartLast) && range.0 > template.frame {
        frame.saturating_sub(range.1).max(template.frame)
    } else {
        frame
    };
    match mask {
        ClearMask::All => low_bits(bits),
        ClearMask::Seen => state.seen.word(from, bits),
        ClearMask::List(list) => {
            // The list is in ascending order, so that a large one costs a search a word.
            let pages = &machine.frame_lists[usize::from(list)];
            let start = pages.partition_point(|page| *page < from);
            let inside = pages[start..]
                .iter()
                .take_while(|page| **page - from < bits);
            inside.fold(0, |word, page| word | 1 << (page - from))
        }
    }
}

pub(crate) fn describe(stage: u8) -> &'static str {
    match stage {
        ENTER => "clear-enter",
        KICK => "clear-kick",
        COPY_IN => "clear-copy-in",
        LOCK => "clear-mmu-lock",
        TAKE => "clear-take-bits",
        REARM => "clear-rearm",
        UNLOCK => "clear-mmu-unlock",
        FLUSH => "clear-flush",
        _ => "clear-return",
    }
}
