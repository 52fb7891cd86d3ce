//! The visited set: boards, each with the states that are on it and how far they are.
//!
//! A *board* is one value of what the first two vCPUs share: the VM-wide section, the threads', and those of the other
//! vCPUs. A *seat* on it is a section that one of the two has in some state on that board, so that a state is a board
//! and two seats: a *cell*. Of the combinations of a board's seats many are reached; a byte for each says whether, and
//! at which level. Nothing is hashed away: the set is exact.

use std::sync::{Mutex, PoisonError, RwLock};

use wide::u8x16;

use super::numbers::Number;
use crate::search::index::Index;
use crate::search::memo::EntryAt;
use crate::search::sections::{Sections, section_hash};

/// vCPUs that have seats: the first two.
pub(super) const SEATED: usize = 2;

/// The place of a board in the list of all.
pub(super) type BoardAt = u32;

/// The order in which boards are visited, so that a board comes after those that lead to it, as far as that can be known: of
/// the largest graph that is measured, the first 6,659 boards take 7,198 visits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Rank {
    /// The threads' operations, then the indices within them, added up.
    ops: u32,
    indices: u32,
    /// The most steps that threads have taken since, of the ways that were gone.
    steps: u32,
    /// See [`Sections::bits`].
    bits: i32,
    /// The longest way since, of other actors.
    others: u32,
}

impl Rank {
    /// That of a board, before a way to it was gone.
    pub(super) fn of(sections: &Sections, shared: &[u64]) -> Self {
        let mut rank = Self {
            bits: sections.bits(shared),
            ..Self::default()
        };
        for place in sections.places(shared) {
            rank.ops += u32::from(place.op);
            rank.indices += place.index;
        }
        rank
    }

    /// Learns of a way to the board from one of another rank; by a thread's step, or not.
    pub(super) fn come_from(&mut self, from: Self, by_thread: bool) {
        if (from.ops, from.indices) != (self.ops, self.indices) {
            return;
        }
        let steps = from.steps + u32::from(by_thread);
        if steps > self.steps {
            self.steps = steps;
            self.others = 0;
        }
        if !by_thread && (from.steps, from.bits) == (self.steps, self.bits) {
            self.others = self.others.max(from.others + 1);
        }
    }
}

/// A place on an axis of a board.
pub(super) type Seat = u16;

/// No seat.
pub(super) const NOWHERE: Seat = Seat::MAX;

/// A cell whose state was not reached.
pub(super) const ABSENT: u8 = u8::MAX;
/// A cell whose state was reached at a level of an earlier window. Those of this window are 1 for its first level, and
/// so on; one more than its last level for the first of the next.
pub(super) const SETTLED: u8 = 0;

/// Steps that stay on the board are to be taken from the cells of this seat.
pub(super) const STAY: u8 = 1 << 0;
/// Those that leave it, and those of other actors.
pub(super) const LEAVE: u8 = 1 << 1;

/// What a vCPU's sections are on a board.
#[derive(Default)]
pub(super) struct Axis {
    numbers: Vec<Number>,
    /// An open-addressing table of seats, counted from 1; 0: empty.
    slots: Vec<Seat>,
    /// By seat, what is to be done: [`STAY`], [`LEAVE`]; as many as there is room for.
    pub(super) flags: Vec<u8>,
    /// By seat, the entry of each actor whose steps depend on the section there, in the memo of the board's reader; 0: not
    /// known.
    pub(super) entries: Vec<EntryAt>,
}

impl Axis {
    #[inline(always)]
    fn first_slot(&self, number: Number) -> usize {
        (number.wrapping_mul(0x9e37_79b1) >> 16) as usize & (self.slots.len() - 1)
    }

    /// The number of the section at each seat.
    pub(super) fn numbers(&self) -> &[Number] {
        &self.numbers
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    #[inline(always)]
    fn find(&self, number: Number) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.first_slot(number);
        loop {
            let seat = usize::from(self.slots[slot]).checked_sub(1)?;
            if self.numbers[seat] == number {
                return Some(seat);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Seats that there is room for.
    fn room(&self) -> usize {
        self.flags.len()
    }

    fn push(&mut self, number: Number) -> usize {
        let seat = self.numbers.len();
        if seat == self.room() {
            self.widen(seat + (seat / 8).max(1));
        }
        self.numbers.push(number);
        self.put(seat);
        seat
    }

    /// Makes room for so many seats.
    fn widen(&mut self, room: usize) {
        let room = room.next_multiple_of(STRIDE);
        self.numbers.reserve_exact(room - self.numbers.len());
        self.flags.reserve_exact(room - self.flags.len());
        self.flags.resize(room, 0);
        self.slots = vec![0; (2 * room).next_power_of_two()];
        for seat in 0..self.numbers.len() {
            self.put(seat);
        }
    }

    /// Makes room for the entries of so many actors at each seat that there is room for.
    pub(super) fn make_room_for_entries(&mut self, actors: usize) {
        let entries = self.room() * actors;
        self.entries.reserve_exact(entries - self.entries.len());
        self.entries.resize(entries, 0);
    }

    fn put(&mut self, seat: usize) {
        let mut slot = self.first_slot(self.numbers[seat]);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = seat as Seat + 1;
    }

    fn bytes(&self) -> usize {
        self.numbers.capacity() * size_of::<Number>()
            + self.slots.capacity() * size_of::<Seat>()
            + self.flags.capacity()
            + self.entries.capacity() * size_of::<EntryAt>()
    }
}

/// The states on a board.
#[derive(Default)]
pub(super) struct Grid {
    pub(super) axes: [Axis; 2],
    /// By seat of the first vCPU, then of the second.
    pub(super) cells: Vec<u8>,
    /// Cells from one seat of the first vCPU to the next.
    pub(super) stride: usize,
    /// Somebody will visit it.
    pub(super) is_queued: bool,
    /// Some cell has a level of this window or of the next one.
    pub(super) is_touched: bool,
    /// There are more seats than can be told apart: the search cannot go on.
    pub(super) is_full: bool,
    /// Its place in the order of visits.
    pub(super) rank: Rank,
    /// States that were there at the end of the last visit.
    pub(super) states: u64,
    /// The worker that filled in the entries, and its memo's generation.
    reader: (usize, u32),
}

/// Seats that an axis has room for at first; it always has for a multiple of them.
pub(super) const STRIDE: usize = 16;

/// Whether a cell's state is to take its steps in a window of so many levels, at most 126.
#[inline(always)]
pub(super) fn is_open(cell: u8, width: u8) -> bool {
    cell.wrapping_sub(1) < width
}

/// The same for several cells: a bit for each.
#[inline(always)]
fn open_bits(cells: &[u8; STRIDE], width: u8) -> u64 {
    let below = u8x16::new(*cells) - u8x16::ONE;
    let least = below.min(u8x16::splat(width - 1));
    u64::from(least.simd_eq(below).to_bitmask())
}

impl Grid {
    /// The seat of a section on an axis, a new one if it had none.
    #[inline(always)]
    pub(super) fn seat(&mut self, axis: usize, number: Number) -> usize {
        match self.axes[axis].find(number) {
            Some(seat) => seat,
            None => self.add_seat(axis, number),
        }
    }

    #[cold]
    fn add_seat(&mut self, axis: usize, number: Number) -> usize {
        if self.axes[axis].len() >= usize::from(NOWHERE) - 1 {
            self.is_full = true;
            return 0;
        }
        let room = self.axes[axis].room();
        let seat = self.axes[axis].push(number);
        if self.axes[axis].room() != room {
            self.fit_cells();
        }
        seat
    }

    /// Makes room for so many seats on a board that has none.
    pub(super) fn make_room(&mut self, seats: [usize; 2]) {
        if self.stride == 0 {
            for (axis, seats) in self.axes.iter_mut().zip(seats) {
                axis.widen(seats.max(1));
            }
            self.fit_cells();
        }
    }

    /// Has as many cells as there is room for seats.
    fn fit_cells(&mut self) {
        let [rows, stride] = self.axes.each_ref().map(Axis::room);
        if stride == self.stride {
            self.cells.resize(rows * stride, ABSENT);
            return;
        }
        let mut cells = vec![ABSENT; rows * stride];
        if self.stride > 0 {
            let old = self.cells.chunks(self.stride);
            for (new, old) in cells.chunks_mut(stride).zip(old) {
                new[..old.len()].copy_from_slice(old);
            }
        }
        self.cells = cells;
        self.stride = stride;
    }

    /// Puts the first state of a search on it.
    pub(super) fn begin(&mut self, numbers: [Number; 2]) {
        let [row, column] = [0, 1].map(|axis| self.seat(axis, numbers[axis]));
        self.cells[row * self.stride + column] = 1;
        self.axes[0].flags[row] = STAY | LEAVE;
        self.axes[1].flags[column] = STAY | LEAVE;
        self.is_queued = true;
        self.is_touched = true;
    }

    /// Forgets entries that are not this worker's.
    pub(super) fn read_by(&mut self, reader: (usize, u32)) {
        if self.reader != reader {
            self.reader = reader;
            for axis in &mut self.axes {
                axis.entries.fill(0);
            }
        }
    }

    /// Counts the states that came since this was called last.
    pub(super) fn count(&mut self) -> u64 {
        let states = self.cells_where(|cell| cell != ABSENT);
        states - std::mem::replace(&mut self.states, states)
    }

    /// The cells of the seats that there are.
    fn used(&self) -> &[u8] {
        &self.cells[..self.axes[0].len() * self.stride]
    }

    fn cells_where(&self, is_it: impl Fn(u8) -> bool) -> u64 {
        // Sums of bytes, which the compiler makes of many cells at a time.
        let count = |cells: &[u8]| cells.iter().map(|&cell| u8::from(is_it(cell))).sum::<u8>();
        let counts = self.used().chunks(240).map(|cells| u64::from(count(cells)));
        counts.sum()
    }

    /// Makes the states of a window of so many levels those of an earlier one; how many there are of the next.
    pub(super) fn advance(&mut self, width: u8) -> u64 {
        let next = self.cells_where(|cell| cell == width + 1);
        let used = self.axes[0].len() * self.stride;
        for cell in &mut self.cells[..used] {
            let absent = if *cell == ABSENT { ABSENT } else { SETTLED };
            *cell = absent | u8::from(*cell == width + 1);
        }
        next
    }

    /// Calls `see` with the open cells of a row: column and level.
    #[inline(always)]
    pub(super) fn for_each_open(&self, row: usize, width: u8, mut see: impl FnMut(usize, u8)) {
        let row = &self.cells[row * self.stride..(row + 1) * self.stride];
        for (index, chunk) in row.chunks(64).enumerate() {
            let mut open = 0_u64;
            for (index, cells) in chunk.as_chunks::<STRIDE>().0.iter().enumerate() {
                open |= open_bits(cells, width) << (STRIDE * index);
            }
            while open != 0 {
                let at = open.trailing_zeros() as usize;
                see(index * 64 + at, chunk[at]);
                open &= open - 1;
            }
        }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        (self.axes.iter().map(Axis::bytes).sum::<usize>() + self.cells.capacity()) as u64
    }
}

/// One value of what the first two vCPUs share.
pub(super) struct Board {
    /// The words of a state on it, the sections of the two left 0.
    pub(super) shared: Box<[u64]>,
    pub(super) grid: Mutex<Grid>,
}

/// All boards.
pub(super) struct Boards {
    all: boxcar::Vec<Board>,
    index: RwLock<Index>,
}

impl Boards {
    pub(super) fn new() -> Self {
        Self {
            all: boxcar::Vec::new(),
            index: RwLock::new(Index::new()),
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, at: BoardAt) -> &Board {
        &self.all[at as usize]
    }

    /// The board of these words; a new one if there was none.
    pub(super) fn find(&self, sections: &Sections, shared: &[u64]) -> BoardAt {
        let hash = section_hash(0, shared);
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let is_it = |place| *self.get(place - 1).shared == *shared;
        if let Some(place) = index.find(hash, is_it) {
            return place - 1;
        }
        drop(index);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = index.find(hash, is_it) {
            return place - 1;
        }
        let at = self.all.push(Board {
            shared: shared.into(),
            grid: Mutex::new(Grid {
                rank: Rank::of(sections, shared),
                ..Grid::default()
            }),
        }) as BoardAt;
        index.insert(hash, at + 1);
        at
    }

    pub(super) fn len(&self) -> usize {
        self.all.count()
    }

    /// About how many bytes they take, their grids apart.
    pub(super) fn bytes(&self) -> u64 {
        let words = self
            .all
            .get(0)
            .map_or(0, |board| board.shared.len() * 8 + 16);
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        (self.all.count() * (size_of::<Board>() + words)) as u64 + index.bytes()
    }
}
