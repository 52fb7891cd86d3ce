//! Copying pages to the destination, in any order. A page stops being stale at the instant at which it is read.

use crate::errno::Errno;
use crate::layout::Layout;
use crate::machine::Machine;
use crate::mutation::Mutation;
use crate::op::Op;
use crate::oracle;
use crate::pages::PageSet;
use crate::slot::Slot;
use crate::state::State;
use crate::step::Choice;
use crate::thread_steps::current_op;

pub(crate) const ENTER: u8 = 0;
pub(crate) const COPYING: u8 = 1;

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    op: &Op,
    mut found: impl FnMut(Choice),
) {
    if enters(machine, op) && state.threads[thread].stage == ENTER {
        return found(Choice::Advance);
    }
    let list = match op {
        Op::CopyList { frames } => Some(&machine.frame_lists[usize::from(*frames)]),
        _ => None,
    };
    let wanted = |page: u32| {
        list.is_none_or(|frames| frames.iter().any(|&frame| machine.host_page(frame) == page))
    };
    let mut none = true;
    for page in state.pending.iter().filter(|page| wanted(*page)) {
        none = false;
        found(Choice::Page(page));
        if state.send_failures > 0 {
            found(Choice::SendFails(page));
        }
    }
    if none {
        found(Choice::Advance);
    }
}

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    choice: Choice,
) {
    let op = current_op(machine, state, thread).copied();
    let all = matches!(op, Some(Op::CopyAll));
    match choice {
        Choice::Page(page) => {
            state.pending.remove(page);
            if machine.track_spurious && !all {
                oracle::note_report(machine, state, page);
            }
            if !lands_elsewhere(machine, state, thread, page) {
                state.stale.remove(page);
            }
            if machine.track_sent {
                state.sent.insert(page);
            }
        }
        Choice::SendFails(page) => {
            // The page stays stale, and a VMM that drops it here loses it.
            state.send_failures -= 1;
            if machine.mutations.has(Mutation::HarvestOnErrorDrop) {
                state.pending.remove(page);
            }
            if checks_answer(machine, state, thread) {
                let t = &mut state.threads[thread];
                t.next_op();
                t.answer = Err(Errno::EIO);
            }
        }
        _ => {
            if op.is_some_and(|op| enters(machine, &op)) && state.threads[thread].stage == ENTER {
                if all {
                    take_all(machine, state);
                }
                state.threads[thread].index = misplaced_from(machine, state) as u32;
                state.threads[thread].stage = COPYING;
            } else {
                let checked = checks_answer(machine, state, thread);
                let t = &mut state.threads[thread];
                t.next_op();
                if checked {
                    t.answer = Ok(0);
                }
            }
        }
    }
}

/// Whether the copy has a step of its own before its first page.
fn enters(machine: &Machine, op: &Op) -> bool {
    matches!(op, Op::CopyAll) || machine.mutations.has(Mutation::WriterTailSkipFalse)
}

/// Whether the program looks at how this operation went, so that the first send that fails ends it.
fn checks_answer<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    let next = usize::from(state.threads[thread].op) + 1;
    matches!(machine.programs[thread].get(next), Some(Op::OnError { .. }))
}

pub(crate) fn take_everything<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize) {
    take_all(machine, state);
    state.threads[thread].next_op();
}

/// Every page is to be copied; the mutated VMM asks which ones are resident.
fn take_all<L: Layout>(machine: &Machine, state: &mut State<L>) {
    let resident_only = machine.mutations.has(Mutation::SourceResident);
    for index in 0..machine.slots.len() {
        if !state.slots.get(index).is_some_and(Slot::exists) {
            continue;
        }
        let slot = &machine.slots[index];
        for offset in 0..slot.npages {
            if !resident_only || state.present.contains(slot.frame + offset) {
                state.pending.insert(slot.host + offset);
            }
        }
    }
}

/// The first slot that a file's cursor, which was not moved past the clean tail of a slot before it, puts at a wrong place.
fn misplaced_from<L: Layout>(machine: &Machine, state: &State<L>) -> usize {
    if !machine.mutations.has(Mutation::WriterTailSkipFalse) {
        return 0;
    }
    machine
        .slots
        .iter()
        .position(|slot| !state.pending.contains(slot.host + slot.npages - 1))
        .map_or(machine.slots.len(), |slot| slot + 1)
}

/// Whether the page is written to a wrong place of the destination.
fn lands_elsewhere<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    page: u32,
) -> bool {
    machine.mutations.has(Mutation::WriterTailSkipFalse)
        && machine
            .slots
            .iter()
            .skip(state.threads[thread].index as usize)
            .any(|slot| (slot.host..slot.host + slot.npages).contains(&page))
}

pub(crate) fn describe(choice: Choice, stage: u8) -> &'static str {
    match choice {
        Choice::Page(_) => "copy",
        Choice::SendFails(_) => "send-fails",
        _ if stage == ENTER => "copy-begin-or-end",
        _ => "copy-end",
    }
}
