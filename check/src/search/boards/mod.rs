//! The search that leaves nothing out: states that have much in common are moved in common.
//!
//! Many states differ only in what one vCPU does, but of those only a few are on the same level. So levels are not taken one
//! by one. A *window* of levels is taken at once: boards are visited in the order of their
//! ranks, each with all states of the window that have come to it, and what a vCPU does next at a seat is looked up once
//! for all the states that have the seat in common. Each state remembers the least number of steps that lead to it, as
//! far as it is known; where a shorter way is found later, its board is visited again. When nothing changes any more, the
//! levels of the window are those of a search that is breadth first, and are judged, counted and reported in their order.

mod accounts;
mod board;
mod columns;
mod numbers;
mod queue;
mod settle;
mod visit;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dirtysim_model::state::layout::Layout;

use self::board::{BoardAt, Boards, Rank, SEATED};
use self::numbers::Numbers;
use self::queue::Queue;
use self::settle::Level;
use self::visit::{Scratch, Sent};
use self::worker::{Desk, Worker};
use super::engine::{Found, Passed, Search, choices};
use super::estimate::Estimator;
use super::{Limit, Progress, memory};
use crate::run::hit;

/// Levels of the first window, and of any at least.
const LEAST_WIDTH: usize = 16;
/// Those of any at most: cells have room for so many.
const MOST_WIDTH: usize = 126;
/// A window is to have about so many states; or half as many more as are known. What lies beyond a violation is not much
/// then, and whoever waits for word of the levels gets it.
const WINDOW_STATES: u64 = 4 << 20;

/// The most choices of vCPUs and devices in one state: where there are more, the levels of the least window have more states
/// together than a limit could be kept within.
const MOST_CHOICES: usize = 32;

/// Fewer boards are not worth waking threads for.
const PARALLEL_BOARDS: usize = 64;
/// So many boards are visited before limits are looked at again; and by one thread alone.
const BOARDS_AT_ONCE: usize = 1 << 11;
const BOARDS_ALONE: usize = 1 << 6;
/// The system is asked for room whenever a search has grown by so much.
const ROOM_BYTES: u64 = 64 << 20;
/// What the allocator keeps for each thread besides the first, of what grids gave back when they grew: measured, with a limit
/// of 128 MiB. Under a small limit, or with many threads, it is no more than an eighth of the limit.
const KEPT_BYTES: u64 = 4 << 20;

/// A search in work.
struct Run<'a, L: Layout> {
    search: &'a Search<'a, L>,
    boards: Boards,
    numbers: [Numbers; 2],
    desks: Vec<Mutex<Desk>>,
    /// Boards to be visited.
    queue: Queue,
    /// Boards that have states of the window or of the next one.
    touched: Vec<BoardAt>,
    /// By board, the worker that visited it last, whose memo has its entries.
    visitors: Vec<u8>,
    /// States so far, as far as their boards were visited.
    states: u64,
    grid_bytes: u64,
    /// The most that workers' lists took.
    list_bytes: u64,
    /// What everything took when the system was asked last whether it has room.
    asked_bytes: u64,
    is_full: bool,
}

/// Whether a search is made board by board: nothing is left out, the transition function keeps to what is said of it, and
/// boards have two vCPUs to seat.
pub(super) fn suits<L: Layout>(search: &Search<'_, L>) -> bool {
    search.symmetry.classes().is_empty()
        && !search.symmetry.exchanges_vcpus()
        && search.rules.iter().next().is_none()
        && search.machine.mutations().is_empty()
        && search.sections.vcpus() >= SEATED
        && choices(search.machine) <= MOST_CHOICES
}

/// Searches for the verdict.
pub(super) fn pass<L: Layout>(search: &Search<'_, L>, keep_going: bool) -> Passed {
    let mut run = Run::new(search);
    let mut passed = Passed::begin(0);
    let mut estimator = Estimator::default();
    // Levels that are finished, and how many states the next one has.
    let mut base = 0;
    let mut frontier = 1;
    loop {
        let width = if search.limits.counts_states() {
            LEAST_WIDTH
        } else {
            let levels = estimator.levels_with(WINDOW_STATES.max(passed.states / 2));
            levels.unwrap_or(0).clamp(LEAST_WIDTH, MOST_WIDTH)
        } as u8;
        let limit = run.window(width, base, frontier, &mut passed);
        if run.is_full {
            // States may have been taken for others: nothing is to be judged.
            passed.limit = limit.or(Some(Limit::Memory));
            return passed;
        }
        let (levels, next) = run.settle(width);
        passed.peak_bytes = passed.peak_bytes.max(run.bytes());
        for (index, level) in levels.iter().enumerate() {
            passed.seen.union(level.seen);
            passed.transitions += level.transitions;
            passed.broken.union(level.broken_at);
            passed.broken.union(level.broken_after);
            passed.depth = base + index as u32;
            if passed.found.is_none() {
                let at = hit(level.broken_at, search.target).map(|found| (found, passed.depth));
                let after = hit(level.broken_after, search.target);
                let after = after.map(|found| (found, passed.depth + 1));
                passed.found = at
                    .or(after)
                    .map(|(invariant, depth)| Found { invariant, depth });
            }
            // The states of the next level are known as well.
            let ahead = levels.get(index + 1).map_or(next, |level| level.states);
            let too_many = ahead > 0 && search.limits.are_too_many(passed.states + ahead);
            if limit.is_none() && too_many {
                passed.limit = Some(Limit::States);
                return passed;
            }
            passed.states += ahead;
            if limit.is_some() {
                continue;
            }
            if (passed.found.is_some() && !keep_going) || ahead == 0 {
                return passed;
            }
            passed.depth += 1;
            estimator.level(passed.depth, ahead);
            if search.limits.are_enough(passed.states) {
                passed.limit = Some(Limit::States);
                return passed;
            }
            let progress = Progress {
                states: passed.states,
                frontier: ahead,
                depth: passed.depth,
                // All that the window took is for all of its states.
                bytes: share(passed.peak_bytes, passed.states, run.states),
            };
            passed.limit = search.limits.is_over(Duration::ZERO, &progress);
            if passed.limit.is_some() {
                return passed;
            }
        }
        if limit.is_some() {
            // Where a state of the window is nearer than was found, nobody knows.
            passed.limit = limit;
            passed.depth = base;
            return passed;
        }
        base += u32::from(width);
        frontier = next;
    }
}

impl<'a, L: Layout> Run<'a, L> {
    fn new(search: &'a Search<'a, L>) -> Self {
        let mut run = Self {
            search,
            boards: Boards::new(),
            numbers: [(); 2].map(|()| Numbers::new(search.sections.control())),
            desks: Desk::of_workers(rayon::current_num_threads())
                .map(Mutex::new)
                .collect(),
            queue: Queue::default(),
            touched: Vec::new(),
            visitors: Vec::new(),
            states: 0,
            grid_bytes: 0,
            list_bytes: 0,
            asked_bytes: 0,
            is_full: false,
        };
        let sections = &search.sections;
        let mut shared = search.source().pack(&mut search.start.clone());
        let numbers = [0, 1].map(|axis| {
            let own = sections.own::<0>(axis);
            let number = run.numbers[axis].of(&shared[own.clone()]);
            shared[own].fill(0);
            number
        });
        let at = run.boards.find(sections, &shared);
        if let Ok(mut grid) = run.boards.get(at).grid.lock() {
            grid.begin(numbers);
        }
        run.touched.push(at);
        run.queue.push(Rank::of(sections, &shared), at);
        run
    }

    fn bytes(&self) -> u64 {
        let desks = self.desks.iter().map(|desk| {
            let desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            desk.bytes()
        });
        let numbers: u64 = self.numbers.iter().map(Numbers::bytes).sum();
        let kept = (self.desks.len() as u64 - 1) * KEPT_BYTES;
        let kept = kept.min(self.search.limits.bytes() / 8);
        self.grid_bytes
            + self.list_bytes
            + kept
            + self.boards.bytes()
            + numbers
            + desks.sum::<u64>()
            + self.queue.bytes()
            + (self.touched.capacity() * size_of::<BoardAt>() + self.visitors.capacity()) as u64
    }

    /// Visits boards until no state of the window is left that has not taken its steps; or a limit comes first.
    fn window(
        &mut self,
        width: u8,
        base: u32,
        frontier: u64,
        passed: &mut Passed,
    ) -> Option<Limit> {
        while !self.queue.is_empty() {
            let bytes = self.bytes();
            passed.peak_bytes = passed.peak_bytes.max(bytes);
            if let Some(limit) = self.limit_reached(bytes, base, frontier) {
                return Some(limit);
            }
            let alone = self.boards.len() < PARALLEL_BOARDS;
            let visits = if alone { BOARDS_ALONE } else { BOARDS_AT_ONCE };
            let room = self.search.limits.bytes().saturating_sub(bytes);
            self.queue.begin(visits, room.min(ROOM_BYTES));
            let all = self.work(width, alone, Task::Visit);
            self.note_lists(&all);
            for (worker, done) in all.into_iter().enumerate() {
                let Done { sent, visited, .. } = done;
                self.visitors.resize(self.boards.len(), 0);
                for at in visited {
                    self.visitors[at as usize] = worker as u8;
                }
                self.touched.extend(sent.touched);
                self.states += sent.new;
                self.grid_bytes = self.grid_bytes.saturating_add_signed(sent.grown);
                self.is_full |= sent.is_full;
            }
        }
        None
    }

    fn limit_reached(&mut self, bytes: u64, base: u32, frontier: u64) -> Option<Limit> {
        if self.is_full {
            return Some(Limit::Memory);
        }
        if bytes > self.asked_bytes + ROOM_BYTES {
            self.asked_bytes = bytes;
            if !memory::has_room_for(2 * ROOM_BYTES) {
                return Some(Limit::Memory);
            }
        }
        self.search.limits.reached(&Progress {
            states: self.states,
            frontier,
            depth: base,
            bytes,
        })
    }

    /// Settles the boards that have states of the window: what its levels came to, and how many states the level after
    /// them has.
    fn settle(&mut self, width: u8) -> (Vec<Level>, u64) {
        let touched = std::mem::take(&mut self.touched);
        let mut levels = vec![Level::default(); usize::from(width)];
        let mut next = 0;
        let alone = touched.len() < PARALLEL_BOARDS;
        let taken: Vec<_> = self.desks.iter().map(|_| AtomicUsize::new(0)).collect();
        let list = List {
            all: &touched,
            visitors: &self.visitors,
            taken: &taken[..if alone { 1 } else { taken.len() }],
        };
        let all = self.work(width, alone, Task::Settle(list));
        self.note_lists(&all);
        for done in all {
            for (level, its) in levels.iter_mut().zip(&done.levels) {
                level.join(its);
            }
            for (rank, at, states) in done.unsettled {
                next += states;
                self.touched.push(at);
                self.queue.push(rank, at);
            }
        }
        (levels, next)
    }

    fn note_lists(&mut self, all: &[Done]) {
        let bytes = all.iter().map(|done| done.list_bytes).sum();
        self.list_bytes = self.list_bytes.max(bytes);
    }

    /// Does something on all threads, or on one; what each of them did.
    fn work(&self, width: u8, alone: bool, task: Task<'_>) -> Vec<Done> {
        // The numbers of vCPUs and threads that scenarios have most often.
        let one = |index: usize| match self.search.sections.words() {
            Some(3) => self.work_as::<3>(index, width, task),
            Some(4) => self.work_as::<4>(index, width, task),
            Some(5) => self.work_as::<5>(index, width, task),
            _ => self.work_as::<0>(index, width, task),
        };
        if alone || self.desks.len() == 1 {
            vec![one(0)]
        } else {
            rayon::broadcast(|worker| one(worker.index()))
        }
    }

    /// One worker's part of that.
    fn work_as<const N: usize>(&self, index: usize, width: u8, task: Task<'_>) -> Done {
        // A desk is one worker's; a poisoned lock means that it panicked, which has ended the search already.
        let mut desk = self.desks[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut worker =
            Worker::<L, N>::new(self.search, &self.boards, &self.numbers, &mut desk, width);
        let mut done = Done::default();
        match task {
            Task::Visit => {
                let _guard = self.queue.guard();
                let mut scratch = Scratch::default();
                let mut next = self.queue.take();
                while let Some((rank, at)) = next {
                    let before = done.sent.grown;
                    worker.visit(at, rank, &mut scratch, &mut done.sent);
                    worker.leave(rank, &mut scratch, &mut done.sent);
                    done.visited.push(at);
                    let bytes = done.sent.grown - before;
                    next = self.queue.take_after(bytes, &mut done.sent.queued);
                }
                done.list_bytes = worker.bytes() + scratch.bytes();
            }
            Task::Settle(list) => {
                done.levels = vec![Level::default(); usize::from(width)];
                for at in list.of(index) {
                    if let Some((rank, states)) = worker.settle(at, &mut done.levels) {
                        done.unsettled.push((rank, at, states));
                    }
                }
                done.list_bytes = worker.bytes();
            }
        }
        done
    }
}

/// The part of some bytes that is for so many of all states.
fn share(bytes: u64, states: u64, all: u64) -> u64 {
    (u128::from(bytes) * u128::from(states) / u128::from(all.max(states).max(1))) as u64
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Task<'l> {
    /// Boards that are queued are visited.
    Visit,
    Settle(List<'l>),
}

/// What a worker did.
#[derive(Default)]
struct Done {
    sent: Sent,
    /// The boards that it visited.
    visited: Vec<BoardAt>,
    /// What its lists took in memory.
    list_bytes: u64,
    /// What the levels of the window came to.
    levels: Vec<Level>,
    /// Boards that have states of the next window, and how many of its first level.
    unsettled: Vec<(Rank, BoardAt, u64)>,
}

/// Boards that several threads take from: each first those that it visited last, whose entries are in its memo; then what
/// is left of the others'.
#[derive(Clone, Copy)]
struct List<'l> {
    all: &'l [BoardAt],
    visitors: &'l [u8],
    /// By worker, how many of the list were looked at for it.
    taken: &'l [AtomicUsize],
}

impl<'l> List<'l> {
    /// What a worker takes.
    fn of(self, worker: usize) -> impl Iterator<Item = BoardAt> + use<'l> {
        let workers = self.taken.len();
        let turns = (0..workers).map(move |turn| (worker + turn) % workers);
        turns.flat_map(move |whose| {
            let all = std::iter::from_fn(move || {
                self.all
                    .get(self.taken[whose].fetch_add(1, Relaxed))
                    .copied()
            });
            // Nobody visited what only a limit kept from it.
            let visitor = move |at: BoardAt| {
                usize::from(self.visitors.get(at as usize).copied().unwrap_or(0)) % workers
            };
            all.filter(move |&at| visitor(at) == whose)
        })
    }
}

#[cfg(test)]
mod tests {
    use dirtysim_model::state::State;

    use super::super::levels::{Pass, pass as by_levels};
    use super::super::{Options, Reductions};
    use super::*;
    use crate::ladder::{Packed, on_packed};
    use crate::run::target;
    use crate::scenario::{Scenario, builtins};

    /// Compares what both searches come to within so many states; whether the scenario can be searched by boards.
    fn compare(scenario: &Scenario, max_states: u64, keep_going: bool) -> bool {
        let start = Packed::start(scenario).expect("a scenario to search");
        on_packed!(start, |start| compare_from(
            scenario, &start, max_states, keep_going
        ))
    }

    fn compare_from<L: Layout>(
        scenario: &Scenario,
        start: &State<L>,
        max_states: u64,
        keep_going: bool,
    ) -> bool {
        let options = Options {
            reductions: Reductions::NONE,
            max_states: Some(max_states),
            ..Options::default()
        };
        let target = target(scenario);
        let search = Search::new(&scenario.machine, start, target, &options, &|_| true);
        if !suits(&search) {
            return false;
        }
        let levels = by_levels(&search, Pass::Verdict { keep_going });
        let boards = pass(&search, keep_going);
        let facts = |passed: &Passed| {
            (
                (passed.limit, passed.found, passed.broken, passed.seen),
                (passed.states, passed.transitions, passed.depth),
            )
        };
        assert_eq!(facts(&boards), facts(&levels), "{}", scenario.name);
        true
    }

    #[test]
    fn bytes_are_shared_out_by_states() {
        assert_eq!(share(100, 1, 4), 25);
        assert_eq!(share(100, 4, 4), 100);
        assert_eq!(share(100, 5, 4), 100, "never more than there are");
        assert_eq!(share(100, 0, 0), 0);
        assert_eq!(share(u64::MAX, u64::MAX / 2, u64::MAX), u64::MAX / 2);
    }

    #[test]
    fn a_search_by_boards_comes_to_what_a_search_by_levels_does() {
        let mut compared = 0;
        for scenario in builtins() {
            compare(&scenario, 4_000, false);
            compared += u32::from(compare(&scenario, 20_000, true));
        }
        assert!(compared > 10, "{compared} scenarios");
    }

    #[test]
    fn so_it_does_with_three_vcpus() {
        for writer in ["stores = 1", "stores = 2"] {
            let text = format!(
                r#"
name = "three"
sentence = "The third vCPU has no seat: its section belongs to the board."
[machine]
arch = "arm64"
vcpus = 3
pages = 2
ring = {{ entries = 4, reserved = 2 }}
ring_with_bitmap = true
[writers]
vcpu = {{ {writer} }}
[protocol]
steps = [
  "enable-logging", "harvest-rings", "reset-rings", "copy",
  "pause-vcpus", "harvest-rings", "get-dirty-log", "copy", "finish",
]
"#
            );
            let scenario = Scenario::from_toml("three", &text).expect("a scenario");
            assert!(compare(&scenario, 50_000, true));
        }
    }
}
