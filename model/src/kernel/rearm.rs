//! Re-arming: making the next store to a page observable again.
//!
//! Source: kvm_arch_mmu_enable_log_dirty_pt_masked() of each architecture.

use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::pages::low_bits;
use crate::words::{Arch, Choice, Fields, Found, Frame, Kernel, Mmu, Reach, Row};

/// What re-arming reads: it clears bits of the leaves, and looks at them only to find huge ones.
pub(crate) fn reads(machine: &Machine) -> Fields {
    if machine.arch == Arch::S390 || machine.slots.iter().any(|slot| slot.huge) {
        Fields::LEAVES
    } else {
        Fields::NONE
    }
}

/// Whether TLBs are flushed in the same step: RISC-V before 7.3, leaf by leaf at 6.12 and the range at 7.2.
/// Source: arch/riscv/kvm/mmu.c, gstage_op_pte() (6.12), kvm_arch_mmu_enable_log_dirty_pt_masked() (7.2).
pub(crate) fn flushes_at_once(machine: &Machine) -> bool {
    machine.arch == Arch::Riscv && machine.kernel < Kernel::V7_3
}

/// The row of a step that re-arms.
pub(crate) fn row(machine: &Machine, step: Row) -> Row {
    if flushes_at_once(machine) {
        return step
            .writes(Fields::LEAVES | Fields::TLB)
            .reach(Reach::EachVcpu);
    }
    step.writes(Fields::LEAVES)
}

/// Calls `found` with each way to re-arm `pages`, of those of a memslot or of a word of it (`among`), by frame: there is one, unless it is
/// not known which of the others lie between them.
pub(crate) fn choices(machine: &Machine, pages: u64, among: u64, found: Found<'_>) {
    if !machine.order_unknown || pages.count_ones() < 2 {
        return found(Choice::Advance);
    }
    let others = (among & !pages) as u32;
    let mut along = others;
    loop {
        found(Choice::Along(along));
        if along == 0 {
            return;
        }
        along = (along - 1) & others;
    }
}

/// The ways to re-arm the pages of the word from `frame` on that are in the scratch half.
pub(crate) fn word_choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    slot: usize,
    frame: Frame,
    found: Found<'_>,
) {
    if !machine.order_unknown {
        return found(Choice::Advance);
    }
    let (template, bits) = (&machine.slots[slot], machine.constants.word_bits);
    let end = template.frame + template.npages;
    let pages = state.scratch.word(frame, bits) << frame.0;
    let among = low_bits(bits.min(end - frame)) << frame.0;
    choices(machine, pages, among, found);
}

/// Re-arms what a choice takes along.
pub(crate) fn rearm_along<L: Layout>(machine: &Machine, state: &mut State<L>, choice: Choice) {
    let Choice::Along(along) = choice else {
        return;
    };
    let along = u64::from(along);
    state.writable.clear_word(Frame(0), along);
    if flushes_at_once(machine) {
        for vcpu in state.vcpus.iter_mut() {
            vcpu.tlb.clear_word(Frame(0), along);
        }
    }
}

/// Re-arms the pages of `mask`, bit 0 for `frame`, under mmu_lock.
pub(crate) fn rearm<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    slot: usize,
    frame: Frame,
    mut mask: u64,
) {
    if mask == 0 {
        return;
    }
    if machine.arch.rearms_range(machine.kernel) && !machine.order_unknown {
        // The whole range from the lowest to the highest bit: over-protection, never loss.
        let low = mask.trailing_zeros();
        let high = 63 - mask.leading_zeros();
        mask = low_bits(high - low + 1) << low;
    }
    let huge_too = match machine.arch {
        Arch::Arm64 | Arch::Riscv | Arch::Loongarch => true,
        Arch::X86 | Arch::S390 => false,
    };
    if splits_ahead(machine) && state.caps.initially_set() {
        // From the first of these pages to the last.
        let high = 63 - mask.leading_zeros();
        split(
            machine,
            state,
            slot,
            frame + mask.trailing_zeros(),
            frame + high,
        );
    } else if state.caps.initially_set() || huge_too {
        protect_huge(machine, state, slot, frame, mask);
    }
    if !huge_too {
        // x86 looks at small leaves alone: a huge one that is still writable, because the log began with INITIALLY_SET and that was
        // taken back before this call, stays so, and its pages are recorded no more. Seen on x86 6.18.44.
        mask &= !state.huge.word(frame, 64);
    }
    if machine.pml {
        state.dirty_bit.clear_word(frame, mask);
    } else {
        state.writable.clear_word(frame, mask);
    }
    if flushes_at_once(machine) {
        for vcpu in state.vcpus.iter_mut() {
            vcpu.tlb.clear_word(frame, mask);
        }
    }
}

/// Whether huge leaves of a slot that logs are split before anybody stores through them: x86's two-dimensional MMU does so unless it is told
/// not to (`eager_page_split`). Source: arch/x86/kvm/mmu/mmu.c, kvm_mmu_slot_try_split_huge_pages(), kvm_mmu_try_split_huge_pages(); seen
/// with PML on 6.12.117.
fn splits_ahead(machine: &Machine) -> bool {
    machine.arch == Arch::X86 && machine.mmu == Mmu::TwoDimensional && machine.kernel.splits_ahead()
}

/// Huge leaves that pages `first` to `last` are in give way to small ones, which are as the huge ones were.
fn split<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    slot: usize,
    first: Frame,
    last: Frame,
) {
    let template = &machine.slots[slot];
    let pages = machine.constants.huge_pages;
    if !template.huge || pages < 2 {
        return;
    }
    let mut page = template.frame + (first - template.frame) / pages * pages;
    let end = template.frame + template.npages;
    while page <= last {
        state.huge.remove_range(page, pages.min(end - page));
        page = page + pages;
    }
}

/// A huge leaf is write-protected as a whole when one of its pages is re-armed: x86 does so with INITIALLY_SET, the others always. Source: arch/arm64/kvm/hyp/pgtable.c, stage2_attr_walker(); seen on
/// arm64 6.12.117, in a ring without bitmap.
fn protect_huge<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    slot: usize,
    frame: Frame,
    mask: u64,
) {
    let template = &machine.slots[slot];
    let pages = machine.constants.huge_pages;
    if !template.huge || pages < 2 {
        return;
    }
    for bit in 0..64 {
        let page = frame + bit;
        if mask >> bit & 1 == 0 || !state.huge.contains(page) {
            continue;
        }
        let first = template.frame + (page - template.frame) / pages * pages;
        state.writable.remove_range(first, pages);
        state.dirty_bit.remove_range(first, pages);
    }
}

/// Whether the flush after re-arming a whole slot is left out where no leaf has changed: a leaf that another call has re-armed and not
/// flushed yet stays in the TLBs then. Source: arch/riscv/kvm/mmu.c, mmu_wp_memory_region() (not there at 6.12);
/// arch/loongarch/kvm/mmu.c, kvm_arch_commit_memory_region().
pub(crate) fn flushes_changes_alone(machine: &Machine) -> bool {
    match machine.arch {
        Arch::Loongarch => true,
        Arch::Riscv => machine.kernel >= Kernel::V7_2,
        Arch::Arm64 | Arch::X86 | Arch::S390 => false,
    }
}

/// Whether a leaf of the slot can be stored through.
pub(crate) fn is_open<L: Layout>(machine: &Machine, state: &State<L>, slot: usize) -> bool {
    let template = &machine.slots[slot];
    let open = state.writable.next(template.frame);
    open.is_some_and(|page| page < template.frame + template.npages)
}

/// Re-arms a whole slot.
pub(crate) fn rearm_slot<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize) {
    let template = &machine.slots[slot];
    if splits_ahead(machine) {
        let last = template.frame + (template.npages - 1);
        split(machine, state, slot, template.frame, last);
    }
    if machine.pml {
        state
            .dirty_bit
            .remove_range(template.frame, template.npages);
        // Huge leaves are write-protected whatever tracks the small ones.
        for page in template.frames() {
            if state.huge.contains(page) {
                state.writable.remove(page);
            }
        }
    } else {
        state.writable.remove_range(template.frame, template.npages);
    }
}

/// Flushes the TLBs of every vCPU. The flush of one slot reaches at least that slot's pages; the model
/// flushes exactly those, so that nothing is owed to a broader flush than the kernel promises.
pub(crate) fn flush_slot<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize) {
    let template = &machine.slots[slot];
    for vcpu in state.vcpus.iter_mut() {
        vcpu.tlb.remove_range(template.frame, template.npages);
    }
}
