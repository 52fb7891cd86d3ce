//! Strategies for proptest: machines whose guests, sizes and ways of logging vary. What a property fails on is shrunk to the smallest
//! machine by proptest, and to the shortest schedule of it by this crate.

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
    (arch, logging, slots, 1..=2_u32, 1..=3_u32).prop_map(
        |(arch, logging, slots, vcpus, stores)| {
            // Only arm64 has a bitmap beside rings.
            let arch = match logging {
                Logging::RingWithBitmap => Arch::Arm64,
                Logging::Bitmap | Logging::ManualProtect | Logging::Ring => arch,
            };
            let machine = Machine::new(arch).vcpus(vcpus).stores(stores);
            let machine = match logging {
                Logging::Bitmap => machine,
                Logging::ManualProtect => machine.manual_protect(),
                Logging::Ring => machine.ring(4),
                Logging::RingWithBitmap => machine.ring(4).ring_with_bitmap(),
            };
            let slots = (0..).zip(slots);
            slots.fold(machine, |machine, (id, pages)| machine.slot(id, pages))
        },
    )
}
