//! The checks of the claims.

use super::{Invariant, Invariants};
use crate::machine::Machine;
use crate::state::accounts;
use crate::state::layout::Layout;
use crate::state::pages::{Frames, HostPages};
use crate::state::ring::{F_DIRTY, F_RESET, RingEntry};
use crate::state::{Life, State, Thread};
use crate::words::{Duty, Effect, ResetCount};

/// The host pages of `left` for which nobody accounts.
#[inline]
fn unaccounted<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    mut left: HostPages<L::Set>,
) -> HostPages<L::Set> {
    let aliased = machine.aliased();
    subtract_vm(machine, state, aliased, &mut left);
    for vcpu in 0..state.vcpus.len() {
        if left.is_empty() {
            return left;
        }
        subtract_vcpu(machine, state, aliased, vcpu, &mut left);
    }
    for thread in 0..state.threads.len() {
        if left.is_empty() {
            return left;
        }
        subtract_thread(machine, state, aliased, thread, &mut left);
    }
    if left.is_empty() {
        left
    } else {
        live_only(machine, state, left)
    }
}

/// Takes out what VM-wide records account for.
#[inline]
pub(super) fn subtract_vm<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    aliased: bool,
    left: &mut HostPages<L::Set>,
) {
    accounts::of_vm(machine, state, |_, held| {
        held.subtract(machine, aliased, left)
    });
}

/// Takes out what a vCPU accounts for.
#[inline]
pub(super) fn subtract_vcpu<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    aliased: bool,
    vcpu: usize,
    left: &mut HostPages<L::Set>,
) {
    accounts::of_vcpu(machine, state, vcpu, |_, held| {
        held.subtract(machine, aliased, left)
    });
}

/// Takes out what a thread accounts for.
#[inline]
pub(super) fn subtract_thread<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    aliased: bool,
    thread: usize,
    left: &mut HostPages<L::Set>,
) {
    accounts::of_thread(machine, state, thread, |_, held| {
        held.subtract(machine, aliased, left)
    });
}

/// The pages of `left` that are behind a live slot: others are nobody's memory.
pub(super) fn live_only<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    left: HostPages<L::Set>,
) -> HostPages<L::Set> {
    let mut live = HostPages::default();
    for (template, slot) in machine.slots.iter().zip(state.slots.iter()) {
        if slot.life == Life::Live {
            for host in template.hosts().filter(|host| left.contains(*host)) {
                live.insert(host);
            }
        }
    }
    live
}

/// The stale pages for which nobody accounts.
#[must_use]
pub fn stale_unaccounted<L: Layout>(machine: &Machine, state: &State<L>) -> HostPages<L::Set> {
    if state.stale.is_empty() {
        return HostPages::default();
    }
    unaccounted(machine, state, state.stale.clone())
}

/// The pages that are stale though the protocol claims that none is.
#[must_use]
pub fn lost<L: Layout>(machine: &Machine, state: &State<L>, postcopy: bool) -> HostPages<L::Set> {
    let mut lost = state.stale.clone();
    if postcopy {
        lost.subtract(&state.pending);
    }
    if lost.is_empty() {
        lost
    } else {
        live_only(machine, state, lost)
    }
}

/// The host pages that a vCPU could store to with nobody noticing, now or when it runs again.
#[must_use]
pub fn unarmed<L: Layout>(machine: &Machine, state: &State<L>) -> HostPages<L::Set> {
    let none = HostPages::default();
    let could_run = state.guest_runs || !state.vcpus_stopped();
    let rearming = state.slots_lock != 0 || state.threads.iter().any(in_reset);
    if !could_run || rearming || state.vcpus.is_empty() {
        return none;
    }
    let mut open = open_leaves(machine, state);
    for vcpu in state.vcpus.iter() {
        open.union(&vcpu.tlb);
    }
    if open.is_empty() {
        return none;
    }
    let exposed = logged_hosts(machine, state, open);
    if exposed.is_empty() {
        none
    } else {
        unaccounted(machine, state, exposed)
    }
}

/// Whether a thread is inside RESET.
pub(super) fn in_reset<L: Layout>(thread: &Thread<L>) -> bool {
    thread.duty.has(Duty::RESETS)
}

/// The frames whose leaves let a store through unseen.
#[inline]
pub(super) fn open_leaves<L: Layout>(machine: &Machine, state: &State<L>) -> Frames<L::Set> {
    let mut open = state.writable.clone();
    if machine.has_dirty_bits() {
        let mut clean = state.writable.clone();
        clean.subtract(&state.dirty_bit);
        open.subtract(&clean);
    }
    open
}

/// The host pages behind those of `frames` whose slots log.
#[inline]
pub(super) fn logged_hosts<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    mut frames: Frames<L::Set>,
) -> HostPages<L::Set> {
    for (template, slot) in machine.slots.iter().zip(state.slots.iter()) {
        if !(slot.logging && slot.life == Life::Live) {
            frames.remove_range(template.frame, template.npages);
        }
    }
    if !machine.aliased() {
        return frames.as_hosts();
    }
    let mut hosts = HostPages::default();
    for frame in frames.iter() {
        hosts.insert(machine.host_page(frame));
    }
    hosts
}

/// Checks what must be true after a step that had `effect`.
#[inline]
#[must_use]
pub fn check<L: Layout>(machine: &Machine, state: &State<L>, effect: Effect) -> Invariants {
    let mut broken = contracts(machine, state, effect);
    if !stale_unaccounted(machine, state).is_empty() {
        broken.insert(Invariant::StalePageIsAccountedFor);
    }
    if !unarmed(machine, state).is_empty() {
        broken.insert(Invariant::UnrecordedPageIsArmed);
    }
    if machine.track_spurious && !state.spurious.is_empty() {
        broken.insert(Invariant::NoSpuriousDirtyPage);
    }
    if let Effect::Claim { postcopy } = effect
        && !lost(machine, state, postcopy).is_empty()
    {
        broken.insert(Invariant::NoDirtyPageLost);
    }
    broken.among(machine.claims)
}

/// Checks what `effect` alone claims of the state after the step: what is not said of every state.
#[must_use]
pub fn check_effect<L: Layout>(machine: &Machine, state: &State<L>, effect: Effect) -> Invariants {
    let mut broken = Invariants::NONE;
    match effect {
        Effect::None => {}
        Effect::Claim { postcopy } => {
            if !lost(machine, state, postcopy).is_empty() {
                broken.insert(Invariant::NoDirtyPageLost);
            }
        }
        Effect::Returned { reset } => {
            broken = check_count(reset);
            if !tlb_is_flushed(machine, state) {
                broken.insert(Invariant::TlbIsFlushedOnReturn);
            }
        }
    }
    broken.among(machine.claims)
}

pub(super) fn check_count(reset: Option<ResetCount>) -> Invariants {
    let mut broken = Invariants::NONE;
    if reset.is_some_and(|count| count.told != count.freed) {
        broken.insert(Invariant::ResetCountEqualsHarvested);
    }
    broken
}

/// Checks the contracts of the interface alone: what is true of every user of it, whatever its protocol. The rings are
/// those of well-behaved user space.
#[inline]
#[must_use]
pub fn contracts<L: Layout>(machine: &Machine, state: &State<L>, effect: Effect) -> Invariants {
    let mut broken = match effect {
        Effect::Returned { .. } => check_effect(machine, state, effect),
        Effect::None | Effect::Claim { .. } => Invariants::NONE,
    };
    if state.caps.ring_entries != 0 {
        check_rings(state, &mut broken);
    }
    if state.crashed {
        broken.insert(Invariant::NothingCrashes);
    }
    if !bitmap_ends(machine, state) {
        broken.insert(Invariant::BitmapEndsAtNpages);
    }
    broken.among(machine.claims)
}

fn check_rings<L: Layout>(state: &State<L>, broken: &mut Invariants) {
    for vcpu in 0..state.vcpus.len() {
        let in_work = || {
            state
                .threads
                .iter()
                .any(|thread| resets_ring_of(thread, vcpu))
        };
        broken.union(check_ring(state, vcpu, in_work));
    }
}

/// Checks one vCPU's ring; `in_work` tells whether RESET is at it, which frees an entry before it moves its index.
#[inline]
pub(super) fn check_ring<L: Layout>(
    state: &State<L>,
    vcpu: usize,
    in_work: impl Fn() -> bool,
) -> Invariants {
    let mut broken = Invariants::NONE;
    let v = &state.vcpus[vcpu];
    let ring = &v.ring;
    let size = ring.size();
    // A push shows its entry and then moves its index; in between, harvest and RESET may already be past it.
    let pushes = (1..4).contains(&v.push);
    let shown = pushes && ring.entry(ring.dirty_index).flags() != 0;
    let passed = pushes && ring.used() == u32::MAX;
    let used = ring.used().wrapping_add(u32::from(shown || passed));
    if used > size {
        broken.insert(Invariant::RingNeverOverflows);
        return broken;
    }
    if used == 0 && ring.dirty_index == ring.fetch_index && v.push == 0 {
        return broken;
    }
    let harvested = ring.fetch_index.wrapping_sub(ring.reset_index);
    for position in 0..used {
        let flags = ring.entry(ring.reset_index.wrapping_add(position)).flags();
        let right = if position < harvested {
            flags & F_RESET != 0
        } else {
            flags == F_DIRTY
        };
        if !(right || position == 0 && flags == 0 && in_work()) {
            broken.insert(Invariant::DirtyGfnFollowsLifecycle);
        }
    }
    for position in used..size {
        if ring.entry(ring.reset_index.wrapping_add(position)).flags() != 0 {
            broken.insert(Invariant::DirtyGfnFollowsLifecycle);
        }
    }
    broken
}

/// Whether a thread is in RESET at a vCPU's ring.
pub(super) fn resets_ring_of<L: Layout>(thread: &Thread<L>, vcpu: usize) -> bool {
    in_reset(thread) && thread.index as usize == vcpu
}

fn tlb_is_flushed<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    state.threads.iter().any(owes_flush)
        || (0..state.vcpus.len()).all(|vcpu| !tlb_is_stale(machine, state, vcpu))
}

/// Whether a thread is in an ioctl that may still flush TLBs.
pub(super) fn owes_flush<L: Layout>(thread: &Thread<L>) -> bool {
    thread.duty.has(Duty::FLUSHES)
}

/// Whether a vCPU's TLB lets a store through that its leaf would not.
pub(super) fn tlb_is_stale<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> bool {
    state.vcpus[vcpu].tlb.iter().any(|frame| {
        let open = state.writable.contains(frame)
            && (!machine.has_dirty_bits() || state.dirty_bit.contains(frame));
        !open && state.present.contains(frame)
    })
}

pub(super) fn bitmap_ends<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    machine.slots.iter().all(|template| {
        let padded = machine.padded(template.npages);
        padded == template.npages
            || state.bitmap.word(
                template.frame + template.npages,
                (padded - template.npages).min(64),
            ) == 0
    })
}
