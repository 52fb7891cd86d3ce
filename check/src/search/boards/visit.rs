//! A visit to a board: the states that came since the last one take their steps.
//!
//! First the steps that stay on the board, until no more states come of them; then all others, which are put together by
//! the board that they lead to, so that each of these is locked once. What a seat's actor does is looked up once for all
//! the states that have the seat in common.

use std::sync::PoisonError;

use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply};

use super::board::{ABSENT, BoardAt, Grid, LEAVE, NOWHERE, Rank, STAY, STRIDE, Seat, is_open};
use super::columns::Columns;
use super::numbers::Number;
use super::worker::{Cell, Op, Responder, STAYS, Worker};

/// What visits bring about.
#[derive(Default)]
pub(super) struct Sent {
    /// Boards to be visited, with their ranks.
    pub(super) queued: Vec<(Rank, BoardAt)>,
    /// Boards that have states of this window or of the next one since.
    pub(super) touched: Vec<BoardAt>,
    /// States that were reached for the first time, as far as their boards were visited.
    pub(super) new: u64,
    /// Bytes that grids grew by.
    pub(super) grown: i64,
    /// Some board has too many seats.
    pub(super) is_full: bool,
}

/// What visits need to remember for a moment.
#[derive(Default)]
pub(super) struct Scratch {
    /// The sections of the board that was visited last, by axis and seat.
    numbers: [Vec<Number>; 2],
    /// Their seats on the board in work.
    maps: [Vec<Seat>; 2],
    /// The cells of the board in work that are open, by column.
    columns: Columns,
    /// By axis and seat, the cells that are to leave: where they begin and end among all.
    leaving: [Vec<(u32, u32)>; 2],
    /// The edges that the steps take of actors that depend on the board alone.
    steps: Vec<u32>,
    /// Cells by the class of their seat on one axis.
    by_class: Vec<(u32, Cell)>,
    /// Those of one that depends on each vCPU's control, and what stands at the seat afterwards.
    edges: Vec<(u32, Option<Number>)>,
    /// States whose steps are taken by the transition function: sections, level, and the actor.
    by_hand: Vec<([Number; 2], u8, u8)>,
}

impl Scratch {
    /// About what it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.columns.bytes()
            + self.by_class.capacity() * size_of::<(u32, Cell)>()
            + self.by_hand.capacity() * size_of::<([Number; 2], u8, u8)>();
        bytes as u64
    }
}

/// A cell of a list.
#[inline(always)]
fn cell(seat: usize, level: u8) -> Cell {
    (seat as Cell) << 8 | Cell::from(level)
}

/// The seat on the other axis of a cell of a list.
#[inline(always)]
fn seat_of(cell: Cell) -> usize {
    (cell >> 8) as usize
}

impl Grid {
    /// Where a seat's cells begin, and how far one is from the next.
    #[inline(always)]
    fn line(&self, axis: usize, seat: usize) -> (usize, usize) {
        if axis == 0 {
            (seat * self.stride, 1)
        } else {
            (seat, self.stride)
        }
    }

    /// Moves listed cells, which have one seat in common, to a seat on the same axis, one level on; `map` has the seats
    /// on the other axis. Answers the lowest level of a state that was reached or is nearer than it was; [`ABSENT`] if
    /// there is none.
    fn relax(&mut self, axis: usize, seat: usize, list: &[Cell], map: &[Seat]) -> u8 {
        let (first, step) = self.line(axis, seat);
        let [rows, columns] = &mut self.axes;
        let (own, others) = if axis == 0 {
            (rows, columns)
        } else {
            (columns, rows)
        };
        let lowest = relax_list(&mut self.cells[first..], step, &mut others.flags, list, map);
        if lowest != ABSENT {
            own.flags[seat] |= STAY | LEAVE;
        }
        lowest
    }

    /// Moves all cells of a row whose states take their steps in this window to another row, one level on.
    #[inline(always)]
    fn relax_rows(&mut self, from: usize, to: usize, width: u8) {
        if from == to {
            return;
        }
        let stride = self.stride;
        let [rows, columns] = &mut self.axes;
        let lines = [from, to].map(|row| row * stride..(row + 1) * stride);
        if let Ok([from, line]) = self.cells.get_disjoint_mut(lines) {
            rows.flags[to] |= relax_row(from, line, &mut columns.flags, width);
        }
    }

    /// The same for columns.
    #[inline(always)]
    fn relax_columns(&mut self, open: &mut Columns, from: usize, to: usize, width: u8) {
        if from == to {
            return;
        }
        open.make_room(to);
        let [rows, columns] = &mut self.axes;
        for word in 0..open.words() {
            let before = *open.word(from, word);
            let first = word * 64;
            let flags = &mut rows.flags[first..];
            let cells = &mut self.cells[first * self.stride..];
            let (any, after) = relax_column(cells, self.stride, [from, to], flags, before, width);
            *open.word(to, word) |= after;
            columns.flags[to] |= if any { STAY | LEAVE } else { 0 };
        }
    }
}

/// Moves listed cells to a line whose cells are so far apart, one level on; `map` has their places in it, and `flags` are by
/// place. Not inlined, as [`relax_row`].
#[inline(never)]
fn relax_list(line: &mut [u8], step: usize, flags: &mut [u8], list: &[Cell], map: &[Seat]) -> u8 {
    let mut lowest = ABSENT;
    for &listed in list {
        let place = usize::from(map[seat_of(listed)]);
        let cell = &mut line[place * step];
        let (old, level) = (*cell, listed as u8 + 1);
        let nearer = level < old;
        *cell = old.min(level);
        lowest = lowest.min(if nearer { level } else { ABSENT });
        flags[place] |= if nearer { STAY | LEAVE } else { 0 };
    }
    lowest
}

/// The level after one that is open; [`ABSENT`] after another.
#[inline(always)]
fn ahead(level: u8, width: u8) -> u8 {
    if is_open(level, width) {
        level + 1
    } else {
        ABSENT
    }
}

/// Moves a row to another, one level on. What is to be done where a state is nearer than it was is added to the flags of the
/// columns, whose steps come after those of rows, and is the answer for the row. Not inlined, so that the compiler knows
/// that the slices are apart, and takes many cells at once.
#[inline(never)]
fn relax_row(from: &[u8], to: &mut [u8], flags: &mut [u8], width: u8) -> u8 {
    let mut changed = 0;
    let lines = from.as_chunks::<STRIDE>().0.iter();
    let lines = lines.zip(to.as_chunks_mut::<STRIDE>().0);
    for ((from, to), flags) in lines.zip(flags.as_chunks_mut::<STRIDE>().0) {
        for index in 0..STRIDE {
            let level = ahead(from[index], width);
            let nearer = if level < to[index] { STAY | LEAVE } else { 0 };
            to[index] = level.min(to[index]);
            flags[index] |= nearer;
            changed |= nearer;
        }
    }
    changed
}

/// The same for columns, and up to 64 rows, of which the bits tell whether they are open in the first column. Rows have taken
/// the steps that stay on the board already, and are only to leave. Answers whether some state is nearer than it was, and
/// the rows that are open in the second column since.
#[inline(never)]
fn relax_column(
    cells: &mut [u8],
    stride: usize,
    [from, to]: [usize; 2],
    flags: &mut [u8],
    mut open: u64,
    width: u8,
) -> (bool, u64) {
    let mut any = false;
    let mut after = 0;
    while open != 0 {
        let row = open.trailing_zeros() as usize;
        open &= open - 1;
        let line = &mut cells[row * stride..(row + 1) * stride];
        let level = line[from] + 1;
        let nearer = level < line[to];
        line[to] = level.min(line[to]);
        flags[row] |= if nearer { LEAVE } else { 0 };
        after |= u64::from(nearer && is_open(level, width)) << row;
        any |= nearer;
    }
    (any, after)
}

impl<L: Layout, const N: usize> Worker<'_, L, N> {
    /// Visits a board.
    pub(super) fn visit(
        &mut self,
        at: BoardAt,
        rank: Rank,
        scratch: &mut Scratch,
        sent: &mut Sent,
    ) {
        let board = self.boards.get(at);
        let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
        let grid = &mut *grid;
        if grid.rank > rank {
            sent.queued.push((grid.rank, at));
            self.used_edges = 0;
            return;
        }
        grid.is_queued = false;
        let bytes = grid.bytes();
        self.begin(&board.shared, grid);
        self.stay(grid, &mut scratch.columns);
        self.gather(grid, scratch);
        for axis in 0..2 {
            scratch.numbers[axis].clear();
            scratch.numbers[axis].extend_from_slice(grid.axes[axis].numbers());
        }
        sent.new += grid.count();
        sent.grown += grid.bytes().cast_signed() - bytes.cast_signed();
    }

    /// Takes the steps that stay on the board, until no more states come of them.
    ///
    /// On a board the steps of the one vCPU change nothing for the other, so that any way to a state of the board can be
    /// put in an order where those of the first vCPU come first.
    fn stay(&mut self, grid: &mut Grid, columns: &mut Columns) {
        let width = self.width;
        self.stay_on(0, grid, |grid, from, to| grid.relax_rows(from, to, width));
        columns.begin(grid, width);
        self.stay_on(1, grid, |grid, from, to| {
            grid.relax_columns(columns, from, to, width);
        });
    }

    /// The same for the steps of one vCPU; `relax` moves all cells of a seat to another.
    #[inline(always)]
    fn stay_on(
        &mut self,
        axis: usize,
        grid: &mut Grid,
        mut relax: impl FnMut(&mut Grid, usize, usize),
    ) {
        let mut done = false;
        while !done {
            done = true;
            let mut seat = 0;
            while seat < grid.axes[axis].len() {
                if grid.axes[axis].flags[seat] & STAY != 0 {
                    grid.axes[axis].flags[seat] &= !STAY;
                    done = false;
                    self.meet(&mut grid.axes, axis, seat);
                    let number = grid.axes[axis].numbers()[seat];
                    for at in self.moves(axis, seat, number) {
                        let step = self.a_move(at);
                        if step.edge == STAYS {
                            let to = grid.seat(axis, step.number);
                            relax(grid, seat, to);
                        }
                    }
                }
                seat += 1;
            }
        }
    }

    /// Puts the cells that are to leave into lists, by row and by column.
    fn list_leaving(&mut self, grid: &Grid, scratch: &mut Scratch) {
        let cells = &mut self.cells;
        cells.clear();
        let [by_row, by_column] = &mut scratch.leaving;
        by_row.clear();
        by_column.clear();
        for row in 0..grid.axes[0].len() {
            let begin = cells.len() as u32;
            if grid.axes[0].flags[row] & LEAVE != 0 {
                grid.for_each_open(row, self.width, |column, level| {
                    cells.push(cell(column, level));
                });
            }
            by_row.push((begin, cells.len() as u32));
        }
        for column in 0..grid.axes[1].len() {
            let begin = cells.len() as u32;
            if grid.axes[1].flags[column] & LEAVE != 0 {
                scratch.columns.for_each_row(column, |row| {
                    cells.push(cell(row, grid.cells[row * grid.stride + column]));
                });
            }
            by_column.push((begin, cells.len() as u32));
        }
    }

    /// Puts the steps that leave the board with the edges that they take.
    fn gather(&mut self, grid: &mut Grid, scratch: &mut Scratch) {
        let mut steps = std::mem::take(&mut scratch.steps);
        steps.clear();
        for index in 0..self.board_entries.len() {
            let (actor, entry) = self.board_entries[index];
            self.edges_of(actor, entry, [0, 0], &mut steps);
        }
        self.list_leaving(grid, scratch);
        for axis in 0..2 {
            for seat in 0..grid.axes[axis].len() {
                if grid.axes[axis].flags[seat] & LEAVE == 0 {
                    continue;
                }
                grid.axes[axis].flags[seat] = 0;
                let all = scratch.leaving[axis][seat];
                if all.0 == all.1 {
                    continue;
                }
                self.meet(&mut grid.axes, axis, seat);
                let number = grid.axes[axis].numbers()[seat];
                let op = |number, (begin, end)| Op {
                    axis: axis as u8,
                    seat: seat as Seat,
                    number,
                    begin,
                    end,
                };
                for at in self.moves(axis, seat, number) {
                    let step = self.a_move(at);
                    if step.edge != STAYS {
                        self.edges[step.edge as usize]
                            .ops
                            .push(op(Some(step.number), all));
                    }
                }
                for index in 0..self.on_control() {
                    if self.control_axis(index).unwrap_or(0) == axis {
                        self.gather_on_control(grid, [axis, seat], all, index, scratch);
                    }
                }
                if axis == 1 {
                    continue;
                }
                for &edge in &steps {
                    self.edges[edge as usize].ops.push(op(None, all));
                }
                for &actor in &self.by_hand {
                    let list = &self.cells[all.0 as usize..all.1 as usize];
                    note_by_hand(grid, [axis, seat], list, actor, scratch);
                }
            }
        }
        scratch.steps = steps;
    }

    /// The same for the steps of an actor that depend on each vCPU's control.
    fn gather_on_control(
        &mut self,
        grid: &mut Grid,
        [axis, seat]: [usize; 2],
        all: (u32, u32),
        index: usize,
        scratch: &mut Scratch,
    ) {
        let other = 1 - axis;
        let mut list = std::mem::take(&mut scratch.by_class);
        list.clear();
        for at in all.0..all.1 {
            let cell = self.cells[at as usize];
            self.meet(&mut grid.axes, other, seat_of(cell));
            list.push((self.class(other, seat_of(cell)), cell));
        }
        list.sort_by_key(|&(class, _)| class);
        for same in list.chunk_by(|a, b| a.0 == b.0) {
            let begin = self.cells.len() as u32;
            self.cells.extend(same.iter().map(|&(_, cell)| cell));
            let end = self.cells.len() as u32;
            let mut seats = [seat; 2];
            seats[other] = seat_of(same[0].1);
            let (actor, entry) = self.control_entry(&grid.axes, index, seats);
            if self.desk.memo.first(entry).is_by_hand() {
                let list = &self.cells[begin as usize..end as usize];
                note_by_hand(grid, [axis, seat], list, actor, scratch);
                continue;
            }
            self.sit_both([0, 1].map(|axis| grid.axes[axis].numbers()[seats[axis]]));
            scratch.edges.clear();
            self.edges_on_control(index, entry, seats, &mut scratch.edges);
            for &(edge, number) in &scratch.edges {
                self.edges[edge as usize].ops.push(Op {
                    axis: axis as u8,
                    seat: seat as Seat,
                    number,
                    begin,
                    end,
                });
            }
        }
        scratch.by_class = list;
    }

    /// Takes the steps that were gathered at the board that was visited last.
    pub(super) fn leave(&mut self, rank: Rank, scratch: &mut Scratch, sent: &mut Sent) {
        for edge in 0..self.used_edges {
            if !self.edges[edge].ops.is_empty() {
                self.leave_by(edge, rank, scratch, sent);
            }
        }
        for (numbers, level, actor) in std::mem::take(&mut scratch.by_hand) {
            self.step_by_hand(numbers, level, actor, rank, sent);
        }
    }

    fn leave_by(&mut self, edge: usize, rank: Rank, scratch: &mut Scratch, sent: &mut Sent) {
        let ops = std::mem::take(&mut self.edges[edge].ops);
        let responder = self.edges[edge].responder;
        let shared = &self.edges[edge].shared;
        let from = &self.edges[STAYS as usize].shared;
        let by_thread = self.sections.any_thread_changed(from, shared);
        let to = self.boards.find(self.sections, shared);
        let board = self.boards.get(to);
        let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
        let grid = &mut *grid;
        let bytes = grid.bytes();
        // A board has about as many seats as one before it.
        grid.make_room(scratch.numbers.each_ref().map(Vec::len));
        for axis in 0..2 {
            let map = &mut scratch.maps[axis];
            map.clear();
            map.resize(scratch.numbers[axis].len(), NOWHERE);
        }
        let cells = std::mem::take(&mut self.cells);
        let mut lowest = ABSENT;
        for op in &ops {
            let axis = usize::from(op.axis);
            let list = &cells[op.begin as usize..op.end as usize];
            if list.is_empty() {
                continue;
            }
            let seat = match op.number {
                Some(number) => grid.seat(axis, number),
                None => {
                    let at = usize::from(op.seat);
                    if scratch.maps[axis][at] == NOWHERE {
                        scratch.maps[axis][at] = self.place(grid, scratch, responder, axis, at);
                    }
                    usize::from(scratch.maps[axis][at])
                }
            };
            for &cell in list {
                let at = seat_of(cell);
                if scratch.maps[1 - axis][at] == NOWHERE {
                    scratch.maps[1 - axis][at] = self.place(grid, scratch, responder, 1 - axis, at);
                }
            }
            lowest = lowest.min(grid.relax(axis, seat, list, &scratch.maps[1 - axis]));
        }
        self.cells = cells;
        self.edges[edge].ops = ops;
        self.sent(grid, to, (rank, by_thread), lowest, bytes, sent);
    }

    /// The seat on the board that an edge leads to of what stands at a seat of the one that was visited last.
    fn place(
        &mut self,
        grid: &mut Grid,
        scratch: &Scratch,
        responder: Option<Responder>,
        axis: usize,
        seat: usize,
    ) -> Seat {
        let number = scratch.numbers[axis][seat];
        let number = match responder {
            Some((actor, entry, seats)) => {
                let other = usize::from(seats[1 - axis]);
                self.sit(1 - axis, scratch.numbers[1 - axis][other]);
                self.sit(axis, number);
                self.response(actor, entry, axis)
            }
            None => number,
        };
        grid.seat(axis, number) as Seat
    }

    /// Notes what a board that states were sent to needs.
    fn sent(
        &mut self,
        grid: &mut Grid,
        to: BoardAt,
        (rank, by_thread): (Rank, bool),
        lowest: u8,
        bytes: u64,
        sent: &mut Sent,
    ) {
        sent.grown += grid.bytes().cast_signed() - bytes.cast_signed();
        sent.is_full |= grid.is_full;
        if lowest <= self.width {
            grid.rank.come_from(rank, by_thread);
        }
        if lowest != ABSENT && !grid.is_touched {
            grid.is_touched = true;
            sent.touched.push(to);
        }
        if lowest <= self.width && !grid.is_queued {
            grid.is_queued = true;
            sent.queued.push((grid.rank, to));
        }
    }

    fn step_by_hand(
        &mut self,
        numbers: [Number; 2],
        level: u8,
        actor: u8,
        rank: Rank,
        sent: &mut Sent,
    ) {
        self.sit_both(numbers);
        let machine = self.search.machine;
        let state = self.source.unpack(&self.words);
        let actor = self.sections.actor(usize::from(actor));
        let mut choices = Vec::new();
        self.source.choices(&state, actor, &mut choices);
        for choice in choices {
            let mut after = state.clone();
            let step = Step { actor, choice };
            apply(machine, &mut after, step);
            self.source.note_refused(&state, step, &after);
            let mut shared = self.source.pack(&mut after);
            let numbers = [0, 1].map(|axis| {
                let own = self.sections.own::<N>(axis);
                let number = self.numbers[axis].of(&shared[own.clone()]);
                shared[own].fill(0);
                number
            });
            let by_thread = self.sections.any_thread_changed(&self.words, &shared);
            let to = self.boards.find(self.sections, &shared);
            let board = self.boards.get(to);
            let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
            let grid = &mut *grid;
            let bytes = grid.bytes();
            let seats = [0, 1].map(|axis| grid.seat(axis, numbers[axis]));
            let lowest = grid.relax(0, seats[0], &[cell(0, level)], &[seats[1] as Seat]);
            self.sent(grid, to, (rank, by_thread), lowest, bytes, sent);
        }
    }
}

/// Notes states that have a seat in common where an actor's steps are taken by the transition function.
fn note_by_hand(
    grid: &Grid,
    [axis, seat]: [usize; 2],
    list: &[Cell],
    actor: u8,
    scratch: &mut Scratch,
) {
    let number = |axis: usize, seat: usize| grid.axes[axis].numbers()[seat];
    scratch.by_hand.extend(list.iter().map(|&cell| {
        let mut numbers = [number(axis, seat); 2];
        numbers[1 - axis] = number(1 - axis, seat_of(cell));
        (numbers, cell as u8, actor)
    }));
}
