//! `dirtysim report`: one text that carries everything: the question, the machine, the verdict, the story, the scenario, and how a
//! reader checks it with nothing else.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::check::shrink_budget;
use super::check_args::{parse_bytes, parse_seconds};
use super::replay::{self, ReplayArgs, Told};
use super::schedule::{MAIL, Schedule, check_output, deliver};
use super::spinner::Spinner;
use super::{CliError, CliResult, Global, Report, Subject, interrupted};
use crate::explain::{Story, for_a_mail, op_words};
use crate::import::detect::{Detected, detect_file};
use crate::import::{LogOptions, import_logs};
use crate::letter::{Letter, Part};
use crate::replay::steps;
use crate::scenario::{Scenario, builtin_text};
use crate::search::minimal::minimal;
use crate::search::{self, Options, Reductions};
use crate::trace::{Expect, Header, Kind, TraceReader, enclosed};

/// Arguments of `dirtysim report`.
#[derive(Debug, Args)]
pub(crate) struct LetterArgs {
    /// Scenarios (built-in, or files), traces, or logs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    format: FormatArg,
    /// The file to write; without it, standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Scenarios: bytes for the search, with K, M or G for KiB, MiB or GiB
    #[arg(long, value_name = "B", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    /// Scenarios: stop a search after so many seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    max_time: Option<Duration>,
    /// Logs: entries of a ring
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ring_entries: Option<u32>,
    /// Logs: entries of a ring in reserve: 64, or 576 on x86 with PML
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ring_reserved: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Plain text of 72 columns, for a mail
    Text,
    /// Markdown
    Md,
    /// One HTML file
    Html,
}

pub(super) fn run(args: &LetterArgs, global: &Global) -> CliResult {
    let files: Vec<&Path> = args.files.iter().map(Path::new).collect();
    check_output(args.output.as_deref(), &files)?;
    let mut letter = Letter::default();
    let mut report = Report {
        command: "report",
        many: args.files.len() > 1,
        ..Report::default()
    };
    for name in &args.files {
        if interrupted() {
            report.cut = true;
            break;
        }
        let subject = about(args, name, global, &mut letter)?;
        report.subjects.push(Subject {
            text: String::new(),
            ..subject
        });
    }
    if report.cut {
        return Err(CliError("interrupted; nothing was written".to_owned()));
    }
    letter.parts.push(Part::Head("Made by".to_owned()));
    letter.parts.push(Part::Text(made_by()));
    let text = match args.format {
        FormatArg::Text => letter.text(),
        FormatArg::Md => letter.markdown(),
        FormatArg::Html => letter.html(),
    };
    report.file = deliver(
        text.as_bytes(),
        args.output.as_deref(),
        global,
        "the report",
    )?;
    if let Some(path) = &args.output {
        let path = path.display().to_string();
        report.tail = format!("{path}\n");
        report.extra.insert("output".into(), path.into());
    }
    Ok(report)
}

/// Version and commit, where the build was told.
fn made_by() -> String {
    let commit =
        option_env!("DIRTYSIM_COMMIT").map_or(String::new(), |commit| format!(", commit {commit}"));
    format!(
        "dirtysim {}{commit}: a deterministic simulator and model checker of KVM's dirty logging. `dirtysim help scenarios` has the language of scenarios.",
        env!("CARGO_PKG_VERSION")
    )
}

/// A file's name without its directories: a reader has others.
fn base(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

fn about(
    args: &LetterArgs,
    name: &str,
    global: &Global,
    letter: &mut Letter,
) -> Result<Subject, CliError> {
    let path = Path::new(name);
    if crate::scenario::builtin(name).is_none() && path.is_file() {
        let found = detect_file(path);
        if matches!(found, Ok(Detected::Log(_) | Detected::KvmJsonl)) {
            return of_log(args, path, letter);
        }
        // What opens as a trace is one; a mail that carries a schedule does.
        if let Ok(reader) = TraceReader::open(path) {
            return match reader.header().kind {
                Kind::Step => of_schedule(path, letter),
                Kind::Call | Kind::Observed => of_recording(args, path, name, letter),
            };
        }
        if matches!(found, Ok(Detected::Trace)) {
            TraceReader::open(path)?;
        }
    }
    of_scenario(args, name, global, letter)
}

/// What is asked, by whom, in which order, on which machine.
fn question(scenario: &Scenario, story: &Story, letter: &mut Letter) {
    if !scenario.sentence.is_empty() {
        letter.parts.push(Part::Text(scenario.sentence.clone()));
    }
    let mut fields = vec![("machine".to_owned(), story.machine.clone())];
    if !scenario.origin.is_empty() {
        fields.push(("order from".to_owned(), scenario.origin.clone()));
    }
    let machine = &scenario.machine;
    for (index, program) in machine.programs.iter().enumerate() {
        let who = match machine.programs.len() {
            1 => "the VMM".to_owned(),
            _ => format!("VMM thread {index}"),
        };
        let mut words: Vec<(String, usize)> = Vec::new();
        for op in program {
            let word = op_words(scenario, op);
            match words.last_mut() {
                Some((last, n)) if *last == word => *n += 1,
                _ => words.push((word, 1)),
            }
        }
        let words: Vec<String> = words
            .into_iter()
            .map(|(word, n)| {
                if n == 1 {
                    word
                } else {
                    format!("{word} ({n}x)")
                }
            })
            .collect();
        fields.push((who, words.join("; ")));
    }
    for scaled in &scenario.scaled {
        fields.push(("scaled".to_owned(), scaled.clone()));
    }
    if let Some(claims) = scenario.chosen_claims() {
        fields.push(("judged by".to_owned(), claims.join(", ")));
    }
    letter.parts.push(Part::Fields(fields));
}

/// The lines of a verdict, without what is said of traces on this machine.
fn verdict_lines(text: &str) -> Vec<String> {
    text.lines()
        .skip(1)
        .map(str::trim)
        // What the machine's lines say already, and what is about this machine's files.
        .filter(|line| {
            let told = ["trace: ", "no trace: ", "scaled: ", "judged by: "];
            !told.iter().any(|begin| line.starts_with(begin))
        })
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn how_to_check(replays: bool, letter: &mut Letter) {
    letter.parts.push(Part::Head("To check this".to_owned()));
    letter.parts.push(Part::Text(format!(
        "Save this text as {MAIL}, quoted or not; everything that is needed stands between the marks. Then, with nothing else:"
    )));
    let mut lines = vec![format!(
        "dirtysim check {MAIL}       # every interleaving within the bounds"
    )];
    if replays {
        lines.push(format!(
            "dirtysim replay {MAIL}      # the schedule below, step by step"
        ));
        lines.push(format!("dirtysim explain {MAIL}     # its story"));
    }
    letter.parts.push(Part::Verbatim(lines.join("\n")));
}

fn of_scenario(
    args: &LetterArgs,
    name: &str,
    global: &Global,
    letter: &mut Letter,
) -> Result<Subject, CliError> {
    let scenario = Scenario::find(name)?;
    let begun = Instant::now();
    let options = Options {
        max_states: None,
        max_memory_bytes: args.max_memory,
        max_time: args.max_time,
        keep_going: false,
        counterexample: true,
        reductions: Reductions::ALL,
    };
    let spinner = Spinner::new(&scenario.name, begun, &options);
    let outcome = search::check(&scenario, &options, &|progress| {
        spinner.show(progress);
        !interrupted()
    })?;
    let instance = search::instance(&scenario, &outcome);
    let scenario = instance.unwrap_or(scenario);
    let shortest = outcome.violation.as_ref().and_then(|violation| {
        minimal(&scenario, violation, shrink_budget(&options), &|done| {
            spinner.show_shrinking(done);
            !interrupted()
        })
    });
    drop(spinner);
    let elapsed_s = begun.elapsed().as_secs_f64();
    let subject = super::check::subject(&scenario, &outcome, shortest.as_ref(), elapsed_s, global)?;
    letter.title(subject.text.lines().next().unwrap_or_default());
    let steps = shortest.as_ref().map_or(&[][..], |found| &found.steps);
    let target = outcome.violation.as_ref().map(|found| found.invariant);
    let story = Story::new(&scenario, steps, target, String::new())?;
    question(&scenario, &story, letter);
    letter.parts.push(Part::Head("The verdict".to_owned()));
    let lines = verdict_lines(&subject.text);
    letter.parts.push(Part::List(
        lines
            .into_iter()
            .filter(|line| *line != scenario.sentence)
            .collect(),
    ));
    if !steps.is_empty() {
        letter.parts.push(Part::Head("What happens".to_owned()));
        letter.parts.push(Part::Verbatim(for_a_mail(&story)));
    }
    how_to_check(!steps.is_empty(), letter);
    let toml = builtin_text(name).map(str::to_owned).or_else(|| {
        // A mail that carries a scenario is no scenario itself.
        std::fs::read_to_string(name)
            .ok()
            .filter(|text| crate::scenario::enclosed::scenario(text).is_none())
    });
    letter
        .parts
        .push(Part::Verbatim(crate::scenario::enclosed::write_scenario(
            &scenario.source,
            toml.as_deref(),
        )));
    if let (Some(found), false) = (&outcome.violation, steps.is_empty()) {
        let mut header = Header::new(Kind::Step);
        header.expect = Some(Expect::Violated(found.invariant.name().to_owned()));
        header.found_by = Some("exhaustive search".to_owned());
        let rows = steps::rows(&scenario, steps)?;
        letter
            .parts
            .push(Part::Verbatim(enclosed::write_schedule(&header, &rows)));
    }
    Ok(subject)
}

fn of_schedule(path: &Path, letter: &mut Letter) -> Result<Subject, CliError> {
    let schedule = Schedule::load(path, None, "report")?;
    let scenario = &schedule.replay.scenario;
    let story = Story::new(scenario, &schedule.steps, schedule.target(), String::new())?;
    let mut subject = replay::one(&ReplayArgs::of(path), path)?;
    let first = subject.text.lines().next().unwrap_or_default();
    let verdict = first
        .strip_prefix(&path.display().to_string())
        .unwrap_or(first);
    letter.title(&format!("{}{verdict}", scenario.name));
    question(scenario, &story, letter);
    letter.parts.push(Part::Head("The verdict".to_owned()));
    letter.parts.push(Part::List(verdict_lines(&subject.text)));
    letter.parts.push(Part::Text(
        "This is one schedule: that others lose nothing is not said.".to_owned(),
    ));
    letter.parts.push(Part::Head("What happens".to_owned()));
    letter.parts.push(Part::Verbatim(for_a_mail(&story)));
    how_to_check(true, letter);
    letter.parts.push(Part::Verbatim(schedule.enclosed(None)?));
    subject
        .json
        .insert("trace".into(), path.display().to_string().into());
    Ok(subject)
}

fn of_recording(
    args: &LetterArgs,
    path: &Path,
    name: &str,
    letter: &mut Letter,
) -> Result<Subject, CliError> {
    let mut wanted = ReplayArgs::of(path);
    wanted.ring_entries = args.ring_entries;
    wanted.ring_reserved = args.ring_reserved;
    let (subject, told) = replay::told(&wanted, path)?;
    findings(&subject, &told, base(name), letter);
    Ok(subject)
}

/// A log as it is: imported, and then as a trace.
fn of_log(args: &LetterArgs, path: &Path, letter: &mut Letter) -> Result<Subject, CliError> {
    let name = path.display().to_string();
    let mut file = tempfile::NamedTempFile::new()?;
    if let Ok(Detected::KvmJsonl) = detect_file(path) {
        let input = std::io::BufReader::new(std::fs::File::open(path)?);
        crate::import::import_kvm_jsonl(input, &name, None, &mut file)?;
    } else {
        let options = LogOptions {
            check: crate::observed::CheckConfig {
                ring_entries: args.ring_entries,
                ring_reserved: args.ring_reserved,
                page_size: None,
            },
            ..LogOptions::default()
        };
        import_logs(
            vec![(name.clone(), std::fs::File::open(path)?)],
            &mut file,
            &options,
        )?;
    }
    let (mut subject, told) = replay::told(&ReplayArgs::of(file.path()), file.path())?;
    findings(&subject, &told, base(&name), letter);
    subject.json.insert("trace".into(), name.into());
    Ok(subject)
}

/// What a replay of a recording or a log says.
fn findings(subject: &Subject, told: &Told, shown: &str, letter: &mut Letter) {
    letter.title(&format!("{shown}: {}", told.verdict));
    letter.parts.push(Part::Head("What was found".to_owned()));
    let found = told.found.iter().map(|line| line.trim().to_owned());
    letter.parts.push(Part::List(found.collect()));
    if !told.unknown.is_empty() {
        letter
            .parts
            .push(Part::Head("What is not known".to_owned()));
        let unknown = told.unknown.iter();
        let lines = unknown.map(|(what, help)| format!("{what}. To know it: {help}"));
        letter.parts.push(Part::List(lines.collect()));
    }
    letter.parts.push(Part::Head("To check this".to_owned()));
    letter.parts.push(Part::Text(
        "The log itself is too long for a mail; with it:".to_owned(),
    ));
    let command = match subject.json.get("kind").and_then(Value::as_str) {
        Some("observed") => format!(
            "dirtysim import {shown} -o log.trace.jsonl\ndirtysim replay log.trace.jsonl\ndirtysim page {shown} PAGE    # what became of a page"
        ),
        _ => format!("dirtysim replay {shown}"),
    };
    letter.parts.push(Part::Verbatim(command));
}
