//! The model's host, as traces of calls drive it, against naive oracles: rings, RESET, GET and CLEAR, by random calls.
//!
//! Each oracle is under 50 lines, made of lists and sets, and shares no code with the model. The model alone proves itself
//! in `model/tests/`.

use std::collections::{BTreeSet, HashSet};

use dirtysim::replay::{ModelHost, Modelled};
use dirtysim::trace::call::{Access, Call, Program};
use dirtysim::trace::call_result::{CallResult, Returned};
use dirtysim::trace::{
    Arch, Cap, Errno, Exit, Machine, RingEntries, RingEntry, StoreRuns, WordRun, Words,
};
use proptest::prelude::*;

/// Entries of the ring, and of those the ones that are held back.
const ENTRIES: usize = 256;
const RESERVED: usize = 64;
/// Pages of the slot: two words, the second of 36 bits.
const PAGES: u64 = 100;

fn host(arch: Arch, ring: bool) -> ModelHost {
    let machine = Machine {
        arch,
        kernel: Some("6.18.0".to_owned()),
        page_size: Some(4096),
        ring_page_offset: Some(64),
        address_spaces: Some(1),
        pml: None,
        two_dimensional: None,
    };
    let mut host = ModelHost::new(&machine, &[]).unwrap();
    perform(&mut host, &Call::CreateVm {});
    if ring {
        let cap = Cap::DirtyLogRingAcqRel;
        let args0 = 16 * ENTRIES as u64;
        let enabled = perform(
            &mut host,
            &Call::EnableCap {
                cap,
                flags: 0,
                args0,
            },
        );
        assert_eq!(enabled, CallResult::returned(0));
    }
    let region = Call::SetUserMemoryRegion {
        slot: 1,
        as_id: 0,
        flags: 1,
        gpa: 1 << 30,
        npages: if ring { 4096 } else { PAGES },
        bytes: None,
        mem: "data".to_owned(),
        mem_offset: 0,
        populated: true,
        huge: false,
    };
    assert_eq!(perform(&mut host, &region), CallResult::returned(0));
    assert_eq!(
        perform(&mut host, &Call::CreateVcpu { vcpu: 0 }),
        CallResult::returned(0)
    );
    host
}

fn perform(host: &mut ModelHost, call: &Call) -> CallResult {
    match host.perform(Some(1), call).unwrap() {
        Modelled::Result(result) => result,
        Modelled::Not(why) => panic!("{why}"),
    }
}

fn run(host: &mut ModelHost, pages: &[u64], access: Access) -> CallResult {
    let mut store = StoreRuns::default();
    for &page in pages {
        store.push_run(1, page, 1).unwrap();
    }
    let program = Program {
        store,
        bytes: 8,
        value: 1,
        access,
        elements: 1,
        at: 0,
    };
    perform(
        host,
        &Call::Run {
            vcpu: 0,
            program,
            resume: false,
        },
    )
}

/// A ring as its documentation has it: what was pushed and not yet reset, each with its page and whether it was
/// harvested; and the pages that a store would be seen at.
#[derive(Default)]
struct NaiveRing {
    entries: Vec<(u64, bool)>,
    writable: HashSet<u64>,
    /// Entries that were reset, ever.
    gone: u32,
}

impl NaiveRing {
    /// Stores that retire, and whether the guest came to its end.
    fn run(&mut self, pages: &[u64]) -> (u64, bool) {
        if self.entries.len() >= ENTRIES - RESERVED {
            return (0, false);
        }
        for (retired, page) in pages.iter().enumerate() {
            if self.writable.insert(*page) {
                self.entries.push((*page, false));
                if self.entries.len() >= ENTRIES - RESERVED {
                    return (retired as u64, false);
                }
            }
        }
        (pages.len() as u64, true)
    }
    fn harvested(&self) -> usize {
        self.entries.iter().filter(|entry| entry.1).count()
    }
    fn harvest(&mut self, max: usize) -> Vec<u64> {
        let from = self.harvested();
        let taken = self.entries[from..].iter_mut().take(max);
        taken
            .map(|entry| {
                entry.1 = true;
                entry.0
            })
            .collect()
    }
    fn reset(&mut self) -> u32 {
        let count = self.harvested();
        for (page, _) in self.entries.drain(..count) {
            self.writable.remove(&page);
        }
        self.gone += count as u32;
        count as u32
    }
}

#[derive(Debug, Clone)]
enum RingAct {
    Run(Vec<u64>),
    Harvest(usize),
    Reset,
}

fn ring_act() -> impl Strategy<Value = RingAct> {
    let scattered = prop::collection::vec(0u64..4096, 0..40);
    let row = (0u64..3800, 1u64..250).prop_map(|(first, count)| (first..first + count).collect());
    prop_oneof![
        2 => scattered.prop_map(RingAct::Run),
        3 => row.prop_map(RingAct::Run),
        3 => prop_oneof![0usize..80, Just(usize::MAX)].prop_map(RingAct::Harvest),
        3 => Just(RingAct::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// x86 re-arms exactly the pages of the entries, so that the naive ring is exact there.
    #[test]
    fn a_ring_and_its_reset_are_those_of_a_list(acts in prop::collection::vec(ring_act(), 1..40)) {
        let mut host = host(Arch::X86_64, true);
        let mut naive = NaiveRing::default();
        for act in acts {
            match act {
                RingAct::Run(pages) => {
                    let result = run(&mut host, &pages, Access::Store);
                    let (retired, done) = naive.run(&pages);
                    prop_assert_eq!(result.stores_retired, Some(retired));
                    prop_assert_eq!(result.program_done, Some(done));
                    let exit = if done { Exit::Io } else { Exit::DirtyRingFull };
                    prop_assert_eq!(result.exit, Some(exit));
                }
                RingAct::Harvest(max) => {
                    let call = Call::Harvest {
                        vcpu: 0,
                        fetch_index: naive.gone + naive.harvested() as u32,
                        max: u32::try_from(max).ok(),
                        write_flags: 2,
                    };
                    let pages = naive.harvest(max);
                    let entries = pages.iter().map(|&offset| RingEntry { flags: 1, slot: 1, offset });
                    let result = perform(&mut host, &call);
                    prop_assert_eq!(result.count, Some(pages.len() as u64));
                    prop_assert_eq!(result.entries, Some(RingEntries::collect(entries).unwrap()));
                }
                RingAct::Reset => {
                    let result = perform(&mut host, &Call::ResetDirtyRings {});
                    prop_assert_eq!(result, CallResult::returned(naive.reset()));
                }
            }
            prop_assert!(host.broken(Some(1)).is_empty());
        }
    }
}

/// A bitmap as its documentation has it.
#[derive(Default)]
struct NaiveBitmap {
    manual: bool,
    dirty: HashSet<u64>,
    writable: HashSet<u64>,
}

impl NaiveBitmap {
    fn store(&mut self, page: u64) {
        if self.writable.insert(page) {
            self.dirty.insert(page);
        }
    }
    fn get(&mut self) -> BTreeSet<u64> {
        let shown = self.dirty.iter().copied().collect();
        if !self.manual {
            for page in self.dirty.drain() {
                self.writable.remove(&page);
            }
        }
        shown
    }
    fn clear(&mut self, first: u64, count: u64, given: &BTreeSet<u64>) -> bool {
        let ends_well = count.is_multiple_of(64) || first + count == PAGES;
        if !first.is_multiple_of(64) || first + count > PAGES || !ends_well {
            return false;
        }
        // Whole words are taken: what lies behind the range and in its last word goes too, and there is nothing.
        for page in given {
            if *page < count.div_ceil(64) * 64 && self.dirty.remove(&(first + page)) {
                self.writable.remove(&(first + page));
            }
        }
        true
    }
}

#[derive(Debug, Clone)]
enum BitmapAct {
    Store(Vec<u64>),
    Get,
    Clear(u64, u64, BTreeSet<u64>),
    Manual(bool),
}

fn bitmap_act() -> impl Strategy<Value = BitmapAct> {
    let first = prop_oneof![4 => Just(0u64), 4 => Just(64u64), 1 => 0u64..200];
    let count = prop_oneof![3 => Just(64u64), 3 => Just(36u64), 3 => Just(100u64), 1 => 0u64..200];
    let given = prop_oneof![
        prop::collection::btree_set(0u64..128, 0..30),
        Just((0..128).collect::<BTreeSet<u64>>()),
    ];
    prop_oneof![
        4 => prop::collection::vec(0..PAGES, 0..20).prop_map(BitmapAct::Store),
        2 => Just(BitmapAct::Get),
        4 => (first, count, given).prop_map(|(first, count, given)| BitmapAct::Clear(first, count, given)),
        1 => any::<bool>().prop_map(BitmapAct::Manual),
    ]
}

fn words(pages: &BTreeSet<u64>) -> Words {
    let mut words = Words::default();
    for index in 0..4 {
        let word = (0..64)
            .filter(|bit| pages.contains(&(index * 64 + bit)))
            .fold(0u64, |word, bit| word | 1 << bit);
        words
            .push_run(WordRun {
                first: index,
                last: index,
                word,
            })
            .unwrap();
    }
    words
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn get_and_clear_are_those_of_a_set(acts in prop::collection::vec(bitmap_act(), 1..60)) {
        let mut host = host(Arch::X86_64, false);
        let mut naive = NaiveBitmap::default();
        for act in acts {
            match act {
                BitmapAct::Store(pages) => {
                    run(&mut host, &pages, Access::Store);
                    pages.iter().for_each(|&page| naive.store(page));
                }
                BitmapAct::Get => {
                    let call = Call::GetDirtyLog { slot: 1, as_id: 0, bad_pointer: false };
                    let result = perform(&mut host, &call);
                    prop_assert_eq!(result.words, Some(words(&naive.get())));
                    prop_assert_eq!(result.words_written, Some(2));
                }
                BitmapAct::Clear(first, count, given) => {
                    let call = Call::ClearDirtyLog {
                        slot: 1,
                        as_id: 0,
                        first_page: first,
                        num_pages: count as u32,
                        words_given: 4,
                        words: words(&given),
                        bad_pointer: false,
                    };
                    let result = perform(&mut host, &call);
                    let wanted = if naive.clear(first, count, &given) {
                        Returned::Value(0)
                    } else {
                        Returned::Error(Errno::EINVAL)
                    };
                    prop_assert_eq!(result.returned, Some(wanted));
                }
                BitmapAct::Manual(on) => {
                    let cap = Cap::ManualDirtyLogProtect2;
                    let call = Call::EnableCap { cap, flags: 0, args0: u64::from(on) };
                    prop_assert_eq!(perform(&mut host, &call), CallResult::returned(0));
                    naive.manual = on;
                }
            }
            prop_assert!(host.broken(Some(1)).is_empty());
        }
    }
}
