//! The adapters, each with a bug planted that is found through it: `cargo test -p dirtysim-kvm --all-features`.

use dirtysim_kvm::strategies::{Logging, guests, machines, schedules};
use dirtysim_kvm::{Arch, Checker, Errno, FailureKind, Machine, OwnBitmap, Vm};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

#[test]
fn a_device_that_writes_by_vm_memory_is_seen_and_who_forgets_its_bitmap_loses_a_page() {
    let code = |forgets: bool| {
        move |vm: Vm| {
            let ram = vm.memory_region(0);
            let bitmap = OwnBitmap::new(&vm, 0);
            let bytes = ram.memory_size as usize;
            let region = MmapRegionBuilder::new_with_bitmap(bytes, bitmap.clone())
                .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .build()
                .unwrap();
            let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
            let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();
            vm.set_user_memory_region(ram.log_dirty_pages())?;
            vm.send_all_pages();
            // The device of the VMM, over its own guest memory.
            memory
                .write_obj(7_u32, GuestAddress(vm.page_size() as u64 + 4))
                .unwrap();
            assert_eq!(memory.num_regions(), 1);
            vm.pause_vcpus();
            let kernel = vm.get_dirty_log(0, bytes)?[0];
            let own = if forgets {
                0
            } else {
                bitmap.get_and_reset()[0]
            };
            (0..2)
                .filter(|page| (kernel | own) >> page & 1 != 0)
                .for_each(|page| vm.send_page(0, page));
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        }
    };
    let machine = || Machine::new(Arch::X86).slot(0, 2);
    let report = Checker::new(machine()).check(code(false)).unwrap();
    assert!(report.exhaustive, "{report}");
    let failure = Checker::new(machine()).check(code(true)).unwrap_err();
    assert_eq!(failure.pages(), ["slot0:1"]);
    assert!(
        failure.story().contains("stores to slot0:1 itself"),
        "{failure}"
    );
}

#[test]
fn a_property_over_machines_is_shrunk_to_the_smallest_that_shows_the_bug() {
    // The bug: of two memslots only the first is fetched. A machine with one has none.
    let code = |vm: Vm| {
        for region in vm.memory_regions() {
            vm.set_user_memory_region(region.log_dirty_pages())?;
        }
        vm.send_all_pages();
        vm.pause_vcpus();
        let first = vm.memory_region(0);
        let bits = vm.get_dirty_log(0, first.memory_size as usize)?[0];
        (0..64)
            .filter(|page| bits >> page & 1 != 0)
            .for_each(|page| vm.send_page(0, page));
        vm.assert_copy_is_whole();
        Ok::<(), Errno>(())
    };
    let config = Config {
        failure_persistence: None,
        cases: 64,
        ..Config::default()
    };
    let property = |machine: Machine| {
        let checker = Checker::new(machine).seeds(0..200);
        checker.run(code).map(|_| ()).map_err(|failure| {
            assert_eq!(
                *failure.kind(),
                FailureKind::Broken {
                    claim: "no_dirty_page_lost"
                }
            );
            TestCaseError::fail(failure.to_string())
        })
    };
    let any = machines(vec![Logging::Bitmap]);
    let found = TestRunner::new(config).run(&any, property).unwrap_err();
    let TestError::Fail(why, smallest) = found else {
        panic!("{found}");
    };
    let expected = Machine::new(Arch::Arm64)
        .vcpus(1)
        .stores(1)
        .slot(0, 1)
        .slot(1, 1);
    assert_eq!(smallest, expected);
    assert!(why.message().contains("slot1:0"), "{why}");
}

#[test]
fn whatever_the_guest_and_the_schedule_the_smallest_guest_and_the_shortest_story_are_told() {
    // The bug: the last bitmap is fetched while the guest runs.
    let code = |vm: Vm| {
        let ram = vm.memory_region(0);
        vm.set_user_memory_region(ram.log_dirty_pages())?;
        vm.send_all_pages();
        let bits = vm.get_dirty_log(0, ram.memory_size as usize)?[0];
        vm.pause_vcpus();
        (0..2)
            .filter(|page| bits >> page & 1 != 0)
            .for_each(|page| vm.send_page(0, page));
        vm.assert_copy_is_whole();
        Ok::<(), Errno>(())
    };
    let told = |seed: u8| {
        let config = Config {
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let found = runner.run(&(guests(), schedules()), |(guest, seeds)| {
            let machine = guest.of(Machine::new(Arch::X86).slot(0, 2));
            match Checker::new(machine).seeds(seeds).run(code) {
                Ok(_) => Ok(()),
                Err(failure) => Err(TestCaseError::fail(format!(
                    "{} steps in {} blocks",
                    failure.steps(),
                    failure.blocks()
                ))),
            }
        });
        let Err(TestError::Fail(why, (guest, _))) = found else {
            panic!("{found:?}");
        };
        (why.message().to_owned(), guest)
    };
    let (story, guest) = told(0);
    assert_eq!((guest.vcpus, guest.stores, guest.loads), (1, 1, 0));
    for seed in 1..8 {
        assert_eq!(told(seed), (story.clone(), guest));
    }
}
