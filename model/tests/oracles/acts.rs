//! Calls drawn at random, made of the model and of the oracle alike; everything that either shows is compared.

use std::fmt::Debug;

use proptest::prelude::*;

use crate::naive::Naive;
use crate::support::{Access, Arch, Kernel, Layout, Mutation, Region, Setup, Vm};

/// One call, or a run of a vCPU. Numbers beyond what there is are folded into it.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Run(usize, Access),
    /// A run on whose way the kernel updates its record in guest memory.
    Record(usize),
    Harvest(usize, u32),
    /// RESET, with the place at which a signal comes.
    Reset(Option<usize>),
    Get(u32, bool),
    /// CLEAR: slot number, first page, pages, the bits passed, whether they can be read.
    Clear(u32, u64, u32, Vec<u32>, bool),
    KernelWrite(usize, u32),
    Region(usize, Region),
    Manual(u64),
}

/// A store, for lists of acts written by hand.
pub(crate) fn store(vcpu: usize, slot: usize, page: u32) -> Act {
    let load = false;
    Act::Run(vcpu, Access { slot, page, load })
}

/// Bitmaps alone, one slot of each size.
pub(crate) fn bitmap(arch: Arch, slots: &[u32], word_bits: u32) -> Setup {
    Setup {
        arch,
        // The first that has rings there, and on RISC-V INITIALLY_SET.
        kernel: if arch == Arch::Riscv {
            Kernel::V7_2
        } else {
            Kernel::V6_18
        },
        ring: None,
        with_bitmap: false,
        word_bits,
        batch_pages: word_bits,
        slots: slots.to_vec(),
        vcpus: 2,
        mutation: None,
    }
}

/// Rings of so many entries, some of them in reserve.
pub(crate) fn ring(arch: Arch, slots: &[u32], entries: u32, reserved: u32) -> Setup {
    Setup {
        ring: Some((entries, reserved)),
        ..bitmap(arch, slots, 8)
    }
}

impl Setup {
    /// The same with a wrong behaviour switched on.
    pub(crate) fn with(self, mutation: Mutation) -> Self {
        Self {
            mutation: Some(mutation),
            ..self
        }
    }
}

fn same<T: PartialEq + Debug>(what: &str, model: T, oracle: T) -> Result<(), String> {
    if model == oracle {
        return Ok(());
    }
    Err(format!(
        "{what}: the model has {model:?}, the oracle {oracle:?}"
    ))
}

/// Makes the calls, and says where the model and the oracle part.
pub(crate) fn compare<L: Layout>(setup: &Setup, acts: &[Act]) -> Result<(), String> {
    let mut vm = Vm::<L>::new(setup);
    let mut naive = Naive::new(setup);
    for (number, act) in acts.iter().enumerate() {
        let what = format!("{setup:?}, act {number}, {act:?}");
        compare_answer(&mut vm, &mut naive, act)
            .and_then(|()| compare_state(setup, &vm, &naive))
            .map_err(|why| format!("{what}: {why}"))?;
    }
    Ok(())
}

fn compare_answer<L: Layout>(vm: &mut Vm<L>, naive: &mut Naive, act: &Act) -> Result<(), String> {
    match *act {
        Act::Run(vcpu, access) => {
            let ran = vm.run(vcpu, Some(access), false);
            same("the run", ran, naive.run(vcpu, Some(access), false))
        }
        Act::Record(vcpu) => {
            let ran = vm.run(vcpu, None, true);
            same("the run", ran, naive.run(vcpu, None, true))
        }
        Act::Harvest(vcpu, max) => same(
            "the harvest",
            vm.harvest(vcpu, max),
            naive.harvest(vcpu, max),
        ),
        Act::Reset(signal_at) => same("RESET", vm.reset(signal_at), naive.reset(signal_at)),
        Act::Get(slot, bad) => same("GET", vm.get(slot, bad), naive.get(slot, bad)),
        Act::Clear(number, first, count, ref given, bad) => {
            let base = naive.first_frame(number);
            let frames = given.iter().map(|page| base + page).collect();
            let answer = vm.clear(number, first, count, frames, bad);
            same(
                "CLEAR",
                answer,
                naive.clear(number, first, count, given, bad),
            )
        }
        Act::KernelWrite(slot, page) => {
            vm.kernel_write(slot, page);
            naive.kernel_write(slot, page);
            Ok(())
        }
        Act::Region(slot, region) => {
            let answer = vm.region(slot, region);
            same("the memslot", answer, naive.region(slot, region))
        }
        Act::Manual(bits) => same("manual protect", vm.manual(bits), naive.manual(bits)),
    }
}

fn compare_state<L: Layout>(setup: &Setup, vm: &Vm<L>, naive: &Naive) -> Result<(), String> {
    for vcpu in 0..setup.vcpus {
        let entries = vm.entries(vcpu).into_iter().enumerate();
        let used = entries.filter(|(_, entry)| entry.0 != 0).collect();
        let (oracles, indices) = naive.ring(vcpu);
        same("a ring's entries", used, oracles)?;
        same("a ring's indices", vm.indices(vcpu), indices)?;
    }
    same("the bitmaps", vm.bits(), naive.bits())?;
    same("the writable leaves", vm.writable(), naive.writable())?;
    same("TLBs that were not flushed", vm.stale_tlbs(), Vec::new())
}

/// The same as a property's outcome.
pub(crate) fn agree<L: Layout>(setup: &Setup, acts: &[Act]) -> Result<(), TestCaseError> {
    compare::<L>(setup, acts).map_err(TestCaseError::fail)
}

/// The acts part the model from the oracle with the mutation on, and not with it off.
#[track_caller]
pub(crate) fn assert_tells<L: Layout>(mutation: Mutation, setup: &Setup, acts: &[Act]) {
    assert_eq!(compare::<L>(setup, acts), Ok(()), "with nothing wrong");
    let setup = setup.clone().with(mutation);
    assert!(
        compare::<L>(&setup, acts).is_err(),
        "nothing tells {} from what is right",
        mutation.name()
    );
}

/// Accesses to the pages of a VM's slots. Loads where `loads`.
pub(crate) fn runs(setup: &Setup, loads: bool) -> impl Strategy<Value = Act> + use<> {
    let slots = setup.slots.clone();
    let one = move |slot: usize| (Just(slot), 0..slots[slot]);
    (
        0..setup.vcpus,
        (0..setup.slots.len()).prop_flat_map(one),
        any::<bool>(),
    )
        .prop_map(move |(vcpu, (slot, page), load)| {
            let load = load && loads;
            Act::Run(vcpu, Access { slot, page, load })
        })
}

/// Memslots that come, go, and log or do not.
pub(crate) fn regions(setup: &Setup) -> impl Strategy<Value = Act> + use<> {
    let shapes = prop_oneof![
        2 => Just(Region::Logging),
        1 => Just(Region::Quiet),
        1 => Just(Region::Gone),
    ];
    (0..setup.slots.len(), shapes).prop_map(|(slot, region)| Act::Region(slot, region))
}

/// Slot numbers: mostly of slots that are there, then of none, of another address space, and beyond any.
pub(crate) fn numbers(setup: &Setup) -> impl Strategy<Value = u32> + use<> {
    prop_oneof![
        8 => 0..setup.slots.len() as u32,
        1 => prop_oneof![Just(7u32), Just(1 << 16), Just(2 << 16), Just(32763), Just(32764), Just(32767)],
    ]
}
