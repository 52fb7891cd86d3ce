//! The steps of the fault path.

use super::Word;
use super::word::{loud, quiet};

/// A step of the fault path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FaultStage {
    /// The slot and its flags are looked up; the SRCU section begins.
    Resolve = 0,
    /// mmu_lock is taken.
    Lock = 1,
    /// The leaf is set, under mmu_lock.
    Map = 2,
    /// The leaf is set by x86's lockless path.
    FastMap = 3,
    /// The page is marked, with the push.
    Mark = 4,
    /// mmu_lock is dropped.
    Unlock = 5,
    /// Only in a wrong kernel: an emulator that has marked stores without looking again.
    SplitStore = 6,
}

impl FaultStage {
    /// The names of the steps, by number; that of a mark is told by what it writes.
    pub(crate) const WORDS: [Word; 7] = [
        quiet("fault-resolve", "looks up the memslot of {page}"),
        quiet("fault-lock", "takes mmu_lock"),
        loud("fault-map", "maps {page}"),
        loud(
            "fault-fast-map",
            "makes {page} writable by the lockless path",
        ),
        crate::words::Word::NOTHING,
        quiet("fault-unlock", "drops mmu_lock"),
        loud("store-after-mark", "stores to {page} after it was marked"),
    ];
}
