//! A thread of the VMM: where it is in its program and in the operation that it runs.

use super::pages::HostPages;
use super::parts::Parts;
use crate::words::{Duty, Errno, Frame, NO_FRAME, Offset};

/// What an ioctl answered.
pub type Answer = Result<u32, Errno>;

/// A RESET batch: a slot, an offset and a mask of pages from there on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Batch {
    /// Combined slot number.
    pub slot: u32,
    /// The offset of bit 0, in pages.
    pub offset: Offset,
    /// The pages; 0: no batch.
    pub mask: u64,
}

/// A thread of the VMM.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Thread<L: Parts> {
    /// The operation of its program that it is at.
    pub op: u16,
    /// The step within the operation; 0 before its first.
    pub stage: u8,
    /// The word, vCPU or list element that the operation is at.
    pub index: u32,
    /// Entries counted so far by RESET, as the kernel counts them; or entries harvested from this ring.
    pub count: u32,
    /// Entries that RESET has freed (a ghost, to compare its answer with).
    pub freed: u32,
    /// GET and CLEAR: some word had a bit, so that TLBs must be flushed.
    pub any: bool,
    /// A signal is pending.
    pub signal: bool,
    /// Slot number read from the entry in work.
    pub entry_slot: u32,
    /// Offset read from the entry in work.
    pub entry_offset: Offset,
    /// RESET's batch.
    pub batch: Batch,
    /// What the last ioctl answered, until the next operation begins.
    pub answer: Answer,
    /// Host pages collected and not yet published.
    pub hand: HostPages<L::Set>,
    /// What it is in the middle of: follows from where it stands.
    pub duty: Duty,
    /// The frame that it has changed and not marked, or [`NO_FRAME`]: follows from where it stands.
    pub owed: Frame,
}

impl<L: Parts> Default for Thread<L> {
    fn default() -> Self {
        Self {
            op: 0,
            stage: 0,
            index: 0,
            count: 0,
            freed: 0,
            any: false,
            signal: false,
            entry_slot: 0,
            entry_offset: Offset(0),
            batch: Batch::default(),
            answer: Ok(0),
            hand: HostPages::default(),
            duty: Duty::NONE,
            owed: NO_FRAME,
        }
    }
}

impl<L: Parts> Copy for Thread<L> where L::Set: Copy {}

impl<L: Parts> Thread<L> {
    /// Goes to the next operation; whatever the finished one kept is forgotten.
    pub fn next_op(&mut self) {
        self.op += 1;
        self.stage = 0;
        self.index = 0;
        self.count = 0;
        self.freed = 0;
        self.any = false;
        self.signal = false;
        self.entry_slot = 0;
        self.entry_offset = Offset(0);
        self.batch = Batch::default();
    }

    /// Whether it holds the page of a ring entry that it has read.
    #[must_use]
    #[inline]
    pub fn holds_entry(&self) -> bool {
        self.duty.has(Duty::HOLDS_ENTRY) || self.any && self.duty.has(Duty::MAY_HOLD_ENTRY)
    }

    /// Forgets the entry in work.
    pub(crate) fn forget_entry(&mut self) {
        self.entry_slot = 0;
        self.entry_offset = Offset(0);
    }
}
