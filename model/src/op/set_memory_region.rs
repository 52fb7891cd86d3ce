//! KVM_SET_USER_MEMORY_REGION: create, delete, move, log flag on and off; all of it under slots_lock.
//! Source: virt/kvm/kvm_main.c, kvm_set_memory_region(), kvm_set_memslot(); arch/*/kvm kvm_arch_commit_memory_region().

use super::{Act, Operation, SetMemoryRegion, View};
use crate::kernel::{rearm, slots};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::vcpu::Pc;
use crate::state::{Life, Slot, State, Vcpu};
use crate::words::constants::{MEM_LOG_DIRTY_PAGES, MEM_MAX_PAGES, MEM_READONLY, MEM_SLOTS};
use crate::words::word::{loud, quiet};
use crate::words::{
    Arch, Choice, Duty, Effect, Errno, Facts, Fields, Found, Frame, Mmu, Names, Reach, Row, Rule,
    Waits, Word,
};

pub(crate) const ENTER: u8 = 0;
pub(crate) const PUBLISH: u8 = 1;
pub(crate) const GRACE: u8 = 2;
pub(crate) const REARM: u8 = 3;
pub(crate) const FLUSH: u8 = 4;
const FREE: u8 = 5;
const PUBLISH_INVALID: u8 = 6;
const GRACE_INVALID: u8 = 7;
const ZAP: u8 = 8;
const REPLACE: u8 = 9;
pub(crate) const RETURN: u8 = 10;

/// What a call changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Create,
    Delete,
    Move,
    LogOn,
    LogOff,
}

impl Operation for SetMemoryRegion {
    const STAGES: u8 = 11;
    const STEPS: &'static [Word] = &[
        quiet("slot-enter", "takes slots_lock"),
        loud("slot-publish", "publishes the memslot"),
        quiet("slot-grace-period", "waits for readers of the old memslots"),
        loud("slot-rearm", "write-protects the memslot"),
        loud("slot-flush", "flushes TLBs"),
        loud("slot-free-bitmap", "frees the bitmap"),
        loud("slot-publish-invalid", "publishes the memslot as invalid"),
        quiet("slot-grace-period", "waits for readers of the old memslots"),
        loud("slot-zap", "drops the memslot's mappings"),
        loud("slot-replace", "replaces the memslot"),
        quiet("slot-return", "returns"),
    ];

    fn says(&self) -> &'static str {
        if self.bytes == 0 {
            "deletes the memslot {slot}"
        } else if self.logs() {
            "KVM_SET_USER_MEMORY_REGION, {slot}, log on"
        } else {
            "KVM_SET_USER_MEMORY_REGION, {slot}, log off"
        }
    }

    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Slot(self.slot, None),
            turns_log: Some(self.bytes != 0 && self.logs()),
            ..Facts::NOTHING
        }
    }

    fn row(&self, machine: &Machine, stage: u8) -> Row {
        // Whom it waits for, and whom it kicks, is all vCPUs at once.
        let step = Row::OWN
            .reads(rearm::reads(machine) | Fields::BITMAP | Fields::MMU_LOCK)
            .reach(Reach::Everything)
            .duty(Duty::FLUSHES);
        let bitmap = Fields::BITMAP | Fields::SEEN | Fields::SLOTS;
        match stage {
            ENTER => Row {
                duty: Duty::NONE,
                ..step.changes(Fields::SLOTS_LOCK)
            },
            PUBLISH => step.writes(bitmap | Fields::STALE | Fields::ACCESS | Fields::RESCHED),
            GRACE => step.writes(Fields::RESCHED),
            GRACE_INVALID => step,
            // Whether it flushes may depend on whether a leaf is open.
            REARM if rearm::flushes_changes_alone(machine) => step.changes(Fields::LEAVES),
            REARM => step.writes(Fields::LEAVES),
            FLUSH => step.writes(Fields::TLB),
            FREE => step.writes(bitmap | Fields::LEAVES | Fields::TLB),
            PUBLISH_INVALID => step.writes(Fields::SLOTS | Fields::ACCESS),
            ZAP => step.writes(Fields::LEAVES | Fields::TLB),
            REPLACE => step.writes(bitmap),
            RETURN => step.writes(Fields::SLOTS_LOCK),
            _ => Row::UNKNOWN,
        }
    }

    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(at.stage())]
    }

    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }

    #[inline(always)]
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        let (machine, state) = (at.machine, at.state);
        // A wrong kernel does not wait for PML before its flush.
        let asked =
            || Waits::Flush.unless(!machine.wiring.waits_for_pml || pml_is_on(machine, state));
        match at.stage() {
            ENTER => at.slots_lock(),
            GRACE | GRACE_INVALID => {
                Waits::OldSlots.unless(!state.vcpus.iter().any(|vcpu| vcpu.old_slots))
            }
            REARM => at.mmu_lock().or_else(asked),
            ZAP => at.mmu_lock(),
            // x86's flush waits until every vCPU has left the guest; whoever enters again turns PML on first.
            FLUSH => Waits::Flush.unless(pml_is_on(machine, state)),
            RETURN => asked(),
            _ => None,
        }
    }
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if self.blocked(&at).is_none() {
            found(Choice::Advance);
        }
    }

    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        let (machine, stage) = (act.machine, act.stage());
        if stage == ENTER {
            return self.enter(act);
        }
        // What `enter` decided on is told by the stage and by where the slot stands now.
        let slot = self.template(&act);
        match stage {
            PUBLISH => self.publish(act, slot),
            GRACE => {
                ask_for_pml(machine, act.state, slot);
                let next = if !act.state.slots[slot].logging {
                    FREE
                } else if machine.arch == Arch::S390 || act.state.caps.initially_set() {
                    // With INITIALLY_SET the pages stay as they are until CLEAR re-arms them; on s390 their leaves say what was
                    // stored to.
                    RETURN
                } else {
                    REARM
                };
                act.go(next)
            }
            REARM => {
                let flushes = !rearm::flushes_changes_alone(machine)
                    || rearm::is_open(machine, act.state, slot);
                rearm::rearm_slot(machine, act.state, slot);
                act.go(if flushes { FLUSH } else { RETURN })
            }
            FLUSH => {
                rearm::flush_slot(machine, act.state, slot);
                act.go(RETURN)
            }
            FREE => {
                if machine.arch == Arch::X86 && !act.state.slots[slot].readonly {
                    drop_small_leaves(machine, act.state, slot);
                }
                // All bits that nobody fetched are gone.
                free_bitmap(machine, act.state, slot);
                act.go(RETURN)
            }
            PUBLISH_INVALID => {
                act.state.slots[slot].life = Life::Invalid;
                note_readers(act.state);
                act.go(GRACE_INVALID)
            }
            GRACE_INVALID => act.go(ZAP),
            ZAP => {
                // x86 drops the mappings of every slot, not only of the one that goes. Source: arch/x86/kvm/mmu/mmu.c,
                // kvm_arch_flush_shadow_memslot(), with KVM_X86_QUIRK_SLOT_ZAP_ALL, which is on by default; seen on 6.18.44.
                for (index, template) in machine.slots.iter().enumerate() {
                    if index == slot || machine.arch == Arch::X86 {
                        for leaf in act.state.leaves_mut() {
                            leaf.remove_range(template.frame, template.npages);
                        }
                        rearm::flush_slot(machine, act.state, index);
                    }
                }
                act.go(REPLACE)
            }
            REPLACE => {
                if self.bytes == 0 {
                    free_bitmap(machine, act.state, slot);
                    act.state.slots[slot] = Slot::default();
                } else {
                    // The bitmap moves along: its bits count from the slot's start.
                    let place = self.place(machine, slot);
                    let moved = &mut act.state.slots[slot];
                    moved.place = place;
                    moved.life = Life::Live;
                }
                act.go(RETURN)
            }
            _ => {
                act.leave(Ok(0));
                Effect::Returned { reset: None }
            }
        }
    }

    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl SetMemoryRegion {
    pub(crate) fn logs(&self) -> bool {
        self.flags & MEM_LOG_DIRTY_PAGES != 0
    }

    /// The template of the slot that it is about.
    pub(crate) fn template<L: Layout>(&self, act: &Act<'_, L>) -> usize {
        let found = act.state.find_slot(act.machine, self.slot);
        found.unwrap_or(usize::from(self.template))
    }

    /// The checks, in the kernel's order, and what the call comes to.
    pub(crate) fn decide<L: Layout>(
        &self,
        machine: &Machine,
        state: &State<L>,
    ) -> Result<Change, Errno> {
        let (as_id, id) = (self.slot >> 16, self.slot & 0xffff);
        let page = machine.constants.page_bytes;
        let legal = match machine.arch {
            Arch::S390 => MEM_LOG_DIRTY_PAGES,
            Arch::Arm64 | Arch::X86 | Arch::Riscv | Arch::Loongarch => {
                MEM_LOG_DIRTY_PAGES | MEM_READONLY
            }
        };
        if id >= machine.constants.user_slots
            || self.flags & !legal != 0
            || !self.bytes.is_multiple_of(page)
            || !self.gpa.is_multiple_of(page)
            || !self.hva.is_multiple_of(page)
            || as_id >= machine.constants.address_spaces
            || id >= MEM_SLOTS
            || self.gpa.checked_add(self.bytes).is_none()
            || self.hva.checked_add(self.bytes).is_none()
            || self.bytes / page > MEM_MAX_PAGES
        {
            return Err(Errno::EINVAL);
        }
        let old = state.find_slot(machine, self.slot);
        let (gfn, npages) = (self.gpa / page, self.bytes / page);
        if self.bytes == 0 {
            return old.map(|_| Change::Delete).ok_or(Errno::EINVAL);
        }
        let Some(slot) = old else {
            check_overlap(machine, state, as_id, id, gfn, npages)?;
            return Ok(Change::Create);
        };
        let (template, now) = (&machine.slots[slot], state.slots[slot]);
        if template.hva != self.hva
            || u64::from(template.npages) != npages
            || now.readonly != (self.flags & MEM_READONLY != 0)
        {
            return Err(Errno::EINVAL);
        }
        if template.places[usize::from(now.place)] != gfn {
            check_overlap(machine, state, as_id, id, gfn, npages)?;
            return Ok(Change::Move);
        }
        Ok(match (now.logging, self.logs()) {
            (false, true) => Change::LogOn,
            (true, false) => Change::LogOff,
            (true, true) | (false, false) => Change::Nothing,
        })
    }

    fn enter<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let change = match self.decide(act.machine, act.state) {
            Ok(change) => change,
            Err(errno) => return act.leave(Err(errno)),
        };
        act.take_slots_lock();
        act.go(match change {
            Change::Nothing => RETURN,
            Change::Create | Change::LogOn | Change::LogOff => PUBLISH,
            Change::Delete | Change::Move => PUBLISH_INVALID,
        })
    }

    /// The bitmap is allocated before anybody can see the slot, then the slot is published.
    fn publish<L: Layout>(&self, mut act: Act<'_, L>, slot: usize) -> Effect {
        let (machine, state) = (act.machine, &mut *act.state);
        let creates = !state.slots[slot].exists();
        if creates {
            state.slots[slot] = Slot {
                life: Life::Live,
                logging: false,
                readonly: self.flags & MEM_READONLY != 0,
                bitmap: false,
                place: self.place(machine, slot),
            };
        }
        if self.logs() && state.caps.use_bitmap() {
            let template = &machine.slots[slot];
            state.slots[slot].bitmap = true;
            if state.caps.initially_set() {
                state.bitmap.insert_range(template.frame, template.npages);
                if machine.track_spurious {
                    state.written.insert_range(template.host, template.npages);
                }
            }
        }
        state.slots[slot].logging = self.logs();
        note_readers(state);
        if creates {
            ask_for_pml(machine, state, slot);
        }
        act.go(if creates { RETURN } else { GRACE })
    }

    /// Which place of its template the slot stands at with this base.
    fn place(&self, machine: &Machine, slot: usize) -> u8 {
        let gfn = self.gpa / machine.constants.page_bytes;
        let places = &machine.slots[slot].places;
        places.iter().position(|&place| place == gfn).unwrap_or(0) as u8
    }
}

/// If the slot is the first that logs, every vCPU is asked to turn PML on, which it does at its next entry. The request is one that is
/// waited for: the call goes on when every vCPU has left the guest.
/// Source: arch/x86/kvm/x86.c, kvm_mmu_update_cpu_dirty_logging(); kvm_host.h, KVM_REQ_UPDATE_CPU_DIRTY_LOGGING.
fn ask_for_pml<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize) {
    let others = |index: usize| index != slot && state.slots[index].logging;
    let first = state.slots[slot].logging && !(0..state.slots.len()).any(others);
    if machine.pml && first {
        for vcpu in 0..state.vcpus.len() {
            slots::kick_for_pml(state, vcpu);
        }
    }
}

/// Whether no vCPU is in the guest with PML off while a slot logs.
fn pml_is_on<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    let off = |v: &Vcpu<L>| v.pc == Pc::Guest && !v.pml_on;
    !machine.pml || !state.any_logs() || !state.vcpus.iter().any(off)
}

fn check_overlap<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    as_id: u32,
    id: u32,
    gfn: u64,
    npages: u64,
) -> Result<(), Errno> {
    let overlaps = machine
        .slots
        .iter()
        .zip(state.slots.iter())
        .any(|(template, slot)| {
            let first = template
                .places
                .get(usize::from(slot.place))
                .copied()
                .unwrap_or(0);
            slot.exists()
                && template.as_id == as_id
                && template.id != id
                && gfn < first + u64::from(template.npages)
                && first < gfn + npages
        });
    if overlaps { Err(Errno::EEXIST) } else { Ok(()) }
}

/// With the log off, x86 drops the small leaves of what can be mapped by a huge one; the next access maps that.
/// Source: arch/x86/kvm/mmu/mmu.c, kvm_rmap_zap_collapsible_spte(); seen on 6.18.44 with shadow paging.
fn drop_small_leaves<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize) {
    let template = &machine.slots[slot];
    let pages = machine.constants.huge_pages;
    if !template.huge || pages < 2 {
        return;
    }
    for region in 0..template.npages / pages {
        let first = template.frame + region * pages;
        if state.huge.contains(first) {
            continue;
        }
        if machine.mmu == Mmu::TwoDimensional && machine.kernel.puts_huge_leaves_back() {
            put_huge_leaf_back(state, first, pages);
            continue;
        }
        for leaf in state.leaves_mut() {
            leaf.remove_range(first, pages);
        }
    }
    rearm::flush_slot(machine, state, slot);
}

/// The huge leaf comes back in place of the small ones, as the first of them is that is there; where there is none, nothing changes.
/// Source: arch/x86/kvm/mmu/tdp_mmu.c, tdp_mmu_make_huge_spte(), recover_huge_pages_range(); seen on 7.3.4.
fn put_huge_leaf_back<L: Layout>(state: &mut State<L>, first: Frame, pages: u32) {
    let Some(like) = state
        .present
        .next(first)
        .filter(|page| *page < first + pages)
    else {
        return;
    };
    let (writable, dirty) = (
        state.writable.contains(like),
        state.dirty_bit.contains(like),
    );
    state.present.insert_range(first, pages);
    state.huge.insert_range(first, pages);
    state.writable.remove_range(first, pages);
    state.dirty_bit.remove_range(first, pages);
    if writable {
        state.writable.insert_range(first, pages);
    }
    if dirty {
        state.dirty_bit.insert_range(first, pages);
    }
}

fn free_bitmap<L: Layout>(machine: &Machine, state: &mut State<L>, slot: usize) {
    let template = &machine.slots[slot];
    state
        .bitmap
        .remove_range(template.frame, machine.padded(template.npages));
    state
        .seen
        .remove_range(template.frame, machine.padded(template.npages));
    state.slots[slot].bitmap = false;
}

/// Everybody who looks at the old memslots now must be waited for.
fn note_readers<L: Layout>(state: &mut State<L>) {
    for vcpu in state.vcpus.iter_mut() {
        vcpu.old_slots = vcpu.reads_slots();
    }
}
