//! What holds of every interleaving: a ring entry's life goes one way, and no mark is dropped by a GET.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::acts::{bitmap, ring};
use crate::support::{Arch, Entry, HarvestWay, Mutation, Setup, Small, Vm, Who};

/// Whether an entry may become what it became: free, dirty, harvested, free again, each by who may do so.
fn may_become(before: Entry, after: Entry, who: Who, ring: usize) -> bool {
    match (before.0, after.0) {
        // Nobody is told of a free entry's payload; only its vCPU writes it.
        (0, 0) => before == after || who == Who::Vcpu(ring),
        (0, 1) => who == Who::Vcpu(ring) && before.1 == after.1 && before.2 == after.2,
        (1, 2 | 3) | (2 | 3, 0) => who == Who::Vmm && before.1 == after.1 && before.2 == after.2,
        (left, right) => left == right && before == after,
    }
}

/// Stores of two vCPUs beside harvests and RESETs; the first step that an entry's life forbids.
fn entries_live(setup: &Setup, way: HarvestWay, steps: &[u8]) -> Result<(), String> {
    let mut vm = Vm::<Small>::new(setup);
    vm.harvest_and_reset_for_ever(way);
    for (number, step) in steps.iter().enumerate() {
        let before: Vec<Vec<Entry>> = (0..setup.vcpus).map(|vcpu| vm.entries(vcpu)).collect();
        let (who, word) = vm.any_step(usize::from(*step), true);
        for (vcpu, before) in before.iter().enumerate() {
            for (old, new) in before.iter().zip(vm.entries(vcpu)) {
                if !may_become(*old, new, who, vcpu) {
                    return Err(format!(
                        "step {number}, {word} of {who:?}: {old:?} became {new:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Stores of two vCPUs beside GETs: a bit that was set is told, once for each time that it was set.
fn marks_are_told(setup: &Setup, steps: &[u8]) -> Result<(), String> {
    let mut vm = Vm::<Small>::new(setup);
    vm.get_for_ever();
    let (mut set, mut told) = (BTreeMap::new(), BTreeMap::new());
    let mut count = |vm: &mut Vm<Small>, before: &[u32]| {
        for page in vm.bits().into_iter().filter(|page| !before.contains(page)) {
            *set.entry(page).or_insert(0) += 1;
        }
        for page in vm.collected() {
            *told.entry(page).or_insert(0) += 1;
        }
    };
    for step in steps {
        let before = vm.bits();
        vm.any_step(usize::from(*step), true);
        count(&mut vm, &before);
    }
    // Then GETs, until one has passed in which no vCPU acted: it has fetched what was left.
    let mut vcpu_acted = true;
    for number in 0.. {
        let before = vm.bits();
        let (who, word) = vm.any_step(number, false);
        count(&mut vm, &before);
        vcpu_acted |= who != Who::Vmm;
        if word == "get-return" {
            if !vcpu_acted {
                break;
            }
            vcpu_acted = false;
        }
    }
    if set == told {
        Ok(())
    } else {
        Err(format!("set {set:?}, told {told:?}"))
    }
}

fn rings() -> Setup {
    ring(Arch::X86, &[4], 4, 2)
}

fn bitmaps(arch: Arch) -> Setup {
    bitmap(arch, &[6], 4)
}

fn many() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 200..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_entry_goes_from_free_to_dirty_to_harvested_to_free(
        arm in any::<bool>(),
        steps in many(),
    ) {
        let setup = if arm { ring(Arch::Arm64, &[4], 4, 2) } else { rings() };
        entries_live(&setup, HarvestWay::Right, &steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_bit_that_was_set_is_told(arm in any::<bool>(), steps in many()) {
        let arch = if arm { Arch::Arm64 } else { Arch::X86 };
        marks_are_told(&bitmaps(arch), &steps).map_err(TestCaseError::fail)?;
    }
}

/// Steps that look random and are the same every time.
fn some_steps(seed: u32) -> Vec<u8> {
    let next = |last: &u32| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(seed), next)
        .map(|number| (number >> 24) as u8)
        .take(600)
        .collect()
}

fn found(mut check: impl FnMut(&[u8]) -> Result<(), String>) -> bool {
    (0..200).any(|seed| check(&some_steps(seed)).is_err())
}

#[test]
fn a_harvester_that_breaks_the_protocol_is_seen() {
    for way in [HarvestWay::WriteZero, HarvestWay::OneTooMany] {
        assert!(found(|steps| entries_live(&rings(), way, steps)), "{way:?}");
    }
    assert!(!found(|steps| entries_live(
        &rings(),
        HarvestWay::Right,
        steps
    )));
}

#[test]
fn a_push_that_shows_its_flag_before_its_payload_is_seen() {
    let setup = rings().with(Mutation::PushOrderRelaxed);
    assert!(found(|steps| entries_live(
        &setup,
        HarvestWay::Right,
        steps
    )));
}

#[test]
fn a_bitmap_that_is_cleared_as_a_whole_after_the_copy_drops_marks() {
    let setup = bitmaps(Arch::X86).with(Mutation::GetClearAfterCopy);
    assert!(found(|steps| marks_are_told(&setup, steps)));
    assert!(!found(|steps| marks_are_told(&bitmaps(Arch::X86), steps)));
}
