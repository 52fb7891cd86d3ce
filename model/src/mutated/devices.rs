//! Devices whose logs are wrong.

use crate::device;
use crate::machine::{Machine, WriterLog};
use crate::op::Act;
use crate::op::DeviceSync;
use crate::state::State;
use crate::state::layout::Layout;
use crate::words::{Choice, Effect, Frame, Mutation};

pub(super) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    device: usize,
    choice: Choice,
) {
    let has = |mutation| machine.mutations.has(mutation);
    let way = if has(Mutation::DeviceAsyncNever) {
        WriterLog::None
    } else if has(Mutation::DeviceAsyncAtSubmit) {
        WriterLog::Early
    } else {
        machine.devices[device].log
    };
    let logged = |frame| logged(machine, device, frame, way);
    device::step(machine, state, device, choice, way, logged);
}

/// The frame that the log gets for `frame`, if it gets one.
fn logged(machine: &Machine, device: usize, frame: Frame, way: WriterLog) -> Option<Frame> {
    let has = |mutation| machine.mutations.has(mutation);
    let config = &machine.devices[device];
    let used_ring = config.used_ring == Some(frame);
    if has(Mutation::DeviceLogQueue0) {
        let queues = usize::from(config.queues.max(1));
        let index = config.frames.iter().position(|known| *known == frame);
        if index.is_some_and(|index| index % queues != 0) {
            return None;
        }
    }
    let by_iova = (used_ring && has(Mutation::DeviceLogUsedRingIova))
        || (!used_ring && has(Mutation::DeviceLogSpaceIova));
    if by_iova || way == WriterLog::WrongSpace {
        device::logged(machine, device, frame, WriterLog::WrongSpace)
    } else if has(Mutation::DeviceLogBaseWrong) {
        device::shifted(machine, frame, machine.constants.word_bits)
    } else {
        Some(frame)
    }
}

pub(super) fn sync<L: Layout>(act: Act<'_, L>, right: DeviceSync) -> Effect {
    let machine = act.machine;
    let index = usize::from(right.device);
    let started = act.state.devices[index].started;
    if !started && machine.mutations.has(Mutation::DeviceSyncBeforeStart) {
        act.state.crashed = true;
        return Effect::None;
    }
    right.collect(act, |frame| reported(machine, index, frame))
}

/// The frame that user space takes a logged frame for when it reads the device's log, if it sees it at all.
fn reported(machine: &Machine, device: usize, frame: Frame) -> Option<Frame> {
    let has = |mutation| machine.mutations.has(mutation);
    let slot = &machine.slots[machine.slot_of_frame(frame)?];
    let bits = machine.constants.word_bits;
    let offset = frame - slot.frame;
    if has(Mutation::DeviceBitmapFirstPage) && offset >= bits {
        return device::shifted(machine, frame, bits);
    }
    let (first, _) = machine.devices[device].recorded_with(frame, slot.frame);
    let clipped =
        has(Mutation::DeviceBitmapWindowClip) && (first - slot.frame) / bits != offset / bits;
    (!clipped).then_some(frame)
}
