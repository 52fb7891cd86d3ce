//! `dirtysim check --liveness`: what goes on for ever.

use std::time::Instant;

use dirtysim_model::oracle::Invariant;
use dirtysim_model::state::layout::Large;
use dirtysim_model::transition::{Step, apply};
use serde_json::{Map, Value};

use super::coverage::{coverage_words, reductions};
use super::report::{
    Judged, block_words, caveats, expected_words, grouped, kept, mutated, not_begun, refused,
};
use super::run::write_whole;
use super::spinner::Spinner;
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted};
use crate::mutated::acted;
use crate::replay::steps;
use crate::scenario::{Expect, Scenario};
use crate::search::Options;
use crate::search::liveness::{self, Endless, Lasso};
use crate::shrink::blocks;
use crate::trace::step::row;

/// The claims that this is about.
pub(super) const CLAIMS: [Invariant; 2] =
    [Invariant::MigrationMakesProgress, Invariant::ProtocolEnds];

pub(super) fn run(scenarios: &[Scenario], options: &Options, global: &Global) -> CliResult {
    let mut report = Report {
        command: "check",
        many: scenarios.len() > 1,
        ..Report::default()
    };
    for scenario in scenarios {
        if interrupted() {
            report.subjects.push(not_begun("scenario", &scenario.name));
            continue;
        }
        let begun = Instant::now();
        let outcome = {
            let spinner = Spinner::new(&scenario.name, begun, options);
            liveness::liveness(scenario, options, &|progress| {
                spinner.show(progress);
                !interrupted()
            })?
        };
        let elapsed_s = begun.elapsed().as_secs_f64();
        let judged = subject(scenario, &outcome, elapsed_s, global)?;
        report.subjects.push(judged);
    }
    report.count();
    Ok(report)
}

fn subject(
    scenario: &Scenario,
    outcome: &liveness::Report,
    elapsed_s: f64,
    global: &Global,
) -> Result<Subject, CliError> {
    let verdict = Verdict::from(outcome.verdict);
    let expected = scenario.expected_liveness();
    let as_expected = verdict
        == match expected {
            Expect::Holds => Verdict::Holds,
            Expect::Violated(_) => Verdict::Violated,
        };
    let (coverage, limit) = coverage_words(outcome.coverage);
    let mut json = Judged {
        scenario,
        verdict,
        expected,
        as_expected,
        coverage,
        limit,
    }
    .json();
    json.insert("pass".into(), "liveness".into());
    json.insert("states".into(), outcome.states.into());
    json.insert("transitions".into(), outcome.transitions.into());
    json.insert("without_progress".into(), outcome.without_progress.into());
    json.insert("components".into(), outcome.components.into());
    json.insert("cycles".into(), outcome.cycles.into());
    json.insert("depth".into(), outcome.depth.into());
    json.insert("state_bits".into(), outcome.state_bits.into());
    json.insert(
        "collision_probability".into(),
        outcome.collision_probability.into(),
    );
    let mut broken = outcome.broken.iter().map(Invariant::name);
    let judged = match broken.next() {
        Some(first) => first.to_owned(),
        None => format!("{}, {}", CLAIMS[0].name(), CLAIMS[1].name()),
    };
    let mut text = format!(
        "{}: {} ({judged}){}\n  {}\n  {coverage}{}: {} states, {} transitions, {} of them without progress, depth {}; chance of a missed state at most {:.1e}\n",
        scenario.name,
        verdict.name(),
        expected_words(as_expected),
        scenario.sentence,
        limit.map_or(String::new(), |limit| format!(" by {limit}")),
        grouped(outcome.states),
        grouped(outcome.transitions),
        grouped(outcome.without_progress),
        outcome.depth,
        outcome.collision_probability,
    );
    text.push_str(&reductions(scenario, &outcome.reduced, &mut json));
    text.push_str(&caveats(scenario, &mut json));
    let cycle = outcome.lasso.as_ref().map(|lasso| lasso.steps.as_slice());
    text.push_str(&mutated(scenario, &acted(scenario, cycle), &mut json));
    text.push_str(&refused(scenario, &outcome.refused, &mut json));
    let also: Vec<&str> = broken.collect();
    if !also.is_empty() {
        text.push_str(&format!("  also broken: {}\n", also.join(", ")));
        json.insert("also_broken".into(), also.into());
    }
    match &outcome.lasso {
        Some(lasso) => text.push_str(&shown(scenario, lasso, global, &mut json)),
        None if verdict == Verdict::Violated => {
            text.push_str("  no schedule that shows it could be put together\n");
        }
        None => text.push_str(&none_found(outcome, verdict)),
    }
    json.insert("elapsed_s".into(), elapsed_s.into());
    Ok(Subject {
        verdict,
        as_expected,
        json,
        text,
    })
}

/// What there was of cycles where none breaks a claim.
fn none_found(outcome: &liveness::Report, verdict: Verdict) -> String {
    let so_far = match verdict {
        Verdict::Inconclusive => " so far",
        Verdict::Holds | Verdict::Violated => "",
    };
    let mut text = match outcome.components {
        0 => format!("  no cycle without progress{so_far}\n"),
        cycles => format!(
            "  {} sets of states can be gone round without progress, none of them fairly: somebody who can act throughout is left out\n",
            grouped(cycles)
        ),
    };
    // A cycle without progress is a cycle, and has been told of.
    if outcome.cycles > outcome.components {
        text.push_str(&format!(
            "  {} sets of states can be gone round with progress, none of them fairly while somebody waits for an end\n",
            grouped(outcome.cycles - outcome.components)
        ));
    }
    text
}

/// Keeps the schedule as a trace and shows its cycle, a line a block.
fn shown(
    scenario: &Scenario,
    lasso: &Lasso,
    global: &Global,
    json: &mut Map<String, Value>,
) -> String {
    let (stem, cycle) = lasso.steps.split_at(lasso.stem());
    json.insert("invariant".into(), lasso.kind.invariant().name().into());
    json.insert("steps".into(), lasso.steps.len().into());
    json.insert("blocks".into(), blocks(&lasso.steps).into());
    json.insert("stem".into(), stem.len().into());
    json.insert("cycle".into(), cycle.len().into());
    let path = global
        .trace_dir
        .join(format!("{}.liveness.trace.jsonl", scenario.name));
    let written = write_whole(&path, |file| {
        steps::write_lasso(file, scenario, lasso, "search for cycles")
    });
    let trace = kept(&path, written, json);
    let but = match lasso.kind {
        Endless::WithoutProgress => "",
        Endless::WithoutEnd => " and brings nobody to the end that is waited for",
    };
    let mut text = match cycle.len() {
        0 => format!(
            "  a deadlock after {} steps ({}): nobody can act, and a program has not come to its end\n",
            stem.len(),
            block_words(blocks(stem) as u64)
        ),
        steps => format!(
            "  after {} steps ({}), a cycle of {steps} steps that can go on for ever{but}:\n",
            stem.len(),
            block_words(blocks(stem) as u64)
        ),
    };
    let lines = lines(scenario, stem, cycle);
    for line in &lines {
        text.push_str(&format!("    {line}\n"));
    }
    if !lines.is_empty() {
        json.insert("cycle_blocks".into(), lines.into());
    }
    text.push_str(&format!("  {trace}\n"));
    text
}

/// The steps of a cycle, one line a block.
fn lines(scenario: &Scenario, stem: &[Step], cycle: &[Step]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let Ok(mut state) = scenario.start::<Large>() else {
        return lines;
    };
    for &step in stem {
        apply(&scenario.machine, &mut state, step);
    }
    let mut acting = None;
    for &step in cycle {
        let row = row(scenario, &state, step);
        let page = row.page.map_or(String::new(), |page| format!(" {page}"));
        let word = format!("{}{page}", row.what);
        match lines.last_mut() {
            Some(line) if acting == Some(step.actor) => line.push_str(&format!(", {word}")),
            _ => lines.push(format!("{}: {word}", row.who)),
        }
        acting = Some(step.actor);
        apply(&scenario.machine, &mut state, step);
    }
    lines
}
