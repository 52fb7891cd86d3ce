//! Strategies for proptest: machines whose guests, sizes and ways of logging vary, guests alone, and schedules. What a property fails on is
//! shrunk to the smallest machine by proptest, and to the shortest schedule of it by this crate.

use std::ops::Range;

use proptest::prelude::*;

use crate::machine::{Arch, Machine};

/// How a machine logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Logging {
    /// Bitmaps that GET re-arms.
    Bitmap,
    /// Bitmaps that CLEAR re-arms.
    ManualProtect,
    /// Rings.
    Ring,
    /// Rings beside bitmaps, which arm64 has.
    RingWithBitmap,
}

/// Machines of one or two memslots of one or two pages, one or two vCPUs of one to three stores, that log in one of the ways given; simpler
/// ones first. `logging` has one at least.
///
/// ```
/// use dirtysim_kvm::strategies::{Logging, machines};
/// use proptest::strategy::{Strategy, ValueTree};
/// use proptest::test_runner::TestRunner;
///
/// let any = machines(vec![Logging::Bitmap, Logging::Ring]);
/// let machine = any.new_tree(&mut TestRunner::deterministic()).unwrap().current();
/// assert!(machine.try_build().is_ok());
/// ```
pub fn machines(logging: Vec<Logging>) -> impl Strategy<Value = Machine> {
    let slots = prop::collection::vec(1..=2_u32, 1..=2);
    let arch = prop::sample::select(vec![Arch::Arm64, Arch::X86]);
    let logging = prop::sample::select(logging);
    (arch, logging, slots, guests()).prop_map(|(arch, logging, slots, guest)| {
        // Only arm64 has a bitmap beside rings.
        let arch = match logging {
            Logging::RingWithBitmap => Arch::Arm64,
            Logging::Bitmap | Logging::ManualProtect | Logging::Ring => arch,
        };
        let machine = guest.of(Machine::new(arch));
        let machine = match logging {
            Logging::Bitmap => machine,
            Logging::ManualProtect => machine.manual_protect(),
            Logging::Ring => machine.ring(4),
            Logging::RingWithBitmap => machine.ring(4).ring_with_bitmap(),
        };
        let slots = (0..).zip(slots);
        slots.fold(machine, |machine, (id, pages)| machine.slot(id, pages))
    })
}

/// What the guest of a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guest {
    /// vCPUs, 1 to 4.
    pub vcpus: u32,
    /// Stores of each at most, 1 to 31.
    pub stores: u32,
    /// Loads of each besides, 0 to 31.
    pub loads: u32,
}

impl Guest {
    /// The machine with this guest in place of its own.
    #[must_use]
    pub fn of(self, machine: Machine) -> Machine {
        let machine = machine.vcpus(self.vcpus).stores(self.stores);
        match self.loads {
            0 => machine,
            loads => machine.loads(loads),
        }
    }
}

/// Guests of one or two vCPUs, each of one to three stores and at most one load; simpler ones first. For a machine that is fixed otherwise.
///
/// ```
/// use dirtysim_kvm::strategies::guests;
/// use dirtysim_kvm::{Arch, Machine};
/// use proptest::strategy::{Strategy, ValueTree};
/// use proptest::test_runner::TestRunner;
///
/// let guest = guests().new_tree(&mut TestRunner::deterministic()).unwrap().current();
/// let machine = guest.of(Machine::new(Arch::X86).slot(0, 2).ring(4));
/// assert!(machine.try_build().is_ok());
/// ```
pub fn guests() -> impl Strategy<Value = Guest> {
    (1..=2_u32, 1..=3_u32, 0..=1_u32).prop_map(|(vcpus, stores, loads)| Guest {
        vcpus,
        stores,
        loads,
    })
}

/// Schedules: the seeds of 256, for [`Checker::seeds`](crate::Checker::seeds). They are not made simpler by other seeds: what fails under one
/// of them is made short as a schedule, and told.
///
/// ```
/// use dirtysim_kvm::strategies::schedules;
/// use proptest::strategy::{Strategy, ValueTree};
/// use proptest::test_runner::TestRunner;
///
/// let seeds = schedules().new_tree(&mut TestRunner::deterministic()).unwrap().current();
/// assert_eq!(seeds.end - seeds.start, 256);
/// ```
pub fn schedules() -> impl Strategy<Value = Range<u64>> {
    (0..1_u64 << 32)
        .prop_map(|batch| batch * 256..(batch + 1) * 256)
        .no_shrink()
}
