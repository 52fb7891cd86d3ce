//! Random sequences of calls, from a seed: what a lockstep performs on a kernel and on the model.
//!
//! A sequence sets a VM up and then draws calls, valid ones and ones with every bad argument that the interface refuses; in the end each vCPU
//! stores once to each page that is there, so that a store that never retires is seen. What is drawn next
//! depends on earlier results (how many entries were harvested, whether a program finished), so that a sequence is fixed only together with
//! them; once drawn it is a list of calls like any other.
//!
//! Not drawn, and why:
//! - offsets near 2^64 in a ring entry that userspace rewrote: they made kernels before 7.1 read out of bounds;
//! - slots in a second address space: no machine at hand has one;
//! - huge pages of memory that was never touched, but for x86 on a machine where the witness is the first process and has told the host when to give
//!   them; giving back memory that may be in them, whose block is in small pages from then on, which the model's replay does not follow;
//! - on arm64 accesses over a page's end: without translation its memory wants aligned ones;
//! - stolen time where other processes run: who loses the processor within KVM_RUN has its record written once more; and on x86, where the
//!   model lets a vCPU in whose record has just made its ring soft-full;
//! - on x86 with shadow paging tables of the guest's that log, and ones that begin with accessed and dirty bits clear: KVM walks them, and the model's
//!   replay does not; vCPUs of one VM in several modes, which have mappings of their own with shadow paging; string instructions that KVM
//!   emulates where the guest has no paging, or its tables log, which KVM's walk for the store marks too;
//! - on RISC-V what `docs/findings.md` has of it, which would spoil whatever comes after: huge pages, slots that begin within 2 MiB, and, on
//!   kernels with rings, memory that nobody touched; the scripts `riscv64-*` have them;
//! - changes of slot 0, the guest's own code, and moving or deleting the slot of the ITS's tables: what an ITS answers without its
//!   tables is not dirty logging's;
//! - a second VM: no call on one reaches another;
//! - the ring after a memslot, and after a vCPU only where it is refused; ITS tables of two levels; a command queue that wraps around:
//!   the scripts `*-outcomes` have the first, the others were read in the source;
//! - signals, and calls beside each other: `live` has them;
//! - what the trace format has no call for.

mod bad;
mod draw;
mod ending;
mod its;
mod random;
mod setup;
mod world;

use std::collections::VecDeque;

use dirtysim::trace::Arch;
use dirtysim::trace::call::Call;
use dirtysim::trace::call_result::CallResult;

use crate::subject::VmCall;
use random::Random;
use world::World;

/// The number of the VM in a sequence.
pub(crate) const VM: u32 = 1;

/// The machine that sequences are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its architecture: x86_64, arm64 or riscv64.
    pub arch: Arch,
    /// What the guest's modes are called, the usual one first.
    pub modes: &'static [&'static str],
    /// Those in which it copies from where no memory is, by a string instruction that KVM emulates.
    pub modes_that_copy: &'static [&'static str],
    /// Those in which its tables are in a slot of their own, which may log: the processor's walks store to them.
    pub modes_with_tables: &'static [&'static str],
    /// Where the guest's own memory is, bytes.
    pub own_gpa: u64,
    /// Pages of the guest's own memory.
    pub own_pages: u64,
    /// Where its other slots begin, bytes.
    pub data_gpa: u64,
    /// Whether its kernel has dirty rings.
    pub rings: bool,
    /// Whether no other process takes the processor from a vCPU within KVM_RUN: then a record of stolen time is written once a KVM_RUN.
    pub alone: bool,
    /// Whether memory that huge pages were asked for gets them when it is touched, by a load or a store, and at no other time.
    pub huge_when_touched: bool,
    /// The smallest ring that it takes, bytes.
    pub smallest_ring: u64,
    /// Whether it is told which stores are recorded after a pre-fault: not where that makes a leaf anew with its dirty bit clear (PML before 6.13),
    /// and what is logged next depends on what the processor remembers of it.
    pub pre_faults: bool,
}

/// What was drawn about a sequence as a whole.
#[derive(Clone, Copy, Debug)]
struct Profile {
    /// Userspace breaks the ring's rules.
    wild: bool,
    /// There is an ITS with tables in a slot of its own.
    its: bool,
    /// vCPUs have records of stolen time, in a slot of its own.
    stolen: bool,
    /// The guest's tables are in a slot of their own.
    tables: bool,
    /// vCPUs at the start.
    vcpus: u32,
    /// The mode of all vCPUs' guests.
    mode: &'static str,
}

/// Draws one sequence.
pub struct Generator {
    random: Random,
    target: Target,
    profile: Profile,
    world: World,
    its: its::ItsView,
    /// Calls that come next, whatever is drawn: the set-up, and what belongs together.
    queued: VecDeque<Call>,
    /// Bytes of each ring that the set-up asks for; 0 without one.
    ring_expected: u64,
    /// Calls still to be drawn.
    left: u64,
    /// What comes after them.
    ending: ending::Ending,
    /// Makes every stored value a new one.
    value: u64,
}

impl Target {
    /// Whether a ring is enabled by `KVM_CAP_DIRTY_LOG_RING_ACQ_REL` alone: all but x86.
    fn ring_by_acq_rel_alone(self) -> bool {
        self.arch != Arch::X86_64
    }
}

impl Generator {
    /// A sequence: a set-up, then `calls` calls, then an ending.
    #[must_use]
    pub fn new(seed: u64, target: Target, calls: u64) -> Self {
        let mut random = Random::new(seed);
        let arm64 = target.arch == Arch::Arm64;
        let mut profile = Profile {
            wild: random.percent(20),
            its: arm64 && random.percent(50),
            stolen: target.alone && arm64 && random.percent(15),
            tables: false,
            vcpus: random.weighted(&[(40, 1), (40, 2), (20, 3)]),
            mode: match target.modes {
                [usual] => usual,
                modes if random.percent(60) => modes[0],
                modes => random.one(modes),
            },
        };
        profile.tables = target.modes_with_tables.contains(&profile.mode);
        let mut generator = Self {
            random,
            target,
            profile,
            world: World::default(),
            its: its::ItsView::default(),
            queued: VecDeque::new(),
            ring_expected: 0,
            left: calls,
            ending: ending::Ending::default(),
            value: 0,
        };
        generator.queue_setup();
        generator
    }

    /// The next call, if the sequence has one more.
    pub fn next_call(&mut self) -> Option<VmCall> {
        if let Some(call) = self.queued.pop_front() {
            return Some(VmCall { vm: Some(VM), call });
        }
        let call = if self.left > 0 {
            self.left -= 1;
            self.draw()
        } else {
            self.draw_ending()?
        };
        let vm = call.has_vm().then_some(VM);
        Some(VmCall { vm, call })
    }

    /// Takes in what a call gave, before the next is drawn.
    pub fn observe(&mut self, call: &VmCall, result: &CallResult) {
        self.world.observe(&call.call, result);
    }

    fn fresh_value(&mut self) -> u64 {
        self.value += 1;
        self.value
    }
}

#[cfg(test)]
impl Target {
    /// An x86 machine that takes everything.
    pub(crate) fn for_tests(modes: &'static [&'static str]) -> Self {
        Self {
            arch: Arch::X86_64,
            modes,
            modes_that_copy: modes,
            modes_with_tables: &[],
            own_gpa: 0,
            own_pages: 16,
            data_gpa: 0x1000_0000,
            rings: true,
            alone: false,
            huge_when_touched: true,
            smallest_ring: 4096,
            pre_faults: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lockstep::{End, random_sequence};
    use crate::model::Model;
    use dirtysim::trace::Machine;
    use dirtysim::trace::call::Access;

    /// What is drawn for a machine where the model answers.
    fn drawn(target: Target) -> Vec<Call> {
        let machine = Machine {
            arch: Arch::X86_64,
            kernel: Some("7.3.4".to_owned()),
            page_size: Some(4096),
            ring_page_offset: Some(64),
            address_spaces: Some(1),
            pml: Some(false),
            two_dimensional: Some(true),
        };
        let model = || Model::new(&machine).expect("a machine that the model knows");
        let (mut once, mut again) = (model(), model());
        let mut calls = Vec::new();
        for seed in 0..60 {
            let performed = random_sequence(&mut once, &mut again, target, seed, 50);
            let performed = performed.unwrap_or_else(|refused| panic!("seed {seed}: {refused}"));
            assert_eq!(performed.end, End::Agreed, "seed {seed}");
            calls.extend(performed.calls.into_iter().map(|call| call.call));
        }
        calls
    }

    #[test]
    fn pre_faults_are_drawn_where_they_are_told_and_nowhere_else() {
        let usual = Target::for_tests(&["usual"]);
        let count = |pre_faults| {
            let calls = drawn(Target {
                pre_faults,
                ..usual
            });
            let pre_faults = calls
                .iter()
                .filter(|call| matches!(call, Call::PreFaultMemory { .. }));
            pre_faults.count()
        };
        assert!(count(true) > 10);
        assert_eq!(count(false), 0);
    }

    #[test]
    fn copies_are_drawn_in_the_modes_that_have_them_and_nowhere_else() {
        let usual = Target::for_tests(&["usual"]);
        let copies = |modes_that_copy: &'static [&'static str]| {
            let calls = drawn(Target {
                modes_that_copy,
                ..usual
            });
            let elements = calls.into_iter().filter_map(|call| match call {
                Call::Run { program, .. } if program.access == Access::Copy => {
                    Some(program.elements)
                }
                _ => None,
            });
            elements.collect::<Vec<u32>>()
        };
        let elements = copies(&["usual"]);
        // More than a ring has in reserve, and fewer.
        assert!(
            elements.iter().any(|&elements| elements > 64),
            "{elements:?}"
        );
        assert!(
            elements.iter().any(|&elements| elements < 8),
            "{elements:?}"
        );
        assert!(copies(&[]).is_empty());
    }

    #[test]
    fn every_mode_is_drawn_and_a_sequence_has_one() {
        let target = Target::for_tests(&["usual", "other", "third"]);
        let mut seen = std::collections::BTreeMap::<String, u32>::new();
        for seed in 0..60 {
            let generator = Generator::new(seed, target, 0);
            let modes = generator.queued.iter().filter_map(|call| match call {
                Call::VcpuInit { mode, .. } => Some(mode.clone()),
                _ => None,
            });
            let modes: std::collections::BTreeSet<String> = modes.collect();
            assert_eq!(modes.len(), 1, "seed {seed}: {modes:?}");
            for mode in modes {
                *seen.entry(mode).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen["usual"] > 30, "{seen:?}");
    }
}
