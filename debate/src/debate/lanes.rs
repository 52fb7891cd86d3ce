//! A trace as lanes: a line for each block, and what became of the page. The story is `explain`'s.

use dirtysim_model::oracle::Invariant;
use dirtysim_model::transition::Step;

use crate::explain::Story;
use crate::scenario::Scenario;

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Who: `vcpu0`, `thread0`.
    pub who: String,
    /// What it does, in a line.
    pub what: String,
    /// What that does to the page that is lost; empty if nothing.
    pub page: String,
}

/// A trace for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes {
    /// The page that the violation is about, by name, if it is about one.
    pub page: Option<String>,
    /// The lanes' names, in the order in which they are shown.
    pub names: Vec<String>,
    /// The lines.
    pub blocks: Vec<Block>,
    /// What happened, in a few sentences.
    pub conclusion: Vec<String>,
}

/// The lanes of a schedule that breaks `invariant`; none if it is not possible.
#[must_use]
pub fn lanes(scenario: &Scenario, steps: &[Step], invariant: Invariant) -> Option<Lanes> {
    let story = Story::new(scenario, steps, Some(invariant), String::new()).ok()?;
    let blocks = story
        .rows
        .iter()
        .map(|row| {
            let mut changes: Vec<&str> = story.notes[row.first - 1..row.last]
                .iter()
                .flat_map(|note| note.changes.iter().map(String::as_str))
                .collect();
            changes.dedup();
            Block {
                who: story.lanes[row.lane].name.clone(),
                what: row.text(),
                page: changes.join("; "),
            }
        })
        .collect();
    Some(Lanes {
        page: story.pages.first().cloned(),
        names: story.lanes.iter().map(|lane| lane.name.clone()).collect(),
        blocks,
        conclusion: story.conclusion,
    })
}
