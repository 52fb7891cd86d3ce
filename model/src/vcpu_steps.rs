//! What a vCPU does: run, look up its TLB, fault, mark, push, leave.
//!
//! Yield points Y1–Y21 and Y60 of the project's list, and Y61's other side: every arm of [`apply`] is one atomic step.

use crate::layout::{Array, Layout};
use crate::machine::{Arch, Kernel, Machine, Mmu, OnRingFull, WriterLog};
use crate::mutation::Mutation;
use crate::pages::PageSet;
use crate::ring::{F_DIRTY, RingEntry};
use crate::slot::Life;
use crate::state::State;
use crate::step::Choice;
use crate::vcpu::{Exit, NO_FRAME, Pc, UNLIMITED};

/// A check on the way into the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryStage {
    /// The soft-full request.
    SoftFull,
    /// Steal time and other records that the kernel keeps in guest memory.
    Steal,
    /// Into the guest, unless a signal is pending.
    Enter,
}

/// The order of the request checks. Source: arch/x86/kvm/x86.c, vcpu_enter_guest(); arch/arm64/kvm/arm.c, check_vcpu_requests();
/// arch/loongarch/kvm/vcpu.c, kvm_check_requests(); arch/riscv/kvm/vcpu.c, kvm_riscv_check_vcpu_requests().
pub(crate) const fn entry_stages(arch: Arch) -> [EntryStage; 3] {
    match arch {
        Arch::X86 | Arch::Loongarch | Arch::S390 => {
            [EntryStage::SoftFull, EntryStage::Steal, EntryStage::Enter]
        }
        Arch::Arm64 | Arch::Riscv => [EntryStage::Steal, EntryStage::SoftFull, EntryStage::Enter],
    }
}

/// A step of the fault path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultStage {
    /// Y3: the slot and its flags are looked up; the SRCU section begins.
    Resolve,
    /// Y4.
    Lock,
    /// Y5, under mmu_lock.
    Map,
    /// Y5, by x86's lockless path.
    FastMap,
    /// Y7 and the push.
    Mark,
    /// Y6.
    Unlock,
    /// The mutated store of an emulator that marks, then stores without looking again.
    SplitStore,
}

/// The order of mark and map. Source: arch/x86/kvm/mmu/spte.c, make_spte(); mmu.c, fast_page_fault();
/// arch/arm64/kvm/mmu.c, user_mem_abort(); arch/riscv/kvm/mmu.c, kvm_riscv_mmu_map(); arch/loongarch/kvm/mmu.c, kvm_map_page().
pub(crate) fn fault_stages(machine: &Machine, fast: bool) -> &'static [FaultStage] {
    use FaultStage::{FastMap, Lock, Map, Mark, Resolve, SplitStore, Unlock};
    if machine.mutations.has(Mutation::VcpuWriteSplit) {
        return &[Resolve, Mark, SplitStore];
    }
    if machine.mutations.has(Mutation::FaultUnlockBetween) {
        return &[Resolve, Lock, Mark, Unlock, Map];
    }
    if machine.mutations.has(Mutation::FaultMarkBeforeSuccess) {
        return &[Resolve, Mark, Lock, Map, Unlock];
    }
    if fast {
        return &[Resolve, FastMap, Mark];
    }
    match machine.arch {
        Arch::X86 | Arch::Riscv => &[Resolve, Lock, Mark, Map, Unlock],
        Arch::Arm64 if machine.kernel.arm64_mark_in_lock() => &[Resolve, Lock, Map, Mark, Unlock],
        Arch::Arm64 | Arch::Loongarch | Arch::S390 => &[Resolve, Lock, Map, Unlock, Mark],
    }
}

/// Whether the vCPU's fault path has made the leaf writable, or may have, and has not marked yet, or holds mmu_lock
/// between the two: it owes the mark of its frame.
pub(crate) fn owes_mark<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
) -> Option<u32> {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::Fault => {
            let stages = fault_stages(machine, v.fast);
            let marked = stages.iter().position(|stage| *stage == FaultStage::Mark)?;
            let stage = usize::from(v.stage);
            let mapped = stages
                .iter()
                .take(stage)
                .any(|s| matches!(s, FaultStage::Map | FaultStage::FastMap));
            (mapped && stage <= marked && v.logging).then_some(v.frame)
        }
        Pc::StealMark | Pc::ExitMark => Some(machine.vcpus[vcpu].steal_frame),
        _ => None,
    }
}

/// The number of entries at which a ring counts as soft-full.
#[must_use]
pub(crate) fn soft_limit(machine: &Machine, size: u32) -> u32 {
    let late = u32::from(machine.mutations.has(Mutation::RingSoftFullLate));
    size.saturating_sub(machine.constants.ring_reserved)
        + late * (machine.constants.ring_reserved + 1)
}

/// Whether the slot logs as the architecture's fault path sees it: it decides whether loads map read-only and whether
/// huge mappings are made. Source: arch/arm64/kvm/mmu.c, memslot_is_logging() (a slot without a bitmap does not log).
fn fault_path_logs<L: Layout>(machine: &Machine, state: &State<L>, slot: usize) -> bool {
    let slot = &state.slots[slot];
    match machine.arch {
        Arch::Arm64 => slot.bitmap && !slot.readonly,
        Arch::Riscv if machine.kernel.riscv_needs_bitmap() => slot.bitmap,
        Arch::Loongarch if machine.kernel < Kernel::V6_12 => slot.bitmap,
        _ => slot.logging,
    }
}

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    mut found: impl FnMut(Choice),
) {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::User => {
            if state.guest_runs && !v.waits && !v.kicked && !state.vcpu_mutexes {
                found(Choice::Advance);
            }
        }
        Pc::Entry => {
            found(Choice::Advance);
            if entry_stages(machine.arch)[usize::from(v.stage)] == EntryStage::Steal && v.steal > 0
            {
                found(Choice::Steal);
            }
        }
        Pc::Guest => {
            if v.kicked || v.resched {
                found(Choice::Leave);
            }
            if v.frame != NO_FRAME {
                found(Choice::Advance);
                if v.tlb.contains(v.frame) && !leaf_lets_store(machine, state, v.frame) {
                    found(Choice::Miss);
                }
                return;
            }
            if v.stores > 0 {
                for &frame in &machine.vcpus[vcpu].frames {
                    if frame_is_live(machine, state, frame) {
                        found(Choice::Store(frame));
                    }
                }
            }
            if v.loads > 0 {
                for &frame in &machine.vcpus[vcpu].frames {
                    if frame_is_live(machine, state, frame) && !state.present.contains(frame) {
                        found(Choice::Load(frame));
                    }
                }
            }
        }
        Pc::Fault => {
            let stage = fault_stages(machine, v.fast)[usize::from(v.stage)];
            match stage {
                FaultStage::Lock if state.mmu_lock_write => {}
                FaultStage::Map if machine.mutations.has(Mutation::FaultMarkBeforeSuccess) => {
                    found(Choice::Advance);
                    found(Choice::Fail);
                }
                FaultStage::Map
                    if machine.mutations.has(Mutation::FaultUnlockBetween)
                        && state.mmu_lock_write => {}
                _ => found(Choice::Advance),
            }
        }
        Pc::Exit => {
            found(Choice::Advance);
            if v.steal > 0 {
                found(Choice::Steal);
            }
        }
        Pc::StealMark | Pc::ExitMark | Pc::Flush | Pc::FlushOnly => found(Choice::Advance),
    }
}

fn frame_is_live<L: Layout>(machine: &Machine, state: &State<L>, frame: u32) -> bool {
    machine
        .slot_of_frame(frame)
        .is_some_and(|slot| state.slots[slot].life == Life::Live)
}

/// The fault path takes mmu_lock or drops it: for read, unless faults exclude each other.
fn hold_mmu_lock<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, holds: bool) {
    match machine.mmu {
        Mmu::TwoDimensional => state.vcpus[vcpu].reads_mmu = holds,
        Mmu::Shadow => state.mmu_lock_write = holds,
    }
}

/// Whether the leaf lets a store through without a fault and without being logged.
#[inline]
fn leaf_lets_store<L: Layout>(machine: &Machine, state: &State<L>, frame: u32) -> bool {
    state.writable.contains(frame) && (!machine.has_dirty_bits() || state.dirty_bit.contains(frame))
}

#[inline]
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    choice: Choice,
) {
    match state.vcpus[vcpu].pc {
        Pc::User => {
            let v = &mut state.vcpus[vcpu];
            v.exit = Exit::None;
            go_to_entry(machine, state, vcpu, 0);
        }
        Pc::Entry => match choice {
            Choice::Steal => steal(machine, state, vcpu, Pc::StealMark),
            _ => entry(machine, state, vcpu),
        },
        Pc::StealMark => {
            if steal_mark(machine, state, vcpu) {
                let next = state.vcpus[vcpu].stage + 1;
                go_to_entry(machine, state, vcpu, next);
            }
        }
        Pc::Guest => match choice {
            Choice::Store(frame) => {
                let v = &mut state.vcpus[vcpu];
                v.stores -= u8::from(v.stores != UNLIMITED);
                v.frame = frame;
                v.load = false;
                access(machine, state, vcpu);
            }
            Choice::Load(frame) => {
                let v = &mut state.vcpus[vcpu];
                v.loads -= 1;
                v.frame = frame;
                v.load = true;
                access(machine, state, vcpu);
            }
            Choice::Miss => {
                let v = &mut state.vcpus[vcpu];
                let frame = v.frame;
                v.tlb.remove(frame);
                access(machine, state, vcpu);
            }
            Choice::Leave => {
                state.vcpus[vcpu].resched = false;
                vm_exit(machine, state, vcpu, false);
            }
            _ => access(machine, state, vcpu),
        },
        Pc::Flush | Pc::FlushOnly => flush_pml(machine, state, vcpu),
        Pc::Fault => fault(machine, state, vcpu, choice),
        Pc::Exit => match choice {
            Choice::Steal => steal(machine, state, vcpu, Pc::ExitMark),
            _ => leave_to_user(machine, state, vcpu),
        },
        Pc::ExitMark => {
            if steal_mark(machine, state, vcpu) {
                let v = &mut state.vcpus[vcpu];
                v.pc = Pc::Exit;
                v.old_slots = false;
            }
        }
    }
}

/// To the request checks, from `stage` on; stages that can do nothing are passed over.
fn go_to_entry<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, stage: u8) {
    let stages = entry_stages(machine.arch);
    let v = &mut state.vcpus[vcpu];
    let mut stage = stage;
    loop {
        let idle = match stages[usize::from(stage)] {
            EntryStage::SoftFull => !v.request,
            EntryStage::Steal => v.steal == 0,
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

/// Y8: a request check, or the way into the guest.
fn entry<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let logs = state.any_logs();
    let v = &mut state.vcpus[vcpu];
    match entry_stages(machine.arch)[usize::from(v.stage)] {
        EntryStage::SoftFull => {
            // Source: virt/kvm/dirty_ring.c, kvm_dirty_ring_check_request(). The request is consumed, and raised again when
            // the ring is still soft-full.
            if v.ring.used() >= soft_limit(machine, v.ring.size()) {
                v.exit = Exit::DirtyRingFull;
                to_exit(v);
            } else {
                v.request = false;
                let next = v.stage + 1;
                go_to_entry(machine, state, vcpu, next);
            }
        }
        EntryStage::Steal => {
            let next = v.stage + 1;
            go_to_entry(machine, state, vcpu, next);
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

fn to_exit<L: Layout>(v: &mut crate::vcpu::Vcpu<L>) {
    v.pc = Pc::Exit;
    v.stage = 0;
    v.push = 0;
}

/// Y15: KVM_RUN returns.
fn leave_to_user<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    v.pc = Pc::User;
    v.kicked = false;
    v.resched = false;
    v.waits = v.exit == Exit::DirtyRingFull && machine.on_ring_full == OnRingFull::Wait;
}

/// Y1, Y2, Y9, Y11: the access of the pending frame, as far as it gets in one step.
fn access<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let frame = state.vcpus[vcpu].frame;
    let split = machine.mutations.has(Mutation::VcpuWriteSplit);
    if state.vcpus[vcpu].load {
        if state.present.contains(frame) {
            state.vcpus[vcpu].frame = NO_FRAME;
            return;
        }
        return vm_exit(machine, state, vcpu, true);
    }
    if split {
        return vm_exit(machine, state, vcpu, true);
    }
    if state.vcpus[vcpu].tlb.contains(frame) {
        return retire(machine, state, vcpu);
    }
    if !state.writable.contains(frame) {
        return vm_exit(machine, state, vcpu, true);
    }
    if machine.pml && !state.dirty_bit.contains(frame) {
        let v = &mut state.vcpus[vcpu];
        if v.pml_on {
            if v.pml.len() as u32 >= machine.constants.pml_entries {
                // The exit comes before the write that the buffer has no room for.
                return vm_exit(machine, state, vcpu, false);
            }
            v.pml.push(frame);
        }
        v.tlb.insert(frame);
        state.dirty_bit.insert(frame);
        return retire(machine, state, vcpu);
    }
    if machine.arch == Arch::S390 && !state.dirty_bit.contains(frame) {
        // The leaf itself is the record; nobody is told.
        state.vcpus[vcpu].tlb.insert(frame);
        state.dirty_bit.insert(frame);
        return retire(machine, state, vcpu);
    }
    // The walk fills the TLB; the store itself is a step of its own.
    state.vcpus[vcpu].tlb.insert(frame);
}

/// The store changes memory.
fn retire<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let frame = state.vcpus[vcpu].frame;
    let host = machine.host_page(frame);
    state.store(machine, host);
    state.vcpus[vcpu].frame = NO_FRAME;
}

/// Y2, Y12: out of the guest, by a fault of the pending access or without one.
fn vm_exit<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, faulted: bool) {
    let frame = state.vcpus[vcpu].frame;
    let present = faulted && state.present.contains(frame);
    let fast = faulted
        && machine.arch == Arch::X86
        && machine.mmu == Mmu::TwoDimensional
        && present
        && !state.vcpus[vcpu].load;
    let v = &mut state.vcpus[vcpu];
    v.stage = 0;
    v.push = 0;
    v.fast = fast;
    v.was_absent = faulted && !present;
    if machine.mutations.has(Mutation::PmlNoFlush) && !faulted {
        v.pml = L::Pml::default();
    }
    v.pc = if faulted { Pc::Flush } else { Pc::FlushOnly };
    if v.pml.is_empty() {
        after_flush(machine, state, vcpu);
    }
}

fn after_flush<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    if state.vcpus[vcpu].pc == Pc::Flush {
        let v = &mut state.vcpus[vcpu];
        v.pc = Pc::Fault;
        v.stage = 0;
        v.push = 0;
        v.old_slots = false;
    } else {
        go_to_entry(machine, state, vcpu, 0);
    }
}

/// Y13, Y14: one buffered page is marked; with the last one gone the buffer is empty.
/// Source: arch/x86/kvm/vmx/vmx.c, vmx_flush_pml_buffer().
fn flush_pml<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let newest_first = machine.kernel.pml_newest_first();
    let v = &state.vcpus[vcpu];
    let at = if newest_first { v.pml.len() - 1 } else { 0 };
    let mut frame = v.pml[at];
    let logging = machine
        .slot_of_frame(frame)
        .is_some_and(|slot| state.logs(slot));
    if machine.mutations.has(Mutation::NestedPmlL2) {
        let slot = machine
            .slot_of_frame(frame)
            .map(|slot| &machine.slots[slot]);
        frame = slot.map_or(frame, |slot| {
            slot.frame + (frame - slot.frame + 1) % slot.npages
        });
    }
    if mark(machine, state, vcpu, frame, logging) {
        let v = &mut state.vcpus[vcpu];
        if !newest_first {
            for next in 1..v.pml.len() {
                v.pml[next - 1] = v.pml[next];
            }
        }
        let left = v.pml.len() - 1;
        v.pml.truncate(left);
        if left == 0 {
            after_flush(machine, state, vcpu);
        }
    }
}

/// Y51 in vCPU context: the kernel's record in guest memory changes; the mark is still to come.
fn steal<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, then: Pc) {
    let host = machine.host_page(machine.vcpus[vcpu].steal_frame);
    if !machine.mutations.has(Mutation::NestedMarkUnmapped) {
        state.store(machine, host);
    }
    let v = &mut state.vcpus[vcpu];
    v.steal -= 1;
    v.push = 0;
    v.pc = then;
}

/// Y52 in vCPU context.
fn steal_mark<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) -> bool {
    let config = &machine.vcpus[vcpu];
    let frame = config.steal_frame;
    let slot = machine.slot_of_frame(frame);
    let marks =
        config.steal_log != WriterLog::None && !machine.mutations.has(Mutation::KernelRecordNoLog);
    let logging = marks && slot.is_some_and(|slot| state.logs(slot));
    mark(machine, state, vcpu, frame, logging)
}

/// Y3–Y7: a step of the fault path.
fn fault<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, choice: Choice) {
    let v = &state.vcpus[vcpu];
    let frame = v.frame;
    let slot = machine.slot_of_frame(frame);
    match fault_stages(machine, v.fast)[usize::from(v.stage)] {
        FaultStage::Resolve => {
            match slot.map_or(Life::Absent, |slot| state.slots[slot].life) {
                Life::Live => {}
                Life::Invalid => return go_to_entry(machine, state, vcpu, 0),
                Life::Absent => return fail_access(state, vcpu),
            }
            if slot.is_some_and(|slot| state.slots[slot].readonly) && !state.vcpus[vcpu].load {
                // A store to a read-only slot is user space's business: KVM_RUN returns with an MMIO exit.
                return fail_access(state, vcpu);
            }
            // What is mapped read-only is not marked: a load of a read-only slot leaves no record, nor one of a page that the host has
            // no memory for.
            let zeros = state.vcpus[vcpu].load && is_unbacked(machine, frame);
            let logging =
                slot.is_some_and(|slot| state.logs(slot) && !state.slots[slot].readonly) && !zeros;
            let v = &mut state.vcpus[vcpu];
            // s390 does not mark at faults: GET collects what the leaves say.
            v.logging = logging
                && machine.arch != Arch::S390
                && !machine.mutations.has(Mutation::FaultNoMark);
            next_fault_stage(machine, state, vcpu);
        }
        FaultStage::Lock => {
            // A slot that was published invalid in the meantime makes the fault start over.
            if !slot.is_some_and(|slot| state.slots[slot].life == Life::Live) {
                return go_to_entry(machine, state, vcpu, 0);
            }
            hold_mmu_lock(machine, state, vcpu, true);
            next_fault_stage(machine, state, vcpu);
        }
        FaultStage::Map => {
            if choice == Choice::Fail {
                hold_mmu_lock(machine, state, vcpu, false);
                return fail_access(state, vcpu);
            }
            map(machine, state, vcpu, slot);
            next_fault_stage(machine, state, vcpu);
        }
        FaultStage::FastMap => {
            // A huge leaf of a slot that logs is not made writable as a whole.
            let huge = state.huge.contains(frame)
                && slot.is_some_and(|slot| fault_path_logs(machine, state, slot));
            if huge || !state.present.contains(frame) {
                // The leaf is gone, or has to be split: the slow path takes over.
                let v = &mut state.vcpus[vcpu];
                v.fast = false;
                v.was_absent = true;
            } else if state.writable.contains(frame) {
                // Somebody else was faster; the fault is spurious and nothing is marked.
                go_to_entry(machine, state, vcpu, 0);
            } else {
                state.writable.insert(frame);
                next_fault_stage(machine, state, vcpu);
            }
        }
        FaultStage::Mark => {
            let logging = state.vcpus[vcpu].logging;
            let mut marked = frame;
            let block = machine.arch == Arch::Arm64
                && machine.kernel.arm64_marks_block()
                && state.huge.contains(frame);
            if (block || machine.mutations.has(Mutation::HugeMarkFirstOnly))
                && let Some(region) = slot.and_then(|slot| huge_region(machine, slot, frame))
            {
                marked = region;
            }
            if mark(machine, state, vcpu, marked, logging) {
                next_fault_stage(machine, state, vcpu);
            }
        }
        FaultStage::Unlock => {
            hold_mmu_lock(machine, state, vcpu, false);
            next_fault_stage(machine, state, vcpu);
        }
        FaultStage::SplitStore => {
            retire(machine, state, vcpu);
            next_fault_stage(machine, state, vcpu);
        }
    }
}

/// The access is given up, and KVM_RUN returns.
fn fail_access<L: Layout>(state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    v.frame = NO_FRAME;
    v.exit = Exit::NoMemory;
    v.old_slots = false;
    to_exit(v);
}

/// To the next step of the fault path; a mark that would do nothing is passed over.
fn next_fault_stage<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    let stages = fault_stages(machine, v.fast);
    let mut stage = v.stage + 1;
    while let Some(next) = stages.get(usize::from(stage)) {
        if *next == FaultStage::Mark && !v.logging {
            stage += 1;
        } else {
            v.stage = stage;
            v.push = 0;
            return;
        }
    }
    v.old_slots = false;
    v.logging = false;
    v.fast = false;
    v.was_absent = false;
    go_to_entry(machine, state, vcpu, 0);
}

/// The first frame of the huge mapping that the host can give around `frame`: aligned and inside the slot.
fn huge_region(machine: &Machine, slot: usize, frame: u32) -> Option<u32> {
    let template = &machine.slots[slot];
    let pages = machine.constants.huge_pages;
    if !template.huge || pages < 2 {
        return None;
    }
    let offset = (frame - template.frame) / pages * pages;
    (offset + pages <= template.npages).then_some(template.frame + offset)
}

/// Y5: the leaf is set.
fn map<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, slot: Option<usize>) {
    let Some(slot) = slot else { return };
    let v = &state.vcpus[vcpu];
    let frame = v.frame;
    let tracked = fault_path_logs(machine, state, slot);
    let readonly = state.slots[slot].readonly;
    // x86 maps a page that is only read writable and marks it; the others map it read-only while the slot logs.
    let zeros = v.load && is_unbacked(machine, frame);
    let writable = !readonly && !zeros && (!v.load || !tracked || machine.arch == Arch::X86);
    let was_writable = state.writable.contains(frame);
    if machine.arch == Arch::Arm64 && v.was_absent && was_writable {
        // Somebody else mapped it since: the identical leaf is left alone and nothing is marked.
        state.vcpus[vcpu].logging = false;
        return;
    }
    if !writable {
        state.vcpus[vcpu].logging = false;
    }
    let region = huge_region(machine, slot, frame).filter(|_| {
        !tracked || machine.arch == Arch::S390 || machine.mutations.has(Mutation::HugeMarkFirstOnly)
    });
    match region {
        Some(first) => {
            let pages = machine.constants.huge_pages;
            state.present.insert_range(first, pages);
            state.huge.insert_range(first, pages);
            if writable {
                state.writable.insert_range(first, pages);
                if machine.pml {
                    state.dirty_bit.insert_range(first, pages);
                }
            }
        }
        None => {
            if state.huge.contains(frame)
                && let Some(first) = huge_region(machine, slot, frame)
            {
                // The huge leaf gives way to a table that has this one page.
                let pages = machine.constants.huge_pages;
                state.huge.remove_range(first, pages);
                state.present.remove_range(first, pages);
                state.writable.remove_range(first, pages);
                state.dirty_bit.remove_range(first, pages);
            }
            state.present.insert(frame);
            if writable {
                state.writable.insert(frame);
                if machine.pml {
                    state.dirty_bit.insert(frame);
                }
            }
            if machine.prefetch_pages > 1 {
                prefetch(machine, state, slot, frame);
            }
        }
    }
}

/// Whether a frame's host page has no memory of its own.
fn is_unbacked(machine: &Machine, frame: u32) -> bool {
    !machine.unbacked.is_empty() && machine.unbacked.contains(machine.host_page(frame))
}

/// x86's shadow paging maps the neighbours of a page that it maps, writable, where the slot does not log and the host has memory
/// for them: each run of absent pages in the window, up to the first run that fails.
/// Source: arch/x86/kvm/mmu/mmu.c, __direct_pte_prefetch(), direct_pte_prefetch_many(); virt/kvm/kvm_main.c,
/// gfn_to_page_many_atomic().
fn prefetch<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize, frame: u32) {
    let template = &machine.slots[slot];
    let now = state.slots[slot];
    if now.logging || now.readonly {
        return;
    }
    let base = template.places[usize::from(now.place)];
    let frame_of = |gfn: u64| {
        let page = gfn.checked_sub(base)?;
        (page < u64::from(template.npages)).then(|| template.frame + page as u32)
    };
    let window = u64::from(machine.prefetch_pages);
    let first = (base + u64::from(frame - template.frame)) / window * window;
    let mut run: Option<u64> = None;
    for gfn in first..=first + window {
        let absent =
            gfn < first + window && !frame_of(gfn).is_some_and(|at| state.present.contains(at));
        if absent {
            run = run.or(Some(gfn));
            continue;
        }
        let Some(start) = run.take() else { continue };
        // A run that is not all in the slot is not mapped at all.
        let (Some(from), Some(_)) = (frame_of(start), frame_of(gfn - 1)) else {
            return;
        };
        let count = (gfn - start) as u32;
        let backed = (from..from + count)
            .take_while(|&at| !is_unbacked(machine, at))
            .count() as u32;
        if backed == 0 {
            return;
        }
        state.present.insert_range(from, backed);
        state.writable.insert_range(from, backed);
        if machine.pml {
            state.dirty_bit.insert_range(from, backed);
        }
    }
}

/// A step of the one marking primitive, in vCPU context; true when the page is marked, or nothing was to be done.
/// Source: virt/kvm/kvm_main.c, mark_page_dirty_in_slot(); virt/kvm/dirty_ring.c, kvm_dirty_ring_push().
fn mark<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    frame: u32,
    logging: bool,
) -> bool {
    let Some(slot) = machine.slot_of_frame(frame).filter(|_| logging) else {
        return true;
    };
    if state.caps.ring_entries == 0 {
        if state.slots[slot].bitmap {
            state.bitmap.insert(bitmap_frame(machine, slot, frame));
        }
        return true;
    }
    push(machine, state, vcpu, slot, frame)
}

/// The frame whose bit stands for `frame`: itself.
pub(crate) fn bitmap_frame(machine: &Machine, slot: usize, frame: u32) -> u32 {
    if machine.mutations.has(Mutation::BitmapIndexNarrow) {
        let template = &machine.slots[slot];
        let half = (template.npages / 2).max(1);
        return template.frame + (frame - template.frame) % half;
    }
    frame
}

/// Y16–Y21: a step of a push; true with the last one.
fn push<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    slot: usize,
    frame: u32,
) -> bool {
    let template = &machine.slots[slot];
    let relaxed = machine.mutations.has(Mutation::PushOrderRelaxed);
    let v = &mut state.vcpus[vcpu];
    let index = v.ring.dirty_index;
    let limit = soft_limit(machine, v.ring.size());
    let write = if relaxed { (v.push + 2) % 3 } else { v.push };
    match (v.push, write) {
        (0..3, 0) => v.ring.entry_mut(index).set_slot(template.number()),
        (0..3, 1) => v
            .ring
            .entry_mut(index)
            .set_offset(u64::from(frame - template.frame)),
        (0..3, _) => v.ring.entry_mut(index).set_flags(F_DIRTY),
        (3, _) => {
            v.ring.dirty_index = index.wrapping_add(1);
            if v.ring.used() < limit || machine.mutations.has(Mutation::RingNoRequest) {
                v.push = 0;
                return true;
            }
        }
        _ => {
            v.request = true;
            v.push = 0;
            return true;
        }
    }
    v.push += 1;
    false
}

pub(crate) fn subject<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Option<u32> {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::StealMark | Pc::ExitMark => Some(machine.vcpus[vcpu].steal_frame),
        Pc::Flush | Pc::FlushOnly => v.pml.first().copied(),
        Pc::Fault | Pc::Guest => (v.frame != NO_FRAME).then_some(v.frame),
        Pc::User | Pc::Entry | Pc::Exit => None,
    }
}

fn describe_mark<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> &'static str {
    let push = state.vcpus[vcpu].push;
    if state.caps.ring_entries == 0 {
        return "set-bitmap-bit";
    }
    let write = if machine.mutations.has(Mutation::PushOrderRelaxed) && push < 3 {
        (push + 2) % 3
    } else {
        push
    };
    match write {
        0 => "push-slot",
        1 => "push-offset",
        2 => "push-flags",
        3 => "push-index",
        _ => "push-request",
    }
}

pub(crate) fn describe<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    choice: Choice,
) -> &'static str {
    let v = &state.vcpus[vcpu];
    match (v.pc, choice) {
        (Pc::User, _) => "run",
        (Pc::Entry, Choice::Steal) | (Pc::Exit, Choice::Steal) => "kernel-record-write",
        (Pc::Entry, _) => match entry_stages(machine.arch)[usize::from(v.stage)] {
            EntryStage::SoftFull => "check-soft-full",
            EntryStage::Steal => "no-kernel-record",
            EntryStage::Enter => "enter-guest",
        },
        (Pc::StealMark | Pc::ExitMark, _) => describe_mark(machine, state, vcpu),
        (Pc::Guest, Choice::Leave) => "leave-guest",
        (Pc::Guest, Choice::Miss) => "tlb-miss",
        (Pc::Guest, Choice::Store(_)) => "store",
        (Pc::Guest, Choice::Load(_)) => "load",
        (Pc::Guest, _) => {
            if v.load {
                "retry-load"
            } else {
                "retry-store"
            }
        }
        (Pc::Flush | Pc::FlushOnly, _) => match describe_mark(machine, state, vcpu) {
            "push-slot" => "pml-flush-slot",
            "push-offset" => "pml-flush-offset",
            "push-flags" => "pml-flush-flags",
            "push-index" => "pml-flush-index",
            "push-request" => "pml-flush-request",
            _ => "pml-flush-bit",
        },
        (Pc::Fault, Choice::Fail) => "fault-fails",
        (Pc::Fault, _) => match fault_stages(machine, v.fast)[usize::from(v.stage)] {
            FaultStage::Resolve => "fault-resolve",
            FaultStage::Lock => "fault-lock",
            FaultStage::Map => "fault-map",
            FaultStage::FastMap => "fault-fast-map",
            FaultStage::Mark => describe_mark(machine, state, vcpu),
            FaultStage::Unlock => "fault-unlock",
            FaultStage::SplitStore => "store-after-mark",
        },
        (Pc::Exit, _) => "return-to-user",
    }
}
