//! Every state of which the tracked page is a part: breadth first, by the transition function, whole states.

use std::collections::BTreeSet;

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::reduce::independence::{Rule, Rules};
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::reduce::symmetry::Symmetry;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{self, Actor, Effect, Step, apply, describe};
use dirtysim_model::words::{Frame, Subject};
use foldhash::fast::FixedState;
use indexmap::IndexMap;
use rayon::prelude::*;

use super::others::{Tried, for_each_choice, forget, local_choices};
use super::{PAGES, TRACKED};
use crate::refused::{Call, Refused};
use crate::run::breaks_progress;
use crate::search::limits::Limits;
use crate::search::{Limit, Options, Progress, Watch};
use crate::sometimes::Seen;

/// States that a task expands.
const TASK: usize = 256;

/// What the states of a machine came to.
pub(super) struct Explored {
    pub(super) states: u64,
    pub(super) transitions: u64,
    pub(super) depth: u32,
    pub(super) seen: Seen,
    pub(super) refused: BTreeSet<Refused>,
    pub(super) limit: Option<Limit>,
    /// What is broken at the nearest place, and the steps that lead there, in words.
    pub(super) found: Option<(Invariants, Vec<String>)>,
    pub(super) exchanges_vcpus: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) state_bits: u32,
    pub(super) peak_bytes: u64,
}

/// A state as words, in order of discovery, with the number of the one before it and the step between.
pub(super) type Known = IndexMap<Box<[u64]>, Before, FixedState>;

/// The number of the state before one, and the step between; no step for the first.
type Before = (u32, Option<Step>);

/// What a task found of some states.
#[derive(Default)]
struct Found {
    /// Where states are packed.
    words: Vec<u64>,
    next: Vec<(Box<[u64]>, Before)>,
    transitions: u64,
    seen: Seen,
    refused: BTreeSet<Refused>,
    /// The first state, or step out of one, that breaks something.
    broken: Option<(Invariants, u32, Option<Step>)>,
}

pub(super) struct Explorer<'a, L: Layout> {
    machine: &'a Machine,
    tried: Tried,
    rules: Rules,
    packing: Packing,
    symmetry: Symmetry,
    template: State<L>,
}

/// Explores a machine.
pub(super) fn explore<L: Layout>(
    machine: &Machine,
    start: State<L>,
    options: &Options,
    watch: Watch<'_>,
) -> Explored {
    let wanted = options.reductions;
    let rules = Rules::of(machine, |rule| wanted.rules >> rule as u8 & 1 != 0);
    let explorer = Explorer::new(machine, start, Tried::ALL, rules, wanted.vcpus);
    explorer.explore(&Limits::new(options, watch)).0
}

impl<'a, L: Layout> Explorer<'a, L> {
    pub(super) fn new(
        machine: &'a Machine,
        mut start: State<L>,
        tried: Tried,
        rules: Rules,
        vcpus: bool,
    ) -> Self {
        let packing = Packing::new(machine, &start);
        forget(machine, &mut start);
        Self {
            machine,
            tried,
            rules,
            packing,
            symmetry: Symmetry::of(machine, &start, false, vcpus),
            template: start,
        }
    }

    /// Every state, and what they came to.
    pub(super) fn explore(&self, limits: &Limits<'_>) -> (Explored, Known) {
        let packing = self.packing;
        let mut known = Known::default();
        known.insert(self.pack(self.template.clone()), (0, None));
        let mut explored = Explored {
            states: 1,
            transitions: 0,
            depth: 0,
            seen: Seen::default(),
            refused: BTreeSet::new(),
            limit: None,
            found: None,
            exchanges_vcpus: self.symmetry.exchanges_vcpus(),
            rules: self.rules.iter().collect(),
            state_bits: packing.bits(),
            peak_bytes: 0,
        };
        let mut first = 0;
        while first < known.len() {
            let end = known.len();
            let numbers: Vec<u32> = (first as u32..end as u32).collect();
            // A few tasks at a time, so that limits are looked at and a level is not held twice.
            for part in numbers.chunks(TASK * 64) {
                let found: Vec<Found> = part
                    .par_chunks(TASK)
                    .map(|numbers| self.expand(&known, numbers))
                    .collect();
                for found in found {
                    explored.transitions += found.transitions;
                    explored.seen.union(found.seen);
                    explored.refused.extend(found.refused);
                    for (words, from) in found.next {
                        known.entry(words).or_insert(from);
                    }
                    if let (None, Some((broken, state, step))) = (&explored.found, found.broken) {
                        explored.found = Some((broken, self.tell(&known, state, step)));
                    }
                }
                let each = 48 + 8 * packing.words() as u64;
                let progress = Progress {
                    states: known.len() as u64,
                    frontier: (end - first) as u64,
                    depth: explored.depth,
                    bytes: known.len() as u64 * each,
                };
                explored.peak_bytes = progress.bytes;
                explored.states = known.len() as u64;
                explored.limit = limits
                    .reached(&progress)
                    .or_else(|| limits.are_enough(progress.states).then_some(Limit::States));
                if explored.limit.is_some() || known.len() >= u32::MAX as usize / 2 {
                    explored.limit = explored.limit.or(Some(Limit::Memory));
                    return (explored, known);
                }
            }
            if explored.found.is_some() {
                return (explored, known);
            }
            explored.depth += u32::from(known.len() > end);
            first = end;
        }
        (explored, known)
    }

    /// The words of the representative of a state of which the others are forgotten.
    pub(super) fn pack(&self, mut state: State<L>) -> Box<[u64]> {
        let mut words = vec![0; self.packing.words()];
        self.pack_into(&mut state, &mut words);
        words.into_boxed_slice()
    }

    fn pack_into(&self, state: &mut State<L>, words: &mut [u64]) {
        let threads = state.threads.iter();
        let places = threads.map(|thread| (usize::from(thread.op), thread.stage));
        let (_, vcpus) = self.symmetry.applies(places);
        self.packing.pack(self.machine, state, words);
        if vcpus {
            let mut state = self.unpack(words);
            if self.symmetry.canonical(self.machine, &mut state) {
                self.packing.pack(self.machine, &mut state, words);
            }
        }
    }

    pub(super) fn unpack(&self, words: &[u64]) -> State<L> {
        let mut state = self.template.clone();
        self.packing.unpack(self.machine, words, &mut state);
        state
    }

    fn expand(&self, known: &Known, numbers: &[u32]) -> Found {
        let machine = self.machine;
        let mut found = Found::default();
        for &number in numbers {
            let (words, _) = known.get_index(number as usize).expect("it has a number");
            let state = self.unpack(words);
            let mut broken = oracle::check(machine, &state, Effect::None);
            if may_be_stuck(machine, &state) {
                broken.insert(Invariant::MigrationMakesProgress);
            }
            Self::note(broken, number, None, &mut found);
            let alone = actors(&state).find_map(|actor| {
                let local = local_choices(self.tried, &self.rules, machine, &state, actor);
                local.map(|local| (actor, local))
            });
            if let Some((actor, local)) = alone {
                for (valued, choice) in local {
                    self.take(known, number, &valued, Step { actor, choice }, &mut found);
                }
                continue;
            }
            for actor in actors(&state) {
                for_each_choice(self.tried, machine, &state, actor, |valued, choice| {
                    self.take(known, number, valued, Step { actor, choice }, &mut found);
                });
            }
        }
        found
    }

    fn take(&self, known: &Known, number: u32, state: &State<L>, step: Step, found: &mut Found) {
        let machine = self.machine;
        found.transitions += 1;
        found.seen.note(machine, state, step);
        let call = Call::of(machine, state, step);
        let mut after = state.clone();
        let effect = apply(machine, &mut after, step);
        found
            .refused
            .extend(call.and_then(|call| call.refused(&after)));
        forget(machine, &mut after);
        if effect != Effect::None {
            let broken = oracle::check_effect(machine, &after, effect);
            Self::note(broken, number, Some(step), found);
        }
        let mut words = std::mem::take(&mut found.words);
        words.resize(self.packing.words(), 0);
        self.pack_into(&mut after, &mut words);
        if !known.contains_key(&words[..]) {
            found
                .next
                .push((words.clone().into(), (number, Some(step))));
        }
        found.words = words;
    }

    fn note(broken: Invariants, number: u32, step: Option<Step>, found: &mut Found) {
        if found.broken.is_none() && !broken.is_empty() {
            found.broken = Some((broken, number, step));
        }
    }

    /// The steps to a state, and one more.
    fn tell(&self, known: &Known, mut number: u32, last: Option<Step>) -> Vec<String> {
        let mut run = Vec::new();
        let mut step = last;
        loop {
            let (words, &(before, next)) = known.get_index(number as usize).expect("it is known");
            if let Some(step) = step {
                run.push(self.words(&self.unpack(words), step));
            }
            if next.is_none() {
                break;
            }
            (step, number) = (next, before);
        }
        run.reverse();
        run
    }

    /// A step in words.
    fn words(&self, state: &State<L>, step: Step) -> String {
        let who = match step.actor {
            Actor::Vcpu(vcpu) => format!("vcpu{vcpu}"),
            Actor::Thread(thread) => format!("thread{thread}"),
            Actor::Device(device) => format!("device{device}"),
        };
        let page = match transition::subject(self.machine, state, step) {
            Some(Subject::Frame(TRACKED)) => " (the tracked page)",
            Some(Subject::Host(host)) if host.0 == TRACKED.0 => " (the tracked page)",
            Some(_) => " (another page)",
            None => "",
        };
        format!(
            "{who}: {}{page}",
            describe(self.machine, state, step).name()
        )
    }
}

fn actors<L: Layout>(state: &State<L>) -> impl Iterator<Item = Actor> {
    let vcpus = (0..state.vcpus.len()).map(|index| Actor::Vcpu(index as u8));
    let threads = (0..state.threads.len()).map(|index| Actor::Thread(index as u8));
    vcpus.chain(threads)
}

/// Whether nobody need act, whatever the others are: they decide about no step but a load's, which a page that is there has not.
fn may_be_stuck<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    if breaks_progress(machine, state) {
        return true;
    }
    // Asked where no thread has a step, which is seldom.
    let mut acts = false;
    for thread in 0..state.threads.len() {
        transition::for_each_choice(machine, state, Actor::Thread(thread as u8), |_| acts = true);
    }
    if acts {
        return false;
    }
    let mut there = state.clone();
    for page in (0..PAGES).map(Frame).filter(|page| *page != TRACKED) {
        there.present.insert(page);
    }
    breaks_progress(machine, &there)
}
