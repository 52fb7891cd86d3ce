//! What a thread of the VMM does: it goes through its program, and each operation goes through its steps.

use crate::ioctl::{
    clear_dirty_log, enable_cap, get_dirty_log, kernel_write, memory_region, reset_rings,
};
use crate::layout::Layout;
use crate::machine::Machine;
use crate::op::Op;
use crate::state::State;
use crate::step::{Choice, Effect};
use crate::vmm::{copy, harvest, protocol};

/// The operation that a thread is at; none after its last.
#[inline(always)]
pub(crate) fn current_op<'m, L: Layout>(
    machine: &'m Machine,
    state: &State<L>,
    thread: usize,
) -> Option<&'m Op> {
    machine.programs[thread].get(usize::from(state.threads[thread].op))
}

#[inline]
pub(crate) fn choices<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    mut found: impl FnMut(Choice),
) {
    let Some(op) = current_op(machine, state, thread) else {
        return;
    };
    let ready = match op {
        Op::EnableCap { .. } => state.slots_lock == 0,
        Op::CreateVcpu => true,
        Op::SetMemoryRegion { .. } => memory_region::ready(machine, state, thread),
        Op::GetDirtyLog { .. } => get_dirty_log::ready(state, thread),
        Op::ClearDirtyLog { .. } => clear_dirty_log::ready(state, thread),
        Op::ResetRings { signal } => {
            if reset_rings::may_be_signalled(machine, state, thread, *signal) {
                found(Choice::Signal);
            }
            reset_rings::ready(state, thread)
        }
        Op::KernelWrite { .. } => true,
        Op::Harvest { .. } | Op::Publish => true,
        Op::Copy | Op::CopyAll | Op::CopyList { .. } => {
            return copy::choices(machine, state, thread, op, found);
        }
        Op::MayFail => {
            if state.send_failures > 0 {
                found(Choice::Fail);
            }
            true
        }
        _ => protocol::ready(machine, state, op),
    };
    if ready {
        found(Choice::Advance);
    }
}

#[inline]
pub(crate) fn apply<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    choice: Choice,
) -> Effect {
    let Some(op) = current_op(machine, state, thread) else {
        return Effect::None;
    };
    match op {
        Op::EnableCap { cap, flags, args0 } => {
            enable_cap::step(machine, state, thread, *cap, *flags, *args0)
        }
        Op::CreateVcpu => enable_cap::create_vcpu(machine, state, thread),
        Op::SetMemoryRegion { .. } => return memory_region::step(machine, state, thread, op),
        Op::GetDirtyLog {
            slot,
            into,
            bad_pointer,
        } => {
            return get_dirty_log::step(machine, state, thread, *slot, *into, *bad_pointer);
        }
        Op::ClearDirtyLog { .. } => return clear_dirty_log::step(machine, state, thread, op),
        Op::ResetRings { .. } => return reset_rings::step(machine, state, thread, choice),
        Op::KernelWrite {
            writer,
            frames,
            fails_after,
        } => {
            kernel_write::step(machine, state, thread, *writer, *frames, *fails_after);
        }
        Op::Harvest {
            vcpu,
            max,
            way,
            into,
        } => harvest::step(machine, state, thread, *vcpu, *max, *way, *into),
        Op::Copy | Op::CopyAll | Op::CopyList { .. } => copy::step(machine, state, thread, choice),
        Op::TakeAll => copy::take_everything(machine, state, thread),
        Op::MayFail => protocol::may_fail(state, thread, choice),
        _ => return protocol::step(machine, state, thread, op),
    }
    Effect::None
}

pub(crate) fn describe<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    choice: Choice,
) -> &'static str {
    let Some(op) = current_op(machine, state, thread) else {
        return "nothing";
    };
    let stage = state.threads[thread].stage;
    match op {
        Op::EnableCap { .. } => "enable-cap",
        Op::CreateVcpu => "create-vcpu",
        Op::SetMemoryRegion { .. } => memory_region::describe(stage),
        Op::GetDirtyLog { .. } => get_dirty_log::describe(stage),
        Op::ClearDirtyLog { .. } => clear_dirty_log::describe(stage),
        Op::ResetRings { .. } => reset_rings::describe(stage, choice),
        Op::KernelWrite { writer, .. } => kernel_write::describe(machine, *writer, stage),
        Op::Harvest { .. } => harvest::describe(machine, stage),
        Op::Copy | Op::CopyAll | Op::CopyList { .. } => copy::describe(choice, stage),
        Op::MayFail if choice == Choice::Fail => "sync-fails",
        _ => protocol::describe(op, stage),
    }
}

pub(crate) fn subject<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
) -> Option<u32> {
    let op = current_op(machine, state, thread)?;
    match op {
        Op::KernelWrite { frames, .. } => kernel_write::subject(machine, state, thread, *frames),
        Op::UserWrite { frame, .. } | Op::HostAge { frame } => Some(*frame),
        _ => None,
    }
}
