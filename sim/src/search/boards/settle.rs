//! The end of a window: every state of it has its level, and is judged and counted.

use std::sync::PoisonError;

use dirtysim_model::layout::Layout;
use dirtysim_model::oracle::parts::{Claimed, Part};
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::step::{Actor, Effect, Step, apply};

use super::board::{Axis, BoardAt, Grid, LEAVE, Rank, STAY};
use super::numbers::Number;
use super::worker::Worker;
use crate::run::is_stuck;
use crate::search::memo::EntryAt;
use crate::sometimes::{Facts, Seen};

/// What the states of one level came to.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) states: u64,
    /// Transitions out of them.
    pub(super) transitions: u64,
    /// Claims broken in a state.
    pub(super) broken_at: Invariants,
    /// Claims broken by a step out of a state.
    pub(super) broken_after: Invariants,
    pub(super) seen: Seen,
    /// The facts that were added last.
    facts: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            states: 0,
            transitions: 0,
            broken_at: Invariants::NONE,
            broken_after: Invariants::NONE,
            seen: Seen::default(),
            facts: 0,
        }
    }
}

impl Level {
    /// Adds what is seen in a state.
    #[inline(always)]
    fn note(&mut self, facts: u64) {
        if facts != self.facts {
            self.facts = facts;
            self.seen.add(Facts::from_word(facts));
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.states += other.states;
        self.transitions += other.transitions;
        self.broken_at.union(other.broken_at);
        self.broken_after.union(other.broken_after);
        self.seen.union(other.seen);
    }
}

/// What actors contribute to a state, of those whose steps depend on the same.
#[derive(Clone, Copy)]
struct Account {
    part: Part,
    /// Facts of their steps, and those that they contribute to others'.
    steps: u64,
    facts: u64,
    transitions: u64,
}

impl Account {
    const NONE: Self = Self {
        part: Part::NEUTRAL,
        steps: 0,
        facts: 0,
        transitions: 0,
    };

    #[inline(always)]
    fn join(self, other: Self) -> Self {
        Self {
            part: self.part.join(other.part),
            steps: self.steps | other.steps,
            facts: self.facts | other.facts,
            transitions: self.transitions + other.transitions,
        }
    }
}

/// What the seats of a board contribute.
#[derive(Default)]
pub(super) struct Accounts {
    /// By axis and seat; none: in no state that is looked at.
    seats: [Vec<Option<Account>>; 2],
    /// Some step claims something.
    claim: bool,
}

impl Accounts {
    /// What the seats of a cell that is looked at contribute.
    #[inline(always)]
    fn join(&self, row: usize, column: usize) -> Account {
        let [row, column] = [self.seats[0][row], self.seats[1][column]];
        let none = Account::NONE;
        row.unwrap_or(none).join(column.unwrap_or(none))
    }
}

impl<L: Layout, const N: usize> Worker<'_, L, N> {
    /// Judges and counts a board's states of this window, and makes them those of an earlier one. Answers its
    /// rank and how many states it has of the next one's first level, if there are any.
    pub(super) fn settle(&mut self, at: BoardAt, levels: &mut [Level]) -> Option<(Rank, u64)> {
        let board = self.boards.get(at);
        let mut grid = board.grid.lock().unwrap_or_else(PoisonError::into_inner);
        let grid = &mut *grid;
        let width = self.width;
        self.begin(&board.shared, grid);
        self.account(grid, levels);
        let next_states = grid.advance(width);
        let goes_on = next_states > 0;
        let flags = if goes_on { STAY | LEAVE } else { 0 };
        for axis in &mut grid.axes {
            axis.flags.fill(flags);
        }
        grid.is_queued = goes_on;
        grid.is_touched = goes_on;
        goes_on.then_some((grid.rank, next_states))
    }

    fn account(&mut self, grid: &mut Grid, levels: &mut [Level]) {
        let mut cells = std::mem::take(&mut self.open);
        cells.clear();
        for row in 0..grid.axes[0].len() {
            grid.for_each_open(row, self.width, |column, level| {
                cells.push((row, column, level))
            });
        }
        if !cells.is_empty() {
            let mut accounts = std::mem::take(&mut self.accounts);
            self.account_of_seats(&mut grid.axes, &cells, &mut accounts);
            if self.is_uneven() || accounts.claim {
                for &(row, column, level) in &cells {
                    let level = &mut levels[usize::from(level) - 1];
                    self.account_of_cell(&mut grid.axes, [row, column], &accounts, level);
                }
            } else {
                for &(row, column, level) in &cells {
                    let account = accounts.join(row, column);
                    let level = &mut levels[usize::from(level) - 1];
                    let broken = account.part.verdict();
                    let numbers =
                        || [0, 1].map(|axis| grid.axes[axis].numbers()[[row, column][axis]]);
                    debug_assert_eq!(
                        broken,
                        self.broken_in(numbers()),
                        "the parts of a verdict are the verdict"
                    );
                    level.states += 1;
                    level.transitions += account.transitions;
                    level.broken_at.union(broken);
                    level.note(account.facts | account.steps);
                    if account.transitions == 0 {
                        self.look_if_stuck(numbers(), level);
                    }
                }
            }
            self.accounts = accounts;
        }
        self.open = cells;
    }

    /// What the seats of some cells contribute, the board's contribution with those of rows.
    fn account_of_seats(
        &mut self,
        axes: &mut [Axis; 2],
        cells: &[(usize, usize, u8)],
        accounts: &mut Accounts,
    ) {
        accounts.claim = false;
        for (seats, axis) in accounts.seats.iter_mut().zip(axes.iter()) {
            seats.clear();
            seats.resize(axis.len(), None);
        }
        let board = self.account_of_board(&mut accounts.claim);
        for &(row, column, _) in cells {
            if accounts.seats[0][row].is_none() {
                let own = self.account_of(axes, 0, row, &mut accounts.claim);
                accounts.seats[0][row] = Some(own.join(board));
            }
            if accounts.seats[1][column].is_none() {
                let own = self.account_of(axes, 1, column, &mut accounts.claim);
                accounts.seats[1][column] = Some(own);
            }
        }
    }

    /// Whether some actor's steps depend on more than one of board and seats.
    fn is_uneven(&self) -> bool {
        self.on_control() > 0 || !self.by_hand.is_empty()
    }

    /// What the VM-wide section contributes, and the actors whose steps depend on the board alone.
    fn account_of_board(&mut self, claim: &mut bool) -> Account {
        let vm = self.desk.memo.vm_entry::<L, N>(&self.source, &self.words);
        let mut account = Account::NONE;
        let (_, part, _, facts) = self.desk.memo.head(vm);
        account.part = part;
        account.facts = facts;
        for index in 0..self.board_entries.len() {
            let (_, entry) = self.board_entries[index];
            self.add(&mut account, entry, claim);
        }
        account
    }

    /// What the actors of a seat contribute.
    fn account_of(
        &mut self,
        axes: &mut [Axis; 2],
        axis: usize,
        seat: usize,
        claim: &mut bool,
    ) -> Account {
        self.meet(axes, axis, seat);
        let mut account = Account::NONE;
        for index in 0..self.entries(axis, seat).len() {
            let (_, entry) = self.entries(axis, seat)[index];
            self.add(&mut account, entry, claim);
        }
        account
    }

    fn add(&self, account: &mut Account, entry: EntryAt, claim: &mut bool) {
        let (first, part, steps, facts) = self.desk.memo.head(entry);
        *claim |= first.claimed().is_some();
        *account = account.join(Account {
            part,
            steps,
            facts,
            transitions: u64::from(first.count()),
        });
    }

    /// Judges and counts one state where what actors contribute is not the same for all of a seat, or they claim something.
    #[cold]
    fn account_of_cell(
        &mut self,
        axes: &mut [Axis; 2],
        seats: [usize; 2],
        accounts: &Accounts,
        level: &mut Level,
    ) {
        let Account {
            mut part,
            mut facts,
            ..
        } = accounts.join(seats[0], seats[1]);
        let numbers = [0, 1].map(|axis| axes[axis].numbers()[seats[axis]]);
        let mut actors = self.board_entries.clone();
        for (axis, seat) in seats.into_iter().enumerate() {
            actors.extend_from_slice(self.entries(axis, seat));
        }
        for index in 0..self.on_control() {
            let (actor, entry) = self.control_entry(axes, index, seats);
            let (_, its, _, context) = self.desk.memo.head(entry);
            part = part.join(its);
            facts |= context;
            actors.push((actor, entry));
        }
        let broken = part.verdict();
        debug_assert_eq!(
            broken,
            self.broken_in(numbers),
            "the parts of a verdict are the verdict"
        );
        level.broken_at.union(broken);
        let mut transitions = 0;
        for (actor, entry) in actors {
            let (first, _, steps, _) = self.desk.memo.head(entry);
            if first.is_by_hand() {
                transitions += self.account_by_hand(numbers, actor, &mut facts, level);
                continue;
            }
            facts |= steps;
            transitions += u64::from(first.count());
            if let Some(claimed) = first.claimed() {
                self.claim(numbers, actor, claimed, part, level);
            }
        }
        level.note(facts);
        level.states += 1;
        level.transitions += transitions;
        if transitions == 0 {
            self.look_if_stuck(numbers, level);
        }
    }

    /// The same for the steps of an actor that are taken by the transition function; how many there are.
    fn account_by_hand(
        &mut self,
        numbers: [Number; 2],
        actor: u8,
        facts: &mut u64,
        level: &mut Level,
    ) -> u64 {
        self.sit_both(numbers);
        let machine = self.search.machine;
        let state = self.source.unpack(&self.words);
        let actor = self.sections.actor(usize::from(actor));
        let mut choices = Vec::new();
        self.source.choices(&state, actor, &mut choices);
        for &choice in &choices {
            let step = Step { actor, choice };
            *facts |= Facts::of_step(machine, &state, step).to_word();
            let mut after = state.clone();
            let effect = apply(machine, &mut after, step);
            level
                .broken_after
                .union(oracle::check_effect(machine, &after, effect));
        }
        choices.len() as u64
    }

    /// Checks what an actor's steps claim, whatever the state after them.
    fn claim(
        &mut self,
        numbers: [Number; 2],
        actor: u8,
        claimed: Claimed,
        part: Part,
        level: &mut Level,
    ) {
        let broken = match self.sections.actor(usize::from(actor)) {
            Actor::Thread(thread) => claimed.verdict(part, usize::from(thread)),
            Actor::Vcpu(_) | Actor::Device(_) => Invariants::NONE,
        };
        debug_assert_eq!(
            broken,
            {
                let mut by_hand = Level::default();
                self.account_by_hand(numbers, actor, &mut 0, &mut by_hand);
                by_hand.broken_after
            },
            "what the memo says of a step's claims is what the oracle says"
        );
        level.broken_after.union(broken);
    }

    /// What is broken in a state, by the oracle.
    fn broken_in(&mut self, numbers: [Number; 2]) -> Invariants {
        self.sit_both(numbers);
        let state = self.source.unpack(&self.words);
        oracle::check(self.search.machine, &state, Effect::None)
    }

    #[cold]
    fn look_if_stuck(&mut self, numbers: [Number; 2], level: &mut Level) {
        self.sit_both(numbers);
        if is_stuck(self.search.machine, &self.source.unpack(&self.words)) {
            level.broken_at.insert(Invariant::MigrationMakesProgress);
        }
    }
}
