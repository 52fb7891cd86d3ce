//! `dirtysim explain`: the story of the lost page.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Map;

use super::report::{caveats, mutated};
use super::schedule::{MAIL, Schedule, deliver};
use super::{CliError, CliResult, Global, Report};
use crate::explain::{Format, Story, reproduce};
use crate::mutated::acted_in;
use crate::search::liveness::Endless;

/// Steps that an HTML page can hold.
const MOST_HTML_STEPS: usize = 5_000;

/// Arguments of `dirtysim explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A trace of kind `step`; `dirtysim shrink` makes it short first
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// How the story is told
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    format: FormatArg,
    /// The file to write; without it, standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// For a terminal
    Text,
    /// Plain text of at most 72 columns, for a mail
    Lkml,
    /// One HTML file: lanes, and a slider through the steps
    Html,
    /// Chrome trace events, for Perfetto
    Perfetto,
}

impl FormatArg {
    fn format(self) -> Format {
        match self {
            Self::Text => Format::Text,
            Self::Lkml => Format::Lkml,
            Self::Html => Format::Html,
            Self::Perfetto => Format::Perfetto,
        }
    }
}

pub(super) fn run(args: &ExplainArgs, global: &Global) -> CliResult {
    let name = args.trace.display().to_string();
    let schedule = Schedule::load(&args.trace, args.output.as_deref(), "explain")?;
    let replay = &schedule.replay;
    if args.format == FormatArg::Html && schedule.steps.len() > MOST_HTML_STEPS {
        return Err(CliError(format!(
            "{name}: {} steps; an HTML page holds at most {MOST_HTML_STEPS}\nhelp: `dirtysim shrink` makes the schedule short first",
            schedule.steps.len()
        )));
    }
    let found_by = schedule.header.found_by.as_deref();
    // A mail carries what its reader needs, and no path of its writer's machine.
    let mail = args.format == FormatArg::Lkml;
    let again = if mail {
        format!("dirtysim replay {MAIL}")
    } else {
        reproduce(&replay.scenario, found_by, &name)
    };
    let mut story = Story::new(&replay.scenario, &schedule.steps, schedule.target(), again)?;
    if mail {
        story.enclosed = Some(schedule.enclosed(None)?);
    }
    if let Some((cycle, kind, Ok(()))) = replay.cycle {
        let last = story.notes.len();
        let but = match kind {
            Endless::WithoutProgress => "bring nothing on",
            Endless::WithoutEnd => "bring nobody to the end that is waited for",
        };
        story.conclusion.push(format!(
            "Steps {} to {last} lead back to where they began, and {but}: they can go on for ever, and nobody who can act throughout is left out.",
            last - cycle + 1
        ));
        let throughout = story.waiting.iter().filter(|w| w.since <= last - cycle);
        let sentences: Vec<String> = throughout.map(|w| w.sentence.clone()).collect();
        story.conclusion.extend(sentences);
    }
    let text = args.format.format().tell(&story);
    let file = deliver(text.as_bytes(), args.output.as_deref(), global, "the story")?;
    let mut tail = String::new();
    let mut extra = Map::new();
    // The story tells them too, in each of its formats.
    caveats(&replay.scenario, &mut extra);
    let acted = acted_in(&replay.scenario, &schedule.steps);
    mutated(&replay.scenario, &acted, &mut extra);
    extra.insert("scenario".into(), story.scenario.clone().into());
    let verdict = if story.invariant.is_some() {
        "violated"
    } else {
        "holds"
    };
    extra.insert("verdict".into(), verdict.into());
    if let Some(invariant) = story.invariant {
        extra.insert("invariant".into(), invariant.name().into());
    }
    if let Some(page) = story.pages.first() {
        extra.insert("page".into(), page.clone().into());
    }
    extra.insert("steps".into(), story.notes.len().into());
    extra.insert("blocks".into(), story.blocks.into());
    if let Some(written) = story.written {
        extra.insert("written_step".into(), written.into());
    }
    if let Some(dropped) = story.dropped {
        extra.insert("dropped_step".into(), dropped.into());
    }
    extra.insert("conclusion".into(), story.conclusion.clone().into());
    if let Some(path) = &args.output {
        extra.insert("output".into(), path.display().to_string().into());
        tail = format!("{}\n", path.display());
    }
    Ok(Report {
        command: "explain",
        extra,
        tail,
        file,
        ..Report::default()
    })
}
