//! `dirtysim replay`: traces run again.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use super::report::grouped;
use super::{CliError, CliResult, Global, Report, Subject, Verdict};
use crate::replay::calls::{self, ReplayOptions, ReplayOutcome};
use crate::replay::steps::{self, StepReplay};
use crate::trace::{Expect, Header, Kind, TraceReader};

/// Arguments of `dirtysim replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Traces
    #[arg(value_name = "TRACE", required = true)]
    traces: Vec<PathBuf>,
    /// Switch a wrong behaviour on; may be given several times
    #[arg(long, value_name = "MUTATION")]
    mutate: Vec<String>,
}

pub(super) fn run(args: &ReplayArgs, _global: &Global) -> CliResult {
    let mut report = Report {
        command: "replay",
        many: args.traces.len() > 1,
        ..Report::default()
    };
    for path in &args.traces {
        let begun = Instant::now();
        let name = path.display().to_string();
        let reader = TraceReader::open(path)?;
        let header = reader.header().clone();
        let mut subject = match header.kind {
            Kind::Step => {
                let mut scenario = steps::scenario_of(&header, &name)?;
                for mutation in &args.mutate {
                    scenario = scenario.with_mutation(super::list::find_mutation(mutation)?);
                }
                step_subject(&name, &header, &steps::replay(reader, &name, scenario)?)
            }
            Kind::Call => {
                let options = ReplayOptions {
                    mutations: args
                        .mutate
                        .iter()
                        .map(|mutation| super::list::find_mutation(mutation))
                        .collect::<Result<_, _>>()?,
                    ..ReplayOptions::default()
                };
                let outcome = calls::replay_calls(&header, reader.rows()?, &name, &options)?;
                call_subject(&name, &header, &outcome)
            }
            Kind::Observed => {
                return Err(CliError(format!(
                    "{name}: replay of `observed` traces is not part of this program"
                )));
            }
        };
        subject
            .json
            .insert("elapsed_s".into(), begun.elapsed().as_secs_f64().into());
        report.subjects.push(subject);
    }
    Ok(report)
}

/// The verdict of a schedule: what its last step broke, against what its header expects.
fn step_subject(name: &str, header: &Header, replay: &StepReplay) -> Subject {
    let broken = replay.last.as_ref().map(|(invariant, _)| *invariant);
    let (expected, as_expected) = match &header.expect {
        None | Some(Expect::Holds) => ("holds", replay.broken.is_empty()),
        Some(Expect::Violated(wanted)) => (
            "violated",
            replay
                .broken
                .iter()
                .any(|invariant| invariant.name() == wanted),
        ),
    };
    // The claim that the header names comes first: a schedule may break others on its way.
    let wanted = match &header.expect {
        Some(Expect::Violated(wanted)) => replay
            .broken
            .iter()
            .find(|invariant| invariant.name() == wanted),
        _ => None,
    };
    let invariant = wanted.or(broken).or(replay.broken.iter().next());
    let divergences = replay.differences.len() as u64;
    let verdict = if invariant.is_some() || divergences > 0 {
        Verdict::Violated
    } else {
        Verdict::Holds
    };
    let as_expected = as_expected && divergences == 0;
    let mut json = Map::new();
    json.insert("trace".into(), name.into());
    json.insert("kind".into(), "step".into());
    json.insert("scenario".into(), replay.scenario.name.clone().into());
    json.insert("verdict".into(), verdict.name().into());
    json.insert("expected".into(), expected.into());
    json.insert("as_expected".into(), as_expected.into());
    if let Some(invariant) = invariant {
        json.insert("invariant".into(), invariant.name().into());
    }
    let pages = replay
        .last
        .as_ref()
        .map_or(&[][..], |(_, pages)| pages.as_slice());
    if let Some(page) = pages.first() {
        json.insert("page".into(), page.clone().into());
        json.insert("pages".into(), pages.to_vec().into());
    }
    let steps = replay.steps.len() as u64;
    json.insert("steps".into(), steps.into());
    json.insert("blocks".into(), replay.blocks.into());
    json.insert("compared".into(), steps.into());
    json.insert("not_modelled".into(), 0.into());
    json.insert("divergences".into(), divergences.into());
    let list: Vec<Value> = replay
        .differences
        .iter()
        .map(|(line, read, observed)| serde_json::json!({ "line": line, "trace": read, "model": observed }))
        .collect();
    json.insert("divergence_list".into(), list.into());
    let mut text = format!(
        "{name}: {}{}{}\n",
        verdict.name(),
        invariant.map_or(String::new(), |invariant| format!(
            " ({})",
            invariant.name()
        )),
        if as_expected {
            ", as expected"
        } else {
            ", NOT as expected"
        },
    );
    text.push_str(&format!(
        "  {}: {} steps in {} blocks\n",
        replay.scenario.name,
        grouped(steps),
        replay.blocks
    ));
    if let Some(invariant) = invariant {
        text.push_str(&format!("  broken: {}\n", invariant.sentence()));
    }
    if !pages.is_empty() {
        text.push_str(&format!("  page: {}\n", pages.join(", ")));
    }
    for (line, read, observed) in &replay.differences {
        text.push_str(&format!(
            "  line {line}: the trace says {read}\n      the model says {observed}\n"
        ));
    }
    Subject {
        verdict,
        as_expected,
        json,
        text,
    }
}

/// The name of the claim that a recording and the model agree.
const AGREES: &str = "agrees_with_recording";

/// The verdict of a recording: whether the model gives every result that the kernel gave.
fn call_subject(name: &str, header: &Header, outcome: &ReplayOutcome) -> Subject {
    let agrees = outcome.divergences_total == 0;
    let verdict = if agrees {
        Verdict::Holds
    } else {
        Verdict::Violated
    };
    // A recording that expects a violated contract names it; a divergence from the model is never hidden by that.
    let (expected, as_expected) = match &header.expect {
        None | Some(Expect::Holds) => ("holds", agrees),
        Some(Expect::Violated(wanted)) if wanted == AGREES => ("violated", !agrees),
        Some(Expect::Violated(wanted)) => (
            "violated",
            agrees && outcome.violations.contains_key(wanted),
        ),
    };
    let broken = match &header.expect {
        Some(Expect::Violated(wanted)) if outcome.violations.contains_key(wanted) => {
            Some(wanted.as_str())
        }
        _ => None,
    };
    let invariant = if agrees { broken } else { Some(AGREES) };
    let verdict = if broken.is_some() {
        Verdict::Violated
    } else {
        verdict
    };
    let not_modelled: u64 = outcome.not_modelled.values().sum();
    let mut json = Map::new();
    json.insert("trace".into(), name.into());
    json.insert("kind".into(), "call".into());
    json.insert("verdict".into(), verdict.name().into());
    json.insert("expected".into(), expected.into());
    json.insert("as_expected".into(), as_expected.into());
    if let Some(invariant) = invariant {
        json.insert("invariant".into(), invariant.into());
    }
    json.insert("compared".into(), outcome.compared.into());
    json.insert("not_modelled".into(), not_modelled.into());
    json.insert(
        "not_modelled_list".into(),
        serde_json::json!(outcome.not_modelled),
    );
    json.insert("divergences".into(), outcome.divergences_total.into());
    let list: Vec<Value> = outcome
        .divergences
        .iter()
        .map(|divergence| {
            serde_json::json!({
                "line": divergence.line,
                "section": divergence.section,
                "call": divergence.call,
                "field": divergence.field,
                "recorded": divergence.recorded,
                "model": divergence.modelled,
            })
        })
        .collect();
    json.insert("divergence_list".into(), list.into());
    let violations: Map<String, Value> = outcome
        .violations
        .iter()
        .map(|(name, (calls, line))| {
            let value = serde_json::json!({ "calls": calls, "first_line": line });
            (name.clone(), value)
        })
        .collect();
    json.insert("contracts_broken".into(), violations.into());
    let learned: Vec<Value> = outcome
        .learned
        .iter()
        .map(|learned| serde_json::json!({ "line": learned.line, "what": learned.what }))
        .collect();
    json.insert("learned".into(), learned.into());
    let mut text = format!(
        "{name}: {}{}{}\n  {} results compared, {} not modelled, {} divergences\n",
        verdict.name(),
        invariant.map_or(String::new(), |invariant| format!(" ({invariant})")),
        if as_expected {
            ", as expected"
        } else {
            ", NOT as expected"
        },
        grouped(outcome.compared),
        grouped(not_modelled),
        grouped(outcome.divergences_total),
    );
    for (why, count) in &outcome.not_modelled {
        text.push_str(&format!("  not modelled: {why} ({count})\n"));
    }
    for learned in &outcome.learned {
        text.push_str(&format!("  line {} shows {}\n", learned.line, learned.what));
    }
    for (name, (calls, line)) in &outcome.violations {
        text.push_str(&format!(
            "  contract broken: {name}, after {calls} calls, first on line {line}\n"
        ));
    }
    let side = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or("nothing".to_owned(), Value::to_string)
    };
    for divergence in &outcome.divergences {
        text.push_str(&format!(
            "  line {} ({}), {}, `{}`: the kernel gave {}, the model gives {}\n",
            divergence.line,
            divergence.section,
            divergence.call,
            divergence.field,
            side(&divergence.recorded),
            side(&divergence.modelled),
        ));
    }
    let shown = outcome.divergences.len() as u64;
    if shown < outcome.divergences_total {
        text.push_str(&format!(
            "  … and {} more\n",
            grouped(outcome.divergences_total - shown)
        ));
    }
    Subject {
        verdict,
        as_expected,
        json,
        text,
    }
}
