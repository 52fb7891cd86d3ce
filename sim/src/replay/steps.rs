//! Replay of a schedule: the same steps from the same start, every claim checked, every line written anew and
//! compared with the one that was read.

use std::io::{BufRead, Write};

use dirtysim_model::layout::{Large, Layout, Medium, Small};
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::state::State;
use dirtysim_model::step::{Step, apply};

use crate::run::is_stuck;
use crate::scenario::{Scenario, ScenarioError};
use crate::search::liveness::{Lasso, NotALasso, confirm};
use crate::trace::step::{StepRow, find_step, note_broken, row};
use crate::trace::{
    Complaint, Expect, Header, Kind, Problem, TraceError, TraceReader, TraceWriter, WriteError,
};

/// What a replay came to.
#[derive(Debug, Clone)]
pub struct StepReplay {
    /// The scenario of the trace.
    pub scenario: Scenario,
    /// The steps.
    pub steps: Vec<Step>,
    /// Blocks: runs of steps of one actor.
    pub blocks: u64,
    /// Every claim that broke on the way.
    pub broken: Invariants,
    /// The first claim that broke at the last step, and the pages that it is about.
    pub last: Option<(Invariant, Vec<String>)>,
    /// Where the header says that the last steps are a cycle without progress: how many, and whether that is so.
    pub cycle: Option<(usize, Result<(), NotALasso>)>,
    /// Lines whose observations differ from what the model gives, with both sides.
    pub differences: Vec<(u64, String, String)>,
}

/// Why a trace cannot be replayed.
#[derive(Debug)]
pub enum ReplayError {
    /// A line is wrong.
    Trace(Box<TraceError>),
    /// The scenario in its header is wrong.
    Scenario(Box<ScenarioError>),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trace(error) => error.fmt(f),
            Self::Scenario(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<Box<TraceError>> for ReplayError {
    fn from(error: Box<TraceError>) -> Self {
        Self::Trace(error)
    }
}

/// The scenario that a step trace carries, with the mutations that its header adds.
///
/// # Errors
/// A header without a scenario, or with one that is wrong.
pub fn scenario_of(header: &Header, file: &str) -> Result<Scenario, ReplayError> {
    let Some(source) = &header.scenario else {
        let complaint = Complaint {
            problem: Problem::Header("no `scenario`".to_owned()),
            help: "a step trace carries the scenario whose schedule it is".to_owned(),
        };
        return Err(complaint.at(file, 1).into());
    };
    let mut scenario = Scenario::from_json(&format!("{file}:1: scenario"), source)
        .map_err(ReplayError::Scenario)?;
    for name in &header.mutations {
        let Some(mutation) = dirtysim_model::mutation::Mutations::by_name(name) else {
            let complaint = Complaint {
                problem: Problem::Header(format!("unknown mutation `{name}`")),
                help: "`dirtysim list mutations` shows them".to_owned(),
            };
            return Err(complaint.at(file, 1).into());
        };
        scenario = scenario.with_mutation(mutation);
    }
    Ok(scenario)
}

/// Replays the step trace that `reader` has begun to read.
///
/// # Errors
/// A line that is not a step, or a step that is not possible; the message names the possible ones.
pub fn replay<R: BufRead>(
    reader: TraceReader<R>,
    file: &str,
    scenario: Scenario,
) -> Result<StepReplay, ReplayError> {
    if let Ok(start) = scenario.start::<Small>() {
        return replay_in(reader, file, scenario, start);
    }
    if let Ok(start) = scenario.start::<Medium>() {
        return replay_in(reader, file, scenario, start);
    }
    let start = scenario
        .start::<Large>()
        .expect("the large layout has room for every scenario");
    replay_in(reader, file, scenario, start)
}

fn replay_in<L: Layout, R: BufRead>(
    reader: TraceReader<R>,
    file: &str,
    scenario: Scenario,
    mut state: State<L>,
) -> Result<StepReplay, ReplayError> {
    let mut outcome = StepReplay {
        scenario,
        steps: Vec::new(),
        blocks: 0,
        broken: Invariants::NONE,
        last: None,
        cycle: None,
        differences: Vec::new(),
    };
    let cycle = reader.header().cycle;
    let mut before = Invariants::NONE;
    for read in reader.rows::<StepRow>()? {
        let read = read?;
        let step = find_step(&outcome.scenario, &state, &read.row)
            .map_err(|complaint| complaint.at(file, read.line))?;
        let (observed, broken) = take(&outcome.scenario, &mut state, step, before);
        let line = |row: &StepRow| serde_json::to_string(row).unwrap_or_default();
        if observed != read.row {
            outcome
                .differences
                .push((read.line, line(&read.row), line(&observed)));
        }
        outcome.last = first_broken(&observed);
        outcome.broken.union(broken);
        before = broken;
        if outcome
            .steps
            .last()
            .is_none_or(|last| last.actor != step.actor)
        {
            outcome.blocks += 1;
        }
        outcome.steps.push(step);
    }
    if let Some(cycle) = cycle {
        let cycle = usize::try_from(cycle).unwrap_or(usize::MAX);
        let confirmed = confirm(&outcome.scenario, &outcome.steps, cycle);
        if confirmed.is_ok() {
            let broken = Invariant::MigrationMakesProgress;
            outcome.broken.insert(broken);
            outcome.last.get_or_insert((broken, Vec::new()));
        }
        outcome.cycle = Some((cycle, confirmed));
    }
    Ok(outcome)
}

fn first_broken(row: &StepRow) -> Option<(Invariant, Vec<String>)> {
    let invariant = Invariant::by_name(row.breaks.first()?)?;
    Some((invariant, row.pages.clone()))
}

/// Takes a step and says what it did: the row of a trace, and every claim that is broken now.
pub fn take<L: Layout>(
    scenario: &Scenario,
    state: &mut State<L>,
    step: Step,
    before: Invariants,
) -> (StepRow, Invariants) {
    let machine = &scenario.machine;
    let mut row = row(scenario, state, step);
    let effect = apply(machine, state, step);
    let mut broken = oracle::check(machine, state, effect);
    let mut any = false;
    dirtysim_model::step::for_each_step(machine, state, |_| any = true);
    if !any && is_stuck(machine, state) {
        broken.insert(Invariant::MigrationMakesProgress);
    }
    note_broken(scenario, state, effect, before, broken, &mut row);
    (row, broken)
}

/// Writes a schedule as a trace.
///
/// # Errors
/// What the writer says.
pub fn write(
    out: impl Write,
    scenario: &Scenario,
    steps: &[Step],
    invariant: Option<Invariant>,
    found_by: &str,
) -> Result<(), WriteError> {
    let mut header = header(scenario, found_by);
    header.expect = Some(invariant.map_or(Expect::Holds, |invariant| {
        Expect::Violated(invariant.name().to_owned())
    }));
    write_rows(out, scenario, &header, steps)
}

/// Writes a schedule that ends in a cycle without progress, or in a deadlock.
///
/// # Errors
/// What the writer says.
pub fn write_lasso(
    out: impl Write,
    scenario: &Scenario,
    lasso: &Lasso,
    found_by: &str,
) -> Result<(), WriteError> {
    let mut header = header(scenario, found_by);
    let broken = Invariant::MigrationMakesProgress.name();
    header.expect = Some(Expect::Violated(broken.to_owned()));
    header.cycle = (lasso.cycle > 0).then_some(lasso.cycle as u64);
    write_rows(out, scenario, &header, &lasso.steps)
}

fn header(scenario: &Scenario, found_by: &str) -> Header {
    let mut header = Header::new(Kind::Step);
    header.title = Some(scenario.name.clone());
    header.found_by = Some(found_by.to_owned());
    header.scenario = Some(scenario.source.clone());
    header
}

fn write_rows(
    out: impl Write,
    scenario: &Scenario,
    header: &Header,
    steps: &[Step],
) -> Result<(), WriteError> {
    if let Ok(start) = scenario.start::<Small>() {
        return write_in(out, scenario, header, start, steps);
    }
    if let Ok(start) = scenario.start::<Medium>() {
        return write_in(out, scenario, header, start, steps);
    }
    let start = scenario
        .start::<Large>()
        .expect("the large layout has room for every scenario");
    write_in(out, scenario, header, start, steps)
}

fn write_in<L: Layout>(
    out: impl Write,
    scenario: &Scenario,
    header: &Header,
    mut state: State<L>,
    steps: &[Step],
) -> Result<(), WriteError> {
    let mut writer = TraceWriter::new(out, header)?;
    let mut before = Invariants::NONE;
    for step in steps {
        let (row, broken) = take(scenario, &mut state, *step, before);
        writer.row(&row)?;
        before = broken;
    }
    let mut out = writer.into_inner();
    out.flush()?;
    Ok(())
}
