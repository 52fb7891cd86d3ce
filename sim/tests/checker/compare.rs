//! One scenario, judged by everybody: the naive explorer, the search with all reductions, with each alone and with none, on one thread
//! and on two, every scheduler, replay and shrinking.

use std::collections::HashSet;
use std::sync::LazyLock;

use dirtysim::replay::steps::{self, scenario_of};
use dirtysim::run::{self, Scheduler, target};
use dirtysim::scenario::{Expect, Scenario};
use dirtysim::search::{self, Coverage, Options, Reductions, Report, Rule, Verdict};
use dirtysim::shrink::{self, Budget, shrink};
use dirtysim::trace::TraceReader;
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::Step;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Value, json};

use crate::alone::{Looks, look_at_all};
use crate::naive::{Explored, explore, fewest_blocks};

/// How far to go.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Larger scenarios are left out.
    pub(crate) most_states: usize,
    /// Seeds of each scheduler.
    pub(crate) seeds: u64,
}

/// Scenarios that have fewer are explored once more for the fewest blocks.
const FEW_STATES: usize = 500;

/// States that are looked at with any number in place of each number.
const WIDE_STATES: u64 = 3_000;

/// What a scenario turned out to be.
pub(crate) enum Outcome {
    /// The reader says why.
    Refused(String),
    TooLarge,
    Judged(Judged),
}

pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// Whether it is proved for any number of pages.
    pub(crate) proved: bool,
    /// Whether that settled it as it is.
    pub(crate) settled: bool,
    pub(crate) raw_states: usize,
    pub(crate) states: u64,
    pub(crate) mutated: bool,
    /// In how many states a step that may be taken alone was looked at.
    pub(crate) looks: Looks,
}

const SCHEDULERS: [Scheduler; 5] = [
    Scheduler::Random,
    Scheduler::Pct { depth: 2 },
    Scheduler::Pct { depth: 4 },
    Scheduler::Interrupt,
    Scheduler::Mix,
];

static POOLS: LazyLock<[ThreadPool; 2]> = LazyLock::new(|| {
    [1, 2].map(|threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads can be had")
    })
});

/// Fails with what two of them do not agree about.
macro_rules! agree {
    ($left:expr, $right:expr, $($what:tt)*) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    return Err(format!("{}: {left:?} and {right:?}", format_args!($($what)*)));
                }
            }
        }
    };
}

/// Judges a text by everybody.
///
/// # Errors
/// What they do not agree about.
pub(crate) fn compare(text: &str, effort: Effort) -> Result<Outcome, String> {
    let scenario = match Scenario::from_toml("drawn", text) {
        Ok(scenario) => scenario,
        Err(error) => return Ok(Outcome::Refused(error.to_string())),
    };
    let again =
        Scenario::from_json("drawn", &scenario.source).map_err(|error| error.to_string())?;
    agree!(
        format!("{:?}", again.machine),
        format!("{:?}", scenario.machine),
        "the scenario in a trace's header"
    );
    let Some(explored) = explore::<Small>(&scenario, effort.most_states) else {
        return Ok(Outcome::TooLarge);
    };
    let mut broken = Invariants::NONE;
    for claim in explored.broken.keys() {
        broken.insert(*claim);
    }
    let looks = look_at_all(&scenario, &explored)?;
    let whole = whole(&scenario, &explored, broken)?;
    for scheduler in SCHEDULERS {
        let options = run::Options {
            seeds: 0..effort.seeds,
            scheduler,
            keep_going: true,
        };
        let by_chance = POOLS[0]
            .install(|| run::run(&scenario, &options, &|_| true))
            .broken;
        agree!(
            by_chance.without(broken),
            Invariants::NONE,
            "{scheduler:?} breaks what holds"
        );
    }
    let verdict = whole.verdict;
    let shown = violation(&scenario, &explored, verdict)?;
    for claim in explored
        .broken
        .keys()
        .filter(|claim| shown != Some(**claim))
    {
        let mut about = scenario.clone();
        about.expect = Some(Expect::Violated(*claim));
        violation(&about, &explored, Verdict::Violated)?;
    }
    let (proved, settled) = any_number(&scenario, broken)?;
    Ok(Outcome::Judged(Judged {
        verdict,
        proved,
        settled,
        raw_states: explored.states.len(),
        states: whole.states,
        mutated: !scenario.machine.mutations().is_empty(),
        looks,
    }))
}

/// A search as it comes, which ends at the nearest violation: the claim that it shows broken.
fn violation(
    scenario: &Scenario,
    explored: &Explored<Small>,
    verdict: Verdict,
) -> Result<Option<Invariant>, String> {
    let report = POOLS[1].install(|| check(scenario, Options::default()));
    agree!(
        report.verdict,
        verdict,
        "verdicts of a search that ends at the first violation and of one that goes on"
    );
    let Some(violation) = &report.violation else {
        agree!(verdict == Verdict::Violated, false, "a violation");
        return Ok(None);
    };
    let claim = violation.invariant;
    let steps = violation
        .steps
        .as_ref()
        .ok_or("a violation without steps")?;
    agree!(
        Some(steps.len()),
        explored.broken.get(&claim).copied(),
        "steps to {} of the search and of the naive explorer",
        claim.name()
    );
    counterexample(scenario, explored, steps, claim)?;
    Ok(Some(claim))
}

fn check(scenario: &Scenario, options: Options) -> Report {
    // A state that is taken for another may have no end.
    let options = Options {
        max_states: Some(1_000_000),
        ..options
    };
    search::check(scenario, &options, &|_| true)
        .expect("what fits the medium layout can be searched")
}

fn whole_report(scenario: &Scenario, reductions: Reductions, threads: usize) -> Report {
    let options = Options {
        keep_going: true,
        counterexample: false,
        reductions,
        ..Options::default()
    };
    POOLS[threads - 1].install(|| check(scenario, options))
}

/// Everything that the searches of a whole scenario say; the report of the one that leaves nothing out.
fn whole(
    scenario: &Scenario,
    explored: &Explored<Small>,
    broken: Invariants,
) -> Result<Report, String> {
    let full = whole_report(scenario, Reductions::NONE, 1);
    agree!(
        matches!(full.coverage, Coverage::Exhausted | Coverage::Proved),
        true,
        "how much was seen"
    );
    if full.coverage == Coverage::Proved {
        no_number_breaks(scenario, explored.states.len())?;
    }
    agree!(
        full.broken,
        broken,
        "broken claims of the unreduced search and of the naive explorer"
    );
    agree!(
        full.states,
        packed(scenario, explored),
        "distinct states of the unreduced search and of the naive explorer"
    );
    let wanted = match target(scenario) {
        Some(claim) => broken.has(claim),
        None => !broken.is_empty(),
    };
    agree!(
        full.verdict == Verdict::Violated,
        wanted,
        "whether it is violated"
    );
    if full.verdict == Verdict::Holds && !explored.claimed {
        return Err("it holds, and nobody claims anything".to_owned());
    }
    let all = whole_report(scenario, Reductions::ALL, 1);
    for (report, reductions) in [(&full, Reductions::NONE), (&all, Reductions::ALL)] {
        let two = whole_report(scenario, reductions, 2);
        let sure = |report: &Report| Report {
            peak_bytes: 0,
            ..report.clone()
        };
        agree!(
            sure(report),
            sure(&two),
            "{reductions:?} on one thread and on two"
        );
    }
    let mut others = vec![(Reductions::ALL, all.clone())];
    for reductions in alone(&all) {
        others.push((reductions, whole_report(scenario, reductions, 1)));
    }
    for (reductions, report) in others {
        agree!(
            (report.verdict, report.broken, report.coverage),
            (full.verdict, full.broken, full.coverage),
            "{reductions:?}, and nothing left out"
        );
        if let Some(violation) = &report.violation
            && (violation.depth as usize) < explored.broken[&violation.invariant]
        {
            return Err(format!(
                "{reductions:?} breaks it in fewer steps than there can be"
            ));
        }
        if report.states > full.states {
            return Err(format!(
                "{reductions:?} adds states: {} to {}",
                report.states, full.states
            ));
        }
    }
    Ok(full)
}

/// What is proved with any number in place of each of a scenario's numbers holds with these; whether it is proved for any number of pages,
/// and whether that settled it with its own.
fn any_number(scenario: &Scenario, broken: Invariants) -> Result<(bool, bool), String> {
    let Some(wide) = scenario.widened() else {
        return Ok((false, false));
    };
    let wide = wide.scenario;
    let options = Options {
        max_states: Some(WIDE_STATES),
        counterexample: false,
        ..Options::default()
    };
    // What breaks it is not looked for on other machines.
    let report = POOLS[0].install(|| search::check(&wide, &options, &|_| true));
    let report = report.map_err(|error| error.to_string())?;
    let proved = report.coverage == Coverage::Proved;
    if proved && !broken.is_empty() {
        return Err(format!(
            "proved for any number, and these numbers break {broken:?}: {}",
            wide.source
        ));
    }
    let settles = proved && wide.any_pages && target(scenario).is_none();
    let settled = settled(scenario, settles.then_some(report.states), broken)?;
    Ok((proved && wide.any_pages, settled))
}

/// A search that asks for any number at once says what was proved with so many states, or, where nothing was, what one says that never asks.
fn settled(scenario: &Scenario, proved: Option<u64>, broken: Invariants) -> Result<bool, String> {
    let search = |any_number_after| {
        let options = Options {
            max_states: Some(WIDE_STATES),
            counterexample: false,
            reductions: Reductions {
                any_number_after,
                ..Reductions::ALL
            },
            ..Options::default()
        };
        let report = POOLS[0].install(|| search::check(scenario, &options, &|_| true));
        let report = report.expect("what fits the medium layout can be searched");
        let peak_bytes = 0;
        Report {
            peak_bytes,
            ..report
        }
    };
    let asked = search(Some(0));
    match (proved, asked.own_numbers) {
        (Some(states), Some(_)) => {
            agree!(asked.states, states, "states of a proof, asked for at once");
            agree!(asked.verdict, Verdict::Holds, "what is proved");
        }
        // Its schedules may not come to what the program must do, in which case nothing is settled.
        (_, None) => agree!(
            asked,
            search(None),
            "a search that asks in vain, and one that does not ask"
        ),
        (None, Some(_)) => return Err(format!("settled, and not proved; broken: {broken:?}")),
    }
    Ok(asked.own_numbers.is_some())
}

/// What is proved for any number holds for 1, 2, 3 and 4, as far as the naive explorer comes with them.
fn no_number_breaks(scenario: &Scenario, states: usize) -> Result<(), String> {
    for number in 1..=4 {
        let source = bounded(&scenario.source, number);
        let bounded = Scenario::from_json("bounded", &source).map_err(|error| error.to_string())?;
        let Some(explored) = explore::<Small>(&bounded, 8 * states) else {
            break;
        };
        if let Some(claim) = explored.broken.keys().next() {
            return Err(format!(
                "proved for any number, and {number} breaks {}",
                claim.name()
            ));
        }
    }
    Ok(())
}

/// The same text with a number wherever it says that any will do.
fn bounded(value: &Value, number: u64) -> Value {
    match value {
        Value::String(word) if word == "any" || word == "unlimited" => number.into(),
        Value::Array(items) => items.iter().map(|item| bounded(item, number)).collect(),
        Value::Object(map) => match map.get("any_number") {
            Some(steps) => json!({ "repeat": number, "steps": bounded(steps, number) }),
            None => {
                let entries = map.iter();
                Value::Object(
                    entries
                        .map(|(key, value)| (key.clone(), bounded(value, number)))
                        .collect(),
                )
            }
        },
        other => other.clone(),
    }
}

/// Each of the reductions that a search made, alone.
fn alone(report: &Report) -> Vec<Reductions> {
    let mut each = Vec::new();
    if !report.reduced.classes.is_empty() {
        each.push(Reductions {
            pages: true,
            ..Reductions::NONE
        });
    }
    if report.reduced.vcpus {
        each.push(Reductions {
            vcpus: true,
            ..Reductions::NONE
        });
    }
    each.extend(report.reduced.rules.iter().map(|&rule: &Rule| Reductions {
        rules: 1 << rule as u8,
        ..Reductions::NONE
    }));
    each
}

/// How many of the explorer's states a search tells apart: those that differ in what nobody can read are one to it.
fn packed(scenario: &Scenario, explored: &Explored<Small>) -> u64 {
    let machine = &scenario.machine;
    let start = scenario.start::<Small>().expect("it was explored");
    let packing = Packing::new(machine, &start);
    let mut distinct = HashSet::new();
    for state in &explored.states {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut State::clone(state), &mut words);
        distinct.insert(words);
    }
    distinct.len() as u64
}

/// A counterexample replays from its trace, and is still one when it is made short: in blocks, then in steps.
fn counterexample(
    scenario: &Scenario,
    explored: &Explored<Small>,
    schedule: &[Step],
    claim: Invariant,
) -> Result<(), String> {
    replays(scenario, schedule, claim)?;
    let budget = Budget {
        attempts: 500,
        states: 20_000,
        ..Budget::default()
    };
    let shrunk = shrink(scenario, schedule, claim, budget, &mut |_| true)
        .ok_or("shrink says that the counterexample breaks nothing")?;
    let length = shrink::length(&shrunk.steps);
    if length > shrink::length(schedule) {
        return Err("a counterexample that was made short is longer".to_owned());
    }
    if shrunk.shortest && explored.states.len() < FEW_STATES {
        agree!(
            Some(length),
            fewest_blocks::<Small>(scenario, claim),
            "blocks and steps to {} of what was made short and of the naive explorer",
            claim.name()
        );
    }
    replays(scenario, &shrunk.steps, claim)
}

fn replays(scenario: &Scenario, schedule: &[Step], claim: Invariant) -> Result<(), String> {
    let mut trace = Vec::new();
    steps::write(&mut trace, scenario, schedule, Some(claim), "the checker")
        .map_err(|error| error.to_string())?;
    let reader = TraceReader::new(trace.as_slice(), "drawn").map_err(|error| error.to_string())?;
    let read = scenario_of(reader.header(), "drawn").map_err(|error| error.to_string())?;
    let mut again = Vec::new();
    let replay = steps::replay(reader, "drawn", read, |step| again.push(step))
        .map_err(|error| error.to_string())?;
    agree!(
        replay.differences_total,
        0,
        "lines of a trace that the model writes otherwise"
    );
    agree!(again, schedule, "a schedule and its replay");
    agree!(
        replay.broken.has(claim),
        true,
        "whether its replay breaks {}",
        claim.name()
    );
    Ok(())
}
