//! Schedules a second of one small program, and how many find its bug: `cargo bench -p dirtysim-beside-shuttle`.

use std::panic;
use std::time::{Duration, Instant};

use dirtysim_beside_shuttle::{by_shuttle, simulated};

const SCHEDULES: u64 = 20_000;

fn rate(schedules: u64, time: Duration) -> f64 {
    schedules as f64 / time.as_secs_f64()
}

fn main() {
    for stores in [1, 2] {
        println!("two threads and a lock, a guest of {stores} stores: {SCHEDULES} schedules each");
        let begin = Instant::now();
        let report = simulated::checker(stores)
            .seeds(0..SCHEDULES)
            .run(simulated::code(false))
            .unwrap_or_else(|failure| panic!("{failure}"));
        let simulated = rate(report.schedules, begin.elapsed());
        println!(
            "  dirtysim: {simulated:.0} a second; the code was run {} times",
            report.runs
        );
        let begin = Instant::now();
        shuttle::check_random(move || by_shuttle::run(stores, false), SCHEDULES as usize);
        let shuttle = rate(SCHEDULES, begin.elapsed());
        println!("  shuttle, random: {shuttle:.0} a second");
        println!("  {:.1} times", simulated / shuttle);
    }
    let begin = Instant::now();
    let failure = simulated::checker(1)
        .seeds(0..SCHEDULES)
        .run(simulated::code(true))
        .expect_err("seeds find it");
    println!(
        "with a bug: dirtysim finds it by {}, and tells it in {} steps and {} blocks, in {:.3?}",
        failure.found_by(),
        failure.steps(),
        failure.blocks(),
        begin.elapsed()
    );
    let begin = Instant::now();
    let failure = simulated::checker(1)
        .seeds(0..0)
        .check(simulated::code(true))
        .expect_err("a search finds it");
    let time = begin.elapsed();
    println!(
        "with a bug: its search finds it, and tells it in {} steps and {} blocks, in {time:.3?}",
        failure.steps(),
        failure.blocks()
    );
    panic::set_hook(Box::new(|_| ()));
    let found = panic::catch_unwind(|| {
        shuttle::check_random(|| by_shuttle::run(1, true), SCHEDULES as usize);
    });
    let found = found.is_err();
    println!("with a bug: shuttle finds it in {SCHEDULES} random schedules: {found}");
}
