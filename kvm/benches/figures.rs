//! What testing a VMM's own code costs: schedules a second, and a search of code beside a search of the same order as a scenario.
//!
//! `cargo bench -p dirtysim-kvm`. The numbers are printed, not judged: they are those of the machine.

#[path = "../examples/vmms/qemu.rs"]
mod qemu;

use std::time::{Duration, Instant};

use dirtysim_check::scenario::Scenario;
use dirtysim_check::search::{Options, check};
use dirtysim_kvm::{Checker, Errno, Machine, Vm};

const MACHINE: &str = r#"
name = "figures"
[machine]
arch = "arm64"
ring = { entries = 4, reserved = 2 }
ring_with_bitmap = true
"#;

/// The order, as a scenario has it and as code.
const STEPS: &str = r#"
[protocol]
steps = [
  "enable-logging", "copy-all",
  { repeat = ROUNDS, steps = ["harvest-rings", "reset-rings", "copy"] },
  "pause-vcpus", "harvest-rings", "reset-rings", "get-dirty-log", "copy", "finish",
]
"#;

fn migrate(vm: &Vm, rounds: usize, says: bool) -> Result<(), Errno> {
    let harvest = || -> Vec<(u32, u64)> {
        let rings = vm.vcpus().into_iter();
        rings
            .flat_map(|vcpu| vcpu.dirty_log_ring_iter().into_iter().flatten())
            .collect()
    };
    let send = |pages: Vec<(u32, u64)>| {
        for (slot, page) in pages {
            vm.send_page(slot, page);
        }
    };
    for region in vm.memory_regions() {
        vm.set_user_memory_region(region.log_dirty_pages())?;
    }
    vm.send_all_pages();
    for round in 0..rounds {
        if says {
            vm.depends_only_on(&round);
        }
        let pages = harvest();
        vm.reset_dirty_rings()?;
        send(pages);
    }
    if says {
        vm.depends_only_on(&());
    }
    vm.pause_vcpus();
    let mut last = harvest();
    vm.reset_dirty_rings()?;
    for region in vm.memory_regions() {
        let words = vm.get_dirty_log(region.slot, region.memory_size as usize)?;
        let pages = (0..64).filter(|page| words[0] >> page & 1 != 0);
        last.extend(pages.map(|page| (region.slot, page)));
    }
    send(last);
    vm.assert_copy_is_whole();
    Ok(())
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn main() {
    println!("a search of code, and of the same order as a scenario");
    for (slots, stores, rounds) in [
        ("[[slots]]\npages = 1\n[[slots]]\npages = 1\n", 2, 1),
        ("[[slots]]\npages = 2\n", 2, 1),
        ("[[slots]]\npages = 2\n", 2, 2),
        ("[[slots]]\npages = 3\n", 3, 1),
    ] {
        let guest = format!("[writers]\nvcpu = {{ stores = {stores} }}\n");
        let machine = format!("{MACHINE}{slots}{guest}");
        let steps = STEPS.replace("ROUNDS", &rounds.to_string());
        let told = Scenario::from_toml("figures", &format!("{machine}{steps}"));
        let told = told.expect("it is right");
        let begin = Instant::now();
        let scenario = check(&told, &Options::default(), &|_| true).expect("it is small");
        let of_scenario = begin.elapsed();
        let pages: u32 = told.machine.slots.iter().map(|slot| slot.npages).sum();
        println!(
            "  {pages} pages, {stores} stores, {rounds} rounds: as a scenario {} states in {of_scenario:.3?}",
            scenario.states
        );
        // Of a scenario it is known that it treats pages alike; of code it is not.
        let mut options = Options::default();
        options.reductions.pages = false;
        let apart = check(&told, &options, &|_| true).expect("it is small");
        println!("    without the exchange of pages: {} states", apart.states);
        for says in [false, true] {
            let machine = Machine::from_toml(&machine).expect("it is right");
            let begin = Instant::now();
            let report = Checker::new(machine)
                .check(move |vm: Vm| migrate(&vm, rounds, says))
                .unwrap_or_else(|failure| panic!("{failure}"));
            let of_code = begin.elapsed();
            println!(
                "    as code{}: {} in {of_code:.3?} ({} histories, {} runs); {:.2} times the states, {:.2} the time",
                if says {
                    " that says what it depends on"
                } else {
                    ""
                },
                report.states,
                report.histories,
                report.runs,
                report.states as f64 / scenario.states as f64,
                of_code.as_secs_f64() / of_scenario.as_secs_f64(),
            );
        }
    }
    println!("schedules of seeds");
    let machine = format!(
        "{MACHINE}vcpus = 2\n[[slots]]\npages = 2\n[[slots]]\npages = 2\n[writers]\nvcpu = {{ stores = 2 }}\n"
    );
    let machine = Machine::from_toml(&machine).expect("it is right");
    for schedules in [2_000, 20_000] {
        let begin = Instant::now();
        let report = Checker::new(machine.clone())
            .seeds(0..schedules)
            .max_time(Duration::from_secs(600))
            .run(|vm: Vm| migrate(&vm, 2, true))
            .unwrap_or_else(|failure| panic!("{failure}"));
        let time = begin.elapsed();
        println!(
            "  one thread, two vCPUs: {schedules} in {time:.3?}, {:.0} a second ({} histories, {} runs)",
            per_second(schedules, time),
            report.histories,
            report.runs
        );
    }
    let begin = Instant::now();
    let report = qemu::checker()
        .seeds(0..10_000)
        .run(qemu::code(false))
        .unwrap_or_else(|failure| panic!("{failure}"));
    let time = begin.elapsed();
    println!(
        "  two threads and a mutex: {} in {time:.3?}, {:.0} a second ({} histories, {} runs)",
        report.schedules,
        per_second(report.schedules, time),
        report.histories,
        report.runs
    );
}
