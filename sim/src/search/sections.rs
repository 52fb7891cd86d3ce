//! A packed state as sections: where they are, what they hash to, and what a step of an actor depends on.

use std::ops::Range;

use dirtysim_model::footprint::{Fields, Reach, frames_of_vcpu};
use dirtysim_model::independence::Rules;
use dirtysim_model::layout::Layout;
use dirtysim_model::machine::Machine;
use dirtysim_model::pack::{Packing, ThreadPlace};
use dirtysim_model::state::State;
use dirtysim_model::step::Actor;
use dirtysim_model::vcpu::Pc;

/// Stages that a thread's operation has at most: they are packed in 4 bits.
const STAGES: usize = 16;

/// The sections of the packed states of one search.
pub(super) struct Sections {
    packing: Packing,
    vm: Range<usize>,
    vcpus: Vec<Range<usize>>,
    threads: Vec<Range<usize>>,
    devices: usize,
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
    /// By thread, operation and stage, those that it reads.
    thread_masks: Vec<Vec<[Vec<u64>; STAGES]>>,
    /// By thread, operation and stage.
    reaches: Vec<Vec<[Reach; STAGES]>>,
    /// By thread and operation: whether the guest may be let run again.
    resumes: Vec<Vec<bool>>,
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
    pub(super) fn new<L: Layout>(machine: &Machine, start: &State<L>, packing: Packing) -> Self {
        let threads = start.threads.len();
        let by_op = |thread: usize| 0..=machine.programs[thread].len();
        let mask = |fields: Fields| packing.vm_mask(start, fields);
        Self {
            packing,
            vm: 0..packing.vm_words(),
            vcpus: (0..start.vcpus.len())
                .map(|vcpu| packing.vcpu(vcpu))
                .collect(),
            threads: (0..threads).map(|thread| packing.thread(thread)).collect(),
            devices: start.devices.len(),
            control: packing.control_mask(machine, start),
            used: mask(Fields::ALL),
            vcpu_masks: Pc::ALL.map(|pc| mask(Fields::of_vcpu(pc))),
            leaves: (0..packing.frames())
                .map(|frame| packing.leaf_mask(start, frame))
                .collect(),
            has_huge: machine.slots.iter().any(|slot| slot.huge),
            device_mask: mask(Fields::of_device()),
            thread_masks: (0..threads)
                .map(|thread| {
                    by_op(thread)
                        .map(|op| {
                            let op = machine.programs[thread].get(op);
                            std::array::from_fn(|stage| {
                                mask(Fields::of_thread(machine, op, stage as u8))
                            })
                        })
                        .collect()
                })
                .collect(),
            reaches: (0..threads)
                .map(|thread| {
                    by_op(thread)
                        .map(|op| {
                            let op = machine.programs[thread].get(op);
                            std::array::from_fn(|stage| Reach::of_thread(machine, op, stage as u8))
                        })
                        .collect()
                })
                .collect(),
            resumes: (0..threads)
                .map(|thread| {
                    by_op(thread)
                        .map(|op| machine.ahead(thread, op).resume)
                        .collect()
                })
                .collect(),
        }
    }

    pub(super) fn packing(&self) -> &Packing {
        &self.packing
    }

    pub(super) fn vm(&self) -> Range<usize> {
        self.vm.clone()
    }

    pub(super) fn vcpu(&self, vcpu: usize) -> Range<usize> {
        self.vcpus[vcpu].clone()
    }

    pub(super) fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    /// Every actor, in the order of the steps.
    pub(super) fn actors(&self) -> Vec<Actor> {
        let numbers = |count: usize| 0..count as u8;
        numbers(self.vcpus.len())
            .map(Actor::Vcpu)
            .chain(numbers(self.threads.len()).map(Actor::Thread))
            .chain(numbers(self.devices).map(Actor::Device))
            .collect()
    }

    /// An actor's place among [`Sections::actors`].
    #[inline(always)]
    pub(super) fn number(&self, actor: Actor) -> usize {
        match actor {
            Actor::Vcpu(vcpu) => usize::from(vcpu),
            Actor::Thread(thread) => self.vcpus.len() + usize::from(thread),
            Actor::Device(device) => self.vcpus.len() + self.threads.len() + usize::from(device),
        }
    }

    /// The words of an actor's own section; a device's is the VM-wide one.
    pub(super) fn own(&self, actor: Actor) -> Range<usize> {
        match actor {
            Actor::Vcpu(vcpu) => self.vcpus[usize::from(vcpu)].clone(),
            Actor::Thread(thread) => self.threads[usize::from(thread)].clone(),
            Actor::Device(_) => 0..0,
        }
    }

    pub(super) fn control(&self) -> &[u64] {
        &self.control
    }

    /// Where a thread is in a packed state.
    #[inline(always)]
    pub(super) fn place(&self, words: &[u64], thread: usize) -> ThreadPlace {
        self.packing
            .thread_place(&words[self.threads[thread].clone()])
    }

    /// Where every thread is.
    #[inline]
    pub(super) fn places<'a>(&'a self, words: &'a [u64]) -> impl Iterator<Item = ThreadPlace> + 'a {
        (0..self.threads.len()).map(|thread| self.place(words, thread))
    }

    /// What an actor's next step depends on of the vCPUs.
    #[inline]
    pub(super) fn reach(&self, words: &[u64], actor: Actor) -> Reach {
        match actor {
            Actor::Thread(thread) => {
                let place = self.place(words, usize::from(thread));
                self.reaches[usize::from(thread)][usize::from(place.op)][usize::from(place.stage)]
            }
            Actor::Vcpu(_) | Actor::Device(_) => Reach::Own,
        }
    }

    /// The vCPU at a thread's index.
    #[inline]
    pub(super) fn indexed_vcpu(&self, words: &[u64], actor: Actor) -> usize {
        match actor {
            Actor::Thread(thread) => self.place(words, usize::from(thread)).index as usize,
            Actor::Vcpu(_) | Actor::Device(_) => 0,
        }
    }

    /// Appends the bits of the VM-wide section that an actor's next step reads.
    #[inline]
    pub(super) fn mask(&self, words: &[u64], actor: Actor, out: &mut Vec<u64>) {
        match actor {
            Actor::Vcpu(vcpu) => {
                let section = &words[self.vcpus[usize::from(vcpu)].clone()];
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
                let masks = &self.thread_masks[usize::from(thread)][usize::from(place.op)];
                out.extend_from_slice(&masks[usize::from(place.stage)]);
            }
        }
    }

    /// The bits of the VM-wide section that are in use.
    pub(super) fn used(&self) -> &[u64] {
        &self.used
    }

    /// What vCPUs' steps, their packing and the rules for them read of the threads.
    #[inline]
    pub(super) fn context(&self, rules: &Rules, words: &[u64]) -> u64 {
        let ops = || self.places(words).map(|place| usize::from(place.op));
        let resumes = ops().zip(&self.resumes).any(|(op, resumes)| resumes[op]);
        rules.context(ops()) << 1 | u64::from(resumes)
    }

    /// Whether some thread's section differs.
    #[inline]
    pub(super) fn any_thread_changed(&self, old: &[u64], new: &[u64]) -> bool {
        self.threads
            .iter()
            .any(|section| old[section.clone()] != new[section.clone()])
    }

    /// The fingerprint of a packed state: the sum of its sections' hashes, so that a step that changes some sections
    /// changes it by a difference.
    #[inline]
    pub(super) fn fingerprint(&self, words: &[u64]) -> u64 {
        let sections = self.vcpus.iter().chain(&self.threads);
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
