//! `dirtysim page`: every event of a page in a log or a trace, and what became of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use dirtysim_model::words::HostPage;
use serde_json::{Map, Value, json};

use super::kind::{self, Wanted};
use super::log::events_of;
use super::report::grouped;
use super::schedule::Schedule;
use super::{CliError, CliResult, Global, Report};
use crate::blame::page_of;
use crate::explain::Story;
use crate::import::detect::{Detected, detect_file};
use crate::observed::CheckConfig;
use crate::page::log::Follower;
use crate::page::names::{Memory, Named, PagesError, parse, read_list};
use crate::page::{Fate, calls};
use crate::trace::observed::ObservedEvent;
use crate::trace::{Kind, TraceReader};

/// Pages that are told, at most, of a schedule or a recording: each takes a pass.
const MOST_PAGES: usize = 10_000;

/// Events that are printed of a page, unless `--limit` says otherwise.
const SHOWN: usize = 200;

/// Arguments of `dirtysim page`.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// A log, or a trace of any kind
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// Pages: 0x545a4 or `gfn 345508`, `gpa 0x545a4000`, 0:0x545a4 (memslot:offset; of a scenario, ram:3)
    #[arg(value_name = "PAGE", required_unless_present = "pages")]
    page: Vec<String>,
    /// A list of pages, one a line, also as `cmp -l` of two dumps prints them: a table, the worst first
    #[arg(long, value_name = "FILE")]
    pages: Option<PathBuf>,
    /// The guest address of the first byte of the dumps that `cmp -l` compared
    #[arg(long, value_name = "GPA", default_value = "0", value_parser = address)]
    base: u64,
    /// Logs: the VM that is wanted: its process, or all of its threads
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Entries of a ring, so that one that was overwritten is seen
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ring_entries: Option<u32>,
    /// The host's page size
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(4096..=65_536))]
    page_size: Option<u64>,
    /// Events of a page, or pages of a table, that are printed, at most; the JSON document has more
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    limit: usize,
}

fn address(text: &str) -> Result<u64, String> {
    crate::page::names::number(text)
        .filter(|_| !text.is_empty())
        .ok_or_else(|| "not an address: write 0x40000000, or a number of bytes".to_owned())
}

/// What is told of a page, whatever it was found in.
struct Told {
    name: String,
    fate: Fate,
    sentence: String,
    total: u64,
    /// Line, who, what.
    events: Vec<(String, String, String)>,
    json: Map<String, Value>,
}

impl PageArgs {
    fn config(&self) -> CheckConfig {
        CheckConfig {
            ring_entries: self.ring_entries,
            ring_reserved: None,
            page_size: self.page_size,
        }
    }

    /// The pages that are asked for, in the order in which they were named.
    fn names(&self, page_size: u64) -> Result<Vec<Named>, CliError> {
        let memory = Memory {
            base: self.base,
            page_size,
        };
        let mut names = Vec::new();
        let mut words = self.page.iter();
        while let Some(word) = words.next() {
            // A name of two words comes as two arguments, unless it is quoted.
            let text = match (word.as_str(), words.as_slice().first()) {
                ("gfn" | "gpa", Some(number)) => {
                    words.next();
                    &format!("{word} {number}")
                }
                _ => word,
            };
            let named = parse(text, memory)
                .map_err(|(problem, help)| CliError(format!("{problem}\nhelp: {help}")))?;
            names.push(named);
        }
        if let Some(path) = &self.pages {
            names.extend(read_names(path, memory)?);
        }
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|named| seen.insert(named.clone()));
        Ok(names)
    }
}

/// The pages of a list.
pub(super) fn read_names(path: &Path, memory: Memory) -> Result<Vec<Named>, CliError> {
    let file = path.display().to_string();
    let input =
        File::open(path).map_err(|error| CliError(format!("{file}: cannot read: {error}")))?;
    let mut names: Vec<Named> = Vec::new();
    // A dump that differs at every byte names a page four thousand times.
    read_list(BufReader::new(input), &file, memory, |named| {
        if names.last() != Some(&named) {
            names.push(named);
        }
        Ok(())
    })
    .map_err(|error: PagesError| CliError(error.to_string()))?;
    Ok(names)
}

pub(super) fn run(args: &PageArgs, _global: &Global) -> CliResult {
    let path = &args.trace;
    let name = path.display().to_string();
    args.config()
        .check()
        .map_err(|complaint| *complaint.at(&name, 0))?;
    let is_log = matches!(detect_file(path), Ok(Detected::Log(_)));
    let (pages, unknown, kind) = match events_of(path, &args.pid, args.config())? {
        Some(reader) if is_log => {
            let (pages, unknown) = observed(args, reader)?;
            (pages, unknown, "log")
        }
        _ => {
            kind::check(path, Wanted::Trace)?;
            trace(args, path, &name)?
        }
    };
    Ok(report(args, &name, kind, &pages, &unknown))
}

type Found = (Vec<Told>, Vec<&'static str>);

fn trace(
    args: &PageArgs,
    path: &Path,
    name: &str,
) -> Result<(Vec<Told>, Vec<&'static str>, &'static str), CliError> {
    let reader = TraceReader::open(path)?;
    let kind = reader.header().kind;
    if !args.pid.is_empty() {
        return Err(CliError(format!(
            "{name}: --pid chooses a VM of a log, and this is a trace\nhelp: leave --pid away; `dirtysim import` took it"
        )));
    }
    let (pages, unknown) = match kind {
        Kind::Observed => observed(args, reader)?,
        Kind::Call => recorded(args, reader, name)?,
        Kind::Step => scheduled(args, path)?,
    };
    Ok((pages, unknown, kind.name()))
}

fn observed<R: BufRead>(args: &PageArgs, reader: TraceReader<R>) -> Result<Found, CliError> {
    let header = reader.header();
    let config = args.config().or(header.known);
    let several = header.sources.len() > 1;
    let names = args.names(config.page_size.unwrap_or(4096))?;
    let mut follower = Follower::new(names, config)
        .map_err(|(problem, help)| CliError(format!("{problem}\nhelp: {help}")))?;
    for row in reader.rows::<ObservedEvent>()? {
        follower.event(&row?.row);
    }
    let told = follower.finish(several);
    let pages = told
        .pages
        .into_iter()
        .map(|page| {
            let place = |file: u32, line: u64| match several {
                true => format!("log {} line {line}", file + 1),
                false => format!("line {line}"),
            };
            let events = page.events.iter().map(|event| {
                (
                    place(event.file, event.line),
                    event.who.clone().unwrap_or_default(),
                    event.what.clone(),
                )
            });
            let list: Vec<Value> = page.events.iter().map(|event| json!(event)).collect();
            Told {
                events: events.collect(),
                total: page.events.total,
                json: Map::from_iter([
                    ("pushes".to_owned(), page.pushes.into()),
                    ("harvests".to_owned(), page.harvests.into()),
                    ("event_list".to_owned(), list.into()),
                ]),
                name: page.name,
                fate: page.fate,
                sentence: page.sentence,
            }
        })
        .collect();
    Ok((pages, told.unknown))
}

fn recorded<R: BufRead>(
    args: &PageArgs,
    reader: TraceReader<R>,
    name: &str,
) -> Result<Found, CliError> {
    let machine = reader.header().machine.as_ref();
    let recorded = machine.and_then(|machine| machine.page_size);
    let page_size = args.page_size.or(recorded).unwrap_or(4096);
    let names = few(args.names(page_size)?, name)?;
    let pages = calls::follow(reader.rows()?, names, page_size)?;
    let mut pages: Vec<Told> = pages
        .into_iter()
        .map(|page| {
            let last = page.events.iter().last();
            let (fate, sentence) = match (page.compared, last) {
                (Some((line, true)), _) => (
                    Fate::Lost,
                    format!("compared on line {line}: it differs from the copy"),
                ),
                (Some((line, false)), _) => (
                    Fate::Read,
                    format!("compared on line {line}: equal to the copy"),
                ),
                (None, None) => (Fate::Unseen, "no call names it".to_owned()),
                (None, Some(event)) => (
                    Fate::Unknown,
                    format!(
                        "named last on line {}: {}; memory is not compared in this recording",
                        event.line, event.what
                    ),
                ),
            };
            let list: Vec<Value> = page.events.iter().map(|event| json!(event)).collect();
            Told {
                name: page.name.to_string(),
                fate,
                sentence,
                total: page.events.total,
                events: page
                    .events
                    .iter()
                    .map(|event| {
                        let who = event.who.clone().unwrap_or_default();
                        (format!("line {}", event.line), who, event.what.clone())
                    })
                    .collect(),
                json: Map::from_iter([("event_list".to_owned(), list.into())]),
            }
        })
        .collect();
    pages.sort_by_key(|page| page.fate);
    Ok((pages, Vec::new()))
}

fn scheduled(args: &PageArgs, path: &Path) -> Result<Found, CliError> {
    let schedule = Schedule::load(path, None, "page")?;
    let scenario = &schedule.replay.scenario;
    let names = few(args.names(4096)?, &path.display().to_string())?;
    let mut pages = Vec::new();
    for named in names {
        let host = page_of(&named, scenario)
            .map_err(|(problem, help)| CliError(format!("{problem}\nhelp: {help}")))?;
        pages.push(of_schedule(&schedule, host)?);
    }
    pages.sort_by_key(|page| page.fate);
    Ok((pages, Vec::new()))
}

/// A page of a schedule: the steps that changed something about it. A step is a line, behind the header's.
fn of_schedule(schedule: &Schedule, host: HostPage) -> Result<Told, CliError> {
    let story = Story::of_page(&schedule.replay.scenario, &schedule.steps, host)?;
    let end = story.notes.last().map_or(&story.start, |note| &note.facts);
    let written = story.written.map_or(String::new(), |step| {
        format!("written last in step {step}; ")
    });
    let (fate, sentence) = match (end.stale, end.is_forgotten()) {
        (true, true) => (
            Fate::Lost,
            format!(
                "{written}at the end it differs from the copy, and nobody accounts for it{}: lost",
                story
                    .dropped
                    .map_or(String::new(), |step| format!(" from step {step} on"))
            ),
        ),
        (true, false) => (
            Fate::Unread,
            format!(
                "{written}at the end it differs from the copy, and is recorded: {}",
                end.records()
            ),
        ),
        (false, _) => (Fate::Read, "at the end it is equal to the copy".to_owned()),
    };
    let mut events = Vec::new();
    let mut list = Vec::new();
    for (index, note) in story.notes.iter().enumerate() {
        if note.changes.is_empty() {
            continue;
        }
        let changes = note.changes.join("; ");
        let what = format!("{} -> {changes}", note.words);
        list.push(json!({
            "line": index + 2, "step": index + 1, "who": story.who(note), "what": note.words, "changes": note.changes,
        }));
        events.push((
            format!("step {}", index + 1),
            story.who(note).to_owned(),
            what,
        ));
    }
    Ok(Told {
        name: schedule.replay.scenario.page_name(host),
        fate,
        sentence,
        total: events.len() as u64,
        events,
        json: Map::from_iter([("event_list".to_owned(), list.into())]),
    })
}

/// Refuses more pages than are told one by one.
fn few(names: Vec<Named>, name: &str) -> Result<Vec<Named>, CliError> {
    if names.len() > MOST_PAGES {
        return Err(CliError(format!(
            "{} pages; of {name} at most {MOST_PAGES} are told\nhelp: give fewer",
            names.len()
        )));
    }
    Ok(names)
}

fn report(
    args: &PageArgs,
    name: &str,
    kind: &str,
    pages: &[Told],
    unknown: &[&'static str],
) -> Report {
    let mut text = String::new();
    if args.pages.is_some() || pages.len() > 1 {
        table(args, name, pages, &mut text);
    } else {
        for page in pages {
            one(args, page, &mut text);
        }
    }
    for unknown in unknown {
        text.push_str(&format!("  unknown: {unknown}\n"));
    }
    let list: Vec<Value> = pages
        .iter()
        .map(|page| {
            let mut json = Map::from_iter([
                ("page".to_owned(), page.name.clone().into()),
                ("fate".to_owned(), json!(page.fate)),
                ("sentence".to_owned(), page.sentence.clone().into()),
                ("events".to_owned(), page.total.into()),
            ]);
            json.extend(page.json.clone());
            Value::Object(json)
        })
        .collect();
    let extra = Map::from_iter([
        ("trace".to_owned(), name.into()),
        ("kind".to_owned(), kind.into()),
        ("pages".to_owned(), list.into()),
        ("unknown".to_owned(), unknown.to_vec().into()),
    ]);
    Report {
        command: "page",
        extra,
        tail: text,
        ..Report::default()
    }
}

/// A page: its events, and at the end what became of it.
fn one(args: &PageArgs, page: &Told, text: &mut String) {
    text.push_str(&format!("{}\n", page.name));
    let before = page.events.len().saturating_sub(args.limit);
    let shown = &page.events[before..];
    let not_shown = page.total - shown.len() as u64;
    if not_shown > 0 {
        text.push_str(&format!(
            "  {} events before these (--limit)\n",
            grouped(not_shown)
        ));
    }
    let width = |of: fn(&(String, String, String)) -> &String| {
        let widths = shown.iter().map(|event| of(event).chars().count());
        widths.max().unwrap_or(0)
    };
    let (place, who) = (width(|event| &event.0), width(|event| &event.1));
    for event in shown {
        let line = format!("  {:<place$}  {:<who$}  {}", event.0, event.1, event.2);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&format!("{}: {}\n", page.name, page.sentence));
}

/// Many pages: how many of each kind, and a line each.
fn table(args: &PageArgs, name: &str, pages: &[Told], text: &mut String) {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for page in pages {
        match counts.last_mut() {
            Some((fate, n)) if *fate == page.fate.name() => *n += 1,
            _ => counts.push((page.fate.name(), 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(fate, n)| format!("{} {fate}", grouped(*n as u64)))
        .collect();
    text.push_str(&format!(
        "{name}: {} page{}: {}\n",
        grouped(pages.len() as u64),
        if pages.len() == 1 { "" } else { "s" },
        counts.join(", ")
    ));
    let shown = &pages[..pages.len().min(args.limit)];
    let widths = shown.iter().map(|page| page.name.chars().count());
    let width = widths.max().unwrap_or(0);
    for page in shown {
        text.push_str(&format!(
            "  {:<9}  {:<width$}  {}\n",
            page.fate.name(),
            page.name,
            page.sentence
        ));
    }
    if shown.len() < pages.len() {
        text.push_str(&format!(
            "  and {} more (--limit)\n",
            grouped((pages.len() - shown.len()) as u64)
        ));
    }
}
