//! One level: its states, taken block by block by the threads, become the next level's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use dirtysim_model::oracle::parts::Part;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Choice, Effect, Step, apply};

use super::audit::Audit;
use super::block::{Block, RecordLayout};
use super::engine::Search;
use super::known::Known;
use super::memo::{EntryAt, Memo, Successor};
use super::representative::Representative;
use super::sections::{Sections, never_zero};
use super::source::Source;
use super::table::Table;
use super::{Limit, Progress};
use crate::sometimes::{Facts, Seen};
use crate::stuck::{breaks_progress, has_leisure};

/// States of a full block.
const BLOCK_STATES: usize = 512;
/// So many states before its turn a state's entries are brought into the cache.
const AHEAD: usize = 4;
/// Successors that are looked up together.
const BATCH: usize = 96;
/// Levels below so many states are not worth waking threads for.
const PARALLEL_STATES: u64 = 2 * BLOCK_STATES as u64;
/// New states that a block brings at most, more or less: what is left of a block that brings more is another block, so
/// that the table, which keeps so much room for each worker, never fills up.
const TYPICAL_INSERTIONS: u64 = 8 * BLOCK_STATES as u64;

/// With where an entry is: it was the one before a step that changed what it depends on.
const OLD: u64 = 1 << 32;

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
    /// States in which a thread has an answer after which nobody knows yet where it goes on.
    pub(super) waiting: Vec<Vec<u64>>,
}

impl Outcome {
    fn join(&mut self, other: Self) {
        self.broken_at.union(other.broken_at);
        self.broken_after.union(other.broken_after);
        self.seen.union(other.seen);
        self.transitions += other.transitions;
        self.next.extend(other.next);
        self.waiting.extend(other.waiting);
    }
}

/// A level in work.
pub(super) struct Job {
    todo: Mutex<Vec<Block>>,
    outcome: Outcome,
    depth: u32,
    frontier: u64,
    audit: Audit,
    /// Bytes of the blocks of this level that are left, of those of the next one, and of the desks.
    bytes: AtomicU64,
    kept_bytes: u64,
    /// Set where the next level has more states than there may be: the rest of this one is judged, and nothing is kept.
    has_too_many: AtomicBool,
}

impl Job {
    pub(super) fn new<L: Layout>(
        level: Vec<Block>,
        depth: u32,
        frontier: u64,
        known: u64,
        kept_bytes: u64,
        desks: &mut [Mutex<Desk<L>>],
    ) -> Self {
        let blocks: u64 = level.iter().map(Block::bytes).sum();
        let desks = desks.iter_mut().filter_map(|desk| desk.get_mut().ok());
        let bytes = blocks + desks.map(|desk| desk.bytes()).sum::<u64>();
        Self {
            todo: Mutex::new(level),
            outcome: Outcome::default(),
            depth,
            frontier,
            audit: Audit::after(known),
            bytes: AtomicU64::new(bytes),
            kept_bytes,
            has_too_many: AtomicBool::new(false),
        }
    }

    fn has_too_many(&self) -> bool {
        self.has_too_many.load(Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn outcome(self) -> Outcome {
        self.outcome
    }

    /// Fingerprints that may come in before the table can grow again.
    pub(super) fn slack<L: Layout>(&self, _search: &Search<'_, L>) -> usize {
        (rayon::current_num_threads() + 1) * TYPICAL_INSERTIONS as usize
    }

    /// A block for a worker, one of its own if there is one.
    fn take(&self, worker: usize) -> Option<Block> {
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        let mut todo = self.todo.lock().ok()?;
        let own = todo.iter().rposition(|block| block.owner.0 == worker);
        match own {
            Some(index) => Some(todo.swap_remove(index)),
            None => todo.pop(),
        }
    }

    /// Puts back what a block has from a place on.
    fn put_back_rest(&self, block: &Block, at: usize) {
        if at < block.records.len() {
            let rest = Block {
                records: block.records[at..].to_vec(),
                owner: block.owner,
            };
            self.bytes.fetch_add(rest.bytes(), Relaxed);
            self.put_back(rest);
        }
    }

    fn put_back(&self, block: Block) {
        if let Ok(mut todo) = self.todo.lock() {
            todo.push(block);
        }
    }
}

/// What a worker keeps from level to level.
pub(super) struct Desk<L: Layout> {
    memo: Memo,
    known: Known,
    representative: Representative<L>,
}

impl<L: Layout> Desk<L> {
    /// One for each thread that may work.
    pub(super) fn all(search: &Search<'_, L>) -> Vec<Mutex<Self>> {
        Memo::of_workers(rayon::current_num_threads())
            .map(|memo| {
                Mutex::new(Self {
                    memo,
                    known: Known::new(),
                    representative: Representative::new(search),
                })
            })
            .collect()
    }

    fn bytes(&self) -> u64 {
        self.memo.bytes() + Known::BYTES + self.representative.bytes()
    }
}

/// Expands a level until it is done, or something stops it; then it can be called again with the same job.
pub(super) fn expand<L: Layout>(
    search: &Search<'_, L>,
    table: &mut Table,
    job: &mut Job,
    desks: &[Mutex<Desk<L>>],
) -> Stop {
    let slack = job.slack(search);
    let table: &Table = table;
    let work = |job: &Job, index: usize, shared: bool| {
        // A desk is one worker's; a poisoned lock means that it panicked, which has ended the search already.
        let mut desk = desks[index].lock().unwrap_or_else(PoisonError::into_inner);
        // The numbers of vCPUs and threads that scenarios have most often.
        match search.sections.words() {
            Some(3) => Worker::<L, 3>::new(search, table, job, slack, index).run(&mut desk, shared),
            Some(4) => Worker::<L, 4>::new(search, table, job, slack, index).run(&mut desk, shared),
            Some(5) => Worker::<L, 5>::new(search, table, job, slack, index).run(&mut desk, shared),
            _ => Worker::<L, 0>::new(search, table, job, slack, index).run(&mut desk, shared),
        }
    };
    let results: Vec<(Outcome, Option<Limit>)> =
        if rayon::current_num_threads() == 1 || job.frontier < PARALLEL_STATES {
            vec![work(job, 0, false)]
        } else {
            let job: &Job = job;
            rayon::broadcast(|worker| work(job, worker.index(), true))
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
    fingerprint: u64,
    /// Where its state's record begins in the block.
    parent: u32,
    how: How,
}

/// Where a candidate's words are.
#[derive(Clone, Copy)]
enum How {
    /// Those of its state, with sections from the memo.
    Memo(Successor),
    /// From here on among the words that were made.
    Words(u32),
}

/// One thread's work on a level; `N` is as in [`Sections`].
struct Worker<'a, L: Layout, const N: usize> {
    search: &'a Search<'a, L>,
    source: Source<'a, L>,
    sections: &'a Sections,
    table: &'a Table,
    job: &'a Job,
    slack: usize,
    layout: RecordLayout,
    outcome: Outcome,
    /// The number of this worker, and its memo's generation.
    owner: (usize, u32),
    choices: Vec<Choice>,
    /// The records of the next level's block in work, and how many words of them are in use.
    open: Vec<u64>,
    used: usize,
    made: Vec<u64>,
    candidates: Vec<Candidate>,
    inserted: u64,
    /// The facts that were added last.
    facts: u64,
    /// Keeps loads alive that are made only to bring something into the cache.
    touched: u64,
    /// Whether a state may be a deadlock though there are steps.
    has_leisure: bool,
}

impl<'a, L: Layout, const N: usize> Worker<'a, L, N> {
    fn new(
        search: &'a Search<'a, L>,
        table: &'a Table,
        job: &'a Job,
        slack: usize,
        index: usize,
    ) -> Self {
        Self {
            search,
            source: search.source(),
            sections: &search.sections,
            table,
            job,
            slack,
            layout: search.record_layout(),
            outcome: Outcome::default(),
            owner: (index, 0),
            choices: Vec::new(),
            open: Vec::new(),
            used: 0,
            made: Vec::new(),
            candidates: Vec::with_capacity(2 * BATCH),
            inserted: 0,
            facts: 0,
            touched: 0,
            has_leisure: has_leisure(&search.machine),
        }
    }

    fn run(mut self, desk: &mut Desk<L>, shared: bool) -> (Outcome, Option<Limit>) {
        let mut limit = None;
        while let Some(mut block) = self.job.take(self.owner.0) {
            limit = self.limit_reached();
            if self.search.limits.are_too_many(self.table.len()) {
                self.job.has_too_many.store(true, Relaxed);
            }
            let is_short = self.table.is_short_of(self.slack) && !self.job.has_too_many();
            if limit.is_some() || is_short {
                self.job.put_back(block);
                break;
            }
            let desk_bytes = desk.bytes();
            let owner = (self.owner.0, desk.memo.make_room());
            if owner != self.owner {
                self.close_block();
                self.owner = owner;
            }
            let known = block.owner == owner;
            for at in (0..block.records.len()).step_by(self.layout.len()) {
                if known {
                    self.look_ahead(&desk.memo, &block.records, at);
                }
                self.expand_state(desk, &mut block.records, at, known);
                if self.candidates.len() >= BATCH {
                    self.flush(desk, &block, shared);
                    if self.inserted >= TYPICAL_INSERTIONS {
                        self.job.put_back_rest(&block, at + self.layout.len());
                        break;
                    }
                }
            }
            self.flush(desk, &block, shared);
            self.table.add_len(std::mem::take(&mut self.inserted));
            // A memo that began anew may be smaller; sums wrap around, and so does the atomic one.
            let grown = desk.bytes().wrapping_sub(desk_bytes);
            let change = grown.wrapping_sub(block.bytes());
            self.job.bytes.fetch_add(change, Relaxed);
        }
        self.close_block();
        std::hint::black_box(self.touched);
        (self.outcome, limit)
    }

    fn limit_reached(&self) -> Option<Limit> {
        self.search.limits.reached(&Progress {
            states: self.table.len(),
            frontier: self.job.frontier,
            depth: self.job.depth,
            bytes: self.table.bytes() + self.job.bytes() + self.job.kept_bytes,
        })
    }

    /// Brings the entries of a state a few records on into the cache.
    #[inline(always)]
    fn look_ahead(&mut self, memo: &Memo, records: &[u64], at: usize) {
        let layout = self.layout.of::<N>();
        let at = at + AHEAD * layout.len();
        if let Some(record) = records.get(at..at + layout.len()) {
            for entry in &record[layout.entries_at()..layout.len()] {
                self.touched ^= memo.touch(*entry as EntryAt);
            }
        }
    }

    /// Checks the state whose record begins at `at` and finds its successors. `known`: the entries in the record are
    /// those of this worker's memo.
    #[inline(always)]
    fn expand_state(&mut self, desk: &mut Desk<L>, records: &mut [u64], at: usize, known: bool) {
        let layout = self.layout.of::<N>();
        let memo = &mut desk.memo;
        let record = &mut records[at..at + layout.len()];
        let mut part = Part::NEUTRAL;
        let mut facts = 0;
        let mut steps_facts = 0;
        let mut special = false;
        let (words, rest) = record.split_at_mut(layout.words);
        let entries = &mut rest[1..];
        if !known {
            entries.fill(0);
        }
        for (index, entry) in entries.iter_mut().enumerate() {
            if *entry == 0 || *entry & OLD != 0 {
                let old = *entry as EntryAt;
                let found = match (index.checked_sub(1), old) {
                    (None, 0) => memo.vm_entry::<L, N>(&self.source, words),
                    (None, _) => memo.vm_entry_after::<L, N>(&self.source, words, old),
                    (Some(actor), 0) => memo.entry(&self.source, words, actor),
                    (Some(actor), _) => memo.entry_after::<L, N>(&self.source, words, actor, old),
                };
                *entry = u64::from(found);
            }
            let (first, its_part, of_steps, of_context) = memo.head(*entry as EntryAt);
            part = part.join(its_part);
            special |= first.is_special();
            steps_facts |= of_steps;
            facts |= of_context;
        }
        let record = &*record;
        let words = &record[..layout.words];
        let broken = part.verdict();
        if self.job.audit.wants(record[layout.words]) {
            assert_eq!(
                broken,
                oracle::check(
                    &self.search.machine,
                    &self.source.unpack(words),
                    Effect::None
                ),
                "the parts of a verdict are the verdict"
            );
        }
        self.outcome.broken_at.union(broken);
        let before = self.outcome.transitions;
        let parent = at as u32;
        if special {
            facts |= self.take_special(desk, record, parent, part);
        } else {
            facts |= steps_facts;
            for actor in 0..layout.entries - 1 {
                self.take(desk, record, parent, actor, part);
            }
        }
        if facts != self.facts {
            self.facts = facts;
            self.outcome.seen.add(Facts::from_word(facts));
        }
        let rests = self.outcome.transitions == before
            || self.has_leisure && !self.a_thread_acts(&desk.memo, record);
        if rests
            && breaks_progress(
                &self.search.machine,
                &self.source.unpack(&record[..layout.words]),
            )
        {
            self.outcome
                .broken_at
                .insert(Invariant::MigrationMakesProgress);
        }
    }

    /// Whether it is known that a thread has a step: one that it need never take does not come alone.
    fn a_thread_acts(&self, memo: &Memo, record: &[u64]) -> bool {
        let layout = self.layout.of::<N>();
        let entries = &record[layout.entries_at() + 1..];
        let mut threads = (0..layout.entries - 1)
            .filter(|actor| matches!(self.sections.actor(*actor), Actor::Thread(_)));
        threads.any(|actor| {
            let entry = entries[actor] as EntryAt;
            let first = memo.first(entry);
            !first.is_by_hand()
                && memo
                    .successors::<N>(self.sections, actor, entry)
                    .next()
                    .is_some()
        })
    }

    /// Takes an actor's steps from its entry.
    #[inline(always)]
    fn take(&mut self, desk: &mut Desk<L>, record: &[u64], parent: u32, actor: usize, part: Part) {
        let layout = self.layout.of::<N>();
        let sum = record[layout.words];
        let entries = &record[layout.entries_at()..layout.entries_at() + layout.entries];
        let (vm, entry) = (entries[0] as EntryAt, entries[1 + actor] as EntryAt);
        let memo = &desk.memo;
        self.claim(memo, record, actor, entry, part);
        for successor in memo.successors::<N>(self.sections, actor, entry) {
            self.outcome.transitions += 1;
            let words = &record[..layout.words];
            let difference = memo.difference::<N>(self.sections, successor, words, vm);
            let fingerprint = never_zero(sum.wrapping_add(difference));
            if !desk.known.meets(fingerprint) {
                self.candidates.push(Candidate {
                    fingerprint,
                    parent,
                    how: How::Memo(successor),
                });
            }
        }
    }

    /// Checks what an actor's steps claim, whatever the state after them; `part` is what the state's sections contribute.
    #[inline(always)]
    fn claim(&mut self, memo: &Memo, record: &[u64], actor: usize, entry: EntryAt, part: Part) {
        let broken = match (memo.first(entry).claimed(), self.sections.actor(actor)) {
            (Some(claimed), Actor::Thread(thread)) => claimed.verdict(part, usize::from(thread)),
            _ => Invariants::NONE,
        };
        let words = self.layout.of::<N>().words;
        if self.job.audit.wants(record[words]) {
            assert_eq!(
                broken,
                self.broken_by_steps(&record[..words], actor),
                "what the memo says of a step's claims is what the oracle says"
            );
        }
        self.outcome.broken_after.union(broken);
    }

    /// What the steps of an actor break, by the oracle.
    fn broken_by_steps(&self, words: &[u64], actor: usize) -> Invariants {
        let machine = &self.search.machine;
        let state = self.source.unpack(words);
        let actor = self.sections.actor(actor);
        let mut choices = Vec::new();
        self.source.choices(&state, actor, &mut choices);
        let mut broken = Invariants::NONE;
        for choice in choices {
            let mut after = state.clone();
            let effect = apply(machine, &mut after, Step { actor, choice });
            broken.union(oracle::check_effect(machine, &after, effect));
        }
        broken
    }

    /// Takes the steps of a state of which some may be taken alone, or by hand, or change each vCPU; the facts of those
    /// that were taken.
    fn take_special(&mut self, desk: &mut Desk<L>, record: &[u64], parent: u32, part: Part) -> u64 {
        let layout = self.layout.of::<N>();
        let words = &record[..layout.words];
        let actors = layout.entries - 1;
        let alone = (0..actors).find(|&actor| {
            let entry = record[layout.entries_at() + 1 + actor];
            let first = desk.memo.first(entry as EntryAt);
            first.is_local() || (first.is_by_hand() && self.is_local_by_hand(words, actor))
        });
        let mut facts = 0;
        for actor in alone.map_or(0..actors, |actor| actor..actor + 1) {
            let entry = record[layout.entries_at() + 1 + actor] as EntryAt;
            let (first, _, of_steps, _) = desk.memo.head(entry);
            if first.is_by_hand() {
                facts |= self.take_by_hand(words, parent, actor).to_word();
                continue;
            }
            facts |= of_steps;
            if first.changes_each_vcpu() {
                self.claim(&desk.memo, record, actor, entry, part);
                self.change_each_vcpu(&mut desk.memo, record, parent, actor, entry);
            } else {
                self.take(desk, record, parent, actor, part);
            }
        }
        facts
    }

    /// The one successor of a step that changes each vCPU's section by itself.
    fn change_each_vcpu(
        &mut self,
        memo: &mut Memo,
        record: &[u64],
        parent: u32,
        actor: usize,
        entry: EntryAt,
    ) {
        let layout = self.layout.of::<N>();
        let words = &record[..layout.words];
        let mut sum = record[layout.words];
        let at = self.made.len();
        self.made.extend_from_slice(words);
        let made = &mut self.made[at..];
        for vcpu in 0..self.sections.vcpus() {
            let (difference, section) =
                memo.response::<L, N>(&self.source, words, (actor, 0), entry, vcpu);
            sum = sum.wrapping_add(difference);
            made[self.sections.own::<N>(vcpu)].copy_from_slice(section);
        }
        let successor = memo.successors::<N>(self.sections, actor, entry).next();
        if let Some(successor) = successor {
            memo.write::<N>(self.sections, successor, made);
            let vm = record[layout.entries_at()] as EntryAt;
            sum = sum.wrapping_add(memo.difference::<N>(self.sections, successor, words, vm));
        }
        if self.job.audit.wants(record[layout.words]) {
            assert!(
                self.source.is_successor(words, actor, &self.made[at..]),
                "a step that changes each vCPU changes it by itself"
            );
        }
        self.outcome.transitions += 1;
        self.candidates.push(Candidate {
            fingerprint: never_zero(sum),
            parent,
            how: How::Words(at as u32),
        });
    }

    /// Whether an actor whose steps are taken by hand has one that may be taken alone.
    fn is_local_by_hand(&mut self, words: &[u64], actor: usize) -> bool {
        let state = self.source.unpack(words);
        self.source
            .choices(&state, self.sections.actor(actor), &mut self.choices)
            .is_some()
    }

    /// Takes an actor's steps by the transition function; what they contribute to what is seen.
    fn take_by_hand(&mut self, words: &[u64], parent: u32, actor: usize) -> Facts {
        let machine = &self.search.machine;
        let actor = self.sections.actor(actor);
        let state = self.source.unpack(words);
        let mut facts = Facts::default();
        self.source.choices(&state, actor, &mut self.choices);
        self.outcome.transitions += self.choices.len() as u64;
        for &choice in &self.choices {
            let step = Step { actor, choice };
            facts.join(Facts::of_step(machine, &state, step));
            let mut after = state.clone();
            let effect = apply(machine, &mut after, step);
            self.source.note_refused(&state, step, &after);
            self.outcome
                .broken_after
                .union(oracle::check_effect(machine, &after, effect));
            let made = self.source.pack(&mut after);
            self.candidates.push(Candidate {
                fingerprint: self.sections.fingerprint(&made),
                parent,
                how: How::Words(self.made.len() as u32),
            });
            self.made.extend(made);
        }
        facts
    }

    /// Writes a candidate's words.
    #[inline(always)]
    fn write(&self, memo: &Memo, block: &Block, candidate: &Candidate, out: &mut [u64]) {
        let words = self.layout.of::<N>().words;
        let out = &mut out[..words];
        match candidate.how {
            How::Words(at) => {
                out.copy_from_slice(&self.made[at as usize..at as usize + words]);
            }
            How::Memo(successor) => {
                let parent = candidate.parent as usize;
                let from = &block.records[parent..parent + words];
                out.copy_from_slice(from);
                memo.write::<N>(self.sections, successor, out);
                if self.job.audit.wants(candidate.fingerprint) {
                    assert!(
                        self.source
                            .is_successor(from, usize::from(successor.actor), out),
                        "a successor from the memo is one of the transition function"
                    );
                }
            }
        }
    }

    /// Puts representatives in the place of candidates.
    fn represent(&mut self, desk: &mut Desk<L>, block: &Block) {
        let mut words = vec![0; self.layout.words];
        for index in 0..self.candidates.len() {
            self.write(&desk.memo, block, &self.candidates[index], &mut words);
            let audited = self.job.audit.wants(self.candidates[index].fingerprint);
            if desk
                .representative
                .replace(self.search, &mut words, audited)
            {
                let candidate = &mut self.candidates[index];
                candidate.fingerprint = self.sections.fingerprint(&words);
                candidate.how = How::Words(self.made.len() as u32);
                self.made.extend_from_slice(&words);
            }
        }
    }

    /// Lets threads that stand between two calls go on at once.
    fn go_on(&mut self, desk: &Desk<L>, block: &Block) {
        let mut words = Vec::new();
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain_mut(|candidate| {
            if let How::Memo(successor) = candidate.how
                && !self.sections.is_thread(usize::from(successor.actor))
            {
                return true;
            }
            words.resize(self.layout.words, 0);
            self.write(&desk.memo, block, candidate, &mut words);
            match self.search.go_on(&mut words) {
                Ok(false) => {}
                Ok(true) => {
                    candidate.fingerprint = self.sections.fingerprint(&words);
                    candidate.how = How::Words(self.made.len() as u32);
                    self.made.extend_from_slice(&words);
                }
                Err(_) => {
                    self.outcome.waiting.push(std::mem::take(&mut words));
                    return false;
                }
            }
            true
        });
        self.candidates = candidates;
    }

    /// Looks the candidates up; what is new joins the next level.
    fn flush(&mut self, desk: &mut Desk<L>, block: &Block, shared: bool) {
        if self.search.machine.code.is_some() {
            self.go_on(desk, block);
        }
        if !desk.representative.is_trivial() {
            self.represent(desk, block);
        }
        for candidate in &self.candidates {
            self.touched ^= self.table.touch(candidate.fingerprint);
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        if self.job.has_too_many() {
            candidates.clear();
        }
        for candidate in &candidates {
            let new = if shared {
                self.table.insert_shared(candidate.fingerprint)
            } else {
                self.table.insert(candidate.fingerprint)
            };
            if new {
                self.inserted += 1;
                self.record(&mut desk.memo, block, candidate);
            }
        }
        self.candidates = candidates;
        self.candidates.clear();
        self.made.clear();
    }

    /// Appends the record of a new state to the next level.
    #[inline(always)]
    fn record(&mut self, memo: &mut Memo, block: &Block, candidate: &Candidate) {
        let layout = self.layout.of::<N>();
        if self.open.is_empty() {
            self.open.resize(BLOCK_STATES * layout.len(), 0);
            self.used = 0;
        }
        let mut open = std::mem::take(&mut self.open);
        let record = &mut open[self.used..self.used + layout.len()];
        self.used += layout.len();
        self.write(memo, block, candidate, record);
        if self.job.audit.wants(candidate.fingerprint) {
            assert_eq!(
                candidate.fingerprint,
                self.sections.fingerprint(&record[..layout.words]),
                "a fingerprint made of differences is that of the state"
            );
        }
        record[layout.words] = candidate.fingerprint;
        let parent = candidate.parent as usize;
        let parent = &block.records[parent..parent + layout.len()];
        self.carry(memo, parent, record);
        if let How::Memo(successor) = candidate.how {
            let (words, rest) = record.split_at_mut(layout.words);
            let next = memo.next::<L, N>(&self.source, words, successor);
            rest[2 + usize::from(successor.actor)] = u64::from(next);
        }
        self.open = open;
        if self.used == self.open.len() {
            self.close_block();
        }
    }

    /// Fills in the entries of a state that still stand after the step from its parent.
    #[inline(always)]
    fn carry(&self, memo: &Memo, parent: &[u64], record: &mut [u64]) {
        let layout = self.layout.of::<N>();
        let sections = self.sections;
        let vm = sections.vm::<N>();
        let differs = |record: &[u64], mut section: std::ops::Range<usize>| {
            section.any(|index| parent[index] != record[index])
        };
        let at = layout.entries_at();
        let old = if differs(record, vm.clone()) { OLD } else { 0 };
        record[at] = parent[at] | old;
        let mut vcpus = 0_u64;
        let mut control = false;
        for vcpu in 0..sections.vcpus() {
            let section = sections.own::<N>(vcpu);
            if differs(record, section.clone()) {
                vcpus |= 1 << vcpu;
                control |= section
                    .zip(sections.control())
                    .any(|(index, mask)| (parent[index] ^ record[index]) & mask != 0);
            }
        }
        let words = 0..layout.words;
        let same_context = !sections
            .any_thread_changed(&parent[words.clone()], &record[words.clone()])
            || sections.context(&parent[words.clone()]) == sections.context(&record[words]);
        for actor in 0..layout.entries - 1 {
            let changed = if actor < sections.vcpus() {
                !same_context || vcpus >> actor & 1 != 0
            } else {
                differs(record, sections.own::<N>(actor))
            };
            if changed {
                continue;
            }
            let entry = parent[at + 1 + actor];
            let bits = vm.clone().map(|index| parent[index] ^ record[index]);
            let stands = memo.stands(entry as EntryAt, vcpus, control, bits);
            record[at + 1 + actor] = if stands { entry } else { entry | OLD };
        }
    }

    fn close_block(&mut self) {
        if self.used > 0 {
            let mut records = std::mem::take(&mut self.open);
            records.truncate(self.used);
            records.shrink_to_fit();
            self.used = 0;
            let block = Block {
                records,
                owner: self.owner,
            };
            self.job.bytes.fetch_add(block.bytes(), Relaxed);
            self.outcome.next.push(block);
        }
    }
}
