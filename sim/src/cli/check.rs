//! `dirtysim check`: every interleaving within a scenario's bounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::check_args::CheckArgs;
use super::coverage::{coverage_words, for_how_many, reductions, unconfirmed};
use super::report::{
    Judged, block_words, caveats, expected_words, grouped, happened, kept, mutated, not_begun,
    refused, unclaimed,
};
use super::run::{find_scenarios, one_machine, write_trace};
use super::spinner::Spinner;
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted, liveness, sweep};
use crate::first;
use crate::mutated::acted;
use crate::scenario::{Expect, Scenario, about_liveness};
use crate::search::minimal::{Minimal, minimal};
use crate::search::{self, Options, Violation, memory};
use crate::shrink::Budget;

pub(super) fn run(args: &CheckArgs, global: &Global) -> CliResult {
    if !args.watch {
        return once(args, global);
    }
    let files: Vec<&Path> = args.scenarios.iter().map(Path::new).collect();
    if let Some(name) = files.iter().find(|path| !path.is_file()) {
        return Err(CliError(format!(
            "--watch: {} is no file\nhelp: name the scenario files that you work on",
            name.display()
        )));
    }
    if files.is_empty() {
        return Err(CliError(
            "--watch watches files\nhelp: name the scenario files that you work on".to_owned(),
        ));
    }
    loop {
        let seen = stamps(&files);
        match once(args, global) {
            Ok(report) if interrupted() => return Ok(report),
            Ok(report) => {
                report.print(global.json);
            }
            // A file that is being written is wrong for a moment.
            Err(CliError(error)) => super::report::say(&format!("error: {error}")),
        }
        while stamps(&files) == seen {
            if interrupted() {
                return Ok(Report {
                    command: "check",
                    ..Report::default()
                });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// When each file was changed last, and how long it is; none where it cannot be asked.
fn stamps(files: &[&Path]) -> Vec<Option<(std::time::SystemTime, u64)>> {
    let stamp = |path: &&Path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    files.iter().map(stamp).collect()
}

fn once(args: &CheckArgs, global: &Global) -> CliResult {
    let mut scenarios = find_scenarios(&args.scenarios, &args.mutate)?;
    let options = Options {
        max_states: args.max_states,
        max_memory_bytes: args.max_memory,
        max_time: args.max_time,
        keep_going: args.keep_going,
        counterexample: true,
        reductions: args.reductions(),
    };
    if !args.over.is_empty() {
        return sweep::run(args, &scenarios, &options);
    }
    let mut pages_stay = BTreeMap::new();
    if args.any_number {
        for scenario in &mut scenarios {
            if let Some(wide) = scenario.widened() {
                *scenario = wide.scenario;
                pages_stay.extend(wide.pages_stay.map(|why| (scenario.name.clone(), why)));
            }
        }
    }
    if args.liveness {
        if args.scenarios.is_empty() && args.mutate.is_empty() {
            scenarios.extend(about_liveness());
        }
        for scenario in &scenarios {
            one_machine(scenario, "--liveness")?;
            let mut claims = liveness::CLAIMS.iter();
            if let Some(claim) = claims.find(|claim| !scenario.machine.claims.has(**claim)) {
                return Err(CliError(format!(
                    "{}: --liveness looks for what breaks `{}`, which its `claims` leaves out\nhelp: add it to `claims`",
                    scenario.name,
                    claim.name()
                )));
            }
        }
        return liveness::run(&scenarios, &options, global);
    }
    let mut report = Report {
        command: "check",
        many: scenarios.len() > 1,
        ..Report::default()
    };
    for scenario in &scenarios {
        if interrupted() {
            report.subjects.push(not_begun("scenario", &scenario.name));
            continue;
        }
        let begun = Instant::now();
        let spinner = Spinner::new(&scenario.name, begun, &options);
        let outcome = search::check(scenario, &options, &|progress| {
            spinner.show(progress);
            !interrupted()
        })?;
        let budget = shrink_budget(&options);
        // With any number of pages, what is shown is a machine of few.
        let instance = search::instance(scenario, &outcome);
        let scenario = instance.as_ref().unwrap_or(scenario);
        let minimal = outcome.violation.as_ref().and_then(|violation| {
            minimal(scenario, violation, budget, &|done| {
                spinner.show_shrinking(done);
                let late = args.max_time.is_some_and(|most| begun.elapsed() >= most);
                !interrupted() && !late
            })
        });
        drop(spinner);
        let elapsed_s = begun.elapsed().as_secs_f64();
        let mut judged = subject(scenario, &outcome, minimal.as_ref(), elapsed_s, global)?;
        if let Some(why) = pages_stay.get(&scenario.name) {
            judged.json.insert("pages_stay".into(), why.clone().into());
            judged
                .text
                .push_str(&format!("  the number of pages stays: {why}\n"));
        }
        report.subjects.push(judged);
    }
    report.count();
    if let Err(error) = args.ci.apply(&mut report, &scenarios, global) {
        report.errors.push(error);
    }
    Ok(report)
}

/// What making a counterexample short may cost: the usual, or what the search's own limit leaves room for.
pub(super) fn shrink_budget(options: &Options) -> Budget {
    Budget {
        bytes: memory::for_a_search(options.max_memory_bytes),
        ..Budget::default()
    }
}

pub(super) fn subject(
    scenario: &Scenario,
    outcome: &search::Report,
    minimal: Option<&Minimal>,
    elapsed_s: f64,
    global: &Global,
) -> Result<Subject, CliError> {
    let verdict = Verdict::from(outcome.verdict);
    let broken = outcome.violation.as_ref().map(|found| found.invariant);
    let expected = scenario.expected();
    let as_expected = match expected {
        Expect::Holds => verdict == Verdict::Holds,
        Expect::Violated(invariant) => broken == Some(invariant),
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
    json.insert("states".into(), outcome.states.into());
    json.insert("transitions".into(), outcome.transitions.into());
    json.insert("depth".into(), outcome.depth.into());
    json.insert("state_bits".into(), outcome.state_bits.into());
    json.insert(
        "collision_probability".into(),
        outcome.collision_probability.into(),
    );
    let mut text = format!("{}: {}", scenario.name, verdict.name());
    if let Some(invariant) = broken {
        text.push_str(&format!(" ({})", invariant.name()));
    }
    let limit_words = limit.map_or(String::new(), |limit| format!(" by {limit}"));
    text.push_str(&format!(
        "{}\n  {}\n  {coverage}{limit_words}: {} states, {} transitions, depth {}{}\n",
        expected_words(as_expected),
        scenario.sentence,
        grouped(outcome.states),
        grouped(outcome.transitions),
        outcome.depth,
        missed(outcome.collision_probability),
    ));
    if let (Some(pages), Some(_)) = (outcome.instance, &outcome.violation) {
        let s = if pages == 1 { "" } else { "s" };
        text.push_str(&format!(
            "  broken with {pages} page{s} already: that machine is shown\n"
        ));
    }
    text.push_str(&for_how_many(&outcome.bounds, outcome.coverage, &mut json));
    if let Some(states) = outcome.own_numbers {
        json.insert("own_numbers_states".into(), states.into());
        text.push_str(&format!(
            "  so with its own numbers, which had not ended after {} states\n",
            grouped(states)
        ));
    }
    text.push_str(&unconfirmed(outcome.unconfirmed.as_ref(), &mut json));
    text.push_str(&unclaimed(
        scenario,
        outcome.seen,
        verdict,
        limit,
        &mut json,
    ));
    text.push_str(&reductions(scenario, &outcome.reduced, &mut json));
    text.push_str(&caveats(scenario, &mut json));
    let shown = minimal.map(|minimal| minimal.steps.as_slice());
    let acted = acted(scenario, shown);
    text.push_str(&mutated(scenario, &acted, &mut json));
    text.push_str(&refused(scenario, &outcome.refused, &mut json));
    let also: Vec<Value> = outcome
        .broken
        .iter()
        .filter(|invariant| Some(*invariant) != broken)
        .map(|invariant| invariant.name().into())
        .collect();
    if !also.is_empty() {
        let names: Vec<&str> = also.iter().filter_map(Value::as_str).collect();
        text.push_str(&format!("  also broken: {}\n", names.join(", ")));
        json.insert("also_broken".into(), also.into());
    }
    if let Some(violation) = &outcome.violation {
        text.push_str(&violated(scenario, violation, minimal, global, &mut json));
    }
    text.push_str(&happened(scenario, outcome.seen, verdict, &mut json));
    json.insert("elapsed_s".into(), elapsed_s.into());
    Ok(Subject {
        verdict,
        as_expected,
        json,
        text,
    })
}

/// How sure it is that no two states were taken for one; nothing, where they are kept whole.
fn missed(probability: f64) -> String {
    if probability > 0.0 {
        format!("; chance of a missed state at most {probability:.1e}")
    } else {
        String::new()
    }
}

/// Keeps the counterexample as a trace and says how long it is.
fn violated(
    scenario: &Scenario,
    violation: &Violation,
    minimal: Option<&Minimal>,
    global: &Global,
    json: &mut Map<String, Value>,
) -> String {
    json.insert("invariant".into(), violation.invariant.name().into());
    let sentence = violation.invariant.sentence();
    let Some(minimal) = minimal else {
        json.insert("shortest".into(), false.into());
        json.insert("violation_depth".into(), violation.depth.into());
        return format!(
            "  {sentence}\n  broken after {} steps; a limit came before a counterexample\n",
            violation.depth
        );
    };
    let path = global
        .trace_dir
        .join(format!("{}.check.trace.jsonl", scenario.name));
    let (length, trace) = keep_minimal(&path, scenario, violation, minimal, json);
    let why = match first::no_full_copy(scenario, violation.invariant) {
        Some(why) => {
            json.insert("help".into(), why.into());
            format!("  {why}\n")
        }
        None => String::new(),
    };
    format!("  {sentence}\n  {length}\n{why}  {trace}\n")
}

/// Writes a counterexample as a trace; says how long it is and whether others are shorter, and where the trace is.
pub(super) fn keep_minimal(
    path: &Path,
    scenario: &Scenario,
    violation: &Violation,
    minimal: &Minimal,
    json: &mut Map<String, Value>,
) -> (String, String) {
    let written = write_trace(
        path,
        scenario,
        &minimal.steps,
        violation.invariant,
        "exhaustive search",
    );
    let (steps, blocks) = (minimal.steps.len(), minimal.blocks());
    json.insert("shortest".into(), minimal.fewest_blocks.into());
    json.insert("steps".into(), steps.into());
    json.insert("blocks".into(), blocks.into());
    if let Some(fewest) = minimal.fewest_steps {
        json.insert("fewest_steps".into(), fewest.into());
    }
    let trace = kept(path, written, json);
    if steps == 0 {
        let first = "it is broken in the first state, before anybody acts (0 steps)";
        return (first.to_owned(), trace);
    }
    let block_words = block_words(blocks as u64);
    let fewest_steps = match minimal.fewest_steps {
        Some(fewest) if fewest < steps => {
            format!("; none has fewer than {fewest} steps, in more blocks")
        }
        Some(_) if minimal.fewest_blocks => "; none has fewer steps either".to_owned(),
        Some(_) => "; none has fewer steps".to_owned(),
        None => String::new(),
    };
    let how = match (minimal.fewest_blocks, minimal.cut) {
        (true, _) => ": no schedule breaks it in fewer blocks",
        (false, false) => {
            ", of which none can be dropped; a limit came before it was known whether fewer blocks do"
        }
        (false, true) => "; a limit came before it was as short as it can be made",
    };
    let length = format!("{block_words} ({steps} steps){how}{fewest_steps}");
    (length, trace)
}
