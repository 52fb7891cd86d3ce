//! Guest page numbers of a VM that is replayed, as frames of the model.

use dirtysim_model::machine::Machine;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::slot::Life;
use dirtysim_model::words::{Frame, Offset};

/// The slot, by its index, and the frame that a guest page number means now in an address space.
pub(super) fn frame_at(
    machine: &Machine,
    state: &State<Large>,
    as_id: u32,
    gfn: u64,
) -> Option<(usize, Frame)> {
    let slots = machine.slots.iter().zip(state.slots.iter());
    slots.enumerate().find_map(|(index, (template, slot))| {
        let base = *template.places.get(usize::from(slot.place))?;
        let there = template.as_id == as_id && slot.life == Life::Live;
        let frame = template.frame_at(Offset(gfn.checked_sub(base)?))?;
        there.then_some((index, frame))
    })
}
