//! `dirtysim distil`: a small scenario from a log.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::log::events_of;
use super::page::read_names;
use super::schedule::{check_output, deliver};
use super::{CliError, CliResult, Global, Report};
use crate::distil::{Distilled, Distiller};
use crate::observed::CheckConfig;
use crate::page::names::{Memory, Named};
use crate::scenario::{Scenario, check_name};
use crate::trace::observed::ObservedEvent;

/// Arguments of `dirtysim distil`.
#[derive(Debug, Args)]
pub(crate) struct DistilArgs {
    /// A log, or the trace that it was imported to
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// The pages that it is about, one a line, as `dirtysim page` takes them; without, those that were pushed most
    #[arg(long, value_name = "FILE")]
    pages: Option<PathBuf>,
    /// The scenario's name
    #[arg(long, value_name = "NAME", default_value = "distilled")]
    name: String,
    /// The VM that is wanted: its process, or all of its threads
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// The file to write; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The scenario that a log shows, about these pages.
pub(super) fn distil(
    log: &std::path::Path,
    pids: &[u32],
    name: &str,
    wanted: &[Named],
) -> Result<(Distilled, Scenario), CliError> {
    let file = log.display().to_string();
    check_name(name).map_err(|why| CliError(format!("the name `{name}`\nhelp: {why}")))?;
    let Some(reader) = events_of(log, pids, CheckConfig::default())? else {
        super::kind::check(log, super::kind::Wanted::Log)?;
        return Err(CliError(format!(
            "{file}: not a log, and not a trace of one\nhelp: give the log of ftrace, perf or QEMU, or the trace that `dirtysim import` made of it"
        )));
    };
    let mut distiller = Distiller::new(reader.header());
    for row in reader.rows::<ObservedEvent>()? {
        distiller.event(&row?.row);
    }
    let distilled = distiller
        .finish(name, wanted)
        .map_err(|problem| CliError(format!("{file}: {problem}")))?;
    // What is given to somebody is right.
    let scenario = Scenario::from_toml(&format!("{file}, distilled"), &distilled.toml)?;
    Ok((distilled, scenario))
}

pub(super) fn run(args: &DistilArgs, global: &Global) -> CliResult {
    check_output(args.output.as_deref(), &[&args.log])?;
    let wanted = match &args.pages {
        Some(path) => read_names(path, Memory::default())?,
        None => Vec::new(),
    };
    let (distilled, scenario) = distil(&args.log, &args.pid, &args.name, &wanted)?;
    let file = deliver(
        distilled.toml.as_bytes(),
        args.output.as_deref(),
        global,
        "the scenario",
    )?;
    let mut extra = Map::new();
    extra.insert("scenario".into(), scenario.name.into());
    let map: Vec<Value> = distilled
        .map
        .iter()
        .map(|(small, real)| json!({ "page": small, "stands_for": real }))
        .collect();
    extra.insert("pages".into(), map.into());
    extra.insert("assumed".into(), distilled.assumed.into());
    let mut tail = String::new();
    if let Some(path) = &args.output {
        let path = path.display().to_string();
        tail = format!("{path}: look at its order, then `dirtysim check {path}`\n");
        extra.insert("output".into(), path.into());
    }
    Ok(Report {
        command: "distil",
        extra,
        tail,
        file,
        ..Report::default()
    })
}
