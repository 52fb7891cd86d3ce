//! Steps that need no interleaving: partial-order reduction by local steps.
//!
//! Where [`Rules::local_step`] answers with a step, a search may take that one alone and leave every other actor's
//! steps for later. That is sound (an ample set of one step) because each rule's step
//! - is the only thing that its actor can do, and nothing that others do, now or later, can take it away;
//! - commutes with everything that others can do before it (what it reads they do not write, and the other way round);
//! - hides nothing: a claim that is broken where others went on without it is also broken where it was taken first.
//!   So it may take an account of a page away, which only breaks claims, but never add the only one, nor switch a
//!   claim off;
//! - moves its actor on in straight-line code, so that no cycle has such steps alone.
//!
//! "Later" has an end: a vCPU that is inside KVM_RUN holds every thread back at its next `wait-vcpus-stopped`. What
//! threads can do before it is a window (`Window`).
//!
//! What a rule reads and writes stands beside it. A mutation withdraws all of them: they were argued for the kernel as
//! it is, and a reduction must not excuse a mutant; and none is argued for s390, whose leaves are its log. A second VMM thread withdraws those of threads.

use alloc::vec::Vec;

use crate::ioctl::{get_dirty_log, reset_rings};
use crate::layout::Layout;
use crate::machine::{Arch, Machine, Mmu};
use crate::op::{HarvestWay, Op};
use crate::pages::PageSet;
use crate::ring::{F_DIRTY, RingEntry};
use crate::state::State;
use crate::step::{Actor, Choice, Step};
use crate::thread_steps::current_op;
use crate::vcpu::{NO_FRAME, Pc};
use crate::vcpu_steps::{
    EntryStage, FaultStage, entry_stages, fault_stages, owes_mark, soft_limit,
};
use crate::vmm::{copy, harvest};

macro_rules! rules {
    ($($variant:ident, $name:literal, reads $reads:literal, writes $writes:literal, $why:literal;)+) => {
        /// A kind of step that needs no interleaving.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Rule {
            $(#[doc = $why] $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the command line and in tests.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What such a step reads that is not its actor's own.
            #[must_use]
            pub const fn reads(self) -> &'static str {
                match self { $(Self::$variant => $reads,)+ }
            }

            /// What such a step writes.
            #[must_use]
            pub const fn writes(self) -> &'static str {
                match self { $(Self::$variant => $writes,)+ }
            }

            /// Why it is sound, and when it applies.
            #[must_use]
            pub const fn why(self) -> &'static str {
                match self { $(Self::$variant => $why,)+ }
            }
        }
    };
}

rules! {
    PushPayload, "push-payload", reads "the flags of the free entry", writes "slot number and offset of the entry at dirty_index",
        "Nobody reads the payload of an entry whose flags are 0: harvest looks for F_DIRTY first, RESET for F_RESET.";
    PushIndex, "push-index", reads "reset_index", writes "dirty_index",
        "Harvest goes by flags and never reads the index. RESET only lowers the number of entries in use, so below the soft limit the comparison is settled; at or above it the rule waits until no RESET can come. It ends what the fault owes, which hides nothing.";
    PushFlags, "push-flags", reads "nothing", writes "the flags of the entry at dirty_index",
        "No harvest can come before it, and RESET looks for F_RESET only. The page is owed before and after, so that its new record hides nothing.";
    MarkBit, "mark-bit", reads "nothing", writes "the bitmap",
        "No GET or CLEAR can come before it. The page is owed before, and so hidden from no claim by its bit.";
    PushRequest, "push-request", reads "nothing", writes "the vCPU's own request",
        "Only the vCPU itself reads its request.";
    FaultResolve, "fault-resolve", reads "the slot's life and flags", writes "the vCPU's own fault",
        "No SET_USER_MEMORY_REGION can come before it.";
    FaultLock, "fault-lock", reads "mmu_lock", writes "mmu_lock (a reader)",
        "Readers do not exclude each other, and no writer of mmu_lock can come before it.";
    FaultUnlock, "fault-unlock", reads "nothing", writes "mmu_lock",
        "Whoever it would let in cannot act before it.";
    Run, "run", reads "whether the guest may run", writes "where the vCPU is",
        "A vCPU that would have stayed in user space until the guest is stopped may as well run: the signal that is to come, before any thread waits for vCPUs to stop, makes it return to the same place with nothing done. Until then it only keeps claims switched on.";
    EnterGuest, "enter-guest", reads "whether a signal is pending", writes "where the vCPU is",
        "A signal that comes before the entry makes it leave; one that comes after makes it leave the guest again, to the same place, with nothing done in between. Without PML the entry reads nothing else.";
    CheckSoftFull, "check-soft-full", reads "reset_index", writes "the vCPU's own request and exit",
        "No RESET and no acknowledgement can come before it.";
    LeaveGuest, "leave-guest", reads "that a signal is pending", writes "where the vCPU is",
        "It has nothing left to store, and nobody takes the signal back. Without PML nobody asks whether it is in the guest.";
    ReturnToUser, "return-to-user", reads "nothing", writes "where the vCPU is",
        "Every thread waits until all vCPUs have stopped, so that nobody else can act on it. The last one to leave leaves nobody behind whose states it could hide.";
    HarvestEnter, "harvest-enter", reads "nothing", writes "the thread's own place",
        "One thread alone harvests.";
    HarvestEntry, "harvest-entry", reads "an entry that is dirty", writes "that entry's flags, fetch_index, the pages to copy",
        "Between F_DIRTY and F_RESET an entry belongs to the harvester; the ring cannot overflow onto it. Its page is in the pages to copy before the entry stops accounting for it.";
    ResetEntry, "reset-entry", reads "an entry that is harvested, or that is not", writes "its flags; slots_lock",
        "Only user space sets F_RESET, and its one thread is in RESET. A push does not look at the flags that it frees, and RESET counts as re-arming until it returns.";
    ResetIndex, "reset-index", reads "nothing", writes "reset_index",
        "The vCPU has no push to make and no request to check any more.";
    CopyBegin, "copy-begin", reads "which slots exist", writes "the pages to copy",
        "The full copy that was to come accounts for every page, and so does the list that it becomes.";
    CopyEnd, "copy-end", reads "that no page is left to copy", writes "the thread's own place",
        "Nobody but the thread itself adds pages to copy.";
    CopyPage, "copy-page", reads "the lowest page to copy", writes "whether it is stale",
        "To copy a page earlier is worse: while it was still to be copied no claim about it could be broken, and a store that would have come before the copy and now comes after leaves it stale. Nothing but claims reads what is stale, so that the earliest copies, in any order, break whatever later ones would.";
    GetWord, "get-word", reads "the bitmap, where rings log", writes "bitmap, scratch half, pages to copy, mmu_lock",
        "With rings no vCPU touches the bitmap, and its one thread is in GET. A page goes from bitmap to scratch half to the pages to copy, each before the one before gives it up; its re-arming, its flush and its return are not part of the rule.";
}

/// What the threads may do while a vCPU keeps them from passing their next `wait-vcpus-stopped`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Window {
    anything: bool,
    resets: bool,
    locks_mmu: bool,
    changes_slots: bool,
    resumes: bool,
    acknowledges: bool,
    harvests: bool,
    reads_bitmap: bool,
    stops: bool,
    writes_memory: bool,
}

impl Window {
    fn add(&mut self, op: &Op) {
        self.anything = true;
        match op {
            Op::ResetRings { .. } => {
                self.resets = true;
                self.locks_mmu = true;
            }
            Op::GetDirtyLog { .. } | Op::ClearDirtyLog { .. } => {
                self.locks_mmu = true;
                self.reads_bitmap = true;
            }
            Op::Harvest { .. } => self.harvests = true,
            Op::Kick { stop: true } => self.stops = true,
            Op::KernelWrite { .. } => self.writes_memory = true,
            Op::SetMemoryRegion { .. } | Op::EnableCap { .. } | Op::CreateVcpu => {
                self.locks_mmu = true;
                self.reads_bitmap = true;
                self.changes_slots = true;
            }
            Op::Resume => self.resumes = true,
            Op::AckRingFull => self.acknowledges = true,
            _ => {}
        }
    }

    fn bits(self) -> u64 {
        [
            self.anything,
            self.resets,
            self.locks_mmu,
            self.changes_slots,
            self.resumes,
            self.acknowledges,
            self.harvests,
            self.reads_bitmap,
            self.stops,
            self.writes_memory,
        ]
        .into_iter()
        .fold(0, |bits, bit| bits << 1 | u64::from(bit))
    }

    fn join(&mut self, other: Self) {
        self.anything |= other.anything;
        self.resets |= other.resets;
        self.locks_mmu |= other.locks_mmu;
        self.changes_slots |= other.changes_slots;
        self.resumes |= other.resumes;
        self.acknowledges |= other.acknowledges;
        self.harvests |= other.harvests;
        self.reads_bitmap |= other.reads_bitmap;
        self.stops |= other.stops;
        self.writes_memory |= other.writes_memory;
    }
}

/// The rules that hold for a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    enabled: u32,
    windows: Vec<Vec<Window>>,
}

impl Rules {
    /// No rule: every interleaving.
    #[must_use]
    pub fn none() -> Self {
        Self {
            enabled: 0,
            windows: Vec::new(),
        }
    }

    /// The rules of `wanted` that hold for the machine.
    #[must_use]
    pub fn of(machine: &Machine, wanted: impl Fn(Rule) -> bool) -> Self {
        let abuse = machine
            .programs
            .iter()
            .flatten()
            .any(|op| matches!(op, Op::Harvest { way, .. } if *way != HarvestWay::Right));
        let signals = machine
            .programs
            .iter()
            .flatten()
            .any(|op| matches!(op, Op::ResetRings { signal: true }));
        let waits_for_full = machine
            .programs
            .iter()
            .flatten()
            .any(|op| matches!(op, Op::WaitRingFull | Op::AckRingFull | Op::WaitRunning));
        let jumps = machine
            .programs
            .iter()
            .flatten()
            .any(|op| matches!(op, Op::OnError { .. } | Op::Again { .. }));
        let alone = machine.programs.len() == 1;
        let holds = |rule: Rule| {
            if !machine.mutations.is_empty() || abuse || machine.arch == Arch::S390 {
                return false;
            }
            match rule {
                Rule::PushIndex => ring_cannot_overflow(machine),
                Rule::EnterGuest | Rule::LeaveGuest => !machine.pml,
                Rule::FaultLock => machine.mmu == Mmu::TwoDimensional,
                Rule::ReturnToUser => machine.devices.is_empty(),
                Rule::HarvestEnter | Rule::CopyBegin | Rule::CopyEnd | Rule::GetWord => alone,
                // A report that is judged by what was written before it depends on when it comes.
                Rule::CopyPage => alone && machine.send_failures == 0 && !machine.track_spurious,
                // Where a program jumps, the stop that is ahead may be passed by.
                Rule::Run => !jumps && alone && !machine.pml && !waits_for_full,
                Rule::HarvestEntry => alone && ring_cannot_overflow(machine),
                Rule::ResetEntry | Rule::ResetIndex => {
                    alone && ring_cannot_overflow(machine) && !signals
                }
                _ => true,
            }
        };
        let enabled = Rule::ALL
            .iter()
            .filter(|rule| holds(**rule) && wanted(**rule))
            .fold(0, |enabled, rule| enabled | 1 << *rule as u8);
        Self {
            enabled,
            windows: machine.programs.iter().map(|ops| windows(ops)).collect(),
        }
    }

    /// Whether a rule is on.
    #[must_use]
    #[inline(always)]
    pub fn has(&self, rule: Rule) -> bool {
        self.enabled >> rule as u8 & 1 != 0
    }

    /// The rules that are on.
    pub fn iter(&self) -> impl Iterator<Item = Rule> {
        Rule::ALL.iter().copied().filter(|rule| self.has(*rule))
    }

    /// A step of `state` that may be taken alone, the first in the order of the actors.
    #[must_use]
    #[inline]
    pub fn local_step<L: Layout>(&self, machine: &Machine, state: &State<L>) -> Option<Step> {
        if self.enabled == 0 || state.finished || state.crashed {
            return None;
        }
        let window = self.window(state);
        let vcpus = (0..state.vcpus.len()).map(|vcpu| Actor::Vcpu(vcpu as u8));
        // Rules for threads are for one thread.
        vcpus.chain([Actor::Thread(0)]).find_map(|actor| {
            self.choice_in(machine, state, actor, window)
                .map(|choice| Step { actor, choice })
        })
    }

    /// The choice of one actor that may be taken alone. It depends on what the actor's step depends on, and on
    /// [`Rules::context`].
    #[must_use]
    pub fn local_choice<L: Layout>(
        &self,
        machine: &Machine,
        state: &State<L>,
        actor: Actor,
    ) -> Option<Choice> {
        if self.enabled == 0 || state.finished || state.crashed {
            return None;
        }
        self.choice_in(machine, state, actor, self.window(state))
    }

    /// What the rules for vCPUs read of a thread that is at an operation, as bits; those of several threads are joined by
    /// `|`.
    #[must_use]
    pub fn context(&self, thread: usize, op: usize) -> u64 {
        if self.enabled == 0 {
            return 0;
        }
        let windows = &self.windows[thread];
        windows[op.min(windows.len() - 1)].bits()
    }

    #[inline]
    fn window<L: Layout>(&self, state: &State<L>) -> Window {
        let mut window = Window::default();
        for (thread, windows) in state.threads.iter().zip(&self.windows) {
            window.join(windows[usize::from(thread.op).min(windows.len() - 1)]);
        }
        window
    }

    #[inline]
    fn choice_in<L: Layout>(
        &self,
        machine: &Machine,
        state: &State<L>,
        actor: Actor,
        window: Window,
    ) -> Option<Choice> {
        let (rule, choice) = match actor {
            Actor::Vcpu(vcpu) => {
                let rule = vcpu_rule(machine, state, usize::from(vcpu), window)?;
                // Rules for vCPUs speak of vCPUs with a single choice, and each says which.
                let choice = if rule == Rule::LeaveGuest {
                    Choice::Leave
                } else {
                    Choice::Advance
                };
                (rule, choice)
            }
            Actor::Thread(0) => thread_rule(machine, state)?,
            Actor::Thread(_) | Actor::Device(_) => return None,
        };
        self.has(rule).then_some(choice)
    }
}

/// For each operation, what lies between it and the next `wait-vcpus-stopped` on every way that jumps allow; and nothing
/// after the last.
fn windows(ops: &[Op]) -> Vec<Window> {
    let mut windows = alloc::vec![Window::default(); ops.len() + 1];
    loop {
        let before = windows.clone();
        for (index, op) in ops.iter().enumerate().rev() {
            if matches!(op, Op::WaitStopped) {
                continue;
            }
            let mut window = windows[index + 1];
            if let Op::OnError { to } | Op::Again { to, .. } = op {
                window.join(windows[usize::from(*to)]);
            }
            window.add(op);
            windows[index] = window;
        }
        if windows == before {
            return windows;
        }
    }
}

/// Whether the reserve holds all that can be pushed between a push that makes a ring soft-full and the next check: one
/// fault, a PML buffer, and every update of steal time.
fn ring_cannot_overflow(machine: &Machine) -> bool {
    let steal = machine.vcpus.iter().map(|v| u32::from(v.steal)).max();
    let pml = if machine.pml {
        machine.constants.pml_entries
    } else {
        0
    };
    machine.constants.ring_reserved >= 1 + pml + steal.unwrap_or(0)
}

/// The rule that lets a vCPU's next step be taken alone.
#[inline]
fn vcpu_rule<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    window: Window,
) -> Option<Rule> {
    let v = &state.vcpus[vcpu];
    if v.push > 0 {
        return if v.push == 2 {
            (!window.harvests && owes_mark(machine, state, vcpu).is_some())
                .then_some(Rule::PushFlags)
        } else {
            push_rule(machine, v, window)
        };
    }
    match v.pc {
        Pc::User => (state.guest_runs
            && !v.waits
            && !v.kicked
            && !state.vcpu_mutexes
            && window.stops
            && !window.writes_memory
            && !window.changes_slots)
            .then_some(Rule::Run),
        Pc::Fault => match fault_stages(machine, v.fast)[usize::from(v.stage)] {
            FaultStage::Resolve => (!window.changes_slots).then_some(Rule::FaultResolve),
            FaultStage::Lock => {
                (!window.locks_mmu && !state.mmu_lock_write).then_some(Rule::FaultLock)
            }
            FaultStage::Unlock => (!window.changes_slots).then_some(Rule::FaultUnlock),
            // The first write of a push; the others come with `push > 0`.
            FaultStage::Mark if state.caps.ring_entries != 0 => {
                (v.ring.entry(v.ring.dirty_index).flags() == 0).then_some(Rule::PushPayload)
            }
            FaultStage::Mark => (!window.reads_bitmap && owes_mark(machine, state, vcpu).is_some())
                .then_some(Rule::MarkBit),
            _ => None,
        },
        Pc::Entry => match entry_stages(machine.arch)[usize::from(v.stage)] {
            EntryStage::SoftFull => {
                (!window.resets && !window.acknowledges).then_some(Rule::CheckSoftFull)
            }
            EntryStage::Steal => None,
            EntryStage::Enter => {
                (!window.changes_slots && !window.resumes).then_some(Rule::EnterGuest)
            }
        },
        Pc::Guest => {
            (v.kicked && v.frame == NO_FRAME && v.stores == 0 && v.loads == 0 && !window.resumes)
                .then_some(Rule::LeaveGuest)
        }
        Pc::Exit => (v.steal == 0 && !window.anything).then_some(Rule::ReturnToUser),
        _ => None,
    }
}

#[inline]
fn push_rule<L: Layout>(
    machine: &Machine,
    v: &crate::vcpu::Vcpu<L>,
    window: Window,
) -> Option<Rule> {
    match v.push {
        1 => (v.ring.entry(v.ring.dirty_index).flags() == 0).then_some(Rule::PushPayload),
        3 => {
            let settled = v.ring.used().wrapping_add(1) < soft_limit(machine, v.ring.size());
            (settled || !window.resets).then_some(Rule::PushIndex)
        }
        4 => Some(Rule::PushRequest),
        _ => None,
    }
}

/// Whether a vCPU will never store, push or look at its ring again before the thread's next step but one.
fn is_idle<L: Layout>(v: &crate::vcpu::Vcpu<L>) -> bool {
    v.stores == 0
        && v.loads == 0
        && v.frame == NO_FRAME
        && v.steal == 0
        && v.pml.is_empty()
        && v.push == 0
        && !v.request
        && !matches!(v.pc, Pc::StealMark | Pc::ExitMark | Pc::Fault)
}

/// The rule that lets the next step of the only thread be taken alone, and the step.
#[inline]
fn thread_rule<L: Layout>(machine: &Machine, state: &State<L>) -> Option<(Rule, Choice)> {
    let thread = 0;
    let t = &state.threads[thread];
    let rule = match current_op(machine, state, thread)? {
        Op::Harvest { max, .. } => match t.stage {
            harvest::ENTER => Rule::HarvestEnter,
            harvest::LOAD_FLAGS => {
                let ring = &state.vcpus[t.index as usize].ring;
                let dirty = ring.entry(ring.fetch_index).flags() == F_DIRTY;
                (dirty && t.count < *max).then_some(Rule::HarvestEntry)?
            }
            _ => Rule::HarvestEntry,
        },
        Op::ResetRings { .. } => match t.stage {
            reset_rings::LOAD_FLAGS
            | reset_rings::READ
            | reset_rings::FREE
            | reset_rings::UNLOCK => Rule::ResetEntry,
            reset_rings::ADVANCE => {
                is_idle(&state.vcpus[t.index as usize]).then_some(Rule::ResetIndex)?
            }
            _ => return None,
        },
        Op::CopyAll if t.stage == copy::ENTER => Rule::CopyBegin,
        Op::Copy | Op::CopyAll => {
            let Some(page) = state.pending.next(0) else {
                return Some((Rule::CopyEnd, Choice::Advance));
            };
            return Some((Rule::CopyPage, Choice::Page(page)));
        }
        Op::GetDirtyLog {
            bad_pointer: false, ..
        } if state.caps.ring_entries != 0 => match t.stage {
            get_dirty_log::LOOK | get_dirty_log::EXCHANGE | get_dirty_log::UNLOCK => Rule::GetWord,
            get_dirty_log::COPY_OUT if !state.caps.manual() => Rule::GetWord,
            _ => return None,
        },
        _ => return None,
    };
    Some((rule, Choice::Advance))
}

/// Whether the thread holds the page of a ring entry that it has read.
#[inline]
pub(crate) fn names_page<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    let t = &state.threads[thread];
    match current_op(machine, state, thread) {
        Some(Op::Harvest { .. }) => t.stage == harvest::TAKE,
        Some(Op::ResetRings { .. }) => {
            matches!(t.stage, reset_rings::FREE | reset_rings::ADVANCE)
                || (t.stage == reset_rings::REARM && t.any)
        }
        _ => false,
    }
}
