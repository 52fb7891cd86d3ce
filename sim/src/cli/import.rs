//! `dirtysim import`: other tools' logs into traces.

use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Map;

use super::kind::{self, Wanted};
use super::report::{grouped, say};
use super::{CliError, CliResult, Global, Report};
use crate::import::detect::{Detected, LogKind, detect_file};
use crate::import::{LogOptions, import_kvm_jsonl, import_log_files, import_logs};
use crate::observed::CheckConfig;
use crate::trace::PendingFile;

/// Arguments of `dirtysim import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Logs; several are merged by time, which takes one clock
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// What wrote them; without it, their first lines say
    #[arg(long, value_enum)]
    from: Option<From>,
    /// The VM that is wanted: its process, or all of its threads
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Entries of a ring, for the checks of overflow and of the soft limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ring_entries: Option<u32>,
    /// Entries of a ring in reserve: 64, or 576 on x86 with PML
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ring_reserved: Option<u32>,
    /// The host's page size, for the checks of ranges
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(4096..=65_536))]
    page_size: Option<u64>,
    /// kvm-jsonl: address spaces of the recorded VMs, where not the architecture's usual number (x86 without SMM: 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2))]
    address_spaces: Option<u32>,
    /// The trace to write; without it, standard output
    #[arg(short, long, value_name = "TRACE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// Raw recordings of KVM's calls, one JSON object a line
    KvmJsonl,
    /// ftrace's text, or trace-cmd report's
    Ftrace,
    /// perf script's text
    Perf,
    /// QEMU's trace log
    Qemu,
}

impl From {
    fn log_kind(self) -> Option<LogKind> {
        match self {
            Self::KvmJsonl => None,
            Self::Ftrace => Some(LogKind::Ftrace),
            Self::Perf => Some(LogKind::Perf),
            Self::Qemu => Some(LogKind::Qemu),
        }
    }
}

pub(super) fn run(args: &ImportArgs, global: &Global) -> CliResult {
    if args.from.is_none() {
        for log in &args.logs {
            kind::check(log, Wanted::Log)?;
        }
    }
    let raw = match args.from {
        Some(from) => from == From::KvmJsonl,
        // A file that cannot be read is reported by whoever reads it whole.
        None => matches!(detect_file(&args.logs[0]), Ok(Detected::KvmJsonl)),
    };
    if global.json && args.output.is_none() {
        return Err(CliError(
            "--json needs -o: the trace itself goes to standard output".to_owned(),
        ));
    }
    if raw { raw_recording(args) } else { logs(args) }
}

fn logs(args: &ImportArgs) -> CliResult {
    let options = LogOptions {
        from: args.from.and_then(From::log_kind),
        pids: args.pid.clone(),
        check: CheckConfig {
            ring_entries: args.ring_entries,
            ring_reserved: args.ring_reserved,
            page_size: args.page_size,
        },
        title: None,
    };
    let mut report = Report {
        command: "import",
        ..Report::default()
    };
    let Some(path) = &args.output else {
        // Whole or not at all: what is wrong late in a log must not leave half a trace on a pipe.
        let mut whole = tempfile::tempfile()?;
        let mut inputs = Vec::new();
        for log in &args.logs {
            let name = log.display().to_string();
            let input = File::open(log)
                .map_err(|error| CliError(format!("{name}: cannot read: {error}")))?;
            inputs.push((name, input));
        }
        let summary = import_logs(inputs, &mut whole, &options)?;
        whole.rewind()?;
        say(summary.to_string().trim_end());
        io::copy(&mut whole, &mut io::stdout().lock())?;
        return Ok(report);
    };
    let summary = import_log_files(&args.logs, path, &options)?;
    if let serde_json::Value::Object(document) = serde_json::to_value(&summary)? {
        report.extra = document;
    }
    report
        .extra
        .insert("trace".into(), path.display().to_string().into());
    report.tail = format!("{summary}trace: {}\n", path.display());
    Ok(report)
}

fn raw_recording(args: &ImportArgs) -> CliResult {
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
            let summary = import_kvm_jsonl(input, &name, args.address_spaces, &mut out)?;
            out.flush().map_err(|error| cannot(&error))?;
            out.keep().map_err(|error| cannot(&error))?;
            summary
        }
        None => {
            // Whole or not at all: what is wrong late in a log must not leave half a trace on a pipe.
            let mut out = Vec::new();
            let summary = import_kvm_jsonl(input, &name, args.address_spaces, &mut out)?;
            report.file = String::from_utf8_lossy(&out).into_owned();
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
