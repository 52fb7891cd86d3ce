//! What each actor can do next and what it contributes to the claims, remembered by what that depends on.
//!
//! Many states differ only in what a vCPU's or thread's next step does not read
//! ([`dirtysim_model::footprint`]). The memo asks the one transition function once for each combination of what it does read, and
//! answers from a table afterwards: the successors as sections that change, and what the section contributes to the
//! oracle's verdict and to what was seen. Nothing here knows what a step does. Wherever assertions are on, every answer
//! is computed again and compared, and so is every successor that is made of it.
//!
//! Bits of the VM-wide section that a step does not read may still be written: set, cleared or left alone. To learn
//! which, the step is taken twice, with all of them 0 and with all of them 1.
//!
//! Each worker has a memo of its own, which forgets everything when it has grown too large.

use dirtysim_model::footprint::Reach;
use dirtysim_model::layout::Layout;
use dirtysim_model::oracle::parts::{Claimed, Part};
use dirtysim_model::step::{Actor, Effect, Step, apply};

use super::index::Index;
use super::sections::{Sections, section_hash};
use super::source::Source;
use crate::sometimes::Facts;

/// Words of the table of entries, 32 MiB: a memo that has filled them starts anew.
const ARENA_WORDS: usize = 1 << 22;

/// The steps must be taken by the transition function, state by state: they depend on more than the key.
const BY_HAND: u64 = 1 << 0;
/// The only successor may be taken alone.
const LOCAL: u64 = 1 << 1;
/// The step changes each vCPU's section besides, by itself: see [`Memo::response`].
const EACH_VCPU: u64 = 1 << 2;
/// In the first word: successors from this bit on, 16 bits.
const COUNT_AT: u32 = 8;
/// In the first word: words of the key from this bit on, 8 bits.
const KEY_LEN_AT: u32 = 24;

// An entry is its first word, the key, and a body:
const PART: usize = 0;
const STEP_FACTS: usize = 4;
const CONTEXT_FACTS: usize = 5;
const CLAIMED: usize = 6;
/// The vCPUs whose sections the entry depends on, a bit each; [`ON_CONTROL`].
const DEPENDS: usize = 7;
/// The bits of the VM-wide section that it depends on, then the successors.
const MASK: usize = 8;
/// It depends on every vCPU's control.
const ON_CONTROL: u64 = 1 << 32;

// A successor: what its own section, and a vCPU's that it changes with it, add to the fingerprint; the entry of the actor
// in the state after it, where that is known; bits of the VM-wide section that are set, and those that are kept; the
// own section; the vCPU's.
const NEXT: usize = 1;
const SET: usize = 2;

/// What an entry is about.
#[derive(Clone, Copy)]
enum Kind {
    Vm,
    Actor,
    Response,
}

/// Where an entry is in a memo, counted from 1; 0: not known.
pub(super) type EntryAt = u32;

/// One successor in a memo.
#[derive(Clone, Copy)]
pub(super) struct Successor {
    at: u32,
    actor: Actor,
    /// A vCPU whose section a thread's step changes as well.
    vcpu: Option<u8>,
}

impl Successor {
    pub(super) fn actor(self) -> Actor {
        self.actor
    }
}

/// A table of what actors do.
pub(super) struct Memo {
    /// By kind of entry.
    indices: [Index; 3],
    arena: Vec<u64>,
    key: Vec<u64>,
    generation: u32,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self {
            indices: [(); 3].map(|()| Index::new()),
            arena: Vec::new(),
            key: Vec::new(),
            generation: 1,
        }
    }

    /// Forgets everything if there is too much of it; entries of other generations are void.
    pub(super) fn make_room(&mut self) -> u32 {
        if self.arena.len() > ARENA_WORDS {
            self.arena.clear();
            self.indices = [(); 3].map(|()| Index::new());
            self.generation += 1;
        }
        self.generation
    }

    /// The entry for the key in work, made by `fill` if it is new.
    #[inline]
    fn find(
        &mut self,
        kind: Kind,
        hash: u64,
        fill: impl Fn(&mut Vec<u64>),
        is_right: impl Fn(&[u64], &[u64]) -> bool,
    ) -> EntryAt {
        let index = &self.indices[kind as usize];
        let found = index.find(hash, |at| {
            let words = &self.arena[at as usize..];
            words.iter().zip(&self.key).all(|(old, new)| old == new)
        });
        if let Some(at) = found {
            debug_assert!(
                {
                    let mut anew = self.begin_entry();
                    fill(&mut anew);
                    is_right(&self.arena[at as usize - 1..], &anew)
                },
                "an entry depends on its key alone"
            );
            return at;
        }
        let at = self.arena.len() as u32 + 1;
        self.indices[kind as usize].insert(hash, at);
        let mut entry = self.begin_entry();
        fill(&mut entry);
        self.arena.append(&mut entry);
        at
    }

    fn begin_entry(&self) -> Vec<u64> {
        let mut entry = vec![(self.key.len() as u64) << KEY_LEN_AT];
        entry.extend_from_slice(&self.key);
        entry
    }

    /// The entry for the VM-wide section: what it contributes.
    #[inline]
    pub(super) fn vm_entry<L: Layout>(&mut self, source: &Source<'_, L>, words: &[u64]) -> EntryAt {
        let vm = source.sections.vm();
        let hash = source.sections.hash(words, vm.clone());
        self.key.clear();
        self.key.extend_from_slice(&words[vm]);
        self.find(
            Kind::Vm,
            hash,
            |entry| {
                let part = Part::of_vm(source.machine, &source.unpack(words));
                entry.extend(part.to_words());
            },
            |old, new| old.starts_with(new),
        )
    }

    /// The entry for what `actor` does in the state of `words`.
    #[inline]
    pub(super) fn entry<L: Layout>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: Actor,
    ) -> EntryAt {
        let sections = source.sections;
        let key = &mut self.key;
        key.clear();
        let context = match actor {
            Actor::Vcpu(_) => source.context(words),
            Actor::Thread(_) | Actor::Device(_) => 0,
        };
        key.push(context << 16 | sections.number(actor) as u64);
        masked_vm(sections, words, actor, key);
        key.extend_from_slice(&words[sections.own(actor)]);
        match sections.reach(words, actor) {
            Reach::Own | Reach::EachVcpu | Reach::Everything => {}
            Reach::IndexedVcpu => {
                let vcpu = sections.indexed_vcpu(words, actor);
                key.extend_from_slice(&words[sections.vcpu(vcpu)]);
            }
            Reach::Control | Reach::Gate => {
                for vcpu in 0..sections.vcpus() {
                    let section = &words[sections.vcpu(vcpu)];
                    let bits = section.iter().zip(sections.control());
                    key.extend(bits.map(|(word, mask)| word & mask));
                }
            }
        }
        let hash = section_hash(0, key);
        self.find(
            Kind::Actor,
            hash,
            |entry| fill(source, words, actor, entry),
            |old, new| is_same(sections, words, actor, old, new),
        )
    }

    /// What the only step of `actor` makes of a vCPU's section, where it changes each by itself: how that changes the
    /// fingerprint, and the section.
    #[inline]
    pub(super) fn response<L: Layout>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: Actor,
        vcpu: usize,
    ) -> (u64, &[u64]) {
        let sections = source.sections;
        let section = sections.vcpu(vcpu);
        let key = &mut self.key;
        key.clear();
        key.push(source.context(words) << 16 | (vcpu as u64) << 8 | sections.number(actor) as u64);
        masked_vm(sections, words, actor, key);
        key.extend_from_slice(&words[sections.own(actor)]);
        key.extend_from_slice(&words[section.clone()]);
        let hash = section_hash(0, key);
        let at = self.find(
            Kind::Response,
            hash,
            |entry| {
                let state = source.unpack(words);
                let mut choices = Vec::new();
                source.choices(&state, actor, &mut choices);
                let choice = choices[0];
                let after = source.after(&state, Step { actor, choice }).1;
                let difference = sections
                    .hash(&after, section.clone())
                    .wrapping_sub(sections.hash(words, section.clone()));
                entry.push(difference);
                entry.extend_from_slice(&after[section.clone()]);
            },
            |old, new| old.starts_with(new),
        );
        let body = self.body(at);
        (body[0], &body[1..1 + section.len()])
    }

    #[inline(always)]
    fn first(&self, at: EntryAt) -> u64 {
        self.arena[at as usize - 1]
    }

    #[inline(always)]
    fn body_at(&self, at: EntryAt) -> usize {
        at as usize + (self.first(at) >> KEY_LEN_AT & 0xff) as usize
    }

    #[inline(always)]
    fn body(&self, at: EntryAt) -> &[u64] {
        &self.arena[self.body_at(at)..]
    }

    /// Brings an entry into the cache; answers something that depends on it, so that the loads are made.
    #[inline(always)]
    pub(super) fn touch(&self, at: EntryAt) -> u64 {
        let at = at as usize;
        let near = self.arena.get(at).copied().unwrap_or(0);
        near ^ self.arena.get(at + 8).copied().unwrap_or(0)
    }

    /// What the entry contributes to the verdict on the state.
    #[inline(always)]
    pub(super) fn part(&self, at: EntryAt) -> Part {
        let words = &self.body(at)[PART..PART + 4];
        Part::from_words([words[0], words[1], words[2], words[3]])
    }

    /// What the actor's steps contribute to what is seen.
    #[inline(always)]
    pub(super) fn step_facts(&self, at: EntryAt) -> Facts {
        Facts::from_word(self.body(at)[STEP_FACTS])
    }

    /// What the actor contributes to what others' steps show.
    #[inline(always)]
    pub(super) fn context_facts(&self, at: EntryAt) -> Facts {
        Facts::from_word(self.body(at)[CONTEXT_FACTS])
    }

    /// What the actor's step claims.
    #[inline(always)]
    pub(super) fn claimed(&self, at: EntryAt) -> Claimed {
        Claimed::from_word(self.body(at)[CLAIMED])
    }

    /// Whether the steps must be taken by the transition function.
    #[inline(always)]
    pub(super) fn is_by_hand(&self, at: EntryAt) -> bool {
        self.first(at) & BY_HAND != 0
    }

    /// Whether the only successor may be taken alone.
    #[inline(always)]
    pub(super) fn is_local(&self, at: EntryAt) -> bool {
        self.first(at) & LOCAL != 0
    }

    /// Whether the step changes each vCPU's section by itself.
    #[inline(always)]
    pub(super) fn changes_each_vcpu(&self, at: EntryAt) -> bool {
        self.first(at) & EACH_VCPU != 0
    }

    /// Whether an entry still stands where these bits of the VM-wide section, these vCPUs, and some vCPU's control were
    /// changed.
    #[inline(always)]
    pub(super) fn stands(
        &self,
        at: EntryAt,
        vm: impl Iterator<Item = u64>,
        vcpus: u64,
        control: bool,
    ) -> bool {
        let body = self.body(at);
        body[DEPENDS] & (vcpus | if control { ON_CONTROL } else { 0 }) == 0
            && vm.zip(&body[MASK..]).all(|(bits, mask)| bits & mask == 0)
    }

    /// Whether what an actor depends on after a step is determined by what it depended on before, at `at`, and by the step.
    pub(super) fn determines_next(
        &self,
        at: EntryAt,
        sections: &Sections,
        actor: Actor,
        after: &[u64],
    ) -> bool {
        let body = self.body(at);
        let within = match sections.reach(after, actor) {
            Reach::Own | Reach::EachVcpu | Reach::Everything => true,
            Reach::IndexedVcpu => body[DEPENDS] >> sections.indexed_vcpu(after, actor) & 1 != 0,
            Reach::Control | Reach::Gate => false,
        };
        let mut mask = Vec::new();
        sections.mask(after, actor, &mut mask);
        within
            && mask
                .iter()
                .zip(&body[MASK..])
                .all(|(after, before)| after & !before == 0)
    }

    /// The successors of an entry that is not by hand.
    #[inline(always)]
    pub(super) fn successors<'m, L: Layout>(
        &'m self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: Actor,
        at: EntryAt,
    ) -> impl Iterator<Item = Successor> + use<'m, L> {
        let sections = source.sections;
        let count = (self.first(at) >> COUNT_AT & 0xffff) as u32;
        let vcpu = match sections.reach(words, actor) {
            Reach::IndexedVcpu => Some(sections.indexed_vcpu(words, actor) as u8),
            _ => None,
        };
        let stride = stride(sections, actor, vcpu) as u32;
        let first = (self.body_at(at) + MASK + sections.vm().len()) as u32;
        (0..count).map(move |index| Successor {
            at: first + index * stride,
            actor,
            vcpu,
        })
    }

    /// By how much the sum of a successor's sections' hashes differs from its state's, the VM-wide section apart.
    #[inline(always)]
    pub(super) fn difference(&self, successor: Successor) -> u64 {
        self.arena[successor.at as usize]
    }

    /// The successor's VM-wide section, from its state's.
    #[inline(always)]
    pub(super) fn vm_word(
        &self,
        successor: Successor,
        sections: &Sections,
        index: usize,
        word: u64,
    ) -> u64 {
        let set = successor.at as usize + SET + index;
        word & self.arena[set + sections.vm().len()] | self.arena[set]
    }

    /// The entry of the successor's own actor, where it is known.
    #[inline(always)]
    pub(super) fn next(&self, successor: Successor) -> EntryAt {
        self.arena[successor.at as usize + NEXT] as EntryAt
    }

    /// From now on it is known.
    pub(super) fn set_next(&mut self, successor: Successor, at: EntryAt) {
        self.arena[successor.at as usize + NEXT] = u64::from(at);
    }

    /// Writes a successor's sections over those of its state.
    #[inline]
    pub(super) fn write(&self, sections: &Sections, successor: Successor, words: &mut [u64]) {
        for index in sections.vm() {
            words[index] = self.vm_word(successor, sections, index, words[index]);
        }
        let mut at = successor.at as usize + SET + 2 * sections.vm().len();
        let vcpu = successor.vcpu.map(|vcpu| sections.vcpu(usize::from(vcpu)));
        for section in [Some(sections.own(successor.actor)), vcpu]
            .into_iter()
            .flatten()
        {
            for word in &mut words[section] {
                *word = self.arena[at];
                at += 1;
            }
        }
    }
}

/// Appends what an actor's next step reads of the VM-wide section.
#[inline]
fn masked_vm(sections: &Sections, words: &[u64], actor: Actor, key: &mut Vec<u64>) {
    let at = key.len();
    sections.mask(words, actor, key);
    for (bits, word) in key[at..].iter_mut().zip(words) {
        *bits &= word;
    }
}

/// Words of one successor.
#[inline(always)]
fn stride(sections: &Sections, actor: Actor, vcpu: Option<u8>) -> usize {
    SET + 2 * sections.vm().len()
        + sections.own(actor).len()
        + vcpu.map_or(0, |vcpu| sections.vcpu(usize::from(vcpu)).len())
}

/// Whether two entries for the same key say the same, whatever is known of the entries that follow.
fn is_same(sections: &Sections, words: &[u64], actor: Actor, old: &[u64], new: &[u64]) -> bool {
    let vcpu = match sections.reach(words, actor) {
        Reach::IndexedVcpu => Some(sections.indexed_vcpu(words, actor) as u8),
        _ => None,
    };
    let body = 1 + (new[0] >> KEY_LEN_AT & 0xff) as usize;
    let first = body + MASK + sections.vm().len();
    let stride = stride(sections, actor, vcpu);
    new.iter()
        .zip(old)
        .enumerate()
        .all(|(at, (new, old))| new == old || (at >= first && (at - first) % stride == NEXT))
}

/// Appends the body of the entry for `actor` in the state of `words`.
fn fill<L: Layout>(source: &Source<'_, L>, words: &[u64], actor: Actor, entry: &mut Vec<u64>) {
    let (machine, sections) = (source.machine, source.sections);
    let vm = sections.vm();
    let mut mask = Vec::new();
    sections.mask(words, actor, &mut mask);
    // What is not read: all 0, and all 1.
    let [mut zeros, mut ones] = [words.to_vec(), words.to_vec()];
    for index in vm.clone() {
        zeros[index] &= mask[index];
        ones[index] |= !mask[index] & sections.used()[index];
    }
    let [state, other] = [source.unpack(&zeros), source.unpack(&ones)];
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
    let reach = sections.reach(words, actor);
    let (vcpu, depends) = match reach {
        Reach::IndexedVcpu => {
            let vcpu = sections.indexed_vcpu(words, actor);
            (Some(vcpu as u8), 1 << vcpu)
        }
        Reach::Control | Reach::Gate => (None, ON_CONTROL),
        Reach::Own | Reach::EachVcpu | Reach::Everything => (None, 0),
    };
    let each = matches!(reach, Reach::EachVcpu | Reach::Gate);
    let body = entry.len();
    entry.extend(part.to_words());
    entry.extend([0, context.to_word(), 0, depends]);
    entry.extend_from_slice(&mask);
    let mut choices = Vec::new();
    let local = source.choices(&state, actor, &mut choices).is_some();
    let by_hand =
        reach == Reach::Everything || !machine.mutations.is_empty() || (each && choices.len() > 1);
    if by_hand {
        entry[0] |= BY_HAND;
        return;
    }
    let mut facts = Facts::default();
    let mut claimed = Claimed::default();
    for &choice in &choices {
        let step = Step { actor, choice };
        facts.join(Facts::of_step(machine, &state, step));
        let mut after = state.clone();
        let effect = apply(machine, &mut after, step);
        if effect != Effect::None {
            claimed = Claimed::of(machine, &after, effect);
        }
        let from_zeros = source.pack(&mut after);
        let from_ones = source.after(&other, step).1;
        let at = entry.len();
        entry.extend([0, 0]);
        entry.extend(vm.clone().map(|index| from_zeros[index]));
        // What both give is given whatever the bit was before.
        entry.extend(
            vm.clone()
                .map(|index| from_ones[index] & !from_zeros[index] & !mask[index]),
        );
        let vcpu = vcpu.map(|vcpu| sections.vcpu(usize::from(vcpu)));
        for section in [Some(sections.own(actor)), vcpu].into_iter().flatten() {
            let difference = sections
                .hash(&from_zeros, section.clone())
                .wrapping_sub(sections.hash(words, section.clone()));
            entry[at] = entry[at].wrapping_add(if section.is_empty() { 0 } else { difference });
            entry.extend_from_slice(&from_zeros[section]);
        }
    }
    entry[body + STEP_FACTS] = facts.to_word();
    entry[body + CLAIMED] = claimed.to_word();
    entry[0] |= (choices.len() as u64) << COUNT_AT;
    if local {
        entry[0] |= LOCAL;
    }
    if each && !choices.is_empty() {
        entry[0] |= EACH_VCPU;
    }
}
