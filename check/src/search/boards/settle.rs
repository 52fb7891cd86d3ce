//! The end of a window: every state of it has its level, and is judged and counted.

use std::sync::PoisonError;

use dirtysim_model::oracle::parts::{Claimed, Part};
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Effect, Step, apply};

use super::accounts::{Account, Accounts};
use super::board::{Axis, BoardAt, Grid, LEAVE, Rank, STAY};
use super::numbers::Number;
use super::worker::Worker;
use crate::run::breaks_progress;
use crate::search::memo::{EntryAt, First};
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
    /// By what they hash to, facts that were added last.
    noted: [u64; NOTED],
}

/// Facts that a level remembers, a power of two.
const NOTED: usize = 8;

impl Default for Level {
    fn default() -> Self {
        Self {
            states: 0,
            transitions: 0,
            broken_at: Invariants::NONE,
            broken_after: Invariants::NONE,
            seen: Seen::default(),
            noted: [0; NOTED],
        }
    }
}

impl Level {
    /// Adds what is seen in a state.
    #[inline(always)]
    fn note(&mut self, facts: u64) {
        let hash = facts.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - NOTED.ilog2());
        let noted = &mut self.noted[hash as usize];
        if *noted != facts {
            *noted = facts;
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
        let mut accounts = std::mem::take(&mut self.accounts);
        accounts.begin(grid, self.width);
        self.account_of_seats(&mut grid.axes, &mut accounts);
        let careful = accounts.claim || !self.by_hand.is_empty();
        let is_uneven = self.on_control() > 0;
        for row in 0..grid.axes[0].len() {
            if accounts.open[0][row] == 0 {
                continue;
            }
            if !careful && !is_uneven {
                let [rows, columns] = &accounts.seats;
                let tally = Tally {
                    levels,
                    ends: &mut accounts.ends,
                };
                tally_row(grid, self.width, row, rows[row], columns, tally);
                continue;
            }
            grid.for_each_open(row, self.width, |column, at| {
                let seats = [row, column];
                let (account, is_special) = self.join(&grid.axes, seats, &accounts);
                if careful || is_special {
                    accounts.special.push((seats, at));
                } else {
                    let ends = &mut accounts.ends;
                    Tally { levels, ends }.add(seats, at, account);
                }
            });
        }
        if cfg!(debug_assertions) {
            for (seats, _) in self.open_cells(grid) {
                assert_eq!(
                    self.join(&grid.axes, seats, &accounts).0.part.verdict(),
                    self.broken_in(numbers(&grid.axes, seats)),
                    "the parts of a verdict are the verdict"
                );
            }
        }
        for &(seats, level) in &accounts.ends {
            let numbers = numbers(&grid.axes, seats);
            self.look_if_stuck(numbers, &mut levels[usize::from(level) - 1]);
        }
        for &(seats, level) in &accounts.special {
            let level = &mut levels[usize::from(level) - 1];
            self.account_of_special(&grid.axes, seats, &accounts, level);
        }
        self.accounts = accounts;
    }

    /// The states that are looked at, with their levels.
    fn open_cells(&self, grid: &Grid) -> Vec<([usize; 2], u8)> {
        let mut cells = Vec::new();
        for row in 0..grid.axes[0].len() {
            grid.for_each_open(row, self.width, |column, level| {
                cells.push(([row, column], level));
            });
        }
        cells
    }

    /// What all actors contribute to a state that is looked at; and whether an actor that depends on control claims something,
    /// or takes steps by the transition function.
    #[inline(always)]
    fn join(
        &mut self,
        axes: &[Axis; 2],
        seats: [usize; 2],
        accounts: &Accounts,
    ) -> (Account, bool) {
        let [row, column] = seats;
        let mut account = accounts.seats[0][row].join(accounts.seats[1][column]);
        let mut is_special = false;
        for index in 0..self.on_control() {
            let (_, entry) = self.control_entry(axes, index, seats);
            let first = self.add(&mut account, entry);
            is_special |= first.is_by_hand() || first.claimed().is_some();
        }
        (account, is_special)
    }

    /// What the seats of the states that are looked at contribute, the board's contribution with those of rows.
    fn account_of_seats(&mut self, axes: &mut [Axis; 2], accounts: &mut Accounts) {
        let board = self.account_of_board(&mut accounts.claim);
        for axis in 0..2 {
            for seat in 0..axes[axis].len() {
                if accounts.open[axis][seat] != 0 {
                    let own = self.account_of(axes, axis, seat, &mut accounts.claim);
                    let with = if axis == 0 { board } else { Account::NONE };
                    accounts.seats[axis][seat] = own.join(with);
                }
            }
        }
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
            *claim |= self.add(&mut account, entry).claimed().is_some();
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
            *claim |= self.add(&mut account, entry).claimed().is_some();
        }
        account
    }

    #[inline(always)]
    fn add(&self, account: &mut Account, entry: EntryAt) -> First {
        let (first, part, steps, context) = self.desk.memo.head(entry);
        *account = account.join(Account {
            part,
            facts: steps | context,
            transitions: u64::from(first.count()),
        });
        first
    }

    /// Judges and counts one state where actors claim something, or take steps by the transition function.
    fn account_of_special(
        &mut self,
        axes: &[Axis; 2],
        seats: [usize; 2],
        accounts: &Accounts,
        level: &mut Level,
    ) {
        let Account {
            part,
            mut facts,
            mut transitions,
        } = self.join(axes, seats, accounts).0;
        let numbers = numbers(axes, seats);
        let broken = part.verdict();
        level.broken_at.union(broken);
        let mut actors = self.board_entries.clone();
        for (axis, seat) in seats.into_iter().enumerate() {
            actors.extend_from_slice(self.entries(axis, seat));
        }
        for index in 0..self.on_control() {
            actors.push(self.control_entry(axes, index, seats));
        }
        for (actor, entry) in actors {
            let first = self.desk.memo.first(entry);
            if first.is_by_hand() {
                transitions += self.account_by_hand(numbers, actor, &mut facts, level);
            } else if let Some(claimed) = first.claimed() {
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
        if breaks_progress(self.search.machine, &self.source.unpack(&self.words)) {
            level.broken_at.insert(Invariant::MigrationMakesProgress);
        }
    }
}

/// Where states are counted.
struct Tally<'t> {
    levels: &'t mut [Level],
    /// See [`Accounts`].
    ends: &'t mut Vec<([usize; 2], u8)>,
}

impl Tally<'_> {
    /// Judges and counts a state of which the account says all.
    #[inline(always)]
    fn add(&mut self, seats: [usize; 2], at: u8, account: Account) {
        let level = &mut self.levels[usize::from(at) - 1];
        level.states += 1;
        level.transitions += account.transitions;
        level.broken_at.union(account.part.verdict());
        level.note(account.facts);
        if account.transitions == 0 {
            self.ends.push((seats, at));
        }
    }
}

/// Judges and counts the states of a row whose seats' accounts say all. Not inlined, so that the compiler knows what is apart.
#[inline(never)]
fn tally_row(
    grid: &Grid,
    width: u8,
    row: usize,
    of_row: Account,
    columns: &[Account],
    mut tally: Tally<'_>,
) {
    grid.for_each_open(row, width, |column, at| {
        tally.add([row, column], at, of_row.join(columns[column]));
    });
}

/// The numbers of the sections at a state's seats.
fn numbers(axes: &[Axis; 2], seats: [usize; 2]) -> [Number; 2] {
    [0, 1].map(|axis| axes[axis].numbers()[seats[axis]])
}
