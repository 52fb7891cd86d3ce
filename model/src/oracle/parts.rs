//! The claims about a state, taken apart by sections.
//!
//! What [`super::check`] says of a state follows from what its VM-wide section, each vCPU and each thread contribute. A
//! search that meets the same contribution in many states computes it once, joins what it knows, and asks for the
//! verdict. The pieces are the oracle's own; only how they are put together stands here, and wherever assertions are on,
//! the search compares it with the oracle in every state and at every step.
//!
//! Not here: machines of more than 64 pages or 8 vCPUs or threads.

use super::{
    Invariant, Invariants, begins_full_copy, bitmap_ends, check_count, check_ring, in_reset,
    live_only, logged_hosts, lost, open_leaves, owes_flush, resets_ring_of, subtract_thread,
    subtract_vcpu, subtract_vm, tlb_is_stale,
};
use crate::layout::Layout;
use crate::machine::Machine;
use crate::pages::PageSet;
use crate::state::State;
use crate::step::Effect;

/// What one section contributes, or several joined.
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
    /// Some vCPU's TLB lets a store through that its leaf would not.
    stale_tlb: bool,
    /// Threads in an ioctl that may still flush TLBs.
    owe_flush: u8,
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
        stale_tlb: false,
        owe_flush: 0,
    };

    /// What the VM-wide section contributes.
    #[must_use]
    pub fn of_vm<L: Layout>(machine: &Machine, state: &State<L>) -> Self {
        let aliased = machine.aliased();
        let mut stale = live_only(machine, state, state.stale.clone());
        subtract_vm(machine, state, aliased, &mut stale);
        let mut part = Self::holding::<L>(|left| subtract_vm(machine, state, aliased, left));
        part.stale = word(&stale);
        part.open = word(&logged_hosts(machine, state, open_leaves(machine, state)));
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

    /// What a vCPU contributes; it reads the leaves and the memslots besides.
    #[must_use]
    pub fn of_vcpu<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Self {
        let mut part = Self::holding::<L>(|left| subtract_vcpu(machine, state, vcpu, left));
        let v = &state.vcpus[vcpu];
        part.open = word(&logged_hosts(machine, state, v.tlb.clone()));
        part.could_run = state.guest_runs || !v.is_stopped();
        part.stale_tlb = tlb_is_stale(machine, state, vcpu);
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

    /// What a thread contributes; in GET it reads the bitmap's scratch half besides.
    #[must_use]
    pub fn of_thread<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> Self {
        let aliased = machine.aliased();
        let mut part =
            Self::holding::<L>(|left| subtract_thread(machine, state, aliased, thread, left));
        if begins_full_copy(machine, state, thread) {
            part.held = u64::MAX;
            part.stale = 0;
        }
        part.rearms = in_reset(machine, state, thread);
        part.owe_flush = u8::from(owes_flush(machine, state, thread)) << thread;
        for vcpu in 0..state.vcpus.len() {
            part.resets |= u8::from(resets_ring_of(machine, state, thread, vcpu)) << vcpu;
        }
        part
    }

    /// A part that accounts for what `subtract` takes out.
    fn holding<L: Layout>(subtract: impl FnOnce(&mut L::Set)) -> Self {
        let mut all = L::Set::default();
        all.set_word(0, u64::MAX);
        let every = word(&all);
        subtract(&mut all);
        let held = every & !word(&all);
        Self {
            held,
            stale: !held,
            ..Self::NEUTRAL
        }
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
            stale_tlb: self.stale_tlb | other.stale_tlb,
            owe_flush: self.owe_flush | other.owe_flush,
        }
    }

    /// What is broken in a state whose sections are all joined here.
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
                | u64::from(self.rearms) << 41
                | u64::from(self.stale_tlb) << 42
                | u64::from(self.owe_flush) << 48,
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
            stale_tlb: rest >> 42 & 1 != 0,
            owe_flush: (rest >> 48) as u8,
        }
    }
}

/// What a step of a thread claims, as far as the step itself tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Claimed {
    /// What it broke, whatever the vCPUs say.
    broken: Invariants,
    /// TLBs must be flushed now.
    flushed: bool,
}

impl Claimed {
    /// What `effect` claims, where `after` is the state after the step; it reads what is stale, what is pending, and
    /// memslots.
    #[must_use]
    pub fn of<L: Layout>(machine: &Machine, after: &State<L>, effect: Effect) -> Self {
        let mut claimed = Self::default();
        match effect {
            Effect::None => {}
            Effect::Claim { postcopy } => {
                if !lost(machine, after, postcopy).is_empty() {
                    claimed.broken.insert(Invariant::NoDirtyPageLost);
                }
            }
            Effect::Returned { reset } => {
                claimed.broken = check_count(reset);
                claimed.flushed = true;
            }
        }
        claimed
    }

    /// What is broken by the step of `thread` from a state whose sections are all joined in `before`. Returning from an
    /// ioctl changes neither leaves nor TLBs.
    #[inline(always)]
    #[must_use]
    pub fn verdict(self, before: Part, thread: usize) -> Invariants {
        let mut broken = self.broken;
        if self.flushed && before.stale_tlb && before.owe_flush & !(1 << thread) == 0 {
            broken.insert(Invariant::TlbIsFlushedOnReturn);
        }
        broken
    }

    /// As a word, for a table.
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.broken.bits()) | u64::from(self.flushed) << 16
    }

    /// From that word.
    #[inline(always)]
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        Self {
            broken: Invariants::from_bits(word as u16),
            flushed: word >> 16 & 1 != 0,
        }
    }
}

/// A set of at most 64 pages as a word.
fn word<S: PageSet>(set: &S) -> u64 {
    set.word(0, 64)
}
