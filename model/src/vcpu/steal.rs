//! What the kernel keeps in guest memory for a vCPU, and writes in its context: steal time and the like.

use super::entry;
use crate::kernel::mark as primitive;
use crate::machine::{Machine, WriterLog};
use crate::state::layout::Layout;
use crate::state::vcpu::{Pc, Record};
use crate::state::{State, Vcpu};
use crate::words::{Arch, Kernel};

/// Whether the record may be updated where the vCPU is: on the way into the guest once a KVM_RUN, and on the way out where it was
/// written on the way in. Source: arch/arm64/kvm/arm.c, kvm_arch_vcpu_load(), check_vcpu_requests(); arch/x86/kvm/x86.c,
/// record_steal_time(), kvm_steal_time_set_preempted(); arch/riscv/kvm/vcpu.c, kvm_arch_vcpu_load().
pub(crate) fn is_due<L: Layout>(machine: &Machine, v: &Vcpu<L>, vcpu: usize, at: Record) -> bool {
    v.steal > 0 && (v.record == at || machine.vcpus[vcpu].own_stores)
}

/// Whether the kernel says in the record that the vCPU's thread has left. Source: arch/x86/kvm/x86.c, kvm_arch_vcpu_put();
/// arch/loongarch/kvm/vcpu.c, kvm_arch_vcpu_put().
fn writes_on_the_way_out(machine: &Machine) -> bool {
    match machine.arch {
        Arch::X86 => true,
        Arch::Loongarch => machine.kernel >= Kernel::V7_2,
        Arch::Arm64 | Arch::Riscv | Arch::S390 => false,
    }
}

/// The record changes; the mark is still to come, at `then`.
pub(crate) fn update<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, then: Pc) {
    let host = machine.host_page(machine.vcpus[vcpu].steal_frame);
    state.store(machine, host);
    updated(machine, state, vcpu, then);
}

/// The record is taken for changed.
pub(crate) fn updated<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, then: Pc) {
    let v = &mut state.vcpus[vcpu];
    v.steal -= 1;
    v.record = if then == Pc::StealMark && v.steal > 0 && writes_on_the_way_out(machine) {
        Record::Written
    } else {
        Record::Settled
    };
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
    if state.vcpus[vcpu].pc == Pc::StealMark {
        return entry::recorded(machine, state, vcpu);
    }
    let v = &mut state.vcpus[vcpu];
    v.pc = Pc::Exit;
    v.old_slots = false;
}
