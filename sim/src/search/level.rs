//! One level: its states, taken block by block by the threads, become the next level's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use dirtysim_model::layout::Layout;
use dirtysim_model::oracle::parts::Part;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::pack::Touched;
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Choice, Effect, Step, apply};

use super::engine::Search;
use super::memo::{Entry, Memo, Source, Successor};
use super::representative::{Known, Replaced, Representative};
use super::sections::never_zero;
use super::table::Table;
use super::{Limit, Progress};
use crate::run::is_stuck;
use crate::sometimes::{Facts, Seen};

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

/// What a worker keeps from level to level.
pub(super) struct Desk {
    memo: Memo,
    known: Known,
}

impl Desk {
    /// One for each thread that may work.
    pub(super) fn all() -> Vec<Mutex<Self>> {
        (0..rayon::current_num_threads())
            .map(|_| {
                Mutex::new(Self {
                    memo: Memo::new(),
                    known: Known::new(),
                })
            })
            .collect()
    }
}

/// Expands a level until it is done, or something stops it; then it can be called again with the same job.
pub(super) fn expand<L: Layout>(
    search: &Search<'_, L>,
    table: &mut Table,
    job: &mut Job,
    desks: &[Mutex<Desk>],
) -> Stop {
    // A desk is one worker's; a poisoned lock means that it panicked, which has ended the search already.
    let desk = |index: usize| desks[index].lock().unwrap_or_else(PoisonError::into_inner);
    let slack = job.slack(search);
    let shared: &Table = table;
    let threads = rayon::current_num_threads();
    let results: Vec<(Outcome, Option<Limit>)> = if threads == 1 || job.frontier < PARALLEL_STATES {
        vec![Worker::new(search, shared, job, slack).run::<false>(&mut desk(0))]
    } else {
        let job: &Job = job;
        rayon::broadcast(|worker| {
            Worker::new(search, shared, job, slack).run::<true>(&mut desk(worker.index()))
        })
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

/// A successor that is to be looked up.
#[derive(Clone, Copy)]
struct Candidate {
    /// Where its state's words begin in the block; its own, where it was made by hand.
    parent: u32,
    how: How,
}

/// Where a candidate's words are.
#[derive(Clone, Copy)]
enum How {
    /// Those of its state, with sections from the memo.
    Memo(Successor),
    /// From here on among the words that were made by hand.
    Words(u32),
}

/// One thread's work on a level.
struct Worker<'a, L: Layout> {
    search: &'a Search<'a, L>,
    source: Source<'a, L>,
    table: &'a Table,
    job: &'a Job,
    slack: usize,
    stride: usize,
    outcome: Outcome,
    actors: Vec<Actor>,
    /// For each actor, what it does in the state in work.
    entries: Vec<Entry>,
    /// The state in work, where it was unpacked.
    state: State<L>,
    unpacked: bool,
    choices: Vec<Choice>,
    open: Vec<u64>,
    made: Vec<u64>,
    candidates: Vec<Candidate>,
    fingerprints: Vec<u64>,
    representative: Representative<L>,
    inserted: u64,
    /// Keeps the loads of [`Table::touch`] alive.
    touched: u64,
}

impl<'a, L: Layout> Worker<'a, L> {
    fn new(search: &'a Search<'a, L>, table: &'a Table, job: &'a Job, slack: usize) -> Self {
        let stride = search.sections.packing().words();
        Self {
            search,
            source: Source {
                machine: search.machine,
                sections: &search.sections,
                rules: &search.rules,
                start: search.start,
            },
            table,
            job,
            slack,
            stride,
            outcome: Outcome::default(),
            actors: search.sections.actors(),
            entries: Vec::new(),
            state: search.start.clone(),
            unpacked: false,
            choices: Vec::new(),
            open: Vec::new(),
            made: Vec::new(),
            candidates: Vec::with_capacity(2 * BATCH),
            fingerprints: Vec::with_capacity(2 * BATCH),
            representative: Representative::new(search),
            inserted: 0,
            touched: 0,
        }
    }

    fn run<const SHARED: bool>(mut self, desk: &mut Desk) -> (Outcome, Option<Limit>) {
        let mut limit = None;
        while let Some(block) = self.job.take() {
            limit = self.limit_reached();
            if limit.is_some() || self.table.is_short_of(self.slack) {
                self.job.put_back(block);
                break;
            }
            desk.memo.make_room();
            for at in (0..block.words.len()).step_by(self.stride) {
                self.expand_state(
                    &mut desk.memo,
                    &block.words[at..at + self.stride],
                    at as u32,
                );
                if self.fingerprints.len() >= BATCH {
                    self.flush::<SHARED>(desk, &block);
                }
            }
            self.flush::<SHARED>(desk, &block);
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

    /// Checks a state and finds its successors.
    #[inline]
    fn expand_state(&mut self, memo: &mut Memo, words: &[u64], parent: u32) {
        let sections = &self.search.sections;
        self.unpacked = false;
        let vm = sections.hash(words, sections.vm());
        let mut sum = vm;
        let context = sections.context(self.source.rules, words);
        self.entries.clear();
        let mut part = Part::NEUTRAL;
        let mut facts = Facts::default();
        let mut alone = None;
        for index in 0..self.actors.len() {
            let actor = self.actors[index];
            let own = sections.own(actor);
            let hash = if own.is_empty() {
                0
            } else {
                sections.hash(words, own)
            };
            sum = sum.wrapping_add(hash);
            let entry = memo.entry(&self.source, words, actor, [vm, hash], context);
            part = part.join(memo.part(entry));
            facts.join(memo.context_facts(entry));
            if alone.is_none()
                && (memo.is_local(entry)
                    || (memo.is_by_hand(entry) && self.is_local_by_hand(words, actor)))
            {
                alone = Some(index);
            }
            self.entries.push(entry);
        }
        let broken = part.verdict();
        debug_assert_eq!(broken, self.check(words), "the parts of a verdict are it");
        self.outcome.broken_at.union(broken);
        let before = self.fingerprints.len();
        let taken = alone.map_or(0..self.actors.len(), |index| index..index + 1);
        for index in taken {
            let (actor, entry) = (self.actors[index], self.entries[index]);
            if memo.is_by_hand(entry) {
                facts.join(self.take_by_hand(words, actor));
                continue;
            }
            facts.join(memo.step_facts(entry));
            let successors = memo.successors(&self.source, words, actor, entry);
            for index in 0..successors.count {
                let (successor, difference) = memo.successor(successors, index);
                self.fingerprints
                    .push(never_zero(sum.wrapping_add(difference)));
                self.candidates.push(Candidate {
                    parent,
                    how: How::Memo(successor),
                });
            }
        }
        self.outcome.seen.add(facts);
        let taken = self.fingerprints.len() - before;
        self.outcome.transitions += taken as u64;
        if taken == 0 {
            self.unpack(words);
            if is_stuck(self.search.machine, &self.state) {
                self.outcome
                    .broken_at
                    .insert(Invariant::MigrationMakesProgress);
            }
        }
    }

    fn unpack(&mut self, words: &[u64]) {
        if !self.unpacked {
            let packing = self.search.sections.packing();
            packing.unpack(self.search.machine, words, &mut self.state);
            self.unpacked = true;
        }
    }

    /// What the oracle says of a state.
    fn check(&mut self, words: &[u64]) -> Invariants {
        self.unpack(words);
        oracle::check(self.search.machine, &self.state, Effect::None)
    }

    /// Whether an actor whose steps are taken by hand has one that may be taken alone.
    fn is_local_by_hand(&mut self, words: &[u64], actor: Actor) -> bool {
        self.unpack(words);
        let rules = self.source.rules;
        rules
            .local_choice(self.search.machine, &self.state, actor)
            .is_some()
    }

    /// Takes an actor's steps by the transition function; what they contribute to what is seen.
    fn take_by_hand(&mut self, words: &[u64], actor: Actor) -> Facts {
        self.unpack(words);
        let machine = self.search.machine;
        let sections = &self.search.sections;
        let mut facts = Facts::default();
        self.source.choices(&self.state, actor, &mut self.choices);
        for &choice in &self.choices {
            let step = Step { actor, choice };
            facts.join(Facts::of_step(machine, &self.state, step));
            let touched = Touched::by(machine, &self.state, step);
            let mut after = self.state.clone();
            let effect = apply(machine, &mut after, step);
            if effect != Effect::None {
                self.outcome
                    .broken_after
                    .union(oracle::check(machine, &after, effect));
            }
            let at = self.made.len();
            self.made.extend_from_slice(words);
            let made = &mut self.made[at..];
            sections
                .packing()
                .pack_touched(machine, &mut after, touched, made);
            self.fingerprints.push(sections.fingerprint(made));
            self.candidates.push(Candidate {
                parent: 0,
                how: How::Words(at as u32),
            });
        }
        facts
    }

    /// Writes a candidate's words at the end of `out`.
    #[inline]
    fn write(&self, memo: &Memo, block: &Block, candidate: Candidate, out: &mut Vec<u64>) {
        match candidate.how {
            How::Words(at) => {
                out.extend_from_slice(&self.made[at as usize..at as usize + self.stride]);
            }
            How::Memo(successor) => {
                let at = out.len();
                let parent = candidate.parent as usize;
                out.extend_from_slice(&block.words[parent..parent + self.stride]);
                memo.write(&self.source, successor, &mut out[at..]);
            }
        }
    }

    /// Puts representatives in the place of candidates.
    fn represent(&mut self, desk: &mut Desk, block: &Block) {
        let mut words = Vec::with_capacity(self.stride);
        for index in 0..self.candidates.len() {
            words.clear();
            self.write(&desk.memo, block, self.candidates[index], &mut words);
            let fingerprint = self.fingerprints[index];
            match self
                .representative
                .replace(self.search, &mut desk.known, fingerprint, &mut words)
            {
                Replaced::Itself => {}
                Replaced::Known => self.fingerprints[index] = 0,
                Replaced::Other => {
                    self.fingerprints[index] = self.search.sections.fingerprint(&words);
                    self.candidates[index] = Candidate {
                        parent: 0,
                        how: How::Words(self.made.len() as u32),
                    };
                    self.made.extend_from_slice(&words);
                }
            }
        }
    }

    /// Looks the candidates up; what is new joins the next level.
    fn flush<const SHARED: bool>(&mut self, desk: &mut Desk, block: &Block) {
        if !self.representative.is_trivial() {
            self.represent(desk, block);
        }
        self.touched ^= self.table.touch(&self.fingerprints);
        let mut open = std::mem::take(&mut self.open);
        for index in 0..self.fingerprints.len() {
            let fingerprint = self.fingerprints[index];
            let new = fingerprint != 0
                && if SHARED {
                    self.table.insert_shared(fingerprint)
                } else {
                    self.table.insert(fingerprint)
                };
            if new {
                self.inserted += 1;
                if open.capacity() == 0 {
                    open.reserve_exact(BLOCK_STATES * self.stride);
                }
                self.write(&desk.memo, block, self.candidates[index], &mut open);
                if open.len() == BLOCK_STATES * self.stride {
                    close(&mut open, &mut self.outcome.next, self.job);
                }
            }
        }
        self.open = open;
        self.fingerprints.clear();
        self.candidates.clear();
        self.made.clear();
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
