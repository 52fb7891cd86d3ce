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
//! What a rule reads and writes stands beside it. A rule is for a right step against whatever others do; a wrong behaviour withdraws those
//! whose ground it takes ([`crate::mutated::declared`], a row each), and a wrong step of a thread is never taken alone. With several threads of
//! the VMM a thread's step is taken alone where the rows of all operations of the others leave alone what it reads and writes; rules that
//! count on more are for one thread. On s390, whose leaves are its log, rings and marks find nothing to do, and the others look at no leaf.

use alloc::vec::Vec;

use crate::kernel::soft_limit;
use crate::machine::{Code, Machine, Op, Outlook};
use crate::mutated::{self, declared};
use crate::op::View;
use crate::op::ahead::backwards;
use crate::state::layout::Layout;
use crate::state::ring::RingEntry;
use crate::state::vcpu::Pc;
use crate::state::{State, Vcpu};
use crate::vcpu::entry::{self, EntryStage};
use crate::vcpu::{fault, steal};
use crate::words::fault::FaultStage;
use crate::words::{Actor, Choice, Fields, NO_FRAME, Step};

pub use crate::words::Rule;

/// What the threads may do while a vCPU keeps them from passing their next `wait-vcpus-stopped`: what their operations read, write and
/// do until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Window {
    reads: Fields,
    writes: Fields,
    anything: bool,
    resumes: bool,
    stops: bool,
    /// Something comes between a signal to stop and the wait for it.
    lingers: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            reads: Fields::NONE,
            writes: Fields::NONE,
            anything: false,
            resumes: false,
            stops: false,
            lingers: false,
        }
    }
}

impl Window {
    fn add(&mut self, machine: &Machine, op: &Op) {
        let (reads, writes) = touches(machine, op);
        let facts = op.facts(machine);
        self.join(Self {
            reads,
            writes,
            anything: true,
            resumes: facts.resumes,
            stops: facts.stops,
            lingers: facts.stops && self.anything,
        });
    }

    fn join(&mut self, other: Self) {
        self.reads = self.reads | other.reads;
        self.writes = self.writes | other.writes;
        self.anything |= other.anything;
        self.resumes |= other.resumes;
        self.stops |= other.stops;
        self.lingers |= other.lingers;
    }

    fn resets(self) -> bool {
        self.writes.has(Fields::RESET_INDEX)
    }
    fn harvests(self) -> bool {
        self.writes.has(Fields::FETCH_INDEX)
    }
    fn locks_mmu(self) -> bool {
        self.reads.has(Fields::MMU_LOCK)
    }
    fn changes_slots(self) -> bool {
        self.writes.has(Fields::SLOTS)
    }
    fn acknowledges(self) -> bool {
        self.writes.has(Fields::EXIT)
    }
    fn reads_bitmap(self) -> bool {
        self.reads.has(Fields::BITMAP)
    }
    /// A kernel writer asks whether vCPUs run.
    fn takes_mutexes(self) -> bool {
        self.writes.has(Fields::MUTEXES)
    }

    /// What the rules for vCPUs read of it.
    fn bits(self) -> u64 {
        [
            self.anything,
            self.resets(),
            self.locks_mmu(),
            self.changes_slots(),
            self.resumes,
            self.acknowledges(),
            self.harvests(),
            self.reads_bitmap(),
            self.stops,
            self.takes_mutexes(),
            self.lingers,
        ]
        .into_iter()
        .fold(0, |bits, bit| bits << 1 | u64::from(bit))
    }
}

/// The rules that hold for a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    enabled: u32,
    /// Whether a vCPU may return to user space alone while the guest may run.
    returns: bool,
    windows: Vec<Vec<Window>>,
    /// By thread, what all operations of the others read and write.
    others: Vec<(Fields, Fields)>,
}

impl Rules {
    /// No rule: every interleaving.
    #[must_use]
    pub fn none() -> Self {
        Self {
            enabled: 0,
            returns: false,
            windows: Vec::new(),
            others: Vec::new(),
        }
    }

    /// The rules of `wanted` that hold for the machine.
    #[must_use]
    pub fn of(machine: &Machine, wanted: impl Fn(Rule) -> bool) -> Self {
        let facts = || machine.ops().map(|op| op.facts(machine));
        let abuse = facts().any(|facts| facts.abuses);
        let signals = facts().any(|facts| facts.signal);
        let watches_guest = facts().any(|facts| facts.watches_guest);
        let jumps = facts().any(|facts| facts.jump.is_some());
        let alone = machine.programs.len() == 1;
        let holds = |rule: Rule| {
            if abuse || !declared::leaves_rule(machine, rule) {
                return false;
            }
            match rule {
                Rule::PushIndex => ring_cannot_overflow(machine),
                Rule::EnterGuest | Rule::LeaveGuest => !machine.pml,
                Rule::FaultLock | Rule::FaultInLock => machine.faults_share_mmu_lock(),
                Rule::ReturnToUser => machine.devices.is_empty(),
                Rule::GetWord => alone,
                // A report that is judged by what was written before it depends on when it comes.
                Rule::CopyPage => machine.send_failures == 0 && !machine.track_spurious,
                // Where a program jumps, the stop that is ahead may be passed by.
                Rule::Run => !jumps && alone && !machine.pml && !watches_guest,
                Rule::HarvestEntry => ring_cannot_overflow(machine),
                Rule::ResetEntry | Rule::ResetIndex => {
                    alone && ring_cannot_overflow(machine) && !signals
                }
                Rule::PushPayload
                | Rule::PushFlags
                | Rule::MarkBit
                | Rule::PushRequest
                | Rule::FaultResolve
                | Rule::FaultUnlock
                | Rule::CheckSoftFull
                // With several threads, those that leave alone what such a step reads and writes: see `apart`.
                | Rule::HarvestEnter
                | Rule::CopyBegin
                | Rule::CopyEnd => true,
            }
        };
        let enabled = Rule::ALL
            .iter()
            .filter(|rule| holds(**rule) && wanted(**rule))
            .fold(0, |enabled, rule| enabled | 1 << *rule as u8);
        Self {
            enabled,
            returns: alone && !watches_guest,
            others: (0..machine.programs.len())
                .map(|thread| others(machine, thread))
                .collect(),
            windows: machine
                .programs
                .iter()
                .map(|ops| match &machine.code {
                    Some(code) => windows_of_code(machine, code),
                    None => windows(machine, ops),
                })
                .collect(),
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
        let window = self.window(machine, state);
        let vcpus = (0..state.vcpus.len()).map(|vcpu| Actor::Vcpu(vcpu as u8));
        let threads = (0..state.threads.len()).map(|thread| Actor::Thread(thread as u8));
        vcpus.chain(threads).find_map(|actor| {
            self.choice_in(machine, state, actor, window)
                .map(|(_, choice)| Step { actor, choice })
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
        let rule = self.local_rule(machine, state, actor);
        rule.map(|(_, choice)| choice)
    }

    /// The same, with the rule that says so.
    #[must_use]
    pub fn local_rule<L: Layout>(
        &self,
        machine: &Machine,
        state: &State<L>,
        actor: Actor,
    ) -> Option<(Rule, Choice)> {
        if self.enabled == 0 || state.finished || state.crashed {
            return None;
        }
        self.choice_in(machine, state, actor, self.window(machine, state))
    }

    /// What the rules for vCPUs read of a thread that is at an operation, as bits; those of several threads are joined by
    /// `|`.
    #[must_use]
    pub fn context(&self, machine: &Machine, thread: usize, op: usize) -> u64 {
        if self.enabled == 0 {
            return 0;
        }
        self.window_at(machine, thread, op).bits()
    }

    #[inline]
    fn window_at(&self, machine: &Machine, thread: usize, op: usize) -> Window {
        let windows = &self.windows[thread];
        let at = match &machine.code {
            None => op,
            Some(code) => match code.outlook[thread].get(op) {
                Some(outlook) => usize::from(*outlook),
                None => windows.len(),
            },
        };
        windows[at.min(windows.len() - 1)]
    }

    #[inline]
    fn window<L: Layout>(&self, machine: &Machine, state: &State<L>) -> Window {
        let mut window = Window::default();
        for (index, thread) in state.threads.iter().enumerate().take(self.windows.len()) {
            window.join(self.window_at(machine, index, usize::from(thread.op)));
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
    ) -> Option<(Rule, Choice)> {
        let (rule, choice) = match actor {
            Actor::Vcpu(vcpu) => {
                let rule = self.vcpu_rule(machine, state, usize::from(vcpu), window)?;
                // Rules for vCPUs speak of vCPUs with a single choice, and each says which.
                let choice = if rule == Rule::LeaveGuest {
                    Choice::Leave
                } else {
                    Choice::Advance
                };
                (rule, choice)
            }
            Actor::Thread(thread) => {
                let index = usize::from(thread);
                let op = state.current_op(machine, index)?;
                let at = View {
                    machine,
                    state,
                    index,
                };
                let stage = at.stage();
                op.alone(at)
                    .filter(|_| !mutated::may_change_op(machine, op))
                    .filter(|_| self.apart(machine, op, stage, index))?
            }
            Actor::Device(_) => return None,
        };
        self.has(rule).then_some((rule, choice))
    }

    /// Whether no other thread, now or later, writes what a thread's step reads or writes, or reads what it writes.
    #[inline]
    fn apart(&self, machine: &Machine, op: &Op, stage: u8, thread: usize) -> bool {
        let (reads, writes) = self.others[thread];
        if reads.is_none() && writes.is_none() {
            return true;
        }
        let row = op.row(machine, stage);
        let read = row.reads | Fields::SLOTS | Fields::CAPS;
        !writes.has(read | row.writes) && !reads.has(row.writes)
    }

    /// The rule that lets a vCPU's next step be taken alone.
    #[inline]
    fn vcpu_rule<L: Layout>(
        &self,
        machine: &Machine,
        state: &State<L>,
        vcpu: usize,
        window: Window,
    ) -> Option<Rule> {
        if steal::may_preempt(machine, state, vcpu) {
            return None;
        }
        let v = &state.vcpus[vcpu];
        if v.push > 0 {
            return if v.push == 2 {
                (!window.harvests() && v.owed != NO_FRAME).then_some(Rule::PushFlags)
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
                && !window.takes_mutexes()
                && !window.changes_slots())
            .then_some(Rule::Run),
            Pc::Fault => match fault::stage(machine, v) {
                FaultStage::Resolve => (!window.changes_slots()).then_some(Rule::FaultResolve),
                FaultStage::Lock => {
                    (!window.locks_mmu() && !state.mmu_lock_write).then_some(Rule::FaultLock)
                }
                FaultStage::Unlock => (!window.changes_slots()).then_some(Rule::FaultUnlock),
                // The first write of a push; the others come with `push > 0`.
                FaultStage::Mark if state.caps.ring_entries != 0 => {
                    (v.ring.entry(v.ring.dirty_index).flags() == 0).then_some(Rule::PushPayload)
                }
                FaultStage::Mark if !window.reads_bitmap() && v.owed != NO_FRAME => {
                    Some(Rule::MarkBit)
                }
                FaultStage::Mark | FaultStage::Map => {
                    let writers = window.locks_mmu() && !window.changes_slots();
                    (writers && fault::has_just_locked(machine, v)).then_some(Rule::FaultInLock)
                }
                FaultStage::FastMap | FaultStage::SplitStore => None,
            },
            Pc::Entry => match entry::stage(machine, v) {
                EntryStage::SoftFull => {
                    (!window.resets() && !window.acknowledges()).then_some(Rule::CheckSoftFull)
                }
                EntryStage::Steal => None,
                EntryStage::Enter => {
                    // Where a record was pushed behind the check, the next one would find the ring soft-full.
                    let is_full =
                        v.ring.size() != 0 && v.ring.used() >= soft_limit(machine, v.ring.size());
                    (!is_full && !window.changes_slots() && !window.resumes)
                        .then_some(Rule::EnterGuest)
                }
            },
            Pc::Guest => (v.kicked
                && v.frame == NO_FRAME
                && v.stores == 0
                && v.loads == 0
                && !window.resumes)
                .then_some(Rule::LeaveGuest),
            Pc::Exit => {
                let comes_back = self.returns
                    && state.guest_runs
                    && window.resets()
                    && !window.acknowledges()
                    && !window.takes_mutexes()
                    && !window.lingers;
                (v.steal == 0 && (!window.anything || comes_back)).then_some(Rule::ReturnToUser)
            }
            Pc::StealMark | Pc::ExitMark | Pc::Flush | Pc::FlushOnly | Pc::PreFault => None,
        }
    }
}

/// For each operation, what lies between it and the next `wait-vcpus-stopped` on every way that jumps allow; and nothing
/// after the last.
fn windows(machine: &Machine, ops: &[Op]) -> Vec<Window> {
    backwards(machine, ops, |op, next, elsewhere| {
        if op.facts(machine).waits_stopped {
            return Window::default();
        }
        let mut window = next;
        window.join(elsewhere);
        window.add(machine, op);
        window
    })
}

/// Of code that is known as far as it was walked: those of its outlooks; and nothing, for behind the last operation.
fn windows_of_code(machine: &Machine, code: &Code) -> Vec<Window> {
    let window = |outlook: &Outlook| {
        let mut window = Window::default();
        for op in &outlook.ops {
            window.add(machine, op);
        }
        window.stops = outlook.stops;
        window.lingers = true;
        window
    };
    let behind = core::iter::once(Window::default());
    code.outlooks.iter().map(window).chain(behind).collect()
}

/// What all operations of the other threads read and write, wherever these stand; a store to guest memory apart, which writes what is
/// stale as a vCPU's does. Of code that is not known whole, anything.
fn others(machine: &Machine, thread: usize) -> (Fields, Fields) {
    let mut all = (Fields::NONE, Fields::NONE);
    let programs = machine.programs.iter().enumerate();
    for (_, ops) in programs.filter(|(other, _)| *other != thread) {
        if machine.code.is_some() {
            return (Fields::ALL, Fields::ALL);
        }
        for op in ops {
            let (reads, mut writes) = touches(machine, op);
            if matches!(op, Op::KernelWrite(_)) && !writes.has(Fields::PENDING) {
                writes = writes.without(Fields::STALE);
            }
            all = (all.0 | reads, all.1 | writes);
        }
    }
    all
}

/// What an operation may read and write, a wrong one included.
fn touches(machine: &Machine, op: &Op) -> (Fields, Fields) {
    let (reads, writes) = op.touches(machine);
    if mutated::may_change_op(machine, op) {
        (reads, writes | declared::writes_besides(machine))
    } else {
        (reads, writes)
    }
}

/// Whether the reserve holds all that can be pushed between a push that makes a ring soft-full and the next check.
pub(super) fn ring_cannot_overflow(machine: &Machine) -> bool {
    machine.constants.ring_reserved >= least_reserve(machine)
}

/// Entries that can be pushed between a push that makes a ring soft-full and the next check: one fault, a PML buffer, and every update of
/// steal time.
#[must_use]
pub fn least_reserve(machine: &Machine) -> u32 {
    let steal = machine.vcpus.iter().map(|v| u32::from(v.steal)).max();
    let pml = if machine.pml {
        machine.constants.pml_entries
    } else {
        0
    };
    1 + pml + steal.unwrap_or(0)
}

#[inline]
fn push_rule<L: Layout>(machine: &Machine, v: &Vcpu<L>, window: Window) -> Option<Rule> {
    match v.push {
        1 => (v.ring.entry(v.ring.dirty_index).flags() == 0).then_some(Rule::PushPayload),
        3 => {
            let settled = v.ring.used().wrapping_add(1) < soft_limit(machine, v.ring.size());
            (settled || !window.resets()).then_some(Rule::PushIndex)
        }
        4 => Some(Rule::PushRequest),
        _ => None,
    }
}
