//! What a wrong VMM does by itself.

use crate::machine::{Machine, Op, WriterLog};
use crate::op::Act;
use crate::op::cancel::forget_sent;
use crate::op::copy::{COPYING, take_all};
use crate::op::free_pages::drop_pending;
use crate::state::State;
use crate::state::layout::Layout;
use crate::words::{Choice, Effect, Found, HostPage, Mutation};

/// A snapshot's writer looks at what there is to copy before its first page.
pub(super) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    found: Found<'_>,
) -> bool {
    let begins = machine.mutations.has(Mutation::WriterTailSkipFalse)
        && state.threads[thread].stage == 0
        && matches!(
            state.current_op(machine, thread),
            Some(Op::Copy | Op::CopyAll | Op::CopyList(_))
        );
    if begins {
        found(Choice::Advance);
    }
    begins
}

pub(super) fn copy<L: Layout>(
    mut act: Act<'_, L>,
    op: &Op,
    choice: Choice,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let machine = act.machine;
    let has = |mutation| machine.mutations.has(mutation);
    let skips_tail = has(Mutation::WriterTailSkipFalse);
    match choice {
        Choice::Page(page) => {
            let stale = act.state.stale.contains(page);
            let elsewhere = skips_tail && lands_elsewhere(&mut act, page);
            right(act.state);
            if stale && elsewhere {
                act.state.stale.insert(page);
            }
        }
        Choice::SendFails(page) => {
            if has(Mutation::HarvestOnErrorDrop) {
                act.state.pending.remove(page);
            }
            right(act.state);
        }
        _ => {
            let begins = act.stage() == 0 && (skips_tail || *op == Op::CopyAll);
            if matches!(op, Op::CopyAll | Op::TakeAll) && act.stage() == 0 {
                // The mutated VMM asks which pages are resident.
                let present = act.state.present.clone();
                let resident = has(Mutation::SourceResident);
                take_all(&mut act, |frame| !resident || present.contains(frame));
            }
            match op {
                Op::TakeAll => return act.next_op(),
                _ if !begins => return right(act.state),
                _ => {}
            }
            let from = if skips_tail {
                misplaced_from(machine, act.state)
            } else {
                0
            };
            act.thread().index = from as u32;
            act.go(COPYING);
        }
    }
    Effect::None
}

/// The first slot that a file's cursor, which was not moved past the clean tail of a slot before it, puts at a wrong place.
fn misplaced_from<L: Layout>(machine: &Machine, state: &State<L>) -> usize {
    let clean_tail = |host: HostPage| !state.pending.contains(host);
    machine
        .slots
        .iter()
        .position(|slot| clean_tail(slot.host + (slot.npages - 1)))
        .map_or(machine.slots.len(), |slot| slot + 1)
}

/// Whether the page is written to a wrong place of the destination.
fn lands_elsewhere<L: Layout>(act: &mut Act<'_, L>, page: HostPage) -> bool {
    let from = act.thread().index as usize;
    let behind = act.machine.slots.iter().skip(from);
    behind.into_iter().any(|slot| slot.has_host(page))
}

pub(super) fn step<L: Layout>(
    mut act: Act<'_, L>,
    op: &Op,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let machine = act.machine;
    let has = |mutation| machine.mutations.has(mutation);
    let stage = act.stage();
    match op {
        Op::UserWrite(write) if has(Mutation::VmmWriteNoLog) => {
            let logs = (stage == 0) == (write.log == WriterLog::Early);
            let own_log = act.state.own_log.clone();
            let effect = right(act.state);
            if logs {
                act.state.own_log = own_log;
            }
            effect
        }
        Op::DropFree(_) if stage == 0 && has(Mutation::HintClearAfterLastSync) => {
            right(act.state);
            act.next_op()
        }
        Op::EndFree(end) if has(Mutation::HintClearAfterLastSync) => {
            drop_pending(&mut act, end.frames);
            act.next_op()
        }
        Op::PublishSlot(publish) if has(Mutation::SyncWordSharedBlocks) => {
            let slot = &machine.slots[usize::from(publish.template)];
            let bits = machine.constants.word_bits;
            let first = HostPage(slot.host.0 / bits * bits);
            let end = HostPage((slot.host + slot.npages).0.next_multiple_of(bits));
            let effect = right(act.state);
            act.thread().hand.remove_range(first, end - first);
            effect
        }
        Op::MarkOwn(_) if has(Mutation::QueuesRemarkFalse) => act.next_op(),
        Op::TakeAlways if has(Mutation::AlwaysDirtyIgnored) => act.next_op(),
        Op::Cancel | Op::PutBack if has(Mutation::HarvestOnErrorDrop) => {
            forget_sent(&mut act);
            act.state.pending.clear();
            act.next_op()
        }
        Op::OnError(_) if has(Mutation::FailStopLogFalse) && act.thread().answer.is_err() => {
            // It gives up on the spot and leaves everything as it is.
            let end = machine.programs[act.index].len() as u16;
            act.leave(Ok(0));
            act.thread().op = end;
            Effect::None
        }
        _ => right(act.state),
    }
}
