//! Rows of kind `step`: one atomic step of one actor, and what it broke.

use dirtysim_model::layout::Layout;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariants};
use dirtysim_model::pages::PageSet;
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Effect, Step, describe, for_each_step, subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Complaint, Problem};
use super::header::Kind;
use super::lines::object_into;
use super::reader::TraceRow;
use crate::scenario::Scenario;

/// One step of a schedule, in words that do not depend on how the model numbers its choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRow {
    /// The actor: `vcpu0`, `thread0`, `device0`, …
    pub who: String,
    /// What it does, in the words of `dirtysim_model::step::describe`.
    #[serde(rename = "do")]
    pub what: String,
    /// The page that it is about, as `slot:offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The claims that are broken after the step and were not after the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<String>,
    /// The pages that the first of these claims is about, as `slot:offset`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<String>,
}

impl TraceRow for StepRow {
    const KIND: Kind = Kind::Step;

    fn from_object(object: Map<String, Value>) -> Result<Self, Complaint> {
        object_into(object).map_err(|error| Complaint::from_serde(&error, Problem::Row))
    }

    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }

    fn to_line(&self) -> Result<String, Complaint> {
        serde_json::to_string(self)
            .map_err(|error| Complaint::row(error.to_string(), "a step has texts only"))
    }
}

/// The name of an actor: `vcpu0`, `thread1`, `device0`.
#[must_use]
pub fn actor_name(actor: Actor) -> String {
    match actor {
        Actor::Vcpu(index) => format!("vcpu{index}"),
        Actor::Thread(index) => format!("thread{index}"),
        Actor::Device(index) => format!("device{index}"),
    }
}

/// The page that a step is about, in words.
#[must_use]
pub fn page_name<L: Layout>(scenario: &Scenario, state: &State<L>, step: Step) -> Option<String> {
    let page = subject(&scenario.machine, state, step)?;
    Some(match what_is_named(&scenario.machine, state, step) {
        Named::Frame => scenario.frame_name(page),
        Named::HostPage => scenario.page_name(page),
    })
}

/// Which numbering a step's page belongs to.
enum Named {
    Frame,
    HostPage,
}

fn what_is_named<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Named {
    // Copies are of host pages; everything else is of frames.
    match describe(machine, state, step) {
        "copy" | "send-fails" => Named::HostPage,
        _ => Named::Frame,
    }
}

/// The row of a step that is possible in `state`; what it breaks is added by [`note_broken`].
#[must_use]
pub fn row<L: Layout>(scenario: &Scenario, state: &State<L>, step: Step) -> StepRow {
    StepRow {
        who: actor_name(step.actor),
        what: describe(&scenario.machine, state, step).to_owned(),
        page: page_name(scenario, state, step),
        breaks: Vec::new(),
        pages: Vec::new(),
    }
}

/// Adds to `row` the claims of `broken` that were not in `before`, and the pages of the first.
pub fn note_broken<L: Layout>(
    scenario: &Scenario,
    state: &State<L>,
    effect: Effect,
    before: Invariants,
    broken: Invariants,
    row: &mut StepRow,
) {
    use dirtysim_model::oracle::Invariant;
    let mut fresh = broken.iter().filter(|invariant| !before.has(*invariant));
    let Some(first) = fresh.next() else { return };
    row.breaks = std::iter::once(first)
        .chain(fresh)
        .map(|invariant| invariant.name().to_owned())
        .collect();
    let machine = &scenario.machine;
    let pages = match (first, effect) {
        (Invariant::NoDirtyPageLost, Effect::Claim { postcopy }) => {
            oracle::lost(machine, state, postcopy)
        }
        (Invariant::StalePageIsAccountedFor, _) => oracle::stale_unaccounted(machine, state),
        (Invariant::UnrecordedPageIsArmed, _) => oracle::unarmed(machine, state),
        (Invariant::NoSpuriousDirtyPage, _) => state.spurious.clone(),
        _ => return,
    };
    row.pages = pages.iter().map(|host| scenario.page_name(host)).collect();
}

/// The step that `row` names in `state`.
///
/// # Errors
/// A complaint that names the steps that are possible.
pub fn find_step<L: Layout>(
    scenario: &Scenario,
    state: &State<L>,
    row: &StepRow,
) -> Result<Step, Complaint> {
    let mut found = None;
    let mut possible = Vec::new();
    for_each_step(&scenario.machine, state, |step| {
        let candidate = self::row(scenario, state, step);
        if candidate.who == row.who && candidate.what == row.what && candidate.page == row.page {
            found.get_or_insert(step);
        }
        possible.push(words(&candidate));
    });
    found.ok_or_else(|| {
        let possible = if possible.is_empty() {
            "none: the schedule is over".to_owned()
        } else {
            possible.join("; ")
        };
        Complaint::row(
            format!("not possible here: {}", words(row)),
            format!("possible: {possible}"),
        )
    })
}

/// A step in a few words: `vcpu0 store ram:2`.
fn words(row: &StepRow) -> String {
    let page = row
        .page
        .as_ref()
        .map_or(String::new(), |page| format!(" {page}"));
    format!("{} {}{page}", row.who, row.what)
}
