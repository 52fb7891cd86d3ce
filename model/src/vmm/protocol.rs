//! The rest of a protocol: stopping and resuming vCPUs, locks, devices' logs, cancelling, finishing.

use crate::device_steps;
use crate::errno::Errno;
use crate::layout::Layout;
use crate::machine::{Arch, Machine, WriterLog};
use crate::mutation::Mutation;
use crate::op::{Op, Until};
use crate::pages::PageSet;
use crate::slot::Slot;
use crate::state::State;
use crate::step::{Choice, Effect};
use crate::vcpu::{Exit, NO_FRAME};

pub(crate) fn ready<L: Layout>(machine: &Machine, state: &State<L>, op: &Op) -> bool {
    match *op {
        Op::WaitStopped => state.vcpus_stopped(),
        Op::WaitKicked => state.vcpus.iter().all(|v| !v.kicked),
        Op::WaitRingFull => state
            .vcpus
            .iter()
            .any(|v| v.is_stopped() && v.exit == Exit::DirtyRingFull),
        Op::DeviceDrain(device) => {
            let d = &state.devices[usize::from(device)];
            d.in_flight.is_empty() && d.unlogged.is_empty()
        }
        Op::JoinThread(thread) => {
            let thread = usize::from(thread);
            usize::from(state.threads[thread].op) == machine.programs[thread].len()
        }
        Op::Lock(lock) => state.user_locks >> lock & 1 == 0,
        Op::WaitRunning => state.vcpus.iter().any(|v| !v.is_stopped()),
        _ => true,
    }
}

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    op: &Op,
) -> Effect {
    let mutations = machine.mutations;
    match *op {
        Op::Publish => {
            let hand = core::mem::take(&mut state.threads[thread].hand);
            state.pending.union(&hand);
        }
        Op::Kick { stop } => {
            state.guest_runs &= !stop;
            let index = state.threads[thread].index as usize;
            if let Some(v) = state.vcpus.get_mut(index) {
                v.kicked = !v.is_stopped();
            }
            let t = &mut state.threads[thread];
            t.index += 1;
            if (t.index as usize) < state.vcpus.len() {
                return Effect::None;
            }
        }
        Op::WaitStopped => {
            let next = usize::from(state.threads[thread].op) + 1;
            let resumes = (0..machine.programs.len()).any(|other| {
                let at = if other == thread {
                    next
                } else {
                    usize::from(state.threads[other].op)
                };
                machine.ahead(other, at).resume
            });
            if !resumes {
                retire_guest(machine, state);
            }
        }
        Op::Resume => {
            state.guest_runs = true;
            for v in state.vcpus.iter_mut() {
                v.kicked = false;
            }
        }
        Op::AckRingFull => {
            for v in state.vcpus.iter_mut() {
                if v.exit == Exit::DirtyRingFull {
                    v.waits = false;
                    v.exit = Exit::None;
                }
            }
        }
        Op::UserWrite { frame, log } => {
            let host = machine.host_page(frame);
            let stage = state.threads[thread].stage;
            let data = (stage == 0) != (log == WriterLog::Early);
            if data {
                state.store(machine, host);
            } else if matches!(log, WriterLog::Right | WriterLog::Early)
                && !mutations.has(Mutation::VmmWriteNoLog)
            {
                state.own_log.insert(host);
            }
            if stage == 0 && log != WriterLog::None {
                state.threads[thread].stage = 1;
                return Effect::None;
            }
        }
        Op::CollectOwnLog => {
            let log = core::mem::take(&mut state.own_log);
            state.pending.union(&log);
        }
        Op::ResetOwnLog => state.own_log.clear(),
        Op::DeviceStart(device) => {
            let d = &mut state.devices[usize::from(device)];
            d.runs = true;
            d.started = true;
        }
        Op::DeviceStop(device) => state.devices[usize::from(device)].runs = false,
        Op::DeviceSync(device) => {
            let d = &mut state.devices[usize::from(device)];
            if !d.started && mutations.has(Mutation::DeviceSyncBeforeStart) {
                state.crashed = true;
                return Effect::None;
            }
            let log = core::mem::take(&mut d.log);
            for frame in log.iter() {
                let reported = device_steps::reported_frame(machine, usize::from(device), frame);
                if let Some(frame) = reported {
                    state.pending.insert(machine.host_page(frame));
                }
            }
        }
        Op::Lock(lock) => state.user_locks |= 1 << lock,
        Op::Unlock(lock) => state.user_locks &= !(1 << lock),
        Op::Cancel => {
            let sent = core::mem::take(&mut state.sent);
            state.stale.union(&sent);
            if mutations.has(Mutation::HarvestOnErrorDrop) {
                state.pending.clear();
            } else {
                state.pending.union(&sent);
            }
        }
        Op::NewDestination => {
            state.pending.clear();
            state.sent.clear();
            for index in 0..machine.slots.len() {
                if state.slots.get(index).is_some_and(Slot::exists) {
                    let slot = &machine.slots[index];
                    state.stale.insert_range(slot.host, slot.npages);
                }
            }
        }
        Op::Forget => state.pending.clear(),
        Op::HostAge { frame } => {
            state.present.remove(frame);
            state.writable.remove(frame);
            if machine.arch != Arch::S390 {
                state.dirty_bit.remove(frame);
            }
            state.huge.remove(frame);
        }
        Op::DropFree { frames } => {
            let late = mutations.has(Mutation::HintClearAfterLastSync);
            let frees = state.threads[thread].stage == 0;
            for &frame in &machine.frame_lists[usize::from(frames)] {
                let host = machine.host_page(frame);
                if frees {
                    state.stale.remove(host);
                } else {
                    state.pending.remove(host);
                }
            }
            if frees && !late {
                state.threads[thread].stage = 1;
                return Effect::None;
            }
        }
        Op::EndFree { frames } if mutations.has(Mutation::HintClearAfterLastSync) => {
            for &frame in &machine.frame_lists[usize::from(frames)] {
                state.pending.remove(machine.host_page(frame));
            }
        }
        Op::PublishSlot { template } => publish_slot(machine, state, thread, usize::from(template)),
        Op::MarkOwn { frames } if !mutations.has(Mutation::QueuesRemarkFalse) => {
            for &frame in &machine.frame_lists[usize::from(frames)] {
                state.own_log.insert(machine.host_page(frame));
            }
        }
        Op::TakeAlways if !mutations.has(Mutation::AlwaysDirtyIgnored) => {
            for &host in &machine.always_dirty {
                state.pending.insert(host);
            }
        }
        Op::PutBack => {
            let sent = core::mem::take(&mut state.sent);
            state.stale.union(&sent);
            let collected = core::mem::take(&mut state.pending);
            if !mutations.has(Mutation::HarvestOnErrorDrop) {
                state.own_log.union(&sent);
                state.own_log.union(&collected);
            }
        }
        Op::Discard => {
            let sent = core::mem::take(&mut state.sent);
            state.stale.union(&sent);
            state.pending.clear();
        }
        Op::OnError { to } => {
            let t = &mut state.threads[thread];
            let failed = t.answer.is_err();
            t.next_op();
            t.answer = Ok(0);
            if failed {
                // The mutated VMM gives up on the spot and leaves everything as it is.
                let gives_up = mutations.has(Mutation::FailStopLogFalse);
                t.op = if gives_up {
                    machine.programs[thread].len() as u16
                } else {
                    to
                };
            }
            return Effect::None;
        }
        Op::Again { to, until } => {
            let again = match until {
                Until::Never => true,
                Until::NothingPending => !state.pending.is_empty(),
            };
            let t = &mut state.threads[thread];
            t.next_op();
            if again {
                t.op = to;
            }
            return Effect::None;
        }
        Op::Checkpoint => {
            state.sent.clear();
            state.threads[thread].next_op();
            return Effect::Claim { postcopy: false };
        }
        Op::Finish { postcopy } => {
            state.threads[thread].next_op();
            state.finished = true;
            return Effect::Claim { postcopy };
        }
        _ => {}
    }
    state.threads[thread].next_op();
    Effect::None
}

/// A file's sync, or the like: it succeeds, or it fails and the program may look at that.
pub(crate) fn may_fail<L: Layout>(state: &mut State<L>, thread: usize, choice: Choice) {
    let failed = choice == Choice::Fail;
    state.send_failures -= u8::from(failed);
    let t = &mut state.threads[thread];
    t.next_op();
    t.answer = if failed { Err(Errno::EIO) } else { Ok(0) };
}

/// One block's bits move from the bitmap that all blocks share to those that are to be copied.
fn publish_slot<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    template: usize,
) {
    let slot = &machine.slots[template];
    let mut moved = L::Set::default();
    for host in slot.host..slot.host + slot.npages {
        if state.threads[thread].hand.contains(host) {
            moved.insert(host);
        }
    }
    let hand = &mut state.threads[thread].hand;
    if machine.mutations.has(Mutation::SyncWordSharedBlocks) {
        let bits = machine.constants.word_bits;
        let first = slot.host / bits * bits;
        let end = (slot.host + slot.npages).next_multiple_of(bits);
        hand.remove_range(first, end - first);
    } else {
        hand.subtract(&moved);
    }
    state.pending.union(&moved);
}

/// The guest never runs again: what only its running could use is forgotten.
fn retire_guest<L: Layout>(machine: &Machine, state: &mut State<L>) {
    state.forget_mappings(machine);
    for v in state.vcpus.iter_mut() {
        v.stores = 0;
        v.loads = 0;
        v.steal = 0;
        v.request = false;
        v.kicked = false;
        v.resched = false;
        v.pml_on = false;
        v.waits = false;
        v.exit = Exit::None;
        if !machine.track_spurious {
            v.frame = NO_FRAME;
            v.load = false;
        }
    }
}

pub(crate) fn describe(op: &Op, stage: u8) -> &'static str {
    match op {
        Op::Publish => "publish",
        Op::Kick { .. } => "kick-vcpu",
        Op::WaitKicked => "vcpus-kicked",
        Op::WaitStopped => "vcpus-stopped",
        Op::Resume => "resume",
        Op::WaitRingFull => "ring-full-seen",
        Op::AckRingFull => "ack-ring-full",
        Op::UserWrite { .. } if stage == 0 => "vmm-write",
        Op::UserWrite { .. } => "vmm-log",
        Op::CollectOwnLog => "collect-own-log",
        Op::DeviceStart(_) => "start-device",
        Op::DeviceStop(_) => "stop-device",
        Op::DeviceDrain(_) => "device-drained",
        Op::DeviceSync(_) => "sync-device-log",
        Op::Forget => "forget-collected",
        Op::JoinThread(_) => "thread-joined",
        Op::Lock(_) => "lock",
        Op::Unlock(_) => "unlock",
        Op::Cancel => "cancel",
        Op::NewDestination => "new-destination",
        Op::HostAge { .. } => "host-ages-page",
        Op::DropFree { .. } if stage == 0 => "guest-frees-pages",
        Op::DropFree { .. } => "drop-free-pages",
        Op::EndFree { .. } => "end-free-pages",
        Op::PublishSlot { .. } => "publish-slot",
        Op::MarkOwn { .. } => "mark-queues",
        Op::TakeAlways => "take-always-dirty",
        Op::PutBack => "put-back",
        Op::Discard => "discard",
        Op::ResetOwnLog => "reset-own-log",
        Op::TakeAll => "take-all",
        Op::MayFail => "sync",
        Op::OnError { .. } => "look-for-error",
        Op::Again { .. } => "repeat",
        Op::WaitRunning => "vcpus-running",
        Op::Checkpoint => "checkpoint",
        Op::Finish { postcopy: true } => "switch-over",
        Op::Finish { postcopy: false } => "finish",
        _ => "nothing",
    }
}
