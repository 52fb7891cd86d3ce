//! Page sets against a `BTreeSet`: the inline ones, and the one that grows.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::support::{Inline64, PageSet, Sparse};

#[derive(Debug, Clone)]
enum SetAct {
    Insert(u32),
    Remove(u32),
    InsertRange(u32, u32),
    RemoveRange(u32, u32),
    SetWord(u32, u64),
    ClearWord(u32, u64),
    Union(BTreeSet<u32>),
    Subtract(BTreeSet<u32>),
    Clear,
}

/// Acts on pages below `pages`; words of `bits` bits lie inside.
fn set_act(pages: u32) -> impl Strategy<Value = SetAct> {
    let range =
        move || (0..pages).prop_flat_map(move |first| (Just(first), 0..=(pages - first).min(9000)));
    let word = move || {
        (0..pages, any::<u64>()).prop_map(move |(first, mask)| {
            let room = (pages - first).min(64);
            (
                first,
                if room == 64 {
                    mask
                } else {
                    mask & ((1 << room) - 1)
                },
            )
        })
    };
    let some = move || prop::collection::btree_set(0..pages, 0..12);
    prop_oneof![
        (0..pages).prop_map(SetAct::Insert),
        (0..pages).prop_map(SetAct::Remove),
        range().prop_map(|(first, count)| SetAct::InsertRange(first, count)),
        range().prop_map(|(first, count)| SetAct::RemoveRange(first, count)),
        word().prop_map(|(first, mask)| SetAct::SetWord(first, mask)),
        word().prop_map(|(first, mask)| SetAct::ClearWord(first, mask)),
        some().prop_map(SetAct::Union),
        some().prop_map(SetAct::Subtract),
        Just(SetAct::Clear),
    ]
}

fn masked(first: u32, mask: u64) -> impl Iterator<Item = u32> {
    (0..64)
        .filter(move |bit| mask >> bit & 1 == 1)
        .map(move |bit| first + bit)
}

/// Drives a page set and a `BTreeSet` by the same acts, and asks both the same questions.
fn compare_sets<S: PageSet>(pages: u32, acts: &[SetAct]) -> Result<(), TestCaseError> {
    let of = |naive: &BTreeSet<u32>| {
        let mut set = S::default();
        naive.iter().for_each(|&page| set.insert(page));
        set
    };
    let (mut set, mut naive) = (S::default(), BTreeSet::new());
    for act in acts {
        match act {
            SetAct::Insert(page) => {
                set.insert(*page);
                naive.insert(*page);
            }
            SetAct::Remove(page) => {
                set.remove(*page);
                naive.remove(page);
            }
            SetAct::InsertRange(first, count) => {
                set.insert_range(*first, *count);
                naive.extend(*first..first + count);
            }
            SetAct::RemoveRange(first, count) => {
                set.remove_range(*first, *count);
                naive.retain(|page| !(*first..first + count).contains(page));
            }
            SetAct::SetWord(first, mask) => {
                set.set_word(*first, *mask);
                naive.extend(masked(*first, *mask));
            }
            SetAct::ClearWord(first, mask) => {
                set.clear_word(*first, *mask);
                masked(*first, *mask).for_each(|page| {
                    naive.remove(&page);
                });
            }
            SetAct::Union(other) => {
                set.union(&of(other));
                naive.extend(other);
            }
            SetAct::Subtract(other) => {
                set.subtract(&of(other));
                naive.retain(|page| !other.contains(page));
            }
            SetAct::Clear => {
                set.clear();
                naive.clear();
            }
        }
        if let SetAct::Union(other) | SetAct::Subtract(other) = act {
            prop_assert_eq!(set.intersects(&of(other)), !naive.is_disjoint(other));
        }
        prop_assert!(set.iter().eq(naive.iter().copied()));
        prop_assert_eq!(set.count(), naive.len() as u64);
        prop_assert_eq!(set.is_empty(), naive.is_empty());
        // Equal sets compare equal, whatever way they came about.
        prop_assert!(set == of(&naive));
    }
    for page in (0..pages).step_by(1.max(pages as usize / 97)) {
        prop_assert_eq!(set.contains(page), naive.contains(&page));
        prop_assert_eq!(set.next(page), naive.range(page..).next().copied());
        let bits = (pages - page).min(64);
        let word = (0..bits)
            .filter(|bit| naive.contains(&(page + bit)))
            .fold(0u64, |word, bit| word | 1 << bit);
        prop_assert_eq!(set.word(page, bits), word);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_inline_set_of_64_is_a_set(acts in prop::collection::vec(set_act(64), 0..40)) {
        compare_sets::<Inline64>(64, &acts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_sparse_set_is_a_set(acts in prop::collection::vec(set_act(20_000), 0..16)) {
        compare_sets::<Sparse>(20_000, &acts)?;
    }
}
