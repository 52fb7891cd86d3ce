//! Operations, a file each: its steps by name, what each reads and writes, when it is possible, what it does.
//!
//! `table` has a row for each. To add one: its arguments in `machine/program.rs`, its file here, its row.
//!
//! ```
//! use dirtysim_model::machine::Op;
//!
//! assert_eq!(Op::CreateVcpu.steps().len(), 1);
//! ```

use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::pages::HostPages;
use crate::state::{Answer, State, Thread};
use crate::words::{Choice, Effect, Facts, Found, Frame, Row, Rule, Waits, Word};

pub mod ahead;
pub(crate) mod table;

// KVM's ioctls, and who else writes to guest memory from inside the kernel.
pub(crate) mod clear_dirty_log;
pub(crate) mod create_vcpu;
pub(crate) mod enable_cap;
pub(crate) mod get_dirty_log;
pub(crate) mod host_age;
pub(crate) mod kernel_write;
pub(crate) mod pre_fault;
pub(crate) mod reset_rings;
pub(crate) mod set_memory_region;

// What user space does by itself.
pub(crate) mod cancel;
pub(crate) mod code;
pub(crate) mod copy;
pub(crate) mod devices;
pub(crate) mod finish;
pub(crate) mod free_pages;
pub(crate) mod harvest;
pub(crate) mod jump;
pub(crate) mod kick;
pub(crate) mod locks;
pub(crate) mod own_log;
pub(crate) mod pending;
pub(crate) mod publish;
pub(crate) mod ring_full;
pub(crate) mod signals;
pub(crate) mod sync_file;
pub(crate) mod wait;

pub use crate::machine::program::*;

/// A thread at an operation, to look at.
pub(crate) struct View<'a, L: Layout> {
    pub(crate) machine: &'a Machine,
    pub(crate) state: &'a State<L>,
    pub(crate) index: usize,
}

impl<L: Layout> View<'_, L> {
    #[inline(always)]
    pub(crate) fn thread(&self) -> &Thread<L> {
        &self.state.threads[self.index]
    }

    #[inline(always)]
    pub(crate) fn stage(&self) -> u8 {
        self.thread().stage
    }

    /// What keeps the thread from taking slots_lock.
    #[inline(always)]
    pub(crate) fn slots_lock(&self) -> Option<Waits> {
        self.state.slots_lock.checked_sub(1).map(Waits::SlotsLock)
    }

    /// What keeps it from taking mmu_lock for write.
    #[inline(always)]
    pub(crate) fn mmu_lock(&self) -> Option<Waits> {
        Waits::MmuLock.unless(self.state.mmu_lock_free())
    }
}

/// A thread at an operation that takes a step.
pub(crate) struct Act<'a, L: Layout> {
    pub(crate) machine: &'a Machine,
    pub(crate) state: &'a mut State<L>,
    pub(crate) index: usize,
}

impl<L: Layout> Act<'_, L> {
    #[inline(always)]
    pub(crate) fn thread(&mut self) -> &mut Thread<L> {
        &mut self.state.threads[self.index]
    }

    #[inline(always)]
    pub(crate) fn view(&self) -> View<'_, L> {
        View {
            machine: self.machine,
            state: self.state,
            index: self.index,
        }
    }

    #[inline(always)]
    pub(crate) fn stage(&self) -> u8 {
        self.state.threads[self.index].stage
    }

    /// To a stage of the same operation.
    #[inline(always)]
    pub(crate) fn go(&mut self, stage: u8) -> Effect {
        self.thread().stage = stage;
        Effect::None
    }

    /// To the next operation.
    #[inline(always)]
    pub(crate) fn next_op(&mut self) -> Effect {
        self.thread().next_op();
        Effect::None
    }

    /// Leaves an ioctl with an answer; slots_lock is free again if the thread held it.
    pub(crate) fn leave(&mut self, answer: Answer) -> Effect {
        if usize::from(self.state.slots_lock) == self.index + 1 {
            self.state.slots_lock = 0;
        }
        let thread = self.thread();
        thread.next_op();
        thread.answer = answer;
        Effect::None
    }

    /// The set that collected pages join.
    pub(crate) fn collected(&mut self, into: Into) -> Option<&mut HostPages<L::Set>> {
        match into {
            Into::Pending => Some(&mut self.state.pending),
            Into::Hand => Some(&mut self.state.threads[self.index].hand),
            Into::OwnLog => Some(&mut self.state.own_log),
            Into::Nowhere => None,
        }
    }

    /// Takes slots_lock, which is free.
    pub(crate) fn take_slots_lock(&mut self) {
        self.state.slots_lock = self.index as u8 + 1;
    }
}

/// All that there is to say of an operation. Nothing has a default: what is not said does not compile, and what is not known is
/// said by [`Row::UNKNOWN`] and [`Facts::UNKNOWN`], which mean everything.
pub(crate) trait Operation {
    /// How many stages it has, counted from 0.
    const STAGES: u8;

    /// The names of its steps, by stage; after those, steps that a choice leads to.
    const STEPS: &'static [Word];

    /// What it does as a whole, for people; `{slot}`, `{page}`, `{vcpu}`, `{thread}`, `{device}` stand for what it names.
    fn says(&self) -> &'static str;

    /// What it means as a whole, for those who look ahead.
    fn facts(&self, machine: &Machine) -> Facts;

    /// What the step of a stage reads, writes and reaches.
    fn row(&self, machine: &Machine, stage: u8) -> Row;

    /// The name of the next step.
    fn word<L: Layout>(&self, at: View<'_, L>, choice: Choice) -> Word;

    /// The frame or host page that the step is about, if it is about one.
    fn subject<L: Layout>(&self, at: View<'_, L>) -> Option<Frame>;

    /// What keeps the thread from its next step; none where it has one.
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits>;

    /// Calls `found` with each choice that the thread has.
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>);

    /// Takes a step that is possible.
    fn step<L: Layout>(&self, act: Act<'_, L>, choice: Choice) -> Effect;

    /// The step that needs no interleaving with others' as far as the operation knows, and the rule that says why.
    fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)>;
}

/// An operation of one step, with nothing to choose, that is about no page and that no rule speaks of.
pub(crate) trait Single {
    /// The name of its step.
    const STEP: Word;

    /// See [`Operation::says`].
    fn says(&self) -> &'static str;

    /// See [`Operation::facts`].
    fn facts(&self) -> Facts;

    /// What its step reads, writes and reaches.
    fn row(&self, machine: &Machine) -> Row;

    /// See [`Operation::blocked`].
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits>;

    /// Takes it.
    fn step<L: Layout>(&self, act: Act<'_, L>) -> Effect;
}

impl<T: Single> Operation for T {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[T::STEP];

    fn says(&self) -> &'static str {
        Single::says(self)
    }
    fn facts(&self, _: &Machine) -> Facts {
        Single::facts(self)
    }
    fn row(&self, machine: &Machine, _: u8) -> Row {
        Single::row(self, machine)
    }
    fn word<L: Layout>(&self, _: View<'_, L>, _: Choice) -> Word {
        T::STEP
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    #[inline(always)]
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Single::blocked(self, at)
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if Single::blocked(self, &at).is_none() {
            found(Choice::Advance);
        }
    }
    #[inline(always)]
    fn step<L: Layout>(&self, act: Act<'_, L>, _: Choice) -> Effect {
        Single::step(self, act)
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}
