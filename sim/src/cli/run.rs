//! `dirtysim run`: seeded schedules.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use clap::{Args, ValueEnum};
use dirtysim_model::oracle::Invariant;
use dirtysim_model::words::mutation::Mutation;
use serde_json::{Map, Value};

use super::kind::{self, Wanted};
use super::report::{
    Judged, block_words, caveats, expected_words, grouped, happened, kept, mutated, not_begun,
    refused, unclaimed,
};
use super::{
    CliError, CliResult, Global, Report, Subject, Verdict, interrupted, make_dir, progress_bar,
};
use crate::explain::Story;
use crate::mutated::{acted, lacks};
use crate::replay::steps;
use crate::run::{self, Options, Outcome, Scheduler};
use crate::scenario::{Expect, Scenario, builtins};
use crate::search::Limit;
use crate::shrink::{Budget, shrink};
use crate::sometimes::no_claim;
use crate::trace::{PendingFile, WriteError};

/// Arguments of `dirtysim run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Built-in scenarios by name, or scenario files
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Seeds, the end excluded
    #[arg(long, value_name = "A..B", default_value = "0..20000", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// How the next step is chosen
    #[arg(long, value_enum, default_value_t = SchedulerArg::Mix)]
    scheduler: SchedulerArg,
    /// Ordering constraints that PCT reckons with
    #[arg(long, value_name = "D", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pct_depth: u32,
    /// Go on after the first failing seed, and name every claim that breaks
    #[arg(long)]
    keep_going: bool,
    /// Switch a wrong behaviour on; may be given several times
    #[arg(long, value_name = "MUTATION")]
    mutate: Vec<String>,
    #[command(flatten)]
    ci: super::ci::CiArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchedulerArg {
    /// Every possible step is as likely as another
    Random,
    /// Random priorities with a few random changes of them
    Pct,
    /// One actor at a time, interrupted most readily within the kernel, and then held
    Interrupt,
    /// The others in turn, by the seed
    Mix,
}

pub(super) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let help = "write A..B, two whole numbers, the end excluded: 0..1000";
    let (first, last) = text.split_once("..").ok_or(help)?;
    let first: u64 = first.trim().parse().map_err(|_| help)?;
    let last: u64 = last.trim().parse().map_err(|_| help)?;
    if first >= last {
        return Err(format!("no seed from {first} to {last}: {help}"));
    }
    Ok(first..last)
}

/// Refuses a scenario about any number of pages where one machine is looked at.
pub(super) fn one_machine(scenario: &Scenario, command: &str) -> Result<(), CliError> {
    if !scenario.any_pages {
        return Ok(());
    }
    Err(CliError(format!(
        "{}: {command} looks at one machine, and this scenario is about any number of pages\nhelp: write a number in pages, or use `dirtysim check`",
        scenario.name
    )))
}

/// The scenarios of those names, or the built-in ones, with mutations switched on. Of the built-in ones those are left
/// out in which a mutation can do nothing; a scenario that was asked for is refused then.
pub(super) fn find_scenarios(
    names: &[String],
    mutate: &[String],
) -> Result<Vec<Scenario>, CliError> {
    let mut scenarios = if names.is_empty() {
        builtins()
    } else {
        names
            .iter()
            .map(|name| {
                kind::check(Path::new(name), Wanted::Scenario)?;
                Ok(Scenario::find(name)?)
            })
            .collect::<Result<Vec<_>, CliError>>()?
    };
    for name in mutate {
        let mutation = super::list::find_mutation(name)?;
        if names.is_empty() {
            scenarios.retain(|scenario| lacks(scenario, mutation).is_none());
        }
        scenarios = scenarios
            .into_iter()
            .map(|scenario| switch_on(scenario, mutation))
            .collect::<Result<_, _>>()?;
    }
    if scenarios.is_empty() {
        return Err(CliError(format!(
            "--mutate {}: no built-in scenario in which all of them can do something\nhelp: name a scenario that has what they need",
            mutate.join(" --mutate ")
        )));
    }
    Ok(scenarios)
}

/// The scenario with a mutation switched on that somebody asked for, and that can do something there.
pub(super) fn switch_on(scenario: Scenario, mutation: Mutation) -> Result<Scenario, CliError> {
    match lacks(&scenario, mutation) {
        None => Ok(scenario.with_mutation(mutation)),
        Some(lacks) => Err(CliError(format!(
            "--mutate {}: it can do nothing in {}: {lacks}\nhelp: leave it away, or use a scenario that has what it needs",
            mutation.name(),
            scenario.name
        ))),
    }
}

pub(super) fn run(args: &RunArgs, global: &Global) -> CliResult {
    let scenarios = find_scenarios(&args.scenarios, &args.mutate)?;
    for scenario in &scenarios {
        one_machine(scenario, "`dirtysim run`")?;
    }
    let scheduler = match args.scheduler {
        SchedulerArg::Random => Scheduler::Random,
        SchedulerArg::Pct => Scheduler::Pct {
            depth: args.pct_depth,
        },
        SchedulerArg::Interrupt => Scheduler::Interrupt,
        SchedulerArg::Mix => Scheduler::Mix,
    };
    let mut report = Report {
        command: "run",
        many: scenarios.len() > 1,
        ..Report::default()
    };
    for scenario in &scenarios {
        if interrupted() {
            report.subjects.push(not_begun("scenario", &scenario.name));
            continue;
        }
        let options = Options {
            seeds: args.seeds.clone(),
            scheduler,
            keep_going: args.keep_going,
        };
        let bar = progress_bar(args.seeds.end - args.seeds.start, "schedules");
        bar.set_message(scenario.name.clone());
        let begun = Instant::now();
        let outcome = run::run(scenario, &options, &|done| {
            bar.set_position(done);
            !interrupted()
        });
        bar.finish_and_clear();
        report.subjects.push(subject(
            scenario,
            &options,
            &outcome,
            begun.elapsed().as_secs_f64(),
            global,
        )?);
    }
    report.count();
    if let Err(error) = args.ci.apply(&mut report, &scenarios, global) {
        report.errors.push(error);
    }
    Ok(report)
}

/// The coverage of a run of schedules and its verdict.
fn judge(
    scenario: &Scenario,
    outcome: &Outcome,
    options: &Options,
) -> (Verdict, &'static str, Option<&'static str>) {
    if outcome.failure.is_some() {
        (Verdict::Violated, "sampled", None)
    } else if outcome.cut > 0 {
        (Verdict::Inconclusive, "truncated", Some("steps"))
    } else if outcome.schedules < options.seeds.end - options.seeds.start {
        (
            Verdict::Inconclusive,
            "truncated",
            Some(Limit::Interrupt.name()),
        )
    } else if no_claim(&scenario.machine, outcome.seen).is_some() {
        (Verdict::Inconclusive, "sampled", None)
    } else {
        (Verdict::Holds, "sampled", None)
    }
}

fn subject(
    scenario: &Scenario,
    options: &Options,
    outcome: &Outcome,
    elapsed_s: f64,
    global: &Global,
) -> Result<Subject, CliError> {
    let (verdict, coverage, limit) = judge(scenario, outcome, options);
    let broken = outcome.failure.as_ref().map(|failure| failure.invariant);
    let expected = scenario.expected();
    let as_expected = match expected {
        Expect::Holds => verdict == Verdict::Holds,
        Expect::Violated(invariant) => broken == Some(invariant),
    };
    let mut json = Judged {
        scenario,
        verdict,
        expected,
        as_expected,
        coverage,
        limit,
    }
    .json();
    json.insert("scheduler".into(), options.scheduler.name().into());
    json.insert(
        "seeds".into(),
        format!("{}..{}", options.seeds.start, options.seeds.end).into(),
    );
    json.insert("schedules".into(), outcome.schedules.into());
    json.insert("steps".into(), outcome.steps.into());
    let mut text = format!("{}: {}", scenario.name, verdict.name());
    if let Some(failure) = &outcome.failure {
        text.push_str(&format!(
            " ({}, seed {})",
            failure.invariant.name(),
            failure.seed
        ));
        let by = options.scheduler.of(failure.seed);
        json.insert("found_by".into(), by.to_string().into());
    }
    let limit_words = limit.map_or(String::new(), |limit| format!(", cut by {limit}"));
    text.push_str(&format!(
        "{}\n  {}\n  {coverage}: {} schedules ({}, seeds {}..{}{limit_words}), {} steps\n",
        expected_words(as_expected),
        scenario.sentence,
        grouped(outcome.schedules),
        options.scheduler,
        options.seeds.start,
        options.seeds.end,
        grouped(outcome.steps),
    ));
    if verdict == Verdict::Holds {
        let not_tried = options.scheduler.not_tried();
        text.push_str(&format!("  not every order was tried: {not_tried}\n"));
        json.insert("not_tried".into(), not_tried.into());
    }
    text.push_str(&unclaimed(
        scenario,
        outcome.seen,
        verdict,
        limit,
        &mut json,
    ));
    text.push_str(&caveats(scenario, &mut json));
    let failing = outcome.failure.as_ref();
    let acted = acted(scenario, failing.map(|failure| failure.steps.as_slice()));
    text.push_str(&mutated(scenario, &acted, &mut json));
    text.push_str(&refused(scenario, &outcome.refused, &mut json));
    let also: Vec<Value> = outcome
        .broken
        .iter()
        .filter(|invariant| Some(*invariant) != broken)
        .map(|i| i.name().into())
        .collect();
    if !also.is_empty() {
        json.insert("also_broken".into(), also.into());
    }
    if let Some(failure) = &outcome.failure {
        text.push_str(&failed(scenario, options, failure, global, &mut json));
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

/// Keeps the failing schedule as a trace and says what it shows.
fn failed(
    scenario: &Scenario,
    options: &Options,
    failure: &run::Failure,
    global: &Global,
    json: &mut Map<String, Value>,
) -> String {
    json.insert("invariant".into(), failure.invariant.name().into());
    json.insert("seed".into(), failure.seed.into());
    let path = global
        .trace_dir
        .join(format!("{}.trace.jsonl", scenario.name));
    let found_by = format!(
        "{}, seed {}; shrunk",
        options.scheduler.of(failure.seed),
        failure.seed
    );
    // What is shown is short first: a schedule of hundreds of steps tells nobody anything.
    let shrunk = shrink(
        scenario,
        &failure.steps,
        failure.invariant,
        SHRINK_BUDGET,
        &mut |_| !interrupted(),
    );
    let steps = shrunk
        .as_ref()
        .map_or(&failure.steps, |shrunk| &shrunk.steps);
    let written = write_trace(&path, scenario, steps, failure.invariant, &found_by);
    let blocks = crate::shrink::blocks(steps);
    json.insert("blocks".into(), blocks.into());
    let trace = kept(&path, written, json);
    let mut text = format!("  {}\n", failure.invariant.sentence());
    if let Ok(story) = Story::new(scenario, steps, Some(failure.invariant), String::new()) {
        if let Some(page) = story.pages.first() {
            json.insert("page".into(), page.clone().into());
        }
        json.insert("story".into(), story.conclusion.clone().into());
        for sentence in &story.conclusion {
            text.push_str(&format!("  {sentence}\n"));
        }
    }
    text.push_str(&format!(
        "  {trace} ({} steps in {})\n",
        steps.len(),
        block_words(blocks as u64)
    ));
    text
}

/// What shrinking may cost before a failure is shown; `dirtysim shrink` takes longer.
const SHRINK_BUDGET: Budget = Budget {
    attempts: 20_000,
    states: 500_000,
    bytes: u64::MAX,
};

/// Writes a schedule as a trace.
pub(super) fn write_trace(
    path: &std::path::Path,
    scenario: &Scenario,
    steps: &[dirtysim_model::transition::Step],
    invariant: Invariant,
    found_by: &str,
) -> Result<(), CliError> {
    write_whole(path, |file| {
        steps::write(file, scenario, steps, Some(invariant), found_by)
    })
}

/// Writes a trace beside its place, then renames.
pub(super) fn write_whole(
    path: &std::path::Path,
    write: impl FnOnce(&mut PendingFile) -> Result<(), WriteError>,
) -> Result<(), CliError> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let cannot = |error: &dyn std::fmt::Display| {
        CliError(format!("{}: cannot be written: {error}", path.display()))
    };
    let mut file = PendingFile::create(path).map_err(|error| cannot(&error))?;
    write(&mut file).map_err(|error| cannot(&error))?;
    file.flush().map_err(|error| cannot(&error))?;
    file.keep().map_err(|error| cannot(&error))
}
