//! What one thread knows of the board in work: its actors, what they do next at each seat, and where that leads.

use dirtysim_model::state::layout::Layout;
use dirtysim_model::words::Reach;

use super::accounts::Accounts;
use super::board::{Axis, Boards, Grid, SEATED, Seat};
use super::numbers::{Number, Numbers};
use crate::search::engine::Search;
use crate::search::memo::{EntryAt, Memo, Successor};
use crate::search::sections::Sections;
use crate::search::source::Source;

/// What a thread keeps from board to board.
pub(super) struct Desk {
    pub(super) memo: Memo,
    /// By axis and number, the entries that were found last, the last of them first.
    hints: [Vec<[EntryAt; 2]>; 2],
    /// Whose it is, and the memo's generation.
    owner: (usize, u32),
}

impl Desk {
    /// Those of so many workers.
    pub(super) fn of_workers(workers: usize) -> impl Iterator<Item = Self> {
        let memos = Memo::of_workers(workers).enumerate();
        memos.map(|(owner, memo)| Self {
            memo,
            hints: Default::default(),
            owner: (owner, 0),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let hints: usize = self.hints.iter().map(Vec::capacity).sum();
        self.memo.bytes() + (hints * size_of::<[EntryAt; 2]>()) as u64
    }

    /// Forgets everything if there is too much of it.
    pub(super) fn make_room(&mut self) {
        let generation = self.memo.make_room();
        if generation != self.owner.1 {
            self.owner.1 = generation;
            self.hints = Default::default();
        }
    }
}

/// A step of an actor at a seat.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub(super) edge: u32,
    /// The section of the axis's vCPU after it.
    pub(super) number: Number,
}

/// The actors of a seat and their steps: where they begin and end among all, once they are known; the class of the vCPU's
/// control.
#[derive(Clone, Copy, Default)]
struct SeatInfo {
    entries: Option<(u32, u32)>,
    moves: Option<(u32, u32)>,
    class: u32,
}

/// Whose step changes each vCPU's section by itself, its entry, and seats where it is the entry.
pub(super) type Responder = (u8, EntryAt, [Seat; 2]);

/// A way off the board, or back onto it.
pub(super) struct Edge {
    /// The words of the board that it leads to, the seats' sections 0.
    pub(super) shared: Vec<u64>,
    /// Where the step changes each vCPU's section by itself.
    pub(super) responder: Option<Responder>,
    pub(super) ops: Vec<Op>,
}

/// The edge that leads back to the board.
pub(super) const STAYS: u32 = 0;

/// A cell that has a seat in common with others of a list: the other seat, and the level in the lowest 8 bits.
pub(super) type Cell = u32;

/// Cells to be moved along an edge.
#[derive(Clone, Copy)]
pub(super) struct Op {
    /// The axis on which all have the same seat, and that seat.
    pub(super) axis: u8,
    pub(super) seat: Seat,
    /// The number that stands there after the step; none: that of the seat.
    pub(super) number: Option<Number>,
    /// The cells: see [`Worker::cells`].
    pub(super) begin: u32,
    pub(super) end: u32,
}

/// An actor without a seat whose steps depend on the control of every vCPU.
struct OnControl {
    actor: u8,
    /// The axis of a vCPU on whose whole section they depend, and which they may change.
    axis: Option<usize>,
    /// By seat on that axis, or class on the first, then by class on the other, so many of which there is room for; 0: not
    /// known.
    entries: Vec<EntryAt>,
    classes: usize,
}

/// One thread's work; `N` is as in [`Sections`].
pub(super) struct Worker<'a, L: Layout, const N: usize> {
    pub(super) search: &'a Search<'a, L>,
    pub(super) source: Source<'a, L>,
    pub(super) sections: &'a Sections,
    pub(super) boards: &'a Boards,
    pub(super) numbers: &'a [Numbers; 2],
    pub(super) desk: &'a mut Desk,
    /// Levels of the window.
    pub(super) width: u8,
    /// The words of a state on the board; whose seats it is at changes.
    pub(super) words: Vec<u64>,
    after: Vec<u64>,
    seats: [Vec<SeatInfo>; 2],
    /// By axis, the actors whose steps depend on the section of its vCPU.
    axis_actors: [Vec<u8>; 2],
    /// Actors whose steps depend on the board alone.
    pub(super) board_entries: Vec<(u8, EntryAt)>,
    on_control: Vec<OnControl>,
    /// Actors whose steps are taken by the transition function.
    pub(super) by_hand: Vec<u8>,
    entries: Vec<(u8, EntryAt)>,
    moves: Vec<Move>,
    pub(super) edges: Vec<Edge>,
    pub(super) used_edges: usize,
    /// Lists of cells with one seat in common: the other seat, and the level.
    pub(super) cells: Vec<Cell>,
    /// What the seats of the cells that are judged contribute.
    pub(super) accounts: Accounts,
}

impl<'a, L: Layout, const N: usize> Worker<'a, L, N> {
    pub(super) fn new(
        search: &'a Search<'a, L>,
        boards: &'a Boards,
        numbers: &'a [Numbers; 2],
        desk: &'a mut Desk,
        width: u8,
    ) -> Self {
        Self {
            search,
            source: search.source(),
            sections: &search.sections,
            boards,
            numbers,
            desk,
            width,
            words: Vec::new(),
            after: Vec::new(),
            seats: Default::default(),
            axis_actors: Default::default(),
            board_entries: Vec::new(),
            on_control: Vec::new(),
            by_hand: Vec::new(),
            entries: Vec::new(),
            moves: Vec::new(),
            edges: Vec::new(),
            used_edges: 0,
            cells: Vec::new(),
            accounts: Accounts::default(),
        }
    }

    /// About what its lists take in memory, the desk apart.
    pub(super) fn bytes(&self) -> u64 {
        let edges = self.edges.iter();
        let ops: usize = edges.map(|edge| edge.ops.capacity()).sum();
        let seats: usize = self.seats.iter().map(Vec::capacity).sum();
        let bytes = ops * size_of::<Op>()
            + seats * size_of::<SeatInfo>()
            + self.entries.capacity() * size_of::<(u8, EntryAt)>()
            + self.moves.capacity() * size_of::<Move>()
            + self.cells.capacity() * size_of::<Cell>()
            + self.accounts.bytes();
        bytes as u64
    }

    /// Puts a board in work, with a state on it.
    pub(super) fn begin(&mut self, shared: &[u64], grid: &mut Grid) {
        self.desk.make_room();
        grid.read_by(self.desk.owner);
        let first = [0, 1].map(|axis| grid.axes[axis].numbers()[0]);
        self.words.clear();
        self.words.extend_from_slice(shared);
        self.sit_both(first);
        self.used_edges = 0;
        self.edge(shared, None);
        for axis in 0..2 {
            self.seats[axis].clear();
            self.axis_actors[axis].clear();
            self.axis_actors[axis].push(axis as u8);
        }
        self.board_entries.clear();
        self.on_control.clear();
        self.by_hand.clear();
        self.entries.clear();
        self.moves.clear();
        self.cells.clear();
        for actor in SEATED..self.sections.actors() {
            let (reach, vcpu) = self.sections.reach(&self.words, actor);
            match (reach, vcpu) {
                (Reach::IndexedVcpu, vcpu) if vcpu < SEATED => {
                    self.axis_actors[vcpu].push(actor as u8);
                }
                (Reach::Control | Reach::Gate | Reach::IndexedOnControl, vcpu) => {
                    let indexed = reach == Reach::IndexedOnControl && vcpu < SEATED;
                    self.on_control.push(OnControl {
                        actor: actor as u8,
                        axis: indexed.then_some(vcpu),
                        entries: Vec::new(),
                        classes: 0,
                    });
                }
                _ => {
                    let entry = self.desk.memo.entry(&self.source, &self.words, actor);
                    let first = self.desk.memo.first(entry);
                    self.board_entries.push((actor as u8, entry));
                    if first.is_by_hand() {
                        self.by_hand.push(actor as u8);
                    }
                }
            }
        }
    }

    /// Seats a vCPU in the state in work.
    #[inline(always)]
    pub(super) fn sit(&mut self, axis: usize, number: Number) {
        let own = self.sections.own::<N>(axis);
        self.words[own].copy_from_slice(self.numbers[axis].get(number));
    }

    /// Seats both.
    pub(super) fn sit_both(&mut self, numbers: [Number; 2]) {
        for (axis, number) in numbers.into_iter().enumerate() {
            self.sit(axis, number);
        }
    }

    /// Learns what the actors of a seat are about to do.
    #[inline(always)]
    pub(super) fn meet(&mut self, axes: &mut [Axis; 2], axis: usize, seat: usize) {
        if self.seats[axis].len() <= seat {
            self.seats[axis].resize(seat + 1, SeatInfo::default());
        }
        if self.seats[axis][seat].entries.is_none() {
            self.find_entries(&mut axes[axis], axis, seat);
        }
    }

    fn find_entries(&mut self, seats: &mut Axis, axis: usize, seat: usize) {
        let number = seats.numbers()[seat];
        let begin = self.entries.len() as u32;
        let actors = self.axis_actors[axis].len();
        let known = seat * actors;
        if seats.entries.len() < known + actors {
            seats.make_room_for_entries(actors);
        }
        for index in 0..actors {
            let actor = self.axis_actors[axis][index];
            let mut entry = seats.entries[known + index];
            if entry == 0 {
                self.sit(axis, number);
                entry = self.entry(axis, number, usize::from(actor));
                seats.entries[known + index] = entry;
            }
            self.entries.push((actor, entry));
        }
        self.seats[axis][seat] = SeatInfo {
            entries: Some((begin, self.entries.len() as u32)),
            moves: None,
            class: if self.on_control.is_empty() {
                0
            } else {
                self.numbers[axis].control(number)
            },
        };
    }

    /// The entry of an actor whose steps depend on a vCPU that is seated.
    fn entry(&mut self, axis: usize, number: Number, actor: usize) -> EntryAt {
        let memo = &mut self.desk.memo;
        if actor != axis {
            return memo.entry(&self.source, &self.words, actor);
        }
        let hints = &mut self.desk.hints[axis];
        if hints.len() <= number as usize {
            hints.resize(number as usize + 1, [0; 2]);
        }
        let [last, other] = hints[number as usize];
        let entry = memo.entry_of::<L, N>(&self.source, &self.words, axis, [last, other]);
        if entry != last {
            hints[number as usize] = [entry, last];
        }
        entry
    }

    /// The actors whose steps depend on the vCPU at a seat that was met, and their entries.
    pub(super) fn entries(&self, axis: usize, seat: usize) -> &[(u8, EntryAt)] {
        let (begin, end) = self.seats[axis][seat].entries.unwrap_or_default();
        &self.entries[begin as usize..end as usize]
    }

    /// Where the steps of a seat are among all, once it was met.
    #[inline(always)]
    pub(super) fn moves(
        &mut self,
        axis: usize,
        seat: usize,
        number: Number,
    ) -> std::ops::Range<usize> {
        let (begin, end) = match self.seats[axis][seat].moves {
            Some(moves) => moves,
            None => self.find_moves(axis, seat, number),
        };
        begin as usize..end as usize
    }

    #[inline(always)]
    pub(super) fn a_move(&self, at: usize) -> Move {
        self.moves[at]
    }

    fn find_moves(&mut self, axis: usize, seat: usize, number: Number) -> (u32, u32) {
        self.sit(axis, number);
        let begin = self.moves.len() as u32;
        let (first, last) = self.seats[axis][seat].entries.unwrap_or_default();
        for at in first..last {
            let (actor, entry) = self.entries[at as usize];
            for successor in self.successors(actor, entry) {
                let (edge, number) = self.follow(successor, axis);
                self.moves.push(Move { edge, number });
            }
        }
        let moves = (begin, self.moves.len() as u32);
        self.seats[axis][seat].moves = Some(moves);
        moves
    }

    /// The edge that a successor of the state in work takes, and the number of the section of an axis's vCPU after it.
    #[inline(always)]
    fn follow(&mut self, successor: Successor, axis: usize) -> (u32, Number) {
        self.step_to(successor, None);
        let number = match self.desk.memo.number(successor) {
            0 => {
                let section = &self.after[self.sections.own::<N>(axis)];
                let number = self.numbers[axis].of(section);
                self.desk.memo.set_number(successor, number + 1);
                number
            }
            known => known - 1,
        };
        (self.edge_to_after(None), number)
    }

    /// Puts the state after a step in work. Where the step changes each vCPU's section by itself, it is told whose step that
    /// is.
    #[inline(always)]
    fn step_to(&mut self, successor: Successor, responder: Option<Responder>) {
        self.after.clear();
        self.after.extend_from_slice(&self.words);
        let memo = &mut self.desk.memo;
        memo.write::<N>(self.sections, successor, &mut self.after);
        if let Some((actor, entry, _)) = responder {
            let actor = usize::from(actor);
            for vcpu in 0..self.sections.vcpus() {
                let (_, section) =
                    memo.response::<L, N>(&self.source, &self.words, actor, entry, vcpu);
                self.after[self.sections.own::<N>(vcpu)].copy_from_slice(section);
            }
        }
        debug_assert!(
            self.source
                .is_successor(&self.words, usize::from(successor.actor), &self.after),
            "a successor from the memo is one of the transition function"
        );
    }

    /// The edge to the board of the state after a step.
    #[inline(always)]
    fn edge_to_after(&mut self, responder: Option<Responder>) -> u32 {
        let mut after = std::mem::take(&mut self.after);
        for axis in 0..SEATED {
            after[self.sections.own::<N>(axis)].fill(0);
        }
        let edge = self.edge(&after, responder);
        self.after = after;
        edge
    }

    /// The edge to the board of these words.
    #[inline(always)]
    fn edge(&mut self, shared: &[u64], responder: Option<Responder>) -> u32 {
        let len = if N > 0 { N } else { shared.len() };
        let known = self.edges[..self.used_edges].iter().position(|edge| {
            edge.shared[..len] == shared[..len]
                && edge.responder.map(|(.., entry, _)| entry)
                    == responder.map(|(.., entry, _)| entry)
        });
        if let Some(edge) = known {
            return edge as u32;
        }
        let edge = self.used_edges;
        if edge == self.edges.len() {
            self.edges.push(Edge {
                shared: Vec::new(),
                responder: None,
                ops: Vec::new(),
            });
        }
        self.used_edges += 1;
        let new = &mut self.edges[edge];
        new.shared.clear();
        new.shared.extend_from_slice(shared);
        new.responder = responder;
        new.ops.clear();
        edge as u32
    }

    /// The edges that the steps of an actor without a seat take from the state in work; `seats` are where it is.
    pub(super) fn edges_of(
        &mut self,
        actor: u8,
        entry: EntryAt,
        seats: [Seat; 2],
        edges: &mut Vec<u32>,
    ) {
        let each = self.desk.memo.first(entry).changes_each_vcpu();
        let responder = each.then_some((actor, entry, seats));
        for successor in self.successors(actor, entry) {
            self.step_to(successor, responder);
            edges.push(self.edge_to_after(responder));
        }
    }

    /// The same for one of the actors that depend on control; and the number of the section after the step at the seat of the
    /// vCPU on whose whole section it depends.
    pub(super) fn edges_on_control(
        &mut self,
        index: usize,
        entry: EntryAt,
        seats: [usize; 2],
        edges: &mut Vec<(u32, Option<Number>)>,
    ) {
        let OnControl { actor, axis, .. } = self.on_control[index];
        match axis {
            Some(axis) => {
                for successor in self.successors(actor, entry) {
                    let (edge, number) = self.follow(successor, axis);
                    edges.push((edge, Some(number)));
                }
            }
            None => {
                let mut all = Vec::new();
                self.edges_of(actor, entry, seats.map(|seat| seat as Seat), &mut all);
                edges.extend(all.into_iter().map(|edge| (edge, None)));
            }
        }
    }

    /// The successors of an entry.
    #[inline(always)]
    fn successors(&self, actor: u8, entry: EntryAt) -> impl Iterator<Item = Successor> + use<L, N> {
        let memo = &self.desk.memo;
        memo.successors::<N>(self.sections, usize::from(actor), entry)
    }

    /// What a step that changes each vCPU's section makes of the one at a seat of the state in work.
    pub(super) fn response(&mut self, actor: u8, entry: EntryAt, axis: usize) -> Number {
        let numbers = &self.numbers[axis];
        self.desk.memo.response_number::<L, N>(
            &self.source,
            &self.words,
            usize::from(actor),
            entry,
            axis,
            |section| numbers.of(section),
        )
    }

    /// Actors whose steps depend on each vCPU's control.
    pub(super) fn on_control(&self) -> usize {
        self.on_control.len()
    }

    /// The axis of a vCPU on whose whole section one of them depends.
    pub(super) fn control_axis(&self, index: usize) -> Option<usize> {
        self.on_control[index].axis
    }

    /// The class of control at a seat that was met.
    pub(super) fn class(&self, axis: usize, seat: usize) -> u32 {
        self.seats[axis][seat].class
    }

    /// One of the actors that depend on control, and its entry where the vCPUs are at two seats that were met.
    #[inline(always)]
    pub(super) fn control_entry(
        &mut self,
        axes: &[Axis; 2],
        index: usize,
        seats: [usize; 2],
    ) -> (u8, EntryAt) {
        let on = &self.on_control[index];
        let (first, second) = match on.axis {
            Some(axis) => (seats[axis], self.class(1 - axis, seats[1 - axis])),
            None => (self.class(0, seats[0]) as usize, self.class(1, seats[1])),
        };
        let second = second as usize;
        let known = on.entries.get(first * on.classes + second);
        match known {
            Some(&entry) if entry != 0 && second < on.classes => (on.actor, entry),
            _ => self.find_control_entry(axes, index, seats, [first, second]),
        }
    }

    #[inline(never)]
    fn find_control_entry(
        &mut self,
        axes: &[Axis; 2],
        index: usize,
        seats: [usize; 2],
        [first, second]: [usize; 2],
    ) -> (u8, EntryAt) {
        self.sit_both([0, 1].map(|axis| axes[axis].numbers()[seats[axis]]));
        let on = &mut self.on_control[index];
        let actor = on.actor;
        let memo = &mut self.desk.memo;
        let entry = memo.entry(&self.source, &self.words, usize::from(actor));
        if on.classes <= second {
            on.classes = (second + 1).next_power_of_two();
            on.entries.clear();
        }
        let at = first * on.classes + second;
        if on.entries.len() <= at {
            on.entries.resize((first + 1) * on.classes, 0);
        }
        on.entries[at] = entry;
        (actor, entry)
    }
}
