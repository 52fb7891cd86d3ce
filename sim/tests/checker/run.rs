//! Many random scenarios, judged by everybody: `cargo bench -p dirtysim --bench checker -- --scenarios 100000`.
//!
//! `--seed S` draws others, `--states N` leaves out those with more states. What is not agreed about is made smaller, shown, and fails the
//! run. Without `--bench` (`cargo test --benches`) it is a hundred.

mod alone;
mod compare;
mod generate;
mod naive;
mod tally;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use compare::{Effort, Outcome, compare};
use generate::{NUMBERS, scenario};
use tally::Tally;

/// What `--name` is followed by.
fn value(name: &str, usual: u64) -> u64 {
    let mut words = std::env::args().skip_while(|word| word != name);
    words
        .nth(1)
        .map_or(usual, |word| word.parse().expect("a number"))
}

/// The text that is made of a seed's numbers, as small as it can be made while it is not agreed about for the same reason; and why.
fn judge(seed: u64, effort: Effort) -> Result<Outcome, (String, String)> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = prop::collection::vec(any::<u32>(), NUMBERS);
    let mut tree = strategy
        .new_tree(&mut runner)
        .expect("numbers can be drawn");
    let attempt = |text: &str| {
        std::panic::catch_unwind(|| compare(text, effort))
            .unwrap_or_else(|_| Err("a panic: ".to_owned()))
    };
    let mut text = scenario(&tree.current());
    let mut why = match attempt(&text) {
        Ok(outcome) => return Ok(outcome),
        Err(why) => why,
    };
    let kind = |why: &str| why.split(':').next().unwrap_or_default().to_owned();
    let begun = Instant::now();
    let mut more = tree.simplify();
    while more && begun.elapsed() < Duration::from_secs(120) {
        let smaller = scenario(&tree.current());
        let failed = if smaller == text {
            Err(why.clone())
        } else {
            attempt(&smaller)
        };
        more = match failed {
            Err(now) if kind(&now) == kind(&why) => {
                (text, why) = (smaller, now);
                tree.simplify()
            }
            _ => tree.complicate(),
        };
    }
    Err((text, why))
}

fn main() -> ExitCode {
    let is_bench = std::env::args().any(|word| word == "--bench");
    let scenarios = value("--scenarios", if is_bench { 100_000 } else { 100 });
    let first = value("--seed", 0);
    let effort = Effort {
        most_states: value("--states", 3_000) as usize,
        seeds: value("--schedules", 20),
    };
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut disagreements = 0;
    for seed in first..first + scenarios {
        match judge(seed, effort) {
            Ok(outcome) => tally.note(&outcome),
            Err((text, why)) => {
                disagreements += 1;
                println!("seed {seed}: {why}\n{text}");
            }
        }
        if (seed + 1 - first).is_multiple_of(10_000) {
            println!(
                "{tally}  {disagreements} disagreements, {:.0?}",
                begun.elapsed()
            );
        }
    }
    println!(
        "{tally}{} compared, {disagreements} disagreements, {:.0?}",
        tally.compared(),
        begun.elapsed()
    );
    ExitCode::from(u8::from(disagreements > 0))
}
