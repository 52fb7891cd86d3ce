//! "Sometimes" claims: what must happen in some schedule for a verdict to mean anything.
//!
//! An invariant that holds because nothing ever happened holds in vain. Each claim says in which scenarios it is
//! expected at all.

use dirtysim_model::layout::Layout;
use dirtysim_model::machine::Machine;
use dirtysim_model::op::Op;
use dirtysim_model::pages::PageSet;
use dirtysim_model::ring::{F_DIRTY, F_RESET, RingEntry};
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Choice, Step};
use dirtysim_model::vcpu::{Exit, Pc};

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
}

impl Sometimes {
    /// Whether the scenario leads one to expect it.
    #[must_use]
    pub fn applies(self, machine: &Machine, ring: bool) -> bool {
        let any = |wanted: fn(&Op) -> bool| machine.programs.iter().flatten().any(wanted);
        let stores = machine.vcpus.iter().any(|vcpu| vcpu.stores > 0);
        let gets = any(|op| matches!(op, Op::GetDirtyLog { .. }));
        let resets = any(|op| matches!(op, Op::ResetRings { .. }));
        let kernel = any(|op| matches!(op, Op::KernelWrite { .. }));
        match self {
            Self::StoreHit => stores,
            Self::SoftFull | Self::ExitRingFull => false,
            Self::StaleTlbStore | Self::StoreDuringGet | Self::StoreDuringReset => false,
            Self::KernelWrite => kernel,
            Self::BitmapHadPages => gets && (kernel || (!ring && stores)),
            Self::RingAndBitmap => false,
            Self::Harvested => ring && stores && any(|op| matches!(op, Op::Harvest { .. })),
            Self::EntryReset => ring && stores && resets,
            Self::BitsCleared => any(|op| matches!(op, Op::ClearDirtyLog { .. })),
            Self::PmlHeld => machine.pml && stores,
            Self::MarkOwed => false,
            Self::DeviceWrote => !machine.devices.is_empty(),
            Self::GuestRanOn => any(|op| matches!(op, Op::Resume)),
        }
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
        match step.actor {
            Actor::Vcpu(vcpu) => self.note_vcpu(machine, state, usize::from(vcpu), step.choice),
            Actor::Thread(thread) => self.note_thread(machine, state, usize::from(thread)),
            Actor::Device(_) => self.insert(
                Sometimes::DeviceWrote,
                matches!(step.choice, Choice::Page(_)),
            ),
        }
    }

    fn note_vcpu<L: Layout>(
        &mut self,
        machine: &Machine,
        state: &State<L>,
        vcpu: usize,
        choice: Choice,
    ) {
        let v = &state.vcpus[vcpu];
        self.insert(Sometimes::SoftFull, v.request);
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
        for (index, thread) in state.threads.iter().enumerate() {
            if thread.stage == 0 {
                continue;
            }
            match machine.programs[index].get(usize::from(thread.op)) {
                Some(Op::GetDirtyLog { .. }) => self.insert(Sometimes::StoreDuringGet, true),
                Some(Op::ResetRings { .. }) => {
                    self.insert(Sometimes::StoreDuringReset, thread.batch.mask != 0);
                }
                _ => {}
            }
        }
    }

    fn note_thread<L: Layout>(&mut self, machine: &Machine, state: &State<L>, thread: usize) {
        let t = &state.threads[thread];
        match machine.programs[thread].get(usize::from(t.op)) {
            Some(Op::KernelWrite { .. }) => self.insert(Sometimes::KernelWrite, t.stage == 1),
            Some(Op::GetDirtyLog { .. }) => {
                let dirty = !state.bitmap.is_empty();
                self.insert(Sometimes::BitmapHadPages, dirty);
                let ring = dirty
                    && state
                        .vcpus
                        .iter()
                        .any(|v| v.ring.entries.iter().any(|entry| entry.flags() != 0));
                self.insert(Sometimes::RingAndBitmap, ring);
            }
            Some(Op::Harvest { .. }) => {
                let unread = state
                    .vcpus
                    .iter()
                    .any(|v| v.ring.entries.iter().any(|entry| entry.flags() == F_DIRTY));
                self.insert(Sometimes::Harvested, unread);
            }
            Some(Op::ResetRings { .. }) => {
                let harvested = state.vcpus.iter().any(|v| {
                    v.ring
                        .entries
                        .iter()
                        .any(|entry| entry.flags() & F_RESET != 0)
                });
                self.insert(Sometimes::EntryReset, harvested);
            }
            Some(Op::ClearDirtyLog { .. }) => {
                self.insert(Sometimes::BitsCleared, !state.bitmap.is_empty())
            }
            Some(Op::Resume) => self.insert(Sometimes::GuestRanOn, !state.guest_runs),
            _ => {}
        }
    }
}
