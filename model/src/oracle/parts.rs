//! The claims about a state, taken apart by sections.
//!
//! What [`super::check`] says of a state follows from what each vCPU and each thread contributes, each together with the
//! VM-wide part of the state. A search that meets the same contribution in many states computes it once, joins what it
//! knows, and asks for the verdict. The pieces are the oracle's own; only how they are put together stands here, and
//! wherever assertions are on, the search compares it with [`super::check`] in every state.
//!
//! Not here: claims about a step ([`crate::step::Effect`]), and machines of more than 64 pages.

use super::{
    Invariant, Invariants, begins_full_copy, bitmap_ends, check_ring, in_reset, live_only,
    logged_hosts, open_leaves, resets_ring_of, subtract_thread, subtract_vcpu, subtract_vm,
};
use crate::layout::Layout;
use crate::machine::Machine;
use crate::pages::PageSet;
use crate::state::State;

/// What one vCPU or thread contributes, or several joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Stale host pages that none of these accounts for.
    stale: u64,
    /// Host pages that a store could reach unseen through what these know of leaves and TLBs.
    open: u64,
    /// Host pages that one of these accounts for.
    held: u64,
    /// What is broken whatever the others say.
    broken: Invariants,
    /// vCPUs whose ring is out of order unless RESET is at it.
    disordered: u8,
    /// vCPUs whose ring is out of order even so.
    disordered_in_reset: u8,
    /// vCPUs whose ring RESET is at.
    resets: u8,
    /// Some vCPU is in KVM_RUN or may enter it.
    could_run: bool,
    /// An ioctl is re-arming.
    rearms: bool,
}

impl Part {
    /// Contributes nothing: where a join begins.
    pub const NEUTRAL: Self = Self {
        stale: u64::MAX,
        open: 0,
        held: 0,
        broken: Invariants::NONE,
        disordered: 0,
        disordered_in_reset: 0,
        resets: 0,
        could_run: false,
        rearms: false,
    };

    /// What a vCPU contributes.
    #[must_use]
    pub fn of_vcpu<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Self {
        let mut part = Self::with(machine, state, |left| {
            subtract_vcpu(machine, state, vcpu, left);
        });
        let v = &state.vcpus[vcpu];
        let mut open = open_leaves(machine, state);
        open.union(&v.tlb);
        part.open = word(&logged_hosts(machine, state, open));
        part.could_run = state.guest_runs || !v.is_stopped();
        if state.caps.ring_entries != 0 {
            let bit = |broken: Invariants| {
                u8::from(broken.has(Invariant::DirtyGfnFollowsLifecycle)) << vcpu
            };
            let idle = check_ring(state, vcpu, || false);
            if idle.has(Invariant::RingNeverOverflows) {
                part.broken.insert(Invariant::RingNeverOverflows);
            }
            part.disordered = bit(idle);
            part.disordered_in_reset = bit(check_ring(state, vcpu, || true));
        }
        part
    }

    /// What a thread contributes.
    #[must_use]
    pub fn of_thread<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> Self {
        let aliased = machine.aliased();
        let mut part = Self::with(machine, state, |left| {
            subtract_thread(machine, state, aliased, thread, left);
        });
        if begins_full_copy(machine, state, thread) {
            part.held = u64::MAX;
        }
        part.rearms |= in_reset(machine, state, thread);
        for vcpu in 0..state.vcpus.len() {
            part.resets |= u8::from(resets_ring_of(machine, state, thread, vcpu)) << vcpu;
        }
        part
    }

    /// The VM-wide part, and what `subtract` takes out besides.
    fn with<L: Layout>(
        machine: &Machine,
        state: &State<L>,
        subtract: impl Fn(&mut L::Set),
    ) -> Self {
        let mut part = Self::NEUTRAL;
        let unaccounted = |mut left: L::Set| {
            subtract_vm(machine, state, machine.aliased(), &mut left);
            subtract(&mut left);
            left
        };
        let stale = unaccounted(state.stale.clone());
        part.stale = word(&live_only(machine, state, stale));
        let mut all = L::Set::default();
        all.set_word(0, u64::MAX);
        part.held = !word(&unaccounted(all));
        part.rearms = state.slots_lock != 0;
        if state.crashed {
            part.broken.insert(Invariant::NothingCrashes);
        }
        if !bitmap_ends(machine, state) {
            part.broken.insert(Invariant::BitmapEndsAtNpages);
        }
        if machine.track_spurious && !state.spurious.is_empty() {
            part.broken.insert(Invariant::NoSpuriousDirtyPage);
        }
        part
    }

    /// Both together.
    #[inline(always)]
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let mut broken = self.broken;
        broken.union(other.broken);
        Self {
            stale: self.stale & other.stale,
            open: self.open | other.open,
            held: self.held | other.held,
            broken,
            disordered: self.disordered | other.disordered,
            disordered_in_reset: self.disordered_in_reset | other.disordered_in_reset,
            resets: self.resets | other.resets,
            could_run: self.could_run | other.could_run,
            rearms: self.rearms | other.rearms,
        }
    }

    /// What is broken in a state whose vCPUs and threads are all joined here.
    #[inline(always)]
    #[must_use]
    pub fn verdict(self) -> Invariants {
        let mut broken = self.broken;
        if self.stale != 0 {
            broken.insert(Invariant::StalePageIsAccountedFor);
        }
        if self.could_run && !self.rearms && self.open & !self.held != 0 {
            broken.insert(Invariant::UnrecordedPageIsArmed);
        }
        let disordered = self.disordered & !self.resets | self.disordered_in_reset & self.resets;
        if disordered != 0 {
            broken.insert(Invariant::DirtyGfnFollowsLifecycle);
        }
        broken
    }

    /// As words, for a table.
    #[must_use]
    pub fn to_words(self) -> [u64; 4] {
        [
            self.stale,
            self.open,
            self.held,
            u64::from(self.broken.bits())
                | u64::from(self.disordered) << 16
                | u64::from(self.disordered_in_reset) << 24
                | u64::from(self.resets) << 32
                | u64::from(self.could_run) << 40
                | u64::from(self.rearms) << 41,
        ]
    }

    /// From those words.
    #[inline(always)]
    #[must_use]
    pub fn from_words(words: [u64; 4]) -> Self {
        let rest = words[3];
        Self {
            stale: words[0],
            open: words[1],
            held: words[2],
            broken: Invariants::from_bits(rest as u16),
            disordered: (rest >> 16) as u8,
            disordered_in_reset: (rest >> 24) as u8,
            resets: (rest >> 32) as u8,
            could_run: rest >> 40 & 1 != 0,
            rearms: rest >> 41 & 1 != 0,
        }
    }
}

/// A set of at most 64 pages as a word.
fn word<S: PageSet>(set: &S) -> u64 {
    set.word(0, 64)
}
