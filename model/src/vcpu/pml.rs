//! The PML buffer, flushed at every exit: each page that it holds is marked.
//! Source: arch/x86/kvm/vmx/vmx.c, vmx_flush_pml_buffer().

use super::entry;
use crate::kernel::mark;
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::{Array, Layout};
use crate::state::vcpu::Pc;
use crate::words::word::{loud, quiet};
use crate::words::{Frame, Word};

pub(crate) const SET_BIT: Word = loud(
    "pml-flush-bit",
    "sets the bit of {page} from PML in the bitmap",
);
pub(crate) const PUSH: [Word; 5] = [
    quiet(
        "pml-flush-slot",
        "writes the slot of {page} from PML to its ring",
    ),
    quiet(
        "pml-flush-offset",
        "writes the offset of {page} from PML to its ring",
    ),
    loud("pml-flush-flags", "publishes {page} from PML in its ring"),
    quiet("pml-flush-index", "moves its ring's dirty index"),
    loud("pml-flush-request", "raises the soft-full request"),
];

/// Where the page that is next lies in the buffer.
fn place<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> usize {
    if machine.kernel.pml_newest_first() {
        state.vcpus[vcpu].pml.len() - 1
    } else {
        0
    }
}

/// The frame that is marked next.
pub(crate) fn next<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Frame {
    state.vcpus[vcpu].pml[place(machine, state, vcpu)]
}

/// A step of marking a frame for the page that is next; with the last page gone the buffer is empty.
pub(crate) fn flush<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize, frame: Frame) {
    let at = place(machine, state, vcpu);
    let slot = machine.slot_of_frame(state.vcpus[vcpu].pml[at]);
    let logging = slot.is_some_and(|slot| state.logs(slot));
    if !mark::mark(machine, state, vcpu, frame, logging) {
        return;
    }
    let v = &mut state.vcpus[vcpu];
    let left = v.pml.len() - 1;
    v.pml[at..].rotate_left(1);
    v.pml.truncate(left);
    if left == 0 {
        flushed(machine, state, vcpu);
    }
}

/// The buffer is empty: to the fault path, or back to the request checks.
pub(crate) fn flushed<L: Layout>(machine: &Machine, state: &mut State<L>, vcpu: usize) {
    let v = &mut state.vcpus[vcpu];
    if v.pc != Pc::Flush {
        return entry::go(machine, state, vcpu, 0);
    }
    v.pc = Pc::Fault;
    v.stage = 0;
    v.push = 0;
    v.old_slots = false;
}

/// The name of the next step.
pub(crate) fn word<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> Word {
    let plain = mark::word(machine, state, vcpu);
    let push = mark::PUSH.iter().position(|word| *word == plain);
    push.map_or(SET_BIT, |push| PUSH[push])
}
