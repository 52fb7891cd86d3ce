//! Every state of which the tracked page is a part: breadth first, whole states. What an actor does next, with each value of what is
//! forgotten, is asked once for all states that are alike in what it depends on, by the memo of every search ([`Memo`]).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::parts::Part;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::reduce::independence::Rule;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{self, Actor, Effect, Step, apply, describe};
use dirtysim_model::words::{Frame, Subject};
use rayon::prelude::*;

use super::known::Known;
use super::others::{Tried, forget};
use super::{Broken, TRACKED, frame_in};
use crate::refused::Refused;
use crate::search::audit::Audit;
use crate::search::engine::Search;
use crate::search::limits::Limits;
use crate::search::memo::{EntryAt, Memo};
use crate::search::representative::Representative;
use crate::search::sections::section_hash;
use crate::search::{Limit, Progress, Reductions};
use crate::sometimes::{Facts, Seen};
use crate::stuck::{breaks_progress, has_leisure};

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
    pub(super) found: Option<Broken>,
    pub(super) exchanges_vcpus: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) state_bits: u32,
    pub(super) peak_bytes: u64,
}

/// What a task found of some states.
#[derive(Default)]
struct Found {
    /// The words of states that are new, as far as a task knows, and the number of the state before each.
    next: Vec<u64>,
    before: Vec<u32>,
    transitions: u64,
    seen: Seen,
    /// The first state, or step of an actor out of one, that breaks something.
    broken: Option<(Invariants, u32, Option<usize>)>,
}

impl Found {
    fn note(&mut self, broken: Invariants, number: u32, actor: Option<usize>) {
        if self.broken.is_none() && !broken.is_empty() {
            self.broken = Some((broken, number, actor));
        }
    }
}

/// What a worker remembers.
struct Desk<L: Layout> {
    memo: Memo,
    representative: Representative<L>,
    /// The entries of the state in work, an actor each; the words of the successor in work.
    entries: Vec<EntryAt>,
    words: Vec<u64>,
}

pub(super) struct Explorer<'a, L: Layout> {
    search: Search<'a, L>,
    slot: usize,
    has_leisure: bool,
}

/// The first state, in which the others are forgotten.
pub(super) fn begin<L: Layout>(machine: &Machine, slot: usize, mut start: State<L>) -> State<L> {
    forget(machine, slot, &mut start);
    start
}

impl<'a, L: Layout> Explorer<'a, L> {
    /// Of a machine whose first state is `start`.
    pub(super) fn new(
        machine: &'a Machine,
        start: &'a State<L>,
        tried: Tried,
        wanted: Reductions,
        limits: Limits<'a>,
    ) -> Self {
        let wanted = Reductions {
            pages: false,
            ..wanted
        };
        let mut search = Search::new(Cow::Borrowed(machine), start, None, wanted, limits);
        search.others = Some(tried);
        Self {
            slot: tried.slot,
            has_leisure: has_leisure(machine),
            search,
        }
    }

    /// Every state, and what they came to.
    pub(super) fn explore(&self) -> (Explored, Known) {
        let search = &self.search;
        let packing = search.sections.packing();
        let desks: Vec<Mutex<Desk<L>>> = Memo::of_workers(rayon::current_num_threads())
            .map(|memo| {
                Mutex::new(Desk {
                    memo,
                    representative: Representative::new(search),
                    entries: Vec::new(),
                    words: Vec::new(),
                })
            })
            .collect();
        let mut known = Known::new(packing.words());
        known.add(&self.pack(search.start.clone()), 0);
        let mut explored = Explored {
            states: 1,
            transitions: 0,
            depth: 0,
            seen: Seen::default(),
            refused: BTreeSet::new(),
            limit: None,
            found: None,
            exchanges_vcpus: search.symmetry.exchanges_vcpus(),
            rules: search.rules.iter().collect(),
            state_bits: packing.bits(),
            peak_bytes: 0,
        };
        let mut first = 0;
        while first < known.len() && explored.limit.is_none() && explored.found.is_none() {
            let end = known.len();
            let numbers: Vec<u32> = (first as u32..end as u32).collect();
            // A few tasks at a time, so that limits are looked at and a level is not held twice.
            for part in numbers.chunks(TASK * 64) {
                let found: Vec<Found> = part
                    .par_chunks(TASK)
                    .map(|numbers| self.expand(&known, numbers, &desks))
                    .collect();
                for found in found {
                    explored.transitions += found.transitions;
                    explored.seen.union(found.seen);
                    let next = found.next.chunks(packing.words());
                    for (words, before) in next.zip(found.before) {
                        known.add(words, before);
                    }
                    if let (None, Some((broken, state, actor))) = (&explored.found, found.broken) {
                        explored.found = Some((broken, self.tell(&known, state, actor)));
                    }
                }
                let progress = Progress {
                    states: known.len() as u64,
                    frontier: (end - first) as u64,
                    depth: explored.depth,
                    bytes: known.bytes() + desk_bytes(&desks),
                };
                explored.peak_bytes = explored.peak_bytes.max(progress.bytes);
                let limits = &search.limits;
                explored.limit = limits
                    .reached(&progress)
                    .or_else(|| limits.are_enough(progress.states).then_some(Limit::States))
                    .or_else(|| known.is_full().then_some(Limit::Memory));
                if explored.limit.is_some() {
                    break;
                }
            }
            let goes_on = explored.limit.is_none() && explored.found.is_none();
            explored.depth += u32::from(known.len() > end && goes_on);
            first = end;
        }
        explored.states = known.len() as u64;
        explored.refused = search.refused();
        (explored, known)
    }

    fn tracked(&self) -> Frame {
        frame_in(&self.search.machine, self.slot, TRACKED)
    }

    /// The words of the representative of a state of which the others are forgotten.
    pub(super) fn pack(&self, state: State<L>) -> Vec<u64> {
        self.search.representative(state)
    }

    #[cfg(test)]
    pub(super) fn unpack(&self, words: &[u64]) -> State<L> {
        self.search.source().unpack(words)
    }

    /// Checks states and finds their successors.
    fn expand(&self, known: &Known, numbers: &[u32], desks: &[Mutex<Desk<L>>]) -> Found {
        // A desk is one worker's; a poisoned lock means that it panicked, which has ended the search already.
        let worker = rayon::current_thread_index().unwrap_or(0) % desks.len();
        let mut desk = desks[worker].lock().unwrap_or_else(PoisonError::into_inner);
        desk.memo.make_room();
        let mut found = Found::default();
        for &number in numbers {
            self.expand_state(known, number, &mut desk, &mut found);
        }
        found
    }

    fn expand_state(&self, known: &Known, number: u32, desk: &mut Desk<L>, found: &mut Found) {
        let (search, source) = (&self.search, self.search.source());
        let words = known.state(number);
        let vm = desk.memo.vm_entry::<L, 0>(&source, words);
        let (_, mut part, _, mut facts) = desk.memo.head(vm);
        desk.entries.clear();
        for actor in 0..search.sections.actors() {
            let entry = desk.memo.entry(&source, words, actor);
            let (_, its_part, _, of_context) = desk.memo.head(entry);
            part = part.join(its_part);
            facts |= of_context;
            desk.entries.push(entry);
        }
        let broken = part.verdict();
        let audited = Audit::after(u64::from(number)).wants(section_hash(0, words));
        if audited {
            assert_eq!(
                broken,
                oracle::check(&search.machine, &source.unpack(words), Effect::None),
                "the parts of a verdict are the verdict"
            );
        }
        found.note(broken, number, None);
        let entries = desk.entries.clone();
        let alone = (0..entries.len()).find(|&actor| {
            let first = desk.memo.first(entries[actor]);
            first.is_local() || first.is_by_hand() && self.is_local_by_hand(words, actor)
        });
        let before = found.transitions;
        let new = found.before.len();
        for actor in alone.map_or(0..entries.len(), |actor| actor..actor + 1) {
            facts |= self.take(known, number, actor, part, desk, found);
        }
        if audited {
            assert!(
                self.are_all(words, alone, known, &found.next[new * words.len()..]),
                "what the memo says of steps is what the transition function says"
            );
        }
        found.seen.add(Facts::from_word(facts));
        let acts = |actor: usize| {
            let first = desk.memo.first(entries[actor]);
            search.sections.is_thread(actor) && !first.is_by_hand() && first.count() > 0
        };
        let rests =
            found.transitions == before || self.has_leisure && !(0..entries.len()).any(acts);
        if rests && may_be_stuck(&search.machine, self.tracked(), &source.unpack(words)) {
            let mut stuck = Invariants::NONE;
            stuck.insert(Invariant::MigrationMakesProgress);
            found.note(stuck, number, None);
        }
    }

    /// Takes an actor's steps; what they contribute to what is seen.
    fn take(
        &self,
        known: &Known,
        number: u32,
        actor: usize,
        part: Part,
        desk: &mut Desk<L>,
        found: &mut Found,
    ) -> u64 {
        let (search, source) = (&self.search, self.search.source());
        let (sections, words) = (&search.sections, known.state(number));
        let entry = desk.entries[actor];
        let (first, _, of_steps, _) = desk.memo.head(entry);
        let mut made = std::mem::take(&mut desk.words);
        let mut of_hand = Facts::default();
        if first.is_by_hand() {
            let state = source.unpack(words);
            let actor_is = sections.actor(actor);
            source.for_each_step([&state; 2], actor_is, &mut |[valued, _], choice| {
                let step = Step {
                    actor: actor_is,
                    choice,
                };
                of_hand.join(Facts::of_step(&search.machine, valued, step));
                let mut after = valued.clone();
                let effect = apply(&search.machine, &mut after, step);
                source.note_refused(valued, step, &after);
                source.forget(&mut after);
                let broken = oracle::check_effect(&search.machine, &after, effect);
                found.note(broken, number, Some(actor));
                made.clear();
                made.extend(source.pack(&mut after));
                self.meet(known, number, &mut made, desk, found);
            });
        } else {
            if let (Some(claimed), Actor::Thread(thread)) = (first.claimed(), sections.actor(actor))
            {
                let broken = claimed.verdict(part, usize::from(thread));
                found.note(broken, number, Some(actor));
            }
            let successors = desk.memo.successors::<0>(sections, actor, entry);
            for (at, successor) in successors.enumerate() {
                made.clear();
                made.extend_from_slice(words);
                if first.changes_each_vcpu() {
                    for vcpu in 0..sections.vcpus() {
                        let step = (actor, at);
                        let memo = &mut desk.memo;
                        let (_, section) = memo.response::<L, 0>(&source, words, step, entry, vcpu);
                        made[sections.own::<0>(vcpu)].copy_from_slice(section);
                    }
                }
                desk.memo.write::<0>(sections, successor, &mut made);
                self.meet(known, number, &mut made, desk, found);
            }
        }
        desk.words = made;
        if first.is_by_hand() {
            of_hand.to_word()
        } else {
            of_steps
        }
    }

    /// Takes a successor in, unless it is known.
    fn meet(
        &self,
        known: &Known,
        number: u32,
        made: &mut [u64],
        desk: &mut Desk<L>,
        found: &mut Found,
    ) {
        found.transitions += 1;
        if !desk.representative.is_trivial() {
            // The state that it is the successor of is audited, or not.
            desk.representative.replace(&self.search, made, false);
        }
        if !known.contains(made) {
            found.next.extend_from_slice(made);
            found.before.push(number);
        }
    }

    /// Whether an actor whose steps are taken by hand has one that may be taken alone.
    fn is_local_by_hand(&self, words: &[u64], actor: usize) -> bool {
        let (source, actor) = (self.search.source(), self.search.sections.actor(actor));
        let state = source.unpack(words);
        source.for_each_step([&state; 2], actor, &mut |_, _| {})
    }

    /// Whether `next` has every successor that is not known, by the transition function, and no other.
    fn are_all(&self, words: &[u64], alone: Option<usize>, known: &Known, next: &[u64]) -> bool {
        let source = self.search.source();
        let state = source.unpack(words);
        let actors = 0..self.search.sections.actors();
        let mut wanted = BTreeSet::new();
        for actor in alone.map_or(actors, |actor| actor..actor + 1) {
            let actor = self.search.sections.actor(actor);
            source.for_each_step([&state; 2], actor, &mut |[valued, _], choice| {
                wanted.insert(self.after(valued, Step { actor, choice }).1);
            });
        }
        wanted.retain(|after| !known.contains(after));
        let next: BTreeSet<Vec<u64>> = next.chunks(words.len()).map(<[u64]>::to_vec).collect();
        wanted == next
    }

    /// What a step breaks whatever the state after it, and that state.
    fn after(&self, state: &State<L>, step: Step) -> (Invariants, Vec<u64>) {
        let machine = &self.search.machine;
        let mut after = state.clone();
        let effect = apply(machine, &mut after, step);
        self.search.source().forget(&mut after);
        let broken = oracle::check_effect(machine, &after, effect);
        (broken, self.search.representative(after))
    }

    /// The steps to a state in words, and one more, of an actor, that breaks something.
    fn tell(&self, known: &Known, number: u32, last: Option<usize>) -> Vec<String> {
        let mut run = Vec::new();
        if let Some(actor) = last {
            let is_it = |broken: Invariants, _: &[u64]| !broken.is_empty();
            run.extend(self.step(known.state(number), Some(actor), &is_it));
        }
        let mut at = number;
        while at != known.before(at) {
            let is_it = |_, after: &[u64]| after == known.state(at);
            run.extend(self.step(known.state(known.before(at)), None, &is_it));
            at = known.before(at);
        }
        run.reverse();
        run
    }

    /// The first step out of a state, of that actor if there is one, that is the one, in words.
    fn step(
        &self,
        words: &[u64],
        only: Option<usize>,
        is_it: &dyn Fn(Invariants, &[u64]) -> bool,
    ) -> Option<String> {
        let source = self.search.source();
        let state = source.unpack(words);
        let mut found = None;
        for actor in 0..self.search.sections.actors() {
            if only.is_some_and(|only| only != actor) {
                continue;
            }
            let actor = self.search.sections.actor(actor);
            source.for_each_step([&state; 2], actor, &mut |[valued, _], choice| {
                let step = Step { actor, choice };
                let (broken, after) = self.after(valued, step);
                if found.is_none() && is_it(broken, &after) {
                    found = Some(self.words(valued, step));
                }
            });
        }
        found
    }

    /// A step in words.
    fn words(&self, state: &State<L>, step: Step) -> String {
        let who = match step.actor {
            Actor::Vcpu(vcpu) => format!("vcpu{vcpu}"),
            Actor::Thread(thread) => format!("thread{thread}"),
            Actor::Device(device) => format!("device{device}"),
        };
        let page = match transition::subject(&self.search.machine, state, step) {
            Some(Subject::Frame(frame)) if frame == self.tracked() => " (the tracked page)",
            Some(Subject::Host(host)) if host.0 == self.tracked().0 => " (the tracked page)",
            Some(_) => " (another page)",
            None => "",
        };
        format!(
            "{who}: {}{page}",
            describe(&self.search.machine, state, step).name()
        )
    }
}

fn desk_bytes<L: Layout>(desks: &[Mutex<Desk<L>>]) -> u64 {
    let desks = desks.iter().filter_map(|desk| desk.lock().ok());
    desks
        .map(|desk| desk.memo.bytes() + desk.representative.bytes())
        .sum()
}

/// Whether nobody need act, whatever the others are: they decide about no step but a load's, which a page that is there has not.
fn may_be_stuck<L: Layout>(machine: &Machine, tracked: Frame, state: &State<L>) -> bool {
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
    for page in machine.slots.iter().flat_map(|slot| slot.frames()) {
        if page != tracked {
            there.present.insert(page);
        }
    }
    breaks_progress(machine, &there)
}
