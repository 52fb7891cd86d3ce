//! The verdict on state after state of one schedule, worked out again as far as a step can have changed it.
//!
//! What takes long to see is kept from step to step: what a ring accounts for and whether it is in order, until something writes to that
//! ring; what a program has still to do to all memory, until its thread goes on; which frames nobody logs, until memslots change. What is
//! quickly seen, sets as a whole, is looked at each time. Where that leaves any doubt the oracle judges the whole state, so that nothing
//! is ever called broken here; with debug assertions it does so after every step, and must say the same.

use alloc::vec::Vec;

use super::Invariants;
use super::check::{
    check, check_effect, check_ring, in_reset, open_leaves, resets_ring_of, subtract_vm,
};
use crate::machine::Machine;
use crate::state::accounts;
use crate::state::layout::Layout;
use crate::state::pages::{Frames, HostPages};
use crate::state::{Life, State, Thread};
use crate::words::{Duty, Effect, Fields, Frame, Written};

/// What is kept between two steps.
pub struct Judge<L: Layout> {
    vcpus: Vec<OfVcpu<L>>,
    threads: Vec<OfThread<L>>,
    /// Frames of memslots that do not log.
    unlogged: Frames<L::Set>,
    /// Bits of the bitmap that stand for no page.
    padding: Frames<L::Set>,
    /// All of memory.
    all: HostPages<L::Set>,
    /// Whether leaves and TLBs may be open, as far as threads say: somebody may run, and nobody re-arms.
    exposed: bool,
    /// Whether the state as it was may break a claim: it is judged anew whatever a step writes.
    suspicious: bool,
    /// Two memslots may have the same memory: each state is judged as a whole.
    aliased: bool,
}

struct OfVcpu<L: Layout> {
    /// The host pages of its ring's unread entries.
    held: HostPages<L::Set>,
    /// What is broken of its ring unless RESET is at it.
    idle: Invariants,
    /// What is broken even so.
    in_reset: Invariants,
    /// The mark that it owed.
    owed: Frame,
}

struct OfThread<L: Layout> {
    /// What of its place its program's accounts go by.
    place: (u16, bool),
    /// Host pages that a full copy or a declaration to come accounts for.
    held: HostPages<L::Set>,
    /// What it was in the middle of.
    duty: Duty,
    /// The mark that it owed.
    owed: Frame,
}

/// What a step writes that can make a page stale, or take an account of one away; what a vCPU or a thread owes follows from where it stands.
const ACCOUNTS: Fields = Fields::STALE
    .and(Fields::PENDING)
    .and(Fields::OWN_LOG)
    .and(Fields::BITMAP)
    .and(Fields::SCRATCH)
    .and(Fields::DEVICES)
    .and(Fields::HAND)
    .and(Fields::RING);

/// What a step writes that can open a page, or end the whole.
const OPENINGS: Fields = Fields::LEAVES.and(Fields::TLB).and(Fields::ENDED);

impl<L: Layout> Judge<L> {
    /// For the states of a machine; nothing is known yet.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        let (mut padding, mut all) = (Frames::default(), HostPages::default());
        for slot in &machine.slots {
            all.insert_range(slot.host, slot.npages);
            let padded = machine.padded(slot.npages);
            padding.insert_range(slot.frame + slot.npages, (padded - slot.npages).min(64));
        }
        Self {
            vcpus: Vec::new(),
            threads: Vec::new(),
            unlogged: Frames::default(),
            padding,
            all,
            exposed: false,
            suspicious: true,
            aliased: machine.aliased(),
        }
    }

    /// A schedule begins at `state`.
    pub fn begin(&mut self, machine: &Machine, state: &State<L>) {
        if self.aliased {
            return;
        }
        let vcpus = 0..state.vcpus.len();
        self.vcpus.clear();
        self.vcpus
            .extend(vcpus.map(|vcpu| OfVcpu::new(machine, state, vcpu, &self.all)));
        let threads = 0..state.threads.len();
        self.threads.clear();
        self.threads
            .extend(threads.map(|thread| OfThread::new(machine, state, thread, &self.all)));
        self.unlogged.clear();
        for (template, slot) in machine.slots.iter().zip(state.slots.iter()) {
            if !(slot.logging && slot.life == Life::Live) {
                self.unlogged.insert_range(template.frame, template.npages);
            }
        }
        self.exposed = could_run(state);
        self.suspicious = true;
    }

    /// As [`check`]; `state` is what a step with `effect` left that wrote no more than `written` since this was asked last.
    #[must_use]
    #[inline]
    pub fn check(
        &mut self,
        machine: &Machine,
        state: &State<L>,
        written: Written,
        effect: Effect,
    ) -> Invariants {
        if self.aliased {
            return check(machine, state, effect);
        }
        if self.renew(machine, state, written) {
            self.suspicious = self.is_suspicious(machine, state);
        }
        if self.suspicious {
            return check(machine, state, effect);
        }
        let broken = match effect {
            Effect::None => Invariants::NONE,
            Effect::Claim { .. } | Effect::Returned { .. } => check_effect(machine, state, effect),
        };
        debug_assert_eq!(
            broken,
            check(machine, state, effect),
            "what a step did not write has not changed the verdict: it wrote {written:?}"
        );
        broken
    }

    /// Brings what is kept up to date; whether the verdict may be another.
    #[inline]
    fn renew(&mut self, machine: &Machine, state: &State<L>, written: Written) -> bool {
        if written.fields.has(Fields::SLOTS | Fields::CAPS) {
            self.begin(machine, state);
            return true;
        }
        let mut matters = self.suspicious || written.fields.has(ACCOUNTS | OPENINGS);
        let rings = written.fields.has(Fields::RING);
        for (vcpu, known) in self.vcpus.iter_mut().enumerate() {
            if written.vcpus >> vcpu.min(31) & 1 == 0 {
                continue;
            }
            if rings {
                *known = OfVcpu::new(machine, state, vcpu, &self.all);
            }
            let owed = state.vcpus[vcpu].owed;
            matters |= known.owed != owed;
            known.owed = owed;
        }
        for (thread, known) in self.threads.iter_mut().enumerate() {
            let t = &state.threads[thread];
            if known.place != place(t) {
                *known = OfThread::new(machine, state, thread, &self.all);
                matters = true;
            }
            matters |= known.duty != t.duty || known.owed != t.owed;
            (known.duty, known.owed) = (t.duty, t.owed);
        }
        let exposed = could_run(state);
        matters |= exposed && !self.exposed;
        self.exposed = exposed;
        matters
    }

    /// Whether a claim on the state may be broken.
    #[inline]
    fn is_suspicious(&self, machine: &Machine, state: &State<L>) -> bool {
        if state.crashed
            || machine.track_spurious && !state.spurious.is_empty()
            || state.bitmap.intersects(&self.padding)
        {
            return true;
        }
        for (vcpu, known) in self.vcpus.iter().enumerate() {
            if !known.idle.is_empty() {
                let in_work = state.threads.iter().any(|t| resets_ring_of(t, vcpu));
                if !in_work || !known.in_reset.is_empty() {
                    return true;
                }
            }
        }
        let mut left = state.stale.clone();
        if self.exposed {
            let mut open = open_leaves(machine, state);
            for vcpu in state.vcpus.iter() {
                open.union(&vcpu.tlb);
            }
            open.subtract(&self.unlogged);
            left.union(&open.as_hosts());
        }
        !self.are_accounted_for(machine, state, left)
    }

    /// Whether somebody accounts for all of these host pages.
    #[inline]
    fn are_accounted_for(
        &self,
        machine: &Machine,
        state: &State<L>,
        mut left: HostPages<L::Set>,
    ) -> bool {
        if left.is_empty() {
            return true;
        }
        subtract_vm(machine, state, false, &mut left);
        for (vcpu, known) in self.vcpus.iter().enumerate() {
            if left.is_empty() {
                return true;
            }
            left.subtract(&known.held);
            accounts::of_vcpu_itself(state, vcpu, |_, held| {
                held.subtract(machine, false, &mut left);
            });
        }
        for (thread, known) in self.threads.iter().enumerate() {
            if left.is_empty() {
                return true;
            }
            left.subtract(&known.held);
            accounts::of_thread_itself(state, thread, |_, held| {
                held.subtract(machine, false, &mut left);
            });
        }
        left.is_empty()
    }
}

/// Whether a vCPU may store, and nobody is re-arming.
#[inline]
fn could_run<L: Layout>(state: &State<L>) -> bool {
    state.slots_lock == 0
        && (state.guest_runs || !state.vcpus_stopped())
        && !state.threads.iter().any(in_reset)
}

impl<L: Layout> OfVcpu<L> {
    fn new(machine: &Machine, state: &State<L>, vcpu: usize, all: &HostPages<L::Set>) -> Self {
        let (mut idle, mut in_reset) = (Invariants::NONE, Invariants::NONE);
        let mut held = HostPages::default();
        if state.caps.ring_entries != 0 {
            held = taken_out::<L>(all, |left| {
                accounts::of_ring(machine, state, vcpu, |_, held| {
                    held.subtract(machine, false, left);
                });
            });
            idle = check_ring(state, vcpu, || false);
            if !idle.is_empty() {
                in_reset = check_ring(state, vcpu, || true);
            }
        }
        Self {
            held,
            idle,
            in_reset,
            owed: state.vcpus[vcpu].owed,
        }
    }
}

impl<L: Layout> OfThread<L> {
    fn new(machine: &Machine, state: &State<L>, thread: usize, all: &HostPages<L::Set>) -> Self {
        let t = &state.threads[thread];
        Self {
            place: place(t),
            duty: t.duty,
            owed: t.owed,
            held: taken_out::<L>(all, |left| {
                accounts::of_program(machine, state, thread, |_, held| {
                    held.subtract(machine, false, left);
                });
            }),
        }
    }
}

/// What of a thread's place its program's accounts go by.
fn place<L: Layout>(t: &Thread<L>) -> (u16, bool) {
    (t.op, t.stage > 0)
}

/// What `take` takes out of all of memory.
fn taken_out<L: Layout>(
    all: &HostPages<L::Set>,
    take: impl FnOnce(&mut HostPages<L::Set>),
) -> HostPages<L::Set> {
    let (mut left, mut taken) = (all.clone(), all.clone());
    take(&mut left);
    taken.subtract(&left);
    taken
}
