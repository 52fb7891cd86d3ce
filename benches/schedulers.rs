//! Schedules until found, scheduler by scheduler: over the historical bugs, and the built-in orders that lose a page.
//!
//! `cargo bench --bench schedulers` prints a table, each figure the median over 20 ranges of seeds, and how far the mix is behind the
//! best single one. `-- --most N`: schedules after which a range counts as not found (20,000). Without `--bench`
//! (`cargo test --benches`) it is 200.

use std::process::ExitCode;

use dirtysim::bugs::BUGS;
use dirtysim::reproduce::{PCT, median_schedules};
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
        let found = SCHEDULERS
            .map(|scheduler| median_schedules(&scenario, scheduler, most, &|| true).schedules);
        let words =
            found.map(|median| median.map_or(format!("> {most}"), |median| median.to_string()));
        let best = found[..3].iter().flatten().min().copied();
        let ratio = match (best, found[3]) {
            (Some(best), Some(mix)) => {
                let ratio = mix as f64 / best as f64;
                behind.push((ratio, mix));
                format!("{ratio:.1}")
            }
            (None, _) => "none found".to_owned(),
            (Some(_), None) => "not found by the mix".to_owned(),
        };
        println!("| `{}` | {} | {ratio} |", scenario.name, words.join(" | "));
    }
    let worst = behind.iter().map(|(ratio, _)| *ratio).fold(0.0, f64::max);
    let twice = behind.iter().filter(|(ratio, _)| *ratio > 2.0).count();
    println!(
        "\nmix at most {worst:.1} times the best; more than twice on {twice} of {}",
        behind.len()
    );
    ExitCode::SUCCESS
}
