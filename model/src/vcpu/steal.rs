//! What the kernel keeps in guest memory for a vCPU, and writes in its context: steal time and the like.

use super::entry;
use crate::kernel::mark as primitive;
use crate::machine::{Machine, WriterLog};
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::vcpu::{Pc, spend};
use crate::words::{Arch, Frame};

/// Whether the vCPU's thread, in the middle of a push, may be preempted there, so that the record is pushed to the entry that the push is
/// at: where it holds no lock, as in a flush of PML, in x86's lockless path, in another record's mark, or after LoongArch's fault path has dropped its lock.
/// Source: arch/x86/kvm/x86.c, kvm_arch_vcpu_put(), kvm_steal_time_set_preempted(); arch/loongarch/kvm/vcpu.c,
/// kvm_vcpu_set_pv_preempted() (7.2); arch/x86/kvm/vmx/vmx.c, vmx_flush_pml_buffer().
#[inline(always)]
pub(crate) fn may_preempt<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> bool {
    let (config, v) = (&machine.vcpus[vcpu], &state.vcpus[vcpu]);
    config.preempted
        && v.steal > 0
        && (1..=3).contains(&v.push)
        && (v.pc != Pc::Fault || v.fast || machine.arch == Arch::Loongarch)
        && machine
            .slot_of_frame(config.steal_frame)
            .is_some_and(|slot| state.logs(slot))
}

/// It is: the record changes, takes the entry that is half filled, and moves the index; then the push goes on with the entry that it had
/// begun, and moves the index once more, past an entry that nobody has filled. One step: who looked between the two would see the record's page in
/// an entry that names another a moment later.
pub(crate) fn preempt<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    frame: Frame,
) {
    let record = machine.vcpus[vcpu].steal_frame;
    state.store(machine, machine.host_page(record));
    spend(&mut state.vcpus[vcpu].steal);
    primitive::push_within(machine, state, vcpu, record, frame);
}

/// The record changes; the mark is still to come, at `then`.
pub(crate) fn update<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, then: Pc) {
    let host = machine.host_page(machine.vcpus[vcpu].steal_frame);
    state.store(machine, host);
    updated(state, vcpu, then);
}

/// The record is taken for changed.
pub(crate) fn updated<L: Layout>(state: &mut State<L>, vcpu: usize, then: Pc) {
    let v = &mut state.vcpus[vcpu];
    spend(&mut v.steal);
    v.record_due = false;
    v.push = 0;
    v.pc = then;
}

/// A step of its mark, unless nobody marks it, and on to where the vCPU was.
pub(crate) fn mark<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, marks: bool) {
    let config = &machine.vcpus[vcpu];
    let frame = config.steal_frame;
    let slot = machine.slot_of_frame(frame);
    let logging =
        marks && config.steal_log != WriterLog::None && slot.is_some_and(|slot| state.logs(slot));
    if !primitive::mark(machine, state, vcpu, frame, logging) {
        return;
    }
    let v = &mut state.vcpus[vcpu];
    if v.pc == Pc::StealMark {
        let next = v.stage + 1;
        return entry::go(machine, state, vcpu, next);
    }
    v.pc = Pc::Exit;
    v.old_slots = false;
}
