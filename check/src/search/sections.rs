//! A packed state as sections: where they are, what they hash to, and what a step of an actor depends on.

use std::ops::Range;

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::footprint::{self, frames_of_vcpu};
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::reduce::pack::{Packing, ThreadPlace};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::transition::Actor;
use dirtysim_model::words::{Fields, Frame, Reach};

/// Stages that a thread's operation has at most: they are packed in 4 bits.
const STAGES: usize = 16;

/// The sections of the packed states of one search: the VM-wide one, then each vCPU's, then each thread's.
///
/// Actors are known by number: vCPUs first, then threads, then devices. Functions with a parameter `N` are for the
/// innermost loops: where it is not 0, there are so many sections, each of one word, and no device, as
/// [`Sections::words`] answers; the compiler then knows how long everything is.
pub(super) struct Sections {
    packing: Packing,
    vm: Range<usize>,
    /// By actor; a device has none.
    own: Vec<Range<usize>>,
    vcpus: usize,
    threads: usize,
    /// The bits of a vCPU's section that [`Reach::Control`] reads.
    control: Vec<u64>,
    /// The bits of the VM-wide section that are in use.
    used: Vec<u64>,
    /// Those that vCPUs read, by where they are, leaves apart.
    vcpu_masks: [Vec<u64>; Pc::ALL.len()],
    /// By frame, those that its leaf has.
    leaves: Vec<Vec<u64>>,
    has_huge: bool,
    /// Those that devices read.
    device_mask: Vec<u64>,
    /// What there is to know of operations, once for all that are alike in it.
    kinds: Vec<Kind>,
    /// By thread and operation, its kind; and that of being behind the last.
    kind_of: Vec<Vec<usize>>,
    /// By thread and operation: what the rules for vCPUs read of it, then whether the guest may be let run again.
    contexts: Vec<Vec<u64>>,
}

/// What operations have in common, by stage.
struct Kind {
    /// What they read, and what they depend on of the vCPUs.
    said: [(Fields, Reach); STAGES],
    /// The bits of the VM-wide section that they read.
    masks: [Vec<u64>; STAGES],
}

/// A 128-bit product folded to 64 bits.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Digits of pi and e as keys: nothing up the sleeve.
const KEYS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xb7e1_5162_8aed_2a6a,
    0xbf71_5880_9cf4_f3c7,
];

/// What the words of a section hash to; `first` is where the section begins.
#[inline(always)]
pub(super) fn section_hash(first: usize, words: &[u64]) -> u64 {
    hash_words(first, words.iter().copied())
}

/// As [`section_hash`], of words that lie nowhere.
#[inline(always)]
pub(super) fn hash_words(first: usize, words: impl Iterator<Item = u64>) -> u64 {
    let mut sum = KEYS[3].wrapping_mul(2 * first as u64 + 1);
    for word in words {
        sum = fold(word ^ KEYS[0] ^ sum, KEYS[1]).wrapping_add(sum.rotate_left(29));
    }
    fold(sum ^ KEYS[2], KEYS[3])
}

impl Sections {
    pub(super) fn new<L: Layout>(
        machine: &Machine,
        start: &State<L>,
        packing: Packing,
        rules: &Rules,
    ) -> Self {
        let threads = start.threads.len();
        let mask = |fields: Fields| packing.vm_mask(start, fields);
        let mut sections = Self {
            packing,
            vm: 0..packing.vm_words(),
            own: (0..start.vcpus.len())
                .map(|vcpu| packing.vcpu(vcpu))
                .chain((0..threads).map(|thread| packing.thread(thread)))
                .chain((0..start.devices.len()).map(|_| 0..0))
                .collect(),
            vcpus: start.vcpus.len(),
            threads,
            control: packing.vcpu_mask(machine, start, Fields::CONTROL),
            used: mask(Fields::ALL),
            vcpu_masks: Pc::ALL.map(|pc| mask(footprint::reads_of_vcpu(pc))),
            leaves: (0..packing.frames())
                .map(|frame| packing.leaf_mask(start, Frame(frame)))
                .collect(),
            has_huge: machine.slots.iter().any(|slot| slot.huge),
            device_mask: mask(footprint::reads_of_device()),
            kinds: Vec::new(),
            kind_of: vec![Vec::new(); threads],
            contexts: vec![Vec::new(); threads],
        };
        sections.grow(machine, start, rules);
        sections
    }

    /// Takes in what the programs have come to have at their ends.
    pub(super) fn grow<L: Layout>(&mut self, machine: &Machine, start: &State<L>, rules: &Rules) {
        for (thread, program) in machine.programs.iter().enumerate().take(self.threads) {
            // What stands behind the last operation may be another one now.
            let known = self.contexts[thread].len().saturating_sub(1);
            self.kind_of[thread].truncate(known);
            self.contexts[thread].truncate(known);
            for at in known..=program.len() {
                let op = program.get(at);
                let said = std::array::from_fn(|stage| {
                    let stage = stage as u8;
                    let reads = footprint::reads_of_thread(machine, op, stage);
                    (reads, footprint::reach(machine, op, stage))
                });
                let kind = self.kinds.iter().position(|kind| kind.said == said);
                let kind = kind.unwrap_or_else(|| {
                    self.kinds.push(Kind {
                        masks: said.map(|(reads, _)| self.packing.vm_mask(start, reads)),
                        said,
                    });
                    self.kinds.len() - 1
                });
                self.kind_of[thread].push(kind);
                let resumes = machine.ahead(thread, at).resume;
                self.contexts[thread]
                    .push(rules.context(machine, thread, at) << 1 | u64::from(resumes));
            }
        }
    }

    pub(super) fn packing(&self) -> &Packing {
        &self.packing
    }

    /// How many sections there are, if each is one word and there is no device.
    pub(super) fn words(&self) -> Option<usize> {
        let sections = 1 + self.own.len();
        (sections == self.packing.words() && self.own.len() == self.vcpus + self.threads)
            .then_some(sections)
    }

    #[inline(always)]
    pub(super) fn vm<const N: usize>(&self) -> Range<usize> {
        if N > 0 { 0..1 } else { self.vm.clone() }
    }

    /// An actor's own section.
    #[inline(always)]
    pub(super) fn own<const N: usize>(&self, actor: usize) -> Range<usize> {
        if N > 0 {
            1 + actor..2 + actor
        } else {
            self.own[actor].clone()
        }
    }

    pub(super) fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// Actors that there are.
    pub(super) fn actors(&self) -> usize {
        self.own.len()
    }

    /// Whether the actor of a number is a thread.
    #[inline(always)]
    pub(super) fn is_thread(&self, number: usize) -> bool {
        (self.vcpus..self.vcpus + self.threads).contains(&number)
    }

    /// The actor of a number.
    #[inline(always)]
    pub(super) fn actor(&self, number: usize) -> Actor {
        if number < self.vcpus {
            Actor::Vcpu(number as u8)
        } else if number < self.vcpus + self.threads {
            Actor::Thread((number - self.vcpus) as u8)
        } else {
            Actor::Device((number - self.vcpus - self.threads) as u8)
        }
    }

    pub(super) fn control(&self) -> &[u64] {
        &self.control
    }

    /// Where a thread is in a packed state.
    #[inline(always)]
    pub(super) fn place(&self, words: &[u64], thread: usize) -> ThreadPlace {
        self.packing
            .thread_place(&words[self.own[self.vcpus + thread].clone()])
    }

    /// Where every thread is.
    #[inline(always)]
    pub(super) fn places<'a>(&'a self, words: &'a [u64]) -> impl Iterator<Item = ThreadPlace> + 'a {
        (0..self.threads).map(|thread| self.place(words, thread))
    }

    /// What an actor's next step depends on of the vCPUs, and the vCPU at its index.
    #[inline]
    pub(super) fn reach(&self, words: &[u64], actor: usize) -> (Reach, usize) {
        match self.actor(actor) {
            Actor::Thread(thread) => {
                let thread = usize::from(thread);
                let place = self.place(words, thread);
                let kind = &self.kinds[of_op(&self.kind_of[thread], place.op)];
                let (_, reach) = kind.said[usize::from(place.stage)];
                (reach, place.index as usize)
            }
            Actor::Vcpu(_) | Actor::Device(_) => (Reach::Own, 0),
        }
    }

    /// Appends the bits of the VM-wide section that an actor's next step reads.
    #[inline]
    pub(super) fn mask(&self, words: &[u64], actor: usize, out: &mut Vec<u64>) {
        match self.actor(actor) {
            Actor::Vcpu(vcpu) => {
                let section = &words[self.own[usize::from(vcpu)].clone()];
                let place = self.packing.vcpu_place(section);
                let at = out.len();
                out.extend_from_slice(&self.vcpu_masks[place.pc as usize]);
                let mut frames = frames_of_vcpu(self.has_huge, place);
                if self.leaves.len() < 64 {
                    frames &= (1 << self.leaves.len()) - 1;
                }
                while frames != 0 {
                    let leaf = &self.leaves[frames.trailing_zeros() as usize];
                    for (word, leaf) in out[at..].iter_mut().zip(leaf) {
                        *word |= leaf;
                    }
                    frames &= frames - 1;
                }
            }
            Actor::Device(_) => out.extend_from_slice(&self.device_mask),
            Actor::Thread(thread) => {
                let place = self.place(words, usize::from(thread));
                let kind = of_op(&self.kind_of[usize::from(thread)], place.op);
                out.extend_from_slice(&self.kinds[kind].masks[usize::from(place.stage)]);
            }
        }
    }

    /// The bits of the VM-wide section that are in use.
    pub(super) fn used(&self) -> &[u64] {
        &self.used
    }

    /// What vCPUs' steps, their packing and the rules for them read of the threads.
    #[inline(always)]
    pub(super) fn context(&self, words: &[u64]) -> u64 {
        let mut context = 0;
        for (thread, by_op) in self.contexts.iter().enumerate() {
            context |= of_op(by_op, self.place(words, thread).op);
        }
        context
    }

    /// Where the threads' sections begin.
    #[inline(always)]
    pub(super) fn first_thread(&self) -> usize {
        self.own[self.vcpus].start
    }

    /// The threads' sections.
    pub(super) fn threads(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.own[self.vcpus..][..self.threads].iter().cloned()
    }

    /// Whether some thread's section differs.
    #[inline(always)]
    pub(super) fn any_thread_changed(&self, old: &[u64], new: &[u64]) -> bool {
        (self.first_thread()..old.len()).any(|index| old[index] != new[index])
    }

    /// The fingerprint of a packed state: the sum of its sections' hashes, so that a step that changes some sections
    /// changes it by a difference.
    pub(super) fn fingerprint(&self, words: &[u64]) -> u64 {
        let sections = self.own.iter().filter(|section| !section.is_empty());
        let sum = sections.fold(self.hash(words, self.vm.clone()), |sum, section| {
            sum.wrapping_add(self.hash(words, section.clone()))
        });
        never_zero(sum)
    }

    #[inline(always)]
    pub(super) fn hash(&self, words: &[u64], section: Range<usize>) -> u64 {
        section_hash(section.start, &words[section])
    }
}

/// What is known of an operation, or of being behind the last.
#[inline(always)]
fn of_op<T: Copy>(by_op: &[T], op: u16) -> T {
    by_op[usize::from(op).min(by_op.len() - 1)]
}

/// No fingerprint is 0, which the visited set takes for an empty place.
#[inline(always)]
pub(super) fn never_zero(sum: u64) -> u64 {
    sum.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_a_section_changes_about_half_of_its_hash() {
        for words in [1, 2, 3, 4, 5] {
            let mut differing = 0;
            let base = vec![0x0123_4567_89ab_cdef_u64; words];
            for bit in 0..words * 64 {
                let mut other = base.clone();
                other[bit / 64] ^= 1 << (bit % 64);
                differing += (section_hash(3, &base) ^ section_hash(3, &other)).count_ones();
            }
            let mean = f64::from(differing) / (words * 64) as f64;
            assert!((30.0..34.0).contains(&mean), "{words} words: {mean}");
        }
    }

    #[test]
    fn the_same_words_in_another_section_have_another_hash() {
        assert_ne!(section_hash(0, &[7]), section_hash(1, &[7]));
    }
}
