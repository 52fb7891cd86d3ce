//! A visit to a board: the states that came since the last one take their steps.
//!
//! First the steps that stay on the board, until no more states come of them; then all others, which are put together by
//! the board that they lead to, so that each of these is locked once. What a seat's actor does is looked up once for all
//! the states that have the seat in common.

use std::sync::PoisonError;

use dirtysim_model::layout::Layout;
use dirtysim_model::step::{Step, apply};

use super::board::{ABSENT, Axis, BoardAt, Grid, LEAVE, NOWHERE, STAY, Seat};
use super::numbers::Number;
use super::worker::{NOBODY, Op, Responder, STAYS, Worker};

/// What visits bring about.
#[derive(Default)]
pub(super) struct Sent {
    /// Boards to be visited, with their ranks.
    pub(super) queued: Vec<(u32, BoardAt)>,
    /// Boards that have states of this window or of the next one since.
    pub(super) touched: Vec<BoardAt>,
    /// States that were reached for the first time.
    pub(super) new: u64,
    /// Bytes that grids grew by.
    pub(super) grown: u64,
    /// Some board has too many seats.
    pub(super) is_full: bool,
}

/// What visits need to remember for a moment.
#[derive(Default)]
pub(super) struct Scratch {
    numbers: [Vec<Number>; 2],
    maps: [Vec<Seat>; 2],
    edges: Vec<u32>,
    /// States whose steps are taken by the transition function: seats, level, whose step may be taken alone.
    by_hand: Vec<([Number; 2], u8, u8)>,
}

/// Whether a cell's state is to take its steps in a window of so many levels.
#[inline(always)]
fn is_open(cell: u8, width: u8) -> bool {
    cell.wrapping_sub(1) < width
}

impl Grid {
    /// Adds the cells of a seat whose states take their steps in this window to a list.
    #[inline(always)]
    fn list(&self, axis: usize, seat: usize, width: u8, list: &mut Vec<(Seat, u8)>) {
        let (first, step) = if axis == 0 {
            (seat * self.stride, 1)
        } else {
            (seat, self.stride)
        };
        let len = self.axes[1 - axis].len();
        let begin = list.len();
        list.resize(begin + len, (0, 0));
        let mut end = begin;
        let cells = self.cells[first..].iter().step_by(step);
        for (other, &cell) in cells.take(len).enumerate() {
            list[end] = (other as Seat, cell);
            end += usize::from(is_open(cell, width));
        }
        list.truncate(end);
    }

    /// Moves listed cells, which have one seat in common, to a seat on the same axis, one level on; `map` has the seats
    /// on the other axis. Answers the lowest level of a state that was reached or is nearer than it was, [`ABSENT`] if
    /// there is none, and how many are new.
    #[inline(always)]
    fn relax(
        &mut self,
        axis: usize,
        seat: usize,
        list: &[(Seat, u8)],
        map: impl Fn(Seat) -> Seat,
    ) -> (u8, u64) {
        let (first, step) = if axis == 0 {
            (seat * self.stride, 1)
        } else {
            (seat, self.stride)
        };
        let Self { axes, cells, .. } = self;
        let [rows, columns] = axes;
        let (own, others) = if axis == 0 { (rows, columns) } else { (columns, rows) };
        let mut lowest = ABSENT;
        let mut new = 0;
        for &(other, level) in list {
            let other = usize::from(map(other));
            let cell = &mut cells[first + other * step];
            let old = *cell;
            let level = level + 1;
            new += u64::from(old == ABSENT);
            let nearer = level < old;
            *cell = old.min(level);
            lowest = lowest.min(if nearer { level } else { ABSENT });
            others.flags[other] |= if nearer { STAY | LEAVE } else { 0 };
        }
        if lowest != ABSENT {
            own.flags[seat] |= STAY | LEAVE;
        }
        (lowest, new)
    }
}

impl<L: Layout, const N: usize> Worker<'_, L, N> {
    /// Visits a board.
    pub(super) fn visit(&mut self, at: BoardAt, scratch: &mut Scratch, sent: &mut Sent) {
        let board = self.boards.get(at);
        let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
        let grid = &mut *grid;
        grid.is_queued = false;
        let bytes = grid.bytes();
        let first = [0, 1].map(|axis| grid.axes[axis].numbers()[0]);
        self.begin(&board.shared, first);
        self.stay(grid, sent);
        self.gather(grid, scratch);
        for axis in 0..2 {
            scratch.numbers[axis].clear();
            scratch.numbers[axis].extend_from_slice(grid.axes[axis].numbers());
        }
        sent.grown = sent.grown.wrapping_add(grid.bytes().wrapping_sub(bytes));
    }

    /// Takes the steps that stay on the board, until no more states come of them.
    fn stay(&mut self, grid: &mut Grid, sent: &mut Sent) {
        let mut list = Vec::new();
        loop {
            let mut done = true;
            for axis in 0..2 {
                let mut seat = 0;
                while seat < grid.axes[axis].len() {
                    if grid.axes[axis].flags[seat] & STAY != 0 {
                        grid.axes[axis].flags[seat] &= !STAY;
                        self.stay_at(grid, axis, seat, &mut list, sent);
                        done = false;
                    }
                    seat += 1;
                }
            }
            if done {
                break;
            }
        }
    }

    fn stay_at(
        &mut self,
        grid: &mut Grid,
        axis: usize,
        seat: usize,
        list: &mut Vec<(Seat, u8)>,
        sent: &mut Sent,
    ) {
        let number = grid.axes[axis].numbers()[seat];
        self.meet(axis, seat, number);
        let moves = self.moves(axis, seat, number);
        let mut is_listed = false;
        for at in moves {
            let step = self.a_move(at);
            if step.edge != STAYS {
                continue;
            }
            if !is_listed || self.filters {
                list.clear();
                grid.list(axis, seat, self.width, list);
                is_listed = true;
                if self.filters {
                    self.filter(&grid.axes, axis, seat, step.actor, list);
                }
            }
            let to = grid.seat(axis, step.number);
            let (_, new) = grid.relax(axis, to, list, |seat| seat);
            sent.new += new;
        }
    }

    /// Leaves in a list of cells those where the actor takes its steps.
    fn filter(
        &mut self,
        axes: &[Axis; 2],
        axis: usize,
        seat: usize,
        actor: u8,
        list: &mut Vec<(Seat, u8)>,
    ) {
        list.retain(|&(other, _)| {
            let alone = self.alone_at(axes, axis, seat, usize::from(other));
            alone == NOBODY || alone == actor
        });
    }

    /// Whose step is to be taken alone in a cell.
    fn alone_at(&mut self, axes: &[Axis; 2], axis: usize, seat: usize, other: usize) -> u8 {
        let seats = if axis == 0 { [seat, other] } else { [other, seat] };
        let numbers = [0, 1].map(|axis| axes[axis].numbers()[seats[axis]]);
        self.alone(seats, numbers)
    }

    /// Adds a list of the cells at a seat where an actor takes its steps, if those of another are `known`.
    fn cells_for(
        &mut self,
        grid: &Grid,
        axis: usize,
        seat: usize,
        actor: u8,
        known: &mut Option<(u32, u32)>,
    ) -> (u32, u32) {
        if let Some(known) = *known
            && !self.filters
        {
            return known;
        }
        let begin = self.cells.len() as u32;
        if self.filters {
            let mut list = Vec::new();
            grid.list(axis, seat, self.width, &mut list);
            self.filter(&grid.axes, axis, seat, actor, &mut list);
            self.cells.append(&mut list);
        } else {
            grid.list(axis, seat, self.width, &mut self.cells);
        }
        let cells = (begin, self.cells.len() as u32);
        *known = Some(cells);
        cells
    }

    /// Puts the steps that leave the board with the edges that they take.
    fn gather(&mut self, grid: &mut Grid, scratch: &mut Scratch) {
        let mut steps = Vec::new();
        for index in 0..self.board_entries.len() {
            let (actor, entry) = self.board_entries[index];
            scratch.edges.clear();
            self.edges_of(actor, entry, [0, 0], &mut scratch.edges);
            steps.extend(scratch.edges.iter().map(|&edge| (actor, edge)));
        }
        for axis in 0..2 {
            for seat in 0..grid.axes[axis].len() {
                if grid.axes[axis].flags[seat] & LEAVE == 0 {
                    continue;
                }
                grid.axes[axis].flags[seat] &= !LEAVE;
                let number = grid.axes[axis].numbers()[seat];
                self.meet(axis, seat, number);
                let mut known = None;
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
                        let cells = self.cells_for(grid, axis, seat, step.actor, &mut known);
                        self.edges[step.edge as usize].ops.push(op(Some(step.number), cells));
                    }
                }
                if axis == 1 {
                    continue;
                }
                for &(actor, edge) in &steps {
                    let cells = self.cells_for(grid, axis, seat, actor, &mut known);
                    self.edges[edge as usize].ops.push(op(None, cells));
                }
                for index in 0..self.on_control() {
                    self.gather_on_control(grid, seat, index, scratch);
                }
                self.gather_by_hand(grid, seat, scratch);
            }
        }
    }

    /// The same for the steps of an actor that depend on each vCPU's control.
    fn gather_on_control(&mut self, grid: &Grid, row: usize, index: usize, scratch: &mut Scratch) {
        let mut list = Vec::new();
        grid.list(0, row, self.width, &mut list);
        let numbers = |seats: [usize; 2]| [0, 1].map(|axis| grid.axes[axis].numbers()[seats[axis]]);
        for &(column, _) in &list {
            let column = usize::from(column);
            self.meet(1, column, numbers([row, column])[1]);
        }
        list.sort_by_key(|&(column, _)| self.class(1, usize::from(column)));
        let mut rest = &list[..];
        while let Some(&(column, _)) = rest.first() {
            let class = self.class(1, usize::from(column));
            let count = rest.partition_point(|&(column, _)| self.class(1, usize::from(column)) <= class);
            let (same, others) = rest.split_at(count);
            rest = others;
            let seats = [row, usize::from(column)];
            let (actor, entry) = self.control_entry(index, seats, numbers(seats));
            let mut same = same.to_vec();
            if self.filters {
                self.filter(&grid.axes, 0, row, actor, &mut same);
            }
            if self.desk.memo.first(entry).is_by_hand() {
                for &(column, level) in &same {
                    let numbers = numbers([row, usize::from(column)]);
                    scratch.by_hand.push((numbers, level, actor));
                }
                continue;
            }
            for axis in 0..2 {
                self.sit(axis, numbers(seats)[axis]);
            }
            scratch.edges.clear();
            self.edges_of(actor, entry, seats.map(|seat| seat as Seat), &mut scratch.edges);
            let begin = self.cells.len() as u32;
            self.cells.append(&mut same);
            for &edge in &scratch.edges {
                self.edges[edge as usize].ops.push(Op {
                    axis: 0,
                    seat: row as Seat,
                    number: None,
                    begin,
                    end: self.cells.len() as u32,
                });
            }
        }
    }

    /// Notes the states at a seat of the first vCPU where somebody's steps are taken by the transition function.
    fn gather_by_hand(&mut self, grid: &Grid, row: usize, scratch: &mut Scratch) {
        for index in 0..self.by_hand.len() {
            let actor = self.by_hand[index];
            let mut list = Vec::new();
            grid.list(0, row, self.width, &mut list);
            if self.filters {
                self.filter(&grid.axes, 0, row, actor, &mut list);
            }
            let number = |axis: usize, seat: usize| grid.axes[axis].numbers()[seat];
            scratch.by_hand.extend(list.iter().map(|&(column, level)| {
                ([number(0, row), number(1, usize::from(column))], level, actor)
            }));
        }
    }

    /// Takes the steps that were gathered at the board that was visited last.
    pub(super) fn leave(&mut self, rank: u32, scratch: &mut Scratch, sent: &mut Sent) {
        for edge in 0..self.used_edges {
            if !self.edges[edge].ops.is_empty() {
                self.leave_by(edge, rank, scratch, sent);
            }
        }
        for (numbers, level, actor) in std::mem::take(&mut scratch.by_hand) {
            self.step_by_hand(numbers, level, actor, rank, sent);
        }
    }

    fn leave_by(&mut self, edge: usize, rank: u32, scratch: &mut Scratch, sent: &mut Sent) {
        let ops = std::mem::take(&mut self.edges[edge].ops);
        let shared = std::mem::take(&mut self.edges[edge].shared);
        let responder = self.edges[edge].responder;
        let to = self.boards.find(&shared, rank + 1);
        let board = self.boards.get(to);
        let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
        let grid = &mut *grid;
        let bytes = grid.bytes();
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
            for &(other, _) in list {
                let at = usize::from(other);
                if scratch.maps[1 - axis][at] == NOWHERE {
                    scratch.maps[1 - axis][at] = self.place(grid, scratch, responder, 1 - axis, at);
                }
            }
            let map = &scratch.maps[1 - axis];
            let (nearest, new) = grid.relax(axis, seat, list, |seat| map[usize::from(seat)]);
            lowest = lowest.min(nearest);
            sent.new += new;
        }
        self.cells = cells;
        self.edges[edge].ops = ops;
        self.edges[edge].shared = shared;
        self.sent(grid, to, board.rank, lowest, bytes, sent);
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
            Some((actor, entry, seats)) if axis < self.seated => {
                let other = usize::from(seats[1 - axis]);
                self.sit(1 - axis, scratch.numbers[1 - axis][other]);
                self.sit(axis, number);
                self.response(actor, entry, axis)
            }
            _ => number,
        };
        grid.seat(axis, number) as Seat
    }

    /// Notes what a board that states were sent to needs.
    fn sent(
        &mut self,
        grid: &mut Grid,
        to: BoardAt,
        rank: u32,
        lowest: u8,
        bytes: u64,
        sent: &mut Sent,
    ) {
        sent.grown += grid.bytes() - bytes;
        sent.is_full |= grid.is_full;
        if lowest != ABSENT && !grid.is_touched {
            grid.is_touched = true;
            sent.touched.push(to);
        }
        if lowest <= self.width && !grid.is_queued {
            grid.is_queued = true;
            sent.queued.push((rank, to));
        }
    }

    fn step_by_hand(
        &mut self,
        numbers: [Number; 2],
        level: u8,
        actor: u8,
        rank: u32,
        sent: &mut Sent,
    ) {
        for axis in 0..2 {
            self.sit(axis, numbers[axis]);
        }
        let machine = self.search.machine;
        let state = self.source.unpack(&self.words);
        let actor = self.sections.actor(usize::from(actor));
        let mut choices = Vec::new();
        self.source.choices(&state, actor, &mut choices);
        for choice in choices {
            let mut after = state.clone();
            apply(machine, &mut after, Step { actor, choice });
            let mut shared = self.source.pack(&mut after);
            let numbers = [0, 1].map(|axis| {
                if axis < self.seated {
                    let own = self.sections.own::<N>(axis);
                    let number = self.numbers[axis].of(&shared[own.clone()]);
                    shared[own].fill(0);
                    number
                } else {
                    numbers[axis]
                }
            });
            let to = self.boards.find(&shared, rank + 1);
            let board = self.boards.get(to);
            let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
            let grid = &mut *grid;
            let bytes = grid.bytes();
            let seats = [0, 1].map(|axis| grid.seat(axis, numbers[axis]));
            let (lowest, new) = grid.relax(0, seats[0], &[(seats[1] as Seat, level)], |seat| seat);
            sent.new += new;
            self.sent(grid, to, board.rank, lowest, bytes, sent);
        }
    }
}
