//! Copying pages to the destination, in any order. A page stops being stale at the instant at which it is read.

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
    state: &State<L>,
    thread: usize,
    op: &Op,
    mut found: impl FnMut(Choice),
) {
    if matches!(op, Op::CopyAll) && state.threads[thread].stage == ENTER {
        return found(Choice::Advance);
    }
    if state.pending.is_empty() {
        return found(Choice::Advance);
    }
    for page in state.pending.iter() {
        found(Choice::Page(page));
    }
    if state.send_failures > 0 {
        for page in state.pending.iter() {
            found(Choice::SendFails(page));
        }
    }
}

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    choice: Choice,
) {
    let all = matches!(current_op(machine, state, thread), Some(Op::CopyAll));
    match choice {
        Choice::Page(page) => {
            state.pending.remove(page);
            if machine.track_spurious && !all {
                oracle::note_report(machine, state, page);
            }
            state.stale.remove(page);
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
        }
        _ => {
            if all && state.threads[thread].stage == ENTER {
                for index in 0..machine.slots.len() {
                    if state.slots.get(index).is_some_and(Slot::exists) {
                        let slot = &machine.slots[index];
                        state.pending.insert_range(slot.host, slot.npages);
                    }
                }
                state.threads[thread].stage = COPYING;
            } else {
                state.threads[thread].next_op();
            }
        }
    }
}

pub(crate) fn describe(choice: Choice, stage: u8) -> &'static str {
    match choice {
        Choice::Page(_) => "copy",
        Choice::SendFails(_) => "send-fails",
        _ if stage == ENTER => "copy-begin-or-end",
        _ => "copy-end",
    }
}
