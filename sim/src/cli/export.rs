//! `dirtysim export`: a recording, or a schedule, as one C file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Map;

use super::kind::{self, Wanted};
use super::schedule::{Schedule, check_output, deliver, unread};
use super::{CliError, CliResult, Global, Report, interrupted};
use crate::explain::Story;
use crate::reproducer::{ExportError, schedule_to_c, to_c};
use crate::trace::{Kind, TraceReader};

/// Arguments of `dirtysim export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A recording (a trace of kind `call`), or a schedule of the simulator (kind `step`) whose steps a VMM can make happen
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// What it becomes
    #[arg(long, value_enum, default_value_t = To::C)]
    to: To,
    /// Recordings: only these sections
    #[arg(long, value_name = "NAME")]
    section: Vec<String>,
    /// The file to write; without it, standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// One C file that needs a compiler and /dev/kvm
    C,
}

pub(super) fn run(args: &ExportArgs, global: &Global) -> CliResult {
    let name = args.trace.display().to_string();
    check_output(args.output.as_deref(), &[&args.trace])?;
    kind::check(&args.trace, Wanted::Trace)?;
    let reader = TraceReader::open(&args.trace)?;
    let header = reader.header().clone();
    let file = args
        .trace
        .file_name()
        .map_or_else(|| name.clone(), |file| file.to_string_lossy().into_owned());
    let To::C = args.to;
    let text = match header.kind {
        Kind::Call => {
            to_c(&header, reader.rows()?, &file, &args.section).map_err(|error| match error {
                ExportError::Trace(error) => CliError(error.to_string()),
                error => CliError(format!("{name}: {error}")),
            })?
        }
        Kind::Step if !args.section.is_empty() => {
            return Err(CliError(format!(
                "{name}: a schedule has no sections\nhelp: leave --section away"
            )));
        }
        Kind::Step => {
            let schedule = match Schedule::load(&args.trace, args.output.as_deref(), "export") {
                Err(_) if interrupted() => return Ok(unread("export", &args.trace)),
                loaded => loaded?,
            };
            let scenario = &schedule.replay.scenario;
            let story = Story::new(scenario, &schedule.steps, schedule.target(), String::new())?;
            schedule_to_c(scenario, &schedule.steps, &story, &file).map_err(|unforced| {
                CliError(format!(
                    "{name}: {}\nhelp: {}",
                    unforced.problem, unforced.help
                ))
            })?
        }
        Kind::Observed => {
            return Err(CliError(format!(
                "{name}: a trace of kind `{}`\nhelp: give a recording (kind `call`), such as `dirtysim-witness record` makes, or a schedule (kind `step`), such as `dirtysim check` writes; what a log observed leaves too much open",
                header.kind
            )));
        }
    };
    let file = deliver(
        text.as_bytes(),
        args.output.as_deref(),
        global,
        "the C file",
    )?;
    let mut extra = Map::new();
    extra.insert("trace".into(), name.into());
    extra.insert("lines".into(), text.lines().count().into());
    let mut tail = String::new();
    if let Some(path) = &args.output {
        let path = path.display().to_string();
        tail = format!("{path}: `gcc -Wall -O1 -o reproducer {path} && ./reproducer`\n");
        extra.insert("output".into(), path.into());
    }
    Ok(Report {
        command: "export",
        extra,
        tail,
        file,
        ..Report::default()
    })
}
