//! What if: a schedule taken another way from some step on, and what else is possible there.
//!
//! This is what a page asks the model that it carries (`what-if/` compiles it for a browser). Question and answer are
//! JSON: the page knows no rule of KVM's, and the program's own tests ask the same questions. The story that comes back
//! is told by the code that told the page's own.

use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::transition::{Actor, Effect, Step, apply, describe, for_each_step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::drawn;
use super::rows::RowWriter;
use super::story::{Story, lane_of_step};
use crate::first;
use crate::ladder::large;
use crate::replay::steps;
use crate::scenario::Scenario;
use crate::scenario::enclosed::write_scenario;
use crate::trace::enclosed::write_schedule;
use crate::trace::step::{StepLine, StepRow, find_step, row};
use crate::trace::{Expect, Header, Kind};

/// The most steps of a page's schedule.
pub const MOST_STEPS: usize = 5_000;

/// What a page asks: about a schedule, taken another way in some places.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The scenario, as the header of a trace has it.
    scenario: Value,
    /// The claim that the page's own schedule breaks.
    target: Option<String>,
    /// The page's own schedule.
    schedule: Vec<StepRow>,
    /// Where it is taken another way, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    takes: Vec<Take>,
    /// What is possible after so many steps; without it, the whole story.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
}

/// Another step in a place; without one, the schedule goes on to its end from there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Take {
    /// The steps before it.
    at: usize,
    step: Option<StepRow>,
}

impl Question {
    /// What a page asks about its own schedule.
    #[must_use]
    pub fn new(scenario: &Scenario, steps: &[Step], target: Option<Invariant>) -> Self {
        let mut state = large(scenario);
        let schedule = steps
            .iter()
            .map(|&step| {
                let row = row(scenario, &state, step);
                apply(&scenario.machine, &mut state, step);
                row
            })
            .collect();
        Self {
            scenario: scenario.source.clone(),
            target: target.map(|invariant| invariant.name().to_owned()),
            schedule,
            takes: Vec::new(),
            at: None,
        }
    }
}

/// The answer to a [`Question`]; what is wrong with it is an answer too: `error`.
#[must_use]
pub fn answer(question: &str) -> String {
    let told = match serde_json::from_str(question) {
        Ok(question) => tell(&question),
        Err(error) => Err(error.to_string()),
    };
    told.unwrap_or_else(|error| json!({ "error": error }))
        .to_string()
}

fn tell(question: &Question) -> Result<Value, String> {
    let scenario =
        Scenario::from_json("this page", &question.scenario).map_err(|error| error.to_string())?;
    let target = match &question.target {
        Some(name) => Some(Invariant::by_name(name).ok_or_else(|| format!("no claim `{name}`"))?),
        None => None,
    };
    let mut schedule = Schedule::of(&scenario, &question.schedule)?;
    for take in &question.takes {
        schedule = schedule.taken_another_way(take)?;
    }
    match question.at {
        Some(at) => schedule.possible(at),
        None => schedule.story(target),
    }
}

/// Steps, and the state after them.
struct Schedule<'a> {
    scenario: &'a Scenario,
    steps: Vec<Step>,
    rows: Vec<StepRow>,
    state: State<Large>,
    /// Whether the protocol has said that it is done.
    is_over: bool,
}

impl<'a> Schedule<'a> {
    fn empty(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            steps: Vec::new(),
            rows: Vec::new(),
            state: large(scenario),
            is_over: false,
        }
    }

    fn of(scenario: &'a Scenario, rows: &[StepRow]) -> Result<Self, String> {
        let mut schedule = Self::empty(scenario);
        for row in rows {
            schedule.take(row)?;
        }
        Ok(schedule)
    }

    fn push(&mut self, step: Step) {
        self.rows.push(row(self.scenario, &self.state, step));
        self.steps.push(step);
        let effect = apply(&self.scenario.machine, &mut self.state, step);
        self.is_over |= matches!(effect, Effect::Claim { .. });
    }

    fn take(&mut self, row: &StepRow) -> Result<(), String> {
        let step =
            find_step(self.scenario, &self.state, &StepLine::of(row)).map_err(|complaint| {
                let number = self.steps.len() + 1;
                format!("step {number}: {}; {}", complaint.problem, complaint.help)
            })?;
        self.push(step);
        Ok(())
    }

    fn next(&self) -> Vec<Step> {
        let mut possible = Vec::new();
        for_each_step(&self.scenario.machine, &self.state, |step| {
            possible.push(step);
        });
        possible
    }

    /// The same with another step in a place. What came after it comes after it still, as far as it is possible then.
    fn taken_another_way(self, take: &Take) -> Result<Self, String> {
        let Some(before) = self.rows.get(..take.at) else {
            return Err(format!("there is no step {}", take.at));
        };
        let mut other = Self::of(self.scenario, before)?;
        let Some(step) = &take.step else {
            other.go_on_to_the_end();
            return Ok(other);
        };
        other.take(step)?;
        let mut rest = self.rows[take.at..].to_vec();
        // Taken now, it is not taken later.
        if let Some(later) = rest.iter().position(|row| row == step) {
            rest.remove(later);
        }
        for row in &rest {
            // What is not possible any more is left out.
            let _ = other.take(row);
        }
        Ok(other)
    }

    /// Goes on until the protocol is done: the VMM as long as it can, others in turns where it waits for them.
    fn go_on_to_the_end(&mut self) {
        while !self.is_over && self.steps.len() < MOST_STEPS {
            let possible = self.next();
            let threads = possible
                .iter()
                .filter(|step| matches!(step.actor, Actor::Thread(_)));
            let threads: Vec<Step> = threads.copied().collect();
            let among = if threads.is_empty() {
                possible
            } else {
                threads
            };
            let Some(&step) = among.get(self.steps.len() % among.len().max(1)) else {
                return;
            };
            self.push(step);
        }
    }

    /// What is possible after `at` steps, in words, with what each would break.
    fn possible(&self, at: usize) -> Result<Value, String> {
        let Some(before) = self.rows.get(..at) else {
            return Err(format!("there is no step {at}"));
        };
        let here = Self::of(self.scenario, before)?;
        let machine = &self.scenario.machine;
        let broken_before = oracle::check(machine, &here.state, Effect::None);
        let possible: Vec<Value> = here
            .next()
            .into_iter()
            .map(|step| {
                let word = describe(machine, &here.state, step);
                let row = row(self.scenario, &here.state, step);
                let mut after = here.state.clone();
                let effect = apply(machine, &mut after, step);
                let broken = oracle::check(machine, &after, effect).without(broken_before);
                let breaks: Vec<&str> = broken.iter().map(Invariant::name).collect();
                let words = RowWriter::new(self.scenario).step(
                    1,
                    0,
                    step,
                    word,
                    row.page.as_deref(),
                    &here.state,
                    &after,
                );
                let lane = lane_of_step(machine, &here.state, step);
                json!({ "step": row, "lane": lane, "words": words, "breaks": breaks })
            })
            .collect();
        Ok(json!({ "possible": possible }))
    }

    /// The story of the schedule: of the claim that the page is about, or of another that breaks.
    fn story(&self, target: Option<Invariant>) -> Result<Value, String> {
        let scenario = self.scenario;
        let told = steps::rows(scenario, &self.steps).map_err(|error| error.to_string())?;
        let broken = |name: &str| told.iter().any(|row| row.breaks.iter().any(|b| b == name));
        let claim = target
            .filter(|invariant| broken(invariant.name()))
            .or_else(|| {
                let first = told.iter().find_map(|row| row.breaks.first());
                first.and_then(|name| Invariant::by_name(name))
            })
            .or_else(|| {
                let first = first::broken(&scenario.machine, &large(scenario));
                target.filter(|invariant| first.has(*invariant))
            });
        let mut story = Story::new(scenario, &self.steps, claim, String::new())
            .map_err(|error| error.to_string())?;
        if story.invariant.is_none() {
            let possible = self.next().len();
            story.conclusion[0] = match (self.is_over, possible) {
                (true, _) => "No claim is broken, and the schedule comes to its end.".to_owned(),
                (false, 0) => "No claim is broken, and nobody can act any more.".to_owned(),
                (false, possible) => format!(
                    "No claim is broken so far. The schedule is not over: {possible} step{} possible.",
                    if possible == 1 { " is" } else { "s are" }
                ),
            };
        }
        let mut header = Header::new(Kind::Step);
        header.expect = Some(story.invariant.map_or(Expect::Holds, |invariant| {
            Expect::Violated(invariant.name().to_owned())
        }));
        let end = story.notes.len();
        Ok(json!({
            "story": drawn::data(&story),
            "mail": format!("{}\n{}", write_scenario(&scenario.source, None), write_schedule(&header, &told[..end])),
        }))
    }
}
