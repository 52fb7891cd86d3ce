//! `dirtysim export`: a recording as one C file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Map;

use super::kind::{self, Wanted};
use super::schedule::{check_output, deliver};
use super::{CliError, CliResult, Global, Report};
use crate::reproducer::{ExportError, to_c};
use crate::trace::{Kind, TraceReader};

/// Arguments of `dirtysim export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A recording: a trace of kind `call`
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// What it becomes
    #[arg(long, value_enum, default_value_t = To::C)]
    to: To,
    /// Only these sections of the recording
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
    if header.kind != Kind::Call {
        return Err(CliError(format!(
            "{name}: a trace of kind `{}`\nhelp: only calls that a VMM makes can be written as C: give a recording (kind `call`), such as `dirtysim-witness record` makes; steps inside the kernel cannot be forced from outside",
            header.kind
        )));
    }
    let file = args
        .trace
        .file_name()
        .map_or_else(|| name.clone(), |file| file.to_string_lossy().into_owned());
    let To::C = args.to;
    let text =
        to_c(&header, reader.rows()?, &file, &args.section).map_err(|error| match error {
            ExportError::Trace(error) => CliError(error.to_string()),
            error => CliError(format!("{name}: {error}")),
        })?;
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
