//! What a device does: submit a transfer, land its bytes in memory, log them.

use crate::machine::{Machine, WriterLog};
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::slot::Life;
use crate::state::vcpu::spend;
use crate::words::word::loud;
use crate::words::{Choice, Found, Frame, Word};

/// The names of the steps: a transfer is submitted ([`Choice::Store`]), lands ([`Choice::Page`]), is logged ([`Choice::Load`]).
pub(crate) const WORDS: [Word; 3] = [
    loud("submit", "is given a transfer to {page}"),
    loud("dma-write", "writes {page}"),
    loud("log-write", "logs {page}"),
];

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    device: usize,
    found: Found<'_>,
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
        found(Choice::Land(frame));
    }
    for frame in d.unlogged.iter() {
        found(Choice::Load(frame));
    }
}

#[inline]
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    device: usize,
    choice: Choice,
) {
    let way = machine.devices[device].log;
    step(machine, state, device, choice, way, |frame| {
        logged(machine, device, frame, way)
    });
}

/// A step of a device that logs in a way; `logged` tells which frame its log gets for a frame, if it gets one.
pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    device: usize,
    choice: Choice,
    way: WriterLog,
    logged: impl Fn(Frame) -> Option<Frame>,
) {
    let config = &machine.devices[device];
    match choice {
        Choice::Store(frame) => {
            let d = &mut state.devices[device];
            spend(&mut d.budget);
            d.in_flight.insert(frame);
            if way == WriterLog::Early {
                record(machine, state, device, logged(frame));
            }
        }
        Choice::Land(frame) => {
            let host = machine.host_page(frame);
            state.store(machine, host);
            let is_used_ring = config.used_ring == Some(frame);
            let d = &mut state.devices[device];
            d.in_flight.remove(frame);
            if is_used_ring || matches!(way, WriterLog::Right | WriterLog::WrongSpace) {
                d.unlogged.insert(frame);
            }
            if let Some(used) = config.used_ring.filter(|_| !is_used_ring) {
                // The transfer is announced in the used ring, which is memory like any other.
                d.in_flight.insert(used);
            }
        }
        Choice::Load(frame) => {
            state.devices[device].unlogged.remove(frame);
            record(machine, state, device, logged(frame));
        }
        _ => {}
    }
}

/// The record of a transfer reaches the log that the device keeps, with all of its IOMMU's mapping.
fn record<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    device: usize,
    logged: Option<Frame>,
) {
    let config = &machine.devices[device];
    let Some((logged, slot)) =
        logged.and_then(|frame| Some((frame, machine.slot_of_frame(frame)?)))
    else {
        return;
    };
    let slot = &machine.slots[slot];
    let (first, count) = config.recorded_with(logged, slot.frame);
    let end = (first + count).min(slot.frame + slot.npages);
    for page in first.and_on(end - first) {
        if config.vmm_log {
            state.own_log.insert(machine.host_page(page));
        } else {
            state.devices[device].log.insert(page);
        }
    }
}

/// The frame that the log gets for `frame`.
pub(crate) fn logged(
    machine: &Machine,
    device: usize,
    frame: Frame,
    way: WriterLog,
) -> Option<Frame> {
    match way {
        WriterLog::WrongSpace => shifted(machine, frame, machine.devices[device].iova_shift.max(1)),
        WriterLog::Right | WriterLog::None | WriterLog::Early => Some(frame),
    }
}

/// The frame so many pages further on in its slot; beyond its end nobody looks.
pub(crate) fn shifted(machine: &Machine, frame: Frame, by: u32) -> Option<Frame> {
    let slot = &machine.slots[machine.slot_of_frame(frame)?];
    let wrong = frame - slot.frame + by;
    (wrong < slot.npages).then_some(slot.frame + wrong)
}

/// The name of the next step.
pub(crate) fn word(choice: Choice) -> Word {
    WORDS[match choice {
        Choice::Store(_) => 0,
        Choice::Land(_) => 1,
        _ => 2,
    }]
}
