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
    let log = log_way(machine, device);
    match choice {
        Choice::Store(frame) => {
            let d = &mut state.devices[device];
            d.budget -= 1;
            d.in_flight.insert(frame);
            if log == WriterLog::Early {
                d.log.insert(frame);
            }
        }
        Choice::Page(frame) => {
            let host = machine.host_page(frame);
            state.store(machine, host);
            let d = &mut state.devices[device];
            d.in_flight.remove(frame);
            if matches!(log, WriterLog::Right | WriterLog::WrongSpace) {
                d.unlogged.insert(frame);
            }
        }
        Choice::Load(frame) => {
            let logged = logged_frame(machine, device, frame, log);
            let d = &mut state.devices[device];
            d.unlogged.remove(frame);
            if let Some(logged) = logged {
                d.log.insert(logged);
            }
        }
        _ => {}
    }
}

/// How the device's transfers are logged, mutations included.
fn log_way(machine: &Machine, device: usize) -> WriterLog {
    let mutations = machine.mutations;
    if mutations.has(Mutation::DeviceAsyncNever) || mutations.has(Mutation::QueuesRemarkFalse) {
        WriterLog::None
    } else if mutations.has(Mutation::DeviceAsyncAtSubmit) {
        WriterLog::Early
    } else if mutations.has(Mutation::DeviceLogSpaceIova)
        || mutations.has(Mutation::DeviceLogBaseWrong)
        || mutations.has(Mutation::DeviceLogUsedRingIova)
        || mutations.has(Mutation::DeviceBitmapFirstPage)
    {
        WriterLog::WrongSpace
    } else {
        machine.devices[device].log
    }
}

/// The frame that the device's log gets for `frame`.
fn logged_frame(machine: &Machine, device: usize, frame: u32, log: WriterLog) -> Option<u32> {
    if machine.mutations.has(Mutation::DeviceLogQueue0) && device > 0 {
        return None;
    }
    if machine.mutations.has(Mutation::DeviceBitmapWindowClip) && !frame.is_multiple_of(2) {
        return None;
    }
    if log != WriterLog::WrongSpace {
        return Some(frame);
    }
    let slot = machine
        .slot_of_frame(frame)
        .map(|slot| &machine.slots[slot])?;
    let shift = machine.devices[device].iova_shift.max(1);
    let wrong = frame - slot.frame + shift;
    // An address beyond the log is written past its end, where nobody looks.
    (wrong < slot.npages).then_some(slot.frame + wrong)
}

pub(crate) fn describe(choice: Choice) -> &'static str {
    match choice {
        Choice::Store(_) => "submit",
        Choice::Page(_) => "dma-write",
        _ => "log-write",
    }
}
