//! `dirtysim shrink`: the shortest schedule with the same violation.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::Map;

use super::report::{block_words, caveats, grouped, mutated, say};
use super::schedule::{Schedule, deliver, unread};
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted};
use crate::mutated::acted_in;
use crate::replay::steps;
use crate::search::memory;
use crate::shrink::{self, Budget};

/// Arguments of `dirtysim shrink`.
#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    /// A trace of kind `step` that breaks a claim
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// The trace to write; without it, standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replays, at most
    #[arg(long, value_name = "N", default_value_t = Budget::default().attempts)]
    max_attempts: u64,
    /// States that the search for the shortest schedule may remember, at most within three quarters of the memory that is available; 0: no search
    #[arg(long, value_name = "N", default_value_t = Budget::default().states)]
    max_states: u64,
}

pub(super) fn run(args: &ShrinkArgs, global: &Global) -> CliResult {
    let begun = Instant::now();
    let name = args.trace.display().to_string();
    let schedule = match Schedule::load(&args.trace, args.output.as_deref(), "shrink") {
        Err(_) if interrupted() => return Ok(unread("shrink", &args.trace)),
        loaded => loaded?,
    };
    let replay = &schedule.replay;
    if replay.cycle.is_some() {
        return Err(CliError(format!(
            "{name}: ends in a cycle that can go on for ever\nhelp: `dirtysim check --liveness` writes it with as few steps before the cycle as there can be; there is nothing to shrink"
        )));
    }
    let Some(target) = schedule.target() else {
        return Err(CliError(format!(
            "{name}: breaks no claim\nhelp: give a trace whose replay is `violated`; `dirtysim replay` tells"
        )));
    };
    let budget = Budget {
        attempts: args.max_attempts,
        states: args.max_states,
        bytes: memory::for_a_search(None),
    };
    let bar = indicatif::ProgressBar::new_spinner();
    let shrunk = shrink::shrink(
        &replay.scenario,
        &schedule.steps,
        target,
        budget,
        &mut |done| {
            bar.set_message(format!(
                "{}, {} steps; {} replays, {} states",
                block_words(done.blocks as u64),
                done.steps,
                grouped(done.attempts),
                grouped(done.states)
            ));
            bar.tick();
            !interrupted()
        },
    );
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        return Err(CliError(format!(
            "{name}: its steps do not break {}\nhelp: `dirtysim replay` shows what they break",
            target.name()
        )));
    };
    let mut found_by = schedule.header.found_by.clone().unwrap_or_default();
    if !found_by.ends_with("shrunk") {
        if !found_by.is_empty() {
            found_by.push_str("; ");
        }
        found_by.push_str("shrunk");
    }
    let mut text = Vec::new();
    steps::write(
        &mut text,
        &replay.scenario,
        &shrunk.steps,
        Some(target),
        &found_by,
    )?;
    let file = deliver(&text, args.output.as_deref(), global, "the trace")?;
    let mut tail = String::new();
    let blocks = shrunk.blocks();
    let mut json = Map::new();
    json.insert("scenario".into(), replay.scenario.name.clone().into());
    json.insert("verdict".into(), Verdict::Violated.name().into());
    json.insert("expected".into(), Verdict::Violated.name().into());
    json.insert("as_expected".into(), true.into());
    json.insert("invariant".into(), target.name().into());
    json.insert("steps".into(), shrunk.steps.len().into());
    json.insert("blocks".into(), blocks.into());
    json.insert("steps_before".into(), schedule.steps.len().into());
    json.insert("blocks_before".into(), replay.blocks.into());
    json.insert("shortest".into(), shrunk.shortest.into());
    json.insert("cut".into(), shrunk.cut.into());
    json.insert("attempts".into(), shrunk.progress.attempts.into());
    json.insert("states".into(), shrunk.progress.states.into());
    let mut caveats = caveats(&replay.scenario, &mut json);
    let acted = acted_in(&replay.scenario, &shrunk.steps);
    caveats.push_str(&mutated(&replay.scenario, &acted, &mut json));
    if let Some(path) = &args.output {
        json.insert("trace".into(), path.display().to_string().into());
        tail = format!(
            "{name}: {} steps in {} -> {} steps in {}{}\n{caveats}{}\n",
            grouped(schedule.steps.len() as u64),
            block_words(replay.blocks),
            grouped(shrunk.steps.len() as u64),
            block_words(blocks as u64),
            if shrunk.shortest {
                ": none has fewer blocks, nor as many with fewer steps"
            } else if shrunk.cut {
                ", cut by the budget"
            } else {
                "; no step can be dropped"
            },
            path.display()
        );
    } else {
        // The trace goes to standard output, and is nothing but a trace.
        say(caveats.trim_end());
    }
    json.insert("elapsed_s".into(), begun.elapsed().as_secs_f64().into());
    Ok(Report {
        command: "shrink",
        subjects: vec![Subject {
            verdict: Verdict::Violated,
            as_expected: true,
            json,
            text: tail,
        }],
        file,
        ..Report::default()
    })
}
