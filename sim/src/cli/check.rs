//! `dirtysim check`: every interleaving within the scenario's bounds.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};

use super::report::grouped;
use super::run::{expected_word, find_scenarios, write_trace};
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted, progress_bar};
use crate::scenario::{Expect, Scenario};
use crate::search::{self, Coverage, Limit, Options, Reductions};
use crate::sometimes::Sometimes;

/// Arguments of `dirtysim check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Built-in scenarios by name, or scenario files; without one, the built-in ones
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Stop after the level on which so many distinct states were reached
    #[arg(long, value_name = "N")]
    max_states: Option<u64>,
    /// Bytes for visited states and frontiers: 2G [default: most of what the machine has free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S")]
    max_time: Option<u64>,
    /// Visit every state: no symmetry, no partial order
    #[arg(long)]
    no_reduction: bool,
    /// Go on after the first violation, and name every claim that breaks
    #[arg(long)]
    keep_going: bool,
    /// Switch a wrong behaviour on; may be given several times
    #[arg(long, value_name = "MUTATION")]
    mutate: Vec<String>,
}

/// Bytes with a suffix K, M, G or T (powers of 1024).
fn parse_bytes(text: &str) -> Result<u64, String> {
    let help = "write bytes, with K, M, G or T for powers of 1024: 2G";
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| help)?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| help.to_owned())
}

pub(super) fn run(args: &CheckArgs, global: &Global) -> CliResult {
    let scenarios = find_scenarios(&args.scenarios, &args.mutate)?;
    let mut report = Report {
        command: "check",
        many: scenarios.len() > 1,
        ..Report::default()
    };
    for scenario in &scenarios {
        if interrupted() {
            break;
        }
        let options = Options {
            max_states: args.max_states,
            max_memory_bytes: args.max_memory,
            max_time: args.max_time.map(Duration::from_secs),
            keep_going: args.keep_going,
            reductions: if args.no_reduction {
                Reductions::NONE
            } else {
                Reductions::ALL
            },
            ..Options::default()
        };
        let bar = progress_bar(0, "states");
        bar.set_style(indicatif::ProgressStyle::default_spinner());
        let begun = Instant::now();
        let outcome = search::check(scenario, &options, &|progress| {
            let rate = progress.states as f64 / begun.elapsed().as_secs_f64().max(0.001);
            bar.set_message(format!(
                "{}: {} states, {} on level {}, {:.1} M/s, {} MiB",
                scenario.name,
                grouped(progress.states),
                grouped(progress.frontier),
                progress.depth,
                rate / 1e6,
                progress.bytes >> 20,
            ));
            bar.tick();
            !interrupted()
        })
        .map_err(|error| CliError(format!("{}: {error}", scenario.name)))?;
        bar.finish_and_clear();
        report.subjects.push(subject(
            scenario,
            &outcome,
            begun.elapsed().as_secs_f64(),
            global,
        )?);
    }
    let unexpected = report
        .subjects
        .iter()
        .filter(|subject| !subject.as_expected)
        .count();
    if report.many {
        let all = report.subjects.len();
        report.tail = match unexpected {
            0 => format!("{all} scenarios, each as expected\n"),
            _ => format!("{all} scenarios, {unexpected} not as expected\n"),
        };
    }
    Ok(report)
}

fn subject(
    scenario: &Scenario,
    outcome: &search::Report,
    elapsed_s: f64,
    global: &Global,
) -> Result<Subject, CliError> {
    let verdict = match outcome.verdict {
        search::Verdict::Holds => Verdict::Holds,
        search::Verdict::Violated => Verdict::Violated,
        search::Verdict::Inconclusive => Verdict::Inconclusive,
    };
    let broken = outcome
        .violation
        .as_ref()
        .map(|violation| violation.invariant);
    let expected = scenario.expected();
    let as_expected = match expected {
        Expect::Holds => verdict == Verdict::Holds,
        Expect::Violated(invariant) => broken == Some(invariant),
    };
    let mut json = Map::new();
    json.insert("scenario".into(), scenario.name.clone().into());
    json.insert("verdict".into(), verdict.name().into());
    json.insert("expected".into(), expected_word(expected));
    json.insert("as_expected".into(), as_expected.into());
    let coverage = match outcome.coverage {
        Coverage::Exhausted => "exhausted",
        Coverage::Truncated(_) => "truncated",
    };
    json.insert("coverage".into(), coverage.into());
    if let Coverage::Truncated(limit) = outcome.coverage {
        json.insert("limit".into(), limit.name().into());
    }
    json.insert("states".into(), outcome.states.into());
    json.insert("transitions".into(), outcome.transitions.into());
    json.insert("depth".into(), outcome.depth.into());
    let mut text = format!(
        "{}: {}{}{}\n  {}\n",
        scenario.name,
        verdict.name(),
        broken.map_or(String::new(), |invariant| format!(
            " ({})",
            invariant.name()
        )),
        if as_expected {
            ", as expected"
        } else {
            ", NOT as expected"
        },
        scenario.sentence,
    );
    let cut = match outcome.coverage {
        Coverage::Exhausted => String::new(),
        Coverage::Truncated(Limit::Interrupt) => ", interrupted".to_owned(),
        Coverage::Truncated(limit) => format!(", cut by --{}", limit.name()),
    };
    text.push_str(&format!(
        "  {coverage}{cut}: {} states, {} transitions, depth {}\n",
        grouped(outcome.states),
        grouped(outcome.transitions),
        outcome.depth,
    ));
    let reductions = reductions(outcome);
    json.insert("reductions".into(), reductions.clone().into());
    text.push_str(&format!(
        "  reductions: {}\n",
        if reductions.is_empty() {
            "none".to_owned()
        } else {
            reductions.join("; ")
        }
    ));
    json.insert(
        "collision_probability".into(),
        outcome.collision_probability.into(),
    );
    text.push_str(&format!(
        "  visited set: 64-bit fingerprints; two states shared one with probability at most {:.1e}\n",
        outcome.collision_probability
    ));
    if !scenario.scaled.is_empty() {
        json.insert("scaled".into(), scenario.scaled.clone().into());
        text.push_str(&format!("  scaled: {}\n", scenario.scaled.join("; ")));
    }
    let also: Vec<Value> = outcome
        .broken
        .iter()
        .filter(|invariant| Some(*invariant) != broken)
        .map(|i| i.name().into())
        .collect();
    if !also.is_empty() {
        json.insert("also_broken".into(), also.into());
    }
    if let Some(violation) = &outcome.violation {
        json.insert("invariant".into(), violation.invariant.name().into());
        text.push_str(&format!("  {}\n", violation.invariant.sentence()));
        if let Some(steps) = &violation.steps {
            let path = global
                .trace_dir
                .join(format!("{}.check.trace.jsonl", scenario.name));
            write_trace(&path, scenario, steps, violation.invariant, "check")?;
            json.insert("steps".into(), steps.len().into());
            json.insert("shortest".into(), violation.shortest.into());
            json.insert("trace".into(), path.display().to_string().into());
            let shortest = if violation.shortest {
                "the shortest"
            } else {
                "not known to be the shortest"
            };
            text.push_str(&format!(
                "  counterexample: {} steps, {shortest}\n  trace: {}\n",
                steps.len(),
                path.display()
            ));
        }
    }
    let ring = scenario.ring_entries() > 0;
    let never: Vec<Sometimes> = Sometimes::ALL
        .iter()
        .copied()
        .filter(|claim| claim.applies(&scenario.machine, ring) && !outcome.seen.has(*claim))
        .collect();
    if verdict == Verdict::Holds && !never.is_empty() {
        json.insert(
            "never_happened".into(),
            never
                .iter()
                .map(|claim| claim.sentence())
                .collect::<Vec<_>>()
                .into(),
        );
        for claim in never {
            text.push_str(&format!(
                "  never happened, so the verdict says nothing about it: {}\n",
                claim.sentence()
            ));
        }
    }
    json.insert("state_bits".into(), outcome.state_bits.into());
    json.insert("elapsed_s".into(), elapsed_s.into());
    Ok(Subject {
        verdict,
        as_expected,
        json,
        text,
    })
}

/// The reductions that were made, in words.
fn reductions(outcome: &search::Report) -> Vec<String> {
    let mut words = Vec::new();
    let classes = outcome
        .reduced
        .classes
        .iter()
        .filter(|class| class.len() > 1)
        .count();
    if classes > 0 {
        words.push(format!("symmetry over pages ({classes} classes)"));
    }
    if outcome.reduced.vcpus {
        words.push("symmetry over vCPUs".to_owned());
    }
    if !outcome.reduced.rules.is_empty() {
        words.push(format!(
            "partial order ({} rules)",
            outcome.reduced.rules.len()
        ));
    }
    words
}
