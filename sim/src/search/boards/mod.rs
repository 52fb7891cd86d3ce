//! The search that leaves nothing out: states that have much in common are moved in common.
//!
//! Many states differ only in what one vCPU does, but of those only a few are on the same level. So levels are not taken one
//! by one. A *window* of levels is taken at once: boards are visited in the order of their
//! ranks, each with all states of the window that have come to it, and what a vCPU does next at a seat is looked up once
//! for all the states that have the seat in common. Each state remembers the least number of steps that lead to it, as
//! far as it is known; where a shorter way is found later, its board is visited again. When nothing changes any more, the
//! levels of the window are those of a search that is breadth first, and are judged, counted and reported in their order.

mod board;
mod numbers;
mod settle;
mod visit;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use dirtysim_model::layout::Layout;

use self::board::{BoardAt, Boards, Rank, SEATED};
use self::numbers::Numbers;
use self::settle::Level;
use self::visit::{Scratch, Sent};
use self::worker::{Desk, Worker};
use super::engine::{Found, Passed, Search};
use super::{Limit, Progress, memory};
use crate::run::hit;

/// Levels of the first window; each has as many as all before it together, up to a limit, so that whoever waits for word of
/// the levels gets it, and what lies beyond a violation is not much.
const FIRST_WIDTH: u32 = 16;
/// The limit; cells have room for 126.
const MOST_WIDTH: u32 = 64;
/// Fewer boards are not worth waking threads for.
const PARALLEL_BOARDS: usize = 8;

/// So many boards are visited before limits are looked at again.
const BOARDS_AT_ONCE: usize = 1 << 11;
/// The system is asked for room whenever a search has grown by so much.
const ROOM_BYTES: u64 = 64 << 20;

/// A search in work.
struct Run<'a, L: Layout> {
    search: &'a Search<'a, L>,
    boards: Boards,
    numbers: [Numbers; 2],
    desks: Vec<Mutex<Desk>>,
    /// Boards to be visited.
    queues: BTreeMap<Rank, Vec<BoardAt>>,
    /// Boards that have states of the window or of the next one.
    touched: Vec<BoardAt>,
    /// States so far, as far as their boards were visited.
    states: u64,
    grid_bytes: u64,
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
        && search.machine.mutations.is_empty()
        && search.sections.vcpus() >= SEATED
}

/// Searches for the verdict.
pub(super) fn pass<L: Layout>(
    search: &Search<'_, L>,
    max_states: Option<u64>,
    keep_going: bool,
) -> Passed {
    let mut run = Run::new(search);
    let mut passed = Passed::begin(0);
    // Levels that are finished, and how many states the next one has.
    let mut base = 0;
    let mut frontier = 1;
    loop {
        let width = match max_states {
            Some(_) => FIRST_WIDTH,
            None => base.clamp(FIRST_WIDTH, MOST_WIDTH),
        };
        let limit = run.window(width as u8, base, frontier, &mut passed);
        if run.is_full {
            // States may have been taken for others: nothing is to be judged.
            passed.limit = limit.or(Some(Limit::Memory));
            return passed;
        }
        let (levels, next) = run.settle(width as u8);
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
            passed.states += ahead;
            if limit.is_some() {
                continue;
            }
            if (passed.found.is_some() && !keep_going) || ahead == 0 {
                return passed;
            }
            passed.depth += 1;
            if max_states.is_some_and(|most| passed.states >= most) {
                passed.limit = Some(Limit::States);
                return passed;
            }
            let progress = Progress {
                states: passed.states,
                frontier: ahead,
                depth: passed.depth,
                bytes: passed.peak_bytes,
            };
            if !(search.watch)(&progress) {
                passed.limit = Some(Limit::Interrupt);
                return passed;
            }
        }
        if limit.is_some() {
            // Where a state of the window is nearer than was found, nobody knows.
            passed.limit = limit;
            passed.depth = base;
            return passed;
        }
        base += width;
        frontier = next;
    }
}

impl<'a, L: Layout> Run<'a, L> {
    fn new(search: &'a Search<'a, L>) -> Self {
        let mut run = Self {
            search,
            boards: Boards::new(),
            numbers: [(); 2].map(|()| Numbers::new(search.sections.control())),
            desks: (0..rayon::current_num_threads())
                .map(|worker| Mutex::new(Desk::new(worker)))
                .collect(),
            queues: BTreeMap::new(),
            touched: Vec::new(),
            states: 0,
            grid_bytes: 0,
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
        let at = run.boards.find(&shared, || 0);
        if let Ok(mut grid) = run.boards.get(at).grid.lock() {
            grid.begin(numbers);
        }
        run.touched.push(at);
        run.queue((0, 0), at);
        run
    }

    fn queue(&mut self, rank: Rank, at: BoardAt) {
        self.queues.entry(rank).or_default().push(at);
    }

    fn bytes(&self) -> u64 {
        let desks = self.desks.iter().map(|desk| {
            let desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            desk.bytes()
        });
        let lists =
            self.queues.values().map(Vec::capacity).sum::<usize>() + self.touched.capacity();
        let numbers: u64 = self.numbers.iter().map(Numbers::bytes).sum();
        self.grid_bytes
            + self.boards.bytes()
            + numbers
            + desks.sum::<u64>()
            + (lists * size_of::<BoardAt>()) as u64
    }

    /// Visits boards until no state of the window is left that has not taken its steps; or a limit comes first.
    fn window(
        &mut self,
        width: u8,
        base: u32,
        frontier: u64,
        passed: &mut Passed,
    ) -> Option<Limit> {
        while let Some((rank, todo)) = self.queues.pop_first() {
            for some in todo.chunks(BOARDS_AT_ONCE) {
                let bytes = self.bytes();
                passed.peak_bytes = passed.peak_bytes.max(bytes);
                if let Some(limit) = self.limit_reached(bytes, base, frontier) {
                    return Some(limit);
                }
                for Done { sent, .. } in self.work(some, width, Task::Visit(rank)) {
                    self.touched.extend(sent.touched);
                    self.states += sent.new;
                    self.grid_bytes = self.grid_bytes.wrapping_add(sent.grown);
                    self.is_full |= sent.is_full;
                    for (rank, at) in sent.queued {
                        self.queue(rank, at);
                    }
                }
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
        self.search.limit_reached(&Progress {
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
        for done in self.work(&touched, width, Task::Settle) {
            for (level, its) in levels.iter_mut().zip(&done.levels) {
                level.join(its);
            }
            for (rank, at, states) in done.unsettled {
                next += states;
                self.touched.push(at);
                self.queue(rank, at);
            }
        }
        (levels, next)
    }

    /// Does something for each board of a list, on all threads; what each of them did.
    fn work(&self, list: &[BoardAt], width: u8, task: Task) -> Vec<Done> {
        let threads = rayon::current_num_threads();
        let alone = threads == 1 || list.len() < PARALLEL_BOARDS;
        let taken: Vec<AtomicUsize> = (0..if alone { 1 } else { threads })
            .map(|_| AtomicUsize::new(0))
            .collect();
        let one = |index: usize| {
            let list = List {
                all: list,
                taken: &taken,
                turn: 0,
                own: index,
            };
            // The numbers of vCPUs and threads that scenarios have most often.
            match self.search.sections.words() {
                Some(3) => self.work_as::<3>(index, list, width, task),
                Some(4) => self.work_as::<4>(index, list, width, task),
                Some(5) => self.work_as::<5>(index, list, width, task),
                _ => self.work_as::<0>(index, list, width, task),
            }
        };
        if alone {
            vec![one(0)]
        } else {
            rayon::broadcast(|worker| one(worker.index()))
        }
    }

    /// One worker's part of that.
    fn work_as<const N: usize>(&self, index: usize, list: List<'_>, width: u8, task: Task) -> Done {
        // A desk is one worker's; a poisoned lock means that it panicked, which has ended the search already.
        let mut desk = self.desks[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut worker =
            Worker::<L, N>::new(self.search, &self.boards, &self.numbers, &mut desk, width);
        let mut done = Done::default();
        match task {
            Task::Visit(rank) => {
                let mut scratch = Scratch::default();
                for at in list {
                    worker.visit(at, rank, &mut scratch, &mut done.sent);
                    worker.leave(rank, &mut scratch, &mut done.sent);
                }
            }
            Task::Settle => {
                done.levels = vec![Level::default(); usize::from(width)];
                for at in list {
                    if let Some((rank, states)) = worker.settle(at, &mut done.levels) {
                        done.unsettled.push((rank, at, states));
                    }
                }
            }
        }
        done
    }
}

/// What is to be done for boards.
#[derive(Clone, Copy)]
enum Task {
    /// Those of a rank are visited.
    Visit(Rank),
    Settle,
}

/// What a worker did.
#[derive(Default)]
struct Done {
    sent: Sent,
    /// What the levels of the window came to.
    levels: Vec<Level>,
    /// Boards that have states of the next window, and how many of its first level.
    unsettled: Vec<(Rank, BoardAt, u64)>,
}

/// Boards that several threads take from: each first those that it had before, whose entries are in its memo; then what is
/// left of the others'.
struct List<'l> {
    all: &'l [BoardAt],
    /// By worker, how many of the list were looked at for it.
    taken: &'l [AtomicUsize],
    turn: usize,
    own: usize,
}

impl Iterator for List<'_> {
    type Item = BoardAt;

    fn next(&mut self) -> Option<BoardAt> {
        let workers = self.taken.len();
        while self.turn < workers {
            let whose = (self.own + self.turn) % workers;
            match self.all.get(self.taken[whose].fetch_add(1, Relaxed)) {
                Some(&at) if at as usize % workers == whose => return Some(at),
                Some(_) => {}
                None => self.turn += 1,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use dirtysim_model::layout::{Medium, Small};
    use dirtysim_model::state::State;

    use super::super::engine::{Pass, pass as by_levels};
    use super::super::{Options, Reductions};
    use super::*;
    use crate::run::target;
    use crate::scenario::{Scenario, builtins};

    /// Compares what both searches come to within so many states; whether the scenario can be searched by boards.
    fn compare(scenario: &Scenario, max_states: u64, keep_going: bool) -> bool {
        match scenario.start::<Small>() {
            Ok(start) => compare_from(scenario, &start, max_states, keep_going),
            Err(_) => {
                let start = scenario.start::<Medium>().expect("a scenario to search");
                compare_from(scenario, &start, max_states, keep_going)
            }
        }
    }

    fn compare_from<L: Layout>(
        scenario: &Scenario,
        start: &State<L>,
        max_states: u64,
        keep_going: bool,
    ) -> bool {
        let options = Options {
            reductions: Reductions::NONE,
            ..Options::default()
        };
        let target = target(scenario);
        let search = Search::new(&scenario.machine, start, target, &options, &|_| true);
        if !suits(&search) {
            return false;
        }
        let levels = by_levels(
            &search,
            Pass::Verdict {
                max_states: Some(max_states),
                keep_going,
            },
        );
        let boards = pass(&search, Some(max_states), keep_going);
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
