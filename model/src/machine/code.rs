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
    /// By program and operation, whether no memslot is changed from there on, by whichever thread.
    pub settled: Vec<Vec<bool>>,
    /// By the index that [`Op::Proceed`] has: the answers that are known, and where the code goes then.
    pub ways: Vec<Vec<Way>>,
    /// Where several threads of the code may share memory: the thread whose place, in a program without operations, stands for the
    /// order in which all of them went on. What one does next then depends on that.
    pub order: Option<u8>,
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
