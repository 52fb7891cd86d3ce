//! Schedules until found, scheduler by scheduler: over the historical bugs, and the built-in orders that lose a page.
//!
//! `cargo bench --bench schedulers` prints the table of `docs/schedules.md`: the median, over 20 ranges of seeds, of the schedules until the
//! loss is found. A median of 20 is uncertain by a third, so that the last column compares what a find takes on average, over a
//! thousand finds: how many times the best single scheduler's schedules the mix takes.
//!
//! `-- --most N`: schedules after which a range counts as not found (20,000); twenty times as many are tried for the average.
//! Without `--bench` (`cargo test --benches`) it is 200.

use std::process::ExitCode;

use dirtysim::bugs::BUGS;
use dirtysim::reproduce::{PCT, median_schedules};
use dirtysim::run::{Options, run};
use dirtysim::scenario::{Expect, Scenario, builtins};
use dirtysim::scheduler::Scheduler;
use dirtysim_peers::arguments::value;

const SCHEDULERS: [Scheduler; 4] = [Scheduler::Random, PCT, Scheduler::Interrupt, Scheduler::Mix];

/// The scenarios in which something is to be found by schedules.
fn scenarios() -> Vec<Scenario> {
    let bugs = BUGS.iter().flat_map(|bug| bug.scenarios());
    builtins()
        .into_iter()
        .chain(bugs)
        .filter(|scenario| matches!(scenario.expected(), Expect::Violated(_)))
        .collect()
}

/// Finds over which an average is taken: it is certain to 3 %.
const FINDS: u64 = 1_000;

/// Finds below which it is uncertain by more than 10 %.
const FEW: u64 = 100;

/// For the average, so many times the schedules of a range are tried.
const RANGES: u64 = 20;

/// Schedules for each find, and how many finds there were; none where there was none.
fn on_average(scenario: &Scenario, scheduler: Scheduler, most: u64) -> Option<(f64, u64)> {
    let (mut tried, mut found, mut next) = (0, 0, 500);
    while found < FINDS && tried < RANGES * most {
        let end = (tried + next).min(RANGES * most);
        let options = Options {
            seeds: tried..end,
            scheduler,
            keep_going: true,
        };
        found += run(scenario, &options, &|_| true).failures;
        (tried, next) = (end, 2 * next);
    }
    (found > 0).then(|| (tried as f64 / found as f64, found))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let benched = arguments.iter().any(|argument| argument == "--bench");
    let most = match value(&arguments, "--most", if benched { 20_000 } else { 200 }) {
        Ok(most) => most,
        Err(help) => {
            eprintln!("error: {help}");
            return ExitCode::from(2);
        }
    };
    println!("| scenario | random | PCT | interrupt | mix | mix / best |");
    println!("|---|---|---|---|---|---|");
    let mut behind = Vec::new();
    for scenario in scenarios() {
        let medians = SCHEDULERS.map(|scheduler| {
            let median = median_schedules(&scenario, scheduler, most, &|| true).schedules;
            median.map_or(format!("> {most}"), |median| median.to_string())
        });
        let averages = SCHEDULERS.map(|scheduler| on_average(&scenario, scheduler, most));
        let best = averages[..3].iter().flatten();
        let best = best.min_by(|a, b| a.0.total_cmp(&b.0));
        let ratio = match (best, averages[3]) {
            (Some((best, finds)), Some((mix, mix_finds))) => {
                let ratio = mix / best;
                behind.push((ratio, scenario.name.clone()));
                let about = if (*finds).min(mix_finds) < FEW {
                    "about "
                } else {
                    ""
                };
                format!("{about}{ratio:.1}")
            }
            (None, _) => "none found".to_owned(),
            (Some(_), None) => "not found by the mix".to_owned(),
        };
        println!(
            "| `{}` | {} | {ratio} |",
            scenario.name,
            medians.join(" | ")
        );
    }
    behind.sort_by(|a, b| b.0.total_cmp(&a.0));
    let words: Vec<String> = behind
        .iter()
        .take(5)
        .map(|(ratio, name)| format!("`{name}` {ratio:.2}"))
        .collect();
    println!(
        "\nThe mix takes most against the best on {}; of {} in all.",
        words.join(", "),
        behind.len()
    );
    ExitCode::SUCCESS
}
