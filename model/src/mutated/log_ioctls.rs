//! GET and CLEAR, wrong; and what a wrong VMM makes of the bits.

use super::memory::first_only;
use crate::kernel::rearm;
use crate::op::get_dirty_log::{
    COLLECT, COPY_OUT, ENTER, EXCHANGE, FLUSH, LOOK, REARM, UNLOCK, next_word, words,
};
use crate::op::{Act, ClearDirtyLog, ClearMask, GetDirtyLog, clear_dirty_log as clear_log};
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::pages::low_bits;
use crate::words::{Arch, Effect, Frame, HostPage, Mutation};

/// The order of 2010: the bits are taken after the pages were protected.
pub(super) const EXCHANGE_LATE: u8 = 12;

pub(super) fn get<L: Layout>(
    mut act: Act<'_, L>,
    get: &GetDirtyLog,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let (machine, stage) = (act.machine, act.stage());
    let has = |mutation| machine.mutations.has(mutation);
    if has(Mutation::SyncFirstAddressSpace) && get.slot >> 16 != 0 {
        // Nobody calls, and nobody is refused.
        return act.leave(Ok(0));
    }
    let Some(slot) = act
        .state
        .find_slot(machine, get.slot)
        .filter(|_| stage != ENTER)
    else {
        return right(act.state);
    };
    let swaps_late = has(Mutation::GetProtectBeforeSwap);
    let takes_late = swaps_late || has(Mutation::GetClearAfterCopy);
    let bits = machine.constants.word_bits;
    let (words, frame) = words(&act, slot);
    let npages = machine.slots[slot].npages;
    match stage {
        LOOK => {
            let tail = act.thread().index + 1 == words && !npages.is_multiple_of(bits);
            if tail && has(Mutation::GetTailNotCleared) {
                return next_word(&mut act, words);
            }
            let effect = right(act.state);
            if takes_late && act.stage() == EXCHANGE {
                return act.go(REARM);
            }
            effect
        }
        REARM => {
            let dirty = if takes_late {
                act.state.bitmap.word(frame, bits)
            } else {
                act.state.scratch.word(frame, bits)
            };
            rearm::rearm(machine, act.state, slot, frame, first_only(machine, dirty));
            act.thread().any = true;
            next_word(&mut act, words)
        }
        UNLOCK | FLUSH => {
            right(act.state);
            if has(Mutation::GetNoFlush) && act.stage() == FLUSH {
                act.go(COPY_OUT);
            }
            if swaps_late && act.stage() == COPY_OUT {
                act.go(EXCHANGE_LATE);
            }
            Effect::None
        }
        EXCHANGE_LATE => {
            let dirty = act.state.bitmap.word(frame, bits);
            act.state.bitmap.clear_word(frame, dirty);
            act.state.scratch.set_word(frame, dirty);
            let t = act.thread();
            t.index += 1;
            if t.index == words {
                t.index = 0;
                t.stage = COPY_OUT;
            }
            Effect::None
        }
        COPY_OUT => {
            let live = machine.arch == Arch::S390 || has(Mutation::GetClearAfterCopy);
            match get.copy_out(&mut act, slot, live) {
                Some(word) => {
                    receive(&mut act, get, slot, word);
                    get.copied(act, slot, live, word)
                }
                None => Effect::None,
            }
        }
        COLLECT if has(Mutation::HugeQueryGarbage) => {
            let before = act.state.bitmap.word(frame, bits);
            let unseen = act.state.dirty_bit.word(frame, bits) & act.state.huge.word(frame, bits);
            right(act.state);
            act.state.bitmap.clear_word(frame, unseen & !before);
            Effect::None
        }
        _ => right(act.state),
    }
}

/// A word reaches a VMM that may take it for other pages, or in place of what it had.
fn receive<L: Layout>(act: &mut Act<'_, L>, get: &GetDirtyLog, slot: usize, word: u64) {
    let machine = act.machine;
    let has = |mutation| machine.mutations.has(mutation);
    let (template, bits) = (&machine.slots[slot], machine.constants.word_bits);
    let (_, frame) = words(act, slot);
    let offset = frame - template.frame;
    act.state.seen.set_word(frame, word);
    let taken = if has(Mutation::Granularity64) && word != 0 {
        low_bits(bits.min(template.npages - offset))
    } else {
        word
    };
    let base = if has(Mutation::SyncBlockOffset0) {
        HostPage(0)
    } else {
        template.host
    };
    let overwrites = has(Mutation::SyncOverwrite) && offset == 0;
    if let Some(set) = act.collected(get.into) {
        if overwrites {
            set.clear();
        }
        set.set_word(base + offset, taken);
    }
}

pub(super) fn clear<L: Layout>(
    mut act: Act<'_, L>,
    clear: &ClearDirtyLog,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let (machine, stage) = (act.machine, act.stage());
    let has = |mutation| machine.mutations.has(mutation);
    let found = act.state.find_slot(machine, clear.slot);
    if stage == clear_log::ENTER {
        let without_bitmap = found.is_some_and(|slot| {
            let slot = act.state.slots[slot];
            slot.logging && !slot.bitmap
        });
        if without_bitmap && has(Mutation::SlotRecreateDropBitmap) {
            act.state.crashed = true;
            return Effect::None;
        }
        return right(act.state);
    }
    let Some(slot) = found else {
        return right(act.state);
    };
    let bits = machine.constants.word_bits;
    let template = &machine.slots[slot];
    match stage {
        clear_log::COPY_IN => {
            let unseen = ClearDirtyLog {
                mask: ClearMask::All,
                ..*clear
            };
            let given = if has(Mutation::ClearMaskSeenFalse) {
                &unseen
            } else {
                clear
            };
            let first = clear.first(machine, slot);
            // The bits of the start of the slot, or of the range before this one.
            given.copy_in(act, slot, |frame| {
                if has(Mutation::ClearSrcRangeSlot) {
                    template.frame + (frame - first)
                } else if has(Mutation::ClearStartLast) && first > template.frame {
                    Frame(frame.0.saturating_sub(clear.num_pages)).max(template.frame)
                } else {
                    frame
                }
            })
        }
        clear_log::REARM => {
            let frame = clear.frame(&act, slot);
            let dirty = act.state.scratch.word(frame, bits);
            if !has(Mutation::ClearNoRearm) {
                rearm::rearm(machine, act.state, slot, frame, first_only(machine, dirty));
            }
            clear_log::next_word(&mut act, clear.num_pages.div_ceil(bits));
            round(&mut act, clear)
        }
        clear_log::LOCK | clear_log::TAKE => {
            right(act.state);
            round(&mut act, clear)
        }
        _ => right(act.state),
    }
}

/// A range that is rounded down to whole words ends before its last, partial one.
fn round<L: Layout>(act: &mut Act<'_, L>, clear: &ClearDirtyLog) -> Effect {
    let words = clear.num_pages / act.machine.constants.word_bits;
    let ends = act.stage() == clear_log::TAKE && act.thread().index == words;
    if ends && act.machine.mutations.has(Mutation::ClearRoundFloor) {
        return act.go(clear_log::UNLOCK);
    }
    Effect::None
}
