//! `dirtysim compare`: two orders on the same machines, side by side.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};

use super::axes::{Axis, keys, machines, on, parse_axis, words};
use super::check::shrink_budget;
use super::check_args::{parse_bytes, parse_seconds};
use super::run::write_trace;
use super::spinner::Spinner;
use super::{CliError, CliResult, Global, Report, Verdict, interrupted, make_dir};
use crate::explain::{Story, for_a_mail};
use crate::measure::measure;
use crate::scenario::Scenario;
use crate::search::minimal::minimal;
use crate::search::{self, Options, Reductions, Violation};

/// Seeded schedules of which steps are counted.
const MEASURED: u64 = 100;

/// Arguments of `dirtysim compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A scenario: a built-in name, or a file
    #[arg(value_name = "A")]
    a: String,
    /// Another
    #[arg(value_name = "B")]
    b: String,
    /// Machines, each with both orders: `arch=x86+arm64,kernel=6.12+7.2,protect=off+on,vcpus=1..2,stores=1..3`
    #[arg(long, value_name = "KEY=VALUES,…", value_delimiter = ',', value_parser = parse_axis)]
    over: Vec<Axis>,
    /// Bytes for each search, with K, M or G for KiB, MiB or GiB
    #[arg(long, value_name = "B", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    /// Stop a search after so many seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    max_time: Option<Duration>,
}

/// What became of a scenario on a machine.
struct Judged {
    scenario: Scenario,
    verdict: Verdict,
    states: u64,
    violation: Option<Violation>,
}

fn judge(args: &CompareArgs, scenario: Scenario) -> Result<Judged, CliError> {
    let options = options(args);
    let spinner = Spinner::new(&scenario.name, Instant::now(), &options);
    let outcome = search::check(&scenario, &options, &|progress| {
        spinner.show(progress);
        !interrupted()
    })?;
    let instance = search::instance(&scenario, &outcome);
    Ok(Judged {
        verdict: outcome.verdict.into(),
        states: outcome.states,
        violation: outcome.violation,
        scenario: instance.unwrap_or(scenario),
    })
}

fn options(args: &CompareArgs) -> Options {
    Options {
        max_states: None,
        max_memory_bytes: args.max_memory,
        max_time: args.max_time,
        keep_going: false,
        counterexample: true,
        reductions: Reductions::ALL,
    }
}

pub(super) fn run(args: &CompareArgs, global: &Global) -> CliResult {
    let pair = [Scenario::find(&args.a)?, Scenario::find(&args.b)?];
    let all = machines(&args.over)?;
    let mut report = Report {
        command: "compare",
        ..Report::default()
    };
    let mut rows: Vec<[String; 7]> = Vec::new();
    let mut list = Vec::new();
    let mut story = None;
    for machine in &all {
        let words = words(machine);
        let mut judged = Vec::new();
        for scenario in &pair {
            if interrupted() {
                report.cut = true;
                break;
            }
            let mut row = [
                words.clone(),
                scenario.name.clone(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ];
            let mut json = Map::from_iter([
                ("machine".to_owned(), keys(machine)),
                ("scenario".to_owned(), scenario.name.clone().into()),
            ]);
            match on(scenario, machine) {
                Err(why) => {
                    row[2] = format!("refused: {why}");
                    json.insert("refused".into(), why.into());
                }
                Ok(scenario) => {
                    let measured = measure(&scenario, MEASURED);
                    let found = judge(args, scenario)?;
                    row[2] = match &found.violation {
                        Some(violation) => {
                            format!("{} ({})", found.verdict.name(), violation.invariant.name())
                        }
                        None => found.verdict.name().to_owned(),
                    };
                    let tenths = |sum| {
                        let tenths = measured.tenths(sum);
                        format!("{}.{}", tenths / 10, tenths % 10)
                    };
                    row[3] = super::report::grouped(found.states);
                    row[4] = tenths(measured.ioctls);
                    row[5] = tenths(measured.again);
                    row[6] = tenths(measured.stopped);
                    json.insert("verdict".into(), found.verdict.name().into());
                    json.insert("states".into(), found.states.into());
                    json.insert("schedules".into(), measured.schedules.into());
                    json.insert("ioctls".into(), measured.ioctls.into());
                    json.insert("copied_again".into(), measured.again.into());
                    json.insert("steps_stopped".into(), measured.stopped.into());
                    judged.push(found);
                }
            }
            rows.push(row);
            list.push(Value::Object(json));
        }
        if story.is_none()
            && let [a, b] = judged.as_slice()
        {
            let loser = match (a.verdict, b.verdict) {
                (Verdict::Violated, Verdict::Holds) => Some((a, b)),
                (Verdict::Holds, Verdict::Violated) => Some((b, a)),
                _ => None,
            };
            story = loser
                .map(|(loser, other)| tell(args, &words, loser, &other.scenario.name, global))
                .transpose()?;
        }
    }
    let mut text = table(&rows);
    text.push_str(&format!(
        "calls of KVM's, pages copied again, and steps while the guest was stopped: by schedule, of {MEASURED} seeded ones\n"
    ));
    match story {
        Some(story) => text.push_str(&story),
        None => text.push_str("no machine on which one holds and the other does not\n"),
    }
    report.extra.insert("results".into(), list.into());
    report.tail = text;
    Ok(report)
}

/// The shortest schedule that one order does not survive, on a machine on which the other holds.
fn tell(
    args: &CompareArgs,
    machine: &str,
    loser: &Judged,
    other: &str,
    global: &Global,
) -> Result<String, CliError> {
    let Some(violation) = &loser.violation else {
        return Ok(String::new());
    };
    let scenario = &loser.scenario;
    let budget = shrink_budget(&options(args));
    let Some(shortest) = minimal(scenario, violation, budget, &|_| !interrupted()) else {
        return Ok(format!("{machine}: a limit came before a counterexample\n"));
    };
    make_dir(&global.trace_dir)?;
    let path = global
        .trace_dir
        .join(format!("{}.compare.trace.jsonl", scenario.name));
    write_trace(
        &path,
        scenario,
        &shortest.steps,
        violation.invariant,
        "exhaustive search",
    )?;
    let story = Story::new(
        scenario,
        &shortest.steps,
        Some(violation.invariant),
        String::new(),
    )?;
    Ok(format!(
        "\n{machine}: {other} holds; {} does not survive this schedule ({} steps):\n\n{}\n  trace: {}\n",
        scenario.name,
        shortest.steps.len(),
        for_a_mail(&story),
        path.display()
    ))
}

fn table(rows: &[[String; 7]]) -> String {
    let head = [
        "machine", "order", "verdict", "states", "calls", "again", "stopped",
    ]
    .map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..7)
        .map(|column| {
            all()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in all() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| match column {
                0..=2 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
