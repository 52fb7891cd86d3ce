//! `dirtysim import`: other tools' logs into traces.

use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::input::Input;
use super::kind::{self, Wanted};
use super::report::{grouped, say};
use super::schedule::check_output;
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted};
use crate::import::detect::{Detected, LogKind, detect_file};
use crate::import::{ImportError, ImportSummary, LogOptions, import_kvm_jsonl, import_logs};
use crate::observed::{CheckConfig, Weight};
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
    if global.json && args.output.is_none() {
        return Err(CliError(
            "--json needs -o: the trace itself goes to standard output".to_owned(),
        ));
    }
    check_output(args.output.as_deref(), &args.logs)?;
    let raw = match args.from {
        Some(from) => from == From::KvmJsonl,
        // A file that cannot be read is reported by whoever reads it whole.
        None => matches!(detect_file(&args.logs[0]), Ok(Detected::KvmJsonl)),
    };
    let result = if raw { raw_recording(args) } else { logs(args) };
    // What was not read to its end is no trace, whatever the importer says of it.
    if result.is_err() && interrupted() {
        say("interrupted; no trace was written");
        let json = Map::from_iter([("limit".to_owned(), "interrupted".into())]);
        return Ok(judged(Verdict::Inconclusive, json, String::new()));
    }
    result
}

/// A report with a verdict. An import expects nothing but that the contract was kept.
fn judged(verdict: Verdict, mut keys: Map<String, Value>, text: String) -> Report {
    let mut json = Map::from_iter([("verdict".to_owned(), verdict.name().into())]);
    json.append(&mut keys);
    Report {
        command: "import",
        subjects: vec![Subject {
            verdict,
            as_expected: false,
            json,
            text,
        }],
        ..Report::default()
    }
}

/// Where a trace goes: to its file, or whole to standard output, so that what is wrong late in a log leaves no half of a trace.
enum Output {
    File(PendingFile),
    Stdout(File),
}

impl Output {
    fn open(args: &ImportArgs) -> Result<Self, ImportError> {
        Ok(match &args.output {
            Some(path) => Self::File(PendingFile::create(path)?),
            None => Self::Stdout(tempfile::tempfile()?),
        })
    }

    fn keep(self) -> Result<(), CliError> {
        match self {
            Self::File(file) => file.keep().map_err(ImportError::Write)?,
            Self::Stdout(mut whole) => {
                whole.rewind()?;
                io::copy(&mut whole, &mut io::stdout().lock())?;
            }
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(whole) => whole.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(whole) => whole.flush(),
        }
    }
}

fn open_log(path: &Path) -> Result<Input, CliError> {
    Input::open(path).map_err(|error| {
        CliError(format!(
            "{}: cannot read: {error}\nhelp: check the path of the log",
            path.display()
        ))
    })
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
    let mut inputs = Vec::new();
    for log in &args.logs {
        inputs.push((log.display().to_string(), open_log(log)?));
    }
    let mut out = Output::open(args)?;
    let summary = import_logs(inputs, &mut out, &options)?;
    let mut text = summary.to_string();
    if let Some(path) = &args.output {
        text.push_str(&format!("trace: {}\n", path.display()));
    }
    let defects = summary.check.count(Weight::Defect);
    if defects > 0 {
        text.push_str(&format!(
            "the contract of KVM's rings was broken: {} (exit code 1)\n",
            summary.check.weights_in_words()
        ));
    }
    if args.output.is_none() {
        say(std::mem::take(&mut text).trim_end());
    }
    out.keep()?;
    let mut json = Map::new();
    if let Value::Object(document) = serde_json::to_value(&summary)? {
        json.extend(document);
    }
    if let Some(path) = &args.output {
        json.insert("trace".into(), path.display().to_string().into());
    }
    if defects > 0 {
        return Ok(judged(Verdict::Violated, json, text));
    }
    Ok(Report {
        command: "import",
        extra: json,
        tail: text,
        ..Report::default()
    })
}

fn raw_recording(args: &ImportArgs) -> CliResult {
    let [log] = args.logs.as_slice() else {
        return Err(CliError(
            "kvm-jsonl takes one recording at a time".to_owned(),
        ));
    };
    let name = log.display().to_string();
    let input = BufReader::new(open_log(log)?);
    let mut out = Output::open(args)?;
    let summary = import_kvm_jsonl(input, &name, args.address_spaces, &mut out)?;
    out.keep()?;
    let mut report = Report {
        command: "import",
        ..Report::default()
    };
    let mut extra = Map::new();
    extra.insert("calls".into(), summary.calls.into());
    extra.insert("sections".into(), summary.sections.into());
    extra.insert("unknown".into(), serde_json::to_value(&summary.unknown)?);
    extra.insert("missing_rows".into(), summary.missing.into());
    let left_out = left_out(&summary);
    if let Some(path) = &args.output {
        extra.insert("trace".into(), path.display().to_string().into());
        report.tail = format!(
            "{name}: {} calls in {} sections -> {}\n",
            grouped(summary.calls),
            summary.sections,
            path.display()
        );
        report.tail.push_str(&left_out);
    } else {
        say(left_out.trim_end());
    }
    report.extra = extra;
    Ok(report)
}

/// What of a recording is not in its trace, in lines.
fn left_out(summary: &ImportSummary) -> String {
    let mut text = String::new();
    if !summary.unknown.is_empty() {
        let words: Vec<String> = summary
            .unknown
            .iter()
            .map(|(word, rows)| format!("{word} ({})", grouped(*rows)))
            .collect();
        text.push_str(&format!(
            "  left out, because import does not know these words (rows): {}\n",
            words.join(", ")
        ));
    }
    if summary.missing > 0 {
        text.push_str(&format!(
            "  missing by the recording's own numbers: {} rows\n",
            grouped(summary.missing)
        ));
    }
    if !text.is_empty() {
        text.push_str("  what depends on them is in the trace, and a replay does not compare it\n");
    }
    text
}
