//! Model transitions a second on one core, over the built-in scenarios, and what limits them.
//!
//! Three variants of the same schedules: the transition function with the choice of the next step; the same with
//! every claim checked; and `run` as users have it, which also notes what happened. Set-up does not count.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dirtysim::ladder::small;
use dirtysim::random::Choices;
use dirtysim::run::{Options, Scheduler, run};
use dirtysim::scenario::{Scenario, builtins};
use dirtysim_model::oracle::Judge;
use dirtysim_model::reduce::footprint;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply, for_each_step};

const SEEDS: u64 = 200;

/// Runs the schedules of the bench's seeds; returns the steps taken.
fn drive<L: Layout>(scenario: &Scenario, start: &State<L>, checked: bool) -> u64 {
    let machine = &scenario.machine;
    let mut possible: Vec<Step> = Vec::new();
    let mut steps = 0;
    let mut judge = Judge::new(machine);
    for seed in 0..SEEDS {
        let mut choices = Choices::new(seed, 0);
        let mut state = start.clone();
        judge.begin(machine, &state);
        loop {
            possible.clear();
            for_each_step(machine, &state, |step| possible.push(step));
            if possible.is_empty() {
                break;
            }
            let step = possible[choices.below(possible.len() as u32) as usize];
            let written = footprint::writes(machine, &state, step);
            let effect = apply(machine, &mut state, step);
            if checked {
                black_box(judge.check(machine, &state, written, effect));
            }
            steps += 1;
        }
    }
    steps
}

fn steps_of(scenario: &Scenario, checked: bool) -> u64 {
    let start = small(scenario).expect("the built-in scenarios fit");
    drive(scenario, &start, checked)
}

fn transitions(criterion: &mut Criterion) {
    // Violated scenarios end at their first failing seed; the holding ones run every seed to its end.
    let scenarios: Vec<Scenario> = builtins()
        .into_iter()
        .filter(|scenario| scenario.expected() == dirtysim::scenario::Expect::Holds)
        .collect();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a pool of one thread");
    let mut group = criterion.benchmark_group("transitions");
    group
        .measurement_time(Duration::from_secs(4))
        .sample_size(20);
    let all = |checked| {
        scenarios
            .iter()
            .map(|scenario| steps_of(scenario, checked))
            .sum::<u64>()
    };
    let steps = all(false);
    group.throughput(Throughput::Elements(steps));
    group.bench_function("unchecked", |bencher| bencher.iter(|| all(false)));
    group.bench_function("every claim checked", |bencher| bencher.iter(|| all(true)));
    let options = Options {
        seeds: 0..SEEDS,
        scheduler: Scheduler::Random,
        keep_going: true,
    };
    let as_users = || {
        pool.install(|| {
            scenarios
                .iter()
                .map(|scenario| run(scenario, &options, &|_| true).steps)
                .sum::<u64>()
        })
    };
    assert_eq!(as_users(), steps, "the same schedules");
    group.bench_function("run", |bencher| bencher.iter(as_users));
    group.finish();
    let mut each = criterion.benchmark_group("by scenario, every claim checked");
    each.measurement_time(Duration::from_secs(1))
        .sample_size(10);
    for scenario in &scenarios {
        each.throughput(Throughput::Elements(steps_of(scenario, true)));
        each.bench_function(&scenario.name, |bencher| {
            bencher.iter(|| steps_of(scenario, true))
        });
    }
    each.finish();
}

criterion_group!(benches, transitions);
criterion_main!(benches);
