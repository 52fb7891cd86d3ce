//! A VMM's own code as a program: known call by call, as far as it was walked.
//!
//! Code that is deterministic and learns of the world by its calls' answers alone is a function from the answers so far to the
//! next call. So its program is a tree: each call stands at an operation, [`Op::Proceed`] behind it, and from there a way
//! for each answer leads to the next call. What nobody has walked is not known, and may be anything.

use alloc::vec::Vec;

use super::Op;
use crate::words::{Errno, HostPage};

/// Where programs are a VMM's own code: what is not in them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Code {
    /// Operations that the programs may come to have, one of each kind at least.
    pub may: Vec<Op>,
    /// Operations that a program has at most.
    pub most: u16,
    /// What may be ahead of a thread, from various places: the first is anything that it may do.
    pub outlooks: Vec<Outlook>,
    /// By program and operation, which of these is ahead there.
    pub outlook: Vec<Vec<u16>>,
    /// By the index that [`Op::Proceed`] has: the answers that are known, and where the code goes then.
    pub ways: Vec<Vec<Way>>,
    /// Where several threads of the code may share memory: the thread whose place, in a program without operations, stands for the
    /// order in which all of them went on. What one does next then depends on that.
    pub order: Option<u8>,
}

/// What code does from a place on, before it next waits until the vCPUs have stopped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outlook {
    /// All that it may do, and need not; one operation of each kind.
    pub ops: Vec<Op>,
    /// Whether every way from there leads to such a wait.
    pub stops: bool,
}

/// Where the code goes after an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// What the call answered.
    pub answer: Result<u32, Errno>,
    /// The pages that came with the answer, in ascending order.
    pub pages: Vec<HostPage>,
    /// The place of [`Code::order`], before and after; 0 where there is none.
    pub order: [u16; 2],
    /// The operation to go to; [`Way::END`]: to the end.
    pub to: u16,
}

impl Way {
    /// Behind the last operation that a program can have.
    pub const END: u16 = u16::MAX;
}
