//! The claims about a state, taken apart by sections.
//!
//! What [`super::check`] says of a state follows from what its VM-wide section, each vCPU and each thread contribute. A
//! search that meets the same contribution in many states computes it once, joins what it knows, and asks for the
//! verdict. The pieces are the oracle's own; only how they are put together stands here, and wherever assertions are on,
//! the search compares it with the oracle in every state and at every step.
//!
//! Not here: machines of more than 64 pages or 8 vCPUs or threads.

use super::check::{
    bitmap_ends, check_count, check_ring, in_reset, live_only, logged_hosts, lost, open_leaves,
    owes_flush, resets_ring_of, subtract_thread, subtract_vcpu, subtract_vm, tlb_is_stale,
};
use super::{Invariant, Invariants};
use crate::machine::Machine;
use crate::state::State;
use crate::state::accounts::begins_full_copy;
use crate::state::layout::Layout;
use crate::state::pages::{HostPages, PageSet, SetOf};
use crate::words::Effect;
use crate::words::Page;

/// What one section contributes, or several joined: words, so that joining them is four operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Stale host pages that none of these accounts for.
    stale: u64,
    /// Host pages that a store could reach unseen through what these know of leaves and TLBs.
    open: u64,
    /// Host pages that one of these accounts for.
    held: u64,
    /// The rest, as bits: see the constants.
    bits: u64,
}

/// What is broken whatever the others say: [`Invariants::bits`].
const BROKEN: u64 = 0xffff;
/// From this bit on, vCPUs whose ring is out of order unless RESET is at it.
const DISORDERED: u32 = 16;
/// From this bit on, vCPUs whose ring is out of order even so.
const DISORDERED_IN_RESET: u32 = 24;
/// From this bit on, vCPUs whose ring RESET is at.
const RESETS: u32 = 32;
/// From this bit on, threads in an ioctl that may still flush TLBs.
const OWE_FLUSH: u32 = 40;
/// Some vCPU is in KVM_RUN or may enter it.
const COULD_RUN: u64 = 1 << 48;
/// An ioctl is re-arming.
const REARMS: u64 = 1 << 49;
/// Some vCPU's TLB lets a store through that its leaf would not.
const STALE_TLB: u64 = 1 << 50;

impl Part {
    /// Contributes nothing: where a join begins.
    pub const NEUTRAL: Self = Self {
        stale: u64::MAX,
        open: 0,
        held: 0,
        bits: 0,
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
        let mut broken = Invariants::NONE;
        if state.crashed {
            broken.insert(Invariant::NothingCrashes);
        }
        if !bitmap_ends(machine, state) {
            broken.insert(Invariant::BitmapEndsAtNpages);
        }
        if machine.track_spurious && !state.spurious.is_empty() {
            broken.insert(Invariant::NoSpuriousDirtyPage);
        }
        part.bits = u64::from(broken.bits()) | flag(state.slots_lock != 0, REARMS);
        part.judged(machine)
    }

    /// What a vCPU contributes; it reads the leaves and the memslots besides.
    #[must_use]
    pub fn of_vcpu<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Self {
        let aliased = machine.aliased();
        let mut part =
            Self::holding::<L>(|left| subtract_vcpu(machine, state, aliased, vcpu, left));
        let v = &state.vcpus[vcpu];
        part.open = word(&logged_hosts(machine, state, v.tlb.clone()));
        part.bits = flag(state.guest_runs || !v.is_stopped(), COULD_RUN)
            | flag(tlb_is_stale(machine, state, vcpu), STALE_TLB);
        if state.caps.ring_entries != 0 {
            let disordered = |broken: Invariants, from: u32| {
                flag(
                    broken.has(Invariant::DirtyGfnFollowsLifecycle),
                    1 << (from + vcpu as u32),
                )
            };
            let mut broken = Invariants::NONE;
            let idle = check_ring(state, vcpu, || false);
            if idle.has(Invariant::RingNeverOverflows) {
                broken.insert(Invariant::RingNeverOverflows);
            }
            part.bits |= u64::from(broken.bits())
                | disordered(idle, DISORDERED)
                | disordered(check_ring(state, vcpu, || true), DISORDERED_IN_RESET);
        }
        part.judged(machine)
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
        part.bits = flag(in_reset(&state.threads[thread]), REARMS)
            | flag(
                owes_flush(&state.threads[thread]),
                1 << (OWE_FLUSH + thread as u32),
            );
        for vcpu in 0..state.vcpus.len() {
            let resets = resets_ring_of(&state.threads[thread], vcpu);
            part.bits |= flag(resets, 1 << (RESETS + vcpu as u32));
        }
        part
    }

    /// Without what bears on claims alone by which the machine is not judged.
    fn judged(mut self, machine: &Machine) -> Self {
        let judged = machine.claims;
        let mut left_out = BROKEN & !u64::from(judged.bits());
        if !judged.has(Invariant::DirtyGfnFollowsLifecycle) {
            left_out |= 0xff << DISORDERED | 0xff << DISORDERED_IN_RESET;
        }
        self.bits &= !left_out;
        if !judged.has(Invariant::UnrecordedPageIsArmed) {
            self.open = 0;
        }
        if !judged.has(Invariant::StalePageIsAccountedFor) {
            self.stale = 0;
        }
        self
    }

    /// A part that accounts for what `subtract` takes out.
    fn holding<L: Layout>(subtract: impl FnOnce(&mut HostPages<L::Set>)) -> Self {
        let mut all = HostPages::<L::Set>::default();
        all.numbers_mut().set_word(0, u64::MAX);
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
        Self {
            stale: self.stale & other.stale,
            open: self.open | other.open,
            held: self.held | other.held,
            bits: self.bits | other.bits,
        }
    }

    /// What is broken in a state whose sections are all joined here.
    #[inline(always)]
    #[must_use]
    pub fn verdict(self) -> Invariants {
        let suspicious = BROKEN | 0xff << DISORDERED | 0xff << DISORDERED_IN_RESET;
        if self.stale | self.open & !self.held | self.bits & suspicious == 0 {
            return Invariants::NONE;
        }
        self.careful_verdict()
    }

    #[cold]
    fn careful_verdict(self) -> Invariants {
        let mut broken = Invariants::from_bits((self.bits & BROKEN) as u16);
        if self.stale != 0 {
            broken.insert(Invariant::StalePageIsAccountedFor);
        }
        if self.bits & (COULD_RUN | REARMS) == COULD_RUN && self.open & !self.held != 0 {
            broken.insert(Invariant::UnrecordedPageIsArmed);
        }
        let byte = |from: u32| self.bits >> from & 0xff;
        let resets = byte(RESETS);
        if byte(DISORDERED) & !resets | byte(DISORDERED_IN_RESET) & resets != 0 {
            broken.insert(Invariant::DirtyGfnFollowsLifecycle);
        }
        broken
    }

    /// As words, for a table.
    #[must_use]
    pub fn to_words(self) -> [u64; 4] {
        [self.stale, self.open, self.held, self.bits]
    }

    /// From those words.
    #[inline(always)]
    #[must_use]
    pub fn from_words([stale, open, held, bits]: [u64; 4]) -> Self {
        Self {
            stale,
            open,
            held,
            bits,
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
                claimed.flushed = machine.claims.has(Invariant::TlbIsFlushedOnReturn);
            }
        }
        claimed.broken = claimed.broken.among(machine.claims);
        claimed
    }

    /// What is broken by the step of `thread` from a state whose sections are all joined in `before`. Returning from an
    /// ioctl changes neither leaves nor TLBs.
    #[inline(always)]
    #[must_use]
    pub fn verdict(self, before: Part, thread: usize) -> Invariants {
        let mut broken = self.broken;
        let others = before.bits >> OWE_FLUSH & 0xff & !(1 << thread);
        if self.flushed && before.bits & STALE_TLB != 0 && others == 0 {
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

fn flag(yes: bool, bit: u64) -> u64 {
    if yes { bit } else { 0 }
}

/// A set of at most 64 pages as a word.
fn word<P: Page, S: PageSet>(set: &SetOf<P, S>) -> u64 {
    set.numbers().word(0, 64)
}
