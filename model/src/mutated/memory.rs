//! Memslots, capabilities and the kernel's own writers, wrong.

use super::vcpus::narrow;
use crate::kernel::rearm;
use crate::machine::Machine;
use crate::op::kernel_write::{DATA, ENTER as WRITE_ENTER, MARK};
use crate::op::set_memory_region::{Change, ENTER, FLUSH, GRACE, PUBLISH, REARM, RETURN};
use crate::op::{Act, KernelWrite, KernelWriter, SetMemoryRegion};
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::ring::{F_DIRTY, RingEntry};
use crate::words::constants::{INITIALLY_SET, MANUAL_PROTECT_ENABLE};
use crate::words::{Effect, Frame, Mutation};

/// The pages of a mask that a re-arming reaches.
pub(super) fn first_only(machine: &Machine, mask: u64) -> u64 {
    if machine.mutations.has(Mutation::ResetBatchFirstOnly) {
        mask & mask.wrapping_neg()
    } else {
        mask
    }
}

pub(super) fn enable_cap<L: Layout>(
    act: Act<'_, L>,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let entries = act.state.caps.ring_entries;
    let effect = right(act.state);
    let enabled = act.state.caps.ring_entries != entries;
    if enabled && act.machine.mutations.has(Mutation::RingManualProtect) {
        act.state.caps.manual_protect = (MANUAL_PROTECT_ENABLE | INITIALLY_SET) as u8;
    }
    effect
}

pub(super) fn set_region<L: Layout>(
    mut act: Act<'_, L>,
    region: &SetMemoryRegion,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let machine = act.machine;
    let has = |mutation| machine.mutations.has(mutation);
    let slot = region.template(&act);
    let protects_first = has(Mutation::EnableProtectBeforePublish);
    match act.stage() {
        ENTER => {
            let change = region.decide(machine, act.state);
            if change == Ok(Change::Nothing) && region.logs() && has(Mutation::LogStopPostponed) {
                act.state.crashed = true;
                return Effect::None;
            }
            let effect = right(act.state);
            if change == Ok(Change::LogOn) && protects_first {
                return act.go(REARM);
            }
            effect
        }
        PUBLISH => {
            let creates = !act.state.slots[slot].exists();
            let (bitmap, written) = (act.state.bitmap.clone(), act.state.written.clone());
            let effect = right(act.state);
            if creates && has(Mutation::SlotRecreateDropBitmap) {
                act.state.slots[slot].bitmap = false;
                act.state.bitmap = bitmap;
                act.state.written = written;
            } else if has(Mutation::InitiallySetWholeWords)
                && region.logs()
                && act.state.slots[slot].bitmap
                && act.state.caps.initially_set()
            {
                let template = &machine.slots[slot];
                let padded = machine.padded(template.npages);
                act.state.bitmap.insert_range(template.frame, padded);
            }
            effect
        }
        GRACE => {
            let effect = right(act.state);
            if protects_first && act.stage() == REARM {
                return act.go(RETURN);
            }
            effect
        }
        REARM => {
            let template = &machine.slots[slot];
            let modified = template.frames().any(|frame| {
                act.state.writable.contains(frame)
                    && (!machine.pml || act.state.dirty_bit.contains(frame))
            });
            if !has(Mutation::EnableNoProtect) {
                rearm::rearm_slot(machine, act.state, slot);
            }
            let skips = has(Mutation::EnableFlushIfModified) && !modified;
            act.go(match (skips, protects_first) {
                (false, _) => FLUSH,
                (true, true) => PUBLISH,
                (true, false) => RETURN,
            })
        }
        FLUSH => {
            let effect = right(act.state);
            if protects_first {
                return act.go(PUBLISH);
            }
            effect
        }
        _ => right(act.state),
    }
}

pub(super) fn kernel_write<L: Layout>(
    mut act: Act<'_, L>,
    write: &KernelWrite,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let marks_first = act.machine.mutations.has(Mutation::WriterMarkFirst);
    match act.stage() {
        WRITE_ENTER => {
            let effect = right(act.state);
            if marks_first && act.stage() == DATA {
                return act.go(MARK);
            }
            effect
        }
        DATA if marks_first => {
            if write.write(&mut act) {
                write.next(&mut act, MARK)
            } else {
                Effect::None
            }
        }
        MARK => {
            let frame = write.frame(&mut act);
            mark(&mut act, write, frame);
            if marks_first {
                return act.go(DATA);
            }
            write.next(&mut act, DATA)
        }
        _ => right(act.state),
    }
}

/// The mark of a kernel writer: dropped, at the wrong place, or the crash of a kernel that wants a vCPU for it.
fn mark<L: Layout>(act: &mut Act<'_, L>, write: &KernelWrite, frame: Frame) {
    let machine = act.machine;
    let has = |mutation| machine.mutations.has(mutation);
    let Some(slot) = machine
        .slot_of_frame(frame)
        .filter(|&slot| act.state.logs(slot))
    else {
        return;
    };
    let other = write.writer != KernelWriter::ItsSave;
    if has(Mutation::KernelWriterNoLog) || (other && has(Mutation::NonVcpuAllowItsSave)) {
        return;
    }
    let exempt = write.writer == KernelWriter::Other
        && machine.always_dirty.contains(&machine.host_page(frame));
    let needs_vcpu = machine.kernel.mark_needs_vcpu() && machine.arch.has_ring(machine.kernel);
    if act.state.caps.ring_entries != 0 && !exempt && !needs_vcpu {
        if has(Mutation::NonVcpuDrop) {
            return;
        }
        if has(Mutation::NonVcpuCrash) {
            act.state.crashed = true;
            return;
        }
        if has(Mutation::NonVcpuVcpu0) {
            let template = &machine.slots[slot];
            let Some(vcpu) = act.state.vcpus.first_mut() else {
                return;
            };
            let ring = &mut vcpu.ring;
            let index = ring.dirty_index;
            let entry = ring.entry_mut(index);
            entry.set_slot(template.number());
            entry.set_offset(template.offset(frame));
            entry.set_flags(F_DIRTY);
            ring.dirty_index = index.wrapping_add(1);
            return;
        }
    }
    if has(Mutation::BitmapIndexNarrow) {
        if !exempt && !needs_vcpu && act.state.slots[slot].bitmap {
            act.state.bitmap.insert(narrow(machine, frame));
        }
        return;
    }
    write.mark(act);
}
