//! KVM_SET_USER_MEMORY_REGION: create, delete, move, log flag on and off; all of it under slots_lock.
//! Source: virt/kvm/kvm_main.c, kvm_set_memory_region(), kvm_set_memslot(); arch/*/kvm kvm_arch_commit_memory_region().

use crate::errno::Errno;
use crate::ioctl::{kick_for_pml, leave, rearm};
use crate::layout::Layout;
use crate::machine::{Arch, MEM_LOG_DIRTY_PAGES, MEM_MAX_PAGES, MEM_READONLY, MEM_SLOTS, Machine};
use crate::mutation::Mutation;
use crate::op::Op;
use crate::pages::PageSet;
use crate::slot::{Life, Slot};
use crate::state::State;
use crate::step::Effect;
use crate::vcpu::Pc;

const ENTER: u8 = 0;
const PUBLISH: u8 = 1;
const GRACE: u8 = 2;
const REARM: u8 = 3;
const FLUSH: u8 = 4;
const FREE: u8 = 5;
const PUBLISH_INVALID: u8 = 6;
const GRACE_INVALID: u8 = 7;
const ZAP: u8 = 8;
const REPLACE: u8 = 9;
const RETURN: u8 = 10;

/// What a call changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    Create,
    Delete(usize),
    Move(usize),
    LogOn(usize),
    LogOff(usize),
}

/// The arguments, in the kernel's terms.
#[derive(Clone, Copy)]
struct Args {
    number: u32,
    flags: u32,
    gpa: u64,
    bytes: u64,
    hva: u64,
    template: usize,
}

fn args(op: &Op) -> Option<Args> {
    match *op {
        Op::SetMemoryRegion {
            slot,
            flags,
            gpa,
            bytes,
            hva,
            template,
        } => Some(Args {
            number: slot,
            flags,
            gpa,
            bytes,
            hva,
            template: usize::from(template),
        }),
        _ => None,
    }
}

pub(crate) fn ready<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    match state.threads[thread].stage {
        ENTER => state.slots_lock == 0,
        GRACE | GRACE_INVALID => !state.vcpus.iter().any(|vcpu| vcpu.old_slots),
        REARM | ZAP => state.mmu_lock_free(),
        // x86's flush waits until every vCPU has left the guest; whoever enters again turns PML on first.
        FLUSH => !machine.pml || state.vcpus.iter().all(|v| v.pc != Pc::Guest || v.pml_on),
        _ => true,
    }
}

/// The checks, in the kernel's order, and what the call comes to.
fn decide<L: Layout>(machine: &Machine, state: &State<L>, a: Args) -> Result<Change, Errno> {
    let as_id = a.number >> 16;
    let id = a.number & 0xffff;
    let page = machine.constants.page_bytes;
    let legal = MEM_LOG_DIRTY_PAGES
        | if machine.arch == Arch::S390 {
            0
        } else {
            MEM_READONLY
        };
    if id >= machine.constants.user_slots
        || a.flags & !legal != 0
        || !a.bytes.is_multiple_of(page)
        || !a.gpa.is_multiple_of(page)
        || !a.hva.is_multiple_of(page)
        || as_id >= machine.constants.address_spaces
        || id >= MEM_SLOTS
        || a.gpa.checked_add(a.bytes).is_none()
        || a.hva.checked_add(a.bytes).is_none()
        || a.bytes / page > MEM_MAX_PAGES
    {
        return Err(Errno::EINVAL);
    }
    let old = state.find_slot(machine, a.number);
    let gfn = a.gpa / page;
    let npages = a.bytes / page;
    if a.bytes == 0 {
        return old.map(Change::Delete).ok_or(Errno::EINVAL);
    }
    let Some(slot) = old else {
        check_overlap(machine, state, as_id, id, gfn, npages)?;
        return Ok(Change::Create);
    };
    let template = &machine.slots[slot];
    let now = state.slots[slot];
    if template.hva != a.hva
        || u64::from(template.npages) != npages
        || now.readonly != (a.flags & MEM_READONLY != 0)
    {
        return Err(Errno::EINVAL);
    }
    if template.places[usize::from(now.place)] != gfn {
        check_overlap(machine, state, as_id, id, gfn, npages)?;
        return Ok(Change::Move(slot));
    }
    let logging = a.flags & MEM_LOG_DIRTY_PAGES != 0;
    Ok(match (now.logging, logging) {
        (false, true) => Change::LogOn(slot),
        (true, false) => Change::LogOff(slot),
        _ => Change::Nothing,
    })
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

pub(crate) fn step<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    op: &Op,
) -> Effect {
    let Some(a) = args(op) else {
        return Effect::None;
    };
    let stage = state.threads[thread].stage;
    if stage == ENTER {
        enter(machine, state, thread, a);
        return Effect::None;
    }
    // What `enter` decided on is told by the stage and by where the slot stands now.
    let slot = state.find_slot(machine, a.number).unwrap_or(a.template);
    match stage {
        PUBLISH => publish(machine, state, thread, slot, a),
        GRACE => {
            let logging = state.slots[slot].logging;
            let next = if !logging {
                FREE
            } else if machine.arch == Arch::S390
                || state.caps.initially_set()
                || machine.mutations.has(Mutation::EnableProtectBeforePublish)
            {
                // With INITIALLY_SET the pages stay as they are until CLEAR re-arms them; on s390 their leaves say what was
                // stored to.
                RETURN
            } else {
                REARM
            };
            state.threads[thread].stage = next;
        }
        REARM => {
            let template = &machine.slots[slot];
            let modified = (template.frame..template.frame + template.npages).any(|frame| {
                state.writable.contains(frame) && (!machine.pml || state.dirty_bit.contains(frame))
            });
            if !machine.mutations.has(Mutation::EnableNoProtect) {
                rearm::rearm_slot(machine, state, slot);
            }
            let skip = machine.mutations.has(Mutation::EnableFlushIfModified) && !modified;
            state.threads[thread].stage = if skip { after_flush(machine) } else { FLUSH };
        }
        FLUSH => {
            rearm::flush_slot(machine, state, slot);
            state.threads[thread].stage = after_flush(machine);
        }
        FREE => {
            if machine.arch == Arch::X86 && !state.slots[slot].readonly {
                drop_small_leaves(machine, state, slot);
            }
            // All bits that nobody fetched are gone.
            free_bitmap(machine, state, slot);
            state.threads[thread].stage = RETURN;
        }
        PUBLISH_INVALID => {
            state.slots[slot].life = Life::Invalid;
            note_readers(state);
            state.threads[thread].stage = GRACE_INVALID;
        }
        GRACE_INVALID => state.threads[thread].stage = ZAP,
        ZAP => {
            // x86 drops the mappings of every slot, not only of the one that goes. Source: arch/x86/kvm/mmu/mmu.c,
            // kvm_arch_flush_shadow_memslot(), with KVM_X86_QUIRK_SLOT_ZAP_ALL, which is on by default; seen on 6.18.44.
            for (index, template) in machine.slots.iter().enumerate() {
                if index != slot && machine.arch != Arch::X86 {
                    continue;
                }
                for set in [
                    &mut state.present,
                    &mut state.writable,
                    &mut state.dirty_bit,
                    &mut state.huge,
                ] {
                    set.remove_range(template.frame, template.npages);
                }
                rearm::flush_slot(machine, state, index);
            }
            state.threads[thread].stage = REPLACE;
        }
        REPLACE => {
            if a.bytes == 0 {
                free_bitmap(machine, state, slot);
                state.slots[slot] = Slot::default();
            } else {
                // The bitmap moves along: its bits count from the slot's start.
                let place = place_of(machine, slot, a.gpa / machine.constants.page_bytes);
                let moved = &mut state.slots[slot];
                moved.place = place;
                moved.life = Life::Live;
            }
            state.threads[thread].stage = RETURN;
        }
        _ => {
            leave(state, thread, Ok(0));
            return Effect::Returned { reset: None };
        }
    }
    Effect::None
}

fn enter<L: Layout>(machine: &Machine, state: &mut State<L>, thread: usize, a: Args) {
    let change = match decide(machine, state, a) {
        Ok(change) => change,
        Err(errno) => return leave(state, thread, Err(errno)),
    };
    if change == Change::Nothing
        && a.flags & MEM_LOG_DIRTY_PAGES != 0
        && machine.mutations.has(Mutation::LogStopPostponed)
    {
        state.crashed = true;
        return;
    }
    state.slots_lock = thread as u8 + 1;
    state.threads[thread].stage = match change {
        Change::Nothing => RETURN,
        Change::LogOn(_) if machine.mutations.has(Mutation::EnableProtectBeforePublish) => REARM,
        Change::Create | Change::LogOn(_) | Change::LogOff(_) => PUBLISH,
        Change::Delete(_) | Change::Move(_) => PUBLISH_INVALID,
    };
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
        for set in [
            &mut state.present,
            &mut state.writable,
            &mut state.dirty_bit,
        ] {
            set.remove_range(first, pages);
        }
    }
    rearm::flush_slot(machine, state, slot);
}

fn after_flush(machine: &Machine) -> u8 {
    if machine.mutations.has(Mutation::EnableProtectBeforePublish) {
        PUBLISH
    } else {
        RETURN
    }
}

/// Y53, Y54: the bitmap is allocated before anybody can see the slot, then the slot is published.
fn publish<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    slot: usize,
    a: Args,
) {
    let logging = a.flags & MEM_LOG_DIRTY_PAGES != 0;
    let creates = !state.slots[slot].exists();
    if creates {
        state.slots[slot] = Slot {
            life: Life::Live,
            logging: false,
            readonly: a.flags & MEM_READONLY != 0,
            bitmap: false,
            place: place_of(machine, slot, a.gpa / machine.constants.page_bytes),
        };
    }
    let mutations = machine.mutations;
    let dropped = creates && mutations.has(Mutation::SlotRecreateDropBitmap);
    if logging && state.caps.use_bitmap() && !dropped {
        let template = &machine.slots[slot];
        state.slots[slot].bitmap = true;
        if state.caps.initially_set() {
            let bits = if mutations.has(Mutation::InitiallySetWholeWords) {
                machine.padded(template.npages)
            } else {
                template.npages
            };
            state.bitmap.insert_range(template.frame, bits);
            if machine.track_spurious {
                state.written.insert_range(template.host, template.npages);
            }
        }
    }
    let first = logging && !state.any_logs();
    state.slots[slot].logging = logging;
    note_readers(state);
    if machine.pml && first {
        // Y56: every vCPU is asked to turn PML on at its next entry, and nobody waits for it here.
        for vcpu in 0..state.vcpus.len() {
            kick_for_pml(state, vcpu);
        }
    }
    state.threads[thread].stage = if creates { RETURN } else { GRACE };
}

/// Which place of its template a slot stands at when its base is `gfn`.
fn place_of(machine: &Machine, slot: usize, gfn: u64) -> u8 {
    machine.slots[slot]
        .places
        .iter()
        .position(|&place| place == gfn)
        .unwrap_or(0) as u8
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

pub(crate) fn describe(stage: u8) -> &'static str {
    match stage {
        ENTER => "slot-enter",
        PUBLISH => "slot-publish",
        GRACE | GRACE_INVALID => "slot-grace-period",
        REARM => "slot-rearm",
        FLUSH => "slot-flush",
        FREE => "slot-free-bitmap",
        PUBLISH_INVALID => "slot-publish-invalid",
        ZAP => "slot-zap",
        REPLACE => "slot-replace",
        _ => "slot-return",
    }
}
