//! KVM_RESET_DIRTY_RINGS: its count, its batches, what it re-arms, slots that are gone, a signal half-way.

use proptest::prelude::*;

use crate::acts::{Act, agree, assert_tells, compare, regions, ring, runs, store};
use crate::support::{Arch, Kernel, Large, Mutation, Region, Setup, Small, Vm};

/// A VM whose rings take most of its pages, in batches shorter than its slots, and acts that end in RESETs.
fn resets(slots_change: bool) -> impl Strategy<Value = (Setup, Vec<Act>)> {
    let archs = [Arch::X86, Arch::Arm64, Arch::Riscv, Arch::Loongarch];
    let batch = prop_oneof![Just(2u32), Just(3), Just(8)];
    (prop::sample::select(archs.to_vec()), batch).prop_flat_map(move |(arch, batch_pages)| {
        let setup = Setup {
            batch_pages,
            ..ring(arch, &[12, 8], 16, 2)
        };
        let signal = prop::option::weighted(0.3, 0usize..20);
        let act = prop_oneof![
            8 => runs(&setup, false),
            2 => (0..setup.vcpus, 0u32..9).prop_map(|(vcpu, max)| Act::Harvest(vcpu, max)),
            1 => (0..setup.vcpus).prop_map(|vcpu| Act::Harvest(vcpu, u32::MAX)),
            2 => signal.prop_map(Act::Reset),
            u32::from(slots_change) => regions(&setup),
        ];
        (Just(setup), prop::collection::vec(act, 1..80))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn batches_are_runs_of_entries_that_lie_near_each_other((setup, acts) in resets(false)) {
        agree::<Small>(&setup, &acts)?;
    }

    #[test]
    fn entries_of_slots_that_are_gone_are_freed_and_re_arm_nothing((setup, acts) in resets(true)) {
        agree::<Small>(&setup, &acts)?;
    }
}

/// Stores to those pages, all harvested, then RESET.
fn pushed_and_reset(pages: &[u32], signal_at: Option<usize>) -> Vec<Act> {
    let mut acts: Vec<Act> = pages.iter().map(|&page| store(0, 0, page)).collect();
    acts.extend([Act::Harvest(0, u32::MAX), Act::Reset(signal_at)]);
    acts
}

fn wide(batch_pages: u32) -> Setup {
    Setup {
        batch_pages,
        word_bits: 64,
        ..ring(Arch::Arm64, &[300], 16, 2)
    }
}

/// The pages that stay writable after stores to `pages`, a harvest and RESET on arm64, of those that were writable before.
fn left_writable(batch_pages: u32, pages: &[u32], between: u32) -> bool {
    let setup = wide(batch_pages);
    assert_eq!(
        compare::<Large>(&setup, &pushed_and_reset(pages, None)),
        Ok(())
    );
    let mut vm = Vm::<Large>::new(&setup);
    let run = |vm: &mut Vm<Large>, vcpu, page| {
        let access = crate::support::Access {
            slot: 0,
            page,
            load: false,
        };
        vm.run(vcpu, Some(access), false);
    };
    // The other vCPU has a page that its own ring keeps, so that only a range can re-arm it.
    run(&mut vm, 1, between);
    pages.iter().for_each(|&page| run(&mut vm, 0, page));
    vm.harvest(0, u32::MAX);
    assert_eq!(vm.reset(None), Ok(pages.len() as u32));
    vm.writable().contains(&between)
}

#[test]
fn a_batch_grows_on_either_side_as_far_as_it_spans() {
    // One batch re-arms what lies between its ends; two do not.
    assert!(!left_writable(64, &[100, 163], 130), "64 pages, upwards");
    assert!(!left_writable(64, &[163, 100], 130), "64 pages, downwards");
    assert!(left_writable(64, &[100, 164], 130), "65 pages, upwards");
    assert!(left_writable(64, &[164, 100], 130), "65 pages, downwards");
    assert!(
        !left_writable(64, &[130, 140, 100], 120),
        "first up, then down"
    );
    assert!(
        !left_writable(64, &[130, 193, 129], 131),
        "129 is one too far, what lies between is not"
    );
    // A batch that cannot take an entry is over, even if it could take the next one.
    assert!(
        left_writable(64, &[100, 250, 120], 110),
        "100, then 250, then 120"
    );
}

#[test]
fn a_reset_re_arms_every_page_of_a_batch() {
    let setup = ring(Arch::X86, &[8], 8, 2);
    let acts = pushed_and_reset(&[1, 2], None);
    assert_tells::<Small>(Mutation::ResetBatchFirstOnly, &setup, &acts);
}

#[test]
fn a_reset_that_freed_entries_flushes_tlbs() {
    let setup = ring(Arch::X86, &[8], 8, 2);
    let acts = pushed_and_reset(&[1], None);
    assert_tells::<Small>(Mutation::ResetNoFlush, &setup, &acts);
}

#[test]
fn a_reset_tells_how_many_entries_it_freed() {
    let setup = ring(Arch::X86, &[8], 8, 2);
    let acts = pushed_and_reset(&[1, 2], None);
    assert_tells::<Small>(Mutation::ResetCountNarrow, &setup, &acts);
}

#[test]
fn a_signal_leaves_the_batch_of_the_moment_writable_and_frees_its_entries() {
    let setup = ring(Arch::X86, &[8], 8, 2);
    let acts = pushed_and_reset(&[1, 2, 3], Some(2));
    assert_eq!(compare::<Small>(&setup, &acts), Ok(()));
    // Older kernels do not look for signals: the oracle, which does, disagrees.
    let older = Setup {
        kernel: Kernel::V6_12,
        ..setup
    };
    assert!(compare::<Small>(&older, &acts).is_err());
}

#[test]
fn an_entry_of_a_slot_made_again_re_arms_the_new_slot() {
    for arch in [Arch::X86, Arch::Arm64] {
        let setup = ring(arch, &[8, 8], 8, 2);
        let acts = [
            store(0, 0, 3),
            Act::Harvest(0, u32::MAX),
            Act::Region(0, Region::Gone),
            Act::Region(0, Region::Quiet),
            // Not logged, so that the old entry alone can re-arm it.
            store(0, 0, 3),
            store(0, 0, 4),
            Act::Reset(None),
        ];
        assert_eq!(compare::<Small>(&setup, &acts), Ok(()));
        let mut vm = Vm::<Small>::new(&setup);
        let run = |vm: &mut Vm<Small>, page| {
            let access = crate::support::Access {
                slot: 0,
                page,
                load: false,
            };
            vm.run(0, Some(access), false);
        };
        run(&mut vm, 3);
        vm.harvest(0, 1);
        assert_eq!(vm.region(0, Region::Gone), Ok(0));
        assert_eq!(vm.region(0, Region::Quiet), Ok(0));
        run(&mut vm, 3);
        run(&mut vm, 4);
        assert_eq!(vm.writable(), [3, 4]);
        assert_eq!(vm.reset(None), Ok(1));
        assert_eq!(vm.writable(), [4]);
    }
}
