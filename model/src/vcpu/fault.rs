//! The fault path: the slot is looked up, the leaf is set, the page is marked, in the architecture's order.

use super::entry;
use crate::kernel::mark as primitive;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::slot::Life;
use crate::state::vcpu::{Exit, Pc};
use crate::state::{State, Vcpu};
use crate::words::fault::FaultStage;
use crate::words::{Arch, Frame, Kernel, Mmu, NO_FRAME, Word};

/// What faulted.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    pub(crate) frame: Frame,
    pub(crate) load: bool,
}

/// What a step of the fault path came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The path goes on.
    On,
    /// It is over: the access is tried again.
    Over,
    /// It has to start over.
    Again,
    /// The access cannot be made.
    Failed,
}

/// The order of mark and map. Source: arch/x86/kvm/mmu/spte.c, make_spte(); mmu.c, fast_page_fault();
/// arch/arm64/kvm/mmu.c, user_mem_abort(); arch/riscv/kvm/mmu.c, kvm_riscv_mmu_map(); arch/loongarch/kvm/mmu.c, kvm_map_page().
fn stages(machine: &Machine, fast: bool) -> &'static [FaultStage] {
    use FaultStage::{FastMap, Lock, Map, Mark, Resolve, Unlock};
    if let Some(wrong) = machine.wiring.fault_stages {
        return wrong;
    }
    if fast {
        return &[Resolve, FastMap, Mark];
    }
    match machine.arch {
        Arch::X86 if has_fast_path(machine) && machine.kernel.x86_tdp_marks_last() => {
            &[Resolve, Lock, Map, Mark, Unlock]
        }
        Arch::X86 | Arch::Riscv => &[Resolve, Lock, Mark, Map, Unlock],
        Arch::Arm64 if machine.kernel.arm64_mark_in_lock() => &[Resolve, Lock, Map, Mark, Unlock],
        Arch::Arm64 | Arch::Loongarch | Arch::S390 => &[Resolve, Lock, Map, Unlock, Mark],
    }
}

/// The step that a vCPU in its fault path is at.
#[inline(always)]
pub(crate) fn stage<L: Layout>(machine: &Machine, v: &Vcpu<L>) -> FaultStage {
    stages(machine, v.fast)[usize::from(v.stage)]
}

/// Whether faults on a leaf that is there take x86's lockless path.
pub(crate) fn has_fast_path(machine: &Machine) -> bool {
    machine.arch == Arch::X86 && machine.mmu == Mmu::TwoDimensional
}

/// Whether the path has opened the leaf, or may have, and has not marked yet.
#[inline]
pub(super) fn owes<L: Layout>(machine: &Machine, v: &Vcpu<L>) -> bool {
    if !v.logging {
        return false;
    }
    let (behind, ahead) = stages(machine, v.fast).split_at(usize::from(v.stage));
    ahead.contains(&FaultStage::Mark)
        && behind
            .iter()
            .any(|stage| matches!(stage, FaultStage::Map | FaultStage::FastMap))
}

/// Whether the next step is possible.
#[inline(always)]
pub(crate) fn is_ready<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> bool {
    !(stage(machine, &state.vcpus[vcpu]) == FaultStage::Lock && state.mmu_lock_write)
}

/// Whether the last step of a vCPU's path was to take mmu_lock.
#[inline]
pub(crate) fn has_just_locked<L: Layout>(machine: &Machine, v: &Vcpu<L>) -> bool {
    let before = usize::from(v.stage).checked_sub(1);
    v.push == 0 && before.is_some_and(|at| stages(machine, v.fast)[at] == FaultStage::Lock)
}

/// The name of the next step.
pub(crate) fn word<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Word {
    match stage(machine, &state.vcpus[vcpu]) {
        FaultStage::Mark => primitive::word(machine, state, vcpu),
        stage => FaultStage::WORDS[stage as usize],
    }
}

/// A step of the path of the access in work.
pub(crate) fn take<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &state.vcpus[vcpu];
    let access = Access {
        frame: v.frame,
        load: v.load,
    };
    let came = step(machine, state, vcpu, access);
    go_on(machine, state, vcpu, came);
}

/// Where the vCPU is after such a step.
pub(crate) fn go_on<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, came: Came) {
    match came {
        Came::On => {}
        Came::Over | Came::Again => entry::go(machine, state, vcpu, 0),
        Came::Failed => {
            // The access is given up, and KVM_RUN returns.
            let v = &mut state.vcpus[vcpu];
            v.frame = NO_FRAME;
            v.exit = Exit::NoMemory;
            v.old_slots = false;
            entry::to_exit(v);
        }
    }
}

/// A step of the fault path of an access.
pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    access: Access,
) -> Came {
    let frame = access.frame;
    let slot = machine.slot_of_frame(frame);
    let life = slot.map_or(Life::Absent, |slot| state.slots[slot].life);
    match stage(machine, &state.vcpus[vcpu]) {
        FaultStage::Resolve => {
            match life {
                Life::Live => {}
                Life::Invalid => return Came::Again,
                Life::Absent => return Came::Failed,
            }
            let readonly = slot.is_some_and(|slot| state.slots[slot].readonly);
            if readonly && !access.load {
                // A store to a read-only slot is user space's business: KVM_RUN returns with an MMIO exit.
                return Came::Failed;
            }
            // What is mapped read-only is not marked: a load of a read-only slot leaves no record, nor one of a page that the host has
            // no memory for. s390 does not mark at faults: GET collects what the leaves say.
            let zeros = access.load && is_unbacked(machine, frame);
            // RISC-V marks before it maps, and only what it will map writable; seen on 6.12.117.
            let read_only = access.load
                && machine.arch == Arch::Riscv
                && slot.is_some_and(|slot| path_logs(machine, state, slot));
            state.vcpus[vcpu].logging = slot.is_some_and(|slot| state.logs(slot))
                && !readonly
                && !zeros
                && !read_only
                && machine.arch != Arch::S390;
        }
        FaultStage::Lock => {
            // A slot that was published invalid in the meantime makes the fault start over.
            if life != Life::Live {
                return Came::Again;
            }
            hold_mmu_lock(machine, state, vcpu, true);
        }
        FaultStage::Map => {
            let huge = slot
                .is_some_and(|slot| !path_logs(machine, state, slot) || machine.arch == Arch::S390);
            map(machine, state, vcpu, access, huge);
        }
        FaultStage::FastMap => {
            // A huge leaf of a slot that logs is not made writable as a whole.
            let huge = state.huge.contains(frame)
                && slot.is_some_and(|slot| path_logs(machine, state, slot));
            if huge || !state.present.contains(frame) {
                // The leaf is gone, or has to be split: the slow path takes over.
                let v = &mut state.vcpus[vcpu];
                v.fast = false;
                v.was_absent = true;
                return Came::On;
            }
            if state.writable.contains(frame) {
                // Somebody else was faster; the fault is spurious and nothing is marked.
                return Came::Again;
            }
            state.writable.insert(frame);
        }
        FaultStage::Mark => {
            // arm64 marks the first page of the block that it maps.
            let block = machine.arch == Arch::Arm64
                && machine.kernel.arm64_marks_block()
                && state.huge.contains(frame);
            let first = block.then(|| huge_region(machine, frame)).flatten();
            return mark(machine, state, vcpu, first.unwrap_or(frame));
        }
        FaultStage::Unlock => hold_mmu_lock(machine, state, vcpu, false),
        // Nobody but a wrong kernel has it: see `mutated::vcpus`.
        FaultStage::SplitStore => {}
    }
    next(machine, state, vcpu)
}

/// A step of marking; with the last one the path goes on.
pub(crate) fn mark<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    frame: Frame,
) -> Came {
    let logging = state.vcpus[vcpu].logging;
    if primitive::mark(machine, state, vcpu, frame, logging) {
        next(machine, state, vcpu)
    } else {
        Came::On
    }
}

/// To the next step of the path; a mark that would do nothing is passed over.
pub(crate) fn next<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) -> Came {
    let v = &mut state.vcpus[vcpu];
    let stages = stages(machine, v.fast);
    let mut stage = v.stage + 1;
    while let Some(next) = stages.get(usize::from(stage)) {
        if *next != FaultStage::Mark || v.logging {
            v.stage = stage;
            v.push = 0;
            return Came::On;
        }
        stage += 1;
    }
    v.old_slots = false;
    v.logging = false;
    v.fast = false;
    v.was_absent = false;
    Came::Over
}

/// mmu_lock is taken or dropped: for read, unless faults exclude each other.
pub(crate) fn hold_mmu_lock<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    holds: bool,
) {
    if machine.faults_share_mmu_lock() {
        state.vcpus[vcpu].reads_mmu = holds;
    } else {
        state.mmu_lock_write = holds;
    }
}

/// Whether the slot logs as the architecture's fault path sees it: it decides whether loads map read-only and whether
/// huge mappings are made. Source: arch/arm64/kvm/mmu.c, memslot_is_logging() (a slot without a bitmap does not log).
fn path_logs<L: Layout>(machine: &Machine, state: &State<L>, slot: usize) -> bool {
    let slot = &state.slots[slot];
    match machine.arch {
        Arch::Arm64 => slot.bitmap && !slot.readonly,
        Arch::Riscv if machine.kernel.riscv_needs_bitmap() => slot.bitmap,
        Arch::Loongarch if machine.kernel < Kernel::V6_12 => slot.bitmap,
        Arch::X86 | Arch::Riscv | Arch::Loongarch | Arch::S390 => slot.logging,
    }
}

/// The first frame of the huge mapping that the host can give around `frame`: aligned and inside the slot.
pub(crate) fn huge_region(machine: &Machine, frame: Frame) -> Option<Frame> {
    let template = &machine.slots[machine.slot_of_frame(frame)?];
    let pages = machine.constants.huge_pages;
    if !template.huge || pages < 2 || !machine.arch.maps_huge(machine.kernel) {
        return None;
    }
    let offset = (frame - template.frame) / pages * pages;
    (offset + pages <= template.npages).then_some(template.frame + offset)
}

/// The leaf is set; `huge` allows a huge one, where the host can give it.
pub(crate) fn map<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    access: Access,
    huge: bool,
) {
    let frame = access.frame;
    let Some(slot) = machine.slot_of_frame(frame) else {
        return;
    };
    // x86 maps a page that is only read writable and marks it; the others map it read-only while the slot logs.
    let zeros = access.load && is_unbacked(machine, frame);
    let by_load = machine.arch == Arch::X86 || !path_logs(machine, state, slot);
    let writable = !state.slots[slot].readonly && !zeros && (!access.load || by_load);
    let v = &mut state.vcpus[vcpu];
    if machine.arch == Arch::Arm64 && v.was_absent && state.writable.contains(frame) {
        // Somebody else mapped it since: the identical leaf is left alone and nothing is marked.
        v.logging = false;
        return;
    }
    v.logging &= writable;
    let region = huge_region(machine, frame);
    let pages = machine.constants.huge_pages;
    if let Some(first) = region.filter(|_| huge) {
        state.huge.insert_range(first, pages);
        return set_leaves(machine, state, first, pages, writable);
    }
    if let Some(first) = region.filter(|_| state.huge.contains(frame)) {
        // The huge leaf gives way to a table: on x86's two-dimensional MMU and on RISC-V one that has all of its pages, as they were;
        // elsewhere one that has this page alone. Source: arch/x86/kvm/mmu/tdp_mmu.c, tdp_mmu_split_huge_page(); mmu/spte.c,
        // make_huge_page_split_spte(); arch/riscv/kvm/gstage.c, kvm_riscv_gstage_split_huge().
        let keeps = match machine.arch {
            Arch::X86 => machine.mmu == Mmu::TwoDimensional,
            Arch::Riscv => true,
            Arch::Arm64 | Arch::Loongarch | Arch::S390 => false,
        };
        if keeps {
            state.huge.remove_range(first, pages);
        } else {
            for leaf in state.leaves_mut() {
                leaf.remove_range(first, pages);
            }
        }
    }
    // A pre-fault makes a writable leaf anew, and its dirty bit is clear then: the next store is logged once more. Source: arch/x86/kvm/mmu/spte.c,
    // make_spte() (6.12); seen on 6.12.117.
    let is_made_anew = machine.pml
        && state.vcpus[vcpu].pc == Pc::PreFault
        && !machine.kernel.pre_fault_passes_present()
        && state.writable.contains(frame);
    set_leaves(machine, state, frame, 1, writable);
    if is_made_anew {
        state.dirty_bit.remove(frame);
    }
    if machine.prefetch_pages > 1 {
        prefetch(machine, state, slot, frame);
    }
}

/// Leaves are there, writable perhaps, and then as if stored to.
fn set_leaves<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    first: Frame,
    count: u32,
    writable: bool,
) {
    state.present.insert_range(first, count);
    if writable {
        state.writable.insert_range(first, count);
        if machine.pml {
            state.dirty_bit.insert_range(first, count);
        }
    }
}

/// Whether a frame's host page has no memory of its own.
fn is_unbacked(machine: &Machine, frame: Frame) -> bool {
    !machine.unbacked.is_empty() && machine.unbacked.contains(machine.host_page(frame))
}

/// x86's shadow paging maps the neighbours of a page that it maps, writable, where the slot does not log and the host has memory
/// for them: each run of absent pages in the window, up to the first run that fails.
/// Source: arch/x86/kvm/mmu/mmu.c, __direct_pte_prefetch(), direct_pte_prefetch_many(); virt/kvm/kvm_main.c,
/// gfn_to_page_many_atomic().
fn prefetch<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize, frame: Frame) {
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
        let backed = from
            .and_on(count)
            .take_while(|&at| !is_unbacked(machine, at))
            .count() as u32;
        if backed == 0 {
            return;
        }
        set_leaves(machine, state, from, backed, true);
    }
}
