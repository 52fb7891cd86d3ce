//! "Sometimes" claims: what must happen in some schedule for a verdict to mean anything.
//!
//! An invariant that holds because nothing ever happened holds in vain. Each claim says in which scenarios it is
//! expected at all.
//!
//! ```
//! use dirtysim_check::run::{Options, run};
//! use dirtysim_check::scheduler::Scheduler;
//! use dirtysim_check::sometimes::Sometimes;
//! use dirtysim_check::scenario::Scenario;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! let options = Options { seeds: 0..100, scheduler: Scheduler::Random, keep_going: true };
//! let outcome = run(&scenario, &options, &|_| true);
//! assert!(outcome.seen.has(Sometimes::EndReached));
//! ```

use dirtysim_model::kernel::soft_limit;
use dirtysim_model::machine::Machine;
use dirtysim_model::op::{self, Op, Until};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::ring::{F_DIRTY, F_RESET, RingEntry};
use dirtysim_model::state::vcpu::{Exit, Pc};
use dirtysim_model::transition::{Actor, Choice, Step};

macro_rules! claims {
    ($($variant:ident = $sentence:literal;)+) => {
        /// Something that should happen in some schedule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Sometimes {
            $(#[doc = $sentence] $variant,)+
        }

        impl Sometimes {
            /// Every claim.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The claim in words.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

claims! {
    StoreHit = "a vCPU stored to a page";
    SoftFull = "a ring was soft-full";
    ExitRingFull = "a vCPU left with exit 31";
    StaleTlbStore = "a store went through a TLB entry whose leaf was armed already";
    StoreDuringGet = "a store landed while a GET was in progress";
    StoreDuringReset = "a store landed while a RESET had freed an entry and not re-armed its page";
    KernelWrite = "a kernel writer without a vCPU changed a page";
    BitmapHadPages = "a slot's bitmap had a page";
    RingAndBitmap = "rings and bitmap had pages at the same time";
    Harvested = "a ring entry was harvested";
    EntryReset = "a harvested entry was freed by RESET";
    BitsCleared = "CLEAR was called with bits to clear";
    PmlHeld = "a PML buffer held a page";
    MarkOwed = "a page was writable before its mark was made";
    DeviceWrote = "a device changed a page";
    GuestRanOn = "the guest was let run again after it had been stopped";
    EndReached = "the end was reached: finish, switch-over or checkpoint";
    FirstThreadEnded = "the VMM's first thread came to the end of its steps, or of a round of them";
    SecondThreadEnded = "the VMM's second thread came to the end of its steps, or of a round of them";
    ThirdThreadEnded = "the VMM's third thread came to the end of its steps, or of a round of them";
    FourthThreadEnded = "the VMM's fourth thread came to the end of its steps, or of a round of them";
}

/// The claims that a thread came to its end, by thread.
const THREAD_ENDED: [Sometimes; 4] = [
    Sometimes::FirstThreadEnded,
    Sometimes::SecondThreadEnded,
    Sometimes::ThirdThreadEnded,
    Sometimes::FourthThreadEnded,
];

impl Sometimes {
    /// Whether the scenario leads one to expect it.
    #[must_use]
    pub fn applies(self, machine: &Machine, ring: bool) -> bool {
        let any = |wanted: fn(&Op) -> bool| machine.programs.iter().flatten().any(wanted);
        let stores = machine.vcpus.iter().any(|vcpu| vcpu.stores > 0);
        let gets = any(|op| matches!(op, Op::GetDirtyLog(_)));
        let resets = any(|op| matches!(op, Op::ResetRings(_)));
        let kernel = any(|op| matches!(op, Op::KernelWrite(_)));
        match self {
            Self::StoreHit => stores,
            Self::SoftFull | Self::ExitRingFull => false,
            Self::StaleTlbStore | Self::StoreDuringGet | Self::StoreDuringReset => false,
            Self::KernelWrite => kernel,
            Self::BitmapHadPages => gets && (kernel || (!ring && stores)),
            Self::RingAndBitmap => false,
            Self::Harvested => ring && stores && any(|op| matches!(op, Op::Harvest(_))),
            Self::EntryReset => ring && stores && resets,
            Self::BitsCleared => any(|op| matches!(op, Op::ClearDirtyLog(_))),
            Self::PmlHeld => machine.pml && stores,
            Self::MarkOwed => false,
            Self::DeviceWrote => !machine.devices.is_empty(),
            Self::GuestRanOn => any(|op| matches!(op, Op::Resume)),
            Self::EndReached => true,
            Self::FirstThreadEnded => must_end(machine, 0),
            Self::SecondThreadEnded => must_end(machine, 1),
            Self::ThirdThreadEnded => must_end(machine, 2),
            Self::FourthThreadEnded => must_end(machine, 3),
        }
    }

    /// What the program itself must do: where no schedule did it, there is nothing to give a verdict on.
    #[must_use]
    pub fn is_must(self) -> bool {
        self == Self::EndReached || THREAD_ENDED.contains(&self)
    }

    /// What it means that no schedule did what the program must do; empty for the other claims.
    #[must_use]
    pub const fn missed(self) -> &'static str {
        match self {
            Self::EndReached => {
                "the end was never reached: no schedule came to `finish`, `switch-over` or `checkpoint`"
            }
            Self::FirstThreadEnded => {
                "the VMM's first thread never came to the end of its steps, or of a round of them"
            }
            Self::SecondThreadEnded => {
                "the VMM's second thread never came to the end of its steps, or of a round of them"
            }
            Self::ThirdThreadEnded => {
                "the VMM's third thread never came to the end of its steps, or of a round of them"
            }
            Self::FourthThreadEnded => {
                "the VMM's fourth thread never came to the end of its steps, or of a round of them"
            }
            _ => "",
        }
    }
}

/// Why what was seen is no ground for `holds`, though nothing broke: what the program must do and no schedule did.
#[must_use]
pub fn no_claim(machine: &Machine, seen: Seen) -> Option<Sometimes> {
    // Whether there is a ring decides about no claim of this kind.
    Sometimes::ALL
        .iter()
        .copied()
        .find(|claim| claim.is_must() && claim.applies(machine, false) && !seen.has(*claim))
}

/// Whether there is such a thread, and some schedule must bring it to its end. One that waits for a thread that ends the
/// protocol does not come that far.
fn must_end(machine: &Machine, thread: usize) -> bool {
    // Of a VMM's own code nobody knows which operation is a thread's last.
    if machine.code.is_some() {
        return false;
    }
    let finishes = |op: &Op| matches!(op, Op::Finish(_));
    let waits_for_the_end = |op: &Op| matches!(op, Op::JoinThread(other) if machine.programs[usize::from(*other)].iter().any(finishes));
    machine
        .programs
        .get(thread)
        .is_some_and(|program| !program.is_empty() && !program.iter().any(waits_for_the_end))
}

/// Whether the operation at `at` is the last on a way through the program, or the last of a round that is repeated for ever.
#[inline]
fn is_last(program: &[Op], at: usize) -> bool {
    at + 1 == program.len()
        || match program[at] {
            Op::Finish(_) | Op::Panic | Op::Leave => true,
            Op::Again(op::Again {
                to,
                until: Until::Never,
            }) => usize::from(to) >= program.len() || usize::from(to) <= at,
            _ => false,
        }
}

/// A set of "sometimes" claims that were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    fn insert(&mut self, claim: Sometimes, yes: bool) {
        self.0 |= u32::from(yes) << claim as u8;
    }

    /// Adds what another set has.
    pub fn union(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether the claim was seen.
    #[must_use]
    pub fn has(self, claim: Sometimes) -> bool {
        self.0 >> claim as u8 & 1 != 0
    }

    /// Notes what `step`, possible in `state`, is about to do.
    #[inline]
    pub fn note<L: Layout>(&mut self, machine: &Machine, state: &State<L>, step: Step) {
        let mut facts = Facts::of_step(machine, state, step);
        if facts.asks_threads() {
            for thread in 0..state.threads.len() {
                facts.join(Facts::of_thread(machine, state, thread));
            }
        }
        if facts.asks_rings() {
            for vcpu in 0..state.vcpus.len() {
                facts.join(Facts::of_vcpu(state, vcpu));
            }
        }
        self.add(facts);
    }

    /// Adds what follows from the facts of a state and of some of its steps.
    #[inline(always)]
    pub fn add(&mut self, facts: Facts) {
        self.0 |= facts.seen.0;
        if self.0 & ALL_CROSSED != ALL_CROSSED {
            for (claim, needs) in CROSSED {
                self.insert(claim, facts.crossing & needs == needs);
            }
        }
    }
}

/// What a step, a vCPU or a thread contributes to what is seen: claims of its own, and halves of claims that speak of
/// two actors at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    seen: Seen,
    crossing: u16,
}

/// A step: a store goes through a TLB.
const HITS: u16 = 1 << 0;
/// A step: of a GET, with pages in the bitmap.
const GETS: u16 = 1 << 1;
/// A step: of a harvest.
const HARVESTS: u16 = 1 << 2;
/// A step: of a RESET.
const RESETS: u16 = 1 << 3;
/// A thread is inside GET.
const IN_GET: u16 = 1 << 4;
/// A thread is inside RESET, with a batch that is not re-armed.
const IN_BATCH: u16 = 1 << 5;
/// A ring has an entry that is not free.
const RING_USED: u16 = 1 << 6;
/// A ring has an entry that is dirty.
const RING_DIRTY: u16 = 1 << 7;
/// A ring has an entry that was harvested.
const RING_HARVESTED: u16 = 1 << 8;

/// The claims that speak of two actors, with their halves.
const CROSSED: [(Sometimes, u16); 5] = [
    (Sometimes::StoreDuringGet, HITS | IN_GET),
    (Sometimes::StoreDuringReset, HITS | IN_BATCH),
    (Sometimes::RingAndBitmap, GETS | RING_USED),
    (Sometimes::Harvested, HARVESTS | RING_DIRTY),
    (Sometimes::EntryReset, RESETS | RING_HARVESTED),
];

/// The claims of [`CROSSED`], as a [`Seen`] has them.
const ALL_CROSSED: u32 = {
    let mut all = 0;
    let mut index = 0;
    while index < CROSSED.len() {
        all |= 1 << CROSSED[index].0 as u8;
        index += 1;
    }
    all
};

impl Facts {
    /// In a word, the halves begin at this bit.
    pub(crate) const CROSSING: u32 = 32;

    /// Adds another's.
    #[inline(always)]
    pub fn join(&mut self, other: Self) {
        self.seen.union(other.seen);
        self.crossing |= other.crossing;
    }

    /// Whether a half is there whose other half is a thread's.
    fn asks_threads(self) -> bool {
        self.crossing & HITS != 0
    }

    /// Whether a half is there whose other half is a ring's.
    fn asks_rings(self) -> bool {
        self.crossing & (GETS | HARVESTS | RESETS) != 0
    }

    /// As a word of 48 bits, for a table. Words are joined by `|`.
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.seen.0) | u64::from(self.crossing) << Self::CROSSING
    }

    /// From that word.
    #[inline(always)]
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        Self {
            seen: Seen(word as u32),
            crossing: (word >> Self::CROSSING) as u16,
        }
    }

    fn insert(&mut self, claim: Sometimes, yes: bool) {
        self.seen.insert(claim, yes);
    }

    fn half(&mut self, half: u16, yes: bool) {
        if yes {
            self.crossing |= half;
        }
    }

    /// What a vCPU's ring contributes to the claims of others' steps.
    #[must_use]
    pub fn of_vcpu<L: Layout>(state: &State<L>, vcpu: usize) -> Self {
        let mut facts = Self::default();
        for entry in state.vcpus[vcpu].ring.entries.iter() {
            let flags = entry.flags();
            facts.half(RING_USED, flags != 0);
            facts.half(RING_DIRTY, flags == F_DIRTY);
            facts.half(RING_HARVESTED, flags & F_RESET != 0);
        }
        facts
    }

    /// What a thread contributes to the claims of others' steps.
    #[must_use]
    pub fn of_thread<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> Self {
        let mut facts = Self::default();
        let t = &state.threads[thread];
        if t.stage != 0 {
            match machine.programs[thread].get(usize::from(t.op)) {
                Some(Op::GetDirtyLog(_)) => facts.half(IN_GET, true),
                Some(Op::ResetRings(_)) => facts.half(IN_BATCH, t.batch.mask != 0),
                _ => {}
            }
        }
        facts
    }

    /// What a step contributes by itself.
    #[must_use]
    #[inline]
    pub fn of_step<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Self {
        let mut facts = Self::default();
        match step.actor {
            Actor::Vcpu(vcpu) => {
                facts.note_vcpu(machine, state, usize::from(vcpu), step.choice);
            }
            Actor::Thread(thread) => facts.note_thread(machine, state, usize::from(thread)),
            Actor::Device(_) => facts.insert(
                Sometimes::DeviceWrote,
                matches!(step.choice, Choice::Land(_)),
            ),
        }
        facts
    }

    #[inline]
    fn note_vcpu<L: Layout>(
        &mut self,
        machine: &Machine,
        state: &State<L>,
        vcpu: usize,
        choice: Choice,
    ) {
        let v = &state.vcpus[vcpu];
        let compared = machine.kernel.soft_full_is_compared() && v.ring.size() > 0;
        let full = compared && v.ring.used() >= soft_limit(machine, v.ring.size());
        self.insert(Sometimes::SoftFull, v.request || full);
        self.insert(Sometimes::ExitRingFull, v.exit == Exit::DirtyRingFull);
        self.insert(Sometimes::PmlHeld, !v.pml.is_empty());
        let frame = match (v.pc, choice) {
            (Pc::Guest, Choice::Store(frame)) => frame,
            (Pc::Guest, Choice::Advance) => v.frame,
            (Pc::Fault, _) => {
                let open = state.writable.contains(v.frame);
                self.insert(Sometimes::MarkOwed, open && v.logging);
                return;
            }
            _ => return,
        };
        if !v.tlb.contains(frame) {
            return;
        }
        self.insert(Sometimes::StoreHit, true);
        let armed =
            !state.writable.contains(frame) || (machine.pml && !state.dirty_bit.contains(frame));
        self.insert(Sometimes::StaleTlbStore, armed);
        self.half(HITS, true);
    }

    #[inline]
    fn note_thread<L: Layout>(&mut self, machine: &Machine, state: &State<L>, thread: usize) {
        let t = &state.threads[thread];
        let program = &machine.programs[thread];
        let at = usize::from(t.op);
        // What is for memslots of a kind may be passed by up to the end.
        let passes = |op: &Op| matches!(op, Op::PassUnless(look) if usize::from(look.to) >= program.len() && !look.is_so(state));
        if at < program.len()
            && (is_last(program, at) || passes(&program[at]))
            && let Some(ended) = THREAD_ENDED.get(thread)
        {
            self.insert(*ended, true);
        }
        match program.get(at) {
            Some(Op::Finish(_) | Op::Checkpoint) => self.insert(Sometimes::EndReached, true),
            Some(Op::KernelWrite(_)) => self.insert(Sometimes::KernelWrite, t.stage == 1),
            Some(Op::GetDirtyLog(_)) => {
                let dirty = !state.bitmap.is_empty();
                self.insert(Sometimes::BitmapHadPages, dirty);
                self.half(GETS, dirty);
            }
            Some(Op::Harvest(_)) => self.half(HARVESTS, true),
            Some(Op::ResetRings(_)) => self.half(RESETS, true),
            Some(Op::ClearDirtyLog(_)) => {
                self.insert(Sometimes::BitsCleared, !state.bitmap.is_empty());
            }
            Some(Op::Resume) => self.insert(Sometimes::GuestRanOn, !state.guest_runs),
            _ => {}
        }
    }
}
