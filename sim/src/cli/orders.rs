//! `dirtysim orders`: every order of a protocol's final steps, or of a pre-copy round.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::check::{keep_minimal, shrink_budget};
use super::check_args::{parse_bytes, parse_seconds};
use super::report::{TRACE_ERROR, caveats, grouped};
use super::run::find_scenarios;
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted, progress_bar};
use crate::orders::{self, Constraint, Exactness, Orders, OrdersError, Part};
use crate::scenario::Scenario;
use crate::search::bounds::Bounds;
use crate::search::{Limit, Options};

/// Arguments of `dirtysim orders`.
#[derive(Debug, Args)]
pub(crate) struct OrdersArgs {
    /// A built-in scenario by name, or a scenario file
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// The steps of a pre-copy round, the first or that of a number, in place of the final steps
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    round: Option<usize>,
    /// Bytes for the search of an order, with K, M or G for KiB, MiB or GiB [default: three quarters of what is available]
    #[arg(long, value_name = "B", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    /// Give up when an order has taken so many seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    max_time: Option<Duration>,
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
            max_time: args.max_time,
            max_memory_bytes: args.max_memory,
            ..Options::default()
        };
        let part = args.round.map_or(Part::Final, Part::Round);
        let bar = progress_bar(0, "orders");
        bar.set_message(scenario.name.clone());
        let mut judged = (0, 0);
        let found = orders::orders(
            scenario,
            part,
            &options,
            shrink_budget(&options),
            &|_| !interrupted(),
            &mut |at, all| {
                judged = (at, all);
                bar.set_length(all as u64);
                bar.set_position(at as u64);
            },
        );
        bar.finish_and_clear();
        let elapsed_s = begun.elapsed().as_secs_f64();
        report.subjects.push(match found {
            Ok(found) => subject(scenario, part, &found, elapsed_s, global)?,
            Err(OrdersError::Inconclusive(limit, order)) => {
                unfinished(scenario, limit, &order, judged, elapsed_s)
            }
            Err(error) => return Err(error.into()),
        });
    }
    Ok(report)
}

fn sentence(found: &Orders, constraint: &Constraint) -> String {
    format!(
        "{} must come before {}",
        found.steps[constraint.before], found.steps[constraint.after]
    )
}

/// What is said where a limit came before every order had its verdict.
fn unfinished(
    scenario: &Scenario,
    limit: Limit,
    order: &str,
    (judged, all): (usize, usize),
    elapsed_s: f64,
) -> Subject {
    let (name, limit) = (&scenario.name, limit.name());
    let mut json = Map::new();
    json.insert("scenario".into(), name.clone().into());
    json.insert("verdict".into(), Verdict::Inconclusive.name().into());
    json.insert("coverage".into(), "truncated".into());
    json.insert("limit".into(), limit.into());
    json.insert("orders".into(), all.into());
    json.insert("judged".into(), judged.into());
    let caveats = caveats(scenario, &mut json);
    json.insert("elapsed_s".into(), elapsed_s.into());
    Subject {
        verdict: Verdict::Inconclusive,
        as_expected: false,
        json,
        text: format!(
            "{name}: inconclusive\n  truncated by {limit} after {} of {} orders, at: {order}\n  scale the scenario down, or raise the limit\n{caveats}",
            grouped(judged as u64),
            grouped(all as u64),
        ),
    }
}

fn subject(
    scenario: &Scenario,
    part: Part,
    found: &Orders,
    elapsed_s: f64,
    global: &Global,
) -> Result<Subject, CliError> {
    let name = &scenario.name;
    let (all, safe) = (found.orders.len(), found.safe());
    let mut text = format!(
        "{name}: {} of {} orders of {} are safe\n  steps: {}\n",
        grouped(safe as u64),
        grouped(all as u64),
        match part {
            Part::Final => "the final steps".to_owned(),
            Part::Round(number) => format!("the steps of pre-copy round {number}"),
        },
        found.steps.join(", ")
    );
    let mut constraints = Vec::new();
    let mut json = Map::new();
    // Each order is a search of its own; all of them have the scenario's budgets.
    let proved = found.orders.iter().filter(|order| order.proved).count();
    if proved > 0 {
        text.push_str(&format!(
            "  {} proved {}\n",
            match (proved == safe, proved) {
                (true, 1) => "the safe one is".to_owned(),
                (true, _) => "each safe one is".to_owned(),
                (false, _) => format!("{} of these are", grouped(proved as u64)),
            },
            Bounds::of(scenario).sentence()
        ));
    }
    json.insert("proved".into(), proved.into());
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
            if let Some(minimal) = &example.minimal {
                let prefix = match part {
                    Part::Final => format!("{name}.order-{index}"),
                    Part::Round(number) => format!("{name}.round-{number}.order-{index}"),
                };
                let path = global.trace_dir.join(format!("{prefix}.trace.jsonl"));
                let (scenario, violation) = (&example.scenario, &example.violation);
                let (length, trace) = keep_minimal(&path, scenario, violation, minimal, &mut entry);
                text.push_str(&format!("\n      {length}\n      {trace}"));
            }
            text.push('\n');
        }
        // The verdict stands, and the command says at its end what it could not keep.
        if let Some(error) = entry.get(TRACE_ERROR) {
            json.insert(TRACE_ERROR.into(), error.clone());
        }
        constraints.push(Value::Object(entry));
    }
    text.push_str(&diagram(found, &found.constraints, "  "));
    let (exact, alternatives) = exactness(found, safe, &mut text);
    let sentences = sentences(found);
    for sentence in &sentences {
        text.push_str(&format!("  {sentence}\n"));
    }
    json.insert("scenario".into(), name.clone().into());
    json.insert("verdict".into(), Verdict::Holds.name().into());
    json.insert("coverage".into(), "exhausted".into());
    if let Part::Round(number) = part {
        json.insert("round".into(), number.into());
    }
    json.insert("steps".into(), found.steps.clone().into());
    json.insert("orders".into(), all.into());
    json.insert("safe".into(), safe.into());
    json.insert("constraints".into(), constraints.into());
    json.insert("exact".into(), exact.into());
    if let Some(alternatives) = alternatives {
        json.insert("alternatives".into(), alternatives);
    }
    if let Exactness::Alternatives { smallest, .. } = &found.exactness {
        json.insert("smallest".into(), (*smallest).into());
    }
    json.insert("sentences".into(), sentences.into());
    text.push_str(&caveats(scenario, &mut json));
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
        Exactness::Alternatives {
            keeping,
            sets,
            smallest,
        } => {
            let necessary = not_enough(found, *keeping, safe);
            let fewest = match smallest {
                true => "no fewer alternatives do",
                false => "whether fewer do is not known",
            };
            text.push_str(&format!(
                "  {necessary}. Safe is exactly what keeps all of one of these {} ({fewest}):\n",
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
                "  {}, and no eight sets of precedences tell them apart\n",
                not_enough(found, *keeping, safe)
            ));
            (false, None)
        }
    }
}

/// That what all safe orders have in common does not make an order safe.
fn not_enough(found: &Orders, keeping: usize, safe: usize) -> String {
    match found.constraints.is_empty() {
        true => "safe orders have no precedence in common".to_owned(),
        false => {
            format!("that is necessary, not sufficient: {keeping} orders keep it, {safe} are safe")
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

/// What can be said of each step: whether it is last, which is what such debates are about, what it must follow and what
/// it must precede.
fn sentences(found: &Orders) -> Vec<String> {
    let safe: Vec<&Vec<usize>> = found
        .orders
        .iter()
        .filter(|order| order.safe)
        .map(|order| &order.steps)
        .collect();
    if safe.is_empty() {
        return Vec::new();
    }
    let names = |steps: Vec<usize>| -> Vec<&str> {
        steps
            .iter()
            .map(|step| found.steps[*step].as_str())
            .collect()
    };
    let mut sentences = Vec::new();
    for (step, name) in found.steps.iter().enumerate() {
        let last = safe
            .iter()
            .filter(|order| order.last() == Some(&step))
            .count();
        let mut sentence = if last == safe.len() {
            format!("{name} is last in every safe order")
        } else if last == 0 {
            format!("{name} is last in no safe order")
        } else {
            format!("{name} need not be last, and may be")
        };
        let of = |wanted: &dyn Fn(&Constraint) -> Option<usize>| {
            names(found.constraints.iter().filter_map(wanted).collect())
        };
        let earlier = of(&|c| (c.after == step).then_some(c.before));
        let later = of(&|c| (c.before == step).then_some(c.after));
        let must: Vec<String> = [("follow", earlier), ("precede", later)]
            .into_iter()
            .filter(|(_, others)| !others.is_empty())
            .map(|(verb, others)| format!("{verb} {}", others.join(" and ")))
            .collect();
        if !must.is_empty() {
            sentence.push_str(&format!("; it must {}", must.join(", and ")));
        }
        sentences.push(sentence);
    }
    sentences
}
