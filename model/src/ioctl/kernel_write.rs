//! Kernel writers without a vCPU: the ITS tables and the like. They change memory first and mark second.
//! Source: arch/arm64/kvm/vgic/vgic-its.c, vgic_its_save_tables_v0(); vgic.h, vgic_write_guest_lock(); virt/kvm/kvm_main.c, kvm_write_guest().

use crate::errno::Errno;
use crate::layout::Layout;
use crate::machine::Machine;
use crate::mutation::Mutation;
use crate::op::KernelWriter;
use crate::pages::PageSet;
use crate::ring::{F_DIRTY, RingEntry};
use crate::state::State;
use crate::vcpu_steps::bitmap_frame;

const ENTER: u8 = 0;
const DATA: u8 = 1;
const MARK: u8 = 2;
const RETURN: u8 = 3;

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    writer: KernelWriter,
    frames: u16,
    fails_after: u8,
) {
    let list = &machine.frame_lists[usize::from(frames)];
    let index = state.threads[thread].index as usize;
    let mark_first = machine.mutations.has(Mutation::WriterMarkFirst);
    match state.threads[thread].stage {
        ENTER => {
            if writer.locks_vcpus() {
                if !state.vcpus_stopped() || state.vcpu_mutexes {
                    let t = &mut state.threads[thread];
                    t.next_op();
                    t.answer = Err(Errno::EBUSY);
                    return;
                }
                state.vcpu_mutexes = true;
            }
            let t = &mut state.threads[thread];
            t.answer = Ok(0);
            t.stage = if list.is_empty() {
                RETURN
            } else {
                first_stage(mark_first)
            };
        }
        DATA => {
            let host = machine.host_page(list[index]);
            state.store(machine, host);
            if fails_after != u8::MAX && index == usize::from(fails_after) {
                // The copy faults half-way: bytes have changed, and the page is never marked.
                let t = &mut state.threads[thread];
                t.answer = Err(Errno::EFAULT);
                t.stage = RETURN;
            } else if mark_first {
                next(state, thread, list.len(), mark_first);
            } else {
                state.threads[thread].stage = MARK;
            }
        }
        MARK => {
            mark(machine, state, writer, list[index]);
            if mark_first {
                state.threads[thread].stage = DATA;
            } else {
                next(state, thread, list.len(), mark_first);
            }
        }
        _ => {
            if writer.locks_vcpus() {
                state.vcpu_mutexes = false;
            }
            let t = &mut state.threads[thread];
            let answer = t.answer;
            t.next_op();
            t.answer = answer;
        }
    }
}

fn first_stage(mark_first: bool) -> u8 {
    if mark_first { MARK } else { DATA }
}

fn next<L: Layout>(state: &mut State<L>, thread: usize, len: usize, mark_first: bool) {
    let t = &mut state.threads[thread];
    t.index += 1;
    t.stage = if t.index as usize == len {
        RETURN
    } else {
        first_stage(mark_first)
    };
}

/// The frame whose bytes the thread has changed and not marked.
pub(crate) fn owed<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    frames: u16,
) -> Option<u32> {
    let t = &state.threads[thread];
    let mark_first = machine.mutations.has(Mutation::WriterMarkFirst);
    (t.stage == MARK && !mark_first)
        .then(|| machine.frame_lists[usize::from(frames)][t.index as usize])
}

pub(crate) fn subject<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    frames: u16,
) -> Option<u32> {
    let t = &state.threads[thread];
    if matches!(t.stage, DATA | MARK) {
        machine.frame_lists[usize::from(frames)]
            .get(t.index as usize)
            .copied()
    } else {
        None
    }
}

/// Y52: the marking primitive without a running vCPU: to the slot's bitmap if it has one, else nowhere.
/// Source: virt/kvm/kvm_main.c, mark_page_dirty_in_slot().
fn mark<L: Layout>(machine: &Machine, state: &mut State<L>, writer: KernelWriter, frame: u32) {
    let Some(slot) = machine
        .slot_of_frame(frame)
        .filter(|&slot| state.logs(slot))
    else {
        return;
    };
    let mutations = machine.mutations;
    let exempt =
        writer == KernelWriter::Other && machine.always_dirty.contains(&machine.host_page(frame));
    let dropped = exempt
        || mutations.has(Mutation::KernelWriterNoLog)
        || (machine.kernel.mark_needs_vcpu() && machine.arch.has_ring(machine.kernel))
        || (mutations.has(Mutation::NonVcpuAllowItsSave) && writer != KernelWriter::ItsSave);
    if dropped {
        return;
    }
    if state.caps.ring_entries != 0 {
        if mutations.has(Mutation::NonVcpuDrop) {
            return;
        }
        if mutations.has(Mutation::NonVcpuCrash) {
            state.crashed = true;
            return;
        }
        if mutations.has(Mutation::NonVcpuVcpu0) {
            let template = &machine.slots[slot];
            let Some(vcpu) = state.vcpus.first_mut() else {
                return;
            };
            let ring = &mut vcpu.ring;
            let index = ring.dirty_index;
            let entry = ring.entry_mut(index);
            entry.set_slot(template.number());
            entry.set_offset(u64::from(frame - template.frame));
            entry.set_flags(F_DIRTY);
            ring.dirty_index = index.wrapping_add(1);
            return;
        }
    }
    if state.slots[slot].bitmap {
        state.bitmap.insert(bitmap_frame(machine, slot, frame));
    }
}

pub(crate) fn describe(_machine: &Machine, writer: KernelWriter, stage: u8) -> &'static str {
    match (writer, stage) {
        (KernelWriter::ItsSave, ENTER) => "its-save-enter",
        (KernelWriter::ItsSave, DATA) => "its-save-write",
        (KernelWriter::ItsSave, MARK) => "its-save-mark",
        (KernelWriter::ItsSave, _) => "its-save-return",
        (KernelWriter::PendingSave, ENTER) => "pending-save-enter",
        (KernelWriter::PendingSave, DATA) => "pending-save-write",
        (KernelWriter::PendingSave, MARK) => "pending-save-mark",
        (KernelWriter::PendingSave, _) => "pending-save-return",
        (KernelWriter::ItsRestore, ENTER) => "its-restore-enter",
        (KernelWriter::ItsRestore, DATA) => "its-restore-write",
        (KernelWriter::ItsRestore, MARK) => "its-restore-mark",
        (KernelWriter::ItsRestore, _) => "its-restore-return",
        (KernelWriter::Other, ENTER) => "kernel-write-enter",
        (KernelWriter::Other, DATA) => "kernel-write-write",
        (KernelWriter::Other, MARK) => "kernel-write-mark",
        (KernelWriter::Other, _) => "kernel-write-return",
    }
}
