//! Ioctls that KVM refused. Whoever wrote the steps may not have meant that, so that a verdict says which, where, and by what errno.
//!
//! ```
//! use dirtysim_check::refused::is_ioctl;
//! use dirtysim_model::machine::Op;
//!
//! assert!(is_ioctl(&Op::CreateVcpu));
//! assert!(!is_ioctl(&Op::Copy));
//! ```

use dirtysim_model::machine::{Machine, Op};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Step};
use dirtysim_model::words::Errno;

/// An ioctl of a thread's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The thread.
    pub thread: u8,
    /// The operation of its program, counted from 0.
    pub op: u16,
}

/// An ioctl that was refused in some schedule, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// The ioctl.
    pub call: Call,
    /// What it answered.
    pub errno: Errno,
}

impl Call {
    /// The ioctl that `step`, possible in `state`, is one of, if it is one of an ioctl.
    #[must_use]
    #[inline]
    pub fn of<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Option<Self> {
        let Actor::Thread(thread) = step.actor else {
            return None;
        };
        let op = state.current_op(machine, usize::from(thread))?;
        is_ioctl(op).then(|| Self {
            thread,
            op: state.threads[usize::from(thread)].op,
        })
    }

    /// What it was refused with, where it has returned in `after`, the state after that step.
    #[must_use]
    #[inline]
    pub fn refused<L: Layout>(self, after: &State<L>) -> Option<Refused> {
        let thread = &after.threads[usize::from(self.thread)];
        match thread.answer {
            Err(errno) if thread.op != self.op => Some(Refused { call: self, errno }),
            _ => None,
        }
    }
}

/// Whether an operation is an ioctl: its answer is then the ioctl's.
#[must_use]
pub fn is_ioctl(op: &Op) -> bool {
    matches!(
        op,
        Op::EnableCap(_)
            | Op::CreateVcpu
            | Op::SetMemoryRegion(_)
            | Op::GetDirtyLog(_)
            | Op::ClearDirtyLog(_)
            | Op::ResetRings(_)
            | Op::PreFault(_)
            | Op::KernelWrite(_)
    )
}
