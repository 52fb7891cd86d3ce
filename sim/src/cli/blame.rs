//! `dirtysim blame`: which ways of losing a page explain exactly these pages.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use dirtysim_model::words::HostPage;
use serde_json::{Map, Value, json};

use super::distil::distil;
use super::log::events_of;
use super::page::read_names;
use super::report::{caveats, grouped};
use super::run::one_machine;
use super::schedule::{Schedule, unread};
use super::{CliError, CliResult, Global, Report, interrupted};
use crate::blame::{Blame, Candidate, Cause, blame, blame_seeds, read_pages};
use crate::observed::CheckConfig;
use crate::page::log::Follower;
use crate::page::names::Memory;
use crate::scenario::Scenario;
use crate::search::Limit;
use crate::trace::observed::ObservedEvent;

/// Arguments of `dirtysim blame`.
#[derive(Debug, Args)]
pub(crate) struct BlameArgs {
    /// A trace of kind `step`: the schedule. Or a scenario, where no schedule is known: a built-in name, or a file .toml. Or a
    /// log, of which `dirtysim distil` makes the scenario
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// Scenarios: seeds of the schedules under which each cause is tried, the end excluded
    #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = super::run::parse_seeds)]
    seeds: Range<u64>,
    /// The pages that differ at the destination, one a line: slot:offset, or gfn 0x...
    #[arg(long, value_name = "FILE")]
    pages: PathBuf,
    /// Candidates that are shown, at most; the JSON document has them all
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
}

/// Pages that a line names; of more, it tells the number.
const MOST_NAMED: usize = 8;

fn names(scenario: &Scenario, pages: &BTreeSet<HostPage>) -> Vec<String> {
    pages.iter().map(|&page| scenario.page_name(page)).collect()
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names if names.len() <= MOST_NAMED => names.join(", "),
        names => format!(
            "{} ... ({} pages)",
            names[..MOST_NAMED].join(", "),
            grouped(names.len() as u64)
        ),
    }
}

fn candidate_json(scenario: &Scenario, candidate: &Candidate) -> Value {
    let kind = match candidate.cause {
        Cause::Nothing => "unchanged",
        Cause::Mutation(_) => "mutation",
        Cause::Swap { .. } => "swap",
        Cause::LeftOut { .. } => "left-out",
        Cause::Moved { .. } => "moved",
    };
    json!({
        "name": candidate.name, "kind": kind, "exact": candidate.is_exact(), "difference": candidate.difference(),
        "missing": candidate.missing, "extra": candidate.extra, "pages": names(scenario, &candidate.lost),
        "seed": candidate.seed,
    })
}

/// What is to be explained: a schedule, or what a scenario allows.
enum Subject {
    Schedule(Box<Schedule>),
    Scenario(Box<Scenario>),
    /// What a log shows, and what is said of its pages.
    Log(Box<Scenario>, String),
}

impl Subject {
    fn load(args: &BlameArgs) -> Result<Self, CliError> {
        if let Some(log) = of_log(args)? {
            return Ok(log);
        }
        let name = args.trace.to_string_lossy();
        let is_scenario = name.ends_with(".toml") || crate::scenario::builtin(&name).is_some();
        if is_scenario {
            let scenario = Scenario::find(&name)?;
            one_machine(&scenario, "`dirtysim blame`")?;
            return Ok(Self::Scenario(Box::new(scenario)));
        }
        let schedule = Schedule::load(&args.trace, None, "blame")?;
        Ok(Self::Schedule(Box::new(schedule)))
    }

    fn scenario(&self) -> &Scenario {
        match self {
            Self::Schedule(schedule) => &schedule.replay.scenario,
            Self::Scenario(scenario) | Self::Log(scenario, _) => scenario,
        }
    }

    fn words(&self, tried: &Range<u64>) -> String {
        match self {
            Self::Schedule(_) => "the schedule".to_owned(),
            Self::Scenario(_) | Self::Log(..) => format!(
                "no schedule of seeds {}..{} comes nearer than one that",
                tried.start, tried.end
            ),
        }
    }

    fn blame(&self, args: &BlameArgs, given: &BTreeSet<HostPage>) -> Option<Blame> {
        let scenario = match self {
            Self::Schedule(schedule) => {
                let scenario = &schedule.replay.scenario;
                return blame(scenario, &schedule.steps, given, &|| !interrupted());
            }
            Self::Scenario(scenario) | Self::Log(scenario, _) => scenario,
        };
        let bar = super::progress_bar(args.seeds.end - args.seeds.start, "schedules");
        let found = blame_seeds(scenario, args.seeds.clone(), given, &|done| {
            bar.set_position(done);
            !interrupted()
        });
        bar.finish_and_clear();
        found
    }
}

/// A log: its pages followed, and its order as a small scenario; none where the file is none.
fn of_log(args: &BlameArgs) -> Result<Option<Subject>, CliError> {
    let check = CheckConfig::default();
    let Some(reader) = events_of(&args.trace, &[], check)? else {
        return Ok(None);
    };
    let names = read_names(&args.pages, Memory::default())?;
    let complain = |(problem, help): (String, String)| CliError(format!("{problem}\nhelp: {help}"));
    let config = reader.header().known;
    let several = reader.header().sources.len() > 1;
    let mut follower = Follower::new(names.clone(), config).map_err(complain)?;
    for row in reader.rows::<ObservedEvent>()? {
        follower.event(&row?.row);
    }
    let told = follower.finish(several);
    let mut text = "  in the log, the worst first (`dirtysim page` has them all):\n".to_owned();
    for page in told.pages.iter().take(MOST_NAMED) {
        text.push_str(&format!("    {}: {}\n", page.name, page.sentence));
    }
    let (distilled, scenario) = distil(&args.trace, &[], "distilled", &names)?;
    text.push_str("  as a small scenario (`dirtysim distil` writes it):");
    for (small, real) in &distilled.map {
        text.push_str(&format!(" {small} is {real};"));
    }
    text.push_str(&format!(
        " ram:{} is every other page\n",
        distilled.map.len()
    ));
    for assumed in &distilled.assumed {
        text.push_str(&format!("    taken for granted: {assumed}\n"));
    }
    Ok(Some(Subject::Log(Box::new(scenario), text)))
}

pub(super) fn run(args: &BlameArgs, _global: &Global) -> CliResult {
    let subject = match Subject::load(args) {
        Err(_) if interrupted() => return Ok(unread("blame", &args.trace)),
        loaded => loaded?,
    };
    let scenario = subject.scenario();
    let file = args.pages.display().to_string();
    let input = File::open(&args.pages)
        .map_err(|error| CliError(format!("{file}: cannot read: {error}")))?;
    // The small pages of a log's scenario, but for the last, stand for those that differ.
    let given = match &subject {
        Subject::Log(scenario, _) => {
            let slot = scenario.machine.slots.first();
            let mut pages: BTreeSet<_> = slot.into_iter().flat_map(|slot| slot.hosts()).collect();
            pages.pop_last();
            pages
        }
        _ => read_pages(BufReader::new(input), &file, scenario)?,
    };
    let Some(found) = subject.blame(args, &given) else {
        return Ok(untried(args, scenario));
    };
    let seeds = args.seeds.clone();
    let tried = seeds.start..seeds.start + found.schedules;
    let cut = !matches!(subject, Subject::Schedule(_)) && tried != seeds;
    let exact: Vec<&Candidate> = found.exact().collect();
    let mut text = format!(
        "{}: which single cause loses exactly {}?\n",
        args.trace.display(),
        list(&names(scenario, &given))
    );
    if let Subject::Log(_, told) = &subject {
        text.push_str(told);
    }
    text.push_str(&format!(
        "  without mutations and in the scenario's own order {} loses {}\n",
        subject.words(&tried),
        list(&names(scenario, &found.unchanged.lost))
    ));
    match exact.as_slice() {
        [] => text.push_str("  none does; the nearest:\n"),
        [first, ..] if first.cause == Cause::Nothing => {
            text.push_str(
                "  the scenario's own order does, and needs no other cause; beside it:\n",
            );
        }
        [_] => text.push_str("  one does:\n"),
        several => text.push_str(&format!("  {} do:\n", several.len())),
    }
    // What loses nothing explains nothing, however few pages were given.
    let shown: Vec<&Candidate> = found
        .candidates
        .iter()
        .filter(|candidate| candidate.matters && !candidate.lost.is_empty())
        .collect();
    if shown.is_empty() {
        text.push_str("    no candidate changes what this schedule loses\n");
    }
    for candidate in shown.iter().take(args.limit) {
        let mark = if candidate.is_exact() {
            "exact".to_owned()
        } else {
            format!("off by {}", candidate.difference())
        };
        text.push_str(&format!(
            "  {mark:>9}  {}\n             loses {}{}\n",
            candidate.name,
            list(&names(scenario, &candidate.lost)),
            candidate
                .seed
                .map_or(String::new(), |seed| format!(" (seed {seed})"))
        ));
    }
    if shown.len() > args.limit {
        text.push_str(&format!(
            "  and {} more (--limit)\n",
            grouped((shown.len() - args.limit) as u64)
        ));
    }
    let mut extra = Map::new();
    extra.insert("scenario".into(), scenario.name.clone().into());
    if cut {
        text.push_str(&format!(
            "  interrupted: seeds {}..{} were not tried\n",
            tried.end, seeds.end
        ));
        extra.insert("limit".into(), Limit::Interrupt.name().into());
        extra.insert(
            "seeds".into(),
            format!("{}..{}", tried.start, tried.end).into(),
        );
    }
    text.push_str(&caveats(scenario, &mut extra));
    let answer: Value = exact
        .first()
        .map_or_else(|| "none".into(), |candidate| candidate.name.clone().into());
    extra.insert("trace".into(), args.trace.display().to_string().into());
    extra.insert("pages".into(), names(scenario, &given).into());
    extra.insert("answer".into(), answer);
    let exact: Vec<String> = exact
        .iter()
        .map(|candidate| candidate.name.clone())
        .collect();
    extra.insert("exact".into(), exact.into());
    extra.insert(
        "unchanged".into(),
        candidate_json(scenario, &found.unchanged),
    );
    let candidates: Vec<Value> = found
        .candidates
        .iter()
        .map(|candidate| candidate_json(scenario, candidate))
        .collect();
    extra.insert("candidates".into(), candidates.into());
    Ok(Report {
        command: "blame",
        extra,
        tail: text,
        cut,
        ..Report::default()
    })
}

/// What is said where an interrupt came before every cause was tried once.
fn untried(args: &BlameArgs, scenario: &Scenario) -> Report {
    let mut extra = Map::new();
    extra.insert("scenario".into(), scenario.name.clone().into());
    extra.insert("trace".into(), args.trace.display().to_string().into());
    extra.insert("limit".into(), Limit::Interrupt.name().into());
    Report {
        command: "blame",
        extra,
        tail: format!(
            "{}: interrupted before every cause was tried: no answer\n",
            args.trace.display()
        ),
        cut: true,
        ..Report::default()
    }
}
