//! What a vCPU does: enter, run, look up its TLB, fault, mark, leave. Every arm of [`apply`] is one atomic step.

pub(crate) mod entry;
pub(crate) mod fault;
pub(crate) mod guest;
pub(crate) mod pml;
pub(crate) mod steal;

use crate::kernel::mark;
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::vcpu::{NO_FRAME, Pc};
use crate::words::fault::FaultStage;
use crate::words::word::{loud, quiet};
use crate::words::{Choice, Found, Frame, Waits, Word};
use entry::EntryStage;

const RUN: Word = quiet("run", "calls KVM_RUN");
const RECORD: Word = loud(
    "kernel-record-write",
    "the kernel updates its record in {page}",
);
const PREEMPTED: Word = loud(
    "preempted-in-push",
    "is preempted within a push, and the kernel's record takes its entry",
);
const LEAVE: Word = loud("leave-guest", "leaves the guest");
const MISS: Word = loud("tlb-miss", "finds its TLB entry for {page} gone");
const STORE: Word = loud("store", "stores to {page}");
const RETRY_STORE: Word = loud("retry-store", "stores to {page}");
const LOAD: Word = loud("load", "loads from {page}");
const RETRY_LOAD: Word = loud("retry-load", "loads from {page}");
const FAULT_FAILS: Word = loud("fault-fails", "gives the access to {page} up");
const RETURN: Word = loud("return-to-user", "returns to user space");

/// The names of all steps.
pub(crate) fn words() -> impl Iterator<Item = Word> {
    let own = [
        RUN,
        RECORD,
        PREEMPTED,
        LEAVE,
        MISS,
        STORE,
        RETRY_STORE,
        LOAD,
        RETRY_LOAD,
        FAULT_FAILS,
        RETURN,
        mark::SET_BIT,
        pml::SET_BIT,
    ];
    own.into_iter()
        .chain(EntryStage::WORDS)
        .chain(FaultStage::WORDS)
        .chain(mark::PUSH)
        .chain(pml::PUSH)
        .filter(|word| *word != Word::NOTHING)
}

/// What keeps a vCPU from its next step; none also where the guest has nothing left to do.
#[inline(always)]
pub(crate) fn blocked<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
) -> Option<Waits> {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::User if state.vcpu_mutexes => Some(Waits::Mutex(vcpu as u8)),
        Pc::User if v.waits => Some(Waits::Ack),
        Pc::User => Waits::Resume.unless(state.guest_runs && !v.kicked),
        Pc::Fault => Waits::MmuLock.unless(fault::is_ready(machine, state, vcpu)),
        Pc::PreFault => Some(Waits::Mutex(vcpu as u8)),
        Pc::Entry
        | Pc::Guest
        | Pc::Exit
        | Pc::StealMark
        | Pc::ExitMark
        | Pc::Flush
        | Pc::FlushOnly => None,
    }
}

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    found: Found<'_>,
) {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::Entry => {
            found(Choice::Advance);
            if entry::stage(machine, v) == EntryStage::Steal
                && entry::is_record_due(machine, v, vcpu)
            {
                found(Choice::Steal);
            }
        }
        Pc::Guest => guest::choices(machine, state, vcpu, found),
        Pc::User | Pc::Fault | Pc::PreFault => {
            if blocked(machine, state, vcpu).is_none() {
                found(Choice::Advance);
            }
            may_preempt(machine, state, vcpu, found);
        }
        Pc::Exit => {
            found(Choice::Advance);
            if v.steal > 0 && machine.vcpus[vcpu].own_stores {
                found(Choice::Steal);
            }
        }
        Pc::StealMark | Pc::ExitMark | Pc::Flush | Pc::FlushOnly => {
            found(Choice::Advance);
            may_preempt(machine, state, vcpu, found);
        }
    }
}

#[inline(always)]
fn may_preempt<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize, found: Found<'_>) {
    if steal::may_preempt(machine, state, vcpu) {
        found(Choice::Steal);
    }
}

/// Whether a step is a preemption within a push.
fn preempts(pc: Pc, choice: Choice) -> bool {
    choice == Choice::Steal && !matches!(pc, Pc::Entry | Pc::Exit)
}

#[inline]
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    choice: Choice,
) {
    let pc = state.vcpus[vcpu].pc;
    if preempts(pc, choice) {
        let frame = match pc {
            Pc::Flush | Pc::FlushOnly => pml::next(machine, state, vcpu),
            Pc::StealMark | Pc::ExitMark => machine.vcpus[vcpu].steal_frame,
            _ => state.vcpus[vcpu].frame,
        };
        steal::preempt(machine, state, vcpu, frame);
    }
    match pc {
        Pc::User => entry::run(machine, state, vcpu),
        Pc::Entry => match choice {
            Choice::Steal => steal::update(machine, state, vcpu, Pc::StealMark),
            _ => entry::step(machine, state, vcpu),
        },
        Pc::Guest => guest::step(machine, state, vcpu, choice),
        Pc::Flush | Pc::FlushOnly => {
            let frame = pml::next(machine, state, vcpu);
            pml::flush(machine, state, vcpu, frame);
        }
        Pc::Fault => fault::take(machine, state, vcpu),
        Pc::Exit => match choice {
            Choice::Steal => steal::update(machine, state, vcpu, Pc::ExitMark),
            _ => entry::leave_to_user(machine, state, vcpu),
        },
        Pc::StealMark | Pc::ExitMark => steal::mark(machine, state, vcpu, true),
        Pc::PreFault => {}
    }
}

/// Says in the state which mark the vCPU owes: that of a frame whose leaf it has opened, or whose bytes it has changed.
#[inline]
pub(crate) fn settle<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    v.owed = match v.pc {
        Pc::Fault if fault::owes(machine, v) => v.frame,
        Pc::StealMark | Pc::ExitMark => machine.vcpus[vcpu].steal_frame,
        Pc::User
        | Pc::Entry
        | Pc::Guest
        | Pc::Flush
        | Pc::FlushOnly
        | Pc::Fault
        | Pc::Exit
        | Pc::PreFault => NO_FRAME,
    };
}

/// The frame that the vCPU's next step is about.
pub(crate) fn subject<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
) -> Option<Frame> {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::StealMark | Pc::ExitMark => Some(machine.vcpus[vcpu].steal_frame),
        Pc::Flush | Pc::FlushOnly => v.pml.first().copied(),
        Pc::Fault | Pc::Guest => (v.frame != NO_FRAME).then_some(v.frame),
        Pc::User | Pc::Entry | Pc::Exit | Pc::PreFault => None,
    }
}

/// The name of the vCPU's next step.
pub(crate) fn word<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    choice: Choice,
) -> Word {
    let v = &state.vcpus[vcpu];
    match v.pc {
        pc if preempts(pc, choice) => PREEMPTED,
        Pc::User => RUN,
        Pc::Entry | Pc::Exit if choice == Choice::Steal => RECORD,
        Pc::Entry => EntryStage::WORDS[entry::stage(machine, v) as usize],
        Pc::StealMark | Pc::ExitMark => mark::word(machine, state, vcpu),
        Pc::Guest => match choice {
            Choice::Leave => LEAVE,
            Choice::Miss => MISS,
            Choice::Store(_) => STORE,
            Choice::Load(_) => LOAD,
            _ if v.load => RETRY_LOAD,
            _ => RETRY_STORE,
        },
        Pc::Flush | Pc::FlushOnly => pml::word(machine, state, vcpu),
        Pc::Fault if choice == Choice::Fail => FAULT_FAILS,
        Pc::Fault => fault::word(machine, state, vcpu),
        Pc::Exit => RETURN,
        Pc::PreFault => Word::NOTHING,
    }
}
