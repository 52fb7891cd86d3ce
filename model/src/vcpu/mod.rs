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
use crate::words::{Choice, Found, Frame, Word};
use entry::EntryStage;

const RUN: Word = quiet("run", "calls KVM_RUN");
const RECORD: Word = loud(
    "kernel-record-write",
    "the kernel updates its record in {page}",
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

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    found: Found<'_>,
) {
    let v = &state.vcpus[vcpu];
    match v.pc {
        Pc::User => {
            if state.guest_runs && !v.waits && !v.kicked && !state.vcpu_mutexes {
                found(Choice::Advance);
            }
        }
        Pc::Entry => {
            found(Choice::Advance);
            if entry::stage(machine, v) == EntryStage::Steal && v.steal > 0 {
                found(Choice::Steal);
            }
        }
        Pc::Guest => guest::choices(machine, state, vcpu, found),
        Pc::Fault => {
            if fault::is_ready(machine, state, vcpu) {
                found(Choice::Advance);
            }
        }
        Pc::Exit => {
            found(Choice::Advance);
            if v.steal > 0 {
                found(Choice::Steal);
            }
        }
        Pc::StealMark | Pc::ExitMark | Pc::Flush | Pc::FlushOnly => found(Choice::Advance),
        // Its mutex is held.
        Pc::PreFault => {}
    }
}

#[inline]
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    vcpu: usize,
    choice: Choice,
) {
    match state.vcpus[vcpu].pc {
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
