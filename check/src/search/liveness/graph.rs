//! Every state and the edges between them that a cycle may have.
//!
//! States are numbered in the order of a breadth-first search that goes through each level in order, so that numbers, and
//! all that follows from them, do not depend on threads: threads find successors, one of them gives the numbers.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply, for_each_step};
use rayon::prelude::*;

use super::super::limits::Limits;
use super::super::sections::section_hash;
use super::super::{Limit, Progress, Reduced, memory};
use super::{Actors, Endless, is_at_leisure, is_awaited, is_progress, is_unquiet, queued};
use crate::refused::{Call, Refused};
use crate::stuck::{has_work, is_stuck};

/// States that are expanded before their successors are numbered.
const BATCH_STATES: usize = 1 << 15;
/// Steps out of them, more or less, where each state has many: they are held in memory until their states have numbers.
const BATCH_STEPS: usize = 1 << 18;
/// What is left for judging what was found when the time is over.
const JUDGING: Duration = Duration::from_millis(500);
/// States that one task expands.
const TASK_STATES: usize = 1 << 10;
/// Slots of the smallest table of numbers.
const LEAST_SLOTS: usize = 1 << 16;
/// A number of no state.
pub(super) const NONE: u32 = u32::MAX;

/// Of an edge: the step is progress.
const PROGRESS: u16 = 1 << 15;
/// Of an edge: the guest is not quiet.
const UNQUIET: u16 = 1 << 14;
/// Of a state: the lowest of the vCPUs, a bit each, that can do nothing but what they may as well not do.
const LEISURE_SHIFT: u32 = 12;

/// An edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) to: u32,
    pub(super) actor: Actors,
    marks: u16,
}

impl Edge {
    /// Whether a cycle of that kind may have it.
    pub(super) fn is_of(self, kind: Endless) -> bool {
        self.marks & excluded(kind) == 0
    }
}

/// The marks of the edges that a cycle of that kind has not.
fn excluded(kind: Endless) -> u16 {
    match kind {
        Endless::WithoutProgress => PROGRESS,
        Endless::WithoutEnd => UNQUIET,
    }
}

/// States by number, and their edges.
#[derive(Default)]
pub(super) struct Graph {
    /// By state: its fingerprint.
    prints: Vec<u64>,
    /// By state: the one that it was found from; [`NONE`] for the first.
    parents: Vec<u32>,
    /// By state that was expanded: who can act, and whose acting nobody may count on.
    enabled: Vec<u16>,
    /// By state that was expanded: who is in a queue.
    queued: Vec<u8>,
    /// By state that was expanded: where its edges end in the lists below.
    ends: Vec<u32>,
    targets: Vec<u32>,
    /// By edge: who acts, and its marks.
    actors: Vec<u16>,
    /// By level: its first state.
    levels: Vec<u32>,
    /// States in which every program has come to its end though somebody can act: nothing is missed there.
    idle: Vec<u32>,
    /// States in which no end is awaited any more though somebody can act.
    ended: Vec<u32>,
    deadlock: Option<u32>,
    /// Fingerprints to numbers: a number and 1, or 0.
    slots: Vec<u32>,
    pub(super) transitions: u64,
    pub(super) without_progress: u64,
    pub(super) depth: u32,
    /// Ioctls that were refused.
    pub(super) refused: BTreeSet<Refused>,
}

impl Graph {
    pub(super) fn states(&self) -> usize {
        self.prints.len()
    }

    /// States whose edges are known: all, unless a limit came first.
    pub(super) fn expanded(&self) -> usize {
        self.enabled.len()
    }

    fn edges(&self) -> usize {
        self.targets.len()
    }

    /// Whose acting fairness counts on: who can act; for an end also only vCPUs that do not merely store on and on.
    pub(super) fn enabled(&self, state: u32, kind: Endless) -> Actors {
        let marks = self.enabled[state as usize];
        let actors = Actors(marks & Actors::ALL);
        match kind {
            Endless::WithoutProgress => actors,
            Endless::WithoutEnd => actors.without(Actors(marks >> LEISURE_SHIFT)),
        }
    }

    /// Who waits for what is had in turn.
    pub(super) fn queued(&self, state: u32) -> Actors {
        Actors(u16::from(self.queued[state as usize]))
    }

    /// Whether nobody waits for anything any more.
    pub(super) fn is_over(&self, state: u32, kind: Endless) -> bool {
        let over = match kind {
            Endless::WithoutProgress => &self.idle,
            Endless::WithoutEnd => &self.ended,
        };
        over.binary_search(&state).is_ok()
    }

    /// The deadlock that is nearest to the start.
    pub(super) fn deadlock(&self) -> Option<u32> {
        self.deadlock
    }

    /// Whether a state is on an earlier level than another.
    pub(super) fn is_nearer(&self, state: u32, other: u32) -> bool {
        let level = |state| self.levels.partition_point(|first| *first <= state);
        level(state) < level(other)
    }

    /// The places of a state's edges in the lists; a state that was not expanded has none.
    fn places(&self, state: u32) -> Range<usize> {
        let state = state as usize;
        let end = self.ends.get(state).map_or(0, |end| *end as usize);
        let begin = match state {
            0 => 0,
            _ => self.ends.get(state - 1).map_or(end, |end| *end as usize),
        };
        begin.min(end)..end
    }

    fn edge_at(&self, place: usize) -> Edge {
        let marks = self.actors[place];
        Edge {
            to: self.targets[place],
            actor: Actors(marks & Actors::ALL),
            marks,
        }
    }

    /// The edge of that number of a state, of whatever kind.
    pub(super) fn edge(&self, state: u32, number: u32) -> Option<Edge> {
        let place = self.places(state).nth(number as usize)?;
        Some(self.edge_at(place))
    }

    /// The edges of a state that a cycle of that kind may have.
    pub(super) fn edges_of(&self, state: u32, kind: Endless) -> impl Iterator<Item = Edge> {
        self.places(state)
            .map(|place| self.edge_at(place))
            .filter(move |edge| edge.is_of(kind))
    }

    /// The states from the first to `state`, along which each was found.
    pub(super) fn way_to(&self, state: u32) -> Vec<u32> {
        let mut way = vec![state];
        let mut at = self.parents[state as usize];
        while at != NONE {
            way.push(at);
            at = self.parents[at as usize];
        }
        way.reverse();
        way
    }

    fn place(&self, print: u64) -> usize {
        ((u128::from(print) * self.slots.len() as u128) >> 64) as usize
    }

    fn slot_of(&self, print: u64) -> Result<u32, usize> {
        let mut at = self.place(print);
        loop {
            match self.slots[at] {
                0 => return Err(at),
                number if self.prints[number as usize - 1] == print => return Ok(number - 1),
                _ => at = (at + 1) % self.slots.len(),
            }
        }
    }

    /// The number of a state that is known.
    pub(super) fn number(&self, print: u64) -> Option<u32> {
        self.slot_of(print).ok()
    }

    /// The number of a state, and whether it is new.
    fn number_or_add(&mut self, print: u64, parent: u32) -> (u32, bool) {
        match self.slot_of(print) {
            Ok(number) => (number, false),
            Err(at) => {
                let number = self.prints.len() as u32;
                self.slots[at] = number + 1;
                push(&mut self.prints, print);
                push(&mut self.parents, parent);
                (number, true)
            }
        }
    }

    /// Slots that the table should have before `coming` more states.
    fn wanted_slots(&self, coming: usize) -> usize {
        let needed = (self.states() + coming) * 10 / 7 + 1;
        if needed <= self.slots.len() {
            self.slots.len()
        } else {
            needed.max(self.slots.len() * 17 / 10).max(LEAST_SLOTS)
        }
    }

    fn grow(&mut self, slots: usize) {
        if slots == self.slots.len() {
            return;
        }
        // The old table is not needed for the new one.
        self.slots = Vec::new();
        self.slots = vec![0; slots];
        for number in 0..self.prints.len() {
            if let Err(at) = self.slot_of(self.prints[number]) {
                self.slots[at] = number as u32 + 1;
            }
        }
    }

    fn bytes(&self) -> u64 {
        let lists = self.prints.capacity() * 8
            + (self.parents.capacity()
                + self.ends.capacity()
                + self.targets.capacity()
                + self.slots.capacity()
                + self.idle.capacity()
                + self.ended.capacity())
                * 4
            + (self.enabled.capacity() + self.actors.capacity()) * 2
            + self.queued.capacity();
        // And what the search for components will take: a number each, its stacks, and the states of a component.
        lists as u64 + self.prints.len() as u64 * 10
    }
}

/// Appends, with room for half as much again, and not for twice as much, where there is none.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 2).max(1024));
    }
    list.push(item);
}

/// What one task finds.
#[derive(Default)]
struct Found {
    states: Vec<Expanded>,
    /// Successors in order.
    prints: Vec<u64>,
    /// Who acted, and the step's marks.
    actors: Vec<u16>,
    words: Vec<u64>,
    refused: BTreeSet<Refused>,
}

/// What there is to know of a state besides its edges.
struct Expanded {
    /// Who can act, and whose acting nobody may count on.
    enabled: u16,
    queued: Actors,
    transitions: u32,
    /// Every program has come to its end though somebody can act.
    idle: bool,
    /// No end is awaited any more though somebody can act.
    ended: bool,
    deadlock: bool,
}

/// The choices that vCPUs and devices have in one state, more or less.
fn choices(machine: &Machine) -> usize {
    let vcpus = machine.vcpus.iter().map(|vcpu| vcpu.frames.len());
    let devices = machine.devices.iter().map(|device| device.frames.len());
    vcpus.chain(devices).sum()
}

/// Builds a [`Graph`].
pub(super) struct Builder<'a, L: Layout> {
    pub(super) machine: &'a Machine,
    pub(super) start: &'a State<L>,
    packing: Packing,
    symmetry: Symmetry,
    limits: Limits<'a>,
    graph: Graph,
    peak_bytes: u64,
}

impl<'a, L: Layout> Builder<'a, L> {
    pub(super) fn new(
        machine: &'a Machine,
        start: &'a State<L>,
        symmetry: Symmetry,
        limits: Limits<'a>,
    ) -> Self {
        Self {
            machine,
            start,
            packing: Packing::new(machine, start),
            symmetry,
            limits,
            graph: Graph::default(),
            peak_bytes: 0,
        }
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    pub(super) fn state_bits(&self) -> u32 {
        self.packing.bits()
    }

    pub(super) fn reduced(&self) -> Reduced {
        Reduced {
            classes: self.symmetry.classes().to_vec(),
            pages_everywhere: self.symmetry.pages_everywhere(),
            order_unknown: false,
            ..Reduced::default()
        }
    }

    /// The packed representative of a state.
    fn pack(&self, state: &mut State<L>, words: &mut [u64]) {
        // Packing clears what nobody can read any more, by which nothing may be ordered.
        self.packing.pack(self.machine, state, words);
        if self.symmetry.canonical(self.machine, state) {
            self.packing.pack(self.machine, state, words);
        }
    }

    /// The number of a state's representative, if it is known.
    pub(super) fn number_of(&self, state: &State<L>) -> Option<u32> {
        let mut words = vec![0; self.packing.words()];
        self.pack(&mut state.clone(), &mut words);
        self.graph.number(section_hash(0, &words))
    }

    /// A state's own bits, pages not exchanged.
    pub(super) fn bits_of(&self, state: &State<L>) -> Vec<u64> {
        let mut words = vec![0; self.packing.words()];
        self.packing
            .pack(self.machine, &mut state.clone(), &mut words);
        words
    }

    /// The limit that keeps what was found from being judged: it has half a second more than the search.
    pub(super) fn over_judging(&self) -> Option<Limit> {
        self.limits.is_over(JUDGING, &self.progress(0))
    }

    fn progress(&self, frontier: u64) -> Progress {
        Progress {
            states: self.graph.states() as u64,
            frontier,
            depth: self.graph.depth,
            bytes: self.peak_bytes,
        }
    }

    /// Goes through all states, level by level; a limit ends it.
    pub(super) fn build(&mut self) -> Option<Limit> {
        let stride = self.packing.words();
        let batch_states = (BATCH_STEPS / choices(self.machine).max(1)).clamp(1, BATCH_STATES);
        let mut level = vec![0; stride];
        self.pack(&mut self.start.clone(), &mut level);
        self.graph.grow(self.graph.wanted_slots(1));
        self.graph.number_or_add(section_hash(0, &level), NONE);
        let mut number = 0_u32;
        loop {
            self.graph.levels.push(number);
            let frontier = (level.len() / stride) as u64;
            let mut next = Vec::new();
            for batch in level.chunks(batch_states * stride) {
                let over = self
                    .limits
                    .is_over(Duration::ZERO, &self.progress(frontier));
                if let Some(limit) = over {
                    return Some(limit);
                }
                let found: Vec<Found> = batch
                    .par_chunks(TASK_STATES * stride)
                    .map(|states| self.expand(states))
                    .collect();
                let coming: usize = found.iter().map(|found| found.prints.len()).sum();
                let slots = self.graph.wanted_slots(coming);
                let buffers: usize = found
                    .iter()
                    .map(|found| found.words.capacity() * 8 + found.prints.capacity() * 10)
                    .sum();
                let blocks = (level.capacity() + next.capacity() + coming * stride) * 8 + buffers;
                let table = (slots - self.graph.slots.len()) * 4;
                let bytes = self.graph.bytes() + (blocks + table) as u64;
                let taken = (table + blocks) as u64;
                if bytes > self.limits.bytes()
                    || (table > 0 && !memory::has_room_for(taken))
                    || self.graph.edges() + coming >= NONE as usize
                    || self.graph.states() + coming >= NONE as usize
                {
                    return Some(Limit::Memory);
                }
                self.peak_bytes = self.peak_bytes.max(bytes);
                self.graph.grow(slots);
                for task in found {
                    if !self.merge(task, &mut number, &mut next) {
                        return Some(Limit::States);
                    }
                }
            }
            if next.is_empty() {
                return None;
            }
            self.graph.depth += 1;
            if self.limits.are_enough(self.graph.states() as u64) {
                return Some(Limit::States);
            }
            level = next;
        }
    }

    fn expand(&self, states: &[u64]) -> Found {
        let stride = self.packing.words();
        let mut found = Found::default();
        let mut state = self.start.clone();
        let mut steps: Vec<Step> = Vec::with_capacity(64);
        for words in states.chunks_exact(stride) {
            self.packing.unpack(self.machine, words, &mut state);
            steps.clear();
            for_each_step(self.machine, &state, |step| steps.push(step));
            let (mut enabled, mut counted_on) = (Actors::default(), Actors::default());
            for &step in &steps {
                enabled.add(step.actor);
                let mut after = state.clone();
                apply(self.machine, &mut after, step);
                let call = Call::of(self.machine, &state, step);
                found
                    .refused
                    .extend(call.and_then(|call| call.refused(&after)));
                let mut marks = Actors::bit(step.actor);
                if is_progress(&state, step, &after) {
                    marks |= PROGRESS;
                }
                if is_unquiet(&state, step, &after) {
                    marks |= UNQUIET;
                }
                if !is_at_leisure(&state, step) {
                    counted_on.add(step.actor);
                }
                found.actors.push(marks);
                let at = found.words.len();
                found.words.resize(at + stride, 0);
                self.pack(&mut after, &mut found.words[at..]);
                found.prints.push(section_hash(0, &found.words[at..]));
            }
            let somebody = !steps.is_empty();
            found.states.push(Expanded {
                enabled: enabled.0 | enabled.without(counted_on).0 << LEISURE_SHIFT,
                queued: queued(self.machine, &state),
                transitions: steps.len() as u32,
                idle: somebody && !has_work(self.machine, &state),
                ended: somebody && !is_awaited(self.machine, &state),
                deadlock: counted_on.is_empty() && is_stuck(self.machine, &state),
            });
        }
        found
    }

    /// Gives numbers to what a task found; false where there would be too many, and then the rest of it is not known.
    fn merge(&mut self, found: Found, number: &mut u32, next: &mut Vec<u64>) -> bool {
        let stride = self.packing.words();
        let graph = &mut self.graph;
        graph.refused.extend(found.refused);
        let mut at = 0;
        for state in found.states {
            let known = graph.states() as u64;
            let steps = &found.prints[at..at + state.transitions as usize];
            if self.limits.are_too_many(known + steps.len() as u64) {
                let new = steps.iter().filter(|print| graph.number(**print).is_none());
                if self.limits.are_too_many(known + new.count() as u64) {
                    return false;
                }
            }
            if state.idle {
                graph.idle.push(*number);
            }
            if state.ended {
                graph.ended.push(*number);
            }
            if state.deadlock {
                graph.deadlock.get_or_insert(*number);
            }
            for _ in 0..state.transitions {
                let (to, new) = graph.number_or_add(found.prints[at], *number);
                if new {
                    next.extend_from_slice(&found.words[at * stride..(at + 1) * stride]);
                }
                let marks = found.actors[at];
                graph.without_progress += u64::from(marks & PROGRESS == 0);
                // What no cycle has is left out.
                if marks & PROGRESS == 0 || marks & UNQUIET == 0 {
                    push(&mut graph.targets, to);
                    push(&mut graph.actors, marks);
                }
                at += 1;
            }
            graph.transitions += u64::from(state.transitions);
            push(&mut graph.enabled, state.enabled);
            // vCPUs and threads have the low bits, and a device waits for nothing.
            push(&mut graph.queued, state.queued.0 as u8);
            push(&mut graph.ends, graph.targets.len() as u32);
            *number += 1;
        }
        true
    }
}
