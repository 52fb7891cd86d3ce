//! The program of a vCPU's guest, and how far the guest has come in it.

use crate::trace::call::Program;

/// A program, and how far its guest has come.
#[derive(Debug)]
pub(super) struct Cursor {
    program: Program,
    /// The guest page number of each run's first page: the guest was told addresses, and keeps to them whatever becomes of the slots.
    /// None where the slot was not there.
    gfns: Vec<Option<u64>>,
    /// The run of its list, and the page within that, that come next.
    run: usize,
    within: u64,
    retired: u64,
}

impl Cursor {
    /// The program at its beginning, with the guest page number of each run's first page.
    pub(super) fn new(program: Program, gfns: Vec<Option<u64>>) -> Self {
        Self {
            program,
            gfns,
            run: 0,
            within: 0,
            retired: 0,
        }
    }

    /// Whether it is in this program.
    pub(super) fn is_at(&self, program: &Program) -> bool {
        self.program == *program
    }

    /// How many accesses have retired.
    pub(super) fn retired(&self) -> u64 {
        self.retired
    }

    /// Whether every access has retired.
    pub(super) fn at_end(&self) -> bool {
        self.run == self.program.store.runs().len()
    }

    /// The address space and the guest page number of the next access; none where there never was a slot.
    pub(super) fn next(&self) -> Option<(u32, u64)> {
        let (slot, _, _) = self.program.store.runs()[self.run];
        let gfn = self.gfns[self.run]?;
        Some((slot >> 16, gfn + self.within))
    }

    /// The next access has retired.
    pub(super) fn retire(&mut self) {
        self.retired += 1;
        self.within += 1;
        if self
            .program
            .store
            .runs()
            .get(self.run)
            .is_some_and(|run| self.within == run.2)
        {
            self.run += 1;
            self.within = 0;
        }
    }
}
