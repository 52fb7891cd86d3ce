//! A small VMM's migration source, right and with bugs planted, under schedules of the simulated KVM.

use std::time::{Duration, Instant};

use dirtysim_kvm::{
    Arch, Checker, EnableCap, Errno, Failure, FailureKind, KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
    KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, Machine, Page, Report, SetUp, UserspaceMemoryRegion, Vm,
};

/// A bug that somebody could have.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    CopyBeforeReset,
    MissesASlot,
}

/// The code under test: it has an interface of its own to the hypervisor, as VMMs do.
trait Hypervisor {
    fn log(&self, slot: u32) -> Result<(), Errno>;
    fn bitmap(&self, slot: u32) -> Result<Vec<u64>, Errno>;
    fn reset(&self) -> Result<i32, Errno>;
    fn ring(&self, vcpu: u8) -> Vec<(u32, u64)>;
    fn pause(&self);
    fn send(&self, page: (u32, u64));
}

struct Source<'a, H> {
    kvm: &'a H,
    slots: Vec<(u32, u64)>,
    vcpus: u8,
    has_bitmap: bool,
    bug: Bug,
}

impl<H: Hypervisor> Source<'_, H> {
    fn harvest(&self) -> Vec<(u32, u64)> {
        (0..self.vcpus)
            .flat_map(|vcpu| self.kvm.ring(vcpu))
            .collect()
    }

    fn send(&self, pages: &[(u32, u64)]) {
        for &page in pages {
            self.kvm.send(page);
        }
    }

    fn round(&self) -> Result<usize, Errno> {
        let pages = self.harvest();
        if self.bug == Bug::CopyBeforeReset {
            self.send(&pages);
            self.kvm.reset()?;
        } else {
            self.kvm.reset()?;
            self.send(&pages);
        }
        Ok(pages.len())
    }

    fn run(&self, rounds: usize) -> Result<(), Errno> {
        self.prepare(rounds)?;
        self.last()
    }

    /// Up to where the guest is stopped.
    fn prepare(&self, rounds: usize) -> Result<(), Errno> {
        for &(slot, _) in &self.slots {
            self.kvm.log(slot)?;
        }
        for &(slot, pages) in &self.slots {
            (0..pages).for_each(|page| self.kvm.send((slot, page)));
        }
        for _ in 0..rounds {
            if self.round()? == 0 {
                break;
            }
        }
        self.kvm.pause();
        Ok(())
    }

    /// What was stored since the last round.
    fn last(&self) -> Result<(), Errno> {
        let mut last = self.harvest();
        self.kvm.reset()?;
        if self.has_bitmap {
            let slots = match self.bug {
                Bug::MissesASlot => &self.slots[..1],
                _ => &self.slots[..],
            };
            for &(slot, pages) in slots {
                let words = self.kvm.bitmap(slot)?;
                let dirty = |page: &u64| words[*page as usize / 64] >> (page % 64) & 1 != 0;
                last.extend((0..pages).filter(dirty).map(|page| (slot, page)));
            }
        }
        self.send(&last);
        Ok(())
    }
}

impl Hypervisor for Vm {
    #[track_caller]
    fn log(&self, slot: u32) -> Result<(), Errno> {
        self.set_user_memory_region(self.memory_region(slot).log_dirty_pages())
    }
    #[track_caller]
    fn bitmap(&self, slot: u32) -> Result<Vec<u64>, Errno> {
        self.get_dirty_log(slot, self.memory_region(slot).memory_size as usize)
    }
    #[track_caller]
    fn reset(&self) -> Result<i32, Errno> {
        self.reset_dirty_rings()
    }
    #[track_caller]
    fn ring(&self, vcpu: u8) -> Vec<(u32, u64)> {
        self.vcpu(vcpu)
            .dirty_log_ring_iter()
            .into_iter()
            .flatten()
            .collect()
    }
    #[track_caller]
    fn pause(&self) {
        self.pause_vcpus();
    }
    #[track_caller]
    fn send(&self, (slot, page): (u32, u64)) {
        self.send_page(slot, page);
    }
}

fn migrate(
    bug: Bug,
    slots: &[(u32, u64)],
    vcpus: u8,
    rounds: usize,
) -> impl Fn(Vm) -> Result<(), Errno> + use<> {
    let slots = slots.to_vec();
    move |vm: Vm| {
        let slots = slots.clone();
        let source = Source {
            kvm: &vm,
            slots,
            vcpus,
            has_bitmap: true,
            bug,
        };
        source.run(rounds)?;
        vm.assert_copy_is_whole();
        Ok(())
    }
}

/// The machine of the first figures: one vCPU, two memslots of a page.
fn small() -> Machine {
    Machine::new(Arch::Arm64)
        .slot(0, 1)
        .slot(1, 1)
        .ring(4)
        .ring_with_bitmap()
        .stores(2)
}

fn larger() -> Machine {
    Machine::new(Arch::Arm64)
        .slot(0, 2)
        .slot(1, 2)
        .ring(4)
        .ring_with_bitmap()
        .vcpus(2)
        .stores(2)
}

#[test]
fn a_copy_before_reset_is_found_at_once_and_told_with_the_lines_of_the_code() {
    let code = migrate(Bug::CopyBeforeReset, &[(0, 2), (1, 2)], 2, 2);
    let begin = Instant::now();
    let failure = Checker::new(larger()).run(code).unwrap_err();
    let claim = "no_dirty_page_lost";
    assert_eq!(*failure.kind(), FailureKind::Broken { claim });
    let seed = failure.found_by().rsplit(' ').next().unwrap();
    assert!(seed.parse::<u64>().unwrap() < 32, "{}", failure.found_by());
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "in a second, on a quiet machine"
    );
    let story = failure.story();
    for words in [
        "sends slot",
        "KVM_RESET_DIRTY_RINGS",
        // The order that is wrong: sent, then reset.
        "[kvm/tests/migration.rs:",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert!(!story.contains("Nothing plans a full copy"), "{story}");
    let text = failure.to_string();
    assert!(
        text.contains("no_dirty_page_lost is broken for slot"),
        "{text}"
    );
}

#[test]
fn right_code_loses_nothing_under_any_seed() {
    let code = migrate(Bug::None, &[(0, 2), (1, 2)], 2, 2);
    let report = Checker::new(larger()).seeds(0..1_000).run(code).unwrap();
    assert_eq!(report.schedules, 1_000);
    assert!(!report.exhaustive);
    // A schedule whose answers were had before takes no run of the code.
    assert!(report.runs < report.schedules, "{report}");
}

#[test]
fn every_schedule_of_right_code_is_searched_with_few_runs_of_it() {
    let code = migrate(Bug::None, &[(0, 1), (1, 1)], 1, 1);
    let report = Checker::new(small()).seeds(0..0).check(code).unwrap();
    assert!(report.exhaustive, "{report}");
    // The search is the same on any number of threads; a change of either number has to be explained.
    assert_eq!(
        (report.states, report.histories),
        (SMALL_STATES, SMALL_HISTORIES),
        "{report}"
    );
    assert!(report.runs < 400, "{report}");
    assert_eq!(
        report.to_string(),
        format!(
            "every_schedule_of_right_code_is_searched_with_few_runs_of_it: holds under every schedule: {SMALL_STATES} states, {} transitions; the code was run {} times for {SMALL_HISTORIES} histories",
            report.transitions, report.runs
        )
    );
}

/// States of the search of the small machine: the same order as a scenario has 8,274 with reductions.
const SMALL_STATES: u64 = 9_677;
/// Histories of answers that its code has, those that are alike taken for one.
const SMALL_HISTORIES: u64 = 61;

#[test]
fn a_search_finds_the_fewest_steps_by_itself() {
    let code = migrate(Bug::CopyBeforeReset, &[(0, 1), (1, 1)], 1, 1);
    let failure = Checker::new(small()).seeds(0..0).check(code).unwrap_err();
    assert_eq!(failure.found_by(), "check");
    assert_eq!(failure.pages(), ["slot0:0"]);
}

#[test]
fn a_bitmap_that_is_not_fetched_loses_what_its_save_wrote() {
    // The interrupt controller's tables are on slot 1, and saved while the guest is stopped.
    let machine = || small().its_tables([Page::new(1, 0)]);
    let code = |bug: Bug| {
        move |vm: Vm| {
            let source = Source {
                kvm: &vm,
                slots: vec![(0, 1), (1, 1)],
                vcpus: 1,
                has_bitmap: true,
                bug,
            };
            source.prepare(0)?;
            vm.its_save_tables()?;
            source.last()?;
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        }
    };
    let failure = Checker::new(machine())
        .check(code(Bug::MissesASlot))
        .unwrap_err();
    assert_eq!(failure.pages(), ["slot1:0"]);
    let report = Checker::new(machine()).check(code(Bug::None)).unwrap();
    assert!(report.exhaustive, "{report}");
}

#[test]
fn a_device_that_is_not_drained_before_its_log_is_taken_loses_a_page() {
    let machine = || {
        Machine::new(Arch::X86)
            .slot(0, 2)
            .device("net", 1, [Page::new(0, 1)])
    };
    let code = |drains: bool| {
        move |vm: Vm| {
            let net = vm.device("net");
            vm.log(0)?;
            net.start();
            vm.send_all_pages();
            vm.pause();
            if drains {
                net.drain();
            } else {
                net.stop();
            }
            let words = vm.bitmap(0)?;
            let kernel = (0..2).filter(|page| words[0] >> page & 1 != 0);
            kernel.for_each(|page| vm.send((0, page)));
            for page in net.dirty_pages() {
                vm.send((page.slot, page.offset));
            }
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        }
    };
    let report = Checker::new(machine()).check(code(true)).unwrap();
    assert!(report.exhaustive, "{report}");
    let failure = Checker::new(machine()).check(code(false)).unwrap_err();
    assert_eq!(failure.pages(), ["slot0:1"]);
    assert!(
        failure.story().contains("device0 writes slot0:1"),
        "{failure}"
    );
}

/// A VMM's own set-up: a ring, the bitmap beside it, two memslots, a vCPU, in whatever order.
fn create(kvm: &SetUp, order: &str) -> Result<(), Errno> {
    let enable = |cap, args0| {
        kvm.enable_cap(&EnableCap {
            cap,
            args: [args0, 0, 0, 0],
            ..EnableCap::default()
        })
    };
    let map = |slot: u32, gpa| {
        kvm.set_user_memory_region(UserspaceMemoryRegion {
            slot,
            guest_phys_addr: gpa,
            memory_size: 0x1000,
            userspace_addr: 0x7f12_3450_0000 + gpa,
            ..UserspaceMemoryRegion::default()
        })
    };
    for step in order.chars() {
        match step {
            'r' => enable(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 4 * 16)?,
            'b' => enable(KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0)?,
            '0' => map(0, 0)?,
            // Where the first one is.
            'o' => map(2, 0)?,
            '1' => map(1, 0x8000)?,
            _ => kvm.create_vcpu(0)?,
        }
    }
    Ok(())
}

#[test]
fn a_vmms_own_set_up_makes_the_machine_or_is_refused_as_the_kernel_would() {
    let set_up = |order: &'static str| {
        let bare = Machine::new(Arch::Arm64).stores(2);
        bare.set_up(|kvm| create(kvm, order))
    };
    let made = set_up("rb01v").unwrap();
    assert!(set_up("rb10v").is_ok());
    let code = migrate(Bug::CopyBeforeReset, &[(0, 1), (1, 1)], 1, 1);
    let failure = Checker::new(made.clone()).check(code).unwrap_err();
    assert_eq!(failure.pages(), ["slot0:0"]);
    let code = migrate(Bug::None, &[(0, 1), (1, 1)], 1, 1);
    let report = Checker::new(made).check(code).unwrap();
    assert_eq!(
        report.states, SMALL_STATES,
        "the machine that the builder makes"
    );
    // The ring after a vCPU, the bitmap before the ring, the bitmap after a memslot.
    for order in ["vr", "br", "r0bv"] {
        assert_eq!(set_up(order), Err(Errno::new(22)), "{order}");
    }
    // Two memslots at one place.
    assert_eq!(set_up("rb0o"), Err(Errno::new(17)));
}

#[test]
fn right_code_loses_a_page_on_a_wrong_kernel() {
    let machine = |mutations: &str| {
        let text = format!(
            "name = \"wrong\"\nmutations = [{mutations}]\n[machine]\narch = \"arm64\"\npages = 1\n[writers]\nvcpu = {{ stores = 2 }}\n[protocol]\nsteps = [\"finish\"]\n"
        );
        Machine::from_toml(&text).unwrap()
    };
    let code = |vm: Vm| {
        let ram = vm.memory_region(0);
        let send = || {
            let bits = vm.get_dirty_log(0, ram.memory_size as usize)?[0];
            if bits & 1 != 0 {
                vm.send_page(0, 0);
            }
            Ok::<(), Errno>(())
        };
        vm.set_user_memory_region(ram.log_dirty_pages())?;
        vm.send_all_pages();
        send()?;
        vm.pause_vcpus();
        send()?;
        vm.assert_copy_is_whole();
        Ok::<(), Errno>(())
    };
    let report = Checker::new(machine("")).check(code).unwrap();
    assert!(report.exhaustive, "{report}");
    let failure = Checker::new(machine("\"kernel.get_log.flush=none\""))
        .check(code)
        .unwrap_err();
    assert!(
        failure.story().contains("kernel.get_log.flush=none"),
        "{failure}"
    );
}

#[path = "../examples/vmms/cloud_hypervisor.rs"]
mod cloud_hypervisor;
#[path = "../examples/vmms/firecracker.rs"]
mod firecracker;
#[path = "../examples/vmms/qemu.rs"]
mod qemu;

/// What an example is, without its bug and with it.
fn judge(check: fn(bool) -> Result<Report, Box<Failure>>, words: &str) {
    let report = check(false).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.exhaustive, "{report}");
    let failure = check(true).unwrap_err();
    let claim = "no_dirty_page_lost";
    assert_eq!(*failure.kind(), FailureKind::Broken { claim });
    let story = failure.story();
    assert!(story.contains(words), "{words}: {story}");
}

#[test]
fn qemus_reaper_publishes_before_it_drops_the_lock() {
    judge(
        |late| qemu::checker().check(qemu::code(late)),
        "[kvm/tests/../examples/vmms/qemu.rs:",
    );
}

#[test]
fn schedules_of_seeds_find_what_threads_do_to_each_other() {
    // In a ring of 2 a vCPU leaves the guest for each entry, and has hardly any room for a store between harvest and RESET.
    let machine = Machine::new(Arch::X86).slot(0, 1).ring(4).stores(1);
    let checker = Checker::new(machine).seeds(0..2_000);
    let failure = checker.run(qemu::code(true)).unwrap_err();
    assert!(failure.found_by().contains("seed"), "{failure}");
}

/// Threads here share memory that KVM does not see, so that another order of their answers is another history: making a schedule short
/// runs the code for those that are new.
#[test]
fn what_seeds_find_is_made_as_short_whatever_the_seed() {
    let (mut lengths, mut from) = (Vec::new(), 0);
    while lengths.len() < 40 {
        let seeds = from..from + 20;
        from = seeds.end;
        if let Err(failure) = cloud_hypervisor::checker()
            .seeds(seeds)
            .run(cloud_hypervisor::code(true))
        {
            let claim = "no_dirty_page_lost";
            assert_eq!(*failure.kind(), FailureKind::Broken { claim });
            lengths.push((failure.blocks(), failure.steps()));
        }
    }
    assert_eq!(lengths, vec![(5, 27); 40]);
}

#[test]
fn cloud_hypervisors_devices_mark_after_they_wrote() {
    judge(
        |early| cloud_hypervisor::checker().check(cloud_hypervisor::code(early)),
        "[kvm/tests/../examples/vmms/cloud_hypervisor.rs:",
    );
}

#[test]
fn firecracker_keeps_what_a_failed_snapshot_had() {
    judge(
        firecracker::check,
        "[kvm/tests/../examples/vmms/firecracker.rs:",
    );
}

#[test]
fn code_that_says_what_it_depends_on_has_fewer_histories_and_the_same_verdict() {
    let code = |says: bool, forgets: bool| {
        move |vm: Vm| {
            let ram = vm.memory_region(0);
            vm.set_user_memory_region(ram.log_dirty_pages())?;
            vm.send_all_pages();
            for round in 0..3 {
                if says {
                    vm.depends_only_on(&round);
                }
                if round == 2 {
                    vm.pause_vcpus();
                }
                let bits = vm.get_dirty_log(0, ram.memory_size as usize)?[0];
                let pages = (0..2).filter(|page| bits >> page & 1 != 0);
                // The bug, of one answer alone.
                let pages = pages.filter(|_| !(forgets && bits == 3));
                pages.for_each(|page| vm.send_page(0, page));
            }
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        }
    };
    let machine = || Machine::new(Arch::X86).slot(0, 2).stores(3);
    let [with, without] = [true, false].map(|says| {
        let checker = Checker::new(machine()).seeds(0..500);
        assert!(checker.check(code(says, true)).is_err());
        let report = checker.check(code(says, false)).unwrap();
        assert!(report.exhaustive, "{report}");
        checker.run(code(says, false)).unwrap()
    });
    // A search finds out by itself which histories are alike; schedules of seeds have to be told.
    assert!(with.histories * 2 < without.histories, "{with} {without}");
}
