//! What actors contribute to the verdict on a board's states and to their count, seat by seat.

use dirtysim_model::oracle::parts::Part;

use super::board::{Grid, STRIDE, is_open};

/// What actors contribute to a state, of those whose steps depend on the same.
#[derive(Clone, Copy)]
pub(super) struct Account {
    pub(super) part: Part,
    pub(super) facts: u64,
    pub(super) transitions: u64,
}

impl Account {
    pub(super) const NONE: Self = Self {
        part: Part::NEUTRAL,
        facts: 0,
        transitions: 0,
    };

    #[inline(always)]
    pub(super) fn join(self, other: Self) -> Self {
        Self {
            part: self.part.join(other.part),
            facts: self.facts | other.facts,
            transitions: self.transitions + other.transitions,
        }
    }
}

/// What the seats of a board contribute.
#[derive(Default)]
pub(super) struct Accounts {
    /// By axis and seat, whether some state that has it is looked at: not 0.
    pub(super) open: [Vec<u8>; 2],
    /// By axis and seat, of those.
    pub(super) seats: [Vec<Account>; 2],
    /// Some step claims something.
    pub(super) claim: bool,
    /// States of which no transition leads, with their levels.
    pub(super) ends: Vec<([usize; 2], u8)>,
    /// States where actors claim something, or take steps by the transition function.
    pub(super) special: Vec<([usize; 2], u8)>,
}

impl Accounts {
    /// About what they take in memory.
    pub(super) fn bytes(&self) -> usize {
        let seats: usize = self.seats.iter().map(Vec::capacity).sum();
        let states = self.ends.capacity() + self.special.capacity();
        seats * size_of::<Account>() + states * size_of::<([usize; 2], u8)>()
    }

    /// Begins with the states on a board that are in a window of so many levels.
    pub(super) fn begin(&mut self, grid: &Grid, width: u8) {
        self.claim = false;
        self.ends.clear();
        self.special.clear();
        for (axis, seats) in self.seats.iter_mut().enumerate() {
            seats.clear();
            seats.resize(grid.axes[axis].len(), Account::NONE);
        }
        let [rows, columns] = &mut self.open;
        rows.clear();
        columns.clear();
        columns.resize(grid.stride, 0);
        let lines = grid.cells.chunks(grid.stride);
        let lines = lines.take(grid.axes[0].len());
        rows.extend(lines.map(|cells| open_in_row(cells, columns, width)));
    }
}

/// Notes the columns of a row's states that are looked at; not 0 if there are any. Not inlined, so that the compiler knows that the
/// slices are apart, and takes many cells at once.
#[inline(never)]
fn open_in_row(cells: &[u8], columns: &mut [u8], width: u8) -> u8 {
    let mut any = [0; STRIDE];
    let lines = cells.as_chunks::<STRIDE>().0.iter();
    for (cells, columns) in lines.zip(columns.as_chunks_mut::<STRIDE>().0) {
        for index in 0..STRIDE {
            let open = u8::from(is_open(cells[index], width));
            columns[index] |= open;
            any[index] |= open;
        }
    }
    any.into_iter().fold(0, |any, open| any | open)
}
