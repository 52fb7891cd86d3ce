//! `dirtysim check`: every interleaving within a scenario's bounds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};

use super::report::{grouped, never_seen};
use super::run::{expected_word, find_scenarios, write_trace};
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted};
use crate::scenario::{Expect, Scenario};
use crate::search::{self, Coverage, Options, Progress, Reductions, Rule, Violation};
use crate::sometimes::Sometimes;

/// Arguments of `dirtysim check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Built-in scenarios by name, or scenario files
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Stop at the end of the level at which so many states are known
    #[arg(long, value_name = "N")]
    max_states: Option<u64>,
    /// Bytes for the search, with K, M or G for KiB, MiB or GiB [default: three quarters of what is available]
    #[arg(long, value_name = "B", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    /// Stop a scenario after so many seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    max_time: Option<Duration>,
    /// Visit every state: no symmetry and no partial-order reduction
    #[arg(long)]
    no_reduction: bool,
    /// Do not exchange pages
    #[arg(long)]
    no_page_symmetry: bool,
    /// Do not exchange vCPUs
    #[arg(long)]
    no_vcpu_symmetry: bool,
    /// Do not take local steps alone
    #[arg(long)]
    no_partial_order: bool,
    /// Leave one rule for local steps out; may be given several times
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    without_rule: Vec<Rule>,
    /// Go on after the first violation, and name every claim that breaks
    #[arg(long)]
    keep_going: bool,
    /// Switch a wrong behaviour on; may be given several times
    #[arg(long, value_name = "MUTATION")]
    mutate: Vec<String>,
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let help = "write a number of bytes, or one with K, M or G: 512M";
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| help)?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("more than there can be: {help}"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "write a number of seconds: 60".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}: write seconds: 60"))
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let known = || Rule::ALL.iter().copied();
    known().find(|rule| rule.name() == text).ok_or_else(|| {
        let names: Vec<&str> = known().map(Rule::name).collect();
        format!("no such rule; the rules: {}", names.join(", "))
    })
}

impl CheckArgs {
    fn reductions(&self) -> Reductions {
        if self.no_reduction {
            return Reductions::NONE;
        }
        let mut reductions = Reductions::ALL;
        for rule in &self.without_rule {
            reductions = reductions.without(*rule);
        }
        reductions.pages &= !self.no_page_symmetry;
        reductions.vcpus &= !self.no_vcpu_symmetry;
        if self.no_partial_order {
            reductions.rules = 0;
        }
        reductions
    }
}

pub(super) fn run(args: &CheckArgs, global: &Global) -> CliResult {
    let scenarios = find_scenarios(&args.scenarios, &args.mutate)?;
    let options = Options {
        max_states: args.max_states,
        max_memory_bytes: args.max_memory,
        max_time: args.max_time,
        keep_going: args.keep_going,
        counterexample: true,
        reductions: args.reductions(),
    };
    let mut report = Report {
        command: "check",
        many: scenarios.len() > 1,
        ..Report::default()
    };
    for scenario in &scenarios {
        if interrupted() {
            break;
        }
        let begun = Instant::now();
        let outcome = {
            let spinner = Spinner::new(&scenario.name, begun);
            search::check(scenario, &options, &|progress| {
                spinner.show(progress);
                !interrupted()
            })?
        };
        let elapsed_s = begun.elapsed().as_secs_f64();
        report
            .subjects
            .push(subject(scenario, &outcome, elapsed_s, global)?);
    }
    let unexpected = report.subjects.iter().filter(|s| !s.as_expected).count();
    if report.many {
        let all = report.subjects.len();
        report.tail = match unexpected {
            0 => format!("{all} scenarios, each as expected\n"),
            _ => format!("{all} scenarios, {unexpected} not as expected\n"),
        };
    }
    Ok(report)
}

/// A line on a terminal that says how far the search is; nothing elsewhere.
struct Spinner {
    bar: indicatif::ProgressBar,
    name: String,
    begun: Instant,
    shown: Mutex<Instant>,
}

impl Spinner {
    fn new(name: &str, begun: Instant) -> Self {
        Self {
            bar: indicatif::ProgressBar::new_spinner(),
            name: name.to_owned(),
            begun,
            shown: Mutex::new(begun),
        }
    }

    fn show(&self, progress: &Progress) {
        // One thread at a time writes, and none waits for another.
        let Ok(mut shown) = self.shown.try_lock() else {
            return;
        };
        if shown.elapsed() < Duration::from_millis(200) {
            return;
        }
        *shown = Instant::now();
        let rate = progress.states as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!(
            "{}: {} states, frontier {}, depth {}, {} states/s, {} MiB",
            self.name,
            grouped(progress.states),
            grouped(progress.frontier),
            progress.depth,
            grouped(rate as u64),
            progress.bytes >> 20
        ));
        self.bar.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
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
    let broken = outcome.violation.as_ref().map(|found| found.invariant);
    let expected = scenario.expected();
    let as_expected = match expected {
        Expect::Holds => verdict == Verdict::Holds,
        Expect::Violated(invariant) => broken == Some(invariant),
    };
    let (coverage, limit) = match outcome.coverage {
        Coverage::Exhausted => ("exhausted", None),
        Coverage::Truncated(limit) => ("truncated", Some(limit.name())),
    };
    let mut json = Map::new();
    json.insert("scenario".into(), scenario.name.clone().into());
    json.insert("verdict".into(), verdict.name().into());
    json.insert("expected".into(), expected_word(expected));
    json.insert("as_expected".into(), as_expected.into());
    json.insert("coverage".into(), coverage.into());
    if let Some(limit) = limit {
        json.insert("limit".into(), limit.into());
    }
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
        "{}\n  {}\n  {coverage}{limit_words}: {} states, {} transitions, depth {}; chance of a missed state at most {:.1e}\n",
        if as_expected { ", as expected" } else { ", NOT as expected" },
        scenario.sentence,
        grouped(outcome.states),
        grouped(outcome.transitions),
        outcome.depth,
        outcome.collision_probability,
    ));
    text.push_str(&reductions(scenario, outcome, &mut json));
    if !scenario.scaled.is_empty() {
        json.insert("scaled".into(), scenario.scaled.clone().into());
        text.push_str(&format!("  scaled: {}\n", scenario.scaled.join("; ")));
    }
    text.push_str(&never_seen(scenario, &mut json));
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
        text.push_str(&violated(scenario, violation, global, &mut json)?);
    }
    text.push_str(&sometimes(scenario, outcome, &mut json));
    json.insert("elapsed_s".into(), elapsed_s.into());
    Ok(Subject {
        verdict,
        as_expected,
        json,
        text,
    })
}

/// The reductions that were made, and what was not interchangeable.
fn reductions(
    scenario: &Scenario,
    outcome: &search::Report,
    json: &mut Map<String, Value>,
) -> String {
    let reduced = &outcome.reduced;
    let classes: Vec<Vec<String>> = reduced
        .classes
        .iter()
        .map(|class| {
            class
                .iter()
                .map(|frame| scenario.frame_name(*frame))
                .collect()
        })
        .collect();
    let words: Vec<String> = classes
        .iter()
        .map(|class| format!("{{{}}}", class.join(", ")))
        .collect();
    let pages = match (words.is_empty(), reduced.pages_everywhere) {
        (true, _) => "no pages".to_owned(),
        (false, true) => words.join(" "),
        (false, false) => format!(
            "{} after the last re-arming of a running guest",
            words.join(" ")
        ),
    };
    let vcpus = if reduced.vcpus {
        "; vCPUs while no loop visits them"
    } else {
        ""
    };
    let rules: Vec<&str> = reduced.rules.iter().map(|rule| rule.name()).collect();
    let mut map = Map::new();
    map.insert("pages".into(), classes.into());
    map.insert("pages_everywhere".into(), reduced.pages_everywhere.into());
    map.insert("vcpus".into(), reduced.vcpus.into());
    map.insert("rules".into(), rules.clone().into());
    json.insert("reductions".into(), map.into());
    if reduced.classes.is_empty() && !reduced.vcpus && rules.is_empty() {
        return "  no reduction\n".to_owned();
    }
    format!(
        "  interchangeable: {pages}{vcpus}; {} rules for local steps\n",
        rules.len()
    )
}

/// Keeps the counterexample as a trace and says how long it is.
fn violated(
    scenario: &Scenario,
    violation: &Violation,
    global: &Global,
    json: &mut Map<String, Value>,
) -> Result<String, CliError> {
    json.insert("invariant".into(), violation.invariant.name().into());
    json.insert("shortest".into(), violation.shortest.into());
    let sentence = violation.invariant.sentence();
    let Some(steps) = &violation.steps else {
        json.insert("violation_depth".into(), violation.depth.into());
        return Ok(format!(
            "  {sentence}\n  broken after {} steps; a limit came before a counterexample\n",
            violation.depth
        ));
    };
    let blocks = crate::shrink::blocks(steps);
    json.insert("steps".into(), steps.len().into());
    json.insert("blocks".into(), blocks.into());
    let path = global
        .trace_dir
        .join(format!("{}.check.trace.jsonl", scenario.name));
    write_trace(
        &path,
        scenario,
        steps,
        violation.invariant,
        "exhaustive search",
    )?;
    json.insert("trace".into(), path.display().to_string().into());
    Ok(format!(
        "  {sentence}\n  no schedule breaks it in fewer than {} steps ({blocks} blocks)\n  trace: {}\n",
        steps.len(),
        path.display()
    ))
}

/// What happened in some schedule, and what should have and did not.
fn sometimes(
    scenario: &Scenario,
    outcome: &search::Report,
    json: &mut Map<String, Value>,
) -> String {
    let mut text = String::new();
    let ring = scenario.ring_entries() > 0;
    let sentences = |wanted: &dyn Fn(Sometimes) -> bool| -> Vec<Value> {
        Sometimes::ALL
            .iter()
            .filter(|claim| wanted(**claim))
            .map(|claim| claim.sentence().into())
            .collect()
    };
    if outcome.violation.is_none() {
        let never =
            sentences(&|claim| claim.applies(&scenario.machine, ring) && !outcome.seen.has(claim));
        for sentence in never.iter().filter_map(Value::as_str) {
            text.push_str(&format!(
                "  never happened, so the verdict says nothing about it: {sentence}\n"
            ));
        }
        if !never.is_empty() {
            json.insert("never_happened".into(), never.into());
        }
    }
    json.insert(
        "sometimes".into(),
        sentences(&|claim| outcome.seen.has(claim)).into(),
    );
    text
}
