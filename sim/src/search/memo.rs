//! What each actor can do next and what it contributes to the claims, remembered by the sections that it depends on.
//!
//! Many states differ only in sections that a vCPU's or thread's next step neither reads nor writes
//! ([`dirtysim_model::footprint`]). The memo asks the one transition function once for each combination of sections and
//! answers from a table afterwards: the successors as the sections that change, with the difference that this makes to
//! the fingerprint, and what the actor contributes to the oracle's verdict and to what was seen. Nothing here knows
//! what a step does. Wherever assertions are on, every answer is computed again and compared.
//!
//! Each worker has a memo of its own; it forgets everything when it has grown too large.

use dirtysim_model::footprint::Reach;
use dirtysim_model::independence::Rules;
use dirtysim_model::layout::Layout;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::parts::Part;
use dirtysim_model::pack::Touched;
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Choice, Effect, Step, apply, for_each_choice};

use super::sections::{Sections, section_hash};
use crate::sometimes::Facts;

/// Words of the table of entries, 16 MiB: a memo that has filled them starts anew.
const ARENA_WORDS: usize = 1 << 21;
/// Slots of the index, a power of two; it is never more than half full.
const INDEX_SLOTS: usize = 1 << 18;

/// The steps must be taken by the transition function, state by state: they depend on more than the key, or a claim
/// speaks of them.
const BY_HAND: u64 = 1 << 0;
/// The entry's only successor may be taken alone.
const LOCAL: u64 = 1 << 1;

// Words of an entry: flags with counts, four of a part, two of facts, the key, then the successors.
const PART: usize = 1;
const STEP_FACTS: usize = 5;
const CONTEXT_FACTS: usize = 6;
const KEY: usize = 7;
/// In the first word: successors from this bit on, 16 bits.
const COUNT_AT: u32 = 8;
/// In the first word: words of the key from this bit on.
const KEY_LEN_AT: u32 = 24;

/// Where an entry begins in the table.
#[derive(Clone, Copy)]
pub(super) struct Entry(usize);

/// Where the successors of an entry are, and which sections they change.
#[derive(Clone, Copy)]
pub(super) struct Successors {
    first: usize,
    stride: usize,
    pub(super) count: usize,
    shape: Shape,
}

/// The sections besides the VM-wide one that a step changes.
#[derive(Clone, Copy)]
struct Shape {
    actor: Actor,
    /// A vCPU whose section a thread's step changes as well.
    vcpu: Option<u8>,
}

/// One successor: where its sections are in the table.
#[derive(Clone, Copy)]
pub(super) struct Successor {
    at: usize,
    shape: Shape,
}

/// What does not change while a memo is used.
pub(super) struct Source<'a, L: Layout> {
    pub(super) machine: &'a Machine,
    pub(super) sections: &'a Sections,
    pub(super) rules: &'a Rules,
    /// A template for states.
    pub(super) start: &'a State<L>,
}

impl<L: Layout> Source<'_, L> {
    /// The choices of an actor that a search takes, and whether it takes no other actor's.
    pub(super) fn choices(
        &self,
        state: &State<L>,
        actor: Actor,
        choices: &mut Vec<Choice>,
    ) -> bool {
        choices.clear();
        if let Some(choice) = self.rules.local_choice(self.machine, state, actor) {
            choices.push(choice);
            return true;
        }
        for_each_choice(self.machine, state, actor, |choice| choices.push(choice));
        false
    }

    fn reach(&self, words: &[u64], actor: Actor) -> Reach {
        match actor {
            Actor::Thread(thread) => {
                let thread = usize::from(thread);
                self.sections
                    .reach(thread, self.sections.place(words, thread))
            }
            Actor::Vcpu(_) | Actor::Device(_) => Reach::Own,
        }
    }

    fn shape(&self, words: &[u64], actor: Actor) -> Shape {
        let vcpu = match (actor, self.reach(words, actor)) {
            (Actor::Thread(thread), Reach::IndexedVcpu) => {
                Some(self.sections.place(words, usize::from(thread)).index as u8)
            }
            _ => None,
        };
        Shape { actor, vcpu }
    }

    /// The sections that a shape names.
    fn changed(&self, shape: Shape) -> impl Iterator<Item = std::ops::Range<usize>> {
        let vcpu = shape.vcpu.map(|vcpu| self.sections.vcpu(usize::from(vcpu)));
        [self.sections.vm(), self.sections.own(shape.actor)]
            .into_iter()
            .chain(vcpu)
    }

    /// Appends the entry for `actor` in the state of `words`, whose key is `key`.
    fn entry(&self, words: &[u64], actor: Actor, key: &[u64], out: &mut Vec<u64>) {
        let (machine, sections) = (self.machine, self.sections);
        let mut state = self.start.clone();
        sections.packing().unpack(machine, words, &mut state);
        let (part, context) = match actor {
            Actor::Vcpu(vcpu) => {
                let vcpu = usize::from(vcpu);
                (
                    Part::of_vcpu(machine, &state, vcpu),
                    Facts::of_vcpu(&state, vcpu),
                )
            }
            Actor::Thread(thread) => {
                let thread = usize::from(thread);
                (
                    Part::of_thread(machine, &state, thread),
                    Facts::of_thread(machine, &state, thread),
                )
            }
            Actor::Device(_) => (Part::NEUTRAL, Facts::default()),
        };
        let from = out.len();
        out.push(0);
        out.extend(part.to_words());
        out.extend([0, context.to_word()]);
        out.extend_from_slice(key);
        let mut choices = Vec::new();
        let local = self.choices(&state, actor, &mut choices);
        let mut by_hand = match self.reach(words, actor) {
            Reach::Everything => true,
            Reach::Gate => !choices.is_empty(),
            _ => !machine.mutations.is_empty(),
        };
        let shape = self.shape(words, actor);
        let mut facts = Facts::default();
        let mut after_words = words.to_vec();
        for &choice in &choices {
            let step = Step { actor, choice };
            facts.join(Facts::of_step(machine, &state, step));
            let touched = Touched::by(machine, &state, step);
            let mut after = state.clone();
            by_hand |= apply(machine, &mut after, step) != Effect::None;
            if by_hand {
                break;
            }
            after_words.copy_from_slice(words);
            sections
                .packing()
                .pack_touched(machine, &mut after, touched, &mut after_words);
            debug_assert!(
                self.changes_only(words, shape, &mut after),
                "{step:?} changes the sections of its footprint alone"
            );
            let at = out.len();
            out.push(0);
            let mut difference = 0_u64;
            for section in self.changed(shape) {
                difference = difference
                    .wrapping_add(sections.hash(&after_words, section.clone()))
                    .wrapping_sub(sections.hash(words, section.clone()));
                out.extend_from_slice(&after_words[section]);
            }
            out[at] = difference;
        }
        let mut first = (key.len() as u64) << KEY_LEN_AT;
        if by_hand {
            out.truncate(from + KEY + key.len());
            first |= BY_HAND;
        } else {
            out[from + STEP_FACTS] = facts.to_word();
            first |= (choices.len() as u64) << COUNT_AT;
            if local {
                first |= LOCAL;
            }
        }
        out[from] = first;
    }
}

impl<L: Layout> Source<'_, L> {
    /// Whether the state differs from `words` in the sections that a shape names, and nowhere else.
    fn changes_only(&self, words: &[u64], shape: Shape, after: &mut State<L>) -> bool {
        let mut packed = vec![0; words.len()];
        self.sections
            .packing()
            .pack(self.machine, after, &mut packed);
        for section in self.changed(shape) {
            packed[section.clone()].copy_from_slice(&words[section]);
        }
        packed == words
    }
}

/// A table of what actors do.
pub(super) struct Memo {
    /// 32 bits of a hash, then where the entry begins, plus 1; 0: empty.
    index: Vec<u64>,
    entries: usize,
    arena: Vec<u64>,
    key: Vec<u64>,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self {
            index: vec![0; INDEX_SLOTS],
            entries: 0,
            arena: Vec::new(),
            key: Vec::new(),
        }
    }

    /// Forgets everything if there is too much of it. Entries from before are void.
    pub(super) fn make_room(&mut self) {
        if self.arena.len() > ARENA_WORDS || self.entries > INDEX_SLOTS / 2 {
            self.arena.clear();
            self.index.fill(0);
            self.entries = 0;
        }
    }

    /// The entry for what `actor` does in the state of `words`. `hashes` are those of the VM-wide section and of the
    /// actor's own; `context` is [`Sections::context`].
    #[inline]
    pub(super) fn entry<L: Layout>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: Actor,
        hashes: [u64; 2],
        context: u64,
    ) -> Entry {
        let sections = source.sections;
        // Two actors with the same sections are told apart by the first word, and before that by where these lie.
        let code = match actor {
            Actor::Vcpu(vcpu) => context << 16 | u64::from(vcpu) << 2,
            Actor::Thread(thread) => u64::from(thread) << 2 | 1,
            Actor::Device(device) => u64::from(device) << 2 | 2,
        };
        self.key.clear();
        self.key.push(code);
        self.key.extend_from_slice(&words[sections.vm()]);
        self.key.extend_from_slice(&words[sections.own(actor)]);
        let mut hash = (hashes[0].rotate_left(23) ^ hashes[1])
            .wrapping_add(code.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if let Actor::Thread(thread) = actor {
            let place = sections.place(words, usize::from(thread));
            let from = self.key.len();
            match sections.reach(usize::from(thread), place) {
                Reach::Own | Reach::Everything => {}
                Reach::IndexedVcpu => {
                    let vcpu = sections.vcpu(place.index as usize);
                    self.key.extend_from_slice(&words[vcpu]);
                }
                Reach::Control | Reach::Gate => {
                    for vcpu in 0..sections.vcpus() {
                        let section = &words[sections.vcpu(vcpu)];
                        let bits = section.iter().zip(sections.control());
                        self.key.extend(bits.map(|(word, mask)| word & mask));
                    }
                }
            }
            if self.key.len() > from {
                hash ^= section_hash(0, &self.key[from..]);
            }
        }
        let mut slot = (hash >> 40) as usize & (INDEX_SLOTS - 1);
        let tag = hash << 32;
        loop {
            let found = self.index[slot];
            if found == 0 {
                break;
            }
            let at = (found as u32).wrapping_sub(1) as usize;
            if found & !0xffff_ffff == tag && self.arena[at + KEY..].starts_with(&self.key) {
                debug_assert!(
                    self.is_right(source, words, actor, at),
                    "an entry depends on the sections in its key alone"
                );
                return Entry(at);
            }
            slot = (slot + 1) & (INDEX_SLOTS - 1);
        }
        let at = self.arena.len();
        self.index[slot] = tag | (at as u64 + 1);
        self.entries += 1;
        source.entry(words, actor, &self.key, &mut self.arena);
        Entry(at)
    }

    fn is_right<L: Layout>(
        &self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: Actor,
        at: usize,
    ) -> bool {
        let mut anew = Vec::new();
        source.entry(words, actor, &self.key, &mut anew);
        self.arena[at..].starts_with(&anew)
    }

    /// Whether the steps must be taken by the transition function: they depend on more than the key, or a claim speaks
    /// of them.
    #[inline]
    pub(super) fn is_by_hand(&self, entry: Entry) -> bool {
        self.arena[entry.0] & BY_HAND != 0
    }

    /// Whether the only successor may be taken alone.
    #[inline]
    pub(super) fn is_local(&self, entry: Entry) -> bool {
        self.arena[entry.0] & LOCAL != 0
    }

    /// What the actor contributes to the verdict on the state.
    #[inline]
    pub(super) fn part(&self, entry: Entry) -> Part {
        let words = &self.arena[entry.0 + PART..][..4];
        Part::from_words([words[0], words[1], words[2], words[3]])
    }

    /// What the actor's steps contribute to what is seen.
    #[inline]
    pub(super) fn step_facts(&self, entry: Entry) -> Facts {
        Facts::from_word(self.arena[entry.0 + STEP_FACTS])
    }

    /// What the actor contributes to what others' steps show.
    #[inline]
    pub(super) fn context_facts(&self, entry: Entry) -> Facts {
        Facts::from_word(self.arena[entry.0 + CONTEXT_FACTS])
    }

    /// The successors of an entry that is not by hand, for the actor and the state that it was looked up for.
    #[inline]
    pub(super) fn successors<L: Layout>(
        &self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: Actor,
        entry: Entry,
    ) -> Successors {
        let flags = self.arena[entry.0];
        let shape = source.shape(words, actor);
        let sizes = source.changed(shape).map(|section| section.len());
        Successors {
            first: entry.0 + KEY + (flags >> KEY_LEN_AT) as usize,
            stride: 1 + sizes.sum::<usize>(),
            count: (flags >> COUNT_AT & 0xffff) as usize,
            shape,
        }
    }

    /// One of the successors, and by how much its fingerprint's sum differs from the state's.
    #[inline]
    pub(super) fn successor(&self, all: Successors, index: usize) -> (Successor, u64) {
        let at = all.first + index * all.stride;
        let successor = Successor {
            at: at + 1,
            shape: all.shape,
        };
        (successor, self.arena[at])
    }

    /// Writes a successor's sections over those of its state.
    #[inline]
    pub(super) fn write<L: Layout>(
        &self,
        source: &Source<'_, L>,
        successor: Successor,
        words: &mut [u64],
    ) {
        let mut at = successor.at;
        for section in source.changed(successor.shape) {
            let len = section.len();
            words[section].copy_from_slice(&self.arena[at..at + len]);
            at += len;
        }
    }
}
