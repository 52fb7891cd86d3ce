//! Replay of a schedule: the same steps from the same start, every claim checked, every line written anew and
//! compared with the one that was read.

use std::io::{BufRead, Write};

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant, Invariants};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Effect, Step, apply, for_each_choice, is_at_leisure};

use crate::first;
use crate::ladder::{Any, large};
use crate::scenario::{Scenario, ScenarioError};
use crate::search::liveness::{Endless, Lasso, NotALasso, confirm};
use crate::stuck::breaks_progress;
use crate::trace::step::{StepLine, StepRow, find_step, note_broken, row};
use crate::trace::{
    Complaint, Expect, Header, HeaderProblem, Kind, TraceError, TraceReader, TraceRow, TraceWriter,
    WriteError,
};

/// What a replay came to.
#[derive(Debug, Clone)]
pub struct StepReplay {
    /// The scenario of the trace.
    pub scenario: Scenario,
    /// Steps that were taken.
    pub steps: u64,
    /// Blocks: runs of steps of one actor.
    pub blocks: u64,
    /// Every claim that broke on the way.
    pub broken: Invariants,
    /// The first claim that broke at the last step, and the pages that it is about.
    pub last: Option<(Invariant, Vec<String>)>,
    /// Where the header says that the last steps are a cycle that can go on for ever: how many, how, and whether that is so.
    pub cycle: Option<(usize, Endless, Result<(), NotALasso>)>,
    /// The first [`DIFFERENCES_MAX`] lines whose observations differ from what the model gives, with both sides.
    pub differences: Vec<(u64, String, String)>,
    /// How many such lines there were.
    pub differences_total: u64,
}

/// Lines that are kept of those that differ; all are counted.
pub const DIFFERENCES_MAX: usize = 1000;

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
        let complaint = Complaint::header(
            HeaderProblem::Missing("scenario"),
            "a step trace carries the scenario whose schedule it is",
        );
        return Err(complaint.at(file, 1).into());
    };
    let mut scenario = Scenario::from_json(&format!("{file}:1: scenario"), source)
        .map_err(ReplayError::Scenario)?;
    for name in &header.mutations {
        let Some(mutation) = dirtysim_model::words::mutation::Mutations::by_name(name) else {
            let complaint = Complaint::header(
                HeaderProblem::UnknownMutation(name.clone()),
                "`dirtysim list mutations` shows them",
            );
            return Err(complaint.at(file, 1).into());
        };
        scenario = scenario.with_mutation(mutation);
    }
    Ok(scenario)
}

/// Replays the step trace that `reader` has begun to read, one line at a time: what is kept is the state, not the
/// trace. `each` is told every step.
///
/// # Errors
/// A line that is not a step, or a step that is not possible; the message names the possible ones.
pub fn replay<R: BufRead>(
    reader: TraceReader<R>,
    file: &str,
    scenario: Scenario,
    each: impl FnMut(Step),
) -> Result<StepReplay, ReplayError> {
    // Traces of millions of steps are replayed: on the rung of a fixed size, which takes half the time.
    match Any::start(&scenario) {
        Any::Small(start) => replay_in(reader, file, scenario, start, each),
        Any::Large(start) => replay_in(reader, file, scenario, start, each),
    }
}

fn replay_in<L: Layout, R: BufRead>(
    reader: TraceReader<R>,
    file: &str,
    scenario: Scenario,
    mut state: State<L>,
    mut each: impl FnMut(Step),
) -> Result<StepReplay, ReplayError> {
    let mut outcome = StepReplay {
        scenario,
        steps: 0,
        blocks: 0,
        broken: Invariants::NONE,
        last: None,
        cycle: None,
        differences: Vec::new(),
        differences_total: 0,
    };
    let cycle = reader.header().cycle;
    let kind = Endless::breaking(match &reader.header().expect {
        Some(Expect::Violated(name)) => Invariant::by_name(name),
        Some(Expect::Holds) | None => None,
    });
    // A cycle is confirmed from its steps, which are the only ones that are kept.
    let mut kept = Vec::new();
    let mut before = first::broken(&outcome.scenario.machine, &state);
    outcome.broken.union(before);
    outcome.last = at_first(&outcome.scenario, &state, before);
    let mut last_actor = None;
    let mut rows = reader.rows::<StepRow>()?;
    while let Some(read) = rows.read_line()? {
        let whole;
        let line = match StepLine::from_text(read.text()?) {
            Some(line) => line,
            None => {
                whole = read.row()?;
                StepLine::of(&whole)
            }
        };
        let step = find_step(&outcome.scenario, &state, &line)
            .map_err(|complaint| complaint.at(file, read.number()))?;
        let (effect, broken) = take(&outcome.scenario, &mut state, step);
        // Most steps break nothing new, and say so.
        let quiet = broken.without(before).is_empty();
        outcome.last = None;
        if !quiet || !line.breaks.is_empty() || !line.pages.is_empty() {
            let row = line.to_row();
            let mut observed = StepRow {
                breaks: Vec::new(),
                pages: Vec::new(),
                ..row.clone()
            };
            note_broken(
                &outcome.scenario,
                &state,
                effect,
                before,
                broken,
                &mut observed,
            );
            outcome.last = first_broken(&observed);
            if observed != row {
                outcome.differ(read.number(), &row, &observed);
            }
        }
        outcome.broken.union(broken);
        before = broken;
        outcome.blocks += u64::from(last_actor != Some(step.actor));
        last_actor = Some(step.actor);
        outcome.steps += 1;
        if cycle.is_some() {
            kept.push(step);
        }
        each(step);
    }
    if let Some(cycle) = cycle {
        let cycle = usize::try_from(cycle).unwrap_or(usize::MAX);
        let confirmed = confirm(&outcome.scenario, kind, &kept, cycle);
        if confirmed.is_ok() {
            let broken = kind.invariant();
            outcome.broken.insert(broken);
            outcome.last.get_or_insert((broken, Vec::new()));
        }
        outcome.cycle = Some((cycle, kind, confirmed));
    }
    Ok(outcome)
}

impl StepReplay {
    fn differ(&mut self, line: u64, read: &StepRow, observed: &StepRow) {
        self.differences_total += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            let text = |row: &StepRow| serde_json::to_string(row).unwrap_or_default();
            self.differences.push((line, text(read), text(observed)));
        }
    }
}

/// The first claim that is broken before anybody acts, and the pages that it is about.
fn at_first<L: Layout>(
    scenario: &Scenario,
    state: &State<L>,
    broken: Invariants,
) -> Option<(Invariant, Vec<String>)> {
    let mut row = StepRow {
        who: String::new(),
        what: String::new(),
        page: None,
        breaks: Vec::new(),
        pages: Vec::new(),
    };
    note_broken(
        scenario,
        state,
        Effect::None,
        Invariants::NONE,
        broken,
        &mut row,
    );
    first_broken(&row)
}

fn first_broken(row: &StepRow) -> Option<(Invariant, Vec<String>)> {
    let invariant = Invariant::by_name(row.breaks.first()?)?;
    Some((invariant, row.pages.clone()))
}

/// Takes a step; answers its effect, and every claim that is broken now.
fn take<L: Layout>(scenario: &Scenario, state: &mut State<L>, step: Step) -> (Effect, Invariants) {
    let machine = &scenario.machine;
    let effect = apply(machine, state, step);
    let mut broken = oracle::check(machine, state, effect);
    if !must_act(machine, state, step.actor) && breaks_progress(machine, state) {
        broken.insert(Invariant::MigrationMakesProgress);
    }
    (effect, broken)
}

/// Whether somebody must act; `first` is asked first, who acted last and mostly goes on.
fn must_act<L: Layout>(machine: &Machine, state: &State<L>, first: Actor) -> bool {
    let mut any = false;
    for_each_choice(machine, state, first, |choice| {
        any |= !is_at_leisure(
            state,
            Step {
                actor: first,
                choice,
            },
        );
    });
    any
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

/// The rows of a schedule, as a trace has them.
///
/// # Errors
/// What the writer says.
pub fn rows(scenario: &Scenario, steps: &[Step]) -> Result<Vec<StepRow>, WriteError> {
    let mut text = Vec::new();
    write_rows(&mut text, scenario, &header(scenario, ""), steps)?;
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    Ok(lines
        .filter_map(|line| StepRow::from_text(std::str::from_utf8(line).ok()?))
        .collect())
}

/// Writes a schedule that ends in a cycle which can go on for ever, or in a deadlock.
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
    let broken = lasso.kind.invariant().name();
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
    write_in(out, scenario, header, large(scenario), steps)
}

fn write_in<L: Layout>(
    out: impl Write,
    scenario: &Scenario,
    header: &Header,
    mut state: State<L>,
    steps: &[Step],
) -> Result<(), WriteError> {
    let mut writer = TraceWriter::new(out, header)?;
    let mut before = first::broken(&scenario.machine, &state);
    for step in steps {
        let mut row = row(scenario, &state, *step);
        let (effect, broken) = take(scenario, &mut state, *step);
        note_broken(scenario, &state, effect, before, broken, &mut row);
        writer.row(&row)?;
        before = broken;
    }
    let mut out = writer.into_inner();
    out.flush()?;
    Ok(())
}
