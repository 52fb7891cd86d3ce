//! What a device does: submit a transfer, land its bytes in memory, log them.

use crate::layout::Layout;
use crate::machine::{Machine, WriterLog};
use crate::mutation::Mutation;
use crate::pages::PageSet;
use crate::slot::Life;
use crate::state::State;
use crate::step::Choice;

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    device: usize,
    mut found: impl FnMut(Choice),
) {
    let d = &state.devices[device];
    if d.runs && d.budget > 0 {
        for &frame in &machine.devices[device].frames {
            let live = machine
                .slot_of_frame(frame)
                .is_some_and(|slot| state.slots[slot].life == Life::Live);
            if live && !d.in_flight.contains(frame) && !d.unlogged.contains(frame) {
                found(Choice::Store(frame));
            }
        }
    }
    for frame in d.in_flight.iter() {
        found(Choice::Page(frame));
    }
    for frame in d.unlogged.iter() {
        found(Choice::Load(frame));
    }
}

/// Submits ([`Choice::Store`]), lands ([`Choice::Page`]) or logs ([`Choice::Load`]) a transfer to a frame.
#[inline]
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    device: usize,
    choice: Choice,
) {
    let config = &machine.devices[device];
    let log = log_way(machine, device);
    match choice {
        Choice::Store(frame) => {
            let d = &mut state.devices[device];
            d.budget -= 1;
            d.in_flight.insert(frame);
            if log == WriterLog::Early {
                record(machine, state, device, frame, log);
            }
        }
        Choice::Page(frame) => {
            let host = machine.host_page(frame);
            state.store(machine, host);
            let is_used_ring = config.used_ring == Some(frame);
            let d = &mut state.devices[device];
            d.in_flight.remove(frame);
            if is_used_ring || matches!(log, WriterLog::Right | WriterLog::WrongSpace) {
                d.unlogged.insert(frame);
            }
            if let Some(used) = config.used_ring.filter(|_| !is_used_ring) {
                // The transfer is announced in the used ring, which is memory like any other.
                d.in_flight.insert(used);
            }
        }
        Choice::Load(frame) => {
            state.devices[device].unlogged.remove(frame);
            record(machine, state, device, frame, log);
        }
        _ => {}
    }
}

/// How the device's transfers are logged, mutations included.
fn log_way(machine: &Machine, device: usize) -> WriterLog {
    let mutations = machine.mutations;
    if mutations.has(Mutation::DeviceAsyncNever) {
        WriterLog::None
    } else if mutations.has(Mutation::DeviceAsyncAtSubmit) {
        WriterLog::Early
    } else {
        machine.devices[device].log
    }
}

/// The record of a transfer reaches the log that the device keeps.
fn record<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    device: usize,
    frame: u32,
    log: WriterLog,
) {
    let config = &machine.devices[device];
    let Some(logged) = logged_frame(machine, device, frame, log) else {
        return;
    };
    let Some(slot) = machine.slot_of_frame(logged) else {
        return;
    };
    let slot = &machine.slots[slot];
    let (first, count) = config.recorded_with(logged, slot.frame);
    for page in first..(first + count).min(slot.frame + slot.npages) {
        if config.vmm_log {
            state.own_log.insert(machine.host_page(page));
        } else {
            state.devices[device].log.insert(page);
        }
    }
}

/// The frame that the log gets for `frame`, if it gets one: an address beyond the log is written where nobody looks.
fn logged_frame(machine: &Machine, device: usize, frame: u32, log: WriterLog) -> Option<u32> {
    let config = &machine.devices[device];
    let mutations = machine.mutations;
    let used_ring = config.used_ring == Some(frame);
    if mutations.has(Mutation::DeviceLogQueue0) {
        let queues = usize::from(config.queues.max(1));
        let index = config.frames.iter().position(|known| *known == frame);
        if index.is_some_and(|index| index % queues != 0) {
            return None;
        }
    }
    let by_iova = log == WriterLog::WrongSpace
        || (used_ring && mutations.has(Mutation::DeviceLogUsedRingIova))
        || (!used_ring && mutations.has(Mutation::DeviceLogSpaceIova));
    let shift = if by_iova {
        config.iova_shift.max(1)
    } else if mutations.has(Mutation::DeviceLogBaseWrong) {
        machine.constants.word_bits
    } else {
        return Some(frame);
    };
    let slot = machine
        .slot_of_frame(frame)
        .map(|slot| &machine.slots[slot])?;
    let wrong = frame - slot.frame + shift;
    (wrong < slot.npages).then_some(slot.frame + wrong)
}

/// The frame that user space takes a logged frame for when it reads the device's log, if it sees it at all.
pub(crate) fn reported_frame(machine: &Machine, device: usize, frame: u32) -> Option<u32> {
    let mutations = machine.mutations;
    let slot = machine
        .slot_of_frame(frame)
        .map(|slot| &machine.slots[slot])?;
    let bits = machine.constants.word_bits;
    let offset = frame - slot.frame;
    if mutations.has(Mutation::DeviceBitmapFirstPage) && offset >= bits {
        let wrong = offset + bits;
        return (wrong < slot.npages).then_some(slot.frame + wrong);
    }
    let (first, _) = machine.devices[device].recorded_with(frame, slot.frame);
    let clipped = mutations.has(Mutation::DeviceBitmapWindowClip)
        && (first - slot.frame) / bits != offset / bits;
    (!clipped).then_some(frame)
}

pub(crate) fn describe(choice: Choice) -> &'static str {
    match choice {
        Choice::Store(_) => "submit",
        Choice::Page(_) => "dma-write",
        _ => "log-write",
    }
}
