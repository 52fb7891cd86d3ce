//! vCPUs of a wrong kernel.

use super::Faithful;
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::vcpu::Pc;
use crate::vcpu::fault::{self, Access, Came};
use crate::vcpu::{guest, pml, steal, subject};
use crate::words::fault::FaultStage;
use crate::words::{Choice, Found, Frame, Mutation, Step};

pub(super) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    found: Found<'_>,
) -> bool {
    let v = &state.vcpus[vcpu];
    if v.pc != Pc::Fault || fault::stage(machine, v) != FaultStage::Map {
        return false;
    }
    let has = |mutation| machine.mutations.has(mutation);
    if has(Mutation::FaultMarkBeforeSuccess) {
        found(Choice::Advance);
        found(Choice::Fail);
        return true;
    }
    // Where it maps outside of mmu_lock, it waits for whoever holds that.
    has(Mutation::FaultUnlockBetween) && state.mmu_lock_write
}

pub(super) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    step: Step,
    faithful: Faithful<L>,
) {
    let marked = subject(machine, state, vcpu).filter(|_| {
        machine.mutations.has(Mutation::BitmapIndexNarrow)
            && state.caps.ring_entries == 0
            && state.vcpus[vcpu].pc != Pc::Guest
    });
    let Some(frame) = marked else {
        return take(machine, state, vcpu, step, faithful);
    };
    // What the step would set is set for another page.
    let had = state.bitmap.contains(frame);
    state.bitmap.remove(frame);
    take(machine, state, vcpu, step, faithful);
    if state.bitmap.contains(frame) {
        state.bitmap.remove(frame);
        state.bitmap.insert(narrow(machine, frame));
    }
    if had {
        state.bitmap.insert(frame);
    }
}

/// The frame whose bit an index of one bit too few finds.
pub(super) fn narrow(machine: &Machine, frame: Frame) -> Frame {
    match machine.slot_of_frame(frame) {
        Some(slot) => {
            let template = &machine.slots[slot];
            template.frame + (frame - template.frame) % (template.npages / 2).max(1)
        }
        None => frame,
    }
}

fn take<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    step: Step,
    faithful: Faithful<L>,
) {
    let has = |mutation| machine.mutations.has(mutation);
    let (pc, choice) = (state.vcpus[vcpu].pc, step.choice);
    match pc {
        Pc::Guest if has(Mutation::VcpuWriteSplit) && choice != Choice::Leave => {
            let loads = match choice {
                Choice::Load(_) => true,
                Choice::Store(_) => false,
                _ => state.vcpus[vcpu].load,
            };
            if !loads {
                guest::begin(state, vcpu, choice);
                return guest::leave(machine, state, vcpu, true);
            }
            faithful(machine, state, step);
        }
        Pc::Guest => {
            faithful(machine, state, step);
            let v = &mut state.vcpus[vcpu];
            if v.pc == Pc::FlushOnly && has(Mutation::PmlNoFlush) {
                v.pml = L::Pml::default();
                pml::flushed(machine, state, vcpu);
            }
        }
        Pc::Entry | Pc::Exit if choice == Choice::Steal && has(Mutation::NestedMarkUnmapped) => {
            let then = if pc == Pc::Entry {
                Pc::StealMark
            } else {
                Pc::ExitMark
            };
            steal::updated(state, vcpu, then);
        }
        Pc::StealMark | Pc::ExitMark => {
            let marks = !has(Mutation::KernelRecordNoLog);
            steal::mark(machine, state, vcpu, marks);
        }
        Pc::Flush | Pc::FlushOnly => {
            let frame = pml::next(machine, state, vcpu);
            let slot = machine
                .slot_of_frame(frame)
                .map(|slot| &machine.slots[slot]);
            let logged = match slot {
                Some(slot) if has(Mutation::NestedPmlL2) => {
                    slot.frame + (frame - slot.frame + 1) % slot.npages
                }
                _ => frame,
            };
            pml::flush(machine, state, vcpu, logged);
        }
        Pc::Fault => fault_step(machine, state, vcpu, step, faithful),
        Pc::User | Pc::Entry | Pc::Exit | Pc::PreFault => {
            faithful(machine, state, step);
        }
    }
}

fn fault_step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    step: Step,
    faithful: Faithful<L>,
) {
    let has = |mutation| machine.mutations.has(mutation);
    let v = &state.vcpus[vcpu];
    let access = Access {
        frame: v.frame,
        load: v.load,
    };
    let first_only = has(Mutation::HugeMarkFirstOnly);
    let came = match fault::stage(machine, v) {
        FaultStage::Resolve => {
            faithful(machine, state, step);
            state.vcpus[vcpu].logging &= !has(Mutation::FaultNoMark);
            return;
        }
        FaultStage::Map if step.choice == Choice::Fail => {
            fault::hold_mmu_lock(machine, state, vcpu, false);
            Came::Failed
        }
        FaultStage::Map if first_only => {
            fault::map(machine, state, vcpu, access, true);
            fault::next(machine, state, vcpu)
        }
        FaultStage::Mark if first_only => {
            let first = fault::huge_region(machine, access.frame);
            fault::mark(machine, state, vcpu, first.unwrap_or(access.frame))
        }
        FaultStage::SplitStore => {
            guest::retire(machine, state, vcpu);
            fault::next(machine, state, vcpu)
        }
        FaultStage::Lock
        | FaultStage::Map
        | FaultStage::FastMap
        | FaultStage::Mark
        | FaultStage::Unlock => {
            faithful(machine, state, step);
            return;
        }
    };
    fault::go_on(machine, state, vcpu, came);
}
