//! The dirty ring: what a store pushes, when a vCPU leaves with exit 31, what harvesting and RESET make of it, and what an
//! overflow does.

use proptest::prelude::*;

use crate::acts::{Act, agree, assert_tells, ring, runs, store};
use crate::support::{Arch, Large, Mutation, Setup, Small};

const RING_ARCHS: [Arch; 4] = [Arch::X86, Arch::Arm64, Arch::Riscv, Arch::Loongarch];

fn harvests(setup: &Setup) -> impl Strategy<Value = Act> + use<> {
    let max = prop_oneof![0u32..5, Just(u32::MAX)];
    (0..setup.vcpus, max).prop_map(|(vcpu, max)| Act::Harvest(vcpu, max))
}

fn resets() -> impl Strategy<Value = Act> {
    Just(Act::Reset(None))
}

/// A VM with rings, and acts on it.
fn lives(records: bool) -> impl Strategy<Value = (Setup, Vec<Act>)> {
    let sizes = prop_oneof![
        Just((2, 1)),
        Just((4, 1)),
        Just((4, 2)),
        Just((8, 3)),
        Just((8, 8))
    ];
    (prop::sample::select(RING_ARCHS.to_vec()), sizes).prop_flat_map(
        move |(arch, (entries, reserved))| {
            let setup = ring(arch, &[5, 8], entries, reserved);
            let record = (0..setup.vcpus).prop_map(Act::Record);
            let act = prop_oneof![
                8 => runs(&setup, arch == Arch::X86),
                if records { 3 } else { 1 } => record,
                3 => harvests(&setup),
                2 => resets(),
            ];
            (Just(setup), prop::collection::vec(act, 1..60))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn pushes_exits_harvests_and_resets_are_those_of_a_list((setup, acts) in lives(false)) {
        agree::<Small>(&setup, &acts)?;
    }

    /// Records of the kernel's own are pushed whether there is room or not: rings overflow, and overwrite.
    #[test]
    fn an_overflow_overwrites_the_oldest_entry((setup, acts) in lives(true)) {
        agree::<Small>(&setup, &acts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// KVM's own sizes: 256 entries, 64 of them in reserve, batches of 64 pages.
    #[test]
    fn a_ring_of_the_kernels_size_is_that_list_too(
        arch in prop::sample::select(RING_ARCHS.to_vec()),
        rounds in prop::collection::vec((0u32..300, 1u32..250, 0u32..100), 1..6),
    ) {
        let setup = Setup { batch_pages: 64, word_bits: 64, ..ring(arch, &[600], 256, 64) };
        let mut acts = Vec::new();
        for (first, count, max) in rounds {
            acts.extend((first..first + count).map(|page| store(0, 0, page)));
            acts.extend([Act::Harvest(0, max), Act::Reset(None), Act::Harvest(0, u32::MAX)]);
        }
        agree::<Large>(&setup, &acts)?;
    }
}

/// Stores of one vCPU to pages 0, 1, 2 and so on.
fn stores(count: u32) -> Vec<Act> {
    (0..count).map(|page| store(0, 0, page)).collect()
}

#[test]
fn a_vcpu_leaves_when_its_reserve_is_reached_and_not_before() {
    let setup = ring(Arch::X86, &[8], 4, 2);
    assert_tells::<Small>(Mutation::RingSoftFullLate, &setup, &stores(3));
    assert_tells::<Small>(Mutation::RingNoRequest, &setup, &stores(3));
}

#[test]
fn a_fault_of_a_slot_that_logs_pushes() {
    assert_tells::<Small>(
        Mutation::FaultNoMark,
        &ring(Arch::Arm64, &[8], 8, 2),
        &stores(1),
    );
}

#[test]
fn a_harvest_reads_the_whole_ring() {
    let setup = ring(Arch::X86, &[8], 4, 1);
    let mut acts = stores(3);
    acts.push(Act::Harvest(0, u32::MAX));
    assert_tells::<Small>(Mutation::RingMapShort, &setup, &acts);
}

#[test]
fn the_kernels_own_record_is_pushed_each_time() {
    let acts = [Act::Record(0), Act::Record(0)];
    assert_tells::<Small>(
        Mutation::KernelRecordNoLog,
        &ring(Arch::X86, &[8], 8, 2),
        &acts,
    );
}

/// What an overflow loses: the ring's first page is in no entry any more, and its leaf is still writable.
#[test]
fn a_page_that_an_overflow_overwrote_is_never_reported_nor_armed_again() {
    let setup = ring(Arch::X86, &[8], 2, 1);
    let mut acts = vec![store(0, 0, 5)];
    acts.extend([Act::Record(0), Act::Record(0)]);
    acts.extend([Act::Harvest(0, u32::MAX), Act::Reset(None), store(0, 0, 5)]);
    let mut vm = crate::support::Vm::<Small>::new(&setup);
    assert_eq!(crate::acts::compare::<Small>(&setup, &acts), Ok(()));
    let access = crate::support::Access {
        slot: 0,
        page: 5,
        load: false,
    };
    vm.run(0, Some(access), false);
    vm.run(0, None, true);
    vm.run(0, None, true);
    assert_eq!(vm.indices(0), (3, 0), "three entries in a ring of two");
    let (entries, pages) = vm.harvest(0, u32::MAX);
    assert_eq!((entries, pages), (vec![(0, 0), (0, 0)], vec![0]));
    let _ = vm.reset(None);
    assert_eq!(vm.writable(), [5]);
}
