//! One level: its states, taken block by block by the threads, become the next level's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use dirtysim_model::layout::Layout;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::pack::Touched;
use dirtysim_model::step::{Effect, Step, apply, for_each_step};

use super::engine::Search;
use super::table::{Table, fingerprint};
use super::{Limit, Progress};
use crate::run::is_stuck;
use crate::sometimes::Seen;

/// States of a full block.
const BLOCK_STATES: usize = 2048;
/// Successors that are looked up together.
const BATCH: usize = 96;
/// Levels below so many states are not worth waking threads for.
const PARALLEL_STATES: u64 = 4 * BLOCK_STATES as u64;
/// Successors that a state has at most, more or less: how much room the table keeps for a block.
const TYPICAL_SUCCESSORS: usize = 8;

/// Packed states, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) words: Vec<u64>,
}

impl Block {
    pub(super) fn of(words: Vec<u64>) -> Self {
        Self { words }
    }

    pub(super) fn states(&self, stride: usize) -> u64 {
        (self.words.len() / stride) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.words.capacity() as u64 * 8
    }
}

/// Why the expansion of a level stopped.
pub(super) enum Stop {
    /// Every state was expanded.
    Done,
    /// The table wants to grow first.
    Full,
    /// A limit.
    Limit(Limit),
}

/// What the expansion of a level came to.
#[derive(Default)]
pub(super) struct Outcome {
    /// Claims broken in a state of the level.
    pub(super) broken_at: Invariants,
    /// Claims broken by a step out of the level, whatever the state after it.
    pub(super) broken_after: Invariants,
    /// What was seen.
    pub(super) seen: Seen,
    /// Transitions out of the level.
    pub(super) transitions: u64,
    /// The next level.
    pub(super) next: Vec<Block>,
}

impl Outcome {
    fn join(&mut self, other: Self) {
        self.broken_at.union(other.broken_at);
        self.broken_after.union(other.broken_after);
        self.seen.union(other.seen);
        self.transitions += other.transitions;
        self.next.extend(other.next);
    }
}

/// A level in work.
pub(super) struct Job {
    todo: Mutex<Vec<Block>>,
    outcome: Outcome,
    depth: u32,
    frontier: u64,
    /// Bytes of the blocks of this level that are left, and of those of the next one.
    bytes: AtomicU64,
    kept_bytes: u64,
    keeps: bool,
}

impl Job {
    pub(super) fn new(
        level: Vec<Block>,
        depth: u32,
        frontier: u64,
        kept_bytes: u64,
        keeps: bool,
    ) -> Self {
        let bytes = level.iter().map(Block::bytes).sum();
        Self {
            todo: Mutex::new(level),
            outcome: Outcome::default(),
            depth,
            frontier,
            bytes: AtomicU64::new(bytes),
            kept_bytes,
            keeps,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn outcome(self) -> Outcome {
        self.outcome
    }

    /// Fingerprints that may come in before the table can grow again.
    pub(super) fn slack<L: Layout>(&self, _search: &Search<'_, L>) -> usize {
        (rayon::current_num_threads() + 1) * BLOCK_STATES * TYPICAL_SUCCESSORS
    }

    fn take(&self) -> Option<Block> {
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        self.todo.lock().ok()?.pop()
    }

    fn put_back(&self, block: Block) {
        if let Ok(mut todo) = self.todo.lock() {
            todo.push(block);
        }
    }
}

/// Expands a level until it is done, or something stops it; then it can be called again with the same job.
pub(super) fn expand<L: Layout>(search: &Search<'_, L>, table: &mut Table, job: &mut Job) -> Stop {
    let slack = job.slack(search);
    let shared: &Table = table;
    let threads = rayon::current_num_threads();
    let results: Vec<(Outcome, Option<Limit>)> = if threads == 1 || job.frontier < PARALLEL_STATES {
        vec![Worker::new(search, shared, job, slack).run::<false>()]
    } else {
        let job: &Job = job;
        rayon::broadcast(|_| Worker::new(search, shared, job, slack).run::<true>())
    };
    let mut limit = None;
    for (outcome, stopped) in results {
        job.outcome.join(outcome);
        limit = limit.or(stopped);
    }
    if let Some(limit) = limit {
        return Stop::Limit(limit);
    }
    let done = job.todo.get_mut().map_or(true, |todo| todo.is_empty());
    if done { Stop::Done } else { Stop::Full }
}

/// One thread's work on a level.
struct Worker<'a, L: Layout> {
    search: &'a Search<'a, L>,
    table: &'a Table,
    job: &'a Job,
    slack: usize,
    stride: usize,
    outcome: Outcome,
    open: Vec<u64>,
    batch: Vec<u64>,
    fingerprints: Vec<u64>,
    inserted: u64,
    /// Keeps the loads of [`Table::touch`] alive.
    touched: u64,
}

impl<'a, L: Layout> Worker<'a, L> {
    fn new(search: &'a Search<'a, L>, table: &'a Table, job: &'a Job, slack: usize) -> Self {
        let stride = search.packing.words();
        Self {
            search,
            table,
            job,
            slack,
            stride,
            outcome: Outcome::default(),
            open: Vec::new(),
            batch: Vec::with_capacity(2 * BATCH * stride),
            fingerprints: Vec::with_capacity(2 * BATCH),
            inserted: 0,
            touched: 0,
        }
    }

    fn run<const SHARED: bool>(mut self) -> (Outcome, Option<Limit>) {
        let mut limit = None;
        let mut state = self.search.start.clone();
        let mut steps = Vec::with_capacity(64);
        while let Some(block) = self.job.take() {
            limit = self.limit_reached();
            if limit.is_some() || self.table.is_short_of(self.slack) {
                self.job.put_back(block);
                break;
            }
            for words in block.words.chunks_exact(self.stride) {
                self.expand_state::<SHARED>(words, &mut state, &mut steps);
            }
            self.flush::<SHARED>();
            self.table.add_len(std::mem::take(&mut self.inserted));
            self.job.bytes.fetch_sub(block.bytes(), Relaxed);
        }
        self.close_block();
        std::hint::black_box(self.touched);
        (self.outcome, limit)
    }

    fn limit_reached(&self) -> Option<Limit> {
        let search = self.search;
        let bytes = self.table.bytes() + self.job.bytes() + self.job.kept_bytes;
        if bytes > search.limit_bytes {
            return Some(Limit::Memory);
        }
        if search
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Some(Limit::Time);
        }
        let progress = Progress {
            states: self.table.len(),
            frontier: self.job.frontier,
            depth: self.job.depth,
            bytes,
        };
        (!(search.watch)(&progress)).then_some(Limit::Interrupt)
    }

    #[inline(always)]
    fn expand_state<const SHARED: bool>(
        &mut self,
        words: &[u64],
        state: &mut dirtysim_model::state::State<L>,
        steps: &mut Vec<Step>,
    ) {
        let machine = self.search.machine;
        self.search.packing.unpack(machine, words, state);
        // What speaks of a state is checked once a state, here; what speaks of a step is checked at the step.
        self.outcome
            .broken_at
            .union(oracle::check(machine, state, Effect::None));
        steps.clear();
        match self.search.rules.local_step(machine, state) {
            Some(step) => steps.push(step),
            None => for_each_step(machine, state, |step| steps.push(step)),
        }
        if steps.is_empty() && is_stuck(machine, state) {
            self.outcome
                .broken_at
                .insert(Invariant::MigrationMakesProgress);
        }
        self.outcome.transitions += steps.len() as u64;
        for &step in steps.iter() {
            self.outcome.seen.note(machine, state, step);
            let mut touched = Touched::by(machine, state, step);
            let mut after = state.clone();
            let effect = apply(machine, &mut after, step);
            if effect != Effect::None {
                self.outcome
                    .broken_after
                    .union(oracle::check(machine, &after, effect));
            }
            if self.search.symmetry.canonical(machine, &mut after) {
                touched = Touched::ALL;
            }
            let at = self.batch.len();
            self.batch.extend_from_slice(words);
            self.search
                .packing
                .pack_touched(machine, &mut after, touched, &mut self.batch[at..]);
            self.fingerprints.push(fingerprint(&self.batch[at..]));
        }
        if self.fingerprints.len() >= BATCH {
            self.flush::<SHARED>();
        }
    }

    /// Looks the batch up; what is new joins the next level.
    fn flush<const SHARED: bool>(&mut self) {
        self.touched ^= self.table.touch(&self.fingerprints);
        for (index, &fingerprint) in self.fingerprints.iter().enumerate() {
            let new = if SHARED {
                self.table.insert_shared(fingerprint)
            } else {
                self.table.insert(fingerprint)
            };
            if new {
                self.inserted += 1;
                let at = index * self.stride;
                if self.open.capacity() == 0 {
                    self.open.reserve_exact(BLOCK_STATES * self.stride);
                }
                self.open
                    .extend_from_slice(&self.batch[at..at + self.stride]);
                if self.open.len() == BLOCK_STATES * self.stride {
                    close(&mut self.open, &mut self.outcome.next, self.job);
                }
            }
        }
        self.fingerprints.clear();
        self.batch.clear();
    }

    fn close_block(&mut self) {
        if !self.open.is_empty() {
            self.open.shrink_to_fit();
            close(&mut self.open, &mut self.outcome.next, self.job);
        }
        debug_assert!(!self.job.keeps || self.fingerprints.is_empty());
    }
}

fn close(open: &mut Vec<u64>, next: &mut Vec<Block>, job: &Job) {
    let block = Block::of(std::mem::take(open));
    job.bytes.fetch_add(block.bytes(), Relaxed);
    next.push(block);
}
