//! What each actor can do next and what it contributes to the claims, remembered by what that depends on.
//!
//! Many states differ only in what a vCPU's or thread's next step does not read
//! ([`dirtysim_model::reduce::footprint`]). The memo asks the one transition function once for each combination of what it does read, and
//! answers from a table afterwards: the successors as sections that change, and what the section contributes to the
//! oracle's verdict and to what was seen. Nothing here knows what a step does. Wherever assertions are on, every answer
//! is computed again and compared, and so is every successor that is made of it.
//!
//! Bits of the VM-wide section that a step does not read may still be written: set, cleared or left alone. To learn
//! which, the step is taken twice, with all of them 0 and with all of them 1.
//!
//! Each worker has a memo of its own, which forgets everything when it has grown too large; where there are several,
//! they tell each other what the transition function said ([`Answers`]).

use std::sync::Arc;

use dirtysim_model::mutated;
use dirtysim_model::oracle::parts::{Claimed, Part};
use dirtysim_model::reduce::footprint::undeclared;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Effect, Step, apply};
use dirtysim_model::words::Reach;

use super::answers::Answers;
use super::audit::Audit;
use super::index::Index;
use super::sections::{Sections, hash_words, section_hash};
use super::source::Source;
use crate::sometimes::Facts;

/// Words of the table of entries, 32 MiB: a memo that has filled them starts anew.
const ARENA_WORDS: usize = 1 << 22;
/// Words that there is room for from the start: the system gives a page when it is first written to, and what never moves is
/// never there twice. What comes in while a block of states is in work goes beyond [`ARENA_WORDS`].
const ARENA_ROOM_WORDS: usize = ARENA_WORDS + (1 << 20);

// An entry is a key, five words that every entry has, and a body. The first word has the bits below; then come four of a
// part.

/// The steps must be taken by the transition function, state by state: they depend on more than the key.
const BY_HAND: u64 = 1 << 0;
/// The only successor may be taken alone.
const LOCAL: u64 = 1 << 1;
/// The step changes each vCPU's section besides, by itself: see [`Memo::response`].
const EACH_VCPU: u64 = 1 << 2;
/// Every vCPU's control is in the key.
const ON_CONTROL: u64 = 1 << 3;
/// From this bit on, 8 bits: the vCPU whose section is in the key and that the step changes with its own, plus 1.
const WITH_VCPU: u32 = 8;
/// From this bit on, 8 bits: words of the key.
const KEY_LEN: u32 = 16;
/// From this bit on, 16 bits: successors.
const COUNT: u32 = 24;
const COUNT_MAX: u64 = 0xffff;
/// From this bit on: [`Claimed::to_word`].
const CLAIMED: u32 = 40;

/// Words of an entry that every entry has.
const HEAD: usize = 5;
// The body of an actor's entry: facts, the bits of the VM-wide section that are in the key, then the successors. Facts are
// those of the actor's steps, and from this bit on the halves that it contributes to others' steps.
const CONTEXT: u32 = 48;
const FACTS: usize = HEAD;
/// The two entries that came last in the place of this one, where something that is in the key had changed.
const OTHER: usize = HEAD + 1;
const MASK: usize = HEAD + 2;
/// In the entry of the VM-wide section: its hash.
const VM_HASH: usize = HEAD + 2;

// A successor: what its own section, and a vCPU's that it changes with it, add to the fingerprint; the two entries of the
// actor that were found last in a state after it; bits of the VM-wide section that are set, and those that are kept; the
// own section; the vCPU's.
const NEXT: usize = 1;
const SET: usize = 2;

// The body of a response: what the vCPU's section adds to the fingerprint; the section.
const DIFFERENCE: usize = 0;
const RESPONSE: usize = 1;

/// What an entry is about.
#[derive(Clone, Copy)]
enum Kind {
    Vm,
    Actor,
    Response,
}

/// Where an entry is in a memo; 0: not known.
pub(super) type EntryAt = u32;

/// What an entry says first.
#[derive(Clone, Copy)]
pub(super) struct First(u64);

impl First {
    /// Whether the steps must be taken by the transition function.
    #[inline(always)]
    pub(super) fn is_by_hand(self) -> bool {
        self.0 & BY_HAND != 0
    }

    /// Whether the only successor may be taken alone.
    #[inline(always)]
    pub(super) fn is_local(self) -> bool {
        self.0 & LOCAL != 0
    }

    /// Whether there is something about the steps that most do not have.
    #[inline(always)]
    pub(super) fn is_special(self) -> bool {
        self.0 & (BY_HAND | LOCAL | EACH_VCPU) != 0
    }

    /// Whether the step changes each vCPU's section by itself.
    #[inline(always)]
    pub(super) fn changes_each_vcpu(self) -> bool {
        self.0 & EACH_VCPU != 0
    }

    /// What the actor's step claims, if it claims anything.
    #[inline(always)]
    pub(super) fn claimed(self) -> Option<Claimed> {
        let word = self.0 >> CLAIMED;
        (word != 0).then(|| Claimed::from_word(word))
    }

    #[inline(always)]
    pub(super) fn count(self) -> u32 {
        (self.0 >> COUNT & COUNT_MAX) as u32
    }

    /// The vCPU whose section the step changes with its own, plus 1.
    #[inline(always)]
    fn with_vcpu(self) -> u8 {
        (self.0 >> WITH_VCPU) as u8
    }

    fn key_len(self) -> usize {
        (self.0 >> KEY_LEN & 0xff) as usize
    }
}

/// One successor in a memo.
#[derive(Clone, Copy)]
pub(super) struct Successor {
    at: u32,
    pub(super) actor: u8,
    /// A vCPU whose section a thread's step changes as well, plus 1.
    with_vcpu: u8,
}

/// A table of what actors do.
pub(super) struct Memo {
    /// By kind of entry.
    indices: [Index; 3],
    arena: Vec<u64>,
    /// The most words that the arena has had: memory that the system has given.
    most_words: usize,
    key: Vec<u64>,
    generation: u32,
    /// What all workers' memos were told; none: there is one worker.
    answers: Option<Arc<Answers>>,
    /// What this one added to it.
    added_bytes: u64,
}

impl Memo {
    /// Those of so many workers.
    pub(super) fn of_workers(workers: usize) -> impl Iterator<Item = Self> {
        let answers = (workers > 1).then(|| Arc::new(Answers::new(ARENA_WORDS)));
        (0..workers).map(move |_| Self {
            indices: [(); 3].map(|()| Index::new()),
            arena: Vec::with_capacity(ARENA_ROOM_WORDS),
            most_words: 0,
            key: Vec::new(),
            generation: 1,
            answers: answers.clone(),
            added_bytes: 0,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let indices: u64 = self.indices.iter().map(Index::bytes).sum();
        let words = self.arena.len().max(self.most_words);
        indices + words as u64 * 8 + self.added_bytes
    }

    /// Forgets everything if there is too much of it; entries of other generations are void.
    pub(super) fn make_room(&mut self) -> u32 {
        if self.arena.len() > ARENA_WORDS {
            self.most_words = self.most_words.max(self.arena.len());
            self.arena.clear();
            self.indices = [(); 3].map(|()| Index::new());
            self.generation += 1;
        }
        self.generation
    }

    /// The entry for the key in work, appended by `fill` if it is new.
    #[inline]
    fn find(
        &mut self,
        kind: Kind,
        fill: impl Fn(&mut Vec<u64>),
        is_right: impl Fn(&[u64], &[u64]) -> bool,
    ) -> EntryAt {
        let hash = section_hash(0, &self.key);
        let len = self.key.len();
        let found = self.indices[kind as usize].find(hash, |at| {
            let at = at as usize;
            First(self.arena[at]).key_len() == len
                && self.arena[at - len..at]
                    .iter()
                    .zip(&self.key)
                    .all(|(old, new)| old == new)
        });
        let entry = || {
            let mut entry = vec![(len as u64) << KEY_LEN];
            fill(&mut entry);
            entry
        };
        let audit = Audit::after(self.arena.len() as u64);
        let check = |at: EntryAt, arena: &[u64]| {
            if audit.wants(hash) {
                assert!(
                    is_right(&arena[at as usize..], &entry()),
                    "an entry depends on its key alone"
                );
            }
        };
        if let Some(at) = found {
            check(at, &self.arena);
            return at;
        }
        let at = (self.arena.len() + len) as EntryAt;
        // Keys of responses have places of this memo in them. Those of the other kinds differ in length: an actor's have a word
        // before what it reads of the VM-wide section.
        let answers = match kind {
            Kind::Actor | Kind::Vm => self.answers.as_deref(),
            Kind::Response => None,
        };
        match answers.and_then(|answers| answers.find(hash, &self.key)) {
            Some(answer) => {
                self.arena.extend_from_slice(answer);
                check(at, &self.arena);
            }
            None => {
                let entry = entry();
                if let Some(answers) = answers {
                    self.added_bytes += answers.add(hash, &self.key, &entry);
                }
                self.arena.extend_from_slice(&self.key);
                self.arena.extend_from_slice(&entry);
            }
        }
        self.indices[kind as usize].insert(hash, at);
        at
    }

    /// The entry for the VM-wide section: what it contributes.
    #[inline]
    pub(super) fn vm_entry<L: Layout, const N: usize>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
    ) -> EntryAt {
        self.key.clear();
        self.key
            .extend_from_slice(&words[source.sections.vm::<N>()]);
        self.find(
            Kind::Vm,
            |entry| {
                let part = Part::of_vm(source.machine, &source.unpack(words));
                entry.extend(part.to_words());
                entry.extend([0, 0, section_hash(0, &words[source.sections.vm::<N>()])]);
            },
            |old, new| old[..OTHER] == new[..OTHER],
        )
    }

    /// The entry for the VM-wide section, where `other` was it before a step.
    #[inline(always)]
    pub(super) fn vm_entry_after<L: Layout, const N: usize>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        other: EntryAt,
    ) -> EntryAt {
        let vm = source.sections.vm::<N>();
        let is_it = |memo: &Self, near: EntryAt| {
            let key = &memo.arena[near as usize - vm.len()..near as usize];
            vm.clone().all(|index| key[index] == words[index])
        };
        let find = |memo: &mut Self| memo.vm_entry::<L, N>(source, words);
        self.near(other as usize + OTHER, is_it, find)
    }

    /// The entry for what an actor does in the state of `words`, where `other` was it before another's step.
    #[inline(always)]
    pub(super) fn entry_after<L: Layout, const N: usize>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: usize,
        other: EntryAt,
    ) -> EntryAt {
        self.entry_near::<L, N>(source, words, actor, other as usize + OTHER)
    }

    /// The entry for what an actor does in the state of `words` after its step to `successor`.
    #[inline(always)]
    pub(super) fn next<L: Layout, const N: usize>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        successor: Successor,
    ) -> EntryAt {
        let actor = usize::from(successor.actor);
        self.entry_near::<L, N>(source, words, actor, successor.at as usize + NEXT)
    }

    /// The entry for what an actor does in the state of `words`: most often the one that was found last at `place`.
    #[inline(always)]
    fn entry_near<L: Layout, const N: usize>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: usize,
        place: usize,
    ) -> EntryAt {
        let is_it = |memo: &Self, near| memo.is_for::<N>(near, source.sections, words, actor);
        let find = |memo: &mut Self| memo.entry(source, words, actor);
        self.near(place, is_it, find)
    }

    /// One of the two entries at `place`, which are those that were found last, the later one first; or the one that `find`
    /// finds, which is put there.
    #[inline(always)]
    fn near(
        &mut self,
        place: usize,
        is_it: impl Fn(&Self, EntryAt) -> bool,
        find: impl FnOnce(&mut Self) -> EntryAt,
    ) -> EntryAt {
        let near = self.arena[place];
        let (last, before) = (near as EntryAt, (near >> 32) as EntryAt);
        if last != 0 && is_it(self, last) {
            return last;
        }
        let found = if before != 0 && is_it(self, before) {
            before
        } else {
            find(self)
        };
        self.arena[place] = u64::from(last) << 32 | u64::from(found);
        found
    }

    /// Whether an entry is the one for an actor in the state of `words`.
    #[inline(always)]
    fn is_for<const N: usize>(
        &self,
        at: EntryAt,
        sections: &Sections,
        words: &[u64],
        actor: usize,
    ) -> bool {
        let at = at as usize;
        let first = First(self.arena[at]);
        let key = &self.arena[at - first.key_len()..at];
        let mut same = key[0] == key_begin(sections, words, actor);
        let vm = sections.vm::<N>();
        let mask = &self.arena[at + MASK..at + MASK + vm.len()];
        for index in vm.clone() {
            same &= words[index] & mask[index] == key[1 + index];
        }
        let mut next = 1 + vm.len();
        for index in sections.own::<N>(actor) {
            same &= words[index] == key[next];
            next += 1;
        }
        if !same {
            return false;
        }
        // The own section is the same, and so is what else is in the key.
        if first.with_vcpu() != 0 {
            for index in sections.own::<N>(usize::from(first.with_vcpu()) - 1) {
                same &= words[index] == key[next];
                next += 1;
            }
        }
        if first.0 & ON_CONTROL != 0 {
            for vcpu in 0..sections.vcpus() {
                for (index, mask) in sections.own::<N>(vcpu).zip(sections.control()) {
                    same &= words[index] & mask == key[next];
                    next += 1;
                }
            }
        }
        same
    }

    /// The entry for what an actor does in the state of `words`.
    pub(super) fn entry<L: Layout>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        actor: usize,
    ) -> EntryAt {
        let sections = source.sections;
        let key = &mut self.key;
        begin_key(sections, words, actor, key);
        match sections.reach(words, actor) {
            (Reach::Own | Reach::EachVcpu | Reach::Everything, _) => {}
            (Reach::Control | Reach::Gate, _) => add_control(sections, words, key),
            (Reach::IndexedVcpu, vcpu) => {
                key.extend_from_slice(&words[sections.own::<0>(vcpu)]);
            }
            (Reach::IndexedOnControl, vcpu) => {
                key.extend_from_slice(&words[sections.own::<0>(vcpu)]);
                add_control(sections, words, key);
            }
        }
        self.find(
            Kind::Actor,
            |entry| fill(source, words, actor, entry),
            |old, new| is_same(sections, actor, old, new),
        )
    }

    /// What a step, by its number among those of the actor whose entry is at `entry`, makes of a vCPU's section, where it changes each by
    /// itself: how that changes the fingerprint, and the section.
    #[inline]
    pub(super) fn response<L: Layout, const N: usize>(
        &mut self,
        source: &Source<'_, L>,
        words: &[u64],
        (actor, number): (usize, usize),
        entry: EntryAt,
        vcpu: usize,
    ) -> (u64, &[u64]) {
        let sections = source.sections;
        let section = sections.own::<N>(vcpu);
        self.key.clear();
        self.key
            .push(u64::from(entry) << 32 | (number as u64) << 8 | vcpu as u64);
        self.key.push(sections.context(words));
        self.key.extend_from_slice(&words[section.clone()]);
        let at = self.find(
            Kind::Response,
            |entry| {
                let state = source.unpack(words);
                let actor = sections.actor(actor);
                let (mut at, mut after) = (0, Vec::new());
                source.for_each_step([&state; 2], actor, &mut |[state, _], choice| {
                    if at == number {
                        after = source.after(state, Step { actor, choice });
                    }
                    at += 1;
                });
                let difference = sections
                    .hash(&after, section.clone())
                    .wrapping_sub(sections.hash(words, section.clone()));
                entry.push(difference);
                entry.extend_from_slice(&after[section.clone()]);
            },
            |old, new| old.starts_with(new),
        );
        let body = &self.arena[at as usize + 1..];
        (body[DIFFERENCE], &body[RESPONSE..RESPONSE + section.len()])
    }

    /// Brings an entry into the cache; answers something that depends on it, so that the load is made.
    #[inline(always)]
    pub(super) fn touch(&self, at: EntryAt) -> u64 {
        self.arena.get(at as usize).copied().unwrap_or(0)
    }

    /// What an entry says first, what it contributes to the verdict on the state, and facts: as words, those of the
    /// actor's steps and those that it contributes to others'.
    #[inline(always)]
    pub(super) fn head(&self, at: EntryAt) -> (First, Part, u64, u64) {
        let words = &self.arena[at as usize..at as usize + HEAD + 1];
        let part = Part::from_words([words[1], words[2], words[3], words[4]]);
        let facts = words[FACTS];
        let context = facts >> CONTEXT << Facts::CROSSING;
        (First(words[0]), part, facts & ((1 << CONTEXT) - 1), context)
    }

    /// What an entry says first.
    #[inline(always)]
    pub(super) fn first(&self, at: EntryAt) -> First {
        First(self.arena[at as usize])
    }

    /// Whether an entry still stands where these vCPUs (a bit each), some vCPU's control, and these bits of the VM-wide
    /// section were changed.
    #[inline(always)]
    pub(super) fn stands(
        &self,
        at: EntryAt,
        vcpus: u64,
        control: bool,
        mut vm: impl Iterator<Item = u64>,
    ) -> bool {
        let entry = &self.arena[at as usize..];
        let first = First(entry[0]);
        // No vCPU: bit 0.
        let with = vcpus << 1 >> first.with_vcpu() & u64::from(first.with_vcpu() != 0);
        let mut masks = entry[MASK..].iter();
        with == 0
            && !(control && first.0 & ON_CONTROL != 0)
            && vm.all(|bits| masks.next().is_some_and(|mask| bits & mask == 0))
    }

    /// The successors of an entry that is not by hand.
    #[inline(always)]
    pub(super) fn successors<const N: usize>(
        &self,
        sections: &Sections,
        actor: usize,
        at: EntryAt,
    ) -> impl Iterator<Item = Successor> + use<N> {
        let first = self.first(at);
        let with_vcpu = first.with_vcpu();
        let stride = stride::<N>(sections, actor, with_vcpu) as u32;
        let begin = at + (MASK + sections.vm::<N>().len()) as u32;
        (0..first.count()).map(move |index| Successor {
            at: begin + index * stride,
            actor: actor as u8,
            with_vcpu,
        })
    }

    /// By how much a successor's fingerprint, as a sum, differs from that of its state, whose VM-wide section has the
    /// entry `vm`.
    #[inline(always)]
    pub(super) fn difference<const N: usize>(
        &self,
        sections: &Sections,
        successor: Successor,
        words: &[u64],
        vm: EntryAt,
    ) -> u64 {
        let len = sections.vm::<N>().len();
        let record = &self.arena[successor.at as usize..][..SET + 2 * len];
        let after = |index: usize| words[index] & record[SET + len + index] | record[SET + index];
        let difference = record[0];
        if (0..len).all(|index| after(index) == words[index]) {
            return difference;
        }
        difference
            .wrapping_add(hash_words(0, (0..len).map(after)))
            .wrapping_sub(self.arena[vm as usize + VM_HASH])
    }

    /// Writes a successor's sections over those of its state.
    #[inline(always)]
    pub(super) fn write<const N: usize>(
        &self,
        sections: &Sections,
        successor: Successor,
        words: &mut [u64],
    ) {
        let len = sections.vm::<N>().len();
        let vcpu = usize::from(successor.with_vcpu);
        let size = stride::<N>(sections, usize::from(successor.actor), successor.with_vcpu);
        let record = &self.arena[successor.at as usize..][..size];
        for index in 0..len {
            words[index] = words[index] & record[SET + len + index] | record[SET + index];
        }
        let own = sections.own::<N>(usize::from(successor.actor));
        let at = SET + 2 * len;
        let then = at + own.len();
        words[own].copy_from_slice(&record[at..then]);
        if vcpu != 0 {
            words[sections.own::<N>(vcpu - 1)].copy_from_slice(&record[then..]);
        }
    }
}

/// The first word of a key: the actor, and what a vCPU's steps read of the threads.
#[inline(always)]
fn key_begin(sections: &Sections, words: &[u64], actor: usize) -> u64 {
    let context = if actor < sections.vcpus() {
        sections.context(words)
    } else {
        0
    };
    context << 16 | actor as u64
}

/// Begins a key: its first word, what the actor reads of the VM-wide section, its own.
#[inline]
fn begin_key(sections: &Sections, words: &[u64], actor: usize, key: &mut Vec<u64>) {
    key.clear();
    key.push(key_begin(sections, words, actor));
    sections.mask(words, actor, key);
    for (bits, word) in key[1..].iter_mut().zip(words) {
        *bits &= word;
    }
    key.extend_from_slice(&words[sections.own::<0>(actor)]);
}

/// Adds every vCPU's control to a key.
fn add_control(sections: &Sections, words: &[u64], key: &mut Vec<u64>) {
    for vcpu in 0..sections.vcpus() {
        let section = &words[sections.own::<0>(vcpu)];
        let bits = section.iter().zip(sections.control());
        key.extend(bits.map(|(word, mask)| word & mask));
    }
}

/// Words of one successor.
#[inline(always)]
fn stride<const N: usize>(sections: &Sections, actor: usize, with_vcpu: u8) -> usize {
    let vcpu = match with_vcpu {
        0 => 0,
        vcpu => sections.own::<N>(usize::from(vcpu) - 1).len(),
    };
    SET + 2 * sections.vm::<N>().len() + sections.own::<N>(actor).len() + vcpu
}

/// Whether two entries for the same key say the same, whatever is known of the entries that follow.
fn is_same(sections: &Sections, actor: usize, old: &[u64], new: &[u64]) -> bool {
    let stride = stride::<0>(sections, actor, First(new[0]).with_vcpu());
    let first = MASK + sections.vm::<0>().len();
    new.iter().zip(old).enumerate().all(|(at, (new, old))| {
        new == old || at == OTHER || (at >= first && (at - first) % stride == NEXT)
    })
}

/// Appends to its first word the rest of the entry for an actor in the state of `words`.
fn fill<L: Layout>(source: &Source<'_, L>, words: &[u64], actor: usize, entry: &mut Vec<u64>) {
    let (machine, sections) = (source.machine, source.sections);
    let vm = sections.vm::<0>();
    let mut mask = Vec::new();
    sections.mask(words, actor, &mut mask);
    // What is not read: all 0, and all 1.
    let [mut zeros, mut ones] = [words.to_vec(), words.to_vec()];
    for index in vm.clone() {
        zeros[index] &= mask[index];
        ones[index] |= !mask[index] & sections.used()[index];
    }
    let [state, other] = [source.unpack(&zeros), source.unpack(&ones)];
    let (part, context) = match sections.actor(actor) {
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
    let (reach, indexed) = sections.reach(words, actor);
    let with_vcpu = match reach {
        Reach::IndexedVcpu | Reach::IndexedOnControl => indexed as u8 + 1,
        _ => 0,
    };
    entry[0] |= u64::from(with_vcpu) << WITH_VCPU;
    if matches!(
        reach,
        Reach::Control | Reach::Gate | Reach::IndexedOnControl
    ) {
        entry[0] |= ON_CONTROL;
    }
    let each = matches!(reach, Reach::EachVcpu | Reach::Gate);
    entry.extend(part.to_words());
    entry.extend([context.to_word() >> Facts::CROSSING << CONTEXT, 0]);
    entry.extend_from_slice(&mask);
    let number = actor;
    let actor = sections.actor(actor);
    if reach == Reach::Everything || mutated::may_change(machine, &state, actor) {
        entry[0] |= BY_HAND;
        return;
    }
    let first = entry.len();
    let stride = stride::<0>(sections, number, with_vcpu);
    let (mut taken, mut count) = (0, 0_u64);
    let mut facts = Facts::default();
    let mut claimed = 0;
    let local = source.for_each_step([&state, &other], actor, &mut |[state, other], choice| {
        taken += 1;
        let step = Step { actor, choice };
        facts.join(Facts::of_step(machine, state, step));
        let mut after = state.clone();
        let effect = apply(machine, &mut after, step);
        source.note_refused(state, step, &after);
        debug_assert!(
            undeclared(machine, state, step, &after).is_none(),
            "a row says all that its step writes: {step:?} writes {:?} besides",
            undeclared(machine, state, step, &after)
        );
        source.forget(&mut after);
        if effect != Effect::None {
            claimed |= Claimed::of(machine, &after, effect).to_word();
        }
        let from_zeros = source.pack(&mut after);
        let from_ones = source.after(other, step);
        let at = entry.len();
        entry.extend([0, 0]);
        entry.extend_from_slice(&from_zeros[vm.clone()]);
        // What both give is given whatever the bit was before.
        let kept = |index: usize| from_ones[index] & !from_zeros[index] & !mask[index];
        entry.extend(vm.clone().map(kept));
        let mut put = |section: std::ops::Range<usize>| {
            if !section.is_empty() {
                entry[at] = entry[at]
                    .wrapping_add(sections.hash(&from_zeros, section.clone()))
                    .wrapping_sub(sections.hash(words, section.clone()));
                entry.extend_from_slice(&from_zeros[section]);
            }
        };
        put(sections.own::<0>(number));
        if with_vcpu != 0 {
            put(sections.own::<0>(indexed));
        }
        // Most values of pages that are forgotten again lead to the same; a response may differ all the same.
        let (before, new) = entry[first..].split_at(at - first);
        let is_known = || before.chunks(stride).any(|known| known == new);
        if source.others.is_some() && !each && is_known() {
            entry.truncate(at);
        } else {
            count += 1;
        }
    });
    // Such steps there are one of, or one for each value of what is forgotten.
    if each && taken > 1 && source.others.is_none() || count > COUNT_MAX {
        entry.truncate(first);
        entry[0] |= BY_HAND;
        return;
    }
    entry[FACTS] |= facts.to_word();
    entry[0] |= claimed << CLAIMED | count << COUNT;
    if local {
        entry[0] |= LOCAL;
    }
    if each && taken > 0 {
        entry[0] |= EACH_VCPU;
    }
}
