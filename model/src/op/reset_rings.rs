//! KVM_RESET_DIRTY_RINGS. Source: virt/kvm/dirty_ring.c, kvm_dirty_ring_reset(); kvm_main.c, kvm_vm_ioctl_reset_dirty_pages().

use super::{Act, Operation, ResetRings, View};
use crate::kernel::rearm;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::pages::low_bits;
use crate::state::ring::{F_RESET, Ring, RingEntry};
use crate::state::vcpu::Pc;
use crate::state::{Batch, State, Vcpu};
use crate::words::word::{loud, quiet};
use crate::words::{
    Choice, Counts, Duty, Effect, Errno, Facts, Fields, Found, Frame, NO_FRAME, Offset, Reach,
    ResetCount, Row, Rule, Waits, Word,
};

pub(crate) const ENTER: u8 = 0;
pub(crate) const LOAD_FLAGS: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const FREE: u8 = 3;
pub(crate) const ADVANCE: u8 = 4;
pub(crate) const REARM: u8 = 5;
pub(crate) const UNLOCK: u8 = 6;
pub(crate) const FLUSH: u8 = 7;
pub(crate) const RETURN: u8 = 8;
/// Behind the stages: the name of what a signal leads to.
const SIGNAL: usize = 9;

impl Operation for ResetRings {
    const STAGES: u8 = 9;
    const STEPS: &'static [Word] = &[
        quiet("reset-enter", "takes slots_lock"),
        quiet("reset-load-flags", "looks for a harvested entry"),
        quiet("reset-read-entry", "reads a harvested entry"),
        loud("reset-free-entry", "frees an entry"),
        quiet("reset-index", "moves the ring's reset index"),
        loud("reset-rearm", "re-arms the pages of its batch"),
        quiet("reset-unlock", "drops slots_lock"),
        loud("reset-flush", "flushes TLBs"),
        quiet("reset-return", "returns"),
        loud(
            "reset-signal",
            "leaves at once for a pending signal, its batch not re-armed",
        ),
    ];

    fn says(&self) -> &'static str {
        "KVM_RESET_DIRTY_RINGS"
    }

    fn facts(&self, machine: &Machine) -> Facts {
        Facts {
            rearms: true,
            visits_vcpus: true,
            signal: self.signal,
            // It is asked only whether anything was counted, unless the VMM's own code looks at the number; a scenario has 4 rings of 32.
            counts: match machine.code {
                Some(_) => Counts::UpTo(128),
                None => Counts::Whether,
            },
            ..Facts::NOTHING
        }
    }

    fn row(&self, machine: &Machine, stage: u8) -> Row {
        let step = Row::OWN
            .reads(rearm::reads(machine))
            .duty(Duty::FLUSHES)
            .duty(Duty::RESETS);
        let at_ring = step.reads(Fields::RING).reach(Reach::IndexedVcpu);
        match stage {
            ENTER => Row {
                duty: Duty::NONE,
                ..step.changes(Fields::SLOTS_LOCK)
            },
            LOAD_FLAGS | READ => at_ring,
            FREE => at_ring.writes(Fields::ENTRIES).duty(Duty::HOLDS_ENTRY),
            ADVANCE => at_ring.writes(Fields::RESET_INDEX).duty(Duty::HOLDS_ENTRY),
            // After it the next ring is looked at, where there is one.
            REARM => {
                let step =
                    rearm::row(machine, step.reads(Fields::MMU_LOCK)).duty(Duty::MAY_HOLD_ENTRY);
                step.reach(if rearm::flushes_at_once(machine) {
                    Reach::Everything
                } else {
                    Reach::IndexedOnControl
                })
            }
            UNLOCK => step.writes(Fields::SLOTS_LOCK),
            FLUSH => step.writes(Fields::TLB).reach(Reach::EachVcpu),
            RETURN => step.writes(Fields::SLOTS_LOCK),
            _ => Row::UNKNOWN,
        }
    }

    fn word<L: Layout>(&self, at: View<'_, L>, choice: Choice) -> Word {
        Self::STEPS[match choice {
            Choice::Signal => SIGNAL,
            _ => usize::from(at.stage()),
        }]
    }

    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }

    #[inline(always)]
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        match at.stage() {
            ENTER => at.slots_lock(),
            REARM => at.mmu_lock(),
            _ => None,
        }
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        // The loop looks for a signal before every entry.
        if self.signal && at.stage() == LOAD_FLAGS && at.machine.kernel.reset_signal_exit() {
            found(Choice::Signal);
        }
        if self.blocked(&at).is_none() {
            match at.stage() {
                REARM => rearm_choices(&at, found),
                _ => found(Choice::Advance),
            }
        }
    }

    #[inline]
    fn step<L: Layout>(&self, mut act: Act<'_, L>, choice: Choice) -> Effect {
        let (machine, stage) = (act.machine, act.stage());
        match stage {
            ENTER => {
                if act.state.caps.ring_entries == 0 {
                    return act.leave(Err(Errno::EINVAL));
                }
                act.take_slots_lock();
                let none = act.state.vcpus.is_empty();
                act.go(if none { UNLOCK } else { LOAD_FLAGS })
            }
            LOAD_FLAGS if choice == Choice::Signal => {
                // The loop returns here: the batch that it has gathered is not re-armed.
                let t = act.thread();
                t.signal = true;
                t.batch = Batch::default();
                act.go(UNLOCK)
            }
            LOAD_FLAGS => {
                let ring = ring(&mut act);
                if ring.entry(ring.reset_index).flags() & F_RESET != 0 {
                    act.go(READ)
                } else if act.thread().batch.mask != 0 {
                    act.go(REARM)
                } else {
                    next_ring(&mut act)
                }
            }
            READ => {
                let ring = ring(&mut act);
                let entry = *ring.entry(ring.reset_index);
                let t = act.thread();
                t.entry_slot = entry.slot();
                t.entry_offset = entry.offset();
                act.go(FREE)
            }
            FREE => {
                // From here on a push may use the entry again, although its page is not re-armed yet.
                let ring = ring(&mut act);
                let index = ring.reset_index;
                ring.entry_mut(index).set_flags(0);
                act.go(ADVANCE)
            }
            ADVANCE => {
                let ring = ring(&mut act);
                ring.reset_index = ring.reset_index.wrapping_add(1);
                let span = machine.constants.reset_batch_pages;
                let t = act.thread();
                t.count += 1;
                t.freed += 1;
                if merge(&mut t.batch, t.entry_slot, t.entry_offset, span) {
                    t.forget_entry();
                    return act.go(LOAD_FLAGS);
                }
                // The entry in work waits for the batch before it.
                t.any = true;
                act.go(REARM)
            }
            REARM => {
                let batch = act.thread().batch;
                rearm_batch(machine, act.state, batch);
                rearm::rearm_along(machine, act.state, choice);
                rearmed(&mut act)
            }
            UNLOCK => {
                act.state.slots_lock = 0;
                let flush = act.thread().count > 0;
                act.go(if flush { FLUSH } else { RETURN })
            }
            FLUSH => {
                act.state.flush_tlbs();
                act.go(RETURN)
            }
            _ => {
                let (told, freed) = (act.thread().count, act.thread().freed);
                act.leave(Ok(told));
                Effect::Returned {
                    reset: Some(ResetCount { told, freed }),
                }
            }
        }
    }

    fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)> {
        let t = at.thread();
        let rule = match t.stage {
            LOAD_FLAGS | READ | FREE | UNLOCK | RETURN => Rule::ResetEntry,
            ADVANCE if is_idle(&at.state.vcpus[t.index as usize]) => Rule::ResetIndex,
            _ => return None,
        };
        Some((rule, Choice::Advance))
    }
}

/// The ring in work.
#[inline(always)]
fn ring<'a, L: Layout>(act: &'a mut Act<'_, L>) -> &'a mut Ring<L> {
    let vcpu = act.thread().index as usize;
    &mut act.state.vcpus[vcpu].ring
}

/// After the batch was re-armed: on with the entry that waited for that, or with the next ring.
pub(crate) fn rearmed<L: Layout>(act: &mut Act<'_, L>) -> Effect {
    let t = act.thread();
    if !t.any {
        t.batch = Batch::default();
        return next_ring(act);
    }
    t.any = false;
    t.batch = Batch {
        slot: t.entry_slot,
        offset: t.entry_offset,
        mask: 1,
    };
    t.forget_entry();
    act.go(LOAD_FLAGS)
}

pub(crate) fn next_ring<L: Layout>(act: &mut Act<'_, L>) -> Effect {
    let vcpus = act.state.vcpus.len();
    let t = act.thread();
    t.index += 1;
    t.stage = if t.index as usize == vcpus {
        UNLOCK
    } else {
        LOAD_FLAGS
    };
    Effect::None
}

/// Source: virt/kvm/dirty_ring.c, kvm_dirty_ring_reset(). Takes an entry into the batch if it lies in the same slot and within the batch's span, on either side.
fn merge(batch: &mut Batch, slot: u32, offset: Offset, span: u32) -> bool {
    if batch.mask == 0 {
        *batch = Batch {
            slot,
            offset,
            mask: 1,
        };
        return true;
    }
    if batch.slot != slot {
        return false;
    }
    // A difference of 64 bits with a sign, which wraps: user space may have left any offset in the entry.
    let delta = offset.0.wrapping_sub(batch.offset.0) as i64;
    if (0..i64::from(span)).contains(&delta) {
        batch.mask |= 1 << delta;
        return true;
    }
    if (1 - i64::from(span)..0).contains(&delta) {
        let shift = (-delta) as u32;
        let shifted = batch.mask << shift & low_bits(span);
        if shifted >> shift == batch.mask {
            *batch = Batch {
                slot,
                offset,
                mask: shifted | 1,
            };
            return true;
        }
    }
    false
}

/// The ways to re-arm the batch in work.
fn rearm_choices<L: Layout>(at: &View<'_, L>, found: Found<'_>) {
    let batch = at.thread().batch;
    let slot = at.state.find_slot(at.machine, batch.slot);
    let Some(slot) = slot.filter(|_| at.machine.order_unknown) else {
        return found(Choice::Advance);
    };
    let template = &at.machine.slots[slot];
    let first = u64::from(template.frame.0) + batch.offset.0;
    let pages = batch.mask.checked_shl(first as u32).unwrap_or(0);
    let among = low_bits(template.npages) << template.frame.0;
    rearm::choices(at.machine, pages, among, found);
}

/// Re-arms a batch, if its slot is still there and it lies inside; else nothing is re-armed.
/// Source: virt/kvm/dirty_ring.c, kvm_reset_dirty_gfn().
pub(crate) fn rearm_batch<L: Layout>(machine: &Machine, state: &mut State<L>, batch: Batch) {
    let Some(slot) = state.find_slot(machine, batch.slot) else {
        return;
    };
    let template = &machine.slots[slot];
    let npages = u64::from(template.npages);
    let highest = u64::from(63 - batch.mask.leading_zeros());
    if batch.offset.0 >= npages || batch.offset.0 + highest >= npages {
        return;
    }
    let frame = template.frame + batch.offset.0 as u32;
    rearm::rearm(machine, state, slot, frame, batch.mask);
}

/// Whether a vCPU will never store, push or look at its ring again before the thread's next step but one.
fn is_idle<L: Layout>(v: &Vcpu<L>) -> bool {
    v.stores == 0
        && v.loads == 0
        && v.frame == NO_FRAME
        && v.steal == 0
        && v.pml.is_empty()
        && v.push == 0
        && !v.request
        && !matches!(
            v.pc,
            Pc::StealMark | Pc::ExitMark | Pc::Fault | Pc::PreFault
        )
}
