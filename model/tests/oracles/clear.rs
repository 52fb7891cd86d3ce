//! KVM_CLEAR_DIRTY_LOG: legal ranges and their errnos, partial last words, which bits go and which pages are re-armed.

use proptest::prelude::*;

use crate::acts::{Act, agree, assert_tells, bitmap, compare, numbers, regions, runs, store};
use crate::support::{Access, Arch, Errno, Large, Mutation, Setup, Small, Vm};

/// A range: mostly legal, of words of that many bits in a slot of that many pages.
fn ranges(bits: u32, pages: u32) -> impl Strategy<Value = (u64, u32)> {
    let words = pages.div_ceil(bits);
    let legal = (0..words).prop_flat_map(move |first| {
        let first = first * bits;
        let to_the_end = Just(pages - first);
        let whole = (0..=(pages - first) / bits).prop_map(move |words| words * bits);
        (Just(u64::from(first)), prop_oneof![to_the_end, whole])
    });
    let any = (0..u64::from(pages) + 9, 0..pages + 9);
    let far = (Just(u64::MAX - u64::from(bits) + 1), 0..pages);
    prop_oneof![6 => legal, 3 => any, 1 => far]
}

fn acts_on(setup: Setup) -> impl Strategy<Value = (Setup, Vec<Act>)> {
    let pages = setup.slots[0];
    let given = prop_oneof![
        prop::collection::btree_set(0..pages, 0..8).prop_map(|set| set.into_iter().collect()),
        Just((0..pages).collect::<Vec<u32>>()),
    ];
    let clear = (
        numbers(&setup),
        ranges(setup.word_bits, pages),
        given,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(number, (first, count), given, bad)| {
            Act::Clear(number, first, count, given, bad)
        });
    let act = prop_oneof![
        8 => runs(&setup, true),
        6 => clear,
        1 => Just(Act::Get(0, false)),
        1 => regions(&setup),
        1 => prop::sample::select(vec![0u64, 1, 3]).prop_map(Act::Manual),
    ];
    (Just(setup), prop::collection::vec(act, 1..60))
}

fn small_words() -> impl Strategy<Value = (Setup, Vec<Act>)> {
    let archs = [Arch::X86, Arch::Arm64, Arch::Riscv, Arch::Loongarch];
    let words = prop_oneof![Just(2u32), Just(4), Just(8)];
    // The slots have one size, so that one list of pages fits each.
    let sizes = prop_oneof![Just([10, 10]), Just([8, 8]), Just([3, 3])];
    (prop::sample::select(archs.to_vec()), words, sizes)
        .prop_flat_map(|(arch, bits, sizes)| acts_on(bitmap(arch, &sizes, bits)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn clear_is_that_of_a_list((setup, acts) in small_words()) {
        agree::<Small>(&setup, &acts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn clear_of_the_kernels_words_is_that_of_a_list(
        (setup, acts) in prop_oneof![Just(Arch::X86), Just(Arch::Arm64)]
            .prop_flat_map(|arch| acts_on(bitmap(arch, &[100, 100], 64)))
    ) {
        agree::<Large>(&setup, &acts)?;
    }
}

fn hundred() -> Setup {
    bitmap(Arch::X86, &[100], 64)
}

#[test]
fn what_is_wrong_with_a_range_is_said_in_the_kernels_order() {
    let answer = |number, first, count, bad| {
        let clear = Act::Clear(number, first, count, vec![], bad);
        assert_eq!(compare::<Large>(&hundred(), &[clear]), Ok(()));
        Vm::<Large>::new(&hundred()).clear(number, first, count, vec![], bad)
    };
    for (number, first, count, bad, want) in [
        (0, 0, 100, false, Ok(0)),
        (0, 0, 64, false, Ok(0)),
        (0, 64, 36, false, Ok(0)),
        (0, 0, 0, false, Ok(0)),
        // Half a word that does not end the slot, a start within a word, an end beyond the slot.
        (0, 0, 36, false, Err(Errno::EINVAL)),
        (0, 32, 64, false, Err(Errno::EINVAL)),
        (0, 64, 64, false, Err(Errno::EINVAL)),
        (0, 128, 0, false, Err(Errno::EINVAL)),
        // No such slot; then what is checked before that, and what after.
        (5, 0, 64, false, Err(Errno::ENOENT)),
        (5, 32, 64, false, Err(Errno::EINVAL)),
        (5, 0, 64, true, Err(Errno::ENOENT)),
        (2 << 16, 0, 64, false, Err(Errno::EINVAL)),
        (0, 0, 36, true, Err(Errno::EINVAL)),
        (0, 0, 64, true, Err(Errno::EFAULT)),
    ] {
        assert_eq!(
            answer(number, first, count, bad),
            want,
            "{number} {first} {count}"
        );
    }
}

#[test]
fn a_bit_that_is_not_set_re_arms_nothing() {
    let mut vm = Vm::<Large>::new(&hundred());
    let access = |page| Access {
        slot: 0,
        page,
        load: false,
    };
    vm.run(0, Some(access(3)), false);
    assert_eq!(vm.get(0, false), (Ok(0), vec![3]));
    assert_eq!(vm.manual(1), Ok(0));
    vm.run(0, Some(access(3)), false);
    vm.run(0, Some(access(4)), false);
    assert_eq!(vm.clear(0, 0, 100, vec![4, 5], false), Ok(0));
    assert_eq!((vm.bits(), vm.writable()), (vec![3], vec![3]));
}

#[test]
fn the_tail_of_a_slot_is_cleared() {
    let acts = [store(0, 0, 99), Act::Clear(0, 64, 36, vec![99], false)];
    assert_tells::<Large>(Mutation::ClearRoundFloor, &hundred(), &acts);
}

#[test]
fn the_users_bits_are_those_of_the_range() {
    let acts = [store(0, 0, 70), Act::Clear(0, 64, 36, vec![70], false)];
    assert_tells::<Large>(Mutation::ClearSrcRangeSlot, &hundred(), &acts);
    assert_tells::<Large>(Mutation::ClearStartLast, &hundred(), &acts);
}

#[test]
fn what_is_cleared_is_re_armed() {
    let acts = [store(0, 0, 1), Act::Clear(0, 0, 100, vec![1], false)];
    assert_tells::<Large>(Mutation::ClearNoRearm, &hundred(), &acts);
}

#[test]
fn no_bit_goes_that_user_space_did_not_pass() {
    let acts = [store(0, 0, 1), Act::Clear(0, 0, 100, vec![], false)];
    assert_tells::<Large>(Mutation::ClearMaskSeenFalse, &hundred(), &acts);
}
