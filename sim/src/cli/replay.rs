//! `dirtysim replay`: traces run again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use dirtysim_model::transition::Step;
use serde_json::{Map, Value};

use super::input::Input;
use super::kind::{self, Wanted};
use super::report::{block_words, caveats, cut, grouped, mutated, not_begun};
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted};
use crate::first;
use crate::mutated::{Acted, acted_in};
use crate::observed::search::{self, Ended, Outcome, SearchReport, Shape};
use crate::observed::{Answer, CheckConfig, CheckReport, Weight, answer, check_and_shape};
use crate::replay::calls::{self, ReplayOptions, ReplayOutcome};
use crate::replay::steps::{self, StepReplay};
use crate::trace::observed::ObservedEvent;
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
    /// Observed traces: entries of a ring, where not what its import was told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) ring_entries: Option<u32>,
    /// Observed traces: entries of a ring in reserve: 64, or 576 on x86 with PML
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) ring_reserved: Option<u32>,
    /// Observed traces: model steps that the search for a run may take; 0: no search
    #[arg(long, value_name = "N", default_value_t = search::STEPS_DEFAULT)]
    search_steps: u64,
}

/// The steps of a trace of which is asked whether a mutation acts in them.
const MOST_ASKED: usize = 20_000;

impl ReplayArgs {
    /// One trace, as it is replayed when nothing else is said.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            traces: vec![path.to_owned()],
            mutate: Vec::new(),
            ring_entries: None,
            ring_reserved: None,
            search_steps: search::STEPS_DEFAULT,
        }
    }

    fn config(&self) -> CheckConfig {
        CheckConfig {
            ring_entries: self.ring_entries,
            ring_reserved: self.ring_reserved,
            page_size: None,
        }
    }
}

pub(super) fn run(args: &ReplayArgs, _global: &Global) -> CliResult {
    let mut report = Report {
        command: "replay",
        many: args.traces.len() > 1,
        ..Report::default()
    };
    for path in &args.traces {
        if interrupted() {
            report
                .subjects
                .push(not_begun("trace", &path.display().to_string()));
            continue;
        }
        match one(args, path) {
            Ok(subject) => report.subjects.push(subject),
            Err(_) if interrupted() => {
                let name = path.display().to_string();
                report
                    .subjects
                    .push(cut("trace", &name, "not read to its end"));
            }
            // What the others say stands all the same.
            Err(error) => report.errors.push(error),
        }
    }
    match report.errors.pop() {
        Some(error) if report.subjects.is_empty() && report.errors.is_empty() => Err(error),
        last => {
            report.errors.extend(last);
            Ok(report)
        }
    }
}

/// One trace, run again.
pub(super) fn one(args: &ReplayArgs, path: &Path) -> Result<Subject, CliError> {
    Ok(told(args, path)?.0)
}

/// The same, and of a recording or a log what is said of it.
pub(super) fn told(args: &ReplayArgs, path: &Path) -> Result<(Subject, Told), CliError> {
    let begun = Instant::now();
    let name = path.display().to_string();
    kind::check(path, Wanted::Trace)?;
    let reader = TraceReader::open_through(path, Input)?;
    let header = reader.header().clone();
    let (mut subject, told) = match header.kind {
        Kind::Step => {
            let mut scenario = steps::scenario_of(&header, &name)?;
            for mutation in &args.mutate {
                let mutation = super::list::find_mutation(mutation)?;
                scenario = super::run::switch_on(scenario, mutation)?;
            }
            // Steps are kept only where somebody asks which mutation they met.
            let mutated = !scenario.machine.mutations().is_empty();
            let mut taken = Vec::new();
            let replay = steps::replay(reader, &name, scenario, |step| {
                if mutated && taken.len() < MOST_ASKED {
                    taken.push(step);
                }
            })?;
            let subject = step_subject(&name, &header, &replay, &taken);
            (subject, Told::default())
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
        Kind::Observed if !args.mutate.is_empty() => {
            return Err(CliError(format!(
                "{name}: a mutation of the model has no effect on what a log observed\nhelp: leave --mutate away"
            )));
        }
        Kind::Observed => {
            let config = args.config().or(header.known);
            config
                .check()
                .map_err(|complaint| *complaint.at(&name, 1))?;
            let mut shape = Shape::new(&header, config);
            let rows = reader.rows::<ObservedEvent>()?;
            let checked = check_and_shape(rows, config, &mut shape)?;
            let searched = search_again(args, path, &checked, &shape)?;
            observed_subject(&name, &header, &checked, &searched)
        }
    };
    subject
        .json
        .insert("elapsed_s".into(), begun.elapsed().as_secs_f64().into());
    Ok((subject, told))
}

/// What a search came to, and on which machines.
fn search_lines(searched: &SearchReport) -> Vec<String> {
    let mut lines = vec![match &searched.outcome {
        Outcome::Consistent => {
            "search: a run was found, in which guest, VMM and hardware do what no log tells"
                .to_owned()
        }
        Outcome::NoRunFound => {
            "search: no run was found; one order of the open steps was tried, so that there may be one"
                .to_owned()
        }
        Outcome::Limit { limit } => format!("search: ended by its limit, {limit}"),
        Outcome::NotSearched { why } => return vec![format!("search: not made: {why}")],
    }];
    for tried in &searched.tried {
        let end = match &tried.ended {
            None => String::new(),
            Some(Ended {
                line: Some(line),
                why,
            }) => format!("; not line {line}: {why}"),
            Some(Ended { line: None, why }) => {
                lines.push(format!("  {}: cannot be: {why}", tried.machine));
                continue;
            }
        };
        lines.push(format!(
            "  {}: gives {} events, in {} steps of the model{end}",
            tried.machine,
            grouped(tried.given),
            grouped(tried.steps)
        ));
        let open = [
            (
                tried.own_stores,
                "entries of stores that only KVM itself can have made, their pages were not armed",
            ),
            (
                tried.diverted,
                "stores that faulted and to which the guest did not come back at once",
            ),
            (tried.evictions, "TLB entries that the hardware dropped"),
        ];
        for (count, what) in open.iter().filter(|(count, _)| *count > 0) {
            lines.push(format!("    {what}: {}", grouped(*count)));
        }
    }
    lines
}

/// The verdict of a schedule: what its last step broke, against what its header expects.
fn step_subject(name: &str, header: &Header, replay: &StepReplay, steps_taken: &[Step]) -> Subject {
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
    let divergences = replay.differences_total;
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
    let steps = replay.steps;
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
        "  {}: {} steps in {}\n",
        replay.scenario.name,
        grouped(steps),
        block_words(replay.blocks)
    ));
    if let Some((cycle, _, confirmed)) = &replay.cycle {
        json.insert("cycle".into(), (*cycle).into());
        text.push_str(&match confirmed {
            Ok(()) => format!("  the last {cycle} steps can go on for ever\n"),
            Err(why) => {
                format!("  the last {cycle} steps are no cycle that can go on for ever: {why}\n")
            }
        });
    }
    text.push_str(&caveats(&replay.scenario, &mut json));
    text.push_str(&mutated(
        &replay.scenario,
        &if (steps_taken.len() as u64) < steps {
            Acted::default()
        } else {
            acted_in(&replay.scenario, steps_taken)
        },
        &mut json,
    ));
    if let Some(invariant) = invariant {
        text.push_str(&format!("  broken: {}\n", invariant.sentence()));
        if let Some(why) = first::no_full_copy(&replay.scenario, invariant) {
            json.insert("help".into(), why.into());
            text.push_str(&format!("  {why}\n"));
        }
    }
    if !pages.is_empty() {
        text.push_str(&format!("  page: {}\n", pages.join(", ")));
    }
    for (line, read, observed) in replay.differences.iter().take(MOST_SHOWN) {
        text.push_str(&format!(
            "  line {line}: the trace says {read}\n      the model says {observed}\n"
        ));
    }
    let shown = replay.differences.len().min(MOST_SHOWN) as u64;
    if shown < divergences {
        text.push_str(&format!("  … and {} more\n", grouped(divergences - shown)));
    }
    Subject {
        verdict,
        as_expected,
        json,
        text,
    }
}

/// What a replay of a recording or a log says, as data: a terminal and a report show it each in their own way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The verdict, without the file's name.
    pub(super) verdict: String,
    /// What was found, a line each; what belongs to the line before begins with blanks.
    pub(super) found: Vec<String>,
    /// What is not known, and what would decide it.
    pub(super) unknown: Vec<(String, String)>,
}

impl Told {
    fn line(&mut self, line: impl Into<String>) {
        self.found.push(line.into());
    }

    /// For a terminal.
    fn text(&self, name: &str) -> String {
        let mut text = format!("{name}: {}\n", self.verdict);
        for line in &self.found {
            text.push_str(&format!("  {line}\n"));
        }
        for (unknown, help) in &self.unknown {
            text.push_str(&format!("  unknown: {unknown}\n    {help}\n"));
        }
        text
    }
}

/// The name of the claim that a recording and the model agree.
const AGREES: &str = "agrees_with_recording";

/// The verdict of a recording: whether the model gives every result that the kernel gave.
fn call_subject(name: &str, header: &Header, outcome: &ReplayOutcome) -> (Subject, Told) {
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
    let mut told = Told {
        verdict: format!(
            "{}{}{}",
            verdict.name(),
            invariant.map_or(String::new(), |invariant| format!(" ({invariant})")),
            if as_expected {
                ", as expected"
            } else {
                ", NOT as expected"
            },
        ),
        ..Told::default()
    };
    told.line(format!(
        "{} results compared, {} not modelled, {} divergences",
        grouped(outcome.compared),
        grouped(not_modelled),
        grouped(outcome.divergences_total),
    ));
    for (why, count) in &outcome.not_modelled {
        told.line(format!("not modelled: {why} ({count})"));
    }
    for learned in &outcome.learned {
        told.line(format!("line {} shows {}", learned.line, learned.what));
    }
    for (name, (calls, line)) in &outcome.violations {
        told.line(format!(
            "contract broken: {name}, after {calls} calls, first on line {line}"
        ));
    }
    let side = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or("nothing".to_owned(), Value::to_string)
    };
    for divergence in &outcome.divergences {
        told.line(format!(
            "line {} ({}), {}, `{}`: the kernel gave {}, the model gives {}",
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
        told.line(format!(
            "… and {} more",
            grouped(outcome.divergences_total - shown)
        ));
    }
    let subject = Subject {
        verdict,
        as_expected,
        json,
        text: told.text(name),
    };
    (subject, told)
}

/// Differences of a schedule that are printed; the document has more.
const MOST_SHOWN: usize = 10;

/// Findings of each claim and weight in a log that are printed.
const SHOWN_OF_EACH: u32 = 3;

/// The second pass over an observed trace: a run of the model that gives it, unless the contract is broken already.
fn search_again(
    args: &ReplayArgs,
    path: &Path,
    checked: &CheckReport,
    shape: &Shape,
) -> Result<SearchReport, CliError> {
    if checked.has(Weight::Defect) {
        return Ok(SearchReport::not_searched(
            "the contract is broken, and that is the answer",
        ));
    }
    if args.search_steps == 0 {
        return Ok(SearchReport::not_searched("--search-steps 0"));
    }
    if !std::fs::metadata(path).is_ok_and(|data| data.is_file()) {
        return Ok(SearchReport::not_searched(
            "a search reads the trace twice, and this is no regular file",
        ));
    }
    let rows = TraceReader::open(path)?.rows::<ObservedEvent>()?;
    let bar = indicatif::ProgressBar::new_spinner();
    let searched = search::search_rows(rows, shape, args.search_steps, &|events| {
        bar.set_message(format!(
            "a run of the model gives {} events",
            grouped(events)
        ));
        bar.tick();
        !interrupted()
    });
    bar.finish_and_clear();
    Ok(searched?)
}

/// The verdict on a log: some run of the model gives it, and the kernel and the VMM kept the ring's contract, as far as
/// the log tells.
fn observed_subject(
    name: &str,
    header: &Header,
    checked: &CheckReport,
    searched: &SearchReport,
) -> (Subject, Told) {
    let (verdict, limit) = match answer(checked, searched) {
        Answer::Broken => (Verdict::Violated, None),
        Answer::Open(limit) => (Verdict::Inconclusive, Some(limit)),
        Answer::Consistent => (Verdict::Holds, None),
    };
    let (expected, as_expected) = match &header.expect {
        None | Some(Expect::Holds) => ("holds", verdict == Verdict::Holds),
        Some(Expect::Violated(_)) => ("violated", verdict == Verdict::Violated),
    };
    let mut json = Map::new();
    json.insert("trace".into(), name.into());
    json.insert("kind".into(), "observed".into());
    json.insert("verdict".into(), verdict.name().into());
    json.insert("expected".into(), expected.into());
    json.insert("as_expected".into(), as_expected.into());
    if verdict == Verdict::Violated {
        json.insert("invariant".into(), "agrees_with_recording".into());
    }
    if let Some(limit) = limit {
        json.insert("limit".into(), limit.into());
    }
    json.insert("compared".into(), checked.compared.into());
    json.insert("not_modelled".into(), checked.not_compared.into());
    json.insert("divergences".into(), checked.count(Weight::Defect).into());
    json.insert(
        "check".into(),
        serde_json::to_value(checked).unwrap_or_default(),
    );
    json.insert(
        "search".into(),
        serde_json::to_value(searched).unwrap_or_default(),
    );
    let kept = !checked.has(Weight::Doubt) && checked.compared > 0;
    let mut told = Told {
        verdict: format!(
            "{}{}",
            match verdict {
                Verdict::Holds =>
                    "consistent: a run of the model gives it, and the ring's contract was kept",
                Verdict::Violated => "the ring's contract was broken",
                Verdict::Inconclusive if kept =>
                    "inconclusive: the ring's contract was kept, but no run of the model is known that gives it",
                Verdict::Inconclusive => "inconclusive: the log tells too little",
            },
            if as_expected || verdict == Verdict::Inconclusive {
                ""
            } else {
                ", NOT as expected"
            },
        ),
        ..Told::default()
    };
    told.line(format!(
        "{} events compared, {} could not be compared, {} give context",
        grouped(checked.compared),
        grouped(checked.not_compared),
        grouped(checked.context),
    ));
    if checked.total() > 0 {
        told.line(format!("findings: {}", checked.weights_in_words()));
    }
    let mut shown = 0;
    for finding in checked.first_of_each(SHOWN_OF_EACH) {
        shown += 1;
        told.line(format!(
            "{}, line {}: {} ({})",
            finding.weight.name(),
            finding.line,
            finding.text,
            finding.claim.name()
        ));
    }
    if checked.total() > shown {
        told.line(format!(
            "and {} more; --json has the first {} of each claim",
            grouped(checked.total() - shown),
            CheckReport::KEPT_OF_EACH
        ));
    }
    told.found.extend(search_lines(searched));
    told.unknown = checked
        .unknown
        .iter()
        .map(|(unknown, count)| {
            let what = format!("{} ({} not compared)", unknown.name(), grouped(*count));
            (what, unknown.help().to_owned())
        })
        .collect();
    let subject = Subject {
        verdict,
        as_expected,
        json,
        text: told.text(name),
    };
    (subject, told)
}
