//! The MMU notifier: the host takes mappings back, or their permission.

use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::words::{Arch, Frame, HostPage, Kernel};

/// Gives host pages memory of their own, before somebody stores to them: what KVM had mapped there goes.
/// Source: virt/kvm/kvm_main.c, kvm_mmu_notifier_invalidate_range_start().
pub fn back<L: Layout>(machine: &mut Machine, state: &mut State<L>, first: HostPage, count: u32) {
    if machine.unbacked.is_empty() {
        return;
    }
    let end = HostPage(first.0.saturating_add(count));
    for slot in &machine.slots {
        let (from, to) = (first.max(slot.host), end.min(slot.host + slot.npages));
        if from >= to {
            continue;
        }
        let frames = slot.frame + (from - slot.host)..slot.frame + (to - slot.host);
        let mut at = frames.start;
        while let Some(frame) = state
            .present
            .next(at)
            .filter(|frame| frames.contains(frame))
        {
            at = frame + 1;
            if machine.unbacked.contains(slot.host + (frame - slot.frame)) {
                unmap(state, frame);
            }
        }
    }
    machine.unbacked.remove_range(first, count);
}

/// The host takes a page's memory away: its leaf goes, and TLBs are flushed. On s390 the page's dirty state went with the leaf's
/// successor until 7.2, and is dropped since. Source: virt/kvm/kvm_main.c, kvm_mmu_notifier_invalidate_range_start(); arch/s390/kvm/gmap.c.
pub(crate) fn take<L: Layout>(machine: &Machine, state: &mut State<L>, frame: Frame) {
    let keeps = machine.arch == Arch::S390 && machine.kernel < Kernel::V7_2;
    let dirty = keeps && state.dirty_bit.contains(frame);
    unmap(state, frame);
    if dirty {
        state.dirty_bit.insert(frame);
    }
}

/// A leaf goes, and with it what TLBs have of it.
fn unmap<L: Layout>(state: &mut State<L>, frame: Frame) {
    for leaf in state.leaves_mut() {
        leaf.remove(frame);
    }
    for vcpu in state.vcpus.iter_mut() {
        vcpu.tlb.remove(frame);
    }
}

/// The host ages a page: what says that it was accessed is cleared, and TLBs are not flushed. Where the leaf has a bit of its own for that, it stays
/// as it was: the next access sets the bit, or faults and comes back to the same leaf, and nothing is marked. x86's leaves without such a bit lose
/// their permission; on RISC-V the fault maps the page anew; on s390 the leaf itself is made invalid.
/// Source: arch/arm64/kvm/mmu.c, kvm_age_gfn(); arch/x86/kvm/mmu/tdp_mmu.c, kvm_tdp_mmu_age_spte(); arch/x86/kvm/mmu/spte.c,
/// mark_spte_for_access_track(); arch/loongarch/kvm/mmu.c, kvm_age_gfn(); arch/riscv/kvm/mmu.c, kvm_age_gfn().
pub(crate) fn age<L: Layout>(machine: &Machine, state: &mut State<L>, frame: Frame) {
    match machine.arch {
        Arch::Arm64 | Arch::Loongarch => return,
        Arch::X86 if machine.accessed_bits => return,
        Arch::X86 | Arch::Riscv => state.dirty_bit.remove(frame),
        Arch::S390 => {}
    }
    state.present.remove(frame);
    state.writable.remove(frame);
    state.huge.remove(frame);
}
