//! The rest of a protocol: stopping and resuming vCPUs, locks, devices' logs, cancelling, finishing.

use crate::layout::Layout;
use crate::machine::{Machine, WriterLog};
use crate::mutation::Mutation;
use crate::op::Op;
use crate::pages::PageSet;
use crate::slot::Slot;
use crate::state::State;
use crate::step::Effect;
use crate::vcpu::{Exit, NO_FRAME};

pub(crate) fn ready<L: Layout>(state: &State<L>, op: &Op) -> bool {
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
        Op::Lock(lock) => state.user_locks >> lock & 1 == 0,
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
            } else if matches!(log, WriterLog::Right | WriterLog::Early) {
                state.own_log.insert(host);
            }
            if stage == 0 && log != WriterLog::None {
                state.threads[thread].stage = 1;
                return Effect::None;
            }
        }
        Op::CollectOwnLog => {
            let log = core::mem::take(&mut state.own_log);
            if !mutations.has(Mutation::AlwaysDirtyIgnored) {
                state.pending.union(&log);
            }
        }
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
                state.pending.insert(machine.host_page(frame));
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
        Op::HostAge { frame } => {
            state.present.remove(frame);
            state.writable.remove(frame);
            state.dirty_bit.remove(frame);
            state.huge.remove(frame);
        }
        Op::DropFree { frames } => {
            for &frame in &machine.frame_lists[usize::from(frames)] {
                state.pending.remove(machine.host_page(frame));
            }
        }
        Op::Checkpoint => {
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

/// The guest never runs again: what only its running could use is forgotten.
fn retire_guest<L: Layout>(machine: &Machine, state: &mut State<L>) {
    state.forget_mappings();
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
        Op::Lock(_) => "lock",
        Op::Unlock(_) => "unlock",
        Op::Cancel => "cancel",
        Op::NewDestination => "new-destination",
        Op::HostAge { .. } => "host-ages-page",
        Op::DropFree { .. } => "drop-free-pages",
        Op::Checkpoint => "checkpoint",
        Op::Finish { postcopy: true } => "switch-over",
        Op::Finish { postcopy: false } => "finish",
        _ => "nothing",
    }
}
