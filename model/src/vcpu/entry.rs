//! Into the guest and out of KVM_RUN: the request checks, in the architecture's order.

use crate::kernel::soft_limit;
use crate::machine::{Machine, OnRingFull};
use crate::state::layout::Layout;
use crate::state::vcpu::{Exit, Pc};
use crate::state::{State, Vcpu};
use crate::words::word::{loud, quiet};
use crate::words::{Arch, Word};

/// A check on the way into the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryStage {
    /// The soft-full request.
    SoftFull = 0,
    /// Steal time and other records that the kernel keeps in guest memory.
    Steal = 1,
    /// Into the guest, unless a signal is pending.
    Enter = 2,
}

impl EntryStage {
    /// The names of the steps, by number.
    pub(crate) const WORDS: [Word; 3] = [
        loud("check-soft-full", "checks the soft-full request"),
        quiet("no-kernel-record", "has no kernel record to update"),
        quiet("enter-guest", "enters the guest"),
    ];
}

/// The order of the request checks. Source: arch/x86/kvm/x86.c, vcpu_enter_guest(); arch/arm64/kvm/arm.c, check_vcpu_requests();
/// arch/loongarch/kvm/vcpu.c, kvm_check_requests(); arch/riscv/kvm/vcpu.c, kvm_riscv_check_vcpu_requests().
const fn stages(arch: Arch) -> [EntryStage; 3] {
    match arch {
        Arch::X86 | Arch::Loongarch | Arch::S390 => {
            [EntryStage::SoftFull, EntryStage::Steal, EntryStage::Enter]
        }
        Arch::Arm64 | Arch::Riscv => [EntryStage::Steal, EntryStage::SoftFull, EntryStage::Enter],
    }
}

/// The check that a vCPU on its way in is at.
#[inline(always)]
pub(crate) fn stage<L: Layout>(machine: &Machine, v: &Vcpu<L>) -> EntryStage {
    stages(machine.arch)[usize::from(v.stage)]
}

/// KVM_RUN is called.
pub(crate) fn run<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    v.exit = Exit::None;
    v.record_due = v.steal > 0;
    go(machine, state, vcpu, 0);
}

/// To the request checks, from `stage` on; those that can do nothing are passed over.
pub(crate) fn go<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, stage: u8) {
    let stages = stages(machine.arch);
    let v = &mut state.vcpus[vcpu];
    let mut stage = stage;
    loop {
        let idle = match stages[usize::from(stage)] {
            // What is compared each time is looked at in a step of its own.
            EntryStage::SoftFull if machine.kernel.soft_full_is_compared() => v.ring.size() == 0,
            EntryStage::SoftFull => !v.request,
            EntryStage::Steal => !is_record_due(machine, v, vcpu),
            EntryStage::Enter => false,
        };
        if !idle {
            break;
        }
        stage += 1;
    }
    v.pc = Pc::Entry;
    v.stage = stage;
    v.push = 0;
    v.old_slots = false;
}

/// Whether the record may be updated on the way into the guest: once a KVM_RUN. On the way out it is written only where the thread was
/// preempted, which is modelled within a push alone ([`may_preempt`](super::steal::may_preempt)). Source: arch/arm64/kvm/arm.c, kvm_arch_vcpu_load(), check_vcpu_requests(); arch/x86/kvm/x86.c,
/// record_steal_time(), kvm_arch_vcpu_put(); arch/riscv/kvm/vcpu.c, kvm_arch_vcpu_load().
pub(crate) fn is_record_due<L: Layout>(machine: &Machine, v: &Vcpu<L>, vcpu: usize) -> bool {
    v.steal > 0 && (v.record_due || machine.vcpus[vcpu].own_stores)
}

/// A request check, or the way into the guest.
pub(crate) fn step<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let logs = state.any_logs();
    let v = &mut state.vcpus[vcpu];
    let next = v.stage + 1;
    match stage(machine, v) {
        EntryStage::SoftFull => {
            // Source: virt/kvm/dirty_ring.c, kvm_dirty_ring_check_request(). The request is consumed, and raised again when
            // the ring is still soft-full.
            if v.ring.used() >= soft_limit(machine, v.ring.size()) {
                v.exit = Exit::DirtyRingFull;
                to_exit(v);
            } else {
                v.request = false;
                go(machine, state, vcpu, next);
            }
        }
        EntryStage::Steal => {
            v.record_due = false;
            go(machine, state, vcpu, next);
        }
        EntryStage::Enter => {
            if v.kicked {
                v.exit = Exit::Interrupted;
                to_exit(v);
            } else {
                v.pc = Pc::Guest;
                v.stage = 0;
                v.resched = false;
                v.pml_on = machine.pml && logs;
            }
        }
    }
}

/// On the way out to user space.
pub(crate) fn to_exit<L: Layout>(v: &mut Vcpu<L>) {
    v.pc = Pc::Exit;
    v.stage = 0;
    v.push = 0;
    v.record_due = false;
}

/// KVM_RUN returns.
pub(crate) fn leave_to_user<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    v.pc = Pc::User;
    v.kicked = false;
    v.resched = false;
    v.waits = v.exit == Exit::DirtyRingFull && machine.on_ring_full == OnRingFull::Wait;
}
