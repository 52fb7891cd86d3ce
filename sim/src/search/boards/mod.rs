//! The search where every state stands for itself: states in common are moved in common.
//!
//! A level of a search has few states that differ only in what one vCPU does: of all that do, each level has a few. So
//! levels are not taken one by one. A *window* of levels is taken at once: boards are visited in the order of their
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
use std::time::Instant;

use dirtysim_model::layout::Layout;
use dirtysim_model::oracle::Invariants;

use self::board::{BoardAt, Boards, Rank};
use self::numbers::Numbers;
use self::settle::Level;
use self::visit::{Scratch, Sent};
use self::worker::{Desk, Worker};
use super::engine::{Found, Passed, Search};
use super::{Limit, Progress};
use crate::run::hit;
use crate::sometimes::Seen;

/// Levels of the first window.
const FIRST_WIDTH: u32 = 16;
/// Levels that a window may have, so that a cell can be a byte.
const MOST_WIDTH: u32 = 64;
/// Fewer boards are not worth waking threads for.
const PARALLEL_BOARDS: usize = 8;

/// A search in work.
struct Run<'a, L: Layout> {
    search: &'a Search<'a, L>,
    boards: Boards,
    numbers: [Numbers; 2],
    desks: Vec<Mutex<Desk>>,
    /// Boards to be visited.
    queues: BTreeMap<Rank, Vec<BoardAt>>,
    touched: Vec<BoardAt>,
    states: u64,
    grid_bytes: u64,
    is_full: bool,
}

/// Whether a search can be made board by board: every state stands for itself, and the transition function keeps to what
/// is said of it.
pub(super) fn suits<L: Layout>(search: &Search<'_, L>) -> bool {
    search.symmetry.classes().is_empty()
        && !search.symmetry.exchanges_vcpus()
        && search.machine.mutations.is_empty()
        && search.sections.vcpus() > 0
}

/// Searches for the verdict.
pub(super) fn pass<L: Layout>(
    search: &Search<'_, L>,
    max_states: Option<u64>,
    keep_going: bool,
) -> Passed {
    let mut run = Run::new(search); let t0 = Instant::now();
    let mut passed = Passed {
        limit: None,
        found: None,
        broken: Invariants::NONE,
        seen: Seen::default(),
        states: 1,
        transitions: 0,
        depth: 0,
        peak_bytes: 0,
    };
    // Levels that are finished.
    let mut base = 0;
    loop {
        let width = match max_states {
            Some(_) => FIRST_WIDTH,
            None => base.clamp(FIRST_WIDTH, MOST_WIDTH),
        };
        let limit = run.window(width as u8, base, &mut passed);
        eprintln!("{:?} window {base}+{width}: touched {} states {}", t0.elapsed(), run.touched.len(), run.states);
        let (levels, next) = run.settle(width as u8);
        eprintln!("{:?} settled", t0.elapsed());
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
            if limit.is_none() {
                passed.states += ahead;
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
        }
        if limit.is_some() {
            passed.limit = limit;
            passed.states = run.states;
            return passed;
        }
        base += width;
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
            states: 1,
            grid_bytes: 0,
            is_full: false,
        };
        let sections = &search.sections;
        let mut shared = search.source().pack(&mut search.start.clone());
        let numbers = [0, 1].map(|axis| {
            if axis >= sections.vcpus() {
                return run.numbers[axis].of(&[]);
            }
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
        let lists = self.queues.values().map(Vec::capacity).sum::<usize>() + self.touched.capacity();
        let numbers: u64 = self.numbers.iter().map(Numbers::bytes).sum();
        self.grid_bytes
            + self.boards.bytes()
            + numbers
            + desks.sum::<u64>()
            + (lists * size_of::<BoardAt>()) as u64
    }

    /// Visits boards until no state of the window is left that has not taken its steps; or a limit comes first.
    fn window(&mut self, width: u8, base: u32, passed: &mut Passed) -> Option<Limit> {
        while let Some((rank, todo)) = self.queues.pop_first() {
            let bytes = self.bytes();
            passed.peak_bytes = passed.peak_bytes.max(bytes);
            if let Some(limit) = self.limit_reached(bytes, base, todo.len() as u64) {
                self.queues.insert(rank, todo);
                return Some(limit);
            }
            let sent = self.visit_all(&todo, rank, width);
            for sent in sent {
                self.touched.extend(sent.touched);
                self.states += sent.new;
                self.grid_bytes = self.grid_bytes.wrapping_add(sent.grown);
                self.is_full |= sent.is_full;
                for (rank, at) in sent.queued {
                    self.queue(rank, at);
                }
            }
        }
        None
    }

    fn limit_reached(&self, bytes: u64, base: u32, frontier: u64) -> Option<Limit> {
        let search = self.search;
        if bytes > search.limit_bytes || self.is_full {
            return Some(Limit::Memory);
        }
        if search.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Limit::Time);
        }
        let progress = Progress {
            states: self.states,
            frontier,
            depth: base,
            bytes,
        };
        (!(search.watch)(&progress)).then_some(Limit::Interrupt)
    }

    /// Visits boards; what each worker brought about.
    fn visit_all(&self, todo: &[BoardAt], rank: Rank, width: u8) -> Vec<Sent> {
        self.with_workers(todo, width, |work| match work {
            AnyWorker::Three(worker, list) => visit_list(worker, rank, list),
            AnyWorker::Four(worker, list) => visit_list(worker, rank, list),
            AnyWorker::Five(worker, list) => visit_list(worker, rank, list),
            AnyWorker::Other(worker, list) => visit_list(worker, rank, list),
        })
    }

    /// Settles the boards that have states of the window: what its levels came to, and how many states the level after
    /// them has.
    fn settle(&mut self, width: u8) -> (Vec<Level>, u64) {
        let touched = std::mem::take(&mut self.touched);
        let results = self.with_workers(&touched, width, |work| match work {
            AnyWorker::Three(worker, list) => settle_list(worker, list),
            AnyWorker::Four(worker, list) => settle_list(worker, list),
            AnyWorker::Five(worker, list) => settle_list(worker, list),
            AnyWorker::Other(worker, list) => settle_list(worker, list),
        });
        let mut levels = vec![Level::default(); usize::from(width)];
        let mut next = 0;
        for (its, states, boards) in results {
            for (level, its) in levels.iter_mut().zip(&its) {
                level.join(its);
            }
            next += states;
            for at in boards {
                self.touched.push(at);
                let rank = self.boards.get(at).grid.lock().unwrap_or_else(PoisonError::into_inner).rank;
                self.queue(rank, at);
            }
        }
        (levels, next)
    }

    /// What `work` answers for a list of boards, shared by the threads.
    fn with_workers<R: Send>(
        &self,
        list: &[BoardAt],
        width: u8,
        work: impl Fn(AnyWorker<'_, '_, L>) -> R + Sync,
    ) -> Vec<R> {
        let threads = rayon::current_num_threads();
        let alone = threads == 1 || list.len() < PARALLEL_BOARDS;
        let taken: Vec<AtomicUsize> = (0..if alone { 1 } else { threads })
            .map(|_| AtomicUsize::new(0))
            .collect();
        let one = |index: usize| {
            let mut desk = self.desks[index].lock().unwrap_or_else(PoisonError::into_inner);
            let desk = &mut *desk;
            let (search, boards, numbers) = (self.search, &self.boards, &self.numbers);
            let list = List {
                all: list,
                taken: &taken,
                turn: 0,
                own: index,
            };
            work(match search.sections.words() {
                Some(3) => AnyWorker::Three(Worker::new(search, boards, numbers, desk, width), list),
                Some(4) => AnyWorker::Four(Worker::new(search, boards, numbers, desk, width), list),
                Some(5) => AnyWorker::Five(Worker::new(search, boards, numbers, desk, width), list),
                _ => AnyWorker::Other(Worker::new(search, boards, numbers, desk, width), list),
            })
        };
        if alone {
            vec![one(0)]
        } else {
            rayon::broadcast(|worker| one(worker.index()))
        }
    }
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

/// A worker for the numbers of vCPUs and threads that scenarios have most often, or for any.
enum AnyWorker<'a, 'l, L: Layout> {
    Three(Worker<'a, L, 3>, List<'l>),
    Four(Worker<'a, L, 4>, List<'l>),
    Five(Worker<'a, L, 5>, List<'l>),
    Other(Worker<'a, L, 0>, List<'l>),
}

fn visit_list<L: Layout, const N: usize>(mut worker: Worker<'_, L, N>, rank: Rank, list: List<'_>) -> Sent {
    let mut scratch = Scratch::default();
    let mut sent = Sent::default();
    for at in list {
        worker.visit(at, rank, &mut scratch, &mut sent);
        worker.leave(rank, &mut scratch, &mut sent);
    }
    sent
}

fn settle_list<L: Layout, const N: usize>(
    mut worker: Worker<'_, L, N>,
    list: List<'_>,
) -> (Vec<Level>, u64, Vec<BoardAt>) {
    let mut levels = vec![Level::default(); usize::from(worker.width)];
    let mut next = 0;
    let mut boards = Vec::new();
    for at in list {
        let states = worker.settle(at, &mut levels);
        next += states;
        if states > 0 {
            boards.push(at);
        }
    }
    (levels, next, boards)
}
