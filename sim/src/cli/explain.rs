//! `dirtysim explain`: the story of the lost page.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Map;

use super::report::{caveats, mutated, say};
use super::schedule::{MAIL, Schedule, deliver, unread};
use super::{CliError, CliResult, Global, Report, interrupted};
use crate::explain::what_if::{MOST_STEPS, Question};
use crate::explain::{Aboard, Format, Story, page, reproduce};
use crate::mutated::acted_in;
use crate::search::liveness::Endless;

/// What `what-if/` is called when it is built.
const MODULE: &str = "dirtysim_what_if.wasm";

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
    /// HTML: the model for the page, by which its reader tries other steps [default: dirtysim_what_if.wasm beside the program]
    #[arg(long, value_name = "FILE")]
    what_if: Option<PathBuf>,
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

/// The model for a page: the file that was given, or what lies beside the program; none is told in a line.
fn module(given: Option<&Path>) -> Result<Option<Vec<u8>>, CliError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => match beside_the_program() {
            Some(path) => path,
            None => {
                say(&format!(
                    "note: a page without \"what if\": there is no {MODULE} beside the program; `cargo build -p dirtysim-what-if --profile what-if --target wasm32-unknown-unknown` makes it (docs/tutorial.md)"
                ));
                return Ok(None);
            }
        },
    };
    let wasm = std::fs::read(&path)
        .map_err(|error| CliError(format!("{}: cannot read: {error}", path.display())))?;
    let exports = |name: &[u8]| wasm.windows(name.len()).any(|at| at == name);
    if !wasm.starts_with(b"\0asm") || !exports(b"dirtysim_answer") {
        return Err(CliError(format!(
            "{}: not dirtysim's model for a page\nhelp: `cargo build -p dirtysim-what-if --profile what-if --target wasm32-unknown-unknown` makes it, as {MODULE}",
            path.display()
        )));
    }
    Ok(Some(wasm))
}

/// The module in the program's own folder, or where cargo puts it when it builds both.
fn beside_the_program() -> Option<PathBuf> {
    let folder = std::env::current_exe().ok()?.parent()?.to_owned();
    let built = folder
        .join("../wasm32-unknown-unknown/what-if")
        .join(MODULE);
    [folder.join(MODULE), built]
        .into_iter()
        .find(|path| path.is_file())
}

pub(super) fn run(args: &ExplainArgs, global: &Global) -> CliResult {
    let name = args.trace.display().to_string();
    if args.what_if.is_some() && args.format != FormatArg::Html {
        return Err(CliError(
            "--what-if is for a page\nhelp: add --format html, or leave --what-if away".to_owned(),
        ));
    }
    let schedule = match Schedule::load(&args.trace, args.output.as_deref(), "explain") {
        Err(_) if interrupted() => return Ok(unread("explain", &args.trace)),
        loaded => loaded?,
    };
    let replay = &schedule.replay;
    if args.format == FormatArg::Html && schedule.steps.len() > MOST_STEPS {
        return Err(CliError(format!(
            "{name}: {} steps; an HTML page holds at most {MOST_STEPS}\nhelp: `dirtysim shrink` makes the schedule short first",
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
    let text = match args.format {
        FormatArg::Html => {
            let wasm = module(args.what_if.as_deref())?;
            let question = Question::new(&replay.scenario, &schedule.steps, story.invariant);
            let aboard = wasm.as_deref().map(|wasm| Aboard { wasm, question });
            page(&story, aboard.as_ref())
        }
        _ => args.format.format().tell(&story),
    };
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
