//! `dirtysim orders`: every order of a protocol's final steps.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::report::grouped;
use super::run::{find_scenarios, write_trace};
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted, progress_bar};
use crate::orders::{self, Constraint, Exactness, Orders};
use crate::search::Options;

/// Arguments of `dirtysim orders`.
#[derive(Debug, Args)]
pub(crate) struct OrdersArgs {
    /// A built-in scenario by name, or a scenario file
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// Give an order up after so many seconds
    #[arg(long, value_name = "S")]
    max_time: Option<u64>,
}

pub(super) fn run(args: &OrdersArgs, global: &Global) -> CliResult {
    let scenarios = find_scenarios(std::slice::from_ref(&args.scenario), &[])?;
    let mut report = Report {
        command: "orders",
        ..Report::default()
    };
    for scenario in &scenarios {
        let begun = Instant::now();
        let options = Options {
            max_time: args.max_time.map(Duration::from_secs),
            ..Options::default()
        };
        let bar = progress_bar(0, "orders");
        bar.set_message(scenario.name.clone());
        let found = orders::orders(scenario, &options, &|_| !interrupted(), &mut |at, all| {
            bar.set_length(all as u64);
            bar.set_position(at as u64);
        });
        bar.finish_and_clear();
        let found = found?;
        report.subjects.push(subject(
            &scenario.name,
            &found,
            begun.elapsed().as_secs_f64(),
            global,
        )?);
    }
    Ok(report)
}

fn sentence(found: &Orders, constraint: &Constraint) -> String {
    format!(
        "{} must come before {}",
        found.steps[constraint.before], found.steps[constraint.after]
    )
}

fn subject(
    name: &str,
    found: &Orders,
    elapsed_s: f64,
    global: &Global,
) -> Result<Subject, CliError> {
    let (all, safe) = (found.orders.len(), found.safe());
    let mut text = format!(
        "{name}: {} of {} orders of the final steps are safe\n  steps: {}\n",
        grouped(safe as u64),
        grouped(all as u64),
        found.steps.join(", ")
    );
    let mut constraints = Vec::new();
    for (index, (constraint, example)) in found
        .constraints
        .iter()
        .zip(&found.counterexamples)
        .enumerate()
    {
        let mut entry = Map::new();
        entry.insert(
            "before".into(),
            found.steps[constraint.before].clone().into(),
        );
        entry.insert("after".into(), found.steps[constraint.after].clone().into());
        text.push_str(&format!("  {}\n", sentence(found, constraint)));
        if let Some(example) = example {
            entry.insert("counterexample".into(), found.words(&example.order).into());
            entry.insert(
                "invariant".into(),
                example.violation.invariant.name().into(),
            );
            text.push_str(&format!(
                "    without it: {} breaks {}",
                found.words(&example.order),
                example.violation.invariant.name()
            ));
            if let Some(steps) = &example.violation.steps {
                let path = global
                    .trace_dir
                    .join(format!("{name}.order-{index}.trace.jsonl"));
                write_trace(
                    &path,
                    &example.scenario,
                    steps,
                    example.violation.invariant,
                    "exhaustive search of an order",
                )?;
                entry.insert("steps".into(), steps.len().into());
                entry.insert("trace".into(), path.display().to_string().into());
                text.push_str(&format!(" in {} steps: {}", steps.len(), path.display()));
            }
            text.push('\n');
        }
        constraints.push(Value::Object(entry));
    }
    text.push_str(&diagram(found, &found.constraints, "  "));
    let (exact, alternatives) = exactness(found, safe, &mut text);
    let last = last_steps(found);
    for sentence in &last {
        text.push_str(&format!("  {sentence}\n"));
    }
    let mut json = Map::new();
    json.insert("scenario".into(), name.into());
    json.insert("verdict".into(), Verdict::Holds.name().into());
    json.insert("coverage".into(), "exhausted".into());
    json.insert("steps".into(), found.steps.clone().into());
    json.insert("orders".into(), all.into());
    json.insert("safe".into(), safe.into());
    json.insert("constraints".into(), constraints.into());
    json.insert("exact".into(), exact.into());
    if let Some(alternatives) = alternatives {
        json.insert("alternatives".into(), alternatives);
    }
    json.insert("sentences".into(), last.into());
    json.insert("elapsed_s".into(), elapsed_s.into());
    Ok(Subject {
        verdict: Verdict::Holds,
        as_expected: true,
        json,
        text,
    })
}

/// Whether the constraints are also enough, in words, and what is where they are not.
fn exactness(found: &Orders, safe: usize, text: &mut String) -> (bool, Option<Value>) {
    match &found.exactness {
        Exactness::NothingIsSafe => {
            text.push_str("  no order of these steps is safe\n");
            (true, None)
        }
        Exactness::Exact => {
            text.push_str(match found.constraints.is_empty() {
                true => "  every order is safe: there is no constraint\n",
                false => "  that is necessary and sufficient: every order that keeps it is safe, and no other\n",
            });
            (true, None)
        }
        Exactness::Alternatives { keeping, sets } => {
            text.push_str(&format!(
                "  that is necessary, not sufficient: {keeping} orders keep it, {safe} are safe. Safe is exactly what keeps all of one of these {}:\n",
                sets.len()
            ));
            let mut listed = Vec::new();
            for (number, set) in sets.iter().enumerate() {
                text.push_str(&format!("  {}.\n", number + 1));
                text.push_str(&diagram(found, set, "    "));
                let set: Vec<Value> = set
                    .iter()
                    .map(|c| json!({ "before": found.steps[c.before], "after": found.steps[c.after] }))
                    .collect();
                listed.push(Value::from(set));
            }
            (false, Some(listed.into()))
        }
        Exactness::NoFewAlternatives { keeping } => {
            text.push_str(&format!(
                "  that is necessary, not sufficient: {keeping} orders keep it, {safe} are safe, and no eight sets of precedences tell them apart\n"
            ));
            (false, None)
        }
    }
}

/// Precedences as arrows, one line for each step that must wait for others.
fn diagram(found: &Orders, constraints: &[Constraint], indent: &str) -> String {
    let mut text = String::new();
    for (after, name) in found.steps.iter().enumerate() {
        let before: Vec<&str> = constraints
            .iter()
            .filter(|constraint| constraint.after == after)
            .map(|constraint| found.steps[constraint.before].as_str())
            .collect();
        if !before.is_empty() {
            text.push_str(&format!("{indent}{} --> {name}\n", before.join(" + ")));
        }
    }
    text
}

/// What can be said about being last, which is what such debates are about.
fn last_steps(found: &Orders) -> Vec<String> {
    let safe: Vec<&Vec<usize>> = found
        .orders
        .iter()
        .filter(|order| order.safe)
        .map(|order| &order.steps)
        .collect();
    if safe.is_empty() {
        return Vec::new();
    }
    found
        .steps
        .iter()
        .enumerate()
        .map(|(step, name)| {
            let last = safe
                .iter()
                .filter(|order| order.last() == Some(&step))
                .count();
            if last == safe.len() {
                format!("{name} is last in every safe order")
            } else if last == 0 {
                format!("{name} is last in no safe order")
            } else {
                format!("{name} need not be last, and may be")
            }
        })
        .collect()
}
