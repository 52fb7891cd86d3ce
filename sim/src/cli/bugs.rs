//! `dirtysim bugs`: the historical bugs, each found once; or how long that takes.

use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use super::report::{block_words, caveats, grouped, kept, mutated, not_begun};
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted, progress_bar};
use crate::bugs::{BUGS, Bug, Reproduction};
use crate::mutated::{Acted, acted_in};
use crate::reproduce::{
    GoOn, MOST_SCHEDULES, Median, PCT, median_schedules, reproduce, states_until_found,
};
use crate::scenario::{Scenario, nearest};
use crate::scheduler::Scheduler;
use crate::search::Limit;
use crate::shrink::Budget;

/// What shrinking one bug's schedule may take: little, since the scenarios are small.
const BUDGET: Budget = Budget {
    attempts: 20_000,
    states: 150_000,
    bytes: u64::MAX,
};

/// Until somebody presses Ctrl-C.
const GO_ON: GoOn<'static> = &|| !interrupted();

/// Arguments of `dirtysim bugs`.
#[derive(Debug, Args)]
pub(crate) struct BugsArgs {
    /// Numbers of bugs; none: all
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Also measure: schedules until found, the median over 20 ranges of seeds, random and PCT; states until found
    #[arg(long)]
    statistics: bool,
}

/// What a median is called in a table.
fn words(median: Median) -> String {
    match median.schedules {
        Some(schedules) => grouped(schedules),
        None => format!("> {}", grouped(MOST_SCHEDULES)),
    }
}

fn selected(ids: &[String]) -> Result<Vec<&'static Bug>, CliError> {
    if ids.is_empty() {
        return Ok(BUGS.iter().collect());
    }
    ids.iter()
        .map(|id| {
            Bug::by_id(id).ok_or_else(|| {
                let known: Vec<&str> = BUGS.iter().map(|bug| bug.id).collect();
                let near = nearest(&id.to_uppercase(), &known)
                    .map_or(String::new(), |near| format!("did you mean `{near}`? "));
                CliError(format!(
                    "unknown bug `{id}`\nhelp: {near}known: {}",
                    known.join(", ")
                ))
            })
        })
        .collect()
}

pub(super) fn run(args: &BugsArgs, global: &Global) -> CliResult {
    let bugs = selected(&args.ids)?;
    let mut report = Report {
        command: "bugs",
        many: true,
        ..Report::default()
    };
    let bar = progress_bar(bugs.len() as u64, "bugs");
    let mut reproduced = 0;
    let mut expressible = 0;
    let mut not_expressible = Vec::new();
    for bug in &bugs {
        if interrupted() {
            let left = bug.scenarios();
            expressible += u32::from(!left.is_empty());
            report
                .subjects
                .extend(left.iter().map(|s| not_begun("scenario", &s.name)));
            continue;
        }
        bar.set_message(bug.id);
        match bug.how {
            Reproduction::NotExpressible(reason) => {
                let mut json = head(bug);
                json.insert("reproduced".into(), false.into());
                json.insert("reason".into(), reason.into());
                not_expressible.push(Value::Object(json));
                report
                    .tail
                    .push_str(&format!("{}\n     not expressible: {reason}\n", title(bug)));
            }
            Reproduction::Scenarios(_) => {
                expressible += 1;
                let subjects = bug
                    .scenarios()
                    .iter()
                    .map(|scenario| one(bug, scenario, args.statistics, global))
                    .collect::<Result<Vec<_>, _>>()?;
                reproduced += u32::from(subjects.iter().all(|subject| subject.as_expected));
                report.subjects.extend(subjects);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.tail.push_str(&format!(
        "{reproduced} of {expressible} bugs reproduced; {} not expressible\n",
        not_expressible.len()
    ));
    report
        .extra
        .insert("not_expressible".into(), not_expressible.into());
    Ok(report)
}

fn title(bug: &Bug) -> String {
    let oracle = bug.oracle.name();
    format!("{:<4} {} {oracle:<5} {}", bug.id, bug.year, bug.title)
}

/// What a row says of the bug itself.
fn head(bug: &Bug) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("bug".into(), bug.id.into());
    json.insert("title".into(), bug.title.into());
    json.insert("year".into(), bug.year.into());
    json.insert("source".into(), bug.source.into());
    json.insert("oracle".into(), bug.oracle.name().into());
    json
}

fn one(
    bug: &Bug,
    scenario: &Scenario,
    statistics: bool,
    global: &Global,
) -> Result<Subject, CliError> {
    let begun = Instant::now();
    let mut json = head(bug);
    json.insert("scenario".into(), scenario.name.clone().into());
    let mut text = format!("{}\n     {}: ", title(bug), scenario.name);
    let found = reproduce(scenario, BUDGET, GO_ON);
    let verdict = match &found {
        Some(_) => Verdict::Violated,
        None => Verdict::Inconclusive,
    };
    json.insert("verdict".into(), verdict.name().into());
    json.insert("expected".into(), "violated".into());
    json.insert("as_expected".into(), found.is_some().into());
    json.insert("reproduced".into(), found.is_some().into());
    json.insert("coverage".into(), "sampled".into());
    match &found {
        None if interrupted() => {
            json.insert("limit".into(), Limit::Interrupt.name().into());
            text.push_str("inconclusive: interrupted before it was found\n");
        }
        None => text.push_str("NOT reproduced\n"),
        Some(found) => {
            let path = global
                .trace_dir
                .join(format!("{}.trace.jsonl", scenario.name));
            let by = format!("{}, seed {}, shrunk", found.scheduler.name(), found.seed);
            let written =
                super::run::write_trace(&path, scenario, &found.steps, found.invariant, &by);
            json.insert("invariant".into(), found.invariant.name().into());
            json.insert("scheduler".into(), found.scheduler.name().into());
            json.insert("seed".into(), found.seed.into());
            json.insert("schedules_to_find".into(), found.schedules.into());
            json.insert("minimal_blocks".into(), found.blocks.into());
            json.insert("steps".into(), found.steps.len().into());
            json.insert("shortest".into(), found.shortest.into());
            kept(&path, written, &mut json);
            text.push_str(&format!(
                "{}, after {} schedules ({}), {}{}\n",
                found.invariant.name(),
                grouped(found.schedules),
                found.scheduler.name(),
                block_words(found.blocks as u64),
                if found.shortest {
                    ", none is shorter"
                } else {
                    ""
                },
            ));
        }
    }
    let acted = found
        .as_ref()
        .map_or_else(Acted::default, |found| acted_in(scenario, &found.steps));
    let caveats = caveats(scenario, &mut json) + &mutated(scenario, &acted, &mut json);
    for line in caveats.lines() {
        text.push_str(&format!("   {line}\n"));
    }
    if statistics {
        let of = |scheduler| median_schedules(scenario, scheduler, MOST_SCHEDULES, GO_ON);
        let random = of(Scheduler::Random);
        let pct = of(PCT);
        let mix = of(Scheduler::Mix);
        let states = states_until_found(scenario, GO_ON);
        if interrupted() {
            // What was not tried to its end has no median.
            json.insert("limit".into(), Limit::Interrupt.name().into());
            text.push_str("     not measured: interrupted\n");
        } else {
            json.insert("median_schedules_random".into(), random.schedules.into());
            json.insert("median_schedules_pct".into(), pct.schedules.into());
            json.insert("median_schedules_mix".into(), mix.schedules.into());
            json.insert("states_to_find".into(), states.into());
            text.push_str(&format!(
                "     median of schedules: random {}, pct {}, mix {}; states: {}\n",
                words(random),
                words(pct),
                words(mix),
                states.map_or("more than the limit".to_owned(), grouped),
            ));
        }
    }
    json.insert("elapsed_s".into(), begun.elapsed().as_secs_f64().into());
    Ok(Subject {
        verdict,
        as_expected: found.is_some(),
        json,
        text,
    })
}
