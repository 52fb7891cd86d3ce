//! The parts of a memslot of any number of pages: one that has the page that is tracked, and one that has it not.

use dirtysim_model::machine::Machine;
use dirtysim_model::op::Op;

/// Pages of a memslot of such a machine.
pub(crate) const PAGES: u32 = 6;
/// Bits of a word of the bitmap: the far page is in the second.
pub(crate) const WORD_BITS: u32 = 4;

/// A part of a memslot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first: u32,
    pub(crate) pages: u32,
}

/// One with the tracked page: its word, and what of it comes behind that, which may have no bit and is then as if it were not there.
pub(crate) const OWN_PART: Part = Part {
    first: 0,
    pages: PAGES,
};
/// One without it.
pub(crate) const OTHER_PART: Part = Part {
    first: WORD_BITS,
    pages: PAGES - WORD_BITS,
};
/// One that has the tracked page, or has it not: each is tried.
pub(crate) const ANY_PART: Part = Part {
    first: 0,
    pages: WORD_BITS,
};

/// Whether operations are about a part of a memslot without the tracked page, and about no other.
pub(crate) fn is_of_others(machine: &Machine, ops: &[Op]) -> bool {
    let part = |op: &Op| match op {
        Op::ClearDirtyLog(op) => Some(Part {
            first: op.first_page as u32,
            pages: op.num_pages,
        }),
        Op::CopyList(op) => {
            let pages = machine.frame_lists[usize::from(op.frames)].len();
            Some(if pages == OTHER_PART.pages as usize {
                OTHER_PART
            } else {
                OWN_PART
            })
        }
        _ => None,
    };
    let mut parts = ops.iter().filter_map(part).peekable();
    parts.peek().is_some() && parts.all(|part| part == OTHER_PART)
}
