//! Rows of kind `step`: one atomic step of one actor, and what it broke.

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariants};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{
    Actor, Effect, Step, describe, for_each_choice, for_each_step, subject,
};
use dirtysim_model::words::Subject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Complaint, Problem};
use super::header::Kind;
use super::lines::object_into;
use super::problems::{FieldProblem, RowProblem};
use super::row::TraceRow;
use crate::scenario::Scenario;

/// One step of a schedule, in words that do not depend on how the model numbers its choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRow {
    /// The actor: `vcpu0`, `thread0`, `device0`, …
    pub who: String,
    /// What it does, in the words of `dirtysim_model::transition::describe`.
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
        object_into(object).map_err(|error| Complaint::from_serde(&error, Problem::row_field))
    }

    fn from_text(text: &str) -> Option<Self> {
        StepLine::from_text(text).map(|line| line.to_row())
    }

    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }

    fn to_line(&self) -> Result<String, Complaint> {
        serde_json::to_string(self).map_err(|error| {
            Complaint::row(
                RowProblem::Field(FieldProblem::Parser(error.to_string())),
                "a step has texts only",
            )
        })
    }
}

/// A [`StepRow`] that borrows its words from the line on which it stands: replay reads millions of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepLine<'a> {
    pub(crate) who: &'a str,
    #[serde(rename = "do")]
    pub(crate) what: &'a str,
    #[serde(borrow, default)]
    pub(crate) page: Option<&'a str>,
    #[serde(borrow, default)]
    pub(crate) breaks: Vec<&'a str>,
    #[serde(borrow, default)]
    pub(crate) pages: Vec<&'a str>,
}

impl<'a> StepLine<'a> {
    /// The row in a line; none where a word is written with escapes, or the line is no such row.
    pub(crate) fn from_text(text: &'a str) -> Option<Self> {
        // A list of values would be read as a row, too.
        if !text.starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    pub(crate) fn of(row: &'a StepRow) -> Self {
        Self {
            who: &row.who,
            what: &row.what,
            page: row.page.as_deref(),
            breaks: row.breaks.iter().map(String::as_str).collect(),
            pages: row.pages.iter().map(String::as_str).collect(),
        }
    }

    pub(crate) fn to_row(&self) -> StepRow {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        StepRow {
            who: self.who.to_owned(),
            what: self.what.to_owned(),
            page: self.page.map(str::to_owned),
            breaks: owned(&self.breaks),
            pages: owned(&self.pages),
        }
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

/// The actor of that name, if `state` has it.
fn actor_of<L: Layout>(state: &State<L>, name: &str) -> Option<Actor> {
    let number = |prefix: &str, len: usize| {
        let digits = name.strip_prefix(prefix)?;
        (0..len).find(|&index| is_number(digits, index as u32))
    };
    if let Some(index) = number("vcpu", state.vcpus.len()) {
        return Some(Actor::Vcpu(index as u8));
    }
    if let Some(index) = number("thread", state.threads.len()) {
        return Some(Actor::Thread(index as u8));
    }
    number("device", state.devices.len()).map(|index| Actor::Device(index as u8))
}

/// Whether `digits` is `number` as it is printed.
fn is_number(digits: &str, number: u32) -> bool {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain && (digits.len() == 1 || !digits.starts_with('0')) && digits.parse() == Ok(number)
}

/// The page that a step is about, in words.
#[must_use]
pub fn page_name<L: Layout>(scenario: &Scenario, state: &State<L>, step: Step) -> Option<String> {
    let page = subject(&scenario.machine, state, step)?;
    Some(match page {
        Subject::Frame(frame) => scenario.frame_name(frame),
        Subject::Host(host) => scenario.page_name(host),
    })
}

/// Whether a step is about the page of that name: [`page_name`] compared, and nothing made.
fn is_about<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    step: Step,
    name: Option<&str>,
) -> bool {
    let (page, name) = match (subject(machine, state, step), name) {
        (Some(page), Some(name)) => (page, name),
        (page, name) => return page.is_none() && name.is_none(),
    };
    // Its slot and its offset there; or its number.
    let (slot, number) = match page {
        Subject::Frame(frame) => {
            let slot = machine
                .slot_of_frame(frame)
                .map(|slot| &machine.slots[slot]);
            (slot, slot.map_or(frame.0, |slot| frame - slot.frame))
        }
        Subject::Host(host) => {
            let slot = machine.slots.iter().find(|slot| slot.has_host(host));
            (slot, slot.map_or(host.0, |slot| host - slot.host))
        }
    };
    match slot {
        Some(slot) => name
            .strip_prefix(slot.name.as_str())
            .and_then(|rest| rest.strip_prefix(':'))
            .is_some_and(|digits| is_number(digits, number)),
        None => is_number(name, number),
    }
}

/// The row of a step that is possible in `state`; what it breaks is added by [`note_broken`].
#[must_use]
pub fn row<L: Layout>(scenario: &Scenario, state: &State<L>, step: Step) -> StepRow {
    StepRow {
        who: actor_name(step.actor),
        what: describe(&scenario.machine, state, step).name().to_owned(),
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

/// The step that `line` names in `state`.
///
/// # Errors
/// A complaint that names the steps that are possible.
pub(crate) fn find_step<L: Layout>(
    scenario: &Scenario,
    state: &State<L>,
    line: &StepLine<'_>,
) -> Result<Step, Complaint> {
    let machine = &scenario.machine;
    let mut found = None;
    if let Some(actor) = actor_of(state, line.who) {
        for_each_choice(machine, state, actor, |choice| {
            let step = Step { actor, choice };
            if found.is_none()
                && describe(machine, state, step) == line.what
                && is_about(machine, state, step, line.page)
            {
                found = Some(step);
            }
        });
    }
    found.ok_or_else(|| {
        let mut possible = Vec::new();
        for_each_step(machine, state, |step| {
            possible.push(words(&row(scenario, state, step)));
        });
        let possible = if possible.is_empty() {
            "none: the schedule is over".to_owned()
        } else {
            possible.join("; ")
        };
        Complaint::row(
            RowProblem::NotPossible(words(&line.to_row())),
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
