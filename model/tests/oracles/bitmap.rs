//! KVM_GET_DIRTY_LOG in both modes of protection, INITIALLY_SET, bitmaps beside rings, and memslots that come and go.

use proptest::prelude::*;

use crate::acts::{Act, agree, assert_tells, bitmap, numbers, regions, ring, runs, store};
use crate::support::{Arch, Large, Mutation, Region, Setup, Small};

const ARCHS: [Arch; 4] = [Arch::X86, Arch::Arm64, Arch::Riscv, Arch::Loongarch];

fn gets(setup: &Setup) -> impl Strategy<Value = Act> + use<> {
    (numbers(setup), prop::bool::weighted(0.15)).prop_map(|(slot, bad)| Act::Get(slot, bad))
}

fn kernel_writes(setup: &Setup) -> impl Strategy<Value = Act> + use<> {
    let slots = setup.slots.clone();
    (0..setup.slots.len())
        .prop_flat_map(move |slot| (Just(slot), 0..slots[slot]))
        .prop_map(|(slot, page)| Act::KernelWrite(slot, page))
}

/// Everything that a bitmap sees, on VMs of small words.
fn acts_on(setup: Setup) -> impl Strategy<Value = (Setup, Vec<Act>)> {
    let manual = prop::sample::select(vec![0u64, 1, 2, 3, 4]);
    let act = prop_oneof![
        8 => runs(&setup, setup.ring.is_none()),
        1 => kernel_writes(&setup),
        4 => gets(&setup),
        1 => regions(&setup),
        1 => manual.prop_map(Act::Manual),
    ];
    (Just(setup), prop::collection::vec(act, 1..60))
}

fn with_bitmaps_alone() -> impl Strategy<Value = (Setup, Vec<Act>)> {
    let word_bits = prop_oneof![Just(2u32), Just(4), Just(8)];
    (prop::sample::select(ARCHS.to_vec()), word_bits)
        .prop_flat_map(|(arch, bits)| acts_on(bitmap(arch, &[10, 8, 3], bits)))
}

/// A ring with bitmaps beside it, or alone: then there is no bitmap to fetch.
fn with_rings() -> impl Strategy<Value = (Setup, Vec<Act>)> {
    any::<bool>().prop_flat_map(|with_bitmap| {
        let setup = Setup {
            with_bitmap,
            ..ring(Arch::Arm64, &[10, 8], 32, 2)
        };
        let harvest = Just(Act::Harvest(0, u32::MAX));
        let reset = Just(Act::Reset(None));
        (
            acts_on(setup),
            prop::collection::vec(prop_oneof![harvest, reset], 0..12),
        )
            .prop_map(|((setup, mut acts), more)| {
                // The others stand among the acts at even distances.
                for (index, act) in more.into_iter().enumerate() {
                    acts.insert((index * 5).min(acts.len()), act);
                }
                (setup, acts)
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn get_is_that_of_a_list_in_both_modes((setup, acts) in with_bitmaps_alone()) {
        agree::<Small>(&setup, &acts)?;
    }

    #[test]
    fn get_beside_rings_is_that_of_a_list((setup, acts) in with_rings()) {
        agree::<Small>(&setup, &acts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Words of 64 bits, slots of many of them with a partial last one.
    #[test]
    fn get_of_the_kernels_words_is_that_of_a_list(
        (setup, acts) in prop::sample::select(ARCHS.to_vec())
            .prop_flat_map(|arch| acts_on(bitmap(arch, &[300, 64, 100], 64)))
    ) {
        agree::<Large>(&setup, &acts)?;
    }
}

fn small() -> Setup {
    bitmap(Arch::X86, &[10], 4)
}

#[test]
fn get_flushes_what_it_re_armed() {
    let acts = [store(0, 0, 1), Act::Get(0, false)];
    assert_tells::<Small>(Mutation::GetNoFlush, &small(), &acts);
}

#[test]
fn get_takes_the_partial_last_word() {
    let acts = [store(0, 0, 9), Act::Get(0, false)];
    assert_tells::<Small>(Mutation::GetTailNotCleared, &small(), &acts);
}

#[test]
fn get_tells_the_pages_and_not_their_words() {
    let acts = [store(0, 0, 1), Act::Get(0, false)];
    assert_tells::<Small>(Mutation::Granularity64, &small(), &acts);
}

#[test]
fn get_has_cleared_the_bits_before_it_fails_to_copy_them() {
    let acts = [store(0, 0, 1), Act::Get(0, true)];
    assert_tells::<Small>(Mutation::GetClearAfterCopy, &small(), &acts);
}

#[test]
fn every_page_has_a_bit_of_its_own() {
    let acts = [store(0, 0, 7)];
    assert_tells::<Small>(Mutation::BitmapIndexNarrow, &small(), &acts);
}

#[test]
fn initially_set_fills_the_slots_pages_and_no_more() {
    let acts = [
        Act::Manual(3),
        Act::Region(0, Region::Quiet),
        Act::Region(0, Region::Logging),
    ];
    assert_tells::<Small>(Mutation::InitiallySetWholeWords, &small(), &acts);
}

#[test]
fn turning_the_log_on_re_arms_what_was_writable() {
    let acts = [
        Act::Region(0, Region::Quiet),
        store(0, 0, 1),
        Act::Region(0, Region::Logging),
    ];
    assert_tells::<Small>(Mutation::EnableNoProtect, &small(), &acts);
}

#[test]
fn a_writer_without_a_vcpu_sets_a_bit_beside_a_ring() {
    let beside = Setup {
        with_bitmap: true,
        ..ring(Arch::Arm64, &[8], 8, 2)
    };
    let acts = [Act::KernelWrite(0, 3), Act::Get(0, false)];
    for mutation in [
        Mutation::NonVcpuDrop,
        Mutation::NonVcpuVcpu0,
        Mutation::KernelWriterNoLog,
        Mutation::NonVcpuAllowItsSave,
    ] {
        assert_tells::<Small>(mutation, &beside, &acts);
    }
}
