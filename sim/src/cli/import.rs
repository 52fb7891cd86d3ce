//! `dirtysim import`: other tools' logs into traces.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Map;

use super::report::grouped;
use super::{CliError, CliResult, Global, Report};
use crate::import::import_kvm_jsonl;
use crate::trace::PendingFile;

/// Arguments of `dirtysim import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Logs
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// What wrote them
    #[arg(long, value_enum)]
    from: From,
    /// The trace to write; without it, standard output
    #[arg(short, long, value_name = "TRACE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// Raw recordings of KVM's calls, one JSON object a line
    KvmJsonl,
}

pub(super) fn run(args: &ImportArgs, global: &Global) -> CliResult {
    let [log] = args.logs.as_slice() else {
        return Err(CliError(
            "kvm-jsonl takes one recording at a time".to_owned(),
        ));
    };
    let name = log.display().to_string();
    let file =
        File::open(log).map_err(|error| CliError(format!("{name}: cannot read: {error}")))?;
    let input = BufReader::new(file);
    let mut report = Report {
        command: "import",
        ..Report::default()
    };
    let summary = match &args.output {
        Some(path) => {
            let cannot = |error: &dyn std::fmt::Display| {
                CliError(format!("{}: cannot be written: {error}", path.display()))
            };
            let mut out = PendingFile::create(path).map_err(|error| cannot(&error))?;
            let summary = import_kvm_jsonl(input, &name, &mut out)?;
            out.flush().map_err(|error| cannot(&error))?;
            out.keep().map_err(|error| cannot(&error))?;
            summary
        }
        None if global.json => {
            return Err(CliError(
                "--json needs -o: the trace itself goes to standard output".to_owned(),
            ));
        }
        None => {
            // Whole or not at all: what is wrong late in a log must not leave half a trace on a pipe.
            let mut out = Vec::new();
            let summary = import_kvm_jsonl(input, &name, &mut out)?;
            report.tail = String::from_utf8_lossy(&out).into_owned();
            summary
        }
    };
    let mut extra = Map::new();
    extra.insert("calls".into(), summary.calls.into());
    extra.insert("sections".into(), summary.sections.into());
    if let Some(path) = &args.output {
        extra.insert("trace".into(), path.display().to_string().into());
        report.tail = format!(
            "{name}: {} calls in {} sections -> {}\n",
            grouped(summary.calls),
            summary.sections,
            path.display()
        );
    }
    report.extra = extra;
    Ok(report)
}
